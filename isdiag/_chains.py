"""Draws of Markov chains: how many independent ones they are worth."""

from __future__ import annotations

from typing import Any

from isdiag._core import chains
from isdiag._core.boundary import rows_of
from isdiag._core.result import bare
from isdiag._core.typing import Axis


def relative_efficiency(x: Any, *, axis: Axis = -1) -> Any:
    """Effective sample size over n of the mean of values along Markov chains.

    Parameters
    ----------
    x : array_like, shape (..., n) or (..., chains, n)
        Values at the draws.
    axis : int, str or tuple of them, default -1
        The axes of the draws: the last one named is the order within a chain, the others are chains. The
        other axes of `x` are a batch.

    Returns
    -------
    float or array
        ESS / n in the batch shape: 1 for independent draws, less where neighbours resemble each other, more
        where they alternate. 1 for values that are all equal, NaN where one is NaN or infinite and for
        chains of fewer than 4 draws.

    Notes
    -----
    * Each chain is split into halves. Correlations are those of the spread within and between halves, so
      that chains which disagree, or drift, are worth little.
    * Their sum is Geyer's initial monotone sequence; ESS / n is at most ``log10(n)``.
    * The variance of the mean of the values is their variance over ``n * relative_efficiency``.
    * A value stands for one draw: for the tail of the weights take that of the weights, for the error of an
      estimate ``draws="mcmc"`` takes that of what its error is made of.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Geyer1992]_, section 3.3; [Vehtari2021]_, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> noise = np.random.default_rng(1).normal(size=(4, 1000))
    >>> chains = np.zeros((4, 1000))
    >>> for t in range(1, 1000):
    ...     chains[:, t] = 0.8 * chains[:, t - 1] + noise[:, t]
    >>> # in the limit (1 - 0.8) / (1 + 0.8)
    >>> round(isdiag.relative_efficiency(chains, axis=(0, 1)), 2)
    0.11
    """
    rows = rows_of(x, axis, None, "x", "mcmc")
    return bare(rows, *chains.relative_efficiency(rows))
