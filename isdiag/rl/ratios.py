"""Log-ratios of two policies over tokens, whatever the layout they come in."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core.boundary import mask_array, real_array
from isdiag._core.check import one_of
from isdiag._core.typing import Floats, Ints, Mask, Values
from isdiag.rl.layouts import (
    Level,
    check_cuts,
    check_padded,
    check_ragged,
    check_tokens,
    refuse_geometric,
    sequences_of,
)


def log_ratio(
    log_pi: Any, log_mu: Any, mask: Any = None, *, cu_seqlens: Any = None, level: Level = "sequence"
) -> Any:
    """Log of the ratio w = pi / mu, of whole sequences or of their tokens.

    Parameters
    ----------
    log_pi, log_mu : array_like or sequences of 1-D array_like
        Log-probabilities of the tokens under the policy that learns and under the one that sampled, in
        nats. In one of four layouts: padded, of shape (B, T), beside a mask; ragged, a list of B arrays of
        a length each, or a NestedTensor of torch; packed, of shape (sum of lengths,), beside `cu_seqlens`;
        or, of shape (B,), already summed up, a number a sequence.
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
        Of float64. Shape (B,) for "sequence" and "geometric", NaN for a sequence without a token: it is no
        draw, and nothing counts it. For "token" the layout of `log_pi`, -inf where the mask leaves a token
        out.

    Raises
    ------
    ValueError
        If shapes do not match, `level` is unknown, `cu_seqlens` does not cut `log_pi` into sequences, or the
        mask holds other numbers than 0 and 1 (an additive one does).
    TypeError
        If the arrays are not real or not in CPU memory.

    Notes
    -----
    * Half and single precision are widened to float64 before anything is subtracted or added up.
    * The three layouts give the same bits.
    * Pass the mask on, ``take_step(..., where=mask)``: at level "token" its tokens are the draws, and at the
      others a sequence without a token is then no error either.
    * NaN, +inf under `log_mu`, or -inf under both policies, gives NaN; -inf under `log_mu` alone, a token
      that could not have been sampled, +inf. Both are errors of the data, which `GammaController` counts
      and leaves out.
    * "sequence" of TRL's ``importance_sampling_level``, of ms-swift and of AReaL is "geometric" here.

    References
    ----------
    [Zheng2025]_.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl import log_ratio
    >>> log_pi, log_mu = (
    ...     [[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]],
    ...     [[-1.5, -1.0, 9.0], [-1.0, -2.0, -4.0]],
    ... )
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
    sequences = sequences_of(log_pi)
    if sequences is not None:
        return _of_ragged(sequences, log_mu, mask, cu_seqlens, level)
    difference, kept = _difference(log_pi, log_mu, mask)
    starts = None
    if cu_seqlens is not None:
        starts = np.array(check_cuts(cu_seqlens, difference.shape))
    else:
        check_padded(difference.shape)
        if difference.ndim == 2:
            count, width = difference.shape
            starts = width * np.arange(count + 1, dtype=np.int64)
        else:
            refuse_geometric(level)
    if level == "token":
        return np.where(kept, difference, -np.inf)
    if starts is None:
        return np.where(kept, difference, np.nan)
    return _over(difference.ravel(), kept.ravel(), starts, level)


def _of_ragged(log_pi: Any, log_mu: Any, mask: Any, cu_seqlens: Any, level: Level) -> Any:
    others = [given if sequences_of(given) is None else sequences_of(given) for given in (log_mu, mask)]
    check_ragged(log_pi, others[0], others[1], cu_seqlens)
    masks = [None] * len(log_pi) if mask is None else others[1]
    parts = [_difference(*tokens) for tokens in zip(log_pi, others[0], masks, strict=True)]
    if level == "token":
        return [np.where(kept, difference, -np.inf) for difference, kept in parts]
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([difference.size for difference, _ in parts], out=starts[1:])
    difference = np.concatenate([difference for difference, _ in parts])
    return _over(difference, np.concatenate([kept for _, kept in parts]), starts, level)


def _difference(log_pi: Any, log_mu: Any, mask: Any) -> tuple[Floats, Mask]:
    """log pi - log mu in float64, and which of it counts."""
    pi = real_array(log_pi, "log_pi")[0].astype(np.float64)
    mu = real_array(log_mu, "log_mu")[0].astype(np.float64)
    kept = np.ones(pi.shape, np.bool_) if mask is None else mask_array(mask, "mask")
    check_tokens(pi.shape, mu.shape, kept.shape)
    return difference_of(pi, mu), kept


def difference_of(log_pi: Values, log_mu: Values) -> Floats:
    """log pi - log mu of tokens in float64.

    NaN at +inf under mu, which is no log-probability: -inf would pass for a draw of no weight.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # -inf under both
        difference = np.subtract(log_pi, log_mu, dtype=np.float64)
    if not log_mu.max(initial=-np.inf) < np.inf:  # NaN is not
        difference[log_mu == np.inf] = np.nan
    return difference


def _over(difference: Floats, kept: Mask, starts: Ints, level: Level) -> Floats:
    """Sums, or means, over the tokens between the starts; NaN where none counts.

    Only tokens that count are in the sums, so that padding does not change their order of addition.
    """
    counted = np.concatenate([[0], np.cumsum(kept)])[starts]
    lengths = np.diff(counted)
    tokens = np.append(difference[kept], 0.0)  # reduceat wants every start to be inside
    total = np.where(lengths > 0, np.add.reduceat(tokens, counted[:-1]), np.nan)
    return total / np.maximum(lengths, 1) if level == "geometric" else total
