"""Small files in a bucket, used as `pathlib.Path` is; each is written whole or not at all.

Keys are found by name: there are no folders, only keys that begin alike.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import tensorstore as ts

from neuropil.volume.base import storage_errors
from neuropil.volume.tensorstore_ import bucket


@dataclass(frozen=True)
class ObjectPath:
    """A place in a bucket; data only, so that it travels to any worker.

    >>> ObjectPath("s3://lab/ids.zarr.unfinished") / "faces" / "0_0.npz"
    ObjectPath(uri='s3://lab/ids.zarr.unfinished/faces/0_0.npz')
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str, /) -> ObjectPath:
        return ObjectPath(f"{self.uri}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """Without the last part."""
        return ObjectPath(self.uri.rpartition("/")[0])

    @property
    def stem(self) -> str:
        """The last part, less its suffix."""
        return self.name.rpartition(".")[0] or self.name

    def with_suffix(self, suffix: str, /) -> ObjectPath:
        """Return a place with another suffix."""
        return self.parent / f"{self.stem}{suffix}"

    def absolute(self) -> ObjectPath:
        """Return it as it is."""
        return self

    def exists(self) -> bool:
        """Tell whether an object of exactly this name is there; meant for small ones."""
        with self._errors("look for"):
            return bool(self._store.read(self._key).result().state == "value")

    def read_bytes(self) -> bytes:
        """Return the whole object.

        Raises
        ------
        FileNotFoundError, VolumeError
        """
        with self._errors("read"):
            found = self._store.read(self._key).result()
        if found.state != "value":
            raise FileNotFoundError(2, "No such object", self.uri)
        data: bytes = found.value
        return data

    def read_text(self) -> str:
        """Return the whole object, which is UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes, /) -> None:
        """Write the object, or replace it."""
        with self._errors("write"):
            self._store.write(self._key, data).result()

    def swap(self, before: bytes | None, after: bytes, /) -> bool:
        """Write the object if it holds `before`, or if it is not there for None; tell whether it was written."""
        with self._errors("write"):
            found = self._store.read(self._key).result()
            if (found.value if found.state == "value" else None) != before:
                return False
            made = self._store.write(self._key, after, if_equal=found.stamp.generation).result()
            return bool(made.generation)

    def unlink(self, missing_ok: bool = False) -> None:  # as of a Path
        """Delete the object if it is there."""
        with self._errors("delete"):
            self._store.write(self._key, None).result()

    def names(self) -> list[str]:
        """Return what begins with this place and a slash, in order."""
        with self._errors("list"):
            found = self._store.list(self._below, strip_prefix_length=len(self._key) + 1).result()
        return sorted(key.decode() for key in found)

    def clear(self, keep: str = "", /) -> None:
        """Delete what begins with this place and a slash, but for `keep`."""
        with self._errors("delete"):
            if not keep:
                self._store.delete_range(self._below).result()
                return
            kept = f"{self._key}/{keep}"
            self._store.delete_range(ts.KvStore.KeyRange(f"{self._key}/", kept)).result()
            self._store.delete_range(ts.KvStore.KeyRange(f"{kept}\0", f"{self._key}0")).result()

    @property
    def _key(self) -> str:
        return self.uri.partition("://")[2].partition("/")[2]

    @property
    def _below(self) -> Any:
        return ts.KvStore.KeyRange(f"{self._key}/", f"{self._key}0")  # 0 comes next after the slash

    @property
    def _store(self) -> Any:
        scheme, _, rest = self.uri.partition("://")
        return bucket(scheme, rest.partition("/")[0])

    def _errors(self, verb: str) -> AbstractContextManager[None]:
        return storage_errors(self.uri, verb)
