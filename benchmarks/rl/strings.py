"""Strings of a length that the policy chooses, written by a table of the next symbol given the last two."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

SYMBOLS, LENGTH, WANTED = 8, 12, 4
END = SYMBOLS
CONTEXTS = (SYMBOLS + 1) ** 2
SCORED = 256
ABOUT = (
    f"Strings over {SYMBOLS} symbols, of at most {LENGTH} with the one that ends them; the policy is a table "
    "by the last two. A seventh of the pairs of symbols are good; the reward is the share of "
    f"{WANTED} good pairs that a string has, up to all, and falls to half of it with the string's length."
)


class Strings:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        drawn = [np.random.default_rng([seed, 4]) for seed in seeds]
        good = np.zeros((len(seeds), SYMBOLS + 1, SYMBOLS + 1), np.float32)
        for own, rng in zip(good, drawn, strict=True):
            own[:SYMBOLS, :SYMBOLS].flat[rng.permutation(SYMBOLS**2)[: SYMBOLS**2 // 7]] = 1.0
        self.seeds, self.rates, self.device = seeds, rates, device
        self.good = torch.tensor(good, device=device).repeat_interleave(rates, 0)
        first = np.stack([0.5 * rng.normal(size=CONTEXTS * (SYMBOLS + 1)) for rng in drawn])
        self.first = torch.tensor(first, dtype=torch.float32, device=device)
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.rand(len(seeds), SCORED, LENGTH, generator=rng)
        self.runs = torch.arange(len(self.good), device=device)[:, None]

    def start(self) -> torch.Tensor:
        return self.first.repeat_interleave(self.rates, 0)

    @torch.no_grad()
    def _written(self, theta: torch.Tensor, uniform: torch.Tensor, sampler: Sampler) -> Draws:
        log_q = sampler.log_probs(theta.view(-1, CONTEXTS, SYMBOLS + 1))
        chances = log_q.exp()
        first = torch.full(uniform.shape[:2], END, device=self.device)
        last, going = first, torch.ones_like(first, dtype=torch.bool)
        total = torch.zeros(first.shape, device=self.device)
        contexts, tokens, there = [], [], []
        for i in range(LENGTH):
            context = first * (SYMBOLS + 1) + last
            token = inverse_cdf(chances[self.runs, context], uniform[..., i])
            contexts.append(context)
            tokens.append(token)
            there.append(going)
            total = total + going * self.good[self.runs, last, token]
            going = going & (token != END)
            first, last = last, token
        contexts, tokens, mask = (torch.stack(a, -1) for a in (contexts, tokens, there))
        reward = (total / WANTED).clamp(max=1.0) * (1 - mask.sum(-1) / (2 * LENGTH))
        taken = log_q[self.runs[..., None], contexts, tokens]
        return Draws(contexts, tokens, torch.where(mask, taken, 0.0), reward, mask)

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, LENGTH, generator=rng).to(self.device)
        return self._written(theta, uniform.repeat_interleave(self.rates, 0), sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(theta.view(-1, CONTEXTS, SYMBOLS + 1), -1).flatten(1)
        flat = (draws.prompt * (SYMBOLS + 1) + draws.answer).flatten(1)
        return torch.where(draws.mask, log_p.gather(1, flat).view(draws.answer.shape), 0.0)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward, with random numbers that stay the same."""
        numbers = self.scored.to(self.device).repeat_interleave(self.rates, 0)
        return {"reward": self._written(theta, numbers, Sampler()).reward.mean(1)}
