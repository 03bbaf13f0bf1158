"""Arrays to pictures: grey images, coloured segmentations, outlines, PNG data URIs and the scale bar's length.

Colours must let the eye compare: a colour is a hash of the id, so it is random but the same on every page, and a
segment that is the largest piece of a true object takes that object's colour. A correct segmentation then looks
exactly like its truth; a foreign colour is a split-off piece, and one colour across truth's outlines is a merge.
Background is black. PNG is written here with zlib, so the report needs no imaging library.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from neuropil.errors import InputError
from neuropil.report.data import Image, Labels, SectionPanel

# Okabe & Ito 2008, "Color Universal Design": told apart by all common kinds of colour vision.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0),
)  # fmt: skip
Colour = tuple[int, int, int]


def png_uri(picture: Image) -> str:
    """Return a `data:image/png` URI of a picture; argument and errors are those of `png`.

    Examples
    --------
    >>> png_uri(np.zeros((2, 3), np.uint8))[:22]
    'data:image/png;base64,'
    """
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def png(picture: Image) -> bytes:
    """Return the PNG file of a grey (y, x) or red-green-blue (y, x, 3) uint8 picture.

    Raises
    ------
    InputError : `picture` is not uint8, is empty or has another shape

    Examples
    --------
    >>> png(np.zeros((2, 3), np.uint8))[:4]
    b'\\x89PNG'
    """
    picture = np.ascontiguousarray(picture)
    grey, colour = picture.ndim == 2, picture.ndim == 3 and picture.shape[-1] == 3
    if picture.dtype != np.uint8 or picture.size == 0 or not (grey or colour):
        raise InputError(
            f"picture must be a uint8 array (y, x) or (y, x, 3) with pixels; got {picture.dtype} {picture.shape}"
        )
    height, width = picture.shape[:2]
    kind, palette = (0, b"") if grey else (2, b"")
    if colour:
        packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known, place = np.unique(packed, return_inverse=True)
        if len(known) <= 256:  # one byte a pixel and a table of colours, instead of three bytes
            kind, picture = 3, place.reshape(height, width).astype(np.uint8)
            palette = _chunk(b"PLTE", known.astype(">u4")[:, None].view(np.uint8)[:, 1:].tobytes())
    rows = picture.reshape(height, -1)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    # Of PNG's line filters, 0 (none) suits flat colours and 2 (difference to the line above) suits grey images.
    data = _deflate(rows, 0) if kind == 3 else min((_deflate(rows, 0), _deflate(rows - above, 2)), key=len)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + palette + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def colours_of(ids: npt.NDArray[np.uint64]) -> Image:
    """Return one colour per id, shape (n, 3) uint8: a hash of the id, never dark; id 0 is black.

    >>> colours_of(np.array([0, 7, 2**63], np.uint64)).min(axis=1) > 40
    array([False,  True,  True])
    """
    mixed = np.asarray(ids, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finaliser of splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    hue, saturation, value = (
        ((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) / 0xFFFF for shift in (0, 16, 32)
    )
    saturation, value = 0.4 + 0.35 * saturation, 0.72 + 0.28 * value
    # Channel c of hue h is a trapezoid of the distance between h and the channel's own hue, in sixths of a turn.
    distance = (np.array([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    ramp = np.clip(np.minimum(distance, 4 - distance), 0, 1)
    colours = np.rint(255 * value[:, None] * (1 - saturation[:, None] * ramp)).astype(np.uint8)
    return np.where(np.asarray(ids)[:, None] == 0, np.uint8(0), colours)


def paint(labels: Labels, truth: Labels | None = None) -> Image:
    """Colour a segmentation (y, x), background black; returns (y, x, 3) uint8.

    With `truth` of the same shape, a segment that is the largest piece of the true object it overlaps most takes that
    object's colour.

    >>> labels, truth = np.array([[5, 5, 6, 0]], np.uint64), np.array([[1, 1, 1, 1]], np.uint64)
    >>> bool((paint(labels, truth)[0, 0] == paint(truth)[0, 0]).all())
    True
    """
    ids, place = np.unique(labels, return_inverse=True)
    colours = colours_of(ids.astype(np.uint64))
    if truth is not None:
        _require_shape("truth", truth, labels)
        for segment, true_object in largest_pieces(labels, truth).items():
            colours[np.searchsorted(ids, segment)] = colours_of(np.array([true_object], np.uint64))[0]
    return np.asarray(colours[place.reshape(labels.shape)], dtype=np.uint8)


def largest_pieces(labels: Labels, truth: Labels) -> Mapping[int, int]:
    """Map each segment that is the largest piece of a true object, and overlaps it most, to that object.

    >>> largest_pieces(np.array([5, 5, 6], np.uint64), np.array([1, 1, 1], np.uint64))
    {5: 1}
    """
    both = (labels > 0) & (truth > 0)
    if not both.any():
        return {}
    segments, i = np.unique(labels[both], return_inverse=True)
    objects, j = np.unique(truth[both], return_inverse=True)
    pairs, counts = np.unique(i.astype(np.int64) * len(objects) + j, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last write, thus the largest overlap, wins below
    i, j = np.divmod(pairs[order], len(objects))
    object_of, piece_of = np.zeros(len(segments), np.int64), np.zeros(len(objects), np.int64)
    object_of[i], piece_of[j] = j, i
    return {int(segments[s]): int(objects[o]) for s, o in enumerate(object_of) if piece_of[o] == s}


def link_colours(affinities: Image | npt.NDArray[np.float32]) -> Image:
    """Turn links along z, y and x (3, y, x) into red, green and blue (y, x, 3): white inside, black between.

    They are uint8, 255 = same object, or float32 in [0, 1].

    >>> link_colours(np.ones((3, 4, 5), np.float32))[0, 0].tolist()
    [255, 255, 255]
    """
    values = affinities if affinities.dtype == np.uint8 else np.rint(affinities * 255)
    return np.ascontiguousarray(np.moveaxis(values, 0, -1).astype(np.uint8))


def ids_by_size(labels: Labels) -> dict[int, int]:
    """Map each id but 0 to its number of pixels, largest first.

    >>> ids_by_size(np.array([0, 7, 7, 3], np.uint64))
    {7: 2, 3: 1}
    """
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(ids[k]): int(counts[k]) for k in order}


def mask_of(labels: Labels, ids: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of any of `ids`.

    >>> mask_of(np.array([0, 7, 3], np.uint64), [3]).tolist()
    [False, False, True]
    """
    return np.isin(labels, np.array(list(ids), dtype=np.uint64))


def outlines(labels: Labels, reach: float = 8) -> npt.NDArray[np.bool_]:
    """Mark the borders between objects, two pixels wide; bool (y, x).

    Background between two objects is first shared out to the nearer one, up to `reach` pixels, so that a membrane gets
    one line along its middle instead of one on each side.

    >>> outlines(np.array([[1, 1, 0, 0, 2, 2]], np.uint64)).astype(int)
    array([[0, 0, 1, 1, 0, 0]])
    """
    edge = np.zeros(labels.shape, dtype=bool)
    if not labels.any():
        return edge
    distance, (y, x) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    grown = np.where(distance <= reach, labels[y, x], 0)
    down, right = grown[1:] != grown[:-1], grown[:, 1:] != grown[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def draw(picture: Image, mask: npt.NDArray[np.bool_], colour: Colour, opacity: float = 1.0) -> Image:
    """Return a copy of `picture` in colour, with `colour` laid over the pixels of `mask`; `opacity` in [0, 1].

    >>> draw(np.zeros((1, 2), np.uint8), np.array([[True, False]]), (200, 100, 0), 0.5).tolist()
    [[[100, 50, 0], [0, 0, 0]]]
    """
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    rgb = rgb.copy()
    rgb[mask] = np.rint((1 - opacity) * rgb[mask] + opacity * np.array(colour)).astype(np.uint8)
    return rgb


def highlight(image: Image, labels: Labels, ids: Sequence[int]) -> Image:
    """Lay the outlines of all labels and a strong colour for each of `ids` over an image (y, x).

    >>> labels = np.array([[1, 1, 2]], np.uint64)
    >>> highlight(np.full((1, 3), 90, np.uint8), labels, [2]).shape
    (1, 3, 3)
    """
    _require_shape("labels", labels, image)
    picture = draw(image, outlines(labels), (255, 255, 255), 0.4)
    strong = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
    for k, one in enumerate(ids):
        picture = draw(picture, labels == np.uint64(one), strong[k % len(strong)], 0.55)
    return picture


def crop(panel: SectionPanel, centre: tuple[int, int] | None, size: int) -> SectionPanel:
    """Cut a panel to at most `size` pixels square around `centre` (y, x; the middle if None), moved inside its edges.

    >>> panel = SectionPanel(z=0, image=np.zeros((9, 20), np.uint8))
    >>> small = crop(panel, (1, 19), 5)
    >>> small.image.shape, small.corner
    ((5, 5), (0, 15))
    """
    height, width = panel.image.shape
    middle = centre if centre is not None else (height // 2, width // 2)
    start = [max(0, min(c - size // 2, n - size)) for c, n in zip(middle, (height, width))]
    cut = (slice(start[0], start[0] + size), slice(start[1], start[1] + size))
    models = tuple(
        dataclasses.replace(
            one,
            boundary=None if one.boundary is None else one.boundary[cut],
            affinities=None if one.affinities is None else one.affinities[:, *cut],
            fragments=None if one.fragments is None else one.fragments[cut],
            segmentations={decoder: labels[cut] for decoder, labels in one.segmentations.items()},
        )
        for one in panel.models
    )
    return dataclasses.replace(
        panel,
        image=panel.image[cut],
        truth=None if panel.truth is None else panel.truth[cut],
        models=models,
        corner=(panel.corner[0] + start[0], panel.corner[1] + start[1]),
    )


def scale_bar(width: int, voxel_nm: float) -> tuple[float, str]:
    """Return the length of a scale bar, as a fraction of a picture `width` voxels wide, and its text.

    The length is 1, 2 or 5 times a power of ten in nm, the longest that fills at most 30 % of the picture.

    >>> scale_bar(512, 4.0)
    (0.244140625, '500 nm')
    """
    if width < 1 or not voxel_nm > 0:
        raise InputError(f"width and voxel_nm must be positive; got {width} and {voxel_nm}")
    room = 0.3 * width * voxel_nm
    power = 10.0 ** math.floor(math.log10(room))
    length = max(step * power for step in (1, 2, 5) if step * power <= room)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    return length / (width * voxel_nm), text


def _deflate(rows: Image, line_filter: int) -> bytes:
    mark = np.full((len(rows), 1), line_filter, dtype=np.uint8)
    return zlib.compress(np.hstack([mark, rows]).tobytes(), 7)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _require_shape(name: str, array: npt.NDArray[np.uint64], like: npt.NDArray[np.generic]) -> None:
    if array.shape != like.shape:
        raise InputError(f"{name} must have the picture's shape {like.shape}; got {array.shape}")
