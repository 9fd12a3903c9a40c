"""A call of every public function of log-weights, and the least work that it cannot do without.

`CALLS[name]` makes a call from log-weights and values, float64 vectors of one size. `FLOORS[name]` says which
passes over the row a function cannot do without; their time in NumPy, added up, is what its own is compared
with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import isdiag

Floats = NDArray[np.float64]
Call = Callable[[], Any]

_GAMMAS = np.array([0.0, 0.5, 1.0])


def _of_weights(function: Callable[..., Any], *given: Any) -> Callable[[Floats, Floats], Call]:
    return lambda x, _: lambda: function(x, *given)


def _of_values(function: Callable[..., Any], *given: Any, **options: Any) -> Callable[[Floats, Floats], Call]:
    return lambda x, h: lambda: function(x, h, *given, **options)


def _of_sets(function: Callable[..., Any]) -> Callable[[Floats, Floats], Call]:
    def prepare(x: Floats, _: Floats) -> Call:
        sets = np.stack([x[: x.size // 3]] * 3)
        return lambda: function(sets, _GAMMAS)

    return prepare


def _path(x: Floats, _: Floats) -> Call:
    mu = np.zeros_like(x)
    return lambda: isdiag.geometric_path(mu, x, _GAMMAS)


CALLS: Mapping[str, Callable[[Floats, Floats], Call]] = {
    "temper": _of_weights(isdiag.temper, 0.5),
    "ess": _of_weights(isdiag.ess),
    "pareto_khat": _of_weights(isdiag.pareto_khat),
    "psis": _of_weights(isdiag.psis),
    "truncate": _of_weights(isdiag.truncate),
    "snis": _of_values(isdiag.snis),
    "estimate": _of_values(isdiag.estimate),
    "quantile": _of_values(isdiag.quantile, 0.5),
    "draws_needed": _of_values(isdiag.draws_needed, half_width=0.1),
    "kong_owen_bias": _of_values(isdiag.kong_owen_bias),
    "select_gamma": _of_weights(isdiag.select_gamma),
    "diagnose": _of_weights(isdiag.diagnose),
    "mse_curve": _of_values(isdiag.mse_curve),
    "expectation_diagnostics": _of_values(isdiag.expectation_diagnostics),
    "confidence_interval": _of_values(isdiag.confidence_interval),
    "finite_variance_test": _of_weights(isdiag.finite_variance_test),
    "control_variate": _of_values(isdiag.control_variate),
    "geometric_path": _path,
    "next_gamma": _of_weights(isdiag.next_gamma),
    "stepping_stone": _of_sets(isdiag.stepping_stone),
    "thermodynamic": _of_sets(isdiag.thermodynamic),
    "log_moment": _of_weights(isdiag.log_moment, 0.5),
    "renyi_divergence": _of_weights(isdiag.renyi_divergence, 0.5),
    "alpha_divergence": _of_weights(isdiag.alpha_divergence, 0.5),
    "kl_divergence": _of_weights(isdiag.kl_divergence),
    "chi2_divergence": _of_weights(isdiag.chi2_divergence),
}

EXP, LOOK, WRITE = "exp and sum", "look", "write"
# To look is to compare each draw, for its extent or its tail; to write, to hand out a number for each.
FLOORS: Mapping[str, tuple[str, ...]] = {
    "temper": (EXP, WRITE),
    "ess": (EXP,),
    "pareto_khat": (LOOK,),
    "psis": (LOOK, EXP, WRITE),
    "truncate": (LOOK, EXP, EXP, WRITE),  # the ESS is that of the weights after they are cut
    "snis": (LOOK, EXP),
    "estimate": (LOOK, EXP, EXP, WRITE),  # influences are written once the estimate is known
    "quantile": (LOOK, EXP, LOOK),
    "draws_needed": (LOOK, EXP, EXP, LOOK),
    "kong_owen_bias": (EXP,),
    "select_gamma": (LOOK, EXP),
    "diagnose": (LOOK, EXP, EXP),  # at gamma and at 1
    "mse_curve": (LOOK, LOOK, *[EXP] * 5),  # the sums, the means, influences twice, the powers of gammas
    "expectation_diagnostics": (LOOK, EXP, EXP, LOOK),  # the tails are those about the estimate
    "confidence_interval": (LOOK, EXP),
    "finite_variance_test": (LOOK,),
    "control_variate": (LOOK, EXP),
    "geometric_path": (LOOK, *[EXP, WRITE] * 3),
    "next_gamma": (LOOK, EXP),
    "stepping_stone": (LOOK, EXP, EXP),
    "thermodynamic": (LOOK, EXP, EXP),
    "log_moment": (LOOK, EXP),
    "renyi_divergence": (LOOK, EXP),
    "alpha_divergence": (LOOK, EXP),
    "kl_divergence": (LOOK, EXP),
    "chi2_divergence": (LOOK, EXP),
}


Kind = Literal["normal", "flat", "two-valued"]
_KINDS: Mapping[Kind, Callable[[Floats], Floats]] = {
    "normal": lambda x: x,
    "flat": np.zeros_like,
    "two-valued": lambda x: np.where(x > 0.0, 0.0, -1.0),
}


def row(n: int) -> tuple[Floats, Floats]:
    """Log-weights and values, the same at every call."""
    x = np.random.default_rng(20_240_607).normal(scale=1.2, size=n)
    return x, np.cos(x)


def prepared(name: str, n: int, kind: Kind = "normal") -> Call:
    """The call to time, on so many draws."""
    x, h = row(n)
    return CALLS[name](_KINDS[kind](x), h)


def passes(n: int) -> dict[str, Call]:
    """What the passes of a floor are taken to cost: those of NumPy into memory that is there."""
    x, _ = row(n)
    out = np.ones_like(x)
    return {
        EXP: lambda: np.exp(x, out=out).sum(),
        LOOK: x.max,
        WRITE: lambda: np.copyto(out, x),
    }


def seconds_a_call(call: Call, repeats: int) -> float:
    """Of processor time."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats
