"""Segmentation of nuclei: Otsu's threshold on the test split, and cross-validation on stained tissue.

python -m benchmarks.nuclei [--data-dir FOLDER]

Stained tissue has few images, so every group of it is tested once, by a model that was trained on the others.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from scipy import ndimage
from skimage.filters import threshold_otsu

from medserve_training.data.masks import MaskedImage, load_masks
from medserve_training.export.origin import Source
from medserve_training.export.remeasure import measure_again
from medserve_training.metrics.segmentation import ImageScore, score_objects, summarize
from medserve_training.recipes.recipe import load_recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask
from medserve_training.run_paths import RunPaths
from medserve_training.training.fit import fit

RECIPE = "cell-nuclei"
SMALLEST_OBJECT = 20
# Test groups of each fold; those of the next fold are its validation groups.
FOLDS = (
    ("stained-320x256-14",),
    ("stained-320x256-12", "stained-320x256-17"),
    ("stained-320x256-15", "stained-320x256-9"),
    ("stained-320x256-11", "stained-320x256-10", "stained-320x256-16"),
)
