"""Section 2: which objective the gradient E_mu[f(w) r grad log pi] belongs to."""

import numpy as np
import pytest

import isdiag
from isdiag import rl
from tests.theory.bandit import LAWS, Bandit, cosine, kl, same


@pytest.fixture(params=LAWS)
def bandit(request):
    return Bandit(request.param)


def test_claim_2_2_forward_kl_of_one_prompt(bandit):
    total = bandit.mu @ bandit.reward
    tilted = bandit.mu * bandit.reward / total
    got = bandit.of(rl.RewardWeighted()(bandit.log_w, bandit.reward))
    same(got, -total * bandit.slope(lambda pi: kl(tilted, pi)))


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_claim_2_2_signed_rewards_tilt_by_their_exponential(bandit, tau):
    total = bandit.mu @ np.exp(bandit.signed / tau)
    got = bandit.of(rl.RewardWeighted(tau)(bandit.log_w, bandit.signed))
    same(got, -total * bandit.slope(lambda pi: kl(bandit.tilted(tau), pi)))
    with pytest.raises(ValueError, match="positive"):
        rl.RewardWeighted()(bandit.log_w, bandit.signed - 5)


def test_claim_2_2_prompts_count_by_their_mean_reward(bandit):
    # Two prompts, one policy that looks at neither.
    rewards = bandit.reward, 10 * np.roll(bandit.reward, 1)
    got = sum(bandit.of(rl.RewardWeighted()(bandit.log_w, r)) for r in rewards)

    def divergence(weigh):
        def value(pi):
            laws = [bandit.mu * r for r in rewards]
            return sum((law.sum() if weigh else 1.0) * kl(law / law.sum(), pi) for law in laws)

        return -bandit.slope(value)

    same(got, divergence(True))
    assert cosine(got, divergence(False)) < 0.999
    even = sum(bandit.of(rl.RewardWeighted()(bandit.log_w, r / (bandit.mu @ r))) for r in rewards)
    same(even, divergence(False))


def test_claim_2_3a_policy_gradient(bandit):
    got = bandit.of(rl.Reinforce()(bandit.log_w, bandit.signed))
    same(got, bandit.slope(lambda pi: pi @ bandit.signed))


def test_claim_2_3a_needs_the_support_of_mu(bandit):
    # Where mu never draws nothing is learnt: one action without draws.
    missing = np.where(np.arange(5) == np.argmax(bandit.pi * np.abs(bandit.signed)), 0.0, 1.0)
    got = bandit.gradient(np.exp(bandit.log_w) * bandit.signed * missing)
    assert np.abs(got - bandit.slope(lambda pi: pi @ bandit.signed)).max() > 0.01


@pytest.mark.parametrize("tau", [0.4, 3.0])
def test_claim_2_3b_entropy(bandit, tau):
    objective, log_mu = rl.EntropyRegularized(tau), np.log(bandit.mu)
    log_z = np.log(np.exp(bandit.signed / tau).sum())
    best = np.exp(bandit.signed / tau - log_z)
    value = objective.value(bandit.theta, bandit.signed, log_mu)
    np.testing.assert_allclose(value, tau * log_z - tau * kl(bandit.pi, best), rtol=1e-12, atol=1e-12)
    entropy = -bandit.pi @ np.log(bandit.pi)
    np.testing.assert_allclose(value, bandit.pi @ bandit.signed + tau * entropy, rtol=1e-12, atol=1e-12)
    signal = objective.signal(bandit.signed, np.log(bandit.pi), log_mu)
    same(bandit.of(rl.Reinforce()(bandit.log_w, signal)), -tau * bandit.slope(lambda pi: kl(pi, best)))


@pytest.mark.parametrize("beta", [0.4, 3.0])
def test_claim_2_3c_kl_penalty(bandit, beta):
    objective, log_mu = rl.KLRegularized(beta), np.log(bandit.mu)
    log_z = np.log(bandit.mu @ np.exp(bandit.signed / beta))
    value = objective.value(bandit.theta, bandit.signed, log_mu)
    expected = beta * log_z - beta * kl(bandit.pi, bandit.tilted(beta))
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    expected = bandit.pi @ bandit.signed - beta * kl(bandit.pi, bandit.mu)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    w = np.exp(bandit.log_w)
    signal = objective.signal(bandit.signed, np.log(bandit.pi), log_mu)
    np.testing.assert_allclose(signal, bandit.signed - beta * (1 + bandit.log_w), rtol=1e-10, atol=1e-12)
    penalised = bandit.of(rl.Reinforce()(bandit.log_w, signal))
    same(penalised, -beta * bandit.slope(lambda pi: kl(pi, bandit.tilted(beta))))
    without_one = bandit.gradient(w * (bandit.signed - beta * bandit.log_w))
    np.testing.assert_allclose(without_one, penalised, rtol=1e-10, atol=1e-12)
    assert cosine(bandit.gradient(w * bandit.signed), penalised) < 0.995  # r alone is another gradient


def test_claim_2_4_maximum_likelihood(bandit):
    got = bandit.of(rl.SFT()(bandit.log_w, bandit.signed))
    same(got, -bandit.slope(lambda pi: kl(bandit.mu, pi)))
    same(got, bandit.slope(lambda pi: bandit.mu @ np.log(pi)))
    entropy = -bandit.mu @ np.log(bandit.mu)
    cross = -bandit.mu @ np.log(bandit.pi)
    np.testing.assert_allclose(kl(bandit.mu, bandit.pi), cross - entropy, rtol=1e-10)


def test_claim_2_4_table_weights_may_lower_the_variance():
    mu, h = np.array([0.4, 0.3, 0.2, 0.1]), np.array([1.0, 2.0, 4.0, 8.0])
    target = mu / h / np.sum(mu / h)
    draws = np.repeat(np.arange(4), [400, 300, 200, 100])
    weighted = isdiag.snis(np.log(target / mu)[draws], h[draws], normalize=False)
    assert isdiag.snis(np.zeros(1000), h[draws], normalize=False).std_error > 0.05
    assert weighted.std_error < 1e-12
    np.testing.assert_allclose(weighted.estimate, target @ h, rtol=1e-12)
