"""Reshapes: what a method of off-policy learning puts in the place of the importance weight w.

All of them share one gradient, ``E_mu[f(w) * signal * grad log pi]``, and differ in f and, where a method
replaces the advantage, in the signal. Each formula is that of the gradient, not of a surrogate objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import cosh, exp, inf, log, sqrt, tanh
from typing import Any, NamedTuple, Self

import numpy as np

from isdiag._core import caution
from isdiag._core.boundary import real_array
from isdiag._core.check import number
from isdiag._core.typing import Floats
from isdiag._tails import psis


class Reshaped(NamedTuple):
    """The two factors of a draw's share in the gradient, ``exp(log_f) * signal * grad log pi``.

    Attributes
    ----------
    log_f : ndarray of the shape of log_w and the advantage broadcast together
        Log of the reshaped weight; -inf for a draw that is masked, NaN where log_w is NaN or +inf.
    signal : ndarray of that shape
        What the weight multiplies: the advantage, or what the method has in its place.
    """

    log_f: Floats
    signal: Floats


def power(gamma: float, log_w: Floats, out: Floats | None = None) -> Floats:
    """Log of w^gamma; in out if that is of use."""
    if gamma > 0.0:
        return np.multiply(gamma, log_w, out=out)
    return np.where(log_w > -inf, 0.0, log_w)  # a draw of zero weight keeps it


@dataclass(frozen=True)
class Reshape(ABC):
    """A function f of the importance weight, applied to log-weights.

    Calling one gives a `Reshaped`. A method of your own is a frozen dataclass with `log_f`, and with
    `signal` if it replaces the advantage and `bound` if f has one; `at` and `exponent` are for a method
    with an exponent that a schedule may set.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from isdiag.rl import Reshape
    >>> @dataclass(frozen=True)
    ... class Halved(Reshape):
    ...     def log_f(self, log_w, advantage):
    ...         return np.minimum(log_w - np.log(2.0), 0.0)
    ...     @property
    ...     def bound(self):
    ...         return 1.0
    >>> np.exp(Halved()(np.log([0.5, 1.0, 8.0])).log_f)
    array([0.25, 0.5 , 1.  ])
    """

    def __call__(self, log_w: Any, advantage: Any = 1.0) -> Reshaped:
        """Reshape log-weights.

        Parameters
        ----------
        log_w : array_like
            Log-ratios ``log pi - log mu``, of sequences or tokens, in nats. -inf is a draw of zero weight.
        advantage : array_like, default 1
            Advantages or rewards, broadcast against `log_w`.

        Returns
        -------
        Reshaped
            log f and the signal, float64, of the shape that `log_w` and `advantage` broadcast to.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        TypeError
            If an argument is not real or not in CPU memory.
        """
        w = real_array(log_w, "log_w")[0]
        a = real_array(advantage, "advantage")[0]
        if w.shape != a.shape:
            w, a = np.broadcast_arrays(w, a)
        w, a = w.astype(np.float64, copy=False), a.astype(np.float64)
        with np.errstate(all="ignore"):  # exp of a large log-weight may overflow to its limit
            log_f = self.log_f(np.atleast_1d(w), np.atleast_1d(a)).reshape(w.shape)
        return Reshaped(np.where(w < inf, log_f, np.nan), self.signal(a))

    def of_draws(self, log_w: Floats, advantage: Floats) -> Reshaped:
        """As a call, without its checks.

        Parameters
        ----------
        log_w, advantage : ndarray of float64
            Of one shape with an axis at least; log_w below inf.

        Returns
        -------
        Reshaped
            log f and the signal, which may be the arrays themselves.
        """
        # Half a million advantages take a millisecond to copy.
        same = type(self).signal is Reshape.signal
        with np.errstate(all="ignore"):
            return Reshaped(
                self.log_f(log_w, advantage), advantage if same else self.signal(advantage.copy())
            )

    @abstractmethod
    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        """Log of the reshaped weight: the formula of a method.

        It must be right, without overflow to NaN, for every log-ratio below inf: at -inf, a draw of zero
        weight, it is the limit of f, and log-ratios of +-800 and beyond occur where sequences are long.
        Nothing warns here of what overflows to its limit. What it returns for a log-ratio that is NaN or
        +inf does not matter. The arguments must not be changed.

        Parameters
        ----------
        log_w, advantage : ndarray of float64
            Of one shape; draws are along the last axis.

        Returns
        -------
        ndarray of float64
            Of that shape; -inf for f = 0.
        """

    def signal(self, advantage: Floats) -> Floats:
        """What the reshaped weight multiplies: the advantage, if the method has nothing in its place.

        Parameters
        ----------
        advantage : ndarray of float64
            A copy of the caller's.

        Returns
        -------
        ndarray of float64
            Of that shape.
        """
        return advantage

    @property
    def bound(self) -> float:
        """The least number that f never exceeds, whatever the batch; inf if there is none."""
        return inf

    @property
    def exponent(self) -> float:
        """The exponent of w that a schedule may set; 1 if there is none."""
        return 1.0

    def at(self, gamma: float) -> Self:
        """The same reshape with the exponent `gamma`; itself if it has no exponent to set."""
        return self


@dataclass(frozen=True)
class _Tempered(Reshape):
    """A reshape with an exponent that a schedule may set."""

    gamma: float = 1.0

    def __post_init__(self) -> None:
        number("gamma", self.gamma, 0.0, ends="[)")

    @property
    def exponent(self) -> float:
        return self.gamma

    def at(self, gamma: float) -> Self:
        return replace(self, gamma=gamma)


@dataclass(frozen=True)
class SFT(Reshape):
    """Supervised fine-tuning: f = 1 and signal 1, the gradient of ``-KL(mu || pi)``. Rewards are not used."""

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return np.zeros_like(log_w)

    def signal(self, advantage: Floats) -> Floats:
        return np.ones_like(advantage)

    @property
    def bound(self) -> float:
        return 1.0


@dataclass(frozen=True)
class RewardWeighted(Reshape):
    """Reward-weighted fine-tuning: the likelihood of draws tilted by their reward.

    The tilt takes the place of f, the signal is 1: normalised over the batch, the gradient is that of
    ``-KL(tilted || pi)`` with the tilted law proportional to ``mu * r`` or ``mu * exp(r / tau)``.

    Attributes
    ----------
    tau : float or None, default None
        Temperature, in the units of the reward, > 0; None to tilt by the reward itself, which then must be
        positive (ValueError).
    """

    tau: float | None = None

    def __post_init__(self) -> None:
        if self.tau is not None:
            number("tau", self.tau, 0.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        if self.tau is not None:
            return advantage / self.tau
        if (advantage <= 0.0).any():
            msg = (
                f"rewards must be positive to weigh by them, got {np.nanmin(advantage):g}: "
                "for signed rewards tilt by exp(r / tau), RewardWeighted(tau=...)"
            )
            raise ValueError(msg)
        return np.log(advantage)

    def signal(self, advantage: Floats) -> Floats:
        return np.ones_like(advantage)


@dataclass(frozen=True)
class Reinforce(Reshape):
    """Full importance sampling, f = w: the gradient of the expected reward under pi."""

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return log_w


@dataclass(frozen=True)
class PPOClip(Reshape):
    """PPO's clip: f is w where the objective ``min(w A, clip(w, 1 - low, 1 + high) A)`` moves, else 0.

    Attributes
    ----------
    low, high : float, default 0.2
        How far w may be below and above 1. With log-ratios of level "geometric" this is GSPO.
    dual : float or None, default None
        For a negative advantage, f is 0 above this ratio too (> 1; 3 is usual).

    References
    ----------
    [Schulman2017]_; [Ye2020]_ (dual clip).
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None

    def __post_init__(self) -> None:
        number("low", self.low, 0.0, 1.0)
        number("high", self.high, 0.0, ends="[)")
        if self.dual is not None:
            number("dual", self.dual, 1.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        floor = log(1.0 - self.low) if self.low < 1.0 else -inf
        ceiling = inf if self.dual is None else log(self.dual)
        moves = np.where(
            advantage >= 0.0, log_w <= np.log1p(self.high), (log_w >= floor) & (log_w <= ceiling)
        )
        return np.where(moves, log_w, -inf)

    @property
    def bound(self) -> float:
        return inf if self.dual is None else max(1.0 + self.high, self.dual)


@dataclass(frozen=True)
class Truncated(Reshape):
    """Truncated importance sampling (TIS): f = min(w, cap).

    Attributes
    ----------
    cap : float, default 2
        Largest weight, > 0.

    References
    ----------
    [Ionides2008]_.
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        number("cap", self.cap, 0.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return np.minimum(log_w, log(self.cap))

    @property
    def bound(self) -> float:
        return self.cap


@dataclass(frozen=True)
class Masked(Reshape):
    """Masked importance sampling (IcePop; MIS with low = 0): f is w between the bounds, else 0.

    Attributes
    ----------
    low, high : float, defaults 0.5 and 5
        Bounds on w, ``0 <= low < high``.

    References
    ----------
    [LingTeam2025]_.
    """

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        number("low", self.low, 0.0, ends="[)")
        number("high", self.high, float(self.low), ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return np.where((log_w >= np.log(self.low)) & (log_w <= log(self.high)), log_w, -inf)

    @property
    def bound(self) -> float:
        return self.high


@dataclass(frozen=True)
class CISPO(Reshape):
    """Clipped weights that keep every draw's gradient: f = clip(w, low, high).

    ``CISPO(1 - e, 1 + e)`` is what is often printed for PPO's clip; `PPOClip` is PPO's gradient.

    Attributes
    ----------
    low, high : float, defaults 0 and 5
        Bounds on w, ``0 <= low < high``.

    References
    ----------
    [MiniMax2025]_.
    """

    low: float = 0.0
    high: float = 5.0

    def __post_init__(self) -> None:
        number("low", self.low, 0.0, ends="[)")
        number("high", self.high, float(self.low), ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return np.clip(log_w, np.log(self.low), log(self.high))

    @property
    def bound(self) -> float:
        return self.high


@dataclass(frozen=True)
class TOPR(Reshape):
    """Tapered off-policy REINFORCE: f is 1 for a positive or zero advantage, min(w, 1) for a negative one.

    References
    ----------
    [LeRoux2025]_.
    """

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return np.where(advantage < 0.0, np.minimum(log_w, 0.0), 0.0)

    @property
    def bound(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Cautious(Reshape):
    """Truncated weights that let go: min(w, cap) for what went well, and a power of min(w, 1) for the rest.

    With ratios of tokens. A token of a bad answer that has become unlikely is not pushed down further, one
    that has become likely no harder than when it was drawn. The power is `caution` times gamma, and at least
    w itself: the less weights are to be trusted, the less is let go.

    Attributes
    ----------
    cap : float, default 2
        Largest weight where the advantage is zero or more, > 0.
    caution : float, default 3
        Exponent where it is negative, in gammas, > 0.
    gamma : float, default 1
        The exponent that a schedule may set, >= 0. That of a bad draw is ``caution * gamma``, but not less
        than 1, nor, of a caution below 1, than that.
    """

    cap: float = 2.0
    caution: float = 3.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        number("cap", self.cap, 0.0, ends="()")
        number("caution", self.caution, 0.0, ends="()")
        number("gamma", self.gamma, 0.0, ends="[)")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        let_go = np.minimum(log_w, 0.0)
        let_go *= max(self.caution * self.gamma, min(self.caution, 1.0))
        found = np.minimum(log_w, log(self.cap))
        np.copyto(found, let_go, where=advantage < 0.0)
        return found

    @property
    def exponent(self) -> float:
        return self.gamma

    def at(self, gamma: float) -> Self:
        return replace(self, gamma=gamma)

    @property
    def bound(self) -> float:
        return max(self.cap, 1.0)


@dataclass(frozen=True)
class Power(_Tempered):
    """Tempered weights, f = w**gamma: between fine-tuning at gamma = 0 and REINFORCE at gamma = 1.

    Attributes
    ----------
    gamma : float, default 1
        Exponent, >= 0.
    caution : float, default 1
        The exponent is so many times gamma, > 0, where the advantage is negative and the weight below 1.
        Such a draw has become less likely already, and w**gamma would push it down harder than w does;
        above 1 it is let go sooner.
    log_z : float or None, default None
        Log of the weight that `caution` takes for 1. None for that of the batch, the power mean of exponent
        gamma of the positive weights along the last axis: then a constant in the log-ratios, from a
        sampler that cuts its distribution, divides out. 0 where weights have no such constant.

    References
    ----------
    [Owen2013]_, section 9.9; [Korba2022]_; [Aouali2023]_.
    """

    caution: float = 1.0
    log_z: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number("caution", self.caution, 0.0, ends="()")
        if self.log_z is not None:
            number("log_z", self.log_z, -inf, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        if self.caution == 1.0 or self.gamma == 0.0:
            return power(self.gamma, log_w)
        return caution.log_f(log_w, advantage, self.gamma, self.caution, self.log_z)

    @property
    def bound(self) -> float:
        return 1.0 if self.gamma == 0 else inf


@dataclass(frozen=True)
class Defensive(_Tempered):
    """Defensive weights, f = w**gamma / (alpha w**gamma + 1 - alpha): at most 1 / alpha.

    At gamma = 1 this is pi over the mixture ``alpha pi + (1 - alpha) mu`` (Hesterberg 1995), which for draws
    from mu is the sub-Gaussian shrinkage of Metelli et al. with lambda = alpha.

    Attributes
    ----------
    gamma : float, default 1
        Exponent, >= 0.
    alpha : float, default 0.1
        Share of the target in the mixture, from 0 (plain ``w**gamma``) to 1 (f = 1).

    References
    ----------
    [Hesterberg1995]_; [Metelli2021]_.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        number("alpha", self.alpha, 0.0, 1.0)

    @classmethod
    def sub_gaussian(cls, shrinkage: float) -> Self:
        """The map w / (1 - shrinkage + shrinkage * w) by its other name."""
        return cls(gamma=1.0, alpha=shrinkage)

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        if self.alpha == 1.0:
            return np.zeros_like(log_w)
        # Divided by w^gamma, so that the limits at both ends are exact.
        return -np.logaddexp(np.log(self.alpha), np.log1p(-self.alpha) - power(self.gamma, log_w))

    @property
    def bound(self) -> float:
        if self.gamma == 0:
            return 1.0
        return inf if self.alpha == 0 else 1.0 / self.alpha


@dataclass(frozen=True)
class ParetoSmoothed(_Tempered):
    """Pareto smoothed ``w**gamma``: the largest weights are replaced by quantiles of a fitted tail.

    Unlike the others f depends on all draws along the last axis of `log_w`. Where a tail cannot be fitted,
    ``w**gamma`` stays as it is; see `isdiag.psis`.

    Attributes
    ----------
    gamma : float, default 1
        Exponent, >= 0.

    References
    ----------
    [Vehtari2024]_.
    """

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return psis(power(self.gamma, log_w), normalize=False, where=log_w < inf).log_weights


@dataclass(frozen=True)
class AlphaDivergence(_Tempered):
    """The exact gradient of minus the divergence D_gamma(pi || p*), p* proportional to mu exp(r / beta).

    D is Amari's, ``(1 - E_p*[(pi / p*)**gamma]) / (gamma (1 - gamma))``. With x = w and Z the mean of
    ``exp(r / beta)``, f is ``w**gamma * (exp(r / beta) / Z)**(1 - gamma)`` and the signal
    ``1 / (1 - gamma)``: from reward-weighted fine-tuning at gamma = 0, which is KL(p* || pi), towards
    KL(pi || p*), whose gradient `KLRegularized` has: there f tends to w and the signal grows without bound.

    Attributes
    ----------
    gamma : float, default 0.5
        Order, in [0, 1).
    beta : float, default 1
        Temperature of p*, in the units of the reward, > 0.
    log_z : float or None, default None
        Log of E_mu[exp(r / beta)]; None to estimate it by the mean along the last axis.

    References
    ----------
    [Amari2016]_.
    """

    gamma: float = 0.5
    beta: float = 1.0
    log_z: float | None = None

    def __post_init__(self) -> None:
        number("gamma", self.gamma, 0.0, 1.0, "[)")  # for 1 see KLRegularized
        number("beta", self.beta, 0.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        tilt = advantage / self.beta
        log_z = self.log_z
        if log_z is None:
            log_z = np.logaddexp.reduce(tilt, axis=-1, keepdims=True) - np.log(tilt.shape[-1])
        return power(self.gamma, log_w) + (1.0 - self.gamma) * (tilt - log_z)

    def signal(self, advantage: Floats) -> Floats:
        return np.full_like(advantage, 1.0 / (1.0 - self.gamma))


@dataclass(frozen=True)
class VESPO(Reshape):
    """Power times damping, f = w**k exp(lam (1 - w)), with constants by the sign of the advantage.

    Attributes
    ----------
    k_pos, lam_pos : float, defaults 2 and 3
        Exponent and damping for an advantage of zero or more, both >= 0. ``lam = 0`` is ``w**k``.
    k_neg, lam_neg : float, defaults 3 and 2
        The same for a negative one.

    References
    ----------
    [VESPO2026]_.
    """

    k_pos: float = 2.0
    lam_pos: float = 3.0
    k_neg: float = 3.0
    lam_neg: float = 2.0

    def __post_init__(self) -> None:
        for name in ("k_pos", "lam_pos", "k_neg", "lam_neg"):
            number(name, getattr(self, name), 0.0, ends="[)")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        negative = advantage < 0.0
        k = np.where(negative, self.k_neg, self.k_pos)
        lam = np.where(negative, self.lam_neg, self.lam_pos)
        powered = np.where(k > 0.0, k * log_w, power(0.0, log_w))
        less = np.where(lam > 0.0, lam * np.expm1(log_w), 0.0)
        return np.where(less < inf, powered - less, -inf)

    @property
    def bound(self) -> float:
        """The largest value of f, at w = k / lam."""
        return max(_vespo_peak(self.k_pos, self.lam_pos), _vespo_peak(self.k_neg, self.lam_neg))


def _vespo_peak(k: float, lam: float) -> float:
    if lam == 0.0:
        return 1.0 if k == 0.0 else inf
    peak = lam if k == 0.0 else k * log(k / lam) + lam - k
    return exp(peak) if peak < 709.0 else inf


@dataclass(frozen=True)
class SAPO(Reshape):
    """A soft gate, f = w 4 s (1 - s) with s the logistic function of ``tau (w - 1)``: 1 at w = 1.

    Attributes
    ----------
    tau_pos, tau_neg : float, defaults 1 and 1.05
        Temperatures for an advantage of more than zero, and for the others, both > 0.

    References
    ----------
    [SAPO2025]_.
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05

    def __post_init__(self) -> None:
        number("tau_pos", self.tau_pos, 0.0, ends="()")
        number("tau_neg", self.tau_neg, 0.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        tau = np.where(advantage > 0.0, self.tau_pos, self.tau_neg)
        gate = np.abs(tau * np.expm1(log_w))  # 4 s (1 - s) is even in it
        found = log_w + 2.0 * log(2.0) - gate - 2.0 * np.log1p(np.exp(-gate))
        return np.where(gate < inf, found, -inf)

    @property
    def bound(self) -> float:
        return max(_sapo_peak(self.tau_pos), _sapo_peak(self.tau_neg))


def _sapo_peak(tau: float) -> float:
    """The largest w / cosh(x)^2 with x = tau (w - 1) / 2: where 1 = tau w tanh(x), by bisection."""
    low, high = 1.0, 2.0 + 4.0 / tau
    for _ in range(80):
        middle = (low + high) / 2.0
        rising = tau * middle * tanh(tau * (middle - 1.0) / 2.0) < 1.0
        low, high = (middle, high) if rising else (low, middle)
    return low / cosh(tau * (low - 1.0) / 2.0) ** 2


@dataclass(frozen=True)
class DRos(Reshape):
    """Optimistic shrinkage, f = shrinkage w / (w**2 + shrinkage): at most sqrt(shrinkage) / 2.

    Attributes
    ----------
    shrinkage : float, default 1
        Lambda, > 0; f tends to w as it grows.

    References
    ----------
    [Su2020]_.
    """

    shrinkage: float = 1.0

    def __post_init__(self) -> None:
        number("shrinkage", self.shrinkage, 0.0, ends="()")

    def log_f(self, log_w: Floats, advantage: Floats) -> Floats:
        return -np.logaddexp(log_w - log(self.shrinkage), -log_w)

    @property
    def bound(self) -> float:
        return 0.5 * sqrt(self.shrinkage)
