"""A contextual bandit whose best expected reward is known.

Every run has contexts, actions with features, and a softmax policy linear in them. A reward is 1 or 0; its
mean is a logistic function of the features' product with hidden weights, so the policy class holds policies
as near to the best one as one likes.
"""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

CONTEXTS, ACTIONS, FEATURES = 16, 48, 48
ABOUT = (
    f"A contextual bandit: {CONTEXTS} contexts, {ACTIONS} actions with {FEATURES} features each, a softmax "
    "policy linear in them, rewards of 0 or 1. The score is the expected reward, exact, over the best one."
)


class Bandit:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
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

    def _logits(self, theta: torch.Tensor) -> torch.Tensor:
        return (self.features.flatten(1, 2) @ theta[..., None]).view(self.mean.shape)

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, 3, generator=rng).to(self.device)
        uniform = uniform.repeat_interleave(self.rates, 0)
        context = (uniform[..., 0] * CONTEXTS).long().clamp(max=CONTEXTS - 1)
        log_q = sampler.log_probs(self._logits(theta))
        action = inverse_cdf(log_q.exp()[self.runs, context], uniform[..., 1])
        reward = uniform[..., 2] < self.mean[self.runs, context, action]
        log_q = log_q[self.runs, context, action][..., None]
        return Draws(
            context[..., None], action[..., None], log_q, reward.float(), torch.ones_like(log_q).bool()
        )

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(self._logits(theta), -1)
        return log_p[self.runs, draws.prompt[..., 0], draws.answer[..., 0]][..., None]

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expected reward as a share of the best one, exact."""
        value = (torch.softmax(self._logits(theta), -1) * self.mean).sum(-1).mean(-1)
        return {"reward": value / self.optimum}
