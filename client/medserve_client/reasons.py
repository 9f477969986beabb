"""Options for requesting explanations of results."""

from collections.abc import Sequence
from dataclasses import dataclass

from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb


@dataclass(frozen=True, slots=True)
class ImageReasons:
    """Explanations to compute for an image; each one costs server time.

    Attributes:
        label: label whose probability is explained; by default the decision's.
        class_activation: compute a class activation map; not every model supports it.
        occlusion: compute an occlusion map: the drop in probability when a patch of the image is covered.
        feature_maps: names of layers whose activations to return, from the manifest.
        overlay: also render each map over the image.
    """

    label: str = ""
    class_activation: bool = False
    occlusion: bool = False
    feature_maps: Sequence[str] = ()
    overlay: bool = False

    def to_proto(self) -> image_pb.ImageReasons:
        """Returns the protobuf message."""
        return image_pb.ImageReasons(
            label=self.label,
            class_activation=self.class_activation,
            occlusion=self.occlusion,
            feature_maps=self.feature_maps,
            overlay=self.overlay,
        )


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Values of a feature to evaluate in a what-if curve.

    Attributes:
        feature: feature name; all categories of a categorical feature are evaluated.
        low: lowest value of a numeric feature; by default the minimum of the training data.
        high: highest value of a numeric feature; by default the maximum of the training data.
        points: number of values, 2 to 200; 0 for the server's default, 21.
    """

    feature: str
    low: float | None = None
    high: float | None = None
    points: int = 0

    def to_proto(self) -> risk_pb.WhatIf:
        """Returns the protobuf message."""
        return risk_pb.WhatIf(feature=self.feature, low=self.low, high=self.high, points=self.points)


@dataclass(frozen=True, slots=True)
class RiskReasons:
    """Explanations to compute for a patient's risk; each one costs server time.

    Attributes:
        horizon: label of the horizon whose risk is explained; by default the manifest's reference horizon.
        shapley: compute Shapley values: how far each feature moves the risk from the mean of the manifest's
            background patients.
        what_if: compute the risk with other values of one feature; a feature name alone uses the defaults.
    """

    horizon: str = ""
    shapley: bool = False
    what_if: WhatIf | str | None = None

    def to_proto(self) -> risk_pb.RiskReasons:
        """Returns the protobuf message."""
        what_if = WhatIf(self.what_if) if isinstance(self.what_if, str) else self.what_if
        return risk_pb.RiskReasons(
            horizon=self.horizon, shapley=self.shapley, what_if=None if what_if is None else what_if.to_proto()
        )
