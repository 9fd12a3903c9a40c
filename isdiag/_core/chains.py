"""What draws of Markov chains are worth, by the autocorrelation of what an error is made of."""

from __future__ import annotations

import numpy as np

from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats
from isdiag.status import Status

# A chain is split into halves, and a half of one draw has no variance.
_SHORTEST = 4
# Numbers worked on at a time, a few dozen MB with their transforms.
_PIECE = 2**20


def relative_efficiency(rows: Rows) -> tuple[Floats, Codes]:
    """`efficiency` of rows of values, and NOT_FINITE where it has none for that reason."""
    codes = np.where(np.isfinite(rows.values).all(axis=1), Status.OK, Status.NOT_FINITE)
    return efficiency(rows.values, rows.chain), codes.astype(np.int8)


def efficiency(series: Floats, chain: int | None) -> Floats:
    """ESS over n of the mean of each series, (m, draws): chains of that length one after the other.

    1 where draws are independent, as chain is None. NaN where a series is not finite or its chains are shorter than 4 draws, 1 where it is constant.
    """
    found = np.ones(len(series))
    if chain is None:
        return found
    step = max(1, _PIECE // series.shape[1])
    for start in range(0, len(series), step):
        piece = slice(start, start + step)
        found[piece] = _efficiency(series[piece], chain)
    return found


def _efficiency(series: Floats, length: int) -> Floats:
    if length < _SHORTEST:
        return np.full(len(series), np.nan)
    half = length // 2
    with np.errstate(all="ignore"):  # a series may hold anything
        # In units and from an origin of its own.
        shifted = 0.5 * series - 0.5 * series[:, :1]
        size = np.abs(shifted).max(axis=1)
        x = (shifted / np.where(size > 0.0, size, 1.0)[:, None]).reshape(len(series), -1, length)
        x = np.concatenate([x[:, :, :half], x[:, :, -half:]], axis=1)
        means = x.mean(axis=2)
        covariance = _autocovariance(x - means[:, :, None])
        within = covariance[:, 0] * half / (half - 1.0)
        total = covariance[:, 0] + means.var(axis=1, ddof=1)
        correlation = 1.0 - (within[:, None] - covariance) / total[:, None]
        correlation[:, 0] = 1.0
        efficient = 1.0 / _correlation_time(correlation, np.log10(x[0].size))
    return np.where(np.isfinite(size), np.where(total > 0.0, efficient, 1.0), np.nan)


def _autocovariance(x: Floats) -> Floats:
    """Mean over chains of sum(x[i] x[i + lag]) / n at every lag, of centred x: (m, chains, n) to (m, n)."""
    n = x.shape[2]
    padded = 2 ** (2 * n - 1).bit_length()
    transform = np.fft.rfft(x, padded, axis=2)
    power = (transform.real**2 + transform.imag**2).mean(axis=1)
    return np.fft.irfft(power, padded, axis=1)[:, :n] / n


def _correlation_time(correlation: Floats, log10_draws: float) -> Floats:
    """Sum of the correlations at all lags of either sign, by Geyer's initial monotone sequence.

    Sums of a pair of lags, (0, 1), (2, 3), ..., are positive and decrease. They are taken up to the first
    that is not positive, whose first lag is still counted once if it is; and none is larger than one before.
    """
    count, lags = correlation.shape
    last = max((lags - 3) // 2, 0)  # no pair beyond it is looked at
    pairs = correlation[:, 0 : 2 * last + 2 : 2] + correlation[:, 1 : 2 * last + 2 : 2]
    ended = ~(pairs > 0.0)
    ended[:, last] = True
    end = ended.argmax(axis=1)
    every = np.arange(count)
    sums = np.cumsum(np.minimum.accumulate(pairs, axis=1), axis=1)
    before = np.where(end > 0, sums[every, end - 1], 0.0)
    rest = correlation[every, 2 * end]
    rest = np.where(pairs[every, end] >= 0.0, rest, np.maximum(rest, 0.0))
    # Chains that alternate are worth more than independent draws, but no more than so many times as much.
    return np.maximum(2.0 * before + rest - 1.0, 1.0 / log10_draws)
