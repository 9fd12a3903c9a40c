"""Layouts of tokens: what NumPy, torch and JAX ask of shapes, once and in the same words.

Everything here goes by shapes and lengths, so that any kind of array passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np

from isdiag._core.boundary import real_array

Level = Literal["sequence", "token", "geometric"]
Shape = tuple[int, ...]


def sequences_of(tokens: Any) -> Any:
    """The sequences of a ragged batch, a list or torch's NestedTensor; None where `tokens` is one array."""
    if getattr(tokens, "is_nested", False):
        return list(tokens.unbind())
    if not isinstance(tokens, (list, tuple)):
        return None
    items = cast("Sequence[Any]", tokens)
    if any(getattr(item, "shape", ()) for item in items) or len({np.shape(item) for item in items}) > 1:
        return items
    return None  # lists of numbers, all of one length, are an array written out


def check_ragged(log_pi: Any, log_mu: Any, mask: Any, cu_seqlens: Any) -> None:
    """Raise ValueError unless lists of sequences, or None, hold as many of equal lengths."""
    if cu_seqlens is not None:
        msg = "cu_seqlens is for packed tokens, and log_pi is a list of sequences"
        raise ValueError(msg)
    first, second, third = (len(log_pi if part is None else part) for part in (log_pi, log_mu, mask))
    if not first == second == third:
        msg = f"log_pi, log_mu and mask hold {first}, {second} and {third} sequences"
        raise ValueError(msg)
    for i, tokens in enumerate(log_pi):
        if len(np.shape(tokens)) != 1:
            msg = f"each sequence of a ragged batch must be 1-D, got shape {tuple(np.shape(tokens))}"
            raise ValueError(msg)
        mu = None if log_mu is None else np.shape(log_mu[i])
        check_tokens(np.shape(tokens), mu, None if mask is None else np.shape(mask[i]))


def check_tokens(log_pi: Any, log_mu: Any, mask: Any) -> None:
    """Raise ValueError unless the shapes, or None, are equal."""
    if log_mu is not None and tuple(log_mu) != tuple(log_pi):
        msg = f"log_pi and log_mu must have the same shape, got {tuple(log_pi)} and {tuple(log_mu)}"
        raise ValueError(msg)
    if mask is not None and tuple(mask) != tuple(log_pi):
        msg = f"mask must have the shape of log_pi {tuple(log_pi)}, got {tuple(mask)}"
        raise ValueError(msg)


def check_padded(log_pi: Any) -> None:
    """Raise ValueError unless it is the shape of padded tokens, or of a number a sequence."""
    if len(log_pi) not in (1, 2):
        msg = f"log_pi must have shape (B,) or (B, T), or be a list of sequences; got {tuple(log_pi)}"
        raise ValueError(msg)


def check_cuts(cu_seqlens: Any, log_pi: Any) -> list[int]:
    """Where packed sequences start and the last one ends; ValueError if that does not cut `log_pi`."""
    cuts = real_array(cu_seqlens, "cu_seqlens")[0]
    fits = len(log_pi) == 1 and cuts.ndim == 1 and cuts.size > 1 and cuts.dtype.kind in "iu"
    if fits:
        starts = cuts.astype(np.int64)
        if starts[0] == 0 and starts[-1] == log_pi[0] and (np.diff(starts) >= 0).all():
            return starts.tolist()
    msg = (
        f"cu_seqlens must be ints that rise from 0 to the size of a 1-D log_pi, got {cu_seqlens!r} "
        f"for shape {tuple(log_pi)}"
    )
    raise ValueError(msg)


def refuse_geometric(level: str) -> None:
    """Raise ValueError at the level "geometric": for log-probabilities that are a number a sequence."""
    if level == "geometric":
        msg = 'level "geometric" needs tokens, and log_pi of shape (B,) is a number a sequence'
        raise ValueError(msg)


def advantage_shape(given: Any, tokens: Any, count: int) -> Shape:
    """The shape in which advantages broadcast against tokens from the left: (), (B,) or the tokens'.

    Raises
    ------
    ValueError
        If they have another shape than those and (B, 1).
    """
    given, tokens = tuple(given), tuple(tokens)
    if given in ((), (count,)):
        return given
    if given == (count, 1):
        return (count,)
    if given == tokens:
        return given
    fits = f"(), ({count},), ({count}, 1)" + (f" or {tokens}" if tokens != (count,) else "")
    msg = f"advantages must have shape {fits}, got {given}"
    raise ValueError(msg)


def varying(sequence: int, low: float, high: float, name: str = "advantages") -> ValueError:
    """The error where advantages of tokens are not those of sequences."""
    return ValueError(
        f"{name} of tokens must be the same at all tokens that count of a sequence, which is one draw; "
        f'sequence {sequence} has {low:g} to {high:g}. At level "token" each token may have its own'
    )


def one_a_sequence(values: Any, kept: Any, name: str) -> Any:
    """The one number that each row of an array (B, T) holds where it counts; ValueError if it is not one.

    NaN where one of them is, 0 where none counts.
    """
    low = np.min(values, axis=-1, where=kept, initial=np.inf)
    high = np.max(values, axis=-1, where=kept, initial=-np.inf)
    some = np.any(kept, axis=-1) & np.ones(low.shape, np.bool_)
    wrong = np.flatnonzero(some & (low < high))  # neither of which is NaN then
    if wrong.size:
        raise varying(int(wrong[0]), low[wrong[0]], high[wrong[0]], name)
    return np.where(some, low, 0.0)
