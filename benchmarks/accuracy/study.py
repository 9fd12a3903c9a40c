"""How accurate estimates are, and how honest their errors: ``python benchmarks/accuracy/study.py``.

Needs ``pip install -e ".[bench]"``. Writes accuracy_table.md and accuracy_cells.csv to docs/results;
``python tools/make_figures.py`` draws them. Every cell has a seed of its own, so
numbers do not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import csv
import os
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from estimators import ESTIMATORS, GAMMAS, PEERS
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from scenarios import GROUPS, Scenario

import isdiag
from isdiag import Status

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SIZES = (64, 200, 1000, 10_000)
REPEATS = 400
AT_ONCE = 2_000_000  # draws of one batch
CALIBRATED = ("SNIS", "truncated IS", "PSIS", "mse")
INTERVALS = (*CALIBRATED, "delta")
TRUSTED = {int(Status.OK), int(Status.FLAT)}
BANDS = {"khat < 0.5": (-np.inf, 0.5), "0.5 to 0.7": (0.5, 0.7), "from 0.7 on": (0.7, np.inf)}
LEAST_N = 200  # of the cells that intervals are judged by
Z = 1.959964  # of a 95 % interval of a normal law


def reported(name: str, log_w: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
    """(estimate, standard error, bias, low, high, status) as isdiag reports them."""
    if name == "mse":
        found = isdiag.select_gamma(log_w, rule="mse", h=h)
    else:
        smooth = {"truncated IS": "truncate", "PSIS": "psis"}.get(name, False)
        found = isdiag.snis(log_w, h, smooth=smooth)
    low, high = found.low, found.high
    if name == "delta":
        interval = isdiag.confidence_interval(log_w, h, method="delta")
        low, high = interval.low, interval.high
    return found.estimate, found.std_error, found.bias, low, high, found.status


def rmse(estimates: np.ndarray, truth: float) -> float:
    return float(np.sqrt(np.mean((estimates - truth) ** 2)))


def calibration(name: str, data: list[tuple[np.ndarray, np.ndarray]], truth: float) -> dict[str, float]:
    parts = [reported(name, *each) for each in data]
    estimate, std_error, bias, low, high, status = (np.concatenate(part) for part in zip(*parts, strict=True))
    # mean(w (h - truth)) has mean zero exactly; without it the simulated bias is several times sharper.
    linear = np.concatenate([(np.exp(log_w) * (h - truth)).mean(axis=1) for log_w, h in data])
    off = estimate - truth - linear
    spread, sharp = estimate.std(), off.std()
    plain = 2 * Z * std_error
    bounded = np.isfinite(high - low) & (plain > 0)
    length = np.median((high - low)[bounded] / plain[bounded]) if bounded.any() else np.nan
    return {
        f"{name} error ratio": float(std_error.mean() / spread) if spread > 0 else np.nan,
        f"{name} coverage": float(np.mean((low <= truth) & (truth <= high))),
        f"{name} length": float(length),
        f"{name} nothing said": float(np.mean(np.isinf(low) & np.isinf(high))),
        f"{name} warned": float(np.mean(~np.isin(status, list(TRUSTED)))),
        f"{name} rough": float(np.mean(status == Status.ERROR_ROUGH)),
        f"{name} uncertain": float(np.mean(status == Status.ERROR_UNCERTAIN)),
        f"{name} bias in errors": float(off.mean() / (sharp / np.sqrt(off.size))) if sharp > 0 else 0.0,
        f"{name} bias sign right": float(np.mean(np.sign(bias) == np.sign(off.mean()))),
    }


def run_cell(group: str, scenario: Scenario, n: int, repeats: int) -> list[dict]:
    """Rows of results, one a question h."""
    rng = np.random.default_rng(zlib.crc32(f"{scenario.name} {n}".encode()))
    batches = []
    while repeats > 0:
        size = min(repeats, max(AT_ONCE // n, 1))
        batches.append(scenario.draw(rng, size, n))
        repeats -= size
    khat = np.concatenate([isdiag.pareto_khat(log_w) for log_w, _ in batches])
    rows = []
    for question, truth in scenario.truth.items():
        data = [(log_w, values[question]) for log_w, values in batches]
        row = {"group": group, "scenario": scenario.name, "h": question, "n": n, "k": scenario.k}
        row["khat"] = float(np.median(np.where(np.isnan(khat), np.inf, khat)))
        for name, estimate in ESTIMATORS.items():
            row[name] = rmse(np.concatenate([estimate(*each) for each in data]), truth)
        tempered = [
            rmse(np.concatenate([isdiag.snis(*each, gamma=gamma).estimate for each in data]), truth)
            for gamma in GAMMAS
        ]
        row["oracle gamma"] = min(tempered)
        for name in INTERVALS:
            row |= calibration(name, data, truth)
        rows.append(row)
    return rows


def run(groups: list[str], repeats: int, workers: int) -> list[dict]:
    tasks = [(group, i, n) for group in groups for i in range(len(GROUPS[group])) for n in SIZES[::-1]]
    rows: list[dict] = []
    columns = (
        "[progress.description]{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with ProcessPoolExecutor(workers) as pool, Progress(*columns) as progress:
        bar = progress.add_task("cells", total=len(tasks))
        futures = [pool.submit(run_task, task, repeats) for task in tasks]
        for future in as_completed(futures):
            rows += future.result()
            progress.advance(bar)
    return rows


def in_order(rows: list[dict]) -> list[dict]:
    order = {(group, s.name): i for i, (group, s) in enumerate((g, s) for g in GROUPS for s in GROUPS[g])}
    return sorted(rows, key=lambda row: (order[row["group"], row["scenario"]], row["h"], row["n"]))


def kept(path: Path, groups: list[str]) -> list[dict]:
    """The rows in a table that are of none of these groups."""
    words = {"group", "scenario", "h"}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] not in groups]
    whole = [{key: value if key in words else float(value) for key, value in row.items()} for row in rows]
    return [row | {"n": int(row["n"])} for row in whole]


def run_task(task: tuple[str, int, int], repeats: int) -> list[dict]:
    group, i, n = task  # a scenario holds functions, which do not travel between processes
    return run_cell(group, GROUPS[group][i], n, repeats)


def ratios(rows: list[dict], name: str) -> np.ndarray:
    """RMSE over that of the best peer of the cell."""
    return np.array([row[name] / min(row[peer] for peer in PEERS) for row in rows])


def summary_table(rows: list[dict]) -> list[str]:
    names = [*ESTIMATORS, "oracle gamma"]
    lines = ["| estimator | " + " | ".join(f"{g}: worst | geo. mean" for g in (*GROUPS, "all")) + " |"]
    lines.append("|---|" + "--:|--:|" * (len(GROUPS) + 1))
    for name in names:
        parts = []
        for group in (*GROUPS, "all"):
            r = ratios([row for row in rows if group in (row["group"], "all")], name)
            parts += [f"{r.max():.2f}", f"{np.exp(np.log(r).mean()):.3f}"]
        lines.append(f"| {name} | " + " | ".join(parts) + " |")
    return lines


def worst_cells(rows: list[dict], count: int = 8) -> list[str]:
    r = ratios(rows, "mse")
    lines = ["| scenario | h | n | " + " | ".join((*PEERS, "mse")) + " |", "|---|---|--:|--:|--:|--:|--:|"]
    for i in np.argsort(-r)[:count]:
        best = min(rows[i][peer] for peer in PEERS)
        cells = " | ".join(f"{rows[i][name] / best:.2f}" for name in (*PEERS, "mse"))
        lines.append(f"| {rows[i]['scenario']} | {rows[i]['h']} | {rows[i]['n']} | {cells} |")
    return lines


def calibration_table(rows: list[dict]) -> list[str]:
    light = [row for row in rows if row["khat"] <= 0.4 and row["n"] >= 200]
    lines = [
        "| | " + " | ".join(CALIBRATED) + " |",
        "|---|" + "--:|" * len(CALIBRATED),
    ]

    def add(what: str, value) -> None:
        lines.append(f"| {what} | " + " | ".join(value(name) for name in CALIBRATED) + " |")

    def quantiles(key: str, name: str) -> str:
        values = np.array([row[f"{name} {key}"] for row in light])
        return " / ".join(f"{q:.2f}" for q in np.nanquantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))

    def trusted(name: str) -> list[dict]:
        return [row for row in light if row[f"{name} warned"] < 0.5]

    def share(name: str, cells: list[dict]) -> str:
        ratio = np.array([row[f"{name} error ratio"] for row in cells])
        return f"{np.mean((ratio >= 0.9) & (ratio <= 1.15)):.0%} of {len(cells)}"

    def bias_sign(name: str) -> str:
        cells = [row[f"{name} bias sign right"] for row in light if abs(row[f"{name} bias in errors"]) > 2]
        return f"{np.mean(cells):.0%} ({len(cells)} cells)"

    add("standard error / true, quantiles", lambda name: quantiles("error ratio", name))
    add("... within [0.9, 1.15]", lambda name: share(name, light))
    add("... where most repeats are not warned", lambda name: share(name, trusted(name)))
    add("bias of the right sign where it exceeds two simulation errors", bias_sign)
    return lines


def in_band(rows: list[dict], band: str, least_n: int = LEAST_N) -> list[dict]:
    low, high = BANDS[band]
    return [row for row in rows if low <= row["khat"] < high and row["n"] >= least_n]


def interval_table(rows: list[dict]) -> list[str]:
    """Mean coverage and median length over the plain one, of all cells by khat."""
    lines = [
        "| interval | cells | " + " | ".join(BANDS) + " | all below 0.7 | n = 64, below 0.7 |",
        "|---|---|" + "--:|" * (len(BANDS) + 2),
    ]

    def said(name: str, cells: list[dict]) -> str:
        if not cells:
            return "none"
        coverage = np.mean([row[f"{name} coverage"] for row in cells])
        length = np.nanmedian([row[f"{name} length"] for row in cells])
        nothing = np.mean([row[f"{name} nothing said"] for row in cells])
        words = f"{coverage:.3f}, {length:.2f}"
        return words + (f", {nothing:.1%}" if nothing > 0.0005 else "")

    for name in INTERVALS:
        for group in ("all", "intervals, held out", "intervals, last"):
            some = [row for row in rows if group in (row["group"], "all")]
            bands = [in_band(some, band) for band in BANDS]
            small = [row for row in some if row["khat"] < 0.7 and row["n"] < LEAST_N]
            parts = [said(name, cells) for cells in (*bands, bands[0] + bands[1], small)]
            lines.append(f"| {name} | {group} | " + " | ".join(parts) + " |")
    return lines


def warning_table(rows: list[dict]) -> list[str]:
    """How often cells of good and of bad coverage are warned of."""
    lines = [
        "| estimate | cells | warned, coverage < 85 % | >= 93 % | very few draws, < 85 % | >= 93 % |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in CALIBRATED:
        for group in ("all", "intervals, held out", "intervals, last"):
            some = [row for row in rows if group in (row["group"], "all") and row["n"] >= LEAST_N]
            parts = []
            for grades in (("rough", "uncertain"), ("uncertain",)):
                for low, high in ((-1, 0.85), (0.93, 2)):
                    cells = [row for row in some if low <= row[f"{name} coverage"] < high]
                    shares = [sum(row[f"{name} {grade}"] for grade in grades) for row in cells]
                    parts.append(f"{np.mean(shares):.0%} ({len(cells)})" if cells else "none")
            lines.append(f"| {name} | {group} | " + " | ".join(parts) + " |")
    return lines


def by_family(rows: list[dict]) -> list[str]:
    names = ("SNIS", "truncated IS", "PSIS", "joint", "refit", "mse")
    lines = ["| scenario | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        cells = [row for row in rows if row["scenario"] == scenario]
        means = " | ".join(f"{np.exp(np.log(ratios(cells, name)).mean()):.2f}" for name in names)
        lines.append(f"| {scenario} | {means} |")
    return lines


def report(rows: list[dict], repeats: int) -> str:
    command = "python benchmarks/accuracy/study.py" + (f" --repeats {repeats}" if repeats != REPEATS else "")
    lines = [
        "# Accuracy of estimates",
        "",
        f"Made by `{command}`; each cell is in [a table](accuracy_cells.csv).",
        f"{repeats} repeats, n = {', '.join(map(str, SIZES))}, h linear, indicator and squared. Numbers are",
        "RMSE over that of the best of SNIS, truncated IS and PSIS in the same cell, a best chosen with",
        "hindsight. `benchmarks/accuracy/scenarios.py` has the scenarios and says what was looked at when.",
        "",
        *summary_table(rows),
        "",
        "```{include} figures/accuracy.txt",
        "```",
        "",
        '## Where the rule "mse" is worst',
        "",
        *worst_cells(rows),
        "",
        "## Are the errors honest?",
        "",
        "Of cells with median khat <= 0.4 and n >= 200; warned means a status other than OK and FLAT.",
        "",
        *calibration_table(rows),
        "",
        "## What 95 % intervals cover",
        "",
        "Mean coverage, median over cells of the length over that of estimate +- 1.96 errors, and how often",
        "nothing is said (-inf to inf). All cells with n >= 200 by their median khat, good and bad. SNIS,",
        "truncated IS, PSIS and mse have the intervals that isdiag gives; delta is that of Student's t,",
        '`confidence_interval(method="delta")`. 400 repeats tell the coverage of a cell to within 2 %.',
        "",
        *interval_table(rows),
        "",
        "## Do warnings tell bad cells from good ones?",
        "",
        "Share of repeats with `ERROR_ROUGH` or `ERROR_UNCERTAIN`, and with the latter alone, in cells with",
        "n >= 200 whose intervals cover little or well (how many cells).",
        "",
        *warning_table(rows),
        "",
        "## By scenario",
        "",
        "Geometric means over h and n.",
        "",
        *by_family(rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--groups", nargs="+", choices=[*GROUPS], help="others are kept as the table has them"
    )
    options = parser.parse_args()
    table = options.out / "accuracy_cells.csv"
    rows = run(options.groups or [*GROUPS], options.repeats, options.workers)
    if options.groups:
        rows += kept(table, options.groups)
    rows = in_order(rows)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
    (options.out / "accuracy_table.md").write_text(report(rows, options.repeats))


if __name__ == "__main__":
    main()
