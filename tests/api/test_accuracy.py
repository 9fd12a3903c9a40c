"""The rule "mse", its error model, and what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isdiag
from isdiag import Status, _kernels
from isdiag._core.boundary import rows_of
from isdiag._core.tails import lengths_of
from isdiag._kernels.records import LEAST_ERROR, ON_CURVE, TRUNCATED
from tests import naive
from tests.registry import log_normal


def mse(log_w, h, **options):
    return isdiag.select_gamma(log_w, rule="mse", h=h, **options)


def caps(log_w):
    rows = rows_of(log_w, -1, None)
    h = np.zeros(rows.values.shape)
    h.flags.writeable = False
    found, points = np.empty((len(rows), 1), LEAST_ERROR), np.empty((len(rows), 1, 1), ON_CURVE)
    truncated, influence = np.empty(len(rows), TRUNCATED), np.empty((len(rows), 1, 0))
    by_row = (rows.values, rows.n, lengths_of(rows), h, h[:, :1], truncated, found, points, influence)
    _kernels.least_error_rows(*by_row, np.ones(1), rows.eps)
    return truncated["cap"]


# ------------------------------------------------------------------------------------- naive twins


@pytest.mark.parametrize("n", [40, 64, 333, 1024, 5000])
@pytest.mark.parametrize("s", [0.3, 1.0, 2.5])
def test_estimate_is_that_of_the_naive_twin(rng, n, s):
    x, log_w = log_normal(rng, (4, n), s)
    for h in (x, x**2, (x > 1).astype(float), 1e3 + rng.normal(size=x.shape)):
        found = mse(log_w, h)
        for r in range(4):
            level = naive.truncation_level(log_w[r])
            assert caps(log_w)[r] == pytest.approx(level, abs=1e-8)
            expected = naive.least_error(log_w[r], h[r], level)
            got = (found.estimate[r], found.std_error[r], found.bias[r])
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


def test_heavy_and_exact_pareto_tails_agree_with_the_twin(rng):
    log_w = np.array([[0.3], [0.6], [0.9], [1.5]]) * rng.exponential(size=(4, 800))
    for r, level in enumerate(caps(log_w)):
        assert level == pytest.approx(naive.truncation_level(log_w[r]), abs=1e-8)


def test_a_far_mode_is_not_cut_and_a_single_outlier_is(rng):
    log_w = rng.normal(size=2500)
    log_w[:8] = 7.0 + 0.1 * rng.normal(size=8)
    assert caps(log_w)[0] > np.log(np.exp(log_w).mean() * 50) - 1e-12
    log_w[1:8] = 0.0
    assert caps(log_w)[0] < np.log(np.exp(log_w).mean() * 50) - 0.3


def test_ties_are_spread_over_their_level(rng):
    # Of a lattice the fit sees the slope: shifting each draw within its cell hardly moves the cap, and
    # the fit without spreading would fail on it.
    smooth = rng.exponential(size=1500)
    lattice = np.ceil(smooth)
    assert isdiag.pareto_khat(0.5 * lattice) == np.inf
    assert caps(0.5 * lattice)[0] == pytest.approx(caps(0.5 * smooth)[0], abs=0.5)


def test_rounding_noise_does_not_make_levels(rng):
    lattice = np.ceil(rng.exponential(size=2000) * 4) / 8
    noise = 1e-13 * rng.normal(size=2000)
    assert caps(lattice + noise)[0] == pytest.approx(caps(lattice)[0], abs=1e-6)


@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_draws_that_share_the_top_are_hardly_cut(rng, jitter):
    # Ten draws in ten thousand of a rare level: cut by sqrt(n) their weight would be a third of what it is.
    level, n = np.log(430.0), 10_000
    log_w = np.zeros(n)
    log_w[:10] = level + jitter * rng.normal(size=10)
    ionides = np.log(np.exp(log_w).mean() * np.sqrt(n))
    assert level - ionides > 1.0
    assert caps(log_w)[0] == pytest.approx(level - 0.1 * (level - ionides), abs=0.02)
    rare = (log_w > 1).astype(float)
    plain = isdiag.snis(log_w, rare).estimate
    assert mse(log_w, rare).estimate == pytest.approx(plain, rel=0.1)
    assert isdiag.snis(log_w, rare, smooth="truncate").estimate < 0.5 * plain


# ------------------------------------------------------------------------------------- invariants


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 300),
    st.floats(0.01, 5),
    st.sampled_from([-1000.0, -8.0, 0.0, 0.5, 64.0, 500.0]),
    st.integers(0, 2**32 - 1),
)
def test_shift_permutation_and_affine_maps_of_h(n, s, shift, seed):
    rng = np.random.default_rng(seed)
    log_w, h = s * rng.normal(size=n), rng.normal(size=n)
    kept = log_w.copy(), h.copy()
    found = mse(log_w, h)
    np.testing.assert_array_equal(log_w, kept[0])
    np.testing.assert_array_equal(h, kept[1])
    moved = mse(log_w + shift, h)
    order = rng.permutation(n)
    shuffled = mse(log_w[order], h[order])
    scaled = mse(log_w, 3.0 - 2.0 * h)
    close = {"rel": 1e-6, "abs": 1e-9}
    assert moved.estimate == pytest.approx(found.estimate, **close)
    assert shuffled.estimate == pytest.approx(found.estimate, **close)
    assert scaled.estimate == pytest.approx(3.0 - 2.0 * found.estimate, **close)
    assert scaled.std_error == pytest.approx(2.0 * found.std_error, **close)
    low, high = h.min(), h.max()
    assert found.std_error >= 0
    assert low - 10 * (high - low) <= found.estimate <= high + 10 * (high - low)


def test_equal_weights_give_the_mean(rng):
    h = rng.normal(size=500)
    found = mse(np.zeros(500), h)
    assert found.estimate == pytest.approx(h.mean(), abs=1e-12)
    assert found.status is Status.FLAT


def test_vectors_are_estimated_component_by_component(rng):
    x, log_w = log_normal(rng, (3, 400), 1.0)
    h = np.stack([x, x**2, np.sin(x)], axis=-1)
    together = mse(log_w, h)
    assert together.estimate.shape == (3, 3)
    assert together.gamma.shape == (3,)
    assert together.status.shape == (3, 3)
    for j in range(3):
        alone = mse(log_w, h[..., j])
        np.testing.assert_array_equal(together.estimate[:, j], alone.estimate)
        np.testing.assert_array_equal(together.status[:, j], alone.status)


def test_h_is_not_looked_at_where_the_weight_is_zero(rng):
    x, log_w = log_normal(rng, 300)
    log_w[:50], x[:50] = -np.inf, np.nan
    assert np.isfinite(mse(log_w, x).estimate)


def test_float32_and_boolean_h(rng):
    x, log_w = log_normal(rng, (1, 500), 1.0)
    assert mse(log_w[0], x[0] > 1).estimate == mse(log_w[0], (x[0] > 1).astype(float)).estimate
    single = x[0].astype(np.float32)
    assert mse(log_w[0], single).estimate == mse(log_w[0], single.astype(float)).estimate


# ------------------------------------------------------------------------------- edges and statuses


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 29, 30])
def test_few_draws_give_numbers_and_a_status(rng, n):
    log_w, x = rng.normal(size=n), rng.normal(size=n)
    found = mse(log_w, x)
    assert np.isfinite(found.estimate)
    assert x.min() - 10 <= found.estimate <= x.max() + 10
    assert found.status != Status.OK


@pytest.mark.parametrize(
    "log_w",
    [
        np.r_[800.0, np.zeros(99)],
        np.r_[np.zeros(50), np.full(50, -np.inf)],
        np.linspace(-1e300, 1e300, 100),
        np.linspace(-1e5, 0, 100),
        np.r_[0.0, np.full(99, -np.inf)],
        1e-14 * np.arange(100.0),
    ],
)
def test_extreme_weights_are_survived(log_w):
    h = np.arange(100.0)
    found = mse(log_w, h)
    assert 0 <= found.estimate <= 99
    assert found.std_error >= 0


def test_h_that_is_not_finite_where_it_counts_makes_its_estimate_nan(rng):
    x, log_w = log_normal(rng, (2, 200), 0.5)
    clean = mse(log_w, x)
    x[0, 3] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 2 rows have an h that is not finite") as caught:
        found = mse(log_w, x)
    assert len(caught) == 1
    assert np.isnan(found.estimate[0])
    assert np.isnan(found.gamma[0])
    assert found.status.tolist() == [Status.NOT_FINITE_H, clean.status[1]]
    assert found.estimate[1] == clean.estimate[1]


def test_constant_h_is_exact_and_says_so(rng):
    found = mse(rng.normal(size=500), np.full(500, 3.0))
    assert found.estimate == pytest.approx(3.0, rel=1e-12)
    assert found.status == Status.CONSTANT_H


def test_status_tells_few_draws_from_many(rng):
    x, log_w = log_normal(rng, (1, 5000), 0.3)
    assert mse(log_w[0], x[0]).status == Status.OK
    x, log_w = log_normal(rng, (1, 200), 2.5)
    assert mse(log_w[0], x[0]).status == Status.ERROR_UNCERTAIN


def test_h_is_for_this_rule_and_for_no_other():
    with pytest.raises(ValueError, match="needs h"):
        isdiag.select_gamma(np.zeros(50), rule="mse")
    with pytest.raises(ValueError, match="h is for"):
        isdiag.select_gamma(np.zeros(50), h=np.zeros(50))


def test_diagnose_takes_the_rule(rng):
    x, log_w = log_normal(rng, (1, 500), 1.0)
    assert isdiag.diagnose(log_w[0], x[0], rule="mse").selection.estimate == mse(log_w[0], x[0]).estimate
    diagnosis = isdiag.diagnose(0.3 * log_w[0], x[0], rule="mse")
    best = diagnosis.selection
    assert f"of least error   {best.estimate:.6g} +- {best.std_error:.2g}" in str(diagnosis)
    assert diagnosis.to_dict()["least_error"]["mse"] == best.mse


def test_a_verdict_on_h_minds_its_error(rng):
    log_w = 0.3 * rng.normal(size=300)
    assert isdiag.diagnose(log_w).ok
    diagnosis = isdiag.diagnose(log_w, np.arange(300) < 3, rule="mse")
    assert diagnosis.status == Status.ERROR_UNCERTAIN
    assert diagnosis.verdict == "rough"
    assert not diagnosis.ok
    assert "Fewer than 6" in diagnosis.to_dict()["advice"]


# ---------------------------------------------------------------------------------- the error model


def test_curve_is_made_of_tempered_estimates(rng):
    x, log_w = log_normal(rng, (3, 400), 1.0)
    gammas = [0.0, 0.3, 1.0]
    curve = isdiag.mse_curve(log_w, x, gammas)
    assert curve.estimate.shape == (3, 3)
    for i, gamma in enumerate(gammas):
        plain = isdiag.snis(log_w, x, gamma=gamma)
        np.testing.assert_allclose(curve.estimate[:, i], plain.estimate, rtol=1e-12)
        np.testing.assert_allclose(curve.std_error[:, i], plain.std_error, rtol=1e-12)
        np.testing.assert_allclose(curve.bias[:, i], plain.bias, rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(curve.reference, mse(log_w, x).estimate)
    np.testing.assert_allclose(curve.tempering_bias, curve.estimate - curve.reference[:, None], rtol=1e-9)


def test_evenly_spaced_gammas_give_what_each_gives_alone(rng):
    x, log_w = log_normal(rng, (2, 700), 4.0)
    log_w[0, :3] -= 900.0  # at larger gammas it is nothing
    whole = isdiag.mse_curve(log_w, x)
    for i, gamma in enumerate(whole.gamma):
        alone = isdiag.mse_curve(log_w, x, [gamma])
        for name in ("estimate", "std_error", "bias", "mse", "tempering_bias", "tempering_bias_std_error"):
            found, expected = getattr(whole, name)[:, i], getattr(alone, name)[:, 0]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13, err_msg=name)


def test_gamma_is_the_least_of_the_curve(rng):
    x, log_w = log_normal(rng, (6, 100), 2.0)
    found = mse(log_w, x, gamma_max=0.8)
    curve = isdiag.mse_curve(log_w, x, 0.1 * np.arange(1, 9))
    np.testing.assert_allclose(found.gamma, curve.gamma[curve.mse.argmin(axis=1)], rtol=1e-12)
    assert set(found.limited_by) <= {"mse", "max"}
    tempered = isdiag.pareto_khat(log_w, gamma=found.gamma)
    np.testing.assert_array_equal(found.khat_tempered, tempered)
    np.testing.assert_allclose(found.ess, isdiag.ess(log_w, gamma=found.gamma), rtol=1e-13)


def test_error_of_the_difference_is_calibrated():
    # (est_gamma - reference) over its error has about unit spread around the true bias of tempering; it is
    # 1.2 as the shares of the steps, taken as given, vary too.
    rng = np.random.default_rng(3)
    x, log_w = log_normal(rng, (2000, 400), 0.7)
    curve = isdiag.mse_curve(log_w, x, [0.5])
    off = curve.tempering_bias - isdiag.lognormal.tempering_bias(0.5, 0.7)
    error = off / curve.tempering_bias_std_error
    assert 0.85 < error.std() < 1.3


@pytest.mark.parametrize("gammas", [[], [-0.1], [np.nan], [np.inf], [[0.5]]])
def test_wrong_gammas(gammas):
    with pytest.raises(ValueError, match="gammas must be"):
        isdiag.mse_curve([0.0, 1.0], [0.0, 1.0], gammas)


# -------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("question", ["linear", "indicator", "squared"])
@pytest.mark.parametrize(("s", "n"), [(0.5, 200), (0.5, 1000), (0.8, 1000)])
def test_reported_error_is_the_true_one(question, s, n):
    rng = np.random.default_rng(11)
    x, log_w = log_normal(rng, (1500, n), s)
    h = {"linear": x, "indicator": x > 1, "squared": x**2}[question]
    found = mse(log_w, h)
    ratio = found.std_error.mean() / found.estimate.std()
    assert 0.9 < ratio < 1.15
    assert 0.85 < found.mse.mean() / np.mean((found.estimate - truth(question, s)) ** 2) < 1.3


def truth(question, s):
    from scipy.stats import norm

    return {"linear": s, "indicator": norm.sf(1 - s), "squared": 1 + s**2}[question]


@pytest.mark.parametrize("s", [1.0, 2.0])
def test_linear_h_of_log_normal_weights_beats_every_peer(s):
    # The mean is linear in gamma: the first step of the path is exact.
    rng = np.random.default_rng(5)
    x, log_w = log_normal(rng, (400, 1000), s)

    def rmse(estimate):
        return np.sqrt(np.mean((estimate - s) ** 2))

    peers = [rmse(isdiag.snis(log_w, x, smooth=smooth).estimate) for smooth in (False, "truncate", "psis")]
    assert rmse(mse(log_w, x).estimate) < 0.97 * min(peers)
    if s == 2.0:  # what is chosen for stability costs accuracy
        joint = isdiag.select_gamma(log_w).gamma
        assert rmse(isdiag.snis(log_w, x, gamma=joint).estimate) > 3 * min(peers)


def test_mse_is_that_of_the_estimate_and_bias_its_own(rng):
    # Six times 3000 repeats gave 1.15 to 1.27, .72 to .74 and .77 to .87.
    x, log_w = log_normal(rng, (3000, 200), 1.5)
    found = mse(log_w, x)
    off = found.estimate - 1.5
    rmse = np.sqrt(np.mean(off**2))
    assert 0.95 < np.sqrt(found.mse.mean()) / rmse < 1.4
    assert np.sqrt(np.mean(found.std_error**2)) < 0.85 * rmse
    assert 0.5 < found.bias.mean() / off.mean() < 1.1
    plain = isdiag.snis(log_w, x)
    np.testing.assert_allclose(
        found.bias, found.estimate - plain.estimate + plain.bias, rtol=1e-7, atol=1e-12
    )
    np.testing.assert_allclose(found.mse, found.std_error**2 + found.bias**2, rtol=1e-12)
