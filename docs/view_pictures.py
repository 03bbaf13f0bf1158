"""Redraw the screenshots of docs/howto/view.md in a real browser: python docs/view_pictures.py (scripts/browser first).

Synthetic tissue, affinities made of its truth with errors, and what neuropil makes of them; every picture is a page
that was open, and the edits in them are clicks.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, browser  # noqa: E402
from small import good, load, store  # noqa: E402

from neuropil.labels import contingency  # noqa: E402
from neuropil.segmentation.affinities import NEAREST, affinities_from_boundary_map  # noqa: E402
from neuropil.stages import view as stage  # noqa: E402
from neuropil.synthetic import boundary_map_from_truth, make_tissue  # noqa: E402

SHIFT = "\ue008"
SHAPE, VOXEL_NM = (36, 200, 270), 8.0
ZOOM = 0.68  # voxels per pixel
Place = tuple[int, int]


def make(folder: Path) -> dict[str, str]:
    """Write the volumes; return their URIs by role."""
    rng = np.random.default_rng(4)
    tissue = make_tissue(SHAPE, rng=rng, voxel_size=(VOXEL_NM,) * 3)
    holes = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3)
    specks = np.abs(ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5))
    boundary = boundary_map_from_truth(tissue.ids, rng=rng) * (0.62 + 0.2 * holes / holes.std()) + 1.2 * specks
    boundary = boundary.clip(0, 1).astype(np.float32)
    links = affinities_from_boundary_map(boundary, per_section=False)
    facts = {"voxel_size": (VOXEL_NM,) * 3}
    bytes_ = np.rint(255 * boundary).astype(np.uint8)
    uris = {
        "image": store(f"{folder}/t.h5:raw", tissue.image, kind="image", **facts),
        "truth": store(f"{folder}/t.h5:labels", tissue.ids, kind="labels", **facts),
        "boundary": store(f"{folder}/b.zarr", bytes_, kind="boundary", scale=1 / 255, **facts),
        "affinities": store(f"{folder}/a.zarr", links, kind="affinities", offsets=NEAREST, **facts),
        "segmentation": f"{folder}/ids.zarr",
        "fragments": f"{folder}/f.zarr",
    }
    words = ["--input", uris["affinities"], "--output", uris["segmentation"], "--fragments", uris["fragments"]]
    good("segment", *words, "--method", "mean", "--high", 0.97, "--size", 40, "--dust", 40, "--merge-threshold", 0.5)
    return uris


def keep(picture: np.ndarray, path: Path) -> None:
    """Write a picture with few colours, so that the file is small."""
    Image.fromarray(picture).quantize(40, dither=Image.Dither.NONE).save(path, optimize=True)


def errors(uris: dict[str, str]) -> tuple[tuple[Place, Place], tuple[Place, Place]]:
    """Return two places (y, x) in the middle section of one object in two segments, and of two objects in one."""
    ids, truth = (load(uris[role])[SHAPE[0] // 2] for role in ("segmentation", "truth"))
    for labels in (ids, truth):  # away from what the page shows at its edges
        labels[:40] = labels[-40:] = labels[:, :30] = labels[:, -30:] = 0
    return _two_parts(truth, ids), _two_parts(ids, truth)


def _two_parts(whole: np.ndarray, parts: np.ndarray) -> tuple[Place, Place]:
    """Return the inside of the two parts of the one whose second part is largest."""
    table = contingency(whole, parts)
    best: tuple[int, int, int, int] = (0, 0, 0, 0)
    for row in range(table.proposal_ids.size):
        own = sorted(
            (int(n), int(table.truth_ids[c]))
            for n, c in zip(table.counts[table.rows == row], table.columns[table.rows == row])
            if table.truth_ids[c] and table.proposal_ids[row]
        )
        if len(own) > 1:
            best = max(best, (own[-2][0], int(table.proposal_ids[row]), own[-1][1], own[-2][1]))
    found = []
    for part in best[2:]:
        inside = np.pad((whole == best[1]) & (parts == part), 1)
        depth = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        found.append((int(y), int(x)))
    return found[0], found[1]


def edits(page: Browser, uris: dict[str, str], path: Path) -> None:
    """Click, merge, split; keep the three pictures side by side."""
    merge, split = errors(uris)
    shown = {role: uris[role] for role in ("image", "fragments", "segmentation")}
    with ExitStack() as kept:
        config = stage.Config(**shown, edit=True, layout="one")
        view, _ = kept.enter_context(stage.opened(config, kept))
        with view._viewer.txn() as state:
            state.layout = "xy"
            state.cross_section_scale = ZOOM
        page.open(view.link)
        wide, high = page.size
        pictures = []

        def click(place: Place) -> None:
            y, x = ((n - extent / 2) / ZOOM for n, extent in zip(place, SHAPE[1:]))
            page.click(round(wide / 2 + x), round((48 + high) / 2 + y), SHIFT)

        page.until(lambda now: now.std() > 20)
        for pair, says in ((merge, "merged"), (split, "split")):
            click(pair[0])
            page.wait_for("Shift+click another one")
            pictures += [page.until(lambda now: True)] if not pictures else []
            click(pair[1])
            page.wait_for(says + ":")
            pictures.append(page.until(lambda now: True))
        page.open("about:blank")
    keep(np.hstack([one[:, wide // 2 - 210 : wide // 2 + 210] for one in pictures]), path)


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    with tempfile.TemporaryDirectory() as work:
        uris = make(Path(work))
        for name, roles in (
            ("view_labels", ("image", "fragments", "segmentation", "truth")),
            ("view_maps", ("image", "boundary", "affinities")),
        ):
            with browser((780, 300)) as page, ExitStack() as kept:
                view, _ = kept.enter_context(stage.opened(stage.Config(**{role: uris[role] for role in roles}), kept))
                page.open(view.link)
                page.until(lambda now: now.std() > 20)
                keep(page.until(lambda now: now.std() > 20), folder / f"{name}.png")
                page.open("about:blank")
        with browser((640, 360)) as page:
            edits(page, uris, folder / "view_edits.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
