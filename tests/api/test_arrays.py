"""The boundary: axes, masks, dtypes, layouts, array kinds, workers, and every wrong argument."""

import warnings

import numpy as np
import pytest

import isdiag
from isdiag._core import threads
from tests.helpers import optional

# Every public function of log-weights, as (name, call that gives a comparable result).
FUNCTIONS = {
    "temper": lambda x, **kw: isdiag.temper(x, 0.7, **kw),
    "ess": isdiag.ess,
    "pareto_khat": isdiag.pareto_khat,
    "psis": lambda x, **kw: isdiag.psis(x, **kw).log_weights,
    "psis_khat": lambda x, **kw: isdiag.psis(x, **kw).khat,
    "snis": lambda x, **kw: isdiag.snis(x, x, **kw).estimate,
    "kong_owen_bias": lambda x, **kw: isdiag.kong_owen_bias(x, x, **kw),
    "select_gamma": lambda x, **kw: isdiag.select_gamma(x, **kw).gamma,
    "diagnose": lambda x, **kw: isdiag.diagnose(x, **kw).ess,
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
GIVES_WEIGHTS = ("temper", "psis")
each_by_name = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture
def cube(rng):
    """Shape (3, 40, 5): 40 draws on the middle axis."""
    return rng.normal(scale=2.0, size=(3, 40, 5))


@each_by_name
def test_axis(cube, name):
    function = FUNCTIONS[name]
    result = function(cube, axis=1)
    for i in range(3):
        for j in range(5):
            expected = function(cube[i, :, j])
            got = result[i, :, j] if name in GIVES_WEIGHTS else result[i, j]
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(function(cube, axis=-2), result)
    np.testing.assert_array_equal(function(cube, axis=np.int64(1)), result)


@each_by_name
@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (2, 0), (0, 1, 2), (-1, 1)])
def test_axis_tuple(cube, name, axis):
    function = FUNCTIONS[name]
    result = function(cube, axis=axis)
    kept = [i for i in range(3) if i not in {a % 3 for a in axis}]
    moved = cube.transpose(*kept, *(a % 3 for a in axis))
    flat = moved.reshape(*[cube.shape[i] for i in kept], -1)
    expected = function(flat)
    if name in GIVES_WEIGHTS:
        back = np.argsort([*kept, *(a % 3 for a in axis)])
        expected = expected.reshape(moved.shape).transpose(back)
    np.testing.assert_array_equal(result, expected)


@each_by_name
def test_where_is_dropping(rng, name):
    function = FUNCTIONS[name]
    log_w = rng.normal(scale=2.0, size=(4, 200))
    where = rng.uniform(size=(4, 200)) < 0.7
    spoiled = np.where(where, log_w, np.nan)  # what is left out is never looked at
    result = function(spoiled, where=where)
    for i in range(4):
        expected = function(log_w[i, where[i]])
        if name in GIVES_WEIGHTS:
            np.testing.assert_allclose(result[i, where[i]], expected, rtol=1e-13)
            assert (result[i, ~where[i]] == -np.inf).all()
        else:
            np.testing.assert_allclose(result[i], expected, rtol=1e-13)


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


@each_function
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_dtypes(rng, function, dtype):
    log_w = (2 * rng.normal(size=300) + 10).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(log_w)
    exact = function(log_w.astype(np.float64))
    if np.ndim(result):
        assert result.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float64)
        tolerance = 4 * np.finfo(result.dtype).eps
        finite = np.isfinite(exact)
        np.testing.assert_allclose(result[finite], exact[finite], rtol=tolerance)
    else:
        assert type(result) is float
        assert result == exact


@each_function
def test_layouts_and_read_only(rng, function):
    log_w = rng.normal(scale=2.0, size=(6, 120))
    expected = function(log_w)
    for layout in (
        np.asfortranarray(log_w),
        np.repeat(log_w, 2, axis=1)[:, ::2],
        log_w[::-1][::-1],
        log_w.astype(">f8"),
    ):
        frozen = layout.view()
        frozen.flags.writeable = False
        before = frozen.copy()
        np.testing.assert_array_equal(function(frozen), expected)
        np.testing.assert_array_equal(frozen, before)
    np.testing.assert_array_equal(function(log_w.tolist()), expected)


@each_function
def test_writable_input_is_not_modified(rng, function):
    log_w = rng.normal(scale=2.0, size=(3, 100))
    log_w[0, :3] = -np.inf
    before = log_w.copy()
    function(log_w, axis=1, where=log_w < 3)
    np.testing.assert_array_equal(log_w, before)
    assert log_w.flags.writeable


@each_by_name
def test_empty_batch(name):
    result = FUNCTIONS[name](np.empty((0, 50)))
    assert np.shape(result) == ((0, 50) if name in GIVES_WEIGHTS else (0,))


@each_function
@pytest.mark.parametrize(
    ("log_w", "options", "error", "match"),
    [
        (np.float64(1.0), {}, ValueError, "scalar"),
        (np.empty(0), {}, ValueError, r"no draws.*\(0,\)"),
        (np.empty((3, 0)), {}, ValueError, r"no draws.*\(3, 0\)"),
        (np.zeros(9), {"axis": 1}, ValueError, "axis 1"),
        (np.zeros((9, 9)), {"axis": (0, 0)}, ValueError, "repeated"),
        (np.zeros(9), {"axis": ()}, ValueError, "axis"),
        (np.zeros(9), {"axis": None}, ValueError, "None"),
        (np.zeros(9), {"axis": 0.0}, ValueError, r"0\.0"),
        (np.zeros(9), {"where": np.ones(8, bool)}, ValueError, r"\(8,\)"),
        (np.zeros(9), {"where": np.ones(9)}, TypeError, "float64"),
        (np.zeros(9, complex), {}, TypeError, "complex128"),
        (np.zeros(9, object), {}, TypeError, "object"),
        (np.zeros(9, bool), {}, TypeError, "bool"),
        (["a", "b"], {}, TypeError, "str"),
        (None, {}, TypeError, "object"),
        (np.ma.masked_invalid([1.0, np.nan]), {}, TypeError, "masked array"),
    ],
)
def test_wrong_arguments(function, log_w, options, error, match):
    with pytest.raises(error, match=match):
        function(log_w, **options)


def test_wrong_gamma(heavy):
    batch = np.stack([heavy, heavy])
    for bad in (-0.1, np.nan, np.inf, [0.5, -1.0]):
        for function in (
            isdiag.temper,
            lambda x, g: isdiag.ess(x, gamma=g),
            lambda x, g: isdiag.pareto_khat(x, gamma=g),
            lambda x, g: isdiag.snis(x, x, gamma=g),
            lambda x, g: isdiag.kong_owen_bias(x, x, gamma=g),
        ):
            with pytest.raises(ValueError, match="gamma must be finite and at least 0, got"):
                function(batch, bad)
    with pytest.raises(ValueError, match=r"gamma of shape \(3,\)"):
        isdiag.temper(batch, [0.1, 0.2, 0.3])


def test_wrong_h(heavy):
    with pytest.raises(ValueError, match=r"h must have log_w's shape \(1000,\).*\(999,\)"):
        isdiag.snis(heavy, heavy[1:])
    with pytest.raises(TypeError, match="h must hold real numbers"):
        isdiag.snis(heavy, heavy.astype(complex))


def test_wrong_choices(heavy):
    with pytest.raises(ValueError, match=r"kind.*'best'"):
        isdiag.ess(heavy, kind="best")
    with pytest.raises(ValueError, match=r"covariance.*'best'"):
        isdiag.kong_owen_bias(heavy, heavy, covariance="best")


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


def test_gamma_and_r_eff_per_row(rng):
    log_w = rng.normal(scale=2.0, size=(2, 3, 400))
    gamma, r_eff = rng.uniform(size=(2, 3)), np.array([0.3, 1.0, 2.0])
    tempered = isdiag.temper(log_w, gamma)
    result = isdiag.psis(log_w, r_eff=r_eff)
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(tempered[i, j], isdiag.temper(log_w[i, j], gamma[i, j]))
            assert result.khat[i, j] == isdiag.psis(log_w[i, j], r_eff=r_eff[j]).khat


def test_unknown_r_eff_is_refused(rng):
    with pytest.raises(ValueError, match="r_eff must be finite and above 0, got nan"):
        isdiag.psis(rng.normal(size=(2, 100)), r_eff=[1.0, np.nan])


def test_diagnose_hands_its_options_on(rng):
    log_w = 2 * rng.normal(size=1000)
    for options in ({"r_eff": 0.3}, {"tail_length": 50}):
        diagnosis = isdiag.diagnose(log_w, log_w, **options)
        assert diagnosis.estimate.khat == diagnosis.khat == isdiag.pareto_khat(log_w, **options)


def test_infinite_h_warns_nobody(rng):
    log_w, h = rng.normal(size=100), rng.normal(size=100)
    h[3], h[4] = np.inf, -np.inf
    assert np.isnan(isdiag.kong_owen_bias(log_w, h, covariance="proposal"))
    assert np.isnan(isdiag.snis(log_w, h).estimate)


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
    assert np.isnan(isdiag.snis(log_w, h).estimate[0])


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


@pytest.mark.parametrize("workers", [2, 3, -1])
def test_workers_do_not_change_a_bit(rng, workers, monkeypatch):
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)
    log_w = rng.normal(scale=rng.uniform(0.1, 5, size=(37, 1)), size=(37, 500))
    log_w[3] = -np.inf
    one, many = isdiag.psis(log_w), isdiag.psis(log_w, workers=workers)
    for field in ("log_weights", "khat", "ess", "status"):
        np.testing.assert_array_equal(getattr(one, field), getattr(many, field))
    one, many = isdiag.select_gamma(log_w), isdiag.select_gamma(log_w, workers=workers)
    for field in ("gamma", "gamma_psis", "khat_tempered", "ess", "limited_by"):
        np.testing.assert_array_equal(getattr(one, field), getattr(many, field))


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


def test_results_print_briefly(heavy):
    text = repr(isdiag.psis(np.stack([heavy] * 20)))
    assert len(text) < 300
    assert "<20x1000 ndarray>" in text
    assert "status=OK" in repr(isdiag.select_gamma(heavy))
    with pytest.raises(TypeError):
        iter(isdiag.psis(heavy))
    with pytest.raises(AttributeError):
        isdiag.psis(heavy).khat = 0.0


# ------------------------------------------------------------------------- other kinds of arrays


def torch_kind():
    torch = optional("torch")
    return torch.Tensor, lambda a: torch.tensor(np.asarray(a))


def jax_kind():
    jax = optional("jax")
    return jax.Array, jax.numpy.asarray


def strict_kind():
    xp = optional("array_api_strict")
    return type(xp.asarray(0.0)), lambda a: xp.asarray(np.asarray(a))


@pytest.fixture(params=[torch_kind, jax_kind, strict_kind], ids=["torch", "jax", "array_api_strict"])
def kind(request):
    return request.param()


def test_same_kind_out(rng, kind):
    array_type, make = kind
    log_w = rng.normal(scale=2.0, size=(3, 200)).astype(np.float32)
    h = rng.normal(size=(3, 200, 2)).astype(np.float32)
    x = make(log_w)
    result, expected = isdiag.psis(x), isdiag.psis(log_w)
    for field in ("log_weights", "khat", "ess", "tail_length", "n", "status"):
        got = getattr(result, field)
        assert isinstance(got, array_type)
        np.testing.assert_allclose(np.asarray(got), getattr(expected, field), rtol=1e-6)
    assert "float32" in str(result.log_weights.dtype)
    chosen = isdiag.select_gamma(x)
    assert isinstance(chosen.ess_ratio, array_type)
    np.testing.assert_allclose(np.asarray(chosen.gamma), isdiag.select_gamma(log_w).gamma, rtol=1e-6)
    np.testing.assert_allclose(
        np.asarray(isdiag.temper(x, chosen.gamma)),
        isdiag.temper(log_w, np.asarray(chosen.gamma)),
        rtol=1e-6,
    )
    estimate = isdiag.snis(x, make(h)).estimate
    assert isinstance(estimate, array_type)
    np.testing.assert_allclose(np.asarray(estimate), isdiag.snis(log_w, h).estimate, rtol=1e-5)
    masked = isdiag.ess(x, where=make(log_w < 1))
    np.testing.assert_allclose(np.asarray(masked), isdiag.ess(log_w, where=log_w < 1), rtol=1e-6)
    alone = isdiag.select_gamma(x[0, :])
    assert type(alone.gamma) is float
    assert alone.status is isdiag.Status.OK
    assert isdiag.diagnose(x).records() == isdiag.diagnose(log_w).records()


def test_every_number_comes_back_in_the_same_kind(rng, kind):
    array_type, make = kind
    log_w = rng.normal(size=(3, 200)).astype(np.float32)
    h = rng.normal(size=(3, 200)).astype(np.float32)
    calls = [
        lambda x, _h: isdiag.pareto_khat(x),
        lambda x, h: isdiag.kong_owen_bias(x, h),  # noqa: PLW0108 -- the docs' table of kinds counts calls
        lambda x, h: isdiag.mse_curve(x, h).mse,
        lambda x, h: isdiag.expectation_diagnostics(x, h).khat,
        lambda x, h: isdiag.confidence_interval(x, h).low,
        lambda x, _h: isdiag.finite_variance_test(x).p_value,
        lambda x, h: isdiag.control_variate(x, h).estimate,
        lambda x, _h: isdiag.log_moment(x, 0.5).estimate,
        lambda x, _h: isdiag.renyi_divergence(x, 2.0).estimate,
        lambda x, _h: isdiag.alpha_divergence(x, 0.5).estimate,
        lambda x, _h: isdiag.kl_divergence(x).estimate,
        lambda x, _h: isdiag.chi2_divergence(x).estimate,
        lambda x, h: isdiag.geometric_path(h, x, [0.0, 0.5]).ess,
        lambda x, _h: isdiag.next_gamma(x),
    ]
    for call in calls:
        got = call(make(log_w), make(h))
        assert isinstance(got, array_type)
        np.testing.assert_allclose(np.asarray(got), call(log_w, h), rtol=2e-5, atol=1e-6)
    for estimator in (isdiag.stepping_stone, isdiag.thermodynamic):
        got = estimator(make(log_w), [0.0, 0.5, 1.0]).estimate
        assert got == pytest.approx(estimator(log_w, [0.0, 0.5, 1.0]).estimate, rel=1e-6)


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
    # within an ulp of bfloat16 (2 at 300): all functions must know the dtype that came in
    coarse = torch.where(torch.arange(200) % 2 == 0, 300.0, 302.0).to(torch.bfloat16)
    for function in (isdiag.psis, isdiag.select_gamma, isdiag.diagnose):
        assert function(coarse).status == isdiag.Status.FLAT
    assert isdiag.temper(torch.arange(5)).dtype == torch.float64
    with pytest.raises(TypeError, match=r"log_w is on device 'meta'.*log_w\.cpu\(\)"):
        isdiag.ess(torch.empty(5, device="meta"))
    with pytest.raises(TypeError, match="complex"):
        isdiag.ess(torch.zeros(5, dtype=torch.complex64))


def test_jax_details():
    jax = optional("jax")
    half = jax.numpy.asarray([0.0, 1.0, 2.0], dtype=jax.numpy.bfloat16)
    assert isdiag.temper(half).dtype == jax.numpy.bfloat16
    with pytest.raises(TypeError, match="Tracer"):
        jax.jit(isdiag.ess)(jax.numpy.zeros(5))
