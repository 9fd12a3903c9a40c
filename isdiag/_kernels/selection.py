"""Choosing gamma: the least of the limits."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.ess_search import LARGEST_GAMMA, search_ess
from isdiag._kernels.power_sums import ess_of, power_sums
from isdiag._kernels.psis import fit_tail, judge_tail
from isdiag._kernels.records import BY_ESS, BY_MAX, BY_NONE, BY_PSIS, FLAT, INFEASIBLE, OK
from isdiag._kernels.refit import refit_psis
from isdiag._kernels.survey import khat_without_fit, state_of, survey_row
from isdiag._kernels.tail import Tail, select_tail
from isdiag._kernels.workspace import new_workspace


@entry
def searches_ess(survey, n, ess_min, eps):
    """Whether the gamma for an ESS has to be searched for."""
    state = state_of(survey, n, 1.0, eps)
    return state == OK and survey.n_finite > 1 and survey.n_finite / n >= ess_min


@inner
def _clear(found, n, state):
    found.gamma = found.gamma_psis = found.gamma_ess = found.khat_tempered = np.nan
    found.ess = found.ess_ratio = np.nan
    found.khat = khat_without_fit(state)
    found.n = n
    found.limited_by = BY_NONE
    found.status = state


@entry
def select_row(ws, row, survey, gamma_ess, ess, length, k_max, found, n, ess_min, gamma_max, eps):
    """Fill in a row of `SELECTION`, given gamma_ess and the ESS there if the row `searches_ess`.

    Returns the gamma at which a pass over the row has yet to tell the ESS; NaN if none.
    """
    n_finite = survey.n_finite
    state = state_of(survey, n, 1.0, eps)
    _clear(found, n, state)
    if survey.presence != OK:
        return np.nan
    tail = Tail(0, np.nan, np.nan, 0)
    if state == OK:
        tail = select_tail(ws, row, survey, length)
        state, found.khat, _ = judge_tail(ws, tail, length, 1.0)
    if n_finite / n < ess_min:
        state, gamma_ess, ess = INFEASIBLE, 0.0, float(n_finite)
    elif state == FLAT or n_finite == 1:
        gamma_ess, ess = gamma_max, np.nan
    elif gamma_ess >= min(gamma_max, LARGEST_GAMMA):
        gamma_ess = gamma_max
    found.gamma_ess = gamma_ess
    found.status = state
    # A khat that is unknown or infinite gives no limit; the status tells.
    khat = found.khat
    found.gamma_psis = max(k_max, 0.0) / khat if 0.0 < khat < np.inf else np.inf
    return _settle(ws, survey, tail, ess, length, found, gamma_max, eps)


@inner
def _settle(ws, survey, tail, ess, length, found, gamma_max, eps):
    """Take the least of the limits, ess being the ESS at gamma_ess; returns as `select_row`."""
    gamma = found.gamma_ess
    found.limited_by = BY_ESS if gamma < gamma_max else BY_MAX
    if found.gamma_psis < gamma:
        gamma, ess, found.limited_by = found.gamma_psis, np.nan, BY_PSIS
    state = state_of(survey, found.n, gamma, eps)
    khat = khat_without_fit(state)
    if state == OK:
        _, khat, _ = fit_tail(ws, tail, length, gamma)
    found.gamma = gamma
    found.khat_tempered = khat
    if gamma == 0.0:
        ess = float(survey.n_finite)
    _store_ess(ess, found)
    return min(gamma, LARGEST_GAMMA) if ess != ess else np.nan


@inner
def _store_ess(ess, found):
    found.ess = ess
    found.ess_ratio = ess / found.n


@entry
def store_kish(survey, s1, s2, found):
    """The ESS that was pending, from the sums of the weights and of their squares."""
    _store_ess(ess_of(s1, s2, survey.n_finite), found)


def selecting(survey_row, search_ess, power_sums):
    def select_rows(rows, n, length, k_max, found, ess_min, gamma_max, eps):
        """A row of `SELECTION` for each row of log-weights."""
        ws = new_workspace(rows.shape[1], length)
        for r in range(rows.shape[0]):
            row = rows[r]
            survey = survey_row(ws, row, length[r])
            gamma_ess, ess = np.nan, np.nan
            if searches_ess(survey, n[r], ess_min, eps):
                gamma_ess, ess = search_ess(ws, row, survey, ess_min * n[r], gamma_max)
            pending = select_row(
                ws, row, survey, gamma_ess, ess, length[r], k_max[r], found[r], n[r], ess_min, gamma_max, eps
            )
            if pending == pending:
                s1, s2 = power_sums(row, survey, pending, ws.e)
                store_kish(survey, s1, s2, found[r])

    return select_rows


select_rows = entry(selecting(survey_row, search_ess, power_sums))


@entry
def refits(chosen):
    """Whether the tail may set a limit."""
    return chosen.status != FLAT and chosen.gamma_ess > 0.0


@entry
def refit_row(ws, row, survey, length, k_max, chosen, gamma_max, eps):
    """Replace the limit that the tail was taken to set; returns as `select_row`."""
    tail = select_tail(ws, row, survey, length)
    chosen.gamma_psis = refit_psis(ws, tail, length, k_max, chosen.gamma_ess, gamma_max)
    ess = chosen.ess if chosen.gamma == chosen.gamma_ess else np.nan
    return _settle(ws, survey, tail, ess, length, chosen, gamma_max, eps)


def refitting(survey_row, power_sums):
    def refit_rows(rows, length, k_max, found, gamma_max, eps):
        """Replace the limit that `select_rows` took the tail to set by that of the re-fitted tail."""
        ws = new_workspace(rows.shape[1], length)
        for r in range(rows.shape[0]):
            if not refits(found[r]):
                continue
            row = rows[r]
            survey = survey_row(ws, row, length[r])
            pending = refit_row(ws, row, survey, length[r], k_max[r], found[r], gamma_max, eps)
            if pending == pending:
                s1, s2 = power_sums(row, survey, pending, ws.e)
                store_kish(survey, s1, s2, found[r])

    return refit_rows


refit_rows = entry(refitting(survey_row, power_sums))
