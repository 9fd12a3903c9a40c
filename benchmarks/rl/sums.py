"""Modular running sums, written token by token by a GRU; advantages are normalised within groups."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot
from training import Adam, Draws, Sampler, inverse_cdf

MODULUS, LENGTH, WIDTH = 7, 5, 20
INPUTS = 2 * MODULUS + 1  # a digit of the prompt, and the token before or none
SHAPES = {
    "in": (INPUTS, 3 * WIDTH),
    "hidden": (WIDTH, 3 * WIDTH),
    "bias": (1, 3 * WIDTH),
    "head": (WIDTH, MODULUS),
    "head bias": (1, MODULUS),
}
SIZES = [rows * columns for rows, columns in SHAPES.values()]
PRETRAINING = {"updates": 60, "batch": 64, "rate": 0.02}
SCORED = 128
ABOUT = (
    f"Running sums modulo {MODULUS} of {LENGTH} digits, written by a GRU of {WIDTH} units, eight answers a "
    "prompt. The reward is the share of digits that are right; advantages are normalised within the eight. "
    "Policies are pretrained on a few examples."
)


def initial(seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    parts = [rows**-0.5 * torch.randn(rows * columns, generator=rng) for rows, columns in SHAPES.values()]
    return torch.cat(parts)


class Network:
    """Weights of all runs, cut apart."""

    def __init__(self, theta: torch.Tensor):
        for name, part in zip(SHAPES, theta.split(SIZES, dim=1), strict=True):
            setattr(self, name.replace(" ", "_"), part.view(len(theta), *SHAPES[name]))
        self.into = getattr(self, "in")

    def step(self, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """The next state, (runs, draws, units); `inputs` has been through the first layer."""
        from_state = state @ self.hidden
        gates = torch.sigmoid(inputs[..., : 2 * WIDTH] + from_state[..., : 2 * WIDTH])
        new = torch.tanh(inputs[..., 2 * WIDTH :] + gates[..., :WIDTH] * from_state[..., 2 * WIDTH :])
        return new + gates[..., WIDTH:] * (state - new)

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        return state @ self.head + self.head_bias


def _inputs(prompt: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    pair = one_hot(prompt, MODULUS), one_hot(before, MODULUS + 1)
    return torch.cat(pair, -1).float()


class Sums:
    """Policies of some seeds, pretrained, each the same for all its learning rates."""

    group = 8

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu"):
        self.seeds, self.rates, self.device = seeds, rates, device
        rng = torch.Generator().manual_seed(seeds[0])
        self.scored = torch.rand(len(seeds), SCORED, 2 * LENGTH, generator=rng)

    def start(self) -> torch.Tensor:
        theta = torch.stack([initial(seed) for seed in self.seeds]).to(self.device)
        adam = Adam(theta, torch.full((len(self.seeds),), PRETRAINING["rate"], device=self.device))
        drawn = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        shape = PRETRAINING["batch"], LENGTH
        for _ in range(PRETRAINING["updates"]):
            prompt = torch.stack([torch.randint(MODULUS, shape, generator=rng) for rng in drawn])
            answer = prompt.cumsum(-1) % MODULUS
            theta.requires_grad_()
            slope = torch.autograd.grad(-self._log_probs(theta, prompt, answer).mean((1, 2)).sum(), theta)[0]
            theta = adam.step(theta.detach(), slope)
        return theta.repeat_interleave(self.rates, 0)

    def _log_probs(self, theta: torch.Tensor, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        network = Network(theta)
        before = torch.cat([torch.full_like(answer[..., :1], MODULUS), answer[..., :-1]], -1)
        runs, draws = prompt.shape[:2]
        inputs = _inputs(prompt, before).view(runs, draws * LENGTH, INPUTS) @ network.into + network.bias
        inputs = inputs.view(runs, draws, LENGTH, 3 * WIDTH)
        state, states = theta.new_zeros(runs, draws, WIDTH), []
        for i in range(LENGTH):
            state = network.step(inputs[:, :, i], state)
            states.append(state)
        logits = network.logits(torch.stack(states, 2).view(runs, draws * LENGTH, WIDTH))
        log_p = torch.log_softmax(logits.view(runs, draws, LENGTH, MODULUS), -1)
        return log_p.gather(-1, answer[..., None])[..., 0]

    @torch.no_grad()
    def _answer(
        self, theta: torch.Tensor, prompt: torch.Tensor, uniform: torch.Tensor, sampler: Sampler
    ) -> Draws:
        network = Network(theta)
        state = theta.new_zeros(*prompt.shape[:2], WIDTH)
        before = torch.full_like(prompt[..., 0], MODULUS)
        tokens, log_q = [], []
        for i in range(LENGTH):
            state = network.step(_inputs(prompt[..., i], before) @ network.into + network.bias, state)
            found = sampler.log_probs(network.logits(state))
            before = inverse_cdf(found.exp(), uniform[..., i])
            tokens.append(before)
            log_q.append(found.gather(-1, before[..., None])[..., 0])
        answer, log_q = torch.stack(tokens, -1), torch.stack(log_q, -1)
        reward = (answer == prompt.cumsum(-1) % MODULUS).float().mean(-1)
        return Draws(prompt, answer, log_q, reward, torch.ones_like(log_q).bool())

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        digits = torch.rand(len(self.seeds), count // self.group, LENGTH, generator=rng)
        uniform = torch.rand(len(self.seeds), count, LENGTH, generator=rng)
        prompt = (digits * MODULUS).long().clamp(max=MODULUS - 1).repeat_interleave(self.group, 1)
        prompt, uniform = (a.to(self.device).repeat_interleave(self.rates, 0) for a in (prompt, uniform))
        return self._answer(theta, prompt, uniform, sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        return self._log_probs(theta, draws.prompt, draws.answer)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward on prompts that stay the same."""
        numbers = self.scored.to(self.device).repeat_interleave(self.rates, 0)
        prompt = (numbers[..., :LENGTH] * MODULUS).long().clamp(max=MODULUS - 1)
        return {"reward": self._answer(theta, prompt, numbers[..., LENGTH:], Sampler()).reward.mean(1)}
