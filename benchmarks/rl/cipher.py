"""A hidden substitution, learnt by a small network from how far an answer is right."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import one_hot
from training import Draws, Sampler, inverse_cdf

SYMBOLS, LENGTH, WIDTH = 12, 8, 24
INPUTS = 2 * SYMBOLS + 1  # a symbol of the prompt, and the token before or none
SIZES = [INPUTS * WIDTH, WIDTH, WIDTH * SYMBOLS]
SCORED = 128
ABOUT = (
    f"A substitution of {SYMBOLS} symbols, in messages of {LENGTH}, by a network of {WIDTH} units that "
    "sees a symbol and the token before; eight answers a message. The reward is the share of a message that "
    "is right before the first fault; advantages are normalised within the eight."
)


class Cipher:
    """Problems of some seeds, each the same for all its learning rates."""

    group = 8

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        key = np.stack([np.random.default_rng([seed, 6]).permutation(SYMBOLS) for seed in seeds])
        self.key = torch.tensor(key, device=device).repeat_interleave(rates, 0)
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.rand(len(seeds), SCORED, 2 * LENGTH, generator=rng)

    def start(self) -> torch.Tensor:
        drawn = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        scale = torch.cat([torch.full((size,), s) for size, s in zip(SIZES, (0.7, 0.0, 0.1), strict=True)])
        theta = torch.stack([torch.randn(sum(SIZES), generator=rng) for rng in drawn]) * scale
        return theta.to(self.device).repeat_interleave(self.rates, 0)

    def _logits(self, theta: torch.Tensor, prompt: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        into, bias, out = theta.split(SIZES, dim=1)
        inputs = torch.cat([one_hot(prompt, SYMBOLS), one_hot(before, SYMBOLS + 1)], -1).float()
        flat = inputs.view(len(theta), -1, INPUTS) @ into.view(-1, INPUTS, WIDTH) + bias[:, None]
        return (torch.tanh(flat) @ out.view(-1, WIDTH, SYMBOLS)).view(*prompt.shape, SYMBOLS)

    @torch.no_grad()
    def _answer(
        self, theta: torch.Tensor, prompt: torch.Tensor, uniform: torch.Tensor, sampler: Sampler
    ) -> Draws:
        before = torch.full_like(prompt[..., 0], SYMBOLS)
        tokens, log_q = [], []
        for i in range(LENGTH):
            found = sampler.log_probs(self._logits(theta, prompt[..., i], before))
            before = inverse_cdf(found.exp(), uniform[..., i])
            tokens.append(before)
            log_q.append(found.gather(-1, before[..., None])[..., 0])
        answer, log_q = torch.stack(tokens, -1), torch.stack(log_q, -1)
        meant = self.key.gather(1, prompt.flatten(1)).view(prompt.shape)
        reward = (answer == meant).float().cumprod(-1).mean(-1)
        return Draws(prompt, answer, log_q, reward, torch.ones_like(log_q).bool())

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        digits = torch.rand(len(self.seeds), count // self.group, LENGTH, generator=rng)
        uniform = torch.rand(len(self.seeds), count, LENGTH, generator=rng)
        prompt = (digits * SYMBOLS).long().clamp(max=SYMBOLS - 1).repeat_interleave(self.group, 1)
        prompt, uniform = (a.to(self.device).repeat_interleave(self.rates, 0) for a in (prompt, uniform))
        return self._answer(theta, prompt, uniform, sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        first = torch.full_like(draws.answer[..., :1], SYMBOLS)
        before = torch.cat([first, draws.answer[..., :-1]], -1)
        log_p = torch.log_softmax(self._logits(theta, draws.prompt, before), -1)
        return log_p.gather(-1, draws.answer[..., None])[..., 0]

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward on messages that stay the same."""
        numbers = self.scored.to(self.device).repeat_interleave(self.rates, 0)
        prompt = (numbers[..., :LENGTH] * SYMBOLS).long().clamp(max=SYMBOLS - 1)
        return {"reward": self._answer(theta, prompt, numbers[..., LENGTH:], Sampler()).reward.mean(1)}
