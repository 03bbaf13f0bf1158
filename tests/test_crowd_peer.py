"""crowd-kit as oracle, where it is installed: the same votes, nearly the same answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuropil.crowd.dawid_skene import dawid_skene
from neuropil.crowd.fusion import fuse_votes
from neuropil.crowd.simulate import Crowd, simulate_votes
from neuropil.crowd.thresholds import share_of_votes

FILE = Path(__file__).parent.parent / "benchmarks/crowd/peer.py"


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crowd_peer", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.installed():
        pytest.skip("crowd-kit is not installed; benchmarks/crowd/peer.py tells how")
    return module


@pytest.mark.filterwarnings("ignore")
def test_dawid_skene_and_majority_agree_with_crowd_kit(peer: ModuleType) -> None:
    """Majority to the last digit; Dawid-Skene, which is not smoothed there, in all but a few uncertain segments."""
    made = simulate_votes(Crowd(activity=0), tasks=100, players=7, rng=np.random.default_rng(1))
    votes = made.votes.hide(np.ones(2000, bool))
    np.testing.assert_allclose(peer.probability("majority", votes), share_of_votes(votes))
    theirs = peer.probability("dawid_skene", votes)
    for smoothing in ("fixed", "crowd"):
        ours = dawid_skene(votes, smoothing=smoothing).probability
        assert np.mean((ours >= 0.5) == (theirs >= 0.5)) > 0.995
        assert np.mean(np.abs(ours - theirs)) < 0.01


@pytest.mark.filterwarnings("ignore")
def test_glad_agrees_with_crowd_kit(peer: ModuleType) -> None:
    """Where sensitivity and specificity are alike, which is all that crowd-kit's model knows; who is better is for the
    benchmark to say."""
    crowd = Crowd(sensitivity=0.85, specificity=0.85, spammers=0, spread=0.05, activity=0, users=40)
    made = simulate_votes(crowd, tasks=30, players=7, prior=0.5, difficulty=0.5, rng=np.random.default_rng(2))
    votes = made.votes.hide(np.ones(600, bool))
    theirs = peer.probability("glad", votes, n_iter=20, silent=True) >= 0.5
    assert np.mean(fuse_votes(votes, "glad").selected == theirs) > 0.97
