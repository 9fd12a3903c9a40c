"""Moment matching: better draws from those at hand."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from isdiag._core import moment_matching
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, number, whole
from isdiag._core.result import MomentMatched


def moment_match(
    draws: Any,
    log_target: Callable[[Any], Any],
    log_proposal: Callable[[Any], Any],
    *,
    k_max: float = -inf,
    max_steps: int = 30,
    split: bool = False,
    r_eff: float = 1.0,
    tail_length: int | None = None,
) -> MomentMatched:
    """Move draws to the target by matching moments, as long as khat falls.

    Parameters
    ----------
    draws : array_like, shape (n, d)
        Draws of the proposal, on a space without bounds.
    log_target : callable
        Log-density of the target, up to a constant: takes draws of shape (n, d), in the kind of array and
        float dtype of `draws`, and returns shape (n,).
    log_proposal : callable
        Log-density of the proposal, up to a constant, as `log_target`.
    k_max : float, default -inf
        Stop where khat is at most this. By default draws are moved as long as that lowers khat.
    max_steps : int, default 30
        Most moves that are made.
    split : bool, default False
        Move half of the draws only, and weigh all as draws of the mixture of the moved and the unmoved: for
        an h that matters where the proposal is, as the likelihood of the point left out.
    r_eff : float, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.

    Returns
    -------
    MomentMatched
        The moved draws, their raw log-weights, and khat before and after.

    Raises
    ------
    ValueError
        If draws are not finite or a function returns another shape.

    Notes
    -----
    * Three moves are tried, each to the moments under the Pareto smoothed weights: the mean; mean and
      variances; mean and covariance. One that lowers khat is kept and all are tried again, the simplest
      first; where none does the search ends. A move is affine, so that the density of the moved draws is
      known and the estimate consistent.
    * Each try costs one call of `log_target` with all draws. `log_proposal` is called once, and twice more
      with half of the draws for `split`.
    * Where khat starts unknown (n < 30 or so) or infinite nothing is moved that does not make it finite.
      What cannot be mended by mean and covariance, a second mode say, is not mended here.
    * A parameter with bounds is transformed first (a scale by its logarithm, with the Jacobian in both
      densities).
    * khat of the moved draws was sought, and the error of an estimate made with them does not know that. In a
      trial of 100 runs, with a proposal half as wide as the target, 95 % intervals covered 89 % where
      `diagnose` called the moved draws sound, 84 % with `split`, and 97 % with fresh draws of a Student t at
      the mean and covariance of the moved ones: draw anew where that can be done.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Paananen2021]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=(2000, 3))  # proposal N(0, I), target N(1.2, I / 4)
    >>> found = isdiag.moment_match(
    ...     x, lambda x: -2 * ((x - 1.2) ** 2).sum(axis=1), lambda x: -(x**2).sum(axis=1) / 2
    ... )
    >>> print(f"khat {found.khat_before:.2f}, then {found.khat:.2f}")
    khat 0.84, then -0.56
    >>> isdiag.snis(found.log_weights, found.draws).estimate.round(2)
    array([1.19, 1.19, 1.19])
    """
    limit = number("k_max", k_max, -inf)
    most = whole("max_steps", max_steps)
    efficiency = number("r_eff", r_eff, 0.0, inf, "()")
    given = moment_matching.Densities(draws, log_target, log_proposal)
    found = moment_matching.match(
        given,
        k_max=limit,
        max_steps=most,
        split=flag("split", split),
        r_eff=efficiency,
        tail_length=tail_length,
    )
    rows = rows_of(found["log_weights"], -1, None)
    found["log_weights"] = given.back(found["log_weights"])
    return MomentMatched.of(rows, **found)
