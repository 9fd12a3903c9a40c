"""What the losses of torch and JAX may be given together."""

from __future__ import annotations

from typing import Any

from isdiag._core.check import of_kind
from isdiag.rl.presets import Preset


def check_call(preset: Preset | None, log_proximal: Any, beside: dict[str, bool]) -> None:
    """Whether a loss that is given a preset, or a proximal policy, is given what goes with it.

    Raises
    ------
    TypeError
        If the preset is none.
    ValueError
        If there is a proximal policy without a preset, or one that comes with what it says itself.
    """
    if preset is None:
        if log_proximal is not None:
            msg = "log_proximal is for a preset: give preset=, decoupled_ppo() say"
            raise ValueError(msg)
        return
    of_kind("preset", preset, Preset)
    given = [name for name, found in beside.items() if found]
    if given:
        msg = f"a preset says all that {', '.join(given)} would: give one or the other"
        raise ValueError(msg)
