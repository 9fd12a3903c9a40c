"""Section 3: alpha and Renyi divergences, and the geometric path."""

import numpy as np
import pytest
from scipy.special import softmax

import isdiag
from isdiag import rl
from tests.theory.bandit import LAWS, Bandit, amari, cosine, kl, same

BETA = 0.7


@pytest.fixture(params=LAWS)
def bandit(request):
    return Bandit(request.param)


def test_claim_3_2a_order_of_the_ends(bandit):
    p, q = bandit.pi, bandit.tilted(BETA)
    np.testing.assert_allclose(amari(p, q, 1 - 1e-7), kl(p, q), rtol=1e-5)
    np.testing.assert_allclose(amari(p, q, 1e-7), kl(q, p), rtol=1e-5)
    assert abs(kl(p, q) / kl(q, p) - 1) > 0.02  # so that the order matters
    # alpha_divergence has pi first: order gamma is of D(pi || mu), 1 - gamma of D(mu || pi).
    draws = np.array([0.0, 0.0, 0.0, np.log(2), np.log(3)])
    w = np.exp(draws) / np.exp(draws).mean()
    uniform = np.full(5, 0.2)
    for alpha in (0.3, 0.7):
        got = isdiag.alpha_divergence(draws, alpha).estimate
        np.testing.assert_allclose(got, amari(0.2 * w, uniform, alpha), rtol=1e-10)
        np.testing.assert_allclose(got, amari(uniform, 0.2 * w, 1 - alpha), rtol=1e-10)


def test_claim_3_2a_reward_signals_at_the_ends(bandit):
    best, w = bandit.tilted(BETA), np.exp(bandit.log_w)
    forward = -bandit.slope(lambda pi: kl(best, pi))
    reverse = -bandit.slope(lambda pi: kl(pi, best))
    assert cosine(bandit.gradient(bandit.reward), forward) < 0.99
    assert cosine(bandit.gradient(np.exp(bandit.signed / BETA)), forward) > 1 - 1e-8
    assert cosine(bandit.gradient(w * bandit.signed), reverse) < 0.995
    signal = bandit.signed - BETA * (1 + bandit.log_w)
    assert cosine(bandit.gradient(w * signal), reverse) > 1 - 1e-8


@pytest.mark.parametrize("gamma", [0.2, 0.5, 0.8])
def test_claim_3_2b_exact_gradient(bandit, gamma):
    log_z = np.log(bandit.mu @ np.exp(bandit.signed / BETA))
    got = bandit.of(rl.AlphaDivergence(gamma, BETA, log_z)(bandit.log_w, bandit.signed))
    same(got, -bandit.slope(lambda pi: amari(pi, bandit.tilted(BETA), gamma)))
    tilt = np.exp((1 - gamma) * (bandit.signed / BETA - log_z))
    same(got, bandit.gradient(np.exp(gamma * bandit.log_w) * tilt) / (1 - gamma))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.6])
def test_claim_3_2b_printed_weight_has_a_sharpened_target(bandit, gamma):
    sharp = bandit.mu * bandit.reward ** (1 / (1 - gamma))
    total = sharp.sum()
    sharp /= total
    got = bandit.of(rl.Power(gamma)(bandit.log_w, bandit.reward))

    def divergence(pi):
        return kl(sharp, pi) if gamma == 0 else amari(pi, sharp, gamma)

    same(got, -(1 - gamma) * total ** (1 - gamma) * bandit.slope(divergence))


def test_claim_3_2b_half_is_hellinger(bandit):
    p, q = bandit.pi, bandit.mu
    hellinger = 0.5 * np.sum((np.sqrt(p) - np.sqrt(q)) ** 2)
    np.testing.assert_allclose(amari(p, q, 0.5), 4 * hellinger, rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.3, 0.7])
def test_claim_3_2c_small_rewards_leave_the_pull_to_mu(bandit, gamma):
    def exact(beta):
        log_z = np.log(bandit.mu @ np.exp(bandit.signed / beta))
        return bandit.of(rl.AlphaDivergence(gamma, beta, log_z)(bandit.log_w, bandit.signed))

    pull = -bandit.slope(lambda pi: amari(pi, bandit.mu, gamma))
    w = np.exp(gamma * bandit.log_w)
    reward = bandit.gradient(w * (bandit.signed - bandit.mu @ bandit.signed))
    for beta in (100.0, 1000.0):
        # Both terms of the first order: what is left is of the second.
        left = np.abs(exact(beta) - pull - reward / beta).max()
        assert left < 20 / beta**2 + 1e-8
        assert np.abs(exact(beta) - reward / beta).max() > 0.5 * np.abs(pull).max()
    assert cosine(exact(1000.0), pull) > 0.999
    assert cosine(exact(1000.0), bandit.gradient(w * bandit.signed)) < 0.97


def test_claim_3_2c_exact_at_the_first_step(bandit):
    bandit.theta = np.log(bandit.mu)
    log_z = np.log(bandit.mu @ np.exp(bandit.signed / 1000))
    got = bandit.of(rl.AlphaDivergence(0.4, 1000, log_z)(bandit.log_w, bandit.signed))
    assert cosine(got, bandit.gradient(bandit.signed)) > 1 - 1e-5


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.7, 2.0])
def test_claim_3_2_box_renyi_identity(gamma):
    counts = np.array([4, 3, 2, 1])
    w = softmax([0.5, -0.2, 0.1, 0.3]) / (counts / 10)
    draws = np.repeat(np.log(w), counts)
    renyi = isdiag.renyi_divergence(draws, gamma).estimate
    np.testing.assert_allclose(np.exp((gamma - 1) * renyi), counts / 10 @ w**gamma, rtol=1e-12)
    np.testing.assert_allclose(
        isdiag.log_moment(draws, gamma).estimate, (gamma - 1) * renyi, rtol=1e-9, atol=1e-12
    )
    # Known up to a constant: the moment over that of the mean.
    np.testing.assert_allclose(
        isdiag.renyi_divergence(draws + 5, gamma).estimate, renyi, rtol=1e-9, atol=1e-12
    )
    # Normal laws: D_a = a s^2 / 2.
    moment = np.exp((gamma - 1) * gamma * 1.5**2 / 2)
    np.testing.assert_allclose(isdiag.lognormal.moment(gamma, 1.5), moment, rtol=1e-12)


def test_claim_3_3a_not_the_fisher_rao_geodesic():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8])
    middle = np.sqrt(p * q) / np.sqrt(p * q).sum()
    half_way = (np.sqrt(p) + np.sqrt(q)) ** 2
    half_way /= half_way.sum()
    np.testing.assert_allclose(middle, [0.384, 0.205, 0.411], atol=5e-4)
    np.testing.assert_allclose(half_way, [0.394, 0.173, 0.434], atol=5e-4)

    def length(path):
        return 2 * np.linalg.norm(np.diff(np.sqrt(path), axis=0), axis=1).sum()

    t = np.linspace(0, 1, 5001)[:, None]
    geometric = p ** (1 - t) * q**t
    geometric /= geometric.sum(axis=1, keepdims=True)
    angle = np.arccos(np.sqrt(p * q).sum())
    circle = (np.sin((1 - t) * angle) * np.sqrt(p) + np.sin(t * angle) * np.sqrt(q)) / np.sin(angle)
    np.testing.assert_allclose(length(circle**2), 2 * angle, rtol=1e-6)
    assert length(geometric) > 1.005 * 2 * angle


@pytest.mark.parametrize("gamma", [0.2, 0.5, 0.9])
def test_claim_3_3b_minimises_the_weighted_divergences(bandit, gamma):
    best = bandit.tilted(BETA)
    path = bandit.mu ** (1 - gamma) * best**gamma
    total = path.sum()
    path /= total
    renyi = np.log(np.sum(best**gamma * bandit.mu ** (1 - gamma))) / (gamma - 1)

    def objective(p):
        return (1 - gamma) * kl(p, bandit.mu) + gamma * kl(p, best)

    # J(p) = KL(p || p_gamma) + (1 - gamma) D^R_gamma(p* || mu), for any law p.
    for p in (bandit.pi, bandit.mu, best, path):
        np.testing.assert_allclose(objective(p), kl(p, path) + (1 - gamma) * renyi, rtol=1e-9, atol=1e-12)
    optimum = rl.KLRegularized(BETA / gamma).optimum(bandit.signed, np.log(bandit.mu))
    np.testing.assert_allclose(np.exp(optimum), path, rtol=1e-10)
    counts = np.repeat(np.arange(4), [4, 3, 2, 1])
    mu, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    found = isdiag.geometric_path(np.log(mu)[counts], np.log(target)[counts], [gamma])
    law = np.bincount(counts, np.exp(found.log_weights[0]))
    on_path = mu ** (1 - gamma) * target**gamma
    np.testing.assert_allclose(law, on_path / on_path.sum(), rtol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.6])
def test_claim_3_3c_where_training_ends(gamma):
    bandit = Bandit(3)
    for _ in range(6000):
        bandit.theta = bandit.theta + 2.0 * bandit.gradient(np.exp(gamma * bandit.log_w) * bandit.reward)
    sharp = bandit.mu * bandit.reward ** (1 / (1 - gamma))
    np.testing.assert_allclose(bandit.pi, sharp / sharp.sum(), atol=1e-6)


def test_claim_3_3c_natural_gradient_and_the_path(bandit):
    def rate(law, gamma):
        x = (law / bandit.mu) ** (gamma - 1) * bandit.reward
        return x - law @ x

    def along(law):
        return bandit.reward - law @ bandit.reward

    on_path = softmax(np.log(bandit.mu) + bandit.reward)
    for gamma in (0.2, 0.7, 1.0):
        assert cosine(rate(bandit.mu, gamma), along(bandit.mu)) > 1 - 1e-12
    assert cosine(rate(on_path, 1.0), along(on_path)) > 1 - 1e-12
    assert cosine(rate(on_path, 0.2), along(on_path)) < 0.995
