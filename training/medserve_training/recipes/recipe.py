"""Recipes: what to train, on what, how, and what the manifest says about it."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from medserve_images import Target
from medserve_training.errors import UserError
from medserve_training.recipes.network_settings import ImageNetworkSettings, RiskNetworkSettings, names
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
    """Where the examples come from: a data spec, and its name, version and licence in words."""

    spec: str
    description: str


@dataclass(frozen=True, config=STRICT)
class Split:
    """Fractions of the whole that are cut off for validation and test where the data has no such split of its own."""

    validation: Fraction = 0.15
    test: Fraction = 0.15

    def __post_init__(self) -> None:
        """Refuses fractions that leave nothing for training."""
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} leave nothing for training; "
                "expected a sum below 1"
            )


@dataclass(frozen=True, config=STRICT)
class Calibration:
    """The methods of which the one that holds best on validation is taken; the first wins a tie."""

    methods: Several[Literal["none", "temperature", "isotonic"]] = ("none", "temperature", "isotonic")


@dataclass(frozen=True, config=STRICT)
class Export:
    """What the file answers beside its probabilities: the outputs of these layers of an image network's trunk."""

    feature_maps: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Texts:
    """What the manifest says in words; `license` is an SPDX identifier."""

    title: str
    description: str
    intended_use: str
    license: str


@dataclass(frozen=True, config=STRICT)
class CardTexts:
    """What the model card says in words beside the figures: limits of this model that no figure shows."""

    limits: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class ImageTask:
    """Pictures to classes. With two labels, the second is the one that is looked for."""

    kind: Literal["image-classification"]
    height: Count
    width: Count
    color: Literal["gray", "rgb"]
    crop: Literal["none", "center"]
    resampling: Literal["bilinear", "bicubic"]
    labels: Several[str]

    @property
    def target(self) -> Target:
        """What images are brought to, in training as in serving."""
        return Target(self.height, self.width, self.color, self.crop, self.resampling)

    @property
    def channels(self) -> int:
        """Number of channels of a pixel."""
        return self.target.channels

    def __post_init__(self) -> None:
        """Refuses fewer than two classes, and two of one name."""
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are {list(self.labels)}; expected at least two different ones")


@dataclass(frozen=True, config=STRICT)
class Horizon:
    """A time at which a risk is reported, in the data's unit of time."""

    label: str
    time: Positive


@dataclass(frozen=True, config=STRICT)
class SurvivalTask:
    """Covariates to a survival curve over `intervals` intervals of length `interval`, in the data's unit of time.

    The risk groups are cut at equal quantiles of the training split's risk at the reference horizon. Figures are also
    given for subgroups: each category, or the halves of a number around its training median.
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
        """The times of the curve, from 0 on."""
        return tuple(self.interval * index for index in range(self.intervals + 1))

    def __post_init__(self) -> None:
        """Holds the horizons to the curve."""
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
    """Covariates to whether the event was seen at all: the articles' task, reproduced and never exported."""

    kind: Literal["status"]


# By task: the networks and losses that go with it.
_FITTING = {
    "image-classification": (
        names(ImageNetworkSettings),
        ["cross-entropy", "binary-cross-entropy", "mean-absolute-error"],
    ),
    "survival": (names(RiskNetworkSettings), ["logistic-hazard", "cox"]),
    "status": (names(RiskNetworkSettings), ["binary-cross-entropy"]),
}


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A recipe. The seed decides the split, the first weights and the order of the batches."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    network: Annotated[ImageNetworkSettings | RiskNetworkSettings, Field(discriminator="name")]
    training: Training
    manifest: Texts
    task: Annotated[ImageTask | SurvivalTask | StatusTask, Field(discriminator="kind")]
    split: Split = Split()
    augmentation: Augmentation | None = None
    calibration: Calibration = Calibration()
    export: Export = Export()
    card: CardTexts = CardTexts()

    def __post_init__(self) -> None:
        """Holds network, loss and augmentation to the task."""
        networks, losses = _FITTING[self.task.kind]
        if self.network.name not in networks or self.training.loss not in losses:
            raise ValueError(
                f"the task {self.task.kind!r} goes with network.name {_one_of(networks)} and training.loss "
                f"{_one_of(losses)}, not with {self.network.name!r} and {self.training.loss!r}",
            )
        if self.training.loss == "binary-cross-entropy" and len(getattr(self.task, "labels", "ab")) != 2:
            raise ValueError("training.loss 'binary-cross-entropy' needs two task.labels; use 'cross-entropy'")
        if self.augmentation is not None and self.task.kind != "image-classification":
            raise ValueError(f"augmentation changes pictures; the task {self.task.kind!r} has none")


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join(repr(choice) for choice in choices)


def recipe_names() -> list[str]:
    """Names of the packaged recipes."""
    folder = files("medserve_training.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), data: str | None = None) -> Recipe:
    """Loads a recipe.

    Args:
        name_or_path: A packaged recipe's name or the path of a TOML file.
        overrides: Changes as "key=value", the key dotted ("training.epochs=3"), the value in TOML; a value that is
            not TOML is text, so that quotes may be left out.
        data: A data spec in place of the recipe's own.

    Raises:
        UserError: There is no such recipe, or a key in it or in an override is wrong.
    """
    values = parse_toml(read_recipe(name_or_path), f"recipe {name_or_path}")
    for override in overrides:
        _override(values, override)
    if data is not None:
        values["data"] = {"spec": data, "description": data}
    return build(Recipe, values, f"recipe {name_or_path}")


def read_recipe(name_or_path: str) -> str:
    """The text of a recipe.

    Raises:
        UserError: There is no such recipe.
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
