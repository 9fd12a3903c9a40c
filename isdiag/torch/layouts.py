"""Which sequence each token belongs to, in whatever layout tokens come."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isdiag.rl.ratios import Level, refuse_geometric

Tokens = Tensor | Sequence[Tensor]


def joined(tokens: Tokens) -> Tensor:
    """Tokens as one tensor: those of a list one after the other."""
    return tokens if isinstance(tokens, Tensor) else torch.cat(list(tokens))


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
    def of(cls, log_pi: Tokens, mask: Tokens | None = None, *, cu_seqlens: Tensor | None = None) -> Layout:
        """The layout of a batch.

        Parameters
        ----------
        log_pi, mask, cu_seqlens
            As given to `is_reshape_loss`.

        Returns
        -------
        Layout
            On the device of `log_pi`.

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
        flat = joined(log_pi)
        kept = (
            torch.ones_like(flat, dtype=torch.bool) if mask is None else joined(mask).to(flat.device).bool()
        )
        if kept.shape != flat.shape:
            msg = f"mask must have the shape of log_pi {tuple(flat.shape)}, got {tuple(kept.shape)}"
            raise ValueError(msg)
        if not isinstance(log_pi, Tensor):
            lengths = torch.tensor([len(tokens) for tokens in log_pi], device=flat.device)
            count = len(log_pi)
            row = torch.repeat_interleave(
                torch.arange(count, device=flat.device), lengths, output_size=flat.numel()
            )
            return cls(kept, row, count)
        if cu_seqlens is not None:
            if flat.ndim != 1 or cu_seqlens.ndim != 1:
                msg = f"with cu_seqlens log_pi must be 1-D, got shape {tuple(flat.shape)}"
                raise ValueError(msg)
            ends = cu_seqlens.to(flat.device)[1:].contiguous()
            row = torch.bucketize(torch.arange(flat.numel(), device=flat.device), ends, right=True)
            return cls(kept, row, ends.numel())
        if flat.ndim not in (1, 2):
            msg = (
                f"log_pi must have shape (B,) or (B, T), or be a list of 1-D tensors; got {tuple(flat.shape)}"
            )
            raise ValueError(msg)
        return cls(kept, None, flat.shape[0])

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

    def present(self, level: Level) -> Tensor:
        """Which draws there are: tokens that count, or sequences that have one."""
        return self.kept if level == "token" else self.lengths > 0

    def spread(self, values: Tensor, level: Level) -> Tensor:
        """Numbers of the sequences at the draws of the level; numbers of the tokens stay."""
        if level == "token" and values.shape == self.kept.shape:
            return values
        if values.shape not in ((), (self.count,)):
            fits = f"(), ({self.count},)" + (f" or {tuple(self.kept.shape)}" if level == "token" else "")
            msg = f"advantages must have shape {fits}, got {tuple(values.shape)}"
            raise ValueError(msg)
        of_rows = values.expand(self.count)
        if level != "token":
            return of_rows
        if self.row is not None:
            return of_rows[self.row]
        return of_rows.reshape(-1, *[1] * (self.kept.ndim - 1)).expand(self.kept.shape)
