"""Pictures of weights: khat by observation, the fit to a tail, and who has the weight."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# Matplotlib says no types of its **kwargs.

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.special import betaincinv

from isdiag import Status, gpd_fit, psis, temper
from isdiag._core import bands
from isdiag._core.typing import Floats
from isdiag.plots._style import (
    BLUE,
    EDGES,
    GREY,
    MARKERS,
    axes_of,
    band_colours,
    drawn,
    flat,
    ink,
    one_row,
    shade_bands,
)

_NAMED = 5
_LEVEL = 0.6827
_MANY = 3000  # of observations in one picture


def khat(result: Any, *, names: Sequence[Any] | None = None, ax: Axes | None = None) -> Axes:
    """Draw khat of each observation over the bands of what it says, with the interval that it leaves.

    Parameters
    ----------
    result : PSIS, Diagnosis, GammaSelection, SNIS or another result with a khat
        One observation a row of the batch. Where it has `tail_length` or `n`, intervals are drawn,
        and where it has `n` or `k_max` the threshold.
    names : sequence, optional
        A name for each observation; default their numbers from 0. Those that fare worst are named.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        A khat below -1 or above 2 is drawn at the edge of the picture, an unknown one at its foot.

    Raises
    ------
    ValueError
        If there is not one name for each observation.

    Notes
    -----
    * The intervals are those of `isdiag.khat_interval` at a level of 68 %, one standard error each way.
    * Of more than 3000 observations the worst are drawn, and as many of the others.

    References
    ----------
    [Vehtari2024]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> from isdiag import plots
    >>> log_w = np.random.default_rng(1).normal(scale=[[0.5], [1.0], [4.0]], size=(3, 1000))
    >>> ax = plots.khat(isdiag.psis(log_w))
    >>> ax.get_title(loc="left")
    '1 of 3 observations with a khat above its threshold'
    """
    k = flat(result.khat)
    if names is not None and len(names) != k.size:
        msg = f"names must hold one for each of {k.size} observations, got {len(names)}"
        raise ValueError(msg)
    n, length, k_max = (getattr(result, name, None) for name in ("n", "tail_length", "k_max"))
    if n is not None:
        draws = np.maximum(flat(n), 1)
        k_max = bands.khat_threshold(draws) if k_max is None else k_max
        length = bands.tail_length(draws, 1.0) if length is None else length
    allowed = np.broadcast_to(bands.GOOD_KHAT if k_max is None else flat(k_max), k.shape)
    m = np.broadcast_to(np.nan if length is None else flat(length), k.shape)
    with np.errstate(all="ignore"):
        bounds = np.clip(bands.khat_interval(k, m, _LEVEL), *EDGES)
    failed = ~(k <= allowed)
    badness = np.where(np.isnan(k), inf, k)
    title = f"{failed.sum()} of {k.size} observations with a khat above its threshold"
    if np.isnan(k).any():
        title += ", or unknown"
    ax = axes_of(ax, title, "observation", "khat")

    known = np.clip(k[np.isfinite(k)], *EDGES)
    low, high = known.min(initial=0.0) - 0.15, known.max(initial=1.0) + 0.15
    ax.set_ylim(low, high)
    shown = np.clip(np.where(np.isnan(k), low, k), low + 0.03, high - 0.03)
    chosen = _worst_and_some(badness)
    for band, here in band_colours(k[chosen]):
        at = chosen[here]
        ax.vlines(at, bounds[0, at], bounds[1, at], color=band.paint, alpha=0.5, linewidth=1)
        ax.scatter(
            at, shown[at], s=22, marker=MARKERS[band.word], color=band.paint, label=band.word, zorder=3
        )
    if k_max is not None:
        ax.plot(np.arange(k.size), allowed, "--", color=ink(), linewidth=1, label="threshold for n")
    worst = [i for i in np.argsort(-badness, kind="stable").tolist() if failed[i]]
    for i in worst[:_NAMED]:
        name = str(i if names is None else names[i])
        ax.annotate(
            name,
            (i, shown[i]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            parse_math=False,
        )
    ax.set_xlim(-0.5 - 0.02 * k.size, k.size - 0.5 + 0.08 * k.size)
    shade_bands(ax)
    return ax


def _worst_and_some(badness: Floats) -> Any:
    if badness.size <= _MANY:
        return np.arange(badness.size)
    worst = np.argpartition(badness, badness.size - _MANY // 2)[badness.size - _MANY // 2 :]
    some = np.linspace(0, badness.size - 1, _MANY // 2).astype(np.int64)
    return np.unique(np.concatenate([worst, some]))


def tail_fit(
    log_w: Any, *, r_eff: float = 1.0, tail_length: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the largest weights and the generalised Pareto distribution that khat comes from.

    Parameters
    ----------
    log_w : array_like, shape (n,)
        Log importance weights of one row, up to a constant.
    r_eff : float, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `isdiag.tail_length`.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        The share of draws with a larger weight against the weight in units of the mean one, both on
        logarithmic scales, where a Pareto tail is a straight line of slope ``-1 / khat``. Where nothing could
        be fitted there are the weights alone, and the title says why.

    Raises
    ------
    ValueError
        If `log_w` is not one row of draws.

    Notes
    -----
    * Around the fit is what 95 % of draws from it would do at each rank. A tail that is no Pareto tail, a
      mixture of levels or a lattice, leaves it for many ranks in a row: its khat means little.
    * It asks `isdiag.psis` and `isdiag.gpd_fit`. Every draw of the tail is drawn up to a thousand, of the
      others so many that no gap is seen.

    References
    ----------
    [Vehtari2024]_.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag import plots
    >>> ax = plots.tail_fit(np.random.default_rng(1).normal(scale=1.5, size=2000))
    >>> ax.get_title(loc="left")
    'khat 0.42 ± 0.11: good, from the largest 134 of 2000 weights'
    """
    row = one_row(log_w)
    fit = psis(row, r_eff=r_eff, tail_length=tail_length)
    n, m = row.size, int(fit.tail_length)
    labels = "weight, in units of the mean weight", "share of draws with a larger weight"
    if fit.status in (Status.NO_WEIGHT, Status.NOT_FINITE):
        return axes_of(ax, f"No tail to draw ({fit.status})", *labels)
    log_shares = np.sort(temper(row[row > -inf]))[::-1]
    with np.errstate(under="ignore"):
        weights = n * np.exp(log_shares)
    ranks = drawn(weights.size)
    word = bands.band_of(fit.khat).word
    found = None
    title = f"khat {fit.khat:.2f}: {word} ({fit.status})"
    if np.isfinite(fit.khat) and 0 < m < weights.size and weights[m] > 0:
        found = gpd_fit(weights[:m] - weights[m])
        title = f"khat {found.k:.2f} ± {found.k_std_error:.2f}: {word}, from the largest {m} of {n} weights"
        if fit.status is not Status.OK:
            title += f" ({fit.status})"
    ax = axes_of(ax, title, *labels)
    ax.set_xscale("log")
    ax.set_yscale("log")
    rest = ranks if found is None else ranks[ranks >= m]
    ax.plot(weights[rest], (rest + 0.5) / n, ".", color=GREY, markersize=3, label="weights")
    if found is not None:
        _draw_fit(ax, weights, ranks[ranks < m], n, m, found.k, found.sigma)
    largest_drawn = weights[0] * 3
    smallest = np.quantile(weights[weights > 0], 0.3)
    ax.set_xlim(min(smallest, largest_drawn / 10), largest_drawn)
    ax.set_ylim(0.3 / n, 1.3)
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    return ax


def _draw_fit(ax: Axes, weights: Floats, tail: Any, n: int, m: int, k: float, sigma: float) -> None:
    threshold, paint = weights[m], bands.band_of(k).paint

    def quantile(survival: Any) -> Any:
        with np.errstate(over="ignore"):
            x = -np.log(survival) if k == 0 else np.expm1(-k * np.log(survival)) / k
        return np.minimum(threshold + sigma * x, 1e3 * weights[0])

    share = np.geomspace(1.0, 0.1 / m, 200)
    ranks = drawn(m)
    ends = [betaincinv(ranks + 1.0, m - ranks, p) for p in (0.975, 0.025)]
    ax.fill_betweenx(
        (ranks + 0.5) / n,
        *map(quantile, ends),
        color=paint,
        alpha=0.2,
        linewidth=0,
        label="95 % of draws from it",
    )
    ax.plot(quantile(share), share * m / n, color=paint, linewidth=1.5, label="fitted Pareto")
    ax.plot(weights[tail], (tail + 0.5) / n, ".", color=ink(), markersize=4, label="weights of the tail")
    ax.axvline(threshold, color=ink(), linewidth=0.8, linestyle=":", label="threshold")


def weight_concentration(log_w: Any, *, ax: Axes | None = None) -> Axes:
    """Draw which share of all weight the largest draws have: a Lorenz curve from the top.

    Parameters
    ----------
    log_w : array_like, shape (n,)
        Log weights of one row, raw, smoothed or tempered.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        The share of the weight against the number of draws, largest first, on a logarithmic scale. The
        shares of the largest draw, ten, a hundred and so on are named.

    Raises
    ------
    ValueError
        If `log_w` is not one row of draws, or has no weight, or NaN.

    Notes
    -----
    * It asks `isdiag.temper` for normalised weights. The thousand largest are drawn one by one.

    References
    ----------
    [Owen2013]_, section 9.3.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag import plots
    >>> ax = plots.weight_concentration(np.random.default_rng(1).normal(scale=3.0, size=2000))
    >>> ax.get_title(loc="left")
    'The largest of 2000 draws has 38.5 % of the weight'
    """
    shares = np.exp(temper(one_row(log_w)))
    if not np.isfinite(shares).all() or not shares.any():
        msg = "log_w must have weight and no NaN or +inf, so that shares are known"
        raise ValueError(msg)
    total = np.minimum(np.cumsum(np.sort(shares)[::-1]), 1.0)
    n = total.size
    title = f"The largest of {n} draws has {100 * total[0]:.3g} % of the weight"
    ax = axes_of(ax, title, "draws, the largest first", "share of the weight")
    at = drawn(n)
    ax.set_xscale("log")
    ax.plot(at + 1, total[at], color=BLUE, linewidth=1.8, label="these weights")
    ax.plot(at + 1, (at + 1) / n, "--", color=GREY, linewidth=1, label="equal weights")
    for count in 10 ** np.arange(int(np.log10(n)) + 1):
        if count < n:
            ax.plot(count, total[count - 1], "o", color=BLUE, markersize=5)
            name = f"{count}: {100 * total[count - 1]:.3g} %"
            below = -9 if total[count - 1] > 0.05 else 6
            place: dict[str, Any] = {"xytext": (6, below)}
            if 4 * count >= n:
                place = {"xytext": (-6, 4), "ha": "right"}
            ax.annotate(
                name, (count, total[count - 1]), textcoords="offset points", fontsize="small", **place
            )
    ax.set_ylim(0, 1.05)
    ax.legend(frameon=False, fontsize="small", loc="upper left" if total[0] < 0.5 else "center left")
    return ax
