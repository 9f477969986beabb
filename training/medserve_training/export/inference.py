"""Runs an ONNX file with ONNX Runtime, without PyTorch."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_training.errors import UserError


def open_session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """Opens an inference session on the CPU.

    Raises:
        UserError: The file does not exist, or is not an ONNX model.
    """
    if isinstance(model, Path) and not model.is_file():
        raise UserError(f"{model} is missing; expected an ONNX file such as models/chest-xray/1/model.onnx")
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError) as error:
        raise UserError(f"ONNX Runtime cannot load the model: {error}") from error


def predict(
    session: onnxruntime.InferenceSession,
    rows: NDArray[np.uint8] | NDArray[np.float32],
    output: str | None = None,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Returns one output, by default the first, of a single-input model for all rows, computed in batches."""
    name = session.get_inputs()[0].name
    wanted = [output or session.get_outputs()[0].name]
    options = onnxruntime.RunOptions()
    # Without this, all outputs are computed.
    options.only_execute_path_to_fetches = True
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return np.concatenate([session.run(wanted, {name: batch}, options)[0] for batch in batches])
