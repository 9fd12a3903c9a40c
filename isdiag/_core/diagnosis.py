"""Everything that is said of log-weights, in one object and in words.

Weights serve one of two ends, and the same numbers call for opposite advice: an estimate, which khat and the
draws behind its error judge and which tempering would only move, and a step, for which gamma says how far to
lean on the weights. What is said of the one never speaks of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from isdiag._core import bands, least_error, markup, moments, selection, statuses, weights
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows, like_scalar
from isdiag._core.result import (
    SNIS,
    AccurateSelection,
    Drawn,
    GammaSelection,
    Result,
    Tail,
    status_names,
    strict,
)
from isdiag._core.typing import Given, Ints, PerRow, Rule, StabilityRule, Statuses, Values
from isdiag.status import Status

# Of an estimate: a word, and how it looks in a terminal.
VERDICTS = {
    "sound": "green",
    "noisy": "yellow",
    "rough": "yellow",
    "too small an error": "red",
    "no estimate": "bold red",
    "unknown": "red",
}
# These statuses say nothing against an estimate by themselves.
_HARMLESS = (Status.OK, Status.FLAT, Status.CONSTANT_H, Status.TWO_VALUED_H, Status.INFEASIBLE)
_ROUGH = (Status.ERROR_ROUGH, Status.ERROR_UNCERTAIN)
_LISTED = 10


def diagnose(
    rows: Rows, lengths: Ints, limits: Constraints, rule: Rule, h: Values | None, workers: int
) -> dict[str, Any]:
    """The fields of `Diagnosis`; its selection and its estimates as the records that those are made of."""
    if rule == "mse" and h is not None:
        chosen = least_error.select_accurate(rows, h, lengths, limits.gamma_max, workers)
    else:
        chosen = (selection.select(rows, lengths, limits, cast("StabilityRule", rule), workers),)
    raw = rows.same(1.0)
    estimate = tempered = None
    if h is not None:
        gamma = np.ascontiguousarray(chosen[-1]["gamma"])
        estimate = moments.estimates(rows, h, raw, lengths, workers=workers)
        tempered = moments.estimates(rows, h, gamma, lengths, workers=workers)
    by_kish, by_max, _ = weights.ess_and_share(rows, raw, workers)
    return {
        "n": rows.n,
        "ess": by_kish,
        "max_weight": 1 / by_max,
        "k_max": selection.allowed_khat(rows, limits),
        "ess_min": limits.ess_min,
        "selection": chosen,
        "estimate": estimate,
        "estimate_tempered": tempered,
        "status": chosen[0]["status"] if estimate is None else estimate[0]["status"],
    }


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Drawn, Tail, Result):
    """A report on log-weights; print it, or take it apart with `to_dict`.

    Holds NumPy arrays of the batch shape, or scalars, whatever kind of array was diagnosed. It has two parts.
    The first is about an estimate: of the mean of h if h was given, of any mean if not. The second is about a
    step that is taken with the weights, and only there gamma is the answer.

    Attributes
    ----------
    n : int or array
        How many draws count.
    ess : float or array
        Kish's effective sample size of the raw weights, in draws.
    max_weight : float or array
        The largest normalised raw weight.
    k_max : float or array
        The khat that was allowed.
    ess_min : float
        The ``ESS / n`` that was asked for.
    selection : GammaSelection or AccurateSelection
        khat, gamma, what set it, and the diagnostics of the tempered weights.
    estimate : SNIS or None
        The estimate of the mean of h with the raw weights, if h was given.
    estimate_tempered : SNIS or None
        The same at the chosen gamma, where it is the mean under another target; None of a `Summary` as well.
    status : Status or array
        What became of the estimate, in its shape, if h was given; else of the row.
    """

    n: PerRow
    ess: PerRow
    max_weight: PerRow
    k_max: PerRow
    ess_min: Given
    selection: Given
    estimate: Given
    estimate_tempered: Given
    status: Statuses

    @classmethod
    def part(cls, rows: Rows, own: tuple[int, ...], arrays: dict[str, Any]) -> Self:
        """As of every result; its selection and estimates are results themselves."""
        chosen = arrays["selection"]
        kind = GammaSelection if len(chosen) == 1 else AccurateSelection
        parts: dict[str, Any] = {"selection": kind.part_of_records(rows, own, chosen, {})}
        for name in ("estimate", "estimate_tempered"):
            parts[name] = arrays[name] and SNIS.part_of_records(rows, own, arrays[name], {})
        return super().part(rows, own, arrays | parts)

    @property
    def khat(self) -> Any:
        """Shape of the tail of the raw weights."""
        return self.selection.khat

    @property
    def gamma(self) -> Any:
        """The chosen gamma."""
        return self.selection.gamma

    @property
    def ess_ratio(self) -> Any:
        """Effective sample size of the raw weights over n."""
        return self.ess / np.maximum(self.n, 1)  # n is 0 where `where` leaves nothing

    @property
    def min_sample_size(self) -> Any:
        """How many draws this khat needs."""
        return like_scalar(bands.min_sample_size(self.khat))

    @property
    def convergence_rate(self) -> Any:
        """Relative convergence rate of an estimate with this khat and n (n taken as 2 at least)."""
        return like_scalar(bands.convergence_rate(self.khat, np.maximum(self.n, 2)))

    @property
    def ok(self) -> Any:
        """Whether an estimate can be believed: khat known and <= k_max, error known; low ESS is no matter."""
        passed = np.isin(self.verdict, ("sound", "noisy"))
        return bool(passed) if passed.ndim == 0 else passed

    @property
    def verdict(self) -> Any:
        """A word on an estimate, one of `VERDICTS`; a str, or a NumPy array of them."""
        shape = np.shape(self.status)
        own = (1,) * (len(shape) - np.ndim(self.n))
        khat, k_max, ratio = (
            np.broadcast_to(np.reshape(a, np.shape(a) + own), shape)
            for a in (self.khat, self.k_max, self.ess_ratio)
        )
        codes = np.asarray(self.status)
        known = np.isin(codes, (*_HARMLESS, *_ROUGH, Status.DEGENERATE_TAIL))
        found = np.select(
            [
                ~known,
                khat >= 1.0,
                khat > k_max,
                np.isnan(khat),
                np.isin(codes, _ROUGH),
                ratio < self.ess_min,
            ],
            ["unknown", "no estimate", "too small an error", "unknown", "rough", "noisy"],
            "sound",
        )
        return found.item() if shape == () else found

    def records(self) -> list[dict[str, Any]]:
        """One flat dict of Python scalars for each row of the batch, in order, with advice in words.

        Where h has axes of its own, what is said is of the component that fares worst.
        """
        chosen = self.selection
        columns = {
            "n": self.n,
            "ess": self.ess,
            "ess_ratio": self.ess_ratio,
            "ess_min": self.ess_min,
            "max_weight": self.max_weight,
            "khat": self.khat,
            "reliability": self.reliability,
            "finite_moments": self.finite_moments,
            "k_max": self.k_max,
            "min_sample_size": self.min_sample_size,
            "convergence_rate": self.convergence_rate,
            "gamma": self.gamma,
            "limited_by": chosen.limited_by,
            "khat_tempered": chosen.khat_tempered,
            "ess_tempered": chosen.ess,
            "ess_ratio_tempered": chosen.ess_ratio,
        }
        if isinstance(chosen, GammaSelection):
            columns |= {"gamma_psis": chosen.gamma_psis, "gamma_ess": chosen.gamma_ess}
        shape = np.shape(self.n)
        flat = {key: np.broadcast_to(value, shape).ravel().tolist() for key, value in columns.items()}
        count = int(np.prod(shape))
        parts = (count, int(np.prod(np.shape(self.status)[len(shape) :])))
        ok, words = np.reshape(self.ok, parts), np.reshape(self.verdict, parts)
        ranks = statuses.rank(np.reshape(np.asarray(self.status), parts))
        # Of components the first that cannot be believed, by what is said of it; of none all is well.
        worst = np.where(ok, len(statuses.ORDER), 0) + ranks
        records: list[dict[str, Any]] = []
        for i in range(count):
            at = int(np.argmin(worst[i])) if ok.shape[1] else None
            record: dict[str, Any] = {
                "status": Status.OK.name if at is None else statuses.ORDER[int(ranks[i, at])].name,
                "verdict": "unknown" if at is None else str(words[i, at]),
                "ok": bool(ok[i].all()),
            }
            record |= {key: flat[key][i] for key in flat}
            record["advice"] = _advice(record)
            record["step_advice"] = _step_advice(record)
            records.append(record)
        return records

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as strict JSON: Python scalars, or nested lists of them in the batch shape.

        Returns
        -------
        dict
            What `records` has, and under "estimate", "tempered" and "least_error" the estimates with their
            errors, intervals and statuses. NaN and infinities are strings.
        """
        records, shape = self.records(), np.shape(self.n)
        if shape == ():
            result: dict[str, Any] = records[0]
        else:
            keys = records[0] if records else ()
            result = {key: _nested([record[key] for record in records], shape) for key in keys}
        for name, part in (("estimate", self.estimate), ("tempered", self.estimate_tempered)):
            if part is not None:
                result[name] = _parts(
                    part, ("estimate", "std_error", "bias", "ess", "low", "high", "error_draws")
                )
        if isinstance(self.selection, AccurateSelection):
            result["least_error"] = _parts(self.selection, ("estimate", "std_error", "bias", "mse"))
        return strict(result)

    def __str__(self) -> str:
        records = self.records()
        if np.shape(self.n) != ():
            return "\n".join(_table(records, self.estimate))
        lines = _lines(records[0])
        if self.estimate is not None:
            lines[4:4] = _estimate_lines("mean of h", self.estimate)
        if self.estimate_tempered is not None and self.gamma != 1:
            lines += _estimate_lines("mean at gamma", self.estimate_tempered, " (another target's)")
        if isinstance(self.selection, AccurateSelection):
            found = self.selection
            lines[5:5] = _estimate_lines("of least error", found)
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks: what to make of an estimate, its numbers, and then those for a step."""
        records = self.records()
        if np.shape(self.n) != ():
            return _html_of_rows(records)
        estimate = verdict_html(records[0])
        step = step_html(records[0])
        lines = [(line[:16].strip(), line[16:].strip()) for line in str(self).splitlines()]
        at = [name for name, _ in lines].index("step: gamma")
        parts = [[line for line in part if line[0] != "advice"] for part in (lines[1:at], lines[at:])]
        return f"<div>{estimate}{markup.pairs(parts[0])}{step}{markup.pairs(parts[1])}</div>"


def verdict_html(record: dict[str, Any]) -> str:
    """What a record says of an estimate."""
    return markup.verdict(record["verdict"], VERDICTS[record["verdict"]], record["advice"])


def step_html(record: dict[str, Any], of: str = "") -> str:
    """What a record says of a step, with the name of its row before."""
    colour = "green" if record["limited_by"] == "max" else "yellow"
    return markup.verdict(f"step: gamma {record['gamma']:.4g}", colour, of + record["step_advice"])


def _html_of_rows(records: list[dict[str, Any]]) -> str:
    believed = sum(record["ok"] for record in records)
    said = f"{believed} of {len(records)} rows can be believed; the worst first."
    heads = ("row", "n", "ESS", "khat", "verdict", "status", "step: gamma")
    rows: list[tuple[Any, ...]] = []
    for i, r in worst_first(records)[:_LISTED]:
        word = r["verdict"], VERDICTS[r["verdict"]]
        numbers = r["n"], f"{r['ess']:.1f}", _number(r["khat"])
        rows.append((i, *numbers, word, r["status"], f"{r['gamma']:.4f}"))
    word, colour = ("sound", "green") if believed == len(records) else ("look at these", "red")
    more = f"<p>... and {len(records) - _LISTED} more: see records()</p>" if len(records) > _LISTED else ""
    return (
        f"<div>{markup.verdict(word, colour, said)}{markup.grid(heads, rows, 'for an estimate')}{more}</div>"
    )


def worst_first(records: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Records with their numbers: first those that cannot be believed, by khat, the unknown before all."""
    return sorted(enumerate(records), key=lambda pair: (pair[1]["ok"], -_badness(pair[1]["khat"])))


def _advice(record: dict[str, Any]) -> str:
    """On an estimate."""
    status, khat = Status[record["status"]], record["khat"]
    about = status.message if status not in (Status.OK, Status.FLAT, Status.INFEASIBLE) else ""
    verdict = record["verdict"]
    if verdict == "sound":
        said = "An estimate with these weights can be believed, and so can its error."
    elif verdict == "noisy":
        said = (
            f"An estimate is sound but noisy: ESS is {record['ess_ratio']:.1%} of n, and its error right but "
            "large. More draws make it smaller."
        )
    elif verdict == "rough":
        said = "khat is harmless; the error is not known well."
    elif verdict == "no estimate":
        said = f"khat {_number(khat)}: the weights may have no finite mean, and then no estimate can be had."
        said += " Get better draws: moment matching, another proposal, or a refit."
    elif verdict == "too small an error":
        said = f"khat {khat:.2f} is above {record['k_max']:.2f}: errors are too small. Get better draws"
        need = record["min_sample_size"]
        said += f", or some {bands.people(need)} of them." if record["n"] < need < np.inf else "."
    else:
        said = "Nothing is known of the tail of the weights." if not about else ""
    return " ".join(part for part in (said, about) if part)


def _step_advice(record: dict[str, Any]) -> str:
    """On a step."""
    gamma, khat = record["gamma"], record["khat"]
    if gamma != gamma:
        return "No step can be taken with these weights."
    if gamma == 0.0:
        return "Too many draws have zero weight: even equal weights on the others miss the ESS asked for."
    if record["limited_by"] in ("max", "none"):
        return "The weights can be used as they are."
    said = f"Temper the weights: w**{gamma:.3g}"
    if record["limited_by"] != "mse":
        bound = "the tail" if record["limited_by"] == "psis" else "ESS"
        said += f" is as far as {bound} allows"
    if khat >= 1.0:
        said += ", or bound them (isdiag.rl.Defensive), and get better draws"
    if record["k_max"] < record["khat_tempered"] < np.inf:
        said += (
            f"; re-fitted there khat is {record['khat_tempered']:.2f}, still above: rule refit goes further"
        )
    return said + "."


def _number(x: float) -> str:
    return "unknown" if x != x else f"{x:.2f}"


def _lines(record: dict[str, Any]) -> list[str]:
    """The estimate's part, then the step's."""
    r = record
    band = bands.band_of(r["khat"])
    pairs = [
        ("for an estimate", r["verdict"]),
        ("draws n", r["n"]),
        ("ESS", f"{r['ess']:.1f}  ({r['ess_ratio']:.1%} of n), largest weight {r['max_weight']:.3g}"),
        ("khat", f"{r['khat']:.3f}  ({band.word}: {band.moments}; at most {r['k_max']:.2f} for this n)"),
        ("status", r["status"]),
        ("advice", r["advice"]),
        ("step: gamma", f"{r['gamma']:.4f}  (set by {r['limited_by']})"),
        (
            "ESS at gamma",
            f"{r['ess_tempered']:.1f}  ({r['ess_ratio_tempered']:.1%} of n), khat {r['khat_tempered']:.3f}",
        ),
        ("advice", r["step_advice"]),
    ]
    return [f"{name:16} {value}" for name, value in pairs]


def _estimate_lines(name: str, found: Any, of: str = "") -> list[str]:
    """One line for a number, a few for the components of a vector, the worst first."""
    if np.ndim(found.estimate) == 0:
        return [f"{name:16} {_with_error(found, ())}{of}"]
    codes = np.asarray(found.status)
    order = np.argsort(statuses.rank(codes).ravel(), kind="stable")[:_LISTED]
    lines = [f"{name:16} {codes.size} components, the worst first{of}"]
    for at in order.tolist():
        index = cast("tuple[Any, ...]", np.unravel_index(at, codes.shape))
        label = f"  [{', '.join(str(int(k)) for k in index)}]"
        lines.append(f"{label:16} {_with_error(found, index)}  {Status(codes[index]).name}")
    if codes.size > _LISTED:
        lines.append(f"  ... and {codes.size - _LISTED} more")
    return lines


def _with_error(found: Any, at: Any) -> str:
    estimate, error = np.asarray(found.estimate)[at], np.asarray(found.std_error)[at]
    said = f"{estimate:.6g} +- {error:.2g}"
    if isinstance(found, SNIS):
        said += f", 95 %: {np.asarray(found.low)[at]:.6g} to {np.asarray(found.high)[at]:.6g}"
    return said


def _table(records: list[dict[str, Any]], estimate: SNIS | None) -> list[str]:
    """A line for each row of a batch, the worst first."""
    believed = sum(record["ok"] for record in records)
    scalar = estimate is not None and np.shape(estimate.estimate) == np.shape(estimate.khat)
    heads = f"{'row':>6} {'n':>7} {'ESS':>9} {'khat':>7}  {'verdict':18} {'status':16}"
    lines = [
        f"for an estimate  {believed} of {len(records)} rows can be believed; the worst first",
        (heads + (" mean of h" if scalar else "")).rstrip(),
    ]
    for i, r in worst_first(records)[:_LISTED]:
        line = f"{i:>6} {r['n']:>7} {r['ess']:>9.1f} {r['khat']:>7.2f}  {r['verdict']:18} {r['status']:16}"
        if scalar and estimate is not None:
            line += f" {np.ravel(estimate.estimate)[i]:.6g} +- {np.ravel(estimate.std_error)[i]:.2g}"
        lines.append(line.rstrip())
    if len(records) > _LISTED:
        lines.append(f"  ... and {len(records) - _LISTED} more: see records()")
    gammas = [record["gamma"] for record in records if record["gamma"] == record["gamma"]]
    if gammas:
        lines.append(f"step: gamma      from {min(gammas):.4f} to {max(gammas):.4f}: see .gamma")
    return lines


def _badness(khat: float) -> float:
    return np.inf if khat != khat else khat


def _parts(result: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: getattr(result, key) for key in keys} | {"status": status_names(result.status)}


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)]
    return values
