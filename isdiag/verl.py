"""verl's plugin: loaded by ``import verl`` wherever isdiag is installed, with nothing to configure.

The driver logs what the weights of trainer to sampler look like, of the whole batch, as ``isdiag/...``. With
``algorithm.rollout_correction.rollout_is=isdiag`` it also gives verl its weights, ``w**gamma`` of answers.
With ``actor_rollout_ref.actor.policy_loss.loss_mode=isdiag``, or one of `LOSSES`, the policy loss is
isdiag's, with the driver's gamma. The controller's state is in verl's checkpoints.

verl's own modules are changed as they are imported; none is imported here. What fails is logged as an error,
as verl logs errors of plugins below what is shown.
"""

# verl and torch are annotated only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isdiag._core.check import of_kind
from isdiag._core.typing import Floats
from isdiag.rl import presets, reshapes
from isdiag.rl.controller import GammaController
from isdiag.rl.presets import Preset
from isdiag.rl.ratios import log_ratio
from isdiag.rl.step import Step, compare_weights
from isdiag.torch.loss import reshape_coefficients

__all__ = ["use"]

TESTED = "0.9.1"
_LOG = logging.getLogger(__name__)
_GAMMA = "isdiag_gamma"  # in a batch's meta_info, which goes to the workers
_STATE = "isdiag.json"


class _Plugin:
    """What the driver remembers, and the gamma that a worker was told last."""

    controller = GammaController(reshapes.Power(0.3))
    gamma: float | None = None


def use(controller: GammaController) -> None:
    """Have the driver choose gamma by this controller.

    Call it in a module of yours, and name that in ``VERL_USE_EXTERNAL_MODULES``.

    Parameters
    ----------
    controller : GammaController
        In the place of ``GammaController(Power(0.3))``. Advantages do not exist yet where it is asked, so
        that a reshape that goes by their sign takes all for positive.

    Raises
    ------
    TypeError
        If it is no controller.

    Examples
    --------
    >>> from isdiag.rl import GammaController, Power
    >>> from isdiag.verl import use
    >>> use(GammaController(Power(0.3), ess_min=0.5))
    """
    of_kind("controller", controller, GammaController)
    _Plugin.controller = controller


# --------------------------------------------------------------------------------- the driver's whole batch


def _corrected(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """verl's rollout correction, diagnosed, and with weights of ours if they are asked for."""

    @wraps(theirs)
    def correct(batch: Any, rollout_corr_config: Any) -> Any:
        old, rollout, mask = (
            _numpy(batch.batch[name]) for name in ("old_log_probs", "rollout_log_probs", "response_mask")
        )
        answers = log_ratio(old, rollout, mask)
        there = mask.any(axis=1)
        step = _Plugin.controller.step(answers, normalize="count", where=there)
        ours = rollout_corr_config.get("rollout_is", None) == "isdiag"
        if ours:
            rollout_corr_config = _without_is(rollout_corr_config)
        batch, metrics = theirs(batch, rollout_corr_config)
        if ours:
            batch.batch["rollout_is_weights"] = _weights(step, batch, rollout_corr_config)
        batch.meta_info[_GAMMA] = step.gamma
        logged = step.metrics("isdiag/")
        if "rollout_is_weights" in batch.batch:
            logged |= _as_used(batch, old, rollout, mask, ours)
        return batch, metrics | logged

    return correct


def _weights(step: Step, batch: Any, config: Any) -> Tensor:
    """w**gamma of answers at their tokens; of mean 1 if verl's setting asks for that."""
    weights = step.weights * step.n
    if config.get("rollout_is_batch_normalize", False) and step.mean_weight > 0.0:
        weights = weights / step.mean_weight
    old = batch.batch["old_log_probs"]
    spread = torch.from_numpy(weights).to(old)[:, None].expand(old.shape)
    return spread * batch.batch["response_mask"].to(old)


def _as_used(batch: Any, old: Floats, rollout: Floats, mask: Floats, ours: bool) -> dict[str, float]:
    """What verl's weights and its rejection made of those of answers, or of tokens if they differ within."""
    used = _numpy(batch.batch["rollout_is_weights"])
    kept = _numpy(batch.batch["response_mask"]) > 0
    there = mask > 0
    with np.errstate(divide="ignore"):
        log_used = np.log(np.where(kept, used, 0.0))
    by_answer = ours or bool(
        (np.ptp(np.where(there, used, used.max(axis=1, keepdims=True)), axis=1) == 0).all()
    )
    if not by_answer:
        step = compare_weights(
            log_ratio(old, rollout, mask, level="token"), log_used, level="token", where=there
        )
    else:
        step = compare_weights(log_ratio(old, rollout, mask), log_used.max(axis=1), where=there.any(axis=1))
    return step.metrics("isdiag/used/")


def _without_is(config: Any) -> Any:
    """A copy of the settings that asks verl for no weights."""
    plain = {name: config.get(name, None) for name in ("rollout_rs", "rollout_rs_threshold")}
    plain["rollout_is_batch_normalize"] = config.get("rollout_is_batch_normalize", False)
    return plain | {"rollout_is": None}


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().to(torch.float64).numpy()


# ---------------------------------------------------------------------------------------- the workers' loss


def _clip(config: Any) -> dict[str, float]:
    """Bounds of verl's clip, by the names of a reshape."""
    both = config.clip_ratio
    low, high = (both if each is None else each for each in (config.clip_ratio_low, config.clip_ratio_high))
    return {"low": low, "high": high}


def _of_gamma(_: Any) -> Preset:
    gamma = 0.3 if _Plugin.gamma is None else _Plugin.gamma
    return Preset(reshapes.Power(gamma, caution=3.0, log_z=0.0), "sequence")


def _adaptive(_: Any) -> Preset:
    known = presets.adaptive()
    return known if _Plugin.gamma is None else replace(known, rest=_Plugin.gamma)


# What a policy loss of isdiag is by its name in verl; each has verl's settings where verl has the method.
LOSSES: dict[str, Callable[[Any], Preset]] = {
    "isdiag": _of_gamma,
    "isdiag_adaptive": _adaptive,
    "isdiag_cispo": lambda config: presets.cispo(1.0 + _clip(config)["high"], 1.0 - _clip(config)["low"]),
    "isdiag_gspo": lambda config: presets.gspo(**_clip(config)),
    "isdiag_ppo": lambda config: presets.ppo(**_clip(config), dual=config.get("clip_ratio_c", 3.0)),
    "isdiag_sapo": lambda config: presets.sapo(config.tau_pos, config.tau_neg),
    "isdiag_topr": lambda _: presets.topr(),
    "isdiag_vespo": lambda _: presets.vespo(),
}


def _loss(name: str, agg_loss: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """A policy loss: the preset's weights of the ratio of policy to old, and verl's average."""

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        preset = replace(LOSSES[name](config), average="tokens")
        mask = response_mask.bool()
        # Weights alone: with signs for the advantages a coefficient is a weight over the number of tokens.
        signs = torch.where(advantages < 0.0, -1.0, 1.0).to(log_prob)
        coefficients, metrics = reshape_coefficients(
            log_prob, old_log_prob, signs, mask, preset=preset, on_bad="skip"
        )
        weights = coefficients.abs() * (mask.sum() - metrics["n_nonfinite"])
        if rollout_is_weights is not None:
            weights = weights * rollout_is_weights
        value = -torch.where(weights != 0.0, log_prob, 0.0) * weights * advantages
        total = agg_loss(
            loss_mat=value, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
        )
        gamma = {} if _Plugin.gamma is None else {"actor/isdiag_gamma": _Plugin.gamma}
        return total, gamma

    return loss


def _told(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """verl's loss of a micro-batch, which tells the driver's gamma to ours."""

    @wraps(theirs)
    def ppo_loss(config: Any, model_output: Any, data: Any, dp_group: Any = None) -> Any:
        tensordicts: Any = import_module("verl.utils.tensordict_utils")
        _Plugin.gamma = tensordicts.get_non_tensor_data(data=data, key=_GAMMA, default=None)
        return theirs(config, model_output, data, dp_group)

    return ppo_loss


# ---------------------------------------------------------------------------------------------- checkpoints


def _saving(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def save(self: Any) -> Any:
        done = theirs(self)
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        (folder / _STATE).write_text(json.dumps(_Plugin.controller.state_dict(), allow_nan=False))
        return done

    return save


def _loading(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def load(self: Any) -> Any:
        done = theirs(self)
        trainer = self.config.trainer
        folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        if trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path)
        if trainer.resume_mode != "disable" and (folder / _STATE).exists():
            _Plugin.controller.load_state_dict(json.loads((folder / _STATE).read_text()))
        return done

    return load


# -------------------------------------------------------------------------------- changes to verl's modules


def _change_correction(module: Any) -> None:
    name = "compute_rollout_correction_and_add_to_batch"
    setattr(module, name, _corrected(getattr(module, name)))


def _change_algorithms(module: Any) -> None:
    for name in LOSSES:
        module.register_policy_loss(name)(_loss(name, module.agg_loss))


def _change_losses(module: Any) -> None:
    module.ppo_loss = _told(module.ppo_loss)


def _change_trainer(module: Any) -> None:
    trainer = module.RayPPOTrainer
    trainer._save_checkpoint = _saving(trainer._save_checkpoint)
    trainer._load_checkpoint = _loading(trainer._load_checkpoint)


_CHANGES: dict[str, Callable[[Any], None]] = {
    "verl.trainer.ppo.rollout_corr_helper": _change_correction,
    "verl.trainer.ppo.core_algos": _change_algorithms,
    "verl.workers.utils.losses": _change_losses,
    "verl.trainer.ppo.ray_trainer": _change_trainer,
}


def _change(name: str, module: ModuleType) -> None:
    """Change a module of verl; what is not there as it was is an error in the log."""
    try:
        _CHANGES[name](module)
    except Exception:
        _LOG.exception("isdiag could not change %s: it was tested with verl %s", name, TESTED)


class _Watch:
    """Changes verl's modules when they have been imported."""

    def __init__(self) -> None:
        self._waiting = set(_CHANGES) - set(sys.modules)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What Python asks of a finder: the module as others find it, changed when it has run."""
        del path, target
        if name not in self._waiting:
            return None
        self._waiting.remove(name)  # so that this is not asked again
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_change(module: ModuleType) -> None:
                run(module)
                _change(name, module)

            spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


for _name in _CHANGES:
    if _name in sys.modules:
        _change(_name, sys.modules[_name])
sys.meta_path.insert(0, _Watch())
