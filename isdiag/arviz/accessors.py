"""`.isdiag` on DataArrays, Datasets and DataTrees of log-weights."""

# xarray annotates its functions only in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, cast

import numpy as np
import xarray

import isdiag
from isdiag._core.result import LIMITS, Result
from isdiag.arviz.labelled import SAMPLE_DIMS, by_rows, check_whole, last, names_of, sample_dims

Dim = Hashable | Sequence[Hashable] | None

# Of what is no float64; weights keep the dtype of the log-weights.
_WORDS = f"<U{max(map(len, LIMITS))}"
_DTYPES: dict[str, Any] = {
    "n": np.int64,
    "tail_length": np.int64,
    "status": np.int8,
    "limited_by": _WORDS,
    "ok": np.bool_,
    "verdict": "<U18",
}
# Options that may be given for each row.
_BY_ROW = ("gamma", "r_eff")


@dataclass(frozen=True)
class _Call:
    """A function of log-weights, and what of its result is kept.

    Attributes
    ----------
    function : callable
        Takes log-weights and `axis`.
    kept : mapping
        Where in the result each variable is found; empty if that is one number for each row.
    of_h : tuple of str
        Those that have the axes of h.
    """

    function: Callable[..., Any]
    kept: Mapping[str, str]
    of_h: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any], result: type[Result], of_h: str = "") -> _Call:
        """Keeps every field of the result."""
        names = [field.name for field in fields(cast("Any", result))]
        return cls(function, dict(zip(names, names, strict=True)), tuple(of_h.split()))

    def __call__(self, log_w: Any, dim: Dim, h: Any, options: dict[str, Any]) -> Any:
        """A DataArray of the number, or a Dataset of what is kept."""
        dims = sample_dims(log_w, dim)
        own = [] if h is None else _own_dims(h, log_w, dims)
        by_row = {name: options[name] for name in _BY_ROW if isinstance(options.get(name), xarray.DataArray)}
        shared = {name: value for name, value in options.items() if name not in (*by_row, "where")}
        arrays, core = dict(by_row), [dims, *([] for _ in by_row)]
        if options.get("where") is not None:
            arrays["where"] = _like(options["where"], log_w)
            core.append(dims)
        if h is not None:
            arrays["h"] = h
            core.append([*dims, *own])

        def compute(a: Any, *others: Any) -> Any:
            given = dict(zip(arrays, others, strict=True))
            if h is not None:
                values = given["h"]
                given["h"] = np.broadcast_to(values, a.shape + values.shape[values.ndim - len(own) :])
            result = self.function(a, axis=last(dims), **shared, **given)
            if not self.kept:
                return result
            return tuple(np.asarray(attrgetter(at)(result)) for at in self.kept.values())

        names = tuple(self.kept) or ("",)
        q = np.asarray(options.get("q", 0.5), float)
        new = {"quantile": q.size} if q.ndim else {}
        of_h = [*own, *new]
        found = by_rows(
            compute,
            log_w,
            *arrays.values(),
            core=core,
            out=[dims if name == "log_weights" else of_h if name in self.of_h else [] for name in names],
            dtypes=[_float(log_w) if name == "log_weights" else _DTYPES.get(name, float) for name in names],
            sizes=new,
        )
        if not self.kept:
            return found
        kept = dict(zip(names, found, strict=True))
        if "log_weights" in kept:
            kept["log_weights"] = kept["log_weights"].transpose(*log_w.dims)
        return xarray.Dataset(kept, {"quantile": q} if new else None, log_w.attrs)


def _own_dims(h: Any, log_w: Any, dims: list[Hashable]) -> list[Hashable]:
    """The dims of h beside those of the draws and of the rows."""
    if not isinstance(h, xarray.DataArray):
        msg = f"h must be a DataArray or a Dataset, got {type(h).__name__}"
        raise TypeError(msg)
    missing = [each for each in dims if each not in h.dims]
    if missing:
        msg = f"h must have the dims of the draws, {dims}, and has {list(h.dims)}"
        raise ValueError(msg)
    check_whole(h, dims)
    return [each for each in h.dims if each not in log_w.dims]


def _like(where: Any, log_w: Any) -> Any:
    if not isinstance(where, xarray.DataArray):
        msg = f"where must be a DataArray, got {type(where).__name__}"
        raise TypeError(msg)
    return where.broadcast_like(log_w)


def _float(log_w: Any) -> Any:
    return np.result_type(log_w.dtype, np.float16)


_KHAT = _Call(isdiag.pareto_khat, {})
_ESS = _Call(isdiag.ess, {})
_PSIS = _Call.of(isdiag.psis, isdiag.PSIS)
_GAMMA = _Call.of(isdiag.select_gamma, isdiag.GammaSelection)
_ACCURATE = _Call.of(
    isdiag.select_gamma,
    isdiag.AccurateSelection,
    "estimate std_error bias mse error_draws status low high",
)
_SNIS = _Call.of(isdiag.snis, isdiag.SNIS, "estimate std_error bias status low high")
_QUANTILE = _Call.of(isdiag.quantile, isdiag.Quantile, "estimate low high std_error status")
_OF_ROWS = {
    name: name for name in ("ok", "verdict", "status", "khat", "ess", "n", "max_weight", "k_max", "gamma")
} | {"limited_by": "selection.limited_by"}
_OF_ESTIMATES = {name: f"estimate.{name}" for name in ("estimate", "std_error", "low", "high")}
_WEIGHTS = _Call(isdiag.diagnose, _OF_ROWS)
_ESTIMATE = _Call(isdiag.diagnose, _OF_ROWS | _OF_ESTIMATES, ("ok", "verdict", "status", *_OF_ESTIMATES))


@xarray.register_datatree_accessor("isdiag")
@xarray.register_dataset_accessor("isdiag")
@xarray.register_dataarray_accessor("isdiag")
class Accessor:
    """``log_w.isdiag``: the functions of isdiag on a DataArray, a Dataset or a DataTree of log-weights.

    Of a Dataset they are called on each variable that has the dims of the draws, of a DataTree on each group
    that has some. Results keep coordinates and attributes. Of chunked (dask) arrays they are lazy, and all
    draws of a row must lie in one chunk. `where` is a DataArray, if given; `resample` is never lazy.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray
    >>> import isdiag.arviz
    >>> draws = np.random.default_rng(1).normal(size=(4, 250, 2)) * [0.5, 2.0]
    >>> log_w = xarray.DataArray(draws, dims=("chain", "draw", "school"))
    >>> log_w.isdiag.khat().round(2).values
    array([0.11, 0.75])
    >>> log_w.isdiag.diagnose()["verdict"].values.tolist()
    ['sound', 'too small an error']
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def _call(self, call: _Call, dim: Dim, options: dict[str, Any], h: Any = None) -> Any:
        def one(log_w: Any, h: Any) -> Any:
            if isinstance(h, xarray.Dataset):
                each = {str(name): call(log_w, dim, h[name], options) for name in h.data_vars}
                return _tree(each)
            return call(log_w, dim, h, options)

        return _each(self._data, one, dim, h)

    def khat(self, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.pareto_khat`: the shape of the tail.

        Parameters
        ----------
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.pareto_khat`; `gamma` and `r_eff` may be DataArrays.

        Returns
        -------
        DataArray, Dataset or DataTree
            As the log-weights, without the dims of the draws.
        """
        return self._call(_KHAT, dim, options)

    def ess(self, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.ess`: how many draws the weights are worth.

        Parameters
        ----------
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.ess`; `gamma` may be a DataArray.

        Returns
        -------
        DataArray, Dataset or DataTree
            As the log-weights, without the dims of the draws.
        """
        return self._call(_ESS, dim, options)

    def psis(self, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.psis`: smoothed log-weights, khat, ESS and status.

        Parameters
        ----------
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.psis`; `r_eff` may be a DataArray.

        Returns
        -------
        Dataset or DataTree
            The fields of `isdiag.PSIS`; a node for each variable of a Dataset.
        """
        return self._call(_PSIS, dim, options)

    def select_gamma(self, dim: Dim = None, *, h: Any = None, **options: Any) -> Any:
        """`isdiag.select_gamma`: how far to lean on the weights.

        Parameters
        ----------
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        h : DataArray or Dataset, optional
            Values at the draws, for ``rule="mse"``.
        **options
            As of `isdiag.select_gamma`; `r_eff` may be a DataArray.

        Returns
        -------
        Dataset or DataTree
            The fields of `isdiag.GammaSelection`, by ``rule="mse"`` of `isdiag.AccurateSelection`; a node for
            each variable of a Dataset.
        """
        return self._call(_ACCURATE if options.get("rule") == "mse" else _GAMMA, dim, options, h)

    def snis(self, h: Any, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.snis`: the mean of h under the weights, and its error.

        Parameters
        ----------
        h : DataArray or Dataset
            Values at the draws. Dims that the log-weights have not are of its own.
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.snis`; `gamma` and `r_eff` may be DataArrays. With ``draws="mcmc"`` the last dim is
            the order of the draws.

        Returns
        -------
        Dataset or DataTree
            The fields of `isdiag.SNIS`; a node for each variable of a Dataset.
        """
        return self._call(_SNIS, dim, options, h)

    def quantile(self, h: Any, q: Any, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.quantile`: quantiles of h under the weights, with intervals.

        Parameters
        ----------
        h : DataArray or Dataset
            Values at the draws. Dims that the log-weights have not are of its own.
        q : float or sequence of float
            Shares between 0 and 1; those of a sequence lie along the dim ``quantile``.
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.quantile`; `r_eff` may be a DataArray.

        Returns
        -------
        Dataset or DataTree
            The fields of `isdiag.Quantile`; a node for each variable of a Dataset.
        """
        return self._call(_QUANTILE, dim, {"q": q, **options}, h)

    def resample(self, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.resample`: positions of draws in proportion to the weights, in memory.

        Parameters
        ----------
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.resample`.

        Returns
        -------
        DataArray, Dataset or DataTree
            Positions along the dim, or in the stack of the dims in their order, along a dim ``resampled``.
        """

        def one(log_w: Any, _: Any) -> Any:
            dims = sample_dims(log_w, dim)
            stacked = log_w.transpose(..., *dims).compute()
            given = dict(options)
            if given.get("where") is not None:
                given["where"] = _like(given["where"], stacked).values
            positions = isdiag.resample(stacked.values, axis=last(dims), **given)
            like = stacked.isel(dict.fromkeys(dims, 0), drop=True)
            return like.expand_dims(resampled=positions.shape[-1], axis=-1).copy(data=positions)

        return _each(self._data, one, dim, None)

    def diagnose(self, h: Any = None, dim: Dim = None, **options: Any) -> Any:
        """`isdiag.diagnose`: whether an estimate can be believed, and gamma for a step.

        Parameters
        ----------
        h : DataArray or Dataset, optional
            Values at the draws, whose mean is estimated.
        dim : str or sequence of str, optional
            Along which the draws lie; default ``chain`` and ``draw``.
        **options
            As of `isdiag.diagnose`; `r_eff` may be a DataArray.

        Returns
        -------
        Dataset or DataTree
            What stands in the report, and with h the estimates; a node for each variable of a Dataset.
        """
        return self._call(_WEIGHTS if h is None else _ESTIMATE, dim, options, h)


def _each(data: Any, function: Callable[..., Any], dim: Dim, h: Any) -> Any:
    """The results of ``function(log_w, h)`` for every array of log-weights."""
    if isinstance(data, xarray.DataArray):
        return function(data, h)
    if isinstance(data, xarray.DataTree):
        groups = {node.path.rstrip("/"): node.to_dataset() for node in data.subtree if _has_draws(node, dim)}
        if not groups:
            msg = f"no group has draws along {dim or SAMPLE_DIMS}: {list(data.groups)}"
            raise ValueError(msg)
        return _tree({path: _each(group, function, dim, h) for path, group in groups.items()})
    dims = sample_dims(data, dim)
    arrays = {name: array for name, array in data.data_vars.items() if set(dims) <= set(array.dims)}
    by_name = isinstance(h, xarray.Dataset)
    if by_name and not set(arrays) <= set(h.data_vars):
        msg = f"h must have the variables {list(arrays)}, got {list(h.data_vars)}"
        raise ValueError(msg)
    result = _tree({str(name): function(array, h[name] if by_name else h) for name, array in arrays.items()})
    result.attrs = data.attrs
    return result


def _has_draws(of: Any, dim: Dim) -> bool:
    if dim is None:
        return any(each in of.dims for each in SAMPLE_DIMS)
    return set(names_of(dim)) <= set(of.dims)


def _tree(found: dict[str, Any]) -> Any:
    """Results by path as one: a Dataset of DataArrays, else a tree."""
    if all(isinstance(each, xarray.DataArray) for each in found.values()):
        return xarray.Dataset(found)
    nodes: dict[str, Any] = {}
    for path, each in found.items():
        if isinstance(each, xarray.DataTree):
            nodes |= {f"{path}/{node.path.lstrip('/')}": node.to_dataset() for node in each.leaves}
        else:
            nodes[path] = each
    return xarray.DataTree.from_dict(nodes)
