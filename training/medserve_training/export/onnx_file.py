"""Exports PyTorch models to self-contained ONNX files, stripped, checked and compared with PyTorch."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import embed
from medserve_training.export.reference import answers, reference_deviation, reference_input
from medserve_training.staging import Stage

OPSET = 18
# Maximum permitted difference of a probability between PyTorch and ONNX Runtime.
LARGEST_DEVIATION = 1e-5
# Files that `evaluate` writes next to a model.
CARD_FILES = ("card.md", "card.html")


def to_onnx(
    model: nn.Module, example: torch.Tensor, outputs: Sequence[str], stride: int | None = None
) -> onnx.ModelProto:
    """Exports a single-input model, whose input is named after its argument, with a dynamic batch axis.

    Args:
        model: A model on the CPU; switched to evaluation mode.
        example: Two rows of input.
        outputs: Names of the outputs.
        stride: The number of which height and width, the second and third axis, are multiples; None if they are fixed.

    Returns:
        The checked graph, without metadata of the exporter or of this machine.
    """
    model.eval()
    axes: dict[int, object] = {0: torch.export.Dim("batch")}
    if stride is not None:
        axes |= {1: stride * torch.export.Dim("rows"), 2: stride * torch.export.Dim("columns")}
    with _quiet_exporter():
        exported = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=(axes,),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    graph = strip(cast("torch.onnx.ONNXProgram", exported).model_proto)
    onnx.checker.check_model(graph, full_check=True)
    return graph


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppresses the exporter's messages about a missing torchvision and its own use of a deprecated call."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the exporter's stack traces and source paths from metadata and doc strings."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "medserve"
    return model


def deviation(model: nn.Module, exported: NDArray[np.floating], rows: NDArray[np.uint8] | NDArray[np.float32]) -> float:
    """Returns the largest absolute difference between the first outputs of PyTorch and ONNX Runtime.

    Args:
        model: The exported model.
        exported: ONNX Runtime's output for the rows.
        rows: The input.
    """
    return float(np.abs(answers(model, rows) - exported).max())


def write(model: onnx.ModelProto, manifest: pb.Manifest, path: Path, stage: Stage) -> Path:
    """Checks the deviation from PyTorch and writes the model as `save` does, with the same arguments and result.

    The card of a replaced model is removed, since its figures are of the old model.

    Raises:
        UserError: PyTorch and ONNX Runtime differ too much, or the folder is not writable.
    """
    session = open_session(model.SerializeToString())
    differences = {
        "validation split": manifest.training.export_deviation,
        "reference rows": reference_deviation(manifest, predict(session, reference_input(manifest))),
    }
    for rows, difference in differences.items():
        if not difference <= LARGEST_DEVIATION:
            raise UserError(
                f"PyTorch and ONNX Runtime differ by {difference:.2g} on the {rows}, "
                f"more than {LARGEST_DEVIATION:g}: {path} was not written",
            )
    for card in CARD_FILES:
        stage.remove(path.parent / card)
    return save(model, manifest, path, stage)


def save(model: onnx.ModelProto, manifest: pb.Manifest, path: Path, stage: Stage) -> Path:
    """Embeds the manifest into a model and writes it.

    Args:
        model: The model, modified in place.
        manifest: The manifest, which replaces an existing one.
        path: Destination of the file.
        stage: Publishes the file.

    Returns:
        The temporary file until it is published.

    Raises:
        UserError: The folder is not writable.
    """
    embed(model, manifest)
    onnx.checker.check_model(model, full_check=True)
    file = stage.folder(path.parent) / path.name
    file.write_bytes(model.SerializeToString(deterministic=True))
    return file
