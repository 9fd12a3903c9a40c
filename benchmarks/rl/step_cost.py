"""What a step of the controller costs: `python benchmarks/rl/step_cost.py`."""

import timeit

import numpy as np

import isdiag
from isdiag.rl import GammaController, PPOClip

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


if __name__ == "__main__":
    main()
