"""Measures of how good predictions are, and what is fitted to them: calibration, operating points."""
