"""crowd-kit's Dawid-Skene, GLAD and majority, without what the rest of it needs.

Install with `pip install --no-deps crowd-kit pandas attrs tqdm python-dateutil six`. Importing the package as a whole
would also load transformers and scikit-learn, which these three do not use; so its packages are entered without their
__init__.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from neuropil.crowd.votes import Votes

NAMES = {"dawid_skene": "DawidSkene", "glad": "GLAD", "majority": "MajorityVote"}


def installed() -> bool:
    """Tell whether crowd-kit and the little it needs are there."""
    return all(importlib.util.find_spec(name) for name in ("crowdkit", "pandas", "attr", "tqdm"))


def probability(method: str, votes: Votes, **options: Any) -> np.ndarray:
    """Return P(y=1) of each segment, all of which have votes, by crowd-kit."""
    import pandas

    home = {"majority": "majority_vote"}.get(method, method)
    made = getattr(_module(f"crowdkit.aggregation.classification.{home}"), NAMES[method])(**options)
    frame = pandas.DataFrame({"task": votes.segments, "worker": votes.users, "label": votes.values.astype(int)})
    table = made.fit_predict_proba(frame)
    return table[1].reindex(range(votes.tasks.size)).to_numpy()


def _module(name: str) -> types.ModuleType:
    spec = importlib.util.find_spec("crowdkit")
    root = Path(spec.submodule_search_locations[0])
    for package in ("aggregation", "aggregation/classification"):
        full = f"crowdkit.{package.replace('/', '.')}"
        if full not in sys.modules:
            shell = types.ModuleType(full)
            shell.__path__ = [str(root / package)]
            sys.modules[full] = shell
    return importlib.import_module(name)
