"""Sort digits with a small transformer: a task of several tokens whose reward can be verified.

Every parameter has a leading axis of runs, and all of them lie in one array, (runs, parameters), so that
one process trains all runs at once.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, one_hot, relu, scaled_dot_product_attention
from training import Adam, Draws, Sampler, inverse_cdf

DIGITS, LENGTH, SORT = 8, 4, 8  # SORT is the token between a prompt and its answer
WIDTH, HEADS, LAYERS = 16, 2, 1
SCORED = 128
AT_ONCE = 2**15  # draws of all runs together, for memory's sake
# Enough to sort about half of the positions right, far from all.
PRETRAINING = {"updates": 25, "batch": 64, "rate": 0.01}

SHAPES = {
    "token": (DIGITS + 1, WIDTH),
    "position": (2 * LENGTH, WIDTH),
    **{
        f"{name} {layer}": shape
        for layer in range(LAYERS)
        for name, shape in {
            "gain": (2, WIDTH),
            "qkv": (WIDTH, 3 * WIDTH),
            "out": (WIDTH, WIDTH),
            "up": (WIDTH, 4 * WIDTH),
            "down": (4 * WIDTH, WIDTH),
        }.items()
    },
    "last gain": (1, WIDTH),
    "head": (WIDTH, DIGITS),
}
SIZES = [rows * columns for rows, columns in SHAPES.values()]
ABOUT = (
    f"Sort {LENGTH} digits: a transformer of {LAYERS} layer and {sum(SIZES)} parameters writes them one by "
    "one. The reward is the share of positions that are right. Policies are pretrained on a few examples."
)


def initial(seed: int) -> torch.Tensor:
    """Parameters of one run."""
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for name, (rows, columns) in SHAPES.items():
        if "gain" in name:
            parts.append(torch.ones(rows * columns))
            continue
        spread = 0.1 if name in {"token", "position"} else rows**-0.5
        parts.append(spread * torch.randn(rows * columns, generator=rng))
    return torch.cat(parts)


def _norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain[:, None]


def logits(theta: torch.Tensor, tokens: torch.Tensor, past: list | None = None) -> torch.Tensor:
    """Of the next digit after each token, (runs, draws, tokens, digits).

    `past` holds keys and values of the tokens before, a pair a layer, and is brought up to date; with it
    only one token may follow at a time.
    """
    runs, draws, length = tokens.shape
    p = {
        name: part.view(runs, *shape)
        for part, (name, shape) in zip(theta.split(SIZES, dim=1), SHAPES.items(), strict=True)
    }
    before = past[0][0].shape[2] if past else 0
    # A product with one-hot rows, whose gradient adds up in a fixed order, unlike that of a look-up.
    x = one_hot(tokens.reshape(runs, -1), DIGITS + 1).to(theta.dtype) @ p["token"]
    x = x + p["position"][:, before : before + length].repeat(1, draws, 1)
    for layer in range(LAYERS):
        qkv = _norm(x, p[f"gain {layer}"][:, 0]) @ p[f"qkv {layer}"]
        qkv = qkv.view(runs * draws, length, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if past is not None:
            if before:
                k, v = (torch.cat([old, new], 2) for old, new in zip(past[layer], (k, v), strict=True))
                past[layer] = k, v
            else:
                past.append((k, v))
        seen = scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + seen.transpose(1, 2).reshape(runs, draws * length, WIDTH) @ p[f"out {layer}"]
        inner = relu(_norm(x, p[f"gain {layer}"][:, 1]) @ p[f"up {layer}"])
        x = x + inner @ p[f"down {layer}"]
    x = _norm(x, p["last gain"][:, 0]) @ p["head"]
    return x.view(runs, draws, length, DIGITS)


def answer_log_probs(theta: torch.Tensor, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Of each digit of the answer, (runs, draws, digits)."""
    tokens = torch.cat([prompt, torch.full_like(prompt[..., :1], SORT), answer[..., :-1]], -1)
    found = logits(theta, tokens)[:, :, LENGTH:]
    nll = cross_entropy(found.reshape(-1, DIGITS), answer.reshape(-1), reduction="none")
    return -nll.view(answer.shape)


def sample(
    theta: torch.Tensor, prompt: torch.Tensor, uniform: torch.Tensor, sampler: Sampler
) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers and the log-probabilities of their digits under the sampler."""
    past: list = []
    found = logits(theta, torch.cat([prompt, torch.full_like(prompt[..., :1], SORT)], -1), past)
    digits, log_q = [], []
    for i in range(LENGTH):
        log_p = sampler.log_probs(found[:, :, -1])
        digits.append(inverse_cdf(log_p.exp(), uniform[..., i])[..., None])
        log_q.append(log_p.gather(-1, digits[-1]))
        if i < LENGTH - 1:
            found = logits(theta, digits[-1], past)
    return torch.cat(digits, -1), torch.cat(log_q, -1)


class Sorting:
    """Policies of some seeds, pretrained, each the same for all its learning rates."""

    group = 0

    def __init__(self, seeds: tuple[int, ...], rates: int, device: str = "cpu", scored: int = SCORED):
        self.seeds, self.rates, self.device = seeds, rates, device
        self.scored = torch.rand(
            len(seeds), scored, 2 * LENGTH, generator=torch.Generator().manual_seed(seeds[0])
        )

    def start(self) -> torch.Tensor:
        theta = torch.stack([initial(seed) for seed in self.seeds]).to(self.device)
        adam = Adam(theta, torch.full((len(self.seeds),), PRETRAINING["rate"], device=self.device))
        # A generator a seed: a policy does not depend on which others are pretrained beside it.
        drawn = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        for _ in range(PRETRAINING["updates"]):
            prompt = torch.stack(
                [torch.randint(DIGITS, (PRETRAINING["batch"], LENGTH), generator=rng) for rng in drawn]
            ).to(self.device)
            theta.requires_grad_()
            log_p = answer_log_probs(theta, prompt, prompt.sort(-1).values)
            slope = torch.autograd.grad(-log_p.mean((1, 2)).sum(), theta)[0]
            theta = adam.step(theta.detach(), slope)
        return theta.repeat_interleave(self.rates, 0)

    @torch.no_grad()
    def _answer(self, theta: torch.Tensor, uniform: torch.Tensor, sampler: Sampler) -> Draws:
        """Draws made of uniform numbers, (seeds, draws, 2 LENGTH), the same for all rates of a seed."""
        parts = []
        for piece in uniform.split(max(AT_ONCE // len(theta), 1), 1):
            numbers = piece.to(self.device).repeat_interleave(self.rates, 0)
            prompt = (numbers[..., :LENGTH] * DIGITS).long().clamp(max=DIGITS - 1)
            answer, log_q = sample(theta, prompt, numbers[..., LENGTH:], sampler)
            right = answer == prompt.sort(-1).values
            there = torch.ones_like(right)
            parts.append(Draws(prompt, answer, log_q, right.float().mean(-1), there))
        return Draws(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))

    def collect(self, theta: torch.Tensor, count: int, sampler: Sampler, rng: torch.Generator) -> Draws:
        uniform = torch.rand(len(self.seeds), count, 2 * LENGTH, generator=rng)
        return self._answer(theta, uniform, sampler)

    def log_probs(self, theta: torch.Tensor, draws: Draws) -> torch.Tensor:
        return answer_log_probs(theta, draws.prompt, draws.answer)

    def score(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean reward on prompts that stay the same."""
        return {"reward": self._answer(theta, self.scored, Sampler()).reward.mean(1)}
