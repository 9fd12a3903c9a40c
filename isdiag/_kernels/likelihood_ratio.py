"""The likelihood ratio test of k <= 1/2, on the excesses of a tail."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import LN_2, fast_log
from isdiag._kernels.gpd import log_products, mean_log1p
from isdiag._kernels.psis import judge_tail
from isdiag._kernels.records import FITTED, FLAT, OK
from isdiag._kernels.sums import pad, pair_sums
from isdiag._kernels.survey import state_of, survey_row
from isdiag._kernels.tail import select_tail
from isdiag._kernels.workspace import new_workspace

_POINTS = 64
_NEAR_0 = 1e-4  # there logs of products of 1 - theta x lose digits
_NARROW = 1e-7  # a likelihood does not tell apart what is nearer to its maximum
_WIDEST = 700.0
_NOTHING = 1e-300  # next to a largest of 1; exponentials are held at 4e-308


@inner
def _fill_logs(ws, x, m, theta, mean_log, spare):
    """Fill mean_log with the means of log(1 - theta x) over m excesses whose largest is 1."""
    log_products(x, theta, mean_log, spare)
    for j in range(theta.size):
        mean_log[j] = (fast_log(mean_log[j]) + spare[j] * LN_2) / m
        if abs(theta[j]) < _NEAR_0:
            mean_log[j] = mean_log1p(ws.lanes, x, theta[j], m)


@inner
def _minus_profiles(ws, x, m, mean, s, theta, k, value):
    """Minus the log-likelihood of each s = log(1 + k / sigma), which covers all k that it allows, over m."""
    for j in range(s.size):
        theta[j] = -math.expm1(s[j])
    _fill_logs(ws, x, m, theta, k, value)
    for j in range(s.size):
        sigma = -k[j] / theta[j] if theta[j] != 0.0 else mean
        value[j] = math.log(sigma) + k[j] + 1.0


@inner
def _minus_at_half(ws, x, m, mean, s, theta, k, value):
    """The same at k = 1/2, of each s = log(sigma)."""
    for j in range(s.size):
        theta[j] = -0.5 * math.exp(-s[j])
    _fill_logs(ws, x, m, theta, k, value)
    for j in range(s.size):
        value[j] = s[j] + 3.0 * k[j]


def _closing_in(fill_values):
    def least(ws, x, m, mean, low, high):
        """(least value between the ends, k there), by grids that close in on it."""
        s, theta, k, value = np.empty(_POINTS), np.empty(_POINTS), np.empty(_POINTS), np.empty(_POINTS)
        while True:
            for j in range(_POINTS):
                s[j] = low + (high - low) * (j / (_POINTS - 1))
            fill_values(ws, x, m, mean, s, theta, k, value)
            at = 0
            for j in range(_POINTS):
                at = j if value[j] < value[at] else at
            low, high = s[max(at - 1, 0)], s[min(at + 1, _POINTS - 1)]
            if not high - low > _NARROW:
                return value[at], k[at]

    return least


_least = inner(_closing_in(_minus_profiles), counted=True)
_least_at_half = inner(_closing_in(_minus_at_half), counted=True)


@inner
def _signed_root(ws, m):
    """(signed root of the likelihood ratio against k = 1/2, k) of m excesses in ws.excess over their largest.

    Below k = -1/2 the likelihood has no interior maximum; very heavy tails give it several: a grid first.
    """
    x = ws.excess[: pad(ws.excess, m)]
    total, _, _, _ = pair_sums(x, x, x.size)
    mean = total / m
    least = 1.0
    for i in range(m):
        x[i] = x[i] if x[i] > _NOTHING else 0.0
        least = min(least, x[i] if x[i] > 0.0 else 1.0)
    width = min(-math.log(least), _WIDEST)
    free, k = _least(ws, x, m, mean, -0.9 * math.log(m), min(width + 3.0, _WIDEST))
    at_half, _ = _least_at_half(ws, x, m, mean, -width, 0.0)
    return math.copysign(math.sqrt(max(2.0 * m * (at_half - free), 0.0)), k - 0.5), k


@entry
def ratio_of_tail(ws, row, survey, n, length, gamma, eps):
    """(statistic, k, status code) of the tail of w^gamma."""
    state = state_of(survey, n, gamma, eps)
    if state == FLAT:
        return -np.inf, -np.inf, state
    if state == OK and gamma == gamma:
        tail = select_tail(ws, row, survey, length)
        state, _, _ = judge_tail(ws, tail, length, gamma)
        if state in FITTED:
            statistic, k = _signed_root(ws, tail.size)
            return statistic, k, state
    return np.nan, np.nan, state


def comparing_tails(survey_row):
    def likelihood_ratio_rows(rows, n, length, gamma, statistic, k, status, eps):
        """Test each row for k <= 1/2."""
        ws = new_workspace(rows.shape[1], length)
        for r in range(rows.shape[0]):
            row = rows[r]
            survey = survey_row(ws, row, length[r])
            found = ratio_of_tail(ws, row, survey, n[r], length[r], gamma[r], eps)
            statistic[r], k[r], status[r] = found

    return likelihood_ratio_rows


likelihood_ratio_rows = entry(comparing_tails(survey_row))
