"""Who is compared with isdiag, on what: the one table that tests, benchmarks and docs share.

`COMPARISONS[operation][name]` is a `Contestant`, called with log-weights: float64, C-contiguous, of shape
(n,) or (rows, n) with the draws last. Contestants for "psis" return (log-weights, khat), those for
"select_gamma" return gamma; floors return something that the operation cannot do without.
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

SHAPES: tuple[Shape, ...] = ((1000,), (10_000,), (100_000,), (1_000_000,), (4000, 1000), (4000, 10_000))

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


def _exp_sum(log_w: Floats) -> Call:
    exp = _exp(log_w)
    return lambda: exp().sum(axis=-1)


_ONE_ROW: Mapping[Shape, str] = {
    shape: "one row: workers share out rows" for shape in SHAPES if len(shape) == 1
}

COMPARISONS: Mapping[str, Mapping[str, Contestant]] = {
    "psis": {
        "isdiag": Contestant("isdiag", _psis(workers=1), remark="also ESS and status"),
        "isdiag, 2 workers": Contestant("isdiag", _psis(workers=2), skips=_ONE_ROW),
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
        "isdiag, 2 workers": Contestant("isdiag", _select_gamma("joint", workers=2), skips=_ONE_ROW),
        "particles": Contestant(
            "peer",
            _tempering_particles,
            ("particles.resampling", "scipy.optimize"),
            batches=False,
            remark="gamma by ESS alone",
        ),
        "np.exp(out=).sum()": Contestant("floor", _exp_sum),
    },
}
