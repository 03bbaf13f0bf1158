"""Serial-section electron microscopy of tissue that never was, with perfect truth.

A scene of neurites and organelles (`scene`) is cut into sections: each is sampled through a smooth distortion and its
own small shift, the truth with it; then every section is rendered (`render`) with its own contrast and noise. Truth is
made from exactly the fields the image is made from, so the two can never disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from neuropil.errors import InputError
from neuropil.synthetic.defects import Defect, apply_defects, check_defects
from neuropil.synthetic.noise import smooth_noise
from neuropil.synthetic.render import Section, make_look, render
from neuropil.synthetic.scene import Scene, make_scene

WARP_NM = 22.0
"""Deviation of the smooth distortion that turns tube borders into cell outlines."""


@dataclass(frozen=True)
class Tissue:
    """A stack of sections and its truth; all arrays (z, y, x).

    Attributes
    ----------
    image : uint8
        Grey values, membranes dark.
    ids : uint64
        Neurite of every voxel, 0 = membrane or extracellular; every id is 6-connected.
    membrane : bool
        Membranes as drawn at the middle of each section, also where `ids` are touching.
    mitochondria : bool
        Inside a mitochondrion; a distractor for membrane detectors.
    defects : bool
        Voxels whose image was spoilt on purpose; their truth is still right.
    voxel_size : tuple of 3 floats
        nm, z, y, x.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint64]
    membrane: NDArray[np.bool_]
    mitochondria: NDArray[np.bool_]
    defects: NDArray[np.bool_]
    voxel_size: tuple[float, float, float]


def make_tissue(
    shape: Sequence[int],
    *,
    rng: np.random.Generator,
    voxel_size: Sequence[float] = (50.0, 4.0, 4.0),
    caliber_nm: float = 60.0,
    membrane_nm: float = 24.0,
    jitter_nm: float = 6.0,
    defects: Sequence[Defect] = (),
    membrane: bool = True,
) -> Tissue:
    """Make synthetic tissue as serial-section transmission electron microscopy shows it, with perfect truth.

    Neurites branch, touch, taper and end; most run across the sections, some within them; the thin ones are a few
    voxels wide. Membranes that are cut obliquely are fuzzy; mitochondria, vesicles, tubules and synaptic densities are
    as dark as membranes; every section has its own contrast, noise and shift: a grey-value threshold does badly.

    Parameters
    ----------
    shape : 3 ints
        Voxels, z, y, x; any size ≥ 1.
    rng : numpy.random.Generator
        Source of all randomness: the same state gives the same tissue.
    voxel_size : 3 floats
        nm, z, y, x; isotropic works as well.
    caliber_nm : float
        Median radius of a neurite, nm.
    membrane_nm : float
        Width, nm, of a membrane (both cells' and the gap), in the section.
    jitter_nm : float
        Standard deviation, nm, of each section's own shift in y and x; the truth shifts with it.
    defects : sequence of {"missing", "crack", "fold", "stain", "blur"}
        Each spoils one section drawn at random (not the same one twice while there are enough).
    membrane : bool
        True: ids are 0 on membranes, and no two different ids are 4-neighbours in a section. False: ids meet in the
        middle of the membrane; only what is neither is 0.

    Returns
    -------
    Tissue
        image, ids, membrane, mitochondria, defects, voxel_size.

    Raises
    ------
    InputError
        If `shape` or `voxel_size` is not 3 positive numbers, a length is not positive, or a defect is unknown.

    Examples
    --------
    >>> tissue = make_tissue((3, 60, 70), rng=np.random.default_rng(0))
    >>> tissue.image.shape, tissue.image.dtype.name, tissue.ids.dtype.name
    ((3, 60, 70), 'uint8', 'uint64')
    >>> bool((tissue.ids[tissue.membrane] == 0).all())
    True
    """
    extent, size = _check(shape, voxel_size, caliber_nm, membrane_nm, jitter_nm)
    check_defects(defects)
    shift = np.clip(rng.normal(0, 1, (extent[0], 2)), -3, 3) * jitter_nm
    margin = 3 * jitter_nm + 4 * WARP_NM + 20
    scene = make_scene(extent, size, margin_nm=margin, caliber_nm=caliber_nm, membrane_nm=membrane_nm, rng=rng)
    cuts = _Cuts(scene, extent, size, shift, rng)
    ids, wall = _truth(cuts, membrane_nm)
    ids = _connect(ids, size)
    wall &= ids == 0
    unclaimed = (ids == 0) & ~wall
    look = make_look(int(scene.ids.max()), rng)
    image = np.empty(extent, np.uint8)
    mito = np.empty(extent, bool)
    for z, section in enumerate(cuts.sections(unclaimed)):
        mito[z] = (section.mito_nm < 0) & (ids[z] > 0)
        image[z] = render(section, size[1:], look, rng)
    wall |= unclaimed
    image, spoilt = apply_defects(image, defects, size, rng)
    if not membrane:
        ids = _touching(ids, wall)
    return Tissue(image, ids.astype(np.uint64), wall, mito, spoilt, size)


def _check(
    shape: Sequence[int], voxel_size: Sequence[float], caliber_nm: float, membrane_nm: float, jitter_nm: float
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
        raise InputError(f"shape must be 3 positive whole numbers z, y, x; got {tuple(shape)}")
    if len(voxel_size) != 3 or not all(np.isfinite(s) and s > 0 for s in voxel_size):
        raise InputError(f"voxel_size must be 3 positive lengths z, y, x in nm; got {tuple(voxel_size)}")
    for name, value in (("caliber_nm", caliber_nm), ("membrane_nm", membrane_nm)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive length in nm; got {value}")
    if not (np.isfinite(jitter_nm) and jitter_nm >= 0):
        raise InputError(f"jitter_nm must be 0 or a positive length in nm; got {jitter_nm}")
    z, y, x = (int(n) for n in shape)
    dz, dy, dx = (float(s) for s in voxel_size)
    return (z, y, x), (dz, dy, dx)


class _Cuts:
    """Samples the scene's fields section by section, through the distortion and each section's shift."""

    def __init__(
        self,
        scene: Scene,
        shape: tuple[int, int, int],
        voxel_size: tuple[float, float, float],
        shift_nm: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self.scene, self.shape, self.voxel_size, self.shift_nm = scene, shape, voxel_size, shift_nm
        broad, fine = ([s / v for s, v in zip(sigma, voxel_size)] for sigma in ((90, 130, 130), (45, 34, 34)))
        self.warp = [
            WARP_NM * smooth_noise(shape, broad, rng) + 0.22 * WARP_NM * smooth_noise(shape, fine, rng)
            for _ in range(2)
        ]

    def sample(self, field: NDArray[Any], z: int, order: Literal[0, 1] = 1) -> NDArray[Any]:
        """`field` of section z on the voxel grid."""
        at = []
        for axis in (0, 1):
            n, size = self.shape[1 + axis], self.voxel_size[1 + axis]
            position = (np.arange(n) + 0.5) * size + self.scene.margin_nm[axis] + self.shift_nm[z, axis]
            position = position[:, None] if axis == 0 else position[None, :]
            warp = np.clip(self.warp[axis][z], -4 * WARP_NM, 4 * WARP_NM)
            at.append((position + warp) / self.scene.pitch_nm[axis] - 0.5)
        full = np.stack(np.broadcast_arrays(*at))
        sampled: NDArray[Any] = ndimage.map_coordinates(field[z], full, order=order, mode="nearest", prefilter=False)
        return sampled

    def sections(self, unclaimed: NDArray[np.bool_]) -> Iterator[Section]:
        """What `render` needs of every section."""
        scene = self.scene
        for z in range(self.shape[0]):
            smear = self.sample(scene.smear, z)
            if unclaimed[z].any():  # slivers too small to be a neurite look like extracellular material
                smear = np.maximum(smear, 0.8 * ndimage.gaussian_filter(unclaimed[z].astype(np.float32), 1))
            yield Section(
                ids=self.sample(scene.ids, z, order=0),
                border_nm=self.sample(scene.border_nm, z),
                smear=smear,
                mito_nm=self.sample(np.minimum(scene.mito_nm, 200), z),
                density=self.sample(scene.density, z),
                vesicles=self.sample(scene.vesicles, z),
            )


def _truth(cuts: _Cuts, membrane_nm: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ids with membranes carved out, and the membranes; never two ids side by side in a section."""
    ids = np.empty(cuts.shape, np.int64)
    for z in range(cuts.shape[0]):
        ids[z] = cuts.sample(cuts.scene.ids, z, order=0)
        ids[z][cuts.sample(cuts.scene.border_nm, z) < membrane_nm / 2] = 0
    for axis in (1, 2):
        first = ids[:, :-1] if axis == 1 else ids[:, :, :-1]
        second = ids[:, 1:] if axis == 1 else ids[:, :, 1:]
        clash = (first != second) & (first > 0) & (second > 0)
        first[clash] = 0
        second[clash] = 0
    return ids, ids == 0


def _connect(ids: NDArray[np.int64], voxel_size: tuple[float, float, float]) -> NDArray[np.int64]:
    """Ids 1…n, each one 6-connected: separate pieces become neurites of their own, slivers become 0."""
    pieces = cc3d.connected_components(ids, connectivity=6, out_dtype=np.uint32)
    sizes = np.bincount(pieces.ravel())
    # A sliver is less than 55 × 55 nm in one section.
    least = max(1, int(55.0 * 55.0 / (voxel_size[1] * voxel_size[2]) * max(1.0, 30.0 / voxel_size[0])))
    keep = sizes >= least
    keep[0] = False
    lookup = np.zeros(len(sizes), np.int64)
    lookup[keep] = np.arange(1, int(keep.sum()) + 1)
    return lookup[pieces]


def _touching(ids: NDArray[np.int64], wall: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Ids grown through the membranes of their own section until they meet; growing keeps them connected."""
    cross = np.zeros((3, 3, 3), bool)
    cross[1, 1, :] = cross[1, :, 1] = True
    flat, room = np.zeros(ids.shape, np.uint8), (ids > 0) | wall
    return np.asarray(watershed(flat, ids, connectivity=cross, mask=room))  # type: ignore[no-untyped-call]
