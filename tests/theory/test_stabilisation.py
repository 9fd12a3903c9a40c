"""Sections 6 and 7: bounded, smoothed and controlled weights; annealing."""

from math import nan

import numpy as np
import pytest

import isdiag
from isdiag import lognormal, rl


@pytest.mark.parametrize("gamma", [0.3, 1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.4])
def test_claim_6_1_bound_and_limits(gamma, alpha):
    log_w = np.linspace(-5, 5, 101)
    f = np.exp(rl.Defensive(gamma, alpha)(log_w).log_f)
    w = np.exp(gamma * log_w)
    np.testing.assert_allclose(f, w / (alpha * w + 1 - alpha), rtol=1e-12)
    assert (f < 1 / alpha).all()
    assert np.exp(rl.Defensive(gamma, alpha)(900.0 / gamma).log_f) == pytest.approx(1 / alpha)
    np.testing.assert_allclose(rl.Defensive(gamma, 0.0)(log_w).log_f, gamma * log_w, atol=1e-12)
    np.testing.assert_array_equal(rl.Defensive(gamma, 1.0)(log_w).log_f, 0.0)


def test_claim_6_1_hesterberg_at_gamma_one_only():
    pi, mu, h = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6]), np.array([1.0, 2.0, 4.0])
    mixture = 0.2 * pi + 0.8 * mu
    f = np.exp(rl.Defensive(1.0, 0.2)(np.log(pi / mu)).log_f)
    np.testing.assert_allclose(f, pi / mixture, rtol=1e-12)
    assert mixture @ (f * h) == pytest.approx(pi @ h)
    assert abs(mu @ (f * h) - pi @ h) > 0.1  # draws of mu are not draws of the mixture
    half = np.exp(rl.Defensive(0.5, 0.2)(np.log(pi / mu)).log_f)
    assert abs(mixture @ (half * h) - pi @ h) > 0.1


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_claim_6_2_smoothed_by_quantiles(rng, gamma):
    log_w = gamma * 1.5 * rng.normal(size=1000)
    smoothed = isdiag.psis(log_w, normalize=False)
    m, order = smoothed.tail_length, np.argsort(log_w)
    cutoff = np.exp(log_w[order[-m - 1]])
    fit = isdiag.gpd_fit(np.exp(log_w[order[-m:]]) - cutoff)
    p = (np.arange(m) + 0.5) / m
    quantiles = cutoff + fit.sigma * ((1 - p) ** -fit.k - 1) / fit.k
    got = np.exp(smoothed.log_weights[order[-m:]])
    np.testing.assert_allclose(got, np.minimum(quantiles, np.exp(log_w.max())), rtol=1e-9)
    np.testing.assert_array_equal(smoothed.log_weights[order[:-m]], log_w[order[:-m]])
    assert np.exp(isdiag.psis(log_w).log_weights).sum() == pytest.approx(1.0)


def test_claim_6_2_expected_order_statistics_may_be_infinite(rng):
    # The expected largest of m Pareto draws is m B(m, 1 - k): finite below k = 1. Medians for k = 1.2.
    from scipy.special import beta

    m = 20
    largest = np.exp(0.4 * rng.exponential(size=(40_000, m))).max(axis=1)
    assert abs(largest.mean() / (m * beta(m, 1 - 0.4)) - 1) < 4 * largest.std() / largest.mean() / 200
    largest = np.exp(1.2 * rng.exponential(size=(40_000, m))).max(axis=1)
    means = [largest[:count].mean() / np.median(largest) for count in (40, 40_000)]
    assert means[1] > 2 * means[0] or means[1] > 10  # no mean to settle at
    assert np.isfinite((0.5 / m) ** -1.2)  # its quantile


def test_claim_6_3_known_expectation_leaves_one_less_rho_squared(rng):
    x = rng.normal(size=(4000, 300))
    log_w = 0.5 * x - 0.125
    y, v = np.exp(log_w) * np.sin(3 * x) + np.exp(log_w), np.exp(log_w)
    rho2 = np.corrcoef(y.ravel(), v.ravel())[0, 1] ** 2
    found = isdiag.control_variate(log_w, np.sin(3 * x) + 1)
    left = found.estimate.var() / found.plain.var()
    assert 0.2 < rho2 < 0.95
    assert abs(left / (1 - rho2) - 1) < 0.1
    # Any other coefficient is worse: variances of y - c v over all draws.
    best = np.cov(y.ravel(), v.ravel())[0, 1] / v.var()
    assert found.coefficient.mean() == pytest.approx(best, rel=0.05)
    assert all(np.var(y - best * v) < np.var(y - c * v) for c in (0.8 * best, 1.2 * best))


def test_claim_6_3_an_expectation_from_the_same_draws_gains_nothing(rng):
    x = rng.normal(size=400)
    log_w = 0.25 * x
    own = isdiag.control_variate(log_w, x, gamma=0.5, expected_weight=np.exp(0.5 * log_w).mean())
    assert own.estimate == pytest.approx(own.plain, abs=1e-14)


@pytest.mark.parametrize("m", [100, 900])
def test_claim_6_3_second_sample(rng, m):
    n, repeats = 300, 4000
    x = rng.normal(size=(repeats, n))
    log_w, second = 0.5 * x - 0.125, 0.5 * rng.normal(size=(repeats, m)) - 0.125
    y, v = np.exp(log_w) * x, np.exp(log_w)
    rho2 = np.corrcoef(y.ravel(), v.ravel())[0, 1] ** 2
    found = isdiag.control_variate(log_w, x, second_log_w=second)
    left = found.estimate.var() / found.plain.var()
    share = m / (n + m)
    assert abs(left / (1 - share * rho2) - 1) < 0.1
    slope = isdiag.control_variate(log_w, x).coefficient
    np.testing.assert_allclose(found.coefficient, share * slope, rtol=1e-9)


def test_claim_7_1_steps_with_fresh_draws_keep_the_ess(rng):
    s, steps, n = 3.0, 6, 20_000
    expected = np.exp(-((s / steps) ** 2))
    for gamma in np.arange(steps) / steps:
        x = rng.normal(gamma * s, 1.0, n)
        assert isdiag.ess(s / steps * x) / n == pytest.approx(expected, rel=0.03)


def test_claim_7_1_an_exponent_on_fixed_draws_loses_it(rng):
    s, n = 2.0, 200_000
    x = rng.normal(size=n)
    for gamma in (0.25, 0.5):
        ratio = isdiag.ess(s * x, gamma=gamma) / n
        assert ratio == pytest.approx(np.exp(-((gamma * s) ** 2)), rel=0.05)
    assert lognormal.ess_ratio(1.0, 3.0) < 1e-3


def test_claim_7_2_formulas():
    linear, cosine = rl.Linear(8, 0.2, 0.9), rl.Cosine(8, 0.2, 0.9)
    for t in range(9):
        assert linear.at(t) == pytest.approx(0.2 + 0.7 * t / 8)
        assert cosine.at(t) == pytest.approx(0.2 + 0.7 * (1 - np.cos(np.pi * t / 8)) / 2)


@pytest.mark.parametrize(
    ("ratio", "gamma"), [(0.46, 0.55), (0.44, 0.5), (0.25, 0.5), (0.23, 0.475), (nan, 0.5)]
)
def test_claim_7_2_adaptive_step(ratio, gamma):
    schedule = rl.ESSAdaptive(ess_min=0.3, delta=0.05)
    assert schedule(rl.State(0.5), rl.Evidence(ratio, nan)).gamma == pytest.approx(gamma)
    assert schedule(rl.State(0.98), rl.Evidence(1.0, nan)).gamma == 1.0
    assert schedule(rl.State(0.01), rl.Evidence(0.0, nan)).gamma == 0.0


@pytest.mark.parametrize(("rho", "rises"), [(0.3, True), (0.66, True), (2 / 3, False), (0.9, False)])
def test_claim_7_2_adaptive_rises_below_two_thirds_only(rho, rises):
    state = rl.ESSAdaptive(ess_min=rho)(rl.State(0.5), rl.Evidence(1.0, nan))  # equal weights
    assert (state.gamma > 0.5) is rises


def test_claim_7_3_1_one_sided_and_unbounded():
    log_w = np.log([1e-6, 0.5, 2.0, 1e6])
    clip, power = rl.PPOClip(0.2, 0.2), rl.Power(0.5)
    np.testing.assert_array_equal(clip(log_w, np.ones(4)).log_f[:2], log_w[:2])
    np.testing.assert_array_equal(clip(log_w, -np.ones(4)).log_f[2:], log_w[2:])
    np.testing.assert_allclose(power(log_w, np.ones(4)).log_f, log_w / 2)
    assert clip.bound == power.bound == np.inf
    assert np.exp(rl.Defensive(0.5, 0.1)(log_w, np.ones(4)).log_f).max() <= rl.Defensive(0.5, 0.1).bound


@pytest.mark.parametrize(("s", "rises"), [(0.1, True), (3.0, False)])
def test_claim_7_3_2_gamma_follows_the_batch(rng, s, rises):
    log_w = rng.normal(-(s**2) / 2, s, size=1000)
    state, _ = rl.take_step(log_w, reshape=rl.Power(0.3), schedule=rl.Diagnosed(), state=rl.State(0.3))
    assert (state.gamma > 0.3) is rises


def test_claim_7_3_3_the_clip_does_not_bring_back():
    outside = np.log([1.3, 5.0, 1e3])
    assert (rl.PPOClip(0.2, 0.2)(outside, np.ones(3)).log_f == -np.inf).all()


def test_claim_7_3_4_where_the_weight_is_zero():
    log_w = np.linspace(-30, 30, 61)
    for sign in (1.0, -1.0):
        cut = rl.PPOClip(0.2, 0.2)(log_w, np.full(61, sign)).log_f == -np.inf
        np.testing.assert_array_equal(cut, log_w > np.log(1.2) if sign > 0 else log_w < np.log(0.8))
        assert np.isfinite(rl.Power(0.3)(log_w, np.full(61, sign)).log_f).all()


def test_claim_7_3_5_the_limit_is_importance_sampling(rng):
    log_w = rng.normal(size=50)
    whole = rl.Reinforce()(log_w, np.ones(50)).log_f
    np.testing.assert_array_equal(rl.Power(1.0)(log_w, np.ones(50)).log_f, whole)
    assert (rl.PPOClip(0.2, 2.0)(log_w, np.ones(50)).log_f[log_w > np.log(3.0)] == -np.inf).all()
