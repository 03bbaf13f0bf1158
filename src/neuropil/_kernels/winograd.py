"""Winograd's minimal filtering of sections, and the gradient of its filters; called by `networks.winograd`.

A filter of k×k voxels makes (t+1-k)² voxels of the result from a tile of t×t by t² products instead of k²(t+1-k)²: a
quarter or a fifth for t of 6 and 7 and k of 3 and 4. Tile, filter and result are polynomials, evaluated at t points,
multiplied there, and interpolated (Winograd 1980; Lavin and Gray, CVPR 2016). For many maps the products are t²
products of matrices. Voxels of a dilated filter's tile are as far apart as its own. The points, with infinity, keep
rounding to two to four times that of plain sums (after Barabasz et al. 2020; larger tiles, or 1 and 2, lose more).

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

SIZES = (2, 3, 4, 5)
"""Of filters, along y and x."""
POINTS = {6: (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2), 7: (3 / 8, -3 / 8, 7 / 8, -7 / 8, 13 / 8, -13 / 8)}
"""By the tile's voxels a side; floating-point numbers that are exact."""
MADE, SUMMED = 24, 48  # tiles at a time of the result, and of the filter's gradient; multiples of all ROWS
LARGE = 2**20  # bytes of spectra from which on more tiles at a time are worth the room they take
_MOST = len(ROWS)


def matrices(tile: int, size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Matrices of tiles and filters of some voxels a side, by the Toom-Cook construction.

    Returns
    -------
    of the filter (tile, size), of the tile (tile, tile), of the result (tile + 1 - size, tile): in one dimension, the
    result is result @ ((filter @ f) * (tile @ t))
    """

    def from_roots(roots: list[Fraction]) -> list[Fraction]:
        made = [Fraction(1)]
        for root in roots:
            made = [up - root * here for up, here in zip([Fraction(0), *made], [*made, Fraction(0)])]
        return made

    points, edge = [Fraction(point) for point in POINTS[tile]], tile + 1 - size
    others = [[one for one in points if one != point] for point in points]
    scales = [math.prod(point - other for other in rest) for point, rest in zip(points, others)]
    of_filter = [[point**j / scale for j in range(size)] for point, scale in zip(points, scales)]
    of_tile = [[*from_roots(rest), Fraction(0)] for rest in others]
    of_result = [[point**j for j in range(edge)] for point in points]
    last = [Fraction(0)] * (tile - 1) + [Fraction(1)]  # infinity: the highest coefficient
    made = [*of_filter, last[-size:]], [*of_tile, from_roots(points)], [*of_result, last[-edge:]]
    filters, tiles, results = (np.array(one, np.float64) for one in made)
    return filters, tiles, results.T


_TILES = {tile: matrices(tile, 3)[1] for tile in POINTS}  # the same for all sizes
_RESULTS = {10 * tile + size: matrices(tile, size)[2] for tile in POINTS for size in SIZES}
_GRADIENTS = {number: matrix.T for number, matrix in _RESULTS.items()}
_down, _along = transform(_TILES, reads=True), transform(_TILES)
_down_gradient, _across_gradient = transform(_GRADIENTS, reads=True), transform(_GRADIENTS)
_across_result, _down_result = transform(_RESULTS), transform(_RESULTS, writes=True, adds=True)
_take, _put = transform({1: np.eye(1)}, reads=True), transform({1: np.eye(1)}, writes=True)


@njit(cache=True, nogil=True)
def convolve(volume, spectra, bias, floor, tile, size, depth, dilation, margin, out, first, last):
    """Write the tiles `first` to `last` of the cross-correlation; see `tiles`.

    `spectra` are (tile², depth · maps in, maps out up to whole vectors), `depth` is the filter's along z, `margin` the
    zeros on each side of the volume (z, y, x). What is below `floor` is raised to it.
    """
    edge, deep, maps, long = tile + 1 - size, volume.shape[4] * depth, out.shape[4], spectra.shape[2]
    wide, together = _wide(volume.shape[4], depth), MADE if 4 * spectra.size < LARGE else SUMMED
    columns, rows = _room(tile, together, tile, wide), _room(tile, together, edge, long)
    given, made = _line(tile, together, wide), _line(tile, together, long)
    voxels, result = _room(tile, 1, tile, wide)[0], _room(edge, 1, edge, long)[0]
    places = np.empty((together, 3), np.int64)
    filled, step, none = 0, 4 * long, np.float32(0)
    for number in range(first, last):
        section, y, x = _place(number, out.shape, dilation, edge)
        if y < out.shape[2] and x < out.shape[3]:
            _analyse(volume, section, out.shape[1], y, x, depth, dilation, margin, columns[filled], voxels)
            places[filled, 0], places[filled, 1], places[filled, 2] = section, y, x
            filled += 1
        if filled < together and (number < last - 1 or filled == 0):
            continue
        for i in range(tile):  # what the product needs is in the nearest caches
            _across(columns, i, filled, given)
            for j in range(tile):
                _multiply(
                    0, given[j].ctypes.data, 4 * wide, 4, spectra[i * tile + j].ctypes.data, step,
                    made[j].ctypes.data, step, filled, long // LANES, deep, False,
                )  # fmt: skip
            _across_result(
                10 * tile + size, filled, made.ctypes.data, step, 4 * made.shape[1],
                rows[0, i].ctypes.data, 4 * rows[0].size, 4 * rows.shape[3], maps, 0, none,
            )  # fmt: skip
        for t in range(filled):
            _synthesise(rows[t], places[t], bias, floor, dilation, out, result)
        filled = 0


@njit(cache=True, nogil=True)
def filter_gradient(volume, gradient, tile, size, depth, dilation, margin, first, last):
    """Return the gradient of the filters' spectra (tile², maps out, depth · maps in; both rounded up) by some tiles."""
    edge, maps = tile + 1 - size, gradient.shape[4]
    wide, high = _wide(volume.shape[4], depth), max(_padded(maps), -(-maps // 12) * 12)
    columns, pieces = _room(tile, SUMMED, tile, wide), _room(tile, SUMMED, edge, high)
    given, outer = _line(tile, SUMMED, wide), _line(tile, SUMMED, high)
    voxels, piece = _room(tile, 1, tile, wide)[0], _room(edge, 1, edge, high)[0]
    sums = zeros(tile * tile * high * wide).reshape(tile * tile, high, wide)
    filled, none = 0, np.float32(0)
    for number in range(first, last):
        section, y, x = _place(number, gradient.shape, dilation, edge)
        if y < gradient.shape[2] and x < gradient.shape[3]:
            _analyse(volume, section, gradient.shape[1], y, x, depth, dilation, margin, columns[filled], voxels)
            _analyse_gradient(gradient, section, y, x, tile, size, dilation, pieces[filled], piece)
            filled += 1
        if filled < SUMMED and (number < last - 1 or filled == 0):
            continue
        for i in range(tile):
            _across(columns, i, filled, given)
            _across_gradient(
                10 * tile + size, filled, pieces[0, i].ctypes.data, 4 * pieces[0].size, 4 * pieces.shape[3],
                outer.ctypes.data, 4 * high, 4 * outer.shape[1], maps, 0, none,
            )  # fmt: skip
            for j in range(tile):
                _multiply(
                    1, outer[j].ctypes.data, 4, 4 * high, given[j].ctypes.data, 4 * wide,
                    sums[i * tile + j].ctypes.data, 4 * wide, maps, wide // LANES, filled, True,
                )  # fmt: skip
        filled = 0
    return sums


@njit(cache=True, nogil=True)
def tiles(shape, tile, size, dilation):
    """Count the tiles of a result (n, z, y, x, maps): along x fastest, those of all offsets within the dilation."""
    edge = tile + 1 - size
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
def _wide(maps, depth):
    """Numbers of a line of `depth` times `maps`, each written in whole vectors."""
    return _padded((depth - 1) * maps + _padded(maps))


@njit(cache=True, nogil=True)
def zeros(count):
    """Numbers that start where a line of the cache does: vectors across two lines take twice as long."""
    room = np.zeros(count + 15, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + count]


@njit(cache=True, nogil=True)
def _room(tile, tiles, edge, long):
    """Tiles between their transforms, along rows first; 0, which no product slows down, where none has been."""
    return zeros(tiles * tile * edge * long).reshape(tiles, tile, edge, long)


@njit(cache=True, nogil=True)
def _line(tile, tiles, long):
    """A row of frequencies of tiles, apart so that they do not fall on the same lines of the cache."""
    return zeros(tile * (tiles * long + LANES)).reshape(tile, tiles * long + LANES)


@njit(cache=True, nogil=True)
def _analyse(volume, section, sections, y, x, depth, dilation, margin, columns, voxels):
    """Transform the columns of a tile of each of the `depth` sections that the filter covers, zeros beyond."""
    _, deep, height, width, maps = volume.shape
    tile = len(columns)
    n, z, y, x = section // sections, section % sections - margin[0], y - margin[1], x - margin[2]
    high, wide, line = y + (tile - 1) * dilation[1], x + (tile - 1) * dilation[2], 4 * columns.shape[2]
    for k in range(depth):
        within = 0 <= z + k * dilation[0] < deep
        if within and y >= 0 and x >= 0 and high < height and wide < width:
            source = volume.ctypes.data + 4 * maps * (((n * deep + z + k * dilation[0]) * height + y) * width + x)
            down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
        else:
            voxels[:] = 0
            if within:
                start = volume.ctypes.data + 4 * maps * (n * deep + z + k * dilation[0]) * height * width
                _copy(start, y, x, height, width, maps, dilation, voxels, tile, True)
            source, down, across = voxels.ctypes.data, 4 * tile * voxels.shape[2], 4 * voxels.shape[2]
        target = columns.ctypes.data + 4 * k * maps
        _down(tile, tile, source, across, down, target, line, tile * line, maps, 0, np.float32(0))


@njit(cache=True, nogil=True)
def _across(columns, i, filled, given):
    """Transform row `i` of tiles."""
    long = columns.shape[3]
    _along(
        len(given), filled, columns[0, i].ctypes.data, 4 * columns[0].size, 4 * long,
        given.ctypes.data, 4 * long, 4 * given.shape[1], long, 0, np.float32(0),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _analyse_gradient(gradient, section, y, x, tile, size, dilation, pieces, piece):
    """Transform the columns of a tile of the result's gradient, zeros beyond its end."""
    _, _, height, width, maps = gradient.shape
    edge, line = tile + 1 - size, 4 * pieces.shape[2]
    if y + (edge - 1) * dilation[1] < height and x + (edge - 1) * dilation[2] < width:
        source = gradient.ctypes.data + 4 * maps * ((section * height + y) * width + x)
        down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
    else:
        piece[:] = 0
        start = gradient.ctypes.data + 4 * maps * section * height * width
        _copy(start, y, x, height, width, maps, dilation, piece, edge, True)
        source, down, across = piece.ctypes.data, 4 * edge * piece.shape[2], 4 * piece.shape[2]
    target = pieces.ctypes.data
    _down_gradient(10 * tile + size, edge, source, across, down, target, line, edge * line, maps, 0, np.float32(0))


@njit(cache=True, nogil=True)
def _synthesise(rows, place, bias, floor, dilation, out, result):
    """Transform the columns of a tile back to voxels of the result."""
    _, _, height, width, maps = out.shape
    section, y, x = place[0], place[1], place[2]
    tile, edge, line = len(rows), rows.shape[1], 4 * rows.shape[2]
    whole = y + (edge - 1) * dilation[1] < height and x + (edge - 1) * dilation[2] < width
    if whole:
        target = out.ctypes.data + 4 * maps * ((section * height + y) * width + x)
        down, across = 4 * maps * width * dilation[1], 4 * maps * dilation[2]
    else:
        target, down, across = result.ctypes.data, 4 * edge * result.shape[2], 4 * result.shape[2]
    source = rows.ctypes.data
    _down_result(
        10 * tile + tile + 1 - edge,
        edge,
        source,
        line,
        edge * line,
        target,
        across,
        down,
        maps,
        bias.ctypes.data,
        floor,
    )
    if not whole:
        start = out.ctypes.data + 4 * maps * section * height * width
        _copy(start, y, x, height, width, maps, dilation, result, edge, False)


@njit(cache=True, nogil=True)
def _copy(section, y, x, height, width, maps, dilation, tile, edge, reads):
    """Copy what lies within a section between it (an address) and a tile whose first voxel is at y, x."""
    left, right = max(0, -(x // dilation[2])), min(edge, (width - 1 - x) // dilation[2] + 1)
    line = 4 * tile.shape[2]
    for i in range(edge):
        row = y + i * dilation[1]
        if 0 <= row < height and left < right:
            there = section + 4 * maps * (row * width + x + left * dilation[2])
            here, gap = tile[i, left].ctypes.data, 4 * maps * dilation[2]
            if reads:
                _take(1, right - left, there, gap, 0, here, line, 0, maps, 0, np.float32(0))
            else:
                _put(1, right - left, here, line, 0, there, gap, 0, maps, 0, np.float32(0))


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
