"""Checks of a manifest that the tasks share: tensors of the graph, and numbers."""

import math
from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

from medserve_proto.v1.manifest_pb2 import ImageClassificationTask, ImageSegmentationTask, PatientRiskTask
from medserve_server.engine.session import TensorSpec

Task = ImageClassificationTask | ImageSegmentationTask | PatientRiskTask


def tensor_problems(
    kind: str, specs: Sequence[TensorSpec], name: str, datatype: str, shape: tuple[int, ...]
) -> Iterator[str]:
    """Checks that the graph has a tensor with this name, datatype and shape; -1 is a dynamic axis."""
    found = {spec.name: spec for spec in specs}
    if name not in found:
        yield f"the graph has no {kind} {name}, only {', '.join(found)}"
    elif (found[name].datatype, found[name].shape) != (datatype, shape):
        yield (
            f"{kind} {name} is {found[name].datatype} {list(found[name].shape)} in the graph "
            f"and {datatype} {list(shape)} in the manifest"
        )


def confidence_problems(
    task: Task, outputs: Sequence[TensorSpec], members: str, shape: tuple[int, ...]
) -> Iterator[str]:
    """Checks the optional outputs of an ensemble, of this name and shape, and of the novelty."""
    if task.members > 1:
        yield from tensor_problems("output", outputs, members, "FP32", shape)
    if task.HasField("novelty"):
        yield from tensor_problems("output", outputs, "novelty", "FP32", (-1,))
        if not math.isfinite(task.novelty.threshold):
            yield f"novelty.threshold is {task.novelty.threshold}, expected a finite number"


def nan_problems(message: Message, path: str) -> Iterator[str]:
    """Finds NaN values, which the range checks would not detect."""
    for field, value in message.ListFields():
        for entry in value if field.is_repeated else (value,):
            if isinstance(entry, Message):
                yield from nan_problems(entry, f"{path}.{field.name}")
            elif isinstance(entry, float) and math.isnan(entry):
                yield f"{path}.{field.name} is NaN, expected a number"
