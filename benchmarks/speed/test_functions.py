"""The table of functions is that of the registry, and what compares commits tells slower from noise."""

import numpy as np
import pytest
from compare import Outcome, line_of
from floors import handed_out, words_of
from functions import CALLS, FLOORS, passes, prepared

import isdiag
from tests.registry import FUNCTIONS


def test_every_function_has_a_call_and_a_floor():
    assert set(CALLS) == set(FLOORS) == {function.name for function in FUNCTIONS}
    assert {each for floor in FLOORS.values() for each in floor} <= set(passes(10))


@pytest.mark.parametrize("name", CALLS)
def test_calls_run(name):
    assert prepared(name, 300)() is not None
    assert words_of(name)


def outcome(ratios):
    return Outcome("ess", 1000, 1e-6, 1e-6 * min(ratios), tuple(ratios))


def test_what_is_slower_is_told_from_noise():
    rng = np.random.default_rng(0)
    noise = 1.0 + 0.05 * rng.normal(size=15)
    assert outcome(noise).verdict == ""
    assert outcome(1.3 * noise).verdict == "slower"
    assert outcome(0.7 * noise).verdict == "faster"
    assert outcome(np.full(15, 1.02)).verdict == ""  # less than counts, however sure
    assert line_of(outcome(1.3 * noise)).endswith("slower")


def test_what_a_result_holds_is_counted():
    assert handed_out(isdiag.psis(np.arange(40.0))) == 320
    assert handed_out(isdiag.ess(np.arange(40.0))) == 0
