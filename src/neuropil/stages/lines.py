"""Centre lines of a volume of labels: what `skeletonize` and `evaluate --skeletons truth` share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neuropil.config import StageConfig, dump
from neuropil.errors import InputError
from neuropil.skeletons.cleanup import clean, resample
from neuropil.skeletons.skeleton import Skeleton
from neuropil.skeletons.teasar import skeletonize
from neuropil.stages.common import CREMI_UNLABELLED
from neuropil.volume import Volume
from neuropil.volume.metadata import Length
from neuropil.volume.skeleton_files import read_skeletons, write_skeletons

_VERSION = 1  # of the method; a new number makes kept skeletons be made anew


class Lines(StageConfig):
    """How skeletons are made of labels."""

    scale: float = Field(1.5, ge=0, description="a path covers scale * (distance to the surface) + constant_nm")
    constant_nm: float = Field(300, ge=0, description="see scale; greater means fewer branches")
    dust: int = Field(100, ge=0, description="connected pieces of fewer voxels are left out")
    soma_radius_nm: float | None = Field(None, ge=0, description="a piece as thick as this has its root there, a soma")
    gap_nm: float = Field(0, ge=0, description="join pieces of a label over this distance, whatever their radii")
    least_nm: float = Field(0, ge=0, description="leave out pieces of skeleton shorter than this")
    tick_nm: float = Field(0, ge=0, description="remove dead-end branches shorter than this")
    spacing_nm: float | None = Field(None, gt=0, description="put vertices at about this distance along branches")


@dataclass(frozen=True)
class LabelArray:
    """Labels (z, y, x) in memory; voxel size and place of the first voxel in nm."""

    array: NDArray[Any]
    voxel_size: Length
    offset: Length

    def key(self, lines: Lines) -> str:
        """Return a name for the skeletons of exactly these voxels and parameters."""
        told = [self.array.dtype.str, self.array.shape, self.voxel_size, self.offset, dump(lines), _VERSION]
        digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()


def read_labels(volume: Volume) -> LabelArray:
    """Read labels; what CREMI calls unlabelled becomes background.

    Raises
    ------
    InputError : no labels, or no voxel size
    """
    if len(volume.shape) != 3 or volume.dtype.kind not in "ui":
        raise InputError(f"{volume.uri} must hold integer labels (z, y, x); it holds {volume.dtype} {volume.shape}")
    size = volume.metadata.voxel_size
    if size is None:
        raise InputError(f"{volume.uri} does not tell its voxel size; give --voxel-size z,y,x in nm")
    array = volume.read()
    if array.dtype == np.uint64:
        array[array == CREMI_UNLABELLED] = 0
    return LabelArray(array, size, volume.metadata.offset)


def make_lines(labels: LabelArray, lines: Lines) -> dict[int, Skeleton]:
    """Return the skeletons of labels, cleaned and resampled, id to skeleton."""
    found = skeletonize(
        labels.array,
        labels.voxel_size,
        scale=lines.scale,
        constant_nm=lines.constant_nm,
        dust=lines.dust,
        soma_radius_nm=float("inf") if lines.soma_radius_nm is None else lines.soma_radius_nm,
        offset_nm=labels.offset,
    )
    made = {}
    for one, skeleton in found.items():
        cleaned = clean(skeleton, dust_nm=lines.least_nm, tick_nm=lines.tick_nm, gap_nm=lines.gap_nm)
        if len(cleaned.vertices_nm):
            made[one] = cleaned if lines.spacing_nm is None else resample(cleaned, lines.spacing_nm)
    return made


def kept_lines(labels: LabelArray, lines: Lines, folder: Path) -> tuple[dict[int, Skeleton], Path]:
    """Return the skeletons of labels, made once and kept in a folder, and the file they are in."""
    path = folder / f"skeletons-{labels.key(lines)}.npz"
    if not path.exists():
        write_skeletons(path, make_lines(labels, lines), voxel_size=labels.voxel_size)
    return read_skeletons(path).skeletons, path
