"""Every result, and the one way that makes them of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from math import isfinite
from typing import Any, Self, cast

import numpy as np

from isdiag._core import bands, markup
from isdiag._core.boundary import STATUSES, Rows
from isdiag._core.said import GREEN, RED, YELLOW, Said, said_of_status, said_of_tail
from isdiag._core.typing import Codes, Given, Limits, LogWeights, PerRow, Records, Statuses
from isdiag._kernels.records import FEW_ERROR_DRAWS, ROUGH_ERROR_DRAWS
from isdiag.status import NonFiniteWarning, Status

# Names of the codes of what set gamma (isdiag._kernels.records).
LIMITS = ("none", "psis", "ess", "max", "mse")

_NOT_FINITE, _NOT_FINITE_H = int(Status.NOT_FINITE), int(Status.NOT_FINITE_H)
_WITHOUT_RESULT = Status.NOT_FINITE, Status.NOT_FINITE_H
_WORDS = np.array(LIMITS)


def warn_not_finite(
    codes: Codes,
    copies: int = 1,
    *,
    depth: int = 3,
    words: str = "hold NaN or +inf",
    become: str = "NaN",
) -> None:
    """One warning for the call if any row, or its h, is not finite; depth is that of the caller's caller."""
    seen = codes.tobytes()  # a microsecond faster than to ask NumPy
    if _NOT_FINITE in seen or _NOT_FINITE_H in seen:
        of_row = codes.reshape(len(codes), -1)
        causes = ((_NOT_FINITE, words), (_NOT_FINITE_H, "have an h that is not finite"))
        counts = [(int((of_row == code).any(axis=1).sum()) // copies, said) for code, said in causes]
        said = " and ".join(
            f"{count} of {len(codes) // copies} rows {cause}" for count, cause in counts if count
        )
        warnings.warn(f"{said}: their results are {become}", NonFiniteWarning, stacklevel=depth)


def bare(rows: Rows, numbers: Any, codes: Codes, own: tuple[int, ...] = ()) -> Any:
    """Numbers that are a function's whole result."""
    warn_not_finite(codes, depth=4)
    return rows.diagnostic(numbers, own)


def _brief(value: Any) -> str:
    shape = getattr(value, "shape", ())
    if shape and max(shape) > 6:
        return f"<{'x'.join(map(str, shape))} {type(value).__name__}>"
    if getattr(value, "dtype", None) == np.int8:
        return str(np.array(status_names(value), dtype=object))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_Way = Callable[[Rows, Any, tuple[int, ...]], Any]


def _as_it_is(_rows: Rows, value: Any, _own: tuple[int, ...]) -> Any:
    return value


# By what the annotation of a field says that it holds.
_WAYS: dict[str, _Way] = {
    "PerRow": Rows.diagnostic,
    "PerRow | None": lambda rows, a, own: None if a is None else rows.diagnostic(a, own),
    "Statuses": Rows.status,
    "Limits": lambda rows, codes, own: rows.words(_WORDS[codes], own),
    "Words": Rows.words,
    "LogWeights": _as_it_is,
    "Given": _as_it_is,
}


@cache
def _ways_out(kind: Any) -> tuple[tuple[str, _Way], ...]:
    return tuple((field.name, _WAYS[str(field.type)]) for field in fields(kind))


def strict(value: Any) -> Any:
    """A value as strict JSON has it: arrays as lists, NaN and infinities as strings."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: strict(part) for key, part in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [strict(part) for part in cast("list[Any]", value)]
    if isinstance(value, (str, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if isfinite(value) else repr(value).replace("inf", "Infinity").replace("nan", "NaN")
    return strict(np.asarray(value).tolist())


def status_names(codes: Any) -> Any:
    """Codes of `Status` by name, in the same nesting."""
    array = np.asarray(codes)
    names = np.array([Status(code).name for code in array.ravel().tolist()], dtype=object)
    return names.reshape(array.shape).tolist()


class Tail:
    """What the khat of a result says, by the table of bands."""

    @property
    def reliability(self) -> Any:
        """Band of khat: "good", "fair", "bad", "very bad" or "unknown"; a str, or a NumPy array of them."""
        return bands.words(self.khat)  # type: ignore[attr-defined]

    @property
    def finite_moments(self) -> Any:
        """How many moments the weights have by this khat, ``1 / khat``."""
        return bands.finite_moments(self.khat)  # type: ignore[attr-defined]

    def _said(self) -> Said:
        return said_of_tail(self, self.khat)  # type: ignore[attr-defined]


class Drawn:
    """What a result has of which one picture is the obvious one."""

    _picture = "khat"

    def plot(self, *, ax: Any = None) -> Any:
        """Draw it with matplotlib, as the function of `isdiag.plots` that the reference names.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; default new axes.

        Returns
        -------
        Axes
        """
        # When asked for only: nothing else here needs matplotlib.
        return getattr(import_module("isdiag.plots"), self._picture)(self, ax=ax)


class Result:
    """Base of the result dataclasses: made of rows by one rule, with a repr that stays readable."""

    _not_finite = "hold NaN or +inf"  # of rows whose status is NOT_FINITE

    @classmethod
    def of(cls, rows: Rows, own: tuple[int, ...] = (), **arrays: Any) -> Self:
        """The result for rows, from an array for each field.

        Parameters
        ----------
        rows : Rows
            Say what shape, kind of array and scalars the caller wants.
        own : tuple of int
            The own axes of h, which the second axis of an array of (rows, d) stands for.
        **arrays : ndarray
            Of shape (rows,), (rows, d) or (rows, d, ...), or as the field's annotation has it.

        Warns
        -----
        NonFiniteWarning
            Once, where rows have that status.
        """
        if "status" in arrays:
            warn_not_finite(arrays["status"], rows.copies, depth=4, words=cls._not_finite)
        return cls.part(rows, own, arrays)

    @classmethod
    def of_records(cls, rows: Rows, *records: Records, own: tuple[int, ...] = (), **given: Any) -> Self:
        """The result whose fields are those of the records, but for those given as they are to be.

        Records are (rows,) or (rows, d), d for the own axes of h; the first have the status.
        """
        result = cls.part_of_records(rows, own, records, given)
        status = result.__dict__["status"]
        if type(status) is not Status or status in _WITHOUT_RESULT:
            warn_not_finite(records[0]["status"], depth=4)
        return result

    @classmethod
    def part(cls, rows: Rows, own: tuple[int, ...], arrays: dict[str, Any]) -> Self:
        """As `of`, for a part of another result, which has warned."""
        return cls.of_fields({name: way(rows, arrays[name], own) for name, way in _ways_out(cls)})

    @classmethod
    def part_of_records(
        cls, rows: Rows, own: tuple[int, ...], records: tuple[Records, ...], given: dict[str, Any]
    ) -> Self:
        """As `of_records`, for a part of another result, which has warned."""
        values = given
        if rows.layout.batch_shape or own:
            for table in records:
                for name in table.dtype.names or ():
                    values[name] = np.ascontiguousarray(table[name])
            return cls.part(rows, own, values)
        for table in records:
            names: Any = table.dtype.names
            values.update(zip(names, table.item()))  # noqa: B905 -- strict costs a third
        values["status"] = STATUSES[values["status"]]
        if "limited_by" in values:
            values["limited_by"] = LIMITS[values["limited_by"]]
        return cls.of_fields(values)

    @classmethod
    def of_fields(cls, values: dict[str, Any]) -> Self:
        """The result whose fields are these, all of them; it keeps the dict."""
        # Around the frozen __init__, which sets one field at a time: 2 us for the ten of a selection.
        result = object.__new__(cls)
        object.__setattr__(result, "__dict__", values)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The fields as strict JSON.

        Returns
        -------
        dict
            Numbers, strings and nested lists; NaN and infinities as the strings that `float` reads back,
            statuses by name.
        """
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {
            name: strict(status_names(value) if name == "status" else value)
            for name, value in ((name, getattr(self, name)) for name in names)
        }

    def _said(self) -> Said:
        return said_of_status(self)

    def _repr_html_(self) -> str:
        """For notebooks: what to make of it, then the fields."""
        rows = [(f.name, _brief(getattr(self, f.name))) for f in fields(self)]  # type: ignore[arg-type]
        return f"<div>{markup.verdict(*self._said())}{markup.pairs(rows, type(self).__name__)}</div>"

    def __repr__(self) -> str:
        values = ", ".join(f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({values})"


@dataclass(frozen=True, eq=False, repr=False)
class GPDFit(Result):
    """A fitted generalised Pareto distribution with survival function ``(1 + k x / sigma)**(-1/k)``.

    Attributes
    ----------
    k : float or array of the batch shape
        Shape; positive is a heavy tail with ``1/k`` finite moments, negative a bounded one.
    sigma : float or array of the batch shape
        Scale, in the units of the excesses.
    k_std_error : float or array of the batch shape
        Standard error of k.
    """

    k: PerRow
    sigma: PerRow
    k_std_error: PerRow

    def _said(self) -> Said:
        return said_of_tail(self, self.k)


@dataclass(frozen=True, eq=False, repr=False)
class PSIS(Drawn, Tail, Result):
    """Pareto smoothed weights.

    Attributes
    ----------
    log_weights : array of log_w's shape, kind and float dtype
        Smoothed log-weights.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights; -inf where there is none, NaN where unknown, inf where bad
        beyond a fit.
    ess : float or array of the batch shape
        Kish's effective sample size of the smoothed weights, in draws. Where khat is above
        `khat_threshold(n)` it is no evidence: smoothing raised it.
    tail_length : int or array of the batch shape
        How many draws the tail holds (at most those of positive weight).
    n : int or array of the batch shape
        How many draws count.
    status : Status or array of the batch shape
        What became of the row.
    """

    log_weights: LogWeights
    khat: PerRow
    ess: PerRow
    tail_length: PerRow
    n: PerRow
    status: Statuses


@dataclass(frozen=True, eq=False, repr=False)
class Truncated(Drawn, Tail, Result):
    """Weights cut at ``sqrt(n)`` times their mean.

    Attributes
    ----------
    log_weights : array of log_w's shape, kind and float dtype
        Truncated log-weights.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights, which cutting has not mended.
    ess : float or array of the batch shape
        Kish's effective sample size of the truncated weights, in draws. Where khat is above
        `khat_threshold(n)` it is no evidence: cutting raised it.
    n : int or array of the batch shape
        How many draws count.
    status : Status or array of the batch shape
        What became of the row.
    """

    log_weights: LogWeights
    khat: PerRow
    ess: PerRow
    n: PerRow
    status: Statuses


@dataclass(frozen=True, eq=False, repr=False)
class SNIS(Tail, Result):
    """An estimate of the mean of h under the tempered target.

    Attributes
    ----------
    estimate : float or array
        ``sum(wbar * h)``, in the batch shape followed by h's own axes.
    std_error : float or array
        Delta-method standard error, in the units of h and the shape of `estimate`.
    bias : float or array
        Estimated bias of self-normalising, in the units of h and the shape of `estimate`; subtract it to
        correct. 0 where weights are not normalised.
    ess : float or array of the batch shape
        Kish's effective sample size of the weights used, in draws.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights ``w**gamma``, also where smoothed ones were used. At
        khat >= 1/2 the variance is infinite and `std_error` and `bias` are too small.
    status : Status or array of the batch shape
        What became of the row.
    low, high : float or array
        Ends of a 95 % interval, in the shape of `estimate`, made as by `confidence_interval`; from -inf to
        inf where no draw carries an error. For h with axes of its own they are symmetric, as the skewness of
        each component is not looked at.
    log_z : float or array of the batch shape
        Log of the mean of ``w**gamma``: of the ratio of normalising constants if the log-weights are
        those of unnormalised densities, gamma being 1.
    log_z_std_error : float or array of the batch shape
        Its delta-method standard error, ``sqrt(1 / ess - 1 / n)``.
    error_draws : float or array of the batch shape
        How many draws carry the squared standard error, ``sum(f**2)**2 / sum(f**4)`` with
        ``f = wbar * (h - estimate)``, or ``w h`` less its mean where weights are not normalised; of the
        weights alone, f = wbar, for h with axes of its own.
    """

    estimate: PerRow
    std_error: PerRow
    bias: PerRow
    ess: PerRow
    khat: PerRow
    status: Statuses
    low: PerRow
    high: PerRow
    log_z: PerRow
    log_z_std_error: PerRow
    error_draws: PerRow


class _Chosen(Tail):
    """A choice of gamma is about a step: khat has no part in what is said first."""

    def _said(self) -> Said:
        status, chosen = said_of_status(self), np.ravel(np.asarray(self.gamma, np.float64))  # type: ignore[attr-defined]
        known = chosen[~np.isnan(chosen)]
        if known.size == 0:
            return Said("no gamma", RED, status.sentence)
        if chosen.size > 1:
            said = f"of {chosen.size} rows, {known.size} with one. {status.sentence}".rstrip()
            return Said(f"gamma {known.min():.3g} to {known.max():.3g}", status.colour, said)
        said = f"set by {self.limited_by}. {status.sentence}".rstrip()  # type: ignore[attr-defined]
        return Said(f"gamma {known[0]:.3g}", status.colour, said)


@dataclass(frozen=True, eq=False, repr=False)
class Quantile(Result):
    """Quantiles of h under the target.

    Arrays have the batch shape, then h's own axes, then those of q.

    Attributes
    ----------
    estimate : float or array
        The smallest value at which the weight of the draws up to it reaches q, in the units of h.
    low, high : float or array
        Ends of an interval, which are draws; infinite where no draw bounds the quantile.
    std_error : float or array
        Half the width of that interval for one standard error; infinite where it has no end.
    status : Status or array
        What became of the quantile: `ERROR_UNCERTAIN` where few draws carry the error of the share below it.
    """

    estimate: PerRow
    low: PerRow
    high: PerRow
    std_error: PerRow
    status: Statuses


@dataclass(frozen=True, eq=False, repr=False)
class GammaSelection(_Chosen, Result):
    """A chosen gamma, what set it, and the diagnostics before and after.

    Attributes
    ----------
    gamma : float or array of the batch shape
        ``min(gamma_psis, gamma_ess, gamma_max)``.
    gamma_psis : float or array of the batch shape
        Limit set by the tail: ``k_max / khat`` (joint) or the largest gamma up to `gamma_max` whose
        re-fitted khat is at most k_max (refit); inf where the tail sets none, be it harmless, unknown or
        beyond a fit.
    gamma_ess : float or array of the batch shape
        The largest gamma up to `gamma_max` with ``ESS >= ess_min * n``.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights.
    khat_tempered : float or array of the batch shape
        The same, re-fitted to the weights at the chosen gamma.
    ess : float or array of the batch shape
        Kish's effective sample size at the chosen gamma, in draws.
    ess_ratio : float or array of the batch shape
        ``ess / n``.
    n : int or array of the batch shape
        How many draws count.
    limited_by : str or NumPy array of str
        What set gamma: "psis", "ess", "max", or "none" where there is no gamma.
    status : Status or array of the batch shape
        What became of the row.
    """

    gamma: PerRow
    gamma_psis: PerRow
    gamma_ess: PerRow
    khat: PerRow
    khat_tempered: PerRow
    ess: PerRow
    ess_ratio: PerRow
    n: PerRow
    limited_by: Limits
    status: Statuses


@dataclass(frozen=True, eq=False, repr=False)
class AccurateSelection(_Chosen, Result):
    """The gamma of least estimated error, and the estimate that has less of it than any gamma.

    `gamma` is for whoever needs weights ``w**gamma``; it minimises `MSECurve.mse`, summed over the components
    of h. `estimate` is not the estimate at gamma but the one that the curve is measured against.

    Attributes
    ----------
    gamma : float or array of the batch shape
        The exponent of least estimated error.
    estimate : float or array
        Estimate of ``E[h]`` under the target, in the batch shape followed by h's own axes.
    std_error : float or array
        Jackknife standard error, in the units of h and the shape of `estimate`.
    bias : float or array
        Estimated bias of `estimate`: how far it is from the plain self-normalised one, and the bias of that.
    mse : float or array
        ``std_error**2 + bias**2``, the estimated mean squared error.
    error_draws : float or array
        How many draws carry the squared standard error, of this or of the plain estimate if it has fewer.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights.
    khat_tempered : float or array of the batch shape
        The same, re-fitted to the weights at the chosen gamma.
    ess : float or array of the batch shape
        Kish's effective sample size at the chosen gamma, in draws.
    ess_ratio : float or array of the batch shape
        ``ess / n``.
    n : int or array of the batch shape
        How many draws count.
    limited_by : str or NumPy array of str
        What set gamma: "mse", "max", or "none" where there is no gamma.
    status : Status or array of the batch shape
        What became of the row.
    low, high : float or array
        Ends of a 95 % interval around `estimate`, made as by `confidence_interval`.
    """

    gamma: PerRow
    estimate: PerRow
    std_error: PerRow
    bias: PerRow
    mse: PerRow
    error_draws: PerRow
    khat: PerRow
    khat_tempered: PerRow
    ess: PerRow
    ess_ratio: PerRow
    n: PerRow
    limited_by: Limits
    status: Statuses
    low: PerRow
    high: PerRow


@dataclass(frozen=True, eq=False, repr=False)
class MSECurve(Drawn, Result):
    """What error a tempered estimate is expected to have at each gamma.

    Arrays have the batch shape, then h's own axes, then the axis of gammas.

    Attributes
    ----------
    gamma : array, shape (gammas,)
        The exponents.
    estimate : array
        ``sum(wbar * h)`` with ``wbar`` the normalised ``w**gamma``, in the units of h.
    std_error : array
        Its delta-method standard error.
    bias : array
        Its bias of self-normalising, of order 1/n.
    tempering_bias : array
        ``estimate - reference``: how far the tempered target's mean is off.
    tempering_bias_std_error : array
        The standard error of that difference.
    mse : array
        Expected squared error: ``std_error**2 + bias**2`` and that part of ``tempering_bias**2`` which its
        own error does not explain.
    reference : float or array
        The estimate of least error that stands for the truth, as of ``select_gamma(rule="mse")``.
    reference_std_error : float or array
        Its standard error.
    """

    _picture = "mse_curve"

    gamma: Given
    estimate: PerRow
    std_error: PerRow
    bias: PerRow
    tempering_bias: PerRow
    tempering_bias_std_error: PerRow
    mse: PerRow
    reference: PerRow
    reference_std_error: PerRow

    def _said(self) -> Said:
        mse, gammas = np.asarray(self.mse, np.float64), np.ravel(np.asarray(self.gamma, np.float64))
        if mse.shape != gammas.shape or np.isnan(mse).all():
            return Said("error by gamma", YELLOW, f"of shape {mse.shape}, gammas last.")
        return Said(f"least error at gamma {gammas[np.nanargmin(mse)]:.3g}", GREEN, "as far as it is known.")


@dataclass(frozen=True, eq=False, repr=False)
class ExpectationDiagnostics(Tail, Result):
    """How far the weights can be trusted with this h.

    Attributes
    ----------
    khat : float or array
        Largest shape of the tails of ``w**gamma * (h - estimate)``, right and left, and of the weights; in
        the batch shape followed by h's own axes. NaN if that of a side is unknown which has most of
        ``sum(f**2)``.
    khat_right, khat_left : float or array
        Those of the draws above and below the estimate; NaN where too few lie there, where several share
        the largest value and the tail cannot be fitted, and where h takes fewer than three values.
    khat_weights : float or array of the batch shape
        That of ``w**gamma`` alone.
    ess : float or array
        ``sum(|f|)**2 / sum(f**2)`` with ``f = w**gamma * (h - estimate)``, in draws.
    error_draws : float or array
        ``sum(f**2)**2 / sum(f**4)``: how many draws carry the squared standard error.
    status : Status or array
        `CONSTANT_H` or `TWO_VALUED_H` where h leaves khat to the weights, else as for `SNIS`; in the shape
        of `khat`.
    """

    khat: PerRow
    khat_right: PerRow
    khat_left: PerRow
    khat_weights: PerRow
    ess: PerRow
    error_draws: PerRow
    status: Statuses


# What an interval claims, by the status that its error has; see docs/explanation/which_rule.md.
_CLAIMS = {
    "unknown": "Nothing is known of the error.",
    "no mean": "khat is 1 or more: the weights may have no finite mean, and nothing can be said.",
    "none": "No draw carries an error: nothing can be said of values that were not drawn.",
    "few": "Fewer than 6 draws carry the error: such intervals are wide, and miss what no draw shows.",
    "rough": "Fewer than 15 draws carry the error: such intervals cover less often than they say.",
    "enough": "15 draws or more carry the error: such intervals cover about as often as they say.",
}


@dataclass(frozen=True, eq=False, repr=False)
class ConfidenceInterval(Tail, Result):
    """An interval, and what it rests on.

    Attributes
    ----------
    low, high : float or array
        The ends, in the units of h and the batch shape followed by h's own axes.
    estimate : float or array
        The estimate that the interval is built around.
    level : float
        The coverage asked for.
    method : str
        "hall", "delta" or "bounded": see `confidence_interval`.
    khat : float or array of the batch shape
        Shape of the tail of ``w**gamma``; `expectation_diagnostics` has that of ``w**gamma * (h - E[h])``.
    error_draws : float or array
        How many draws carry the squared standard error, in the shape of `estimate`.
    status : Status or array
        What became of the row and of h, in the shape of `estimate`.
    """

    low: PerRow
    high: PerRow
    estimate: PerRow
    level: Given
    method: Given
    khat: PerRow
    error_draws: PerRow
    status: Statuses

    @property
    def claim(self) -> Any:
        """What can be claimed, in words: a str, or a NumPy array of them."""
        draws, khat = np.asarray(self.error_draws), np.asarray(self.khat)
        no_mean = (khat >= 1.0) & np.isfinite(khat)
        no_mean = no_mean.reshape(no_mean.shape + (1,) * (draws.ndim - no_mean.ndim)) & ~np.isnan(draws)
        grades = [np.isnan(draws), no_mean, draws == 0.0, draws < FEW_ERROR_DRAWS, draws < ROUGH_ERROR_DRAWS]
        *poor, enough = _CLAIMS.values()
        words = np.select(grades, poor, enough)
        return words.item() if words.ndim == 0 else words


@dataclass(frozen=True, eq=False, repr=False)
class FiniteVarianceTest(Result):
    """A test of the hypothesis that the weights have finite variance, k <= 1/2.

    Attributes
    ----------
    statistic : float or array of the batch shape
        Signed root of the likelihood ratio; standard normal at k = 1/2.
    p_value : float or array of the batch shape
        Probability of a larger statistic at k = 1/2: small values speak against finite variance.
    k : float or array of the batch shape
        Maximum likelihood estimate of the tail index, without the prior of khat.
    status : Status or array of the batch shape
        What became of the row.
    """

    statistic: PerRow
    p_value: PerRow
    k: PerRow
    status: Statuses

    def _said(self) -> Said:
        status, p = said_of_status(self), np.ravel(np.asarray(self.p_value, np.float64))
        against, unknown = int((p < 0.05).sum()), int(np.isnan(p).sum())
        said = (
            f"p below 0.05 speaks against finite variance: {against} of {p.size}. {status.sentence}".rstrip()
        )
        if against:
            return Said("finite variance is in doubt", RED, said)
        if unknown:
            return Said("unknown", RED, said)
        return Said("no evidence against finite variance", status.colour, said)


@dataclass(frozen=True, eq=False, repr=False)
class ControlVariate(Tail, Result):
    """An estimate of ``E_mu[w**gamma h]`` with the weights as control variate.

    Attributes
    ----------
    estimate : float or array
        ``plain - coefficient * (mean(w**gamma) - E_mu[w**gamma])``, in the batch shape followed by h's own
        axes, in the units of h.
    std_error : float or array
        Standard error of `estimate`, in its shape and units; NaN where too few draws are left for one.
    std_error_plain : float or array
        Standard error of `plain`: what the control variate is to be measured against.
    plain : float or array
        ``mean(w**gamma h)``, the importance sampling estimate without control variate.
    coefficient : float or array
        Coefficient of the control variate, in the units of h and the shape of `estimate`; 0 where the
        weights are constant.
    khat : float or array of the batch shape
        Shape of the tail of the weights ``w**gamma``. At khat >= 1/2 their variance is infinite and
        `coefficient` and both standard errors are not to be relied on.
    status : Status or array of the batch shape
        What became of the row.
    low, high : float or array
        Ends of a 95 % interval around `estimate`, made as by `confidence_interval`.
    error_draws : float or array
        How many draws carry the squared standard error, in the shape of `estimate`.
    """

    estimate: PerRow
    std_error: PerRow
    std_error_plain: PerRow
    plain: PerRow
    coefficient: PerRow
    khat: PerRow
    status: Statuses
    low: PerRow
    high: PerRow
    error_draws: PerRow


@dataclass(frozen=True, eq=False, repr=False)
class Divergence(Tail, Result):
    """An estimate of a divergence, or of the logarithm of a moment of the weights.

    Attributes
    ----------
    estimate : float or array of the batch shape
        The estimate; logarithms are natural.
    std_error : float or array of the batch shape
        Its delta-method standard error, with what normalising adds; NaN where there is none: for an infinite
        estimate and for alpha = inf.
    khat : float or array of the batch shape
        Shape of the tail of the weights, of the power that the estimate averages. At khat >= 1/2 their
        variance is infinite and `std_error` too small; at khat >= 1 the estimate itself does not converge.
    low : float or array of the batch shape
        Lower end of an interval of level 0.95, as that of `SNIS`, but for the moment at least 0. NaN where
        there is no error.
    high : float or array of the batch shape
        Its upper end; inf where nothing can be said.
    error_draws : float or array of the batch shape
        How many draws carry `std_error`.
    status : Status or array of the batch shape
        What became of the row. ERROR_ROUGH also where the tail index may be 1/2 or more: where the interval
        of `khat_interval` does not end below.
    """

    estimate: PerRow
    std_error: PerRow
    khat: PerRow
    low: PerRow
    high: PerRow
    error_draws: PerRow
    status: Statuses

    def __float__(self) -> float:
        return float(self.estimate)


@dataclass(frozen=True, eq=False, repr=False)
class GeometricPath(Drawn, Result):
    """Weights that turn draws of mu into draws of ``p_g``, for each gamma g of a path, and their diagnostics.

    All but `gammas` have a leading axis of gammas. Behind it `log_weights` has the axes of the log-densities,
    the others have the batch shape.

    Attributes
    ----------
    gammas : ndarray, shape (gammas,)
        The exponents.
    log_weights : array
        Log-weights of ``w**gamma``, log-sum-exp 0 along the sample axis, in the float dtype of `log_mu`.
    ess : array
        Kish's effective sample size, in draws.
    khat : array
        Shape of the tail of ``w**gamma``, re-fitted at each gamma.
    log_z : array
        Log of the mean of ``w**gamma``: of the normalising constant of ``mu**(1 - gamma) * target**gamma``,
        the densities taken as given, over that of mu.
    log_z_std_error : array
        Its delta-method standard error, ``sqrt(1 / ess - 1 / n)``.
    status : array
        What became of the row at this gamma.
    """

    _picture = "log_z"

    gammas: Given
    log_weights: LogWeights
    ess: PerRow
    khat: PerRow
    log_z: PerRow
    log_z_std_error: PerRow
    status: Statuses

    def _said(self) -> Said:
        return said_of_tail(self, self.khat)


@dataclass(frozen=True, eq=False, repr=False)
class LogZ(Result):
    """Log of a ratio of normalising constants, target over mu.

    Attributes
    ----------
    estimate : float or array of the batch shape
        The estimate.
    std_error : float or array of the batch shape
        Its delta-method standard error, for independent draws in independent sets. Where khat is 1/2 or more
        it is too small.
    khat : float or array of the batch shape, or None
        Shape of the tail of the weights of the worst step, NaN if that of any step is unknown; None where
        the method has no weights.
    disagreement : float or array of the batch shape, or None
        The corrected rule of integration less the trapezoids; None where nothing is integrated.
    low : float or array of the batch shape
        Lower end of an interval of level 0.95, as that of `SNIS`. It does not know of the error of a rule of
        integration.
    high : float or array of the batch shape
        Its upper end; inf where nothing can be said.
    error_draws : float or array of the batch shape
        How many draws carry `std_error`.
    status : Status or array of the batch shape
        What became of the worst set of draws.
    """

    _not_finite = "hold NaN or +inf, a draw of zero weight at a gamma above 0, or sums beyond float64"

    estimate: PerRow
    std_error: PerRow
    khat: PerRow | None
    disagreement: PerRow | None
    low: PerRow
    high: PerRow
    error_draws: PerRow
    status: Statuses

    def _said(self) -> Said:
        return super()._said() if self.khat is None else said_of_tail(self, self.khat)


@dataclass(frozen=True, eq=False, repr=False)
class MomentMatched(Tail, Result):
    """Draws moved towards a target, and their weights.

    Attributes
    ----------
    draws : array, shape (n, d)
        The moved draws, in the kind and float dtype of those given.
    log_weights : array, shape (n,)
        Their log-weights, ``log target - log density of the moved draws``, as they are.
    khat : float
        Shape of the tail of these weights.
    khat_before : float
        That of the draws as they were given.
    status : Status
        What became of the weights.
    """

    draws: Given
    log_weights: LogWeights
    khat: PerRow
    khat_before: PerRow
    status: Statuses
