"""The same steps in one process or in two: ``python -m tests.integrations.ranks 2 FILE``."""

import json
import os
import sys
import tempfile

import torch

from isdiag.rl import presets
from isdiag.trl import ISDiagMixin, ISDiagReshapeMixin
from tests.integrations.toy import GRPOTrainer, logged, made

PARAMETERS = 400


class Diagnosed(ISDiagMixin, GRPOTrainer):
    pass


class Reshaped(ISDiagReshapeMixin, GRPOTrainer):
    pass


def rollout(prompts, trainer):
    """Answers that depend on the prompt, and on which of its two it is."""
    asked = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
    drawn = [torch.Generator().manual_seed(31 * sum(ids) + i % 2) for i, ids in enumerate(asked)]
    lengths = [int(torch.randint(2, 9, (1,), generator=g)) for g in drawn]
    answers = [torch.randint(2, 22, (n,), generator=g).tolist() for n, g in zip(lengths, drawn, strict=True)]
    logs = [(-2.5 - torch.rand(n, generator=g)).tolist() for n, g in zip(lengths, drawn, strict=True)]
    return {"prompt_ids": asked, "completion_ids": answers, "logprobs": logs}


def main():
    world, out = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    sizes = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    if world == 2:
        sizes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "ddp_backend": "gloo"}
    runs = {}
    for name, kind, extra in (
        ("diagnosed", Diagnosed, {}),
        ("gamma", Reshaped, {}),
        ("sequences", Reshaped, {"preset": presets.grpo()}),
        ("tokens", Reshaped, {"preset": presets.tis()}),
    ):
        trainer = made(
            kind,
            tempfile.mkdtemp(),
            rollout_func=rollout,
            extra=extra,
            num_generations=2,
            max_steps=4,
            use_cpu=True,  # two ranks want two GPUs
            optim="sgd",
            learning_rate=0.3,
            **sizes,
        )
        trainer.train()
        flat = torch.cat([each.detach().flatten() for each in trainer.model.parameters()])
        runs[name] = {"steps": logged(trainer), "parameters": flat[:: flat.numel() // PARAMETERS].tolist()}
    if int(os.environ.get("RANK", "0")) == 0:
        with open(out, "w") as file:
            json.dump(runs, file)
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        # gloo's threads have kept an interpreter from ending, once in some runs.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
