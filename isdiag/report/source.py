"""Log-weights of a file, with the names that go with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isdiag import AccurateSelection, Diagnosis, diagnose

Array = NDArray[Any]
Purpose = Literal["both", "estimate", "step"]

# What samplers write beside the quantities of a model: lp__, divergent__, .chain, Iteration, ...
BOOKKEEPING = re.compile(r".*__|\.?(chain|draw|iteration)", re.IGNORECASE)
LOG_LIKELIHOOD = re.compile(r"log_?lik.*", re.IGNORECASE)
LONG_LIST = 8
MANY_COLUMNS, FEW_DRAWS = 20, 30  # where a table is taken to lie on its side


def printable(text: str) -> str:
    """The text without characters that could command a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


@dataclass(frozen=True, eq=False)
class Source:
    """Log-weights of a file.

    Attributes
    ----------
    name : str
        The file, and which array of it where it has several.
    log_w : array
        One vector, or draws x columns.
    columns : list of str or None
        The columns' names; None for a vector.
    notes : tuple of str
        What the reader of a report should know about the reading.
    h : array, optional
        Values at the draws.
    r_eff : array, optional
        Relative efficiency of each column, where the file holds it.
    purpose : {"both", "estimate", "step"}
        What the weights are for: which part of a diagnosis a report shows.
    """

    name: str
    log_w: Array
    columns: list[str] | None
    notes: tuple[str, ...] = ()
    h: Array | None = None
    r_eff: Array | None = None
    purpose: Purpose = "both"

    def diagnose(self, *, r_eff: float | Source | None = None, **options: Any) -> Diagnosis:
        """Diagnose the vector, or each column.

        Parameters
        ----------
        r_eff : float or Source, optional
            Relative efficiency, or a source with one for each column; default the file's own, else 1.
        **options
            As `isdiag.diagnose` has them.

        Returns
        -------
        Diagnosis

        Raises
        ------
        ValueError
            If `isdiag.diagnose` does, or the values of `r_eff` do not match; the message begins with the
            name.
        """
        try:
            efficiency = self.efficiency(r_eff)
            h = self.h
            if h is not None and self.columns is not None:
                h = np.broadcast_to(h[:, None], self.log_w.shape)
            return diagnose(self.log_w, h, axis=0, r_eff=efficiency, **options)
        except ValueError as error:
            msg = f"{self.name}: {error}"
            raise ValueError(msg) from None

    def efficiency(self, r_eff: float | Source | None) -> Any:
        """The relative efficiency of the vector, or of each column.

        Parameters
        ----------
        r_eff : float or Source, optional
            As for `diagnose`.

        Returns
        -------
        float or array

        Raises
        ------
        ValueError
            If the values of a source do not match.
        """
        if isinstance(r_eff, Source):
            return self._efficiency_in(r_eff)
        return (1.0 if self.r_eff is None else self.r_eff) if r_eff is None else r_eff

    def _efficiency_in(self, source: Source) -> Any:
        values, names = source.log_w, source.columns
        if self.columns and names and len(values) == 1 and set(self.columns) <= set(names):
            values = values[:, [names.index(name) for name in self.columns]]
        expected = 1 if self.columns is None else len(self.columns)
        if values.size != expected:
            msg = f"{expected} column(s) to report on, but {values.size} value(s) of r_eff in {source.name}"
            raise ValueError(msg)
        return float(values.ravel()[0]) if self.columns is None else values.ravel()


def estimates(diagnosis: Diagnosis) -> dict[str, Any]:
    """The mean of h and its error for each column, by name; empty without h."""
    found = diagnosis.estimate
    result = {} if found is None else {"estimate": found.estimate, "std_error": found.std_error}
    chosen = diagnosis.selection
    if isinstance(chosen, AccurateSelection):
        result |= {"least_error_estimate": chosen.estimate, "least_error_std_error": chosen.std_error}
        result |= {"least_error_bias": chosen.bias}
    return result


@dataclass(frozen=True)
class Reading:
    """Which columns of a file are log-weights, and what makes log-weights of them.

    Attributes
    ----------
    columns : tuple of str, optional
        Names or numbers (from 0) of columns; default all but a sampler's bookkeeping and `h`.
    h : str, optional
        The column, or the array of a .npz, that holds values and no log-weights.
    transpose : bool
        Whether each line of the file is a column.
    log : bool
        Whether the file holds weights, whose logarithms are to be taken.
    negate : bool
        Whether to change the sign in the end: log-likelihoods become leave-one-out's log-weights.
    """

    columns: tuple[str, ...] | None = None
    h: str | None = None
    transpose: bool = False
    log: bool = False
    negate: bool = False


def source_of(
    name: str,
    array: Array,
    columns: list[str] | None,
    reading: Reading,
    notes: Sequence[str] = (),
    h: Array | None = None,
) -> Source:
    """Make log-weights of an array.

    Parameters
    ----------
    name : str
        What to call it.
    array : array
        One vector, or draws x columns.
    columns : list of str or None
        Names of columns, where the file has them.
    reading : Reading
        What to take, and what to make of it.
    notes : sequence of str
        What is known already.
    h : array, optional
        The values, where they are no column.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If these are no log-weights, or have no such columns; the message begins with the name.
    """
    try:
        return _source_of(name, array, columns, reading, list(notes), h)
    except ValueError as error:
        msg = f"{name}: {error}"
        raise ValueError(msg) from None


def _source_of(
    name: str, array: Array, columns: list[str] | None, reading: Reading, notes: list[str], h: Array | None
) -> Source:
    if array.dtype.kind not in "fiu":
        msg = f"expected real numbers, got dtype {array.dtype}"
        raise ValueError(msg)
    if array.ndim not in (1, 2) or array.size == 0:
        msg = f"expected one vector or draws x columns, got shape {array.shape}"
        raise ValueError(msg)
    if reading.transpose and array.ndim == 2:
        if columns and len(columns) == array.shape[1]:
            columns = None  # they named what are draws now
        array = array.T
    if array.ndim == 2 and array.shape[0] == 1 and not columns:
        array = array[0]  # a vector on one line, not many columns of one draw
    vector = array.ndim == 1
    table = array[:, None] if vector else array
    names = columns or [str(j) for j in range(table.shape[1])]
    if len(names) != table.shape[1]:
        msg = f"{len(names)} name(s) for {table.shape[1]} columns"
        raise ValueError(msg)
    draws, width = table.shape
    if width > MANY_COLUMNS and draws < FEW_DRAWS and width > draws and not reading.transpose:
        notes.append(f"{width} columns of {draws} draws: if each line is a column, pass --transpose")
    kept = _kept(names, reading.columns, notes)
    if h is None and reading.h is not None:
        at_h = _positions(names, reading.h)[0]
        h = table[:, at_h]
        kept = [j for j in kept if j != at_h]
    if h is not None and (h.shape != (draws,) or h.dtype.kind not in "fiu"):
        msg = f"h must hold a number for each of {draws} draws: got {h.dtype} of shape {h.shape}"
        raise ValueError(msg)
    if not kept:
        msg = f"no column of log-weights among {_listed(names)} (--columns takes any)"
        raise ValueError(msg)
    if kept != list(range(len(names))):
        table, names = table[:, kept], [names[j] for j in kept]
    table = _log_weights(table, names, reading, notes)
    if vector:
        return Source(name, table[:, 0], None, tuple(notes), h)
    return Source(name, table, names, tuple(notes), h)


def _kept(names: list[str], wanted: tuple[str, ...] | None, notes: list[str]) -> list[int]:
    """Positions of the columns to diagnose."""
    if wanted is not None:
        return [j for name in wanted for j in _positions(names, name)]
    kept = [j for j, name in enumerate(names) if not BOOKKEEPING.fullmatch(name)]
    if 0 < len(kept) < len(names):
        left_out = [name for name in names if BOOKKEEPING.fullmatch(name)]
        notes.append(f"left out: {_listed(left_out)} (--columns takes any)")
    return kept


def _log_weights(table: Array, names: list[str], reading: Reading, notes: list[str]) -> Array:
    if table.dtype.kind != "f":
        table = table.astype(np.float64)
    if reading.log:
        if np.any(table < 0):
            msg = "holds negative values, so these are not weights: leave out --log"
            raise ValueError(msg)
        with np.errstate(divide="ignore"):
            table = np.log(table)
    elif weights := [name for name, is_so in zip(names, _sum_to_one(table), strict=True) if is_so]:
        which = "" if len(weights) == len(names) else f" ({_listed(weights)})"
        notes.append(f"these look like weights, not log-weights{which}: --log takes their logarithms")
    if reading.negate:
        return -table
    if any(LOG_LIKELIHOOD.fullmatch(name) for name in names):
        notes.append("log-likelihoods by their names: leave-one-out weighs by minus these (--negate)")
    return table


def _sum_to_one(table: Array) -> list[bool]:
    """Which columns hold numbers in [0, 1] that sum to 1, up to the digits of a text."""
    inside = np.all((table >= 0) & (table <= 1), axis=0)
    sums = np.sum(table, axis=0, dtype=np.float64, where=inside)
    return (inside & (abs(sums - 1) < 1e-3) & (len(table) > 1)).tolist()


def _positions(names: list[str], wanted: str) -> list[int]:
    """Where a name stands, or the number itself."""
    found = [j for j, name in enumerate(names) if name == wanted]
    if not found and wanted.isdecimal() and int(wanted) < len(names):
        found = [int(wanted)]
    if not found:
        msg = f"no column {wanted!r} among {_listed(names)}"
        raise ValueError(msg)
    return found


def _listed(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > LONG_LIST else ""
    return ", ".join(names[:LONG_LIST]) + more
