"""Numbers of the draws of all data-parallel ranks."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, distributed

from isdiag import Summary


class Gathered(NamedTuple):
    """Columns of all ranks side by side.

    Attributes
    ----------
    columns : Tensor, shape (k, draws of all ranks)
        The same on every rank.
    start : int
        Where this rank's columns begin.
    world : int
        How many ranks there are.
    """

    columns: Tensor
    start: int
    world: int


def gather(columns: Tensor, group: distributed.ProcessGroup | None) -> Gathered:
    """Join columns of numbers, one a draw, over data-parallel ranks.

    Parameters
    ----------
    columns : Tensor, shape (k, draws)
        This rank's; ranks may hold different numbers of draws, none among them.
    group : torch.distributed.ProcessGroup or None
        The ranks, all of which must call. None for this process alone: nothing is sent.

    Returns
    -------
    Gathered
        The joined columns.

    Examples
    --------
    >>> import torch
    >>> from isdiag.torch import gather
    >>> gather(torch.tensor([[0.5, 0.25]]), group=None)
    Gathered(columns=tensor([[0.5000, 0.2500]]), start=0, world=1)
    """
    if group is None:
        return Gathered(columns, 0, 1)
    world = distributed.get_world_size(group)
    sizes = [torch.zeros(1, dtype=torch.int64, device=columns.device) for _ in range(world)]
    mine = torch.tensor([columns.shape[1]], device=columns.device)
    distributed.all_gather(sizes, mine, group=group)
    counts = torch.cat(sizes).tolist()
    padded = F.pad(columns, (0, max(counts) - columns.shape[1]))
    parts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded, group=group)
    columns = torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)
    rank = distributed.get_rank(group)
    return Gathered(columns, sum(counts[:rank]), world)


def all_reduce(summary: Summary, group: distributed.ProcessGroup | None) -> Summary:
    """Merge the summaries of all data-parallel ranks, in the place of gathering their draws.

    Parameters
    ----------
    summary : Summary
        This rank's; ranks may have different numbers of draws, none among them.
    group : torch.distributed.ProcessGroup or None
        The ranks, all of which must call. None for this process alone: nothing is sent.

    Returns
    -------
    Summary
        Of the draws of all ranks, the same on every rank.

    Raises
    ------
    ValueError
        If ranks have other batches, other values, or another version of the format.

    Notes
    -----
    * Each rank receives `Summary.to_bytes` of all: no more than the draws where they are few, and at most
      some 0.9 MB a rank for the default `n_max`, however many the draws.

    Examples
    --------
    >>> import isdiag
    >>> from isdiag.torch import all_reduce
    >>> all_reduce(isdiag.Summary.of([0.0, 0.7]), group=None).n
    2
    """
    if group is None:
        return summary
    gathered: list[bytes | None] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(gathered, summary.to_bytes(), group=group)
    return reduce(Summary.merge, map(Summary.from_bytes, gathered))
