"""One place for each check of an argument that is not an array of draws."""

from __future__ import annotations

from math import inf
from operator import index
from typing import Any, Literal

import numpy as np

from isdiag._core.typing import Rule

Ends = Literal["[]", "()", "[)", "(]"]

_FLAGS: tuple[type, ...] = (bool, np.bool_, int, np.integer)


def interval(low: float, high: float, ends: Ends) -> str:
    """In words; an open end at infinity reads "finite"."""
    above = f"{'at least' if ends[0] == '[' else 'above'} {low:g}"
    if high == inf:
        return above if ends[1] == "]" else f"finite and {above}"
    if ends in ("[]", "()"):
        return f"between {low:g} and {high:g}"
    return f"{above} and {'at most' if ends[1] == ']' else 'below'} {high:g}"


def inside(value: Any, low: float, high: float, ends: Ends) -> Any:
    """Whether a number, or each of an array, lies in the interval; NaN lies in none."""
    above = value >= low if ends[0] == "[" else value > low
    return above & (value <= high if ends[1] == "]" else value < high)


def number(name: str, value: Any, low: float, high: float = inf, ends: Ends = "[]") -> float:
    """The value as a float that lies in the interval.

    Raises
    ------
    TypeError
        If it is not one number.
    ValueError
        If it lies outside.
    """
    if type(value) is float:  # ten times faster than to ask NumPy
        if low < value < high:
            return value
    elif not hasattr(value, "__float__") or np.iscomplexobj(value) or np.ndim(value) != 0:
        msg = f"{name} must be a number, got {value!r}"
        raise TypeError(msg)
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{name} must be a number: {error}"
        raise TypeError(msg) from None
    if not inside(found, low, high, ends):
        msg = f"{name} must be {interval(low, high, ends)}, got {value!r}"
        raise ValueError(msg)
    return found


def whole(name: str, value: Any, wanted: str = "a positive int", most: float = inf) -> int:
    """The value as an int from 1 to `most`; ValueError, with what is wanted in words, if it is none."""
    try:
        found = index(value)
    except TypeError:
        found = 0
    if not 1 <= found <= most:
        msg = f"{name} must be {wanted}, got {value!r}"
        raise ValueError(msg)
    return found


def generator(name: str, value: Any) -> np.random.Generator:
    """A generator from a seed, a generator, or nothing.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is a negative seed.
    """
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    try:
        seed = index(value)
    except TypeError:
        msg = f"{name} must be None, an int or a numpy.random.Generator, got {value!r}"
        raise TypeError(msg) from None
    if seed < 0:
        msg = f"{name} must be at least 0 if it is a seed, got {value!r}"
        raise ValueError(msg)
    return np.random.default_rng(seed)


def flag(name: str, value: Any) -> bool:
    """The value as a bool; TypeError if it is neither one nor 0 or 1."""
    if not isinstance(value, _FLAGS) or value not in (0, 1):
        msg = f"{name} must be True or False, got {value!r}"
        raise TypeError(msg)
    return bool(value)


def of_kind(name: str, value: Any, kind: type) -> None:
    """Raise TypeError if the value is not of the class."""
    if not isinstance(value, kind):
        msg = f"{name} must be a {kind.__name__}, got {value!r}"
        raise TypeError(msg)


def one_of(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError if the value is none of a tuple of choices, or of those of a Literal."""
    allowed = getattr(choices, "__args__", choices)
    if not (isinstance(value, (str, int, np.bool_)) and value in allowed):
        msg = f"{name} must be one of {allowed}, got {value!r}"
        raise ValueError(msg)


def rule_needs_h(rule: Any, h: Any) -> None:
    """Raise ValueError if the rule for gamma is unknown, or is "mse" and h is missing."""
    one_of("rule", rule, Rule)
    if rule == "mse" and h is None:
        msg = 'rule="mse" needs h, the values whose mean is estimated'
        raise ValueError(msg)
