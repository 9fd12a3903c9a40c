"""Hypothesis profiles, and the log-weights that many tests share.

Profiles: "dev" (default), "ci" (derandomised, chosen by the CI variable) and "nightly" (long), e.g.
HYPOTHESIS_PROFILE=nightly python -m pytest tests/api/test_total.py
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A first call compiles for seconds, so no deadline.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=60, **COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **COMMON)
settings.register_profile("nightly", max_examples=3000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)


@pytest.fixture
def heavy(rng):
    """1000 log-normal log-weights with a tail that matters."""
    return rng.normal(scale=2.0, size=1000)
