"""Turns the outputs of segmentation networks into masks, objects and sizes; shared by training and serving."""

from medserve_masks import run_length
from medserve_masks.contours import outline
from medserve_masks.ellipse import ellipse_circumference
from medserve_masks.measure import Objects, measure_objects
from medserve_masks.rule import ObjectRule
from medserve_masks.separate import label_objects
from medserve_masks.tiles import Tiles

__all__ = [
    "ObjectRule",
    "Objects",
    "Tiles",
    "ellipse_circumference",
    "label_objects",
    "measure_objects",
    "outline",
    "run_length",
]
