"""One step of off-policy learning: log-ratios in, gamma, coefficients and diagnostics out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import copysign, exp, inf, log, nan, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np

from isdiag._core import selection, tails, weights
from isdiag._core.bands import GOOD_KHAT, Constraints
from isdiag._core.boundary import Rows, mask_array, real_array, rows_of
from isdiag._core.check import one_of
from isdiag._core.moments import mean_variance, moments_of
from isdiag._core.result import Result
from isdiag._core.statuses import LEAST_ERROR_DRAWS
from isdiag._core.typing import Floats, Mask
from isdiag.rl.reshapes import Reshape
from isdiag.rl.schedules import Evidence, Schedule, State

Normalize = Literal["batch", "count"]

# Both laws normalised over the same actions, the mean of w is 1. An alarm wants it off by this much in logs
# and by this many standard errors, from enough draws; docs/howto/rl.md says how often it is false.
OFFSET = 0.02
OFFSET_Z = 5.0

# Below this share of draws with any weight, or (by count) below this mean weight, hardly anything is learnt.
STALL = 0.05

# Weights by count stop at e^600, so that a coefficient is finite; no gradient survives such a one either.
LARGEST = 600.0

_ONE = np.ones(1)


@dataclass(frozen=True)
class Limits(Constraints):
    """What `isdiag.select_gamma` is asked for.

    Attributes
    ----------
    k_max : float or None, default 0.7
        Largest khat allowed, > 0; None for `khat_threshold(n)`.
    ess_min : float, default 0.8
        Smallest ESS / n allowed, in [0, 1]. Training wants more of it than an estimate:
        docs/results/rl_study.md.
    gamma_max : float, default 1
        Largest gamma allowed, > 0.
    """

    k_max: float | None = GOOD_KHAT
    ess_min: float = 0.8
    gamma_max: float = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class Step(Result):
    """What one batch came to: coefficients, and numbers that `metrics` gives by these names.

    Attributes
    ----------
    coefficients : ndarray of log_w's shape
        What each draw's ``grad log pi`` is multiplied by; their sum of products is the estimated gradient.
        0 for draws left out.
    gamma : float
        The exponent used.
    ess_ratio : float
        ESS / n of the weights used, f.
    ess_ratio_raw : float
        ESS / n of the weights w.
    pareto_k : float
        khat of the weights w.
    pareto_k_used : float
        khat of the weights used.
    gamma_batch : float
        The gamma that this batch alone allows.
    max_weight : float
        The largest share that one draw has in the weights used.
    mean_weight : float
        Mean of f.
    bias_proxy : float
        Estimated bias, from normalising the weights, of the weighted mean of the signal.
    fraction_modified : float
        Share of draws with f other than w.
    fraction_zero : float
        Share of draws with f = 0: masked.
    log_w_q01, log_w_q50, log_w_q99 : float
        Quantiles of the log-ratios (order statistics, nothing interpolated).
    offset : float
        Log of the mean of w, which is 0 if both laws are normalised over the same actions.
    offset_z : float
        The same in standard errors.
    n : int
        How many draws were used.
    n_nonfinite : int
        How many were left out for a NaN or +inf log-ratio, or an advantage that is not finite.
    alarm_offset : int
        1 if the offset is beyond chance while khat is below 0.7: a sampler that cuts its distribution
        (top-p, top-k) or a normalisation that differs.
    alarm_stall : int
        1 if nearly all draws are masked or weigh nothing, so that little is learnt without an error.
    """

    coefficients: Floats
    gamma: float
    ess_ratio: float
    ess_ratio_raw: float
    pareto_k: float
    pareto_k_used: float
    gamma_batch: float
    max_weight: float
    mean_weight: float
    bias_proxy: float
    fraction_modified: float
    fraction_zero: float
    log_w_q01: float
    log_w_q50: float
    log_w_q99: float
    offset: float
    offset_z: float
    n: int
    n_nonfinite: int
    alarm_offset: int
    alarm_stall: int

    def metrics(self) -> dict[str, float]:
        """The numbers by their names, for a logger.

        Returns
        -------
        dict of str to float
            `METRICS` in that order.
        """
        return {name: getattr(self, name) for name in METRICS}


METRICS = tuple(field.name for field in fields(Step) if field.name != "coefficients")  # type: ignore[arg-type]


def take_step(
    log_w: Any,
    advantage: Any = 1.0,
    *,
    reshape: Reshape,
    schedule: Schedule,
    state: State,
    limits: Limits = Limits(),
    normalize: Normalize = "batch",
    where: Any = None,
) -> tuple[State, Step]:
    """Advance a schedule by a batch, reshape its weights and diagnose them; a pure function.

    Parameters
    ----------
    log_w : array_like
        Log-ratios of the batch's draws, any shape; all are one sample. -inf is a draw of zero weight.
    advantage : array_like, default 1
        Advantages or rewards: one for all, of log_w's shape, or one for each of its rows, (B,) or (B, 1).
    reshape : Reshape
        Maps weights; its exponent, if it has one, is set by the schedule.
    schedule : Schedule
        Says which gamma comes next.
    state : State
        What the schedule remembers.
    limits : Limits
        Constraints on the gamma that the batch allows.
    normalize : {"batch", "count"}, default "batch"
        Divide the weights by their sum, as self-normalised importance sampling does, or by the number of
        draws.
    where : array_like of bool, optional
        Draws that there are, of log_w's shape or (B,) for its rows: for tokens, the mask. For sequences too
        it may be the mask, (B, T): one without a token is no draw. The others are in no count.

    Returns
    -------
    state : State
        The next state.
    step : Step
        Coefficients and diagnostics.

    Raises
    ------
    ValueError
        If shapes do not fit or `normalize` is unknown.
    TypeError
        If an argument is not real or not in CPU memory.

    Notes
    -----
    * Draws with a NaN or +inf log-ratio, or an advantage that is not finite, are left out of n, of every
      diagnostic and of the gradient; `Step.n_nonfinite` counts them.
    * A batch without a draw of positive weight has coefficients 0, `alarm_stall`, and NaN where a
      diagnostic has no value.
    * Weights divided by count stop at e^600, so that a coefficient stays finite.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58. Kong, A. (1992). A
    note on importance sampling using standardized weights.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl import Diagnosed, Power, State, take_step
    >>> rng = np.random.default_rng(1)
    >>> log_w, advantage = rng.normal(-2.0, 2.0, size=1024), rng.normal(size=1024)
    >>> start = State(gamma=0.3)
    >>> state, step = take_step(log_w, advantage, reshape=Power(), schedule=Diagnosed(), state=start)
    >>> round(state.gamma, 3), round(step.gamma_batch, 3), round(step.ess_ratio, 3)
    (0.293, 0.234, 0.7)
    >>> step.coefficients.shape, step.alarm_offset, step.alarm_stall
    ((1024,), 0, 0)
    """
    one_of("normalize", normalize, Normalize)
    draws = _draws(log_w, advantage, where)
    n = draws.log_w.size
    if n == 0:
        state = schedule(state, Evidence(nan, nan))
        return state, _empty_step(draws, state.gamma)
    rows = rows_of(draws.log_w, -1, None)
    lengths = tails.lengths_of(rows)
    chosen = selection.select(rows, lengths, limits, "joint", 1)
    gamma_batch, khat = chosen["gamma"].item(), chosen["khat"].item()
    ess_now, _ = weights.ess(rows, np.array([state.gamma]))
    state = schedule(state, Evidence(ess_now.item() / n, gamma_batch))

    log_f, signal = reshape.at(state.gamma)(draws.log_w, draws.advantage)
    reshaped = rows.holding(log_f[None])
    khat_used, _ = tails.khat(reshaped, lengths, _ONE)
    raw, used = _Weights.of(rows, signal), _Weights.of(reshaped, signal)
    zero = int(np.count_nonzero(log_f == -inf)) / n
    thin = normalize == "count" and used.log_mean < log(STALL)
    q01, q50, q99 = _quantiles(draws.log_w)
    shares, largest = _shares(log_f)
    factors = shares if normalize == "batch" else np.exp(np.minimum(log_f, LARGEST)) / n
    return state, Step(
        coefficients=draws.spread(factors * signal),
        gamma=state.gamma,
        ess_ratio=used.ess / n,
        ess_ratio_raw=raw.ess / n,
        pareto_k=khat,
        pareto_k_used=khat_used.item(),
        gamma_batch=gamma_batch,
        max_weight=largest,
        mean_weight=exp(min(used.log_mean, LARGEST)),
        bias_proxy=used.bias,
        fraction_modified=int(np.count_nonzero(log_f != draws.log_w)) / n,
        fraction_zero=zero,
        log_w_q01=q01,
        log_w_q50=q50,
        log_w_q99=q99,
        offset=raw.log_mean,
        offset_z=raw.offset_z,
        n=n,
        n_nonfinite=draws.left_out,
        alarm_offset=int(raw.has_offset and khat < GOOD_KHAT),
        alarm_stall=int(1.0 - zero < STALL or thin),
    )


class _Draws(NamedTuple):
    """The draws of a batch that can be used, and where they came from."""

    log_w: Floats
    advantage: Floats
    used: Mask
    left_out: int

    def spread(self, values: Floats) -> Floats:
        """Values of the draws in the shape of the batch, 0 for the others."""
        if values.size == self.used.size:
            return values.reshape(self.used.shape)
        whole = np.zeros(self.used.shape)
        whole[self.used] = values
        return whole


def _draws(log_w: Any, advantage: Any, where: Any) -> _Draws:
    ratios = real_array(log_w, "log_w")[0].astype(np.float64, copy=False)
    signs = real_array(advantage, "advantage")[0].astype(np.float64, copy=False)
    signs = _like(ratios, signs, "advantage")
    used = (ratios < inf) & np.isfinite(signs)
    present = used.size
    if where is not None:
        there = mask_array(where, "where")
        if there.ndim == ratios.ndim + 1:
            there = there.any(axis=-1)
        there = _like(ratios, there, "where")
        used &= there
        present = int(np.count_nonzero(there))
    if used.all():
        return _Draws(ratios.ravel(), signs.ravel(), used, 0)
    kept = ratios[used]
    return _Draws(kept, signs[used], used, present - kept.size)


def _like(ratios: Floats, values: Any, name: str) -> Any:
    """Values in the shape of the ratios; an axis that they lack is one over tokens, at the end."""
    if values.shape == ratios.shape:
        return values
    missing = ratios.ndim - values.ndim
    try:
        if missing == -1 and values.shape[-1] == 1:
            return np.broadcast_to(values[..., 0], ratios.shape)
        return np.broadcast_to(values.reshape(values.shape + (1,) * max(missing, 0)), ratios.shape)
    except ValueError:
        msg = f"{name} of shape {values.shape} does not fit log_w's {ratios.shape}"
        raise ValueError(msg) from None


class _Weights(NamedTuple):
    """What sums over the draws tell of one set of weights."""

    n: int
    ess: float
    log_total: float
    bias: float

    @classmethod
    def of(cls, rows: Rows, signal: Floats) -> _Weights:
        moments = moments_of(rows.values, _ONE, signal[None])
        return cls(signal.size, moments.ess.item(), moments.log_total.item(), moments.bias.item())

    @property
    def log_mean(self) -> float:
        return self.log_total - log(self.n)

    @property
    def offset_z(self) -> float:
        """Log of the mean weight in standard errors."""
        variance = mean_variance(self.ess, self.n)
        if self.log_mean == 0.0 or not variance > 0.0:
            return copysign(inf, self.log_mean) if self.log_mean else 0.0
        return self.log_mean / sqrt(variance)

    @property
    def has_offset(self) -> bool:
        """Whether the mean weight is not 1, beyond chance."""
        far = abs(self.log_mean) > OFFSET and abs(self.offset_z) > OFFSET_Z
        return far and self.ess >= LEAST_ERROR_DRAWS


def _shares(log_f: Floats) -> tuple[Floats, float]:
    """Weights over their sum, and the largest; all 0 if that is."""
    largest = log_f.max()
    if largest == -inf:
        return np.zeros_like(log_f), nan
    # By their sum, not its logarithm, which loses all digits where log-weights are large.
    weights = log_f - largest
    np.exp(weights, out=weights)
    share = 1.0 / weights.sum().item()
    weights *= share
    return weights, share


def _quantiles(log_w: Floats) -> list[float]:
    ranks = [int(q * (log_w.size - 1)) for q in (0.01, 0.5, 0.99)]
    ordered = log_w.copy()
    ordered.partition(ranks)
    return [ordered.item(rank) for rank in ranks]


def _empty_step(draws: _Draws, gamma: float) -> Step:
    numbers: dict[str, Any] = dict.fromkeys(METRICS, nan) | {"gamma": gamma, "n": 0}
    counts = {"n_nonfinite": draws.left_out, "alarm_offset": 0, "alarm_stall": 1}
    return Step(draws.spread(draws.log_w), **numbers | counts)
