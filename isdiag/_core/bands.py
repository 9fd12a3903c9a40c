"""What a tail index means: thresholds, sample sizes, and the limits that gamma is chosen by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, nan
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from isdiag._core.check import number
from isdiag._core.typing import Floats, Ints
from isdiag._kernels.records import PRIOR_DRAWS, PRIOR_K

GOOD_KHAT = 0.7
_MOST_DRAWS = 2.0**62  # fits an int64
FINITE_VARIANCE = 0.5  # a tail index below it, so that two moments are finite


def tail_length(n: Any, r_eff: Any) -> Floats:
    """``floor(min(n / 5, 3 sqrt(n / r_eff)))``."""
    with np.errstate(over="ignore"):
        length = np.floor(np.minimum(n / 5, 3 * np.sqrt(n / r_eff)))
    return np.minimum(length, _MOST_DRAWS)


def uncapped_threshold(n: Any) -> Floats:
    """``1 - 1 / log10(n)`` for n >= 1."""
    with np.errstate(divide="ignore"):
        return 1 - 1 / np.log10(n)


def khat_threshold(n: Any) -> Floats:
    """``min(1 - 1 / log10(n), 0.7)`` for n >= 1."""
    return np.minimum(uncapped_threshold(n), GOOD_KHAT)


def min_sample_size(khat: Any) -> Floats:
    """``10**(1 / (1 - max(0, khat)))``, inf from khat = 1 on."""
    k = np.maximum(khat, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(k >= 1, np.inf, 10 ** (1 / np.where(k >= 1, 1.0, 1 - k)))


def khat_interval(khat: Floats, tail_length: Floats, level: float) -> tuple[Floats, Floats]:
    """An interval for the tail index of which khat is an estimate from so many draws.

    Without the prior log(1 + k) has standard error 1 / sqrt(m) [Smith1987]_; below k = 0 k keeps that of 0.
    """
    off = NormalDist().inv_cdf(0.5 + 0.5 * level) / np.sqrt(tail_length)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # khat may be anything
        k = khat + (khat - PRIOR_K) * PRIOR_DRAWS / tail_length
        scale = 1.0 + np.maximum(k, 0.0)
        low = k - scale * (off / (1.0 + off))
        high = np.where(off < 1.0, k + scale * (off / (1.0 - off)), np.inf)
    unknown = ~np.isfinite(khat)
    return np.where(unknown, khat, low), np.where(unknown, khat, high)


@lru_cache
def settled_khat(tail_length: int, level: float) -> float:
    """The largest khat of so many draws whose `khat_interval` ends below `FINITE_VARIANCE`."""
    if tail_length == 0:
        return nan
    off = NormalDist().inv_cdf(0.5 + 0.5 * level) / tail_length**0.5
    if off >= 1.0:
        return -inf
    beyond = off / (1.0 - off)
    room = FINITE_VARIANCE - beyond
    k = room / (1.0 + beyond) if room > 0.0 else room
    return (k + PRIOR_K * PRIOR_DRAWS / tail_length) / (1.0 + PRIOR_DRAWS / tail_length)


def convergence_rate(khat: Any, n: Any) -> Floats:
    """``n/(n-1) + e / expm1(-e log n)`` with e = 2 khat - 1, for n >= 2; 1 and 0 beyond khat = 0 and 1."""
    k, draws = np.broadcast_arrays(np.clip(khat, -1.0, 2.0), n)  # the ends are beyond 0 and 1
    between = (k > 0) & (k < 1) & (k != 0.5)
    e = np.where(between, 2 * k - 1, 1.0)
    rate = draws / (draws - 1) + e / np.expm1(-e * np.log(draws))
    rate = np.maximum(np.where(k == 0.5, 1 - 1 / np.log(draws), rate), 0.0)
    rate = np.where(k <= 0, 1.0, np.where(k >= 1, 0.0, rate))
    return np.where(np.isnan(k), np.nan, rate)


# What a colour of the terminal is on a screen and in print: at a contrast of 3 with white and with the
# near-black of dark pages, and told apart by whoever lacks one kind of cone (tests/plots/test_colours.py).
PAINTS = {"green": "#11a091", "yellow": "#af8a14", "red": "#a24735", "bold red": "#aa27ce"}


class Band(NamedTuple):
    """What a tail index in a range says of an estimate."""

    word: str
    above: float  # khat of the band is from here on
    moments: str
    colour: str

    @property
    def paint(self) -> str:
        """The colour on a page."""
        return PAINTS[self.colour]


# Vehtari et al. (2024), section 3; a law with tail index k has 1 / k finite moments.
BANDS = (
    Band("good", -inf, "at least 2 finite moments", "green"),
    Band("fair", FINITE_VARIANCE, "1.4 to 2 finite moments", "yellow"),
    Band("bad", GOOD_KHAT, "1 to 1.4 finite moments", "red"),
    Band("very bad", 1.0, "less than 1 finite moment", "bold red"),
)
UNKNOWN = Band("unknown", nan, "an unknown number of finite moments", "red")
_STARTS = np.array([band.above for band in BANDS[1:]])


def band_of(khat: float) -> Band:
    """The band of one khat."""
    return UNKNOWN if khat != khat else BANDS[int(np.searchsorted(_STARTS, khat, side="right"))]


def words(khat: Any) -> Any:
    """The word of the band of each khat: a str, or a NumPy array of them."""
    found = np.array([band_of(k).word for k in np.ravel(np.asarray(khat, np.float64))])
    return found[0].item() if np.ndim(khat) == 0 else found.reshape(np.shape(khat))


def finite_moments(khat: Any) -> Any:
    """How many moments the weights have by this khat: ``1 / khat``, inf for khat <= 0, NaN for NaN."""
    k = np.asarray(khat, np.float64)
    with np.errstate(divide="ignore"):
        found = np.where(k <= 0.0, np.inf, 1.0 / np.where(k <= 0.0, 1.0, k))
    return found.item() if found.ndim == 0 else found


def people(n: float) -> str:
    """A number of draws as people say it: 9 200, 420 million."""
    if not n < 1e15:
        return "no number of"
    rounded = float(f"{n:.2g}")
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if rounded >= size:
            return f"{rounded / size:.3g} {word}"
    return f"{rounded:,.0f}".replace(",", " ")


@dataclass(frozen=True)
class Constraints:
    """What the weights at the chosen gamma have to keep to."""

    k_max: float | None = GOOD_KHAT
    ess_min: float = 0.3
    gamma_max: float = 1.0

    def __post_init__(self) -> None:
        # As floats: Numba would compile its kernels anew for another type.
        if self.k_max is not None:
            self.__dict__["k_max"] = number("k_max", self.k_max, 0.0, inf, "(]")
        self.__dict__["ess_min"] = number("ess_min", self.ess_min, 0.0, 1.0)
        self.__dict__["gamma_max"] = number("gamma_max", self.gamma_max, 0.0, inf, "()")

    def allowed_khat(self, n: Ints) -> Floats:
        """The largest khat allowed with n draws, for each row."""
        if self.k_max is None and n.size != 1:
            return khat_threshold(np.maximum(n, 1))
        allowed = np.empty(n.shape)
        allowed.fill(_threshold_of(n.item()) if self.k_max is None else self.k_max)
        return allowed


@lru_cache
def _threshold_of(n: int) -> float:
    # A program asks for the same number of draws again and again.
    return khat_threshold(max(n, 1)).item()
