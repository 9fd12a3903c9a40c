"""Values of h about an origin and in units of their own, so that results do not depend on either."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core.boundary import Rows, read_only
from isdiag._core.typing import Floats, Ints, Values
from isdiag._core.weights import looked_at

# Between these no fourth power of a value, nor a sum of them, comes near the ends of float64.
_SMALL, _LARGE = 2.0**-100, 2.0**100
_LARGEST = np.finfo(np.float64).max


class Standard(NamedTuple):
    """`Rows.trailing` values over 2**exponent, which `standard` takes less their origin, both (rows, d).

    The origin is h at the largest weight, so that a constant h is 0 exactly. A power of two rounds nothing.
    """

    values: Values
    origin: Floats
    exponent: Ints

    def spread(self, x: Floats) -> Floats:
        """A distance, (rows, d, ...), in the units of h."""
        exponent = self.exponent.reshape(self.exponent.shape + (1,) * (x.ndim - 2))
        return times_power_of_two(x, exponent) if exponent.any() else x

    def place(self, x: Floats) -> Floats:
        """A value, (rows, d, ...), in the units and from the origin of h."""
        return self.origin.reshape(self.origin.shape + (1,) * (x.ndim - 2)) + self.spread(x)


def standard(rows: Rows, values: Values, gamma: Floats) -> Standard:
    """The values about their origin, in units of `in_units`."""
    given = in_units(rows, values, gamma)
    cube = cube_of(given.values, len(rows), rows.values.shape[1])
    with np.errstate(all="ignore"):
        shifted = cube - own_origin(given)[:, None]
    return given._replace(values=read_only(shifted.reshape(values.shape)))


def own_origin(given: Standard) -> Floats:
    """The origin in the units of the values."""
    return times_power_of_two(given.origin, -given.exponent) if given.exponent.any() else given.origin


def in_units(rows: Rows, values: Values, gamma: Floats) -> Standard:
    """The values in other units only where theirs are very small or large.

    Units are those of the values at which w^gamma is something; a value elsewhere may be held at the ends of
    float64 by them.
    """
    count, draws = rows.values.shape
    origin = np.empty((count, values.shape[1] // draws))
    largest = _kernels.origin_rows(rows.values, values, origin)
    exponent = np.zeros(origin.shape, np.int64)
    if not _is_plain(largest):
        largest = _kernels.largest_with_weight(rows.values, values, origin.shape[1])
    if _is_plain(largest):
        return Standard(values, origin, exponent)
    cube = cube_of(values, count, draws)
    with np.errstate(all="ignore"):  # h may hold anything where there is no weight
        near = looked_at(rows.values, gamma)
        size = np.where(near[:, :, None], np.abs(cube), 0.0).max(axis=1)
        odd = ((size < _SMALL) | (size > _LARGE)) & (size > 0.0) & np.isfinite(size)
        exponent[odd] = np.frexp(size[odd])[1]
        own = times_power_of_two(cube, -exponent[:, None])
        own = np.where(np.isfinite(cube), np.clip(own, -_LARGEST, _LARGEST), own)
        values = own.reshape(values.shape)
    return Standard(read_only(values), origin, exponent)


def _is_plain(largest: float) -> bool:
    return _SMALL < largest < _LARGE or largest == 0.0


def cube_of(values: Values, count: int, draws: int) -> Values:
    """`Rows.trailing` values as (rows, draws, d)."""
    return values.reshape(count, draws, values.shape[1] // draws)


def times_power_of_two(x: Any, exponent: Any) -> Floats:
    """``x * 2**exponent``, which may be a float64 where the power is none."""
    half = exponent // 2
    return np.ldexp(np.ldexp(np.asarray(x, np.float64), half), exponent - half)


def scaled(x: Floats, top: Floats, exponent: Ints) -> Floats:
    """``x * exp(top) * 2**exponent``, which may be finite where a part of it is not; 0 where x is.

    x is (rows, ...), of top and exponent there is one for each row.
    """
    numbers = np.ascontiguousarray(x).reshape(top.size, prod(x.shape[1:]))
    found = np.empty(numbers.shape)
    _kernels.scale_rows(numbers, top, np.ascontiguousarray(exponent), found)
    return found.reshape(x.shape)
