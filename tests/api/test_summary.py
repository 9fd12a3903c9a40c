"""Summaries: the numbers of the array, however its draws were split, merged, stored and sent."""

import pickle
import struct
from functools import reduce
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import isdiag
from isdiag import Status, Summary
from isdiag._core import packing, summary
from tests.helpers import assert_same, golden_cases, quiet
from tests.registry import rows_of

# Some with ties, zero weights, weights that matter little, and any floats at all.
finite = st.one_of(st.floats(-30, 30), st.floats(-1e300, 1e300), st.integers(-5, 5).map(float))
log_weights = hnp.arrays(np.float64, st.integers(0, 80), elements=finite | st.just(-np.inf))


@st.composite
def trees(draw, arrays=log_weights):
    """(an array, a way to split it and to merge the parts again)."""
    x = draw(arrays)
    cuts = sorted(draw(st.lists(st.integers(0, x.shape[-1]), max_size=8)))
    return x, cuts, draw(st.randoms(use_true_random=False))


def merged(parts, random):
    """Merge pairs in random order."""
    parts = list(parts)
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(parts.pop().merge(parts.pop()))
    return parts[0]


def in_parts(x, cuts, random, h=None, **options):
    values = [None] * (len(cuts) + 1) if h is None else np.split(h, cuts, axis=x.ndim - 1)
    parts = zip(np.split(x, cuts, axis=-1), values, strict=True)
    return merged([Summary.of(*part, **options) for part in parts], random)


def assert_close(got, expected, rtol, names=None):
    got, expected = rows_of(got), rows_of(expected)
    for name in names or got:
        if np.asarray(got[name]).dtype.kind == "f":
            atol = 1e-12 if name == "khat" else 1e-300  # khat may be near 0, ESS may be subnormal
            np.testing.assert_allclose(got[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def assert_selects(s, x, **options):
    """The selection of the array: gamma within 1e-10, or as far as its ESS is the one asked for."""
    got, expected = quiet(s.select_gamma, **options), quiet(isdiag.select_gamma, x, **options)
    assert_close(got, expected, 1e-12, ["khat", "n", "status", "limited_by"])
    assert_close(got, expected, 1e-10, ["ess", "ess_ratio"])
    if abs(got.gamma - expected.gamma) > 1e-10 * expected.gamma:  # where ESS is nearly level
        for gamma in (got.gamma, expected.gamma):
            wanted = options.get("ess_min", 0.3) * x.size
            assert wanted <= isdiag.ess(x, gamma=gamma) <= wanted * (1 + 1e-10)


# --------------------------------------------------------------------------- any partition, any tree


@given(trees(), st.floats(0, 3))
def test_any_tree_gives_the_numbers_of_the_array(tree, gamma):
    x, cuts, random = tree
    s = in_parts(x, cuts, random)
    assert s.n == x.size
    if x.size == 0:
        return
    np.testing.assert_allclose(s.ess(gamma), isdiag.ess(x, gamma=gamma), rtol=1e-11)
    khat = isdiag.pareto_khat(x, gamma=gamma)
    np.testing.assert_allclose(s.pareto_khat(gamma=gamma), khat, rtol=1e-12, atol=1e-12)
    for ess_min in (0.3, 0.8):
        assert_selects(s, x, ess_min=ess_min)
    assert_selects(s, x, rule="refit", k_max=0.3)


@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_merging_makes_no_difference(tree, other):
    x, cuts, random = tree
    one, two = in_parts(x, cuts, random), in_parts(x, cuts, other)
    np.testing.assert_array_equal(one.pareto_khat(), two.pareto_khat())
    np.testing.assert_allclose(one.ess(), two.ess(), rtol=1e-13)
    np.testing.assert_allclose(one.ess(0.1), two.ess(0.1), rtol=1e-13)
    left, right = one._state.rows[0], two._state.rows[0]
    np.testing.assert_array_equal(left.bins.key, right.bins.key)
    np.testing.assert_array_equal(left.bins.level, right.bins.level)


values = st.one_of(st.floats(-30, 30), st.floats(-1e100, 1e100), st.integers(0, 1).map(float))


@given(trees(), st.data(), st.sampled_from([1.0, 0.5, 0.0]))
def test_estimates_in_parts_are_those_of_the_array(tree, data, gamma):
    x, cuts, random = tree
    h = data.draw(hnp.arrays(np.float64, x.shape, elements=values))
    if x.size == 0:
        return
    s = in_parts(x, cuts, random, h, gamma=gamma)
    assert_estimates(s.snis(), isdiag.snis(x, h, gamma=gamma), np.abs(h).max())


def assert_estimates(got, expected, size):
    """To digits of the spread of h, where the mean is far from it to those of the mean."""
    names = ["ess", "khat", "log_z", "log_z_std_error"]
    assert_close(got, expected, 1e-10, names)
    np.testing.assert_allclose(got.estimate, expected.estimate, rtol=1e-12, atol=1e-13 * size)
    np.testing.assert_allclose(got.std_error, expected.std_error, rtol=1e-9, atol=1e-13 * size)
    np.testing.assert_allclose(got.bias, expected.bias, rtol=1e-9, atol=1e-13 * size)
    if np.all(np.asarray(expected.std_error) > 1e-9 * size):
        assert_close(got, expected, 1e-6, ["low", "high", "error_draws", "status"])


@pytest.mark.parametrize("origin", [0.0, 1e3, -1e9])
@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e100])
def test_units_and_origin_of_h_cost_no_digits(rng, unit, origin):
    x = rng.normal(size=3000)
    h = (x + origin) * unit
    s = reduce(Summary.merge, map(Summary.of, np.split(x, 30), np.split(h, 30)))
    got, expected = s.snis(), isdiag.snis(x, h)
    assert_close(got, expected, 1e-10 if abs(origin) < 1e6 else 1e-7)


@pytest.mark.parametrize("own", [(), (2,)])
def test_a_batch_of_no_rows_has_estimates_of_none(own):
    nothing = isdiag.Summary.of(np.empty((0, 10)), np.empty((0, 10, *own))).snis()
    assert nothing.estimate.shape == (0, *own)
    assert nothing.ess.shape == (0,)


def test_values_with_axes_of_their_own(rng):
    x, h = rng.normal(size=(2, 600)), rng.normal(size=(2, 600, 3, 2)).astype(np.float32)
    h[:, :, 0, 0] = 1.5
    parts = [Summary.of(x[:, i], h[:, i]) for i in (slice(0, 1), slice(1, 400), slice(400, 600))]
    got = reduce(Summary.merge, parts).snis()
    assert got.estimate.shape == (2, 3, 2)
    assert_close(got, isdiag.snis(x, h), 1e-11)
    assert (got.status[:, 0, 0] == Status.CONSTANT_H).all()


def test_h_is_not_looked_at_where_its_weight_is_nothing():
    x, h = np.array([0.0, -1.0, -2.0, -800.0, -np.inf]), np.array([1.0, 2.0, 4.0, np.nan, np.inf])
    s = in_parts(x, [3], np.random.default_rng(0), h)  # the NaN is the largest draw of its part
    assert_close(s.snis(), isdiag.snis(x, h), 1e-12)
    h[2] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning, match="h that is not finite"):
        assert in_parts(x, [3], np.random.default_rng(0), h).snis().status is Status.NOT_FINITE_H


# Beyond 1e300 the gamma that an ESS sets is subnormal, and ESS there no number to compare.
any_floats = st.one_of(st.floats(-1e300, 1e300), st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 5e-324]))


@given(st.lists(hnp.arrays(np.float64, 7, elements=any_floats), min_size=1, max_size=3))
def test_any_floats_and_merging_with_nothing(arrays):
    x = np.concatenate(arrays)
    s = reduce(Summary.merge, map(Summary.of, [np.empty(0), *arrays, np.full(5, -np.inf), np.empty(0)]))
    x = np.append(x, np.full(5, -np.inf))
    got, expected = quiet(s.select_gamma), quiet(isdiag.select_gamma, x)
    assert_close(got, expected, 1e-9, ["khat", "n", "ess", "status"])


@pytest.mark.parametrize("name", ["empty", "no weight"])
def test_a_part_of_nothing_changes_no_bit(heavy, name):
    part = Summary.of(np.empty(0) if name == "empty" else np.full(50, -np.inf))
    whole = Summary.of(heavy)
    for got in (whole.merge(part), part.merge(whole)):
        assert got.ess() == whole.ess()
        assert got.pareto_khat(tail_length=50) == whole.pareto_khat(tail_length=50)
        assert got.n == whole.n + part.n


def test_a_part_that_is_not_finite_is_told(heavy):
    bad = heavy.copy()
    bad[3] = np.nan
    s = Summary.of(heavy).merge(Summary.of(bad)).merge(Summary.of(heavy))
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows"):
        found = s.select_gamma()
    assert found.status is Status.NOT_FINITE
    assert found.n == 3000
    with pytest.warns(isdiag.NonFiniteWarning):
        assert np.isnan(s.ess())


def test_nothing_at_all():
    s = Summary.of(np.empty((2, 0)))
    assert (s.select_gamma().status == Status.NO_WEIGHT).all()
    assert np.isnan(s.ess()).all()
    assert (s.log_w_quantile(0.5) == -np.inf).all()


# ------------------------------------------------------------------------------------- batches, options


def test_a_batch_in_parts(rng):
    x = rng.normal(size=(3, 900, 2)) * [[[0.5]], [[1.0]], [[3.0]]]
    x[0, :, 1] = -np.inf
    x[2, 7, 0] = np.nan
    where = rng.uniform(size=(900, 2)) < 0.8
    parts = [(slice(0, 10), 10), (slice(10, 600), 590), (slice(600, 900), 300)]
    s = reduce(Summary.merge, (Summary.of(x[:, i], axis=1, where=where[i]) for i, _ in parts))
    got, expected = quiet(s.select_gamma), quiet(isdiag.select_gamma, x, axis=1, where=where)
    assert got.gamma.shape == (3, 2)
    assert_close(got, expected, 1e-10)
    gamma = np.array([[0.1, 1.0], [0.5, 2.0], [0.0, 0.3]])
    np.testing.assert_allclose(
        quiet(s.ess, gamma), quiet(isdiag.ess, x, gamma=gamma, axis=1, where=where), rtol=1e-11
    )


def test_options_of_the_tail(heavy):
    s = Summary.of(heavy)
    for options in ({"r_eff": 0.4}, {"r_eff": 2.0}, {"tail_length": 30}):
        assert s.pareto_khat(**options) == pytest.approx(isdiag.pareto_khat(heavy, **options), rel=1e-12)
        assert_close(s.select_gamma(**options), isdiag.select_gamma(heavy, **options), 1e-10)
    with pytest.raises(ValueError, match="tail_length=1000 must be smaller than the number of draws"):
        s.pareto_khat(tail_length=1000)


def test_diagnoses(heavy):
    got, expected = Summary.of(heavy, heavy).diagnose(), isdiag.diagnose(heavy, heavy)
    assert (got.verdict, got.ok, got.status) == (expected.verdict, expected.ok, expected.status)
    assert got.max_weight == pytest.approx(expected.max_weight, rel=1e-12)
    assert got.estimate_tempered is None
    assert str(got) == "\n".join(line for line in str(expected).split("\n") if "mean at gamma" not in line)
    assert_close(Summary.of(heavy, heavy, gamma=expected.gamma).snis(), expected.estimate_tempered, 1e-10)


@pytest.mark.parametrize("case", list(golden_cases()), ids=lambda case: case[0])
def test_golden_vectors(case):
    _, x, _ = case
    assert_selects(in_parts(x, [len(x) // 7, len(x) // 3], np.random.default_rng(0)), x)


def test_scales_and_shapes_of_log_weights(rng):
    # Bins are relative to the depth below the largest: no scale is special, nor masks that stand for -inf.
    n = 20_000
    rows = {
        "narrow": 5 + 1e-6 * rng.normal(size=n),
        "wide": 1e4 * rng.normal(size=n),
        "bounded": np.log(rng.uniform(size=n)),
        "clipped": np.minimum(rng.normal(size=n), 0.5),
        "one far": np.append(rng.normal(size=n - 1), 60.0),
        "masked": np.where(rng.uniform(size=n) < 0.3, -3.4e38, rng.normal(size=n)),
        "far off": 1e9 + rng.normal(size=n),
        "two clusters": np.repeat([0.0, -25.0], [10, n - 10]) + 1e-3 * rng.normal(size=n),
    }
    for name, x in rows.items():
        s = in_parts(x, [3, 5000, 12_000], np.random.default_rng(0))
        for gamma in (1e-7, 1e-3, 0.1, 1.0, 7.0, 1e3, 1e6):
            np.testing.assert_allclose(s.ess(gamma), isdiag.ess(x, gamma=gamma), rtol=1e-11, err_msg=name)
        assert_selects(s, x)
        assert_close(s.diagnose(), isdiag.diagnose(x), 1e-9, ["max_weight", "ess", "status"])


def test_mean_weights_near_one_keep_their_error(rng):
    # 1 / ESS - 1 / n of weights that are nearly equal.
    x = 1e-6 * rng.normal(size=5000)
    got = in_parts(x, [100, 2000], np.random.default_rng(0), x).snis()
    assert got.log_z_std_error == pytest.approx(isdiag.snis(x, x).log_z_std_error, rel=1e-9)


# ------------------------------------------------------------------------- what the peers got wrong


def test_parts_do_not_average():
    # Megatron-LM's pull request 5420 averages the ESS of the parts: 1 for these, which joined have .9.
    parts = [Summary.of(np.log([w] * 4)) for w in (1.0, 2.0)]
    assert [part.ess() / 4 for part in parts] == [1.0, 1.0]
    assert reduce(Summary.merge, parts).ess() / 8 == pytest.approx(0.9, rel=1e-12)
    # verl normalises each micro-batch by its own mean: .75 where .105 is true.
    one = np.log([1.0, 1.0, 1.0, 1.0])
    other = np.log([1.0, 1.0, 1.0, 100.0])
    joined = Summary.of(one).merge(Summary.of(other))
    assert joined.ess() == pytest.approx(isdiag.ess(np.concatenate([one, other])), rel=1e-12)


# --------------------------------------------------------------------------------- long rows, streams


def test_pieces_of_a_long_row(rng, monkeypatch):
    monkeypatch.setattr(summary, "PIECE", 1000)
    x = 2 * rng.normal(size=25_300)
    x[::9] = -np.inf
    alone = Summary.of(x, x, n_max=4000, workers=1)
    assert Summary.of(x, x, n_max=4000, workers=3).to_bytes() == alone.to_bytes()
    assert_close(Summary.of(x, x, workers=2).snis(), isdiag.snis(x, x), 1e-11)
    stream = Summary.of_parts(zip(np.split(x, 11), np.split(x, 11), strict=True))
    assert_close(stream.snis(), isdiag.snis(x, x), 1e-11)
    assert_selects(stream, x)


def test_the_tail_is_found_in_whatever_order_draws_come(rng, monkeypatch):
    monkeypatch.setattr(summary, "PIECE", 4000)
    x = np.sort(rng.normal(size=40_000))
    for order in (slice(None), slice(None, None, -1)):
        s = Summary.of(x[order], n_max=4e4)
        assert s.pareto_khat() == pytest.approx(isdiag.pareto_khat(x), rel=1e-12)
    # A sample for a bound that misleads: every sixteenth draw is large.
    x = np.where(np.arange(4000) % 15 == 0, 5.0, rng.normal(size=4000))
    assert Summary.of(x, n_max=900).pareto_khat(tail_length=80) == isdiag.pareto_khat(x, tail_length=80)


def test_more_draws_than_n_max(rng):
    x = rng.normal(size=3000)
    s = Summary.of(x, n_max=1000)
    with pytest.raises(ValueError, match="of 3000 draws rests on the 165 largest, and of them 95 are held"):
        s.pareto_khat()
    assert s.ess() == pytest.approx(isdiag.ess(x), rel=1e-12)
    assert s.pareto_khat(tail_length=94) == pytest.approx(isdiag.pareto_khat(x, tail_length=94), rel=1e-12)
    assert "khat=unknown" in repr(s)
    both = Summary.of(x).merge(s)  # the least of theirs
    with pytest.raises(ValueError, match="larger n_max"):
        both.select_gamma()


def test_streams_of_nothing():
    with pytest.raises(ValueError, match="at least one part"):
        Summary.of_parts([])
    assert Summary.of_parts(iter([np.empty(0)])).n == 0


def test_quantiles(rng):
    x = np.append(2 * rng.normal(size=50_000), np.full(5000, -np.inf))
    s = in_parts(x, [7, 20_000], np.random.default_rng(0), n_max=1e5)
    q = np.array([0.0, 0.05, 0.1, 0.3, 0.5, 0.9, 0.99, 0.9999, 1.0])
    got, expected = s.log_w_quantile(q), np.quantile(x, q, method="inverted_cdf")
    assert got[0] == expected[0] == -np.inf
    np.testing.assert_allclose(got[2:], expected[2:], atol=0.5 / 63 * (x.max() - expected[2:]).max())
    np.testing.assert_allclose(got[-2:], np.quantile(x[x > -9e9], 1 - (1 - q[-2:]) * 55 / 50), atol=1e-2)
    assert got[-1] == x.max()
    assert Summary.of(np.zeros((2, 3))).log_w_quantile([[0.1], [0.5]]).shape == (2, 2, 1)


# ----------------------------------------------------------------------------------------------- bytes


@given(trees(), st.booleans())
def test_bytes_and_back(tree, with_h):
    x, cuts, random = tree
    s = in_parts(x, cuts, random, x * (x > -np.inf) if with_h and np.isfinite(x).all() else None)
    data = s.to_bytes()
    back = Summary.from_bytes(data)
    assert back.to_bytes() == data
    assert pickle.loads(pickle.dumps(s)).to_bytes() == data  # noqa: S301
    other = Summary.of([0.5], None if s._state.own is None else [1.0])
    assert_same(s.merge(other).select_gamma(), back.merge(other).select_gamma())


def test_pickles_hold_the_checked_bytes(heavy):
    assert Summary.of(heavy).to_bytes() in pickle.dumps(Summary.of(heavy))


REFUSED = {
    "foreign": (
        lambda data: b"\x80\x04pickled" + data,
        r"no summary of isdiag: it begins with b'\\x80\\x04pickle'",
    ),
    "none": (lambda data: data[:0], "no summary of isdiag"),
    "a few bytes": (lambda data: data[:10], "cut short: 10 bytes of at least 20"),
    "cut": (lambda data: data[:-100], "cut short"),
    "appended": (lambda data: data + b"\0", "1 bytes after the end"),
    "a bit": (lambda data: data[:200] + bytes([data[200] ^ 4]) + data[201:], "damaged"),
    "version": (
        lambda data: data[:8] + struct.pack("<I", packing.VERSION + 1) + data[12:],
        "a summary of version 2, and this isdiag reads and merges version 1",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_no_summary_is_refused_with_the_reason(heavy, fault):
    spoil, reason = REFUSED[fault]
    with pytest.raises(ValueError, match=reason):
        Summary.from_bytes(spoil(Summary.of(heavy).to_bytes()))


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_were_forged_are_read_or_refused(changes):
    data = bytearray(Summary.of([0.5, -1.0, 2.0], [1.0, 0.0, 2.0]).to_bytes())
    for place, byte in changes:
        data[20 + place % (len(data) - 36)] = byte
    data[-16:] = blake2b(data[:-16], digest_size=16).digest()
    try:
        found = Summary.from_bytes(data)
    except ValueError:
        return
    assert Summary.from_bytes(found.to_bytes()).to_bytes() == found.to_bytes()


def test_bytes_that_do_not_fit_their_header_are_refused(heavy):
    data = Summary.of(heavy).to_bytes()
    for forged in (data[20:-16] + b"more", data[20:-100], b"\x02\0\0\0{}", b"\xff"):
        head = data[:12] + struct.pack("<Q", len(forged)) + forged
        with pytest.raises(ValueError, match="its header does not fit its content"):
            Summary.from_bytes(head + blake2b(head, digest_size=16).digest())


def test_bytes_are_of_fixed_size(rng):
    x = rng.normal(size=300_000)
    small, large = (len(Summary.of(x[:n], n_max=1e4).to_bytes()) for n in (30_000, 300_000))
    assert 0.8 * small < large < 1.2 * small
    assert summary.held_for(5e9) * 8 < 1.75e6


# ------------------------------------------------------------------------------------- wrong arguments


def test_wrong_arguments_are_named(heavy):
    s = Summary.of(heavy)
    with pytest.raises(ValueError, match=r"n_max must be between 1 and 9\.0072e\+15, got 0"):
        Summary.of(heavy, n_max=0)
    with pytest.raises(ValueError, match="gamma must be finite and at least 0, got -1"):
        Summary.of(heavy, gamma=-1)
    with pytest.raises(ValueError, match=r"one batch shape, got \(\) and \(2,\)"):
        s.merge(Summary.of(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="one shape of h at a draw"):
        s.merge(Summary.of(heavy, heavy))
    with pytest.raises(ValueError, match=r"one gamma, got 1\.0 and 0\.5"):
        Summary.of(heavy, heavy).merge(Summary.of(heavy, heavy, gamma=0.5))
    with pytest.raises(TypeError, match="other must be a Summary"):
        s.merge(heavy)
    with pytest.raises(TypeError, match="data must be bytes, got list"):
        Summary.from_bytes([1])
    with pytest.raises(ValueError, match="snis needs h"):
        s.snis()
    with pytest.raises(ValueError, match=r"rule must be one of \('joint', 'refit'\), got 'mse'"):
        s.select_gamma(rule="mse")
    with pytest.raises(TypeError, match=r"Summary\.of"):
        Summary()
    with pytest.raises(ValueError, match="one batch shape"):
        Summary.of_parts([heavy, heavy.reshape(2, -1)])


# ------------------------------------------------------------------------------- smoothing out of memory


@given(trees(), st.booleans())
def test_smoothed_parts_are_the_smoothed_array(tree, normalize):
    x, cuts, _ = tree
    if x.size == 0:
        return
    parts = np.split(x, cuts)
    got = np.concatenate(list(Summary.of_parts(parts).psis(parts, normalize=normalize, tail_length=None)))
    expected = isdiag.psis(x, normalize=normalize).log_weights
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["normal", "lattice", "one far", "bounded", "few", "batch"])
def test_smoothing_by_a_second_pass(rng, kind):
    n = 6000
    x = {
        "normal": 2 * rng.normal(size=n),
        "lattice": np.round(8 * rng.normal(size=n)) / 8,
        "one far": np.append(rng.normal(size=n - 1), 60.0),
        "bounded": np.log(rng.uniform(size=n)),
        "few": np.where(np.arange(n) < 100, rng.normal(size=n), -np.inf),
        "batch": rng.normal(size=(2, 3, n)) * [[[0.1], [1.0], [3.0]]],
    }[kind].astype(np.float32)
    parts = np.split(x, [1, 100, 4000], axis=-1)
    s = Summary.of_parts(parts)
    smoothed = list(s.psis(iter(parts)))
    assert [part.dtype for part in smoothed] == [np.float32] * 4
    expected = isdiag.psis(x).log_weights
    np.testing.assert_allclose(np.concatenate(smoothed, axis=-1), expected, rtol=3e-7, atol=1e-7)


def test_more_ties_with_the_smallest_of_the_tail_than_are_held(rng):
    x = np.round(4 * rng.normal(size=6000)) / 4
    parts = np.split(x, [1000, 1001])
    smoothed = np.concatenate(list(Summary.of_parts(parts, n_max=x.size).psis(parts)))
    expected = isdiag.psis(x).log_weights
    np.testing.assert_allclose(np.sort(smoothed), np.sort(expected), rtol=1e-11)
    tied = x == np.sort(x)[-isdiag.tail_length(x.size)]
    np.testing.assert_allclose(smoothed[~tied], expected[~tied], rtol=1e-11)


def test_the_second_pass_is_over_the_same_draws(heavy):
    s = Summary.of(heavy)
    with pytest.raises(ValueError, match=r"parts hold \[500\] draws, and the summary is of \[1000\]"):
        list(s.psis([heavy[:500]]))
    with pytest.raises(ValueError, match="one batch shape"):
        list(s.psis([heavy.reshape(2, 500)]))
    bad = np.append(heavy, np.nan)
    assert np.isnan(next(Summary.of(bad).psis([bad]))).all()
    nothing = np.full(9, -np.inf)
    assert (next(Summary.of(nothing).psis([nothing])) == -np.inf).all()
