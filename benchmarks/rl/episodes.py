"""A tabular decision process whose episodes are of random lengths; an episode has one return."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

STATES, ACTIONS, STEPS = 12, 4, 40
ABOUT = (
    f"A tabular decision process of {STATES} states and {ACTIONS} actions, of which a few pay; an action may "
    f"end the episode, which lasts {STEPS} steps at most. The reward is the return. The score is its "
    "expectation, exact, over the best policy's."
)


class Episodes:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        moves, pays, ends = (np.stack(a) for a in zip(*(_problem(seed) for seed in seeds), strict=True))
        self.seeds, self.rates, self.device = seeds, rates, device
        self.moves, self.pays, self.ends = (
            torch.tensor(a, dtype=torch.float32, device=device).repeat_interleave(rates, 0)
            for a in (moves, pays, ends)
        )
        self.runs = torch.arange(len(self.pays), device=device)[:, None]
        self.best = self._best()

    def _best(self) -> torch.Tensor:
        value = torch.zeros(len(self.pays), STATES, device=self.device)
        for _ in range(STEPS):
            value = self._after(value).amax(-1)
        return value.mean(-1)

    def _after(self, value: torch.Tensor) -> torch.Tensor:
        """Of each action, given the values of the states that follow."""
        return self.pays + (1 - self.ends) * (self.moves @ value[:, None, :, None])[..., 0]

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.pays), STATES * ACTIONS, device=self.device)

    @torch.no_grad()
    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, STEPS, 3, generator=rng).to(self.device)
        uniform = uniform.repeat_interleave(self.rates, 0)
        log_q = sampler.log_probs(theta.view(-1, STATES, ACTIONS))
        chances = log_q.exp()
        state = (uniform[:, :, 0, 2] * STATES).long().clamp(max=STATES - 1)  # that of the last step is free
        going = torch.ones_like(state, dtype=torch.bool)
        total = torch.zeros(state.shape, device=self.device)
        states, actions, there = [], [], []
        for i in range(STEPS):
            action = inverse_cdf(chances[self.runs, state], uniform[:, :, i, 0])
            states.append(state)
            actions.append(action)
            there.append(going)
            total = total + going * self.pays[self.runs, state, action]
            ended = uniform[:, :, i, 1] < self.ends[self.runs, state, action]
            following = uniform[:, :, (i + 1) % STEPS, 2]
            state = inverse_cdf(self.moves[self.runs, state, action], following)
            going = going & ~ended
        states, actions, mask = (torch.stack(a, -1) for a in (states, actions, there))
        taken = log_q[self.runs[..., None], states, actions]
        return Draws(states, actions, torch.where(mask, taken, 0.0), total / STEPS, mask)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(theta.view(-1, STATES, ACTIONS), -1).flatten(1)
        flat = (draws.prompt * ACTIONS + draws.answer).flatten(1)
        return torch.where(draws.mask, log_p.gather(1, flat).view(draws.answer.shape), 0.0)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expected return as a share of the best one, exact."""
        policy = torch.softmax(theta.view(-1, STATES, ACTIONS), -1)
        value = torch.zeros(len(self.pays), STATES, device=self.device)
        for _ in range(STEPS):
            value = (policy * self._after(value)).sum(-1)
        return {"reward": value.mean(-1) / self.best}


def _problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances of the next states, what an action pays, and its chance to end the episode."""
    rng = np.random.default_rng([seed, 3])
    moves = rng.dirichlet(np.full(STATES, 0.1), size=(STATES, ACTIONS))
    pays = rng.random((STATES, ACTIONS)) * (rng.random((STATES, ACTIONS)) < 0.25)
    return moves, pays, rng.random((STATES, ACTIONS)) * 0.2
