"""Every compiled loop of isdiag, and how it is compiled.

Numba stamps a cached kernel with the file of that kernel alone, so a kernel whose callee (or whose
compile flags) lived in another file would go on returning the numbers of the old version after an
upgrade. Everything that shapes the machine code therefore stands in this one file.

Conventions
-----------
* A row is a C-contiguous float64 vector of log-weights. An entry of -inf is a draw of zero weight.
  Entries that the caller left out are -inf as well and only the row's count ``n`` tells them apart.
* Inside a kernel log-weights are relative to the row's maximum, so every exponent is <= 0.
* Kernels never raise and never warn: what became of a row is a status code (`isdiag.Status`).
* Rows are independent and a row's arithmetic has a fixed order, so neither the batch around a row
  nor the number of workers can change its bits.

References
----------
.. [ZS] Zhang, J. & Stephens, M. A. (2009). A new and efficient estimation method for the generalized
   Pareto distribution. Technometrics 51(3), 316-325.
.. [PSIS] Vehtari, A., Simpson, D., Gelman, A., Yao, Y. & Gabry, J. (2024). Pareto smoothed importance
   sampling. JMLR 25(72), 1-58.
"""

import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# error_model="numpy": a division by zero is inf or nan, not a Python exception inside a loop.
_FLAGS = {"nogil": True, "error_model": "numpy"}


def _kernel(function=None, *, fastmath=False):
    """Compile; what begins with an underscore can only be called by kernels and is cached within them.

    Wrappers and cache files for those would cost a cold start four of its 17 seconds.
    """
    if function is None:
        return lambda f: _kernel(f, fastmath=fastmath)
    options = {**_FLAGS, "fastmath": fastmath, "no_cfunc_wrapper": True}
    if function.__name__.startswith("_"):
        return njit(**options, no_cpython_wrapper=True)(function)
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder it may write a cache to
        return njit(**options)(function)


# Status codes of weights: the values of isdiag.Status (tests/test_edge_cases.py holds them together).
OK, FLAT, TAIL_TOO_SHORT, DEGENERATE_TAIL, INFEASIBLE, NO_WEIGHT, NOT_FINITE = range(7)

# Which constraint set gamma: indices into isdiag.gamma.LIMITS.
BY_NONE, BY_PSIS, BY_ESS, BY_MAX = range(4)

# The fit compares its lower quartile with its smallest excess; with 5 draws they are the same draw.
MIN_TAIL = 6

_LARGEST = np.finfo(np.float64).max

# Typed: Numba would compile a callee anew for each literal int it is given.
_NONE = np.int64(0)
_EVERY = np.int64(1)  # block of a row, and not each so many


# --------------------------------------------------------------------------------------
# Bits of a float64
# --------------------------------------------------------------------------------------


@intrinsic
def _bits(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _from_bits(typingctx, i):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@intrinsic
def _trailing_zeros(typingctx, word):
    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


_WORD = 64


def _load(builder, data, start, lanes):
    scalar = data.type.pointee
    vector = ir.VectorType(scalar, lanes)
    values = builder.load(builder.bitcast(builder.gep(data, [start]), vector.as_pointer()))
    values.align = 4 if scalar == ir.FloatType() else 8
    return values


def _splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    )


@intrinsic
def _reach_bound(typingctx, row, start, bound):
    """Bit i of a word: whether row[start + i] >= bound. LLVM makes no such mask of a loop by itself."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        values = _load(builder, data, args[1], _WORD)
        bounds = _splat(builder, args[2], _WORD)
        return builder.bitcast(builder.fcmp_ordered(">=", values, bounds), ir.IntType(_WORD))

    return types.uint64(row, types.int64, types.float64), codegen


_MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_ONE = np.int64(0x3FF0000000000000)  # bits of 1.0


@_kernel
def _order_key(x):
    """An integer that orders as float64 does, NaNs outermost: integer min and max vectorise."""
    i = _bits(x)
    return i ^ ((i >> 63) & _MAGNITUDE)


@_kernel
def _from_order_key(key):
    return _from_bits(key ^ ((key >> 63) & _MAGNITUDE))


@_kernel
def _negative_or(x, a, b):
    """a where x < 0, else b, as bits: LLVM would make a conditional of costly a and b a branch."""
    negative = _bits(x) >> 63
    return _from_bits((_bits(a) & negative) | (_bits(b) & ~negative))


_KEY_MAX = np.int64(0x7FEFFFFFFFFFFFFF)  # largest finite float64
_KEY_NEG_INF = np.int64(-0x7FF0000000000001)
_KEY_TOP = np.int64(0x7FFFFFFFFFFFFFFF)


# --------------------------------------------------------------------------------------
# Sums in an order that is fixed here
# --------------------------------------------------------------------------------------

# LLVM vectorises a sum only if it may choose its order. It then chose another one each time it optimised
# a copy of a function: a first run, which links other copies than the next, differed from it in the last
# bit. So sums are vectors of partial sums by design, whatever the vectors of the machine.


def _lane_sums(lanes, terms):
    """An intrinsic of (x, y, size): the sums of what `terms` makes of x and y.

    size must be a multiple of lanes.
    """

    def fold(builder, vector):
        width = lanes
        while width > 1:
            width //= 2
            halves = (list(range(start, start + width)) for start in (0, width))
            index = ir.VectorType(ir.IntType(32), width)
            low, high = (builder.shuffle_vector(vector, vector, ir.Constant(index, half)) for half in halves)
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    def codegen(context, builder, signature, args):
        arrays = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:2], args[:2], strict=True)
        ]
        zero = ir.Constant(ir.VectorType(ir.DoubleType(), lanes), [0.0] * lanes)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(terms.count)]
        length = args[2].type
        steps = cgutils.for_range_slice(builder, length(0), args[2], length(lanes), length)
        with steps as (start, _):
            x, y = (_load(builder, data, start, lanes) for data in arrays)
            for total, term in zip(totals, terms(builder, x, y), strict=True):
                builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
        sums = [fold(builder, builder.load(total)) for total in totals]
        return context.make_tuple(builder, signature.return_type, sums)

    @intrinsic
    def sums(typingctx, x, y, size):
        return types.UniTuple(types.float64, terms.count)(x, y, types.int64), codegen

    return sums


def _powers_of_y(powers):
    """x, x y, ... x y^powers, then x^2, x^2 y, ... x^2 y^powers."""

    def terms(builder, x, y):
        once = [x]
        for _ in range(powers):
            once.append(builder.fmul(once[-1], y))
        return once + [builder.fmul(x, term, flags=["contract"]) for term in once]

    terms.count = 2 * (powers + 1)
    return terms


def _to_the_fourth(builder, x, y):
    """x, y, x^2, x y, y^2, x^4, x^3 y, x^2 y^2, x y^3, y^4."""

    def product(a, b):
        return builder.fmul(a, b, flags=["contract"])

    xx, xy, yy = product(x, x), product(x, y), product(y, y)
    return [
        x,
        y,
        xx,
        xy,
        yy,
        product(xx, xx),
        product(xx, xy),
        product(xx, yy),
        product(xy, yy),
        product(yy, yy),
    ]


_to_the_fourth.count = 10


_LANES = 32  # excesses and blocks are padded with zeros to a multiple
_GRID_LANES = 8  # the grid of a fit is padded to a multiple
_ORDER = 6  # of the series `_log_ess`
_MOMENTS = 2 * (_ORDER + 1)

_sums = _lane_sums(_LANES, _powers_of_y(1))
_grid_sums = _lane_sums(_GRID_LANES, _powers_of_y(1))
_fourth_sums = _lane_sums(16, _to_the_fourth)
_moment_sums = _lane_sums(_GRID_LANES, _powers_of_y(_ORDER))


# --------------------------------------------------------------------------------------
# 2**v for v <= 0: exponents are carried to base 2, which saves the reduction its constants
# --------------------------------------------------------------------------------------

_LOG2_E = 1.4426950408889634
_LN_2 = 0.6931471805599453
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer held in the low bits
_LOWEST = -1021.0  # 2**v is held at 2**-1021 = 4.5e-308 from here on: next to a weight of 1 it is nothing


@_kernel(fastmath={"contract"})
def _exp2(v):
    """2**max(v, -1021) for v <= 0, within an ulp and branch-free, so that a loop around it vectorises.

    A polynomial on the fraction in [-1/2, 1/2] (Remez, relative error 3.1e-18), to whose bits the integer
    part is added.
    """
    v = max(v, _LOWEST)
    shifted = v + _ROUND
    f = v - (shifted - _ROUND)
    p = 4.4352827069572771511e-10
    p = p * f + 7.0741056135081427963e-9
    p = p * f + 1.0178198021671930844e-7
    p = p * f + 1.321543308967639918e-6
    p = p * f + 0.000015252733489988525649
    p = p * f + 0.00015403530462514432062
    p = p * f + 0.0013333558146789921722
    p = p * f + 0.0096181291075883352443
    p = p * f + 0.055504108664819921605
    p = p * f + 0.24022650695910156204
    p = p * f + 0.69314718055994533046
    p = p * f + 1.0
    return _from_bits(_bits(p) + (_bits(shifted) << 52))


@_kernel(fastmath={"contract"})
def _one_minus_exp(d):
    """1 - exp(d) for d <= 0, to full relative accuracy: expm1's Taylor polynomial down to -0.35."""
    d = max(d, -708.0)
    p = 1.0 / 6227020800.0
    p = p * d + 1.0 / 479001600.0
    p = p * d + 1.0 / 39916800.0
    p = p * d + 1.0 / 3628800.0
    p = p * d + 1.0 / 362880.0
    p = p * d + 1.0 / 40320.0
    p = p * d + 1.0 / 5040.0
    p = p * d + 1.0 / 720.0
    p = p * d + 1.0 / 120.0
    p = p * d + 1.0 / 24.0
    p = p * d + 1.0 / 6.0
    p = p * d + 0.5
    p = p * d + 1.0
    return _negative_or(d + 0.35, 1.0 - _exp2(d * _LOG2_E), -d * p)


_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)  # bits of sqrt(1/2)
_LN2_HIGH = 0.693147180369123816490  # ln 2 in two parts, the first short enough for exact multiples
_LN2_LOW = 1.90821492927058770002e-10


@_kernel(fastmath={"contract"})
def _log_near_one(z):
    """log(1 + z) for -0.3 <= z <= 0.42, as 2 atanh(z / (2 + z))."""
    s = z / (2.0 + z)
    w = s * s
    p = 1.0 / 21.0
    p = p * w + 1.0 / 19.0
    p = p * w + 1.0 / 17.0
    p = p * w + 1.0 / 15.0
    p = p * w + 1.0 / 13.0
    p = p * w + 1.0 / 11.0
    p = p * w + 1.0 / 9.0
    p = p * w + 1.0 / 7.0
    p = p * w + 1.0 / 5.0
    p = p * w + 1.0 / 3.0
    return 2.0 * s + 2.0 * s * (w * p)


@_kernel(fastmath={"contract"})
def _log(y):
    """log(y) for normal y > 0, branch-free."""
    bits = _bits(y)
    exponent = (bits - _SQRT_HALF) >> 52
    near_one = _log_near_one(_from_bits(bits - (exponent << 52)) - 1.0)
    return exponent * _LN2_HIGH + (near_one + exponent * _LN2_LOW)


@_kernel(fastmath={"contract"})
def _log1p(z):
    """log(1 + z) for z > -1, branch-free, to full relative accuracy near 0."""
    return _negative_or(abs(z - 0.06) - 0.35, _log_near_one(z), _log(1.0 + z))


# --------------------------------------------------------------------------------------
# One look at a row: its extent, and candidates for its tail
# --------------------------------------------------------------------------------------

# Rows are worked on in blocks that stay in the first cache. Long sums are sums of segment sums, which
# are sums of block sums: the rounding error grows with their number and not with that of draws, and
# their bits do not depend on who computes which segment.
_BLOCK = 1024
_BLOCKS_A_SEGMENT = 64
SEGMENT = _BLOCKS_A_SEGMENT * _BLOCK


@_kernel
def _block_extent(part):
    high = _KEY_NEG_INF
    low = _KEY_TOP
    n_finite = 0
    for i in range(part.size):
        key = _order_key(part[i])
        positive = key != _KEY_NEG_INF
        high = max(high, key)
        low = min(low, key if positive else _KEY_TOP)
        n_finite += 1 if positive else 0
    return high, low, n_finite


@_kernel
def _sound(high, low):
    """Whether the keys of the extremes belong to a row without NaN and +inf."""
    return high <= _KEY_MAX and low > _KEY_NEG_INF


@_kernel
def _extent(row):
    """(largest, smallest finite, number of finite, every entry is a number below +inf)."""
    high, low, n_finite = _block_extent(row)
    return _from_order_key(high), _from_order_key(low), n_finite, _sound(high, low)


@_kernel
def _gather(row, start, stop, bound, x, index):
    """Write the entries >= bound of row[start:stop] and their indices to x and index; return how many."""
    count = 0
    words_end = stop - (stop - start) % _WORD
    for first in range(start, words_end, _WORD):
        word = _reach_bound(row, first, bound)
        while word != 0:
            i = first + _trailing_zeros(word)
            word &= word - np.uint64(1)
            x[count] = row[i]
            index[count] = i
            count += 1
    for i in range(words_end, stop):
        if row[i] >= bound:
            x[count] = row[i]
            index[count] = i
            count += 1
    return count


@_kernel
def _census(keys, bound):
    """(number of keys above the bound, the largest of the others, the smallest above)."""
    count = 0
    below = _KEY_NEG_INF
    above = _KEY_TOP
    for i in range(keys.size):
        key = keys[i]
        higher = key > bound
        count += 1 if higher else 0
        below = max(below, _KEY_NEG_INF if higher else key)
        above = min(above, key if higher else _KEY_TOP)
    return count, below, above


@_kernel
def _nth_largest(keys, n):
    """The n-th largest key (0-based).

    Counts, which vectorise, instead of a quickselect, whose moves do not: 0.4 us for 139 keys against
    0.5, 1.3 against 3.5 for 854. The logarithm of the count above a bound is interpolated in the bound, as
    it is linear for an exponential tail; each third step is a bisection.
    """
    low = _KEY_TOP
    high = _KEY_NEG_INF
    for i in range(keys.size):
        low = min(low, keys[i])
        high = max(high, keys[i])
    from_low = keys.size  # keys >= low: more than n
    above_high = 0  # keys > high: at most n
    step = 0
    while low < high:
        step += 1
        bound = (low >> 1) + (high >> 1)
        if step % 3 != 0:
            bottom, top = _from_order_key(low), _from_order_key(high)
            part = math.log(from_low / (n + 0.5)) / math.log(from_low / (above_high + 0.5))
            bound = _order_key(bottom + part * (top - bottom))
        bound = min(max(bound, low), high - 1)
        count, below, above = _census(keys, bound)
        if count == n:
            return below
        if count > n:
            low, from_low = above, count
        else:
            high, above_high = below, count
    return low


@_kernel
def tail_bound(row, length, keys):
    """A number that length + 1 draws reach unless a sample misleads, from an order statistic of it."""
    size = row.size
    step = int(0.25 * math.sqrt(size))
    if step < 2:
        return -_LARGEST
    count = 0
    for i in range(0, size, step):
        keys[count] = _order_key(row[i])
        count += 1 if abs(row[i]) <= _LARGEST else 0
    expected = (length + 1) / step
    rank = int(expected + 3.0 * math.sqrt(expected) + 1.0)
    return _from_order_key(_nth_largest(keys[:count], rank)) if rank < count else -_LARGEST


@_kernel
def survey_part(row, start, stop, bound, x, index):
    """(key of the largest, of the smallest finite, number of finite, number of candidates).

    Candidates, the entries >= bound of row[start:stop], go to x with their indices. Extent and candidates
    of a block are taken while it is in the first cache.
    """
    high = _KEY_NEG_INF
    low = _KEY_TOP
    n_finite = 0
    count = 0
    for first in range(start, stop, _BLOCK):
        end = min(first + _BLOCK, stop)
        top, bottom, finite = _block_extent(row[first:end])
        high = max(high, top)
        low = min(low, bottom)
        n_finite += finite
        count += _gather(row, first, end, bound, x[count:], index[count:])
    return high, low, n_finite, count


class _Survey(NamedTuple):
    high: float
    low: float  # the smallest finite entry
    n_finite: int
    sound: bool  # every entry is a number below +inf
    count: int  # candidates for the tail in ws.x, ws.index


@_kernel
def survey_of(high, low, n_finite, count):
    return _Survey(_from_order_key(high), _from_order_key(low), n_finite, _sound(high, low), count)


@_kernel
def _survey(ws, row, length):
    bound = tail_bound(row, length, ws.keys)
    high, low, n_finite, count = survey_part(row, 0, row.size, bound, ws.x, ws.index)
    return survey_of(high, low, n_finite, count)


@_kernel
def _is_flat(high, low, gamma, eps):
    """Whether gamma * log-weights differ by no more than rounding of the input can explain.

    Either of two roundings can: that of the log-weights (an ulp of their size) and that of weights near
    each other (a few ulps of 1).
    """
    if high == low:
        return True
    half_range = gamma * (0.5 * high - 0.5 * low)
    ulp = eps * max(abs(high), abs(low))  # first, as gamma times the largest log-weight may overflow
    return half_range < np.inf and half_range <= 0.5 * max(4.0 * eps, gamma * ulp)


# --------------------------------------------------------------------------------------
# Power sums
# --------------------------------------------------------------------------------------


@_kernel
def segments_of(size, stride):
    """How many segments every stride-th block of that many draws make."""
    return (size - 1) // (stride * SEGMENT) + 1


@_kernel
def _first_draws(size, stride, segment):
    """Where the blocks of a segment begin."""
    step = stride * _BLOCK
    first = segment * _BLOCKS_A_SEGMENT * step
    return range(first, min(first + _BLOCKS_A_SEGMENT * step, size), step)


@_kernel
def total_of(sums, segments, total):
    """Add up the rows of sums, in order."""
    total[:] = 0.0
    for segment in range(segments):
        for j in range(total.size):
            total[j] += sums[segment, j]


@_kernel
def _padded(size, lanes):
    return size + (-size) % lanes


@_kernel
def _pad(x, size):
    """Append zeros to x[:size] up to a multiple of _LANES; return how many entries there are then."""
    end = _padded(size, _LANES)
    for i in range(size, end):
        x[i] = 0.0
    return end


@_kernel
def _block_power_sums(part, shift, rate, top, below, blocks):
    e = blocks[0]
    for i in range(part.size):
        value = _exp2(rate * (part[i] - shift) - top)
        e[i] = value if part[i] < below else 0.0
    s1, _, s2, _ = _sums(e, e, _pad(e, part.size))
    return s1, s2


@_kernel
def _segment_power_sums(row, segment, shift, gamma, top, below, blocks):
    s1 = 0.0
    s2 = 0.0
    for first in _first_draws(row.size, _EVERY, segment):
        part = row[first : first + _BLOCK]
        a, b = _block_power_sums(part, shift, gamma * _LOG2_E, top * _LOG2_E, below, blocks)
        s1 += a
        s2 += b
    return s1, s2


@_kernel
def _body_sums(row, shift, gamma, top, below, blocks):
    """Sums of e and e^2 over the entries < below, with e = exp(gamma (row - shift) - top) <= 1; gamma > 0."""
    s1 = 0.0
    s2 = 0.0
    for segment in range(segments_of(row.size, _EVERY)):
        a, b = _segment_power_sums(row, segment, shift, gamma, top, below, blocks)
        s1 += a
        s2 += b
    return s1, s2


@_kernel
def _power_sums(row, high, n_finite, gamma, blocks):
    """Sums of e and e^2 over the row, with e = exp(gamma (row - high)): ESS = s1^2 / s2.

    gamma = 0 is the limit from above: equal weights on the finite entries.
    """
    if gamma == 0.0:
        return float(n_finite), float(n_finite)
    return _body_sums(row, high, gamma, 0.0, np.inf, blocks)


@_kernel
def power_sums_part(row, first, last, high, gamma, blocks, sums):
    """Fill sums[segment] with what a range of segments adds to the `_power_sums`."""
    for segment in range(first, last):
        s1, s2 = _segment_power_sums(row, segment, high, gamma, 0.0, np.inf, blocks)
        sums[segment, 0] = s1
        sums[segment, 1] = s2


@_kernel
def _perplexity(row, high, gamma, blocks):
    """exp of the entropy of the normalised weights."""
    s1 = 0.0
    t1 = 0.0
    e, t = blocks[0], blocks[1]
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        for i in range(part.size):
            v = max(gamma * _LOG2_E * (part[i] - high), _LOWEST)
            e[i] = _exp2(v)
            t[i] = v
        _pad(t, part.size)
        a, b, _, _ = _sums(e, t, _pad(e, part.size))
        s1 += a
        t1 += b
    return s1 * math.exp(-_LN_2 * t1 / s1)


@_kernel
def kish(s1, s2):
    return s1 * s1 / s2


@_kernel
def _kish_ess(row, high, n_finite, gamma, blocks):
    s1, s2 = _power_sums(row, high, n_finite, gamma, blocks)
    return kish(s1, s2)


@_kernel
def _segment_moments(row, stride, segment, shift, gamma, middle, blocks, sums):
    """Fill sums[:7] and sums[7:] for one segment: sums of e u^k / k! and of e^2 u^k / k!, k to 6.

    u = t - middle; e and t as in `_power_sums`.
    """
    e, u = blocks[0], blocks[1]
    rate, centre = gamma * _LOG2_E, middle * _LOG2_E
    sums[:] = 0.0
    for first in _first_draws(row.size, stride, segment):
        part = row[first : first + _BLOCK]
        for i in range(part.size):
            v = max(rate * (part[i] - shift), _LOWEST)
            e[i] = _exp2(v)
            u[i] = v - centre
        _pad(u, part.size)
        block = _moment_sums(e, u, _pad(e, part.size))
        for j in range(_MOMENTS):
            sums[j] += block[j]
    factor = 1.0
    for j in range(1, _ORDER + 1):
        factor *= _LN_2 / j
        sums[j] *= factor
        sums[_ORDER + 1 + j] *= factor


@_kernel
def moments_part(row, stride, first, last, shift, gamma, middle, blocks, sums):
    """Fill sums[segment] for a range of segments of every stride-th block."""
    for segment in range(first, last):
        _segment_moments(row, stride, segment, shift, gamma, middle, blocks, sums[segment])


@_kernel
def _moments(row, stride, shift, gamma, middle, ws):
    """Fill ws.moments: the sums of `_segment_moments` over every stride-th block."""
    segments = segments_of(row.size, stride)
    moments_part(row, stride, 0, segments, shift, gamma, middle, ws.blocks, ws.sums)
    total_of(ws.sums, segments, ws.moments)


@_kernel
def _copy(source, target):
    # target[:n] = source would have Numba compile its shape errors: 3 s of a first call
    for i in range(source.size):
        target[i] = source[i]


# --------------------------------------------------------------------------------------
# Scratch memory, allocated once a call and not once a row
# --------------------------------------------------------------------------------------


class _Workspace(NamedTuple):
    x: np.ndarray  # candidates for the tail, then the tail relative to the maximum
    index: np.ndarray  # where in the row they stand
    keys: np.ndarray  # a sample, or the candidates, as integers (`_order_key`)
    marks: np.ndarray  # see `_Tail`
    mark_excess: np.ndarray
    x_spare: np.ndarray
    index_spare: np.ndarray
    bucket: np.ndarray  # for `_sort_tail`
    ends: np.ndarray
    excess: np.ndarray
    theta: np.ndarray  # the grid of the fit
    k: np.ndarray
    log_lik: np.ndarray
    lanes: np.ndarray  # a theta, and the log of its product
    blocks: np.ndarray  # two blocks of numbers that sums are made of
    sums: np.ndarray  # a row a segment
    moments: np.ndarray


@_kernel
def _grid_size(m):
    return 30 + int(math.sqrt(m))


@_kernel
def workspace(size, lengths):
    # Memory of the order of a row is touched only as far as there are candidates for the tail.
    tail = _NONE
    for length in lengths:
        tail = max(tail, min(size, length))
    grid = _padded(_grid_size(tail), _GRID_LANES)
    return _Workspace(
        np.empty(size),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(3),
        np.empty(3),
        np.empty(tail),
        np.empty(tail, np.int64),
        np.empty(tail, np.int64),
        np.empty(tail + 2, np.int64),
        np.empty(_padded(tail, _LANES)),
        np.empty(grid),
        np.empty(grid),
        np.empty(grid),
        np.empty((3, _GRID_LANES)),
        np.empty((2, _BLOCK)),
        np.empty((segments_of(size, _EVERY), _MOMENTS)),
        np.empty(_MOMENTS),
    )


# --------------------------------------------------------------------------------------
# The tail: the largest draws, in order of appearance
# --------------------------------------------------------------------------------------


@_kernel
def _merge_sort(ws, size):
    x, index, x_spare, index_spare = ws.x, ws.index, ws.x_spare, ws.index_spare
    run = 1
    while run < size:
        for start in range(0, size, 2 * run):
            i = start
            middle = min(start + run, size)
            j = middle
            stop = min(start + 2 * run, size)
            for k in range(start, stop):
                if j >= stop or (i < middle and x[i] <= x[j]):
                    x_spare[k] = x[i]
                    index_spare[k] = index[i]
                    i += 1
                else:
                    x_spare[k] = x[j]
                    index_spare[k] = index[j]
                    j += 1
        _copy(x_spare[:size], x)
        _copy(index_spare[:size], index)
        run *= 2


_CROWDED = 32
_EXPONENTIAL_QUARTILE = 0.2876820724517809  # log(4/3): the lower quartile of an exponential of mean 1


@_kernel
def _sort_tail(ws, tail):
    """Sort the tail in ws.x ascending and stably, carrying ws.index.

    A tail of log-weights is close to exponential, so the increasing map t / (t + mean) spreads it evenly
    over buckets; within them few draws are left to insert. Where one is crowded all are merged instead.
    """
    x, index, x_spare, index_spare = ws.x, ws.index, ws.x_spare, ws.index_spare
    size = tail.size
    least, quartile = ws.marks[0], ws.marks[1]
    mean = (quartile - least) / _EXPONENTIAL_QUARTILE
    ends, bucket = ws.ends, ws.bucket
    ends[: size + 2] = 0
    for i in range(size):
        place = 1.0 - mean / ((x[i] - least) + mean)
        bucket[i] = int(place * size) if 0.0 <= place <= 1.0 else 0
        ends[bucket[i] + 1] += 1
    crowd = 0
    for b in range(size + 1):
        crowd = max(crowd, ends[b + 1])
    if crowd > _CROWDED:
        _merge_sort(ws, size)
        return
    for b in range(size + 1):
        ends[b + 1] += ends[b]
    for i in range(size):
        k = ends[bucket[i]]
        ends[bucket[i]] += 1
        x_spare[k] = x[i]
        index_spare[k] = index[i]
    for i in range(size):
        value = x_spare[i]
        label = index_spare[i]
        j = i
        while j > 0 and x[j - 1] > value:
            x[j] = x[j - 1]
            index[j] = index[j - 1]
            j -= 1
        x[j] = value
        index[j] = label


class _Tail(NamedTuple):
    """The tail that ws.x[:size] holds, relative to the maximum of the row; ws.index tells where it stands.

    ws.marks holds its order statistics that a fit is scaled by: the least, the lower quartile, the largest.
    """

    size: int
    cutoff: float  # the largest draw below the tail, -inf where it takes every draw of positive weight
    least: float  # not relative
    ties: int  # how many draws outside the tail equal its least


@_kernel
def _quartile_rank(m):
    """Which order statistic of m excesses, counted from 0 and from below, [ZS] scale their grid by."""
    return int(m / 4 + 0.5) - 1


@_kernel
def _select_tail(ws, row, survey, length):
    """Fill ws.x, ws.index with the min(length, n_finite) largest draws, in order of appearance.

    They hold the candidates of the survey. Of draws that tie with the smallest one of the tail the last to
    appear belong to it, as in a stable ascending sort.
    """
    x, index = ws.x, ws.index
    high, n_finite, count = survey.high, survey.n_finite, survey.count
    m = min(length, n_finite)
    if count <= m and count < n_finite:
        _, _, _, count = survey_part(row, 0, row.size, -_LARGEST, x, index)
    keys = ws.keys[:count]
    for i in range(count):
        keys[i] = _order_key(x[i])
    cutoff = _nth_largest(keys, m) if m < count else _KEY_NEG_INF
    above_cutoff, _, least = _census(keys, cutoff)
    if above_cutoff < m:
        least = cutoff
    quartile = least
    if m >= MIN_TAIL:
        quartile = _nth_largest(keys, m - 1 - _quartile_rank(m))
    least = _from_order_key(least)
    quartile = _from_order_key(quartile)
    ties = -m
    for i in range(count):
        ties += 1 if x[i] >= least else 0
    skip = ties
    k = 0
    for i in range(count):
        value = x[i]
        keep = value > least
        if value == least:
            keep = skip == 0
            skip -= 0 if keep else 1
        x[k] = value - high
        index[k] = index[i]
        k += 1 if keep else 0
    ws.marks[0] = least - high
    ws.marks[1] = quartile - high
    ws.marks[2] = 0.0
    return _Tail(m, _from_order_key(cutoff) - high, least, ties)


# --------------------------------------------------------------------------------------
# Generalised Pareto fit [ZS], with the prior on k of [PSIS]
# --------------------------------------------------------------------------------------


_UNROLLED = 8


@_kernel
def _factors(theta):
    """How many factors 1 - theta x with x in [0, 1] stay within the range of a float64, 2^-1022 to 2^1023."""
    extreme = abs((_bits(1.0 - theta) >> 52) - 1023) + 1
    return max(1000 // extreme, 1)


@_kernel(fastmath={"contract"})
def _multiply_one(products, theta, x):
    for j in range(theta.size):
        products[j] *= 1.0 - theta[j] * x


@_kernel(fastmath={"contract"})
def _multiply(products, theta, x):
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for j in range(theta.size):
        t = theta[j]
        low = ((1.0 - t * x0) * (1.0 - t * x1)) * ((1.0 - t * x2) * (1.0 - t * x3))
        high = ((1.0 - t * x4) * (1.0 - t * x5)) * ((1.0 - t * x6) * (1.0 - t * x7))
        products[j] *= low * high


@_kernel
def _log_products(x, theta, mantissa, exponent):
    """Log of the product of 1 - theta x over x in [0, 1], the largest being 1, for ascending theta < 1.

    As mantissa and exponent, with the log being log(mantissa) + exponent log 2: one log for many factors.
    Vectorised over theta, which saves a horizontal product for each: 0.3 us against 0.8 for 94 excesses.
    """
    group = min(_factors(theta[0]), _factors(theta[-1]))
    several = group >= _UNROLLED
    group = group - group % _UNROLLED if several else 1
    mantissa[:] = 1.0
    exponent[:] = 0.0
    for start in range(0, x.size, group):
        if several:
            for i in range(start, min(start + group, x.size), _UNROLLED):
                _multiply(mantissa, theta, x[i : i + _UNROLLED])
        else:
            _multiply_one(mantissa, theta, x[start])
        for j in range(theta.size):
            bits = _bits(mantissa[j])
            exponent[j] += (bits >> 52) - 1023
            mantissa[j] = _from_bits((bits & _MANTISSA) | _ONE)


@_kernel
def _mean_log1p(ws, x, theta, m):
    """mean(log1p(-theta x)) over m excesses, x as in `_log_products`."""
    if abs(theta) < _SMALL_THETA:
        total = 0.0
        for i in range(m):
            total += math.log1p(-theta * x[i])
        return total / m
    lanes = ws.lanes
    lanes[0, :] = theta
    _log_products(x, lanes[0], lanes[1], lanes[2])
    return (_log(lanes[1, 0]) + lanes[2, 0] * _LN_2) / m


_SMALL_THETA = 1e-4  # nearer to 0 the rounding of 1 - theta x would show in its log


@_kernel(fastmath={"contract"})
def _profile(theta, shape, m):
    """Profile log-likelihood of theta = -k / sigma, k being its maximum at that theta."""
    rate = -theta / shape
    return m * (_log(rate) - shape - 1.0)


@_kernel
def _profiles(ws, x, m, mean, theta, k, log_lik):
    """Fill k and the profile log-likelihood of an ascending grid."""
    _log_products(x, theta, k, log_lik)
    for j in range(theta.size):
        k[j] = (_log(k[j]) + log_lik[j] * _LN_2) / m
        log_lik[j] = _profile(theta[j], k[j], m)
    for j in range(theta.size):
        if abs(theta[j]) < _SMALL_THETA:
            k[j] = _mean_log1p(ws, x, theta[j], m)
            log_lik[j] = _profile(theta[j], k[j], m) if theta[j] != 0.0 else -m * (math.log(mean) + 1.0)


@_kernel(fastmath={"contract"})
def _zhang_stephens_grid(theta, size, quartile):
    for j in range(theta.size):
        theta[j] = 1.0 + (1.0 - math.sqrt(size / (min(j, size - 1) + 0.5))) / (3.0 * quartile)


@_kernel
def _posterior_mean(theta, log_lik, top):
    """Mean of theta under the weights exp(log_lik - top), which replace log_lik."""
    for j in range(theta.size):
        log_lik[j] = _exp2((log_lik[j] - top) * _LOG2_E)
    total, theta_hat, _, _ = _grid_sums(log_lik, theta, theta.size)
    return theta_hat / total


@_kernel
def _posterior_variance(weights, k, m):
    """Variance of k under the weights, plus what k still varies at given theta.

    There log1p(-theta x) is exponential with mean k, so k^2 / m.
    """
    total = 0.0
    mean = 0.0
    for j in range(k.size):
        total += weights[j]
        mean += weights[j] * k[j]
    mean /= total
    variance = 0.0
    for j in range(k.size):
        variance += weights[j] / total * ((k[j] - mean) ** 2 + k[j] ** 2 / m)
    return variance


_SMALLEST_QUARTILE = 1e-290


@_kernel
def _gpd_fit(ws, m, least, quartile, largest):
    """Fit m excesses ws.excess[:m], given three of their order statistics.

    Returns (fitted, k, sigma), without a prior on k. The excesses are overwritten by their ratio to the
    largest; k and its weight at each theta stay in ws.k and ws.log_lik.
    """
    # Negated, so that a NaN is no fit.
    if not (m >= MIN_TAIL and least >= 0.0 and quartile > least and largest < np.inf):
        return False, np.nan, np.nan
    quartile /= largest
    if not quartile > _SMALLEST_QUARTILE:  # theta, of the order of its inverse, would overflow
        return False, np.nan, np.nan
    for i in range(m):
        ws.excess[i] /= largest
    x = ws.excess[: _pad(ws.excess, m)]
    total, _, _, _ = _sums(x, x, x.size)
    mean = total / m
    size = _grid_size(m)
    padded = _padded(size, _GRID_LANES)
    theta, k, log_lik = ws.theta[:padded], ws.k[:padded], ws.log_lik[:padded]
    _zhang_stephens_grid(theta, size, quartile)
    _profiles(ws, x, m, mean, theta, k, log_lik)
    log_lik[size:] = -np.inf
    top = -np.inf
    for j in range(size):
        top = max(top, log_lik[j])
    theta_hat = _posterior_mean(theta, log_lik, top)
    k_hat = _mean_log1p(ws, x, theta_hat, m)
    sigma = -k_hat / theta_hat if theta_hat != 0.0 else mean
    fitted = abs(k_hat) < np.inf and abs(sigma) < np.inf
    return fitted, k_hat, sigma * largest


# The prior of [PSIS]: ten pseudo-draws at k = 1/2.
_PRIOR_DRAWS = 10.0
_PRIOR_K = 0.5


@_kernel
def _with_prior(k, m):
    return (k * m + _PRIOR_DRAWS * _PRIOR_K) / (m + _PRIOR_DRAWS)


@_kernel
def _smoothed_tail(k, sigma, base, out):
    """Logs of exp(base) + the quantiles of a generalised Pareto law at (i + 1/2) / m, at most 0.

    base <= 0 is the cutoff. Two forms of one number: each keeps its digits where the other loses them.
    """
    m = out.size
    for i in range(m):
        t = -_log1p(-(i + 0.5) / m)  # minus the log of the survival function
        y = abs(k) * t
        # expm1(k t) / k for either sign of k, by a difference that is accurate near 0
        growth = _one_minus_exp(-y)
        if k > 0.0:
            growth = growth / _exp2(-y * _LOG2_E)
        out[i] = sigma * t if k == 0.0 else sigma * growth / abs(k)
    if base > -0.5:
        below_one = math.expm1(base)
        for i in range(m):
            out[i] = min(_log1p(below_one + out[i]), 0.0)
    else:
        cutoff = math.exp(base)
        for i in range(m):
            out[i] = min(_log(cutoff + out[i]), 0.0)


@_kernel
def gpd_fit_rows(rows, n, prior, k, sigma, k_std_error):
    """Rows of ascending excesses, of which the first n[r] count."""
    ws = workspace(rows.shape[1], n)
    for r in range(rows.shape[0]):
        m = n[r]
        _copy(rows[r, :m], ws.excess)
        k[r] = np.nan
        sigma[r] = np.nan
        k_std_error[r] = np.nan
        if m < MIN_TAIL:
            continue
        least, quartile, largest = rows[r, 0], rows[r, _quartile_rank(m)], rows[r, m - 1]
        fitted, shape, scale = _gpd_fit(ws, m, least, quartile, largest)
        if not fitted:
            k[r] = np.inf
            continue
        size = _grid_size(m)
        variance = _posterior_variance(ws.log_lik[:size], ws.k[:size], m)
        shrink = 1.0
        if prior:
            shape = _with_prior(shape, m)
            shrink = m / (m + _PRIOR_DRAWS)
        k[r] = shape
        sigma[r] = scale
        k_std_error[r] = shrink * math.sqrt(variance)


# --------------------------------------------------------------------------------------
# Rows: what became of one, its tail fit
# --------------------------------------------------------------------------------------


@_kernel
def _presence(n_finite, sound):
    """Whether there are weights to work on: NOT_FINITE, NO_WEIGHT or OK."""
    if not sound:
        return NOT_FINITE
    return NO_WEIGHT if n_finite == 0 else OK


@_kernel
def _state(survey, n, gamma, eps):
    """The status that the weights w^gamma alone decide, or OK where the tail has to be looked at."""
    presence = _presence(survey.n_finite, survey.sound)
    if presence != OK:
        return presence
    # One draw with all the mass among others with none is not the flat, best case.
    if (survey.n_finite > 1 or n == 1) and _is_flat(survey.high, survey.low, gamma, eps):
        return FLAT
    return OK


@_kernel
def _khat_without_fit(state):
    return -np.inf if state == FLAT else np.nan


@_kernel
def _excesses(x, cutoff, gamma, out):
    """exp(gamma x) - exp(gamma cutoff) for cutoff <= x <= 0.

    As exp(b) (1 - exp(a - b)): no digit is lost where weights are nearly equal, nothing overflows where
    they are not, and a draw that ties with the cutoff has excess 0 whatever gamma.
    """
    # Not as a function of one x: LLVM would pack its two exponentials and then not vectorise the loop.
    for i in range(x.size):
        out[i] = _one_minus_exp(gamma * (cutoff - x[i])) * _exp2(gamma * x[i] * _LOG2_E)


@_kernel
def _fit_tail(ws, tail, length, gamma):
    """Fit the tail of w^gamma. Returns (status, khat with the prior, sigma)."""
    m = tail.size
    if m < MIN_TAIL:
        if m == 1 and length >= MIN_TAIL:
            return DEGENERATE_TAIL, np.inf, np.nan
        return TAIL_TOO_SHORT, np.nan, np.nan
    _excesses(ws.x[:m], tail.cutoff, gamma, ws.excess)
    # w^gamma keeps the order of w, so order statistics are carried over.
    _excesses(ws.marks, tail.cutoff, gamma, ws.mark_excess)
    least, quartile, largest = ws.mark_excess[0], ws.mark_excess[1], ws.mark_excess[2]
    fitted, k, sigma = _gpd_fit(ws, m, least, quartile, largest)
    if not fitted:
        return DEGENERATE_TAIL, np.inf, np.nan
    return OK, _with_prior(k, m), sigma


@_kernel
def _tempered(value, gamma):
    """gamma * value, where -inf stays -inf: gamma = 0 is the limit from above."""
    return gamma * value if value > -np.inf else value


# --------------------------------------------------------------------------------------
# temper, ess
# --------------------------------------------------------------------------------------


@_kernel
def temper_rows(rows, gamma, normalize, out, status):
    blocks = np.empty((2, _BLOCK))
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row)
        status[r] = _presence(n_finite, sound)
        if status[r] == NOT_FINITE or g != g:
            out[r, :] = np.nan
            continue
        shift = 0.0
        log_total = 0.0
        if normalize and n_finite > 0:
            shift = high
            total, _ = _power_sums(row, high, n_finite, g, blocks)
            log_total = math.log(total)
        for i in range(row.size):
            out[r, i] = _tempered(row[i] - shift, g) - log_total


@_kernel
def ess_rows(rows, gamma, by_kish, by_max, status):
    """The effective sample sizes that power sums tell."""
    blocks = np.empty((2, _BLOCK))
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row)
        status[r] = _presence(n_finite, sound)
        by_kish[r] = by_max[r] = np.nan
        if status[r] == OK and g == g:
            s1, s2 = _power_sums(row, high, n_finite, g, blocks)
            by_kish[r] = kish(s1, s2)
            by_max[r] = s1


@_kernel
def perplexity_rows(rows, gamma, perplexity, status):
    blocks = np.empty((2, _BLOCK))
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row)
        status[r] = _presence(n_finite, sound)
        perplexity[r] = np.nan
        if status[r] == OK and g == 0.0:
            perplexity[r] = n_finite
        elif status[r] == OK and g == g:
            perplexity[r] = _perplexity(row, high, g, blocks)


# --------------------------------------------------------------------------------------
# khat, PSIS
# --------------------------------------------------------------------------------------


@_kernel
def khat_rows(rows, n, length, gamma, eps, khat, status):
    size = rows.shape[1]
    ws = workspace(size, length)
    for r in range(rows.shape[0]):
        row = rows[r]
        survey = _survey(ws, row, length[r])
        state = _state(survey, n[r], gamma[r], eps)
        khat[r] = _khat_without_fit(state)
        if state == OK and gamma[r] == gamma[r]:
            tail = _select_tail(ws, row, survey, length[r])
            state, khat[r], _ = _fit_tail(ws, tail, length[r], gamma[r])
        status[r] = state


@_kernel
def _smoothed_sums(row, high, gamma, tail, x, blocks):
    """`_power_sums` with the tail replaced by x, relative to its largest entry: (s1, s2, that entry)."""
    top = x[-1]
    s1, s2 = _body_sums(row, high, gamma, top, tail.least, blocks)
    a, b = _power_sums(x, top, x.size, 1.0, blocks)
    tied = math.exp(gamma * (tail.least - high) - top)
    return s1 + a + tail.ties * tied, s2 + b + tail.ties * tied * tied, top


@_kernel
def psis_rows(rows, n, length, gamma, out, khat, ess, tail_length, status, eps, normalize):
    """Rows may be smoothed in place: one is written when all of it has been read."""
    size = rows.shape[1]
    ws = workspace(size, length)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        survey = _survey(ws, row, length[r])
        state = _state(survey, n[r], g, eps)
        khat[r] = _khat_without_fit(state)
        tail_length[r] = min(length[r], survey.n_finite)
        status[r] = state
        if state == NOT_FINITE or state == NO_WEIGHT or g != g:
            out[r, :] = -np.inf if state == NO_WEIGHT else np.nan
            ess[r] = np.nan
            continue
        high = survey.high
        m = 0
        sigma = np.nan
        tail = _Tail(0, np.nan, np.nan, 0)
        if state == OK:
            tail = _select_tail(ws, row, survey, length[r])
            status[r], khat[r], sigma = _fit_tail(ws, tail, length[r], g)
        top = 0.0
        if state == OK and status[r] == OK:
            m = tail.size
            _sort_tail(ws, tail)
            _smoothed_tail(khat[r], sigma, _tempered(tail.cutoff, g), ws.x[:m])
            s1, s2, top = _smoothed_sums(row, high, g, tail, ws.x[:m], ws.blocks)
        else:
            s1, s2 = _power_sums(row, high, survey.n_finite, g, ws.blocks)
        ess[r] = kish(s1, s2)
        origin = high if normalize else 0.0
        log_total = top + math.log(s1) if normalize else 0.0
        for i in range(size):
            out[r, i] = _tempered(row[i] - origin, g) - log_total
        base = g * (high - origin) - log_total
        for i in range(m):
            out[r, ws.index[i]] = base + ws.x[i]


# --------------------------------------------------------------------------------------
# Self-normalised estimates
# --------------------------------------------------------------------------------------


@_kernel
def _first_at(row, value):
    i = 0
    while row[i] != value:
        i += 1
    return i


@_kernel
def _finite_or_zero(value):
    return float(value) if abs(value) < np.inf else 0.0


@_kernel
def _block_weights(part, high, gamma, e):
    """Fill e with exp(gamma (part - high)), 0 where that is next to nothing: h is not looked at there."""
    for i in range(part.size):
        t = part[i] - high
        v = max(_LOG2_E * gamma * max(t, -_LARGEST), _LOWEST)
        weight = _exp2(v)
        e[i] = weight if (v > _LOWEST) & (t > -np.inf) else 0.0


class _FourthPowers(NamedTuple):
    """Sums of a^i e^j with i + j = 4, a = e (h - centre)."""

    e4: float
    ae3: float
    a2e2: float
    a3e: float
    a4: float


@_kernel
def _behind(squares, fourths):
    """How many draws carry a sum of squares; 0 where there is nothing to carry."""
    return squares * squares / fourths if fourths > 0.0 else 0.0


@_kernel
def _fourth_power(sums, shift):
    """Sum of (a - shift e)^4."""
    odd = shift * sums.a3e + shift**3 * sums.ae3
    return sums.a4 - 4.0 * odd + 6.0 * shift**2 * sums.a2e2 + shift**4 * sums.e4


@_kernel
def _scalar_moments(row, high, gamma, h, centre, blocks):
    """Sums of e, e^2, a = e (h - centre), a^2, e a and fourth powers, e as in `_power_sums`."""
    s1 = s2 = first_power = squares = pull = 0.0
    e4 = ae3 = a2e2 = a3e = a4 = 0.0
    e, a = blocks[0], blocks[1]
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        values = h[first : first + _BLOCK]
        _block_weights(part, high, gamma, e)
        for i in range(part.size):
            product = e[i] * (values[i] - centre)
            a[i] = product if e[i] != 0.0 else 0.0
        _pad(a, part.size)
        sums = _fourth_sums(e, a, _pad(e, part.size))
        s1 += sums[0]
        first_power += sums[1]
        s2 += sums[2]
        pull += sums[3]
        squares += sums[4]
        e4 += sums[5]
        ae3 += sums[6]
        a2e2 += sums[7]
        a3e += sums[8]
        a4 += sums[9]
    return s1, s2, first_power, squares, pull, _FourthPowers(e4, ae3, a2e2, a3e, a4)


@_kernel(fastmath={"contract"})
def _add_draw(e, h, centre, first_power, squares, pull):
    for j in range(centre.size):
        a = e * (h[j] - centre[j])
        first_power[j] += a
        squares[j] += a * a
        pull[j] += e * a


# So many draws at a time the sums are loaded and stored once for all of them; the draws four times as many
# later are fetched meanwhile, as what the processor fetches by itself does not keep up with draws side by
# side. 1e5 draws of 1000 components: 97 ms one draw at a time, 51 four, 42 eight, 34 with the fetching.
_DRAWS = 8
_AHEAD = 4 * _DRAWS


@intrinsic
def _add_draws(typingctx, h, starts, weights, centre, first_power, squares, pull, first, later):
    """`_add_draw` for `_DRAWS` draws from entry first of starts and weights on.

    Those from entry later on are fetched. An intrinsic, as LLVM vectorises no loop that fetches.
    """

    def codegen(context, builder, signature, args):
        data = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:7], args[:7], strict=True)
        ]
        size = data[3].nitems
        values, starts, weights, centre, *sums = (array.data for array in data)
        integer, byte, word = size.type, ir.IntType(8).as_pointer(), ir.IntType(32)
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )

        def entries(array, start):
            places = (builder.add(start, integer(k)) for k in range(_DRAWS))
            return [builder.load(builder.gep(array, [place])) for place in places]

        now, soon = ([builder.gep(values, [start]) for start in entries(starts, place)] for place in args[7:])
        e = entries(weights, args[7])

        def add(begin, end, lanes):
            weight = [_splat(builder, x, lanes) for x in e]
            vector = weight[0].type
            with cgutils.for_range_slice(builder, begin, end, integer(lanes), integer) as (j, _):
                c = _load(builder, centre, j, lanes)
                totals = []
                for k in range(_DRAWS):
                    line = builder.bitcast(builder.gep(soon[k], [j]), byte)
                    builder.call(fetch, [line, word(0), word(2), word(1)])  # to read; second cache; data
                    x = _load(builder, now[k], j, lanes)
                    x = x if x.type == vector else builder.fpext(x, vector)
                    a = builder.fmul(weight[k], builder.fsub(x, c))
                    terms = [a, *(builder.fmul(y, a, flags=["contract"]) for y in (a, weight[k]))]
                    if totals:
                        pairs = zip(totals, terms, strict=True)
                        terms = [builder.fadd(*pair, flags=["contract"]) for pair in pairs]
                    totals = terms
                for array, total in zip(sums, totals, strict=True):
                    place = builder.bitcast(builder.gep(array, [j]), vector.as_pointer())
                    builder.store(builder.fadd(_load(builder, array, j, lanes), total), place).align = 8

        begin = integer(0)
        for lanes in (8, 4, 2, 1):  # most components eight at a time, a cache line; then what is left
            end = builder.and_(size, integer(-lanes))
            add(begin, end, lanes)
            begin = end
        return context.get_dummy_value()

    numbers = (h, starts, weights, centre, first_power, squares, pull)
    return types.void(*numbers, types.int64, types.int64), codegen


@_kernel
def _vector_moments(row, high, gamma, h, centre, first_power, squares, pull, blocks):
    """As `_scalar_moments` for each component of h, (n, d) flattened: returns the sums of e, e^2 and e^4."""
    d = centre.size
    s1 = s2 = s4 = 0.0
    first_power[:] = 0.0
    squares[:] = 0.0
    pull[:] = 0.0
    e, ee, weights = blocks[0], blocks[1], blocks[2]
    starts = np.empty(_BLOCK, np.int64)
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        _block_weights(part, high, gamma, e)
        end = _pad(e, part.size)
        for i in range(end):
            ee[i] = e[i] * e[i]
        x, _, _, _ = _sums(e, e, end)
        xx, _, xxxx, _ = _sums(ee, ee, end)
        s1 += x
        s2 += xx
        s4 += xxxx
        count = 0
        for i in range(part.size):
            if e[i] != 0.0:
                weights[count] = e[i]
                starts[count] = (first + i) * d
                count += 1
        together = count - count % _DRAWS
        for i in range(0, together, _DRAWS):
            later = min(i + _AHEAD, together - _DRAWS)
            _add_draws(h, starts, weights, centre, first_power, squares, pull, i, later)
        for i in range(together, count):
            _add_draw(weights[i], h[starts[i] : starts[i] + d], centre, first_power, squares, pull)
    return s1, s2, s4


# Sums about a centre this many standard errors (squared) from the estimate would lose digits to it.
_FAR = 1e4


@_kernel
def moment_rows(rows, gamma, h, estimate, std_error, bias, ess, log_total, error_draws, status):
    """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened.

    With wbar the normalised weights: estimate sum wbar h, delta-method variance
    sum wbar^2 (h - estimate)^2, bias -sum wbar^2 (h - estimate). A draw of zero weight is not looked
    at: its h may be anything. One pass over h, about its value at the largest weight; where that turns out
    far from the estimate another one, about the estimate. log_total is the log of sum w^gamma,
    error_draws how many draws carry the variance (the sum wbar^2 alone for h of several components).
    """
    d = estimate.shape[1]
    blocks = np.empty((3, _BLOCK))
    centre = np.empty(d)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row)
        status[r] = _presence(n_finite, sound)
        if status[r] != OK or g != g:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            ess[r] = np.nan
            log_total[r] = -np.inf if status[r] == NO_WEIGHT else np.nan
            error_draws[r] = np.nan
            continue
        top = _first_at(row, high)
        powers = _FourthPowers(0.0, 0.0, 0.0, 0.0, 0.0)
        for j in range(d):
            centre[j] = _finite_or_zero(h[r, top * d + j])
        for _ in range(2):
            if d == 1:
                s1, s2, estimate[r, 0], std_error[r, 0], bias[r, 0], powers = _scalar_moments(
                    row, high, g, h[r], centre[0], blocks
                )
            else:
                s1, s2, s4 = _vector_moments(
                    row, high, g, h[r], centre, estimate[r], std_error[r], bias[r], blocks
                )
                error_draws[r] = _behind(s2, s4)
            ess[r] = kish(s1, s2)
            log_total[r] = g * high + math.log(s1)
            near = True
            for j in range(d):
                shift = estimate[r, j] / s1
                squares = std_error[r, j] - 2.0 * shift * bias[r, j] + shift * shift * s2
                if d == 1:
                    error_draws[r] = _behind(squares, _fourth_power(powers, shift))
                near = near and not shift * shift * s2 > _FAR * squares
                centre[j] += shift
                estimate[r, j] = centre[j]
                std_error[r, j] = math.sqrt(max(squares, 0.0)) / s1
                bias[r, j] = -(bias[r, j] - shift * s2) / (s1 * s1)
            if near:
                break


# --------------------------------------------------------------------------------------
# gamma by ESS
# --------------------------------------------------------------------------------------

# ESS is brought to [target, target (1 + _ESS_TOLERANCE)], aiming inside, so that the constraint holds
# for whoever computes ESS at the chosen gamma again.
_ESS_TOLERANCE = 4e-11
_ESS_AIM = 2e-11
_MODEL_ERROR = 1.5e-11
_MAX_STEPS = 200
_SMALLEST_GAMMA = 1e-300
_LARGEST_GAMMA = 1e300


@_kernel
def _series(c, d):
    """Sum of c_k d^k and its derivative in d."""
    value = c[_ORDER]
    slope = 0.0
    for k in range(_ORDER - 1, -1, -1):
        slope = value + slope * d
        value = c[k] + value * d
    return value, slope


@_kernel
def _log_ess(moments, delta):
    """log ESS and its derivative at gamma (1 + delta), from the `_moments` at gamma.

    e^(1 + delta) is e times the exponential series of delta t, so its sums are series in the moments; the
    factor of the centre cancels in ESS.
    """
    a, a_slope = _series(moments[: _ORDER + 1], delta)
    b, b_slope = _series(moments[_ORDER + 1 :], 2.0 * delta)
    return 2.0 * math.log(a) - math.log(b), 2.0 * (a_slope / a - b_slope / b)


@_kernel
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
        if abs(step) < 1e-15:
            break
    value, _ = _log_ess(moments, delta)
    unsolved = abs(log_target - value)
    d = abs(delta)
    error = 2.0 * d**7 * moments[6] / moments[0] * math.exp(min(d * reach, 700.0))
    d *= 2.0
    error += d**7 * moments[13] / moments[7] * math.exp(min(d * reach, 700.0))
    return delta, error * reach / 7.0 + unsolved


class EssTask(NamedTuple):
    """To find the largest gamma in (0, gamma_max] with ESS >= target, on a row that is not flat."""

    size: int
    half_range: float  # of the finite entries
    n_finite: int
    target: float
    gamma_max: float


class EssSearch(NamedTuple):
    """Where the search stands and which `_moments` it asks for next. At stride 0 it has ended."""

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
_FIRST_LEVEL = 16 * _BLOCK
_SAMPLE_ERROR = 1e-3
_SAMPLE_STEPS = 20


@_kernel
def _sampled(size, stride):
    """How many draws every stride-th block of size draws hold."""
    whole = (size - 1) // (stride * _BLOCK)
    return whole * _BLOCK + min(_BLOCK, size - whole * stride * _BLOCK)


@_kernel
def _mean_and_spread(row, survey, stride, blocks):
    """Mean and standard deviation of the finite entries less the largest; scales, so they may overflow.

    Of a sample, as if it held its share of them.
    """
    total = 0.0
    squares = 0.0
    d = blocks[0]
    for first in range(0, row.size, stride * _BLOCK):
        part = row[first : first + _BLOCK]
        for i in range(part.size):
            d[i] = part[i] - survey.high if part[i] > -np.inf else 0.0
        a, _, b, _ = _sums(d, d, _pad(d, part.size))
        total += a
        squares += b
    count = survey.n_finite * (_sampled(row.size, stride) / row.size)
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean * mean, 0.0))


@_kernel
def _begin_level(task, stride, gamma, centre):
    """Search every stride-th block, beginning at gamma, where t has the mean gamma centre under w^(2 gamma).

    The series of the second sum is the one that limits the error, so that is where both are centred.

    Where all gamma * row lie within a range R, ESS >= n_finite exp(-R) (Kantorovich).
    """
    aim = math.log(task.n_finite) - math.log(task.target) - _ESS_AIM
    feasible = min(0.5 * aim / task.half_range, task.gamma_max)
    least = max(feasible, _SMALLEST_GAMMA)
    gamma = min(gamma, task.gamma_max) if gamma > least else least  # least where gamma is NaN
    return EssSearch(stride, gamma, _middle(gamma * centre), np.nan, feasible, np.nan, np.inf, 0)


@_kernel
def _middle(t):
    return t if -700.0 < t < 0.0 else 0.0


@_kernel
def _ended(gamma, ess):
    return EssSearch(0, gamma, 0.0, ess, gamma, ess, np.inf, 0)


@_kernel
def _end_level(task, stride, gamma, ess, centre):
    if stride == 1:
        return _ended(gamma, ess)
    return _begin_level(task, stride // _LEVEL, gamma, centre)


@_kernel
def begin_ess_search(row, survey, target, gamma_max, blocks):
    """The task, and a search that begins where log-normal weights would have the ESS."""
    half_range = 0.5 * survey.high - 0.5 * survey.low
    task = EssTask(row.size, half_range, survey.n_finite, target, min(gamma_max, _LARGEST_GAMMA))
    aim = math.log(survey.n_finite) - math.log(target) - _ESS_AIM
    if aim <= 0.0:
        return task, _ended(0.0, float(survey.n_finite))
    stride = 1
    while row.size // stride > _FIRST_LEVEL:
        stride *= _LEVEL
    mean, spread = _mean_and_spread(row, survey, stride, blocks)
    gamma = math.sqrt(aim) / spread
    return task, _begin_level(task, stride, gamma, mean + 2.0 * gamma * spread * spread)


@_kernel
def step_ess_search(task, search, moments):
    """Go on with the moments that the search asked for.

    From the moments at one gamma the series `_log_ess` gives ESS near it; where its error is small enough
    that is the answer, and no pass is spent to confirm it. Far from the root steps are Newton's on
    u = sqrt(log(n_finite / ESS)), which is proportional to gamma for log-normal weights. All is kept in a
    bracket, as ESS never grows with gamma.
    """
    stride, gamma, middle, step = search.stride, search.gamma, search.middle, search.step
    feasible, feasible_ess, infeasible = search.feasible, search.feasible_ess, search.infeasible
    target, gamma_max = task.target, task.gamma_max
    if not (moments[0] > 0.0 and moments[7] > 0.0):  # all that was sampled is negligible
        return _end_level(task, stride, gamma, np.nan, 0.0)
    share = _sampled(task.size, stride) / task.size
    log_target = math.log(target) + _ESS_AIM
    a_mean = moments[1] / moments[0]
    b_mean = moments[8] / moments[7]
    centre = (middle + b_mean) / gamma
    ess = kish(moments[0], moments[7]) / share
    if ess >= target:
        feasible = gamma
        feasible_ess = ess
        if gamma >= gamma_max or ess <= target * (1.0 + _ESS_TOLERANCE):
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


@_kernel
def ess_limit(row, survey, search, target, blocks):
    """(gamma, ESS there) of a search that has ended."""
    if search.ess == search.ess:
        return search.gamma, search.ess
    ess = _kish_ess(row, survey.high, survey.n_finite, search.gamma, blocks)
    if ess >= target:
        return search.gamma, ess
    return 0.0, float(survey.n_finite)  # a range beyond float64: only gamma = 0 is left


@_kernel
def _ess_limit(ws, row, survey, target, gamma_max):
    """The largest gamma in (0, gamma_max] with ESS >= target, and ESS there; needs a row that is not flat."""
    task, search = begin_ess_search(row, survey, target, gamma_max, ws.blocks)
    while search.stride > 0:
        _moments(row, search.stride, survey.high, search.gamma, search.middle, ws)
        search = step_ess_search(task, search, ws.moments)
    return ess_limit(row, survey, search, target, ws.blocks)


# --------------------------------------------------------------------------------------
# gamma by re-fit
# --------------------------------------------------------------------------------------

_REFIT_SCAN = 16
_REFIT_DEEPEST = 2.0**-40
_REFIT_TOLERANCE = 1e-12


@_kernel
def _refit_limit(ws, tail, length, k_max, gamma_max):
    """The largest gamma < gamma_max whose re-fitted khat is <= k_max, khat at gamma_max being above it.

    Returns (gamma, whether any gamma could be fitted). Nothing proves khat monotone in gamma, so the
    range is scanned from above, evenly and then by halves, before the crossing is refined.
    """
    above = gamma_max
    k_above = np.inf
    below = 0.0
    k_below = -np.inf
    fitted = False
    step = 1
    while above > gamma_max * _REFIT_DEEPEST:
        gamma = gamma_max * (1.0 - step / _REFIT_SCAN) if step < _REFIT_SCAN else 0.5 * above
        step += 1
        status, k, _ = _fit_tail(ws, tail, length, gamma)
        fitted = fitted or status == OK
        if k <= k_max:
            below, k_below = gamma, k
            break
        above, k_above = gamma, k
    if below == 0.0:
        return 0.0, fitted
    # ITP (Oliveira & Takahashi 2020): the secant's speed within one step more than bisection needs.
    tolerance = _REFIT_TOLERANCE * above
    reserve = above - below
    while above - below > tolerance:
        middle = 0.5 * (above + below)
        gamma = middle
        if k_above < np.inf:
            secant = below + (above - below) * ((k_max - k_below) / (k_above - k_below))
            offset = middle - secant
            nudge = 0.2 * (above - below) ** 2 / gamma_max + 0.25 * tolerance
            if nudge < abs(offset):
                secant += math.copysign(nudge, offset)
                room = max(reserve - 0.5 * (above - below), 0.0)
                gamma = min(max(secant, middle - room), middle + room)
        reserve *= 0.5
        _, k, _ = _fit_tail(ws, tail, length, gamma)
        if k <= k_max:
            below, k_below = gamma, k
        else:
            above, k_above = gamma, k
    return below, True


@_kernel
def _refit_psis(ws, tail, length, k_max, gamma_ess, gamma_max):
    """The limit that the re-fitted tail sets on gamma below gamma_max; inf where it sets none."""
    upper = min(gamma_max, _LARGEST_GAMMA)
    _, k, _ = _fit_tail(ws, tail, length, upper)
    if not k > k_max:
        found = np.inf
    else:
        found, fitted = _refit_limit(ws, tail, length, k_max, upper)
        if not fitted:
            return np.inf
    if gamma_ess < found:
        _, k, _ = _fit_tail(ws, tail, length, gamma_ess)
        if k > k_max:
            found, fitted = _refit_limit(ws, tail, length, k_max, gamma_ess)
    return found


# --------------------------------------------------------------------------------------
# select_gamma
# --------------------------------------------------------------------------------------


@_kernel
def searches_ess(survey, n, ess_min, eps):
    """Whether the gamma for an ESS has to be searched for."""
    state = _state(survey, n, 1.0, eps)
    return state == OK and survey.n_finite > 1 and survey.n_finite / n >= ess_min


# The columns of a selection's numbers and codes.
GAMMA, GAMMA_PSIS, GAMMA_ESS, KHAT, KHAT_TEMPERED, ESS, ESS_RATIO = range(7)
LIMIT, STATUS = range(2)


@_kernel
def select_row(ws, row, survey, gamma_ess, ess, n, length, k_max, numbers, codes, ess_min, gamma_max, eps):
    """Fill numbers and codes, given gamma_ess and the ESS there if the row `searches_ess`.

    Returns the gamma at which a pass over the row has yet to tell the ESS; NaN if none.
    """
    n_finite = survey.n_finite
    state = _state(survey, n, 1.0, eps)
    khat = _khat_without_fit(state)
    numbers[:] = np.nan
    numbers[KHAT] = khat
    codes[LIMIT] = BY_NONE
    codes[STATUS] = state
    if state == NOT_FINITE or state == NO_WEIGHT:
        return np.nan
    tail = _Tail(0, np.nan, np.nan, 0)
    if state == OK:
        tail = _select_tail(ws, row, survey, length)
        state, khat, _ = _fit_tail(ws, tail, length, 1.0)
    if n_finite / n < ess_min:
        state, gamma_ess, ess = INFEASIBLE, 0.0, float(n_finite)
    elif state == FLAT or n_finite == 1:
        gamma_ess, ess = gamma_max, np.nan
    elif gamma_ess >= min(gamma_max, _LARGEST_GAMMA):
        gamma_ess = gamma_max
    numbers[KHAT] = khat
    numbers[GAMMA_ESS] = gamma_ess
    codes[STATUS] = state
    # A khat that is unknown or infinite gives no limit; the status tells.
    gamma_psis = max(k_max, 0.0) / khat if 0.0 < khat < np.inf else np.inf
    return _settle(ws, survey, tail, gamma_psis, ess, n, length, numbers, codes, gamma_max, eps)


@_kernel
def _settle(ws, survey, tail, gamma_psis, ess, n, length, numbers, codes, gamma_max, eps):
    """Take the least of the limits, ess being the ESS at numbers[GAMMA_ESS]; returns as `select_row`."""
    gamma = numbers[GAMMA_ESS]
    limit = BY_ESS if gamma < gamma_max else BY_MAX
    if gamma_psis < gamma:
        gamma, ess, limit = gamma_psis, np.nan, BY_PSIS
    tempered = _state(survey, n, gamma, eps)
    khat = _khat_without_fit(tempered)
    if tempered == OK:
        _, khat, _ = _fit_tail(ws, tail, length, gamma)
    numbers[GAMMA] = gamma
    numbers[GAMMA_PSIS] = gamma_psis
    numbers[KHAT_TEMPERED] = khat
    codes[LIMIT] = limit
    if gamma == 0.0:
        ess = float(survey.n_finite)
    store_ess(ess, n, numbers)
    return min(gamma, _LARGEST_GAMMA) if ess != ess else np.nan


@_kernel
def store_ess(ess, n, numbers):
    numbers[ESS] = ess
    numbers[ESS_RATIO] = ess / n


@_kernel
def select_rows(rows, n, length, k_max, numbers, codes, ess_min, gamma_max, eps):
    """A row of numbers and codes for each row of log-weights."""
    ws = workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        row = rows[r]
        survey = _survey(ws, row, length[r])
        gamma_ess, ess = np.nan, np.nan
        if searches_ess(survey, n[r], ess_min, eps):
            gamma_ess, ess = _ess_limit(ws, row, survey, ess_min * n[r], gamma_max)
        pending = select_row(
            ws, row, survey, gamma_ess, ess, n[r], length[r], k_max[r], numbers[r], codes[r],
            ess_min, gamma_max, eps,
        )  # fmt: skip
        if pending == pending:
            store_ess(_kish_ess(row, survey.high, survey.n_finite, pending, ws.blocks), n[r], numbers[r])


@_kernel
def refit_rows(rows, n, length, k_max, numbers, codes, gamma_max, eps):
    """Replace the limit that `select_rows` took the tail to set by that of the re-fitted tail."""
    ws = workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        gamma_ess, state = numbers[r, GAMMA_ESS], codes[r, STATUS]
        if state == FLAT or not gamma_ess > 0.0:
            continue
        row = rows[r]
        survey = _survey(ws, row, length[r])
        tail = _select_tail(ws, row, survey, length[r])
        gamma_psis = _refit_psis(ws, tail, length[r], k_max[r], gamma_ess, gamma_max)
        ess = numbers[r, ESS] if numbers[r, GAMMA] == gamma_ess else np.nan
        pending = _settle(
            ws, survey, tail, gamma_psis, ess, n[r], length[r], numbers[r], codes[r], gamma_max, eps
        )
        if pending == pending:
            store_ess(_kish_ess(row, survey.high, survey.n_finite, pending, ws.blocks), n[r], numbers[r])


# --------------------------------------------------------------------------------------
# Truncation: where to cut weights
# --------------------------------------------------------------------------------------

# Draws this close in log-weight are one level of a lattice (ratios of counts, sums of few terms).
_SAME_LEVEL = 1e-9


@_kernel
def _spread_excesses(ws, row, tail, high, tie):
    """Fill ws.excess with those of the tail, ties spread; returns the weight they are measured from.

    Draws that share a level are spread evenly between it and the level below: a tail of a lattice, which
    has hardly any distinct excess to fit, becomes one with a slope. A tail without ties stays as it is.
    """
    m, x = tail.size, ws.x
    outside = 0
    below = -np.inf
    for i in range(row.size):
        t = row[i] - high
        outside += 1 if abs(t - x[0]) <= tie else 0
        below = max(below, t if t < x[0] - tie else -np.inf)
    for i in range(m):
        outside -= 1 if abs(x[i] - x[0]) <= tie else 0
    lower = math.exp(below)
    cutoff = lower
    start = 0
    while start < m:
        stop = start + 1
        while stop < m and x[stop] - x[start] <= tie:
            stop += 1
        level = math.exp(x[stop - 1])
        first = outside if start == 0 else 0
        count = first + stop - start
        step = (level - lower) / count
        if first > 0:
            cutoff = lower + (first - 0.5) * step
        for i in range(start, stop):
            value = lower + (first + i - start + 0.5) * step if count > 1 else level
            ws.excess[i] = value - cutoff
        lower = level
        start = stop
    return cutoff


# The cap lies between that of Ionides, sqrt(n) times the mean weight, and the level that the fitted tail
# exceeds half a time in n draws, three quarters of the way on the log scale. Where more than two draws
# exceed that level there is something the fit does not know, a far mode say, and the cap is not lowered.
# A tail is taken to have a mean: k is 1 at most. benchmarks/accuracy compares alternatives.
_EXCEEDANCES = 0.5
_TOWARDS_FIT = 0.75
_OUTLIERS = 2


@_kernel
def _fitted_level(ws, row, tail, high, tie):
    """Log of the weight that the tail fitted to w exceeds `_EXCEEDANCES` times; NaN where there is no fit."""
    m = tail.size
    if m < MIN_TAIL:
        return np.nan
    _sort_tail(ws, tail)
    cutoff = _spread_excesses(ws, row, tail, high, tie)
    least, quartile, largest = ws.excess[0], ws.excess[_quartile_rank(m)], ws.excess[m - 1]
    fitted, k, sigma = _gpd_fit(ws, m, least, quartile, largest)
    if not fitted:
        return np.nan
    k = min(_with_prior(k, m), 1.0)
    y = math.log(m / _EXCEEDANCES)
    growth = math.expm1(k * y) / k if k != 0.0 else y
    return math.log(cutoff + sigma * growth)


@_kernel
def cap_rows(rows, n, length, cap, status, eps):
    """The log-weight at which to truncate each row; NaN and the status code of a row without weights."""
    ws = workspace(rows.shape[1], length)
    for r in range(rows.shape[0]):
        row = rows[r]
        survey = _survey(ws, row, length[r])
        high = survey.high
        cap[r] = np.nan
        status[r] = _presence(survey.n_finite, survey.sound)
        if status[r] != OK:
            continue
        s1, _ = _power_sums(row, high, survey.n_finite, 1.0, ws.blocks)
        log_ionides = math.log(s1) - 0.5 * math.log(n[r])
        cap[r] = high + log_ionides
        if _state(survey, n[r], 1.0, eps) == OK:
            tail = _select_tail(ws, row, survey, length[r])
            tie = max(_SAME_LEVEL, 8.0 * eps * max(1.0, abs(high)))
            level = _fitted_level(ws, row, tail, high, tie)
            above = 0
            for i in range(tail.size):
                above += 1 if ws.x[i] > level else 0
            towards = _TOWARDS_FIT * (level - log_ionides)
            if towards > 0.0 or (towards <= 0.0 and above <= _OUTLIERS):
                cap[r] += towards


# --------------------------------------------------------------------------------------
# The estimate of least error: truncation, shrunk along the path of tempering
# --------------------------------------------------------------------------------------

# With mu(gamma) the mean of h under w^gamma, the steps of the path are Taylor polynomials of mu at gamma,
# evaluated at 1: of order 1 and 2 at 0, of order 1 at 0.4, of order 0 (the tempered estimate) at 0.8. They
# have little variance and an unknown bias; the truncated estimate is moved towards them as far as they do
# not contradict it.
_STEPS = 4
_MIDDLE_GAMMA = 0.4
_CONTRADICTION = 9.0  # squared standard errors of the difference from which a step is not believed


class _Path(NamedTuple):
    """Sums over a row that do not need h: weights, and the log-weights' means and spread under them.

    Log-weights t are relative to the row's largest. Weights are w, w capped, w^0, w^0.4 and w^0.8.
    """

    cap: float  # of w relative to the largest
    s_raw: float
    s_cap: float
    s_zero: float
    s_middle: float
    s_high: float
    t_zero: float
    t_middle: float
    t_variance: float  # at gamma = 0


class _Means(NamedTuple):
    """Means of h - centre under the weights of `_Path`, and its joint cumulants with t."""

    raw: float
    cap: float
    zero: float
    middle: float
    high: float
    zero_1: float
    zero_2: float
    middle_1: float


@_kernel
def _path_weights(part, high, cap, t, raw, capped, middle):
    """Fill in t, w, w capped and w^0.4, whose square is w^0.8; all are 0 where w = 0."""
    for i in range(part.size):
        positive = part[i] > -np.inf
        t[i] = part[i] - high if positive else 0.0
        value = _exp2(_LOG2_E * max(t[i], -708.0))
        raw[i] = value if positive else 0.0
        capped[i] = min(raw[i], cap)
        value = _exp2(_LOG2_E * max(_MIDDLE_GAMMA * t[i], -708.0))
        middle[i] = value if positive else 0.0
    _pad(t, part.size)
    _pad(raw, part.size)
    _pad(capped, part.size)
    return _pad(middle, part.size)


@_kernel
def _path_sums(row, high, cap, n_finite, blocks):
    s_raw = s_cap = s_middle = s_high = t_zero = t_squares = t_middle = 0.0
    t, raw, capped, middle = blocks[0], blocks[1], blocks[2], blocks[3]
    for first in range(0, row.size, _BLOCK):
        end = _path_weights(row[first : first + _BLOCK], high, cap, t, raw, capped, middle)
        a, _, _, _ = _sums(raw, raw, end)
        s_raw += a
        a, _, _, _ = _sums(capped, capped, end)
        b, bt, bb, _ = _sums(middle, t, end)
        c, _, cc, _ = _sums(t, t, end)
        s_cap += a
        s_middle += b
        s_high += bb
        t_middle += bt
        t_zero += c
        t_squares += cc
    t_zero /= n_finite
    variance = max(t_squares / n_finite - t_zero * t_zero, 0.0)
    t_middle /= s_middle
    return _Path(cap, s_raw, s_cap, float(n_finite), s_middle, s_high, t_zero, t_middle, variance)


@_kernel
def _block_values(part, h, first, j, d, centre, value):
    """Fill value with h - centre, 0 where w = 0: h is not looked at there."""
    if d == 1:  # a loop that vectorises
        near = h[first : first + part.size]
        for i in range(part.size):
            value[i] = near[i] - centre
    else:
        for i in range(part.size):
            value[i] = h[(first + i) * d + j] - centre
    for i in range(part.size):
        value[i] = value[i] if part[i] > -np.inf else 0.0


@_kernel
def _path_means(row, high, path, h, j, d, centre, blocks):
    m_raw = m_cap = m_zero = m_middle = m_high = zero_1 = zero_2 = middle_1 = 0.0
    t, raw, capped, middle, value, tilted = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4], blocks[5]
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _path_weights(part, high, path.cap, t, raw, capped, middle)
        _block_values(part, h, first, j, d, centre, value)
        _pad(value, part.size)
        _, a, _, _ = _sums(value, raw, end)
        m_raw += a
        _, a, _, _ = _sums(value, capped, end)
        m_cap += a
        _, a, _, _ = _sums(value, middle, end)
        m_middle += a
        for i in range(end):
            tilted[i] = value[i] * middle[i]
        _, a, _, _ = _sums(tilted, middle, end)
        m_high += a
        for i in range(end):
            tilted[i] *= t[i] - path.t_middle
        a, _, _, _ = _sums(tilted, middle, end)
        middle_1 += a
        for i in range(end):
            t[i] -= path.t_zero
            tilted[i] = value[i] * t[i]
        a, b, _, _ = _sums(tilted, t, end)
        zero_1 += a
        zero_2 += b
        a, _, _, _ = _sums(value, value, end)
        m_zero += a
    m_zero /= path.s_zero
    return _Means(
        m_raw / path.s_raw,
        m_cap / path.s_cap,
        m_zero,
        m_middle / path.s_middle,
        m_high / path.s_high,
        zero_1 / path.s_zero,
        zero_2 / path.s_zero - m_zero * path.t_variance,
        middle_1 / path.s_middle,
    )


@_kernel
def _estimates_along(means, x):
    """Fill x with what the steps of the path estimate, less the centre."""
    x[0] = means.zero + means.zero_1
    x[1] = x[0] + 0.5 * means.zero_2
    x[2] = means.middle + (1.0 - _MIDDLE_GAMMA) * means.middle_1
    x[3] = means.high


@_kernel(fastmath={"contract"})
def _influences(part, high, path, means, h, first, j, d, centre, blocks):
    """Fill f: the influence of each draw on the truncated estimate, on the steps, and on the plain estimate.

    Summed over draws influences are 0; their squares sum to the delta-method variance.
    """
    t, raw, capped, middle, value, f = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4], blocks[6:]
    end = _path_weights(part, high, path.cap, t, raw, capped, middle)
    _block_values(part, h, first, j, d, centre, value)
    f0, f1, f2, f3, f4, f5 = f[0], f[1], f[2], f[3], f[4], f[5]
    by_zero, by_middle, by_high = 1.0 / path.s_zero, 1.0 / path.s_middle, 1.0 / path.s_high
    for i in range(part.size):
        positive = part[i] > -np.inf
        f0[i] = capped[i] / path.s_cap * (value[i] - means.cap)
        u = t[i] - path.t_zero
        v = value[i] - means.zero
        order_1 = (v + v * u - means.zero_1) * by_zero
        second = v * u * u - means.zero_2 - v * path.t_variance - 2.0 * u * means.zero_1
        order_2 = order_1 + 0.5 * second * by_zero
        f1[i] = order_1 if positive else 0.0
        f2[i] = order_2 if positive else 0.0
        u = t[i] - path.t_middle
        v = value[i] - means.middle
        f3[i] = middle[i] * by_middle * (v + (1.0 - _MIDDLE_GAMMA) * (v * u - means.middle_1))
        f4[i] = middle[i] * middle[i] * by_high * (value[i] - means.high)
        f5[i] = raw[i] / path.s_raw * (value[i] - means.raw)
    for s in range(_STEPS + 2):
        _pad(f[s], part.size)
    return end


@_kernel
def _shares(means, x, gain, spread, share):
    """Fill share: how far to move to each step. Returns the sum of the shares.

    To move from an estimate of variance V to a step that differs by D, with covariance C, `gain` V - C and
    `spread` W the variance of D, is best by (V - C) / W if the step has no bias. That is tapered to 0 at
    D^2 = 9 W; the first order at 0 is believed no further than the second. The steps are weighted by what
    each would gain.
    """
    taper = np.empty(_STEPS)
    total_weight = 0.0
    for j in range(_STEPS):
        d = means.cap - x[j]
        # Negated, so that a step that is not finite has no share.
        believed = spread[j] > 0.0 and d * d < _CONTRADICTION * spread[j]
        taper[j] = 1.0 - d * d / (_CONTRADICTION * spread[j]) if believed else 0.0
        gain[j] = max(gain[j], 0.0) if believed else 0.0
        share[j] = min(gain[j] / spread[j], 1.0) if believed else 0.0
    taper[0] = min(taper[0], taper[1])
    for j in range(_STEPS):
        share[j] *= taper[j]
        gain[j] *= share[j]
        total_weight += gain[j]
    total = 0.0
    for j in range(_STEPS):
        share[j] = share[j] * gain[j] / total_weight if total_weight > 0.0 else 0.0
        total += share[j]
    return total


@_kernel
def _least_error(row, high, top, path, h, j, d, blocks, influence):
    """(estimate, standard error, bias, draws behind the error) of component j of h; fills influence.

    Those draws are counted for the plain estimate too, and the smaller number is returned: what truncation
    takes away may be what matters. The standard error is a jackknife's: to leave out a draw of weight
    share q moves a self-normalised estimate by its influence / (1 - q). The bias is that of the plain
    estimate: to cut weights and to move along the path errs to the same side, and a bias made of their
    differences had the right sign less often.
    """
    centre = _finite_or_zero(h[top * d + j])
    means = _path_means(row, high, path, h, j, d, centre, blocks)
    x, share = np.empty(_STEPS), np.empty(_STEPS)
    gain, spread = np.zeros(_STEPS), np.zeros(_STEPS)
    _estimates_along(means, x)
    raw, capped, difference, squared, f = blocks[1], blocks[2], blocks[4], blocks[5], blocks[6:]
    pull = squares = fourths = 0.0
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _influences(part, high, path, means, h, first, j, d, centre, blocks)
        # V - C and W as sums of products of differences: they may be millions of times smaller than V.
        for s in range(_STEPS):
            for i in range(end):
                difference[i] = f[0, i] - f[s + 1, i]
            _, df, dd, _ = _sums(difference, f[0], end)
            gain[s] += df
            spread[s] += dd
        plain = f[_STEPS + 1]
        _, fw, _, _ = _sums(plain, raw, end)
        pull += fw
        for i in range(end):
            squared[i] = plain[i] * plain[i]
        a, _, aa, _ = _sums(squared, squared, end)
        squares += a
        fourths += aa
    raw_draws = _behind(squares, fourths)
    moved = _shares(means, x, gain, spread, share)
    estimate = means.cap
    for s in range(_STEPS):
        estimate += share[s] * (x[s] - means.cap) if share[s] > 0.0 else 0.0
    squares = fourths = 0.0
    for first in range(0, row.size, _BLOCK):
        part = row[first : first + _BLOCK]
        end = _influences(part, high, path, means, h, first, j, d, centre, blocks)
        total, left_out = influence[first : first + _BLOCK], squared
        for i in range(part.size):
            rest = 1.0 - capped[i] / path.s_cap
            total[i] = (1.0 - moved) * f[0, i]
            left_out[i] = total[i] / rest if rest > 0.0 else total[i]
        for s in range(_STEPS):
            if share[s] > 0.0:
                for i in range(part.size):
                    total[i] += share[s] * f[s + 1, i]
                    left_out[i] += share[s] * f[s + 1, i]
        for i in range(part.size):
            squared[i] = left_out[i] * left_out[i]
        a, _, aa, _ = _sums(squared, squared, _pad(squared, part.size))
        squares += a
        fourths += aa
    draws = min(_behind(squares, fourths), raw_draws)
    squares *= (path.s_zero - 1.0) / path.s_zero
    return centre + estimate, math.sqrt(squares), -pull / path.s_raw, draws


@_kernel
def least_error_rows(rows, cap, h, estimate, std_error, bias, error_draws, influence):
    """Estimates of least error of h, h[r] being (n, d) flattened; influence is (rows, d, n)."""
    blocks = np.empty((6 + _STEPS + 2, _BLOCK))
    d = estimate.shape[1]
    for r in range(rows.shape[0]):
        row = rows[r]
        high, _, n_finite, _ = _extent(row)
        if cap[r] != cap[r]:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            error_draws[r, :] = np.nan
            influence[r, :, :] = np.nan
            continue
        path = _path_sums(row, high, math.exp(cap[r] - high), n_finite, blocks)
        top = _first_at(row, high)
        for j in range(d):
            estimate[r, j], std_error[r, j], bias[r, j], error_draws[r, j] = _least_error(
                row, high, top, path, h[r], j, d, blocks, influence[r, j]
            )


@_kernel
def _add_to_curve(total, e, a, f, end):
    """Add to the sums of e, e^2, a, a^2, e a, e f and a f."""
    s, sf, ss, _ = _sums(e, f, end)
    total[0] += s
    total[1] += ss
    total[5] += sf
    s, se, ss, _ = _sums(a, e, end)
    total[2] += s
    total[3] += ss
    total[4] += se
    _, sf, _, _ = _sums(a, f, end)
    total[6] += sf


@_kernel
def curve_rows(rows, gammas, h, centre, influence, estimate, std_error, bias, covariance):
    """Self-normalised estimates at each gamma, their delta-method error and bias: (rows, d, gammas).

    covariance is that of each with what has that influence. Sums are taken about the centre, (rows, d):
    near the estimates no digits are lost.
    """
    blocks = np.empty((4, _BLOCK))
    e, value, a, f = blocks[0], blocks[1], blocks[2], blocks[3]
    totals = np.empty((gammas.size, 7))
    for r in range(rows.shape[0]):
        row = rows[r]
        high, _, n_finite, sound = _extent(row)
        stop = row.size if _presence(n_finite, sound) == OK else 0
        for j in range(estimate.shape[1]):
            totals[:, :] = 0.0
            for first in range(0, stop, _BLOCK):
                part = row[first : first + _BLOCK]
                _block_values(part, h[r], first, j, estimate.shape[1], centre[r, j], value)
                _copy(influence[r, j, first : first + part.size], f)
                end = _pad(f, part.size)
                for g in range(gammas.size):
                    _block_weights(part, high, gammas[g], e)
                    for i in range(part.size):
                        product = e[i] * value[i]
                        a[i] = product if e[i] != 0.0 else 0.0
                    _pad(e, part.size)
                    _pad(a, part.size)
                    _add_to_curve(totals[g], e, a, f, end)
            for g in range(gammas.size):
                s1, s2, first_power, squares = totals[g, 0], totals[g, 1], totals[g, 2], totals[g, 3]
                pull, with_one, with_h = totals[g, 4], totals[g, 5], totals[g, 6]
                shift = first_power / s1
                squares += shift * shift * s2 - 2.0 * shift * pull
                estimate[r, j, g] = centre[r, j] + shift
                std_error[r, j, g] = math.sqrt(max(squares, 0.0)) / s1
                bias[r, j, g] = -(pull - shift * s2) / (s1 * s1)
                covariance[r, j, g] = (with_h - shift * with_one) / s1
