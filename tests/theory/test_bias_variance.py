"""Section 4: variance, bias and mean squared error, with log-normal weights (log w = s x - s^2/2, h = x)."""

import numpy as np
import pytest

import isdiag
from isdiag import lognormal
from tests.theory.bandit import apart, within


def cleaned(errors, x, s, gamma):
    """Errors less their regression on three means that are known: less noise, the same mean."""
    known = np.exp(gamma * s * x - 0.5 * (gamma * s) ** 2).mean(axis=1) - 1
    controls = np.column_stack([x.mean(axis=1), (x**2).mean(axis=1) - 1, known])
    return errors - controls @ np.linalg.lstsq(controls, errors - errors.mean(), rcond=None)[0]


def test_claim_4_1_variance_of_the_unnormalised_mean(rng):
    s, gamma, n = 1.0, 0.5, 50
    x = rng.normal(size=(40_000, n))
    means = np.mean(np.exp(gamma * (s * x - s * s / 2)) * x, axis=1)
    second = lognormal.moment(2 * gamma, s) * (1 + (2 * gamma * s) ** 2)
    first = lognormal.moment(gamma, s) * gamma * s
    squares = n * (means - first) ** 2
    within(squares, second - first**2)
    apart(squares, lognormal.moment(2 * gamma, s) * 1.0)  # as printed
    apart(squares, second)  # the mean is not 0


def test_claim_4_1_printed_where_signal_and_weight_are_independent(rng):
    s, gamma = 1.5, 0.25
    x, v = rng.normal(size=(2, 20_000, 50))
    means = np.mean(np.exp(gamma * (s * x - s * s / 2)) * v, axis=1)
    within(50 * means**2, lognormal.variance_printed(gamma, s))


@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.1])
def test_claim_4_1_box_second_moment(rng, gamma):
    log_w = rng.normal(size=1000)
    log_w -= np.log(np.mean(np.exp(log_w)))
    renyi = isdiag.renyi_divergence(log_w, 2 * gamma).estimate
    np.testing.assert_allclose(
        np.exp((2 * gamma - 1) * renyi), np.mean(np.exp(2 * gamma * log_w)), rtol=1e-10
    )
    expected = np.exp((2 * gamma - 1) * 2 * gamma * 1.3**2 / 2)
    np.testing.assert_allclose(lognormal.variance_printed(gamma, 1.3), expected, rtol=1e-12)


def test_claim_4_2_variance_is_least_at_zero(rng):
    s, n = 1.0, 400
    x = rng.normal(size=(6000, n))
    by_gamma = [n * (isdiag.snis(s * x, x, gamma=g).estimate - g * s) ** 2 for g in (0.0, 0.25, 0.5)]
    for gamma, squares in zip((0.0, 0.25, 0.5), by_gamma, strict=True):
        assert abs(squares.mean() / lognormal.variance(gamma, s, 1) - 1) < 0.06
    apart(by_gamma[1] - by_gamma[0], 0.0, 5)
    assert by_gamma[1].mean() > by_gamma[0].mean()
    assert lognormal.variance_printed(0.25, s) < lognormal.variance_printed(0.0, s)


def test_claim_4_2_a_quarter_is_the_dip_of_log_normal_moments_only():
    gammas = np.linspace(0, 1, 1001)
    for s in (0.5, 2.0):
        assert gammas[lognormal.variance_printed(gammas, s).argmin()] == 0.25
    w, chance = np.array([0.01, 9.91]), np.array([0.9, 0.1])
    assert chance @ w == pytest.approx(1.0)
    dip = gammas[np.argmin([chance @ w ** (2 * g) for g in gammas])]
    assert 0 < dip < 0.22


@pytest.mark.parametrize(("s", "gamma", "n"), [(1.0, 1.0, 400), (1.0, 0.6, 100)])
def test_claim_4_3_covariance_is_under_the_target(rng, s, gamma, n):
    x = rng.normal(size=(4_000_000 // n, n))
    errors = cleaned(isdiag.snis(s * x, x, gamma=gamma).estimate - gamma * s, x, s, gamma)
    # The second order is some of n^-2: allowed for as a tenth of the first.
    first = lognormal.bias(gamma, s, n)
    error = errors.std() / np.sqrt(errors.size)
    assert abs(errors.mean() - first) < 4 * error + 0.1 * abs(first)
    apart(errors, -gamma * s / n)  # under the proposal
    np.testing.assert_allclose(first, -gamma * s / n * np.exp((gamma * s) ** 2), rtol=1e-12)


def test_claim_4_3_bias_from_two_estimates(rng):
    x = rng.normal(size=300)
    one, two = (isdiag.snis(x, x**2, gamma=g) for g in (0.7, 1.4))
    expected = (one.estimate - two.estimate) / one.ess
    np.testing.assert_allclose(isdiag.kong_owen_bias(x, x**2, gamma=0.7), expected, rtol=1e-10)
    assert isdiag.kong_owen_bias(x, x, gamma=0.0) == pytest.approx(0.0, abs=1e-15)


def test_claim_4_3_the_bias_does_not_level_off():
    gammas = np.linspace(0, 1, 101)
    assert (np.diff(lognormal.bias(gammas, 2.0, 100)) < 0).all()
    assert (lognormal.moment(gammas, 2.0) <= 1).all()


def test_claim_4_3_log_normal_form(rng):
    # No constant serves both gammas: it is fitted at one and wrong at the other.
    n, s = 100, 1.0
    x = rng.normal(size=(40_000, n))
    small = lognormal.bias(0.1, s, n)
    scale = small / lognormal.bias_printed(0.1, s, n)
    errors = cleaned(isdiag.snis(s * x, x, gamma=0.9).estimate - 0.9 * s, x, s, 0.9)
    apart(errors, lognormal.bias_printed(0.9, s, n, scale=scale), 4)
    ratios = lognormal.bias([0.1, 1.5], 2.0, n) / lognormal.bias_printed([0.1, 1.5], 2.0, n)
    assert ratios[1] > 100 * ratios[0]


def test_claim_4_4_the_bias_of_tempering_stays(rng):
    s, n = 0.5, 100
    x = rng.normal(size=(4000, n))
    found = {}
    for gamma in (0.25, 0.9, 1.0):
        found[gamma] = (isdiag.snis(s * x, x, gamma=gamma).estimate - s) ** 2
        error = found[gamma].std() / np.sqrt(4000)
        assert abs(found[gamma].mean() - lognormal.mse(gamma, s, n)) < 4 * error
    apart(found[0.25] - found[1.0], 0.0, 20)
    # 1/4 minimises the printed form for large n, the right one is least at 1.
    n = np.array([10, 1000, 1e6])
    np.testing.assert_allclose(lognormal.best_gamma_printed(2.0, n), [0.145, 0.246, 0.25], atol=1e-3)
    np.testing.assert_allclose(lognormal.best_gamma(2.0, n), [0.446, 0.889, 0.9997], atol=1e-3)
    gammas = np.linspace(0, 1, 2001)
    for count in (10.0, 1000.0):
        assert gammas[lognormal.mse(gammas, s, count).argmin()] == pytest.approx(
            lognormal.best_gamma(s, count), abs=1e-3
        )
