"""A policy over a few actions: expectations are sums, gradients are checked by central differences."""

import numpy as np
from scipy.special import log_softmax, softmax

LAWS = range(3)  # seeds of the bandits that each claim is checked on


class Bandit:
    def __init__(self, seed, actions=5):
        rng = np.random.default_rng(seed)
        self.theta = rng.normal(size=actions)
        self.mu = softmax(rng.normal(size=actions))
        self.signed = rng.normal(size=actions)
        self.reward = np.abs(self.signed) + 0.1

    @property
    def pi(self):
        return softmax(self.theta)

    @property
    def log_w(self):
        return log_softmax(self.theta) - np.log(self.mu)

    def gradient(self, weights):
        """E_mu[weights * grad log pi]; grad log pi(a) is e_a - pi."""
        return self.mu * weights - np.sum(self.mu * weights) * self.pi

    def of(self, reshaped):
        return self.gradient(np.exp(reshaped.log_f) * reshaped.signal)

    def slope(self, objective):
        """The gradient of a function of the policy's probabilities by its logits."""
        steps = 1e-5 * np.eye(self.theta.size)
        ends = [[objective(softmax(self.theta + sign * d)) for sign in (1, -1)] for d in steps]
        return np.array([(up - down) / 2e-5 for up, down in ends])

    def tilted(self, beta):
        law = self.mu * np.exp(self.signed / beta)
        return law / law.sum()


def kl(p, q):
    return np.sum(p * np.log(p / q))


def amari(p, q, alpha):
    return (1 - np.sum(p**alpha * q ** (1 - alpha))) / (alpha * (1 - alpha))


def same(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def within(simulated, expected, errors=4.0):
    """The mean of the simulated values is the expected one within so many standard errors."""
    error = np.std(simulated) / np.sqrt(np.size(simulated))
    assert abs(np.mean(simulated) - expected) < errors * error, (np.mean(simulated), expected, error)


def apart(simulated, wrong, errors=6.0):
    """... and is not the wrong one, by more than so many."""
    error = np.std(simulated) / np.sqrt(np.size(simulated))
    assert abs(np.mean(simulated) - wrong) > errors * error, (np.mean(simulated), wrong, error)
