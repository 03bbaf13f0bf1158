"""Affinities as other tools store them, and ours as they want them.

Four things differ between tools: the order of the spatial axes, the order of the channels, which end of a link stores
its value, and whether 1 means "same object" or "boundary". Key insight: with offsets beside the values, three of them
are words, not data; a conversion is a view with other offsets, and only the meaning of 1 changes a value (v to 1 - v).

Sources: the tools' own code and documentation; waterz and bioimage-cpp were also measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil.errors import InputError
from neuropil.segmentation.affinities import LONG_RANGE, NEAREST, Affinities, Offset, check_offsets
from neuropil.segmentation.affinity_moves import with_offsets

Tool = Literal[
    "waterz", "gunpowder", "volara", "deepem", "banis", "ptc-deepem", "ptc-banis", "affogato", "bioimage-cpp",
    "chunkflow",
]  # fmt: skip


@dataclass(frozen=True)
class Convention:
    """How one tool stores affinities.

    Attributes
    ----------
    listed
        Offsets e as the tool lists them, but always in z, y, x; None: every user has others, so they must be told.
    end
        1: the value at p is that of the link p, p + e (the source stores it); -1: of p, p - e (the destination).
    axes
        Order of the spatial axes of its arrays; channels come first.
    one_means
        What 1 says about the link.
    """

    listed: tuple[Offset, ...] | None
    end: Literal[1, -1] = 1
    axes: Literal["zyx", "xyz"] = "zyx"
    one_means: Literal["same", "different"] = "same"


_XYZ = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
_SUPERHUMAN = tuple((-z, -y, -x) for k in range(0, 12, 3) for z, y, x in reversed(LONG_RANGE[k : k + 3]))
_BANIS = (*_XYZ, (0, 0, 10), (0, 10, 0), (10, 0, 0))

CONVENTIONS: dict[Tool, Convention] = {
    "waterz": Convention(tuple(reversed(_XYZ)), end=-1),
    "gunpowder": Convention(NEAREST),
    "volara": Convention(None),
    "deepem": Convention(_SUPERHUMAN, end=-1),
    "banis": Convention(_BANIS, axes="xyz"),
    "ptc-deepem": Convention(tuple(reversed(_XYZ)), end=-1),
    "ptc-banis": Convention(tuple(reversed(_XYZ))),
    "affogato": Convention(None, one_means="different"),
    "bioimage-cpp": Convention(None),
    "chunkflow": Convention(_XYZ, end=-1),
}
"""By tool. "gunpowder" serves lsd and bootstrapper too, "affogato" elf and torch-em, "banis" NISB, "ptc" (PyTorch
Connectomics) is named with its `affinity_mode`. bioimage-cpp links background to background, so mask it before."""


def from_convention(values: ArrayLike, tool: Tool, *, offsets: Sequence[Sequence[int]] | None = None) -> Affinities:
    """Take over an array of another tool.

    Parameters
    ----------
    values
        (c, z, y, x), for "banis" (c, x, y, z); floats in [0, 1], or uint8 where s means s / 255.
    tool
        Key of `CONVENTIONS`.
    offsets
        One (z, y, x) per channel as the tool lists them, where they are not its usual ones.

    Returns
    -------
    Affinities
        A view, but for disaffinities, which are inverted; the dtype stays.

    Raises
    ------
    InputError
        If the tool is unknown, offsets are missing or do not fit the channels, or values are not affinities.

    Examples
    --------
    >>> banis = np.array([1, 0, 1, 0], np.float32).reshape(1, 4, 1, 1).repeat(3, axis=0)
    >>> ours = from_convention(banis, "banis")
    >>> ours.shape, ours.offsets[0], ours.values[0].tolist()
    ((1, 1, 4), (0, 0, 1), [[[1.0, 0.0, 1.0, 0.0]]])
    """
    array = np.asarray(values)
    if array.ndim != 4:
        raise InputError(f"affinities must have four axes, channels first; got shape {array.shape}")
    links = tool_offsets(tool, array.shape[0], offsets)
    return Affinities(tool_values(array, tool), links)


def to_convention(
    affinities: Affinities, tool: Tool, *, offsets: Sequence[Sequence[int]] | None = None
) -> NDArray[Any]:
    """Return an array as another tool takes it; parameters and errors as of `from_convention`.

    Without `offsets`, all links that the tool usually has are written if they are there, else its three nearest; tools
    without usual offsets get those that are there. Links that leave the volume are 0 ("different", where 1 means that).

    >>> ours = Affinities(np.ones((3, 1, 1, 2), np.float32))
    >>> to_convention(ours, "chunkflow")[0].tolist()
    [[[0.0, 1.0]]]
    """
    links = export_offsets(affinities.offsets, tool, offsets)
    return tool_values(with_offsets(affinities, links).values, tool)


def export_offsets(
    have: Sequence[Offset], tool: Tool, offsets: Sequence[Sequence[int]] | None = None
) -> tuple[Offset, ...]:
    """Return our offsets of the channels that `to_convention` writes of links with the offsets `have`.

    >>> export_offsets(((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -3)), "banis")
    ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    """
    rule = _convention(tool)
    if offsets is not None:
        return tool_offsets(tool, len(offsets), offsets)
    if rule.listed is None:
        return tuple(have)
    links = tool_offsets(tool, len(rule.listed), None)
    return links if {*have, *((-z, -y, -x) for z, y, x in have)} >= set(links) else links[:3]


def tool_offsets(tool: Tool, channels: int, offsets: Sequence[Sequence[int]] | None) -> tuple[Offset, ...]:
    """Return our offsets of a tool's array: `offsets` as the tool lists them, or its usual ones.

    >>> tool_offsets("deepem", 3, None)
    ((0, 0, -1), (0, -1, 0), (-1, 0, 0))
    """
    rule = _convention(tool)
    if offsets is None and rule.listed is None:
        raise InputError(f"{tool} has no usual offsets; give offsets, one (z, y, x) per channel")
    listed = check_offsets(offsets if offsets is not None else rule.listed or ())
    if offsets is None and channels == 3:
        listed = listed[:3]
    if len(listed) != channels:
        told = "given" if offsets is not None else f"usual with {tool}"
        raise InputError(f"affinities have {channels} channels and {len(listed)} offsets are {told}; give offsets")
    return tuple((z * rule.end, y * rule.end, x * rule.end) for z, y, x in listed)


def tool_values(array: NDArray[Any], tool: Tool) -> NDArray[Any]:
    """Turn the axes and the meaning of 1 between a tool's array and ours; doing it twice gives the array back.

    Works block by block, since nothing is shifted.

    >>> tool_values(np.array([[[[0, 255]]]], np.uint8), "affogato").tolist()
    [[[[255, 0]]]]
    """
    rule = _convention(tool)
    if rule.axes == "xyz":
        array = array.transpose(0, 3, 2, 1)
    if rule.one_means == "same":
        return array
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"affinities must be floats in [0, 1] or uint8; got {array.dtype}")
    inverted: NDArray[Any] = array.dtype.type(255 if array.dtype == np.uint8 else 1) - array
    return inverted


def _convention(tool: str) -> Convention:
    for name, rule in CONVENTIONS.items():
        if name == tool:
            return rule
    raise InputError(f"tool must be one of {', '.join(CONVENTIONS)}; got {tool!r}")
