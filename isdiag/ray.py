"""Summaries of Ray datasets, and of what tasks and actors hold. Needs Ray: pip install 'isdiag[ray]'.

What is sent is `Summary.to_bytes`, some hundred kilobytes, and never the draws. A worker that is lost costs
its blocks once more, and changes no number.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np

from isdiag import Summary, arrow

__all__ = ["merge", "summary"]

ray: Any = import_module("ray")  # it has types only in part
data: Any = import_module("ray.data")
AggregateFn: Any = import_module("ray.data.aggregate").AggregateFn
BlockAccessor: Any = import_module("ray.data.block").BlockAccessor


def summary(
    dataset: Any,
    log_w: str,
    h: str | None = None,
    *,
    by: str | None = None,
    gamma: float = 1.0,
    n_max: float = 1e9,
) -> Any:
    """The summary of a column of log-weights, made where its blocks are.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Where the columns are.
    log_w : str
        Name of the column of log-weights.
    h : str, optional
        Name of a column of values at the draws.
    by : str, optional
        Name of a column that tells groups apart.
    gamma : float, default 1
        Exponent, >= 0, of the weights that h is summed with.
    n_max : float, default 1e9
        The most draws for which khat is to be known.

    Returns
    -------
    Summary or dict of Summary
        With `by` one for each value of that column, in the order of the values.

    Raises
    ------
    ValueError
        If a column is missing, or holds missing values or no numbers.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from isdiag import ray as isdiag_ray  # doctest: +SKIP
    >>> rollouts = ray.data.read_parquet("rollouts/")  # doctest: +SKIP
    >>> isdiag_ray.summary(rollouts, "log_w", "reward").snis().estimate  # doctest: +SKIP
    0.734
    """
    none = np.empty(0)
    nothing = Summary.of(none, None if h is None else none, gamma=gamma, n_max=n_max).to_bytes()

    def begin(_: Any) -> bytes:
        return nothing

    def with_block(state: bytes, block: Any) -> bytes:
        table = BlockAccessor.for_block(block).to_arrow()
        return _merged(state, arrow.summarize(table, log_w, h, gamma=gamma, n_max=n_max).to_bytes())

    summing = AggregateFn(init=begin, accumulate_block=with_block, merge=_merged, name="isdiag_summary")
    if by is None:
        return Summary.from_bytes(dataset.aggregate(summing)["isdiag_summary"])
    rows: list[dict[str, Any]] = dataset.groupby(by).aggregate(summing).take_all()
    return {row[by]: Summary.from_bytes(row["isdiag_summary"]) for row in rows}


def _merged(one: bytes, other: bytes) -> bytes:
    return Summary.from_bytes(one).merge(Summary.from_bytes(other)).to_bytes()


def merge(summaries: Iterable[Any], *, at_a_time: int = 8) -> Any:
    """Merge the summaries of tasks or actors in a tree of tasks.

    Parameters
    ----------
    summaries : iterable of ray.ObjectRef
        What tasks or methods of actors return that return a `Summary`.
    at_a_time : int, default 8
        How many are merged by a task, at least 2.

    Returns
    -------
    ray.ObjectRef
        Of the `Summary` of all draws.

    Raises
    ------
    ValueError
        If there are none.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from isdiag import ray as isdiag_ray  # doctest: +SKIP
    >>> parts = [worker.summary.remote() for worker in workers]  # doctest: +SKIP
    >>> ray.get(isdiag_ray.merge(parts)).select_gamma().gamma  # doctest: +SKIP
    0.41
    """
    level = list(summaries)
    if not level:
        msg = "summaries must hold at least one, got none"
        raise ValueError(msg)
    task = ray.remote(_merged_all)
    while True:
        step = max(at_a_time, 2)
        level = [task.remote(*level[i : i + step]) for i in range(0, len(level), step)]
        if len(level) == 1:
            return level[0]


def _merged_all(*summaries: Summary) -> Summary:
    return reduce(Summary.merge, summaries)
