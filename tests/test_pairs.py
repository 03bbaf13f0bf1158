"""Ids are found as by a plain search, in whatever order they are asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuropil.segmentation.pairs import find_ids

FEW = st.integers(0, 40) | st.sampled_from([2**40, 2**63, 2**64 - 1])


@given(st.sets(FEW), st.lists(FEW), st.booleans())
def test_ids_are_found_wherever_they_are(known, wanted, in_order):
    ids = np.array(sorted(known), np.uint64)
    wanted = np.array(sorted(wanted) if in_order else wanted, np.uint64)
    places = {int(one): k for k, one in enumerate(ids)}
    assert find_ids(ids, wanted).tolist() == [places.get(int(one), ids.size) for one in wanted]
