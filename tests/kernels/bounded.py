"""Kernels as plain Python whose arrays refuse any position outside of them; needs NUMBA_DISABLE_JIT=1.

NumPy, and Numba where it checks bounds, count a negative position from the end and say nothing.
"""

import pkgutil
from functools import wraps
from importlib import import_module
from types import SimpleNamespace

import numpy as np

from isdiag import _kernels
from isdiag._kernels import _jit


class Bounded(np.ndarray):
    """An array whose positions count from its start. Slices may end beyond it, as a row's last block does."""

    def __getitem__(self, at):
        check(at, self.shape)
        return super().__getitem__(at)

    def __setitem__(self, at, value):
        check(at, self.shape)
        super().__setitem__(at, value)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        # A sum is a number: as an array it would change wherever it was put, with += anywhere.
        return array[()] if return_scalar else array.view(Bounded)


def check(at, shape):
    for one, size in zip(at if isinstance(at, tuple) else (at,), shape, strict=False):
        if isinstance(one, slice):
            inside = 0 <= (one.start or 0) <= size and (one.stop is None or one.stop >= 0)
        else:
            inside = 0 <= one < size
        if not inside:
            msg = f"{one} is outside of 0 to {size}"
            raise IndexError(msg)


def bounded(value):
    return value.view(Bounded) if isinstance(value, np.ndarray) else value


def install():
    """Let every array that kernels are given, or make, be a bounded one; before any of them is loaded."""
    plain = _jit._plain

    def entry(function):
        @wraps(function)
        def call(*arguments):
            return function(*map(bounded, arguments))

        return plain(call)

    _jit._plain = entry
    made = {name: _makes_bounded(getattr(np, name)) for name in ("array", "empty", "zeros", "arange")}
    numpy = SimpleNamespace(**vars(np) | made)
    for each in pkgutil.iter_modules(_kernels.__path__):
        module = import_module(f"isdiag._kernels.{each.name}")
        if vars(module).get("np") is np and module is not _jit:
            module.np = numpy


def _makes_bounded(function):
    return lambda *arguments: bounded(function(*arguments))
