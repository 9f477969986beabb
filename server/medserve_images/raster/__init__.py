"""Decodes PNG, JPEG and TIFF files."""
