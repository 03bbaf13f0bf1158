"""What every storage backend shares: checks of boxes and arrays, closing, and plain words for a full disk.

A backend gives `_read(box)` and `_write(box, array)`, which may trust their arguments, `_read_channels(box, channels)`
where that need not read all of them, and `_finish` / `_abandon` where closing means more than forgetting.
"""

from __future__ import annotations

import difflib
import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from neuropil.errors import InputError, NeuropilError, StorageFull, VolumeError, VolumeNotFound
from neuropil.geometry import Box
from neuropil.reads import note
from neuropil.volume.metadata import Metadata

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "errno = 28", "os_error_code='28'")


@dataclass(frozen=True)
class Entry:
    """One array of a container: its name inside, shape as stored, and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


class VolumeBase:
    """Common part of all volumes; see `neuropil.volume.volume.Volume` for the meaning of each name."""

    def __init__(
        self, uri: str, shape: Sequence[int], dtype: Any, metadata: Metadata, chunk_shape: Sequence[int], writable: bool
    ) -> None:
        self.uri = uri
        self.shape = tuple(int(n) for n in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
        self.metadata = metadata
        self.chunk_shape = tuple(int(n) for n in chunk_shape)
        self.writable = writable
        self._open = True

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Extent z, y, x in voxels, without channels."""
        z, y, x = self.shape[-3:]
        return (z, y, x)

    def read(self, box: Box | None = None, channels: slice | None = None) -> np.ndarray:
        """Return the voxels of `box` (the whole volume if omitted) as a new array (z, y, x) or (c, z, y, x)."""
        box = self._checked(box)
        if channels is not None and len(self.shape) != 4:
            raise InputError(f"channels are for volumes (c, z, y, x); {self.uri} has shape {self.shape}")
        note(self.uri, box.start, box.stop)
        with storage_errors(self.uri, "read"):
            array = self._read(box) if channels is None else self._read_channels(box, channels)
        if array.dtype != self.dtype or not array.flags.c_contiguous or not array.flags.owndata:
            array = np.array(array, dtype=self.dtype, order="C")
        return array

    def write(self, box: Box | None, array: np.ndarray) -> None:
        """Store `array` at `box` (None: everywhere); its dtype and shape must be those of the volume and box."""
        if not self.writable:
            raise InputError(f"{self.uri} was opened for reading; open it with writable=True to write")
        box = self._checked(box)
        array = np.asarray(array)
        if array.dtype != self.dtype:
            raise InputError(f"array for {self.uri} must be {self.dtype} like the volume; got {array.dtype}")
        shape = (*self.shape[:-3], *box.shape)
        if array.shape != shape:
            raise InputError(f"array for {self.uri} must have the shape of its box, {shape}; got {array.shape}")
        if box.size:
            with storage_errors(self.uri, "write"):
                self._write(box, np.ascontiguousarray(array))

    def close(self) -> None:
        """Finish what was written and let go of the file; closing twice is allowed."""
        if self._open:
            self._open = False
            with storage_errors(self.uri, "finish"):
                self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._open:
            self._open = False
            self._abandon()

    def __repr__(self) -> str:
        return f"<volume {self.uri} {self.dtype} {self.shape}>"

    def _checked(self, box: Box | None) -> Box:
        if not self._open:
            raise InputError(f"{self.uri} is closed; open it again to use it")
        whole = Box.of_shape(self.spatial_shape)
        if box is None:
            return whole
        if len(box.start) != 3:
            raise InputError(f"box must have three axes z, y, x; got start {box.start}")
        if not whole.contains(box):
            raise InputError(
                f"box must lie inside {self.uri}, whose extent is {whole.stop}; got start {box.start}, stop {box.stop}"
            )
        return box

    def _read(self, box: Box) -> np.ndarray:
        raise NotImplementedError

    def _read_channels(self, box: Box, channels: slice) -> np.ndarray:
        return self._read(box)[channels]

    def _write(self, box: Box, array: np.ndarray) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Complete the output; backends that only release a handle override this alone."""

    def _abandon(self) -> None:
        """Release after an error, leaving nothing half-written where that is possible."""
        self._finish()


def is_full(error: BaseException) -> bool:
    """Tell whether an error of any storage library means that the disk is full."""
    return getattr(error, "errno", None) in _FULL or any(word in str(error) for word in _FULL_WORDS)


@contextmanager
def storage_errors(uri: str, verb: str) -> Iterator[None]:
    """Turn the errors of storage libraries into one sentence: StorageFull for a full disk, else VolumeError."""
    try:
        yield
    except NeuropilError:
        raise
    except Exception as error:
        if is_full(error):
            raise StorageFull(
                f"the disk is full, {uri} could not be written further; what was written so far is kept"
            ) from error
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise VolumeError(f"cannot {verb} {uri}: {reason[:300]}") from error


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape as ints; it must be (z, y, x) or (c, z, y, x) with no empty axis."""
    result = tuple(int(n) for n in shape)
    if len(result) not in (3, 4) or any(n < 1 for n in result):
        raise InputError(f"shape must be (z, y, x) or (c, z, y, x) with positive extents; got {result}")
    return result


def refuse_axes(uri: str, shape: Sequence[int]) -> None:
    """Raise InputError unless the stored array has 3 or 4 axes, none empty."""
    if len(shape) not in (3, 4):
        hint = "; put 2-D sections in a folder and give the folder" if len(shape) == 2 else ""
        raise InputError(
            f"{uri} must have 3 axes (z, y, x) or 4 (c, z, y, x); it has {len(shape)}: {tuple(shape)}{hint}"
        )
    if 0 in shape:
        raise InputError(f"{uri} is empty: its shape is {tuple(shape)}")


def fitted_chunks(chunk_shape: Sequence[int] | None, default: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return spatial chunk extents no larger than the volume; `default` where the caller named none."""
    chosen = tuple(int(n) for n in (default if chunk_shape is None else chunk_shape))[-3:]
    if len(chosen) != 3 or any(n < 1 for n in chosen):
        raise InputError(f"chunk_shape must be three positive extents z, y, x; got {chunk_shape!r}")
    return tuple(min(n, extent) for n, extent in zip(chosen, tuple(shape)[-3:]))


def choose_array(path: str, wanted: str, entries: Sequence[Entry], word: str) -> str:
    """Return the name of the array to open: the one wanted, or the only one there is.

    Raises VolumeNotFound for a wrong name (with the nearest) and InputError where several are there and none is named.
    """
    more = f" and {len(entries) - 20} more" if len(entries) > 20 else ""
    listing = ", ".join(str(entry) for entry in entries[:20]) + more
    if not wanted:
        if len(entries) == 1:
            return entries[0].name
        if not entries:
            raise VolumeNotFound(f"{path} holds no {word} with 3 or 4 axes")
        mark = ":" if word == "dataset" else "/"
        raise InputError(
            f"{path} holds {len(entries)} {word}s and none is named; give one as {path}{mark}NAME: {listing}"
        )
    names = [entry.name for entry in entries]
    nearest = [name for name in names if name.endswith("/" + wanted)]
    nearest = nearest or difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise VolumeNotFound(f"{path} has no {word} '{wanted}'; {hint}it holds {listing or 'none with 3 or 4 axes'}")


class SectionCache:
    """The sections decoded last, up to a number of bytes, so that blocks side by side do not decode one again."""

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._sections: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, number: int, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Return section `number`, decoded now if it is not kept."""
        with self._lock:
            if number in self._sections:
                self._sections.move_to_end(number)
                return self._sections[number]
            section = decode()
            self._sections[number] = section
            while len(self._sections) > 1 and sum(kept.nbytes for kept in self._sections.values()) > self._max_bytes:
                self._sections.popitem(last=False)
            return section

    def forget(self, number: int) -> None:
        """Drop a section that is about to change."""
        with self._lock:
            self._sections.pop(number, None)
