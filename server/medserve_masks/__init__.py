"""Turns the outputs of segmentation networks into masks, objects and sizes; shared by training and serving."""
