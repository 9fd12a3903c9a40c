"""Estimates by the regression of w h on w, where w has its expectation."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import exponent_of
from isdiag._kernels.interval import ends_of, first_named, graded, widening
from isdiag._kernels.records import CONSTANT_H, NO_WEIGHT, NOT_FINITE, NOT_FINITE_H, OK
from isdiag._kernels.units import scaled, times_power_of_two


@inner
def _at_expectation(fit, plain, coefficient, near, top, exponent, expected):
    """The regression where w^gamma has its expectation.

    Where both means are of one size their difference is taken of what each is more than the largest weight:
    of nearly equal weights no digit of it is lost. Elsewhere either may be beyond float64.
    """
    rise = expected.top - top
    if abs(rise) < 1.0:
        difference = fit.less_one - expected.less_one * math.exp(rise) - math.expm1(rise)
        return scaled(plain - coefficient * difference, top, exponent)
    # Without what the centre of h would add and take away.
    share, mean = expected.share, fit.mean_weight
    at_zero = fit.average - share * fit.slope * mean + (1.0 - share) * fit.centre * mean
    return scaled(at_zero, top, exponent) + scaled(near * expected.mean_weight, expected.top, 0)


@inner
def _store(fit, n, top, expected, found):
    """Fill in what a `CONTROLLED` says of independent draws; the centre of h adds its multiple of w.

    To the estimate that of E_mu[w^gamma], to the slope itself.
    """
    exponent = -exponent_of(fit.scale)
    plain = fit.average + fit.centre * fit.mean_weight
    slope = fit.slope + fit.centre
    coefficient = expected.share * slope
    near = times_power_of_two(coefficient, exponent)
    left = fit.squares / (n - 2.0) if n > 2.0 else np.nan
    by_second = (1.0 - expected.share) * slope**2 * fit.spread / max(n - 1.0, 1.0)
    variance = (fit.variance if fit.is_flat else left) + by_second
    found.estimate = _at_expectation(fit, plain, coefficient, near, top, exponent, expected)
    found.plain = scaled(plain, top, exponent)
    found.coefficient = near
    found.std_error_plain = scaled(math.sqrt(fit.variance / n), top, exponent)
    found.std_error = scaled(math.sqrt(variance / n), top, exponent)
    found.error_draws = fit.error_draws


@inner
def _erase(found):
    found.estimate = found.plain = found.coefficient = found.std_error_plain = np.nan
    found.std_error = found.error_draws = np.nan


@entry
def control_rows(
    fits, expected, n, top, gamma, khat, status, presence, off, along, found, of_rows, student, ranks
):
    """A `CONTROLLED` for each `REGRESSION`, (rows, d), and the khat of each row.

    Of each row an `EXPECTED`, the log of its largest weight, the status of its tail, whether there are
    weights in what is expected, and whether their mean is far from it. Along is (4, rows, d) for draws of
    chains: what they are worth for the plain estimate, and `chains.along_chains` for the other; else empty.
    """
    for r in range(n.size):
        known = max(status[r] if status[r] <= NOT_FINITE else OK, presence[r])
        unknown = (
            known >= NO_WEIGHT or gamma[r] != gamma[r] or expected[r].mean_weight != expected[r].mean_weight
        )
        of_rows[r].khat = np.nan if unknown else khat[r]
        wider = widening(of_rows[r].khat, 0.0)
        for j in range(fits.shape[1]):
            fit, given = fits[r, j], found[r, j]
            _store(fit, max(n[r], 1.0), top[r], expected[r], given)
            skewness, draws, of_h = fit.skewness, float(n[r]), fit.status
            if along.size > 0:
                given.std_error_plain /= math.sqrt(along[0, r, j])
                given.std_error /= math.sqrt(along[1, r, j])
                skewness, given.error_draws = along[2, r, j], along[3, r, j]
                draws *= along[1, r, j]
            if unknown or of_h == NOT_FINITE_H:
                _erase(given)
            # A mean of w h with a second sample varies where h does not.
            if of_h == CONSTANT_H and given.std_error > 0.0:
                of_h = OK
            of_error = given.std_error, skewness, given.error_draws, draws
            given.low, given.high = ends_of(given.estimate, *of_error, student, wider)
            code = first_named(first_named(status[r], known, ranks), off[r], ranks)
            code = first_named(code, of_h, ranks)
            given.status = first_named(code, graded(given.error_draws, of_h == CONSTANT_H), ranks)
