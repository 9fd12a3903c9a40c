"""Reshapes: gradients against objectives, limits between methods, bounds, and every wrong argument."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import exp1, expit, gamma, gammainc, log_softmax

import isdiag
from isdiag import rl
from tests.helpers import optional
from tests.registry import EVERY_RESHAPE

each = pytest.mark.parametrize("reshape", EVERY_RESHAPE, ids=repr)
NEEDS_OTHERS = (rl.ParetoSmoothed, rl.AlphaDivergence)  # f of a draw depends on the batch


def f_of(reshape, w, advantage=1.0):
    return np.exp(reshape(np.log(w), advantage).log_f)


@pytest.fixture
def ratios(rng):
    """Log-ratios around 0 and advantages of both signs, n = 400."""
    return rng.normal(scale=1.5, size=400), rng.normal(size=400)


# --------------------------------------------------------------------------------------- gradients
#
# A bandit of 5 equally likely contexts and 8 actions, softmax policy: expectations are sums.


class Bandit:
    def __init__(self, rng):
        self.logits, noise, self.signed = rng.normal(size=(3, 5, 8))
        self.log_mu = log_softmax(noise, axis=-1)
        self.positive = np.abs(self.signed) + 0.1

    def log_w(self, logits):
        return log_softmax(logits, axis=-1) - self.log_mu

    def mean(self, values):
        """E_mu of a table of values."""
        return np.sum(np.exp(self.log_mu) * values) / len(values)

    def policy_gradient(self, weights):
        """E_mu[weights * grad log pi]; grad log pi(a) is e_a - pi."""
        share = np.exp(self.log_mu) * weights / len(weights)
        return share - share.sum(axis=-1, keepdims=True) * np.exp(log_softmax(self.logits, axis=-1))

    def gradient(self, reshape, advantage):
        reshaped = reshape(self.log_w(self.logits), advantage)
        return self.policy_gradient(np.exp(reshaped.log_f) * reshaped.signal)

    def slope(self, objective):
        """Central differences of a function of the log-ratios."""
        out = np.empty_like(self.logits)
        for at in np.ndindex(out.shape):
            step = np.zeros_like(out)
            step[at] = 1e-5
            up, down = (objective(self.log_w(self.logits + sign * step)) for sign in (1, -1))
            out[at] = (up - down) / 2e-5
        return out


@pytest.fixture
def bandit(rng):
    return Bandit(rng)


def assert_same_gradient(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def by_sign(positive, negative):
    return lambda w, a: np.where(a >= 0, positive(w), negative(w))


def either(function):
    return by_sign(function, function)


def truncated(cap):
    return lambda w: np.where(w < cap, w, cap * (1 + np.log(np.maximum(w, cap) / cap)))


def clipped(low, high):
    return lambda w: np.where(w < low, low * (1 + np.log(np.minimum(w, low) / low)), truncated(high)(w))


def damped(k, lam):
    return lambda w: np.exp(lam) * lam**-k * gamma(k) * gammainc(k, lam * w)


def gated(tau):
    return lambda w: 4 / tau * expit(tau * (w - 1))


def cautious(exponent, caution):
    less = exponent * caution
    return lambda w: np.where(w < 1, (w**less - 1) / less, (w**exponent - 1) / exponent)


def ppo(low, high, dual=None):
    """The surrogate as PPO writes it, over A."""

    def surrogate(w, a):
        value = np.minimum(w * a, np.clip(w, 1 - low, 1 + high) * a)
        return (value if dual is None else np.where(a < 0, np.maximum(value, dual * a), value)) / a

    return surrogate


# (reshape, G): the gradient is that of E_mu[G(w) A], as G'(w) = f(w) / w and grad w = w grad log pi.
OBJECTIVES = [
    (rl.Reinforce(), either(lambda w: w)),
    (rl.PPOClip(), ppo(0.2, 0.2)),
    (rl.PPOClip(0.4, 0.1), ppo(0.4, 0.1)),
    (rl.PPOClip(1.0, 0.3), ppo(1.0, 0.3)),
    (rl.PPOClip(0.2, 0.28, 1.7), ppo(0.2, 0.28, 1.7)),
    (rl.Truncated(1.3), either(truncated(1.3))),
    (rl.Masked(0.6, 1.8), either(lambda w: np.clip(w, 0.6, 1.8))),
    (rl.CISPO(0.6, 1.8), either(clipped(0.6, 1.8))),
    (rl.TOPR(), by_sign(np.log, truncated(1.0))),
    (rl.Cautious(1.3, 3.0), by_sign(truncated(1.3), lambda w: np.where(w < 1, w**3 / 3, 1 / 3 + np.log(w)))),
    (rl.Power(0.0), either(np.log)),
    (rl.Power(0.3), either(lambda w: w**0.3 / 0.3)),
    (rl.Power(1.7), either(lambda w: w**1.7 / 1.7)),
    (rl.Power(0.5, 3.0, log_z=0.0), by_sign(lambda w: 2 * np.sqrt(w), cautious(0.5, 3.0))),
    (rl.Defensive(1.0, 0.2), either(lambda w: np.log(0.8 + 0.2 * w) / 0.2)),
    (rl.Defensive(0.5, 0.3), either(lambda w: np.log(0.7 + 0.3 * np.sqrt(w)) / 0.15)),
    (rl.VESPO(), by_sign(damped(2, 3), damped(3, 2))),
    (rl.VESPO(0.0, 2.0, 0.5, 0.0), by_sign(lambda w: -np.exp(2) * exp1(2 * w), lambda w: 2 * np.sqrt(w))),
    (rl.SAPO(1.0, 1.05), by_sign(gated(1.0), gated(1.05))),
    (rl.SAPO(0.4, 6.0), by_sign(gated(0.4), gated(6.0))),
    (rl.DRos(0.6), either(lambda w: np.sqrt(0.6) * np.arctan(w / np.sqrt(0.6)))),
]


@pytest.mark.parametrize(("reshape", "potential"), OBJECTIVES, ids=[repr(pair[0]) for pair in OBJECTIVES])
def test_gradient_is_that_of_its_objective(bandit, reshape, potential):
    a = bandit.signed
    log_w = bandit.log_w(bandit.logits)
    for sign in (a > 0, a < 0):  # below, between and above the bounds used, at either sign
        for low, high in ((0.0, 0.6), (0.8, 1.1), (1.8, np.inf)):
            assert (sign & (np.exp(log_w) > low) & (np.exp(log_w) < high)).any()
    expected = bandit.slope(lambda log_w: bandit.mean(potential(np.exp(log_w), a) * a))
    assert_same_gradient(bandit.gradient(reshape, a), expected)


def minus_kl(bandit, share, log_w):
    """-KL of a law with these probabilities of (context, action) from the policy."""
    log_pi = log_w + bandit.log_mu - np.log(len(share))
    return np.sum(share * (log_pi - np.log(share)))


def test_sft_climbs_minus_kl_of_mu_from_pi(bandit):
    share = np.exp(bandit.log_mu) / 5
    expected = bandit.slope(lambda log_w: minus_kl(bandit, share, log_w))
    assert_same_gradient(bandit.gradient(rl.SFT(), bandit.signed), expected)


@pytest.mark.parametrize("tau", [None, 0.3, 2.0])
def test_reward_weighted_climbs_minus_kl_of_the_tilted_law(bandit, tau):
    reward = bandit.positive if tau is None else bandit.signed
    tilt = reward if tau is None else np.exp(reward / tau)
    share = np.exp(bandit.log_mu) * tilt
    expected = bandit.slope(lambda log_w: minus_kl(bandit, share / share.sum(), log_w))
    got = bandit.gradient(rl.RewardWeighted(tau), reward)
    # Divided by count the mean tilt is a factor; divided by the sum of the weights it is gone.
    assert_same_gradient(got, bandit.mean(tilt) * expected)
    log_f = rl.RewardWeighted(tau)(bandit.log_w(bandit.logits), reward).log_f
    assert_same_gradient(got / bandit.mean(np.exp(log_f)), expected)


@pytest.mark.parametrize("order", [0.0, 0.3, 0.5, 0.9])
def test_alpha_divergence_descends_to_the_tilted_law(bandit, order):
    beta = 0.8
    log_z = np.log(bandit.mean(np.exp(bandit.signed / beta)))
    best = bandit.signed / beta - log_z  # log p*/mu
    if order == 0:
        expected = bandit.slope(lambda log_w: minus_kl(bandit, np.exp(bandit.log_mu + best) / 5, log_w))
    else:

        def amari(log_w):
            return (1 - bandit.mean(np.exp(best + order * (log_w - best)))) / (order * (1 - order))

        expected = -bandit.slope(amari)
    got = bandit.gradient(rl.AlphaDivergence(order, beta, log_z), bandit.signed)
    assert_same_gradient(got, expected)


def test_alpha_divergence_tends_to_the_kl_regularised_gradient(bandit):
    # C16's other end: KL(pi || p*) = -(E_pi[r] - beta KL(pi || mu)) / beta + log Z.
    beta = 0.8
    log_z = np.log(bandit.mean(np.exp(bandit.signed / beta)))
    got = bandit.gradient(rl.AlphaDivergence(1 - 1e-7, beta, log_z), bandit.signed)
    log_w = bandit.log_w(bandit.logits)
    signal = rl.KLRegularized(beta).signal(bandit.signed, log_w + bandit.log_mu, bandit.log_mu)
    # The constant of the signal has no gradient: take it out of both where it is large.
    expected = bandit.policy_gradient(np.exp(log_w) * signal) / beta
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------ limits


def assert_same_reshape(a, b, log_w, advantage, rtol=0.0):
    for got, expected in zip(a(log_w, advantage), b(log_w, advantage), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("a", "b", "rtol"),
    [
        (rl.Power(1.0), rl.Reinforce(), 0.0),
        (rl.Defensive(0.6, 0.0), rl.Power(0.6), 1e-15),
        (rl.Defensive(0.0, 0.3), rl.Power(0.0), 1e-15),
        (rl.Defensive(0.6, 1.0), rl.Power(0.0), 0.0),
        (rl.Defensive(0.6, 1e-12), rl.Power(0.6), 1e-9),
        (rl.Defensive.sub_gaussian(0.3), rl.Defensive(1.0, 0.3), 0.0),
        (rl.Truncated(1e300), rl.Reinforce(), 0.0),
        (rl.CISPO(0.0, 2.0), rl.Truncated(2.0), 0.0),
        (rl.CISPO(1e-300, 1e300), rl.Reinforce(), 0.0),
        (rl.Masked(0.0, 1e300), rl.Reinforce(), 0.0),
        (rl.PPOClip(1.0, 1e300), rl.Reinforce(), 0.0),
        (rl.PPOClip(0.3, 0.4, 1e300), rl.PPOClip(0.3, 0.4), 0.0),
        (rl.VESPO(0.7, 0.0, 0.7, 0.0), rl.Power(0.7), 0.0),
        (rl.VESPO(1.0, 0.0, 1.0, 0.0), rl.Reinforce(), 0.0),
        (rl.DRos(1e300), rl.Reinforce(), 1e-15),
    ],
    ids=repr,
)
def test_one_is_the_limit_of_another(ratios, a, b, rtol):
    assert_same_reshape(a, b, *ratios, rtol)


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1e-200])
def test_caution_is_relative_to_the_power_mean_of_the_batch(ratios, exponent):
    log_w, advantage = ratios
    log_z = np.log(np.mean(np.exp(exponent * log_w))) / exponent if exponent > 1e-9 else log_w.mean()
    got = rl.Power(exponent, 3.0)(log_w, advantage).log_f
    less = (advantage < 0) & (log_w < log_z)
    expected = exponent * np.where(less, log_z + 3 * (log_w - log_z), log_w)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12 * exponent)
    fixed = rl.Power(exponent, 3.0, log_z=log_z)(log_w, advantage).log_f
    np.testing.assert_allclose(got, fixed, rtol=1e-9, atol=1e-12 * exponent)
    # Draws of no weight, or unknown, have no part in it.
    more = rl.Power(exponent, 3.0)(
        np.append(log_w, [-np.inf, np.nan]), np.append(advantage, [-1.0, -1.0])
    ).log_f
    np.testing.assert_allclose(more[:-2], got, rtol=1e-9)
    assert more[-2] == -np.inf


def test_power_zero_weighs_as_fine_tuning_does(ratios):
    log_w, advantage = ratios
    np.testing.assert_array_equal(rl.Power(0.0)(log_w).log_f, rl.SFT()(log_w).log_f)
    # ... and keeps the advantage, which SFT has no use for.
    np.testing.assert_array_equal(rl.Power(0.0)(log_w, advantage).signal, advantage)
    np.testing.assert_array_equal(rl.SFT()(log_w, advantage).signal, np.ones(400))


def test_alpha_divergence_zero_is_reward_weighting(ratios):
    log_w, reward = ratios
    reshaped = rl.AlphaDivergence(0.0, beta=0.7, log_z=0.0)(log_w, reward)
    expected = rl.RewardWeighted(tau=0.7)(log_w, reward)
    np.testing.assert_array_equal(reshaped.log_f, expected.log_f)
    np.testing.assert_array_equal(reshaped.signal, expected.signal)


def test_topr_goes_by_the_sign(ratios):
    log_w, advantage = ratios
    f = np.exp(rl.TOPR()(log_w, advantage).log_f)
    np.testing.assert_array_equal(f[advantage >= 0], 1.0)
    np.testing.assert_allclose(f[advantage < 0], np.minimum(np.exp(log_w), 1)[advantage < 0], rtol=1e-15)
    assert rl.TOPR()(-3.0, 0.0).log_f == 0.0  # no advantage is not a negative one


@pytest.mark.parametrize("shrinkage", [0.0, 0.05, 0.5, 1.0])
def test_sub_gaussian_is_the_shrinkage_of_open_bandit_pipeline(ratios, shrinkage):
    w = np.exp(ratios[0])
    got = f_of(rl.Defensive.sub_gaussian(shrinkage), w)
    np.testing.assert_allclose(got, w / (1 - shrinkage + shrinkage * w), rtol=1e-14)


def test_defensive_is_the_weight_against_a_mixture(bandit):
    log_w = bandit.log_w(bandit.logits)
    pi, mu = np.exp(log_w + bandit.log_mu), np.exp(bandit.log_mu)
    got = np.exp(rl.Defensive(1.0, 0.25)(log_w).log_f)
    np.testing.assert_allclose(got, pi / (0.25 * pi + 0.75 * mu), rtol=1e-14)


@pytest.mark.parametrize("shrinkage", [0.01, 1.0, 50.0])
def test_optimistic_shrinkage_is_that_of_open_bandit_pipeline(ratios, shrinkage):
    w = np.exp(ratios[0])
    expected = shrinkage * w / (w**2 + shrinkage)
    np.testing.assert_allclose(f_of(rl.DRos(shrinkage), w), expected, rtol=1e-14)


def test_vespo_is_the_formula_of_trl(ratios):
    log_w, advantage = ratios
    w = np.exp(log_w)
    k, lam = np.where(advantage < 0, 3.0, 2.0), np.where(advantage < 0, 2.0, 3.0)
    phi = np.exp(lam) * w**k * np.exp(-lam * w)
    np.testing.assert_allclose(np.exp(rl.VESPO()(log_w, advantage).log_f), phi, rtol=1e-12)
    assert rl.VESPO()(0.0, 0.0) == (0.0, 0.0)  # 1 at w = 1
    assert rl.VESPO()(0.5, 0.0).log_f == rl.VESPO()(0.5, 1.0).log_f


@pytest.mark.parametrize(
    ("w", "advantage", "dual", "f"),
    [
        (1.0, 1.0, None, 1.0),
        (1.1, 1.0, None, 1.1),
        (1.19, 1.0, None, 1.19),
        (1.21, 1.0, None, 0.0),
        (0.5, 1.0, None, 0.5),
        (1.0, -1.0, None, 1.0),
        (1.3, -1.0, None, 1.3),
        (9.0, -1.0, None, 9.0),
        (0.81, -1.0, None, 0.81),
        (0.79, -1.0, None, 0.0),
        (2.9, -1.0, 3.0, 2.9),
        (3.1, -1.0, 3.0, 0.0),
        (0.5, 1.0, 3.0, 0.5),
    ],
)
def test_ppo_moves_where_its_objective_does(w, advantage, dual, f):
    # C6: w where unclipped, else 0; not clip(w) sign(A).
    assert f_of(rl.PPOClip(dual=dual), w, advantage) == pytest.approx(f, rel=1e-15)


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.0])
def test_pareto_smoothed_is_psis_of_the_tempered_weights(rng, exponent):
    log_w = rng.normal(scale=2.0, size=(3, 500))
    got = rl.ParetoSmoothed(exponent)(log_w).log_f
    np.testing.assert_array_equal(got, isdiag.psis(exponent * log_w, normalize=False).log_weights)
    assert (got != exponent * log_w).any()
    assert_same_reshape(rl.ParetoSmoothed(exponent), rl.Power(exponent), log_w[0, :20], 1.0)  # no tail there


def test_gspo_is_the_power_one_over_the_length(rng):
    tokens = [rng.normal(size=(2, length)) for length in (1, 5, 40)]
    whole, geometric = (
        rl.log_ratio([pair[0] for pair in tokens], [pair[1] for pair in tokens], level=level)
        for level in ("sequence", "geometric")
    )
    for i, length in enumerate((1, 5, 40)):
        tempered = rl.Power(1 / length)(whole[i]).log_f
        np.testing.assert_allclose(rl.Reinforce()(geometric[i]).log_f, tempered, rtol=1e-14)


def test_log_z_is_the_mean_of_the_batch(rng):
    log_w, reward = rng.normal(size=(2, 3, 50))
    got = rl.AlphaDivergence(0.3, beta=2.0)(log_w, reward).log_f
    for i in range(3):
        log_z = np.log(np.exp(reward[i] / 2.0).mean())
        expected = rl.AlphaDivergence(0.3, 2.0, log_z)(log_w[i], reward[i]).log_f
        np.testing.assert_allclose(got[i], expected, rtol=1e-12, atol=1e-14)
    # Whatever is added to all rewards, p* is the same.
    shifted = rl.AlphaDivergence(0.3, beta=2.0)(log_w, reward + 1e3).log_f
    np.testing.assert_allclose(shifted, got, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------------------ bounds

log_weights = st.lists(st.floats(-800, 800), min_size=1, max_size=60)


@each
@given(log_w=log_weights, advantage=st.sampled_from([-2.0, 0.5]))
def test_f_is_never_above_its_bound(reshape, log_w, advantage):
    if isinstance(reshape, rl.RewardWeighted):
        advantage = abs(advantage)
    log_f = reshape(log_w, advantage).log_f
    assert not np.isnan(log_f).any()
    assert (log_f <= np.log(reshape.bound) + 1e-12).all()


@each
def test_f_comes_as_near_its_bound_as_one_likes(reshape):
    if isinstance(reshape, (rl.RewardWeighted, *NEEDS_OTHERS)):
        assert reshape.bound == np.inf  # it is the reward that is not bounded, or the batch decides
        return
    log_w = np.linspace(-100, 100, 2_000_001)  # smooth peaks are flat within its steps, edges are not
    if reshape.bound < np.inf:
        log_w = np.append(log_w, np.log(reshape.bound) - 1e-9)
    largest = max(reshape(log_w, advantage).log_f.max() for advantage in (-1.0, 1.0))
    if reshape.bound == np.inf:
        assert largest > 30
    else:
        assert largest == pytest.approx(np.log(reshape.bound), abs=1e-6)


@pytest.mark.parametrize(("k", "lam"), [(1.0, 1000.0), (400.0, 1.0), (0.0, 800.0)])
def test_a_bound_beyond_float64_is_inf(k, lam):
    assert rl.VESPO(k, lam, k, lam).bound == np.inf


# -------------------------------------------------------------------------------- edges and arrays


@each
def test_far_log_weights_raise_no_warning(reshape):
    log_w = np.concatenate([np.linspace(-1e4, 1e4, 1001), [-1e300, 1e300]])
    for advantage in (1e-3, 1.0, 1e3):
        for sign in (1,) if isinstance(reshape, rl.RewardWeighted) else (1, -1):
            log_f, signal = reshape(log_w, sign * advantage)
            assert not np.isnan(log_f).any()
            assert np.isfinite(signal).all()


@each
def test_zero_weight_is_the_limit_and_unknown_weight_is_nan(reshape):
    log_w = np.array([0.3, -np.inf, np.nan, np.inf, -0.4] * 10)
    reward = np.linspace(0.5, 1.5, 50)
    got = reshape(log_w, reward)
    unknown = ~(log_w < np.inf)
    assert np.isnan(got.log_f[unknown]).all()
    # The others are what they are without these.
    known = reshape(log_w[~unknown], reward[~unknown])
    if not isinstance(reshape, rl.AlphaDivergence):  # whose Z is a mean over all
        np.testing.assert_array_equal(got.log_f[~unknown], known.log_f)
    np.testing.assert_array_equal(got.signal[~unknown], known.signal)
    if isinstance(reshape, (rl.SFT, rl.RewardWeighted, rl.TOPR)):
        return  # no weight in f, at this sign of the advantage
    zero = got.log_f[1]
    floor = np.log(reshape.low) if isinstance(reshape, rl.CISPO) and reshape.low else -np.inf
    assert zero == (0.0 if getattr(reshape, "alpha", 0.0) == 1.0 else floor)


def test_negative_advantage_of_zero_weight_has_no_share():
    assert rl.TOPR()(-np.inf, -1.0).log_f == -np.inf


@each
def test_inputs_stay_and_are_not_shared(reshape, rng):
    log_w, reward = rng.normal(size=50), rng.uniform(0.5, 1.5, size=50)
    before = log_w.copy(), reward.copy()
    log_f, signal = reshape(log_w, reward)
    for result in (log_f, signal):
        assert result.dtype == np.float64
        for given_array in (log_w, reward):
            assert not np.shares_memory(result, given_array)
        result[:] = np.nan
    np.testing.assert_array_equal(log_w, before[0])
    np.testing.assert_array_equal(reward, before[1])
    for array in (log_w, reward):
        array.flags.writeable = False
    log_f, signal = reshape(log_w, reward)
    log_f[0] = signal[0] = 1.0  # the caller's to change


@each
def test_any_real_array_passes(reshape, rng):
    torch = optional("torch")
    whole, reward = rng.integers(-3, 4, size=50), rng.integers(1, 5, size=50)
    expected = reshape(whole.astype(float), reward.astype(float))
    tensors = (torch.tensor(whole, dtype=torch.bfloat16, requires_grad=True), torch.tensor(reward))
    for pair in ((whole, reward), (whole.astype(np.float32), reward.astype(np.float16)), tensors):
        for got, want in zip(reshape(*pair), expected, strict=True):
            assert type(got) is np.ndarray
            np.testing.assert_array_equal(got, want)
    got = reshape(whole.tolist(), reward.tolist())
    np.testing.assert_array_equal(got.log_f, expected.log_f)


@each
def test_shapes_broadcast(reshape, rng):
    log_w, reward = rng.normal(size=(4, 1, 40)), rng.uniform(0.5, 1.5, size=(3, 1))
    log_f, signal = reshape(log_w, reward)
    assert log_f.shape == signal.shape == (4, 3, 40)
    for i in range(4):
        for j in range(3):
            row = reshape(log_w[i, 0], np.full(40, reward[j, 0]))
            np.testing.assert_array_equal(log_f[i, j], row.log_f)
            np.testing.assert_array_equal(signal[i, j], row.signal)
    with pytest.raises(ValueError, match="shape"):
        reshape(np.zeros((2, 3)), np.ones(4))


@each
def test_at_changes_gamma_alone(reshape):
    moved = reshape.at(0.37)
    if hasattr(reshape, "gamma"):
        assert type(moved) is type(reshape)
        assert vars(moved) == vars(reshape) | {"gamma": 0.37}
        with pytest.raises(ValueError, match="gamma"):
            reshape.at(-0.1)
    else:
        assert moved is reshape


@pytest.mark.parametrize("value", [1j, "a", True, None])
def test_only_real_numbers(value):
    for pair in (([value], [1.0]), ([1.0], [value])):
        with pytest.raises(TypeError):
            rl.Power()(*pair)


@pytest.mark.parametrize("worst", [0.0, -0.25])
def test_rewards_that_are_not_positive_cannot_weigh(worst):
    with pytest.raises(ValueError, match=f"got {worst:g}.*tau"):
        rl.RewardWeighted()(np.zeros(3), [1.0, worst, np.nan])
    rl.RewardWeighted(tau=1.0)(np.zeros(3), [1.0, worst, 2.0])
