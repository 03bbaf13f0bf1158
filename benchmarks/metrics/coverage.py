"""How often intervals by blocks hold the expected score, where errors are larger than a block.

    python benchmarks/metrics/coverage.py [--volumes 120]

Volumes of 24**3 voxels with 40 random cells, of which two fifths are split at random and one pair is merged, are cut
into 64 blocks. The expectation is the mean over all volumes; an honest interval of 90 % holds it in 90 % of them.
"""

from __future__ import annotations

import argparse

import numpy as np

from neuropil.labels import Contingency
from neuropil.metrics.blocks import block_tables, bootstrap_blocks
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.rand import rand_scores

SIDE, CELLS, PIECES, LEVEL = 24, 40, 100, 0.9


def nearest(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return which of so many random points is nearest to each voxel; cells are longer along z."""
    points = rng.random((count, 3)) * SIDE
    voxels = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1)
    distance = ((voxels[..., None, :] - points) ** 2 * (0.3, 1, 1)).sum(axis=-1)
    return distance.argmin(axis=-1)


def volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a proposal with split and merge errors, and its truth."""
    truth = nearest(rng, CELLS) + 1
    split = rng.random(CELLS + 1) < 0.4
    proposal = truth * 1000 + np.where(split[truth], nearest(rng, PIECES), 0)
    first, second = rng.choice(CELLS, 2, replace=False) + 1
    return np.where(truth == second, first * 1000, proposal), truth


def scores(table: Contingency) -> dict[str, float]:
    """Return what is looked at."""
    information = variation_of_information(table)
    return {"rand_error": rand_scores(table).error, "vi_split": information.split, "vi_merge": information.merge}


def main() -> None:
    """Print the share of volumes whose interval holds the mean score of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=120)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    made = [bootstrap_blocks(block_tables(*volume(rng), (6, 6, 6)), scores, rng, 100) for _ in range(options.volumes)]
    for k, name in enumerate(made[0].names):
        expected = np.mean([one.estimate[k] for one in made])
        intervals = [one.intervals(LEVEL)[name] for one in made]
        held = np.mean([one.low <= expected <= one.high for one in intervals])
        print(f"{name:12} expected {expected:.4f}   in {100 * held:.0f} % of the intervals of {100 * LEVEL:.0f} %")


if __name__ == "__main__":
    main()
