"""The settings of segmentation: the task, and the tables `[crops]` and `[segmentation_loss]` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from medserve_images import Target
from medserve_training.recipes.strict_toml import STRICT, Count, Positive, Several
from medserve_training.recipes.training_settings import NotNegative, Share

AtLeastOne = Annotated[float, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class FixedSize:
    """All images are stretched to this size."""

    height: Count
    width: Count
    resampling: Literal["bilinear", "bicubic"]


@dataclass(frozen=True, config=STRICT)
class Tiling:
    """Images keep their size; larger ones are segmented in tiles, see Tiling of the manifest."""

    max_side: Count
    margin: Count


@dataclass(frozen=True, config=STRICT)
class EllipseCircumference:
    """The circumference of the largest object as an ellipse, compared with the reference that the data contains."""

    name: str


@dataclass(frozen=True, config=STRICT)
class SegmentationTask:
    """Segmentation of one or more labels, with either a fixed size or tiling.

    Attributes:
        kind: Discriminator.
        color: Color to which images are converted.
        labels: Names of the labels; a mask file for each.
        objects: What an object is: a connected area; the largest area, without its holes; or one of several touching
            areas, which the network separates by its output `distance`.
        fixed: The size to which images are stretched.
        tiling: The tiles in which images are segmented at their own resolution.
        measure: A measure of the largest object.
    """

    kind: Literal["image-segmentation"]
    color: Literal["gray", "rgb"]
    labels: Several[str]
    objects: Literal["connected", "largest", "touching"]
    fixed: FixedSize | None = None
    tiling: Tiling | None = None
    measure: EllipseCircumference | None = None

    def __post_init__(self) -> None:
        """Rejects duplicate labels, and both or neither of `fixed` and `tiling`."""
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are {list(self.labels)}; expected different ones")
        if (self.fixed is None) == (self.tiling is None):
            raise ValueError("expected one of the tables task.fixed and task.tiling")

    @property
    def channels(self) -> int:
        """Number of channels of a pixel."""
        return 1 if self.color == "gray" else 3

    @property
    def separates(self) -> bool:
        """Whether the network has the output `distance`."""
        return self.objects == "touching"

    @property
    def target(self) -> Target:
        """Size and color to which images are converted, in training and serving alike."""
        if self.fixed is None:
            return Target(None, None, self.color, "none", "bilinear")
        return Target(self.fixed.height, self.fixed.width, self.color, "none", self.fixed.resampling)


@dataclass(frozen=True, config=STRICT)
class Crops:
    """Random crops of the training images, changed jointly with their masks; an epoch has `per_epoch` of them.

    Images are drawn group by group, a group in proportion to the square root of its size.

    Attributes:
        height: Height of a crop in pixels.
        width: Width of a crop in pixels.
        per_epoch: Number of crops of an epoch.
        rotation: Maximum rotation in degrees, in both directions.
        scale: Maximum factor by which an image is enlarged or reduced.
        diameters: Range of the median diameter of the objects in a crop, in pixels, to which an image is scaled within
            the limits of `scale`; if absent, the scale does not depend on the objects.
        flip: The directions in which half of the crops are flipped.
        gain: Maximum factor by which values are multiplied or divided.
        gamma: Maximum exponent, or its inverse, to which values from 0 to 1 are raised.
        tint: Maximum factor for each channel separately.
        blur: Maximum standard deviation of a Gaussian blur, in pixels, for half of the crops.
        noise: Maximum standard deviation of Gaussian noise, relative to that of the crop.
    """

    height: Count
    width: Count
    per_epoch: Count
    rotation: NotNegative = 0.0
    scale: AtLeastOne = 1.0
    diameters: tuple[Positive, Positive] | None = None
    flip: Literal["none", "horizontal", "both"] = "none"
    gain: AtLeastOne = 1.0
    gamma: AtLeastOne = 1.0
    tint: AtLeastOne = 1.0
    blur: NotNegative = 0.0
    noise: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class SegmentationLoss:
    """Weights of the terms of the loss; 0 leaves a term out.

    Attributes:
        cross_entropy: Binary cross-entropy of each pixel.
        focal: Focal loss (Lin et al. 2017) with gamma 2.
        dice: Soft Dice loss (Milletari et al. 2016) of each crop.
        boundary: Boundary loss (Kervadec et al. 2019): signed distance from the border of the mask.
        distance: Mean absolute error of the output `distance`.
    """

    cross_entropy: NotNegative = 1.0
    focal: NotNegative = 0.0
    dice: NotNegative = 0.0
    boundary: NotNegative = 0.0
    distance: NotNegative = 0.0
