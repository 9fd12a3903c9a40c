"""A combinatorial bandit with a sparse reward: slots to fill, paid only where three at least are right."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

SLOTS, SYMBOLS, PAID = 8, 16, 3
ABOUT = (
    f"A combinatorial bandit: {SLOTS} slots of {SYMBOLS} symbols, filled independently. The reward is the "
    f"share of triples of slots that are right throughout, 0 for nearly all answers at first. The score is "
    "its expectation, exact."
)


class Slots:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        target = np.stack([np.random.default_rng([seed, 2]).integers(SYMBOLS, size=SLOTS) for seed in seeds])
        self.seeds, self.rates, self.device = seeds, rates, device
        self.target = torch.tensor(target, device=device).repeat_interleave(rates, 0)

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.target), SLOTS * SYMBOLS, device=self.device)

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, SLOTS, generator=rng).to(self.device)
        uniform = uniform.repeat_interleave(self.rates, 0)
        log_q = sampler.log_probs(theta.view(-1, 1, SLOTS, SYMBOLS)).expand(-1, count, -1, -1)
        answer = inverse_cdf(log_q.exp(), uniform)
        right = (answer == self.target[:, None]).sum(-1)
        reward = right * (right - 1) * (right - 2) / (SLOTS * (SLOTS - 1) * (SLOTS - 2))
        log_q = log_q.gather(-1, answer[..., None])[..., 0]
        return Draws(torch.zeros_like(answer), answer, log_q, reward, torch.ones_like(log_q).bool())

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(theta.view(-1, 1, SLOTS, SYMBOLS), -1)
        return log_p.expand(-1, draws.answer.shape[1], -1, -1).gather(-1, draws.answer[..., None])[..., 0]

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expected reward, exact: an elementary symmetric polynomial of the slots' chances."""
        p = torch.softmax(theta.view(-1, SLOTS, SYMBOLS), -1).gather(-1, self.target[..., None])[..., 0]
        sums = [torch.ones(len(p), device=self.device)] + [torch.zeros(len(p), device=self.device)] * PAID
        for slot in range(SLOTS):
            for size in range(PAID, 0, -1):
                sums[size] = sums[size] + p[:, slot] * sums[size - 1]
        return {"reward": sums[PAID] / (SLOTS * (SLOTS - 1) * (SLOTS - 2) / 6)}
