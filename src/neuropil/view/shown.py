"""What is shown: a volume with its place and meaning, or points; nothing here needs a viewer."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box

Role = Literal["image", "boundary", "affinities", "mask", "fragments", "segmentation", "truth"]
"""What a volume is to whoever looks; decides its colours and its place."""
ROLES: tuple[Role, ...] = get_args(Role)
LABELS = ("fragments", "segmentation", "truth")


class Source(Protocol):
    """Voxels that can be read in boxes, as a volume on disk is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x) or (c, z, y, x), voxels."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Return the voxels of a box, all channels."""
        ...


@dataclass(frozen=True)
class Shown:
    """A volume to look at.

    Attributes
    ----------
    name : of its layer; no two are the same
    role : what it is
    source : where its voxels come from, read a piece at a time
    voxel_size, offset : nm, z, y, x; the offset is the place of the first voxel's centre
    scale : real value = stored value * scale; None means 1
    offsets : of affinities, one (z, y, x) per channel; None if not known
    """

    name: str
    role: Role
    source: Source
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float | None = None
    offsets: tuple[tuple[int, int, int], ...] | None = None

    def __post_init__(self) -> None:
        axes = len(self.source.shape)
        if axes != 4 if self.role == "affinities" else axes != 3:
            wanted = "c, z, y, x" if self.role == "affinities" else "z, y, x"
            raise InputError(
                f"{self.name} must have axes {wanted} to be shown as {self.role}; its shape is {self.source.shape}"
            )
        if self.role in LABELS and self.source.dtype.kind not in "bui" and self.source.dtype != np.int64:
            raise InputError(f"{self.name} must hold integers to be {self.role}; it holds {self.source.dtype}")

    def voxel_at(self, point_nm: tuple[float, float, float]) -> tuple[int, int, int] | None:
        """Return the voxel, z, y, x, whose inside holds a point, or None where there is none.

        >>> class Row:
        ...     shape, dtype = (1, 1, 4), np.dtype("u1")
        >>> Shown("row", "image", Row(), (40.0, 4.0, 4.0)).voxel_at((0, 0, 6.1))
        (0, 0, 2)
        """
        z, y, x = (
            int(np.floor((p - o) / s + 0.5)) for p, o, s in zip(point_nm, self.offset, self.voxel_size, strict=True)
        )
        inside = all(0 <= k < n for k, n in zip((z, y, x), self.source.shape[-3:]))
        return (z, y, x) if inside else None


@dataclass(frozen=True)
class Points:
    """Places to look at, such as errors.

    Attributes
    ----------
    name : of their layer
    points_nm : float64 (n, 3), z, y, x
    texts : what is said of each
    """

    name: str
    points_nm: NDArray[np.float64]
    texts: tuple[str, ...]


class Pieces:
    """An array of whose voxels only those asked for are read: what the viewer's server takes for an array.

    A type that the viewer does not know becomes the next one that it does. One piece is read at a time, since not all
    formats can be read by several threads at once.
    """

    def __init__(self, source: Source, *, labels: bool = False) -> None:
        self._source, self._lock = source, threading.Lock()
        self.shape = tuple(source.shape)
        self.dtype = _known_type(np.dtype(source.dtype), labels=labels)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        channels, place = index[:-3], index[-3:]
        box = Box(tuple(int(one.start) for one in place), tuple(int(one.stop) for one in place))
        with self._lock:
            array = self._source.read(box)
        return array[tuple(channels)].astype(self.dtype, copy=False)

    def transpose(self) -> NDArray[Any]:
        """Return the whole array, x, y, z, of which meshes are made."""
        with self._lock:
            return self._source.read().astype(self.dtype, copy=False).transpose()


def _known_type(dtype: np.dtype[Any], *, labels: bool) -> np.dtype[Any]:
    """Return the nearest type that the viewer shows.

    >>> _known_type(np.dtype("i8"), labels=True), _known_type(np.dtype("?"), labels=False)
    (dtype('uint64'), dtype('uint8'))
    """
    if labels:
        return np.dtype(np.uint32 if dtype.itemsize < 8 else np.uint64)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" or dtype.itemsize == 8:
        return np.dtype(np.float32)
    return dtype
