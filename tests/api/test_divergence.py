"""Divergences: closed forms, calibration, identities, limits, and everything at the edges."""

import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import isdiag
from isdiag import (
    Status,
    alpha_divergence,
    chi2_divergence,
    kl_divergence,
    log_moment,
    renyi_divergence,
)
from isdiag._core import bands
from tests import registry
from tests.helpers import assert_same

OF = ("log_moment", "renyi_divergence", "alpha_divergence", "kl_divergence", "chi2_divergence")
# Every function and option, as functions of log-weights alone.
CALLS = {
    repr(call).replace(", normalize=True", "").replace("normalize=True", ""): call
    for call in registry.CALLS
    if call.function.name in OF and call.options["normalize"]
}
NORMALIZED = [(name, flag) for name in CALLS for flag in (True, False)]


class Normals:
    """Target N(m, s), proposal N(0, 1), and what is true of them."""

    def __init__(self, m, s):
        self.m, self.s = m, s

    def draw(self, seed, shape):
        x = np.random.default_rng(seed).normal(size=shape)
        return 0.5 * x**2 - 0.5 * ((x - self.m) / self.s) ** 2 - np.log(self.s)

    def renyi(self, a):
        if a == 0:
            return 0.0
        if a == 1:
            return self.kl("target")
        v = a + (1 - a) * self.s**2
        return -np.log(self.s) - np.log(v) / (2 * (a - 1)) + a * self.m**2 / (2 * v)

    def moment(self, a):
        return (a - 1) * self.renyi(a)

    def alpha(self, a):
        if a in {0, 1}:
            return self.kl("proposal" if a == 0 else "target")
        return (1 - np.exp(self.moment(a))) / (a * (1 - a))

    def kl(self, direction):
        m, v = self.m, self.s**2
        return 0.5 * (v + m**2 - 1 - np.log(v) if direction == "target" else (1 + m**2) / v - 1 + np.log(v))


def test_closed_forms_by_quadrature():
    normals = Normals(0.4, 0.8)
    x = np.linspace(-12, 12, 200_001)
    mu = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    log_w = 0.5 * x**2 - 0.5 * ((x - 0.4) / 0.8) ** 2 - np.log(0.8)
    w = np.exp(log_w)
    assert (mu * w).sum() == pytest.approx(1, abs=1e-10)
    for a in (0.3, 0.5, 1.5, 2.0):
        assert normals.moment(a) == pytest.approx(np.log((mu * w**a).sum()), rel=1e-9)
    assert normals.kl("target") == pytest.approx((mu * w * log_w).sum(), rel=1e-9)
    assert normals.kl("proposal") == pytest.approx(-(mu * log_w).sum(), rel=1e-9)
    assert normals.renyi(1 + 1e-6) == pytest.approx(normals.kl("target"), rel=1e-4)


# ------------------------------------------------------------------------------------- calibration

# Targets narrower than the proposal, so that weights are bounded and every moment exists.
CALIBRATED = {
    **{
        f"renyi({a})": (CALLS[f"renyi_divergence(alpha={a})"], lambda t, a=a: t.renyi(a))
        for a in (0.3, 0.5, 1.0, 1.5, 2.0)
    },
    **{
        f"alpha({a})": (CALLS[f"alpha_divergence(alpha={a})"], lambda t, a=a: t.alpha(a))
        for a in (0.0, 0.5, 1.0, 1.5, 2.0)
    },
    "log_moment(gamma=0.5)": (CALLS["log_moment(gamma=0.5)"], lambda t: t.moment(0.5)),
    "log_moment(gamma=2.0)": (lambda x, **kw: log_moment(x, 2.0, **kw), lambda t: t.moment(2.0)),
    "chi2": (chi2_divergence, lambda t: 2 * t.alpha(2)),
    "kl(target, k3)": (CALLS["kl_divergence(direction=target, estimator=k3)"], lambda t: t.kl("target")),
    "kl(proposal, k3)": (
        CALLS["kl_divergence(direction=proposal, estimator=k3)"],
        lambda t: t.kl("proposal"),
    ),
}


@pytest.fixture(scope="module")
def sample():
    return Normals(0.4, 0.8).draw(31, (1000, 1000))


@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize("normalize", [True, False])
def test_standard_error_is_the_spread_of_the_estimate(sample, name, normalize):
    function, truth = CALIBRATED[name]
    # A constant does not matter if normalised.
    result = function(sample + 3.0 if normalize else sample, normalize=normalize)
    truth = truth(Normals(0.4, 0.8))
    assert np.median(result.khat) < 0.3
    errors = (result.estimate - truth) / result.std_error
    assert 0.92 < errors.std() < 1.08
    assert abs(errors.mean()) < 0.2
    assert (np.abs(errors) < 4.5).all()
    # Unbiased, or with a bias of order 1/n.
    assert abs(result.estimate.mean() - truth) < 4 * result.estimate.std() / np.sqrt(1000) + 2e-3 * truth
    assert result.estimate.mean() == pytest.approx(truth, rel=0.02)


def test_standard_error_of_a_moment_is_that_of_log_z(rng):
    log_w = rng.normal(size=300)
    log_w[:20] = -np.inf
    for gamma in (0.5, 1.0, 2.0):
        moment = log_moment(log_w, gamma)
        snis = isdiag.snis(log_w, log_w, gamma=gamma)
        assert moment.estimate == pytest.approx(snis.log_z, abs=1e-13)
        assert moment.std_error == pytest.approx(snis.log_z_std_error, rel=1e-12)


@pytest.mark.parametrize(("name", "normalize"), NORMALIZED)
@pytest.mark.parametrize("zeros", [0, 4])
def test_standard_error_is_that_of_a_jackknife(rng, name, normalize, zeros):
    # Each of 40 draws 50 times over, and one of them left out: so small a change is a derivative.
    log_w = rng.normal(scale=0.7, size=40) - 0.2
    log_w[:zeros] = -np.inf
    many = np.tile(log_w, 50)
    keep = np.ones((40, 2000), bool)
    keep[:, :40] = ~np.eye(40, dtype=bool)
    whole = CALLS[name](log_w, normalize=normalize)
    if np.isinf(whole.estimate) or name == "renyi_divergence(alpha=inf)":
        assert np.isnan(whole.std_error)
        return
    each = CALLS[name](np.broadcast_to(many, (40, 2000)), where=keep, normalize=normalize).estimate
    change = 1999 * (CALLS[name](many, normalize=normalize).estimate - each)
    assert whole.std_error == pytest.approx(np.sqrt((change**2).mean() / 40), rel=5e-3, abs=1e-10)


# ------------------------------------------------------------------- intervals, and what warns of them


@pytest.mark.parametrize(
    ("name", "truth", "plain"),
    [
        ("kl_divergence(direction=target, estimator=k1)", 0.5, 0.87),
        ("renyi_divergence(alpha=2.0)", 1.0, 0.75),
        ("chi2_divergence()", np.expm1(1.0), 0.75),
    ],
)
def test_intervals_cover_where_twice_the_error_does_not(name, truth, plain):
    log_w = np.random.default_rng(3).normal(size=(600, 200)) - 0.5  # log-normal weights, s = 1
    result = CALLS[name](log_w)
    assert (np.abs(result.estimate - truth) < 1.96 * result.std_error).mean() < plain
    covers = (result.low <= truth) & (truth <= result.high)
    assert covers.mean() > 0.88
    assert (result.status == Status.OK).mean() < 0.2


def test_intervals_of_harmless_weights_are_those_of_a_normal_law():
    log_w = 0.1 * np.random.default_rng(4).normal(size=(300, 1000)) - 0.005
    for name in ("kl_divergence(direction=target, estimator=k1)", "renyi_divergence(alpha=0.5)"):
        result = CALLS[name](log_w)
        assert (result.status == Status.OK).mean() > 0.95
        width = (result.high - result.low) / result.std_error
        assert 3.9 < np.median(width) < 4.4
        truth = 0.005 if "kl" in name else 0.0025
        assert 0.92 < ((result.low <= truth) & (truth <= result.high)).mean() < 0.99


def test_a_divergence_is_not_negative_and_a_moment_may_be():
    log_w = np.random.default_rng(5).normal(size=(50, 30)) * 0.1
    for name, function in CALLS.items():
        result = function(log_w)
        known = ~np.isnan(result.low)
        inside = (result.low <= result.estimate) & (result.estimate <= result.high)
        assert inside[known].all(), name
        assert "moment" in name or (result.low[known] >= 0).all(), name
    assert log_moment(log_w, 0.5).low.min() < 0


def test_draws_behind_the_error_are_those_of_the_influence(rng):
    log_w = rng.normal(size=400)
    u = np.exp(log_w) / np.exp(log_w).mean()
    terms = u * np.log(u)
    f = terms - terms.mean() - (terms.mean() + 1.0) * (u - 1.0)
    got = kl_divergence(log_w)
    assert got.std_error == pytest.approx(np.sqrt((f**2).sum()) / 400, rel=1e-12)
    assert got.error_draws == pytest.approx((f**2).sum() ** 2 / (f**4).sum(), rel=1e-11)
    assert got.status is Status.ERROR_UNCERTAIN


def test_a_tail_that_may_have_no_variance_makes_an_error_rough():
    for length in (6, 10, 40, 94, 300, 3000):
        limit = bands.settled_khat(length, 0.95)
        if np.isfinite(limit):
            high = bands.khat_interval(np.array(limit), np.array(length), 0.95)[1]
            assert high == pytest.approx(0.5, abs=1e-12)
        else:
            assert length == 6 or length < 1.96**2
    quantiles = (np.arange(4000) + 0.5) / 4000
    heavy = -0.45 * np.log1p(-quantiles)  # a Pareto tail of that index, without noise
    result = kl_divergence(heavy)
    assert 0.3 < result.khat < 0.5
    rough = log_moment(heavy, 0.85)
    assert rough.error_draws > 15
    assert rough.status is Status.ERROR_ROUGH
    assert log_moment(heavy, 0.3).status is Status.OK
    # What averages -log w alone is not judged by the tail of w.
    assert kl_divergence(heavy - 1.0, direction="proposal", normalize=False).status is not Status.ERROR_ROUGH


def test_where_there_is_no_error_there_is_no_interval(rng):
    for result in (renyi_divergence(rng.normal(size=50), np.inf), kl_divergence([2.0])):
        assert np.isnan([result.std_error, result.low, result.high, result.error_draws]).all()
    flat = kl_divergence(np.zeros(50))
    assert (flat.low, flat.high, flat.error_draws) == (0.0, np.inf, 0.0)


def test_errors_of_chains_are_wider_and_rest_on_fewer_draws():
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(4, 1000))
    chain = np.empty_like(noise)
    chain[:, 0] = noise[:, 0]
    for i in range(1, 1000):
        chain[:, i] = 0.9 * chain[:, i - 1] + np.sqrt(0.19) * noise[:, i]
    for function in (kl_divergence, chi2_divergence, lambda x, **o: log_moment(x, 0.5, **o)):
        alone = function(0.3 * chain, axis=(0, 1))
        along = function(0.3 * chain, axis=(0, 1), draws="mcmc")
        assert along.estimate == alone.estimate
        assert 1.8 < along.std_error / alone.std_error < 5.0
        assert along.high - along.low > 1.8 * (alone.high - alone.low)
        assert along.error_draws < alone.error_draws


# ------------------------------------------------------------------------------ k1, k2, k3: biases


@pytest.mark.parametrize("direction", ["target", "proposal"])
def test_biases_of_the_three_estimators(direction):
    # A shift by m: KL = m^2 / 2 both ways, and k2 has mean KL + KL^2 / 2.
    kl = 0.32
    log_w = Normals(0.8, 1.0).draw(7, (2000, 500))
    by = {
        e: kl_divergence(log_w, direction=direction, estimator=e, normalize=False) for e in ("k1", "k2", "k3")
    }
    for name, truth in (("k1", kl), ("k2", kl + kl**2 / 2), ("k3", kl)):
        noise = by[name].estimate.std() / np.sqrt(2000)
        assert abs(by[name].estimate.mean() - truth) < 4 * noise
    assert abs(by["k2"].estimate.mean() - kl) > 20 * by["k2"].estimate.std() / np.sqrt(2000)
    if direction == "proposal":
        assert by["k2"].estimate.std() < 0.7 * by["k1"].estimate.std()
        near = Normals(0.1, 1.0).draw(7, (2000, 50))
        k1, k2, k3 = (
            kl_divergence(near, direction=direction, estimator=e, normalize=False).estimate
            for e in ("k1", "k2", "k3")
        )
        assert (k1 < 0).any()
        assert min(k2.min(), k3.min()) > 0
        assert max(k2.std(), k3.std()) < 0.2 * k1.std()


def test_the_terms_of_the_three_estimators(rng):
    log_w = rng.normal(size=60)
    w = np.exp(log_w)
    terms = {
        ("proposal", "k1"): -log_w,
        ("proposal", "k2"): log_w**2 / 2,
        ("proposal", "k3"): w - 1 - log_w,
        ("target", "k1"): w * log_w,
        ("target", "k2"): w * log_w**2 / 2,
        ("target", "k3"): w * log_w - w + 1,
    }
    for (direction, estimator), values in terms.items():
        result = kl_divergence(log_w, direction=direction, estimator=estimator, normalize=False)
        assert result.estimate == pytest.approx(values.mean(), rel=1e-13)
        assert result.std_error == pytest.approx(values.std() / np.sqrt(60), rel=1e-12)
        assert result.khat == pytest.approx(isdiag.pareto_khat(log_w), abs=0)
    u = w / w.mean()
    for direction, truth in (("target", (u * np.log(u)).mean()), ("proposal", -np.log(u).mean())):
        k1 = kl_divergence(log_w, direction=direction)
        assert_same(k1, kl_divergence(log_w, direction=direction, estimator="k3"))
        assert k1.estimate == pytest.approx(truth, rel=1e-12)
    k2 = kl_divergence(log_w, direction="target", estimator="k2")
    assert k2.estimate == pytest.approx((u * np.log(u) ** 2).mean() / 2, rel=1e-12)


# -------------------------------------------------------------------------------------- identities


def test_formulas_as_printed(rng):
    log_w = rng.normal(scale=1.5, size=80)
    log_w[:5] = -np.inf
    w = np.exp(log_w)
    for v, normalize in ((w / w.mean(), True), (w, False)):
        for a in (0.3, 0.5, 0.9, 1.1, 2.0, 3.0):
            moment = (v**a).mean()
            options = {"normalize": normalize}
            assert log_moment(log_w, a, **options).estimate == pytest.approx(np.log(moment), rel=1e-11)
            renyi = renyi_divergence(log_w, a, **options).estimate
            assert renyi == pytest.approx(np.log(moment) / (a - 1), rel=1e-11)
            alpha = alpha_divergence(log_w, a, **options).estimate
            assert alpha == pytest.approx((1 - moment) / (a * (1 - a)), rel=1e-11)
        assert chi2_divergence(log_w, normalize=normalize).estimate == pytest.approx((v**2).mean() - 1)
        for function in (renyi_divergence, alpha_divergence):
            at_one = function(log_w, 1.0, normalize=normalize)
            assert_same(at_one, kl_divergence(log_w, normalize=normalize), rtol=1e-12)
            assert at_one.estimate == pytest.approx((v[5:] * np.log(v[5:])).sum() / 80, rel=1e-12)
        hellinger = 1 - np.sqrt(v).mean()
        assert alpha_divergence(log_w, 0.5, normalize=normalize).estimate == pytest.approx(4 * hellinger)
        assert renyi_divergence(log_w, 0.0, normalize=normalize).estimate == pytest.approx(-np.log(75 / 80))
        assert log_moment(log_w, 0.0, normalize=normalize).estimate == pytest.approx(np.log(75 / 80))
        largest = renyi_divergence(log_w, np.inf, normalize=normalize)
        assert largest.estimate == pytest.approx(np.log(v.max()), rel=1e-13)
        assert np.isnan(largest.std_error)
    assert alpha_divergence(log_w[5:], 0.0).estimate == pytest.approx(
        kl_divergence(log_w[5:], direction="proposal").estimate, rel=1e-13
    )
    assert log_moment(log_w, 2.0) != log_moment(log_w, 2.0)  # results compare by identity


@pytest.mark.parametrize("normalize", [True, False])
def test_moments_and_renyi(rng, normalize):
    log_w = rng.normal(size=(4, 100)) - 0.5
    for g in (0.0, 0.2, 0.5, 0.999, 1.001, 2.0, 4.0):
        moment = log_moment(log_w, g, normalize=normalize)
        renyi = renyi_divergence(log_w, g, normalize=normalize)
        np.testing.assert_allclose(np.exp(moment.estimate), np.exp((g - 1) * renyi.estimate), rtol=1e-13)
        np.testing.assert_allclose(moment.std_error, abs(g - 1) * renyi.std_error, rtol=1e-10, atol=1e-16)


def test_chi2_is_ess(rng):
    log_w = rng.normal(size=(5, 200))
    log_w[1, :30] = -np.inf
    chi2 = chi2_divergence(log_w)
    np.testing.assert_allclose(chi2.estimate, 200 / isdiag.ess(log_w) - 1, rtol=1e-12)
    half = alpha_divergence(log_w, 2.0)
    np.testing.assert_allclose(chi2.estimate, 2 * half.estimate, rtol=1e-15)
    np.testing.assert_allclose(chi2.std_error, 2 * half.std_error, rtol=1e-15)
    np.testing.assert_array_equal(chi2.khat, isdiag.pareto_khat(log_w, gamma=2.0))
    np.testing.assert_allclose(chi2.estimate, np.expm1(renyi_divergence(log_w, 2.0).estimate), rtol=1e-12)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=6), st.floats(0, 1))
def test_skew_symmetry(counts, a):
    # Laws on a few points with integer counts: a draw of each for each count.
    target, proposal = np.array(counts).T
    log_ratio = np.log(target / target.sum()) - np.log(proposal / proposal.sum())
    from_proposal, from_target = np.repeat(log_ratio, proposal), np.repeat(-log_ratio, target)
    for normalize in (True, False):
        if not normalize and min(a, 1 - a) < 1e-3 and a not in {0, 1}:
            continue  # as given, alpha near 1 is not for use
        here = alpha_divergence(from_proposal, a, normalize=normalize).estimate
        there = alpha_divergence(from_target, 1 - a, normalize=normalize).estimate
        assert here == pytest.approx(there, rel=1e-9, abs=1e-12)
        kl = kl_divergence(from_proposal, normalize=normalize).estimate
        other = kl_divergence(from_target, direction="proposal", normalize=normalize).estimate
        assert kl == pytest.approx(other, rel=1e-12, abs=1e-15)
    p, q = target / target.sum(), proposal / proposal.sum()
    assert kl == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12, abs=1e-15)
    renyi = renyi_divergence(from_proposal, 0.5).estimate
    assert renyi == pytest.approx(-2 * np.log(np.sqrt(p * q).sum()), rel=1e-12, abs=1e-14)


# -------------------------------------------------------------------------------------- continuity

STEPS = (1e-6, 1e-8, 1e-10, 1e-12, 1e-15)


@pytest.mark.parametrize("zeros", [0, 10])
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 4.0, 50.0])
def test_continuous_in_alpha(rng, scale, zeros):
    log_w = rng.normal(scale=scale, size=400)
    log_w[:zeros] = -np.inf
    for function in (renyi_divergence, alpha_divergence):
        for a in (0.5, 1.0, 2.0) if function is alpha_divergence and zeros else (0.0, 0.5, 1.0, 2.0):
            at = function(log_w, a)
            # What the function changes over 1e-4 bounds its slope.
            slope = abs(function(log_w, a + 1e-4).estimate - at.estimate) / 1e-4 + at.estimate
            for step in STEPS:
                for b in (a + step, a - step) if a else (step, 1e-300, 5e-324):
                    near = function(log_w, b)
                    tolerance = 1e-13 * (at.estimate + scale**2) + 3 * step * slope
                    assert abs(near.estimate - at.estimate) <= tolerance, (a, b)
                    assert near.std_error == pytest.approx(
                        at.std_error, rel=1e-9 + 1e3 * step, abs=step * (1 + scale)
                    )


def test_limits_hold_to_nine_digits(rng):
    log_w = rng.normal(size=1000)
    for function in (renyi_divergence, alpha_divergence):
        for a in (0.0, 0.5, 1.0, 2.0):
            at = function(log_w, a).estimate
            for step in (1e-10, 1e-12, 1e-14):
                for b in (a + step, abs(a - step)):
                    assert function(log_w, b).estimate == pytest.approx(at, abs=1e-9)
    at = renyi_divergence(log_w, np.inf).estimate
    for a in (1e11, 1e16, 1e200, 1e308):
        assert renyi_divergence(log_w, a).estimate == pytest.approx(at, abs=1e-9)
        assert renyi_divergence(log_w, a, normalize=False).estimate == pytest.approx(log_w.max(), abs=1e-9)
    for normalize in (True, False):
        at = log_moment(log_w, 0.0, normalize=normalize).estimate
        assert log_moment(log_w, 1e-12, normalize=normalize).estimate == pytest.approx(at, abs=1e-11)
        at = log_moment(log_w, 1.0, normalize=normalize).estimate
        assert log_moment(log_w, 1 + 1e-12, normalize=normalize).estimate == pytest.approx(at, abs=1e-11)


def test_as_given_it_says_that_it_is_useless_near_one(rng):
    log_w = rng.normal(size=1000) - 0.5
    for function in (renyi_divergence, alpha_divergence):
        near = function(log_w, 1 + 1e-6, normalize=False)
        assert near.std_error > 1e4
        assert abs(near.estimate) < 4 * near.std_error
        assert function(log_w, 1.0, normalize=False).std_error < 0.2


# -------------------------------------------------------------------------------------- invariants

values = st.integers(-(2**20), 2**20).map(lambda i: i / 2**16)
rows = hnp.arrays(
    np.float64, st.integers(1, 80), elements=st.one_of(values, st.just(-np.inf)), fill=st.nothing()
).filter(lambda x: np.isfinite(x).any())


@given(rows, st.lists(st.one_of(st.floats(0, 5), st.floats(0, 1e6)), min_size=2, max_size=6))
def test_renyi_grows_with_alpha(log_w, orders):
    orders = np.array(sorted([0.0, 1.0, *orders, np.inf]))
    several = np.broadcast_to(log_w, (orders.size, log_w.size))
    estimates = renyi_divergence(several, orders).estimate
    assert (np.diff(estimates) >= -1e-11).all()
    assert (estimates >= 0).all() or (np.isinf(log_w).any() and (estimates >= -1e-15).all())
    assert (estimates <= np.log(log_w.size) + 1e-12).all()
    for i, order in enumerate(orders):
        assert renyi_divergence(log_w, order).estimate == pytest.approx(estimates[i], rel=1e-12, abs=1e-15)


@given(rows)
def test_never_negative_if_normalised(log_w):
    for name, function in CALLS.items():
        result = function(log_w, normalize=True)
        assert result.estimate >= 0 or "moment" in name, name
        # Without an error only of one draw, where the estimate is infinite, or is a largest value.
        if log_w.size == 1:
            assert np.isnan(result.std_error), name
        else:
            largest = name == "renyi_divergence(alpha=inf)"
            assert result.std_error >= 0 or np.isinf(result.estimate) or largest, name


@given(rows, st.integers(-1000, 1000), st.randoms(use_true_random=False))
def test_shift_and_permutation(log_w, shift, random):
    order = np.array(random.sample(range(log_w.size), log_w.size))
    for name, function in CALLS.items():
        here = function(log_w, normalize=True)
        assert_same(function(log_w + shift, normalize=True), here)
        for normalize in (True, False):
            base, moved = (function(x, normalize=normalize) for x in (log_w, log_w[order]))
            assert moved.estimate == pytest.approx(base.estimate, rel=1e-11, abs=1e-13), name
            assert moved.std_error == pytest.approx(base.std_error, rel=1e-7, abs=1e-12, nan_ok=True), name
            assert moved.status == base.status


def test_infinite_orders_among_others(rng):
    log_w = rng.normal(size=(4, 50))
    mixed = renyi_divergence(log_w, [np.inf, 1.0, np.inf, 0.0])
    assert mixed.estimate[0] == renyi_divergence(log_w[0], np.inf).estimate
    assert mixed.estimate[1] == renyi_divergence(log_w[1], 1.0).estimate


def test_khat_is_that_of_the_power_that_is_averaged(rng):
    log_w = rng.exponential(scale=0.4, size=1000)

    def khat(gamma):
        return isdiag.pareto_khat(log_w, gamma=gamma)

    for function in (log_moment, renyi_divergence, alpha_divergence):
        for a in (0.3, 1.0, 2.0):
            assert function(log_w, a, normalize=True).khat == khat(max(a, 1.0))
            assert function(log_w, a, normalize=False).khat == khat(a)
    assert renyi_divergence(log_w, np.inf).khat == khat(1.0)
    assert alpha_divergence(log_w, 0.0, normalize=False).khat == khat(1.0)
    assert log_moment(log_w, 0.0).khat == -np.inf
    assert khat(2.0) > 1.5 * khat(1.0)


# ------------------------------------------------------------------------------------ exact oracle

NASTY = {
    "wide": [700.0, -700.0, 0.0, 1.0, -3.0],
    "huge": [0.0, 1.0, 2.0, 3.0, 800.0],
    "high": [690.0, 700.0, 695.5, 699.0],
    "low": [-690.0, -700.0, -695.5, -699.0],
    "near": [0.0, 1e-9, -2e-9, 5e-10],
    "small": [0.01, -0.02, 0.3, 0.5, -0.5],
    "zeros": [-np.inf, 0.5, -np.inf, 1.0, -1.0, 3.0],
}


def exactly(log_w, a, normalize):
    """(log moment, Renyi, Amari, second moment less one) in 400 digits."""
    with mpmath.workdps(400):
        w = [mpmath.exp(mpmath.mpf(x)) if np.isfinite(x) else mpmath.mpf(0) for x in log_w]
        if normalize:
            mean = sum(w) / len(w)
            w = [x / mean for x in w]
        a = mpmath.mpf(a)
        plogs = [x * mpmath.log(x) if x else mpmath.mpf(0) for x in w]
        chi2 = sum(x**2 for x in w) / len(w) - 1
        if a == 0:
            share = mpmath.mpf(sum(x > 0 for x in w)) / len(w)
            kl = -sum(mpmath.log(x) for x in w) / len(w) if share == 1 else mpmath.inf
            return mpmath.log(share), -mpmath.log(share), kl, chi2
        moment = sum(x**a if x else mpmath.mpf(0) for x in w) / len(w)
        if a == 1:
            kl = sum(plogs) / len(w)
            return mpmath.log(moment), kl, kl, chi2
        return mpmath.log(moment), mpmath.log(moment) / (a - 1), (1 - moment) / (a * (1 - a)), chi2


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("normalize", [True, False])
def test_exact_values(name, normalize):
    log_w = np.array(NASTY[name])
    for a in (0.0, 1e-9, 0.1, 0.5, 0.99, 1 - 1e-9, 1.0, 1 + 1e-9, 1.01, 2.0, 3.0):
        if not normalize and 0 < abs(a - 1) < 1e-3:
            continue  # 1 / (a - 1) magnifies the rounding of the weights
        got = (
            log_moment(log_w, a, normalize=normalize).estimate,
            renyi_divergence(log_w, a, normalize=normalize).estimate,
            alpha_divergence(log_w, a, normalize=normalize).estimate,
            chi2_divergence(log_w, normalize=normalize).estimate,
        )
        if not normalize:  # log-weights are known to within an ulp of their size
            rtol, atol = 1e-12, 1e-13 * np.abs(log_w[np.isfinite(log_w)]).max()
        elif name == "near":  # their mean is known to 1e-16, and they differ by 1e-9
            rtol, atol = 1e-6, 1e-30
        else:
            rtol, atol = 2e-13, 1e-300
        expected = [float(x) for x in exactly(log_w, a, normalize)]
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=f"{name} {a}")


@pytest.mark.parametrize("seed", range(3))
def test_accurate_between_the_two_ways_to_sum(seed):
    # Sizes about the place where series and formula meet.
    log_w = np.random.default_rng(seed).uniform(-0.6, 0.6, size=40)
    for a in (0.0, 0.3, 0.5, 0.999, 1.0, 1.7, 8.0):
        moment, renyi, amari, _ = exactly(log_w, a, True)
        assert renyi_divergence(log_w, a).estimate == pytest.approx(float(renyi), rel=1e-13)
        assert alpha_divergence(log_w, a).estimate == pytest.approx(float(amari), rel=1e-13, abs=1e-15)
        assert log_moment(log_w, a, normalize=True).estimate == pytest.approx(
            float(moment), rel=1e-12, abs=1e-18
        )


# ------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize(("name", "normalize"), NORMALIZED)
@pytest.mark.parametrize("size", [1e3, 1e155, 1e300, 3e307])
def test_any_size_without_a_warning(rng, name, normalize, size):
    log_w = size * np.array([[-1.0, 0.0, 0.5, 1.0], [0.3, 0.3, 0.3, 0.2], [-np.inf, -1.0, -0.9, -0.8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = CALLS[name](log_w, normalize=normalize)
    assert not np.isnan(result.estimate).any()
    if normalize:
        bounded = name.startswith(("renyi", "log_moment")) or "target, estimator=k1" in name
        assert np.isfinite(result.estimate).all() or not bounded
        if name in {
            "renyi_divergence(alpha=1.0)",
            "renyi_divergence(alpha=2.0)",
            "renyi_divergence(alpha=5.0)",
            "renyi_divergence(alpha=inf)",
        }:
            # All the mass is on the largest weights.
            np.testing.assert_allclose(result.estimate, np.log([4.0, 4.0 / 3.0, 4.0]), rtol=1e-12)


def test_at_the_ends_of_the_range():
    # One weight holds all the mass of many draws.
    log_w = np.zeros(100_000)
    log_w[7] = 50.0
    exact = np.log(1e5) - np.log1p(99_999 * np.exp(-50.0))
    assert renyi_divergence(log_w, np.inf).estimate == pytest.approx(exact, rel=1e-15)
    # Differences, products and squares that leave the range of a float64.
    assert log_moment([1.7e308, -1.7e308], 0.0).estimate == 0.0
    assert alpha_divergence(log_w[:50], 1.7e308).estimate == np.inf
    assert alpha_divergence([1e308, 0.0], 5.0, normalize=False).estimate == np.inf
    over = log_moment([1.7e308, 1.6e308], 2.0)
    assert over.estimate == np.inf
    assert np.isnan(over.std_error)
    far = kl_divergence([0.0, 1e200, -1e200, 5e199], direction="proposal", normalize=False)
    assert far.std_error == pytest.approx(np.std([0.0, 1.0, -1.0, 0.5]) / 2 * 1e200)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("normalize", [True, False])
def test_proposal_where_the_target_is_not(estimator, normalize):
    log_w = [0.0, 1.0, -np.inf, 0.5]
    result = kl_divergence(log_w, direction="proposal", estimator=estimator, normalize=normalize)
    assert result.estimate == np.inf
    assert np.isnan(result.std_error)
    kept = kl_divergence(
        log_w, direction="proposal", estimator=estimator, normalize=normalize, where=np.isfinite(log_w)
    )
    assert np.isfinite([kept.estimate, kept.std_error]).all()


@pytest.mark.parametrize("log_w", [np.zeros(50), np.full(50, 0.1), 1e-18 * np.arange(50.0)])
def test_flat(log_w):
    for name, function in CALLS.items():
        result = function(log_w)
        assert result.status is Status.FLAT
        assert result.khat == -np.inf
        if "moment" not in name:
            assert result.estimate == 0.0
            assert result.std_error == 0.0 or "inf" in name
    given = kl_divergence(np.full(50, 0.1), direction="proposal", normalize=False)
    assert given.estimate == pytest.approx(-0.1)
    assert given.std_error < 1e-17
    assert given.status is Status.NOT_NORMALIZED


def test_of_one_draw_no_error_is_known():
    for function in CALLS.values():
        result = function([3.0])
        assert result.status is Status.ONE_DRAW
        assert result.khat == np.inf
        assert result.estimate == 0.0
        assert np.isnan(result.std_error)


def test_equal_weights_on_some_draws_are_flat_but_not_the_proposal():
    log_w = np.full(100, 2.0)
    log_w[:60] = -np.inf
    for a in (0.0, 0.5, 1.0, 2.0, 30.0, np.inf):
        result = renyi_divergence(log_w, a)
        assert result.status is Status.FLAT
        assert result.estimate == pytest.approx(np.log(2.5), rel=1e-14)
        # The delta method on the share of positive weights, whichever alpha.
        assert result.std_error == pytest.approx(np.sqrt(0.6 / 0.4 / 100), rel=1e-12) or a == np.inf
    assert kl_divergence(log_w, direction="proposal").estimate == np.inf
    assert np.isnan(kl_divergence(log_w, direction="proposal").std_error)
    assert alpha_divergence(log_w, 0.5).estimate == pytest.approx(4 * (1 - np.sqrt(0.4)))


# -------------------------------------------------------------------------------- errors and house


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda x: renyi_divergence(x, [0.5, -2.0]), ValueError, "alpha must be at least 0, got -2"),
        (lambda x: alpha_divergence(x, np.inf), ValueError, "alpha must be finite .* got inf"),
        (lambda x: renyi_divergence(x, np.ones(3)), ValueError, r"alpha of shape \(3,\)"),
    ],
)
def test_wrong_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call(np.zeros((2, 10)))


def test_a_divergence_is_a_number(rng):
    log_w = rng.normal(size=50)
    result = kl_divergence(log_w)
    assert float(result) == result.estimate
    with pytest.raises(TypeError):
        float(kl_divergence(np.stack([log_w, log_w])))


def test_logarithms_whose_square_is_out_of_range():
    log_w = np.array([0.0, 2.0**1022])
    for direction in ("target", "proposal"):
        result = kl_divergence(log_w, direction=direction, estimator="k2", normalize=False)
        assert result.estimate == np.inf
        assert np.isnan(result.std_error)


def test_what_a_draw_adds_may_be_out_of_range():
    result = log_moment(np.array([-0.4, 0.2, 0.1, 0.5]), 1e300, normalize=True, draws="mcmc")
    assert np.isfinite(result.estimate)
    assert np.isnan(result.std_error)
