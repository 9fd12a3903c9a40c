"""What draws of Markov chains are worth, by the autocorrelation of what an error is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isdiag import _kernels
from isdiag._core.boundary import Rows, read_only
from isdiag._core.typing import Codes, Floats, Ints
from isdiag.status import Status

# A chain is split into halves, and a half of one draw has no variance.
_SHORTEST = 4
# Most sequences end so soon, and as many sums of products take 3, 14 and 55 % of the time of a transform.
_FEW_LAGS = (8, 32, 128)
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
    few = [lags for lags in _FEW_LAGS if lags < half]
    found, unknown = np.empty(len(series)), np.arange(len(series))
    for lags in (*few, half):
        covariance_of = _of_few_lags if lags < half else _of_all_lags
        rows = series if unknown.size == len(series) else series[unknown]
        spread, means, covariance = covariance_of(read_only(rows), length, lags)
        within = covariance[:, 0] * half / (half - 1.0)
        total = covariance[:, 0] + means.var(axis=1, ddof=1)
        with np.errstate(all="ignore"):  # a series may hold anything
            correlation = 1.0 - (within[:, None] - covariance) / total[:, None]
            correlation[:, 0] = 1.0
            time, told = _correlation_time(correlation, half, np.log10(means.shape[1] * half))
            efficient = np.where(total > 0.0, 1.0 / time, 1.0)
        found[unknown] = np.where(np.isfinite(spread), efficient, np.nan)
        unknown = unknown[~told]
        if unknown.size == 0:
            break
    return found


def _of_few_lags(series: Floats, length: int, lags: int) -> tuple[Floats, Floats, Floats]:
    """Spread of each series, the means of halves of its chains, and the autocovariance within those.

    That is the mean over halves of sum(x[i] x[i + lag]) / n, of centred x. Means and x are in units of about
    the spread.
    """
    spread, means = np.empty(len(series)), np.empty((len(series), 2 * (series.shape[1] // length)))
    covariance = np.empty((len(series), lags))
    _kernels.covariance_rows(series, length, spread, means, covariance)
    return spread, means, covariance


def _of_all_lags(series: Floats, length: int, lags: int) -> tuple[Floats, Floats, Floats]:
    """The same by transforms, of as many lags as half a chain has draws."""
    spread, means = np.empty(len(series)), np.empty((len(series), 2 * (series.shape[1] // length)))
    padded = max(2 ** (2 * lags - 1).bit_length(), 32)  # no shorter than what sums run over
    halves = np.empty((*means.shape, padded))
    _kernels.halve_rows(series, length, spread, means, halves)
    transform = np.fft.rfft(halves, axis=2)
    power = (transform.real**2 + transform.imag**2).mean(axis=1)
    return spread, means, np.fft.irfft(power, padded, axis=1)[:, :lags] / lags


def _correlation_time(correlation: Floats, half: int, log10_draws: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Sum of the correlations at all lags of either sign, by Geyer's initial monotone sequence.

    Sums of a pair of lags, (0, 1), (2, 3), ..., are positive and decrease. They are taken up to the first
    that is not positive, whose first lag is still counted once if it is; and none is larger than one before.
    Also whether that one is among the lags there are.
    """
    count, lags = correlation.shape
    beyond = max((half - 3) // 2, 0)  # no pair after it is looked at
    last = min(beyond, lags // 2 - 1)
    pairs = correlation[:, 0 : 2 * last + 2 : 2] + correlation[:, 1 : 2 * last + 2 : 2]
    ended = ~(pairs > 0.0)
    told = np.asarray(ended.any(axis=1) | (last == beyond), np.bool_)
    ended[:, last] = True
    end = ended.argmax(axis=1)
    every: Ints = np.arange(count, dtype=np.int64)
    sums = np.cumsum(np.minimum.accumulate(pairs, axis=1), axis=1)
    before = np.where(end > 0, sums[every, end - 1], 0.0)
    rest = correlation[every, 2 * end]
    rest = np.where(pairs[every, end] >= 0.0, rest, np.maximum(rest, 0.0))
    # Chains that alternate are worth more than independent draws, but no more than so many times as much.
    return np.maximum(2.0 * before + rest - 1.0, 1.0 / log10_draws), told
