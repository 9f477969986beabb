"""Turns the outputs of segmentation networks into masks, objects and sizes; shared by training and serving."""

from medserve_masks.ellipse import ellipse_circumference
from medserve_masks.measure import Objects, measure_objects
from medserve_masks.rule import ObjectRule
from medserve_masks.separate import label_objects

__all__ = ["ObjectRule", "Objects", "ellipse_circumference", "label_objects", "measure_objects"]
