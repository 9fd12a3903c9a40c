"""Leave-one-out against its naive twin, at any scale, and what it says of bad rows."""

import numpy as np
import pytest
from scipy.special import logsumexp

import isdiag
from isdiag import Status
from isdiag._core import leave_one_out, tails
from isdiag._core.boundary import rows_of
from tests import naive


def left_out(log_lik, workers=1, in_place=False):
    rows = rows_of(-np.asarray(log_lik), -1, None)
    influence = rows.values.copy()
    if in_place:
        rows = rows.holding(influence)
    found = leave_one_out.leave_one_out(rows, tails.lengths_of(rows), influence, workers)
    return found, influence


@pytest.mark.parametrize("n", [40, 1000, 1024, 2500])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, -3.0), (2.5, 5e4), (0.7, -9e5)])
def test_its_naive_twin(rng, n, scale, offset):
    log_lik = -scale * rng.normal(size=(3, n)) ** 2 + offset
    found, influence = left_out(log_lik)
    for r in range(3):
        twin = naive.leave_one_out(log_lik[r], isdiag.tail_length(n))
        assert found["khat"][r] == pytest.approx(twin["khat"], rel=1e-6 if scale < 1e-3 else 1e-10)
        for name in ("elpd", "lppd"):
            assert found[name][r] == pytest.approx(twin[name], rel=1e-13, abs=1e-13), name
        np.testing.assert_allclose(influence[r], twin["influence"], rtol=1e-5, atol=2e-12 / n)
        assert found["error"][r] == pytest.approx(np.sqrt(np.sum(twin["influence"] ** 2)), rel=1e-5)
    again = isdiag.psis(-log_lik)
    for name in ("khat", "ess", "tail_length", "n", "status"):
        np.testing.assert_array_equal(found[name], getattr(again, name), err_msg=name)


def test_in_place_and_by_workers_nothing_changes(rng, monkeypatch):
    monkeypatch.setattr("isdiag._core.threads.THREAD_DRAWS", 1)
    log_lik = rng.normal(size=(9, 1500))
    expected = left_out(log_lik)
    for found in (left_out(log_lik, 2), left_out(log_lik, in_place=True)):
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_the_error_of_khat_is_that_of_the_fit(rng):
    log_lik = -rng.exponential(size=(2, 600)) * [[0.3], [0.8]]
    found, _ = left_out(log_lik)
    m = isdiag.tail_length(600)
    for r in range(2):
        w = np.sort(np.exp(-log_lik[r]))
        fit = isdiag.gpd_fit(w[-m:] - w[-m - 1])
        assert found["khat"][r] == pytest.approx(fit.k, abs=1e-12)
        assert found["khat_std_error"][r] == pytest.approx(fit.k_std_error, rel=1e-10)


def test_rows_that_have_no_answer(rng):
    log_lik = rng.normal(size=(7, 300))
    log_lik[0] = -4.5
    log_lik[1, 3] = np.nan
    log_lik[2, 3] = -np.nan
    log_lik[3, 3] = np.inf
    log_lik[4, 3] = -np.inf
    log_lik[5, 0] = -900.0
    found, influence = left_out(log_lik)
    names = [Status(code).name for code in found["status"]]
    assert names == ["FLAT", *["NOT_FINITE"] * 4, "DEGENERATE_TAIL", "OK"]
    bad = found[1:5]
    for name in ("elpd", "lppd", "error", "khat", "khat_std_error", "ess"):
        assert np.isnan(bad[name]).all(), name
    assert np.isnan(influence[1:5]).all()
    assert found["elpd"][0] == found["lppd"][0] == pytest.approx(-4.5, abs=1e-14)
    assert found["error"][0] == pytest.approx(0.0, abs=1e-16)
    assert np.isnan(found["khat_std_error"][[0, 5]]).all()
    assert found["khat"][5] == np.inf
    # One draw has the weight of all: its likelihood is the mean of the others' inverses, 1 / n of its own.
    assert found["elpd"][5] == pytest.approx(np.log(300) - 900.0)
    assert left_out(log_lik[6:])[0]["elpd"] == found["elpd"][6]
    short, _ = left_out(log_lik[:, :20])
    assert short["status"][6] == Status.TAIL_TOO_SHORT
    assert np.isfinite(short["elpd"][6])


def test_predictive_densities_of_any_weights(rng):
    surprise, log_weights = rng.normal(size=(2, 6, 1100))
    log_weights[1, ::3] = -np.inf
    log_weights[2] = -np.inf
    surprise[3, 5] = np.inf  # a draw that excludes the observation
    surprise[4] = np.inf
    log_weights[5, 5] = np.nan
    weighted, plain = leave_one_out.predictive(surprise, log_weights)
    with np.errstate(divide="ignore"):
        expected = logsumexp(log_weights - surprise, axis=1), logsumexp(-surprise, axis=1) - np.log(1100)
    np.testing.assert_allclose(weighted[:5], expected[0][:5], rtol=1e-13)
    np.testing.assert_allclose(plain[:5], expected[1][:5], rtol=1e-13)
    assert np.isnan([weighted[5], plain[5]]).all()
