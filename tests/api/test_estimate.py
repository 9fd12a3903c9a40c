"""Estimates on the same draws, quantiles, and how many draws are needed."""

import numpy as np
import pytest
from scipy.stats import norm, t

import isdiag
from isdiag import Status
from isdiag._core import units
from isdiag._core.boundary import rows_of
from tests.helpers import optional, quiet
from tests.registry import log_normal

# ------------------------------------------------------------------------------------------- estimate


def shares(log_w):
    w = np.exp(log_w - log_w.max())
    return w / w.sum()


@pytest.mark.parametrize("options", [{}, {"gamma": 0.5}, {"smooth": "psis"}, {"smooth": "truncate"}])
def test_an_estimate_alone_is_that_of_snis(rng, options):
    x, log_w = log_normal(rng, (3, 500))
    h = np.stack([x, 1e9 + x**2], axis=-1)
    found, plain = isdiag.estimate(log_w, h, **options), isdiag.snis(log_w, h, **options)
    np.testing.assert_array_equal(found.value, plain.estimate)
    np.testing.assert_allclose(found.std_error, plain.std_error, rtol=1e-9)
    assert found.influence.shape == (3, 2, 500)
    np.testing.assert_allclose(np.sqrt((found.influence**2).sum(axis=-1)), found.std_error)
    one, alone = isdiag.estimate(log_w[0], x[0], **options), isdiag.snis(log_w[0], x[0], **options)
    assert (one.low, one.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
    assert (one.status, one.n) == (alone.status, 500)


def test_without_normalising_too(rng):
    x, log_w = log_normal(rng, 400)
    found = isdiag.estimate(log_w, x, normalize=False)
    plain = isdiag.snis(log_w, x, normalize=False)
    assert (found.value, found.std_error, found.low) == pytest.approx(
        (plain.estimate, plain.std_error, plain.low), rel=1e-9
    )
    off = isdiag.estimate(log_w - 9, x, normalize=False)
    assert off.status is Status.NOT_NORMALIZED
    assert off.value == pytest.approx(np.exp(-9) * found.value)
    assert (isdiag.estimate([800.0, 801.0], [1e-300, 2e-300], normalize=False)).value == pytest.approx(
        np.mean(np.exp([800 - 690, 801 - 690]) * np.exp(690 - 300 * np.log(10)) * [1, 2])
    )


def test_differences_know_what_the_draws_share(rng):
    # Targets N(.5, 1) and N(.6, 1) on the same draws: errors of .047 each in quadrature would say .06.
    x = rng.normal(size=(2000, 1000))
    a, b = isdiag.estimate(0.5 * x, x), isdiag.estimate(0.6 * x, x)
    found = b - a
    np.testing.assert_allclose(found.value, b.value - a.value)
    assert found.value.std() == pytest.approx(np.sqrt((found.std_error**2).mean()), rel=0.06)
    assert found.value.std() < 0.2 * np.hypot(a.std_error, b.std_error).mean()
    covered = ((found.low <= 0.1) & (found.high >= 0.1)).mean()
    assert 0.92 < covered < 0.97


def numeric_error(f, log_w, h, eps=1e-6):
    """The infinitesimal jackknife: derivatives of f(weights) by each weight, times it."""
    w = shares(log_w)
    slopes = []
    for i in range(w.size):
        up, down = w.copy(), w.copy()
        up[i] += eps * w[i]
        down[i] -= eps * w[i]
        slopes.append((f(up / up.sum(), h) - f(down / down.sum(), h)) / (2 * eps))
    return np.sqrt(np.sum(np.square(slopes)))


@pytest.mark.parametrize(
    ("combine", "directly"),
    [
        (lambda a, b: a + b, lambda a, b: a + b),
        (lambda a, b: a - b, lambda a, b: a - b),
        (lambda a, b: a * b, lambda a, b: a * b),
        (lambda a, b: a / b, lambda a, b: a / b),
        (lambda a, b: 3 * a - b / 2 + 1, lambda a, b: 3 * a - b / 2 + 1),
        (lambda a, b: 2 - a * 2.0 + 0 * b, lambda a, _: 2 - 2 * a),
        (lambda a, b: -a / (a + b), lambda a, b: -a / (a + b)),
        (lambda a, b: 1 / b + np.float64(2) * a, lambda a, b: 1 / b + 2 * a),
        (lambda a, b: (b - a**2) ** 0.5, lambda a, b: np.sqrt(b - a**2)),
        (lambda a, b: sum([a, b, np.array(1.0)]), lambda a, b: a + b + 1),
    ],
)
def test_arithmetic_is_the_delta_method(rng, combine, directly):
    x, log_w = log_normal(rng, 60, 0.7)
    h = np.stack([x, 2 + x**2])
    a, b = isdiag.estimate(log_w, h[0]), isdiag.estimate(log_w, h[1])
    found = combine(a, b)

    def f(w, h):
        return directly(w @ h[0], w @ h[1])

    assert found.value == pytest.approx(f(shares(log_w), h), rel=1e-12)
    assert found.std_error == pytest.approx(numeric_error(f, log_w, h), rel=1e-6)
    assert type(found.value) is float
    assert found.influence.shape == (60,)


def test_a_probability_given_an_event(rng):
    x, log_w = log_normal(rng, (1500, 600))
    given, both = isdiag.estimate(log_w, x > 0.5), isdiag.estimate(log_w, x > 1.0)
    found = both / given  # under N(1, 1)
    truth = 0.5 / 0.6914624612740131
    assert found.value.std() == pytest.approx(np.sqrt((found.std_error**2).mean()), rel=0.06)
    assert 0.925 < ((found.low <= truth) & (truth <= found.high)).mean() < 0.97


def test_variance_and_standard_deviation(rng):
    x, log_w = log_normal(rng, (2000, 800), 0.5)
    x = 1e6 + x
    mean = isdiag.estimate(log_w, x)
    variance = isdiag.estimate(log_w, (x - mean.value[:, None]) ** 2)
    deviation = variance**0.5
    assert deviation.value.std() == pytest.approx(np.sqrt((deviation.std_error**2).mean()), rel=0.06)
    assert 0.92 < ((deviation.low <= 1) & (deviation.high >= 1)).mean() < 0.97


def test_operands_that_do_not_go_together(rng):
    x = rng.normal(size=100)
    a, b = isdiag.estimate(x, x), isdiag.estimate(x[:99], x[:99])
    with pytest.raises(ValueError, match="n=100 and n=99"):
        _ = a - b
    with pytest.raises(ValueError, match="n=100 and n=50"):
        _ = a / isdiag.estimate(x, x, clusters=np.arange(100) // 2)
    left = isdiag.estimate(np.tile(x, (2, 1)), np.tile(x, (2, 1)))
    with pytest.raises(ValueError, match="not on the same draws"):
        _ = a + left
    pairs, triples = (isdiag.estimate(x, np.stack([x] * d, axis=-1)) for d in (2, 3))
    with pytest.raises(ValueError, match="do not go together"):
        _ = pairs + triples
    assert (pairs - a).value.shape == (2,)
    for wrong in ("1", None, [1.0], 1j):
        with pytest.raises(TypeError):
            _ = a + wrong
        with pytest.raises(TypeError):
            _ = a**wrong


def test_clusters_are_summed_before_they_are_squared(rng):
    x, log_w = log_normal(rng, 60)
    labels = np.repeat([f"prompt {i}" for i in range(20)], 3)
    order = rng.permutation(60)
    found = isdiag.estimate(log_w[order], x[order], clusters=labels[order])
    w = shares(log_w)
    sums = (w * (x - w @ x)).reshape(20, 3).sum(axis=1)
    assert found.std_error == pytest.approx(np.sqrt(np.sum(sums**2)))
    assert found.n == 20
    assert sorted(found.influence) == pytest.approx(sorted(sums))
    each = isdiag.estimate(log_w, x, clusters=np.arange(60))
    assert (each.std_error, each.n) == (isdiag.estimate(log_w, x).std_error, 60)
    where = np.arange(60) < 30
    some = isdiag.estimate(log_w, x, clusters=labels, where=where)
    assert some.n == 10
    assert some.std_error == isdiag.estimate(log_w[:30], x[:30], clusters=labels[:30]).std_error
    whole = isdiag.estimate(np.tile(log_w, (2, 1)), np.tile(x, (2, 1)), clusters=labels)
    assert whole.n.tolist() == [20, 20]


def test_the_error_of_clusters_is_right(rng):
    x = rng.normal(size=(2000, 60, 1)) * 0.9 + rng.normal(size=(2000, 60, 8)) * np.sqrt(1 - 0.81)
    x = x.reshape(2000, 480)
    found = isdiag.estimate(0.5 * x, x, clusters=np.repeat(np.arange(60), 8))
    assert found.value.std() == pytest.approx(np.sqrt((found.std_error**2).mean()), rel=0.08)
    assert found.value.std() > 2 * isdiag.estimate(0.5 * x, x).std_error.mean()
    assert 0.91 < ((found.low <= 0.5) & (found.high >= 0.5)).mean() < 0.97


def test_strata_take_the_error_of_fixed_counts(rng):
    counts, means = np.array([100, 300]), np.array([-1.5, 1.5])
    x = np.concatenate(
        [rng.normal(mean, 1.0, (2000, count)) for mean, count in zip(means, counts, strict=True)], axis=1
    )
    from_each = np.repeat([0, 1], counts)
    log_proposals = -((x - means[:, None, None]) ** 2) / 2
    log_w = isdiag.mixture_log_weights(-(x**2) / 2, log_proposals, counts)
    found, plain = isdiag.estimate(log_w, x, strata=from_each), isdiag.estimate(log_w, x)
    truth = found.value.std()
    assert truth == pytest.approx(np.sqrt((found.std_error**2).mean()), rel=0.06)
    assert np.sqrt((plain.std_error**2).mean()) > 1.15 * truth
    assert 0.92 < ((found.low <= 0) & (found.high >= 0)).mean() < 0.97
    w, row = shares(log_w[0]), x[0]
    f = w * (row - w @ row)
    expected = sum(count * f[from_each == s].var(ddof=1) for s, count in enumerate(counts))
    assert found.std_error[0] == pytest.approx(np.sqrt(expected))


def test_a_stratum_of_one_draw_has_no_error(rng):
    x, log_w = log_normal(rng, 50)
    found = isdiag.estimate(log_w, x, strata=np.arange(50) == 7)
    assert np.isnan(found.std_error)
    assert found.status is Status.ERROR_UNCERTAIN
    assert np.isfinite(found.value)


def test_clusters_within_strata(rng):
    x, log_w = log_normal(rng, 60)
    clusters, strata = np.arange(60) // 3, np.arange(60) // 30
    found = isdiag.estimate(log_w, x, clusters=clusters, strata=strata)
    w = shares(log_w)
    sums = (w * (x - w @ x)).reshape(2, 10, 3).sum(axis=2)
    assert found.std_error == pytest.approx(np.sqrt(10 * sums.var(axis=1, ddof=1).sum()))
    with pytest.raises(ValueError, match="strata must be the same within a cluster"):
        isdiag.estimate(log_w, x, clusters=clusters, strata=np.arange(60) // 31)


def test_a_baseline_is_doubly_robust(rng):
    # A logged bandit, and a model of the reward that is a little off. DR and SNDR of Saito et al. (2021).
    n = 800
    context = rng.normal(size=(1500, n))
    logged, wanted = 1 / (1 + np.exp(-context)), 1 / (1 + np.exp(-1.5 * context - 0.4))
    action = rng.uniform(size=context.shape) < logged
    reward = context + action + 0.5 * rng.normal(size=context.shape)
    model = lambda a: 0.9 * context + 1.1 * a  # noqa: E731
    w = np.where(action, wanted / logged, (1 - wanted) / (1 - logged))
    base = wanted * model(1.0) + (1 - wanted) * model(0.0)
    residual = reward - model(action)
    plain = isdiag.estimate(np.log(w), residual, normalize=False, baseline=base)
    np.testing.assert_allclose(plain.value, (base + w * residual).mean(axis=1))
    np.testing.assert_allclose(plain.std_error, (base + w * residual).std(axis=1, ddof=1) / np.sqrt(n))
    own = isdiag.estimate(np.log(w), residual, baseline=base)
    np.testing.assert_allclose(own.value, (base + w / w.mean(axis=1, keepdims=True) * residual).mean(axis=1))
    assert own.value.std() == pytest.approx(np.sqrt((own.std_error**2).mean()), rel=0.07)
    assert own.value.std() < 0.95 * isdiag.snis(np.log(w), reward).std_error.mean()
    with pytest.raises(ValueError, match="baseline must have h's shape"):
        isdiag.estimate(np.log(w), residual, baseline=base[..., None])
    spoiled = base[0].copy()
    spoiled[3] = np.nan
    with pytest.warns(isdiag.NonFiniteWarning):
        assert isdiag.estimate(np.log(w[0]), residual[0], baseline=spoiled).status is Status.NOT_FINITE_H


def test_trajectories_per_decision(rng):
    # Weights up to each step, and the discounted sum of the steps' estimates, on the same trajectories.
    steps, n, discount = 4, 500, 0.9
    ratio, reward = np.exp(0.3 * rng.normal(size=(steps, n)) - 0.045), rng.normal(1, 1, size=(steps, n))
    up_to = np.cumsum(np.log(ratio), axis=0)
    own = sum(discount**k * isdiag.estimate(up_to[k], reward[k]) for k in range(steps))
    w = np.exp(up_to)
    share = w / w.mean(axis=1, keepdims=True)
    scale = discount ** np.arange(steps)
    assert own.value == pytest.approx((scale @ (share * reward)).mean())
    plain = sum(discount**k * isdiag.estimate(up_to[k], reward[k], normalize=False) for k in range(steps))
    each = scale @ (w * reward)
    assert plain.value == pytest.approx(each.mean())
    assert plain.std_error == pytest.approx(each.std(ddof=1) / np.sqrt(n))


def test_statuses_of_estimates(rng):
    x = rng.normal(size=200)
    assert isdiag.estimate([0.3], [5.0]).status is Status.ONE_DRAW
    assert np.isnan(isdiag.estimate([0.3], [5.0]).std_error)
    constant = isdiag.estimate(x, np.ones(200))
    assert (constant.status, constant.std_error, constant.low) == (Status.CONSTANT_H, 0.0, -np.inf)
    assert (isdiag.estimate(0.1 * x, x) - constant).status is Status.OK
    assert (isdiag.estimate(0.1 * x, x) / (0 * constant)).status is Status.ERROR_UNCERTAIN
    with pytest.warns(isdiag.NonFiniteWarning, match="1 of 1 rows") as caught:
        bad = isdiag.estimate(x, np.where(np.arange(200) == 3, np.inf, x))
    assert caught[0].filename == __file__
    assert np.isnan(bad.value)
    assert (bad + 1).status is Status.NOT_FINITE_H
    assert (isdiag.estimate(0.1 * x, x) - bad).status is Status.NOT_FINITE_H


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_units_of_h_do_not_matter(rng, scale):
    x, log_w = log_normal(rng, 300)
    one, other = isdiag.estimate(log_w, x), isdiag.estimate(log_w, scale * x)
    assert other.std_error / scale == pytest.approx(one.std_error, rel=1e-12)
    assert (other - other / 2).std_error / scale == pytest.approx(one.std_error / 2, rel=1e-12)
    assert other.status == one.status


def test_estimates_in_other_kinds(rng):
    torch = optional("torch")
    x = torch.tensor(rng.normal(size=(2, 50)))
    found = isdiag.estimate(x, x) - 2 * isdiag.estimate(0.5 * x, x)
    assert isinstance(found.value, torch.Tensor)
    assert isinstance(found.influence, torch.Tensor)
    expected = isdiag.estimate(x.numpy(), x.numpy()) - 2 * isdiag.estimate(0.5 * x.numpy(), x.numpy())
    np.testing.assert_array_equal(found.value.numpy(), expected.value)


# ------------------------------------------------------------------------------------------- quantile

LEVELS = np.array([0.0, 0.05, 0.3, 0.5, 0.9, 1.0])


def test_quantiles_are_those_of_numpy(rng):
    x, log_w = log_normal(rng, (3, 401))
    h = np.stack([x, np.round(x, 1)], axis=-1)
    found = isdiag.quantile(log_w, h, LEVELS)
    assert found.estimate.shape == found.status.shape == (3, 2, 6)
    for i, j in np.ndindex(3, 2):
        expected = np.quantile(h[i, :, j], LEVELS, method="inverted_cdf", weights=np.exp(log_w[i]))
        np.testing.assert_array_equal(found.estimate[i, j], expected)
    assert isdiag.quantile(log_w, x, [[0.5], [0.6]]).low.shape == (3, 2, 1)
    assert type(isdiag.quantile(log_w[0], x[0], 0.5).estimate) is float
    np.testing.assert_array_equal(isdiag.quantile(log_w[:, ::-1], h[:, ::-1], LEVELS).low, found.low)


def between_twin(h, log_w, q, times):
    """Where the distance of F to q is within so many standard errors, place by place."""
    order = np.argsort(h)
    h, w = h[order], shares(log_w)[order]
    near = []
    for k in range(h.size + 1):
        left, right = np.append(w[:k], w[max(k - 1, 0)]), np.append(w[k:], w[min(k, h.size - 1)])
        error = np.sqrt(np.sum((1 - q) ** 2 * left**2) + np.sum(q**2 * right**2))
        if abs(w[:k].sum() - q) <= times * error:
            near.append(k)
    ends = np.concatenate([[-np.inf], h, [np.inf]])
    return ends[near[0]], ends[near[-1] + 1]


def test_intervals_of_quantiles_invert_those_of_shares(rng):
    x, log_w = log_normal(rng, 80)
    for q in (0.02, 0.4, 0.95):
        found = isdiag.quantile(log_w, x, q)
        low, high = between_twin(x, log_w, q, 1.0)
        assert found.std_error == pytest.approx((high - low) / 2)
        w = shares(log_w)
        f = w * ((x <= found.estimate) - q)
        draws = np.sum(f**2) ** 2 / np.sum(f**4)

        times = t.ppf(0.975, max(min(2 / (1 / draws - 1 / 80), 79), 1))  # Satterthwaite's
        assert (found.low, found.high) == between_twin(x, log_w, q, times)
        assert found.low <= found.estimate <= found.high


def test_intervals_of_quantiles_cover(rng):

    q = np.array([0.05, 0.5, 0.95])
    for s in (0.0, 1.0):
        x = rng.normal(size=(800, 300))
        found = isdiag.quantile(s * x, x, q)
        truth = norm.ppf(q, s)
        covered = ((found.low <= truth) & (truth <= found.high)).mean(axis=0)
        assert (covered > 0.92).all()
        spread = found.estimate.std(axis=0)
        assert spread[:2] == pytest.approx(np.median(found.std_error, axis=0)[:2], rel=0.2)
        narrow = isdiag.quantile(s * x, x, q, level=0.5)
        share = ((narrow.low <= truth) & (truth <= narrow.high)).mean(axis=0)
        assert (abs(share[:2] - 0.5) < 0.1).all()


def test_a_quantile_beyond_the_draws_has_no_bound(rng):
    x = rng.normal(size=100)
    found = isdiag.quantile(np.zeros(100), x, [0.999, 0.001, 0.5])
    assert (found.estimate[:2] == [x.max(), x.min()]).all()
    assert (found.high[0], found.low[1]) == (np.inf, -np.inf)
    assert (found.std_error[:2] == np.inf).all()
    assert found.status.tolist() == [Status.ERROR_UNCERTAIN, Status.ERROR_UNCERTAIN, Status.FLAT]


def test_statuses_of_quantiles(rng):
    x = rng.normal(size=(5, 60))
    log_w, h = x.copy(), x.copy()
    log_w[1, 3], log_w[2], h[3, 4] = np.nan, -np.inf, np.inf
    found = quiet(isdiag.quantile, log_w, h, 0.5)
    assert found.status[1:4].tolist() == [Status.NOT_FINITE, Status.NO_WEIGHT, Status.NOT_FINITE_H]
    assert np.isnan(found.estimate[1:4]).all()
    assert found.estimate[4] == isdiag.quantile(log_w[4], h[4], 0.5).estimate
    one = isdiag.quantile([0.0], [3.0], 0.5)
    assert (one.estimate, one.status) == (3.0, Status.ONE_DRAW)
    assert np.isnan([one.low, one.high, one.std_error]).all()
    constant = isdiag.quantile(np.zeros(50), np.full(50, 2.0), 0.5)
    assert (constant.low, constant.high, constant.status) == (2.0, 2.0, Status.CONSTANT_H)


# ------------------------------------------------------------------------------------------ draws_needed


def test_a_pilot_asks_for_what_is_needed(rng):
    s, wanted = 0.7, 0.1
    x = rng.normal(size=(400, 400))
    needed = isdiag.draws_needed(s * x, x, half_width=wanted)
    truth = np.exp(s**2) * (1 + s**2) * (1.96 / wanted) ** 2
    assert 0.35 < (needed >= truth).mean() < 0.65
    plain = 400 * (1.96 * isdiag.snis(s * x, x).std_error / wanted) ** 2
    assert (plain >= truth).mean() < 0.35


def test_draws_needed_by_the_tail(rng):
    x = rng.exponential(size=4000)
    light = isdiag.draws_needed(-x, x, half_width=0.01)
    assert isdiag.draws_needed(-x, x, half_width=0.02) == pytest.approx(light / 4)
    assert isdiag.draws_needed(-x, 10 * x + 3, half_width=0.1) == pytest.approx(light)
    found = isdiag.snis(-x, x)
    plain = 1.96 * found.std_error  # Student's t is a little wider
    assert 4000 < isdiag.draws_needed(-x, x, half_width=plain) < 4000 * 1.1
    heavy = 0.7 * x
    k = isdiag.expectation_diagnostics(heavy, x).khat
    assert 0.5 < k < 1
    ratio = isdiag.draws_needed(heavy, x, half_width=0.01) / isdiag.draws_needed(heavy, x, half_width=0.02)
    assert ratio == pytest.approx(2 ** (1 / (1 - k)))
    assert isdiag.draws_needed(1.5 * x, x, half_width=0.01) == np.inf
    assert np.isnan(isdiag.draws_needed(x, np.ones(4000), half_width=0.01))
    assert np.isnan(isdiag.draws_needed(x[:10], x[:10], half_width=0.01))
    assert isdiag.draws_needed(-x, np.stack([x, x**2], axis=-1), half_width=0.01).shape == (2,)


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_values_without_weight_set_no_units(rng, odd):
    log_w, h = rng.normal(size=(2, 60))
    log_w[::3] = -np.inf
    expected = isdiag.estimate(log_w, h)
    h[::3] = odd
    found = isdiag.estimate(log_w, h)
    assert (found.value, found.std_error) == (expected.value, expected.std_error)
    rows = rows_of(log_w, -1, None)
    given = units.in_units(rows, h[None], rows.same(1.0))
    assert np.shares_memory(given.values, h)
