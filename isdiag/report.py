"""Reports on files of log-weights: reading them, and showing a diagnosis as a table or as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from isdiag import Diagnosis, diagnose

ADVICE_ROWS = 5
MIN_WIDTH = 88


@dataclass(frozen=True, eq=False)
class Source:
    """Log-weights of a file: one vector, or draws x columns with the columns' names."""

    name: str
    log_w: NDArray[Any]
    columns: list[str] | None

    def diagnose(self, **options: Any) -> Diagnosis:
        """Diagnose the vector, or each column."""
        return diagnose(self.log_w, axis=0, **options)


def _source(name: str, array: NDArray[Any], columns: list[str] | None = None) -> Source:
    if array.dtype.kind not in "fiu":
        msg = f"{name}: expected real numbers, got dtype {array.dtype}"
        raise ValueError(msg)
    if array.ndim not in (1, 2) or array.size == 0:
        msg = f"{name}: expected one vector or draws x columns, got shape {array.shape}"
        raise ValueError(msg)
    if array.ndim == 2 and array.shape[0] == 1:  # a vector on one line, not many columns of one draw
        array = array[0]
    if array.ndim == 1:
        return Source(name, array, None)
    names = columns or [str(j) for j in range(array.shape[1])]
    if len(names) != array.shape[1]:
        msg = f"{name}: {len(names)} names for {array.shape[1]} columns"
        raise ValueError(msg)
    return Source(name, array, names)


MISSING = ("", "na", "n/a", "null", "none")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _header(path: Path, fields: list[str]) -> list[str] | None:
    """The names in the first line, or None if it holds numbers."""
    if all(map(_is_number, fields)):
        return None
    if any(_is_number(field) or field.lower() in MISSING for field in fields):
        msg = f"{path}: line 1 is neither numbers nor names of columns (an index must be left out): {fields}"
        raise ValueError(msg)
    return fields


def _load_csv(path: Path) -> Source:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [[field.strip() for field in line] for line in csv.reader(file, skipinitialspace=True)]
    lines = [line for line in lines if any(line) and not line[0].startswith("#")]
    if not lines:
        msg = f"{path}: holds no numbers"
        raise ValueError(msg)
    if ";" in lines[-1][0]:
        msg = f"{path}: fields must be separated by commas, not semicolons"
        raise ValueError(msg)
    header = _header(path, lines[0])
    try:
        array = np.array(lines[1:] if header else lines, dtype=np.float64)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from None
    if array.size and array.shape[1] == 1:
        array = array[:, 0]
    return _source(str(path), array, header)


def _load_npz(path: Path) -> list[Source]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    names = arrays.pop("columns", None)
    columns = None if names is None else [str(name) for name in names.ravel()]
    if not arrays:
        msg = f"{path}: holds no arrays"
        raise ValueError(msg)
    if len(arrays) == 1:
        return [_source(str(path), array, columns) for array in arrays.values()]
    return [_source(f"{path}:{key}", array, columns) for key, array in arrays.items()]


def load(path: str | Path) -> list[Source]:
    """Read log-weights from a .npy, .npz or .csv file.

    Parameters
    ----------
    path : str or Path
        One vector, or draws x columns. A .csv may start with a line of names; lines that start with #
        are skipped. In a .npz each array is a source; one called ``columns`` holds names.

    Returns
    -------
    list of Source

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it does not hold log-weights; the message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        msg = f"{path}: expected a .npy, .npz or .csv file"
        raise ValueError(msg)
    if suffix == ".csv":
        try:
            return [_load_csv(path)]
        except (UnicodeDecodeError, csv.Error) as error:
            msg = f"{path}: not a text file of numbers ({error})"
            raise ValueError(msg) from None
    try:
        if suffix == ".npz":
            return _load_npz(path)
        return [_source(str(path), np.load(path, allow_pickle=False))]
    except OSError:
        raise
    except Exception as error:  # NumPy raises many kinds on a damaged file
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise ValueError(text) from None


def demo_sources() -> list[Source]:
    """The shipped data: leave-one-out log-ratios of two Bayesian models."""
    titles = {
        "centered_eight": "Eight schools, centred (ArviZ's example; 2000 draws x 8 schools)",
        "stack_loss": "Stack loss, quadratic regression (exact posterior; 2000 draws x 21 days)",
    }
    sources: list[Source] = []
    for name, title in titles.items():
        with as_file(files("isdiag") / "data" / f"{name}.npz") as path:
            loaded = _load_npz(path)[0]
        sources.append(Source(title, loaded.log_w, loaded.columns))
    return sources


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become strings that `float` reads back."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def to_json(reports: list[tuple[Source, Diagnosis]]) -> str:
    """The reports as strict JSON: a list of sources, each with a list of columns in file order."""
    result: list[dict[str, Any]] = []
    for source, diagnosis in reports:
        names = [None] if source.columns is None else source.columns
        columns = [
            {"column": name} | {key: _strict(value) for key, value in record.items()}
            for name, record in zip(names, diagnosis.records(), strict=True)
        ]
        ok = all(column["ok"] for column in columns)
        result.append({"source": source.name, "ok": ok, "columns": columns})
    return json.dumps(result, indent=2)


def _badness(record: dict[str, Any]) -> tuple[bool, float]:
    khat = record["khat"]
    return record["ok"], -math.inf if math.isnan(khat) else -khat


def _plain(name: str) -> Text:
    """A name as it stands: no markup, and no control characters for the terminal."""
    return Text("".join(c if c.isprintable() else "?" for c in name))


def waiting(text: str) -> Status:
    """A sign of life on stderr while a block runs; silent where that is no terminal."""
    return Console(stderr=True).status(text)


def to_text(reports: list[tuple[Source, Diagnosis]], top: int) -> str:
    """The reports for a person: a block for one vector, a table for columns with the worst first."""
    console = Console()
    console.width = max(console.width, MIN_WIDTH)  # a line that wraps is better than a number cut short
    with console.capture() as captured:
        for source, diagnosis in reports:
            _show(source, diagnosis, console, top)
    return captured.get().rstrip("\n")


def _show(source: Source, diagnosis: Diagnosis, console: Console, top: int) -> None:
    console.print()
    console.print(_plain(source.name), style="bold")
    if source.columns is None:
        console.print(str(diagnosis), markup=False, highlight=False)
        return
    records = list(zip(source.columns, diagnosis.records(), strict=True))
    records.sort(key=lambda pair: _badness(pair[1]))
    table = Table(box=None, pad_edge=False)
    table.add_column("column", overflow="fold")
    for heading in ("n", "ESS", "khat", "gamma"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("set by", no_wrap=True)
    for heading in ("ESS after", "khat after"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, record in records[:top]:
        failed = record["status"] if record["status"] not in ("OK", "FLAT") else "temper"
        table.add_row(
            _plain(name),
            str(record["n"]),
            f"{record['ess']:.0f}",
            f"{record['khat']:.2f}",
            f"{record['gamma']:.3f}",
            record["limited_by"],
            f"{record['ess_tempered']:.0f}",
            f"{record['khat_tempered']:.2f}",
            "trust" if record["ok"] else failed,
            style="" if record["ok"] else "bold red",
        )
    console.print(table)
    if len(records) > top:
        console.print(f"... and {len(records) - top} more that look better")
    counts = Counter(record["ok"] for _, record in records)
    console.print(f"{counts[True]} of {len(records)} columns can be trusted as they are.")
    for name, record in records[:ADVICE_ROWS]:
        if not record["ok"]:
            console.print(f"{_plain(name)}: {record['advice']}", markup=False, highlight=False)
    rest = counts[False] - ADVICE_ROWS
    if rest > 0:
        console.print(f"(and {rest} more columns to look at; --json has the advice for each)")
