"""neuropil report RUN: make one HTML page of a run, with scores, curves, pictures and provenance.

Reads what `train`, `evaluate` and `demo` left in the run folder and writes RUN/report.html, which is complete in
itself: mail it, print it, open it offline. Whatever is not there yet is named with the command that makes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from pydantic import Field

from neuropil.config import StageConfig
from neuropil.errors import StorageFull, VolumeError
from neuropil.report.collect import collect_run
from neuropil.report.page import headline, render
from neuropil.stages import StageResult

EXAMPLES = ["neuropil report runs/vnc", "neuropil report runs/vnc --output vnc.html --sections 6 --crop 768"]
POSITIONAL = ("run",)


class Config(StageConfig):
    """Fields of `neuropil report`."""

    run: Path = Field(description="run folder that train, evaluate or demo wrote")
    output: Path | None = Field(default=None, description="the page to write; RUN/report.html if not given")
    sections: int = Field(default=3, ge=0, description="most sections to show as pictures")
    crop: int = Field(default=512, ge=16, description="largest side of those pictures, voxels, cut from the middle")


def run(config: Config) -> StageResult:
    """Collect the run, render it and write the page; an earlier page is replaced, but never by half of a new one."""
    data = collect_run(config.run, sections=config.sections, crop=config.crop)
    output = config.output if config.output is not None else config.run / "report.html"
    page = render(data)
    _write(output, page)
    lines = [headline(data), *data.notes, f"report: {output}"]
    return StageResult(
        summary="\n".join(line for line in lines if line),
        data={"report": str(output), "bytes": len(page.encode()), "models": [one.model for one in data.models]},
    )


def _write(output: Path, page: str) -> None:
    beside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(page, encoding="utf-8")
        os.replace(beside, output)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"the disk is full: {output} was not written; free space and try again") from None
        raise VolumeError(f"output {output} could not be written: {error.strerror or error}") from None
