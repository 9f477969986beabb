"""Exports, evaluates and describes segmentation models."""
