"""Estimates, their error, and the two forms of the bias."""

import numpy as np
import pytest
from scipy import stats

import isdiag
from tests import naive
from tests.registry import log_normal


@pytest.mark.parametrize(("power", "truth", "printed"), [(1, 1.0, -0.0050), (2, 2.0, -0.0050)])
def test_bias_against_simulation(power, truth, printed):
    # C1 of the theory: log w = -1/2 + x, n = 200. Simulated -0.0125 for h = x, -0.0379 for h = x^2.
    rng = np.random.default_rng(101)
    x, log_w = log_normal(rng, (100_000, 200))
    h, w = x**power, np.exp(log_w)
    estimate = (w * h).sum(1) / w.sum(1)
    # The linear part of the error, mean(w (h - truth)), has mean 0 exactly: without it the simulation
    # is ten times sharper.
    residual = estimate - truth - (w * (h - truth)).mean(1)
    simulated = residual.mean()
    assert abs(simulated) > 50 * residual.std() / np.sqrt(residual.size)
    corrected = isdiag.kong_owen_bias(log_w, h).mean()
    assert corrected == pytest.approx(simulated, rel=0.15)
    # The seed's form is -cov_mu(w, h) / (n E[w]) = -(E_pi[h] - E_mu[h]) / n, far too small.
    proposal = isdiag.kong_owen_bias(log_w, h, covariance="proposal").mean()
    assert proposal == pytest.approx(printed, rel=0.05)


def test_two_forms_of_the_corrected_bias_agree(rng):
    log_w, h = rng.normal(size=(5, 300)), rng.normal(size=(5, 300))
    for gamma in (0.3, 1.0):
        difference = (
            isdiag.snis(log_w, h, gamma=gamma).estimate - isdiag.snis(log_w, h, gamma=2 * gamma).estimate
        )
        expected = difference / isdiag.ess(log_w, gamma=gamma)
        np.testing.assert_allclose(isdiag.kong_owen_bias(log_w, h, gamma=gamma), expected, rtol=1e-10)
        np.testing.assert_array_equal(
            isdiag.kong_owen_bias(log_w, h, gamma=gamma), isdiag.snis(log_w, h, gamma=gamma).bias
        )


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_printed_form_is_a_covariance_under_the_proposal(rng, gamma):
    log_w, h = rng.normal(size=400), rng.normal(size=400)
    where = rng.uniform(size=400) < 0.8
    h[~where] = np.nan
    w = np.exp(gamma * log_w[where])
    covariance = np.cov(w, h[where], bias=True)[0, 1]
    expected = -covariance / (where.sum() * w.mean())
    got = isdiag.kong_owen_bias(log_w, h, gamma=gamma, covariance="proposal", where=where)
    assert got == pytest.approx(expected, rel=1e-10)


def test_standard_error_is_the_spread_of_the_estimate():
    rng = np.random.default_rng(5)
    x, log_w = log_normal(rng, (4000, 400), s=0.7)
    result = isdiag.snis(log_w, x)
    assert result.std_error.mean() == pytest.approx(result.estimate.std(), rel=0.05)
    covered = np.abs(result.estimate - 0.7) < 1.96 * result.std_error
    assert 0.93 < covered.mean() < 0.97


def test_constant_h_has_no_error(heavy):
    result = isdiag.snis(heavy, np.full(heavy.size, 3.0))
    assert result.estimate == pytest.approx(3.0, rel=1e-15)
    assert abs(result.std_error) < 1e-14
    assert abs(result.bias) < 1e-14


def test_gamma_zero_is_the_mean_over_draws_of_positive_weight(rng):
    log_w, h = rng.normal(size=50), rng.normal(size=50)
    log_w[:10] = -np.inf
    assert isdiag.snis(log_w, h, gamma=0.0).estimate == pytest.approx(h[10:].mean(), rel=1e-14)


def test_smoothed_weights_are_those_of_psis(heavy, rng):
    h = rng.normal(size=heavy.size)
    for gamma in (0.5, 1.0):
        smoothed = isdiag.psis(gamma * heavy)
        result = isdiag.snis(heavy, h, gamma=gamma, smooth=True)
        assert result.estimate == pytest.approx(np.sum(np.exp(smoothed.log_weights) * h), rel=1e-12)
        assert result.khat == pytest.approx(smoothed.khat, rel=1e-12)
        assert result.ess == pytest.approx(smoothed.ess, rel=1e-12)
        expected = naive.snis(smoothed.log_weights, h)
        np.testing.assert_allclose(
            [result.estimate, result.std_error, result.bias], expected, rtol=1e-9, atol=1e-12
        )


def test_rescued_by_smoothing_keeps_the_raw_khat(rng):
    # loo's truncated weights report khat 0; smoothed ones here carry the khat that warns.
    log_w = 1.2 * rng.exponential(size=2000)
    assert isdiag.snis(log_w, log_w, smooth=True).khat == isdiag.pareto_khat(log_w) > 0.7


def test_diagnose_estimates_at_both_gammas(rng):
    log_w = rng.normal(scale=3.0, size=(2, 500))
    log_w[1] = np.nan
    h = rng.normal(size=(2, 500))
    with pytest.warns(isdiag.NonFiniteWarning):
        diagnosis = isdiag.diagnose(log_w, h)
    first = isdiag.snis(log_w[0], h[0])
    chosen = isdiag.select_gamma(log_w[0])
    tempered = isdiag.snis(log_w[0], h[0], gamma=chosen.gamma)
    assert diagnosis.estimate.estimate[0] == first.estimate
    assert diagnosis.estimate_tempered.estimate[0] == tempered.estimate
    assert np.isnan(diagnosis.estimate_tempered.estimate[1])
    text = str(isdiag.diagnose(log_w[0], h[0]))
    assert f"mean of h        {first.estimate:.6g} +- {first.std_error:.2g}, 95 %" in text
    assert f"mean at gamma    {tempered.estimate:.6g} +- {tempered.std_error:.2g}" in text
    estimates, step = text.split("step: gamma")
    assert "emper" not in estimates
    assert "target" in step
    assert diagnosis.to_dict()["estimate"]["estimate"][0] == first.estimate
    assert "another target" not in str(isdiag.diagnose(0.1 * log_w[0], h[0]))  # gamma is 1


# ------------------------------------------------------------------- how much is known of the error


def error_draws(log_w, h, gamma=1.0):
    w = np.where(log_w > -np.inf, np.exp(gamma * np.maximum(log_w - log_w.max(), -1e3)), 0.0)
    w /= w.sum()
    squares = w**2 * (h - np.sum(w * h)) ** 2
    return squares.sum() ** 2 / np.sum(squares**2)


@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("n", [2, 7, 1000])
def test_error_draws_against_naive(rng, n, gamma):
    log_w, h = rng.normal(size=(4, n)), rng.normal(size=(4, n))
    log_w[0, -1] = -np.inf if n > 2 else 0.0
    h[1] = h[1] > 0 if n > 2 else h[1]
    found = isdiag.snis(log_w, h, gamma=gamma).error_draws
    expected = [error_draws(row, values, gamma) for row, values in zip(log_w, h, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_error_draws_survive_a_large_offset_of_h(rng, scale):
    log_w, h = rng.normal(scale=scale, size=1000), 1e8 + rng.normal(size=1000)
    result = isdiag.snis(log_w, h)
    estimate, std_error, _ = naive.snis(log_w, h - 1e8)
    assert result.estimate - 1e8 == pytest.approx(estimate, abs=1e-7)
    assert result.std_error == pytest.approx(std_error, rel=1e-6)
    assert result.error_draws == pytest.approx(error_draws(log_w, h - 1e8), rel=1e-6)


def test_error_draws_where_the_largest_weight_sits_far_off(rng):
    # Sums run about h at the largest weight, here far from the estimate.
    log_w, h = 0.01 * rng.normal(size=1000), rng.normal(size=1000)
    h[np.argmax(log_w)] = 50.0
    assert isdiag.snis(log_w, h).error_draws == pytest.approx(error_draws(log_w, h), rel=1e-9)


def widened(df):
    return stats.t.ppf(0.975, df) * (1 + 2 / df)


def spread(result):
    """How much wider an interval is by what the weights are."""
    khat = np.where(np.isfinite(result.khat), np.clip(result.khat, 0.5, None), 0.5)
    return 1 / (2 * (1 - khat)) / np.sqrt(1 - 4 * result.log_z_std_error**2)


def test_interval_is_halls_by_satterthwaite(rng):
    log_w, h = rng.normal(scale=[[0.1], [1.0], [1.7]], size=(3, 500)), rng.normal(size=(3, 500))
    for smooth in (False, "psis", "truncate"):
        result = isdiag.snis(log_w, h, smooth=smooth)
        used = isdiag.psis(log_w).log_weights if smooth == "psis" else log_w
        w = np.exp(used - used.max(axis=1, keepdims=True))
        if smooth == "truncate":
            w = np.minimum(w, np.sqrt(500) * w.mean(axis=1, keepdims=True))
        f = w / w.sum(axis=1, keepdims=True) * (h - result.estimate[:, None])
        g = (f**3).sum(axis=1) / (f**2).sum(axis=1) ** 1.5
        x = widened(np.clip(2 / (1 / result.error_draws - 1 / 500), 1, 499))
        for end, wanted in ((result.low, x), (result.high, -x)):
            t = (result.estimate - end) / result.std_error / spread(result)
            np.testing.assert_allclose(t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6, wanted, rtol=1e-7)


def test_skewness_is_taken_about_the_estimate_in_any_units(rng):
    log_w, h = rng.normal(size=(3, 500)), rng.exponential(size=(3, 500))
    base = isdiag.snis(log_w, h)
    for scale, origin in ((1e-90, 0.0), (1e90, 0.0), (1.0, 2.0**20)):
        moved = isdiag.snis(log_w, scale * h + origin)
        for name in ("low", "high"):
            distance = (getattr(moved, name) - moved.estimate) / scale
            np.testing.assert_allclose(distance, getattr(base, name) - base.estimate, rtol=1e-7)


@pytest.mark.parametrize("options", [{}, {"smooth": "truncate"}, {"normalize": False}], ids=str)
def test_interval_covers_as_often_as_it_says(options):
    x, log_w = log_normal(np.random.default_rng(31), (3000, 400), s=0.5)
    result = isdiag.snis(log_w, x, **options)
    covered = (result.low < 0.5) & (result.high > 0.5)
    assert 0.93 <= covered.mean() <= 0.97


# ------------------------------------------------------------------------------ the constant of w


def test_log_z_and_its_error_against_simulation():
    _, log_w = log_normal(np.random.default_rng(32), (4000, 400), s=0.7)
    result = isdiag.snis(log_w, log_w)
    assert np.exp(result.log_z).mean() == pytest.approx(1.0, abs=4 * 0.8 / np.sqrt(log_w.size))
    assert result.log_z.std() == pytest.approx(result.log_z_std_error.mean(), rel=0.1)


def test_log_z_is_the_mean_weight_over_all_draws_that_count(rng):
    log_w, h = rng.normal(size=300), rng.normal(size=300)
    log_w[:20] = -np.inf
    where = np.arange(300) < 250
    for gamma in (0.5, 1.0):
        w = np.exp(gamma * log_w[where])
        result = isdiag.snis(log_w, h, gamma=gamma, where=where)
        assert result.log_z == pytest.approx(np.log(w.mean()), rel=1e-12)
        expected = np.sqrt(w.var() / w.size) / w.mean()
        assert result.log_z_std_error == pytest.approx(expected, rel=1e-9)


def test_log_z_is_that_of_the_weights_used(heavy):
    smoothed = isdiag.psis(heavy, normalize=False).log_weights
    w = np.exp(heavy)
    cut = np.minimum(w, np.sqrt(w.size) * w.mean())
    assert (cut < w).any()
    assert isdiag.snis(heavy, heavy, smooth="psis").log_z == pytest.approx(np.log(np.exp(smoothed).mean()))
    assert isdiag.snis(heavy, heavy, smooth="truncate").log_z == pytest.approx(np.log(cut.mean()))


@pytest.mark.parametrize("smooth", [False, "psis", "truncate"])
def test_log_z_of_no_weight_is_that_of_zero(smooth):
    result = isdiag.snis(np.full(50, -np.inf), np.zeros(50), smooth=smooth)
    assert result.log_z == -np.inf
    assert np.isnan([result.estimate, result.log_z_std_error, result.error_draws, result.low]).all()
    assert result.status is isdiag.Status.NO_WEIGHT


# --------------------------------------------------------------------------- what is done to weights


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_truncation_is_a_cut_at_root_n_times_the_mean(rng, gamma):
    log_w, h = 1.5 * rng.exponential(size=(2, 1000)), rng.normal(size=(2, 1000))
    log_w[1, :300] = -np.inf
    result = isdiag.snis(log_w, h, gamma=gamma, smooth="truncate")
    w = np.exp(gamma * log_w)
    cut = np.minimum(w, np.sqrt(1000) * w.mean(axis=1, keepdims=True))
    assert (cut < w).any() or gamma < 1
    with np.errstate(divide="ignore"):
        expected = np.array([naive.snis(row, values) for row, values in zip(np.log(cut), h, strict=True)])
    np.testing.assert_allclose(result.estimate, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(result.std_error, expected[:, 1], rtol=1e-9)
    np.testing.assert_allclose(result.bias, expected[:, 2], rtol=1e-7, atol=1e-13)
    np.testing.assert_allclose(result.ess, cut.sum(1) ** 2 / (cut**2).sum(1), rtol=1e-9)
    np.testing.assert_array_equal(result.khat, isdiag.pareto_khat(log_w, gamma=gamma))
    assert (result.khat > 0.3).all()


def test_truncation_counts_only_draws_of_where(rng):
    log_w, h = 2 * rng.exponential(size=600), rng.normal(size=600)
    where = rng.uniform(size=600) < 0.5
    left = isdiag.snis(log_w, h, smooth="truncate", where=where)
    right = isdiag.snis(log_w[where], h[where], smooth="truncate")
    assert vars(left) == pytest.approx(vars(right), rel=1e-12)


def test_true_is_psis_and_anything_false_is_raw(heavy, rng):
    h = rng.normal(size=heavy.size)
    raw, psis = isdiag.snis(heavy, h), isdiag.snis(heavy, h, smooth="psis")
    assert raw.estimate != psis.estimate
    for smooth in (True, np.True_, 1):
        assert vars(isdiag.snis(heavy, h, smooth=smooth)) == vars(psis)
    for smooth in (np.False_, 0):
        assert vars(isdiag.snis(heavy, h, smooth=smooth)) == vars(raw)


@pytest.mark.parametrize("smooth", [False, "psis", "truncate"])
def test_results_of_far_log_weights_are_the_same(heavy, rng, smooth):
    h = rng.normal(size=heavy.size)
    near = vars(isdiag.snis(heavy, h, smooth=smooth))
    for shift in (1e4, -1e4):
        far = dict(vars(isdiag.snis(heavy + shift, h, smooth=smooth)))
        assert far.pop("log_z") == pytest.approx(near["log_z"] + shift, abs=1e-9)
        assert far == pytest.approx({key: near[key] for key in far}, rel=1e-8)


# --------------------------------------------------------------------------------- not normalised


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_without_normalising_it_is_a_plain_mean(rng, gamma):
    log_w, h = rng.normal(size=(3, 400)) - 2, 3 + rng.normal(size=(3, 400))
    log_w[1, :150] = -np.inf
    where = np.ones((3, 400), bool)
    where[2, ::3] = False
    h[~where] = np.nan
    result = isdiag.snis(log_w, h, gamma=gamma, normalize=False, where=where)
    for r in range(3):
        terms = np.exp(gamma * log_w[r][where[r]]) * h[r][where[r]]
        assert result.estimate[r] == pytest.approx(terms.mean(), rel=1e-12)
        assert result.std_error[r] == pytest.approx(terms.std(ddof=1) / np.sqrt(terms.size), rel=1e-10)
    np.testing.assert_array_equal(result.bias, 0.0)
    plain = isdiag.snis(log_w, h, gamma=gamma, where=where)
    for key in ("ess", "khat", "log_z", "log_z_std_error"):
        np.testing.assert_array_equal(getattr(result, key), getattr(plain, key))


def test_without_normalising_h_may_be_a_vector(rng):
    log_w, h = rng.normal(size=200), rng.normal(size=(200, 2, 3))
    result = isdiag.snis(log_w, h, normalize=False)
    terms = np.exp(log_w)[:, None, None] * h
    np.testing.assert_allclose(result.estimate, terms.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.std_error, terms.std(axis=0, ddof=1) / np.sqrt(200), rtol=1e-10)


def test_without_normalising_weights_that_hardly_differ_leave_the_error_of_h(rng):
    h = 1e8 + rng.normal(size=400)
    result = isdiag.snis(np.zeros(400), h, normalize=False)
    assert result.std_error == pytest.approx(np.std(h, ddof=1) / 20, rel=1e-6)


def test_without_normalising_far_weights_overflow_silently(rng):
    log_w, h = rng.normal(size=100), 1 + rng.uniform(size=100)
    assert isdiag.snis(log_w + 1e4, h, normalize=False).estimate == np.inf
    assert isdiag.snis(log_w - 1e4, h, normalize=False).estimate == 0.0


# ------------------------------------------------------------------------------- kinds of h, statuses


def test_vector_h_gives_numbers_for_each_component(rng):
    log_w, h = rng.normal(size=(2, 600)), rng.normal(size=(2, 600, 3))
    result = isdiag.snis(log_w, h)
    assert result.low.shape == result.high.shape == result.estimate.shape == (2, 3)
    assert result.error_draws.shape == result.log_z.shape == (2,)
    assert result.status.shape == (2, 3)
    for j in range(3):
        alone = isdiag.snis(log_w, h[:, :, j])
        np.testing.assert_allclose(result.estimate[:, j], alone.estimate, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(result.std_error[:, j], alone.std_error, rtol=1e-10)
        np.testing.assert_allclose(result.log_z, alone.log_z, rtol=1e-12)
    w = np.exp(log_w)
    np.testing.assert_allclose(result.error_draws, (w**2).sum(1) ** 2 / (w**4).sum(1), rtol=1e-10)
    df = np.minimum(2 / (1 / result.error_draws[:, None] - 1 / 600), 599)
    half = (
        widened(df) * result.std_error * spread(result)[:, None]
    )  # what is skewed in a component is not looked at
    ends = [result.estimate - half, result.estimate + half]
    np.testing.assert_allclose([result.low, result.high], ends, rtol=1e-10)


def test_one_component_is_a_vector_too(rng):
    log_w, h = rng.normal(size=300), rng.normal(size=300)
    result, alone = isdiag.snis(log_w, h[:, None]), isdiag.snis(log_w, h)
    assert result.estimate.shape == result.low.shape == (1,)
    assert (result.estimate[0], result.low[0], result.high[0]) == (alone.estimate, alone.low, alone.high)
    assert result.error_draws == alone.error_draws


def test_boolean_h_is_an_indicator(rng):
    log_w, h = rng.normal(size=500), rng.uniform(size=500) < 0.3
    for normalize in (True, False):
        found = vars(isdiag.snis(log_w, h, normalize=normalize))
        assert found == vars(isdiag.snis(log_w, h.astype(float), normalize=normalize))


def test_status_tells_what_is_known_of_the_error(rng):
    light, x = 0.3 * rng.normal(size=2000), rng.normal(size=2000)
    status = isdiag.Status
    few = isdiag.snis(light[:100], x[:100] > 2)
    assert few.error_draws < 25
    assert few.status is status.ERROR_UNCERTAIN
    many = isdiag.snis(light, x)
    assert many.error_draws > 25
    assert many.status is status.OK
    assert isdiag.snis(light, np.full(2000, 0.1)).status is status.CONSTANT_H
    assert isdiag.snis(light, np.zeros(2000)).status is status.CONSTANT_H
    zero = np.where(x > 0, -np.inf, light)  # h varies only where the weight is zero
    assert isdiag.snis(zero, np.where(x > 0, x, 7.0)).status is status.CONSTANT_H
    assert isdiag.snis(2 * x, x).status is status.ERROR_UNCERTAIN


def test_errors_of_few_draws_are_rough_or_uncertain(rng):
    result = isdiag.snis(1.2 * rng.normal(size=(400, 400)), rng.normal(size=(400, 400)))
    draws, status = result.error_draws, isdiag.Status
    for border in (6.0, 15.0):
        assert (draws > border - 1).any()
        assert ((border - 1 < draws) & (draws < border)).any()
        assert ((border <= draws) & (draws < border + 1)).any()
    grade = np.select([draws < 6, draws < 15], [status.ERROR_UNCERTAIN, status.ERROR_ROUGH], status.OK)
    np.testing.assert_array_equal(result.status, grade)


def test_of_constant_h_nothing_can_be_said(heavy):
    result = isdiag.snis(heavy, np.full(heavy.size, 3.0))
    assert (result.low, result.estimate, result.high) == (-np.inf, 3.0, np.inf)
    assert result.error_draws == 0.0


def test_rows_keep_the_status_of_their_weights(rng):
    status = isdiag.Status
    log_w = 0.3 * rng.normal(size=(7, 400))
    log_w[1] = 2.5
    log_w[2, 3:] = -np.inf
    log_w[3] = np.repeat([0.0, -5.0], 200)
    log_w[4] = -np.inf
    log_w[5, 7], log_w[6, 7] = np.nan, np.inf
    no_numbers = [status.NO_WEIGHT, status.NOT_FINITE, status.NOT_FINITE]
    # Of equal weights, three draws and two levels.
    varying = [status.FLAT, status.ERROR_UNCERTAIN, status.DEGENERATE_TAIL, *no_numbers]
    constant = [status.CONSTANT_H, status.TAIL_TOO_SHORT, status.DEGENERATE_TAIL, *no_numbers]
    as_given = [status.NOT_NORMALIZED, status.ERROR_UNCERTAIN, status.NOT_NORMALIZED, *no_numbers]
    for h, self_normalised in (
        (rng.normal(size=(7, 400)), varying),
        (np.ones((7, 400)), constant),
        (rng.normal(size=(7, 400, 2)), varying),
    ):
        for options in ({}, {"smooth": "truncate"}, {"smooth": "psis"}, {"normalize": False}):
            with pytest.warns(isdiag.NonFiniteWarning, match="2 of 7 rows hold NaN or .inf: ") as caught:
                result = isdiag.snis(log_w, h, **options)
            assert len(caught) == 1
            expected = as_given if "normalize" in options else self_normalised
            assert result.status.shape == result.estimate.shape
            for of_component in result.status.reshape(7, -1).T:
                assert of_component[1:].tolist() == expected
            numbers = [result.estimate, result.std_error, result.low, result.high]
            assert all(np.isnan(number[4:]).all() for number in numbers)
            assert all(np.isfinite(number[:4]).all() for number in numbers[:2])
            assert not any(np.isnan(number[:4]).any() for number in numbers[2:])


def test_the_mean_of_weights_has_an_error_of_its_own():
    # h = 1 without normalising estimates Z: no draw is off the self-normalised estimate, all are off this.
    rng = np.random.default_rng(21)
    log_w = 0.5 * rng.normal(size=(2000, 400)) - 0.125
    result = isdiag.snis(log_w, np.ones_like(log_w), normalize=False)
    f = np.exp(log_w) - np.exp(log_w).mean(axis=1, keepdims=True)
    expected = (f**2).sum(axis=1) ** 2 / (f**4).sum(axis=1)
    np.testing.assert_allclose(result.error_draws, expected, rtol=1e-9)
    covered = (result.low <= 1) & (result.high >= 1)
    assert 0.93 < covered.mean() < 0.97
