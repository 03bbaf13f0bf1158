"""Merging and splitting by clicking: two places in two segments make them one, two in one segment separate them.

One gesture for both, since the picture says which it is: where two colours are clicked, they become one; where one
colour is clicked twice, on two fragments, it becomes two. What cannot be meant is said, and every edit can be undone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError, NeuropilError
from neuropil.geometry import Box
from neuropil.segmentation.edits import Edit, Edits
from neuropil.segmentation.splitting import FragmentGraph, split_off
from neuropil.view.shown import Points, Shown, Source
from neuropil.view.viewer import View

log = logging.getLogger("neuropil")
Point = tuple[float, float, float]
PICK = ("shift+mousedown0",)
UNDO, REDO = ("control+keyz",), ("control+shift+keyz", "control+keyy")
DROP = ("escape",)
HELP = "Shift+click two segments to merge them, one segment twice to split it; Ctrl+Z undoes, Ctrl+Shift+Z redoes"


class EditedSource:
    """The segmentation as it stands: fragments, read when they are asked for, by the table of the edits."""

    def __init__(self, fragments: Source, edits: Edits) -> None:
        self._fragments, self._edits = fragments, edits
        self.lock = threading.Lock()
        self.shape = tuple(fragments.shape)
        self.dtype = np.dtype(np.uint64)

    def read(self, box: Box | None = None) -> NDArray[np.uint64]:
        """Return the segments of a box."""
        fragments = self._fragments.read(box)
        with self.lock:
            return self._edits.apply(fragments)


@dataclass(frozen=True)
class _Picked:
    fragment: int
    segment: int
    point: Point


class Proofreading:
    """Edits of one segmentation in a view.

    Parameters
    ----------
    edits : the table, with what the log holds done
    fragments : the volume that is clicked; the segmentation itself where there are none below it
    graph : of the fragments; None where there is none, and nothing can be split
    record : writes an edit and its two places into the log, before it counts
    """

    def __init__(
        self, edits: Edits, fragments: Shown, graph: FragmentGraph | None, record: Callable[[Edit, list[Point]], None]
    ) -> None:
        self.edits, self._fragments, self._graph, self._record = edits, fragments, graph, record
        self.source = EditedSource(fragments.source, edits)
        self._picked: _Picked | None = None
        self._view: View | None = None
        self._name = ""

    def attach(self, view: View, name: str) -> None:
        """Take the clicks and keys of a view, whose layer `name` shows `source`."""
        self._view, self._name = view, name
        for keys, action, handler in (
            (PICK, "neuropil-pick", self._on_pick),
            (UNDO, "neuropil-undo", lambda _: self._on_history("undo")),
            (REDO, "neuropil-redo", lambda _: self._on_history("redo")),
            (DROP, "neuropil-drop", lambda _: self._drop(HELP)),
        ):
            view.on(keys, action, self._told(handler))
        view.say(HELP)

    def pick(self, point: Point) -> str:
        """Take a click; return what is to be said of it.

        Raises
        ------
        InputError : nothing can be done with it; the first click of two stays
        """
        voxel = self._fragments.voxel_at(point)
        fragment = 0 if voxel is None else self._fragment_at(voxel)
        segment = self.edits.segment_of(fragment)
        if segment == 0:
            raise InputError("there is no segment here")
        here, first = _Picked(fragment, segment, point), self._picked
        if first is None:
            self._picked = here
            other = "the same one elsewhere to split it" if self._graph is not None else "Esc to forget it"
            return f"segment {segment}: Shift+click another one to merge it, {other}"
        if first.fragment == fragment:
            self._picked = None
            return f"the same fragment twice: forgotten. {HELP}"
        edit = Edit("merge", first.fragment, fragment)
        if first.segment == segment:
            edit = Edit("split", first.fragment, fragment, self._away(first, here))
        self._do(edit, [first.point, point])
        self._picked = None
        if edit.op == "merge":
            return f"merged: {segment} is part of {first.segment} now"
        return f"split: {len(edit.away)} fragments of {segment} are {self.edits.segment_of(fragment)} now"

    def _away(self, first: _Picked, here: _Picked) -> tuple[int, ...]:
        if self._graph is None:
            raise InputError(
                "this segment cannot be split: there are no fragments below it; give those that"
                " neuropil segment --fragments or neuropil run --fragments writes"
            )
        joined = [(edit.a, edit.b) for edit in self.edits.standing if edit.op == "merge"]
        fragments = self.edits.fragments_of(first.segment)
        return split_off(self._graph, fragments, first.fragment, here.fragment, joined=joined)

    def _do(self, edit: Edit, places: list[Point]) -> None:
        self.edits.check(edit)
        self._record(edit, places)  # on disk before it is seen
        with self.source.lock:
            self.edits.do(edit)

    def _fragment_at(self, voxel: tuple[int, int, int]) -> int:
        stop = (voxel[0] + 1, voxel[1] + 1, voxel[2] + 1)
        return int(self._fragments.source.read(Box(voxel, stop)).reshape(-1)[0])

    def _on_pick(self, point: Point | None) -> str:
        if point is None:
            raise InputError("there is no segment here")
        text = self.pick(point)
        self._show()
        return text

    def _on_history(self, op: Any) -> str:
        self._do(Edit(op), [])
        self._picked = None
        self._show()
        return f"{op}ne; {len(self.edits.standing)} edits stand, {len(self.edits.undone)} can be done again"

    def _drop(self, text: str) -> str:
        self._picked = None
        self._show()
        return text

    def _show(self) -> None:
        """Mark the first click of two; else have the browser read the segmentation again."""
        if self._view is None:
            return
        picked = [] if self._picked is None else [self._picked]
        if not picked:
            self._view.changed(self._name)
        points = np.array([one.point for one in picked], np.float64).reshape(-1, 3)
        self._view.mark(Points("picked", points, tuple(f"fragment {one.fragment}" for one in picked)))

    def _told(self, handler: Callable[[Point | None], str]) -> Callable[[Point | None], None]:
        """Return a handler that says in the view what became of it."""

        def call(point: Point | None) -> None:
            try:
                text = handler(point)
            except (NeuropilError, OSError) as error:
                text = f"not done: {error}"
            log.info("%s", text)
            if self._view is not None:
                self._view.say(text)

        return call
