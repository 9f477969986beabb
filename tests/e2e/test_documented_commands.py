"""Every command and program in README.md and docs/ runs, and prints what the page shows.

A fenced block is run here, belongs to a page that another test runs, or is listed with the reason it cannot run.
"""

import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from documented import PAGES, Block, Reader, blocks, shape
from medserve_client.cli import main as client
from medserve_server.process.cli import main as server
from programs import environment_python, program
from servers.server_process import REPOSITORY
from waiting import PATIENCE

RUN_BY = {
    "docs/clients.md": "tests/e2e/other_clients/test_clients_page.py",
    "docs/training.md": "tests/e2e/test_training_page.py",
}

# By page and start of the first line.
EXCEPTIONS = {
    ("README.md", "import numpy as np, tritonclient"): "in a separate environment: the test below",
    ("docs/packaged-models.md", "make train"): "trains for minutes",
    ("docs/packaged-models.md", ".venv-dev/bin/medserve-train init cohort.csv"): "uses the reader's data",
    ("docs/loadtest.md", ".venv/bin/medserve loadtest"): "loads the machine for minutes",
    ("docs/deployment.md", "docker build"): "needs Docker: make test-container",
    ("docs/images.md", "scans: 37 of 200 images"): "uses the reader's data",
    ("docs/rest.md", '{"error"'): "the response to a request that the page does not show",
    ("docs/operations.md", "$ make test-gpu"): "needs a GPU",
}

# By page and start of the first line: expected nonzero exit statuses and the output documented for them.
FAILING = {
    ("docs/getting-started.md", "cat > patients.csv"): (
        [1, 1],
        "patients.csv:4: column age: is 999, expected a number from 18 to 110 years",
    ),
}

# Pages that call a server without starting one first.
NEEDS_SERVER = {
    "docs/explanations.md",
    "docs/images.md",
    "docs/operations.md",
    "docs/pathology.md",
    "docs/python.md",
    "docs/rest.md",
    "docs/segmentation.md",
}
OUTPUTS = {"", "text"}

OTHERS_FLAGS = {
    "--callers": "make soak",
    "--min-max-window": "dcmtk",
    "--tmpfs": "docker",
    "--target": "docker",
}


def training() -> object:
    """Runs `medserve-train`."""
    from medserve_training.commands.cli import main  # noqa: PLC0415 - imports PyTorch

    return main()


PROGRAMS: dict[str, Callable[[], object]] = {
    "medserve": client,
    "medserve-server": server,
    "medserve-train": training,
}
"""The main function of each command, which imports as much in this process as each of its processes would."""


def of(block: Block, page: str, start: str) -> bool:
    return block.page == page and block.text.startswith(start)


def entry(table: Iterable[tuple[str, str]], block: Block) -> tuple[str, str] | None:
    return next((found for found in table if of(block, *found)), None)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    program("curl", "curl")
    program("openssl", "openssl")
    # Envoy's sockets are created there, and socket paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets, ExitStack() as stack:
        monkeypatch.setenv("TMPDIR", sockets)
        # What pages assume: a file of the reader, and the files created by docs/getting-started.md.
        shutil.copy(REPOSITORY / "models/chest-xray/1/model.onnx", tmp_path)
        Image.radial_gradient("L").save(tmp_path / "picture.png")
        (tmp_path / "patients.csv").write_text("age,menopause,tumor_size,grade,positive_nodes\n45,pre,20,II,2\n")
        yield Reader(tmp_path, stack)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_BY and blocks(page)])
def test_page_runs_from_top_to_bottom(page: str, reader: Reader) -> None:
    if page in NEEDS_SERVER:
        reader.serve()
    for block in blocks(page):
        if entry(EXCEPTIONS, block):
            continue
        if block.language in OUTPUTS:
            assert shape(reader.output) == shape(block.text)
            continue
        assert block.language in {"sh", "python"}, f"{page}: run or list it: {block.text}"
        failing = entry(FAILING, block)
        statuses, words = FAILING[failing] if failing else ([], "")
        assert reader.run(block) == statuses, f"{block.text}\n{reader.output}{reader.errors}"
        assert words in reader.errors


def test_tritonclient_example_in_readme_runs(reader: Reader) -> None:
    python = environment_python("triton")
    (block,) = [block for block in blocks("README.md") if of(block, "README.md", "import numpy as np, triton")]
    reader.serve()
    assert reader.execute(str(python), "-c", reader.addressed(block.text)) == [], reader.errors
    assert re.fullmatch(r"\[\[0\.\d+ 0\.\d+ *]]\n", reader.output)


def test_every_exception_matches_one_block() -> None:
    written = [block for page in PAGES for block in blocks(page)]
    for one in (*EXCEPTIONS, *FAILING):
        assert sum(of(block, *one) for block in written) == 1, one


@cache
def help_of(*command: str) -> str:
    """Returns the help text of a command; the command must exist."""
    if command[0] == "python":
        done = subprocess.run(
            [sys.executable, *command[1:], "--help"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
        return done.stdout
    text, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text), redirect_stderr(errors):
        patch.setattr(sys, "argv", [*command, "--help"])
        with pytest.raises(SystemExit) as caught:
            PROGRAMS[command[0]]()
    assert not caught.value.code, f"{shlex.join(command)}: {errors.getvalue()}"
    return text.getvalue()


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def subcommands(command: str) -> list[str]:
    if command == "medserve-server":
        return ["token"]  # its help mentions it only in a sentence
    return re.findall(r"^    ([a-z-]+)(?:  |$)", help_of(command), re.MULTILINE)


def spans(page: str) -> list[str]:
    """Returns the text in `backticks` within sentences."""
    text = re.sub(r"```.*?```", "", (REPOSITORY / page).read_text("utf-8"), flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def written_lines() -> Iterator[str]:
    """Yields every line that may be a command, up to the first pipe, redirection or comment."""
    for page in PAGES:
        scripts = [block.text for block in blocks(page) if block.language in {"sh", "console"}]
        for line in "\n".join([*scripts, *spans(page)]).replace("\\\n", " ").splitlines():
            yield re.split(r" +#| [|;&]| \d?>", line.strip().removeprefix("$ "))[0]


_COMMAND = r"(?:\S*/)?(medserve(?:-server|-train)?|python -m benchmarks\.\w+) +(.+)"
LINES = sorted({line for line in written_lines() if re.match(_COMMAND, line)})


def parsed(line: str) -> tuple[tuple[str, ...], list[str]]:
    """Returns the command and the words after it."""
    found = re.match(_COMMAND, line)
    assert found is not None
    return tuple(found[1].split()), shlex.split(found[2])


@pytest.mark.parametrize("command", sorted({parsed(line)[0] for line in LINES}), ids=" ".join)
def test_documented_subcommands_and_flags_exist(command: tuple[str, ...]) -> None:
    for line, (of_line, words) in ((line, parsed(line)) for line in LINES):
        if of_line != command:
            continue
        known = flags(help_of(*command))
        if command[0] in PROGRAMS:
            chosen = [word for word in words if word in subcommands(command[0])][:1]
            assert chosen or command[0] == "medserve-server" or words == ["--help"], f"no such command: {line}"
            known |= flags(help_of(*command, *chosen))
        assert flags(" ".join(words)) <= known, line


def test_flags_in_sentences_exist() -> None:
    known = set(OTHERS_FLAGS)
    for command in PROGRAMS:
        known |= flags(help_of(command))
        for subcommand in subcommands(command):
            known |= flags(help_of(command, subcommand))
    assert {flag for page in PAGES for span in spans(page) if span.startswith("--") for flag in flags(span)} <= known


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w./-]+):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    lines = [line.split()[1:] for line in written_lines() if line.startswith("make ")]
    assert {word for words in lines for word in words if re.fullmatch(r"[\w./-]+", word)} <= targets
