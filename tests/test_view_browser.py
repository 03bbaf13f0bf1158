"""`neuropil view` in a real browser: what is seen and where, what clicks do, and that nothing leaves the machine."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, browser
from small import good, load, process, store

from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages import view as stage
from neuropil.stages.fragment_graph import save_graph

SHIFT, CONTROL = "\ue008", "\ue009"
PLACE = {"voxel_size": (40.0, 8.0, 4.0), "offset": (80.0, 16.0, 2.0)}
SHAPE = (3, 20, 50)
BOX = np.s_[1, 2:6, 10:40]  # of the image, bright
PLANE = np.s_[60:400, 60:940]  # of the page, without buttons and scale bar
LEFT, RIGHT, FAR = (450, 500), (600, 500), (800, 500)  # on the page: fragments 2, 3 and 4


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as opened:
        yield opened
        assert opened.errors() == []
        assert opened.hosts() == {"127.0.0.1"}


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, str]:
    """A dark image with a bright box; fragments 1 to 4 from left to right, of segments 5, 5, 6, 6; their graph."""
    image = np.full(SHAPE, 30, np.uint8)
    image[BOX] = 250
    quarter = (np.arange(50) * 4 // 50 + 1).astype(np.uint64)
    fragments = np.broadcast_to(quarter, SHAPE)
    table = np.array([0, 5, 5, 6, 6], np.uint64)
    uris = {
        "image": store(f"{tmp_path}/v.h5:raw", image, kind="image", **PLACE),
        "fragments": store(f"{tmp_path}/v.h5:fragments", fragments, kind="labels", **PLACE),
        "segmentation": store(f"{tmp_path}/v.h5:ids", table[fragments.astype(int)], kind="labels", **PLACE),
    }
    ends = np.array([1, 2, 3], np.uint64)
    save_graph(
        uris["fragments"], FragmentGraph(ends, ends + np.uint64(1), np.array([0.9, 0.1, 0.9], np.float32), table)
    )
    return uris


@contextmanager
def opened(page: Browser, **fields: Any) -> Iterator[stage.View]:
    """Show a view on the page."""
    with ExitStack() as kept, stage.opened(stage.Config(**fields, layout="one"), kept) as (view, _):
        page.open(view.link)
        yield view
        page.open("about:blank")


def colour(picture: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    return picture[place[1], place[0]].astype(int)


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).sum() > 40)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_voxels_are_where_they_are(page: Browser, volumes: dict[str, str]) -> None:
    """The bright box is seen once, in the middle section, with its shape in nm and on its side."""
    with opened(page, image=volumes["image"]):
        picture = page.until(lambda now: bool((now[PLANE].min(axis=2) > 200).sum() > 10_000))
    y, x = np.nonzero(picture[PLANE].min(axis=2) > 200)
    high, wide = np.ptp(y) + 1, np.ptp(x) + 1
    assert wide / high == pytest.approx(30 * 4 / (4 * 8), rel=0.03)
    middle = (x.min() + x.max()) / 2 + 60 - 500, (y.min() + y.max()) / 2 + 60 - 365  # from the middle of the plane
    scale = wide / 30 / 4  # pixels per nm
    assert middle == pytest.approx((0, (4 - 10) * 8 * scale), abs=12)


def test_clicks_merge_and_split_and_keys_undo(page: Browser, volumes: dict[str, str], tmp_path: Path) -> None:
    """Colours on the page, lines in the log, and the corrected labels agree after each step."""
    log = tmp_path / "v.h5.ids.edits.jsonl"
    with opened(page, **volumes, edit=True, user="ann"):
        before = page.until(lambda now: differ(colour(now, LEFT), colour(now, RIGHT)))
        assert colour(before, LEFT).std() > 10  # not grey
        page.click(*LEFT, SHIFT)
        page.wait_for("segment 5")
        page.click(*RIGHT, SHIFT)
        merged = page.until(lambda now: not differ(colour(now, LEFT), colour(now, RIGHT)))
        assert not differ(colour(merged, RIGHT), colour(before, LEFT))
        assert "merged: 6 is part of 5 now" in page.said()
        assert [(one.get("op"), one.get("a"), one.get("b"), one.get("user")) for one in lines(log)[1:]] == [
            ("merge", 2, 3, "ann")
        ]
        page.press("z", CONTROL)
        page.until(lambda now: differ(colour(now, LEFT), colour(now, RIGHT)))
        page.press("y", CONTROL)
        page.wait_for("1 edits stand")
        page.click(*LEFT, SHIFT)
        page.wait_for("segment 5")
        page.click(*FAR, SHIFT)
        split = page.until(lambda now: differ(colour(now, LEFT), colour(now, FAR)))
        assert not differ(colour(split, RIGHT), colour(split, LEFT))  # what was merged by hand is cut last
    entries = lines(log)[1:]
    assert [one["op"] for one in entries] == ["merge", "undo", "redo", "split"]
    assert entries[-1]["away"] == [4]
    out = f"{tmp_path}/out.zarr"
    good("apply-edits", "--segmentation", volumes["segmentation"], "--fragments", volumes["fragments"], "--output", out)
    assert np.unique(load(out)[..., :38]).tolist() == [5]
    assert np.unique(load(out)[..., 38:]).tolist() == [7]


@pytest.mark.slow
def test_the_command_ends_at_ctrl_c_and_its_view_opens_again(
    page: Browser, volumes: dict[str, str], tmp_path: Path
) -> None:
    state = tmp_path / "view.json"
    words = ["--image", volumes["image"], "--segmentation", volumes["segmentation"], "--save-state", state]
    pictures = []
    for argv in (["view", *words], ["view", "--state", state]):
        running = process(*argv, "--no-open")
        said = ""
        while not (link := re.search(r"http://127\.0\.0\.1:\d+/v/[\w-]{20,}/", said)):
            line = running.stderr.readline()
            assert line, said
            said += line
        page.open(link[0])
        pictures.append(page.until(lambda now: differ(colour(now, LEFT), colour(now, RIGHT))))
        if not state.exists():
            page.press("s", CONTROL)
            page.wait_for("saved in")
            pictures[-1] = page.until(lambda now: True)
        page.open("about:blank")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        assert running.returncode == 0, err
        assert out.startswith("closed")
        assert "Traceback" not in err
    middle = np.s_[60:640]  # without the line at the foot
    assert np.abs(pictures[0][middle].astype(int) - pictures[1][middle]).mean() < 1
    assert str(tmp_path) not in state.read_text()
