"""Choose gamma under JAX's transformations."""
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
from isdiag._core.boundary import rows_of
from isdiag._core.check import one_of
from isdiag._core.typing import Positions, StabilityRule
from isdiag.jax.callback import default_float, on_host, real, shaped
from isdiag.rl.batch import Limits


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


def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = GOOD_KHAT,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: StabilityRule = "joint",
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Positions = -1,
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
    [Vehtari2024]_; [Kong1992]_.

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
    array = real(log_w, "log_w")
    limits = Limits(k_max, ess_min, gamma_max)
    one_of("rule", rule, StabilityRule)
    rows = rows_of(np.empty(array.shape), axis, None)  # for its checks: nothing looks at the values
    tails.lengths_of(rows, r_eff, tail_length)
    # Counted from the end, where they stay when vmap puts an axis in front.
    axes = tuple(a - array.ndim for a in normalize_axis_tuple(axis, array.ndim))

    result: Any = GammaSelection(
        *[shaped(rows.batch_shape, default_float())] * 7,
        n=shaped(rows.batch_shape, jnp.result_type(int)),
        limited_by=shaped(rows.batch_shape, np.int8),
        status=shaped(rows.batch_shape, np.int8),
    )
    select = partial(_select, axis=axes, limits=limits, rule=rule, r_eff=r_eff, length=tail_length)
    return on_host(select, result, array, vmap_method="expand_dims")


def _select(
    log_w: Any, *, axis: Positions, limits: Limits, rule: StabilityRule, r_eff: Any, length: int | None
) -> GammaSelection:
    """`isdiag.select_gamma` without its warning, and limits as numbers."""
    rows = rows_of(log_w, axis, None)
    found = selection.select(rows, tails.lengths_of(rows, r_eff, length), limits, rule, 1)
    fields: Any = (found[name].reshape(rows.batch_shape) for name in GammaSelection._fields)
    return GammaSelection(*fields)
