"""Instructions on vectors of float32 that the compiler does not find by itself; for `winograd` and `fragments`.

Two pieces of code are written out for it, each for addresses and strides in bytes: a product of small matrices whose
result stays in registers, and a small constant matrix applied to some vectors. A vector holds 16 numbers where the
processor has AVX-512, else 8 (two registers where they are shorter).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_FEATURES = binding.get_host_cpu_features()
WIDE = bool(_FEATURES.get("avx512f"))
FUSED = bool(_FEATURES.get("fma") or _FEATURES.get("neon"))  # multiplies and adds in one instruction
LANES = 16 if WIDE else 8
ROWS = (12, 12, 8, 6) if WIDE else (12, 6, 4)
"""Rows of the result that stay in registers, by the vectors (1, 2 ...) of a row."""
_INT, _INT32, _FLOAT, _ADDRESS = ir.IntType(64), ir.IntType(32), ir.FloatType(), ir.PointerType()
_VECTOR, _MASK = ir.VectorType(_FLOAT, LANES), ir.VectorType(ir.IntType(1), LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


class _Emitter:
    """Writes code into a function under construction."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        kinds = {
            "fma": ir.FunctionType(_VECTOR, [_VECTOR] * 3),
            "masked.load": ir.FunctionType(_VECTOR, [_ADDRESS, _INT32, _MASK, _VECTOR]),
            "masked.store": ir.FunctionType(ir.VoidType(), [_VECTOR, _ADDRESS, _INT32, _MASK]),
        }
        self.functions = {
            name: cgutils.get_or_insert_function(
                builder.module, kind, f"llvm.{name}.v{LANES}f32{'.p0' if 'masked' in name else ''}"
            )
            for name, kind in kinds.items()
        }

    def at(self, start: Any, stride: Any, times: int) -> Any:
        """Address start + stride · times."""
        return self.builder.add(start, self.builder.mul(stride, ir.Constant(_INT, times)))

    def splat(self, value: Any) -> Any:
        """Vector of one value."""
        kind = ir.VectorType(value.type, LANES)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT32, 0))
        order = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), order)

    def first(self, count: Any) -> Any:
        """Mask of the first `count` numbers of a vector."""
        order = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))
        return self.builder.icmp_signed("<", order, self.splat(self.builder.trunc(count, _INT32)))

    def load(self, address: Any, mask: Any = None, kind: Any = _VECTOR) -> Any:
        """Read a vector, or one number; zeros where it is masked."""
        if mask is None:
            return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=4)
        pointer = self.builder.inttoptr(address, _ADDRESS)
        return self.builder.call(self.functions["masked.load"], [pointer, ir.Constant(_INT32, 4), mask, _ZERO])

    def store(self, value: Any, address: Any, mask: Any = None) -> None:
        """Write a vector, but what is masked."""
        if mask is None:
            self.builder.store(value, self.builder.inttoptr(address, _VECTOR.as_pointer()), align=4)
        else:
            pointer = self.builder.inttoptr(address, _ADDRESS)
            self.builder.call(self.functions["masked.store"], [value, pointer, ir.Constant(_INT32, 4), mask])

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Vector a·b + c."""
        return self.builder.call(self.functions["fma"], [a, b, c])

    def dot(self, row: NDArray[Any], vectors: list[Any], first: Any = None) -> Any:
        """Sum of vectors times constants, and of `first`."""
        total = first
        for factor, vector in zip(map(float, np.float32(row)), vectors):
            constant = ir.Constant(_VECTOR, [factor] * LANES)
            if factor and total is None:
                total = vector if factor == 1 else self.builder.fmul(vector, constant)
            elif factor:
                total = self.builder.fadd(total, vector) if factor == 1 else self.fma(vector, constant, total)
        return total

    def apply(self, matrix: NDArray[Any], given: list[Any], first: Any) -> list[Any]:
        """Matrix times vectors; where points ±a stand next to each other, with half of the products.

        Two such rows of a tall matrix, or columns of a wide one, differ in the signs of every other number alone.
        """
        tall = matrix.shape[0] >= matrix.shape[1]
        lines = matrix if tall else matrix.T
        flipped = lines * (-1.0) ** np.arange(lines.shape[1])
        pairs = [i for i in range(len(lines) - 1) if lines[i, 1] and np.allclose(flipped[i], lines[i + 1])]
        if tall:
            made: dict[int, Any] = {}
            for i in pairs:
                even, odd = self.dot(matrix[i, ::2], given[::2]), self.dot(matrix[i, 1::2], given[1::2])
                made |= {i: self.builder.fadd(even, odd), i + 1: self.builder.fsub(even, odd)}
            return [made[i] if i in made else self.dot(row, given) for i, row in enumerate(matrix)]
        left = [j for j in range(len(given)) if j - 1 not in pairs]
        by_sign = [[add(given[j], given[j + 1]) if j in pairs else given[j] for j in left]
                   for add in (self.builder.fadd, self.builder.fsub)]  # fmt: skip
        return [self.dot(row[left], by_sign[i % 2], first) for i, row in enumerate(matrix)]

    def loop(self, body: Callable[[list[Any]], list[Any]], start: list[Any], stop: Any) -> list[Any]:
        """Run `body(values)`, which returns the next values, until the first of them reaches `stop`."""
        before, inside = self.builder.block, self.builder.append_basic_block("loop")
        self.builder.branch(inside)
        self.builder.position_at_end(inside)
        values = [self.builder.phi(value.type) for value in start]
        after = body(values)
        for value, first, following in zip(values, start, after):
            value.add_incoming(first, before)
            value.add_incoming(following, self.builder.block)
        done = self.builder.append_basic_block("done")
        self.builder.cbranch(self.builder.icmp_signed("<", after[0], stop), inside, done)
        self.builder.position_at_end(done)
        return after


@intrinsic(prefer_literal=True)
def _product(_context, rows, vectors, near, a, a_row, a_step, b, b_step, c, c_row, depth, more):
    """Write, or with `more` add, to c[row] the sum over the depth of a[row, depth] · b[depth].

    Rows of b and c are `vectors` vectors long. With `near`, numbers of neighbouring rows of a are neighbours.
    """
    if not all(isinstance(one, types.IntegerLiteral) for one in (rows, vectors, near)):
        return None
    high, wide = rows.literal_value, vectors.literal_value

    def generate(context, builder, signature, args):
        a, a_row, a_step, b, b_step, c, c_row, depth, more = args[3:]
        emit, bytes_ = _Emitter(builder), ir.Constant(_INT, 4 * LANES)
        step = ir.Constant(_INT, 4) if near.literal_value else a_row

        def body(values):
            i, left, right, *sums = values
            row = [emit.load(emit.at(right, bytes_, v)) for v in range(wide)]
            made = []
            for r in range(high):
                factor = emit.splat(emit.load(emit.at(left, step, r), kind=_FLOAT))
                made += [emit.fma(factor, row[v], sums[r * wide + v]) for v in range(wide)]
            return [builder.add(i, _INT(1)), builder.add(left, a_step), builder.add(right, b_step), *made]

        sums = emit.loop(body, [_INT(0), a, b, *[_ZERO] * (high * wide)], depth)[3:]
        places = [emit.at(emit.at(c, c_row, r), bytes_, v) for r in range(high) for v in range(wide)]
        with builder.if_else(more) as (then, otherwise):
            with then:
                for place, value in zip(places, sums):
                    emit.store(builder.fadd(emit.load(place), value), place)
            with otherwise:
                for place, value in zip(places, sums):
                    emit.store(value, place)
        return context.get_dummy_value()

    return types.void(rows, vectors, near, *[types.intp] * 8, types.boolean), generate


product: Any = _product


def transform(
    matrices: dict[int, NDArray[Any]], *, reads: bool = False, writes: bool = False, adds: bool = False
) -> Any:
    """Make a function that applies one of some constant matrices to vectors of `maps` numbers, many times over.

    The function takes (which, times, source, its next, its stride, target, its next, its stride, maps, bias, floor):
    the stride leads from a vector to the next of the same product, the next to that of the next product. Vectors are
    read and written whole, beyond `maps`, unless `reads` or `writes`. Where it `adds`, `bias` (an address) is added and
    what is below `floor` is raised to it.
    """

    @intrinsic
    def apply(_context, which, times, source, source_next, apart, target, target_next, between, maps, bias, floor):
        def generate(context, builder, signature, args):
            which, times, source, source_next, apart, target, target_next, between, maps, bias, floor = args
            emit = _Emitter(builder)
            low, end = emit.splat(floor), builder.append_basic_block("end")
            choice = builder.switch(which, end)

            def products(values, matrix):
                done, read, write = values
                lines = partial(vectors, emit, matrix, apart, between, maps, low)
                emit.loop(lines, [_INT(0), read, write, bias], maps)
                return [builder.add(done, _INT(1)), builder.add(read, source_next), builder.add(write, target_next)]

            for number, matrix in matrices.items():
                case = builder.append_basic_block(f"case{number}")
                choice.add_case(_INT(number), case)
                builder.position_at_end(case)
                emit.loop(partial(products, matrix=matrix), [_INT(0), source, target], times)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10, types.float32), generate

    def vectors(emit, matrix, apart, between, maps, low, values):
        """Write the product for the next `LANES` maps."""
        (at, read, write, added), builder = values, emit.builder
        mask = emit.first(builder.sub(maps, at)) if reads or writes or adds else None
        given = [emit.load(emit.at(read, apart, j), mask if reads else None) for j in range(matrix.shape[1])]
        first = emit.load(added, mask) if adds else None
        for i, value in enumerate(emit.apply(matrix, given, first)):
            if adds:
                value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
            emit.store(value, emit.at(write, between, i), mask if writes else None)
        return [builder.add(at, _INT(LANES)), *(builder.add(one, _INT(4 * LANES)) for one in values[1:])]

    return apply
