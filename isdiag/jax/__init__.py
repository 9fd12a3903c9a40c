"""isdiag inside `jax.jit`, `jax.grad` and `jax.vmap`: choose gamma, and the loss of off-policy learning.

An adapter: the mathematics runs in NumPy and Numba on the host, in a `jax.pure_callback`. Nothing is raised
or warned there: what became of the data is told by statuses and by `LossAux.ok`.
"""

from isdiag.jax.gamma import GammaSelection, select_gamma
from isdiag.jax.loss import LossAux, is_reshape_loss
from isdiag.jax.shards import summary

__all__ = ["GammaSelection", "LossAux", "is_reshape_loss", "select_gamma", "summary"]
