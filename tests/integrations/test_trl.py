"""`isdiag.trl` with TRL itself, the oldest and the newest by .ci/integrations; on a GPU if there is one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl", reason="trl is not installed: .ci/integrations")

import torch
from transformers import Trainer as PlainTrainer

import isdiag
from isdiag import trl as adapter
from isdiag.rl import METRICS, GammaController, PPOClip, presets
from isdiag.trl import ISDiagMixin, ISDiagReshapeMixin
from tests.integrations.toy import GRPOTrainer, RLOOTrainer, logged, made, tempered

VLLM = {"vllm": "sequence_mask", "rollout_func": tempered(0.7)}


class Diagnosed(ISDiagMixin, GRPOTrainer):
    pass


class Reshaped(ISDiagReshapeMixin, GRPOTrainer):
    pass


class DiagnosedRLOO(ISDiagMixin, RLOOTrainer):
    pass


class ReshapedRLOO(ISDiagReshapeMixin, RLOOTrainer):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def trained(kind, folder, **settings):
    trainer = made(kind, folder, **settings)
    trainer.train()
    return trainer


def parameters(trainer):
    return torch.cat([each.detach().flatten() for each in trainer.model.parameters()])


# ------------------------------------------------------------------------------------------- diagnostics


@pytest.mark.parametrize("iterations", [2, 4])
def test_metrics_of_a_run(tmp_path, iterations):
    trainer = trained(Diagnosed, tmp_path, num_iterations=iterations, max_steps=52, learning_rate=1e-2)
    steps = logged(trainer)
    assert len(steps) == trainer.controller.state.step == 52
    for step in steps:
        assert all(math.isfinite(value) for value in step.values())
        assert {name.split("/")[-1] for name in step} <= set(METRICS)
        assert step["isdiag/n"] == 16
    fresh = steps[::iterations]  # the policy is the sampler
    assert all(step["isdiag/gamma_batch"] == step["isdiag/ess_ratio_raw"] == 1.0 for step in fresh)
    stale = steps[iterations - 1 :: iterations]
    assert all(step["isdiag/ess_ratio_raw"] < 1.0 for step in stale)
    by_ess = [step for step in stale if step["isdiag/ess_ratio_raw"] < 0.8]
    assert by_ess
    assert all(step["isdiag/gamma_batch"] < 1.0 for step in by_ess)
    # Smoothed: nine parts the old and one the batch's own.
    gamma = [0.3, *(step["isdiag/gamma"] for step in steps)]
    for before, after, step in zip(gamma[:-1], gamma[1:], steps, strict=True):
        assert after == pytest.approx(0.9 * before + 0.1 * step["isdiag/gamma_batch"], abs=1e-12)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_numbers_are_those_of_the_window(tmp_path, level):
    seen = []

    class Spied(Diagnosed):
        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            part = self._window[-1] if self._window else self.last
            found = part.log_pi, part.old, part.sampler, part.mask
            seen.append([each.double().numpy(force=True) for each in found])
            return loss

        def _close(self):
            self.last = self._window[-1]
            super()._close()

    trainer = trained(
        Spied, tmp_path, importance_sampling_level=level, max_steps=2, learning_rate=2e-2, **VLLM
    )
    first, second = logged(trainer)
    width = max(part[0].shape[1] for part in seen)
    pad = [[np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in part] for part in seen[2:]]
    pi, old, sampler, mask = (np.concatenate(each) for each in zip(*pad, strict=True))
    of_answers = ((pi - sampler) * mask).sum(1)
    assert second["isdiag/ess_ratio_raw"] == pytest.approx(isdiag.ess(of_answers) / 16, rel=1e-9)
    assert second["isdiag/sampler/ess_ratio_raw"] == first["isdiag/sampler/ess_ratio_raw"]
    known = ((old - sampler) * mask).sum(1)
    assert second["isdiag/sampler/ess_ratio_raw"] == pytest.approx(isdiag.ess(known) / 16, rel=1e-9)
    kept = np.where(np.exp(known) <= 3.0, known, -np.inf)
    assert second["isdiag/sampler/ess_ratio"] == pytest.approx(isdiag.ess(kept) / 16, rel=1e-9)
    difference = (pi - old)[mask > 0]
    if level == "sequence":
        difference = ((pi - old) * mask).sum(1) / mask.sum(1)
    assert second["isdiag/policy/n"] == len(difference)
    assert second["isdiag/policy/ess_ratio_raw"] == pytest.approx(
        isdiag.ess(difference) / len(difference), rel=1e-9
    )
    assert second["isdiag/policy/fraction_zero"] > 0.0  # clipped


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_the_correction_is_the_one_that_trl_makes(tmp_path, mode):
    cap = "vllm_importance_sampling_clip_max"
    probe = made(Diagnosed, tmp_path)
    settings = {cap if hasattr(probe, cap) else "vllm_importance_sampling_cap": 1.2}
    trainer = trained(
        Diagnosed, tmp_path, num_iterations=1, max_steps=3, vllm=mode, rollout_func=tempered(0.6), **settings
    )
    for theirs, ours in zip(
        logged(trainer, "sampling/importance_sampling_ratio/mean"), logged(trainer), strict=True
    ):
        (mean,) = theirs.values()
        assert ours["isdiag/sampler/mean_weight"] == pytest.approx(mean, rel=1e-5)
        assert ours["isdiag/sampler/fraction_modified"] > 0.0


@pytest.mark.parametrize(("with_it", "without"), [(Diagnosed, GRPOTrainer), (DiagnosedRLOO, RLOOTrainer)])
def test_a_run_that_is_diagnosed_is_the_same_to_the_last_bit(tmp_path, with_it, without):
    more = {"rollout_func": tempered(0.7)} if without is GRPOTrainer else {}
    one, other = trained(with_it, tmp_path / "a", **more), trained(without, tmp_path / "b", **more)
    assert torch.equal(parameters(one), parameters(other))
    assert len(logged(one)) == 6
    assert not logged(other)


def test_a_micro_batch_at_a_time_takes_one_window(tmp_path):
    trainer = trained(Diagnosed, tmp_path, gradient_accumulation_steps=4, max_steps=3)
    assert [step["isdiag/n"] for step in logged(trainer)] == [32.0] * 3
    assert len(trainer.controller.history["gamma"]) == 3


def test_rloo(tmp_path):
    steps = logged(trained(DiagnosedRLOO, tmp_path, learning_rate=2e-2))
    assert steps[0]["isdiag/ess_ratio_raw"] == 1.0
    assert steps[1]["isdiag/ess_ratio_raw"] < 1.0
    assert steps[1]["isdiag/policy/n"] == steps[1]["isdiag/n"] == 16
    assert steps[1]["isdiag/policy/ess_ratio_raw"] == steps[1]["isdiag/ess_ratio_raw"]


def test_an_evaluation_never_steps(tmp_path):
    trainer = trained(Diagnosed, tmp_path, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=8)
    assert trainer.controller.state.step == 6
    before = trainer.controller.state_dict()
    trainer.evaluate()
    assert trainer.controller.state_dict() == before
    assert any("eval_loss" in entry for entry in trainer.state.log_history)
    assert not any(key.startswith("eval_isdiag") for entry in trainer.state.log_history for key in entry)


@pytest.mark.parametrize("kind", [Diagnosed, Reshaped])
def test_a_run_resumes_exactly(tmp_path, kind):
    settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    whole = trained(kind, tmp_path, **settings)
    state = json.loads((tmp_path / "checkpoint-4" / "isdiag.json").read_text())
    assert state["step"] == 4
    resumed = made(kind, tmp_path, seed=1, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.controller.state_dict() == whole.controller.state_dict()
    assert torch.equal(parameters(resumed), parameters(whole))
    assert logged(resumed)[-4:] == logged(whole)[-4:]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trained(Diagnosed, tmp_path, **settings)
    other = made(Diagnosed, tmp_path, extra={"controller": GammaController(ess_min=0.5)}, **settings)
    with pytest.raises(ValueError, match="the state is of a controller with limits"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_ranks_and_micro_batches_are_one_batch(tmp_path):
    script = [sys.executable, "-W", "ignore", "-m", "tests.integrations.ranks"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29617"}
    one = subprocess.run([*script, "1", tmp_path / "one"], cwd=root, env=environment, check=False)
    assert one.returncode == 0
    ranks = [
        subprocess.Popen(
            [*script, "2", tmp_path / "two"],
            cwd=root,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    whole = json.loads((tmp_path / "one").read_text())
    parts = json.loads((tmp_path / "two").read_text())
    assert whole.keys() == parts.keys()
    for name, run in whole.items():
        assert len(run["steps"]) == 4
        for expected, got in zip(run["steps"], parts[name]["steps"], strict=True):
            assert got == pytest.approx(expected, rel=1e-4, abs=1e-5), name
        np.testing.assert_allclose(parts[name]["parameters"], run["parameters"], atol=2e-5, err_msg=name)


# --------------------------------------------------------------------------------------------- reshaped

METHODS = {
    "grpo": presets.grpo(),
    "dapo": presets.ppo(),
    "dr_grpo": presets.dr_grpo(8),
    "cispo": presets.cispo(1.1),
    "vespo": presets.vespo(),
    "sapo": presets.sapo(),
}


def assert_same_way(ours, theirs, start):
    moved = parameters(theirs) - parameters(start)
    assert moved.abs().max() > 1e-3
    assert (parameters(ours) - parameters(theirs)).abs().max() < 2e-4 * moved.abs().max()


# By SGD: the first steps of Adam are of a size that no gradient changes.
SGD = {"learning_rate": 0.3, "optim": "sgd", "max_grad_norm": 0.0}


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_is_the_loss_of_that_name(tmp_path, method):
    settings = SGD | ({"epsilon_high": 1.1} if method == "cispo" else {})
    theirs = trained(GRPOTrainer, tmp_path / "a", loss_type=method, **settings)
    ours = trained(Reshaped, tmp_path / "b", extra={"preset": METHODS[method]}, **settings)
    assert_same_way(ours, theirs, made(GRPOTrainer, tmp_path))


def test_two_ratios_are_those_of_trl(tmp_path):
    cap = "vllm_importance_sampling_clip_max"
    probe = made(Diagnosed, tmp_path)
    settings = {cap if hasattr(probe, cap) else "vllm_importance_sampling_cap": 1.1}
    given = {"vllm": "token_truncate", "rollout_func": tempered(0.6), **settings, **SGD}
    theirs = trained(GRPOTrainer, tmp_path / "a", loss_type="dapo", **given)
    ours = trained(Reshaped, tmp_path / "b", extra={"preset": presets.tis(1.1)}, **given)
    assert_same_way(ours, theirs, made(GRPOTrainer, tmp_path))


def test_rloo_reshaped_by_its_own_method_is_itself(tmp_path):
    theirs = trained(RLOOTrainer, tmp_path / "a", **SGD)
    own = presets.Preset(PPOClip(0.2, 0.2), average="sequences")
    ours = trained(ReshapedRLOO, tmp_path / "b", extra={"preset": own}, **SGD)
    assert_same_way(ours, theirs, made(RLOOTrainer, tmp_path))


def test_gamma_in_use_is_that_of_the_windows_before(tmp_path):
    run = trained(Reshaped, tmp_path, learning_rate=2e-2)
    gammas = run.controller.history["gamma"]
    assert gammas[0] == 0.37
    assert min(np.diff(gammas)) < 0.0  # a stale window
    rest = trained(Reshaped, tmp_path, extra={"preset": presets.adaptive()})
    assert rest.controller.limits.ess_min == 0.5
    assert rest._method().rest == rest.controller.gamma != 0.3


@pytest.mark.parametrize(
    ("name", "value"), [("beta", 0.1), ("top_entropy_quantile", 0.5), ("off_policy_mask_threshold", 0.1)]
)
def test_what_would_be_lost_is_refused(tmp_path, name, value):
    class Set(GRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, value)

    class Refusing(ISDiagReshapeMixin, Set):
        pass

    class Taking(ISDiagMixin, Set):
        pass

    with pytest.raises(ValueError, match=f"{name}={value}.*is replaced: it must be"):
        made(Refusing, tmp_path)
    made(Taking, tmp_path)


# ------------------------------------------------------------------------------------- what may move


def test_versions():
    adapter._check_version("1.0.0")
    with pytest.raises(ImportError, match=r"trl>=1.0,<2 and was tested with 1\.0\.0, .*; this is trl 2\.0"):
        adapter._check_version("2.0")
    with pytest.raises(ImportError, match=r"0\.29"):
        adapter._check_version("0.29.1")


def test_a_private_name_that_moved_fails_at_construction(tmp_path):
    class Moved(ISDiagMixin, PlainTrainer):
        pass

    with pytest.raises(TypeError, match="Moved has no _compute_loss behind the mixin"):
        Moved()


def test_a_loss_that_goes_another_way_is_told(tmp_path):
    class Elsewhere(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return model(inputs["completion_ids"]).logits.sum() * 0.0

    class Lost(ISDiagMixin, Elsewhere):
        pass

    with pytest.raises(RuntimeError, match="did not ask _get_per_token_logps_and_entropies"):
        trained(Lost, tmp_path)


def test_liger_is_refused(tmp_path, monkeypatch):
    class Liger(GRPOTrainer):
        compute_liger_loss = None

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.use_liger_kernel = True

    class Past(ISDiagMixin, Liger):
        pass

    with pytest.raises(ValueError, match="use_liger_kernel"):
        made(Past, tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="controller"):
        made(Diagnosed, tmp_path, extra={"controller": 0.3})
    with pytest.raises(TypeError, match="preset"):
        made(Reshaped, tmp_path, extra={"preset": "grpo"})
