"""The study of learning runs, and what it rests on holds."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import alarms  # noqa: E402
import rl_study  # noqa: E402
from bandit import Bandit  # noqa: E402
from episodes import STEPS, Episodes  # noqa: E402
from jobs import LEVELS, PLANS, QUICK, path_of, run_job  # noqa: E402
from maze import Maze  # noqa: E402
from methods import ADAPTIVE, FEW, METHODS, Adaptive  # noqa: E402
from slots import PAID, SLOTS, SYMBOLS, Slots  # noqa: E402
from sorting import answer_log_probs, initial, sample  # noqa: E402
from training import Adam, Batch, Level, Sampler, advantages, train  # noqa: E402

from isdiag.rl import GammaController, presets  # noqa: E402

TASKS = {name: plan.task for name, plan in PLANS.items()}
# Their signal or their average is another.
BESIDE = {"SFT", "reward-weighted SFT", "AsymRE", "GRPO", "Dr. GRPO", "GSPO"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch_of(task, theta, draws):
    with torch.no_grad():
        log_ratio = (task.log_probs(theta, draws) - draws.log_q).double().numpy()
    advantage, centred = (a.double().numpy() for a in advantages(draws.reward, task.group))
    return Batch(log_ratio, advantage, draws.mask.numpy(), centred, log_ratio)


@pytest.mark.parametrize("name", TASKS)
def test_on_policy_methods_coincide(name):
    task = TASKS[name]((0, 1), 1)
    theta = task.start()
    draws = task.collect(theta, 24, Sampler(), torch.Generator().manual_seed(1))
    batch = batch_of(task, theta, draws)
    plain = batch.advantage[..., None] / 24 * batch.mask
    for each in set(METHODS) - BESIDE:
        for maker in METHODS[each]:
            np.testing.assert_allclose(maker(2, 10)(batch), plain, rtol=2e-3, atol=1e-5, err_msg=each)


@pytest.mark.parametrize("sampler", [Sampler(1.3), Sampler(0.8)])
@pytest.mark.parametrize("name", TASKS)
def test_estimator_is_unbiased_with_the_samplers_probabilities(name, sampler):
    # Of a sampler that is not the policy: mean(w r) is the policy's expected reward.
    task = TASKS[name]((0,), 1)
    theta = task.start()
    theta = theta + 0.1 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(2))
    tempered = task.collect(theta, 4000, sampler, torch.Generator().manual_seed(3))
    plain = task.collect(theta, 4000, Sampler(), torch.Generator().manual_seed(4))
    with torch.no_grad():
        w = (task.log_probs(theta, tempered) - tempered.log_q).sum(-1).exp()
    error = torch.sqrt((w * tempered.reward).var() / 4000 + plain.reward.var() / 4000)
    assert abs((w * tempered.reward).mean() - plain.reward.mean()) < 4 * error


@pytest.mark.parametrize("kind", [Episodes, Slots, Maze])
def test_exact_scores_are_means_of_rewards(kind):
    task = kind((0, 1), 1)
    theta = 2 * torch.randn(task.start().shape, generator=torch.Generator().manual_seed(1))
    if kind is Slots:
        theta[0] += 4 * torch.nn.functional.one_hot(task.target[0], SYMBOLS).flatten()
    reward = task.collect(theta, 6000, Sampler(), torch.Generator().manual_seed(2)).reward
    scale = {Episodes: lambda: task.best / STEPS, Maze: lambda: task.best, Slots: lambda: 1.0}[kind]()
    error = reward.std(1) / 6000**0.5
    assert (abs(task.score(theta)["reward"] * scale - reward.mean(1)) < 4 * error + 1e-6).all()


def test_score_of_slots_is_one_where_all_are_right():
    task = Slots((0,), 1)
    right = 100.0 * torch.nn.functional.one_hot(task.target, SYMBOLS).float().flatten(1)
    assert task.score(right)["reward"].item() == pytest.approx(1.0)
    p = (1 / SYMBOLS) ** PAID  # of triples each is right by chance as often
    assert task.score(task.start())["reward"].item() == pytest.approx(p, rel=1e-5)
    assert SLOTS > PAID


def test_a_cut_sampler_draws_the_least_set_with_its_share():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    found = Sampler(top_p=0.8).log_probs(logits)
    kept = torch.tensor([True, False, True, False])  # .64 and .24 of the mass
    assert torch.equal(torch.isfinite(found), kept)
    torch.testing.assert_close(found.exp()[kept], (logits.exp() * kept / (logits.exp() * kept).sum())[kept])
    half = Sampler(temperature=0.5).log_probs(logits)
    torch.testing.assert_close(half, torch.log_softmax(2 * logits, -1))


def test_the_adaptive_method_is_the_preset_with_a_controller():
    task = TASKS["episodes"]((0, 1), 1)
    theta = task.start()
    controllers = [GammaController(ess_min=0.5, k_max=np.inf) for _ in range(2)]
    method = Adaptive(2)
    for i in range(3):
        draws = task.collect(theta, 48, Sampler(), torch.Generator().manual_seed(i))
        moved = theta + 0.2 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(9 + i))
        batch = batch_of(task, moved, draws)
        found = method(batch)
        for run, controller in enumerate(controllers):
            own, metrics = presets.adaptive().coefficients(
                batch.log_ratio[run],
                np.zeros(batch.log_ratio[run].shape),
                batch.advantage[run],
                batch.mask[run],
                controller=controller,
            )
            assert method.gamma[run] == pytest.approx(metrics["gamma"], rel=1e-4)
            np.testing.assert_allclose(found[run], own, rtol=1e-3, atol=1e-9)


def test_advantages_of_groups():
    reward = torch.tensor([[0.0, 1.0, 2.0, 2.0]])
    scaled, centred = advantages(reward, 2)
    torch.testing.assert_close(centred, torch.tensor([[-0.5, 0.5, 0.0, 0.0]]))
    torch.testing.assert_close(scaled, torch.tensor([[-1.0, 1.0, 0.0, 0.0]]), rtol=1e-3, atol=0)
    torch.testing.assert_close(advantages(reward, 0)[0], reward - 1.25)


def test_best_reward_of_the_bandit():
    task = Bandit((0, 1), 1)
    mean = task.mean.numpy()
    by_hand = [np.mean([max(row) for row in problem]) for problem in mean]
    np.testing.assert_allclose(task.optimum.numpy(), by_hand, rtol=1e-6)
    # The policy class comes as near to it as one likes.
    assert (task.score(1000 * task.hidden)["reward"] > 0.9999).all()
    assert (task.score(task.start())["reward"] < 0.3).all()


def test_gradient_of_a_run_is_that_of_the_run_alone():
    theta = torch.stack([initial(seed) for seed in range(3)])
    rng = torch.Generator().manual_seed(1)
    prompt = torch.randint(8, (3, 8, 4), generator=rng)
    answer = torch.randint(8, (3, 8, 4), generator=rng)

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
    prompt = torch.randint(8, (2, 50, 4), generator=rng)
    answer, log_q = sample(theta, prompt, torch.rand(2, 50, 4, generator=rng), Sampler(temperature))
    if temperature == 1.0:
        torch.testing.assert_close(log_q, answer_log_probs(theta, prompt, answer), rtol=1e-4, atol=1e-4)
    assert (log_q <= 0).all()
    assert ((answer >= 0) & (answer < 8)).all()


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
    task = Bandit((0,), 1)
    seen = []

    class Watched:
        gamma, decoupled = np.nan, False

        def __call__(self, batch):
            seen.append(np.abs(batch.log_ratio).max())
            return batch.log_ratio * 0 + batch.advantage[..., None]

    train(task, Watched(), Level("test", 4), torch.tensor([0.1]), 8, 16)
    assert max(seen[0], seen[4]) < 1e-5
    assert min(seen[1:4] + seen[5:]) > 1e-3
    seen.clear()
    train(task, Watched(), Level("test", lag=3), torch.tensor([0.1]), 8, 16)
    assert seen[0] < 1e-5
    assert min(seen[1:]) > 1e-3
    seen.clear()
    train(task, Watched(), Level("test", replay=True), torch.tensor([0.1]), 20, 16)
    assert seen[0] < 1e-5
    assert min(seen[1:]) > 1e-3


def test_study_and_its_parts_agree(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "docs"
    rl_study.main(
        ["--quick", "--levels", "T 1.5", "--tasks", "bandit", "maze", "--processes", "1", "--raw", str(raw)]
    )
    rl_study.main(["--merge", str(raw), "--out", str(out)])
    text = (out / "rl_study.md").read_text()
    assert all(name in text for name in (*FEW, rl_study.ONE_RATE, "looked at before"))
    cells = rl_study.load(raw)
    assert len(cells) == 2 * (len(FEW) + 1)
    assert all(np.isfinite(cell.final).all() for cell in cells)
    # A job gives the same in this process as in another one.
    again = run_job("bandit", "T 1.5", ADAPTIVE, QUICK["bandit"], "cpu")
    kept = np.load(path_of("bandit", "T 1.5", ADAPTIVE, raw))
    for name in ("tuned", "score reward", "gamma"):
        np.testing.assert_array_equal(again[name], kept[name])


def test_seeds_and_levels():
    assert [plan.kind for plan in PLANS.values()].count("last") >= 3
    for plan in PLANS.values():
        assert not set(plan.tuning) & set(plan.seeds)
        assert all(plan.updates % level.age == 0 for level in LEVELS.values())


def test_alarms_fire_on_what_ruins_a_run_and_on_nothing_else(capsys):
    alarms.main(["--quick"])
    report = capsys.readouterr().out
    assert len(report.splitlines()) == 2 + 18 + 2 + 10 + 2 + len(alarms.RUINS)
    assert set(alarms.ruined(3).values()) == {1.0}
    assert {alarm for alarm, _ in alarms.RUINS.values()} == set(alarms.ALARMS)
    for (spread, _), shares in alarms.clean(20).items():
        assert all(share == 0.0 for share in shares.values()) or spread >= 2.0
