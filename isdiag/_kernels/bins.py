"""Log-weights in bins on one grid, the same for all: of them come the sums of any power of the weights.

A bin [key, key + 1) 2^level holds the sums of z^k, k = 0 to 7, over its draws, z in [-1, 1) being their place
in it. Its level is the largest at which its width is at most 1/63 of the depth of its upper edge below the
largest log-weight of all. So the bins depend on the draws alone, not on the order and the parts in which they
come: as the largest log-weight grows bins join, and none has ever to be cut.

At depth d weights matter while gamma d < log n. Half the width of a bin times gamma is then a < 0.22 for
n = 1e12, and the polynomial of degree 7 that stands for exp(a z) is within 2e-12 of it, whatever gamma and
the scale of the log-weights.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types

from isdiag._kernels._jit import entry, inner, llvm
from isdiag._kernels.bits import bits_of, exponent_of, float_of, power_of_two, splat
from isdiag._kernels.sums import BLOCK

POWERS = 8  # of z: a cache line
_DEPTHS = 63.0  # a bin is at most 1/63 as wide as it lies deep
_COARSEST = 1018  # level of depths that overflow


@llvm(lambda sums, place, z: np.add(sums[place], np.float64(z) ** np.arange(POWERS), out=sums[place]))
def _add_powers(typingctx, sums, place, z):
    """Add 1, z, ... z^7 to sums[place]."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        start = builder.mul(args[1], args[1].type(POWERS))
        vector = ir.VectorType(ir.DoubleType(), POWERS)
        memory = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
        ones = ir.Constant(vector, [1.0] * POWERS)
        bits = ir.VectorType(ir.IntType(1), POWERS)
        power, term = args[2], ones
        for step in (1, 2, 4):
            where = ir.Constant(bits, [bool(k & step) for k in range(POWERS)])
            term = builder.fmul(term, builder.select(where, splat(builder, power, POWERS), ones))
            power = builder.fmul(power, power)
        before = builder.load(memory)
        before.align = 8
        builder.store(builder.fadd(before, term), memory).align = 8
        return context.get_dummy_value()

    return types.void(sums, types.int64, types.float64), codegen


# Draws go to slots first: a group of them for each octave of depth, each slot within one bin. 64 to an octave
# stay in the first cache: 2.1 ns a draw, where 256 to two of them took 2.9.
SLOTS = 136  # of a group: 129, and what makes whole cache lines
GROUPS = 1080  # octaves from the finest to that of depths that overflow
_FINEST = -54  # the octave in which all nearer draws are; they are equal for any gamma below 1e3


@inner
def _finest_octave(high):
    """The octave whose slots hold one float each, as narrow as floats below the largest are apart."""
    return max(exponent_of(high) - 47, _FINEST)


@inner
def finest_level(high):
    return _finest_octave(high) - 6


@inner
def _place_draws(part, high, finest, place, z):
    """Where each draw of a block goes: group and slot in one number, -1 for a draw of zero weight."""
    for i in range(part.size):
        finite = part[i] > -np.inf
        x = part[i] if finite else high
        octave = max((bits_of(high - x) >> 52) - 1023, finest)
        per_unit = float_of((1029 - octave) << 52)  # one over the width of a slot, 2^(octave - 6)
        scaled = x * per_unit
        key = np.floor(scaled)
        z[i] = 2.0 * (scaled - key) - 1.0
        where = ((octave - _FINEST) << 10) + np.int64(np.floor(high * per_unit) - key)
        place[i] = where if finite else -1


@entry
def fill_slots(row, high, homes, used, slots):
    """Add the draws of a row, none above high, to the slots; returns how many groups they are of.

    homes[group] is where in the slots a group lies, -1 where it lies nowhere yet; used lists the groups.
    """
    finest = _finest_octave(high)
    place, z = np.empty(BLOCK, np.int64), np.empty(BLOCK)
    count = 0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _place_draws(part, high, finest, place, z)
        for i in range(part.size):
            if place[i] < 0:
                continue
            group = place[i] >> 10
            if homes[group] < 0:
                homes[group] = count
                used[count] = group
                count += 1
            _add_powers(slots, homes[group] * SLOTS + (place[i] & 1023), z[i])
    return count


@inner
def _bin_of(level, key, high):
    """Level of the bin that the interval [key, key + 1) 2^level is in."""
    while level < _COARSEST:
        width = power_of_two(level + 1)
        if _DEPTHS * width > high - ((key >> 1) + 1) * width:
            break
        level += 1
        key >>= 1
    return level


_BINOMIAL = np.array([[float(math.comb(n, k)) for k in range(POWERS)] for n in range(POWERS)])


@inner(counted=True)
def _add_interval(level, key, sums, high, bins_level, bins_key, bins_sums, count):
    """Add the sums over an interval to the bin it is in, the last of so many or a new one."""
    up = _bin_of(level, key, high) - level
    home = key >> min(up, 63)
    if count == 0 or bins_level[count - 1] != level + up or bins_key[count - 1] != home:
        bins_level[count] = level + up
        bins_key[count] = home
        bins_sums[count, :] = 0.0
        count += 1
    total = bins_sums[count - 1]
    if up == 0:
        for k in range(POWERS):
            total[k] += sums[k]
        return count
    # z in the bin is shrink z + shift.
    shrink = power_of_two(-min(up, 1022))
    shift = 2.0 * (key * shrink - home) + shrink - 1.0
    shrunk = np.empty(POWERS)
    power = 1.0
    for k in range(POWERS):
        shrunk[k] = power * sums[k]
        power *= shrink
    for n in range(POWERS):
        term = 0.0
        power = 1.0  # shift^(n - k)
        for k in range(n, -1, -1):
            term += _BINOMIAL[n, k] * power * shrunk[k]
            power *= shift
        total[n] += term
    return count


@entry
def empty_slots(high, homes, used, slots, bins_level, bins_key, bins_sums):
    """Move the sums of the groups in `used`, ascending, to bins, ascending too; returns how many."""
    count = 0
    for i in range(used.size - 1, -1, -1):
        octave = used[i] + _FINEST
        first = np.int64(np.floor(high * float_of((1029 - octave) << 52)))
        sums = slots[homes[used[i]] * SLOTS : (homes[used[i]] + 1) * SLOTS]
        homes[used[i]] = -1
        for slot in range(SLOTS - 1, -1, -1):
            if sums[slot, 0] > 0.0:
                count = _add_interval(
                    octave - 6, first - slot, sums[slot], high, bins_level, bins_key, bins_sums, count
                )
                sums[slot, :] = 0.0
    return count


@entry
def join_bins(a_level, a_key, a_sums, b_level, b_key, b_sums, high, bins_level, bins_key, bins_sums):
    """The bins of all draws, in ascending order, from those of two parts; returns how many."""
    count = i = j = 0
    while i < a_level.size or j < b_level.size:
        if j == b_level.size or (
            i < a_level.size and a_key[i] * power_of_two(a_level[i]) <= b_key[j] * power_of_two(b_level[j])
        ):
            level, key, sums = a_level[i], a_key[i], a_sums[i]
            i += 1
        else:
            level, key, sums = b_level[j], b_key[j], b_sums[j]
            j += 1
        count = _add_interval(level, key, sums, high, bins_level, bins_key, bins_sums, count)
    return count
