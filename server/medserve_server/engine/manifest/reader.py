"""Reads a model's manifest from the metadata of its ONNX file and validates it against the graph."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from google.protobuf import json_format

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.engine.manifest.classification import classification_problems
from medserve_server.engine.manifest.risk import risk_problems
from medserve_server.engine.manifest.segmentation import segmentation_problems, segmentation_reference_problems
from medserve_server.engine.session import TensorSpec
from medserve_server.errors import ModelLoadError

KEY = "medserve.manifest"
SCHEMA_VERSION = 1


def read_manifest(
    path: Path, metadata: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Manifest | None:
    """Parses and validates the manifest; returns None if the file has none.

    Raises:
        ModelLoadError: the manifest cannot be parsed, has an unsupported schema version, is inconsistent, or does not
            match the graph.
    """
    if KEY not in metadata:
        return None
    try:
        manifest = json_format.Parse(metadata[KEY], Manifest())
    except json_format.ParseError as error:
        raise ModelLoadError(f"{path}: {KEY} is not a valid manifest: {error}") from error
    if problems := list(_problems(manifest, inputs, outputs)):
        raise ModelLoadError(f"{path}: invalid manifest: {'; '.join(problems)}")
    return manifest


def _problems(manifest: Manifest, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Iterator[str]:
    if manifest.schema_version != SCHEMA_VERSION:
        yield f"schema_version is {manifest.schema_version}, this server supports {SCHEMA_VERSION}"
        return
    match manifest.WhichOneof("task"):
        case "image_classification":
            yield from classification_problems(manifest.image_classification, inputs, outputs)
            yield from _reference_problems(manifest, inputs, outputs)
        case "patient_risk":
            yield from risk_problems(manifest.patient_risk, inputs, outputs)
            yield from _reference_problems(manifest, inputs, outputs)
        case "image_segmentation":
            yield from segmentation_problems(manifest.image_segmentation, inputs, outputs)
            yield from segmentation_reference_problems(manifest)
        case _:
            yield "no task is set"


def main_output(manifest: Manifest) -> str:
    """Returns the name of the output whose values the manifest's reference rows contain."""
    return "survival" if manifest.WhichOneof("task") == "patient_risk" else "probabilities"


def _reference_problems(
    manifest: Manifest, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[str]:
    """Checks that each reference row holds one row of the input and one of the output."""
    row = math.prod(inputs[0].shape[1:])
    answer = next((math.prod(spec.shape[1:]) for spec in outputs if spec.name == main_output(manifest)), 0)
    images = manifest.WhichOneof("task") == "image_classification"
    for index, reference in enumerate(manifest.reference):
        size = len(reference.pixels if images else reference.features)
        if (size, len(reference.probabilities)) != (row, answer):
            yield (
                f"reference[{index}] has {size} values and {len(reference.probabilities)} probabilities, "
                f"expected {row} and {answer}"
            )
