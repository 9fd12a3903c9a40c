"""What the rule "mse" says: the gamma of least error, and the estimate of least error in the units of h."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.interval import ends_of, first_named, graded, widening
from isdiag._kernels.psis import khat_of
from isdiag._kernels.records import BY_MAX, BY_MSE, BY_NONE, CONSTANT_H, NOT_FINITE_H
from isdiag._kernels.survey import survey_row
from isdiag._kernels.units import times_power_of_two
from isdiag._kernels.workspace import new_workspace


@inner
def _best_gamma(points, status_h, exponent):
    """Where the summed error of the components of h is least, of equals the last; -1 where none is known.

    Errors are added in the units of the row's largest component.
    """
    largest = np.int64(-2000)
    for j in range(exponent.size):
        largest = max(largest, exponent[j])
    best, least = -1, np.inf
    for g in range(points.shape[1]):
        total = 0.0
        finite = False
        for j in range(exponent.size):
            if status_h[j] != NOT_FINITE_H:
                total += times_power_of_two(points[j, g].mse, 2 * (exponent[j] - largest))
                finite = True
        if finite and total < np.inf and total <= least:
            best, least = g, total
    return best


@entry
def accurate_rows(
    rows, n, length, truncated, found, points, status_h, draws, origin, exponent, components, chosen,
    gammas, student, ranks, eps,
):  # fmt: skip
    """Records of `ACCURATE`, (rows, d), and of `CHOSEN`, (rows,).

    Of what `least_error_rows` gives, what became of h, (rows, d), and how many draws the errors are of,
    (rows, d) or (rows, 1). Origin and exponent, (rows, d), are those of the units of h.
    """
    ws = new_workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        row, start, choice = rows[r], truncated[r], chosen[r]
        best = _best_gamma(points[r], status_h[r], exponent[r])
        choice.gamma = gammas[best] if best >= 0 else np.nan
        choice.limited_by = BY_NONE
        if best >= 0:
            choice.limited_by = BY_MAX if best == gammas.size - 1 else BY_MSE
        survey = survey_row(ws, row, length[r])
        choice.khat = start.khat
        choice.khat_tempered, _ = khat_of(ws, row, survey, n[r], length[r], choice.gamma, eps)
        choice.ess = points[r, 0, best].ess if best >= 0 else np.nan
        choice.ess_ratio = choice.ess / max(n[r], 1)
        choice.n = n[r]
        wider = widening(start.khat, 0.0)
        for j in range(found.shape[1]):
            of_h, component, unit, at = found[r, j], components[r, j], exponent[r, j], origin[r, j]
            component.estimate = at + times_power_of_two(of_h.estimate, unit)
            component.std_error = times_power_of_two(of_h.std_error, unit)
            component.bias = times_power_of_two(of_h.bias, unit)
            component.mse = component.std_error**2 + component.bias**2
            component.error_draws = of_h.error_draws
            size = draws[r, j if draws.shape[1] > 1 else 0]
            of_error = of_h.std_error, of_h.skewness, of_h.error_draws, size
            low, high = ends_of(of_h.estimate, *of_error, student, wider)
            component.low, component.high = (
                at + times_power_of_two(low, unit),
                at + times_power_of_two(high, unit),
            )
            code = first_named(start.status, status_h[r, j], ranks)
            grade = graded(of_h.error_draws, status_h[r, j] == CONSTANT_H)
            component.status = first_named(code, grade, ranks)
