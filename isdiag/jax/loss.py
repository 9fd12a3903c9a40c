"""The loss of off-policy learning under JAX's transformations."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# JAX's annotations have gaps.

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from isdiag._core.boundary import mask_array
from isdiag._core.check import of_kind, one_of
from isdiag.jax.callback import default_float, on_host, real, shaped, widened
from isdiag.rl.batch import Limits
from isdiag.rl.calls import check_call
from isdiag.rl.layouts import (
    Level,
    advantage_shape,
    check_padded,
    check_tokens,
    one_a_sequence,
    refuse_geometric,
)
from isdiag.rl.presets import PERPLEXITIES, Preset
from isdiag.rl.ratios import log_ratio
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Fixed, Schedule, State
from isdiag.rl.step import METRICS, Normalize, take_step
from isdiag.rl.tokens import Tokens

AxisName = str | tuple[str, ...] | None

_POWER, _FIXED, _LIMITS = Power(), Fixed(), Limits()


class LossAux(NamedTuple):
    """What comes with the loss; a pytree of arrays.

    Attributes
    ----------
    state : State
        The schedule's state for the next batch.
    metrics : dict of str to jax.Array
        The numbers of `isdiag.rl.Step` by their names, `isdiag.rl.METRICS`, as floats.
    ok : jax.Array of bool
        Whether the loss is finite and rests on at least one draw. If not, skip the update.
    """

    state: State
    metrics: dict[str, jax.Array]
    ok: jax.Array


def is_reshape_loss(
    log_pi: Any,
    log_mu: Any,
    advantages: Any,
    mask: Any = None,
    *,
    cu_seqlens: Any = None,
    state: State | None = None,
    reshape: Reshape = _POWER,
    schedule: Schedule = _FIXED,
    limits: Limits = _LIMITS,
    level: Level = "sequence",
    normalize: Normalize = "batch",
    preset: Preset | None = None,
    log_proximal: Any = None,
    axis_name: AxisName = None,
) -> tuple[jax.Array, LossAux]:
    """Loss of off-policy learning with reshaped importance weights, and the schedule's next state.

    The loss is minus the sum of ``coefficient * log pi`` over the draws, with the coefficients of
    `isdiag.rl.take_step` as constants. Its gradient is minus the reshaped policy gradient; its value means
    nothing.

    Parameters
    ----------
    log_pi : array_like, shape (B, T), (B,) or (N,)
        Log-probabilities of the tokens under the policy that learns, in nats: padded, packed beside
        `cu_seqlens`, or one number a draw. Only through these does a gradient flow.
    log_mu : array_like of log_pi's shape
        The same under the policy that sampled.
    advantages : array_like, shape (), (B,), (B, 1) or (B, T)
        Advantages or rewards; that of a sequence is that of all its tokens. Those of tokens must be the same
        at all of a sequence that count, but for the level "token".
    mask : array_like of log_pi's shape, optional
        Tokens that count, bool or 0 and 1. What the others hold has no effect.
    cu_seqlens : array_like of int, shape (B + 1,), optional
        Where each packed sequence starts, and where the last one ends; it may be traced. Tokens after that
        belong to none, so that a shape can stay while lengths change, as `jax.jit` wants; nor do sequences
        without a token count. Advantages of tokens are then for the level "token" only.
    state : State, optional
        What the schedule remembers: ``State(gamma)`` at first, then `LossAux.state`.
    reshape : Reshape, default Power()
        Maps weights; its exponent, if it has one, is set by the schedule.
    schedule : Schedule, default Fixed()
        Says which gamma comes next.
    limits : Limits, default Limits()
        Constraints on the gamma that the batch allows.
    level : {"sequence", "token", "geometric"}, default "sequence"
        What a draw is and what its log-ratio and log-likelihood are: of a sequence the sum over its tokens
        or ("geometric") the mean, or each token by itself. With shape (B,) each number is a draw.
    normalize : {"batch", "count"}, default "batch"
        Divide the weights by their sum or by the number of draws.
    preset : isdiag.rl.presets.Preset, optional
        A published method whole; `reshape`, `level` and `normalize` then stay at their defaults. `state`,
        `schedule` and `limits` set the gamma of one that has it, `isdiag.rl.presets.adaptive`; of others the
        state only counts steps and may be left out.
    log_proximal : array_like of log_pi's shape, optional
        For a preset: the same under the proximal policy.
    axis_name : str or tuple of str, optional
        Mapped axes, of `jax.shard_map` say, whose shards are one batch: weights, state and metrics are those
        of the joined batch, the same on every device. Within `jax.shard_map` it must be given; ``()`` makes
        each shard a batch of its own, with a state and metrics of its own.

    Returns
    -------
    loss : jax.Array, shape ()
        Of the precision of `log_pi`, float32 at least. With `axis_name` its mean over the devices is the
        joined batch's loss.
    aux : LossAux
        The next state, the metrics and whether to use the loss.

    Raises
    ------
    ValueError
        While tracing, if shapes do not fit, `level` or `normalize` is unknown, `axis_name` or the state is
        missing, or a preset comes with what it says itself.
    TypeError
        While tracing, if arrays are not real, or `reshape`, `schedule` or `limits` is not what it must be.

    Notes
    -----
    * Half precision is widened to float32 before sums over tokens; ratios are summed in float64.
    * A sequence without a token that counts is no draw. Draws with a NaN or +inf log-ratio, or an advantage
      that is not finite, are left out and counted, `metrics["n_nonfinite"]`.
    * Where a coefficient is 0 the log-likelihood has no effect, be it -inf or NaN.
    * What `take_step` refuses with a ValueError (`RewardWeighted` without tau and a reward that is not
      positive, `AlphaDivergence` and a gamma of 1, traced advantages that differ within a sequence) makes
      loss, gradient and metrics NaN and `ok` False, and leaves the state as it was. So do a state with a NaN
      gamma and, where the mask is traced, one that holds other numbers than 0 and 1, and traced
      `cu_seqlens` that do not rise from 0 within `log_pi`.
    * State and metrics have the precision that JAX is set to; in float32 a count is exact up to 2**24.
    * An evaluation leaves `LossAux.state` aside.
    * `jax.vmap` calls back once for each batch (``vmap_method="sequential"``).

    References
    ----------
    [Vehtari2024]_; [Owen2013]_, section 9.9.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from isdiag.jax import is_reshape_loss
    >>> from isdiag.rl import State
    >>> log_pi, log_mu = (
    ...     jnp.log(jnp.array([[0.5, 0.2, 0.9], [0.1, 1.0, 0.5]])),
    ...     jnp.full((2, 3), -1.0),
    ... )
    >>> mask, advantages = jnp.array([[1, 1, 0], [1, 1, 1]]), jnp.array([1.0, -1.0])
    >>> step = jax.jit(jax.value_and_grad(is_reshape_loss, has_aux=True))
    >>> (loss, aux), gradient = step(log_pi, log_mu, advantages, mask, state=State(0.5))
    >>> print(np.asarray(gradient).round(2), aux.ok)
    [[-0.46 -0.46  0.  ]
     [ 0.54  0.54  0.54]] True
    >>> print(f"{aux.metrics['ess_ratio']:.3f}, gamma {aux.state.gamma:.2f} at step {aux.state.step}")
    0.994, gamma 0.50 at step 1
    """
    log_pi, log_mu = widened(log_pi, "log_pi"), widened(log_mu, "log_mu")
    signal = widened(advantages, "advantages")
    if not (mask is None or isinstance(mask, Tracer)):
        mask = mask_array(np.asarray(mask), "mask")
    counting = jnp.ones(log_pi.shape, np.bool_) if mask is None else jnp.asarray(mask)
    one_of("level", level, Level)
    one_of("normalize", normalize, Normalize)
    of_kind("reshape", reshape, Reshape)
    of_kind("schedule", schedule, Schedule)
    of_kind("limits", limits, Limits)
    check_tokens(log_pi.shape, log_mu.shape, counting.shape)
    near = None if log_proximal is None else widened(log_proximal, "log_proximal")
    beside = {
        "reshape": reshape is not _POWER,
        "level": level != "sequence",
        "normalize": normalize != "batch",
    }
    check_call(preset, near, beside)
    if preset is not None:
        level = "token"
        if state is None and preset.rest is None:
            state = State(1.0)
    if state is None:
        msg = "state must be given: State(gamma) at first, then LossAux.state"
        raise ValueError(msg)
    cuts = None if cu_seqlens is None else _cuts(cu_seqlens, log_pi.shape)
    count = log_pi.shape[0]
    if cuts is None:
        check_padded(log_pi.shape)
        if log_pi.ndim == 1:
            refuse_geometric(level)
    else:
        count = cuts.shape[0] - 1
    draws = log_pi.shape if level == "token" else (count,)
    signal = signal.reshape(advantage_shape(signal.shape, log_pi.shape if cuts is None else draws, count))
    known = not isinstance(signal, Tracer) and not isinstance(counting, Tracer)
    if known and level != "token" and signal.ndim == 2:
        values, kept = (np.asarray(cast("Any", array)) for array in (signal, counting))
        one_a_sequence(values, kept != 0, "advantages")
    gamma, step = _arrays_of(state)
    if axis_name is None and jax.sharding.get_abstract_mesh().manual_axes:
        msg = (
            "within shard_map each device sees a shard: name the axes whose shards are one batch, "
            "axis_name=..., or give () if each shard is a batch with a state of its own"
        )
        raise ValueError(msg)

    if preset is not None:
        columns = _columns(log_pi, log_mu, near, signal, counting, cuts, count)
        coefficients, after, metrics = _of_preset(
            preset, schedule, limits, columns, cuts, gamma, step, axis_name
        )
        return _finished(log_pi, counting != 0, "token", cuts, coefficients, after, metrics, axis_name)
    arrays: list[Any] = [log_pi, log_mu, counting, signal, *([] if cuts is None else [cuts])]
    packed = cuts is not None  # shards, whose cuts start anew, stay apart
    if axis_name:
        arrays = [
            jax.lax.all_gather(a, axis_name, tiled=not packed) if a.ndim or packed else a for a in arrays
        ]
    elif packed:
        arrays = [a[None] for a in arrays]
    joined = (arrays[0].shape[0] * draws[0],) if packed else (arrays[0].shape[0], *draws[1:])
    result: Any = (
        shaped(joined, log_pi.dtype),
        State(shaped((), gamma.dtype), shaped((), step.dtype)),
        dict.fromkeys(METRICS, shaped((), default_float())),
    )
    how = {"reshape": reshape, "schedule": schedule, "limits": limits, "normalize": normalize}
    take = partial(_step_of_packed if packed else _step, level=level, **how)
    coefficients, after, metrics = on_host(take, result, *arrays, gamma, step, vmap_method="sequential")
    if axis_name:
        coefficients = _own_part(coefficients, draws[0], axis_name)
    return _finished(log_pi, counting != 0, level, cuts, coefficients, after, metrics, axis_name)


def _finished(
    log_pi: Any,
    kept: Any,
    level: Level,
    cuts: Any,
    coefficients: Any,
    after: State,
    metrics: Any,
    axis_name: AxisName,
) -> tuple[jax.Array, LossAux]:
    likelihood = _likelihood(log_pi, kept, level, cuts)
    loss = -jnp.where(coefficients != 0.0, coefficients * likelihood, 0.0).sum()
    ok = jnp.isfinite(loss)
    if axis_name:  # devices must agree on whether to update
        ok = _everywhere(ok, axis_name)
    return loss, LossAux(after, metrics, ok & (metrics["n"] > 0.0))


def _columns(
    log_pi: Any, log_mu: Any, near: Any, signal: Any, kept: Any, cuts: Any, count: int
) -> list[jax.Array]:
    """Numbers of tokens, of log_pi's shape: log-probabilities, advantage, mask, and the sequence of each."""
    if cuts is None:
        row = jnp.arange(count).reshape(-1, *[1] * (log_pi.ndim - 1)) + jnp.zeros(log_pi.shape, np.int32)
    else:
        place = jnp.arange(log_pi.shape[0])
        row = jnp.searchsorted(cuts, place, side="right") - 1
        kept = jnp.where(place < cuts[-1], kept, jnp.zeros_like(kept))
    if signal.shape != log_pi.shape:
        signal = jnp.broadcast_to(signal, (count,))[jnp.minimum(row, count - 1)]
    nears = [] if near is None else [near]
    if near is not None:
        check_tokens(log_pi.shape, near.shape, None)
    return [log_pi, log_mu, *nears, signal, kept, row]


def _of_preset(
    preset: Preset,
    schedule: Schedule,
    limits: Limits,
    columns: list[jax.Array],
    cuts: Any,
    gamma: Any,
    step: Any,
    axis_name: AxisName,
) -> Any:
    """Coefficients of tokens, state and metrics."""
    shape, dtype = columns[0].shape, columns[0].dtype
    columns = [column.reshape(-1) for column in columns]
    starts = [] if cuts is None else [cuts[None]]
    if axis_name:
        shards: Any = jax.lax.psum(1, axis_name)
        columns[-1] = columns[-1] * shards + jax.lax.axis_index(axis_name)  # those of two shards must differ
        columns = [jax.lax.all_gather(column, axis_name, tiled=True) for column in columns]
        starts = [jax.lax.all_gather(cut, axis_name, tiled=True) for cut in starts]
    result: Any = (
        shaped(columns[0].shape, dtype),
        State(shaped((), gamma.dtype), shaped((), step.dtype)),
        dict.fromkeys((*METRICS, *PERPLEXITIES), shaped((), default_float())),
    )
    take = partial(_step_of_preset, preset=preset, schedule=schedule, limits=limits, size=shape[0])
    coefficients, after, metrics = on_host(
        take, result, *columns, *starts, gamma, step, vmap_method="sequential"
    )
    if axis_name:
        coefficients = _own_part(coefficients, int(np.prod(shape)), axis_name)
    return coefficients.reshape(shape), after, metrics


def _step_of_preset(*arrays: Any, preset: Preset, schedule: Schedule, limits: Limits, size: int) -> Any:
    *columns, gamma, step = map(np.asarray, arrays)
    starts = columns.pop() if columns[-1].ndim == 2 else ()
    pi, mu, *near, signal, kept, row = columns
    out = np.zeros(pi.shape)
    try:
        for cuts in starts:
            _check_cuts(cuts, size)
        there = mask_array(kept, "mask")
        given = (a[there].astype(np.float64) for a in (pi, mu, *near))
        log_pi, log_mu, *proximal = given
        tokens = Tokens.of(
            log_pi,
            log_mu,
            proximal[0] if proximal else None,
            signal[there].astype(np.float64),
            row[there].astype(np.int64),
        )
        before = State(gamma.item(), step.item())
        state, weighed = preset.following(tokens, schedule, before, limits)
        out[there] = weighed.coefficients
    except ValueError:
        refused, state, _ = _refused(pi.shape, gamma, step)
        return refused, state, dict.fromkeys((*METRICS, *PERPLEXITIES), np.nan)
    return out, state, weighed.metrics()


def _cuts(cu_seqlens: Any, tokens: Any) -> jax.Array:
    cuts = real(cu_seqlens, "cu_seqlens")
    if len(tokens) != 1 or cuts.ndim != 1 or cuts.shape[0] < 2 or not jnp.issubdtype(cuts.dtype, np.integer):
        msg = (
            f"cu_seqlens must be at least two ints for a 1-D log_pi, got shape {cuts.shape} of {cuts.dtype} "
            f"for {tuple(tokens)}"
        )
        raise ValueError(msg)
    if not isinstance(cuts, Tracer):
        _check_cuts(np.asarray(cast("Any", cuts)), tokens[0])
    return cuts


def _check_cuts(cuts: Any, size: int) -> None:
    if cuts[0] != 0 or cuts[-1] > size or (np.diff(cuts) < 0).any():
        msg = f"cu_seqlens must rise from 0 to at most the size of log_pi, {size}, got {cuts.tolist()}"
        raise ValueError(msg)


def _likelihood(log_pi: Any, kept: Any, level: Level, cuts: Any) -> Any:
    """Log-likelihoods of the draws; tokens that do not count have no part in them."""
    tokens = jnp.where(kept, log_pi, 0.0)
    if level == "token" or (cuts is None and tokens.ndim == 1):
        return tokens
    if cuts is None:
        total, lengths = tokens.sum(axis=1), kept.sum(axis=1)
    else:
        # That of a token after the last cut is out of range, and segment_sum leaves it out.
        row = jnp.searchsorted(cuts, jnp.arange(tokens.shape[0]), side="right") - 1
        total, lengths = (
            jax.ops.segment_sum(each, row, num_segments=cuts.shape[0] - 1)
            for each in (tokens, kept.astype(np.int32))
        )
    return total / jnp.maximum(lengths, 1) if level == "geometric" else total


def _own_part(coefficients: Any, count: int, axis_name: Any) -> Any:
    """Coefficients of this device, scaled so that the mean of losses over devices is the whole batch's."""
    start = jax.lax.axis_index(axis_name) * count
    shards: Any = jax.lax.psum(1, axis_name)
    return shards * jax.lax.dynamic_slice_in_dim(coefficients, start, count)


def _everywhere(ok: Any, axis_name: Any) -> Any:
    """Whether it holds on all devices."""
    return jax.lax.psum((~ok).astype(np.int32), axis_name) == 0


def _step(
    log_pi: Any, log_mu: Any, kept: Any, signal: Any, gamma: Any, step: Any, *, level: Level, **how: Any
) -> Any:
    """Coefficients, state and metrics of `isdiag.rl.take_step`; NaN and the old state if it refuses."""
    kept, signal = np.asarray(kept), np.asarray(signal)  # JAX must not compute while it calls back
    shape = kept.shape if level == "token" else kept.shape[:1]
    try:
        log_w = log_ratio(log_pi, log_mu, kept, level=level)
    except ValueError:
        return _refused(shape, gamma, step)
    return _taken(log_w, signal, kept, shape, gamma, step, level, how)


def _step_of_packed(
    log_pi: Any,
    log_mu: Any,
    kept: Any,
    signal: Any,
    cuts: Any,
    gamma: Any,
    step: Any,
    *,
    level: Level,
    **how: Any,
) -> Any:
    """As `_step`, of packed shards with cuts of their own, an axis in front."""
    log_pi, log_mu, kept, signal, cuts = map(np.asarray, (log_pi, log_mu, kept, signal, cuts))
    shards, size = log_pi.shape
    count = cuts.shape[1] - 1
    draws = size if level == "token" else count
    try:
        log_w, there = np.full((shards, draws), np.nan), np.zeros((shards, draws), np.bool_)
        signs = np.zeros((shards, draws))
        for i, starts in enumerate(cuts):
            _check_cuts(starts, size)
            end = int(starts[-1])
            part = slice(end if level == "token" else None)
            counting = mask_array(kept[i, :end], "mask")
            log_w[i, part] = log_ratio(
                log_pi[i, :end], log_mu[i, :end], counting, cu_seqlens=starts, level=level
            )
            of_sequence = np.diff(np.append(0, np.cumsum(counting))[starts])
            there[i, part] = counting if level == "token" else of_sequence > 0
            given = signal[i]
            if level == "token" and given.shape == (count,) != (size,):
                given = np.repeat(given, np.diff(starts))
            elif given.shape == (size,):
                given = given[part]
            signs[i, part] = given
    except ValueError:
        return _refused((shards * draws,), gamma, step)
    shape = (shards * draws,)
    return _taken(log_w.ravel(), signs.ravel(), there.ravel(), shape, gamma, step, level, how)


def _taken(
    log_w: Any, signal: Any, there: Any, shape: Any, gamma: Any, step: Any, level: Level, how: Any
) -> Any:
    try:
        state, taken = take_step(
            log_w, signal, state=State(gamma.item(), step.item()), where=there, level=level, **how
        )
    except ValueError:
        return _refused(shape, gamma, step)
    return taken.coefficients, state, taken.metrics()


def _refused(shape: Any, gamma: Any, step: Any) -> Any:
    return np.full(shape, np.nan), State(gamma.item(), step.item()), dict.fromkeys(METRICS, np.nan)


def _arrays_of(state: Any) -> tuple[jax.Array, jax.Array]:
    """The state as 0-d arrays, whose dtypes a loop can keep."""
    gamma, step = real(state.gamma, "state.gamma"), real(state.step, "state.step")
    if gamma.shape or step.shape or not jnp.issubdtype(step.dtype, np.integer):
        msg = f"state must hold two numbers, the second an integer, got {state!r}"
        raise ValueError(msg)
    return gamma.astype(jnp.result_type(gamma, float)), step.astype(jnp.result_type(step, int))
