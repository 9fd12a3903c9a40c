"""Weights in Arrow batches and parquet files larger than memory: pip install 'isdiag[parquet]'.

A batch is read, summed and dropped; `Summary` holds what is told of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from glob import glob, has_magic
from importlib import import_module
from os import PathLike, fspath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from isdiag import Summary

__all__ = ["batches", "grouped", "numeric_columns", "paths_of", "psis", "summarize"]

pa: Any = import_module("pyarrow")  # it has no types
pq: Any = import_module("pyarrow.parquet")

BATCH = 2**18
_BUFFER = 2**20  # bytes of a column that are read at a time


def paths_of(source: Any) -> list[str] | None:
    """The paths that a path, a glob, or a sequence of them stands for, in order of their names.

    Parameters
    ----------
    source : str, path, or sequence of them
        What to look for.

    Returns
    -------
    list of str or None
        None for what is no path.

    Raises
    ------
    FileNotFoundError
        If a glob matches no file.

    Examples
    --------
    >>> from isdiag import arrow
    >>> arrow.paths_of(["0.parquet", "1.parquet"])
    ['0.parquet', '1.parquet']
    """
    if isinstance(source, (str, PathLike)):
        path = fspath(cast("str", source))
        if not has_magic(path):
            return [path]
        found = sorted(glob(path, recursive=True))
        if not found:
            msg = f"{path} matches no file"
            raise FileNotFoundError(msg)
        return found
    several = cast("Sequence[Any]", source)
    if isinstance(source, (list, tuple)) and all(isinstance(each, (str, PathLike)) for each in several):
        return [path for each in several for path in paths_of(each) or []]
    return None


def _record_batches(source: Any, columns: list[str], batch_size: int) -> Iterator[Any]:
    paths = paths_of(source)
    if paths is not None:
        for path in paths:
            # Or else what is asked for of a file is in memory before the first batch: 2 GB of 5.
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
                _check_names(columns, file.schema_arrow.names, path)
                yield from file.iter_batches(batch_size, columns=columns)
        return
    if isinstance(source, pa.Table):
        source = source.to_batches(batch_size)
    elif isinstance(source, pa.RecordBatch):
        source = [source]
    for batch in source:
        _check_names(columns, batch.schema.names, "a batch")
        yield batch


def _check_names(columns: list[str], names: list[str], where: str) -> None:
    for column in columns:
        if column not in names:
            msg = f"no column {column!r} in {where}, which has {', '.join(names)}"
            raise ValueError(msg)


def _numbers(batch: Any, column: str) -> NDArray[Any]:
    array = batch.column(column)
    if array.null_count:
        msg = f"column {column!r} holds {array.null_count} missing values"
        raise ValueError(msg)
    if not _is_numeric(array.type):
        msg = f"column {column!r} must hold real numbers, got {array.type}"
        raise ValueError(msg)
    return array.to_numpy(zero_copy_only=False)


def batches(source: Any, *columns: str, batch_size: int = BATCH) -> Iterator[tuple[NDArray[Any], ...]]:
    """The columns of numbers, a batch at a time.

    Parameters
    ----------
    source : path, glob, sequence of paths, Table, RecordBatchReader, or iterable of RecordBatch
        Where the columns are; paths are of parquet files.
    *columns : str
        Their names.
    batch_size : int, default 2**18
        How many rows to read at a time from a file or a table.

    Yields
    ------
    tuple of ndarray
        One array a column.

    Raises
    ------
    ValueError
        If a column is missing, or holds missing values or no numbers.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from isdiag import arrow
    >>> table = pa.table({"log_w": [0.0, 0.5, 0.1], "reward": [1, 0, 1]})
    >>> [log_w.tolist() for log_w, _ in arrow.batches(table, "log_w", "reward", batch_size=2)]
    [[0.0, 0.5], [0.1]]
    """
    for batch in _record_batches(source, list(dict.fromkeys(columns)), batch_size):
        yield tuple(_numbers(batch, column) for column in columns)


def summarize(
    source: Any,
    log_w: str,
    h: str | None = None,
    *,
    by: str | None = None,
    gamma: float = 1.0,
    n_max: float = 1e9,
    batch_size: int = BATCH,
    progress: bool = False,
) -> Any:
    """The summary of a column of log-weights.

    Parameters
    ----------
    source : path, glob, sequence of paths, Table, RecordBatchReader, or iterable of RecordBatch
        Where the columns are; paths are of parquet files.
    log_w : str
        Name of the column of log-weights.
    h : str, optional
        Name of a column of values at the draws.
    by : str, optional
        Name of a column that tells groups apart.
    gamma : float, default 1
        Exponent, >= 0, of the weights that h is summed with.
    n_max : float, default 1e9
        The most draws for which khat is to be known.
    batch_size : int, default 2**18
        How many rows to read at a time from a file or a table.
    progress : bool, default False
        Show a progress bar on stderr; needs rich.

    Returns
    -------
    Summary or dict of Summary
        With `by` one for each value of that column, in order of appearance; None for where it is missing.

    Raises
    ------
    ValueError
        If a column is missing, or one of numbers holds missing values or no numbers.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from isdiag import arrow
    >>> table = pa.table({"log_w": [0.0, 0.7, 0.0, 0.7], "age": ["new", "old", "new", "old"]})
    >>> arrow.summarize(table, "log_w").n
    4
    >>> {age: summary.ess() for age, summary in arrow.summarize(table, "log_w", by="age").items()}
    {'new': 2.0, 'old': 2.0}
    """
    columns = [name for name in (log_w, h) if name is not None]
    groups: dict[Any, Summary] = {}
    for arrays, found in _shown(grouped(source, columns, by, batch_size=batch_size), source, progress):
        for key, where in found:
            part = tuple(array[where] for array in arrays)
            if key in groups:
                groups[key] = groups[key].add(*part)
            else:
                groups[key] = Summary.of(*part, gamma=gamma, n_max=n_max)
    if by is not None:
        return groups
    if not groups:
        none = np.empty(0)
        groups[None] = Summary.of(none, None if h is None else none, gamma=gamma, n_max=n_max)
    return groups[None]


def grouped(
    source: Any, columns: Sequence[str], by: str | None, *, batch_size: int = BATCH
) -> Iterator[tuple[list[NDArray[Any]], list[tuple[Any, Any]]]]:
    """The columns of numbers, a batch at a time, and where in it the groups are.

    Parameters
    ----------
    source : path, glob, sequence of paths, Table, RecordBatchReader, or iterable of RecordBatch
        Where the columns are; paths are of parquet files.
    columns : sequence of str
        Their names.
    by : str or None
        Name of a column that tells groups apart.
    batch_size : int, default 2**18
        How many rows to read at a time from a file or a table.

    Yields
    ------
    tuple
        An array for each column, and pairs of a value of `by` and its positions; (None, all of them) without.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from isdiag import arrow
    >>> table = pa.table({"log_w": [0.0, 0.7, 0.1], "age": ["new", "old", "new"]})
    >>> [(age, log_w[where].tolist()) for (log_w,), groups in arrow.grouped(table, ["log_w"], "age")
    ...  for age, where in groups]
    [('new', [0.0, 0.1]), ('old', [0.7])]
    """
    named = list(dict.fromkeys(columns if by is None else [*columns, by]))
    for batch in _record_batches(source, named, batch_size):
        yield [_numbers(batch, column) for column in columns], list(_groups(batch, by))


def numeric_columns(path: str | PathLike[str]) -> list[str]:
    """The names of the columns of a parquet file that hold real numbers.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of str
        In the order of the file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from isdiag import arrow
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "rollouts.parquet"
    >>> pq.write_table(pa.table({"log_w": [0.0, 0.7], "age": ["new", "old"]}), path)
    >>> arrow.numeric_columns(path)
    ['log_w']
    """
    return [field.name for field in pq.read_schema(path) if _is_numeric(field.type)]


def _is_numeric(kind: Any) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _groups(batch: Any, by: str | None) -> Iterator[tuple[Any, Any]]:
    """Each value of the column, and where it stands."""
    if by is None:
        yield None, slice(None)
        return
    column = batch.column(by)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    # One NaN, so that it is the same key in every batch.
    keys = [math.nan if key != key else key for key in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(keys)).to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(keys) + 1))
    for key, where in zip([*keys, None], np.split(order, ends[:-1]), strict=True):
        if where.size:
            yield key, where


def _shown(stream: Iterable[Any], source: Any, progress: bool) -> Iterator[Any]:
    """The batches, with a bar that counts their rows."""
    if not progress:
        yield from stream
        return
    from rich.console import Console  # noqa: PLC0415 -- rich is asked for by the bar alone
    from rich.progress import Progress  # noqa: PLC0415

    paths = paths_of(source) or []
    total = sum(pq.read_metadata(path).num_rows for path in paths) if paths else None
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        for batch in stream:
            bar.advance(task, len(batch[0][0]))
            yield batch


def psis(
    source: Any,
    log_w: str,
    out: str | PathLike[str],
    *,
    summary: Summary | None = None,
    name: str = "log_weights",
    batch_size: int = BATCH,
    **options: Any,
) -> Summary:
    """Write Pareto smoothed log-weights to a parquet file, by two passes over files.

    Parameters
    ----------
    source : path, glob, or sequence of paths
        Parquet files.
    log_w : str
        Name of the column of log-weights.
    out : path
        Where to write, one column, in the order of the files and their rows.
    summary : Summary, optional
        What `summarize` returned of them, if it was called: then one pass is made.
    name : str, default "log_weights"
        Name of the column that is written.
    batch_size : int, default 2**18
        How many rows to read and write at a time.
    **options
        As `Summary.psis` has them.

    Returns
    -------
    Summary
        Of the log-weights.

    Raises
    ------
    ValueError
        If a column is missing, or holds missing values or no numbers.
    TypeError
        If the source can be read but once.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    >>> from isdiag import arrow
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> log_w = np.random.default_rng(1).normal(size=1000)
    >>> pq.write_table(pa.table({"log_w": log_w}), folder / "in.parquet")
    >>> round(arrow.psis(folder / "in.parquet", "log_w", folder / "out.parquet").pareto_khat(), 3)
    0.322
    >>> pq.read_table(folder / "out.parquet").num_rows
    1000
    """
    if paths_of(source) is None and not isinstance(source, pa.Table):
        msg = f"source must be paths or a table, which can be read twice, got {type(source).__name__}"
        raise TypeError(msg)
    found = summarize(source, log_w, batch_size=batch_size) if summary is None else summary
    parts = (array for (array,) in batches(source, log_w, batch_size=batch_size))
    with ExitStack() as stack:
        writer: Any = None
        for smoothed in found.psis(parts, **options):
            table = pa.table({name: smoothed})
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(out, table.schema))
            writer.write_table(table)
    return found
