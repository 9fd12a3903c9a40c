"""Estimates, their error, and the two forms of the bias."""

import numpy as np
import pytest

import isdiag
from tests import naive


def log_normal(rng, repeats, n, s=1.0):
    """Draws x ~ N(0, 1) and log w = -s^2/2 + s x: the target is N(s, 1)."""
    x = rng.normal(size=(repeats, n))
    return x, s * x - s**2 / 2


@pytest.mark.parametrize(("power", "truth", "printed"), [(1, 1.0, -0.0050), (2, 2.0, -0.0050)])
def test_bias_against_simulation(power, truth, printed):
    # C1 of the theory: log w = -1/2 + x, n = 200. Simulated -0.0125 for h = x, -0.0379 for h = x^2.
    rng = np.random.default_rng(101)
    x, log_w = log_normal(rng, 100_000, 200)
    h, w = x**power, np.exp(log_w)
    estimate = (w * h).sum(1) / w.sum(1)
    # The linear part of the error, mean(w (h - truth)), has mean 0 exactly: without it the simulation
    # is ten times sharper.
    residual = estimate - truth - (w * (h - truth)).mean(1)
    simulated = residual.mean()
    assert abs(simulated) > 50 * residual.std() / np.sqrt(residual.size)
    corrected = isdiag.kong_owen_bias(log_w, h).mean()
    assert corrected == pytest.approx(simulated, rel=0.15)
    # The seed's form is -cov_mu(w, h) / (n E[w]) = -(E_pi[h] - E_mu[h]) / n, far too small.
    proposal = isdiag.kong_owen_bias(log_w, h, covariance="proposal").mean()
    assert proposal == pytest.approx(printed, rel=0.05)


def test_two_forms_of_the_corrected_bias_agree(rng):
    log_w, h = rng.normal(size=(5, 300)), rng.normal(size=(5, 300))
    for gamma in (0.3, 1.0):
        difference = (
            isdiag.snis(log_w, h, gamma=gamma).estimate - isdiag.snis(log_w, h, gamma=2 * gamma).estimate
        )
        expected = difference / isdiag.ess(log_w, gamma=gamma)
        np.testing.assert_allclose(isdiag.kong_owen_bias(log_w, h, gamma=gamma), expected, rtol=1e-10)
        np.testing.assert_array_equal(
            isdiag.kong_owen_bias(log_w, h, gamma=gamma), isdiag.snis(log_w, h, gamma=gamma).bias
        )


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_printed_form_is_a_covariance_under_the_proposal(rng, gamma):
    log_w, h = rng.normal(size=400), rng.normal(size=400)
    where = rng.uniform(size=400) < 0.8
    h[~where] = np.nan
    w = np.exp(gamma * log_w[where])
    covariance = np.cov(w, h[where], bias=True)[0, 1]
    expected = -covariance / (where.sum() * w.mean())
    got = isdiag.kong_owen_bias(log_w, h, gamma=gamma, covariance="proposal", where=where)
    assert got == pytest.approx(expected, rel=1e-10)


def test_standard_error_is_the_spread_of_the_estimate():
    rng = np.random.default_rng(5)
    x, log_w = log_normal(rng, 4000, 400, s=0.7)
    result = isdiag.snis(log_w, x)
    assert result.std_error.mean() == pytest.approx(result.estimate.std(), rel=0.05)
    covered = np.abs(result.estimate - 0.7) < 1.96 * result.std_error
    assert 0.93 < covered.mean() < 0.97


def test_constant_h_has_no_error(heavy):
    result = isdiag.snis(heavy, np.full(heavy.size, 3.0))
    assert result.estimate == pytest.approx(3.0, rel=1e-15)
    assert abs(result.std_error) < 1e-14
    assert abs(result.bias) < 1e-14


def test_gamma_zero_is_the_mean_over_draws_of_positive_weight(rng):
    log_w, h = rng.normal(size=50), rng.normal(size=50)
    log_w[:10] = -np.inf
    assert isdiag.snis(log_w, h, gamma=0.0).estimate == pytest.approx(h[10:].mean(), rel=1e-14)


def test_smoothed_weights_are_those_of_psis(heavy, rng):
    h = rng.normal(size=heavy.size)
    for gamma in (0.5, 1.0):
        smoothed = isdiag.psis(gamma * heavy)
        result = isdiag.snis(heavy, h, gamma=gamma, smooth=True)
        assert result.estimate == pytest.approx(np.sum(np.exp(smoothed.log_weights) * h), rel=1e-12)
        assert result.khat == pytest.approx(smoothed.khat, rel=1e-12)
        assert result.ess == pytest.approx(smoothed.ess, rel=1e-12)
        expected = naive.snis(smoothed.log_weights, h)
        np.testing.assert_allclose(
            [result.estimate, result.std_error, result.bias], expected, rtol=1e-9, atol=1e-12
        )


def test_rescued_by_smoothing_keeps_the_raw_khat(rng):
    # loo's truncated weights report khat 0; smoothed ones here carry the khat that warns.
    log_w = 1.2 * rng.exponential(size=2000)
    assert isdiag.snis(log_w, log_w, smooth=True).khat == isdiag.pareto_khat(log_w) > 0.7


def test_diagnose_estimates_at_both_gammas(rng):
    log_w = rng.normal(scale=3.0, size=(2, 500))
    log_w[1] = np.nan
    h = rng.normal(size=(2, 500))
    with pytest.warns(isdiag.NonFiniteWarning):
        diagnosis = isdiag.diagnose(log_w, h)
    first = isdiag.snis(log_w[0], h[0])
    chosen = isdiag.select_gamma(log_w[0])
    tempered = isdiag.snis(log_w[0], h[0], gamma=chosen.gamma)
    assert diagnosis.estimate.estimate[0] == first.estimate
    assert diagnosis.estimate_tempered.estimate[0] == tempered.estimate
    assert np.isnan(diagnosis.estimate_tempered.estimate[1])
    text = str(isdiag.diagnose(log_w[0], h[0]))
    assert f"{first.estimate:.6g}  (mean under the target;" in text
    assert f"{tempered.estimate:.6g}  (mean under the tempered target;" in text
    assert diagnosis.to_dict()["estimate"]["estimate"][0] == first.estimate
