"""Summaries as bytes: magic, version, length, a header in JSON, arrays and a checksum; nothing to run."""

from __future__ import annotations

import json
import struct
from hashlib import blake2b
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from isdiag._core.summary import Bins, RowSummary, Summed
from isdiag._core.value_sums import ValueSums

MAGIC = b"isdiag\x00S"
VERSION = 1  # of the format and of what the numbers in it mean
_HEAD = struct.Struct("<8sIQ")  # magic, version, length of what follows
_CHECKSUM = 16

_ROW = np.dtype([(name, "<i8") for name in ("n", "n_finite", "high", "low", "tail", "bins")])
_LEVEL, _KEY, _FLOAT = np.dtype("<i2"), np.dtype("<i8"), np.dtype("<f8")


def packed(state: Summed) -> bytes:
    """The state as bytes."""
    header = {
        "batch_shape": state.batch_shape,
        "own": state.own,
        "eps": state.eps,
        "gamma": state.gamma,
        "held": state.held,
    }
    tails = [row.top(state.held) for row in state.rows]
    counts = np.zeros(len(state.rows), _ROW)
    for record, row, tail in zip(counts, state.rows, tails, strict=True):
        for name in ("n", "n_finite", "high", "low"):
            record[name] = getattr(row, name)
        record["tail"], record["bins"] = tail.size, row.bins.key.size
    arrays: list[NDArray[Any]] = [counts, *(tail.astype(_FLOAT) for tail in tails)]
    for row in state.rows:
        arrays += [row.bins.level.astype(_LEVEL), row.bins.key.astype(_KEY), row.bins.sums.astype(_FLOAT)]
        arrays += [] if row.values is None else [array.astype(_FLOAT) for array in row.values]
    said = json.dumps(header).encode()
    body = struct.pack("<I", len(said)) + said + b"".join(array.tobytes() for array in arrays)
    head = _HEAD.pack(MAGIC, VERSION, len(body))
    return head + body + blake2b(head + body, digest_size=_CHECKSUM).digest()


def unpacked(data: Any) -> Summed:
    """The state that `packed` wrote.

    Raises
    ------
    TypeError
        If `data` is not bytes.
    ValueError
        If they are no summary, cut short, damaged, or of another version; the message says which.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        msg = f"data must be bytes, got {type(data).__name__}"
        raise TypeError(msg)
    data = bytes(cast("bytes", data))
    if not data.startswith(MAGIC[: len(data)]) or not data:
        msg = f"data is no summary of isdiag: it begins with {data[: len(MAGIC)]!r}"
        raise ValueError(msg)
    if len(data) < _HEAD.size:
        _refuse_short(len(data), f"at least {_HEAD.size}")
    _, version, length = _HEAD.unpack_from(data)
    if version != VERSION:
        msg = f"data is a summary of version {version}, and this isdiag reads and merges version {VERSION}"
        raise ValueError(msg)
    size = _HEAD.size + length + _CHECKSUM
    if len(data) < size:
        _refuse_short(len(data), str(size))
    if len(data) > size:
        msg = f"data has {len(data) - size} bytes after the end of the summary"
        raise ValueError(msg)
    if blake2b(data[:-_CHECKSUM], digest_size=_CHECKSUM).digest() != data[-_CHECKSUM:]:
        msg = "data is damaged: its checksum is not that of its content"
        raise ValueError(msg)
    try:
        return _Reader(memoryview(data)[_HEAD.size : -_CHECKSUM]).state()
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, struct.error) as error:
        msg = f"data is no summary of isdiag: its header does not fit its content ({error})"
        raise ValueError(msg) from None


def _refuse_short(found: int, wanted: str) -> None:
    msg = f"data is cut short: {found} bytes of {wanted}"
    raise ValueError(msg)


class _Reader:
    """Takes arrays from a body whose checksum was right."""

    def __init__(self, body: memoryview) -> None:
        (length,) = struct.unpack_from("<I", body)
        self._header = json.loads(bytes(body[4 : 4 + length]))
        self._rest = body[4 + length :]

    def _take(self, dtype: Any, *shape: int) -> NDArray[Any]:
        size = prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > len(self._rest):
            msg = f"an array of shape {shape} in {len(self._rest)} bytes"
            raise ValueError(msg)
        array = np.frombuffer(self._rest[:size], dtype).reshape(shape)
        self._rest = self._rest[size:]
        return array

    def state(self) -> Summed:
        header = self._header
        batch_shape = tuple(header["batch_shape"])
        own = None if header["own"] is None else tuple(header["own"])
        counts = self._take(_ROW, prod(batch_shape))
        tails = [self._take(_FLOAT, int(size)).astype(np.float64) for size in counts["tail"]]
        rows = [self._row(*each, own) for each in zip(counts, tails, strict=True)]
        if self._rest:
            msg = f"{len(self._rest)} bytes are left"
            raise ValueError(msg)
        eps, gamma, held = float(header["eps"]), float(header["gamma"]), int(header["held"])
        return Summed(rows, batch_shape, own, eps, gamma, held)

    def _row(self, record: Any, tail: Any, own: tuple[int, ...] | None) -> RowSummary:
        n, n_finite, high, low, _, count = record.item()
        level = self._take(_LEVEL, count).astype(np.int64)
        key = self._take(_KEY, count).astype(np.int64)
        bins = Bins(level, key, self._take(_FLOAT, count, 8).astype(np.float64))
        values = None
        if own is not None:
            d = prod(own)
            sizes = {"weights": 4, "thirds": 3, "fourths": 4}
            arrays = (self._take(_FLOAT, sizes.get(name, d)).astype(np.float64) for name in ValueSums._fields)
            values = ValueSums(*arrays)
        return RowSummary(n, n_finite, high, low, tail, -np.inf, bins, values)
