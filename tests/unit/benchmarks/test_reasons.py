"""The benchmark of explanations."""

from pathlib import Path

import pytest
from benchmarks import reasons

from samples import explained_models, onnx_models


@pytest.mark.process
def test_each_explanation_that_a_model_supports_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reasons, "ROUNDS", 2)
    onnx_models.save(tmp_path, "decay", explained_models.decay())
    onnx_models.save(tmp_path, "lesions", explained_models.lesions(explained_models.plain_lesions_manifest()))
    reasons.measure_models("grpcio", tmp_path, 3)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [
        "| grpcio: decay, plain",
        "| grpcio: decay, Shapley values",
        "| grpcio: decay, what-if",
        "| grpcio: lesions, plain",
        "| grpcio: lesions, occlusion",
        "| grpcio: lesions, occlusion and overlay",
    ]
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
