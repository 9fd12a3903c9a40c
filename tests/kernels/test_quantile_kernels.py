"""Quantiles and their ends against a sort of all draws."""

import numpy as np
import pytest

from isdiag import _kernels
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK
from tests import naive

Q = np.array([0.003, 0.1, 0.5, 0.8, 0.999])
TIMES = np.array([0.3, 2.0, 30.0])
KINDS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "of all sizes": lambda rng, n: np.sign(rng.normal(size=n)) * np.exp(rng.uniform(-700, 700, n)),
    "two values": lambda rng, n: np.where(rng.random(n) < 0.3, -0.0, 5.0),
    "integers": lambda rng, n: rng.integers(-3, 9, n).astype(float),
    "many in one place": lambda rng, n: np.where(rng.random(n) < 0.9, 1e-12, 1.0) * rng.normal(size=n),
    "many neighbours": lambda rng, n: 1.0 + rng.integers(0, 9, n) * np.spacing(1.0),
    "most tie": lambda rng, n: np.where(rng.random(n) < 0.8, 1.0, rng.normal(size=n)),
    "the largest": lambda rng, n: np.where(rng.random(n) < 0.5, 1.79e308, -1.79e308),
}


def found(log_w, h):
    """(estimate, draws behind its error, status, ends) of one row."""
    row, one = log_w[None], np.ones(1)
    shape = (1, 1, Q.size)
    estimate, error_draws, status = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int8)
    _kernels.quantile_rows(row, one, h[None], estimate, error_draws, status, Q)
    ends = np.full((*shape, TIMES.size, 2), np.nan)
    times = np.broadcast_to(TIMES, (*shape, TIMES.size)).copy()
    _kernels.quantile_end_rows(row, one, h[None], times, estimate, ends, Q)
    return estimate[0, 0], error_draws[0, 0], status[0, 0], ends[0, 0]


@pytest.mark.parametrize("n", [1, 2, 9, 4096, 30_000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_quantiles_are_those_of_sorted_draws(rng, kind, n, spread):
    log_w, h = spread * rng.normal(size=n), KINDS[kind](rng, n)
    log_w[1::7] = -np.inf
    w = np.exp(log_w - log_w.max())
    estimate, error_draws, status, ends = found(log_w, h)
    assert set(status) == {CONSTANT_H if np.unique(h[w > 0]).size == 1 else OK}
    for k, q in enumerate(Q):
        value, carried = naive.quantile(h, w, q)
        assert estimate[k] == value
        lost = 1e-14 / min(q, 1 - q) ** 4  # to what is subtracted
        np.testing.assert_allclose(error_draws[k], carried, rtol=1e-11 + lost)
        for t, times in enumerate(TIMES):
            np.testing.assert_array_equal(ends[k, t], naive.quantile_ends(h, w, q, times))


@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
def test_values_count_where_there_is_weight(rng, odd):
    log_w, h = rng.normal(size=(2, 50))
    h[7] = odd
    estimate, _, status, ends = found(log_w, h)
    assert set(status) == {NOT_FINITE_H}
    assert np.isnan(estimate).all()
    assert np.isnan(ends).all()
    log_w[7] = -np.inf
    left_out = np.delete(log_w, 7), np.delete(h, 7)
    for with_it, without in zip(found(log_w, h), found(*left_out), strict=True):
        np.testing.assert_array_equal(with_it, without)


def test_rows_without_weight_stay(rng):
    estimate, error_draws, _, ends = found(np.full(9, -np.inf), rng.normal(size=9))
    assert np.isnan([*estimate, *error_draws, *ends.ravel()]).all()
