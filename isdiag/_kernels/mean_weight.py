"""The mean of the weights, its error, and the draws that carry it."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST
from isdiag._kernels.functions import one_minus_exp
from isdiag._kernels.moments import Scratch, block_weights, effective_draws
from isdiag._kernels.power_sums import NEARLY_ALL, ess_of
from isdiag._kernels.psis import khat_of
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK, EVERY, first_draws, pad, pair_sums, segments_of, total_of
from isdiag._kernels.survey import extent_of, survey_row
from isdiag._kernels.workspace import new_workspace

_POWERS = 4


@entry
def new_quartic_scratch(size):
    sums = np.empty((segments_of(size, EVERY), _POWERS))
    return Scratch(np.empty(BLOCK), np.empty(BLOCK), sums, np.empty(_POWERS))


@inner
def _add_powers(e, u, size, sums):
    """Add to sums those of e, e^2, e^3 and e^4."""
    end = pad(e, size)
    for i in range(end):
        u[i] = e[i] * e[i]
    first, third, second, fourth = pair_sums(e, u, end)
    sums[0] += first
    sums[1] += second
    sums[2] += third
    sums[3] += fourth


@inner
def _segment_powers(row, segment, high, gamma, e, u, sums):
    sums[:] = 0.0
    for first in first_draws(row.size, EVERY, segment):
        part = row[first : first + BLOCK]
        block_weights(part, high, gamma, e)
        _add_powers(e, u, part.size, sums)


@entry
def quartic_sums_part(row, first, last, high, gamma, sums):
    """Fill sums[segment] for a range of segments: of e, e^2, e^3 and e^4, e = w^gamma over its largest."""
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for segment in range(first, last):
        _segment_powers(row, segment, high, gamma, e, u, sums[segment])


@inner
def fill_quartic_sums(row, high, gamma, ws):
    """Fill ws.totals with the sums of `quartic_sums_part` over the row."""
    segments = segments_of(row.size, EVERY)
    for segment in range(segments):
        _segment_powers(row, segment, high, gamma, ws.e, ws.a, ws.sums[segment])
    total_of(ws.sums, segments, ws.totals)


@inner
def _fill_lacking(row, high, gamma, ws):
    """Fill ws.totals with sums of powers of 1 - e over positive weights: no digit of equal ones is lost."""
    ws.totals[:] = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        for i in range(part.size):
            value = one_minus_exp(gamma * max(part[i] - high, -LARGEST))
            ws.e[i] = value if part[i] > -np.inf else 0.0
        _add_powers(ws.e, ws.a, part.size, ws.totals)


@inner
def _about_mean(totals, count, zeros, at_zero):
    """(mean, sum of squares and of fourth powers about it) of count numbers, and zeros that are `at_zero`."""
    first, second, third, fourth = totals[0], totals[1], totals[2], totals[3]
    mean = (first + zeros * at_zero) / (count + zeros)
    off = at_zero - mean
    squares = second - mean * (2.0 * first - count * mean) + zeros * off**2
    fourths = fourth - mean * (4.0 * third - mean * (6.0 * second - mean * (4.0 * first - count * mean)))
    return mean, max(squares, 0.0), max(fourths + zeros * off**4, 0.0)


@entry
def store_mean(row, extent, n, gamma, record, ws):
    """A row of `MEAN_WEIGHT`, given the sums of `quartic_sums_part` in ws.totals if there are weights."""
    record.status = extent.presence
    if extent.presence != OK or gamma != gamma:
        record.log_mean = -np.inf if extent.presence == NO_WEIGHT else np.nan
        record.std_error = record.ess = record.error_draws = np.nan
        return
    count = float(extent.n_finite)
    zeros = n - count
    record.ess = ess_of(ws.totals[0], ws.totals[1], extent.n_finite)
    if record.ess < NEARLY_ALL * count:
        mean, squares, fourths = _about_mean(ws.totals, count, zeros, 0.0)
        log_mean = math.log(mean)
    else:
        _fill_lacking(row, extent.high, gamma, ws)
        lacking, squares, fourths = _about_mean(ws.totals, count, zeros, 1.0)
        mean = 1.0 - lacking
        log_mean = math.log1p(-lacking)
    record.log_mean = gamma * extent.high + log_mean
    record.std_error = math.sqrt(squares) / (n * mean)
    record.error_draws = effective_draws(squares, fourths)


def weighing(extent_of, fill_quartic_sums):
    def mean_weight_rows(rows, n, gamma, found):
        """A row of `MEAN_WEIGHT` for the n[r] weights w^gamma of each row, zeros among them."""
        ws = new_quartic_scratch(rows.shape[1])
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            if extent.presence == OK and g == g:
                fill_quartic_sums(row, extent.high, g, ws)
            store_mean(row, extent, n[r], g, found[r], ws)

    return mean_weight_rows


mean_weight_rows = entry(weighing(extent_of, fill_quartic_sums))


def weighing_tails(survey_row, fill_quartic_sums):
    def log_moment_rows(rows, n, length, gamma, khat, status, found, eps):
        """As `mean_weight_rows` and `khat_rows`, which share a look at each row: an eighth of their time."""
        ws, sums = new_workspace(rows.shape[1], length), new_quartic_scratch(rows.shape[1])
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            survey = survey_row(ws, row, length[r])
            khat[r], status[r] = khat_of(ws, row, survey, n[r], length[r], g, eps)
            if survey.presence == OK and g == g:
                fill_quartic_sums(row, survey.high, g, sums)
            store_mean(row, survey, n[r], g, found[r], sums)

    return log_moment_rows


log_moment_rows = entry(weighing_tails(survey_row, fill_quartic_sums))
