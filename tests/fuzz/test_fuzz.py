"""A short fuzz, always of the same cases; the long one is ``python tests/fuzz/run.py``."""

import numpy as np
import pytest

import isdiag
from isdiag import rl
from tests import registry
from tests.fuzz import cases as twins
from tests.fuzz.cases import MAKERS, TWINS, Case, Wrong, case, check

EXECUTIONS = 18_000


@pytest.mark.parametrize("part", range(4))
def test_fuzz(part):
    for number in range(part * EXECUTIONS // 4, (part + 1) * EXECUTIONS // 4):
        tried, rng = case(20261122, number)
        try:
            check(tried, rng)
        except Wrong as wrong:
            wrong.add_note(f"python tests/fuzz/run.py --seed 20261122 --case {number}")
            raise


def test_every_function_of_the_registry_is_called():
    called = {case(0, number)[0].name for number in range(len(MAKERS))}
    listed = {f"{m}.{name}" for m, found in registry.signatures().items() for name in found}
    assert called == listed - {"isdiag.rl.loggable"}  # which takes what take_step returns, no numbers


@pytest.mark.parametrize(
    ("name", "broken", "rule"),
    [
        ("temper", lambda x, *_, **__: np.zeros(np.shape(x)), "weights do not sum to 1"),
        ("ess", lambda *_, **__: 1e9, "ESS is outside"),
        ("pareto_khat", lambda *_, **__: {}[0], "KeyError"),
        ("psis", lambda x, **_: x.fill(0.0), "an argument was written to"),
    ],
)
def test_what_breaks_a_rule_is_found(monkeypatch, name, broken, rule):
    monkeypatch.setattr(isdiag, name, broken)
    function = next(f for f in registry.FUNCTIONS if f.name == name)
    x = np.array([0.5, -1.0, 0.25])
    with pytest.raises(Wrong, match=rule):
        check(Case(f"isdiag.{name}", [x], function=function, rows=x), np.random.default_rng(0))


@pytest.mark.parametrize("name", TWINS)
def test_a_number_that_the_twin_does_not_have_is_found(monkeypatch, name):
    # The share of the short fuzz that twins see, with each number off by one in 100 000.
    cases = (case(20261122, number) for number in range(EXECUTIONS))
    compared = [(tried, rng) for tried, rng in cases if tried.twin and tried.name == f"isdiag.{name}"]
    near = twins._near
    monkeypatch.setattr(twins, "_near", lambda tried, x, *rest: near(tried, np.multiply(x, 1 + 1e-5), *rest))
    found = 0
    for tried, rng in compared:
        try:
            check(tried, rng)
        except Wrong as wrong:
            found += "twin" in wrong.kind
    assert found >= 20


def test_an_error_has_to_name_what_it_refuses(monkeypatch):
    refused = Case("isdiag.rl.log_ratio", [[0.0], [0.0]], {"level": "a"}, odd={"level"})
    check(refused, None)
    monkeypatch.setattr(rl, "log_ratio", lambda *_, **__: float("a"))
    with pytest.raises(Wrong, match="names no argument"):
        check(refused, None)
