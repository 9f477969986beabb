"""Each kind of warning has one meaning, so that programs can describe it without reading its message."""

import re
from collections import defaultdict
from typing import get_args

from image_corpus import corpus
from medserve_client import ImageWarningKind
from medserve_images import FileInfo, ImageLimits, ImageReader, Spacing, Target
from medserve_images.warning import Kind
from medserve_masks import Tiles
from medserve_proto.v1.image_classification_pb2 import ImageWarning
from medserve_proto.v1.manifest_pb2 import FixedSize, Novelty
from medserve_server.explain.confidence import unfamiliar
from medserve_server.segment.stretch import Stretch
from medserve_server.segment.warnings import image_warnings

MEANINGS = {
    "RESIZED": r"resized from [\d.]+ x [\d.]+ to \d+ x \d+",
    "CROPPED": r"cropped to the central [\d.]+ x [\d.]+ of \d+ x \d+",
    "COLOR_CONVERTED": r"converted from (L|RGB|CMYK) to (L|RGB)",
    "DEPTH_REDUCED": r"(reduced from \d+ to 8 bits(, \d+ becoming 255)?|converted (from \d+ )?to 8 bits by its .+)",
    "UNFAMILIAR": r"unlike the images that the model was trained on: .+",
    "FIRST_OF_SEVERAL": r"(has \d+ frames; only the first is read|.+; only the first picture is read)",
    "RANGE_UNUSED": r"(all values are below \d+, .+|its \w+Descriptor specifies \d+ bits per entry, .+)",
    "PROFILE_IGNORED": r"has (a color profile|color primaries) .+, which (is|are) not applied",
    "ELEMENT_IGNORED": r"its .+ (is|are) ignored|(.+, and is ignored)|.+, which contradicts .+",
    "TILED": r"segmented in \d+ overlapping tiles of \d+ x \d+",
    "SPACING_UNKNOWN": r"states no pixel spacing, .+",
    "MAGNIFIED": r"its pixel spacing is that at the detector: .+",
}


def test_the_kinds_are_those_of_the_api() -> None:
    kinds = {name.removeprefix("KIND_") for name in ImageWarning.Kind.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - an enum wrapper is not a mapping
    assert set(MEANINGS) == kinds
    assert {*get_args(Kind), "UNFAMILIAR"} == kinds
    assert {kind.name: kind.value for kind in ImageWarningKind} == {
        name.removeprefix("KIND_"): number for name, number in ImageWarning.Kind.items()
    }


def test_each_kind_has_one_meaning() -> None:
    messages: dict[str, set[str]] = defaultdict(set)
    for case in corpus():
        if case.pixels is None:
            continue
        for color in ("gray", "rgb"):
            target = Target(14, 16, "gray" if color == "gray" else "rgb", "center", "bilinear")
            for warning in ImageReader(target, ImageLimits()).read(case.data)[1]:
                messages[warning.kind].add(warning.message)
    messages["UNFAMILIAR"].add(unfamiliar(3, Novelty(threshold=2), "images") or "")
    magnified = FileInfo(spacing=Spacing(0.2, 0.2, "IMAGER_PIXEL_SPACING", at_detector=True))
    plans = (Stretch(30, 50, FixedSize(height=8, width=16)), Tiles(30, 50, stride=4, max_side=16, margin=2))
    for plan in plans:
        for warning in image_warnings((30, 50), magnified, plan, None):
            messages[warning.kind].add(warning.message)
    assert messages.keys() == MEANINGS.keys()
    for kind, found in messages.items():
        for message in found:
            assert [other for other, text in MEANINGS.items() if re.fullmatch(text, message)] == [kind], message
