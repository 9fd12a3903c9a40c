"""Training of many runs at once: every tensor has a leading axis of runs, seed by seed and rate by rate.

All methods go through one estimator, the sum of ``coefficient * grad log pi`` over tokens, and one optimiser,
so that what differs between methods is the coefficients.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch

CLIP_NORM = 1.0
RECORDS = 32  # points of the course of a run that are kept
SCORES = 8
RENEWED = 8  # updates after which the proximal policy of a method with two ratios is renewed
POLICIES, PERIOD = 4, 16  # replay: of so many policies, collected every so many updates


class Draws(NamedTuple):
    """Prompts and answers, (runs, draws, positions); rewards, (runs, draws).

    `mask` is of the tokens that there are; log-probabilities of the others are 0.
    """

    prompt: torch.Tensor
    answer: torch.Tensor
    log_q: torch.Tensor
    reward: torch.Tensor
    mask: torch.Tensor

    def part(self, start: int, count: int) -> Draws:
        return Draws(*(a[:, start : start + count] for a in self))


class Batch(NamedTuple):
    """What a method sees: log-ratios (runs, draws, positions), advantages (runs, draws), and the mask.

    `centred` is the advantage without a division by its spread; `proximal` the log-ratio of the policy to the
    one of a few updates ago, None unless the method asks for it.
    """

    log_ratio: np.ndarray
    advantage: np.ndarray
    mask: np.ndarray
    centred: np.ndarray
    proximal: np.ndarray | None = None


class Method(Protocol):
    """From a batch to coefficients of ``grad log pi`` of each token.

    Attributes
    ----------
    gamma : float or array
        The exponents last used, NaN for a method that has none.
    decoupled : bool
        Whether it wants a proximal policy.
    """

    gamma: np.ndarray | float
    decoupled: bool

    def __call__(self, batch: Batch) -> np.ndarray: ...


@dataclass(frozen=True)
class Sampler:
    """How draws are made of a policy; the probabilities are those that draws really had."""

    temperature: float = 1.0
    top_p: float = 1.0

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Of all tokens, along the last axis; -inf for those that it cannot draw."""
        log_p = torch.log_softmax(logits / self.temperature, -1)
        if self.top_p == 1.0:
            return log_p
        ordered = log_p.sort(-1, descending=True)
        before = ordered.values.exp().cumsum(-1) - ordered.values.exp()
        kept = torch.empty_like(log_p, dtype=torch.bool).scatter_(-1, ordered.indices, before < self.top_p)
        return torch.log_softmax(torch.where(kept, log_p, -torch.inf), -1)


class Task(Protocol):
    """Problems of some seeds, each with a run for each learning rate.

    Attributes
    ----------
    group : int
        How many answers in a row are of one prompt: their rewards are centred and scaled by their own mean
        and spread. 0 if all rewards of a collection are centred by their mean.
    """

    seeds: tuple[int, ...]
    group: int

    def start(self) -> torch.Tensor: ...

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws: ...

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
    sampler : Sampler
    lag : int
        If not 0: each batch is of the policy of so many updates ago.
    replay : bool
        Whether each batch is, a quarter each, of the policies of the last four collections.
    """

    name: str
    age: int = 1
    sampler: Sampler = Sampler()
    lag: int = 0
    replay: bool = False


def inverse_cdf(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draws from the last axis, one for each uniform number; never one of probability 0."""
    cumulated = probabilities.cumsum(-1)
    below = cumulated <= (uniform * cumulated[..., -1])[..., None]
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


def advantages(reward: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of draws that were collected together, (runs, draws): as methods take them, and only centred."""
    if not group:
        centred = reward - reward.mean(1, keepdim=True)
        return centred, centred
    grouped = reward.unflatten(1, (-1, group))
    centred = grouped - grouped.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt()
    return (centred / (spread + 1e-4)).flatten(1), centred.flatten(1)


def gradient(
    task: Task,
    theta: torch.Tensor,
    draws: Draws,
    coefficients: Callable[[np.ndarray], np.ndarray],
) -> tuple[torch.Tensor, np.ndarray]:
    """Of minus the sum of ``coefficient * log pi``, and the log-ratios, (runs, draws, positions)."""
    theta = theta.detach().requires_grad_()
    log_p = task.log_probs(theta, draws)
    log_ratio = (log_p.detach() - draws.log_q).double().cpu().numpy()
    weights = torch.as_tensor(coefficients(log_ratio), dtype=log_p.dtype, device=log_p.device)
    return torch.autograd.grad(-(weights * log_p).sum(), theta)[0], log_ratio


class _Source:
    """Batches as a level has them: draws and their advantages."""

    def __init__(self, task: Task, level: Level, batch: int, rng: torch.Generator):
        self.task, self.level, self.batch, self.rng = task, level, batch, rng
        self.past: deque[torch.Tensor] = deque(maxlen=level.lag + 1)
        self.pools: deque[tuple[Draws, tuple[torch.Tensor, torch.Tensor]]] = deque(maxlen=POLICIES)

    def _collect(self, theta: torch.Tensor, count: int) -> tuple[Draws, tuple[torch.Tensor, torch.Tensor]]:
        draws = self.task.collect(theta, count, self.level.sampler, self.rng)
        return draws, advantages(draws.reward, self.task.group)

    def next(self, update: int, theta: torch.Tensor) -> tuple[Draws, tuple[torch.Tensor, torch.Tensor]]:
        if self.level.lag:
            self.past.append(theta)
            return self._collect(self.past[0], self.batch)
        if self.level.replay:
            return self._replayed(update, theta)
        position = update % self.level.age
        if position == 0:
            self.pool = self._collect(theta, self.level.age * self.batch)
        return _part(self.pool, position * self.batch, self.batch)

    def _replayed(self, update: int, theta: torch.Tensor) -> tuple[Draws, tuple[torch.Tensor, torch.Tensor]]:
        position, share = update % PERIOD, self.batch // POLICIES
        if position == 0:
            # Each draw is used once: a collection lasts for as many periods as there are policies.
            for _ in range(1 if self.pools else POLICIES):
                self.pools.append(self._collect(theta, PERIOD * self.batch))
        parts = [
            _part(pool, (turn * PERIOD + position) * share, share)
            for turn, pool in enumerate(reversed(self.pools))
        ]
        draws = Draws(*(torch.cat(part, 1) for part in zip(*(part[0] for part in parts), strict=True)))
        both = tuple(torch.cat(part, 1) for part in zip(*(part[1] for part in parts), strict=True))
        return draws, both


def _part(pool: tuple[Draws, tuple[torch.Tensor, torch.Tensor]], start: int, count: int):
    draws, both = pool
    return draws.part(start, count), tuple(a[:, start : start + count] for a in both)


def train(
    task: Task, method: Method, level: Level, rates: torch.Tensor, updates: int, batch: int
) -> dict[str, np.ndarray]:
    """Train all runs; scores at the start, on the way and in the end, and the weights' course."""
    # The same numbers for all methods: what differs is what they make of them.
    rng = torch.Generator().manual_seed(zlib.crc32(f"{level.name} {task.seeds}".encode()))
    theta = task.start()
    source = _Source(task, level, batch, rng)
    adam = Adam(theta, rates)
    scores = [task.score(theta)]
    course: dict[str, list[np.ndarray]] = {"update": [], "ess": [], "gamma": []}
    near = theta
    for update in range(updates):
        draws, both = source.next(update, theta)
        advantage, centred = (a.double().cpu().numpy() for a in both)
        mask = draws.mask.cpu().numpy()
        seen = partial(_seen, method, advantage=advantage, mask=mask, centred=centred)
        if method.decoupled:
            if update % RENEWED == 0:
                near = theta
            with torch.no_grad():
                log_near = (task.log_probs(near, draws) - draws.log_q).double().cpu().numpy()
            seen = partial(seen, log_near=log_near)
        slope, log_ratio = gradient(task, theta, draws, seen)
        theta = adam.step(theta, slope)
        if (update + 1) % max(updates // RECORDS, 1) == 0:
            course["update"].append(np.array(update + 1))
            course["ess"].append(ess_ratio(log_ratio.sum(-1)))
            course["gamma"].append(np.broadcast_to(method.gamma, len(theta)))
        if (update + 1) % max(updates // SCORES, 1) == 0:
            scores.append(task.score(theta))
    out = {name: np.stack(values) for name, values in course.items()}
    out |= {f"score {name}": np.stack([s[name].cpu().numpy() for s in scores]) for name in scores[0]}
    return out


def _seen(method, log_ratio, *, advantage, mask, centred, log_near=None):
    proximal = None if log_near is None else log_ratio - log_near
    return method(Batch(log_ratio, advantage, mask, centred, proximal))


def ess_ratio(log_w: np.ndarray) -> np.ndarray:
    """ESS / n of weights along the last axis."""
    w = np.exp(log_w - log_w.max(-1, keepdims=True))
    return w.sum(-1) ** 2 / (w**2).sum(-1) / log_w.shape[-1]
