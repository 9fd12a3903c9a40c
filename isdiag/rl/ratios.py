"""Log-ratios of two policies over tokens, whatever the layout they come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np

from isdiag._core.boundary import mask_array, real_array
from isdiag._core.check import one_of
from isdiag._core.typing import Floats, Ints

Level = Literal["sequence", "token", "geometric"]


def refuse_geometric(level: str) -> None:
    """Raise ValueError at the level "geometric": for log-probabilities that are a number a sequence."""
    if level == "geometric":
        msg = 'level "geometric" needs tokens, and log_pi of shape (B,) is a number a sequence'
        raise ValueError(msg)


def log_ratio(
    log_pi: Any, log_mu: Any, mask: Any = None, *, cu_seqlens: Any = None, level: Level = "sequence"
) -> Any:
    """Log of the ratio w = pi / mu, of whole sequences or of their tokens.

    Parameters
    ----------
    log_pi, log_mu : array_like or sequences of 1-D array_like
        Log-probabilities of the tokens under the policy that learns and under the one that sampled, in
        nats. In one of four layouts: padded, of shape (B, T), beside a mask; ragged, a list of B arrays of
        a length each; packed, of shape (sum of lengths,), beside `cu_seqlens`; or, of shape (B,), already
        summed up, a number a sequence.
    mask : array_like of bool or of 0 and 1, optional
        Tokens that count, in the layout of `log_pi`. What the others hold has no effect.
    cu_seqlens : array_like of int, shape (B + 1,), optional
        Where each sequence starts in the packed layout, and where the last one ends.
    level : {"sequence", "token", "geometric"}, default "sequence"
        "sequence" is the product of a sequence's token ratios, the weight of importance sampling;
        "geometric" is their geometric mean, which is ``w**gamma`` with gamma one over the length (GSPO);
        "token" is each by itself.

    Returns
    -------
    ndarray or list of ndarray
        Of float64. Shape (B,) for "sequence" and "geometric". For "token" the layout of `log_pi`, -inf where
        the mask leaves a token out.

    Raises
    ------
    ValueError
        If shapes do not match, `level` is unknown or `cu_seqlens` does not cut `log_pi` into sequences.
    TypeError
        If the arrays are not real or not in CPU memory.

    Notes
    -----
    * Half and single precision are widened to float64 before anything is subtracted or added up.
    * The three layouts give the same bits.
    * A sequence without tokens has ratio 1, the empty product.
    * Draws at level "token" are the tokens of the mask: pass it on, ``take_step(..., where=mask)``, as some
      reshapes give weight to a ratio of 0.
    * NaN, or -inf under both policies, gives NaN; -inf under `log_mu` alone, a token that could not have
      been sampled, +inf. Both are errors of the data, which `GammaController` counts and leaves out.
    * "sequence" of TRL's ``importance_sampling_level``, of ms-swift and of AReaL is "geometric" here.

    References
    ----------
    Zheng, C. et al. (2025). Group sequence policy optimization. arXiv:2507.18071.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl import log_ratio
    >>> log_pi, log_mu = [[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]], [[-1.5, -1.0, 9.0], [-1.0, -2.0, -4.0]]
    >>> mask = [[1, 1, 0], [1, 1, 1]]
    >>> log_ratio(log_pi, log_mu, mask)
    array([-0.5,  4. ])
    >>> log_ratio(log_pi, log_mu, mask, level="geometric").round(3)
    array([-0.25 ,  1.333])
    >>> log_ratio([[-1.0, -2.0], [-1.0, -1.0, -1.0]], [[-1.5, -1.0], [-1.0, -2.0, -4.0]])
    array([-0.5,  4. ])
    """
    one_of("level", level, Level)
    with np.errstate(invalid="ignore", over="ignore"):  # -inf under both, or anything under the mask
        return _log_ratio(log_pi, log_mu, mask, cu_seqlens, level)


def _log_ratio(log_pi: Any, log_mu: Any, mask: Any, cu_seqlens: Any, level: Level) -> Any:
    if _is_ragged(log_pi):
        if cu_seqlens is not None:
            msg = "cu_seqlens is for packed tokens, and log_pi is a list of sequences"
            raise ValueError(msg)
        return _of_ragged(log_pi, log_mu, mask, level)
    difference, kept = _difference(log_pi, log_mu, mask)
    starts = None
    if cu_seqlens is not None:
        starts = _starts(cu_seqlens, difference)
    elif difference.ndim == 2:
        count, width = difference.shape
        starts = width * np.arange(count + 1, dtype=np.int64)
    elif difference.ndim == 1:
        refuse_geometric(level)
    else:
        msg = f"log_pi must have shape (B,) or (B, T), or be a list of arrays; got {difference.shape}"
        raise ValueError(msg)
    if starts is None or level == "token":
        return np.where(kept, difference, -np.inf)
    return _over(difference.ravel(), kept.ravel(), starts, level)


def _is_ragged(log_pi: Any) -> bool:
    if not isinstance(log_pi, (list, tuple)):
        return False
    items = cast("Sequence[Any]", log_pi)
    # Lists of numbers, all of one length, are an array written out.
    return any(getattr(item, "shape", ()) for item in items) or len({np.shape(item) for item in items}) > 1


def _of_ragged(log_pi: Any, log_mu: Any, mask: Any, level: Level) -> Any:
    masks: Any = [None] * len(log_pi) if mask is None else mask
    if not len(log_pi) == len(log_mu) == len(masks):
        msg = f"log_pi, log_mu and mask hold {len(log_pi)}, {len(log_mu)} and {len(masks)} sequences"
        raise ValueError(msg)
    parts = [_difference(*tokens) for tokens in zip(log_pi, log_mu, masks, strict=True)]
    if any(difference.ndim != 1 for difference, _ in parts):
        msg = "each sequence of a ragged batch must be 1-D"
        raise ValueError(msg)
    if level == "token":
        return [np.where(kept, difference, -np.inf) for difference, kept in parts]
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([difference.size for difference, _ in parts], out=starts[1:])
    difference = np.concatenate([difference for difference, _ in parts])
    return _over(difference, np.concatenate([kept for _, kept in parts]), starts, level)


def _difference(log_pi: Any, log_mu: Any, mask: Any) -> tuple[Floats, Any]:
    """log pi - log mu in float64, and which of it counts."""
    pi = real_array(log_pi, "log_pi")[0].astype(np.float64)
    mu = real_array(log_mu, "log_mu")[0].astype(np.float64)
    if pi.shape != mu.shape:
        msg = f"log_pi and log_mu must have the same shape, got {pi.shape} and {mu.shape}"
        raise ValueError(msg)
    kept = np.ones(pi.shape, np.bool_) if mask is None else mask_array(mask, "mask")
    if kept.shape != pi.shape:
        msg = f"mask must have the shape of log_pi {pi.shape}, got {kept.shape}"
        raise ValueError(msg)
    return pi - mu, kept


def _starts(cu_seqlens: Any, difference: Floats) -> Ints:
    starts = np.asarray(cu_seqlens)
    cuts = starts.ndim == 1 and starts.size > 1 and starts.dtype.kind in "iu" and difference.ndim == 1
    if not cuts or starts[0] != 0 or starts[-1] != difference.size or (np.diff(starts.astype(int)) < 0).any():
        msg = (
            f"cu_seqlens must be ints that rise from 0 to the size of a 1-D log_pi, got {cu_seqlens!r} "
            f"for shape {difference.shape}"
        )
        raise ValueError(msg)
    return starts.astype(np.int64)


def _over(difference: Floats, kept: Any, starts: Ints, level: Level) -> Floats:
    """Sums, or means, over the tokens between the starts.

    Only tokens that count are in the sums, so that padding does not change their order of addition.
    """
    counted = np.concatenate([[0], np.cumsum(kept)])[starts]
    lengths = np.diff(counted)
    tokens = np.append(difference[kept], 0.0)  # reduceat wants every start to be inside
    total = np.where(lengths > 0, np.add.reduceat(tokens, counted[:-1]), 0.0)
    return total / np.maximum(lengths, 1) if level == "geometric" else total
