"""The estimate of least error: truncation, shrunk along the path of tempering."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.curve import SUMS_AT_GAMMA, add_to_curve, begin_curve, next_weights, place_on_curve
from isdiag._kernels.functions import exp_of
from isdiag._kernels.moments import effective_draws, finite_or_zero, skewness_of
from isdiag._kernels.psis import judge_tail
from isdiag._kernels.records import NEXT_TO_NOTHING, OK
from isdiag._kernels.sums import copy, pad, pair_sums, product_sum, square_sums
from isdiag._kernels.survey import khat_without_fit, state_of, survey_row
from isdiag._kernels.tail import Tail, select_tail
from isdiag._kernels.truncation import cap_of
from isdiag._kernels.workspace import new_workspace

# With mu(gamma) the mean of h under w^gamma, the steps of the path are Taylor polynomials of mu at gamma,
# evaluated at 1: of order 1 and 2 at 0, of order 1 at 3/8, of order 0 (the tempered estimate) at 3/4. They
# have little variance and an unknown bias; the truncated estimate is moved towards them as far as they do
# not contradict it.
_STEPS = 4
_MIDDLE_GAMMA = 0.375
_CONTRADICTION = 9.0  # squared standard errors of the difference from which a step is not believed


# Fifteen blocks of so many draws fit into the first cache; a sixth less time than with `sums.BLOCK`.
_BLOCK = 256


class _Path(NamedTuple):
    """Sums over a row that do not need h: weights, and the log-weights' means and spread under them.

    Log-weights t are relative to the row's largest. Weights are w, w^0, w^(3/8) and w^(3/4).
    """

    high: float
    s_raw: float
    s_zero: float
    s_middle: float
    s_high: float
    t_zero: float
    t_middle: float
    t_variance: float  # at gamma = 0


class _Means(NamedTuple):
    """Means of h - origin under the weights of `_Path` and w capped, and its joint cumulants with t."""

    level: float  # the cap, of w next to the largest
    s_cap: float
    raw: float
    cap: float
    zero: float
    middle: float
    high: float
    zero_1: float
    zero_2: float
    middle_1: float


class _Component(NamedTuple):
    """One of the d components of h, which is (n, d) flattened, and its value at the largest weight."""

    h: np.ndarray
    j: int
    d: int
    origin: float


class _Blocks(NamedTuple):
    """What is known of the draws of a block; 0 where w = 0."""

    t: np.ndarray
    raw: np.ndarray  # w
    middle: np.ndarray  # w^(3/8), whose square is w^(3/4)
    capped: np.ndarray
    value: np.ndarray  # h - origin
    spare: np.ndarray
    cut: np.ndarray  # influence on the truncated estimate
    off: np.ndarray  # less those on each step
    plain: np.ndarray  # influence on the plain estimate
    total: np.ndarray  # on that of least error
    e: np.ndarray  # w^gamma
    ratio: np.ndarray  # what it is multiplied by for the next gamma


@inner(counted=True)
def _new_blocks():
    return _Blocks(
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty((_STEPS, _BLOCK)),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
    )


@inner(fastmath={"contract"})
def _path_weights(part, high, t, raw, middle):
    """Fill in t, w and w^(3/8), powers of one exponential; returns how many entries they have."""
    for i in range(part.size):
        positive = part[i] > -np.inf
        t[i] = part[i] - high if positive else 0.0
        root = exp_of(0.125 * t[i])
        square = root * root
        fourth = square * square
        raw[i] = fourth * fourth if positive & (t[i] > NEXT_TO_NOTHING) else 0.0
        middle[i] = square * root if positive & (_MIDDLE_GAMMA * t[i] > NEXT_TO_NOTHING) else 0.0
    pad(t, part.size)
    pad(raw, part.size)
    return pad(middle, part.size)


@inner
def _path_sums(row, high, n_finite, blocks):
    s_raw = s_middle = s_high = t_zero = t_squares = t_middle = 0.0
    t, raw, middle = blocks.t, blocks.raw, blocks.middle
    for first in range(0, row.size, _BLOCK):
        end = _path_weights(row[first : first + _BLOCK], high, t, raw, middle)
        a, _, _, _ = pair_sums(raw, t, end)
        b, bt, bb, _ = pair_sums(middle, t, end)
        c, _, cc, _ = pair_sums(t, t, end)
        s_raw += a
        s_middle += b
        s_high += bb
        t_middle += bt
        t_zero += c
        t_squares += cc
    t_zero /= n_finite
    variance = max(t_squares / n_finite - t_zero * t_zero, 0.0)
    return _Path(high, s_raw, float(n_finite), s_middle, s_high, t_zero, t_middle / s_middle, variance)


@inner
def _block_values(part, of_h, first, value):
    """Fill value with h - origin, 0 where w = 0: h is not looked at there."""
    h, j, d, origin = of_h
    if d == 1:  # a loop that vectorises
        near = h[first : first + part.size]
        for i in range(part.size):
            value[i] = near[i] - origin if part[i] > -np.inf else 0.0
    else:
        for i in range(part.size):
            value[i] = h[(first + i) * d + j] - origin if part[i] > -np.inf else 0.0
    pad(value, part.size)


@inner
def _known_values(part, of_h, first, raw, value):
    """As `_block_values`, and 0 too where w is next to nothing and h is not finite."""
    _block_values(part, of_h, first, value)
    for i in range(part.size):
        value[i] = value[i] if (raw[i] != 0.0) | (abs(value[i]) < np.inf) else 0.0


@inner
def _path_means(row, path, level, of_h, blocks):
    s_cap = m_raw = m_cap = m_zero = m_middle = m_high = zero_1 = zero_2 = middle_1 = 0.0
    t, raw, middle, capped = blocks.t, blocks.raw, blocks.middle, blocks.capped
    value, tilted = blocks.value, blocks.spare
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _path_weights(part, path.high, t, raw, middle)
        _known_values(part, of_h, first, raw, value)
        for i in range(end):
            capped[i] = min(raw[i], level)
            tilted[i] = value[i] * middle[i]
        a, b, _, _ = pair_sums(value, capped, end)
        m_zero += a
        m_cap += b
        a, b, _, _ = pair_sums(tilted, middle, end)
        m_middle += a
        m_high += b
        m_raw += product_sum(value, raw, end)[0]
        a, _, _, _ = pair_sums(capped, raw, end)
        s_cap += a
        for i in range(end):
            tilted[i] *= t[i] - path.t_middle
        a, _, _, _ = pair_sums(tilted, t, end)
        middle_1 += a
        for i in range(end):
            t[i] -= path.t_zero
            tilted[i] = value[i] * t[i]
        a, b, _, _ = pair_sums(tilted, t, end)
        zero_1 += a
        zero_2 += b
    m_zero /= path.s_zero
    return _Means(
        level,
        s_cap,
        m_raw / path.s_raw,
        m_cap / s_cap,
        m_zero,
        m_middle / path.s_middle,
        m_high / path.s_high,
        zero_1 / path.s_zero,
        zero_2 / path.s_zero - m_zero * path.t_variance,
        middle_1 / path.s_middle,
    )


@inner
def _estimates_along(means, x):
    """Fill x with what the steps of the path estimate, less the origin."""
    x[0] = means.zero + means.zero_1
    x[1] = x[0] + 0.5 * means.zero_2
    x[2] = means.middle + (1.0 - _MIDDLE_GAMMA) * means.middle_1
    x[3] = means.high


@inner  # contracted, the difference of equal influences would be what their product rounds off
def _influences(part, path, means, of_h, first, blocks):
    """Fill in the influence of each draw on the truncated and the plain estimate, and how the steps' differ.

    Summed over draws influences are 0; their squares sum to the delta-method variance.
    """
    t, raw, middle, value = blocks.t, blocks.raw, blocks.middle, blocks.value
    end = _path_weights(part, path.high, t, raw, middle)
    _known_values(part, of_h, first, raw, value)
    cut, plain, off = blocks.cut, blocks.plain, blocks.off
    first_order, second_order, at_middle, at_high = off[0], off[1], off[2], off[3]
    by_cap, by_raw = 1.0 / means.s_cap, 1.0 / path.s_raw
    by_zero, by_middle, by_high = 1.0 / path.s_zero, 1.0 / path.s_middle, 1.0 / path.s_high
    # A loop for each: LLVM vectorises none that writes several of so many arrays.
    for i in range(part.size):
        plain[i] = raw[i] * by_raw * (value[i] - means.raw)
    for i in range(part.size):
        cut[i] = min(raw[i], means.level) * by_cap * (value[i] - means.cap)
    for i in range(part.size):
        u, v = t[i] - path.t_zero, value[i] - means.zero
        of_step = (v + v * u - means.zero_1) * by_zero
        first_order[i] = cut[i] - (of_step if part[i] > -np.inf else 0.0)
    for i in range(part.size):
        u, v = t[i] - path.t_zero, value[i] - means.zero
        of_step = v * (u * u - path.t_variance) - means.zero_2 - 2.0 * u * means.zero_1
        second_order[i] = first_order[i] - (0.5 * of_step * by_zero if part[i] > -np.inf else 0.0)
    for i in range(part.size):
        u, v = t[i] - path.t_middle, value[i] - means.middle
        of_step = v + (1.0 - _MIDDLE_GAMMA) * (v * u - means.middle_1)
        at_middle[i] = cut[i] - middle[i] * by_middle * of_step
    for i in range(part.size):
        at_high[i] = cut[i] - middle[i] * middle[i] * by_high * (value[i] - means.high)
    for s in range(_STEPS):
        pad(off[s], part.size)
    pad(cut, part.size)
    pad(plain, part.size)
    return end


@inner(counted=True)
def _shares(means, x, gain, spread, share):
    """Fill share: how far to move to each step.

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
    for j in range(_STEPS):
        share[j] = share[j] * gain[j] / total_weight if total_weight > 0.0 else 0.0


@inner(counted=True)
def _move(row, path, means, of_h, blocks, share):
    """Fill share; returns (estimate, bias of the plain estimate, draws behind the error of that)."""
    x, gain, spread = np.empty(_STEPS), np.zeros(_STEPS), np.zeros(_STEPS)
    _estimates_along(means, x)
    raw, cut, off, plain, squared = blocks.raw, blocks.cut, blocks.off, blocks.plain, blocks.spare
    pull = squares = fourths = 0.0
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _influences(part, path, means, of_h, first, blocks)
        # V - C and W as sums of products of differences: they may be millions of times smaller than V.
        for s in range(_STEPS):
            a, b = square_sums(off[s], cut, end)
            spread[s] += a
            gain[s] += b
        a, b = square_sums(plain, raw, end)
        squares += a
        pull += b
        for i in range(end):
            squared[i] = plain[i] * plain[i]
        fourths += product_sum(squared, squared, end)[0]
    _shares(means, x, gain, spread, share)
    estimate = means.cap
    for s in range(_STEPS):
        estimate += share[s] * (x[s] - means.cap) if share[s] > 0.0 else 0.0
    return estimate, -pull / path.s_raw, effective_draws(squares, fourths)


@inner
def _total_influence(share, means, blocks, end):
    """Fill total, and spare with how far the estimate moves when that draw is left out.

    A draw of weight share q moves a self-normalised estimate by its influence / (1 - q).
    """
    total, left_out, cut, off, raw = blocks.total, blocks.spare, blocks.cut, blocks.off, blocks.raw
    for i in range(end):
        total[i] = cut[i]
    stay = 1.0
    for s in range(_STEPS):
        if share[s] > 0.0:
            stay -= share[s]
            for i in range(end):
                total[i] -= share[s] * off[s, i]
    by_cap = 1.0 / means.s_cap
    for i in range(end):
        q = min(raw[i], means.level) * by_cap
        left_out[i] = total[i] + (stay * cut[i] * q / (1.0 - q) if q < 1.0 else 0.0)


@inner(counted=True)
def _least_error(row, path, level, of_h, gammas, blocks, sums, found, points, influence):
    """Fill in a record of `LEAST_ERROR`, those of `ON_CURVE` beside it, and influence if it has room.

    The draws behind the error are counted for the plain estimate too, and the smaller number is told: what
    truncation takes away may be what matters. The standard error is a jackknife's. The bias is that of the
    plain estimate, and how far this one is from it: the former alone has the sign as often right, and a
    tenth of the size.
    """
    share = np.empty(_STEPS)
    means = _path_means(row, path, level, of_h, blocks)
    estimate, bias, raw_draws = _move(row, path, means, of_h, blocks, share)
    centre = finite_or_zero(estimate)
    total, spare, value, e, ratio = blocks.total, blocks.spare, blocks.value, blocks.e, blocks.ratio
    step = gammas[1] - gammas[0] if gammas.size > 1 else 0.0
    sums[:, :] = 0.0
    squares = fourths = variance = cubes = 0.0
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _influences(part, path, means, of_h, first, blocks)
        _total_influence(share, means, blocks, end)
        for i in range(end):
            spare[i] *= spare[i]
        a, _, aa, _ = pair_sums(spare, spare, end)
        squares += a
        fourths += aa
        for i in range(end):
            spare[i] = total[i] * total[i]
        _, aaa, aa, _ = pair_sums(total, spare, end)
        variance += aa
        cubes += aaa
        if influence.size > 0:
            copy(total[: part.size], influence[first:])
        _block_values(part, of_h, first, value)
        for i in range(part.size):
            value[i] -= centre
        begin_curve(part, path.high, step, e, ratio)
        for g in range(gammas.size):
            next_weights(part, path.high, gammas, g, step, ratio, e)
            add_to_curve(sums[g], e, value, total, spare, part.size)
    found.estimate = estimate
    found.std_error = math.sqrt(squares * (path.s_zero - 1.0) / path.s_zero)
    found.bias = estimate - means.raw + bias
    found.skewness = skewness_of(variance, cubes)
    found.error_draws = min(effective_draws(squares, fourths), raw_draws)
    for g in range(gammas.size):
        place_on_curve(sums[g], centre, path.s_zero, estimate, variance, points[g])


@inner
def _clear(found, points):
    for j in range(found.size):
        of_h = found[j]
        of_h.estimate = of_h.std_error = of_h.bias = of_h.skewness = of_h.error_draws = np.nan
        for g in range(points.shape[1]):
            point = points[j, g]
            point.estimate = point.std_error = point.bias = point.ess = np.nan
            point.tempering_bias = point.tempering_bias_std_error = point.mse = np.nan


@entry
def least_error_rows(rows, n, length, h, origin, truncated, found, points, influence, gammas, eps):
    """Estimates of least error of h, and tempered ones beside them.

    Those are of h - origin, h[r] being (n, d) flattened and origin its value at the largest weight. found is
    (rows, d), points (rows, d, gammas); influence is (rows, d, n), or (rows, d, 0) where it is not asked for.
    """
    ws, blocks = new_workspace(rows.shape[1], length), _new_blocks()
    sums = np.empty((gammas.size, SUMS_AT_GAMMA))
    for r in range(rows.shape[0]):
        row, start = rows[r], truncated[r]
        survey = survey_row(ws, row, length[r])
        state = state_of(survey, n[r], 1.0, eps)
        start.presence, start.status, start.khat, start.cap = survey.presence, state, np.nan, np.nan
        if survey.presence != OK:
            _clear(found[r], points[r])
            influence[r, :, :] = np.nan
            continue
        start.khat = khat_without_fit(state)
        tail = Tail(0, np.nan, np.nan, 0)
        if state == OK:
            tail = select_tail(ws, row, survey, length[r])
            start.status, start.khat, _ = judge_tail(ws, tail, length[r], 1.0)
        path = _path_sums(row, survey.high, survey.n_finite, blocks)
        log_cap = cap_of(ws, row, survey, tail, math.log(path.s_raw), n[r], eps)
        start.cap = survey.high + log_cap
        level, d = math.exp(log_cap), found.shape[1]
        for j in range(d):
            of_h, into = _Component(h[r], j, d, origin[r, j]), influence[r, j]
            _least_error(row, path, level, of_h, gammas, blocks, sums, found[r, j], points[r, j], into)
