"""Sections 9 and 10 and appendix B: consistency, concentration, the joint rule, methods, formulas."""

import numpy as np
import pytest

import isdiag
from isdiag import lognormal, rl
from tests.theory.bandit import LAWS, Bandit, within


def test_claim_9_1_bounded_rewards_are_not_enough(rng):
    # Prompts x of a Cauchy law, pi = mu, reward y in {0, 1}, score (y - 1/2) x: the quartiles of the mean
    # of n Cauchy variables are those of one.
    for n in (20, 1000):
        x, y = rng.standard_cauchy((4000, n)), rng.integers(0, 2, (4000, n))
        found = isdiag.snis(np.zeros((4000, n)), y * (y - 0.5) * x)
        np.testing.assert_allclose(found.ess, n)
        spread = np.subtract(*np.quantile(found.estimate, [0.75, 0.25]))
        assert 0.4 < spread < 0.6  # 2 * 1/2 * 1/2 = 0.5


def test_claim_9_1_consistent_without_ess(rng):
    truth = 1 - np.exp(1 - 1 / 0.6)  # of the target's weights at log w < 1
    errors, ratios = [], []
    for n in (100, 20_000):
        log_w = 0.6 * rng.exponential(size=(100, n))
        errors.append(np.median(np.abs(isdiag.snis(log_w, log_w < 1).estimate - truth)))
        ratios.append(np.median(isdiag.ess(log_w)) / n)
    assert errors[1] < 0.3 * errors[0]
    assert ratios[1] < 0.5 * ratios[0]


def test_claim_9_1_limit_is_the_tempered_mean(rng):
    x = rng.normal(size=(200, 20_000))
    within(isdiag.snis(x, x, gamma=0.5).estimate, 0.5)


@pytest.fixture
def light():
    """50 weights of k = 0.45 in each of 60 000 samples."""
    return np.exp(0.45 * np.random.default_rng(7).exponential(size=(60_000, 50)))


DELTAS = np.array([0.1, 0.01, 0.001])


def test_claim_9_2_holds_with_the_observed_ess(light):
    truth = 3 ** (1 - 1 / 0.45)
    errors = np.abs((light * (light > 3)).sum(axis=1) / light.sum(axis=1) - truth)
    scaled = errors * light.sum(axis=1) / np.sqrt((light**2).sum(axis=1))
    ratios = np.quantile(scaled, 1 - DELTAS) / np.sqrt(np.log(1 / DELTAS))
    assert (ratios < 1).all()
    assert ratios.max() < 1.4 * ratios.min()


def test_claim_9_2_does_not_hold_with_a_fixed_one(light):
    errors = np.abs(light.mean(axis=1) - 1 / 0.55) * np.sqrt(50)
    ratios = np.quantile(errors, 1 - DELTAS) / np.sqrt(np.log(1 / DELTAS))
    assert ratios[1] > 1.5 * ratios[0]
    assert ratios[2] > 1.7 * ratios[1]
    # Chebyshev, which holds: variance 1 / (1 - 2k) - 1 / (1 - k)^2.
    bound = np.sqrt((1 / 0.1 - 1 / 0.55**2) / DELTAS)
    assert (np.quantile(errors, 1 - DELTAS) < bound).all()


def test_claim_9_2_no_constant_serves_all_laws(rng):
    # Bounded weights, mean 1: a chance of 1e-4 of w = 5000. Seldom drawn, half of the target.
    rare = rng.random((2000, 1000)) < 1e-4
    found = isdiag.snis(np.where(rare, np.log(5000), np.log(0.5 / (1 - 1e-4))), rare)
    missed = found.estimate == 0
    assert abs(missed.mean() - (1 - 1e-4) ** 1000) < 4 * 0.3 / np.sqrt(2000)
    np.testing.assert_allclose(found.ess[missed], 1000)
    assert 5 * np.sqrt(np.log(1 / 0.1) / 1000) < 0.5  # the error of 90 % of samples over the bound's order


def test_claim_9_2_bounded_weights_have_bernstein(rng):
    w = np.exp(0.9 * rng.exponential(size=(20_000, 200)))
    f = np.exp(rl.Defensive(1.0, 0.2)(np.log(w)).log_f)
    n, truth, variance, bound = 200, f.mean(), f.var(), 5.0
    for delta in DELTAS:
        half = np.sqrt(2 * variance * np.log(2 / delta) / n) + 2 * bound * np.log(2 / delta) / (3 * n)
        assert np.mean(np.abs(f.mean(axis=1) - truth) > half) <= delta


def test_claim_9_3_1_variance_by_ess_in_the_limit(rng):
    # (E w^g)^2 / E w^2g = (1 - 2u) / (1 - u)^2 for Pareto weights, u = g k.
    u = np.roots([0.3, 1.4, -0.7]).max()
    assert (1 - 2 * u) / (1 - u) ** 2 == pytest.approx(0.3)
    assert u == pytest.approx(0.4555, abs=1e-4)
    medians = []
    for rows, n in ((400, 1000), (20, 50_000)):
        medians.append(np.median(0.9 * isdiag.select_gamma(0.9 * rng.exponential(size=(rows, n))).gamma))
    assert medians[0] > 0.55  # khat <= 0.7 has not made the variance finite
    assert u < medians[1] < medians[0] - 0.03
    # khat alone: far above 1/2.
    alone = isdiag.select_gamma(0.9 * rng.exponential(size=(50, 20_000)), ess_min=0).gamma * 0.9
    assert alone.mean() > 0.65


@pytest.mark.parametrize("s", [2.0, 4.0])
def test_claim_9_3_2_bias_of_tempering(rng, s):
    x = rng.normal(size=(20, 20_000))
    chosen = isdiag.select_gamma(s * x)
    errors = isdiag.snis(s * x, x, gamma=chosen.gamma).estimate - s
    assert errors.mean() == pytest.approx(np.sqrt(-np.log(0.3)) - s, abs=0.05)


def test_claim_9_3_3_error_of_the_joint_rule(rng):
    x = rng.normal(size=(100, 10_000))
    log_w = 2 * x
    joint, plain = isdiag.snis(log_w, x, gamma=isdiag.select_gamma(log_w).gamma), isdiag.snis(log_w, x)
    squares = [np.mean((found.estimate - 2) ** 2) for found in (joint, plain)]
    assert squares[0] > 9 * squares[1]


def test_claim_10_1_methods_as_weights(rng):
    log_w, reward = rng.normal(size=50), rng.uniform(0.1, 2, size=50)
    expected = {
        rl.SFT(): np.ones(50),
        rl.RewardWeighted(): reward,
        rl.Reinforce(): np.exp(log_w) * reward,
        rl.Power(0.3): np.exp(0.3 * log_w) * reward,
    }
    for reshape, product in expected.items():
        got = reshape(log_w, reward)
        np.testing.assert_allclose(np.exp(got.log_f) * got.signal, product, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.2])
def test_claim_10_1_ppo_weight_is_that_of_its_objective(rng, epsilon):
    log_w, a = rng.normal(scale=0.5, size=400), rng.normal(size=400)

    def surrogate(log_w):
        w = np.exp(log_w)
        return np.minimum(w * a, np.clip(w, 1 - epsilon, 1 + epsilon) * a)

    slope = (surrogate(log_w + 1e-7) - surrogate(log_w - 1e-7)) / 2e-7
    got = rl.PPOClip(epsilon, epsilon)(log_w, a)
    np.testing.assert_allclose(np.exp(got.log_f) * got.signal, slope, rtol=1e-5, atol=1e-7)
    w = np.exp(log_w)
    printed = np.clip(w, 1 - epsilon, 1 + epsilon) * np.sign(a) * np.abs(a)
    inside = np.abs(w - 1) < epsilon
    np.testing.assert_allclose(printed[inside], slope[inside], rtol=1e-5)
    outside = np.abs(w - 1) > 1.1 * epsilon
    assert (np.abs(printed - slope)[outside] > 0.09 * epsilon * np.abs(a)[outside]).all()


def test_claim_10_2_ess_and_khat_do_not_see_the_values(rng):
    log_w, h = 0.1 * rng.normal(size=1000), np.where(np.arange(1000) == 7, 1.0, 0.0)
    chosen, estimate = isdiag.select_gamma(log_w), isdiag.snis(log_w, h)
    assert chosen.ess_ratio > 0.98
    assert chosen.khat < 0.5
    assert estimate.error_draws < 1.1
    assert estimate.status is isdiag.Status.ERROR_UNCERTAIN


def test_claim_10_2_a_schedule_that_does_not_look(rng):
    assert isdiag.ess(3 * rng.normal(size=1000), gamma=rl.Linear(10).at(10)) < 50


@pytest.mark.parametrize("seed", LAWS)
@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 1.5])
def test_claim_b_1_objective_of_the_unified_gradient(seed, gamma):
    bandit = Bandit(seed)

    def objective(pi):
        w = pi / bandit.mu
        return np.sum(bandit.mu * bandit.signed * (np.log(w) if gamma == 0 else (w**gamma - 1) / gamma))

    got = bandit.of(rl.Power(gamma)(bandit.log_w, bandit.signed))
    np.testing.assert_allclose(got, bandit.slope(objective), rtol=1e-6, atol=1e-9)


def test_claim_b_2_is_a_second_moment(rng):
    s, gamma = 1.0, 0.25
    w = np.exp(s * rng.normal(size=1_000_000) - s * s / 2)
    within(w ** (2 * gamma), np.exp(s * s * gamma * (2 * gamma - 1)))
    assert lognormal.variance_printed(gamma, s) == pytest.approx(np.exp(-0.125))
    assert lognormal.variance(gamma, s, 1) == pytest.approx(np.exp(0.0625) * 1.0625)


def test_claim_b_3_covariance_under_the_tempered_target(rng):
    x = rng.normal(size=300)
    w = np.exp(0.6 * x)
    for law, name in ((w / w.sum(), "target"), (np.full(300, 1 / 300), "proposal")):
        covariance = law @ (w * x) - (law @ w) * (law @ x)
        got = isdiag.kong_owen_bias(x, x, gamma=0.6, covariance=name)
        assert got == pytest.approx(-covariance / w.sum(), rel=1e-10)


def test_claim_b_4_the_fit_is_not_proportional(rng):
    log_w = 0.9 * rng.exponential(size=(500, 1000))
    ratios = isdiag.pareto_khat(0.3 * log_w) / (0.3 * isdiag.pareto_khat(log_w))
    assert ratios.mean() - 1 > 4 * ratios.std() / np.sqrt(500)


def test_claim_b_5_weights_over_their_mean(rng):
    w = np.exp(rng.normal(size=400))
    assert isdiag.ess(np.log(w)) == pytest.approx(400 / (1 + np.var(w / w.mean())))
    assert 400 / (1 + np.var(w / w.sum())) > 399.9


def test_claim_b_6_needs_the_one(rng):
    log_w = 0.2 * rng.normal(size=1000)
    assert isdiag.select_gamma(log_w, gamma_max=100.0).gamma > 3
    assert isdiag.select_gamma(log_w).gamma == 1.0
    overshot = isdiag.snis(log_w, log_w / 0.2, gamma=isdiag.select_gamma(log_w, gamma_max=100.0).gamma)
    assert overshot.estimate - 0.2 > 6 * overshot.std_error  # the target's mean is 0.2
