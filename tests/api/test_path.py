"""The geometric path: what it is, tempering steps, and normalising constants along it."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp, rel_entr, softmax

import isdiag
from isdiag import Status, geometric_path, next_gamma, stepping_stone, thermodynamic
from tests.helpers import optional

NUMBERS = ("ess", "khat", "log_z", "log_z_std_error", "status")


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd)


def between(gamma, mean, sd):
    """(mean, sd, log Z) of the path from N(0, 1) to N(mean, sd), densities without sqrt(2 pi)."""
    precision = 1 - gamma + gamma / sd**2
    centre = gamma * mean / sd**2 / precision
    log_z = -0.5 * np.log(precision) - gamma * np.log(sd)
    log_z += 0.5 * (centre**2 * precision - gamma * mean**2 / sd**2)
    return centre, precision**-0.5, log_z


def draws(rng, gammas, n, mean, sd, repeats=()):
    """log w at draws of the path from N(0, 1) to N(mean, sd): (*repeats, gammas, n)."""
    centre, spread, _ = between(np.asarray(gammas), mean, sd)
    x = rng.normal(size=(*repeats, len(gammas), n)) * spread[:, None] + centre[:, None]
    return normal(x, mean, sd) - normal(x, 0, 1)


def is_calibrated(estimate, std_error, truth):
    off = (estimate - truth) / std_error
    assert abs(off.mean()) < 4 / np.sqrt(off.size)
    assert 0.9 < off.std() < 1.1


# ------------------------------------------------------------------------------- what the path is


def path_of(mu, target, gamma):
    """p_gamma on a finite set, from one draw of each of its points, weighted by mu."""
    weights = geometric_path(np.zeros(mu.size), np.log(target) - np.log(mu), [gamma]).log_weights[0]
    return softmax(weights + np.log(mu))


def objective(p, mu, target, gamma):
    return (1 - gamma) * rel_entr(p, mu).sum() + gamma * rel_entr(p, target).sum()


@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_is_the_least_of_the_weighted_divergences(rng, gamma):
    for size in (2, 3, 7):
        mu, target = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))
        p = path_of(mu, target, gamma)
        least = objective(p, mu, target, gamma)
        # The value at the least is -log sum mu^(1-g) target^g.
        assert least == pytest.approx(-np.log((mu ** (1 - gamma) * target**gamma).sum()), abs=1e-12)
        for _ in range(200):
            other = p * np.exp(rng.normal(scale=rng.choice([1e-3, 0.1, 2.0]), size=size))
            assert objective(other / other.sum(), mu, target, gamma) > least
        found = minimize(
            lambda z, *args: objective(softmax(z), *args),
            np.zeros(size),
            (mu, target, gamma),
            method="BFGS",
            options={"gtol": 1e-9},
        )
        np.testing.assert_allclose(softmax(found.x), p, atol=1e-6)


def test_is_the_geodesic_of_the_exponential_connection_and_not_of_fisher_rao():
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.1, 0.8])
    middle = path_of(p, q, 0.5)
    np.testing.assert_allclose(middle, [0.384, 0.205, 0.411], atol=5e-4)
    # An e-geodesic is a straight line in the logarithms of ratios.
    log_ratio = [np.log(path_of(p, q, g)[1:] / path_of(p, q, g)[0]) for g in (0.0, 0.3, 1.0)]
    np.testing.assert_allclose(log_ratio[1], 0.7 * log_ratio[0] + 0.3 * log_ratio[2], rtol=1e-12)
    # The geodesic of Fisher-Rao: the great circle through the square roots.
    angle = np.arccos(np.sqrt(p * q).sum())
    circle = ((np.sqrt(p) + np.sqrt(q)) * np.sin(angle / 2) / np.sin(angle)) ** 2
    np.testing.assert_allclose(circle, [0.394, 0.173, 0.434], atol=5e-4)
    assert np.abs(circle - middle).max() > 0.02


def test_is_what_the_rest_of_the_package_says(heavy):
    gammas = [0.0, 0.3, 1.0, 1.7]
    log_mu = np.sin(heavy)
    path = geometric_path(log_mu, heavy + log_mu, gammas)
    assert path.log_weights.shape == (4, heavy.size)
    for g, gamma in enumerate(gammas):
        log_w = heavy + log_mu - log_mu
        np.testing.assert_allclose(path.log_weights[g], isdiag.temper(log_w, gamma), rtol=0, atol=1e-14)
        other = isdiag.snis(log_w, log_w, gamma=gamma)
        assert path.ess[g] == pytest.approx(isdiag.ess(log_w, gamma=gamma), rel=1e-13)
        assert path.khat[g] == isdiag.pareto_khat(log_w, gamma=gamma)
        assert path.log_z[g] == pytest.approx(logsumexp(gamma * log_w) - np.log(heavy.size), abs=1e-12)
        assert path.log_z[g] == pytest.approx(other.log_z, abs=1e-14)
        assert path.log_z_std_error[g] == pytest.approx(other.log_z_std_error, rel=1e-13)
    assert path.status.tolist() == [Status.FLAT, Status.OK, Status.OK, Status.OK]
    assert path.gammas.tolist() == gammas


@pytest.mark.parametrize(("mean", "sd"), [(0.7, 0.8), (-0.4, 1.1), (0.0, 0.6)])
def test_gaussian_path_has_its_constants_and_means(mean, sd):
    rng = np.random.default_rng(33)
    repeats, n = 1000, 1000
    x = rng.normal(size=(repeats, n))
    gammas = [0.2, 0.5, 0.8, 1.0]
    path = geometric_path(normal(x, 0, 1), normal(x, mean, sd), gammas)
    wbar = np.exp(path.log_weights)
    for g, gamma in enumerate(gammas):
        centre, _, log_z = between(gamma, mean, sd)
        is_calibrated(path.log_z[g], path.log_z_std_error[g], log_z)
        estimate = (wbar[g] * x).sum(axis=1)
        std_error = np.sqrt((wbar[g] ** 2 * (x - estimate[:, None]) ** 2).sum(axis=1))
        is_calibrated(estimate, std_error, centre)
        assert (np.abs(estimate - centre) < 4 * std_error)[:200].mean() > 0.99


# ------------------------------------------------------------------- what may come in and goes out


def test_constants_of_the_densities_move_log_z_alone(heavy):
    gammas = np.array([0.0, 0.4, 1.0])
    plain = geometric_path(np.zeros(1000), heavy, gammas)
    moved = geometric_path(np.full(1000, 3.0), heavy - 7.0, gammas)
    np.testing.assert_allclose(moved.log_weights, plain.log_weights, atol=1e-11)
    np.testing.assert_allclose(moved.log_z, plain.log_z - 10 * gammas, atol=1e-11)
    for name in ("ess", "khat", "log_z_std_error", "status"):
        np.testing.assert_allclose(getattr(moved, name), getattr(plain, name), rtol=1e-9)
    assert next_gamma(heavy + 1e3) == pytest.approx(next_gamma(heavy), rel=1e-9)


def test_order_of_draws_does_not_matter(rng):
    log_mu, log_target = rng.normal(size=(2, 5, 300))
    order = rng.permutation(300)
    batch = geometric_path(log_mu, log_target, [0.5, 1.0])
    shuffled = geometric_path(log_mu[:, order], log_target[:, order], [0.5, 1.0])
    np.testing.assert_allclose(shuffled.log_weights, batch.log_weights[..., order], rtol=1e-12)
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(shuffled, name), getattr(batch, name), rtol=1e-9)


def test_rows_that_cannot_be_used_have_a_status_and_leave_the_others_alone(rng):
    log_mu, log_target = rng.normal(size=(2, 7, 100))
    clean = geometric_path(log_mu, log_target, [0.5, 1.0])
    log_target[0, 3] = np.nan
    log_target[1, 3] = np.inf
    log_mu[2, 3] = -np.inf
    log_mu[3, 3] = log_target[3, 3] = -np.inf
    log_target[4] = -np.inf
    log_target[5, :50] = -np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="4 of 7 rows") as caught:
        path = geometric_path(log_mu, log_target, [0.5, 1.0])
    assert len(caught) == 1
    assert (path.status[:, :4] == Status.NOT_FINITE).all()
    assert (path.status[:, 4] == Status.NO_WEIGHT).all()
    for name in NUMBERS[:-1]:
        assert np.isnan(getattr(path, name)[:, :4]).all()
        np.testing.assert_array_equal(getattr(path, name)[:, 6], getattr(clean, name)[:, 6])
    assert np.isnan(path.log_weights[:, :4]).all()
    assert (path.log_weights[:, 4] == -np.inf).all()
    assert (path.log_z[:, 4] == -np.inf).all()
    half = geometric_path(log_mu[5, 50:], log_target[5, 50:], [0.5, 1.0])
    np.testing.assert_allclose(path.log_z[:, 5], half.log_z - np.log(2), rtol=1e-12)
    np.testing.assert_allclose(path.ess[:, 5], half.ess, rtol=1e-12)
    assert geometric_path(log_mu[5], log_target[5], 0.0).log_z == pytest.approx(np.log(0.5))
    with pytest.warns(isdiag.NonFiniteWarning, match="2 of 7 rows"):
        gamma = next_gamma(log_target, [0.0, 0.0, 0.2, 0.9, 0.0, 0.3, np.nan])
    assert np.isnan(gamma).tolist() == [True, True, False, False, True, False, True]


def test_densities_are_not_looked_at_where_left_out(rng):
    log_mu, log_target = rng.normal(size=(2, 3, 200))
    log_mu[:, 150] = log_target[:, 150] = -np.inf
    log_mu[:, 151], log_target[:, 152] = np.inf, np.nan
    masked = geometric_path(log_mu, log_target, [0.0, 0.4, 1.0], where=np.arange(200) < 150)
    cut = geometric_path(log_mu[:, :150], log_target[:, :150], [0.0, 0.4, 1.0])
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(masked, name), getattr(cut, name), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_densities_of_two_dtypes(rng, dtype):
    log_mu, log_target = (4 * rng.normal(size=(2, 60))).astype(dtype), (4 * rng.normal(size=60)).astype("f4")
    path = geometric_path(log_mu, np.stack([log_target] * 2), [0.5, 1.0])
    assert path.log_weights.dtype == ("float64" if dtype == "int64" else dtype)
    exact = geometric_path(log_mu.astype(float), np.stack([log_target] * 2).astype(float), [0.5, 1.0])
    np.testing.assert_array_equal(path.ess, exact.ess)
    np.testing.assert_array_equal(path.khat, exact.khat)


def test_flat_up_to_rounding_of_the_coarser_density(rng):
    log_mu = rng.normal(size=50)
    path = geometric_path(log_mu, log_mu + 2.0, [0.5, 1.0])
    assert path.status.tolist() == [Status.FLAT, Status.FLAT]
    np.testing.assert_allclose(path.log_z, [1.0, 2.0])
    np.testing.assert_allclose(path.ess, 50)
    assert next_gamma(np.full(50, 3.0), 0.3) == 1.0


def test_weights_are_of_the_kind_and_dtype_of_mu_and_steps_may_be_tensors(rng):
    torch = optional("torch")
    log_mu, log_target = rng.normal(size=(2, 3, 4, 80))
    given = torch.tensor(log_mu, dtype=torch.bfloat16, requires_grad=True)
    assert geometric_path(given, torch.tensor(log_target), [0.2, 1.0]).log_weights.dtype == torch.bfloat16
    gamma = next_gamma(torch.tensor(3 * log_mu), torch.full((3, 4), 0.1))
    np.testing.assert_allclose(gamma.numpy(), next_gamma(3 * log_mu, 0.1), rtol=1e-6)
    for function in (stepping_stone, thermodynamic):
        steps = torch.linspace(0, 1, 4)
        result, expected = function(torch.tensor(3 * log_mu), steps), function(3 * log_mu, steps.numpy())
        np.testing.assert_array_equal(result.estimate.numpy(), expected.estimate)


X = np.zeros((3, 10))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: geometric_path(X, X, [0.5, -0.1]),
            ValueError,
            r"gammas must be finite and at least 0, got -0\.1",
        ),
        (lambda: geometric_path(X, X, [np.inf]), ValueError, "inf"),
        (lambda: geometric_path(X, X, []), ValueError, r"got \[\]"),
        (lambda: geometric_path(X, X, [[0.5]]), ValueError, r"\[\[0\.5\]\]"),
        (lambda: geometric_path(X, X[0], [0.5]), ValueError, r"\(3, 10\) and \(10,\)"),
        (lambda: geometric_path(X, X > 0, [0.5]), TypeError, "log_target.*bool"),
        (lambda: next_gamma(X, 1.5), ValueError, r"gamma must be at most 1, got 1\.5"),
        (lambda: next_gamma(X, [0.5, 2.0, 0.1]), ValueError, "at most 1, got 2"),
        (lambda: stepping_stone(X, [0.1, 0.5, 0.9]), ValueError, r"increase from 0.*\[0\.1"),
        (lambda: stepping_stone(X, [0, 0.5, 0.5]), ValueError, r"increase from 0.*0\.5, 0\.5"),
        (lambda: stepping_stone(X, [0, 0.5, 1.5]), ValueError, r"at most 1, got .*1\.5"),
        (lambda: stepping_stone(X, [0, 0.5]), ValueError, r"\(\.\.\., 2, n\) for 2 gammas, got \(3, 10\)"),
        (lambda: stepping_stone(X[0], [0.0]), ValueError, r"got \(10,\)"),
        (lambda: thermodynamic(X, [0, 0.5, 0.9]), ValueError, r"from 0 to 1, got \[0, 0\.5, 0\.9\]"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------------------------- tempering steps


def bisection(log_w, gamma, ess_min):
    """The slow twin: halve the interval 200 times."""

    def keeps(delta):
        return 2 * logsumexp(delta * log_w) - logsumexp(2 * delta * log_w) >= np.log(ess_min * log_w.size)

    if keeps(1 - gamma):
        return 1.0
    low, high = 0.0, 1 - gamma
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return gamma + low


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("ess_min", [0.1, 0.5, 0.95])
def test_next_gamma_is_the_bisection(rng, gamma, ess_min):
    for scale in (0.01, 1.0, 30.0, 1e4):
        for log_w in (scale * rng.normal(size=500), -scale * rng.exponential(size=500) ** 2):
            found = next_gamma(log_w, gamma, ess_min=ess_min)
            assert type(found) is float
            assert found - gamma == pytest.approx(bisection(log_w, gamma, ess_min) - gamma, rel=1e-8)
            assert isdiag.ess(log_w, gamma=found - gamma) >= ess_min * 500 * (1 - 1e-14)


@pytest.mark.parametrize("n", [50, 5000])
def test_next_gamma_is_that_of_particles(rng, n):
    # Bisection as in its AdaptiveTempering, which needs a sampler around it.
    essl = pytest.importorskip("particles.resampling", reason="particles is not installed").essl
    for scale in (2.0, 10.0, 100.0):
        log_w = scale * rng.normal(size=n)
        expected = brentq(lambda d, x: essl(d * x) - 0.5 * n, 1e-12, 1.0, (log_w,), xtol=1e-14)
        assert next_gamma(log_w) == pytest.approx(expected, rel=1e-9)


def test_next_gamma_is_that_of_blackjax(rng):
    ess = pytest.importorskip("blackjax.smc.ess", reason="blackjax is not installed")
    import jax
    from blackjax.smc.solver import dichotomy

    with jax.enable_x64(True):
        solve = jax.jit(lambda x, largest: ess.ess_solver(lambda x: x, x, 0.5, largest, dichotomy))
        for gamma, scale in ((0.0, 3.0), (0.2, 10.0), (0.5, 0.1)):
            log_w = scale * rng.normal(size=1000)
            step = solve(log_w, 1 - gamma)
            # It stops within 1e-4 in log ESS, below ours.
            found = next_gamma(log_w, gamma)
            assert float(step) <= found - gamma + 1e-12
            assert gamma + float(step) == pytest.approx(found, rel=1e-3)


def test_next_gamma_at_its_ends(heavy):
    assert next_gamma(heavy, 1.0) == 1.0
    assert next_gamma(heavy, ess_min=0.0) == 1.0
    assert next_gamma(heavy, 0.4, ess_min=1.0) == 0.4
    assert next_gamma(1e-3 * heavy, 0.4) == 1.0
    with_zeros = np.where(np.arange(1000) < 600, -np.inf, heavy)
    assert next_gamma(with_zeros, 0.25) == 0.25  # no step keeps half of the draws
    assert next_gamma([0.3], 0.25) == 1.0
    # A step below the spacing of floats at gamma: the constraint holds all the same.
    steep = 1e16 * heavy
    found = next_gamma(steep, 0.5)
    assert found >= 0.5
    assert isdiag.ess(steep, gamma=found - 0.5) >= 500


def test_a_sampler_that_steps_so_never_falls_below_ess_min():
    rng = np.random.default_rng(7)
    n, mean, sd = 400, 6.0, 0.5
    for ess_min in (0.3, 0.5, 0.9):
        x, gamma, log_z, steps = rng.normal(size=n), 0.0, 0.0, 0
        while gamma < 1:
            log_w = normal(x, mean, sd) - normal(x, 0, 1)
            after = next_gamma(log_w, gamma, ess_min=ess_min)
            assert after > gamma
            step = after - gamma
            assert isdiag.ess(log_w, gamma=step) >= ess_min * n
            log_z += logsumexp(step * log_w) - np.log(n)
            gamma, steps = after, steps + 1
            x = rng.choice(x, n, p=softmax(step * log_w))
            for _ in range(10):  # Metropolis
                proposed = x + rng.normal(size=n)
                ratio = (1 - gamma) * (normal(proposed, 0, 1) - normal(x, 0, 1))
                ratio += gamma * (normal(proposed, mean, sd) - normal(x, mean, sd))
                x = np.where(np.log(rng.uniform(size=n)) < ratio, proposed, x)
        assert steps > 3
        assert log_z == pytest.approx(0.0, abs=0.6)
        assert x.mean() == pytest.approx(mean, abs=0.15)
        assert x.std() == pytest.approx(sd, abs=0.15)


# --------------------------------------------------------------------------- normalising constants


@pytest.mark.parametrize(("mean", "sd"), [(4.0, 1.0), (3.0, 0.6), (1.0, 1.3)])
def test_log_z_is_known_and_its_error_calibrated(mean, sd):
    rng = np.random.default_rng(11)
    gammas = np.linspace(0, 1, 17)
    log_w = draws(rng, gammas, 200, mean, sd, repeats=(700,)) + 2.5
    result = stepping_stone(log_w, gammas)
    is_calibrated(result.estimate, result.std_error, 2.5)
    for rule in ("corrected", "trapezoid"):
        result = thermodynamic(log_w, gammas, rule=rule)
        is_calibrated(result.estimate, result.std_error, 2.5 + discretisation(gammas, mean, sd, rule))
        assert result.khat is None


def discretisation(gammas, mean, sd, rule):
    """Error of the rule on the exact means, of which log w is a square a x^2 + b x + c."""
    a, b = 0.5 - 0.5 / sd**2, mean / sd**2
    c = -0.5 * mean**2 / sd**2 - np.log(sd)
    centre, spread, _ = between(gammas, mean, sd)
    means = a * (centre**2 + spread**2) + b * centre + c
    variances = 2 * a**2 * spread**4 + (2 * a * centre + b) ** 2 * spread**2
    d = np.diff(gammas)
    total = (d * (means[1:] + means[:-1]) / 2).sum()
    return total if rule == "trapezoid" else total - (d**2 * np.diff(variances) / 12).sum()


def test_the_correction_lowers_the_error_of_the_rule():
    rng = np.random.default_rng(5)
    gammas = np.linspace(0, 1, 6)
    log_w = draws(rng, gammas, 100_000, 2.0, 0.7)
    corrected, plain = thermodynamic(log_w, gammas), thermodynamic(log_w, gammas, rule="trapezoid")
    assert abs(plain.estimate) > 10 * plain.std_error
    assert abs(corrected.estimate) < abs(plain.estimate) / 4
    assert corrected.status is plain.status is Status.ERROR_UNCERTAIN


def test_corrected_trapezoid_is_the_papers_formula(rng):
    gammas = np.array([0.0, 0.1, 0.4, 1.0])
    log_w = 5.0 * gammas[:, None] + rng.normal(size=(4, 30))  # chords of 5, slopes of about 1: none is cut
    mean, variance = log_w.mean(axis=1), log_w.var(axis=1, ddof=1)
    plain = correction = 0.0
    for k in range(3):
        d = gammas[k + 1] - gammas[k]
        plain += d * (mean[k + 1] + mean[k]) / 2
        correction += d**2 * (variance[k + 1] - variance[k]) / 12
    assert thermodynamic(log_w, gammas).estimate == pytest.approx(plain - correction, rel=1e-12)
    result = thermodynamic(log_w, gammas, rule="trapezoid")
    assert result.estimate == pytest.approx(plain, rel=1e-12)
    share = np.array([0.05, 0.2, 0.45, 0.3])
    assert result.std_error == pytest.approx(np.sqrt((share**2 * variance / 30).sum()), rel=1e-12)


@pytest.mark.parametrize("rule", ["corrected", "trapezoid"])
@pytest.mark.parametrize("spread", [0.3, 30.0])  # slopes below and above three times the chord
def test_error_of_the_integral_is_that_of_quadratic_terms(rng, rule, spread):
    path = np.array([0.0, 0.1, 0.4, 1.0])
    log_w = 1e3 + 5.0 * path[:, None] + spread * rng.exponential(size=(4, 3000))
    log_w[0, ::7] = -np.inf
    where = np.arange(3000) < np.array([[3000], [2000], [70], [3000]])
    sets = [row[kept & (row > -np.inf)] for row, kept in zip(log_w, where, strict=True)]
    mean, slope = np.array([(x.mean(), x.var(ddof=1)) for x in sets]).T
    of_mean, of_slope, correction = np.zeros(4), np.zeros(4), np.zeros(4)
    for k, distance in enumerate(np.diff(path)):
        of_mean[k : k + 2] += distance / 2
        chord = (mean[k + 1] - mean[k]) / distance
        for end, sign in ((k, 1), (k + 1, -1)):
            if slope[end] <= 3 * chord:
                of_slope[end] += sign * distance**2 / 12
            elif chord > 0:
                correction[k : k + 2] += sign * distance / 4 * np.array([-1, 1])
    assert of_slope.any() == (spread == 0.3)
    disagreement = (correction * mean + of_slope * slope).sum()
    h = [
        a * x if rule == "trapezoid" else (a + b) * x + c * x.size / (x.size - 1) * (x - x.mean()) ** 2
        for x, a, b, c in zip(sets, of_mean, correction, of_slope, strict=True)
    ]
    share = sets[0].size / 3000
    variances = np.array([x.var() / (x.size - 1) for x in h])
    carried = [((x - x.mean()) ** 2).sum() ** 2 / ((x - x.mean()) ** 4).sum() for x in h]
    result = thermodynamic(log_w, path, rule=rule, where=where)
    assert result.estimate == pytest.approx(np.log(share) + sum(x.mean() for x in h), rel=1e-12)
    assert result.disagreement == pytest.approx(disagreement, rel=1e-10)
    of_share = (1 - share) / (share * 3000)
    assert result.std_error == pytest.approx(np.sqrt(variances.sum() + of_share), rel=1e-11)
    draws = variances.sum() ** 2 / (variances**2 / carried).sum()
    assert result.error_draws == pytest.approx(draws, rel=1e-10)


@pytest.mark.parametrize("power", [500, 1010])
def test_the_integral_of_log_weights_of_any_size(rng, power):
    path, unit = np.array([0.0, 0.5, 1.0]), 2.0**power
    log_w = 10.0 * (rng.normal(size=(3, 200)) + path[:, None])
    # Slopes above three times the chord: the rule is linear, and stays within float64.
    plain, large = thermodynamic(log_w, path), thermodynamic(unit * log_w, path)
    for name in ("estimate", "std_error", "disagreement", "low", "high"):
        assert getattr(large, name) == unit * getattr(plain, name)
    assert (large.error_draws, large.status) == (plain.error_draws, plain.status)
    # Variances too small to matter: that of the trapezoids.
    small, plain = thermodynamic(log_w / unit, path), thermodynamic(log_w, path, rule="trapezoid")
    for name in ("estimate", "std_error", "low", "high"):
        assert unit * getattr(small, name) == pytest.approx(getattr(plain, name), rel=1e-12)


def test_a_rise_beyond_float64_is_not_finite(rng):
    log_w = np.ldexp([[-0.9], [0.9]] * rng.uniform(0.9, 1.0, size=(2, 50)), 1024)
    with pytest.warns(isdiag.NonFiniteWarning, match="sums beyond float64"):
        result = thermodynamic(log_w, [0.0, 1.0])
    assert np.isnan(result.estimate)
    assert result.status is Status.NOT_FINITE
    plain, half = (thermodynamic(row, [0.0, 1.0], rule="trapezoid") for row in (log_w, 2.0**-100 * log_w))
    assert plain.estimate == 2.0**100 * half.estimate
    assert plain.std_error == 2.0**100 * half.std_error


def test_stepping_stone_is_the_papers_formula(rng):
    gammas = np.array([0.0, 0.1, 0.4])
    log_w = rng.normal(size=(3, 60))
    steps = np.array([0.1, 0.3, 0.6])
    result = stepping_stone(log_w, gammas)
    parts = logsumexp(steps[:, None] * log_w, axis=1) - np.log(60)
    assert result.estimate == pytest.approx(parts.sum(), rel=1e-12)
    relative = np.exp(steps[:, None] * log_w)
    relative /= relative.mean(axis=1, keepdims=True)
    assert result.std_error == pytest.approx(np.sqrt((relative.var(axis=1) / 60).sum()), rel=1e-12)
    khat = [isdiag.pareto_khat(row, gamma=step) for row, step in zip(log_w, steps, strict=True)]
    assert result.khat == max(khat)
    # A set at 1 is not used, whatever it holds.
    more = np.vstack([log_w, np.full((1, 60), np.nan)])
    again = stepping_stone(more, [*gammas, 1.0])
    assert (again.estimate, again.std_error, again.khat) == (result.estimate, result.std_error, result.khat)
    assert again.status is Status.OK


def test_one_step_is_plain_importance_sampling_and_much_worse(rng):
    gammas = np.linspace(0, 1, 10, endpoint=False)
    log_w = draws(rng, gammas, 400, 5.0, 1.0, repeats=(100,))
    many = stepping_stone(log_w, gammas)
    # As many draws, all from mu.
    x = rng.normal(size=(100, 1, 4000))
    one = stepping_stone(normal(x, 5, 1) - normal(x, 0, 1), [0.0])
    plain = isdiag.snis((normal(x, 5, 1) - normal(x, 0, 1))[:, 0], x[:, 0])
    np.testing.assert_allclose(one.estimate, plain.log_z, rtol=1e-12)
    np.testing.assert_allclose(one.std_error, plain.log_z_std_error, rtol=1e-12)
    assert np.sqrt((one.estimate**2).mean()) > 10 * np.sqrt((many.estimate**2).mean())
    assert np.median(one.khat) > 0.7
    assert np.median(many.khat) < 0.5
    assert (many.status == Status.OK).all()


def test_log_z_of_a_support_that_mu_leaves():
    # mu uniform on (0, 1), target exp(-2 x) on (0, 1/4).
    rng = np.random.default_rng(3)
    gammas = np.linspace(0, 1, 5)
    truth = np.log((1 - np.exp(-0.5)) / 2)
    u = rng.uniform(size=(500, 5, 800))
    rate = np.where(gammas > 0, 2 * gammas, 1.0)[:, None]
    x = -np.log1p(-u * -np.expm1(-rate / 4)) / rate
    x[:, 0] = u[:, 0]
    log_w = np.where(x < 0.25, -2 * x, -np.inf)
    for function in (stepping_stone, thermodynamic):
        result = function(log_w, gammas)
        is_calibrated(result.estimate, result.std_error, truth)
        assert (result.status == Status.OK).all()
    # Only mu can draw where the target is zero.
    log_w[0, 2, 7] = -np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 500"):
        result = thermodynamic(log_w, gammas)
    assert np.isnan(result.estimate[0])
    assert np.isnan(result.std_error[0])
    assert not np.isnan(result.estimate[1:]).any()


@pytest.mark.parametrize("function", [stepping_stone, thermodynamic])
def test_paths_are_shifted_and_permuted(rng, function):
    gammas = np.array([0.0, 0.2, 0.6, 1.0])
    log_w = rng.normal(size=(2, 3, 4, 90))
    batch = function(log_w, gammas)
    order = rng.permutation(90)
    for other, off in (
        (function(log_w + 1e3, gammas), 1e3),
        (function(log_w[..., order], gammas), 0.0),
    ):
        np.testing.assert_allclose(other.estimate, batch.estimate + off, atol=1e-10)
        np.testing.assert_allclose(other.std_error, batch.std_error, rtol=1e-9)


@pytest.mark.parametrize("function", [stepping_stone, thermodynamic])
def test_sets_may_differ_in_size(rng, function):
    gammas = np.array([0.0, 0.5, 1.0])
    log_w = rng.normal(size=(3, 90))
    where = np.arange(90) < np.array([[90], [50], [70]])
    result = function(np.where(where, log_w, np.nan), gammas, where=where)
    twice = function(np.where(where, log_w, 77.0), gammas, where=where)
    assert (result.estimate, result.std_error) == (twice.estimate, twice.std_error)
    if function is thermodynamic:
        return
    parts = [logsumexp(0.5 * row[:m]) - np.log(m) for row, m in zip(log_w, (90, 50), strict=False)]
    assert result.estimate == pytest.approx(sum(parts), rel=1e-12)


def test_intervals_of_log_z_cover(rng):
    gammas, truth = np.linspace(0, 1, 5), 4.5  # from N(0, 1) to N(3, 1)
    log_w = 3.0 * (rng.normal(size=(300, 5, 100)) + 3.0 * gammas[:, None])
    for result in (stepping_stone(log_w, gammas), thermodynamic(log_w, gammas)):
        covers = (result.low <= truth) & (truth <= result.high)
        assert 0.92 < covers.mean() < 0.995
        assert covers[result.status == Status.OK].mean() > 0.92
    # In one step most of the target is out of reach, and twice the error says nothing of that.
    far = stepping_stone(log_w[:, [0, -1]], [0.0, 1.0])
    assert (np.abs(far.estimate - truth) < 1.96 * far.std_error).mean() < 0.7
    assert ((far.low <= truth) & (truth <= far.high)).mean() > 0.92
    assert (far.status != Status.OK).all()


def test_draws_behind_the_error_of_a_sum(rng):
    gammas = [0.0, 0.3, 1.0]
    log_w = rng.normal(size=(3, 200))
    result = stepping_stone(log_w, gammas)
    steps = [isdiag.log_moment(log_w[0], 0.3), isdiag.log_moment(log_w[1], 0.7)]
    variances = np.array([step.std_error**2 for step in steps])
    carried = np.array([step.error_draws for step in steps])
    assert result.estimate == pytest.approx(sum(step.estimate for step in steps), rel=1e-12)
    assert result.std_error == pytest.approx(np.sqrt(variances.sum()), rel=1e-12)
    assert result.error_draws == pytest.approx(
        variances.sum() ** 2 / (variances**2 / carried).sum(), rel=1e-12
    )


def test_the_worst_set_gives_the_status(rng):
    gammas = np.array([0.0, 0.2, 0.6, 1.0])
    log_w = rng.normal(size=(7, 4, 90))
    log_w[0, 1, 5] = np.nan
    log_w[1, 0] = -np.inf
    log_w[2] = 0.5
    log_w[3, 1] = 0.5
    log_w[4, 2, 1:] = -1e9
    log_w[5, 0, 0] = 1e4
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 7 rows") as caught:
        stone = stepping_stone(log_w, gammas)
    assert len(caught) == 1
    names = [Status(code).name for code in stone.status]
    # One draw that holds all the mass carries the error too, which says more than the tail.
    assert names == ["NOT_FINITE", "NO_WEIGHT", "FLAT", "OK", "ERROR_UNCERTAIN", "ERROR_UNCERTAIN", "OK"]
    assert np.isnan(stone.estimate[0])
    assert stone.estimate[1] == -np.inf
    assert (stone.estimate[2], stone.std_error[2], stone.khat[2]) == (0.5, 0.0, -np.inf)
    assert stone.khat[4] == np.inf
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 7 rows"):
        integral = thermodynamic(log_w, gammas)
    names = [Status(code).name for code in integral.status]
    assert names == ["NOT_FINITE", "NO_WEIGHT", "FLAT", "OK", "ERROR_UNCERTAIN", "ERROR_UNCERTAIN", "OK"]
    assert np.isnan(integral.estimate[:2]).all()
    assert (integral.estimate[2], integral.std_error[2]) == (0.5, 0.0)
    short = stepping_stone(log_w[6, :, :20], gammas)
    assert short.status is Status.ERROR_ROUGH
    assert np.isnan(short.khat)


def test_next_gamma_on_a_long_row(rng):
    log_w = 5 * rng.normal(size=1 << 20)
    gamma = next_gamma(log_w, 0.25)
    assert (1 << 19) <= isdiag.ess(log_w, gamma=gamma - 0.25) <= (1 << 19) * (1 + 1e-9)


def test_one_draw_a_set():
    log_w = np.array([[1.0], [2.0], [3.0]])
    result = thermodynamic(log_w, [0, 0.5, 1], rule="trapezoid")
    assert result.estimate == 2.0
    assert np.isnan(result.std_error)
    assert np.isnan(thermodynamic(log_w, [0, 0.5, 1]).estimate)
    assert stepping_stone(log_w, [0, 0.5, 1]).estimate == 1.5


@pytest.mark.parametrize("sd", [1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("sets", [9, 33])
@pytest.mark.parametrize("power", [1, 5])
def test_the_default_rule_is_not_the_worse_and_says_where_both_fail(rng, sd, sets, power):
    # From a prior N(0, sd**2) to the posterior after one observation of 3 with variance 1.
    gammas = np.linspace(0, 1, sets) ** power
    precision = 1.0 / sd**2 + gammas[:, None]
    draws = rng.normal(3.0 * gammas[:, None] / precision, precision**-0.5, size=(sets, 2000))
    log_w = -0.5 * (draws - 3.0) ** 2
    truth = -0.5 * np.log1p(sd**2) - 4.5 / (1.0 + sd**2)
    corrected, plain = thermodynamic(log_w, gammas), thermodynamic(log_w, gammas, rule="trapezoid")
    assert abs(corrected.estimate - truth) < abs(plain.estimate - truth) + 2.0 * corrected.std_error
    assert corrected.disagreement == pytest.approx(corrected.estimate - plain.estimate, abs=1e-9)
    assert plain.disagreement == corrected.disagreement
    for result in (corrected, plain):
        if abs(result.estimate - truth) > 5.0 * result.std_error:
            assert result.status is Status.ERROR_UNCERTAIN
    # Means that rise: no rule of integration may leave their range.
    assert log_w[0].mean() < corrected.estimate < log_w[-1].mean()


# ------------------------------------------------------------------------------------ weighted particles


def ess_share(log_weights):
    return isdiag.ess(log_weights) / log_weights.size


def test_weighted_particles_keep_the_ess_that_was_asked_for(rng):
    for _ in range(20):
        log_w, before = 5 * rng.normal(size=2000), 0.5 * rng.normal(size=2000)
        gamma = rng.uniform(0, 0.5)
        after = isdiag.next_gamma(log_w, gamma, log_weights=before)
        found = ess_share(before + (after - gamma) * log_w)
        assert after == 1.0 or 0 <= found - 0.5 < 1e-10
        # Without them the ESS of what the particles then weigh is another.
        blind = isdiag.next_gamma(log_w, gamma)
        assert ess_share(before + (blind - gamma) * log_w) < 0.48


def test_equal_weights_make_no_difference(rng):
    log_w = 10.0 ** rng.integers(-3, 12, size=(8, 1)) * rng.normal(size=(8, 500))
    plain = isdiag.next_gamma(log_w)
    np.testing.assert_allclose(
        isdiag.next_gamma(log_w, log_weights=np.full((8, 500), -7.0)), plain, rtol=1e-9
    )


def test_weighted_particles_that_cannot_go_on(rng):
    log_w, poor = rng.normal(size=500), 3 * rng.normal(size=500)
    assert isdiag.next_gamma(log_w, 0.25, log_weights=poor) == 0.25
    assert isdiag.next_gamma(log_w, log_weights=-log_w) == 1.0  # equal weights in the end
    assert isdiag.next_gamma(log_w, log_weights=poor, ess_min=0.0) == 1.0
    with np.errstate(divide="ignore"):
        zeros = np.where(np.arange(500) < 200, 0.0, -np.inf)
    assert isdiag.next_gamma(log_w, log_weights=zeros) == 0.0
    step = isdiag.next_gamma(5 * log_w, log_weights=zeros, ess_min=0.2)
    assert isdiag.ess(zeros + step * 5 * log_w) == pytest.approx(100, rel=1e-9)
    assert np.isnan(isdiag.next_gamma(np.where(zeros == 0.0, -np.inf, log_w), log_weights=zeros))
    bad = np.where(np.arange(500) == 3, np.nan, 0.0)
    with pytest.warns(isdiag.NonFiniteWarning):
        assert np.isnan(isdiag.next_gamma(log_w, log_weights=bad))


def test_a_sampler_with_weights_finds_the_normalising_constant(rng):
    # From N(0, 1) to exp(3 x) times it: log Z = 4.5. Two steps between resamplings.
    estimates = []
    for _ in range(40):
        x, log_weights, gamma, log_z = rng.normal(size=500), np.zeros(500), 0.0, 0.0
        while gamma < 1:
            ess_min = 0.8 if isdiag.ess(log_weights) > 499 else 0.5
            after = isdiag.next_gamma(3 * x, gamma, log_weights=log_weights, ess_min=ess_min)
            log_v = log_weights + (after - gamma) * 3 * x
            log_z += np.logaddexp.reduce(log_v) - np.logaddexp.reduce(log_weights)
            log_weights, gamma = log_v, after
            if isdiag.ess(log_weights) < 0.6 * 500:
                x, log_weights = x[isdiag.resample(log_weights, rng=rng)], np.zeros(500)
                x = 3 * gamma + 0.6 * (x - 3 * gamma) + 0.8 * rng.normal(size=500)  # keeps N(3 gamma, 1)
        estimates.append(log_z)
    assert abs(np.mean(estimates) - 4.5) < 4 * np.std(estimates) / np.sqrt(40) + 0.02
