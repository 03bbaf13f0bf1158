"""The part of `neuropil run` that predicts: blocks of an image become blocks of affinities or of a boundary map.

A block is made of whole tiles of a boundary network, or sees every patch of a U-Net that touches it. Tiles and patches
lie where they lie in the whole, so the result is that of `neuropil predict`. A process loads the model once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.files import Place, write_json, write_text
from neuropil.geometry import Box, grid
from neuropil.stages import predict
from neuropil.stages.common import fingerprint, finite
from neuropil.stages.predict_patches import patch_grid, wanted_channels
from neuropil.stages.run_config import Config
from neuropil.stages.run_files import load, save
from neuropil.stages.run_step import Step
from neuropil.volume import Volume, create_volume, open_volume

if TYPE_CHECKING:
    from neuropil.networks.checkpoint import Model
    from neuropil.networks.inference import Source
    from neuropil.networks.patches import PatchGrid, PatchPredictor
    from neuropil.networks.planning import TilePlan

Extent = tuple[int, ...]
TASKS = 4
"""Blocks for each worker at least, so that none waits long for the last."""
GROWTH = ((0, 2), (0, 4), (1, 2), (2, 2))
"""Axes along which a block of a U-Net is made larger, and times a block of the segmentation: the larger it is, the
fewer patches are seen twice. Along z it costs no memory."""


@dataclass(frozen=True)
class Prediction:
    """What all blocks of a prediction have in common; data only.

    Attributes
    ----------
    config : as `neuropil predict` takes it
    digest : of the weights, so that a process that has others loads these
    origin, shape : voxels z, y, x of the image where the part begins that is predicted, and of that part
    work : folder of all that is made on the way
    block : voxels z, y, x of a block of the segmentation
    tiles : of a chain of boundary networks; none for a U-Net
    column : voxels z, y, x of a block of a U-Net
    """

    config: predict.Config
    digest: str
    origin: Extent
    shape: Extent
    work: Place
    block: Extent
    tiles: tuple[TilePlan, ...] = ()
    column: Extent = ()

    @property
    def whole(self) -> Box:
        """The part that is predicted."""
        return Box.of_shape(self.shape)

    @property
    def output(self) -> str:
        """URI of what is predicted."""
        return f"{self.work}/predicted.zarr"

    def map(self, index: int) -> str:
        """URI of what a network of a chain makes."""
        return self.output if index == len(self.tiles) - 1 else f"{self.work}/map{index + 1}.zarr"

    def group(self, index: int) -> Extent:
        """Tiles of a network that make a block of about the size of the others."""
        return tuple(max(1, n // t) * t for n, t in zip(self.block, self.tiles[index].tile))


def plan_prediction(config: Config, box: Box, work: Place, *, workers: int, memory: float) -> Prediction:
    """Check the model, and settle tiles and blocks; those of unfinished work stay.

    Parameters
    ----------
    box : of the image
    memory : bytes that a worker may take

    Raises
    ------
    InputError : an image smaller than the field of view, options that do not fit the model, too little memory
    """
    from neuropil.networks import planning
    from neuropil.networks.checkpoint import load_model, pick_device
    from neuropil.networks.packaged import weights_path

    weights = weights_path(config.weights or "").absolute()
    model, device, whole = load_model(weights), pick_device(config.device), Box.of_shape(box.shape)
    planning.warn_if_slow(device, config.precision)
    names = ("input", "device", "precision", "tta", "tile", "patch", "overlap", *(("channels",) if model.unet else ()))
    how = predict.Config(
        weights=weights, output=f"{work}/predicted.zarr", max_memory=memory / 1e9,
        **{name: getattr(config, name) for name in names},
    )  # fmt: skip
    block = tuple(map(min, config.block, box.shape))
    made = Prediction(how, fingerprint(weights), box.start, box.shape, work, block)
    plan = predict.Plan(whole, None, "", device, None)
    if model.unet is None:
        predict.check_chain(how, model, whole)
        for network in model.networks:
            network.to(device)
        return replace(made, tiles=tuple(predict.tiles_of(how, model, plan, work)))
    patches, path = patch_grid(how, model.unet, model.card, whole), work / "column.json"
    if not path.exists():
        room = planning.device_memory(device, memory)
        write_json(path, _column(made, patches, workers, partial(_memory, how, model, patches), room))
    return replace(made, column=tuple(json.loads(path.read_text())))


def _memory(how: predict.Config, model: Model, patches: PatchGrid, block: Extent) -> float:
    """Bytes that predicting a block of a U-Net takes at most: see `predict_column`."""
    from neuropil.networks.patch_plan import patch_memory
    from neuropil.networks.planning import dtype_of

    unet = model.unet
    assert unet is not None
    channels, itemsize = len(wanted_channels(how, unet)), dtype_of(unet, how.precision).itemsize
    return patch_memory(unet.architecture, patches, block[1:], channels, itemsize, 1, how.views) + channels * prod(
        block
    )


def _column(
    made: Prediction, patches: PatchGrid, workers: int, memory: Callable[[Extent], float], room: float
) -> Extent:
    """Make blocks as large as is good: whole blocks of the segmentation, enough of them, and none too large.

    Raises
    ------
    InputError : the least one is too large
    """
    column = made.block
    if memory(column) > room:
        raise InputError(
            f"block {column} and patches of {patches.patch} need {memory(column) / 1e6:.0f} MB for each worker,"
            f" {max(0.0, room) / 1e6:.0f} MB are left; give a smaller block, fewer workers or more worker_memory"
        )
    for axis, times in GROWTH:
        longer = min(times * made.block[axis], made.shape[axis])
        wider = (*column[:axis], longer, *column[axis + 1 :])
        enough = prod(ceil(extent / n) for extent, n in zip(made.shape, wider)) >= TASKS * workers
        if enough and memory((made.block[0], *wider[1:])) <= room:
            column = wider
    return column


def prediction_steps(made: Prediction) -> list[Step]:
    """Return the steps in their order; the last one makes `made.output`."""
    steps = [Step("sections", partial(_grid, made, _counted(made)), partial(measure_sections, made))]
    if not made.tiles:
        steps.append(_writing(made, "predict", partial(predict_column, made), made.output, made.column, made.block))
    for index in range(len(made.tiles)):
        work, group = partial(predict_tiles, made, index=index), made.group(index)
        steps.append(_writing(made, f"predict {index + 1}", work, made.map(index), group, group))
    return steps


def _writing(made: Prediction, name: str, work: Callable[[Box], None], uri: str, size: Extent, chunk: Extent) -> Step:
    """Return a step whose blocks are written into a volume of its own."""
    return Step(name, partial(_grid, made, size), work, partial(_create, made, uri, chunk), _mark(made, uri).exists)


def _mark(made: Prediction, uri: str) -> Place:
    """Where it is marked that a volume was made, and may be written into."""
    return made.work / f"{uri.rpartition('/')[2]}.begun"


def _grid(made: Prediction, size: Extent) -> list[Box]:
    return list(grid(made.whole, size))


def _counted(made: Prediction) -> Extent:
    """Voxels that are measured at a time: a block of bytes, whole sections of others."""
    with open_volume(made.config.input) as image:
        return made.block if image.dtype == np.uint8 else (made.block[0], *made.shape[1:])


def measure_sections(made: Prediction, box: Box) -> None:
    """Count the bytes of a part of some sections, or measure whole ones."""
    from neuropil.networks.sampling import SectionStatistics, byte_counts

    with open_volume(made.config.input) as image:
        part = image.read(box.shift(made.origin))
    if part.dtype == np.uint8:
        save(_facts(made, box), {"counts": byte_counts(part)})
        return
    with finite(made.config.input):
        save(_facts(made, box), vars(SectionStatistics.of(part.__getitem__, len(part))))


def _facts(made: Prediction, box: Box) -> Place:
    return made.work / "sections" / f"{'_'.join(map(str, box.start))}.npz"


def _join_sections(made: Prediction) -> None:
    """Put what was measured together: mean and standard deviation of each section."""
    from neuropil.networks.sampling import SectionStatistics

    path = made.work / "sections.npz"
    if path.exists():
        return
    size = _counted(made)
    layers = []
    for layer in grid(Box.of_shape(made.shape[:1]), size[:1]):
        boxes = grid(Box((*layer.start, 0, 0), (*layer.stop, *made.shape[1:])), size)
        parts = [load(_facts(made, box)) for box in boxes]
        if "counts" in parts[0]:
            layers.append(SectionStatistics.of_counts(np.sum([part["counts"] for part in parts], 0)))
        else:
            layers.append(SectionStatistics(**parts[0]))
    save(path, {name: np.concatenate([getattr(one, name) for one in layers]) for name in ("mean", "deviation")})


def _create(made: Prediction, uri: str, chunk: Extent) -> None:
    """Make the volume that a step writes into; blocks are whole chunks of it. Sections are measured by then."""
    _join_sections(made)
    unet = _model(made).unet
    if unet is not None:
        offsets = [unet.architecture.offsets[channel] for channel in wanted_channels(made.config, unet)]
        facts: dict[str, Any] = {"shape": (len(offsets), *made.shape), "kind": "affinities", "offsets": offsets}
    else:
        facts = {"shape": made.shape, "kind": "boundary"}
    final = uri == made.output
    stored = {"dtype": np.uint8, "scale": 1 / 255} if final else {"dtype": np.float32}
    create_volume(uri, overwrite=True, chunk_shape=chunk, **facts, **stored).close()
    write_text(_mark(made, uri), "")


def predict_tiles(made: Prediction, box: Box, *, index: int) -> None:
    """Run one network of a chain over the tiles of a block."""
    from neuropil.networks import inference

    network, tiles, how = _model(made).chain[index], made.tiles[index], made.config
    view = network.architecture.field_of_view
    near = box.grow(view).clip(made.whole)
    with open_volume(how.input) as image:
        sources = [_kept(_standardised(made, image), near)]
        if index:
            before = open_volume(made.map(index - 1))
            sources.append(_kept(before.read, near))
        result = np.empty(box.shape, np.float32)
        with inference.Predictor(network, precision=how.precision, augment=how.views > 1, forms=tiles.forms) as predict:
            for tile in grid(box, tiles.tile):
                values = predict(inference.read_halo(network.architecture, sources, made.shape, tile))
                result[tile.shift([-n for n in box.start]).slices] = values
    last = index == len(made.tiles) - 1
    stored = np.rint(result.clip(0, 1) * 255).astype(np.uint8) if last else result
    with open_volume(made.map(index), writable=True) as output:
        output.write(box, stored)


def predict_column(made: Prediction, box: Box) -> None:
    """Run a U-Net over the patches that touch a block, a few sections at a time, and write what is finished."""
    predictor = _predictor(made)
    patches, depth = predictor.grid, made.block[0]
    ends = sorted({*patches.starts[0], *range(0, box.stop[0], depth), box.stop[0]})
    ends = [z for z in ends if box.start[0] <= z <= box.stop[0]]
    with open_volume(made.config.input) as image, open_volume(made.output, writable=True) as output, predictor:
        read = _standardised(made, image)
        for part in grid(box, (depth, *box.shape[1:])):
            values = np.empty((len(predictor.channels), *part.shape), np.uint8)
            for start, stop in pairwise(ends):
                if part.start[0] <= start < part.stop[0]:
                    slab = Box((start, *box.start[1:]), (stop, *box.stop[1:]))
                    values[:, start - part.start[0] : stop - part.start[0]] = predictor(
                        slab, read(patches.region(slab))
                    )
            output.write(part, values)


def _standardised(made: Prediction, image: Volume) -> Source:
    """Return what reads the image as networks want it."""
    from neuropil.networks.sampling import SectionStatistics

    statistics = SectionStatistics(**load(made.work / "sections.npz"))
    return lambda part: statistics.apply(image.read(part.shift(made.origin)), part.slices[0])


def _kept(source: Source, near: Box) -> Source:
    """Read once what most of the tiles of a block lie in."""
    known = source(near)

    def read(part: Box) -> NDArray[np.float32]:
        return known[part.shift([-n for n in near.start]).slices] if near.contains(part) else source(part)

    return read


@lru_cache(1)
def _model(made: Prediction) -> Model:
    """Load the model, once in a process."""
    from neuropil.networks.checkpoint import load_model, pick_device

    if fingerprint(made.config.weights) != made.digest:
        raise InputError(f"{made.config.weights} is not the file that the run started with")
    model, device = load_model(made.config.weights), pick_device(made.config.device)
    for network in model.networks:
        network.to(device)
    return model


def _predictor(made: Prediction) -> PatchPredictor:
    """Make one for each block, so that nothing is left of another."""
    from neuropil.networks.patches import PatchPredictor

    unet, how = _model(made).unet, made.config
    assert unet is not None
    patches = patch_grid(how, unet, _model(made).card, made.whole)
    channels = wanted_channels(how, unet)
    return PatchPredictor(unet, patches, channels=channels, views=how.views, precision=how.precision, stored="uint8")
