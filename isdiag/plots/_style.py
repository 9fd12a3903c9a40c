"""What all pictures share: axes, colours beside those of the bands, and how many draws of many are drawn."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# Matplotlib says no types of its **kwargs.

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import rcParams
from matplotlib.axes import Axes

from isdiag._core.bands import BANDS, UNKNOWN, Band, words
from isdiag._core.typing import Floats, Ints

# At the same contrasts as the paints of the bands; a dash or a marker says the same again.
BLUE, GREY = "#2f7fc0", "#808080"
# A shape for each band, so that no colour is needed to tell them apart.
MARKERS = {"good": "o", "fair": "s", "bad": "^", "very bad": "X", "unknown": "x"}
EVERY_BAND = (*BANDS, UNKNOWN)
EDGES = -1.0, 2.0  # of khat: what lies beyond is bad, or harmless, by whatever number
_EXACT, _SPREAD = 1000, 1000


def ink() -> str:
    """The colour of text, whatever the style in use makes it."""
    return str(rcParams["text.color"])


def axes_of(ax: Axes | None, title: str, x: str, y: str) -> Axes:
    """The axes to draw into, new ones if there are none, with title and labels."""
    if ax is None:
        ax = plt.subplots(layout="constrained")[1]
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def one_row(log_w: Any) -> Floats:
    """The draws of one row as float64."""
    row = np.asarray(log_w)
    if row.ndim != 1 or row.size == 0:
        msg = f"log_w must be one row of draws, got shape {row.shape}"
        raise ValueError(msg)
    return row.astype(np.float64)


def flat(values: Any) -> Floats:
    """Numbers of a result, one after the other."""
    return np.asarray(values, np.float64).ravel()


def band_colours(khat: Floats) -> list[tuple[Band, Any]]:
    """Each band that occurs, and where in khat it does."""
    found = words(np.atleast_1d(khat))
    return [(band, found == band.word) for band in EVERY_BAND if np.any(found == band.word)]


def shade_bands(ax: Axes) -> None:
    """Tint the ranges of khat that are on the axis, and name them at its right."""
    low, high = ax.get_ylim()
    edges = [*(band.above for band in BANDS), np.inf]
    for band, start, end in zip(BANDS, edges[:-1], edges[1:], strict=True):
        bottom, top = max(start, low), min(end, high)
        if bottom < top:
            ax.axhspan(bottom, top, color=band.paint, alpha=0.1, linewidth=0, zorder=0)
            if top - bottom > 0.06 * (high - low):
                place: dict[str, Any] = {
                    "xy": (1.01, (bottom + top) / 2),
                    "xycoords": ax.get_yaxis_transform(),
                }
                ax.annotate(band.word, **place, va="center", color=band.paint, fontsize="small")
    ax.set_ylim(low, high)


def drawn(count: int) -> Ints:
    """Which ranks of many to draw, from 0: the first thousand, and others evenly by their logarithm."""
    first = np.arange(min(count, _EXACT))
    if count <= _EXACT:
        return first
    return np.unique(np.concatenate([first, np.geomspace(_EXACT, count - 1, _SPREAD).astype(np.int64)]))
