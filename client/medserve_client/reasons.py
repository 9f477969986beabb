"""What a caller wants to be told about the reasons of a result."""

from collections.abc import Sequence
from dataclasses import dataclass

from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb


@dataclass(frozen=True, slots=True)
class ImageReasons:
    """What to tell about a picture; each costs the server time.

    Attributes:
        label: whose probability is explained; by default the decision's.
        class_activation: which places the network itself weighed; not every model can tell.
        occlusion: how far the probability falls where a patch of the picture is covered.
        feature_maps: names of layers whose activations are wanted, from the manifest's.
        overlay: draw each map over the picture as well.
    """

    label: str = ""
    class_activation: bool = False
    occlusion: bool = False
    feature_maps: Sequence[str] = ()
    overlay: bool = False

    def to_proto(self) -> image_pb.ImageReasons:
        """The message of the contract."""
        return image_pb.ImageReasons(
            label=self.label,
            class_activation=self.class_activation,
            occlusion=self.occlusion,
            feature_maps=self.feature_maps,
            overlay=self.overlay,
        )


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Which other values of a feature to try.

    Attributes:
        feature: its name; all values of a category are tried.
        low: the least value of a number; by default that of the training data.
        high: the greatest.
        points: how many, 2 to 200; 0 for the server's 21.
    """

    feature: str
    low: float | None = None
    high: float | None = None
    points: int = 0

    def to_proto(self) -> risk_pb.WhatIf:
        """The message of the contract."""
        return risk_pb.WhatIf(feature=self.feature, low=self.low, high=self.high, points=self.points)


@dataclass(frozen=True, slots=True)
class RiskReasons:
    """What to tell about a patient's risk; each costs the server time.

    Attributes:
        horizon: label of the one whose risk is explained; by default the manifest's reference horizon.
        shapley: how far each feature moves the risk from the mean of the manifest's background patients.
        what_if: the risk with other values of one feature; a name alone takes the defaults.
    """

    horizon: str = ""
    shapley: bool = False
    what_if: WhatIf | str | None = None

    def to_proto(self) -> risk_pb.RiskReasons:
        """The message of the contract."""
        what_if = WhatIf(self.what_if) if isinstance(self.what_if, str) else self.what_if
        return risk_pb.RiskReasons(
            horizon=self.horizon, shapley=self.shapley, what_if=None if what_if is None else what_if.to_proto()
        )
