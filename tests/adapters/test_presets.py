"""Presets are the methods that they are named after: gradients of losses written out here, by autograd."""

import dataclasses

import numpy as np
import pytest

from isdiag.rl import Diagnosed, GammaController, Limits, State, presets
from isdiag.rl.presets import Keep
from tests.helpers import optional

torch = optional("torch")

from isdiag.torch import is_reshape_loss, reshape_coefficients, weighted_loss  # noqa: E402

LENGTH = 7


@pytest.fixture
def tokens(rng):
    count = 12
    mask = np.arange(LENGTH) < rng.integers(1, LENGTH + 1, size=count)[:, None]
    log_mu = -rng.exponential(1.0, (count, LENGTH)) - 0.1
    near = np.minimum(log_mu + 0.2 * rng.normal(size=mask.shape), -0.01)
    log_pi = np.minimum(near + 0.4 * rng.normal(size=mask.shape), -0.01)
    advantage = rng.normal(size=count)
    tensors = [torch.tensor(a) for a in (log_pi, log_mu, near, advantage, mask)]
    tensors[0].requires_grad_()
    return tensors


# Each loss is written from its paper, out of ratios that autograd goes through; `stop` is what it stops at.


def stop(x):
    return x.detach()


def clipped(ratio, advantage, low=0.2, high=0.2):
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def token_mean(x, mask):
    return (x * mask).sum() / mask.sum()


def mean_of_means(x, mask):
    return ((x * mask).sum(1) / mask.sum(1)).mean()


def ppo(pi, mu, near, a, mask):
    return -token_mean(clipped((pi - mu).exp(), a[:, None]), mask)


def ppo_dual(pi, mu, near, a, mask):
    a = a[:, None]
    value = clipped((pi - mu).exp(), a)
    return -token_mean(torch.where(a < 0, torch.maximum(value, 1.5 * a), value), mask)


def grpo(pi, mu, near, a, mask):
    return -mean_of_means(clipped((pi - mu).exp(), a[:, None]), mask)


def dr_grpo(pi, mu, near, a, mask):
    return -(clipped((pi - mu).exp(), a[:, None]) * mask).sum() / (len(a) * LENGTH)


def dapo(pi, mu, near, a, mask):
    return -token_mean(clipped((pi - mu).exp(), a[:, None], 0.2, 0.28), mask)


def gspo(pi, mu, near, a, mask):
    ratio = (((pi - mu) * mask).sum(1) / mask.sum(1)).exp()
    return -clipped(ratio, a, 0.05, 0.06).mean()


def cispo(pi, mu, near, a, mask):
    return -token_mean(stop((pi - mu).exp().clamp(0.0, 1.3)) * a[:, None] * pi, mask)


def tis(pi, mu, near, a, mask):
    weight = stop((near - mu).exp().clamp(max=1.1))
    return -token_mean(weight * clipped((pi - near).exp(), a[:, None]), mask)


def tis_alone(pi, mu, near, a, mask):
    return -token_mean(stop((pi - mu).exp().clamp(max=1.1)) * a[:, None] * pi, mask)


def icepop(pi, mu, near, a, mask):
    ratio = stop((near - mu).exp())
    weight = torch.where((ratio >= 0.9) & (ratio <= 1.2), ratio, 0.0)
    return -mean_of_means(weight * clipped((pi - near).exp(), a[:, None]), mask)


def topr(pi, mu, near, a, mask):
    ratio = stop(((pi - mu) * mask).sum(1).exp())
    weight = torch.where(a < 0, ratio.clamp(max=1.0), 1.0)
    return -(weight * a * (pi * mask).sum(1)).mean()


def vespo(pi, mu, near, a, mask):
    log_w = stop(((pi - mu) * mask).sum(1))
    phi = torch.where(
        a >= 0,
        (2.0 * log_w + 3.0 * (1 - log_w.exp())).exp(),
        (3.0 * log_w + 2.0 * (1 - log_w.exp())).exp(),
    )
    return -token_mean((phi * a)[:, None] * pi, mask)


def sapo(pi, mu, near, a, mask):
    tau = (1.05 - 0.05 * (a > 0).double())[:, None]
    gate = torch.sigmoid(tau * ((pi - mu).exp() - 1)) * 4 / tau
    return -mean_of_means(gate * a[:, None], mask)


def decoupled(pi, mu, near, a, mask):
    return -token_mean(stop((near - mu).exp()) * clipped((pi - near).exp(), a[:, None]), mask)


def adaptive(pi, mu, near, a, mask):
    ratio = stop((pi - mu) * mask)
    answers = ratio.sum(1, keepdim=True)
    mean = (0.3 * answers).exp().mean()
    others = ((0.3 * (answers - ratio)).exp() / mean).clamp(max=1.0)
    own = ratio.exp() / ratio.exp()[mask > 0].mean().clamp(max=1.0)
    weight = torch.where(a[:, None] < 0, own.clamp(max=1.0) ** 1.2 * others, own.clamp(max=2.0))
    return -((weight * a[:, None] * pi) * mask).sum() / len(a)


METHODS = {
    "adaptive": (presets.adaptive(), adaptive, False),
    "CISPO": (presets.cispo(high=1.3), cispo, False),
    "DAPO": (presets.dapo(), dapo, False),
    "decoupled PPO": (presets.decoupled_ppo(), decoupled, True),
    "Dr. GRPO": (presets.dr_grpo(LENGTH), dr_grpo, False),
    "GRPO": (presets.grpo(), grpo, False),
    "GSPO": (presets.gspo(0.05, 0.06), gspo, False),
    "IcePop": (presets.icepop(0.9, 1.2), icepop, True),
    "PPO": (presets.ppo(), ppo, False),
    "PPO, dual clip": (presets.ppo(dual=1.5), ppo_dual, False),
    "SAPO": (presets.sapo(), sapo, False),
    "TIS": (presets.tis(1.1), tis, True),
    "TIS, one ratio": (presets.tis(1.1), tis_alone, False),
    "TOPR": (presets.topr(), topr, False),
    "VESPO": (presets.vespo(), vespo, False),
}
each_method = pytest.mark.parametrize("name", METHODS)


def slope(loss, log_pi):
    return torch.autograd.grad(loss, log_pi)[0].numpy()


@each_method
def test_gradient_is_that_of_the_methods_own_loss(tokens, name):
    preset, loss, both = METHODS[name]
    pi, mu, near, a, mask = tokens
    expected = slope(loss(pi, mu, near, a, mask), pi)
    assert np.abs(expected).max() > 1e-3
    beside = {"log_proximal": near} if both else {}
    found, metrics = is_reshape_loss(pi, mu, a, mask, preset=preset, **beside)
    np.testing.assert_allclose(slope(found, pi), expected, rtol=1e-12, atol=1e-15)
    assert metrics["skipped"] == 0.0
    assert metrics["n"] == (mask.sum() if preset.level == "token" else len(a))
    # NumPy's coefficients are what autograd multiplies by.
    arrays = [x.detach().numpy() for x in (pi, mu, a, mask)]
    beside = {"log_proximal": near.numpy()} if both else {}
    coefficients, alone = preset.coefficients(*arrays, **beside)
    np.testing.assert_allclose(-coefficients, expected, rtol=1e-12, atol=1e-15)
    assert {name: metrics[name] for name in alone} == pytest.approx(alone, nan_ok=True)


def test_every_preset_is_compared():
    made = {preset for preset, _, _ in METHODS.values()}
    tried = {type(p.reshape).__name__ + p.average + str(p.correction is None) for p in made}
    for name in presets.__all__:
        if name[0].islower():
            preset = getattr(presets, name)(*([LENGTH] if name == "dr_grpo" else []))
            assert type(preset.reshape).__name__ + preset.average + str(preset.correction is None) in tried


@each_method
def test_layouts_agree(tokens, name):
    preset, _, both = METHODS[name]
    pi, mu, near, a, mask = (x.detach() for x in tokens)
    near = near if both else None
    padded, metrics = reshape_coefficients(pi, mu, a, mask, preset=preset, log_proximal=near)

    def cut(x):
        return None if x is None else [row[kept] for row, kept in zip(x, mask, strict=True)]

    ragged, others = reshape_coefficients(cut(pi), cut(mu), a, preset=preset, log_proximal=cut(near))
    torch.testing.assert_close(ragged, padded[mask], rtol=0, atol=0)
    assert metrics == pytest.approx(others, nan_ok=True)
    cuts = torch.cat([torch.zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)])
    packed = [None if x is None else x[mask] for x in (pi, mu, near)]
    found, _ = reshape_coefficients(*packed[:2], a, cu_seqlens=cuts, preset=preset, log_proximal=packed[2])
    torch.testing.assert_close(found, padded[mask], rtol=0, atol=0)
    own, _ = preset.coefficients(*packed[:2], a, cu_seqlens=cuts, log_proximal=packed[2])
    np.testing.assert_array_equal(own, found.numpy())
    lists, _ = preset.coefficients(cut(pi), cut(mu), a, log_proximal=cut(near))
    np.testing.assert_array_equal(np.concatenate(lists), found.numpy())
    assert [len(each) for each in lists] == mask.sum(1).tolist()
    # Parts of a batch, each through its own loss, add up to one gradient.
    whole = pi.clone().requires_grad_()
    parts = [
        weighted_loss(whole[i : i + 4], padded[i : i + 4], mask[i : i + 4], level="token") for i in (0, 4, 8)
    ]
    np.testing.assert_allclose(slope(sum(parts), whole), -padded.numpy(), atol=1e-15)


@pytest.mark.parametrize("name", ["adaptive", "decoupled PPO", "GSPO", "TOPR"])
def test_jax_agrees(tokens, name):
    jax = optional("jax")
    from isdiag.jax import is_reshape_loss as loss_of_jax

    preset, _, both = METHODS[name]
    pi, mu, near, a, mask = (x.detach() for x in tokens)
    expected, metrics = reshape_coefficients(
        pi, mu, a, mask, preset=preset, log_proximal=near if both else None
    )
    with jax.enable_x64(True):
        arrays = [x.numpy() for x in (pi, mu, a, mask)]
        beside = {"log_proximal": near.numpy()} if both else {}
        state = {} if preset.rest is None else {"state": State(preset.rest)}
        take = jax.jit(
            jax.value_and_grad(
                lambda pi, beside: loss_of_jax(pi, *arrays[1:], preset=preset, **state, **beside),
                has_aux=True,
            )
        )
        (_, aux), found = take(arrays[0], beside)
        assert bool(aux.ok)
        assert int(aux.state.step) == 1
        np.testing.assert_allclose(-np.asarray(found), expected.numpy(), rtol=1e-12)
        for key in ("n", "kl", "perplexity", "negative_share", "ess_ratio"):
            assert float(aux.metrics[key]) == pytest.approx(metrics[key])
        flat = [arrays[0][arrays[3]], arrays[1][arrays[3]]]
        cuts = np.append(0, arrays[3].sum(1).cumsum())
        beside = {"log_proximal": near.numpy()[arrays[3]]} if both else {}
        how = {"preset": preset, **state, **beside}
        packed = jax.grad(lambda pi, cuts: loss_of_jax(pi, flat[1], arrays[2], cu_seqlens=cuts, **how)[0])
        np.testing.assert_allclose(
            -np.asarray(jax.jit(packed)(flat[0], cuts)), expected.numpy()[arrays[3]], rtol=1e-12
        )


# --------------------------------------------------------------------------------------------- masks


MASKS = {
    Keep("k1", -0.2, 0.3): lambda r, _: (-r >= -0.2) & (-r <= 0.3),
    Keep("k2", high=0.05): lambda r, _: r**2 / 2 <= 0.05,
    Keep("k3", high=0.05): lambda r, _: r.exp() - 1 - r <= 0.05,
    Keep("tv", high=0.1): lambda r, mu: ((mu + r).exp() - mu.exp()).abs() <= 0.1,
    Keep("ratio", 0.8, 1.3): lambda r, _: (r.exp() >= 0.8) & (r.exp() <= 1.3),
}


@pytest.mark.parametrize("keep", MASKS, ids=lambda keep: keep.measure)
def test_masks_of_tokens(tokens, keep):
    pi, mu, _, a, mask = (x.detach() for x in tokens)
    kept = MASKS[keep](pi - mu, mu)
    assert 0 < (kept & mask).sum() < mask.sum()
    plain, _ = presets.cispo().coefficients(pi, mu, a, mask)
    preset = dataclasses.replace(presets.cispo(), keep=(keep,))
    found, metrics = preset.coefficients(pi, mu, a, mask)
    np.testing.assert_array_equal(found, np.where(kept, plain, 0.0))  # in every count all the same
    assert metrics["fraction_zero"] == pytest.approx(1 - float((kept & mask).sum() / mask.sum()))


OVER = {
    "sum": lambda x, mask: (x * mask).sum(1),
    "mean": lambda x, mask: (x * mask).sum(1) / mask.sum(1),
    "max": lambda x, mask: torch.where(mask, x, -torch.inf).amax(1),
}


@pytest.mark.parametrize("over", OVER)
def test_masks_of_sequences_with_weights_of_tokens_and_both_at_once(tokens, over):
    pi, mu, _, a, mask = (x.detach() for x in tokens)
    r = pi - mu
    value = OVER[over](r.exp() - 1 - r, mask)
    limit = float(value.median())
    preset = dataclasses.replace(presets.cispo(), keep=(Keep("k3", high=limit, over=over),))
    plain, _ = presets.cispo().coefficients(pi, mu, a, mask)
    found, _ = preset.coefficients(pi, mu, a, mask)
    kept = np.broadcast_to((value <= limit)[:, None].numpy(), mask.shape)
    np.testing.assert_array_equal(found, np.where(kept, plain, 0.0))
    both = dataclasses.replace(preset, keep=(*preset.keep, Keep("tv", high=0.1)))
    found, _ = both.coefficients(pi, mu, a, mask)
    second = ((pi.exp() - mu.exp()).abs() <= 0.1).numpy()
    np.testing.assert_array_equal(found, np.where(kept & second, plain, 0.0))


def test_geometric_mask_on_sequence_weights(tokens):
    pi, mu, _, a, mask = (x.detach() for x in tokens)
    mean = (((pi - mu) * mask).sum(1) / mask.sum(1)).exp()
    preset = dataclasses.replace(presets.topr(), keep=(Keep("ratio", 0.9, 1.1, over="mean"),))
    plain, _ = presets.topr().coefficients(pi, mu, a, mask)
    found, metrics = preset.coefficients(pi, mu, a, mask)
    kept = ((mean >= 0.9) & (mean <= 1.1)).numpy()
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(found, np.where(kept[:, None], plain, 0.0))
    assert metrics["n"] == kept.size


# ----------------------------------------------------------------------------------- adaptive gamma


def controller():
    return GammaController(ess_min=0.5, k_max=np.inf)


def test_a_controller_sets_the_gamma_of_the_rest(tokens):
    pi, mu, _, a, mask = tokens
    preset, one, other = presets.adaptive(), controller(), controller()
    plain = controller()
    arrays = [x.detach().numpy() for x in (pi, mu, a, mask)]
    for _ in range(3):
        loss, metrics = is_reshape_loss(pi, mu, a, mask, preset=preset, controller=one)
        found, alone = preset.coefficients(*arrays, controller=other)
        plain.step(((arrays[0] - arrays[1]) * arrays[3]).sum(1))
        np.testing.assert_allclose(slope(loss, pi), -found, rtol=1e-12)
        assert one.gamma == other.gamma == pytest.approx(metrics["gamma"])
        assert one.gamma == pytest.approx(plain.gamma, rel=0.02)  # the ESS of w^gamma, cautious there
        assert alone["gamma_batch"] == metrics["gamma_batch"]
    assert one.history["gamma"] == other.history["gamma"]
    assert len(one.history["gamma"]) == 3
    assert one.gamma != 0.3
    with torch.no_grad():
        is_reshape_loss(pi, mu, a, mask, preset=preset, controller=one)
    assert one.state == other.state
    fixed, _ = dataclasses.replace(preset, rest=one.gamma).coefficients(*arrays)
    with torch.no_grad():
        evaluated, _ = is_reshape_loss(pi, mu, a, mask, preset=preset, controller=one)
    assert float(evaluated) == pytest.approx(-(fixed * arrays[0]).sum())


def test_jax_sets_the_gamma_of_the_rest(tokens):
    optional("jax")
    import jax

    from isdiag.jax import is_reshape_loss as loss_of_jax

    pi, mu, _, a, mask = (x.detach().numpy() for x in tokens)
    own = controller()
    with jax.enable_x64(True):
        state = State(0.3)
        for _ in range(2):
            presets.adaptive().coefficients(pi, mu, a, mask, controller=own)
            how = {"schedule": Diagnosed(), "limits": Limits(np.inf, 0.5)}
            _, aux = loss_of_jax(pi, mu, a, mask, preset=presets.adaptive(), state=state, **how)
            state = aux.state
        assert float(state.gamma) == pytest.approx(own.gamma)
    with pytest.raises(ValueError, match="state must be given"):
        loss_of_jax(pi, mu, a, mask, preset=presets.adaptive())


@pytest.mark.parametrize("rest", [0.0, 0.3])
def test_a_token_of_no_weight_and_the_rest_of_its_answer(tokens, rest):
    pi, mu, _, a, mask = (x.detach().clone() for x in tokens)
    a[:] = -1.0
    mask[1, :3] = True
    pi[1, 0] = -torch.inf
    preset = dataclasses.replace(presets.adaptive(), rest=rest)
    found, metrics = preset.coefficients(pi, mu, a, mask)
    assert np.isfinite(found).all()
    assert found[1, 0] == 0.0
    assert not found[1].any()  # at gamma = 0 too an answer of zero weight keeps it
    assert (found[0][mask[0]] < 0.0).all()
    assert metrics["n_nonfinite"] == 0.0


# ----------------------------------------------------------------------------------- what goes wrong


def test_metrics_are_those_of_the_policies(tokens):
    pi, mu, _, a, mask = (x.detach() for x in tokens)
    _, metrics = presets.ppo().coefficients(pi, mu, a, mask)
    r = (pi - mu)[mask]
    assert metrics["perplexity"] == pytest.approx(float(torch.exp(-pi[mask].mean())))
    assert metrics["perplexity_sampler"] == pytest.approx(float(torch.exp(-mu[mask].mean())))
    assert metrics["log_w_max"] == pytest.approx(float(r.max()))
    assert metrics["kl"] == pytest.approx(float(-r.mean()))
    assert metrics["kl_k3"] == pytest.approx(float((r.exp() - 1 - r).mean()))
    assert metrics["chi2"] == pytest.approx(float(r.exp().square().mean() - 1))


@pytest.mark.parametrize(("name", "lost"), [("CISPO", 1), ("TOPR", None)])
def test_a_bad_number_spoils_its_token_or_its_sequence(tokens, name, lost):
    preset = METHODS[name][0]
    pi, mu, _, a, mask = (x.detach().clone() for x in tokens)
    mask[1, :3] = True
    mu[1, 0] = torch.nan
    found, metrics = preset.coefficients(pi, mu, a, mask)
    assert np.isfinite(found).all()
    assert found[1, 0] == 0.0
    assert (found[1] == 0).all() == (lost is None)
    assert metrics["n_nonfinite"] == (lost or mask[1].sum())
    mu[:] = torch.nan
    found, metrics = preset.coefficients(pi, mu, a, mask)
    assert not found.any()
    assert metrics["alarm_stall"] == 1.0
    with pytest.raises(ValueError, match="on_bad"):
        is_reshape_loss(pi, mu, a, mask, preset=preset)
    assert is_reshape_loss(pi, mu, a, mask, preset=preset, on_bad="skip")[1]["skipped"] == 1.0


def test_a_policy_that_is_not_finite_skips(tokens):
    pi, mu, near, a, mask = (x.detach().clone() for x in tokens)
    pi[0, 0] = torch.nan
    pi.requires_grad_()
    for preset in (presets.ppo(), presets.topr(), presets.tis()):
        loss, metrics = is_reshape_loss(pi, mu, a, mask, preset=preset, log_proximal=near, on_bad="skip")
        loss.backward()
        assert (loss.item(), metrics["skipped"]) == (0.0, 1.0)


def test_wrong_arguments(tokens):
    pi, mu, near, a, mask = (x.detach() for x in tokens)
    with pytest.raises(ValueError, match="a preset says all that level"):
        is_reshape_loss(pi, mu, a, mask, preset=presets.ppo(), level="token")
    with pytest.raises(ValueError, match="log_proximal is for a preset"):
        is_reshape_loss(pi, mu, a, mask, log_proximal=near)
    with pytest.raises(ValueError, match="no gamma for a controller"):
        is_reshape_loss(pi, mu, a, mask, preset=presets.ppo(), controller=controller())
    with pytest.raises(ValueError, match="rest must"):
        dataclasses.replace(presets.adaptive(), rest=-1.0)
    with pytest.raises(TypeError, match="preset"):
        is_reshape_loss(pi, mu, a, mask, preset="ppo")
    with pytest.raises(ValueError, match="same shape"):
        is_reshape_loss(pi, mu, a, mask, preset=presets.tis(), log_proximal=near[:, 1:])
    with pytest.raises(ValueError, match="same at all tokens"):
        presets.gspo().coefficients(pi, mu, pi, mask)
    with pytest.raises(ValueError, match="measure"):
        Keep("k4")
    with pytest.raises(ValueError, match="over"):
        Keep("k3", over="min")
    with pytest.raises(ValueError, match="high must"):
        Keep("k3", 1.0, 0.5)
    with pytest.raises(ValueError, match="length must"):
        presets.dr_grpo(0)
    with pytest.raises(ValueError, match="average"):
        dataclasses.replace(presets.ppo(), average="token")
