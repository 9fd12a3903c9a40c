"""What each draw adds to an estimate, and the power sums that tell the error it makes."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import LOWEST, exp2, rate_of
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK, SEGMENT, pad, pair_sums
from isdiag._kernels.survey import extent_of


@entry
def relative_rows(rows, gamma, relative, top):
    """Fill in w^gamma over the largest of each row, 0 where it is none next to that, and the log of that one.

    Rows without weights or gamma are 0; top is -inf where there is no weight, NaN where it is not known.
    """
    for r in range(rows.shape[0]):
        row, g, out = rows[r], gamma[r], relative[r]
        extent = extent_of(row)
        top[r] = -np.inf if extent.presence == NO_WEIGHT else np.nan
        known = extent.presence == OK and g == g
        top[r] = g * extent.high if known else top[r]
        rate = rate_of(g)
        for i in range(row.size):
            v = rate * (row[i] - extent.high)
            value = exp2(min(v, 0.0))
            out[i] = value if known & (row[i] > -np.inf) & (v > LOWEST) else 0.0


@inner
def _gather(h, first, stride, count, u):
    """Fill u with h[first], h[first + stride], ..."""
    if stride == 1:
        for i in range(count):
            u[i] = h[first + i]
    else:
        for i in range(count):
            u[i] = h[first + i * stride]


@inner
def _weighted_mean(w, h, origin, j, d, e, u):
    """The sum of w, and the mean under it of h, component j of d, from an origin; anything where w is 0."""
    total = once = 0.0
    for start in range(0, w.size, SEGMENT):
        of_segment = of_values = 0.0
        for at in range(start, min(start + SEGMENT, w.size), BLOCK):
            part = w[at : at + BLOCK]
            _gather(h, at * d + j, d, part.size, u)
            for i in range(part.size):
                e[i] = part[i]
                u[i] = u[i] - origin if part[i] > 0.0 else 0.0
            pad(u, part.size)
            a, b, _, _ = pair_sums(e, u, pad(e, part.size))
            of_segment += a
            of_values += b
        total += of_segment
        once += of_values
    return total, once / total


@entry
def influence_rows(relative, h, origin, influence):
    """Fill in wbar (h - mean), (rows, d, n), wbar being the weights over their sum, h[r] (n, d) flattened.

    The mean is that of h under the weights, found from origin[r, j]. A draw of zero weight is not looked at,
    and has no influence. Of one component the influence may be written over the weights.
    """
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    d = influence.shape[1]
    for r in range(relative.shape[0]):
        w = relative[r]
        for j in range(d):
            start = origin[r, j]
            total, mean = _weighted_mean(w, h[r], start, j, d, e, u)
            share = 1.0 / total
            for at in range(0, w.size, BLOCK):
                part, out = w[at : at + BLOCK], influence[r, j, at : at + BLOCK]
                _gather(h[r], at * d + j, d, part.size, u)
                for i in range(part.size):
                    value = part[i] * share * (u[i] - start - mean)
                    out[i] = value if part[i] > 0.0 else 0.0


@entry
def power_sum_rows(f, unit, sums):
    """Fill sums[r] with those of f^2, f^3 and f^4 over a row, f in that unit."""
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for r in range(f.shape[0]):
        row, scale = f[r], 1.0 / unit[r]
        sums[r, 0] = sums[r, 1] = sums[r, 2] = 0.0
        for start in range(0, row.size, SEGMENT):
            second = third = fourth = 0.0
            for at in range(start, min(start + SEGMENT, row.size), BLOCK):
                part = row[at : at + BLOCK]
                for i in range(part.size):
                    value = scale * part[i]
                    e[i] = value
                    u[i] = value * value
                pad(u, part.size)
                _, b, a, c = pair_sums(e, u, pad(e, part.size))
                second += a
                third += b
                fourth += c
            sums[r, 0] += second
            sums[r, 1] += third
            sums[r, 2] += fourth
