"""Against arviz and arviz-stats where they are right, and where they are wrong."""

import math

import numpy as np
import pytest

import isdiag
from tests.helpers import golden_cases, optional

CASES = [pytest.param(log_w, id=name) for name, log_w, _ in golden_cases()]


@pytest.fixture
def arviz_stats():
    optional("arviz_stats")
    from arviz_stats.base import array_stats

    return array_stats


@pytest.mark.parametrize("log_w", CASES)
def test_arviz_stats(arviz_stats, log_w):
    # it takes log-likelihoods, so log-weights go in with the other sign
    log_weights, khat = arviz_stats.psislw(-log_w)
    ours = isdiag.psis(log_w)
    assert ours.khat == pytest.approx(float(khat), abs=1e-12)
    # its sort is not stable, so tied draws may have changed places
    np.testing.assert_allclose(np.sort(ours.log_weights), np.sort(log_weights), rtol=0, atol=1e-11)


@pytest.mark.parametrize("log_w", CASES)
def test_arviz(log_w):
    az = optional("arviz")
    if not hasattr(az, "psislw"):
        pytest.skip("arviz 1.x has no psislw of its own")
    n = log_w.size
    length = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    # its tail holds the draws strictly above the cutoff, which ties make fewer
    length = int((log_w > np.sort(log_w)[-length - 1]).sum())
    log_weights, khat = az.psislw(log_w.copy())
    ours = isdiag.psis(log_w, tail_length=length)
    assert ours.khat == pytest.approx(float(khat), abs=1e-12)
    np.testing.assert_allclose(np.sort(ours.log_weights), np.sort(log_weights), rtol=0, atol=1e-11)


def test_equal_weights_are_the_best_case(arviz_stats):
    with pytest.raises(ValueError, match="same"):
        arviz_stats.psislw(np.zeros(1000))
    assert isdiag.diagnose(np.zeros(1000)).ok


def test_a_nan_does_not_spread():
    log_w = np.random.default_rng(1).normal(size=(2, 200))
    log_w[0, 0] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 2 rows"):
        ours = isdiag.psis(log_w)
    assert ours.status.tolist() == [isdiag.Status.NOT_FINITE, isdiag.Status.OK]
    assert np.isnan(ours.khat[0])


def test_zeros_are_not_fitted():
    # 50 weights among 435 zeros: arviz-stats 0.8 fits the zeros too and says 3.9
    log_w = np.full(485, -np.inf)
    log_w[:50] = 2 * np.random.default_rng(2).normal(size=50)
    khat = isdiag.pareto_khat(log_w)
    assert khat > 0.3
    assert isdiag.psis(log_w).tail_length == 50


def test_weights_that_differ_by_less_than_1e12():
    # exp(x) - exp(c) has lost four digits here, -exp(x) expm1(c - x) none
    noise = np.random.default_rng(3).normal(size=1000)
    assert isdiag.pareto_khat(noise * 1e-12) == pytest.approx(isdiag.pareto_khat(noise * 1e-9), abs=1e-6)


def test_minimal_tail_is_six():
    # With 5 the fit compares its quartile with itself: loo 2.10 gives Inf, arviz-stats NaN at n = 25.
    log_w = np.random.default_rng(4).normal(size=30)
    assert isdiag.psis(log_w[:25]).status == isdiag.Status.TAIL_TOO_SHORT
    assert np.isfinite(isdiag.pareto_khat(log_w))


def test_smoothed_weights_of_very_negative_log_weights_stay_finite():
    # posterior's log-sum-exp floors the maximum at 0 and returns infinite weights
    log_w = np.random.default_rng(6).normal(size=200)
    shifted = isdiag.psis(log_w - 1024.0)
    np.testing.assert_allclose(shifted.log_weights, isdiag.psis(log_w).log_weights, atol=1e-10)


def test_unnormalised_weights_keep_their_scale():
    # lost in arviz-stats, asked for in arviz #2455
    log_w = np.random.default_rng(8).normal(scale=2, size=500) + 17
    raw = isdiag.psis(log_w, normalize=False).log_weights
    top = log_w.max()
    total = top + np.log(np.exp(raw - top).sum())
    np.testing.assert_allclose(raw - total, isdiag.psis(log_w).log_weights, atol=1e-12)
    body = log_w < np.sort(log_w)[-isdiag.tail_length(500)]
    np.testing.assert_array_equal(raw[body], log_w[body])
