"""Draws moved by affine maps until their weights are tame [Paananen2021]_."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isdiag._core import tails
from isdiag._core.boundary import real_array, rows_of, writer
from isdiag._core.typing import Floats

_Density = Callable[[Any], Any]
_Move = tuple[Floats, Floats, float]  # matrix and shift of x @ matrix + shift, and the log of its determinant


class Densities:
    """The caller's functions, asked in the caller's kind of array."""

    def __init__(self, draws: Any, log_target: _Density, log_proposal: _Density) -> None:
        array, dtype = real_array(draws, "draws")
        if array.ndim != 2 or 0 in array.shape:
            msg = f"draws must have shape (n, d), got {array.shape}"
            raise ValueError(msg)
        if not np.isfinite(array).all():
            msg = f"draws must be finite, got {array[~np.isfinite(array)].flat[0]}"
            raise ValueError(msg)
        for name, function in (("log_target", log_target), ("log_proposal", log_proposal)):
            if not callable(function):
                msg = f"{name} must be a function of draws, got {function!r}"
                raise TypeError(msg)
        self.draws = np.array(array, np.float64)
        self._dtype = dtype if "float" in dtype else "float64"
        self._write = writer(draws)
        self._functions = {"log_target": log_target, "log_proposal": log_proposal}

    def back(self, a: Floats) -> Any:
        """An array as the caller's draws are."""
        return self._write(np.ascontiguousarray(a), self._dtype)

    def target(self, x: Floats) -> Floats:
        return self._of("log_target", x)

    def proposal(self, x: Floats) -> Floats:
        return self._of("log_proposal", x)

    def _of(self, name: str, x: Floats) -> Floats:
        found, _ = real_array(self._functions[name](self.back(x)), name)
        if found.shape != x.shape[:1]:
            msg = f"{name} must return shape {x.shape[:1]} for draws of shape {x.shape}, got {found.shape}"
            raise ValueError(msg)
        return found.astype(np.float64)


class Weighed(NamedTuple):
    """Log-weights, khat and status, and the smoothed weights."""

    log_weights: Floats
    khat: float
    status: int
    share: Floats


@dataclass(frozen=True)
class Affine:
    """The map ``x -> x @ matrix + shift``, and the log of its determinant."""

    matrix: Floats
    shift: Floats
    log_det: float

    def then(self, matrix: Floats, shift: Floats, log_det: float) -> Affine:
        moved: Floats = self.shift @ matrix + shift
        return Affine(self.matrix @ matrix, moved, self.log_det + log_det)

    def undone(self, x: Floats) -> Floats:
        return _solve(self.matrix.T, (x - self.shift).T).T


def _solve(matrix: Floats, x: Floats) -> Floats:
    return np.linalg.solve(matrix, x).astype(np.float64, copy=False)


def _root(covariance: Floats) -> Floats:
    """Its Cholesky factor; LinAlgError where it has not full rank."""
    return np.linalg.cholesky(covariance).astype(np.float64, copy=False)


def weigh(log_weights: Floats, r_eff: float, tail_length: int | None) -> Weighed:
    rows = rows_of(log_weights, -1, None)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    smoothed = rows.target()
    found = tails.smooth(rows, lengths, rows.same(1.0), True, 1, smoothed)
    return Weighed(log_weights, float(found["khat"][0]), int(found["status"][0]), np.exp(smoothed[0]))


def _shift(x: Floats, share: Floats) -> _Move:
    return np.eye(x.shape[1]), share @ x - x.mean(axis=0), 0.0


def _scale(x: Floats, share: Floats) -> _Move:
    mean, wanted = x.mean(axis=0), share @ x
    ratio = np.sqrt(share @ (x - wanted) ** 2 / ((x - mean) ** 2).mean(axis=0))
    return np.diag(ratio), wanted - mean * ratio, float(np.log(ratio).sum())


def _covary(x: Floats, share: Floats) -> _Move:
    mean, wanted = x.mean(axis=0), share @ x
    about, about_wanted = x - mean, x - wanted
    has = _root(about.T @ about / len(x))
    to_have = _root((about_wanted * share[:, None]).T @ about_wanted)
    matrix = _solve(has.T, to_have.T)  # rows are draws: x has^-T to_have^T
    return matrix, wanted - mean @ matrix, float(np.log(np.diag(to_have) / np.diag(has)).sum())


def match(
    given: Densities,
    *,
    k_max: float,
    max_steps: int,
    split: bool,
    r_eff: float,
    tail_length: int | None,
) -> dict[str, Any]:
    """The fields of `MomentMatched`."""
    log_proposal = given.proposal(given.draws)
    here = given.draws
    first = best = weigh(_difference(given.target(here), log_proposal), r_eff, tail_length)
    moved = Affine(np.eye(here.shape[1]), np.zeros_like(here[0]), 0.0)
    moves = (_shift, _scale, _covary)
    steps = tried = 0
    # After a move that helps all are tried again, the simplest first.
    while tried < len(moves) and steps < max_steps and best.khat > k_max:
        step = _step(moves[tried], here, best.share)
        tried += 1
        if step is None:
            continue
        matrix, shift, log_det = step
        there = here @ matrix + shift
        after = moved.then(matrix, shift, log_det)
        log_w = _difference(given.target(there), log_proposal - after.log_det)
        found = weigh(log_w, r_eff, tail_length)
        if found.khat < best.khat:
            here, moved, best = there, after, found
            steps, tried = steps + 1, 0
    if split and steps > 0:
        here, log_w = _both(
            given, here, moved, log_proposal, first.log_weights + log_proposal, best.log_weights
        )
        best = weigh(log_w, r_eff, tail_length)
    return {
        "draws": given.back(here),
        "log_weights": best.log_weights,
        "khat": np.array([best.khat]),
        "khat_before": np.array([first.khat]),
        "status": np.array([best.status], np.int8),
    }


def _difference(log_target: Floats, log_proposal: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):  # infinities: the status tells
        return log_target - log_proposal


def _step(move: Any, x: Floats, share: Floats) -> _Move | None:
    """A move, or None where the moments do not make one: NaN, or a covariance of less than full rank."""
    try:
        with np.errstate(all="ignore"):
            matrix, shift, log_det = move(x, share)
    except np.linalg.LinAlgError:
        return None
    known = np.isfinite(matrix).all() and np.isfinite(shift).all() and np.isfinite(log_det)
    return (matrix, shift, log_det) if known else None


def _both(
    given: Densities, there: Floats, moved: Affine, log_proposal: Floats, log_target: Floats, log_w: Floats
) -> tuple[Floats, Floats]:
    """Half of the draws moved and half as they were, weighed as draws of the mixture of both."""
    n = len(there)
    half = n // 2
    draws = np.concatenate([there[:half], given.draws[half:]])
    as_it_was = np.concatenate([given.proposal(there[:half]), log_proposal[half:]])
    before = given.proposal(moved.undone(given.draws[half:]))
    as_moved = np.concatenate([log_proposal[:half], before]) - moved.log_det
    density = np.logaddexp(as_moved + np.log(half / n), as_it_was + np.log1p(-half / n))
    target = np.concatenate([log_w[:half] + log_proposal[:half] - moved.log_det, log_target[half:]])
    return draws, _difference(target, density)
