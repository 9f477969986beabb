"""Estimators of the baseline hazard, given a network's predictions."""

import torch
from torch import Tensor

# Event count assumed for an interval without events.
_LEAST = 1e-6


def cohort_logits(events: Tensor, at_risk: Tensor) -> Tensor:
    """Returns the logits of the cohort's hazards, the discrete Kaplan-Meier estimate: [intervals].

    Args:
        events: As for `logistic_hazard`.
        at_risk: As for `logistic_hazard`.
    """
    return torch.logit(events.sum(dim=0) / at_risk.sum(dim=0).clamp(min=1), eps=1e-4)


def refit_logits(logits: Tensor, events: Tensor, at_risk: Tensor) -> Tensor:
    """Returns the shift of each interval's logits that makes the mean hazard at risk the observed one: [intervals].

    This is the maximum-likelihood estimate, found by Newton's method; without it, dropout and shrinkage bias the
    predicted mean risk of a cohort.

    Args:
        logits: Logits of the hazards, [n, intervals].
        events: As for `logistic_hazard`.
        at_risk: As for `logistic_hazard`.
    """
    observed = events.sum(dim=0).clamp(min=_LEAST)
    shift = torch.zeros_like(observed)
    for _ in range(20):
        hazards = torch.sigmoid(logits + shift) * at_risk
        slope = (hazards * (1 - torch.sigmoid(logits + shift))).sum(dim=0).clamp(min=_LEAST)
        shift = shift + ((observed - hazards.sum(dim=0)) / slope).clamp(-1, 1)
    return shift


def breslow(log_risks: Tensor, times: Tensor, events: Tensor, ends: Tensor) -> Tensor:
    """Returns the log cumulative baseline hazard of each interval, by Breslow's estimator (1974): [intervals].

    Args:
        log_risks: Log relative risks of the training patients, [n].
        times: Times of event or censoring, [n].
        events: 1 where the event was observed, [n].
        ends: Ends of the intervals, increasing, [intervals]; the first interval starts at 0.
    """
    risks = torch.exp(log_risks.double())
    # Patients whose time is not earlier are at risk at a patient's time.
    at_risk = (times[None, :] >= times[:, None]).double() @ risks
    jumps = events / at_risk
    interval = torch.bucketize(times, ends)
    inside = interval < len(ends)
    total = torch.zeros(len(ends), dtype=torch.float64).index_add(0, interval[inside], jumps[inside])
    return torch.log(total.clamp(min=_LEAST)).float()
