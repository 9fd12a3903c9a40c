"""Inputs that once gave wrong answers, each with the right one."""

from functools import partial

import mpmath
import numpy as np
import pytest
from scipy import stats

import isdiag
from isdiag import Status
from isdiag.rl import (
    CISPO,
    Diagnosed,
    GammaController,
    Power,
    RewardWeighted,
    State,
    log_ratio,
    take_step,
)
from tests.helpers import assert_same, optional, quiet
from tests.registry import CALLS, EVERY_RESHAPE, FUNCTIONS, rows_of

# ------------------------------------------------------------------------- the units and origin of h

# What becomes of a field where h becomes a h + b: a x + b, |a| x, a x, a^2 x; any other stays.
PLACES = {"estimate", "low", "high", "reference", "plain", "coefficient"}
DISTANCES = {"std_error", "std_error_plain", "tempering_bias_std_error", "reference_std_error"}
SIGNED = {"bias", "tempering_bias", ""}
SQUARES = {"mse"}
SIDES = {"low": "high", "high": "low", "khat_right": "khat_left", "khat_left": "khat_right"}

SMOOTHINGS = (False, True, "psis", "truncate", "auto")
OF_H = {
    **{f"snis(smooth={smooth})": partial(isdiag.snis, smooth=smooth) for smooth in SMOOTHINGS},
    "snis(gamma=0.5)": partial(isdiag.snis, gamma=0.5),
    "kong_owen_bias": isdiag.kong_owen_bias,
    "kong_owen_bias(covariance=proposal)": partial(isdiag.kong_owen_bias, covariance="proposal"),
    "select_gamma(rule=mse)": lambda log_w, h: isdiag.select_gamma(log_w, rule="mse", h=h),
    "mse_curve": isdiag.mse_curve,
    "control_variate": isdiag.control_variate,
    "confidence_interval": isdiag.confidence_interval,
    "confidence_interval(method=delta)": partial(isdiag.confidence_interval, method="delta"),
    "expectation_diagnostics": isdiag.expectation_diagnostics,
    "diagnose": isdiag.diagnose,
    "diagnose(rule=mse)": partial(isdiag.diagnose, rule="mse"),
}
# The mean of w h has the units of h, but moves with its origin as the mean of w does.
OF_UNITS = OF_H | {
    **{
        f"snis(smooth={smooth}, normalize=False)": partial(isdiag.snis, smooth=smooth, normalize=False)
        for smooth in SMOOTHINGS
    },
    "control_variate(gamma=0.5)": partial(isdiag.control_variate, gamma=0.5, expected_weight=0.95),
    "control_variate(second_log_w)": lambda log_w, h: isdiag.control_variate(
        log_w, h, second_log_w=0.5 * log_w[..., -50:]
    ),
}


def cases(n=400):
    """Log-weights and h whose every value is a multiple of 2^-10 below 16, so that a h + b is exact."""
    rng = np.random.default_rng(20261122)
    x = rng.normal(size=n)
    h = np.round(1024 * x) / 1024
    yield "light", 0.3 * x - 0.045, h
    yield "heavy", 2.0 * x - 2.0, h
    yield "independent", rng.normal(size=n), h
    yield "one draw has it all", np.log(n) - 30.0 * (np.arange(n) != 3), h
    yield "equal", np.zeros(n), h
    yield "a rare value", 0.1 * x, (np.arange(n) < 3) + 0.5
    yield "two values", 0.1 * x, (x > 0) - 0.25
    yield "constant", 0.3 * x, np.full(n, 0.375)
    yield "some without weight", np.where(np.arange(n) < 40, -np.inf, 0.3 * x), h
    yield "few", x[:20], h[:20]
    vector = np.stack([h, h * h.round(), np.full(n, 1.5), (x > 0) * 1.0], axis=-1)
    yield "vector", 0.3 * x, vector
    yield "batch", 0.3 * rng.normal(size=(3, n)), np.stack([h, np.abs(h), np.full(n, 2.0)])


CASES = {name: (log_w, h) for name, log_w, h in cases()}
each_case = pytest.mark.parametrize("case", CASES)


def power(exponent):
    return 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)


@np.errstate(over="ignore")
def assert_moved(found, base, a, b, h, rtol, rounded=False):
    """That `found` is what `base` becomes where h becomes a h + b; `rounded` says that this rounds h."""
    found, base = rows_of(found), rows_of(base)
    size = abs(a) * np.abs(h).max()
    rounding = 32 * np.spacing(size + abs(b))
    for name, value in found.items():
        prefix, _, last = name.rpartition(".")
        before = SIDES.get(last, last) if a < 0 else last
        expected = base[f"{prefix}.{before}" if prefix else before]
        if (last in ("plain", "std_error_plain") and b) or (
            last == "coefficient" and np.all(expected == 0.0)
        ):
            continue  # the mean of w h moves with that of w; equal weights control nothing
        if np.asarray(value).dtype.kind != "f":
            np.testing.assert_array_equal(value, expected, err_msg=name)
            continue
        atol = 0.0
        if last in PLACES:
            expected, atol = a * np.asarray(expected) + b, rounding
        elif last in DISTANCES:
            # Of nearly nothing it is the root of what is left of larger numbers.
            expected = abs(a) * np.asarray(expected)
            atol = (1e-7 if "tempering" in last else 1e-10) * size if rounded else 0.0
        elif last in SIGNED:
            expected, atol = a * np.asarray(expected), 1e-15 * size
        elif last in SQUARES:
            expected, atol = np.asarray(expected) * a * a, 1e-315
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=name)


@each_case
@pytest.mark.parametrize("call", OF_UNITS)
def test_units_of_h_do_not_matter(case, call):
    log_w, h = CASES[case]
    function = OF_UNITS[call]
    base = function(log_w, h)
    for exponent in (-1000, -537, -200, -100, -60, 1, 100, 200, 511, 1000):
        for a in (power(exponent), -power(exponent)):
            assert_moved(function(log_w, a * h), base, a, 0.0, h, 1e-12)
    for a in (3.0, -0.1, 1e-200, 1e-100, 1e80, 1e155, 1e300):
        assert_moved(function(log_w, a * h), base, a, 0.0, h, 1e-9, rounded=True)


@each_case
@pytest.mark.parametrize("call", [call for call in OF_H if "proposal" not in call])
def test_the_origin_of_h_does_not_matter(case, call):
    log_w, h = CASES[case]
    function = OF_H[call]
    base = function(log_w, h)
    for exponent in (-1000, -300, 0, 300, 900):
        a = power(exponent)
        for origin in (1.0, -3.5, 2.0**20, -(2.0**32), 2.0**38):
            moved = a * h + a * origin
            np.testing.assert_array_equal(moved / a - origin, h)
            assert_moved(function(log_w, moved), base, a, a * origin, h, 1e-9)


def test_rows_and_components_have_units_of_their_own(rng):
    log_w, h = 0.3 * rng.normal(size=(3, 300)), rng.normal(size=(3, 300, 2))
    a = np.array([[power(-1000), power(1000)], [1.0, power(-200)], [power(300), 1.0]])
    moved = a[:, None, :] * h
    for name, function in OF_UNITS.items():
        whole = rows_of(function(log_w, moved))
        base = rows_of(function(log_w, h))
        for field in ("estimate", "std_error", "low", "bias", "estimate.std_error", "selection.estimate"):
            if field in whole:
                expected = np.asarray(base[field]) * (a if base[field].ndim == 2 else a[..., None])
                np.testing.assert_allclose(whole[field], expected, rtol=1e-11, err_msg=f"{name} {field}")


def test_single_precision_h_of_any_units(rng):
    log_w, h = 0.3 * rng.normal(size=300), rng.normal(size=300).astype(np.float32)
    for name, function in OF_UNITS.items():
        base = function(log_w, h)
        for exponent in (-100, -60, 60, 100):
            moved = h * np.float32(power(exponent))
            assert moved.dtype == np.float32
            assert_same(function(log_w, moved), function(log_w, moved.astype(np.float64)), rtol=1e-11)
            assert_moved(function(log_w, moved), base, power(exponent), 0.0, h.astype(float), 1e-11), name


def test_an_interval_has_the_units_of_h():
    g = np.random.default_rng(0)
    log_w, h = 0.3 * g.normal(size=2000), g.normal(size=2000)
    for c in (1.0, 1e-100, 1e80, 1e-200, 1e155, 1e300):
        result = isdiag.snis(log_w, c * h)
        assert (result.high - result.low) / c == pytest.approx(0.09046, abs=1e-3)
        assert result.status is Status.OK
    assert isdiag.snis(np.zeros(4), 2.0**511 * np.array([-1.0, 1, -1, 1])).std_error == 2.0**510


def test_seconds_and_nanoseconds_since_1970():
    g = np.random.default_rng(0)
    log_w, h = 0.3 * g.normal(size=2000), g.normal(size=2000)
    assert isdiag.snis(log_w, 1e12 + h).status is Status.OK
    near = isdiag.snis(log_w, np.arange(2000))
    far = isdiag.snis(log_w, np.int64(1_700_000_000_000_000_000) + 1024 * np.arange(2000))
    assert far.status is near.status is Status.OK
    assert far.std_error == pytest.approx(1024 * near.std_error, rel=1e-12)
    gps = 1.4e9 + np.round(2.0**10 * h) / 2.0**10
    assert isdiag.snis(log_w, gps).std_error == pytest.approx(
        isdiag.snis(log_w, gps - 1.4e9).std_error, rel=1e-9
    )


@pytest.mark.parametrize("lead", [20.0, 60.0, 600.0])
def test_h_that_varies_beside_one_heavy_draw_is_not_constant(lead):
    log_w = np.where(np.arange(400) == 3, lead, 0.0)
    for h in (np.arange(400.0), np.arange(400) == 3, 1e12 + np.arange(400.0)):
        off = 1.0 * h - h[3]
        expected = np.exp(-lead) * np.hypot(off.sum(), np.sqrt((off**2).sum()))
        for smooth in (False, "psis"):
            result = isdiag.snis(log_w, h, smooth=smooth)
            assert result.status is Status.ERROR_UNCERTAIN
            assert result.std_error == pytest.approx(expected, rel=2e-4, abs=0)
        assert isdiag.expectation_diagnostics(log_w, h).status is Status.ERROR_UNCERTAIN
    assert isdiag.snis(log_w, np.full(400, 1e300)).status is Status.DEGENERATE_TAIL


def test_constant_h_is_compared_and_not_measured(rng):
    log_w = 0.3 * rng.normal(size=500)
    for level in (0.1, -1e300, 1e-290, 1e300):
        h = np.full(500, level)
        results = [
            f(log_w, h) for f in (isdiag.snis, isdiag.expectation_diagnostics, isdiag.confidence_interval)
        ]
        results.append(isdiag.select_gamma(log_w, rule="mse", h=h))
        assert {result.status for result in results} == {Status.CONSTANT_H}, level
        h[7] = np.nextafter(level, 1.0)
        assert isdiag.snis(log_w, h).status is Status.ERROR_UNCERTAIN, level  # one draw carries the error
        assert isdiag.select_gamma(log_w, rule="mse", h=h).status is Status.ERROR_UNCERTAIN
        h[7], log_w[7] = np.nan, -np.inf
        assert isdiag.snis(log_w, h).status is Status.CONSTANT_H
        log_w[7] = 0.0


# --------------------------------------------------------------------------------------- 0 times inf


@pytest.mark.parametrize("smooth", [False, "psis", "truncate"])
def test_a_product_of_zero_and_infinity_does_not_occur(smooth):
    as_given = partial(isdiag.snis, normalize=False, smooth=smooth)
    for zeros in (np.zeros(2), np.zeros((2, 3))):
        nothing = as_given([710.0, 711.0], zeros)
        for value in (nothing.estimate, nothing.std_error):
            np.testing.assert_array_equal(value, np.zeros(zeros.shape[1:]))
        np.testing.assert_array_equal(nothing.high, np.full(zeros.shape[1:], np.inf))
    # Of two draws the lesser weight stays, and cutting takes some of the larger.
    low, high = (1.0, 1.0) if smooth != "truncate" else (0.9, 1.0 - 1e-12)
    large = float(mpmath.mpf("1e-300") * (mpmath.exp(710) + mpmath.exp(711)) / 2)
    assert large == pytest.approx(4.15e8, rel=1e-3)
    assert low - 1e-12 <= as_given([710.0, 711.0], [1e-300] * 2).estimate / large <= high + 1e-12
    small = float(mpmath.mpf("1e300") * (mpmath.exp(-760) + mpmath.exp(-761)) / 2)
    assert small == pytest.approx(5.9e-31, rel=1e-2)
    assert low - 1e-12 <= as_given([-760.0, -761.0], [1e300] * 2).estimate / small <= high + 1e-12


# ------------------------------------------------------------------------------- h that is not finite

# What takes h and has an estimate of each component, by the fields to look at.
WITH_ESTIMATES = {
    name: function
    for name, function in OF_UNITS.items()
    if not name.startswith(("kong_owen", "expectation", "mse_curve", "diagnose"))
}


def all_of(function, log_w, h):
    """(the result, the messages of its warnings)."""
    with pytest.warns(isdiag.NonFiniteWarning) as caught:
        result = function(log_w, h)
    return result, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("call", OF_UNITS)
def test_nan_in_h_is_named_and_stays_in_its_component(rng, call):
    log_w, h = 0.3 * rng.normal(size=400), rng.normal(size=(400, 3))
    function = OF_UNITS[call]
    clean = rows_of(function(log_w, h))
    h[3, 1] = np.nan
    result, messages = all_of(function, log_w, h)
    assert len(messages) == 1
    assert "1 of 1 rows have an h that is not finite" in messages[0]
    for name, value in rows_of(result).items():
        value, before = np.asarray(value), np.asarray(clean[name])
        of_component = value.shape[:1] == (3,) and name.rpartition(".")[2] != "gamma"
        # The rule "mse" takes one gamma for all components, and without it nothing at it is known.
        if not of_component or "tempered" in name:
            continue
        np.testing.assert_array_equal(value[[0, 2]], before[[0, 2]], err_msg=name)
        if name.endswith("status"):
            assert value[1] == Status.NOT_FINITE_H, name
        elif value.dtype.kind == "f" and not name.endswith("error_draws"):
            assert np.isnan(value[1]).all(), name
    if call.startswith("diagnose"):
        assert result.ok.tolist()[1] is False


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_h_is_looked_at_only_where_there_is_weight(rng, value):
    log_w, h = 0.3 * rng.normal(size=400), rng.normal(size=400)
    log_w[:40] = -np.inf
    for name, function in OF_UNITS.items():
        if "proposal" in name:
            continue  # there every draw counts
        expected = function(log_w, h)
        odd = np.where(np.arange(400) < 40, value, h)
        assert_same(function(log_w, odd), expected)


def test_rows_with_such_an_h_are_counted_once(rng):
    log_w, h = 0.3 * rng.normal(size=(3, 400)), rng.normal(size=(3, 400))
    log_w[1, 5], h[2, 7] = np.nan, np.nan
    for function in WITH_ESTIMATES.values():
        result, messages = all_of(function, log_w, h)
        assert messages == [
            "1 of 3 rows hold NaN or +inf and 1 of 3 rows have an h that is not finite: their results are NaN"
        ]
        assert result.status.tolist() == [result.status[0], Status.NOT_FINITE, Status.NOT_FINITE_H]
        assert result.status[0] != Status.NOT_FINITE_H
        assert np.isnan(result.estimate).tolist() == [False, True, True]


# ------------------------------------------------------------------------------------------- one draw


@pytest.mark.parametrize("masked", [False, True])
def test_of_one_draw_nothing_is_known(masked):
    log_w, h = ([0.3, 9.0], [5.0, 7.0]) if masked else ([0.3], [5.0])
    where = [True, False] if masked else None
    diagnosis = isdiag.diagnose(log_w, h, where=where)
    assert diagnosis.status is Status.ONE_DRAW
    assert not diagnosis.ok
    assert not isdiag.diagnose(log_w, where=where).ok
    assert "can be believed" not in str(diagnosis)
    for smooth in SMOOTHINGS:
        for normalize in (True, False):
            result = isdiag.snis(log_w, h, smooth=smooth, normalize=normalize, where=where)
            assert result.status is Status.ONE_DRAW
            assert result.estimate == pytest.approx(5.0 if normalize else 5.0 * np.exp(0.3), rel=1e-14)
            assert (result.khat, result.ess) == (np.inf, 1.0)
            errors = (result.std_error, result.bias, result.low, result.high, result.log_z_std_error)
            assert np.isnan([*errors, result.error_draws]).all()
            assert result.log_z == pytest.approx(0.3, rel=1e-15)
    found = isdiag.psis(log_w, normalize=False, where=where)
    assert (found.status, found.khat, found.ess) == (Status.ONE_DRAW, np.inf, 1.0)
    assert found.log_weights[0] == 0.3
    for rule in ("joint", "refit"):
        chosen = isdiag.select_gamma(log_w, rule=rule, gamma_max=0.8, where=where)
        assert (chosen.status, chosen.gamma, chosen.khat) == (Status.ONE_DRAW, 0.8, np.inf)
    accurate = isdiag.select_gamma(log_w, rule="mse", h=h, where=where)
    assert (accurate.status, accurate.gamma, accurate.estimate) == (Status.ONE_DRAW, 1.0, 5.0)
    assert np.isnan([accurate.std_error, accurate.bias, accurate.mse, accurate.error_draws]).all()
    expectation = isdiag.expectation_diagnostics(log_w, h, where=where)
    assert expectation.status is Status.ONE_DRAW
    assert np.isnan([expectation.ess, expectation.error_draws]).all()
    controlled = isdiag.control_variate(log_w, h, where=where)
    assert controlled.status is Status.ONE_DRAW
    assert np.isnan([controlled.std_error, controlled.std_error_plain]).all()
    interval = isdiag.confidence_interval(log_w, h, method="delta", where=where)
    assert interval.status is Status.ONE_DRAW
    assert np.isnan([interval.low, interval.high]).all()
    assert isdiag.confidence_interval(log_w, h, where=where).claim == "Nothing is known of the error."
    tested = isdiag.finite_variance_test(log_w, where=where)
    assert tested.status is Status.ONE_DRAW
    assert np.isnan([tested.statistic, tested.p_value, tested.k]).all()


# ----------------------------------------------------------------------------- which status is named

RARE = np.r_[np.zeros(39), 1.0]


def test_few_draws_behind_an_error_are_named_whatever_the_weights(rng):
    # 1.05 draws carry the error of each; equal weights said FLAT of it.
    for log_w in (np.zeros(40), np.full(40, 3.0)):
        assert isdiag.snis(log_w, RARE).error_draws == pytest.approx(1.05, abs=0.01)
        for function in (isdiag.snis, isdiag.confidence_interval, isdiag.expectation_diagnostics):
            assert function(log_w, RARE).status is Status.ERROR_UNCERTAIN
        assert isdiag.diagnose(log_w, RARE).status is Status.ERROR_UNCERTAIN
        assert isdiag.select_gamma(log_w, rule="mse", h=RARE).status is Status.ERROR_UNCERTAIN
    nearly = 1e-3 * rng.normal(size=40)
    assert isdiag.snis(nearly, RARE).status is Status.ERROR_UNCERTAIN
    assert isdiag.control_variate(np.zeros(40), RARE).status is Status.ERROR_UNCERTAIN
    assert isdiag.control_variate(np.zeros(60), np.arange(60.0)).status is Status.FLAT


HALF = partial(isdiag.alpha_divergence, alpha=0.5)


def test_control_variates_and_divergences_count_the_draws_behind_their_error(rng):
    x = rng.normal(size=4000)
    assert isdiag.control_variate(0.3 * x - 0.045, np.sin(3 * x)).status is Status.OK
    assert isdiag.control_variate(0.3 * x - 0.045, x > 3.0).status is Status.ERROR_UNCERTAIN
    for normalize in (True, False):
        for call, light in (
            (isdiag.kl_divergence, 0.3),
            (isdiag.chi2_divergence, 0.1),
            (partial(isdiag.renyi_divergence, alpha=2.0), 0.1),
            (HALF, 0.3),
            (partial(isdiag.log_moment, gamma=2.0), 0.3),
        ):
            for s, carried in ((light, True), (2.5, False)):
                log_w = s * x - np.log(np.exp(s * x).mean())
                status = call(log_w, normalize=normalize).status
                if carried or call is not HALF:  # its tail is that of w**0.5
                    assert (status is Status.OK) == carried, (call, s)


def test_statuses_in_their_order(rng):
    h = rng.normal(size=400)
    log_w = np.full(400, -np.inf)
    log_w[:2] = 0.0
    assert isdiag.select_gamma(log_w, rule="mse", h=h).status is Status.ERROR_UNCERTAIN
    assert isdiag.select_gamma(log_w).status is Status.INFEASIBLE
    # NOT_FINITE, NO_WEIGHT, ONE_DRAW, NOT_FINITE_H and so on: each over all that come after it.
    bad = np.full(400, np.nan)
    rows = np.stack([np.full(400, np.nan), np.full(400, -np.inf), np.zeros(400)])
    result = quiet(isdiag.snis, rows, np.stack([bad, bad, bad]), normalize=False)
    assert result.status.tolist() == [Status.NOT_FINITE, Status.NO_WEIGHT, Status.NOT_FINITE_H]
    assert quiet(isdiag.snis, [9.0], [np.nan], normalize=False).status is Status.ONE_DRAW
    assert isdiag.snis(np.full(400, 9.0), RARE.repeat(10), normalize=False).status is Status.NOT_NORMALIZED
    assert isdiag.snis(np.full(20, 9.0), RARE[:20] + h[:20], normalize=False).status is Status.ERROR_ROUGH
    levels = np.repeat([0.0, -5.0], 200)
    assert isdiag.snis(levels, np.ones(400)).status is Status.DEGENERATE_TAIL
    assert isdiag.snis(np.zeros(400), np.ones(400)).status is Status.CONSTANT_H
    assert isdiag.expectation_diagnostics(np.zeros(400), h > 0).status is Status.TWO_VALUED_H


def test_a_diagnosis_says_what_became_of_its_estimate():
    x = np.random.default_rng(1).normal(size=2000)  # the first example of the README
    one = isdiag.diagnose(x - 0.5, x)
    assert one.status is Status.ERROR_UNCERTAIN
    assert "ERROR_UNCERTAIN" in str(one)
    assert one.to_dict()["status"] == one.to_dict()["estimate"]["status"] == "ERROR_UNCERTAIN"
    several = isdiag.diagnose(x - 0.5, np.stack([x, x**2], axis=-1))
    for estimate in several.estimate.estimate:
        assert f"{estimate:.6g} +- " in str(several)
    batch = isdiag.diagnose((x - 0.5).reshape(4, 500), x.reshape(4, 500))
    for estimate in batch.estimate.estimate:
        assert f"{estimate:.6g} +- " in str(batch)


# ------------------------------------------------------------------- weights that are not normalised


def test_weights_off_their_mean_are_named():
    x = np.random.default_rng(0).normal(size=4000)
    result = isdiag.control_variate(x - 10.5, x)
    assert result.estimate == pytest.approx(2.32922, abs=1e-5)  # the value is kept
    assert result.status is Status.NOT_NORMALIZED
    assert isdiag.control_variate(x - 0.5, x).status is not Status.NOT_NORMALIZED
    as_given = (
        lambda log_w: isdiag.snis(log_w, x, normalize=False),
        lambda log_w: isdiag.snis(log_w, x, smooth="psis", normalize=False),
        lambda log_w: isdiag.snis(log_w, x, smooth="truncate", normalize=False),
        lambda log_w: isdiag.kl_divergence(log_w, normalize=False),
        lambda log_w: isdiag.chi2_divergence(log_w, normalize=False),
        lambda log_w: isdiag.renyi_divergence(log_w, 2.0, normalize=False),
        lambda log_w: isdiag.alpha_divergence(log_w, 0.5, normalize=False),
    )
    for function in as_given:
        for off in (-10.0, -0.2, 0.2, 10.0):
            assert function(x - 0.5 + off).status is Status.NOT_NORMALIZED
        assert function(x - 0.5).status is not Status.NOT_NORMALIZED
    # Where the weights are divided by their sum, or tempered, or their moment is asked for, no mean is wrong.
    assert isdiag.snis(x - 10.5, x).status is not Status.NOT_NORMALIZED
    assert isdiag.snis(x - 10.5, x, gamma=0.5, normalize=False).status is not Status.NOT_NORMALIZED
    assert isdiag.kl_divergence(x - 10.5).status is not Status.NOT_NORMALIZED
    assert isdiag.log_moment(x - 10.5, 1.0, normalize=False).status is not Status.NOT_NORMALIZED
    second = isdiag.control_variate(x - 10.5, x, second_log_w=x[::-1] - 10.5)
    assert second.status is not Status.NOT_NORMALIZED


def test_five_standard_errors_and_25_draws_make_weights_unnormalised(rng):
    log_w = 0.3 * rng.normal(size=2000)
    log_w -= np.log(np.exp(log_w).mean())
    error = isdiag.snis(log_w, log_w).log_z_std_error
    for errors in (4.9, -4.9, 5.1, -5.1):
        result = isdiag.snis(log_w + errors * error, log_w, normalize=False)
        assert (result.status is Status.NOT_NORMALIZED) == (abs(errors) > 5)
    assert isdiag.snis(np.full(24, 1.0), np.arange(24.0), normalize=False).status is Status.ERROR_ROUGH
    assert isdiag.snis(np.full(25, 1.0), np.arange(25.0), normalize=False).status is Status.NOT_NORMALIZED
    assert (
        isdiag.snis(np.full(25, 1e-12), np.arange(25.0), normalize=False).status is not Status.NOT_NORMALIZED
    )


# ---------------------------------------------------------------------------------- extreme arguments


def test_log_moments_of_no_weight_are_those_of_zero():
    for gamma in (0.0, 0.3, 1.0, 2.0):
        for log_w in (np.full(9, -np.inf), np.full((2, 9), -np.inf)):
            found = isdiag.log_moment(log_w, gamma)
            np.testing.assert_array_equal(found.estimate, -np.inf)
            assert np.isnan(found.std_error).all()
            assert (np.asarray(found.status) == Status.NO_WEIGHT).all()


def test_no_gamma_is_too_large():
    z = 3 * np.random.default_rng(0).normal(size=1000)
    for gamma_max in (1.0, 1e10, 1e12, 1e100, 1e300, 1.7e308):
        refitted = isdiag.select_gamma(z, rule="refit", ess_min=0.0, gamma_max=gamma_max)
        assert refitted.gamma == pytest.approx(0.608737, abs=1e-6)
        both = isdiag.select_gamma(z, rule="refit", ess_min=0.05, k_max=0.3, gamma_max=gamma_max)
        assert both.khat_tempered <= 0.3
        assert both.khat_tempered == pytest.approx(0.3, abs=1e-6)
    with pytest.raises(ValueError, match="gamma_max must be finite and above 0, got inf"):
        isdiag.select_gamma(np.zeros(100), gamma_max=np.inf)


def test_every_function_takes_the_largest_gamma():
    log_w, h = np.array([0.0, -1.0]), np.array([1.0, 2.0])
    for gamma in (1.2e308, 1.25e308, 1.7e308):
        np.testing.assert_array_equal(isdiag.temper(log_w, gamma), [0.0, -gamma])
        for kind in ("kish", "perplexity", "max"):
            assert isdiag.ess(log_w, gamma=gamma, kind=kind) == 1.0
        for smooth in (False, "psis", "truncate"):
            assert isdiag.snis(log_w, h, gamma=gamma, smooth=smooth).estimate == 1.0
        assert isdiag.kong_owen_bias(log_w, h, gamma=gamma) == 0.0
        assert isdiag.mse_curve(log_w, h, [gamma]).estimate.tolist() == [1.0]
        assert isdiag.log_moment(log_w, gamma).estimate == pytest.approx(-np.log(2), rel=1e-15)
        assert isdiag.geometric_path(0 * log_w, log_w, [0.0, gamma]).ess.tolist() == [2.0, 1.0]
        assert isdiag.pareto_khat(np.arange(40.0), gamma=gamma) == np.inf
        assert isdiag.control_variate(log_w, h, gamma=gamma, expected_weight=0.5).estimate == 0.5


def test_log_weights_at_the_ends_of_float64():
    far = np.array([1.7e308, -1.7e308])
    np.testing.assert_array_equal(isdiag.temper(far, 0.0), np.log([0.5, 0.5]))
    np.testing.assert_array_equal(isdiag.temper(far, 0.5), [0.0, -np.finfo(float).max / 2])
    for smooth in (False, "psis", "truncate"):
        result = isdiag.snis([1e300, 2e300], [1.0, 2.0], gamma=1e10, smooth=smooth)
        assert (result.estimate, result.ess) == (2.0, 1.0)
        assert isdiag.snis([1e300, 1e300], [1.0, 2.0], gamma=1e10, smooth=smooth).estimate == 1.5


def test_helpers_at_the_ends_of_their_arguments():
    assert isdiag.tail_length(1e40) > 2**61
    assert isdiag.tail_length([1e40, 100]).tolist()[1] == 20
    half = np.float16(0.8)
    assert (
        isdiag.min_sample_size(half) == isdiag.min_sample_size(float(half)) == pytest.approx(98883, rel=1e-4)
    )
    assert isdiag.convergence_rate(np.float16(0.3), np.uint8(200)) == isdiag.convergence_rate(
        float(np.float16(0.3)), 200
    )
    for n in (np.uint8(200), np.array([200], np.uint8), np.int16(200)):
        np.testing.assert_array_equal(isdiag.khat_threshold(n), isdiag.khat_threshold(200))
        np.testing.assert_array_equal(isdiag.tail_length(n), isdiag.tail_length(200))


def test_ess_is_no_more_than_the_draws_of_positive_weight(rng):
    log_w = np.array([1.99, 0.09, 1.3, 0.08, 2.8] * 8)
    for gamma in (0.0, 1e-300, 1e-16, 1e-10, 1e-9, 1e-8, 1e-7):
        for kind in ("kish", "max"):
            assert isdiag.ess(log_w, gamma=gamma, kind=kind) <= 40.0
        assert isdiag.snis(log_w, log_w, gamma=gamma).ess <= 40.0
        assert isdiag.geometric_path(0 * log_w, log_w, [gamma]).ess[0] <= 40.0
        for each in (1e-9 * rng.normal(size=(200, 37)), 1e-3 * rng.normal(size=(200, 37))):
            each[:, :5] = -np.inf
            assert (isdiag.ess(each, gamma=gamma) <= 32.0).all()


# ---------------------------------------------------------------------------- weights nearly equal

SPREADS = (1.0, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)


@pytest.mark.parametrize("spread", SPREADS)
def test_errors_of_nearly_equal_weights(rng, spread):
    log_w = spread * rng.normal(size=300)
    with mpmath.workdps(60):
        w = [mpmath.exp(mpmath.mpf(float(x))) for x in log_w]
        mean = mpmath.fsum(w) / 300
        ratio = [x / mean for x in w]
        squares = mpmath.fsum((r - 1) ** 2 for r in ratio)
        log_z_error = float(mpmath.sqrt(squares) / 300)
        chi2 = squares / 300
        influence = [r**2 - (1 + chi2) - 2 * (1 + chi2) * (r - 1) for r in ratio]
        chi2_error = float(mpmath.sqrt(mpmath.fsum(x**2 for x in influence)) / 300)
    assert isdiag.snis(log_w, log_w).log_z_std_error == pytest.approx(log_z_error, rel=1e-12, abs=0)
    with_zero = isdiag.snis(np.r_[log_w, -np.inf], np.r_[log_w, 0.0])
    assert with_zero.log_z_std_error == pytest.approx(np.hypot(log_z_error, (300 * 301) ** -0.5), rel=1e-12)
    path = isdiag.geometric_path(np.zeros(300), log_w, [0.0, 1.0])
    assert path.log_z_std_error[1] == pytest.approx(log_z_error, rel=1e-12, abs=0)
    found = isdiag.chi2_divergence(log_w)
    if found.status is not Status.FLAT:
        assert found.estimate == pytest.approx(float(chi2), rel=1e-12, abs=0)
        assert found.std_error == pytest.approx(chi2_error, rel=1e-12, abs=0)


@pytest.mark.parametrize("spread", SPREADS)
def test_a_control_variate_of_nearly_equal_weights(rng, spread):
    log_w, h = spread * rng.normal(size=300), rng.normal(size=300)
    _, slope, std_error = exact_regression(log_w, h)
    found = isdiag.control_variate(log_w, h)
    assert found.coefficient == pytest.approx(slope, rel=1e-9)
    assert found.std_error == pytest.approx(std_error, rel=1e-9)


def exact_regression(log_w, h):
    """(estimate, coefficient, standard error) of the regression of w h on w, E[w] = 1."""
    n = len(h)
    with mpmath.workdps(60):
        w = [mpmath.exp(mpmath.mpf(float(x))) for x in log_w]
        y = [a * mpmath.mpf(float(b)) for a, b in zip(w, h, strict=True)]
        w_mean, y_mean = mpmath.fsum(w) / n, mpmath.fsum(y) / n
        pairs = list(zip(w, y, strict=True))
        cross = mpmath.fsum((a - w_mean) * (b - y_mean) for a, b in pairs)
        slope = cross / mpmath.fsum((a - w_mean) ** 2 for a in w)
        rest = mpmath.fsum((b - y_mean - slope * (a - w_mean)) ** 2 for a, b in pairs)
        estimate = y_mean - slope * (w_mean - 1)
        return float(estimate), float(slope), float(mpmath.sqrt(rest / (n - 2) / n))


# ------------------------------------------------------------------- what one returns the next takes


calls_with_gamma = pytest.mark.parametrize("call", [c for c in CALLS if c.takes("gamma")], ids=repr)


@calls_with_gamma
def test_the_gamma_of_a_row_without_weight_is_taken(call):
    none = np.full(50, -np.inf)
    known = {"expected_weight": 0.9} if call.takes("expected_weight") else {}
    chosen = isdiag.select_gamma(none).gamma
    assert np.isnan(chosen)
    result = rows_of(call(none, gamma=chosen, **known))
    batched = rows_of(call(none[None], gamma=isdiag.select_gamma(none[None]).gamma, **known))
    for name, value in result.items():
        np.testing.assert_array_equal(value, np.asarray(batched[name])[0], err_msg=name)
    if call.function.name == "temper":
        assert (result[""] == -np.inf).all()


@calls_with_gamma
def test_of_weights_nothing_is_known_at_an_unknown_gamma(rng, call):
    known = {"expected_weight": 0.9} if call.takes("expected_weight") else {}
    for name, value in rows_of(call(rng.normal(size=50), gamma=np.nan, **known)).items():
        if name in ("", "estimate", "std_error", "khat", "ess"):
            assert np.isnan(value).all(), name


def test_options_of_other_rules_are_looked_at(rng):
    x = rng.normal(size=40)
    for options, error in (
        ({"ess_min": -5}, ValueError),
        ({"ess_min": "abc"}, TypeError),
        ({"k_max": -1}, ValueError),
        ({"k_max": "a"}, TypeError),
        ({"gamma_max": 0}, ValueError),
    ):
        (name,) = options
        with pytest.raises(error, match=f"{name} must be "):
            isdiag.diagnose(x, x, rule="mse", **options)
        with pytest.raises(error, match=f"{name} must be "):
            isdiag.select_gamma(x, h=x, rule="mse", **options)


# --------------------------------------------------------------------------------------- coarse dtypes


def test_flat_does_not_promise_what_ess_denies():
    ml_dtypes = optional("ml_dtypes")
    steps = np.where(np.arange(200) < 10, -1000, -1004).astype(ml_dtypes.bfloat16)
    assert isdiag.ess(steps) / 200 == pytest.approx(0.09, abs=0.001)
    for function in (isdiag.psis, isdiag.select_gamma, isdiag.diagnose):
        assert function(steps).status is Status.DEGENERATE_TAIL
    for dtype in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64):
        for level in (1.0, 10.0, 300.0, 1000.0, 60000.0):
            low = np.array(level).astype(dtype)
            above = low.view(f"u{low.dtype.itemsize}") + 1
            row = np.where(np.arange(200) < 100, low, above.astype(above.dtype).view(dtype)).astype(dtype)
            half_step = 0.5 * (float(row[-1]) - float(row[0]))
            found = isdiag.psis(row)
            assert half_step > 0
            assert found.status is (Status.FLAT if half_step <= 0.01 else Status.DEGENERATE_TAIL)
            if found.status is Status.FLAT:
                assert found.ess == pytest.approx(200, rel=1.01e-4)


def test_messages_name_the_argument_that_was_given():
    with pytest.raises(ValueError, match="where of shape") as caught:
        isdiag.geometric_path(np.zeros(3), np.zeros(3), [0.0, 1.0], where=np.ones(2, bool))
    assert "log_w" not in str(caught.value)


# ------------------------------------------------------------------------------------ ends of all kinds


@each_case
def test_the_bias_by_the_proposal_does_not_depend_on_the_origin(case):
    log_w, h = CASES[case]
    bias = partial(isdiag.kong_owen_bias, covariance="proposal")
    for origin in (2.0**20, 2.0**38):
        assert_moved(bias(log_w, h + origin), bias(log_w, h), 1.0, origin, h, 1e-9)


@pytest.mark.parametrize("method", ["hall", "delta"])
def test_one_draw_has_no_interval(method):
    interval = isdiag.confidence_interval([0.3], [5.0], method=method)
    assert np.isnan([interval.low, interval.high]).all()


def test_one_draw_has_no_errors_in_curves_and_paths():
    curve = isdiag.mse_curve([0.3], [5.0], [1.0])
    assert np.isnan([curve.std_error, curve.bias, curve.mse, curve.tempering_bias_std_error]).all()
    assert np.isnan(isdiag.geometric_path([0.0], [0.3], [0.0, 1.0]).log_z_std_error[1])
    assert np.isnan(isdiag.stepping_stone(np.zeros((2, 1)), [0.0, 1.0]).std_error)


def test_one_draw_has_no_bias():
    assert np.isnan(isdiag.kong_owen_bias([0.3], [5.0]))


def test_constant_h_is_seen_by_a_control_variate(rng):
    log_w = 0.3 * rng.normal(size=500) - 0.045
    assert isdiag.control_variate(log_w, np.full(500, 0.1)).status is Status.CONSTANT_H


def test_an_error_that_underflows_is_not_none(rng):
    h = np.where(np.arange(500) == 7, 5e-324, 0.0)
    assert isdiag.snis(0.3 * rng.normal(size=500), h).status is Status.ERROR_UNCERTAIN
    log_w, h = np.where(np.arange(500) == 7, 60.0, 0.0), power(-1000) * np.arange(500.0)
    assert isdiag.snis(log_w, h).status is Status.ERROR_UNCERTAIN


def test_the_perplexity_is_no_more_than_the_draws():
    log_w = np.array([1.99, 0.09, 1.3, 0.08, 2.8] * 8)
    assert isdiag.ess(log_w, gamma=1e-16, kind="perplexity") <= 40.0


def test_the_error_of_the_largest_log_normal_is_infinite():
    assert isdiag.lognormal.mse(1e100, 1.7e308, 1000.0) == np.inf


def test_smoothed_weights_go_into_memory_of_the_other_byte_order(rng):
    log_w = rng.normal(size=2000)
    expected = isdiag.psis(log_w).log_weights
    out = np.empty(2000, np.dtype(np.float64).newbyteorder())
    isdiag.psis(log_w, out=out)
    np.testing.assert_array_equal(out, expected)


def test_statuses_are_named_in_print():
    printed = repr(isdiag.psis(np.zeros((2, 40))))
    assert printed.count("FLAT") == 2


@pytest.mark.parametrize("reshape", EVERY_RESHAPE, ids=repr)
def test_reshapes_of_the_largest_log_weights(reshape):
    log_w = np.array([1e308, -1e308, 1.7e308, -1.7e308, 800.0, -800.0, -np.inf])
    for advantage in (1.0, -1.0) if not isinstance(reshape, RewardWeighted) else (1.0,):
        assert not np.isnan(reshape(log_w, advantage).log_f).any()


def test_the_test_of_a_variance_takes_a_range_beyond_float64():
    log_w = 1e105 * np.array([3.5] * 5 + [0.7, 0.7, 0.9, 0.7, 3.3])
    found = isdiag.finite_variance_test(log_w, gamma=1e300, tail_length=6)
    assert found.p_value > 0.99  # five of the six largest are equal, the others are nothing next to them


@pytest.mark.parametrize("call", OF_UNITS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_h_that_is_not_finite_has_no_numbers(rng, call, bad):
    log_w, h = 0.3 * rng.normal(size=400), rng.normal(size=(400, 2))
    whole = rows_of(OF_UNITS[call](log_w, h))
    h[3, 1] = bad
    for name, value in rows_of(quiet(OF_UNITS[call], log_w, h)).items():
        field = name.rpartition(".")[2]
        if field in PLACES | DISTANCES | SIGNED and np.shape(value)[:1] == (2,):
            assert np.isnan(value[1]).all(), name
            if "rule=mse" not in call:  # there gamma is that of both
                assert_same(value[:1], whole[name][:1])


def test_h_that_is_not_finite_has_no_draws_behind_its_error(rng):
    log_w, h = 0.3 * rng.normal(size=400), rng.normal(size=400)
    h[3] = np.nan
    assert np.isnan(quiet(isdiag.select_gamma, log_w, rule="mse", h=h).error_draws)


def test_a_component_that_is_not_finite_has_no_part_in_gamma(rng):
    log_w, h = 1.5 * rng.normal(size=400), rng.normal(size=(400, 2))
    alone = isdiag.select_gamma(log_w, rule="mse", h=h[:, :1])
    h[3, 1] = np.nan
    assert quiet(isdiag.select_gamma, log_w, rule="mse", h=h).gamma == alone.gamma


OF_ONE_GAMMA = {
    "snis": isdiag.snis,
    "as given": partial(isdiag.snis, normalize=False),
    "expectation": isdiag.expectation_diagnostics,
    "control variate": isdiag.control_variate,
    "interval": isdiag.confidence_interval,
    "bounded": partial(isdiag.confidence_interval, bounds=(-1.0, 40.0)),
}


@pytest.mark.parametrize("name", OF_ONE_GAMMA)
@pytest.mark.parametrize("far", [np.nan, np.inf, 1.7e308])
def test_h_beside_which_a_weight_is_next_to_nothing_is_not_looked_at(name, far):
    log_w, h = np.r_[0.0, -2000.0, 0.1 * np.sin(np.arange(60.0))], np.r_[1.0, far, np.arange(60.0) % 30]
    found = rows_of(OF_ONE_GAMMA[name](log_w, h))
    with_none = rows_of(OF_ONE_GAMMA[name](log_w, np.where(h == far, 1.0, np.nan_to_num(h, nan=1.0))))
    for field in ("status", "estimate", "error_draws"):
        if field in found:
            assert_same(np.asarray(found[field]), np.asarray(with_none[field]))


@pytest.mark.parametrize("far", [np.nan, np.inf, 1.7e308])
def test_the_estimate_of_least_error_beside_a_weight_next_to_nothing(far):
    """At smaller gammas that draw has weight: the curve is not known there, and the estimate is."""
    log_w, h = np.r_[0.0, -2000.0, 0.1 * np.sin(np.arange(60.0))], np.r_[1.0, far, np.arange(60.0) % 30]
    found = isdiag.select_gamma(log_w, rule="mse", h=h)
    truth = isdiag.snis(log_w, h)
    assert found.status is truth.status is Status.OK
    assert found.estimate == pytest.approx(truth.estimate, abs=0.5 * truth.std_error)
    curve = isdiag.mse_curve(log_w, h, [0.05, 1.0])
    assert curve.reference == found.estimate
    assert curve.estimate[1] == pytest.approx(truth.estimate)
    assert not curve.mse[0] < 1e200


def test_weights_beyond_float64_and_h_in_units_of_its_own():
    log_w = np.array([1.2e-131, -4e177])
    chosen = isdiag.select_gamma(log_w, rule="mse", h=log_w)
    assert chosen.estimate == log_w[0]
    assert chosen.gamma == 1.0
    assert isdiag.mse_curve(log_w, log_w).reference == log_w[0]


def test_one_draw_with_all_the_weight_says_nothing_of_an_error():
    assert isdiag.snis([0.0, -2000.0], [1.0, 2.0]).status is Status.ERROR_UNCERTAIN
    assert isdiag.select_gamma([0.0, -2000.0], rule="mse", h=[1.0, 2.0]).status is Status.ERROR_UNCERTAIN


def test_constant_h_under_weights_as_given_varies_with_them(rng):
    log_w = 0.3 * rng.normal(size=500) - 0.045
    found = isdiag.snis(log_w, np.ones(500), normalize=False)
    assert found.std_error > 0.0
    assert found.status is Status.OK


@pytest.mark.parametrize("smooth", [False, "psis", "truncate"])
def test_weights_as_given_that_overflow_have_an_infinite_mean(smooth):
    found = isdiag.snis([1e300, 2e300], [1.0, 2.0], gamma=1e10, smooth=smooth, normalize=False)
    assert found.estimate == np.inf


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-9, 1e-12])
def test_the_estimate_of_a_control_variate_of_nearly_equal_weights(rng, spread):
    log_w, h = spread * rng.normal(size=300), rng.normal(size=300)
    estimate, _, std_error = exact_regression(log_w, h)
    assert isdiag.control_variate(log_w, h).estimate == pytest.approx(estimate, abs=1e-9 * std_error)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
def test_degrees_of_freedom_of_an_interval(rng, sigma):
    """Satterthwaite's: 2 over the relative variance of the mean square, which is 1 / n_e - 1 / n."""
    log_w, h = sigma * rng.normal(size=800), rng.standard_t(5, size=800)
    found = isdiag.snis(log_w, h)
    interval = isdiag.confidence_interval(log_w, h, method="delta")
    freedom = 2.0 / (1.0 / found.error_draws - 1.0 / 800)
    half = stats.t.ppf(0.975, freedom) * found.std_error
    assert interval.high - interval.low == pytest.approx(2.0 * half, rel=1e-12)


def test_degrees_of_freedom_are_fewer_than_draws():
    log_w, h = np.zeros(6), [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    half = stats.t.ppf(0.975, 5) * isdiag.snis(log_w, h).std_error
    assert isdiag.confidence_interval(log_w, h, method="delta").high == pytest.approx(half, rel=1e-12)
    assert isdiag.snis(log_w, h).high == pytest.approx(half * (1 + 2 / 5), rel=1e-12)


MASKS = {
    "int": lambda kept: kept.astype(int),
    "uint8": lambda kept: kept.astype(np.uint8),
    "list": lambda kept: kept.tolist(),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_may_hold_0_and_1(rng, kind):
    log_w, kept = rng.normal(size=60), rng.random(60) > 0.3
    assert isdiag.ess(log_w, where=MASKS[kind](kept)) == isdiag.ess(log_w, where=kept)


@pytest.mark.parametrize("call", [call for call in CALLS if call.takes("where")], ids=repr)
def test_a_mask_holds_nothing_else(call):
    log_w = np.linspace(-1.0, 1.0, 40)
    with pytest.raises(ValueError, match="where must be boolean or hold 0 and 1"):
        call(log_w, where=np.arange(40) % 3)
    with pytest.raises(TypeError, match="where must be boolean or hold ints 0 and 1"):
        call(log_w, where=np.where(np.arange(40) < 5, -1e9, 0.0))  # an additive mask


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: isdiag.ess([[1.0], [1.0, 2.0]]), "log_w"),
        (lambda: isdiag.snis([0.0, 1.0], [[1.0], [1.0, 2.0]]), "h"),
        (lambda: isdiag.ess([0.0, 1.0], where=[[True], [True, False]]), "where"),
        (lambda: isdiag.select_gamma([0.0, 1.0], gamma_max=[[1], [2, 3]]), "gamma_max"),
        (lambda: isdiag.select_gamma([0.0, 1.0], ess_min={}), "ess_min"),
        (lambda: isdiag.select_gamma([0.0, 1.0], k_max=1j), "k_max"),
        (lambda: isdiag.psis([0.0, 1.0], tail_length=np.array("x")), "tail_length"),
        (lambda: isdiag.psis([0.0, 1.0], tail_length=1.5), "tail_length"),
        (lambda: isdiag.psis([0.0, 1.0], tail_length=2**70), "tail_length"),
        (lambda: isdiag.lognormal.bias_printed(0.5, 1.0, 10, scale=1j), "scale"),
        (lambda: log_ratio([0.0, 1.0], [0.0, 1.0], cu_seqlens=[[1], [2, 3]]), "cu_seqlens"),
        (lambda: take_step([0.0, 1.0], reshape=0.5, schedule=Diagnosed(), state=State(0.5)), "reshape"),
        (lambda: take_step([0.0, 1.0], reshape=Power(), schedule=[], state=State(0.5)), "schedule"),
        (lambda: take_step([0.0, 1.0], reshape=Power(), schedule=Diagnosed(), state=0.5), "state"),
        (lambda: GammaController(0.5), "reshape"),
        (lambda: GammaController(schedule="fast"), "schedule"),
    ],
)
def test_errors_name_the_argument(call, name):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        call()


def test_a_tail_longer_than_memory_is_cut_at_one_draw():
    assert_same(isdiag.psis([0.0], tail_length=2**70), isdiag.psis([0.0]))


def test_formulas_at_the_ends_of_float64_warn_of_nothing():
    assert isdiag.convergence_rate(1e308, 785439) == 0.0
    isdiag.lognormal.bias_printed(579996, 0.29, 449338, scale=1e-300)
    isdiag.lognormal.best_gamma_printed(185430, 16.0, c1=1e308)
    isdiag.lognormal.mse(1e100, 1.7e308, 1000.0)


def test_a_path_says_what_is_not_finite():
    log_w = np.zeros((3, 30))
    log_w[1, 4] = -np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="zero weight at a gamma above 0"):
        found = isdiag.thermodynamic(log_w, [0.0, 0.5, 1.0])
    assert found.status is Status.NOT_FINITE


def test_printed_forms_beside_what_holds(rng):
    excesses = rng.exponential(size=(3, 60))
    expected = np.log(excesses).mean(axis=1) / np.log(excesses.mean(axis=1))
    np.testing.assert_allclose(isdiag.printed.khat(excesses), expected)
    assert isdiag.printed.khat(2.0 * excesses[0]) != pytest.approx(expected[0], rel=0.1)
    n = np.array([1, 10, 2154, 2155, 10**6])
    np.testing.assert_array_equal(np.minimum(isdiag.printed.khat_threshold(n), 0.7), isdiag.khat_threshold(n))
    assert isdiag.printed.khat_threshold(10**6) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="excesses must not be empty"):
        isdiag.printed.khat(np.empty((2, 0)))
    w, e = np.array([0.5, 1.1, 1.5]), 0.2
    np.testing.assert_allclose(
        np.exp(CISPO(1 - e, 1 + e)(np.log(w), np.ones(3)).log_f), np.clip(w, 1 - e, 1 + e)
    )


def test_bounds_change_no_claim():
    g = np.random.default_rng(0)
    log_w = 0.3 * g.normal(size=(300, 1000))
    h = np.cos(log_w)
    found = isdiag.confidence_interval(log_w, h, bounds=(-1.0, 1.0))
    np.testing.assert_array_equal(found.khat, isdiag.pareto_khat(log_w))
    np.testing.assert_array_equal(found.claim, isdiag.confidence_interval(log_w, h).claim)


FLAGS = [
    (function, name) for function in FUNCTIONS for name in ("normalize", "prior") if name in function.takes
]


@pytest.mark.parametrize(("function", "name"), FLAGS, ids=lambda each: getattr(each, "name", each))
def test_flags_are_true_or_false(rng, function, name):
    log_w, call = rng.normal(size=40), function.calls[-1]
    for given in (1, np.bool_(True)):
        assert_same(call(log_w, **{name: given}), call(log_w, **{name: True}))
    for given in (float, "yes", 2, None, np.ones(40), 1.0j, [True]):
        with pytest.raises(TypeError, match=f"{name} must be True or False"):
            call(log_w, **{name: given})


@pytest.mark.parametrize("workers", [np.ones(3), "2", 1.5, 1j, None, [2], 0, -2])
def test_workers_are_a_number(workers):
    with pytest.raises(ValueError, match="workers must be a positive int or -1"):
        isdiag.psis(np.zeros((2, 40)), workers=workers)


def test_smoothed_weights_do_not_go_into_a_masked_array():
    with pytest.raises(TypeError, match="out must be a NumPy array without a mask"):
        isdiag.psis(np.zeros(40), out=np.ma.zeros(40))
    with pytest.raises(TypeError, match="prior must be True or False"):
        isdiag.gpd_fit(np.ones(40), prior=float)
