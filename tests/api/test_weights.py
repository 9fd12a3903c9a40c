"""Weights that are cut, drawn from, or those of several proposals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp
from scipy.stats import norm

import isdiag
from isdiag import Status
from tests.helpers import assert_same, optional, quiet

METHODS = ("systematic", "stratified", "residual", "multinomial")
each_method = pytest.mark.parametrize("method", METHODS)

# ------------------------------------------------------------------------------------- truncate


def test_truncated_weights_are_those_of_the_paper(heavy):
    w = np.exp(heavy)
    cut = np.minimum(w, np.sqrt(w.size) * w.mean())
    found = isdiag.truncate(heavy)
    np.testing.assert_allclose(np.exp(found.log_weights), cut / cut.sum(), rtol=1e-12)
    assert found.ess == pytest.approx(cut.sum() ** 2 / np.sum(cut**2), rel=1e-12)
    assert found.khat == isdiag.pareto_khat(heavy)
    assert (found.n, found.status) == (1000, Status.OK)
    as_given = isdiag.truncate(heavy, normalize=False).log_weights
    np.testing.assert_array_equal(as_given[w < cut.max()], heavy[w < cut.max()])
    np.testing.assert_allclose(as_given, np.log(cut), rtol=1e-12)


def test_the_truncated_estimate_is_the_mean_under_truncated_weights(heavy):
    h = np.cos(heavy)
    share = np.exp(isdiag.truncate(heavy).log_weights)
    found = isdiag.snis(heavy, h, smooth="truncate")
    assert found.estimate == pytest.approx(share @ h, rel=1e-12)
    assert found.ess == pytest.approx(isdiag.truncate(heavy).ess, rel=1e-12)


def test_the_khat_of_truncated_weights_is_not_good_because_they_are_cut(rng):
    # loo's tis reports 0 whatever the weights.
    assert isdiag.truncate(1.2 * rng.exponential(size=4000)).khat > 0.9


def test_truncation_where_there_is_nothing_to_cut():
    flat = isdiag.truncate(np.full(40, 3.0), normalize=False)
    np.testing.assert_array_equal(flat.log_weights, np.full(40, 3.0))
    assert (flat.ess, flat.khat, flat.status) == (40, -np.inf, Status.FLAT)
    one = isdiag.truncate([2.5])
    assert (one.log_weights.tolist(), one.ess, one.status) == ([0.0], 1.0, Status.ONE_DRAW)
    alone = isdiag.truncate([5.0, -np.inf, -np.inf])
    np.testing.assert_array_equal(alone.log_weights, [0.0, -np.inf, -np.inf])
    far = isdiag.truncate(np.array([1.7e308, -1.7e308]), normalize=False)
    assert np.isfinite(far.log_weights).all()


# ------------------------------------------------------------------------------------- resample


@each_method
def test_resampling_is_unbiased(rng, method):
    w = np.array([0.0, 5.0, 1.0, 0.3, 0.0, 2.2, 1.5, 0.0])
    with np.errstate(divide="ignore"):
        log_w = np.tile(np.log(w), (20_000, 1))
    for size in (3, 8, 21):
        taken = isdiag.resample(log_w, size, method=method, rng=rng)
        counts = (taken[:, :, None] == np.arange(8)).sum(axis=1)
        error = counts.mean(axis=0) - size * w / w.sum()
        assert np.abs(error).max() < 5 * np.sqrt(size / 4 / 20_000)
        assert (counts[:, w == 0.0] == 0).all()


def test_methods_have_the_variance_that_theory_says(rng):
    x = rng.normal(size=50)
    w = np.exp(0.8 * x)
    share, repeats, size = w / w.sum(), 20_000, 40
    log_w = np.tile(0.8 * x, (repeats, 1))
    variance = {}
    for method in METHODS:
        means = x[isdiag.resample(log_w, size, method=method, rng=rng)].mean(axis=1)
        variance[method] = means.var()
        assert abs(means.mean() - share @ x) < 5 * np.sqrt(variance[method] / repeats)
    mean = share @ x
    assert variance["multinomial"] == pytest.approx(share @ (x - mean) ** 2 / size, rel=0.06)
    # Of the rest of residual resampling: its own multinomial variance (Douc, Cappe & Moulines 2005).
    rest = size * share - np.floor(size * share)
    left = rest.sum()
    rest /= left
    expected = left * (rest @ (x - rest @ x) ** 2) / size**2
    assert variance["residual"] == pytest.approx(expected, rel=0.06)
    assert variance["systematic"] < variance["stratified"] < variance["residual"] < variance["multinomial"]


def cumulative_twin(log_w, points):
    share = np.exp(log_w - logsumexp(log_w))
    return np.searchsorted(np.cumsum(share), points, side="right")


def test_strata_are_those_of_the_cumulative_weights(rng):
    log_w = 1.5 * rng.normal(size=300)
    for size in (1, 7, 300, 1000):
        u = np.random.default_rng(3).random((1, 1))
        expected = cumulative_twin(log_w, (np.arange(size) + u[0]) / size)
        np.testing.assert_array_equal(isdiag.resample(log_w, size, rng=3), expected)
        u = np.random.default_rng(3).random((1, size))
        expected = cumulative_twin(log_w, (np.arange(size) + u[0]) / size)
        np.testing.assert_array_equal(isdiag.resample(log_w, size, method="stratified", rng=3), expected)
        e = np.cumsum(np.random.default_rng(3).standard_exponential(size + 1))
        expected = cumulative_twin(log_w, e[:-1] / e[-1])
        np.testing.assert_array_equal(isdiag.resample(log_w, size, method="multinomial", rng=3), expected)


@given(
    arrays(float, st.integers(1, 40), elements=st.one_of(st.floats(-1e308, 1e308), st.just(-np.inf))),
    st.integers(1, 60),
    st.sampled_from(METHODS),
    st.integers(0, 5),
)
def test_whatever_the_weights_positions_are_of_draws_that_have_some(log_w, size, method, seed):
    taken = isdiag.resample(log_w, size, method=method, rng=seed)
    assert taken.shape == (size,)
    assert taken.dtype == np.int64
    if (log_w == -np.inf).all():
        assert (taken == -1).all()
        return
    assert (log_w[taken] > -np.inf).all()
    assert (np.diff(taken) >= 0).all()
    if method in ("systematic", "residual"):
        with np.errstate(over="ignore"):  # a range beyond float64
            expected = size * np.exp(log_w - np.max(log_w))
            expected /= np.exp(log_w - np.max(log_w)).sum()
        counts = np.bincount(taken, minlength=log_w.size)
        assert (counts >= np.floor(expected * (1 - 1e-12) - 1e-9)).all()
        if method == "systematic":
            assert (counts <= np.ceil(expected * (1 + 1e-12) + 1e-9)).all()


def test_without_replacement_draws_are_taken_one_after_the_other(rng):
    w = np.array([4.0, 1.0, 2.0, 0.0, 3.0])
    with np.errstate(divide="ignore"):
        log_w = np.tile(np.log(w), (40_000, 1))
    taken = isdiag.resample(log_w, 3, replace=False, rng=rng)
    for pair in ((0, 4), (4, 0), (1, 2), (2, 1)):
        first, second = w[pair[0]] / w.sum(), w[pair[1]] / (w.sum() - w[pair[0]])
        share = ((taken[:, 0] == pair[0]) & (taken[:, 1] == pair[1])).mean()
        assert share == pytest.approx(first * second, abs=5 * math.sqrt(first * second / 40_000))
    assert (np.sort(taken, axis=1)[:, 1:] != np.sort(taken, axis=1)[:, :-1]).all()
    assert not (taken == 3).any()


def test_a_row_that_cannot_give_so_many_is_all_minus_one(rng):
    log_w = rng.normal(size=(4, 20))
    log_w[1], log_w[2, 3:] = -np.inf, -np.inf
    log_w[3, 0] = np.nan
    alone = isdiag.resample(log_w[:1], 5, rng=0)
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 4 rows hold NaN or .inf: their results are -1"):
        taken = isdiag.resample(log_w, 5, rng=0)
    np.testing.assert_array_equal(taken[0], alone[0])
    assert (taken[[1, 3]] == -1).all()
    assert (taken[2] < 3).all()
    fewer = quiet(isdiag.resample, log_w, 5, replace=False, rng=0)
    assert (fewer[1:] == -1).all()
    assert len(set(fewer[0])) == 5
    assert (isdiag.resample(log_w[0], 21, replace=False) == -1).all()
    everyone = isdiag.resample(log_w[0], replace=False, rng=0)
    np.testing.assert_array_equal(np.sort(everyone), np.arange(20))


def test_axes_masks_and_kinds_of_positions(rng):
    cube = rng.normal(size=(3, 40, 5))
    taken = isdiag.resample(cube, 7, axis=1, rng=0)
    assert taken.shape == (3, 5, 7)
    np.testing.assert_array_equal(taken, isdiag.resample(cube.transpose(0, 2, 1), 7, rng=0))
    flat = isdiag.resample(cube, 7, axis=(1, 2), rng=0)
    np.testing.assert_array_equal(flat, isdiag.resample(cube.reshape(3, 200), 7, rng=0))
    where = rng.uniform(size=cube.shape) < 0.5
    for options in ({}, {"replace": False}):
        kept = isdiag.resample(cube, 7, axis=1, where=where, rng=0, **options)
        assert np.take_along_axis(where.transpose(0, 2, 1), kept, axis=2).all()
    torch = optional("torch")
    tensor = isdiag.resample(torch.tensor(cube), 7, axis=1, rng=0)
    assert tensor.dtype == torch.int64
    np.testing.assert_array_equal(tensor.numpy(), taken)


def test_a_generator_moves_on_and_a_seed_does_not(heavy):
    first = isdiag.resample(heavy, rng=np.int64(4))
    np.testing.assert_array_equal(isdiag.resample(heavy, rng=4), first)
    generator = np.random.default_rng(4)
    np.testing.assert_array_equal(isdiag.resample(heavy, rng=generator), first)
    assert (isdiag.resample(heavy, rng=generator) != first).any()
    assert (isdiag.resample(heavy) != isdiag.resample(heavy)).any()


def test_wrong_arguments_of_resample(heavy):
    for options, error, match in (
        ({"size": 0}, ValueError, "size.*0"),
        ({"size": 2.5}, ValueError, "size.*2.5"),
        ({"size": 2**70}, ValueError, "size.*1180591620717411303424"),
        ({"method": "best"}, ValueError, "method.*best"),
        ({"method": "residual", "replace": False}, ValueError, "replace=False.*residual"),
        ({"replace": 2}, TypeError, "replace.*2"),
        ({"rng": "a"}, TypeError, "rng.*a"),
        ({"rng": 1.5}, TypeError, "rng.*1.5"),
        ({"rng": -1}, ValueError, "rng.*-1"),
        ({"axis": 3}, ValueError, "axis 3"),
        ({"where": np.ones(3, bool)}, ValueError, "where"),
    ):
        with pytest.raises(error, match=match):
            isdiag.resample(heavy, **options)


# --------------------------------------------------------------------------------- mixture_log_weights


def mixture(rng, counts=(400, 100, 1500)):
    means = np.array([-1.0, 0.0, 2.0])
    x = np.concatenate([rng.normal(mean, 1.0, count) for mean, count in zip(means, counts, strict=True)])
    return x, norm.logpdf(x, 0.5, 0.8), norm.logpdf(x, means[:, None], 1.0)


def test_mixture_weights_are_the_balance_heuristic(rng):
    counts = np.array([400, 100, 1500])
    x, log_target, log_proposals = mixture(rng)
    found = isdiag.mixture_log_weights(log_target, log_proposals, counts)
    density = (counts / counts.sum()) @ np.exp(log_proposals)
    np.testing.assert_allclose(found, log_target - np.log(density), rtol=1e-12, atol=1e-12)
    estimate = isdiag.snis(found, x)
    assert abs(estimate.log_z) < 4 * estimate.log_z_std_error
    assert abs(estimate.estimate - 0.5) < 4 * estimate.std_error
    as_list = isdiag.mixture_log_weights(log_target, list(log_proposals), counts / counts.sum())
    np.testing.assert_allclose(as_list, found, atol=1e-13)


def test_mixture_weights_of_a_batch_in_other_kinds(rng):
    _, log_target, log_proposals = mixture(rng)
    batch = isdiag.mixture_log_weights(
        np.stack([log_target, log_target + 1]), np.stack([log_proposals, log_proposals], axis=1), [4, 1, 15]
    )
    alone = isdiag.mixture_log_weights(log_target, log_proposals, [4, 1, 15])
    np.testing.assert_array_equal(batch[0], alone)
    np.testing.assert_allclose(batch[1], alone + 1, rtol=1e-14)
    torch = optional("torch")
    narrow = isdiag.mixture_log_weights(
        torch.tensor(log_target, dtype=torch.float32), torch.tensor(log_proposals), [4, 1, 15]
    )
    assert narrow.dtype == torch.float32
    np.testing.assert_allclose(narrow, alone, rtol=1e-5, atol=1e-5)


def test_densities_of_zero_in_a_mixture():
    inf = np.inf
    fine = isdiag.mixture_log_weights([0.0, -inf, -1e308], [[0.0, -inf, -1e308], [-inf, -inf, 0.0]], [1, 1])
    np.testing.assert_array_equal(fine, [np.log(2), -inf, -1e308])
    never_looked_at = isdiag.mixture_log_weights([0.0, 1.0], [[0.0, 0.0], [np.nan, np.inf]], [3, 0])
    np.testing.assert_array_equal(never_looked_at, [0.0, 1.0])


@pytest.mark.parametrize("given", [np.array("x"), 5.0, None, [[0.0, 1.0]]], ids=str)
def test_proposals_that_are_not_as_many_as_counts(given):
    with pytest.raises(
        ValueError, match=r"log_proposals must hold 2 arrays, as many as counts; got (array|5|None|1)"
    ):
        isdiag.mixture_log_weights([0.0, 1.0], given, [3, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_of_a_mixture_that_is_not_finite(rng, bad):
    log_target, log_proposals = rng.normal(size=(2, 30)), rng.normal(size=(2, 2, 30))
    clean = isdiag.mixture_log_weights(log_target, log_proposals, [1, 1])
    for array in (log_target, log_proposals[1]):
        keep = array[1, 3]
        array[1, 3] = bad
        with pytest.warns(isdiag.NonFiniteWarning, match="1 of 2 rows"):
            found = isdiag.mixture_log_weights(log_target, log_proposals, [1, 1])
        np.testing.assert_array_equal(found[0], clean[0])
        assert np.isnan(found[1]).all()
        array[1, 3] = keep
    log_proposals[:, 1, 3] = -np.inf
    with pytest.warns(isdiag.NonFiniteWarning):
        assert np.isnan(isdiag.mixture_log_weights(log_target, log_proposals, [1, 1])[1]).all()


def test_wrong_arguments_of_mixture_log_weights():
    x = np.zeros(9)
    for args, error, match in (
        ((x, [x, x], [1]), ValueError, "log_proposals.*1.*2"),
        ((x, [x, x[:8]], [1, 1]), ValueError, r"log_proposals\[1\].*8"),
        ((x, [x, x], [1, -1]), ValueError, "counts.*-1"),
        ((x, [x, x], [0, 0]), ValueError, "counts"),
        ((x, [x], [[1]]), ValueError, "counts"),
        ((x, [x], [np.nan]), ValueError, "counts.*nan"),
        ((x, 3.0, [1]), ValueError, "log_proposals"),
        ((x, [x.astype(complex)], [1]), TypeError, r"log_proposals\[0\].*complex"),
        ((1.0, [x], [1]), ValueError, "log_target.*scalar"),
    ):
        with pytest.raises(error, match=match):
            isdiag.mixture_log_weights(*args)


# -------------------------------------------------------------------------------------- labelled arrays


def test_labels_go_along(rng):
    pandas, xarray = optional("pandas"), optional("xarray")
    table = pandas.DataFrame(rng.normal(size=(50, 2)), columns=["a", "b"])
    assert list(isdiag.truncate(table).log_weights.columns) == ["a", "b"]
    taken = isdiag.resample(table["a"], rng=0)
    np.testing.assert_array_equal(taken, isdiag.resample(table["a"].to_numpy(), rng=0))
    draws = xarray.DataArray(rng.normal(size=(2, 50, 3)), dims=("chain", "draw", "obs"))
    both = isdiag.resample(draws, 9, rng=0)
    assert both.shape == (3, 9)
    assert both.dims[0] == "obs"
    assert_same(isdiag.truncate(draws.to_numpy(), axis=(0, 1)).ess, isdiag.truncate(draws).ess.to_numpy())
