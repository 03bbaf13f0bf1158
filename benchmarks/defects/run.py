"""Precision and recall of the section detectors on real stacks with defects put into them.

    python benchmarks/defects/run.py [--quick] [--json FILE]

Every tenth section of AC4, the fly's nerve cord, ISBI 2012 and FIB-25 (NEUROPIL_DATA) is spoilt, at a random place in
its ten, by one defect of one strength at a time; what the detectors find in the stacks as they are is listed, too, and
left out of the count. `..._precision` and `..._recall` are over all stacks and draws; a finding of another kind counts
as false. Rules are the defaults; they were set by looking at these stacks, so expect somewhat less on others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from neuropil.defects import KINDS, find_defects, section_facts
from neuropil.volume import open_volume

STACKS = {
    "ac4": "data://snemi3d/ac4.h5:raw",
    "vnc": "data://vnc/vnc_x000-703.h5:raw",
    "isbi2012": "data://isbi2012/isbi2012_z00-19.h5:raw",
    "fib25": "data://fib25/fib25_sample2_z000-179.h5:raw",
}
Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def shifted(section: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    by = np.rint(pixels * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    return ndimage.shift(section, by, order=0, mode="reflect")


def scaled(section: np.ndarray, gain: float, offset: float) -> np.ndarray:
    middle = section.mean()
    return np.clip((section - middle) * gain + middle + offset, 0, 255).astype(np.uint8)


SPOILT: dict[str, tuple[str, Spoil]] = {
    "black": ("missing", lambda x, rng: np.zeros_like(x)),
    "grey": ("missing", lambda x, rng: np.full_like(x, rng.integers(60, 200))),
    "two_thirds_missing": ("missing", lambda x, rng: np.where(np.arange(len(x))[:, None] < 0.67 * len(x), 0, x)),
    "blur_1.5": ("blurred", lambda x, rng: ndimage.gaussian_filter(x, 1.5)),
    "blur_3": ("blurred", lambda x, rng: ndimage.gaussian_filter(x, 3)),
    "contrast_halved": ("contrast", lambda x, rng: scaled(x, 0.5, 0)),
    "darker_by_40": ("contrast", lambda x, rng: scaled(x, 1, -40)),
    "slip_15": ("misaligned", lambda x, rng: shifted(x, 15, rng)),
    "slip_30": ("misaligned", lambda x, rng: shifted(x, 30, rng)),
}


def measure(stack: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Return true, false and missed findings of one draw; sections that are flagged as they are do not count."""
    kind, spoil = SPOILT[name]
    clean = find_defects(section_facts(stack.__getitem__, len(stack)))
    flagged = np.any(list(clean.values()), axis=0)
    spoilt, truth = stack.copy(), np.zeros(len(stack), bool)
    for first in range(0, len(stack) - 9, 10):
        z = first + int(rng.integers(1, 9))
        spoilt[z], truth[z] = spoil(stack[z], rng), True
    found = find_defects(section_facts(spoilt.__getitem__, len(stack)))
    right = found[kind] & truth
    wrong = np.any([found[one] & ~(truth if one == kind else np.zeros_like(truth)) for one in KINDS], axis=0)
    counted = ~flagged
    return np.array([(right & counted).sum(), (wrong & counted).sum(), (truth & ~found[kind] & counted).sum()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="part of each stack, one draw")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    stacks = {}
    for name, uri in STACKS.items():
        with open_volume(uri) as volume:
            stacks[name] = volume.read()[:40, :512, :512] if options.quick else volume.read()
        found = find_defects(section_facts(stacks[name].__getitem__, len(stacks[name])))
        print(f"{name} as it is:", {kind: np.flatnonzero(which).tolist() for kind, which in found.items()})
    for name in SPOILT:
        total = np.zeros(3, int)
        for draw in range(1 if options.quick else 2):
            for stack in stacks.values():
                total += measure(stack, name, np.random.default_rng(draw))
        right, wrong, lost = total
        figures |= {f"{name}_precision": right / max(right + wrong, 1), f"{name}_recall": right / max(right + lost, 1)}
    for key, value in figures.items():
        print(f"{key:32s} {value:8.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
