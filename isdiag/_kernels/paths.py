"""Weights along the geometric path, and the constants that normalise them."""

import math

import numpy as np

from isdiag._kernels._jit import entry
from isdiag._kernels.divergence_terms import OF_INFLUENCE, new_term_scratch
from isdiag._kernels.divergences import mean_ratio, ratio_terms
from isdiag._kernels.moments import effective_draws
from isdiag._kernels.power_sums import ess_of
from isdiag._kernels.psis import judge_tail
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.survey import khat_without_fit, state_of, survey_row
from isdiag._kernels.tail import Tail, select_tail
from isdiag._kernels.term_averages import Slope, average
from isdiag._kernels.weights import fill, write_tempered
from isdiag._kernels.workspace import new_workspace


@entry
def tail_on_path(ws, row, survey, n, length, gammas, eps):
    """The tail that is fitted at every gamma; none where all are flat."""
    if state_of(survey, n, gammas.max(), eps) == OK:
        return select_tail(ws, row, survey, length)
    return Tail(0, np.nan, np.nan, 0)


@entry
def clear_on_path(survey, n, eps, found, out):
    """What a row without weights to work on has at a gamma."""
    found.status = state_of(survey, n, 1.0, eps)
    found.ess = found.khat = found.log_z_std_error = found.error_draws = np.nan
    found.log_z = -np.inf if survey.presence == NO_WEIGHT else np.nan
    fill(out, found.log_z)


@entry
def terms_on_path(survey, n, gamma):
    return ratio_terms(survey, n, gamma, 0.0, OF_INFLUENCE, 0), Slope(0.0, 0.0)


@entry
def store_on_path(ws, survey, tail, n, length, gamma, averaged, found, eps):
    """Fill a record of `ON_PATH`; the log of the sum of the weights, over the largest."""
    found.status = state_of(survey, n, gamma, eps)
    found.khat = khat_without_fit(found.status)
    if found.status == OK:
        found.status, found.khat, _ = judge_tail(ws, tail, length, gamma)
    answer = averaged.answer
    mean, log = mean_ratio(averaged.terms, answer.mean)
    spread = math.sqrt(answer.squares) / mean  # squares of the mean may be out of range
    found.ess = ess_of(n, n + spread * spread, survey.n_finite)
    found.log_z = gamma * survey.high + log
    alone = n == 1.0 and gamma > 0.0
    found.log_z_std_error = np.nan if alone else spread / n
    found.error_draws = np.nan if alone else effective_draws(answer.squares, answer.fourths)
    return log + math.log(n)


def following(survey_row, average, write_tempered):
    def path_rows(rows, n, length, place, found, log_weights, gammas, eps):
        """Fill records of `ON_PATH`, (rows, gammas), and log_weights[:, place[r]], (gammas, rows, n).

        The row may lie where the last of its weights are written: by then it has been read.
        """
        ws, sums = new_workspace(rows.shape[1], length), new_term_scratch(rows.shape[1])
        for r in range(rows.shape[0]):
            row, draws = rows[r], float(n[r])
            survey = survey_row(ws, row, length[r])
            tail = tail_on_path(ws, row, survey, n[r], length[r], gammas, eps)
            for g in range(gammas.size):
                gamma, at, out = gammas[g], found[r, g], log_weights[g, place[r]]
                if survey.presence != OK:
                    clear_on_path(survey, n[r], eps, at, out)
                    continue
                terms, slope = terms_on_path(survey, draws, gamma)
                averaged = average(row, survey, draws, terms, slope, sums)
                log_total = store_on_path(ws, survey, tail, draws, length[r], gamma, averaged, at, eps)
                write_tempered(row, survey.high, gamma, log_total, out)

    return path_rows


path_rows = entry(following(survey_row, average, write_tempered))
