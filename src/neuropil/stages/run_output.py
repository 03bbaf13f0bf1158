"""The last steps of `neuropil run`: what was made is copied to its place and format, and coarser copies are added.

A copy is built under a hidden name, in blocks of whole chunks, and takes its own name when it is whole, as with
`neuropil convert`. Formats that one process has to write (HDF5, TIFF, folders of sections) are copied by this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuropil.geometry import Box, grid
from neuropil.stages.run_step import Step
from neuropil.volume import Metadata, open_volume
from neuropil.volume.copying import block_that_fits, copy_volume, publish, staged_place
from neuropil.volume.uri import Location, parse_uri
from neuropil.volume.volume import backend_of, open_location

ALONE = ("hdf5", "tiff", "sections")
"""Formats that several processes cannot write at once."""


@dataclass(frozen=True)
class Output:
    """Something that a run hands over; data only.

    Attributes
    ----------
    name : of its steps
    source : URI of what was made in the work folder
    target : where it goes
    metadata : what it shall say of itself
    work : folder of all that is made on the way
    levels : coarser copies to add
    """

    name: str
    source: str
    target: str
    metadata: Metadata
    work: Path
    levels: int = 0

    @property
    def staged(self) -> Location:
        """Where it is built."""
        return staged_place(parse_uri(self.target))

    @property
    def alone(self) -> bool:
        """Whether one process has to write it."""
        return parse_uri(self.target).format in ALONE

    def begun(self, step: str) -> Path:
        """Return the mark that what a step's blocks are written into is there."""
        return self.work / f"{step}.begun"


def output_steps(output: Output) -> Iterator[Step]:
    """Yield the steps that build it; none where one process has to write it."""
    if output.alone:
        return
    name, make = output.name, partial(_create, output)
    made = partial(_is_made, output, name)
    yield Step(name, partial(_copied, output), partial(copy_block, output), make, made)
    if not output.levels:
        return
    from neuropil.volume.pyramid import level_blocks, plan_pyramid, write_level

    pyramid = plan_pyramid(output.staged, output.levels)
    for number in range(1, len(pyramid.factors) + 1):
        name = f"level {number}"
        yield Step(
            name,
            partial(level_blocks, pyramid, number),
            partial(write_level, pyramid, number),
            partial(_create_level, output, number),
            partial(_is_made, output, name),
        )


def hand_over(output: Output, *, overwrite: bool) -> None:
    """Give what was built its name, or write it now where one process has to."""
    if output.alone:
        with open_volume(output.source) as made:
            copy_volume(made, output.target, metadata=output.metadata, overwrite=overwrite)
        return
    if output.levels:
        from neuropil.volume.pyramid import name_levels, plan_pyramid

        name_levels(plan_pyramid(output.staged, output.levels))
    publish(output.staged, parse_uri(output.target))


def copy_block(output: Output, box: Box) -> None:
    """Copy a block of whole chunks."""
    with open_volume(output.source) as made, open_location(output.staged, writable=True) as volume:
        volume.write(box, made.read(box))


def _create(output: Output) -> None:
    target = parse_uri(output.target)
    if not target.remote:
        Path(target.path).absolute().parent.mkdir(parents=True, exist_ok=True)
    with open_volume(output.source) as made:
        facts = {"shape": made.shape, "dtype": made.dtype, "metadata": output.metadata, "chunk_shape": None}
        backend_of(target).create_volume(output.staged, **facts).close()
    output.begun(output.name).touch()


def _create_level(output: Output, number: int) -> None:
    from neuropil.volume.pyramid import make_level, plan_pyramid

    make_level(plan_pyramid(output.staged, output.levels), number)
    output.begun(f"level {number}").touch()


def _is_made(output: Output, step: str) -> bool:
    return output.begun(step).exists() and bool(backend_of(output.staged).exists(output.staged))


def _copied(output: Output) -> list[Box]:
    with open_location(output.staged) as volume:
        return list(grid(Box.of_shape(volume.spatial_shape), block_that_fits(volume)))
