"""Loss functions, which map logits and targets to one number for each row of the batch."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medserve_training.recipes.training_settings import LossName

Loss = Callable[..., Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Computes the cross-entropy of logits [n, classes] and labels int64 [n]: [n]."""
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Computes the binary cross-entropy of the second label: [n].

    Args:
        logits: Logits of the second label, [n, 1], or of both, [n, 2], of which the difference is used.
        labels: 0 or 1, any numeric type, [n].
        smoothing: Fraction of each target that is spread evenly over both labels.
    """
    logit = logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
    targets = labels.float() * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logit, targets, reduction="none")


def mean_absolute_error(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Computes the mean absolute difference between probabilities and one-hot labels over the classes: [n].

    It is robust to label noise (Ghosh et al. 2017), but slow to train: its gradient vanishes where the model is
    confident in the wrong class.

    Args:
        logits: [n, classes].
        labels: int64 [n].
        smoothing: Fraction of each target that is spread evenly over all classes.
    """
    classes = logits.shape[1]
    targets = functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return (torch.softmax(logits, dim=1) - targets).abs().mean(dim=1)


def logistic_hazard(logits: Tensor, events: Tensor, at_risk: Tensor) -> Tensor:
    """Computes the negative log-likelihood of discrete-time hazards: [n].

    Gensheimer & Narasimhan 2019, eq. 3; Kvamme & Borgan 2021, eq. 8: the binary cross-entropy of each interval's
    hazard, summed over the intervals in which a patient was at risk.

    Args:
        logits: Logits of the hazard in each interval, [n, intervals].
        events: 1 in the interval of the event, float32 [n, intervals].
        at_risk: 1 in each interval in which the patient was at risk, float32 [n, intervals].
    """
    terms = functional.binary_cross_entropy_with_logits(logits, events, reduction="none")
    return (terms * at_risk).sum(dim=1)


def cox(logits: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Computes the negative log of Cox's partial likelihood (1975), the loss of DeepSurv (Katzman et al. 2018): [n].

    Ties are handled by Breslow's method (1974). The risk sets are within the batch, so batches should be large.

    Args:
        logits: Log of the relative hazard, [n, 1].
        times: Times of event or censoring, float [n].
        events: 1 where the event was observed, float32 [n].
    """
    at_risk = times[None, :] >= times[:, None]
    everybody = logits[:, 0].expand(len(times), -1).masked_fill(~at_risk, -torch.inf)
    return events * (torch.logsumexp(everybody, dim=1) - logits[:, 0])


LOSSES: dict[LossName, Loss] = {
    "cross-entropy": cross_entropy,
    "binary-cross-entropy": binary_cross_entropy,
    "mean-absolute-error": mean_absolute_error,
    "logistic-hazard": logistic_hazard,
    "cox": cox,
}


def smoothed(loss: LossName, smoothing: float) -> Loss:
    """Returns a loss with label smoothing."""
    return partial(LOSSES[loss], smoothing=smoothing) if smoothing else LOSSES[loss]


def class_weights(labels: Tensor) -> Tensor:
    """Returns weights inversely proportional to class frequencies, float32 [classes]; their mean over the rows is 1."""
    counts = torch.bincount(labels.long())
    return len(labels) / (len(counts) * counts.clamp(min=1))


def hazard_targets(
    times: NDArray[np.float64],
    events: NDArray[np.bool_],
    interval: float,
    intervals: int,
) -> tuple[Tensor, Tensor]:
    """Returns the targets of `logistic_hazard`: (events, at_risk), each float32 [n, intervals].

    Interval j contains the times in (j · interval, (j + 1) · interval]. A patient with an event is at risk up to and
    including the interval of the event. A censored patient is at risk in each interval of which at least half was
    observed (Gensheimer & Narasimhan 2019, "Methods"). Events after the last interval are ignored.

    Args:
        times: Times of event or censoring, [n].
        events: Whether the event was observed, [n].
        interval: Length of an interval, in the unit of the times.
        intervals: Number of intervals.
    """
    starts = np.arange(intervals) * interval
    inside = (times[:, None] > starts) & (times[:, None] <= starts + interval)
    event = inside & events[:, None]
    seen = np.where(events[:, None], times[:, None] > starts, times[:, None] >= starts + interval / 2)
    return torch.tensor(event, dtype=torch.float32), torch.tensor(seen, dtype=torch.float32)
