"""VOI windows of DICOM files: the range of values that is displayed (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medserve_images.dicom.elements import decimal, refusal, text
from medserve_images.dicom.luts import Values

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
# Dividing by a smaller width would overflow.
MIN_WIDTH = 1e-30


@dataclass(frozen=True, slots=True)
class Window:
    """A validated window."""

    center: float
    width: float
    function: str

    def __call__(self, values: Values) -> Values:
        """Maps values to the range 0 to 1; the results of linear windows may exceed it."""
        match self.function:
            case "LINEAR" if self.width == 1:
                return (values > self.center - 0.5).astype(np.float64)
            case "LINEAR":
                return (values - (self.center - 0.5)) / (self.width - 1) + 0.5
            case "LINEAR_EXACT":
                return (values - self.center) / self.width + 0.5
            case _:
                return 1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -50, 50)))


def read_window(dataset: Dataset) -> Window | None:
    """Reads the first window; returns None if there is none.

    Raises:
        ImageRefused: The window is incomplete, or its width or function is not allowed by the standard.
        TooComplex: An element is too large.
    """
    center, width = decimal(dataset, "WindowCenter"), decimal(dataset, "WindowWidth")
    if center is None and width is None:
        return None
    if width is None:
        raise refusal(f"whose WindowCenter is {center:g}, without WindowWidth")
    if center is None:
        raise refusal(f"whose WindowWidth is {width:g}, without WindowCenter")
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if function not in FUNCTIONS:
        raise refusal(f"whose VOILUTFunction is unknown, expected {', '.join(FUNCTIONS)} or none")
    if function == "LINEAR" and width < 1:
        raise refusal(f"whose WindowWidth is {width:g}, expected at least 1 for the VOILUTFunction LINEAR")
    if width < MIN_WIDTH:
        raise refusal(f"whose WindowWidth is {width:g}, expected more than 0 for the VOILUTFunction {function}")
    return Window(center, width, function)
