"""At home in ArviZ: its smoothing on our kernels, leave-one-out in one call, and accessors of xarray.

An adapter, imported by who asks for it. That registers `.isdiag` on DataArrays, Datasets and DataTrees.
"""

from isdiag.arviz.accessors import Accessor
from isdiag.arviz.leave_one_out import LeaveOneOut, loo
from isdiag.arviz.stats_module import backend, use

__all__ = [
    "Accessor",
    "LeaveOneOut",
    "backend",
    "loo",
    "use",
]
