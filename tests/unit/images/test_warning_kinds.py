"""Each kind of warning has one meaning, so that programs can describe it without reading its message."""

import re
from collections import defaultdict
from typing import get_args

from image_corpus import corpus
from medserve_client import ImageWarningKind
from medserve_images import ImageLimits, ImageReader, Target
from medserve_images.warning import Kind
from medserve_proto.v1.image_classification_pb2 import ImageWarning
from medserve_proto.v1.manifest_pb2 import Novelty
from medserve_server.explain.confidence import unfamiliar

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
    assert messages.keys() == MEANINGS.keys()
    for kind, found in messages.items():
        for message in found:
            assert [other for other, text in MEANINGS.items() if re.fullmatch(text, message)] == [kind], message
