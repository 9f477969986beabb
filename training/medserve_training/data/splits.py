"""Training, validation and test: the three parts of a data set, and how they are cut."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Split

# Names of the two kinds of patients by which they are split.
OUTCOMES = ("censored", "with an event")


class Images(NamedTuple):
    """Pictures, uint8 [n, height, width, channels], and their classes, int64 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Patients(NamedTuple):
    """Covariates, float32 [n, features], NaN where missing; times, float64 [n]; whether the event came, bool [n]."""

    features: NDArray[np.float32]
    times: NDArray[np.float64]
    events: NDArray[np.bool_]


# Rows of each class that every split needs: calibration is cross-fitted on validation, in two folds at least.
LEAST_OF_A_CLASS = 2
Rows = TypeVar("Rows", Images, Patients)
Part = TypeVar("Part")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """The three parts of a data set, or what was made of each."""

    train: Part
    validation: Part
    test: Part

    def part(self, name: str) -> Part:
        """One of the three, by its name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts[name]

    def map(self, function: Callable[[Part], Other]) -> "Splits[Other]":
        """The function's result for each part."""
        return Splits(function(self.train), function(self.validation), function(self.test))


def take(rows: Rows, index: NDArray[np.intp]) -> Rows:
    """The rows at `index`, int [m]."""
    return type(rows)._make(array[index] for array in rows)


def cut(parts: Mapping[str, Rows], split: Split, seed: int, classes: Sequence[str]) -> Splits[Rows]:
    """Cuts off what the data does not bring itself, stratified by class or event.

    Args:
        parts: "train" and, where the data set has them, "validation" and "test".
        split: The fractions to cut off.
        seed: Decides which rows.
        classes: Names of the classes, for messages; of patients, censored and with an event.

    Raises:
        UserError: There are too few rows of a class.
    """
    train = parts["train"]
    total = len(train[0])
    cut_off = {}
    for name, fraction in (("test", split.test), ("validation", split.validation)):
        if name in parts:
            cut_off[name] = parts[name]
            continue
        try:
            keep, other = train_test_split(
                np.arange(len(train[0])),
                test_size=round(fraction * total),
                stratify=train[-1],
                random_state=seed,
            )
        except ValueError as error:
            counts = np.bincount(train[-1].astype(np.int64), minlength=len(classes))
            found = ", ".join(f"{count} {label}" for label, count in zip(classes, counts, strict=True))
            raise UserError(
                f"too few rows to cut off the {name} split (split.{name} = {fraction}): {found}; about "
                f"{rows_needed(split)} of each are needed",
            ) from error
        cut_off[name] = take(train, np.sort(other))
        train = take(train, np.sort(keep))
    return Splits(train, cut_off["validation"], cut_off["test"])


def rows_needed(split: Split, least: int = LEAST_OF_A_CLASS) -> int:
    """About how many rows of a class give each split at least some number of them."""
    return math.ceil(least / min(split.validation, split.test, 1 - split.validation - split.test))


def drop_shared(splits: Splits[Images]) -> Splits[Images]:
    """Drops from training every picture that validation or test holds too, pixel for pixel."""
    held_out = {picture.tobytes() for part in (splits.validation, splits.test) for picture in part.pixels}
    kept = np.array([picture.tobytes() not in held_out for picture in splits.train.pixels])
    return Splits(take(splits.train, np.flatnonzero(kept)), splits.validation, splits.test)


def fingerprint(rows: Images | Patients) -> str:
    """SHA-256 over dtype, shape and bytes of the arrays, in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in rows:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
