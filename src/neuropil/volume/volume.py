"""Open and make volumes: one protocol, whatever the format.

Axes are z, y, x, channels first (c, z, y, x); a box is spatial and channels are always written whole. Which
backend serves a URI is settled here, and a backend's library is imported only when one of its volumes is touched.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from neuropil.errors import InputError, OutputExists, VolumeNotFound
from neuropil.geometry import Box
from neuropil.volume.base import Entry, checked_shape
from neuropil.volume.metadata import Kind, Length, Metadata
from neuropil.volume.uri import Location, parse_uri

_BACKENDS = {"hdf5": "hdf5", "tiff": "tiff", "sections": "sections"}


class Volume(Protocol):
    """An array on disk or in a bucket, with its metadata; also a context manager.

    Attributes
    ----------
    uri : as it was given
    shape : (z, y, x) or (c, z, y, x), voxels
    spatial_shape : (z, y, x), voxels
    dtype : NumPy dtype, native byte order
    metadata : voxel size, offset, kind, scale, offsets, axes and where each belief came from
    chunk_shape : (z, y, x), voxels; blocks aligned to it are written fastest, and side by side by several processes
    writable : whether `write` is allowed
    """

    uri: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    metadata: Metadata
    chunk_shape: tuple[int, ...]
    writable: bool

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Extent z, y, x in voxels, without channels."""
        ...

    def read(self, box: Box | None = None, channels: slice | None = None) -> np.ndarray:
        """Return the voxels of `box` (the whole volume if omitted) as a new array (z, y, x) or (c, z, y, x).

        With `channels` only those of (c, z, y, x) are read; from zarr the others stay on disk.
        """
        ...

    def write(self, box: Box | None, array: np.ndarray) -> None:
        """Store `array` at `box` (None: everywhere); its dtype and shape must be those of the volume and box."""
        ...

    def close(self) -> None:
        """Finish what was written and let go of the file; closing twice is allowed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_volume(uri: str | os.PathLike[str], *, writable: bool = False) -> Volume:
    """Open a volume that exists.

    Parameters
    ----------
    uri : file.h5:dataset, file.tif, folder of sections, x.zarr[/array], n5://..., precomputed://..., gs://..., data://...
    writable : allow `write`; TIFF stacks cannot be changed once finished

    Raises
    ------
    VolumeNotFound : nothing there, or no such dataset (with the nearest name and the list)
    VolumeError : truncated, foreign or unreadable
    InputError : several arrays and none named, a 2-D image, an RGB image

    >>> import tempfile, numpy as np
    >>> uri = tempfile.mkdtemp() + "/stack.h5:raw"
    >>> with create_volume(uri, shape=(2, 3, 4), dtype="uint8", voxel_size=(40, 4, 4), kind="image") as volume:
    ...     volume.write(None, np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    >>> with open_volume(uri) as volume:
    ...     volume.metadata.voxel_size, volume.read(Box((1, 0, 0), (2, 1, 4))).tolist()
    ((40.0, 4.0, 4.0), [[[12, 13, 14, 15]]])
    """
    return open_location(parse_uri(uri), writable=writable)


def open_location(location: Location, *, writable: bool = False) -> Volume:
    """Open a volume whose place and format are known already; as `open_volume`."""
    volume: Volume = backend_of(location).open_volume(location, writable=writable)
    return volume


def create_volume(
    uri: str | os.PathLike[str],
    *,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size: Length | Sequence[float] | None = None,
    offset: Length | Sequence[float] = (0.0, 0.0, 0.0),
    kind: Kind | None = None,
    scale: float | None = None,
    offsets: Sequence[Sequence[int]] | None = None,
    chunk_shape: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Volume:
    """Make a volume of zeros to write into.

    Parameters
    ----------
    uri : where; the suffix or scheme settles the format, a path without suffix is a folder of sections
    shape : (z, y, x) or (c, z, y, x), voxels
    dtype : of the stored values; a format that cannot hold it says so
    voxel_size, offset : z, y, x in nm
    kind, scale, offsets : see `Metadata`; in affinities 1 means "same"
    chunk_shape : (z, y, x), the unit of writing; chosen by the format if omitted
    overwrite : replace what is there instead of raising OutputExists

    Raises
    ------
    OutputExists, InputError, StorageFull
    """
    location = parse_uri(uri)
    channels = len(shape) == 4
    metadata = Metadata(
        voxel_size=voxel_size,  # type: ignore[arg-type]  # Metadata checks and converts
        offset=offset,  # type: ignore[arg-type]
        kind=kind,
        scale=scale,
        offsets=offsets,  # type: ignore[arg-type]
        one_means="same" if kind == "affinities" else None,
        axes=("c", "z", "y", "x") if channels else ("z", "y", "x"),
        sources={},
    )
    size = checked_shape(shape)
    if metadata.offsets is not None and (not channels or len(metadata.offsets) != size[0]):
        raise InputError(f"offsets must list one (z, y, x) per channel; got {len(metadata.offsets)} for shape {size}")
    backend = backend_of(location)
    refuse_data_uri(location)
    if not overwrite and backend.exists(location):
        raise OutputExists(f"{uri} exists already; give --overwrite (overwrite=True) to replace it")
    if not location.remote:
        os.makedirs(os.path.dirname(os.path.abspath(location.path)), exist_ok=True)
    volume: Volume = backend.create_volume(
        location, shape=size, dtype=np.dtype(dtype), metadata=metadata, chunk_shape=chunk_shape
    )
    return volume


def exists(uri: str | os.PathLike[str]) -> bool:
    """Tell whether something is stored at `uri`; for `file.h5:dataset`, whether that dataset is.

    >>> exists("/nowhere/at/all.h5:raw")
    False
    """
    try:
        location = parse_uri(uri)
    except VolumeNotFound:
        return False
    return bool(backend_of(location).exists(location))


def list_arrays(uri: str | os.PathLike[str]) -> list[Entry]:
    """Return the arrays with 3 or 4 axes of a container (HDF5, zarr, n5); empty for other formats.

    >>> import tempfile
    >>> uri = tempfile.mkdtemp() + "/two.h5"
    >>> for name in ("labels", "raw"):
    ...     create_volume(f"{uri}:{name}", shape=(2, 3, 4), dtype="uint8").close()
    >>> [entry.name for entry in list_arrays(uri)]
    ['labels', 'raw']
    """
    location = parse_uri(uri)
    backend = backend_of(location)
    return list(backend.list_arrays(location)) if hasattr(backend, "list_arrays") else []


def refuse_data_uri(location: Location) -> None:
    """Raise InputError for an output among the public data sets."""
    if location.uri.startswith("data://"):
        raise InputError(
            f"{location.uri} names a public data set, which is only read; give a path of your own to write to"
        )


def backend_of(location: Location) -> ModuleType:
    """Return the module that serves a location: it has open_volume, create_volume and exists."""
    return importlib.import_module(f"neuropil.volume.{_BACKENDS.get(location.format, 'tensorstore_')}")
