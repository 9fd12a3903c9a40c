"""Leave-one-out in one call, with what it is worth, in memory or block by block."""

# ArviZ has no annotations, xarray few.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import xarray
from arviz_base import rcParams
from arviz_stats import utils
from arviz_stats.base.array import array_stats

from isdiag._core import bands, chains, tails
from isdiag._core.boundary import real_array, rows_of
from isdiag._core.check import one_of
from isdiag._core.leave_one_out import leave_one_out
from isdiag._core.result import warn_not_finite
from isdiag._core.typing import Floats, Records
from isdiag._kernels.records import LEFT_OUT
from isdiag.arviz.likelihoods import LogLikelihoods, computed, stored
from isdiag.arviz.stats_module import backend

_SCALES = {"log": 1.0, "negative_log": -1.0, "deviance": -2.0}
# Of log-likelihoods, so that what is computed of them stays in the second cache.
_CACHE_BYTES = 2**21
_TILE = 128
_ELPDData: Any = getattr(utils, "ELPDDataLOO", utils.ELPDData)  # by the version of ArviZ


@dataclass(frozen=True)
class _Smoothing:
    """Weights that nobody has asked for yet."""

    log_lik: Any
    r_eff: Any
    dims: list[Hashable]

    def __call__(self) -> Any:
        return backend.psislw(self.log_lik, self.r_eff, self.dims)[0]

    def __deepcopy__(self, _: Any) -> _Smoothing:
        return self


@dataclass(kw_only=True, repr=False)
class LeaveOneOut(_ELPDData):
    """ArviZ's `ELPDData` and what its numbers are worth.

    All that ArviZ takes an `ELPDData` for takes it: `compare`, `plot_khat`, `loo_pit`, `reloo`. What is of
    each observation is a DataArray, or None if not ``pointwise``. What ArviZ makes of it (`loo_moment_match`,
    `reloo`) has other `elpd_i` and `pareto_k`, and the attributes below are still those of `loo`.

    Attributes
    ----------
    mcse : float
        Monte Carlo standard error of `elpd`, on its scale; NaN unless every khat is within `good_k`.
    mcse_i : DataArray
        Monte Carlo standard error of each `elpd_i`; below the truth where khat is above `good_k`.
    khat_std_error : DataArray
        Standard error of each `pareto_k`.
    n_eff_i : DataArray
        ESS of the smoothed weights times the relative efficiency; no evidence where khat is above `good_k`.
    r_eff : DataArray
        The relative efficiency of the likelihoods.
    p_loo_i : DataArray
        Effective number of parameters by observation.
    status : DataArray
        Codes of `isdiag.Status`.
    """

    mcse: float = np.nan
    mcse_i: Any = None
    khat_std_error: Any = None
    n_eff_i: Any = None
    r_eff: Any = None
    p_loo_i: Any = None
    status: Any = None

    @property
    def log_weights(self) -> Any:
        """Smoothed log-weights, made when they are first asked for."""
        if isinstance(self._log_weights, _Smoothing):
            self._log_weights = self._log_weights()
        return self._log_weights

    @log_weights.setter
    def log_weights(self, value: Any) -> None:
        self._log_weights = value

    def __str__(self) -> str:
        """As ArviZ prints it, and the Monte Carlo standard error."""
        moved = self.pareto_k is not None and bool((self.pareto_k <= self.good_k).all())
        why = "of draws that were moved since" if moved else "khat of some is too high"
        known = f"{self.mcse:.2f}" if self.mcse == self.mcse else f"unknown: {why}"
        return f"{super().__str__().rstrip()}\n\nMonte Carlo SE of {self.scale} score: {known}\n"


def loo(
    data: Any,
    *,
    var_name: str | None = None,
    pointwise: bool | None = None,
    reff: Any = None,
    scale: str | None = None,
    log_lik_fn: Callable[[Any, Any], Any] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> LeaveOneOut:
    """Pareto smoothed importance sampling leave-one-out cross-validation.

    Parameters
    ----------
    data : DataTree or DataArray
        What ArviZ's `loo` takes, with a group ``log_likelihood``; or the log-likelihood itself, with the dims
        ``chain``, ``draw`` and those of the observations. In chunks (dask), with all draws of an observation
        in one chunk, it is worked on chunk by chunk.
    var_name : str, optional
        The variable of ``log_likelihood``, or of ``observed_data`` for `log_lik_fn`, where there are several.
    pointwise : bool, optional
        Whether to keep what is of each observation; default ArviZ's ``rcParams["stats.ic_pointwise"]``.
    reff : float or DataArray, optional
        Relative efficiency of the draws, ESS over n, one or by observation. By default that of the
        likelihoods of each observation, as in R's loo; ArviZ's `loo` takes one number, of the parameters.
    scale : {"log", "negative_log", "deviance"}, optional
        ``elpd`` as it is, times -1 or times -2; default "log", which ArviZ's `compare` expects.
    log_lik_fn : callable, optional
        ``log_lik_fn(observed, data)`` gives the log-likelihood of some observations, with the dims
        ``chain``, ``draw`` and those of ``observed``, instead of the group. It is called block by block:
        ``observed`` and the groups ``observed_data`` and ``constant_data`` are of those of the block.
    workers : int, default 1
        Threads to spread the observations over; -1 for one per CPU. Results do not depend on it.
    progress : bool, default False
        Show a progress bar; needs rich.

    Returns
    -------
    LeaveOneOut
        An `ELPDData` of ArviZ. Its ``log_weights`` are made when they are first asked for, in chunks where
        the log-likelihood is; for `log_lik_fn` they are None.

    Raises
    ------
    TypeError
        If `data` has no log-likelihood, or several and `var_name` is missing.
    ValueError
        If it has no draws, or those of an observation lie in several chunks; if `reff` or what `log_lik_fn`
        returns does not fit.

    Warns
    -----
    UserWarning
        If the khat of an observation is above ``khat_threshold(n)`` or unknown.
    NonFiniteWarning
        If a log-likelihood is not finite: NaN for that observation, and for what is summed over all.

    Notes
    -----
    * Beyond its arguments it takes the memory of a chunk, or of blocks of 16 MB.
    * A draw moves the elpd of an observation with likelihoods p by ``w * (p / mean - 1)``. The root of the
      squares, over the root of the relative efficiency, is the Monte Carlo error; that of `elpd` is of the
      sum of these over the observations, which share their draws. R's loo takes the errors of observations
      to be independent and found 70 to 80 % of the error in two models where it is known.
    * A tail of fewer than 6 draws, equal weights and ties are no errors; see `isdiag.psis`.

    References
    ----------
    [Vehtari2017]_, [Vehtari2024]_.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray
    >>> import isdiag.arviz
    >>> rng = np.random.default_rng(1)
    >>> y = rng.normal(size=50)  # of N(mu, 1), whose posterior is N(mean(y), 1/50)
    >>> mu = rng.normal(y.mean(), 50**-0.5, size=(4, 1000, 1))
    >>> log_lik = xarray.DataArray(-((y - mu) ** 2) / 2, dims=("chain", "draw", "day"))
    >>> result = isdiag.arviz.loo(log_lik)
    >>> print(f"{result.elpd:.2f}, of the draws +- {result.mcse:.3f}")  # exact: -20.31
    -20.32, of the draws +- 0.021
    """
    scale = "log" if scale is None else scale
    one_of("scale", scale, tuple(_SCALES))
    source = stored(data, var_name) if log_lik_fn is None else computed(data, var_name, log_lik_fn)
    like, draws = source.like, tuple(source.draws.values())
    given = None if reff is None else _by_observation(reff, like)
    found = np.empty(like.shape, LEFT_OUT)
    r_eff = np.empty(like.shape)
    influence = np.zeros(source.n)
    rows_at_once = max(_CACHE_BYTES // (8 * source.n), 1)
    memory = np.empty((2, rows_at_once, source.n))  # anew for each block it would cost more than the work
    with _bar(progress, like.size) as advance:
        for place, stored_values in source.blocks():
            values, dtype = real_array(stored_values, "log_likelihood")
            shape = values.shape[: like.ndim]
            log_lik = values.reshape(-1, *draws)
            resolution = float(np.finfo(np.result_type(dtype, np.float16)).eps)
            records, efficiency = np.empty(len(log_lik), LEFT_OUT), np.empty(len(log_lik))
            efficiency[:] = np.nan if given is None else given[place].ravel()
            for first in range(0, len(log_lik), rows_at_once):
                part = slice(first, first + rows_at_once)
                block = log_lik[part]
                surprise = memory[0, : len(block)]
                _negative(block, surprise.reshape(block.shape))
                if given is None:
                    likelihood = memory[1, : len(block)]
                    efficiency[part] = _efficiency_of_likelihoods(surprise, draws[-1], likelihood)
                rows = replace(rows_of(surprise, -1, None), eps=resolution)
                lengths = tails.lengths_of(rows, _one_where_unknown(efficiency[part]))
                records[part] = leave_one_out(rows, lengths, surprise, workers)
                influence += surprise.sum(axis=0)
                advance(len(block))
            found[place], r_eff[place] = records.reshape(shape), efficiency.reshape(shape)
    warn_not_finite(found["status"].ravel(), depth=2, words="have a log-likelihood that is not finite")
    result = _result(found, r_eff, _error_of_sum(influence, draws[-1]), source, scale, pointwise)
    if result.warning:
        _warn_khat(found["khat"], result.good_k)
    return result


def _negative(x: Any, out: Floats) -> None:
    # Draws of an observation lie far apart where observations are the last axis: of all at once each would be
    # fetched anew for the next observation, of a few it is still there, which takes a third of the time.
    for start in range(0, x.shape[-1], _TILE):
        part = slice(start, start + _TILE)
        np.negative(x[..., part], out=out[..., part])


def _by_observation(reff: Any, like: Any) -> Floats:
    """One number for each observation."""
    given = reff if isinstance(reff, xarray.DataArray) else xarray.DataArray(reff)
    unknown = [dim for dim in given.dims if dim not in like.dims]
    if unknown:
        msg = f"reff has the dim {unknown[0]!r}, and the observations have {tuple(like.dims)}"
        raise ValueError(msg)
    _, given = xarray.align(like, given, join="exact")
    _, given = xarray.broadcast(like, given)
    found = np.asarray(given.transpose(*like.dims).values, np.float64)
    bad = ~((found > 0.0) & (found < np.inf))
    if bad.any():
        msg = f"reff must be finite and above 0, got {found[bad][0]}"
        raise ValueError(msg)
    return found


def _efficiency_of_likelihoods(surprise: Floats, chain: int, likelihood: Floats) -> Floats:
    """Relative efficiency of the likelihoods of each observation, of chains one after the other."""
    with np.errstate(invalid="ignore"):
        np.subtract(surprise.min(axis=1, keepdims=True), surprise, out=likelihood)
    return chains.efficiency(np.exp(likelihood, out=likelihood), chain)


def _one_where_unknown(r_eff: Floats) -> Floats:
    # Of chains of three draws, or of likelihoods that are not finite: they still have a tail.
    return np.where(np.isnan(r_eff), 1.0, r_eff)


def _error_of_sum(influence: Floats, chain: int) -> float:
    """The error of a sum, of how each draw moves it."""
    return float(np.sqrt((influence**2).sum() / chains.efficiency(influence[None], chain)[0]))


@contextmanager
def _bar(shown: bool, total: int) -> Generator[Callable[[int], None]]:
    """What is told of so many observations more that are done."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import Progress  # noqa: PLC0415 -- of the extra cli

    with Progress() as bar:
        task = bar.add_task("leave-one-out", total=total)
        yield lambda count: bar.advance(task, count)


def _warn_khat(khat: Floats, good_k: float) -> None:
    bad = (~(khat <= good_k)).sum()
    msg = (
        f"khat of {bad} of {khat.size} observations is above {good_k:.2f} or unknown: their elpd is not to "
        "be relied on. Refit without them (reloo), match moments (loo_moment_match) or use a robust model."
    )
    warnings.warn(msg, UserWarning, stacklevel=3)


def _result(
    found: Records,
    r_eff: Floats,
    mcse: float,
    source: LogLikelihoods,
    scale: str,
    pointwise: bool | None,
) -> LeaveOneOut:
    factor = _SCALES[scale]
    like, good_k = source.like, float(bands.khat_threshold(source.n))
    elpd_i, p_loo_i = found["elpd"], found["lppd"] - found["elpd"]
    mcse_i = found["error"] / np.sqrt(r_eff)
    reliable = bool((found["khat"] <= good_k).all())
    elpd, se, p_loo, _ = array_stats.loo_summary(elpd_i, p_loo_i)
    totals: dict[str, Any] = {
        "kind": "loo",
        "elpd": factor * elpd,
        "se": abs(factor) * se,
        "p": p_loo,
        "n_samples": source.n,
        "n_data_points": like.size,
        "scale": scale,
        "warning": not reliable,
        "good_k": good_k,
        "log_weights": None
        if source.whole is None
        else _Smoothing(source.whole, like.copy(data=_one_where_unknown(r_eff)), list(source.draws)),
        "mcse": abs(factor) * mcse if reliable else np.nan,
    }
    of_each = {
        "elpd_i": factor * elpd_i,
        "pareto_k": found["khat"],
        "mcse_i": abs(factor) * mcse_i,
        "khat_std_error": found["khat_std_error"],
        "n_eff_i": found["ess"] * r_eff,
        "r_eff": r_eff,
        "p_loo_i": p_loo_i,
        "status": found["status"],
    }
    if rcParams["stats.ic_pointwise"] if pointwise is None else pointwise:
        totals |= {name: like.copy(data=np.array(values)).rename(name) for name, values in of_each.items()}
    known = {field.name for field in fields(LeaveOneOut)}
    return LeaveOneOut(**{name: value for name, value in totals.items() if name in known})
