"""neuropil verify OUTPUT: is a finished output still what was written, and are its inputs still what they were?

Reads every block of the output and compares it with the digest recorded when it was written (in the .json beside it),
then looks at its inputs, weights, merge tree and versions. What is damaged is named, with what to do, and the exit
code is 2. Outputs of convert, predict, segment and run have such a record; of any other volume it is told whether all
of it can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from neuropil.blockwise import is_unfinished, unfinished_blocks
from neuropil.config import StageConfig
from neuropil.errors import NeuropilError, VolumeError
from neuropil.geometry import Box, grid
from neuropil.progress import track
from neuropil.stages import StageResult
from neuropil.stages.checks import Check, checked, report
from neuropil.stages.common import claimed, fingerprint, sidecar, versions, work_folder
from neuropil.stages.record import identity
from neuropil.volume import Volume, exists, open_volume
from neuropil.volume.copying import block_that_fits, digest

EXAMPLES = [
    "neuropil verify segmentation.zarr",
    "neuropil verify boundary.h5:map",
    "neuropil verify segmentation.zarr --no-read    # inputs and versions only",
]
POSITIONAL = ("output",)
AGAIN = "make it anew: the same command with --overwrite"


class Config(StageConfig):
    """Fields of [verify]."""

    output: str = Field(description="volume that neuropil wrote")
    read: bool = Field(True, description="read every block; --no-read looks at all else")


def run(config: Config) -> StageResult:
    """Check one output."""
    unfinished = work_folder(config.output)
    begun = is_unfinished(unfinished)
    if begun and (config.output in claimed(unfinished) or not exists(config.output)):
        done = unfinished_blocks(unfinished)
        advice = "give the same command again, it continues; --fresh starts over"
        return report(config.output, [Check("output", "broken", f"not finished, {done} blocks are done", advice)])
    checks = []
    if begun:
        advice = f"another command for this output was stopped: finish it, or remove {unfinished}"
        checks.append(Check("unfinished", "warning", f"{unfinished_blocks(unfinished)} blocks of it are done", advice))
    record, said = read_record(config.output)
    checks.append(said)
    try:
        with open_volume(config.output) as volume:
            checks += contents_checks(volume, record.get("contents") or {}, read=config.read)
            shape = volume.spatial_shape
    except VolumeError as error:
        return report(config.output, [*checks, Check("output", "broken", str(error), AGAIN)])
    checks += [*input_checks(record, shape), *weight_checks(record), *tree_checks(config.output, record)]
    return report(config.output, [*checks, *version_checks(record)])


def read_record(uri: str) -> tuple[dict[str, Any], Check]:
    """Return the record beside an output, and what is to say of it."""
    path = sidecar(uri, "json")
    if not path.is_file():
        advice = "nothing to do, unless neuropil wrote it: then its record was removed or left behind"
        return {}, Check("record", "warning", f"there is no {path.name} beside it: only reading can be checked", advice)
    try:
        record = json.loads(path.read_text())
    except ValueError:
        return {}, Check("record", "broken", f"{path} is no JSON", f"bring it back from a copy, or {AGAIN}")
    if not isinstance(record, dict) or "contents" not in record:
        advice = f"to have one, {AGAIN}"
        return {}, Check("record", "warning", f"{path.name} says nothing of the contents", advice)
    return record, Check("record", "ok", f"{path.name}, by neuropil {record.get('command', '')}")


def contents_checks(volume: Volume, contents: dict[str, Any], *, read: bool) -> Iterator[Check]:
    """Compare shape, dtype and blocks with what was recorded."""
    shape, dtype = contents.get("shape"), contents.get("dtype")
    found = f"{volume.dtype} {volume.shape}"
    if shape is not None and (tuple(shape) != volume.shape or dtype != volume.dtype.name):
        yield Check("shape", "broken", f"{found}, written was {dtype} {tuple(shape)}", AGAIN)
        return
    yield Check("shape", "ok", found)
    if read:
        digests = contents.get("digests")
        block = tuple(contents["block"]) if digests else block_that_fits(volume)
        yield _blocks_check(volume, block, digests)


def _blocks_check(volume: Volume, block: Sequence[int], digests: Sequence[str] | None) -> Check:
    boxes = list(grid(Box.of_shape(volume.spatial_shape), block))
    bad: list[str] = []
    for k, box in enumerate(track(boxes, "verify", len(boxes))):
        try:
            array = volume.read(box)
        except VolumeError as error:
            bad.append(f"{box.start} to {box.stop} cannot be read ({error})")
            continue
        if digests is not None and digest(array) != digests[k]:
            how = "is all zeros: its file is gone" if not array.any() else "differs from what was written"
            bad.append(f"{box.start} to {box.stop} {how}")
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        return Check("blocks", "broken", f"{len(bad)} of {len(boxes)}: {bad[0]}{more}", AGAIN)
    words = "can be read" if digests is None else "are as they were written"
    return Check("blocks", "ok", f"all {len(boxes)} {words}")


def input_checks(record: dict[str, Any], shape: tuple[int, int, int]) -> Iterator[Check]:
    """Look whether inputs are there and are the same, and whether the output has the extent that follows from them."""
    for k, before in enumerate(record.get("inputs") or []):
        uri = before["uri"]
        try:
            now = identity(uri, before.get("depth"))
        except NeuropilError as error:
            advice = "the output is not harmed; to make it again, bring the input back"
            yield Check("input", "warning", f"{uri} is not there any more ({error})", advice)
            continue
        changed = [key for key in ("shape", "dtype", "sample") if _plain(now[key]) != before[key]]
        if changed:
            what = "its voxels" if changed == ["sample"] else " and ".join(one for one in changed if one != "sample")
            advice = f"the output is not of this input any more; {AGAIN}"
            yield Check("input", "broken", f"{uri} has changed: {what}", advice)
        else:
            yield Check("input", "ok", f"{uri} is unchanged in a sample of its blocks")
        if k == 0:
            yield from _extent_check(record["config"], now["shape"][-3:], shape)


def _extent_check(config: dict[str, Any], source: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Check]:
    """Compare the output's extent with what the configuration makes of the input's."""
    turned = config.get("affinities_from") or config.get("affinities_to")
    if turned or (config.get("resample") and not isinstance(config["resample"], bool)):
        return
    start, stop = config.get("sections") or (0, source[0])
    wanted = (stop - start, *source[1:])
    if config.get("box"):
        wanted = tuple(stop - start for start, stop in config["box"])
    if shape != wanted:
        yield Check("extent", "broken", f"{shape}, while input and configuration make {wanted}", AGAIN)
    else:
        yield Check("extent", "ok", f"{shape}, as input and configuration make it")


def weight_checks(record: dict[str, Any]) -> Iterator[Check]:
    """Look whether weights are the same."""
    if "weights_sha256" not in record:
        return
    from neuropil.networks.packaged import weights_path

    name = record["config"]["weights"]
    try:
        same = fingerprint(weights_path(Path(name))) == record["weights_sha256"]
    except (NeuropilError, OSError):
        yield Check("weights", "warning", f"{name} is not there any more", "to predict again, bring it back")
        return
    if same:
        yield Check("weights", "ok", f"{name} is unchanged")
    else:
        yield Check("weights", "warning", f"{name} holds other weights now", f"if you mean these, {AGAIN}")


def tree_checks(uri: str, record: dict[str, Any]) -> Iterator[Check]:
    """Look whether the merge tree that `run` leaves beside its output, but for components, is whole."""
    path = sidecar(uri, "tree.npz")
    config = record.get("config") or {}
    if not path.exists() and (record.get("command") != "run" or config.get("method") == "components"):
        return
    yield checked("merge tree", lambda: _tree(path), AGAIN)


def _tree(path: Path) -> str:
    with np.load(path) as file:
        u, v, score = file["u"], file["v"], file["affinity"]
    if not (u.shape == v.shape == score.shape and np.all(u < v) and np.all(np.diff(score) <= 0)):
        raise ValueError(f"{path} holds no merge tree: its scores do not fall, or its pairs are no pairs")
    return f"{u.size} merges in {path.name}"


def version_checks(record: dict[str, Any]) -> Iterator[Check]:
    """Tell which versions have changed since."""
    before, now = record.get("versions") or {}, versions()
    keys = [key for key in ("neuropil", "torch", "numpy") if before.get(key, now[key]) != now[key]]
    changed = [f"{key} {before[key]}, now {now[key]}" for key in keys]
    if changed:
        yield Check("versions", "ok", f"made with {'; '.join(changed)}: made again it may differ in last digits")
    elif before:
        yield Check("versions", "ok", f"neuropil {now['neuropil']}, as now")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
