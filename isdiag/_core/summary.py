"""What parts of weights tell of the whole: a state that does not grow with them, and joins in any order.

Of each row it holds counts and extremes, the largest draws, the bins of `isdiag._kernels.bins` and, of values
at the draws, moments about their own mean. Passes over a row, as kernels ask for them, are answered from
these, so that every diagnostic is that of the kernels that see the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, NamedTuple, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import bands, moments, tails, value_sums
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows, filled, layout_of, read_only
from isdiag._core.chains import Error
from isdiag._core.check import number
from isdiag._core.threads import resolve_workers
from isdiag._core.typing import Codes, Floats, Ints, Records, StabilityRule, Values
from isdiag._core.value_sums import ValueSums
from isdiag._kernels.records import FITTED, NO_WEIGHT, OK, SELECTION, SMOOTHED

# A row is read so many draws at a time, whoever reads them, so that workers do not change a bit.
PIECE = 2**20
_LARGEST = float(np.finfo(np.float64).max)
_N_MAX = 2.0**53  # counts are exact up to there


class Bins(NamedTuple):
    """See `isdiag._kernels.bins`; in ascending order."""

    level: Ints
    key: Ints
    sums: Floats


NO_BINS = Bins(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 8)))
_NO_DRAWS = np.empty(0)


@dataclass(frozen=True, eq=False, slots=True)
class RowSummary:
    """Of one row. Extremes are `order_key`s; where one tells of NaN or +inf there are no more than counts."""

    n: int
    n_finite: int
    high: int
    low: int
    tail: Floats  # the largest draws, as many as `Summed.held` says, and maybe others, in any order
    floor: float  # as many draws are no smaller
    bins: Bins
    values: ValueSums | None

    @property
    def extent(self) -> Any:
        """A `_kernels.survey.Extent`."""
        return _kernels.extent_between(self.high, self.low, self.n_finite)

    def top(self, held: int) -> Floats:
        """The largest draws, in descending order."""
        return np.sort(_largest(self.tail, held) + 0.0)[::-1]  # -0.0 is 0.0, whichever came first


def _largest(draws: Floats, count: int) -> Floats:
    if draws.size <= count:
        return draws
    return np.partition(draws, draws.size - count)[draws.size - count :]


@dataclass(frozen=True, eq=False, slots=True)
class Summed:
    """Of each row of a batch.

    Attributes
    ----------
    rows : list of RowSummary
    batch_shape : tuple of int
    own : tuple of int, or None
        The own axes of h; None without h.
    eps : float
        The largest unit roundoff of the log-weights.
    gamma : float
        The exponent of the weights that h was summed with.
    held : int
        How many of the largest draws are held.
    """

    rows: list[RowSummary]
    batch_shape: tuple[int, ...]
    own: tuple[int, ...] | None
    eps: float
    gamma: float
    held: int

    @property
    def n(self) -> Ints:
        """How many draws count in each row."""
        return np.array([row.n for row in self.rows], np.int64)

    @property
    def layout(self) -> Rows:
        """The rows, without their draws, as results are laid out by."""
        return layout_of(self.n, self.eps, self.batch_shape)


def held_for(n_max: Any) -> int:
    """How many of the largest of up to n_max draws decide khat: the tail and the draw below."""
    most = number("n_max", n_max, 1.0, _N_MAX)
    return int(bands.tail_length(most, 1.0)) + 1


# ------------------------------------------------------------------------------------------------ draws in


class _Slots:
    """Memory that draws go through, a cache line for each slot; only what is used is ever touched."""

    def __init__(self) -> None:
        size = _kernels.GROUPS * _kernels.SLOTS * _kernels.POWERS
        memory = np.zeros(size + 8)
        start = -memory.ctypes.data % 64 // 8
        self._slots = memory[start : start + size].reshape(-1, _kernels.POWERS)
        self._homes = np.full(_kernels.GROUPS, -1)
        self._used = np.empty(_kernels.GROUPS, np.int64)

    def bins_of(self, row: Floats, high: float) -> Bins:
        count = _kernels.fill_slots(row, high, self._homes, self._used, self._slots)
        found = _new_bins(count * _kernels.SLOTS)
        used = np.sort(self._used[:count])
        return _filled(found, _kernels.empty_slots(high, self._homes, used, self._slots, *found))


# Memory that was used and is left as it was found; what an exception interrupts does not come back.
_SPARE: list[_Slots] = []


def _bins_of(row: Floats, high: float) -> Bins:
    try:
        slots = _SPARE.pop()
    except IndexError:
        slots = _Slots()
    found = slots.bins_of(row, high)
    _SPARE.append(slots)
    return found


def _new_bins(count: int) -> Bins:
    return Bins(np.empty(count, np.int64), np.empty(count, np.int64), np.empty((count, _kernels.POWERS)))


def _filled(bins: Bins, count: int) -> Bins:
    return Bins(bins.level[:count].copy(), bins.key[:count].copy(), bins.sums[:count].copy())


def no_draws(rows: Rows, own: tuple[int, ...] | None, gamma: float, held: int) -> Summed:
    """A summary of none of the draws of rows, with values of axes `own` at them or none."""
    empty = nothing(None if own is None else prod(own))
    return Summed([empty] * len(rows), rows.batch_shape, own, rows.eps, gamma, held)


def extended(
    state: Summed, rows: Rows, h: Values | None, own: tuple[int, ...] | None, workers: int
) -> Summed:
    """With the draws of rows, and `Rows.trailing` values at them, as well.

    Raises
    ------
    ValueError
        If they are of another batch or other values.
    """
    _check_same(state, batch_shape=rows.batch_shape, own=own)
    draws = rows.values.shape[1]
    threads = resolve_workers(workers) if draws > PIECE else 1
    found: list[RowSummary] = []
    with ThreadPoolExecutor(threads) as pool:
        for r, before in enumerate(state.rows):
            row, n = before, before.n + int(rows.n[r])
            values = None if h is None or own is None else h[r].reshape(draws, prod(own))
            piece = partial(_piece, rows.values[r], values, state.gamma, state.held)
            for first in range(0, draws, threads * PIECE):
                starts = range(first, min(first + threads * PIECE, draws), PIECE)
                floors = [row.floor] * len(starts)
                run = cast("Callable[..., Iterable[RowSummary]]", map if threads == 1 else pool.map)
                for part in run(piece, starts, floors):
                    row = merged_rows(row, part, state.gamma, state.held)
            found.append(replace(row, n=n))
    return replace(state, rows=found, eps=max(state.eps, rows.eps))


def _check_same(state: Summed, **others: Any) -> None:
    for name, other in others.items():
        one = getattr(state, name)
        if one != other:
            msg = f"parts must have one {_NAMES[name]}, got {one} and {other}"
            raise ValueError(msg)


_NAMES = {"batch_shape": "batch shape", "own": "shape of h at a draw (None without h)", "gamma": "gamma"}


def nothing(components: int | None) -> RowSummary:
    """Of no draws, with values of so many components or none."""
    high, low, _ = _kernels.extent_part(_NO_DRAWS)
    values = None if components is None else value_sums.nothing(components)
    return RowSummary(0, 0, high, low, _NO_DRAWS, -np.inf, NO_BINS, values)


def _piece(row: Floats, values: Any, gamma: float, held: int, start: int, floor: float) -> RowSummary:
    """Of the draws from start on; of those that are below the floor none is held."""
    row = row[start : start + PIECE]
    room = _kernels.new_candidates(row.size, held)
    bound = floor
    if floor == -np.inf:
        bound = _kernels.tail_bound(row, held, room.keys) if row.size > 4 * held else -_LARGEST
    high, low, n_finite, count, _, _ = _kernels.survey_part(row, 0, row.size, bound, held, *room)
    if floor == -np.inf and count < min(held, n_finite):  # the sample misled
        high, low, n_finite, count, _, _ = _kernels.survey_part(row, 0, row.size, -_LARGEST, held, *room)
    extent = _kernels.extent_between(high, low, n_finite)
    found = nothing(None if values is None else values.shape[1])
    found = replace(found, n=row.size, n_finite=n_finite, high=high, low=low)
    if extent.presence != OK:
        return found
    if values is not None:
        found = replace(
            found, values=value_sums.of_draws(row, extent.high, gamma, values[start : start + PIECE])
        )
    return replace(found, tail=_largest(room.x[:count], held).copy(), bins=_bins_of(row, extent.high))


# ---------------------------------------------------------------------------------------------- joining them


def merged_rows(a: RowSummary, b: RowSummary, gamma: float, held: int) -> RowSummary:
    """Of the draws of both."""
    n, n_finite, high, low = a.n + b.n, a.n_finite + b.n_finite, max(a.high, b.high), min(a.low, b.low)
    extent = _kernels.extent_between(high, low, n_finite)
    components = None if a.values is None else a.values.origin.size
    if extent.presence != OK:
        return replace(nothing(components), n=n, n_finite=n_finite, high=high, low=low)
    if a.n_finite == 0 or b.n_finite == 0:  # the other one loses no bit
        return replace(b if a.n_finite == 0 else a, n=n)
    tail, floor = np.concatenate([a.tail, b.tail]), max(a.floor, b.floor)
    if tail.size > 2 * held:
        tail = _largest(tail, held)
        floor = float(tail.min())
    bins = _new_bins(a.bins.key.size + b.bins.key.size)
    bins = _filled(bins, _kernels.join_bins(*a.bins, *b.bins, extent.high, *bins))
    values = None
    if a.values is not None and b.values is not None:
        less = [gamma * (one.extent.high - extent.high) for one in (a, b)]
        values = value_sums.merged(a.values, less[0], b.values, less[1])
    return RowSummary(n, n_finite, high, low, tail, floor, bins, values)


def merged(a: Summed, b: Summed) -> Summed:
    """Of the draws of both, row by row.

    Raises
    ------
    ValueError
        If they are of other batches or other values.
    """
    _check_same(a, batch_shape=b.batch_shape, own=b.own, gamma=b.gamma)
    held = min(a.held, b.held)
    rows = [merged_rows(*pair, a.gamma, held) for pair in zip(a.rows, b.rows, strict=True)]
    return replace(a, rows=rows, eps=max(a.eps, b.eps), held=held)


def stacked(states: list[Summed]) -> Summed:
    """Of each of them along a new leading axis of the batch.

    Raises
    ------
    ValueError
        If there are none, or they are of other batches or other values.
    """
    if not states:
        msg = "there must be at least one summary to stack, got none"
        raise ValueError(msg)
    first = states[0]
    for state in states[1:]:
        _check_same(first, batch_shape=state.batch_shape, own=state.own, gamma=state.gamma)
    return replace(
        first,
        rows=[row for state in states for row in state.rows],
        batch_shape=(len(states), *first.batch_shape),
        eps=max(state.eps for state in states),
        held=min(state.held for state in states),
    )


# ------------------------------------------------------------------------------------------ what they tell


class _Passes:
    """Passes over a row under the names of the compiled ones, answered from its summary."""

    def __init__(self, row: RowSummary, held: int) -> None:
        self._row, self._extent = row, row.extent
        self.tail = read_only(row.top(held)[::-1][None].copy())  # ascending

    def extent_of(self, _: Floats) -> Any:
        return self._extent

    def survey_row(self, ws: Any, tail: Floats, length: Any) -> Any:
        room = ws.x, ws.index, ws.keys
        held = _kernels.survey_part(tail, 0, tail.size, -_LARGEST, length + 1, *room)[3:]
        return _kernels.survey_of(self._row.high, self._row.low, self._row.n_finite, *held)

    def power_sums(self, _: Floats, extent: Any, gamma: float, __: Any) -> tuple[float, float]:
        if gamma == 0.0:
            return float(extent.n_finite), float(extent.n_finite)
        return _kernels.bin_power_sums(*self._row.bins, extent.high, gamma)

    def body_sums(
        self, tail: Floats, high: float, gamma: float, top: float, below: float, _: Any
    ) -> tuple[float, float]:
        return _kernels.bin_body_sums(*self._row.bins, high, gamma, top, below, tail)

    def search_ess(
        self, _: Any, __: Floats, survey: Any, target: float, gamma_max: float
    ) -> tuple[float, float]:
        half_range = 0.5 * survey.high - 0.5 * survey.low
        return _kernels.bin_ess_search(
            *self._row.bins, survey.high, half_range, survey.n_finite, target, gamma_max
        )


def _over_rows(
    state: Summed, kernel: Callable[[_Passes], Any], by_row: tuple[Any, ...], shared: tuple[Any, ...]
) -> None:
    """As `parts.over_rows`: kernel makes one over rows of the passes that it is given."""
    with np.errstate(all="ignore"):
        for r, row in enumerate(state.rows):
            passes = _Passes(row, state.held)
            kernel(passes)(passes.tail, *(array[r : r + 1] for array in by_row), *shared)


def lengths_of(state: Summed, r_eff: Any, tail_length: Any) -> Ints:
    """The tail length of each row.

    Raises
    ------
    ValueError
        If one is longer than the tail that is held.
    """
    lengths = tails.lengths_of(state.layout, r_eff, tail_length)
    for row, length in zip(state.rows, lengths.tolist(), strict=True):
        if row.n_finite > state.held <= length:
            msg = (
                f"khat of {row.n} draws rests on the {length + 1} largest, and of them {state.held} are "
                "held: make summaries with a larger n_max, at least n / r_eff"
            )
            raise ValueError(msg)
    return lengths


def khat(state: Summed, lengths: Ints, gamma: Floats) -> tuple[Floats, Codes]:
    """As `tails.khat`."""
    found, status = state.layout.floats(), state.layout.codes()
    by_row = (state.n, lengths, gamma, found, status)
    _over_rows(state, lambda p: _kernels.measuring_tails(p.survey_row), by_row, (state.eps,))
    return found, status


def ess_and_share(state: Summed, gamma: Floats) -> tuple[Floats, Floats, Codes]:
    """As `weights.ess_and_share`."""
    by_kish, by_max, status = state.layout.floats(), state.layout.floats(), state.layout.codes()
    by_row = (gamma, by_kish, by_max, status)
    _over_rows(state, lambda p: _kernels.counting(p.extent_of, p.power_sums), by_row, ())
    return by_kish, by_max, status


def select(state: Summed, lengths: Ints, limits: Constraints, rule: StabilityRule) -> Records:
    """As `selection.select`."""
    found: Records = np.empty(len(state.rows), SELECTION)
    allowed = limits.allowed_khat(state.n)
    shared = (limits.ess_min, limits.gamma_max, state.eps)
    _over_rows(
        state,
        lambda p: _kernels.selecting(p.survey_row, p.search_ess, p.power_sums),
        (state.n, lengths, allowed, found),
        shared,
    )
    if rule == "refit":
        _over_rows(
            state,
            lambda p: _kernels.refitting(p.survey_row, p.power_sums),
            (lengths, allowed, found),
            (limits.gamma_max, state.eps),
        )
    return found


def estimates(state: Summed, lengths: Ints) -> tuple[Records, Records]:
    """As `moments.estimates`, of the values that were summed."""
    count = len(state.rows)
    tail = khat(state, lengths, filled(count, state.gamma))
    found = _moments_of(state)
    error = Error(found.std_error, found.skewness, found.error_draws, state.n)
    return moments.records_of(found, error, state.n, (np.zeros(count), filled(count, 1.0), *tail))


def _moments_of(state: Summed) -> moments.Moments:
    found = moments.no_moments(len(state.rows), prod(state.own or ()))
    for r, row in enumerate(state.rows):
        extent = row.extent
        _kernels.store_bin_sums(*row.bins, extent, state.gamma, found.summed[r])
        of_h = value_sums.moments_of(cast("ValueSums", row.values), state.gamma, extent)
        for numbers, of_row in zip(found, of_h, strict=False):
            numbers[r] = of_row
    return found


def diagnose(state: Summed, lengths: Ints, limits: Constraints, rule: StabilityRule) -> dict[str, Any]:
    """The fields of `Diagnosis`; there is no estimate at the chosen gamma."""
    chosen = select(state, lengths, limits, rule)
    by_kish, by_max, _ = ess_and_share(state, np.ones(len(state.rows)))
    estimate = None if state.own is None or state.gamma != 1.0 else estimates(state, lengths)
    return {
        "n": state.n,
        "ess": by_kish,
        "max_weight": 1 / by_max,
        "k_max": limits.allowed_khat(state.n),
        "ess_min": limits.ess_min,
        "selection": (chosen,),
        "estimate": estimate,
        "estimate_tempered": None,
        "status": chosen["status"] if estimate is None else estimate[0]["status"],
    }


class Smoothing:
    """A second pass over the draws of a summary, which replaces their tail."""

    def __init__(self, state: Summed, lengths: Ints, normalize: bool) -> None:
        self._state = state
        self._rows: list[_RowSmoothing] = []
        gamma, found = np.ones(1), cast("Records", np.empty(1, SMOOTHED))
        for r, row in enumerate(state.rows):
            passes = _Passes(row, state.held)
            smoothed = _RowSmoothing(passes.tail[0], -np.inf if row.extent.presence == NO_WEIGHT else np.nan)
            of_passes = passes.survey_row, passes.body_sums, smoothed.write_tempered
            kernel = _kernels.smoothing(_kernels.smoothing_row(*of_passes))
            out = np.empty_like(passes.tail)
            by_row = (state.n[r : r + 1], lengths[r : r + 1], gamma, out, found)
            with np.errstate(all="ignore"):
                kernel(passes.tail, *by_row, state.eps, normalize)
            if found["status"][0] in FITTED:
                smoothed.take(out[0], int(found["tail_length"][0]))
            self._rows.append(smoothed)

    def write(self, rows: Rows) -> Floats:
        """The smoothed log-weights of the next draws."""
        _check_same(self._state, batch_shape=rows.batch_shape)
        out = rows.target()
        for smoothed, row, target, n in zip(self._rows, rows.values, out, rows.n.tolist(), strict=True):
            smoothed.write(row, target, n)
        return out

    def check_whole(self) -> None:
        """Raise ValueError if these were not as many draws as the summary is of."""
        seen = [row.seen for row in self._rows]
        if seen != self._state.n.tolist():
            msg = f"parts hold {seen} draws, and the summary is of {self._state.n.tolist()}"
            raise ValueError(msg)


class _RowSmoothing:
    """What replaces the tail of a row, by the rank of a draw in it."""

    def __init__(self, held: Floats, without: float) -> None:
        self._held, self._without = held, without  # ascending; what is written where there is no way to write
        self._way: tuple[float, float, float] | None = None  # origin, gamma, log total
        self._tail = self._values = _NO_DRAWS
        self._stay, self._met = 0, np.zeros(0, np.int64)
        self.seen = 0

    def write_tempered(self, row: Floats, origin: float, gamma: float, log_total: float, out: Floats) -> None:
        self._way = origin, gamma, log_total
        _kernels.write_tempered(row, origin, gamma, log_total, out)

    def take(self, out: Floats, length: int) -> None:
        """What came of the draws that are held, so many of which are the tail."""
        below = self._held.size - length
        self._tail, self._values = self._held[below:], np.sort(out[below:])
        # Of draws that tie with the smallest of the tail the last belong to it, the first stay.
        self._stay = int(np.sum(self._held[:below] == self._tail[0]))
        self._met = np.zeros(length + 1, np.int64)

    def write(self, row: Floats, out: Floats, n: int) -> None:
        self.seen += n
        if self._way is None:
            out[:] = self._without
            return
        _kernels.write_tempered(row, *self._way, out)
        if self._tail.size == 0:
            return
        where = np.flatnonzero(row >= self._tail[0])
        draws = row[where]
        rank = np.searchsorted(self._tail, draws)
        order = np.argsort(rank, kind="stable")
        first = np.searchsorted(rank[order], rank[order])
        met = np.empty(rank.size, np.int64)
        met[order] = np.arange(rank.size) - first
        met += self._met[rank]
        np.add.at(self._met, rank, 1)
        place = rank + met - np.where(rank == 0, self._stay, 0)
        replaced = (place >= rank) & (place < np.searchsorted(self._tail, draws, side="right"))
        out[where[replaced]] = self._values[place[replaced]]


def quantiles(state: Summed, q: Floats) -> Floats:
    """Quantiles of the log-weights, (rows, q): exact in the tail, within a bin below it."""
    return np.array(
        [[_quantile(row, row.top(state.held), each) for each in q.tolist()] for row in state.rows]
    )


def _quantile(row: RowSummary, tail: Floats, q: float) -> float:
    extent = row.extent
    if extent.presence != OK:
        return -np.inf if extent.presence == NO_WEIGHT else np.nan
    rank = q * (row.n - 1)
    from_top = row.n - 1 - rank
    if from_top <= tail.size - 1:
        low = int(np.ceil(from_top))
        return float(tail[low] + (low - from_top) * (tail[low - 1] - tail[low]) if low else tail[0])
    rank -= row.n - row.n_finite
    if rank < 0.0:
        return -np.inf
    level, key, sums = row.bins
    ends = np.cumsum(sums[:, 0])
    b = min(int(np.searchsorted(ends, rank, side="right")), ends.size - 1)
    width = 2.0 ** float(level[b])
    place = (rank - ends[b] + sums[b, 0]) / sums[b, 0]
    return float(min(max(key[b] * width + place * width, extent.low), extent.high))


def said(state: Summed) -> str:
    """ESS and khat of a single row, in words."""
    one = np.ones(1)
    ess, _, _ = ess_and_share(state, one)
    try:
        found = f"{khat(state, lengths_of(state, 1.0, None), one)[0][0]:.6g}"
    except ValueError:  # too many draws for the tail that is held
        found = "unknown"
    return f"ess={ess[0]:.6g}, khat={found}"
