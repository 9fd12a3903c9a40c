"""The same calls on Dask arrays, lazily. Needs Dask: pip install 'isdiag[dask]'.

Many rows are worked on block by block, each row within one block. One long row, whose draws lie in many
blocks, is summed block by block, and the summaries are merged in a tree: no more of it than a block is ever
in one place. Any scheduler will do, and a worker that is lost costs its blocks once more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np

import isdiag
from isdiag import PSIS, SNIS, GammaSelection, Summary

__all__ = ["ess", "pareto_khat", "psis", "select_gamma", "snis", "summary"]

da: Any = import_module("dask.array")  # it has no types
delayed: Any = import_module("dask").delayed


def _merged(summaries: list[Any]) -> Summary:
    """One of several, each a summary or the only element of an array."""
    return reduce(Summary.merge, (each if isinstance(each, Summary) else each.item() for each in summaries))


def summary(
    log_w: Any,
    h: Any = None,
    *,
    gamma: float = 1.0,
    axis: int = -1,
    n_max: float = 1e9,
    split_every: int = 8,
) -> Any:
    """The summary of all draws, however they are cut into blocks.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Blocks that part the batch are joined; those along the sample axis stay as they are.
    h : dask array of log_w's shape, optional
        Values at the draws.
    gamma : float, default 1
        Exponent, >= 0, of the weights that h is summed with.
    axis : int, default -1
        The sample axis.
    n_max : float, default 1e9
        The most draws for which khat is to be known.
    split_every : int, default 8
        How many summaries are merged at a time.

    Returns
    -------
    dask.delayed.Delayed
        Its ``compute()`` is a `Summary`.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from isdiag import dask
    >>> log_w = da.from_array(np.linspace(-2.0, 0.0, 1000), chunks=100)
    >>> dask.summary(log_w).compute().n
    1000
    """
    x = _rows(log_w, axis)
    arrays = [x.rechunk(dict.fromkeys(range(x.ndim - 1), -1))]
    if h is not None:
        arrays.append(_rows(h, axis).rechunk(arrays[0].chunks))
    # By map_blocks, which is fused with what makes a block: no block is sent to another worker.
    chunks = (*[(1,)] * (x.ndim - 1), (1,) * arrays[0].numblocks[-1])
    options = {"gamma": gamma, "n_max": n_max}
    made = da.map_blocks(_of_block, *arrays, **options, dtype=object, chunks=chunks, meta=_NO_SUMMARY)
    level = made.to_delayed().ravel().tolist()
    at_a_time = max(split_every, 2)
    while True:
        level = [delayed(_merged)(level[i : i + at_a_time]) for i in range(0, len(level), at_a_time)]
        if len(level) == 1:
            return level[0]


_NO_SUMMARY = np.empty(0, object)


def _of_block(log_w: Any, h: Any = None, **options: Any) -> Any:
    held = np.empty((1,) * log_w.ndim, object)
    held[...] = Summary.of(log_w, h, **options)
    return held


def _rows(array: Any, axis: int) -> Any:
    if not isinstance(array, da.Array):
        msg = f"expected a dask array, got {type(array).__name__}: `isdiag` itself takes others"
        raise TypeError(msg)
    return da.moveaxis(array, axis, -1)


def _by_rows(
    function: Callable[..., Any],
    arrays: list[Any],
    axis: int,
    fields: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Each field of what the function gives of blocks of whole rows."""
    laid_out = [_rows(array, axis) for array in arrays]
    x = laid_out[0].rechunk({laid_out[0].ndim - 1: -1})
    grids = [x.to_delayed(), *(array.rechunk(x.chunks).to_delayed() for array in laid_out[1:])]
    call = delayed(function)
    sizes = x.chunks
    grid = grids[0].shape[:-1]
    blocks: dict[str, dict[tuple[int, ...], Any]] = {name: {} for name in fields}
    for index in np.ndindex(grid):
        result = call(*(each[(*index, 0)] for each in grids), **options)
        batch = tuple(sizes[k][i] for k, i in enumerate(index))
        for name, dtype in fields.items():
            shape = (*batch, x.shape[-1]) if name == "log_weights" else batch
            value = delayed(_field)(result, name)
            blocks[name][index] = da.from_delayed(value, shape, x.dtype if dtype is None else dtype)
    found = {name: _joined(of_field, grid) for name, of_field in blocks.items()}
    if "log_weights" in found:
        found["log_weights"] = da.moveaxis(found["log_weights"], -1, axis)
    return found


def _joined(blocks: dict[tuple[int, ...], Any], grid: tuple[int, ...], index: tuple[int, ...] = ()) -> Any:
    """The array of blocks on a grid along its first axes, or the part of it that an index begins."""
    axis = len(index)
    if axis == len(grid):
        return blocks[index]
    return da.concatenate([_joined(blocks, grid, (*index, i)) for i in range(grid[axis])], axis=axis)


def _field(result: Any, name: str) -> Any:
    return np.asarray(getattr(result, name) if name else result)


def ess(log_w: Any, *, axis: int = -1, **options: Any) -> Any:
    """Effective sample size of each row, as `isdiag.ess`.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Each row is brought into one block.
    axis : int, default -1
        The sample axis.
    **options
        As `isdiag.ess` has them.

    Returns
    -------
    dask array of the batch shape
        In draws.

    Examples
    --------
    >>> import dask.array as da
    >>> from isdiag import dask
    >>> dask.ess(da.zeros((6, 10), chunks=(2, 5))).compute()
    array([10., 10., 10., 10., 10., 10.])
    """
    return _by_rows(isdiag.ess, [log_w], axis, {"": np.float64}, options)[""]


def pareto_khat(log_w: Any, *, axis: int = -1, **options: Any) -> Any:
    """The shape khat of the tail of each row, as `isdiag.pareto_khat`.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Each row is brought into one block.
    axis : int, default -1
        The sample axis.
    **options
        As `isdiag.pareto_khat` has them.

    Returns
    -------
    dask array of the batch shape
        Shape khat.

    Examples
    --------
    >>> import dask.array as da
    >>> from isdiag import dask
    >>> dask.pareto_khat(da.zeros((2, 100), chunks=50)).compute()
    array([-inf, -inf])
    """
    return _by_rows(isdiag.pareto_khat, [log_w], axis, {"": np.float64}, options)[""]


def select_gamma(log_w: Any, *, axis: int = -1, **options: Any) -> GammaSelection:
    """The largest gamma for which the weights of each row can be trusted, as `isdiag.select_gamma`.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Each row is brought into one block.
    axis : int, default -1
        The sample axis.
    **options
        As `isdiag.select_gamma` has them; the rule is "joint" or "refit".

    Returns
    -------
    GammaSelection
        Of dask arrays.

    Examples
    --------
    >>> import dask.array as da
    >>> from isdiag import dask
    >>> dask.select_gamma(da.zeros((2, 100), chunks=50)).gamma.compute()
    array([1., 1.])
    """
    fields = {name: np.dtype(np.float64) for name in GammaSelection.__annotations__}
    own = {"n": np.dtype(np.int64), "limited_by": np.dtype("U4"), "status": np.dtype(np.int8)}
    return GammaSelection(**_by_rows(isdiag.select_gamma, [log_w], axis, fields | own, options))


def snis(log_w: Any, h: Any, *, axis: int = -1, **options: Any) -> SNIS:
    """An estimate of the mean of h of each row, as `isdiag.snis`.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Each row is brought into one block.
    h : dask array of log_w's shape
        Values at the draws.
    axis : int, default -1
        The sample axis.
    **options
        As `isdiag.snis` has them.

    Returns
    -------
    SNIS
        Of dask arrays.

    Examples
    --------
    >>> import dask.array as da
    >>> from isdiag import dask
    >>> dask.snis(da.zeros((2, 4), chunks=2), da.arange(8, chunks=4).reshape(2, 4)).estimate.compute()
    array([1.5, 5.5])
    """
    fields = {name: np.dtype(np.float64) for name in SNIS.__annotations__} | {"status": np.dtype(np.int8)}
    return SNIS(**_by_rows(isdiag.snis, [log_w, h], axis, fields, options))


def psis(log_w: Any, *, axis: int = -1, **options: Any) -> PSIS:
    """Pareto smoothed weights of each row, as `isdiag.psis`.

    Parameters
    ----------
    log_w : dask array
        Log-weights. Each row is brought into one block; one longer than memory is smoothed by `Summary.psis`.
    axis : int, default -1
        The sample axis.
    **options
        As `isdiag.psis` has them.

    Returns
    -------
    PSIS
        Of dask arrays.

    Examples
    --------
    >>> import dask.array as da
    >>> from isdiag import dask
    >>> dask.psis(da.zeros((2, 100), chunks=50)).log_weights.shape
    (2, 100)
    """
    whole, code = np.dtype(np.int64), np.dtype(np.int8)
    fields: dict[str, Any] = {name: np.dtype(np.float64) for name in PSIS.__annotations__}
    fields |= {"log_weights": None, "tail_length": whole, "n": whole, "status": code}
    return PSIS(**_by_rows(isdiag.psis, [log_w], axis, fields, options))
