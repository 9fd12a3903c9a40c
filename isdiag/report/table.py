"""Reports for people: tables in a terminal. Needs rich."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from isdiag import Diagnosis
from isdiag._core.diagnosis import VERDICTS
from isdiag.report.merged import Merged
from isdiag.report.source import Source, estimates, printable

ADVICE_ROWS = 5
MIN_WIDTH = 88
ESTIMATES = {
    "estimate": "estimate",
    "std_error": "std error",
    "least_error_estimate": "least error",
    "least_error_std_error": "its std error",
}
ESTIMATE_WIDTH = 14


def _badness(record: dict[str, Any]) -> tuple[bool, float]:
    khat = record["khat"]
    return record["ok"], -math.inf if math.isnan(khat) else -khat


def _plain(name: str) -> Text:
    """A name as it stands: no markup, and no control characters for the terminal."""
    return Text(printable(name))


def waiting(text: str) -> AbstractContextManager[Any]:
    """A sign of life on stderr while a block runs; silent where that is no terminal."""
    return Console(stderr=True).status(text, spinner="line")


@contextmanager
def counting(text: str) -> Generator[Callable[[int], None]]:
    """A count on stderr of what the block tells the function that it is given; silent without a terminal."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda rows: bar.advance(task, rows)


def to_text(reports: Sequence[tuple[Source | Merged, Diagnosis]], top: int) -> str:
    """The reports for a person: a block for one vector, a table for columns with the worst first."""
    on_terminal = sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    text = StringIO()
    console = Console(file=text, force_terminal=on_terminal or None)
    console.width = max(console.width, MIN_WIDTH)  # a line that wraps is better than a number cut short
    for source, diagnosis in reports:
        _show(source, diagnosis, console, top)
    return text.getvalue().rstrip("\n")


def _show(source: Source | Merged, diagnosis: Diagnosis, console: Console, top: int) -> None:
    console.print()
    console.print(_plain(source.name), style="bold")
    if source.columns is None:
        console.print(str(diagnosis), markup=False, highlight=False)
        return
    found = {ESTIMATES[key]: value for key, value in estimates(diagnosis).items() if key in ESTIMATES}
    console.width = max(console.width, MIN_WIDTH + ESTIMATE_WIDTH * len(found))
    rows: list[list[float]] = np.array(list(found.values())).reshape(-1, len(source.columns)).T.tolist()
    records: list[tuple[str, dict[str, Any]]] = [
        (name, record | {"estimates": row})
        for name, record, row in zip(source.columns, diagnosis.records(), rows, strict=True)
    ]
    records.sort(key=lambda pair: _badness(pair[1]))
    table = Table(box=None, pad_edge=False)
    table.add_column("column", overflow="fold")
    for heading in ("n", "ESS", "khat", *found):
        table.add_column(heading, justify="right", no_wrap=True)
    if source.purpose != "step":
        table.add_column("for an estimate", no_wrap=True)
    if source.purpose != "estimate":
        for heading in ("step: gamma", "ESS then", "khat then"):
            table.add_column(heading, justify="right", no_wrap=True)
    for name, record in records[:top]:
        cells: list[Any] = [
            _plain(name),
            str(record["n"]),
            f"{record['ess']:.0f}",
            f"{record['khat']:.2f}",
            *(f"{value:.4g}" for value in record["estimates"]),
        ]
        if source.purpose != "step":
            cells.append(Text(record["verdict"], VERDICTS[record["verdict"]]))
        if source.purpose != "estimate":
            after = f"{record['ess_tempered']:.0f}", f"{record['khat_tempered']:.2f}"
            cells += [f"{record['gamma']:.3f}", *after]
        table.add_row(*cells)
    console.print(table)
    if len(records) > top:
        console.print(f"... and {len(records) - top} more that look better")
    advice = "step_advice" if source.purpose == "step" else "advice"
    if source.purpose != "step":
        counts = Counter(record["ok"] for _, record in records)
        console.print(f"For an estimate {counts[True]} of {len(records)} columns can be believed.")
    for name, record in records[:ADVICE_ROWS]:
        if source.purpose == "step" or not record["ok"]:
            console.print(f"{_plain(name)}: {record[advice]}", markup=False, highlight=False)
    rest = sum(not record["ok"] for _, record in records[ADVICE_ROWS:])
    if rest > 0:
        console.print(f"(and {rest} more columns to look at; --json has the advice for each)")
