"""The predictive density of an observation under weighted draws, and under those that never saw it.

The log-likelihood of an observation comes with the other sign, as its surprise: for leave-one-out that is
the log-weight as well.
"""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import KEY_MAX, KEY_NEG_INF, KEY_TOP, from_order_key, order_key
from isdiag._kernels.functions import exp_of
from isdiag._kernels.gpd import std_error_of_k
from isdiag._kernels.psis import smooth_row
from isdiag._kernels.records import FITTED, NOT_FINITE
from isdiag._kernels.sums import BLOCK, copy, pad, pair_sums
from isdiag._kernels.weights import fill
from isdiag._kernels.workspace import grid_size, new_workspace


class Predicted(NamedTuple):
    defined: bool
    weighted: float  # log of the weighted sum of the likelihoods
    plain: float  # log of their mean


@inner
def _extremes(surprise, log_weights):
    """Keys of the largest and of the smallest log of weight times likelihood, and of the least surprise."""
    high, low, least = KEY_NEG_INF, KEY_TOP, KEY_TOP
    for i in range(surprise.size):
        key = order_key(log_weights[i] - surprise[i])
        high = max(high, key)
        low = min(low, key)
        least = min(least, order_key(surprise[i]))
    return high, low, least


@inner
def predict(surprise, log_weights, e, u):
    """Log of ``sum(weight * likelihood)`` and of ``mean(likelihood)``; e and u are blocks to work in."""
    high, low, least = _extremes(surprise, log_weights)
    if high > KEY_MAX or low < KEY_NEG_INF:  # NaN, of either sign, or +inf
        return Predicted(False, np.nan, np.nan)
    nothing, impossible = high == KEY_NEG_INF, least > KEY_MAX
    top = 0.0 if nothing else from_order_key(high)
    origin = 0.0 if impossible else from_order_key(least)
    weighted = plain = 0.0
    for first in range(0, surprise.size, BLOCK):
        x, lw = surprise[first : first + BLOCK], log_weights[first : first + BLOCK]
        for i in range(x.size):
            e[i] = exp_of(lw[i] - x[i] - top)
            u[i] = exp_of(origin - x[i])
        pad(u, x.size)
        end = pad(e, x.size)
        of_weighted, _, _, _ = pair_sums(e, u, end)
        of_plain, _, _, _ = pair_sums(u, e, end)
        weighted += of_weighted
        plain += of_plain
    log_sum = -np.inf if nothing else top + math.log(weighted)
    log_mean = -np.inf if impossible else math.log(plain / surprise.size) - origin
    return Predicted(True, log_sum, log_mean)


@inner
def write_influence(surprise, log_weights, log_sum, e, out):
    """Write how each draw moves the log of the weighted mean of likelihoods; returns the root of the squares.

    ``weight * (likelihood / mean - 1)``, weights <= 1 and log_sum that of `predict`. out may be surprise.
    """
    squares = 0.0
    for first in range(0, surprise.size, BLOCK):
        x, lw = surprise[first : first + BLOCK], log_weights[first : first + BLOCK]
        # Not into out, which LLVM would not vectorise where it is surprise.
        for i in range(x.size):
            e[i] = exp_of(lw[i] - x[i] - log_sum) - exp_of(lw[i])
        copy(e[: x.size], out[first:])
        _, _, of_block, _ = pair_sums(e, e, pad(e, x.size))
        squares += of_block
    return math.sqrt(squares)


@entry
def predictive_rows(surprise, log_weights, weighted, plain):
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for r in range(surprise.shape[0]):
        found = predict(surprise[r], log_weights[r], e, u)
        weighted[r] = found.weighted
        plain[r] = found.plain


@entry
def leave_one_out_rows(rows, n, length, influence, found, eps):
    """Predict each observation, whose surprises a row holds, by its smoothed weights; `LEFT_OUT` each.

    Its influence may take the place of the row: one is read, then written.
    """
    ws = new_workspace(rows.shape[1], length)
    log_weights = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        row, record = rows[r], found[r]
        smooth_row(ws, row, n[r], length[r], 1.0, log_weights, record, eps, True)
        record.khat_std_error = np.nan
        if record.status in FITTED:
            m = record.tail_length
            size = grid_size(m)
            record.khat_std_error = std_error_of_k(ws.log_lik[:size], ws.k[:size], m, True)
        predicted = predict(row, log_weights, ws.e, ws.u)
        record.elpd = predicted.weighted
        record.lppd = predicted.plain
        if predicted.defined:
            record.error = write_influence(row, log_weights, predicted.weighted, ws.e, influence[r])
        else:
            record.status = NOT_FINITE
            record.khat = record.khat_std_error = record.ess = record.error = np.nan
            fill(influence[r], np.nan)
