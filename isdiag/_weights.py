"""Weights as they are: tempered, cut, drawn from, of a mixture; and their effective sample size."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core import mixture, resampling, tails, weights
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, generator, one_of, whole
from isdiag._core.result import Truncated, bare, warn_not_finite
from isdiag._core.typing import Axis, Kind, Resampling

_MOST_POSITIONS = 2**59  # of 8 bytes each; NumPy refuses more without naming the argument


def temper(
    log_w: Any,
    gamma: Any = 1.0,
    *,
    normalize: bool = True,
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """Temper log-weights: return those of ``w**gamma``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights, ``log target - log proposal``, up to a constant. -inf is a draw of zero
        weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. NaN in an array gives a NaN row, so that `GammaSelection.gamma` can be passed.
    normalize : bool, default True
        Make the weights sum to one along `axis`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`; the others come back as -inf.

    Returns
    -------
    array of log_w's shape and kind
        ``gamma * log_w``, less its log-sum-exp if normalised, in `log_w`'s float dtype (float64 for
        integers).

    Notes
    -----
    * gamma = 0 is the limit from above: equal weights on the draws of positive weight.
    * A row without weight comes back as -inf throughout.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, section 9.9; [Korba2022]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> np.exp(isdiag.temper(np.log([1.0, 4.0, 4.0]), 0.5))
    array([0.2, 0.4, 0.4])
    """
    rows = rows_of(log_w, axis, where)
    out, status = weights.temper(rows, rows.gamma(gamma), flag("normalize", normalize))
    warn_not_finite(status)
    return rows.weights(out)


def ess(
    log_w: Any,
    *,
    gamma: Any = 1.0,
    kind: Kind = "kish",
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """Effective sample size of the weights ``w**gamma``, in draws.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    kind : {"kish", "perplexity", "max"}, default "kish"
        With wbar the normalised weights: ``1 / sum(wbar**2)``, ``exp(-sum(wbar * log(wbar)))`` or
        ``1 / max(wbar)``.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        Between 1 and the number of draws of positive weight; float64. NaN for a row without weight or
        with NaN or +inf.

    Notes
    -----
    * ESS falls as gamma grows; as gamma -> 0 it tends to the number of draws of positive weight.
    * ESS describes the weights, not an estimate: a missed mode or a heavy tail that has not yet shown
      itself leaves it high. Read it beside khat.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Kong1992]_; [Martino2017]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]))
    2.6666666666666665
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]), kind="max")
    2.0
    """
    one_of("kind", kind, Kind)
    rows = rows_of(log_w, axis, where)
    found, status = weights.ess(rows, rows.gamma(gamma), kind)
    return bare(rows, found, status)


def truncate(
    log_w: Any,
    *,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    normalize: bool = True,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Truncated:
    """Truncated importance sampling: cut the weights at ``sqrt(n) * mean(w)``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    normalize : bool, default True
        Make the weights sum to one. Otherwise those that were not cut come back bit for bit.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`; the others come back as -inf.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Truncated
        Truncated log-weights, the khat of the raw ones, ESS and what became of each row.

    Notes
    -----
    * `khat` is that of the raw weights. Cutting bounds the variance and adds a bias that no number here
      shows; at a khat above `khat_threshold(n)` that bias may be most of the error.
    * Whatever the tail looks like weights are cut: where the status is `Status.DEGENERATE_TAIL` or
      `Status.TAIL_TOO_SHORT` it is khat alone that is not known.
    * ``snis(log_w, h, smooth="truncate")`` is the estimate with these weights.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Ionides2008]_; [Vehtari2024]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=1000)
    >>> isdiag.truncate(log_w)
    Truncated(log_weights=<1000 ndarray>, khat=0.688952, ess=76.223, n=1000, status=OK)
    """
    rows = rows_of(log_w, axis, where)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    one = rows.same(1.0)
    khat, status = tails.khat(rows, lengths, one, workers)
    cut, ess = weights.truncate(rows, one, flag("normalize", normalize), workers)
    return Truncated.of(rows, log_weights=rows.weights(cut), khat=khat, ess=ess, n=rows.n, status=status)


def resample(
    log_w: Any,
    size: int | None = None,
    *,
    method: Resampling = "systematic",
    replace: bool = True,
    rng: int | np.random.Generator | None = None,
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """Draw again in proportion to the weights: positions of draws that then weigh the same.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight, which is never taken.
    size : int, optional
        How many to take from each row; default as many as the sample axis is long.
    method : {"systematic", "stratified", "residual", "multinomial"}, default "systematic"
        How to draw with replacement. All are unbiased: a draw of normalised weight wbar is taken
        ``size * wbar`` times on average. "systematic" reads the cumulative weights at evenly spaced points
        with one random start, "stratified" at one random point in each of `size` equal intervals,
        "residual" takes ``floor(size * wbar)`` copies and draws the rest independently, "multinomial" draws
        all independently.
    replace : bool, default True
        Whether a draw may be taken more than once. If not, there is one method: one after the other, each in
        proportion to the weights of those that are left.
    rng : int, numpy.random.Generator or None
        A seed, or a generator, which moves on; None for a seed from the system.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries that may be taken, broadcast to `log_w`.

    Returns
    -------
    array of int64, shape (..., size)
        Positions along the sample axis, or in the flattened sample axes in the order of `axis`: ascending
        with replacement, in the order of drawing without. -1 throughout in a row that cannot give `size`:
        without weight, with NaN or +inf, or, without replacement, with fewer draws of positive weight.

    Raises
    ------
    ValueError
        If ``replace=False`` is given a method.

    Notes
    -----
    * The variance that resampling adds to a mean is never larger for "stratified" and "residual" than for
      "multinomial". That of "systematic" depends on the order of the draws: in no order it is mostly the
      least of all; where draws are sorted by what is averaged "stratified" is better.
    * A weighted mean over the draws themselves has less error than a mean over resampled ones: resample to
      go on with equally weighted draws, not to estimate.
    * Draws without replacement do not stand for the target: they are more alike than draws in proportion to
      the weights. A weight far above the others is then evened out.
    * Resampling mends nothing: where khat is above `khat_threshold(n)` the new draws miss what the old ones
      miss. Resample from `psis(log_w).log_weights` to have smoothed weights.
    * Rows are drawn for independently. The same rng, size, method and shape give the same positions, and a
      row that cannot give any leaves those of the others as they are.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Douc2005]_; [Efraimidis2006]_; [Kitagawa1996]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = [0.0, np.log(5.0), -np.inf, np.log(2.0)]
    >>> isdiag.resample(log_w, 8, rng=1)
    array([0, 1, 1, 1, 1, 1, 3, 3])
    >>> isdiag.resample(log_w, 3, replace=False, rng=1)
    array([1, 3, 0])
    """
    one_of("method", method, Resampling)
    again = flag("replace", replace)
    if not again and method != "systematic":
        msg = f'replace=False has a method of its own and takes no method, got method="{method}"'
        raise ValueError(msg)
    random = generator("rng", rng)
    rows = rows_of(log_w, axis, where)
    most = _MOST_POSITIONS // max(len(rows), 1)
    count = (
        rows.values.shape[1] if size is None else whole("size", size, "the positive length of an array", most)
    )
    if again:
        positions, status = resampling.resample(rows, count, method, random)
    else:
        positions, status = resampling.without_replacement(rows, count, random)
    warn_not_finite(status, become="-1")
    return rows.diagnostic(positions, (count,))


def mixture_log_weights(log_target: Any, log_proposals: Any, counts: Any) -> Any:
    """Weigh draws from several proposals together, by the balance heuristic.

    Parameters
    ----------
    log_target : array_like, shape (..., n)
        Log-density of the target at all draws, whichever proposal they are from, up to a constant.
    log_proposals : array_like, shape (K, ..., n), or a sequence of K arrays of log_target's shape
        Normalised log-density of each proposal at all draws; -inf where it cannot draw.
    counts : array_like, shape (K,)
        How many draws are from each proposal; only their proportions matter. The density of a proposal with
        none is not looked at.

    Returns
    -------
    array of log_target's shape, kind and float dtype
        ``log_target - log(sum_k counts_k / n * proposal_k)``, as it is: its mean weight is the target's
        normalising constant.

    Raises
    ------
    ValueError
        If `counts` is no vector of numbers >= 0 with a positive sum, or `log_proposals` does not hold as many
        arrays of log_target's shape.

    Notes
    -----
    * A draw is weighted as if from the mixture, not from its own proposal. Weights are then bounded where any
      one of the proposals covers the target, and a proposal with thin tails does no harm.
    * Draws of fixed counts vary less than those of the mixture: pass `strata` to `estimate`, with the number
      of the proposal of each draw, for a standard error that knows it.
    * A draw at which no proposal has density cannot be: its row is NaN, unless the target has none there.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Veach1995]_; [Owen2000]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> rng = np.random.default_rng(1)
    >>> x = np.concatenate([rng.normal(-2, 1, size=500), rng.normal(2, 1, size=1500)])
    >>> # both lack the same constant, as the target
    >>> proposals = [-((x + 2) ** 2) / 2, -((x - 2) ** 2) / 2]
    >>> log_w = isdiag.mixture_log_weights(-(x**2) / 2, proposals, [500, 1500])
    >>> alone = -(x**2) / 2 - np.where(np.arange(2000) < 500, *proposals)  # each by its own proposal
    >>> round(isdiag.ess(log_w)), round(isdiag.ess(alone))
    (489, 74)
    """
    rows = rows_of(log_target, -1, None, "log_target")
    found, status = mixture.log_weights(rows, log_proposals, counts)
    warn_not_finite(status)
    return rows.weights(found)
