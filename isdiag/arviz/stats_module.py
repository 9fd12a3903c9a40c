"""ArviZ's `stats.module` on the kernels of isdiag."""

# ArviZ has no annotations.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportMissingParameterType=false

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import xarray
from arviz_base import rcParams
from arviz_stats.base.array import BaseArray, process_ary_axes
from arviz_stats.base.dataarray import BaseDataArray
from arviz_stats.validate import validate_dims, validate_dims_chain_draw_axis

import isdiag
from isdiag._core.boundary import rows_of
from isdiag._core.leave_one_out import predictive
from isdiag.arviz.labelled import by_rows, check_whole, last


def _efficiency(r_eff: Any) -> Any:
    # Where it is not above 0, NaN among them, ArviZ takes the longest tail, n / 5.
    r_eff = np.asarray(r_eff, np.float64)
    return np.where(r_eff > 0.0, r_eff, np.finfo(np.float64).tiny)


def _predictive(log_lik: Any, log_weights: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """Logs of the weighted sum and of the mean of likelihoods."""
    surprise, weights = rows_of(-log_lik, axes, None), rows_of(log_weights, axes, None)
    found = predictive(surprise.values, weights.values)
    return tuple(each.reshape(surprise.batch_shape) for each in found)


class _Arrays(BaseArray):
    """ArviZ's functions of arrays, of which those that smooth weights are isdiag's."""

    def psislw(self, ary: Any, r_eff: Any = 1, axis: Any = -1) -> tuple[Any, Any]:
        """Smoothed log-weights of log-likelihoods, the axes moved to the end, and khat."""
        ary, axes = process_ary_axes(ary, axis)
        found = isdiag.psis(-ary, r_eff=_efficiency(r_eff), axis=last(list(axes)))
        return found.log_weights, found.khat

    def _ps_tail(
        self,
        ary: Any,
        n_draws: Any,
        n_draws_tail: Any,
        smooth_draws: bool = False,
        tail: str = "both",
        log_weights: bool = False,
    ) -> tuple[Any, Any]:
        # By which ArviZ's functions of one row, psense among them, smooth log-weights.
        if not log_weights:
            return super()._ps_tail(ary, n_draws, n_draws_tail, smooth_draws, tail)
        found = isdiag.psis(ary, tail_length=max(int(n_draws_tail), 1))
        return found.log_weights, found.khat


class _DataArrays(BaseDataArray):
    """The same on DataArrays, in memory or in chunks."""

    def __init__(self) -> None:
        self.array_stats: Any = _Arrays()  # where ArviZ looks for functions of arrays
        super().__init__(array_class=self.array_stats)

    def __repr__(self) -> str:
        return "isdiag.arviz.backend"

    def psislw(self, da: Any, r_eff: Any = 1, dim: Any = None) -> Any:
        """Smoothed log-weights of log-likelihoods and khat."""
        dims = validate_dims(dim)
        check_whole(da, dims)

        def of_arrays(a: Any, efficiency: Any) -> Any:
            return self.array_stats.psislw(a, efficiency, axis=last(dims))

        return by_rows(
            of_arrays,
            da,
            r_eff,
            core=[dims, []],
            out=[dims, []],
            dtypes=[np.result_type(da.dtype, np.float16), float],
        )

    def loo(
        self,
        da: Any,
        sample_dims: Any = None,
        r_eff: Any = 1.0,
        log_weights: Any = None,
        pareto_k: Any = None,
        log_jacobian: Any = None,
    ) -> Any:
        """Pointwise elpd, khat and effective number of parameters."""
        dims, *_ = validate_dims_chain_draw_axis(sample_dims)
        if log_weights is None or pareto_k is None:
            log_weights, pareto_k = self.psislw(da, r_eff, dims)
        check_whole(da, dims)

        def of_arrays(a: Any, weights: Any) -> Any:
            return _predictive(a, weights, last(dims))

        elpd_i, lppd_i = by_rows(
            of_arrays,
            da,
            log_weights,
            core=[dims, dims],
            out=[[], []],
            dtypes=[float, float],
            join="left",
        )
        # As a Dataset, so that chunks are computed once for all three.
        found = xarray.Dataset({"elpd": elpd_i, "khat": pareto_k, "p": lppd_i - elpd_i}).compute()
        elpd_i, pareto_k, p_loo_i = (found[name].rename(da.name) for name in ("elpd", "khat", "p"))
        return elpd_i if log_jacobian is None else elpd_i + log_jacobian, pareto_k, p_loo_i

    def loo_approximate_posterior(
        self, da: Any, log_p: Any, log_q: Any, sample_dims: Any = None, log_jacobian: Any = None
    ) -> Any:
        """The same by draws of log_q that stand for log_p."""
        dims, *_ = validate_dims_chain_draw_axis(sample_dims)
        log_weights, pareto_k = self.psislw(da - (log_p - log_q), dim=dims)
        return self.loo(da, dims, 1.0, log_weights, pareto_k, log_jacobian)


#: For ``rcParams["stats.module"]`` of ArviZ: its functions, of which those that smooth weights are isdiag's.
backend = _DataArrays()


class _Restoring:
    def __init__(self, before: Any) -> None:
        self._before = before

    def __enter__(self) -> Any:
        return backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        rcParams["stats.module"] = self._before


def use() -> _Restoring:
    """Let ArviZ smooth weights by isdiag: from this call on, or within a ``with`` statement.

    Returns
    -------
    context manager
        Puts ArviZ's former ``stats.module`` back when it is left.

    Notes
    -----
    * Numbers are those of ArviZ up to rounding, in `loo`, `loo_pit`, `loo_expectations`, `loo_score`,
      `loo_subsample`, `loo_moment_match`, `loo_approximate_posterior`, `reloo`, `lfo_cv`, `psense` and the
      accessor ``.azstats``.
    * Where ArviZ raises for the whole batch one column comes back by its own: equal weights with khat -inf, a
      tail that cannot be fitted with inf, fewer than 30 draws with NaN; their weights are not smoothed.
    * NaN or +inf in a column gives NaN there, and one `isdiag.NonFiniteWarning`.
    * Chunked (dask) arrays are taken, with all draws of an observation in one chunk.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray
    >>> import isdiag.arviz
    >>> draws = np.random.default_rng(1).normal(size=(4, 1000, 3)) * [0.0, 0.5, 2.0]
    >>> log_lik = xarray.DataArray(draws, dims=("chain", "draw", "day"))
    >>> with isdiag.arviz.use():
    ...     log_weights, khat = log_lik.azstats.psislw()
    >>> khat.values.round(2)
    array([-inf, 0.07, 0.74])
    """
    before = rcParams["stats.module"]
    rcParams["stats.module"] = backend
    return _Restoring(before)
