"""One temperature that makes probabilities mean what they say (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RANGE = (0.1, 10.0)  # temperatures tried


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The number that logits are divided by to give calibrated probabilities; fitted on val.

    Args:
        logits: (N, K), of the validation cases.
        labels: (N,), class indices.

    Returns:
        A temperature within `RANGE`; 1.0 where there is nothing to fit (no case, or one class only).
    """
    from scipy.optimize import minimize_scalar

    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if len(truth) == 0 or len(np.unique(truth)) < 2 or not np.isfinite(scores).all():
        return 1.0
    targets = _soft_targets(truth, scores.shape[1])

    def loss(logarithm: float) -> float:
        scaled = scores / np.exp(logarithm)
        top = scaled.max(axis=1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(scaled - top).sum(axis=1))
        return float((log_sum - (targets * scaled).sum(axis=1)).mean())

    best = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded")
    return float(np.exp(best.x))


def _soft_targets(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Targets of Platt (1999, section 2.2), for K classes.

    With hard targets a val set without a single error drives the temperature to the lower end of its range,
    and the network would be sure of everything.
    """
    counts = np.bincount(labels, minlength=classes)[labels]
    targets = np.repeat((1 / (counts + classes))[:, None], classes, axis=1)
    targets[np.arange(len(labels)), labels] = (counts + 1) / (counts + classes)
    return targets
