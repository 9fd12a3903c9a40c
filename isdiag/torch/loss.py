"""Losses whose gradient is the policy gradient with reshaped importance weights."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from isdiag._core import steps
from isdiag._core.check import one_of
from isdiag._core.typing import Floats, Ints, Values
from isdiag.rl.calls import check_call
from isdiag.rl.controller import GammaController
from isdiag.rl.layouts import Level, check_tokens
from isdiag.rl.presets import Preset
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import Fixed, State
from isdiag.rl.step import Normalize, take_step
from isdiag.rl.tokens import Tokens as FlatTokens
from isdiag.torch.layouts import Layout, Tokens, joined
from isdiag.torch.ranks import gather

OnBad = Literal["raise", "skip"]


class _Batch(NamedTuple):
    """What the CPU gets of the draws of all ranks: a number for each that is present, in their order."""

    log_w: Floats
    likelihood: Values
    advantage: Floats
    present: NDArray[np.bool_]
    start: int
    world: int
    plain: bool = False  # whether log_pi is known to be finite throughout, where the mask has holes too
    tokens: FlatTokens | None = None  # what a preset goes by


def _batch(
    log_pi: Tensor,
    log_mu: Tensor,
    advantages: Tensor | float,
    layout: Layout,
    level: Level,
    group: distributed.ProcessGroup | None,
) -> _Batch:
    if level == "token" and group is None:
        return _outside(_tokens_here)(log_pi, log_mu, None, advantages, layout)
    wide = torch.float32 if log_pi.device.type == "mps" else torch.float64  # MPS has no double
    pi = log_pi.detach().to(wide)
    mu = log_mu.detach().to(device=pi.device, dtype=wide)
    # +inf is no log-probability; a difference of -inf would pass for a draw of no weight.
    ratio = torch.where(mu == torch.inf, torch.nan, pi - mu)
    signs = torch.as_tensor(advantages, device=pi.device).detach().to(wide)
    draws = (
        layout.draws(ratio, level),
        layout.draws(pi, level),
        layout.spread(signs, level),
        layout.present(level).to(wide),
    )
    columns = torch.stack([column.reshape(-1) for column in draws])
    columns, start, world = gather(columns, group)
    rows = columns.cpu().numpy().astype(np.float64, copy=False)
    present = rows[3] > 0
    log_w, likelihood, advantage = rows[:3] if present.all() else rows[:3, present]
    return _Batch(log_w, likelihood, advantage, present, start, world)


def _batch_of_preset(
    log_pi: Tensor,
    log_mu: Tensor,
    log_near: Tensor | None,
    advantages: Tensor | float,
    layout: Layout,
    group: distributed.ProcessGroup | None,
) -> _Batch:
    """Tokens, each a draw, and what a preset goes by."""
    if group is None:
        batch = _outside(_tokens_here)(log_pi, log_mu, log_near, advantages, layout)
    else:
        batch = _tokens_of_ranks(log_pi, log_mu, log_near, advantages, layout, group)
    tokens = batch.tokens
    if tokens is not None and tokens.log_near is not None and not np.isfinite(tokens.log_near).all():
        return batch._replace(log_w=np.where(np.isfinite(tokens.log_near), batch.log_w, np.nan))
    return batch


def _tokens_of_ranks(
    log_pi: Tensor,
    log_mu: Tensor,
    log_near: Tensor | None,
    advantages: Tensor | float,
    layout: Layout,
    group: distributed.ProcessGroup,
) -> _Batch:
    wide = torch.float32 if log_pi.device.type == "mps" else torch.float64  # MPS has no double
    signs = torch.as_tensor(advantages, device=log_pi.device).detach().to(wide)
    # The sequences of two ranks must differ.
    row = layout.rows.to(wide) * distributed.get_world_size(group) + distributed.get_rank(group)
    logs = (log_pi, log_mu, *(() if log_near is None else (log_near,)))
    columns = [each.detach().to(device=log_pi.device, dtype=wide) for each in logs]
    columns += [layout.spread(signs, "token"), row, layout.kept.to(wide)]
    columns, start, world = gather(torch.stack([column.reshape(-1) for column in columns]), group)
    found = columns.cpu().numpy().astype(np.float64, copy=False)
    present = found[-1] > 0
    pi, mu, *near, advantage, sequence = found[:-1] if present.all() else found[:-1, present]
    tokens = FlatTokens.of(pi, mu, near[0] if near else None, advantage, sequence)
    plain = bool(np.isfinite(found).all())
    return _Batch(tokens.log_w, pi, advantage, present, start, world, plain, tokens)


def _tokens_here(
    log_pi: Tensor, log_mu: Tensor, log_near: Tensor | None, advantages: Tensor | float, layout: Layout
) -> _Batch:
    """Tokens of this process, each a draw: what the mask leaves out goes before anything is widened."""
    layout = layout.cpu()
    kept = layout.kept.numpy()
    every = bool(kept.all())

    def counted(tokens: Tensor) -> Values:
        return _numpy(tokens).ravel() if every else _numpy(tokens)[kept]

    near = None if log_near is None else counted(log_near)
    signs = layout.spread(torch.as_tensor(advantages).detach().cpu().double(), "token").numpy()
    advantage: Floats = signs.ravel() if every else signs[kept]
    tokens = FlatTokens.cut(counted(log_pi), counted(log_mu), near, advantage, _lengths(layout, kept))
    whole = _numpy(log_pi)
    plain = bool(whole.size == 0 or (-np.inf < whole.min() and whole.max() < np.inf))
    return _Batch(tokens.log_w, tokens.log_pi, tokens.advantage, kept.ravel(), 0, 1, plain, tokens)


def _lengths(layout: Layout, kept: NDArray[np.bool_]) -> Ints:
    """How many tokens of each sequence count."""
    if layout.row is not None:
        return np.bincount(layout.row.numpy()[kept], minlength=layout.count)
    return kept.view(np.int8).sum(axis=tuple(range(1, kept.ndim)), dtype=np.int64)


def _outside(function: Any) -> Any:
    """Inside a compiled function NumPy must stay NumPy; to say so always would import the compiler, 2 s."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def _numpy(tokens: Tensor) -> Values:
    tokens = tokens.detach().cpu()
    if tokens.dtype not in (torch.float32, torch.float64):
        tokens = tokens.to(torch.float32 if tokens.dtype.itemsize < 4 else torch.float64)
    return tokens.numpy()


def reshape_coefficients(
    log_pi: Tokens,
    log_mu: Tokens,
    advantages: Tensor | float,
    mask: Tokens | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    reshape: Reshape | None = None,
    controller: GammaController | None = None,
    level: Level | None = None,
    normalize: Normalize | None = None,
    preset: Preset | None = None,
    log_proximal: Tokens | None = None,
    on_bad: OnBad = "raise",
    group: distributed.ProcessGroup | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What each draw's log-likelihood is multiplied by, for a batch that is backpropagated in parts.

    Weights, gamma and diagnostics are those of the whole batch, so that its parts, each through
    `weighted_loss`, add up to one gradient.

    Parameters
    ----------
    log_pi : Tensor or list of Tensor
        Log-probabilities under the policy that learns, in the layouts of `is_reshape_loss`; may be detached.
    log_mu, advantages, mask, cu_seqlens, reshape, controller, level, normalize, preset, log_proximal : Any
        As for `is_reshape_loss`; so are the next two.
    on_bad, group : Any
        As there.

    Returns
    -------
    coefficients : Tensor
        Of the shape of the draws: (B,), or at level "token" and by a preset that of `log_pi` (ragged:
        joined), for `weighted_loss` at level "token". Detached.
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
    one_of("on_bad", on_bad, OnBad)
    layout = Layout.of(log_pi, mask, log_mu=log_mu, cu_seqlens=cu_seqlens)
    how = _how(preset, log_proximal, controller, reshape, normalize, level, log_pi, evaluate=False)
    weighed = _weighed(layout, joined(log_pi), joined(log_mu), advantages, how, on_bad, group)
    return weighed.coefficients, weighed.metrics


class _Weighed(NamedTuple):
    """Coefficients of this rank's draws, metrics, and what is known of log_pi.

    `finite` is whether it can pass a gradient on any rank, `plain` whether it is finite under the mask too.
    """

    coefficients: Tensor
    metrics: dict[str, float]
    finite: bool
    plain: bool


def _weighed(
    layout: Layout,
    policy: Tensor,
    sampler: Tensor,
    advantages: Tensor | float,
    how: _How,
    on_bad: OnBad,
    group: distributed.ProcessGroup | None,
) -> _Weighed:
    if how.whole:
        batch = _batch_of_preset(policy, sampler, how.near, advantages, layout, group)
    else:
        batch = _batch(policy, sampler, advantages, layout, how.level, group)
    dtype = torch.promote_types(policy.dtype, torch.float32)
    values, metrics, finite = _outside(_step)(batch, how.take, on_bad, torch.finfo(dtype).max)
    shape = layout.kept.shape if how.level == "token" else (layout.count,)
    mine = values[batch.start : batch.start + prod(shape)]
    if batch.world > 1:
        mine = mine * batch.world
    if dtype == torch.float32:
        mine = mine.astype(np.float32)  # one thread at once: those of torch would have to be woken first
    coefficients = torch.from_numpy(mine).to(device=policy.device, dtype=dtype).reshape(shape)
    return _Weighed(coefficients, metrics, finite, batch.plain)


class _Taken(NamedTuple):
    """Coefficients of draws, metrics, and what makes the step one of the controller if nothing is wrong."""

    coefficients: Floats
    metrics: dict[str, float]
    accept: Callable[[], None]


Taker = Callable[[Floats, Floats, Any], _Taken]  # log-ratios, advantages, and tokens for a preset


class _How(NamedTuple):
    """What turns draws of a level into a step, and whether it goes by tokens and a proximal policy."""

    take: Taker
    level: Level
    whole: bool = False
    near: Tensor | None = None


def _how(
    preset: Preset | None,
    log_proximal: Tokens | None,
    controller: GammaController | None,
    reshape: Reshape | None,
    normalize: Normalize | None,
    level: Level | None,
    log_pi: Tokens,
    *,
    evaluate: bool,
) -> _How:
    beside = {"reshape": reshape, "normalize": normalize, "level": level}
    check_call(preset, log_proximal, {name: value is not None for name, value in beside.items()})
    if preset is None:
        level = "sequence" if level is None else level
        return _How(_taker(controller, reshape, normalize, level, evaluate=evaluate), level)
    near = None if log_proximal is None else joined(log_proximal)
    if near is not None:
        check_tokens(joined(log_pi).shape, near.shape, None)
    if controller is not None and preset.rest is None:
        msg = "this preset has no gamma for a controller to set"
        raise ValueError(msg)
    return _How(partial(_by_preset, preset, controller, evaluate), "token", True, near)


def _by_preset(
    preset: Preset,
    controller: GammaController | None,
    evaluate: bool,
    log_w: Floats,
    _: Floats,
    tokens: FlatTokens,
) -> _Taken:
    usable = tokens._replace(log_w=log_w)
    if controller is None:
        weighed, accept = preset.of_tokens(usable), _nothing
    else:
        schedule = Fixed() if evaluate else controller.schedule
        state, weighed = preset.following(usable, schedule, controller.state, controller.limits)
        accept = _nothing if evaluate else partial(controller.record, state, weighed.measured)
    return _Taken(weighed.coefficients, weighed.metrics(), accept)


def _taker(
    controller: GammaController | None,
    reshape: Reshape | None,
    normalize: Normalize | None,
    level: Level,
    *,
    evaluate: bool,
) -> Taker:
    """What turns log-ratios and advantages into a step."""
    one_of("level", level, Level)

    def fixed(log_w: Floats, advantage: Floats, _: Any) -> _Taken:
        one = Power() if reshape is None else reshape
        _, step = take_step(
            log_w,
            advantage,
            reshape=one,
            schedule=Fixed(),
            state=State(one.exponent),
            normalize=normalize or "batch",
            level=level,
        )
        return _Taken(step.coefficients, step.metrics(), _nothing)

    if controller is None:
        return fixed

    def weighed(log_w: Floats, advantage: Floats, _: Any) -> _Taken:
        step = controller.weights(log_w, advantage, reshape=reshape, normalize=normalize, level=level)
        return _Taken(step.coefficients, step.metrics(), _nothing)

    def proposed(log_w: Floats, advantage: Floats, _: Any) -> _Taken:
        state, step = controller.proposed(log_w, advantage, reshape=reshape, normalize=normalize, level=level)
        return _Taken(step.coefficients, step.metrics(), partial(controller.accept, state, step))

    return weighed if evaluate else proposed


def _nothing() -> None:
    """Without a controller, or in an evaluation, a step changes nothing."""


def _step(batch: _Batch, take: Taker, on_bad: OnBad, largest: float) -> tuple[Floats, dict[str, float], bool]:
    """Coefficients of all ranks' draws, metrics, and whether log_pi is finite; bad draws raise or go."""
    log_w, likelihood, advantage = batch[:3]
    # Of such a draw not even a coefficient of 0 keeps NaN from the parameters.
    whole = batch.plain or likelihood.size == 0
    whole = whole or bool(-np.inf < likelihood.min() and likelihood.max() < np.inf)
    broken = 0 if whole else int(np.count_nonzero(~(likelihood < np.inf)))
    if on_bad == "raise":
        _raise_if_bad(log_w, advantage, broken)
    coefficients, metrics, accept = take(
        np.full_like(log_w, np.nan) if broken else log_w, advantage, batch.tokens
    )
    impossible = None if whole else (coefficients != 0.0) & (likelihood == -np.inf)
    in_range = coefficients.size == 0 or (coefficients.min() >= -largest and coefficients.max() <= largest)
    overflows = not in_range
    if on_bad == "raise" and impossible is not None and impossible.any():
        msg = f"log_pi is -inf for {np.count_nonzero(impossible)} draws that have weight"
        raise ValueError(msg)
    if on_bad == "raise" and overflows:
        msg = f"a coefficient of {np.abs(coefficients).max():g} overflows: normalize by batch"
        raise ValueError(msg)
    accept()
    skipped = broken > 0 or overflows or not metrics["n"]
    nonfinite = metrics["n_nonfinite"]
    if impossible is not None:
        coefficients = np.where(impossible, 0.0, coefficients)
        nonfinite = int(np.count_nonzero(~(log_w < np.inf) | ~np.isfinite(advantage) | impossible))
    values = coefficients
    if skipped or coefficients.size < batch.present.size:
        values = np.zeros(batch.present.size)
        if not skipped:
            values[batch.present] = coefficients
    return values, metrics | {"n_nonfinite": float(nonfinite), "skipped": float(skipped)}, broken == 0


def _raise_if_bad(log_w: Floats, advantage: Floats, broken: int) -> None:
    if log_w.size == 0:
        msg = "no draw to learn from: the mask leaves out every token"
        raise ValueError(msg)
    if broken:
        msg = f"log_pi is NaN or +inf for {broken} of {log_w.size} draws"
        raise ValueError(msg)
    if not steps.all_known(log_w, advantage):
        bad = np.count_nonzero(~(log_w < np.inf)), np.count_nonzero(~np.isfinite(advantage))
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
    """Loss of a batch or a part of it: minus the sum of coefficients times log-likelihoods.

    Parameters
    ----------
    log_pi : Tensor or list of Tensor
        Log-probabilities with their graph, of the whole batch or a part of it; layouts as in
        `is_reshape_loss`.
    coefficients : Tensor
        Those of `reshape_coefficients`, or the part of them that belongs to `log_pi`.
    mask, cu_seqlens, level : Any
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
    NaN is NaN: do not call this for a batch that was ``skipped`` as log_pi is not finite.

    The parts add up to the loss of the batch. Do not divide them by the number of accumulation steps: the
    coefficients are shares of the whole already.

    Examples
    --------
    >>> import torch
    >>> from isdiag.torch import weighted_loss
    >>> weighted_loss(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.25]))
    tensor(1.)
    """
    one_of("level", level, Level)
    return _loss(Layout.of(log_pi, mask, cu_seqlens=cu_seqlens), joined(log_pi), coefficients, level)


def _loss(
    layout: Layout, policy: Tensor, coefficients: Tensor, level: Level, *, plain: bool = False
) -> Tensor:
    """The loss; `plain` says that log_pi is finite throughout, so that a coefficient of 0 is enough."""
    if plain and level == "token":
        return -torch.dot(policy.reshape(-1).to(coefficients.dtype), coefficients.reshape(-1))
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
    level: Level | None = None,
    normalize: Normalize | None = None,
    preset: Preset | None = None,
    log_proximal: Tokens | None = None,
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
        nats. Padded, of shape (B, T), beside `mask`; ragged, a list of B 1-D tensors or a NestedTensor;
        packed, of shape (sum of lengths,), beside `cu_seqlens`; or of shape (B,), summed up. Any float
        dtype and device; half precision is widened before it is added up.
    advantages : Tensor or float
        Advantages or rewards: one for all, of shape (B,) or (B, 1), or of the shape of the tokens. At another
        level than "token" these must be the same at all tokens of a sequence that count; to see that waits
        for the device.
    mask : Tensor or list of Tensor, optional
        Tokens that count, bool or 0 and 1, in the layout of `log_pi`. A sequence without any is no draw.
        One that is not bool is looked at, which waits for the device; so is `cu_seqlens` on a GPU.
    cu_seqlens : Tensor of int, shape (B + 1,), optional
        Where each sequence starts in the packed layout, and where the last one ends.
    reshape : Reshape, optional
        What becomes of the weights; default the controller's, and without one ``Power()``: full
        importance sampling.
    controller : GammaController, optional
        Chooses the exponent of `reshape` and keeps the history.
    level : {"sequence", "token", "geometric"}, optional
        What a draw is; default "sequence". "sequence": w is the product over a sequence, its log-likelihood
        the sum. "geometric": both are means over the tokens (GSPO). "token": each token by itself.
    normalize : {"batch", "count"}, optional
        Divide the weights by their sum, or by the number of draws; default the controller's, and without
        one "batch".
    preset : isdiag.rl.presets.Preset, optional
        A published method whole, in the place of `reshape`, `level` and `normalize`. A `controller` sets
        the gamma of one that has it, `isdiag.rl.presets.adaptive`.
    log_proximal : Tensor or list of Tensor, optional
        For a preset: log-probabilities under the proximal policy, laid out as the others. No gradient flows.
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
        `isdiag.rl.METRICS`, see `isdiag.rl.Step`, and ``skipped``: 1 if the batch was left out. With a preset
        also what `isdiag.rl.presets.Preset.coefficients` has.

    Raises
    ------
    ValueError
        If shapes do not fit, `level`, `normalize` or `on_bad` is unknown, or the batch is bad and `on_bad`
        is "raise".

    Notes
    -----
    * With ``on_bad="skip"``, draws whose log-ratio is NaN or +inf or whose advantage is not finite are left
      out, and ``n_nonfinite`` counts them. A batch is skipped, with a loss of 0, if nothing is left of it,
      if a coefficient overflows, or if `log_pi` itself is NaN or +inf at a token that counts.
    * The loss of a skipped batch has gradients of 0 for every parameter that `log_pi` comes from, so that no
      rank stays away from DistributedDataParallel's reduction, with a `group` or without. Where `log_pi` is
      not finite even a gradient of 0 through the model is NaN; the graph of the loss then leads to the
      parameters past the model. It finds them from `log_pi`, and so does not where that hides them: behind
      a checkpoint with ``use_reentrant=True``, or in a model with parameters that are sharded. There name the
      group, or use ``on_bad="raise"``.
    * A gradient of 0 is one to an optimizer with momentum or weight decay: where ``skipped`` is 1 on every
      rank leave out its step.
    * With gradients disabled, in an evaluation, the controller's gamma is applied as it is: neither gamma nor
      the history moves. `reshape_coefficients` always steps.
    * An error leaves the controller as it was.
    * Dropout makes `log_pi` of two passes differ: an exact copy of the sampler shows an ESS / n of .99 or
      less, which is noise in the weights and nothing of the data. Set it to 0 in training.
    * What draws are made of goes to the CPU at once, where weights and all metrics are computed; there is no
      synchronisation for any metric. With a `group` four numbers a draw are gathered from all ranks first.
    * A mask on sequences is not a weight of 0: draws that are masked away leave n.
    * The loss is for its gradient; its value is not an estimate of a regret.

    References
    ----------
    [Owen2013]_, chapter 9; [Williams1992]_.

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
    gamma 0.31, ESS/n 0.87
    """
    one_of("on_bad", on_bad, OnBad)
    layout = Layout.of(log_pi, mask, log_mu=log_mu, cu_seqlens=cu_seqlens)
    policy = joined(log_pi)
    evaluate = not torch.is_grad_enabled()
    how = _how(preset, log_proximal, controller, reshape, normalize, level, log_pi, evaluate=evaluate)
    weighed = _weighed(layout, policy, joined(log_mu), advantages, how, on_bad, group)
    if not weighed.finite:
        return _outside(_zero)(policy, weighed.coefficients.dtype), weighed.metrics
    return _loss(layout, policy, weighed.coefficients, how.level, plain=weighed.plain), weighed.metrics


def _zero(policy: Tensor, dtype: torch.dtype) -> Tensor:
    """A loss of 0 whose gradient is 0 for whatever log_pi was computed from, and not by way of it."""
    total = torch.zeros((), dtype=dtype, device=policy.device, requires_grad=True)
    for leaf in _leaves(policy):
        total = total + leaf.reshape(-1)[:0].sum().to(total)  # of no entry: its value may be NaN
    return total


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The tensors that a gradient of this one is for."""
    if tensor.grad_fn is None:
        return [tensor] if tensor.requires_grad else []
    found: list[Tensor] = []
    waiting: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set(waiting)
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):  # it adds up the gradient of a leaf
            found.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found
