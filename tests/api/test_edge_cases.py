"""Degenerate input that peers get wrong, each as a vector and as one row of a batch.

The rows are those of the study of peers (November 2026) that found e.g. khat = inf, NaN, 0, -1 and an
exception for equal weights, NaN weights without a warning, and khat = -1.43 for 50 weights among zeros.
"""

import numpy as np
import pytest

import isdiag
from isdiag import Status
from isdiag._core.result import LIMITS
from isdiag._kernels import records
from tests.helpers import quiet

NORMAL = np.random.default_rng(7).normal(size=1000)
NEG_INF = -np.inf


def zeroed(fraction):
    x = 2 * NORMAL
    x[: round(1000 * fraction)] = NEG_INF
    return x


def with_tail(values):
    """2 * NORMAL with its 94 largest replaced by these values above the rest, and nothing tied below."""
    x = 2 * NORMAL
    x[np.argsort(x)[-94:]] = 10.0 + np.asarray(values, float)
    return x


def one(value, n=1000):
    x = NORMAL[:n].copy()
    x[n // 2] = value
    return x


OK, FLAT, SHORT = Status.OK, Status.FLAT, Status.TAIL_TOO_SHORT
DEGENERATE, POOR = Status.DEGENERATE_TAIL, Status.POOR_TAIL_FIT
CASES = {
    "constant_2": (np.zeros(2), FLAT),
    "constant_100": (np.zeros(100), FLAT),
    "constant_1000": (np.zeros(1000), FLAT),
    "constant_1000_at_5.3": (np.full(1000, 5.3), FLAT),
    "constant_half_zero": (np.where(np.arange(1000) % 2, 1.5, NEG_INF), FLAT),
    "n01": (NORMAL[:1], Status.ONE_DRAW),
    **{f"n{n:02}": (2 * NORMAL[:n], SHORT) for n in range(2, 30)},
    "n30": (2 * NORMAL[:30], OK),
    "all_neginf_but_one_20": (np.where(np.arange(20) == 3, 1.0, NEG_INF), SHORT),
    "all_neginf_but_one_100": (np.where(np.arange(100) == 3, 1.0, NEG_INF), DEGENERATE),
    "all_neginf_but_one_1000": (np.where(np.arange(1000) == 3, 1.0, NEG_INF), DEGENERATE),
    "all_neginf_100": (np.full(100, NEG_INF), Status.NO_WEIGHT),
    "all_posinf_100": (np.full(100, np.inf), Status.NOT_FINITE),
    "neginf_0.5": (zeroed(0.5), OK),
    "neginf_0.9": (zeroed(0.9), OK),
    "neginf_0.905": (zeroed(0.905), OK),
    "neginf_0.95": (zeroed(0.95), OK),
    "neginf_0.98": (zeroed(0.98), OK),
    "neginf_0.994": (zeroed(0.994), OK),
    "neginf_0.995": (zeroed(0.995), SHORT),
    "neginf_0.998": (zeroed(0.998), SHORT),
    "ties_at_cutoff_50": (np.maximum(2 * NORMAL, np.sort(2 * NORMAL)[-50]), DEGENERATE),
    "tail_all_tied_but_max": (with_tail(np.arange(94) == 93), DEGENERATE),
    "ties_first_half_of_tail": (with_tail(np.maximum(np.arange(94), 47)), DEGENERATE),
    "ties_inside_tail_q1": (with_tail(np.maximum(np.arange(94), 20) / 20), POOR),
    "max_repeated_30": (np.minimum(3 * NORMAL, np.sort(3 * NORMAL)[-30]), POOR),
    "tail_constant_body_varies": (with_tail(np.zeros(94)), DEGENERATE),
    "tail_and_cutoff_constant": (np.minimum(2 * NORMAL, np.sort(2 * NORMAL)[-200]), DEGENERATE),
    "rounded_1dec": (np.round(2 * NORMAL, 1), OK),
    "rounded_int": (np.round(NORMAL), DEGENERATE),
    "two_valued": (np.where(np.arange(1000) % 3, 0.0, -2.0), DEGENERATE),
    "two_valued_rare": (np.where(np.arange(1000) % 50, 0.0, 9.0), DEGENERATE),
    "ints": (np.round(3 * NORMAL).astype(np.int64), DEGENERATE),
    **{f"tiny_1e-{p:02}": (NORMAL * 10.0**-p, OK) for p in (6, 9, 12, 14, 15)},
    "tiny_1e-16": (NORMAL * 1e-16, FLAT),
    "tiny_1e-14_at_5": (5 + NORMAL * 1e-14, OK),
    "tiny_1e-17": (NORMAL * 1e-17, FLAT),
    "tiny_1e-300": (NORMAL * 1e-300, FLAT),
    "one_ulp_at_5": (np.where(np.arange(1000) % 2, 5.0, np.nextafter(5.0, 6.0)), FLAT),
    "tiny_1e-12_at_5": (5 + NORMAL * 1e-12, OK),
    **{f"offset_{c:g}": (2 * NORMAL + c, OK) for c in (1e5, -1e5, 1e8, 1e12, 1e15, -1e15)},
    "offset_1e+300": (NORMAL + 1e300, FLAT),
    "offset_-1e+300": (NORMAL - 1e300, FLAT),
    "offset_1.7e+308": (NORMAL + 1.7e308, FLAT),
    "offset_-1.7e+308": (NORMAL - 1.7e308, FLAT),
    "half_pm1e300": (np.where(np.arange(1000) % 2, 1e300, -1e300), DEGENERATE),
    "half_pm1.7e308": (np.where(np.arange(1000) % 2, 1.7e308, -1.7e308), DEGENERATE),
    "few_at_1.7e308": (np.where(np.arange(1000) % 20, -1.7e308, 1.7e308), DEGENERATE),
    "one_1e300": (one(1e300), DEGENERATE),
    "one_800": (one(800.0), DEGENERATE),
    "one_-1e300": (one(-1e300), OK),
    "wide_s100": (100 * NORMAL, POOR),
    "wide_s1000": (1000 * NORMAL, DEGENERATE),
    "wide_s1e6": (1e6 * NORMAL, DEGENERATE),
    "wide_s1e300": (1e300 * NORMAL, DEGENERATE),
    "float32_s0.3": ((0.3 * NORMAL).astype(np.float32), OK),
    "float32_s2": ((2 * NORMAL).astype(np.float32), OK),
    "float32_s4_offset1e5": ((4 * NORMAL + 1e5).astype(np.float32), OK),
    "float32_constant_1e8": ((NORMAL + 1e8).astype(np.float32), FLAT),
    "float16_s2": ((2 * NORMAL).astype(np.float16), OK),
    "one_nan": (one(np.nan), Status.NOT_FINITE),
    "all_nan": (np.full(100, np.nan), Status.NOT_FINITE),
    "one_negative_nan": (one(np.copysign(np.nan, -1.0)), Status.NOT_FINITE),
    "one_posinf": (one(np.inf), Status.NOT_FINITE),
    "two_posinf": (np.where(np.arange(1000) % 500 == 7, np.inf, NORMAL), Status.NOT_FINITE),
    "posinf_and_neginf": (np.where(np.arange(100) < 50, np.inf, NEG_INF), Status.NOT_FINITE),
    "sorted": (np.sort(2 * NORMAL), OK),
    "reversed": (np.sort(2 * NORMAL)[::-1], OK),
    "unsorted_ref": (2 * NORMAL, OK),
    "tail_subnormal_cutoff": (np.where(np.sort(NORMAL)[-95] < NORMAL, NORMAL, NORMAL - 740), POOR),
    "short_right_tail": (-1e-3 * np.abs(NORMAL), OK),
    "uniform_weights_bounded": (np.log(np.random.default_rng(3).uniform(size=1000)), OK),
}
parametrize = pytest.mark.parametrize(("log_w", "status"), CASES.values(), ids=CASES.keys())


@parametrize
def test_psis(log_w, status):
    before = log_w.copy()
    result = quiet(isdiag.psis, log_w)
    np.testing.assert_array_equal(log_w, before)
    assert result.status == status
    assert result.log_weights.dtype == (log_w.dtype if log_w.dtype.kind == "f" else np.float64)
    finite = np.isfinite(log_w).sum()
    if status == Status.NOT_FINITE:
        assert np.isnan(result.log_weights).all()
        assert np.isnan([result.khat, result.ess]).all()
        return
    assert not np.isnan(result.log_weights).any()
    np.testing.assert_array_equal(result.log_weights[log_w == NEG_INF], NEG_INF)
    if status == Status.NO_WEIGHT:
        assert np.isnan([result.khat, result.ess]).all()
        return
    total = np.exp(result.log_weights.astype(float)).sum()
    assert total == pytest.approx(1, abs=1e-12 if log_w.dtype.itemsize == 8 else 1e-2)
    assert 1 - 1e-12 <= result.ess <= finite * (1 + 1e-12)
    plain = isdiag.temper(log_w)
    if status in (OK, POOR):
        assert np.isfinite(result.khat)
    else:
        np.testing.assert_array_equal(result.log_weights, plain)
    if status == FLAT:
        assert result.khat == -np.inf
        assert result.ess == pytest.approx(finite, rel=1e-12)
    if status == SHORT:
        assert np.isnan(result.khat)
    if status in (DEGENERATE, Status.ONE_DRAW):
        assert result.khat == np.inf
    assert isdiag.pareto_khat(log_w) == pytest.approx(result.khat, nan_ok=True, abs=0, rel=0)


@parametrize
@pytest.mark.parametrize("rule", ["joint", "refit"])
def test_select_gamma(log_w, status, rule):
    result = quiet(isdiag.select_gamma, log_w, rule=rule)
    finite = np.isfinite(log_w).sum()
    if status in (Status.NOT_FINITE, Status.NO_WEIGHT):
        assert result.status == status
        assert np.isnan([result.gamma, result.khat, result.khat_tempered, result.ess]).all()
        assert result.limited_by == "none"
        return
    if finite / log_w.size < 0.3:
        assert result.status == Status.INFEASIBLE
        assert result.gamma == 0
        assert result.limited_by == "ess"
        assert result.ess == finite
        return
    assert result.status == status
    assert result.gamma == min(result.gamma_psis, result.gamma_ess, 1.0)
    assert result.ess_ratio >= 0.3
    if result.limited_by == "ess" and result.gamma > 0:
        assert result.ess_ratio == pytest.approx(0.3, abs=1e-10)
    assert result.ess == pytest.approx(isdiag.ess(log_w, gamma=result.gamma), rel=4e-11)
    if status == FLAT:
        assert (result.gamma, result.limited_by) == (1.0, "max")
        assert result.ess == pytest.approx(finite, rel=1e-12)
    if status in (SHORT, DEGENERATE):
        assert result.limited_by in (("ess", "max") if rule == "joint" else ("ess", "max", "psis"))
    refit = isdiag.pareto_khat(log_w, gamma=result.gamma)
    assert result.khat_tempered == pytest.approx(refit, nan_ok=True, rel=0, abs=0)
    if rule == "refit" and status in (OK, POOR):
        assert result.khat_tempered <= 0.7


@parametrize
def test_a_row_does_not_touch_its_neighbours(log_w, status):
    neighbour = np.random.default_rng(5).normal(scale=2, size=log_w.size).astype(log_w.dtype)
    batch = np.stack([neighbour, log_w, neighbour])
    for function in (isdiag.psis, isdiag.select_gamma):
        alone, own = quiet(function, neighbour), quiet(function, log_w)
        together = quiet(function, batch)
        for field in ("khat", "ess", "status"):
            expected = [getattr(alone, field), getattr(own, field), getattr(alone, field)]
            np.testing.assert_array_equal(getattr(together, field), expected)
    expected = np.stack([isdiag.psis(neighbour).log_weights, quiet(isdiag.psis, log_w).log_weights])
    np.testing.assert_array_equal(quiet(isdiag.psis, batch).log_weights[:2], expected)


def test_no_gamma_makes_the_worst_case_look_flat():
    # gamma * range overflows: everything on one draw, not equal weights
    for gamma in (1e300, 1e307, 1e308):
        assert isdiag.pareto_khat(NORMAL, gamma=gamma) == np.inf
        assert isdiag.ess(NORMAL, gamma=gamma) == 1
    unlimited = isdiag.select_gamma(NORMAL, gamma_max=1e308, ess_min=0.0, k_max=np.inf)
    assert (unlimited.gamma, unlimited.ess, unlimited.khat_tempered) == (1e308, 1.0, np.inf)
    equal = isdiag.select_gamma(np.zeros(100), gamma_max=1e308)
    assert (equal.gamma, equal.ess, equal.khat_tempered) == (1e308, 100.0, -np.inf)


def test_log_weights_some_ulps_apart_are_not_flat():
    # 8 is one ulp of float32 at 1e8 and a factor of 3000 between weights
    coarse = (1e8 + 8 * np.random.default_rng(0).integers(0, 5, size=200)).astype(np.float32)
    assert isdiag.psis(coarse).status == DEGENERATE
    chosen = isdiag.select_gamma(coarse)
    assert chosen.ess == pytest.approx(isdiag.ess(coarse, gamma=chosen.gamma), rel=1e-12)


def test_codes_of_the_kernels_are_those_of_status():
    of_weights = [status for status in Status if not status.about_h]
    assert {status.name: getattr(records, status.name) for status in of_weights} == {
        status.name: status.value for status in of_weights
    }


def test_limits_of_the_kernels_are_those_of_the_selection():
    names = ("BY_NONE", "BY_PSIS", "BY_ESS", "BY_MAX", "BY_MSE")
    assert [LIMITS[getattr(records, name)] for name in names] == ["none", "psis", "ess", "max", "mse"]


def test_single_weight_far_above_all_others_is_not_trusted():
    # arviz-stats gives khat 0.05 (0.8) or NaN, which its own check lets pass (1.3)
    diagnosis = isdiag.diagnose(one(800.0))
    assert diagnosis.khat == np.inf
    assert not diagnosis.ok


def test_unknown_khat_is_not_trusted():
    assert not isdiag.diagnose(0.01 * NORMAL[:10]).ok
    assert isdiag.diagnose(np.zeros(10)).ok
