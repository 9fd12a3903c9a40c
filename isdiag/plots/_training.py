"""The picture of a training run."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# Matplotlib says no types of its **kwargs.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray

from isdiag._core.bands import BANDS, GOOD_KHAT
from isdiag._core.typing import Floats
from isdiag.plots._style import BLUE, EDGES, GREY, axes_of, ink, shade_bands

_ALARMS = ("offset", "stall", "one_draw", "silenced", "stale")
_PLACES = "ab;cd;ef;gg"
PANELS = 7


def training_run(
    history: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]],
    *,
    ess_min: float = 0.8,
    k_max: float = GOOD_KHAT,
    ax: Sequence[Axes] | None = None,
) -> NDArray[Any]:
    """Draw a training run: gamma, ESS, khat, log-ratios, the largest share, the offset and the alarms.

    Parameters
    ----------
    history : mapping of str to sequence of float, or sequence of mappings of str to float
        Metrics by name, one number a step: `isdiag.rl.GammaController.history`, or columns of a log that go
        by these names. Or the metrics of each step, as losses return them.
    ess_min : float, default 0.8
        The limit of ESS / n, of the controller.
    k_max : float, default 0.7
        The limit of khat, of the controller.
    ax : sequence of 7 Axes, optional
        Where to draw; default a new figure.

    Returns
    -------
    ndarray of Axes, shape (7,)
        In the order above. A khat below -1 or above 2 is drawn at the edge, an unknown one is not.

    Raises
    ------
    KeyError
        If a metric is missing.
    ValueError
        If `ax` does not hold 7 axes.

    References
    ----------
    The metrics are those of `isdiag.rl.Step`.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag import plots
    >>> from isdiag.rl import GammaController
    >>> rng = np.random.default_rng(1)
    >>> controller = GammaController()
    >>> for spread in (0.1, 0.5, 2.5):
    ...     _ = controller.step(rng.normal(-(spread**2) / 2, spread, size=512), rng.normal(size=512))
    >>> axes = plots.training_run(controller.history)
    >>> axes[0].get_title(loc="left")
    'gamma: 0.377 in the end'
    """
    if ax is None:
        size: dict[str, Any] = {"figsize": (9.0, 9.5), "height_ratios": [3, 3, 3, 1.6]}
        _, placed = plt.subplot_mosaic(_PLACES, layout="constrained", **size)
        axes = [placed[place] for place in "abcdefg"]
    else:
        axes = list(ax)
    if len(axes) != PANELS:
        msg = f"ax must hold {PANELS} axes, got {len(axes)}"
        raise ValueError(msg)

    columns: Mapping[str, Sequence[float]] = (
        history
        if isinstance(history, Mapping)
        else {name: [step[name] for step in history] for name in (history[0] if history else ())}
    )

    def of(name: str) -> Floats:
        return np.asarray(columns[name], np.float64)

    steps = np.arange(of("gamma").size)
    _gamma(axes[0], steps, of("gamma"), of("gamma_batch"))
    _ess(axes[1], steps, of("ess_ratio_raw"), of("ess_ratio"), ess_min)
    _khat(axes[2], steps, of("pareto_k"), k_max)
    _ratios(axes[3], steps, *(of(f"log_w_{name}") for name in ("q01", "q50", "q99", "max")))
    _share(axes[4], steps, of("max_weight"))
    _offset(axes[5], steps, of("offset"), of("offset_z"))
    _alarms(axes[6], steps, [of(f"alarm_{name}") for name in _ALARMS])
    for each in axes:
        each.set_xlim(-0.5, max(steps.size, 1) - 0.5)
    return np.array(axes, dtype=object)


def _legend(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize="small", loc="best")


def _gamma(ax: Axes, steps: Any, used: Floats, batch: Floats) -> None:
    last = f": {used[-1]:.3f} in the end" if used.size else ""
    axes_of(ax, f"gamma{last}", "", "gamma")
    ax.plot(steps, batch, ".", color=GREY, markersize=4, label="what each batch allows")
    ax.plot(steps, used, color=BLUE, linewidth=1.8, label="in use")
    ax.set_ylim(bottom=0.0)
    _legend(ax)


def _ess(ax: Axes, steps: Any, raw: Floats, used: Floats, ess_min: float) -> None:
    axes_of(ax, "effective sample size", "", "ESS / n")
    ax.plot(steps, raw, "--", color=GREY, linewidth=1.2, label="of the weights w")
    ax.plot(steps, used, color=BLUE, linewidth=1.8, label="of those used")
    ax.axhline(ess_min, color=ink(), linewidth=1, linestyle=":", label="limit")
    ax.set_ylim(0.0, 1.05)
    _legend(ax)


def _khat(ax: Axes, steps: Any, khat: Floats, k_max: float) -> None:
    above = int(np.sum(khat > k_max))
    axes_of(ax, f"khat of w: above the limit in {above} of {khat.size} steps", "", "khat")
    shown = np.clip(khat, *EDGES)
    ax.plot(steps, shown, color=ink(), linewidth=1.0, marker=".", markersize=4)
    ax.axhline(k_max, color=ink(), linewidth=1, linestyle=":")
    known = shown[~np.isnan(shown)]
    ax.set_ylim(known.min(initial=0.0) - 0.1, known.max(initial=BANDS[-1].above) + 0.1)
    shade_bands(ax)


def _ratios(ax: Axes, steps: Any, low: Floats, middle: Floats, high: Floats, largest: Floats) -> None:
    axes_of(ax, "log-ratios", "", "log w")
    low, high = (np.where(np.isfinite(x), x, np.nan) for x in (low, high))
    ax.fill_between(steps, low, high, color=BLUE, alpha=0.25, linewidth=0, label="1 to 99 %")
    ax.plot(steps, middle, color=BLUE, linewidth=1.8, label="median")
    ax.plot(steps, largest, ":", color=ink(), linewidth=1.0, label="largest")
    _legend(ax)


def _share(ax: Axes, steps: Any, share: Floats) -> None:
    axes_of(ax, "largest share of one draw", "step", "share of the weights used")
    ax.plot(steps, share, color=BLUE, linewidth=1.2)
    ax.axhline(0.5, color=ink(), linewidth=1, linestyle=":", label="alarm")
    ax.set_ylim(0.0, 1.05)
    _legend(ax)


def _offset(ax: Axes, steps: Any, offset: Floats, z: Floats) -> None:
    axes_of(ax, "offset: log of the mean of w", "step", "nats")
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where((z != 0) & np.isfinite(offset / z), np.abs(offset / z), np.nan)
    ax.fill_between(steps, offset - 2 * error, offset + 2 * error, color=GREY, alpha=0.3, linewidth=0)
    ax.plot(steps, offset, color=BLUE, linewidth=1.2, label="± 2 standard errors")
    ax.axhline(0.0, color=ink(), linewidth=0.8)
    _legend(ax)


def _alarms(ax: Axes, steps: Any, alarms: list[Floats]) -> None:
    counts = [int(np.sum(alarm > 0)) for alarm in alarms]
    axes_of(ax, f"alarms: {sum(counts)}", "step", "")
    positions = [steps[alarm > 0] for alarm in alarms]
    colours = [BANDS[2].paint] * len(alarms)
    places = list(range(len(alarms)))[::-1]
    ax.eventplot(positions, lineoffsets=places, linelengths=0.7, linewidths=1.5, colors=colours)
    named = [f"{name.replace('_', ' ')} ({n})" for name, n in zip(_ALARMS, counts, strict=True)]
    ax.set_yticks(places, named)
    ax.set_ylim(-0.6, len(alarms) - 0.4)
