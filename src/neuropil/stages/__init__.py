"""One file per command: a strict `Config` and `run(config)`, which opens, calls functions and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STAGES = {
    "info": "tell what neuropil believes about a volume, and why",
    "doctor": "look at this machine and installation, and say what to do",
    "convert": "copy a volume into another format",
    "data": "list or fetch public data sets",
    "synthetic": "make a realistic stack with perfect truth",
    "defects": "find sections that cannot be trusted, and write them as a mask",
    "train": "train networks, recursively where asked",
    "models": "list the packaged models, or tell about one",
    "predict": "run trained networks densely over a volume",
    "import-znn": "take over a network that ZNN trained",
    "plan": "tell what a pipeline will take, or how a network runs on this machine",
    "segment": "turn a boundary map or affinities into a segmentation",
    "run": "from an image, or affinities, of any size to a segmentation, in blocks",
    "verify": "check a finished output against its record: every block, inputs, versions",
    "verify-seams": "show on a crop that blocks give what the whole gives",
    "view": "look at volumes in a browser, merge and split segments there",
    "apply-edits": "write the segmentation as corrected in the viewer",
    "downsample": "add coarser copies to a volume, for viewers",
    "export": "write labels for neuroglancer (with meshes), OME-Zarr or webKnossos",
    "skeletonize": "find the centre lines of labels",
    "tune": "find the parameters of segment on a crop with truth",
    "evaluate": "score boundary maps and segmentations against truth",
    "suspects": "list where a segmentation is probably wrong, worst first",
    "benchmark": "score methods on several volumes in one table, with intervals",
    "crowd": "fuse many players' votes on segments into a consensus",
    "fuse": "fuse several people's annotations of one cube",
    "report": "make one HTML page of a run: scores, curves, pictures",
    "demo": "the whole job on a small real (or synthetic) stack",
}


def module_of(verb: str) -> str:
    """Return the name of the module that holds a command.

    >>> module_of("import-znn")
    'neuropil.stages.import_znn'
    """
    return f"{__name__}.{verb.replace('-', '_')}"


@dataclass(frozen=True)
class StageResult:
    """What a stage hands back: text for people, JSON-able data for programs; `sound` is False if a check failed."""

    summary: str
    data: dict[str, Any] = field(default_factory=dict)
    sound: bool = True
