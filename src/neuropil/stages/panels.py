"""What the report shows beside scores, read or computed for a few sections: affinities, labels, feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.report.data import FeaturePanel, SectionPanel
from neuropil.report.features import feature_panel
from neuropil.segmentation.affinities import NEAREST
from neuropil.segmentation.affinity_moves import with_offsets
from neuropil.stages.affinities import check_affinity_volume, read_affinities
from neuropil.stages.common import image_box
from neuropil.volume import Volume, open_volume

FEATURE_SIDE = 160
"""Side of the crop whose feature maps are shown, voxels."""


def links_at(uri: str, sections: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the nearest links (k, 3, y, x), as bytes, of some sections of affinities with the extent y, x."""
    made = []
    with open_volume(uri) as volume:
        check_affinity_volume(volume)
        depth = _check_plane(volume, sections, shape)
        for z in sections:  # with a section on either side, so that no link of this one leaves what is read
            start, stop = max(0, z - 1), min(depth, z + 2)
            links = read_affinities(volume, Box((start, 0, 0), (stop, *shape)))
            values = with_offsets(links, NEAREST).values[:, z - start]
            made.append(values if values.dtype == np.uint8 else np.rint(values * 255).astype(np.uint8))
    return np.stack(made)


def labels_at(uri: str, sections: Sequence[int], shape: tuple[int, ...]) -> NDArray[Any]:
    """Read some sections (k, y, x) of labels with the extent y, x."""
    with open_volume(uri) as volume:
        if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
            raise InputError(f"{uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
        _check_plane(volume, sections, shape)
        return np.concatenate([volume.read(Box((z, 0, 0), (z + 1, *shape))) for z in sections])


def _check_plane(volume: Volume, sections: Sequence[int], shape: tuple[int, ...]) -> int:
    depth, *plane = volume.spatial_shape
    if tuple(plane) != tuple(shape) or max(sections) >= depth:
        raise InputError(
            f"{volume.uri} must cover the proposal's sections of {tuple(shape)} voxels; it has {volume.spatial_shape}"
        )
    return depth


def feature_panel_of(weights: Path, layer: str, image: str, panel: SectionPanel) -> FeaturePanel:
    """Compute the maps of a layer in every network of a model that has it, on the middle of a panel.

    Raises
    ------
    InputError : the model is a U-Net, or no network of it has such a convolution
    """
    from neuropil.networks import features, inference
    from neuropil.networks.checkpoint import load_model
    from neuropil.networks.network import DenseNetwork

    model = load_model(weights)
    networks = [net for net in model.networks if isinstance(net, DenseNetwork)]
    if not networks:
        raise InputError(f"features show max-filtering networks; '{model.name}' in {weights} is a U-Net")
    convolutions = {net.architecture.name: [conv.name for conv in net.architecture.convs] for net in networks}
    if not any(layer in names for names in convolutions.values()):
        known = "; ".join(f"{name}: {', '.join(names)}" for name, names in convolutions.items())
        raise InputError(f"features must name a convolution of {weights}; got '{layer}', there are {known}")
    height, width = panel.image.shape
    side = min(FEATURE_SIDE, height, width)
    y, x = panel.corner[0] + (height - side) // 2, panel.corner[1] + (width - side) // 2
    with open_volume(image) as volume:
        part, sections = _around(volume, panel.z, sum(net.architecture.field_of_view[0] - 1 for net in networks))
        crop = Box((panel.z - part.start[0], y, x), (panel.z - part.start[0] + 1, y + side, x + side))
        sources: list[inference.Source] = [lambda box: sections[box.slices]]
        shown = []
        for network in networks:
            source = features.map_source(network, sources, part.shape)
            if layer in convolutions[network.architecture.name]:
                streams = features.feature_maps(network, sources, part.shape, crop, layer)
                boundary = source(crop)[0]
                shown += [
                    (_title(network.architecture.name, one), maps[:, 0], boundary) for one, maps in streams.items()
                ]
            sources = [sources[0], source]
    top, left = y - panel.corner[0], x - panel.corner[1]
    return feature_panel(layer, panel.z, panel.image[top : top + side, left : left + side], shown)


def _around(volume: Volume, z: int, reach: int) -> tuple[Box, NDArray[np.float32]]:
    """Read the standardised sections that the maps of section `z` depend on."""
    from neuropil.networks.sampling import SectionStatistics

    whole = image_box(volume, None)
    part = Box((max(0, z - reach), 0, 0), (min(whole.shape[0], z + reach + 1), *whole.stop[1:]))
    array = volume.read(part)
    return part, SectionStatistics.of(array.__getitem__, part.shape[0]).apply(array, slice(None))


def _title(network: str, stream: str) -> str:
    return f"{network}, {stream} stream" if stream else network


def image_of(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return the image that evaluations were given.

    Raises
    ------
    InputError : none names one
    """
    known = [one["image"] for one in evaluations if one.get("image")]
    if not known:
        raise InputError("features need pictures of the run: neuropil evaluate --run RUN --image IMAGE ...")
    return str(known[0])
