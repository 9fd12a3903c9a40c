"""isdiag inside `jax.jit`, `jax.grad` and `jax.vmap`: choose gamma, and the loss of off-policy learning.

An adapter: the mathematics runs in NumPy and Numba on the host, in a `jax.pure_callback`. Nothing is raised
or warned there: what became of the data is told by statuses and by `LossAux.ok`.
"""
# pyright: reportUnknownMemberType=false
# JAX's annotations have gaps.

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from isdiag._core import selection, tails
from isdiag._core.bands import GOOD_KHAT
from isdiag._core.boundary import real_array, rows_of
from isdiag._core.check import one_of
from isdiag._core.typing import Axis, StabilityRule
from isdiag.rl.ratios import Level, log_ratio, refuse_geometric
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Fixed, Schedule, State
from isdiag.rl.step import METRICS, Limits, Normalize, take_step

__all__ = ["GammaSelection", "LossAux", "is_reshape_loss", "select_gamma"]

_POWER, _FIXED, _LIMITS = Power(), Fixed(), Limits()


class GammaSelection(NamedTuple):
    """A chosen gamma, what set it, and the diagnostics before and after; a pytree of arrays.

    All have the batch shape. The first seven are floats; see `isdiag.GammaSelection` for what they are.

    Attributes
    ----------
    gamma, gamma_psis, gamma_ess, khat, khat_tempered, ess, ess_ratio : jax.Array
        float32, or float64 if JAX has 64-bit types enabled.
    n : jax.Array of int
        How many draws count.
    limited_by : jax.Array of int8
        What set gamma: 0 for "none", 1 for "psis", 2 for "ess", 3 for "max".
    status : jax.Array of int8
        What became of the row: codes of `isdiag.Status`.
    """

    gamma: jax.Array
    gamma_psis: jax.Array
    gamma_ess: jax.Array
    khat: jax.Array
    khat_tempered: jax.Array
    ess: jax.Array
    ess_ratio: jax.Array
    n: jax.Array
    limited_by: jax.Array
    status: jax.Array


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


def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = GOOD_KHAT,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: StabilityRule = "joint",
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Axis = -1,
) -> GammaSelection:
    """The largest gamma for which the weights ``w**gamma`` can be trusted, under JAX's transformations.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight. The only argument that may
        be traced.
    k_max : float or None, default 0.7
        Largest khat allowed, > 0; None for `isdiag.khat_threshold` of n, inf for no limit.
    ess_min : float, default 0.3
        Smallest ``ESS / n`` allowed, in [0, 1].
    gamma_max : float, default 1
        Largest gamma allowed, > 0.
    rule : {"joint", "refit"}, default "joint"
        See `isdiag.select_gamma`, whose rule "mse" is not offered here.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.

    Returns
    -------
    GammaSelection
        A pytree of arrays.

    Raises
    ------
    ValueError
        While tracing, if an argument other than `log_w` is out of range or does not fit its shape.
    TypeError
        While tracing, if `log_w` does not hold real numbers.

    Notes
    -----
    * Rows that hold NaN or +inf have status 6, `Status.NOT_FINITE`, and NaN elsewhere.
    * The gradient is zero, in forward and in reverse mode: gamma is taken as a constant.
    * `jax.vmap` adds to the batch of the one callback (``vmap_method="expand_dims"``); rows are not looped
      over in Python.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58. Kong, A. (1992). A
    note on importance sampling using standardized weights.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> from isdiag import Status
    >>> from isdiag.jax import select_gamma
    >>> log_w = np.random.default_rng(1).normal(scale=3.0, size=(2, 1000))
    >>> log_w[1, 0] = np.nan
    >>> chosen = jax.jit(select_gamma)(log_w)
    >>> [(f"{gamma:.3f}", Status(code).name) for gamma, code in zip(chosen.gamma, chosen.status)]
    [('0.343', 'OK'), ('nan', 'NOT_FINITE')]
    """
    array = _real(log_w, "log_w")
    limits = Limits(k_max, ess_min, gamma_max)
    one_of("rule", rule, StabilityRule)
    rows = rows_of(np.empty(array.shape), axis, None)  # for its checks: nothing looks at the values
    tails.lengths_of(rows, r_eff, tail_length)
    # Counted from the end, where they stay when vmap puts an axis in front.
    axes = tuple(a - array.ndim for a in normalize_axis_tuple(axis, array.ndim))

    result: Any = GammaSelection(
        *[_shaped(rows.batch_shape, _float())] * 7,
        n=_shaped(rows.batch_shape, jnp.result_type(int)),
        limited_by=_shaped(rows.batch_shape, np.int8),
        status=_shaped(rows.batch_shape, np.int8),
    )
    select = partial(_select, axis=axes, limits=limits, rule=rule, r_eff=r_eff, length=tail_length)
    return _on_host(select, result, array, vmap_method="expand_dims")


def is_reshape_loss(
    log_pi: Any,
    log_mu: Any,
    advantages: Any,
    mask: Any = None,
    *,
    state: State,
    reshape: Reshape = _POWER,
    schedule: Schedule = _FIXED,
    limits: Limits = _LIMITS,
    level: Level = "sequence",
    normalize: Normalize = "batch",
) -> tuple[jax.Array, LossAux]:
    """Loss of off-policy learning with reshaped importance weights, and the schedule's next state.

    The loss is minus the sum of ``coefficient * log pi`` over the draws, with the coefficients of
    `isdiag.rl.take_step` as constants. Its gradient is minus the reshaped policy gradient; its value means
    nothing.

    Parameters
    ----------
    log_pi : array_like, shape (B, T) or (B,)
        Log-probabilities of the tokens under the policy that learns, in nats, or one number a draw. Only
        through these does a gradient flow.
    log_mu : array_like of log_pi's shape
        The same under the policy that sampled.
    advantages : array_like, shape () or (B,), or (B, T) for the level "token"
        Advantages or rewards; that of a sequence is that of all its tokens.
    mask : array_like of log_pi's shape, optional
        Tokens that count: True, or a number other than 0. What the others hold has no effect.
    state : State
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

    Returns
    -------
    loss : jax.Array, shape ()
        Of the precision of `log_pi`, float32 at least.
    aux : LossAux
        The next state, the metrics and whether to use the loss.

    Raises
    ------
    ValueError
        While tracing, if shapes do not fit, or `level` or `normalize` is unknown.
    TypeError
        While tracing, if arrays are not real, or `reshape`, `schedule` or `limits` is not what it must be.

    Notes
    -----
    * Half precision is widened to float32 before sums over tokens; ratios are summed in float64.
    * A sequence without a token that counts is no draw. Draws with a NaN or +inf log-ratio, or an advantage
      that is not finite, are left out and counted, `metrics["n_nonfinite"]`.
    * Where a coefficient is 0 the log-likelihood has no effect, be it -inf or NaN.
    * What `take_step` refuses with a ValueError (`RewardWeighted` without tau and a reward that is not
      positive, `AlphaDivergence` and a gamma of 1) makes loss, gradient and metrics NaN and `ok` False, and
      leaves the state as it was. So does a state with a NaN gamma.
    * State and metrics have the precision that JAX is set to; in float32 a count is exact up to 2**24.
    * `jax.vmap` calls back once for each batch (``vmap_method="sequential"``).

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58. Owen, A. B. (2013).
    Monte Carlo theory, methods and examples, section 9.9.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from isdiag.jax import is_reshape_loss
    >>> from isdiag.rl import State
    >>> log_pi, log_mu = jnp.log(jnp.array([[0.5, 0.2, 0.9], [0.1, 1.0, 0.5]])), jnp.full((2, 3), -1.0)
    >>> mask, advantages = jnp.array([[1, 1, 0], [1, 1, 1]]), jnp.array([1.0, -1.0])
    >>> step = jax.jit(jax.value_and_grad(is_reshape_loss, has_aux=True))
    >>> (loss, aux), gradient = step(log_pi, log_mu, advantages, mask, state=State(0.5))
    >>> print(np.asarray(gradient).round(2), aux.ok)
    [[-0.46 -0.46  0.  ]
     [ 0.54  0.54  0.54]] True
    >>> print(f"{aux.metrics['ess_ratio']:.3f}, gamma {aux.state.gamma:.2f} at step {aux.state.step}")
    0.994, gamma 0.50 at step 1
    """
    log_pi, log_mu = _widened(log_pi, "log_pi"), _widened(log_mu, "log_mu")
    signal = _widened(advantages, "advantages")
    kept = jnp.ones(log_pi.shape, np.bool_) if mask is None else jnp.asarray(mask) != 0
    one_of("level", level, Level)
    one_of("normalize", normalize, Normalize)
    for given, kind in ((reshape, Reshape), (schedule, Schedule), (limits, Limits)):
        if not isinstance(given, kind):  # pyright: ignore[reportUnnecessaryIsInstance]
            msg = f"{kind.__name__.lower()} must be a {kind.__name__}, got {given!r}"
            raise TypeError(msg)
    if log_pi.ndim not in (1, 2) or not log_pi.shape == log_mu.shape == kept.shape:
        msg = (
            f"log_pi must have shape (B, T) or (B,), and log_mu and mask the same; got {log_pi.shape}, "
            f"{log_mu.shape} and {kept.shape}"
        )
        raise ValueError(msg)
    if log_pi.ndim == 1:
        refuse_geometric(level)
    draws = log_pi.shape if level == "token" else log_pi.shape[:1]
    if signal.shape not in ((), draws[:1], draws):
        msg = f"advantages of shape {signal.shape} do not fit draws of shape {draws}"
        raise ValueError(msg)
    gamma, step = _arrays_of(state)

    result: Any = (
        _shaped(draws, log_pi.dtype),
        State(_shaped((), gamma.dtype), _shaped((), step.dtype)),
        dict.fromkeys(METRICS, _shaped((), _float())),
    )
    how = {"reshape": reshape, "schedule": schedule, "limits": limits, "normalize": normalize}
    arrays = (log_pi, log_mu, kept, signal, gamma, step)
    take = partial(_step, level=level, **how)
    coefficients, after, metrics = _on_host(take, result, *arrays, vmap_method="sequential")

    likelihood = jnp.where(kept, log_pi, 0.0)
    if level != "token" and likelihood.ndim == 2:
        likelihood = likelihood.sum(axis=1)
        if level == "geometric":
            likelihood = likelihood / jnp.maximum(kept.sum(axis=1), 1)
    loss = -jnp.where(coefficients != 0.0, coefficients * likelihood, 0.0).sum()
    return loss, LossAux(after, metrics, jnp.isfinite(loss) & (metrics["n"] > 0.0))


def _select(
    log_w: Any, *, axis: Axis, limits: Limits, rule: StabilityRule, r_eff: Any, length: int | None
) -> GammaSelection:
    """`isdiag.select_gamma` without its warning, and limits as numbers."""
    rows = rows_of(log_w, axis, None)
    found = selection.select(rows, tails.lengths_of(rows, r_eff, length), limits, rule, 1)
    fields: Any = (found[name].reshape(rows.batch_shape) for name in GammaSelection._fields)
    return GammaSelection(*fields)


def _step(
    log_pi: Any, log_mu: Any, kept: Any, signal: Any, gamma: Any, step: Any, *, level: Level, **how: Any
) -> Any:
    """Coefficients, state and metrics of `isdiag.rl.take_step`; NaN and the old state if it refuses."""
    kept, signal = np.asarray(kept), np.asarray(signal)  # JAX must not compute while it calls back
    log_w = log_ratio(log_pi, log_mu, kept, level=level)
    used = kept.any(axis=1) if kept.ndim > log_w.ndim else kept
    signal = np.broadcast_to(signal.reshape(signal.shape + (1,) * (used.ndim - signal.ndim)), used.shape)
    state = State(gamma.item(), step.item())
    try:
        state, taken = take_step(log_w, signal, state=state, where=used, **how)
    except ValueError:
        return np.full(used.shape, np.nan), state, dict.fromkeys(METRICS, np.nan)
    return taken.coefficients, state, taken.metrics()


def _on_host(function: Any, like: Any, *arrays: Any, vmap_method: str) -> Any:
    """A function of arrays in CPU memory, with results like `like`; no gradient passes.

    Numbers of 64 bits cross as pairs of 32-bit words. Where `jax.enable_x64` holds in the caller's thread
    only, JAX would narrow them in the thread that calls back.
    """
    dtypes = [array.dtype for array in arrays]

    def call(*given: Any) -> Any:
        with np.errstate(all="ignore"):  # far from 1, ratios and narrowed results overflow to their limits
            return jax.tree.map(_host_words, like, function(*map(_host_whole, given, dtypes)))

    words = jax.lax.stop_gradient([_words(array) for array in arrays])
    result = jax.pure_callback(call, jax.tree.map(_words_like, like), *words, vmap_method=vmap_method)
    return jax.tree.map(_whole, like, result)


def _wide(array: Any) -> bool:
    return array.dtype.itemsize == 8


def _words(array: Any) -> Any:
    return jax.lax.bitcast_convert_type(array, np.uint32) if _wide(array) else array


def _host_whole(words: Any, dtype: Any) -> Any:
    return words if words.dtype == dtype else np.asarray(words).view(dtype)[..., 0]


def _host_words(like: Any, value: Any) -> Any:
    array = np.asarray(value, like.dtype)
    return array[..., None].view(np.uint32) if _wide(array) else array


def _words_like(like: Any) -> Any:
    return _shaped((*like.shape, 2), np.uint32) if _wide(like) else like


def _whole(like: Any, words: Any) -> Any:
    return jax.lax.bitcast_convert_type(words, like.dtype) if _wide(like) else words


def _real(x: Any, name: str) -> jax.Array:
    array = jnp.asarray(x)
    if array.dtype != jnp.bfloat16:
        real_array(np.empty(0, array.dtype), name)
    return array


def _widened(x: Any, name: str) -> jax.Array:
    array = _real(x, name)
    return array.astype(jnp.promote_types(array.dtype, np.float32))


def _shaped(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _float() -> Any:
    return jnp.result_type(float)


def _arrays_of(state: Any) -> tuple[jax.Array, jax.Array]:
    """The state as 0-d arrays, whose dtypes a loop can keep."""
    gamma, step = _real(state.gamma, "state.gamma"), _real(state.step, "state.step")
    if gamma.shape or step.shape or not jnp.issubdtype(step.dtype, np.integer):
        msg = f"state must hold two numbers, the second an integer, got {state!r}"
        raise ValueError(msg)
    return gamma.astype(jnp.result_type(gamma, float)), step.astype(jnp.result_type(step, int))
