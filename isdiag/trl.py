"""TRL's trainers with their importance weights diagnosed, or replaced, by a mixin.

``class Trainer(ISDiagMixin, GRPOTrainer): pass`` logs; `ISDiagReshapeMixin` also replaces the weights. They
are for TRL's `GRPOTrainer` and `RLOOTrainer`; nothing of TRL is imported here.
"""

# torch and TRL are annotated only in part, and a mixin's base is not known here.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from math import inf
from pathlib import Path
from sys import float_info
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, distributed

from isdiag._core.check import of_kind
from isdiag._core.typing import Floats
from isdiag.rl import reshapes
from isdiag.rl.controller import GammaController
from isdiag.rl.presets import Preset
from isdiag.rl.step import loggable
from isdiag.rl.tokens import Tokens
from isdiag.torch.loss import is_reshape_loss
from isdiag.torch.ranks import gather

__all__ = ["ISDiagMixin", "ISDiagReshapeMixin"]

TESTED = ("1.0.0", "1.16.0")
# What the mixins lean on: methods of TRL and of transformers without a promise.
HOOKS = (
    "_compute_loss",
    "_get_per_token_logps_and_entropies",
    "_save_checkpoint",
    "_load_optimizer_and_scheduler",
    "_get_output_dir",
)
# Settings whose part in TRL's loss would be lost with it, and the values that have none.
_DROPPED = {
    "beta": 0.0,
    "off_policy_mask_threshold": None,
    "top_entropy_quantile": 1.0,
    "_entropy_bonus_enabled": False,
    "aux_loss_enabled": False,
}
_STATE = "isdiag.json"
# Numbers of a step that say what an exponent does: where TRL weighs there is none.
_OF_GAMMA = frozenset({"gamma", "gamma_batch", "ess_ratio_tempered", "alarm_stale"})


class _Part(NamedTuple):
    """A micro-batch: log-probabilities of tokens, or of answers as tokens, each (B, T)."""

    log_pi: Tensor
    old: Tensor
    sampler: Tensor | None
    advantage: Tensor
    mask: Tensor

    @classmethod
    def of(cls, log_pi: Tensor, inputs: dict[str, Any]) -> _Part:
        mask = inputs["completion_mask"].bool()
        if "tool_mask" in inputs:
            mask = mask & inputs["tool_mask"].bool()
        if "old_logps" in inputs:  # RLOO has them of answers
            log_pi = torch.where(mask, log_pi, 0.0).sum(dim=1, keepdim=True)
            old, mask = inputs["old_logps"][:, None], mask.any(dim=1, keepdim=True)
        else:
            old = inputs.get("old_per_token_logps")
            old = log_pi.detach() if old is None else old
        sampler = inputs.get("sampling_per_token_logps")
        if sampler is not None:
            sampler = torch.where(sampler.isnan(), old, sampler)  # of these tokens vLLM knew none
        return cls(log_pi, old, sampler, inputs["advantages"], mask)

    def on_host(self) -> list[Floats]:
        """What a diagnosis needs of the tokens that count, the number of the answer last."""
        mask = self.mask.cpu().numpy()
        count = len(mask)
        sampler = self.old if self.sampler is None else self.sampler
        columns = (self.log_pi.detach(), self.old, sampler, self.advantage.reshape(count, -1))
        wide = [each.cpu().double().numpy() for each in columns]
        wide.append(np.arange(count, dtype=np.float64)[:, None])
        return [np.broadcast_to(each, mask.shape)[mask] for each in wide]


class ISDiagMixin:
    """Logs what importance weights look like, once an optimizer step, and leaves training as it is.

    Put it before a trainer of TRL: ``class Trainer(ISDiagMixin, GRPOTrainer): pass``. A run has the same
    parameters, to the last bit, as one without.

    Parameters
    ----------
    *args : Any
        For the trainer.
    controller : GammaController, optional
        Chooses the gamma that is logged; default ``GammaController()``.
    **kwargs : Any
        For the trainer.

    Attributes
    ----------
    controller : GammaController
        Steps once an optimizer step, and not in an evaluation; its state is part of each checkpoint. Its
        `history` has all steps.

    Raises
    ------
    ImportError
        If TRL's version is not in ``>=1.0,<2``.
    TypeError
        If the trainer lacks a method that this leans on, or the controller is none.
    ValueError
        If the loss is Liger's, which does not pass by.

    Notes
    -----
    A batch is the window of an optimizer step: all its micro-batches, of all ranks. Keys are
    ``isdiag/`` and a name of `isdiag.rl.METRICS`; numbers that are not finite are left out.

    * ``isdiag/...``: weights of answers, policy to sampler (to the policy at sampling where the sampler's
      log-probabilities are not known), raw and as the controller's reshape has them; ``gamma_batch`` is what
      this batch allows, ``gamma`` is smoothed.
    * ``isdiag/policy/...``: policy to policy at sampling, raw and as the trainer's loss clips it, at the
      level of its ratios.
    * ``isdiag/sampler/...``, where known: policy at sampling to sampler, raw and as TRL truncates or masks
      it, at that level.

    Examples
    --------
    >>> from isdiag.trl import ISDiagMixin
    >>> class Trainer(ISDiagMixin):  # GRPOTrainer, behind the mixin
    ...     pass
    """

    args: Any
    accelerator: Any
    model: Any
    state: Any
    current_gradient_accumulation_steps: int
    compute_loss_func: Any
    _metrics: Any

    def __init__(self, *args: Any, controller: GammaController | None = None, **kwargs: Any) -> None:
        _check_version(metadata.version("trl"))
        self.controller = self._default_controller() if controller is None else controller
        of_kind("controller", self.controller, GammaController)
        for name in HOOKS:
            if not callable(getattr(super(), name, None)):
                msg = (
                    f"{type(self).__name__} has no {name} behind the mixin: put the mixin first, before a "
                    f"trainer of TRL {TESTED[0]} to {TESTED[-1]}"
                )
                raise TypeError(msg)
        self._log_pi: Tensor | None = None
        self._window: list[_Part] = []
        super().__init__(*args, **kwargs)
        if hasattr(self, "compute_liger_loss") and getattr(self, "use_liger_kernel", False):
            msg = "use_liger_kernel=True has no log-probabilities of tokens to diagnose: set it to False"
            raise ValueError(msg)

    def _default_controller(self) -> GammaController:
        return GammaController()

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = cast("Any", super())._get_per_token_logps_and_entropies(*args, **kwargs)
        if found[0].requires_grad:
            self._log_pi = found[0]
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._log_pi = None
        loss = cast("Any", super())._compute_loss(model, inputs)
        log_pi, self._log_pi = self._log_pi, None
        if not self.model.training:
            return loss
        if log_pi is None:
            msg = (
                "the loss did not ask _get_per_token_logps_and_entropies for log-probabilities: isdiag.trl "
                f"was tested with TRL {', '.join(TESTED)}"
            )
            raise RuntimeError(msg)
        part = _Part.of(log_pi, inputs)
        loss = self._loss_of(loss, part, inputs)
        self._window.append(part._replace(log_pi=part.log_pi.detach()))
        if self.accelerator.sync_gradients:
            self._close()
        return loss

    def _loss_of(self, loss: Tensor, part: _Part, inputs: dict[str, Any]) -> Tensor:
        """The loss of a micro-batch: TRL's."""
        del part, inputs
        return loss

    def _close(self) -> None:
        """Diagnose the window, joined over ranks, and log."""
        known = self._window[0].sampler is not None
        joined = _joined(self._window, self.accelerator)
        self._window.clear()
        pi, old, sampler, advantage, row = joined
        tokens = Tokens.of(pi, sampler, None, advantage, row)
        answers = tokens.over("sum", tokens.log_w)
        step = self.controller.step(answers, tokens.over("mean", advantage))
        logged = step.metrics("isdiag/")
        logged |= _weighed(self._policy_tokens(joined, known), self._method(), "isdiag/policy/")
        if known:
            of_sampler = Tokens.of(old, sampler, None, advantage, row)
            logged |= _weighed(of_sampler, _correction(self), "isdiag/sampler/")
        for name, value in logged.items():
            self._metrics["train"][name].append(value)

    def _method(self) -> Preset:
        """What becomes of the policy's ratio."""
        return _method(self)

    def _policy_tokens(self, joined: Floats, known: bool) -> Tokens:
        """Tokens as that method takes them."""
        del known
        pi, old, _, advantage, row = joined
        return Tokens.of(pi, old, None, advantage, row)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer = cast("Any", super())
        trainer._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(trainer._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            (folder / _STATE).write_text(json.dumps(self.controller.state_dict(), allow_nan=False))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        cast("Any", super())._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / _STATE).exists():
            self.controller.load_state_dict(json.loads((Path(checkpoint) / _STATE).read_text()))


class ISDiagReshapeMixin(ISDiagMixin):
    """Replaces the weights of a trainer's loss, and logs as `ISDiagMixin` does.

    The loss is that of a preset, or of answers' weights ``w**gamma`` averaged over tokens; in the trainer's
    it takes the place of everything: the clip, the average, and the correction for the sampler.

    Parameters
    ----------
    *args : Any
        For the trainer.
    preset : isdiag.rl.presets.Preset, optional
        A method whole. Its second ratio, if it has one, is that of the policy at sampling to the sampler.
    controller : GammaController, optional
        Sets gamma: of its own reshape without a preset, of `Preset.rest` with one that has it. A micro-batch
        is weighed with the gamma that the windows before it came to. Default
        ``GammaController(Power(0.3, caution=3, log_z=0))``, and with such a preset
        ``GammaController(Power(), ess_min=0.5, k_max=inf)``.
    **kwargs : Any
        For the trainer.

    Raises
    ------
    ImportError, TypeError
        As `ISDiagMixin` does.
    ValueError
        If something else has a part in the trainer's loss, which would be lost: a KL penalty (``beta``), a
        mask by entropy or KL, an entropy bonus, an auxiliary loss of experts; or the loss is Liger's.

    Notes
    -----
    * Parts of a window add up to the gradient of the whole, but where a method goes by other answers, which
      are then those of the micro-batch: the mean of `Preset.rest`, `Power` with caution and ``log_z=None``,
      `ParetoSmoothed`.
    * In an evaluation the loss is the trainer's own.
    * A micro-batch with NaN leaves the draws out, as ``is_reshape_loss(..., on_bad="skip")`` does.

    Examples
    --------
    >>> from isdiag.trl import ISDiagReshapeMixin
    >>> class Trainer(ISDiagReshapeMixin):  # GRPOTrainer, behind the mixin
    ...     pass
    """

    def __init__(
        self,
        *args: Any,
        preset: Preset | None = None,
        controller: GammaController | None = None,
        **kwargs: Any,
    ) -> None:
        if preset is not None:
            of_kind("preset", preset, Preset)
        self.preset = preset
        super().__init__(*args, controller=controller, **kwargs)
        dropped = dict(_DROPPED) if hasattr(self, "loss_type") else {"aux_loss_enabled": False}
        for name, neutral in dropped.items():  # RLOO's KL penalty is in its rewards
            if getattr(self, name, neutral) != neutral:
                msg = (
                    f"{name}={getattr(self, name)!r} has a part in the trainer's loss, which is replaced: it "
                    f"must be {neutral!r}"
                )
                raise ValueError(msg)

    def _default_controller(self) -> GammaController:
        if self.preset is None or self.preset.rest is None:
            return GammaController(reshapes.Power(0.3, caution=3.0, log_z=0.0))
        return GammaController(reshapes.Power(), gamma_init=self.preset.rest, ess_min=0.5, k_max=inf)

    def _method(self) -> Preset:
        if self.preset is None:
            return Preset(self.controller.reshape.at(self.controller.gamma), "sequence")
        return self.preset if self.preset.rest is None else replace(self.preset, rest=self.controller.gamma)

    def _policy_tokens(self, joined: Floats, known: bool) -> Tokens:
        pi, old, sampler, advantage, row = joined
        return Tokens.of(pi, sampler, old if known and self.preset is not None else None, advantage, row)

    def _loss_of(self, loss: Tensor, part: _Part, inputs: dict[str, Any]) -> Tensor:
        method = self._method()
        two = part.sampler is not None and self.preset is not None
        loss, _ = is_reshape_loss(
            part.log_pi,
            part.old if part.sampler is None else part.sampler,
            part.advantage,
            part.mask,
            preset=method,
            log_proximal=part.old if two else None,
            on_bad="skip",
        )
        parts = self.current_gradient_accumulation_steps
        if method.average == "tokens" and "num_items_in_batch" in inputs:
            # A part's share of the window's tokens, which are those of a generation split over its steps.
            tokens = inputs["num_items_in_batch"] * parts / self.args.steps_per_generation
            loss = loss * part.mask.sum() * self.accelerator.num_processes * parts / tokens
        # Where a trainer does not say that its loss is a share of the window, transformers divides it.
        divided = getattr(self, "loss_is_scaled_for_ga", None)
        return loss / parts if divided or self.compute_loss_func is not None else loss


def _check_version(version: str) -> None:
    if version.split(".", maxsplit=1)[0] != "1":
        msg = f"isdiag.trl is for trl>=1.0,<2 and was tested with {', '.join(TESTED)}; this is trl {version}"
        raise ImportError(msg)


def _joined(window: list[_Part], accelerator: Any) -> Floats:
    """What `_Part.on_host` has of a window and of all ranks, answers numbered throughout."""
    parts = [np.stack(part.on_host()) for part in window]
    first = 0
    for part, of_window in zip(parts, window, strict=True):
        part[-1] += first
        first += len(of_window.mask)
    columns = np.concatenate(parts, axis=1)
    if accelerator.num_processes == 1:
        return columns
    columns[-1] = columns[-1] * accelerator.num_processes + accelerator.process_index
    there = torch.from_numpy(columns).to(accelerator.device)
    return gather(there, distributed.group.WORLD).columns.cpu().numpy()


def _weighed(tokens: Tokens, preset: Preset, prefix: str) -> dict[str, float]:
    """What becomes of the weights of tokens, for a logger."""
    metrics = preset.of_tokens(tokens).measured
    return loggable({name: value for name, value in metrics.items() if name not in _OF_GAMMA}, prefix)


def _method(trainer: Any) -> Preset:
    """What a trainer's loss makes of the ratio of the policy to that at sampling; its average has no part."""
    args = trainer.args
    loss = getattr(trainer, "loss_type", "rloo")
    level = "geometric" if getattr(trainer, "importance_sampling_level", "") == "sequence" else "token"
    if loss == "cispo":
        return Preset(reshapes.CISPO(0.0, trainer.epsilon_high), level)
    if loss == "sapo":
        return Preset(reshapes.SAPO(args.sapo_temperature_pos, args.sapo_temperature_neg), level)
    if loss == "vespo":
        by_sign = (args.vespo_k_pos, args.vespo_lambda_pos, args.vespo_k_neg, args.vespo_lambda_neg)
        return Preset(reshapes.VESPO(*by_sign), "sequence")
    dual = getattr(args, "delta", None)
    return Preset(reshapes.PPOClip(trainer.epsilon_low, trainer.epsilon_high, dual), level)


def _correction(trainer: Any) -> Preset:
    """What a trainer makes of the ratio of the policy at sampling to the sampler."""
    if not (trainer.use_vllm and trainer.vllm_importance_sampling_correction):
        return Preset(reshapes.Power(0.0))  # nothing
    level, _, how = trainer.vllm_importance_sampling_mode.partition("_")
    if hasattr(trainer, "vllm_importance_sampling_clip_max"):
        low, high = trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max
    else:
        low, high = None, trainer.vllm_importance_sampling_cap
    bounds = (0.0 if low is None else low, float_info.max if high is None else high)
    return Preset(reshapes.CISPO(*bounds) if how == "truncate" else reshapes.Masked(*bounds), level)
