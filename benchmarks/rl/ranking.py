"""Ranking items for a query: picks without replacement, paid by what they are worth and by their place."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

ITEMS, PICKS, WIDTH = 12, 4, 6
SCORED = 256
ABOUT = (
    f"Ranking: {PICKS} of {ITEMS} items, picked one after the other without replacement, by a score that is "
    f"bilinear in {WIDTH} features of the query and {WIDTH} of an item. Few items are worth anything; the "
    "reward is the discounted worth of the picks, over that of the best order."
)


class Ranking:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        hidden = np.stack([np.random.default_rng([seed, 7]).normal(size=(WIDTH, WIDTH)) for seed in seeds])
        self.hidden = torch.tensor(hidden, dtype=torch.float32, device=device)
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.randn(len(seeds), SCORED, ITEMS + 1, WIDTH, generator=rng).to(device)
        self.scored_uniform = torch.rand(len(seeds), SCORED, PICKS, generator=rng).to(device)
        self.discount = 1 / torch.log2(torch.arange(PICKS, device=device) + 2.0)

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.seeds) * self.rates, WIDTH**2, device=self.device)

    def _scores(self, matrix: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """Of each item, (runs, draws, ITEMS); a prompt is a query and then the items."""
        query = prompt[:, :, 0] @ matrix.view(-1, WIDTH, WIDTH)
        return (prompt[:, :, 1:] @ query[..., None])[..., 0]

    @torch.no_grad()
    def _picked(
        self, theta: torch.Tensor, prompt: torch.Tensor, uniform: torch.Tensor, sampler: Sampler
    ) -> Draws:
        """`prompt` is of a seed, (seeds, draws, ITEMS + 1, WIDTH), as `uniform` is."""
        scale = WIDTH  # the spread of a bilinear form of normal numbers
        worth = (self._scores(self.hidden, prompt) / scale).clamp(min=0.0) ** 2
        best = (worth.sort(-1, descending=True).values[..., :PICKS] * self.discount).sum(-1)
        prompt, uniform, worth, best = (
            a.repeat_interleave(self.rates, 0) for a in (prompt, uniform, worth, best)
        )
        scores = self._scores(theta, prompt)
        picks, log_q = [], []
        for i in range(PICKS):
            found = sampler.log_probs(scores)
            picks.append(inverse_cdf(found.exp(), uniform[..., i])[..., None])
            log_q.append(found.gather(-1, picks[-1]))
            scores = scores.scatter(-1, picks[-1], -torch.inf)
        answer, log_q = torch.cat(picks, -1), torch.cat(log_q, -1)
        reward = (worth.gather(-1, answer) * self.discount).sum(-1) / best.clamp(min=1e-6)
        return Draws(prompt, answer, log_q, reward, torch.ones_like(log_q).bool())

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        prompt = torch.randn(len(self.seeds), count, ITEMS + 1, WIDTH, generator=rng)
        uniform = torch.rand(len(self.seeds), count, PICKS, generator=rng)
        return self._picked(theta, prompt.to(self.device), uniform.to(self.device), sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        scores = self._scores(theta, draws.prompt)
        found = []
        for i in range(PICKS):
            found.append(torch.log_softmax(scores, -1).gather(-1, draws.answer[..., i : i + 1]))
            scores = scores.scatter(-1, draws.answer[..., i : i + 1], -torch.inf)
        return torch.cat(found, -1)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward on queries that stay the same."""
        return {"reward": self._picked(theta, self.scored, self.scored_uniform, Sampler()).reward.mean(1)}
