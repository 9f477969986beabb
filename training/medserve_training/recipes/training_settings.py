"""How the weights are found: the tables `[training]` and `[augmentation]` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from medserve_training.recipes.strict_toml import STRICT, Count, Positive

# From 0 up to but not 1.
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
LossName = Literal["cross-entropy", "binary-cross-entropy", "mean-absolute-error", "logistic-hazard", "cox"]


@dataclass(frozen=True, config=STRICT)
class Training:
    """How the weights are found.

    Attributes:
        epochs: At most so many.
        batch_size: Rows a step.
        learning_rate: The schedule's highest.
        loss: What is minimised.
        optimizer: Plain gradient descent, with momentum 0.9, Adam or AdamW.
        weight_decay: Of AdamW (Loshchilov & Hutter 2019), on weights, not on biases and scales.
        l1: Times the sum of the weights' absolute values, added to the loss.
        l2: Times the sum of the weights' squares, added to the loss.
        gradient_clip: Largest L2 norm of all gradients together; longer ones are shortened to it.
        schedule: Of the learning rate: constant; one-cycle (Smith & Topin 2019); cosine, which falls to 0.
        warmup: Part of all steps in which the rate rises from 0; with one-cycle, 0 stands for its usual 0.3.
        label_smoothing: Part of each target that is spread evenly over all classes (Szegedy et al. 2016).
        weight_average: Decay of the moving average of the weights, which is the model in the end; 0: no average.
        balance: How rare classes are made to count as much as common ones: by weights in the loss, or by drawing
            their rows more often.
        patience: Epochs without a better validation loss after which training ends with the best weights; absent: the
            last weights are the model.
        members: Models of an ensemble, each from a seed of its own.
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
        """Refuses what would do nothing."""
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay goes with optimizer 'adamw'; with {self.optimizer!r} use l2")
        if self.loss in ("logistic-hazard", "cox") and (self.label_smoothing or self.balance != "none"):
            raise ValueError(f"label_smoothing and balance need classes; the loss {self.loss!r} has none")


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """How far each training picture is changed at random, anew in each epoch; 0 leaves it as it is.

    Attributes:
        rotation: Up to so many degrees either way.
        shift: Up to so many pixels either way, down and across.
        scale: Larger or smaller by up to this part.
        contrast: Deviations from the picture's mean grow or shrink by up to this part.
        brightness: Up to so many of the picture's standard deviations are added or taken away.
        flip: Whether half of the pictures are mirrored, left to right.
    """

    rotation: NotNegative = 0.0
    shift: NotNegative = 0.0
    scale: Share = 0.0
    contrast: Share = 0.0
    brightness: NotNegative = 0.0
    flip: bool = False

    def doubled(self) -> "Augmentation":
        """The same, twice as far."""
        return Augmentation(
            rotation=2 * self.rotation,
            shift=2 * self.shift,
            scale=min(2 * self.scale, 0.9),
            contrast=min(2 * self.contrast, 0.9),
            brightness=2 * self.brightness,
            flip=self.flip,
        )
