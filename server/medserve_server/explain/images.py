"""Explanations of image classifications: validates the requested reasons, prepares model rows and fills the results."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medserve_images import Pixels
from medserve_proto.v1.image_classification_pb2 import ImageReasons, ImageResult, ReasonMap
from medserve_proto.v1.manifest_pb2 import FeatureMap, ImageClassificationTask
from medserve_server.engine.work import Arrays
from medserve_server.errors import FieldViolation, InvalidInput, WrongModel, listing
from medserve_server.explain import occlusion
from medserve_server.explain.overlay import draw, overlay_size


class ExplainedImages:
    """Images to be explained, with the rows that the model must compute for them.

    Attributes:
        kinds: the requested reasons, and the number of rows that each adds to the images.
        outputs: names of the outputs to compute in addition to those of every request.
        rows: uint8 [rows, height, width, channels]: the images, followed by the additional rows of each image in order.
    """

    def __init__(
        self,
        reasons: ImageReasons,
        model: str,
        task: ImageClassificationTask,
        images: Pixels,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        """Validates the requested reasons and creates the rows.

        Args:
            reasons: reasons requested by the client.
            model: name of the model.
            task: task in the model's manifest.
            images: uint8 [images, height, width, channels].
            max_rows: maximum number of rows per request.
            max_bytes: maximum memory for the reasons of one request, in bytes.

        Raises:
            InvalidInput: a label or layer does not exist, or a limit is exceeded.
            WrongModel: the model was exported without the outputs for a requested reason.
        """
        self._reasons, self._task, self._images = reasons, task, images
        if reasons.class_activation and not task.HasField("class_activation"):
            raise WrongModel(f"model {model} was exported without class activation maps; request occlusion instead")
        if reasons.feature_maps and not task.feature_maps:
            raise WrongModel(f"model {model} was exported without feature maps")
        rows, columns = occlusion.grid(task.input.height, task.input.width)
        self._patches = rows * columns if reasons.occlusion else 0  # per image
        if problems := list(self._problems(max_rows)):
            raise InvalidInput(problems)
        if (needed := self._bytes()) > max_bytes:
            text = f"need {needed / 2**20:.3g} MiB for {len(images)} images, at most {max_bytes / 2**20:g} are allowed"
            raise InvalidInput.of("reasons", f"{text} per request; send fewer images per request", "message_size")
        maps = tuple(f"feature_map.{layer}" for layer in reasons.feature_maps)
        self.outputs = ("class_activation", *maps) if reasons.class_activation else maps
        wanted = {
            "class_activation": reasons.class_activation,
            "occlusion": reasons.occlusion,
            "feature_maps": bool(maps),
            "overlay": reasons.overlay,
        }
        added = {"occlusion": len(images) * self._patches}
        self.kinds = {kind: added.get(kind, 0) for kind, asked in wanted.items() if asked}
        covered = map(occlusion.cover, images) if reasons.occlusion else ()
        self.rows = np.concatenate([images, *covered])

    def add_to(self, results: Sequence[ImageResult], outputs: Arrays) -> None:
        """Adds the reasons to the results, whose decisions must already be set."""
        labels = list(self._task.labels)
        for index, (image, result) in enumerate(zip(self._images, results, strict=True)):
            label = self._reasons.label or result.decision.label
            column = labels.index(label)
            if self._reasons.class_activation:
                activation = outputs["class_activation"][index, column]
                result.class_activation.CopyFrom(self._map(label, activation, image))
            if self._reasons.occlusion:
                drops = self._occlusion_map(index, outputs["probabilities"][:, column])
                result.occlusion.CopyFrom(self._map(label, drops, image))
            for layer in self._reasons.feature_maps:
                values = outputs[f"feature_map.{layer}"][index]
                channels, height, width = values.shape
                content = values.astype("<f4", copy=False).tobytes()
                result.feature_maps.add(layer=layer, channels=channels, height=height, width=width, values=content)

    def _problems(self, max_rows: int) -> Iterator[FieldViolation]:
        reasons = self._reasons
        if reasons.label and reasons.label not in self._task.labels:
            text = f"is {reasons.label[:64]!r}, expected one of {listing(self._task.labels)}"
            yield FieldViolation("reasons.label", text)
        layers = [one.layer for one in self._task.feature_maps]
        # Checking one entry more than there are layers suffices, and bounds the cost of a long list.
        for index, layer in enumerate(reasons.feature_maps[: len(layers) + 1]):
            if layer not in layers:
                text = f"is {layer[:64]!r}, expected one of {listing(layers)}"
                yield FieldViolation(f"reasons.feature_maps[{index}]", text)
            elif layer in reasons.feature_maps[:index]:
                yield FieldViolation(f"reasons.feature_maps[{index}]", f"is {layer}, which is already listed")
        if reasons.overlay and not (reasons.class_activation or reasons.occlusion):
            yield FieldViolation(
                "reasons.overlay", "requires a map to draw; also request class_activation or occlusion"
            )
        if reasons.occlusion and (rows := len(self._images) * (1 + self._patches)) > max_rows:
            text = f"needs {rows} rows for {len(self._images)} images, at most {max_rows} are computed per request"
            yield FieldViolation("reasons.occlusion", f"{text}; send fewer images per request")

    def _bytes(self) -> int:
        """Returns the size in bytes of the rows, the requested outputs and the overlays together."""
        task, reasons = self._task, self._reasons
        images = len(self._images)
        rows = images * (1 + self._patches)
        values = sum(_values(one) for one in task.feature_maps if one.layer in reasons.feature_maps)
        if reasons.class_activation:
            values += len(task.labels) * task.class_activation.height * task.class_activation.width
        height, width = overlay_size(task.input.height, task.input.width)
        drawings = images * (reasons.class_activation + reasons.occlusion) if reasons.overlay else 0
        return rows * (int(self._images[0].nbytes) + 4 * values) + drawings * height * width * 3

    def _occlusion_map(self, index: int, probabilities: NDArray[np.generic]) -> NDArray[np.generic]:
        """Returns the occlusion map of one image, given the probabilities of one label for all rows."""
        start = len(self._images) + index * self._patches
        covered = probabilities[start : start + self._patches]
        return occlusion.probability_drops(float(probabilities[index]), covered, *self._images.shape[1:3])

    def _map(self, label: str, values: NDArray[np.generic], image: Pixels) -> ReasonMap:
        height, width = values.shape
        drawing = draw(image, values) if self._reasons.overlay else b""
        return ReasonMap(label=label, height=height, width=width, values=values.ravel(), overlay_png=drawing)


def _values(one: FeatureMap) -> int:
    return one.channels * one.size.height * one.size.width
