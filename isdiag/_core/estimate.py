"""Estimates that know each draw's part in their error, so that sums and ratios of them have the right one."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, Self, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, moments, statuses, units, weights
from isdiag._core.boundary import INT64, Rows, read_only
from isdiag._core.intervals import interval
from isdiag._core.result import Result, warn_not_finite
from isdiag._core.typing import Codes, Floats, Ints, Mask, PerRow, Smoothing, Statuses, Values
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK


class Parts(NamedTuple):
    """What an estimate is made of; one number a row and component of h but where it is said."""

    value: Floats  # (rows, d)
    influence: Floats  # (rows, d, units): the squared standard error is the sum of their squares
    n: Ints  # (rows,): how many units count
    status: Codes  # (rows, d): of the weights, or NOT_FINITE_H
    khat: Floats  # (rows,): the largest of the weights
    mean_error: Floats  # (rows,): the largest relative error of a mean weight that is divided by
    rows: Rows  # the layout of the result, and own the axes that d stands for
    own: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Result):
    """An estimate with the influence of each draw on it.

    Estimates on the same draws can be added, subtracted, multiplied and divided, with each other and with
    numbers, and taken to a power: influences follow the chain rule, so that what the draws have in common
    counts once. Estimates of unequal n raise ValueError.

    Attributes
    ----------
    value : float or array
        The estimate, in the batch shape followed by h's own axes.
    std_error : float or array
        Its delta-method standard error, ``sqrt(sum(influence**2))``, in the units and the shape of `value`;
        of draws from chains that of the series of influences.
    low, high : float or array
        Ends of a 95 % interval, as those of `SNIS`.
    influence : array
        What each independent unit adds to the error, in the shape of `value` followed by an axis of units:
        the draws in the order of the flattened sample axes, or the clusters in sorted order. 0 for draws
        that do not count.
    n : int or array of the batch shape
        How many units count: draws, or clusters.
    status : Status or array
        What became of the estimate, in the shape of `value`.
    """

    value: PerRow
    std_error: PerRow
    low: PerRow
    high: PerRow
    influence: PerRow
    n: PerRow
    status: Statuses

    __array_ufunc__ = None  # NumPy leaves number * estimate to the estimate

    @classmethod
    def of_parts(cls, parts: Parts, *, quiet: bool = False) -> Self:
        """The estimate made of these; quiet if what it is made of has warned."""
        if not quiet:
            warn_not_finite(parts.status, depth=4)
        made = cls.part(parts.rows, parts.own, _fields(parts))
        made.__dict__["_parts"] = parts
        return made

    def _linear(self, value: Any, slope: Any, other: Any = None, other_slope: Any = 0.0) -> Self:
        """An estimate of that value whose influence is a sum of those of this and the other."""
        parts: Parts = self.__dict__["_parts"]
        with np.errstate(all="ignore"):  # a ratio to 0 is not finite
            influence = np.asarray(slope)[..., None] * parts.influence
            status, rows, own = parts.status, parts.rows, parts.own
            khat, mean_error = parts.khat, parts.mean_error
            if other is not None:
                beside: Parts = other.__dict__["_parts"]
                influence = influence + np.asarray(other_slope)[..., None] * beside.influence
                own = own if parts.value.shape[1] >= beside.value.shape[1] else beside.own
                status = statuses.first_of(*np.broadcast_arrays(status, beside.status))
                khat = np.maximum(khat, beside.khat)
                mean_error = np.maximum(mean_error, beside.mean_error)
        value = np.broadcast_to(value, influence.shape[:-1]).copy()
        made = Parts(value, influence, parts.n, status, khat, mean_error, rows, own)
        return type(self).of_parts(made, quiet=True)

    def _beside(self, other: Any) -> tuple[Floats, Floats] | None:
        """Both values, (rows, d); None if the other is neither an estimate nor a number."""
        parts: Parts = self.__dict__["_parts"]
        if isinstance(other, Estimate):
            beside: Parts = other.__dict__["_parts"]
            if not np.array_equal(parts.n, beside.n) or len(parts.rows) != len(beside.rows):
                msg = f"estimates on n={self.n} and n={other.n} units are not on the same draws"
                raise ValueError(msg)
            if parts.influence.shape[-1] != beside.influence.shape[-1]:
                msg = "estimates with and without clusters, or with others, are not on the same units"
                raise ValueError(msg)
            if parts.own != beside.own and () not in (parts.own, beside.own):
                msg = f"estimates of shapes {parts.own} and {beside.own} of h do not go together"
                raise ValueError(msg)
            return parts.value, beside.value
        if isinstance(other, (Real, np.ndarray)) and np.ndim(cast("Any", other)) == 0:
            return parts.value, np.full_like(parts.value, float(cast("Any", other)))
        return None

    def __add__(self, other: Any) -> Self:
        pair = self._beside(other)
        if pair is None:
            return NotImplemented
        return self._linear(pair[0] + pair[1], 1.0, *_if_estimate(other, 1.0))

    __radd__ = __add__

    def __neg__(self) -> Self:
        return -1.0 * self

    def __sub__(self, other: Any) -> Self:
        pair = self._beside(other)
        if pair is None:
            return NotImplemented
        return self._linear(pair[0] - pair[1], 1.0, *_if_estimate(other, -1.0))

    def __rsub__(self, other: Any) -> Self:
        return -self + other

    def __mul__(self, other: Any) -> Self:
        pair = self._beside(other)
        if pair is None:
            return NotImplemented
        return self._linear(pair[0] * pair[1], pair[1], *_if_estimate(other, pair[0]))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Self:
        pair = self._beside(other)
        if pair is None:
            return NotImplemented
        with np.errstate(all="ignore"):
            ratio = pair[0] / pair[1]
            return self._linear(ratio, 1.0 / pair[1], *_if_estimate(other, -ratio / pair[1]))

    def __rtruediv__(self, other: Any) -> Self:
        return other * self**-1.0

    def __pow__(self, power: Any) -> Self:
        if not isinstance(power, Real):
            return NotImplemented
        p = float(power)
        value = self.__dict__["_parts"].value
        with np.errstate(all="ignore"):
            return self._linear(value**p, p * value ** (p - 1.0))


def _if_estimate(other: Any, slope: Any) -> tuple[Any, ...]:
    return (other, slope) if isinstance(other, Estimate) else ()


def _fields(parts: Parts) -> dict[str, Any]:
    """The fields of `Estimate`."""
    value, n = parts.value, parts.n
    error = of_influence(parts.influence, n)
    if parts.rows.chain is not None:
        error = error.along(_along_chains(parts))
    std_error, error_draws = error.std_error, error.error_draws
    statuses.erase((n == 1)[:, None] | np.isnan(value), std_error, error_draws)
    low, high = interval(value, error, parts.khat, parts.mean_error)
    constant = np.where((std_error == 0.0) & np.isfinite(value), np.int8(CONSTANT_H), np.int8(OK))
    # An error that is unknown, of a stratum of one or a ratio to 0, is carried by no draw.
    few = statuses.of_error(np.where(np.isfinite(std_error), error_draws, 0.0), constant == CONSTANT_H)
    return {
        "value": value,
        "std_error": std_error,
        "low": low,
        "high": high,
        "influence": parts.influence,
        "n": n,
        "status": statuses.first_of(parts.status, constant, few),
    }


def of_influence(influence: Floats, n: Ints) -> chains.Error:
    """The error that the influences of n units make."""
    top = np.maximum(influence.max(axis=-1, initial=0.0), -influence.min(axis=-1, initial=0.0))
    with np.errstate(all="ignore"):
        scale = np.where((top > 0.0) & np.isfinite(top), top, 1.0)
        squares, cubes, fourths = moments.power_sums(influence, scale)
        return chains.Error(scale * np.sqrt(squares), cubes / squares**1.5, squares**2 / fourths, n)


def _along_chains(parts: Parts) -> Floats:
    found = np.empty((3, *parts.value.shape))
    with np.errstate(all="ignore"):
        for j in range(parts.value.shape[1]):
            series = chains.centred(parts.rows, parts.influence[:, j])
            found[:, :, j] = chains.along_chains(series, parts.rows.chain)
    return found


def estimate(
    rows: Rows,
    h: Values,
    own: tuple[int, ...],
    gamma: Floats,
    lengths: Ints,
    *,
    smooth: Smoothing,
    normalize: bool,
    baseline: Values | None,
    clusters: Ints | None,
    strata: Ints | None,
    workers: int,
) -> Parts:
    """What `Estimate` is made of: baseline, as h, and labels of the draws, (rows, draws)."""
    log_weights, used, origin, khat, status = moments.weights_to_use(rows, gamma, lengths, smooth, workers)
    found = moments.moments_of(log_weights, used, h, workers)
    count, draws = rows.values.shape
    kept = np.ones((count, 1, 1), bool) if rows.kept is None else rows.kept[:, None, :]
    n = rows.n[:, None, None]
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        if normalize:
            influence = np.empty((count, found.estimate.shape[1], draws))
            alone = influence[:, 0] if influence.shape[1] == 1 else None
            relative, _ = weights.over_largest(log_weights, used, alone)
            given = units.in_units(rows, h, gamma)
            values = read_only(np.asarray(given.values, np.float64))
            _kernels.influence_rows(relative, values, units.own_origin(given), influence)
            influence = given.spread(influence)
            value = found.estimate
            mean_error = moments.log_mean(found, rows.n)[1]
        else:
            given = units.standard(rows, h, gamma)
            relative, top = weights.over_largest(log_weights, used)
            log_mean, log_error = moments.log_mean(found, rows.n)
            mean_error = np.zeros(count)
            mean_weight = statuses.of_mean_weight(log_mean + origin, log_error, found.ess)
            status = statuses.first_of(status, np.where(gamma == 1.0, mean_weight, OK))
            total = relative.sum(axis=1)
            share = (relative / total[:, None])[:, None, :]
            cube = _by_component(given.values, count, draws)
            products = share * given.place(np.where(share > 0.0, cube, 0.0))
            per_draw = units.scaled(products, np.log(total) + top[:, 0] + origin, rows.same(0, INT64))
            value = per_draw.sum(axis=2) / rows.n[:, None]
            influence = np.where(kept, per_draw - value[:, :, None], 0.0) / n
        if baseline is not None:
            level = np.where(kept, _by_component(baseline, count, draws), 0.0)
            average = level.sum(axis=2, keepdims=True) / n
            value = value + average[:, :, 0]
            influence = influence + np.where(kept, level - average, 0.0) / n
            found.status_h[~np.isfinite(average[:, :, 0])] = NOT_FINITE_H
        if not normalize:
            influence = influence * np.sqrt(n / (n - 1.0))  # std(w h) / sqrt(n) is unbiased
    unknown = np.isnan(found.estimate) | (found.status_h == NOT_FINITE_H)
    influence = np.where(unknown[:, :, None], np.nan, influence) if unknown.any() else influence
    value = np.where(unknown, np.nan, value)
    if rows.chain is not None and (clusters is not None or strata is not None):
        msg = 'draws="mcmc" takes the order of the draws for what clusters and strata say: pass one of them'
        raise ValueError(msg)
    units_n = rows.n
    if clusters is not None:
        influence, units_n, strata = _by_cluster(influence, clusters, strata, kept[:, 0])
    elif strata is not None:
        strata = np.where(kept[:, 0], strata, -1)
    if strata is not None:
        influence = _within(influence, strata)
    of_h = np.where(found.status_h == NOT_FINITE_H, found.status_h, np.int8(OK))
    status = statuses.first_of(status, of_h)
    return Parts(value, influence, units_n, status, khat, mean_error, rows.naming("unit"), own)


def _by_component(h: Values, count: int, draws: int) -> Floats:
    """`Rows.trailing` values as (rows, d, draws)."""
    return units.cube_of(h, count, draws).transpose(0, 2, 1).astype(np.float64, copy=False)


def _by_cluster(
    influence: Floats, clusters: Ints, strata: Ints | None, kept: Mask
) -> tuple[Floats, Ints, Ints | None]:
    """Sums over clusters, how many of them count in a row, and their strata; -1 is a label of none."""
    count, d, _ = influence.shape
    kept = np.broadcast_to(kept, clusters.shape)
    most = int(clusters.max(initial=0)) + 1
    place = cast("Ints", clusters + most * np.arange(count)[:, None])
    summed = np.empty((count, d, most))
    for j in range(d):
        flat = np.bincount(place.ravel(), np.where(kept, influence[:, j], 0.0).ravel(), count * most)
        summed[:, j] = flat.reshape(count, most)
    seen = np.bincount(place[kept], minlength=count * most).reshape(count, most) > 0
    if strata is None:
        return summed, seen.sum(axis=1), None
    of_cluster = np.full(count * most, -1)
    of_cluster[place[kept]] = strata[kept]
    if (of_cluster[place[kept]] != strata[kept]).any():
        msg = "strata must be the same within a cluster"
        raise ValueError(msg)
    return summed, seen.sum(axis=1), of_cluster.reshape(count, most)


def _within(influence: Floats, strata: Ints) -> Floats:
    """Influences about the mean of their stratum; a stratum of one has no error of its own (NaN)."""
    count, d = influence.shape[:2]
    inside = strata >= 0
    most = int(strata.max(initial=0)) + 1
    of_row = cast("Ints", strata + most * np.arange(count)[:, None])
    place = np.where(inside, of_row, count * most)
    sizes = np.bincount(place.ravel(), minlength=count * most + 1).astype(np.float64)
    out = np.empty_like(influence)
    with np.errstate(all="ignore"):
        larger = np.sqrt(sizes / (sizes - 1.0))
        for j in range(d):
            total = np.bincount(place.ravel(), influence[:, j].ravel(), count * most + 1)
            off = influence[:, j] - (total / sizes)[place]
            out[:, j] = np.where(inside, off * larger[place], 0.0)
    return np.where(np.isinf(out), np.nan, out)
