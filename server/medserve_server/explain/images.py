"""What a request asks to be told about its pictures: checks it, has it computed, and puts it into the results."""

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
    """Pictures to be explained: the rows that the model has to compute for them, and what those mean.

    Attributes:
        kinds: the reasons asked for, and how many rows each adds to the pictures.
        outputs: names of the outputs to ask for beside those of every request.
        rows: uint8 [rows, height, width, channels]: the pictures, and behind them what each of them needs in its turn.
    """

    def __init__(
        self,
        wishes: ImageReasons,
        model: str,
        task: ImageClassificationTask,
        pictures: Pixels,
        max_rows: int,
        max_bytes: int,
    ) -> None:
        """Checks the wishes and makes the rows.

        Args:
            wishes: of the request.
            model: its name.
            task: of its manifest.
            pictures: uint8 [images, height, width, channels].
            max_rows: of one request.
            max_bytes: that the reasons of one request may hold at once.

        Raises:
            InvalidInput: a label or layer that is not there, or too much at once.
            WrongModel: the model was exported without what is asked for.
        """
        self._wishes, self._task, self._pictures = wishes, task, pictures
        if wishes.class_activation and not task.HasField("class_activation"):
            raise WrongModel(f"model {model} was exported without class activation maps; ask for occlusion")
        if wishes.feature_maps and not task.feature_maps:
            raise WrongModel(f"model {model} was exported without feature maps")
        rows, columns = occlusion.grid(task.input.height, task.input.width)
        self._patches = rows * columns if wishes.occlusion else 0  # of one picture
        if problems := list(self._problems(max_rows)):
            raise InvalidInput(problems)
        if (needed := self._bytes()) > max_bytes:
            text = f"need {needed / 2**20:.3g} MiB for {len(pictures)} images, at most {max_bytes / 2**20:g} are"
            raise InvalidInput.of("reasons", f"{text} held for one request; send fewer images at once", "message_size")
        maps = tuple(f"feature_map.{layer}" for layer in wishes.feature_maps)
        self.outputs = ("class_activation", *maps) if wishes.class_activation else maps
        wanted = {
            "class_activation": wishes.class_activation,
            "occlusion": wishes.occlusion,
            "feature_maps": bool(maps),
            "overlay": wishes.overlay,
        }
        added = {"occlusion": len(pictures) * self._patches}
        self.kinds = {kind: added.get(kind, 0) for kind, asked in wanted.items() if asked}
        covered = map(occlusion.cover, pictures) if wishes.occlusion else ()
        self.rows = np.concatenate([pictures, *covered])

    def add_to(self, results: Sequence[ImageResult], outputs: Arrays) -> None:
        """Puts the reasons into the results; each needs its decision already."""
        labels = list(self._task.labels)
        for index, (picture, result) in enumerate(zip(self._pictures, results, strict=True)):
            label = self._wishes.label or result.decision.label
            column = labels.index(label)
            if self._wishes.class_activation:
                activation = outputs["class_activation"][index, column]
                result.class_activation.CopyFrom(self._map(label, activation, picture))
            if self._wishes.occlusion:
                falls = self._falls(index, outputs["probabilities"][:, column])
                result.occlusion.CopyFrom(self._map(label, falls, picture))
            for layer in self._wishes.feature_maps:
                values = outputs[f"feature_map.{layer}"][index]
                channels, height, width = values.shape
                content = values.astype("<f4", copy=False).tobytes()
                result.feature_maps.add(layer=layer, channels=channels, height=height, width=width, values=content)

    def _problems(self, max_rows: int) -> Iterator[FieldViolation]:
        wishes = self._wishes
        if wishes.label and wishes.label not in self._task.labels:
            text = f"is {wishes.label[:64]!r}, expected one of {listing(self._task.labels)}"
            yield FieldViolation("reasons.label", text)
        layers = [one.layer for one in self._task.feature_maps]
        # One too many is enough to name: a flood of names has to cost nothing.
        for index, layer in enumerate(wishes.feature_maps[: len(layers) + 1]):
            if layer not in layers:
                text = f"is {layer[:64]!r}, expected one of {listing(layers)}"
                yield FieldViolation(f"reasons.feature_maps[{index}]", text)
            elif layer in wishes.feature_maps[:index]:
                yield FieldViolation(f"reasons.feature_maps[{index}]", f"is {layer} a second time")
        if wishes.overlay and not (wishes.class_activation or wishes.occlusion):
            yield FieldViolation("reasons.overlay", "has nothing to draw; ask for class_activation or occlusion too")
        if wishes.occlusion and (rows := len(self._pictures) * (1 + self._patches)) > max_rows:
            text = (
                f"needs {rows} rows for {len(self._pictures)} images, at most {max_rows} are computed for one request"
            )
            yield FieldViolation("reasons.occlusion", f"{text}; send fewer images at once")

    def _bytes(self) -> int:
        """What the rows, the outputs asked for and the drawings take together."""
        task, wishes = self._task, self._wishes
        images = len(self._pictures)
        rows = images * (1 + self._patches)
        values = sum(_values(one) for one in task.feature_maps if one.layer in wishes.feature_maps)
        if wishes.class_activation:
            values += len(task.labels) * task.class_activation.height * task.class_activation.width
        height, width = overlay_size(task.input.height, task.input.width)
        drawings = images * (wishes.class_activation + wishes.occlusion) if wishes.overlay else 0
        return rows * (int(self._pictures[0].nbytes) + 4 * values) + drawings * height * width * 3

    def _falls(self, index: int, probabilities: NDArray[np.generic]) -> NDArray[np.generic]:
        """The occlusion map of one picture, from one label's probabilities of all rows."""
        start = len(self._pictures) + index * self._patches
        covered = probabilities[start : start + self._patches]
        return occlusion.falls(float(probabilities[index]), covered, *self._pictures.shape[1:3])

    def _map(self, label: str, values: NDArray[np.generic], picture: Pixels) -> ReasonMap:
        height, width = values.shape
        drawing = draw(picture, values) if self._wishes.overlay else b""
        return ReasonMap(label=label, height=height, width=width, values=values.ravel(), overlay_png=drawing)


def _values(one: FeatureMap) -> int:
    return one.channels * one.size.height * one.size.width
