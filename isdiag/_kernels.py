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
from numba import njit, types
from numba.extending import intrinsic

# error_model="numpy": a division by zero is inf or nan, not a Python exception inside a loop.
_FLAGS = {"nogil": True, "error_model": "numpy"}

# Lets LLVM keep several partial sums (and so use vector registers). It never licenses the deletion
# of a NaN or inf test, which plain fastmath=True does.
_SUMMATION = {"contract", "reassoc", "nsz"}


def _kernel(function=None, *, fastmath=False):
    if function is None:
        return lambda f: _kernel(f, fastmath=fastmath)
    options = {**_FLAGS, "fastmath": fastmath}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder it may write a cache to
        return njit(**options)(function)


# Status codes: the values of isdiag.Status (tests/test_edge_cases.py holds them together).
OK, FLAT, TAIL_TOO_SHORT, DEGENERATE_TAIL, INFEASIBLE, NO_WEIGHT, NOT_FINITE = range(7)

# Which constraint set gamma: indices into isdiag.gamma.LIMITS.
BY_NONE, BY_PSIS, BY_ESS, BY_MAX = range(4)

# The fit compares its lower quartile with its smallest excess; with 5 draws they are the same draw.
MIN_TAIL = 6

_LARGEST = np.finfo(np.float64).max


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


_KEY_MAX = np.int64(0x7FEFFFFFFFFFFFFF)  # largest finite float64
_KEY_NEG_INF = np.int64(-0x7FF0000000000001)
_KEY_TOP = np.int64(0x7FFFFFFFFFFFFFFF)


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
    near = -d * p
    far = 1.0 - _exp2(d * _LOG2_E)
    return near if d > -0.35 else far  # both computed, one selected: a branch would not vectorise


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
    near = _log_near_one(z)
    far = _log(1.0 + z)
    return near if abs(z - 0.06) < 0.35 else far


# --------------------------------------------------------------------------------------
# A row's extent and its power sums
# --------------------------------------------------------------------------------------

# Long sums are sums of block sums: the rounding error grows with n / _BLOCK, and a block's numbers
# do not depend on who computes it.
_BLOCK = 1024


@_kernel
def _extent(row, block, maxima):
    """(largest, smallest finite, number of finite, every entry is a number below +inf).

    Also fills maxima[b] with the largest entry of the b-th block of that many entries.
    """
    high = _KEY_NEG_INF
    low = _KEY_TOP
    lowest = _KEY_TOP
    n_finite = 0
    for start in range(0, row.size, block):
        part = row[start : start + block]
        top = _KEY_NEG_INF
        for i in range(part.size):
            key = _order_key(part[i])
            finite = key != _KEY_NEG_INF
            top = max(key, top)
            lowest = min(lowest, key)
            low = min(low, key if finite else _KEY_TOP)
            n_finite += 1 if finite else 0
        maxima[start // block] = _from_order_key(top)
        high = max(high, top)
    sound = high <= _KEY_MAX and lowest >= _KEY_NEG_INF
    return _from_order_key(high), _from_order_key(low), n_finite, sound


@_kernel
def _is_flat(high, low, gamma, eps):
    """Whether gamma * log-weights differ by no more than rounding of the input can explain.

    Either of two roundings can: that of the log-weights (an ulp of their size) and that of weights near
    each other (a few ulps of 1).
    """
    if high == low:
        return True
    half_range = gamma * (0.5 * high - 0.5 * low)
    size = gamma * max(abs(high), abs(low))
    return half_range < np.inf and half_range <= 0.5 * eps * max(4.0, size)


@_kernel(fastmath=_SUMMATION)
def _block_power_sums(part, shift, rate):
    s1 = 0.0
    s2 = 0.0
    t1 = 0.0
    for i in range(part.size):
        v = max(rate * (part[i] - shift), _LOWEST)
        e = _exp2(v)
        s1 += e
        s2 += e * e
        t1 += e * v
    return s1, s2, t1


@_kernel
def _power_sums(row, shift, gamma):
    """Sums over the row of e, e^2 and e t, with t = gamma (row - shift) and e = exp(t).

    gamma > 0 and shift = max(row), so all is finite: ESS = s1^2 / s2, entropy = log s1 - t1 / s1.
    """
    s1 = 0.0
    s2 = 0.0
    t1 = 0.0
    for start in range(0, row.size, _BLOCK):
        a, b, c = _block_power_sums(row[start : start + _BLOCK], shift, gamma * _LOG2_E)
        s1 += a
        s2 += b
        t1 += c
    return s1, s2, t1 * _LN_2


@_kernel(fastmath=_SUMMATION)
def _block_moments(part, shift, rate, centre, e_block, u_block):
    # Two loops over buffers that stay in the first cache: LLVM does not vectorise so many sums together
    # with the polynomial (2.2 ns a draw against 1.0).
    for i in range(part.size):
        v = max(rate * (part[i] - shift), _LOWEST)
        e_block[i] = _exp2(v)
        u_block[i] = v - centre
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = 0.0
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = 0.0
    for i in range(part.size):
        e = e_block[i]
        u = u_block[i]
        e1 = e * u
        e2 = e1 * u
        e3 = e2 * u
        e4 = e3 * u
        e5 = e4 * u
        e6 = e5 * u
        a0 += e
        a1 += e1
        a2 += e2
        a3 += e3
        a4 += e4
        a5 += e5
        a6 += e6
        b0 += e * e
        b1 += e * e1
        b2 += e * e2
        b3 += e * e3
        b4 += e * e4
        b5 += e * e5
        b6 += e * e6
    return (a0, a1, a2, a3, a4, a5, a6), (b0, b1, b2, b3, b4, b5, b6)


_ORDER = 6


@_kernel
def _moments(row, shift, gamma, centre, ws):
    """Fill ws.a_sums and ws.b_sums: sums over the row of e u^k / k! and of e^2 u^k / k!, k to 6.

    u = t - centre; e and t as in `_power_sums`.
    """
    a, b = ws.a_sums, ws.b_sums
    a[:] = 0.0
    b[:] = 0.0
    for start in range(0, row.size, _BLOCK):
        p, q = _block_moments(
            row[start : start + _BLOCK],
            shift,
            gamma * _LOG2_E,
            centre * _LOG2_E,
            ws.e_block,
            ws.u_block,
        )
        for j in range(_ORDER + 1):
            a[j] += p[j]
            b[j] += q[j]
    factor = 1.0
    for j in range(1, _ORDER + 1):
        factor *= _LN_2 / j
        a[j] *= factor
        b[j] *= factor


@_kernel
def _copy(source, target):
    # target[:n] = source would have Numba compile its shape errors: 3 s of a first call
    for i in range(source.size):
        target[i] = source[i]


@_kernel
def _kish(s1, s2):
    return s1 * s1 / s2


@_kernel
def _kish_ess(row, high, n_finite, gamma):
    if gamma == 0.0:
        return float(n_finite)
    s1, s2, _ = _power_sums(row, high, gamma)
    return _kish(s1, s2)


# --------------------------------------------------------------------------------------
# Scratch memory, allocated once a call and not once a row
# --------------------------------------------------------------------------------------


class _Workspace(NamedTuple):
    block: int  # draws a block maximum stands for
    maxima: np.ndarray
    row: np.ndarray  # a copy of (some of) the row, free to be reordered
    x: np.ndarray  # candidates for the tail, then the tail relative to the maximum
    index: np.ndarray  # where in the row they stand
    x_spare: np.ndarray
    index_spare: np.ndarray
    bucket: np.ndarray  # for `_sort_tail`
    ends: np.ndarray
    excess: np.ndarray
    theta: np.ndarray  # the grid of the fit
    k: np.ndarray
    log_lik: np.ndarray
    e_block: np.ndarray  # for `_moments`
    u_block: np.ndarray
    a_sums: np.ndarray
    b_sums: np.ndarray


# Block maxima pay where there are at least two blocks for each draw of the tail: from n = 150000 on.
# Below, the row is one block.
_BLOCK_OF_MAXIMUM = 64


@_kernel
def _grid_size(m):
    return 30 + int(math.sqrt(m))


@_kernel
def _workspace(size, lengths):
    tail = 0
    for length in lengths:
        tail = max(tail, min(size, length))
    block = _BLOCK_OF_MAXIMUM
    if 2 * (tail + 1) * block > size:
        block = max(size, 1)
    grid = _grid_size(tail)
    return _Workspace(
        block,
        np.empty(size // block + 1),
        np.empty(size),
        np.empty(size + 1),  # one more: compression writes before it knows whether to keep
        np.empty(size + 1, np.int64),
        np.empty(tail),
        np.empty(tail, np.int64),
        np.empty(tail, np.int64),
        np.empty(tail + 2, np.int64),
        np.empty(tail + _LANES),
        np.empty(grid),
        np.empty(grid),
        np.empty(grid),
        np.empty(_BLOCK),
        np.empty(_BLOCK),
        np.empty(_ORDER + 1),
        np.empty(_ORDER + 1),
    )


# --------------------------------------------------------------------------------------
# The tail: the largest draws, in order of appearance
# --------------------------------------------------------------------------------------


@_kernel
def _partition(a, start, stop, pivot):
    """Move the entries above the pivot to the front of a[start:stop]; return where they end.

    Branch-free: a mispredicted branch an element costs more than the extra stores.
    """
    end = start
    for i in range(start, stop):
        x = a[i]
        a[i] = a[end]
        a[end] = x
        end += 1 if x > pivot else 0
    return end


@_kernel
def _median3(a, b, c):
    return max(min(a, b), min(max(a, b), c))


@_kernel
def _nth_largest(a, n, size):
    """The n-th largest (0-based) of a[:size] by quickselect; reorders a."""
    start = 0
    stop = size
    while stop - start > 16:
        step = (stop - start) // 9
        pivot = _median3(
            _median3(a[start], a[start + step], a[start + 2 * step]),
            _median3(a[start + 3 * step], a[start + 4 * step], a[start + 5 * step]),
            _median3(a[start + 6 * step], a[start + 7 * step], a[stop - 1]),
        )
        above = _partition(a, start, stop, pivot)
        if n < above:
            stop = above
            continue
        # The pivot is among a[above:stop]: drop all that equal it, so that ties cannot stall us.
        below = above
        for i in range(above, stop):
            x = a[i]
            a[i] = a[below]
            a[below] = x
            below += 1 if x == pivot else 0
        if n < below:
            return pivot
        start = below
    for i in range(start + 1, stop):
        x = a[i]
        j = i
        while j > start and a[j - 1] < x:
            a[j] = a[j - 1]
            j -= 1
        a[j] = x
    return a[n]


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


@_kernel
def _sort_tail(ws, tail):
    """Sort the tail in ws.x ascending and stably, carrying ws.index.

    A tail of log-weights is close to exponential, so the increasing map t / (t + mean) spreads it evenly
    over buckets; within them few draws are left to insert. Where one is crowded all are merged instead.
    """
    x, index, x_spare, index_spare = ws.x, ws.index, ws.x_spare, ws.index_spare
    size = tail.size
    mean = _mean(x[:size]) - tail.least
    ends, bucket = ws.ends, ws.bucket
    ends[: size + 2] = 0
    for i in range(size):
        place = 1.0 - mean / ((x[i] - tail.least) + mean)
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


_SELECTION_SAMPLE = 256
_SAMPLED_FROM = 2 * _SELECTION_SAMPLE


class _Tail(NamedTuple):
    """The tail that ws.x[:size] holds; all but size relative to the maximum of the row."""

    size: int
    cutoff: float  # the largest draw below the tail, -inf where it takes every draw of positive weight
    least: float
    quartile: float


@_kernel
def _quartile_rank(m):
    """Which order statistic of m excesses, counted from 0 and from below, [ZS] scale their grid by."""
    return int(m / 4 + 0.5) - 1


@_kernel
def _gather(ws, row, start, stop, least, count):
    """Append the entries >= least of row[start:stop] and their indices to ws.x, ws.index."""
    x, index = ws.x, ws.index
    for i in range(start, stop):
        value = row[i]
        x[count] = value
        index[count] = i
        count += 1 if value >= least else 0
    return count


@_kernel
def _select_tail(ws, row, high, n_finite, length):
    """Fill ws.x, ws.index with the min(length, n_finite) largest draws, in order of appearance.

    `_extent` has filled ws.maxima. Of draws that tie with the smallest one of the tail the last to appear
    belong to it, as in a stable ascending sort.
    """
    m = min(length, n_finite)
    size = row.size
    pool = ws.row
    blocks = (size - 1) // ws.block + 1
    count = 0
    if m < n_finite and blocks > m:
        # At least m + 1 draws reach the (m + 1)-th largest block maximum, and only blocks whose maximum
        # does hold any of them.
        _copy(ws.maxima[:blocks], pool)
        least = max(_nth_largest(pool, m, blocks), -_LARGEST)
        for b in range(blocks):
            if ws.maxima[b] >= least:
                count = _gather(ws, row, b * ws.block, min((b + 1) * ws.block, size), least, count)
    elif m < n_finite and size >= _SAMPLED_FROM:
        # An order statistic of a sample that m + 1 draws reach but for bad luck.
        step = size // _SELECTION_SAMPLE
        sampled = size // step
        for i in range(sampled):
            pool[i] = row[i * step]
        expected = (m + 1) * sampled / size
        rank = int(expected + 3.0 * math.sqrt(expected) + 1.0)
        if rank < sampled:
            least = max(_nth_largest(pool, rank, sampled), -_LARGEST)
            count = _gather(ws, row, 0, size, least, 0)
    if count <= m:
        count = _gather(ws, row, 0, size, -_LARGEST, 0)
    _copy(ws.x[:count], pool)
    cutoff = _nth_largest(pool, m, count) if m < count else -np.inf
    # The m largest now stand in front.
    least = np.inf
    for i in range(m):
        least = min(least, pool[i])
    quartile = least
    if m >= MIN_TAIL:
        quartile = _nth_largest(pool, m - 1 - _quartile_rank(m), m)
    ties = m
    for i in range(count):
        ties -= 1 if ws.x[i] > least else 0
    skip = -ties
    for i in range(count):
        skip += 1 if ws.x[i] == least else 0
    k = 0
    for i in range(count):
        value = ws.x[i]
        if value >= least:
            if value == least and skip > 0:
                skip -= 1
            else:
                ws.x[k] = value - high
                ws.index[k] = ws.index[i]
                k += 1
    return _Tail(m, cutoff - high, least - high, quartile - high)


# --------------------------------------------------------------------------------------
# Generalised Pareto fit [ZS], with the prior on k of [PSIS]
# --------------------------------------------------------------------------------------


@_kernel(fastmath=_SUMMATION)
def _product(x, theta):
    product = 1.0
    for i in range(x.size):
        product *= 1.0 - theta * x[i]
    return product


@_kernel(fastmath=_SUMMATION)
def _mean(x):
    total = 0.0
    for i in range(x.size):
        total += x[i]
    return total / x.size


# Excesses are padded with zeros to a multiple of this: a factor 1 - theta 0 changes no product, and a
# vectorised loop leaves no remainder to be multiplied one by one.
_LANES = 32


@_kernel
def _log_product(x, theta):
    """log of the product of 1 - theta x for x in [0, 1], the largest being 1, and theta < 1.

    As (mantissa, exponent) with the log being log(mantissa) + exponent log 2: one log for many factors.
    The extreme factor, that of x = 1, says how many can be multiplied before the product leaves the range
    of a float64, 2^-1022 to 2^1023.
    """
    extreme = abs((_bits(1.0 - theta) >> 52) - 1023) + 1
    group = max(1000 // extreme, 1)
    if group > _LANES:
        group -= group % _LANES
    mantissa = 1.0
    exponent = 0
    for start in range(0, x.size, group):
        bits = _bits(mantissa * _product(x[start : start + group], theta))
        exponent += (bits >> 52) - 1023
        mantissa = _from_bits((bits & _MANTISSA) | _ONE)
    return mantissa, exponent


@_kernel
def _mean_log1p(x, theta, m):
    """mean(log1p(-theta x)) over m excesses, x as in `_log_product`."""
    if abs(theta) < _SMALL_THETA:
        total = 0.0
        for i in range(m):
            total += math.log1p(-theta * x[i])
        return total / m
    mantissa, exponent = _log_product(x, theta)
    return (_log(mantissa) + exponent * _LN_2) / m


_SMALL_THETA = 1e-4  # nearer to 0 the rounding of 1 - theta x would show in its log


@_kernel(fastmath={"contract"})
def _profile(theta, k, exponent, m, mean):
    """From mantissa (in k) and exponent of each product to k and the profile log-likelihood (in exponent)."""
    for j in range(theta.size):
        mean_log = (_log(k[j]) + exponent[j] * _LN_2) / m
        shape = mean_log if abs(theta[j]) >= _SMALL_THETA else k[j]
        rate = -theta[j] / shape
        rate = rate if theta[j] != 0.0 else 1.0 / mean
        k[j] = shape
        exponent[j] = m * (_log(rate) - shape - 1.0)


@_kernel(fastmath={"contract"})
def _zhang_stephens_grid(theta, quartile):
    size = theta.size
    for j in range(size):
        theta[j] = 1.0 + (1.0 - math.sqrt(size / (j + 0.5))) / (3.0 * quartile)


_SMALLEST_QUARTILE = 1e-290


@_kernel
def _gpd_fit(ws, m, least, quartile, largest):
    """Fit m excesses ws.excess[:m], given three of their order statistics.

    Returns (fitted, k, sigma, variance of k), without a prior on k. The excesses are overwritten by their
    ratio to the largest. The variance is that of k under the quadrature's posterior for
    theta = -k/sigma, plus what k still varies at given theta: there log1p(-theta x) is exponential with
    mean k, so k^2 / m.
    """
    # Negated, so that a NaN is no fit.
    if not (m >= MIN_TAIL and least >= 0.0 and quartile > least and largest < np.inf):
        return False, np.nan, np.nan, np.nan
    quartile /= largest
    if not quartile > _SMALLEST_QUARTILE:  # theta, of the order of its inverse, would overflow
        return False, np.nan, np.nan, np.nan
    x = ws.excess[: m + (-m) % _LANES]
    for i in range(m):
        x[i] /= largest
    x[m:] = 0.0
    mean = _mean(x) * x.size / m
    size = _grid_size(m)
    theta, k, log_lik = ws.theta[:size], ws.k[:size], ws.log_lik[:size]
    _zhang_stephens_grid(theta, quartile)
    for j in range(size):
        if abs(theta[j]) < _SMALL_THETA:
            k[j] = _mean_log1p(x, theta[j], m)
        else:
            k[j], log_lik[j] = _log_product(x, theta[j])
    _profile(theta, k, log_lik, m, mean)
    top = -np.inf
    for j in range(size):
        top = max(top, log_lik[j])
    total = 0.0
    theta_hat = 0.0
    k_bar = 0.0
    weights = log_lik
    for j in range(size):
        weights[j] = _exp2((log_lik[j] - top) * _LOG2_E)
        total += weights[j]
        theta_hat += weights[j] * theta[j]
        k_bar += weights[j] * k[j]
    theta_hat /= total
    k_bar /= total
    variance = 0.0
    for j in range(size):
        variance += weights[j] / total * ((k[j] - k_bar) ** 2 + k[j] ** 2 / m)
    k_hat = _mean_log1p(x, theta_hat, m)
    sigma = -k_hat / theta_hat if theta_hat != 0.0 else mean
    fitted = abs(k_hat) < np.inf and abs(sigma) < np.inf
    return fitted, k_hat, sigma * largest, variance


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
    ws = _workspace(rows.shape[1], n)
    for r in range(rows.shape[0]):
        m = n[r]
        _copy(rows[r, :m], ws.excess)
        k[r] = np.nan
        sigma[r] = np.nan
        k_std_error[r] = np.nan
        if m < MIN_TAIL:
            continue
        least, quartile, largest = rows[r, 0], rows[r, _quartile_rank(m)], rows[r, m - 1]
        fitted, shape, scale, variance = _gpd_fit(ws, m, least, quartile, largest)
        if not fitted:
            k[r] = np.inf
            continue
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
def _state(high, low, n_finite, sound, n, gamma, eps):
    """The status that the weights w^gamma alone decide, or OK where the tail has to be looked at."""
    presence = _presence(n_finite, sound)
    if presence != OK:
        return presence
    # One draw with all the mass among others with none is not the flat, best case.
    if (n_finite > 1 or n == 1) and _is_flat(high, low, gamma, eps):
        return FLAT
    return OK


@_kernel
def _khat_without_fit(state):
    return -np.inf if state == FLAT else np.nan


@_kernel
def _excess(x, cutoff, gamma):
    """exp(gamma x) - exp(gamma cutoff) for cutoff <= x <= 0.

    As exp(b) (1 - exp(a - b)): no digit is lost where weights are nearly equal, nothing overflows where
    they are not, and a draw that ties with the cutoff has excess 0 whatever gamma.
    """
    return _one_minus_exp(gamma * (cutoff - x)) * _exp2(gamma * x * _LOG2_E)


@_kernel
def _excesses(x, cutoff, gamma, out):
    for i in range(x.size):
        out[i] = _excess(x[i], cutoff, gamma)


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
    fitted, k, sigma, _ = _gpd_fit(
        ws,
        m,
        _excess(tail.least, tail.cutoff, gamma),
        _excess(tail.quartile, tail.cutoff, gamma),
        _excess(0.0, tail.cutoff, gamma),
    )
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
    top = np.empty(1)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row, row.size, top)
        status[r] = _presence(n_finite, sound)
        if status[r] == NOT_FINITE or g != g:
            out[r, :] = np.nan
            continue
        shift = 0.0
        log_total = 0.0
        if normalize and n_finite > 0:
            shift = high
            total = float(n_finite)
            if g > 0.0:
                total, _, _ = _power_sums(row, high, g)
            log_total = math.log(total)
        for i in range(row.size):
            out[r, i] = _tempered(row[i] - shift, g) - log_total


KISH, PERPLEXITY, MAX = range(3)


@_kernel
def ess_rows(rows, gamma, kind, out, status):
    top = np.empty(1)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row, row.size, top)
        out[r] = np.nan
        status[r] = _presence(n_finite, sound)
        if status[r] != OK or g != g:
            continue
        if g == 0.0:
            out[r] = n_finite
            continue
        s1, s2, t1 = _power_sums(row, high, g)
        if kind == KISH:
            out[r] = _kish(s1, s2)
        elif kind == PERPLEXITY:
            out[r] = s1 * math.exp(-t1 / s1)
        else:
            out[r] = s1


# --------------------------------------------------------------------------------------
# khat, PSIS
# --------------------------------------------------------------------------------------


@_kernel
def khat_rows(rows, n, length, gamma, eps, khat, status):
    size = rows.shape[1]
    ws = _workspace(size, length)
    for r in range(rows.shape[0]):
        row = rows[r]
        high, low, n_finite, sound = _extent(row, ws.block, ws.maxima)
        state = _state(high, low, n_finite, sound, n[r], gamma[r], eps)
        khat[r] = _khat_without_fit(state)
        if state == OK and gamma[r] == gamma[r]:
            tail = _select_tail(ws, row, high, n_finite, length[r])
            state, khat[r], _ = _fit_tail(ws, tail, length[r], gamma[r])
        status[r] = state


@_kernel
def psis_rows(rows, n, length, gamma, eps, normalize, out, khat, ess, tail_length, status):
    size = rows.shape[1]
    ws = _workspace(size, length)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, low, n_finite, sound = _extent(row, ws.block, ws.maxima)
        state = _state(high, low, n_finite, sound, n[r], g, eps)
        khat[r] = _khat_without_fit(state)
        tail_length[r] = min(length[r], n_finite)
        if state == NOT_FINITE or state == NO_WEIGHT or g != g:
            out[r, :] = -np.inf if state == NO_WEIGHT else np.nan
            ess[r] = np.nan
            status[r] = state
            continue
        for i in range(size):
            out[r, i] = _tempered(row[i] - high, g)
        top = 0.0
        m = 0
        if state == OK:
            tail = _select_tail(ws, row, high, n_finite, length[r])
            state, khat[r], sigma = _fit_tail(ws, tail, length[r], g)
            if state == OK:
                m = tail.size
                _sort_tail(ws, tail)
                _smoothed_tail(khat[r], sigma, _tempered(tail.cutoff, g), ws.x[:m])
                for i in range(m):
                    out[r, ws.index[i]] = ws.x[i]
                top = ws.x[m - 1]
        s1, s2, _ = _power_sums(out[r], top, 1.0)
        ess[r] = _kish(s1, s2)
        status[r] = state
        if normalize:
            log_total = top + math.log(s1)
            for i in range(size):
                out[r, i] -= log_total
        else:
            for i in range(size):
                out[r, i] = _tempered(row[i], g)
            for i in range(m):
                out[r, ws.index[i]] = g * high + ws.x[i]


# --------------------------------------------------------------------------------------
# Self-normalised estimates
# --------------------------------------------------------------------------------------


@_kernel(fastmath=_SUMMATION)
def _weighted_sum(weights, h):
    total = 0.0
    for i in range(h.size):
        e = weights[i]
        total += e * h[i] if e != 0.0 else 0.0
    return total


@_kernel(fastmath=_SUMMATION)
def _weighted_residuals(weights, h, centre):
    squares = 0.0
    pull = 0.0
    for i in range(h.size):
        e = weights[i]
        residual = e * (h[i] - centre) if e != 0.0 else 0.0
        squares += residual * residual
        pull += e * residual
    return squares, pull


@_kernel
def moment_rows(rows, gamma, h, estimate, std_error, bias, ess, status):
    """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened.

    With wbar the normalised weights: estimate sum wbar h, delta-method variance
    sum wbar^2 (h - estimate)^2, bias -sum wbar^2 (h - estimate). A draw of zero weight is not looked
    at: its h may be anything.
    """
    size = rows.shape[1]
    d = estimate.shape[1]
    weights = np.empty(size)
    top = np.empty(1)
    for r in range(rows.shape[0]):
        row = rows[r]
        g = gamma[r]
        high, _, n_finite, sound = _extent(row, row.size, top)
        status[r] = _presence(n_finite, sound)
        if status[r] != OK or g != g:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            ess[r] = np.nan
            continue
        for i in range(size):
            v = _LOG2_E * _tempered(row[i] - high, g)
            weights[i] = _exp2(v) if v > _LOWEST else 0.0
        s1 = 0.0
        s2 = 0.0
        for i in range(size):
            s1 += weights[i]
            s2 += weights[i] * weights[i]
        ess[r] = _kish(s1, s2)
        if d == 1:
            estimate[r, 0] = _weighted_sum(weights, h[r]) / s1
            squares, pull = _weighted_residuals(weights, h[r], estimate[r, 0])
            std_error[r, 0] = math.sqrt(squares) / s1
            bias[r, 0] = -pull / (s1 * s1)
            continue
        estimate[r, :] = 0.0
        std_error[r, :] = 0.0
        bias[r, :] = 0.0
        for i in range(size):
            e = weights[i]
            if e != 0.0:
                part = h[r, i * d : (i + 1) * d]
                for j in range(d):
                    estimate[r, j] += e * part[j]
        for j in range(d):
            estimate[r, j] /= s1
        for i in range(size):
            e = weights[i]
            if e != 0.0:
                part = h[r, i * d : (i + 1) * d]
                for j in range(d):
                    residual = e * (part[j] - estimate[r, j])
                    std_error[r, j] += residual * residual
                    bias[r, j] -= e * residual
        for j in range(d):
            std_error[r, j] = math.sqrt(std_error[r, j]) / s1
            bias[r, j] /= s1 * s1


# --------------------------------------------------------------------------------------
# gamma by ESS
# --------------------------------------------------------------------------------------

# ESS is brought to [target, target (1 + _ESS_TOLERANCE)], aiming inside, so that the constraint holds
# for whoever computes ESS at the chosen gamma again.
_ESS_TOLERANCE = 4e-11
_ESS_AIM = 5e-12
_MODEL_ERROR = 1e-12
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
def _log_ess(ws, delta):
    """log ESS and its derivative at gamma (1 + delta), from the `_moments` at gamma.

    e^(1 + delta) is e times the exponential series of delta t, so its sums are series in the moments; the
    factor of the centre cancels in ESS.
    """
    a, a_slope = _series(ws.a_sums, delta)
    b, b_slope = _series(ws.b_sums, 2.0 * delta)
    return 2.0 * math.log(a) - math.log(b), 2.0 * (a_slope / a - b_slope / b)


@_kernel
def _model_step(ws, reach, log_target):
    """(delta that brings ESS to the target, a bound on how far log ESS is from it there).

    The first power left out is at most abs(delta)^7 / 7! times reach, the largest abs(t - centre), times
    the sixth moment; what follows it adds at most a factor exp(abs(delta) reach).
    """
    delta = 0.0
    for _ in range(12):
        value, slope = _log_ess(ws, delta)
        step = (log_target - value) / slope
        delta += step
        if not abs(delta) < 0.5:
            return np.nan, np.inf
        if abs(step) < 1e-15:
            break
    value, _ = _log_ess(ws, delta)
    unsolved = abs(log_target - value)
    d = abs(delta)
    error = 2.0 * d**7 * ws.a_sums[6] / ws.a_sums[0] * math.exp(min(d * reach, 700.0))
    d *= 2.0
    error += d**7 * ws.b_sums[6] / ws.b_sums[0] * math.exp(min(d * reach, 700.0))
    return delta, error * reach / 7.0 + unsolved


@_kernel
def _ess_root(ws, row, high, low, n_finite, target, start, centre, gamma_max, error):
    """The largest gamma in (0, gamma_max] with ESS >= target, ESS there, and centre / gamma.

    Needs a row that is not flat. From the moments at one gamma the series `_log_ess` gives ESS near it;
    where its error is below `error` that is the answer, and no pass is spent to confirm it. Far from the
    root steps are Newton's on u = sqrt(log(n_finite / ESS)), which is proportional to gamma for log-normal
    weights. All is kept in a bracket: where all gamma * row lie within a range R, ESS >=
    n_finite exp(-R) (Kantorovich), and ESS never grows with gamma.
    """
    log_target = math.log(target) + _ESS_AIM
    aim = math.log(n_finite) - log_target
    if aim <= 0.0:
        return 0.0, float(n_finite), centre
    half_range = 0.5 * high - 0.5 * low
    feasible = min(0.5 * aim / half_range, gamma_max)
    feasible_ess = np.nan
    infeasible = np.inf
    aim = math.sqrt(aim)
    gamma = max(feasible, _SMALLEST_GAMMA)
    if start > gamma:  # not where it is NaN
        gamma = min(start, gamma_max)
    for step in range(_MAX_STEPS):
        middle = gamma * centre
        middle = middle if -700.0 < middle < 0.0 else 0.0
        _moments(row, high, gamma, middle, ws)
        a, b = ws.a_sums, ws.b_sums
        centre = (middle + a[1] / a[0]) / gamma
        ess = _kish(a[0], b[0])
        if ess >= target:
            feasible = gamma
            feasible_ess = ess
            if gamma >= gamma_max or ess <= target * (1.0 + _ESS_TOLERANCE):
                break
        else:
            infeasible = gamma
        reach = max(min(2.0 * gamma * half_range, 708.0) + middle, -middle)
        delta, model_error = _model_step(ws, reach, log_target)
        near = gamma * (1.0 + delta)
        if model_error <= error and feasible <= near <= infeasible and near <= gamma_max:
            value, _ = _log_ess(ws, delta)
            return near, math.exp(value), centre
        u = math.sqrt(max(math.log(n_finite / ess), 0.0))
        following = gamma * (1.0 + (aim - u) * u / (b[1] / b[0] - a[1] / a[0]))
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
        if not feasible < gamma < infeasible:
            break
    if feasible_ess != feasible_ess:
        feasible_ess = _kish_ess(row, high, n_finite, feasible)
        if not feasible_ess >= target:  # a range beyond float64: only gamma = 0 is left
            return 0.0, float(n_finite), centre
    return feasible, feasible_ess, centre


@_kernel(fastmath=_SUMMATION)
def _mean_and_spread(row, high, n_finite):
    """Mean and standard deviation of the finite entries less high; scales, so they may overflow."""
    total = 0.0
    squares = 0.0
    for i in range(row.size):
        d = row[i] - high if row[i] > -np.inf else 0.0
        total += d
        squares += d * d
    mean = total / n_finite
    return mean, math.sqrt(max(squares / n_finite - mean * mean, 0.0))


# A sample is made of runs of this many draws, evenly spread: whole cache lines, unlike single draws.
_RUN = 64
_SAMPLE = 2048
_SAMPLE_ERROR = 1e-3


@_kernel
def _ess_limit(ws, row, high, low, n_finite, target, gamma_max):
    """As `_ess_root`: (gamma, ESS). A long row is started from the root of an eighth of it, and so on."""
    gamma_max = min(gamma_max, _LARGEST_GAMMA)
    stride = 1
    while row.size // stride > 8 * _SAMPLE:
        stride *= 8
    start = np.nan
    centre = 0.0
    while True:
        if stride == 1:
            part, top, bottom, count = row, high, low, n_finite
        else:
            size = 0
            for i in range(0, row.size - _RUN + 1, _RUN * stride):
                _copy(row[i : i + _RUN], ws.row[size:])
                size += _RUN
            part = ws.row[:size]
            top, bottom, count, _ = _extent(part, size, ws.maxima[-1:])
        if count > 1 and top > bottom:
            share = target * (count / n_finite)
            if start != start:
                mean, spread = _mean_and_spread(part, top, count)
                start = math.sqrt(max(math.log(count / share), 0.0)) / spread
                centre = mean + start * spread * spread
            error = _MODEL_ERROR if stride == 1 else _SAMPLE_ERROR
            start, ess, centre = _ess_root(
                ws, part, top, bottom, count, share, start, centre, gamma_max, error
            )
        if stride == 1:
            return start, ess
        stride //= 8


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
def select_rows(
    rows,
    n,
    length,
    k_max,
    ess_min,
    gamma_max,
    refit,
    eps,
    gamma,
    gamma_psis,
    gamma_ess,
    khat,
    khat_tempered,
    ess,
    limit,
    status,
):
    size = rows.shape[1]
    ws = _workspace(size, length)
    for r in range(rows.shape[0]):
        row = rows[r]
        high, low, n_finite, sound = _extent(row, ws.block, ws.maxima)
        state = _state(high, low, n_finite, sound, n[r], 1.0, eps)
        khat[r] = _khat_without_fit(state)
        if state == NOT_FINITE or state == NO_WEIGHT:
            gamma[r] = np.nan
            gamma_psis[r] = np.nan
            gamma_ess[r] = np.nan
            khat_tempered[r] = np.nan
            ess[r] = np.nan
            limit[r] = BY_NONE
            status[r] = state
            continue
        tail = _Tail(0, np.nan, np.nan, np.nan)
        if state == OK:
            tail = _select_tail(ws, row, high, n_finite, length[r])
            state, khat[r], _ = _fit_tail(ws, tail, length[r], 1.0)

        # ESS first: the largest gamma that it allows, and the ESS there.
        target = ess_min * n[r]
        if n_finite / n[r] < ess_min:
            gamma_ess[r], ess[r] = 0.0, n_finite
        elif state == FLAT or n_finite == 1:
            gamma_ess[r] = gamma_max
            ess[r] = _kish_ess(row, high, n_finite, min(gamma_max, _LARGEST_GAMMA))
        else:
            gamma_ess[r], ess[r] = _ess_limit(ws, row, high, low, n_finite, target, gamma_max)
            if gamma_ess[r] >= min(gamma_max, _LARGEST_GAMMA):
                gamma_ess[r] = gamma_max

        # A khat that is unknown or infinite gives no limit; the status tells.
        gamma_psis[r] = np.inf
        gamma[r] = gamma_ess[r]
        if refit:
            if state != FLAT and gamma_ess[r] > 0.0:
                gamma_psis[r] = _refit_psis(ws, tail, length[r], k_max[r], gamma_ess[r], gamma_max)
        elif 0.0 < khat[r] < np.inf:
            gamma_psis[r] = max(k_max[r], 0.0) / khat[r]

        if gamma_psis[r] < gamma[r]:
            gamma[r] = gamma_psis[r]
            limit[r] = BY_PSIS
            ess[r] = _kish_ess(row, high, n_finite, gamma[r])
        elif gamma[r] < gamma_max:
            limit[r] = BY_ESS
        else:
            limit[r] = BY_MAX

        tempered = _state(high, low, n_finite, sound, n[r], gamma[r], eps)
        khat_tempered[r] = _khat_without_fit(tempered)
        if tempered == OK:
            _, khat_tempered[r], _ = _fit_tail(ws, tail, length[r], gamma[r])
        status[r] = INFEASIBLE if n_finite / n[r] < ess_min else state
