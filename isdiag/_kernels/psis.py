"""khat and Pareto smoothed weights."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import exp_of, one_minus_exp
from isdiag._kernels.gpd import gpd_fit, smoothed_tail, with_prior
from isdiag._kernels.power_sums import body_sums, ess_of, power_sums
from isdiag._kernels.records import DEGENERATE_TAIL, NO_WEIGHT, OK, TAIL_TOO_SHORT
from isdiag._kernels.survey import khat_without_fit, state_of, survey_row
from isdiag._kernels.tail import MIN_TAIL, select_tail, sort_tail
from isdiag._kernels.weights import less, tempered
from isdiag._kernels.workspace import new_workspace


@inner
def excesses(x, cutoff, gamma, out):
    """exp(gamma x) - exp(gamma cutoff) for cutoff <= x <= 0.

    As exp(b) (1 - exp(a - b)): no digit is lost where weights are nearly equal, nothing overflows where
    they are not, and a draw that ties with the cutoff has excess 0 whatever gamma.
    """
    # Not as a function of one x: LLVM would pack its two exponentials and then not vectorise the loop.
    for i in range(x.size):
        out[i] = one_minus_exp(gamma * (cutoff - x[i])) * exp_of(gamma * x[i])


@inner
def fit_tail(ws, tail, length, gamma):
    """Fit the tail of w^gamma. Returns (status, khat with the prior, sigma)."""
    m = tail.size
    if m < MIN_TAIL:
        if m == 1 and length >= MIN_TAIL:
            return DEGENERATE_TAIL, np.inf, np.nan
        return TAIL_TOO_SHORT, np.nan, np.nan
    excesses(ws.x[:m], tail.cutoff, gamma, ws.excess)
    # w^gamma keeps the order of w, so order statistics are carried over.
    excesses(ws.marks, tail.cutoff, gamma, ws.mark_excess)
    least, quartile, largest = ws.mark_excess[0], ws.mark_excess[1], ws.mark_excess[2]
    fitted, k, sigma = gpd_fit(ws, m, least, quartile, largest)
    if not fitted:
        return DEGENERATE_TAIL, np.inf, np.nan
    return OK, with_prior(k, m), sigma


@entry
def khat_rows(rows, n, length, gamma, khat, status, eps):
    ws = new_workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        row = rows[r]
        survey = survey_row(ws, row, length[r])
        state = state_of(survey, n[r], gamma[r], eps)
        khat[r] = khat_without_fit(state)
        if state == OK and gamma[r] == gamma[r]:
            tail = select_tail(ws, row, survey, length[r])
            state, khat[r], _ = fit_tail(ws, tail, length[r], gamma[r])
        status[r] = state


@inner
def _smoothed_sums(row, high, gamma, tail, x, e):
    """`power_sums` with the tail replaced by x, relative to its largest entry: (s1, s2, that entry)."""
    top = x[-1]
    s1, s2 = body_sums(row, high, gamma, top, tail.least, e)
    a, b = body_sums(x, top, 1.0, 0.0, np.inf, e)
    tied = math.exp(gamma * (tail.least - high) - top)
    return s1 + a + tail.ties * tied, s2 + b + tail.ties * tied * tied, top


@entry
def psis_rows(rows, n, length, gamma, out, found, eps, normalize):
    """Smooth w^gamma; a row of `SMOOTHED` each. Rows may be smoothed in place: one is read, then written."""
    ws = new_workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        row, g, record = rows[r], gamma[r], found[r]
        survey = survey_row(ws, row, length[r])
        state = state_of(survey, n[r], g, eps)
        record.khat = khat_without_fit(state)
        record.tail_length = min(length[r], survey.n_finite)
        record.n = n[r]
        record.status = state
        if survey.presence != OK or g != g:
            out[r, :] = -np.inf if state == NO_WEIGHT else np.nan
            record.ess = np.nan
            continue
        high = survey.high
        smoothed = ws.x[:0]
        top = 0.0
        s1 = s2 = np.nan
        if state == OK:
            tail = select_tail(ws, row, survey, length[r])
            state, record.khat, sigma = fit_tail(ws, tail, length[r], g)
            record.status = state
            if state == OK:
                sort_tail(ws, tail)
                smoothed = ws.x[: tail.size]
                smoothed_tail(record.khat, sigma, tempered(tail.cutoff, g), smoothed)
                s1, s2, top = _smoothed_sums(row, high, g, tail, smoothed, ws.e)
        if smoothed.size == 0:
            s1, s2 = power_sums(row, survey, g, ws.e)
        record.ess = ess_of(s1, s2, survey.n_finite)
        origin = high if normalize else 0.0
        log_total = top + math.log(s1) if normalize else 0.0
        for i in range(row.size):
            out[r, i] = tempered(less(row[i], origin), g) - log_total
        base = g * (high - origin) - log_total
        for i in range(smoothed.size):
            out[r, ws.index[i]] = base + smoothed[i]
