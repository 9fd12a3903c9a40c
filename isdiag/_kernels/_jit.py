"""How kernels are compiled, and the one stamp that their caches share.

Numba stamps a cached kernel with the file of that kernel alone: if a callee in another file changes, as
in an upgrade, the cache goes on returning the numbers of the old version. Here the key of every cached
kernel holds a hash of all files of this folder.
"""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from numba import njit
from numba.core import caching

# error_model="numpy": a division by zero is inf or nan, not a Python exception inside a loop.
FLAGS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


def _stamp():
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


STAMP = _stamp()

# Where a Numba keeps its caches another way there is none: an old number would be worse than a wait.
_CAN_STAMP = hasattr(caching, "FunctionCache") and hasattr(caching.FunctionCache, "_index_key")

if _CAN_STAMP:

    class _FolderCache(caching.FunctionCache):
        def _index_key(self, sig, codegen):
            return (*super()._index_key(sig, codegen), STAMP)

        def load_overload(self, sig, target_context):
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # a file cut short may raise anything: compile again, and write anew
                self.flush()
                return None


def inner(function=None, *, fastmath=False):
    """A kernel that only kernels call: no wrapper for Python and no cache of its own.

    Those would cost a cold start four of its 17 seconds.
    """
    if function is None:
        return lambda f: inner(f, fastmath=fastmath)
    return njit(**FLAGS, fastmath=fastmath, no_cpython_wrapper=True)(function)


def entry(function):
    """A kernel that Python calls; it is cached, with all that it calls."""
    kernel = njit(**FLAGS)(function)
    if _CAN_STAMP and hasattr(kernel, "_cache"):
        with suppress(RuntimeError):  # there is no folder that a cache could be written to
            kernel._cache = _FolderCache(function)
    return kernel
