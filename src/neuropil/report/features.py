"""Feature maps of a layer in pictures: what the networks of a chain make of one crop, before and after recursion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuropil.report.data import FeaturePanel, FeatureRow, Image, ReportData
from neuropil.report.gallery import figure
from neuropil.report.markup import missing, text

MAPS = 4
"""Maps of a layer that are shown."""


def feature_panel(
    layer: str, z: int, image: Image, networks: Sequence[tuple[str, NDArray[np.float32], NDArray[np.float32]]]
) -> FeaturePanel:
    """Choose maps of a layer and give each a scale of grey of its own; training changes scales, patterns are compared.

    Parameters
    ----------
    layer : its name
    z : number of the section
    image : (y, x) uint8
    networks : name, maps (n, y, x) float32 and boundary map (y, x) float32 in [0, 1]; first the one before recursion,
        whose maps of highest contrast are shown, the same numbers in all others

    Examples
    --------
    >>> maps = np.arange(24, dtype=np.float32).reshape(6, 2, 2) ** 2
    >>> panel = feature_panel("conv1", 3, np.zeros((2, 2), np.uint8), [("VD2D", maps, maps[0] / 25)])
    >>> panel.channels, panel.rows[0].maps.shape
    ((5, 4, 3, 2), (4, 2, 2))
    """
    fewest = min(len(maps) for _, maps, _ in networks)
    contrast = networks[0][1][:fewest].std(axis=(1, 2))
    channels = tuple(np.argsort(-contrast, kind="stable")[:MAPS].tolist())
    rows = tuple(
        FeatureRow(name, _grey(boundary), np.stack([_stretched(maps[channel]) for channel in channels]))
        for name, maps, boundary in networks
    )
    return FeaturePanel(layer, z, image, channels, rows)


def features_part(data: ReportData) -> str:
    """Return the panels: a row per network, its boundary map and the maps of the layer."""
    if not data.features:
        return missing("Feature maps were not asked for.", "neuropil report RUN --features conv3b")
    lead = (
        '<p class="lead">What a layer makes of the image: bright is active, each picture on a scale of its own. Maps '
        "are those of the highest contrast in the first network; in a network that began with its weights, the"
        " same number is the same filter, before and after training on the first one’s boundary map.</p>"
    )
    return lead + "".join(_panel(one) for one in data.features)


def _panel(panel: FeaturePanel) -> str:
    cells = []
    for k, row in enumerate(panel.rows):
        cells.append(figure(panel.image, "<b>image</b>") if k == 0 else "<figure></figure>")
        cells.append(figure(255 - row.boundary, f"<b>{text(row.network)}</b> boundary map"))
        cells += [
            figure(one, f"<b>{text(row.network)}</b> {text(panel.layer)}, map {channel}")
            for channel, one in zip(panel.channels, row.maps)
        ]
    columns = 2 + len(panel.channels)
    return (
        f"<h3>{text(panel.layer)}<small>section {panel.z}</small></h3>"
        f'<div class="matrix" style="--n:{columns}">{"".join(cells)}</div>'
    )


def _stretched(one: NDArray[np.float32]) -> Image:
    """Return a map from its least to its greatest value; a few pixels far above all others must not leave it black."""
    low, high = one.min(), np.percentile(one, 99.5)
    return _grey((one - low) / max(high - low, 1e-6))


def _grey(values: NDArray[np.float32]) -> Image:
    made: Image = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return made
