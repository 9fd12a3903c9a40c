"""What isdiag is made of, once: public names, kinds of arrays, reshapes, statuses.

Whoever is listed is tested: tests/api/test_arrays.py (boundary), tests/api/test_total.py (any array),
tests/site/test_registry.py (signatures, docstrings, reference) and the table of array kinds in the docs go
by these lists. What is public and not listed fails tests/site/test_registry.py.

To add a function: a `Function` below. To add a reshape: an instance of each regime in `RESHAPES`. To add a
status: an input that reaches it in `STATUSES`. The docs read this module, so it imports no pytest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

import numpy as np

import isdiag
from isdiag import Status, rl
from isdiag._core.result import Result

# --------------------------------------------------------------------------- functions of log-weights

# Stand for the log-weights, or what is made of them, among the arguments of a call.
X, ZEROS, SETS = object(), object(), object()
STEPS = np.array([0.0, 0.5, 1.0])
STEPS.flags.writeable = False


def _zeros(x):
    return (
        np.zeros(np.shape(x)) if isinstance(x, list) else np.zeros_like(x) if type(x) is np.ndarray else 0 * x
    )


def _sets(x):
    """Three sets of draws, all the same, on an axis before the last."""
    if hasattr(x, "unsqueeze"):
        return x.unsqueeze(-2).expand(*x.shape[:-1], 3, x.shape[-1])
    if hasattr(x, "__array_namespace__"):
        xp = x.__array_namespace__()
        return xp.stack([x, x, x], axis=-2) if x.ndim else x
    x = np.asarray(x)
    return np.stack([x, x, x], axis=-2) if x.ndim else x


MADE = {id(X): lambda x: x, id(ZEROS): _zeros, id(SETS): _sets}


def _made(argument, x):
    return MADE[id(argument)](x) if id(argument) in MADE else argument


@dataclass(frozen=True)
class Function:
    """A public function of log-weights.

    `signature` is checked, and says which options it takes. `args` and each of `options` make a call of
    log-weights alone. `result` is the class of the result, or None for one number a row; `weights` says that
    the bare result is log-weights; `lead` counts the axes of its own that a result has in front. `by_mse` is
    the class for rule="mse".
    """

    name: str
    signature: str
    result: type | None = None
    args: tuple[Any, ...] = (X,)
    options: tuple[dict[str, Any], ...] = ({},)
    weights: bool = False
    lead: int = 0
    by_mse: type | None = None
    no_weight: Status = Status.NO_WEIGHT  # what becomes of a row that is -inf throughout

    @property
    def takes(self):
        """Names of its arguments."""
        return {part.split("=")[0].strip() for part in self.signature.split(",")}

    @property
    def calls(self):
        """A call for each set of options."""
        return [Call(self, options) for options in self.options]


@dataclass(frozen=True, eq=False)
class Call:
    """A function with everything but log-weights and the boundary's options."""

    function: Function
    options: dict[str, Any]

    def __call__(self, x, **boundary):
        f = self.function
        if f.args[0] is SETS and np.ndim(boundary.get("where")):
            boundary["where"] = np.asarray(boundary["where"])[..., None, :]
        args = [_made(argument, x) for argument in f.args]
        options = {key: _made(value, x) for key, value in self.options.items()}
        return getattr(isdiag, f.name)(*args, **options | boundary)

    def __repr__(self):
        made = {id(X): "x", id(ZEROS): "0", id(SETS): "sets"}
        options = [f"{key}={made.get(id(value), value)}" for key, value in self.options.items()]
        return f"{self.function.name}({', '.join(options)})"

    def takes(self, option):
        return option in self.function.takes

    @property
    def result(self):
        """The class of its result, or None."""
        by_mse = self.options.get("rule") == "mse" and self.function.by_mse
        return by_mse or self.function.result

    def is_weights(self, name):
        """Whether that field has log_w's shape and dtype."""
        return name == "log_weights" or self.function.weights


def rows_of(result):
    """Every field that has numbers, words or a status for each row, by name, a bare result under ""."""
    if not isinstance(result, Result):
        return {"": result}
    found = {}
    for f in fields(result):
        value = getattr(result, f.name)
        if isinstance(value, Result):
            found |= {f"{f.name}.{name}": each for name, each in rows_of(value).items()}
        elif value is not None and f.type != "Given":
            found[f.name] = value
    return found


_BATCH = "axis=-1, where=None"
_TAIL = "r_eff=1.0, tail_length=None"
_KHAT = f"{_TAIL}, {_BATCH}, workers=1"  # of what returns a khat
_ERROR = f"draws='independent', r_eff=None, tail_length=None, {_BATCH}, workers=1"  # and a standard error
_LIMITS = "k_max=0.7, ess_min=0.3, gamma_max=1.0, rule='joint'"
ORDERS = (0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 5.0)


def _either(options):
    """The same with weights as given and normalised."""
    return tuple(each | {"normalize": normalize} for each in options for normalize in (True, False))


# fmt: off
FUNCTIONS = (
    Function(
        "temper", f"log_w, gamma=1.0, *, normalize=True, {_BATCH}",
        options=({"gamma": 0.7}, {"normalize": False}), weights=True,
    ),
    Function(
        "ess", f"log_w, *, gamma=1.0, kind='kish', {_BATCH}",
        options=tuple({"kind": kind} for kind in ("kish", "perplexity", "max")),
    ),
    Function("pareto_khat", f"log_w, *, gamma=1.0, {_KHAT}"),
    Function(
        "psis", f"log_w, *, {_TAIL}, normalize=True, {_BATCH}, workers=1, out=None", isdiag.PSIS,
        options=({}, {"normalize": False}),
    ),
    Function(
        "truncate", f"log_w, *, {_TAIL}, normalize=True, {_BATCH}, workers=1", isdiag.Truncated,
        options=({}, {"normalize": False}),
    ),
    Function(
        "snis", f"log_w, h, *, gamma=1.0, smooth=False, normalize=True, {_ERROR}", isdiag.SNIS, (X, X),
        ({}, {"smooth": "psis"}, {"smooth": "truncate"}, {"smooth": "auto"}, {"normalize": False}),
    ),
    Function(
        "estimate",
        "log_w, h, *, gamma=1.0, smooth=False, normalize=True, baseline=None, clusters=None, strata=None, "
        f"{_ERROR}", isdiag.Estimate, (X, X),
        ({}, {"smooth": "psis"}, {"normalize": False}, {"baseline": X}, {"strata": ZEROS}),
    ),
    Function(
        "quantile", f"log_w, h, q, *, level=0.95, smooth=False, {_ERROR}", isdiag.Quantile, (X, X),
        ({"q": 0.5}, {"q": 0.9, "smooth": "truncate"}),
    ),
    Function(
        "draws_needed", f"log_w, h, *, half_width, gamma=1.0, {_ERROR}", None, (X, X),
        ({"half_width": 0.1},),
    ),
    Function(
        "kong_owen_bias", f"log_w, h, *, gamma=1.0, covariance='target', {_BATCH}", None, (X, X),
        ({}, {"covariance": "proposal"}),
    ),
    Function(
        "select_gamma", f"log_w, *, {_LIMITS}, h=None, {_ERROR}",
        isdiag.GammaSelection, options=({}, {"rule": "refit"}, {"rule": "mse", "h": X}),
        by_mse=isdiag.AccurateSelection,
    ),
    Function(
        "diagnose", f"log_w, h=None, *, {_LIMITS.replace('0.7', 'None')}, {_ERROR}",
        isdiag.Diagnosis,
        options=({}, {"h": X}, {"rule": "refit"}, {"rule": "mse", "h": X}),
    ),
    Function("mse_curve", f"log_w, h, gammas=None, *, {_KHAT}", isdiag.MSECurve, (X, X)),
    Function(
        "expectation_diagnostics", f"log_w, h, *, gamma=1.0, {_KHAT}", isdiag.ExpectationDiagnostics, (X, X)
    ),
    Function(
        "confidence_interval",
        f"log_w, h, *, level=0.95, method='hall', bounds=None, gamma=1.0, {_ERROR}",
        isdiag.ConfidenceInterval, (X, X), ({}, {"method": "delta"}),
    ),
    Function(
        "finite_variance_test", f"log_w, *, gamma=1.0, {_KHAT}", isdiag.FiniteVarianceTest
    ),
    Function(
        "control_variate", f"log_w, h, *, gamma=1.0, expected_weight=None, second_log_w=None, {_ERROR}",
        isdiag.ControlVariate, (X, X), ({}, {"gamma": 0.5, "expected_weight": 0.9}),
    ),
    Function(
        "geometric_path", f"log_mu, log_target, gammas, *, {_KHAT}", isdiag.GeometricPath,
        (ZEROS, X, STEPS), lead=1,
    ),
    Function(
        "next_gamma", f"log_w, gamma=0.0, *, ess_min=0.5, log_weights=None, {_BATCH}",
        options=({}, {"log_weights": X}),
    ),
    Function(
        "stepping_stone", f"log_w, gammas, *, {_TAIL}, where=None, workers=1", isdiag.LogZ, (SETS, STEPS)
    ),
    Function(
        "thermodynamic", "log_w, gammas, *, rule='corrected', where=None", isdiag.LogZ, (SETS, STEPS),
        ({}, {"rule": "trapezoid"}), no_weight=Status.NOT_FINITE,  # only mu may draw where the target is zero
    ),
    Function(
        "log_moment", f"log_w, gamma, *, normalize=False, {_ERROR}", isdiag.Divergence,
        options=_either({"gamma": g} for g in (0.0, 0.5, 1.0, 2.5)),
    ),
    Function(
        "renyi_divergence", f"log_w, alpha, *, normalize=True, {_ERROR}", isdiag.Divergence,
        options=_either({"alpha": a} for a in (*ORDERS, np.inf)),
    ),
    Function(
        "alpha_divergence", f"log_w, alpha, *, normalize=True, {_ERROR}", isdiag.Divergence,
        options=_either({"alpha": a} for a in ORDERS),
    ),
    Function(
        "kl_divergence", f"log_w, *, direction='target', estimator='k1', normalize=True, {_ERROR}",
        isdiag.Divergence, options=_either(
        {"direction": d, "estimator": e} for d in ("target", "proposal") for e in ("k1", "k2", "k3") ),
    ),
    Function(
        "chi2_divergence", f"log_w, *, normalize=True, {_ERROR}", isdiag.Divergence, options=_either([{}])
    ),
)
# fmt: on
CALLS = [call for function in FUNCTIONS for call in function.calls]

# ------------------------------------------------------------------------- the other public functions

# Signatures of those that take no log-weights, or give no number for each row: by module, by name.
HELPERS = {
    "isdiag": {
        "gpd_fit": "excesses, *, prior=True, weights=None",
        "mixture_log_weights": "log_target, log_proposals, counts",
        "moment_match": "draws, log_target, log_proposal, *, k_max=-inf, max_steps=30, split=False, "
        "r_eff=1.0, tail_length=None",
        "resample": f"log_w, size=None, *, method='systematic', replace=True, rng=None, {_BATCH}",
        "khat_interval": "khat, tail_length, *, level=0.95",
        "khat_threshold": "n",
        "min_sample_size": "khat",
        "convergence_rate": "khat, n",
        "tail_length": "n, r_eff=1.0",
        "relative_efficiency": "x, *, axis=-1",
    },
    "isdiag.lognormal": {
        "moment": "gamma, s",
        "ess_ratio": "gamma, s",
        "variance": "gamma, s, n",
        "variance_printed": "gamma, s",
        "bias": "gamma, s, n",
        "bias_printed": "gamma, s, n, *, scale=1.0",
        "tempering_bias": "gamma, s",
        "mse": "gamma, s, n",
        "mse_printed": "gamma, s, n, *, c1=1.0, c2=1.0",
        "best_gamma": "s, n",
        "best_gamma_printed": "s, n, *, c1=1.0, c2=1.0",
    },
    "isdiag.printed": {"khat": "excesses", "khat_threshold": "n"},
    "isdiag.rl": {
        "log_ratio": "log_pi, log_mu, mask=None, *, cu_seqlens=None, level='sequence'",
        "take_step": "log_w, advantage=1.0, *, reshape, schedule, state, "
        "limits=Limits(k_max=0.7, ess_min=0.8, gamma_max=1.0), normalize='batch', level='sequence', "
        "where=None",
        "loggable": "metrics, prefix='isdiag/'",
        "compare_weights": "log_w, log_used, advantage=1.0, *, "
        "limits=Limits(k_max=0.7, ess_min=0.8, gamma_max=1.0), level='sequence', where=None",
    },
    "isdiag.rl.presets": {
        "adaptive": "cap=2.0, caution=4.0",
        "cispo": "high=5.0, low=0.0",
        "dapo": "low=0.2, high=0.28",
        "decoupled_ppo": "low=0.2, high=0.2, correction=None",
        "dr_grpo": "length, low=0.2, high=0.2",
        "grpo": "low=0.2, high=0.2",
        "gspo": "low=0.0003, high=0.0004",
        "icepop": "low=0.5, high=5.0, clip_low=0.2, clip_high=0.2",
        "ppo": "low=0.2, high=0.2, dual=None",
        "sapo": "tau_pos=1.0, tau_neg=1.05",
        "tis": "cap=2.0, low=0.2, high=0.2",
        "topr": "",
        "vespo": "k_pos=2.0, lam_pos=3.0, k_neg=3.0, lam_neg=2.0",
    },
}

# Fields of each result class, in their order.
FIELDS = {
    isdiag.GPDFit: "k sigma k_std_error",
    isdiag.PSIS: "log_weights khat ess tail_length n status",
    isdiag.Truncated: "log_weights khat ess n status",
    isdiag.SNIS: "estimate std_error bias ess khat status low high log_z log_z_std_error error_draws",
    isdiag.Estimate: "value std_error low high influence n status",
    isdiag.Quantile: "estimate low high std_error status",
    isdiag.MomentMatched: "draws log_weights khat khat_before status",
    isdiag.GammaSelection: "gamma gamma_psis gamma_ess khat khat_tempered ess ess_ratio n limited_by status",
    isdiag.AccurateSelection: "gamma estimate std_error bias mse error_draws khat khat_tempered ess "
    "ess_ratio n limited_by status low high",
    isdiag.Diagnosis: "n ess max_weight k_max ess_min selection estimate estimate_tempered status",
    isdiag.MSECurve: "gamma estimate std_error bias tempering_bias tempering_bias_std_error mse reference "
    "reference_std_error",
    isdiag.ExpectationDiagnostics: "khat khat_right khat_left khat_weights ess error_draws status",
    isdiag.ConfidenceInterval: "low high estimate level method khat error_draws status",
    isdiag.FiniteVarianceTest: "statistic p_value k status",
    isdiag.ControlVariate: "estimate std_error std_error_plain plain coefficient khat status low high "
    "error_draws",
    isdiag.Divergence: "estimate std_error khat low high error_draws status",
    isdiag.GeometricPath: "gammas log_weights ess khat log_z log_z_std_error status",
    isdiag.LogZ: "estimate std_error khat disagreement low high error_draws status",
    rl.Step: "coefficients weights gamma ess_ratio ess_ratio_tempered ess_ratio_raw pareto_k pareto_k_used "
    "gamma_batch max_weight mean_weight bias_proxy fraction_modified fraction_zero fraction_saturated "
    "negative_share negative_share_raw log_w_q01 log_w_q50 log_w_q99 log_w_max kl kl_k3 chi2 "
    "offset offset_z n n_nonfinite alarm_offset alarm_stall alarm_one_draw alarm_silenced alarm_stale",
    rl.Limits: "k_max ess_min gamma_max",
    rl.Reshaped: "log_f signal",
    rl.State: "gamma step",
    rl.Evidence: "ess_ratio gamma",
}

# ---------------------------------------------------------------------------------- kinds of arrays


@dataclass(frozen=True)
class Kind:
    """Arrays of a package that may be missing; `make` takes the package and a NumPy array."""

    package: str
    make: Callable[[Any, np.ndarray], Any]

    def __call__(self, array):
        return self.make(import_module(self.package), array)


KINDS = (
    Kind("torch", lambda torch, a: torch.tensor(np.asarray(a))),
    Kind("jax", lambda jax, a: jax.numpy.asarray(a)),
    Kind("array_api_strict", lambda xp, a: xp.asarray(np.asarray(a))),
)


def _read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


# The same numbers in NumPy, laid out in other ways.
LAYOUTS = {
    "read-only": _read_only,
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list": lambda a: a.tolist(),
}

# Weights come back in the dtype if it is a float, else in float64; bfloat16 is that of ml_dtypes.
DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int32", "int64", "uint8")

# ----------------------------------------------------------------------------------------- statuses

_NORMAL = np.random.default_rng(7).normal(size=1000)
_ONE_BAD = np.where(np.arange(1000) == 3, np.nan, _NORMAL)
_FEW = np.where(np.arange(1000) < 100, _NORMAL, -np.inf)
STATUSES = {
    Status.OK: lambda: isdiag.psis(_NORMAL),
    Status.FLAT: lambda: isdiag.psis(np.zeros(100)),
    Status.TAIL_TOO_SHORT: lambda: isdiag.psis(_NORMAL[:20]),
    Status.DEGENERATE_TAIL: lambda: isdiag.psis(np.round(_NORMAL)),
    Status.POOR_TAIL_FIT: lambda: isdiag.psis(np.where(_NORMAL > 1.6, 4.0, 0.0) + 0.01 * _NORMAL),
    Status.INFEASIBLE: lambda: isdiag.select_gamma(_FEW),
    Status.NO_WEIGHT: lambda: isdiag.psis(np.full(100, -np.inf)),
    Status.NOT_FINITE: lambda: isdiag.psis(_ONE_BAD),
    Status.CONSTANT_H: lambda: isdiag.snis(_NORMAL, np.ones(1000)),
    Status.TWO_VALUED_H: lambda: isdiag.expectation_diagnostics(_NORMAL, _NORMAL > 0),
    Status.ERROR_UNCERTAIN: lambda: isdiag.snis(4 * _NORMAL, _NORMAL),
    Status.ERROR_ROUGH: lambda: isdiag.snis(1.3 * _NORMAL, _NORMAL),
    Status.NOT_FINITE_H: lambda: isdiag.snis(_NORMAL, _ONE_BAD),
    Status.ONE_DRAW: lambda: isdiag.psis(_NORMAL[:1]),
    Status.NOT_NORMALIZED: lambda: isdiag.control_variate(_NORMAL - 10, _NORMAL),
}

# ------------------------------------------------------------------------------- off-policy learning


@dataclass(frozen=True)
class Tried:
    """A class of isdiag.rl: an instance for each regime of its parameters, and values that these refuse."""

    instances: tuple[Any, ...]
    refused: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def kind(self):
        return type(self.instances[0])


_NOT_POSITIVE = (0.0, -1.0, np.nan, np.inf)
_NEGATIVE = (-0.1, np.nan, np.inf)
_NO_SHARE = (-0.1, 1.1, np.nan)

# The first instance stands for its class where only one is tried.
RESHAPES = (
    Tried((rl.SFT(),)),
    Tried((rl.RewardWeighted(0.7), rl.RewardWeighted()), {"tau": _NOT_POSITIVE}),
    Tried((rl.Reinforce(),)),
    Tried(
        (rl.PPOClip(0.3, 0.1, 1.5), rl.PPOClip(), rl.PPOClip(1.0, 0.5)),
        {"low": _NO_SHARE, "high": _NEGATIVE, "dual": (1.0, 0.5, np.nan, np.inf)},
    ),
    Tried((rl.Truncated(0.8),), {"cap": _NOT_POSITIVE}),
    Tried((rl.Masked(), rl.Masked(0.0, 1.2)), {"low": (-0.1, np.nan), "high": (0.5, 0.1, np.nan, np.inf)}),
    Tried((rl.CISPO(0.7, 1.3), rl.CISPO()), {"low": (-0.1, np.nan), "high": _NOT_POSITIVE}),
    Tried((rl.TOPR(),)),
    Tried(
        (rl.Cautious(), rl.Cautious(0.8, 0.5), rl.Cautious(2.0, 4.0, 0.4)),
        {"cap": _NOT_POSITIVE, "caution": _NOT_POSITIVE, "gamma": _NEGATIVE},
    ),
    Tried(
        (rl.Power(0.4), rl.Power(0.0), rl.Power(2.0), rl.Power(0.4, caution=3.0)),
        {"gamma": _NEGATIVE, "caution": _NEGATIVE},
    ),
    Tried(
        (
            rl.Defensive(0.5, 0.3),
            rl.Defensive(),
            rl.Defensive(0.0, 0.3),
            rl.Defensive(0.5, 0.0),
            rl.Defensive(0.5, 1.0),
        ),
        {"gamma": _NEGATIVE, "alpha": _NO_SHARE},
    ),
    Tried((rl.ParetoSmoothed(0.6),), {"gamma": _NEGATIVE}),
    Tried(
        (rl.AlphaDivergence(0.5, 2.0), rl.AlphaDivergence(0.0), rl.AlphaDivergence(0.6, 2.0, 0.3)),
        {"gamma": (-0.1, 1.0, 2.0, np.nan), "beta": _NOT_POSITIVE},
    ),
    Tried(
        (rl.VESPO(), rl.VESPO(0.0, 2.0, 0.0, 0.0), rl.VESPO(1.5, 0.0, 0.5, 0.4)),
        dict.fromkeys(("k_pos", "lam_pos", "k_neg", "lam_neg"), _NEGATIVE),
    ),
    Tried((rl.SAPO(), rl.SAPO(0.3, 5.0)), dict.fromkeys(("tau_pos", "tau_neg"), _NOT_POSITIVE)),
    Tried((rl.DRos(), rl.DRos(0.2)), {"shrinkage": _NOT_POSITIVE}),
)
EVERY_RESHAPE = tuple(instance for tried in RESHAPES for instance in tried.instances)
ONE_OF_EACH_RESHAPE = tuple(tried.instances[0] for tried in RESHAPES)

_ENDS = {"gamma_min": (-0.1, 1.5, np.nan), "gamma_max": (-0.1, np.inf, np.nan)}
SCHEDULES = (
    Tried((rl.Fixed(),)),
    Tried((rl.Linear(7, 0.2, 0.8),), {"total_steps": (0, -3, np.nan), **_ENDS}),
    Tried((rl.Cosine(7, 0.2, 0.8),), {"total_steps": (0, -3, np.nan), **_ENDS}),
    Tried(
        (rl.ESSAdaptive(0.3, 0.1),), {"ess_min": (-0.1, 1.1, np.nan), "delta": (0.0, -0.1, np.nan), **_ENDS}
    ),
    Tried((rl.Diagnosed(), rl.Diagnosed(0.5)), {"rate": (0.0, 1.1, np.nan)}),
)
EVERY_SCHEDULE = tuple(instance for tried in SCHEDULES for instance in tried.instances)

OBJECTIVES = (
    Tried((rl.ExpectedReward(),)),
    Tried((rl.EntropyRegularized(0.4),), {"tau": _NOT_POSITIVE}),
    Tried((rl.KLRegularized(0.7),), {"beta": _NOT_POSITIVE}),
)
EVERY_OBJECTIVE = tuple(instance for tried in OBJECTIVES for instance in tried.instances)

# ------------------------------------------------------------------------ public names of no other list

# Modules that need a package, which may be missing.
ADAPTERS = {
    "isdiag.arrow": "pyarrow",
    "isdiag.arviz": "arviz_base",
    "isdiag.dask": "dask",
    "isdiag.jax": "jax",
    "isdiag.plots": "matplotlib",
    "isdiag.ray": "ray",
    "isdiag.torch": "torch",
    "isdiag.trl": "torch",
    "isdiag.verl": "torch",
}

# What they are is tested where they are used.
OTHERS = {
    "isdiag": {"NonFiniteWarning", "Status", "Summary", "lognormal", "printed", "rl"},
    "isdiag.lognormal": set(),
    "isdiag.printed": set(),
    "isdiag.rl": {"GammaController", "METRICS", "Objective", "Reshape", "Schedule", "presets"},
    "isdiag.rl.presets": {"Keep", "PERPLEXITIES", "Preset"},
    "isdiag.arrow": {"batches", "grouped", "numeric_columns", "paths_of", "psis", "summarize"},
    "isdiag.dask": {"ess", "pareto_khat", "psis", "select_gamma", "snis", "summary"},
    "isdiag.ray": {"merge", "summary"},
    "isdiag.plots": {
        "gamma_curve",
        "khat",
        "log_z",
        "mse_curve",
        "tail_fit",
        "training_run",
        "weight_concentration",
    },
    "isdiag.arviz": {"Accessor", "LeaveOneOut", "backend", "loo", "use"},
    "isdiag.jax": {"GammaSelection", "LossAux", "is_reshape_loss", "select_gamma", "summary"},
    "isdiag.torch": {
        "Gathered",
        "ISReshapeTrainer",
        "Layout",
        "all_reduce",
        "gather",
        "is_reshape_loss",
        "reshape_coefficients",
        "sequence_log_probs",
        "weighted_loss",
    },
    "isdiag.trl": {"ISDiagMixin", "ISDiagReshapeMixin"},
    "isdiag.verl": {"use"},
}


def listed(module):
    """Every public name of a module that this registry lists."""
    names = set(OTHERS[module]) | set(HELPERS.get(module, ()))
    if module == "isdiag":
        names |= {function.name for function in FUNCTIONS}
    if module == "isdiag.rl":
        names |= {tried.kind.__name__ for tried in (*RESHAPES, *SCHEDULES, *OBJECTIVES)}
    if module in ("isdiag", "isdiag.rl"):
        names |= {kind.__name__ for kind in FIELDS if (".rl." in kind.__module__) == (module == "isdiag.rl")}
    return names


def signatures():
    """Signatures of all public functions, by module and name."""
    found = {module: dict(helpers) for module, helpers in HELPERS.items()}
    found["isdiag"] |= {function.name: function.signature for function in FUNCTIONS}
    return found


# ------------------------------------------------------------------------------------------- draws


def log_normal(rng, shape, s=1.0):
    """Draws x of N(0, 1), and log w = s x - s^2 / 2: the target is N(s, 1)."""
    x = rng.normal(size=shape)
    return x, s * x - s**2 / 2
