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
