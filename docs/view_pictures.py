"""Redraw the screenshots of docs/howto/view.md in a real browser: python docs/view_pictures.py (scripts/browser first).

Synthetic tissue, a boundary map made of its truth, and what neuropil makes of it; every picture is a page that was open.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import imageio.v3 as iio
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, browser  # noqa: E402
from small import good, store  # noqa: E402

from neuropil.segmentation.affinities import NEAREST, affinities_from_boundary_map  # noqa: E402
from neuropil.stages import view as stage  # noqa: E402
from neuropil.synthetic import boundary_map_from_truth, make_tissue  # noqa: E402

SHIFT = "\ue008"
VOXEL_SIZE = (40.0, 4.0, 4.0)


def make(folder: Path) -> dict[str, str]:
    """Write the volumes; return their URIs by role."""
    tissue = make_tissue((12, 300, 400), rng=np.random.default_rng(4), voxel_size=VOXEL_SIZE)
    boundary = boundary_map_from_truth(tissue.ids, rng=np.random.default_rng(1))
    links = affinities_from_boundary_map(boundary, per_section=False)
    facts = {"voxel_size": VOXEL_SIZE}
    uris = {
        "image": store(f"{folder}/t.h5:raw", tissue.image, kind="image", **facts),
        "truth": store(f"{folder}/t.h5:labels", tissue.ids, kind="labels", **facts),
        "boundary": store(f"{folder}/b.zarr", np.rint(255 * boundary).astype("u1"), kind="boundary", scale=1 / 255, **facts),
        "affinities": store(f"{folder}/a.zarr", links.astype("f4"), kind="affinities", offsets=NEAREST, **facts),
        "segmentation": f"{folder}/ids.zarr",
        "fragments": f"{folder}/f.zarr",
    }
    words = ["--input", uris["affinities"], "--output", uris["segmentation"], "--fragments", uris["fragments"]]
    good("segment", *words, "--method", "mean", "--low", 0.5, "--size", 30, "--dust", 30, "--merge-threshold", 0.75)
    return uris


def shot(page: Browser, path: Path) -> None:
    """Keep what the page looks like when it no longer changes, with few colours so that the file is small."""
    time.sleep(2)
    iio.imwrite(path, page.until(lambda now: now.std() > 20))


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    with tempfile.TemporaryDirectory() as work, browser((1100, 420)) as page:
        uris = make(Path(work))
        for name, roles in (
            ("view_labels", ("image", "fragments", "segmentation", "truth")),
            ("view_maps", ("image", "boundary", "affinities")),
        ):
            with ExitStack() as kept:
                view, _ = kept.enter_context(stage.opened(stage.Config(**{role: uris[role] for role in roles}), kept))
                page.open(view.link)
                shot(page, folder / f"{name}.png")
                page.open("about:blank")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
