"""Section 5: tail index, effective sample size, and the joint rule."""

import numpy as np
import pytest

import isdiag


@pytest.fixture
def pareto(rng):
    """Log-weights with P(w > t) = t**(-1/0.9)."""
    return 0.9 * rng.exponential(size=(400, 1000))


def hill(log_w, m=100):
    tail = np.sort(log_w)[..., -m - 1 :]
    return np.mean(tail[..., 1:] - tail[..., :1], axis=-1)


@pytest.mark.parametrize("gamma", [0.3, 0.5, 0.8])
def test_claim_5_1_index_of_the_law(pareto, gamma):
    estimates = hill(gamma * pareto)
    assert abs(estimates.mean() / (gamma * 0.9) - 1) < 4 * 0.1 / np.sqrt(
        400
    )  # deviation of Hill: k / sqrt(m)
    np.testing.assert_allclose(estimates, gamma * hill(pareto), rtol=1e-10)


def test_claim_5_1_needs_regular_variation_only(rng):
    # P(w > t) = (1 + log t) / t^2, slowly varying times a power, k = 1/2: log-survival by Newton.
    level = rng.exponential(size=(50, 20_000))
    log_t = level.copy()
    for _ in range(60):
        log_t -= (2 * log_t - np.log1p(log_t) - level) / (2 - 1 / (1 + log_t))
    np.testing.assert_allclose(hill(0.4 * log_t, 200), 0.4 * hill(log_t, 200), rtol=1e-10)
    assert abs(hill(log_t, 200).mean() - 0.5) < 0.08


def test_claim_5_1_the_fit_does_not_scale(pareto):
    khat, refit = isdiag.pareto_khat(pareto), isdiag.pareto_khat(0.5 * pareto)
    off = refit - 0.5 * khat
    assert abs(off.mean()) > 3 * off.std() / np.sqrt(400)
    assert off.std() > 0.03
    small = isdiag.pareto_khat(0.1 * pareto) / (0.1 * khat)
    assert small.mean() - 1 > 3 * small.std() / np.sqrt(400)


def test_claim_5_2_limit_of_gamma(pareto):
    joint = isdiag.select_gamma(pareto, ess_min=0, gamma_max=10.0)
    np.testing.assert_allclose(joint.gamma_psis, 0.7 / joint.khat, rtol=1e-12)
    above = joint.khat_tempered > 0.7
    assert above.mean() - 0.5 > 6 * 0.5 / np.sqrt(400)
    refit = isdiag.select_gamma(pareto, ess_min=0, rule="refit")
    assert (refit.khat_tempered <= 0.7).all()
    # No limit where there is no tail.
    flat = isdiag.select_gamma(np.linspace(-1, 0, 1000) ** 3, ess_min=0)
    assert flat.khat < 0
    assert flat.gamma_psis == np.inf


def test_claim_5_2_sample_size_threshold():
    n = np.array([20, 100, 2154, 2155, 10_000])
    printed = 1 - 1 / np.log10(n)
    np.testing.assert_allclose(isdiag.khat_threshold(n), np.minimum(printed, 0.7), rtol=1e-12)
    assert (printed < 0.7).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("gamma", [0.3, 0.7, 1.0])
def test_claim_5_3_ess(rng, gamma):
    log_w = 2 * rng.normal(size=500)
    w = np.exp(gamma * log_w)
    ess = w.sum() ** 2 / np.sum(w**2)
    assert isdiag.ess(log_w, gamma=gamma) == pytest.approx(ess, rel=1e-10)
    assert 500 / (1 + np.var(w / w.mean())) == pytest.approx(ess, rel=1e-10)
    bar = np.exp(log_w) / np.exp(log_w).sum()
    if gamma > 0.5:  # as printed: about n, whatever the weights
        assert 500 / (1 + np.var(bar**gamma)) > 490 > 1.5 * ess
    slope = (
        np.log(isdiag.ess(log_w, gamma=gamma + 1e-5)) - np.log(isdiag.ess(log_w, gamma=gamma - 1e-5))
    ) / 2e-5
    one, two = w / w.sum(), w**2 / np.sum(w**2)
    assert slope == pytest.approx(2 * (one @ log_w - two @ log_w), rel=1e-6)


def test_claim_5_3_unique_root(rng):
    log_w = 2 * rng.normal(size=500)
    gammas = np.linspace(0, 3, 200)
    assert (np.diff(isdiag.ess(np.tile(log_w, (200, 1)), gamma=gammas)) < 0).all()
    assert isdiag.select_gamma(log_w, k_max=np.inf).ess_ratio == pytest.approx(0.3, abs=1e-10)
    log_w[:200] = -np.inf
    assert isdiag.ess(log_w, gamma=0.0) == 300
    assert isdiag.select_gamma(log_w, k_max=np.inf, ess_min=0.7).status is isdiag.Status.INFEASIBLE


def test_claim_5_4_joint_rule(rng):
    scales = rng.uniform(0.05, 3.0, size=(300, 1))
    log_w = scales * rng.normal(size=(300, 1000))
    log_w[::2] = scales[::2] * rng.exponential(size=(150, 1000))
    joint = isdiag.select_gamma(log_w)
    together = np.minimum(np.minimum(joint.gamma_psis, joint.gamma_ess), 1.0)
    np.testing.assert_array_equal(joint.gamma, together)
    assert set(joint.limited_by) == {"psis", "ess", "max"}
    assert (joint.ess_ratio >= 0.3).all()
    assert (joint.gamma * joint.khat <= 0.7 + 1e-12).all()
    assert (joint.khat_tempered > 0.7).any()  # not a promise about the tempered fit
    # The largest of its kind: a little more breaks what set it.
    by_ess = joint.limited_by == "ess"
    more = isdiag.ess(log_w[by_ess], gamma=joint.gamma[by_ess] * 1.001)
    assert (more < 0.3 * 1000).all()
