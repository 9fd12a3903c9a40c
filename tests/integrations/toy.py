"""A toy for TRL: a model of two layers and a tokenizer, made in memory, nothing downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from types import SimpleNamespace

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrst"]
LENGTH = 8


def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=WORDS[0], eos_token=WORDS[1], padding_side="left"
    )


def model(seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=32, n_layer=2, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def reward(completion_ids, **_):
    """How many of the answer's words come early in the alphabet."""
    return [sum(2 <= token < 7 for token in ids) / LENGTH for ids in completion_ids]


def tempered(temperature):
    """A sampler at another temperature than the trainer takes it to be, with the log-probabilities it has."""

    def rollout(prompts, trainer):
        asked, answers, logs = [], [], []
        for prompt in prompts:
            ids = trainer.processing_class(prompt)["input_ids"]
            tokens = torch.tensor([ids], device=trainer.model.device)
            with torch.no_grad():
                found = []
                for _ in range(LENGTH):
                    log_p = (trainer.model(tokens).logits[0, -1] / temperature).log_softmax(0)
                    drawn = torch.multinomial(log_p.exp(), 1)
                    tokens = torch.cat([tokens, drawn[None]], dim=1)
                    found.append(log_p[drawn].item())
                    if drawn.item() == 1:
                        break
            asked.append(ids)
            answers.append(tokens[0, len(ids) :].tolist())
            logs.append(found)
        return {"prompt_ids": asked, "completion_ids": answers, "logprobs": logs}

    return rollout


def arguments(folder, trainer=GRPOTrainer, **changed):
    kind = GRPOConfig if issubclass(trainer, GRPOTrainer) else RLOOConfig
    settings = {
        "output_dir": str(folder), "use_cpu": not torch.cuda.is_available(), "bf16": False,
        "learning_rate": 3e-3, "max_steps": 6,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_generations": 8,
        "max_completion_length": LENGTH, "num_iterations": 2, "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "seed": 7, "beta": 0.0, "lr_scheduler_type": "constant",
    }  # fmt: skip
    return kind(**settings | changed)


def made(kind, folder, *, vllm=None, extra=None, seed=0, of=model, **changed):
    """A trainer `of` a model; with `vllm`, a mode, the correction of TRL for vLLM without that."""
    rollout = changed.pop("rollout_func", None)
    given = dict(extra or {})
    if rollout is not None:
        given["rollout_func"] = rollout
    prompts = Dataset.from_dict({"prompt": [" ".join(WORDS[i : i + 3]) for i in range(2, 18)]})
    trainer = kind(
        model=of(seed),
        reward_funcs=reward,
        args=arguments(folder, kind, **changed),
        train_dataset=prompts,
        eval_dataset=prompts,
        processing_class=tokenizer(),
        **given,
    )
    if vllm is not None:
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
        trainer.vllm_importance_sampling_mode = vllm
        trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: None)
        trainer._last_loaded_step = -1
    return trainer


def logged(trainer, prefix="isdiag/"):
    """What went to the log at each step, by key."""
    return [
        {key: value for key, value in entry.items() if key.startswith(prefix)}
        for entry in trainer.state.log_history
        if any(key.startswith(prefix) for key in entry)
    ]


__all__ = ["GRPOTrainer", "RLOOTrainer", "logged", "made", "model", "tempered"]
