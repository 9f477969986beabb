"""Training hyperparameters: the tables `[training]` and `[augmentation]` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from medserve_training.recipes.strict_toml import STRICT, Count, Positive

# From 0 (inclusive) to 1 (exclusive).
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
LossName = Literal[
    "cross-entropy", "binary-cross-entropy", "mean-absolute-error", "segmentation", "logistic-hazard", "cox"
]


@dataclass(frozen=True, config=STRICT)
class Training:
    """Training hyperparameters.

    Attributes:
        epochs: Maximum number of epochs.
        batch_size: Rows per step.
        learning_rate: Maximum of the learning rate schedule.
        loss: Loss function; "segmentation" combines the terms of the table `[segmentation_loss]`.
        optimizer: Gradient descent, plain or with momentum 0.9, Adam or AdamW.
        weight_decay: Weight decay of AdamW (Loshchilov & Hutter 2019), of weights but not of biases and scales.
        l1: Coefficient of the L1 penalty on the weights.
        l2: Coefficient of the squared L2 penalty on the weights.
        gradient_clip: Maximum L2 norm of all gradients together, to which larger ones are scaled down.
        schedule: Learning rate schedule: constant; one-cycle (Smith & Topin 2019); cosine, which decays to 0.
        warmup: Fraction of all steps in which the rate rises from 0; with one-cycle, 0 means its default of 0.3.
        label_smoothing: Fraction of each target that is spread evenly over all classes (Szegedy et al. 2016).
        weight_average: Decay of the exponential moving average of the weights, which is the final model; 0 disables it.
        balance: Compensation of class imbalance: by class weights in the loss, or by oversampling of rare classes.
        patience: Number of epochs without a better validation loss after which training stops and restores the best
            weights; if absent, the last weights are the model.
        members: Number of ensemble members, each with its own seed.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    loss: LossName
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "adam"
    weight_decay: NotNegative = 0.0
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    gradient_clip: Positive | None = None
    schedule: Literal["constant", "one-cycle", "cosine"] = "constant"
    warmup: Share = 0.0
    label_smoothing: Share = 0.0
    weight_average: Share = 0.0
    balance: Literal["none", "class-weights", "sampling"] = "none"
    patience: Count | None = None
    members: Count = 1

    def __post_init__(self) -> None:
        """Rejects settings that would have no effect."""
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay requires optimizer 'adamw'; with {self.optimizer!r} use l2")
        if self.loss in ("logistic-hazard", "cox") and (self.label_smoothing or self.balance != "none"):
            raise ValueError(f"label_smoothing and balance require classes; the loss {self.loss!r} has none")


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Ranges of the random augmentation of training images, resampled in each epoch; 0 disables each.

    Attributes:
        rotation: Maximum rotation in degrees, in both directions.
        shift: Maximum vertical and horizontal shift in pixels, in both directions.
        scale: Maximum relative change of size.
        contrast: Maximum relative change of deviations from the image's mean.
        brightness: Maximum change of brightness, in standard deviations of the image.
        flip: Whether half of the images are flipped horizontally.
    """

    rotation: NotNegative = 0.0
    shift: NotNegative = 0.0
    scale: Share = 0.0
    contrast: Share = 0.0
    brightness: NotNegative = 0.0
    flip: bool = False

    def doubled(self) -> "Augmentation":
        """Returns an augmentation with doubled ranges."""
        return Augmentation(
            rotation=2 * self.rotation,
            shift=2 * self.shift,
            scale=min(2 * self.scale, 0.9),
            contrast=min(2 * self.contrast, 0.9),
            brightness=2 * self.brightness,
            flip=self.flip,
        )
