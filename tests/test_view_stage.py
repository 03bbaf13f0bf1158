"""`neuropil view` and `neuropil apply-edits` without a browser: what is shown, what is kept, what is refused."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import OFFSET, VOXEL_SIZE, good, load, process, sentence, stack, store, untouched

from neuropil.cli import main
from neuropil.errors import ConfigError, InputError, OutputExists
from neuropil.geometry import Box
from neuropil.segmentation.edits import Edit
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages import edit_log
from neuropil.stages import view as stage
from neuropil.stages.fragment_graph import graph_path, load_graph, save_graph
from neuropil.stages.view_inputs import read_points
from neuropil.view.layers import point_nm, position
from neuropil.view.proofreading import Proofreading
from neuropil.view.shown import Pieces, Points, Shown
from neuropil.view.viewer import View
from neuropil.volume import open_volume

pytest.importorskip("neuroglancer")


class Array:
    """Voxels in memory, which remember the boxes that were read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.boxes = array, array.shape, array.dtype, []

    def read(self, box: Box | None = None) -> np.ndarray:
        self.boxes.append(box)
        return self.array[(..., *box.slices)] if box else self.array


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return stack(tmp_path / "s.h5")


def opened(kept: ExitStack, **fields: Any) -> tuple[View, Any]:
    return kept.enter_context(stage.opened(stage.Config(**fields), kept))


def get(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=10) as answer:
        return answer.read()


def fragments_of_four(folder: Path) -> tuple[str, str]:
    """Write fragments 1 to 4 along x, of segments 5, 5, 6, 6, and their graph; return the URIs of both."""
    fragments = np.repeat(np.arange(1, 5, dtype=np.uint64), 3).reshape(1, 1, 12) * np.ones((2, 3, 1), np.uint64)
    table = np.array([0, 5, 5, 6, 6], np.uint64)
    facts = {"voxel_size": VOXEL_SIZE, "offset": OFFSET, "kind": "labels"}
    pieces = store(f"{folder}/f.zarr", fragments, **facts)
    ends = np.array([1, 2, 3], np.uint64)
    save_graph(pieces, FragmentGraph(ends, ends + np.uint64(1), np.array([0.9, 0.1, 0.9], np.float32), table))
    return pieces, store(f"{folder}/ids.zarr", table[fragments.astype(int)], **facts)


def at(x: int) -> tuple[float, float, float]:
    """Place of voxel (1, 1, x), nm."""
    return (OFFSET[0] + VOXEL_SIZE[0], OFFSET[1] + VOXEL_SIZE[1], OFFSET[2] + x * VOXEL_SIZE[2])


def test_layers_follow_kinds(tmp_path: Path, data: Path) -> None:
    """A container stands for all it holds; each volume is shown by what its metadata say, in its place."""
    links = store(f"{tmp_path}/a.zarr", np.zeros((3, 6, 40, 44), np.uint8), kind="affinities", scale=1 / 255)
    chart = store(f"{tmp_path}/m.zarr", np.zeros((6, 40, 44), np.uint8), kind="boundary", scale=1 / 255)
    with ExitStack() as kept:
        view, _ = opened(kept, volumes=[str(data), links, chart])
        state = view.state()
        layers = {layer["name"]: layer for layer in state["layers"]}
        assert list(layers) == ["raw", "m", "a", "mask", "labels"]
        assert {name: layer["type"] for name, layer in layers.items()} == dict.fromkeys(layers, "image") | {
            "labels": "segmentation"
        }
        assert all(layer["source"] == f"neuropil://{name}" for name, layer in layers.items())
        assert "emitRGB(vec3(value(0)" in layers["a"]["shader"]
        assert "range=[0, 255]" in layers["m"]["shader"]
        assert layers["labels"]["colorSeed"] == 7
        assert state["dimensions"] == {"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [5e-8, "m"]}
        # the middle of 6 × 40 × 44 voxels, and the offset in voxels
        assert state["position"] == pytest.approx([22 + 80 / 4, 20 + 40 / 4, 3 + 100 / 50])
        assert len(state["layout"]["children"]) == 3
    assert "nothing to show" in sentence("view")


@pytest.mark.parametrize("factor", [1, 2])
def test_volumes_of_other_voxel_sizes_and_offsets_meet(factor: int) -> None:
    """Where a voxel's centre is in nm, there it is on the page, whatever its size."""
    first = Shown("a", "image", Array(np.zeros((4, 6, 8), np.uint8)), (40, 4, 8), (80.0, 2.0, 0.0))
    place = (first.offset[0] + 40, first.offset[1] + 8, first.offset[2] + 24)  # centre of voxel 1, 2, 3
    assert position(place, first) == [3.5, 2.5 + 0.5, 1.5 + 2]
    assert point_nm(position(place, first), first) == pytest.approx(place)
    assert first.voxel_at(place) == (1, 2, 3)
    half = tuple((factor - 1) / 2 * s for s in first.voxel_size)
    offset = tuple(o + h for o, h in zip(first.offset, half))
    coarse = Shown(
        "b", "image", Array(np.zeros((4, 6, 8), np.uint8)), tuple(factor * s for s in first.voxel_size), offset
    )
    with_view = View([first, coarse])
    try:
        layers = with_view._viewer.state.to_json()["layers"]
        for one, layer in zip((first, coarse), layers):
            transform = layer["source"][0]["transform"]
            matrix = np.array(transform["matrix"])
            corner = [row[-1] * s for row, s in zip(matrix, one.voxel_size)]
            expected = [o - s / 2 + f / 2 for o, s, f in zip(one.offset, one.voxel_size, first.voxel_size)]
            assert corner == pytest.approx(expected)
            assert list(transform["outputDimensions"]) == ["z", "y", "x"]
    finally:
        with_view.close()
    assert coarse.voxel_at((0.0, -99.0, 0.0)) is None


def test_only_pieces_are_read_and_of_types_that_are_known() -> None:
    array = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    source = Array(array)
    pieces = Pieces(source, labels=True)
    np.testing.assert_array_equal(pieces[np.s_[1:3, 0:2, 4:8]], array[1:3, :2, 4:])
    assert source.boxes == [Box((1, 0, 4), (3, 2, 8))]
    assert pieces.dtype == np.uint64
    for given, labels, shown in (("?", 0, "u1"), ("f2", 0, "f4"), ("f8", 0, "f4"), ("i8", 0, "f4"), ("u2", 0, "u2"),
                                 ("u1", 1, "u4"), ("i4", 1, "u4"), ("u8", 1, "u8")):  # fmt: skip
        assert Pieces(Array(np.zeros((1, 1, 1), given)), labels=bool(labels)).dtype == shown
    channels = Pieces(Array(np.arange(3 * 4).reshape(3, 1, 1, 4)))
    assert channels[np.s_[1:3, 0:1, 0:1, 2:4]].tolist() == [[[[6, 7]]], [[[10, 11]]]]


def test_the_link_has_a_token_and_pages_come_from_here(data: Path) -> None:
    with ExitStack() as kept:
        view, _ = opened(kept, image=f"{data}:raw")
        assert view.link.startswith(f"http://127.0.0.1:{view.port}/v/")
        page = get(view.link).decode()
        policy = page.split('content="', 1)[1].split('"')[0]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert "://" not in page
        script = page.split('src="')[1].split('"')[0]
        assert len(get(view.link + script)) > 1000
        for wrong in (view.link[:-5] + "abcd/", view.link.split("/v/")[0] + "/"):
            with pytest.raises(urllib.error.HTTPError):
                get(wrong)
    with pytest.raises(urllib.error.URLError):
        get(view.link)


def test_a_place_to_look_at(data: Path) -> None:
    with ExitStack() as kept:
        view, _ = opened(kept, image=f"{data}:raw", position=(2, 5, 9))
        z, y, x = (o / s + p + 0.5 for o, s, p in zip(OFFSET, VOXEL_SIZE, (2, 5, 9)))
        assert view.state()["position"] == pytest.approx([x, y, z])


def test_a_port_that_is_taken_is_named(data: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = sentence("view", f"{data}:raw", "--port", port, "--no-open")
        assert said.startswith(f"cannot listen at 127.0.0.1 port {port}: ")


def test_a_view_is_kept_and_opened_elsewhere(tmp_path: Path, data: Path) -> None:
    """Paths are kept from where the file lies, so that a folder can be given away."""
    (tmp_path / "p.csv").write_text("z,y,x,kind\n1,2,3,merge\n")
    there = tmp_path / "there"
    there.mkdir()
    file = there / "view.json"
    with ExitStack() as kept:
        fields = {"image": f"{data}:raw", "truth": f"{data}:labels", "points": [f"{tmp_path}/p.csv"]}
        view, save = opened(kept, **fields, save_state=file)
        with view._viewer.txn() as state:
            state.position = [5, 6, 4]
            state.layers["truth"].selected_alpha = 0.9
        before = view.state()
        save(Path("elsewhere.json"))
    assert str(tmp_path) not in file.read_text()
    assert not Path("elsewhere.json").exists()
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "_moved"))
    try:
        with ExitStack() as kept:
            view, _ = opened(kept, state=moved / "there" / "view.json")
            assert view.state() == before
            assert view.state()["position"] == [5, 6, 4]
            texts = [one["description"] for layer in before["layers"] for one in layer.get("annotations", [])]
            assert texts == ["kind merge"]
        with pytest.raises(OutputExists, match="--overwrite"), ExitStack() as kept:
            opened(kept, image=f"{moved}/s.h5:raw", save_state=moved / "there" / "view.json")
    finally:
        moved.rename(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "z,y,x,score\n1,2,3,0.25\n"),
        ("b.csv", "score,z_nm,y_nm,x_nm\n0.25,150,48,92\n"),
        ("c.json", '[{"position": [1, 2, 3], "score": 0.25}]'),
        ("d.json", '{"n": 1, "suspects": [{"position_nm": [150, 48, 92], "score": 0.25}]}'),
    ],
)
def test_points_of_any_table(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    first = Shown("a", "image", Array(np.zeros((4, 6, 8), np.uint8)), VOXEL_SIZE, OFFSET)
    points = read_points(str(tmp_path / name), first)
    assert points.points_nm.tolist() == [[150, 48, 92]]
    assert points.texts == ("score 0.25",)
    assert first.voxel_at(tuple(points.points_nm[0])) == (1, 2, 3)


def clicked(folder: Path, fragments: str | None, ids: str, clicks: list[float], log: str | None = None) -> list[str]:
    """Click at places along x with nobody looking; return what was said."""
    with ExitStack() as kept:
        view, _ = opened(kept, segmentation=ids, fragments=fragments, edit=True, log=log, user="ann")
        handlers = {
            name: next(iter(view._viewer.actions._action_handlers[f"neuropil-{name}"]))
            for name in ("pick", "undo", "redo", "drop")
        }
        said = []
        for click in clicks:
            place = None if isinstance(click, str) else np.array(position(at(click), view.first), np.float32)
            happened = type("State", (), {"mouse_position": place})
            handlers[click if isinstance(click, str) else "pick"](happened)
            said.append(view._viewer.config_state.state.status_messages["neuropil"])
            assert [layer["name"] for layer in view.state()["layers"]] == [
                *["fragments"] * bool(fragments),
                "segmentation",
            ]
        return said


def test_clicks_become_edits_and_edits_labels(tmp_path: Path) -> None:
    fragments, ids = fragments_of_four(tmp_path)
    said = clicked(tmp_path, fragments, ids, [4, 4, 0, 7, "undo", "redo", "undo", "undo", 99, 0, 4])
    assert [one.split(":")[0] for one in said] == [
        "segment 5", "the same fragment twice", "segment 5", "merged",
        "undone; 0 edits stand, 1 can be done again", "redone; 1 edits stand, 0 can be done again",
        "undone; 0 edits stand, 1 can be done again", "not done", "not done", "segment 5", "split",
    ]  # fmt: skip
    log = tmp_path / "ids.zarr.edits.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one.get("op") for one in lines] == [None, "merge", "undo", "redo", "undo", "split"]
    assert lines[1]["places_nm"] == [list(at(0)), list(at(7))]
    assert lines[1]["user"] == "ann"
    out, mask = f"{tmp_path}/out.zarr", f"{tmp_path}/mask.zarr"
    words = ["apply-edits", "--segmentation", ids, "--fragments", fragments, "--output", out, "--mask", mask]
    assert "0 merges and 1 splits stand, of 5 lines" in good(*words)
    assert load(out)[1, 1].tolist() == [5] * 3 + [7] * 3 + [6] * 6
    assert load(mask)[1, 1].tolist() == [1] * 6 + [0] * 6
    with open_volume(out) as volume:
        known = volume.metadata
        assert (known.kind, known.voxel_size, known.offset) == ("labels", VOXEL_SIZE, OFFSET)
    with untouched(tmp_path):
        assert "out.zarr exists" in sentence(*words)
    # Another view goes on where this one ended.
    assert clicked(tmp_path, fragments, ids, ["undo", "undo"])[0].startswith("undone; 0 edits stand")


def test_segments_without_fragments_can_be_merged(tmp_path: Path) -> None:
    _, ids = fragments_of_four(tmp_path)
    said = clicked(tmp_path, None, ids, [0, 7, 0, 7])
    assert said[1] == "merged: 6 is part of 5 now"
    assert "there are no fragments below it" in said[3]
    good("apply-edits", "--segmentation", ids, "--output", f"{tmp_path}/o.h5:l")
    assert np.unique(load(f"{tmp_path}/o.h5:l")).tolist() == [5]


def test_a_log_that_was_cut_off_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever byte a crash ended at, all whole lines before it count, and the next edit makes the log whole again."""
    fragments, _ = fragments_of_four(tmp_path)
    graph, path = load_graph(fragments), tmp_path / "log.jsonl"
    edits = [Edit("merge", 1, 3), Edit("split", 1, 2, (2,)), Edit("undo")]
    with edit_log.open_log(path, graph) as writer:
        for edit in edits:
            writer.append(edit)
    whole = path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == 10]
    for length in (*range(0, len(whole), 7), *ends, *(end - 1 for end in ends)):
        path.write_bytes(whole[:length])
        kept = max(0, sum(end <= length for end in ends) - 1)
        assert edit_log.read_log(path, graph) == edits[:kept]
        with edit_log.open_log(path, graph) as writer:
            assert writer.edits == edits[:kept]
            writer.append(Edit("merge", 1, 4))
        assert edit_log.read_log(path, graph) == [*edits[:kept], Edit("merge", 1, 4)]
    assert "was cut off while it was written" in caplog.text


def test_logs_that_are_not_ours(tmp_path: Path) -> None:
    fragments, ids = fragments_of_four(tmp_path)
    clicked(tmp_path, fragments, ids, [0, 7, 0, 4])
    log = tmp_path / "ids.zarr.edits.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    words = ["apply-edits", "--segmentation", ids, "--fragments", fragments, "--output", f"{tmp_path}/o.zarr"]
    for content, rule in (
        (lines[0] + "{}\n" + lines[1], "line 2 is not an entry of a log of edits"),
        ("".join(lines).replace('"merge"', '"cut"'), "line 2 is not an entry.*op must be one of"),
        (lines[0] + lines[1] + lines[1], "line 3: fragments 1 and 3 are one segment already"),
        ("[]\n", "is not a log of edits"),
        (
            lines[0].replace('"table": "', '"table": "0'),
            r"log of another segmentation \(4 fragments, here 4 fragments\)",
        ),
    ):
        log.write_text(content)
        with untouched(tmp_path):
            assert re.search(rule, sentence(*words)), content
    log.write_text("".join(lines))
    assert "segments without fragments" in sentence(
        "apply-edits", "--segmentation", ids, "--output", f"{tmp_path}/o.zarr"
    )
    with edit_log.open_log(log, load_graph(fragments)):
        assert "is open in another view" in sentence(
            "view", "--segmentation", ids, "--fragments", fragments, "--edit", "--no-open"
        )
    graph_path(fragments).write_bytes(b"PK")
    assert "not a readable graph of fragments" in sentence(*words)
    graph_path(fragments).unlink()
    assert "neuropil segment --fragments or neuropil run --fragments writes both" in sentence(*words)


def test_a_segmentation_that_fragments_do_not_give_is_refused(tmp_path: Path) -> None:
    fragments, ids = fragments_of_four(tmp_path)
    clicked(tmp_path, fragments, ids, [0, 7])
    other = store(f"{tmp_path}/other.zarr", load(ids) + np.uint64(1), kind="labels")
    words = ["apply-edits", "--segmentation", other, "--fragments", fragments, "--output", f"{tmp_path}/o.zarr"]
    with untouched(tmp_path):
        assert "is not what" in sentence(*words, "--log", tmp_path / "ids.zarr.edits.jsonl", "--quiet")
        assert "there is no log of edits" in sentence(*words)


def test_an_edit_that_cannot_be_written_does_not_count(tmp_path: Path) -> None:
    fragments, _ = fragments_of_four(tmp_path)
    graph = load_graph(fragments)

    def full(edit: Edit, places: Any) -> None:
        raise OSError(28, "No space left on device")

    edits = edit_log.edits_of(tmp_path / "x", graph, [])
    shown = Shown("f", "fragments", Array(load(fragments)), VOXEL_SIZE, OFFSET)
    proofreading = Proofreading(edits, shown, graph, full)
    proofreading.pick(at(0))
    with pytest.raises(OSError, match="No space left"):
        proofreading.pick(at(7))
    assert edits.standing == ()
    assert proofreading.source.read(Box((0, 0, 0), (1, 1, 12))).ravel().tolist() == [5] * 6 + [6] * 6


def test_bad_input(tmp_path: Path, data: Path) -> None:
    fragments, ids = fragments_of_four(tmp_path)
    links = store(f"{tmp_path}/a.zarr", np.zeros((3, 6, 40, 44), np.uint8), kind="affinities", voxel_size=VOXEL_SIZE)
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    (tmp_path / "q.json").write_text('{"z": 1}')
    (tmp_path / "r.csv").write_text("z,y,x\n1,2,inf\n")
    (tmp_path / "s.json").write_text('{"neuropil_view": 9}')
    with untouched(tmp_path):
        for words, rule in (
            (["--image", links], "image must have axes z, y, x to be shown as image; its shape is (3, 6, 40, 44)"),
            (["--affinities", f"{data}:raw"], "affinities must have axes c, z, y, x to be shown"),
            (["--edit", "--image", f"{data}:raw"], "edit needs a segmentation"),
            (["--log", "x", "--segmentation", ids], "give --edit with it"),
            (["--edit", "--segmentation", f"{data}:labels", "--fragments", fragments], "extent of the segmentation"),
            ([f"{data}:raw", "--points", f"{tmp_path}/p.csv"], "must have columns z, y, x (voxels) or z_nm"),
            ([f"{data}:raw", "--points", f"{tmp_path}/q.json"], "must hold a list of points"),
            ([f"{data}:raw", "--points", f"{tmp_path}/r.csv"], "three numbers z, y, x for each point"),
            ([f"{data}:raw", "--points", f"{tmp_path}/none.json"], "there is no file"),
            (["--state", f"{tmp_path}/none.json"], "there is no state file"),
            (["--state", f"{tmp_path}/s.json"], "its version is 9, not 1"),
            ([f"{data}:raw", "--save-state", f"{tmp_path}/no/v.json"], "a folder that exists"),
            ([f"{data}:raw", "--bind", "203.0.113.7"], "cannot listen at 203.0.113.7"),
            ([f"{data}:none"], "has no dataset 'none'"),
        ):
            assert rule in sentence("view", *words, "--no-open")
    with pytest.raises(InputError, match="different names"):
        View([Shown("a", "image", Array(np.zeros((1, 1, 1))))] * 2)
    with pytest.raises(InputError, match="nothing to show"):
        View([], [Points("p", np.zeros((0, 3)), ())])
    with pytest.raises(ConfigError, match="nothing to show"), ExitStack() as kept:
        opened(kept)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_it_whenever_they_come(name: str) -> None:
    """Also one that comes while the handler of another runs; the handlers of before are put back."""
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stage._ended() as told:
        for _ in range(3):
            signal.raise_signal(number)
    assert told == [number] * 3
    assert signal.getsignal(number) is before


def test_a_signal_ends_it_as_soon_as_it_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_tell", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(["view", f"{data}:raw", "--no-open"]) == 0


def test_lines_come_once(data: Path) -> None:
    """In a process of its own: neuroglancer sets up logging when it is imported."""
    with process("view", f"{data}:raw", "--no-open") as one:
        told = [one.stderr.readline()]
        while "Ctrl-S" not in told[-1]:
            told.append(one.stderr.readline())
        one.send_signal(signal.SIGINT)
        told += one.communicate(timeout=20)[1].splitlines(keepends=True)
    assert one.returncode == 0
    assert len([line for line in told if "Ctrl-S" in line]) == 1, told
