"""HTML of results and reports: no script, nothing from elsewhere, every string escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, cast

from isdiag._core.bands import PAINTS

# Text takes the colour of the page around it, so that a dark one needs no rules of its own.
_CELL = "padding:.1em .8em .1em 0;text-align:left;vertical-align:top;border:0"


def badge(word: str, colour: str) -> str:
    """A word in bold, behind a block of the colour that `PAINTS` has for one of the terminal."""
    paint = PAINTS[colour]
    return f'<b><span aria-hidden="true" style="color:{paint}">&#9632;</span> {escape(word)}</b>'


def verdict(word: str, colour: str, said: str) -> str:
    """What comes first: a word, and a sentence."""
    return f"<p>{badge(word, colour)} {escape(said)}</p>"


def pairs(rows: Iterable[tuple[str, Any]], caption: str = "") -> str:
    """A table of names and values."""
    lines = [f"<tr>{_cell('th scope=row', name)}{_cell('td', value)}</tr>" for name, value in rows]
    return _table(lines, caption)


def grid(heads: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table with a line of heads; a value that is a `tuple` is a badge, its word and colour."""
    lines = [*(_cell("th scope=col", head) for head in heads)]
    for row in rows:
        lines += ["</tr><tr>", *(_cell("td", value) for value in row)]
    return _table(["<tr>", *lines, "</tr>"], caption)


def _cell(tag: str, value: Any) -> str:
    held = badge(*cast("tuple[str, str]", value)) if isinstance(value, tuple) else escape(str(value))
    return f'<{tag} style="{_CELL}">{held}</{tag[:2]}>'


def _table(lines: Sequence[str], caption: str) -> str:
    said = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    return f'<table style="border-collapse:collapse">{said}{"".join(lines)}</table>'
