"""How requests become inputs of a model, and how large these may be, from its manifest."""

import math
import sys
from dataclasses import replace

from medserve_images import ImageLimits
from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.config import Settings
from medserve_server.engine.manifest.segmentation import input_shape, map_outputs
from medserve_server.engine.providers import GPU_PROVIDERS, Provider
from medserve_server.errors import ModelLoadError
from medserve_server.inputs.images import RequestImages, free_target_of, target_of
from medserve_server.inputs.patients import PatientReader

MAX_CPU_PIXELS, MAX_GPU_PIXELS = 2**16, 2**20
"""Maximum number of pixels that a segmentation model computes in one run, unless a single tile has more. A network
keeps dozens of float values per pixel. On the CPU, a tile of 256 x 256 pixels keeps all threads busy, and several at
once are no faster, and multiply the memory."""
MAP_VALUES = 4
"""Output values per pixel of an image, over all labels, up to which images may have --max-image-megapixels; models with
more accept proportionally smaller images, since the outputs of the whole image are kept in memory."""
SWITCH_INTERVAL = 0.0002
"""Finding objects runs Python code in threads, for which every other thread would wait up to 5 ms by default. While the
objects of 4,000 x 4,000 pixels are found, the 99th percentile of small requests rises by 0.6 instead of 1.2 times."""


def reader_of(manifest: Manifest | None, settings: Settings) -> RequestImages | PatientReader | None:
    """Returns the reader of a model's requests; None for a model without a manifest."""
    if manifest is None:
        return None
    if manifest.WhichOneof("task") == "patient_risk":
        return PatientReader(manifest.patient_risk, settings.max_patient_features)
    limits = ImageLimits(int(settings.max_image_megapixels * 1e6), settings.max_image_ratio)
    if manifest.WhichOneof("task") == "image_segmentation":
        task = manifest.image_segmentation
        values = len(task.labels) * len(map_outputs(task))
        pixels = limits.max_pixels * min(MAP_VALUES, values) // values
        return RequestImages(free_target_of(task.input), replace(limits, max_pixels=pixels))
    return RequestImages(target_of(manifest.image_classification.input), limits)


def largest_tile(manifest: Manifest | None) -> tuple[int, int, int] | None:
    """Returns height, width and channels of the largest input of a segmentation model; None for other models.

    Raises:
        ModelLoadError: the server was installed without the extra for segmentation.
    """
    if manifest is None or manifest.WhichOneof("task") != "image_segmentation":
        return None
    try:
        import medserve_masks  # noqa: F401, PLC0415 - scikit-image is optional, and takes a second to import
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"{manifest.name} is a segmentation model, which requires the extra segmentation "
            "(pip install '.[segmentation]' in a checkout of medserve, or 'FILE.whl[segmentation]' with its wheel)"
        ) from error
    sys.setswitchinterval(SWITCH_INTERVAL)
    return input_shape(manifest.image_segmentation)


def rows_per_run(tile: tuple[int, int, int], provider: Provider) -> int:
    """Returns the maximum number of inputs of this height, width and number of channels in one run."""
    pixels = MAX_GPU_PIXELS if provider in GPU_PROVIDERS else MAX_CPU_PIXELS
    return max(1, pixels // math.prod(tile[:2]))
