"""The study's parts: a method on a task at a level, tuned on some seeds and then run on others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import bandit
import brackets
import cart
import cipher
import episodes
import maze
import numpy as np
import ranking
import slots
import sorting
import strings
import sums
import torch
from methods import ADAPTIVE, FEW, METHODS, VARIANTS, Maker
from training import Level, Sampler, Task, train

import isdiag

LEVELS = {
    level.name: level
    for level in (
        Level("age 1"),
        Level("age 8", 8),
        Level("age 32", 32),
        Level("age 128", 128),
        Level("lag 32", lag=32),
        Level("T 0.7", 8, Sampler(temperature=0.7)),
        Level("T 1.5", 8, Sampler(temperature=1.5)),
        Level("top-p 0.8", 8, Sampler(top_p=0.8)),
        Level("replay", replay=True),
    )
}
ON_POLICY = "age 1"


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes
    ----------
    task : callable
        Of seeds, the number of learning rates, and a device.
    rates : tuple of float
        Learning rates to choose from, the same for all methods and levels.
    about : str
        A sentence for the report.
    kind : {"development", "seen", "last"}
        Whether rules were chosen on the task, it was made last to judge an earlier rule, and has been looked
        at since, or it was made when the rule was settled, to judge it.
    methods : tuple of str
    tuning, seeds : tuple of int
        Seeds to choose the learning rate and the method's constant on, and those that results are of: none
        in common.
    updates : int
    batch : int
    """

    task: Callable[[tuple[int, ...], int, str], Task]
    rates: tuple[float, ...]
    about: str
    kind: Literal["development", "seen", "last"] = "development"
    methods: tuple[str, ...] = tuple(METHODS)
    tuning: tuple[int, ...] = tuple(range(100, 103))
    seeds: tuple[int, ...] = tuple(range(6))
    updates: int = 256
    batch: int = 64


PLANS = {
    "bandit": Plan(bandit.Bandit, (0.05, 0.15, 0.5), bandit.ABOUT),
    "slots": Plan(slots.Slots, (0.1, 0.3, 1.0), slots.ABOUT),
    "strings": Plan(strings.Strings, (0.03, 0.1, 0.3), strings.ABOUT),
    "episodes": Plan(episodes.Episodes, (0.03, 0.1, 0.3), episodes.ABOUT),
    "sums": Plan(sums.Sums, (0.0125, 0.03), sums.ABOUT),
    "maze": Plan(maze.Maze, (0.03, 0.1, 0.3), maze.ABOUT, kind="seen"),
    "cipher": Plan(cipher.Cipher, (0.005, 0.015, 0.05), cipher.ABOUT, kind="seen"),
    "sorting": Plan(sorting.Sorting, (0.002, 0.006), sorting.ABOUT, kind="seen"),
    "brackets": Plan(brackets.Brackets, (0.003, 0.01, 0.03), brackets.ABOUT, kind="last"),
    "ranking": Plan(ranking.Ranking, (0.06, 0.2, 0.6), ranking.ABOUT, kind="last"),
    "cart": Plan(cart.Cart, (0.03, 0.1, 0.3), cart.ABOUT, kind="last"),
}

# Takes seconds and says nothing.
_LITTLE = {
    "tuning": (100, 101),
    "seeds": (0, 1),
    "updates": 8,
    "batch": 32,
    "methods": FEW,
}
QUICK = {name: replace(plan, rates=plan.rates[:2], **_LITTLE) for name, plan in PLANS.items()}


def runs_of(plan: Plan, level: Level, maker: Maker, seeds: tuple[int, ...], rates, device: str) -> dict:
    """What `train` gives, with axes (time, seed, rate)."""
    task = plan.task(seeds, len(rates), device)
    each = torch.tensor(rates, dtype=torch.float32, device=device).repeat(len(seeds))
    found = train(task, maker(len(each), plan.updates), level, each, plan.updates, plan.batch)
    return {name: a if a.ndim == 1 else a.reshape(len(a), len(seeds), -1) for name, a in found.items()}


def run_job(task: str, level: str, method: str, plan: Plan, device: str) -> dict[str, np.ndarray]:
    """Scores of the tuning seeds at all settings and rates, then all that is known of the other seeds.

    They run at the setting and rate that were best, those of the adaptive method at all rates: one for all
    levels can be chosen only when all levels are done.
    """
    start = time.perf_counter()
    settings = (METHODS | VARIANTS)[method]
    tuned = np.stack(
        [
            runs_of(plan, LEVELS[level], maker, plan.tuning, plan.rates, device)["score reward"][-1]
            for maker in settings
        ]
    )
    mean = np.nan_to_num(tuned.mean(1), nan=-np.inf)
    setting, rate = np.unravel_index(int(mean.argmax()), mean.shape)
    rates = plan.rates if method == ADAPTIVE else (plan.rates[rate],)
    found = runs_of(plan, LEVELS[level], settings[setting], plan.seeds, rates, device)
    made = {
        "updates": plan.updates,
        "batch": plan.batch,
        "rates": plan.rates,
        "versions": {"isdiag": isdiag.__version__, "numpy": np.__version__, "torch": torch.__version__},
        "machine": machine(device),
        "seconds": round(time.perf_counter() - start, 1),
    }
    names = {"task": task, "level": level, "method": method, "made": json.dumps(made)}
    return (
        {name: np.array(text) for name, text in names.items()}
        | {"tuned": tuned[setting], "setting": np.array(setting)}
        | {"best rate": np.array(plan.rates[rate]), "rates": np.array(rates)}
        | found
    )


def machine(device: str) -> str:
    cores = f"{os.cpu_count()} cores"
    return f"{cores}, one {torch.cuda.get_device_name()}" if device == "cuda" else cores


def path_of(task: str, level: str, method: str, folder: Path) -> Path:
    return folder / f"{task} {level} {method}.npz".replace(" ", "_").replace(",", "").replace("=", "is")


def run_and_save(task: str, level: str, method: str, plan: Plan, device: str, folder: Path) -> Path:
    torch.set_num_threads(1)
    path = path_of(task, level, method, folder)
    np.savez_compressed(path, **run_job(task, level, method, plan, device))
    return path
