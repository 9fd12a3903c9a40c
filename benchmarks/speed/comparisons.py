"""Who is compared with isdiag, on what: the one table that tests, benchmarks and docs share.

`COMPARISONS[operation][name]` is a `Contestant`, called with log-weights: float64, C-contiguous, of shape
(n,) or (rows, n) with the draws last. Contestants for "psis" return (log-weights, khat), those for
"select_gamma" return gamma; floors return something that the operation cannot do without. `SHAPES` says on
which shapes an operation is compared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import isdiag

Floats = NDArray[np.float64]
Shape = tuple[int, ...]
Call = Callable[[], Any]

_VECTORS: tuple[Shape, ...] = ((1000,), (10_000,), (100_000,), (1_000_000,))
_FEW: tuple[Shape, ...] = ((1000,), (1_000_000,), (4000, 1000))
SHAPES: Mapping[str, tuple[Shape, ...]] = {
    "psis": (*_VECTORS, (4000, 1000), (4000, 10_000)),
    "select_gamma": (*_VECTORS, (10_000_000,), (64, 1024), (4000, 1000), (4000, 10_000)),
    "pareto_khat": _FEW,
    "ess": _FEW,
    "temper": _FEW,
    "snis": _FEW,
    "snis, vectors": ((10_000,), (100_000,)),
    "select_gamma, mse": ((1000,), (1_000_000,), (400, 1000)),
    "kong_owen_bias": _FEW,
    "gpd_fit": ((95,), (3000,), (4000, 95)),
}

ESS_MIN = 0.3  # the default of isdiag.select_gamma


def draw(shape: Shape) -> Floats:
    """Log-weights, the same at every call: normal with standard deviation 2."""
    return np.random.default_rng(20_240_607).normal(scale=2.0, size=shape)


def label(shape: Shape) -> str:
    """A shape as tables print it: 4000 x 1000."""
    return " x ".join(map(str, shape))


@dataclass(frozen=True)
class Contestant:
    """One way to do an operation.

    Attributes
    ----------
    role : {"isdiag", "peer", "floor"}
        A floor is no solution but the least that any solution has to do.
    prepare : callable
        Takes log-weights and returns the call to time. It does what the peer's own users need not do
        (negate, allocate a buffer), so that nobody is charged for it.
    requires : tuple of str
        Modules to import; a contestant without them is missing.
    batches : bool
        Whether it takes (rows, n). If not, it is called row by row.
    skips : mapping of shape to str
        Shapes it is not run on, and why.
    remark : str
        What a reader of its numbers should know.
    """

    role: Literal["isdiag", "peer", "floor"]
    prepare: Callable[[Floats], Call]
    requires: tuple[str, ...] = ()
    batches: bool = True
    skips: Mapping[Shape, str] = field(default_factory=dict[Shape, str])
    remark: str = ""

    def why_not(self, shape: Shape) -> str | None:
        """Why it cannot or should not run on log-weights of this shape; None if it should."""
        if shape in self.skips:
            return self.skips[shape]
        for module in self.requires:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"missing: {error}"
        return None

    def bind(self, log_w: Floats) -> Call:
        """The call to time: it takes nothing and returns the result on these log-weights."""
        if self.batches or log_w.ndim == 1:
            return self.prepare(log_w)
        calls = [self.prepare(row) for row in log_w]
        return lambda: np.array([call() for call in calls])

    def __call__(self, log_w: Floats) -> Any:
        return self.bind(log_w)()


def _psis(workers: int) -> Callable[[Floats], Call]:
    def prepare(log_w: Floats) -> Call:
        def call() -> tuple[Any, Any]:
            result = isdiag.psis(log_w, workers=workers)
            return result.log_weights, result.khat

        return call

    return prepare


def _psis_into(workers: int) -> Callable[[Floats], Call]:
    def prepare(log_w: Floats) -> Call:
        out = np.ones_like(log_w)  # written to, so that its memory is there

        def call() -> tuple[Any, Any]:
            result = isdiag.psis(log_w, workers=workers, out=out)
            return result.log_weights, result.khat

        return call

    return prepare


def _psis_arviz_stats(log_w: Floats) -> Call:
    from arviz_stats.base import array_stats

    log_likelihood = -log_w  # what it takes, and negates
    return lambda: array_stats.psislw(log_likelihood)


def _psis_arviz(log_w: Floats) -> Call:
    import arviz

    def call() -> Any:
        with np.errstate(over="ignore"):  # its quadrature overflows, harmlessly, where the tail is long
            return arviz.psislw(log_w)

    return call


def _excesses(log_w: Floats) -> Floats:
    """Positive and heavy-tailed, in no order."""
    return np.expm1(np.abs(log_w))


def _gpd_fit(log_w: Floats) -> Call:
    excesses = _excesses(log_w)
    return lambda: isdiag.gpd_fit(excesses).k


def _gpd_fit_arviz_stats(log_w: Floats) -> Call:
    from arviz_stats.base import array_stats

    excesses = _excesses(log_w)
    return lambda: array_stats._gpdfit(np.sort(excesses))[0]


def _gpd_fit_arviz(log_w: Floats) -> Call:
    from arviz.stats.stats import _gpdfit

    excesses = _excesses(log_w)

    def call() -> Any:
        with np.errstate(over="ignore"):  # as in `_psis_arviz`
            return _gpdfit(np.sort(excesses))[0]

    return call


def _sort(log_w: Floats) -> Call:
    excesses = _excesses(log_w)
    return lambda: np.sort(excesses, axis=-1)


def _partition(log_w: Floats) -> Call:
    n = log_w.shape[-1]
    cut = n - isdiag.tail_length(n)
    return lambda: np.partition(log_w, cut, axis=-1)


def _exp(log_w: Floats) -> Call:
    out = np.empty_like(log_w)
    return lambda: np.exp(log_w, out=out)


def _select_gamma(rule: Literal["joint", "refit"], workers: int = 1) -> Callable[[Floats], Call]:
    def prepare(log_w: Floats) -> Call:
        return lambda: isdiag.select_gamma(log_w, ess_min=ESS_MIN, rule=rule, workers=workers).gamma

    return prepare


def _tempering_particles(log_w: Floats) -> Call:
    """The step of AdaptiveTempering.logG, which cannot be called without a sampler around it."""
    from particles.resampling import essl
    from scipy.optimize import brentq

    def surplus(exponent: float) -> float:
        return essl(exponent * log_w) - ESS_MIN * log_w.size

    return lambda: 1.0 if surplus(1.0) > 0 else brentq(surplus, 1e-12, 1.0)


def _tempering_blackjax(log_w: Floats) -> Call:
    import jax
    from blackjax.smc.ess import ess_solver
    from blackjax.smc.solver import dichotomy

    with jax.enable_x64(True):
        given = jax.numpy.asarray(log_w)
        solve = jax.jit(lambda x: ess_solver(lambda particles: particles, x, ESS_MIN, 1.0, dichotomy))

    def call() -> float:
        with jax.enable_x64(True):
            return float(solve(given))

    return call


def _with_values(function: Callable[..., Any]) -> Callable[[Floats], Call]:
    def prepare(log_w: Floats) -> Call:
        h = np.cos(log_w)
        return lambda: function(log_w, h)

    return prepare


COMPONENTS = 1000


def _gradients(log_w: Floats) -> Floats:
    values: Floats = np.random.default_rng(7).normal(size=(log_w.shape[-1], COMPONENTS))
    return values if log_w.ndim == 1 else np.broadcast_to(values, (*log_w.shape, COMPONENTS)).copy()


def _snis_of_vectors(log_w: Floats) -> Call:
    h = _gradients(log_w)
    return lambda: isdiag.snis(log_w, h)


def _weighted_sum(log_w: Floats) -> Call:
    h = _gradients(log_w)
    weights = np.exp(isdiag.temper(log_w))[..., None, :]
    return lambda: weights @ h


def _accurate(log_w: Floats) -> Call:
    h = np.cos(log_w)
    return lambda: isdiag.select_gamma(log_w, rule="mse", h=h)


def _plain(function: Callable[..., Any], *given: float) -> Callable[[Floats], Call]:
    return lambda log_w: lambda: function(log_w, *given)


def _exp_sum(log_w: Floats) -> Call:
    exp = _exp(log_w)
    return lambda: exp().sum(axis=-1)


_SHORT_ROW: Mapping[Shape, str] = dict.fromkeys(_VECTORS, "one row: shared out to workers from 2^20 draws on")

COMPARISONS: Mapping[str, Mapping[str, Contestant]] = {
    "psis": {
        "isdiag": Contestant("isdiag", _psis(workers=1), remark="also ESS and status"),
        "isdiag, out=": Contestant("isdiag", _psis_into(workers=1), remark="into memory given to it"),
        "isdiag, 2 workers": Contestant("isdiag", _psis(workers=2), skips=_SHORT_ROW),
        "arviz-stats": Contestant("peer", _psis_arviz_stats, ("arviz_stats.base",)),
        "arviz": Contestant("peer", _psis_arviz, ("arviz",), remark="tail one draw longer: ceil, not floor"),
        "np.exp(out=)": Contestant("floor", _exp),
        "np.partition": Contestant("floor", _partition),
    },
    "select_gamma": {
        "isdiag": Contestant(
            "isdiag", _select_gamma("joint"), remark="also khat before and after, ESS, status"
        ),
        "isdiag refit": Contestant("isdiag", _select_gamma("refit")),
        "isdiag, 2 workers": Contestant("isdiag", _select_gamma("joint", workers=2), skips=_SHORT_ROW),
        "particles": Contestant(
            "peer",
            _tempering_particles,
            ("particles.resampling", "scipy.optimize"),
            batches=False,
            remark="gamma by ESS alone",
        ),
        "blackjax": Contestant(
            "peer",
            _tempering_blackjax,
            ("blackjax.smc.ess",),
            batches=False,
            skips=dict.fromkeys(((64, 1024), (4000, 1000), (4000, 10000)), "thousands of dispatches"),
            remark="x64, jit; gamma by ESS alone, to 1e-4 in log ESS",
        ),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
    "pareto_khat": {
        "isdiag": Contestant("isdiag", _plain(isdiag.pareto_khat)),
        "np.partition": Contestant("floor", _partition),
    },
    "ess": {
        "isdiag": Contestant("isdiag", _plain(isdiag.ess)),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
    "temper": {
        "isdiag": Contestant("isdiag", _plain(isdiag.temper, 0.5), remark="allocates what it returns"),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
    "snis": {
        "isdiag": Contestant("isdiag", _with_values(isdiag.snis), remark="also std_error, bias, ESS, khat"),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
        "np.partition": Contestant("floor", _partition),
    },
    "snis, vectors": {
        "isdiag": Contestant("isdiag", _snis_of_vectors, remark=f"h of {COMPONENTS} components; all of snis"),
        "weights @ h": Contestant("floor", _weighted_sum, remark="normalised weights given; BLAS threads"),
    },
    "select_gamma, mse": {
        "isdiag": Contestant("isdiag", _accurate, remark="7 passes; gamma, estimate, error"),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
    "gpd_fit": {
        "isdiag": Contestant("isdiag", _gpd_fit, remark="also the standard error of k"),
        "arviz-stats": Contestant("peer", _gpd_fit_arviz_stats, ("arviz_stats.base",), batches=False),
        "arviz": Contestant("peer", _gpd_fit_arviz, ("arviz",), batches=False),
        "np.sort": Contestant("floor", _sort),
    },
    "kong_owen_bias": {
        "isdiag": Contestant("isdiag", _with_values(isdiag.kong_owen_bias)),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
}
