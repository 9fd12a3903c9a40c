"""isdiag.jax: the same numbers as NumPy's functions, under jit, grad, vmap and scan."""

import os
import subprocess
import sys
from dataclasses import fields
from functools import cache, partial

import numpy as np
import pytest

import isdiag
from isdiag import Status, rl
from isdiag._core.result import LIMITS
from tests.helpers import optional
from tests.registry import EVERY_OBJECTIVE, ONE_OF_EACH_RESHAPE

jax = optional("jax")
import jax.numpy as jnp  # noqa: E402

import isdiag.jax as ij  # noqa: E402
from isdiag.jax import gamma  # noqa: E402

FLOATS = ("gamma", "gamma_psis", "gamma_ess", "khat", "khat_tempered", "ess", "ess_ratio")
each_reshape = pytest.mark.parametrize(
    "reshape", ONE_OF_EACH_RESHAPE, ids=lambda reshape: type(reshape).__name__
)
each_level = pytest.mark.parametrize("level", ["sequence", "token", "geometric"])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def batch(rng):
    """log_pi, log_mu, advantages and mask of 48 sequences of up to 9 tokens; one of them has none."""
    lengths = rng.integers(1, 10, size=48)
    lengths[7] = 0
    mask = np.arange(9) < lengths[:, None]
    log_mu = -rng.exponential(size=(48, 9))
    log_pi = np.minimum(log_mu + 0.3 * rng.normal(size=(48, 9)), 0.0)
    return log_pi, log_mu, rng.normal(size=48), mask


def by_numpy(log_pi, log_mu, advantages, mask, level="sequence", **how):
    """State, Step and coefficients a token, by the functions of isdiag.rl."""
    ratios = rl.log_ratio(log_pi, log_mu, mask, level=level)
    used = mask if level == "token" else mask.any(axis=1)
    signal = np.broadcast_to(advantages[:, None] if level == "token" else advantages, used.shape)
    state, step = rl.take_step(ratios[used], signal[used], level=level, **how)
    coefficients = np.zeros(used.shape)
    coefficients[used] = step.coefficients
    if level != "token":
        lengths = np.maximum(mask.sum(axis=1), 1) if level == "geometric" else np.ones(len(mask))
        coefficients = (coefficients / lengths)[:, None] * mask
    return state, step, coefficients


@cache
def transformed(jit, **how):
    function = jax.value_and_grad(partial(ij.is_reshape_loss, **how), has_aux=True)
    return jax.jit(function) if jit else function


def value_and_grad(log_pi, *data, state, jit=True, **how):
    return transformed(jit, **how)(jnp.asarray(log_pi), *data, state=state)


# ------------------------------------------------------------------------------------ select_gamma


@pytest.mark.parametrize("rule", ["joint", "refit"])
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_select_gamma_is_isdiags(x64, rng, rule, axis):
    log_w = rng.normal(scale=rng.uniform(0.1, 4.0, size=(1, 5, 1)), size=(60, 5, 70))
    expected = isdiag.select_gamma(log_w, axis=axis, rule=rule, k_max=0.5, gamma_max=0.9)
    chosen = jax.jit(lambda x: ij.select_gamma(x, axis=axis, rule=rule, k_max=0.5, gamma_max=0.9))(log_w)
    for name in FLOATS:
        np.testing.assert_array_equal(getattr(chosen, name), getattr(expected, name))
        assert getattr(chosen, name).dtype == np.float64
    np.testing.assert_array_equal(chosen.n, expected.n)
    np.testing.assert_array_equal(np.array(LIMITS)[chosen.limited_by], expected.limited_by)
    np.testing.assert_array_equal(chosen.status, expected.status)
    assert chosen.limited_by.dtype == chosen.status.dtype == np.int8


def test_fields_are_isdiags():
    assert ij.GammaSelection._fields == tuple(field.name for field in fields(isdiag.GammaSelection))


def test_select_gamma_in_single_precision(heavy):
    log_w = heavy.astype(np.float32)
    chosen, expected = ij.select_gamma(log_w), isdiag.select_gamma(log_w)
    assert chosen.gamma.dtype == np.float32
    assert chosen.gamma == np.float32(expected.gamma)
    assert LIMITS[chosen.limited_by] == expected.limited_by


def test_rounding_is_that_of_the_dtype():
    # Weights that differ by less than bfloat16's roundoff are equal weights, unless ESS tells them apart.
    for origin, step, status in ((4.0, 2.0**-6, Status.FLAT), (100.0, 0.5, Status.DEGENERATE_TAIL)):
        log_w = jnp.asarray(origin + step * (np.arange(50) % 2), jnp.bfloat16)
        assert jax.jit(ij.select_gamma)(log_w).status == status
        assert isdiag.select_gamma(np.asarray(log_w)).status == status


def test_bad_rows_have_statuses_and_leave_the_others(rng):
    log_w = rng.normal(size=(4, 200))
    log_w[0, 3], log_w[1, 5], log_w[2] = np.nan, np.inf, -np.inf
    chosen = jax.jit(ij.select_gamma)(log_w)
    assert [Status(code).name for code in chosen.status] == ["NOT_FINITE", "NOT_FINITE", "NO_WEIGHT", "OK"]
    assert np.isnan(chosen.gamma[:3]).all()
    assert LIMITS[chosen.limited_by[0]] == "none"
    np.testing.assert_array_equal(chosen.gamma[3], ij.select_gamma(log_w[3]).gamma)


@pytest.mark.parametrize("transform", ["grad", "jacfwd", "jacrev", "hessian"])
def test_gamma_has_no_gradient(heavy, transform):
    log_w = jnp.asarray(heavy[:60])
    function = getattr(jax, transform)(lambda x: ij.select_gamma(x).gamma * 3.0)
    assert not function(log_w).any()
    assert not jax.jit(function)(log_w).any()


def test_vmap_makes_one_call_of_many_rows(rng, monkeypatch):
    shapes, select = [], gamma._select
    monkeypatch.setattr(gamma, "_select", lambda x, **how: shapes.append(x.shape) or select(x, **how))
    log_w = jnp.asarray(rng.normal(scale=2.0, size=(3, 4, 100, 2)))
    efficiency = np.array([0.5, 1.0])

    def function(x):
        return ij.select_gamma(x, axis=0, r_eff=efficiency)

    found = jax.jit(jax.vmap(jax.vmap(function, in_axes=1)))(log_w.swapaxes(1, 2))
    assert shapes == [(3, 4, 100, 2)]
    looped = [[function(log_w[i, j]) for j in range(4)] for i in range(3)]
    for name in found._fields:
        expected = np.array([[getattr(cell, name) for cell in row] for row in looped])
        np.testing.assert_array_equal(getattr(found, name), expected)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"k_max": 0.0}, "k_max"),
        ({"ess_min": 2.0}, "ess_min"),
        ({"gamma_max": -1.0}, "gamma_max"),
        ({"rule": "mse"}, "rule"),
        ({"r_eff": -1.0}, "r_eff"),
        ({"r_eff": [1.0, 1.0, 1.0]}, "r_eff"),
        ({"tail_length": 100}, "tail_length"),
        ({"axis": 2}, "axis"),
        ({"axis": ()}, "axis"),
    ],
)
def test_wrong_arguments_of_select_gamma_raise_while_tracing(how, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: ij.select_gamma(x, **how), jnp.zeros((2, 50)))


def test_wrong_log_w_raises_while_tracing():
    with pytest.raises(ValueError, match="no draws"):
        jax.eval_shape(ij.select_gamma, jnp.zeros((2, 0)))
    with pytest.raises(ValueError, match="scalar"):
        jax.eval_shape(ij.select_gamma, jnp.zeros(()))
    with pytest.raises(TypeError, match="log_w must hold real numbers"):
        jax.eval_shape(ij.select_gamma, jnp.zeros(5, bool))


# ---------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize(
    ("reshape", "level"),
    [(reshape, "sequence") for reshape in ONE_OF_EACH_RESHAPE]
    + [(reshape, level) for reshape in (rl.Power(), rl.ParetoSmoothed()) for level in ("token", "geometric")],
)
@pytest.mark.parametrize("normalize", ["batch", "count"])
def test_loss_and_gradient_are_take_steps(x64, batch, reshape, level, normalize):
    how = {"reshape": reshape, "schedule": rl.Diagnosed(), "state": rl.State(0.4), "normalize": normalize}
    how["limits"] = rl.Limits(0.6, 0.4, 0.8)
    state, step, coefficients = by_numpy(*batch, level=level, **how)
    (loss, aux), gradient = value_and_grad(*batch, level=level, **how)
    np.testing.assert_allclose(gradient, -coefficients, rtol=1e-12, atol=0)
    np.testing.assert_allclose(loss, -(coefficients * batch[0]).sum(), rtol=1e-9)
    assert aux.ok
    assert (aux.state.gamma, aux.state.step) == state
    assert {name: value.item() for name, value in aux.metrics.items()} == pytest.approx(
        step.metrics(), rel=1e-15, nan_ok=True
    )


@pytest.mark.parametrize("everywhere", [False, True])
def test_double_precision_crosses_to_the_host(batch, everywhere):
    # Enabled in this thread alone, 64 bits are unknown to the thread that calls back.
    how = {"state": rl.State(0.4), "schedule": rl.Diagnosed()}
    state, step, coefficients = by_numpy(*batch, reshape=rl.Power(), **how)
    before = jax.config.jax_enable_x64
    try:
        if everywhere:
            jax.config.update("jax_enable_x64", True)
        with jax.enable_x64(True):
            for jit in (False, True):
                (_, aux), gradient = value_and_grad(*batch, jit=jit, **how)
                np.testing.assert_allclose(gradient, -coefficients, rtol=1e-14)
                assert (aux.state.gamma, aux.metrics["pareto_k"]) == (state.gamma, step.pareto_k)
                assert aux.state.step.dtype == np.int64
    finally:
        jax.config.update("jax_enable_x64", before)


def test_gradient_is_the_sum_of_coefficients_and_scores(x64, rng):
    logits, log_mu = rng.normal(size=5), np.log(np.full(5, 0.2))
    actions, rewards = rng.integers(5, size=400), rng.normal(size=400)
    how = {"reshape": rl.Power(), "schedule": rl.Fixed(), "state": rl.State(0.6)}

    def loss(theta):
        return ij.is_reshape_loss(jax.nn.log_softmax(theta)[actions], log_mu[actions], rewards, **how)[0]

    log_pi = np.asarray(jax.nn.log_softmax(logits))
    _, step = rl.take_step((log_pi - log_mu)[actions], rewards, **how)
    by_hand = step.coefficients @ (np.eye(5)[actions] - np.exp(log_pi))
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(logits), -by_hand, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(jax.jacfwd(loss)(logits), -by_hand, rtol=1e-12, atol=1e-15)


def test_single_precision(batch):
    how = {"reshape": rl.Power(), "schedule": rl.Diagnosed(), "state": rl.State(0.4)}
    narrow = [batch[0].astype(np.float32), batch[1].astype(np.float32), *batch[2:]]
    state, step, coefficients = by_numpy(*narrow, **how)
    (loss, aux), gradient = value_and_grad(*narrow, **how)
    assert loss.dtype == gradient.dtype == aux.state.gamma.dtype == aux.metrics["n"].dtype == np.float32
    assert aux.state.step.dtype == np.int32
    np.testing.assert_allclose(gradient, -coefficients, rtol=3e-6)
    assert aux.state.gamma == pytest.approx(state.gamma, rel=1e-6)
    assert {name: value.item() for name, value in aux.metrics.items()} == pytest.approx(
        step.metrics(), rel=1e-5, nan_ok=True
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened_before_sums(dtype):
    # 4096 tokens of -0.01: in half precision the sum would stop growing far from -41.
    log_pi = jnp.full((2, 4096), -0.01, dtype)
    how = {"reshape": rl.SFT(), "state": rl.State(1.0)}
    (loss, _), gradient = value_and_grad(log_pi, log_pi, 1.0, **how)
    assert loss.dtype == np.float32
    assert gradient.dtype == dtype
    np.testing.assert_allclose(loss, -log_pi[0, 0].astype(np.float32) * 4096, rtol=1e-5)


def test_what_does_not_count_has_no_effect(x64, batch):
    log_pi, log_mu, advantages, mask = batch
    how = {"reshape": rl.Power(), "state": rl.State(0.4)}
    clean = value_and_grad(*batch, **how)
    for anything in (np.nan, np.inf, -np.inf, 1e300):
        dirty = [np.where(mask, a, anything) for a in (log_pi, log_mu)]
        signal = np.where(mask.any(axis=1), advantages, anything)
        found = value_and_grad(*dirty, signal, mask.astype(np.float32), **how)
        jax.tree.map(np.testing.assert_array_equal, found, clean)
    (_, aux), _ = clean
    assert (aux.metrics["n"], aux.metrics["n_nonfinite"]) == (47, 0)


@pytest.mark.parametrize("where", ["log_pi", "log_mu", "advantages"])
@each_level
def test_nan_in_one_sequence_leaves_the_others(x64, batch, level, where):
    spoilt = [a.copy() for a in batch]
    spoilt[("log_pi", "log_mu", "advantages").index(where)][3] = np.nan
    kept = [np.delete(a, 3, axis=0) for a in batch]
    how = {"reshape": rl.Power(), "state": rl.State(0.4), "level": level}
    (loss, aux), gradient = value_and_grad(*spoilt, **how)
    (expected, _), others = value_and_grad(*kept, **how)
    assert aux.ok
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(np.delete(gradient, 3, axis=0), others, rtol=1e-12)
    assert not gradient[3].any()
    assert aux.metrics["n_nonfinite"] == (batch[3][3].sum() if level == "token" else 1)


def test_where_the_coefficient_is_zero_log_pi_does_not_matter(x64):
    log_mu, advantages = np.full(4, -1.0), np.array([1.0, 1.0, 0.0, -1.0])
    log_pi = np.array([-1.0, -np.inf, -np.inf, -1.1])  # a draw of zero weight, and one that earns nothing
    for reshape in (rl.Power(), rl.PPOClip(), rl.Reinforce()):
        (loss, aux), gradient = value_and_grad(
            log_pi, log_mu, advantages, reshape=reshape, state=rl.State(0.5)
        )
        assert np.isfinite(loss)
        assert aux.ok
        assert np.isfinite(gradient).all()
        assert not gradient[1:3].any()


@pytest.mark.parametrize("shape", [(0,), (6,), (0, 5), (6, 5), (6, 0)])
@each_level
def test_batch_without_draws(shape, level):
    if level == "geometric" and len(shape) == 1:
        with pytest.raises(ValueError, match="needs tokens"):
            value_and_grad(np.zeros(shape), np.zeros(shape), 1.0, level=level, state=rl.State(0.25))
        return
    log_pi, mask = np.full(shape, -1.0), np.zeros(shape, bool)
    how = {"schedule": rl.Diagnosed(), "state": rl.State(0.25), "level": level}
    (loss, aux), gradient = value_and_grad(log_pi, log_pi, 1.0, mask, **how)
    assert loss == 0.0
    assert not gradient.any()
    assert not aux.ok
    assert (aux.metrics["n"], aux.metrics["alarm_stall"]) == (0, 1)
    assert (aux.state.gamma, aux.state.step) == (0.25, 1)


def test_advantages_of_tokens(x64, batch, rng):
    log_pi, log_mu, _, mask = batch
    advantages = rng.normal(size=mask.shape)
    how = {"reshape": rl.Truncated(), "state": rl.State(1.0), "schedule": rl.Fixed()}
    _, gradient = value_and_grad(log_pi, log_mu, advantages, mask, level="token", **how)
    _, step = rl.take_step((log_pi - log_mu)[mask], advantages[mask], **how)
    np.testing.assert_allclose(-gradient[mask], step.coefficients, rtol=1e-12)


@pytest.mark.parametrize("level", ["sequence", "token", "geometric"])
@pytest.mark.parametrize("spare", [0, 7])
def test_packed_sequences_are_padded_ones(x64, batch, level, spare):
    log_pi, log_mu, advantages, mask = batch
    lengths = mask.sum(axis=1)
    cuts = np.append(0, np.cumsum(lengths))
    flat = [np.append(a[mask], np.full(spare, np.nan)) for a in (log_pi, log_mu)]

    @jax.jit
    def packed(log_pi, log_mu, advantages, cuts, mask=None):
        def loss(log_pi):
            how = {"cu_seqlens": cuts, "level": level, "state": rl.State(0.4)}
            return ij.is_reshape_loss(log_pi, log_mu, advantages, mask, **how)

        return jax.value_and_grad(loss, has_aux=True)(log_pi)

    (loss, aux), gradient = packed(*flat, advantages, cuts)
    (expected, whole), tokens = value_and_grad(*batch, level=level, state=rl.State(0.4))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[: cuts[-1]], tokens[mask], rtol=1e-12)
    assert not gradient[cuts[-1] :].any()
    assert aux.ok
    for name, value in whole.metrics.items():
        np.testing.assert_allclose(aux.metrics[name], value, rtol=1e-12, atol=1e-14, err_msg=name)
    # A mask within, and other lengths without another compilation.
    half = np.append(np.arange(cuts[-1]) % 2 == 0, np.ones(spare, bool))
    (loss, aux), _ = packed(*flat, advantages, cuts, half)
    inside = mask.copy()
    inside[mask] = half[: cuts[-1]]
    expected, whole = ij.is_reshape_loss(log_pi, log_mu, advantages, inside, level=level, state=rl.State(0.4))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert aux.metrics["n"] == whole.metrics["n"]
    compiled = packed._cache_size()
    cuts[1:-1] = np.sort(cuts[1:-1] // 2)
    packed(*flat, advantages, cuts, half)
    assert packed._cache_size() == compiled


def test_cuts_that_do_not_cut():
    tokens = -np.ones(6)
    run = partial(ij.is_reshape_loss, tokens, tokens, 1.0, state=rl.State(0.5))
    for cuts in ([1, 6], [0, 4, 2], [0, 7]):
        with pytest.raises(ValueError, match="cu_seqlens must rise from 0"):
            run(cu_seqlens=np.array(cuts))
        loss, aux = jax.jit(lambda cuts: run(cu_seqlens=cuts))(np.array(cuts))
        assert np.isnan(loss)
        assert not aux.ok
    for cuts in ([0], [0.0, 6.0], [[0, 6]]):
        with pytest.raises(ValueError, match="cu_seqlens must be at least two ints"):
            run(cu_seqlens=np.array(cuts))
    with pytest.raises(ValueError, match=r"cu_seqlens .* for \(2, 3\)"):
        ij.is_reshape_loss(
            tokens.reshape(2, 3), tokens.reshape(2, 3), 1.0, cu_seqlens=[0, 6], state=rl.State(1.0)
        )
    with pytest.raises(ValueError, match="advantages must have shape"):
        ij.is_reshape_loss(tokens, tokens, tokens, cu_seqlens=[0, 2, 6], state=rl.State(1.0))
    by_token = ij.is_reshape_loss(
        tokens, tokens, tokens, cu_seqlens=[0, 2, 6], state=rl.State(1.0), level="token"
    )
    assert by_token[1].metrics["n"] == 6


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_one_number_a_draw(x64, batch, level):
    log_pi, log_mu, advantages, mask = batch
    sums = [np.where(mask, a, 0.0).sum(axis=1) for a in (log_pi, log_mu)]
    how = {"reshape": rl.Power(), "state": rl.State(0.4)}
    (loss, aux), gradient = value_and_grad(*sums, advantages, mask.any(axis=1), level=level, **how)
    (expected, whole), tokens = value_and_grad(*batch, **how)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, tokens[:, 0], rtol=1e-9)
    assert aux.metrics["n"] == whole.metrics["n"]


@pytest.mark.parametrize(
    ("reshape", "gamma"),
    [(rl.RewardWeighted(), 0.5), (rl.AlphaDivergence(), 1.0), (rl.Power(), np.nan), (rl.Power(), -1.0)],
)
def test_refused_batches_are_nan_and_not_ok(batch, reshape, gamma):
    (loss, aux), gradient = value_and_grad(*batch, reshape=reshape, state=rl.State(gamma, 4))
    mask = batch[3]
    assert np.isnan(loss)
    assert np.isnan(gradient[mask]).all()
    assert not gradient[~mask].any()
    assert not aux.ok
    assert np.isnan([*aux.metrics.values()]).all()
    np.testing.assert_array_equal(aux.state, (np.float32(gamma), 4))


@each_reshape
@pytest.mark.parametrize("normalize", ["batch", "count"])
def test_nothing_raises_and_nothing_warns(rng, reshape, normalize):
    step = jax.jit(
        lambda *args, state: ij.is_reshape_loss(*args, reshape=reshape, normalize=normalize, state=state)
    )
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-45, -1.0, -2.0, -700.0]
    for _ in range(25):
        log_pi, log_mu, advantages = rng.choice(odd, size=(3, 12))
        loss, aux = step(log_pi, log_mu, advantages, state=rl.State(rng.choice([0.0, 0.5, 1.0])))
        assert aux.ok <= np.isfinite(loss)


def test_scan_is_a_loop_of_take_step(x64, batch):
    log_pi, log_mu, advantages, mask = batch
    schedule, scales = rl.Diagnosed(0.5), np.linspace(0.2, 3.0, 6)

    def body(state, scale):
        _, aux = ij.is_reshape_loss(
            log_mu + scale * (log_pi - log_mu), log_mu, advantages, mask, schedule=schedule, state=state
        )
        return aux.state, aux.metrics["gamma"]

    last, gammas = jax.jit(lambda: jax.lax.scan(body, rl.State(0.1), scales))()
    state, expected = rl.State(0.1), []
    for scale in scales:
        ratios = rl.log_ratio(log_mu + scale * (log_pi - log_mu), log_mu, mask)[mask.any(axis=1)]
        state, step = rl.take_step(ratios, reshape=rl.Power(), schedule=schedule, state=state)
        expected.append(step.gamma)
    np.testing.assert_allclose(gammas, expected, rtol=1e-12)
    assert last.step == state.step == 6


@pytest.mark.parametrize("gamma", [0.3, 1, np.float32(0.3), "bfloat16"])
def test_state_keeps_its_types_in_a_loop(batch, gamma):
    gamma = jnp.bfloat16(0.3) if gamma == "bfloat16" else gamma

    def body(state, _):
        return ij.is_reshape_loss(*batch, schedule=rl.ESSAdaptive(), state=state)[1].state, None

    last, _ = jax.lax.scan(body, rl.State(gamma), None, length=3)
    assert last.gamma.dtype == getattr(gamma, "dtype", np.float32)
    assert last.step == 3


def test_vmapped_is_looped(x64, rng):
    log_pi, log_mu = -rng.exponential(size=(2, 3, 20, 5))
    advantages, gammas = rng.normal(size=(3, 20)), np.array([0.1, 0.5, 1.0])

    def step(log_pi, log_mu, advantages, gamma):
        state = rl.State(gamma)
        return ij.is_reshape_loss(log_pi, log_mu, advantages, state=state, schedule=rl.Diagnosed())

    function = jax.value_and_grad(step, has_aux=True)
    vmapped = jax.jit(jax.vmap(function))(log_pi, log_mu, advantages, gammas)
    looped = [function(*args) for args in zip(log_pi, log_mu, advantages, gammas, strict=True)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *looped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), vmapped, stacked)


def test_a_policy_learns_under_scan(rng):
    reward = jnp.array([0.0, 0.2, 1.0, 0.4])
    log_mu = jnp.log(jnp.array([0.4, 0.3, 0.1, 0.2]))
    actions = rng.choice(4, p=np.exp(log_mu, dtype=float) / np.exp(log_mu, dtype=float).sum(), size=(40, 256))

    def loss(logits, actions, state):
        log_pi = jax.nn.log_softmax(logits)[actions]
        advantages = reward[actions] - reward[actions].mean()
        return ij.is_reshape_loss(log_pi, log_mu[actions], advantages, schedule=rl.Diagnosed(), state=state)

    def update(carry, actions):
        logits, state = carry
        (_, aux), gradient = jax.value_and_grad(loss, has_aux=True)(logits, actions, state)
        logits = jnp.where(aux.ok, logits - 2.0 * gradient, logits)
        return (logits, aux.state), (jax.nn.softmax(logits) @ reward, aux.ok)

    _, (value, ok) = jax.jit(lambda actions: jax.lax.scan(update, (log_mu, rl.State(0.3)), actions))(actions)
    assert ok.all()
    assert value[0] < 0.4
    assert value[-1] > 0.9


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"level": "word"}, ValueError, "level"),
        ({"normalize": "sum"}, ValueError, "normalize"),
        ({"reshape": rl.Power}, TypeError, "reshape must be a Reshape"),
        ({"schedule": 0.5}, TypeError, "schedule must be a Schedule"),
        ({"limits": None}, TypeError, "limits must be a Limits"),
        ({"state": rl.State(np.zeros(2))}, ValueError, "state must hold two numbers"),
        ({"state": rl.State(0.5, 0.5)}, ValueError, "state must hold two numbers"),
        ({"advantages": np.ones(5)}, ValueError, "advantages must have shape"),
        ({"advantages": np.ones((4, 6))}, ValueError, "advantages must have shape"),
        ({"log_mu": np.ones((4, 6))}, ValueError, "log_pi and log_mu must have the same shape"),
        ({"mask": np.ones(4, bool)}, ValueError, "mask must have the shape of log_pi"),
        ({"log_pi": np.ones((4, 5), bool)}, TypeError, "log_pi must hold real numbers"),
    ],
)
def test_wrong_arguments_of_the_loss_raise_while_tracing(how, error, message):
    given = {"log_pi": np.ones((4, 5)), "log_mu": np.ones((4, 5)), "advantages": 1.0, "state": rl.State(0.5)}
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: ij.is_reshape_loss(**given | how))


def test_advantages_of_tokens_are_one_a_sequence_where_it_counts(rng):
    log_pi, log_mu = -rng.exponential(size=(2, 8, 5))
    mask = np.arange(5) < rng.integers(1, 6, size=8)[:, None]
    rewards = rng.normal(size=8)
    by_token = np.where(mask, rewards[:, None], 99.0)
    loss = jax.jit(
        lambda advantages: ij.is_reshape_loss(log_pi, log_mu, advantages, mask, state=rl.State(0.5))
    )
    one, other = loss(rewards), loss(by_token)
    assert one[0] == other[0]
    for name, value in one[1].metrics.items():
        np.testing.assert_array_equal(value, other[1].metrics[name])
    value, aux = loss(by_token + np.arange(5))  # under jit nothing can raise
    assert np.isnan(value)
    assert not aux.ok
    with pytest.raises(ValueError, match=r"advantages of tokens must be the same .* sequence 0"):
        ij.is_reshape_loss(log_pi, log_mu, np.eye(8, 5), state=rl.State(0.5))


@pytest.mark.parametrize("name", ij.__all__)
def test_docstrings_are_complete_numpydoc(name):
    from numpydoc.validate import validate

    ignored = {"SA01", "ES01", "GL01", "GL08"} | (set() if name.islower() else {"EX01", "PR01"})
    errors = validate(f"isdiag.jax.{name}")["errors"]
    assert [error for error in errors if error[0] not in ignored] == []


@pytest.mark.parametrize("odd", [-1e9, -np.inf, 0.5])
def test_masks_that_are_no_masks(batch, odd):
    log_pi, log_mu, advantages, mask = batch
    additive = np.where(mask, 0.0, odd)
    with pytest.raises(ValueError, match="mask must be boolean or hold 0 and 1"):
        ij.is_reshape_loss(log_pi, log_mu, advantages, additive, state=rl.State(0.5))
    (loss, aux), _ = value_and_grad(log_pi, log_mu, advantages, additive, state=rl.State(0.5, 3))
    assert np.isnan(loss)
    assert not aux.ok
    assert aux.state.step == 3


@each_level
def test_a_column_of_advantages_is_one_a_sequence(batch, level):
    log_pi, log_mu, advantages, mask = batch
    how = {"state": rl.State(0.5), "level": level}
    _, one = value_and_grad(log_pi, log_mu, advantages, mask, **how)
    _, other = value_and_grad(log_pi, log_mu, advantages[:, None], mask, **how)
    np.testing.assert_array_equal(one, other)


def test_infinity_under_the_sampler_is_an_error_and_no_draw_of_zero_weight():
    log_pi, log_mu = np.array([-1.0, -2.0, -1.5]), np.array([-1.0, np.inf, -1.0])
    (_, aux), _ = value_and_grad(log_pi, log_mu, 1.0, state=rl.State(1.0))
    assert (aux.metrics["n"], aux.metrics["n_nonfinite"]) == (2, 1)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.sharding import Mesh, PartitionSpec as P
import isdiag.jax as ij
from isdiag import rl

mesh, over = Mesh(np.array(jax.devices()), "d"), P("d")
rng = np.random.default_rng(0)
log_mu = -rng.exponential(size=(64, 3)).astype("f4")
log_pi = log_mu + 0.5 * rng.normal(size=(64, 3)).astype("f4")
log_pi[40:] *= 3.0  # the second device's are worse
advantages, mask = rng.normal(size=64).astype("f4"), rng.uniform(size=(64, 3)) < 0.8

def step(gamma, *data, axis_name):
    how = {"schedule": rl.Diagnosed(), "state": rl.State(gamma), "axis_name": axis_name}
    function = partial(ij.is_reshape_loss, **how)
    (loss, aux), gradient = jax.value_and_grad(function, has_aux=True)(*data)
    return loss[None], gradient, aux.state, aux.metrics["ess_ratio"], aux.ok

out = (over, over, P(), P(), P())
data, gamma = (log_pi, log_mu, advantages, mask), jnp.float32(0.3)
loss, gradient, state, ess, ok = step(gamma, *data, axis_name=None)
for check in (True, False):
    how = {"mesh": mesh, "in_specs": (P(), over, over, over, over), "check_vma": check}
    sharded = jax.jit(jax.shard_map(partial(step, axis_name="d"), out_specs=out, **how))
    losses, gradients, after, ratio, fine = sharded(gamma, *data)
    np.testing.assert_allclose(losses.mean(), loss[0], rtol=1e-5)
    np.testing.assert_allclose(gradients / 2, gradient, rtol=1e-5, atol=1e-8)
    for one in after.gamma.addressable_shards:
        np.testing.assert_allclose(one.data, state.gamma, rtol=1e-6)
    np.testing.assert_allclose(ratio, ess, rtol=1e-6)
    assert fine
    try:
        jax.shard_map(partial(step, axis_name=None), out_specs=out, **how)(gamma, *data)
    except ValueError as error:
        assert "within shard_map each device sees a shard" in str(error)
    else:
        raise AssertionError("a replicated state was let pass")

def packed(gamma, *data, axis_name):
    *data, cuts = data
    how = {"schedule": rl.Diagnosed(), "state": rl.State(gamma), "axis_name": axis_name, "cu_seqlens": cuts}
    (loss, aux), gradient = jax.value_and_grad(partial(ij.is_reshape_loss, **how), has_aux=True)(*data)
    return loss[None], gradient, aux.state, aux.metrics["ess_ratio"], aux.ok

# Lengths of each shard; a third of its tokens belong to none.
cuts = np.concatenate([[0], np.arange(1, 32) * 2, [62], [0], np.arange(1, 33) * 2]).astype("i4")
flat = tuple(array.ravel() for array in (log_pi, log_mu)) + (advantages, mask.ravel(), cuts)
losses, gradients, after, ratio, fine = jax.jit(
    jax.shard_map(partial(packed, axis_name="d"), out_specs=out, mesh=mesh, in_specs=(P(), *[over] * 5))
)(gamma, *flat)
whole = [np.concatenate([array[:62], array[96:160]]) for array in flat[:2]]
counting = np.concatenate([flat[3][:62], flat[3][96:160]])
both = np.concatenate([cuts[:32], [62], 62 + cuts[34:]])
loss, gradient, state, ess, ok = packed(gamma, *whole, advantages, counting, both, axis_name=None)
np.testing.assert_allclose(losses.mean(), loss[0], rtol=1e-5)
np.testing.assert_allclose(gradients[96:160] / 2, gradient[62:], rtol=1e-5, atol=1e-8)
np.testing.assert_allclose(gradients[:62] / 2, gradient[:62], rtol=1e-5, atol=1e-8)
assert not gradients[160:].any()
np.testing.assert_allclose(ratio, ess, rtol=1e-6)
np.testing.assert_allclose(after.gamma, state.gamma, rtol=1e-6)

def alone(gamma, *data):
    loss, _, state, _, _ = step(gamma[0], *data, axis_name=())
    return loss, state.gamma[None]

how = {"mesh": mesh, "in_specs": (over,) * 5, "check_vma": False}
_, gammas = jax.jit(jax.shard_map(alone, out_specs=(over, over), **how))(jnp.full(2, 0.3, "f4"), *data)
assert gammas[0] != gammas[1]

import isdiag, pytest

def log_ratios(x):
    return -0.5 * x, jnp.stack([x, x * x], axis=-1)

draws = jnp.asarray(np.random.default_rng(2).normal(size=(3, 800)), "f4")
rows = P(None, "d")
log_w, h = jax.jit(jax.shard_map(log_ratios, mesh=mesh, in_specs=rows, out_specs=(rows, rows)))(draws)
assert len({shard.device for shard in log_w.addressable_shards}) == 2
found, every = ij.summary(log_w, h), isdiag.snis(np.asarray(log_w), np.asarray(h))
np.testing.assert_allclose(found.snis().std_error, every.std_error, rtol=1e-10)
np.testing.assert_allclose(found.pareto_khat(), every.khat, rtol=1e-12)
everywhere = jax.device_put(draws, jax.sharding.NamedSharding(mesh, P()))
assert (ij.summary(everywhere).n == 800).all()  # a replica counts once
by_row = jax.device_put(draws[:2], jax.sharding.NamedSharding(mesh, P("d")))
with pytest.raises(ValueError, match="along its last axis only"):
    ij.summary(by_row)
with pytest.raises(ValueError, match="h must be sharded as log_w"):
    ij.summary(log_w, everywhere)
with pytest.raises(TypeError, match="not traced"):
    jax.jit(ij.summary)(draws)
with pytest.raises(TypeError, match="log_w must be an array of JAX"):
    ij.summary(np.zeros(3))
"""


def test_shards_are_one_batch():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=os.environ | flags, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("objective", EVERY_OBJECTIVE, ids=repr)
def test_signals_of_objectives_under_jit(objective):
    reward, log_pi, log_mu = jnp.array([[1.0], [2.0]]), jnp.array([-1.0, -2.0]), jnp.array([-1.5, -0.5])
    expected = objective.signal(*(np.asarray(x) for x in (reward, log_pi, log_mu)))
    for traced in ((reward, log_pi, log_mu), (reward, log_pi), (reward,)):
        rest = (reward, log_pi, log_mu)[len(traced) :]
        got = jax.jit(lambda *given, rest=rest: objective.signal(*given, *rest))(*traced)
        assert isinstance(got, jax.Array)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    slope = jax.grad(lambda x: objective.signal(reward, x, log_mu).sum())(log_pi)
    assert np.isfinite(slope).all()
