"""The log of a ratio of normalising constants, as a sum over the sets of draws along a path."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.averages import log_mean_of
from isdiag._kernels.bits import exponent_of, power_of_two
from isdiag._kernels.interval import ends_of, first_named, graded, widening
from isdiag._kernels.moments import effective_draws, skewness_of
from isdiag._kernels.records import ERROR_UNCERTAIN, FLAT, NO_WEIGHT, NOT_FINITE, OK
from isdiag._kernels.sums import BLOCK, SEGMENT, own_power_sums, pad
from isdiag._kernels.survey import extent_of, state_of

# Two rules of integration that differ by more standard errors than this differ by more than chance.
_APART = 2.0


class _Errors(NamedTuple):
    """Of the estimates of the sets, which are independent."""

    std_error: np.ndarray
    skewness: np.ndarray
    draws: np.ndarray  # that carry it


@inner
def _error_of_sum(errors):
    """(standard error, skewness, draws that carry it) of the sum of the estimates."""
    unit = 0.0
    for error in errors.std_error:
        unit = error if error > unit else unit
    unit = unit if unit > 0.0 else 1.0
    variance = 0.0
    for error in errors.std_error:
        variance += (error / unit) ** 2
    skewness = fourths = 0.0
    for k in range(errors.draws.size):
        share = (errors.std_error[k] / unit) ** 2 / variance
        skewness += share * math.sqrt(share) * errors.skewness[k]
        fourths += share * share / errors.draws[k] if share > 0.0 else share
    return unit * math.sqrt(variance), skewness, 1.0 / fourths


@inner
def _larger(a, b):
    """NaN if one of them is."""
    return a if a >= b or a != a else b


@inner
def _worst(codes, ranks):
    """The worst code of the sets; FLAT only where all are."""
    worst, flat = OK, True
    for code in codes:
        flat = flat and code == FLAT
        worst = first_named(worst, OK if code == FLAT else code, ranks)
    return FLAT if flat else worst


@entry
def sum_steps(found, n, ranks, student, given):
    """A `LOG_Z` for each path of the `DIVERGENCE` of each of its steps, (paths, steps), from n draws each."""
    codes = np.empty(n.shape[1], np.int8)
    of_steps = np.empty((3, codes.size))
    errors = _Errors(of_steps[0], of_steps[1], of_steps[2])
    for p in range(found.shape[0]):
        estimate = apart = draws = 0.0
        khat = -np.inf
        for k in range(codes.size):
            f = found[p, k]
            codes[k] = f.state
            errors.std_error[k], errors.skewness[k], errors.draws[k] = f.std_error, f.skewness, f.error_draws
            estimate += -np.inf if f.state == NO_WEIGHT else f.estimate
            khat, apart = _larger(khat, f.khat), _larger(apart, f.std_error)
            draws += n[p, k]
        std_error, skewness, error_draws = _error_of_sum(errors)
        of_path = given[p]
        of_path.estimate, of_path.std_error, of_path.khat = estimate, std_error, khat
        of_path.error_draws, of_path.disagreement = error_draws, np.nan
        # The log of a mean is as good as the mean can be told from 0.
        wider = widening(khat, apart)
        of_path.low, of_path.high = ends_of(estimate, std_error, skewness, error_draws, draws, student, wider)
        grade = graded(error_draws, not std_error > 0.0)
        of_path.status = first_named(_worst(codes, ranks), grade, ranks)


class _Sets(NamedTuple):
    """Of the draws x that have weight, set by set.

    d = (scale x - top) - middle is the distance of one to the mean, in a power of two of the order of the
    range: powers of it stay within float64 whatever the log-weights are.
    """

    inside: np.ndarray  # how many they are
    scale: np.ndarray
    top: np.ndarray
    middle: np.ndarray
    squares: np.ndarray  # sum of d^2
    mean: np.ndarray  # of x
    variance: np.ndarray


class _Weights(NamedTuple):
    """What the mean of each set counts for in the trapezoids, and mean and variance in their correction."""

    trapezoid: np.ndarray
    bend: np.ndarray
    curve: np.ndarray


@inner
def _sums_of(row, scale, top, middle, slope, curve, about, e):
    """Sums of g, g^2, g^3 and g^4, g = slope d + curve (d^2 - about), over the draws that have weight."""
    once = squares = cubes = fourths = 0.0
    for start in range(0, row.size, SEGMENT):
        of_once = of_squares = of_cubes = of_fourths = 0.0
        for first in range(start, min(start + SEGMENT, row.size), BLOCK):
            part = row[first : first + BLOCK]
            for i in range(part.size):
                d = (scale * part[i] - top) - middle
                g = slope * d + curve * (d * d - about)
                e[i] = g if part[i] > -np.inf else 0.0
            a, aa, aaa, aaaa = own_power_sums(e, e, pad(e, part.size))
            of_once += a
            of_squares += aa
            of_cubes += aaa
            of_fourths += aaaa
        once += of_once
        squares += of_squares
        cubes += of_cubes
        fourths += of_fourths
    return once, squares, cubes, fourths


@inner
def _look(row, extent, sets, k, e):
    """Fill in what the draws of a set tell of its mean and its variance."""
    half = 0.5 * extent.high - 0.5 * extent.low
    exponent = exponent_of(half) + 2 if half > 0.0 else 0
    scale = power_of_two(-min(max(exponent, -1022), 1022))
    inside, top = extent.n_finite, scale * extent.high
    once, _, _, _ = _sums_of(row, scale, top, 0.0, 1.0, 0.0, 0.0, e)
    middle = once / inside
    _, squares, _, _ = _sums_of(row, scale, top, middle, 1.0, 0.0, 0.0, e)
    sets.inside[k], sets.scale[k], sets.top[k], sets.middle[k] = inside, scale, top, middle
    sets.squares[k] = squares
    sets.mean[k] = extent.high + middle / scale
    sets.variance[k] = squares / (inside - 1.0) / scale / scale


@inner
def _weigh(path, sets, weights):
    """Fill in the weights of the sets; returns the correction.

    The variances are the slopes of the mean. Through a slope of more than three times the chord a cubic may
    leave the range of its ends, which a mean that rises never does (Fritsch & Carlson 1980): it counts as
    three times the chord.
    """
    trapezoid, bend, curve = weights
    trapezoid[:] = 0.0
    bend[:] = 0.0
    curve[:] = 0.0
    correction = 0.0
    for k in range(path.size - 1):
        distance, rise = path[k + 1] - path[k], sets.mean[k + 1] - sets.mean[k]
        chord = rise / distance
        trapezoid[k] += 0.5 * distance
        trapezoid[k + 1] += 0.5 * distance
        for end in (k, k + 1):
            sign = 1.0 if end == k else -1.0
            if not sets.variance[end] > 3.0 * chord:
                share = sign * distance * distance / 12.0
                curve[end] += share
                correction += share * sets.variance[end]
            elif chord > 0.0:
                share = 0.25 * sign * distance
                bend[k] -= share
                bend[k + 1] += share
                correction += share * rise
    return correction


@inner
def _error_of(row, sets, k, slope, curve, errors, e):
    """Fill in the error of slope times the mean and curve times the variance of a set."""
    inside, scale = sets.inside[k], sets.scale[k]
    curve *= inside / (inside - 1.0) / scale
    shrink = power_of_two(-min(max(exponent_of(abs(slope) + abs(curve)), -1022), 1022))
    about = sets.squares[k] / inside
    _, squares, cubes, fourths = _sums_of(
        row, scale, sets.top[k], sets.middle[k], shrink * slope, shrink * curve, about, e
    )
    errors.std_error[k] = math.sqrt(squares / (inside * (inside - 1.0))) / shrink / scale
    errors.skewness[k] = skewness_of(squares, cubes)
    errors.draws[k] = effective_draws(squares, fourths)


@entry
def integral_rows(rows, n, path, eps, corrected, ranks, student, given):
    """A `LOG_Z` for each path of log-weights, (paths, gammas, draws), from n draws at each gamma.

    Log Z is the integral of the mean of log w along the path, by the trapezoids and their correction or not:
    of either the error is that of a mean of terms quadratic in log w.
    """
    e, codes, of_sets = np.empty(BLOCK), np.empty(path.size, np.int8), np.empty((13, path.size))
    sets = _Sets(of_sets[0], of_sets[1], of_sets[2], of_sets[3], of_sets[4], of_sets[5], of_sets[6])
    weights, errors = (
        _Weights(of_sets[7], of_sets[8], of_sets[9]),
        _Errors(of_sets[10], of_sets[11], of_sets[12]),
    )
    for p in range(rows.shape[0]):
        of_sets[:] = np.nan
        log_share = of_share = np.nan
        draws, alone = 0.0, False
        for k in range(path.size):
            extent = extent_of(rows[p, k])
            codes[k] = state_of(extent, n[p, k], 1.0, eps)
            draws += n[p, k]
            alone = alone or extent.n_finite == 1
            if extent.presence == OK:
                _look(rows[p, k], extent, sets, k, e)
            if k == 0 and extent.presence == OK:
                inside = extent.n_finite
                log_share, of_share = log_mean_of(math.log(inside), 0.0, inside, n[p, k])
            elif k > 0 and extent.n_finite < n[p, k]:
                codes[k] = NOT_FINITE
        correction = _weigh(path, sets, weights)
        estimate = log_share + (correction if corrected else 0.0)
        for k in range(path.size):
            slope, curve = weights.trapezoid[k], 0.0
            estimate += slope * sets.mean[k]
            if corrected:
                slope, curve = slope + weights.bend[k], weights.curve[k]
            _error_of(rows[p, k], sets, k, slope, curve, errors, e)
        std_error, skewness, error_draws = _error_of_sum(errors)
        std_error = math.hypot(std_error, of_share)
        status = _worst(codes, ranks)
        if status == OK and not (abs(estimate) < np.inf or alone):
            status = NOT_FINITE
        if status == NOT_FINITE:
            estimate = np.nan
        if estimate != estimate:
            std_error = correction = np.nan
        if status == OK:
            apart = abs(correction) > _APART * std_error
            status = ERROR_UNCERTAIN if apart else graded(error_draws, False)
        of_path = given[p]
        of_path.estimate, of_path.std_error, of_path.khat = estimate, std_error, np.nan
        of_path.error_draws, of_path.disagreement, of_path.status = error_draws, correction, status
        of_path.low, of_path.high = ends_of(estimate, std_error, skewness, error_draws, draws, student, 1.0)
