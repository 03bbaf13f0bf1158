"""Where the blocks of a run read their links: from affinities or from a boundary map, or from a part of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.segmentation.affinities import NEAREST, Rule, affinities_from_boundary_map
from neuropil.segmentation.affinity_moves import channels_of, known_values, with_offsets
from neuropil.stages.affinities import check_affinity_volume, read_affinities
from neuropil.stages.common import check_boundary_volume, read_boundary
from neuropil.volume import Volume, open_volume


@dataclass(frozen=True)
class LinkSource:
    """Affinities or a boundary map, of which a box is segmented; data only.

    Attributes
    ----------
    uri : of the volume
    origin : voxel z, y, x of it where the box begins; all other places are relative to this one
    per_section, rule : how a boundary map becomes links, as for `neuropil segment`
    """

    uri: str
    origin: tuple[int, ...]
    per_section: bool
    rule: Rule

    def nearest(self, region: Box) -> NDArray[Any]:
        """Read the nearest links (3, z, y, x) of a region; those that leave it are 0."""
        boundary = self.boundary(region)
        if boundary is not None:
            return affinities_from_boundary_map(boundary, per_section=self.per_section, rule=self.rule)
        with open_volume(self.uri) as volume:
            channels = channels_of(volume.metadata.offsets or (), NEAREST)
            affinities = read_affinities(volume, region.shift(self.origin), channels)
        return known_values(with_offsets(affinities, NEAREST))

    def boundary(self, region: Box) -> NDArray[Any] | None:
        """Read a region of the boundary map; None if it is affinities."""
        with open_volume(self.uri) as volume:
            return None if len(volume.shape) == 4 else read_boundary(volume, region.shift(self.origin))


def check_links(volume: Volume) -> None:
    """Refuse a volume that no links can be read from.

    Raises
    ------
    InputError : neither affinities of nearest links nor a boundary map, or bytes whose scale is not recorded, which
        a single block cannot tell
    """
    if len(volume.shape) == 3:
        check_boundary_volume(volume)
        return
    check_affinity_volume(volume)
    channels_of(volume.metadata.offsets or (), NEAREST)
    if volume.dtype == np.uint8 and volume.metadata.scale is None:
        raise InputError(
            f"{volume.uri} holds bytes and says no scale; record it with neuropil convert --scale 0.00392156862745098"
            " for 0 to 255"
        )
