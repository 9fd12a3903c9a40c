"""Tables of numbers in text: `numpy.loadtxt` reads them, here the header is found and errors get a place."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

BLANK = " ,;\t\r\n"
MISSING = ("", ".", "-", "na", "n/a", "<na>", "null", "none")
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")


class _Lines(Iterator[str]):
    """The lines that hold a value; knows the last one that was given out and its number in the file."""

    def __init__(self, file: Iterable[str]):
        numbered = enumerate(file, 1)
        self._rest = ((i, line) for i, line in numbered if line.lstrip(BLANK)[:1] not in ("", "#"))
        self.number = 0
        self.text = ""

    def __next__(self) -> str:
        self.number, self.text = next(self._rest)
        return self.text

    def look(self, count: int) -> list[str]:
        """The next lines, which stay where they are."""
        ahead = list(islice(self._rest, count))
        self._rest = chain(ahead, self._rest)
        return [line for _, line in ahead]


def _delimiter(line: str) -> str | None:
    """What separates the fields of a line; None for spaces."""
    if "\t" in line:
        return "\t"
    if ";" in line:
        msg = "fields are separated by semicolons: write commas, and points in decimals"
        raise ValueError(msg)
    if "," in line:
        return ","
    return None if len(line.split()) > 1 else ","


def _fields(line: str, delimiter: str | None) -> list[str]:
    line = line.rstrip("\r\n") if delimiter else line.strip()
    return [
        field.strip() for field in next(csv.reader([line], delimiter=delimiter or " ", skipinitialspace=True))
    ]


def _values(line: str, delimiter: str | None) -> list[str]:
    return _fields(line.partition("#")[0], delimiter)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names(fields: list[str]) -> list[str] | None:
    """The names in the first line, or None if it holds numbers."""
    if all(map(_is_number, fields)):
        return None
    if any(_is_number(field) or field.lower() in MISSING for field in fields):
        msg = f"the first line is neither numbers nor names of columns (an index must be left out): {fields}"
        raise ValueError(msg)
    return fields


def _fault(text: str) -> str:
    if text.lower() in MISSING:
        return f"a value is missing ({text!r})"
    if DECIMAL_COMMA.fullmatch(text):
        return f"{text!r} has a decimal comma: write a point"
    return f"{text!r} is not a number"


@dataclass(frozen=True, eq=False)
class TextTable:
    """What a text holds: numbers in two dimensions, names of columns or None, what to tell the reader."""

    values: NDArray[np.float64]
    names: list[str] | None
    notes: tuple[str, ...]


def read_table(file: Iterable[str]) -> TextTable:
    """Read a table of numbers from lines of text.

    Parameters
    ----------
    file : iterable of str
        Lines of numbers between commas, tabs or spaces. The first may hold names. What follows a # is
        skipped, but in names, and so are lines without a value.

    Returns
    -------
    TextTable

    Raises
    ------
    ValueError
        If it is no such table; the message names line and column.
    """
    lines = _Lines(file)
    ahead = lines.look(2)
    if not ahead:
        msg = "holds no numbers"
        raise ValueError(msg)
    delimiter = _delimiter(ahead[-1])
    first = _fields(ahead[0], delimiter)
    names = _names(first)
    notes: list[str] = []
    if len(ahead) == 2 and len(first) > 1 and first == [str(j) for j in range(len(first))]:
        names = first  # pandas' names of columns that have none
        notes.append(f"the first line, {first[0]} to {first[-1]}, is taken as names of columns")
    if names:
        next(lines)
        if len(ahead) == 1:
            msg = "holds names of columns, but no numbers"
            raise ValueError(msg)
    width = len(_values(ahead[-1 if names else 0], delimiter))
    if names and len(names) != width:
        msg = f"{len(names)} name(s) for {width} columns"
        if delimiter == "," and width == 2 * len(names):
            msg += " (decimal commas? write points)"
        raise ValueError(msg)
    try:
        values = np.loadtxt(lines, delimiter=delimiter, quotechar='"', ndmin=2)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        fields = _values(lines.text, delimiter)
        place = f"line {lines.number}"
        for j, field in enumerate(fields):
            if not _is_number(field):
                name = names[j] if names and j < width else j
                msg = f"{place}, column {name}: {_fault(field)}"
                raise ValueError(msg) from None
        if len(fields) != width:
            msg = f"{place}: {len(fields)} field(s), where {width} are expected"
            raise ValueError(msg) from None
        msg = f"{place}: {error}"
        raise ValueError(msg) from None
    if not names and delimiter == "," and _are_halves(values):
        notes.append(
            "whole numbers, every other one without a sign: if these are decimal commas, write points"
        )
    return TextTable(values, names, tuple(notes))


def _are_halves(values: NDArray[np.float64]) -> bool:
    """Whether numbers look as if a decimal comma had cut them in two."""
    if values.shape[1] % 2 or not np.all(values == np.rint(values)):
        return False
    fractions = values[:, 1::2]
    return bool(np.all(fractions >= 0) and np.any(fractions > 9))
