"""Labelled arrays, for every function: axes by name, labels compared, results of the same kind."""

import numpy as np
import pytest

import isdiag
from isdiag import Status
from tests import registry
from tests.helpers import optional
from tests.registry import CALLS, FUNCTIONS, SETS, ZEROS, X
from tests.site.test_package import python

# What a call makes of labelled log-weights keeps their labels: registry's makers are for bare arrays.
MADE = {id(X): lambda x: x, id(ZEROS): lambda x: 0 * x, id(SETS): lambda x: x}
each_call = pytest.mark.parametrize("call", CALLS, ids=repr)
batched = pytest.mark.parametrize(
    "call", [call for call in CALLS if call.function.args[0] is not SETS], ids=repr
)


def made(call, x, **boundary):
    args = [MADE[id(a)](x) if id(a) in MADE else a for a in call.function.args]
    options = {key: MADE[id(a)](x) if id(a) in MADE else a for key, a in call.options.items()}
    return getattr(isdiag, call.function.name)(*args, **options | boundary)


@pytest.fixture
def xr():
    return optional("xarray")


@pytest.fixture
def pd():
    return optional("pandas")


@pytest.fixture
def pl():
    return optional("polars")


@pytest.fixture
def cube(rng):
    """Shape (obs, chain, draw) = (3, 2, 60)."""
    return rng.normal(scale=2.0, size=(3, 2, 60))


@pytest.fixture
def array(xr, cube):
    """The same in ArviZ's order, with every sort of coordinate."""
    coords = {
        "obs": ["a", "b", "c"],
        "site": ("obs", [7, 8, 9]),
        "chain": [0, 1],
        "age": (("draw", "obs"), np.ones((60, 3))),
        "run": 5,
    }
    return xr.DataArray(cube.transpose(1, 2, 0), dims=("chain", "draw", "obs"), coords=coords, name="log_lik")


@pytest.fixture
def table(cube):
    """Shape (draws, columns) = (120, 3)."""
    return cube.reshape(3, 120).T


def columns(package, table):
    """A DataFrame; that of pandas has an index that does not count from 0."""
    if package.__name__ == "polars":
        return package.DataFrame(table, schema=list("abc"))
    return package.DataFrame(table, columns=list("abc"), index=range(7, 7 + len(table)))


# ------------------------------------------------------------------------------------------ xarray


@batched
def test_data_array(xr, array, cube, call):
    expected = registry.rows_of(made(call, cube, axis=(1, 2)))
    for given in ({}, {"axis": ("chain", "draw")}, {"axis": (0, 1)}):
        result = made(call, array, **given)
        for name, value in registry.rows_of(result).items():
            if isinstance(result, isdiag.Diagnosis):
                np.testing.assert_array_equal(value, expected[name], err_msg=name)
                continue
            assert type(value) is xr.DataArray, name
            lead = ("gamma",) * call.function.lead
            if call.is_weights(name):
                assert value.dims == (*lead, "chain", "draw", "obs")
                assert set(value.coords) == set(array.coords)
                value = value.transpose(..., "obs", "chain", "draw")
            else:
                assert value.dims[: len(lead) + 1] == (*lead, "obs")
                assert set(value.coords) == {"obs", "site", "run"}
            np.testing.assert_array_equal(value.values, expected[name], err_msg=name)


@each_call
def test_data_array_of_one_row_gives_python_objects(array, call):
    if call.function.args[0] is SETS or call.function.lead:
        return
    for name, value in registry.rows_of(made(call, array.sel(obs="a", drop=True))).items():
        if not call.is_weights(name) and call.function.result is not isdiag.MSECurve and name != "influence":
            assert type(value) in (float, int, str, Status), name


def test_axes_that_neither_argument_has_are_named_by_what_they_are_of(array):
    of_estimate, of_quantile = isdiag.estimate(array, array), isdiag.quantile(array, array, [0.1, 0.5])
    batch = of_estimate.value.dims
    assert of_estimate.influence.dims == (*batch, "unit")
    assert of_quantile.estimate.dims == (*batch, "q")
    assert isdiag.quantile(array, array, [[0.1, 0.5]]).estimate.dims == (*batch, "q_0", "q_1")
    assert isdiag.mse_curve(array, array, [0.5, 1.0]).mse.dims == (*batch, "gamma")


@pytest.mark.parametrize("dims", [("draw",), ("sample",), ("__sample__",), ("anything",)])
def test_default_dims(xr, rng, dims):
    x = rng.normal(size=50)
    assert isdiag.ess(xr.DataArray(x, dims=dims)) == isdiag.ess(x)
    if dims != ("anything",):
        behind = xr.DataArray(np.stack([x, x], axis=1), dims=(*dims, "obs"))
        np.testing.assert_array_equal(isdiag.ess(behind), [isdiag.ess(x)] * 2)


def test_stacked_draws(array, cube):
    stacked = array.stack(sample=("chain", "draw"))
    np.testing.assert_array_equal(isdiag.pareto_khat(stacked), isdiag.pareto_khat(cube, axis=(1, 2)))
    weights = isdiag.temper(stacked)
    assert weights.indexes["sample"].equals(stacked.indexes["sample"])
    assert weights.name == "log_lik"


@pytest.mark.parametrize("dims", [("a", "b"), ("chain", "obs"), ("draw", "sample")])
def test_unclear_dims_are_not_guessed(xr, dims):
    with pytest.raises(
        ValueError, match=rf"log_w has the dims \('{dims[0]}', '{dims[1]}'\).*name the sample"
    ):
        isdiag.ess(xr.DataArray(np.zeros((5, 6)), dims=dims))


def test_h_and_where_by_dims(xr, array, cube, rng):
    values = rng.normal(size=(2, 60, 2))
    h = xr.DataArray(values, dims=("moment", "draw", "chain"), coords={"moment": ["mean", "square"]})
    result = isdiag.snis(array, h)
    assert result.estimate.dims == result.status.dims == ("obs", "moment")
    assert list(result.estimate.moment.values) == ["mean", "square"]
    assert list(result.estimate.site.values) == [7, 8, 9]
    assert result.khat.dims == ("obs",)
    broadcast = np.broadcast_to(values.transpose(2, 1, 0), (3, 2, 60, 2))
    expected = isdiag.snis(cube, broadcast, axis=(1, 2)).estimate
    np.testing.assert_array_equal(result.estimate, expected)
    positional = isdiag.snis(array, broadcast.transpose(1, 2, 0, 3)).estimate
    assert positional.dims == ("obs", "h_dim_0")
    np.testing.assert_array_equal(positional, expected)

    kept = rng.uniform(size=(60, 2)) < 0.5
    where = xr.DataArray(kept, dims=("draw", "chain"))
    np.testing.assert_array_equal(isdiag.ess(array, where=where), isdiag.ess(cube, axis=(1, 2), where=kept.T))


def test_numbers_for_the_rows_by_dims(xr, array, cube):
    chosen = isdiag.select_gamma(array)
    expected = isdiag.temper(cube, np.asarray(chosen.gamma), axis=(1, 2))
    np.testing.assert_array_equal(isdiag.temper(array, chosen.gamma).transpose("obs", ...), expected)
    with pytest.raises(ValueError, match="gamma has the labels of log_w along 'obs' in another order"):
        isdiag.temper(array, chosen.gamma[::-1])
    with pytest.raises(ValueError, match="gamma has the dim 'other'"):
        isdiag.temper(array, xr.DataArray([0.5], dims="other"))


def test_sets_of_draws_by_dims(xr, rng):
    gammas = np.array([0.0, 0.5, 1.0])
    values = rng.normal(size=(4, 3, 50))
    x = xr.DataArray(values.transpose(2, 0, 1), dims=("draw", "model", "set"), coords={"model": list("abcd")})
    for function in (isdiag.stepping_stone, isdiag.thermodynamic):
        found = function(x, gammas).estimate
        assert found.dims == ("model",)
        np.testing.assert_array_equal(found, function(values, gammas).estimate)


def test_second_sample_by_dims(xr, array, cube):
    fewer = array.isel(draw=slice(40)).transpose("draw", "obs", "chain")
    expected = isdiag.control_variate(cube, cube, axis=(1, 2), second_log_w=cube[:, :, :40]).estimate
    found = isdiag.control_variate(array, array, second_log_w=fewer).estimate
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    bare = isdiag.control_variate(array, array, second_log_w=cube[:, :, :40].transpose(1, 2, 0)).estimate
    np.testing.assert_array_equal(bare, expected)
    with pytest.raises(ValueError, match="second_log_w has the labels of log_w along 'obs' in another order"):
        isdiag.control_variate(array, array, second_log_w=fewer.isel(obs=[1, 0, 2]))
    with pytest.raises(ValueError, match="second_log_w must have log_w's batch dims"):
        isdiag.control_variate(array, array, second_log_w=fewer.drop_vars(["obs", "site"]).rename(obs="o"))


ALTERED = {
    "another order: align it first, as h.sel({'chain': log_w['chain']})": lambda x: x.isel(chain=[1, 0]),
    "h has other labels than log_w along 'chain': 2 instead of 1 at position 1": lambda x: x.assign_coords(
        chain=[0, 2]
    ),
    "h has 50 entries along 'draw', and log_w has 60": lambda x: x.isel(draw=slice(50)),
    "h must have log_w's sample dims ('chain', 'draw'), got ('chain', 'draws', 'obs')": lambda x: x.rename(
        draw="draws"
    ),
}


@pytest.mark.parametrize(("said", "alter"), ALTERED.items(), ids=str)
def test_labels_that_differ(array, said, alter):
    with pytest.raises(ValueError, match=r"h .*") as caught:
        isdiag.snis(array, alter(array))
    assert said in str(caught.value)


def test_where_of_unknown_dims(array):
    with pytest.raises(ValueError, match="where has the dim 'draws', which is none of"):
        isdiag.ess(array, where=array.rename(draw="draws") > 0)


# ---------------------------------------------------------------------------------- pandas and polars


def of_columns(package, value):
    """What a table's result says of its columns, in NumPy, the axis of columns first."""
    if package.__name__ == "polars":
        assert list(value.columns) == list("abc")
        return value.to_numpy().T if value.shape[0] > 1 else value.to_numpy()[0]
    assert list(value.index if "a" in value.index else value.columns) == list("abc")
    return value.to_numpy() if "a" in value.index else value.to_numpy().T


@pytest.mark.parametrize("package", ["pandas", "polars"])
@batched
def test_data_frame(table, call, package):
    package = optional(package)
    frame = columns(package, table)
    expected = registry.rows_of(made(call, np.ascontiguousarray(table.T)))
    for given in ({}, {"axis": 0}, {"axis": "index"}):
        result = made(call, frame, **given)
        for name, value in registry.rows_of(result).items():
            if isinstance(result, isdiag.Diagnosis):
                np.testing.assert_array_equal(value, expected[name], err_msg=name)
            elif call.is_weights(name) and call.function.lead:
                assert type(value) is np.ndarray  # a table has two axes
                np.testing.assert_array_equal(value.swapaxes(1, 2), expected[name], err_msg=name)
            elif call.is_weights(name):
                assert type(value) is package.DataFrame
                assert list(value.columns) == list("abc")
                if package.__name__ == "pandas":
                    assert value.index.equals(frame.index)
                np.testing.assert_array_equal(value.to_numpy().T, expected[name], err_msg=name)
            else:
                want = expected[name].T if call.function.lead else expected[name]
                np.testing.assert_array_equal(of_columns(package, value), want, err_msg=name)


@pytest.mark.parametrize("package", ["pandas", "polars"])
@each_call
def test_series(heavy, call, package):
    package = optional(package)
    if call.function.args[0] is SETS:
        return
    series = package.Series(heavy)
    expected, result = registry.rows_of(made(call, heavy)), made(call, series)
    for name, value in registry.rows_of(result).items():
        of_many = isinstance(result, isdiag.MSECurve) or name == "influence"
        if call.function.lead or call.is_weights(name) or of_many:
            np.testing.assert_array_equal(np.asarray(value), expected[name], err_msg=name)
            if name == "" or np.ndim(value) == 1:
                assert type(value) is package.Series, name
        else:
            assert type(value) is type(expected[name]), name
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_data_frame_along_its_rows(pd, pl, table):
    expected = isdiag.ess(table, axis=1)
    found = isdiag.ess(columns(pd, table), axis="columns")
    assert list(found.index) == list(range(7, 127))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(isdiag.ess(columns(pl, table), axis=1), expected)


@pytest.mark.parametrize("dtype", ["float32", "Float32", "Float64"])
def test_dtypes_of_pandas(pd, heavy, dtype):
    series = pd.Series(heavy, dtype=dtype, name="ratio", index=np.arange(1000) * 2)
    weights = isdiag.temper(series)
    assert (weights.dtype, weights.name) == (series.dtype, "ratio")
    assert weights.index.equals(series.index)
    frame = isdiag.temper(series.to_frame())
    assert list(frame.dtypes) == [series.dtype]
    assert list(frame.columns) == ["ratio"]


def test_dtypes_of_polars(pl, heavy):
    weights = isdiag.temper(pl.Series("ratio", heavy, dtype=pl.Float32))
    assert (weights.dtype, weights.name) == (pl.Float32, "ratio")
    assert isdiag.temper(weights.to_frame()).schema == {"ratio": pl.Float32}


@pytest.mark.parametrize("kind", ["Float64", "Int64"])
def test_what_is_missing_is_not_a_number(pd, pl, kind):
    with pytest.warns(isdiag.NonFiniteWarning):
        assert isdiag.psis(pd.Series([0, 1, None] * 20, dtype=kind)).status is Status.NOT_FINITE
    with pytest.warns(isdiag.NonFiniteWarning):
        assert isdiag.psis(pl.Series([0, 1, None] * 20, dtype=getattr(pl, kind))).status is Status.NOT_FINITE


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_what_comes_back_is_taken(table, package):
    frame = columns(optional(package), table)
    gamma = isdiag.select_gamma(frame).gamma
    expected = isdiag.temper(table.T, isdiag.select_gamma(table.T).gamma).T
    np.testing.assert_array_equal(isdiag.temper(frame, gamma).to_numpy(), expected)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_h_and_where_of_tables(table, package):
    package = optional(package)
    frame = columns(package, table)
    a, h, where = frame["a"], frame["b"], frame["c"] > 0
    found = isdiag.snis(frame, h).estimate
    wide = np.broadcast_to(table[:, 1], (3, 120))
    np.testing.assert_array_equal(of_columns(package, found), isdiag.snis(table.T, wide).estimate)
    found = isdiag.snis(a, frame).estimate
    np.testing.assert_array_equal(of_columns(package, found), isdiag.snis(table[:, 0], table).estimate)
    kept = table[:, 2] > 0
    np.testing.assert_array_equal(
        of_columns(package, isdiag.ess(frame, where=where)), isdiag.ess(table.T, where=kept)
    )
    found = of_columns(package, isdiag.ess(frame, where=frame > 0))
    np.testing.assert_array_equal(found, isdiag.ess(table.T, where=table.T > 0))


def test_excesses_of_tables(pd, table):
    fit = isdiag.gpd_fit(columns(pd, np.exp(table)))
    assert list(fit.k.index) == list("abc")
    np.testing.assert_array_equal(fit.sigma, isdiag.gpd_fit(np.exp(table.T)).sigma)


def test_own_array_of_results_stays_that(pd, heavy):
    out = np.empty(1000)
    assert isdiag.psis(pd.Series(heavy), out=out).log_weights is out
    np.testing.assert_array_equal(out, isdiag.psis(heavy).log_weights)


# --------------------------------------------------------------------------- what used to be wrong


def test_observations_are_not_draws(array, cube):
    assert isdiag.select_gamma(array).gamma.dims == ("obs",)
    np.testing.assert_array_equal(isdiag.ess(array), isdiag.ess(cube, axis=(1, 2)))


@pytest.mark.parametrize("axis", ["draw", ("chain", "draw"), ("chain", 1)])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_names_are_for_arrays_that_have_them(function, axis, array):
    if "axis" not in function.takes:
        return
    for x in (np.zeros((4, 50)), [0.0] * 50):
        with pytest.raises(ValueError, match=r"axis=.* is a name, and the axes of log_\w+ have none"):
            function.calls[0](x, axis=axis)
    with pytest.raises(ValueError, match=r"axis names 'iteration', and the dims of log_\w+ are \('chain'"):
        made(function.calls[0], array, axis="iteration")


@pytest.mark.parametrize("axis", [2**70, -(2**70), (0, 2**70)])
def test_an_axis_beyond_any_integer(axis):
    with pytest.raises(ValueError, match=r"axis .* out of bounds"):
        isdiag.ess(np.zeros((4, 50)), axis=axis)


def test_rows_in_another_order_are_refused(pd, rng):
    x = rng.normal(size=200)
    log_w, h = pd.Series(x - 0.5), pd.Series(x)
    estimate = isdiag.snis(log_w, h).estimate
    shuffled = h.sample(frac=1, random_state=0)
    calls = (
        lambda h: isdiag.snis(log_w, h),
        lambda h: isdiag.select_gamma(log_w, rule="mse", h=h),
        lambda h: isdiag.diagnose(log_w, h),
        lambda h: isdiag.mse_curve(log_w, h),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"h has the labels .* as h\.reindex\(log_w\.index\)"):
            call(shuffled)
    assert isdiag.snis(log_w, shuffled.reindex(log_w.index)).estimate == estimate
    with pytest.raises(
        ValueError, match=r"log_target has the labels of log_mu .* log_target\.reindex\(log_mu"
    ):
        isdiag.geometric_path(log_w, shuffled, [0.5])
    with pytest.raises(ValueError, match="where has the labels of log_w along 'index' in another order"):
        isdiag.ess(log_w, where=shuffled > 0)
    with pytest.raises(ValueError, match="h has other labels than log_w along 'index': 1 instead of 0"):
        isdiag.snis(log_w, h.rename(lambda i: i + 1))


def test_columns_in_another_order_are_refused(pd, pl, table):
    for package, cure in ((pd, "h.reindex(columns=log_w.columns)"), (pl, "h.select(log_w.columns)")):
        frame = columns(package, table)
        with pytest.raises(ValueError, match="h has the labels of log_w along 'columns'") as caught:
            isdiag.snis(frame, frame[["b", "a", "c"]])
        assert cure in str(caught.value)
    frame = columns(pd, table)
    gamma = isdiag.select_gamma(frame).gamma
    with pytest.raises(ValueError, match=r"gamma .* as gamma\.reindex\(log_w\.columns\)"):
        isdiag.temper(frame, gamma[::-1])


def test_kinds_are_not_mixed(pd, array):
    h = pd.Series(np.zeros(60))
    with pytest.raises(
        TypeError, match=r"h is a Series of pandas and log_w a DataArray of xarray.*h\.to_numpy"
    ):
        isdiag.snis(array[0, :, 0], h)
    assert isdiag.snis(array[0, :, 0], h.to_numpy()).estimate == 0
    assert isdiag.snis(array[0, :, 0].values, h).estimate == 0  # log_w has no labels to compare with


def test_a_data_set_is_no_array(array):
    with pytest.raises(TypeError, match="DataArray"):
        isdiag.ess(array.to_dataset())


def test_nothing_is_imported():
    code = (
        "import sys, isdiag; isdiag.ess([[0.0, 1.0]]); isdiag.snis([0.0, 1.0], [0.0, 1.0]);"
        "print([m for m in ('xarray', 'pandas', 'polars') if m in sys.modules])"
    )
    assert python(code) == "[]"
