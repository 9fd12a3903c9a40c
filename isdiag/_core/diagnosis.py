"""Everything that is said of log-weights, in one object and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from isdiag._core import bands, least_error, moments, selection, weights
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows, like_scalar
from isdiag._core.result import SNIS, AccurateSelection, GammaSelection, Result
from isdiag._core.typing import Given, Ints, PerRow, Rule, StabilityRule, Values
from isdiag.status import Status


def _advice(record: dict[str, Any]) -> str:
    status = Status[record["status"]]
    gamma, khat, k_max = record["gamma"], record["khat"], record["k_max"]
    about_h = [status.message] if status.about_h else []
    if record["ok"]:
        return " ".join(["The weights can be trusted as they are.", *about_h])
    if status in (Status.NOT_FINITE, Status.NO_WEIGHT, Status.INFEASIBLE):
        return f"{status.message} Check the densities, or draw from a proposal that covers the target."
    parts: list[str] = []
    if status in (Status.TAIL_TOO_SHORT, Status.DEGENERATE_TAIL):
        parts.append(status.message)
    elif khat >= 1:
        parts.append(f"khat {khat:.2f}: the weights may have no finite mean; get better draws.")
    elif khat > k_max:
        parts.append(
            f"khat {khat:.2f} is above {k_max:.2f}: an estimate needs about "
            f"{record['min_sample_size']:.2g} draws, or better ones."
        )
    if record["ess_ratio"] < record["ess_min"]:
        parts.append(f"ESS is {record['ess_ratio']:.1%} of n, below {record['ess_min']:.0%}.")
    if record["limited_by"] in ("psis", "ess"):
        parts.append(f"To go on with these draws, temper: gamma = {gamma:.3f}.")
    if k_max < record["khat_tempered"] < np.inf:
        parts.append(
            f"Re-fitted there khat is {record['khat_tempered']:.2f}, still above: rule refit goes further."
        )
    return " ".join(parts + about_h)


def diagnose(
    rows: Rows, lengths: Ints, limits: Constraints, rule: Rule, h: Values | None, workers: int
) -> dict[str, Any]:
    """The fields of `Diagnosis`; its selection and its estimates as the fields of those."""
    if rule == "mse" and h is not None:
        chosen: Any = least_error.select_accurate(rows, h, lengths, limits.gamma_max, workers)
    else:
        chosen = selection.select(rows, lengths, limits, cast("StabilityRule", rule), workers)
    raw = np.ones(len(rows))
    estimate = tempered = None
    if h is not None:
        estimate = moments.estimates(rows, h, raw, lengths)
        tempered = moments.estimates(rows, h, np.ascontiguousarray(chosen["gamma"]), lengths)
    by_kish, by_max, _ = weights.ess_and_share(rows, raw)
    return {
        "n": rows.n,
        "ess": by_kish,
        "max_weight": 1 / by_max,
        "k_max": limits.allowed_khat(rows.n),
        "ess_min": limits.ess_min,
        "selection": chosen,
        "estimate": estimate,
        "estimate_tempered": tempered,
        "status": chosen["status"],
    }


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Result):
    """A report on log-weights; print it, or take it apart with `to_dict`.

    Holds NumPy arrays of the batch shape, or scalars, whatever kind of array was diagnosed.

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
    selection : GammaSelection
        khat, gamma, what set it, and the diagnostics of the tempered weights.
    estimate : SNIS or None
        The estimate of the mean of h with the raw weights, if h was given.
    estimate_tempered : SNIS or None
        The same at the chosen gamma.
    """

    n: PerRow
    ess: PerRow
    max_weight: PerRow
    k_max: PerRow
    ess_min: Given
    selection: Given
    estimate: Given
    estimate_tempered: Given

    @classmethod
    def part(cls, rows: Rows, own: tuple[int, ...], arrays: dict[str, Any]) -> Self:
        """As of every result; its selection and estimates are results themselves."""
        chosen: Any = arrays["selection"]
        if isinstance(chosen, dict):
            parts: dict[str, Any] = {"selection": AccurateSelection.part(rows, own, arrays["selection"])}
        else:
            parts = {"selection": GammaSelection.part_of_records(rows, chosen)}
        for name in ("estimate", "estimate_tempered"):
            parts[name] = arrays[name] and SNIS.part(rows, own, arrays[name])
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
    def status(self) -> Any:
        """What became of each row."""
        return self.selection.status

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
        """Whether the raw weights can be trusted: khat known and <= k_max, ESS/n >= ess_min."""
        good = [code for code in Status if code in (Status.OK, Status.FLAT) or code.about_h]
        known = np.isin(np.asarray(self.status), good)
        passed = known & (self.khat <= self.k_max) & (self.ess_ratio >= self.ess_min)
        return bool(passed) if np.ndim(passed) == 0 else passed

    def records(self) -> list[dict[str, Any]]:
        """One flat dict of Python scalars a row of the batch, in order, with advice in words."""
        chosen = self.selection
        columns = {
            "n": self.n,
            "ess": self.ess,
            "ess_ratio": self.ess_ratio,
            "ess_min": self.ess_min,
            "max_weight": self.max_weight,
            "khat": self.khat,
            "k_max": self.k_max,
            "min_sample_size": self.min_sample_size,
            "convergence_rate": self.convergence_rate,
            "gamma": self.gamma,
            "limited_by": chosen.limited_by,
            "khat_tempered": chosen.khat_tempered,
            "ess_tempered": chosen.ess,
            "ess_ratio_tempered": chosen.ess_ratio,
            "ok": self.ok,
        }
        if isinstance(chosen, GammaSelection):
            columns |= {"gamma_psis": chosen.gamma_psis, "gamma_ess": chosen.gamma_ess}
        codes = np.asarray(self.status).ravel().tolist()
        flat = {
            key: np.broadcast_to(value, np.shape(self.status)).ravel().tolist()
            for key, value in columns.items()
        }
        records: list[dict[str, Any]] = []
        for i, code in enumerate(codes):
            record = {"status": Status(code).name} | {key: flat[key][i] for key in flat}
            records.append(record | {"advice": _advice(record)})
        return records

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as Python scalars, or nested lists of them in the batch shape."""
        records, shape = self.records(), np.shape(self.status)
        if shape == ():
            result = records[0]
        else:
            result = (
                {key: _nested([record[key] for record in records], shape) for key in records[0]}
                if records
                else {}
            )
        for name, part in (("estimate", self.estimate), ("tempered", self.estimate_tempered)):
            if part is not None:
                result[name] = _parts(part, ("estimate", "std_error", "bias", "ess"))
        if isinstance(self.selection, AccurateSelection):
            result["least_error"] = _parts(self.selection, ("estimate", "std_error", "bias", "mse"))
        return result

    def __str__(self) -> str:
        records = self.records()
        if np.shape(self.status) == ():
            return "\n".join(_lines(records[0]) + self._estimate_lines())
        trusted = sum(record["ok"] for record in records)
        lines = [f"{len(records)} rows, {trusted} of which can be trusted as they are"]
        doubtful = [(i, record) for i, record in enumerate(records) if not record["ok"]]
        lines += [f"row {i}: {record['status']}. {record['advice']}" for i, record in doubtful[:5]]
        if len(doubtful) > 5:
            lines.append(f"... and {len(doubtful) - 5} more: see records()")
        return "\n".join(lines)

    __repr__ = __str__

    def _estimate_lines(self) -> list[str]:
        lines: list[str] = []
        targets: tuple[tuple[str, Any, str], ...] = (
            ("estimate", self.estimate, "target"),
            ("estimate at gamma", self.estimate_tempered, "tempered target"),
        )
        if isinstance(self.selection, AccurateSelection):
            targets += (("of least error", self.selection, "target"),)
        for name, part, target in targets:
            if part is not None and np.ndim(part.estimate) == 0:
                lines.append(
                    f"{name:20} {part.estimate:.6g}  (mean under the {target}; "
                    f"standard error {part.std_error:.2g}, bias {part.bias:.2g})"
                )
        return lines


def _parts(result: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: np.asarray(getattr(result, key)).tolist() for key in keys}


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)]
    return values


def _lines(record: dict[str, Any]) -> list[str]:
    tempered = (
        f"{record['ess_tempered']:.1f}  ({record['ess_ratio_tempered']:.1%} of n), "
        f"khat {record['khat_tempered']:.3f}"
    )
    pairs = [
        ("status", record["status"]),
        ("draws n", record["n"]),
        ("ESS", f"{record['ess']:.1f}  ({record['ess_ratio']:.1%} of n)"),
        ("largest weight", f"{record['max_weight']:.3g}"),
        ("khat", f"{record['khat']:.3f}  (at most {record['k_max']:.2f} allowed)"),
        ("gamma", f"{record['gamma']:.4f}  (set by {record['limited_by']})"),
        ("ESS at gamma", tempered),
        ("advice", record["advice"]),
    ]
    return [f"{name:20} {value}" for name, value in pairs]
