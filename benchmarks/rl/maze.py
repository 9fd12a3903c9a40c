"""A way out of a maze, paid by how soon it is found, and not at all where it is not."""

from __future__ import annotations

import numpy as np
import torch
from training import Draws, Sampler, inverse_cdf

SIDE, STEPS, SLIP, WALLED = 6, 24, 0.1, 0.2
CELLS, MOVES = SIDE**2, 4
ABOUT = (
    f"A maze of {SIDE} by {SIDE} cells with walls, another for each seed; the policy is a table by cell; one "
    f"step in ten goes astray. Out after t of {STEPS} steps pays 1 - t / {STEPS}, never out nothing. The "
    "score is the expected pay, exact, over that of the best policy."
)


class Maze:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        moves = torch.tensor(np.stack([_maze(seed) for seed in seeds]), dtype=torch.float32, device=device)
        self.moves = moves.repeat_interleave(rates, 0)
        self.runs = torch.arange(len(self.moves), device=device)[:, None]
        self.best = self._value(None)

    def _value(self, policy: torch.Tensor | None) -> torch.Tensor:
        """Expected pay from the first cell, of the best policy if there is none."""
        value = torch.zeros(len(self.moves), CELLS, device=self.device)
        for step in range(STEPS, 0, -1):
            value[:, -1] = 1 - step / STEPS  # who arrives by this step
            after = (self.moves @ value[:, None, :, None])[..., 0]
            value = after.amax(-1) if policy is None else (policy * after).sum(-1)
        return value[:, 0]

    def start(self) -> torch.Tensor:
        return torch.zeros(len(self.moves), CELLS * MOVES, device=self.device)

    @torch.no_grad()
    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, STEPS, 2, generator=rng).to(self.device)
        uniform = uniform.repeat_interleave(self.rates, 0)
        log_q = sampler.log_probs(theta.view(-1, CELLS, MOVES))
        chances = log_q.exp()
        cell = torch.zeros(uniform.shape[:2], dtype=torch.long, device=self.device)
        pay = torch.zeros(cell.shape, device=self.device)
        cells, moves, there = [], [], []
        for i in range(STEPS):
            going = cell != CELLS - 1
            move = inverse_cdf(chances[self.runs, cell], uniform[:, :, i, 0])
            cells.append(cell)
            moves.append(move)
            there.append(going)
            following = inverse_cdf(self.moves[self.runs, cell, move], uniform[:, :, i, 1])
            cell = torch.where(going, following, cell)
            pay = torch.where(going & (cell == CELLS - 1), 1 - (i + 1) / STEPS, pay)
        cells, moves, mask = (torch.stack(a, -1) for a in (cells, moves, there))
        taken = log_q[self.runs[..., None], cells, moves]
        return Draws(cells, moves, torch.where(mask, taken, 0.0), pay, mask)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        log_p = torch.log_softmax(theta.view(-1, CELLS, MOVES), -1).flatten(1)
        flat = (draws.prompt * MOVES + draws.answer).flatten(1)
        return torch.where(draws.mask, log_p.gather(1, flat).view(draws.answer.shape), 0.0)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"reward": self._value(torch.softmax(theta.view(-1, CELLS, MOVES), -1)) / self.best}


def _maze(seed: int) -> np.ndarray:
    """Chances of the next cell, (cells, moves, cells), of a maze with a way from the first to the last."""
    rng = np.random.default_rng([seed, 5])
    while True:
        wall = rng.random((SIDE, SIDE)) < WALLED
        wall[0, 0] = wall[-1, -1] = False
        aim = np.empty((CELLS, MOVES), int)
        for row in range(SIDE):
            for column in range(SIDE):
                for k, (down, right) in enumerate(((1, 0), (-1, 0), (0, 1), (0, -1))):
                    r, c = row + down, column + right
                    free = 0 <= r < SIDE and 0 <= c < SIDE and not wall[r, c]
                    aim[row * SIDE + column, k] = r * SIDE + c if free else row * SIDE + column
        reached = {0}
        while (more := reached | {int(cell) for start in reached for cell in aim[start]}) != reached:
            reached = more
        if CELLS - 1 in reached:
            sure = np.eye(CELLS)[aim]
            return (1 - SLIP) * sure + SLIP * sure.mean(1, keepdims=True)
