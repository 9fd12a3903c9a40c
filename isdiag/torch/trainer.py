"""A trainer: losses for a model on samples of another, gamma chosen as training goes."""

# torch annotates these only in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from isdiag._core.check import one_of
from isdiag.rl.controller import GammaController
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
        if unwrapped(model) is unwrapped(ref_model):
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
    def diagnostics(self) -> Mapping[str, list[float]]:
        """Each of `isdiag.rl.METRICS` over the last steps, oldest first."""
        return self.controller.history

    def compute_loss(self, x: Any, y: Any, rewards: Tensor | float) -> tuple[Tensor, dict[str, float]]:
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
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.model.training):
            log_pi, mask = log_probs_of(self.model, x, y)
            with torch.no_grad():
                log_mu, _ = log_probs_of(self.ref_model, x, y)
            return is_reshape_loss(
                log_pi,
                log_mu,
                rewards,
                mask,
                controller=self.controller,
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
            schedule = annealed(total_steps, self.gamma_init, self.controller.limits.gamma_max)
            self.controller.state = State(schedule.at(step), self.controller.state.step)
