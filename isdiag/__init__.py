"""Tell whether importance weights can be trusted, and temper them just as far as it takes.

Arrays
------
`log_w` comes first: log importance weights up to a constant, ``log target - log proposal``, of any real
dtype, in NumPy, torch, JAX or whatever NumPy can read. `axis` names the sample axis or axes, the others are
a batch; `where` leaves entries out of n, while -inf is a draw of zero weight and counts in n. Results have
the batch shape and log_w's kind of array; of one row they are Python scalars. Arithmetic is float64, weights
go back in log_w's float dtype. Inputs are never modified.

The axes of an xarray DataArray, and of a Series or DataFrame of pandas or polars, have names, which `axis`
takes as well. By default the draws of a DataArray lie along ("chain", "draw"), "draw" or "sample", and those
of a DataFrame along its rows, so that its columns are the batch. Labels are compared: what is not in log_w's
order raises ValueError. Results carry the labels of the batch.

Errors
------
A wrong argument raises ValueError with its value in the message: one outside of the range or the choices
that its description names, shapes that do not fit, a sample axis that is empty. TypeError is for what is not
real numbers, not in CPU memory, or, for `where`, neither boolean nor ints. A row that cannot be computed
raises nothing: it has a `Status` that says why, and no other row feels it.

Warnings
--------
`NonFiniteWarning`, once for a call, if rows hold NaN or +inf: their results are NaN.

Sources
-------
Keys such as [Owen2013]_ are those of the bibliography, docs/reference/bibliography.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isdiag import lognormal, printed
from isdiag._chains import relative_efficiency
from isdiag._control_variate import control_variate
from isdiag._core.diagnosis import Diagnosis
from isdiag._core.estimate import Estimate
from isdiag._core.result import (
    PSIS,
    SNIS,
    AccurateSelection,
    ConfidenceInterval,
    ControlVariate,
    Divergence,
    ExpectationDiagnostics,
    FiniteVarianceTest,
    GammaSelection,
    GeometricPath,
    GPDFit,
    LogZ,
    MomentMatched,
    MSECurve,
    Quantile,
    Truncated,
)
from isdiag._diagnosis import diagnose
from isdiag._divergences import (
    alpha_divergence,
    chi2_divergence,
    kl_divergence,
    log_moment,
    renyi_divergence,
)
from isdiag._estimates import draws_needed, estimate, kong_owen_bias, quantile, snis
from isdiag._gamma import mse_curve, select_gamma
from isdiag._intervals import confidence_interval, expectation_diagnostics
from isdiag._moment_matching import moment_match
from isdiag._paths import geometric_path, next_gamma, stepping_stone, thermodynamic
from isdiag._summary import Summary
from isdiag._tails import (
    convergence_rate,
    finite_variance_test,
    gpd_fit,
    khat_interval,
    khat_threshold,
    min_sample_size,
    pareto_khat,
    psis,
    tail_length,
)
from isdiag._weights import ess, mixture_log_weights, resample, temper, truncate
from isdiag.status import NonFiniteWarning, Status

if TYPE_CHECKING:
    from isdiag import rl

__version__ = "0.1.0"

__all__ = [
    "PSIS",
    "SNIS",
    "AccurateSelection",
    "ConfidenceInterval",
    "ControlVariate",
    "Diagnosis",
    "Divergence",
    "Estimate",
    "ExpectationDiagnostics",
    "FiniteVarianceTest",
    "GPDFit",
    "GammaSelection",
    "GeometricPath",
    "LogZ",
    "MSECurve",
    "MomentMatched",
    "NonFiniteWarning",
    "Quantile",
    "Status",
    "Summary",
    "Truncated",
    "alpha_divergence",
    "chi2_divergence",
    "confidence_interval",
    "control_variate",
    "convergence_rate",
    "diagnose",
    "draws_needed",
    "ess",
    "estimate",
    "expectation_diagnostics",
    "finite_variance_test",
    "geometric_path",
    "gpd_fit",
    "khat_interval",
    "khat_threshold",
    "kl_divergence",
    "kong_owen_bias",
    "log_moment",
    "lognormal",
    "min_sample_size",
    "mixture_log_weights",
    "moment_match",
    "mse_curve",
    "next_gamma",
    "pareto_khat",
    "printed",
    "psis",
    "quantile",
    "relative_efficiency",
    "renyi_divergence",
    "resample",
    "rl",
    "select_gamma",
    "snis",
    "stepping_stone",
    "tail_length",
    "temper",
    "thermodynamic",
    "truncate",
]


def __getattr__(name: str) -> Any:
    # A tenth of a first call, and for those who train.
    if name == "rl":
        return import_module("isdiag.rl")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), "rl"})
