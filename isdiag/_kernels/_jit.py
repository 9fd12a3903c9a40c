"""How kernels are compiled, and the one stamp that their caches share.

Numba stamps a cached kernel with the file of that kernel alone: if a callee in another file changes, as
in an upgrade, the cache goes on returning the numbers of the old version. Here the key of every cached
kernel holds a hash of all files of this folder.

With NUMBA_DISABLE_JIT=1 nothing is compiled: kernels are plain Python, to be stepped through and covered.
"""

from contextlib import suppress
from functools import wraps
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numba import config, njit, types
from numba.core import caching
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.cpu import CPUTargetOptions
from numba.core.registry import CPUDispatcher
from numba.core.runtime import rtsys
from numba.extending import intrinsic

# error_model="numpy": a division by zero is inf or nan, not a Python exception inside a loop.
FLAGS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Said to both: what does not say it would take it from whichever kernel has it compiled first.
_COUNTED = {flag: {"_nrt": flag} if hasattr(CPUTargetOptions, "_nrt") else {} for flag in (True, False)}


def _stamp():
    files = sorted(Path(__file__).parent.glob("*.py"))
    # Numba's own key does not tell kernels that check their indices from those that do not.
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest() + f" {config.BOUNDSCHECK}"


STAMP = _stamp()

# Where a Numba keeps its caches another way there is none: an old number would be worse than a wait.
_CAN_STAMP = hasattr(caching, "IndexDataCacheFile") and all(
    hasattr(getattr(caching, "FunctionCache", None), name)
    for name in ("_index_key", "_load_overload", "_guard_against_spurious_io_errors")
)

if _CAN_STAMP:

    class _Files(caching.IndexDataCacheFile):
        def save(self, key, overload):
            # Numba numbers files, and writes the index first: of processes that start together on one folder
            # one could load what another had compiled for other types, or an earlier version.
            name = self._data_name(int(sha256(repr(key).encode()).hexdigest()[:16], 16))
            self._save_data(name, overload)
            self._save_index({**self._load_index(), key: name})

    class _FolderCache(caching.FunctionCache):
        def __init__(self, function):
            super().__init__(function)
            self._cache_file.__class__ = _Files

        def _index_key(self, sig, codegen):
            # Numba's own hash of what a function closes over differs from process to process.
            return sig, codegen.magic_tuple(), STAMP

        def load_overload(self, sig, target_context):
            # Numba's own would first load all that it can compile, and SciPy's linear algebra with it: .28
            # of the .67 s of a first call. Machine code needs none of it, and whoever compiles loads it then.
            try:
                rtsys.initialize(target_context)
                with self._guard_against_spurious_io_errors():
                    return self._load_overload(sig, target_context)
            except Exception:  # a file cut short may raise anything: compile again, and write anew
                self._begin_anew()
                return None

        def save_overload(self, sig, data):
            try:
                super().save_overload(sig, data)
            except Exception:  # a full disk, or an index that was cut short meanwhile: the next process saves
                self._begin_anew()

        def _begin_anew(self):
            with suppress(OSError):
                self.flush()


_CAN_DEFER = all(
    hasattr(JITCodeLibrary, name)
    for name in ("codegen", "_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals")
)


class _Code(JITCodeLibrary):
    """What an inner kernel compiles to: LLVM's code, which an entry links and optimises with its own.

    Numba would optimise it, and make it machine code, by itself and again in each kernel that calls it: a
    third of a cold start. It has no environment, as kernels that come from a cache have none for what is
    linked into them.
    """

    codegen = SimpleNamespace(set_env=lambda *_: None)

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _Compiler(Compiler):
    def compile_extra(self, func):
        if _CAN_DEFER:
            self.state.library = self.state.targetctx.codegen().create_library(func.__qualname__)
            self.state.library.__class__ = _Code
        return super().compile_extra(func)


def inner(function=None, *, fastmath=False, counted=False):
    """A kernel that only kernels call: no wrapper for Python, no cache, no counts of references to arrays.

    Wrapper and cache would cost a cold start four of its 17 seconds. Counts are atomic, several a call: 18 %
    of the time of a row of 1000 draws. None is needed, as whoever made an array outlives what it calls. What
    makes an array, returns one, or calls a kernel that returns one is `counted`, as every entry is: else
    memory would be freed twice, or never.
    """
    if function is None:
        return lambda f: inner(f, fastmath=fastmath, counted=counted)
    options = {"fastmath": fastmath, "no_cpython_wrapper": True, "pipeline_class": _Compiler}
    return njit(**FLAGS, **_COUNTED[counted], **options)(function)


class _Entry(CPUDispatcher):
    """To a kernel that calls it an entry is an inner one: a wrapper for Python is made where Python asks."""

    @property
    def _numba_type_(self):
        return types.Dispatcher(self.as_inner)


def entry(function):
    """A kernel that Python calls; it is cached, with all that it calls."""
    if config.DISABLE_JIT:
        return _plain(function)
    kernel = njit(**FLAGS, **_COUNTED[True])(function)
    kernel.__class__ = _Entry
    kernel.as_inner = inner(function, counted=True)
    if _CAN_STAMP and hasattr(kernel, "_cache"):
        with suppress(RuntimeError):  # there is no folder that a cache could be written to
            kernel._cache = _FolderCache(function)
    return kernel


def llvm(twin):
    """An intrinsic; where nothing is compiled its place is taken by `twin`, which does the same in Python."""
    return (lambda _: twin) if config.DISABLE_JIT else intrinsic


def _plain(function):
    """An entry as Python runs it, on arguments that behave as they do in compiled code.

    What still differs: a float of Python's, as `math.sqrt` returns, raises where it is divided by zero.
    """

    def as_compiled(argument):
        if isinstance(argument, float):
            return np.float64(argument)  # may be divided by zero
        dtype = getattr(argument, "dtype", None)
        if dtype == np.float32:
            return np.asarray(argument, np.float64)  # NumPy would not widen it by a float of Python's
        if dtype is not None and dtype.names:
            return argument.view((np.record, dtype))  # the same memory, written by attribute
        return argument

    @wraps(function)
    def call(*arguments):
        with np.errstate(all="ignore"):
            return function(*map(as_compiled, arguments))

    return call
