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
from transformers import GPT2Config, GPT2LMHeadModel

from isdiag.rl.presets import adaptive, tis
from isdiag.trl import ISDiagMixin, ISDiagReshapeMixin
from tests.integrations.toy import WORDS, GRPOTrainer, made, tempered

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


def gpt2(seed):
    """A model of GPT-2's size, 86 million parameters besides the words."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_positions=512, bos_token_id=1, eos_token_id=1))


def cost():
    """A step of training, diagnosed or not by turns: seconds of one thread, or of a GPU's clock."""
    what, clock, rounds, settings = "of the CPU, the toy", time.process_time, ROUNDS, {"max_steps": 40}
    if torch.cuda.is_available():
        what = f"on one {torch.cuda.get_device_name()}, a model of GPT-2's size, 64 answers of 128 tokens"
        clock, rounds = time.perf_counter, 3
        settings = {
            "max_steps": 8, "of": gpt2, "max_completion_length": 128, "per_device_train_batch_size": 64,
            "gradient_accumulation_steps": 1, "bf16": True, "learning_rate": 1e-5,
        }  # fmt: skip
    times = {GRPOTrainer: [], Diagnosed: [], Reshaped: []}
    for _ in range(rounds + 1):
        for kind, found in times.items():
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                trainer = made(kind, folder, **settings)
                start = clock()
                trainer.train()
                found.append((clock() - start) / trainer.state.global_step)
    without, *others = (np.array(found[1:]) for found in times.values())
    print(f"a step takes {1e3 * np.median(without):.1f} ms {what}")
    for name, found in zip(("diagnosed", "reshaped"), others, strict=True):
        share = found / without - 1.0
        ends = f"({min(share):+.1%} {max(share):+.1%})"
        print(f"{name} {1e3 * np.median(found):.1f}: {np.median(share):+.1%} {ends}")


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "cost" not in sys.argv[1:]:
        gains()
    cost()


if __name__ == "__main__":
    main()
