"""Draws of Markov chains: what they are worth, against sums written out, ArviZ and closed forms."""

import numpy as np
import pytest

import isdiag
from tests.helpers import optional


def autoregressive(rng, rho, shape):
    """Chains along the last axis, each draw normal with variance 1."""
    x = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        x[..., t] = rho * x[..., t - 1] + np.sqrt(1 - rho**2) * x[..., t]
    return x


def naive(chains):
    """Loops over lags, of chains (chains, draws)."""
    half = chains.shape[1] // 2
    x = np.concatenate([chains[:, :half], chains[:, -half:]])
    off = x - x.mean(axis=1, keepdims=True)
    covariance = [(off[:, lag:] * off[:, : half - lag]).sum(axis=1).mean() / half for lag in range(half)]
    within = covariance[0] * half / (half - 1)
    total = covariance[0] + x.mean(axis=1).var(ddof=1)
    rho = [1.0] + [1 - (within - c) / total for c in covariance[1:]]
    time, smallest, lag = -1.0, np.inf, 0
    while True:
        pair = rho[lag] + rho[lag + 1]
        if pair <= 0 or lag + 1 >= half - 3:
            time += rho[lag] if pair >= 0 else max(rho[lag], 0.0)
            return 1 / max(time, 1 / np.log10(x.size))
        smallest = min(smallest, pair)
        time += 2 * smallest
        lag += 2


CASES = [(c, n, rho) for c in (1, 2, 5) for n in (4, 5, 7, 8, 51, 200) for rho in (-0.9, 0.0, 0.7, 0.99)]
# Whose sequences end at each number of lags that is tried: within 8, 32, 128, and beyond.
CASES += [(4, 700, rho) for rho in (0.5, 0.9, 0.98, 0.999)]


def test_it_is_what_the_sums_say(rng):
    for chains, draws, rho in CASES:
        x = autoregressive(rng, rho, (chains, draws))
        assert isdiag.relative_efficiency(x, axis=(0, 1)) == pytest.approx(naive(x), rel=1e-9)


def test_it_is_that_of_arviz(rng):
    arviz = optional("arviz")
    for chains, draws, rho in ((4, 500, 0.8), (1, 1001, 0.3), (2, 300, -0.6)):
        x = autoregressive(rng, rho, (chains, draws))
        wanted = arviz.ess(x, method="mean") / (chains * (draws - draws % 2))
        assert isdiag.relative_efficiency(x, axis=(0, 1)) == pytest.approx(float(wanted), rel=1e-9)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_of_an_autoregression_it_is_known(rng, rho):
    x = autoregressive(rng, rho, (20, 4, 5000))
    found = isdiag.relative_efficiency(x, axis=(1, 2))
    assert np.median(found) == pytest.approx((1 - rho) / (1 + rho), rel=0.06)


def test_order_chains_batches_and_units(rng):
    x = autoregressive(rng, 0.8, (3, 2, 400))
    found = isdiag.relative_efficiency(x, axis=(1, 2))
    assert found.shape == (3,)
    alone = [isdiag.relative_efficiency(each, axis=(0, 1)) for each in x]
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_array_equal(isdiag.relative_efficiency(x.transpose(2, 0, 1), axis=(2, 0)), found)
    # The draws of one chain, read across chains, are another order.
    assert isdiag.relative_efficiency(x[0], axis=(1, 0)) != pytest.approx(alone[0], rel=0.1)
    for scale, origin in ((1e-300, 0.0), (1e300, 0.0), (1.0, 2.0**40)):
        np.testing.assert_allclose(
            isdiag.relative_efficiency(scale * x + origin, axis=(1, 2)), found, rtol=1e-3
        )


def test_chains_that_disagree_are_worth_little(rng):
    x = rng.normal(size=(4, 500))
    assert isdiag.relative_efficiency(x, axis=(0, 1)) > 0.8
    x[0] += 3.0
    assert isdiag.relative_efficiency(x, axis=(0, 1)) < 0.05


def test_what_has_no_efficiency():
    assert isdiag.relative_efficiency(np.full((2, 50), 0.1), axis=(0, 1)) == 1.0
    assert isdiag.relative_efficiency(np.zeros(4)) == 1.0
    assert np.isnan(isdiag.relative_efficiency([1.0, 2.0, 4.0]))
    assert np.isnan(isdiag.relative_efficiency(np.arange(12.0).reshape(4, 3), axis=(0, 1)))
    x = np.random.default_rng(0).normal(size=(3, 100))
    x[1, 5], x[2, 7] = np.nan, np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="2 of 3 rows"):
        found = isdiag.relative_efficiency(x)
    assert np.isnan(found[1:]).all()
    assert found[0] > 0.0


def test_labelled_chains_by_name(rng):
    xarray = optional("xarray")
    x = autoregressive(rng, 0.7, (4, 3, 300))
    labelled = xarray.DataArray(x, dims=("chain", "site", "draw"))
    found = isdiag.relative_efficiency(labelled, axis=("chain", "draw"))
    assert found.dims == ("site",)
    np.testing.assert_array_equal(found, isdiag.relative_efficiency(x, axis=(0, 2)))


# ------------------------------------------------------------------------------------- draws="mcmc"


def chains_of(rng, rho, rows, s):
    """Log-weights of N(s, 1) against the stationary law N(0, 1) of chains, (rows, 2, 500), and the draws."""
    x = autoregressive(rng, rho, (rows, 2, 500))
    return s * x - s**2 / 2, x


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_intervals_of_chains_cover(rng, rho):
    log_w, x = chains_of(rng, rho, 250, 0.5)
    both = {"draws": "mcmc", "axis": (1, 2)}
    results = (
        isdiag.snis(log_w, x, **both),
        isdiag.snis(log_w, x, smooth="psis", **both),
        isdiag.snis(log_w, x, normalize=False, **both),
        isdiag.confidence_interval(log_w, x, **both),
        isdiag.select_gamma(log_w, rule="mse", h=x, **both),
        isdiag.control_variate(log_w, x, **both),
    )
    for result in results:
        assert np.mean((result.low <= 0.5) & (result.high >= 0.5)) >= 0.89
    plain = isdiag.snis(log_w, x, axis=(1, 2))
    assert np.mean((plain.low <= 0.5) & (plain.high >= 0.5)) < 0.85
    kl = isdiag.kl_divergence(log_w, **both)
    assert np.mean(np.abs(kl.estimate - 0.125) < 1.96 * kl.std_error) >= 0.85
    assert np.mean(np.abs(results[0].log_z) < 1.96 * results[0].log_z_std_error) >= 0.88


def test_errors_of_chains_by_hand(rng):
    (log_w,), (x,) = chains_of(rng, 0.8, 1, 0.7)
    plain = isdiag.snis(log_w, x, axis=(0, 1))
    found = isdiag.snis(log_w, x, draws="mcmc", axis=(0, 1))
    w = np.exp(log_w) / np.exp(log_w).sum()
    f = w * (x - plain.estimate)
    worth = isdiag.relative_efficiency(f, axis=(0, 1))
    assert found.estimate == plain.estimate
    assert found.std_error == pytest.approx(plain.std_error / np.sqrt(worth), rel=1e-9)
    of_weights = isdiag.relative_efficiency(w, axis=(0, 1))
    assert found.ess == pytest.approx(plain.ess * of_weights, rel=1e-9)
    assert found.log_z_std_error == pytest.approx(plain.log_z_std_error / np.sqrt(of_weights), rel=1e-9)
    assert found.khat == isdiag.pareto_khat(log_w, r_eff=of_weights, axis=(0, 1))
    given = isdiag.snis(log_w, x, draws="mcmc", r_eff=1.0, axis=(0, 1))
    assert (given.khat, given.std_error) == (plain.khat, found.std_error)
    size = round(1 / worth)
    pieces = np.array([f[c, i : i + size].sum() for c in range(2) for i in range(0, 500, size)])
    assert found.error_draws == pytest.approx((pieces**2).sum() ** 2 / (pieces**4).sum(), rel=1e-9)
    interval = isdiag.confidence_interval(log_w, x, draws="mcmc", axis=(0, 1))
    assert (interval.low, interval.high) == pytest.approx((found.low, found.high), rel=1e-12)


def test_of_short_chains_no_error_is_known(rng):
    found = isdiag.snis(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), draws="mcmc", axis=(0, 1))
    assert np.isnan([found.std_error, found.error_draws, found.ess]).all()
    assert np.isfinite(found.estimate)
    assert found.status is isdiag.Status.ERROR_UNCERTAIN


def test_units_rows_components_and_masks_of_chains(rng):
    log_w, x = chains_of(rng, 0.7, 3, 0.5)
    both = {"draws": "mcmc", "axis": (1, 2)}
    base = isdiag.snis(log_w, np.stack([x, x**2], axis=-1), **both)
    for j, h in enumerate((x, 1e200 * x**2)):
        alone = isdiag.snis(log_w, h, **both)
        scale = 1.0 if j == 0 else 1e200
        np.testing.assert_allclose(alone.std_error / scale, base.std_error[:, j], rtol=1e-9)
    for r in range(3):
        of_row = isdiag.snis(log_w[r], x[r], draws="mcmc", axis=(0, 1))
        assert of_row.std_error == pytest.approx(base.std_error[r, 0], rel=1e-12)
    where = np.arange(500) < 400
    left_out = isdiag.snis(np.where(where, log_w, np.nan), x, where=where, **both)
    alone = isdiag.snis(log_w[:, :, :400], x[:, :, :400], **both)
    np.testing.assert_allclose(left_out.std_error, alone.std_error, rtol=0.2)
    np.testing.assert_allclose(left_out.estimate, alone.estimate, rtol=1e-12)


def test_labelled_draws_of_chains(rng):
    xarray = optional("xarray")
    log_w, x = chains_of(rng, 0.7, 3, 0.5)
    labelled = [xarray.DataArray(a, dims=("site", "chain", "draw")) for a in (log_w, x)]
    found = isdiag.snis(*labelled, draws="mcmc")
    np.testing.assert_array_equal(found.std_error, isdiag.snis(log_w, x, draws="mcmc", axis=(1, 2)).std_error)


def test_a_diagnosis_of_chains(rng):
    (log_w,), (x,) = chains_of(rng, 0.9, 1, 0.3)
    diagnosis = isdiag.diagnose(log_w, x, draws="mcmc", axis=(0, 1))
    assert diagnosis.estimate.std_error == isdiag.snis(log_w, x, draws="mcmc", axis=(0, 1)).std_error
    assert diagnosis.khat == isdiag.snis(log_w, x, draws="mcmc", axis=(0, 1)).khat


def test_quantiles_of_chains_cover(rng):
    log_w, x = chains_of(rng, 0.8, 200, 0.5)
    both = {"draws": "mcmc", "axis": (1, 2)}
    truth = 0.5 + np.array([0.0, 1.2815515655446004])
    found = isdiag.quantile(log_w, x, [0.5, 0.9], **both)
    plain = isdiag.quantile(log_w, x, [0.5, 0.9], axis=(1, 2))
    assert ((found.low <= truth) & (truth <= found.high)).mean(axis=0).min() >= 0.88
    assert ((plain.low <= truth) & (truth <= plain.high)).mean(axis=0).max() < 0.8
    np.testing.assert_array_equal(found.estimate, plain.estimate)
    where = np.arange(500) < 400
    left_out = isdiag.quantile(np.where(where, log_w, np.nan), x, 0.5, where=where, **both)
    alone = isdiag.quantile(log_w[:, :, :400], x[:, :, :400], 0.5, **both)
    np.testing.assert_allclose(np.median(left_out.std_error / alone.std_error), 1.0, rtol=0.1)
    short = isdiag.quantile(
        rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), 0.5, draws="mcmc", axis=(0, 1)
    )
    assert short.status is isdiag.Status.ERROR_UNCERTAIN


def test_chains_need_more_draws(rng):
    log_w, x = chains_of(rng, 0.8, 50, 0.5)
    found = isdiag.draws_needed(log_w, x, half_width=0.02, draws="mcmc", axis=(1, 2))
    plain = isdiag.draws_needed(log_w, x, half_width=0.02, axis=(1, 2))
    errors = [isdiag.snis(log_w, x, draws=draws, axis=(1, 2)).std_error for draws in ("mcmc", "independent")]
    assert np.median(found / plain) == pytest.approx(np.median((errors[0] / errors[1]) ** 2), rel=0.2)
