"""Kernels as Python runs them, and with their indices checked, give what they give compiled."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import isdiag
from isdiag import _kernels, rl
from tests.registry import rows_of

ROOT = Path(__file__).parents[2]


def numbers():
    """What a handful of calls returns, by call and field."""
    rng = np.random.default_rng(3)
    x, h = 1.5 * rng.normal(size=(2, 60)), rng.normal(size=(2, 60, 9))
    x[1, :5] = -np.inf
    x[1, 9] = x[1, 17]
    results = {
        "psis": isdiag.psis(x),
        "joint": isdiag.select_gamma(x),
        "refit": isdiag.select_gamma(x, rule="refit", k_max=0.1),
        "mse": isdiag.select_gamma(x, rule="mse", h=h),
        "snis": isdiag.snis(x, h[..., 0]),
        "snis of large values": isdiag.snis(x, 1e200 * h[..., 0]),
        "snis of vectors": isdiag.snis(x, h),
        "snis of float32": isdiag.snis(x, h.astype(np.float32), smooth="psis"),
        "temper": isdiag.temper(x, 0.3),
        "log_moment": isdiag.log_moment(x, 0.5),
        "variance test": isdiag.finite_variance_test(x),
        "control variate": isdiag.control_variate(x, h[..., 0]),
        "expectation": isdiag.expectation_diagnostics(x, h[..., 0]),
        "ess": isdiag.ess(x),
        "perplexity": isdiag.ess(x, kind="perplexity"),
        "gpd_fit": isdiag.gpd_fit(np.exp(x[0])),
        "step": rl.GammaController().step(x[1], h[1, :, 0]),
    }
    found = {}
    for call, result in results.items():
        for name, value in rows_of(result).items():
            found[f"{call} {name}"] = np.asarray(value).tolist()
    return found


@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_numbers_do_not_depend_on_how_kernels_run(setting, monkeypatch):
    expected = numbers()
    monkeypatch.setenv(setting, "1")
    found = python("import json; from tests.kernels.test_plain import numbers; print(json.dumps(numbers()))")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-14, err_msg=name)
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("setting", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_an_index_out_of_bounds_is_heard(setting, monkeypatch):
    # Kernels that check their indices must not be taken from the cache of those that do not.
    _kernels.total_of(np.ones((1, 2)), 1, np.empty(2))
    monkeypatch.setenv(setting, "1")
    code = """
        import numpy as np
        from isdiag import _kernels
        try:
            _kernels.total_of(np.ones((1, 2)), 2, np.empty(2))
        except IndexError:
            print("true")
        """
    assert python(textwrap.dedent(code))


def python(code):
    """What the code prints, as JSON."""
    command = [sys.executable, "-W", "error", "-c", code]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
