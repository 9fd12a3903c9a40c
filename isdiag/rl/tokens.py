"""Tokens of a batch in a row, whatever layout they came in: what presets go by."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from isdiag._core.boundary import mask_array, real_array
from isdiag._core.typing import Floats, Ints, Mask, Values
from isdiag.rl.layouts import (
    Level,
    advantage_shape,
    check_cuts,
    check_padded,
    check_ragged,
    check_tokens,
    sequences_of,
)
from isdiag.rl.ratios import difference_of

Over = Literal["token", "sum", "mean", "max"]


class Tokens(NamedTuple):
    """Tokens that count, one after the other: log-probabilities, their difference, advantages.

    `log_near` is of the proximal policy, None if there is none. `lengths` are those of the sequences that the
    tokens make up; one without a token is none.
    """

    log_pi: Values
    log_mu: Values
    log_near: Values | None
    log_w: Floats
    advantage: Floats
    lengths: Ints

    @classmethod
    def of(
        cls, log_pi: Values, log_mu: Values, log_near: Values | None, advantage: Floats, row: Any
    ) -> Tokens:
        """Of a number at each token that changes where another sequence begins."""
        changes = np.flatnonzero(row[1:] != row[:-1]) + 1
        ends = np.append(changes, row.size) if row.size else changes
        return cls.cut(log_pi, log_mu, log_near, advantage, np.diff(ends, prepend=0))

    @classmethod
    def cut(
        cls, log_pi: Values, log_mu: Values, log_near: Values | None, advantage: Floats, lengths: Ints
    ) -> Tokens:
        """Of the lengths of sequences, which may be 0."""
        log_w = difference_of(log_pi, log_mu)
        return cls(log_pi, log_mu, log_near, log_w, advantage, lengths[lengths > 0])

    def only(self, which: Mask) -> Tokens:
        """Those of these tokens; lengths are what is left."""
        lengths = np.add.reduceat(which, self.starts, dtype=np.int64) if which.size else self.lengths
        near = None if self.log_near is None else self.log_near[which]
        of_tokens = self.log_pi[which], self.log_mu[which], near, self.log_w[which], self.advantage[which]
        return Tokens(*of_tokens, lengths[lengths > 0])

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self.log_w.size

    @property
    def starts(self) -> Ints:
        """Where each sequence begins."""
        return np.cumsum(self.lengths) - self.lengths

    def over(self, how: Over, values: Floats) -> Floats:
        """Sums, means or maxima over the tokens of each sequence."""
        if not values.size:
            return values
        if how == "max":
            return np.maximum.reduceat(values, self.starts)
        total = np.add.reduceat(values, self.starts)
        return total / self.lengths if how == "mean" else total

    def at(self, level: Level, log_ratio: Floats) -> Floats:
        """Log-ratios of the draws of a level."""
        if level == "token":
            return log_ratio
        return self.over("sum" if level == "sequence" else "mean", log_ratio)

    def spread(self, level: Level, values: Any) -> Any:
        """Numbers of the draws of a level, at each token."""
        return values if level == "token" else np.repeat(values, self.lengths)


class Laid(NamedTuple):
    """Tokens of a caller's layout, and the way back to it."""

    tokens: Tokens
    kept: Mask
    cuts: Ints | None

    @classmethod
    def out(
        cls, log_pi: Any, log_mu: Any, advantages: Any, mask: Any, cu_seqlens: Any, log_proximal: Any
    ) -> Laid:
        given = [log_pi, log_mu, log_proximal, mask]
        ragged = sequences_of(log_pi)
        cuts = None
        if ragged is not None:
            given = [each if sequences_of(each) is None else sequences_of(each) for each in given]
            check_ragged(given[0], given[1], given[3], cu_seqlens)
            check_ragged(given[0], given[2], None, None)
            cuts = np.cumsum([0, *(np.shape(each)[0] for each in given[0])])
            given = [None if each is None else np.concatenate([*map(np.asarray, each)]) for each in given]
        pi, mu = _floats(given[0], "log_pi"), _floats(given[1], "log_mu")
        near = None if given[2] is None else _floats(given[2], "log_proximal")
        kept = np.ones(pi.shape, np.bool_) if given[3] is None else mask_array(given[3], "mask")
        check_tokens(pi.shape, mu.shape, kept.shape)
        if near is not None:
            check_tokens(pi.shape, near.shape, None)
        row, count = rows_of_tokens(pi.shape, cu_seqlens if cuts is None else cuts)
        signs = _floats(advantages, "advantages")
        signs = signs.reshape(advantage_shape(signs.shape, pi.shape, count))
        if signs.shape != pi.shape:
            signs = np.broadcast_to(signs, (count,))[row]
        tokens = Tokens.of(pi[kept], mu[kept], None if near is None else near[kept], signs[kept], row[kept])
        return cls(tokens, kept, cuts)

    def back(self, values: Floats) -> Any:
        whole = np.zeros(self.kept.shape)
        whole[self.kept] = values
        return whole if self.cuts is None else np.split(whole, self.cuts[1:-1])


def _floats(values: Any, name: str) -> Floats:
    return real_array(values, name)[0].astype(np.float64)


def rows_of_tokens(shape: tuple[int, ...], cuts: Any) -> tuple[Ints, int]:
    """The sequence of each token, in their shape, and how many sequences there are."""
    if cuts is not None:
        starts = check_cuts(cuts, shape)
        return np.repeat(np.arange(len(starts) - 1), np.diff(starts)), len(starts) - 1
    check_padded(shape)
    rows = np.arange(shape[0])
    return (rows if len(shape) == 1 else np.broadcast_to(rows[:, None], shape)), shape[0]
