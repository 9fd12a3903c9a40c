"""Pictures along gamma: what it costs and what it buys, and log Z on the way."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# Matplotlib says no types of its **kwargs.

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from isdiag import GeometricPath, LogZ, MSECurve, Status, ess, pareto_khat, select_gamma
from isdiag._core.bands import GOOD_KHAT, Constraints
from isdiag._core.typing import StabilityRule
from isdiag.plots._style import BLUE, GREY, MARKERS, axes_of, band_colours, flat, ink, one_row

_GAMMAS = 20
_BELOW_LEGEND = 0.75  # of the height of a picture


def gamma_curve(
    log_w: Any,
    *,
    k_max: float | None = GOOD_KHAT,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: StabilityRule = "joint",
    r_eff: float = 1.0,
    tail_length: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw ESS and the re-fitted khat of ``w**gamma`` against gamma, the limits, and the gamma chosen.

    Parameters
    ----------
    log_w : array_like, shape (n,)
        Log importance weights of one row, up to a constant.
    k_max : float or None, default 0.7
        Largest khat allowed, as in `isdiag.select_gamma`, which chooses.
    ess_min : float, default 0.3
        Smallest ``ESS / n`` allowed.
    gamma_max : float, default 1
        Largest gamma allowed, and drawn.
    rule : {"joint", "refit"}, default "joint"
        How gamma is chosen.
    r_eff : float, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `isdiag.tail_length`.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        ESS as a share of n and khat on one scale; beyond the gamma chosen the picture is shaded.

    Raises
    ------
    ValueError
        If `log_w` is not one row of draws, or as `isdiag.select_gamma` does.

    Notes
    -----
    * At 20 gammas it asks `isdiag.ess` and `isdiag.pareto_khat`, which fits khat anew. The rule "joint" does
      not: it may choose a gamma at which khat is still above its limit.

    References
    ----------
    As in `isdiag.select_gamma`.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag import plots
    >>> ax = plots.gamma_curve(np.random.default_rng(1).normal(scale=3.0, size=1000))
    >>> ax.get_title(loc="left")
    'gamma 0.343, set by ess'
    """
    row = one_row(log_w)
    tail: dict[str, Any] = {"r_eff": r_eff, "tail_length": tail_length}
    chosen = select_gamma(row, k_max=k_max, ess_min=ess_min, gamma_max=gamma_max, rule=rule, **tail)
    allowed = Constraints(k_max).allowed_khat(np.array([row.size])).item()
    title = f"gamma {chosen.gamma:.3f}, set by {chosen.limited_by}"
    if chosen.status is not Status.OK:
        title += f" ({chosen.status})"
    ax = axes_of(ax, title, "gamma", "ESS / n, and khat")
    gammas = np.linspace(0.0, gamma_max, _GAMMAS + 1)[1:]
    ratio = np.array([ess(row, gamma=gamma) for gamma in gammas]) / row.size
    khat = np.array([pareto_khat(row, gamma=gamma, **tail) for gamma in gammas])
    ax.plot(gammas, ratio, color=BLUE, linewidth=1.8, label="ESS / n")
    ax.axhline(ess_min, color=BLUE, linewidth=1, linestyle="--", label=f"at least {ess_min:.3g}")
    known = np.isfinite(khat)
    ax.plot(gammas[known], khat[known], color=GREY, linewidth=1, zorder=1)
    for band, here in band_colours(khat):
        if np.any(here & known):
            paint: dict[str, Any] = {
                "color": band.paint,
                "marker": MARKERS[band.word],
                "linestyle": "none",
                "markersize": 5,
            }
            ax.plot(gammas[here], khat[here], **paint, label=f"khat: {band.word}")
    if np.isfinite(allowed):
        ax.axhline(allowed, color=GREY, linewidth=1, linestyle=":", label=f"khat at most {allowed:.2f}")
    if np.isfinite(chosen.gamma):
        ax.axvline(chosen.gamma, ymax=_BELOW_LEGEND, color=ink(), linewidth=1.5)
        ax.axvspan(chosen.gamma, gamma_max, ymax=_BELOW_LEGEND, color=GREY, alpha=0.15, linewidth=0)
    ax.set_xlim(0, gamma_max)
    low, high = khat[known].min(initial=0.0) - 0.05, khat[known].max(initial=1.0) + 0.05
    ax.set_ylim(low, low + (high - low) / _BELOW_LEGEND)
    ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=3)
    return ax


def mse_curve(curve: MSECurve, *, ax: Axes | None = None) -> Axes:
    """Draw the tempered estimate against gamma with its error, and the estimate that it is measured by.

    Parameters
    ----------
    curve : MSECurve
        Of one row and one h, see `isdiag.mse_curve`.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        Bars and the strip are 1.96 standard errors each way.

    Raises
    ------
    ValueError
        If the curve is of several rows or components.

    Notes
    -----
    * How far the dots are from the strip is the price of tempering, which more draws do not lower; the bars
      are what it buys.

    References
    ----------
    [Owen2013]_, section 9.2.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> from isdiag import plots
    >>> x = np.random.default_rng(1).normal(size=500)  # proposal N(0, 1), target N(2, 1)
    >>> ax = plots.mse_curve(isdiag.mse_curve(2 * x, x))
    >>> ax.get_title(loc="left")
    'Least expected error at gamma 0.9'
    """
    mse = np.asarray(curve.mse, np.float64)
    gammas = flat(curve.gamma)
    if mse.shape != gammas.shape:
        msg = f"curve must be of one row and one h, got mse of shape {mse.shape}"
        raise ValueError(msg)
    title = "The error is not known"
    order = np.argsort(gammas, kind="stable")
    best = int(np.argmin(np.where(np.isfinite(mse), mse, np.inf)))
    known = bool(np.isfinite(mse[best]))
    if known:
        title = f"Least expected error at gamma {gammas[best]:.3g}"
    ax = axes_of(ax, title, "gamma", "estimate of E[h]")
    estimate, reach = flat(curve.estimate), 1.96 * flat(curve.std_error)
    reference, around = float(curve.reference), 1.96 * float(curve.reference_std_error)
    ax.axhspan(reference - around, reference + around, color=GREY, alpha=0.2, linewidth=0)
    ax.axhline(reference, color=ink(), linewidth=1, linestyle="--", label="estimate of least error")
    ax.errorbar(
        gammas[order],
        estimate[order],
        yerr=reach[order],
        fmt="o-",
        color=BLUE,
        markersize=4,
        linewidth=1.2,
        label="estimate at gamma",
    )
    if known:
        ax.plot(gammas[best], estimate[best], "D", color=ink(), markersize=7, zorder=4, label="least error")
    ax.legend(frameon=False, fontsize="small", loc="best")
    return ax


def log_z(path: GeometricPath, total: LogZ | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw log Z along the geometric path with its error, and how far the draws of mu reach.

    Parameters
    ----------
    path : GeometricPath
        Of one row, see `isdiag.geometric_path`.
    total : LogZ, optional
        What `isdiag.stepping_stone` or `isdiag.thermodynamic` found for the target.
    ax : Axes, optional
        Where to draw; default new axes.

    Returns
    -------
    Axes
        Markers have the colour and the shape of the band of khat at their gamma. Bars are 1.96 standard
        errors each way; where khat is 1/2 or more they are too short.

    Raises
    ------
    ValueError
        If the path is of several rows.

    References
    ----------
    [Gelman1998]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> from isdiag import plots
    >>> x = np.random.default_rng(1).normal(size=2000)
    >>> path = isdiag.geometric_path(-(x**2) / 2, -((x - 3) ** 2) / 2, np.linspace(0, 1, 11))
    >>> ax = plots.log_z(path)
    >>> ax.get_title(loc="left")
    'khat is 0.5 or less up to gamma 0.5'
    """
    value, gammas = np.asarray(path.log_z, np.float64), flat(path.gammas)
    if value.shape != gammas.shape:
        msg = f"path must be of one row, got log_z of shape {value.shape}"
        raise ValueError(msg)
    khat, reach = flat(path.khat), 1.96 * flat(path.log_z_std_error)
    order = np.argsort(gammas, kind="stable")
    within = np.cumprod(khat[order] <= 0.5).astype(bool)
    title = "khat is above 0.5, or unknown, from the start"
    if within.any():
        title = f"khat is 0.5 or less up to gamma {gammas[order][within][-1]:.3g}"
    ax = axes_of(ax, title, "gamma", "log Z")
    ax.plot(gammas[order], value[order], color=GREY, linewidth=1, zorder=1)
    for band, here in band_colours(khat):
        paint: dict[str, Any] = {"color": band.paint, "fmt": MARKERS[band.word], "markersize": 5}
        ax.errorbar(gammas[here], value[here], yerr=reach[here], **paint, label=f"khat: {band.word}")
    if total is not None:
        ax.errorbar(
            1.0,
            float(total.estimate),
            yerr=1.96 * float(total.std_error),
            fmt="D",
            color=ink(),
            markersize=6,
            capsize=4,
            label="from draws along the path",
        )
    low, high = ax.get_ylim()
    ax.set_ylim(low, low + (high - low) / _BELOW_LEGEND)
    ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=3)
    return ax
