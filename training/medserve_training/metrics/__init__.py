"""Metrics of predictions, and parameters fitted to them: calibration, operating points and baseline hazards."""
