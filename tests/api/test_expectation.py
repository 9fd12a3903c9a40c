"""The tail of w |h - estimate|, confidence intervals, and the test for finite variance."""

import numpy as np
import pytest
from scipy import stats

import isdiag
from isdiag.status import Status
from tests import naive
from tests.helpers import assert_same, quiet
from tests.registry import log_normal

LIGHT, HEAVY = 0.3, 3.0  # spread of log-normal weights with a khat well below and above 1/2


def parts(log_w, h, gamma=1.0):
    """Logs of w |h - estimate| above and below the estimate, -inf elsewhere."""
    positive = log_w > -np.inf
    t = np.where(positive, gamma * np.where(positive, log_w, 0.0), -np.inf)
    w = np.exp(t - t.max())
    off = np.where(positive, h - np.sum(w[positive] * h[positive]) / w.sum(), 0.0)
    with np.errstate(divide="ignore"):
        size = t + np.log(np.abs(off))
    return np.where(off > 0, size, -np.inf), np.where(off < 0, size, -np.inf)


# ------------------------------------------------------------------------ expectation_diagnostics


@pytest.mark.parametrize("gamma", [0.4, 1.0])
def test_khat_is_that_of_each_side(rng, gamma):
    log_w, h = 0.8 * rng.normal(size=1000), rng.standard_t(3, size=1000)
    log_w[:50] = -np.inf
    h[:50] = np.nan
    found = isdiag.expectation_diagnostics(log_w, h, gamma=gamma)
    right, left = (isdiag.pareto_khat(part) for part in parts(log_w, h, gamma))
    weights = isdiag.pareto_khat(log_w, gamma=gamma)
    assert found.khat_right == pytest.approx(right, rel=1e-9)
    assert found.khat_left == pytest.approx(left, rel=1e-9)
    assert found.khat_weights == weights
    assert found.khat == pytest.approx(max(right, left, weights), rel=1e-9)


def test_draws_behind_the_error_by_their_formula(rng):
    log_w, h = 0.8 * rng.normal(size=1000), rng.normal(size=1000)
    log_w[0] = -np.inf
    found = isdiag.expectation_diagnostics(log_w, h)
    f = np.exp(parts(log_w, h)[0]) + np.exp(parts(log_w, h)[1])
    assert found.ess == pytest.approx(f.sum() ** 2 / (f**2).sum(), rel=1e-10)
    assert found.error_draws == pytest.approx((f**2).sum() ** 2 / (f**4).sum(), rel=1e-10)
    assert found.error_draws == pytest.approx(isdiag.snis(log_w, h).error_draws, rel=1e-9)


@pytest.mark.parametrize(("scale", "shift"), [(1e-200, 0.0), (1e200, 0.0), (1.0, 1e4), (-3.0, -1e4)])
def test_units_of_h_and_a_constant_of_the_weights_do_not_matter(rng, scale, shift):
    log_w, h = rng.normal(size=500), rng.normal(size=500)
    one = isdiag.expectation_diagnostics(log_w, h)
    other = isdiag.expectation_diagnostics(log_w + shift, scale * h)
    for key in ("khat", "ess", "error_draws", "khat_weights"):
        assert getattr(other, key) == pytest.approx(getattr(one, key), rel=1e-7), key
    sides = (other.khat_right, other.khat_left)
    assert sides[:: int(np.sign(scale))] == pytest.approx((one.khat_right, one.khat_left), rel=1e-7)


@pytest.mark.parametrize("side", [1, -1])
def test_heavy_h_under_light_weights_is_found(rng, side):
    x = rng.normal(size=4000)
    found = isdiag.expectation_diagnostics(0.5 * x, side * np.exp(2 * x))
    assert found.khat_weights < 0.3
    assert found.khat > 0.6
    assert found.khat == (found.khat_right if side > 0 else found.khat_left)
    assert (found.khat_left if side > 0 else found.khat_right) < 0.5
    assert found.ess < 200 < isdiag.ess(0.5 * x)


def test_constant_h_leaves_khat_to_the_weights(heavy):
    for h in (np.full(heavy.size, 0.1), np.zeros(heavy.size), np.ones(heavy.size, bool)):
        found = isdiag.expectation_diagnostics(heavy, h)
        assert found.khat == found.khat_weights == isdiag.pareto_khat(heavy)
        assert np.isnan([found.khat_right, found.khat_left]).all()
        assert found.status is Status.CONSTANT_H


def test_two_valued_h_leaves_khat_to_the_weights(heavy, rng):
    indicator = rng.uniform(size=heavy.size) < 0.3
    # That 2 draws carry the error says more against it than that h takes two values.
    for log_w, status in ((heavy, Status.ERROR_UNCERTAIN), (0.25 * heavy, Status.TWO_VALUED_H)):
        for h in (indicator, np.where(indicator, -1.5, 1e8)):
            found = isdiag.expectation_diagnostics(log_w, h)
            assert found.khat == found.khat_weights == isdiag.pareto_khat(log_w)
            assert np.isnan([found.khat_right, found.khat_left]).all()
            assert found.status is status
    light = 0.25 * heavy
    third = np.where(np.arange(heavy.size) < 10, 5.0, indicator)
    assert np.isfinite(isdiag.expectation_diagnostics(heavy, third).khat_right)
    assert isdiag.expectation_diagnostics(light, third).status is not Status.TWO_VALUED_H
    light = np.where(third == 5.0, -np.inf, light)  # a value without weight is none
    assert isdiag.expectation_diagnostics(light, third).status is Status.TWO_VALUED_H


def test_status_is_that_of_the_error_otherwise(rng):
    light, x = 0.3 * rng.normal(size=2000), rng.normal(size=2000)
    assert isdiag.expectation_diagnostics(light, x).status is Status.OK
    assert isdiag.expectation_diagnostics(light, np.exp(3 * x)).status is Status.ERROR_UNCERTAIN


def test_components_of_h_are_diagnosed_each(rng):
    log_w = 0.5 * rng.normal(size=(2, 400))
    h = np.stack([rng.normal(size=(2, 400)), np.ones((2, 400)), rng.uniform(size=(2, 400)) < 0.5], axis=-1)
    h = np.stack([h, -2 * h], axis=-2)
    found = isdiag.expectation_diagnostics(log_w, h)
    assert found.khat_weights.shape == (2,)
    assert found.khat.shape == found.ess.shape == found.status.shape == (2, 2, 3)
    np.testing.assert_array_equal(found.status[..., 1:], np.broadcast_to([7, 8], (2, 2, 2)))
    for i, j, r in np.ndindex(2, 3, 2):
        alone = isdiag.expectation_diagnostics(log_w[r], h[r, :, i, j])
        for key in ("khat", "khat_right", "khat_left", "error_draws", "ess"):
            assert getattr(found, key)[r, i, j] == pytest.approx(getattr(alone, key), rel=1e-9, nan_ok=True)
        assert found.status[r, i, j] == alone.status


def test_layout_does_not_matter(rng):
    log_w, h = rng.normal(size=(20, 3, 30)), rng.normal(size=(20, 3, 30, 2))
    where = rng.uniform(size=log_w.shape) < 0.7
    gamma = np.array([0.5, 1.0, 1.5])
    for function in (isdiag.expectation_diagnostics, isdiag.confidence_interval):
        found = function(log_w, h, axis=(0, 2), where=where, gamma=gamma)
        for r in range(3):
            kept = where[:, r]
            alone = function(log_w[:, r][kept], h[:, r][kept], gamma=gamma[r])
            row = {
                key: value if key in ("level", "method") else value[r] for key, value in vars(found).items()
            }
            assert_same(alone, type(found)(**row), rtol=1e-9)
    tests = isdiag.finite_variance_test(log_w, axis=(0, 2), where=where, gamma=gamma)
    for r in range(3):
        alone = isdiag.finite_variance_test(log_w[:, r][where[:, r]], gamma=gamma[r])
        assert tests.statistic[r] == pytest.approx(alone.statistic, rel=1e-9)


def bad_rows(rng, n=300):
    """An ordinary row, then one with NaN, with +inf, without weight, flat, and with three draws."""
    log_w = 0.3 * rng.normal(size=(6, n))
    log_w[1, 5], log_w[2, 5] = np.nan, np.inf
    log_w[3] = -np.inf
    log_w[4] = 1.0
    log_w[5, 3:] = -np.inf
    return log_w


NO_ROWS = [Status.NOT_FINITE, Status.NOT_FINITE, Status.NO_WEIGHT]
# What equal weights and three draws are with an ordinary h, a constant one, one of two values.
BAD = {
    "numbers": [*NO_ROWS, Status.FLAT, Status.ERROR_UNCERTAIN],
    "constant": [*NO_ROWS, Status.CONSTANT_H, Status.TAIL_TOO_SHORT],
    "two values": [*NO_ROWS, Status.TWO_VALUED_H, Status.ERROR_UNCERTAIN],
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_have_their_status_and_no_numbers(rng, kind):
    log_w, x = bad_rows(rng), rng.normal(size=(6, 300))
    x[5, :3] = -1.0, 1.0, 2.0
    h = {"numbers": x, "constant": np.ones_like(x), "two values": x > 0}[kind]
    with pytest.warns(isdiag.NonFiniteWarning, match="2 of 6") as caught:
        found = isdiag.expectation_diagnostics(log_w, h)
    assert len(caught) == 1
    np.testing.assert_array_equal(found.status[1:], BAD[kind])
    for value in vars(found).values():
        assert value.dtype == np.int8 or np.isnan(value[1:4]).all()
    assert found.khat_weights[4] == -np.inf
    assert np.isnan(found.khat_weights[5])
    alone = isdiag.expectation_diagnostics(log_w[0], h[0])
    assert found.khat[0] == alone.khat
    assert found.status[0] == alone.status


def test_no_weight_is_no_warning():
    for where in (None, np.zeros(50, bool)):
        log_w = np.full(50, -np.inf)
        found = isdiag.expectation_diagnostics(log_w, np.zeros(50), where=where)
        assert np.isnan([found.khat, found.ess, found.error_draws]).all()
        interval = isdiag.confidence_interval(log_w, np.zeros(50), where=where)
        assert np.isnan([interval.low, interval.high, interval.estimate]).all()
        assert found.status is interval.status is Status.NO_WEIGHT


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_h_that_is_not_finite_is_no_good_news(rng, value):
    log_w, h = LIGHT * rng.normal(size=500), rng.normal(size=500)
    h[7] = value
    found, interval = (
        quiet(isdiag.expectation_diagnostics, log_w, h),
        quiet(isdiag.confidence_interval, log_w, h),
    )
    assert np.isnan(found.khat)
    assert found.status is interval.status is Status.NOT_FINITE_H
    assert interval.claim == "Nothing is known of the error."
    assert np.isnan([interval.low, interval.high]).all()


# ----------------------------------------------------------------------------- confidence_interval


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_ends_of_each_method_by_hand(rng, level):
    log_w, h = 0.6 * rng.exponential(size=1000), rng.uniform(-1, 3, size=1000)
    estimate, std_error, _ = naive.snis(log_w, h)

    delta = isdiag.confidence_interval(log_w, h, level=level, method="delta")
    df = 2 / (1 / isdiag.snis(log_w, h).error_draws - 1 / 1000)
    ends = stats.t.interval(level, df, estimate, std_error)
    assert (delta.low, delta.high) == pytest.approx(ends, rel=1e-9)

    hall = isdiag.confidence_interval(log_w, h, level=level)
    w = np.exp(log_w - log_w.max())
    f = w / w.sum() * (h - estimate)
    g = (f**3).sum() / (f**2).sum() ** 1.5
    x = stats.t.ppf(0.5 + level / 2, df) * (1 + 2 / df)
    assert hall.khat > 0.5
    spread = 1 / (2 * (1 - hall.khat)) / np.sqrt(1 - 4 * (1 / isdiag.ess(log_w) - 1 / 1000))
    for end, wanted in ((hall.low, x), (hall.high, -x)):
        t = (estimate - end) / std_error / spread
        assert t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6 == pytest.approx(wanted, rel=1e-7)

    bounded = isdiag.confidence_interval(log_w, h, level=level, method="bounded", bounds=(-20, 30))
    # 4 R^2 rho / n with R = 25 and rho = n / ESS, by Chebyshev's inequality.
    half = np.sqrt(4 * 25**2 / isdiag.ess(log_w) / (1 - level))
    ends = (max(estimate - half, -20), min(estimate + half, 30))
    assert (bounded.low, bounded.high) == pytest.approx(ends, rel=1e-9)

    for interval, name in ((delta, "delta"), (hall, "hall"), (bounded, "bounded")):
        assert (interval.method, interval.level) == (name, level)
        assert interval.estimate == pytest.approx(estimate, rel=1e-10)


def test_gamma_tempers_before_anything_else(rng):
    log_w, h = rng.exponential(size=800), rng.uniform(size=800)
    for method in ("hall", "delta", "bounded"):
        left = isdiag.confidence_interval(log_w, h, gamma=0.5, method=method, bounds=(0, 1))
        assert_same(left, isdiag.confidence_interval(0.5 * log_w, h, method=method, bounds=(0, 1)), rtol=1e-9)


def test_snis_has_the_interval_of_confidence_interval(rng):
    log_w, h = HEAVY * rng.normal(size=(3, 400)), rng.normal(size=(3, 400))
    found, result = isdiag.confidence_interval(log_w, h), isdiag.snis(log_w, h)
    np.testing.assert_array_equal(found.low, result.low)
    np.testing.assert_array_equal(found.high, result.high)
    # Of a vector each component has the skewness and the draws of its own error.
    both = isdiag.confidence_interval(log_w, np.stack([h, np.exp(h)], axis=-1))
    np.testing.assert_array_equal(both.low[:, 0], found.low)
    np.testing.assert_array_equal(both.high[:, 1], isdiag.snis(log_w, np.exp(h)).high)
    assert both.low.shape == both.error_draws.shape == (3, 2)
    assert isdiag.confidence_interval(log_w, np.empty((3, 400, 0))).low.shape == (3, 0)


def test_nothing_is_said_where_there_may_be_no_mean(rng):
    x, h = rng.normal(size=2000), rng.normal(size=2000)
    ends = []
    for s in np.linspace(0.5, 8.0, 16):
        found = isdiag.confidence_interval(s * x, h)
        ends.append((found.khat, found.high - found.low))
        assert (found.low == -np.inf) == (found.high == np.inf) == (found.khat >= 1.0)
        assert ("no finite mean" in found.claim) == (found.khat >= 1.0)
    assert ends[0][0] < 0.5
    assert ends[-1][0] > 1.0
    # One draw has all the weight, and no tail can be fitted.
    found = isdiag.confidence_interval(np.where(np.arange(400) == 7, 60.0, 0.0), h[:400])
    assert (found.low, found.high) == (-np.inf, np.inf)
    within = isdiag.confidence_interval(8 * x, h > 0, bounds=(0, 1))
    assert (within.low, within.high) == (0.0, 1.0)


def test_claims_go_by_the_draws_that_carry_the_error(rng):
    h = rng.uniform(size=3000)
    log_w = np.zeros((5, 3000))
    log_w[1, 12:] = log_w[2, 4:] = log_w[3] = -np.inf
    h[5:12] = [0.1, 0.8, 0.3, 0.9, 0.2, 0.95, 0.0]
    interval = isdiag.confidence_interval(log_w, [h, h, h, h, np.ones(3000)])
    begins = ["15 draws or more", "Fewer than 15", "Fewer than 6", "Nothing is known", "No draw carries"]
    assert [words[: len(start)] for words, start in zip(interval.claim, begins, strict=True)] == begins
    forced = isdiag.confidence_interval(log_w[1], h, method="delta")
    assert forced.claim == interval.claim[1]  # what is claimed does not depend on the method


@pytest.mark.parametrize("skewed", ["x", "exp(x)", "rare"])
def test_intervals_cover_what_the_plain_ones_miss(skewed):
    s = 1.0
    x, log_w = log_normal(np.random.default_rng(43), (1500, 300), s)
    h = {"x": x, "exp(x)": np.exp(0.5 * x), "rare": (x > 2.5).astype(float)}[skewed]
    truth = {"x": s, "exp(x)": np.exp(0.5 * s + 0.125), "rare": stats.norm.sf(2.5 - s)}[skewed]
    covered = {}
    for method in ("hall", "delta"):
        interval = isdiag.confidence_interval(log_w, h, method=method)
        covered[method] = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert covered["hall"] >= 0.92
    assert covered["hall"] > covered["delta"]


def test_intervals_of_other_estimates_are_made_the_same_way(rng):
    x, log_w = log_normal(rng, (400, 300), 0.7)
    for found in (
        isdiag.select_gamma(log_w, rule="mse", h=x),
        isdiag.control_variate(log_w, x),
        isdiag.snis(log_w, x, normalize=False),
        isdiag.snis(log_w, x, smooth="psis"),
        isdiag.snis(log_w, x, smooth="truncate"),
    ):
        assert ((found.low < found.estimate) & (found.estimate < found.high)).all()
        assert np.mean((found.low <= 0.7) & (found.high >= 0.7)) >= 0.91


def test_bounded_interval_stays_within_bounds(rng):
    x = rng.normal(size=(50, 200))
    interval = isdiag.confidence_interval(HEAVY * x, x > 0, method="bounded", bounds=(0, 1))
    assert ((interval.low >= 0) & (interval.high <= 1)).all()
    assert (interval.high == 1).any()
    assert ((interval.low <= interval.estimate) & (interval.estimate <= interval.high)).all()


def test_weights_without_spread_give_the_interval_of_a_mean(rng):
    h = rng.normal(size=400)
    interval = isdiag.confidence_interval(np.zeros(400), h)
    assert interval.status is Status.FLAT
    ends = stats.norm.interval(0.95, h.mean(), h.std() / np.sqrt(h.size))
    assert (interval.low, interval.high) == pytest.approx(ends, abs=4e-3)


def test_of_constant_h_nothing_can_be_said(rng):
    log_w, h = LIGHT * rng.normal(size=500), np.full(500, 0.1)
    interval = isdiag.confidence_interval(log_w, h)
    assert (interval.low, interval.estimate, interval.high) == (-np.inf, 0.1, np.inf)
    assert interval.status is Status.CONSTANT_H
    within = isdiag.confidence_interval(log_w, h, bounds=(0, 1))
    assert (within.low, within.high) == (0.0, 1.0)
    plain = isdiag.confidence_interval(log_w, h, method="delta")
    assert plain.low == plain.high == 0.1


@pytest.mark.parametrize("h", ["x", "x > s"])
def test_delta_covers_light_weights(h):
    s = 0.5
    x, log_w = log_normal(np.random.default_rng(41), (2000, 400), s)
    h, truth = (x, s) if h == "x" else (x > s, 0.5)
    interval = isdiag.confidence_interval(log_w, h, method="delta")
    assert np.mean((interval.low < truth) & (truth < interval.high)) >= 0.93


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_bounded_covers_heavy_weights(level):
    x, log_w = log_normal(np.random.default_rng(42), (400, 2000), 2.0)
    interval = isdiag.confidence_interval(log_w, x > 2, bounds=(0, 1), method="bounded", level=level)
    assert np.mean((interval.low < 0.5) & (interval.high > 0.5)) >= level
    assert np.mean(interval.high - interval.low) < (0.4 if level == 0.5 else 0.95)


def test_rows_with_nan_have_no_interval(rng):
    log_w, h = bad_rows(rng), rng.uniform(size=(6, 300))
    for options in ({}, {"bounds": (0, 1)}, {"method": "delta"}):
        with pytest.warns(isdiag.NonFiniteWarning, match="2 of 6") as caught:
            interval = isdiag.confidence_interval(log_w, h, **options)
        assert len(caught) == 1
        np.testing.assert_array_equal(interval.status[1:], BAD["numbers"])
        assert np.isnan([interval.low[1:4], interval.high[1:4], interval.estimate[1:4]]).all()
        assert (interval.low < interval.high)[[0, 4, 5]].all()
        alone = isdiag.confidence_interval(log_w[0], h[0], **options)
        assert (interval.low[0], interval.high[0]) == (alone.low, alone.high)


def test_what_does_not_depend_on_the_row_is_one_object(rng):
    interval = isdiag.confidence_interval(rng.normal(size=100), rng.uniform(size=100), bounds=[0, 1])
    assert type(interval.level) is float
    assert type(interval.claim) is str


def test_bad_arguments_are_named_with_their_value(heavy):
    for bounds in ((1, 0), (0, 0), (0, np.inf), (np.nan, 1), (0, 1, 2), 3.0):
        with pytest.raises(ValueError, match="bounds must be two finite numbers") as caught:
            isdiag.confidence_interval(heavy, heavy > 0, bounds=bounds)
        assert repr(bounds) in str(caught.value)
    with pytest.raises(TypeError, match="bounds must hold real numbers"):
        isdiag.confidence_interval(heavy, heavy > 0, bounds=("0", "1"))
    with pytest.raises(ValueError, match='"bounded" needs bounds'):
        isdiag.confidence_interval(heavy, heavy > 0, method="bounded")


@pytest.mark.parametrize("method", ["hall", "delta", "bounded"])
def test_h_out_of_its_bounds_is_an_error_where_it_counts(rng, method):
    log_w, h = LIGHT * rng.normal(size=200), rng.uniform(size=200)
    for value in (-0.25, 1.25):
        h[3] = value
        with pytest.raises(ValueError, match=rf"h must lie within bounds \(0.0, 1.0\), got {value}"):
            isdiag.confidence_interval(log_w, h, bounds=(0, 1), method=method)
    where = np.arange(200) != 3
    kept = isdiag.confidence_interval(log_w, h, bounds=(0, 1), method=method, where=where)
    log_w[3] = -np.inf
    zero = isdiag.confidence_interval(log_w, h, bounds=(0, 1), method=method)
    assert (zero.low, zero.high) == pytest.approx((kept.low, kept.high), rel=1e-3)  # n is one more


# ---------------------------------------------------------------------------- finite_variance_test


def excesses(log_w, length):
    """Of the largest weights, over their mean."""
    w = np.exp(np.sort(log_w)[-length - 1 :] - log_w.max())
    x = w[1:] - w[0]
    return x / x.mean()


def most_likely(x):
    """(k, log-likelihood with k free, with k = 1/2) by scipy."""
    k, _, scale = stats.genpareto.fit(x, 0.5, floc=0, scale=0.5)
    _, _, scale_at_half = stats.genpareto.fit(x, f0=0.5, floc=0, scale=0.5)
    at_half = stats.genpareto.logpdf(x, 0.5, scale=scale_at_half).sum()
    return k, stats.genpareto.logpdf(x, k, scale=scale).sum(), at_half


def assert_most_likely(test, x):
    k, free, at_half = most_likely(x)
    assert test.k == pytest.approx(k, abs=1e-3)
    assert test.statistic == pytest.approx(np.sign(k - 0.5) * np.sqrt(2 * (free - at_half)), abs=1e-3)
    assert test.p_value == pytest.approx(stats.norm.sf(test.statistic), rel=1e-12)


@pytest.mark.parametrize("k", [0.1, 0.3, 0.45, 0.6, 1.0, 2.0])
def test_tail_index_and_statistic_are_those_of_scipy(k):
    log_w = k * np.random.default_rng(51).exponential(size=(3, 2000))
    for row in log_w:
        assert_most_likely(isdiag.finite_variance_test(row), excesses(row, isdiag.tail_length(2000)))
        assert_most_likely(isdiag.finite_variance_test(row, tail_length=60), excesses(row, 60))


def test_log_normal_tails_against_scipy(rng):
    for s in (0.3, 1.0, 3.0):
        row = s * rng.normal(size=2000)
        assert_most_likely(isdiag.finite_variance_test(row), excesses(row, isdiag.tail_length(2000)))


def test_tail_of_all_positive_weights_starts_at_zero(rng):
    row = np.full(2000, -np.inf)
    row[:100] = 0.8 * rng.normal(size=100)
    w = np.exp(row[:100])
    assert_most_likely(isdiag.finite_variance_test(row), w / w.mean())


def test_rejections_at_the_border_are_as_many_as_promised():
    tail = np.random.default_rng(52).exponential(size=(1000, 2000))
    rejected = isdiag.finite_variance_test(0.5 * tail).p_value < 0.05
    assert 0.02 <= rejected.mean() <= 0.08
    assert (isdiag.finite_variance_test(0.2 * tail[:300]).p_value < 0.05).mean() < 0.01
    assert (isdiag.finite_variance_test(tail[:300]).p_value < 0.05).mean() > 0.85


def test_heavier_tails_have_smaller_p_values():
    tail = np.random.default_rng(53).exponential(size=(100, 2000))
    tests = [isdiag.finite_variance_test(k * tail) for k in (0.2, 0.4, 0.5, 0.7, 1.0, 3.0)]
    p_values = np.array([test.p_value.mean() for test in tests])
    assert (np.diff(p_values) < 0).all()
    assert p_values[0] > 0.9
    assert p_values[-1] < 1e-6
    np.testing.assert_allclose([test.k.mean() for test in tests], [0.2, 0.4, 0.5, 0.7, 1.0, 3.0], atol=0.05)


@pytest.mark.parametrize("k", [5.0, 10.0, 30.0])
def test_tails_of_hundreds_are_not_missed(k):
    # The likelihood has a second, lower maximum at k < 1, where all but the largest weights vanish.
    test = isdiag.finite_variance_test(k * np.random.default_rng(54).exponential(size=(20, 2000)))
    assert (test.p_value < 1e-30).all()
    assert test.k.mean() == pytest.approx(k, rel=0.1)


def test_bounded_weights_are_not_suspected(rng):
    for weights in (rng.uniform(size=2000), rng.beta(1, 0.3, size=2000), 1 + rng.uniform(size=2000)):
        test = isdiag.finite_variance_test(np.log(weights))
        assert test.p_value > 0.999
        assert test.k < 0


def test_a_constant_of_the_weights_does_not_matter(rng):
    log_w = 0.6 * rng.exponential(size=(5, 1000))
    near = isdiag.finite_variance_test(log_w)
    for shift in (1e3, -1e4):
        far = isdiag.finite_variance_test(log_w + shift)
        np.testing.assert_allclose(far.statistic, near.statistic, atol=1e-6)
        np.testing.assert_allclose(far.k, near.k, atol=1e-5)


def test_tempering_is_scaling(rng):
    log_w = 1.5 * rng.exponential(size=(5, 1000))
    assert_same(
        isdiag.finite_variance_test(log_w, gamma=0.5), isdiag.finite_variance_test(0.5 * log_w), rtol=1e-12
    )
    gamma = np.array([0.2, 0.4, 0.6, 0.8, np.nan])
    by_row = isdiag.finite_variance_test(log_w, gamma=gamma)
    for r in range(4):
        alone = isdiag.finite_variance_test(log_w[r], gamma=gamma[r])
        assert by_row.statistic[r] == alone.statistic
    assert np.isnan([by_row.statistic[4], by_row.k[4], by_row.p_value[4]]).all()


def test_rows_without_a_tail(rng):
    log_w = bad_rows(rng)
    with pytest.warns(isdiag.NonFiniteWarning, match="2 of 6") as caught:
        test = isdiag.finite_variance_test(log_w)
    assert len(caught) == 1
    assert test.status.tolist() == [Status.OK, *NO_ROWS, Status.FLAT, Status.TAIL_TOO_SHORT]
    for value in (test.statistic, test.p_value, test.k):
        np.testing.assert_array_equal(np.isnan(value), [False, True, True, True, False, True])
    assert (test.statistic[4], test.p_value[4], test.k[4]) == (-np.inf, 1.0, -np.inf)
    assert test.statistic[0] == isdiag.finite_variance_test(log_w[0]).statistic
    assert isdiag.finite_variance_test(log_w[0], gamma=0.0).p_value == 1.0


def test_tails_that_cannot_be_fitted(rng):
    short = isdiag.finite_variance_test(rng.normal(size=20))
    assert short.status is Status.TAIL_TOO_SHORT
    tied = isdiag.finite_variance_test(np.repeat([0.0, -5.0], 200))
    assert tied.status is Status.DEGENERATE_TAIL
    for test in (short, tied):
        assert np.isnan([test.statistic, test.p_value, test.k]).all()


def test_a_side_of_few_draws_that_carries_the_error_is_not_ignored():
    # 4 of 1000 draws have a large h: khat of that side is unknown, and unknown passes no test.
    rng = np.random.default_rng(8)
    log_w = 0.1 * rng.normal(size=1000)
    h = np.where(np.arange(1000) < 4, 500 * np.exp(1.5 * rng.normal(size=1000)), rng.normal(size=1000))
    found = isdiag.expectation_diagnostics(log_w, h)
    assert np.isnan(found.khat)
    assert isdiag.confidence_interval(log_w, h).claim.startswith("Fewer than 6")


def test_levels_of_a_bounded_h_are_no_heavy_tail():
    # On-policy rewards: equal weights, three values of h.
    h = np.random.default_rng(9).integers(-1, 2, size=2000)
    interval = isdiag.confidence_interval(np.zeros(2000), h)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * h.std() / np.sqrt(2000), rel=0.01)


@pytest.mark.parametrize("method", ["hall", "delta", "bounded"])
def test_no_end_is_out_of_bounds(method):
    rng = np.random.default_rng(10)
    log_w = 2 * rng.normal(size=100)
    interval = isdiag.confidence_interval(log_w, log_w > 3, bounds=(0, 1), method=method, level=0.999)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
