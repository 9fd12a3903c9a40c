"""Divergences and log-moments, each by one pass for the mean weight and one for what is averaged."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import exponent_of
from isdiag._kernels.divergence_terms import (
    OF_INFLUENCE,
    OF_PAIRS,
    SMALL,
    Terms,
    is_generator,
    new_term_scratch,
    term_without_weight,
    write_terms,
)
from isdiag._kernels.functions import LN_2, LOG2_E
from isdiag._kernels.moments import effective_draws, skewness_of
from isdiag._kernels.psis import khat_of
from isdiag._kernels.records import (
    AMARI,
    CHI2,
    ERROR_ROUGH,
    ERROR_UNCERTAIN,
    FEW_ERROR_DRAWS,
    FLAT,
    GENERATED,
    GENERATOR,
    GENERATOR_APART,
    GENERATOR_NEAR_1,
    HALF_SQUARE,
    HALF_SQUARED,
    LESS_ONE,
    MINUS_LOG,
    MOMENT,
    NO_WEIGHT,
    OK,
    ONE_DRAW,
    RATIO,
    RENYI,
    ROUGH_ERROR_DRAWS,
    WEIGHTED,
)
from isdiag._kernels.survey import survey_row
from isdiag._kernels.term_averages import MOST, Slope, average
from isdiag._kernels.workspace import new_workspace

# Weights of a variance from here on have a generator whose mean is large enough to be averaged by the plain
# formula: it is exact to an ulp of 1.
_WIDE = 0.01
# Below this moment of order < 1 the generator's mean would cost digits of its logarithm.
_SMALL_MOMENT = 0.05
# Logarithms of powers from which on they are averaged in other units.
_LARGE_POWER = 100.0


@inner
def ratio_terms(extent, n, order, top, sums, unit):
    narrow = order * (extent.high - extent.low) <= SMALL and 2 * extent.n_finite > n
    return Terms(LESS_ONE if narrow else RATIO, order, extent.high, top, unit, sums, 0.0, 0.0)


@inner
def _generator_terms(extent, order, high, top, sums, spread):
    """In units in which powers of the largest weight are numbers; spread is the variance of the weights."""
    log_high, log_low = extent.high - high + top, extent.low - high + top
    log_largest = order * log_high
    unit = int(min(log_largest * LOG2_E, MOST)) if log_largest > _LARGE_POWER else 0
    kind = GENERATOR
    if max(order, 1.0) * max(abs(log_high), abs(log_low)) <= SMALL:
        kind = GENERATOR_NEAR_1
    elif spread >= _WIDE:
        kind = GENERATOR_APART
    return Terms(kind, order, high, top, unit, sums, 0.0, 0.0)


@inner
def mean_ratio(terms, mean):
    """The mean of exp(order below) in the unit of the terms, and its logarithm."""
    if terms.kind == RATIO:
        return mean, math.log(mean) + terms.unit * LN_2
    return mean + 2.0 ** (-terms.unit), math.log1p(math.ldexp(mean, int(terms.unit)))


@entry
def weight_terms(extent, n):
    """Those whose mean is that of the weights, over the largest."""
    return ratio_terms(extent, n, 1.0, 0.0, OF_INFLUENCE, 0), Slope(0.0, 0.0)


@entry
def store_mean_weight(extent, n, found, averaged):
    """Store the log of the mean weight and its standard error.

    Returns the log of the largest weight over their mean, and their variance over its square.
    """
    mean, log = mean_ratio(averaged.terms, averaged.answer.mean)
    found.log_mean = extent.high + log
    found.mean_error = math.sqrt(averaged.answer.squares) / n / mean
    return -log, n * found.mean_error * found.mean_error


@entry
def leibler_terms(order, extent, top, spread):
    """Those whose mean is the divergence of Kullback and Leibler: `HALF_SQUARED` has it in its slope."""
    return _generator_terms(extent, order, extent.high, top, OF_INFLUENCE, spread), Slope(0.0, 0.0)


@entry
def terms_of_normalized(of, order, extent, n, top, spread, leibler):
    """What is averaged for a divergence of normalised weights, and the slope of its influence."""
    high = extent.high
    if of == HALF_SQUARED:
        kl = math.ldexp(leibler.answer.mean, int(leibler.terms.unit))
        slope = Slope(1.0, kl * math.exp(-top)) if order == 1.0 else Slope(0.0, -kl)
        return Terms(HALF_SQUARE, order, high, top, 0, OF_PAIRS, 0.0, 0.0), slope
    some_zero = order < 0.5 and extent.n_finite < n
    if (of == MOMENT or of == RENYI) and (some_zero or order * top > _LARGE_POWER):
        return ratio_terms_of_normalized(order, extent, n, top)
    return _generator_terms(extent, order, high, top, OF_PAIRS, spread), Slope(order, 0.0)


@entry
def ratio_terms_of_normalized(order, extent, n, top):
    terms = ratio_terms(extent, n, order, top, OF_PAIRS, min(max(exponent_of(order), 0), 1000))
    return terms, Slope(order, order if terms.kind == LESS_ONE else 0.0)


@entry
def terms_as_given(of, order, extent, n):
    """What is averaged for a divergence of weights that are used as they are."""
    high, none = extent.high, Slope(0.0, 0.0)
    if of == GENERATED:
        return _generator_terms(extent, order, 0.0, 0.0, OF_INFLUENCE, 0.0), none
    if of == HALF_SQUARED:
        shift = high if order == 1.0 else 0.0
        return Terms(HALF_SQUARE, order, shift, shift, 0, OF_INFLUENCE, 0.0, 0.0), none
    if (of == AMARI or of == RENYI) and order == 1.0:
        return Terms(WEIGHTED, order, high, high, 0, OF_INFLUENCE, 0.0, 0.0), none
    if of == AMARI and order == 0.0:
        return Terms(MINUS_LOG, order, 0.0, 0.0, 0, OF_INFLUENCE, 0.0, 0.0), none
    return ratio_terms(extent, n, order, 0.0, OF_INFLUENCE, 0), none


@inner
def _scaled(x, unit, log):
    """x 2^unit exp(log), which may be finite where a part of it is not."""
    half = math.exp(0.5 * log)
    return math.ldexp(x * half, int(unit)) * half if x != 0.0 else 0.0


@inner
def _log1p_ratio(z):
    return math.log1p(z) / z if z != 0.0 else 1.0


@inner
def _of_generator(of, order, averaged, deviation):
    """(estimate, its error, whether these lost no digits) from the mean of the generator."""
    unit = int(averaged.terms.unit)
    amari, error = math.ldexp(averaged.answer.mean, unit), math.ldexp(deviation, unit)
    if of == CHI2:
        return 2.0 * amari, 2.0 * error, True
    if of != RENYI and of != MOMENT:
        return amari, error, True
    over = order - 1.0
    scaled = order * amari
    less_one = over * scaled  # the moment less 1
    known = unit <= 0 and less_one < np.inf and 1.0 + less_one > _SMALL_MOMENT
    value, error = scaled * _log1p_ratio(less_one), order * error / (1.0 + less_one)
    if of == MOMENT:
        return over * value, over * error, known
    return value, error, known


@inner
def _of_ratio(of, order, averaged, deviation, shift):
    """(estimate, its error) from the mean of w^order, whose log is shifted by order times that."""
    mean, log = mean_ratio(averaged.terms, averaged.answer.mean)
    error = deviation / mean
    over = order - 1.0
    if of == RENYI:
        return order / over * shift + log / over, error / over
    log_moment = order * shift + log
    if of == MOMENT:
        return log_moment, error
    factor = 2.0 if of == CHI2 else 1.0
    value, error = math.expm1(log_moment) / order / over, math.exp(log_moment) * error / order / over
    return factor * value, factor * error


@entry
def store_divergence(of, order, extent, n, top, averaged, found):
    """Fill in the estimate and its error; returns whether they lost no digits."""
    terms, answer = averaged.terms, averaged.answer
    deviation = math.sqrt(answer.squares) / n
    known = True
    if is_generator(terms.kind):
        value, error, known = _of_generator(of, order, averaged, deviation)
    elif terms.kind == RATIO or terms.kind == LESS_ONE:
        value, error = _of_ratio(of, order, averaged, deviation, top)
    else:
        log = terms.top if terms.order == 1.0 else 0.0
        value, error = _scaled(answer.mean, terms.unit, log), _scaled(deviation, terms.unit, log)
    found.estimate = value
    found.std_error = abs(error) if abs(value) < np.inf and n > 1.0 else np.nan
    found.sign = 1 if error >= 0.0 else -1
    found.skewness = found.sign * skewness_of(answer.squares, answer.cubes)
    found.error_draws = 0.0 * found.std_error  # NaN of an error that is none
    if found.std_error > 0.0:
        found.error_draws = effective_draws(answer.squares, answer.fourths)
    found.kind, found.order, found.high, found.top = terms.kind, terms.order, terms.high, terms.top
    found.unit, found.origin, found.slope = terms.unit, terms.origin, terms.slope
    return known


@entry
def grade_divergence(extent, n, normalized, settled, found):
    """Add to the status what is known of the error. Of equal weights there is nothing but rounding errors.

    A khat above the settled one may be one at which the error is that of a law without variance: what a draw
    adds is of the second order in the weights, and small samples that miss the tail show a small error.
    """
    if found.state == FLAT:
        if normalized and extent.n_finite == n and found.estimate == found.estimate:
            found.estimate = found.std_error = 0.0
    elif found.state != ONE_DRAW and (found.std_error > 0.0 or found.error_draws > 0.0):
        if found.error_draws < FEW_ERROR_DRAWS:
            found.status = ERROR_UNCERTAIN
        elif found.error_draws < ROUGH_ERROR_DRAWS or settled < found.khat < np.inf:
            found.status = ERROR_ROUGH


@entry
def tail_power(of, order, normalized):
    """The power of the weights that an estimate averages, of those that have a tail."""
    if normalized:
        return 1.0 if order == np.inf or order < 1.0 else order
    logarithm = order == 0.0 and of != MOMENT and of != RENYI
    return 1.0 if logarithm or order == np.inf else order


@entry
def begin_divergence(ws, row, survey, n, length, of, order, normalized, found, eps):
    """Fill in what the weights alone tell; whether there is something to average."""
    found.estimate = found.std_error = found.skewness = found.error_draws = np.nan
    found.order = found.high = found.top = found.origin = found.slope = np.nan
    found.mean_error = np.nan
    found.log_mean = -np.inf if survey.presence == NO_WEIGHT else np.nan
    found.unit = found.kind = found.sign = 0
    found.khat, state = khat_of(ws, row, survey, n, length, tail_power(of, order, normalized), eps)
    found.state = found.status = state
    if survey.presence == OK and order == order:
        return True
    found.khat = np.nan
    return False


@entry
def ends_at_once(extent, n, order, top, terms, normalized, settled, found):
    """Whether the estimate is a largest weight or infinite, and then store it."""
    if order == np.inf:
        found.estimate = top
        grade_divergence(extent, n, normalized, settled, found)
        return True
    beyond = terms.unit == MOST or (extent.n_finite < n and term_without_weight(terms) == np.inf)
    if beyond:
        found.estimate = np.inf
    return beyond


def diverging(survey_row, average):
    def divergence_rows(rows, n, length, order, settled, found, of, normalized, eps):
        """Fill a record of `DIVERGENCE` for each row of log-weights.

        What each draw adds to the mean that an estimate is made of is told by `divergence_influence_rows`.
        """
        tail, ws = new_workspace(rows.shape[1], length), new_term_scratch(rows.shape[1])
        for r in range(rows.shape[0]):
            row, a, draws, at = rows[r], order[r], float(n[r]), found[r]
            survey = survey_row(tail, row, length[r])
            if not begin_divergence(tail, row, survey, n[r], length[r], of, a, normalized, at, eps):
                continue
            log_share, spread = 0.0, 0.0
            if normalized or of != MOMENT:
                terms, slope = weight_terms(survey, draws)
                averaged = average(row, survey, draws, terms, slope, ws)
                log_share, spread = store_mean_weight(survey, draws, at, averaged)
            if normalized and of == HALF_SQUARED:
                terms, slope = leibler_terms(a, survey, log_share, spread)
                averaged = average(row, survey, draws, terms, slope, ws)
            top = log_share if normalized else survey.high
            if normalized:
                terms, slope = terms_of_normalized(of, a, survey, draws, top, spread, averaged)
            else:
                terms, slope = terms_as_given(of, a, survey, draws)
            if ends_at_once(survey, draws, a, top, terms, normalized, settled[r], at):
                continue
            averaged = average(row, survey, draws, terms, slope, ws)
            if not store_divergence(of, a, survey, draws, top, averaged, at):
                terms, slope = ratio_terms_of_normalized(a, survey, draws, top)
                averaged = average(row, survey, draws, terms, slope, ws)
                store_divergence(of, a, survey, draws, top, averaged, at)
            grade_divergence(survey, draws, normalized, settled[r], at)

    return divergence_rows


divergence_rows = entry(diverging(survey_row, average))


@entry
def divergence_influence_rows(rows, found, out):
    """Write what each draw adds to the mean that `divergence_rows` found, 0 where there is no weight."""
    for r in range(rows.shape[0]):
        f = found[r]
        terms = Terms(f.kind, f.order, f.high, f.top, f.unit, OF_INFLUENCE, f.origin, f.slope)
        write_terms(rows[r], terms, out[r])
