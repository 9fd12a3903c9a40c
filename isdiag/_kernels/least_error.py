"""The estimate of least error: truncation, shrunk along the path of tempering."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import exp_of
from isdiag._kernels.moments import effective_draws, finite_or_zero, first_at
from isdiag._kernels.records import NEXT_TO_NOTHING
from isdiag._kernels.sums import BLOCK, pad, pair_sums
from isdiag._kernels.survey import extent_of

# With mu(gamma) the mean of h under w^gamma, the steps of the path are Taylor polynomials of mu at gamma,
# evaluated at 1: of order 1 and 2 at 0, of order 1 at 0.4, of order 0 (the tempered estimate) at 0.8. They
# have little variance and an unknown bias; the truncated estimate is moved towards them as far as they do
# not contradict it.
_STEPS = 4
_MIDDLE_GAMMA = 0.4
_CONTRADICTION = 9.0  # squared standard errors of the difference from which a step is not believed


class _Path(NamedTuple):
    """Sums over a row that do not need h: weights, and the log-weights' means and spread under them.

    Log-weights t are relative to the row's largest. Weights are w, w capped, w^0, w^0.4 and w^0.8.
    """

    cap: float  # of w relative to the largest
    s_raw: float
    s_cap: float
    s_zero: float
    s_middle: float
    s_high: float
    t_zero: float
    t_middle: float
    t_variance: float  # at gamma = 0


class _Means(NamedTuple):
    """Means of h - centre under the weights of `_Path`, and its joint cumulants with t."""

    raw: float
    cap: float
    zero: float
    middle: float
    high: float
    zero_1: float
    zero_2: float
    middle_1: float


class _Blocks(NamedTuple):
    """What is known of the draws of a block; 0 where w = 0."""

    t: np.ndarray
    raw: np.ndarray  # w
    capped: np.ndarray
    middle: np.ndarray  # w^0.4, whose square is w^0.8
    value: np.ndarray  # h - centre
    spare: np.ndarray
    cut: np.ndarray  # influence on the truncated estimate
    steps: np.ndarray  # on each step
    plain: np.ndarray  # on the plain estimate


@inner
def _new_blocks():
    return _Blocks(
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty((_STEPS, BLOCK)),
        np.empty(BLOCK),
    )


@inner
def _path_weights(part, high, cap, t, raw, capped, middle):
    """Fill in t, w, w capped and w^0.4; returns how many entries they have."""
    for i in range(part.size):
        positive = part[i] > -np.inf
        t[i] = part[i] - high if positive else 0.0
        value = exp_of(t[i])
        raw[i] = value if positive & (t[i] > NEXT_TO_NOTHING) else 0.0
        capped[i] = min(raw[i], cap)
        value = exp_of(_MIDDLE_GAMMA * t[i])
        middle[i] = value if positive & (_MIDDLE_GAMMA * t[i] > NEXT_TO_NOTHING) else 0.0
    pad(t, part.size)
    pad(raw, part.size)
    pad(capped, part.size)
    return pad(middle, part.size)


@inner
def _path_sums(row, high, cap, n_finite, blocks):
    s_raw = s_cap = s_middle = s_high = t_zero = t_squares = t_middle = 0.0
    t, raw, capped, middle = blocks.t, blocks.raw, blocks.capped, blocks.middle
    for first in range(0, row.size, BLOCK):
        end = _path_weights(row[first : first + BLOCK], high, cap, t, raw, capped, middle)
        a, _, _, _ = pair_sums(raw, raw, end)
        s_raw += a
        a, _, _, _ = pair_sums(capped, capped, end)
        b, bt, bb, _ = pair_sums(middle, t, end)
        c, _, cc, _ = pair_sums(t, t, end)
        s_cap += a
        s_middle += b
        s_high += bb
        t_middle += bt
        t_zero += c
        t_squares += cc
    t_zero /= n_finite
    variance = max(t_squares / n_finite - t_zero * t_zero, 0.0)
    t_middle /= s_middle
    return _Path(cap, s_raw, s_cap, float(n_finite), s_middle, s_high, t_zero, t_middle, variance)


@inner
def block_values(part, h, first, j, d, centre, value):
    """Fill value with h - centre, 0 where w = 0: h is not looked at there."""
    if d == 1:  # a loop that vectorises
        near = h[first : first + part.size]
        for i in range(part.size):
            value[i] = near[i] - centre
    else:
        for i in range(part.size):
            value[i] = h[(first + i) * d + j] - centre
    for i in range(part.size):
        value[i] = value[i] if part[i] > -np.inf else 0.0


@inner
def _known_values(part, h, first, j, d, centre, raw, value):
    """As `block_values`, and 0 too where w is next to nothing and h is not finite."""
    block_values(part, h, first, j, d, centre, value)
    for i in range(part.size):
        value[i] = value[i] if (raw[i] != 0.0) | (abs(value[i]) < np.inf) else 0.0


@inner
def _path_means(row, high, path, h, j, d, centre, blocks):
    m_raw = m_cap = m_zero = m_middle = m_high = zero_1 = zero_2 = middle_1 = 0.0
    t, raw, capped, middle = blocks.t, blocks.raw, blocks.capped, blocks.middle
    value, tilted = blocks.value, blocks.spare
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        end = _path_weights(part, high, path.cap, t, raw, capped, middle)
        _known_values(part, h, first, j, d, centre, raw, value)
        pad(value, part.size)
        _, a, _, _ = pair_sums(value, raw, end)
        m_raw += a
        _, a, _, _ = pair_sums(value, capped, end)
        m_cap += a
        _, a, _, _ = pair_sums(value, middle, end)
        m_middle += a
        for i in range(end):
            tilted[i] = value[i] * middle[i]
        _, a, _, _ = pair_sums(tilted, middle, end)
        m_high += a
        for i in range(end):
            tilted[i] *= t[i] - path.t_middle
        a, _, _, _ = pair_sums(tilted, middle, end)
        middle_1 += a
        for i in range(end):
            t[i] -= path.t_zero
            tilted[i] = value[i] * t[i]
        a, b, _, _ = pair_sums(tilted, t, end)
        zero_1 += a
        zero_2 += b
        a, _, _, _ = pair_sums(value, value, end)
        m_zero += a
    m_zero /= path.s_zero
    return _Means(
        m_raw / path.s_raw,
        m_cap / path.s_cap,
        m_zero,
        m_middle / path.s_middle,
        m_high / path.s_high,
        zero_1 / path.s_zero,
        zero_2 / path.s_zero - m_zero * path.t_variance,
        middle_1 / path.s_middle,
    )


@inner
def _estimates_along(means, x):
    """Fill x with what the steps of the path estimate, less the centre."""
    x[0] = means.zero + means.zero_1
    x[1] = x[0] + 0.5 * means.zero_2
    x[2] = means.middle + (1.0 - _MIDDLE_GAMMA) * means.middle_1
    x[3] = means.high


@inner(fastmath={"contract"})
def _influences(part, high, path, means, h, first, j, d, centre, blocks):
    """Fill in the influence of each draw on the truncated estimate, on the steps, and on the plain estimate.

    Summed over draws influences are 0; their squares sum to the delta-method variance.
    """
    t, raw, capped, middle, value = blocks.t, blocks.raw, blocks.capped, blocks.middle, blocks.value
    end = _path_weights(part, high, path.cap, t, raw, capped, middle)
    _known_values(part, h, first, j, d, centre, raw, value)
    cut, plain, steps = blocks.cut, blocks.plain, blocks.steps
    first_order, second_order, at_middle, at_high = steps[0], steps[1], steps[2], steps[3]
    by_zero, by_middle, by_high = 1.0 / path.s_zero, 1.0 / path.s_middle, 1.0 / path.s_high
    for i in range(part.size):
        positive = part[i] > -np.inf
        cut[i] = capped[i] / path.s_cap * (value[i] - means.cap)
        u = t[i] - path.t_zero
        v = value[i] - means.zero
        order_1 = (v + v * u - means.zero_1) * by_zero
        second = v * u * u - means.zero_2 - v * path.t_variance - 2.0 * u * means.zero_1
        order_2 = order_1 + 0.5 * second * by_zero
        first_order[i] = order_1 if positive else 0.0
        second_order[i] = order_2 if positive else 0.0
        u = t[i] - path.t_middle
        v = value[i] - means.middle
        at_middle[i] = middle[i] * by_middle * (v + (1.0 - _MIDDLE_GAMMA) * (v * u - means.middle_1))
        at_high[i] = middle[i] * middle[i] * by_high * (value[i] - means.high)
        plain[i] = raw[i] / path.s_raw * (value[i] - means.raw)
    for s in range(_STEPS):
        pad(steps[s], part.size)
    pad(cut, part.size)
    pad(plain, part.size)
    return end


@inner
def _shares(means, x, gain, spread, share):
    """Fill share: how far to move to each step. Returns the sum of the shares.

    To move from an estimate of variance V to a step that differs by D, with covariance C, `gain` V - C and
    `spread` W the variance of D, is best by (V - C) / W if the step has no bias. That is tapered to 0 at
    D^2 = 9 W; the first order at 0 is believed no further than the second. The steps are weighted by what
    each would gain.
    """
    taper = np.empty(_STEPS)
    total_weight = 0.0
    for j in range(_STEPS):
        d = means.cap - x[j]
        # Negated, so that a step that is not finite has no share.
        believed = spread[j] > 0.0 and d * d < _CONTRADICTION * spread[j]
        taper[j] = 1.0 - d * d / (_CONTRADICTION * spread[j]) if believed else 0.0
        gain[j] = max(gain[j], 0.0) if believed else 0.0
        share[j] = min(gain[j] / spread[j], 1.0) if believed else 0.0
    taper[0] = min(taper[0], taper[1])
    for j in range(_STEPS):
        share[j] *= taper[j]
        gain[j] *= share[j]
        total_weight += gain[j]
    total = 0.0
    for j in range(_STEPS):
        share[j] = share[j] * gain[j] / total_weight if total_weight > 0.0 else 0.0
        total += share[j]
    return total


@inner
def _least_error(row, high, top, path, h, j, d, blocks, influence):
    """(estimate, standard error, bias, draws behind the error) of component j of h; fills influence.

    Those draws are counted for the plain estimate too, and the smaller number is returned: what truncation
    takes away may be what matters. The standard error is a jackknife's: to leave out a draw of weight
    share q moves a self-normalised estimate by its influence / (1 - q). The bias is that of the plain
    estimate, and how far this one is from it: the former alone has the sign as often right, and a tenth of
    the size.
    """
    centre = finite_or_zero(h[top * d + j])
    means = _path_means(row, high, path, h, j, d, centre, blocks)
    x, share = np.empty(_STEPS), np.empty(_STEPS)
    gain, spread = np.zeros(_STEPS), np.zeros(_STEPS)
    _estimates_along(means, x)
    raw, capped, cut, plain, steps = blocks.raw, blocks.capped, blocks.cut, blocks.plain, blocks.steps
    difference, squared = blocks.value, blocks.spare
    pull = squares = fourths = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        end = _influences(part, high, path, means, h, first, j, d, centre, blocks)
        # V - C and W as sums of products of differences: they may be millions of times smaller than V.
        for s in range(_STEPS):
            for i in range(end):
                difference[i] = cut[i] - steps[s, i]
            _, df, dd, _ = pair_sums(difference, cut, end)
            gain[s] += df
            spread[s] += dd
        _, fw, _, _ = pair_sums(plain, raw, end)
        pull += fw
        for i in range(end):
            squared[i] = plain[i] * plain[i]
        a, _, aa, _ = pair_sums(squared, squared, end)
        squares += a
        fourths += aa
    raw_draws = effective_draws(squares, fourths)
    moved = _shares(means, x, gain, spread, share)
    estimate = means.cap
    for s in range(_STEPS):
        estimate += share[s] * (x[s] - means.cap) if share[s] > 0.0 else 0.0
    squares = fourths = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        end = _influences(part, high, path, means, h, first, j, d, centre, blocks)
        total, left_out = influence[first : first + BLOCK], squared
        for i in range(part.size):
            rest = 1.0 - capped[i] / path.s_cap
            total[i] = (1.0 - moved) * cut[i]
            left_out[i] = total[i] / rest if rest > 0.0 else total[i]
        for s in range(_STEPS):
            if share[s] > 0.0:
                for i in range(part.size):
                    total[i] += share[s] * steps[s, i]
                    left_out[i] += share[s] * steps[s, i]
        for i in range(part.size):
            squared[i] = left_out[i] * left_out[i]
        a, _, aa, _ = pair_sums(squared, squared, pad(squared, part.size))
        squares += a
        fourths += aa
    draws = min(effective_draws(squares, fourths), raw_draws)
    squares *= (path.s_zero - 1.0) / path.s_zero
    bias = estimate - means.raw - pull / path.s_raw
    return centre + estimate, math.sqrt(squares), bias, draws


@entry
def least_error_rows(rows, cap, h, estimate, std_error, bias, error_draws, influence):
    """Estimates of least error of h, h[r] being (n, d) flattened; influence is (rows, d, n)."""
    blocks = _new_blocks()
    d = estimate.shape[1]
    for r in range(rows.shape[0]):
        row = rows[r]
        extent = extent_of(row)
        high = extent.high
        if cap[r] != cap[r]:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            error_draws[r, :] = np.nan
            influence[r, :, :] = np.nan
            continue
        path = _path_sums(row, high, math.exp(cap[r] - high), extent.n_finite, blocks)
        top = first_at(row, high)
        for j in range(d):
            estimate[r, j], std_error[r, j], bias[r, j], error_draws[r, j] = _least_error(
                row, high, top, path, h[r], j, d, blocks, influence[r, j]
            )
