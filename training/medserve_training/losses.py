"""The losses: each takes logits and targets, and gives the mean over the rows of the batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Loss = Callable[..., Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sparse cross-entropy of logits [n, classes] and labels int64 [n]."""
    return functional.cross_entropy(logits, labels)


def binary_cross_entropy(logits: Tensor, events: Tensor) -> Tensor:
    """Binary cross-entropy of logits [n, 1] and events float32 [n]."""
    return functional.binary_cross_entropy_with_logits(logits[:, 0], events)


def logistic_hazard(logits: Tensor, events: Tensor, at_risk: Tensor) -> Tensor:
    """Negative log-likelihood of discrete-time hazards.

    Gensheimer & Narasimhan 2019, eq. 3; Kvamme & Borgan 2021, eq. 8: a binary cross-entropy of each interval's hazard
    over the intervals in which a patient was at risk, summed over intervals.

    Args:
        logits: Of the hazard in each interval, [n, intervals].
        events: 1 in the interval of the event, float32 [n, intervals].
        at_risk: 1 in each interval the patient entered and was seen through, float32 [n, intervals].
    """
    terms = functional.binary_cross_entropy_with_logits(logits, events, reduction="none")
    return (terms * at_risk).sum(dim=1).mean()


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "binary-cross-entropy": binary_cross_entropy,
    "logistic-hazard": logistic_hazard,
}


def hazard_targets(
    times: NDArray[np.float64],
    events: NDArray[np.bool_],
    interval: float,
    intervals: int,
) -> tuple[Tensor, Tensor]:
    """Targets of `logistic_hazard`: (events, at_risk), each float32 [n, intervals].

    Interval j holds the times in (j · interval, (j + 1) · interval]. A patient with the event is at risk up to and
    with its interval. A censored one counts for each interval of which at least half was seen (Gensheimer &
    Narasimhan 2019, "Methods"); events after the last interval are no events of this model.

    Args:
        times: Of event or censoring, [n].
        events: Whether the event was seen, [n].
        interval: Length of an interval, in the unit of the times.
        intervals: Their number.
    """
    starts = np.arange(intervals) * interval
    inside = (times[:, None] > starts) & (times[:, None] <= starts + interval)
    event = inside & events[:, None]
    seen = np.where(events[:, None], times[:, None] > starts, times[:, None] >= starts + interval / 2)
    return torch.tensor(event, dtype=torch.float32), torch.tensor(seen, dtype=torch.float32)
