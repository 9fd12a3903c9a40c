"""The terms that divergences average, their sums and their errors, against mpmath and NumPy."""

import mpmath
import numpy as np
import pytest

import isdiag
from isdiag._kernels import records
from tests.kernels import compiled as k

ORDERS = (0.0, 1e-300, 1e-9, 0.1, 0.3, 0.5, 0.7, 0.999, 1.0, 1.0 + 1e-12, 1.2, 2.0, 7.5, 300.0)


def terms(kind, order, *, high=0.0, top=0.0, unit=0, sums=k.OF_PAIRS, origin=0.0, slope=0.0):
    return k.Terms(getattr(records, kind), order, high, top, unit, sums, origin, slope)


def written(row, of):
    out = np.empty(row.size)
    k.write_terms(row, of._replace(sums=k.OF_INFLUENCE), out)
    return out


def generator(log, a):
    """Of one weight, in mpmath."""
    w, log, a = mpmath.exp(mpmath.mpf(log)), mpmath.mpf(log), mpmath.mpf(a)
    if a == 1:
        return w * log - w + 1
    if a == 0:
        return w - 1 - log
    return (w**a - a * w + a - 1) / (a * (a - 1))


@pytest.mark.parametrize("order", ORDERS)
def test_generator_to_the_last_digits_at_any_weight(rng, order):
    reach = 1.0 / max(order, 1.0)
    logs = np.concatenate([reach * rng.normal(scale=s, size=30) for s in (1e-12, 1e-6, 1e-2, 0.5, 2.0)])
    got = written(logs, terms("GENERATOR", order))
    with mpmath.workdps(700):
        exact = np.array([float(generator(log, order)) for log in logs])
    # The weights themselves are known to an ulp of 1, and differ by 1 / order where the two ways meet.
    np.testing.assert_allclose(got, exact, rtol=2e-14 * max(order / 30, 1.0))
    apart = written(logs, terms("GENERATOR_APART", order))
    np.testing.assert_allclose(apart, exact, rtol=1e-13, atol=1e-15 / max(order, 1.0))
    near = np.abs(logs) * max(order, 1.0) <= 0.35
    series = written(logs[near], terms("GENERATOR_NEAR_1", order))
    np.testing.assert_allclose(series, exact[near], rtol=1e-15)


def test_generator_at_the_ends():
    row = np.array([-np.inf, 0.0, -1e300, 300.0])
    assert written(row, terms("GENERATOR", 0.0)).tolist()[:3] == [0.0, 0.0, 1e300]
    assert written(row, terms("GENERATOR", 1.0)).tolist()[:3] == [0.0, 0.0, 1.0]
    assert written(row, terms("GENERATOR", 1e308)).tolist()[1] == 0.0
    # In units of 2^1000 a power is a number that is none in units of 1.
    scaled = written(row, terms("GENERATOR", 3.0, unit=1000))[3]
    assert scaled == pytest.approx(float(mpmath.exp(900) / 6 / mpmath.mpf(2) ** 1000), rel=1e-12)


@pytest.mark.parametrize("n", [1, 63, 1024, 5000, 70_000])
@pytest.mark.parametrize("kind", ["GENERATOR", "RATIO", "LESS_ONE", "WEIGHTED", "MINUS_LOG", "HALF_SQUARE"])
def test_sums_of_powers_of_terms(rng, kind, n):
    row = rng.uniform(-0.2, 0.0, size=n)
    row[::7] = -np.inf
    positive = row > -np.inf
    high, top = 0.05, 0.1
    below = np.where(positive, row - high, 0.0)
    log = below + top
    order = 0.0 if kind == "MINUS_LOG" else 1.0
    g = {
        "GENERATOR": np.exp(log) * log - np.expm1(log),
        "RATIO": np.exp(below),
        "LESS_ONE": np.expm1(below),
        "WEIGHTED": np.exp(below) * log,
        "MINUS_LOG": -log,
        "HALF_SQUARE": np.exp(below) * log**2 / 2,
    }[kind]
    x, g = np.where(positive, np.expm1(log), 0.0), np.where(positive, g, 0.0)
    of = terms(kind, order, high=high, top=top)
    ws = k.new_term_scratch(n)
    k.fill_term_sums(row, of, ws)
    powers = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
    powers += ((4, 0), (3, 1), (2, 2), (1, 3), (0, 4))
    expected = [np.sum(x**i * g**j) for i, j in powers]
    size = [np.sum(np.abs(x**i * g**j)) for i, j in powers]
    assert (np.abs(ws.totals - expected) <= 1e-13 * np.array(size)).all()
    # The same of what a draw adds: a segment at a time, as threads have them.
    f = np.where(positive, g - 0.01 - 0.3 * x, 0.0)
    of = terms(kind, order, high=high, top=top, sums=k.OF_INFLUENCE, origin=0.01, slope=0.3)
    k.term_sums_part(row, 0, len(ws.sums), of, ws.sums)
    k.total_of(ws.sums, len(ws.sums), ws.totals)
    for place, power in ((1, 1), (4, 2), (8, 3), (13, 4)):
        assert abs(ws.totals[place] - np.sum(f**power)) <= 1e-13 * np.sum(np.abs(f) ** power)
    np.testing.assert_allclose(written(row, of), f, rtol=1e-12, atol=1e-15)


CALLS = {
    "kl": isdiag.kl_divergence,
    "kl, proposal": lambda x: isdiag.kl_divergence(x, direction="proposal"),
    "chi2": isdiag.chi2_divergence,
    "renyi": lambda x: isdiag.renyi_divergence(x, 0.5),
    "moment": lambda x: isdiag.log_moment(x, 0.5),
    "moment, normalised": lambda x: isdiag.log_moment(x, 3.0, normalize=True),
}


def exactly(log_w, call):
    """(estimate, standard error) by the delta method, in mpmath."""
    w = [mpmath.exp(mpmath.mpf(float(x))) for x in log_w]
    n, mean = len(w), sum(w) / len(w)
    u = [x / mean for x in w]
    if call == "moment":
        power = [mpmath.sqrt(x) for x in w]
        moment = sum(power) / n
        value, influence = mpmath.log(moment), [p / moment - 1 for p in power]
    elif call in {"renyi", "moment, normalised"}:
        a = mpmath.mpf("0.5" if call == "renyi" else 3)
        power = [x**a for x in u]
        moment = sum(power) / n
        over = a - 1 if call == "renyi" else 1
        value = mpmath.log(moment) / over
        influence = [(p / moment - 1 - a * (x - 1)) / over for p, x in zip(power, u, strict=True)]
    else:
        terms_of = {
            "kl": (lambda x: x * mpmath.log(x) - x + 1, 1),
            "kl, proposal": (lambda x: x - 1 - mpmath.log(x), 0),
            "chi2": (lambda x: (x - 1) ** 2, 2),
        }
        g, slope = terms_of[call]
        each = [g(x) for x in u]
        value = sum(each) / n
        influence = [y - value - slope * value * (x - 1) for x, y in zip(u, each, strict=True)]
    return float(value), float(mpmath.sqrt(sum(f**2 for f in influence)) / n)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("spread", [1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 3.0])
def test_estimates_and_errors_keep_their_digits_at_any_spread(rng, spread, call):
    log_w = spread * rng.normal(size=50)
    with mpmath.workdps(80):
        value, std_error = exactly(log_w, call)
    got = CALLS[call](log_w)
    assert got.estimate == pytest.approx(value, rel=1e-12)
    assert got.std_error == pytest.approx(std_error, rel=1e-12)


@pytest.mark.parametrize("outlier", [-1.0, 8.0, -np.inf])
def test_one_weight_apart_from_others_that_are_nearly_equal(rng, outlier):
    log_w = 1e-9 * rng.normal(size=2000)
    log_w[7] = outlier
    w = np.exp(log_w)
    u = w / w.mean()
    kl = isdiag.kl_divergence(log_w)
    each = np.where(u > 0, u * np.log(np.where(u > 0, u, 1)), 0.0) - (u - 1)
    influence = each - each.mean() * u
    assert kl.estimate == pytest.approx(each.mean(), rel=1e-10)
    assert kl.std_error == pytest.approx(
        np.sqrt(np.mean((influence - influence.mean()) ** 2) / 2000), rel=1e-9
    )
