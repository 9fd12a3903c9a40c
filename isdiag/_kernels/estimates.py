"""What a result says of self-normalised estimates, of what sums and tails tell."""

import math

import numpy as np

from isdiag._kernels._jit import entry
from isdiag._kernels.averages import Averages, average_row, log_mean_of, sums_of
from isdiag._kernels.interval import ends_of, first_named, graded, widening
from isdiag._kernels.psis import khat_of
from isdiag._kernels.records import CONSTANT_H
from isdiag._kernels.survey import survey_row
from isdiag._kernels.vector_moments import new_vector_scratch
from isdiag._kernels.workspace import new_workspace


@entry
def store_estimate(
    averages, ess, log_total, variance, n_finite, n, draws, origin, worth, khat, status, student, ranks,
    normalized, of_h, weights,
):  # fmt: skip
    """An `ESTIMATED` for each component of h, (d,), and the `WEIGHED` of a row.

    Of `Averages`, `sums_of` weights, origin what was taken off the log-weights, worth the relative efficiency
    of the weights, status that of the tail. Errors are those of so many draws, (d,) or (1,); of one draw none
    is known.
    """
    alone = n == 1
    log_mean, error = log_mean_of(log_total, variance, n_finite, n)
    weights.ess = ess * worth
    weights.khat = khat
    weights.log_z = log_mean + origin
    weights.log_z_std_error = np.nan if alone else error / math.sqrt(worth)
    weights.error_draws = np.nan
    wider = widening(khat, weights.log_z_std_error if normalized else 0.0)
    for j in range(of_h.size):
        component, value, constant = of_h[j], averages.mean[j], averages.status[j] == CONSTANT_H
        error, carried = (np.nan, np.nan) if alone else (averages.std_error[j], averages.error_draws[j])
        component.estimate = value
        component.std_error = error
        component.bias = np.nan if alone else averages.bias[j]
        of_error = error, averages.skewness[j], averages.error_draws[j], draws[j if draws.size > 1 else 0]
        component.low, component.high = ends_of(value, *of_error, student, wider)
        code = first_named(status, averages.status[j], ranks)
        component.status = first_named(code, graded(carried, constant), ranks)
        if j == 0:
            weights.error_draws = carried


@entry
def estimate_rows(
    mean, std_error, bias, skewness, error_draws, status_h, summed,
    n, draws, origin, worth, khat, status, student, ranks, normalized, found, of_weights,
):  # fmt: skip
    """Records of `ESTIMATED`, (rows, d), and of `WEIGHED`, (rows,), as `store_estimate` makes them.

    The first line is what `moment_rows` gives; draws are (rows, d) or (rows, 1).
    """
    for r in range(n.size):
        averages = Averages(mean[r], std_error[r], bias[r], skewness[r], error_draws[r], status_h[r])
        sums = summed[r]
        store_estimate(
            averages, sums.ess, sums.log_total, sums.variance, sums.n_finite,
            n[r], draws[r], origin[r], worth[r], khat[r], status[r], student, ranks,
            normalized, found[r], of_weights[r],
        )  # fmt: skip


def estimating_rows(survey_row, average_row):
    def snis_rows(rows, n, length, gamma, h, found, of_weights, student, ranks, eps):
        """The same of the weights as they are, taken for those of independent draws, in one go.

        As three kernels, for tails, moments and records, a row of 1000 draws took a third longer.
        """
        d = found.shape[1]
        ws, sums_ws = new_workspace(rows.shape[1], length), new_vector_scratch(rows.shape[1], d)
        numbers, draws = np.empty((5, d)), np.empty(1)
        averages = Averages(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], np.empty(d, np.int8))
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            survey = survey_row(ws, row, length[r])
            khat, status = khat_of(ws, row, survey, n[r], length[r], g, eps)
            s1, s2 = average_row(row, survey, g, h[r], averages, sums_ws)
            ess, log_total, variance = sums_of(row, survey, g, s1, s2, ws.e)
            draws[0] = n[r]
            store_estimate(
                averages, ess, log_total, variance, survey.n_finite,
                n[r], draws, 0.0, 1.0, khat, status, student, ranks,
                True, found[r], of_weights[r],
            )  # fmt: skip

    return snis_rows


snis_rows = entry(estimating_rows(survey_row, average_row))
