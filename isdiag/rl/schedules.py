"""Schedules of gamma: pure functions of a state and of what was seen, so that a run can be replayed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, isnan, pi
from typing import NamedTuple

from isdiag._core.check import number


class State(NamedTuple):
    """All that a schedule remembers.

    Attributes
    ----------
    gamma : float
        The exponent now in use.
    step : int
        How many steps have been taken.
    """

    gamma: float
    step: int = 0


class Evidence(NamedTuple):
    """What a schedule may go by.

    Attributes
    ----------
    ess_ratio : float
        ESS / n of this batch's weights at the gamma in use; NaN if unknown.
    gamma : float
        The gamma that `isdiag.select_gamma` chose for this batch; NaN if there is none.
    """

    ess_ratio: float
    gamma: float


def _check_range(gamma_min: float, gamma_max: float) -> None:
    if not 0.0 <= gamma_min <= gamma_max < float("inf"):
        msg = f"0 <= gamma_min <= gamma_max must hold, got {gamma_min!r} and {gamma_max!r}"
        raise ValueError(msg)


@dataclass(frozen=True)
class Schedule(ABC):
    """A rule that says, from a `State` and `Evidence`, which state comes next."""

    @abstractmethod
    def __call__(self, state: State, evidence: Evidence) -> State:
        """The state for this batch.

        Parameters
        ----------
        state : State
            The state after the batch before.
        evidence : Evidence
            What this batch shows.

        Returns
        -------
        State
            With the gamma to use on this batch.
        """


@dataclass(frozen=True)
class Fixed(Schedule):
    """The gamma that the state holds, always."""

    def __call__(self, state: State, evidence: Evidence) -> State:
        return State(state.gamma, state.step + 1)


@dataclass(frozen=True)
class _Annealed(Schedule):
    total_steps: int
    gamma_min: float = 0.0
    gamma_max: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self.gamma_min, self.gamma_max)
        number("total_steps", self.total_steps, 1.0)

    def __call__(self, state: State, evidence: Evidence) -> State:
        return State(self.at(state.step), state.step + 1)

    def at(self, step: int) -> float:
        """Gamma at a step, counted from 0; beyond `total_steps` the last one."""
        share = self._share(min(step / self.total_steps, 1.0))
        return self.gamma_min + (self.gamma_max - self.gamma_min) * share

    @abstractmethod
    def _share(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Linear(_Annealed):
    """From gamma_min to gamma_max in a straight line over `total_steps`.

    Attributes
    ----------
    total_steps : int
        Steps until `gamma_max` is reached, >= 1.
    gamma_min, gamma_max : float, defaults 0 and 1
        The ends.
    """

    def _share(self, progress: float) -> float:
        return progress


@dataclass(frozen=True)
class Cosine(_Annealed):
    """From gamma_min to gamma_max along half a cosine over `total_steps`: slow at both ends.

    Attributes
    ----------
    total_steps : int
        Steps until `gamma_max` is reached, >= 1.
    gamma_min, gamma_max : float, defaults 0 and 1
        The ends.
    """

    def _share(self, progress: float) -> float:
        return (1.0 - cos(pi * progress)) / 2.0


@dataclass(frozen=True)
class ESSAdaptive(Schedule):
    """Up by `delta` while ESS / n is above 1.5 ess_min, down by half of it below 0.8 ess_min.

    Attributes
    ----------
    ess_min : float, default 0.3
        The ESS / n aimed at, in [0, 1].
    delta : float, default 0.05
        Step of gamma, > 0.
    gamma_min, gamma_max : float, defaults 0 and 1
        Bounds of gamma.
    """

    ess_min: float = 0.3
    delta: float = 0.05
    gamma_min: float = 0.0
    gamma_max: float = 1.0

    def __post_init__(self) -> None:
        _check_range(self.gamma_min, self.gamma_max)
        number("ess_min", self.ess_min, 0.0, 1.0)
        number("delta", self.delta, 0.0, ends="(]")

    def __call__(self, state: State, evidence: Evidence) -> State:
        gamma = state.gamma
        if evidence.ess_ratio > 1.5 * self.ess_min:
            gamma = min(gamma + self.delta, self.gamma_max)
        elif evidence.ess_ratio < 0.8 * self.ess_min:
            gamma = max(gamma - self.delta / 2.0, self.gamma_min)
        return State(gamma, state.step + 1)


@dataclass(frozen=True)
class Diagnosed(Schedule):
    """Towards the gamma that the diagnosis of each batch allows, by exponential smoothing.

    Attributes
    ----------
    rate : float, default 0.1
        Weight of the new batch, in (0, 1]; 1 is no smoothing.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        number("rate", self.rate, 0.0, 1.0, "(]")

    def __call__(self, state: State, evidence: Evidence) -> State:
        gamma = state.gamma
        if not isnan(evidence.gamma):  # a batch without one, all masked or not finite, teaches nothing
            gamma = (1.0 - self.rate) * gamma + self.rate * evidence.gamma
        return State(gamma, state.step + 1)


# They do not look at the ESS, which then need not be found; a subclass of them may.
BY_GAMMA_ALONE: tuple[type[Schedule], ...] = (Fixed, Linear, Cosine, Diagnosed)
