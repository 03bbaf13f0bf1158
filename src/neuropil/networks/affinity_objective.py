r"""What affinity networks learn: binary cross-entropy per link, each channel's classes balanced within the patch.

Links between objects are rare, so with n₊ and n₋ known links of either kind in a channel, those of 1 weigh n₋/n and
those of 0 weigh n₊/n: both kinds weigh the same in all. Unknown links weigh nothing.

Sources: Lee et al., "Superhuman accuracy on the SNEMI3D connectomics challenge", 2017; the margin is later practice of
the same group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuropil.errors import InputError
from neuropil.labels import contingency
from neuropil.machine import Precision
from neuropil.metrics.curves import best, merge_tree_curve
from neuropil.networks.affinity_sampling import UNKNOWN, AffinitySample, LabelledStack
from neuropil.networks.network import Form
from neuropil.networks.patches import predict_affinities
from neuropil.networks.planning import dtype_of
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.sampling import UNLABELLED, Rebalance
from neuropil.segmentation.affinities import NEAREST, affinities_from_labels
from neuropil.segmentation.agglomeration import agglomerate
from neuropil.segmentation.contacts import region_contacts
from neuropil.segmentation.segment import segment_affinities


@dataclass(frozen=True)
class AffinityValidation:
    """Result on the validation stacks.

    Attributes
    ----------
    rand_error : adapted Rand error of watershed and mean agglomeration at the best threshold; None without nearest
    offsets
    threshold : that threshold on the affinities
    affinity_error : share of the known links on the wrong side of 0.5
    loss : mean cross-entropy of the known links, unweighted
    """

    rand_error: float | None
    threshold: float | None
    affinity_error: float
    loss: float

    @property
    def score(self) -> float:
        """What the best network has least of."""
        return self.loss if self.rand_error is None else self.rand_error


@dataclass(frozen=True)
class AffinityObjective:
    """Affinities at the offsets of a network.

    Parameters
    ----------
    patch : z, y, x, in which stacks are predicted
    precision : of activations
    rebalance : "patch", or "none" where every known link weighs 1
    margin : affinities to learn are this far from 0 and 1

    Raises
    ------
    InputError : balance over stacks
    """

    patch: tuple[int, int, int]
    precision: Precision = "float32"
    rebalance: Rebalance = "patch"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.rebalance == "global":
            raise InputError("rebalance must be 'patch' or 'none' for affinities; got 'global'")

    def choose_forms(self, network: RSUNet, updates: int) -> tuple[Form, ...]:
        """Return no forms: the layers of a U-Net have one."""
        return ()

    def loss(self, network: RSUNet, sample: AffinitySample, forms: Sequence[Form]) -> Tensor:
        """Return the loss per link of one patch, or of a batch, in which all patches together are balanced."""
        device = next(network.parameters()).device
        image, target = torch.from_numpy(sample.image), torch.from_numpy(sample.target)
        image = image.reshape(-1, 1, *image.shape[-3:]).to(device)
        target = target.reshape(-1, *target.shape[-4:]).to(device)
        dtype = dtype_of(network, self.precision)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(image)
        return balanced_cross_entropy(logits.float(), target, balance=self.rebalance == "patch", margin=self.margin)

    def validate(self, network: RSUNet, stacks: Sequence[LabelledStack]) -> AffinityValidation:
        """Predict whole stacks and pool their links; segment them, and pool their voxels at one threshold."""
        return validate(network, stacks, self.patch, self.precision)

    def validation(self, data: Mapping[str, Any]) -> AffinityValidation:
        """Rebuild a result from its fields."""
        return AffinityValidation(**data)


def balanced_cross_entropy(logits: Tensor, target: Tensor, *, balance: bool = True, margin: float = 0.0) -> Tensor:
    r"""Return the mean over links of the weighted binary cross-entropy.

    .. math:: \frac{1}{N} \sum_{c, v} w_c(t) \, H\bigl(t + (1 - 2t) m, \sigma(x)\bigr), \quad
        w_c(1) = \frac{n_c(0)}{n_c}, \; w_c(0) = \frac{n_c(1)}{n_c}

    Parameters
    ----------
    logits : (n, c, z, y, x) float32
    target : (n, c, z, y, x) uint8: affinities 0 and 1, or UNLABELLED 255, which weighs nothing
    balance : False: all weights are 1
    margin : m

    Examples
    --------
    >>> target = torch.tensor([1, 0, 0, 0, 255], dtype=torch.uint8).view(1, 1, 1, 1, 5)
    >>> round(balanced_cross_entropy(torch.zeros(target.shape), target).item(), 4)  # log 2 · (3/4 + 3 · 1/4) / 4
    0.2599
    """
    known, one = target != UNLABELLED, target == 1
    wanted = one.float() * (1 - 2 * margin) + margin
    errors = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    count = known.sum((0, 2, 3, 4), keepdim=True).clamp(min=1)
    ones = one.sum((0, 2, 3, 4), keepdim=True) / count
    weight = torch.where(one, 1 - ones, ones) if balance else torch.ones_like(errors)
    return (errors * weight * known).sum() / count.sum()


def validate(
    network: RSUNet, stacks: Sequence[LabelledStack], patch: tuple[int, int, int], precision: Precision = "float32"
) -> AffinityValidation:
    """Score a network on whole stacks, predicted in patches (z, y, x) that overlap by half."""
    offsets = network.architecture.offsets
    nearest = [offsets.index(one) for one in NEAREST if one in offsets]
    trees = _Trees()
    wrong, errors, links = 0, 0.0, 0
    for stack in stacks:
        image = stack.statistics.apply(stack.image, slice(None))
        affinities = predict_affinities(network, image, patch, precision=precision)
        labels, unlabelled = np.where(stack.labels == UNKNOWN, 0, stack.labels), stack.labels == UNKNOWN
        for made, offset in zip(affinities, offsets):
            target, known = affinities_from_labels(labels, [offset], unlabelled=unlabelled)
            right = np.where(target[0] == 1, made, 1 - made)[known[0]]
            wrong, links = wrong + int((right <= 0.5).sum()), links + right.size
            errors -= float(np.log(np.maximum(right, 1e-7)).sum(dtype=np.float64))
        if len(nearest) == 3:
            trees.add(affinities[nearest], labels)
    error, threshold = trees.best() if len(nearest) == 3 else (None, None)
    return AffinityValidation(error, threshold, wrong / max(links, 1), errors / max(links, 1))


class _Trees:
    """Segmentations of several stacks, whose merge trees are cut at one threshold."""

    def __init__(self) -> None:
        self.fragments, self.truth = list[NDArray[np.uint64]](), list[NDArray[np.uint64]]()
        self.ends, self.scores = list[NDArray[np.uint64]](), list[NDArray[np.float32]]()
        self.count, self.objects = 0, 0

    def add(self, affinities: NDArray[np.float32], labels: NDArray[np.uint32]) -> None:
        """Segment one stack; its ids go on from those before."""
        fragments = segment_affinities(affinities, low=0.1, high=0.99, size=200, dust=0).fragments
        size = int(fragments.max())
        tree = agglomerate(region_contacts(fragments, affinities), size)
        known = labels > 0  # voxels without truth do not count
        self.fragments.append(_shifted(fragments[known], self.count))
        self.truth.append(_shifted(labels[known], self.objects))
        self.ends.append(_shifted(np.stack([tree.u, tree.v]), self.count))
        self.scores.append(np.minimum.accumulate(tree.affinity))
        self.count += size
        self.objects += int(labels.max())

    def best(self) -> tuple[float | None, float | None]:
        """Adapted Rand error at the best threshold, and that threshold; None where no voxel has truth."""
        truth = np.concatenate(self.truth)
        if not truth.size:
            return None, None
        ends, scores = np.concatenate(self.ends, axis=1), np.concatenate(self.scores)
        point = best(merge_tree_curve(contingency(np.concatenate(self.fragments), truth), ends[0], ends[1], scores))
        return 1 - point.f, point.threshold


def _shifted(ids: NDArray[Any], by: int) -> NDArray[np.uint64]:
    """Add `by` to ids other than 0."""
    return np.where(ids > 0, ids.astype(np.uint64) + np.uint64(by), np.uint64(0))
