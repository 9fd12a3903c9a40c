"""Reading log-weights from files."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.resources import as_file, files
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from isdiag.report.delimited import read_table
from isdiag.report.source import Purpose, Reading, Source, source_of

BINARY = (".npy", ".npz")
TEXT = (".csv", ".tsv", ".txt")
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}  # imported when asked for: a Python may lack one
STDIN = "-"
EVERYTHING = Reading()
NPY, ZIP = b"\x93NUM", b"PK\x03\x04"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: arrays by their names, names of columns or None, what to tell the reader."""

    arrays: dict[str, NDArray[Any]]
    columns: list[str] | None = None
    notes: tuple[str, ...] = ()


def _format(path: str) -> tuple[str, str]:
    """Format and compression as the name has them; the format is empty where only the content can tell."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    kind = suffixes[-1] if suffixes else ""
    if kind not in ("", *BINARY, *TEXT):
        msg = f"expected a {', '.join(BINARY + TEXT)} file, compressed by {', '.join(COMPRESSED)} or not"
        raise ValueError(msg)
    return kind, compression


def _open(path: str, compression: str) -> BinaryIO:
    if path == STDIN:
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # closed by the shell: <&-
            msg = "is closed"
            raise ValueError(msg)
        return BytesIO(sys.stdin.buffer.read())
    if compression:
        return import_module(COMPRESSED[compression]).open(path)
    return Path(path).open("rb")


def _contents(file: BinaryIO, kind: str) -> Contents:
    if kind not in TEXT:
        file = file if file.seekable() else BytesIO(file.read())
        start = file.read(len(ZIP))
        file.seek(0)
        if start in (NPY, ZIP):
            return _binary(file)
        if kind:
            msg = f"is no {kind} file: it begins with {start!r}"
            raise ValueError(msg)
    try:
        with TextIOWrapper(file, encoding="utf-8-sig") as text:
            table = read_table(text)
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"not a text file of numbers ({error})"
        raise ValueError(msg) from None
    values = table.values[:, 0] if table.values.shape[1] == 1 else table.values
    return Contents({"": values}, table.names, table.notes)


def _binary(file: BinaryIO) -> Contents:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Contents({"": loaded})
    arrays: dict[str, NDArray[Any]] = {key: loaded[key] for key in loaded.files}
    names = arrays.pop("columns", None)
    if not arrays:
        msg = "holds no arrays"
        raise ValueError(msg)
    return Contents(arrays, None if names is None else [str(name) for name in names.ravel()])


def load(path: str | Path, reading: Reading = EVERYTHING) -> list[Source]:
    """Read log-weights from a file.

    Parameters
    ----------
    path : str or Path
        A .npy, .npz, .csv, .tsv or .txt file, maybe compressed (.gz, .bz2, .xz), that holds one vector, or
        draws x columns; "-" is standard input. A text may start with a line of names; what follows a # is
        skipped. In a .npz each array is a source; one called ``columns`` holds names, one
        called ``r_eff`` the relative efficiency of each column.
    reading : Reading, optional
        Which columns to take, and what to make of them.

    Returns
    -------
    list of Source

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it does not hold log-weights; the message names the file.
    """
    path = str(path)
    name = "<stdin>" if path == STDIN else path
    try:
        kind, compression = _format(path)
        with _open(path, compression) as file:
            contents = _contents(file, kind)
    except OSError:
        raise
    except Exception as error:  # damaged files raise many kinds
        msg = f"{name}: {error}"
        raise ValueError(msg) from None
    arrays = dict(contents.arrays)
    h = arrays.pop(reading.h, None) if reading.h is not None and len(arrays) > 1 else None
    r_eff = arrays.pop("r_eff", None) if len(arrays) > 1 else None
    several = len(arrays) > 1
    return [
        replace(
            source_of(
                f"{name}:{key}" if several else name, array, contents.columns, reading, contents.notes, h
            ),
            r_eff=r_eff,
        )
        for key, array in arrays.items()
    ]


def demo_sources() -> list[Source]:
    """The shipped data: leave-one-out log-ratios of two Bayesian models, and a stale training batch."""
    titles: dict[str, tuple[str, Purpose]] = {
        "centered_eight": (
            "Eight schools, leave-one-out (ArviZ's example; 2000 draws x 8 schools)",
            "estimate",
        ),
        "stack_loss": ("Stack loss, leave-one-out (exact posterior; 2000 draws x 21 days)", "estimate"),
        "stale_batch": ("A training step on samples of an older policy (512 sequences, by age)", "step"),
    }
    sources: list[Source] = []
    for name, (title, purpose) in titles.items():
        with as_file(files("isdiag") / "data" / f"{name}.npz") as path:
            (loaded,) = load(path)
        sources.append(replace(loaded, name=title, purpose=purpose))
    return sources
