"""The schema of recipes: data, network, training, task and the texts of the manifest."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from medserve_images import Target
from medserve_training.errors import UserError
from medserve_training.recipes.network_settings import (
    ImageNetworkSettings,
    RiskNetworkSettings,
    SegmentationNetworkSettings,
    names,
)
from medserve_training.recipes.segmentation_settings import Crops, SegmentationLoss, SegmentationTask
from medserve_training.recipes.strict_toml import (
    STRICT,
    Count,
    Positive,
    Several,
    build,
    parse_toml,
    read_text,
    toml_value,
)
from medserve_training.recipes.training_settings import Augmentation, Training

Fraction = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class Data:
    """The data set: a data spec, and a description with name, version and license."""

    spec: str
    description: str


@dataclass(frozen=True, config=STRICT)
class Split:
    """Fractions of the data that are split off for validation and test, unless the data set defines these splits.

    Attributes:
        validation: Fraction for validation.
        test: Fraction for test.
        by: For segmentation: whether the images of a group stay together, or are split independently, which is
            optimistic.
        validation_groups: For segmentation: the groups of validation, instead of a fraction.
        test_groups: For segmentation: the groups of test, instead of a fraction.
    """

    validation: Fraction = 0.15
    test: Fraction = 0.15
    by: Literal["group", "image"] = "group"
    validation_groups: tuple[str, ...] = ()
    test_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Rejects fractions that leave nothing for training, and incomplete or shared groups."""
        if bool(self.validation_groups) != bool(self.test_groups):
            raise ValueError("expected both or neither of validation_groups and test_groups")
        if shared := set(self.validation_groups) & set(self.test_groups):
            raise ValueError(f"the group {min(shared)!r} is in validation_groups and in test_groups")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing for training; "
                "expected a sum below 1"
            )


@dataclass(frozen=True, config=STRICT)
class Calibration:
    """Candidate calibration methods, of which the best on validation is chosen; the first wins a tie."""

    methods: Several[Literal["none", "temperature", "isotonic"]] = ("none", "temperature", "isotonic")


@dataclass(frozen=True, config=STRICT)
class Export:
    """Additional outputs of the exported file: the feature maps of these layers of an image network's trunk."""

    feature_maps: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Texts:
    """Texts of the manifest; `license` is an SPDX identifier."""

    title: str
    description: str
    intended_use: str
    license: str


@dataclass(frozen=True, config=STRICT)
class CardTexts:
    """The model card.

    Attributes:
        limits: Limitations that are specific to the model.
        pictures: Whether the card shows test images although the data's description names no license that permits it.
    """

    limits: tuple[str, ...] = ()
    pictures: bool = False


@dataclass(frozen=True, config=STRICT)
class ImageTask:
    """Image classification. With two labels, the second is the positive class."""

    kind: Literal["image-classification"]
    height: Count
    width: Count
    color: Literal["gray", "rgb"]
    crop: Literal["none", "center"]
    resampling: Literal["bilinear", "bicubic"]
    labels: Several[str]

    @property
    def target(self) -> Target:
        """Size and color to which images are converted, in training and serving alike."""
        return Target(self.height, self.width, self.color, self.crop, self.resampling)

    @property
    def channels(self) -> int:
        """Number of channels of a pixel."""
        return self.target.channels

    def __post_init__(self) -> None:
        """Rejects fewer than two classes, and duplicate names."""
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are {list(self.labels)}; expected at least two different ones")


@dataclass(frozen=True, config=STRICT)
class Horizon:
    """A time at which a risk is reported, in the data's unit of time."""

    label: str
    time: Positive


@dataclass(frozen=True, config=STRICT)
class SurvivalTask:
    """Survival analysis on `intervals` intervals of length `interval`, in the data's unit of time.

    The risk groups are cut at equal quantiles of the training split's risk at the reference horizon. The model is also
    evaluated in the subgroups of the given covariates: each category, or the halves of a number around its training
    median.
    """

    kind: Literal["survival"]
    interval: Positive
    intervals: Count
    horizons: Several[Horizon]
    reference_horizon: str
    risk_groups: Several[str]
    subgroups: tuple[str, ...] = ()

    @property
    def curve_times(self) -> tuple[float, ...]:
        """The times of the survival curve, from 0."""
        return tuple(self.interval * index for index in range(self.intervals + 1))

    def __post_init__(self) -> None:
        """Checks that the horizons are times of the curve, and that the reference horizon is one of them."""
        for horizon in self.horizons:
            if horizon.time not in self.curve_times:
                raise ValueError(
                    f"{horizon.label!r} at {horizon.time:g} is not a multiple of the interval {self.interval:g} "
                    f"up to {self.intervals} times it",
                )
        if self.reference_horizon not in [horizon.label for horizon in self.horizons]:
            raise ValueError(f"reference_horizon {self.reference_horizon!r} is not the label of a horizon")


@dataclass(frozen=True, config=STRICT)
class StatusTask:
    """Classification of whether the event was observed: the articles' task, reproduced and never exported."""

    kind: Literal["status"]


# The networks and losses that each task supports.
_SUPPORTED = {
    "image-classification": (
        names(ImageNetworkSettings),
        ["cross-entropy", "binary-cross-entropy", "mean-absolute-error"],
    ),
    "image-segmentation": (names(SegmentationNetworkSettings), ["segmentation"]),
    "survival": (names(RiskNetworkSettings), ["logistic-hazard", "cox"]),
    "status": (names(RiskNetworkSettings), ["binary-cross-entropy"]),
}


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A recipe. The seed determines the split, the initial weights and the order of the batches."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    network: Annotated[
        ImageNetworkSettings | SegmentationNetworkSettings | RiskNetworkSettings, Field(discriminator="name")
    ]
    training: Training
    manifest: Texts
    task: Annotated[ImageTask | SegmentationTask | SurvivalTask | StatusTask, Field(discriminator="kind")]
    split: Split = Split()
    augmentation: Augmentation | None = None
    crops: Crops | None = None
    segmentation_loss: SegmentationLoss = SegmentationLoss()
    calibration: Calibration = Calibration()
    export: Export = Export()
    card: CardTexts = CardTexts()

    def __post_init__(self) -> None:
        """Checks that the task supports network, loss and augmentation."""
        networks, losses = _SUPPORTED[self.task.kind]
        if self.network.name not in networks or self.training.loss not in losses:
            raise ValueError(
                f"the task {self.task.kind!r} supports network.name {_one_of(networks)} and training.loss "
                f"{_one_of(losses)}, not {self.network.name!r} and {self.training.loss!r}",
            )
        if self.training.loss == "binary-cross-entropy" and len(getattr(self.task, "labels", "ab")) != 2:
            raise ValueError("training.loss 'binary-cross-entropy' requires two task.labels; use 'cross-entropy'")
        if self.augmentation is not None and self.task.kind != "image-classification":
            raise ValueError(f"augmentation requires images to classify; remove it for the task {self.task.kind!r}")
        _check_segmentation(self)


def _check_segmentation(recipe: Recipe) -> None:
    """Checks that a recipe has the settings of segmentation if that is its task, and only then."""
    if not (isinstance(recipe.task, SegmentationTask) and isinstance(recipe.network, SegmentationNetworkSettings)):
        if recipe.crops is not None or recipe.split.test_groups or recipe.split.by != "group":
            raise ValueError(
                f"crops, and split by group or image, are settings of the task 'image-segmentation', not of "
                f"{recipe.task.kind!r}"
            )
        return
    if recipe.crops is None:
        raise ValueError("the task 'image-segmentation' requires the table crops")
    if recipe.task.separates != (recipe.segmentation_loss.distance > 0):
        raise ValueError(
            f"segmentation_loss.distance is {recipe.segmentation_loss.distance:g} with task.objects "
            f"{recipe.task.objects!r}; a weight above 0 is needed for 'touching', and only for it"
        )
    if recipe.training.balance != "none" or recipe.training.label_smoothing:
        raise ValueError("balance and label_smoothing are not supported by the task 'image-segmentation'")
    _check_sizes(recipe.task, recipe.crops, recipe.network.stride)


def _check_sizes(task: SegmentationTask, crops: Crops, stride: int) -> None:
    """Checks that the network can be applied to the sizes of crops and inputs."""
    sizes = {"crops.height": crops.height, "crops.width": crops.width}
    if task.fixed is not None:
        sizes |= {"task.fixed.height": task.fixed.height, "task.fixed.width": task.fixed.width}
    if task.tiling is not None:
        sizes["task.tiling.max_side"] = task.tiling.max_side
        least = stride + 3 * task.tiling.margin
        if task.tiling.max_side < least:
            raise ValueError(
                f"task.tiling.max_side is {task.tiling.max_side}, expected {least} or more for a margin of "
                f"{task.tiling.margin}"
            )
    for key, size in sizes.items():
        if size % stride:
            raise ValueError(f"{key} is {size}, expected a multiple of {stride}, as network.widths determines")


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join(repr(choice) for choice in choices)


def recipe_names() -> list[str]:
    """Returns the names of the packaged recipes."""
    folder = files("medserve_training.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), data: str | None = None) -> Recipe:
    """Loads a recipe.

    Args:
        name_or_path: A packaged recipe's name or the path of a TOML file.
        overrides: Changes as "key=value" with a dotted key ("training.epochs=3") and a TOML value; a value that is
            not valid TOML is text, so that quotes may be omitted.
        data: A data spec that replaces the recipe's.

    Raises:
        UserError: The recipe does not exist, or a key in it or in an override is invalid.
    """
    values = parse_toml(read_recipe(name_or_path), f"recipe {name_or_path}")
    for override in overrides:
        _override(values, override)
    if data is not None:
        values["data"] = {"spec": data, "description": data}
    return build(Recipe, values, f"recipe {name_or_path}")


def read_recipe(name_or_path: str) -> str:
    """Reads the text of a recipe.

    Raises:
        UserError: The recipe does not exist.
    """
    if name_or_path in recipe_names():
        return (files("medserve_training.recipes") / f"{name_or_path}.toml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        raise UserError(
            f"recipe {name_or_path!r} is neither a file nor one of the packaged recipes: {', '.join(recipe_names())}",
        )
    return read_text(path)


def _override(values: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: expected key=value, e.g. --set training.epochs=3")
    *tables, last = key.strip().split(".")
    table = values
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {override}: {name!r} is not a table of the recipe")
        table = inner
    table[last] = toml_value(text)
