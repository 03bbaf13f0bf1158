"""Winograd's minimal filtering of sections, and the gradient of its filters; called by `networks.winograd`.

A filter of k×k voxels makes (7-k)×(7-k) voxels of the result from a tile of 6×6 by 36 products instead of k²(7-k)²: a
quarter for k of 3 and 4. Tile, filter and result are polynomials, evaluated at six points, multiplied there, and
interpolated (Winograd 1980; Lavin and Gray, CVPR 2016). For many maps the products are 36 products of matrices.
Voxels of a dilated filter's tile are as far apart as its own. The points 0, ±3/4, ±3/2 and infinity keep rounding to
about twice that of plain sums (Barabasz et al. 2020; ±1 and ±2: three to five times).

All arrays are float32; volumes are (n, z, y, x, maps), contiguous.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuropil._kernels.vectors import LANES, ROWS, product, transform

TILE = 6
SIZES = (2, 3, 4, 5)
"""Of filters, along y and x."""
POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))
MADE, SUMMED = 24, 48  # tiles at a time of the result, and of the filter's gradient; multiples of all ROWS
_MOST = len(ROWS)


def matrices(size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Matrices of filters of `size`, by the Toom-Cook construction.

    Returns
    -------
    of the filter (6, size), of the tile (6, 6), of the result (7 - size, 6): in one dimension, the result is
    result @ ((filter @ f) * (tile @ t))
    """

    def from_roots(roots: list[Fraction]) -> list[Fraction]:
        made = [Fraction(1)]
        for root in roots:
            made = [up - root * here for up, here in zip([Fraction(0), *made], [*made, Fraction(0)])]
        return made

    others = [[one for one in POINTS if one != point] for point in POINTS]
    scales = [math.prod(point - other for other in rest) for point, rest in zip(POINTS, others)]
    of_filter = [[point**j / scale for j in range(size)] for point, scale in zip(POINTS, scales)]
    of_tile = [[*from_roots(rest), Fraction(0)] for rest in others]
    of_result = [[point**j for j in range(7 - size)] for point in POINTS]
    last = [Fraction(0)] * 5 + [Fraction(1)]  # infinity: the highest coefficient
    made = [*of_filter, last[-size:]], [*of_tile, from_roots(list(POINTS))], [*of_result, last[-(7 - size) :]]
    filters, tiles, results = (np.array(one, np.float64) for one in made)
    return filters, tiles, results.T


_RESULTS = {size: matrices(size)[2] for size in SIZES}
_TILES = {0: matrices(3)[1]}  # the same for all sizes
_GRADIENTS = {size: matrix.T for size, matrix in _RESULTS.items()}
_down, _along = transform(_TILES, reads=True), transform(_TILES)
_down_gradient, _across_gradient = transform(_GRADIENTS, reads=True), transform(_GRADIENTS)
_across_result, _down_result = transform(_RESULTS), transform(_RESULTS, writes=True)


@njit(cache=True, nogil=True)
def convolve(volume, spectra, bias, floor, size, depth, dilation, margin, out, first, last):
    """Write the tiles `first` to `last` of the cross-correlation; see `tiles`.

    `spectra` are (36, depth · maps in, maps out up to whole vectors), `depth` is the filter's along z, `margin` the
    zeros on each side of the volume (z, y, x). What is below `floor` is raised to it.
    """
    edge, deep, maps, long = 7 - size, volume.shape[4] * depth, out.shape[4], spectra.shape[2]
    columns, rows = _room(MADE, TILE, deep), _room(MADE, edge, long)
    given, made = _line(MADE, deep), _line(MADE, long)
    voxels = np.zeros((TILE, TILE, volume.shape[4]), np.float32)
    result, places = np.empty((edge, edge, maps), np.float32), np.empty((MADE, 3), np.int64)
    filled, step, none = 0, 4 * long, np.float32(0)
    for number in range(first, last):
        section, y, x = _place(number, out.shape, dilation, edge)
        if y < out.shape[2] and x < out.shape[3]:
            _analyse(volume, section, out.shape[1], y, x, depth, dilation, margin, columns[filled], voxels)
            places[filled, 0], places[filled, 1], places[filled, 2] = section, y, x
            filled += 1
        if filled < MADE and (number < last - 1 or filled == 0):
            continue
        for i in range(TILE):  # what the product needs is in the nearest caches
            _across(columns, i, filled, deep, given)
            for j in range(TILE):
                _multiply(
                    0, given[j].ctypes.data, 4 * _wide(deep), 4, spectra[i * TILE + j].ctypes.data, step,
                    made[j].ctypes.data, step, filled, long // LANES, deep, False,
                )  # fmt: skip
            _across_result(
                size, filled, made.ctypes.data, step, 4 * made.shape[1],
                rows[0, i].ctypes.data, 4 * rows[0].size, 4 * rows.shape[3], maps, 0, none,
            )  # fmt: skip
        for t in range(filled):
            _synthesise(rows[t], places[t], bias, floor, size, dilation, out, result)
        filled = 0


@njit(cache=True, nogil=True)
def filter_gradient(volume, gradient, size, depth, dilation, first, last):
    """Return the gradient of the filters' spectra (36, maps out, depth · maps in; both rounded up) by some tiles."""
    edge, deep, maps = 7 - size, volume.shape[4] * depth, gradient.shape[4]
    long, high = _padded(deep), -(-maps // 24) * 24
    columns, pieces = _room(SUMMED, TILE, deep), _room(SUMMED, edge, high)
    given, outer = _line(SUMMED, deep), _line(SUMMED, high)
    voxels = np.zeros((TILE, TILE, volume.shape[4]), np.float32)
    piece = np.zeros((edge, edge, maps), np.float32)
    sums = zeros(TILE * TILE * high * long).reshape(TILE * TILE, high, long)
    filled, none = 0, np.float32(0)
    for number in range(first, last):
        section, y, x = _place(number, gradient.shape, dilation, edge)
        if y < gradient.shape[2] and x < gradient.shape[3]:
            _analyse(volume, section, gradient.shape[1], y, x, depth, dilation, (0, 0, 0), columns[filled], voxels)
            _analyse_gradient(gradient, section, y, x, size, dilation, pieces[filled], piece)
            filled += 1
        if filled < SUMMED and (number < last - 1 or filled == 0):
            continue
        for i in range(TILE):
            _across(columns, i, filled, deep, given)
            _across_gradient(
                size, filled, pieces[0, i].ctypes.data, 4 * pieces[0].size, 4 * pieces.shape[3],
                outer.ctypes.data, 4 * _wide(high), 4 * outer.shape[1], maps, 0, none,
            )  # fmt: skip
            for j in range(TILE):
                _multiply(
                    1, outer[j].ctypes.data, 4, 4 * _wide(high), given[j].ctypes.data, 4 * _wide(deep),
                    sums[i * TILE + j].ctypes.data, 4 * long, maps, long // LANES, filled, True,
                )  # fmt: skip
        filled = 0
    return sums


@njit(cache=True, nogil=True)
def tiles(shape, size, dilation):
    """Count the tiles of a result (n, z, y, x, maps): along x fastest, those of all offsets within the dilation."""
    edge = 7 - size
    down, across = -(-shape[2] // (edge * dilation[1])), -(-shape[3] // (edge * dilation[2]))
    return shape[0] * shape[1] * down * dilation[1] * across * dilation[2]


@njit(cache=True, nogil=True)
def _place(number, shape, dilation, edge):
    """Return section and first voxel y, x of a tile of the result; beyond its end where an offset has fewer."""
    across = -(-shape[3] // (edge * dilation[2])) * dilation[2]
    down = -(-shape[2] // (edge * dilation[1])) * dilation[1]
    row, column = number // across, number % across
    section, row = row // down, row % down
    y = row // dilation[1] * edge * dilation[1] + row % dilation[1]
    return section, y, column // dilation[2] * edge * dilation[2] + column % dilation[2]


@njit(cache=True, nogil=True)
def _padded(maps):
    return -(-maps // LANES) * LANES


@njit(cache=True, nogil=True)
def _wide(maps):
    """Numbers between lines of `maps` that are written in whole vectors from anywhere within."""
    return _padded(maps) + LANES


@njit(cache=True, nogil=True)
def zeros(count):
    """Numbers that start where a line of the cache does: vectors across two lines take twice as long."""
    room = np.zeros(count + 15, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + count]


@njit(cache=True, nogil=True)
def _room(tiles, edge, maps):
    """Tiles between their transforms, along rows first; 0, which no product slows down, where none has been."""
    return zeros(tiles * TILE * edge * _wide(maps)).reshape(tiles, TILE, edge, _wide(maps))


@njit(cache=True, nogil=True)
def _line(tiles, maps):
    """A row of frequencies of tiles."""
    return zeros(TILE * (tiles * _wide(maps) + LANES)).reshape(TILE, tiles * _wide(maps) + LANES)


@njit(cache=True, nogil=True)
def _analyse(volume, section, sections, y, x, depth, dilation, margin, columns, voxels):
    """Transform the columns of a tile of each of the `depth` sections that the filter covers, zeros beyond."""
    _, deep, height, width, maps = volume.shape
    n, z, y, x = section // sections, section % sections - margin[0], y - margin[1], x - margin[2]
    high, wide, line = y + (TILE - 1) * dilation[1], x + (TILE - 1) * dilation[2], 4 * columns.shape[2]
    for k in range(depth):
        within = 0 <= z + k * dilation[0] < deep
        if within and y >= 0 and x >= 0 and high < height and wide < width:
            source = volume.ctypes.data + 4 * maps * (((n * deep + z + k * dilation[0]) * height + y) * width + x)
            down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
        else:
            voxels[:] = 0
            for i in range(TILE):
                for j in range(TILE):
                    row, column = y + i * dilation[1], x + j * dilation[2]
                    if within and 0 <= row < height and 0 <= column < width:
                        voxels[i, j] = volume[n, z + k * dilation[0], row, column]
            source, down, across = voxels.ctypes.data, 4 * maps * TILE, 4 * maps
        target = columns.ctypes.data + 4 * k * maps
        _down(0, TILE, source, across, down, target, line, TILE * line, maps, 0, np.float32(0))


@njit(cache=True, nogil=True)
def _across(columns, i, filled, deep, given):
    """Transform row `i` of tiles."""
    _along(
        0, filled, columns[0, i].ctypes.data, 4 * columns[0].size, 4 * columns.shape[3],
        given.ctypes.data, 4 * _wide(deep), 4 * given.shape[1], deep, 0, np.float32(0),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _analyse_gradient(gradient, section, y, x, size, dilation, pieces, piece):
    """Transform the columns of a tile of the result's gradient, zeros beyond its end."""
    _, depth, height, width, maps = gradient.shape
    edge, line = 7 - size, 4 * pieces.shape[2]
    if y + (edge - 1) * dilation[1] < height and x + (edge - 1) * dilation[2] < width:
        source = gradient.ctypes.data + 4 * maps * ((section * height + y) * width + x)
        down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
    else:
        piece[:] = 0
        for i in range(edge):
            for j in range(edge):
                row, column = y + i * dilation[1], x + j * dilation[2]
                if row < height and column < width:
                    piece[i, j] = gradient[section // depth, section % depth, row, column]
        source, down, across = piece.ctypes.data, 4 * maps * edge, 4 * maps
    target = pieces.ctypes.data
    _down_gradient(size, edge, source, across, down, target, line, edge * line, maps, 0, np.float32(0))


@njit(cache=True, nogil=True)
def _synthesise(rows, place, bias, floor, size, dilation, out, result):
    """Transform the columns of a tile back to voxels of the result."""
    _, depth, height, width, maps = out.shape
    section, y, x = place[0], place[1], place[2]
    edge, line = 7 - size, 4 * rows.shape[2]
    whole = y + (edge - 1) * dilation[1] < height and x + (edge - 1) * dilation[2] < width
    if whole:
        target = out.ctypes.data + 4 * maps * ((section * height + y) * width + x)
        down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
    else:
        target, down, across = result.ctypes.data, 4 * maps * edge, 4 * maps
    source = rows.ctypes.data
    _down_result(size, edge, source, line, edge * line, target, across, down, maps, bias.ctypes.data, floor)
    if not whole:
        for i in range(edge):
            for j in range(edge):
                row, column = y + i * dilation[1], x + j * dilation[2]
                if row < height and column < width:
                    out[section // depth, section % depth, row, column] = result[i, j]


@njit(cache=True, nogil=True)
def _multiply(near, a, a_row, a_step, b, b_step, c, c_row, rows, vectors, depth, more):
    """Write, or with `more` add to, c = a b; rows are rounded up to what stays in registers at a time."""
    start = 0
    while start < vectors:
        left = vectors - start
        wide = _MOST - 1 if left == _MOST + 1 else min(left, _MOST)
        right, target = b + 4 * LANES * start, c + 4 * LANES * start
        if near:
            _columns_near(a, a_row, a_step, right, b_step, target, c_row, rows, wide, depth, more)
        else:
            _columns(a, a_row, a_step, right, b_step, target, c_row, rows, wide, depth, more)
        start += wide


def _columns_of(near: int) -> Any:
    """Make the loop over rows; some vectors wide."""
    one, two, three, four = (*ROWS, ROWS[-1])[:4]

    @njit(nogil=True)
    def columns(a, a_row, a_step, b, b_step, c, c_row, rows, wide, depth, more):
        if wide == 1:
            for r in range(0, rows, one):
                product(one, 1, near, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, depth, more)
        elif wide == 2:
            for r in range(0, rows, two):
                product(two, 2, near, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, depth, more)
        elif wide == 3:
            for r in range(0, rows, three):
                product(three, 3, near, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, depth, more)
        elif _MOST > 3:
            for r in range(0, rows, four):
                product(four, 4, near, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, depth, more)

    return columns


_columns, _columns_near = _columns_of(0), _columns_of(1)
