"""Prefetching: tell the processor what will be read soon.

Key insight: a read that misses the caches takes as long as hundreds of instructions, but many can be under way at once,
if it is known early what they are. So random look-ups are announced for many items before the first is made.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic


@intrinsic
def _prefetch(_context, array, place):
    """Announce that array[place] of a contiguous array of one axis will be read; changes nothing."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(call, [pointer, number(0), number(3), number(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch: Any = _prefetch
