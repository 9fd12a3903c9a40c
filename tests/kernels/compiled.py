"""The kernels as Python can call them: those that only kernels call are compiled without a wrapper."""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from numba import njit
from numba.core.dispatcher import Dispatcher

import isdiag

FOLDER = Path(isdiag.__file__).parent / "_kernels"
MODULES = tuple(path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__")


@cache
def _all():
    found = {}
    for name in MODULES:
        module = import_module(f"isdiag._kernels.{name}")
        found |= {key: value for key, value in vars(module).items() if not key.startswith("__")}
    return MappingProxyType(found)


def original(name):
    """A kernel, or a constant of one, from whichever file it is in."""
    return _all()[name]


@cache
def __getattr__(name):
    if name not in _all():
        raise AttributeError(name)
    found = original(name)
    if not isinstance(found, Dispatcher) or not found.targetoptions.get("no_cpython_wrapper"):
        return found
    options = {key: found.targetoptions[key] for key in ("nogil", "error_model", "fastmath")}
    return njit(**options)(found.py_func)
