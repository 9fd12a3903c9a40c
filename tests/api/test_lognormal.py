"""Closed forms for log-normal weights, against the theory's numbers, quadrature and simulation."""

import inspect

import numpy as np
import pytest

import isdiag
from isdiag import lognormal
from tests.registry import HELPERS

GRID = np.linspace(0, 1, 100_001)


def expectation(f, mean=0.0):
    """E[f(x)] for x ~ N(mean, 1) by Gauss-Hermite quadrature."""
    x, weights = np.polynomial.hermite_e.hermegauss(80)
    return weights @ f(x + mean) / np.sqrt(2 * np.pi)


def weight(x, s):
    return np.exp(s * x - s**2 / 2)


def squared_errors(rng, gammas, s, n, repeats):
    """Simulated mean squared error of the tempered estimate at each gamma."""
    x = rng.normal(size=(repeats, n))
    found = []
    for gamma in gammas:
        w = weight(x, gamma * s)
        found.append(np.mean(((w * x).sum(1) / w.sum(1) - s) ** 2))
    return np.array(found)


# ------------------------------------------------------------------------ the theory's corrections


def test_c1_bias_has_the_covariance_under_the_target():
    assert lognormal.bias(1.0, 1.0, 200) == pytest.approx(-0.0136, abs=5e-5)
    under_proposal = -1.0 / 200
    assert lognormal.bias(1.0, 1.0, 200) == pytest.approx(under_proposal * np.exp(1.0), rel=1e-14)


def test_c2_variance_has_no_dip():
    assert GRID[np.argmin(lognormal.variance_printed(GRID, 2.0))] == 0.25
    assert (np.diff(lognormal.variance(GRID, 2.0, 100)) > 0).all()
    # What the printed form leaves out is the square of the weights' mean, and the spread of x.
    completed = lognormal.variance_printed(GRID, 2.0) / lognormal.moment(GRID, 2.0) ** 2
    np.testing.assert_allclose(completed, 1 / lognormal.ess_ratio(GRID, 2.0), rtol=1e-13)


def test_c3_bias_of_a_linear_h():
    assert lognormal.bias(0.6, 1.0, 100) == pytest.approx(-0.00860, abs=5e-6)
    assert lognormal.bias_printed(0.6, 1.0, 100) == pytest.approx(-0.01 * (np.exp(0.6) - 1), rel=1e-14)
    assert lognormal.bias_printed(0.6, 1.0, 100, scale=-3.0) == pytest.approx(0.03 * np.expm1(0.6), rel=1e-14)


@pytest.mark.parametrize(
    ("n", "printed", "true"), [(10, 0.145, 0.446), (1e3, 0.246, 0.889), (1e6, 0.250, 0.9997)]
)
def test_c4_best_exponent(n, printed, true):
    assert lognormal.best_gamma(2.0, n) == pytest.approx(true, abs=5e-4)
    assert lognormal.best_gamma_printed(2.0, n) == pytest.approx(printed, abs=5e-4)


def test_c4_large_samples():
    best = lognormal.best_gamma(1.0, [1e2, 1e4, 1e8])
    assert (np.diff(best) > 0).all()
    assert best[-1] == pytest.approx(1.0, abs=1e-6)
    assert lognormal.best_gamma_printed(1.0, 1e12) == pytest.approx(0.25, abs=1e-6)


# ------------------------------------------------------------------------- quadrature, simulation


@pytest.mark.parametrize("s", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0])
def test_against_quadrature(gamma, s):
    n, mean = 50, gamma * s
    first = expectation(lambda x: weight(x, s) ** gamma)
    second = expectation(lambda x: weight(x, s) ** (2 * gamma))
    spread = expectation(lambda x: weight(x, s) ** (2 * gamma) * (x - mean) ** 2)
    tilt = expectation(lambda x: weight(x, s) ** (2 * gamma) * (x - mean))
    assert lognormal.moment(gamma, s) == pytest.approx(first, rel=1e-10)
    assert lognormal.variance_printed(gamma, s) == pytest.approx(second, rel=1e-10)
    assert lognormal.ess_ratio(gamma, s) == pytest.approx(first**2 / second, rel=1e-10)
    assert lognormal.variance(gamma, s, n) == pytest.approx(spread / first**2 / n, rel=1e-10)
    assert lognormal.bias(gamma, s, n) == pytest.approx(-tilt / first**2 / n, rel=1e-10, abs=1e-14)
    tempered = expectation(lambda x: weight(x, s) ** gamma * x) / first
    assert lognormal.tempering_bias(gamma, s) == pytest.approx(tempered - s, rel=1e-10, abs=1e-12)


def test_against_simulation():
    gamma, s, n = 0.6, 1.0, 100
    x = np.random.default_rng(11).normal(size=(100_000, n))
    w = weight(x, gamma * s)
    estimate = (w * x).sum(1) / w.sum(1)
    # The linear part of the error has mean 0 exactly; without it the simulation of the bias is sharp.
    linear = (weight(x, gamma * s) * (x - gamma * s)).mean(1)
    assert (estimate - gamma * s - linear).mean() == pytest.approx(lognormal.bias(gamma, s, n), rel=0.05)
    assert estimate.var() == pytest.approx(lognormal.variance(gamma, s, n), rel=0.05)
    assert ((estimate - s) ** 2).mean() == pytest.approx(lognormal.mse(gamma, s, n), rel=0.02)


def test_estimates_of_the_library_agree():
    gamma, s, n = 0.7, 1.0, 1000
    x = np.random.default_rng(12).normal(size=(400, n))
    log_w = s * x - s**2 / 2
    result = isdiag.snis(log_w, x, gamma=gamma)
    assert (result.std_error**2).mean() == pytest.approx(lognormal.variance(gamma, s, n), rel=0.05)
    assert result.bias.mean() == pytest.approx(lognormal.bias(gamma, s, n), rel=0.1)
    assert result.ess.mean() / n == pytest.approx(lognormal.ess_ratio(gamma, s), rel=0.05)
    printed = isdiag.kong_owen_bias(log_w, x, gamma=gamma, covariance="proposal").mean()
    assert printed == pytest.approx(-gamma * s / n, rel=0.05)


def test_where_the_first_order_holds_and_where_not(rng):
    # What the notes of mse and best_gamma say.
    gammas = np.linspace(0, 1, 21)
    moderate = squared_errors(rng, gammas, 0.5, 10, 100_000)
    assert gammas[np.argmin(moderate)] == pytest.approx(lognormal.best_gamma(0.5, 10), abs=0.1)
    wide = squared_errors(rng, gammas, 2.0, 10, 20_000)
    assert np.argmin(wide) == 20
    at_best, at_one = squared_errors(rng, [lognormal.best_gamma(2.0, 1000), 1.0], 2.0, 1000, 4000)
    assert at_one == pytest.approx(0.074, rel=0.1)
    assert lognormal.mse(1.0, 2.0, 1000) == pytest.approx(0.285, abs=5e-4)
    assert at_one < at_best


# ------------------------------------------------------------------------------------ best exponent


@pytest.mark.parametrize("s", [0.1, 0.7, 2.0, 5.0])
@pytest.mark.parametrize("n", [3, 100, 1e5])
def test_best_is_the_least(s, n):
    for best, of in (
        (lognormal.best_gamma, lognormal.mse),
        (lognormal.best_gamma_printed, lognormal.mse_printed),
    ):
        assert best(s, n) == pytest.approx(GRID[np.argmin(of(GRID, s, n))], abs=1.1e-5)


def test_constants_of_the_printed_mse():
    expected = 3 / 400 * np.expm1(2.0) ** 2 + 0.5 / 20
    assert lognormal.mse_printed(0.5, 2.0, 20, c1=3.0, c2=0.5) == pytest.approx(expected, rel=1e-14)
    values = lognormal.mse_printed(GRID, 2.0, 20, c1=3.0, c2=0.5)
    best = lognormal.best_gamma_printed(2.0, 20, c1=3.0, c2=0.5)
    assert best == pytest.approx(GRID[np.argmin(values)], abs=1.1e-5)


def test_limits_of_the_best_exponent():
    for n in (2, 10, 1000):
        limit = (1 - 1 / n) / (1 + 1 / n**2)
        assert lognormal.best_gamma(0.0, n) == pytest.approx(limit, rel=1e-14)
        assert lognormal.best_gamma(1e-6, n) == pytest.approx(limit, rel=1e-9)
    assert lognormal.best_gamma(2.0, 1) == 0.0
    assert lognormal.best_gamma(2.0, 0.5) == 0.0
    assert lognormal.best_gamma_printed(0.0, 10) == 0.25
    assert 0 < lognormal.best_gamma(1e3, 100) < 1e-2


# ------------------------------------------------------------------------------- arrays and errors

FUNCTIONS = {name: getattr(lognormal, name) for name in HELPERS["isdiag.lognormal"]}


def positional(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_broadcast(name):
    function = FUNCTIONS[name]
    axes = {"gamma": [0.0, 0.3, 1.0], "s": [[0.0], [0.5]], "n": [[[10]], [[20]], [[1000]], [[5000]]]}
    given = [np.array(axes[p]) for p in positional(function)]
    out = function(*given)
    grid = np.broadcast_arrays(*given)
    assert out.shape == grid[0].shape
    for index in np.ndindex(out.shape):
        one = function(*(float(a[index]) for a in grid))
        assert type(one) is float
        assert one == out[index]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_arguments_name_the_value(name):
    function = FUNCTIONS[name]
    good = dict.fromkeys(positional(function), 1.0)
    for parameter in good:
        for bad in (-0.25, np.nan, np.inf, [1.0, -0.25], *([0] if parameter == "n" else [])):
            value = np.ravel(bad)[-1]
            with pytest.raises(ValueError, match=f"{parameter} must be finite .* got {value:g}"):
                function(**good | {parameter: bad})
    with pytest.raises(TypeError, match="real numbers"):
        function(**good | {"s": 1j})


@pytest.mark.parametrize("constant", ["c1", "c2"])
def test_constants_are_positive(constant):
    for function, given in (
        (lognormal.mse_printed, (0.5, 1.0, 10)),
        (lognormal.best_gamma_printed, (1.0, 10)),
    ):
        with pytest.raises(ValueError, match=f"{constant} must be finite and above 0, got 0"):
            function(*given, **{constant: 0})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_huge_spread_overflows_in_silence(name):
    function = FUNCTIONS[name]
    given = dict.fromkeys(positional(function), 1.0) | {"s": 1e200}
    assert not np.isnan(function(**given))
    assert not np.isnan(function(**given | {"s": 40.0}))
