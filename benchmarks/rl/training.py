"""Training of many runs at once: every tensor has a leading axis of runs, seed by seed and rate by rate.

All methods go through one estimator, the sum of ``coefficient * grad log pi`` over draws, and one optimiser,
so that what differs between methods is the coefficients.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch

import isdiag

CLIP_NORM = 1.0
RECORDS = 64  # points of the course of a run that are kept
SCORES = 8


Coefficients = Callable[[np.ndarray], np.ndarray]  # of log-ratios, (runs, draws, positions)


class Draws(NamedTuple):
    """Prompts and answers, (runs, draws, positions); rewards, (runs, draws)."""

    prompt: torch.Tensor
    answer: torch.Tensor
    log_q: torch.Tensor
    reward: torch.Tensor

    def part(self, start: int, count: int) -> Draws:
        return Draws(*(a[:, start : start + count] for a in self))


class Method(Protocol):
    """From log-ratios and advantages to coefficients.

    Attributes
    ----------
    gamma : float or array
        The exponents last used, NaN for a method that has none.
    """

    gamma: np.ndarray | float

    def __call__(self, log_ratio: np.ndarray, advantage: np.ndarray) -> np.ndarray: ...


class Task(Protocol):
    """Problems of some seeds, each with a run for each learning rate."""

    seeds: tuple[int, ...]

    def start(self) -> torch.Tensor: ...

    def collect(self, theta: torch.Tensor, count: int, temperature: float, rng: torch.Generator) -> Draws: ...

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor: ...

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]: ...


@dataclass(frozen=True)
class Level:
    """How far data are from the policy they train.

    Attributes
    ----------
    name : str
    age : int
        Batches collected at once: the last one trains a policy that has moved by ``age - 1`` updates.
    temperature : float
        Of the sampler. Its probabilities are the ones that draws really had.
    """

    name: str
    age: int
    temperature: float = 1.0


def inverse_cdf(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draws from the last axis, one for each uniform number."""
    below = probabilities.cumsum(-1) <= (uniform * probabilities.sum(-1))[..., None]
    return below.sum(-1).clamp(max=probabilities.shape[-1] - 1)


class Adam:
    """Adam with a learning rate a run, after clipping each run's gradient by its own norm."""

    def __init__(self, theta: torch.Tensor, rates: torch.Tensor):
        self.first, self.second = torch.zeros_like(theta), torch.zeros_like(theta)
        self.rates, self.steps = rates[:, None], 0

    def step(self, theta: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        norm = gradient.norm(dim=1, keepdim=True)
        # Weights may overflow: such a run leaves the update out.
        sound = torch.isfinite(norm)
        gradient = torch.where(sound, gradient * (CLIP_NORM / norm.clamp(min=CLIP_NORM)), 0.0)
        self.steps += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient**2, 0.001)
        scale = self.rates / (1 - 0.9**self.steps)
        root = (self.second / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        return torch.where(sound, theta - scale * self.first / root, theta)


def gradient(
    task: Task, theta: torch.Tensor, draws: Draws, coefficients: Coefficients
) -> tuple[torch.Tensor, np.ndarray]:
    """Of minus the sum of ``coefficient * log pi``, and the log-ratios, (runs, draws, positions)."""
    theta = theta.detach().requires_grad_()
    log_p = task.log_probs(theta, draws)
    log_ratio = (log_p.detach() - draws.log_q).double().cpu().numpy()
    weights = torch.as_tensor(coefficients(log_ratio), dtype=log_p.dtype, device=log_p.device)
    return torch.autograd.grad(-(weights * log_p).sum(), theta)[0], log_ratio


def train(
    task: Task, method: Method, level: Level, rates: torch.Tensor, updates: int, batch: int
) -> dict[str, np.ndarray]:
    """Train all runs; scores at the start, on the way and in the end, and the weights' course."""
    # The same numbers for all methods: what differs is what they make of them.
    rng = torch.Generator().manual_seed(zlib.crc32(f"{level.name} {task.seeds}".encode()))
    theta = task.start()
    adam = Adam(theta, rates)
    scores = [task.score(theta)]
    course: dict[str, list[np.ndarray]] = {"update": [], "ess": [], "khat": [], "gamma": []}
    for update in range(updates):
        position = update % level.age
        if position == 0:
            pool = task.collect(theta, level.age * batch, level.temperature, rng)
            baseline = pool.reward.mean(1, keepdim=True)
        draws = pool.part(position * batch, batch)
        advantage = (draws.reward - baseline).double().cpu().numpy()
        slope, log_ratio = gradient(task, theta, draws, partial(method, advantage=advantage))
        theta = adam.step(theta, slope)
        if (update + 1) % max(updates // RECORDS, 1) == 0:
            course["update"].append(np.array(update + 1))
            course["ess"].append(isdiag.ess(log_ratio.sum(-1)) / batch)
            course["khat"].append(isdiag.pareto_khat(log_ratio.sum(-1)))
            course["gamma"].append(np.broadcast_to(method.gamma, len(theta)))
        if (update + 1) % max(updates // SCORES, 1) == 0:
            scores.append(task.score(theta))
    out = {name: np.stack(values) for name, values in course.items()}
    out |= {f"score {name}": np.stack([s[name].cpu().numpy() for s in scores]) for name in scores[0]}
    return out
