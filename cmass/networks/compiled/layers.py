"""Layers of CNN_3D as loops over one cluster: convolution, ReLU and pooling in one pass, and back.

Two ideas save three quarters of the products of the stock layers:

Cook and Toom's algorithm along v: four outputs of a kernel of 5 (3) voxels need 8 (6) products
instead of 20 (12), once grid and kernel are written as values of polynomials at 8 (6) points. Along
x and y the kernel is summed as it stands.

Of the eight outputs under a pooling window one goes on, so only one has a gradient. Going back
visits those alone, and of those only where ReLU let something through. Where all eight are equal, as
in a window without galaxies, the first has it. (TensorFlow's kernel for processors gives all of it
to each of the eight, once for each pooling layer, which is no gradient of the loss.)

Everything that is compiled for use from Python is in this file: numba keeps compiled functions until
the file that they stand in changes, whatever they call. After a change of `vector` or `cook_toom`
this file must be touched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cmass.networks.compiled.cook_toom import TILE, cook_toom
from cmass.networks.compiled.vector import (
    BLOCK,
    GATHER_LANES,
    LANES,
    back_36,
    combine_6,
    combine_8,
    correlate_6,
    correlate_8,
    gather_5,
    largest_6,
    largest_8,
    split_6,
    split_8,
)

Floats = NDArray[np.float32]

#: Decorator of what is compiled: products and sums may be fused, nothing else is moved.
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


class Geometry(NamedTuple):
    """Sizes of a layer of convolution and pooling.

    Attributes
    ----------
    n, width, channels, filters : int
        Voxels an axis of the input, of the kernel; channels of input and output.
    out, pooled : int
        Voxels an axis after convolution and after pooling.
    tiles : int
        Along v.
    rows : int
        Pooled rows in y that `correlate` takes at once.
    blocks : int
        Of so many rows.
    half : int
        Floats of a half plane of the transformed input: every second row in y.
    points : int
        Of Cook and Toom's algorithm.
    group : int
        Filters that `correlate` takes at once.
    """

    n: int
    width: int
    channels: int
    filters: int
    out: int
    pooled: int
    tiles: int
    rows: int
    blocks: int
    half: int
    points: int
    group: int


def geometry(n: int, width: int, channels: int, filters: int) -> Geometry:
    """Sizes of a layer for an input of n voxels an axis."""
    out = n - width + 1
    pooled, tiles = -(-out // 2), -(-out // TILE)
    if out < 1 or tiles > BLOCK:
        raise ValueError(f"no compiled layer of width {width} for {n} voxels an axis")
    rows = min(BLOCK // tiles, pooled)
    blocks = -(-pooled // rows)
    # The last block reads a whole block of lanes from each row of the kernel.
    half = (blocks * rows + width) * tiles + BLOCK
    group = 6 if filters % 6 == 0 else 8
    return Geometry(n, width, channels, filters, out, pooled, tiles, rows, blocks, half,
                    width + TILE - 1, group)  # fmt: skip


def pooled_shape(size: Geometry) -> tuple[int, int, int, int]:
    """Shape of pooled outputs, (filters, x, y, v), filled up to whole blocks and tiles."""
    return size.filters, size.pooled, size.blocks * size.rows, 2 * size.tiles


def offsets_of(size: Geometry) -> NDArray[np.int64]:
    """Where the taps (channel, x, y) of a kernel lie in the transformed input.

    One row for outputs in even rows of y, one for those in odd rows.
    """
    parity, c, x, y = np.ogrid[:2, : size.channels, : size.width, : size.width]
    row = parity + y
    where = (c * size.n + x) * 2 * size.half + row % 2 * size.half + row // 2 * size.tiles
    return where.reshape(2, -1).astype(np.int64)


def barriers(size: Geometry) -> Floats:
    """−inf for outputs behind the last one, elsewhere 0: (row of the pair, output of the tile, lane).

    They must not win a pooling window that they share with true ones. Windows without a true output
    are cut off later.
    """
    lane = np.arange(size.blocks * size.rows * size.tiles + BLOCK)
    row = 2 * (lane // size.tiles) + np.arange(2)[:, None, None]
    k = TILE * (lane % size.tiles) + np.arange(TILE)[:, None]
    behind = ((row >= size.out) & (row % 2 == 1)) | ((k >= size.out) & (k % 2 == 1))
    return np.where(behind, -np.inf, 0).astype(np.float32)


def transformed_kernel(size: Geometry, kernel: Floats) -> Floats:
    """Kernel (width, width, width, channels, filters) at the points, in the order of `correlate`."""
    values = np.einsum("tk,xykcf->tfcxy", np.array(cook_toom(size.width).kernel), kernel)
    parts = values.reshape(size.points, -1, size.group, size.channels * size.width**2)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 2), np.float32).ravel()


@_compiled
def transform(x, rows, row, size, lines, u):
    """Values of the input at the points of each tile: u[t, c, x, parity of y, (y // 2, tile)].

    Of x (channels, n, rows, row), flat and with spare floats behind it, the first n voxels count;
    what lies behind them must be finite. `lines` is scratch.
    """
    n, tiles, points, half = size.n, size.tiles, size.points, size.half
    of_line = -(-(n + 1) // 2 * tiles // LANES) * LANES
    stride = lines.size // 8
    of_point = size.channels * n * 2 * half
    for c in range(size.channels):
        for i in range(n):
            for parity in range(2):
                for j in range(parity, n, 2):
                    to, at = j // 2 * tiles, ((c * n + i) * rows + j) * row
                    # The lanes behind the last tile are overwritten by the next row.
                    for tile in range(0, tiles, LANES):
                        if points == 8:
                            split_8(lines, to + tile, stride, x, at + TILE * tile)
                        else:
                            split_6(lines, to + tile, stride, x, at + TILE * tile)
                to = ((c * n + i) * 2 + parity) * half
                if points == 8:
                    combine_8(u, to, of_point, lines, 0, stride, of_line)
                else:
                    combine_6(u, to, of_point, lines, 0, stride, of_line)


@_compiled
def finish(low, high, low_code, high_code, bias, out, which):
    """Bias and ReLU, and the two outputs of a tile beside each other."""
    for k in range(low.size):
        out[2 * k] = max(low[k] + bias, np.float32(0))
        out[2 * k + 1] = max(high[k] + bias, np.float32(0))
    for k in range(low.size):
        which[2 * k] = low_code[k]
        which[2 * k + 1] = high_code[k]


@_compiled
def convolve_and_pool(u, size, offsets, w, bias, m, best, where, bar, out, which):
    """Convolution, ReLU and pooling of a transformed input.

    Writes the pooled outputs, of `pooled_shape`, and which of the eight (4 in x, 2 in y, 1 in v)
    each of them was. Outputs behind `size.pooled` have no meaning.
    """
    p, tiles, points, filters, group = (
        size.pooled,
        size.tiles,
        size.points,
        size.filters,
        size.group,
    )
    taps, of_point, lanes = (
        offsets.shape[1],
        size.channels * size.n * 2 * size.half,
        size.rows * tiles,
    )
    groups, stride = filters // group, bar.shape[2]
    flat_bar, flat_out, flat_which = bar.ravel(), out.ravel(), which.ravel()
    for i in range(p):
        for block in range(size.blocks):
            first = block * lanes
            for side in range(2 if 2 * i + 1 < size.out else 1):
                for parity in range(2):
                    for t in range(points):
                        at = t * of_point + (2 * i + side) * 2 * size.half + first
                        for g in range(groups):
                            to = (g * group * points + t) * BLOCK
                            of_group = (t * groups + g) * taps * group
                            if group == 6:
                                correlate_6(
                                    m, to, points * BLOCK, u, at, offsets[parity], taps, w, of_group
                                )
                            else:
                                correlate_8(
                                    m, to, points * BLOCK, u, at, offsets[parity], taps, w, of_group
                                )
                    for f in range(filters):
                        begin, stop = f * points * BLOCK, parity * TILE * stride + first
                        code = np.int32(4 * side + 2 * parity)
                        if points == 8:
                            largest_8(
                                m, begin, flat_bar, stop, stride, best, where, f * 2 * BLOCK, code
                            )
                        else:
                            largest_6(
                                m, begin, flat_bar, stop, stride, best, where, f * 2 * BLOCK, code
                            )
            for f in range(filters):
                low, high = f * 2 * BLOCK, (f * 2 + 1) * BLOCK
                span = slice(
                    ((f * p + i) * size.blocks + block) * 2 * lanes,
                    ((f * p + i) * size.blocks + block + 1) * 2 * lanes,
                )
                finish(
                    best[low : low + lanes],
                    best[high : high + lanes],
                    where[low : low + lanes],
                    where[high : high + lanes],
                    bias[f],
                    flat_out[span],
                    flat_which[span],
                )


@_compiled
def kernel_gradient(
    x, size, out, which, gradient, positions, factors, counts, sums, d_kernel, d_bias
):
    """Add the gradient by the first layer's kernel (filters, x, y, v) and bias.

    x (n³) flat, with spare floats behind it; `out` and `gradient` (by it) of shape (pooled³, filters).
    """
    p, n, filters = size.pooled, size.n, size.filters
    counts[:] = 0
    steps = np.empty(8, np.int64)
    for code in range(8):
        steps[code] = ((code >> 2) * n + ((code >> 1) & 1)) * n + (code & 1)
    for i in range(p):
        for j in range(p):
            for k in range(p):
                base = (2 * i * n + 2 * j) * n + 2 * k
                for f in range(filters):
                    place = counts[f]
                    positions[f, place] = base + steps[which[f, i, j, k]]
                    factors[f, place] = gradient[i, j, k, f]
                    # The next one takes its place if this one had no part in what follows.
                    counts[f] = place + np.uint64(out[i, j, k, f] > 0)
    for f in range(filters):
        count, total = np.int64(counts[f]), np.float32(0)
        for k in range(count):
            total += factors[f, k]
        d_bias[f] += total
        gather_5(sums, x, n, n * n, positions[f], factors[f], count)
        for k in range(size.width * size.width):
            for b in range(size.width):
                d_kernel[f, k, b] += sums[k * GATHER_LANES + b]


@_compiled
def layer_gradient(x, size, steps, kernel, out, which, gradient, d_kernel, d_bias, d_x):
    """Add the gradient by the second layer's kernel and bias, and write that by its input.

    x and d_x (n, n, n, channels) flat, `gradient` (filters, pooled³) by the pooled outputs; kernel
    and d_kernel (filters, width², width channels) flat; `steps` to the rows of a kernel.
    """
    p, n, channels = size.pooled, size.n, size.channels
    of_filter = size.width**3 * channels
    d_x[:] = 0
    for i in range(p):
        for j in range(p):
            for k in range(p):
                for f in range(size.filters):
                    g = gradient[f, i, j, k]
                    if out[f, i, j, k] <= 0 or g == 0:
                        continue
                    code = np.int64(which[f, i, j, k])
                    a, b, c = 2 * i + (code >> 2), 2 * j + ((code >> 1) & 1), 2 * k + (code & 1)
                    d_bias[f] += g
                    back_36(
                        g,
                        x,
                        d_x,
                        ((a * n + b) * n + c) * channels,
                        steps,
                        kernel,
                        d_kernel,
                        f * of_filter,
                    )


@_compiled
def mix_and_pool(x, n, kernel, bias, out, which):
    """Third layer: kernel of one voxel (channels, filters), ReLU, pooling to (p, p, p, filters).

    Of x (channels, n or more, n or more, n or more) the first n voxels count; `which` is the place
    in x of each output.
    """
    channels, rows, row = x.shape[0], x.shape[2], x.shape[3]
    p, filters = out.shape[0], out.shape[3]
    for i in range(p):
        for j in range(p):
            for k in range(p):
                for f in range(filters):
                    largest, mark = np.float32(-np.inf), 0
                    for a in range(2 * i, min(2 * i + 2, n)):
                        for b in range(2 * j, min(2 * j + 2, n)):
                            for c in range(2 * k, min(2 * k + 2, n)):
                                value = bias[f]
                                for channel in range(channels):
                                    value += kernel[channel, f] * x[channel, a, b, c]
                                if value > largest:
                                    largest, mark = value, (a * rows + b) * row + c
                    out[i, j, k, f] = max(largest, np.float32(0))
                    which[i, j, k, f] = mark


@_compiled
def mix_gradient(x, kernel, out, which, gradient, d_kernel, d_bias, d_x):
    """Add the gradient by the third layer's kernel and bias, and write that by its input.

    x and d_x (channels, voxels); out, which and gradient (outputs, filters).
    """
    channels, filters = kernel.shape
    d_x[:] = 0
    for o in range(out.shape[0]):
        for f in range(filters):
            if out[o, f] > 0:
                g, mark = gradient[o, f], which[o, f]
                d_bias[f] += g
                for channel in range(channels):
                    d_kernel[channel, f] += g * x[channel, mark]
                    d_x[channel, mark] += g * kernel[channel, f]


@_compiled
def dense(x, kernel, bias, out):
    """x kernel + bias for one cluster; sums in the order of the inputs, whatever the batch."""
    for u in range(out.size):
        out[u] = bias[u]
    for k in range(x.size):
        value = x[k]
        if value != 0:
            row = kernel[k]
            for u in range(out.size):
                out[u] += value * row[u]


class Weights(NamedTuple):
    """Weights as the loops take them."""

    first: Floats
    bias_1: Floats
    second: Floats
    second_plain: Floats
    bias_2: Floats
    third: Floats
    bias_3: Floats
    dense_1: Floats
    dense_bias_1: Floats
    dense_2: Floats
    dense_bias_2: Floats
    dense_3: Floats
    dense_bias_3: Floats


class Scratch(NamedTuple):
    """Memory of a thread: everything that one cluster needs on its way."""

    x: Floats
    x_bits: NDArray[np.uint32]
    u_1: Floats
    u_2: Floats
    lines: Floats
    m: Floats
    best: Floats
    where: NDArray[np.int32]
    bar_1: Floats
    bar_2: Floats
    out_1_flat: Floats
    out_1: Floats
    which_1: NDArray[np.uint8]
    out_1_last: Floats
    d_out_1: Floats
    out_2: Floats
    which_2: NDArray[np.uint8]
    d_out_2: Floats
    out_3: Floats
    which_3: NDArray[np.int32]
    positions: NDArray[np.int64]
    factors: Floats
    counts: NDArray[np.uint64]
    sums: Floats


class Fixed(NamedTuple):
    """What depends on the number of voxels alone."""

    size_1: Geometry
    size_2: Geometry
    offsets_1: NDArray[np.int64]
    offsets_2: NDArray[np.int64]
    steps: NDArray[np.int64]


class Outputs(NamedTuple):
    """Per cluster: inputs and outputs of the dense layers, and gradients by them."""

    features: Floats
    hidden_1: Floats
    hidden_2: Floats
    estimate: Floats
    d_hidden_1: Floats
    d_hidden_2: Floats
    d_estimate: Floats


class Gradients(NamedTuple):
    """Sums over a parcel, one row for each."""

    first: Floats
    bias_1: Floats
    second: Floats
    bias_2: Floats
    third: Floats
    bias_3: Floats


@_compiled
def load_grid(half, symmetry, x, bits):
    """A grid of half floats, given as their bits, turned and reflected, as floats.

    `symmetry` is a sum of 1 (swap x and y), 2, 4, 8 (reflect x, y, v, after that); `bits` is the
    memory of x (n³) as integers. What is not finite has no place in a grid.
    """
    n = half.shape[0]
    swapped = symmetry & 1
    for i in range(n):
        a = n - 1 - i if symmetry & 2 else i
        for j in range(n):
            b = n - 1 - j if symmetry & 4 else j
            source = half[b, a] if swapped else half[a, b]
            into = bits[(i * n + j) * n : (i * n + j + 1) * n]
            if symmetry & 8:
                for k in range(n):
                    value = np.uint32(source[n - 1 - k])
                    into[k] = (value & np.uint32(0x8000)) << 16 | (value & np.uint32(0x7FFF)) << 13
            else:
                for k in range(n):
                    value = np.uint32(source[k])
                    into[k] = (value & np.uint32(0x8000)) << 16 | (value & np.uint32(0x7FFF)) << 13
    # The exponent counts from 127 instead of 15; the product holds for the smallest numbers too.
    scale = np.float32(2.0**112)
    for k in range(n**3):
        x[k] *= scale


@_compiled
def _forward(half, symmetry, w, s, fixed):
    """Features of one cluster, from its grid to the third pooling."""
    n = half.shape[0]
    load_grid(half, symmetry, s.x, s.x_bits)
    transform(s.x, n, n, fixed.size_1, s.lines, s.u_1)
    convolve_and_pool(
        s.u_1,
        fixed.size_1,
        fixed.offsets_1,
        w.first,
        w.bias_1,
        s.m,
        s.best,
        s.where,
        s.bar_1,
        s.out_1,
        s.which_1,
    )
    transform(s.out_1_flat, s.out_1.shape[2], s.out_1.shape[3], fixed.size_2, s.lines, s.u_2)
    convolve_and_pool(
        s.u_2,
        fixed.size_2,
        fixed.offsets_2,
        w.second,
        w.bias_2,
        s.m,
        s.best,
        s.where,
        s.bar_2,
        s.out_2,
        s.which_2,
    )
    mix_and_pool(s.out_2, fixed.size_2.pooled, w.third, w.bias_3, s.out_3, s.which_3)


@_compiled
def _activate(x, rectified):
    if rectified:
        for k in range(x.size):
            x[k] = max(x[k], np.float32(0))


@_compiled
def _heads(features, w, rectified, hidden_1, hidden_2, estimate):
    dense(features, w.dense_1, w.dense_bias_1, hidden_1)
    _activate(hidden_1, rectified)
    dense(hidden_1, w.dense_2, w.dense_bias_2, hidden_2)
    _activate(hidden_2, rectified)
    dense(hidden_2, w.dense_3, w.dense_bias_3, estimate)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _back(values, kernel, rectified, d_out, d_in):
    """Gradient by the inputs of a dense layer, of which `values` are what it was given."""
    for k in range(d_in.size):
        total = np.float32(0)
        row = kernel[k]
        for u in range(d_out.size):
            total += row[u] * d_out[u]
        d_in[k] = total if values[k] > 0 or not rectified else np.float32(0)


@_compiled
def estimate(grids, rows, symmetries, first, last, w, rectified, s, fixed, outputs):
    """Outputs of a parcel: grids[rows[first:last]], as bits of half floats, under symmetries."""
    for row in range(first, last):
        _forward(grids[rows[row]], symmetries[row], w, s, fixed)
        outputs.features[row] = s.out_3.ravel()
        _heads(
            outputs.features[row],
            w,
            rectified,
            outputs.hidden_1[row],
            outputs.hidden_2[row],
            outputs.estimate[row],
        )


@_compiled
def learn(
    grids, rows, symmetries, truth, parcel, first, last, w, rectified, s, fixed, outputs, gradients
):
    """Estimates of a parcel, and sums of the gradients of the mean squared error."""
    share = np.float32(2) / np.float32(len(truth))
    size_1, size_2 = fixed.size_1, fixed.size_2
    channels, p, filters = size_2.channels, size_2.n, len(w.bias_3)
    d_features = np.empty(s.out_3.size, np.float32)
    d_first, d_bias_1 = gradients.first[parcel], gradients.bias_1[parcel]
    d_second, d_bias_2 = gradients.second[parcel], gradients.bias_2[parcel]
    d_third, d_bias_3 = gradients.third[parcel], gradients.bias_3[parcel]
    for row in range(first, last):
        estimate(grids, rows, symmetries, row, row + 1, w, rectified, s, fixed, outputs)
        outputs.d_estimate[row, 0] = share * (outputs.estimate[row, 0] - truth[row])
        _back(
            outputs.hidden_2[row],
            w.dense_3,
            rectified,
            outputs.d_estimate[row],
            outputs.d_hidden_2[row],
        )
        _back(
            outputs.hidden_1[row],
            w.dense_2,
            rectified,
            outputs.d_hidden_2[row],
            outputs.d_hidden_1[row],
        )
        _back(outputs.features[row], w.dense_1, False, outputs.d_hidden_1[row], d_features)
        mix_gradient(
            s.out_2.reshape(len(w.bias_2), -1),
            w.third,
            s.out_3.reshape(-1, filters),
            s.which_3.reshape(-1, filters),
            d_features.reshape(-1, filters),
            d_third,
            d_bias_3,
            s.d_out_2.reshape(len(w.bias_2), -1),
        )
        for i in range(p):
            for j in range(p):
                for c in range(channels):
                    for k in range(p):
                        s.out_1_last[i, j, k, c] = s.out_1[c, i, j, k]
        layer_gradient(
            s.out_1_last.ravel(),
            size_2,
            fixed.steps,
            w.second_plain.ravel(),
            s.out_2,
            s.which_2,
            s.d_out_2,
            d_second.ravel(),
            d_bias_2,
            s.d_out_1.ravel(),
        )
        kernel_gradient(
            s.x,
            size_1,
            s.out_1_last,
            s.which_1,
            s.d_out_1,
            s.positions,
            s.factors,
            s.counts,
            s.sums,
            d_first,
            d_bias_1,
        )
