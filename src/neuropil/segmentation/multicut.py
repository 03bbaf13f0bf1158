"""Multicut: the division of a graph of fragments whose cut edges cost most, all decisions at once.

Agglomeration decides one pair at a time and never looks back. Every edge gets a cost for being cut, positive where the
affinities say "same"; the best division minimises the sum over edges between segments. Key insight: which edges are cut
follows from who belongs together, so an inconsistent cut cannot arise, and the number of objects is a result. The
problem is NP-hard; here greedy contraction is improved by exchanges (Kernighan and Lin 1970) in the library
bioimage-cpp, an optional extra.

Source: Andres et al., "Globally optimal closed-surface segmentation for connectomics", ECCV 2012; the solvers as in
Keuper et al., ICCV 2015; costs as in Beier et al., "Multicut brings automated neurite segmentation closer to human
performance", Nature Methods 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuropil._kernels.linkage import number
from neuropil.errors import InputError, MissingExtra
from neuropil.segmentation.contacts import Contacts

_LEAST = 0.001  # of a probability, so that no cost is infinite


def cut_costs(contacts: Contacts, *, threshold: float = 0.5, by_size: bool = True) -> NDArray[np.float64]:
    r"""Return what it costs to cut each contact, positive where its mean affinity p is above the threshold t.

    .. math:: w = n \left(\ln \frac{p}{1 - p} - \ln \frac{t}{1 - t}\right)

    with p within 0.001 ... 0.999, and n its number of links if `by_size`, else 1.

    Parameters
    ----------
    contacts
        Contacts of fragments.
    threshold
        t, in (0, 1); a greater one splits more.
    by_size
        Whether large contacts count for more.

    Returns
    -------
    ndarray of float64
        One cost per contact.

    Raises
    ------
    InputError
        If the threshold is out of range.

    Examples
    --------
    >>> from neuropil.segmentation.contacts import region_contacts
    >>> chain = np.zeros((3, 1, 1, 3), np.float32)
    >>> chain[2, 0, 0, 1:] = 0.75, 0.25
    >>> cut_costs(region_contacts([[[1, 2, 3]]], chain)).round(3).tolist()
    [1.099, -1.099]
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1; got {threshold}")
    p = np.clip(contacts.total / contacts.count, _LEAST, 1 - _LEAST)
    costs = np.log(p / (1 - p)) - np.log(threshold / (1 - threshold))
    return np.asarray(costs * contacts.count if by_size else costs, np.float64)


def multicut(contacts: Contacts, size: int, *, threshold: float = 0.5, by_size: bool = True) -> NDArray[np.uint64]:
    r"""Divide fragments into segments so that the edges between segments cost least in sum (see `cut_costs`).

    Parameters
    ----------
    contacts
        Contacts of fragments 1 ... `size`.
    size
        Number of fragments.
    threshold, by_size
        As for `cut_costs`.

    Returns
    -------
    ndarray of uint64
        (n + 1,) lookup, fragment -> segment 1 ... m, numbered in the order of their smallest fragments; 0 -> 0.

    Raises
    ------
    InputError
        If a contact names a fragment above `size`, or the threshold is out of range.
    MissingExtra
        If bioimage-cpp is not installed.

    Notes
    -----
    A good division, not always the best. Deterministic.
    """
    costs = cut_costs(contacts, threshold=threshold, by_size=by_size)
    largest = int(contacts.v.max()) if contacts.v.size else 0
    if largest > size:
        raise InputError(f"contacts must name fragments 1 ... {size}; got {largest}")
    try:
        from bioimage_cpp.graph import UndirectedGraph
        from bioimage_cpp.graph import multicut as solvers
    except ImportError as error:
        raise MissingExtra(
            "multicut needs bioimage-cpp, which is not installed: pip install 'neuropil[multicut]'"
        ) from error
    lookup = np.zeros(size + 1, np.uint64)
    if costs.size == 0:
        lookup[1:] = np.arange(1, size + 1)
        return lookup
    graph = UndirectedGraph(size, np.stack([contacts.u, contacts.v], 1).astype(np.uint64) - np.uint64(1), True)
    objective = solvers.MulticutObjective(graph, costs)
    chain = solvers.ChainedMulticutSolvers([solvers.GreedyAdditiveMulticut(), solvers.KernighanLinMulticut()])
    segments = np.asarray(chain.optimize(objective)).astype(np.int64)
    smallest = np.full(int(segments.max()) + 1, size)
    np.minimum.at(smallest, segments, np.arange(size))
    parents = np.concatenate([[0], smallest[segments] + 1])
    number(parents, lookup)
    return lookup
