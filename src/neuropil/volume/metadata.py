"""What a volume says about itself: voxel size, place, meaning of the values, and where each belief came from.

The dear mistakes of this field are silent ones: an axis read the wrong way round, an affinity stored at the other end
of its link, a map scaled twice. So every belief travels with the data and names its source. What a format has its own
place for (voxel size, offset, axes) is written there and only there; the rest goes into one small JSON object named
`neuropil`, so that no fact is stored twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from neuropil.errors import InputError

Kind = Literal["image", "labels", "boundary", "affinities", "mask"]
OneMeans = Literal["same", "different"]
Length = tuple[float, float, float]
KINDS: tuple[str, ...] = get_args(Kind)

NM_PER_UNIT = {
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "nanometers": 1.0,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "\\u00b5m": 1e3, "mm": 1e6, "millimeter": 1e6, "millimetre": 1e6, "cm": 1e7, "m": 1e9, "meter": 1e9,
    "å": 0.1, "angstrom": 0.1, "pm": 1e-3, "picometer": 1e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Metadata:
    """What is known about a volume; axes z, y, x.

    Attributes
    ----------
    voxel_size : nm per voxel, or None where nothing says so
    offset : nm, place of the first voxel
    kind : what the values mean, or None where nothing says so
    scale : real value = stored value * scale, e.g. 1/255 for a boundary map stored as uint8; None means 1
    offsets : voxels, one (z, y, x) per channel of affinities: channel c links voxel v with v + offsets[c], and v stores
        the value; so a negative offset stores at the higher end
    one_means : affinities: whether 1 says that both voxels are of the "same" object, or "different" ones
    mask : affinities: name of the volume beside this one that is 0 where a link is not known; None: all are known
    axes : ("z", "y", "x") or ("c", "z", "y", "x")
    sources : field name -> where the belief came from, in words

    >>> Metadata(voxel_size=(40, 4, 4)).voxel_size
    (40.0, 4.0, 4.0)
    """

    voxel_size: Length | None = None
    offset: Length = (0.0, 0.0, 0.0)
    kind: Kind | None = None
    scale: float | None = None
    offsets: tuple[tuple[int, int, int], ...] | None = None
    one_means: OneMeans | None = None
    mask: str | None = None
    axes: tuple[str, ...] = ("z", "y", "x")
    sources: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.voxel_size is not None:
            object.__setattr__(self, "voxel_size", lengths(self.voxel_size, "voxel_size", positive=True))
        object.__setattr__(self, "offset", lengths(self.offset, "offset"))
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"scale must be a positive number; got {self.scale!r}")
        if self.offsets is not None:
            rows = tuple(tuple(int(n) for n in row) for row in self.offsets)
            if any(len(row) != 3 for row in rows):
                raise InputError(f"offsets must list one (z, y, x) per channel; got {self.offsets!r}")
            object.__setattr__(self, "offsets", rows)
        if self.one_means not in (None, *get_args(OneMeans)):
            raise InputError(f"one_means must be one of {', '.join(get_args(OneMeans))}; got {self.one_means!r}")


def lengths(values: Sequence[Any], name: str, *, positive: bool = False) -> Length:
    """Return three finite floats z, y, x, or raise InputError that names the argument.

    >>> lengths([40, 4, 4], "voxel_size")
    (40.0, 4.0, 4.0)
    """
    try:
        z, y, x = (float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be three numbers z, y, x in nm; got {values!r}") from None
    if not all(math.isfinite(value) and (value > 0 or not positive) for value in (z, y, x)):
        rule = "positive " if positive else ""
        raise InputError(f"{name} must be three finite {rule}numbers z, y, x in nm; got {values!r}")
    return (z, y, x)


def nanometres(value: float, unit: str | None) -> float | None:
    """Return a length in nm, or None where the unit is missing or not a length.

    >>> nanometres(0.04, "micrometer")
    40.0
    """
    factor = NM_PER_UNIT.get((unit or "").strip().lower())
    return None if factor is None else round(float(value) * factor, 9)


def to_json(metadata: Metadata, *, with_place: bool = False) -> dict[str, Any]:
    """Return the `neuropil` JSON object; `with_place` adds voxel size and offset, for formats without a place for them.

    >>> to_json(Metadata(kind="labels"))["kind"]
    'labels'
    """
    data: dict[str, Any] = {"axes": list(metadata.axes)}
    if with_place:
        data["voxel_size_nm"] = None if metadata.voxel_size is None else list(metadata.voxel_size)
        data["offset_nm"] = list(metadata.offset)
    if metadata.kind is not None:
        data["kind"] = metadata.kind
    if metadata.scale is not None:
        data["scale"] = metadata.scale
    if metadata.offsets is not None:
        data["offsets"] = [list(row) for row in metadata.offsets]
    if metadata.one_means is not None:
        data["one_means"] = metadata.one_means
    if metadata.mask is not None:
        data["mask"] = metadata.mask
    return data


def from_json(data: Mapping[str, Any] | str | bytes | None, source: str) -> dict[str, tuple[Any, str]]:
    """Return beliefs (field -> (value, source)) from a `neuropil` JSON object; anything foreign there is left out."""
    if isinstance(data, str | bytes):
        try:
            data = json.loads(data)
        except ValueError:
            return {}
    if not isinstance(data, Mapping):
        return {}
    names = {
        "voxel_size_nm": "voxel_size",
        "offset_nm": "offset",
        "kind": "kind",
        "scale": "scale",
        "offsets": "offsets",
        "one_means": "one_means",
        "mask": "mask",
    }
    found = {names[key]: (data[key], f"{source} '{key}'") for key in names if data.get(key) is not None}
    if isinstance(data.get("axes"), Sequence):
        found["axes"] = (tuple(str(axis) for axis in data["axes"]), f"{source} 'axes'")
    return found


def believe(ndim: int, *beliefs: Mapping[str, tuple[Any, str]]) -> Metadata:
    """Return Metadata from beliefs, earlier ones first; axes are guessed from the axis count if nothing says them.

    >>> believe(3, {"voxel_size": ((40, 4, 4), "attribute 'resolution'")}).sources["voxel_size"]
    "attribute 'resolution'"
    """
    chosen: dict[str, tuple[Any, str]] = {}
    for belief in beliefs:
        for key, value in belief.items():
            chosen.setdefault(key, value)
    axes = ("z", "y", "x") if ndim == 3 else ("c", "z", "y", "x")
    if "axes" not in chosen or chosen["axes"][0] != axes:
        said = f"the file says {', '.join(chosen['axes'][0])}" if "axes" in chosen else "the file does not name them"
        chosen["axes"] = (axes, f"guess: {ndim} axes are taken as {', '.join(axes)}; {said}")
    fields = {key: value for key, (value, _) in chosen.items()}
    return Metadata(**fields, sources={key: source for key, (_, source) in chosen.items()})
