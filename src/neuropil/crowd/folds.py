"""Honest scores: every segment is judged by a model that has not seen its truth, nor that of its task.

Segments of one task share players, place and difficulty, so folds of segments let a model learn about the very
tasks it is tested on. Folds of tasks do not; both are offered since the difference is a finding. Neither helps where
truth was made of these votes: `circularity` finds that out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neuropil.crowd.dawid_skene import dawid_skene
from neuropil.crowd.fusion import Fusion, Method, fuse_votes
from neuropil.crowd.thresholds import Rule, share_of_votes, share_threshold
from neuropil.crowd.votes import Votes
from neuropil.errors import InputError

By = Literal["task", "segment"]
_SUSPICIOUS = 0.995  # agreement of truth with a rule on votes
_SURPRISE = 4.0  # standard deviations above the agreement that independent truth would show


@dataclass(frozen=True)
class HeldOut:
    """What models said of segments that were held out.

    Attributes
    ----------
    probability
        float64 (s,); nan where nobody voted whom the model knows, or truth is not known.
    threshold
        float64 (s,), that of the model which judged the segment.
    """

    probability: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def selected(self) -> NDArray[np.bool_]:
        """Decisions, bool (s,)."""
        return np.asarray(np.nan_to_num(self.probability, nan=-1) >= self.threshold)


def cross_validate(
    votes: Votes,
    method: Method = "dawid_skene",
    *,
    folds: int = 5,
    by: By = "task",
    tune: bool = False,
    rng: np.random.Generator,
) -> HeldOut:
    """Judge each segment of known truth by a model that was made without that truth.

    Parameters
    ----------
    votes
        Votes with truth. Methods that use votes without truth see those of the fold too, as they would in practice.
    method, tune
        As for `neuropil.crowd.fusion.fuse_votes`; thresholds are tuned on the other folds.
    folds
        Number of parts, >= 2.
    by
        Whether a part is made of whole tasks, or of segments.
    rng
        For the division.

    Returns
    -------
    HeldOut

    Raises
    ------
    InputError
        If `by` is unknown, or there are fewer labelled tasks (segments) than folds.

    Examples
    --------
    >>> votes = Votes.of([0, 1] * 8, np.repeat(np.arange(8), 2), [1, 1, 0, 0] * 4, tasks=range(8), truth=[1, 0] * 4)
    >>> cross_validate(votes, folds=4, rng=np.random.default_rng(0)).selected.tolist() == [True, False] * 4
    True
    """
    fold = _folds(votes, folds, by, rng)
    probability, threshold = np.full(votes.tasks.size, np.nan), np.full(votes.tasks.size, 0.5)
    for k in range(folds):
        here = fold == k
        model: Fusion = fuse_votes(votes.hide(here), method, tune=tune)
        probability[here], threshold[here] = model.probability[here], model.threshold
    return HeldOut(probability, threshold)


def _folds(votes: Votes, folds: int, by: By, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each segment; -1 where truth is not known."""
    if by not in get_args(By):
        raise InputError(f"by must be one of {', '.join(get_args(By))}; got {by!r}")
    units = votes.tasks if by == "task" else np.arange(votes.tasks.size)
    ids, dense = np.unique(units[votes.labelled], return_inverse=True)
    if folds < 2 or ids.size < folds:
        raise InputError(f"there must be at least 2 folds and a labelled {by} for each; got {folds} and {ids.size}")
    part = np.arange(ids.size) % folds
    rng.shuffle(part)
    fold = np.full(votes.tasks.size, -1)
    fold[votes.labelled] = part[dense]
    return fold


@dataclass(frozen=True)
class Circularity:
    """Whether truth looks as if it were made of these votes.

    Attributes
    ----------
    rule
        The rule on votes that agrees best with truth.
    agreement
        Share of labelled segments on which they agree.
    expected
        The share that truth independent of the votes would lead to.
    circular
        True if nearly all agree, and far more than expected: scores then measure nothing.
    """

    rule: Rule
    agreement: float
    expected: float
    circular: bool


def circularity(votes: Votes) -> Circularity:
    """Compare truth with simple rules on the votes.

    Dawid and Skene's model, which does not see truth, says how sure each segment is; so it is known how often an
    independent truth would differ from the consensus.

    Parameters
    ----------
    votes
        Votes with truth.

    Returns
    -------
    Circularity

    Raises
    ------
    InputError
        If no voted segment has truth.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = rng.random((300, 3)) < np.where(rng.random(300) < 0.4, 0.8, 0.2)[:, None]
    >>> segments, users = np.indices(values.shape).reshape(2, -1)
    >>> truth = values.sum(axis=1) > 1
    >>> circularity(Votes.of(users, segments, values.ravel(), tasks=[0] * 300, truth=truth)).circular
    True
    """
    judged = votes.labelled & (votes.counts > 0)
    if not judged.any():
        raise InputError("votes must have truth for some voted segments; none has")
    belief = dawid_skene(votes.hide(np.ones(judged.size, bool))).probability[judged]
    share, counts, truth = share_of_votes(votes)[judged], votes.counts[judged], votes.truth[judged]
    chosen: dict[Rule, NDArray[np.bool_]] = {rule: share >= share_threshold(counts, rule) for rule in get_args(Rule)}
    agreements = {rule: float(np.mean(decision == truth)) for rule, decision in chosen.items()}
    rule = max(agreements, key=lambda one: agreements[one])
    agreement, chance = agreements[rule], np.where(chosen[rule], belief, 1 - belief)
    error = float(np.sqrt(max((chance * (1 - chance)).sum(), 1e-12))) / truth.size
    surprise = (agreement - float(chance.mean())) / error
    circular = agreement >= _SUSPICIOUS and surprise > _SURPRISE
    return Circularity(rule, agreement, float(chance.mean()), circular)
