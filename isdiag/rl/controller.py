"""A controller of gamma: batch after batch, with a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from isdiag._core.bands import GOOD_KHAT
from isdiag._core.check import number, of_kind, one_of
from isdiag._core.typing import Floats
from isdiag.rl.batch import Batch, Draws, Limits, present
from isdiag.rl.layouts import Level
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Diagnosed, Schedule, State
from isdiag.rl.step import METRICS, Normalize, Step, loggable, step_of

_NONE = np.empty(0)


class GammaController:
    """Chooses gamma and reshapes weights batch after batch, and keeps a record.

    A batch that comes whole is one call of `step`. One that comes in parts has three verbs: `weights` applies
    the gamma in use to a part, `observe` remembers the part, and `step` without arguments chooses the next
    gamma from all parts joined.

    Parameters
    ----------
    reshape : Reshape, default Power(0.3, caution=3)
        What becomes of the weights. Its exponent, if it has one, is set at each step; one without is
        applied as it is, and diagnosed.
    schedule : Schedule, default Diagnosed()
        How gamma moves.
    gamma_init : float, optional
        Where gamma starts, in [0, gamma_max]; default the exponent of `reshape`, gamma_max at most.
    gamma_max : float, default 1
        Largest gamma that the diagnosis may choose.
    ess_min : float, default 0.8
        Smallest ESS / n that the diagnosis allows, in [0, 1].
    k_max : float or None, default 0.7
        Largest khat that the diagnosis allows; None for `khat_threshold(n)`.
    normalize : {"batch", "count"}, default "batch"
        What the weights are divided by: their sum or the number of draws.
    keep : int, default 10000
        How many of the last steps the history holds.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    take_step : One step as a pure function.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl import GammaController
    >>> rng = np.random.default_rng(1)
    >>> controller = GammaController()
    >>> for spread in (0.1, 0.5, 2.5):
    ...     log_w = rng.normal(-(spread**2) / 2, spread, size=512)
    ...     step = controller.step(log_w, advantage=rng.normal(size=512))
    ...     print(f"{step.gamma:.3f} {step.ess_ratio_raw:.3f} {step.ess_ratio:.3f}")
    0.370 0.992 0.997
    0.402 0.765 0.915
    0.377 0.049 0.430
    >>> [round(gamma, 3) for gamma in controller.history["gamma"]]
    [0.37, 0.402, 0.377]
    """

    def __init__(
        self,
        reshape: Reshape | None = None,
        schedule: Schedule | None = None,
        *,
        gamma_init: float | None = None,
        gamma_max: float = 1.0,
        ess_min: float = 0.8,
        k_max: float | None = GOOD_KHAT,
        normalize: Normalize = "batch",
        keep: int = 10_000,
    ) -> None:
        self.limits = Limits(k_max, ess_min, gamma_max)
        self.reshape = Power(0.3, caution=3.0) if reshape is None else reshape
        self.schedule = Diagnosed() if schedule is None else schedule
        of_kind("reshape", self.reshape, Reshape)
        of_kind("schedule", self.schedule, Schedule)
        one_of("normalize", normalize, Normalize)
        start = min(self.reshape.exponent, gamma_max) if gamma_init is None else gamma_init
        if not 0.0 <= start <= gamma_max:
            msg = f"gamma must start between 0 and gamma_max={gamma_max!r}, got {start!r}"
            raise ValueError(msg)
        number("keep", keep, 0.0)
        self.reshape.at(gamma_max)  # a reshape may have a bound of its own: better now than at that step
        self.normalize: Normalize = normalize
        self.state = State(start)
        self._history: deque[dict[str, float]] = deque(maxlen=keep)
        self._observed: list[tuple[Floats, Floats]] = []

    @property
    def gamma(self) -> float:
        """The exponent now in use; 1 for a reshape that has none."""
        return self.reshape.at(self.state.gamma).exponent

    @property
    def history(self) -> History:
        """Each of `METRICS` over the last steps, oldest first."""
        return History(self._history, self.state.step)

    def step(
        self,
        log_w: Any = None,
        advantage: Any = 1.0,
        *,
        reshape: Reshape | None = None,
        normalize: Normalize | None = None,
        level: Level = "sequence",
        where: Any = None,
    ) -> Step:
        """Take one batch: choose gamma, reshape the weights, record.

        Parameters
        ----------
        log_w : array_like, optional
            Log-ratios ``log pi - log mu`` of the whole batch, see `log_ratio`. Without them the batch is
            what `observe` has gathered since the last step, its draws one after the other.
        advantage : array_like, default 1
            Advantages or rewards, see `take_step`.
        reshape : Reshape, optional
            In the place of the controller's, for this step; gamma does not go by it.
        normalize : {"batch", "count"}, optional
            In the place of the controller's, for this step.
        level : {"sequence", "token", "geometric"}, default "sequence"
            What the ratios are of, see `take_step`.
        where : array_like of bool, optional
            Draws that there are, see `take_step`.

        Returns
        -------
        Step
            Coefficients and diagnostics.

        Raises
        ------
        ValueError, TypeError
            As `take_step` does, and if log-ratios are given while parts are waiting; the controller stays
            as it was.
        """
        if log_w is not None and self._observed:
            msg = f"{len(self._observed)} parts were observed and wait for step(), without log-ratios"
            raise ValueError(msg)
        if log_w is None:
            log_w, advantage = self.observed
        state, step = self.proposed(
            log_w, advantage, reshape=reshape, normalize=normalize, level=level, where=where
        )
        self.accept(state, step)
        self._observed.clear()
        return step

    def observe(self, log_w: Any, advantage: Any = 1.0, *, where: Any = None) -> None:
        """Add a part of a batch, a micro-batch or a rank's; gamma stays until `step` is called.

        Parameters
        ----------
        log_w, advantage, where : array_like
            As for `step`.

        Raises
        ------
        ValueError, TypeError
            If they do not fit; nothing is added then.
        """
        self._observed.append(present(log_w, advantage, where))

    @property
    def observed(self) -> tuple[Floats, Floats]:
        """Log-ratios and advantages of the parts that wait for `step`, joined.

        Parts merge by being joined: another rank's pair goes into `observe`.
        """
        log_w, advantage = zip(*self._observed, strict=True) if self._observed else ((), ())
        return np.concatenate([*log_w, _NONE]), np.concatenate([*advantage, _NONE])

    def weights(
        self,
        log_w: Any,
        advantage: Any = 1.0,
        *,
        reshape: Reshape | None = None,
        normalize: Normalize | None = None,
        level: Level = "sequence",
        where: Any = None,
    ) -> Step:
        """Weigh draws with gamma as it is, for a part of a batch or an evaluation; nothing changes.

        Parameters
        ----------
        log_w, advantage, reshape, normalize, level, where
            As for `step`.

        Returns
        -------
        Step
            Coefficients and diagnostics; weights by "batch" are divided by the sum over these draws.

        Raises
        ------
        ValueError, TypeError
            As `take_step` does.
        """
        batch = Batch(Draws.of(log_w, advantage, where), self.reshape, self.limits)
        return self._applied(batch, self.state.gamma, reshape, normalize, level)

    def proposed(
        self,
        log_w: Any,
        advantage: Any = 1.0,
        *,
        reshape: Reshape | None = None,
        normalize: Normalize | None = None,
        level: Level = "sequence",
        where: Any = None,
    ) -> tuple[State, Step]:
        """What `step` would do; nothing changes until `accept`.

        Parameters
        ----------
        log_w, advantage, reshape, normalize, level, where
            As for `step`.

        Returns
        -------
        state : State
            The next state.
        step : Step
            Coefficients and diagnostics.

        Raises
        ------
        ValueError, TypeError
            As `take_step` does.
        """
        batch = Batch(Draws.of(log_w, advantage, where), self.reshape, self.limits)
        state = batch.following(self.schedule, self.state)
        return state, self._applied(batch, state.gamma, reshape, normalize, level)

    def accept(self, state: State, step: Step) -> None:
        """Make a step that was `proposed`: go to its state and record it.

        Parameters
        ----------
        state : State
            The next state.
        step : Step
            What goes into the history.
        """
        self.record(state, step.metrics())

    def record(self, state: State, metrics: dict[str, float]) -> None:
        """As `accept`, of a step that is known by its metrics alone; neither is checked.

        Parameters
        ----------
        state : State
            The next state.
        metrics : dict of str to float
            What `Step.metrics` gives, all of `isdiag.rl.METRICS`. The dict itself is kept.
        """
        self.state = state
        self._history.append(metrics)

    def _applied(
        self, batch: Batch, gamma: float, reshape: Reshape | None, normalize: Normalize | None, level: Level
    ) -> Step:
        return step_of(batch, (reshape or self.reshape).at(gamma), normalize or self.normalize, level)

    @property
    def _settings(self) -> dict[str, str]:
        """What a state of this controller presupposes; where gamma started has no part in it."""
        return {
            "reshape": repr(self.reshape.at(self.limits.gamma_max)),
            "schedule": repr(self.schedule),
            "limits": repr(self.limits),
            "normalize": self.normalize,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs: gamma, the count of steps, and the settings that they belong to.

        The history is no part of it, nor are parts that wait for `step`.

        Returns
        -------
        dict
            For `load_state_dict`; strict JSON can hold it.
        """
        return {"gamma": self.state.gamma, "step": self.state.step, "settings": self._settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the history and parts that wait are forgotten.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        KeyError
            If it lacks a key; nothing is changed then.
        ValueError
            If gamma is not between 0 and gamma_max, the step is no count, or the settings are not those of
            this controller; nothing is changed then.
        """
        gamma, taken, settings = state["gamma"], state["step"], state["settings"]
        for name, ours in self._settings.items():
            if settings.get(name) != ours:
                msg = (
                    f"the state is of a controller with {name} {settings.get(name)!r}, this one has {ours!r}"
                )
                raise ValueError(msg)
        number("gamma", gamma, 0.0, self.limits.gamma_max)
        if number("step", taken, 0.0, ends="[)") != int(taken):
            msg = f"step must be a count, got {taken!r}"
            raise ValueError(msg)
        self.state = State(float(gamma), int(taken))
        self._history.clear()
        self._observed.clear()


class History(Mapping[str, list[float]]):
    """Metrics of the last steps by name; a list is made when it is asked for.

    Parameters
    ----------
    steps : collection of mapping
        Metrics of each step, oldest first.
    last : int
        The number of the last step, counted from 1.
    """

    def __init__(self, steps: Collection[Mapping[str, float]], last: int) -> None:
        self._steps = steps
        self._last = last

    def logged(self, prefix: str = "isdiag/") -> list[tuple[int, dict[str, float]]]:
        """The steps one after the other, as loggers take them.

        Parameters
        ----------
        prefix : str, default "isdiag/"
            What the names begin with.

        Returns
        -------
        list of (int, dict of str to float)
            The number of a step, counted from 1, and its finite metrics, see `isdiag.rl.loggable`.

        Examples
        --------
        >>> from isdiag.rl import GammaController
        >>> controller = GammaController()
        >>> _ = controller.step([0.1, -0.2, 0.3]), controller.step([0.0, 0.0, 0.0])
        >>> for step, metrics in controller.history.logged():  # wandb.log(metrics, step=step)
        ...     print(step, round(metrics["isdiag/ess_ratio_raw"], 3), "isdiag/pareto_k" in metrics)
        1 0.962 False
        2 1.0 False
        """
        first = self._last - len(self._steps) + 1
        return [(first + i, loggable(metrics, prefix)) for i, metrics in enumerate(self._steps)]

    def __getitem__(self, name: str) -> list[float]:
        if name not in METRICS:
            raise KeyError(name)
        return [metrics[name] for metrics in self._steps]

    def __iter__(self) -> Iterator[str]:
        return iter(METRICS)

    def __len__(self) -> int:
        return len(METRICS)

    def __repr__(self) -> str:
        return repr(dict(self))
