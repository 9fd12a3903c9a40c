"""The contestants of the benchmarks do the same thing, so that their times may be compared."""

import math

import numpy as np
import pytest
from comparisons import COMPARISONS, SHAPES, Contestant, draw, label

import isdiag

N = 1500  # 3 sqrt(n) = 116.2: rounding it down or up gives another tail
TAIL_LENGTHS = {"arviz": math.ceil(3 * math.sqrt(N))}

TOLERANCES = {"blackjax": 1e-4}

CONTESTANTS = [(operation, name) for operation, table in COMPARISONS.items() for name in table]
SOLUTIONS = [(o, name) for o, name in CONTESTANTS if COMPARISONS[o][name].role != "floor"]

both_layouts = pytest.mark.parametrize("shape", [(N,), (3, N)], ids=label)


def contestant_for(operation: str, name: str, shape: tuple[int, ...]) -> Contestant:
    contestant = COMPARISONS[operation][name]
    if reason := contestant.why_not(shape):
        pytest.skip(f"{name}: {reason}")
    return contestant


@both_layouts
@pytest.mark.parametrize("name", [name for operation, name in SOLUTIONS if operation == "psis"])
def test_psis_contestants_agree(name, shape):
    contestant = contestant_for("psis", name, shape)
    log_w = draw(shape)
    log_weights, khat = contestant(log_w)
    ours = isdiag.psis(log_w, tail_length=TAIL_LENGTHS.get(name))
    np.testing.assert_allclose(khat, ours.khat, rtol=0, atol=1e-10)
    np.testing.assert_allclose(log_weights, ours.log_weights, rtol=0, atol=1e-10)


@both_layouts
@pytest.mark.parametrize("name", [name for operation, name in SOLUTIONS if operation == "select_gamma"])
def test_gamma_contestants_agree(name, shape):
    contestant = contestant_for("select_gamma", name, shape)
    log_w = draw(shape)
    ours = isdiag.select_gamma(log_w, k_max=math.inf)  # ESS alone
    assert np.all(ours.gamma < 1), "nothing to solve"
    np.testing.assert_allclose(contestant(log_w), ours.gamma, rtol=0, atol=TOLERANCES.get(name, 1e-6))


@both_layouts
@pytest.mark.parametrize("name", [name for operation, name in SOLUTIONS if operation == "gpd_fit"])
def test_fits_agree(name, shape):
    excesses = np.expm1(np.abs(draw(shape)))
    k = contestant_for("gpd_fit", name, shape)(draw(shape))
    np.testing.assert_allclose(k, isdiag.gpd_fit(excesses).k, rtol=0, atol=1e-10)


@both_layouts
@pytest.mark.parametrize(("operation", "name"), CONTESTANTS)
def test_contestants_leave_their_input_alone(operation, name, shape):
    contestant = contestant_for(operation, name, shape)
    log_w = draw(shape)
    contestant(log_w)
    np.testing.assert_array_equal(log_w, draw(shape))


def test_a_missing_peer_is_reported_and_no_error():
    absent = Contestant("peer", lambda log_w: lambda: log_w, ("no_such_peer",))
    assert absent.why_not((N,)) == "missing: No module named 'no_such_peer'"


@pytest.mark.parametrize(("operation", "name"), CONTESTANTS)
def test_skips_name_benchmarked_shapes(operation, name):
    skips = COMPARISONS[operation][name].skips
    assert set(skips) <= set(SHAPES[operation])
    assert all(skips.values())
