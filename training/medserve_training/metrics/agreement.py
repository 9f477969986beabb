"""Agreement of a measure with its reference."""

import numpy as np
from numpy.typing import NDArray


def limits_of_agreement(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the bias and the half width of the 95 % limits of agreement (Bland & Altman 1986).

    Args:
        differences: Measure minus reference, [n], at least two.

    Returns:
        The mean of the differences, and 1.96 of their standard deviations.
    """
    return float(differences.mean()), 1.96 * float(differences.std(ddof=1))
