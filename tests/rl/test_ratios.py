"""Log-ratios: one answer whatever the layout, sums in float64, and every wrong argument."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isdiag import rl
from isdiag.rl import log_ratio
from tests.helpers import optional

LEVELS = ("sequence", "token", "geometric")
each_level = pytest.mark.parametrize("level", LEVELS)


GARBAGE = [np.nan, np.inf, -np.inf, 1.7e308, -1.7e308]


class Batch:
    """The same sequences in every layout; where the mask is 0 there is garbage."""

    def __init__(self, lengths, seed, kept=0.7):
        rng = np.random.default_rng(seed)
        self.masks = [rng.uniform(size=length) < kept for length in lengths]
        self.pi, self.mu = ([self.tokens(rng, mask) for mask in self.masks] for _ in range(2))
        self.cuts = np.cumsum([0, *lengths])

    def tokens(self, rng, mask):
        values = rng.normal(scale=10.0 ** rng.integers(-3, 4), size=mask.size)
        return np.where(mask, values, rng.choice(GARBAGE, mask.size))

    def padded(self, parts, fill):
        width = max(map(len, parts)) + 2
        return np.stack([np.append(part, np.full(width - len(part), fill)) for part in parts])

    def layouts(self, level):
        yield log_ratio(self.pi, self.mu, self.masks, level=level)
        packed = (np.concatenate(parts) for parts in (self.pi, self.mu, self.masks))
        result = log_ratio(*packed, cu_seqlens=self.cuts, level=level)
        yield np.split(result, self.cuts[1:-1]) if level == "token" else result
        for fill in (np.nan, -np.inf):
            pi, mu, mask = self.padded(self.pi, fill), self.padded(self.mu, fill), self.padded(self.masks, 0)
            result = log_ratio(pi, mu, mask, level=level)
            if level == "token":
                for row, part in zip(result, self.pi, strict=True):
                    assert (row[len(part) :] == -np.inf).all()
                result = [row[: len(part)] for row, part in zip(result, self.pi, strict=True)]
            yield result

    def kept(self):
        """The differences of the tokens that count, a list of a sequence."""
        each = zip(self.pi, self.mu, self.masks, strict=True)
        return [(pi[mask] - mu[mask]).tolist() for pi, mu, mask in each]


lengths = st.lists(st.sampled_from([0, 1, 2, 3, 7, 8, 9, 17, 130, 300]), min_size=1, max_size=6)


@each_level
@given(lengths=lengths, seed=st.integers(0, 2**32 - 1), kept=st.sampled_from([0.0, 0.7, 1.0]))
def test_every_layout_gives_the_same_bits(level, lengths, seed, kept):
    batch = Batch(lengths, seed, kept)
    first, *others = batch.layouts(level)
    for other in others:
        if level == "token":
            for a, b in zip(first, other, strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_array_equal(first, other)


@given(lengths=lengths, seed=st.integers(0, 2**32 - 1))
def test_levels_are_the_product_and_the_geometric_mean_of_the_token_ratios(lengths, seed):
    batch = Batch(lengths, seed)
    whole, token, geometric = (next(batch.layouts(level)) for level in LEVELS)
    for i, differences in enumerate(batch.kept()):
        size = math.fsum(map(abs, differences))
        if differences:
            assert whole[i] == pytest.approx(math.fsum(differences), rel=0, abs=1e-14 * size)
            assert geometric[i] == whole[i] / len(differences)
        else:
            assert math.isnan(whole[i])
            assert math.isnan(geometric[i])
        np.testing.assert_array_equal(token[i][batch.masks[i]], differences)
        assert (token[i][~batch.masks[i]] == -np.inf).all()


def test_a_sequence_without_tokens_is_no_draw(rng):
    for level in ("sequence", "geometric"):
        np.testing.assert_array_equal(log_ratio([[], [1.0]], [[], [3.0]], level=level), [np.nan, -2.0])
        np.testing.assert_array_equal(log_ratio([[9.0]], [[1.0]], [[0]], level=level), [np.nan])
        assert np.isnan(log_ratio(np.zeros((3, 0)), np.zeros((3, 0)), level=level)).all()
    # 60 rows of padding among 100: they are in no count, and no error where the mask is passed on.
    pi, mu = rng.normal(-1.0, 0.3, size=(2, 100, 4))
    mask = np.broadcast_to(np.arange(100)[:, None] < 40, (100, 4))
    log_w, expected = log_ratio(pi, mu, mask), log_ratio(pi[:40], mu[:40])
    how = {"reshape": rl.Power(), "schedule": rl.Fixed(), "state": rl.State(1.0)}
    step, alone = (rl.take_step(log_w, where=where, **how)[1] for where in (mask, None))
    rest = rl.take_step(expected, **how)[1]
    assert (step.n, alone.n, step.n_nonfinite) == (40, 40, 0)
    assert step.ess_ratio == alone.ess_ratio == rest.ess_ratio
    np.testing.assert_array_equal(step.coefficients[:40], rest.coefficients)
    assert not step.coefficients[40:].any()


@each_level
def test_a_nested_tensor_is_a_ragged_batch(level):
    torch = optional("torch")
    pi, mu = (
        [torch.tensor(tokens) for tokens in lists]
        for lists in ([[-1.0], [-2.0, -3.0]], [[-2.0], [0.0, -1.0]])
    )
    nested = (torch.nested.as_nested_tensor(parts, layout=torch.jagged) for parts in (pi, mu))
    for found, expected in zip(log_ratio(*nested, level=level), log_ratio(pi, mu, level=level), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_number_a_sequence_is_its_ratio(level):
    np.testing.assert_array_equal(log_ratio([-4.0, -9.5], [-3.0, -10.0], level=level), [-1.0, 0.5])
    left_out = -np.inf if level == "token" else np.nan
    np.testing.assert_array_equal(log_ratio([-4.0, np.nan], [-3.0, 1.0], [1, 0], level=level), [-1, left_out])
    with pytest.raises(ValueError, match="needs tokens"):
        log_ratio([-4.0, -9.5], [-3.0, -10.0], level="geometric")


def test_packed_starts_are_not_for_lists():
    with pytest.raises(ValueError, match="cu_seqlens is for packed tokens"):
        log_ratio([[-1.0], [-1.0, -2.0]], [[-1.0], [-1.0, -2.0]], cu_seqlens=[0, 1, 3])


# -------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["padded", "ragged", "equal", "packed"])
def test_narrow_tensors_are_widened_before_they_are_summed(dtype, layout):
    torch = optional("torch")
    # 20001 tokens: a difference of 1024, and after it 20000 of 2**-6, all exact in bfloat16.
    pi = torch.zeros(20_001, dtype=getattr(torch, dtype))
    mu = torch.full_like(pi, -(2.0**-6))
    mu[0] = -1024.0
    expected = 1024 + 20_000 / 64  # 1336.5
    by_itself = torch.zeros((), dtype=pi.dtype)
    if dtype == "bfloat16":
        for difference in (pi - mu)[:500]:
            by_itself += difference
        assert by_itself == 1024  # summed as they come all but the first are lost
        assert float((pi - mu).sum()) != expected  # nor has bfloat16 room for the sum
    pi.requires_grad_()
    if layout == "padded":
        result = log_ratio(pi[None], mu[None], torch.ones(1, 20_001))
    elif layout == "ragged":
        result = log_ratio([pi, pi[:1]], [mu, mu[:1]])
    elif layout == "equal":
        result = log_ratio([pi, pi], [mu, mu])
    else:
        cuts = torch.tensor([0, 20_001], dtype=torch.int32)
        result = log_ratio(pi, mu, cu_seqlens=cuts)
    assert result.dtype == np.float64
    assert result[0] == expected


def test_single_precision_is_widened_before_the_difference():
    pi, mu = np.full((1, 4096), -1e4, np.float32), np.full((1, 4096), -(2.0**-12), np.float32)
    assert log_ratio(pi, mu)[0] == 4096 * (2.0**-12 - 1e4)
    assert float((pi - mu).sum(dtype=np.float64)) == -4096e4  # in single precision mu is lost


def test_inputs_stay(rng):
    pi, mu, mask = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.uniform(size=(3, 5)) < 0.5
    before = pi.copy(), mu.copy(), mask.copy()
    for level in LEVELS:
        log_ratio(pi, mu, mask, level=level)[:] = 0.0
    for array, copy in zip((pi, mu, mask), before, strict=True):
        np.testing.assert_array_equal(array, copy)


# ------------------------------------------------------------------------------------ odd tokens


@pytest.mark.parametrize(
    ("pi", "mu", "expected"),
    [
        (-np.inf, -1.0, -np.inf),  # pi cannot make this sequence
        (-1.0, -np.inf, np.inf),  # mu could not
        (-np.inf, -np.inf, np.nan),
        (np.nan, -1.0, np.nan),
        (-1.0, np.nan, np.nan),
        (-1.0, np.inf, np.nan),  # no log-probability, rather than a draw of no weight
    ],
)
def test_one_odd_token_decides_its_sequence_and_no_other(pi, mu, expected):
    log_pi, log_mu = [[-1.0, pi, -2.0], [-1.0, -1.0, -1.0]], [[-2.0, mu, -2.0], [-1.0, -2.0, -1.0]]
    for level in ("sequence", "geometric"):
        result = log_ratio(log_pi, log_mu, level=level)
        np.testing.assert_array_equal(result[0], expected)
        assert result[1] == (1.0 if level == "sequence" else pytest.approx(1 / 3))
    token = log_ratio(log_pi, log_mu, level="token")
    np.testing.assert_array_equal(token, [[1.0, expected, 0.0], [0.0, 1.0, 0.0]])


def test_tokens_impossible_under_either_policy_leave_the_ratio_unknown():
    result = log_ratio([[-np.inf, -1.0], [-1.0, -1.0]], [[-1.0, -np.inf], [-2.0, -1.0]])
    np.testing.assert_array_equal(result, [np.nan, 1.0])


# --------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize("level", ["seq", None, 1, "tokens"])
def test_unknown_level(level):
    with pytest.raises(ValueError, match=f"level must be one of .* got {level!r}"):
        log_ratio([1.0], [1.0], level=level)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3), np.zeros(4)), r"\(3,\) and \(4,\)"),
        ((np.zeros((2, 3)), np.zeros(3)), r"\(2, 3\) and \(3,\)"),
        ((np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3)), r"mask must have the shape.*\(3,\)"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 3, 4))), r"got \(2, 3, 4\)"),
        ((0.0, 0.0), r"got \(\)"),
        (([[1.0], [1.0, 2.0]], [[1.0]]), "2, 1 and 2 sequences"),
        (([[1.0], [1.0, 2.0]], [[1.0], [1.0, 2.0]], [[1]]), "2, 2 and 1 sequences"),
        (([[1.0], [1.0, 2.0]], [[1.0], [1.0]]), r"\(2,\) and \(1,\)"),
        (([[[1.0]], [1.0, 2.0]], [[[1.0]], [1.0, 2.0]]), "1-D"),
        (([1.0], [1.0], [2]), "mask must be boolean or hold 0 and 1"),
        (([1.0], [1.0], [np.nan]), "mask must be boolean or hold 0 and 1"),
        (([1.0], [1.0], [-1e9]), "mask must be boolean or hold 0 and 1"),
        (([1.0], [1.0], [-np.inf]), "mask must be boolean or hold 0 and 1"),
        (([1.0], [1.0], [0.5]), "mask must be boolean or hold 0 and 1"),
    ],
)
@each_level
def test_shapes_that_do_not_match(arguments, message, level):
    with pytest.raises(ValueError, match=message):
        log_ratio(*arguments, level=level)


@pytest.mark.parametrize(
    "cuts", [[0, 2], [1, 3], [0, 2, 1, 3], [0.0, 3.0], [[0, 3]], [3], [], [0, -1, 3], [0, 4], 3]
)
@each_level
def test_cuts_that_do_not_cut(cuts, level):
    with pytest.raises(ValueError, match="cu_seqlens must be ints that rise from 0"):
        log_ratio(np.zeros(3), np.zeros(3), cu_seqlens=cuts, level=level)
    unsigned = np.array([0, 2, 1, 3], np.uint8)  # whose differences do not fall below 0
    with pytest.raises(ValueError, match="cu_seqlens"):
        log_ratio(np.zeros(3), np.zeros(3), cu_seqlens=unsigned, level=level)


def test_cuts_are_for_packed_tokens_only():
    with pytest.raises(ValueError, match=r"cu_seqlens .* shape \(2, 2\)"):
        log_ratio(np.zeros((2, 2)), np.zeros((2, 2)), cu_seqlens=[0, 2, 4])


@pytest.mark.parametrize("values", [["a"], [1j], [True], [None]])
def test_only_real_numbers(values):
    for pair in ((values, [1.0]), ([1.0], values)):
        with pytest.raises(TypeError, match=r"log_(pi|mu) must hold real numbers"):
            log_ratio(*pair)
