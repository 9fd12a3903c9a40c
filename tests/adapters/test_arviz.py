"""ArviZ with our kernels and without, leave-one-out against ArviZ's, accessors against the functions."""

import copy
import dataclasses
import pickle
import warnings

import numpy as np
import pytest
from scipy.special import logsumexp

import isdiag
from isdiag import Status
from tests.helpers import ROOT, optional

optional("arviz_base")
optional("dask")
pytest.importorskip("arviz_stats.loo", reason="arviz-stats is without ArviZ's functions of DataTrees")

import arviz_stats as az  # noqa: E402
import xarray  # noqa: E402
from arviz_base import rcParams  # noqa: E402
from arviz_stats.base import array_stats  # noqa: E402

import isdiag.arviz  # noqa: E402

DIMS = ("chain", "draw")


def tree(log_lik, **groups):
    groups = {"log_likelihood": {"y": log_lik}, **groups}
    return xarray.DataTree.from_dict({name: xarray.Dataset(group) for name, group in groups.items()})


def shipped(name, chains):
    """The log-likelihood of the posterior draws that come with isdiag."""
    stored = np.load(ROOT / "isdiag" / "data" / f"{name}.npz")
    log_lik = -stored["log_ratios"].reshape(chains, -1, len(stored["columns"]))
    return xarray.DataArray(log_lik, dims=(*DIMS, "obs"), coords={"obs": stored["columns"]})


@pytest.fixture(scope="module")
def regression():
    """A regression with 3 coefficients and known variance, an outlier among its data; exact draws."""
    rng = np.random.default_rng(21)
    n, coordinates = 24, {"chain": range(4), "draw": range(250)}
    x = rng.normal(size=(n, 3))
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=n)
    y[5] += 6.0
    covariance = np.linalg.inv(x.T @ x + np.eye(3))
    beta = rng.multivariate_normal(covariance @ x.T @ y, covariance, size=(4, 250))
    mean = beta @ x.T

    def array(values, *dims):
        own = {name: coordinates[name] for name in dims if name in coordinates}
        return xarray.DataArray(values, dims=dims, coords=own)

    log_lik = array(-((y - mean) ** 2) / 2 - np.log(2 * np.pi) / 2, *DIMS, "obs")
    return tree(
        log_lik,
        posterior={"beta": array(beta, *DIMS, "coef"), "sigma": array(np.exp(beta[..., 0]), *DIMS)},
        posterior_predictive={"y": array(rng.normal(mean), *DIMS, "obs")},
        observed_data={"y": array(y, "obs")},
        constant_data={"x": array(x, "obs", "coef")},
        log_prior={"beta": array(-(beta**2) / 2, *DIMS, "coef")},
    )


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def both(function):
    """What it returns without the backend and with it."""
    without = function()
    with isdiag.arviz.use():
        return without, function()


def assert_close(got, expected, atol=1e-10):
    if isinstance(expected, tuple):
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b)
    elif isinstance(expected, (xarray.DataArray, xarray.Dataset)):
        xarray.testing.assert_allclose(got, expected, rtol=0, atol=atol)
    elif hasattr(expected, "select_dtypes"):
        numbers = expected.select_dtypes("number")
        np.testing.assert_allclose(got[numbers.columns], numbers, atol=atol)
    elif hasattr(expected, "elpd"):
        for name in ("elpd", "se", "p"):
            assert got[name] == pytest.approx(expected[name], abs=atol), name
        for name in ("elpd_i", "pareto_k"):
            if expected[name] is not None:
                np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=atol)
        assert (got.warning, got.n_samples, got.n_data_points) == (
            expected.warning, expected.n_samples, expected.n_data_points,
        )  # fmt: skip
    else:
        np.testing.assert_allclose(got, expected, atol=atol)


# ------------------------------------------------------------------------------------------ backend


@pytest.mark.parametrize("axis", [-1, 0, [1, 2], (0, -1), None, np.array([1, 2])], ids=str)
@pytest.mark.parametrize("r_eff", [1.0, 0.3, np.nan, 0.0])
def test_psislw_of_arrays(rng, axis, r_eff):
    log_lik = rng.normal(size=(40, 3, 50))
    expected = array_stats.psislw(log_lik, r_eff=r_eff, axis=axis)
    got = isdiag.arviz.backend.array_stats.psislw(log_lik, r_eff=r_eff, axis=axis)
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(got[1], expected[1], rtol=0, atol=1e-12)


def log_ratios(data):
    return -data["log_likelihood"]["y"]


def approximate(data, loo):
    spread = data["posterior"]["beta"].var("coef")
    return loo(data, log_p=-spread, log_q=-0.9 * spread)


# Every function of ArviZ that smooths weights.
FUNCTIONS = {
    "loo": az.loo,
    "loo of given reff": lambda d: az.loo(d, reff=0.7, pointwise=True),
    "loo with a Jacobian": lambda d: az.loo(d, log_jacobian=0.1 * d["observed_data"]["y"]),
    "loo_i": lambda d: az.loo_i(5, d),
    "loo_pit": az.loo_pit,
    "loo_expectations": lambda d: az.loo_expectations(d, kind="sd"),
    "loo_expectations of quantiles": lambda d: az.loo_expectations(d, kind="quantile", probs=[0.1, 0.9]),
    "loo_metrics": lambda d: tuple(az.loo_metrics(d, kind="rmse")),
    "loo_score": lambda d: tuple(az.loo_score(d, kind="crps"))[:2],
    "loo_subsample": lambda d: az.loo_subsample(d, observations=10, seed=1),
    "loo_approximate_posterior": lambda d: approximate(d, az.loo_approximate_posterior),
    "compare": lambda d: az.compare({"a": d, "b": az.loo(d, reff=0.5)}),
    "psense": lambda d: az.psense(d, group="likelihood"),
    "psense_summary": az.psense_summary,
    "accessor": lambda d: d["log_likelihood"]["y"].azstats.psislw(),
    "accessor of a Dataset": lambda d: d["log_likelihood"].to_dataset().azstats.psislw(r_eff=0.8),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_arviz_that_smooths(regression, quiet, name):
    function = FUNCTIONS[name]
    try:
        without, within = both(lambda: function(regression))
    except AttributeError as error:
        if "arviz_stats" not in str(error):
            raise
        pytest.skip(f"not in arviz-stats {az.__version__}: {error}")
    assert_close(within, without)


def test_the_backend_is_reached(regression, quiet, monkeypatch):
    calls = []
    monkeypatch.setattr(isdiag, "psis", lambda *a, f=isdiag.psis, **k: calls.append(1) or f(*a, **k))
    with isdiag.arviz.use():
        for name in ("loo", "loo_i", "loo_pit", "loo_score", "loo_approximate_posterior", "psense"):
            calls.clear()
            FUNCTIONS[name](regression)
            assert calls, name
    calls.clear()
    az.loo(regression)
    assert not calls


def test_use_as_a_call_and_as_a_context():
    before = rcParams["stats.module"]
    with isdiag.arviz.use() as module:
        assert rcParams["stats.module"] is module is isdiag.arviz.backend
    assert rcParams["stats.module"] == before
    restoring = isdiag.arviz.use()
    assert repr(rcParams["stats.module"]) == "isdiag.arviz.backend"
    with restoring:
        pass
    assert rcParams["stats.module"] == before


def test_columns_that_kill_a_batch(regression, quiet):
    log_lik = regression["log_likelihood"]["y"].copy(deep=True)
    log_lik[..., 0] = -1.0
    log_lik[..., 1] = 0.0
    log_lik[0, 0, 1] = -800.0  # has all the weight
    data = regression.copy()
    data["log_likelihood"] = xarray.DataTree(xarray.Dataset({"y": log_lik}))
    with pytest.raises(ValueError, match="same"):
        az.loo(data)
    with isdiag.arviz.use():
        found = az.loo(data)
        alone = az.loo(regression)
    assert found.pareto_k[:2].values.tolist() == [-np.inf, np.inf]
    assert found.elpd_i[:2].values == pytest.approx([-1.0, np.log(1000) - 800.0], abs=1e-10)
    np.testing.assert_array_equal(found.elpd_i[2:], alone.elpd_i[2:])
    assert found.warning


def test_chunks(regression, quiet):
    chunked = regression.copy()
    chunked["log_likelihood"] = regression["log_likelihood"].to_dataset().chunk(obs=7)
    with isdiag.arviz.use():
        expected, got = az.loo(regression), az.loo(chunked)
        assert got.log_weights.chunks
        assert_close(got, expected, atol=0.0)
        xarray.testing.assert_identical(got.log_weights.compute(), expected.log_weights)
        by_obs = xarray.DataArray(np.linspace(0.3, 1.0, 24), dims="obs")
        log_lik, whole = chunked["log_likelihood"]["y"], regression["log_likelihood"]["y"]
        assert_close(log_lik.azstats.psislw(r_eff=by_obs), whole.azstats.psislw(r_eff=by_obs), atol=0.0)
        with pytest.raises(
            ValueError, match=r"2 chunks along 'draw'.*\.chunk\(\{'chain': -1, 'draw': -1\}\)"
        ):
            log_lik.chunk(draw=125).azstats.psislw()


# ------------------------------------------------------------------------------------ leave-one-out


@pytest.mark.parametrize(
    "log_lik",
    [shipped("centered_eight", 4), shipped("stack_loss", 4), shipped("stack_loss", 4).astype(np.float32)],
    ids=["centered_eight", "stack_loss, khat above .7", "float32"],
)
@pytest.mark.parametrize("reff", [1.0, 0.4])
def test_loo_is_that_of_arviz(log_lik, reff, quiet):
    # In float32 ArviZ loses seven digits; isdiag computes in float64.
    expected = az.loo(tree(log_lik.astype(np.float64)), reff=reff, pointwise=True)
    got = isdiag.arviz.loo(tree(log_lik), reff=reff)
    assert isinstance(got, type(expected))
    for name in ("elpd", "se", "p"):
        assert got[name] == pytest.approx(expected[name], abs=1e-10), name
    np.testing.assert_allclose(got.pareto_k, expected.pareto_k, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.elpd_i, expected.elpd_i, rtol=0, atol=1e-12)
    assert (got.warning, got.good_k, got.scale) == (expected.warning, expected.good_k, "log")
    assert got.log_weights.dims == expected.log_weights.dims
    assert got.log_weights.dtype == log_lik.dtype
    # ArviZ's sort is not stable, so tied draws may have changed places.
    ordered = [np.sort(each.log_weights.values.reshape(log_lik.obs.size, -1)) for each in (got, expected)]
    np.testing.assert_allclose(*ordered, rtol=0, atol=1e-10 if log_lik.dtype == np.float64 else 1e-5)


@pytest.fixture
def result(regression, quiet):
    return isdiag.arviz.loo(regression)


def test_what_the_numbers_are_worth(regression, result):
    log_lik = regression["log_likelihood"]["y"].stack(n=DIMS).values
    found = isdiag.psis(-log_lik, r_eff=result.r_eff.values)
    contributions = np.exp(found.log_weights + log_lik - result.elpd_i.values[:, None])
    influence = contributions - np.exp(found.log_weights)
    np.testing.assert_allclose(result.n_eff_i, found.ess * result.r_eff, rtol=1e-12)
    of_each = np.sqrt((influence**2).sum(axis=1) / result.r_eff)
    np.testing.assert_allclose(result.mcse_i, of_each, rtol=1e-9)
    np.testing.assert_allclose(result.p_loo_i.sum(), result.p, rtol=1e-12)
    assert result.status.values.tolist() == found.status.tolist()
    assert np.isnan(result.mcse) == bool((result.pareto_k > result.good_k).any())
    top = -np.sort(log_lik, axis=1)[:, ::-1]
    for i in (0, 5):
        m = found.tail_length[i]
        excesses = np.exp(top[i, -m:] - top[i].max()) - np.exp(top[i, -m - 1] - top[i].max())
        fit = isdiag.gpd_fit(excesses)
        assert result.pareto_k[i].item() == pytest.approx(fit.k, abs=1e-12)
        assert result.khat_std_error[i].item() == pytest.approx(fit.k_std_error, rel=1e-9)


def test_the_error_of_a_sum_knows_that_draws_are_shared(quiet):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 3))
    y = x @ [1.0, 0.0, -1.0] + rng.normal(size=60)
    covariance = np.linalg.inv(x.T @ x)
    root = np.linalg.cholesky(covariance)
    found, claimed, independent = [], [], []
    for _ in range(200):
        beta = covariance @ x.T @ y + rng.normal(size=(1, 1000, 3)) @ root.T
        log_lik = xarray.DataArray(-((y - beta @ x.T) ** 2) / 2, dims=(*DIMS, "obs"))
        result = isdiag.arviz.loo(log_lik, reff=1.0)
        found.append(result.elpd)
        claimed.append(result.mcse)
        independent.append(np.sqrt((result.mcse_i**2).sum().item()))
    assert np.nanmean(claimed) == pytest.approx(np.std(found), rel=0.15)
    assert np.mean(independent) < 0.85 * np.std(found)


def test_the_relative_efficiency_is_that_of_the_likelihoods(regression, result):
    likelihood = np.exp(regression["log_likelihood"]["y"].transpose("obs", *DIMS).values)
    expected = array_stats.ess(likelihood, chain_axis=-2, draw_axis=-1, method="mean", relative=True)
    np.testing.assert_allclose(result.r_eff, expected, rtol=1e-10)


def test_reff_of_each_observation(regression, result, quiet):
    again = isdiag.arviz.loo(regression, reff=result.r_eff)
    assert again.elpd == result.elpd
    one = isdiag.arviz.loo(regression, reff=0.5)
    np.testing.assert_array_equal(
        isdiag.arviz.loo(regression, reff=result.r_eff * 0 + 0.5).elpd_i, one.elpd_i
    )
    with pytest.raises(ValueError, match="reff has the dim 'day'"):
        isdiag.arviz.loo(regression, reff=xarray.DataArray([1.0], dims="day"))
    with pytest.raises(ValueError, match=r"reff must be finite and above 0, got -1\.0"):
        isdiag.arviz.loo(regression, reff=-1.0)


def test_blocks_chunks_and_functions_give_the_same(regression, result, quiet, monkeypatch):
    log_lik = regression["log_likelihood"]["y"]

    def log_lik_fn(observed, data):
        x = data["constant_data"]["x"].values
        mean = data["posterior"]["beta"].values @ x.T
        assert x.shape[0] == observed.size
        return -((observed.values - mean) ** 2) / 2 - np.log(2 * np.pi) / 2

    chunked = isdiag.arviz.loo(log_lik.chunk(obs=5))
    several = [isdiag.arviz.loo(log_lik), isdiag.arviz.loo(log_lik.transpose()), chunked]
    for bytes_ in (2**24, 5 * 8000):
        monkeypatch.setattr("isdiag.arviz.likelihoods._BLOCK_BYTES", bytes_)
        several.append(isdiag.arviz.loo(regression))
        several.append(isdiag.arviz.loo(regression, log_lik_fn=log_lik_fn, workers=2))
    monkeypatch.setattr("isdiag.arviz.leave_one_out._CACHE_BYTES", 3 * 8000)
    several.append(isdiag.arviz.loo(regression))
    for found in several:
        np.testing.assert_allclose(found.elpd_i, result.elpd_i, rtol=1e-12)
        np.testing.assert_allclose(found.pareto_k, result.pareto_k, atol=1e-11)
        assert found.elpd == pytest.approx(result.elpd, rel=1e-13)
    assert chunked.log_weights.chunks
    xarray.testing.assert_allclose(chunked.log_weights.compute(), result.log_weights)
    assert several[4].log_weights is None


def test_workers_do_not_change_a_bit(regression, quiet):
    log_lik = regression["log_likelihood"]["y"]
    many = xarray.concat([log_lik + 0.01 * i for i in range(12)], dim="copy", join="override")
    one, two = isdiag.arviz.loo(many), isdiag.arviz.loo(many, workers=2)
    assert (one.elpd, one.se, one.p) == (two.elpd, two.se, two.p)
    xarray.testing.assert_identical(one.mcse_i, two.mcse_i)
    assert one.elpd_i.sizes == {"copy": 12, "obs": 24}


def test_scales(regression, result, quiet):
    for scale, factor in (("negative_log", -1), ("deviance", -2)):
        found = isdiag.arviz.loo(regression, scale=scale)
        assert (found.elpd, found.se, found.p) == (factor * result.elpd, abs(factor) * result.se, result.p)
        np.testing.assert_array_equal(found.elpd_i, factor * result.elpd_i)
        np.testing.assert_array_equal(found.mcse_i, abs(factor) * result.mcse_i)
    with pytest.raises(ValueError, match="scale must be one of"):
        isdiag.arviz.loo(regression, scale="bits")


def test_arviz_takes_the_result(regression, result, quiet):
    table = az.compare({"ours": result, "theirs": az.loo(regression, reff=0.3)})
    assert set(table.index) == {"ours", "theirs"}
    pit = az.loo_pit(regression, log_weights=result.log_weights)["y"]
    np.testing.assert_allclose(pit, az.loo_pit(regression)["y"], atol=0.02)
    assert "Monte Carlo SE" in str(result)
    plots = pytest.importorskip("arviz_plots", reason="arviz-plots is not installed")
    plots.plot_khat(result, backend="none")


def test_moments_are_matched_by_arviz(regression, result, quiet):
    x, y = (
        regression[group].to_dataset()[name]
        for group, name in (("constant_data", "x"), ("observed_data", "y"))
    )

    def log_lik_i(beta, i):
        return -((y[i] - (beta * x[i]).sum("coef")) ** 2) / 2 - np.log(2 * np.pi) / 2

    def log_prob(beta):
        return -(((y - (beta * x).sum("coef")) ** 2).sum("obs") + (beta**2).sum("coef")) / 2

    options = {
        "log_prob_upars_fn": log_prob,
        "log_lik_i_upars_fn": log_lik_i,
        "upars": regression["posterior"]["beta"],
        "k_threshold": 0.3,
    }
    without, within = both(lambda: az.loo_moment_match(regression, result, **options))
    assert_close(within, without, atol=1e-8)
    assert within.pareto_k.max() < result.pareto_k.max()
    # Errors are those of before the draws were moved: what was unknown then is not blamed on the new khat.
    for khat, why in ((0.1, "of draws that were moved since"), (0.9, "khat of some is too high")):
        after = dataclasses.replace(result, mcse=np.nan, pareto_k=xarray.full_like(result.pareto_k, khat))
        assert f"unknown: {why}" in str(after)


def test_a_result_can_be_copied_and_stored(result):
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):  # noqa: S301
        assert again.elpd == result.elpd
        xarray.testing.assert_identical(again.log_weights, result.log_weights)
    result.log_weights = None
    assert result.log_weights is None


def test_pointwise(regression, quiet):
    found = isdiag.arviz.loo(regression, pointwise=False)
    assert found.elpd_i is found.pareto_k is found.mcse_i is None
    before = rcParams["stats.ic_pointwise"]
    try:
        rcParams["stats.ic_pointwise"] = False
        assert isdiag.arviz.loo(regression).elpd_i is None
    finally:
        rcParams["stats.ic_pointwise"] = before


@pytest.mark.parametrize("reff", [None, 1.0])
def test_bad_observations_are_named(reff):
    rng = np.random.default_rng(3)
    log_lik = xarray.DataArray(0.1 * rng.normal(size=(2, 200, 6)), dims=(*DIMS, "obs"))
    log_lik[..., 0] = -2.0
    log_lik[0, 3, 1] = np.nan
    log_lik[1, 3, 2] = -np.inf
    log_lik[1, 3, 3] = np.inf
    with (
        pytest.warns(isdiag.NonFiniteWarning, match="3 of 6 rows have a log-likelihood that is not finite"),
        pytest.warns(UserWarning, match="khat of 3 of 6 observations is above 0.62 or unknown"),
    ):
        found = isdiag.arviz.loo(log_lik, reff=reff)
    names = [Status(code).name for code in found.status.values]
    assert names == ["FLAT", "NOT_FINITE", "NOT_FINITE", "NOT_FINITE", "OK", "OK"]
    assert np.isfinite(found.elpd_i.values).tolist() == [True, False, False, False, True, True]
    assert found.elpd_i[0].item() == pytest.approx(-2.0)
    assert found.pareto_k[0].item() == -np.inf
    assert found.warning
    assert np.isnan([found.elpd, found.mcse]).all()


def test_what_loo_refuses(regression):
    log_lik = regression["log_likelihood"]["y"]
    with pytest.raises(TypeError, match="log likelihood not found"):
        isdiag.arviz.loo(xarray.DataTree.from_dict({"posterior": regression["posterior"].to_dataset()}))
    with pytest.raises(ValueError, match="none is a chain or a draw"):
        isdiag.arviz.loo(log_lik.rename(chain="a", draw="b"))
    with pytest.raises(ValueError, match="5 chunks along 'draw'"):
        isdiag.arviz.loo(log_lik.chunk(draw=50))
    with pytest.raises(
        ValueError, match=r"log_lik_fn must return an array of .*'obs': 24.*, got .*'dim_0': 3"
    ):
        isdiag.arviz.loo(regression, log_lik_fn=lambda *_: xarray.DataArray(np.zeros(3)))
    with pytest.raises(ValueError, match="log_lik_fn needs the group 'observed_data'"):
        isdiag.arviz.loo(tree(log_lik), log_lik_fn=len)
    several = regression.copy()
    several["observed_data"] = several["observed_data"].to_dataset().assign(z=1.0)
    with pytest.raises(TypeError, match=r"\['y', 'z'\]: name one with var_name=, got None"):
        isdiag.arviz.loo(several, log_lik_fn=len)
    with pytest.raises(TypeError, match="name one with var_name=, got 'x'"):
        isdiag.arviz.loo(several, var_name="x", log_lik_fn=len)
    with pytest.raises(ValueError, match=r"there must be draws and observations, got the sizes .*'obs': 0"):
        isdiag.arviz.loo(log_lik[..., :0])
    with pytest.raises(ValueError, match=r"there must be draws and observations, got the sizes .*'draw': 0"):
        isdiag.arviz.loo(log_lik[:, :0])
    with pytest.raises(TypeError, match="log_likelihood must hold real numbers, got dtype complex128"):
        isdiag.arviz.loo(log_lik.astype(complex))


def test_chains_too_short_for_a_relative_efficiency(quiet):
    log_lik = xarray.DataArray(np.random.default_rng(4).normal(size=(100, 3, 2)), dims=(*DIMS, "obs"))
    found = isdiag.arviz.loo(log_lik)
    assert np.isnan([found.r_eff, found.mcse_i]).all()
    one = isdiag.arviz.loo(log_lik, reff=1.0)
    np.testing.assert_array_equal(found.pareto_k, one.pareto_k)
    np.testing.assert_array_equal(found.log_weights, one.log_weights)


def test_chunks_along_two_dims_and_float32(quiet):
    values = np.random.default_rng(6).normal(size=(2, 150, 6, 5)).astype(np.float32)
    values[:, :, 0, 0] = np.float32(0.1) + np.array([0.0, 7e-9], np.float32)[:, None]  # equal, to float32
    log_lik = xarray.DataArray(values, dims=(*DIMS, "a", "b"))
    whole, chunked = isdiag.arviz.loo(log_lik), isdiag.arviz.loo(log_lik.chunk(a=4, b=2))
    xarray.testing.assert_identical(chunked.elpd_i, whole.elpd_i)
    assert chunked.elpd == whole.elpd
    assert whole.status[0, 0].item() == Status.FLAT
    np.testing.assert_array_equal(whole.pareto_k, isdiag.arviz.backend.psislw(log_lik, whole.r_eff)[1])


def test_one_observation_and_one_chain(quiet):
    log_lik = xarray.DataArray(np.random.default_rng(2).normal(size=(1, 300)), dims=DIMS)
    found = isdiag.arviz.loo(log_lik)
    expected = isdiag.psis(-log_lik.values.ravel(), r_eff=found.r_eff.item())
    assert found.pareto_k.item() == expected.khat
    assert found.elpd == pytest.approx(logsumexp(expected.log_weights + log_lik.values.ravel()))
    assert isdiag.arviz.loo(log_lik[0]).elpd == found.elpd


def test_progress(regression, quiet, capsys):
    optional("rich")
    isdiag.arviz.loo(regression, progress=True)
    assert "leave-one-out" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------- accessors


@pytest.fixture
def log_w(rng):
    values = rng.normal(size=(4, 250, 3)) * [0.5, 1.0, 2.5]
    coords = {"chain": range(4), "obs": ["a", "b", "c"]}
    return xarray.DataArray(values, dims=(*DIMS, "obs"), coords=coords, name="w", attrs={"of": "a model"})


@pytest.fixture
def h(rng, log_w):
    values = rng.normal(size=(4, 250, 2))
    return xarray.DataArray(values, dims=(*DIMS, "p"), coords={"chain": range(4), "p": ["u", "v"]})


CALLS = {
    "khat": (lambda a, **o: a.khat(**o), isdiag.pareto_khat),
    "ess": (lambda a, **o: a.ess(**o), isdiag.ess),
    "psis": (lambda a, **o: a.psis(**o), isdiag.psis),
    "select_gamma": (lambda a, **o: a.select_gamma(**o), isdiag.select_gamma),
    "diagnose": (lambda a, **o: a.diagnose(**o), isdiag.diagnose),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("chunks", [None, {"obs": 2}], ids=["in memory", "in chunks"])
def test_accessors_are_the_functions(log_w, name, chunks):
    method, function = CALLS[name]
    expected = function(log_w)
    data = log_w if chunks is None else log_w.chunk(chunks)
    found = method(data.isdiag)
    assert found.attrs == log_w.attrs
    assert (found.chunks in (None, {})) == (chunks is None)
    found = found.compute()
    if isinstance(found, xarray.DataArray):
        xarray.testing.assert_identical(found.drop_attrs(), expected.rename("w"))
        return
    np.testing.assert_array_equal(found.obs, log_w.obs)
    for field in found.data_vars:
        at = expected.selection if (name, field) == ("diagnose", "limited_by") else expected
        np.testing.assert_array_equal(found[field], getattr(at, field), err_msg=field)
        assert found[field].dims == (log_w.dims if field == "log_weights" else ("obs",))


@pytest.mark.parametrize("chunks", [None, {"obs": 2}], ids=["in memory", "in chunks"])
def test_estimates_of_several_values(log_w, h, chunks):
    data = log_w if chunks is None else log_w.chunk(chunks)
    expected = isdiag.snis(log_w, h)
    found = data.isdiag.snis(h).compute()
    for field in found.data_vars:
        np.testing.assert_array_equal(found[field], getattr(expected, field), err_msg=field)
    assert found.estimate.dims == ("obs", "p")
    assert found.khat.dims == ("obs",)
    assert found.p.values.tolist() == ["u", "v"]
    reports = data.isdiag.diagnose(h).compute()
    np.testing.assert_array_equal(reports.estimate, expected.estimate)
    np.testing.assert_array_equal(reports.verdict, isdiag.diagnose(log_w, h).verdict)
    by_name = data.isdiag.snis(h.to_dataset(dim="p")).compute()
    np.testing.assert_allclose(by_name["v"].estimate, expected.estimate.sel(p="v"), rtol=1e-12)


@pytest.mark.parametrize("chunks", [None, {"obs": 2}], ids=["in memory", "in chunks"])
@pytest.mark.parametrize("q", [0.5, [0.1, 0.5, 0.9]], ids=["one", "several"])
def test_quantiles(log_w, h, chunks, q):
    data = log_w if chunks is None else log_w.chunk(chunks)
    expected = isdiag.quantile(log_w, h, q)
    found = data.isdiag.quantile(h, q).compute()
    for field in found.data_vars:
        np.testing.assert_array_equal(found[field], getattr(expected, field), err_msg=field)
    assert found.estimate.dims == ("obs", "p", *(["quantile"] if isinstance(q, list) else []))
    if isinstance(q, list):
        assert found["quantile"].values.tolist() == q


@pytest.mark.parametrize("chunks", [None, {"obs": 2}], ids=["in memory", "in chunks"])
def test_the_gamma_of_least_error_and_draws_left_out(log_w, h, chunks):
    data = log_w if chunks is None else log_w.chunk(chunks)
    expected = isdiag.select_gamma(log_w, rule="mse", h=h)
    found = data.isdiag.select_gamma(rule="mse", h=h).compute()
    for field in found.data_vars:
        np.testing.assert_array_equal(found[field], getattr(expected, field), err_msg=field)
    assert found.mse.dims == ("obs", "p")
    where = h.isel(p=0, drop=True) > -1.0
    left = data.isdiag.psis(where=where).compute()
    expected = isdiag.psis(log_w, where=where)
    for field in left.data_vars:
        np.testing.assert_array_equal(left[field], getattr(expected, field), err_msg=field)
    positions = data.isdiag.resample(size=20, rng=1, where=where)
    assert where.stack(n=DIMS).values[positions].all()


def test_what_accessors_refuse(log_w, h):
    for dim in ([], ["draw", "draw"]):
        with pytest.raises(ValueError, match="dim must name one dim or several, each once"):
            log_w.isdiag.khat(dim)
    with pytest.raises(TypeError, match="h must be a DataArray or a Dataset, got ndarray"):
        log_w.isdiag.snis(h.values)
    with pytest.raises(ValueError, match=r"h must have the dims of the draws, \['chain', 'draw'\]"):
        log_w.isdiag.snis(h[0])
    with pytest.raises(ValueError, match="2 chunks along 'draw', and the tail needs all of them"):
        log_w.isdiag.diagnose(h.chunk(draw=125))
    with pytest.raises(TypeError, match="where must be a DataArray, got bool"):
        log_w.isdiag.psis(where=True)


def test_chains(log_w, h):
    expected = isdiag.snis(log_w, h, draws="mcmc")
    for data in (log_w, log_w.transpose("draw", "obs", "chain")):
        found = data.isdiag.snis(h, draws="mcmc")
        np.testing.assert_allclose(found.std_error, expected.std_error, rtol=1e-10)


def test_options_by_row(log_w):
    r_eff = xarray.DataArray([0.2, 0.5, 1.0], dims="obs", coords={"obs": ["a", "b", "c"]})
    expected = isdiag.psis(log_w, r_eff=r_eff, tail_length=None, normalize=False)
    for data in (log_w, log_w.chunk(obs=1)):
        found = data.isdiag.psis(r_eff=r_eff, normalize=False)
        np.testing.assert_array_equal(found.khat, expected.khat)
        np.testing.assert_array_equal(found.log_weights, expected.log_weights)
    with pytest.raises(ValueError, match=r"obs"):
        log_w.isdiag.psis(r_eff=r_eff[::-1])
    with pytest.raises(TypeError, match="gama"):
        log_w.isdiag.khat(gama=1.0)


def test_dims_by_name(log_w):
    assert log_w.isdiag.khat("draw").dims == ("chain", "obs")
    assert log_w.isdiag.khat(["draw", "chain"]).dims == ("obs",)
    one = log_w.rename(draw="particle").isel(chain=0, drop=True)
    np.testing.assert_array_equal(one.isdiag.ess("particle"), isdiag.ess(one, axis="particle"))
    with pytest.raises(ValueError, match="none is a chain or a draw: name the sample dims"):
        one.isdiag.ess()
    with pytest.raises(ValueError, match="dim names 'sample', and the dims are"):
        log_w.isdiag.ess("sample")
    with pytest.raises(
        ValueError, match=r"5 chunks along 'draw', and the tail needs all of them: call .chunk"
    ):
        log_w.chunk(draw=50).isdiag.psis()


def test_datasets_and_trees(log_w, h):
    pair = xarray.Dataset({"w": log_w, "v": 2 * log_w, "other": ("k", [1, 2])}, attrs={"by": "me"})
    nested = xarray.DataTree.from_dict({"one": pair, "two": pair[["w"]], "none": xarray.Dataset()})
    khat = pair.isdiag.khat()
    assert list(khat.data_vars) == ["w", "v"]
    assert khat.attrs == {"by": "me"}
    np.testing.assert_array_equal(khat.v, isdiag.pareto_khat(2 * log_w))
    chosen = pair.isdiag.select_gamma()
    np.testing.assert_array_equal(chosen["v"].gamma, isdiag.select_gamma(2 * log_w).gamma)
    np.testing.assert_array_equal(nested.isdiag.khat()["one"].v, khat.v)
    assert list(nested.isdiag.khat().children) == ["one", "two"]
    np.testing.assert_array_equal(nested.isdiag.psis()["one/v"].khat, khat.v)
    values = xarray.Dataset({"w": h, "v": -h})
    found = pair.isdiag.snis(values)
    np.testing.assert_array_equal(found["v"].estimate, isdiag.snis(2 * log_w, -h).estimate)
    np.testing.assert_array_equal(pair.isdiag.snis(h)["w"].estimate, isdiag.snis(log_w, h).estimate)
    with pytest.raises(ValueError, match=r"h must have the variables \['w', 'v'\]"):
        pair.isdiag.snis(values[["w"]])
    with pytest.raises(ValueError, match="no group has draws along"):
        nested["none"].isdiag.khat()


def test_resampled_positions(log_w):
    for data in (log_w, log_w.chunk(obs=1)):
        found = data.isdiag.resample(size=50, rng=3)
        assert (found.dims, found.attrs) == (("obs", "resampled"), log_w.attrs)
        expected = isdiag.resample(log_w.values.reshape(1000, 3), 50, axis=0, rng=3)
        np.testing.assert_array_equal(found, expected)
    pair = xarray.Dataset({"w": log_w})
    np.testing.assert_array_equal(pair.isdiag.resample("draw", size=4, rng=1).w.sizes["resampled"], 4)


def test_a_bad_row_in_a_chunk_is_told(log_w):
    log_w[0, 0, 1] = np.nan
    lazy = log_w.chunk(obs=1).isdiag.psis()
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows"):
        found = lazy.compute(scheduler="synchronous")
    assert found.status.values.tolist() == [Status.OK, Status.NOT_FINITE, Status.OK]
