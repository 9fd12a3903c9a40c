"""The kernels as Python can call them: those that only kernels call are compiled without a wrapper."""

from functools import cache

from numba import njit
from numba.core.dispatcher import Dispatcher

from isdiag import _kernels


@cache
def __getattr__(name):
    found = getattr(_kernels, name)
    if not isinstance(found, Dispatcher) or not found.targetoptions.get("no_cpython_wrapper"):
        return found
    options = {key: found.targetoptions[key] for key in ("nogil", "error_model", "fastmath")}
    return njit(**options)(found.py_func)
