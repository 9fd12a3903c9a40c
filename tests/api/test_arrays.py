"""The boundary, for every function of the registry: axes, masks, dtypes, layouts, kinds, bad rows, errors."""

import warnings
from functools import partial

import numpy as np
import pytest

import isdiag
from isdiag import Status
from isdiag._core import boundary, threads
from tests import registry
from tests.helpers import assert_same, optional, quiet
from tests.registry import CALLS, DTYPES, FUNCTIONS, KINDS, LAYOUTS

each_call = pytest.mark.parametrize("call", CALLS, ids=repr)
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)


def calls_with(option):
    """Every call whose function takes that option."""
    return pytest.mark.parametrize("call", [call for call in CALLS if call.takes(option)], ids=repr)


def at(call, result, index, axis=-1):
    """What a result of a batch says of one of its rows, by name of the field."""
    found = {}
    for name, value in registry.rows_of(result).items():
        whole = [*index]
        if call.is_weights(name):
            whole.insert(axis % (len(index) + 1), slice(None))
        found[name] = value[(slice(None),) * call.function.lead + tuple(whole)]
    return found


def assert_row(call, result, index, alone, axis=-1):
    """A row of a batch is the row alone, bit for bit."""
    alone = registry.rows_of(alone)
    for name, value in at(call, result, index, axis).items():
        np.testing.assert_array_equal(value, alone[name], err_msg=name)


@pytest.fixture
def cube(rng):
    """Shape (3, 40, 5): 40 draws on the middle axis."""
    return rng.normal(scale=2.0, size=(3, 40, 5))


# --------------------------------------------------------------------------------- axes and masks


@calls_with("axis")
def test_axis(cube, call):
    result = call(cube, axis=1)
    for i, j in np.ndindex(3, 5):
        assert_row(call, result, (i, j), call(cube[i, :, j]), axis=1)
    assert_same(call(cube, axis=-2), result)
    assert_same(call(cube, axis=np.int64(1)), result)


@calls_with("axis")
@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (2, 0), (0, 1, 2), (-1, 1)])
def test_axis_tuple(cube, call, axis):
    sample = tuple(a % 3 for a in axis)
    kept = [i for i in range(3) if i not in sample]
    moved = cube.transpose(*kept, *sample)
    expected = registry.rows_of(call(moved.reshape(*[cube.shape[i] for i in kept], -1)))
    for name, value in registry.rows_of(call(cube, axis=axis)).items():
        want = expected[name]
        if call.is_weights(name):
            lead = call.function.lead
            want = want.reshape(*want.shape[:lead], *moved.shape)
            back = [a + lead for a in np.argsort([*kept, *sample])]
            want = want.transpose(*range(lead), *back)
        np.testing.assert_array_equal(value, want, err_msg=name)


@each_call
def test_rows_do_not_know_each_other(rng, call):
    log_w = rng.normal(scale=2.0, size=(2, 3, 70))
    log_w[0, 0, :7] = log_w[1, 2, 20:] = -np.inf
    log_w[0, 1] = np.round(log_w[0, 1])
    log_w[0, 2] = 0.3
    log_w[1, 1, 4] = np.nan
    result = quiet(call, log_w)
    for index in np.ndindex(2, 3):
        assert_row(call, result, index, quiet(call, log_w[index]))


@each_call
def test_where_is_dropping(rng, call):
    log_w = rng.normal(scale=2.0, size=(4, 200))
    where = rng.uniform(size=(4, 200)) < 0.7
    spoiled = np.where(where, log_w, np.nan)  # what is left out is never looked at
    result = call(spoiled, where=where)
    for i in range(4):
        alone = registry.rows_of(call(log_w[i, where[i]]))
        for name, value in at(call, result, (i,)).items():
            if call.is_weights(name):
                assert (value[..., ~where[i]] == -np.inf).all()
                value = value[..., where[i]]
            elif name == "influence":
                assert (value[~where[i]] == 0).all()
                value = value[where[i]]
            if np.asarray(value).dtype.kind == "f":
                np.testing.assert_allclose(value, alone[name], rtol=1e-9, atol=1e-10, err_msg=name)
            else:
                np.testing.assert_array_equal(value, alone[name], err_msg=name)


def test_where_broadcasts_and_sets_n(rng):
    log_w = rng.normal(size=(3, 100))
    chosen = isdiag.select_gamma(log_w, where=np.arange(100) < 60)
    np.testing.assert_array_equal(chosen.n, [60, 60, 60])
    np.testing.assert_array_equal(chosen.khat, isdiag.pareto_khat(log_w[:, :60]))
    nothing = isdiag.psis(log_w, where=np.array([[True], [False], [True]]))
    np.testing.assert_array_equal(nothing.status, [0, isdiag.Status.NO_WEIGHT, 0])
    np.testing.assert_array_equal(nothing.n, [100, 0, 100])


def test_zero_weight_counts_in_n_and_left_out_does_not(rng):
    log_w = rng.normal(size=100)
    log_w[:50] = -np.inf
    assert isdiag.psis(log_w).tail_length == 20
    assert isdiag.psis(log_w, where=log_w > -np.inf).tail_length == 10


# ------------------------------------------------------------------------------ dtypes and layouts


@each_call
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(rng, call, dtype):
    if dtype == "bfloat16":
        optional("ml_dtypes")
    log_w = (2 * rng.normal(size=300) + 10).astype(dtype)
    exact = registry.rows_of(call(log_w.astype(np.float64)))
    # The error model of "mse" spreads ties over the spacing of the dtype.
    coarse = "16" in dtype and ("mse" in repr(call))
    for name, value in registry.rows_of(call(log_w)).items():
        if call.is_weights(name):
            narrow = dtype if "float" in dtype else "float64"
            assert value.dtype == narrow
            tolerance = 4 * {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}.get(
                narrow, 2.0**-52
            )
            finite = np.isfinite(exact[name])
            np.testing.assert_allclose(value.astype(float)[finite], exact[name][finite], rtol=tolerance)
        elif coarse and np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(value, exact[name], rtol=0.05, atol=0.1, err_msg=name)
        else:
            np.testing.assert_array_equal(value, exact[name], err_msg=name)


@each_call
def test_layouts(rng, call):
    log_w = rng.normal(scale=2.0, size=(6, 120))
    expected = call(log_w)
    for name, lay in LAYOUTS.items():
        laid = lay(log_w)
        before = np.array(laid)
        assert_same(call(laid), expected)
        np.testing.assert_array_equal(laid, before, err_msg=name)


@each_call
def test_writable_input_is_not_modified(rng, call):
    log_w = rng.normal(scale=2.0, size=(3, 100))
    log_w[0, :3] = -np.inf
    log_w[1, 5] = np.nan
    where = log_w < 3
    before = log_w.copy(), where.copy()
    result = quiet(call, log_w, where=where)
    np.testing.assert_array_equal(log_w, before[0])
    np.testing.assert_array_equal(where, before[1])
    assert log_w.flags.writeable
    for value in registry.rows_of(result).values():
        assert not np.shares_memory(value, log_w)


@each_call
def test_arguments_that_calls_share_are_not_modified(rng, call, monkeypatch):
    shared = {}

    def made(value, dtype):
        return shared.setdefault((value, dtype), np.full(1, value, dtype))

    monkeypatch.setattr(boundary, "_of_one_row", made)
    log_w = rng.normal(scale=2.0, size=100)
    result = call(log_w)
    quiet(call, np.full(100, np.nan))
    assert shared or call.function.name in ("stepping_stone", "thermodynamic")  # their chains are a batch
    for (value, dtype), array in shared.items():
        np.testing.assert_array_equal(array, np.full(1, value, dtype))
        for given in registry.rows_of(result).values():
            assert not np.shares_memory(given, array)


@each_call
def test_empty_batch(call):
    full, empty = call(np.zeros((2, 50))), call(np.empty((0, 50)))
    lead = call.function.lead
    for name, value in registry.rows_of(empty).items():
        shape = list(np.shape(registry.rows_of(full)[name]))
        shape[lead] = 0
        assert np.shape(value) == tuple(shape), name


@each_call
def test_one_row_gives_python_objects(heavy, call):
    result = call(heavy)
    for name, value in registry.rows_of(result).items():
        if (
            call.function.lead
            or call.is_weights(name)
            or isinstance(result, isdiag.MSECurve)
            or name == "influence"
        ):
            continue  # axes of their own
        assert type(value) in (float, int, str, Status), name
        assert isinstance(value, Status) == name.endswith("status"), name


# ------------------------------------------------------------------------- rows that are of no use


@each_call
def test_bad_rows_have_their_status_and_one_warning(rng, call):
    log_w = 0.3 * rng.normal(size=(5, 300))
    clean = call(log_w)
    log_w[1, 5], log_w[2, 7] = np.nan, np.inf
    log_w[3] = -np.inf
    no_weight = call.function.no_weight
    bad = 3 if no_weight is Status.NOT_FINITE else 2
    with pytest.warns(isdiag.NonFiniteWarning, match=f"{bad} of 5 rows") as caught:
        result = call(log_w)
    assert len(caught) == 1
    assert caught[0].filename == registry.__file__  # that of the caller
    for name, value in registry.rows_of(result).items():
        bad = [at(call, result, (r,))[name] for r in (1, 2)]
        if name.endswith("status"):
            assert (np.array(bad) == Status.NOT_FINITE).all()
            assert (at(call, result, (3,))[name] == no_weight).all()
        elif name.endswith("limited_by"):
            assert list(value[1:4]) == ["none"] * 3
        elif name.rpartition(".")[2] not in ("n", "k_max", "method", "tail_length"):
            assert np.isnan(np.array(bad)).all(), name
    for r in (0, 4):
        assert_row(call, result, (r,), call(log_w[r]))
        for name, value in at(call, clean, (r,)).items():
            np.testing.assert_array_equal(value, at(call, result, (r,))[name])


@each_call
def test_nothing_left_of_a_row_is_no_weight(rng, call):
    log_w, where = rng.normal(size=(3, 40)), np.ones((3, 40), bool)
    where[1] = False
    result = call(log_w, where=where)
    for name, value in at(call, result, (1,)).items():
        if name.endswith("status"):
            assert (np.asarray(value) == Status.NO_WEIGHT).all()
        elif call.is_weights(name):
            assert (value == -np.inf).all()
    assert_row(call, result, (0,), call(log_w[0]))


# -------------------------------------------------------------------------------- the tail's length


@calls_with("r_eff")
def test_r_eff_sets_the_tail_length(heavy, call):
    pinned = isdiag.tail_length(1000, 0.2)
    assert_same(call(heavy, r_eff=0.2), call(heavy, tail_length=pinned))
    assert_same(call(heavy, r_eff=0.2, tail_length=50), call(heavy, tail_length=50))


# Every khat of w itself.
KHATS = {
    "pareto_khat": isdiag.pareto_khat,
    "snis": lambda x, **o: isdiag.snis(x, x, **o).khat,
    "truncate": lambda x, **o: isdiag.truncate(x, **o).khat,
    "snis, smoothed": lambda x, **o: isdiag.snis(x, x, smooth="psis", **o).khat,
    "snis, truncated": lambda x, **o: isdiag.snis(x, x, smooth="truncate", **o).khat,
    "select_gamma": lambda x, **o: isdiag.select_gamma(x, **o).khat,
    "select_gamma, mse": lambda x, **o: isdiag.select_gamma(x, rule="mse", h=x, **o).khat,
    "diagnose": lambda x, **o: isdiag.diagnose(x, **o).khat,
    "diagnose, estimate": lambda x, **o: isdiag.diagnose(x, x, **o).estimate.khat,
    "expectation_diagnostics": lambda x, **o: isdiag.expectation_diagnostics(x, x, **o).khat_weights,
    "control_variate": lambda x, **o: isdiag.control_variate(x, x, **o).khat,
    "geometric_path": lambda x, **o: isdiag.geometric_path(0 * x, x, [1.0], **o).khat[0],
    "stepping_stone": lambda x, **o: isdiag.stepping_stone(x[None], [0.0], **o).khat,
    "log_moment": lambda x, **o: isdiag.log_moment(x, 1.0, **o).khat,
    "renyi_divergence": lambda x, **o: isdiag.renyi_divergence(x, 0.5, **o).khat,
    "alpha_divergence": lambda x, **o: isdiag.alpha_divergence(x, 0.5, **o).khat,
    "kl_divergence": lambda x, **o: isdiag.kl_divergence(x, **o).khat,
}


@pytest.mark.parametrize("options", [{"r_eff": 0.2}, {"r_eff": 3.0}, {"tail_length": 40}], ids=str)
@pytest.mark.parametrize("name", KHATS)
def test_any_two_functions_agree_on_khat(heavy, name, options):
    khat = KHATS[name](heavy, **options)
    assert khat == isdiag.psis(heavy, **options).khat
    assert khat != KHATS[name](heavy)


def test_other_khats_go_by_the_same_tail(heavy):
    options = {"r_eff": 0.2}
    assert isdiag.chi2_divergence(heavy, **options).khat == isdiag.pareto_khat(heavy, gamma=2.0, **options)
    interval = isdiag.confidence_interval(heavy, heavy, **options)
    assert interval.khat == isdiag.expectation_diagnostics(heavy, heavy, **options).khat
    best = isdiag.select_gamma(heavy, rule="mse", h=heavy, **options)
    assert isdiag.mse_curve(heavy, heavy, **options).reference == best.estimate
    assert isdiag.finite_variance_test(heavy, **options).k != isdiag.finite_variance_test(heavy).k


def test_r_eff_of_each_set_of_draws(rng):
    rows, efficiency = rng.normal(scale=2.0, size=(3, 400)), np.array([1.0, 0.5, 0.1])
    of_sets = isdiag.stepping_stone(rows, [0.0, 0.4, 0.7], r_eff=efficiency).khat
    steps = np.array([0.4, 0.7 - 0.4, 1.0 - 0.7])
    assert of_sets == isdiag.pareto_khat(rows, gamma=steps, r_eff=efficiency).max()


# --------------------------------------------------------------------------------- wrong arguments

NOT_A_NUMBER = ("0.5", [0.5])
# For each option: what raises ValueError, what TypeError.
BAD_OPTIONS = {
    "axis": ([2, (0, 0), (), None, 0.0], []),
    "where": ([np.ones(8, bool)], [np.ones((2, 40))]),
    "gamma": ([-0.1, np.inf, [0.5, -1.0], [0.1, 0.2, 0.3]], ["a", 1j]),
    "alpha": ([-0.1, np.nan, -np.inf, [0.5, -1.0], [0.1, 0.2, 0.3]], ["a", 1j]),
    "r_eff": ([0, -1, np.nan, np.inf, [1.0, np.nan]], ["a"]),
    "tail_length": ([0, -3, 2.5, 1000], []),
    "workers": ([0, -2, 1.5, "2"], []),
    "h": ([np.zeros((2, 39))], [np.zeros((2, 40), complex), np.full((2, 40), "a")]),
    "q": ([-0.1, 1.5, np.nan, [0.5, 2.0]], ["a"]),
    "half_width": ([0.0, -1.0, np.nan, np.inf], NOT_A_NUMBER),
    "baseline": ([np.zeros((2, 39)), np.zeros((2, 40, 3))], [np.zeros((2, 40), complex)]),
    **dict.fromkeys(("clusters", "strata"), ([np.zeros((2, 39))], [np.array([1, "a"] * 20, object)])),
    "log_weights": ([np.zeros((2, 39))], [np.zeros((2, 40), complex), np.full((2, 40), "a")]),
    "k_max": ([0, -1, np.nan], NOT_A_NUMBER),
    "ess_min": ([-0.1, 1.1, np.nan], NOT_A_NUMBER),
    "gamma_max": ([0, -1, np.nan, np.inf], NOT_A_NUMBER),
    "level": ([0, 1, 1.5, -0.1, np.nan], [*NOT_A_NUMBER, None]),
    "expected_weight": ([0, -1, np.inf, np.nan, [1.0, 1.0, 1.0]], ["a"]),
    **dict.fromkeys(
        ("rule", "kind", "covariance", "method", "smooth", "direction", "estimator", "draws"),
        (["best", "", None, 2], []),
    ),
}
TRIED = [(f, name) for f in FUNCTIONS for name in BAD_OPTIONS if name in f.takes]


@pytest.mark.parametrize(("function", "name"), TRIED, ids=lambda each: getattr(each, "name", each))
def test_bad_options_are_named_with_their_value(rng, function, name):
    log_w, call = rng.normal(size=(2, 40)), function.calls[-1]
    given = getattr(isdiag, function.name)
    if name == "h" and len(function.args) == 2:
        call = partial(given, **function.calls[0].options)
    for error, values in zip((ValueError, TypeError), BAD_OPTIONS[name], strict=True):
        for value in values:
            with pytest.raises(error, match=name) as caught:
                call(log_w, **{name: value})
            if np.ndim(value) == 0 and error is ValueError:
                assert str(value) in str(caught.value)


@each_function
@pytest.mark.parametrize(
    ("log_w", "options", "error", "match"),
    [
        (np.float64(1.0), {}, ValueError, "scalar"),
        (np.empty(0), {}, ValueError, "no draws"),
        (np.empty((3, 0)), {}, ValueError, r"no draws.*3, .*0\)"),
        (np.zeros(9), {"axis": 1}, ValueError, "axis 1"),
        (np.zeros((9, 9)), {"axis": (0, 0)}, ValueError, "repeated"),
        (np.zeros(9), {"where": np.ones(8, bool)}, ValueError, r"8,?\)"),
        (np.zeros(9), {"where": np.ones(9)}, TypeError, "float64"),
        (np.zeros(9, complex), {}, TypeError, "complex128"),
        (np.zeros(9, object), {}, TypeError, "object"),
        (np.zeros(9, bool), {}, TypeError, "bool"),
        (["a", "b"], {}, TypeError, "str"),
        ([None], {}, TypeError, "object"),
        (np.ma.masked_invalid([1.0, np.nan]), {}, TypeError, "masked array"),
    ],
)
def test_wrong_arguments(function, log_w, options, error, match):
    if not options.keys() <= function.takes:
        return
    for call in function.calls:
        with pytest.raises(error, match=match):
            call(log_w, **options)


@each_function
def test_everything_after_the_data_is_keyword_only(function):
    before = function.signature.split("*")[0].count(",")
    with pytest.raises(TypeError, match="positional"):
        getattr(isdiag, function.name)(*[0.0] * (before + 1))


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_wrong_excesses(bad):
    with pytest.raises(ValueError, match="excesses must be finite and not negative"):
        isdiag.gpd_fit(bad)


def test_wrong_helper_arguments():
    for call in (
        lambda: isdiag.tail_length(0),
        lambda: isdiag.tail_length(100, 0.0),
        lambda: isdiag.khat_threshold(0),
        lambda: isdiag.convergence_rate(0.5, 1),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_helpers_take_arrays_and_keep_unknown_unknown():
    np.testing.assert_array_equal(isdiag.tail_length([100, 1000], [1.0, 0.5]), [20, 134])
    np.testing.assert_array_equal(isdiag.min_sample_size([-np.inf, np.nan, np.inf]), [10, np.nan, np.inf])
    np.testing.assert_array_equal(isdiag.convergence_rate([-np.inf, np.nan, np.inf], 100), [1, np.nan, 0])
    assert type(isdiag.tail_length(100)) is int
    assert isdiag.khat_threshold(1) == -np.inf


def test_convergence_rate_is_smooth_where_its_textbook_form_is_not():
    for centre in (1e-9, 0.5 + 1e-9, 1 - 1e-9):
        rate = isdiag.convergence_rate(centre + np.array([-1e-10, 0, 1e-10]), 1000)
        assert np.ptp(rate) < 1e-8


@pytest.mark.parametrize(
    "call", [call for call in CALLS if call.function.takes & {"gamma", "alpha"}], ids=repr
)
def test_gamma_of_each_row(rng, call):
    log_w, gamma = rng.normal(scale=2.0, size=(2, 3, 400)), rng.uniform(size=(2, 3))
    name = "gamma" if call.takes("gamma") else "alpha"
    known = {"expected_weight": 0.9} if call.takes("expected_weight") else {}
    gamma[0, 0], gamma[1, 1] = 1.0, np.nan  # that of a row that could not be diagnosed
    result = call(log_w, **{name: gamma}, **known)
    for index in np.ndindex(2, 3):
        if index != (1, 1):
            assert_row(call, result, index, call(log_w[index], **{name: gamma[index]}, **known))
    assert all(
        np.isnan(value).any() for value in at(call, result, (1, 1)).values() if value.dtype.kind == "f"
    )


@calls_with("r_eff")
def test_r_eff_of_each_row(rng, call):
    log_w, r_eff = rng.normal(scale=2.0, size=(2, 3, 400)), np.array([0.3, 1.0, 2.0])
    result = call(log_w, r_eff=r_eff[:, None] if call.function.args[0] is registry.SETS else r_eff)
    for index in np.ndindex(2, 3):
        assert_row(call, result, index, call(log_w[index], r_eff=r_eff[index[1]]))
    lengths = isdiag.tail_length(400, r_eff)
    assert_same(call(log_w[:, 0], tail_length=int(lengths[0])), call(log_w[:, 0], r_eff=0.3))


def test_diagnose_hands_its_options_on(rng):
    log_w = 2 * rng.normal(size=1000)
    for options in ({"r_eff": 0.3}, {"tail_length": 50}):
        diagnosis = isdiag.diagnose(log_w, log_w, **options)
        assert diagnosis.estimate.khat == diagnosis.khat == isdiag.pareto_khat(log_w, **options)


def test_infinite_h_has_a_status_and_one_warning(rng):
    log_w, h = rng.normal(size=100), rng.normal(size=100)
    h[3], h[4] = np.inf, -np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows have an h that is not finite"):
        assert np.isnan(isdiag.kong_owen_bias(log_w, h, covariance="proposal"))
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows have an h that is not finite"):
        result = isdiag.snis(log_w, h)
    assert np.isnan(result.estimate)
    assert result.status is isdiag.Status.NOT_FINITE_H


def test_a_selection_can_be_passed_on_whatever_its_rows(rng):
    log_w = rng.normal(size=(3, 100))
    log_w[1, 3] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning):
        chosen = isdiag.select_gamma(log_w)
    with pytest.warns(isdiag.NonFiniteWarning):
        weights = isdiag.temper(log_w, chosen.gamma)
    assert np.isnan(weights[1]).all()
    np.testing.assert_allclose(np.exp(weights[[0, 2]]).sum(1), 1)


def test_trailing_axes_of_h(rng):
    log_w, h = rng.normal(size=(2, 50, 3)), rng.normal(size=(2, 50, 3, 4, 2))
    result = isdiag.snis(log_w, h, axis=1)
    assert result.estimate.shape == result.std_error.shape == result.bias.shape == (2, 3, 4, 2)
    assert result.ess.shape == result.khat.shape == (2, 3)
    w = np.exp(isdiag.temper(log_w, axis=1))
    np.testing.assert_allclose(result.estimate, np.einsum("abc,abcde->acde", w, h), rtol=1e-12)
    assert isdiag.snis(log_w[0, :, 0], np.empty((50, 0))).estimate.shape == (0,)
    # Of no component there is an error to look at, so no gamma that has the least.
    none = isdiag.select_gamma(log_w, h=np.empty((2, 50, 3, 0)), rule="mse", axis=1)
    assert none.estimate.shape == (2, 3, 0)
    assert np.isnan(none.gamma).all()


def test_h_is_not_looked_at_where_the_weight_is_zero(rng):
    log_w, h = rng.normal(size=100), rng.normal(size=(100, 2))
    log_w[:10] = -np.inf
    expected = isdiag.snis(log_w, h)
    h[:5] = np.nan
    h[5:10] = np.inf
    for smooth in (False, True):
        assert np.isfinite(isdiag.snis(log_w, h, smooth=smooth).estimate).all()
    np.testing.assert_array_equal(isdiag.snis(log_w, h).estimate, expected.estimate)
    assert np.isfinite(isdiag.snis(log_w, h[:, 0]).std_error)
    h[50, 0] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning, match="h that is not finite"):
        result = isdiag.snis(log_w, h)
    assert np.isnan(result.estimate[0])
    assert result.estimate[1] == expected.estimate[1]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("masked", [True, False])
def test_psis_into_given_memory(rng, normalize, dtype, axis, masked):
    log_w = (2 * rng.normal(size=(60, 50))).astype(dtype)
    log_w[3], log_w[:, 4] = -np.inf, np.round(log_w[:, 4])
    options = {
        "normalize": normalize,
        "axis": axis,
        "where": rng.uniform(size=(60, 50)) < 0.9 if masked else None,
    }
    expected = isdiag.psis(log_w, **options)
    for out in (np.empty_like(log_w), np.empty_like(log_w.T).T, np.empty((60, 100), dtype)[:, ::2], log_w):
        result = isdiag.psis(log_w, **options, out=out)
        assert result.log_weights is out
        np.testing.assert_array_equal(out, expected.log_weights)
        np.testing.assert_array_equal(result.khat, expected.khat)
        np.testing.assert_array_equal(result.ess, expected.ess)


def test_psis_into_memory_that_overlaps(rng):
    memory = rng.normal(size=200)
    log_w, out = memory[:-1], memory[1:]
    expected = isdiag.psis(log_w.copy()).log_weights
    np.testing.assert_array_equal(isdiag.psis(log_w, out=out).log_weights, expected)


def test_psis_refuses_memory_that_does_not_fit():
    log_w = np.arange(40.0)
    frozen = np.empty(40)
    frozen.flags.writeable = False
    for out, error in (([0.0] * 40, TypeError), (np.empty(39), ValueError), (np.empty(40, "f4"), ValueError)):
        with pytest.raises(error, match="out must be"):
            isdiag.psis(log_w, out=out)
    with pytest.raises(ValueError, match="read-only float64"):
        isdiag.psis(log_w, out=frozen)


@calls_with("workers")
@pytest.mark.parametrize("workers", [2, 3, -1])
def test_workers_do_not_change_a_bit(rng, call, workers, monkeypatch):
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)
    log_w = rng.normal(scale=rng.uniform(0.1, 5, size=(37, 1)), size=(37, 500))
    log_w[3] = -np.inf
    assert_same(call(log_w, workers=workers), call(log_w))


def test_many_threads_may_call_at_once(rng):
    from concurrent.futures import ThreadPoolExecutor

    log_w = rng.normal(scale=2.0, size=(16, 2000))
    expected = [isdiag.select_gamma(row).gamma for row in log_w]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(isdiag.select_gamma, np.tile(log_w, (5, 1))))
    assert [chosen.gamma for chosen in got] == expected * 5


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes(rng, start, monkeypatch):
    import multiprocessing

    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)

    log_w = rng.normal(scale=2.0, size=(4, 500))
    expected = isdiag.pareto_khat(log_w).tolist()
    isdiag.psis(log_w, workers=2)  # threads have run before the fork
    with warnings.catch_warnings():
        # 3.12 warns of fork in any process with threads, JAX in any that has imported it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "os.fork.. was called", RuntimeWarning)
        with multiprocessing.get_context(start).Pool(2) as pool:
            assert pool.map(isdiag.pareto_khat, list(log_w)) == expected


@pytest.mark.parametrize("call", [call for call in CALLS if call.result], ids=repr)
def test_results_print_briefly_and_stay_as_they_are(heavy, call):
    for log_w in (heavy, np.stack([heavy] * 20)):
        result = call(log_w)
        assert type(result) is call.result
        if call.result is not isdiag.Diagnosis:  # that is a report
            assert repr(result).startswith(f"{call.result.__name__}(")
            assert len(repr(result)) < 700
        with pytest.raises(TypeError, match="not iterable"):
            iter(result)
        with pytest.raises(AttributeError, match="cannot assign"):
            setattr(result, next(iter(vars(result))), 0.0)
    assert "<20x1000 ndarray>" in repr(isdiag.psis(log_w))


# ------------------------------------------------------------------------- other kinds of arrays


@pytest.fixture(params=KINDS, ids=lambda kind: kind.package)
def kind(request):
    optional(request.param.package)
    return request.param


@each_call
def test_same_kind_out(rng, kind, call):
    log_w = rng.normal(size=(3, 200)).astype(np.float32)
    where = log_w < 1
    x = kind(log_w)
    array_type = type(x)
    for options in ({}, {"where": where}):
        expected = registry.rows_of(call(log_w, **options))
        given = {name: kind(value) for name, value in options.items()}
        for name, got in registry.rows_of(call(x, **given)).items():
            words = np.asarray(expected[name]).dtype.kind == "U"
            assert isinstance(got, np.ndarray if words or call.function.name == "diagnose" else array_type)
            np.testing.assert_array_equal(np.asarray(got), expected[name], err_msg=name) if words else (
                np.testing.assert_allclose(
                    np.asarray(got), expected[name], rtol=2e-5, atol=1e-6, err_msg=name
                )
            )
            assert not call.is_weights(name) or "float32" in str(got.dtype)
    np.testing.assert_array_equal(np.asarray(x), log_w)
    alone = call(x[0, :])
    if not call.function.lead and not isinstance(alone, isdiag.MSECurve):
        for name, value in registry.rows_of(alone).items():
            several = call.is_weights(name) or name == "influence"
            assert several or type(value) in (float, int, str, Status), name


def test_options_of_another_kind(rng, kind):
    log_w, h = rng.normal(size=(3, 200)), rng.normal(size=(3, 200, 2))
    chosen = isdiag.select_gamma(kind(log_w))
    tempered = isdiag.temper(kind(log_w), chosen.gamma)
    expected = isdiag.temper(log_w, isdiag.select_gamma(log_w).gamma)
    np.testing.assert_allclose(np.asarray(tempered), expected, rtol=2e-5, atol=1e-6)
    estimate = isdiag.snis(kind(log_w), kind(h)).estimate
    np.testing.assert_allclose(np.asarray(estimate), isdiag.snis(log_w, h).estimate, rtol=2e-5, atol=1e-6)
    assert isdiag.diagnose(kind(log_w)).records()[0].keys() == isdiag.diagnose(log_w).records()[0].keys()


def test_torch_details(rng):
    torch = optional("torch")
    log_w = torch.tensor(rng.normal(scale=2.0, size=300), requires_grad=True)
    tempered = isdiag.temper(log_w, 0.5)
    assert not tempered.requires_grad
    assert log_w.requires_grad
    for dtype in (torch.bfloat16, torch.float16):
        half = log_w.detach().to(dtype)
        result = isdiag.psis(half)
        assert result.log_weights.dtype == dtype
        assert result.khat == isdiag.psis(half.double()).khat
    assert isdiag.psis(torch.ones(100, dtype=torch.bfloat16)).status == isdiag.Status.FLAT
    # An ulp of bfloat16 is 2 at 300: equal up to rounding, but FLAT must not promise what ESS denies.
    coarse = torch.where(torch.arange(200) % 2 == 0, 300.0, 302.0).to(torch.bfloat16)
    # Within rounding of bfloat16 near 0: all functions must know the dtype that came in.
    near = torch.where(torch.arange(200) % 2 == 0, 0.0, 0.004).to(torch.bfloat16)
    for function in (isdiag.psis, isdiag.select_gamma, isdiag.diagnose):
        assert function(coarse).status != isdiag.Status.FLAT
        assert function(near).status == isdiag.Status.FLAT
    assert isdiag.temper(torch.arange(5)).dtype == torch.float64
    for call in CALLS:
        with pytest.raises(TypeError, match=r"(log_w|log_mu) is on device 'meta'.*pass \1\.cpu\(\)"):
            call(torch.empty(5, device="meta"))
    with pytest.raises(TypeError, match="complex"):
        isdiag.ess(torch.zeros(5, dtype=torch.complex64))


def test_jax_details():
    jax = optional("jax")
    half = jax.numpy.asarray([0.0, 1.0, 2.0], dtype=jax.numpy.bfloat16)
    assert isdiag.temper(half).dtype == jax.numpy.bfloat16
    with pytest.raises(TypeError, match="Tracer"):
        jax.jit(isdiag.ess)(jax.numpy.zeros(5))
