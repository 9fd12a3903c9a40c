"""Off-policy losses for torch: weights chosen and diagnosed by `isdiag.rl`, gradients left to autograd.

One small transfer a step goes to the CPU, a few numbers for each draw; what comes back are coefficients.
"""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from isdiag._core.check import one_of
from isdiag._core.typing import Floats
from isdiag.rl.controller import GammaController
from isdiag.rl.ratios import Level, refuse_geometric
from isdiag.rl.reshapes import Defensive, Power, Reshape
from isdiag.rl.schedules import Cosine, Diagnosed, ESSAdaptive, Fixed, Linear, Schedule, State
from isdiag.rl.step import Normalize, Step, take_step

OnBad = Literal["raise", "skip"]

GammaSchedule = Literal["fixed", "linear", "cosine", "ess", "adaptive"]

Tokens = Tensor | Sequence[Tensor]

# Positions that Hugging Face's losses leave out carry this label.
_IGNORED = -100


# ------------------------------------------------------------------------------------------- layouts


@dataclass(frozen=True)
class _Layout:
    """Which sequence each token belongs to, whatever the layout; `row` is None where tokens are padded."""

    kept: Tensor
    row: Tensor | None
    count: int

    def total(self, tokens: Tensor) -> Tensor:
        """Sums over the tokens of each sequence; those that do not count may hold anything."""
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


def _joined(tokens: Tokens) -> Tensor:
    return tokens if isinstance(tokens, Tensor) else torch.cat(list(tokens))


def _layout(log_pi: Tokens, mask: Tokens | None, cu_seqlens: Tensor | None) -> _Layout:
    flat = _joined(log_pi)
    kept = torch.ones_like(flat, dtype=torch.bool) if mask is None else _joined(mask).to(flat.device).bool()
    if kept.shape != flat.shape:
        msg = f"mask must have the shape of log_pi {tuple(flat.shape)}, got {tuple(kept.shape)}"
        raise ValueError(msg)
    if not isinstance(log_pi, Tensor):
        lengths = torch.tensor([len(tokens) for tokens in log_pi], device=flat.device)
        count = len(log_pi)
        row = torch.repeat_interleave(
            torch.arange(count, device=flat.device), lengths, output_size=flat.numel()
        )
        return _Layout(kept, row, count)
    if cu_seqlens is not None:
        if flat.ndim != 1 or cu_seqlens.ndim != 1:
            msg = f"with cu_seqlens log_pi must be 1-D, got shape {tuple(flat.shape)}"
            raise ValueError(msg)
        ends = cu_seqlens.to(flat.device)[1:].contiguous()
        row = torch.bucketize(torch.arange(flat.numel(), device=flat.device), ends, right=True)
        return _Layout(kept, row, ends.numel())
    if flat.ndim not in (1, 2):
        msg = f"log_pi must have shape (B,) or (B, T), or be a list of 1-D tensors; got {tuple(flat.shape)}"
        raise ValueError(msg)
    return _Layout(kept, None, flat.shape[0])


# -------------------------------------------------------------------------------------------- losses


class _Batch(NamedTuple):
    """What the CPU gets of the draws of all ranks, one number a draw each."""

    log_w: Floats
    likelihood: Floats
    advantage: Floats
    present: NDArray[np.bool_]
    start: int
    world: int


def _gather(columns: Tensor, group: distributed.ProcessGroup | None) -> tuple[Tensor, int, int]:
    """The columns of all ranks side by side, where this rank's begin, and how many ranks there are."""
    if group is None:
        return columns, 0, 1
    world = distributed.get_world_size(group)
    sizes = [torch.zeros(1, dtype=torch.int64, device=columns.device) for _ in range(world)]
    mine = torch.tensor([columns.shape[1]], device=columns.device)
    distributed.all_gather(sizes, mine, group=group)
    counts = torch.cat(sizes).tolist()
    padded = F.pad(columns, (0, max(counts) - columns.shape[1]))
    parts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded, group=group)
    joined = torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)
    rank = distributed.get_rank(group)
    return joined, sum(counts[:rank]), world


def _batch(
    log_pi: Tensor,
    log_mu: Tensor,
    advantages: Tensor | float,
    layout: _Layout,
    level: Level,
    group: distributed.ProcessGroup | None,
) -> _Batch:
    wide = torch.float32 if log_pi.device.type == "mps" else torch.float64  # MPS has no double
    pi = log_pi.detach().to(wide)
    ratio = pi - log_mu.detach().to(device=pi.device, dtype=wide)
    signs = torch.as_tensor(advantages, device=pi.device).detach().to(wide)
    draws = (
        layout.draws(ratio, level),
        layout.draws(pi, level),
        layout.spread(signs, level),
        layout.present(level).to(wide),
    )
    columns = torch.stack([column.reshape(-1) for column in draws])
    joined, start, world = _gather(columns, group)
    log_w, likelihood, advantage, present = joined.cpu().numpy().astype(np.float64)
    return _Batch(log_w, likelihood, advantage, present > 0, start, world)


def reshape_coefficients(
    log_pi: Tokens,
    log_mu: Tokens,
    advantages: Tensor | float,
    mask: Tokens | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    reshape: Reshape | None = None,
    controller: GammaController | None = None,
    level: Level = "sequence",
    normalize: Normalize | None = None,
    on_bad: OnBad = "raise",
    group: distributed.ProcessGroup | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What each draw's log-likelihood is multiplied by, for a batch that is backpropagated in parts.

    The parameters are those of `is_reshape_loss`; `log_pi` may be detached. Weights, gamma and diagnostics
    are those of the whole batch, so that its parts, each through `weighted_loss`, add up to one gradient.

    Returns
    -------
    coefficients : Tensor
        Of the shape of the draws: (B,), or at level "token" that of `log_pi` (ragged: joined). Detached.
    metrics : dict of str to float
        `isdiag.rl.METRICS` and ``skipped``.

    Raises
    ------
    ValueError
        As `is_reshape_loss`.

    Examples
    --------
    >>> import torch
    >>> from isdiag.rl import Truncated
    >>> from isdiag.torch import reshape_coefficients, weighted_loss
    >>> log_pi = torch.tensor([-1.0, -2.0, -0.5, -3.0], requires_grad=True)
    >>> log_mu, rewards = torch.tensor([-2.0, -2.0, -1.0, -3.5]), torch.tensor([1.0, 0.0, -1.0, 1.0])
    >>> coefficients, metrics = reshape_coefficients(log_pi, log_mu, rewards, reshape=Truncated(2.0))
    >>> for part in (slice(0, 2), slice(2, 4)):
    ...     weighted_loss(log_pi[part], coefficients[part]).backward()
    >>> log_pi.grad
    tensor([-0.3176,  0.0000,  0.2618, -0.2618])
    """
    one_of("level", level, Level)
    one_of("on_bad", on_bad, OnBad)
    layout = _layout(log_pi, mask, cu_seqlens)
    policy, sampler = _joined(log_pi), _joined(log_mu)
    if policy.shape != sampler.shape:
        shapes = f"{tuple(policy.shape)} and {tuple(sampler.shape)}"
        msg = f"log_pi and log_mu must have the same shape, got {shapes}"
        raise ValueError(msg)
    batch = _batch(policy, sampler, advantages, layout, level, group)
    dtype = torch.promote_types(policy.dtype, torch.float32)
    take = _taker(controller, reshape, normalize)
    # Inside a compiled function NumPy must stay NumPy; to say so always would import the compiler, 2 s.
    step: Any = torch.compiler.disable(_step) if torch.compiler.is_compiling() else _step
    values, metrics = step(batch, take, on_bad, torch.finfo(dtype).max)
    shape = layout.kept.shape if level == "token" else (layout.count,)
    mine = values[batch.start : batch.start + prod(shape)] * batch.world
    return torch.from_numpy(mine).to(device=policy.device, dtype=dtype).reshape(shape), metrics


Taker = Callable[[Any, Any], Step]


def _taker(controller: GammaController | None, reshape: Reshape | None, normalize: Normalize | None) -> Taker:
    """What turns log-ratios and advantages into a step."""
    if controller is not None:
        return partial(controller.step, reshape=reshape, normalize=normalize)
    fixed = Power() if reshape is None else reshape

    def take(log_w: Any, advantage: Any) -> Step:
        state = State(fixed.exponent)
        _, step = take_step(
            log_w, advantage, reshape=fixed, schedule=Fixed(), state=state, normalize=normalize or "batch"
        )
        return step

    return take


def _step(batch: _Batch, take: Taker, on_bad: OnBad, largest: float) -> tuple[Floats, dict[str, float]]:
    """Coefficients of all ranks' draws, and metrics; bad draws raise or are left out."""
    log_w, likelihood, advantage = (column[batch.present] for column in batch[:3])
    # Of such a draw not even a coefficient of 0 keeps NaN from the parameters.
    broken = int(np.count_nonzero(~(likelihood < np.inf)))
    if on_bad == "raise":
        _raise_if_bad(log_w, advantage, broken)
    step = take(np.full_like(log_w, np.nan) if broken else log_w, advantage)
    coefficients = step.coefficients
    impossible = (coefficients != 0.0) & (likelihood == -np.inf)
    overflows = not (np.abs(coefficients) <= largest).all()
    if on_bad == "raise" and impossible.any():
        msg = f"log_pi is -inf for {np.count_nonzero(impossible)} draws that have weight"
        raise ValueError(msg)
    if on_bad == "raise" and overflows:
        msg = f"a coefficient of {np.abs(coefficients).max():g} overflows: normalize by batch"
        raise ValueError(msg)
    skipped = broken > 0 or overflows or not step.n
    values = np.zeros(batch.present.size)
    values[batch.present] = np.where(impossible | skipped, 0.0, coefficients)
    metrics = step.metrics()
    metrics["n_nonfinite"] += int(np.count_nonzero(impossible))
    return values, metrics | {"skipped": int(skipped)}


def _raise_if_bad(log_w: Floats, advantage: Floats, broken: int) -> None:
    if log_w.size == 0:
        msg = "no draw to learn from: the mask leaves out every token"
        raise ValueError(msg)
    if broken:
        msg = f"log_pi is NaN or +inf for {broken} of {log_w.size} draws"
        raise ValueError(msg)
    bad = np.count_nonzero(~(log_w < np.inf)), np.count_nonzero(~np.isfinite(advantage))
    if any(bad):
        msg = (
            f"of {log_w.size} draws {bad[0]} have a log-ratio that is NaN or +inf and {bad[1]} an advantage "
            'that is not finite; on_bad="skip" leaves them out'
        )
        raise ValueError(msg)


def weighted_loss(
    log_pi: Tokens,
    coefficients: Tensor,
    mask: Tokens | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    level: Level = "sequence",
) -> Tensor:
    """Minus the sum of coefficients times log-likelihoods.

    Parameters
    ----------
    log_pi : Tensor or list of Tensor
        Log-probabilities with their graph, of the whole batch or a part of it; layouts as in
        `is_reshape_loss`.
    coefficients : Tensor
        Those of `reshape_coefficients`, or the part of them that belongs to `log_pi`.
    mask, cu_seqlens, level
        As given to `reshape_coefficients`.

    Returns
    -------
    Tensor
        0-d, float32 or wider.

    Raises
    ------
    ValueError
        If `level` is unknown or shapes do not fit.

    Notes
    -----
    Where a coefficient is 0 the log-likelihood may be -inf; it must not be NaN, as a gradient of 0 times
    NaN is NaN. Do not call this for a batch whose metrics say ``skipped``.

    Examples
    --------
    >>> import torch
    >>> from isdiag.torch import weighted_loss
    >>> weighted_loss(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.25]))
    tensor(1.)
    """
    one_of("level", level, Level)
    layout = _layout(log_pi, mask, cu_seqlens)
    policy = _joined(log_pi)
    likelihood = layout.draws(policy.to(torch.promote_types(policy.dtype, torch.float32)), level)
    if coefficients.shape != likelihood.shape:
        msg = f"coefficients must have shape {tuple(likelihood.shape)}, got {tuple(coefficients.shape)}"
        raise ValueError(msg)
    return -(torch.where(coefficients != 0.0, likelihood, 0.0) * coefficients).sum()


def is_reshape_loss(
    log_pi: Tokens,
    log_mu: Tokens,
    advantages: Tensor | float,
    mask: Tokens | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    reshape: Reshape | None = None,
    controller: GammaController | None = None,
    level: Level = "sequence",
    normalize: Normalize | None = None,
    on_bad: OnBad = "raise",
    group: distributed.ProcessGroup | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Off-policy policy-gradient loss with reshaped importance weights.

    The loss is ``-sum_i c_i log pi(y_i)``: its gradient is minus the estimate of
    ``E_mu[f(w) * advantage * grad log pi]``, and flows through `log_pi` alone.

    Parameters
    ----------
    log_pi, log_mu : Tensor or list of Tensor
        Log-probabilities of the tokens under the policy that learns and under the one that sampled, in
        nats. Padded, of shape (B, T), beside `mask`; ragged, a list of B 1-D tensors; packed, of shape
        (sum of lengths,), beside `cu_seqlens`; or of shape (B,), summed up. Any float dtype and device;
        half precision is widened before it is added up.
    advantages : Tensor or float
        Advantages or rewards: one for all, of shape (B,), or at level "token" of the shape of the tokens.
    mask : Tensor or list of Tensor, optional
        Tokens that count, bool or 0 and 1, in the layout of `log_pi`. A sequence without any is no draw.
    cu_seqlens : Tensor of int, shape (B + 1,), optional
        Where each sequence starts in the packed layout, and where the last one ends.
    reshape : Reshape, optional
        What becomes of the weights; default the controller's, and without one ``Power()``: full
        importance sampling.
    controller : GammaController, optional
        Chooses the exponent of `reshape` and keeps the history.
    level : {"sequence", "token", "geometric"}, default "sequence"
        What a draw is. "sequence": w is the product over a sequence, its log-likelihood the sum.
        "geometric": both are means over the tokens (GSPO). "token": each token by itself.
    normalize : {"batch", "count"}, optional
        Divide the weights by their sum, or by the number of draws; default the controller's, and without
        one "batch".
    on_bad : {"raise", "skip"}, default "raise"
        What to do about NaN, infinities and batches without a draw, see Notes.
    group : torch.distributed.ProcessGroup, optional
        Data-parallel ranks whose batches are one sample: weights, gamma and metrics are those of the
        joined batch, the same on every rank. All of them must call. None for this process alone.

    Returns
    -------
    loss : Tensor
        0-d, float32 or wider. With a `group` its mean over the ranks is the joined batch's loss, as
        DistributedDataParallel averages gradients.
    metrics : dict of str to float
        `isdiag.rl.METRICS`, see `isdiag.rl.Step`, and ``skipped``: 1 if the batch was left out.

    Raises
    ------
    ValueError
        If shapes do not fit, `level`, `normalize` or `on_bad` is unknown, or the batch is bad and `on_bad`
        is "raise".

    Notes
    -----
    * With ``on_bad="skip"``, draws whose log-ratio is NaN or +inf or whose advantage is not finite are left
      out, and ``n_nonfinite`` counts them. A batch is skipped, with a loss of 0 that has no graph, so that
      no parameter is touched, if nothing is left of it, if `log_pi` itself is NaN or +inf at a token that
      counts (even a gradient of 0 through it is NaN), or if a coefficient overflows.
    * A skipped batch leaves no gradients: with a GradScaler leave out its step too, which asks for some.
    * One transfer of four numbers a draw goes to the CPU, where weights and all metrics are computed; there
      is no synchronisation for any metric. With a `group` their sum over ranks is gathered first.
    * A mask on sequences is not a weight of 0: draws that are masked away leave n.
    * The loss is for its gradient; its value is not an estimate of a regret.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, chapter 9. Williams, R. J. (1992). Simple
    statistical gradient-following algorithms. Machine Learning 8.

    Examples
    --------
    >>> import torch
    >>> from isdiag.rl import GammaController
    >>> from isdiag.torch import is_reshape_loss
    >>> _ = torch.manual_seed(0)
    >>> logits = torch.randn(64, 5, requires_grad=True)
    >>> actions, rewards = torch.randint(5, (64,)), torch.randn(64)
    >>> log_mu = torch.full((64,), 0.2).log()
    >>> log_pi = logits.log_softmax(dim=1)[torch.arange(64), actions]
    >>> loss, metrics = is_reshape_loss(log_pi, log_mu, rewards, controller=GammaController())
    >>> loss.backward()
    >>> print(f"gamma {metrics['gamma']:.2f}, ESS/n {metrics['ess_ratio']:.2f}")
    gamma 0.33, ESS/n 0.86
    """
    coefficients, metrics = reshape_coefficients(
        log_pi,
        log_mu,
        advantages,
        mask,
        cu_seqlens=cu_seqlens,
        reshape=reshape,
        controller=controller,
        level=level,
        normalize=normalize,
        on_bad=on_bad,
        group=group,
    )
    if metrics["skipped"]:
        return coefficients.new_zeros((), requires_grad=True), metrics
    return weighted_loss(log_pi, coefficients, mask, cu_seqlens=cu_seqlens, level=level), metrics


# ------------------------------------------------------------------------------------------- trainer


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
    config = getattr(_inner(model), "config", None)
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
    if "position_ids" in inspect.signature(_inner(model).forward).parameters:
        inputs["position_ids"] = (attention.cumsum(dim=1) - 1).clamp(min=0)
    output = model(**inputs)
    if not hasattr(output, "logits"):
        msg = f"{type(_inner(model)).__name__} has no log_prob(y, x) and returns no logits"
        raise TypeError(msg)
    width = response.shape[1]
    logits = output.logits[:, -width - 1 : -1].float()
    log_probs = -F.cross_entropy(logits.transpose(1, 2), response, reduction="none")
    return torch.where(response_mask, log_probs, 0.0), response_mask


def _inner(model: nn.Module) -> nn.Module:
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


class ISReshapeTrainer:
    """Losses for training a model on samples of another, with gamma chosen as training goes.

    Parameters
    ----------
    model : Module
        The policy that learns: with a method ``log_prob(y, x)`` that returns (B,) log-probabilities of
        responses given prompts, or (B, T) of their tokens; or a Hugging Face causal language model, see
        `sequence_log_probs`.
    ref_model : Module
        The policy that sampled, of either kind. It is frozen: no gradients, evaluation mode.
    gamma_init : float, default 0.3
        Exponent of the weights at the start.
    gamma_max : float, default 1
        Largest exponent.
    gamma_schedule : {"adaptive", "fixed", "linear", "cosine", "ess"}, default "adaptive"
        "adaptive" follows the diagnosis of each batch, nine parts old and one part new; "ess" goes by ESS
        alone, up and down in small steps; "linear" and "cosine" lead from `gamma_init` to `gamma_max` as
        `update_gamma_schedule` says.
    ess_min_ratio : float, default 0.3
        Smallest ESS / n allowed.
    psis_k_max : float, default 0.7
        Largest khat allowed.
    use_defensive : bool, default False
        Bound the weights by ``1 / defensive_alpha``.
    defensive_alpha : float, default 0.1
        Share of the target in the defensive mixture.
    reshape : Reshape, optional
        In the place of ``w**gamma``, or of its defensive form; `gamma_init` is where its exponent starts.
        ``Power(caution=3)`` with ``ess_min_ratio=0.8`` is what `GammaController` does by default.
    normalize : {"batch", "count"}, default "batch"
        Divide the weights by their sum, or by the number of sequences.
    on_bad : {"raise", "skip"}, default "raise"
        What to do about a batch with NaN or without a token; see `is_reshape_loss`.
    group : torch.distributed.ProcessGroup, optional
        Data-parallel ranks whose batches are one sample.

    Attributes
    ----------
    controller : GammaController
        Holds gamma and the history; its `state_dict` belongs into a checkpoint.

    Raises
    ------
    ValueError
        If `gamma_schedule` is unknown, an argument is out of range, both models are the same object, or
        `use_defensive` and `reshape` are both given.

    Examples
    --------
    >>> import torch
    >>> from isdiag.torch import ISReshapeTrainer
    >>> class Policy(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.logits = torch.nn.Parameter(torch.zeros(3, 5))
    ...     def log_prob(self, y, x):
    ...         return self.logits.log_softmax(dim=1)[x, y]
    >>> policy = Policy()
    >>> trainer = ISReshapeTrainer(policy, Policy())
    >>> x, y, rewards = torch.tensor([0, 1, 2, 0]), torch.tensor([4, 1, 0, 2]), torch.tensor([1.0, 0, 0, 1])
    >>> loss, metrics = trainer.compute_loss(x, y, rewards)
    >>> loss.backward()
    >>> round(metrics["gamma"], 3), metrics["ess_ratio"]
    (0.37, 1.0)
    """

    def __init__(
        self,
        model: nn.Module,
        ref_model: nn.Module,
        gamma_init: float = 0.3,
        gamma_max: float = 1.0,
        gamma_schedule: GammaSchedule = "adaptive",
        ess_min_ratio: float = 0.3,
        psis_k_max: float = 0.7,
        use_defensive: bool = False,
        defensive_alpha: float = 0.1,
        *,
        reshape: Reshape | None = None,
        normalize: Normalize = "batch",
        on_bad: OnBad = "raise",
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        if _inner(model) is _inner(ref_model):
            msg = "model and ref_model are the same object, and ref_model is to be frozen: pass a copy"
            raise ValueError(msg)
        one_of("gamma_schedule", gamma_schedule, GammaSchedule)
        if use_defensive and reshape is not None:
            msg = f"use_defensive asks for Defensive weights and reshape for {reshape!r}: choose one"
            raise ValueError(msg)
        plain = Defensive(gamma_init, defensive_alpha) if use_defensive else Power(gamma_init)
        self.model = model
        self.ref_model = ref_model.requires_grad_(False).eval()
        self.gamma_init = gamma_init
        self.gamma_schedule: GammaSchedule = gamma_schedule
        self.on_bad: OnBad = on_bad
        self.group = group
        by_batch: dict[str, Schedule] = {
            "adaptive": Diagnosed(),
            "ess": ESSAdaptive(ess_min_ratio, gamma_max=gamma_max),
        }
        self.controller = GammaController(
            reshape or plain,
            by_batch.get(gamma_schedule, Fixed()),
            gamma_init=gamma_init,
            gamma_max=gamma_max,
            ess_min=ess_min_ratio,
            k_max=psis_k_max,
            normalize=normalize,
        )

    @property
    def gamma(self) -> float:
        """The exponent now in use."""
        return self.controller.gamma

    @property
    def diagnostics(self) -> dict[str, list[float]]:
        """Each of `isdiag.rl.METRICS` over the last steps, oldest first."""
        return self.controller.history

    def compute_loss(self, x: Any, y: Any, rewards: Tensor | float) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and what its weights look like.

        Parameters
        ----------
        x, y : Any
            Prompts and responses, as the models take them.
        rewards : Tensor of shape (B,), or float
            Rewards or advantages; 1 for supervised fine-tuning.

        Returns
        -------
        loss : Tensor
            0-d, to call ``backward()`` on.
        metrics : dict of str to float
            As `is_reshape_loss` gives them.

        Raises
        ------
        ValueError
            If the batch is bad and `on_bad` is "raise", or shapes do not fit.
        TypeError
            If a model has no `log_prob` and returns no logits.
        """
        log_pi, mask = _log_probs(self.model, x, y)
        with torch.no_grad():
            log_mu, _ = _log_probs(self.ref_model, x, y)
        return is_reshape_loss(
            log_pi, log_mu, rewards, mask, controller=self.controller, on_bad=self.on_bad, group=self.group
        )

    def update_gamma_schedule(self, step: int, total_steps: int) -> None:
        """Set gamma for a step of the schedules "linear" and "cosine"; the others take no notice.

        Parameters
        ----------
        step, total_steps : int
            The step, from 0, and how many there are; gamma is `gamma_max` from the last one on.

        Raises
        ------
        ValueError
            If `total_steps` is below 1.
        """
        annealed = {"linear": Linear, "cosine": Cosine}.get(self.gamma_schedule)
        if annealed is not None:
            schedule = annealed(total_steps, self.gamma_init, self.controller.limits.gamma_max)
            self.controller.state = State(schedule.at(step), self.controller.state.step)


def _log_probs(model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of responses, and which tokens count if they are of tokens."""
    if hasattr(model, "log_prob"):
        return cast("_HasLogProb", model).log_prob(y, x), None
    return sequence_log_probs(model, x, y)
