"""TRL on a toy: what diagnosing a step costs, and what reshaped weights gain.

`python -m benchmarks.rl.trl_toy`, or with `cost` behind it for that alone; needs `isdiag[trl]`. Rewards are
means over the samples of a run, of `GRPOTrainer` as it is and with `ISDiagReshapeMixin`, on five seeds.
"""

import contextlib
import io
import sys
import tempfile
import time
import warnings

import numpy as np
import torch

from isdiag.rl.presets import adaptive, tis
from isdiag.trl import ISDiagMixin, ISDiagReshapeMixin
from tests.integrations.toy import GRPOTrainer, made, tempered

SEEDS, STEPS, ROUNDS = 5, 40, 9
RATES = (1e-3, 5e-3)  # of learning


class Diagnosed(ISDiagMixin, GRPOTrainer):
    pass


class Reshaped(ISDiagReshapeMixin, GRPOTrainer):
    pass


METHODS = {
    "TRL (dapo)": (GRPOTrainer, {}),
    "w**gamma": (Reshaped, {}),
    "tis(2)": (Reshaped, {"extra": {"preset": tis(2.0)}}),
    "adaptive()": (Reshaped, {"extra": {"preset": adaptive()}}),
}
# Beside them where there is a sampler of its own: TRL's corrections for that.
CORRECTED = {f"TRL, {mode}": (GRPOTrainer, {"vllm": mode}) for mode in ("sequence_mask", "token_truncate")}
SETTINGS = {
    "2 updates a sample": (METHODS, {"num_iterations": 2}),
    "4 updates a sample": (METHODS, {"num_iterations": 4}),
    "4 updates, sampler at T 0.6": (METHODS | CORRECTED, {"num_iterations": 4, "temperature": 0.6}),
}


def run(kind, seed, temperature=None, **settings):
    rollout = None if temperature is None else tempered(temperature)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = made(kind, folder, rollout_func=rollout, seed=seed, data_seed=seed, **settings)
        trainer.train()
    return trainer


def reward(trainer):
    """Mean reward of all samples of a run: how high it comes, and how soon."""
    return np.mean([entry["reward"] for entry in trainer.state.log_history if "reward" in entry])


def gains():
    print(f"mean reward over {STEPS} steps: mean over {SEEDS} seeds, least and most")
    for rate in RATES:
        for setting, (methods, settings) in SETTINGS.items():
            for method, (kind, more) in methods.items():
                found = [
                    reward(run(kind, seed, max_steps=STEPS, learning_rate=rate, **settings, **more))
                    for seed in range(SEEDS)
                ]
                ends = f"({min(found):.3f} {max(found):.3f})"
                print(f"{rate:g}  {setting:28s} {method:20s} {np.mean(found):.3f} {ends}", flush=True)


def cost():
    """Seconds of the CPU a step, on one thread, with and without by turns."""
    times = {GRPOTrainer: [], Diagnosed: []}
    for _ in range(ROUNDS + 1):
        for kind, found in times.items():
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                trainer = made(kind, folder, max_steps=40)
                start = time.process_time()
                trainer.train()
                found.append((time.process_time() - start) / 40)
    without, with_it = (np.array(found[1:]) for found in times.values())
    share = np.median(with_it / without) - 1.0
    ms = [1e3 * np.median(found) for found in (without, with_it)]
    print(f"a step takes {ms[0]:.1f} ms of the CPU, diagnosed {ms[1]:.1f}: {share:+.1%}")


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "cost" not in sys.argv[1:]:
        gains()
    cost()


if __name__ == "__main__":
    main()
