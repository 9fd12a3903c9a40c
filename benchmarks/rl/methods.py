"""The methods compared: from log-ratios and advantages to the coefficients of ``grad log pi``.

Each is a tuple of settings of its main constant, the published one first; the study tunes it as it tunes the
learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from training import Batch, Method, ess_ratio

from isdiag.rl import (
    CISPO,
    SAPO,
    SFT,
    TOPR,
    VESPO,
    Fixed,
    GammaController,
    Linear,
    Masked,
    Power,
    PPOClip,
    Reinforce,
    Reshape,
    Reshaped,
    RewardWeighted,
    Truncated,
)

Maker = Callable[[int, int], Method]  # of the number of runs and of updates


@dataclass
class Weighed:
    """A reshape of ratios; sums over tokens, the mean over answers.

    Attributes
    ----------
    reshape : Reshape
    ratio : str
        What it is applied to: of a token, of the whole answer, or its geometric mean over tokens.
    means : bool
        Whether an answer's tokens have the mean in the place of the sum.
    centred : bool
        Whether advantages are not divided by their spread.
    pessimism : float
        How far the baseline is above the mean reward, in standard deviations, downwards (AsymRE).
    decoupled : bool
        Whether the reshape is of the ratio to a policy of a few updates ago, times that one's, truncated.
    """

    reshape: Reshape
    ratio: str = "token"
    means: bool = False
    centred: bool = False
    pessimism: float = 0.0
    decoupled: bool = False
    gamma: float = np.nan

    def __call__(self, batch: Batch) -> np.ndarray:
        ratio, advantage = batch.log_ratio, batch.centred if self.centred else batch.advantage
        lengths = batch.mask.sum(-1, keepdims=True)
        if self.decoupled:
            ratio = batch.proximal
        elif self.ratio != "token":
            total = ratio.sum(-1, keepdims=True)
            ratio = total if self.ratio == "sequence" else total / lengths
        shifted = advantage + self.pessimism * advantage.std(-1, keepdims=True)
        with np.errstate(over="ignore"):
            found: Reshaped = self.reshape(ratio, shifted[..., None])
            weight = np.exp(found.log_f) * found.signal / advantage.shape[1]
            if self.decoupled:
                weight = weight * np.exp(np.minimum(batch.log_ratio - batch.proximal, np.log(5.0)))
        if self.means or self.ratio == "geometric":
            weight = weight / lengths
        return np.where(batch.mask, weight, 0.0)


class Controlled:
    """Weights ``w**gamma`` of whole answers, normalised over the batch, gamma from a controller a run."""

    decoupled = False

    def __init__(self, controllers: list[GammaController]):
        self.controllers = controllers
        self.gamma = np.array([controller.gamma for controller in controllers])

    def __call__(self, batch: Batch) -> np.ndarray:
        log_w = batch.log_ratio.sum(-1)
        rows = zip(self.controllers, log_w, batch.advantage, strict=True)
        steps = [controller.step(*row) for controller, *row in rows]
        self.gamma = np.array([step.gamma for step in steps])
        return np.stack([step.coefficients for step in steps])[..., None] * batch.mask


class Adaptive:
    """`isdiag.rl.presets.adaptive` with a controller a run; the same, for all runs at once (a test compares).

    Attributes
    ----------
    cap, caution, ess_min : float
        The preset's constants and the controller's.
    centred : bool
        Whether ratios of tokens are over their mean, where that is below 1.
    """

    decoupled = False

    def __init__(
        self,
        runs: int,
        cap: float = 2.0,
        caution: float = 4.0,
        ess_min: float = 0.5,
        centred: bool = True,
    ):
        self.cap, self.caution, self.ess_min, self.centred = np.log(cap), caution, ess_min, centred
        self.gamma = np.full(runs, 0.3)

    def __call__(self, batch: Batch) -> np.ndarray:
        ratio, bad = batch.log_ratio, batch.advantage[..., None] < 0.0
        answers = ratio.sum(-1)
        self.gamma = 0.9 * self.gamma + 0.1 * self._allowed(answers)
        gamma = self.gamma[:, None]
        mean = np.logaddexp.reduce(gamma * answers, axis=-1, keepdims=True) - np.log(answers.shape[-1])
        others = np.minimum(gamma[..., None] * (answers[..., None] - ratio) - mean[..., None], 0.0)
        if self.centred:
            ratio = ratio - _offset(ratio, batch.mask)
        less = np.maximum(self.caution * gamma, 1.0)[..., None] * np.minimum(ratio, 0.0)
        log_f = np.where(bad, less + others, np.minimum(ratio, self.cap))
        return np.exp(log_f) * batch.advantage[..., None] / answers.shape[-1] * batch.mask

    def _allowed(self, log_w: np.ndarray) -> np.ndarray:
        """The gamma at which each run's batch keeps the least ESS."""
        low, high = np.zeros(len(log_w)), np.ones(len(log_w))
        all_of_it = ess_ratio(log_w) >= self.ess_min
        for _ in range(20):
            middle = (low + high) / 2
            holds = ess_ratio(middle[:, None] * log_w) >= self.ess_min
            low, high = np.where(holds, middle, low), np.where(holds, high, middle)
        return np.where(all_of_it, 1.0, low)


def _offset(log_ratio: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Log of the mean ratio of each run's tokens, where it is negative."""
    there = np.where(mask, log_ratio, -np.inf)
    mean = np.logaddexp.reduce(there, axis=(1, 2), keepdims=True)
    return np.minimum(mean - np.log(mask.sum((1, 2), keepdims=True)), 0.0)


def weighed(*reshapes: Reshape, **how) -> tuple[Maker, ...]:
    return tuple(lambda _runs, _updates, reshape=reshape: Weighed(reshape, **how) for reshape in reshapes)


def controlled(controller: Callable[[int], GammaController]) -> tuple[Maker, ...]:
    return (lambda runs, updates: Controlled([controller(updates) for _ in range(runs)]),)


ADAPTIVE = "adaptive"
WHOLE = "gamma of answers"
METHODS: dict[str, tuple[Maker, ...]] = {
    "SFT": weighed(SFT(), ratio="sequence"),
    "reward-weighted SFT": weighed(RewardWeighted(tau=0.5), ratio="sequence"),
    "REINFORCE": weighed(Reinforce(), ratio="sequence"),
    "f = 1": weighed(Power(0.0)),
    "AsymRE": weighed(Power(0.0), pessimism=0.1) + weighed(Power(0.0), pessimism=0.3),
    "PPO": weighed(PPOClip(0.2, 0.2), PPOClip(0.2, 0.28), PPOClip(0.5, 0.5)),
    "GRPO": weighed(PPOClip(0.2, 0.2), means=True),
    "Dr. GRPO": weighed(PPOClip(0.2, 0.2), centred=True),
    # Clips of the paper, 3e-4, are for answers of a thousand tokens.
    "GSPO": weighed(PPOClip(0.05, 0.05), PPOClip(0.2, 0.2), ratio="geometric"),
    "decoupled PPO": weighed(PPOClip(0.2, 0.2), decoupled=True),
    "TIS": weighed(Truncated(2.0), Truncated(1.0)),
    "CISPO": weighed(CISPO(0.0, 5.0), CISPO(0.0, 10.0)),
    "IcePop": weighed(Masked(0.5, 5.0), Masked(0.2, 5.0)),
    "TOPR": weighed(TOPR(), ratio="sequence"),
    "VESPO": weighed(VESPO(2, 3, 3, 2), VESPO(1, 0.5, 1, 0.5), ratio="sequence"),
    "SAPO": weighed(SAPO(1.0, 1.05), SAPO(2.0, 2.1)),
    "gamma 0.5": controlled(lambda _updates: GammaController(Power(0.5), Fixed())),
    "gamma 0 to 1": controlled(lambda updates: GammaController(Power(0.0), Linear(updates))),
    # Without what the default adds: no caution, and the ESS that is usual for estimates.
    WHOLE + ", plain": controlled(lambda _updates: GammaController(Power(0.3), ess_min=0.3)),
    WHOLE: controlled(lambda _updates: GammaController()),
    ADAPTIVE: (lambda runs, _updates: Adaptive(runs),),
}
# What the frontier is of, where there is not time for all.
FEW = ("f = 1", "TIS", "CISPO", "IcePop", "TOPR", WHOLE, ADAPTIVE)
# The adaptive method at other constants, for their curves; the study's tables leave them out.
VARIANTS: dict[str, tuple[Maker, ...]] = {
    f"{ADAPTIVE}, {name} {value:g}": (
        lambda runs, _updates, name=name, value=value: Adaptive(runs, **{name: value}),
    )
    for name, values in {
        "ess_min": (0.3, 0.8),
        "caution": (2.0, 3.0, 6.0),
        "cap": (1.0, 5.0),
        "centred": (False,),
    }.items()
    for value in values
}
