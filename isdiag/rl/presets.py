"""Published methods whole: what a ratio is of, what becomes of it, masks, a second ratio, and the average.

A reshape alone is no method: PPO, GRPO and DAPO have one clip and differ in how tokens are averaged. A
`Preset` holds all of it, and gives each token's coefficient. Losses take one, as in
``is_reshape_loss(..., preset=grpo())``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, inf, log, nan
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from isdiag._core import steps
from isdiag._core.check import number, of_kind, one_of
from isdiag._core.typing import Floats, Mask, Values
from isdiag.rl import reshapes
from isdiag.rl.batch import Batch, Draws, Limits
from isdiag.rl.layouts import Level, varying
from isdiag.rl.ratios import difference_of
from isdiag.rl.reshapes import Power, PPOClip, Reshape
from isdiag.rl.schedules import Schedule, State
from isdiag.rl.step import LARGEST, Found, empty_step, measured, metrics_of
from isdiag.rl.tokens import Laid, Over, Tokens

if TYPE_CHECKING:
    from isdiag.rl.controller import GammaController

Measure = Literal["ratio", "k1", "k2", "k3", "tv"]
Average = Literal["tokens", "sequences", "sums"]

# What a preset tells beside the numbers of a `Step`.
PERPLEXITIES = ("perplexity", "perplexity_sampler")

_LIMITS = Limits()
_WHOLE = Power()
_NONE = np.empty(0)


__all__ = [
    "PERPLEXITIES",
    "Keep",
    "Preset",
    "adaptive",
    "cispo",
    "dapo",
    "decoupled_ppo",
    "dr_grpo",
    "grpo",
    "gspo",
    "icepop",
    "ppo",
    "sapo",
    "tis",
    "topr",
    "vespo",
]


@dataclass(frozen=True)
class Keep:
    """A mask: tokens, or whole sequences, whose measure of the two policies lies between bounds.

    What is masked has a coefficient of 0 and stays in every count.

    Attributes
    ----------
    measure : {"ratio", "k1", "k2", "k3", "tv"}
        Of a token of ratio r: r itself, compared in logs, so that over "sum" it is the product and over
        "mean" the geometric mean; the estimators of KL ``-log r``, ``(log r)**2 / 2`` and ``r - 1 - log r``;
        or ``abs(pi - mu)`` of the probabilities, twice the token's part in the total variation.
    low, high : float, defaults -inf and inf
        Bounds on it, both kept.
    over : {"token", "sum", "mean", "max"}, default "token"
        Each token by itself, or the sum, mean or maximum over a sequence's tokens, which keeps or leaves out
        the sequence.

    Examples
    --------
    >>> from isdiag.rl.presets import Keep
    >>> Keep("ratio", 0.999, 1.001, over="mean")
    Keep(measure='ratio', low=0.999, high=1.001, over='mean')
    """

    measure: Measure
    low: float = -inf
    high: float = inf
    over: Over = "token"

    def __post_init__(self) -> None:
        one_of("measure", self.measure, Measure)
        one_of("over", self.over, Over)
        number("low", self.low, 0.0 if self.measure == "ratio" and self.low != -inf else -inf)
        number("high", self.high, float(self.low))
        if self.measure == "ratio":
            number("high", self.high, 0.0)

    def of(self, log_ratio: Floats, tokens: Tokens) -> Mask:
        """Which tokens it keeps, given the log-ratio of each."""
        value = self._of_tokens(log_ratio, tokens)
        if self.over != "token":
            value = tokens.spread("sequence", tokens.over(self.over, value))
        low, high = self.low, self.high
        if self.measure == "ratio":
            low, high = (-inf if not bound > 0.0 else np.log(bound) for bound in (low, high))
        return (value >= low) & (value <= high)

    def _of_tokens(self, log_ratio: Floats, tokens: Tokens) -> Floats:
        if self.measure == "ratio":
            return log_ratio
        if self.measure == "k1":
            return -log_ratio
        if self.measure == "k2":
            return log_ratio**2 / 2.0
        if self.measure == "k3":
            return np.where(log_ratio > -inf, np.expm1(log_ratio) - log_ratio, inf)
        later = tokens.log_pi if tokens.log_near is None else tokens.log_near
        apart = np.exp(later, dtype=np.float64) - np.exp(tokens.log_mu, dtype=np.float64)
        return np.abs(apart, out=apart)


@dataclass(frozen=True)
class Preset:
    """A method of off-policy learning whole: its gradient sums ``coefficient * grad log pi`` over tokens.

    With two ratios, of the policy to the proximal one (the trainer's own, some updates ago) and of that to
    the sampler, `reshape` is for the first and `correction` for the second. Without a proximal policy the
    policy itself is taken for it where there is a `correction`: the first ratio is 1, the second that of
    policy to sampler. A preset without a `correction` has one ratio, of the policy to the proximal one if
    that is given, else to the sampler.

    Attributes
    ----------
    reshape : Reshape
        What becomes of the first ratio.
    level : {"token", "sequence", "geometric"}, default "token"
        What that ratio is of, see `isdiag.rl.log_ratio`.
    average : {"tokens", "sequences", "sums"}, default "tokens"
        What the loss is: the mean over all tokens; the mean over sequences of their tokens' means (GRPO); or
        the mean over sequences of their tokens' sums, over `length` (Dr. GRPO).
    length : float, default 1
        Divisor of "sums", > 0: the longest answer allowed, usually.
    correction : Reshape or None, default None
        What becomes of the second ratio, with the sign of the advantage if it goes by that.
    correction_level : {"token", "sequence", "geometric"}, default "token"
        What the second ratio is of.
    rest : float or None, default None
        Exponent gamma of the rest of an answer, >= 0, which a controller may set; None for no such factor. A
        token of negative advantage then also counts ``min(1, v**gamma / m)``, where v is the product of the
        other tokens' ratios of policy to sampler and m the mean of ``w**gamma`` over answers: a bad answer
        that the policy no longer gives teaches little. It is the exponent of `reshape` too, if that has one.
    centred : bool, default False
        Whether `reshape` is of the first ratio over its mean, where that is below 1: over tokens, or what
        draws are at `level`. A sampler that cuts its distribution (top-p, top-k) makes all ratios smaller.
    keep : tuple of Keep, default ()
        Masks; what all of them keep is kept. They look at the second ratio where there is a `correction`,
        else at that of policy to sampler.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag.rl.presets import dapo, grpo
    >>> log_mu, mask = np.log([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]), np.array([[1, 1, 1], [1, 0, 0]])
    >>> coefficients, metrics = grpo().coefficients(log_mu, log_mu, np.array([1.0, -1.0]), mask)
    >>> coefficients.round(3)
    array([[ 0.167,  0.167,  0.167],
           [-0.5  ,  0.   ,  0.   ]])
    >>> dapo().coefficients(log_mu, log_mu, np.array([1.0, -1.0]), mask)[0]
    array([[ 0.25,  0.25,  0.25],
           [-0.25,  0.  ,  0.  ]])
    >>> round(metrics["perplexity"], 3)
    2.0
    """

    reshape: Reshape
    level: Level = "token"
    average: Average = "tokens"
    length: float = 1.0
    correction: Reshape | None = None
    correction_level: Level = "token"
    rest: float | None = None
    centred: bool = False
    keep: tuple[Keep, ...] = ()

    def __post_init__(self) -> None:
        of_kind("reshape", self.reshape, Reshape)
        one_of("level", self.level, Level)
        one_of("average", self.average, Average)
        number("length", self.length, 0.0, ends="()")
        if self.correction is not None:
            of_kind("correction", self.correction, Reshape)
        one_of("correction_level", self.correction_level, Level)
        if self.rest is not None:
            number("rest", self.rest, 0.0, ends="[)")
        for each in self.keep:
            of_kind("keep", each, Keep)

    def coefficients(
        self,
        log_pi: Any,
        log_mu: Any,
        advantages: Any = 1.0,
        mask: Any = None,
        *,
        cu_seqlens: Any = None,
        log_proximal: Any = None,
        controller: GammaController | None = None,
    ) -> tuple[Any, dict[str, float]]:
        """What each token's ``grad log pi`` is multiplied by, in NumPy.

        Parameters
        ----------
        log_pi, log_mu : array_like or sequences of 1-D array_like
            Log-probabilities of tokens under the policy that learns and the one that sampled, in a layout of
            `isdiag.rl.log_ratio`. Of shape (B,) each is a sequence of one token.
        advantages : array_like, default 1
            One for all, of shape (B,) or (B, 1), or of the shape of the tokens.
        mask : array_like, optional
            Tokens that count.
        cu_seqlens : array_like of int, optional
            Where packed sequences start and the last one ends.
        log_proximal : array_like, optional
            Log-probabilities under the proximal policy, laid out as the others.
        controller : GammaController, optional
            Sets `rest`, by the answers' weights w, and keeps the history; its reshape has no part in it.

        Returns
        -------
        coefficients : ndarray or list of ndarray
            In the layout of `log_pi`; 0 for tokens that do not count or cannot be used.
        metrics : dict of str to float
            `isdiag.rl.METRICS` and ``perplexity``, ``perplexity_sampler``: e to minus the mean of log_pi and
            of log_mu over tokens. Draws are tokens, or sequences if neither ratio nor a mask is of tokens;
            raw weights are of policy to sampler, the used ones what reshape, correction and masks make.

        Raises
        ------
        ValueError
            If shapes do not fit, or advantages differ within a sequence that is one draw.
        TypeError
            If an argument is not real or not in CPU memory.
        """
        laid = Laid.out(log_pi, log_mu, advantages, mask, cu_seqlens, log_proximal)
        if controller is None:
            weighed = self.of_tokens(laid.tokens)
        else:
            state, weighed = self.following(
                laid.tokens, controller.schedule, controller.state, controller.limits
            )
            controller.record(state, weighed.measured)
        return laid.back(weighed.coefficients), weighed.metrics()

    def following(
        self, tokens: Tokens, schedule: Schedule, state: State, limits: Limits
    ) -> tuple[State, _Weighed]:
        """Advance a schedule by the weights of answers, if there is a `rest` to set, and weigh."""
        if self.rest is None:
            return state._replace(step=state.step + 1), self.of_tokens(tokens)
        with np.errstate(all="ignore"):
            answers = tokens.over("sum", tokens.log_w)
        batch = Batch(Draws.of(answers, 1.0, None), _WHOLE, limits)
        state = batch.following(schedule, state)
        return state, replace(self, rest=state.gamma).of_tokens(tokens, batch.gamma)

    def of_tokens(self, tokens: Tokens, gamma_batch: float = nan) -> _Weighed:
        """Weigh tokens that count; for adapters."""
        with np.errstate(all="ignore"):
            return self._of_tokens(tokens, gamma_batch)

    def _of_tokens(self, tokens: Tokens, gamma_batch: float) -> _Weighed:
        near = tokens.log_near
        first, second = tokens.log_w, None
        if self.correction is not None:
            second = tokens.log_w if near is None else difference_of(near, tokens.log_mu)
            first = np.zeros(tokens.size) if near is None else difference_of(tokens.log_pi, near)
        elif near is not None:
            first = difference_of(tokens.log_pi, near)
        # One number that is none spoils its token, or the sequence if something looks at all of it.
        left_out, good = 0, None
        others = [each for each in (first, second) if each is not None and each is not tokens.log_w]
        known = steps.all_known(tokens.log_w, tokens.advantage)
        if not (known and all(_below_inf(each) for each in others)):
            good = np.logical_and.reduce([each < inf for each in (tokens.log_w, *others)])
            good &= np.isfinite(tokens.advantage)
            if not self._alone:
                spoilt = tokens.over("max", (~good).astype(np.float64))
                good = tokens.spread("sequence", spoilt) == 0.0
            left_out = int(np.count_nonzero(~good))
            tokens = tokens.only(good)
            first = first[good]
            second = None if second is None else second[good]
        gamma = 1.0 if self.rest is None else self.rest
        if not tokens.size:
            nothing = np.zeros(left_out)
            empty = empty_step(Draws.whole(nothing, nothing, nothing.shape, left_out), gamma)
            return _Weighed(nothing, empty.metrics(), nan, nan)
        reshape = self.reshape if self.rest is None else self.reshape.at(self.rest)
        log_f, signal = self._shaped(reshape, self.level, first, tokens, self.centred)
        if self.correction is not None and second is not None:
            log_f = log_f + self._shaped(self.correction, self.correction_level, second, tokens)[0]
        if self.rest is not None:
            rest = _rest(self.rest, tokens)
            rest += log_f
            log_f = rest
        for each in self.keep:
            log_f = np.where(each.of(tokens.log_w if second is None else second, tokens), log_f, -inf)
        values = np.minimum(log_f, LARGEST)
        np.exp(values, out=values)
        values *= signal
        values *= self._share(tokens)
        numbers = self._diagnosed(log_f, signal, left_out, tokens)
        if self.rest is not None:
            numbers |= {"gamma": gamma, "gamma_batch": gamma_batch}
        out = values
        if good is not None:
            out = np.zeros(good.size)
            out[good] = values
        return _Weighed(out, metrics_of(numbers), _perplexity(tokens.log_pi), _perplexity(tokens.log_mu))

    @property
    def _alone(self) -> bool:
        """Whether a token's coefficient goes by that token only."""
        corrected = self.correction is not None and self.correction_level != "token"
        return (
            self.level == "token"
            and not corrected
            and self.rest is None
            and not self.centred
            and all(each.over == "token" for each in self.keep)
        )

    @property
    def _by_token(self) -> bool:
        """Whether draws are tokens: whether anything differs within a sequence."""
        corrected = self.correction is not None and self.correction_level == "token"
        return self.level == "token" or corrected or any(each.over == "token" for each in self.keep)

    def _shaped(
        self, reshape: Reshape, level: Level, log_ratio: Floats, tokens: Tokens, centred: bool = False
    ) -> tuple[Floats, Floats]:
        """Log f and signal at each token."""
        advantage = tokens.advantage if level == "token" else _one_each(tokens)
        ratios = tokens.at(level, log_ratio)
        log_f, signal = reshape.of_draws(_centred(ratios) if centred else ratios, advantage)
        return tokens.spread(level, log_f), tokens.spread(level, signal)

    def _share(self, tokens: Tokens) -> Any:
        """What part of the average a token is."""
        count = tokens.lengths.size
        if self.average == "tokens":
            return 1.0 / tokens.size
        if self.average == "sequences":
            return tokens.spread("sequence", 1.0 / (count * tokens.lengths))
        return 1.0 / (count * self.length)

    def _diagnosed(self, log_f: Floats, signal: Floats, left_out: int, tokens: Tokens) -> dict[str, Any]:
        """What a `Step` of the draws would tell."""
        whole, level = tokens.log_w, self.level
        if self._by_token:
            level = "token"
        else:
            whole = tokens.at(self.level, whole)
            log_f, signal = log_f[tokens.starts], signal[tokens.starts]
        found = Found(log_f)
        batch = Batch(Draws.whole(whole, signal, whole.shape, left_out), found, _LIMITS)
        return measured(batch, found, batch.reshaped(found), "count", level, _NONE)


class _Weighed(NamedTuple):
    """What became of tokens: coefficients, what a `Step` measures, perplexities of policy and sampler."""

    coefficients: Floats
    measured: dict[str, float]
    perplexity: float
    perplexity_sampler: float

    def metrics(self) -> dict[str, float]:
        """All numbers by their names."""
        return self.measured | dict(zip(PERPLEXITIES, self[2:], strict=True))


def _rest(gamma: float, tokens: Tokens) -> Floats:
    """At tokens of negative advantage the log of ``min(1, v**gamma / m)``, v of the answer's other tokens."""
    log_w = tokens.log_w
    answers = tokens.over("sum", log_w)
    mean = _log_mean(reshapes.power(gamma, answers))
    if not mean > -inf:
        return np.zeros(log_w.size)
    none = log_w == -inf  # such a token has no weight anyway
    others = tokens.spread("sequence", answers)
    others -= log_w
    if none.any():
        others[none] = 0.0
    others = reshapes.power(gamma, others, others)
    others -= mean
    np.minimum(others, 0.0, out=others)
    np.copyto(others, 0.0, where=tokens.advantage >= 0.0)
    return others


def _centred(log_ratio: Floats) -> Floats:
    """Log-ratios less the log of their mean, if that is negative."""
    mean = _log_mean(log_ratio)
    return log_ratio - mean if -inf < mean < 0.0 else log_ratio


def _log_mean(log_w: Floats) -> float:
    """Log of the mean of exp(log_w), -inf where all are."""
    largest = float(log_w.max())
    if largest == -inf:
        return largest
    weights = log_w - largest
    return largest + log(np.exp(weights, out=weights).mean())


def _below_inf(values: Floats) -> bool:
    """Whether all are, and none is NaN."""
    return bool(values.max(initial=-inf) < inf)


def _one_each(tokens: Tokens) -> Floats:
    """The advantage of each sequence, all of whose tokens must have it."""
    high, low = tokens.over("max", tokens.advantage), -tokens.over("max", -tokens.advantage)
    wrong = np.flatnonzero(low < high)
    if wrong.size:
        first = int(wrong[0])
        raise varying(first, low.item(first), high.item(first))
    return high


def _perplexity(log_p: Values) -> float:
    return exp(min(-float(log_p.mean(dtype=np.float64)), LARGEST))


# ------------------------------------------------------------------------------------------- methods


def adaptive(cap: float = 2.0, caution: float = 4.0) -> Preset:
    """The project's own: token ratios, caution about bad answers, and gamma for the rest of an answer.

    A token of a good answer weighs ``min(w, cap)``, one of a bad answer ``min(w, 1)**max(1, caution gamma)``
    times ``min(1, v**gamma / m)``, v being the ratio of the answer's other tokens and m the mean of the
    answers' ``w**gamma``; w of a token is over the mean of all tokens' where that is below 1. Sums over
    tokens, the mean over answers.

    Of the final score of the best other tuned method it had 0.964 on average and 0.704 at least in the
    study's 88 cells, the next best method 0.936 and 0.592; on the tasks made last 0.944, where `topr` had
    0.971: it is behind where a short answer earns all or nothing. Caution of 4 and 5 came to the same on ten
    hard cells of development (0.982, least 0.953), 3 whatever gamma to 0.941 and 0.654.

    Parameters
    ----------
    cap, caution : float, defaults 2 and 4
        See `isdiag.rl.Cautious`.

    Returns
    -------
    Preset
        To be given to a loss. ``GammaController(ess_min=0.5, k_max=inf)`` beside it sets gamma, which is 0.3
        without.

    References
    ----------
    [Owen2013]_, section 9.9; docs/results/rl_study.md.

    Examples
    --------
    >>> from isdiag.rl.presets import adaptive
    >>> adaptive().rest
    0.3
    """
    return Preset(reshapes.Cautious(cap, caution), average="sums", rest=0.3, centred=True)


def cispo(high: float = 5.0, low: float = 0.0) -> Preset:
    """CISPO: clipped token ratios as constant weights, the mean over tokens.

    Parameters
    ----------
    high, low : float, defaults 5 and 0
        Bounds on the ratio.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [MiniMax2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import cispo
    >>> cispo().reshape
    CISPO(low=0.0, high=5.0)
    """
    return Preset(reshapes.CISPO(low, high))


def dapo(low: float = 0.2, high: float = 0.28) -> Preset:
    """DAPO: PPO's clip with a higher ceiling, the mean over tokens.

    Parameters
    ----------
    low, high : float, defaults 0.2 and 0.28
        How far the ratio may be below and above 1.

    Returns
    -------
    Preset
        To be given to a loss.

    Notes
    -----
    Its sampling of prompts and its reward of lengths are made before: they are no part of a loss.

    References
    ----------
    [Yu2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import dapo
    >>> dapo().reshape
    PPOClip(low=0.2, high=0.28, dual=None)
    """
    return Preset(PPOClip(low, high))


def decoupled_ppo(low: float = 0.2, high: float = 0.2, correction: Reshape | None = None) -> Preset:
    """Decoupled PPO: the clip is about a proximal policy, and a second ratio leads from the sampler to that.

    Parameters
    ----------
    low, high : float, defaults 0.2 and 0.2
        How far the ratio may be below and above 1.
    correction : Reshape, optional
        What becomes of the second ratio; default ``Reinforce()``, the ratio itself.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [Hilton2022]_.

    Examples
    --------
    >>> from isdiag.rl.presets import decoupled_ppo
    >>> decoupled_ppo().correction
    Reinforce()
    """
    return Preset(PPOClip(low, high), correction=reshapes.Reinforce() if correction is None else correction)


def dr_grpo(length: float, low: float = 0.2, high: float = 0.2) -> Preset:
    """Dr. GRPO: PPO's clip, sums over tokens divided by a constant, so that long answers count in full.

    Parameters
    ----------
    length : float
        The constant, > 0: the longest answer allowed.
    low, high : float, defaults 0.2 and 0.2
        How far the ratio may be below and above 1.

    Returns
    -------
    Preset
        To be given to a loss.

    Notes
    -----
    Its advantages are rewards less their mean within a group, not divided by their spread.

    References
    ----------
    [Liu2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import dr_grpo
    >>> dr_grpo(length=512).average
    'sums'
    """
    return Preset(PPOClip(low, high), average="sums", length=length)


def grpo(low: float = 0.2, high: float = 0.2) -> Preset:
    """GRPO: PPO's clip, the mean over answers of the means over their tokens.

    Parameters
    ----------
    low, high : float, defaults 0.2 and 0.2
        How far the ratio may be below and above 1.

    Returns
    -------
    Preset
        To be given to a loss.

    Notes
    -----
    Its penalty of KL to a reference model is a loss of its own, to be added.

    References
    ----------
    [Shao2024]_.

    Examples
    --------
    >>> from isdiag.rl.presets import grpo
    >>> grpo().average
    'sequences'
    """
    return Preset(PPOClip(low, high), average="sequences")


def gspo(low: float = 3e-4, high: float = 4e-4) -> Preset:
    """GSPO: PPO's clip of the geometric mean of an answer's token ratios, the mean over answers.

    Parameters
    ----------
    low, high : float, defaults 0.0003 and 0.0004
        How far the ratio may be below and above 1; the defaults are for answers of a thousand tokens.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [Zheng2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import gspo
    >>> gspo().level
    'geometric'
    """
    return Preset(PPOClip(low, high), "geometric", "sequences")


def icepop(low: float = 0.5, high: float = 5.0, clip_low: float = 0.2, clip_high: float = 0.2) -> Preset:
    """IcePop: GRPO whose tokens go by the second ratio between bounds, and are masked beyond.

    Parameters
    ----------
    low, high : float, defaults 0.5 and 5
        Bounds on the second ratio.
    clip_low, clip_high : float, default 0.2
        PPO's clip of the first.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [LingTeam2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import icepop
    >>> icepop().correction
    Masked(low=0.5, high=5.0)
    """
    clip = PPOClip(number("clip_low", clip_low, 0.0, 1.0), number("clip_high", clip_high, 0.0, ends="[)"))
    return Preset(clip, average="sequences", correction=reshapes.Masked(low, high))


def ppo(low: float = 0.2, high: float = 0.2, dual: float | None = None) -> Preset:
    """PPO: the clipped objective, the mean over tokens.

    Parameters
    ----------
    low, high, dual : float, defaults 0.2, 0.2 and None
        See `isdiag.rl.PPOClip`.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [Schulman2017]_; [Ye2020]_ (dual clip).

    Examples
    --------
    >>> from isdiag.rl.presets import ppo
    >>> ppo(dual=3.0).reshape
    PPOClip(low=0.2, high=0.2, dual=3.0)
    """
    return Preset(PPOClip(low, high, dual))


def sapo(tau_pos: float = 1.0, tau_neg: float = 1.05) -> Preset:
    """SAPO: a soft gate on token ratios, the mean over answers of the means over their tokens.

    Parameters
    ----------
    tau_pos, tau_neg : float, defaults 1 and 1.05
        Temperatures of the gate, see `isdiag.rl.SAPO`.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [SAPO2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import sapo
    >>> sapo().reshape
    SAPO(tau_pos=1.0, tau_neg=1.05)
    """
    return Preset(reshapes.SAPO(tau_pos, tau_neg), average="sequences")


def tis(cap: float = 2.0, low: float = 0.2, high: float = 0.2) -> Preset:
    """TIS: PPO's clip about a proximal policy, times the second ratio, truncated; the mean over tokens.

    Parameters
    ----------
    cap : float, default 2
        Largest second ratio.
    low, high : float, defaults 0.2 and 0.2
        How far the ratio may be below and above 1.

    Returns
    -------
    Preset
        To be given to a loss.

    Notes
    -----
    Without a proximal policy it is REINFORCE with weights ``min(w, cap)``.

    References
    ----------
    [Ionides2008]_; [Yao2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import tis
    >>> tis().correction
    Truncated(cap=2.0)
    """
    return Preset(PPOClip(low, high), correction=reshapes.Truncated(cap))


def topr() -> Preset:
    """Tapered off-policy REINFORCE: the answer's ratio, at most 1, for what went badly, else 1.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [LeRoux2025]_.

    Examples
    --------
    >>> from isdiag.rl.presets import topr
    >>> topr().level
    'sequence'
    """
    return Preset(reshapes.TOPR(), "sequence", "sums")


def vespo(k_pos: float = 2.0, lam_pos: float = 3.0, k_neg: float = 3.0, lam_neg: float = 2.0) -> Preset:
    """VESPO: a damped power of the whole answer's ratio, the mean over tokens.

    Parameters
    ----------
    k_pos, lam_pos, k_neg, lam_neg : float, defaults 2, 3, 3 and 2
        See `isdiag.rl.VESPO`.

    Returns
    -------
    Preset
        To be given to a loss.

    References
    ----------
    [VESPO2026]_.

    Examples
    --------
    >>> from isdiag.rl.presets import vespo
    >>> vespo().average
    'tokens'
    """
    return Preset(reshapes.VESPO(k_pos, lam_pos, k_neg, lam_neg), "sequence")
