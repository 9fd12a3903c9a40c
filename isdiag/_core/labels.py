"""Axes that have names, and labels along them: DataArrays, and Series and DataFrames of pandas and polars.

Names say which axis is meant, and labels are compared and never looked up: two arguments whose labels differ,
if only in their order, are an error. Nothing here imports a library: who holds its arrays has imported it.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

Dims = tuple[Hashable, ...]

# The axes of tables; a Series has the first.
_INDEX, _COLUMNS = "index", "columns"
# Of results that have a number for each gamma.
GAMMAS = "gamma"
# In the order in which a DataArray's draws are looked for.
_SAMPLE_DIMS = ("draw", "sample", "__sample__")


class OwnAxes(tuple[int, ...]):
    """The shape of h's own axes, which remembers whose they are."""

    labels: Labels
    dims: Dims

    @classmethod
    def of(cls, shape: tuple[int, ...], labels: Labels, dims: Dims) -> Self:
        """That shape, of axes with these names in another argument."""
        own = cls(shape)
        own.labels, own.dims = labels, dims
        return own


@dataclass(frozen=True, eq=False)
class Labels(ABC):
    """What one argument says of its axes.

    Attributes
    ----------
    like : object
        The argument.
    name : str
        What messages call it.
    dims : tuple of hashable
        The name of each axis.
    along : mapping
        The labels along a dim, where there are any.
    """

    like: Any
    name: str
    dims: Dims
    along: Mapping[Hashable, Any] = field(default_factory=dict[Hashable, Any])

    package: ClassVar[str]

    @abstractmethod
    def values(self) -> Any:
        """The array without its labels."""

    @abstractmethod
    def default(self) -> tuple[int, ...]:
        """Positions of the sample axes where the caller names none."""

    @abstractmethod
    def made(self, a: NDArray[Any], dims: Dims, own: tuple[int, ...]) -> Any:
        """An array of this kind with these axes; a NumPy array where the kind holds none like it."""

    @abstractmethod
    def reordered(self, other: Labels, dim: Hashable) -> str:
        """The code that brings another argument's labels along a dim into the order of these."""

    def over(self, _dims: Dims) -> Labels:
        """The same, where the argument has a number for each label along these dims of another."""
        return self

    def axes(self, axis: Any) -> Any:
        """`axis` with a position for each name; -1, the default, stands for the kind's sample axes."""
        if isinstance(axis, tuple):
            return tuple(self._position(each) for each in cast("tuple[Any, ...]", axis))
        if isinstance(axis, (int, np.integer)) and axis == -1:
            return self.default()
        return self._position(axis)

    def _position(self, axis: Any) -> Any:
        if not isinstance(axis, str):
            return axis
        if axis not in self.dims:
            msg = f"axis names {axis!r}, and the dims of {self.name} are {self.dims}"
            raise ValueError(msg)
        return self.dims.index(axis)

    def draws(self, x: Any, name: str, sample: tuple[int, ...]) -> tuple[Any, Labels | None, Dims]:
        """Values at the draws in this layout, broadcast over the batch; axes of their own come last.

        Also the labels of the values and the names of those axes.
        """
        dims = tuple(self.dims[i] for i in sample)
        other = self._comparable(x, name, dims)
        if other is None:
            return x, None, ()
        missing = [dim for dim in dims if dim not in other.dims]
        if missing:
            msg = f"{name} must have {self.name}'s sample dims {dims}, got {other.dims}"
            raise ValueError(msg)
        own = tuple(dim for dim in other.dims if dim not in self.dims)
        array = self._in_order(other, self.dims, own)
        shape = self.like.shape + array.shape[len(self.dims) :]
        return np.broadcast_to(array, shape), other, own

    def mask(self, where: Any, sample: tuple[int, ...]) -> Any:
        """`where`, so that NumPy can broadcast it."""
        other = self._comparable(where, "where", tuple(self.dims[i] for i in sample))
        return where if other is None else self._in_order(other, self.dims)

    def per_row(self, x: Any, name: str, batch: tuple[int, ...]) -> Any:
        """Numbers for the rows, so that NumPy can broadcast them to the batch shape."""
        dims = tuple(self.dims[i] for i in batch)
        other = self._comparable(x, name, dims)
        return x if other is None else self._in_order(other, dims)

    def check_batch(self, other: Labels, batch: tuple[int, ...], its: tuple[int, ...]) -> None:
        """Raise ValueError unless the batch axes of another argument are labelled as these."""
        self._check_kind(other)
        dims, theirs = tuple(self.dims[i] for i in batch), tuple(other.dims[i] for i in its)
        if dims != theirs:
            msg = f"{other.name} must have {self.name}'s batch dims {dims}, got {theirs}"
            raise ValueError(msg)
        for dim in dims:
            self._check_labels(other, dim)

    def around(
        self, a: NDArray[Any], places: Sequence[int], own: tuple[int, ...], beyond: str = GAMMAS
    ) -> Any:
        """A result of the kind of the argument.

        Its axes are those of the argument at `places`, then h's own, then those that `beyond` names.
        """
        dims = tuple(self.dims[i] for i in places)
        if isinstance(own, OwnAxes):
            dims += own.dims
        else:
            dims += tuple(_free(f"h_dim_{i}", self.dims) for i in range(len(own)))
        more = a.ndim - len(dims)
        dims += tuple(_free(beyond if more == 1 else f"{beyond}_{i}", dims) for i in range(more))
        return self.made(a, dims, own)

    def with_gammas(self) -> Labels:
        """The same behind a leading axis of gammas."""
        return replace(self, dims=(_free(GAMMAS, self.dims), *self.dims))

    def _comparable(self, x: Any, name: str, dims: Dims) -> Labels | None:
        other = labels_of(x, name)
        if other is None:
            return None
        self._check_kind(other)
        return other.over(dims)

    def _check_kind(self, other: Labels) -> None:
        if type(other) is not type(self):
            its, own = (f"{type(x.like).__name__} of {x.package}" for x in (other, self))
            msg = (
                f"{other.name} is a {its} and {self.name} a {own}, whose labels cannot be compared: pass "
                f"{other.name}.to_numpy() if the order is the same"
            )
            raise TypeError(msg)

    def _in_order(self, other: Labels, dims: Dims, own: Dims = ()) -> NDArray[Any]:
        """The values of another argument, their axes in the order of dims and then `own`."""
        unknown = [dim for dim in other.dims if dim not in dims and dim not in own]
        if unknown:
            msg = f"{other.name} has the dim {unknown[0]!r}, which is none of {dims}"
            raise ValueError(msg)
        shared = tuple(dim for dim in dims if dim in other.dims)
        for dim in shared:
            self._check_labels(other, dim)
        array = np.asarray(other.values()).transpose([other.dims.index(dim) for dim in (*shared, *own)])
        return array[tuple(slice(None) if dim in shared else None for dim in dims)]

    def _check_labels(self, other: Labels, dim: Hashable) -> None:
        size, its = (x.like.shape[x.dims.index(dim)] for x in (self, other))
        if size != its:
            msg = f"{other.name} has {its} entries along {dim!r}, and {self.name} has {size}"
            raise ValueError(msg)
        expected, found = self.along.get(dim), other.along.get(dim)
        if expected is None or found is None or _equal(expected, found):
            return
        if set(expected) == set(found):
            msg = (
                f"{other.name} has the labels of {self.name} along {dim!r} in another order: align it first, "
                f"as {self.reordered(other, dim)}"
            )
        else:
            i, (want, got) = next(
                (i, pair)
                for i, pair in enumerate(zip(expected, found, strict=True))
                if not _equal(expected[i : i + 1], found[i : i + 1])
            )
            msg = (
                f"{other.name} has other labels than {self.name} along {dim!r}: {got!r} instead of {want!r} "
                f"at position {i}"
            )
        raise ValueError(msg)


def _equal(a: Any, b: Any) -> bool:
    return a.equals(b) if hasattr(a, "equals") else a == b


def _free(dim: str, taken: Dims) -> str:
    while dim in taken:
        dim += "_"
    return dim


class _OfXarray(Labels):
    package = "xarray"

    @classmethod
    def of(cls, x: Any, name: str) -> Labels:
        return cls(x, name, x.dims, {dim: x.indexes[dim] for dim in x.dims if dim in x.indexes})

    def values(self) -> Any:
        return self.like.data

    def default(self) -> tuple[int, ...]:
        if "chain" in self.dims and "draw" in self.dims:
            return self.dims.index("chain"), self.dims.index("draw")
        found = [dim for dim in _SAMPLE_DIMS if dim in self.dims] or list(self.dims)
        if len(found) > 1:
            msg = (
                f"{self.name} has the dims {self.dims}, and it is not clear which are of draws: name the "
                "sample dims, as in axis='draw' or axis=('chain', 'draw')"
            )
            raise ValueError(msg)
        return tuple(self.dims.index(dim) for dim in found)

    def reordered(self, other: Labels, dim: Hashable) -> str:
        return f"{other.name}.sel({{{dim!r}: {self.name}[{dim!r}]}})"

    def made(self, a: NDArray[Any], dims: Dims, own: tuple[int, ...]) -> Any:
        made = sys.modules[self.package].DataArray(
            a, dims=dims, name=self.like.name if dims == self.dims else None
        )
        made = made.assign_coords(_coords(self.like, dims, ()))
        if isinstance(own, OwnAxes):
            made = made.assign_coords(_coords(own.labels.like, dims, own.dims))
        return made


def _coords(x: Any, dims: Dims, own: Dims) -> Any:
    """The coordinates of `x` along nothing but dims, and if it has dims of its own, along those alone."""
    coords = x.coords.to_dataset()
    among = set(own or dims)
    dropped = [
        name
        for name, variable in coords.variables.items()
        if not set(variable.dims) <= among
        or (own and not variable.dims)
        or (name in dims and name not in variable.dims)
    ]
    return coords.drop_vars(dropped).coords


class _Table(Labels):
    """Of draws, or draws x columns: what has one axis may stand for either."""

    def default(self) -> tuple[int, ...]:
        return (0,)

    def over(self, dims: Dims) -> Labels:
        if len(self.dims) == 1 and len(dims) == 1:
            along = {dims[0]: self.along[_INDEX]} if _INDEX in self.along else {}
            return replace(self, dims=dims, along=along)
        return self

    def _labels_along(self, dim: Hashable, own: tuple[int, ...]) -> Any:
        if isinstance(own, OwnAxes) and dim in own.dims:
            return own.labels.along.get(dim)
        return self.along.get(dim)


class _OfPandas(_Table):
    package = "pandas"

    @classmethod
    def of(cls, x: Any, name: str) -> Labels:
        dims = (_INDEX, _COLUMNS)[: x.ndim]
        return cls(x, name, dims, dict(zip(dims, x.axes, strict=True)))

    def values(self) -> Any:
        values = self.like.to_numpy()
        kinds = {getattr(dtype, "kind", "O") for dtype in self._dtypes()}
        if values.dtype == object and kinds <= set("fiu"):
            # Where a number is missing, which pandas 2 has as an object.
            return self.like.to_numpy(np.float64, na_value=np.nan)
        return values

    def _dtypes(self) -> list[Any]:
        return [self.like.dtype] if self.like.ndim == 1 else list(self.like.dtypes)

    def reordered(self, other: Labels, dim: Hashable) -> str:
        labels = f"{self.name}.{dim}"
        return f"{other.name}.reindex({labels if other.like.ndim == 1 else f'{dim}={labels}'})"

    def made(self, a: NDArray[Any], dims: Dims, own: tuple[int, ...]) -> Any:
        if a.ndim > 2:
            return a
        pandas = sys.modules[self.package]
        labels = [self._labels_along(dim, own) for dim in dims]
        whole = a.ndim == self.like.ndim and dims == self.dims
        if a.ndim == 1:
            made = pandas.Series(a, *labels, name=self.like.name if whole else None, copy=False)
        else:
            made = pandas.DataFrame(a, *labels, copy=False)
        if not whole:
            return made
        dtypes = set(self._dtypes())
        # What NumPy has no name for, as pandas' own Float64.
        (extension,) = dtypes if len(dtypes) == 1 else (None,)
        narrow = not isinstance(extension, np.dtype) and getattr(extension, "kind", "") == "f"
        return made.astype(extension) if narrow else made


class _OfPolars(_Table):
    package = "polars"

    @classmethod
    def of(cls, x: Any, name: str) -> Labels:
        if len(x.shape) == 1:
            return cls(x, name, (_INDEX,))
        return cls(x, name, (_INDEX, _COLUMNS), {_COLUMNS: x.columns})

    def values(self) -> Any:
        return self.like.to_numpy()

    def over(self, dims: Dims) -> Labels:
        if self.like.shape[:-1] == (1,) and dims == (_COLUMNS,):
            # Results for columns are a frame of one row, as those of polars itself.
            return replace(self, like=self.like.transpose().to_series(), dims=dims)
        return super().over(dims)

    def reordered(self, other: Labels, dim: Hashable) -> str:
        return f"{other.name}.select({self.name}.{dim})"

    def made(self, a: NDArray[Any], dims: Dims, own: tuple[int, ...]) -> Any:
        polars = sys.modules[self.package]
        if _COLUMNS not in dims or a.ndim > 2:
            name = self.like.name if dims == self.dims and a.ndim == 1 else ""
            return polars.Series(name, a) if a.ndim == 1 else a
        names = self._labels_along(_COLUMNS, own)
        by_column = np.moveaxis(a, dims.index(_COLUMNS), 0).reshape(len(names), -1)
        return polars.DataFrame(dict(zip(names, by_column, strict=True)))


_KINDS: tuple[tuple[type[_OfXarray | _OfPandas | _OfPolars], tuple[str, ...]], ...] = (
    (_OfXarray, ("DataArray",)),
    (_OfPandas, ("Series", "DataFrame")),
    (_OfPolars, ("Series", "DataFrame")),
)


def labels_of(x: Any, name: str) -> Labels | None:
    """What an argument says of its axes; None if it is no labelled array."""
    for kind, classes in _KINDS:
        module = sys.modules.get(kind.package)
        if module is not None and isinstance(x, tuple(getattr(module, each, ()) for each in classes)):
            return kind.of(x, name)
    return None
