"""Steps, schedules and the controller: metrics, what is left out, alarms, replay, and anything as input."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import isdiag
from isdiag import rl
from isdiag.rl import METRICS, Evidence, Fixed, GammaController, Limits, Power, State, take_step
from tests import naive
from tests.helpers import optional
from tests.registry import EVERY_RESHAPE, EVERY_SCHEDULE, ONE_OF_EACH_RESHAPE

START = State(0.3)
POWER = Power()
COUNTS = (
    "n",
    "n_nonfinite",
    "alarm_offset",
    "alarm_stall",
    "alarm_one_draw",
    "alarm_silenced",
    "alarm_stale",
)
RESHAPES = (*ONE_OF_EACH_RESHAPE, rl.RewardWeighted(), rl.PPOClip())
each = pytest.mark.parametrize("reshape", RESHAPES, ids=repr)
each_normalize = pytest.mark.parametrize("normalize", ["batch", "count"])


def step_of(log_w, advantage=1.0, *, gamma=0.3, reshape=POWER, **kwargs):
    """A step at a given gamma."""
    return take_step(log_w, advantage, reshape=reshape, schedule=rl.Fixed(), state=State(gamma), **kwargs)[1]


def log_normal(rng, shape, spread):
    """Log-ratios whose weights have mean 1."""
    return rng.normal(-(spread**2) / 2, spread, size=shape)


def assert_same_step(a, b, rtol=0.0, but=()):
    np.testing.assert_allclose(a.coefficients, b.coefficients, rtol=rtol, atol=rtol)
    for name in METRICS:
        if name not in but:
            np.testing.assert_allclose(
                a.metrics()[name], b.metrics()[name], rtol=rtol, atol=rtol, err_msg=name
            )


@pytest.fixture
def batch(rng):
    """Log-ratios, some of zero weight, and advantages: shape (300,)."""
    log_w = rng.normal(-0.5, 1.2, size=300)
    log_w[:7] = -np.inf
    return rng.permutation(log_w), rng.normal(size=300)


# -------------------------------------------------------------------------------- a naive twin


def naive_step(log_w, advantage, reshape, gamma, normalize):
    """Every metric from its definition."""
    n = log_w.size
    log_f, signal = reshape.at(gamma)(log_w, advantage)
    w, f = np.exp(log_w), np.exp(log_f)
    weights = f / (f.sum() if normalize == "batch" else n)
    khat = naive.khat(log_w, int(min(n / 5, 3 * np.sqrt(n))))
    mean_error = np.sqrt(np.mean((w - w.mean()) ** 2) / n)
    offset = np.log(w.mean())
    offset_z = offset / (mean_error / w.mean())
    zero = np.mean(f == 0)
    return {
        "coefficients": weights * signal,
        "gamma": gamma if hasattr(reshape, "gamma") else 1.0,
        "ess_ratio": f.sum() ** 2 / (f**2).sum() / n,
        "ess_ratio_tempered": isdiag.ess(log_w, gamma=gamma if hasattr(reshape, "gamma") else 1.0) / n,
        "ess_ratio_raw": w.sum() ** 2 / (w**2).sum() / n,
        "pareto_k": khat,
        "pareto_k_used": isdiag.pareto_khat(log_f),
        "gamma_batch": min(1.0, 0.7 / khat, naive.gamma_by_ess(log_w, 0.8)),
        "max_weight": f.max() / f.sum(),
        "mean_weight": f.mean(),
        "bias_proxy": naive.snis(log_f, signal)[2],
        "fraction_modified": np.mean(~np.isclose(f, w, rtol=1e-14)),
        "fraction_zero": zero,
        "fraction_saturated": np.mean(f >= np.exp(-0.01) * reshape.at(gamma).bound),
        "negative_share": down(f * signal),
        "negative_share_raw": down(w * signal),
        "log_w_q01": np.quantile(log_w, 0.01, method="lower"),
        "log_w_q50": np.quantile(log_w, 0.5, method="lower"),
        "log_w_q99": np.quantile(log_w, 0.99, method="higher"),
        "log_w_max": log_w.max(),
        "kl": -log_w.mean(),
        "kl_k3": np.mean(w - 1 - log_w),
        "chi2": np.mean(w**2) - 1,
        "offset": offset,
        "offset_z": offset_z,
        "n": n,
        "n_nonfinite": 0,
        "alarm_offset": int(abs(offset) > 0.02 and abs(offset_z) > 5 and khat < 0.7),
        "alarm_stall": int(1 - zero < 0.05 or (normalize == "count" and f.mean() < 0.05)),
        "alarm_one_draw": int(f.sum() ** 2 / (f**2).sum() < 5 or f.max() > 0.5 * f.sum()),
        "alarm_silenced": int(down(w * signal) > 0.05 and down(f * signal) < 0.1 * down(w * signal)),
        "alarm_stale": 0,
    }


def down(terms):
    """Share of the negative ones in the sum of sizes."""
    return -terms[terms < 0].sum() / np.abs(terms).sum()


@each
@each_normalize
@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_every_metric_is_what_it_says(batch, reshape, normalize, gamma):
    log_w, advantage = batch
    if isinstance(reshape, rl.RewardWeighted):
        advantage = np.abs(advantage) + 0.1
    step = step_of(log_w, advantage, gamma=gamma, reshape=reshape, normalize=normalize)
    expected = naive_step(log_w, advantage, reshape, gamma, normalize)
    assert tuple(name for name in expected if name != "coefficients") == METRICS
    np.testing.assert_allclose(step.coefficients, expected["coefficients"], rtol=1e-12, atol=1e-300)
    if isinstance(reshape, rl.ParetoSmoothed):  # whose tail may need a smaller gamma than that of w
        assert step.gamma_batch <= expected["gamma_batch"]
        expected["gamma_batch"] = step.gamma_batch
    for name, value in step.metrics().items():
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-13), name
    assert [name for name in METRICS if isinstance(getattr(step, name), int)] == list(COUNTS)
    assert step.pareto_k == pytest.approx(isdiag.pareto_khat(log_w), rel=1e-12)
    chosen = isdiag.select_gamma(log_w, ess_min=0.8)
    assert step.pareto_k == chosen.khat
    assert step.gamma_batch == chosen.gamma or isinstance(reshape, rl.ParetoSmoothed)


def test_khat_of_the_weights_used_is_refitted(rng):
    log_w = rng.normal(scale=2.0, size=400)
    step = step_of(log_w, gamma=0.5)
    assert step.pareto_k_used == pytest.approx(naive.khat(log_w, 60, gamma=0.5), rel=1e-10)


@each_normalize
def test_coefficients_sum_to_the_estimate_of_the_gradient(rng, normalize):
    # With grad log pi as h: self-normalised by batch, the plain mean by count.
    log_w, advantage = log_normal(rng, 200, 0.7), rng.normal(size=200)
    scores = rng.normal(size=(200, 3))
    step = step_of(log_w, advantage, gamma=0.6, normalize=normalize)
    by_batch = normalize == "batch"
    expected = isdiag.snis(log_w, advantage[:, None] * scores, gamma=0.6, normalize=by_batch).estimate
    np.testing.assert_allclose(step.coefficients @ scores, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("level", [0.0, -1e4, 1e10, -1e17, 1e17])
def test_weights_divided_by_their_sum_sum_to_one_at_any_level(level):
    # log(7) is lost in 1e17: shares must be taken about the largest weight, not about the log of the sum.
    step = step_of(np.full(7, level), gamma=1.0)
    np.testing.assert_allclose(step.coefficients, 1 / 7, rtol=1e-12)
    assert step.max_weight == pytest.approx(1 / 7, rel=1e-12)


@pytest.mark.parametrize("advantage", [1.0, -1e3])
def test_weights_divided_by_count_stay_finite_with_their_advantage(advantage):
    step = step_of([0.0, 800.0, 5e3], advantage, gamma=1.0, normalize="count")
    assert np.isfinite(step.coefficients).all()
    assert step.coefficients[0] == pytest.approx(advantage / 3, rel=1e-12)
    assert (np.abs(step.coefficients[1:]) > 1e200).all()


def test_limits_are_those_of_select_gamma(rng):
    log_w = rng.normal(scale=3.0, size=500)
    for limits in (Limits(0.4), Limits(None, 0.1), Limits(0.7, 0.6, 0.9), Limits(5.0, 0.0, 2.0)):
        step = step_of(log_w, limits=limits)
        expected = isdiag.select_gamma(
            log_w, k_max=limits.k_max, ess_min=limits.ess_min, gamma_max=limits.gamma_max
        )
        assert step.gamma_batch == expected.gamma


# ------------------------------------------------------------------------------------ invariances


@each
def test_order_of_the_draws_does_not_matter(batch, rng, reshape):
    log_w, advantage = batch
    if isinstance(reshape, rl.RewardWeighted):
        advantage = np.abs(advantage) + 0.1
    order = rng.permutation(300)
    there = step_of(log_w[order], advantage[order], reshape=reshape)
    here = step_of(log_w, advantage, reshape=reshape)
    np.testing.assert_allclose(there.coefficients, here.coefficients[order], rtol=1e-11, atol=1e-300)
    for name, value in here.metrics().items():
        assert there.metrics()[name] == pytest.approx(value, rel=1e-9, abs=1e-13), name


@pytest.mark.parametrize("shift", [-700.0, -3.0, 700.0, 1e4])
def test_a_constant_in_all_ratios_divides_out(rng, shift):
    log_w, advantage = rng.normal(scale=2.0, size=(2, 300))
    state, here = take_step(log_w, advantage, reshape=Power(), schedule=rl.Diagnosed(), state=START)
    there_state, there = take_step(
        log_w + shift, advantage, reshape=Power(), schedule=rl.Diagnosed(), state=START
    )
    assert there_state.gamma == pytest.approx(state.gamma, rel=1e-9)
    quantiles = ("log_w_q01", "log_w_q50", "log_w_q99", "log_w_max")
    shifted = ("mean_weight", *quantiles, "kl", "kl_k3", "chi2", "offset", "offset_z", "alarm_offset")
    assert_same_step(there, here, rtol=1e-8, but=shifted)
    assert there.offset == pytest.approx(here.offset + shift)


def test_any_shape_is_one_sample(batch):
    log_w, advantage = batch
    flat = step_of(log_w, advantage)
    table = step_of(log_w.reshape(20, 15), advantage.reshape(20, 15))
    assert table.coefficients.shape == (20, 15)
    np.testing.assert_array_equal(table.coefficients.ravel(), flat.coefficients)
    assert table.metrics() == flat.metrics()
    groups = step_of(log_w.reshape(20, 15), advantage[:20, None])
    np.testing.assert_array_equal(
        groups.coefficients.ravel(), step_of(log_w, np.repeat(advantage[:20], 15)).coefficients
    )
    # As many rows as tokens: a number a row is still that row's.
    square, by_row = log_w[:225].reshape(15, 15), advantage[:15]
    expected = step_of(square, np.repeat(by_row, 15).reshape(15, 15))
    for numbers in (by_row, by_row[:, None]):
        np.testing.assert_array_equal(step_of(square, numbers).coefficients, expected.coefficients)
    column = step_of(log_w, advantage[:, None])
    np.testing.assert_array_equal(column.coefficients, flat.coefficients)
    one = step_of(0.3, 2.0)
    assert one.coefficients.shape == ()
    assert one.coefficients == 2.0


def test_any_real_array_passes(rng):
    torch = optional("torch")
    log_w = rng.integers(-3, 4, size=60)
    expected = step_of(log_w.astype(float), log_w.astype(float))
    for kind in (np.float32, np.float16, np.int8):
        assert_same_step(step_of(log_w.astype(kind), log_w.tolist()), expected)
    tensor = torch.tensor(log_w, dtype=torch.bfloat16, requires_grad=True)
    step = step_of(tensor, tensor)
    assert type(step.coefficients) is np.ndarray
    assert_same_step(step, expected)


@each
def test_inputs_stay_and_are_not_shared(batch, reshape):
    log_w, advantage = batch[0], np.abs(batch[1]) + 0.1
    log_w[3], advantage[8] = np.nan, np.inf
    before = log_w.copy(), advantage.copy()
    step_of(log_w, advantage, reshape=reshape).coefficients[:] = np.nan
    step_of(log_w[10:], advantage[10:], reshape=reshape).coefficients[:] = np.nan
    np.testing.assert_array_equal(log_w, before[0])
    np.testing.assert_array_equal(advantage, before[1])


# ------------------------------------------------------------------------------- what is left out


@each
@each_normalize
def test_draws_that_cannot_be_used_are_as_if_never_there(batch, rng, reshape, normalize):
    log_w, advantage = batch
    if isinstance(reshape, rl.RewardWeighted):
        advantage = np.abs(advantage) + 0.1
    where = np.sort(rng.choice(300, size=6, replace=False))
    bad_w = np.insert(log_w, where, [np.nan, np.inf, 0.0, 0.0, 0.0, -np.inf])
    bad_a = np.insert(advantage, where, [1.0, -1.0, np.nan, np.inf, -np.inf, np.nan])
    spoilt = step_of(bad_w, bad_a, reshape=reshape, normalize=normalize)
    clean = step_of(log_w, advantage, reshape=reshape, normalize=normalize)
    added = where + np.arange(6)
    assert (spoilt.coefficients[added] == 0).all()
    np.testing.assert_array_equal(np.delete(spoilt.coefficients, added), clean.coefficients)
    assert spoilt.n_nonfinite == 6
    for name, value in clean.metrics().items():
        if name != "n_nonfinite":
            assert spoilt.metrics()[name] == value or math.isnan(value), name


@each
@each_normalize
def test_where_says_which_draws_there_are(batch, rng, reshape, normalize):
    log_w, advantage = batch[0], np.abs(batch[1]) + 0.1
    log_w[:3] = np.nan
    mask = rng.uniform(size=300) < 0.7
    spoilt = np.where(mask, log_w, rng.choice([np.nan, np.inf, -np.inf, 0.0, 900.0], 300))
    kwargs = {"reshape": reshape, "normalize": normalize}
    step = step_of(spoilt, np.where(mask, advantage, np.nan), where=mask.astype(int), **kwargs)
    clean = step_of(log_w[mask], advantage[mask], **kwargs)
    assert (step.coefficients[~mask] == 0).all()
    np.testing.assert_array_equal(step.coefficients[mask], clean.coefficients)
    np.testing.assert_array_equal(list(step.metrics().values()), list(clean.metrics().values()))
    assert step.n + step.n_nonfinite == mask.sum()  # padding is not an error


def test_padded_tokens_with_their_mask_are_the_tokens(rng):
    mask = np.arange(9) < rng.integers(1, 10, size=(30, 1))
    log_pi, log_mu = rng.normal(-1.0, 0.5, size=(2, 30, 9))
    advantage = rng.normal(size=(30, 1))
    log_w = rl.log_ratio(log_pi, log_mu, mask, level="token")
    step = step_of(log_w, advantage, reshape=rl.SFT(), where=mask)
    assert step.n == mask.sum()
    np.testing.assert_allclose(step.coefficients, mask / mask.sum(), rtol=1e-13)
    controller = GammaController(rl.TOPR(), rl.Fixed())
    expected = step_of((log_pi - log_mu)[mask], np.broadcast_to(advantage, (30, 9))[mask], reshape=rl.TOPR())
    np.testing.assert_array_equal(
        controller.step(log_w, advantage, where=mask).coefficients[mask], expected.coefficients
    )
    nothing = step_of(log_w, advantage, where=False)
    assert (nothing.n, nothing.n_nonfinite, nothing.alarm_stall) == (0, 0, 1)
    for wrong in (np.ones(8), mask[:, :-1]):
        with pytest.raises(ValueError, match=r"where of shape .*\(30, 9\)"):
            step_of(log_w, where=wrong)


@pytest.mark.parametrize(
    "log_w",
    [
        [],
        np.zeros((0, 3)),
        [np.nan, np.inf],
        np.full(50, np.nan),
        np.full((5, 8), -np.inf),
        [-np.inf, np.nan, -np.inf],
    ],
    ids=["empty", "empty table", "not finite", "nan", "no weight", "either"],
)
@each_normalize
def test_a_batch_without_weight_teaches_nothing(log_w, normalize):
    for schedule in (rl.Diagnosed(), rl.Diagnosed(0.37), rl.ESSAdaptive(), rl.Fixed()):
        state, step = take_step(log_w, reshape=Power(), schedule=schedule, state=START, normalize=normalize)
        assert state == State(0.3, 1)
        assert step.gamma == 0.3
        assert step.coefficients.shape == np.shape(log_w)
        assert (step.coefficients == 0).all()
        assert (step.alarm_stall, step.alarm_offset) == (1, 0)
        assert step.n + step.n_nonfinite == np.size(log_w)
        for name in ("ess_ratio", "ess_ratio_raw", "pareto_k", "gamma_batch", "max_weight", "bias_proxy"):
            assert math.isnan(getattr(step, name)), name


@pytest.mark.parametrize("log_w", [[], [np.nan], [-np.inf], [0.0, 0.1]])
def test_the_gamma_of_a_step_is_that_of_the_next_state(log_w):
    for schedule in (rl.Linear(10, 0.1, 0.9), rl.Cosine(10), rl.Diagnosed(), rl.ESSAdaptive()):
        state, step = take_step(log_w, reshape=Power(), schedule=schedule, state=State(0.3, 4))
        assert step.gamma == state.gamma
        assert state.step == 5


def test_all_draws_masked():
    for normalize in ("batch", "count"):
        step = step_of(np.full(40, 3.0), reshape=rl.Masked(0.5, 5.0), normalize=normalize)
        assert (step.coefficients == 0).all()
        assert (step.alarm_stall, step.fraction_zero, step.fraction_modified) == (1, 1.0, 1.0)
        assert step.mean_weight == 0
        assert step.ess_ratio_raw == 1  # nothing is wrong with w but the mask


# ----------------------------------------------------------------- pairs of raw and used metrics


def test_fractions_count_what_a_reshape_changed():
    log_w = np.log([0.1, 0.4, 0.6, 1.0, 1.9, 2.1, 4.0, 6.0])
    truncated = step_of(log_w, reshape=rl.Truncated(2.0))
    assert (truncated.fraction_modified, truncated.fraction_zero) == (3 / 8, 0.0)
    masked = step_of(log_w, reshape=rl.Masked(0.5, 5.0))
    assert (masked.fraction_modified, masked.fraction_zero) == (3 / 8, 3 / 8)
    full = step_of(np.append(log_w, -np.inf), reshape=rl.Reinforce())
    assert (full.fraction_modified, full.fraction_zero) == (0.0, 1 / 9)


def test_draws_at_a_bound_are_counted():
    log_w = np.log([0.1, 0.4, 0.6, 1.0, 1.9, 2.1, 4.0, 6.0])
    assert step_of(log_w, reshape=rl.Truncated(2.0)).fraction_saturated == 3 / 8
    assert step_of(log_w, reshape=rl.Power()).fraction_saturated == 0.0
    assert step_of(50 + log_w, gamma=1.0, reshape=rl.Defensive(alpha=0.2)).fraction_saturated == 1.0


def test_divergences_are_those_of_the_core(rng):
    log_w = log_normal(rng, 500, 0.4)
    step = step_of(log_w)
    for name, estimator in (("kl", "k1"), ("kl_k3", "k3")):
        core = isdiag.kl_divergence(log_w, direction="proposal", estimator=estimator, normalize=False)
        assert getattr(step, name) == pytest.approx(float(core), rel=1e-10)
    assert step.chi2 == pytest.approx(float(isdiag.chi2_divergence(log_w, normalize=False)), rel=1e-10)
    no_weight = step_of(np.append(log_w, -np.inf)).metrics(prefix="")
    assert not {"kl", "kl_k3"} & no_weight.keys()


def test_negative_advantages_that_a_reshape_silences(rng):
    # Weights that a sampler's top-p has made small throughout, and a caution about 1, not about their mean.
    log_w, advantage = rng.normal(-3.0, 0.05, size=512), rng.choice([-1.0, 1.0], size=512)
    about_one = step_of(log_w, advantage, gamma=1.0, reshape=Power(caution=3.0, log_z=0.0))
    assert about_one.negative_share < 0.01
    assert about_one.negative_share_raw == pytest.approx(0.5, abs=0.05)
    assert about_one.alarm_silenced == 1
    about_the_mean = step_of(log_w, advantage, gamma=1.0, reshape=Power(caution=3.0))
    assert about_the_mean.negative_share == pytest.approx(0.5, abs=0.05)
    assert about_the_mean.alarm_silenced == 0
    # What w silences itself is no fault of the reshape.
    unlikely = step_of(np.where(advantage < 0, -9.0, 0.0), advantage, gamma=1.0)
    assert (unlikely.negative_share < 0.01, unlikely.alarm_silenced) == (True, 0)


def test_data_beyond_repair(rng):
    for spread, alarm in ((10.0, 0), (30.0, 1)):
        assert step_of(log_normal(rng, 512, spread)).alarm_stale == alarm
    no_weight = np.where(np.arange(100) < 30, -np.inf, 0.0)  # more of them than the least ESS allows
    assert step_of(no_weight).alarm_stale == 1
    assert step_of(np.full(100, -np.inf)).alarm_stale == 0  # nothing is known: alarm_stall


def test_ess_is_over_sequences_and_both_before_and_after_truncation(rng):
    # verl 0.9.1 reports the ESS of truncated weights, weighted by tokens: 0.94 here is 0.1 and less.
    lengths = np.where(np.arange(64) < 8, 2000, 50)
    log_pi = [rng.normal(-1.0, 0.1, size=length) for length in lengths]
    log_mu = [tokens + rng.normal(0.0, 0.3 / np.sqrt(tokens.size), size=tokens.size) for tokens in log_pi]
    log_pi[20][0] += 6.0  # one short sequence of ratio e^6
    log_w = rl.log_ratio(log_pi, log_mu)
    raw = step_of(log_w, reshape=rl.Reinforce())
    used = step_of(log_w, reshape=rl.Truncated(2.0))
    assert used.ess_ratio_raw == raw.ess_ratio == raw.ess_ratio_raw < 0.05
    assert used.ess_ratio > 0.8
    by_token = np.repeat(np.minimum(log_w, np.log(2.0)), lengths)
    assert isdiag.ess(by_token) / by_token.size > 0.8


def test_the_largest_ratio_is_seen_before_truncation(rng):
    # verl and miles log the maximum of truncated weights: 2.0 whatever happened.
    log_w = log_normal(rng, 1000, 0.1)
    log_w[17] = 12.0
    used = step_of(log_w, reshape=rl.Truncated(2.0))
    raw = step_of(log_w, reshape=rl.Reinforce())
    assert used.max_weight < 0.003
    assert raw.max_weight > 0.99
    assert used.ess_ratio_raw < 0.002
    assert used.ess_ratio > 0.9
    assert used.offset > 5  # its mean says so too


def test_ess_is_of_the_whole_batch_not_a_mean_over_its_parts(rng):
    # 8 micro-batches, one of which holds the ratio that matters.
    log_w = log_normal(rng, (8, 64), 0.1)
    log_w[5, 9] = 9.0
    whole = step_of(log_w)
    assert whole.ess_ratio_raw == isdiag.ess(log_w.ravel()) / 512
    mean = np.mean([step_of(part).ess_ratio_raw for part in log_w])
    assert mean > 100 * whole.ess_ratio_raw
    weights = np.exp(log_w - log_w.max())
    sums = [(w.sum(), (w**2).sum()) for w in weights]  # what a distributed run must add up
    first, second = np.sum(sums, axis=0)
    assert whole.ess_ratio_raw == pytest.approx(first**2 / second / 512, rel=1e-12)


def test_a_quantile_of_two_draws_is_the_nearer_one():
    step = step_of([-1.0, 3.0])
    assert (step.log_w_q01, step.log_w_q50, step.log_w_q99, step.log_w_max) == (-1.0, -1.0, 3.0, 3.0)
    hundred = step_of(np.arange(101.0))
    assert (hundred.log_w_q01, hundred.log_w_q50, hundred.log_w_q99, hundred.log_w_max) == (1, 50, 99, 100)


def test_weights_are_coefficients_without_the_signal(batch):
    log_w, advantage = batch
    for normalize in ("batch", "count"):
        step = step_of(log_w, advantage, normalize=normalize)
        np.testing.assert_array_equal(step.weights * advantage, step.coefficients)
    assert step_of(log_w, advantage).weights.sum() == pytest.approx(1.0)


def test_metrics_for_a_logger_are_finite_and_named(batch):
    step = step_of(np.zeros(40))
    assert step.pareto_k == -np.inf
    every, logged = step.metrics(), step.metrics(prefix="isdiag/")
    assert tuple(every) == METRICS
    assert all(type(value) is float for value in every.values())
    assert logged == {f"isdiag/{name}": value for name, value in every.items() if math.isfinite(value)}
    assert set(every) - {name.removeprefix("isdiag/") for name in logged} == {"pareto_k", "pareto_k_used"}
    assert rl.loggable(every) == logged
    assert step_of([]).metrics(prefix="")["n"] == 0.0


# ------------------------------------------------------------------- a constant, and the limit of ESS


@pytest.mark.parametrize(
    "make",
    [GammaController, lambda: GammaController(rl.ParetoSmoothed(0.3)), lambda: GammaController(Power(0.3))],
)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 4.0))
def test_weights_over_their_sum_do_not_feel_a_constant(make, shift, seed, spread):
    rng = np.random.default_rng(seed)
    log_w, advantage = rng.normal(0.0, spread, size=256), rng.choice([-1.0, 1.0], size=256)
    here, there = make(), make()
    for _ in range(2):
        step, moved = here.step(log_w, advantage), there.step(log_w + shift, advantage)
        np.testing.assert_allclose(moved.coefficients, step.coefficients, rtol=1e-6, atol=1e-12)
        assert moved.gamma == pytest.approx(step.gamma, rel=1e-6)


@pytest.mark.parametrize("off", [0.0, -1.0, -3.0])
def test_losers_keep_their_share_when_the_sampler_cuts(off):
    g = np.random.default_rng(0)
    advantage = g.choice([-1.0, 1.0], size=512)
    noise = g.normal(0, 0.05, 512)
    share = [
        np.abs(GammaController(gamma_init=1.0).step(o + noise, advantage).coefficients) for o in (0.0, off)
    ]
    first, second = (each[advantage < 0].sum() / each.sum() for each in share)
    assert second == pytest.approx(first, rel=1e-9)
    assert first == pytest.approx(0.448, abs=0.002)


def outlier(seed=0):
    log_w = 0.05 * np.random.default_rng(seed).normal(size=512)
    log_w[0] = 15.0
    return log_w


def test_one_draw_that_is_the_batch_raises_an_alarm():
    step = GammaController(gamma_init=1.0).step(outlier())
    assert step.gamma_batch < 0.2
    assert step.ess_ratio < 0.003
    assert step.alarm_one_draw == 1
    held = GammaController(schedule=rl.Diagnosed(1.0), gamma_init=1.0).step(outlier())
    assert held.ess_ratio > 0.79
    assert held.alarm_one_draw == 0


@pytest.mark.parametrize(
    ("log_w", "alarm"),
    [
        (np.zeros(4), 1),
        (np.zeros(5), 0),
        (np.log([30.0, *[1.0] * 29]), 1),
        (np.log([28.0, *[1.0] * 29]), 1),
        (np.log([5.0, *[1.0] * 29]), 0),
    ],
)
def test_an_alarm_of_few_draws(log_w, alarm):
    assert step_of(log_w, gamma=1.0).alarm_one_draw == alarm


@pytest.mark.parametrize(
    "reshape", [Power(caution=3.0), rl.Defensive(), Power(), rl.ParetoSmoothed()], ids=repr
)
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_the_limit_of_ess_is_on_the_weights_that_are_used(reshape, spread):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        log_w, advantage = rng.normal(0, spread, size=400), rng.choice([-1.0, 1.0], size=400)
        controller = GammaController(reshape, rl.Diagnosed(1.0), gamma_init=0.5)
        step = controller.step(log_w, advantage)
        by_w = isdiag.select_gamma(log_w, ess_min=0.8).gamma
        assert step.gamma == step.gamma_batch <= by_w
        assert step.ess_ratio >= 0.8 * (1 - 1e-8)
        assert step.gamma == by_w or step.ess_ratio <= 0.8 * 1.011  # no further down than it must


def test_smoothed_the_limit_is_kept_on_average(rng):
    controller = GammaController(schedule=rl.Diagnosed(0.1))
    for _ in range(150):
        controller.step(rng.normal(0, 1.5, size=512), rng.choice([-1.0, 1.0], size=512))
    last = controller.history["ess_ratio"][50:]
    assert np.mean(last) == pytest.approx(0.8, abs=0.02)
    assert min(last) < 0.8  # and not in each batch
    # One draw of huge weight, for a single batch: used as the batches before it allow.
    assert controller.step(outlier()).ess_ratio < 0.4


# ------------------------------------------------------------------------------------------ alarms


def test_mean_weight_that_collapses_with_length_stalls(rng):
    # NeMo-RL #2269: at 9000 tokens the product of ratios that are each nearly 1 is nearly 0.
    noise = rng.normal(0.0, 0.02, size=(64, 9000))
    log_mu = rng.normal(-1.0, 0.3, size=(64, 9000))
    log_pi = log_mu + noise - 1e-3
    log_w = rl.log_ratio(log_pi, log_mu)
    by_count = step_of(log_w, reshape=rl.Truncated(2.0), normalize="count")
    assert by_count.alarm_stall == 1
    assert by_count.mean_weight < 0.05
    assert by_count.fraction_zero == 0
    # Divided by their sum, or by the root of the length, the weights still teach.
    assert step_of(log_w, reshape=rl.Truncated(2.0)).alarm_stall == 0
    geometric = rl.log_ratio(log_pi, log_mu, level="geometric")
    assert step_of(geometric, reshape=rl.Truncated(2.0), normalize="count").alarm_stall == 0


@pytest.mark.parametrize(("kept", "alarm"), [(1, 1), (4, 1), (5, 0), (6, 0)])
def test_stall_is_less_than_a_twentieth_of_the_draws(kept, alarm):
    log_w = np.where(np.arange(100) < kept, 0.0, 4.0)
    assert step_of(log_w, reshape=rl.Masked()).alarm_stall == alarm


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
def test_offset_alarm_is_silent_where_weights_have_mean_one(spread):
    rng = np.random.default_rng(31)
    for n in (64, 1024):
        alarms = sum(step_of(log_normal(rng, n, spread)).alarm_offset for _ in range(200))
        assert alarms <= 1


def test_offset_alarm_seldom_fires_on_heavy_tails():
    # Where the standard error of the mean is itself a guess, the mean falls short of 1 most of the time.
    rng = np.random.default_rng(32)
    for n in (64, 256):
        for spread in (2.0, 3.0, 4.0):
            alarms = sum(step_of(log_normal(rng, n, spread)).alarm_offset for _ in range(200))
            assert alarms <= 6, (n, spread)


@pytest.mark.parametrize(("shift", "spread", "n"), [(0.9, 0.3, 1024), (1.1, 0.3, 1024), (0.97, 0.01, 64)])
def test_offset_alarm_fires_on_a_constant(rng, shift, spread, n):
    step = step_of(log_normal(rng, n, spread) + np.log(shift))
    assert step.alarm_offset == 1
    assert step.offset == pytest.approx(np.log(shift), abs=5 * spread / np.sqrt(n))
    assert abs(step.offset_z) > 5
    assert step_of(np.full(50, np.log(shift))).alarm_offset == 1  # beyond any doubt


def test_a_tiny_offset_is_no_alarm_however_sure(rng):
    step = step_of(log_normal(rng, 4096, 0.01) + 0.01)
    assert step.offset_z > 5
    assert step.alarm_offset == 0
    assert (step_of(np.zeros(50)).offset_z, step_of(np.zeros(50)).alarm_offset) == (0.0, 0)


def test_no_offset_alarm_where_the_tail_is_unknown_or_bad(rng):
    few = step_of(log_normal(rng, 20, 0.01) - 0.5)
    assert abs(few.offset_z) > 5
    assert math.isnan(few.pareto_k)
    heavy = log_normal(rng, 1000, 5.0)
    bad = step_of(heavy - 20.0)
    assert abs(bad.offset_z) > 5
    assert bad.pareto_k > 0.7
    assert few.alarm_offset == bad.alarm_offset == 0


def test_no_offset_alarm_at_the_level_geometric():
    # The mean of a geometric mean of ratios is below 1 by Jensen's inequality, whatever the sampler.
    rng = np.random.default_rng(5)
    log_mu = np.full((512, 20), -1.0)
    log_pi = log_mu + rng.normal(-0.125, 0.5, size=(512, 20))  # each token's ratio has mean 1
    log_w = rl.log_ratio(log_pi, log_mu, level="geometric")
    assert step_of(log_w).alarm_offset == 1
    step = step_of(log_w, level="geometric")
    assert (step.alarm_offset, step.offset < -0.1) == (0, True)
    assert GammaController().step(log_w, level="geometric").alarm_offset == 0
    with pytest.raises(ValueError, match="level must be one of"):
        step_of(log_w, level="mean")


def test_offset_alarm_fires_on_top_k_sampling(rng):
    # Draws from the 20 likeliest of 100 tokens, whose log-probabilities are logged after the cut: w is
    # the mass kept. With those of the whole vocabulary under both policies it is not off.
    logits = rng.normal(scale=2.0, size=(512, 100))
    cut = np.where(logits >= np.sort(logits)[:, -20:-19], logits, -np.inf)
    tokens = [rng.choice(100, p=row) for row in softmax(cut, axis=1)]
    pick = (np.arange(512), tokens)
    log_pi = log_softmax(logits + 0.05 * rng.normal(size=logits.shape), axis=1)[pick]
    step = step_of(rl.log_ratio(log_pi, log_softmax(cut, axis=1)[pick]))
    assert step.offset < -0.1
    assert step.alarm_offset == 1
    assert step_of(rl.log_ratio(log_pi, log_softmax(logits, axis=1)[pick])).alarm_offset == 0


# --------------------------------------------------------------------------------------- schedules

each_schedule = pytest.mark.parametrize("schedule", EVERY_SCHEDULE, ids=repr)


@each_schedule
def test_a_schedule_replays(schedule, rng):
    evidence = [Evidence(*pair) for pair in rng.uniform(size=(12, 2))]
    evidence[4] = Evidence(np.nan, np.nan)

    def path():
        states = [State(0.4)]
        for seen in evidence:
            states.append(schedule(states[-1], seen))
        return states

    states = path()
    assert path() == states
    assert [state.step for state in states] == list(range(13))
    for i, seen in enumerate(evidence):  # from anywhere: nothing else is remembered
        assert schedule(states[i], seen) == states[i + 1]
    assert states[0] == State(0.4, 0)


@pytest.mark.parametrize("kind", [rl.Linear, rl.Cosine])
def test_annealing_runs_from_its_minimum_to_its_maximum(kind):
    schedule = kind(40, 0.2, 0.9)
    path = [schedule.at(step) for step in range(45)]
    assert path[0] == pytest.approx(0.2, abs=1e-15)  # C14: not 0
    assert path[40:] == [schedule.at(40)] * 5
    assert path[40] == pytest.approx(0.9, abs=1e-15)
    assert path[20] == pytest.approx(0.55, abs=1e-15)
    assert (np.diff(path[:41]) > 0).all()
    share = np.arange(41) / 40
    expected = share if kind is rl.Linear else (1 - np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(path[:41], 0.2 + 0.7 * expected, rtol=1e-14)
    state = State(0.5)
    for step in range(3):  # whatever the batches show, and wherever gamma was
        state = schedule(state, Evidence(0.01, np.nan))
        assert state == State(path[step], step + 1)


@pytest.mark.parametrize(
    ("gamma", "ess_ratio", "expected"),
    [
        (0.4, 0.46, 0.5),
        (0.4, 0.44, 0.4),
        (0.4, 0.25, 0.4),
        (0.4, 0.23, 0.35),
        (0.4, np.nan, 0.4),
        (0.75, 1.0, 0.8),
        (0.8, 1.0, 0.8),
        (0.12, 0.0, 0.1),
        (0.1, 0.0, 0.1),
    ],
)
def test_ess_adaptive_goes_up_by_delta_and_down_by_half(gamma, ess_ratio, expected):
    schedule = rl.ESSAdaptive(0.3, 0.1, 0.1, 0.8)
    state = schedule(State(gamma, 3), Evidence(ess_ratio, 0.9))
    assert state == State(pytest.approx(expected, rel=1e-15), 4)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_diagnosed_moves_by_its_rate_towards_the_batch(rate):
    state = rl.Diagnosed(rate)(State(0.3, 2), Evidence(0.01, 0.8))
    assert state == State((1 - rate) * 0.3 + rate * 0.8, 3)
    assert rl.Diagnosed(rate)(State(0.3, 2), Evidence(0.5, np.nan)) == State(0.3, 3)
    for _ in range(300):
        state = rl.Diagnosed(rate)(state, Evidence(np.nan, 0.8))
    assert state.gamma == pytest.approx(0.8, rel=1e-12)


def test_evidence_is_of_the_gamma_in_use_before_the_step(rng):
    seen = []

    class Spy(rl.Schedule):
        def __call__(self, state, evidence):
            seen.append(evidence)
            return State(0.9, state.step + 1)

    log_w = rng.normal(scale=2.0, size=200)
    _, step = take_step(log_w, reshape=Power(), schedule=Spy(), state=State(0.45))
    expected = isdiag.ess(log_w, gamma=0.45) / 200, isdiag.select_gamma(log_w, ess_min=0.8).gamma
    assert seen == [pytest.approx(expected, rel=1e-12)]
    assert step.gamma == 0.9
    np.testing.assert_allclose(step.ess_ratio, isdiag.ess(log_w, gamma=0.9) / 200, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: rl.Linear(5, 0.5, 0.4), "gamma_min"),
        (lambda: rl.ESSAdaptive(gamma_min=0.9, gamma_max=0.1), "gamma_min"),
        (lambda: Limits(k_max=0.0), "k_max"),
        (lambda: Limits(k_max=np.nan), "k_max"),
        (lambda: Limits(ess_min=-0.1), "ess_min"),
        (lambda: Limits(ess_min=1.1), "ess_min"),
        (lambda: Limits(gamma_max=0.0), "gamma_max"),
        (lambda: Limits(gamma_max=np.nan), "gamma_max"),
        (lambda: GammaController(k_max=-1.0), "k_max"),
        (lambda: GammaController(ess_min=2.0), "ess_min"),
        (lambda: GammaController(gamma_max=-1.0), "gamma_max"),
        (lambda: GammaController(gamma_init=1.5), "gamma .*1.5"),
        (lambda: GammaController(gamma_init=-0.1), "gamma .*-0.1"),
        (lambda: GammaController(gamma_init=np.nan), "gamma .*nan"),
        (lambda: GammaController(normalize="sum"), "normalize .*'sum'"),
        (lambda: GammaController(keep=-1), "keep .*-1"),
        (lambda: GammaController(rl.AlphaDivergence(), gamma_max=1.0), "gamma"),
    ],
)
def test_bad_arguments_raise_at_construction(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_advantages_of_tokens_are_one_a_sequence_where_it_counts(batch, rng):
    log_w, advantage = batch
    mask = rng.uniform(size=(300, 6)) < 0.7
    mask[0], mask[1:] = False, mask[1:] | (np.arange(6) == 2)
    by_token = np.where(mask, advantage[:, None], rng.normal(size=(300, 6)))
    here = step_of(log_w, by_token, where=mask)
    assert_same_step(here, step_of(log_w, advantage, where=mask))
    assert here.n == 299
    assert_same_step(step_of(log_w, np.repeat(advantage[:, None], 6, axis=1)), step_of(log_w, advantage))
    with pytest.raises(ValueError, match=r"advantage of tokens must be the same .* sequence 0 has"):
        step_of(log_w, by_token)
    by_token[7, 2] = np.nan
    assert step_of(log_w, by_token, where=mask).n_nonfinite == 1


def test_bad_arguments_of_a_step(batch):
    log_w, advantage = batch
    with pytest.raises(ValueError, match=r"normalize must be one of .*'mean'"):
        step_of(log_w, normalize="mean")
    with pytest.raises(ValueError, match=r"advantage of shape \(299,\).*\(300,\)"):
        step_of(log_w, advantage[1:])
    with pytest.raises(ValueError, match=r"\(2, 300\)"):
        step_of(log_w, np.zeros((2, 300)))  # advantage is broadcast to log_w, not the other way
    with pytest.raises(ValueError, match=r"advantage of shape \(15,\) does not fit log_w's \(20, 15\)"):
        step_of(log_w.reshape(20, 15), np.zeros(15))  # one a row, never one a token
    for pair in (("a", 1.0), (log_w, "a"), ([1j], 1.0), ([True], 1.0)):
        with pytest.raises(TypeError, match="must hold real numbers"):
            step_of(*pair)


# -------------------------------------------------------------------------------------- controller


def batches(seed, count):
    rng = np.random.default_rng(seed)
    for i in range(count):
        log_w, advantage = rng.normal(scale=0.3 * (i + 1), size=(2, 128))
        if i == 2:
            log_w[:] = -np.inf
        if i == 3:
            log_w[:9] = np.nan
        yield log_w, advantage


@each
@each_schedule
def test_a_controller_is_a_fold_over_steps(reshape, schedule):
    controller = GammaController(reshape, schedule, gamma_init=0.4, gamma_max=0.9)
    state = State(0.4)
    assert controller.state == state
    recorded = []
    for log_w, advantage in batches(5, 5):
        if isinstance(reshape, rl.RewardWeighted):
            advantage = np.abs(advantage) + 0.1
        step = controller.step(log_w, advantage)
        state, expected = take_step(
            log_w,
            advantage,
            reshape=reshape,
            schedule=schedule,
            state=state,
            limits=Limits(gamma_max=0.9),
        )
        assert_same_step(step, expected)
        assert controller.state == state
        assert controller.gamma == step.gamma == (state.gamma if hasattr(reshape, "gamma") else 1.0)
        recorded.append(step.metrics())
    assert tuple(controller.history) == METRICS
    for name in METRICS:
        np.testing.assert_array_equal(controller.history[name], [metrics[name] for metrics in recorded])


def test_gamma_starts_at_the_exponent_of_the_reshape_unless_told():
    assert GammaController().gamma == 0.3
    assert GammaController(Power(0.6)).gamma == 0.6
    assert GammaController(rl.Defensive(0.2)).gamma == 0.2
    assert GammaController(rl.Truncated()).gamma == 1.0
    assert GammaController(Power(0.6), gamma_init=0.1).gamma == 0.1
    # It has no exponent to respect, and none that moves.
    truncated = GammaController(rl.Truncated(), gamma_max=0.9)
    assert truncated.state.gamma <= 0.9
    assert truncated.gamma == truncated.step(np.zeros(40)).gamma == 1.0


def test_a_step_may_have_a_reshape_of_its_own(batch):
    controller, other = GammaController(), GammaController()
    step = controller.step(*batch, reshape=rl.Truncated(1.5), normalize="count")
    expected = step_of(*batch, reshape=rl.Truncated(1.5), normalize="count")
    assert_same_step(step, expected, but=("gamma_batch",))
    other.step(*batch)
    assert controller.state == other.state  # gamma does not go by the reshape
    assert_same_step(controller.step(*batch), other.step(*batch))


@pytest.mark.parametrize("packer", [json, pickle])
@each_schedule
def test_a_restart_goes_on_bit_for_bit(packer, schedule):
    def make():
        return GammaController(rl.Defensive(), schedule, gamma_init=0.37, normalize="count")

    straight, first, second = make(), make(), make()
    every = list(batches(6, 9))
    for log_w, advantage in every:
        straight.step(log_w, advantage)
    for log_w, advantage in every[:5]:
        first.step(log_w, advantage)
    second.step(*every[8])  # forgotten when a state is loaded
    second.observe(*every[8])
    second.load_state_dict(packer.loads(packer.dumps(first.state_dict())))
    assert second.state == first.state
    assert second.history["gamma"] == []
    for log_w, advantage in every[5:]:
        second.step(log_w, advantage)
    assert second.state == straight.state
    for name in METRICS:
        np.testing.assert_array_equal(second.history[name], straight.history[name][5:])


def test_a_state_is_small_whatever_the_history():
    controller = GammaController()
    for _ in range(50):
        controller.step(np.zeros(40))  # khat is -inf in each
    assert len(json.dumps(controller.state_dict(), allow_nan=False)) < 400


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"gamma": math.nan}, ValueError, "gamma must be between 0 and 1, got nan"),
        ({"gamma": 1.5}, ValueError, "gamma must be between 0 and 1, got 1.5"),
        ({"gamma": -0.1}, ValueError, "gamma must be"),
        ({"gamma": "a"}, TypeError, "gamma must be a number"),
        ({"step": -1}, ValueError, "step must be"),
        ({"step": 0.5}, ValueError, "step must be a count"),
        ({"settings": {}}, ValueError, "reshape None, this one has"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(changed, error, message):
    controller = GammaController()
    controller.step(np.zeros(40))
    before = controller.state_dict()
    with pytest.raises(error, match=message):
        controller.load_state_dict(before | {"gamma": 0.9} | changed)
    for key in before:
        with pytest.raises(KeyError, match=key):
            controller.load_state_dict({name: value for name, value in before.items() if name != key})
    assert controller.state_dict() == before
    assert len(controller.history["gamma"]) == 1


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (GammaController(Power(caution=2.0)), "reshape"),
        (GammaController(schedule=rl.Fixed()), "schedule"),
        (GammaController(ess_min=0.5), "limits"),
        (GammaController(normalize="count"), "normalize"),
    ],
)
def test_a_state_of_other_settings_is_refused(other, name):
    with pytest.raises(ValueError, match=f"the state is of a controller with {name}"):
        GammaController().load_state_dict(other.state_dict())
    # Where gamma started is no setting.
    GammaController(gamma_init=0.9).load_state_dict(GammaController(Power(0.1, 3.0)).state_dict())


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_history_holds_the_last_steps(keep):
    controller = GammaController(keep=keep)
    gammas = [controller.step(log_w, advantage).gamma for log_w, advantage in batches(7, 5)]
    assert controller.history["gamma"] == (gammas[-keep:] if keep else [])
    assert {len(values) for values in controller.history.values()} == {keep}
    controller.history["gamma"].append(9.0)  # a copy
    assert controller.history["gamma"] == (gammas[-keep:] if keep else [])
    with pytest.raises(KeyError):
        controller.history["coefficients"]


# ------------------------------------------------------------------------------- batches in parts


def test_parts_are_one_batch_to_gamma(rng):
    log_w, advantage = rng.normal(scale=2.0, size=(2, 300))
    log_w[17] = np.nan
    mask = rng.uniform(size=300) < 0.8
    whole, parts, ranks = GammaController(), GammaController(), (GammaController(), GammaController())
    step = whole.step(log_w, advantage, where=mask)
    for part in (slice(0, 40), slice(40, 41), slice(41, 300)):
        weighed = parts.weights(log_w[part], advantage[part], where=mask[part])
        assert weighed.gamma == 0.3  # until the batch is whole
        parts.observe(log_w[part], advantage[part], where=mask[part])
        assert parts.state == State(0.3)
    with pytest.raises(ValueError, match="3 parts were observed and wait for step"):
        parts.step(log_w, advantage)
    joined = parts.step()
    assert parts.state == whole.state
    assert joined.metrics() == step.metrics()
    np.testing.assert_array_equal(joined.coefficients, step.coefficients[mask])
    assert parts.observed[0].size == 0
    # Ranks join their parts by observing each other's.
    for rank, part in zip(ranks, (slice(0, 100), slice(100, 300)), strict=True):
        rank.observe(log_w[part], advantage[part], where=mask[part])
    theirs = [rank.observed for rank in ranks]
    ranks[0].observe(*theirs[1])
    assert ranks[0].step().metrics() == step.metrics()


def test_weighing_and_proposing_change_nothing(batch):
    controller = GammaController()
    before = controller.state_dict()
    step = controller.weights(*batch)
    assert step.gamma == 0.3
    assert_same_step(step, step_of(*batch, reshape=controller.reshape))
    state, proposed = controller.proposed(*batch)
    assert controller.state_dict() == before
    assert controller.history["gamma"] == []
    controller.accept(state, proposed)
    other = GammaController()
    assert_same_step(proposed, other.step(*batch))
    assert controller.state == other.state
    with pytest.raises(ValueError, match="does not fit"):
        controller.observe(batch[0], np.zeros(7))
    assert GammaController().step().n == 0  # nothing was observed


def test_a_step_is_recorded_by_its_metrics_alone(batch):
    accepting, recording = GammaController(), GammaController()
    state, proposed = accepting.proposed(*batch)
    accepting.accept(state, proposed)
    recording.record(state, proposed.metrics())
    assert recording.state_dict() == accepting.state_dict()
    for name, values in accepting.history.items():
        np.testing.assert_array_equal(recording.history[name], values)


def test_a_step_that_fails_leaves_the_controller_as_it_was():
    controller = GammaController(rl.RewardWeighted())
    controller.step(np.zeros(40), 0.5)
    before = controller.state_dict()
    with pytest.raises(ValueError, match="rewards must be positive"):
        controller.step(np.zeros(40), -0.5)
    assert len(controller.history["n"]) == 1
    assert controller.state_dict() == before


# ------------------------------------------------------------------------------- anything as input

log_ratios = st.one_of(
    st.floats(-10, 10), st.floats(-800, 800), st.floats(-1e4, 1e4), st.sampled_from([-np.inf, np.inf, np.nan])
)
advantages = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, np.nan, np.inf, -np.inf]))


@each
@each_normalize
@given(
    draws=st.lists(st.tuples(log_ratios, advantages), max_size=60),
    repeats=st.integers(1, 40),
    gamma=st.one_of(st.sampled_from([0.0, 1e-300]), st.floats(0, 0.99)),
)
def test_a_step_takes_anything(reshape, normalize, draws, repeats, gamma):
    log_w = np.repeat([w for w, _ in draws], repeats)
    advantage = np.repeat([a for _, a in draws], repeats)
    if reshape == rl.RewardWeighted():
        advantage = np.maximum(np.abs(advantage), 1e-3)  # it refuses others
    used = (log_w < np.inf) & np.isfinite(advantage)
    step = step_of(log_w, advantage, gamma=gamma, reshape=reshape, normalize=normalize)
    assert np.isfinite(step.coefficients).all()
    assert (step.coefficients[~used] == 0).all()
    assert (step.n, step.n_nonfinite) == (used.sum(), (~used).sum())
    if normalize == "batch":
        signal = 1 / (1 - gamma) if isinstance(reshape, rl.AlphaDivergence) else 1e3
        assert np.abs(step.coefficients).sum() <= signal * (1 + 1e-9)
    metrics = step.metrics()
    assert all(metrics[name] >= 0 for name in COUNTS)
    shares = [name for name in METRICS if name.startswith(("ess_ratio", "fraction", "negative"))]
    for name in (*shares, "max_weight"):
        assert math.isnan(metrics[name]) or -1e-12 <= metrics[name] <= 1 + 1e-12, name
    assert step.alarm_stall == 1 or step.coefficients.size == 0 or step.fraction_zero <= 0.95
    assert json.loads(json.dumps(metrics)).keys() == metrics.keys()


@pytest.mark.parametrize("reshape", EVERY_RESHAPE, ids=repr)
def test_ess_of_the_power_beside_that_of_the_weights_used(rng, reshape):
    log_w, advantage = rng.normal(size=200), np.abs(rng.normal(size=200))
    _, step = take_step(log_w, advantage, reshape=reshape, schedule=Fixed(), state=State(reshape.exponent))
    assert step.ess_ratio_tempered == pytest.approx(isdiag.ess(log_w, gamma=step.gamma) / 200)
    if type(reshape) is Power and (advantage > 0).all():
        assert step.ess_ratio_tempered == pytest.approx(step.ess_ratio)


def test_the_history_is_ready_for_a_logger(rng):
    controller = GammaController(keep=2)
    steps = [controller.step(rng.normal(size=64)) for _ in range(3)]
    assert controller.history.logged("a/") == [(2, steps[1].metrics("a/")), (3, steps[2].metrics("a/"))]
    resumed = GammaController()
    resumed.load_state_dict(controller.state_dict())
    assert resumed.history.logged() == []
    step = resumed.step(np.zeros(3))
    ((number, metrics),) = resumed.history.logged()
    assert (number, metrics) == (4, step.metrics("isdiag/"))
    assert "isdiag/pareto_k" not in metrics  # NaN


def test_weights_of_others_are_diagnosed_as_ones_own(rng):
    log_w, advantage = rng.normal(size=200), rng.normal(size=200)
    reshape = rl.Truncated(1.5)
    own = GammaController(reshape, rl.Fixed(), normalize="count").weights(log_w, advantage)
    other = rl.compare_weights(log_w, np.minimum(log_w, np.log(1.5)), advantage)
    saturated = own.metrics() | {"fraction_saturated": 0.0}  # what bound there was it cannot know
    assert other.metrics() == pytest.approx(saturated, nan_ok=True, rel=1e-12)
    np.testing.assert_allclose(other.weights, own.weights, rtol=1e-14)
    # A draw that is no number, in either, is counted; one that is not there is not.
    bad, used = log_w.copy(), np.minimum(log_w, np.log(1.5))
    bad[3], used[5] = np.nan, np.nan
    there = np.arange(200) != 3
    assert rl.compare_weights(bad, used, advantage).n_nonfinite == 2
    assert rl.compare_weights(bad, used, advantage, where=there).n_nonfinite == 1
    np.testing.assert_array_equal(rl.compare_weights(bad, used).weights[[3, 5]], 0.0)
    single = np.minimum(log_w, np.log(1.5)).astype(np.float32)  # rounded is not modified
    assert rl.compare_weights(log_w, single).fraction_modified == np.mean(log_w > np.log(1.5))
    masked = rl.compare_weights(log_w, np.where(there, log_w, -np.inf))
    assert masked.fraction_zero == 1 / 200
    with pytest.raises(ValueError, match=r"log_used must have log_w's shape \(200,\), got \(3,\)"):
        rl.compare_weights(log_w, np.zeros(3))
    with pytest.raises(TypeError, match="limits"):
        rl.compare_weights(log_w, log_w, limits=0.8)


def test_limits_can_be_a_static_argument():
    assert {Limits(0.6): "same"}[Limits(0.6)] == "same"
