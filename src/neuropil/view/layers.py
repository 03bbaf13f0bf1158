"""Layers of the viewer: from a volume's role to colours, from z, y, x and nm to the viewer's x, y, z.

In the viewer voxel k reaches from k to k + 1, here its centre is at offset + k * voxel_size. The first volume says how
long a unit of the position is, and its voxels lie at whole numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuropil.errors import MissingExtra
from neuropil.geometry import Box
from neuropil.view.shown import LABELS, Pieces, Points, Shown

COLOUR_SEED = 7
"""The same id has the same colour in every view."""
_MESH_VOXELS = 1 << 26  # meshes need the whole volume in memory

GREY = """#uicontrol invlerp normalized(range=[{low:g}, {high:g}])
void main() {{
  emitGrayscale(normalized());
}}
"""
COLOURED = """#uicontrol vec3 colour color(default="{colour}")
#uicontrol invlerp normalized(range=[{low:g}, {high:g}])
void main() {{
  emitRGBA(vec4(colour, normalized()));
}}
"""
# Channels are told by number; the control at -1 shows three at once.
CHANNELS = """#uicontrol int channel slider(min=-1, max={last}, default=-1)
float value(int c) {{
  return float(toRaw(getDataValue(c))) * {scale:.10f};
}}
void main() {{
  if (channel < 0) {{
    emitRGB(vec3(value({red}), value({green}), value({blue})));
  }} else {{
    emitGrayscale(value(channel));
  }}
}}
"""
POINT = (
    "void main() {\n  setPointMarkerSize(10.0);\n  setPointMarkerBorderWidth(2.0);\n  setColor(defaultColor());\n}\n"
)


def neuroglancer() -> Any:
    """Return the library.

    Raises
    ------
    MissingExtra : it is not installed
    """
    handlers = logging.root.handlers[:]
    try:
        import neuroglancer as library
    except ImportError as error:
        raise MissingExtra(
            "the viewer needs neuroglancer, which is not installed: pip install 'neuropil[view]'"
        ) from error
    finally:
        logging.root.handlers[:] = handlers  # its import sets up logging, and every line would come twice
    return library


def dimensions(voxel_size: Sequence[float]) -> Any:
    """Return the viewer's space x, y, z, in voxels of a size z, y, x in nm."""
    return neuroglancer().CoordinateSpace(names=["x", "y", "z"], units="nm", scales=list(voxel_size)[::-1])


def position(point_nm: Sequence[float], first: Shown) -> list[float]:
    """Return the viewer's position x, y, z of a point z, y, x in nm."""
    return [float(p / s + 0.5) for p, s in zip(point_nm, first.voxel_size, strict=True)][::-1]


def point_nm(place: Sequence[float], first: Shown) -> tuple[float, float, float]:
    """Return the point z, y, x in nm of a position x, y, z; the inverse of `position`."""
    z, y, x = ((float(p) - 0.5) * s for p, s in zip(list(place)[:3][::-1], first.voxel_size, strict=True))
    return (z, y, x)


def local_volume(shown: Shown) -> Any:
    """Return the volume as the viewer's server gives it out, in pieces."""
    ng, labels = neuroglancer(), shown.role in LABELS
    names, units, scales = ["z", "y", "x"], ["nm"] * 3, list(shown.voxel_size)
    if len(shown.source.shape) == 4:
        names, units, scales = ["c^", *names], ["", *units], [1.0, *scales]
    volume = ng.LocalVolume(
        Pieces(shown.source, labels=labels),
        dimensions=ng.CoordinateSpace(names=names, units=units, scales=scales),
        volume_type="segmentation" if labels else "image",
    )
    if int(np.prod(shown.source.shape)) > _MESH_VOXELS:
        volume._mesh_generator = _NoMeshes()
    return volume


class _NoMeshes:
    """Has no mesh of anything: what volumes that are too large for memory show in 3-D."""

    def get_mesh(self, _: int) -> None:
        return None


def source_of(shown: Shown, volume: Any, first: Shown) -> Any:
    """Return a volume as the source of a layer, at its place."""
    ng = neuroglancer()
    place = zip(shown.offset, shown.voxel_size, first.voxel_size, strict=True)
    moved = [0.0] * (len(shown.source.shape) - 3) + [o / s - 0.5 + 0.5 * f / s for o, s, f in place]
    matrix = np.concatenate([np.eye(len(moved)), np.array(moved)[:, None]], axis=1)
    transform = ng.CoordinateSpaceTransform(output_dimensions=volume.dimensions, matrix=matrix)
    return ng.LayerDataSource(url=volume, transform=transform)


def layer_of(shown: Shown, source: Any) -> Any:
    """Return the layer of a volume."""
    ng = neuroglancer()
    if shown.role in LABELS:
        # At half of full colour the image shows through; ids that are not chosen stay visible.
        return ng.SegmentationLayer(
            source=source, color_seed=COLOUR_SEED, selected_alpha=0.4, not_selected_alpha=0.15, object_alpha=1.0
        )
    return ng.ImageLayer(source=source, shader=shader_of(shown), opacity=1.0)


def shader_of(shown: Shown) -> str:
    """Return how the values of an image, map, mask or affinities become colours."""
    if shown.role == "affinities":
        channels = shown.source.shape[0]
        red, green, blue = nearest_channels(shown)
        scale = 1.0 if shown.scale is None else shown.scale
        if shown.scale is None and shown.source.dtype.kind in "ui":
            scale = 1 / 255
        return CHANNELS.format(last=channels - 1, scale=scale, red=red, green=green, blue=blue)
    if shown.role == "mask":
        return COLOURED.format(colour="#ff3030", low=0, high=2)
    if shown.role == "boundary":
        high = 1 / shown.scale if shown.scale else 1 if shown.source.dtype.kind == "f" else 255
        return COLOURED.format(colour="#ffa31a", low=0, high=high)
    low, high = (0, 255) if shown.source.dtype == np.uint8 else grey_range(shown)
    return GREY.format(low=low, high=high)


def nearest_channels(shown: Shown) -> tuple[int, int, int]:
    """Return the channels of the shortest links along z, y and x, which are shown in red, green and blue.

    >>> class Links:
    ...     shape, dtype = (3, 1, 1, 1), np.dtype("u1")
    >>> nearest_channels(Shown("a", "affinities", Links(), offsets=((0, 0, -1), (0, -1, 0), (-1, 0, 0))))
    (2, 1, 0)
    """
    last = shown.source.shape[0] - 1
    found = [0, min(1, last), min(2, last)]
    for axis in range(3):
        along = [
            (abs(row[axis]), channel)
            for channel, row in enumerate(shown.offsets or ())
            if row[axis] and not any(row[k] for k in range(3) if k != axis)
        ]
        found[axis] = min(along)[1] if along else found[axis]
    return (found[0], found[1], found[2])


def grey_range(shown: Shown) -> tuple[float, float]:
    """Return the 1st and 99th percentile of the middle of a volume, at most 512 voxels along y and x."""
    z, y, x = shown.source.shape
    middle = Box((z // 2, y // 2, x // 2), (z // 2 + 1, y // 2 + 1, x // 2 + 1))
    box = middle.grow((0, 256, 256)).clip(Box.of_shape((z, y, x)))
    values = shown.source.read(box).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def points_layer(points: Points, first: Shown, colour: str = "#ffe11a") -> Any:
    """Return the layer of points, each with what is said of it."""
    ng = neuroglancer()
    return ng.LocalAnnotationLayer(
        dimensions=dimensions(first.voxel_size),
        annotation_color=colour,
        shader=POINT,
        annotations=[
            ng.PointAnnotation(id=str(k), point=position(place, first), description=text)
            for k, (place, text) in enumerate(zip(points.points_nm.tolist(), points.texts, strict=True))
        ],
    )
