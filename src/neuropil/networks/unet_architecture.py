"""A residual, symmetric U-Net as a description: widths, poolings, norm, and the affinities it predicts.

The network of Lee et al. for anisotropic stacks never pools across sections and begins each residual module with a
convolution within the section, since neighbouring sections of a thin-section stack may be displaced. Where voxels are
nearly cubes the same network pools along z too; `architecture_for` chooses by the voxel size.

Source: Lee, Zung, Li, Jain & Seung, "Superhuman accuracy on the SNEMI3D connectomics challenge", arXiv:1706.00120.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from neuropil.errors import InputError
from neuropil.segmentation.affinities import LONG_RANGE

Size = tuple[int, int, int]
Norm = Literal["batch", "instance", "group", "none"]
Breadth = Literal["full", "small", "tiny"]
FAMILY = "rsunet"
GROUPS = 4

ISOTROPIC_OFFSETS: tuple[Size, ...] = tuple(
    offset for length in (1, 3, 9, 27) for offset in ((-length, 0, 0), (0, -length, 0), (0, 0, -length))
)
"""The reach of `LONG_RANGE` along y and x, along all axes, for voxels that are nearly cubes."""
WIDTHS: dict[Breadth, tuple[int, ...]] = {
    "full": (28, 36, 48, 64, 80),
    "small": (16, 20, 28, 40),
    "tiny": (8, 12, 16),
}
CUBE = 1.5
"""Ratio of a voxel's edges up to which it counts as a cube."""


@dataclass(frozen=True)
class UNetArchitecture:
    """One U-Net; the defaults are the network of the paper.

    Parameters
    ----------
    name : used in logs and checkpoints
    widths : feature maps per scale, the finest first
    norm : after each convolution of a residual module: batch, instance, group (of 4) or none. Weights of a network with
        batch norm are taken by one with instance norm too, which then goes by each patch's own statistics.
    offsets : (z, y, x) per output channel, voxels: channel c links voxel v with v + offsets[c]
    first : size of the first convolution of a residual module, (1, 3, 3) or (3, 3, 3)
    pooling : factors (z, y, x) between one scale and the next; one fewer than widths
    full_resolution : whether the finest scale has residual modules too
    ends : size of the convolutions that come first and last but one, at full resolution

    Raises
    ------
    InputError : widths, poolings, sizes or offsets that make no such network

    Examples
    --------
    >>> UNetArchitecture().multiple, UNetArchitecture().parameter_count
    ((1, 16, 16), 1477920)
    """

    name: str = FAMILY
    widths: tuple[int, ...] = WIDTHS["full"]
    norm: Norm = "batch"
    offsets: tuple[Size, ...] = LONG_RANGE
    first: Size = (1, 3, 3)
    pooling: tuple[Size, ...] = ((1, 2, 2),) * 4
    full_resolution: bool = True
    ends: Size = (1, 5, 5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        for name in ("offsets", "pooling"):
            object.__setattr__(self, name, tuple(_triple(name, row) for row in getattr(self, name)))
        for name in ("first", "ends"):
            object.__setattr__(self, name, _triple(name, getattr(self, name)))
            if any(n < 1 or n % 2 == 0 for n in getattr(self, name)):
                raise InputError(f"{name} must be odd sizes z, y, x; got {getattr(self, name)}")
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"widths must be positive numbers of feature maps; got {self.widths}")
        if len(self.pooling) != len(self.widths) - 1 or any(n < 1 for row in self.pooling for n in row):
            raise InputError(
                f"pooling must be {len(self.widths) - 1} triples of positive factors for {len(self.widths)} widths;"
                f" got {self.pooling}"
            )
        if self.norm not in get_args(Norm):
            raise InputError(f"norm must be one of {', '.join(get_args(Norm))}; got {self.norm!r}")
        if self.norm == "group" and any(width % GROUPS for width in self.widths):
            raise InputError(f"widths must be multiples of {GROUPS} for norm 'group'; got {self.widths}")
        if not self.offsets or (0, 0, 0) in self.offsets or len(set(self.offsets)) < len(self.offsets):
            raise InputError(f"offsets must be different triples other than (0, 0, 0); got {self.offsets}")

    @property
    def multiple(self) -> Size:
        """What each extent of an input must be a multiple of: the product of the poolings."""
        return tuple(math.prod(row[axis] for row in self.pooling) for axis in range(3))  # type: ignore[return-value]

    @property
    def field_of_view(self) -> Size:
        """Voxels z, y, x that one output voxel depends on, at most."""
        reach, stride = [2 * (n // 2) for n in self.ends], [1, 1, 1]
        for level in range(len(self.widths)):
            if level:
                factors = self.pooling[level - 1]
                stride = [s * f for s, f in zip(stride, factors)]
                reach = [r + (s if f > 1 else 0) for r, s, f in zip(reach, stride, factors)]  # interpolation
            modules = 0 if level == 0 and not self.full_resolution else 1 if level == len(self.widths) - 1 else 2
            reach = [r + modules * s * (n // 2 + 2) for r, s, n in zip(reach, stride, self.first)]
        return tuple(2 * r + 1 for r in reach)  # type: ignore[return-value]

    @property
    def parameter_count(self) -> int:
        """Trainable numbers."""
        biased = self.norm == "none"

        def module(maps_in: int, maps: int) -> int:
            filters = maps * (maps_in * math.prod(self.first) + 2 * maps * 27)
            return filters + maps * 3 * (1 if biased else 2)

        total = self.widths[0] * (math.prod(self.ends) * (1 + self.widths[0]) + 2)
        total += len(self.offsets) * (self.widths[0] + 1)
        if self.full_resolution:
            total += module(self.widths[0], self.widths[0]) * (2 if len(self.widths) > 1 else 1)
        for level, (fine, coarse) in enumerate(zip(self.widths, self.widths[1:])):
            total += module(fine, coarse) + fine * (coarse + 1) + (0 if biased else 2 * fine)
            total += module(fine, fine) if level else 0
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data, the inverse of `from_dict`; its `family` tells it from other networks.

        >>> UNetArchitecture.from_dict(UNetArchitecture().to_dict()) == UNetArchitecture()
        True
        """
        return {"family": FAMILY, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UNetArchitecture:
        """Rebuild an architecture from `to_dict`.

        Raises
        ------
        InputError : fields that are unknown or do not make a network
        """
        fields = {key: value for key, value in data.items() if key != "family"}
        if unknown := sorted(set(fields) - set(cls.__dataclass_fields__)):
            raise InputError(f"'{FAMILY}' has no field {unknown[0]}; it has {', '.join(cls.__dataclass_fields__)}")
        return cls(**fields)


def architecture_for(
    voxel_size: Sequence[float],
    *,
    breadth: Breadth = "full",
    offsets: Sequence[Size] | None = None,
    norm: Norm = "batch",
) -> UNetArchitecture:
    """Choose the U-Net that fits a voxel size.

    An axis is pooled once its voxels are no longer than 1.5 times the shortest edge. Stacks with z at least 3 times as
    long as y and x are never pooled across sections, as in the paper.

    Parameters
    ----------
    voxel_size : z, y, x; nm
    breadth : "full" (the paper's five scales), "small" (four) or "tiny" (three)
    offsets : of the output channels; by default the paper's twelve, or for cubes as far along z as along y and x
    norm : see `UNetArchitecture`

    Raises
    ------
    InputError : a voxel size that is not three positive numbers, an unknown breadth

    Examples
    --------
    >>> architecture_for((30, 6, 6)).pooling[0], architecture_for((8, 8, 8), breadth="small").pooling
    ((1, 2, 2), ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
    """
    size = [float(n) for n in voxel_size]
    if len(size) != 3 or not all(math.isfinite(n) and n > 0 for n in size):
        raise InputError(f"voxel_size must be three positive lengths z, y, x in nm; got {voxel_size!r}")
    if breadth not in WIDTHS:
        raise InputError(f"breadth must be one of {', '.join(WIDTHS)}; got {breadth!r}")
    flat, cube = size[0] >= 3 * max(size[1:]), max(size) <= CUBE * min(size)
    pooling, now = list[Size](), list(size)
    for _ in WIDTHS[breadth][1:]:
        shortest = min(now[1:] if flat else now)
        factors = _triple("pooling", [2 if edge <= CUBE * shortest else 1 for edge in now])
        if flat:
            factors = (1, *factors[1:])
        pooling.append(factors)
        now = [edge * factor for edge, factor in zip(now, factors)]
    name = FAMILY + ("" if breadth == "full" else f"_{breadth}") + ("_isotropic" if cube else "")
    sides: Size = (3, 3, 3) if cube else (1, 3, 3)
    chosen = tuple(offsets) if offsets is not None else ISOTROPIC_OFFSETS if cube else LONG_RANGE
    ends: Size = (3, 3, 3) if cube else (1, 5, 5)
    return UNetArchitecture(name, WIDTHS[breadth], norm, chosen, sides, tuple(pooling), True, ends)


def _triple(name: str, row: Sequence[int]) -> Size:
    try:
        z, y, x = (int(n) for n in row)
    except (TypeError, ValueError):
        raise InputError(f"{name} must hold triples of integers z, y, x; got {row!r}") from None
    return (z, y, x)
