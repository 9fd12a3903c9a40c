"""A contextual bandit whose best expected reward is known.

Every run has contexts, actions with features, and a softmax policy linear in them. A reward is 1 or 0; its
mean is a logistic function of the features' product with hidden weights, so the policy class holds policies
as near to the best one as one likes.
"""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, inverse_cdf

CONTEXTS, ACTIONS, FEATURES = 32, 64, 96
ABOUT = (
    f"A contextual bandit: {CONTEXTS} contexts, {ACTIONS} actions with {FEATURES} features each, a softmax "
    "policy linear in them, rewards of 0 or 1. The score is the expected reward, exact, over the best one."
)


class Bandit:
    """Problems of some seeds, each the same for all its learning rates."""

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str):
        drawn = [np.random.default_rng([seed, 1]) for seed in seeds]
        features = np.stack([rng.normal(size=(CONTEXTS, ACTIONS, FEATURES)) for rng in drawn])
        features /= np.sqrt(FEATURES)
        hidden = np.stack([rng.normal(size=FEATURES) for rng in drawn])
        mean = 1 / (1 + np.exp(3.0 - 2.0 * np.einsum("sxaf,sf->sxa", features, hidden)))
        self.seeds, self.rates, self.device = seeds, rates, device
        self.features, self.hidden, self.mean = (
            torch.tensor(a, dtype=torch.float32, device=device).repeat_interleave(rates, 0)
            for a in (features, hidden, mean)
        )
        self.optimum = self.mean.amax(-1).mean(-1)
        self.runs = torch.arange(len(self.mean), device=device)[:, None]

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.mean), FEATURES, device=self.device)

    def _log_policy(self, theta: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        logits = torch.einsum("rxaf,rf->rxa", self.features, theta)
        return torch.log_softmax(logits / temperature, -1)

    def collect(self, theta: torch.Tensor, count: int, temperature: float, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, 3, generator=rng).to(self.device)
        uniform = uniform.repeat_interleave(self.rates, 0)
        context = (uniform[..., 0] * CONTEXTS).long().clamp(max=CONTEXTS - 1)
        log_q = self._log_policy(theta, temperature)
        action = inverse_cdf(log_q.exp()[self.runs, context], uniform[..., 1])
        reward = uniform[..., 2] < self.mean[self.runs, context, action]
        log_q = log_q[self.runs, context, action]
        return Draws(context[..., None], action[..., None], log_q[..., None], reward.float())

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        return self._log_policy(theta)[self.runs, draws.prompt[..., 0], draws.answer[..., 0]][..., None]

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expected reward as a share of the best one, exact."""
        value = (self._log_policy(theta).exp() * self.mean).sum(-1).mean(-1)
        return {"reward": value / self.optimum}
