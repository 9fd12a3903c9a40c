"""Rows shared out to threads, and one long row shared out to them."""

import warnings

import numpy as np
import pytest

import isdiag
from isdiag import Status
from isdiag._core import threads
from tests.helpers import assert_same


def fields(selection):
    return {name: getattr(selection, name) for name in selection.__dataclass_fields__}


@pytest.mark.parametrize("rule", ["joint", "refit"])
@pytest.mark.parametrize("kind", ["ess", "psis", "max", "flat", "few", "none", "nan", "one"])
@pytest.mark.parametrize("n", [5000, 700_001])
def test_a_long_row_gives_the_numbers_of_a_short_one(rng, monkeypatch, n, kind, rule):
    row = 2 * rng.normal(size=n)
    if kind == "psis":
        row = 1.2 * rng.exponential(size=n)
    elif kind == "max":
        row *= 0.1
    elif kind == "flat":
        row[:] = 3.0
    elif kind == "few":
        row[n // 5 :] = -np.inf
    elif kind == "none":
        row[:] = -np.inf
    elif kind == "nan":
        row[-1] = np.nan
    elif kind == "one":
        row[1:] = -np.inf
    options = {"rule": rule, "ess_min": 0.01 if kind == "psis" else 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", isdiag.NonFiniteWarning)
        short = isdiag.select_gamma(row, **options)
        monkeypatch.setattr(threads, "LONG", 1)
        monkeypatch.setattr(threads, "THREAD_DRAWS", 1)
        long = [isdiag.select_gamma(row, **options, workers=workers) for workers in (1, 2, 3)]
    for other in long[1:]:
        assert_same(long[0], other)
    assert short.status == long[0].status
    assert short.limited_by == long[0].limited_by
    for name in ("gamma", "gamma_ess", "gamma_psis", "khat", "khat_tempered", "ess"):
        assert getattr(long[0], name) == pytest.approx(getattr(short, name), rel=1e-13, nan_ok=True)
    if kind == "psis" and rule == "joint":
        assert short.limited_by == "psis"


def test_long_rows_in_a_batch_are_the_rows_alone(rng):
    n = threads.LONG + 12_345
    rows = rng.normal(size=(3, n)) * [[0.5], [1.5], [3.0]]
    rows[1, ::7] = -np.inf
    batch = isdiag.select_gamma(rows, workers=2)
    for r in range(3):
        alone = isdiag.select_gamma(rows[r])
        for name, value in fields(alone).items():
            assert getattr(batch, name)[r] == value
    assert set(batch.status.tolist()) == {Status.OK}


def test_a_kernel_that_fails_in_a_thread_is_heard(monkeypatch):
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)

    def kernel(rows):
        raise MemoryError

    with pytest.raises(MemoryError):
        threads.spread(kernel, (np.zeros((8, 2)),), (), 2)
