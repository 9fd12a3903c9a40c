"""Means of terms over the draws, and what is known of their errors."""

from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import exponent_of
from isdiag._kernels.divergence_terms import (
    OF_INFLUENCE,
    OF_PAIRS,
    Terms,
    fill_term_sums,
    largest_term,
    term_without_weight,
)
from isdiag._kernels.moments import fourth_power, is_in_range, scalar_moments_in, third_power
from isdiag._kernels.records import HALF_SQUARE, LESS_ONE, RATIO

# Sums of powers so many times as large as what is left of them would lose digits to it.
_LARGER = 1e3
MOST = 2000  # a unit of which nothing is finite in the end


class Slope(NamedTuple):
    """What the mean adds to the influence of a draw: -(of_mean mean + constant) (w - 1)."""

    of_mean: float
    constant: float


class Average(NamedTuple):
    """A mean over n draws in units of 2^unit, and sums of powers of what they add to it, less its mean."""

    mean: float
    squares: float
    cubes: float
    fourths: float


class Averaging(NamedTuple):
    """The terms whose sums are asked for; once `left` is 0 the answer, and the terms of the influence."""

    left: int
    terms: Terms
    scaled: bool
    answer: Average


@inner
def _influence_of(terms, mean, slope):
    return Terms(
        terms.kind, terms.order, terms.high, terms.top, terms.unit, OF_INFLUENCE, terms.origin + mean, slope
    )


@inner
def _in_unit(terms, unit):
    return Terms(terms.kind, terms.order, terms.high, terms.top, unit, terms.sums, terms.origin, terms.slope)


@inner
def _unit_for(row, extent, terms, zeros, ws):
    """That of the largest g."""
    largest = largest_term(row, terms, ws)
    if zeros > 0.0:
        largest = max(largest, abs(term_without_weight(terms)))
    if largest < np.inf:
        return min(max(exponent_of(largest) + 1, -1000), 1000) if largest > 0.0 else 0
    log = max(abs(extent.low - terms.high + terms.top), abs(extent.high - terms.high + terms.top))
    exponent = exponent_of(min(log, 1.7e308)) + 2
    # A square is of two factors, each in units of a power of 2 that is a normal number.
    return 2 * min(exponent, 1022) if terms.kind == HALF_SQUARE else min(exponent, 1000)


@inner
def _central(n, zeros, totals, slope, without):
    """Mean and central sums of powers of y - slope x over all draws, and the size of what was subtracted.

    totals are the sums over draws of positive weight; of another it is `without`.
    """
    sums = scalar_moments_in(totals)
    once = sums.first_power - slope * sums.s1 + zeros * without
    squares = sums.squares - 2.0 * slope * sums.pull + slope * slope * sums.s2 + zeros * without**2
    cubes = third_power(sums.thirds, slope) + zeros * without**3
    fourths = fourth_power(sums.fourths, slope) + zeros * without**4
    mean = once / n
    size = sums.squares + slope * slope * sums.s2 + zeros * without**2
    about = max(squares - n * mean * mean, 0.0)
    about_cubes = cubes - 3.0 * mean * squares + 2.0 * n * mean**3
    about_fourths = fourths - 4.0 * mean * cubes + 6.0 * mean * mean * squares - 3.0 * n * mean**4
    return mean, about, about_cubes, max(about_fourths, 0.0), size


@inner
def _is_count(terms):
    """Whether what is averaged is w^0, of which the sums are known."""
    return (
        (terms.kind == RATIO or terms.kind == LESS_ONE) and terms.order == 0.0 and terms.sums == OF_INFLUENCE
    )


@entry
def counts(extent, asked, ws):
    """Whether the sums are known without a pass; then they are filled in."""
    terms = asked.terms
    known = _is_count(terms) and terms.origin == 0.0
    if known:
        ws.totals[:] = 0.0
        if terms.kind == RATIO:
            ws.totals[1] = ws.totals[4] = ws.totals[8] = ws.totals[13] = extent.n_finite
    return known


@entry
def begin_average(terms):
    return Averaging(3, terms, _is_count(terms), Average(np.nan, np.nan, np.nan, np.nan))


@entry
def step_average(row, extent, n, slope, asked, ws):
    """Go on with the sums that were asked for.

    Where the squares leave the range that has room for fourth powers a second pass is made in other units;
    where little is left of the sums another one of what each draw adds.
    """
    terms, totals, left = asked.terms, ws.totals, asked.left - 1
    zeros = n - extent.n_finite
    without = term_without_weight(terms) if zeros > 0.0 else 0.0
    if not asked.scaled and not is_in_range(totals[4] + zeros * without * without):
        unit = _unit_for(row, extent, terms, zeros, ws)
        if unit != terms.unit:
            return Averaging(left, _in_unit(terms, unit), True, asked.answer)
    if terms.slope == 0.0 and terms.origin == 0.0:
        mean = (totals[1] + zeros * without) / n
        own = 0.0
        if terms.sums == OF_PAIRS:
            own = slope.of_mean * mean + slope.constant * 2.0 ** (-terms.unit)
            without += own
        _, squares, cubes, fourths, size = _central(n, zeros, totals, own, without)
        if size > _LARGER * squares and left > 0:
            return Averaging(min(left, 1), _influence_of(terms, mean, own), True, asked.answer)
        return Averaging(0, _influence_of(terms, mean, own), True, Average(mean, squares, cubes, fourths))
    mean, squares, cubes, fourths, _ = _central(n, zeros, totals, 0.0, without)
    moved = _influence_of(terms, mean, terms.slope)
    return Averaging(0, moved, True, Average(moved.origin, squares, cubes, fourths))


def averaging_terms(fill_term_sums):
    def average(row, extent, n, terms, slope, ws):
        """The mean of terms over n draws, and what each adds to it: an `Averaging`."""
        asked = begin_average(terms)
        while asked.left > 0:
            if not counts(extent, asked, ws):
                fill_term_sums(row, asked.terms, ws)
            asked = step_average(row, extent, n, slope, asked, ws)
        return asked

    return average


average = inner(averaging_terms(fill_term_sums))
