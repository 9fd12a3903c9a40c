"""Which sequence each token belongs to, in whatever layout tokens come."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from isdiag._core.boundary import mask_array
from isdiag.rl.layouts import (
    Level,
    advantage_shape,
    check_cuts,
    check_padded,
    check_ragged,
    check_tokens,
    refuse_geometric,
    sequences_of,
    varying,
)

Tokens = Tensor | Sequence[Tensor]


def joined(tokens: Tokens) -> Tensor:
    """Tokens as one tensor: those of a list or NestedTensor one after the other."""
    sequences = sequences_of(tokens)
    return cast("Tensor", tokens) if sequences is None else torch.cat(list(sequences))


@dataclass(frozen=True)
class Layout:
    """Which sequence each token belongs to, whatever the layout.

    Attributes
    ----------
    kept : Tensor of bool
        Tokens that count, in the shape of `joined` tokens.
    row : Tensor of int, or None
        The sequence of each token; None where tokens are padded, (B, T), or one number stands for a
        sequence, (B,).
    count : int
        How many sequences there are.

    Examples
    --------
    >>> import torch
    >>> from isdiag.torch import Layout
    >>> tokens = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]])
    >>> layout = Layout.of(tokens, torch.tensor([[True, True, False], [True, True, True]]))
    >>> layout.total(tokens), layout.lengths
    (tensor([-3., -3.]), tensor([2., 3.]))
    """

    kept: Tensor
    row: Tensor | None
    count: int

    @classmethod
    def of(
        cls,
        log_pi: Tokens,
        mask: Tokens | None = None,
        *,
        log_mu: Tokens | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Layout:
        """The layout of a batch.

        Parameters
        ----------
        log_pi, mask, cu_seqlens
            As given to `is_reshape_loss`.
        log_mu
            The same under the other policy, if its shape is to be checked.

        Returns
        -------
        Layout
            On the device of `log_pi`.

        Raises
        ------
        ValueError
            If shapes do not fit, or the mask holds other numbers than 0 and 1. Only a mask that is not bool
            and `cu_seqlens` on a GPU are looked at, which waits for the device.
        """
        sequences = sequences_of(log_pi)
        if sequences is not None:
            others = [
                given if sequences_of(given) is None else sequences_of(given) for given in (log_mu, mask)
            ]
            check_ragged(sequences, others[0], others[1], cu_seqlens)
            flat = joined(log_pi)
            lengths = torch.tensor([len(tokens) for tokens in sequences], device=flat.device)
            return cls(_kept(flat, mask), _rows(lengths, flat.numel()), len(sequences))
        flat = cast("Tensor", log_pi)
        mu, counting = (None if given is None else joined(given).shape for given in (log_mu, mask))
        check_tokens(flat.shape, mu, counting)
        if cu_seqlens is not None:
            cuts = torch.tensor(check_cuts(cu_seqlens.cpu(), flat.shape), device=flat.device)
            return cls(_kept(flat, mask), _rows(cuts.diff(), flat.numel()), len(cuts) - 1)
        check_padded(flat.shape)
        return cls(_kept(flat, mask), None, flat.shape[0])

    def cpu(self) -> Layout:
        """The same in CPU memory."""
        return Layout(self.kept.cpu(), None if self.row is None else self.row.cpu(), self.count)

    def total(self, tokens: Tensor) -> Tensor:
        """Sums over the tokens of each sequence, (B,); those that do not count may hold anything."""
        tokens = torch.where(self.kept, tokens, 0.0)
        if self.row is not None:
            return tokens.new_zeros(self.count).index_add(0, self.row, tokens)
        return tokens.sum(dim=1) if tokens.ndim == 2 else tokens

    def draws(self, tokens: Tensor, level: Level) -> Tensor:
        """Tokens, or their sums or means over a sequence, as the level has it."""
        if level == "token":
            return torch.where(self.kept, tokens, 0.0)
        if self.row is None and tokens.ndim == 1:
            refuse_geometric(level)
        total = self.total(tokens)
        return total / self.lengths.clamp(min=1) if level == "geometric" else total

    @property
    def lengths(self) -> Tensor:
        """How many tokens of each sequence count, (B,)."""
        return self.total(torch.ones_like(self.kept, dtype=torch.float32))

    @property
    def rows(self) -> Tensor:
        """The sequence of each token, in the shape of `kept`."""
        if self.row is not None:
            return self.row
        rows = torch.arange(self.count, device=self.kept.device)
        return rows.reshape(-1, *[1] * (self.kept.ndim - 1)).expand(self.kept.shape)

    def present(self, level: Level) -> Tensor:
        """Which draws there are: tokens that count, or sequences that have one."""
        return self.kept if level == "token" else self.lengths > 0

    def spread(self, values: Tensor, level: Level) -> Tensor:
        """Numbers of the sequences, (), (B,) or (B, 1), at the draws of the level; those of draws stay.

        Those of tokens are one of a sequence if they are the same wherever it counts (ValueError otherwise).
        To see that waits for the device.
        """
        values = values.reshape(advantage_shape(values.shape, self.kept.shape, self.count))
        if level != "token" and values.ndim and values.shape != (self.count,):
            values = self._one_a_sequence(values)
        if values.ndim and values.shape == (self.kept.shape if level == "token" else (self.count,)):
            return values
        of_rows = values.expand(self.count)
        if level != "token":
            return of_rows
        if self.row is not None:
            return of_rows[self.row]
        return of_rows.reshape(-1, *[1] * (self.kept.ndim - 1)).expand(self.kept.shape)

    def _one_a_sequence(self, values: Tensor) -> Tensor:
        low, high = (torch.where(self.kept, values, end) for end in (torch.inf, -torch.inf))
        if self.row is None:
            low, high = low.amin(dim=1), high.amax(dim=1)
        else:
            none = values.new_full((self.count,), torch.inf)
            low = none.scatter_reduce(0, self.row, low, "amin")
            high = (-none).scatter_reduce(0, self.row, high, "amax")
        some = self.lengths > 0
        wrong = torch.nonzero(some & (low < high))  # neither of which is NaN then
        if wrong.numel():
            first = int(wrong[0])
            raise varying(first, low[first].item(), high[first].item())
        return torch.where(some, low, 0.0)


def _kept(flat: Tensor, mask: Tokens | None) -> Tensor:
    if mask is None:
        return torch.ones_like(flat, dtype=torch.bool)
    given = joined(mask).to(flat.device)
    if given.dtype != torch.bool and not bool(((given == 0) | (given == 1)).all()):
        mask_array(given.cpu(), "mask")  # it says what is wrong
    return given.bool()


def _rows(lengths: Tensor, size: int) -> Tensor:
    """The sequence of each token."""
    count = torch.arange(len(lengths), device=lengths.device)
    return torch.repeat_interleave(count, lengths, output_size=size)
