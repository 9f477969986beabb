"""The hazard that all patients share, given what a trained network adds for each."""

import torch
from torch import Tensor

# Of an interval without any event.
_LEAST = 1e-6


def cohort_logits(events: Tensor, at_risk: Tensor) -> Tensor:
    """Logits of the cohort's hazards, the discrete Kaplan-Meier estimate: [intervals].

    Args:
        events: As `logistic_hazard` takes them.
        at_risk: As `logistic_hazard` takes them.
    """
    return torch.logit(events.sum(dim=0) / at_risk.sum(dim=0).clamp(min=1), eps=1e-4)


def refit_logits(logits: Tensor, events: Tensor, at_risk: Tensor) -> Tensor:
    """What to add to the logits of each interval so that the mean hazard of those at risk is the observed: [intervals].

    It is the maximum of the likelihood, found by Newton's method; without it dropout and shrunken effects leave the
    predicted risks of a cohort off their mean.

    Args:
        logits: Of the hazards, [n, intervals].
        events: As `logistic_hazard` takes them.
        at_risk: As `logistic_hazard` takes them.
    """
    observed = events.sum(dim=0).clamp(min=_LEAST)
    shift = torch.zeros_like(observed)
    for _ in range(20):
        hazards = torch.sigmoid(logits + shift) * at_risk
        slope = (hazards * (1 - torch.sigmoid(logits + shift))).sum(dim=0).clamp(min=_LEAST)
        shift = shift + ((observed - hazards.sum(dim=0)) / slope).clamp(-1, 1)
    return shift


def breslow(log_risks: Tensor, times: Tensor, events: Tensor, ends: Tensor) -> Tensor:
    """Log of the baseline's cumulative hazard over each interval, by Breslow's estimator (1974): [intervals].

    Args:
        log_risks: Of the training patients, [n].
        times: Of event or censoring, [n].
        events: 1 where the event was seen, [n].
        ends: Of the intervals, rising, the first of which starts at 0, [intervals].
    """
    risks = torch.exp(log_risks.double())
    # Everybody still there at a patient's time is at risk then.
    at_risk = (times[None, :] >= times[:, None]).double() @ risks
    jumps = events / at_risk
    interval = torch.bucketize(times, ends)
    inside = interval < len(ends)
    total = torch.zeros(len(ends), dtype=torch.float64).index_add(0, interval[inside], jumps[inside])
    return torch.log(total.clamp(min=_LEAST)).float()
