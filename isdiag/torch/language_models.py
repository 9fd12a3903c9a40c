"""Log-probabilities of responses under a model."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, nn

# Positions that Hugging Face's losses leave out carry this label.
_IGNORED = -100


class _HasLogProb(Protocol):
    def log_prob(self, y: Any, x: Any) -> Tensor: ...


def sequence_log_probs(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Find the log-probabilities of responses under a causal language model.

    Parameters
    ----------
    model : Module
        Called as Hugging Face's causal models are, with `input_ids`, `attention_mask` and, if its forward
        takes them, `position_ids`; returns an object with `logits`.
    x, y : Tensor of int, or mapping with input_ids and attention_mask
        Prompts (B, P) and responses (B, R), padded on either side. Without a mask the padding is taken from
        ``model.config.pad_token_id``, in responses also from the label -100. Where that is the
        end-of-sequence token too, the first one of a response counts.

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
    ValueError
        If padding cannot be told from tokens and no mask is given: the model has no `pad_token_id`, or that
        ends sequences and a response begins with it.

    Notes
    -----
    * The prompt must hold at least one token: the first of a response is predicted from it.
    * The model sees prompts padded on the left and responses padded on the right, wherever the padding was,
      and is asked for no other logits than those of responses if its forward takes `logits_to_keep`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from isdiag.torch import sequence_log_probs
    >>> class Uniform(torch.nn.Module):
    ...     config = SimpleNamespace(pad_token_id=0, eos_token_id=9)
    ...     def forward(self, input_ids, attention_mask):
    ...         return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 10))
    >>> prompts, responses = torch.tensor([[0, 5], [6, 7]]), torch.tensor([[1, 2, 9], [3, 9, 0]])
    >>> log_probs, mask = sequence_log_probs(Uniform(), prompts, responses)
    >>> log_probs
    tensor([[-2.3026, -2.3026, -2.3026],
            [-2.3026, -2.3026,  0.0000]])
    """
    config = getattr(unwrapped(model), "config", None)
    pad, eos = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    prompt, _ = _moved(*_real_tokens(x, pad, _prompt_mask), to_end=True)
    ends = pad in eos if isinstance(eos, (list, tuple)) else pad == eos
    response, response_mask = _real_tokens(y, pad, _ended_mask if ends else _response_mask)
    answer, order = _moved(response, response_mask, to_end=False)
    attention = torch.cat([prompt.mask, answer.mask], dim=1).long()
    width = response.shape[1]
    # A label of -100 is no token.
    ids = torch.cat([prompt.ids, answer.ids], dim=1).clamp(min=0)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention}
    taken = inspect.signature(unwrapped(model).forward).parameters
    if "position_ids" in taken:
        inputs["position_ids"] = (attention.cumsum(dim=1) - 1).clamp(min=0)
    if "logits_to_keep" in taken:
        inputs["logits_to_keep"] = width + 1
    output = model(**inputs)
    if not hasattr(output, "logits"):
        msg = f"{type(unwrapped(model)).__name__} has no log_prob(y, x) and returns no logits"
        raise TypeError(msg)
    logits = output.logits[:, -width - 1 : -1].float()
    log_probs = -F.cross_entropy(logits.transpose(1, 2), answer.ids.clamp(min=0), reduction="none")
    log_probs = log_probs.gather(1, order.argsort(dim=1))  # back to where the tokens were
    return torch.where(response_mask, log_probs, 0.0), response_mask


def unwrapped(model: nn.Module) -> nn.Module:
    """The module under the wrappers of torch.compile and DistributedDataParallel."""
    for name in ("_orig_mod", "module"):
        model = getattr(model, name, model)
    return model


class _Tokens(NamedTuple):
    ids: Tensor
    mask: Tensor


def _moved(ids: Tensor, mask: Tensor, *, to_end: bool) -> tuple[_Tokens, Tensor]:
    """Real tokens moved to one end, in their order, and where each came from."""
    order = mask.long().argsort(dim=1, stable=True, descending=not to_end)
    return _Tokens(ids.gather(1, order), mask.gather(1, order)), order


def _real_tokens(tokens: Any, pad: int | None, mask_of: Callable[[Tensor, int], Tensor]) -> _Tokens:
    """Token ids and which of them are real, as given or as the padding tells."""
    if isinstance(tokens, Mapping):
        given = cast("Mapping[str, Tensor]", tokens)
        return _Tokens(given["input_ids"], given["attention_mask"].bool())
    if pad is None:
        msg = (
            "the model's config has no pad_token_id, so that padding would count as tokens: pass "
            '{"input_ids": ..., "attention_mask": ...}'
        )
        raise ValueError(msg)
    return _Tokens(tokens, mask_of(tokens, pad))


def _prompt_mask(tokens: Tensor, pad: int) -> Tensor:
    """All but a run of padding at either end."""
    real = tokens != pad
    return (real.cumsum(dim=1) > 0) & (real.flip(1).cumsum(dim=1).flip(1) > 0)


def _response_mask(tokens: Tensor, pad: int) -> Tensor:
    """From the first real token to the padding after it."""
    padding = (tokens == pad) | (tokens == _IGNORED)
    begun = (~padding).cumsum(dim=1) > 0
    return begun & ((padding & begun).cumsum(dim=1) == 0)


def _ended_mask(tokens: Tensor, pad: int) -> Tensor:
    """The same where the padding stands for the end of a sequence too: its first one counts."""
    ignored = tokens == _IGNORED
    begun = (~ignored).cumsum(dim=1)
    padding = ((tokens == pad) | ignored) & (begun > 0)
    unclear = ((begun == 1) & (tokens == pad)).any(dim=1) & ((tokens != pad) & ~ignored).any(dim=1)
    if bool(unclear.any()):
        msg = (
            f"a response begins with {pad}, which both pads and ends: pass "
            '{"input_ids": ..., "attention_mask": ...}'
        )
        raise ValueError(msg)
    return (begun > 0) & ((padding.cumsum(dim=1) - padding.long()) == 0) & ~ignored


def log_probs_of(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of responses, and which tokens count if they are of tokens."""
    if hasattr(model, "log_prob"):
        return cast("_HasLogProb", model).log_prob(y, x), None
    return sequence_log_probs(model, x, y)
