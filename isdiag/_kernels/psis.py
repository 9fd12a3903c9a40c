"""khat and Pareto smoothed weights."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import exp_of, one_minus_exp
from isdiag._kernels.gpd import fits_poorly, gpd_fit, smoothed_tail, with_prior, without_prior
from isdiag._kernels.power_sums import body_sums, ess_of
from isdiag._kernels.records import (
    DEGENERATE_TAIL,
    FITTED,
    NO_WEIGHT,
    OK,
    POOR_TAIL_FIT,
    TAIL_TOO_SHORT,
)
from isdiag._kernels.sums import NO_DRAWS, pad
from isdiag._kernels.survey import khat_without_fit, state_of, survey_row
from isdiag._kernels.tail import MIN_TAIL, select_tail, sort_tail
from isdiag._kernels.weights import fill, tempered, write_tempered
from isdiag._kernels.workspace import new_workspace


@inner
def excesses(x, cutoff, gamma, unit, out):
    """exp(gamma x) - exp(gamma cutoff) for cutoff <= x <= 0, over a unit.

    As exp(b) (1 - exp(a - b)): no digit is lost where weights are nearly equal, nothing overflows where
    they are not, and a draw that ties with the cutoff has excess 0 whatever gamma.
    """
    # Not as a function of one x: LLVM would pack its two exponentials and then not vectorise the loop.
    for i in range(x.size):
        out[i] = one_minus_exp(gamma * (cutoff - x[i])) * exp_of(gamma * x[i]) / unit


@inner
def fit_tail(ws, tail, length, gamma):
    """Fit the tail of w^gamma. Returns (status, khat with the prior, sigma)."""
    m = tail.size
    if m < MIN_TAIL:
        if m == 1 and length >= MIN_TAIL:
            return DEGENERATE_TAIL, np.inf, np.nan
        return TAIL_TOO_SHORT, np.nan, np.nan
    # w^gamma keeps the order of w, so order statistics are carried over.
    excesses(ws.marks, tail.cutoff, gamma, 1.0, ws.mark_excess)
    least, quartile, largest = ws.mark_excess[0], ws.mark_excess[1], ws.mark_excess[2]
    excesses(ws.x[: pad(ws.x, m)], tail.cutoff, gamma, largest, ws.excess)
    fitted, k, sigma = gpd_fit(ws, m, least, quartile, largest)
    if not fitted:
        return DEGENERATE_TAIL, np.inf, np.nan
    return OK, with_prior(k, m), sigma


@inner
def judge_tail(ws, tail, length, gamma):
    """As `fit_tail`, with POOR_TAIL_FIT where the tail does not look like the law that was fitted to it."""
    status, khat, sigma = fit_tail(ws, tail, length, gamma)
    m = tail.size
    if status == OK and fits_poorly(ws, m, without_prior(khat, m), sigma / ws.mark_excess[2]):
        status = POOR_TAIL_FIT
    return status, khat, sigma


@entry
def khat_of(ws, row, survey, n, length, gamma, eps):
    """(khat of w^gamma, status code)."""
    state = state_of(survey, n, gamma, eps)
    if state != OK or gamma != gamma:
        return khat_without_fit(state), state
    tail = select_tail(ws, row, survey, length)
    state, khat, _ = judge_tail(ws, tail, length, gamma)
    return khat, state


def measuring_tails(survey_row):
    def khat_rows(rows, n, length, gamma, khat, status, eps):
        ws = new_workspace(rows.shape[1], length)
        for r in range(rows.shape[0]):
            row = rows[r]
            survey = survey_row(ws, row, length[r])
            khat[r], status[r] = khat_of(ws, row, survey, n[r], length[r], gamma[r], eps)

    return khat_rows


khat_rows = entry(measuring_tails(survey_row))


class Smoothed(NamedTuple):
    """What replaces the tail: ws.x[:size], relative to the largest entry of the row times gamma.

    Where nothing is replaced the size is 0 and every draw is below.
    """

    size: int
    top: float  # the largest of them
    below: float  # what is smaller stays as it is
    ties: int  # how many draws equal that and stay as well


@entry
def smooth_tail(ws, row, survey, n, length, gamma, record, eps):
    """Fit and smooth the tail of w^gamma; all of the record but its ESS."""
    state = state_of(survey, n, gamma, eps)
    record.khat = khat_without_fit(state)
    record.tail_length = min(length, survey.n_finite)
    record.n = n
    record.status = state
    record.ess = np.nan
    if state == OK and gamma == gamma:
        tail = select_tail(ws, row, survey, length)
        record.status, record.khat, sigma = judge_tail(ws, tail, length, gamma)
        if record.status in FITTED:
            sort_tail(ws, tail)
            x = ws.x[: tail.size]
            smoothed_tail(record.khat, sigma, tempered(tail.cutoff, gamma), x)
            return Smoothed(tail.size, x[tail.size - 1], tail.least, tail.ties)
    return Smoothed(NO_DRAWS, 0.0, np.inf, NO_DRAWS)


@entry
def finish_smoothing(ws, survey, gamma, smoothed, s1, s2, record, normalize):
    """Add the tail to the sums of the body; returns an origin, and the log total less it."""
    top = smoothed.top
    if smoothed.size > 0:
        a, b = body_sums(ws.x[: smoothed.size], top, 1.0, 0.0, np.inf, ws.e)
        tied = math.exp(gamma * (smoothed.below - survey.high) - top)
        s1 = s1 + a + smoothed.ties * tied
        s2 = s2 + b + smoothed.ties * tied * tied
    record.ess = ess_of(s1, s2, survey.n_finite)
    return (survey.high, top + math.log(s1)) if normalize else (0.0, 0.0)


@entry
def place_tail(ws, smoothed, base, out):
    for i in range(smoothed.size):
        out[ws.index[i]] = base + ws.x[i]


def smoothing_row(survey_row, body_sums, write_tempered):
    def smooth_row(ws, row, n, length, gamma, out, record, eps, normalize):
        """Smooth w^gamma; fill a record of `SMOOTHED`. In place if row is out: one is read, then written."""
        survey = survey_row(ws, row, length)
        smoothed = smooth_tail(ws, row, survey, n, length, gamma, record, eps)
        if survey.presence != OK or gamma != gamma:
            fill(out, -np.inf if survey.presence == NO_WEIGHT else np.nan)
            return
        s1 = s2 = float(survey.n_finite)
        if gamma > 0.0:
            s1, s2 = body_sums(row, survey.high, gamma, smoothed.top, smoothed.below, ws.e)
        origin, log_total = finish_smoothing(ws, survey, gamma, smoothed, s1, s2, record, normalize)
        write_tempered(row, origin, gamma, log_total, out)
        place_tail(ws, smoothed, gamma * (survey.high - origin) - log_total, out)

    return smooth_row


def smoothing(smooth_row):
    def psis_rows(rows, n, length, gamma, out, found, eps, normalize):
        ws = new_workspace(rows.shape[1], length)
        for r in range(rows.shape[0]):
            smooth_row(ws, rows[r], n[r], length[r], gamma[r], out[r], found[r], eps, normalize)

    return psis_rows


smooth_row = inner(smoothing_row(survey_row, body_sums, write_tempered))
psis_rows = entry(smoothing(smooth_row))
