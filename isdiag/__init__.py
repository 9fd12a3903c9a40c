"""Tell whether importance weights can be trusted, and temper them just as far as it takes."""

from isdiag import lognormal, rl
from isdiag.accuracy import MSECurve, mse_curve
from isdiag.control import ControlVariate, control_variate
from isdiag.diagnose import Diagnosis, diagnose
from isdiag.divergence import (
    Divergence,
    alpha_divergence,
    chi2_divergence,
    kl_divergence,
    log_moment,
    renyi_divergence,
)
from isdiag.ess import ess
from isdiag.expectation import (
    ConfidenceInterval,
    ExpectationDiagnostics,
    FiniteVarianceTest,
    confidence_interval,
    expectation_diagnostics,
    finite_variance_test,
)
from isdiag.gamma import AccurateSelection, GammaSelection, select_gamma
from isdiag.gpd import (
    GPDFit,
    convergence_rate,
    gpd_fit,
    khat_threshold,
    min_sample_size,
    tail_length,
)
from isdiag.path import GeometricPath, LogZ, geometric_path, next_gamma, stepping_stone, thermodynamic
from isdiag.psis import PSIS, pareto_khat, psis
from isdiag.snis import SNIS, kong_owen_bias, snis
from isdiag.status import NonFiniteWarning, Status
from isdiag.weights import temper

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
