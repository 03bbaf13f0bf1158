"""Held-out sections as they are, and with defects: what simulated defects in training are for.

The middle of the tuned and the tested sections is predicted in one piece. Then one kind of defect at a time, made by
the functions that training uses but drawn with seeds of its own, is done to the tested sections, labels moving with
what moves. The decoder is tuned on the first, clean part; its threshold stays for all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuropil.geometry import Box
from neuropil.networks.augmentation import Patch
from neuropil.networks.checkpoint import load_model
from neuropil.networks.defects import misalign, missing_sections, out_of_focus
from neuropil.networks.patch_plan import default_patch
from neuropil.networks.patches import predict_affinities
from neuropil.networks.sampling import SectionStatistics
from neuropil.segmentation.affinities import Affinities
from neuropil.segmentation.affinity_moves import crop
from neuropil.segmentation.decoding import Decoder
from neuropil.stages.tuning import Crop, check
from neuropil.volume import open_volume

SIDE, MARGIN, SPOILT = 192, 17, 2  # pixels; sections spoilt at most, of ten
KINDS: dict[str, Callable[..., Patch]] = {
    "missing": lambda image, labels, rng: missing_sections(core(image), core(labels), rng=rng, sections=SPOILT),
    "out of focus": lambda image, labels, rng: out_of_focus(core(image), core(labels), rng=rng, sections=SPOILT),
    "misaligned": lambda image, labels, rng: misalign(image, labels, MARGIN, rng=rng),
    "slipped": lambda image, labels, rng: misalign(image, labels, MARGIN, rng=rng, slip=True),
}


def measure(weights: Path, stack, sections: tuple[tuple[int, int], tuple[int, int]], draws: int, tuned: Callable):
    """Score a network on clean and spoilt sections.

    Parameters
    ----------
    weights : of the network
    stack : image and labels
    sections : to tune on, and those right after them to test on
    draws : of each defect
    tuned : crop -> the decoder that is best for it

    Returns
    -------
    dict : "clean" and each kind of defect -> means over the draws of Rand error 1 - F, vi_split and vi_merge
    """
    image, labels = middle(stack, (sections[0][0], sections[1][1]), SIDE + 2 * MARGIN)
    first, clean = sections[1][0] - sections[0][0], core(image)
    links = predicted(weights, clean)
    decoder = tuned(Crop(part(links, slice(0, first)), core(labels)[:first], None))
    found = {"clean": [scored(links, core(labels), first, decoder)]}
    for kind, spoil in KINDS.items():
        for draw in range(draws):
            rng = np.random.default_rng((draw, len(found)))
            made = spoil(image[first:], labels[first:], rng)
            links = predicted(weights, np.concatenate([clean[:first], made.image]))
            found.setdefault(kind, []).append(
                scored(links, np.concatenate([core(labels)[:first], made.labels]), first, decoder)
            )
    return {kind: {key: statistics.mean(one[key] for one in rows) for key in rows[0]} for kind, rows in found.items()}


def middle(stack, sections: tuple[int, int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the middle of some sections: image, standardised by whole sections, and labels."""
    with open_volume(stack.image) as volume, open_volume(stack.labels) as truth:
        whole = Box((sections[0], 0, 0), (sections[1], *volume.spatial_shape[1:]))
        image = volume.read(whole)
        y, x = ((n - side) // 2 for n in image.shape[1:])
        inside = (slice(None), slice(y, y + side), slice(x, x + side))
        standard = SectionStatistics.of(image.__getitem__, len(image)).apply(image, slice(None))
        return standard[inside], truth.read(whole)[inside]


def core(array: np.ndarray) -> np.ndarray:
    """Leave out what shifted sections may need."""
    return array[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def predicted(weights: Path, image: np.ndarray) -> Affinities:
    """Predict affinities; the tiles are whole here, so nothing is written."""
    model = load_model(weights)
    patch = default_patch(model.unet.architecture, model.card)
    values = predict_affinities(model.unet, np.ascontiguousarray(image), patch)
    return Affinities(values, model.unet.architecture.offsets)


def part(links: Affinities, sections: slice) -> Affinities:
    """Return some sections."""
    return crop(links, Box((sections.start, 0, 0), (sections.stop, *links.shape[1:])))


def scored(links: Affinities, labels: np.ndarray, first: int, decoder: Decoder) -> dict[str, float]:
    """Score the sections from `first` on."""
    row = check(Crop(part(links, slice(first, len(labels))), labels[first:], None), decoder)
    return {"rand_error": 1 - row["f"], "vi_split": row["vi_split"], "vi_merge": row["vi_merge"]}
