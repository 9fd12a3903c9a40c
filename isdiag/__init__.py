"""Tell whether importance weights can be trusted, and temper them just as far as it takes."""

from isdiag import lognormal, rl
from isdiag._control_variate import control_variate
from isdiag._core.diagnosis import Diagnosis
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
    MSECurve,
)
from isdiag._diagnosis import diagnose
from isdiag._divergences import (
    alpha_divergence,
    chi2_divergence,
    kl_divergence,
    log_moment,
    renyi_divergence,
)
from isdiag._estimates import kong_owen_bias, snis
from isdiag._gamma import mse_curve, select_gamma
from isdiag._intervals import confidence_interval, expectation_diagnostics
from isdiag._paths import geometric_path, next_gamma, stepping_stone, thermodynamic
from isdiag._tails import (
    convergence_rate,
    finite_variance_test,
    gpd_fit,
    khat_threshold,
    min_sample_size,
    pareto_khat,
    psis,
    tail_length,
)
from isdiag._weights import ess, temper
from isdiag.status import NonFiniteWarning, Status

__version__ = "0.1.0"

__all__ = [
    "PSIS",
    "SNIS",
    "AccurateSelection",
    "ConfidenceInterval",
    "ControlVariate",
    "Diagnosis",
    "Divergence",
    "ExpectationDiagnostics",
    "FiniteVarianceTest",
    "GPDFit",
    "GammaSelection",
    "GeometricPath",
    "LogZ",
    "MSECurve",
    "NonFiniteWarning",
    "Status",
    "alpha_divergence",
    "chi2_divergence",
    "confidence_interval",
    "control_variate",
    "convergence_rate",
    "diagnose",
    "ess",
    "expectation_diagnostics",
    "finite_variance_test",
    "geometric_path",
    "gpd_fit",
    "khat_threshold",
    "kl_divergence",
    "kong_owen_bias",
    "log_moment",
    "lognormal",
    "min_sample_size",
    "mse_curve",
    "next_gamma",
    "pareto_khat",
    "psis",
    "renyi_divergence",
    "rl",
    "select_gamma",
    "snis",
    "stepping_stone",
    "tail_length",
    "temper",
    "thermodynamic",
]
