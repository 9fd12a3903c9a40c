"""The estimators of the study, each from log-weights and values, (repeats, n), to an estimate a repeat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import isdiag

GAMMAS = np.linspace(0.0, 1.0, 11)
Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]


def slope(log_w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """SLOPE (Su, Srinath & Krishnamurthy 2020) over tempered estimates, from gamma = 1 downwards.

    The smallest gamma whose estimate agrees with those of all larger ones, a standard error being the
    half-width of each.
    """
    found = [isdiag.snis(log_w, h, gamma=gamma) for gamma in GAMMAS[::-1]]
    estimate = np.array([each.estimate for each in found])
    width = np.array([each.std_error for each in found])
    chosen = np.zeros(len(log_w), int)
    agrees = np.ones(len(log_w), bool)
    for i in range(1, len(found)):
        for j in range(i):
            agrees &= np.abs(estimate[i] - estimate[j]) <= width[i] + (np.sqrt(6) - 1) * width[j]
        chosen[agrees] = i
    return np.take_along_axis(estimate, chosen[None], 0)[0]


def at_gamma_of(rule: str) -> Estimator:
    def estimate(log_w: np.ndarray, h: np.ndarray) -> np.ndarray:
        return isdiag.snis(log_w, h, gamma=isdiag.select_gamma(log_w, rule=rule).gamma).estimate

    return estimate


ESTIMATORS: dict[str, Estimator] = {
    "IS": lambda log_w, h: isdiag.snis(log_w, h, normalize=False).estimate,
    "SNIS": lambda log_w, h: isdiag.snis(log_w, h).estimate,
    "truncated IS": lambda log_w, h: isdiag.snis(log_w, h, smooth="truncate").estimate,
    "PSIS": lambda log_w, h: isdiag.snis(log_w, h, smooth="psis").estimate,
    "auto": lambda log_w, h: isdiag.snis(log_w, h, smooth="auto").estimate,
    "joint": at_gamma_of("joint"),
    "refit": at_gamma_of("refit"),
    "SLOPE": slope,
    "mse": lambda log_w, h: isdiag.select_gamma(log_w, rule="mse", h=h).estimate,
}
PEERS = ("SNIS", "truncated IS", "PSIS")
