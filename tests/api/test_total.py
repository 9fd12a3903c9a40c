"""Hypothesis: invariants, and that every public function is total.

Long runs: HYPOTHESIS_PROFILE=nightly python -m pytest tests/api/test_total.py
"""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import isdiag
from isdiag import Status
from tests import registry
from tests.registry import CALLS

dtypes = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int8])


def elements(dtype):
    if np.dtype(dtype).kind != "f":
        return None
    width = 8 * np.dtype(dtype).itemsize
    few = st.sampled_from([0.0, 1.0, -1.0, 3.5, -np.inf])  # ties and zero weights
    return st.one_of(few, few, st.floats(-20, 20, width=width), st.floats(width=width))


@st.composite
def any_array(draw):
    """Arrays of any real dtype, 0 to 3 axes, any layout, possibly empty and read-only."""
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40))
    assume(np.prod(shape) <= 4000)
    array = draw(hnp.arrays(dtype, shape, elements=elements(dtype), fill=st.nothing()))
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if draw(st.booleans()) and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::-2]
    array.flags.writeable = draw(st.booleans())
    return array


@st.composite
def options(draw, array):
    chosen = {}
    if draw(st.booleans()):
        axes = list(range(-array.ndim, array.ndim)) or [0]
        chosen["axis"] = draw(
            st.one_of(st.sampled_from(axes), st.lists(st.sampled_from(axes), max_size=3).map(tuple))
        )
    if draw(st.booleans()):
        chosen["where"] = draw(hnp.arrays(bool, array.shape, fill=st.nothing()))
    return chosen


# Words of the errors that a shape, an axis or a mask may raise.
DESIGNED = ("axis", "scalar", "no draws")


def consistent(call, result):
    """What holds of the rows of any result; empty, NaN and wide ones included."""
    found = registry.rows_of(result)
    for name, value in found.items():
        field = name.rpartition(".")[2]
        status = found.get(name.removesuffix(field) + "status")
        value = np.asarray(value)
        if status is None or value.dtype.kind != "f" or call.is_weights(name):
            continue
        useless = np.isin(status, [Status.NOT_FINITE, Status.NO_WEIGHT])
        if value.shape != useless.shape:
            continue  # axes of its own
        if field in ("khat_tempered", "ess", "gamma"):
            assert np.isnan(value[useless]).all(), name
        if field == "estimate":  # the log of no weight is -inf
            assert not np.isfinite(value[useless]).any(), name
        if field == "ess" and not isinstance(result, isdiag.ExpectationDiagnostics):
            assert (value[~useless] > 0.999).all(), name
        if field == "gamma":
            assert ((value[~useless] >= 0) & (value[~useless] <= 1)).all(), name
        if field == "ess_ratio" and isinstance(result, isdiag.GammaSelection):
            feasible = ~useless & (np.asarray(status) != Status.INFEASIBLE)
            assert (value[feasible] >= 0.3).all(), name
        if field == "estimate" and isinstance(result, isdiag.Divergence):
            assert not np.isnan(value[~useless]).any(), name
            if call.options["normalize"] and call.function.name != "log_moment":
                assert (value[~useless] >= 0).all(), name


@settings(max_examples=3 * settings.default.max_examples)  # for all calls together
@given(data=st.data())
def test_designed_error_or_result(data):
    array = data.draw(any_array())
    chosen = data.draw(options(array))
    before = array.copy()
    for call in CALLS:
        note(repr(call))
        given = {name: value for name, value in chosen.items() if call.takes(name)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", isdiag.NonFiniteWarning)
            try:
                result = call(array, **given)
            except ValueError as error:
                if not any(word in str(error) for word in DESIGNED):
                    raise
                continue
            finally:
                np.testing.assert_array_equal(array, before)
            consistent(call, result)
            str(result)
            if isinstance(result, isdiag.Diagnosis):
                result.to_dict()
            if isinstance(result, isdiag.PSIS):
                nan_rows = np.isnan(result.log_weights).any(axis=chosen.get("axis", -1))
                np.testing.assert_array_equal(nan_rows & (result.status != Status.NOT_FINITE), False)


@given(hnp.arrays(np.float64, st.integers(1, 80), elements=st.one_of(st.floats(0, 1e3), st.floats())))
def test_gpd_fit_is_total(excesses):
    if not (np.isfinite(excesses) & (excesses >= 0)).all():
        with pytest.raises(ValueError, match="excesses"):
            isdiag.gpd_fit(excesses)
        return
    fit = isdiag.gpd_fit(excesses)
    if excesses.size < 6:
        assert np.isnan([fit.k, fit.sigma, fit.k_std_error]).all()
    else:
        assert np.isfinite([fit.k, fit.k_std_error]).all() or fit.k == np.inf
        # sigma is in the units of the excesses, so it may leave the range of a float64
        assert np.isfinite(fit.sigma) or fit.k == np.inf or excesses.max() > 1e300


# Log-weights whose sums with small integers are exact, so that a shift changes no bit.
dyadic = st.integers(-(2**20), 2**20).map(lambda i: i / 2**16)
rows = hnp.arrays(
    np.float64, st.integers(2, 120), elements=st.one_of(dyadic, st.just(-np.inf)), fill=st.nothing()
)
some_weight = rows.filter(lambda x: np.isfinite(x).any())


@given(some_weight, st.integers(-1000, 1000))
def test_shift(log_w, shift):
    here, there = isdiag.psis(log_w), isdiag.psis(log_w + shift)
    np.testing.assert_array_equal(here.log_weights, there.log_weights)
    assert here.khat == pytest.approx(there.khat, nan_ok=True, abs=0)
    here, there = isdiag.select_gamma(log_w), isdiag.select_gamma(log_w + shift)
    assert (here.gamma, here.ess, here.status) == (there.gamma, there.ess, there.status)


@given(some_weight, st.randoms(use_true_random=False))
def test_permutation(log_w, random):
    order = np.array(random.sample(range(log_w.size), log_w.size))
    here, there = isdiag.psis(log_w), isdiag.psis(log_w[order])
    assert here.khat == pytest.approx(there.khat, nan_ok=True, rel=1e-10)
    assert here.status == there.status
    # Tied draws share out their smoothed weights in order of appearance, so compare the sorted.
    np.testing.assert_allclose(np.sort(here.log_weights), np.sort(there.log_weights), rtol=1e-12, atol=1e-12)
    assert isdiag.select_gamma(log_w).gamma == pytest.approx(
        isdiag.select_gamma(log_w[order]).gamma, rel=1e-9
    )


@given(some_weight, st.floats(0, 3), st.floats(0, 3))
def test_ess_falls_with_gamma(log_w, a, b):
    low, high = sorted((a, b))
    for kind in ("kish", "perplexity", "max"):
        here, there = isdiag.ess(log_w, gamma=low, kind=kind), isdiag.ess(log_w, gamma=high, kind=kind)
        assert there <= here * (1 + 1e-12)
        assert 1 - 1e-12 <= here <= np.isfinite(log_w).sum() * (1 + 1e-12)


@given(some_weight)
def test_gamma_one_is_untempered(log_w):
    assert isdiag.ess(log_w, gamma=1.0) == isdiag.ess(log_w)
    np.testing.assert_array_equal(isdiag.temper(log_w, 1.0, normalize=False), log_w)
    assert isdiag.pareto_khat(log_w, gamma=1.0) == pytest.approx(isdiag.psis(log_w).khat, nan_ok=True, abs=0)


@given(some_weight, st.floats(0, 2))
def test_tempered_weights_sum_to_one_and_keep_order(log_w, gamma):
    tempered = isdiag.temper(log_w, gamma)
    assert np.exp(tempered).sum() == pytest.approx(1, abs=1e-12)
    order = np.argsort(log_w, kind="stable")
    assert (np.diff(tempered[order][np.isfinite(log_w[order])]) >= 0).all()


@given(some_weight)
def test_smoothing_keeps_order_and_the_maximum(log_w):
    result = isdiag.psis(log_w, normalize=False)
    order = np.argsort(log_w, kind="stable")
    smoothed = result.log_weights[order]
    assert (np.diff(smoothed[np.isfinite(log_w[order])]) >= -1e-12).all()
    assert smoothed[-1] <= log_w.max() + 1e-12
    body = order[: log_w.size - result.tail_length]
    np.testing.assert_array_equal(result.log_weights[body], log_w[body])


@given(st.lists(rows, min_size=2, max_size=4))
def test_rows_are_independent(several):
    size = max(row.size for row in several)
    batch = np.full((len(several), size), 7.0)
    where = np.zeros(batch.shape, bool)
    for i, row in enumerate(several):
        batch[i, : row.size] = row
        where[i, : row.size] = True
    together = isdiag.select_gamma(batch, where=where)
    for i, row in enumerate(several):
        alone = isdiag.select_gamma(batch[i], where=where[i])
        for field in ("gamma", "khat", "khat_tempered", "ess", "status", "limited_by", "n"):
            np.testing.assert_array_equal(getattr(together, field)[i], getattr(alone, field))
        dropped = isdiag.select_gamma(row)
        assert dropped.status == alone.status
        assert dropped.khat == pytest.approx(alone.khat, nan_ok=True, rel=1e-12)
        assert dropped.gamma == pytest.approx(alone.gamma, nan_ok=True, rel=1e-9)
