"""A trainer: losses for a model on samples of another, gamma chosen as training goes."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, distributed, nn

from isdiag._core.check import number, one_of
from isdiag._gamma import select_gamma
from isdiag._tails import pareto_khat
from isdiag._weights import ess
from isdiag.rl.controller import GammaController
from isdiag.rl.layouts import Level
from isdiag.rl.presets import Preset
from isdiag.rl.reshapes import Defensive, Power, Reshape
from isdiag.rl.schedules import Cosine, Diagnosed, ESSAdaptive, Fixed, Linear, Schedule, State
from isdiag.rl.step import Normalize
from isdiag.torch.language_models import log_probs_of, unwrapped
from isdiag.torch.loss import OnBad, is_reshape_loss

GammaSchedule = Literal["fixed", "linear", "cosine", "ess", "adaptive"]


class ISReshapeTrainer:
    """Losses for training a model on samples of another, with gamma chosen as training goes.

    Parameters
    ----------
    model : Module
        The policy that learns: with a method ``log_prob(y, x)`` that returns (B,) log-probabilities of
        responses given prompts, or (B, T) of their tokens; or a Hugging Face causal language model, see
        `sequence_log_probs`.
    ref_model : Module or None
        The policy that sampled, of either kind. It is frozen: no gradients, evaluation mode. None where
        `compute_loss` is always given `log_mu`.
    gamma_init : float, default 0.3
        Exponent of the weights at the start; `gamma_max` if that is smaller.
    gamma_max : float, default 1
        Largest exponent; with 0 gamma stays 0, as in supervised fine-tuning.
    gamma_schedule : {"adaptive", "fixed", "linear", "cosine", "ess"}, default "adaptive"
        "adaptive" follows the diagnosis of each batch, nine parts old and one part new; "ess" goes by ESS
        alone, up and down in small steps; "linear" and "cosine" lead from `gamma_init` to `gamma_max` as
        `update_gamma_schedule` says.
    ess_min_ratio : float, default 0.3
        Smallest ESS / n allowed; 0 for no limit.
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
    level : {"sequence", "token", "geometric"}, default "sequence"
        What a draw and its log-ratio are, see `is_reshape_loss`.
    preset : isdiag.rl.presets.Preset, optional
        A method whole whose gamma the trainer sets, `isdiag.rl.presets.adaptive`, in the place of `reshape`,
        `normalize` and `level`. Models must give log-probabilities of tokens. It wants ``ess_min_ratio=0.5``
        and ``psis_k_max=inf``.
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
        If `gamma_schedule` is unknown, an argument is out of range, both models are the same object, two of
        `use_defensive`, `reshape` and `preset` are given, `preset` comes with a `normalize` or `level`, or it
        has no gamma to set.

    Notes
    -----
    The steps of a loss are methods too, for those who write a loop of their own:
    `compute_log_importance_weights`, `estimate_pareto_k`, `compute_ess_ratio`, `select_gamma`,
    `compute_weights`. Where they depart from the printed trainer whose names they bear, and why, is a
    table in the reference of `isdiag.torch`.

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
    >>> x, y, rewards = (
    ...     torch.tensor([0, 1, 2, 0]),
    ...     torch.tensor([4, 1, 0, 2]),
    ...     torch.tensor([1.0, 0, 0, 1]),
    ... )
    >>> loss, metrics = trainer.compute_loss(x, y, rewards)
    >>> loss.backward()
    >>> round(metrics["gamma"], 3), metrics["ess_ratio"]
    (0.37, 1.0)
    """

    def __init__(
        self,
        model: nn.Module,
        ref_model: nn.Module | None,
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
        level: Level = "sequence",
        preset: Preset | None = None,
        on_bad: OnBad = "raise",
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        if ref_model is not None and unwrapped(model) is unwrapped(ref_model):
            msg = "model and ref_model are the same object, and ref_model is to be frozen: pass a copy"
            raise ValueError(msg)
        one_of("gamma_schedule", gamma_schedule, GammaSchedule)
        one_of("level", level, Level)
        number("gamma_init", gamma_init, 0.0)
        number("gamma_max", gamma_max, 0.0, ends="[)")
        if use_defensive and reshape is not None:
            msg = f"use_defensive asks for Defensive weights and reshape for {reshape!r}: choose one"
            raise ValueError(msg)
        if preset is not None:
            beside = use_defensive or reshape is not None, normalize != "batch", level != "sequence"
            if any(beside):
                msg = "preset has weights, normalization and level of its own: leave the others out"
                raise ValueError(msg)
            if preset.rest is None:
                msg = "this preset has no gamma for a trainer to set: give it to is_reshape_loss"
                raise ValueError(msg)
        start = min(gamma_init, gamma_max)
        plain = Defensive(start, defensive_alpha) if use_defensive else Power(start)
        self.model = model
        self.ref_model = None if ref_model is None else ref_model.requires_grad_(False).eval()
        self.gamma_init = start
        self.gamma_max = gamma_max
        self.gamma_schedule: GammaSchedule = gamma_schedule
        self.use_defensive = use_defensive
        self.alpha = defensive_alpha
        self.level: Level = level
        self.preset = preset
        self.on_bad: OnBad = on_bad
        self.group = group
        schedule: Schedule = Fixed()
        if gamma_max > 0.0 and gamma_schedule == "adaptive":
            schedule = Diagnosed()
        if gamma_max > 0.0 and gamma_schedule == "ess":
            schedule = ESSAdaptive(ess_min_ratio, gamma_max=gamma_max)
        self.controller = GammaController(
            reshape or plain,
            schedule,
            gamma_init=start,
            gamma_max=gamma_max or 1.0,  # what batches allow is told of an exponent held at 0 too
            ess_min=ess_min_ratio,
            k_max=psis_k_max,
            normalize=normalize,
        )

    @property
    def gamma(self) -> float:
        """The exponent now in use; may be set, to a number between 0 and `gamma_max`."""
        return self.controller.gamma

    @gamma.setter
    def gamma(self, value: float) -> None:
        gamma = number("gamma", value, 0.0, self.gamma_max)
        self.controller.state = State(gamma, self.controller.state.step)

    @property
    def ess_min(self) -> float:
        """Smallest ESS / n allowed."""
        return self.controller.limits.ess_min

    @property
    def psis_k_max(self) -> float | None:
        """Largest khat allowed."""
        return self.controller.limits.k_max

    @property
    def diagnostics(self) -> Mapping[str, list[float]]:
        """Each of `isdiag.rl.METRICS` over the last steps, oldest first; it grows as they do."""
        return self.controller.history

    def compute_log_importance_weights(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Log-ratios of the responses, and their log-probabilities under `model`.

        Parameters
        ----------
        x, y : Any
            Prompts and responses, as the models take them.

        Returns
        -------
        log_w, log_pi : Tensor of shape (B,)
            ``log pi - log mu`` and ``log pi``, of whole sequences; both carry the gradient of `model`.

        Raises
        ------
        ValueError
            If there is no `ref_model`.
        """
        log_pi, mask, log_mu = self._log_probs(x, y, None)
        if mask is not None:
            log_pi, log_mu = (torch.where(mask, tokens, 0.0) for tokens in (log_pi, log_mu))
        if log_pi.ndim == 2:
            log_pi, log_mu = log_pi.sum(dim=1), log_mu.sum(dim=1)
        return log_pi - log_mu, log_pi

    def estimate_pareto_k(self, w: Tensor) -> float:
        """Shape of the tail of weights, `isdiag.pareto_khat`.

        Parameters
        ----------
        w : Tensor of shape (B,)
            Weights >= 0.

        Returns
        -------
        float
            khat; NaN below 30 draws, -inf for equal weights.
        """
        return pareto_khat(_double(w).log())

    def compute_ess_ratio(self, log_w_gamma: Tensor) -> float:
        """ESS / n of weights, by `isdiag.ess`.

        Parameters
        ----------
        log_w_gamma : Tensor of shape (B,)
            Log-weights, ``gamma * log_w`` for those of ``w**gamma``.

        Returns
        -------
        float
            Between 1 / n and 1.
        """
        return ess(_double(log_w_gamma)) / log_w_gamma.numel()

    def select_gamma(self, log_w: Tensor) -> tuple[float, float]:
        """The largest exponent that the limits allow on a batch, and khat, by `isdiag.select_gamma`.

        Parameters
        ----------
        log_w : Tensor of shape (B,)
            Log-ratios.

        Returns
        -------
        gamma, khat : float
            Neither the exponent in use nor the history moves.
        """
        limits = self.controller.limits
        found = select_gamma(
            _double(log_w), k_max=limits.k_max, ess_min=limits.ess_min, gamma_max=limits.gamma_max
        )
        return min(found.gamma, self.gamma_max), found.khat

    def compute_weights(self, log_w: Tensor) -> Tensor:
        """The weights of a batch at the exponent in use, divided by their sum.

        Parameters
        ----------
        log_w : Tensor of shape (B,)
            Log-ratios.

        Returns
        -------
        Tensor of shape (B,)
            Weights that sum to 1, those of positive advantages; without a gradient.
        """
        step = self.controller.weights(_double(log_w).numpy(), normalize="batch")
        return torch.from_numpy(step.weights).to(log_w)

    def _log_probs(self, x: Any, y: Any, log_mu: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        if log_mu is None and self.ref_model is None:
            msg = "log_mu must be given where there is no ref_model"
            raise ValueError(msg)
        log_pi, mask = log_probs_of(self.model, x, y)
        if self.ref_model is not None and log_mu is None:
            with torch.no_grad():
                log_mu, _ = log_probs_of(self.ref_model, x, y)
        return log_pi, mask, cast("Tensor", log_mu)

    def compute_loss(
        self, x: Any, y: Any, rewards: Tensor | float, *, log_mu: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and what its weights look like.

        With `model` in evaluation mode, or gradients disabled, this is an evaluation: gamma and the history
        stay as they are, and the loss has no graph. To train without dropout set its p to 0 and leave the
        model in training mode.

        Parameters
        ----------
        x, y : Any
            Prompts and responses, as the models take them.
        rewards : Tensor of shape (B,), or float
            Rewards or advantages; 1 for supervised fine-tuning.
        log_mu : Tensor, optional
            Log-probabilities under the policy that sampled, as it gave them then, in the shape of those of
            `model`; `ref_model` is not asked.

        Returns
        -------
        loss : Tensor
            0-d, to call ``backward()`` on.
        metrics : dict of str to float
            As `is_reshape_loss` gives them.

        Raises
        ------
        ValueError
            If the batch is bad and `on_bad` is "raise", shapes do not fit, or there is neither `log_mu` nor
            a `ref_model`.
        TypeError
            If a model has no `log_prob` and returns no logits.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.model.training):
            log_pi, mask, known = self._log_probs(x, y, log_mu)
            return is_reshape_loss(
                log_pi,
                known,
                rewards,
                mask,
                controller=self.controller,
                level=None if self.preset else self.level,
                preset=self.preset,
                on_bad=self.on_bad,
                group=self.group,
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
            self.gamma = annealed(total_steps, self.gamma_init, self.gamma_max).at(step)


def _double(values: Tensor) -> Tensor:
    return values.detach().cpu().double()
