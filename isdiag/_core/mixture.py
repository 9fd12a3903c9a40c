"""Weights of draws from several proposals."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core import weights
from isdiag._core.boundary import Rows, numbers
from isdiag._core.typing import Codes, Floats
from isdiag._kernels.records import NOT_FINITE


def log_weights(rows: Rows, log_proposals: Any, counts: Any) -> tuple[Floats, Codes]:
    """Log of the target, which rows hold, over the mixture of the proposals that counts make."""
    share = numbers("counts", counts, 0.0)
    if share.ndim != 1 or not share.sum() > 0.0:
        msg = f"counts must be a vector of numbers >= 0 that are not all 0, got {counts!r}"
        raise ValueError(msg)
    try:
        held: Any = len(log_proposals)
    except TypeError:  # numbers have no length, and arrays of no axes one that they do not tell
        held = repr(log_proposals)
    if held != share.size:
        msg = f"log_proposals must hold {share.size} arrays, as many as counts; got {held}"
        raise ValueError(msg)
    used = np.flatnonzero(share)
    densities = [rows.beside(log_proposals[k], f"log_proposals[{k}]", "log_target")[0] for k in used.tolist()]
    with np.errstate(all="ignore"):  # -inf: a density of zero
        log_shares = np.log(share[used] / share.sum())
        top = np.full_like(rows.values, -np.inf)
        for density, log_share in zip(densities, log_shares, strict=True):
            np.maximum(top, density + log_share, out=top)
        origin = np.where(top == -np.inf, 0.0, top)
        total = np.zeros_like(top)
        for density, log_share in zip(densities, log_shares, strict=True):
            total += np.exp(density + (log_share - origin))
        found = rows.values - (origin + np.log(total))
    found[rows.values == -np.inf] = -np.inf  # also where no proposal draws
    found[np.isnan(total) | np.isnan(rows.values)] = np.nan
    status = weights.presence(rows.holding(found))
    found[status == NOT_FINITE] = np.nan
    return found, status
