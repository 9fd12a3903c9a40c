"""Golden data, dependencies that may be missing, and results compared."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import isdiag
from tests import registry

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


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


NOT_IN_CI = {"ray"}  # 200 MB; tests/adapters/test_clusters.py names its command


def optional(module):
    """Import an optional dependency; skip without it, unless ISDIAG_REQUIRE_ALL says it must be there."""
    if os.environ.get("ISDIAG_REQUIRE_ALL") and module not in NOT_IN_CI:
        return __import__(module)
    return pytest.importorskip(module, reason=f"{module} is not installed")


def quiet(function, *args, **kwargs):
    """Call without the warning of rows that are not finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", isdiag.NonFiniteWarning)
        return function(*args, **kwargs)


def assert_same(got, expected, rtol=0.0, atol=0.0):
    """Two results hold the same for each row: bit for bit, unless a tolerance says otherwise."""
    assert type(got) is type(expected)
    got, expected = (registry.rows_of(result) for result in (got, expected))
    assert got.keys() == expected.keys()
    for name, value in got.items():
        if (rtol or atol) and np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
