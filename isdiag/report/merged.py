"""Log-weights of files that do not fit in memory, or of several that are one: a summary of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from isdiag import Diagnosis, Summary
from isdiag.report.files import load
from isdiag.report.source import Array, Purpose, Reading, Source, source_of

PARQUET = ".parquet"


def is_merged(path: str) -> bool:
    """Whether a path stands for a parquet file or for several files."""
    return Path(path).suffix.lower() == PARQUET or (has_magic(path) and not Path(path).exists())


@dataclass(frozen=True, eq=False)
class Merged:
    """What is told of log-weights that were read in parts.

    Attributes
    ----------
    name : str
        The file or the glob.
    summary : Summary
        Of the vector, or of each column or group.
    columns : list of str or None
        Names of the columns or groups; None for a vector.
    notes : tuple of str
        What the reader of a report should know about the reading.
    purpose : {"both", "estimate", "step"}
        What the weights are for.
    """

    name: str
    summary: Summary
    columns: list[str] | None
    notes: tuple[str, ...] = ()
    purpose: Purpose = "both"

    def diagnose(self, *, r_eff: float | Source | None = None, **options: Any) -> Diagnosis:
        """Diagnose the vector, or each column or group.

        Parameters
        ----------
        r_eff : float, optional
            Relative efficiency; default 1.
        **options
            As `isdiag.Summary.diagnose` has them; `workers` is not looked at, as the draws were read.

        Returns
        -------
        Diagnosis

        Raises
        ------
        ValueError
            If `isdiag.Summary.diagnose` does, or `r_eff` is a file; the message begins with the name.
        """
        options.pop("workers", None)
        if isinstance(r_eff, Source):
            msg = f"{self.name}: r_eff must be a number for files that are read in parts"
            raise ValueError(msg)
        try:
            return self.summary.diagnose(r_eff=1.0 if r_eff is None else r_eff, **options)
        except ValueError as error:
            msg = f"{self.name}: {error}"
            raise ValueError(msg) from None


def load_merged(
    path: str, reading: Reading, by: str | None = None, show: Callable[[int], None] | None = None
) -> Merged:
    """Read log-weights from a parquet file, or from all files of a glob as if they were one.

    Parameters
    ----------
    path : str
        The file or the glob.
    reading : Reading
        Which columns to take, and what to make of them.
    by : str, optional
        A column of parquet files, each value of which is a group; then one column of log-weights is taken.
    show : callable, optional
        Is told of each number of rows that was read.

    Returns
    -------
    Merged

    Raises
    ------
    OSError
        If a file cannot be read, or none is found.
    ValueError
        If they do not hold log-weights of the same columns.
    """
    paths = sorted(glob(path, recursive=True)) if has_magic(path) and not Path(path).exists() else [path]
    if not paths:
        msg = f"{path}: matches no file"
        raise FileNotFoundError(msg)
    notes: list[str] = [f"{len(paths)} files are read as one"] if len(paths) > 1 else []
    found: dict[str | None, Summary] = {}
    columns: list[str] | None = None
    for number, (source, group) in enumerate(_parts(paths, reading, by)):
        if number and source.columns != columns:
            msg = f"{source.name}: has columns {source.columns}, where {columns} came before"
            raise ValueError(msg)
        columns = source.columns
        notes += [note for note in source.notes if note not in notes] if number == 0 else []
        h = source.h
        if h is not None and columns is not None:
            h = np.broadcast_to(h[:, None], source.log_w.shape)
        found[group] = (
            found[group].add(source.log_w, h, axis=0)
            if group in found
            else Summary.of(source.log_w, h, axis=0)
        )
        if show is not None:
            show(len(source.log_w))
    if not found:
        msg = f"{path}: holds no rows"
        raise ValueError(msg)
    if by is None:
        return Merged(path, found[None], columns, tuple(notes))
    return Merged(path, Summary.stack(found.values()), [str(group) for group in found], tuple(notes))


def _parts(paths: Sequence[str], reading: Reading, by: str | None) -> Iterator[tuple[Source, Any]]:
    for path in paths:
        if Path(path).suffix.lower() == PARQUET:
            yield from _of_parquet(path, reading, by)
            continue
        if by is not None:
            msg = f"{path}: groups are told apart in parquet files only"
            raise ValueError(msg)
        sources = load(path, reading)
        if len(sources) > 1:
            msg = f"{path}: holds {len(sources)} arrays, where files that are read as one hold one each"
            raise ValueError(msg)
        if sources[0].r_eff is not None:
            msg = f"{path}: holds r_eff, which files that are read as one cannot have: pass --r-eff"
            raise ValueError(msg)
        yield sources[0], None


def _of_parquet(path: str, reading: Reading, by: str | None) -> Iterator[tuple[Source, Any]]:
    try:
        from isdiag import arrow  # noqa: PLC0415 -- only parquet needs pyarrow
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        msg = f"{path}: parquet needs pyarrow: pip install 'isdiag[parquet]'"
        raise ValueError(msg) from None
    if reading.transpose:
        msg = f"{path}: a parquet file cannot be transposed"
        raise ValueError(msg)
    try:
        numeric = arrow.numeric_columns(path)
        wanted = list(reading.columns or [name for name in numeric if name not in (reading.h, by)])
        columns = wanted if reading.h is None else [*wanted, reading.h]
        reading = replace(reading, columns=None if reading.columns is None else tuple(wanted))
        for arrays, groups in arrow.grouped(path, columns, by):
            for key, where in groups:
                if len(arrays[0][where]) == 0:
                    continue
                table = np.stack([array[where] for array in arrays[: len(wanted)]], axis=1)
                h: Array | None = None if reading.h is None else arrays[-1][where]
                source = source_of(path, table, wanted, replace(reading, h=None), (), h)
                if by is not None or len(source.columns or ()) == 1:
                    source = _only(source)
                yield source, key
    except (ValueError, OSError) as error:
        msg = str(error)
        raise type(error)(msg if msg.startswith(path) else f"{path}: {msg}") from None


def _only(source: Source) -> Source:
    """A single column as a vector."""
    if source.columns is not None and len(source.columns) > 1:
        msg = f"--by takes one column of log-weights, and there are {', '.join(source.columns)}: name it"
        raise ValueError(msg)
    return replace(source, log_w=source.log_w[:, 0], columns=None)
