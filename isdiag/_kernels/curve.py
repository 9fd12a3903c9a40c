"""Tempered estimates at many gammas in one pass."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.least_error import block_values
from isdiag._kernels.moments import block_weights, finished
from isdiag._kernels.records import OK
from isdiag._kernels.sums import BLOCK, copy, pad, pair_sums
from isdiag._kernels.survey import extent_of


@inner
def _add_to_curve(total, e, a, f, end):
    """Add to the sums of e, e^2, a, a^2, e a, e f and a f."""
    s, sf, ss, _ = pair_sums(e, f, end)
    total[0] += s
    total[1] += ss
    total[5] += sf
    s, se, ss, _ = pair_sums(a, e, end)
    total[2] += s
    total[3] += ss
    total[4] += se
    _, sf, _, _ = pair_sums(a, f, end)
    total[6] += sf


@entry
def curve_rows(rows, h, centre, influence, estimate, std_error, bias, covariance, gammas):
    """Self-normalised estimates at each gamma, their delta-method error and bias: (rows, d, gammas).

    covariance is that of each with what has that influence. Sums are taken about the centre, (rows, d):
    near the estimates no digits are lost.
    """
    e, value, a, f = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    totals = np.empty((gammas.size, 7))
    for r in range(rows.shape[0]):
        row = rows[r]
        extent = extent_of(row)
        stop = row.size if extent.presence == OK else 0
        for j in range(estimate.shape[1]):
            totals[:, :] = 0.0
            for first in range(0, stop, BLOCK):
                part = row[first : first + BLOCK]
                block_values(part, h[r], first, j, estimate.shape[1], centre[r, j], value)
                copy(influence[r, j, first : first + part.size], f)
                end = pad(f, part.size)
                for g in range(gammas.size):
                    block_weights(part, extent.high, gammas[g], e)
                    for i in range(part.size):
                        product = e[i] * value[i]
                        a[i] = product if e[i] != 0.0 else 0.0
                    pad(e, part.size)
                    pad(a, part.size)
                    _add_to_curve(totals[g], e, a, f, end)
            for g in range(gammas.size):
                s1, s2, first_power, squares = totals[g, 0], totals[g, 1], totals[g, 2], totals[g, 3]
                pull, with_one, with_h = totals[g, 4], totals[g, 5], totals[g, 6]
                shift, _, std_error[r, j, g], bias[r, j, g] = finished(s1, s2, first_power, squares, pull)
                estimate[r, j, g] = centre[r, j] + shift
                covariance[r, j, g] = (with_h - shift * with_one) / s1
