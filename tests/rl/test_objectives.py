"""Objectives: gradients by differences, optima, and the divergence that the third one is."""

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from isdiag import rl
from tests.registry import EVERY_OBJECTIVE

each = pytest.mark.parametrize("objective", EVERY_OBJECTIVE, ids=repr)


@pytest.fixture
def tables(rng):
    """Logits, rewards and log-probabilities under mu of 7 actions in 3 contexts."""
    logits, reward, noise = rng.normal(size=(3, 3, 7))
    return logits, reward, log_softmax(noise, axis=-1)


def naive_value(objective, logits, reward, log_mu):
    pi = np.exp(log_softmax(logits, axis=-1))
    value = np.sum(pi * reward, axis=-1)
    if isinstance(objective, rl.EntropyRegularized):
        value -= objective.tau * np.sum(pi * np.log(pi), axis=-1)
    if isinstance(objective, rl.KLRegularized):
        value -= objective.beta * np.sum(pi * (np.log(pi) - log_mu), axis=-1)
    return value


@each
def test_value_is_the_reward_less_its_price(objective, tables):
    got = objective.value(*tables)
    assert got.shape == (3,)
    np.testing.assert_allclose(got, naive_value(objective, *tables), rtol=1e-13)


@each
def test_gradient_is_the_slope_of_the_value(objective, tables):
    logits, reward, log_mu = tables
    expected = np.empty_like(logits)
    for j in range(7):
        step = 1e-5 * (np.arange(7) == j)
        up, down = (objective.value(logits + sign * step, reward, log_mu) for sign in (1, -1))
        expected[:, j] = (up - down) / 2e-5
    np.testing.assert_allclose(objective.gradient(*tables), expected, rtol=1e-6, atol=1e-9)


@each
def test_signal_gives_the_gradient_from_draws_of_mu(objective, tables):
    # E_mu[w signal grad log pi] with Reinforce's f, for which any objective is an advantage.
    logits, reward, log_mu = tables
    log_pi = log_softmax(logits, axis=-1)
    log_f, signal = rl.Reinforce()(log_pi - log_mu, objective.signal(reward, log_pi, log_mu))
    share = np.exp(log_mu + log_f) * signal
    gradient = share - share.sum(axis=-1, keepdims=True) * np.exp(log_pi)
    np.testing.assert_allclose(objective.gradient(*tables), gradient, rtol=1e-12, atol=1e-14)


@each
def test_optimum_cannot_be_beaten(objective, tables, rng):
    _, reward, log_mu = tables
    best = objective.optimum(reward, log_mu)
    np.testing.assert_allclose(logsumexp(best, axis=-1), 0.0, atol=1e-14)
    np.testing.assert_allclose(objective.gradient(best, reward, log_mu), 0.0, atol=1e-14)
    top = objective.value(best, reward, log_mu)
    for scale in (1e-3, 0.1, 1.0, 10.0):
        # From the optimum, where it is inside, and from anywhere.
        for start in (np.maximum(best, -50.0), np.zeros_like(best)):
            other = objective.value(start + scale * rng.normal(size=(200, 3, 7)), reward, log_mu)
            assert (other <= top + 1e-13).all()
    at_random = objective.value(rng.normal(size=(200, 3, 7)), reward, log_mu)
    assert (at_random < top - 1e-3).all()


def test_ties_for_the_largest_reward_share_it():
    best = rl.ExpectedReward().optimum([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]], np.zeros(3))
    np.testing.assert_allclose(np.exp(best), [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    value = rl.ExpectedReward().value(best, [[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]], np.zeros(3))
    np.testing.assert_allclose(value, [3.0, 2.0])


def test_kl_regularised_value_is_a_divergence_from_its_optimum(tables):
    # Seed theorem 2.3: E_pi[r] - beta KL(pi || mu) = -beta KL(pi || p*) + beta log Z.
    logits, reward, log_mu = tables
    objective = rl.KLRegularized(0.7)
    best, log_pi = objective.optimum(reward, log_mu), log_softmax(logits, axis=-1)
    divergence = np.sum(np.exp(log_pi) * (log_pi - best), axis=-1)
    log_z = logsumexp(log_mu + reward / 0.7, axis=-1)
    np.testing.assert_allclose(objective.value(*tables), 0.7 * (log_z - divergence), rtol=1e-13)
    np.testing.assert_allclose(objective.value(best, reward, log_mu), 0.7 * log_z, rtol=1e-13)


def test_kl_regularised_signal_carries_one_plus_log_w(tables):
    logits, reward, log_mu = tables
    log_w = logits - log_mu
    signal = rl.KLRegularized(0.7).signal(reward, logits, log_mu)
    np.testing.assert_allclose(signal, reward - 0.7 * (1 + log_w), rtol=1e-14)


def test_entropy_is_the_divergence_from_a_uniform_policy(tables):
    logits, reward, _ = tables
    uniform = np.full(7, -np.log(7))
    by_entropy = rl.EntropyRegularized(0.4).value(logits, reward, uniform)
    by_kl = rl.KLRegularized(0.4).value(logits, reward, uniform)
    np.testing.assert_allclose(by_entropy, by_kl + 0.4 * np.log(7), rtol=1e-13)
    np.testing.assert_allclose(
        rl.EntropyRegularized(0.4).gradient(logits, reward, uniform),
        rl.KLRegularized(0.4).gradient(logits, reward, uniform),
        rtol=1e-11,
        atol=1e-14,
    )


@pytest.mark.parametrize("price", [1e-9, 1e-6])
def test_a_low_price_leaves_the_expected_reward(tables, price):
    logits, reward, log_mu = tables
    for objective in (rl.EntropyRegularized(price), rl.KLRegularized(price)):
        got = objective.gradient(logits, reward, log_mu)
        np.testing.assert_allclose(got, rl.ExpectedReward().gradient(*tables), atol=5 * price)


def test_a_high_price_leaves_mu(tables):
    _, reward, log_mu = tables
    np.testing.assert_allclose(rl.KLRegularized(1e9).optimum(reward, log_mu), log_mu, atol=1e-8)
    uniform = np.full((3, 7), -np.log(7))
    np.testing.assert_allclose(rl.EntropyRegularized(1e9).optimum(reward, log_mu), uniform, atol=1e-8)


@each
def test_an_action_that_has_no_probability_costs_nothing(objective):
    # 0 log 0 = 0: an action that neither policy takes changes neither value nor gradient.
    logits, reward, log_mu = np.array([0.3, -0.2]), np.array([1.0, 2.0]), np.log([0.4, 0.6])
    more = np.append(logits, -np.inf), np.append(reward, 9.0), np.append(log_mu, -np.inf)
    np.testing.assert_allclose(objective.value(*more), objective.value(logits, reward, log_mu))
    gradient = objective.gradient(logits, reward, log_mu)
    np.testing.assert_allclose(objective.gradient(*more), np.append(gradient, 0.0))


@each
def test_arguments_broadcast_and_stay(objective, tables):
    logits, reward, log_mu = tables
    before = [table.copy() for table in tables]
    got = objective.value(logits[:, None], reward[None], log_mu[0])
    for i in range(3):
        for j in range(3):
            assert got[i, j] == pytest.approx(objective.value(logits[i], reward[j], log_mu[0]), rel=1e-14)
    assert objective.signal(reward[0], 0.0, log_mu).shape == (3, 7)
    whole = np.arange(7)
    assert objective.value(whole, whole, whole) == objective.value(whole * 1.0, whole * 1.0, whole * 1.0)
    for table, copy in zip(tables, before, strict=True):
        np.testing.assert_array_equal(table, copy)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_price_must_be_positive_and_finite(value):
    for kind, name in ((rl.EntropyRegularized, "tau"), (rl.KLRegularized, "beta")):
        with pytest.raises(ValueError, match=f"{name} must be finite and above 0, got {value}"):
            kind(value)


@each
def test_only_real_numbers(objective, tables):
    for at in range(3):
        arguments = list(tables)
        arguments[at] = np.full((3, 7), "a")
        with pytest.raises(TypeError, match="must hold real numbers"):
            objective.value(*arguments)
