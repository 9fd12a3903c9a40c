"""Reports for people who look: one page of HTML with pictures. Needs matplotlib.

The page is complete in itself. It holds no script and asks the network for nothing; every string of the
caller is escaped. Text and axes of the pictures have the colour of the text around them, so that one page
serves light and dark.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Matplotlib says no types of its **kwargs.

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isdiag import Diagnosis, plots
from isdiag._core import markup
from isdiag._core.diagnosis import VERDICTS, step_html, worst_first
from isdiag.report.merged import Merged
from isdiag.report.source import Source, estimates, printable

_INK = "#010203"  # stands for the colour of the page's text until the picture is text itself
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "isdiag",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        _INK,
    ),
}
_SIZE = 5.2, 3.6  # inches: at 390 pixels its text is as large as that of the page
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; color: #1b1c1e;
  background: #fff; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #131416; } }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; overflow-wrap: anywhere; }
p { max-width: 44rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; flex: 1 1 20rem; max-width: 34rem; min-width: 0; }
figure svg { width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
figcaption { font-size: .9rem; }
.table { overflow-x: auto; margin-top: 1rem; } table { font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { white-space: nowrap; }
"""


@dataclass(frozen=True)
class _Picture:
    """How it is drawn, and what it says."""

    draw: Callable[[Axes], Any]
    message: str


def svg(draw: Callable[[Axes], Any], alt: str, prefix: str) -> str:
    """A picture as SVG to stand in HTML.

    Parameters
    ----------
    draw : callable
        Draws into the Axes that it is given.
    alt : str
        What the picture says, for who cannot see it.
    prefix : str
        What ids begin with, which have to be unique in a page.

    Returns
    -------
    str
        It scales with its surroundings, and its text has their colour.
    """
    with rc_context(cast("Any", _RC)):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.subplots())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    whole = text.getvalue()
    box = re.search(r'viewBox="[^"]*"', whole)
    body = whole[whole.index(">", whole.index("<svg")) + 1 :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", body).replace(_INK, "currentColor")
    return f'<svg {box[0] if box else ""} role="img" aria-label="{escape(alt)}">{body}'


def to_html(reports: Sequence[tuple[Source | Merged, Diagnosis]], options: dict[str, Any], top: int) -> str:
    """The reports as one page: what to make of each source, pictures, and a table with the worst first.

    Parameters
    ----------
    reports : sequence of (Source or Merged, Diagnosis)
        What was found. Pictures of draws need a source that holds them.
    options : dict
        With which options of `Source.diagnose`.
    top : int
        How many columns to list.

    Returns
    -------
    str
    """
    sections = "".join(_section(i, *each, options, top) for i, each in enumerate(reports))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>isdiag report</title><style>{_STYLE}</style></head>"
        f"<body><h1>Can these importance weights be trusted?</h1>{sections}</body></html>\n"
    )


def _section(
    number: int, source: Source | Merged, diagnosis: Diagnosis, options: dict[str, Any], top: int
) -> str:
    name = escape(printable(source.name))
    pictures = "".join(
        f"<figure>{svg(each.draw, each.message, f's{number}p{i}-')}"
        f"<figcaption>{escape(each.message)}</figcaption></figure>"
        for i, each in enumerate(_pictures(source, diagnosis, options))
    )
    head = f'<section><h2>{name}</h2>{_verdict(source, diagnosis)}<div class="figures">{pictures}</div>'
    if source.columns is None:
        return f'{head}<div class="table">{diagnosis._repr_html_()}</div></section>'  # pyright: ignore[reportPrivateUsage]
    return f'{head}<div class="table">{_table(source, diagnosis, top)}</div></section>'


def _names(source: Source | Merged) -> list[str]:
    return [printable(name) for name in source.columns or [""]]


def _verdict(source: Source | Merged, diagnosis: Diagnosis) -> str:
    records, names = diagnosis.records(), _names(source)
    ordered = worst_first(records)
    at, worst = ordered[0]
    of = f"{names[at]}: " if names[at] else ""
    step = step_html(worst, of)
    if source.purpose == "step":
        return step
    believed = sum(record["ok"] for record in records)
    said = f"{believed} of {len(records)} columns can be believed. " if names[at] else ""
    if believed < len(records) or not names[at]:
        said += of + worst["advice"]
    told = markup.verdict(worst["verdict"], VERDICTS[worst["verdict"]], said.rstrip())
    return told if source.purpose == "estimate" else told + step


def _pictures(source: Source | Merged, diagnosis: Diagnosis, options: dict[str, Any]) -> list[_Picture]:
    names, records = _names(source), diagnosis.records()
    found: list[_Picture] = []
    if source.purpose != "step" and len(names) > 1:
        failed = sum(not record["khat"] <= record["k_max"] for record in records)
        said = f"khat of each column: {failed} of {len(names)} above the threshold, or unknown."
        found.append(_Picture(lambda ax: plots.khat(diagnosis, names=names, ax=ax), said))
    if isinstance(source, Source):
        found += _pictures_of_draws(source, *worst_first(records)[0], options)
    return found


def _pictures_of_draws(
    source: Source, at: int, worst: dict[str, Any], options: dict[str, Any]
) -> list[_Picture]:
    """Those of the worst column."""
    names, table = _names(source), source.log_w if source.log_w.ndim == 2 else source.log_w[:, None]
    row = np.asarray(table[:, at], np.float64)
    of = f" of {names[at]}" if names[at] else ""
    r_eff = float(np.broadcast_to(source.efficiency(options.get("r_eff")), (table.shape[1],))[at])
    found: list[_Picture] = []
    if source.purpose != "step":
        said = f"The tail{of}: {worst['reliability']}. Points off the strip are a poor fit."
        found.append(_Picture(lambda ax: plots.tail_fit(row, r_eff=r_eff, ax=ax), said))
    if worst["max_weight"] == worst["max_weight"]:
        said = f"The largest weight{of} is {worst['max_weight']:.1%} of all."
        found.append(_Picture(lambda ax: plots.weight_concentration(row, ax=ax), said))
    if source.purpose != "estimate" and options["rule"] != "mse" and worst["gamma"] == worst["gamma"]:
        limits = {name: options[name] for name in ("k_max", "ess_min", "gamma_max", "rule")}
        said = f"ESS and khat{of} by gamma: {worst['gamma']:.3g} is chosen, set by {worst['limited_by']}."
        found.append(_Picture(lambda ax: plots.gamma_curve(row, r_eff=r_eff, **limits, ax=ax), said))
    return found


def _table(source: Source | Merged, diagnosis: Diagnosis, top: int) -> str:
    names, records = _names(source), diagnosis.records()
    values = {name.replace("_", " "): np.ravel(value) for name, value in estimates(diagnosis).items()}
    heads = ["column", "n", "ESS", "khat", *values]
    heads += ["for an estimate"] * (source.purpose != "step")
    heads += ["step: gamma", "ESS then", "khat then"] * (source.purpose != "estimate")
    rows: list[list[Any]] = []
    for i, r in worst_first(records)[:top]:
        cells: list[Any] = [names[i], r["n"], f"{r['ess']:.0f}", f"{r['khat']:.2f}"]
        cells += [f"{value[i]:.4g}" for value in values.values()]
        cells += [(r["verdict"], VERDICTS[r["verdict"]])] * (source.purpose != "step")
        after = [f"{r['gamma']:.3f}", f"{r['ess_tempered']:.0f}", f"{r['khat_tempered']:.2f}"]
        rows.append(cells + after * (source.purpose != "estimate"))
    more = f"<p>... and {len(records) - top} more that look better.</p>" if len(records) > top else ""
    return markup.grid(heads, rows) + more
