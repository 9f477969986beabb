"""Splits of a data set into training, validation and test."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Split

# Names of the two strata of patients.
OUTCOMES = ("censored", "with an event")


class Images(NamedTuple):
    """Images, uint8 [n, height, width, channels], and their class indices, int64 [n]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Patients(NamedTuple):
    """Covariates, float32 [n, features], NaN where missing; times, float64 [n]; event indicators, bool [n]."""

    features: NDArray[np.float32]
    times: NDArray[np.float64]
    events: NDArray[np.bool_]


# Minimum number of rows of each class in every split: calibration is cross-fitted on validation, in at least two folds.
LEAST_OF_A_CLASS = 2
Rows = TypeVar("Rows", Images, Patients)
Part = TypeVar("Part")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """The three splits of a data set, or a result for each of them."""

    train: Part
    validation: Part
    test: Part

    def part(self, name: str) -> Part:
        """Returns the split of a name: "train", "validation" or "test"."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts[name]

    def map(self, function: Callable[[Part], Other]) -> "Splits[Other]":
        """Applies a function to each split."""
        return Splits(function(self.train), function(self.validation), function(self.test))


def take(rows: Rows, index: NDArray[np.intp]) -> Rows:
    """Returns the rows at `index`, int [m]."""
    return type(rows)._make(array[index] for array in rows)


def cut(parts: Mapping[str, Rows], split: Split, seed: int, classes: Sequence[str]) -> Splits[Rows]:
    """Splits off the parts that the data set does not define itself, stratified by class or event.

    Args:
        parts: "train" and, if the data set defines them, "validation" and "test".
        split: The fractions to split off.
        seed: Seed of the random split.
        classes: Names of the classes, for messages; for patients, `OUTCOMES`.

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
                f"too few rows to split off {name} (split.{name} = {fraction}): {found}; about "
                f"{rows_needed(split)} of each are needed",
            ) from error
        cut_off[name] = take(train, np.sort(other))
        train = take(train, np.sort(keep))
    return Splits(train, cut_off["validation"], cut_off["test"])


def rows_needed(split: Split, least: int = LEAST_OF_A_CLASS) -> int:
    """Returns about how many rows of a class are needed so that each split gets at least `least` of them."""
    return math.ceil(least / min(split.validation, split.test, 1 - split.validation - split.test))


def drop_shared(splits: Splits[Images]) -> Splits[Images]:
    """Removes from training every image that also occurs, pixel for pixel, in validation or test."""
    held_out = {picture.tobytes() for part in (splits.validation, splits.test) for picture in part.pixels}
    kept = np.array([picture.tobytes() not in held_out for picture in splits.train.pixels])
    return Splits(take(splits.train, np.flatnonzero(kept)), splits.validation, splits.test)


def fingerprint(rows: Iterable[NDArray[np.generic]]) -> str:
    """Returns the SHA-256 of dtype, shape and bytes of the arrays, in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in rows:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
