"""The two innermost loops of the compiled network, written as vectors of the processor.

LLVM turns loops over arrays into vectors by itself, but it keeps sums of such loops in memory;
these two keep them in registers, which makes them four times faster. They are numba intrinsics:
the vectors are LLVM's own, so that they run on every processor that numba knows, and as one
instruction each where registers are wide enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cmass.networks.compiled.cook_toom import cook_toom

_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT64 = ir.IntType(64)

#: Floats of a vector: those of a 512-bit register.
LANES = 16
#: Vectors of a block of `correlate`: with eight filters, 24 of 32 registers hold sums.
VECTORS = 3
#: Floats of a block of `correlate`.
BLOCK = LANES * VECTORS
#: Floats of a vector of `gather`: at least as many as a kernel is wide.
GATHER_LANES = 8


class _Vector:
    """Floats that the processor handles at once, with the signs of arithmetic."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: _Vector) -> _Vector:
        return _Vector(self.builder, self.builder.fadd(self.value, other.value, ("contract",)))

    def __sub__(self, other: _Vector) -> _Vector:
        return _Vector(self.builder, self.builder.fsub(self.value, other.value, ("contract",)))

    def __rmul__(self, factor: float) -> _Vector:
        if factor == 1:
            return self
        constant = ir.Constant(self.value.type, [factor] * self.value.type.count)
        return _Vector(self.builder, self.builder.fmul(constant, self.value, ("contract",)))

    def exceeds(self, other: _Vector) -> ir.Value:
        """Where this is larger: a vector of bits."""
        return self.builder.fcmp_ordered(">", self.value, other.value)

    def where(self, mask: ir.Value, other: _Vector) -> _Vector:
        """This where the mask is set, elsewhere the other."""
        return _Vector(self.builder, self.builder.select(mask, self.value, other.value))


class _Code:
    """Instructions that llvmlite has no short word for."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def vector(self, lanes: int) -> ir.VectorType:
        return ir.VectorType(_FLOAT, lanes)

    def zeros(self, lanes: int) -> ir.Constant:
        return ir.Constant(self.vector(lanes), [0.0] * lanes)

    def load(self, pointer: ir.Value, lanes: int) -> ir.Value:
        value = self.builder.load(self.builder.bitcast(pointer, self.vector(lanes).as_pointer()))
        value.align = 4
        return value

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        target = self.builder.bitcast(pointer, value.type.as_pointer())
        self.builder.store(value, target).align = 4

    def spread(self, scalar: ir.Value, lanes: int) -> ir.Value:
        """One number, or bit, in all lanes."""
        undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        mask = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(one, undefined, mask)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a b + c, rounded once where the processor can."""
        kind = a.type
        name = f"llvm.fmuladd.v{kind.count}f32"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(kind, [kind] * 3), name
        )
        return self.builder.call(function, [a, b, c])

    def shuffle(self, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
        """Chosen lanes of two vectors, those of the second counted on from the first's last."""
        mask = ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, mask)

    def at(self, pointer: ir.Value, index: ir.Value | int) -> ir.Value:
        where = ir.Constant(_INT64, index) if isinstance(index, int) else index
        return self.builder.gep(pointer, [where])


def _pointers(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> list[Any]:
    """Arrays as pointers to their data, everything else as it is."""
    return [
        context.make_array(kind)(context, builder, value).data
        if isinstance(kind, types.Array)
        else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _registers(filters: int) -> tuple[int, int]:
    """Lanes of a vector, and vectors of sums a filter, that this processor's registers hold.

    With 512 bits there are 32 registers; with fewer there may be 16.
    """
    if get_host_cpu_features().get("avx512f"):
        return LANES, VECTORS
    return LANES // 2, 2 if filters <= 6 else 1


def _correlate_part(
    code: _Code, shape: tuple[int, int], filters: int, out: ir.Value, stride: ir.Value,
    u: ir.Value, offsets: ir.Value, n_offsets: ir.Value, weights: ir.Value,
) -> None:  # fmt: skip
    """A part of a block of `correlate`, whose sums all lie in registers."""
    builder, (lanes, vectors) = code.builder, shape
    entry = builder.block
    loop = builder.append_basic_block("offsets")
    done = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INT64)
    k.add_incoming(ir.Constant(_INT64, 0), entry)
    sums = [[builder.phi(code.vector(lanes)) for _ in range(vectors)] for _ in range(filters)]
    for row in sums:
        for one in row:
            one.add_incoming(code.zeros(lanes), entry)
    start = code.at(u, builder.load(code.at(offsets, k)))
    values = [code.load(code.at(start, lanes * v), lanes) for v in range(vectors)]
    of_offset = code.at(weights, builder.mul(k, ir.Constant(_INT64, filters)))
    news = []
    for f, row in enumerate(sums):
        weight = code.spread(builder.load(code.at(of_offset, f)), lanes)
        new = [code.multiply_add(weight, x, one) for x, one in zip(values, row, strict=True)]
        news.append(new)
    following = builder.add(k, ir.Constant(_INT64, 1))
    k.add_incoming(following, loop)
    for row, new in zip(sums, news, strict=True):
        for one, value in zip(row, new, strict=True):
            one.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_offsets), loop, done)
    builder.position_at_end(done)
    for f, new in enumerate(news):
        row = code.at(out, builder.mul(stride, ir.Constant(_INT64, f)))
        for v, value in enumerate(new):
            code.store(value, code.at(row, lanes * v))


def _correlate(filters: int) -> Any:
    @intrinsic
    def correlate(typing, out, out_at, stride, u, u_at, offsets, n_offsets, w, w_at):
        """out[f, l] = sum over k of w[k, f] u[offsets[k] + l] for `BLOCK` lanes l.

        ``out`` starts at out_at with `stride` floats from filter to filter, ``u`` at u_at, ``w``
        at w_at with the filters of an offset together. All arrays flat and contiguous.
        """
        signature = types.void(
            out, types.int64, types.int64, u, types.int64, offsets, types.int64, w, types.int64
        )

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            out, out_at, stride, u, u_at, offsets, n_offsets, w, w_at = _pointers(
                context, builder, signature, arguments
            )
            base, weights, first = code.at(u, u_at), code.at(w, w_at), code.at(out, out_at)
            lanes, vectors = _registers(filters)
            for part in range(0, BLOCK, lanes * vectors):
                _correlate_part(
                    code, (lanes, vectors), filters, code.at(first, part), stride,
                    code.at(base, part), offsets, n_offsets, weights,
                )  # fmt: skip
            return context.get_dummy_value()

        return signature, generate

    return correlate


#: Correlation for six and for eight filters at once.
correlate_6 = _correlate(6)
correlate_8 = _correlate(8)


def _split(points: int) -> Any:
    @intrinsic
    def split(typing, out, out_at, stride, x, x_at):
        """out[s, l] = x[4 l + s] for `points` s and `LANES` lanes l.

        ``out`` starts at out_at with `stride` floats from s to s; reads 4 `LANES` + 4 floats of x
        from x_at. Arrays flat and contiguous.
        """
        signature = types.void(out, types.int64, types.int64, x, types.int64)

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            out, out_at, stride, x, x_at = _pointers(context, builder, signature, arguments)
            for later in range(0, points, 4):
                start = code.at(code.at(x, x_at), later)
                parts = [code.load(code.at(start, LANES * k), LANES) for k in range(4)]
                fours = [[4 * lane + s for lane in range(LANES // 2)] for s in range(4)]
                for s in range(min(4, points - later)):
                    low = code.shuffle(parts[0], parts[1], fours[s])
                    high = code.shuffle(parts[2], parts[3], fours[s])
                    row = builder.mul(stride, ir.Constant(_INT64, later + s))
                    value = code.shuffle(low, high, range(LANES))
                    code.store(value, code.at(code.at(out, out_at), row))
            return context.get_dummy_value()

        return signature, generate

    return split


#: Rows of voxels as tiles of four, for kernels of 5 and 3 voxels.
split_8, split_6 = _split(8), _split(6)


def _combine(matrix: Sequence[Sequence[float]]) -> Any:
    n = len(matrix)

    @intrinsic
    def combine(typing, out, out_at, stride, x, x_at, x_stride, count):
        """out[t, l] = sum over s of matrix[t, s] x[s, l] for l below `count`, a multiple of `LANES`.

        Rows of ``out`` are `stride` floats apart, those of ``x`` x_stride. Flat and contiguous.
        """
        signature = types.void(
            out, types.int64, types.int64, x, types.int64, types.int64, types.int64
        )

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            out, out_at, stride, x, x_at, x_stride, count = _pointers(
                context, builder, signature, arguments
            )
            out, x = code.at(out, out_at), code.at(x, x_at)
            entry = builder.block
            loop = builder.append_basic_block("lanes")
            done = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(_INT64)
            at.add_incoming(ir.Constant(_INT64, 0), entry)
            rows = []
            for s in range(n):
                row = code.at(x, builder.mul(x_stride, ir.Constant(_INT64, s)))
                rows.append(_Vector(builder, code.load(code.at(row, at), LANES)))
            for t, weights in enumerate(matrix):
                terms = [w * row for w, row in zip(weights, rows, strict=True) if w != 0]
                total = terms[0]
                for term in terms[1:]:
                    total = total + term
                row = code.at(out, builder.mul(stride, ir.Constant(_INT64, t)))
                code.store(total.value, code.at(row, at))
            following = builder.add(at, ir.Constant(_INT64, LANES))
            at.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, generate

    return combine


#: Values at the points of Cook and Toom's algorithm, for kernels of 5 and 3 voxels.
combine_8, combine_6 = _combine(cook_toom(5).inputs), _combine(cook_toom(3).inputs)


def _largest(matrix: Sequence[Sequence[float]]) -> Any:
    n = len(matrix[0])

    @intrinsic
    def largest(typing, m, at, bar, bar_at, bar_stride, best, where, to, code):
        """The larger output of each pair along v, and which it was, of a block of lanes.

        The four outputs of a tile are matrix m[points, lanes] + bar. With code 0 the larger one of
        each pair begins best[pair, lane]; with another (the window's other rows in x and y) it
        replaces it where it is larger. ``where`` is the code, plus one for a pair's second output.
        """
        signature = types.void(
            m, types.int64, bar, types.int64, types.int64, best, where, types.int64, types.int32
        )

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            m, at, bar, bar_at, bar_stride, best, where, to, number = _pointers(
                context, builder, signature, arguments
            )
            m, bar, best, where = (
                code.at(p, k) for p, k in ((m, at), (bar, bar_at), (best, to), (where, to))
            )
            integers = ir.VectorType(_INT32, LANES)
            numbers = [
                code.spread(builder.add(number, ir.Constant(_INT32, k)), LANES) for k in range(2)
            ]
            first = builder.icmp_signed("==", number, ir.Constant(_INT32, 0))
            fresh = code.spread(first, LANES)
            for v in range(VECTORS):
                points = [
                    _Vector(builder, code.load(code.at(m, BLOCK * t + LANES * v), LANES))
                    for t in range(n)
                ]
                outputs = []
                for k, weights in enumerate(matrix):
                    row = code.at(bar, builder.mul(bar_stride, ir.Constant(_INT64, k)))
                    total = _Vector(builder, code.load(code.at(row, LANES * v), LANES))
                    for weight, point in zip(weights, points, strict=True):
                        if weight != 0:
                            total = total + weight * point
                    outputs.append(total)
                for pair in range(2):
                    low, high = outputs[2 * pair], outputs[2 * pair + 1]
                    second = high.exceeds(low)
                    value = high.where(second, low)
                    index = builder.select(second, numbers[1], numbers[0])
                    place = BLOCK * pair + LANES * v
                    old = _Vector(builder, code.load(code.at(best, place), LANES))
                    codes = builder.bitcast(code.at(where, place), integers.as_pointer())
                    old_index = builder.load(codes)
                    old_index.align = 4
                    better = builder.or_(value.exceeds(old), fresh)
                    code.store(value.where(better, old).value, code.at(best, place))
                    builder.store(builder.select(better, index, old_index), codes).align = 4
            return context.get_dummy_value()

        return signature, generate

    return largest


#: For kernels of 5 and 3 voxels.
largest_8, largest_6 = _largest(cook_toom(5).outputs), _largest(cook_toom(3).outputs)


def _gather(width: int) -> Any:
    @intrinsic
    def gather(typing, out, x, row, plane, positions, factors, n_positions):
        """out[a, b, l] = sum over p of factors[p] x[positions[p] + a plane + b row + l].

        For a and b below ``width`` and `GATHER_LANES` lanes l. All arrays flat and contiguous.
        """
        signature = types.void(out, x, types.int64, types.int64, positions, factors, types.int64)

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            out, x, row, plane, positions, factors, n_positions = _pointers(
                context, builder, signature, arguments
            )
            entry = builder.block
            loop = builder.append_basic_block("positions")
            body = builder.append_basic_block("position")
            done = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            p = builder.phi(_INT64)
            p.add_incoming(ir.Constant(_INT64, 0), entry)
            sums = [builder.phi(code.vector(GATHER_LANES)) for _ in range(width * width)]
            for one in sums:
                one.add_incoming(code.zeros(GATHER_LANES), entry)
            builder.cbranch(builder.icmp_signed("<", p, n_positions), body, done)
            builder.position_at_end(body)
            start = code.at(x, builder.load(code.at(positions, p)))
            factor = code.spread(builder.load(code.at(factors, p)), GATHER_LANES)
            for a in range(width):
                for b in range(width):
                    line = code.at(start, builder.mul(row, ir.Constant(_INT64, b)))
                    one = sums[a * width + b]
                    new = code.multiply_add(factor, code.load(line, GATHER_LANES), one)
                    one.add_incoming(new, body)
                start = code.at(start, plane)
            p.add_incoming(builder.add(p, ir.Constant(_INT64, 1)), body)
            builder.branch(loop)
            builder.position_at_end(done)
            for k, one in enumerate(sums):
                code.store(one, code.at(out, k * GATHER_LANES))
            return context.get_dummy_value()

        return signature, generate

    return gather


#: For a kernel of 5³.
gather_5 = _gather(5)


def _back(floats: int, n_rows: int) -> Any:
    @intrinsic
    def back(typing, g, x, d_x, at, steps, w, d_w, w_at):
        """d_w[r, q] += g x[steps[r] + q], d_x[steps[r] + q] += g w[r, q] for `floats` q.

        For ``n_rows`` rows r; x and d_x from `at`, w and d_w from w_at. All flat and contiguous.
        """
        signature = types.void(types.float32, x, d_x, types.int64, steps, w, d_w, types.int64)

        def generate(context, builder, signature, arguments):
            code = _Code(builder)
            g, x, d_x, at, steps, w, d_w, w_at = _pointers(context, builder, signature, arguments)
            x, d_x, w, d_w = (
                code.at(p, k) for p, k in ((x, at), (d_x, at), (w, w_at), (d_w, w_at))
            )
            widths = [LANES] * (floats // LANES) + [floats % LANES] * (floats % LANES > 0)
            for row in range(n_rows):
                step = builder.load(code.at(steps, row))
                start = 0
                for width in widths:
                    factor = code.spread(g, width)
                    there = builder.add(step, ir.Constant(_INT64, start))
                    here = row * floats + start
                    for values, into, from_, to in ((x, d_w, there, here), (w, d_x, here, there)):
                        old = code.load(code.at(into, to), width)
                        value = code.load(code.at(values, from_), width)
                        code.store(code.multiply_add(factor, value, old), code.at(into, to))
                    start += width
            return context.get_dummy_value()

        return signature, generate

    return back


#: For the rows of a kernel of 3³ with twelve channels.
back_36 = _back(36, 9)
