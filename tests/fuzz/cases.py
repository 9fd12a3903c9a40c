"""Random calls of every function of the registry, and what must hold of whatever they return.

A case is made by its seed and number alone, so these two reproduce it.
"""

import warnings
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

import isdiag
from isdiag import Status, rl
from tests import naive, registry
from tests.registry import FUNCTIONS, HELPERS, LAYOUTS, SETS, ZEROS, X, _sets, _zeros, rows_of

BAD = np.array([np.nan, np.inf])


@dataclass
class Case:
    """A call: a function with its positional arguments and its options."""

    name: str
    args: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    odd: set[str] = field(default_factory=set)  # arguments that may be refused
    # For functions of log-weights: what the rows are whatever their layout.
    function: Any = None
    rows: Any = None  # (batch..., n) as float64
    kept: Any = None
    sample_axis: int = -1
    twin: bool = False  # whether tests/naive.py can tell the result

    def __call__(self):
        module, _, name = self.name.rpartition(".")
        return getattr(import_module(module), name)(*self.args, **self.options)

    def __repr__(self):
        given = [literal(value) for value in self.args]
        given += [f"{name}={literal(value)}" for name, value in self.options.items()]
        return f"{self.name}({', '.join(given)})"


class Wrong(AssertionError):
    """A case that broke what must hold; `kind` names the function and the rule."""

    def __init__(self, case, rule, detail=""):
        super().__init__(f"{case.name}: {rule}: {detail}")
        self.case, self.kind, self.detail = case, f"{case.name.rpartition('.')[2]}: {rule}", detail


def literal(value):
    """An argument as Python would read it, after ``from numpy import *``."""
    if isinstance(value, np.ndarray):
        dtype = value.dtype.name if value.dtype.isnative else f">{value.dtype.str[1:]}"
        return f"array({value.tolist()!r}, '{dtype}')"
    return repr(value)


# ------------------------------------------------------------------------------------------ log-weights


def size(rng):
    if rng.random() < 0.003:
        return 5000
    return int(np.exp(rng.uniform(0, np.log(301)))) if rng.random() < 0.5 else int(rng.integers(1, 301))


def magnitude(rng):
    """Mostly of a log-weight's usual size; 1e-300 to 1e308 otherwise."""
    return 10 ** rng.uniform(-2, 2) if rng.random() < 0.75 else 10 ** rng.uniform(-300, 308)


def one_row(rng, n):
    kind = rng.integers(10)
    if kind <= 2:
        row = magnitude(rng) * rng.standard_normal(n)
    elif kind == 3:
        row = magnitude(rng) * rng.exponential(size=n) * rng.choice([-1, 1])
    elif kind == 4:  # a lattice
        row = magnitude(rng) * rng.integers(0, rng.integers(2, 30), n)
    elif kind == 5:  # ties
        row = rng.choice(magnitude(rng) * rng.standard_normal(rng.integers(1, 5)), n)
    elif kind == 6:  # an outlier
        row = magnitude(rng) * rng.standard_normal(n)
        row[rng.integers(n)] = magnitude(rng) * rng.choice([-1, 1])
    elif kind == 7:
        row = 10 ** rng.uniform(-300, 308, n) * rng.choice([-1, 1], n)
    elif kind == 8:
        row = np.sort(rng.standard_normal(n))[:: rng.choice([-1, 1])]
    else:
        row = np.full(n, magnitude(rng) * rng.choice([-1, 0, 1]))
    if rng.random() < 0.15:
        row = row + magnitude(rng) * rng.choice([-1, 1])
    row = np.clip(row, -1.7976e308, 1.7976e308)
    if rng.random() < 0.2:
        row[rng.random(n) < rng.choice([0.05, 0.5, 1.0])] = -np.inf
    if rng.random() < 0.05:
        row[rng.integers(n)] = rng.choice(BAD)
    return row


TYPES = ("float32", "float16", "int8", "int32", "int64", "uint8")


def converted(rng, rows):
    """The rows in another dtype at times: integers take no NaN."""
    if rng.random() < 0.75:
        return rows
    dtype = rng.choice(TYPES)
    if "int" not in dtype:
        return rows.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.nan_to_num(rows), max(info.min, -(2**52)), min(info.max, 2**52)).astype(dtype)


# ---------------------------------------------------------------------------------------------- options

PER_ROW = object()
# What a function takes, by the argument's name.
TAKEN = {
    "gamma": (0.0, 0.3, 0.5, 1.0, 2.5, 1, 1e-10, 1e-300, 1e3, 1e10, 1e300, np.float32(0.5), PER_ROW),
    "q": (0.5, 0.0, 1.0, 0.999),
    "half_width": (0.1, 1e-300, 1e300),
    "r_eff": (1.0, 0.1, 0.5, 3.0, 1e-5, PER_ROW),
    "tail_length": (None, 1, 5, 6, 20),
    "draws": ("independent", "mcmc"),
    "k_max": (0.7, None, 0.1, 1.0, 10.0, 1e-3),
    "ess_min": (0.3, 0.0, 0.05, 0.5, 0.9, 1.0),
    "gamma_max": (1.0, 0.1, 2.0, 1e3, 1e-3, 1e10),
    "normalize": (True, False, np.True_),
    "kind": ("kish", "perplexity", "max"),
    "smooth": (False, True, "psis", "truncate", "auto"),
    "covariance": ("target", "proposal"),
    "alpha": (0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 5.0, 1 + 1e-9, 1e-9, PER_ROW),
    "direction": ("target", "proposal"),
    "estimator": ("k1", "k2", "k3"),
    "level": (0.95, 0.5, 0.999),
    "method": ("hall", "delta"),
    "expected_weight": (None, 1.0, 0.9),
    "workers": (1, 2, -1),
    "gammas": (np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0]), np.linspace(0, 1, 9)),
}
RULES = {
    "select_gamma": ("joint", "refit", "mse"),
    "diagnose": ("joint", "refit", "mse"),
    "thermodynamic": ("corrected", "trapezoid"),
}
# And what it may refuse, with its name.
ODD = (-1.0, np.nan, np.inf, -np.inf, 0.0, 1e308, "a", "", None, 1j, [], [0.5, 0.5, 0.5], np.array("x"), {})
ODD += (
    True,
    np.bool_(1),
    2**70,
    np.float16(0.5),
    object(),
    b"psis",
    np.array([[1.0]]),
    (),
    0.5,
    3,
    [[1], [2, 3]],
)


def per_row(rng, name, batch):
    return rng.uniform(0.1, 2.0, batch) if name != "tail_length" else 7


def fill_options(rng, case, names, batch, n):
    for name in names:
        choice = rng.random()
        if choice < 0.55 or (name not in TAKEN and name != "rule"):
            continue
        taken = RULES[case.function.name] if name == "rule" else TAKEN[name]
        value = taken[rng.integers(len(taken))]
        if value is PER_ROW:
            sets = case.function.args[0] is SETS
            value = per_row(rng, name, (*batch, 1) if sets else batch)
        if case.function.name == "next_gamma" and name == "gamma":
            value = float(rng.choice([0.0, 0.3, 0.5, 1.0]))
        if choice > 0.98:
            value = ODD[rng.integers(len(ODD))]
            case.odd.add(name)
        if name == "tail_length" and isinstance(value, int) and value >= n:
            case.odd.add(name)
        case.options[name] = value


def values(rng, shape, own):
    """h for draws of that shape, with axes of its own."""
    shape = (*shape, *own)
    kind = rng.integers(8)
    h = magnitude(rng) * rng.standard_normal(shape)
    if kind == 0:
        return rng.random(shape) < 0.5
    if kind == 1:
        h = np.full(shape, magnitude(rng))
    elif kind == 2:
        h = np.clip(h + magnitude(rng), -1.7976e308, 1.7976e308)
    elif kind == 3:
        h = rng.integers(-3, 4, shape)
    elif kind == 4:
        h = np.clip(h, -3e38, 3e38).astype(np.float32)
    elif kind == 5 and rng.random() < 0.3:
        h.flat[rng.integers(h.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return h


# ----------------------------------------------------------------------------------------------- cases


def of_log_weights(rng, function):
    """A call of a function of log-weights."""
    if function.name in TWINS and rng.random() < 0.25:
        return of_twin(rng, function)
    n = size(rng)
    batch = ((), (), (1,), (2,), (3,), (2, 2))[rng.integers(6)] if n < 1000 else ()
    rows = converted(rng, np.stack([one_row(rng, n) for _ in np.ndindex(*batch)]).reshape(*batch, n))
    case = Case(f"isdiag.{function.name}", [], function=function, rows=rows)
    names = [
        name for name in (part.split("=")[0].strip() for part in function.signature.split(",")) if name != "*"
    ]
    fill_options(rng, case, names, batch, n)
    x = rows
    moved = "axis" in function.takes and len(batch) > 0 and rng.random() < 0.3
    if moved:
        case.sample_axis = int(rng.integers(-rows.ndim, rows.ndim))
        x = np.moveaxis(rows, -1, case.sample_axis)
        case.options["axis"] = case.sample_axis
    draws = x.shape
    if "where" in function.takes and rng.random() < 0.2:
        case.kept = rng.random(n if rng.random() < 0.5 else rows.shape) < rng.choice([0.1, 0.7, 1.0])
        mask = np.moveaxis(np.broadcast_to(case.kept, rows.shape), -1, case.sample_axis).copy()
        case.options["where"] = mask[..., None, :] if function.args[0] is SETS else mask
    layout = rng.integers(12)
    if layout < len(LAYOUTS) and not (x.dtype.name == "float16" and layout == 4):
        x = list(LAYOUTS.values())[layout](x)
    if isinstance(x, list):  # which forget the dtype
        case.rows = np.moveaxis(np.asarray(x), case.sample_axis, -1)
    for name, argument in zip(names, function.args, strict=False):
        if argument is ZEROS:
            case.args.append(_zeros(x))
        elif argument is SETS:
            case.args.append(_sets(x))
        elif name == "h":
            own = (
                ()
                if function.name not in ("snis", "select_gamma")
                else ((), (), (3,), (2, 2))[rng.integers(4)]
            )
            case.args.append(values(rng, draws, own))
        elif argument is X:
            case.args.append(x)
        else:
            case.args.append(argument)
            case.options.pop(name, None)
            case.odd.discard(name)
    by_mse = case.options.get("rule") == "mse"
    if "h" in names[len(case.args) :] and (by_mse or (function.name == "diagnose" and rng.random() < 0.3)):
        case.options["h"] = values(rng, draws, ((), (), (3,))[rng.integers(3)])
    if "log_weights" in names and rng.random() < 0.4 and np.ndim(case.args[0]) == 1:
        case.options["log_weights"] = np.clip(np.nan_to_num(values(rng, draws, ())), -1e308, 1e308)
    for name, value in (("q", 0.5), ("half_width", 0.1)):  # no default
        if name in names:
            case.options.setdefault(name, value)
    for name in ("gamma", "alpha"):
        if name in names[len(case.args) :] and f"{name}=" not in function.signature:
            case.options.setdefault(name, 0.7)
    if function.name == "psis" and isinstance(x, np.ndarray) and x.dtype.kind == "f" and rng.random() < 0.2:
        case.options["out"] = np.empty_like(x, dtype=x.dtype.newbyteorder("="), order="C")
    if "bounds" in names and rng.random() < 0.1:
        case.options["bounds"] = [(-1.0, 1.0), (0.0, np.inf), (None, None), 3, "a"][rng.integers(5)]
        case.odd.add("bounds")
    if function.name == "control_variate" and "gamma" in case.options:
        case.options.setdefault("expected_weight", 0.9)  # known to be 1 for gamma = 1 alone
        case.odd |= {"gamma"} if case.options["expected_weight"] is None else set()
    return case


def of_numbers(rng, module, name, signature):
    """A call of a function that takes numbers, of any size and sometimes of no sense."""
    case = Case(f"{module}.{name}", [])
    keywords = False
    for part in filter(None, signature.split(",")):
        argument = part.split("=")[0].strip()
        if argument == "*":
            keywords = True
            continue
        if "=" in part and rng.random() < 0.7:
            keywords = True
            continue
        if name == "gpd_fit" and argument == "excesses":
            value = np.abs(one_row(rng, size(rng)))
            if not np.isfinite(value).all():
                case.odd.add(argument)
        elif argument == "prior":
            value = bool(rng.integers(2))
        elif name == "gpd_fit" and argument == "weights":
            value = np.abs(one_row(rng, np.size(case.args[0])))
            if not np.isfinite(value).all():
                case.odd.add(argument)
        elif rng.random() < 0.15:
            value = ODD[rng.integers(len(ODD))]
        else:
            value = float(magnitude(rng)) if rng.random() < 0.7 else int(rng.integers(1, 10**6))
            if rng.random() < 0.2:
                value = np.abs(one_row(rng, 4))
        if name != "gpd_fit":
            case.odd.add(argument)  # out of its interval perhaps
        if argument == "low":
            case.odd.add("high")  # which must be above it
        if keywords:
            case.options[argument] = value
        else:
            case.args.append(value)
    return case


def of_log_ratio(rng):
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 9)))
    log_pi, log_mu = (
        -np.abs(np.clip(one_row(rng, int(np.prod(shape))), -1e300, 1e300)).reshape(shape) for _ in "ab"
    )
    case = Case("isdiag.rl.log_ratio", [log_pi, log_mu])
    if rng.random() < 0.7:
        case.args.append(rng.random(shape) < 0.8)
    if rng.random() < 0.6:
        case.options["level"] = ("sequence", "token", "geometric")[rng.integers(3)]
    if rng.random() < 0.1:
        name = ("mask", "level", "cu_seqlens")[rng.integers(3)]
        case.args = case.args[:2] if name == "mask" else case.args
        case.options[name] = ODD[rng.integers(len(ODD))]
        case.odd |= {name, "mask", "cu_seqlens", "level"}
    return case


def of_take_step(rng):
    n = size(rng)
    x = one_row(rng, n)
    options = {
        "reshape": registry.EVERY_RESHAPE[rng.integers(len(registry.EVERY_RESHAPE))],
        "schedule": registry.EVERY_SCHEDULE[rng.integers(len(registry.EVERY_SCHEDULE))],
        "state": rl.State(rng.random(), int(rng.integers(10))),
    }
    if rng.random() < 0.3:
        options["where"] = rng.random(n) < 0.8
    advantage = 1.0 if rng.random() < 0.3 else rng.standard_normal(n)
    case = Case("isdiag.rl.take_step", [x, advantage], options)
    if isinstance(options["reshape"], rl.RewardWeighted):
        case.odd.add("rewards")  # negative ones are refused
    if isinstance(options["reshape"], rl.AlphaDivergence):
        case.odd.add("gamma")  # a schedule may reach 1, which is refused
    if rng.random() < 0.1:
        name = ("reshape", "schedule", "state", "limits", "normalize", "where")[rng.integers(6)]
        options[name] = ODD[rng.integers(len(ODD))]
        case.odd.add(name)
    return case


def of_compare_weights(rng):
    n = size(rng)
    x = one_row(rng, n)
    used = np.minimum(x, rng.normal()) if rng.random() < 0.7 else one_row(rng, n)
    options = {"where": rng.random(n) < 0.8} if rng.random() < 0.3 else {}
    advantage = 1.0 if rng.random() < 0.3 else rng.standard_normal(n)
    case = Case("isdiag.rl.compare_weights", [x, used, advantage], options)
    if rng.random() < 0.1:
        name = ("limits", "level", "where")[rng.integers(3)]
        options[name] = ODD[rng.integers(len(ODD))]
        case.odd.add(name)
    return case


# What tests/naive.py has a twin of, and the options that the twin knows.
TWINS = {
    "ess": ("gamma",),
    "psis": (),
    "pareto_khat": ("gamma",),
    "snis": ("gamma",),
    "select_gamma": ("ess_min", "rule"),
}


def of_twin(rng, function):
    """A call that slow and obvious code can make too: a short row without extremes."""
    n = int(rng.integers(2, 61))
    row = 10 ** rng.uniform(-1, 0.7) * rng.standard_normal(n)
    if rng.random() < 0.3:
        row = rng.uniform(0.2, 1.5) * rng.exponential(size=n)
    case = Case(f"isdiag.{function.name}", [row], function=function, rows=row, twin=True)
    if function.name == "snis":
        case.args.append(10 ** rng.uniform(-2, 2) * rng.standard_normal(n) + rng.choice([0.0, 3.0]))
    if "gamma" in TWINS[function.name] and rng.random() < 0.7:
        case.options["gamma"] = float(rng.uniform(0.05, 2.5))
    if function.name == "select_gamma":
        case.options["ess_min"] = float(rng.uniform(0.1, 0.9))
        if rng.random() < 0.5:
            case.options |= {"rule": "mse", "h": rng.standard_normal(n)}
    return case


MAKERS = [lambda rng, f=f: of_log_weights(rng, f) for f in FUNCTIONS]
MAKERS += [
    lambda rng, m=module, name=name, s=signature: of_numbers(rng, m, name, s)
    for module in ("isdiag", "isdiag.lognormal", "isdiag.printed", "isdiag.rl.presets")
    for name, signature in HELPERS[module].items()
]
MAKERS += [of_log_ratio, of_take_step, of_compare_weights]


def case(seed, number):
    """The case of that number, and the generator that made it, for what is drawn of its checks."""
    rng = np.random.default_rng([seed, number])
    with np.errstate(all="ignore"):
        return MAKERS[number % len(MAKERS)](rng), rng


# ---------------------------------------------------------------------------------------------- oracles


def check(case, rng):
    """Make the call and test what it returns; raises `Wrong`."""
    read = [*case.args, *(value for name, value in case.options.items() if name != "out")]
    before = [_bytes(value) for value in read]
    result, heard = _outcome(case)
    if before != [_bytes(value) for value in read]:
        raise Wrong(case, "an argument was written to")
    if result is None or case.function is None or case.odd:
        return
    rows = np.broadcast_to(case.rows, case.rows.shape).astype(np.float64)
    kept = np.broadcast_to(True if case.kept is None else case.kept, rows.shape)
    seen = np.where(kept, rows, -np.inf)
    bad = (np.isnan(seen) | (seen == np.inf)).any(axis=-1)
    h = case.options.get(
        "h", case.args[1] if len(case.args) > 1 and case.function.args[0] is not ZEROS else 0.0
    )
    # thermodynamic says so too of draws that cannot be, and of sums that are beyond float64.
    beyond = (seen == -np.inf) | (np.abs(seen) > 1e150)
    cause = bad.any() or (case.function.no_weight is Status.NOT_FINITE and beyond.any())
    h_is_finite = np.isfinite(np.asarray(h, float)).all()
    if heard and not cause and h_is_finite:
        raise Wrong(case, "a warning without a cause", heard)
    if bad.any() and not heard:
        raise Wrong(case, "no warning of a row that is not finite")
    if h_is_finite or case.options.get("rule") != "mse":  # else its gamma is NaN
        _check_numbers(case, result, seen, bad)
    if "out" in case.options and result.log_weights is not case.options["out"]:
        raise Wrong(case, "the weights are not in out")
    if not bad.any() and case.function.name == "ess":
        _check_monotone(case, result)
    if case.rows.ndim > 1 and rng.random() < 0.3:
        _check_alone(case, result, rng)
    if case.twin:
        _check_twin(case, result)


def _bytes(value):
    return value.tobytes() if isinstance(value, np.ndarray) and value.dtype != object else repr(value)


def _outcome(case):
    """The result, or None where an argument was refused as it should be; and the warnings' words."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = case()
        except (ValueError, TypeError) as error:
            said = str(error)
            if not case.odd:
                raise Wrong(case, "refused", f"{type(error).__name__}: {said}") from error
            if not any(name in said for name in case.odd):
                raise Wrong(case, "the error names no argument", f"{sorted(case.odd)}: {said}") from error
            return None, ""
        except Exception as error:
            raise Wrong(case, f"{type(error).__name__}", str(error)) from error
    for warning in caught:
        if warning.category is not isdiag.NonFiniteWarning:
            raise Wrong(case, f"{warning.category.__name__}", str(warning.message))
    if len(caught) > 1:
        raise Wrong(case, "more than one warning")
    return result, " ".join(str(warning.message) for warning in caught)


TOLERANCE = {"float16": 1e-2, "float32": 1e-5}


def _check_numbers(case, result, seen, bad):
    found = rows_of(result)
    finite = (seen > -np.inf).sum(axis=-1)
    sound = ~bad & (finite > 0)
    name = case.function.name
    for path, value in found.items():
        field = path.rpartition(".")[2]
        if field == "log_weights" or case.function.weights:
            _check_weights(case, np.moveaxis(np.asarray(value), case.sample_axis, -1), seen, sound)
        elif (field == "ess" and name in ("psis", "snis", "select_gamma", "diagnose")) or name == "ess":
            ess = np.asarray(value)[sound]
            most = finite[sound] * (1 + 1e-9)
            least = 1 - 1e-9
            if (
                case.options.get("draws") == "mcmc"
            ):  # unknown of short chains; worth up to log10(n) times as much
                ess, least, most = (
                    ess[ess == ess],
                    0.0,
                    most.max(initial=1.0) * max(np.log10(seen.shape[-1]), 1),
                )
            if not ((ess >= least) & (ess <= most)).all():
                raise Wrong(case, "ESS is outside 1 to the number of draws", f"{ess} {finite[sound]}")
        elif field == "gamma" and name in ("select_gamma", "diagnose"):
            gamma = np.asarray(value)[sound]
            if not ((gamma >= 0) & (gamma <= case.options.get("gamma_max", 1.0))).all():
                raise Wrong(case, "gamma is outside 0 to gamma_max", gamma)
        elif name == "next_gamma":
            gamma = np.asarray(value)[sound]
            if not (gamma >= 0).all():
                raise Wrong(case, "gamma is outside 0 to gamma_max", gamma)


def _check_weights(case, log_weights, seen, sound):
    if case.function.lead:
        return
    rows, draws = log_weights.astype(np.float64)[sound], seen[sound]
    if np.isnan(rows).any():
        raise Wrong(case, "a weight of a finite row is NaN")
    if (rows[draws == -np.inf] != -np.inf).any():
        raise Wrong(case, "a draw of no weight has weight")
    if case.options.get("normalize", True):
        top = rows.max(axis=-1, keepdims=True)
        total = np.exp(rows - top).sum(axis=-1) * np.exp(top[..., 0])
        tolerance = TOLERANCE.get(log_weights.dtype.name, 1e-11)
        if not (np.abs(total - 1) <= tolerance).all():
            raise Wrong(case, "weights do not sum to 1", total - 1)


def _check_monotone(case, result):
    higher = case.options | {"gamma": 2.0 * np.asarray(case.options.get("gamma", 1.0), np.float64) + 1e-3}
    other, _ = _outcome(Case(case.name, case.args, higher, function=case.function))
    if (np.asarray(other) > np.asarray(result) * (1 + 1e-10)).any():
        raise Wrong(case, "ESS grows with gamma", f"{result} {other}")


def _check_alone(case, result, rng):
    """A row of a batch is the row alone, bit for bit."""
    function, batch = case.function, case.rows.shape[:-1]
    index = tuple(int(rng.integers(length)) for length in batch)

    options = {key: value for key, value in case.options.items() if key not in ("axis", "out")}
    for key in ("gamma", "r_eff", "alpha"):
        if np.ndim(options.get(key, 0.0)):
            options[key] = np.asarray(options[key])[index].item()
    if case.kept is not None:
        options["where"] = np.broadcast_to(case.kept, case.rows.shape)[index]

    def values_of(h):
        axis = case.sample_axis % case.rows.ndim  # h's own are behind
        return np.ascontiguousarray(np.moveaxis(np.asarray(h), axis, len(batch))[index])

    x = np.ascontiguousarray(case.rows[index])
    if "h" in options and options["h"] is not None:
        options["h"] = values_of(options["h"])
    args = []
    for given, argument in zip(case.args, function.args, strict=True):
        if argument is X:
            args.append(x if given is case.args[0] or function.args[0] is ZEROS else values_of(given))
        else:
            args.append(_zeros(x) if argument is ZEROS else _sets(x) if argument is SETS else given)
    alone = Case(case.name, args, options, function=function, rows=case.rows[index])
    own, _ = _outcome(alone)
    own = rows_of(own)
    for path, value in rows_of(result).items():
        place = [*index]
        if path == "log_weights" or function.weights:
            place.insert(case.sample_axis % case.rows.ndim, slice(None))
        here = np.asarray(value)[(slice(None),) * function.lead + tuple(place)]
        if not np.array_equal(here, own[path], equal_nan=here.dtype.kind == "f"):
            raise Wrong(case, "a row is not the row alone", f"{path} {index}: {here} {own[path]}")


def _check_twin(case, result):
    """Slow and obvious code agrees."""
    x, name, given = case.rows, case.function.name, case.options
    gamma = given.get("gamma", 1.0)
    m = isdiag.tail_length(x.size)
    if name == "ess":
        _near(case, result, naive.ess(x, gamma), 1e-12)
    elif name == "snis":
        size = np.abs(case.args[1]).max()
        found = result.estimate, result.std_error, result.bias
        for value, expected in zip(found, naive.snis(x, case.args[1], gamma), strict=True):
            _near(case, value, expected, 1e-9, 1e-13 * size)
    elif name == "psis" and result.status == Status.OK:
        expected, khat = naive.psis(x, m)
        _near(case, result.khat, khat, 1e-8, 1e-8)
        _near(case, result.log_weights, expected, 1e-8, 1e-8)
    elif name == "pareto_khat" and np.isfinite(result):
        _near(case, result, naive.khat(x, m, gamma), 1e-8, 1e-8)
    elif given.get("rule") == "mse" and m >= 6:
        level = naive.truncation_level(x)
        expected = naive.least_error(x, given["h"], level)
        found = result.estimate, result.std_error, result.bias
        for value, each in zip(found, expected, strict=True):
            _near(case, value, each, 1e-6, 1e-9)
    elif name == "select_gamma" and "rule" not in given and result.limited_by == "ess" and result.gamma > 0:
        _near(case, result.gamma, naive.gamma_by_ess(x, given["ess_min"]), 1e-8)


def _near(case, found, expected, rtol, atol=0.0):
    if not np.allclose(found, expected, rtol=rtol, atol=atol):
        raise Wrong(case, "the naive twin disagrees", f"{found} {expected}")
