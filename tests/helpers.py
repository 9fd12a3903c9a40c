"""Golden data, and dependencies that may be missing."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


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
