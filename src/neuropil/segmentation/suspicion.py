"""How probable it is that a suggestion is right, and the order in which suggestions gain most.

A logistic function of a candidate's features, one for joins and one for cuts. The weights that come with neuropil were
fitted on sections 76:88 of AC4 (ssSEM) and 112:146 of FIB-25 with the packaged affinity models
(`benchmarks/suspects/run.py --fit`); on other data they give a good order, and probabilities once they are fitted to a
crop with truth (`neuropil.metrics.calibration`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.segmentation.suspects import CUT_FEATURES, JOIN_FEATURES, Suspects

Order = Literal["gain", "probability"]


@dataclass(frozen=True)
class Suspicion:
    """Weights of the features, the constant last: (9,) each."""

    join: tuple[float, ...]
    cut: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.join) != len(JOIN_FEATURES) + 1 or len(self.cut) != len(CUT_FEATURES) + 1:
            raise InputError(
                f"weights must number {len(JOIN_FEATURES) + 1} for joins and {len(CUT_FEATURES) + 1} for cuts;"
                f" got {len(self.join)} and {len(self.cut)}"
            )

    def probability(self, suspects: Suspects) -> NDArray[np.float64]:
        """Return the probability, float64 (k,), that each suggestion is right."""
        weights = np.where(suspects.cut[:, None], np.array(self.cut), np.array(self.join))
        x = (suspects.features * weights[:, :-1]).sum(1) + weights[:, -1]
        return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))


# In the order of JOIN_FEATURES and CUT_FEATURES, then the constant.
DEFAULT = Suspicion(
    join=(1.0, 2.9, -1.1, 2.4, 2.5, 1.2, 0.0, -0.2, -0.3),
    cut=(-1.0, 0.5, 0.2, -0.3, 3.4, 1.1, -1.3, -0.7, -0.3),
)


def ranked(
    suspects: Suspects, probability: NDArray[np.float64], *, order: Order = "gain", alike: float = 0.7
) -> NDArray[np.intp]:
    """Return the order in which to look at suggestions.

    Of cuts that part a segment in nearly the same way only the first stays: it may be one edge or the next at which
    an object ends, and whoever looks at one has seen the other.

    Parameters
    ----------
    suspects
        Candidates.
    probability
        float64 (k,), that each is right.
    order
        "gain": by probability times what is gained if right; "probability": by that alone.
    alike
        Share of the smaller side above which two cuts are the same, in (0, 1]; 1 keeps all.

    Examples
    --------
    >>> two, none = np.ones((2, 2), int), np.zeros((2, 2), int)
    >>> joins = Suspects(np.zeros(2, bool), two[0], two[1], two, np.zeros((2, 8)), np.array([0.1, 0.2]),
    ...     np.zeros((2, 3)), two, none)
    >>> ranked(joins, np.array([0.9, 0.3])).tolist()
    [0, 1]
    """
    worth = probability * suspects.gain if order == "gain" else probability
    kept: list[int] = []
    by_segment: dict[int, list[int]] = {}
    for k in np.argsort(-worth, kind="stable").tolist():
        if suspects.cut[k]:
            others = by_segment.setdefault(int(suspects.segments[k, 0]), [])
            if others and (_alike(suspects, k, np.array(others)) > alike).any():
                continue
            others.append(k)
        kept.append(k)
    return np.array(kept, np.intp)


def _alike(suspects: Suspects, k: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how much two cuts of one segment are the same.

    Two edges leave three parts of a tree: it is the smaller outer part over that and the middle one.
    """
    start, stop = suspects.span[k]
    starts, stops = suspects.span[others].T
    mine, whole = suspects.sizes[k, 0], suspects.sizes[k].sum()
    theirs = suspects.sizes[others, 0]
    nested = ((start <= starts) & (stops <= stop)) | ((starts <= start) & (stop <= stops))
    inner, outer = np.minimum(mine, theirs), np.maximum(mine, theirs)
    ends = np.where(nested, np.minimum(inner, whole - outer), inner)
    between = np.where(nested, outer - inner, whole - mine - theirs)
    return np.asarray(ends / np.maximum(ends + np.maximum(between, 0), 1))
