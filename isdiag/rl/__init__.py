"""Off-policy learning: ratios of policies, reshapes of weights, schedules and a controller of gamma."""

from isdiag.rl import presets
from isdiag.rl.batch import Limits
from isdiag.rl.controller import GammaController
from isdiag.rl.objectives import EntropyRegularized, ExpectedReward, KLRegularized, Objective
from isdiag.rl.ratios import log_ratio
from isdiag.rl.reshapes import (
    CISPO,
    SAPO,
    SFT,
    TOPR,
    VESPO,
    AlphaDivergence,
    Cautious,
    Defensive,
    DRos,
    Masked,
    ParetoSmoothed,
    Power,
    PPOClip,
    Reinforce,
    Reshape,
    Reshaped,
    RewardWeighted,
    Truncated,
)
from isdiag.rl.schedules import Cosine, Diagnosed, ESSAdaptive, Evidence, Fixed, Linear, Schedule, State
from isdiag.rl.step import METRICS, Step, compare_weights, loggable, take_step

__all__ = [
    "CISPO",
    "METRICS",
    "SAPO",
    "SFT",
    "TOPR",
    "VESPO",
    "AlphaDivergence",
    "Cautious",
    "Cosine",
    "DRos",
    "Defensive",
    "Diagnosed",
    "ESSAdaptive",
    "EntropyRegularized",
    "Evidence",
    "ExpectedReward",
    "Fixed",
    "GammaController",
    "KLRegularized",
    "Limits",
    "Linear",
    "Masked",
    "Objective",
    "PPOClip",
    "ParetoSmoothed",
    "Power",
    "Reinforce",
    "Reshape",
    "Reshaped",
    "RewardWeighted",
    "Schedule",
    "State",
    "Step",
    "Truncated",
    "compare_weights",
    "log_ratio",
    "loggable",
    "presets",
    "take_step",
]
