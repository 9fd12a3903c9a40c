"""Functions of arrays on DataArrays: by names of dims, lazy where the data are."""

# xarray and ArviZ annotate their functions only in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import xarray

SAMPLE_DIMS = ("chain", "draw")


def names_of(dim: Hashable | Sequence[Hashable]) -> list[Hashable]:
    """One name, or several, as a list."""
    return list(cast("Sequence[Hashable]", dim)) if isinstance(dim, (list, tuple)) else [dim]


def sample_dims(of: Any, dim: Hashable | Sequence[Hashable] | None) -> list[Hashable]:
    """The dims along which the draws lie, by default those of `SAMPLE_DIMS` that there are.

    Raises
    ------
    ValueError
        If `of` has not these dims, or is chunked along one; if one is named twice, or none.
    """
    if dim is None:
        dims: list[Hashable] = [each for each in SAMPLE_DIMS if each in of.dims]
        if not dims:
            msg = f"the dims are {tuple(of.dims)}, none is a chain or a draw: name the sample dims with dim="
            raise ValueError(msg)
    else:
        dims = names_of(dim)
        missing = [each for each in dims if each not in of.dims]
        if missing:
            msg = f"dim names {missing[0]!r}, and the dims are {tuple(of.dims)}"
            raise ValueError(msg)
        if len(dims) == 0 or len(set(dims)) < len(dims):
            msg = f"dim must name one dim or several, each once, got {dim!r}"
            raise ValueError(msg)
    check_whole(of, dims)
    return dims


def check_whole(of: Any, dims: Sequence[Hashable]) -> None:
    """Raise ValueError where draws of one row lie in several chunks."""
    cut = {each: len(of.chunksizes[each]) for each in dims if len(of.chunksizes.get(each, ())) > 1}
    if cut:
        chunks = ", ".join(f"{count} chunks along {each!r}" for each, count in cut.items())
        whole = ", ".join(f"{str(each)!r}: -1" for each in dims)
        msg = (
            f"draws of one row lie in {chunks}, and the tail needs all of them: call "
            f".chunk({{{whole}}}), and chunk along other dims to save memory"
        )
        raise ValueError(msg)


def by_rows(
    function: Callable[..., Any],
    *arguments: Any,
    core: Sequence[Sequence[Hashable]],
    out: Sequence[Sequence[Hashable]],
    dtypes: Sequence[Any],
    join: Any = "exact",
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """`xarray.apply_ufunc`: eager on what is in memory, lazy on chunks; sizes are those of new dims."""
    return xarray.apply_ufunc(
        function,
        *arguments,
        input_core_dims=core,
        output_core_dims=out,
        output_dtypes=dtypes,
        dask="parallelized",
        join=join,
        keep_attrs=True,
        dask_gufunc_kwargs={"output_sizes": dict(sizes)} if sizes else None,
    )


def last(dims: Sequence[Hashable]) -> tuple[int, ...]:
    """The axes that `apply_ufunc` puts these core dims on."""
    return tuple(range(-len(dims), 0))
