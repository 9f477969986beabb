"""The `medserve segment` command against a small server."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medserve_client import RunLength
from medserve_client.cli import main

Captured = pytest.CaptureFixture[str]
Run = Callable[..., int]
SIZES = {
    "area_px": "15",
    "area": "3.75",
    "equivalent_diameter": "2",
    "major_axis": "2.5",
    "minor_axis": "1.5",
    "perimeter": "8",
    "circularity": "0.5",
    "mean_probability": "0.75",
    "touches_border": "false",
    "unit": "mm",
}
SPACING = ("--pixel-spacing", "0.5,0.25")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images and a file that the server rejects."""
    made = tmp_path / "slides"
    made.mkdir()
    for name, content in (("a.png", b"four"), ("b.png", b"bad"), ("c.png", b"three")):
        (made / name).write_bytes(content)
    return made


@pytest.fixture
def run(laboratory: str) -> Run:
    """Runs `medserve segment` and returns its exit status."""
    return lambda *arguments: main(["--server", laboratory, "segment", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_table_has_a_row_for_each_label(run: Run, folder: Path, capsys: Captured) -> None:
    assert run(folder) == 1
    captured = capsys.readouterr()
    assert captured.err == f"{folder}/b.png: not a PNG file\n"
    title, *lines = captured.out.splitlines()
    assert title.strip() == "cells, version 1"
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        [f"{folder}/a.png", "=nucleus/1", "2 (1.75 to 2.5)", "16 px", "25.0%", "", "12.5%", "4 bytes in 2 tiles"],
        ["", "cell", "1", "0 px", "50.0%", "cell circumference 20 px", "", ""],
        [f"{folder}/c.png", "=nucleus/1", "2 (1.75 to 2.5)", "16 px", "25.0%", "", "12.5%", "5 bytes in 2 tiles"],
        ["", "cell", "1", "0 px", "50.0%", "cell circumference 20 px", "", ""],
    ]
    assert run(folder / "a.png", *SPACING) == 0
    shown = capsys.readouterr().out
    assert "4 mm²" in shown
    assert "cell circumference 20 mm (18.5 to 21.5)" in shown


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_objects_are_written_with_their_unit_and_no_formulas(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    assert run(folder / "a.png", *SPACING, "--objects", path) == 0
    first, second = rows(path)
    place = {"left": "1", "top": "2", "width": "4", "height": "4", "centroid_x": "3", "centroid_y": "4.5"}
    name = {"file": str(folder / "a.png"), "frame": "0", "label": "'=nucleus/1", "id": "1"}
    assert first == name | place | SIZES
    assert (second["id"], second["touches_border"]) == ("2", "true")
    assert run(folder, "--max-objects", "1", "--objects", path) == 1
    found = [(Path(row["file"]).name, row["id"], row["unit"]) for row in rows(path)]
    assert found == [("a.png", "1", "px"), ("c.png", "1", "px")]


def test_annotations_are_in_the_format_of_coco(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    assert run(folder, "--coco", path) == 1
    document = json.loads(path.read_text())
    assert document["images"] == [
        {"id": 1, "file_name": f"{folder}/a.png", "height": 9, "width": 7},
        {"id": 2, "file_name": f"{folder}/c.png", "height": 9, "width": 7},
    ]
    assert document["categories"] == [{"id": 1, "name": "=nucleus/1"}, {"id": 2, "name": "cell"}]
    annotations = document["annotations"]
    assert [one["id"] for one in annotations] == [1, 2, 3, 4]
    assert [one["image_id"] for one in annotations] == [1, 1, 2, 2]
    for one in annotations:
        left, top, width, height = one["bbox"]
        mask = RunLength(one["segmentation"]["counts"], *one["segmentation"]["size"]).mask()
        y, x = np.nonzero(mask)
        assert (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1) == (left, top, width, height)
        assert (mask.sum(), one["category_id"], one["iscrowd"], one["score"]) == (one["area"], 1, 0, 0.75)


def test_pictures_are_written_to_folders(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--overlay", tmp_path / "seen", "--masks", tmp_path / "masks") == 1
    assert names(tmp_path / "seen") == ["a.overlay.png", "c.overlay.png"]
    assert (tmp_path / "seen/a.overlay.png").read_bytes() == b"overlay"
    assert names(tmp_path / "masks") == [
        "a.mask.%3Dnucleus%2F1.png",
        "a.mask.cell.png",
        "c.mask.%3Dnucleus%2F1.png",
        "c.mask.cell.png",
    ]
    assert (tmp_path / "masks/a.mask.cell.png").read_bytes() == b"mask"


def test_json_lines_have_the_objects(run: Run, folder: Path, capsys: Captured) -> None:
    assert run("--json", folder, *SPACING) == 1
    first, bad, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (bad["file"], bad["error"]) == (f"{folder}/b.png", "not a PNG file")
    assert (first["model"], first["model_sha256"], first["tiles"]) == ("cells", "5ca1ab1e", 2)
    assert first["pixel_spacing"] == {"row_mm": 0.5, "column_mm": 0.25, "source": "request"}
    assert first["warnings"] == [{"kind": "tiled", "message": "4 bytes in 2 tiles"}]
    nucleus, cell = first["labels"]
    assert (nucleus["count"], nucleus["count_interval"]["high"], len(nucleus["objects"])) == (2, 2.5, 2)
    assert nucleus["objects"][0]["box"] == {"left": 1, "top": 2, "width": 4, "height": 4}
    assert nucleus["objects"][0]["centroid"] == [3.0, 4.5]
    assert cell["measures"][0]["interval"] == {"low": 18.5, "high": 21.5, "coverage": 0.95}


@pytest.mark.parametrize("format_", [".csv", ".jsonl"])
def test_results_are_resumed(run: Run, folder: Path, tmp_path: Path, format_: str, capsys: Captured) -> None:
    output = tmp_path / f"results{format_}"
    assert run(folder, "-o", output, *SPACING) == 1
    assert "cells" not in capsys.readouterr().out  # no table
    whole = output.read_bytes()
    (folder / "b.png").write_bytes(b"fine")
    assert run(folder, "-o", output, *SPACING) == 0
    assert f"{output}: has the results of 2 of 3 files, which are skipped" in capsys.readouterr().err
    kept = [line for line in whole.splitlines() if b"not a PNG file" not in line]
    assert output.read_bytes().splitlines()[:-1] == kept
    # A table of objects without those of the skipped files would look complete.
    assert run(folder, "-o", output, "--objects", tmp_path / "objects.csv") == 2
    assert "would lack the objects of the 3 files whose results are in" in capsys.readouterr().err
    assert names(tmp_path) == [output.name, "slides"]


def test_a_file_whose_name_is_a_formula_is_resumed(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(folder)
    (folder / "a.png").rename("=a.png")
    for _ in range(2):
        assert run("=a.png", "-o", "results.csv") == 0
        assert [row["file"] for row in rows(folder / "results.csv")] == ["'=a.png"]
    assert "results.csv: has the results of 1 of 1 files, which are skipped" in capsys.readouterr().err


def test_result_files_have_a_column_for_each_quantity(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.csv"
    run(folder, "-o", output, *SPACING)
    first, bad, _ = rows(output)
    cells: dict[str, Any] = {
        "height": "9",
        "row_mm": "0.5",
        "column_mm": "0.25",
        "count_=nucleus/1": "2",
        "count_low_=nucleus/1": "1.75",
        "count_high_=nucleus/1": "2.5",
        "area_px_=nucleus/1": "16",
        "area_mm2_=nucleus/1": "4",
        "count_low_cell": "",
        "area_share_cell": "0.5",
        "cell_circumference_cell": "20",
        "cell_circumference_low_cell": "18.5",
        "cell_circumference_unit_cell": "mm",
        "uncertainty": "0.125",
        "novelty": "",
        "warnings": "4 bytes in 2 tiles",
        "error": "",
    }
    assert cells.items() <= first.items()
    assert (bad["error"], bad["count_cell"]) == ("not a PNG file", "")


@pytest.mark.parametrize("kind", ["refused", "unreachable", "unwritable"])
def test_a_failed_command_leaves_no_file(
    laboratory: str, folder: Path, tmp_path: Path, kind: str, capsys: Captured
) -> None:
    existing = tmp_path / "objects.csv"
    existing.write_text("of an earlier run")
    server = "127.0.0.1:1" if kind == "unreachable" else laboratory
    image = folder / ("b.png" if kind == "refused" else "a.png")
    masks = ["--overlay", str(folder / "a.png/x")] if kind == "unwritable" else []
    files = ["--objects", str(existing), "--coco", str(tmp_path / "coco.json"), *masks]
    assert main(["--server", server, "segment", str(image), *files]) == {"refused": 1, "unreachable": 3}.get(kind, 2)
    assert names(tmp_path) == ["objects.csv", "slides"]
    assert existing.read_text() == "of an earlier run"
    assert capsys.readouterr().err


@pytest.mark.process
def test_a_closed_pipe_leaves_no_file(laboratory: str, folder: Path, tmp_path: Path) -> None:
    script = (
        '"$0" -m medserve_client.cli --server "$1" segment --json --objects "$2" $(yes "$3" | head -n 50) | head -n 1'
    )
    command: list[str | Path] = [
        "sh",
        "-c",
        script,
        sys.executable,
        laboratory,
        tmp_path / "objects.csv",
        folder / "a.png",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert names(tmp_path) == ["slides"]


@pytest.mark.parametrize("spacing", ["0.5", "0.5,0", "-1,1", "nan,1", "1,inf", "1,2,3", "a,b"])
def test_an_invalid_pixel_spacing_is_refused(spacing: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment", "image.png", f"--pixel-spacing={spacing}"])
    assert caught.value.code == 2
    assert f"'{spacing}' is not a pixel spacing; expected the distances between rows" in capsys.readouterr().err


def test_images_of_the_same_name_are_refused(run: Run, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (folder / "a.tiff").write_bytes(b"four")
    assert run(folder, "--masks", tmp_path / "masks") == 2
    assert "2 images are named a" in capsys.readouterr().err
    assert names(tmp_path) == ["slides"]


def test_the_model_is_listed_and_described(laboratory: str, capsys: Captured) -> None:
    assert main(["--server", laboratory, "models"]) == 0
    assert "image segmentation" in capsys.readouterr().out
    assert main(["--server", laboratory, "describe", "cells"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "any size, in tiles of up to 16 x 16 pixels, rgb",
        "2 members",
        "separated where they touch",
        "3 px",
        "0.88 to 1.25 of the count in 90% of images",
        "the largest area",
        "cell circumference (-0.25 ± 1.50 mm)",
    ):
        assert words in shown
    assert "Reasons" not in shown


@pytest.mark.process
@pytest.mark.parametrize("mode", ["unary", "stream"])
def test_segmentation_is_load_tested(
    laboratory: str, folder: Path, tmp_path: Path, mode: str, capsys: Captured
) -> None:
    short = ("--duration", "0.4", "--warmup", "0.1", "--metrics-url", "http://127.0.0.1:1/metrics")
    load = ["--server", laboratory, "loadtest", *short, "--model", "cells", "--mode", mode, "--concurrency", "2"]
    path = tmp_path / "run.json"
    assert main([*load, "--batch", "2", "--json", str(path)]) == 0
    (measured,) = json.loads(path.read_text())["runs"]
    assert measured["errors"] == {}
    assert measured["sent"] > 0
    assert main([*load, "--images", str(folder / "a.png"), str(folder / "b.png")]) == 1
    assert "failed: INVALID_ARGUMENT" in capsys.readouterr().out
