"""What a khat says of the tail index, and whether the tail is one that it can be of."""

import numpy as np
import pytest
from scipy import stats

import isdiag
from isdiag import Status
from tests import naive


@pytest.mark.parametrize("k", [0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("m", [6, 20, 94, 300])
def test_khat_interval_covers_the_tail_index(rng, m, k):
    uniform = rng.random((1000, m))
    excesses = -np.log(uniform) if k == 0.0 else (uniform**-k - 1.0) / k
    low, high = isdiag.khat_interval(isdiag.gpd_fit(excesses).k, m)
    covered = np.mean((low <= k) & (k <= high))
    # 3000 repeats gave .93 to .99; four standard errors of 1000 are .032 at .93.
    assert covered >= 0.90


def test_khat_interval_takes_the_prior_off_and_widens_by_ratios():
    # khat = (m k + 5) / (m + 10); the ends plus 1: (1 + k) over 1 + z / sqrt(m), and over 1 - z / sqrt(m).
    m, k, z = 94, 0.8, 1.959963984540054
    low, high = isdiag.khat_interval((m * k + 5.0) / (m + 10.0), m)
    assert low == pytest.approx((1.0 + k) / (1.0 + z / np.sqrt(m)) - 1.0, rel=1e-12)
    assert high == pytest.approx((1.0 + k) / (1.0 - z / np.sqrt(m)) - 1.0, rel=1e-12)


def test_khat_interval_at_its_edges():
    assert isdiag.khat_interval(np.nan, 50) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert isdiag.khat_interval(np.inf, 50) == (np.inf, np.inf)
    assert isdiag.khat_interval(-np.inf, 50) == (-np.inf, -np.inf)
    low, high = isdiag.khat_interval([0.2, 0.7], [6, 600], level=0.999)
    assert high[0] == np.inf  # six draws
    assert low[1] < 0.7 < high[1] < np.inf
    with pytest.raises(ValueError, match="tail_length"):
        isdiag.khat_interval(0.5, 5)
    with pytest.raises(ValueError, match="level"):
        isdiag.khat_interval(0.5, 50, level=1.0)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (isdiag.khat_interval, "khat and tail_length"),
        (isdiag.tail_length, "n and r_eff"),
        (isdiag.convergence_rate, "khat and n"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(function, names):
    with pytest.raises(ValueError, match=rf"{names} must have shapes that broadcast, got \(2,\) and \(3,\)"):
        function([10.0, 20.0], [10.0, 20.0, 30.0])


# ------------------------------------------------------------------------------- tails that do not fit


def greedy_policy(rng, shape):
    """Log-weights, rewards and their mean under a policy that mostly takes the best of ten actions.

    Actions are drawn by one that takes its own favourite in 8 of 10 cases, mostly the same one.
    """
    fixed = np.random.default_rng(3)
    contexts, every = 400, np.arange(400)
    best = fixed.integers(10, size=contexts)
    favourite = np.where(fixed.random(contexts) < 0.9, best, fixed.integers(10, size=contexts))
    rest = np.exp(fixed.normal(size=(contexts, 10)))
    mu, pi = 0.2 * rest / rest.sum(axis=1, keepdims=True), np.full((contexts, 10), 0.01)
    mu[every, favourite] += 0.8
    pi[every, best] += 0.9
    reward = 0.5 * fixed.random((contexts, 10))
    reward[every, best] += 0.5
    context = rng.integers(contexts, size=shape)
    action = (rng.random((*shape, 1)) > mu.cumsum(axis=1)[context]).sum(axis=-1).clip(max=9)
    return np.log(pi / mu)[context, action], reward[context, action], (pi * reward).sum(axis=1).mean()


def mixtures(rng, shape):
    normal = rng.normal(size=shape)
    return {
        "a level beside noise": np.where(rng.random(shape) < 0.05, 4.0, 0.0) + 0.3 * normal,
        "counts": rng.poisson(3.0, size=shape) * np.log(2.0) + 1e-7 * normal,
        "levels": np.log(rng.choice([0.2, 1.0, 4.0], p=[0.7, 0.25, 0.05], size=shape)) + 1e-3 * normal,
    }


def pareto_like(rng, shape):
    normal = rng.normal(size=shape)
    laws = {f"Pareto {k}": k * rng.exponential(size=shape) for k in (0.3, 0.7, 1.2)}
    laws |= {f"bounded {k}": np.log1p(-(rng.random(shape) ** -k)) for k in (-0.5, -0.2)}
    laws |= {f"log-normal {s}": s * normal for s in (0.3, 1.0, 2.0)}
    for of, to in ((5, 3), (10, 3), (3, 5), (3, 10)):
        x = rng.standard_t(of, size=shape)
        laws[f"t{of} to t{to}"] = stats.t.logpdf(x, to) - stats.t.logpdf(x, of)
    return laws


def test_a_poor_fit_is_far_by_the_distance_of_the_twin(rng):
    for name, log_w in (mixtures(rng, (30, 400)) | pareto_like(rng, (10, 400))).items():
        found = isdiag.psis(log_w)
        expected = [naive.fits_poorly(row, int(found.tail_length[0])) for row in log_w]
        np.testing.assert_array_equal(found.status == Status.POOR_TAIL_FIT, expected, err_msg=name)


@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_tails_like_a_pareto_law_fit(rng, n):
    # Of 60 laws and sizes with 60 to 2000 samples each the most was .7 %.
    repeats = 200_000 // n
    for name, log_w in pareto_like(rng, (repeats, n)).items():
        alarms = np.mean(isdiag.psis(log_w).status == Status.POOR_TAIL_FIT)
        assert alarms <= 0.02 + 2 * np.sqrt(0.02 / repeats), name


def test_mixtures_of_levels_do_not_fit(rng):
    for name, log_w in mixtures(rng, (50, 1000)).items():
        assert np.mean(isdiag.psis(log_w).status == Status.POOR_TAIL_FIT) >= 0.95, name


def test_a_greedy_policy_is_evaluated_by_auto_and_not_by_psis(rng):
    log_w, reward, truth = greedy_policy(rng, (20, 20_000))
    assert np.mean(isdiag.psis(log_w).status == Status.POOR_TAIL_FIT) >= 0.9
    plain, smoothed, auto = (
        np.sqrt(np.mean((isdiag.snis(log_w, reward, smooth=how).estimate - truth) ** 2))
        for how in (False, "psis", "auto")
    )
    assert smoothed > 3.0 * plain
    assert auto < 1.1 * plain


def test_every_function_that_fits_a_tail_says_that_it_does_not_fit(rng):
    log_w = mixtures(rng, 1000)["a level beside noise"]
    for found in (
        isdiag.psis(log_w),
        isdiag.truncate(log_w),
        isdiag.select_gamma(log_w),
        isdiag.select_gamma(log_w, rule="refit"),
        isdiag.finite_variance_test(log_w),
        isdiag.Summary.of(log_w).select_gamma(),
    ):
        assert found.status is Status.POOR_TAIL_FIT
    binary = rng.random(1000) < 0.5
    assert isdiag.snis(0.3 * log_w, binary).status is Status.POOR_TAIL_FIT
    # ESS is .85 of n, and khat 1.9: it speaks neither for nor against an estimate.
    diagnosis = isdiag.diagnose(0.3 * log_w)
    assert diagnosis.status is Status.POOR_TAIL_FIT
    assert diagnosis.khat > 1.0
    assert (diagnosis.verdict, diagnosis.ok) == ("unknown", False)
    assert "behind the error" in str(diagnosis)


def test_auto_smooths_where_the_tail_fits_and_cuts_where_it_does_not(rng):
    rows = np.stack(
        [
            rng.normal(size=1000),
            mixtures(rng, 1000)["a level beside noise"],
            np.round(rng.normal(size=1000)),
            np.zeros(1000),
            np.where(np.arange(1000) < 15, rng.normal(size=1000), -np.inf),
        ]
    )
    h = rng.normal(size=rows.shape)
    found, smoothed, cut = (isdiag.snis(rows, h, smooth=how) for how in ("auto", "psis", "truncate"))
    codes = [Status.OK, Status.POOR_TAIL_FIT, Status.DEGENERATE_TAIL, Status.FLAT]
    assert isdiag.psis(rows[:4]).status.tolist() == codes
    expected = np.where([True, False, False, True, True], smoothed.estimate, cut.estimate)
    np.testing.assert_array_equal(found.estimate, expected)
    assert smoothed.estimate[1] != cut.estimate[1]
