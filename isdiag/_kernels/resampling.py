"""Positions of draws that are drawn again, in proportion to their weights."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.moments import block_weights
from isdiag._kernels.records import OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of

_NOWHERE = -1  # in a row that has nothing to give


@inner
def _fill_weights(row, w):
    """Fill w with the weights over the largest, if there are any; returns a status code."""
    extent = extent_of(row)
    if extent.presence == OK:
        for first in range(0, row.size, BLOCK):
            block_weights(row[first : first + BLOCK], extent.high, 1.0, w[first : first + BLOCK])
    return extent.presence


@inner
def _accumulate(w):
    """Replace w by its cumulative sums; returns (the total, the last that grows on)."""
    total = 0.0
    last = 0
    for i in range(w.size):
        last = i if w[i] > 0.0 else last
        total += w[i]
        w[i] = total
    return total, last


@inner
def _place_in_strata(w, total, last, parts, positions):
    """Point k lies in stratum k, the part parts[k] in [0, 1) of the way.

    How many points lie below a cumulative weight is then known without a search, and where a draw's first
    copy goes without a branch: a draw of none is overwritten by the next.
    """
    size = positions.size
    scale = size / total
    first = 0
    positions[:] = 0
    for i in range(last + 1):
        positions[min(first, size - 1)] = i if first < size else positions[size - 1]
        x = scale * w[i]
        stratum = min(int(x), size - 1)
        first = stratum + (1 if parts[stratum] < x - stratum else 0)
    for k in range(1, size):
        positions[k] = max(positions[k], positions[k - 1])


@entry
def strata_rows(rows, parts, positions, status):
    """For each row and k the draw in whose share of the cumulative weight (k + parts[k]) / size lies."""
    w = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        status[r] = _fill_weights(rows[r], w)
        if status[r] != OK:
            positions[r, :] = _NOWHERE
            continue
        total, last = _accumulate(w)
        _place_in_strata(w, total, last, parts[r], positions[r])


@inner
def _place(w, total, last, spacings, positions):
    """Point k is the sum of the spacings up to the k-th over that of all."""
    scale = total / spacings.sum()
    point = scale * spacings[0]
    i = 0
    for k in range(positions.size):
        while w[i] <= point and i < last:
            i += 1
        positions[k] = i
        point += scale * spacings[k + 1]


@entry
def multinomial_rows(rows, spacings, positions, status):
    """For each row independent draws in ascending order.

    Sums of exponential spacings over their total are uniform points in ascending order.
    """
    w = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        status[r] = _fill_weights(rows[r], w)
        if status[r] != OK:
            positions[r, :] = _NOWHERE
            continue
        total, last = _accumulate(w)
        _place(w, total, last, spacings[r], positions[r])


@inner
def _leave_rest(w, copies, size):
    """Fill copies with floor(size wbar), w with what that leaves; returns how many are still to be drawn."""
    total = 0.0
    for i in range(w.size):
        total += w[i]
    scale = size / total
    left = size
    for i in range(w.size):
        expected = scale * w[i]
        copies[i] = min(int(expected), left)  # rounding makes them no more than there are
        left -= copies[i]
        w[i] = expected - int(expected)
    return left


@entry
def residual_rows(rows, spacings, positions, status):
    """For each row floor(size wbar) copies of each draw, the rest independently from what that leaves."""
    size = positions.shape[1]
    w, copies = np.empty(rows.shape[1]), np.empty(rows.shape[1], np.int64)
    rest = np.empty(size, np.int64)
    for r in range(rows.shape[0]):
        status[r] = _fill_weights(rows[r], w)
        if status[r] != OK:
            positions[r, :] = _NOWHERE
            continue
        left = _leave_rest(w, copies, size)
        total, last = _accumulate(w)
        _place(w, total, last, spacings[r, : left + 1], rest[:left])
        for k in range(left):
            copies[rest[k]] += 1
        k = 0
        for i in range(w.size):
            for _ in range(copies[i]):
                positions[r, k] = i
                k += 1
