"""Image segmentation: requests, results and masks."""
