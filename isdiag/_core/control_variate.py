"""The regression of w^gamma h on w^gamma."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag._core import tails
from isdiag._core.boundary import Rows, filled
from isdiag._core.typing import Codes, Floats, Ints, Mask, Values
from isdiag._core.weights import over_largest
from isdiag.status import Status

# Draws times components worked on at a time: 4096 draws of 1000 components took two thirds of the time and a
# thirtieth of the memory that they take in one piece.
_PIECE = 2**17


class Expectation(NamedTuple):
    """E_mu[w^gamma] as ``mean * exp(top)``, and the share of the slope that is the best coefficient."""

    mean: Floats
    top: Floats
    share: Floats


class _Weights(NamedTuple):
    """Rows of w^gamma over the largest of the row, ``exp(top)``; deviations are 0 where the weight is."""

    values: Floats
    deviations: Floats
    positive: Mask
    flat: Mask
    n: Floats
    zeros: Floats
    mean: Floats
    squares: Floats
    top: Floats


def known(rows: Rows, gamma: Floats, expected_weight: Any) -> tuple[Expectation, Codes]:
    """E_mu[w^gamma] as the caller knows it; for gamma = 1 it is 1."""
    if expected_weight is None:
        other = gamma[gamma != 1]
        if other.size:
            msg = (
                "E_mu[w**gamma] is 1 only for gamma = 1: give expected_weight or second_log_w for "
                f"gamma = {other[0]:g}"
            )
            raise ValueError(msg)
        expected_weight = 1.0
    mean = rows.per_row("expected_weight", expected_weight, 0.0, "()", unknown=True)[:, None]
    presence = filled(len(rows), Status.OK, np.int8)
    return Expectation(mean, np.zeros_like(mean), np.ones_like(mean)), presence


def estimated(rows: Rows, gamma: Floats, second: Rows) -> tuple[Expectation, Codes]:
    """E_mu[w^gamma] from a second sample."""
    if second.batch_shape != rows.batch_shape:
        msg = f"second_log_w must have log_w's batch shape {rows.batch_shape}, got {second.batch_shape}"
        raise ValueError(msg)
    m = second.values.shape[1]
    with np.errstate(all="ignore"):
        weights, top = over_largest(second.values, gamma)
    largest = second.values.max(axis=1)
    presence = filled(len(rows), Status.OK, np.int8)
    presence[largest == -np.inf] = Status.NO_WEIGHT
    presence[np.isnan(largest) | (largest == np.inf)] = Status.NOT_FINITE
    return Expectation(weights.mean(axis=1, keepdims=True), top, m / (rows.n[:, None] + m)), presence


def control_variate(
    rows: Rows,
    values: Values,
    gamma: Floats,
    lengths: Ints,
    expectation: Expectation,
    presence: Codes,
) -> dict[str, Any]:
    """The fields of `ControlVariate`."""
    khat, status = tails.khat(rows, lengths, gamma)
    flat = status == Status.FLAT
    # Of the codes that are about weights NO_WEIGHT and NOT_FINITE are the highest.
    status = np.maximum(status, presence)
    unknown = (status >= Status.NO_WEIGHT) | np.isnan(gamma) | np.isnan(expectation.mean[:, 0])
    with np.errstate(all="ignore"):  # weights and h may hold anything
        table = _estimates(rows, gamma, flat, values, expectation)
    table[:, unknown] = np.nan
    khat[unknown] = np.nan
    names = ("estimate", "std_error", "std_error_plain", "plain", "coefficient")
    return dict(zip(names, table, strict=True)) | {"khat": khat, "status": status}


def _scaled(x: Floats, top: Floats) -> Floats:
    """``x * exp(top)``, which may be finite where ``exp(top)`` is not."""
    half = np.exp(0.5 * top)
    return np.where(x == 0, 0.0, x * half * half)


def _weights(log_w: Floats, gamma: Floats, n: Ints, flat: Mask) -> _Weights:
    values, top = over_largest(log_w, gamma)
    positive = values > 0
    # Draws without weight and entries left out look the same here: only n knows how many are draws.
    draws = np.maximum(n, 1.0)[:, None]
    zeros = draws - positive.sum(axis=1, keepdims=True)
    mean = values.sum(axis=1, keepdims=True) / draws
    deviations = np.where(positive, values - mean, 0.0)
    return _Weights(
        values=values,
        deviations=deviations,
        positive=positive,
        # Flat weights are equal up to rounding only, and a slope on rounding errors may be anything.
        flat=flat[:, None] & (zeros == 0),
        n=draws,
        zeros=zeros,
        mean=mean,
        squares=(deviations**2).sum(axis=1, keepdims=True) + zeros * mean**2,
        top=top,
    )


def _estimates(
    rows: Rows,
    gamma: Floats,
    flat: Mask,
    values: Values,
    expectation: Expectation,
) -> Floats:
    """The first five fields of `ControlVariate`, each (rows, d)."""
    count, draws = rows.values.shape
    cube = values.reshape(count, draws, values.shape[1] // draws)
    table = np.empty((5, count, cube.shape[2]))
    height = max(1, _PIECE // draws)
    for start in range(0, count, height):
        some = slice(start, start + height)
        weights = _weights(rows.values[some], gamma[some], rows.n[some], flat[some])
        width = max(1, _PIECE // weights.values.size)
        of_these = Expectation(*(a[some] for a in expectation))
        for first in range(0, cube.shape[2], width):
            columns = slice(first, first + width)
            h = cube[some, :, columns].transpose(0, 2, 1)
            table[:, some, columns] = _regression(weights, h, of_these)
    return table


def _regression(w: _Weights, h: Values, expectation: Expectation) -> Floats:
    """The fields for values at the draws, (rows, columns, draws)."""
    positive, deviations = w.positive[:, None], w.deviations[:, None]
    y = np.multiply(w.values[:, None], h, out=np.zeros(h.shape), where=positive)
    plain = y.sum(axis=2) / w.n
    np.subtract(y, plain[:, :, None], out=y, where=positive)
    variance = ((y * y).sum(axis=2) + w.zeros * plain**2) / (w.n - 1)
    cross = (y * deviations).sum(axis=2) + w.zeros * plain * w.mean
    slope = np.where(w.flat, 0.0, cross / w.squares)
    y -= slope[:, :, None] * deviations
    residuals = (y * y).sum(axis=2) + w.zeros * (plain - slope * w.mean) ** 2
    residual_variance: Floats = np.where(w.n > 2, residuals / (w.n - 2), np.nan)
    residual_variance = np.where(w.flat, variance, residual_variance)
    coefficient = expectation.share * slope
    by_second = (1 - expectation.share) * slope**2 * w.squares / np.maximum(w.n - 1, 1)
    at_zero = _scaled(plain - coefficient * w.mean, w.top)
    return np.stack(
        [
            at_zero + _scaled(coefficient * expectation.mean, expectation.top),
            _scaled(np.sqrt((residual_variance + by_second) / w.n), w.top),
            _scaled(np.sqrt(variance / w.n), w.top),
            _scaled(plain, w.top),
            coefficient,
        ]
    )
