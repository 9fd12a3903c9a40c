"""The bits of a float64, and vectors of them: what Numba has no name for."""

import numpy as np
from llvmlite import ir
from numba import types

from isdiag._kernels._jit import inner, llvm

LARGEST = np.finfo(np.float64).max


@llvm(lambda x: np.float64(x).view(np.int64))
def bits_of(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@llvm(lambda i: np.int64(i).view(np.float64))
def float_of(typingctx, i):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@llvm(lambda word: f"{word:b}"[::-1].index("1"))
def trailing_zeros(typingctx, word):
    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@llvm(lambda word: f"{word:b}".count("1"))
def ones_of(typingctx, word):
    """How many bits of a word are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


WORD = 64


def load(builder, data, start, lanes):
    scalar = data.type.pointee
    vector = ir.VectorType(scalar, lanes)
    values = builder.load(builder.bitcast(builder.gep(data, [start]), vector.as_pointer()))
    values.align = 4 if scalar == ir.FloatType() else 8
    return values


def splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    )


@llvm(lambda row, i, bound: np.packbits(row[i : i + WORD] >= bound, bitorder="little").view(np.uint64)[0])
def reach_bound(typingctx, row, start, bound):
    """Bit i of a word: whether row[start + i] >= bound. LLVM makes no such mask of a loop by itself."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        values = load(builder, data, args[1], WORD)
        bounds = splat(builder, args[2], WORD)
        return builder.bitcast(builder.fcmp_ordered(">=", values, bounds), ir.IntType(WORD))

    return types.uint64(row, types.int64, types.float64), codegen


_MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)
MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
ONE = np.int64(0x3FF0000000000000)  # bits of 1.0


@inner
def order_key(x):
    """An integer that orders as float64 does, NaNs outermost: integer min and max vectorise."""
    i = bits_of(x)
    return i ^ ((i >> 63) & _MAGNITUDE)


@inner
def from_order_key(key):
    return float_of(key ^ ((key >> 63) & _MAGNITUDE))


@inner
def negative_or(x, a, b):
    """a where x < 0, else b, as bits: LLVM would make a conditional of costly a and b a branch."""
    negative = bits_of(x) >> 63
    return float_of((bits_of(a) & negative) | (bits_of(b) & ~negative))


@inner
def exponent_of(x):
    """The e of a finite x = 1.f 2^e; -1023 for 0 and what is smaller than that form allows."""
    return ((bits_of(x) >> 52) & 0x7FF) - 1023


@inner
def power_of_two(exponent):
    """2.0^exponent, from -1022 to 1023."""
    return float_of(np.int64(exponent + 1023) << 52)


KEY_MAX = np.int64(0x7FEFFFFFFFFFFFFF)  # largest finite float64
KEY_NEG_INF = np.int64(-0x7FF0000000000001)
KEY_TOP = np.int64(0x7FFFFFFFFFFFFFFF)
