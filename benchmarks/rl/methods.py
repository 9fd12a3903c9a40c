"""The methods compared: from log-ratios and advantages to the coefficients of ``grad log pi``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from training import Method

from isdiag.rl import (
    CISPO,
    SFT,
    VESPO,
    Fixed,
    GammaController,
    Linear,
    Power,
    PPOClip,
    Reinforce,
    Reshape,
    RewardWeighted,
    Truncated,
)

Maker = Callable[[int, int], Method]  # of the number of runs and of updates


class Reshaped:
    """A reshape of ratios, averaged over draws.

    `ratio` is what it is applied to: of a token, of the whole answer, or its geometric mean over tokens.
    """

    def __init__(self, reshape, ratio: str):
        self.reshape, self.ratio = reshape, ratio
        self.gamma = np.nan

    def __call__(self, log_ratio: np.ndarray, advantage: np.ndarray) -> np.ndarray:
        if self.ratio != "token":
            total = log_ratio.sum(-1, keepdims=True)
            log_ratio = total if self.ratio == "sequence" else total / log_ratio.shape[-1]
        with np.errstate(over="ignore"):
            found = self.reshape(log_ratio, advantage[..., None])
            return np.exp(found.log_f) * found.signal / advantage.shape[1]


class Controlled:
    """Weights ``w**gamma`` of whole answers, normalised over the batch, gamma from a controller a run."""

    def __init__(self, controllers: list[GammaController]):
        self.controllers = controllers
        self.gamma = np.array([controller.gamma for controller in controllers])

    def __call__(self, log_ratio: np.ndarray, advantage: np.ndarray) -> np.ndarray:
        log_w = log_ratio.sum(-1)
        steps = [c.step(*row) for c, *row in zip(self.controllers, log_w, advantage, strict=True)]
        self.gamma = np.array([step.gamma for step in steps])
        return np.stack([step.coefficients for step in steps])[..., None]


def reshaped(reshape: Reshape, ratio: str) -> Maker:
    return lambda _runs, _updates: Reshaped(reshape, ratio)


def controlled(controller: Callable[[int], GammaController]) -> Maker:
    return lambda runs, updates: Controlled([controller(updates) for _ in range(runs)])


ADAPTIVE = "adaptive gamma"
# Constants are those of the papers, but for GSPO: its clip of 3e-4 is for answers of a thousand tokens.
METHODS: dict[str, Maker] = {
    "SFT": reshaped(SFT(), "sequence"),
    "reward-weighted SFT": reshaped(RewardWeighted(tau=0.5), "sequence"),
    "REINFORCE": reshaped(Reinforce(), "sequence"),
    "PPO": reshaped(PPOClip(0.2, 0.2), "token"),
    "GSPO": reshaped(PPOClip(0.05, 0.05), "geometric"),
    "TIS": reshaped(Truncated(cap=2.0), "token"),
    "CISPO": reshaped(CISPO(low=0.0, high=5.0), "token"),
    "VESPO": reshaped(VESPO(2, 3, 3, 2), "sequence"),
    "gamma 0.5": controlled(lambda _updates: GammaController(Power(0.5), Fixed())),
    "gamma 0 to 1": controlled(lambda updates: GammaController(Power(0.0), Linear(updates))),
    # Without what the default adds: no caution, and the ESS that is usual for estimates.
    "adaptive gamma, plain": controlled(lambda _updates: GammaController(Power(0.3), ess_min=0.3)),
    ADAPTIVE: controlled(lambda _updates: GammaController()),
}
