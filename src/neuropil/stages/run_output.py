"""The last steps of `neuropil run`: labels are written, copied to their place and format, and coarser copies are added.

What is handed over is built under a hidden name and takes its own name when it is whole, as with `neuropil convert`.
Blocks are written straight into it where they are made of whole chunks; else into a volume of the work folder, which is
copied in blocks of whole chunks. Formats that one process has to write (HDF5, TIFF, folders of sections) are copied by
this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from neuropil.files import Place, write_text
from neuropil.geometry import Box, grid
from neuropil.stages.common import claim, claim_of, claimed
from neuropil.stages.run_files import Job, chunk_of
from neuropil.stages.run_step import Step
from neuropil.stages.run_steps import write
from neuropil.volume import Metadata, Volume, open_volume
from neuropil.volume.copying import CopyReport, block_that_fits, copy_volume, digest, publish, staged_place
from neuropil.volume.uri import Location, parse_uri
from neuropil.volume.volume import backend_of, open_location

ALONE = ("hdf5", "tiff", "sections")
"""Formats that several processes cannot write at once."""


@dataclass(frozen=True)
class Output:
    """Something that a run hands over; data only.

    Attributes
    ----------
    name : of its steps, one of `neuropil.stages.common.OUTPUTS`
    source : URI of what was made in the work folder
    target : where it goes
    metadata : what it shall say of itself
    work : folder of all that is made on the way
    levels : coarser copies to add
    chunk : voxels z, y, x of its chunks where blocks are written straight into it; then `source` is the same place
    block : voxels z, y, x of those blocks
    """

    name: str
    source: str
    target: str
    metadata: Metadata
    work: Place
    levels: int = 0
    chunk: tuple[int, ...] | None = None
    block: tuple[int, ...] = ()

    @property
    def staged(self) -> Location:
        """Where it is built."""
        return staged_place(parse_uri(self.target))

    @property
    def alone(self) -> bool:
        """Whether one process has to write it."""
        return parse_uri(self.target).format in ALONE

    def begun(self, step: str) -> Place:
        """Return the mark that what a step's blocks are written into is there."""
        return self.work / f"{step}.begun"

    def claim(self, report: CopyReport | None = None) -> None:
        """Note that what is, or will be, at the target is of this run; with a report, that it is whole."""
        claim(self.work, self.name, self.target, report)

    def handed_over(self) -> CopyReport | None:
        """Return what its blocks are, if it has its name already."""
        said = claim_of(self.work, self.name)
        made, staged = said.get("report"), self.staged
        renamed = self.alone or staged == parse_uri(self.target) or not backend_of(staged).exists(staged)
        if made is None or said["target"] != self.target or not renamed:
            return None
        lists = {name: tuple(made[name]) for name in ("shape", "block", "digests")}
        return CopyReport(dtype=made["dtype"], verified=made["verified"], **lists)


def output_steps(output: Output) -> Iterator[Step]:
    """Yield the steps that build it; none where one process has to write it."""
    if output.alone:
        return
    name, make = output.name, partial(_create, output)
    made = partial(_is_made, output, name)
    if output.chunk is None:
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


def expected_steps(output: Output) -> list[tuple[str, None]]:
    """Return the names of the steps of `output_steps`, before anything is there to count blocks in."""
    copied = [] if output.alone or output.chunk is not None else [output.name]
    return [(name, None) for name in [*copied, *(f"level {number + 1}" for number in range(output.levels))]]


def labels_place(target: str, work: Place, block: tuple[int, ...]) -> tuple[Location, tuple[int, ...] | None]:
    """Return where blocks of labels are written, and, if that is what is handed over, the chunks it shall have."""
    place, chunk = parse_uri(target), chunk_of(block)
    fits = all(4 * n >= min(extent, 64) for n, extent in zip(chunk, block))
    if place.format in ("zarr", "zarr3"):
        return staged_place(place), block  # a shard
    if place.format in ALONE or not fits:
        return parse_uri(f"{work}/segmentation.zarr"), None
    return staged_place(place), chunk


def labels_step(job: Job, output: Output) -> Step:
    """Return the step that writes the blocks of labels."""
    mark = output.begun("segmentation")

    def there() -> bool:
        return mark.exists() and bool(backend_of(job.output).exists(job.output))

    def make() -> None:
        facts = {"shape": job.shape, "dtype": np.dtype(np.uint64), "metadata": output.metadata}
        if output.chunk is not None:
            _make_room(output)
        backend_of(job.output).create_volume(job.output, chunk_shape=output.chunk or job.block, **facts).close()
        write_text(mark, "")

    return Step("segmentation", partial(job.boxes, 0), partial(_write_labels, job, output), make, there)


def _write_labels(job: Job, output: Output, box: Box) -> None:
    """Write a block of labels, and its digest where that is what is handed over."""
    labels = write(job, box)
    if output.chunk is not None:
        _keep_digest(output, box, labels)


def hand_over(output: Output, *, overwrite: bool) -> CopyReport:
    """Give what was built its name, or write it now where one process has to; return what its blocks are."""
    known = output.handed_over()
    if known is not None:
        return known
    if output.alone:
        overwrite = overwrite or output.target in claimed(output.work)
        output.claim()
        with open_volume(output.source) as made:
            report = copy_volume(made, output.target, metadata=output.metadata, overwrite=overwrite)
        output.claim(report)
        return report
    with open_location(output.staged) as volume:
        block = block_that_fits(volume) if output.chunk is None else output.block
        digests = tuple(_digest_of(output, box, volume) for box in grid(Box.of_shape(volume.spatial_shape), block))
        report = CopyReport(volume.shape, volume.dtype.name, False, block, digests)
    if output.levels:
        from neuropil.volume.pyramid import name_levels, plan_pyramid

        name_levels(plan_pyramid(output.staged, output.levels))
    output.claim(report)
    publish(output.staged, parse_uri(output.target))
    return report


def copy_block(output: Output, box: Box) -> None:
    """Copy a block of whole chunks."""
    with open_volume(output.source) as made, open_location(output.staged, writable=True) as volume:
        array = made.read(box)
        volume.write(box, array)
    _keep_digest(output, box, array)


def _keep_digest(output: Output, box: Box, array: np.ndarray) -> None:
    write_text(_digest_file(output, box), digest(array))


def _digest_of(output: Output, box: Box, volume: Volume) -> str:
    """Return the digest of a block as it was written; of what was written without keeping it, as it is."""
    path = _digest_file(output, box)
    return path.read_text() if path.exists() else digest(volume.read(box))


def _digest_file(output: Output, box: Box) -> Place:
    """Return where the digest of a block is kept until all are there."""
    return output.work / f"{output.name}.digests" / "_".join(map(str, box.start))


def _make_room(output: Output) -> None:
    """Make the folder that it is built in; in a bucket it is built under its name, which is then taken."""
    if output.staged.remote:
        output.claim()
    else:
        Path(output.staged.path).absolute().parent.mkdir(parents=True, exist_ok=True)


def _create(output: Output) -> None:
    _make_room(output)
    with open_volume(output.source) as made:
        facts = {"shape": made.shape, "dtype": made.dtype, "metadata": output.metadata, "chunk_shape": None}
        backend_of(output.staged).create_volume(output.staged, **facts).close()
    write_text(output.begun(output.name), "")


def _create_level(output: Output, number: int) -> None:
    from neuropil.volume.pyramid import make_level, plan_pyramid

    make_level(plan_pyramid(output.staged, output.levels), number)
    write_text(output.begun(f"level {number}"), "")


def _is_made(output: Output, step: str) -> bool:
    return output.begun(step).exists() and bool(backend_of(output.staged).exists(output.staged))


def _copied(output: Output) -> list[Box]:
    with open_location(output.staged) as volume:
        return list(grid(Box.of_shape(volume.spatial_shape), block_that_fits(volume)))
