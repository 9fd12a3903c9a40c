"""How methods of off-policy learning bear stale data: ``python benchmarks/rl/rl_study.py``.

Needs ``pip install -e ".[torch]"``. Writes rl_study.md and rl_study_cells.csv to docs/results;
``python tools/make_figures.py`` draws them. Each method on each task at each level is a
job with random numbers of its own, so results do not depend on how jobs are spread. To run jobs in several
calls keep their results with ``--raw DIR``, and in the end call with ``--merge DIR``.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import tempfile
import textwrap
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jobs import LEVELS, ON_POLICY, PLANS, QUICK, Plan, path_of, run_and_save
from methods import ADAPTIVE, FEW, METHODS, VARIANTS, WHOLE
from scipy import stats

RESULTS = Path(__file__).parents[2] / "docs" / "results"
ONE_RATE = f"{ADAPTIVE}, one rate"
OWN = {ADAPTIVE, ONE_RATE}


def run(
    jobs: list[tuple[str, str, str]], plans: dict[str, Plan], device: str, processes: int, raw: Path
) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    left = [job for job in jobs if not path_of(*job, raw).exists()]
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        futures = [pool.submit(run_and_save, *job, plans[job[0]], device, raw) for job in left]
        for i, future in enumerate(as_completed(futures), 1):
            print(f"{i}/{len(left)} {future.result().stem}", flush=True)


class Cell(NamedTuple):
    """A method at a level: what came out at one learning rate, (seeds,)."""

    task: str
    level: str
    method: str
    setting: int
    rate: float
    start: np.ndarray
    final: np.ndarray
    area: np.ndarray
    highest: np.ndarray
    course: dict[str, np.ndarray]
    made: dict

    @property
    def collapsed(self) -> np.ndarray:
        kept = (self.final >= self.start) & (self.final >= self.highest / 2)  # NaN is not kept
        return ~kept


def cell_of(found: dict[str, np.ndarray], method: str, rate: float) -> Cell:
    column = int(np.flatnonzero(found["rates"] == rate)[0])
    score = found["score reward"][:, :, column]
    course = {name: found[name][:, :, column] for name in ("ess", "gamma")}
    named = (str(found["task"]), str(found["level"]), method, int(found["setting"]), rate)
    area = (score[:-1] + score[1:]).mean(0) / 2
    return Cell(
        *named, score[0], score[-1], area, np.nanmax(score, axis=0), course, json.loads(str(found["made"]))
    )


def load(raw: Path) -> list[Cell]:
    """A cell a job, and more for the adaptive method with one rate for all levels of a task."""
    found = [dict(np.load(path)) for path in sorted(raw.glob("*.npz"))]
    cells = []
    for task in PLANS:
        jobs = {(str(job["method"]), str(job["level"])): job for job in found if job["task"] == task}
        order = [(method, level) for method in METHODS for level in LEVELS if (method, level) in jobs]
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


def best_of(cells: list[Cell], task: str, level: str, name: str) -> Cell:
    """The best method other than the adaptive one, chosen with hindsight, by "final" or "area"."""
    rivals = [c for c in cells if (c.task, c.level) == (task, level) and c.method not in OWN]
    return max(rivals, key=lambda c: np.nan_to_num(getattr(c, name).mean(), nan=-np.inf))


def whole(cells: list[Cell]) -> list[Cell]:
    """Those of tasks and levels at which the adaptive method and five others at least were run."""
    found: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        found.setdefault((cell.task, cell.level), set()).add(cell.method)
    kept = {key for key, methods in found.items() if ADAPTIVE in methods and len(methods - OWN) >= 5}
    return [cell for cell in cells if (cell.task, cell.level) in kept]


def rows_of(cells: list[Cell]) -> list[dict]:
    rows = []
    for cell in cells:
        best = best_of(cells, cell.task, cell.level, "final")
        area = best_of(cells, cell.task, cell.level, "area")
        # Seeds share their random numbers between methods: differences are surer than the means.
        ahead = (cell.final - best.final) / best.final.mean()
        rows.append(
            {
                "task": cell.task,
                "level": cell.level,
                "method": cell.method,
                "setting": cell.setting,
                "rate": cell.rate,
                "seeds": len(cell.final),
                "start": cell.start.mean(),
                "final": cell.final.mean(),
                "half_width": interval(cell.final),
                "best_other": best.method,
                "ratio": 1 + ahead.mean(),
                "ratio_half_width": interval(ahead),
                "area": cell.area.mean(),
                "area_ratio": cell.area.mean() / area.area.mean(),
                "collapsed": int(cell.collapsed.sum()),
                "ess_ratio": np.nanmean(cell.course["ess"]),
                "gamma": np.mean(cell.course["gamma"]),
                "job_seconds": cell.made["seconds"],
            }
        )
    return rows


def _mean(values) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-9)))))


def frontier(rows: list[dict], heading: str) -> list[str]:
    """Of each method: how far behind the best of a cell, at its worst and on average."""
    cells = len({(row["task"], row["level"]) for row in rows})
    lines = [
        f"## {heading}",
        "",
        f"{cells} cells. Final score over that of the best method of the cell other than `{ADAPTIVE}`: on",
        "average (geometric mean), at its least, and where; the same of the area under the curve; runs that",
        "collapsed, of all.",
        "",
        "| | mean | least | at | mean, area | least, area | collapsed |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    own = {}
    for row in rows:
        own.setdefault(row["method"], []).append(row)
    for method, of in sorted(own.items(), key=lambda item: -_mean([row["ratio"] for row in item[1]])):
        least = min(of, key=lambda row: row["ratio"])
        ratios, areas = ([row[name] for row in of] for name in ("ratio", "area_ratio"))
        lost, runs = (sum(row[name] for row in of) for name in ("collapsed", "seeds"))
        part = "" if len(of) == cells else f" ({len(of)} cells)"
        lines.append(
            f"| {method}{part} | {_mean(ratios):.3f} | {least['ratio']:.3f} | {least['task']}, "
            f"{least['level']} | {_mean(areas):.3f} | {min(areas):.3f} | {lost} of {runs} |"
        )
    return [*lines, ""]


def table(rows: list[dict], task: str, entry: str) -> list[str]:
    own = {(row["method"], row["level"]): row for row in rows if row["task"] == task}
    levels = [level for level in LEVELS if any(key[1] == level for key in own)]
    lines = ["| | " + " | ".join(levels) + " |", "|---|" + "--:|" * len(levels)]
    for method in dict.fromkeys(method for method, _ in own):
        entries = [entry.format(**own[method, level]) if (method, level) in own else "" for level in levels]
        lines.append(f"| {method} | " + " | ".join(entries) + " |")
    return [*lines, ""]


def command(cells: list[Cell]) -> str:
    """What to call for the same numbers, as far as the cells tell."""
    first = cells[0]
    words = ["python benchmarks/rl/rl_study.py"]
    if first.made["updates"] != PLANS[first.task].updates:
        words.append("--quick")
    if len(first.final) != len((QUICK if words[1:] else PLANS)[first.task].seeds):
        words.append(f"--seeds {len(first.final)}")
    found = {cell.method for cell in cells} - OWN
    if found <= set(FEW):
        words.append("--few")
    if "one " in first.made["machine"]:  # a GPU: see `jobs.machine`
        words.append("--device cuda")
    return " ".join(words)


def report(cells: list[Cell]) -> str:
    made = [cell.made for cell in cells]
    versions = ", ".join(f"{name} {version}" for name, version in made[0]["versions"].items())
    machines = "; ".join(sorted({each["machine"] for each in made}))
    first = cells[0]
    tuning = len(PLANS[first.task].tuning)
    lines = [
        "# Learning from stale data",
        "",
        f"Made by `{command(cells)}` on {date.today().isoformat()}",
        f"on {machines}, with {versions}. All numbers are in [a table](rl_study_cells.csv).",
        "",
        *textwrap.wrap(
            "At a level called age K a policy collects K batches at once and then trains on one after the "
            "other, each once: the last trains a policy that has moved by K - 1 updates. At lag 32 each "
            "batch is of the policy of 32 updates ago; a replay mixes batches of the last four collections, "
            "16 updates apart. T 0.7, T 1.5 and top-p 0.8 are samplers at age 8, whose log-probabilities are "
            "those that draws really had. All methods have the same random numbers, advantages, Adam and "
            "clipping of the gradient's norm, and differ in the coefficients of `grad log pi`.",
            105,
        ),
        "",
        *textwrap.wrap(
            f"`{ADAPTIVE}` is `isdiag.rl.presets.adaptive()` with `GammaController(ess_min=0.5, k_max=inf)`; "
            f"`{WHOLE}` is `GammaController()`, the plain rule on whole answers. The learning rate, and the "
            "main constant of TIS, CISPO and IcePop among others, are tuned for each method at each level on "
            f"{tuning} seeds of their own; results are of {len(first.final)} others. `{ONE_RATE}` has one "
            "learning rate for all levels of a task, the best on average on the tuning seeds.",
            105,
        ),
        "",
    ]
    found = {(cell.task, cell.level) for cell in cells if cell.level != ON_POLICY}
    every = len(PLANS) * (len(LEVELS) - 1)
    if len(found) < every:
        lines += [f"Of {every} off-policy cells, a task at a level each, {len(found)} have been run.", ""]
    rows = rows_of(cells)
    off = [row for row in rows if row["level"] != ON_POLICY]
    headings = {
        "last": "Tasks made last, when the rule was settled",
        "seen": "Tasks made last for an earlier rule, and looked at before this one",
        "development": "Tasks of development, on which rules were chosen",
    }
    for kind, heading in headings.items():
        part = [row for row in off if PLANS[row["task"]].kind == kind]
        lines += frontier(part, heading) if part else []
    lines += frontier(off, "All tasks") if off else []
    lines += ["```{include} figures/learning.txt", "```", ""]  # tools/make_figures.py draws it
    for task in dict.fromkeys(cell.task for cell in cells):
        own = [cell for cell in cells if cell.task == task]
        about = f"{PLANS[task].about} It starts at {own[0].start.mean():.3f}."
        lines += [
            f"## {task.capitalize()}",
            "",
            *textwrap.wrap(about, 105),
            f"{own[0].made['updates']} updates of {own[0].made['batch']} draws.",
            "",
            "Final score, +- half a 95 % interval over seeds:",
            "",
            *table(rows, task, "{final:.3f} +- {half_width:.3f}"),
            "Over that of the best other method, +- from differences of seeds:",
            "",
            *table(rows, task, "{ratio:.3f} +- {ratio_half_width:.3f}"),
        ]
    return "\n".join(lines)


def write(raw: Path, out: Path) -> None:
    cells = whole(load(raw))
    out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(cells)
    with (out / "rl_study_cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
    (out / "rl_study.md").write_text(report(cells))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tasks", nargs="+", choices=tuple(PLANS), default=tuple(PLANS))
    parser.add_argument("--levels", nargs="+", choices=tuple(LEVELS), default=tuple(LEVELS))
    parser.add_argument(
        "--methods", nargs="+", choices=tuple(METHODS | VARIANTS), default=tuple(METHODS), metavar="METHOD"
    )
    parser.add_argument("--few", action="store_true", help="the methods of the frontier only")
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
    methods = FEW if options.few else options.methods
    jobs = [
        (task, level, method)
        for level in options.levels
        for task in options.tasks
        for method in methods
        if method in plans[task].methods or method in VARIANTS
    ]
    with tempfile.TemporaryDirectory() as folder:
        raw = options.raw or Path(folder)
        run(jobs, plans, options.device, options.processes, raw)
        if not options.raw:
            write(raw, options.out)


if __name__ == "__main__":
    main()
