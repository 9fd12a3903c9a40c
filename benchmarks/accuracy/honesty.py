"""How honest statuses, intervals and errors are: ``python benchmarks/accuracy/honesty.py``.

How often `POOR_TAIL_FIT` and `NOT_NORMALIZED` are false alarms and how often they see what is wrong, what the
intervals of divergences and of log Z cover, and whether the `mse` of the rule "mse" is the true one. Writes
docs/results/honesty.md. Every cell has a seed of its own.
"""

from __future__ import annotations

import argparse
import textwrap
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from scenarios import GROUPS, Scenario
from scipy import stats

import isdiag
from isdiag import Status

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REPEATS = 1000
AT_ONCE = 2_000_000  # draws of one batch
Z = 1.959964  # of a 95 % interval of a normal law
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def batches(name: str, repeats: int, n: int) -> Iterator[tuple[np.random.Generator, tuple[int, int]]]:
    """A generator, and shapes (rows, n) that make so many rows."""
    rng = np.random.default_rng(zlib.crc32(f"honesty {name} {n}".encode()))
    while repeats > 0:
        rows = min(repeats, max(AT_ONCE // n, 1))
        yield rng, (rows, n)
        repeats -= rows


# ------------------------------------------------------------------------------- tails that do not fit


def between(proposal, target) -> Draw:
    """Log-weights of draws of one law of scipy.stats for another."""

    def draw(rng, shape):
        x = proposal.rvs(size=shape, random_state=rng)
        return target.logpdf(x) - proposal.logpdf(x)

    return draw


def log_normal(s: float) -> Draw:
    return lambda rng, shape: s * rng.normal(size=shape) - s * s / 2


def pareto(k: float) -> Draw:
    """Weights that exceed any level by a generalised Pareto law of index k; of mean 1 if k < 1."""
    log_mean = -np.log1p(-k) if k < 1 else 0.0

    def draw(rng, shape):
        e = rng.exponential(size=shape)
        return (k * e if k > 0 else np.log(np.expm1(k * e) / k)) - log_mean

    return draw


def two_levels(rng, shape):
    """1 in 100 weights is 30 times the others, which spread a little."""
    return np.where(rng.random(shape) < 0.01, np.log(30.0), 0.0) + 0.05 * rng.normal(size=shape)


def few_levels(rng, shape):
    return np.log(rng.choice([0.2, 1.0, 4.0], p=[0.7, 0.25, 0.05], size=shape)) + 1e-3 * rng.normal(
        size=shape
    )


def tail_of_its_own(rng, shape):
    """1 in 20 weights is about 50 times the others."""
    far = rng.random(shape) < 0.05
    return np.where(far, 4.0, 0.0) + 0.5 * rng.normal(size=shape)


NORMAL = stats.norm()
FITTING: dict[str, Draw] = (
    {f"generalised Pareto, k = {k:g}": pareto(k) for k in (-1.0, -0.5, -0.2, 0.3, 0.7, 1.2)}
    | {f"log-normal, s = {s:g}": log_normal(s) for s in (0.3, 1.0, 2.0)}
    | {f"N(0, {s:g}^2) for N(0, 1)": between(stats.norm(0, s), NORMAL) for s in (1.2, 1.5, 3.0)}
    | {f"t{d} for N(0, 1)": between(stats.t(d), NORMAL) for d in (2, 3, 5, 10)}
    | {f"t{a} for t{b}": between(stats.t(a), stats.t(b)) for a, b in ((3, 5), (3, 10))}
)
# The weights fall from the middle and rise again: where both are in the tail that is fitted it has two parts.
WITH_A_MIDDLE: dict[str, Draw] = {f"N(0, 1) for t{d}": between(NORMAL, stats.t(d)) for d in (3, 10)} | {
    f"t{a} for t{b}": between(stats.t(a), stats.t(b)) for a, b in ((5, 3), (10, 3))
}
MISFITTING: dict[str, Draw] = {
    "1 in 100 is 30 times the others": two_levels,
    "three levels": few_levels,
    "1 in 20 is 50 times the others": tail_of_its_own,
}
TAIL_SIZES = (100, 300, 1000, 4000, 20_000)


def poor(name: str, draw: Draw, repeats: int, n: int) -> float:
    """The share of rows whose tail is called a poor fit."""
    found = [isdiag.psis(draw(*each)).status == Status.POOR_TAIL_FIT for each in batches(name, repeats, n)]
    return float(np.mean(np.concatenate(found)))


def rejected(name: str, draw: Draw, repeats: int, n: int) -> float:
    """The share of rows in which `finite_variance_test` rejects at level 0.05."""
    tests = (isdiag.finite_variance_test(draw(rng, shape)) for rng, shape in batches(name, repeats, n))
    return float(np.mean(np.concatenate([test.p_value < 0.05 for test in tests])))


# ------------------------------------------------------------------------------ divergences and log Z


@dataclass(frozen=True)
class Known:
    """Weights of mean 1 whose mean of w^a is known; its log is infinite where there is none."""

    name: str
    draw: Draw
    kl: float
    log_moment: Callable[[float], float]

    def renyi(self, a: float) -> float:
        return self.log_moment(a) / (a - 1)


def known_log_normal(s: float) -> Known:
    return Known(f"log-normal, s = {s:g}", log_normal(s), s * s / 2, lambda a: s * s * a * (a - 1) / 2)


def known_pareto(k: float) -> Known:
    def log_moment(a: float) -> float:
        return a * np.log1p(-k) - np.log1p(-k * a) if k * a < 1 else np.inf

    return Known(f"generalised Pareto, k = {k:g}", pareto(k), k / (1 - k) + np.log1p(-k), log_moment)


LAWS = tuple(map(known_log_normal, (0.3, 1.0, 1.5, 2.0))) + tuple(map(known_pareto, (0.2, 0.4)))
DIVERGENCE_SIZES = (50, 200, 1000, 10_000)
DIVERGENCES = {
    "KL": (isdiag.kl_divergence, lambda law: law.kl),
    "Renyi 2": (partial(isdiag.renyi_divergence, alpha=2.0), lambda law: law.renyi(2.0)),
    "Renyi 3": (partial(isdiag.renyi_divergence, alpha=3.0), lambda law: law.renyi(3.0)),
    "chi2": (isdiag.chi2_divergence, lambda law: np.expm1(law.log_moment(2.0))),
    "log Z": (partial(isdiag.log_moment, gamma=1.0), lambda law: law.log_moment(1.0)),
}


@dataclass(frozen=True)
class Coverage:
    """Of the intervals, of estimate +- 1.96 errors, and of the intervals of rows without a warning."""

    covered: np.ndarray
    plain: np.ndarray
    trusted: np.ndarray

    @classmethod
    def joined(cls, parts: list[Coverage]) -> Coverage:
        fields = ("covered", "plain", "trusted")
        return cls(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))

    def __str__(self) -> str:
        sound = self.covered[self.trusted]
        alone = f"{sound.mean():.2f}" if sound.size >= 0.05 * self.covered.size else "-"
        return f"{self.covered.mean():.2f}, {self.plain.mean():.2f}, {1 - self.trusted.mean():.0%}, {alone}"


def coverage(law: Known, divergence: str, repeats: int, n: int) -> Coverage:
    function, truth = DIVERGENCES[divergence]
    target, parts = truth(law), []
    for rng, shape in batches(law.name, repeats, n):
        found = function(law.draw(rng, shape))
        covered = (found.low <= target) & (target <= found.high)
        plain = np.abs(found.estimate - target) <= Z * found.std_error
        parts.append(Coverage(covered, plain, found.status == Status.OK))
    return Coverage.joined(parts)


# ------------------------------------------------------------------ the rule "mse" and a known normaliser

# Scenarios that the formula of `mse` was not chosen on.
JUDGED = tuple(s for group in GROUPS if group not in ("tuned on", "intervals") for s in GROUPS[group])
CELL_SIZES = (64, 200, 1000, 10_000)


@dataclass(frozen=True)
class Cell:
    """Of one scenario, n and h: what the rule "mse" says of its error over what it is, and others' RMSE."""

    said: float  # root of the mean `mse` over the root mean squared error
    error_alone: float  # the same of the standard error
    bias: float  # mean `bias` over the bias, NaN where repeats do not show one
    sign: float  # share of samples whose `bias` has its sign
    alarm: float  # share of samples in which the status of `control_variate` is `NOT_NORMALIZED`
    controlled: float  # RMSE of `control_variate` over that of `snis`, in the other samples


def study_cells(scenario: Scenario, repeats: int, n: int) -> list[Cell]:
    data = [scenario.draw(rng, *shape) for rng, shape in batches(scenario.name, repeats, n)]
    return [cell_of([(log_w, h[question]) for log_w, h in data], t) for question, t in scenario.truth.items()]


def cell_of(data: list[tuple[np.ndarray, np.ndarray]], truth: float) -> Cell:
    chosen = [isdiag.select_gamma(log_w, rule="mse", h=h) for log_w, h in data]
    error, mse, std_error, bias = (
        np.concatenate([getattr(found, name) for found in chosen])
        for name in ("estimate", "mse", "std_error", "bias")
    )
    error = error - truth
    plain = np.concatenate([isdiag.snis(*each).estimate for each in data]) - truth
    regressions = [isdiag.control_variate(*each) for each in data]
    controlled = np.concatenate([found.estimate for found in regressions]) - truth
    alarm = np.concatenate([found.status == Status.NOT_NORMALIZED for found in regressions])
    controlled, spread = (
        np.sqrt(np.mean(each[~alarm] ** 2)) if not alarm.all() else 0.0 for each in (controlled, plain)
    )
    shown = abs(error.mean()) > 2 * error.std() / np.sqrt(error.size)
    size = np.sqrt(np.mean(error**2))
    return Cell(
        said=ratio(np.sqrt(np.mean(mse)), size),
        error_alone=ratio(np.sqrt(np.mean(std_error**2)), size),
        bias=ratio(bias.mean(), error.mean()) if shown else np.nan,
        sign=float(np.mean(np.sign(bias) == np.sign(error.mean()))) if shown else np.nan,
        alarm=float(np.mean(alarm)),
        # Of an h that is the same wherever there is weight the plain estimate has no error but rounding.
        controlled=ratio(controlled, spread if spread > 1e-9 * controlled else 0.0),
    )


def ratio(a: float, b: float) -> float:
    return float(a / b) if b != 0.0 else np.nan


# ------------------------------------------------------------------------------------ greedy policies

CONTEXTS, ACTIONS = 400, 10


@dataclass(frozen=True)
class Policies:
    """A (nearly) greedy policy is evaluated on the data of another, with as many contexts and actions.

    Both prefer an action in each context, the same one in a share `agree` of them. The logging policy takes
    another in a share `explored` of visits, by a softmax of that `spread`, the target in a share `soft`. In a
    share `unseen` of contexts logging never takes what the target prefers.
    """

    agree: float
    explored: float
    spread: float
    soft: float
    unseen: float = 0.0

    def draw(self, rng, shape) -> tuple[np.ndarray, np.ndarray, float]:
        """Log-weights, rewards and the target's mean reward."""
        made = np.random.default_rng(3)
        rows = np.arange(CONTEXTS)
        best = made.integers(ACTIONS, size=CONTEXTS)
        logged = np.where(made.random(CONTEXTS) < self.agree, best, made.integers(ACTIONS, size=CONTEXTS))
        others = np.exp(self.spread * made.normal(size=(CONTEXTS, ACTIONS)))
        mu = self.explored * others / others.sum(1, keepdims=True)
        mu[rows, logged] += 1 - self.explored
        hidden = made.random(CONTEXTS) < self.unseen
        mu[hidden, best[hidden]] = 0.0
        mu[hidden, (best[hidden] + 1) % ACTIONS] += 1 - mu[hidden].sum(1)
        pi = np.full((CONTEXTS, ACTIONS), self.soft / ACTIONS)
        pi[rows, best] += 1 - self.soft
        reward = 0.5 * made.random((CONTEXTS, ACTIONS))
        reward[rows, best] += 0.5
        context = rng.integers(CONTEXTS, size=shape)
        # All cumulative probabilities in one ascending row: those of a context lie above its number.
        cumulative = (rows[:, None] + mu.cumsum(1)).ravel()
        place = np.searchsorted(cumulative, context + rng.random(shape)) - ACTIONS * context
        action = place.clip(0, ACTIONS - 1)
        with np.errstate(divide="ignore"):
            log_w = np.log(pi[context, action]) - np.log(mu[context, action])
        noise = 0.1 * rng.normal(size=shape)
        return log_w, reward[context, action] + noise, float((pi * reward).sum(1).mean())


GREEDY = [Policies(*each) for each in product((0.3, 0.7, 0.9), (0.05, 0.2, 0.5), (0.1, 1.0), (0.0, 0.1))]
GREEDY_SIZES = (1000, 20_000)
UNSEEN = (0.0, 0.02, 0.05, 0.1, 0.3)
BY_SNIS = {"truncated": "truncate", "PSIS": "psis", '"auto"': "auto"}


def greedy_cell(policies: Policies, repeats: int, n: int) -> dict[str, float]:
    """RMSE over that of plain weights, and how often statuses are named."""
    squares: dict[str, list[np.ndarray]] = {name: [] for name in ("plain", *BY_SNIS, "control_variate")}
    alarms, poor = [], []
    for rng, shape in batches(repr(policies), repeats, n):
        log_w, h, truth = policies.draw(rng, shape)
        controlled = isdiag.control_variate(log_w, h)
        estimates = {name: isdiag.snis(log_w, h, smooth=smooth).estimate for name, smooth in BY_SNIS.items()}
        estimates |= {"plain": isdiag.snis(log_w, h).estimate, "control_variate": controlled.estimate}
        for name, estimate in estimates.items():
            squares[name].append((estimate - truth) ** 2)
        alarms.append(controlled.status == Status.NOT_NORMALIZED)
        poor.append(isdiag.psis(log_w).status == Status.POOR_TAIL_FIT)
    rmse = {name: np.sqrt(np.mean(np.concatenate(each))) for name, each in squares.items()}
    cell = {name: float(rmse[name] / rmse["plain"]) for name in rmse if name != "plain"}
    return cell | {
        "alarm": float(np.mean(np.concatenate(alarms))),
        "poor": float(np.mean(np.concatenate(poor))),
    }


# -------------------------------------------------------------------------------------------- report


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def prose(text: str) -> list[str]:
    return [*textwrap.wrap(text, 105), ""]


def tails_section(repeats: int) -> list[str]:
    def shares(draws: dict[str, Draw], digits: int, share: Callable[..., float]) -> list[str]:
        found = {name: [share(name, draw, repeats, n) for n in TAIL_SIZES] for name, draw in draws.items()}
        found |= {"the most": [max(column) for column in zip(*found.values(), strict=True)]}
        rows = [[name, *(f"{each:.{digits}%}" for each in row)] for name, row in found.items()]
        return table(["weights", *(f"n = {n}" for n in TAIL_SIZES)], rows)

    heavy = {name: draw for name, draw in FITTING.items() if name.startswith("log-normal")}
    heavy |= {"log-normal, s = 3": log_normal(3.0)} | MISFITTING
    return [
        "## Tails that fit, called poor fits",
        "",
        *prose("How often the status of `psis` is `POOR_TAIL_FIT` where tails are smooth: a false alarm."),
        *shares(FITTING, 1, poor),
        *prose(
            "Of weights that fall from the middle of the target and rise again in its tails: at some n the "
            "tail that is fitted holds both."
        ),
        *shares(WITH_A_MIDDLE, 1, poor),
        *prose("Of tails that are none of a generalised Pareto law:"),
        *shares(MISFITTING, 0, poor),
        *prose("`finite_variance_test` at level 0.05 rejects, of laws whose variance is finite:"),
        *shares(heavy, 0, rejected),
    ]


def divergences_section(repeats: int) -> list[str]:
    lines = [
        "## Intervals of divergences and of log Z",
        "",
        *prose(
            "Coverage of 95 % intervals, that of the estimate +- 1.96 standard errors, how many rows are "
            "warned of (a status other than OK), and the coverage of the others' intervals (- where less "
            "than 5 % are left). Divergences are of normalised weights, log Z is that of their mean."
        ),
    ]
    pooled: dict[str, list[Coverage]] = {name: [] for name in DIVERGENCES}
    for law in LAWS:
        rows = []
        for name, (_, truth) in DIVERGENCES.items():
            if np.isfinite(truth(law)):
                found = [coverage(law, name, repeats, n) for n in DIVERGENCE_SIZES]
                pooled[name] += found
                rows.append([name, *map(str, found)])
        lines += [f"### {law.name}", "", *table(["", *(f"n = {n}" for n in DIVERGENCE_SIZES)], rows)]
    rows = [[name, str(Coverage.joined(parts))] for name, parts in pooled.items()]
    return [*lines, "### All of them", "", *table(["", "all n"], rows)]


def study_section(repeats: int) -> list[str]:
    cells = [cell for s in JUDGED for n in CELL_SIZES for cell in study_cells(s, repeats, n)]

    def quantiles(field: str) -> list[str]:
        values = np.array([getattr(cell, field) for cell in cells])
        values = values[np.isfinite(values)]
        levels = *np.quantile(values, [0.05, 0.5, 0.95]), values.max(), values.mean()
        return [str(values.size), *(f"{level:.2f}" for level in levels)]

    fields = {
        "`mse`: its root over the true error": "said",
        "`std_error` over the true error": "error_alone",
        "`bias` over the true one": "bias",
        "share of samples whose `bias` has the true sign": "sign",
        "`control_variate`: error over that of `snis`": "controlled",
        "... share of samples that are `NOT_NORMALIZED`": "alarm",
    }
    rows = [[name, *quantiles(field)] for name, field in fields.items()]
    smaller = np.mean([cell.controlled < 1 for cell in cells if np.isfinite(cell.controlled)])
    return [
        '## The error that the rule "mse" states, and a known normaliser',
        "",
        *prose(
            f"Over the cells of {len(JUDGED)} scenarios of the study that the formula was not chosen on (n = "
            f"{', '.join(map(str, CELL_SIZES))}; h linear, indicator and squared), {repeats} repeats each. "
            "The bias is looked at where repeats show one, by two of their standard errors."
        ),
        *table(["", "cells", "5 %", "median", "95 %", "most", "mean"], rows),
        *prose(
            f"`control_variate` has the smaller error in {smaller:.0%} of cells. Samples that it calls "
            "`NOT_NORMALIZED` are left out of that, for it and for `snis`: a regression on weights that are "
            "nearly equal, and whose mean is far from 1, may give anything."
        ),
    ]


def greedy_section(repeats: int) -> list[str]:
    cells = [greedy_cell(policies, repeats, n) for policies in GREEDY for n in GREEDY_SIZES]

    def across(name: str) -> list[str]:
        values = np.array([cell[name] for cell in cells])
        return [f"{np.exp(np.mean(np.log(values))):.2f}", f"{values.max():.2f}"]

    rows = [[name, *across(name)] for name in (*BY_SNIS, "control_variate")]
    false = [cell["alarm"] for cell in cells]
    unseen = []
    for share in UNSEEN:
        found = [greedy_cell(Policies(0.7, 0.5, 0.1, 0.1, share), repeats, n) for n in GREEDY_SIZES]
        unseen.append([f"{share:.0%}", *(f"{cell['alarm']:.0%}" for cell in found)])
    return [
        "## Greedy policies, and weights whose mean is not 1",
        "",
        *prose(
            f"{len(cells)} cells of off-policy evaluation with {CONTEXTS} contexts and {ACTIONS} actions, "
            "the target greedy or nearly so (`Policies` in the script), n = "
            f"{' and '.join(map(str, GREEDY_SIZES))}, {repeats} repeats. Root mean squared error over that "
            "of plain weights:"
        ),
        *table(["", "geometric mean", "most"], rows),
        *prose(
            f"`POOR_TAIL_FIT` is named in {np.mean([cell['poor'] for cell in cells]):.0%} of samples. The "
            "logging policy takes every action now and then, so that the mean weight is 1, and "
            f"`NOT_NORMALIZED` of `control_variate` is named in {np.mean(false):.1%} of samples: those that "
            f"lack the rare large weights, which are {max(false):.0%} in the worst cell. Where the logging "
            "policy never takes the target's action in a share of contexts the mean weight is not 1:"
        ),
        *table(["contexts", *(f"named, n = {n}" for n in GREEDY_SIZES)], unseen),
    ]


def report(repeats: int) -> str:
    command = "python benchmarks/accuracy/honesty.py" + (
        f" --repeats {repeats}" if repeats != REPEATS else ""
    )
    few = max(repeats // 10, 1)
    lines = [
        "# Are statuses, intervals and errors honest?",
        "",
        *prose(f"Made by `{command}`: {repeats} repeats of each cell of the first two sections."),
        *tails_section(repeats),
        *divergences_section(repeats),
        *study_section(few),
        *greedy_section(few),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    text = report(options.repeats)
    print(text)
    (options.out / "honesty.md").write_text(text)


if __name__ == "__main__":
    main()
