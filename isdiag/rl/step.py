"""One step of off-policy learning: log-ratios in, gamma, coefficients and diagnostics out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import copysign, exp, expm1, inf, isfinite, log, nan, sqrt
from typing import Any, Literal

import numpy as np

from isdiag._core import steps, tails
from isdiag._core.bands import GOOD_KHAT
from isdiag._core.boundary import real_array
from isdiag._core.check import of_kind, one_of
from isdiag._core.moments import mean_variance
from isdiag._core.result import Result
from isdiag._core.said import Said
from isdiag._core.statuses import MANY_DRAWS
from isdiag._core.typing import Floats
from isdiag.rl.batch import Batch, Draws, Limits, Used
from isdiag.rl.layouts import Level
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Schedule, State

Normalize = Literal["batch", "count"]

# Both laws normalised over the same actions, the mean of w is 1. An alarm wants it off by this much in logs
# and by this many standard errors, from enough draws; docs/howto/rl.md says how often it is false.
OFFSET = 0.02
OFFSET_Z = 5.0

# Below this share of draws with any weight, or (by count) below this mean weight, hardly anything is learnt.
STALL = 0.05

# With fewer draws than these behind it, or one that has more than this share, a step is that of single draws.
FEW_DRAWS = 5.0
ONE_DRAW = 0.5

# Negative advantages are silenced where a reshape leaves them less than this part of the share that w gives
# them, if that was one to speak of.
SILENCED = 0.1
HEARD = 0.05

# The batch that allows no more than this is too stale for its weights to be of use: at the default limits
# log-ratios spread by 20 nats and more. Runs of the study that went well allowed 0.035 and more.
STALE = 0.02

# A weight is at its bound if it is less than 1 % below.
NEAR_BOUND = 0.01

# Weights by count stop at e^600, so that a coefficient is finite; no gradient survives such a one either.
LARGEST = 600.0

# How far single precision, in which trainers exponentiate sums of logs, is off in the logs.
ROUNDED = 1e-5

_ONE = np.ones(1)
_LIMITS = Limits()


@dataclass(frozen=True, eq=False, repr=False)
class Step(Result):
    """What one batch came to: coefficients, and numbers that `metrics` gives by these names.

    Attributes
    ----------
    coefficients : ndarray of log_w's shape
        What each draw's ``grad log pi`` is multiplied by; their sum of products is the estimated gradient.
        0 for draws left out.
    weights : ndarray of log_w's shape
        The same without the signal: f over its sum, or over the number of draws.
    gamma : float
        The exponent used; 1 for a reshape that has none.
    ess_ratio : float
        ESS / n of the weights used, f.
    ess_ratio_tempered : float
        ESS / n of ``w**gamma``, which differs from that of the weights used where the reshape does more.
    ess_ratio_raw : float
        ESS / n of the weights w.
    pareto_k : float
        khat of the weights w.
    pareto_k_used : float
        khat of the weights used.
    gamma_batch : float
        The gamma that this batch alone allows: the largest at which w keeps both limits, and f that of ESS.
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
    fraction_saturated : float
        Share of draws whose f is at its bound, `Reshape.bound`, or less than 1 % below: clipped. 0 where a
        reshape has none.
    negative_share : float
        Share of the negative coefficients in the sum of ``abs(coefficients)``: how much of a step pushes
        down.
    negative_share_raw : float
        What it would be with w for the weights.
    log_w_q01, log_w_q50, log_w_q99, log_w_max : float
        Quantiles of the log-ratios, and the largest (order statistics, nothing interpolated: of two draws
        the lower two quantiles are the one, the upper is the other).
    kl : float
        KL(mu || pi) in nats by its estimator k1, the mean of ``-log w``; inf where a weight is 0.
    kl_k3 : float
        The same by k3, the mean of ``w - 1 - log w``: never negative, and less noisy where w is near 1.
    chi2 : float
        The chi-square divergence of pi from mu, the mean of w**2 less 1; at most e^600. These three are over
        draws, sequences or tokens, as `isdiag.kl_divergence` and `isdiag.chi2_divergence` have them with
        ``normalize=False``.
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
        (top-p, top-k) or a normalisation that differs. Always 0 at level "geometric", where the mean of w
        is below 1 by Jensen's inequality. On draws that the policy has been trained on it can be false:
        what was rewarded has become more likely.
    alarm_stall : int
        1 if nearly all draws are masked or weigh nothing, so that little is learnt without an error.
    alarm_one_draw : int
        1 if the weights used have an ESS below 5 draws, or one draw has more than half of them.
    alarm_silenced : int
        1 if `negative_share` is below a tenth of `negative_share_raw`, where that is at least 0.05 and rests
        on an ESS of w of 25 draws: the reshape learns from what went well only.
    alarm_stale : int
        1 if `gamma_batch` is below 0.02: the policies are so far apart that weights can mend nothing.
    """

    coefficients: Floats
    weights: Floats
    gamma: float
    ess_ratio: float
    ess_ratio_tempered: float
    ess_ratio_raw: float
    pareto_k: float
    pareto_k_used: float
    gamma_batch: float
    max_weight: float
    mean_weight: float
    bias_proxy: float
    fraction_modified: float
    fraction_zero: float
    fraction_saturated: float
    negative_share: float
    negative_share_raw: float
    log_w_q01: float
    log_w_q50: float
    log_w_q99: float
    log_w_max: float
    kl: float
    kl_k3: float
    chi2: float
    offset: float
    offset_z: float
    n: int
    n_nonfinite: int
    alarm_offset: int
    alarm_stall: int
    alarm_one_draw: int
    alarm_silenced: int
    alarm_stale: int

    def _said(self) -> Said:
        names = [name.removeprefix("alarm_") for name in METRICS if name.startswith("alarm_")]
        rung = [name for name in names if getattr(self, f"alarm_{name}")]
        used = f"gamma {self.gamma:.3g}, ESS/n {self.ess_ratio:.3g} ({self.ess_ratio_raw:.3g} of w)."
        if not rung:
            return Said("no alarm", "green", used)
        return Said(f"alarm: {', '.join(rung)}", "red", used)

    def metrics(self, prefix: str | None = None) -> dict[str, float]:
        """The numbers by their names.

        Parameters
        ----------
        prefix : str, optional
            For a logger: names get this prefix, and what is not finite is left out, see `loggable`.

        Returns
        -------
        dict of str to float
            `METRICS` in that order.
        """
        every = metrics_of(vars(self))
        return every if prefix is None else loggable(every, prefix)


_ARRAYS = ("coefficients", "weights")
METRICS = tuple(field.name for field in fields(Step) if field.name not in _ARRAYS)  # type: ignore[arg-type]


def metrics_of(numbers: Mapping[str, Any]) -> dict[str, float]:
    """`METRICS` in that order, as floats."""
    return {name: float(numbers[name]) for name in METRICS}


def loggable(metrics: Mapping[str, Any], prefix: str = "isdiag/") -> dict[str, float]:
    """Name metrics for a logger, with a prefix, and leave out what is not finite.

    khat is -inf for equal weights and NaN below 30 draws, both as they should be; a logger that averages
    would make -inf or NaN of a whole window.

    Parameters
    ----------
    metrics : mapping of str to float
        Metrics of a step or of a loss.
    prefix : str, default "isdiag/"
        What the names begin with.

    Returns
    -------
    dict of str to float
        Finite numbers, in the same order.

    Examples
    --------
    >>> from isdiag.rl import loggable
    >>> loggable({"gamma": 0.3, "pareto_k": float("-inf")})
    {'isdiag/gamma': 0.3}
    """
    return {prefix + name: float(value) for name, value in metrics.items() if isfinite(value)}


def take_step(
    log_w: Any,
    advantage: Any = 1.0,
    *,
    reshape: Reshape,
    schedule: Schedule,
    state: State,
    limits: Limits = _LIMITS,
    normalize: Normalize = "batch",
    level: Level = "sequence",
    where: Any = None,
) -> tuple[State, Step]:
    """Advance a schedule by a batch, reshape its weights and diagnose them; a pure function.

    Parameters
    ----------
    log_w : array_like
        Log-ratios of the batch's draws, any shape; all are one sample. -inf is a draw of zero weight.
    advantage : array_like, default 1
        Advantages or rewards: one for all, of log_w's shape, or one for each of its rows, (B,) or (B, 1). For
        sequences also (B, T), if it is the same at all tokens of one that are there.
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
    level : {"sequence", "token", "geometric"}, default "sequence"
        The level of `log_ratio` that the ratios are of; `Step.alarm_offset` goes by it.
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
        If shapes do not fit, advantages of tokens differ within a sequence, or `normalize` or `level` is
        unknown.
    TypeError
        If an argument is not real or not in CPU memory.

    Notes
    -----
    * Draws with a NaN or +inf log-ratio, or an advantage that is not finite, are left out of n, of every
      diagnostic and of the gradient; `Step.n_nonfinite` counts them.
    * A batch without a draw of positive weight has coefficients 0, `alarm_stall`, and NaN where a
      diagnostic has no value.
    * Weights divided by count stop at e^600, so that a coefficient stays finite.
    * `limits` bound the gamma that this batch allows, `Step.gamma_batch`: khat and ESS of ``w**gamma``, and,
      where the reshape has an exponent, the ESS of f (within 1 %). What is used is the schedule's gamma:
      with ``Diagnosed(rate)`` limits are kept on average over the last ``1 / rate`` batches, and a batch
      much worse than those before it is used at a gamma that it does not allow. `Step.ess_ratio` says
      what came of it, and `Step.alarm_one_draw` where next to nothing was left. ``Diagnosed(1.0)`` keeps
      the limits in each batch.
    * Divided by their sum, weights ``w**gamma``, cautious or smoothed, do not feel a constant in the
      log-ratios. Reshapes with bounds on w do: clips, masks, truncation, defensive weights.

    References
    ----------
    [Vehtari2024]_; [Kong1992]_.

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
    of_kind("reshape", reshape, Reshape)
    of_kind("schedule", schedule, Schedule)
    of_kind("state", state, State)
    of_kind("limits", limits, Limits)
    batch = Batch(Draws.of(log_w, advantage, where), reshape, limits)
    state = batch.following(schedule, state)
    return state, step_of(batch, reshape.at(state.gamma), normalize, level)


def step_of(batch: Batch, reshape: Reshape, normalize: Normalize, level: Level) -> Step:
    """Weigh the draws of a batch by a reshape as it is, and diagnose them."""
    one_of("normalize", normalize, Normalize)
    one_of("level", level, Level)
    draws, n = batch.draws, batch.n
    if n == 0:
        return empty_step(draws, reshape.exponent)
    used = batch.reshaped(reshape)
    by_count = np.exp(np.minimum(used.log_f, LARGEST)) / n if normalize == "count" else None
    shares = used.log_f if type(reshape) is Power else np.empty(n)  # nobody else has that array
    numbers = measured(batch, reshape, used, normalize, level, shares)
    factors = shares if by_count is None else by_count
    arrays = {"coefficients": draws.spread(factors * used.signal), "weights": draws.spread(factors)}
    return Step.of_fields(arrays | numbers)


def measured(
    batch: Batch, reshape: Reshape, made: Used, normalize: Normalize, level: Level, shares: Floats
) -> dict[str, Any]:
    """`METRICS` of a batch with draws, not all of them floats.

    Shares, if not empty, are filled with the weights over their sum; they may be log_f itself.
    """
    draws, n = batch.draws, batch.n
    khat_used, _ = tails.khat(batch.rows.holding(made.log_f[None]), batch.lengths, _ONE)
    log_bound = log(reshape.bound) if reshape.bound > 0.0 else -inf
    raw = steps.of_ratios(draws.log_w, made.signal)
    used = steps.of_weights(made.log_f, draws.log_w, made.signal, log_bound - NEAR_BOUND, shares)
    tempered_ess = raw.ess if made.tempered_ess is None else made.tempered_ess
    log_mean = used.log_total - log(n)
    offset, offset_z = _offset(raw, n)
    zero = used.zero / n
    thin = normalize == "count" and log_mean < log(STALL)
    q01, q50, q99 = _quantiles(draws.log_w)
    known = raw.ess >= MANY_DRAWS
    heard = known and raw.negative >= HEARD
    trusted = known and batch.khat < GOOD_KHAT and level != "geometric"
    return {
        "gamma": reshape.exponent,
        "ess_ratio": used.ess / n,
        "ess_ratio_tempered": tempered_ess / n,
        "ess_ratio_raw": raw.ess / n,
        "pareto_k": batch.khat,
        "pareto_k_used": khat_used.item(),
        "gamma_batch": batch.gamma,
        "max_weight": used.largest,
        "mean_weight": exp(min(log_mean, LARGEST)),
        "bias_proxy": used.bias,
        "fraction_modified": used.modified / n,
        "fraction_zero": zero,
        "fraction_saturated": used.saturated / n,
        "negative_share": used.negative,
        "negative_share_raw": raw.negative,
        "log_w_q01": q01,
        "log_w_q50": q50,
        "log_w_q99": q99,
        "log_w_max": raw.largest,
        "kl": raw.kl,
        "kl_k3": raw.kl_k3,
        "chi2": expm1(min(raw.log_total_squared - log(n), LARGEST)),
        "offset": offset,
        "offset_z": offset_z,
        "n": n,
        "n_nonfinite": draws.left_out,
        "alarm_offset": int(trusted and abs(offset) > OFFSET and abs(offset_z) > OFFSET_Z),
        "alarm_stall": int(1.0 - zero < STALL or thin),
        "alarm_one_draw": int(used.ess < FEW_DRAWS or used.largest > ONE_DRAW),
        "alarm_silenced": int(heard and used.negative < SILENCED * raw.negative),
        "alarm_stale": int(batch.gamma < STALE),
    }


@dataclass(frozen=True)
class Found(Reshape):
    """Weights that something else made of those of draws: for a diagnosis."""

    found: Any

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return self.found

    @property
    def bound(self) -> float:
        return inf


def compare_weights(
    log_w: Any,
    log_used: Any,
    advantage: Any = 1.0,
    *,
    limits: Limits = _LIMITS,
    level: Level = "sequence",
    where: Any = None,
) -> Step:
    """Diagnose weights that something else made of importance weights, beside these.

    A diagnosis of clipped weights cannot see what was clipped: `Step.ess_ratio_raw` and `Step.pareto_k` are
    those of w, `Step.ess_ratio` and `Step.pareto_k_used` those of the weights used.

    Parameters
    ----------
    log_w : array_like
        Log-ratios of draws, any shape; all are one sample.
    log_used : array_like of that shape
        Log of the weights that were used, -inf for draws that were masked.
    advantage : array_like, default 1
        Advantages or rewards, as for `take_step`.
    limits : Limits
        Constraints on `Step.gamma_batch`.
    level : {"sequence", "token", "geometric"}, default "sequence"
        What the ratios are of, see `take_step`.
    where : array_like of bool, optional
        Draws that there are, see `take_step`.

    Returns
    -------
    Step
        Weights are divided by the number of draws.

    Raises
    ------
    ValueError
        If shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory.

    Notes
    -----
    * Draws with a NaN or +inf log-ratio, or with a used weight that is NaN or +inf, are left out and counted.
    * A used weight within 1e-5 of w, relatively, is w, which was rounded: `Step.fraction_modified`.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl import compare_weights
    >>> log_w = np.log([0.5, 0.5, 1.0, 20.0])
    >>> step = compare_weights(log_w, np.minimum(log_w, np.log(2.0)))
    >>> round(step.ess_ratio, 3), round(step.ess_ratio_raw, 3)
    (0.727, 0.301)
    """
    of_kind("limits", limits, Limits)
    ratios = real_array(log_w, "log_w")[0].astype(np.float64)
    used = real_array(log_used, "log_used")[0].astype(np.float64)
    if used.shape != ratios.shape:
        msg = f"log_used must have log_w's shape {ratios.shape}, got {used.shape}"
        raise ValueError(msg)
    with np.errstate(invalid="ignore"):  # -inf of both
        used = np.where(np.abs(used - ratios) < ROUNDED, ratios, used)
    draws = Draws.of(np.where(used < inf, ratios, np.nan), advantage, where)
    found = Found(draws.only(used))
    return step_of(Batch(draws, found, limits), found, "count", level)


def _offset(raw: Any, n: int) -> tuple[float, float]:
    """Log of the mean weight, and the same in standard errors."""
    log_mean = raw.log_total - log(n)
    variance = mean_variance(raw.ess, n)
    if log_mean == 0.0 or not variance > 0.0:
        return log_mean, copysign(inf, log_mean) if log_mean else 0.0
    return log_mean, log_mean / sqrt(variance)


def _quantiles(log_w: Floats) -> list[float]:
    """The order statistics at 1, 50 and 99 %, outwards where a rank falls between two."""
    last = log_w.size - 1
    low = int(0.01 * last)
    return steps.order_statistics(log_w, [last - low, last - last // 2, low])


def empty_step(draws: Draws, gamma: float) -> Step:
    """The step of a batch without a draw that can be used."""
    numbers: dict[str, Any] = dict.fromkeys(METRICS, nan) | {"gamma": gamma, "n": 0}
    numbers |= {name: 0 for name in METRICS if name.startswith("alarm")}
    numbers |= {"n_nonfinite": draws.left_out, "alarm_stall": 1}
    return Step(draws.spread(draws.log_w), draws.spread(draws.log_w), **numbers)
