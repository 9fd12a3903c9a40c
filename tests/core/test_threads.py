"""Rows shared out to threads, and one long row shared out to them in parts."""

import re
from pathlib import Path

import numpy as np
import pytest

import isdiag
from isdiag import Status, _kernels
from isdiag._core import parts, threads
from tests import registry
from tests.helpers import assert_same, quiet


def row_of(kind, rng, n):
    row = 2 * rng.normal(size=n)
    if kind == "psis":
        row = 1.2 * rng.exponential(size=n)
    elif kind == "max":
        row *= 0.1
    elif kind == "flat":
        row[:] = 3.0
    elif kind == "levels":
        row = np.where(row > 3.0, 1.0, np.where(row > -2.0, 0.5, row))
    elif kind == "few":
        row[n // 5 :] = -np.inf
    elif kind == "none":
        row[:] = -np.inf
    elif kind == "nan":
        row[-1] = np.nan
    elif kind == "one":
        row[1:] = -np.inf
    return row


def h_of(x):
    return np.broadcast_to(np.cos(np.arange(x.shape[-1])), x.shape)


CALLS = {
    "joint": isdiag.select_gamma,
    "joint, by the tail": lambda x, **o: isdiag.select_gamma(x, ess_min=0.01, **o),
    "refit": lambda x, **o: isdiag.select_gamma(x, rule="refit", **o),
    "khat": lambda x, **o: isdiag.pareto_khat(x, gamma=0.5, **o),
    "psis": isdiag.psis,
    "psis, as given": lambda x, **o: isdiag.psis(x, normalize=False, **o),
    "snis": lambda x, **o: isdiag.snis(x, h_of(x), **o),
    "snis, far h": lambda x, **o: isdiag.snis(x, 1e200 * h_of(x) + 1e203, **o),
    "snis, vectors": lambda x, **o: isdiag.snis(x, np.stack([h_of(x), x > 0], axis=-1), **o),
    "snis, smoothed": lambda x, **o: isdiag.snis(x, h_of(x), smooth="psis", gamma=0.5, **o),
    "snis, truncated": lambda x, **o: isdiag.snis(x, h_of(x), smooth="truncate", **o),
    "truncate": isdiag.truncate,
    "variance test": isdiag.finite_variance_test,
    "log_moment": lambda x, **o: isdiag.log_moment(x, 0.5, **o),
    "renyi": lambda x, **o: isdiag.renyi_divergence(x, 0.5, **o),
    "kl, k2": lambda x, **o: isdiag.kl_divergence(x, estimator="k2", **o),
    "chi2, as given": lambda x, **o: isdiag.chi2_divergence(x, normalize=False, **o),
    "path": lambda x, **o: isdiag.geometric_path(np.zeros_like(x), x, [0.0, 0.5, 1.0], **o),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["ess", "psis", "max", "flat", "levels", "few", "none", "nan", "one"])
@pytest.mark.parametrize("n", [5000, 300_001])
def test_a_row_in_parts_has_the_bits_of_the_whole(rng, monkeypatch, n, kind, call):
    row = row_of(kind, rng, n)
    whole = quiet(CALLS[call], row)
    monkeypatch.setattr(parts, "LONG", 1)
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)
    for workers in (1, 2, 3):
        assert_same(quiet(CALLS[call], row, workers=workers), whole)


def test_long_rows_in_a_batch_are_the_rows_alone(rng):
    n = parts.LONG + 12_345
    rows = rng.normal(size=(3, n)) * [[0.5], [1.5], [3.0]]
    rows[1, ::7] = -np.inf
    for call in ("joint", "psis", "snis"):
        alone = [registry.rows_of(CALLS[call](row)) for row in rows]
        for workers in (2, 4):  # fewer threads than rows, and more
            batch = registry.rows_of(CALLS[call](rows, workers=workers))
            for r in range(3):
                for name, value in alone[r].items():
                    np.testing.assert_array_equal(batch[name][r], value, err_msg=name)
        assert Status.OK in batch["status"].tolist()


def test_a_long_row_is_smoothed_in_place(rng):
    row = rng.normal(size=parts.LONG)
    expected = isdiag.psis(row, workers=2).log_weights
    assert isdiag.psis(row, out=row, workers=2).log_weights is row
    np.testing.assert_array_equal(row, expected)


def test_every_kernel_of_several_passes_can_be_in_parts():
    own = {name for name in vars(parts.Parts) if name.endswith("_rows")}
    assert own <= set(_kernels._HOME)
    source = "".join(path.read_text() for path in Path(parts.__file__).parent.glob("*.py"))
    assert own == set(re.findall(r"parts\.over_rows\(_kernels\.(\w+)", source))


def test_a_kernel_that_fails_in_a_thread_is_heard(monkeypatch):
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)

    def kernel(rows):
        raise MemoryError

    with pytest.raises(MemoryError):
        threads.spread(kernel, (np.zeros((8, 2)),), (), 2)


def test_a_part_that_fails_in_a_thread_is_heard(monkeypatch):
    monkeypatch.setattr(threads, "THREAD_DRAWS", 1)

    def task(first, last):
        if first > 0:
            raise MemoryError

    with pytest.raises(MemoryError), threads.team(2) as share:
        share(task, 8, 1)
