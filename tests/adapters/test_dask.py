"""Dask arrays: what the array in memory gives, with any scheduler."""

import numpy as np
import pytest

import isdiag
from tests.helpers import optional
from tests.registry import rows_of

optional("dask")
da = pytest.importorskip("dask.array")
dask = pytest.importorskip("isdiag.dask")


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 2, 700)) * [[[0.5], [1.0]]]


def computed(result):
    return {name: np.asarray(value) for name, value in rows_of(result).items()}


@pytest.mark.parametrize("axis", [2, 0, -2])
@pytest.mark.parametrize("chunks", [(2, 1, 300), (3, 2, 700)])
def test_many_rows(x, axis, chunks):
    moved, lazy = np.moveaxis(x, -1, axis), da.moveaxis(da.from_array(x, chunks=chunks), -1, axis)
    options = {"axis": axis, "gamma": 0.5}
    np.testing.assert_array_equal(dask.ess(lazy, **options), isdiag.ess(moved, **options))
    np.testing.assert_array_equal(dask.pareto_khat(lazy, **options), isdiag.pareto_khat(moved, **options))
    refit, raw = {"axis": axis, "rule": "refit"}, {"axis": axis, "normalize": False}
    for got, expected in (
        (dask.select_gamma(lazy, **refit), isdiag.select_gamma(moved, **refit)),
        (dask.psis(lazy, **raw), isdiag.psis(moved, **raw)),
        (dask.snis(lazy, 2 * lazy, **options), isdiag.snis(moved, 2 * moved, **options)),
    ):
        assert type(got) is type(expected)
        expected = computed(expected)
        for name, value in rows_of(got).items():
            assert isinstance(value, da.Array), name
            assert value.shape == expected[name].shape
            assert value.dtype == expected[name].dtype
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_one_long_row(rng):
    x = 2 * rng.normal(size=20_000)
    lazy = da.from_array(x, chunks=700)
    found = dask.summary(lazy, np.cos(lazy), split_every=3).compute(scheduler="threads")
    assert found.select_gamma().gamma == pytest.approx(isdiag.select_gamma(x).gamma, rel=1e-10)
    assert found.pareto_khat() == pytest.approx(isdiag.pareto_khat(x), rel=1e-12)
    assert found.snis().std_error == pytest.approx(isdiag.snis(x, np.cos(x)).std_error, rel=1e-10)
    assert dask.pareto_khat(lazy).compute() == isdiag.pareto_khat(x)


def test_long_rows_in_a_batch(x):
    lazy = da.from_array(x, chunks=(2, 1, 300))
    found = dask.summary(da.moveaxis(lazy, -1, 0), axis=0).compute(scheduler="threads")
    np.testing.assert_allclose(found.ess(), isdiag.ess(x), rtol=1e-11)


def test_other_arrays_are_refused(x):
    with pytest.raises(TypeError, match="expected a dask array, got ndarray"):
        dask.ess(x)
