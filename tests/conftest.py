"""Hypothesis profiles, golden data and the log-weights that many tests share.

Profiles: "dev" (default), "ci" (derandomised, chosen by the CI variable) and "nightly" (long), e.g.
HYPOTHESIS_PROFILE=nightly python -m pytest tests/test_total.py
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

# A first call compiles for seconds, so no deadline.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=60, **COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **COMMON)
settings.register_profile("nightly", max_examples=3000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def golden_cases():
    """(name, column of log-weights, exact values) of every golden vector."""
    inputs = np.load(GOLDEN / "inputs.npz")
    reference = json.loads((GOLDEN / "reference.json").read_text())
    for name, values in reference.items():
        array = inputs[name]
        if array.ndim == 1:
            yield name, array, values["exact"]
        else:
            for j, exact in enumerate(values["exact"]):
                yield f"{name}[{j}]", array[:, j].copy(), exact


def optional(module):
    """Import an optional dependency; skip without it, unless ISDIAG_REQUIRE_ALL says it must be there."""
    if os.environ.get("ISDIAG_REQUIRE_ALL"):
        return __import__(module)
    return pytest.importorskip(module, reason=f"{module} is not installed")


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)


@pytest.fixture
def heavy(rng):
    """1000 log-normal log-weights with a tail that matters."""
    return rng.normal(scale=2.0, size=1000)
