"""Ends of an interval for a mean whose error is skewed and rests on few draws."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.records import ERROR_ROUGH, ERROR_UNCERTAIN, FEW_ERROR_DRAWS, OK, ROUGH_ERROR_DRAWS

# Intervals are as much wider as so many over the degrees of freedom: n_e is itself seen, and a sample that
# missed the largest weights has too large a one. Chosen on two thirds of the scenarios of a study, see
# docs/explanation/which_rule.md.
_CAUTION = 2.0
# Standard errors of the mean weight that must be less than that mean.
_APART = 2.0


@inner
def _freedom(error_draws, n):
    """Degrees of freedom of a variance that so many of n draws carry.

    Of n draws n_e = (sum f^2)^2 / sum f^4 carry a variance; it varies as one of 2 / (1 / n_e - 1 / n) degrees
    of freedom (Satterthwaite 1946), of n - 1 for a normal f, and no more are claimed.
    """
    variance = max(1.0 / error_draws - 1.0 / n, 2.0 / (n - 1.0))
    return max(2.0 / variance, 1.0) if n > 1.0 else np.nan


@inner
def _quantile_of_student(freedom, student):
    """The quantile of Student's t of at least one degree of freedom, see `isdiag._core.intervals.student`."""
    x = 4.0 / (freedom + 1.0) - 1.0
    last = before = 0.0
    for k in range(student.size - 1, 0, -1):
        last, before = student[k] + 2.0 * x * last - before, last
    return math.exp(student[0] + x * last - before)


@entry
def student_rows(error_draws, n, student, quantile):
    """The quantile of Student's t for an error that so many of n draws carry: (rows, d), n also (rows, 1)."""
    columns = n.shape[1]
    for r in range(error_draws.shape[0]):
        for j in range(error_draws.shape[1]):
            freedom = _freedom(error_draws[r, j], n[r, j if columns > 1 else 0])
            quantile[r, j] = _quantile_of_student(freedom, student)


@inner
def graded(error_draws, constant):
    """Code of an error by how many draws carry it: OK of many, and of what is constant."""
    poor = ERROR_ROUGH if error_draws >= FEW_ERROR_DRAWS else ERROR_UNCERTAIN
    return OK if error_draws >= ROUGH_ERROR_DRAWS or constant else poor


@entry
def grade_errors(error_draws, constant, grade):
    for i in range(grade.size):
        grade[i] = graded(error_draws[i], constant[i])


@inner
def first_named(code, other, ranks):
    return code if ranks[code] < ranks[other] else other


@entry
def name_first(codes, ranks, named):
    """Put codes, (rows, d) or (rows, 1), in the place of those named, (rows, d), that rank after them."""
    columns = codes.shape[1]
    for r in range(named.shape[0]):
        for j in range(named.shape[1]):
            named[r, j] = first_named(codes[r, j if columns > 1 else 0], named[r, j], ranks)


@inner
def _unskewed(x, skewness):
    """The t with ``t + g t^2 / 3 + g^2 t^3 / 27 + g / 6 = x``, g the skewness (Hall 1992)."""
    if abs(skewness) < 1e-6:
        return x - skewness * (x * x / 3.0 + 1.0 / 6.0)
    cube = 1.0 + skewness * (x - skewness / 6.0)
    return 3.0 / skewness * (math.copysign(abs(cube) ** (1.0 / 3.0), cube) - 1.0)


@inner
def widening(khat, mean_error):
    """How much wider an interval is for what the weights are: 1 where they are harmless, inf beyond use.

    A khat above 1/2 says that draws are missing which the error does not know of: 1 / (2 (1 - khat)) does not
    jump there, and from 1 on, where there may be no mean, nothing is said. An infinite khat says no more than
    that the tail cannot be fitted. Of a ratio whose denominator cannot be told from 0 nothing is said either
    (Fieller 1954).
    """
    wider = 1.0
    if 0.5 < khat < np.inf:
        wider = 0.5 / (1.0 - khat) if khat < 1.0 else np.inf
    room = 1.0 - (_APART * mean_error) ** 2
    return wider / math.sqrt(room) if room > 0.0 else np.inf


@inner
def ends_of(estimate, std_error, skewness, error_draws, n, student, wider):
    """Ends of an interval; from -inf to inf where no draw carries an error."""
    if std_error == 0.0 or (wider == np.inf and std_error == std_error):
        return -np.inf, np.inf
    freedom = _freedom(error_draws, n)
    x = _quantile_of_student(freedom, student) * (1.0 + _CAUTION / freedom)
    below, above = std_error * _unskewed(x, skewness), std_error * _unskewed(-x, skewness)
    return estimate - wider * below, estimate - wider * above


@entry
def interval_rows(estimate, std_error, skewness, error_draws, n, student, khat, mean_error, low, high):
    """Ends of the intervals, each (rows, d); n also (rows, 1).

    For each row mean_error is the standard error of the mean weight, over that mean, where an estimate is
    divided by it, else 0.
    """
    columns = n.shape[1]
    for r in range(estimate.shape[0]):
        wider = widening(khat[r], mean_error[r])
        for j in range(estimate.shape[1]):
            of_error = std_error[r, j], skewness[r, j], error_draws[r, j], n[r, j if columns > 1 else 0]
            low[r, j], high[r, j] = ends_of(estimate[r, j], *of_error, student, wider)


@entry
def bounded_rows(found, n, student, normalized, positive, given):
    """A record of `DIVERGED` for each of `DIVERGENCE`, with its interval.

    No end of what is positive is below 0.
    """
    for r in range(found.size):
        f, g = found[r], given[r]
        wider = widening(f.khat, f.mean_error if normalized else 0.0)
        of_error = f.std_error, f.skewness, f.error_draws, n[r]
        low, high = ends_of(f.estimate, *of_error, student, wider)
        g.estimate, g.std_error = f.estimate, f.std_error
        g.khat, g.error_draws, g.status = f.khat, f.error_draws, f.status
        g.low = 0.0 if positive and low < 0.0 else low
        g.high = high
