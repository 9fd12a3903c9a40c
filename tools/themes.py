"""How pictures of the docs are drawn in a light and a dark theme, saved, and shown by the reader's theme."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
THEMES = {"light": ("#1b1c1e", "#ffffff"), "dark": ("#e6e6e6", "#131416")}
_INKED = "text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"
_GROUNDS = "figure.facecolor", "axes.facecolor", "savefig.facecolor"


@contextmanager
def theme(name: str, **rc: Any) -> Iterator[None]:
    """Matplotlib's settings of a theme, and these."""
    ink, ground = THEMES[name]
    colours = {**dict.fromkeys(_INKED, ink), **dict.fromkeys(_GROUNDS, ground)}
    with mpl.rc_context({**colours, "figure.figsize": (6, 4), **rc}):
        yield


def save(path: Path) -> None:
    """Write the current figure and close all."""
    figure = plt.gcf()
    figure.set_dpi(120)
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    path.parent.mkdir(exist_ok=True)
    # A third of the size; this method keeps the colour of a few markers.
    drawn.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    plt.close("all")


def image(path: str, alt: str) -> str:
    """The picture in a page, by the reader's theme; `path` has neither theme nor suffix."""
    return "".join(
        f"```{{image}} {path}_{name}.png\n:alt: {alt}\n:class: only-{name}\n```\n" for name in THEMES
    )
