"""A cart to be brought to rest: a cost at every step, and a policy of features of a continuous state."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

STEPS, FORCES, CENTRES, NOISE, TICK = 16, 5, 4, 0.05, 0.3
FEATURES = CENTRES**2
SCORED = 128
ABOUT = (
    f"A cart with a wind of its own for each seed, driven by {FORCES} forces for {STEPS} steps; the policy "
    f"is linear in {FEATURES} radial features of place and speed. A step costs the square of the place and "
    "a tenth of that of the speed; the reward is minus the mean cost, never positive. The score is what is "
    "saved of the first policy's cost, as a share."
)


class Cart:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        drawn = [np.random.default_rng([seed, 8]) for seed in seeds]
        made = torch.tensor([[rng.uniform(0.7, 1.3), rng.uniform(-0.3, 0.3)] for rng in drawn])
        made = made.float().to(device).repeat_interleave(rates, 0)[..., None]
        self.strength, self.wind = made[:, 0], made[:, 1]
        self.forces = torch.linspace(-1.0, 1.0, FORCES, device=device)
        line = torch.linspace(-1.2, 1.2, CENTRES, device=device)
        self.centres = torch.cartesian_prod(line, line)
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.rand(len(seeds), SCORED, STEPS, 2, generator=rng).to(device)
        self.first_cost = -self._driven(self.start(), self.scored, Sampler()).reward.mean(1)

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.strength), FEATURES * FORCES, device=self.device)

    def _logits(self, theta: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Of each force in states (runs, ..., 2)."""
        far = ((state[..., None, :] - self.centres) ** 2).sum(-1)
        features = torch.softmax(-far / 0.36, -1)
        flat = features.flatten(1, -2) @ theta.view(-1, FEATURES, FORCES)
        return flat.view(*state.shape[:-1], FORCES)

    @torch.no_grad()
    def _driven(self, theta: torch.Tensor, uniform: torch.Tensor, sampler: Sampler) -> Draws:
        """`uniform` is of a seed, (seeds, draws, STEPS, 2)."""
        uniform = uniform.repeat_interleave(self.rates, 0)
        place = torch.where(uniform[:, :, -1, 1] < 0.5, -1.0, 1.0)  # that of the last step is free
        speed = torch.zeros_like(place)
        states, answer, log_q, cost = [], [], [], torch.zeros_like(place)
        for i in range(STEPS):
            states.append(torch.stack([place, speed], -1))
            found = sampler.log_probs(self._logits(theta, states[-1]))
            answer.append(inverse_cdf(found.exp(), uniform[:, :, i, 0]))
            log_q.append(found.gather(-1, answer[-1][..., None])[..., 0])
            push = self.strength * self.forces[answer[-1]] + self.wind
            gust = NOISE * 12**0.5 * (uniform[:, :, i - 1, 1] - 0.5) * (i > 0)
            speed = (speed + TICK * push + gust).clamp(-2.0, 2.0)
            place = (place + TICK * speed).clamp(-2.0, 2.0)
            cost = cost + (place**2 + 0.1 * speed**2) / STEPS
        answer, log_q = torch.stack(answer, -1), torch.stack(log_q, -1)
        return Draws(torch.stack(states, 2), answer, log_q, -cost, torch.ones_like(log_q).bool())

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, STEPS, 2, generator=rng)
        return self._driven(theta, uniform.to(self.device), sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(self._logits(theta, draws.prompt), -1)
        return log_p.gather(-1, draws.answer[..., None])[..., 0]

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """How much less than the first policy's the mean cost is, with random numbers that stay the same."""
        cost = -self._driven(theta, self.scored, Sampler()).reward.mean(1)
        return {"reward": 1 - cost / self.first_cost}
