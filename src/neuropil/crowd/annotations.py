r"""Several people's annotations of one cube, fused into one, with a confidence for every voxel.

Ids of different people have nothing to do with each other, and one person's object may be two of another's, so ids
cannot be voted on; neither can links between neighbours, since borders that everybody draws a voxel elsewhere leave a
chain of links on each of which most agree, right through the border. What can be voted on is whether two voxels,
however far apart, belong together. The fused annotation is the one that agrees with most people on most pairs,

    maximise  sum over pairs of voxels in one object of  sum_k w_k (+1 if annotator k joins them, -1 if not),

the median partition under the Rand distance. Key insight: voxels with the same ids in all annotations are alike, so
the units are these atoms, thousands and not millions; and what an atom gains in a cluster needs only the overlaps of
the cluster with the annotators' objects. Atoms move to where they gain most, large ones first, until none moves.
A cluster that no annotator sees as an object (less than half of every object it lies in) is a sliver between borders,
and goes where it agrees most.

Annotators weigh by their reliability r_k above guessing, r_k - 1/2, and nobody more than all others together. It
follows from agreements alone: if errors are independent, the agreement of j and k (Rand F) is about r_j r_k, and three
people give three equations. A spammer agrees with nobody and weighs next to nothing. Log-odds would be right if voxel
pairs were independent; they are not, and in benchmarks/crowd they let the best annotator dictate.

Source: median partition by best one-element moves, Goder and Filkov, "Consensus clustering algorithms: comparison and
refinement", ALENEX 2008; agreement as a product of abilities as in Dalvi et al., WWW 2013, doi:10.1145/2488388.2488414.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neuropil._kernels import consensus as _kernel
from neuropil.crowd.agreement import Atoms, cut_into_atoms, reliability
from neuropil.crowd.confidence import voxel_confidence
from neuropil.errors import InputError

Background = Literal["opinion", "unknown"]
_SWEEPS = 100
_MOST_OF_OTHERS = 0.99  # of the weight of all others; with three or more, nobody dictates


@dataclass(frozen=True)
class FusedAnnotation:
    """One annotation made of several.

    Attributes
    ----------
    labels
        uint64 (z, y, x), 0 is background, 1 ... n.
    confidence
        float32 (z, y, x), weighted share of annotators who agree about the voxel, in [0, 1]; see
        `neuropil.crowd.confidence`.
    reliability
        float64 (k,), r_k of each annotator, in [0.55, 0.99].
    weights
        float64 (k,), share of each annotator in the votes; they add up to 1.
    """

    labels: NDArray[np.uint64]
    confidence: NDArray[np.float32]
    reliability: NDArray[np.float64]
    weights: NDArray[np.float64]

    def mask(self, least: float = 0.75) -> NDArray[np.bool_]:
        """Return where to learn from the labels: confidence of at least `least`, bool (z, y, x)."""
        return self.confidence >= least


def fuse_annotations(
    annotations: Sequence[ArrayLike], *, background: Background = "opinion", weights: ArrayLike | None = None
) -> FusedAnnotation:
    """Fuse several annotations of one cube.

    Parameters
    ----------
    annotations
        Labels of each annotator, integers >= 0, (z, y, x), all of one shape; ids need not match, and may be any uint64.
    background
        What 0 means: "opinion", that nothing is there (a membrane, say): a voxel is background where at least half the
        weight says so; "unknown", that the annotator did not look: a voxel is background where nobody painted.
    weights
        (k,), > 0, how much annotators count; by their reliability if omitted.

    Returns
    -------
    FusedAnnotation

    Raises
    ------
    InputError
        If there is no annotation, shapes differ, labels are no labels, or weights do not fit.

    Examples
    --------
    One merges both objects, one splits one of them, and together they are right:

    >>> merged, split, right = [[[1, 1, 1, 1, 1, 1]]], [[[7, 7, 7, 8, 8, 9]]], [[[3, 3, 3, 2, 2, 2]]]
    >>> fused = fuse_annotations([merged, split, right], weights=[1, 1, 1])
    >>> fused.labels.tolist()
    [[[1, 1, 1, 2, 2, 2]]]
    """
    if background not in get_args(Background):
        raise InputError(f"background must be one of {', '.join(get_args(Background))}; got {background!r}")
    atoms = cut_into_atoms(annotations)
    reliable = reliability(atoms)
    w = _weights(weights, reliable)
    # where 0 is an opinion it takes part in the vote on background, not in that on pairs
    zero = (atoms.ids < 0) @ w
    empty = np.asarray(zero >= (1.0 if background == "unknown" else 0.5) - 1e-9)
    clusters = np.full(atoms.sizes.size, -1)
    clusters[~empty] = _partition(atoms.only(~empty), w)
    labels = np.zeros(clusters.size, np.uint64)
    _, dense = np.unique(clusters[clusters >= 0], return_inverse=True)
    labels[clusters >= 0] = dense + 1
    confidence = voxel_confidence(atoms, labels.astype(np.int64), w, unknown=background == "unknown")
    return FusedAnnotation(labels[atoms.codes], confidence, reliable, w)


def _weights(given: ArrayLike | None, reliable: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = _by_reliability(reliable) if given is None else np.asarray(given, np.float64)
    if weights.shape != reliable.shape or not np.all((weights > 0) & np.isfinite(weights)):
        raise InputError(f"weights must be positive numbers, one per annotator ({reliable.size}); got {weights}")
    return np.asarray(weights / weights.sum())


def _by_reliability(reliable: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = reliable - 0.5
    if weights.size > 2:
        first = int(weights.argmax())
        weights[first] = min(weights[first], _MOST_OF_OTHERS * (weights.sum() - weights[first]))
    return weights


def _partition(atoms: Atoms, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cluster of each atom."""
    clusters = np.arange(atoms.sizes.size)
    voxels = np.where(atoms.ids >= 0, atoms.sizes[:, None], 0.0)
    graph = (atoms.ids, *_members(atoms.ids))
    order = np.argsort(-atoms.sizes, kind="stable")
    for _ in range(_SWEEPS):
        if _kernel.sweep(order, graph, atoms.sizes, weights, (clusters, voxels)) == 0:
            break
    slivers = _slivers(atoms, clusters)
    kept = np.where(slivers, -1, clusters)
    settled = _kernel.settle(np.flatnonzero(slivers), graph, atoms.sizes, weights, (kept, voxels))
    clusters[slivers] = np.where(settled >= 0, settled, clusters[slivers])
    return clusters


def _members(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the atoms of every object: starts and members."""
    atom, annotator = np.nonzero(ids >= 0)
    objects = ids[atom, annotator]
    order = np.argsort(objects, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(objects))])
    return starts.astype(np.int64), atom[order].astype(np.int64)


def _slivers(atoms: Atoms, clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which atoms lie in a cluster that is less than half of every object it lies in."""
    known = np.zeros(clusters.size, bool)
    for objects in atoms.ids.T:
        seen = objects >= 0
        sizes = np.bincount(objects[seen], atoms.sizes[seen])
        pair = objects[seen] * clusters.size + clusters[seen]
        pairs, entry = np.unique(pair, return_inverse=True)
        shared = np.bincount(entry, atoms.sizes[seen])
        of_half = pairs[shared >= 0.5 * sizes[pairs // clusters.size]] % clusters.size
        known[of_half] = True
    return np.asarray(~known[clusters])
