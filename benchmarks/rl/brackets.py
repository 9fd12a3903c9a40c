"""Closing open brackets in their order: answers of several lengths, right or wrong as a whole."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot
from training import Adam, Draws, Sampler, inverse_cdf

KINDS, SHORTEST, LONGEST, WIDTH = 3, 2, 5, 32
END = NONE = KINDS  # among answers and among prompts
LENGTH = LONGEST + 1
INPUTS = LONGEST * (KINDS + 1) + LENGTH
SIZES = [INPUTS * WIDTH, WIDTH, WIDTH * (KINDS + 1)]
PRETRAINING = {"updates": 60, "batch": 64, "rate": 0.01}
SCORED = 256
ABOUT = (
    f"Brackets of {KINDS} kinds, {SHORTEST} to {LONGEST} of them open, to be closed in their order and then "
    f"ended, by a network of {WIDTH} units that sees the prompt and the position; eight answers a prompt. "
    "The reward is 1 if all of the answer is right, else 0; advantages are normalised within the eight. "
    "Policies are pretrained on a few examples."
)


def _prompts(numbers: torch.Tensor) -> torch.Tensor:
    """Open brackets, the last one first, of uniform numbers (..., LONGEST + 1)."""
    count = SHORTEST + (numbers[..., :1] * (LONGEST - SHORTEST + 1)).long().clamp(max=LONGEST - SHORTEST)
    kinds = (numbers[..., 1:] * KINDS).long().clamp(max=KINDS - 1)
    return torch.where(torch.arange(LONGEST, device=numbers.device) < count, kinds, NONE)


def _meant(prompt: torch.Tensor) -> torch.Tensor:
    """The only right answer; what follows its end is END too."""
    return torch.cat([prompt, torch.full_like(prompt[..., :1], END)], -1)


class Brackets:
    """Policies of some seeds, pretrained, each the same for all its learning rates."""

    group = 8

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.rand(len(seeds), SCORED, LONGEST + 1 + LENGTH, generator=rng)

    def start(self) -> torch.Tensor:
        drawn = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        scale = torch.cat(
            [torch.full((size,), s) for size, s in zip(SIZES, (0.4, 0.0, WIDTH**-0.5), strict=True)]
        )
        theta = torch.stack([torch.randn(sum(SIZES), generator=rng) for rng in drawn]) * scale
        theta = theta.to(self.device)
        adam = Adam(theta, torch.full((len(self.seeds),), PRETRAINING["rate"], device=self.device))
        for _ in range(PRETRAINING["updates"]):
            shape = PRETRAINING["batch"], LONGEST + 1
            prompt = torch.stack([_prompts(torch.rand(shape, generator=rng)) for rng in drawn])
            prompt = prompt.to(self.device)
            theta.requires_grad_()
            log_p = self._log_probs(theta, prompt, _meant(prompt))
            slope = torch.autograd.grad(-log_p.mean((1, 2)).sum(), theta)[0]
            theta = adam.step(theta.detach(), slope)
        return theta.repeat_interleave(self.rates, 0)

    def _logits(self, theta: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """At all positions, (runs, draws, LENGTH, KINDS + 1); earlier tokens have no part in them."""
        into, bias, out = theta.split(SIZES, dim=1)
        into = into.view(-1, INPUTS, WIDTH)
        runs, draws = prompt.shape[:2]
        seen = one_hot(prompt, KINDS + 1).to(theta.dtype).view(runs, draws, -1)
        from_prompt = seen @ into[:, :-LENGTH] + bias[:, None]
        hidden = torch.tanh(from_prompt[:, :, None] + into[:, None, -LENGTH:])
        found = hidden.view(runs, draws * LENGTH, WIDTH) @ out.view(-1, WIDTH, KINDS + 1)
        return found.view(runs, draws, LENGTH, KINDS + 1)

    def _log_probs(self, theta: torch.Tensor, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(self._logits(theta, prompt), -1).gather(-1, answer[..., None])[..., 0]

    @torch.no_grad()
    def _answer(
        self, theta: torch.Tensor, prompt: torch.Tensor, uniform: torch.Tensor, sampler: Sampler
    ) -> Draws:
        found = sampler.log_probs(self._logits(theta, prompt))
        answer = inverse_cdf(found.exp(), uniform)
        ended = (answer == END).long()
        mask = ended.cumsum(-1) - ended == 0
        answer = torch.where(mask, answer, END)
        log_q = torch.where(mask, found.gather(-1, answer[..., None])[..., 0], 0.0)
        return Draws(prompt, answer, log_q, (answer == _meant(prompt)).all(-1).float(), mask)

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        numbers = torch.rand(len(self.seeds), count // self.group, LONGEST + 1, generator=rng)
        uniform = torch.rand(len(self.seeds), count, LENGTH, generator=rng)
        prompt = _prompts(numbers).repeat_interleave(self.group, 1)
        prompt, uniform = (a.to(self.device).repeat_interleave(self.rates, 0) for a in (prompt, uniform))
        return self._answer(theta, prompt, uniform, sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        return torch.where(draws.mask, self._log_probs(theta, draws.prompt, draws.answer), 0.0)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward on prompts that stay the same."""
        numbers = self.scored.to(self.device).repeat_interleave(self.rates, 0)
        prompt = _prompts(numbers[..., : LONGEST + 1])
        return {"reward": self._answer(theta, prompt, numbers[..., LONGEST + 1 :], Sampler()).reward.mean(1)}
