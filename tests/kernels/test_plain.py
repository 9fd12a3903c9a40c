"""Kernels as Python runs them, and with their indices checked, give what they give compiled."""

import json
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import isdiag
from isdiag import _kernels, rl
from isdiag._kernels import records
from tests.kernels.bounded import bounded
from tests.registry import CALLS, rows_of

ROOT = Path(__file__).parents[2]
BLOCK_AND_MORE = 1100


def all_calls():
    """A call of every kernel, by name: of a row that is less than a block, and of a longer one."""
    rng = np.random.default_rng(3)
    x, h = rows(rng, 60), rng.normal(size=(2, 60, 9))
    of_h = {
        "mse": partial(isdiag.select_gamma, x, rule="mse", h=h),
        "mse_curve": partial(isdiag.mse_curve, x, h[..., 0]),
        "snis": partial(isdiag.snis, x, h[..., 0]),
        "snis of large values": partial(isdiag.snis, x, 1e200 * h[..., 0]),
        "snis of vectors": partial(isdiag.snis, x, h),
        "snis of float32": partial(isdiag.snis, x, h.astype(np.float32), smooth="psis"),
        "quantile": partial(isdiag.quantile, x, h[..., 0], [0.1, 0.5], smooth="truncate"),
        "quantile of many": partial(isdiag.quantile, *many_in_one_place(rng), [0.02, 0.5]),
        "control variate": partial(isdiag.control_variate, x, h[..., 0]),
        "expectation": partial(isdiag.expectation_diagnostics, x, h[..., 0]),
        "gpd_fit of weights": partial(isdiag.gpd_fit, np.exp(x[0]), weights=np.exp(h[0, :, 0])),
        "step": partial(rl.GammaController().step, x[1], h[1, :, 0]),
        "relative_efficiency": partial(isdiag.relative_efficiency, h[..., 0]),
        "refit": partial(isdiag.select_gamma, x, rule="refit", k_max=0.1),
    }
    long = rows(rng, BLOCK_AND_MORE)[0]
    return of_h | calls_by_position() | {repr(call): partial(call, long) for call in CALLS}


def calls_by_position():
    """Calls of those kernels whose positions are computed from what is in a row."""
    x = rows(np.random.default_rng(4), 60)
    methods = ("systematic", "stratified", "residual", "multinomial")
    return {
        "pareto_khat": partial(isdiag.pareto_khat, x),
        "summary": partial(khat_of_parts, x),
        **{f"resample, {method}": partial(isdiag.resample, x, method=method, rng=3) for method in methods},
    }


def rows(rng, n):
    x = 1.5 * rng.normal(size=(2, n))
    x[1, :5] = -np.inf
    x[1, 9] = x[1, 17]
    return x


def many_in_one_place(rng):
    """Log-weights, and values of which more than are sorted at once are near their median."""
    x = rng.normal(size=12_000)
    return x, np.where(x < 1.5, 1e-9, 1.0) * rng.normal(size=x.size)


def khat_of_parts(x):
    return isdiag.Summary.of(x[:, ::2], n_max=60).merge(isdiag.Summary.of(x[:, 1::2], n_max=60)).pareto_khat()


def numbers(calls):
    """What they return, by call and field."""
    fields = ((call, *field) for call, function in calls.items() for field in rows_of(function()).items())
    return {f"{call} {name}": np.asarray(value).tolist() for call, name, value in fields}


# Arrays of kernels in plain Python are bounded; those of compiled ones take positions from the end.
PLAIN = "from tests.kernels import bounded; bounded.install()"


@pytest.mark.parametrize(
    ("setting", "calls", "first"),
    [("NUMBA_DISABLE_JIT", all_calls, PLAIN), ("NUMBA_BOUNDSCHECK", calls_by_position, "")],
    ids=["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"],
)
def test_numbers_do_not_depend_on_how_kernels_run(setting, calls, first, monkeypatch):
    expected = numbers(calls())
    monkeypatch.setenv(setting, "1")
    found = python(f"""
        {first}
        import json
        from tests.kernels.test_plain import {calls.__name__}, numbers
        print(json.dumps(numbers({calls.__name__}())))
        """)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-14, err_msg=name)
        else:
            assert found[name] == value, name


BEYOND = "total_of(np.ones((1, 2)), 2, np.empty(2))"
BEFORE = "scalar_sums_part(np.zeros(9), -1, 0, 0.0, 1.0, np.zeros(9), 1.0, 0.0, np.empty((1, 14)))"


@pytest.mark.parametrize(
    ("setting", "call", "first"),
    [
        ("NUMBA_DISABLE_JIT", BEYOND, ""),
        ("NUMBA_BOUNDSCHECK", BEYOND, ""),
        ("NUMBA_DISABLE_JIT", BEFORE, PLAIN),
    ],
)
def test_an_index_out_of_bounds_is_heard(setting, call, first, monkeypatch):
    # Kernels that check their indices must not be taken from the cache of those that do not.
    _kernels.total_of(np.ones((1, 2)), 1, np.empty(2))
    monkeypatch.setenv(setting, "1")
    assert python(f"""
        {first}
        import numpy as np
        from isdiag import _kernels
        try:
            _kernels.{call}
        except IndexError:
            print("true")
        """)


@pytest.mark.parametrize("at", [-1, 3, (0, -1), (slice(None), 2), slice(-1, None), slice(4, None)])
def test_positions_that_numpy_would_take_from_the_end_are_heard(at):
    array = bounded(np.zeros((3, 2)))
    for view in (array, array[:], array[0:9]):
        with pytest.raises(IndexError):
            view[at]
        with pytest.raises(IndexError):
            view[at] = 1.0


def python(code):
    """What the code prints, as JSON."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def test_no_field_of_a_record_has_a_name_of_numpys():
    # A kernel in plain Python would read the method.
    kinds = [kind for kind in vars(records).values() if isinstance(kind, np.dtype)]
    assert kinds
    assert not {name for kind in kinds for name in kind.names or ()} & set(dir(np.record))
