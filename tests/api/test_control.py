"""The weights as control variate: the regression, its standard error, and everything at the edges."""

from functools import partial

import mpmath
import numpy as np
import pytest

import isdiag
from isdiag import Status, control_variate, lognormal
from tests.helpers import assert_same
from tests.registry import log_normal

# The target is N(0.7, 1).
draws = partial(log_normal, s=0.7)
FIELDS = ("estimate", "std_error", "std_error_plain", "plain", "coefficient", "khat")


def regression(w, y, at):
    """Intercept, slope and residual variance of y on w - at, by least squares."""
    design = np.column_stack([np.ones(w.size), w - at])
    (intercept, slope), (rest,), _, _ = np.linalg.lstsq(design, y)
    return intercept, slope, rest / (w.size - 2)


# ------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize(("gamma", "n"), [(0.4, 300), (1.0, 300), (1.0, 20_000)])
def test_is_the_intercept_of_a_regression(rng, gamma, n):
    x, log_w = draws(rng, n)
    expected = lognormal.moment(gamma, 0.7)
    result = control_variate(log_w, x, gamma=gamma, expected_weight=expected)
    w = np.exp(gamma * log_w)
    intercept, slope, rest = regression(w, w * x, expected)
    assert result.estimate == pytest.approx(intercept, rel=1e-12)
    assert result.coefficient == pytest.approx(slope, rel=1e-12)
    assert result.std_error == pytest.approx(np.sqrt(rest / n), rel=1e-12)
    assert result.plain == pytest.approx((w * x).mean(), rel=1e-12)
    assert result.std_error_plain == pytest.approx((w * x).std(ddof=1) / np.sqrt(n), rel=1e-12)
    covariance = np.cov(w * x, w)
    assert result.coefficient == pytest.approx(covariance[0, 1] / covariance[1, 1], rel=1e-12)
    assert result.khat == isdiag.pareto_khat(log_w, gamma=gamma)
    residuals = w * x - intercept - slope * (w - expected)
    carrying = (residuals**2).sum() ** 2 / (residuals**4).sum()
    assert result.error_draws == pytest.approx(carrying, rel=1e-9)
    grades = (Status.ERROR_UNCERTAIN, Status.ERROR_ROUGH, Status.OK)
    assert result.status is grades[np.searchsorted([6, 15], carrying)]


def test_second_sample_is_the_regression_at_the_mean_of_all_weights(rng):
    x, log_w = draws(rng, 300)
    _, second = draws(rng, 200)
    result = control_variate(log_w, x, gamma=0.8, second_log_w=second)
    w, v = np.exp(0.8 * log_w), np.exp(0.8 * second)
    intercept, slope, rest = regression(w, w * x, np.concatenate([w, v]).mean())
    assert result.estimate == pytest.approx(intercept, rel=1e-12)
    coefficient = slope / (1 + 300 / 200)
    assert result.coefficient == pytest.approx(coefficient, rel=1e-12)
    assert result.estimate == pytest.approx((w * x).mean() - coefficient * (w.mean() - v.mean()), rel=1e-12)
    expected = np.sqrt(rest / 300 + slope**2 * w.var(ddof=1) / 500)
    assert result.std_error == pytest.approx(expected, rel=1e-12)
    # The same error from its parts: that of w^g (h - c) in the first sample, that of c w^g in the second.
    residual = rest + (slope - coefficient) ** 2 * w.var(ddof=1)
    parts = residual / 300 + coefficient**2 * w.var(ddof=1) / 200
    assert expected == pytest.approx(np.sqrt(parts), rel=1e-12)


def test_a_huge_second_sample_is_as_good_as_knowing(rng):
    x, log_w = draws(rng, 50)
    second = np.zeros(10**6)
    known = control_variate(log_w, x)
    assert_same(control_variate(log_w, x, second_log_w=second), known, rtol=1e-3)


def test_expected_weight_is_one_by_default(rng):
    x, log_w = draws(rng, 100)
    assert_same(control_variate(log_w, x), control_variate(log_w, x, expected_weight=1.0))
    each = control_variate(log_w, x, gamma=0.5, expected_weight=0.9)
    both = control_variate(np.stack([log_w, log_w]), np.stack([x, x]), gamma=0.5, expected_weight=[0.9, 1.2])
    assert both.estimate[0] == each.estimate
    assert both.estimate[1] == pytest.approx(each.estimate + 0.3 * each.coefficient, rel=1e-12)


def test_constant_h_has_no_error(rng):
    _, log_w = draws(rng, 400)
    result = control_variate(log_w, np.full(400, 3.0))
    assert result.estimate == pytest.approx(3.0, rel=1e-14)
    assert result.coefficient == pytest.approx(3.0, rel=1e-14)
    assert result.std_error < 1e-14


def test_varies_no_more_than_snis(rng):
    x, log_w = draws(rng, 2000)
    for h in (x, x**2, np.sin(x), x > 1.0):
        h = h.astype(float)
        result = control_variate(log_w, h)
        assert result.std_error <= isdiag.snis(log_w, h).std_error * 1.01
        assert result.std_error <= result.std_error_plain * 1.01


# ------------------------------------------------------------------------------------- calibration


def calibrated(result, truth):
    spread = result.estimate.std()
    assert spread == pytest.approx(np.sqrt((result.std_error**2).mean()), rel=0.1)
    assert result.plain.std() == pytest.approx(np.sqrt((result.std_error_plain**2).mean()), rel=0.1)
    covered = np.abs(result.estimate - truth) < 1.96 * result.std_error
    assert 0.91 < covered.mean() < 0.97
    return spread / result.plain.std()


def test_standard_error_is_the_spread_of_the_estimate():
    x, log_w = draws(np.random.default_rng(21), (2000, 1600))
    assert calibrated(control_variate(log_w, x), 0.7) < 0.5


def test_standard_error_of_a_tempered_estimate():
    x, log_w = draws(np.random.default_rng(22), (2000, 1600), s=1.0)
    moment = lognormal.moment(0.6, 1.0)
    result = control_variate(log_w, x, gamma=0.6, expected_weight=moment)
    assert calibrated(result, 0.6 * moment) < 0.5


@pytest.mark.parametrize("m", [100, 400, 2000])
def test_standard_error_with_a_second_sample(m):
    rng = np.random.default_rng(23)
    x, log_w = draws(rng, (4000, 400))
    _, second = draws(rng, (4000, m))
    assert calibrated(control_variate(log_w, x, second_log_w=second), 0.7) < 1.0


def test_the_best_share_of_the_coefficient():
    # Twice and half the coefficient that the second sample can bear do worse.
    rng = np.random.default_rng(24)
    x, log_w = draws(rng, (4000, 200))
    _, second = draws(rng, (4000, 200))
    result = control_variate(log_w, x, second_log_w=second)
    difference = np.exp(log_w).mean(1) - np.exp(second).mean(1)
    spreads = [(result.plain - f * result.coefficient.mean() * difference).std() for f in (0.5, 1.0, 2.0)]
    assert spreads[1] < min(spreads[0], spreads[2])


# ------------------------------------------------------------------------------------------ layout


def test_input_is_left_alone(rng):
    x, log_w = draws(rng, (2, 50))
    second = log_w[:, ::-1].copy()
    given = [a.copy() for a in (log_w, x, second)]
    for a in (log_w, x, second):
        a.flags.writeable = False
    control_variate(log_w, x, gamma=0.5, second_log_w=second)
    for a, before in zip((log_w, x, second), given, strict=True):
        np.testing.assert_array_equal(a, before)


def test_second_sample_follows_axis_and_batch(rng):
    x, log_w = draws(rng, (3, 60))
    second = rng.normal(size=(3, 45)) - 0.5
    whole = control_variate(log_w, x, second_log_w=second)
    for i in range(3):
        single = control_variate(log_w[i], x[i], second_log_w=second[i])
        for field in FIELDS:
            assert getattr(single, field) == getattr(whole, field)[i]
    assert_same(control_variate(log_w.T, x.T, second_log_w=second.T, axis=0), whole)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_own_axes_of_h(rng, dtype):
    _, log_w = draws(rng, (2, 50))
    h = rng.normal(size=(2, 50, 3, 4)).astype(dtype)
    whole = control_variate(log_w, h)
    assert whole.estimate.shape == whole.std_error.shape == whole.coefficient.shape == (2, 3, 4)
    assert whole.khat.shape == (2,)
    for i, j in np.ndindex(3, 4):
        single = control_variate(log_w, h[..., i, j])
        for field in FIELDS[:-1]:
            np.testing.assert_array_equal(getattr(whole, field)[:, i, j], getattr(single, field))
    swapped = control_variate(log_w.T, h.swapaxes(0, 1), axis=0)
    assert_same(swapped, whole)
    assert control_variate(log_w, h[..., :0]).estimate.shape == (2, 3, 0)


# ------------------------------------------------------------------------------------------- edges


def test_draws_of_zero_weight_count_and_their_h_is_not_looked_at(rng):
    x, log_w = draws(rng, 120)
    log_w[:40] = -np.inf
    x[:40] = 0.0
    result = control_variate(log_w, x)
    w = np.exp(log_w)
    intercept, slope, rest = regression(w, w * x, 1.0)
    assert result.estimate == pytest.approx(intercept, rel=1e-12)
    assert result.coefficient == pytest.approx(slope, rel=1e-12)
    assert result.std_error == pytest.approx(np.sqrt(rest / 120), rel=1e-12)
    assert result.plain == pytest.approx((w * x).sum() / 120, rel=1e-13)
    x[:40] = np.resize([np.nan, np.inf, -np.inf], 40)
    assert_same(control_variate(log_w, x), result)
    # At gamma = 0 they have weight 0 still: the rest has weight 1.
    flat = control_variate(log_w, x, gamma=0.0, expected_weight=2 / 3)
    assert flat.plain == pytest.approx(x[40:].sum() / 120, rel=1e-13)
    assert flat.coefficient == pytest.approx(x[40:].mean(), rel=1e-12)


def test_a_mode_that_no_draw_visits_is_seen_by_the_mean_weight_alone(rng):
    x = rng.normal(scale=1.5, size=4000)

    def log_normal(mean, sd):
        return -(((x - mean) / sd) ** 2) / 2 - np.log(sd)

    far = np.logaddexp(np.log(0.7) + log_normal(0.0, 1.0), np.log(0.3) + log_normal(12.0, 1.0))
    whole, part = log_normal(0.0, 1.0) - log_normal(0.0, 1.5), far - log_normal(0.0, 1.5)
    assert isdiag.diagnose(part, h=x).ok
    assert control_variate(part, x).status is Status.NOT_NORMALIZED
    assert isdiag.snis(part, x, normalize=False).status is Status.NOT_NORMALIZED
    assert control_variate(whole, x).status is Status.OK


@pytest.mark.parametrize("log_w", [np.zeros(50), np.full(50, 0.1), 1e-17 * np.arange(50.0)])
def test_constant_weights_control_nothing(rng, log_w):
    h = rng.uniform(-1.0, 1.0, size=50)  # of normal ones 20 would carry the error
    off = Status.NOT_NORMALIZED  # equal weights have the mean that they have, without an error
    for given, status in (
        ({}, off if log_w[0] else Status.FLAT),
        ({"expected_weight": 7.0}, off),
        ({"expected_weight": np.exp(log_w[0])}, Status.FLAT),
        ({"second_log_w": rng.normal(size=20)}, Status.FLAT),
    ):
        result = control_variate(log_w, h, **given)
        assert result.status is status
        assert result.khat == -np.inf
        assert result.coefficient == 0.0
        assert result.estimate == result.plain == pytest.approx(np.exp(log_w[0]) * h.mean(), rel=1e-13)
        assert result.std_error == result.std_error_plain
        assert result.std_error == pytest.approx(np.exp(log_w[0]) * h.std(ddof=1) / np.sqrt(50), rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_draws(rng, n):
    x, log_w = draws(rng, n)
    result = control_variate(log_w, x)
    assert np.isfinite(result.estimate)
    assert np.isnan(result.std_error) == (n < 3)
    assert np.isnan(result.std_error_plain) == (n < 2)
    assert result.status is (Status.ONE_DRAW if n == 1 else Status.ERROR_UNCERTAIN)


@pytest.mark.parametrize(
    ("bad", "status"), [(np.nan, Status.NOT_FINITE), (np.inf, Status.NOT_FINITE), (-np.inf, Status.NO_WEIGHT)]
)
def test_bad_rows_of_the_second_sample(rng, bad, status):
    x, log_w = draws(rng, (2, 50))
    second = rng.normal(size=(2, 30))
    clean = control_variate(log_w, x, second_log_w=second)
    second[1] = bad
    if status is Status.NOT_FINITE:
        with pytest.warns(isdiag.NonFiniteWarning, match="1 of 2 rows"):
            result = control_variate(log_w, x, second_log_w=second)
    else:
        result = control_variate(log_w, x, second_log_w=second)
    assert result.status.tolist() == [Status.ERROR_UNCERTAIN, status]
    for field in FIELDS:
        assert getattr(result, field)[0] == getattr(clean, field)[0]
        assert np.isnan(getattr(result, field)[1])


def test_unknown_gamma_and_expectation_give_a_row_of_nan(rng):
    x, log_w = draws(rng, (2, 50))
    clean = control_variate(log_w[0], x[0], gamma=0.5, expected_weight=0.9)
    for given in (
        {"gamma": [0.5, np.nan], "expected_weight": 0.9},
        {"gamma": 0.5, "expected_weight": [0.9, np.nan]},
    ):
        result = control_variate(log_w, x, **given)
        for field in FIELDS:
            assert getattr(result, field)[0] == getattr(clean, field)
            assert np.isnan(getattr(result, field)[1])


def test_nan_in_h_stays_in_its_component(rng):
    _, log_w = draws(rng, 50)
    h = rng.normal(size=(50, 2))
    clean = control_variate(log_w, h)
    h[3, 1] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows have an h that is not finite") as caught:
        result = control_variate(log_w, h)
    assert len(caught) == 1
    for field in FIELDS[:-1]:
        assert getattr(result, field)[0] == getattr(clean, field)[0]
        assert np.isnan(getattr(result, field)[1])
    assert result.status.tolist() == [clean.status[0], Status.NOT_FINITE_H]


@pytest.mark.parametrize("offset", [-600.0, -300.0, 300.0, 600.0])
def test_scale_of_the_weights(rng, offset):
    # w -> C w and E[w] -> C E[w] scale the estimate and leave the coefficient.
    x, log_w = draws(rng, 100)
    _, second = draws(rng, 80)
    base = control_variate(log_w, x, second_log_w=second)
    moved = control_variate(log_w + offset, x, second_log_w=second + offset)
    for field in ("estimate", "std_error", "std_error_plain", "plain"):
        assert getattr(moved, field) == pytest.approx(np.exp(offset) * getattr(base, field), rel=1e-11)
    assert moved.coefficient == pytest.approx(base.coefficient, rel=1e-11)


def test_overflow_only_where_the_answer_does(rng):
    x, log_w = draws(rng, 100)
    _, second = draws(rng, 80)
    base = control_variate(log_w, x, second_log_w=second)
    # exp(800) overflows; times values of the size of exp(-140) it does not.
    moved = control_variate(log_w + 800, x * np.exp(-140.0), second_log_w=second + 800)
    for field in ("estimate", "std_error", "std_error_plain", "plain"):
        assert getattr(moved, field) == pytest.approx(getattr(base, field) * np.exp(660.0), rel=1e-11)
    assert control_variate(log_w + 2000, np.zeros(100)).estimate == 0.0
    assert np.isinf(control_variate(log_w + 800, x).plain)
    # Weights that all underflow still have a slope, and E[w] = 1 stands.
    tiny = control_variate(log_w - 2000, x)
    assert tiny.plain == 0.0
    assert (
        tiny.estimate == tiny.coefficient == pytest.approx(control_variate(log_w, x).coefficient, rel=1e-10)
    )


# -------------------------------------------------------------------------------- errors and house


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"expected_weight": 1.0, "second_log_w": np.zeros(5)}, ValueError, "give one of them"),
        ({"gamma": 0.5}, ValueError, "give expected_weight or second_log_w for gamma = 0.5"),
        ({"second_log_w": np.zeros(10)}, ValueError, r"batch shape \(2,\), got \(\)"),
        ({"second_log_w": np.zeros((3, 10))}, ValueError, r"batch shape \(2,\), got \(3,\)"),
        ({"second_log_w": np.zeros((2, 0))}, ValueError, "second_log_w has no draws"),
        ({"second_log_w": 1.0}, ValueError, "second_log_w must have at least one axis"),
        ({"second_log_w": np.zeros((2, 3), complex)}, TypeError, "second_log_w must hold real numbers"),
    ],
)
def test_wrong_arguments(given, error, match):
    given = {"log_w": np.zeros((2, 10)), "h": np.zeros((2, 10))} | given
    with pytest.raises(error, match=match):
        control_variate(given.pop("log_w"), given.pop("h"), **given)


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 1.0), (0.5, 0.9)])
def test_a_weight_far_above_all_others_costs_no_digit(rng, gamma, expected):
    # It fixes the slope; the intercept is what the others make of it, 26 digits below.
    log_w = rng.normal(size=30)
    log_w[7] = 60.0
    h = rng.normal(size=30) + 5.0
    with mpmath.workdps(80):
        w = [mpmath.exp(mpmath.mpf(float(x)) * gamma) for x in log_w]
        y = [a * mpmath.mpf(float(b)) for a, b in zip(w, h, strict=True)]
        mean, average = mpmath.fsum(w) / 30, mpmath.fsum(y) / 30
        products = [(a - mean) * (b - average) for a, b in zip(w, y, strict=True)]
        slope = mpmath.fsum(products) / mpmath.fsum((a - mean) ** 2 for a in w)
        exact = float(average - slope * (mean - expected))
    found = isdiag.control_variate(log_w, h, gamma=gamma, expected_weight=expected)
    assert found.estimate == pytest.approx(exact, rel=1e-12)
