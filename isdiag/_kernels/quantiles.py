"""Weighted quantiles of h, and where the share of the weight below is near q: without a sort of the row.

Place k lies between groups k - 1 and k of `isdiag._kernels.ranks`. What is looked for among places is looked
for in bins of h, by their sums; the draws of a bin that may hold it are sorted, or put into bins again where
they are too many.
"""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.ranks import (
    BINS,
    LOWEST_KEY,
    Sums,
    Values,
    all_of,
    bins_of,
    held_of,
    is_finite,
    is_many,
    look,
    new_scratch,
    part_of,
    ranked,
)
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK
from isdiag._kernels.survey import extent_of

_ROUNDING = 4.0 * np.finfo(np.float64).eps  # of a cumulative weight, next to one
_LOOSER = 1.0 + 1e-9  # than bounds of sums that were added in another order


@inner
def _bin_up_to(part, bins, aim):
    """The part of the first bin with which the weights reach an aim, the last one if none does."""
    w, squares, fourths, beside = part.below.w, part.below.squares, part.below.fourths, part.beside
    found = -1
    for b in range(BINS):
        if bins.count[b] > 0:
            if found >= 0:
                w += bins.sums[found, 0]
                squares += bins.sums[found, 1]
                fourths += bins.sums[found, 2]
                beside = bins.sums[found, 1]
            found = b
            if w + bins.sums[b, 0] >= aim:
                break
    return part_of(part, bins, found, Sums(w, squares, fourths), beside)


@inner(counted=True)
def _up_to(ranks, share, between, ws):
    """(h of the first group up to which the weights have a share, sums up to it, what is held now)."""
    aim = share * ranks.total.w
    part = all_of(ranks)
    while is_many(part, ws):
        part = _bin_up_to(part, bins_of(part, ranks, ws), aim)
    between = held_of(part, ranks, between, ws)
    held = ws.held
    w, squares, fourths = part.below
    for i in range(between.size):
        w += held.w[i]
        squares += held.squares[i]
        fourths += held.fourths[i]
        last = i == between.size - 1
        if last and between.after == np.inf:
            return held.h[i], ranks.total, between
        if w >= aim or last:
            break
    return held.h[i], Sums(w, squares, fourths), between


@inner
def _reach(total, q, times, left, right):
    """So many standard errors of the share of the weight below a place, were it q."""
    return times * math.sqrt((1.0 - q) * (1.0 - q) * left + q * q * right) / total.w + _ROUNDING


@inner
def _bin_near(part, bins, done, total, q, times):
    """(whether a bin of keys above `done` may hold a place near q, the part of the first that may).

    The places before its groups are those of a bin.
    """
    w, squares, fourths, beside = part.below.w, part.below.squares, part.below.fourths, part.beside
    for b in range(BINS):
        if bins.count[b] == 0:
            continue
        of_bin = bins.sums[b, 1]
        if bins.high[b] > done:
            below, above = w / total.w, (w + bins.sums[b, 0]) / total.w
            off = max(below - q, q - above, 0.0)
            left, right = squares + of_bin + max(of_bin, beside), total.squares - squares + of_bin
            if off <= _LOOSER * _reach(total, q, times, left, right) + (_LOOSER - 1.0):
                return True, part_of(part, bins, b, Sums(w, squares, fourths), beside)
        w += bins.sums[b, 0]
        squares += of_bin
        fourths += bins.sums[b, 2]
        beside = of_bin
    return False, part


@inner
def _place_near(held, between, below, total, q, times):
    """The first of the places before the held groups, and after the last of all, that is near q; or -1."""
    w, squares, before = below.w, below.squares, between.squares_before
    if between.before == -np.inf:
        before = held.squares[0]
    for i in range(between.size + (1 if between.after == np.inf else 0)):
        after = held.squares[min(i, between.size - 1)]
        rest = max(total.squares - squares, 0.0)
        if abs(w / total.w - q) <= _reach(total, q, times, squares + before, rest + after):
            return i
        if i < between.size:
            w += held.w[i]
            squares += held.squares[i]
            before = held.squares[i]
    return -1


@inner(counted=True)
def _below_first_near(ranks, q, times, between, ws):
    """(h of the group below the first place near q, -inf where there is none, what is held now).

    The share of the weight at a place is near q where it is within so many of its standard errors. They are
    those of a share q, and one draw more than there is counts on each side, of the weight of the nearest:
    beyond the last draw nothing is seen, not that nothing is there. NaN if no place is near.
    """
    done = LOWEST_KEY
    while done < ranks.high:
        part, near = all_of(ranks), True
        while near and is_many(part, ws):
            near, part = _bin_near(part, bins_of(part, ranks, ws), done, ranks.total, q, times)
        if near:
            between = held_of(part, ranks, between, ws)
            i = _place_near(ws.held, between, part.below, ranks.total, q, times)
            if i >= 0:
                return ws.held.h[i - 1] if i > 0 else between.before, between
        done = part.high
    return np.nan, between


@entry
def quantile_rows(rows, gamma, h, estimate, error_draws, status, q):
    """For each row and component, (rows, d, q): the least value up to which the weights have a share q.

    error_draws carry the error of that share, as if it were q. What a row without weight holds stays.
    """
    ws = new_scratch(rows.shape[1])
    d = estimate.shape[1]
    for r in range(rows.shape[0]):
        extent = extent_of(rows[r])
        if extent.presence != OK or gamma[r] != gamma[r]:
            continue
        for j in range(d):
            values = Values(rows[r], extent.high, gamma[r], h[r], j, d, 1.0)
            low, high, count = look(values, ws)
            constant = CONSTANT_H if low == high else OK
            finite = is_finite(low, high)
            status[r, j, :] = constant if finite else NOT_FINITE_H
            if not finite:
                continue
            ranks, between = ranked(values, low, high, count, ws)
            for k in range(q.size):
                estimate[r, j, k], below, between = _up_to(ranks, q[k] - _ROUNDING, between, ws)
                own, other = q[k] * q[k], (1.0 - q[k]) * (1.0 - q[k])
                total = ranks.total
                squares = other * below.squares + own * (total.squares - below.squares)
                fourths = other * other * below.fourths + own * own * (total.fourths - below.fourths)
                error_draws[r, j, k] = squares * squares / fourths


@entry
def quantile_end_rows(rows, gamma, h, times, estimate, ends, q):
    """For each row, component and q the values between which the share of the weight is near q.

    Near is within times[r, j, k, t] of its standard errors; ends[r, j, k, t] are the lower and the upper one,
    infinite beyond all draws, and both the value at which the share jumps over q where none is near. What a
    row without weight, or with other h than numbers, holds stays.
    """
    ws = new_scratch(rows.shape[1])
    d = times.shape[1]
    for r in range(rows.shape[0]):
        extent = extent_of(rows[r])
        if extent.presence != OK or gamma[r] != gamma[r]:
            continue
        for j in range(d):
            for side in range(2):  # the upper end of h is less the lower one of -h
                sign = 1.0 - 2.0 * side
                values = Values(rows[r], extent.high, gamma[r], h[r], j, d, sign)
                low, high, count = look(values, ws)
                if not is_finite(low, high):
                    continue
                ranks, between = ranked(values, low, high, count, ws)
                for k in range(q.size):
                    share = q[k] if side == 0 else 1.0 - q[k]
                    for t in range(times.shape[3]):
                        end, between = _below_first_near(ranks, share, times[r, j, k, t], between, ws)
                        ends[r, j, k, t, side] = sign * end if end == end else estimate[r, j, k]
