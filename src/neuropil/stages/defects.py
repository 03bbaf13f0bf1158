"""neuropil defects: find sections that are missing, blurred, wrong in contrast or misaligned, and write them as a mask.

Sections are compared with their neighbours; nothing is trained. The mask holds 0 where an image can be trusted, else
the kind of defect: 1 missing, 2 blurred, 3 contrast, 4 misaligned; of sections that are partly empty, the empty squares
alone are 1. `neuropil run --mask` cuts what is masked in several sections on end.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import Names, Sections, StageConfig, dump
from neuropil.defects import KINDS, Kind, Rules, SectionFacts, empty_squares, find_defects, pixels_of, section_facts
from neuropil.errors import ConfigError
from neuropil.files import write_json, write_text
from neuropil.geometry import Box
from neuropil.progress import Progress
from neuropil.report.defects import render_defects
from neuropil.stages import StageResult
from neuropil.stages.common import ComputedVolume, image_box, placed, refuse_outputs, sidecar, versions, write_volume
from neuropil.volume import Volume, open_volume

EXAMPLES = [
    "neuropil defects --input stack.zarr --output mask.zarr",
    "neuropil defects --input stack.zarr --output mask.zarr --kinds missing,misaligned --shift 20",
]
POSITIONAL = ()


class Config(StageConfig):
    """Fields of [defects]."""

    input: str = Field(description="URI of the image volume")
    output: str = Field(description="URI of the mask to write (uint8); a page and the numbers go beside it")
    sections: Sections | None = Field(None, description="only these sections")
    kinds: Names = Field(list(KINDS), description="defects that are written into the mask")
    reach: int = Field(Rules.reach, gt=0, description="sections on either side that one is compared with")
    spread: float = Field(
        Rules.spread, gt=0, description="standard deviations of the neighbours that are too many, ..."
    )
    detail: float = Field(Rules.detail, gt=0, description="... if the log of sharpness also is less by this")
    grey: float = Field(
        Rules.grey, gt=0, description="... or the mean by this share of their deviation, or its log by this"
    )
    shift: float = Field(Rules.shift, gt=0, description="pixels off the section before that are too many, ...")
    jitter: float = Field(Rules.jitter, gt=0, description="... if they also are this many times the median")
    empty: float = Field(Rules.empty, gt=0, lt=1, description="share of a section that may be empty")
    overwrite: bool = Field(False, description="replace outputs that exist")


def run(config: Config) -> StageResult:
    """Measure, decide, write mask and page."""
    if not config.kinds or not set(config.kinds) <= set(KINDS):
        raise ConfigError(f"kinds must name one or more of {', '.join(KINDS)}; got {', '.join(config.kinds) or 'none'}")
    refuse_outputs([config.output], config.input, overwrite=config.overwrite)
    with open_volume(config.input) as volume:
        box = image_box(volume, config.sections)
        known = _measured(volume, box)
        found = find_defects(known, Rules(**{one.name: getattr(config, one.name) for one in fields(Rules)}))
        mask = ComputedVolume(box.shape, np.uint8, lambda part: _mask(volume, box, part, found, config))
        write_volume(config.output, mask, kind="mask", place=placed(volume, box), overwrite=config.overwrite)
        shown = [z for z in range(box.shape[0]) if any(found[kind][z] for kind in KINDS)]
        pictures = {z: _section(volume, box, z) for z in shown[:24]}
    places = {kind: (np.flatnonzero(found[kind]) + box.start[0]).tolist() for kind in KINDS}
    data: dict[str, Any] = {
        "defects": places,
        "facts": {name: np.asarray(x).tolist() for name, x in vars(known).items()},
    }
    page = sidecar(config.output, "html")
    write_text(page, render_defects(config.input, known, found, pictures, box.start[0]))
    write_json(sidecar(config.output, "json"), data | {"config": dump(config), "versions": versions()})
    lines = [f"{kind:11} {_ranges(places[kind])}" for kind in KINDS]
    return StageResult(
        "\n".join([f"{config.output}: {len(shown)} of {box.shape[0]} sections", *lines, str(page)]), data
    )


def _measured(volume: Volume, box: Box) -> SectionFacts:
    progress = Progress("sections", box.shape[0])

    def read(z: int) -> NDArray[Any]:
        progress.advance()
        return _section(volume, box, z)

    return section_facts(read, box.shape[0])


def _section(volume: Volume, box: Box, z: int) -> NDArray[Any]:
    here = box.start[0] + z
    section: NDArray[Any] = volume.read(Box((here, *box.start[1:]), (here + 1, *box.stop[1:])))[0]
    return section


def _mask(
    volume: Volume, box: Box, part: Box, found: dict[Kind, NDArray[np.bool_]], config: Config
) -> NDArray[np.uint8]:
    """Return the mask of a part: whole sections, and the empty squares of others."""
    made = np.zeros(part.shape, np.uint8)
    for z in range(part.start[0], part.stop[0]):
        section = made[z - part.start[0]]
        if "missing" in config.kinds and not found["missing"][z]:
            empty = pixels_of(empty_squares(_section(volume, box, z)), box.shape[1:])
            section[empty[part.slices[1:]]] = 1 + KINDS.index("missing")
        for code, kind in reversed([*enumerate(KINDS, 1)]):
            if kind in config.kinds and found[kind][z]:
                section[...] = code
    return made


def _ranges(sections: list[int]) -> str:
    """Write numbers with runs drawn together.

    >>> _ranges([3, 4, 5, 9]), _ranges([])
    ('3-5 9', '-')
    """
    runs: list[list[int]] = []
    for z in sections:
        if runs and runs[-1][1] == z - 1:
            runs[-1][1] = z
        else:
            runs.append([z, z])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "-"
