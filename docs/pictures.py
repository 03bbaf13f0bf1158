"""Draw the pictures of the docs: python docs/pictures.py [FOLDER].

Those of docs/concepts.md take one section of synthetic tissue through the whole chain, with the functions a user would
call. Those of docs/howto/augmentation.md show three sections, with outlines of their labels, before and after. That of
docs/howto/skeletons.md shows centre lines over a projection. Those of docs/tutorial.md are made of what its commands
write, which are run here as they stand on the page. That of docs/howto/import_znn.md needs real files and is drawn
where NEUROPIL_DATA has them. Nothing here is drawn by hand, so the pictures change when the code does.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.cli import main as command
from neuropil.errors import VolumeNotFound
from neuropil.geometry import Box
from neuropil.labels import apply_lookup
from neuropil.networks.augmentation import EM_AUGMENTATION, Orientation, Patch, grey
from neuropil.networks.defects import misalign, missing_sections, out_of_focus, section_noise
from neuropil.networks.inference import predict
from neuropil.networks.sampling import SectionStatistics
from neuropil.networks.warp import random_places, warp
from neuropil.networks.znn import network_of
from neuropil.report.gallery import segmentation_picture
from neuropil.report.pictures import ORANGE, draw, link_colours, outlines, paint, png_uri
from neuropil.segmentation.affinities import affinities_from_boundary_map
from neuropil.segmentation.linkage import (
    ConstantSize,
    cut,
    fragment_sizes,
    merge_tree,
    remove_dust,
    size_dependent_linkage,
)
from neuropil.segmentation.region_graph import Edges, region_edges
from neuropil.segmentation.watershed import watershed
from neuropil.skeletons.cleanup import remove_ticks
from neuropil.skeletons.teasar import skeletonize
from neuropil.synthetic import boundary_map_from_truth, make_tissue
from neuropil.volume import open_volume
from neuropil.volume.uri import parse_uri
from neuropil.volume.znn import read_network

SHAPE, VOXEL_SIZE = (3, 176, 176), (50.0, 8.0, 8.0)
SECTION = 1
CHAIN = 128  # side of each picture of the README's strip
CUTS = (0.97, 0.85, 0.3)
FLAWS = {"gaps": 0.02, "false_boundaries": 0.08, "noise": 0.03}
TUTORIAL, LESSON = Path(__file__).parent / "tutorial.md", 30
"""The page whose commands are run, and the section of it that is shown."""
WITH_BROWSER = ("view",)
Picture = NDArray[np.uint8]


def main(folder: Path) -> None:
    """Write all pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {**pictures(), **pictures_of_augmentation(), **pictures_of_skeletons(), **pictures_of_data()}
    made |= pictures_of_tutorial()
    for name, picture in made.items():
        uri = png_uri(picture.repeat(2, axis=0).repeat(2, axis=1))
        (folder / f"{name}.png").write_bytes(base64.b64decode(uri.partition(",")[2]))


def pictures() -> dict[str, Picture]:
    """Return one picture (y, x) or (y, x, 3) per array of the chain."""
    tissue = make_tissue(SHAPE, rng=np.random.default_rng(4), voxel_size=VOXEL_SIZE)
    boundary = boundary_map_from_truth(tissue.ids, rng=np.random.default_rng(1), **FLAWS)
    links = affinities_from_boundary_map(boundary, per_section=False, rule="min")
    flat = affinities_from_boundary_map(boundary[SECTION : SECTION + 1], rule="min")
    fragments = watershed(flat, low=0.02, high=0.99)
    sizes, edges = fragment_sizes(fragments), region_edges(fragments, flat)
    lookup = remove_dust(size_dependent_linkage(edges, sizes, ConstantSize(40, 0.3)), sizes, 40)
    merged = apply_lookup(fragments[0], lookup)
    tree = merge_tree(edges.contract(lookup), int(lookup.max()))
    truth = tissue.ids[SECTION]
    cuts = [paint(apply_lookup(merged, cut(tree, threshold)), truth) for threshold in CUTS]
    coloured = np.stack([_grey(links[c, SECTION]) for c in (0, 1, 2)], axis=-1)
    made = [np.repeat(tissue.image[SECTION, ..., None], 3, axis=-1), coloured, paint(fragments[0]), cuts[1]]
    return {
        "chain": _strip([one[:CHAIN, :CHAIN] for one in made]),
        "image": tissue.image[SECTION],
        "labels": paint(truth),
        "boundary": _grey(boundary[SECTION]),
        "affinities": coloured,
        "fragments": paint(fragments[0]),
        "edges": draw_edges(fragments[0], edges),
        "cuts": _strip(cuts),
        "segmentation": draw(cuts[1], outlines(truth), (255, 255, 255)),
    }


def pictures_of_augmentation() -> dict[str, Picture]:
    """Return three sections side by side as they are, and after each function of the augmentation."""
    margin, side = 12, 88
    tissue = make_tissue((3, 3 * side, 3 * side), rng=np.random.default_rng(3), voxel_size=(30.0, 14.0, 14.0))
    image, labels = SectionStatistics.of(tissue.image.__getitem__, 3).apply(tissue.image, slice(None)), tissue.ids
    middle = (slice(None), *2 * (slice(side, 2 * side),))
    wider = (slice(None), *2 * (slice(side - margin, 2 * side + margin),))
    here, rng = Patch(image[middle], labels[middle]), np.random.default_rng
    still = replace(EM_AUGMENTATION, rotation=0, scale=0, shear=0)
    places = random_places((side, side), EM_AUGMENTATION, rng=rng(4))
    bent = random_places((side, side), still, elastic=3.0, rng=rng(1))
    turn = Orientation((2,), (0, 2, 1))
    patches = {
        "none": here,
        "orientation": Patch(*(turn.apply(one) for one in here)),
        "warp": warp(image, labels, places),
        "elastic": warp(image, labels, bent),
        "misalign": misalign(image[wider], labels[wider], margin, rng=rng(2)),
        "slip": misalign(image[wider], labels[wider], margin, rng=rng(2), slip=True),
        "missing": missing_sections(*here, rng=rng(32), sections=2),
        "out_of_focus": out_of_focus(*here, rng=rng(11), sections=2),
        "noise": section_noise(*here, rng=rng(1), deviation=1.0),
        "grey": Patch(grey(here.image, 1.0, rng=rng(2)), here.labels),
    }
    return {f"augmentation_{name}": _side_by_side(patch) for name, patch in patches.items()}


def _side_by_side(patch: Patch) -> Picture:
    grey_levels = np.clip(patch.image * 45 + 128, 0, 255).astype(np.uint8)
    return _strip([draw(one, outlines(ids), ORANGE) for one, ids in zip(grey_levels, patch.labels)])


def _strip(made: Sequence[Picture]) -> Picture:
    """Lay pictures (y, x, 3) side by side."""
    gap = np.full((made[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([part for one in made for part in (one, gap)][:-1], axis=1)


def pictures_of_skeletons() -> dict[str, Picture]:
    """Return the thickest neurites of a block of tissue seen from above, with their skeletons in white."""
    size = (40.0, 14.0, 14.0)
    tissue = make_tissue((40, 200, 200), rng=np.random.default_rng(7), voxel_size=size)
    ids, sizes = np.unique(tissue.ids[tissue.ids > 0], return_counts=True)
    shown = np.where(np.isin(tissue.ids, ids[np.argsort(-sizes)[2:9]]), tissue.ids, np.uint64(0))
    picture = paint(np.take_along_axis(shown, (shown > 0).argmax(axis=0)[None], axis=0)[0])
    for skeleton in skeletonize(shown, size).values():
        line = remove_ticks(skeleton, 300)
        for u, v in line.edges:
            ends = line.vertices_nm[[u, v], 1:] / size[1:]
            for y, x in np.rint(np.linspace(*ends, 3)).astype(int):
                picture[y, x] = 255
    return {"skeletons": picture}


def pictures_of_tutorial() -> dict[str, Picture]:
    """Run the commands of the tutorial in a folder of their own and return what they made, one section of it."""
    text = TUTORIAL.read_text().replace("\\\n", " ")
    calls = [shlex.split(line)[1:] for line in re.findall(r"^ {4}(neuropil .*)$", text, re.MULTILINE)]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for call in calls:
            if call[0] not in WITH_BROWSER and (code := command([*call, "--quiet"])):
                raise RuntimeError(f"neuropil {shlex.join(call)} ended with {code}")
        image, truth, fragments, neurons = (
            _section(f"lesson/{name}")
            for name in ("tissue.h5:raw", "tissue.h5:labels", "fragments.h5:ids", "neurons.h5:ids")
        )
        links = _section("lesson/affinities.h5:affinities")
    return {
        "tutorial_image": _strip([np.repeat(image[..., None], 3, axis=-1), paint(truth)]),
        "tutorial_affinities": _strip([link_colours(links), paint(fragments, truth)]),
        "tutorial_neurons": _strip([segmentation_picture(neurons, truth), paint(truth)]),
    }


def _section(uri: str) -> NDArray[Any]:
    """Read the section of the tutorial's volumes that is shown, whatever their axes."""
    with open_volume(uri) as volume:
        return volume.read(Box((LESSON, 0, 0), (LESSON + 1, *volume.spatial_shape[1:])))[..., 0, :, :]


def pictures_of_data() -> dict[str, Picture]:
    """Return a section of piriform cortex beside its boundary map by ZNN's N4, where their files are found."""
    try:
        weights = parse_uri("data://znn_weights/N4_piriform_net_current.h5").local
        with open_volume("data://piriform/piriform_raw.h5:raw") as volume:
            image = volume.read()[2:3]
    except VolumeNotFound:
        return {}
    groups = read_network(weights).groups
    standardised = SectionStatistics.of(image.__getitem__, 1).apply(image, slice(None))
    boundary = predict(network_of(groups, groups, "n4"), [standardised])
    return {"piriform_n4": _strip([np.repeat(one[..., None], 3, axis=-1) for one in (image[0], _grey(boundary[0]))])}


def draw_edges(fragments: NDArray[np.uint64], edges: Edges) -> Picture:
    """Colour the pixels where two fragments touch by the affinity of their edge: dark blue 0, orange 1."""
    score = {(int(u), int(v)): float(a) for u, v, a in zip(edges.u, edges.v, edges.affinity)}
    picture = np.repeat(np.where(fragments > 0, np.uint8(225), np.uint8(255))[..., None], 3, axis=-1)
    low, high = np.array((30, 40, 110)), np.array(ORANGE)
    for axis in (0, 1):
        here, there = (np.moveaxis(fragments, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        for p, q in zip(*np.nonzero((here != there) & (here > 0) & (there > 0))):
            pair = sorted((int(here[p, q]), int(there[p, q])))
            affinity = score[(pair[0], pair[1])]
            y, x = (p, q) if axis == 0 else (q, p)
            picture[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = np.rint(low + affinity * (high - low)).astype(
                np.uint8
            )
    return picture


def _grey(values: NDArray[np.float32]) -> Picture:
    return np.rint(values * 255).astype(np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
