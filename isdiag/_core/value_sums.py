"""Sums of values at the draws, about their own weighted mean, that join without loss of digits [Chan1983]_.

With e the weights over the largest and a = e (h - mean). Whatever is of h has its units, and what would be a
power of them is divided by the same power of the spread: no unit makes a sum overflow.
"""

from __future__ import annotations

from math import comb
from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core.typing import Codes, Floats, Values
from isdiag._kernels.records import CONSTANT_H, NEXT_TO_NOTHING, NOT_FINITE_H, OK


class ValueSums(NamedTuple):
    """Of one row and d components."""

    weights: Floats  # sums of e, e^2, e^3 and e^4
    origin: Floats  # the mean is origin + offset: a far origin costs the offset no digits
    offset: Floats
    spread: Floats  # root of the sum of a^2
    pull: Floats  # sum of e a
    thirds: Floats  # sums of e^2 a, e a^2, a^3 over powers of the spread; (3,), of one component
    fourths: Floats  # sums of e^3 a, e^2 a^2, e a^3, a^4, in the same way; (4,)
    low: Floats  # extremes of h where the weight is positive
    high: Floats
    not_finite: Floats  # the largest log-weight of a draw whose h is not finite


def nothing(components: int) -> ValueSums:
    """Of no draws."""
    zero = np.zeros(components)
    none = np.full(components, np.inf)
    return ValueSums(np.zeros(4), zero, zero, zero, zero, np.zeros(3), np.zeros(4), none, -none, -none)


def of_draws(row: Floats, high: float, gamma: float, values: Values) -> ValueSums:
    """Of the draws of a row, the largest of which is high, with h of shape (draws, d)."""
    positive = row > -np.inf
    wrong = ~np.isfinite(values)
    not_finite = np.full(values.shape[1], -np.inf)
    if wrong.any():
        log_w = np.where(wrong & positive[:, None], row[:, None], -np.inf)
        not_finite = log_w.max(axis=0, initial=-np.inf)
        values = np.where(wrong, values.dtype.type(0.0), values)
    where = True if positive.all() else positive[:, None]
    low = values.min(axis=0, initial=np.inf, where=where).astype(np.float64)
    top = values.max(axis=0, initial=-np.inf, where=where).astype(np.float64)
    flat = values.reshape(-1)
    flat.flags.writeable = False
    summed = _of_scalar if values.shape[1] == 1 else _of_vector
    return summed(row, high, gamma, flat)._replace(low=low, high=top, not_finite=not_finite)


def _of_scalar(row: Floats, high: float, gamma: float, h: Values) -> ValueSums:
    scale, centre, totals = _kernels.scalar_values(row, high, gamma, h)
    s1, first_power, s2, pull, squares, s3, *thirds = totals[:9]
    s4, *fourths = totals[9:]
    about = _Sums(s2, s3, s4, pull, squares, np.array(thirds), np.array(fourths))
    shift = first_power / s1
    spread, pull, third, fourth = about.moved(-shift).over_spread()
    weights, one = np.array([s1, s2, s3, s4]), np.ones(1) / scale
    own = (one * centre, one * shift, one * spread, one * pull, third, fourth)
    return ValueSums(weights, *own, one, one, one)


def _of_vector(row: Floats, high: float, gamma: float, h: Values) -> ValueSums:
    d = h.size // row.size
    mean, std_error, bias = np.empty(d), np.empty(d), np.empty(d)
    s1, s2, s4 = _kernels.vector_values(row, high, gamma, h, mean, std_error, bias)
    weights = np.array([s1, s2, 0.0, s4])  # no skewness is asked for
    own = (mean, np.zeros(d), std_error * s1, -bias * s1 * s1, np.zeros(3), np.zeros(4))
    return ValueSums(weights, *own, mean, mean, mean)


class _Sums(NamedTuple):
    """Of e^2, e^3 and e^4, of e a, a^2, and of the thirds and fourths; numbers or arrays of them."""

    s2: Any
    s3: Any
    s4: Any
    pull: Any
    squares: Any
    thirds: Any
    fourths: Any

    def moved(self, by: Any) -> _Sums:
        """With a + by e in the place of a."""
        return self._replace(
            pull=self.pull + by * self.s2,
            squares=self.squares + 2.0 * by * self.pull + by * by * self.s2,
            thirds=_moved([self.s3, *self.thirds], by),
            fourths=_moved([self.s4, *self.fourths], by),
        )

    def over_spread(self) -> tuple[Any, Any, Floats, Floats]:
        """Spread, pull, and the thirds and fourths over powers of the spread."""
        spread = np.sqrt(np.maximum(self.squares, 0.0))
        unit = np.where(spread > 0.0, spread, np.inf)
        over = [
            np.array([power / unit ** (k + 1) for k, power in enumerate(powers)])
            for powers in (self.thirds, self.fourths)
        ]
        return spread, self.pull, over[0], over[1]


def _moved(powers: list[Any], by: Any) -> Floats:
    """Sums of e^(p - k) (a + by e)^k for k = 1 to p, from those of e^(p - k) a^k for k = 0 to p."""
    return np.array(
        [sum(comb(k, i) * by ** (k - i) * powers[i] for i in range(k + 1)) for k in range(1, len(powers))]
    )


def merged(a: ValueSums, a_less: float, b: ValueSums, b_less: float) -> ValueSums:
    """Of the draws of both, whose largest weights are exp(a_less) and exp(b_less) of the largest of all."""
    with np.errstate(all="ignore"):  # values of any size
        rates = np.exp([a_less, b_less])
        weights = [part.weights * rate ** np.arange(1, 5) for part, rate in zip((a, b), rates, strict=True)]
        total = weights[0] + weights[1]
        offsets = a.offset, b.offset + (b.origin - a.origin)
        offset = offsets[0] + weights[1][0] / total[0] * (offsets[1] - offsets[0])
        moves = [each - offset for each in offsets]
        unit = np.maximum.reduce([*map(np.abs, moves), a.spread * rates[0], b.spread * rates[1]])
        unit = np.where(unit > 0.0, unit, 1.0)
        sums: list[_Sums] = []
        for part, rate, (_, s2, s3, s4), move in zip((a, b), rates, weights, moves, strict=True):
            spread = part.spread * rate / unit
            thirds = [x * spread**k * rate ** (3 - k) for k, x in enumerate(part.thirds, 1)]
            fourths = [x * spread**k * rate ** (4 - k) for k, x in enumerate(part.fourths, 1)]
            own = part.pull / unit * rate**2, spread**2, np.array(thirds), np.array(fourths)
            sums.append(_Sums(s2, s3, s4, *own).moved(move / unit))
        both = _Sums(*(x + y for x, y in zip(*sums, strict=True)))
        spread, pull, third, fourth = both.over_spread()
    single = a.origin.size == 1
    return ValueSums(
        total,
        a.origin,
        offset,
        spread * unit,
        pull * unit,
        third[:, 0] if single else a.thirds,
        fourth[:, 0] if single else a.fourths,
        np.minimum(a.low, b.low),
        np.maximum(a.high, b.high),
        np.maximum(a.not_finite, b.not_finite),
    )


def moments_of(values: ValueSums, gamma: float, extent: Any) -> tuple[Floats | Codes, ...]:
    """(mean, standard error, bias, skewness, draws behind the error, status) of each component."""
    d = values.origin.size
    if extent.presence != OK:
        unknown = np.full(d, np.nan)
        return *[unknown] * 5, np.full(d, OK, np.int8)
    s1, s2, _, s4 = values.weights
    mean, std_error = values.origin + values.offset, values.spread / s1
    bias = -values.pull / s1 / s1
    fourth = values.fourths[3]
    squares, fourths = (1.0, fourth) if d == 1 else (s2 * s2, s4)
    draws = squares / fourths if fourths > 0.0 else 0.0
    error_draws = np.full(d, draws)
    skewness = np.full(d, values.thirds[2] if d == 1 else 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        looked_at = values.not_finite > -np.inf
        looked_at &= gamma * (values.not_finite - extent.high) > NEXT_TO_NOTHING
    constant = (values.low == values.high) & (values.not_finite == -np.inf)
    for array, known in ((mean, values.low), (std_error, 0.0), (bias, 0.0), (skewness, 0.0)):
        array[constant] = np.broadcast_to(known, d)[constant]
    for array in (mean, std_error, bias):
        array[looked_at] = np.nan
    if d == 1:
        error_draws[constant] = 0.0
        error_draws[looked_at] = skewness[looked_at] = np.nan
    status = np.where(looked_at, NOT_FINITE_H, np.where(constant, CONSTANT_H, OK)).astype(np.int8)
    return mean, std_error, bias, skewness, error_draws, status
