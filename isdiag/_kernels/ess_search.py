"""The largest gamma with a wanted ESS."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import LN_2, LOWEST, exp2_roughly, rate_of
from isdiag._kernels.power_sums import fill_moments, kish, kish_ess, moments_in
from isdiag._kernels.sums import BLOCK, ORDER, pad, pair_sums

# ESS is brought to [target, target (1 + _TOLERANCE)], aiming inside, so that the constraint holds
# for whoever computes ESS at the chosen gamma again.
_TOLERANCE = 4e-11
AIM = 2e-11
_MODEL_ERROR = 1.5e-11
_MAX_STEPS = 200
_SMALLEST_GAMMA = 1e-300
LARGEST_GAMMA = 1e300


@inner
def _series(c, d):
    """Sum of c_k d^k and its derivative in d."""
    value = c[ORDER]
    slope = 0.0
    for k in range(ORDER - 1, -1, -1):
        slope = value + slope * d
        value = c[k] + value * d
    return value, slope


@inner
def _log_ess(moments, delta):
    """log ESS and its derivative at gamma (1 + delta), from the `Moments` at gamma.

    e^(1 + delta) is e times the exponential series of delta t, so its sums are series in the moments; the
    factor of the centre cancels in ESS.
    """
    a, a_slope = _series(moments.once, delta)
    b, b_slope = _series(moments.squared, 2.0 * delta)
    return math.log(a * a / b), 2.0 * (a_slope / a - b_slope / b)


@inner
def _model_step(moments, reach, log_target):
    """(delta that brings ESS to the target, a bound on how far log ESS is from it there).

    The first power left out is at most abs(delta)^7 / 7! times reach, the largest abs(t - centre), times
    the sixth moment; what follows it adds at most a factor exp(abs(delta) reach).
    """
    delta = 0.0
    for _ in range(12):
        value, slope = _log_ess(moments, delta)
        step = (log_target - value) / slope
        delta += step
        if not abs(delta) < 0.5:
            return np.nan, np.inf
        if abs(step) < 1e-8:  # what is left is of the order of its square
            break
    value, _ = _log_ess(moments, delta)
    unsolved = abs(log_target - value)
    d = abs(delta)
    error = 2.0 * d**7 * moments.once[6] / moments.once[0] * math.exp(min(d * reach, 700.0))
    d *= 2.0
    error += d**7 * moments.squared[6] / moments.squared[0] * math.exp(min(d * reach, 700.0))
    return delta, error * reach / 7.0 + unsolved


class EssTask(NamedTuple):
    """To find the largest gamma in (0, gamma_max] with ESS >= target, on a row that is not flat."""

    size: int
    half_range: float  # of the finite entries
    n_finite: int
    target: float
    gamma_max: float


class EssSearch(NamedTuple):
    """Where the search stands and which `Moments` it asks for next. At stride 0 it has ended."""

    stride: int  # every stride-th block is looked at
    gamma: float  # wanted there; or the answer
    middle: float
    ess: float  # at the answer, NaN where no pass has told it
    feasible: float  # bracket of the answer on these blocks
    feasible_ess: float
    infeasible: float
    step: int


# A long row is started from the root of an eighth of its blocks, that from an eighth of those, and so on.
_LEVEL = 8
_FIRST_LEVEL = 128 * BLOCK
_SAMPLE_ERROR = 1e-3
_SAMPLE_STEPS = 20


@inner
def _sampled(size, stride):
    """How many draws every stride-th block of size draws hold."""
    whole = (size - 1) // (stride * BLOCK)
    return whole * BLOCK + min(BLOCK, size - whole * stride * BLOCK)


@inner
def _shape(row, survey, stride, d):
    """Mean, standard deviation and half the skewness of the finite entries less the largest.

    Of a sample, as if it held its share of them. They are scales to begin at, so they may overflow.
    """
    total = squares = cubes = 0.0
    for first in range(0, row.size, stride * BLOCK):
        part = row[first : first + BLOCK]
        for i in range(part.size):
            d[i] = part[i] - survey.high if part[i] > -np.inf else 0.0
        a, _, b, c = pair_sums(d, d, pad(d, part.size))
        total += a
        squares += b
        cubes += c
    count = survey.n_finite * (_sampled(row.size, stride) / row.size)
    mean, square = total / count, squares / count
    spread = math.sqrt(max(square - mean * mean, 0.0))
    third = cubes / count - mean * (3.0 * square - 2.0 * mean * mean)
    return mean, spread, 0.5 * (third / spread) / (spread * spread)


@inner
def _first_guess(aim, spread, lean):
    """Of log-weights of a gamma law of skewness 2 lean: (gamma at which log(n / ESS) is the aim, a factor).

    There log(n / ESS) is log(1 + y^2 / (1 - 2 y)) / lean^2 with y = gamma spread lean, and the mean moves by
    2 gamma spread^2 times the factor under w^(2 gamma). A normal law is the limit at 0. From where that puts
    the answer skewed rows take more passes: for 1000 draws with log-weights .9 E, -20 E and -20 N^2, E
    exponential and N normal, 3.2 in place of 2, 4 in place of 2.5, 5 in place of 3.
    """
    if not 1e-6 < abs(lean) < np.inf:
        return math.sqrt(aim) / spread, 1.0
    e = math.expm1(min(aim * lean * lean, 200.0))
    root = math.sqrt(e * (e + 1.0))
    y = e / (e + root) if lean > 0.0 else -(e + root)
    return y / (spread * lean), 1.0 / (1.0 - 2.0 * y)


@inner
def _begin_level(task, stride, gamma, centre):
    """Search every stride-th block, beginning at gamma, where t has the mean gamma centre under w^(2 gamma).

    The series of the second sum is the one that limits the error, so that is where both are centred.

    Where all gamma * row lie within a range R, ESS >= n_finite exp(-R) (Kantorovich).
    """
    aim = math.log(task.n_finite) - math.log(task.target) - AIM
    feasible = min(0.5 * aim / task.half_range, task.gamma_max)
    least = max(feasible, _SMALLEST_GAMMA)
    gamma = min(gamma, task.gamma_max) if gamma > least else least  # least where gamma is NaN
    return EssSearch(stride, gamma, _middle(gamma * centre), np.nan, feasible, np.nan, np.inf, 0)


@inner
def _middle(t):
    return t if -700.0 < t < 0.0 else 0.0


@inner
def _ended(gamma, ess):
    return EssSearch(0, gamma, 0.0, ess, gamma, ess, np.inf, 0)


@inner
def _end_level(task, stride, gamma, ess, centre):
    if stride == 1:
        return _ended(gamma, ess)
    return _begin_level(task, stride // _LEVEL, gamma, centre)


@inner
def _rough_weights(part, shift, rate, e, u):
    """As `_weights_and_logs`, the weights by `exp2_roughly`."""
    for i in range(part.size):
        v = max(rate * (part[i] - shift), LOWEST)
        e[i] = exp2_roughly(v)
        u[i] = v
    pad(u, part.size)
    return pad(e, part.size)


_ROUGH_STEPS = 8
_NEARER = 0.03
_NEAR = 0.1  # a step of Newton's ends nearer by its square


@inner
def _approached(row, survey, task, stride, gamma, centre, e, u):
    """(gamma nearer to the answer, centre there), by Newton's steps as in `step_ess_search`.

    They cost a third of a pass of moments each. Of 1.7 of these for 1000 normal draws one is left, of 2.4
    and 2.9 for -20 E and -20 N^2 (see `_first_guess`) 1.0 and 1.1.
    """
    if not 0.0 < gamma < task.gamma_max:
        return gamma, centre
    share = _sampled(row.size, stride) / row.size
    aim = math.sqrt(math.log(task.n_finite) - math.log(task.target))
    for _ in range(_ROUGH_STEPS):
        a = b = au = bu = 0.0
        for first in range(0, row.size, stride * BLOCK):
            end = _rough_weights(row[first : first + BLOCK], survey.high, rate_of(gamma), e, u)
            of_block = pair_sums(e, u, end)
            a += of_block[0]
            au += of_block[1]
            b += of_block[2]
            bu += of_block[3]
        ratio = math.sqrt(max(math.log(task.n_finite * share * b / (a * a)), 0.0))
        step = (aim - ratio) * ratio / (LN_2 * (bu / b - au / a))
        centre = LN_2 * (bu / b) / gamma
        if not abs(step) < 1.0:  # halfway to what it may be
            step = 1.0 if step > 0.0 else -0.5
        gamma = min(gamma * (1.0 + step), task.gamma_max)
        if abs(step) < _NEAR or (step > 0.0 and gamma == task.gamma_max):
            break
    return gamma, centre


@inner
def _doubted(row, survey, task, stride, gamma, centre, e, u):
    """A guess or, where it is not near the answer, what `_approached` makes of it.

    For a row of several blocks some of them tell whether it is: a guess that is off by 1 or 2 %, as for 10000
    normal draws, is near enough for the series, and a rough step costs more than it gains.
    """
    start, around = gamma, centre
    looks = 2 if row.size >= _LEVEL * BLOCK else 1
    for look in range(1, looks + 1):  # in a loop, as code that is there twice is compiled twice
        some = stride if look == looks else stride * _LEVEL
        start, around = _approached(row, survey, task, some, start, around, e, u)
        if look < looks and abs(start - gamma) < _NEARER * gamma:
            return gamma, centre
    return start, around


@entry
def begin_ess_search(row, survey, target, gamma_max, e, u):
    """The task, and a search that begins near the answer; e and u are blocks to work in.

    How near: as near as a sample of the row, if it is long, tells.
    """
    half_range = 0.5 * survey.high - 0.5 * survey.low
    task = EssTask(row.size, half_range, survey.n_finite, target, min(gamma_max, LARGEST_GAMMA))
    aim = math.log(survey.n_finite) - math.log(target) - AIM
    if aim <= 0.0:
        return task, _ended(0.0, float(survey.n_finite))
    stride = 1
    while row.size // stride > _FIRST_LEVEL:
        stride *= _LEVEL
    mean, spread, lean = _shape(row, survey, stride, e)
    gamma, tilt = _first_guess(aim, spread, lean)
    centre = mean + 2.0 * gamma * spread * spread * tilt
    gamma, centre = _doubted(row, survey, task, stride, gamma, centre, e, u)
    return task, _begin_level(task, max(stride // _LEVEL, 1), gamma, centre)


@entry
def step_ess_search(task, search, totals):
    """Go on with the `Moments` that the search asked for.

    From the moments at one gamma the series `_log_ess` gives ESS near it; where its error is small enough
    that is the answer, and no pass is spent to confirm it. Far from the root steps are Newton's on
    u = sqrt(log(n_finite / ESS)), which is proportional to gamma for log-normal weights. All is kept in a
    bracket, as ESS never grows with gamma.
    """
    stride, gamma, middle, step = search.stride, search.gamma, search.middle, search.step
    feasible, feasible_ess, infeasible = search.feasible, search.feasible_ess, search.infeasible
    target, gamma_max = task.target, task.gamma_max
    moments = moments_in(totals)
    once, squared = moments.once, moments.squared
    if not (once[0] > 0.0 and squared[0] > 0.0):  # all that was sampled is negligible
        return _end_level(task, stride, gamma, np.nan, 0.0)
    share = _sampled(task.size, stride) / task.size
    log_target = math.log(target) + AIM
    a_mean = once[1] / once[0]
    b_mean = squared[1] / squared[0]
    centre = (middle + b_mean) / gamma
    ess = kish(once[0], squared[0]) / share
    if ess >= target:
        feasible = gamma
        feasible_ess = ess
        if gamma >= gamma_max or ess <= target * (1.0 + _TOLERANCE):
            return _end_level(task, stride, gamma, ess, centre)
    else:
        infeasible = gamma
    reach = max(min(2.0 * gamma * task.half_range, 708.0) + middle, -middle)
    delta, model_error = _model_step(moments, reach, log_target + math.log(share))
    near = gamma * (1.0 + delta)
    error = _MODEL_ERROR if stride == 1 else _SAMPLE_ERROR
    if model_error <= error and feasible <= near <= infeasible and near <= gamma_max:
        log_ess, _ = _log_ess(moments, delta)
        return _end_level(task, stride, near, math.exp(log_ess) / share, centre)
    aim = math.sqrt(math.log(task.n_finite) - log_target)
    u = math.sqrt(max(math.log(task.n_finite / ess), 0.0))
    following = gamma * (1.0 + (aim - u) * u / (b_mean - a_mean))
    if model_error < 1e-2:
        following = near
    # These converge by themselves; a bisection now and then bounds the worst case.
    if feasible < following < infeasible and following < gamma_max and step % 8 != 7:
        gamma = following
    elif infeasible == np.inf:
        gamma = gamma_max
    elif infeasible > 2.0 * feasible:
        gamma = math.sqrt(feasible) * math.sqrt(infeasible)
    else:
        gamma = feasible + 0.5 * (infeasible - feasible)
    step += 1
    if not feasible < gamma < infeasible or step >= (_MAX_STEPS if stride == 1 else _SAMPLE_STEPS):
        return _end_level(task, stride, feasible, feasible_ess, centre)
    return EssSearch(stride, gamma, _middle(gamma * centre), np.nan, feasible, feasible_ess, infeasible, step)


@entry
def ess_limit(row, survey, search, target, e):
    """(gamma, ESS there) of a search that has ended."""
    if search.ess == search.ess:
        return search.gamma, search.ess
    ess = kish_ess(row, survey, search.gamma, e)
    if ess >= target:
        return search.gamma, ess
    return 0.0, float(survey.n_finite)  # a range beyond float64: only gamma = 0 is left


def searching_ess(fill_moments):
    def search_ess(ws, row, survey, target, gamma_max):
        """The largest gamma in (0, gamma_max] with ESS >= target, and ESS there; not for flat rows."""
        task, search = begin_ess_search(row, survey, target, gamma_max, ws.e, ws.u)
        while search.stride > 0:
            fill_moments(row, search.stride, survey.high, search.gamma, search.middle, ws)
            search = step_ess_search(task, search, ws.totals)
        return ess_limit(row, survey, search, target, ws.e)

    return search_ess


search_ess = inner(searching_ess(fill_moments))
