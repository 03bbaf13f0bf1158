"""Look at volumes in a browser, and correct a segmentation there by clicking.

Opens Neuroglancer on any set of volumes: image, boundary map, affinities, fragments, segmentation, truth, masks, and
points such as errors. It is served by this process and needs no network; voxels are read in pieces, so volumes may be
of any size. Prints the link, and runs until Ctrl-C.

With --edit, Shift+click merges two segments or splits one, Ctrl+Z undoes; edits go into a small log beside the
segmentation, and `neuropil apply-edits` writes the corrected labels.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from neuropil.config import Names, StageConfig, Triple, TripleNm
from neuropil.errors import ConfigError, InputError, OutputExists
from neuropil.segmentation.splitting import FragmentGraph
from neuropil.stages import StageResult
from neuropil.stages.edit_log import edits_of, log_path, open_log
from neuropil.stages.fragment_graph import load_graph
from neuropil.stages.view_inputs import Named, load_view, read_points, save_view, shown_of, wanted
from neuropil.view.proofreading import HELP, Proofreading
from neuropil.view.shown import ROLES, Role, Shown
from neuropil.view.viewer import Layout, View

log = logging.getLogger("neuropil")
EXAMPLES = [
    "neuropil view tissue.h5",
    "neuropil view tissue.h5:raw boundary.h5:map segmentation.h5:ids",
    "neuropil view --image tissue.h5:raw --segmentation ids.zarr --truth tissue.h5:labels --points errors.csv",
    "neuropil view --image raw.zarr --fragments fragments.zarr --segmentation ids.zarr --edit",
    "neuropil view --state shared/view.json",
    "neuropil view tissue.h5 --port 8080 --no-open      # then, at home: ssh -N -L 8080:localhost:8080 me@there",
]
POSITIONAL = ("volumes",)
SAVE = ("control+keys",)


class Config(StageConfig):
    """Fields of [view]."""

    volumes: Names = Field(default=[], description="URIs; what each is, its metadata say")
    image: str | None = Field(None, description="URI of the image")
    boundary: str | None = Field(None, description="URI of a boundary map")
    affinities: str | None = Field(None, description="URI of affinities")
    mask: str | None = Field(None, description="URI of a mask")
    fragments: str | None = Field(None, description="URI of the fragments below the segmentation")
    segmentation: str | None = Field(None, description="URI of a segmentation")
    truth: str | None = Field(None, description="URI of true labels")
    points: Names = Field(default=[], description="CSV, Parquet or JSON files of places: z,y,x or z_nm,y_nm,x_nm")
    position: Triple | None = Field(None, description="voxel z,y,x of the first volume to look at")
    state: Path | None = Field(None, description="open a view that was saved")
    save_state: Path | None = Field(None, description="save the view here with Ctrl+S, and at the end")
    edit: bool = Field(False, description="merge and split segments of --segmentation by clicking")
    log: Path | None = Field(None, description="file of the edits; beside the segmentation if not given")
    user: str | None = Field(None, description="who edits; the user's name if not given")
    layout: Layout = Field("auto", description="one panel, or one for each map and each labelling")
    voxel_size: TripleNm | None = Field(None, description="nm z,y,x, for volumes that do not tell theirs")
    bind: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0 lets everybody in who has the link")
    port: int = Field(0, ge=0, le=65535, description="0 is any that is free")
    open: bool = Field(True, description="open the link in a browser, where this machine has a screen")
    overwrite: bool = Field(False, description="replace the file of --save-state")


def run(config: Config) -> StageResult:
    """Serve the view until Ctrl-C."""
    with ExitStack() as kept, opened(config, kept) as (view, save):
        view.on(SAVE, "neuropil-save", lambda _: view.say(f"saved in {save(_new_name())}"))
        with _ended() as told:  # before the line that says how
            _tell(view, config)
            while not told:
                time.sleep(0.2)
        path = None if config.save_state is None else save(config.save_state)
    text = "closed" if path is None else f"closed; the view is in {path}"
    return StageResult(text, {"link": view.link, "state": None if path is None else str(path)})


@contextmanager
def opened(config: Config, kept: ExitStack) -> Iterator[tuple[View, Any]]:
    """Give the open view of a configuration, and a function that saves it to a path and returns the path."""
    named, points, state = _asked(config)
    shown = shown_of(named, kept, config.voxel_size)
    if not shown:
        raise ConfigError("there is nothing to show; name a volume, as in neuropil view tissue.h5:raw")
    files = [read_points(one, shown[0]) for one in points]
    with _edited(config, named, shown) as (proofreading, all_shown):
        view = View(all_shown, files, layout=config.layout, bind=config.bind, port=config.port)
        try:
            if state is not None:
                view.restore(state)
            if config.position is not None:
                view.look_at(config.position)
            if proofreading is not None:
                proofreading.attach(view, "segmentation")

            def save(path: Path) -> Path:
                target = config.save_state or path
                save_view(target, named, points, view.state())
                return target

            yield view, save
        finally:
            view.close()


def _asked(config: Config) -> tuple[list[Named], list[str], dict[str, Any] | None]:
    """Return the volumes, the files of points and the state of a configuration, and of the view that it opens."""
    by_role: dict[Role, str | None] = {role: getattr(config, role) for role in ROLES}
    named, points, state = wanted(config.volumes, by_role), list(config.points), None
    if config.save_state is not None:
        same = config.state is not None and config.state.absolute() == config.save_state.absolute()
        if config.save_state.exists() and not same and not config.overwrite:
            raise OutputExists(f"--save-state {config.save_state} exists; give --overwrite to replace it")
        if not config.save_state.absolute().parent.is_dir():
            raise ConfigError(f"--save-state must name a file in a folder that exists; got {config.save_state}")
    if config.state is not None:
        before, kept_points, state = load_view(config.state)
        given = {one.name for one in named}  # what is given anew takes the place of what the file names
        named = [one for one in before if one.name not in given] + named
        points = [*kept_points, *points]
    return named, points, state


@contextmanager
def _edited(
    config: Config, named: list[Named], shown: list[Shown]
) -> Iterator[tuple[Proofreading | None, list[Shown]]]:
    """Give what edits the segmentation, and the volumes with the segmentation as it stands; None without --edit."""
    if not config.edit:
        if config.log is not None:
            raise ConfigError("log is where edits go; give --edit with it")
        yield None, shown
        return
    by_name, uris = {one.name: one for one in shown}, {one.name: one.uri for one in named}
    if "segmentation" not in by_name:
        raise ConfigError("edit needs a segmentation; name it with --segmentation")
    segmentation, fragments = by_name["segmentation"], by_name.get("fragments")
    graph: FragmentGraph | None = None
    if fragments is not None:
        graph = load_graph(uris["fragments"])
        if fragments.source.shape != segmentation.source.shape:
            raise InputError(
                f"fragments must have the extent of the segmentation, {segmentation.source.shape};"
                f" {uris['fragments']} has {fragments.source.shape}"
            )
    path = log_path(uris["segmentation"], None if config.log is None else str(config.log))
    with open_log(path, graph) as writer:
        edits = edits_of(path, graph, writer.edits)
        proofreading = Proofreading(
            edits,
            segmentation if fragments is None else replace(fragments, offset=segmentation.offset),
            graph,
            lambda edit, places: writer.append(edit, user=config.user, places_nm=places),
        )
        log.info("edits are kept in %s; %d stand. %s", path, len(edits.standing), HELP)
        edited = replace(segmentation, source=proofreading.source)
        yield proofreading, [edited if one.name == "segmentation" else one for one in shown]


def _tell(view: View, config: Config) -> None:
    """Say where to look; with --quiet, too, since nothing can be seen without it."""
    log.warning("%s", view.link)
    remote = bool(os.environ.get("SSH_CONNECTION"))
    screen = (
        os.name == "nt"
        or os.uname().sysname == "Darwin"
        or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )
    if config.bind not in ("127.0.0.1", "localhost", "::1"):
        log.warning("everybody who can reach %s and has this link can look%s", config.bind, " and edit" * config.edit)
    elif remote or not screen:
        there = f"{os.environ.get('USER', 'USER')}@{socket.gethostname()}"
        log.info("from another machine: ssh -N -L %d:localhost:%d %s, then open this link", view.port, view.port, there)
    if config.open and screen and not remote:
        webbrowser.open(view.link)
    log.info("Ctrl-S saves the view, Ctrl-C here ends it")


@contextmanager
def _ended() -> Iterator[list[int]]:
    """Give a list that gets the signals that ask the process to end, Ctrl-C or others, instead of what they do."""
    told: list[int] = []  # no lock, such as an event has: a handler that comes while it is held would wait for itself
    here = threading.current_thread() is threading.main_thread()
    names = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {name: signal.signal(name, lambda number, _: told.append(number)) for name in names} if here else {}
    try:
        yield told
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _new_name() -> Path:
    """Return where a view is saved when no place is given: a new file in this folder."""
    return Path(f"view-{datetime.now():%Y%m%d-%H%M%S}.json")
