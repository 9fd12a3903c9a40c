"""Everything isdiag has to say about log-weights, in one call."""

from __future__ import annotations

from typing import Any

from isdiag._core import diagnosis, tails
from isdiag._core.bands import Constraints
from isdiag._core.boundary import rows_of
from isdiag._core.check import rule_needs_h
from isdiag._core.diagnosis import Diagnosis
from isdiag._core.typing import Axis, Dependence, Rule


def diagnose(
    log_w: Any,
    h: Any = None,
    *,
    k_max: float | None = None,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: Rule = "joint",
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Diagnosis:
    """Tell whether weights can be trusted and, if not, how far they must be tempered.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, optional
        Values at the draws, as in `snis`; estimates of their mean are added.
    k_max : float or None, default None
        Largest khat allowed, > 0; None for `khat_threshold(n)`, inf for no limit.
    ess_min : float, default 0.3
        Smallest ``ESS / n`` allowed, in [0, 1].
    gamma_max : float, default 1
        Largest gamma allowed, > 0.
    rule : {"joint", "refit", "mse"}, default "joint"
        How gamma is chosen, as in `select_gamma`; "mse" needs `h`.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Diagnosis
        All of it: print it, or take it apart with `Diagnosis.to_dict`.

    Raises
    ------
    ValueError
        If `h` is missing for the rule "mse".

    Notes
    -----
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    As in `select_gamma`: [Vehtari2024]_; [Kong1992]_; [Ionides2008]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> print(isdiag.diagnose(np.random.default_rng(3).normal(scale=1.3, size=4000)))
    for an estimate  noisy
    draws n          4000
    ESS              745.1  (18.6% of n), largest weight 0.0167
    khat             0.384  (good: at least 2 finite moments; at most 0.70 for this n)
    status           OK
    advice           An estimate is sound but noisy: ESS is 18.6% of n, and its error right but large.
                     More draws make it smaller.
    step: gamma      0.8487  (set by ess)
    ESS at gamma     1200.0  (30.0% of n), khat 0.316
    advice           Temper the weights: w**0.849 is as far as ESS allows.
    """
    rule_needs_h(rule, h)
    limits = Constraints(k_max, ess_min, gamma_max)
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    values, own = (None, ()) if h is None else rows.trailing(h)
    found = diagnosis.diagnose(rows, lengths, limits, rule, values, workers)
    return Diagnosis.of(rows.numpy(), own, **found)
