"""What draws of Markov chains are worth, by the autocorrelation of what an error is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats, Ints
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

    1 where draws are independent, as chain is None, and where the series is constant; NaN where it is not
    finite or its chains are shorter than 4 draws.
    """
    found = np.ones(len(series))
    if chain is None:
        return found
    step = max(1, _PIECE // series.shape[1])
    for start in range(0, len(series), step):
        piece = slice(start, start + step)
        found[piece] = _efficiency(series[piece], chain)
    return found


class Error(NamedTuple):
    """What is known of the error of means of n draws, each (rows, d); n may be (rows,).

    With f the influence of a draw ``std_error**2 = sum(f**2)``, ``skewness = sum(f**3) / std_error**3`` and
    ``error_draws = sum(f**2)**2 / sum(f**4)``.
    """

    std_error: Floats
    skewness: Floats
    error_draws: Floats
    n: Floats | Ints

    def along(self, found: Floats) -> Error:
        """The same for draws of chains, by what `along_chains` found of the influence of each draw."""
        efficiency, skewness, error_draws = found
        n = self.n if self.n.ndim > 1 else self.n[:, None]
        return Error(self.std_error / np.sqrt(efficiency), skewness, error_draws, n * efficiency)


def along_chains(series: Floats, chain: int | None) -> Floats:
    """`efficiency` of each series, (m, draws); skewness of its sum and the draws behind that one's variance.

    Those two are of the sums over pieces of a chain, each of so many draws as are worth an independent one:
    draws of much weight that follow each other are one piece.
    """
    worth = efficiency(series, chain)
    found = np.full((3, len(series)), np.nan)
    found[0] = worth
    draws = series.shape[1]
    length = draws if chain is None else chain
    for i in np.flatnonzero(np.isfinite(worth)):
        size = min(max(round(1.0 / worth[i]), 1), length)
        starts = [at + k for at in range(0, draws, length) for k in range(0, length, size)]
        largest = np.abs(series[i]).max()
        pieces = np.add.reduceat(series[i] / (largest if largest > 0.0 else 1.0), starts)
        squares = (pieces**2).sum()
        if squares > 0.0:
            found[1:, i] = (pieces**3).sum() / squares**1.5, squares**2 / (pieces**4).sum()
        else:
            found[1:, i] = 0.0
    return found


def centred(rows: Rows, series: Floats) -> Floats:
    """Rows of a number for each draw less their mean over those that count, 0 at the others."""
    if rows.kept is None:
        return series - series.mean(axis=1, keepdims=True)
    total = np.where(rows.kept, series, 0.0).sum(axis=1)
    return np.where(rows.kept, series - (total / np.maximum(rows.n, 1))[:, None], 0.0)


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
    every: Ints = np.arange(count, dtype=np.int64)
    sums = np.cumsum(np.minimum.accumulate(pairs, axis=1), axis=1)
    before = np.where(end > 0, sums[every, end - 1], 0.0)
    rest = correlation[every, 2 * end]
    rest = np.where(pairs[every, end] >= 0.0, rest, np.maximum(rest, 0.0))
    # Chains that alternate are worth more than independent draws, but no more than so many times as much.
    return np.maximum(2.0 * before + rest - 1.0, 1.0 / log10_draws)
