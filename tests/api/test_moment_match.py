"""Draws moved by moment matching."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import isdiag
from isdiag import Status
from tests.helpers import optional


def normal(mean, covariance):
    precision = np.linalg.inv(covariance)
    mean = np.asarray(mean, float)
    return lambda x: -0.5 * (((x - mean) @ precision) * (x - mean)).sum(axis=1)


STANDARD = normal(np.zeros(3), np.eye(3))
TARGETS = {
    "shift": normal([1.5, 0.5, -1.0], np.eye(3)),
    "scale": normal([0.5, 0.0, 0.0], np.diag([4.0, 0.3, 1.0])),
    "covariance": normal([0.5, 0.0, 0.0], np.array([[2.0, 1.5, 0.0], [1.5, 2.0, 0.0], [0.0, 0.0, 0.5]])),
}
MEANS = {"shift": [1.5, 0.5, -1.0], "scale": [0.5, 0, 0], "covariance": [0.5, 0, 0]}


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_draws_come_to_the_target(rng, kind, split):
    draws = rng.normal(size=(4000, 3))
    found = isdiag.moment_match(draws, TARGETS[kind], STANDARD, split=split)
    assert found.khat_before == isdiag.pareto_khat(TARGETS[kind](draws) - STANDARD(draws))
    assert found.khat == isdiag.pareto_khat(found.log_weights)
    assert found.khat < min(found.khat_before, 0.3)
    estimate = isdiag.snis(found.log_weights, found.draws)
    assert (np.abs(estimate.estimate - MEANS[kind]) < 5 * estimate.std_error + 1e-9).all()
    # The weights are raw: their mean is the ratio of normalising constants.
    half_log_det = {"shift": 0.0, "scale": 0.5 * np.log(1.2), "covariance": 0.5 * np.log(0.875)}[kind]
    assert abs(estimate.log_z - half_log_det) < 5 * estimate.log_z_std_error + 0.02


def test_weights_are_the_density_of_the_moved_draws(rng):
    # To a normal target, from which weights tell the map: draws are A x + b, so their density is known.
    draws, wanted = rng.normal(size=(2000, 2)), normal([1.0, -1.0], np.array([[2.0, 0.9], [0.9, 1.0]]))
    found = isdiag.moment_match(draws, wanted, normal(np.zeros(2), np.eye(2)))
    design = np.column_stack([np.ones(2000), draws])
    coefficients = np.linalg.lstsq(design, found.draws, rcond=None)[0]
    np.testing.assert_allclose(design @ coefficients, found.draws, atol=1e-9)
    matrix = coefficients[1:]
    density = multivariate_normal(coefficients[0], matrix.T @ matrix).logpdf(found.draws) + np.log(2 * np.pi)
    np.testing.assert_allclose(found.log_weights, wanted(found.draws) - density, atol=1e-9)


def test_split_weights_are_those_of_the_mixture(rng):
    draws, wanted = rng.normal(size=(2001, 2)), normal([1.5, 0.0], np.eye(2))
    start = normal(np.zeros(2), np.eye(2))
    whole = isdiag.moment_match(draws, wanted, start)
    found = isdiag.moment_match(draws, wanted, start, split=True)
    np.testing.assert_array_equal(found.draws[:1000], whole.draws[:1000])
    np.testing.assert_array_equal(found.draws[1000:], draws[1000:])
    design = np.column_stack([np.ones(2001), draws])
    coefficients = np.linalg.lstsq(design, whole.draws, rcond=None)[0]
    moved = multivariate_normal(coefficients[0], coefficients[1:].T @ coefficients[1:]).logpdf(found.draws)
    constant = np.log(2 * np.pi)
    expected = isdiag.mixture_log_weights(
        wanted(found.draws), [moved + constant, start(found.draws)], [1000, 1001]
    )
    np.testing.assert_allclose(found.log_weights, expected, atol=1e-9)


def regression(rng):
    """A linear regression with outliers: draws of its posterior, densities, exact leave-one-out."""
    x = rng.normal(size=(30, 4))
    x[0] *= 3.5
    y = x @ rng.normal(size=4) + rng.normal(size=30)
    y[0] += 6
    y[1] += 4

    def posterior(kept):
        covariance = np.linalg.inv(x[kept].T @ x[kept] + np.eye(4) / 25)
        return covariance @ x[kept].T @ y[kept], covariance

    def log_lik(theta, i):
        return -0.5 * (y[i] - theta @ x[i]) ** 2 - 0.5 * np.log(2 * np.pi)

    mean, covariance = posterior(np.ones(30, bool))

    def exact(i):
        mean, covariance = posterior(np.arange(30) != i)
        variance = 1 + x[i] @ covariance @ x[i]
        return -0.5 * (y[i] - x[i] @ mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)

    return mean, covariance, log_lik, exact


def test_leave_one_out_of_a_regression_becomes_right():
    rng = np.random.default_rng(3)
    mean, covariance, log_lik, exact = regression(rng)
    log_posterior = normal(mean, covariance)
    for i in (0, 1):
        before, after, khats = [], [], []
        for _ in range(15):
            theta = rng.multivariate_normal(mean, covariance, size=1000)
            plain = isdiag.psis(-log_lik(theta, i)).log_weights
            before.append(np.logaddexp.reduce(plain + log_lik(theta, i)))
            found = isdiag.moment_match(
                theta, lambda t, i=i: log_posterior(t) - log_lik(t, i), log_posterior, split=True
            )
            log_w = isdiag.psis(found.log_weights).log_weights
            after.append(np.logaddexp.reduce(log_w + log_lik(found.draws, i)))
            khats.append((found.khat_before, found.khat))
        khats = np.median(khats, axis=0)
        assert khats[0] > 0.65
        assert khats[1] < 0.35
        rmse = [np.sqrt(np.mean((np.array(each) - exact(i)) ** 2)) for each in (before, after)]
        assert rmse[1] < rmse[0] / 3


def test_draws_that_need_no_moving_stay(rng):
    draws = rng.normal(size=(500, 3))
    found = isdiag.moment_match(draws, STANDARD, STANDARD)
    np.testing.assert_array_equal(found.draws, draws)
    assert (found.khat, found.status) == (-np.inf, Status.FLAT)
    good = isdiag.moment_match(draws, TARGETS["shift"], STANDARD, k_max=10.0)
    np.testing.assert_array_equal(good.draws, draws)
    assert good.khat == good.khat_before
    few = isdiag.moment_match(draws[:10], TARGETS["shift"], STANDARD)
    assert few.status is Status.TAIL_TOO_SHORT
    np.testing.assert_array_equal(few.draws, draws[:10])
    one = isdiag.moment_match(draws, TARGETS["shift"], STANDARD, max_steps=1)
    np.testing.assert_allclose(one.draws - draws, np.tile(one.draws[0] - draws[0], (500, 1)), atol=1e-12)


def test_more_dimensions_than_draws_move_no_covariance(rng):
    draws = rng.normal(size=(60, 80))
    found = isdiag.moment_match(draws, normal(np.full(80, 0.1), np.eye(80)), normal(np.zeros(80), np.eye(80)))
    assert found.khat <= found.khat_before
    assert np.isfinite(found.log_weights).all()


def test_a_target_that_is_not_finite(rng):
    draws = rng.normal(size=(300, 2))
    with pytest.warns(isdiag.NonFiniteWarning):
        found = isdiag.moment_match(
            draws, lambda x: np.where(x[:, 0] > 1, np.nan, 0.0), lambda x: 0 * x[:, 0]
        )
    assert (found.status, np.isnan(found.khat)) == (Status.NOT_FINITE, True)
    # A target that ends: draws beyond it have no weight, whatever it says.
    found = isdiag.moment_match(
        draws, lambda x: np.where(x[:, 0] > 0, -x[:, 0] * 4, -np.inf), lambda x: -(x**2).sum(axis=1) / 2
    )
    assert not np.isnan(found.log_weights).any()


def test_wrong_arguments_of_moment_match(rng):
    draws = rng.normal(size=(50, 3))
    for args, options, error, match in (
        ((draws[:, 0], STANDARD, STANDARD), {}, ValueError, r"draws must have shape \(n, d\), got \(50,\)"),
        ((draws[:0], STANDARD, STANDARD), {}, ValueError, "draws"),
        ((np.where(draws > 2, np.nan, draws) + np.nan, STANDARD, STANDARD), {}, ValueError, "draws.*nan"),
        ((draws, None, STANDARD), {}, TypeError, "log_target.*None"),
        ((draws, STANDARD, 1.0), {}, TypeError, "log_proposal.*1.0"),
        ((draws, lambda x: x, STANDARD), {}, ValueError, r"log_target must return shape \(50,\).*\(50, 3\)"),
        ((draws, STANDARD, lambda x: 1j * x[:, 0]), {}, TypeError, "log_proposal.*complex"),
        ((draws, STANDARD, STANDARD), {"k_max": np.nan}, ValueError, "k_max.*nan"),
        ((draws, STANDARD, STANDARD), {"max_steps": 0}, ValueError, "max_steps.*0"),
        ((draws, STANDARD, STANDARD), {"split": 3}, TypeError, "split.*3"),
        ((draws, STANDARD, STANDARD), {"r_eff": 0.0}, ValueError, "r_eff.*0"),
        ((draws, STANDARD, STANDARD), {"tail_length": 50}, ValueError, "tail_length=50"),
    ):
        with pytest.raises(error, match=match):
            isdiag.moment_match(*args, **options)


def test_functions_of_other_kinds_of_arrays(rng):
    draws = rng.normal(size=(800, 2))
    mean = np.array([1.0, -0.5])
    expected = isdiag.moment_match(
        draws, lambda x: -((x - mean) ** 2).sum(axis=1), lambda x: -(x**2).sum(axis=1) / 2
    )
    torch = optional("torch")
    there = torch.tensor(mean, requires_grad=True)  # as a model's parameter
    found = isdiag.moment_match(
        torch.tensor(draws), lambda x: -((x - there) ** 2).sum(dim=1), lambda x: -(x**2).sum(dim=1) / 2
    )
    assert isinstance(found.draws, torch.Tensor)
    assert isinstance(found.log_weights, torch.Tensor)
    np.testing.assert_allclose(found.draws.numpy(), expected.draws, rtol=1e-9, atol=1e-9)
    jax = optional("jax")
    jnp = jax.numpy
    found = isdiag.moment_match(
        jnp.asarray(draws, jnp.float32), lambda x: -((x - mean) ** 2).sum(1), lambda x: -(x**2).sum(1) / 2
    )
    assert isinstance(found.draws, jax.Array)
    assert found.draws.dtype == jnp.float32
    assert found.khat < found.khat_before
