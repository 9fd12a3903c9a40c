"""Make the figures of the studies, of the house and of the tutorials, light and dark, with what they say in words.

``pip install -e ".[plot]" && python tools/make_figures.py`` takes a minute; it reads the tables in docs/results, the
source, and the code of the tutorials. Pages include ``figures/NAME.txt``, so that a figure and what is said of it are
made together.
"""

from __future__ import annotations

import ast
import csv
import doctest
import math
import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from themes import DOCS, THEMES, image, save, theme

import isdiag
from isdiag._core.bands import BANDS
from isdiag.plots._style import BLUE, GREY, ink

RESULTS, FIGURES = DOCS / "results", DOCS / "results" / "figures"
PACKAGE = Path(isdiag.__file__).parent
GREEN, RED, PURPLE = BANDS[0].paint, BANDS[2].paint, BANDS[3].paint


def read(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def keep(name: str, alt: str) -> None:
    """What a page includes: the picture in both themes, and its message."""
    (FIGURES / f"{name}.txt").write_text(image(f"/results/figures/{name}", alt))


# --- the studies ---

ESTIMATORS = {
    "mse": 'rule "mse"',
    "SNIS": "SNIS",
    "truncated IS": "truncated IS",
    "PSIS": "PSIS",
    "SLOPE": "SLOPE",
    "refit": 'rule "refit"',
    "joint": 'rule "joint"',
}
PEERS = "SNIS", "truncated IS", "PSIS"


def accuracy() -> str:
    """RMSE over that of the best peer: median, 5 to 95 %, worst."""
    rows = read("accuracy_cells.csv")
    _, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    made = {
        "all scenarios": rows,
        "scenarios made last": [row for row in rows if row["group"] == "mse, last"],
    }
    worst = {}
    for ax, (title, cells) in zip(axes, made.items(), strict=True):
        best = np.array([min(float(row[peer]) for peer in PEERS) for row in cells])
        for place, name in enumerate(reversed(ESTIMATORS)):
            ratio = np.array([float(row[name]) for row in cells]) / best
            low, middle, high = np.quantile(ratio, [0.05, 0.5, 0.95])
            worst[title, name] = ratio.max()
            paint = {"color": GREEN if name == "mse" else BLUE if name in PEERS else RED}
            ax.hlines(place, low, high, linewidth=2.5, **paint)
            ax.plot(middle, place, "o", markersize=7, **paint)
            ax.plot(ratio.max(), place, "x", markersize=6, **paint)
        ax.axvline(1, color=ink(), linewidth=1, linestyle=":")
        ax.set_xscale("log")
        ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        ax.set_xticks([], minor=True)
        ax.set_title(f"{title}: {len(cells)} cells", loc="left", fontsize="medium")
        ax.set_xlabel("RMSE / that of the best of SNIS, truncated IS, PSIS")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(ESTIMATORS)), list(ESTIMATORS.values())[::-1])
    return (
        "Root mean squared error over that of the best peer in hindsight; dot: median, bar: 5 to 95 %, cross: worst. "
        f'The worst cell of the rule "mse" is {worst["all scenarios", "mse"]:.1f}, of truncated IS '
        f"{worst['all scenarios', 'truncated IS']:.1f}, of PSIS {worst['all scenarios', 'PSIS']:.1f}, of SNIS "
        f'{worst["all scenarios", "SNIS"]:.1f}; tempering as for a step (rule "joint") costs up to '
        f"{worst['all scenarios', 'joint']:.0f} times."
    )


LEVELS = "age 8", "age 32", "age 128", "lag 32", "T 0.7", "T 1.5", "top-p 0.8", "replay", "age 1"
DRAWN = {
    "f = 1": ("s", GREY),
    "TIS": ("o", BLUE),
    "CISPO": ("D", PURPLE),
    "gamma of answers": ("v", RED),
    "adaptive": ("^", GREEN),
}


def learning() -> str:
    """Final score over the best of a cell, a panel for each task."""
    rows = read("rl_study_cells.csv")
    tasks = [*dict.fromkeys(row["task"] for row in rows)]
    levels = sorted({row["level"] for row in rows}, key=LEVELS.index)
    columns = 4
    height = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(
        height,
        columns,
        figsize=(9.5, 2.7 * height),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(tasks) :]:
        ax.remove()
    least = dict.fromkeys(DRAWN, np.inf)
    for number, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        for shift, (method, (marker, paint)) in enumerate(DRAWN.items()):
            own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            ratio = np.array([float(row["ratio"]) for row in own])
            least[method] = min(least[method], ratio.min(initial=np.inf))
            places = np.array([levels.index(row["level"]) for row in own]) + 0.15 * (shift - 2)
            ax.plot(places, ratio, marker, color=paint, markersize=5, label=method)
        ax.axhline(1, color=ink(), linewidth=1, linestyle=":")
        ax.set_title(task, loc="left", fontsize="medium")
        ax.set_xticks(range(len(levels)), levels, rotation=60, ha="right", rotation_mode="anchor")
        ax.tick_params(labelbottom=number + columns >= len(tasks))
        ax.spines[["top", "right"]].set_visible(False)
    figure.supylabel("final score / best of the cell", fontsize="medium")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    told = ", ".join(f"{method} {value:.2f}" for method, value in least.items())
    return (
        "Final score over that of the best other method, by task and by how stale the data are. No method is best "
        f"everywhere; the least of each: {told}."
    )


def growth() -> str:
    """Time a draw against the length of the row."""
    lines = (RESULTS / "performance_stages.md").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| ns a draw | 1e4"))
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[at:] if line.startswith("|")
    ]
    sizes = np.array([float(cell) for cell in cells[0][1:]])
    found = {row[0]: np.array([float(cell) for cell in row[1:]]) for row in cells[2:]}
    _, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
    paints = dict(zip(found, (("o", BLUE), ("s", GREEN), ("^", GREY)), strict=True))
    for name, values in found.items():
        marker, paint = paints[name]
        ax.plot(sizes, values, marker=marker, color=paint, label=name)
    ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel("draws n of one row")
    ax.set_ylabel("ns per draw")
    first, last = found["select_gamma"][[0, -1]]
    ax.set_title("A draw of a longer row does not cost more", loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return (
        f"Time per draw of select_gamma: {first:.1f} ns at 1e4 draws and {last:.1f} at 1e8, where the exponentials "
        f"and their sum alone take {found['np.exp(out=).sum()'][-1]:.1f}."
    )


def scaling() -> str:
    """Time and memory of a stream against its length."""
    rows = [row for row in read("scaling_stream.csv") if row["file"] == "memory"]
    draws = np.array([float(row["draws"]) for row in rows])
    memory = np.array([float(row["most_memory_mb"]) for row in rows])
    contestants = {
        "a summary": ("summary_wall_ns", "o", BLUE),
        "two threads": ("two_threads_wall_ns", "s", GREEN),
        "one exponential": ("exp_wall_ns", "^", GREY),
    }
    _, (times, most) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
    for label, (column, marker, paint) in contestants.items():
        seconds = np.array([float(row[column]) for row in rows]) * draws / 1e9
        times.plot(draws, seconds, marker=marker, color=paint, label=label)
    times.set_yscale("log")
    times.set_ylabel("seconds to read and take")
    times.legend(frameon=False)
    most.plot(draws, memory, marker="o", color=BLUE)
    most.set_ylim(bottom=0)
    most.set_ylabel("memory of the process, MB")
    for ax in (times, most):
        ax.set_xscale("log")
        ax.set_xlabel("draws in the file")
        ax.spines[["top", "right"]].set_visible(False)
    times.set_title("Time grows with the stream, memory does not", loc="left", fontsize="medium")
    return (
        f"Time of a stream grows in proportion to its length, and memory from {memory[0]:.0f} MB at {draws[0]:.0e} draws "
        f"to {memory[-1]:.0f} at {draws[-1]:.0e}, of which a file is {draws[-1] * 8 / 1e9:.0f} GB."
    )


# --- the house ---

ROOMS = {
    "no underscore": "what a user imports: rl, torch, jax, plots, report, cli ...",
    "isdiag/_*.py": "what isdiag. re-exports: a docstring, one call",
    "isdiag/_core": "rows in, arrays out",
    "isdiag/_kernels": "compiled loops",
    "isdiag/status.py": "the names of statuses and the one warning, for all",
}


DOORS = "__main__", "_warmup"


def room(parts: tuple[str, ...]) -> str:
    """Which room a module lives in, by its path in the package."""
    if parts[:1] in (("_core",), ("_kernels",)):
        return f"isdiag/{parts[0]}"
    if parts[:1] == ("status",):
        return "isdiag/status.py"
    # isdiag/__init__.py, with no parts here, and these open the house; what a user imports stands behind them.
    face = bool(parts) and parts[0].startswith("_") and parts[0] not in DOORS
    return "isdiag/_*.py" if face else "no underscore"


def imports() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How many modules a room has, and how many lines of one import from another."""
    modules: Counter[str] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = tuple(part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__")
        here = room(parts)
        modules[here] += 1
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            there = {room(tuple(name.split(".")[1:])) for name in names if name.split(".")[0] == "isdiag"}
            found.update((here, each) for each in there if each != here)
    return modules, found


def house() -> str:
    """The rooms, one above the other, and the imports between them."""
    modules, found = imports()
    names = [*ROOMS]
    level = {name: len(names) - 1 - i for i, name in enumerate(names)}
    upward = [edge for edge in found if level[edge[1]] > level[edge[0]]]
    assert not upward, upward
    _, ax = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for name, y in level.items():
        ax.add_patch(plt.Rectangle((0, y), 6, 0.56, fill=False, edgecolor=ink(), linewidth=1.2))
        many = f"   {modules[name]} modules" if modules[name] > 1 else ""
        ax.text(0.12, y + 0.37, name + many, fontweight="bold", va="center")
        ax.text(0.12, y + 0.15, ROOMS[name], va="center", fontsize="small")
    lane = 6.0
    for (source, target), count in sorted(
        found.items(), key=lambda edge: level[edge[0][0]] - level[edge[0][1]]
    ):
        high, low = level[source], level[target]
        if high - low == 1:
            ax.annotate("", (4.2, low + 0.56), (4.2, high), arrowprops={"arrowstyle": "->", "color": BLUE})
            ax.text(4.28, low + 0.78, f"{count} imports", va="center", fontsize="small", color=BLUE)
            continue
        lane += 0.42
        start, end = high + 0.28 + 0.1 * (lane - 7), low + 0.28 + 0.1 * (lane - 7)
        ax.plot([6, lane, lane], [start, start, end], color=BLUE, linewidth=1)
        ax.annotate("", (6, end), (lane, end), arrowprops={"arrowstyle": "->", "color": BLUE})
        ax.text(lane + 0.04, (start + end) / 2, str(count), va="center", fontsize="small", color=BLUE)
    ax.set_xlim(-0.05, lane + 0.4)
    ax.set_ylim(-0.1, len(names) - 0.35)
    ax.axis("off")
    told = "; ".join(f"{name}, {modules[name]} modules" for name in names[:-1])
    return f"The rooms of the house from the top: {told}; {names[-1]}. All imports between rooms go down."


STEPS = 3  # levels of calls below the face that are drawn


def calls() -> list[tuple[int, str, str]]:
    """Depth, room and name of each function that a call of `isdiag.psis` enters, outermost first."""
    row = np.random.default_rng(1).normal(size=1000)
    isdiag.psis(row)  # what is compiled is compiled
    found: list[tuple[int, str, str]] = []
    depth, held = 0, []

    def trace(frame: FrameType, event: str, _: Any) -> None:
        nonlocal depth
        path = Path(frame.f_code.co_filename)
        if PACKAGE not in path.parents or frame.f_code.co_name.startswith("<"):
            return
        if event == "call":
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found.append((depth, room(parts), f"{'.'.join(parts)}: {frame.f_code.co_name}"))
            held.append(frame)
            depth += 1
        elif event == "return" and held and held[-1] is frame:
            held.pop()
            depth -= 1

    sys.setprofile(trace)
    isdiag.psis(row)
    sys.setprofile(None)
    return [each for each in found if each[0] <= STEPS]


def data_flow() -> str:
    """What a call of `isdiag.psis` passes through, in order."""
    steps = calls()
    paints = dict(zip(ROOMS, (GREY, PURPLE, BLUE, GREEN, RED), strict=True))
    _, ax = plt.subplots(figsize=(6.5, 0.24 * len(steps) + 0.6), layout="constrained")
    for y, (depth, where, name) in enumerate(steps):
        ax.plot(0.4 * depth, -y, "s", color=paints[where], markersize=8)
        ax.text(0.4 * depth + 0.18, -y, name, va="center", fontsize="small", family="monospace")
    for where in dict.fromkeys(step[1] for step in steps):
        ax.plot([], [], "s", color=paints[where], label=where)
    ax.legend(frameon=False, loc="lower right", fontsize="small")
    ax.set_title("isdiag.psis(log_w)", loc="left", fontsize="medium")
    ax.set_xlim(-0.2, 5)
    ax.axis("off")
    rooms = [where for i, (_, where, _) in enumerate(steps) if i == 0 or steps[i - 1][1] != where]
    return f"What isdiag.psis enters, in order, {len(steps)} calls: {' - '.join(rooms)}."


# --- pictures that the code of pages draws ---


def of_page(page: Path, name: str) -> int:
    """Run the code of a page; each example that leaves a figure has drawn the next picture of the page."""
    count = 0
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for example in doctest.DocTestParser().get_examples(block):
            exec(compile(example.source, page.name, "single"), names)
            if plt.get_fignums():
                count += 1
                save(page.parent / "pictures" / f"{page.stem}_{count}_{name}.png")
    return count


def main() -> None:
    """Draw all in both themes."""
    FIGURES.mkdir(exist_ok=True)
    for name in THEMES:
        with theme(name):
            for draw in (accuracy, learning, growth, scaling, house, data_flow):
                alt = draw()
                save(FIGURES / f"{draw.__name__}_{name}.png")
                keep(draw.__name__, alt)
            for page in sorted((DOCS / "tutorial").glob("*.md")):
                of_page(page, name)


if __name__ == "__main__":
    main()
