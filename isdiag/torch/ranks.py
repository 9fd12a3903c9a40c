"""Numbers of the draws of all data-parallel ranks."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, distributed


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
