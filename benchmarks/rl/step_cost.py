"""What a step of the controller costs, and a loss over tokens: `python benchmarks/rl/step_cost.py`."""

import timeit

import numpy as np

try:
    import torch
except ImportError:
    torch = None

import isdiag
from isdiag.rl import GammaController, PPOClip
from isdiag.rl.presets import adaptive

ROUNDS, CALLS = 15, 400


def microseconds(call):
    """Median and best time of a call over rounds."""
    call()  # compiles
    times = np.array(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6
    return f"{np.median(times):7.1f} (best {times.min():.1f})"


def main():
    rng = np.random.default_rng(0)
    print("microseconds a call, median of rounds")
    for n in (64, 256, 1024, 4096, 65536):
        log_w, advantage = rng.normal(-0.5, 1.0, n), rng.normal(size=n)
        power, ppo = GammaController(), GammaController(PPOClip())
        print(
            f"n = {n:6d}  step, Power {microseconds(lambda: power.step(log_w, advantage))}  "  # noqa: B023
            f"PPOClip {microseconds(lambda: ppo.step(log_w, advantage))}  "  # noqa: B023
            f"select_gamma {microseconds(lambda: isdiag.select_gamma(log_w))}"  # noqa: B023
        )
    if torch is not None:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            tokens(device)


def clipped(log_pi, log_mu, advantages, mask):
    """PPO's clipped surrogate over tokens: what a loss costs without any diagnosis."""
    ratio = (log_pi - log_mu).exp()
    advantages = advantages[:, None]
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    return -(surrogate * mask).sum() / mask.sum()


def tokens(device):
    """Half a million tokens in torch, all of them and three quarters: each a draw, and by the preset."""
    from isdiag.torch import is_reshape_loss

    rng = torch.Generator().manual_seed(0)
    log_pi = -torch.rand(1024, 512, generator=rng)
    log_mu = log_pi + 0.2 * torch.randn(1024, 512, generator=rng)
    advantages = torch.randn(1024, generator=rng).to(device)
    ends = torch.randint(256, 512, (1024, 1), generator=rng)
    log_pi, log_mu = log_pi.to(device).requires_grad_(), log_mu.to(device)
    whole = torch.ones(1024, 512, dtype=torch.bool)
    for name, mask in (("all", whole), ("masked", torch.arange(512) < ends)):
        batch = log_pi, log_mu, advantages, mask.to(device)
        losses = {"clipped surrogate by hand": lambda batch=batch: clipped(*batch)}
        for what, how in (
            ("level token", {"level": "token"}),
            ("level sequence", {"level": "sequence"}),
            ("adaptive", {"preset": adaptive()}),
        ):
            how["controller"] = GammaController(ess_min=0.5, k_max=np.inf)
            losses[what] = lambda batch=batch, how=how: is_reshape_loss(*batch, **how)[0]
        for what, loss in losses.items():

            def call(loss=loss):
                loss().backward()
                if device == "cuda":
                    torch.cuda.synchronize()

            call()
            times = 1e3 * np.array(timeit.repeat(call, number=1, repeat=ROUNDS))
            spread = f"{np.median(times):.1f} ms (best {times.min():.1f})"
            print(f"{device}, 1024 x 512 tokens, {name}, {what}: {spread}")


if __name__ == "__main__":
    main()
