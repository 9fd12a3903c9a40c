"""The study's parts: a method on a task at a level, tuned on some seeds and then run on others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bandit
import numpy as np
import sorting
import torch
from methods import ADAPTIVE, METHODS
from training import Level, Task, train

import isdiag

LEVELS = {
    level.name: level
    for level in (
        Level("age 1", 1),
        Level("age 8", 8),
        Level("age 32", 32),
        Level("age 128", 128),
        Level("age 8, T 1.5", 8, temperature=1.5),
    )
}


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes
    ----------
    task : callable
        Of seeds, the number of learning rates, and a device.
    methods : tuple of str
    rates : tuple of float
        Learning rates to choose from, the same for all methods and levels.
    tuning, seeds : tuple of int
        Seeds to choose the learning rate on, and those that results are of: none in common.
    updates : int
    batch : int
    about : str
        A sentence for the report.
    """

    task: Callable[[tuple[int, ...], int, str], Task]
    methods: tuple[str, ...]
    rates: tuple[float, ...]
    tuning: tuple[int, ...]
    seeds: tuple[int, ...]
    updates: int
    batch: int
    about: str


PLANS = {
    "bandit": Plan(
        task=bandit.Bandit,
        # With answers of one token the geometric mean is the ratio: GSPO is PPO with another clip.
        methods=tuple(name for name in METHODS if name != "GSPO"),
        rates=(0.03, 0.1, 0.3, 1.0, 3.0),
        tuning=tuple(range(100, 105)),
        seeds=tuple(range(10)),
        updates=384,
        batch=128,
        about=bandit.ABOUT,
    ),
    "sorting": Plan(
        task=sorting.Sorting,
        methods=tuple(METHODS),
        rates=(0.0005, 0.001, 0.002, 0.004),
        tuning=tuple(range(100, 103)),
        seeds=tuple(range(8)),
        updates=256,
        batch=128,
        about=sorting.ABOUT,
    ),
}

# Takes seconds and says nothing.
_LITTLE = {"tuning": (100, 101), "seeds": (0, 1), "updates": 8, "batch": 32}
QUICK = {
    "bandit": replace(PLANS["bandit"], rates=(0.1, 0.3), **_LITTLE),
    "sorting": replace(
        PLANS["sorting"], task=partial(sorting.Sorting, scored=32), rates=(0.001, 0.002), **_LITTLE
    ),
}


def runs_of(plan: Plan, level: Level, method: str, seeds: tuple[int, ...], rates, device: str) -> dict:
    """What `train` gives, with axes (time, seed, rate)."""
    task = plan.task(seeds, len(rates), device)
    each = torch.tensor(rates, dtype=torch.float32, device=device).repeat(len(seeds))
    coefficients = METHODS[method](len(each), plan.updates)
    found = train(task, coefficients, level, each, plan.updates, plan.batch)
    return {name: a if a.ndim == 1 else a.reshape(len(a), len(seeds), -1) for name, a in found.items()}


def run_job(task: str, level: str, method: str, plan: Plan, device: str) -> dict[str, np.ndarray]:
    """Scores of the tuning seeds at all rates, then all that is known of the other seeds.

    They run at the rate that was best, those of the adaptive method at all rates: one for all levels can
    be chosen only when all levels are done.
    """
    start = time.perf_counter()
    tuned = runs_of(plan, LEVELS[level], method, plan.tuning, plan.rates, device)["score reward"][-1]
    best = plan.rates[int(np.argmax(np.nan_to_num(tuned.mean(0), nan=-np.inf)))]
    rates = plan.rates if method == ADAPTIVE else (best,)
    found = runs_of(plan, LEVELS[level], method, plan.seeds, rates, device)
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
        | {"tuned": tuned, "best rate": np.array(best), "rates": np.array(rates)}
        | found
    )


def machine(device: str) -> str:
    cores = f"{os.cpu_count()} cores"
    return f"{cores}, one {torch.cuda.get_device_name()}" if device == "cuda" else cores


def run_and_save(task: str, level: str, method: str, plan: Plan, device: str, folder: Path) -> Path:
    torch.set_num_threads(1)
    path = folder / f"{task} {level} {method}.npz".replace(" ", "_").replace(",", "")
    np.savez_compressed(path, **run_job(task, level, method, plan, device))
    return path
