"""A controller of gamma: batch after batch, with a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from isdiag._core.bands import GOOD_KHAT
from isdiag._core.check import number, one_of
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Diagnosed, Schedule, State
from isdiag.rl.step import METRICS, Limits, Normalize, Step, take_step


class GammaController:
    """Chooses gamma and reshapes weights batch after batch, and keeps a record.

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
    0.424 0.765 0.901
    0.402 0.049 0.322
    >>> [round(gamma, 3) for gamma in controller.history["gamma"]]
    [0.37, 0.424, 0.402]
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

    @property
    def gamma(self) -> float:
        """The exponent of the last step, or the initial one."""
        return self.state.gamma

    @property
    def history(self) -> dict[str, list[float]]:
        """Each of `METRICS` over the last steps, oldest first."""
        return {name: [metrics[name] for metrics in self._history] for name in METRICS}

    def step(
        self,
        log_w: Any,
        advantage: Any = 1.0,
        *,
        reshape: Reshape | None = None,
        normalize: Normalize | None = None,
        where: Any = None,
    ) -> Step:
        """Take one batch: choose gamma, reshape the weights, record.

        Parameters
        ----------
        log_w : array_like
            Log-ratios ``log pi - log mu`` of the whole batch, see `log_ratio`.
        advantage : array_like, default 1
            Advantages or rewards, see `take_step`.
        reshape : Reshape, optional
            In the place of the controller's, for this step.
        normalize : {"batch", "count"}, optional
            In the place of the controller's, for this step.
        where : array_like of bool, optional
            Draws that there are, see `take_step`.

        Returns
        -------
        Step
            Coefficients and diagnostics.

        Raises
        ------
        ValueError, TypeError
            As `take_step` does; the state stays as it was.
        """
        self.state, step = take_step(
            log_w,
            advantage,
            reshape=reshape or self.reshape,
            schedule=self.schedule,
            state=self.state,
            limits=self.limits,
            normalize=normalize or self.normalize,
            where=where,
        )
        self._history.append(step.metrics())
        return step

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs besides the constructor's arguments: numbers, lists and strings.

        Returns
        -------
        dict
            For `load_state_dict`; JSON and pickle can hold it.
        """
        return {"gamma": self.state.gamma, "step": self.state.step, "history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        KeyError, ValueError
            If it lacks a key, or the history's lists differ in length; nothing is changed then.
        """
        loaded = State(float(state["gamma"]), int(state["step"]))
        columns = [state["history"][name] for name in METRICS]
        history = [dict(zip(METRICS, numbers, strict=True)) for numbers in zip(*columns, strict=True)]
        self.state = loaded
        self._history = deque(history, maxlen=self._history.maxlen)
