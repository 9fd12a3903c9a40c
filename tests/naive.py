"""Slow and obvious twins of the kernels, written from the papers in plain NumPy and mpmath."""

import math

import mpmath
import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp


def gpd_fit(excesses, prior=True):
    """Zhang & Stephens (2009): (k, sigma, standard error of k)."""
    x = np.sort(np.asarray(excesses, float))
    m = x.size
    quartile = x[int(m / 4 + 0.5) - 1]
    size = 30 + math.isqrt(m)
    j = np.arange(1, size + 1)
    theta = 1 / x[-1] + (1 - np.sqrt(size / (j - 0.5))) / (3 * quartile)
    k = np.array([np.mean(np.log1p(-t * x)) for t in theta])
    log_lik = m * (np.log(-theta / k) - k - 1)
    weight = np.exp(log_lik - logsumexp(log_lik))
    theta_hat = np.sum(weight * theta)
    k_hat = np.mean(np.log1p(-theta_hat * x))
    sigma = -k_hat / theta_hat
    variance = np.sum(weight * ((k - np.sum(weight * k)) ** 2 + k**2 / m))
    if prior:
        k_hat = (m * k_hat + 5) / (m + 10)
        variance *= (m / (m + 10)) ** 2
    return k_hat, sigma, np.sqrt(variance)


def weighted_gpd_fit(excesses, weights, prior=True):
    """The same of weighted excesses: weighted means, and Kish's effective number in place of m."""
    order = np.argsort(excesses)
    x, w = np.asarray(excesses, float)[order], np.asarray(weights, float)[order]
    w = w / w.sum()
    m = 1 / np.sum(w**2)
    quartile = x[np.searchsorted(np.cumsum(w), (int(x.size / 4 + 0.5) - 0.5) / x.size)]
    size = 30 + math.isqrt(int(m))
    j = np.arange(1, size + 1)
    theta = 1 / x[-1] + (1 - np.sqrt(size / (j - 0.5))) / (3 * quartile)
    k = np.log1p(-theta[:, None] * x) @ w
    log_lik = m * (np.log(-theta / k) - k - 1)
    weight = np.exp(log_lik - logsumexp(log_lik))
    theta_hat = np.sum(weight * theta)
    k_hat = np.log1p(-theta_hat * x) @ w
    sigma = -k_hat / theta_hat
    variance = np.sum(weight * ((k - np.sum(weight * k)) ** 2 + k**2 / m))
    if prior:
        k_hat = (m * k_hat + 5) / (m + 10)
        variance *= (m / (m + 10)) ** 2
    return k_hat, sigma, np.sqrt(variance)


def fits_poorly(log_w, m):
    """Whether the m largest weights look unlike the generalised Pareto law fitted to them."""
    w = np.sort(np.exp(np.asarray(log_w, float) - np.max(log_w)))
    excesses = w[-m:] - w[-m - 1]
    k, sigma, _ = gpd_fit(excesses, prior=False)
    share = (np.arange(16) + 0.5) / 16
    bound = sigma * np.expm1(-k * np.log1p(-share)) / k
    distance = max(abs(np.mean(excesses < b) - p) for b, p in zip(bound, share, strict=True))
    return distance > 0.08 and distance * math.sqrt(m) > 1.5


def psis(log_w, m):
    """Pareto smoothed and normalised log-weights, and khat, with a tail of m draws."""
    x = np.asarray(log_w, float) - np.max(log_w)
    order = np.argsort(x, kind="stable")
    tail = order[-m:]
    cutoff = x[order[-m - 1]]
    k, sigma, _ = gpd_fit(np.exp(x[tail]) - np.exp(cutoff))
    p = (np.arange(1, m + 1) - 0.5) / m
    x[tail] = np.minimum(np.log(sigma * ((1 - p) ** -k - 1) / k + np.exp(cutoff)), 0)
    return x - logsumexp(x), k


def leave_one_out(log_lik, m):
    """Log predictive densities without the observation and with it, and how draws move the former."""
    x = np.asarray(log_lik, float)
    log_weights, k = psis(-x, m)
    elpd = logsumexp(log_weights + x)
    influence = np.exp(log_weights) * np.expm1(x - elpd)
    return {"khat": k, "elpd": elpd, "lppd": logsumexp(x) - np.log(x.size), "influence": influence}


def khat(log_w, m, gamma=1.0):
    return psis(gamma * np.asarray(log_w), m)[1]


def ess(log_w, gamma=1.0):
    with mpmath.workdps(40):
        finite = [mpmath.mpf(float(v)) for v in log_w if v > -np.inf]
        top = max(finite)
        e = [mpmath.exp(gamma * (v - top)) for v in finite]
        return float(sum(e) ** 2 / sum(v * v for v in e))


def gamma_by_ess(log_w, ratio):
    """The gamma in (0, inf) at which ESS is ratio * n; log-weights are scaled by their range first."""
    x = np.asarray(log_w, float)
    n = x.size
    x = x[np.isfinite(x)] - x.max()
    scale = -x.min()
    x = x / scale

    def excess(g):
        return 2 * logsumexp(g * x) - logsumexp(2 * g * x) - math.log(ratio * n)

    high = 1.0
    while excess(high) > 0:
        high *= 2
    return brentq(excess, 0.0, high, xtol=1e-300, rtol=1e-15) / scale


def longest_step(log_w, log_weights, ess_min, most=1.0):
    """The step in (0, most) at which the ESS of the weights after it is ess_min * n."""
    x, v = np.asarray(log_w, float), np.asarray(log_weights, float)

    def excess(step):
        after = v + step * x
        return 2 * logsumexp(after) - logsumexp(2 * after) - math.log(ess_min * x.size)

    return most if excess(most) >= 0 else brentq(excess, 0.0, most, xtol=1e-15, rtol=1e-14)


def snis(log_w, h, gamma=1.0):
    """(estimate, standard error, bias) for scalar h."""
    log_w, h = np.asarray(log_w, float), np.asarray(h, float)
    w = np.exp(gamma * (log_w - log_w.max()))
    w /= w.sum()
    estimate = np.sum(w * h)
    return estimate, np.sqrt(np.sum(w**2 * (h - estimate) ** 2)), -np.sum(w**2 * (h - estimate))


def truncation_level(log_w):
    """The log-weight at which the rule "mse" cuts, for draws without ties."""
    x = np.asarray(log_w, float) - np.max(log_w)
    n = x.size
    w = np.exp(x)
    ionides = w.mean() * np.sqrt(n)
    m = int(min(n / 5, 3 * np.sqrt(n)))
    ordered = np.sort(w)
    cutoff = ordered[-m - 1]
    k, sigma, _ = gpd_fit(ordered[-m:] - cutoff)
    k = min(k, 1)
    fitted = cutoff + sigma * ((2 * m) ** k - 1) / k  # exceeded half a time in n draws
    if fitted < ionides and np.sum(w > fitted) > 2:
        fitted = ionides
    level = ionides**0.25 * fitted**0.75
    if level < 1:  # how many draws share what is cut
        excess = np.maximum(ordered[-m:] - level, 0)
        level **= np.max(excess) ** 2 / np.sum(excess**2)
    return np.max(log_w) + np.log(level)


def influence_and_estimate(weights, h):
    share = weights / weights.sum()
    estimate = np.sum(share * h)
    return share * (h - estimate), estimate


def path_step(log_w, h, gamma, order):
    """(influence, estimate): the Taylor polynomial at gamma of the mean of h under w^gamma, taken at 1."""
    w = np.exp(gamma * (log_w - log_w.max()))
    share = w / w.sum()
    influence, estimate = influence_and_estimate(w, h)
    t = log_w - np.sum(share * log_w)
    v = h - estimate
    a = 1 - gamma
    if order >= 1:
        c1 = np.sum(share * v * t)
        influence = influence + a * share * (v * t - c1)
    if order == 2:
        variance, c2 = np.sum(share * t * t), np.sum(share * v * t * t)
        influence = influence + a**2 / 2 * share * (v * t * t - c2 - v * variance - 2 * t * c1)
    for k in range(1, order + 1):
        estimate += a**k / math.factorial(k) * np.sum(share * v * t**k)
    return influence, estimate


def least_error(log_w, h, level):
    """(estimate, standard error, bias) of the rule "mse", all weights being positive."""
    log_w, h = np.asarray(log_w, float), np.asarray(h, float)
    w = np.exp(np.minimum(log_w, level) - log_w.max())
    f, estimate = influence_and_estimate(w, h)
    share = w / w.sum()
    moved, taper, rest = [], [], []
    for gamma, order in ((0.0, 1), (0.0, 2), (0.375, 1), (0.75, 0)):
        g, step = path_step(log_w, h, gamma, order)
        d, variance = step - estimate, np.sum((g - f) ** 2)
        gain = max(np.sum(f * f) - np.sum(f * g), 0.0)
        moved.append(min(gain / variance, 1.0))
        taper.append(max(1 - d * d / (9 * variance), 0.0))
        rest.append((gain, d, g))
    taper[0] = min(taper[0], taper[1])
    moved = np.array(moved) * taper
    weight = moved * [each[0] for each in rest]
    part = moved * weight / weight.sum() if weight.sum() > 0 else 0 * moved
    raw = np.exp(log_w - log_w.max())
    of_plain, plain = influence_and_estimate(raw, h)
    bias = -plain - np.sum(raw / raw.sum() * of_plain)
    left_out = (1 - part.sum()) * f / (1 - share)
    for p, (_, d, g) in zip(part, rest, strict=True):
        estimate += p * d
        left_out += p * g
    n = h.size
    return estimate, np.sqrt((n - 1) / n * np.sum(left_out**2)), estimate + bias


def quantile(h, w, q):
    """The least h up to which the weights have a share q, and how many draws carry that share's error."""
    x, below, squares, fourths = _shares(h, w)
    at = min(np.searchsorted(below, q - 1e-15), x.size - 1)
    seconds = (1 - q) ** 2 * squares[at] + q**2 * (squares[-1] - squares[at])
    return x[at], seconds**2 / ((1 - q) ** 4 * fourths[at] + q**4 * (fourths[-1] - fourths[at]))


def quantile_ends(h, w, q, times):
    """The values between which the share of the weight is within so many of its standard errors of q."""
    x, below, squares, _ = _shares(h, w)
    f, seen = np.append(0.0, below), np.append(0.0, squares)
    each = np.diff(seen)
    left = seen + np.append(each[0], each)
    right = seen[-1] - seen + np.append(each, each[-1])
    near = np.flatnonzero(np.abs(f - q) <= times * np.sqrt((1 - q) ** 2 * left + q**2 * right) + 1e-15)
    if not near.size:
        return (x[np.searchsorted(below, q)],) * 2
    ends = np.concatenate([[-np.inf], x, [np.inf]])
    return ends[near[0]], ends[near[-1] + 1]


def _shares(h, w):
    x, group = np.unique(h[w > 0], return_inverse=True)
    w = w[w > 0]
    below, squares, fourths = (np.bincount(group, w**p).cumsum() / w.sum() ** p for p in (1, 2, 4))
    below[-1] = 1.0
    return x, below, squares, fourths
