"""Each kernel against its naive twin or a closed form."""

import math
import re
from fractions import Fraction

import mpmath
import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from numba import njit, typeof
from numba.core.runtime import _nrt_python, rtsys
from scipy import stats

import isdiag
from isdiag._core import intervals, statuses, steps, summary
from isdiag._core.chains import Error
from isdiag._kernels import largest
from isdiag._warmup import warmup
from tests import naive
from tests.kernels import compiled as k

BLOCK = np.empty(k.BLOCK)
LOGS = np.empty(k.BLOCK)


def draws(rng, n, kind):
    if kind == "normal":
        return rng.normal(scale=2.0, size=n)
    if kind == "pareto":
        return 0.9 * rng.exponential(size=n)
    return -rng.exponential(size=n)  # bounded weights


@pytest.mark.parametrize("start", [-1021.0, -60.0, -1.0, -1e-3])
def test_exp2_is_within_an_ulp(rng, start):
    worst = 0.0
    with mpmath.workprec(120):
        for v in np.concatenate([rng.uniform(start, 0, 3000), start * np.logspace(-16, 0, 500)]):
            exact = mpmath.mpf(2) ** mpmath.mpf(float(v))
            error = abs(mpmath.mpf(k.exp2(v)) - exact) / np.spacing(float(exact))
            worst = max(worst, float(error))
    assert worst < 1.0


def test_exp2_ends():
    assert k.exp2(0.0) == 1.0
    assert k.exp2(-0.0) == 1.0
    assert k.exp2(-5e-324) == 1.0
    assert k.exp2(-1021.0) == 2.0**-1021
    for below in (-1021.1, -1e300, -np.inf):
        assert k.exp2(below) == 2.0**-1021


def test_products_with_powers_beyond_float64(rng):
    x = np.concatenate(
        [rng.normal(size=200), 10.0 ** rng.uniform(-300, 300, size=200), [0.0, np.inf, 5e-324]]
    )
    top = rng.uniform(-1500.0, 1500.0, size=x.size)
    exponent = rng.integers(-2200, 2200, size=x.size)
    with mpmath.workprec(200):
        for value, log, power in zip(x.tolist(), top.tolist(), exponent.tolist(), strict=True):
            for of_log, of_power in ((log, 0), (log, power), (0.5, power)):
                exact = mpmath.mpf(value) * mpmath.exp(mpmath.mpf(of_log)) * mpmath.mpf(2) ** of_power
                found = k.scaled(value, of_log, of_power)
                # exp(t) is off by half an ulp of t at least; a result below 2^-1022 has fewer digits.
                assert found == pytest.approx(float(exact), rel=1e-15 + abs(of_log) * 2e-16, abs=1e-323)
            exact = mpmath.mpf(value) * mpmath.mpf(2) ** power
            assert k.times_power_of_two(value, power) == pytest.approx(float(exact), rel=0, abs=1e-323)
    assert k.scaled(0.0, np.nan, 3) == 0.0
    assert np.isnan(k.scaled(1.0, np.nan, 0))
    assert np.isnan(k.scaled(np.nan, 1.0, 5))
    assert k.scaled(2.0, np.inf, 0) == np.inf
    assert k.scaled(2.0, -np.inf, 0) == 0.0


def test_rough_exp2_is_within_a_ten_thousandth(rng):
    v = np.concatenate([rng.uniform(-1021, 0, 1000), rng.uniform(-1, 0, 1000), [0.0, -0.5, -1.0, -1021.0]])
    found = np.array([k.exp2_roughly(x) for x in v])
    np.testing.assert_allclose(found, np.exp2(v), rtol=1.01e-4)


@pytest.mark.parametrize("kind", ["normal", "pareto", "bounded"])
@pytest.mark.parametrize("n", [30, 1000, 200_000])
def test_rough_steps_end_near_the_answer(rng, kind, n):
    row = draws(rng, n, kind)
    ws = workspace(row)
    seen = survey(row, ws)
    task, _ = k.begin_ess_search(row, seen, 0.3 * n, 1e3, ws.e, ws.u)
    answer = isdiag.select_gamma(row, ess_min=0.3, gamma_max=1e3).gamma_ess
    for far in (0.3, 3.0):
        gamma, centre = k._approached(row, seen, task, 1, far * answer, 0.0, ws.e, ws.u)
        assert gamma == pytest.approx(answer, rel=1e-2)
        v = 2.0 * gamma * (row - row.max())
        assert centre == pytest.approx(np.average(row - row.max(), weights=np.exp(v)), rel=0.5)
    assert k._approached(row, seen, task, 1, np.nan, 0.0, ws.e, ws.u)[1] == 0.0


def worst_ulps(function, exact, arguments):
    worst = 0.0
    with mpmath.workprec(150):
        for value in arguments:
            truth = exact(mpmath.mpf(float(value)))
            error = abs(mpmath.mpf(float(function(value))) - truth) / np.spacing(abs(float(truth)))
            worst = max(worst, float(error))
    return worst


def test_log_and_its_relatives_are_within_a_few_ulps(rng):
    wide = np.concatenate([np.exp(rng.uniform(-700, 700, 3000)), 1 + rng.uniform(-0.3, 0.5, 3000)])
    assert worst_ulps(k.fast_log, mpmath.log, wide) < 2
    near = np.concatenate(
        [rng.uniform(-0.999, 5, 3000), np.logspace(-300, 0, 500), -np.logspace(-300, -0.01, 500)]
    )
    assert worst_ulps(k.fast_log1p, mpmath.log1p, near) < 3
    falling = np.concatenate([-np.logspace(-300, 2.8, 3000), rng.uniform(-2, 0, 3000)])
    assert worst_ulps(k.one_minus_exp, lambda d: -mpmath.expm1(d), falling) < 2


@pytest.mark.parametrize("shape", [-2.0, -0.3, -1e-12, 0.0, 1e-12, 0.4, 3.0, 30.0])
@pytest.mark.parametrize("base", [-1e-10, -0.3, -4.0, -500.0])
def test_smoothed_tail(shape, base):
    m, sigma = 40, 0.01 * np.exp(base)
    out = np.empty(m)
    k.smoothed_tail(shape, sigma, base, out)
    with mpmath.workdps(40):
        for i in range(m):
            t = -mpmath.log(1 - (mpmath.mpf(i) + 0.5) / m)
            quantile = sigma * (mpmath.expm1(shape * t) / shape if shape else t)
            exact = min(float(mpmath.log(mpmath.exp(mpmath.mpf(base)) + quantile)), 0.0)
            assert out[i] == pytest.approx(exact, rel=4e-15, abs=4e-16)


@pytest.mark.parametrize(("lanes", "powers"), [(32, 1), (8, 1), (8, 6)])
def test_sums_are_those_of_lanes(rng, lanes, powers):
    # The order is part of the result: lanes side by side, then halves of them added to each other.
    x, y = rng.normal(size=(2, 4 * lanes))
    sums = {(32, 1): k.pair_sums, (8, 1): k.grid_sums, (8, 6): k.moment_sums}[lanes, powers]
    found = njit(lambda a, b: sums(a, b, a.size))(x, y)
    terms = [x * y**p for p in range(powers + 1)]
    np.testing.assert_allclose(found, [t.sum() for t in terms + [x * t for t in terms]], rtol=1e-12)
    total = np.zeros(lanes)
    for part in x.reshape(-1, lanes):
        total = total + part
    while total.size > 1:
        total = total[: total.size // 2] + total[total.size // 2 :]
    assert found[0] == total[0]


@pytest.mark.parametrize("n", [1, 7, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("gamma", [1e-9, 0.3, 1.0, 2.5])
def test_power_sums(rng, n, gamma):
    row = rng.normal(scale=3.0, size=n)
    row[n // 2 + 1 :: 3] = -np.inf
    high = row.max()
    t = gamma * (row[np.isfinite(row)] - high)
    e = np.exp(t)
    np.testing.assert_allclose(
        k.power_sums(row, k.extent_of(row), gamma, BLOCK), [e.sum(), (e**2).sum()], rtol=1e-14
    )
    assert k.row_perplexity(row, high, gamma, BLOCK, LOGS) == pytest.approx(
        e.sum() * np.exp(-(e * t).sum() / e.sum()), rel=1e-13
    )
    u = t + 1.7
    expected = [(e**p * u**q).sum() / math.factorial(q) for p in (1, 2) for q in range(7)]
    ws = k.new_workspace(n, np.array([1]))
    k.fill_moments(row, 1, high, gamma, -1.7, ws)
    np.testing.assert_allclose(ws.totals, expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 1024, 1025, 70_000, 600_001])
@pytest.mark.parametrize("stride", [1, 8])
def test_moments_of_every_nth_block(rng, n, stride):
    row = rng.normal(size=n)
    kept = (np.arange(n) // k.BLOCK) % stride == 0
    ws = k.new_workspace(n, np.array([1]))
    k.fill_moments(row, stride, row.max(), 0.7, -1.0, ws)
    e = np.exp(0.7 * (row[kept] - row.max()))
    assert k._sampled(n, stride) == kept.sum()
    np.testing.assert_allclose(ws.totals[[0, 7]], [e.sum(), (e**2).sum()], rtol=1e-13)


@pytest.mark.parametrize("delta", [0.0, 1e-3, -1e-2, 0.05])
def test_series_for_ess_keeps_its_bound(rng, delta):
    row = rng.normal(scale=2.0, size=2000)
    high, gamma, centre = row.max(), 0.5, -5.0
    ws = k.new_workspace(row.size, np.array([1]))
    k.fill_moments(row, 1, high, gamma, centre, ws)
    moments = k.moments_in(ws.totals)
    expected = np.log(isdiag.ess(row, gamma=gamma * (1 + delta)))
    found, slope = k._log_ess(moments, delta)
    step = 1e-6
    difference = (k._log_ess(moments, delta + step)[0] - k._log_ess(moments, delta - step)[0]) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-7)
    reach = gamma * (high - row.min())
    solved, bound = k._model_step(moments, reach, found)
    assert solved == pytest.approx(delta, abs=1e-12)
    assert abs(found - expected) <= bound + 1e-13


def survey(row, ws, length=1):
    return k.survey_row(ws, row, length)


def workspace(row, length=1):
    return k.new_workspace(row.size, np.array([length]))


@pytest.mark.parametrize("lean", [-3.0, -0.1, 1e-4, 0.4, 2.0])
@pytest.mark.parametrize("aim", [1e-6, 0.1, 3.0])
def test_first_guess_is_that_of_a_gamma_law(lean, aim):
    spread = 2.5
    gamma, tilt = k._first_guess(aim, spread, lean)
    with mpmath.workdps(60):
        t, s, b = (mpmath.mpf(float(x)) for x in (gamma, spread, lean))

        def cumulant(t):  # of a law with mean 0
            return -mpmath.log(1 - b * s * t) / b**2 - t * s / b

        assert float(2 * cumulant(t) * -1 + cumulant(2 * t)) == pytest.approx(aim, rel=1e-6)
        assert float(mpmath.diff(cumulant, 2 * t) / (2 * t * s**2)) == pytest.approx(tilt, rel=1e-6)


@pytest.mark.parametrize("lean", [0.0, 1e-9, np.nan, np.inf])
def test_first_guess_without_skewness_is_that_of_a_normal_law(lean):
    assert k._first_guess(0.5, 2.0, lean) == (math.sqrt(0.5) / 2.0, 1.0)


def test_shape_is_that_of_the_finite_entries(rng):
    row = rng.exponential(size=3000)
    row[::7] = -np.inf
    finite = row[np.isfinite(row)]
    mean, spread, lean = k._shape(row, k.extent_of(row), 1, BLOCK)
    moments = [stats.moment(finite, order=p) for p in (2, 3)]
    assert mean == pytest.approx(finite.mean() - finite.max(), rel=1e-12)
    assert spread == pytest.approx(moments[0] ** 0.5, rel=1e-10)
    assert lean == pytest.approx(0.5 * moments[1] / moments[0] ** 1.5, rel=1e-10)


@pytest.mark.parametrize(
    ("n", "most", "kind"),
    [(1000, 1, "normal"), (1000, 1, "pareto"), (100_000, 2, "normal"), (1_000_000, 2, "normal")],
)
def test_ess_search_needs_few_passes(rng, n, most, kind):
    # The point of the series and of what comes before: one pass, or two where a sample tells where to begin.
    row = draws(rng, n, kind)
    ws = workspace(row)
    seen = survey(row, ws)
    task, search = k.begin_ess_search(row, seen, 0.3 * n, 1.0, ws.e, ws.u)
    passed = 0
    while search.stride > 0:
        k.fill_moments(row, search.stride, seen.high, search.gamma, search.middle, ws)
        passed += k._sampled(n, search.stride)
        search = k.step_ess_search(task, search, ws.totals)
    assert search.ess == pytest.approx(0.3 * n, rel=1e-10)
    assert isdiag.ess(row, gamma=search.gamma) == pytest.approx(search.ess, rel=4e-11)
    assert passed <= most * n * 1.2


def test_ess_search_survives_a_sample_without_weight(rng):
    # All blocks that a sample looks at lie far below the others.
    n = 200_000
    row = 2 * rng.normal(size=n)
    row[(np.arange(n) // k.BLOCK) % 8 == 0] -= 1e5
    chosen = isdiag.select_gamma(row)
    assert chosen.ess_ratio == pytest.approx(0.3, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 100, 1001, 3000])
@pytest.mark.parametrize("left_out", [False, True])
def test_extent(rng, n, left_out):
    row = rng.normal(size=n)
    if left_out:
        row[1::4] = -np.inf
    finite = row[np.isfinite(row)]
    expected = (finite.max(), finite.min(), finite.size, k.OK)
    assert k.extent_of(row) == expected
    ws = workspace(row)
    assert survey(row, ws)[:4] == expected
    for bad in (np.nan, -np.nan, np.inf):
        broken = row.copy()
        broken[n // 2] = bad
        assert k.extent_of(broken).presence == k.NOT_FINITE
        assert survey(broken, ws).presence == k.NOT_FINITE
    assert k.extent_of(np.full(n, -np.inf))[2:] == (0, k.NO_WEIGHT)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_gather_finds_what_reaches_the_bound(rng, n):
    row = rng.normal(size=n)
    row[::5] = [-np.inf, np.inf, np.nan, 0.5, 0.5][n % 5]
    x, index = np.empty(n), np.empty(n, np.int64)
    for start, stop in ((0, n), (n // 3, n), (n // 3, n // 2)):
        with np.errstate(invalid="ignore"):
            expected = start + np.flatnonzero(row[start:stop] >= 0.5)
        count = k.gather(row, start, stop, 0.5, x, index)
        np.testing.assert_array_equal(index[:count], expected)
        np.testing.assert_array_equal(x[:count], row[expected])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 5, 16, 17, 100, 1000, 5000])
def test_nth_largest(rng, n, ties):
    for _ in range(20):
        a = rng.integers(0, 5, size=n).astype(float) if ties else rng.normal(size=n)
        a[:: n // 3 + 1] = -np.inf
        a[1 :: n // 2 + 1] *= 1e300
        nth, other = (int(at) for at in rng.integers(0, n, size=2))
        falling = np.sort(a)[::-1]
        assert k.from_order_key(k.nth_largest(keys(a), n, nth, 0)) == falling[nth]
        found = k.two_largest(keys(a), n, nth, other)
        assert [k.from_order_key(key) for key in found] == [falling[nth], falling[other]]
        assert k.from_order_key(k.nth_largest(keys(a), n, nth, 3)) in falling[nth : nth + 4]


def keys(a):
    """With room up to a multiple of LANES."""
    found = np.empty(k.padded(a.size, k.LANES), np.int64)
    found[: a.size] = [k.order_key(x) for x in a]
    return found


NTH_LARGEST_CALLS = ("_fill_up", "_all_finite", "_law_of", "_bracket_of", "_bound_within", "_narrowed")


@pytest.mark.parametrize("kind", ["equal", "outlier", "wide"])
def test_nth_largest_takes_few_counts(kind, monkeypatch):
    # Interpolation alone would creep where the counts are far from exponential.
    a = np.zeros(3000)
    if kind == "outlier":
        a = np.append(np.linspace(0, 1e-9, 2999), 1e300)
    elif kind == "wide":
        a = np.concatenate([-np.logspace(-300, 300, 1500), np.logspace(-300, 300, 1500)])
    counts = []
    census = k.census
    pure = {name: getattr(k, name) for name in NTH_LARGEST_CALLS}
    pure["census"] = lambda *given: (counts.append(1), census(*given))[1]
    for name, function in pure.items():
        monkeypatch.setattr(largest, name, function)
    found = largest.nth_largest.py_func(keys(a), a.size, 1000, 0)
    assert k.from_order_key(found) == np.sort(a)[::-1][1000]
    assert len(counts) <= 3 * 64


@pytest.mark.parametrize("n", [30, 200, 1000, 20_000, 200_000])
@pytest.mark.parametrize("ties", [None, "levels", "two", "all", "zeros of both signs"])
@pytest.mark.parametrize("order", ["random", "sorted", "unlucky"])
def test_tail_is_that_of_a_stable_sort(rng, n, ties, order):
    row = rng.normal(size=n)
    if ties == "levels":
        row = rng.integers(0, 12, size=n).astype(float)
    elif ties == "two":
        row = np.where(row > -2.0, 0.0, row - 3.0)
        row[:: n // 3] = 1.0
    elif ties == "all":
        row[:] = -7.0
    elif ties is not None:
        row = np.where(row > 0.0, 0.0, -0.0)
    if order == "sorted":
        row.sort()
    elif order == "unlucky":  # only the draws that the strided sample sees are large
        row[:: max(int(math.sqrt(n) / 4), 1)] += 100
    length = isdiag.tail_length(n)
    ws = workspace(row, length)
    tail = k.select_tail(ws, row, survey(row, ws, length), length)
    order = np.argsort(row, kind="stable")
    m = tail.size
    assert m == length
    np.testing.assert_array_equal(ws.index[:m], np.sort(order[-m:]))
    least = row[order[-m]]
    assert tail.ties == (row == least).sum() - (row[order[-m:]] == least).sum()
    ascending = row[order] - row.max()
    assert tail.cutoff == ascending[-m - 1]
    np.testing.assert_array_equal(ws.marks[:3], ascending[[-m, -m + int(m / 4 + 0.5) - 1, -1]])
    k.sort_tail(ws, tail)
    np.testing.assert_array_equal(ws.index[:m], order[-m:])
    np.testing.assert_array_equal(ws.x[:m], ascending[-m:])


@pytest.mark.parametrize("n", [10**4, 10**6, 10**8])
def test_room_for_a_tail_is_that_of_the_tail(n):
    length = isdiag.tail_length(n)
    ws = k.new_workspace(n, np.array([length]))
    assert sum(array.nbytes for array in ws) < 160 * length + 2**17


def test_zeros_of_either_sign_tie(rng):
    row = -rng.exponential(size=200)
    row[10:50] = [0.0, -0.0] * 20
    for each in (row, np.where(row == 0.0, -0.0, row)):
        ws = workspace(each, 30)
        seen = survey(each, ws, 30)
        tail = k.select_tail(ws, each, seen, 30)
        assert math.copysign(1.0, seen.high) == 1.0
        assert (tail.size, tail.ties, tail.cutoff) == (30, 10, 0.0)
        np.testing.assert_array_equal(ws.index[:30], np.arange(20, 50))


@pytest.mark.parametrize("kind", ["exponential", "outlier", "clusters", "ties", "overflow"])
def test_sort_is_stable_whatever_the_tail(rng, kind):
    m = 500
    x = -rng.exponential(size=m)
    if kind == "outlier":
        x[7] = -1e300
    elif kind == "clusters":
        x = np.where(rng.uniform(size=m) < 0.5, 1e-9 * x, -100 + 1e-9 * x)
    elif kind == "ties":
        x = np.round(x)
    elif kind == "overflow":
        x[::3] = -np.inf
    ws = k.new_workspace(4 * m, np.array([m]))
    ws.x[:m], ws.index[:m], ws.marks[0] = x, np.arange(m), x.min()
    k.sort_tail(ws, k.Tail(m, -np.inf, np.nan, 0))
    np.testing.assert_array_equal(ws.index[:m], np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(ws.x[:m], np.sort(x))


@pytest.mark.parametrize("gamma", [1e-3, 1.0])
def test_excesses(rng, gamma):
    out = np.empty(200)
    with mpmath.workdps(40):
        for cutoff in (-1e-9, -0.2, -3.0, -600.0):
            x = cutoff * rng.uniform(size=200)
            k.excesses(x, cutoff, gamma, 1.0, out)
            for value, found in zip(x, out, strict=True):
                a, b = (mpmath.exp(mpmath.mpf(gamma) * mpmath.mpf(float(v))) for v in (cutoff, value))
                assert found == pytest.approx(float(b - a), rel=4e-15 + 3e-16 * -gamma * value)
    k.excesses(np.full(3, -1.0), -np.inf, 1.0, 1.0, out)
    assert out[0] == pytest.approx(np.exp(-1), rel=1e-15)
    k.excesses(np.full(3, -1.0), -1.0, gamma, 1.0, out)
    assert out[0] == 0.0


@pytest.mark.skipif(not re.search(r"\+avx2", "".join(get_host_cpu_features().flatten())), reason="no AVX2")
@pytest.mark.parametrize(
    ("name", "signature"),
    [
        pytest.param(
            *("_extent_of_any", "(f8[::1],)"),
            marks=pytest.mark.xfail(numba.version_info.short < (0, 66), reason="LLVM before 22 does not"),
        ),
        ("_all_finite", "(i8[::1],)"),
        ("census", "i8[::1], i8"),
        ("_two_censuses", "i8[::1], i8, i8"),
        ("block_weights", "f8[::1], f8, f8, f8[::1]"),
        ("_segment_sums", "f8[::1], i8, f8, f8, f8[::1], f8, f8, f8[::1], f8[::1], f8[::1]"),
        ("add_draw", "f8, f8[::1], f8[::1]" + 3 * ", f8[::1]"),
        ("vector_sums_part", "f8[::1], i8, i8, f8, f8, f8[::1], f8[::1], f8[:, ::1]"),
        ("_path_weights", "f8[::1], f8" + 3 * ", f8[::1]"),
        ("_block_powers", "f8[::1], f8, f8, f8[::1], f8[::1]"),
        ("_fill_cautious", "f8[::1], f8[::1], f8, f8, f8, f8[::1]"),
        ("_block_cautious", "f8[::1], f8[::1], f8, f8, f8, f8, f8[::1]"),
        ("_block_gaps", "f8[::1], f8[::1], f8, f8[::1], f8[::1]"),
        ("_block_weights", "f8[::1], f8, f8[::1]"),
        ("_block_power_sums", "f8[::1], f8, f8, f8, f8, f8[::1]"),
        ("_weights_and_logs", "f8[::1], f8, f8, f8, f8[::1], f8[::1]"),
        ("_rough_weights", "f8[::1], f8, f8, f8[::1], f8[::1]"),
        ("_fill_products", "f8[::1], f8, f8, f8, f8[::1], f8[::1]"),
        ("_extents", "f8[::1], i8"),
        ("excesses", "f8[::1], f8, f8, f8, f8[::1]"),
        ("_multiply", "f8[::1], f8[::1], f8[::1]"),
        ("_multiply_side_by_side", "f8[::1], f8, f8[::1]"),
        ("_posterior_mean", "f8[::1], f8[::1], f8"),
        ("smoothed_tail", "f8, f8, f8, f8[::1]"),
    ],
)
def test_hot_loops_are_vectorised(name, signature):
    # Nothing but the speed tells when LLVM stops to vectorise a loop: it did so unnoticed for `_excesses`.
    kernel = k.original(name)
    compiled = njit(
        signature if signature[0] == "(" else f"({signature})",
        **k.FLAGS,
        fastmath=kernel.targetoptions.get("fastmath", False),
    )(kernel.py_func)
    assembly = compiled.inspect_asm(compiled.signatures[0])
    wide = re.findall(r"\tv(?:add|mul|fn?m(?:add|sub)\d+)pd\t.*[yz]mm", assembly)
    integer = re.findall(r"\tvp(?:cmp|max|min|add)\w*\t.*[yz]mm", assembly)
    assert len(wide) + len(integer) >= 4


def test_what_kernels_call_becomes_machine_code_with_them_only():
    # Should a Numba do otherwise nothing but a cold start, twice as long, would tell.
    twice = k.inner(lambda x: 2.0 * x)
    assert njit(lambda x: twice(x) + 1.0)(3.0) == 7.0
    (made,) = twice.overloads.values()
    assert isinstance(made.library, k._Code)
    assert typeof(k.total_of).dispatcher is k.total_of.as_inner


def test_kernels_give_back_the_memory_they_take(rng):
    # Inner kernels count no references: one that hands out an array would leak it or have it freed twice.
    def held():
        seen = rtsys.get_allocation_stats()
        return seen.mi_alloc - seen.mi_free, seen.alloc - seen.free

    def work():
        warmup()
        isdiag.next_gamma(long, log_weights=0.1 * long)  # looks at some blocks first
        isdiag.quantile(long, long, 0.5)  # in bins

    long = rng.normal(size=200_000)
    work()
    _nrt_python.memsys_enable_stats()
    try:
        expected = held()
        work()
        assert held() == expected
    finally:
        _nrt_python.memsys_disable_stats()


@pytest.mark.parametrize("kind", ["normal", "pareto", "bounded"])
@pytest.mark.parametrize("n", [30, 100, 1000, 20_000])
def test_psis(rng, n, kind):
    log_w = draws(rng, n, kind)
    result = isdiag.psis(log_w)
    expected, khat = naive.psis(log_w, isdiag.tail_length(n))
    assert result.khat == pytest.approx(khat, abs=1e-10)
    np.testing.assert_allclose(result.log_weights, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("m", [6, 7, 20, 200, 3000])
@pytest.mark.parametrize("true_k", [-0.9, -0.3, 0.2, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("prior", [False, True])
def test_gpd_fit(rng, m, true_k, prior):
    x = np.expm1(true_k * rng.exponential(size=m)) / true_k
    fit = isdiag.gpd_fit(x, prior=prior)
    expected = naive.gpd_fit(x, prior=prior)
    np.testing.assert_allclose([fit.k, fit.sigma, fit.k_std_error], expected, rtol=1e-9)


def test_gpd_fit_survives_excesses_of_any_size(rng):
    x = rng.exponential(size=500)
    reference = isdiag.gpd_fit(x)
    for scale in (1e-300, 1e-20, 1e20, 1e300):
        scaled = isdiag.gpd_fit(scale * x)
        assert scaled.k == pytest.approx(reference.k, rel=1e-12)
        assert scaled.sigma / scale == pytest.approx(reference.sigma, rel=1e-12)


def test_gpd_fit_of_very_heavy_tails_does_not_overflow(rng):
    # a factor 1 - theta x of up to 1e200: a product of two would overflow
    x = np.sort(np.exp(rng.uniform(0, 460, size=100)))
    fit = isdiag.gpd_fit(x, prior=False)
    assert fit.k == pytest.approx(naive.gpd_fit(x, prior=False)[0], rel=1e-9)


def test_gpd_standard_error_is_calibrated():
    # Over 400 fits to exact GPD samples the reported error is the spread of k, within its own error.
    rng = np.random.default_rng(11)
    for true_k in (0.1, 0.5, 1.0):
        x = np.expm1(true_k * rng.exponential(size=(400, 300))) / true_k
        fit = isdiag.gpd_fit(x, prior=False)
        assert np.mean(fit.k_std_error) == pytest.approx(fit.k.std(), rel=0.12)
        assert np.abs((fit.k - true_k) / fit.k_std_error < 1.96).mean() > 0.92


@pytest.mark.parametrize("kind", ["kish", "perplexity", "max"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
def test_ess(rng, kind, gamma):
    log_w = rng.normal(scale=2.0, size=500)
    log_w[::7] = -np.inf
    w = np.where(np.isfinite(log_w), np.exp(gamma * np.maximum(log_w, -1e300)), 0.0)
    p = w / w.sum()
    expected = {
        "kish": 1 / np.sum(p**2),
        "perplexity": np.exp(-np.sum(p[p > 0] * np.log(p[p > 0]))),
        "max": 1 / p.max(),
    }[kind]
    assert isdiag.ess(log_w, kind=kind, gamma=gamma) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-7, 0.05, 2.0])
@pytest.mark.parametrize("zeros", [0, 7])
@pytest.mark.parametrize("kind", ["far", "near", "inverse"])
def test_regression_of_values_on_weights(rng, scale, zeros, kind):
    n = 300
    row = scale * rng.normal(size=n)
    h = {"far": 1e6 + rng.normal(size=n), "near": np.cos(row), "inverse": 3.0 / np.exp(row)}[kind]
    h += 1e-3 * rng.normal(size=n)
    row[:zeros], h[:zeros] = -np.inf, np.nan
    found = np.empty(1, k.REGRESSION)
    k.regression_rows(row[None], np.array([n]), np.ones(1), np.zeros(1, bool), h[None], found)
    f = found[0]
    with mpmath.workdps(50):
        high = mpmath.mpf(float(row.max()))
        w = [mpmath.exp(mpmath.mpf(float(x)) - high) for x in row]
        scaled, centre = mpmath.mpf(float(f["scale"])), mpmath.mpf(float(f["centre"]))
        y = [a * (scaled * mpmath.mpf(float(x)) - centre) if a else a for a, x in zip(w, h, strict=True)]
        mean, average = mpmath.fsum(w) / n, mpmath.fsum(y) / n
        u, v = [x - mean for x in w], [x - average for x in y]
        spread = mpmath.fsum(x * x for x in u)
        slope = mpmath.fsum(a * b for a, b in zip(u, v, strict=True)) / spread
        rest = [b - slope * a for a, b in zip(u, v, strict=True)]
        squares, cubes, fourths = (mpmath.fsum(x**p for x in rest) for p in (2, 3, 4))
        whole = mpmath.fsum((b + centre * a) ** 2 for a, b in zip(u, v, strict=True)) / (n - 1)
        expected = {
            "mean_weight": mean, "less_one": mean - 1, "average": average, "slope": slope, "spread": spread,
            "variance": whole, "squares": squares, "skewness": cubes / squares ** mpmath.mpf("1.5"),
            "error_draws": squares**2 / fourths,
        }  # fmt: skip
        near = {name: float(value) for name, value in expected.items()}
    size = abs(near["slope"]) + (near["squares"] / near["spread"]) ** 0.5
    for name, value in near.items():
        off = {"slope": 1e-9 * size, "average": 1e-12 * (abs(near["average"]) + size * near["mean_weight"])}
        assert f[name] == pytest.approx(value, rel=1e-8, abs=off.get(name, 1e-9 * abs(value))), name


def test_regression_looks_at_values_of_weight_only():
    found = np.empty(1, k.REGRESSION)
    given = np.array([[0.0, -0.5, -1.0, -np.inf]]), np.array([4]), np.ones(1), np.zeros(1, bool)
    for last, status in ((np.nan, k.CONSTANT_H), (7.0, k.CONSTANT_H)):
        k.regression_rows(*given, np.array([[3.0, 3.0, 3.0, last]]), found)
        assert found["status"] == status
    k.regression_rows(*given, np.array([[3.0, np.nan, 3.0, 1.0]]), found)
    assert found["status"] == k.NOT_FINITE_H


@pytest.mark.parametrize("normalized", [True, False])
def test_records_of_estimates_are_made_of_their_parts(rng, normalized):
    # Rows that are flat, of one draw, fitted, poorly fitted.
    shape, n = (4, 3), np.array([50, 1, 60, 70])
    status = np.array([k.FLAT, k.ONE_DRAW, k.OK, k.POOR_TAIL_FIT], np.int8)
    khat, worth, origin = np.array([-np.inf, 0.3, 0.8, 1.2]), np.array([1.0, 1.0, 0.5, 2.0]), np.arange(4.0)
    estimate, bias, skewness = rng.normal(size=(3, *shape))
    std_error, error_draws = rng.uniform(0.1, 1.0, size=shape), rng.uniform(2.0, 40.0, size=shape)
    status_h = np.full(shape, k.OK, np.int8)
    status_h[0, 0], status_h[2, 1], std_error[0, 0] = k.CONSTANT_H, k.NOT_FINITE_H, 0.0
    summed = np.empty(4, k.SUMMED)
    summed["ess"], summed["log_total"], summed["variance"], summed["n_finite"] = 0.5 * n, 1.0, 0.001, n
    student, draws_of = intervals.series_of_student(0.95), n[:, None].astype(np.float64)
    found, of_weights = np.empty(shape, k.ESTIMATED), np.empty(4, k.WEIGHED)
    moments = estimate, std_error, bias, skewness, error_draws, status_h, summed
    of_rows = n, draws_of, origin, worth, khat, status
    k.estimate_rows(*moments, *of_rows, student, statuses.RANKS, normalized, found, of_weights)

    log_mean, error = np.empty(4), np.empty(4)
    of_sums = (np.ascontiguousarray(summed[name]) for name in ("log_total", "variance", "n_finite"))
    k.log_mean_rows(*of_sums, n, log_mean, error)
    error /= np.sqrt(worth)
    for array in (error, std_error, bias, error_draws):
        array[n == 1] = np.nan
    low, high = np.empty(shape), np.empty(shape)
    by_error = std_error, skewness, error_draws, draws_of, student
    k.interval_rows(estimate, *by_error, khat, error if normalized else np.zeros(4), low, high)
    graded = statuses.of_error(error_draws, status_h == k.CONSTANT_H)
    of_h = estimate, std_error, bias, low, high, statuses.first_of(status, status_h, graded)
    for name, expected in zip(k.ESTIMATED.names, of_h, strict=True):
        np.testing.assert_array_equal(found[name], expected)
    weights = 0.5 * n * worth, khat, log_mean + origin, error, error_draws[:, 0]
    for name, expected in zip(k.WEIGHED.names, weights, strict=True):
        np.testing.assert_array_equal(of_weights[name], expected)


@pytest.mark.parametrize("d", [1, 3])
def test_estimates_in_one_go_are_those_of_three_kernels(rng, d):
    rows, h = rng.normal(size=(7, 300)), rng.normal(size=(7, 300 * d))
    rows[1], rows[2], rows[3, 5], h[4] = 2.0, -np.inf, np.nan, 1.0
    rows[5, :280], h[6, 3 * d] = -np.inf, np.inf
    gamma = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 0.0, 1.0])
    n, length, ones = np.full(7, 300), np.full(7, 50), np.ones(7)
    student, eps = intervals.series_of_student(0.95), 2.0**-52
    khat, status = np.empty(7), np.empty(7, np.int8)
    k.khat_rows(rows, n, length, gamma, khat, status, eps)
    moments = [*np.empty((5, 7, d)), np.empty((7, d), np.int8), np.empty(7, k.SUMMED)]
    k.moment_rows(rows, gamma, h, *moments)
    of_rows = n, n[:, None].astype(np.float64), np.zeros(7), ones, khat, status
    apart, at_once = ((np.empty((7, d), k.ESTIMATED), np.empty(7, k.WEIGHED)) for _ in range(2))
    k.estimate_rows(*moments, *of_rows, student, statuses.RANKS, True, *apart)
    k.snis_rows(rows, n, length, gamma, h, *at_once, student, statuses.RANKS, eps)
    for expected, found in zip(apart, at_once, strict=True):
        for name in expected.dtype.names:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("level", [1e-3, 0.5, 0.95, 0.999, 1 - 1e-9, 1 - 1e-15])
def test_quantiles_of_student_are_those_of_scipy(rng, level):
    # Freedom as of so many of n draws, from 1 to 1e12.
    n = 1.0 + 10.0 ** rng.uniform(0.0, 12.0, size=(2000, 1))
    error_draws = n ** rng.uniform(0.0, 1.0, size=(2000, 1))
    freedom = np.maximum(2.0 / np.maximum(1.0 / error_draws - 1.0 / n, 2.0 / (n - 1.0)), 1.0)
    found = intervals.student_quantile(error_draws, n, level)
    tolerance = 5e-13 if level < 0.999 else 4e-12
    np.testing.assert_allclose(found, stats.t.ppf(0.5 + 0.5 * level, freedom), rtol=tolerance)
    assert np.isnan(intervals.student_quantile(np.array([[1.0]]), np.array([1]), level))  # one draw
    assert intervals.student_quantile(np.array([[0.0]]), np.array([9]), level) == pytest.approx(
        stats.t.ppf(0.5 + 0.5 * level, 1.0), rel=1e-10
    )


def test_bounded_intervals_are_those_of_any_mean(rng):
    found, n = np.zeros(3, k.DIVERGENCE), np.array([50, 60, 70])
    found["estimate"], found["std_error"] = [0.1, 2.0, np.inf], [0.2, 0.3, np.nan]
    found["skewness"], found["error_draws"] = rng.normal(size=3), rng.uniform(2.0, 40.0, size=3)
    found["khat"], found["mean_error"] = [0.3, 0.8, -np.inf], [0.1, 0.2, 0.6]
    student = intervals.series_of_student(0.95)
    given, of = np.empty(3, k.DIVERGED), {name: found[name].copy()[:, None] for name in found.dtype.names}
    for normalized in (True, False):
        for positive in (True, False):
            k.bounded_rows(found, n.astype(np.float64), student, normalized, positive, given)
            error = Error(of["std_error"], of["skewness"], of["error_draws"], n)
            mean_error = of["mean_error"][:, 0] if normalized else None
            low, high = intervals.interval(of["estimate"], error, of["khat"][:, 0], mean_error)
            np.testing.assert_array_equal(given["low"], (np.maximum(low, 0.0) if positive else low)[:, 0])
            np.testing.assert_array_equal(given["high"], high[:, 0])
            for name in ("estimate", "std_error", "khat", "error_draws", "status"):
                np.testing.assert_array_equal(given[name], found[name])


@pytest.mark.parametrize("scale", [1e-9, 0.05, 2.0])
@pytest.mark.parametrize("zeros", [0, 3])
def test_mean_of_the_weights(rng, scale, zeros):
    n = 700
    row = scale * rng.normal(size=n)
    row[:zeros] = -np.inf
    summed = np.empty(1, k.SUMMED)
    k.weight_rows(row[None], np.array([0.5]), summed)
    log_mean, std_error = np.empty(1), np.empty(1)
    of_row = summed["log_total"], summed["variance"], summed["n_finite"]
    k.log_mean_rows(*of_row, np.array([n]), log_mean, std_error)
    with mpmath.workdps(40):
        weights = [mpmath.exp(mpmath.mpf(float(x)) / 2) for x in row]
        mean = mpmath.fsum(weights) / n
        squares = mpmath.fsum((w - mean) ** 2 for w in weights)
        twin = float(mpmath.log(mean)), float(mpmath.sqrt(squares) / (n * mean))
        kish = float((n * mean) ** 2 / mpmath.fsum(w * w for w in weights))
    # Of nearly equal weights it is a sum less another that is nearly as large.
    assert log_mean == pytest.approx(twin[0], rel=1e-13, abs=1e-14)
    assert std_error == pytest.approx(twin[1], rel=1e-12)
    assert summed["ess"] == pytest.approx(kish, rel=1e-13)
    assert summed["status"] == k.OK


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
def test_snis(rng, gamma):
    log_w, h = rng.normal(scale=1.5, size=700), rng.normal(size=(700, 3)) + 1e3
    result = isdiag.snis(log_w, h, gamma=gamma)
    for j in range(3):
        estimate, std_error, bias = naive.snis(log_w, h[:, j], gamma)
        alone = isdiag.snis(log_w, h[:, j], gamma=gamma)
        assert result.estimate[j] == pytest.approx(estimate, rel=1e-13)
        assert result.std_error[j] == pytest.approx(std_error, rel=1e-9)
        assert result.bias[j] == pytest.approx(bias, rel=1e-7, abs=1e-14)
        assert alone.estimate == pytest.approx(estimate, rel=1e-13)
        assert alone.bias == pytest.approx(bias, rel=1e-7, abs=1e-14)
    assert result.ess == pytest.approx(isdiag.ess(log_w, gamma=gamma), rel=1e-12)


def test_mpmath_ess(rng):
    log_w = rng.normal(scale=5.0, size=50)
    for gamma in (0.1, 1.0):
        assert isdiag.ess(log_w, gamma=gamma) == pytest.approx(naive.ess(log_w, gamma), rel=1e-14)


def test_unequal_weights_are_not_flat_where_tempering_overflows():
    log_w = 1.7e308 * np.array([0.3, 0.3, 0.3, 0.2])
    assert isdiag.log_moment(log_w, 5.0).status != isdiag.Status.FLAT


def cautious(log_w, advantage, gamma, caution, z=None):
    """log f as Python has it, one draw after the other."""
    known = [x for x in log_w if math.isfinite(x)]
    if z is None:
        with mpmath.workdps(60):
            mean = mpmath.fsum(mpmath.exp(gamma * mpmath.mpf(x)) for x in known) / len(known)
            z = float(mpmath.log(mean) / gamma)
    return [
        gamma * (z + caution * (x - z) if a < 0 and x < z else x)
        for x, a in zip(log_w.tolist(), advantage.tolist(), strict=True)
    ]


@pytest.mark.parametrize("shift", [0.0, -700.0])
@pytest.mark.parametrize("caution", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("gamma", [1e-6, 0.3, 1.7])
def test_cautious_powers(rng, gamma, caution, shift):
    log_w, advantage = shift + rng.normal(scale=3.0, size=2500), rng.normal(size=2500)
    log_w[::9] = -np.inf
    expected = np.array(cautious(log_w, advantage, gamma, caution))
    out = np.empty((1, 2500))
    k.cautious_rows(log_w[None], advantage[None], gamma, caution, np.nan, out)
    np.testing.assert_allclose(out[0], expected, rtol=2e-14, atol=1e-13 * gamma)
    found = k.cautious_ess(log_w, advantage, gamma, caution)
    assert found == pytest.approx(naive.ess(expected, 1.0), rel=1e-9)
    mean = k.power_mean(log_w, gamma)
    assert mean.ess == pytest.approx(naive.ess(log_w, gamma), rel=1e-13)
    k.cautious_rows(log_w[None], advantage[None], gamma, caution, 1.5, out)
    np.testing.assert_allclose(out[0], cautious(log_w, advantage, gamma, caution, 1.5), rtol=1e-15)


def test_cautious_powers_at_their_ends(rng):
    log_w, advantage = rng.normal(size=40), rng.choice([-1.0, 1.0], size=40)
    out = np.empty((1, 42))
    strange = np.r_[log_w, np.nan, np.inf][None]
    k.cautious_rows(strange, np.r_[advantage, -1.0, -1.0][None], 0.5, 2.0, np.nan, out)
    np.testing.assert_array_equal(out[0, :40], k_cautious(log_w, advantage))  # the others have no part in z
    nothing = np.full(5, -np.inf)
    assert np.isnan(k.cautious_ess(nothing, -np.ones(5), 0.5, 3.0))
    k.cautious_rows(nothing[None], -np.ones((1, 5)), 0.5, 0.5, np.nan, out[:, :5])
    assert (out[0, :5] == -np.inf).all()
    equal = np.full(7, 0.1)
    assert k.cautious_ess(equal, -np.ones(7), 0.7, 3.0) == pytest.approx(7.0, rel=1e-15)
    huge = 1.7e308 * np.array([1.0, -1.0, 0.5])
    assert k.cautious_ess(huge, -np.ones(3), 1.0, 3.0) == 1.0


def k_cautious(log_w, advantage):
    out = np.empty((1, log_w.size))
    k.cautious_rows(log_w[None], advantage[None], 0.5, 2.0, np.nan, out)
    return out[0]


@pytest.mark.parametrize("least", [0.4, 0.8, 0.99])
def test_gamma_that_a_cautious_power_is_held_at(rng, least):
    log_w, advantage = rng.normal(size=3000), rng.normal(size=3000)

    def ess_ratio(gamma, _):
        return k.cautious_ess(log_w, advantage, gamma, 3.0) / 3000

    gamma = k.cautious_gamma(log_w, advantage, 1.0, 3.0, least)
    assert gamma == k.holding(ess_ratio)(1.0, least, None)
    assert least <= ess_ratio(gamma, None) <= 1.01 * least
    assert k.cautious_gamma(log_w, advantage, gamma, 3.0, least) == gamma
    nothing = np.full(5, -np.inf)
    assert k.cautious_gamma(nothing, -np.ones(5), 0.5, 3.0, least) == 0.5


@pytest.mark.parametrize("at", [0, 700, 1999])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_whether_all_draws_are_known(rng, at, bad):
    log_w, advantage = rng.normal(size=2000), rng.normal(size=2000)
    assert k.all_known(log_w, advantage)
    log_w[at] = bad
    assert k.all_known(log_w, advantage) == (bad == -np.inf)
    assert not k.all_known(advantage, log_w)


@pytest.mark.parametrize("n", [1, 5, 1024, 3001])
@pytest.mark.parametrize("scale", [1e-9, 0.1, 3.0])
def test_sums_over_log_ratios(rng, n, scale):
    x, signal = rng.normal(scale=scale, size=n), rng.normal(size=n)
    found = k.ratio_sums(x, signal)
    with mpmath.workdps(40):
        exact = [mpmath.mpf(value) for value in x.tolist()]
        k3 = float(mpmath.fsum(mpmath.expm1(value) - value for value in exact) / n)
    assert found.kl == pytest.approx(-x.mean(), rel=1e-12, abs=1e-15 * scale)
    assert found.kl_k3 == pytest.approx(k3, rel=1e-13)
    assert found.largest == x.max()
    assert found.ess == pytest.approx(naive.ess(x, 1.0), rel=1e-13)
    assert found.log_total == pytest.approx(np.log(np.exp(x).sum()), rel=1e-13, abs=1e-15)
    assert found.log_total_squared == pytest.approx(np.log(np.exp(2 * x).sum()), rel=1e-13, abs=1e-15)
    terms = np.exp(x) * signal
    negative = np.where(terms < 0, -terms, 0.0).sum() / np.abs(terms).sum()
    assert found.negative == pytest.approx(negative, rel=1e-13, abs=1e-15)


def test_sums_over_extreme_log_ratios():
    def sums(*x):
        return tuple(k.ratio_sums(np.array(x), np.ones(len(x))))[1:]

    assert sums(0.0, -np.inf) == (1.0, 0.0, 0.0, np.inf, np.inf, 0.0)
    assert sums(800.0)[3:5] == (-800.0, np.inf)
    assert sums(-800.0)[3:5] == (800.0, 799.0)
    assert sums(700.0)[4] == pytest.approx(math.exp(700.0), rel=1e-13)
    nothing = sums(-np.inf, -np.inf)
    assert nothing[1:5] == (-np.inf, -np.inf, np.inf, np.inf)
    assert np.isnan([nothing[0], nothing[5]]).all()


@pytest.mark.parametrize("n", [1, 5, 1024, 3001])
@pytest.mark.parametrize("unit", [1e-300, 1.0, 1e300])
def test_sums_over_weights(rng, n, unit):
    x, signal = rng.normal(scale=2.0, size=n), unit * rng.normal(size=n)
    log_f = np.minimum(x, 1.0)
    log_f[3::4] = -np.inf
    shares = np.empty(n)
    found = k.weight_sums(log_f, x, signal, 0.99, shares)
    weights = np.exp(log_f) / np.exp(log_f).sum()
    np.testing.assert_allclose(shares, weights, rtol=1e-14)
    assert found.ess == pytest.approx(1 / np.sum(weights**2), rel=1e-13)
    assert found.log_total == pytest.approx(np.log(np.exp(log_f).sum()), rel=1e-14, abs=1e-14)
    assert found.largest == pytest.approx(weights.max(), rel=1e-15)
    relative = signal / unit
    bias = -np.sum(weights**2 * (relative - np.sum(weights * relative)))
    assert found.bias / unit == pytest.approx(bias, rel=1e-9, abs=1e-15)
    assert (found.zero, found.modified) == ((log_f == -np.inf).sum(), (log_f != x).sum())
    assert found.saturated == (log_f >= 0.99).sum()
    negative = np.where(relative < 0, -relative, 0.0)
    size = np.sum(weights * np.abs(relative))
    assert found.negative == pytest.approx(np.sum(weights * negative) / size, rel=1e-13, abs=1e-15)


def test_sums_over_weights_that_are_none():
    shares = np.empty(3)
    found = k.weight_sums(np.full(3, -np.inf), np.zeros(3), np.ones(3), np.inf, shares)
    assert (shares == 0.0).all()
    assert (found.zero, found.modified, found.saturated) == (3, 3, 0)
    assert np.isnan([found.ess, found.bias, found.largest, found.negative]).all()
    assert found.log_total == -np.inf
    constant = k.weight_sums(np.array([0.0, -1.0, -9.0]), np.zeros(3), np.full(3, 0.3), np.inf, shares)
    assert constant.bias == 0.0
    assert constant.negative == 0.0
    assert np.isnan(k.weight_sums(np.zeros(3), np.zeros(3), np.zeros(3), np.inf, shares).negative)


ORDERS = {
    "chance": lambda rng, n: rng.normal(size=n),
    "ascending": lambda _, n: np.arange(n) - 5.0,
    "lattice": lambda rng, n: rng.integers(3, size=n) * 1.0,
    "equal": lambda _, n: np.zeros(n),
    "period of the sample": lambda rng, n: np.where(np.arange(n) % int(n**0.5 / 4), rng.normal(size=n), 50.0),
    "mostly of no weight": lambda rng, n: np.where(rng.uniform(size=n) < 0.9, -np.inf, rng.normal(size=n)),
}


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 64, 1000, 60_000])
def test_order_statistics(rng, n, kind):
    row = ORDERS[kind](rng, max(n, 1025))[:n]
    before = row.copy()
    ranks = [n - 1 - int(0.01 * (n - 1)), (n - 1) // 2, int(0.01 * (n - 1)), 0]
    assert steps.order_statistics(row, ranks) == np.sort(row)[::-1][ranks].tolist()
    np.testing.assert_array_equal(row, before)


# -------------------------------------------------------------------------- weighted excesses, particles


@pytest.mark.parametrize("prior", [True, False])
def test_weighted_gpd_fit_is_its_twin(rng, prior):
    for size in (40, 300):
        x, w = rng.pareto(2.0, size=size), rng.exponential(size=size)
        found = isdiag.gpd_fit(x, weights=w, prior=prior)
        expected = naive.weighted_gpd_fit(x, w, prior)
        np.testing.assert_allclose((found.k, found.sigma, found.k_std_error), expected, rtol=1e-9)
        plain, equal = (
            isdiag.gpd_fit(x, prior=prior),
            isdiag.gpd_fit(x, weights=np.full(size, 3.0), prior=prior),
        )
        for name in ("k", "sigma", "k_std_error"):
            assert getattr(equal, name) == pytest.approx(getattr(plain, name), rel=1e-11)


def test_weights_carry_a_fit_to_another_law(rng):
    x = rng.exponential(size=20_000)
    # Weighted by 1 + x an exponential is the even mixture of it and of the sum of two.
    both = np.concatenate([rng.exponential(size=10_000), rng.gamma(2.0, size=10_000)])
    weighted, drawn = isdiag.gpd_fit(x, weights=1 + x), isdiag.gpd_fit(both)
    assert abs(weighted.k - drawn.k) < 4 * np.hypot(weighted.k_std_error, drawn.k_std_error)
    assert weighted.sigma == pytest.approx(drawn.sigma, rel=0.05)
    assert weighted.k_std_error > 0.9 * drawn.k_std_error / np.sqrt(20_000 / 18_000)


def test_weighted_excesses_that_cannot_be_fitted(rng):
    x = rng.exponential(size=(2, 30))
    few = isdiag.gpd_fit(x, weights=np.tile(np.where(np.arange(30) < 5, 1.0, 0.0), (2, 1)))
    assert np.isnan([few.k, few.sigma, few.k_std_error]).all()
    none = isdiag.gpd_fit(x, weights=np.stack([np.zeros(30), np.ones(30)]))
    assert np.isnan(none.k[0])
    assert none.k[1] == pytest.approx(isdiag.gpd_fit(x[1]).k)
    one = isdiag.gpd_fit(x[0], weights=np.where(np.arange(30) < 1, 1e9, 1.0))
    assert np.isnan(one.k)
    tied = isdiag.gpd_fit(np.ones(30), weights=np.ones(30))
    assert tied.k == np.inf
    assert isdiag.gpd_fit(x, weights=np.full((2, 30), 1e308)).k[0] == pytest.approx(isdiag.gpd_fit(x[0]).k)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"weights must be finite and not negative, got {bad}"):
            isdiag.gpd_fit(x, weights=np.full((2, 30), bad))
    with pytest.raises(ValueError, match="excesses and weights must have one shape"):
        isdiag.gpd_fit(x, weights=np.ones(30))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_longest_step_is_its_twin(rng, scale):
    log_w, log_weights = scale * rng.normal(size=500), 0.4 * rng.normal(size=500)
    for ess_min in (0.2, 0.5, 0.8):
        found = isdiag.next_gamma(log_w, log_weights=log_weights, ess_min=ess_min)
        assert found == pytest.approx(naive.longest_step(log_w, log_weights, ess_min), rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_long_row_is_searched_from_some_of_its_blocks(rng, scale):
    # Blocks that differ: what some of them tell is far off.
    log_w = scale * rng.normal(size=70_000) * np.repeat([0.3, 2.0], 35_000)
    log_weights = np.where(np.arange(70_000) % 5 < 1, -np.inf, 0.4 * rng.normal(size=70_000))
    found = isdiag.next_gamma(log_w, log_weights=log_weights, ess_min=0.3)
    assert found == pytest.approx(naive.longest_step(log_w, log_weights, 0.3), rel=1e-9)


def test_weights_far_below_the_largest_of_each_are_taken_over_their_own(rng):
    # The largest of the one has none of the other: what is left lies 1500 below.
    log_w = np.concatenate([[0.0], 2.0 * rng.normal(size=200) - 1500.0])
    log_weights = np.concatenate([[-2000.0], 0.3 * rng.normal(size=200)])
    found = isdiag.next_gamma(log_w, log_weights=log_weights, ess_min=0.5)
    assert found == pytest.approx(naive.longest_step(log_w, log_weights, 0.5), rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 3.0])
def test_relative_weights(rng, gamma):
    rows = np.stack([rng.normal(size=3000) * s for s in (0.1, 3.0, 400.0)])
    rows[0, 5:9] = -np.inf
    rows = np.concatenate([rows, np.full((1, 3000), -np.inf), rows[:1], rows[:1]])
    rows[4, 7], rows[5, 7] = np.nan, np.inf
    rows.flags.writeable = False
    relative, top = np.empty(rows.shape), np.empty(len(rows))
    k.relative_rows(rows, np.full(len(rows), gamma), relative, top)
    with np.errstate(invalid="ignore"):
        exponent = gamma * (rows[:3] - rows[:3].max(axis=1, keepdims=True))
    expected = np.where((rows[:3] > -np.inf) & (exponent > math.log(2) * -1021), np.exp(exponent), 0.0)
    np.testing.assert_allclose(relative[:3], expected, rtol=5e-16 * max(1.0, gamma * 2000))
    assert not relative[3:].any()
    np.testing.assert_array_equal(top[:3], gamma * rows[:3].max(axis=1))
    np.testing.assert_array_equal(top[3:], [-np.inf, np.nan, np.nan])


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [1, 1025, 70_000])
def test_influence_is_the_share_times_the_distance_from_the_mean(rng, n, d):
    w, h = rng.exponential(size=(2, n)) * (rng.uniform(size=(2, n)) > 0.2), rng.normal(size=(2, n, d))
    w[:, 0] = 1.0
    h[w == 0.0] = np.nan
    flat = h.reshape(2, n * d)
    flat.flags.writeable = False
    found = np.empty((2, d, n))
    k.influence_rows(w, flat, rng.normal(size=(2, d)), found)
    if d == 1:
        in_place = w.copy()
        k.influence_rows(in_place, flat, np.zeros((2, 1)), in_place[:, None])
        np.testing.assert_allclose(in_place, found[:, 0], rtol=1e-9, atol=1e-15)
    h, share = np.nan_to_num(h), w / w.sum(axis=1, keepdims=True)
    mean = (share[:, :, None] * h).sum(axis=1)
    expected = (share[:, :, None] * (h - mean[:, None])).transpose(0, 2, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    assert np.abs(found.sum(axis=2)).max() < 1e-14


@pytest.mark.parametrize("n", [1, 1025, 70_000])
def test_power_sums_of_influences(rng, n):
    f, sums = 1e80 * rng.normal(size=(2, n)), np.empty((2, 3))
    k.power_sum_rows(f, np.array([1e80, 2e80]), sums)
    for r, unit in enumerate((1e80, 2e80)):
        for j, power in enumerate((2, 3, 4)):
            terms = (f[r] / unit) ** power
            size = math.fsum(np.abs(terms))
            assert sums[r, j] == pytest.approx(math.fsum(terms), abs=1e-14 * size)


# --------------------------------------------------------------------------------------------- bins


def bins_by_definition(x):
    """Sums of z^k by (level, key) of the bin each draw is in, in exact arithmetic."""
    high = Fraction(float(x.max()))
    found = {}
    for value in map(Fraction, map(float, x[x > -np.inf])):
        level = -60
        while True:
            width = Fraction(2) ** (level + 1)
            if 63 * width > high - (value // width + 1) * width:
                break
            level += 1
        width = Fraction(2) ** level
        z = 2 * (value / width - value // width) - 1
        sums = found.setdefault((level, int(value // width)), np.zeros(8))
        sums += [float(z**power) for power in range(8)]
    return found


def assert_bins(got, expected):
    assert list(zip(got.level.tolist(), got.key.tolist(), strict=True)) == sorted(
        expected, key=lambda bin_: bin_[1] * 2.0 ** bin_[0]
    )
    for level, key, sums in zip(*got, strict=True):
        np.testing.assert_allclose(sums, expected[level, key], rtol=1e-12, atol=1e-12 * sums[0])


@pytest.mark.parametrize("kind", ["normal", "pareto", "bounded"])
@pytest.mark.parametrize("n", [1, 2, 63, 1500])
def test_bins_are_those_of_the_definition(rng, n, kind):
    x = draws(rng, n, kind)
    x[::5] = x[n // 2]
    x[1::7] = -np.inf
    slots = summary._Slots()
    expected = bins_by_definition(x)
    # Draws within so many floats of the largest are in bins of a float each.
    finest = k.finest_level(x.max())
    near = {place for place in expected if place[0] <= finest}
    got = slots.bins_of(x, x.max())
    kept = [i for i, level in enumerate(got.level) if level > finest]
    assert_bins(summary.Bins(*(a[kept] for a in got)), {p: s for p, s in expected.items() if p not in near})
    assert got.sums[:, 0].sum() == np.sum(x > -np.inf)
    assert (slots._slots == 0.0).all()  # they are left as they were found
    assert (slots._homes == -1).all()


def test_bins_that_join_are_those_of_all_draws(rng):
    x = rng.normal(size=900)
    parts = [summary._Slots().bins_of(part, part.max()) for part in (x[:100], x[100:])]
    whole = summary._Slots().bins_of(x, x.max())
    joined = summary._new_bins(sum(part.key.size for part in parts))
    joined = summary._filled(joined, k.join_bins(*parts[0], *parts[1], x.max(), *joined))
    np.testing.assert_array_equal(joined.level, whole.level)
    np.testing.assert_array_equal(joined.key, whole.key)
    np.testing.assert_allclose(joined.sums, whole.sums, rtol=1e-12, atol=1e-12)


def test_the_polynomial_for_an_exponential():
    p = np.empty(8)
    z = np.linspace(-1, 1, 2001)
    for a in (0.0, 1e-9, 0.05, 0.22, 0.5):
        k._exponential(a, p)
        bound = a**8 * math.exp(a) / (128 * math.factorial(8)) + 4e-16
        np.testing.assert_allclose(np.polynomial.polynomial.polyval(z, p), np.exp(a * z), rtol=0, atol=bound)


@pytest.mark.parametrize("gamma", [1e-3, 0.5, 3.0, 50.0, 1e5])
@pytest.mark.parametrize("kind", ["normal", "pareto", "bounded"])
def test_power_sums_of_bins(rng, kind, gamma):
    x = draws(rng, 5000, kind)
    bins = summary._Slots().bins_of(x, x.max())
    w = np.exp(gamma * (x - x.max()))
    np.testing.assert_allclose(k.bin_power_sums(*bins, x.max(), gamma), (w.sum(), (w**2).sum()), rtol=1e-12)


@pytest.mark.parametrize("ess_min", [1e-3, 0.3, 0.9, 0.99999])
@pytest.mark.parametrize("kind", ["normal", "pareto", "bounded"])
def test_search_for_an_ess_by_bins(rng, kind, ess_min):
    x = draws(rng, 2000, kind)
    high, half_range, target = x.max(), (x.max() - x.min()) / 2, ess_min * x.size
    bins = summary._Slots().bins_of(x, high)
    gamma, ess = k.bin_ess_search(*bins, high, half_range, x.size, target, 50.0)
    assert ess == pytest.approx(naive.ess(x, gamma), rel=1e-11)
    assert target <= ess
    assert gamma == 50.0 or ess <= target * (1 + 4e-11)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("n", [1, 5, 64, 65, 1000])
def test_origins_are_at_the_first_of_the_largest_weights(rng, n, d):
    rows = np.round(rng.normal(size=(20, n)), 1)  # with ties
    rows[3] = -np.inf
    h = rng.normal(size=(20, n, d))
    flat, origin = h.reshape(20, -1), np.empty((20, d))
    assert k.origin_rows(rows, flat, origin) == np.abs(h).max()
    np.testing.assert_array_equal(origin, h[np.arange(20), rows.argmax(axis=1)])
    h[2] = np.inf
    assert k.origin_rows(rows, flat, origin) == np.inf
    assert (origin[2] == 0.0).all()
    h[4], rows[5, n // 2] = np.nan, np.nan
    assert np.isnan(k.origin_rows(rows, flat, origin))
    assert (origin[4] == 0.0).all()
    assert np.isin(origin[5], h[5]).all()


def accurate_twin(rows, n, start, found, points, status_h, draws, origin, exponent, gammas):
    """gamma, limit, ESS, khat there; estimate, its error, bias and mean squared error; interval, status."""
    known = [j for j in range(len(found)) if status_h[j] != k.NOT_FINITE_H]
    unit = 2.0 ** (exponent - exponent.max())
    total = [sum(points[j, g]["mse"] * unit[j] ** 2 for j in known) for g in range(len(gammas))]
    total = np.where(np.isfinite(total), total, np.inf) if known else np.full(len(gammas), np.inf)
    best = max(g for g in range(len(gammas)) if total[g] == total.min()) if total.min() < np.inf else None
    gamma = np.nan if best is None else gammas[best]
    limit = k.BY_NONE if best is None else k.BY_MAX if best == len(gammas) - 1 else k.BY_MSE
    ess = np.nan if best is None else points[0, best]["ess"]
    scale = 2.0**exponent
    error = Error(*(found[name][None] for name in ("std_error", "skewness", "error_draws")), draws[None])
    low, high = intervals.interval(found["estimate"][None], error, np.array([start["khat"]]))
    grade = statuses.of_error(found["error_draws"], status_h == k.CONSTANT_H)
    status = statuses.first_of(np.full(len(found), start["status"]), status_h, grade)
    std_error, bias = scale * found["std_error"], scale * found["bias"]
    of_h = origin + scale * found["estimate"], std_error, bias, std_error**2 + bias**2, found["error_draws"]
    return (gamma, ess, ess / n, limit), (*of_h, origin + scale * low[0], origin + scale * high[0], status)


def test_the_gamma_of_least_error_is_that_of_a_plain_search(rng):
    shape, gammas, n = (6, 3), np.arange(1, 9) / 8, np.array([60, 60, 60, 60, 1, 60])
    rows, length = rng.normal(size=(6, 60)), np.full(6, 12)
    truncated, found = np.zeros(6, k.TRUNCATED), np.empty(shape, k.LEAST_ERROR)
    points = np.empty((*shape, 8), k.ON_CURVE)
    for table in (found, points):
        for name in table.dtype.names:
            table[name] = rng.uniform(1.0, 40.0, size=table.shape)
    points["mse"][1, :, 2:5] = 0.5  # the last of equals
    points["mse"][2, 1], points["mse"][3, 0, :7] = np.nan, np.inf
    truncated["khat"], truncated["status"][5] = [0.2, 0.6, np.nan, 0.7, -np.inf, 1.2], k.POOR_TAIL_FIT
    status_h = np.full(shape, k.OK, np.int8)
    status_h[2, 1], status_h[0, 2], status_h[4] = k.NOT_FINITE_H, k.CONSTANT_H, k.NOT_FINITE_H
    exponent, origin = rng.integers(-60, 60, size=shape), rng.normal(size=shape)
    draws = rng.uniform(30.0, 60.0, size=shape)
    components, chosen = np.empty(shape, k.ACCURATE), np.empty(6, k.CHOSEN)
    by_row = rows, n, length, truncated, found, points, status_h, draws, origin, exponent, components, chosen
    k.accurate_rows(*by_row, gammas, intervals.series_of_student(0.95), statuses.RANKS, 2.0**-52)
    assert len(set(chosen["limited_by"])) == 3
    khat, status = np.empty(6), np.empty(6, np.int8)
    k.khat_rows(rows, n, length, chosen["gamma"].copy(), khat, status, 2.0**-52)
    np.testing.assert_array_equal(chosen["khat_tempered"], khat)
    np.testing.assert_array_equal(chosen["khat"], truncated["khat"])
    np.testing.assert_array_equal(chosen["n"], n)
    for r in range(6):
        given = (array[r] for array in (n, truncated, found, points, status_h, draws, origin, exponent))
        of_row, of_h = accurate_twin(rows[r], *given, gammas)
        for name, expected in zip(("gamma", "ess", "ess_ratio", "limited_by"), of_row, strict=True):
            assert chosen[name][r] == expected or np.isnan([chosen[name][r], expected]).all()
        for name, expected in zip(k.ACCURATE.names, of_h, strict=True):
            np.testing.assert_allclose(components[name][r], expected, rtol=1e-15)
