"""Log-probabilities of responses under a model."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, nn

# Positions that Hugging Face's losses leave out carry this label.
_IGNORED = -100


class _HasLogProb(Protocol):
    def log_prob(self, y: Any, x: Any) -> Tensor: ...


def sequence_log_probs(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Log-probabilities of responses under a causal language model.

    Parameters
    ----------
    model : Module
        Called as Hugging Face's causal models are, with `input_ids`, `attention_mask` and, if its forward
        takes them, `position_ids`; returns an object with `logits`.
    x, y : Tensor of int, or mapping with input_ids and attention_mask
        Prompts (B, P), padded on either side, and responses (B, R), padded on the right. Without a mask the
        padding is taken from ``model.config.pad_token_id``, in responses also from the label -100. Where
        that is the end-of-sequence token too, the first one of a response counts.

    Returns
    -------
    log_probs : Tensor
        (B, R), float32; 0 where the mask leaves a token out.
    mask : Tensor
        (B, R), bool: the tokens of the response.

    Raises
    ------
    TypeError
        If the model returns no logits.

    Notes
    -----
    The prompt must hold at least one token: the first of a response is predicted from it.
    """
    config = getattr(unwrapped(model), "config", None)
    pad, eos = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    prompt, prompt_mask = _ids(x, pad)
    response, response_mask = _ids(y, pad)
    if not isinstance(y, Mapping):
        response_mask = _until_padding(response, pad, ends_itself=pad is not None and pad == eos)
    response = response.clamp(min=0)  # a label of -100 is no token
    attention = torch.cat([prompt_mask, response_mask], dim=1).long()
    inputs: dict[str, Tensor] = {
        "input_ids": torch.cat([prompt, response], dim=1),
        "attention_mask": attention,
    }
    if "position_ids" in inspect.signature(unwrapped(model).forward).parameters:
        inputs["position_ids"] = (attention.cumsum(dim=1) - 1).clamp(min=0)
    output = model(**inputs)
    if not hasattr(output, "logits"):
        msg = f"{type(unwrapped(model)).__name__} has no log_prob(y, x) and returns no logits"
        raise TypeError(msg)
    width = response.shape[1]
    logits = output.logits[:, -width - 1 : -1].float()
    log_probs = -F.cross_entropy(logits.transpose(1, 2), response, reduction="none")
    return torch.where(response_mask, log_probs, 0.0), response_mask


def unwrapped(model: nn.Module) -> nn.Module:
    """The module under the wrappers of torch.compile and DistributedDataParallel."""
    for name in ("_orig_mod", "module"):
        model = getattr(model, name, model)
    return model


def _ids(tokens: Any, pad: int | None) -> tuple[Tensor, Tensor]:
    """Token ids and which of them are real: all but a run of padding at either end."""
    if isinstance(tokens, Mapping):
        given = cast("Mapping[str, Tensor]", tokens)
        return given["input_ids"], given["attention_mask"].bool()
    if pad is None:
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    real = tokens != pad
    inside = (real.cumsum(dim=1) > 0) & (real.flip(1).cumsum(dim=1).flip(1) > 0)
    return tokens, inside


def _until_padding(tokens: Tensor, pad: int | None, *, ends_itself: bool) -> Tensor:
    """Which tokens come before the padding; its first is the sequence's end if it stands for that."""
    ended = tokens == _IGNORED if pad is None else (tokens == pad) | (tokens == _IGNORED)
    count = ended.cumsum(dim=1)
    before = count - ended.long() if ends_itself else count
    return (before == 0) & (tokens != _IGNORED)


def log_probs_of(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of responses, and which tokens count if they are of tokens."""
    if hasattr(model, "log_prob"):
        return cast("_HasLogProb", model).log_prob(y, x), None
    return sequence_log_probs(model, x, y)
