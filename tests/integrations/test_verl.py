"""`isdiag.verl` with verl 0.9.1 itself, on the CPU; run by .ci/integrations in an environment of its own."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl", reason="verl is not installed: .ci/integrations")

import isdiag.verl  # noqa: I001 -- before verl's modules, as the entry point has it
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo import core_algos, ray_trainer, rollout_corr_helper
from verl.workers.config import ActorConfig

import isdiag
from isdiag.rl import METRICS, GammaController, Power
from isdiag.verl import LOSSES, _Plugin, use

ANSWERS, LENGTH = 64, 40


@pytest.fixture(autouse=True)
def fresh():
    use(GammaController(Power(0.3)))
    _Plugin.gamma = None


@pytest.fixture
def batch(rng):
    """64 answers, 8 of them long, of a trainer and a sampler that differ."""
    lengths = np.where(np.arange(ANSWERS) < 8, LENGTH, rng.integers(1, 6, size=ANSWERS))
    mask = np.arange(LENGTH) < lengths[:, None]
    rollout = -rng.exponential(1.0, size=mask.shape) - 0.2
    old = rollout + 0.25 * rng.normal(size=mask.shape)
    return make(old, rollout, mask)


def make(old, rollout, mask):
    return DataProto.from_single_dict(
        {
            "old_log_probs": torch.tensor(old, dtype=torch.float32),
            "rollout_log_probs": torch.tensor(rollout, dtype=torch.float32),
            "response_mask": torch.tensor(mask, dtype=torch.float32),
        }
    )


def arrays(batch):
    old, rollout, mask = (
        batch.batch[name].double().numpy() for name in ("old_log_probs", "rollout_log_probs", "response_mask")
    )
    return (old - rollout) * mask, mask


def corrected(batch, **settings):
    return rollout_corr_helper.compute_rollout_correction_and_add_to_batch(
        batch, RolloutCorrectionConfig(**{"rollout_is": None} | settings)
    )


def ess_ratio(w):
    return w.sum() ** 2 / (w**2).sum() / len(w)


# ---------------------------------------------------------------------------------------------- the driver


def test_the_whole_batch_is_diagnosed(batch):
    difference, _ = arrays(batch)
    w = np.exp(difference.sum(1))
    out, metrics = corrected(batch)
    assert metrics["isdiag/ess_ratio_raw"] == pytest.approx(ess_ratio(w), rel=1e-6)
    assert metrics["isdiag/n"] == ANSWERS
    assert metrics["isdiag/pareto_k"] == pytest.approx(isdiag.pareto_khat(difference.sum(1)), rel=1e-6)
    allowed = isdiag.select_gamma(difference.sum(1), ess_min=0.8).gamma
    assert metrics["isdiag/gamma_batch"] == pytest.approx(allowed, rel=1e-6)
    assert out.meta_info["isdiag_gamma"] == metrics["isdiag/gamma"] == pytest.approx(0.27 + 0.1 * allowed)
    assert "rollout_is_weights" not in out.batch
    assert not any(name.startswith("isdiag/used/") for name in metrics)
    assert all(np.isfinite(value) for name, value in metrics.items() if name.startswith("isdiag/"))
    assert {name.split("/")[-1] for name in metrics if name.startswith("isdiag/")} <= set(METRICS)


def test_weights_of_verl_are_seen_before_and_after(batch):
    difference, mask = arrays(batch)
    w = np.exp(difference.sum(1))
    _, metrics = corrected(batch, rollout_is="sequence", rollout_is_threshold=2.0)
    assert metrics["isdiag/used/ess_ratio_raw"] == pytest.approx(ess_ratio(w), rel=1e-6)
    assert metrics["isdiag/used/ess_ratio"] == pytest.approx(ess_ratio(np.minimum(w, 2.0)), rel=1e-6)
    assert metrics["isdiag/used/fraction_modified"] == np.mean(w > 2.0)
    # What verl calls its ESS is of truncated weights, and counts long answers by their tokens.
    by_token = np.repeat(np.minimum(w, 2.0), mask.sum(1).astype(int))
    assert metrics["rollout_corr/rollout_is_eff_sample_size"] == pytest.approx(ess_ratio(by_token), rel=1e-5)


def test_weights_of_tokens(batch):
    difference, mask = arrays(batch)
    w = np.exp(difference[mask > 0])
    _, metrics = corrected(batch, rollout_is="token", rollout_is_threshold="0.7_1.4")
    used = np.where((w < 0.7) | (w > 1.4), 0.0, w)
    assert metrics["isdiag/used/n"] == len(w)
    assert metrics["isdiag/used/ess_ratio_raw"] == pytest.approx(ess_ratio(w), rel=1e-6)
    assert metrics["isdiag/used/ess_ratio"] == pytest.approx(ess_ratio(used), rel=1e-6)
    assert metrics["isdiag/used/fraction_zero"] == np.mean(used == 0.0)


def test_rejected_answers_have_no_weight(batch):
    difference, _ = arrays(batch)
    w = np.exp(difference.sum(1))
    out, metrics = corrected(
        batch, rollout_is="sequence", rollout_rs="seq_sum_k1", rollout_rs_threshold="0.5_2.0"
    )
    kept = (out.batch["response_mask"].sum(1) > 0).numpy()
    assert 0 < kept.sum() < ANSWERS
    assert metrics["isdiag/n"] == metrics["isdiag/used/n"] == ANSWERS
    assert metrics["isdiag/used/fraction_zero"] == np.mean(~kept)
    assert metrics["isdiag/used/ess_ratio"] == pytest.approx(ess_ratio(np.minimum(w, 2.0) * kept), rel=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_weights_of_ours(batch, normalize):
    difference, mask = arrays(batch)
    out, metrics = corrected(batch, rollout_is="isdiag", rollout_is_batch_normalize=normalize)
    gamma = metrics["isdiag/gamma"]
    w = np.exp(gamma * difference.sum(1))
    if normalize:
        w /= w.mean()
    weights = out.batch["rollout_is_weights"]
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy(), w[:, None] * mask, rtol=1e-6)
    assert metrics["isdiag/used/ess_ratio"] == pytest.approx(ess_ratio(w), rel=1e-6)


def test_verl_still_rejects_beside_weights_of_ours(batch):
    settings = {"rollout_rs": "seq_sum_k1", "rollout_rs_threshold": "0.5_2.0"}
    out, metrics = corrected(batch, rollout_is="isdiag", **settings)
    kept = out.batch["response_mask"].sum(1) > 0
    assert metrics["isdiag/used/fraction_zero"] == 1.0 - kept.double().mean()
    assert torch.equal((out.batch["rollout_is_weights"] > 0).any(1), kept)


def test_an_answer_without_a_token_is_none(batch):
    batch.batch["response_mask"][3] = 0.0
    _, metrics = corrected(batch, rollout_is="isdiag")
    assert metrics["isdiag/n"] == metrics["isdiag/used/n"] == ANSWERS - 1


def test_settings_may_be_those_of_hydra(batch):
    settings = OmegaConf.create({"rollout_is": "isdiag", "rollout_rs": None})
    out, _ = rollout_corr_helper.compute_rollout_correction_and_add_to_batch(batch, settings)
    assert "rollout_is_weights" in out.batch
    assert settings.rollout_is == "isdiag"


# --------------------------------------------------------------------------------------------- the workers

TWINS = {"isdiag_ppo": "vanilla", "isdiag_gspo": "gspo", "isdiag_cispo": "cispo", "isdiag_sapo": "sapo"}
MODES = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


@pytest.fixture
def actor():
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=8, clip_ratio_low=0.2, clip_ratio_high=0.28
    )
    config.global_batch_info.update(dp_size=2, batch_num_tokens=700, global_batch_size=128)
    return config


@pytest.fixture
def policy(rng):
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH, size=ANSWERS)[:, None]
    old = -rng.exponential(1.0, size=mask.shape) - 0.3
    now = old + 0.3 * rng.normal(size=mask.shape)
    signs = np.broadcast_to(rng.normal(size=(ANSWERS, 1)), mask.shape)
    weights = np.broadcast_to(rng.exponential(size=(ANSWERS, 1)), mask.shape)
    return [torch.tensor(each.copy()) for each in (old, now, signs, mask, weights)]


def gradient(loss, policy, actor, mode, weights):
    old, now, signs, mask, _ = policy
    now = now.clone().requires_grad_()
    value, metrics = core_algos.get_policy_loss_fn(loss)(
        old, now, signs, mask, mode, actor, rollout_is_weights=weights
    )
    value.backward()
    return now.grad, metrics


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_verl(policy, actor, mode, name, weighted):
    weights = policy[-1] if weighted else None
    mode = "seq-mean-token-mean" if name == "isdiag_sapo" else mode  # verl's sapo knows no other
    theirs, _ = gradient(TWINS[name], policy, actor, mode, weights)
    ours, _ = gradient(name, policy, actor, mode, weights)
    assert theirs.abs().max() > 0.0
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-12)


def test_every_loss_is_there_and_runs(policy, actor):
    for name in LOSSES:
        found, _ = gradient(name, policy, actor, "token-mean", None)
        assert found.isfinite().all()
        assert found.abs().max() > 0.0


def test_gamma_comes_with_the_batch(policy, actor, batch):
    out, metrics = corrected(batch)
    gamma = metrics["isdiag/gamma"]
    data = out.to_tensordict()[8:16]  # a mini-batch, as a worker has it
    isdiag.verl._told(lambda *_: None)(actor, None, data)
    assert _Plugin.gamma == gamma
    found, told = gradient("isdiag", policy, actor, "token-mean", None)
    assert told == {"actor/isdiag_gamma": gamma}
    old, now, signs, mask, _ = policy
    log_w = ((now - old) * mask).sum(1, keepdim=True)
    power = torch.where((signs < 0) & (log_w < 0), 3 * gamma * log_w, gamma * log_w).exp()
    torch.testing.assert_close(found, -power * signs * mask * 2 / 700, rtol=1e-6, atol=1e-12)
    isdiag.verl._told(lambda *_: None)(actor, None, batch.select(["response_mask"]).to_tensordict()[:2])
    assert LOSSES["isdiag_adaptive"](actor).rest == gamma


# ----------------------------------------------------------------------------------- checkpoints, and errors


class Stub:
    def __getattr__(self, name):
        return lambda *_, **__: {}

    def __len__(self):
        return 1


def trainer(folder, **settings):
    config = {
        "trainer": {"default_local_dir": str(folder), "default_hdfs_dir": None, "resume_mode": "auto"}
        | settings,
        "actor_rollout_ref": {"actor": {"checkpoint": {}}},
    }
    config["trainer"]["del_local_ckpt_after_load"] = False
    return SimpleNamespace(
        config=OmegaConf.create(config), global_steps=0, use_critic=False,
        actor_rollout_wg=Stub(), train_dataloader=Stub(),
    )  # fmt: skip


def test_state_is_in_the_checkpoint(tmp_path, batch):
    for _ in range(3):
        corrected(batch)
    known = _Plugin.controller.state_dict()
    saved = trainer(tmp_path)
    saved.global_steps = 3
    ray_trainer.RayPPOTrainer._save_checkpoint(saved)
    assert (tmp_path / "global_step_3" / "isdiag.json").exists()
    for how in ({}, {"resume_mode": "resume_path", "resume_from_path": str(tmp_path / "global_step_3")}):
        use(GammaController(Power(0.3)))
        ray_trainer.RayPPOTrainer._load_checkpoint(trainer(tmp_path, **how))
        assert _Plugin.controller.state_dict() == known
    use(GammaController(Power(0.3)))
    ray_trainer.RayPPOTrainer._load_checkpoint(trainer(tmp_path, resume_mode="disable"))
    assert _Plugin.controller.state.step == 0


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_verl_is_enough():
    done = python(
        "import verl\n"
        "from verl.trainer.ppo import core_algos, rollout_corr_helper as helper\n"
        "print('isdiag' in core_algos.POLICY_LOSS_REGISTRY, hasattr(helper."
        "compute_rollout_correction_and_add_to_batch, '__wrapped__'))"
    )
    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr
    assert "isdiag could not" not in done.stderr


def test_what_fails_is_told():
    done = python(
        "import isdiag.verl\n"
        "isdiag.verl.TESTED = '0.9.1'\n"
        "import types; isdiag.verl._change('verl.trainer.ppo.ray_trainer', types.ModuleType('moved'))"
    )
    assert (
        "isdiag could not change verl.trainer.ppo.ray_trainer: it was tested with verl 0.9.1" in done.stderr
    )
    assert "no attribute 'RayPPOTrainer'" in done.stderr


def test_wrong_arguments():
    with pytest.raises(TypeError, match="controller"):
        use(0.3)
