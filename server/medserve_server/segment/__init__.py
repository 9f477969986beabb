"""Image segmentation: from pixels to maps, and from maps to masks, objects and sizes."""
