"""As `moments`, for values of several components."""

from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.draws import AHEAD, DRAWS, add_draw, add_draws
from isdiag._kernels.moments import (
    FAR,
    Scratch,
    block_weights,
    estimate,
    finished,
    finite_or_zero,
    first_at,
    is_in_range,
    new_scratch,
)
from isdiag._kernels.records import CONSTANT_H, OK
from isdiag._kernels.sums import BLOCK, EVERY, first_draws, pad, pair_sums, segments_of, total_of


class VectorScratch(NamedTuple):
    """Sums of e, e^2 and e^4, then first powers, squares and pulls of each component."""

    centre: np.ndarray
    sums: np.ndarray  # those of each segment
    totals: np.ndarray
    alone: Scratch  # for a component by itself


@entry
def new_vector_scratch(size, d):
    width = 3 * (d + 1)
    sums = np.empty((segments_of(size, EVERY), width))
    return VectorScratch(np.empty(d), sums, np.empty(width), new_scratch(size))


@inner(counted=True)
def _components_in(sums, d):
    """First powers, squares and pulls."""
    return sums[3 : 3 + d], sums[3 + d : 3 + 2 * d], sums[3 + 2 * d :]


@entry
def vector_sums_part(row, first_segment, last_segment, high, gamma, h, centre, sums):
    """Fill sums[segment] for a range of segments with what `VectorScratch` holds; h is (n, d) flattened."""
    d = centre.size
    e, ee, positive = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    starts = np.empty(BLOCK, np.int64)
    for segment in range(first_segment, last_segment):
        own = sums[segment]
        own[:] = 0.0
        first_power, squares, pull = _components_in(own, d)
        for first in first_draws(row.size, EVERY, segment):
            part = row[first : first + BLOCK]
            block_weights(part, high, gamma, e)
            end = pad(e, part.size)
            for i in range(end):
                ee[i] = e[i] * e[i]
            x, _, _, _ = pair_sums(e, e, end)
            xx, _, xxxx, _ = pair_sums(ee, ee, end)
            own[0] += x
            own[1] += xx
            own[2] += xxxx
            count = 0
            for i in range(part.size):
                if e[i] != 0.0:
                    positive[count] = e[i]
                    starts[count] = (first + i) * d
                    count += 1
            together = count - count % DRAWS
            for i in range(0, together, DRAWS):
                later = min(i + AHEAD, together - DRAWS)
                add_draws(h, starts, positive, centre, first_power, squares, pull, i, later)
            for i in range(together, count):
                add_draw(positive[i], h[starts[i] : starts[i] + d], centre, first_power, squares, pull)


@inner
def fill_vector_sums(row, high, gamma, h, ws):
    """Fill ws.totals."""
    segments = segments_of(row.size, EVERY)
    vector_sums_part(row, 0, segments, high, gamma, h, ws.centre, ws.sums)
    total_of(ws.sums, segments, ws.totals)


@inner(counted=True)
def _mark_constant(row, h, centre, squares, status):
    """Set status to CONSTANT_H where the sum of squares is 0 and h is its centre at each draw of weight."""
    d = centre.size
    differing = np.zeros(d, np.int64)
    for i in range(row.size):
        if row[i] > -np.inf:
            values = h[i * d : (i + 1) * d]
            for j in range(d):
                differing[j] += 1 if values[j] != centre[j] else 0
    for j in range(d):
        if squares[j] == 0.0 and differing[j] == 0:
            status[j] = CONSTANT_H


@entry
def begin_vectors(h, top, centre, status):
    for j in range(centre.size):
        centre[j] = finite_or_zero(h[top * centre.size + j])
        status[j] = OK


@entry
def step_vectors(row, high, gamma, h, top, first_time, mean, std_error, bias, status, ws):
    """Fill in the means from ws.totals; returns whether their centres were near enough.

    A component whose squares leave the range is done by itself.
    """
    centre = ws.centre
    d = centre.size
    s1, s2 = ws.totals[0], ws.totals[1]
    first_power, squares, pull = _components_in(ws.totals, d)
    if first_time:
        zero = 0
        for j in range(d):
            zero += 1 if squares[j] == 0.0 else 0
        if zero > 0:
            _mark_constant(row, h, centre, squares, status)
    near = True
    for j in range(d):
        if status[j] == CONSTANT_H:
            mean[j], std_error[j], bias[j] = centre[j], 0.0, 0.0
        elif not is_in_range(squares[j]):
            column = np.empty(row.size)
            for i in range(row.size):
                column[i] = h[i * d + j]
            alone = estimate(row, high, gamma, column, top, ws.alone)
            mean[j], std_error[j], bias[j] = alone.estimate, alone.std_error, alone.bias
            status[j] = alone.status
        else:
            shift, about, std_error[j], bias[j] = finished(s1, s2, first_power[j], squares[j], pull[j])
            near = near and not shift * shift * s2 > FAR * about
            centre[j] += shift
            mean[j] = centre[j]
    return near


def estimating_vectors(fill_vector_sums):
    def vector_estimates(row, high, gamma, h, top, mean, std_error, bias, status, ws):
        """As `estimate`, in passes over all components of h, (n, d) flattened.

        Returns the sums of e, e^2 and e^4.
        """
        begin_vectors(h, top, ws.centre, status)
        near = False
        for attempt in range(2):
            if not near:
                fill_vector_sums(row, high, gamma, h, ws)
                first_time = attempt == 0
                near = step_vectors(row, high, gamma, h, top, first_time, mean, std_error, bias, status, ws)
        return ws.totals[0], ws.totals[1], ws.totals[2]

    return vector_estimates


vector_estimates = inner(estimating_vectors(fill_vector_sums))


@entry
def vector_values(row, high, gamma, h, mean, std_error, bias):
    """`vector_estimates` of a row by itself."""
    top = first_at(row, high)
    ws = new_vector_scratch(row.size, mean.size)
    status = np.empty(mean.size, np.int8)
    return vector_estimates(row, high, gamma, h, top, mean, std_error, bias, status, ws)
