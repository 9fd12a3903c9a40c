"""Log-likelihoods block by block, from memory, from chunks or from a function."""

# ArviZ has no annotations, xarray few.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import xarray
from arviz_base import convert_to_datatree
from arviz_stats.utils import get_log_likelihood

from isdiag.arviz.labelled import SAMPLE_DIMS, sample_dims

Places = tuple[slice, ...]

# Of what is worked on at once: small next to any memory, large next to a cache.
_BLOCK_BYTES = 2**24
# Groups that have something for each observation.
_OF_OBSERVATIONS = ("observed_data", "constant_data")


@dataclass(frozen=True)
class LogLikelihoods:
    """Those of all observations.

    Attributes
    ----------
    like : DataArray
        Has the dims and coordinates of the observations.
    draws : mapping
        The sample dims and their sizes.
    read : callable
        ``read({dim: slice})`` is the DataArray of some observations, in memory.
    whole : DataArray or None
        Of all observations and draws, where there is such an array.
    """

    like: Any
    draws: dict[Hashable, int]
    read: Callable[[dict[Hashable, slice]], Any]
    whole: Any = None

    @cached_property
    def n(self) -> int:
        """How many draws there are."""
        return prod(self.draws.values())

    def blocks(self) -> Iterator[tuple[Places, Any]]:
        """Places of observations, and their log-likelihoods with the dims of the draws last.

        One chunk after the other, or as many observations as make a block.
        """
        dims = (*self.like.dims, *self.draws)
        for place in product(*map(self._slices, self.like.dims)):
            read = self.read(dict(zip(self.like.dims, place, strict=True)))
            yield place, read.transpose(*dims).values

    def _slices(self, dim: Hashable) -> list[slice]:
        size = self.like.sizes[dim]
        chunks = {} if self.whole is None else self.whole.chunksizes
        if dim in chunks:
            ends = np.cumsum(chunks[dim]).tolist()
        elif dim == max(self.like.dims, key=lambda each: self.like.sizes[each]):
            step = max(_BLOCK_BYTES * size // (8 * self.n * self.like.size), 1)
            ends = [*range(step, size, step), size]
        else:
            ends = [size]
        return [slice(start, stop) for start, stop in pairwise([0, *ends])]


def _check_not_empty(sizes: Mapping[Hashable, int]) -> None:
    if 0 in sizes.values():
        msg = f"there must be draws and observations, got the sizes {dict(sizes)}"
        raise ValueError(msg)


def stored(data: Any, var_name: str | None) -> LogLikelihoods:
    """Of a DataArray, or of a group ``log_likelihood``."""
    if not isinstance(data, xarray.DataArray):
        data = get_log_likelihood(convert_to_datatree(data), var_name=var_name)
    dims = sample_dims(data, None)
    draws = {dim: data.sizes[dim] for dim in dims}
    _check_not_empty(data.sizes)
    like = data.isel(dict.fromkeys(dims, 0), drop=True)

    def read(places: dict[Hashable, slice]) -> Any:
        return data.isel(places).compute()

    return LogLikelihoods(like, draws, read, data)


def computed(data: Any, var_name: str | None, function: Callable[[Any, Any], Any]) -> LogLikelihoods:
    """Of a function of observations and of the data that go with them."""
    data = convert_to_datatree(data)
    missing = [group for group in ("observed_data", "posterior") if group not in data.children]
    if missing:
        msg = f"log_lik_fn needs the group {missing[0]!r}, and data has {tuple(data.children)}"
        raise ValueError(msg)
    names = list(data["observed_data"].data_vars)
    if len(names) != 1 if var_name is None else var_name not in names:
        msg = f"observed_data has the variables {names}: name one with var_name=, got {var_name!r}"
        raise TypeError(msg)
    observed = data["observed_data"][names[0] if var_name is None else var_name]
    sizes = data["posterior"].sizes
    draws: dict[Hashable, int] = {dim: sizes[dim] for dim in SAMPLE_DIMS if dim in sizes}
    _check_not_empty(draws | dict(observed.sizes))

    def read(places: dict[Hashable, slice]) -> Any:
        part = observed.isel(places)
        found = function(part, _at(data, places))
        dims = (*draws, *part.dims)
        if not isinstance(found, xarray.DataArray):
            found = xarray.DataArray(np.asarray(found), dims=dims)
        expected = draws | dict(part.sizes)
        if dict(found.sizes) != expected:
            msg = f"log_lik_fn must return an array of {expected}, got {dict(found.sizes)}"
            raise ValueError(msg)
        return found

    return LogLikelihoods(observed, draws, read)


def _at(data: Any, places: dict[Hashable, slice]) -> Any:
    """The same data, with these observations."""
    part = data.copy()
    for group in _OF_OBSERVATIONS:
        if group in part.children:
            whole = part[group].to_dataset()
            part[group] = xarray.DataTree(whole.isel(places, missing_dims="ignore"))
    return part
