"""A corpus of image files: formats, depths, colors, orientations, layouts, compressions and DICOM variants.

Each file contains different noise and is either read with an error of at most 1, or rejected for a known reason.
"""

from image_corpus.cases import HEIGHT, WIDTH, Case, Noise
from image_corpus.others import dicoms, jpegs, turned
from image_corpus.pngs import pngs, transparent_pngs
from image_corpus.tiffs import color_tiffs, gray_tiffs, other_tiffs, refused_tiffs

__all__ = ["HEIGHT", "WIDTH", "Case", "corpus"]


def corpus() -> list[Case]:
    """All files."""
    noise = Noise()
    makers = (
        gray_tiffs,
        color_tiffs,
        other_tiffs,
        refused_tiffs,
        pngs,
        transparent_pngs,
        jpegs,
        turned,
        dicoms,
    )
    return [case for make in makers for case in make(noise)]
