"""How often alarms of a step are false, and whether they fire on what ruins a run.

``python benchmarks/rl/alarms.py [--quick]`` prints three tables: batches of learning runs of the study, in
which the default controller does well, so that an alarm is false; log-normal weights of mean 1, where
`alarm_offset` and `alarm_silenced` are false by construction and the others count what is there; and batches
that would ruin a run, each with the alarm that is meant for it. Needs torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jobs import LEVELS, PLANS, Plan
from methods import Controlled
from training import train

from isdiag.rl import METRICS, Fixed, GammaController, Masked, Power, State, take_step

ALARMS = tuple(name for name in METRICS if name.startswith("alarm"))
# Learning rates of the study at which the default does well at every level.
RATES = {"bandit": 0.15, "sums": 0.03}
SPREADS = (0.05, 0.3, 1.0, 2.0, 4.0)
SIZES = (128, 1024)


def runs(name: str, plan: Plan) -> dict[str, tuple[dict[str, float], float, list[float]]]:
    """By level: the share of batches with each alarm, the mean last score, and gammas that batches allow."""
    found = {}
    for level in LEVELS.values():
        task = plan.task(plan.seeds, 1, "cpu")
        controllers = [GammaController() for _ in plan.seeds]
        rates = torch.full((len(plan.seeds),), RATES[name])
        scores = train(task, Controlled(controllers), level, rates, plan.updates, plan.batch)["score reward"]
        shares = {alarm: float(np.mean([c.history[alarm] for c in controllers])) for alarm in ALARMS}
        allowed = np.concatenate([c.history["gamma_batch"] for c in controllers])
        found[level.name] = shares, float(scores[-1].mean()), np.quantile(allowed, [0.0, 0.01, 0.5]).tolist()
    return found


def clean(repeats: int) -> dict[tuple[float, int], dict[str, float]]:
    """By spread and size: the share of log-normal batches with each alarm, at the gamma that they allow."""
    rng = np.random.default_rng(0)
    found = {}
    for spread in SPREADS:
        for size in SIZES:
            steps = []
            for _ in range(repeats):
                log_w = rng.normal(-(spread**2) / 2, spread, size)
                steps.append(settled(log_w, rng.normal(size=size)))
            found[spread, size] = {a: float(np.mean([getattr(s, a) for s in steps])) for a in ALARMS}
    return found


def settled(log_w, advantage, reshape=None, gamma=None):
    """A step at the gamma that the batch allows, where a controller arrives, or at a given one."""
    reshape = Power(caution=3.0) if reshape is None else reshape
    if gamma is None:
        _, first = take_step(log_w, advantage, reshape=reshape, schedule=Fixed(), state=State(0.3))
        gamma = first.gamma_batch
    return take_step(log_w, advantage, reshape=reshape, schedule=Fixed(), state=State(gamma))[1]


def _one_draw(rng):
    log_w = rng.normal(0.0, 0.05, 512)
    log_w[0] = 15.0
    return settled(log_w, rng.normal(size=512), gamma=0.9)


def _masked(rng):
    return settled(rng.normal(-18.0, 6.0, 512), rng.normal(size=512), Masked(0.5, 5.0))


def _cut(rng):
    return settled(rng.normal(-0.1, 0.1, 512), rng.normal(size=512))


def _cautious_about_one(rng):
    return settled(rng.normal(-3.0, 0.05, 512), rng.choice([-1.0, 1.0], 512), Power(1.0, 3.0, 0.0), 1.0)


def _stale(rng):
    return settled(rng.normal(-450.0, 30.0, 512), rng.normal(size=512))


RUINS: dict[str, tuple[str, Callable[[np.random.Generator], object]]] = {
    "one draw of ratio e^15 at gamma 0.9": ("alarm_one_draw", _one_draw),
    "a mask of [0.5, 5] on ratios of spread 6": ("alarm_stall", _masked),
    "a sampler that cuts 10 % of the mass": ("alarm_offset", _cut),
    "caution about a weight of 1, all weights near e^-3": ("alarm_silenced", _cautious_about_one),
    "log-ratios of spread 30": ("alarm_stale", _stale),
}


def ruined(repeats: int) -> dict[str, float]:
    """By kind of batch: how often the alarm that is meant for it fires."""
    rng = np.random.default_rng(1)
    return {
        name: float(np.mean([getattr(make(rng), alarm) for _ in range(repeats)]))
        for name, (alarm, make) in RUINS.items()
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short runs")
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    head = "  ".join(f"{alarm.removeprefix('alarm_'):>9}" for alarm in ALARMS)
    print(
        f"share of batches with an alarm, runs of the study\n{'':32}{head}      score  least gammas allowed"
    )
    for name in RATES:
        plan = replace(PLANS[name], seeds=tuple(range(given.seeds)))
        if given.quick:
            plan = replace(plan, seeds=(0,), updates=16, batch=32)
        for level, (shares, score, gammas) in runs(name, plan).items():
            rates = "  ".join(f"{shares[alarm]:9.4f}" for alarm in ALARMS)
            allowed = " ".join(f"{gamma:.3f}" for gamma in gammas)
            print(f"{name + ', ' + level:32}{rates}  {score:9.3f}  {allowed}")
    repeats = 10 if given.quick else 300
    print(f"\nlog-normal weights of mean 1, {repeats} batches each")
    for (spread, size), shares in clean(repeats).items():
        print(
            f"{f'spread {spread:g}, n = {size}':32}" + "  ".join(f"{shares[alarm]:9.4f}" for alarm in ALARMS)
        )
    print(f"\nhow often the alarm fires that is meant for it, {repeats} batches each")
    for name, share in ruined(repeats).items():
        print(f"{RUINS[name][0]:16} {share:6.3f}  {name}")


if __name__ == "__main__":
    main()
