"""neuropil report RUN: make one HTML page of a run, with scores, curves, pictures and provenance.

Reads what `train`, `evaluate` and `demo` left in the run folder and writes RUN/report.html, which is complete in
itself: mail it, print it, open it offline. Whatever is not there yet is named with the command that makes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from neuropil.blockwise import is_unfinished
from neuropil.config import Names, StageConfig
from neuropil.errors import InputError, StorageFull, VolumeError
from neuropil.networks.packaged import weights_path
from neuropil.report.collect import collect_run
from neuropil.report.data import FeaturePanel, ReportData
from neuropil.report.page import headline, render
from neuropil.stages import StageResult
from neuropil.stages.common import work_folder
from neuropil.stages.panels import feature_panel_of, image_of

EXAMPLES = [
    "neuropil report runs/vnc",
    "neuropil report runs/vnc --output vnc.html --sections 6 --crop 768",
    "neuropil report runs/vnc --features conv3b",
]
POSITIONAL = ("run",)


class Config(StageConfig):
    """Fields of `neuropil report`."""

    run: Path = Field(description="run folder that train, evaluate or demo wrote")
    output: Path | None = Field(default=None, description="the page to write; RUN/report.html if not given")
    sections: int = Field(default=3, ge=0, description="most sections to show as pictures")
    crop: int = Field(default=512, ge=16, description="largest side of those pictures, voxels, cut from the middle")
    unfinished: Names = Field([], description="outputs elsewhere, in buckets say, whose work goes on: URI,URI")
    features: str | None = Field(
        default=None, description="also show the maps of this layer, such as conv3b, in every network of the model"
    )
    weights: Path | None = Field(
        default=None, description="features: model to look into; RUN/model.safetensors if not given"
    )


def run(config: Config) -> StageResult:
    """Collect the run, render it and write the page; an earlier page is replaced, but never by half of a new one."""
    unfinished = {uri: work_folder(uri) for uri in config.unfinished}
    for uri, folder in unfinished.items():
        if not is_unfinished(folder):
            raise InputError(f"unfinished: there is no work for {uri}; {folder} holds no ledger")
    data = collect_run(config.run, sections=config.sections, crop=config.crop, unfinished=unfinished)
    if config.features is not None:
        data = replace(data, features=(_features(config, data),))
    output = config.output if config.output is not None else config.run / "report.html"
    page = render(data)
    _write(output, page)
    lines = [headline(data), *data.notes, f"report: {output}"]
    return StageResult(
        summary="\n".join(line for line in lines if line),
        data={"report": str(output), "bytes": len(page.encode()), "models": [one.model for one in data.models]},
    )


def _features(config: Config, data: ReportData) -> FeaturePanel:
    image = image_of([one.config for one in data.models] if data.panels else [])
    weights = config.weights if config.weights is not None else config.run / "model.safetensors"
    return feature_panel_of(weights_path(weights), config.features or "", image, data.panels[0])


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
