"""The study of learning runs, and what it rests on holds."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

import alarms  # noqa: E402
import rl_study  # noqa: E402
from bandit import Bandit  # noqa: E402
from jobs import LEVELS, PLANS, QUICK, run_job  # noqa: E402
from methods import ADAPTIVE, METHODS  # noqa: E402
from sorting import Sorting, answer_log_probs, initial, sample  # noqa: E402
from training import Adam, Level, gradient, train  # noqa: E402

TASKS = {"bandit": Bandit, "sorting": Sorting}
BESIDE = {"SFT", "reward-weighted SFT"}  # their signal is not the advantage


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", TASKS)
def test_on_policy_methods_coincide(name):
    task = TASKS[name]((0, 1), 1, "cpu")
    theta = task.start()
    draws = task.collect(theta, 24, 1.0, torch.Generator().manual_seed(1))
    advantage = (draws.reward - draws.reward.mean(1, keepdim=True)).double().numpy()
    plain, _ = gradient(task, theta, draws, lambda _: advantage[..., None] / 24)
    for each in set(PLANS[name].methods) - BESIDE:
        method = METHODS[each](2, 10)
        found, _ = gradient(task, theta, draws, lambda log_ratio, method=method: method(log_ratio, advantage))
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-5, msg=each)


@pytest.mark.parametrize("name", TASKS)
def test_estimator_is_unbiased_with_the_samplers_probabilities(name):
    # Of a sampler that is not the policy: mean(w r) is the policy's expected reward.
    task = TASKS[name]((0,), 1, "cpu")
    theta = task.start()
    theta = theta + 0.3 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(2))
    tempered = task.collect(theta, 6000, 1.3, torch.Generator().manual_seed(3))
    plain = task.collect(theta, 6000, 1.0, torch.Generator().manual_seed(4))
    with torch.no_grad():
        w = (task.log_probs(theta, tempered) - tempered.log_q).sum(-1).exp()
    error = torch.sqrt((w * tempered.reward).var() / 6000 + plain.reward.var() / 6000)
    assert abs((w * tempered.reward).mean() - plain.reward.mean()) < 4 * error


def test_best_reward_of_the_bandit():
    task = Bandit((0, 1), 1, "cpu")
    mean = task.mean.numpy()
    by_hand = [np.mean([max(row) for row in problem]) for problem in mean]
    np.testing.assert_allclose(task.optimum.numpy(), by_hand, rtol=1e-6)
    # The policy class comes as near to it as one likes.
    assert (task.score(1000 * task.hidden)["reward"] > 0.9999).all()
    assert (task.score(task.start())["reward"] < 0.3).all()


def test_gradient_of_a_run_is_that_of_the_run_alone():
    theta = torch.stack([initial(seed) for seed in range(3)])
    rng = torch.Generator().manual_seed(1)
    prompt = torch.randint(10, (3, 8, 5), generator=rng)
    answer = torch.randint(10, (3, 8, 5), generator=rng)

    def slope(theta, prompt, answer):
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(answer_log_probs(theta, prompt, answer).sum(), theta)[0]

    together = slope(theta, prompt, answer)
    for i in range(3):
        alone = slope(theta[i : i + 1], prompt[i : i + 1], answer[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_samplers_probabilities_are_the_models(temperature):
    theta = 2 * torch.stack([initial(seed) for seed in range(2)])
    rng = torch.Generator().manual_seed(1)
    prompt = torch.randint(10, (2, 50, 5), generator=rng)
    answer, log_q = sample(theta, prompt, torch.rand(2, 50, 5, generator=rng), temperature)
    if temperature == 1.0:
        torch.testing.assert_close(log_q, answer_log_probs(theta, prompt, answer), rtol=1e-4, atol=1e-4)
    assert (log_q <= 0).all()
    assert ((answer >= 0) & (answer < 10)).all()


def test_adam_is_torchs_one_run_at_a_time():
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(2, 5, generator=rng)
    slopes = [torch.randn(2, 5, generator=rng) * scale for scale in (0.1, 10.0, 1.0)]
    rates = torch.tensor([0.1, 0.01])
    theta, adam = start.clone(), Adam(start, rates)
    for slope in slopes:
        theta = adam.step(theta, slope.clone())
    for i in range(2):
        own = start[i].clone().requires_grad_()
        peer = torch.optim.Adam([own], lr=rates[i].item())
        for slope in slopes:
            own.grad = slope[i].clone()
            torch.nn.utils.clip_grad_norm_([own], 1.0)
            peer.step()
        torch.testing.assert_close(theta[i], own.detach(), rtol=1e-4, atol=1e-6)


def test_a_run_whose_gradient_overflows_stays_and_others_go_on():
    theta = torch.zeros(2, 3)
    adam = Adam(theta, torch.tensor([0.1, 0.1]))
    moved = adam.step(theta, torch.tensor([[torch.inf, 0, 0], [1, 1, 1.0]]))
    assert (moved[0] == 0).all()
    assert (moved[1] < 0).all()


def test_first_batch_of_a_pool_is_on_policy_and_later_ones_are_not():
    task = Bandit((0,), 1, "cpu")
    seen = []

    class Watched:
        gamma = np.nan

        def __call__(self, log_ratio, advantage):
            seen.append(np.abs(log_ratio).max())
            return log_ratio * 0 + advantage[..., None]

    train(task, Watched(), Level("test", 4), torch.tensor([0.1]), 8, 16)
    assert max(seen[0], seen[4]) < 1e-5
    assert min(seen[1:4] + seen[5:]) > 1e-3


def test_study_and_its_parts_agree(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "docs"
    rl_study.main(["--quick", "--levels", "age 8, T 1.5", "--raw", str(raw)])
    rl_study.main(["--merge", str(raw), "--out", str(out)])
    text = (out / "rl_study.md").read_text()
    assert all(name in text for name in (*METHODS, rl_study.ONE_RATE))
    assert (out / "rl_study.png").stat().st_size > 10_000
    cells = rl_study.load(raw)
    assert len(cells) == 12 + 13
    assert all(np.isfinite(cell.final).all() for cell in cells)
    # A job gives the same in this process as in another one, whatever ran beside it.
    again = run_job("bandit", "age 8, T 1.5", ADAPTIVE, QUICK["bandit"], "cpu")
    kept = np.load(raw / "bandit_age_8_T_1.5_adaptive_gamma.npz")
    for name in ("tuned", "score reward", "gamma"):
        np.testing.assert_array_equal(again[name], kept[name])


def test_seeds_and_levels():
    for plan in PLANS.values():
        assert not set(plan.tuning) & set(plan.seeds)
        assert all(plan.updates % level.age == 0 for level in LEVELS.values())


def test_alarms_fire_on_what_ruins_a_run_and_on_nothing_else(capsys):
    alarms.main(["--quick"])
    report = capsys.readouterr().out
    assert len(report.splitlines()) == 2 + 10 + 2 + 10 + 2 + len(alarms.RUINS)
    assert set(alarms.ruined(3).values()) == {1.0}
    assert {alarm for alarm, _ in alarms.RUINS.values()} == set(alarms.ALARMS)
    for (spread, _), shares in alarms.clean(20).items():
        assert all(share == 0.0 for share in shares.values()) or spread >= 2.0
