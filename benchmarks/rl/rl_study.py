"""How methods of off-policy learning bear stale data: ``python benchmarks/rl/rl_study.py``.

Needs ``pip install -e ".[torch]" matplotlib``. Writes rl_study.md, rl_study_cells.csv and rl_study.png
to docs/results. Each method on each task at each level is a job with random numbers of its own, so results
do not depend on how jobs are spread. To run jobs in several calls keep their results with ``--raw DIR``, and
in the end call with ``--merge DIR``.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import tempfile
import textwrap
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jobs import LEVELS, PLANS, QUICK, Plan, run_and_save
from methods import ADAPTIVE
from scipy import stats

RESULTS = Path(__file__).parents[2] / "docs" / "results"
ONE_RATE = f"{ADAPTIVE}, one rate"
SHOWN = ("REINFORCE", "PPO", "TIS", ADAPTIVE)  # whose course is drawn
SHOWN_LEVEL = "age 32"


def run(
    jobs: list[tuple[str, str, str]], plans: dict[str, Plan], device: str, processes: int, raw: Path
) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        futures = [pool.submit(run_and_save, *job, plans[job[0]], device, raw) for job in jobs]
        for i, future in enumerate(as_completed(futures), 1):
            print(f"{i}/{len(jobs)} {future.result().stem}", flush=True)


class Cell(NamedTuple):
    """A method at a level: what came out at one learning rate, (seeds,)."""

    task: str
    level: str
    method: str
    rate: float
    start: np.ndarray
    final: np.ndarray
    highest: np.ndarray
    exact: np.ndarray
    course: dict[str, np.ndarray]
    made: dict

    @property
    def collapsed(self) -> np.ndarray:
        kept = (self.final >= self.start) & (self.final >= self.highest / 2)  # NaN is not kept
        return ~kept


def cell_of(found: dict[str, np.ndarray], method: str, rate: float) -> Cell:
    column = int(np.flatnonzero(found["rates"] == rate)[0])
    score = found["score reward"][:, :, column]
    exact = found["score exact"][-1, :, column] if "score exact" in found else np.full(score.shape[1], np.nan)
    course = {name: found[name][:, :, column] for name in ("ess", "khat", "gamma")}
    course["update"] = found["update"]
    named = (str(found["task"]), str(found["level"]), method, rate)
    made = json.loads(str(found["made"]))
    return Cell(*named, score[0], score[-1], np.nanmax(score, axis=0), exact, course, made)


def load(raw: Path) -> list[Cell]:
    """A cell a job, and more for the adaptive method with one rate for all levels of a task."""
    found = [dict(np.load(path)) for path in sorted(raw.glob("*.npz"))]
    cells = []
    for task, plan in PLANS.items():
        jobs = {(str(job["method"]), str(job["level"])): job for job in found if job["task"] == task}
        order = [(method, level) for method in plan.methods for level in LEVELS if (method, level) in jobs]
        cells += [cell_of(jobs[key], key[0], float(jobs[key]["best rate"])) for key in order]
        adaptive = [jobs[key] for key in order if key[0] == ADAPTIVE]
        if adaptive:
            mean = np.mean([job["tuned"].mean(0) for job in adaptive], axis=0)
            one = adaptive[0]["rates"][np.nanargmax(mean)]
            cells += [cell_of(job, ONE_RATE, one) for job in adaptive]
    return cells


def interval(values: np.ndarray) -> float:
    """Half the width of a 95 % interval for the mean over seeds."""
    if len(values) < 2:
        return np.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def best_of(cells: list[Cell], task: str, level: str) -> Cell:
    """The best other method, chosen with hindsight."""
    rivals = [c for c in cells if (c.task, c.level) == (task, level) and c.method not in {ADAPTIVE, ONE_RATE}]
    return max(rivals, key=lambda c: np.nan_to_num(c.final.mean(), nan=-np.inf))


def table(cells: list[Cell], task: str, entry: Callable[[Cell], str]) -> list[str]:
    own = {(c.method, c.level): c for c in cells if c.task == task}
    levels = [level for level in LEVELS if any(key[1] == level for key in own)]
    lines = ["| | " + " | ".join(levels) + " |", "|---|" + "--:|" * len(levels)]
    for method in dict.fromkeys(method for method, _ in own):
        entries = [entry(own[method, level]) if (method, level) in own else "" for level in levels]
        lines.append(f"| {method} | " + " | ".join(entries) + " |")
    return lines


def rows_of(cells: list[Cell]) -> list[dict]:
    rows = []
    for cell in cells:
        best = best_of(cells, cell.task, cell.level)
        # Seeds share their random numbers between methods: differences are surer than the means.
        ahead = (cell.final - best.final) / best.final.mean()
        rows.append(
            {
                "task": cell.task,
                "level": cell.level,
                "method": cell.method,
                "rate": cell.rate,
                "seeds": len(cell.final),
                "start": cell.start.mean(),
                "reward": cell.final.mean(),
                "half_width": interval(cell.final),
                "exact": cell.exact.mean(),
                "best_other": best.method,
                "ratio": 1 + ahead.mean(),
                "ratio_half_width": interval(ahead),
                "collapsed": int(cell.collapsed.sum()),
                "ess_ratio": np.nanmean(cell.course["ess"]),
                "khat": np.nanmedian(cell.course["khat"]),
                "gamma": np.mean(cell.course["gamma"]),
                "job_seconds": cell.made["seconds"],
            }
        )
    return rows


def worst(rows: list[dict]) -> list[str]:
    """How far behind the best of its level a method ever is."""
    lines = [
        "## Where each method is worst",
        "",
        "Final reward over that of the best other method of the same task and level, at its least, and runs",
        "that collapsed, of all:",
        "",
        "| | least | at | collapsed |",
        "|---|--:|---|--:|",
    ]
    least = {}
    for row in rows:
        least.setdefault(row["method"], []).append(row)
    for method, own in sorted(least.items(), key=lambda item: -min(row["ratio"] for row in item[1])):
        row = min(own, key=lambda row: row["ratio"])
        collapsed, runs = (sum(each[name] for each in own) for name in ("collapsed", "seeds"))
        where = f"{row['task']}, {row['level']}"
        lines.append(f"| {method} | {row['ratio']:.3f} | {where} | {collapsed} of {runs} |")
    return [*lines, ""]


def command(cells: list[Cell]) -> str:
    """What to call for the same numbers, as far as the cells tell."""
    first = cells[0]
    words = ["python benchmarks/rl/rl_study.py"]
    if first.made["updates"] != PLANS[first.task].updates:
        words.append("--quick")
    if len(first.final) != len((QUICK if words[1:] else PLANS)[first.task].seeds):
        words.append(f"--seeds {len(first.final)}")
    if "one " in first.made["machine"]:  # a GPU: see `jobs.machine`
        words.append("--device cuda")
    return " ".join(words)


def report(cells: list[Cell]) -> str:
    made = [cell.made for cell in cells]
    versions = ", ".join(f"{name} {version}" for name, version in made[0]["versions"].items())
    machines = "; ".join(sorted({each["machine"] for each in made}))
    lines = [
        "# Learning from stale data",
        "",
        f"Made by `{command(cells)}` on {date.today().isoformat()}",
        f"on {machines}, with {versions}. All numbers are in [a table](rl_study_cells.csv).",
        "",
        "At a level called age K a policy collects K batches at once and then trains on one after the",
        "other, each once: the last trains a policy that has moved by K - 1 updates. T 1.5 is a sampler with",
        "logits over 1.5, whose log-probabilities are those that draws really had. The number of updates is",
        "the same throughout. All methods have the same random numbers, advantage (reward less the mean of",
        "what was collected together), Adam and clipping of the gradient's norm, and differ in the",
        "coefficients of `grad log pi`. Those of gamma methods are divided by the sum of weights, others by",
        "the number of draws. PPO, TIS and CISPO go by the ratio of tokens, GSPO by its geometric mean, the",
        "others by that of the whole answer.",
        "",
        "The learning rate is tuned for each method at each level on seeds of its own; results are of other",
        f"seeds. `{ONE_RATE}` has one for all levels of a task, the best on average on the",
        f"tuning seeds. `{ADAPTIVE}` is `GammaController()` as it stands, its constants (caution 3, ESS",
        "0.8 n) having been chosen on tuning seeds; the plain one has caution 1 and ESS 0.3 n. +- is half a",
        "95 % interval over seeds.",
        "",
    ]
    rows = rows_of(cells)
    lines += worst(rows)
    by_cell = {(row["task"], row["method"], row["level"]): row for row in rows}

    def of(cell: Cell, text: str) -> str:
        return text.format(**by_cell[cell.task, cell.method, cell.level])

    for task in dict.fromkeys(cell.task for cell in cells):
        own = [cell for cell in cells if cell.task == task]
        first = own[0].made
        lines += [
            f"## {task.capitalize()}",
            "",
            f"{first['updates']} updates of {first['batch']} draws, {len(own[0].final)} seeds.",
            f"Learning rates: {', '.join(f'{rate:g}' for rate in first['rates'])}.",
            *textwrap.wrap(f"{PLANS[task].about} It starts at {own[0].start.mean():.3f}.", 105),
            "",
            "Final reward:",
            "",
            *table(cells, task, lambda cell: of(cell, "{reward:.3f} +- {half_width:.3f}")),
            "",
        ]
        if np.isfinite(own[0].exact).all():
            lines += ["Share of answers right throughout:", ""]
            lines += [*table(cells, task, lambda cell: of(cell, "{exact:.3f}")), ""]
        lines += [
            "Final reward over that of the best method other than adaptive gamma, chosen with hindsight (+-",
            "from differences of seeds):",
            "",
            *table(cells, task, lambda cell: of(cell, "{ratio:.3f} +- {ratio_half_width:.3f}")),
            "",
            "Collapsed runs (final reward below the start, below half the highest on the way, or not",
            "finite):",
            "",
            *table(cells, task, lambda cell: of(cell, "{collapsed}")),
            "",
            "Learning rate:",
            "",
            *table(cells, task, lambda cell: of(cell, "{rate:g}")),
            "",
        ]
    lines += ["![Final rewards, and the course of ESS, khat and gamma](rl_study.png)", ""]
    return "\n".join(lines)


def plot(cells: list[Cell], path: Path) -> None:
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(cell.task for cell in cells))
    levels = [level for level in LEVELS if any(cell.level == level for cell in cells)]
    shown = SHOWN_LEVEL if SHOWN_LEVEL in levels else levels[-1]
    titles = {"ess": "ESS / n of w", "khat": "khat of w", "gamma": "gamma"}
    methods = list(dict.fromkeys(cell.method for cell in cells))
    style = {method: {"color": plt.get_cmap("tab20")(i), "lw": 1.2} for i, method in enumerate(methods)}
    style[ADAPTIVE] = {"color": "black", "lw": 2.5}
    style[ONE_RATE] = {"color": "black", "lw": 1.5, "ls": "--"}
    size = (15, 3.6 * len(tasks) + 0.6)
    figure, axes = plt.subplots(len(tasks), 4, figsize=size, squeeze=False, layout="constrained")
    for row, task in zip(axes, tasks, strict=True):
        own = [cell for cell in cells if cell.task == task]
        for method in dict.fromkeys(cell.method for cell in own):
            line = [cell for cell in own if cell.method == method]
            row[0].errorbar(
                [levels.index(cell.level) for cell in line],
                [cell.final.mean() for cell in line],
                [interval(cell.final) for cell in line],
                **style[method],
            )
        row[0].set_xticks(range(len(levels)), levels, rotation=20)
        row[0].set_ylim(0, 1.02)
        row[0].set_title(f"{task}: final reward")
        for axis, (name, title) in zip(row[1:], titles.items(), strict=True):
            for cell in own:
                if cell.level == shown and cell.method in SHOWN and np.isfinite(cell.course[name]).any():
                    axis.plot(
                        cell.course["update"], np.median(cell.course[name], axis=1), **style[cell.method]
                    )
            axis.set_title(f"{task}, {shown}: {title}")
            axis.set_xlabel("update")
        row[2].set_ylim(-0.5, 2.0)
    handles = [plt.Line2D([], [], label=method, **style[method]) for method in methods]
    figure.legend(handles=handles, loc="outside lower center", ncols=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(raw: Path, out: Path) -> None:
    cells = load(raw)
    out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(cells)
    with (out / "rl_study_cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
    (out / "rl_study.md").write_text(report(cells))
    plot(cells, out / "rl_study.png")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--task", choices=(*PLANS, "all"), default="all")
    parser.add_argument("--levels", nargs="+", choices=tuple(LEVELS), default=tuple(LEVELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, help="how many seeds results are of")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--raw", type=Path, help="keep the results of jobs here, and write no report")
    parser.add_argument("--merge", type=Path, help="run nothing: report on the results kept here")
    options = parser.parse_args(arguments)
    if options.merge:
        write(options.merge, options.out)
        return
    plans = QUICK if options.quick else PLANS
    if options.seeds:
        plans = {name: replace(plan, seeds=tuple(range(options.seeds))) for name, plan in plans.items()}
    tasks = [task for task in PLANS if options.task in {task, "all"}]
    jobs = [
        (task, level, method) for task in tasks for method in plans[task].methods for level in options.levels
    ]
    # The longest first, so that none is left alone in the end.
    jobs.sort(key=lambda job: (job[0] != "sorting", job[2] != ADAPTIVE))
    with tempfile.TemporaryDirectory() as scratch:
        raw = options.raw or Path(scratch)
        run(jobs, plans, options.device, options.processes, raw)
        if not options.raw:
            write(raw, options.out)


if __name__ == "__main__":
    main()
