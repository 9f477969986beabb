"""The losses: each takes logits and targets, and gives one number for each row of the batch."""

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
    """Sparse cross-entropy of logits [n, classes] and labels int64 [n]: [n]."""
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy of the second label: [n].

    Args:
        logits: Of the second label, [n, 1]; or of both, [n, 2], of which the difference counts.
        labels: 0 or 1, any number type, [n].
        smoothing: Part of each target that is spread evenly over both labels.
    """
    logit = logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
    targets = labels.float() * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logit, targets, reduction="none")


def mean_absolute_error(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean absolute difference of probabilities and one-hot labels over the classes: [n].

    Robust against wrong labels (Ghosh et al. 2017), and slow to learn: its gradient vanishes where the model is sure
    of the wrong class.

    Args:
        logits: [n, classes].
        labels: int64 [n].
        smoothing: Part of each target that is spread evenly over all classes.
    """
    classes = logits.shape[1]
    targets = functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return (torch.softmax(logits, dim=1) - targets).abs().mean(dim=1)


def logistic_hazard(logits: Tensor, events: Tensor, at_risk: Tensor) -> Tensor:
    """Negative log-likelihood of discrete-time hazards.

    Gensheimer & Narasimhan 2019, eq. 3; Kvamme & Borgan 2021, eq. 8: a binary cross-entropy of each interval's hazard
    over the intervals in which a patient was at risk, summed over intervals: [n].

    Args:
        logits: Of the hazard in each interval, [n, intervals].
        events: 1 in the interval of the event, float32 [n, intervals].
        at_risk: 1 in each interval the patient entered and was seen through, float32 [n, intervals].
    """
    terms = functional.binary_cross_entropy_with_logits(logits, events, reduction="none")
    return (terms * at_risk).sum(dim=1)


def cox(logits: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Minus the log of Cox's partial likelihood (1975), the loss of DeepSurv (Katzman et al. 2018): [n].

    Ties are Breslow's (1974). The patients at risk are those of the batch, so batches should be large.

    Args:
        logits: Log of the relative hazard, [n, 1].
        times: Of event or censoring, float [n].
        events: 1 where the event was seen, float32 [n].
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
    """A loss with its labels smoothed."""
    return partial(LOSSES[loss], smoothing=smoothing) if smoothing else LOSSES[loss]


def class_weights(labels: Tensor) -> Tensor:
    """For each class, the rows over the number of classes times the class's rows, float32 [classes]: 1 on average."""
    counts = torch.bincount(labels.long())
    return len(labels) / (len(counts) * counts.clamp(min=1))


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
