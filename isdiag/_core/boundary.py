"""The one boundary between callers' arrays and the kernels' rows.

On the way in: check, move the sample axis to the end, convert to float64 rows. On the way out: back to
the caller's layout, array kind and (for weights) dtype. Nothing here knows any mathematics.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, prod
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.typing import NDArray

from isdiag._core.check import Ends, inside, interval, one_of
from isdiag._core.labels import GAMMAS, Labels, OwnAxes, labels_of
from isdiag._core.typing import Axis, Codes, Dependence, Floats, Ints, Mask, Records, Values
from isdiag.status import Status

_DLPACK_CPU = 1
STATUSES = tuple(Status)  # by code; to ask the enumeration takes a quarter of a microsecond
_AXES = [tuple(range(ndim)) for ndim in range(65)]  # NumPy's arrays have at most 64 axes

# NumPy does not know bfloat16; integers are exact, so float64 sets their rounding.
EPS_FLOAT64 = 2.0**-52
_EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": EPS_FLOAT64}

# NumPy has one object for it; asking a dtype for its name costs more than a kernel on a short row.
_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
INT64, INT8 = np.dtype(np.int64), np.dtype(np.int8)


def _is_torch(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _check_on_cpu(x: Any, name: str) -> None:
    device = getattr(x, "device", None)
    if device is None or not hasattr(x, "__dlpack_device__") or str(device) == "cpu":
        return
    if str(device) != "meta" and x.__dlpack_device__()[0] == _DLPACK_CPU:
        return
    cure = f"{name}.cpu()" if _is_torch(x) else f"a copy of {name} in CPU memory"
    msg = f"{name} is on device {str(device)!r} and isdiag computes on the CPU: pass {cure}"
    raise TypeError(msg)


def _to_numpy(x: Any, name: str) -> tuple[NDArray[Any], str]:
    """The array in CPU memory, and the name of its dtype before any widening to one NumPy has."""
    if type(x) is np.ndarray:
        dtype = x.dtype.name  # bfloat16 is that of ml_dtypes
        return (x.astype(np.float32) if dtype == "bfloat16" else x), dtype
    if isinstance(x, np.ma.MaskedArray):
        msg = f"{name} is a masked array: pass {name}.data and where=~{name}.mask"
        raise TypeError(msg)
    if _is_torch(x):
        _check_on_cpu(x, name)
        x = x.detach().resolve_conj().resolve_neg()
        dtype = str(x.dtype).removeprefix("torch.")
        return (x.float() if dtype == "bfloat16" else x).numpy(), dtype
    if hasattr(x, "__array_namespace__"):
        _check_on_cpu(x, name)
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:  # ragged lists, say
        if type(error) not in (TypeError, ValueError):  # a library's own
            raise
        msg = f"{name} must be an array of real numbers: {error}"
        raise type(error)(msg) from None
    dtype = array.dtype.name
    return (array.astype(np.float32) if dtype == "bfloat16" else array), dtype


def real_array(x: Any, name: str) -> tuple[NDArray[Any], str]:
    """`x` as a NumPy array of a real numeric dtype, and its dtype's name.

    Raises
    ------
    TypeError
        If the dtype is not integer or real floating, or the array is not in CPU memory.
    """
    if type(x) is np.ndarray and x.dtype is _FLOAT64:
        return x, "float64"
    array, dtype = _to_numpy(x, name)
    if array.dtype.kind not in "fiu":
        msg = f"{name} must hold real numbers, got dtype {dtype}"
        raise TypeError(msg)
    return array, dtype


def mask_array(x: Any, name: str) -> Mask:
    """`x` as a boolean NumPy array; 0 and 1 of any dtype pass for False and True.

    Raises
    ------
    TypeError
        If it is neither boolean nor a number, or not in CPU memory.
    ValueError
        If it holds numbers other than 0 and 1.
    """
    array, _ = _to_numpy(x, name)
    if array.dtype == np.bool_:
        return array
    array, _ = real_array(array, name)
    if not np.isin(array, (0, 1)).all():
        msg = f"{name} must be boolean or hold 0 and 1, got values from {array.min():g} to {array.max():g}"
        raise ValueError(msg)
    return array.astype(np.bool_)


def numbers(name: str, x: Any, low: float, high: float = inf, ends: Ends = "[)") -> Floats:
    """`x` as float64, each in the interval.

    Raises
    ------
    TypeError
        If they are not real numbers in CPU memory.
    ValueError
        If one lies outside; the message names the first.
    """
    array = real_array(x, name)[0].astype(np.float64)
    return _checked(name, array, ~inside(array, low, high, ends), interval(low, high, ends))


def together(**arrays: Floats) -> list[Floats]:
    """Arguments broadcast to one shape; ValueError, which names them, if they have none in common."""
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = " and ".join(str(array.shape) for array in arrays.values())
        msg = f"{' and '.join(arrays)} must have shapes that broadcast, got {shapes}"
        raise ValueError(msg) from None


def _checked(name: str, array: Floats, bad: Any, bound: str) -> Floats:
    if bad.any():
        msg = f"{name} must be {bound}, got {array[bad].flat[0]:g}"
        raise ValueError(msg)
    return array


def exponents(gammas: Any) -> Floats:
    """`gammas` as a vector of finite numbers >= 0; a scalar is one of them.

    Raises
    ------
    ValueError
        If it is empty, has more axes than one, or holds anything else.
    """
    array = np.atleast_1d(numbers("gammas", gammas, 0.0))
    if array.ndim != 1 or array.size == 0:
        msg = f"gammas must be a vector of finite numbers >= 0, got {gammas!r}"
        raise ValueError(msg)
    return array


def _write_numpy(a: NDArray[Any], dtype: str | None) -> Any:
    if dtype is None or (dtype == "float64" and a.dtype is _FLOAT64):
        return a
    with np.errstate(over="ignore"):  # a float16 log-weight below -65504 is -inf
        return a.astype(dtype, copy=False)


def writer(like: Any) -> Callable[[NDArray[Any], str | None], Any]:
    """A function that makes a NumPy array one of the kind of `like`; its dtype name may be None."""
    if type(like) is np.ndarray:
        return _write_numpy
    if _is_torch(like):
        torch = sys.modules["torch"]

        def to_torch(a: NDArray[Any], dtype: str | None) -> Any:
            tensor = torch.from_numpy(np.ascontiguousarray(a))
            return tensor if dtype is None else tensor.to(getattr(torch, dtype))

        return to_torch
    if hasattr(like, "__array_namespace__") and not isinstance(like, (np.ndarray, np.generic)):
        xp = like.__array_namespace__()

        def to_namespace(a: NDArray[Any], dtype: str | None) -> Any:
            return xp.asarray(a) if dtype is None else xp.asarray(a, dtype=getattr(xp, dtype))

        return to_namespace

    return _write_numpy


def like_scalar(a: Any) -> Any:
    """`a`, as a Python scalar if it is 0-d."""
    return a.item() if np.ndim(a) == 0 else a


def read_only(a: NDArray[Any]) -> NDArray[Any]:
    # Numba compiles read-only and writable arrays apart: handing over only the former halves that.
    view = a.view()
    view.setflags(write=False)
    return view


def filled(count: int, value: float, dtype: Any = _FLOAT64) -> NDArray[Any]:
    """`numpy.full`, without half a microsecond of Python."""
    array: NDArray[Any] = np.empty(count, dtype)
    array.fill(value)
    return array


@lru_cache
def _of_one_row(value: float, dtype: Any) -> NDArray[Any]:
    return filled(1, value, dtype)


def records(shape: int | tuple[int, ...], kind: Any) -> Records:
    """Records of zeros; `numpy.empty` looks at each of their fields, which takes twice as long."""
    count = shape if isinstance(shape, int) else prod(shape)
    return np.ndarray(shape, kind, bytearray(count * kind.itemsize))


class Layout(NamedTuple):
    """Where the rows are in the caller's array."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]  # those of the batch, then those of the draws
    batch_shape: tuple[int, ...]
    sample_shape: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Rows:
    """Log-weights as float64 rows, with the way back.

    Attributes
    ----------
    values : ndarray, shape (rows, draws)
        Log-weights, C-contiguous and read-only. Entries left out by ``where`` are -inf.
    n : ndarray, shape (rows,)
        How many draws count in each row.
    eps : float
        Unit roundoff of the caller's dtype.
    layout : Layout
        Where they were.
    kept : ndarray of bool, shape (rows, draws), or None
        Which entries count; None where all do.
    copies : int
        How often each of the caller's rows stands in a result, see `along`.
    chain : int or None
        Of draws of Markov chains how many make a chain, one after the other; None where all are independent.
    beyond : str
        What the axes of a result that come after h's own are of, for labelled arrays.
    """

    values: Floats
    n: Ints
    eps: float
    layout: Layout
    _dtype: str
    _write: Callable[[NDArray[Any], str | None], Any]
    kept: Mask | None = None
    labels: Labels | None = None
    chain: int | None = None
    copies: int = 1
    beyond: str = GAMMAS

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the axes that are not sample axes."""
        return self.layout.batch_shape

    def floats(self) -> Floats:
        """An uninitialised float64 for each row."""
        return np.empty(self.n.size)

    def counts(self) -> Ints:
        """An uninitialised int64 for each row."""
        return np.empty(self.n.size, INT64)

    def same(self, value: float, dtype: Any = _FLOAT64) -> NDArray[Any]:
        """One number for all rows, as an argument that kernels only read.

        Where there is no batch it is made once for all calls: a quarter of a microsecond each.
        """
        alone = self.layout.batch_shape == ()
        return _of_one_row(value, dtype) if alone else filled(self.n.size, value, dtype)

    def codes(self) -> Codes:
        """An uninitialised status code for each row."""
        return np.empty(self.n.size, INT8)

    def numpy(self) -> Rows:
        """The same rows, whose results are NumPy arrays."""
        if self._write is _write_numpy and self.labels is None:
            return self
        return replace(self, _write=_write_numpy, labels=None)

    def along(self, count: int) -> Rows:
        """The layout of results that hold so many numbers for each row, along a leading axis of their own.

        It stands for the rows as often, one round of all of them after the other.
        """
        shape, axes, batch_shape, sample_shape = self.layout
        axes = (0, *(axis + 1 for axis in axes))
        return replace(
            self,
            layout=Layout((count, *shape), axes, (count, *batch_shape), sample_shape),
            kept=None if self.kept is None else np.tile(self.kept, (count, 1)),
            copies=count,
            labels=None if self.labels is None else self.labels.with_gammas(),
        )

    def holding(self, values: Floats) -> Rows:
        """Rows of the same layout that hold other log-weights."""
        way_back = (self._dtype, self._write, self.kept, self.labels, self.chain, self.copies)
        return Rows(read_only(values), self.n, self.eps, self.layout, *way_back)

    def naming(self, beyond: str) -> Rows:
        """These rows, whose results have such axes after h's own."""
        return replace(self, beyond=beyond)

    def gamma(self, value: Any) -> Floats:
        """An exponent for each row; NaN passes: a row that cannot be diagnosed has gamma NaN."""
        if isinstance(value, float) and value != value:
            return filled(self.n.size, value)
        return self.per_row("gamma", value, 0.0, unknown=True)

    def per_row(
        self, name: str, value: Any, low: float, ends: Ends = "[)", *, unknown: bool = False
    ) -> Floats:
        """A scalar or an array of the batch shape as one float for each row, each at least `low`."""
        if type(value) is float and low < value < inf:
            return self.same(value)
        if self.labels is not None:
            value = self.labels.per_row(value, name, self.batch_axes)
        array = real_array(value, name)[0].astype(np.float64)
        bad = ~inside(array, low, inf, ends)
        if unknown and array.ndim:
            bad &= ~np.isnan(array)
        _checked(name, array, bad, interval(low, inf, ends))
        if array.ndim == 0:
            return np.full(len(self), array)
        try:
            array = np.broadcast_to(array, self.batch_shape)
        except ValueError:
            msg = f"{name} of shape {array.shape} does not fit the batch shape {self.batch_shape}"
            raise ValueError(msg) from None
        return np.array(array, order="C").reshape(-1)

    @property
    def batch_axes(self) -> tuple[int, ...]:
        """Positions of the batch axes in the caller's array."""
        return self.layout.axes[: len(self.layout.batch_shape)]

    @property
    def sample_axes(self) -> tuple[int, ...]:
        """Positions of the sample axes."""
        return self.layout.axes[-len(self.layout.sample_shape) :]

    def trailing(self, h: Any, name: str = "h") -> tuple[Values, tuple[int, ...]]:
        """Values at the draws as (rows, draws * d) float64 or float32, and the shape that d stands for.

        float32 stays, as gradients are large: a copy of them would cost more than the estimate.
        """
        labels, dims = None, ()
        if self.labels is not None:
            h, labels, dims = self.labels.draws(h, name, self.sample_axes)
        array = h if type(h) is np.ndarray else _to_numpy(h, name)[0]
        if array.dtype is not _FLOAT64 and array.dtype != np.bool_:  # h may be an indicator
            array, _ = real_array(h, name)
        shape, axes, _, _ = self.layout
        if array.shape[: len(axes)] != shape:
            msg = f"{name} must have log_w's shape {shape}, or that and axes of its own; got {array.shape}"
            raise ValueError(msg)
        own = array.shape[len(axes) :]
        if axes != _AXES[len(axes)]:
            array = array.transpose(*axes, *range(len(axes), array.ndim))
        kind = _FLOAT32 if array.dtype == _FLOAT32 else _FLOAT64
        count, draws = self.values.shape
        flat = np.ascontiguousarray(array, kind).reshape(count, draws * prod(own))
        flat.setflags(write=False)  # a view of its own, see `read_only`
        return flat, OwnAxes.of(own, labels, dims) if labels is not None and own else own

    def components(self, values: Values) -> Iterator[Values]:
        """Those of `trailing` values, (rows, draws) each and read-only, one copied at a time."""
        count, draws = self.values.shape
        d = values.shape[1] // draws
        cube = values.reshape(count, draws, d)
        for j in range(d):
            yield values if d == 1 else read_only(np.ascontiguousarray(cube[:, :, j]))

    def beside(self, x: Any, name: str, first: str) -> tuple[Floats, float]:
        """Another number for each draw, laid out as `values`, and the roundoff of its dtype.

        Raises
        ------
        ValueError
            If it has not the shape of the log-weights, which messages call `first`.
        """
        if self.labels is not None:
            x, _, _ = self.labels.draws(x, name, self.sample_axes)
        array, dtype = real_array(x, name)
        shape, axes, _, _ = self.layout
        if array.shape != shape:
            msg = f"{first} and {name} must have one shape, got {shape} and {array.shape}"
            raise ValueError(msg)
        flat = np.ascontiguousarray(array.transpose(axes), np.float64).reshape(self.values.shape)
        return flat, _EPS.get(dtype, EPS_FLOAT64)

    def groups(self, x: Any, name: str) -> Ints:
        """Labels of the draws, of any kind, as codes from 0 in a row's sorted order, laid out as `values`.

        Raises
        ------
        ValueError
            If they have neither the shape of the log-weights nor that of the sample axes, or no order.
        """
        if self.labels is not None:
            x, _, _ = self.labels.draws(x, name, self.sample_axes)
        array, _ = _to_numpy(x, name)
        shape, axes, _, sample_shape = self.layout
        if array.shape == shape:
            array = array.transpose(axes)
        elif array.shape != sample_shape:
            msg = f"{name} must have log_w's shape {shape} or that of its draws, got {array.shape}"
            raise ValueError(msg)
        rows = array.reshape(-1, self.values.shape[1])
        try:
            codes = [np.unique(row, return_inverse=True)[1].ravel() for row in rows]
        except TypeError as error:
            msg = f"{name} must hold labels that can be sorted: {error}"
            raise TypeError(msg) from None
        return np.broadcast_to(np.array(codes, np.int64).reshape(rows.shape), self.values.shape)

    def more_draws(self, log_w: Any, axis: Axis, name: str) -> Rows:
        """The rows of other draws, of the same batch.

        Raises
        ------
        ValueError
            If their batch has another shape, or other labels.
        """
        if self.labels is not None and labels_of(log_w, name) is None:
            axis = self.sample_axes  # it has no names and no axes of draws by default
        rows = rows_of(log_w, axis, None, name)
        if rows.batch_shape != self.batch_shape:
            msg = f"{name} must have log_w's batch shape {self.batch_shape}, got {rows.batch_shape}"
            raise ValueError(msg)
        if self.labels is not None and rows.labels is not None:
            self.labels.check_batch(rows.labels, self.batch_axes, rows.batch_axes)
        return rows

    def diagnostic(self, a: NDArray[Any], own: tuple[int, ...] = ()) -> Any:
        """One number for each row, or (rows, d, ...) of them, d for axes `own`: a Python scalar if 0-d."""
        shape = self.batch_shape if a.ndim == 1 else self.batch_shape + own + a.shape[2:]
        if shape == ():
            return a.item()
        return self._named(self._write(a.reshape(shape), None), a.ndim, own)

    def _named(self, a: NDArray[Any], ndim: int, own: tuple[int, ...]) -> Any:
        """A result that was of so many axes as rows, with the labels of what it is of."""
        if self.labels is None:
            return a
        return self.labels.around(a, self.batch_axes, own if ndim > 1 else (), self.beyond)

    def status(self, codes: Codes, own: tuple[int, ...] = ()) -> Any:
        """Status codes, shaped as a `diagnostic`; a `Status` if 0-d."""
        if self.batch_shape == () and (codes.ndim == 1 or (codes.ndim == 2 and own == ())):
            return STATUSES[codes.item()]
        return self.diagnostic(codes.copy(), own)

    def words(self, words: NDArray[np.str_], own: tuple[int, ...] = ()) -> Any:
        """Words, shaped as a `diagnostic`; in NumPy where the kind of array holds none."""
        shape = self.batch_shape if words.ndim == 1 else self.batch_shape + own
        return words.item() if shape == () else self._named(words.reshape(shape), words.ndim, own)

    def target(self, out: Any = None) -> Floats:
        """Uninitialised rows to write log-weights to: a view of `out` where its layout allows.

        Raises
        ------
        TypeError
            If `out` is not a NumPy array.
        ValueError
            If `out` is read-only or not of the shape and dtype that `weights` returns.
        """
        if out is None:
            return np.empty(self.values.shape)
        if isinstance(out, np.ma.MaskedArray) or not isinstance(out, np.ndarray):
            msg = "out must be a NumPy array without a mask"
            raise TypeError(msg)
        given = cast("NDArray[Any]", out)
        shape, axes, _, _ = self.layout
        if given.shape != shape or given.dtype.name != self._dtype or not given.flags.writeable:
            found = (
                f"{'' if given.flags.writeable else 'read-only '}{given.dtype.name} of shape {given.shape}"
            )
            msg = f"out must be writable {self._dtype} of shape {shape}, got {found}"
            raise ValueError(msg)
        direct = given.dtype == np.float64 and given.flags.c_contiguous and axes == _AXES[given.ndim]
        if direct and given.ctypes.data != self.values.ctypes.data:
            direct = not np.may_share_memory(given, self.values)  # rows shifted against each other
        return given.reshape(self.values.shape) if direct else np.empty_like(self.values)

    def weights(self, a: Floats, out: NDArray[Any] | None = None) -> Any:
        """Log-weights in the caller's layout, kind and float dtype; in `out` if given."""
        if self.kept is not None:
            a[~self.kept] = -np.inf
        rows = a
        _, axes, batch_shape, sample_shape = self.layout
        a = a.reshape(batch_shape + sample_shape)
        if axes != _AXES[len(axes)]:
            a = a.transpose(np.argsort(axes))
        if out is None:
            written = self._write(a, self._dtype)
            return written if self.labels is None else self.labels.around(written, range(a.ndim), ())
        if not np.may_share_memory(rows, out):
            with np.errstate(over="ignore"):
                out[...] = a
        return out


def layout_of(n: Ints, eps: float, batch_shape: tuple[int, ...]) -> Rows:
    """Rows of so many draws that are not there, for results and arguments to be laid out by."""
    shape = (*batch_shape, int(n.max(initial=0)))
    values: Floats = np.broadcast_to(np.float64(-inf), (n.size, shape[-1]))
    layout = Layout(shape, _AXES[len(shape)], batch_shape, shape[-1:])
    kept = np.broadcast_to(np.True_, values.shape)
    return Rows(values, n, eps, layout, "float64", _write_numpy, kept)


@lru_cache
def _laid_out(shape: tuple[int, ...], axis: Any) -> tuple[Layout, int, int]:
    # A program asks for the same shape again and again.
    sample = _positions(axis, len(shape))
    axes = tuple(i for i in range(len(shape)) if i not in sample) + sample
    moved = tuple(shape[i] for i in axes)
    batch_shape, sample_shape = moved[: -len(sample)], moved[-len(sample) :]
    return Layout(shape, axes, batch_shape, sample_shape), prod(batch_shape), prod(sample_shape)


def _check_positions(axis: Any, name: str) -> None:
    several = cast("tuple[Any, ...]", axis if isinstance(axis, tuple) else (axis,))
    if any(isinstance(each, str) for each in several):
        msg = f"axis={axis!r} is a name, and the axes of {name} have none: pass an int or a tuple of ints"
        raise ValueError(msg)
    if several == () or not all(isinstance(each, (int, np.integer)) for each in several):
        msg = f"axis must be an int or a non-empty tuple of ints, got {axis!r}"
        raise ValueError(msg)


def _positions(axis: Any, ndim: int) -> tuple[int, ...]:
    try:
        return normalize_axis_tuple(axis, ndim, "axis")
    except OverflowError:
        msg = f"axis {axis} is out of bounds for an array of {ndim} axes"
        raise ValueError(msg) from None


def rows_of(
    log_w: Any, axis: Axis, where: Any, name: str = "log_w", dependence: Dependence = "independent"
) -> Rows:
    """Check log-weights and lay them out as rows.

    Raises
    ------
    ValueError
        As `part_of`, and if the sample axis is empty.
    TypeError
        As `part_of`.
    """
    rows = part_of(log_w, axis, where, name, dependence)
    if rows.values.shape[1] == 0:
        msg = f"{name} has no draws: axis {axis} of shape {rows.layout.shape} is empty"
        raise ValueError(msg)
    return rows


def part_of(
    log_w: Any, axis: Axis, where: Any, name: str = "log_w", dependence: Dependence = "independent"
) -> Rows:
    """As `rows_of`, of a part of the draws, which may hold none.

    Raises
    ------
    TypeError
        If `log_w` does not hold real numbers or is not in CPU memory, or `where` neither boolean nor ints.
    ValueError
        If `axis` does not fit, `where` does not broadcast or holds numbers other than 0 and 1, or
        `dependence`, the argument draws, is not known.
    """
    if dependence != "independent":
        one_of("draws", dependence, Dependence)
    labels, write = None, _write_numpy
    if type(log_w) is not np.ndarray:
        labels = labels_of(log_w, name)
        write = writer(log_w) if labels is None else _write_numpy
    array, dtype = real_array(log_w if labels is None else labels.values(), name)
    if array.ndim == 0:
        msg = f"{name} must have at least one axis, got a scalar"
        raise ValueError(msg)
    if labels is not None:
        axis = labels.axes(axis)
    if type(axis) is not int:
        _check_positions(axis, name)
    layout, count, draws = _laid_out(array.shape, axis)
    shape, axes, _, sample_shape = layout
    if axes != _AXES[len(axes)]:
        array = array.transpose(axes)
    values = np.ascontiguousarray(array, _FLOAT64).reshape(count, draws)
    kept = None
    n = _of_one_row(draws, INT64) if layout.batch_shape == () else filled(count, draws, INT64)
    if where is not None:
        if labels is not None:
            where = labels.mask(where, axes[-len(sample_shape) :])
        mask = _to_numpy(where, "where")[0]
        if mask.dtype.kind == "f":
            msg = f"where must be boolean or hold ints 0 and 1, got dtype {mask.dtype}"
            raise TypeError(msg)
        mask = mask_array(mask, "where")
        try:
            mask = np.broadcast_to(mask, shape)
        except ValueError:
            msg = f"where of shape {mask.shape} does not broadcast to {name}'s {shape}"
            raise ValueError(msg) from None
        kept = np.ascontiguousarray(mask.transpose(axes)).reshape(count, draws)
        values = np.where(kept, values, -np.inf)
        n = kept.sum(axis=1)
    values.setflags(write=False)  # a view of its own, see `read_only`
    eps = _EPS.get(dtype, EPS_FLOAT64)
    if dtype not in _EPS and array.dtype.kind != "f":
        dtype = "float64"
    chain = sample_shape[-1] if dependence == "mcmc" else None
    return Rows(values, n, eps, layout, dtype, write, kept, labels, chain)
