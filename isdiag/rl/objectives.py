"""What a policy is trained for: objectives with their gradients, from draws and exactly for small tables.

The gradient of each is ``E_mu[w * signal * grad log pi]``: an objective is a signal, to be used with any
reshape. The exact forms are for policies over finitely many actions and for tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from isdiag._core.boundary import real_array
from isdiag._core.check import number
from isdiag._core.typing import Floats


def _log_softmax(logits: Floats) -> Floats:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def _mean(log_pi: Floats, values: Floats) -> Floats:
    """Mean under pi; at an action that it never takes a value may be infinite or NaN."""
    return (np.exp(log_pi) * np.where(log_pi > -np.inf, values, 0.0)).sum(axis=-1)


@dataclass(frozen=True)
class Objective(ABC):
    """An objective of a policy pi, given rewards and the policy mu that sampled."""

    def signal(self, reward: Any, log_pi: Any, log_mu: Any) -> Any:
        """What ``w * grad log pi`` is multiplied by.

        Parameters
        ----------
        reward : array_like
            Rewards of the draws.
        log_pi, log_mu : array_like
            Log-probabilities of the draws under both policies (of sequences: sums over tokens).

        Returns
        -------
        ndarray
            float64, of the shape that the arguments broadcast to. Under a transformation of JAX, ``jit`` say,
            a JAX array.
        """
        namespace = _tracing(reward, log_pi, log_mu)
        if namespace is not None:
            return self._signal(*namespace.broadcast_arrays(reward, log_pi, log_mu))
        given = _float(reward, "reward"), _float(log_pi, "log_pi"), _float(log_mu, "log_mu")
        return self._signal(*np.broadcast_arrays(*given))

    @abstractmethod
    def _signal(self, reward: Any, log_pi: Any, log_mu: Any) -> Any:
        """The signal of arrays of one shape, by arithmetic that any kind of array has."""

    @abstractmethod
    def optimum(self, reward: Any, log_mu: Any) -> Floats:
        """Log-probabilities of the best policy over the actions of the last axis.

        Parameters
        ----------
        reward, log_mu : array_like, shape (..., actions)
            Reward and log-probability under mu of each action.

        Returns
        -------
        ndarray, shape (..., actions)
            Normalised log-probabilities.
        """

    def value(self, logits: Any, reward: Any, log_mu: Any) -> Floats:
        """The objective of the softmax policy with these logits.

        Parameters
        ----------
        logits, reward, log_mu : array_like, shape (..., actions)
            Logits of the policy; reward and log-probability under mu of each action.

        Returns
        -------
        ndarray, shape (...)
            Expected reward, less what the objective charges for.
        """
        log_pi, r, log_m = self._table(logits, reward, log_mu)
        with np.errstate(invalid="ignore"):  # at actions that neither law ever takes
            return _mean(log_pi, r - self._price(log_pi, log_m))

    def gradient(self, logits: Any, reward: Any, log_mu: Any) -> Floats:
        """The gradient of `value` by the logits.

        Parameters
        ----------
        logits, reward, log_mu : array_like, shape (..., actions)
            As for `value`.

        Returns
        -------
        ndarray, shape (..., actions)
            ``E_pi[signal * grad log pi]``, exactly.
        """
        log_pi, r, log_m = self._table(logits, reward, log_mu)
        with np.errstate(invalid="ignore"):
            signal = np.where(log_pi > -np.inf, self.signal(r, log_pi, log_m), 0.0)
        return np.exp(log_pi) * (signal - _mean(log_pi, signal)[..., None])

    def _table(self, logits: Any, reward: Any, log_mu: Any) -> tuple[Floats, Floats, Floats]:
        pi, r, mu = np.broadcast_arrays(
            _float(logits, "logits"), _float(reward, "reward"), _float(log_mu, "log_mu")
        )
        return _log_softmax(pi), r, mu

    @abstractmethod
    def _price(self, log_pi: Floats, log_mu: Floats) -> Floats:
        """What an action of these log-probabilities costs; the objective is E_pi[reward - price]."""


def _tracing(*values: Any) -> Any:
    """JAX's namespace if one of them is traced: NumPy cannot see its values."""
    for value in values:
        if any(kind.__name__ == "Tracer" for kind in type(value).__mro__):
            return value.__array_namespace__()
    return None


def _float(values: Any, name: str) -> Floats:
    return real_array(values, name)[0].astype(np.float64)


@dataclass(frozen=True)
class ExpectedReward(Objective):
    """(a) The expected reward under pi.

    Examples
    --------
    >>> from isdiag.rl import ExpectedReward
    >>> ExpectedReward().gradient([0.0, 0.0], [1.0, 0.0], [-0.7, -0.7])
    array([ 0.25, -0.25])
    """

    def _signal(self, reward: Any, log_pi: Any, log_mu: Any) -> Any:
        return reward

    def optimum(self, reward: Any, log_mu: Any) -> Floats:
        """All mass on the actions of largest reward, shared equally."""
        r, _ = np.broadcast_arrays(_float(reward, "reward"), _float(log_mu, "log_mu"))
        best = r == r.max(axis=-1, keepdims=True)
        return _log_softmax(np.where(best, 0.0, -np.inf))

    def _price(self, log_pi: Floats, log_mu: Floats) -> Floats:
        return np.zeros_like(log_pi)


@dataclass(frozen=True)
class EntropyRegularized(Objective):
    """(b) The expected reward and tau times the entropy of pi; mu plays no part in the optimum.

    Attributes
    ----------
    tau : float
        Price of a nat of entropy, in the units of the reward, > 0.
    """

    tau: float

    def __post_init__(self) -> None:
        number("tau", self.tau, 0.0, ends="()")

    def _signal(self, reward: Any, log_pi: Any, log_mu: Any) -> Any:
        return reward - self.tau * (1.0 + log_pi)

    def optimum(self, reward: Any, log_mu: Any) -> Floats:
        """The softmax of ``reward / tau``."""
        r, _ = np.broadcast_arrays(_float(reward, "reward"), _float(log_mu, "log_mu"))
        return _log_softmax(r / self.tau)

    def _price(self, log_pi: Floats, log_mu: Floats) -> Floats:
        return self.tau * log_pi


@dataclass(frozen=True)
class KLRegularized(Objective):
    """(c) The expected reward less beta times KL(pi || mu), the form usual in RLHF.

    Attributes
    ----------
    beta : float
        Price of a nat of divergence, in the units of the reward, > 0.
    """

    beta: float

    def __post_init__(self) -> None:
        number("beta", self.beta, 0.0, ends="()")

    def _signal(self, reward: Any, log_pi: Any, log_mu: Any) -> Any:
        return reward - self.beta * (1.0 + (log_pi - log_mu))

    def optimum(self, reward: Any, log_mu: Any) -> Floats:
        """``mu * exp(reward / beta)``, normalised."""
        return _log_softmax(_float(log_mu, "log_mu") + _float(reward, "reward") / self.beta)

    def _price(self, log_pi: Floats, log_mu: Floats) -> Floats:
        return self.beta * (log_pi - log_mu)
