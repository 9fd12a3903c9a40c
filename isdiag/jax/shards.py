"""Summaries of arrays whose draws lie on several devices."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# JAX's annotations have gaps.

from __future__ import annotations

from functools import reduce
from typing import Any, cast

import jax
import numpy as np
from jax.core import Tracer

from isdiag import Summary


def summary(log_w: Any, h: Any = None, *, gamma: float = 1.0, n_max: float = 1e9) -> Summary:
    """The summary of an array that is sharded along its sample axis, made of a summary of each shard.

    Parameters
    ----------
    log_w : jax.Array, shape (..., n)
        Log-weights, as `jax.shard_map` returns them; not traced. The last axis is that of the draws, and the
        only one that may be sharded. What is replicated counts once.
    h : jax.Array, shape of log_w, or that shape and axes of its own
        Values at the draws, sharded as log_w.
    gamma : float, default 1
        Exponent, >= 0, of the weights that h is summed with.
    n_max : float, default 1e9
        The most draws for which khat is to be known.

    Returns
    -------
    Summary
        Of the draws that this process has. The summaries of several processes, none of which holds a draw of
        another, merge to that of all.

    Raises
    ------
    TypeError
        If `log_w` is traced or no array of JAX.
    ValueError
        If another axis is sharded, or `h` is sharded in another way.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import isdiag.jax as ij
    >>> ij.summary(jnp.zeros(8)).ess()
    8.0
    """
    _check_array("log_w", log_w)
    if h is not None:
        _check_array("h", h)
    values = {} if h is None else {shard.device: np.asarray(shard.data) for shard in h.addressable_shards}
    # With none of the draws it has the shapes, should this process own no shard.
    none = np.empty((*log_w.shape[:-1], 0)), None if h is None else np.empty(_emptied(log_w, h))
    found = [Summary.of(*none, gamma=gamma, n_max=n_max)]
    for shard in log_w.addressable_shards:
        part = np.asarray(shard.data)
        if part.shape[:-1] != log_w.shape[:-1]:
            msg = f"log_w may be sharded along its last axis only, got shards of shape {part.shape}"
            raise ValueError(msg)
        own = values.get(shard.device)
        if own is not None and own.shape[: part.ndim] != part.shape:
            msg = f"h must be sharded as log_w, got shards of shape {own.shape} and {part.shape}"
            raise ValueError(msg)
        if shard.replica_id == 0:
            found.append(Summary.of(part, own, gamma=gamma, n_max=n_max))
    return reduce(Summary.merge, found)


def _check_array(name: str, array: Any) -> None:
    if not isinstance(array, jax.Array) or isinstance(array, Tracer):
        kind = cast("object", array).__class__.__name__
        msg = f"{name} must be an array of JAX that is not traced, got {kind}"
        raise TypeError(msg)


def _emptied(log_w: Any, h: Any) -> tuple[int, ...]:
    return (*h.shape[: log_w.ndim - 1], 0, *h.shape[log_w.ndim :])
