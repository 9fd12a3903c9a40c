"""Scratch memory, allocated once a call and not once for each row."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import WORD
from isdiag._kernels.sums import BLOCK, EVERY, GRID_LANES, LANES, MOMENTS, NO_DRAWS, padded, segments_of
from isdiag._kernels.survey import room_for


class Workspace(NamedTuple):
    x: np.ndarray  # candidates for the tail, then the tail relative to the maximum
    index: np.ndarray  # where in the row they stand
    keys: np.ndarray  # a sample, or the candidates, as integers (`order_key`)
    marks: np.ndarray  # see `Tail`
    mark_excess: np.ndarray
    x_spare: np.ndarray
    index_spare: np.ndarray
    bucket: np.ndarray  # for `sort_tail`
    ends: np.ndarray
    excess: np.ndarray
    theta: np.ndarray  # the grid of the fit
    k: np.ndarray
    log_lik: np.ndarray
    lanes: np.ndarray  # a theta, and the log of its product
    e: np.ndarray  # the weights of a block
    u: np.ndarray  # and their logarithms
    sums: np.ndarray  # those of each segment
    totals: np.ndarray  # the `Moments` of the row


@inner
def grid_size(m):
    return 30 + int(math.sqrt(m))


@entry
def new_workspace(size, lengths):
    tail = NO_DRAWS
    for length in lengths:
        tail = max(tail, min(size, length))
    grid = padded(grid_size(tail), GRID_LANES)
    room = room_for(size, tail + 1)
    return Workspace(
        np.empty(padded(room, WORD)),
        np.empty(room, np.int64),
        np.empty(padded(room, LANES), np.int64),
        np.empty(3),
        np.empty(3),
        np.empty(tail),
        np.empty(tail, np.int64),
        np.empty(tail, np.int64),
        np.empty(tail + 2, np.int64),
        np.empty(padded(tail, LANES)),
        np.empty(grid),
        np.empty(grid),
        np.empty(grid),
        np.empty((3, GRID_LANES)),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty((segments_of(size, EVERY), MOMENTS)),
        np.empty(MOMENTS),
    )
