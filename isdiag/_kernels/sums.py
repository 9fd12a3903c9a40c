"""Sums in an order that is fixed here, and the blocks and segments that they are made of."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from isdiag._kernels._jit import entry, inner, llvm
from isdiag._kernels.bits import load

# Typed: Numba would compile a callee anew for each literal int it is given.
NO_DRAWS = np.int64(0)
EVERY = np.int64(1)  # block of a row, and not each so many

# LLVM vectorises a sum only if it may choose its order. It then chose another one each time it optimised
# a copy of a function: a first run, which links other copies than the next, differed from it in the last
# bit. So sums are vectors of partial sums by design, whatever the vectors of the machine.


class _Products:
    """As the builder of LLVM, for arrays."""

    @staticmethod
    def fmul(x, y, **_):
        return x * y


def _fold(builder, join, vector):
    """Lanes joined pairwise, a lane of the lower half with one of the upper."""
    width = vector.type.count
    while width > 1:
        width //= 2
        halves = (list(range(start, start + width)) for start in (0, width))
        index = ir.VectorType(ir.IntType(32), width)
        vector = join(*(builder.shuffle_vector(vector, vector, ir.Constant(index, half)) for half in halves))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _lane_sums(lanes, terms):
    """An intrinsic of (x, y, size): the sums of what `terms` makes of x and y.

    size must be a multiple of lanes.
    """

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
            x, y = (load(builder, data, start, lanes) for data in arrays)
            for total, term in zip(totals, terms(builder, x, y), strict=True):
                builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
        sums = [_fold(builder, builder.fadd, builder.load(total)) for total in totals]
        return context.make_tuple(builder, signature.return_type, sums)

    def twin(x, y, size):
        return tuple(term.sum() for term in terms(_Products, x[:size], y[:size]))

    @llvm(twin)
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


def _product(builder, x, y):
    return [builder.fmul(x, y, flags=["contract"])]


_product.count = 1


def _square_and_product(builder, x, y):
    """x^2, x y."""
    return [builder.fmul(x, factor, flags=["contract"]) for factor in (x, y)]


_square_and_product.count = 2


def _to_the_fourth(builder, x, y):
    """x, y, x^2, x y, y^2, x^3, x^2 y, x y^2, y^3, x^4, x^3 y, x^2 y^2, x y^3, y^4."""

    def product(a, b):
        return builder.fmul(a, b, flags=["contract"])

    xx, xy, yy = product(x, x), product(x, y), product(y, y)
    third = product(xx, x), product(xx, y), product(x, yy), product(yy, y)
    fourth = product(xx, xx), product(xx, xy), product(xx, yy), product(xy, yy), product(yy, yy)
    return [x, y, xx, xy, yy, *third, *fourth]


_to_the_fourth.count = 14


def _own_powers(builder, x, y):
    """x, x^2, x^3, x^4."""
    square = builder.fmul(x, x, flags=["contract"])
    cube, fourth = (builder.fmul(square, factor, flags=["contract"]) for factor in (x, square))
    return [x, square, cube, fourth]


_own_powers.count = 4
LANES = 32  # excesses and blocks are padded with zeros to a multiple
GRID_LANES = 8  # the grid of a fit is padded to a multiple
ORDER = 6  # of the series that the search for an ESS goes by
MOMENTS = 2 * (ORDER + 1)
product_sum = _lane_sums(LANES, _product)
pair_sums = _lane_sums(LANES, _powers_of_y(1))
square_sums = _lane_sums(LANES, _square_and_product)
grid_sums = _lane_sums(GRID_LANES, _powers_of_y(1))
own_power_sums = _lane_sums(LANES, _own_powers)
fourth_sums = _lane_sums(8, _to_the_fourth)
moment_sums = _lane_sums(GRID_LANES, _powers_of_y(ORDER))


@llvm(lambda x, size: (x[:size].max(), x[:size].min(), x[:size].sum()))
def extremes(typingctx, x, size):
    """(largest, smallest, sum) of LANES entries or more, of which some may be taken twice; if all are finite.

    If not, the sum is not finite. As vectors, since LLVM makes none of a loop unless NaN may be anything.
    """

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def smaller(a, b):
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        joins = larger, smaller, builder.fadd
        length = args[1].type
        last = builder.sub(args[1], length(LANES))
        kept = [cgutils.alloca_once_value(builder, load(builder, data, length(0), LANES)) for _ in joins]

        def add(start):
            values = load(builder, data, start, LANES)
            for join, slot in zip(joins, kept, strict=True):
                builder.store(join(values, builder.load(slot)), slot)

        steps = cgutils.for_range_slice(builder, length(LANES), last, length(LANES), length)
        with steps as (start, _):
            add(start)
        add(last)
        found = [_fold(builder, join, builder.load(slot)) for join, slot in zip(joins, kept, strict=True)]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float64, 3)(x, types.int64), codegen


# Rows are worked on in blocks that stay in the first cache. Long sums are sums of segment sums, which
# are sums of block sums: the rounding error grows with their number and not with that of draws, and
# their bits do not depend on who computes which segment.
BLOCK = 1024
_BLOCKS_A_SEGMENT = 64
SEGMENT = _BLOCKS_A_SEGMENT * BLOCK


@entry
def segments_of(size, stride):
    """How many segments every stride-th block of that many draws make."""
    return (size - 1) // (stride * SEGMENT) + 1


@inner
def first_draws(size, stride, segment):
    """Where the blocks of a segment begin."""
    step = stride * BLOCK
    first = segment * _BLOCKS_A_SEGMENT * step
    return range(first, min(first + _BLOCKS_A_SEGMENT * step, size), step)


@entry
def total_of(sums, segments, total):
    """Add up the rows of sums, in order."""
    total[:] = 0.0
    for segment in range(segments):
        for j in range(total.size):
            total[j] += sums[segment, j]


@inner
def padded(size, lanes):
    return size + (-size) % lanes


@inner
def pad(x, size):
    """Append zeros to x[:size] up to a multiple of LANES; return how many entries there are then."""
    end = padded(size, LANES)
    for i in range(size, end):
        x[i] = 0.0
    return end


@inner
def copy(source, target):
    # target[:n] = source would have Numba compile its shape errors: 3 s of a first call
    for i in range(source.size):
        target[i] = source[i]
