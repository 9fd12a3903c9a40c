"""Tell whether importance weights can be trusted, and temper them just as far as it takes."""

from isdiag.diagnose import Diagnosis, diagnose
from isdiag.ess import ess
from isdiag.gamma import GammaSelection, select_gamma
from isdiag.gpd import (
    GPDFit,
    convergence_rate,
    gpd_fit,
    khat_threshold,
    min_sample_size,
    tail_length,
)
from isdiag.psis import PSIS, pareto_khat, psis
from isdiag.snis import SNIS, kong_owen_bias, snis
from isdiag.status import NonFiniteWarning, Status
from isdiag.weights import temper

__version__ = "0.1.0"

__all__ = [
    "PSIS",
    "SNIS",
    "Diagnosis",
    "GPDFit",
    "GammaSelection",
    "NonFiniteWarning",
    "Status",
    "convergence_rate",
    "diagnose",
    "ess",
    "gpd_fit",
    "khat_threshold",
    "kong_owen_bias",
    "min_sample_size",
    "pareto_khat",
    "psis",
    "select_gamma",
    "snis",
    "tail_length",
    "temper",
]
