"""Edits: laws of undo and redo, any order of doing, and what cannot be done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_edits import replay
from strategies import read_only

from neuropil.errors import InputError
from neuropil.segmentation.edits import Edit, Edits

HUGE = 2**53 + 1


@st.composite
def histories(draw: st.DrawFn) -> tuple[np.ndarray, list[Edit]]:
    """A table of at most 12 fragments, and a log that can be done on it."""
    n = draw(st.integers(2, 12))
    segments = read_only(np.array([0, *draw(st.lists(st.sampled_from([1, 2, 5, HUGE]), min_size=n, max_size=n))]))
    edits, log = Edits(segments), []
    for _ in range(draw(st.integers(0, 12))):
        op = draw(st.sampled_from(["merge", "split", "split", "undo", "redo"]))
        a, b = draw(st.lists(st.integers(1, n), min_size=2, max_size=2, unique=True))
        same = edits.segment_of(a) == edits.segment_of(b)
        edit = Edit(op)
        if op in ("merge", "split"):
            others = [one for one in edits.fragments_of(edits.segment_of(b)) if one not in (a, b)]
            some = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
            edit = Edit("split", a, b, (b, *some)) if same else Edit("merge", a, b)
        elif not (edits.standing if op == "undo" else edits.undone):
            continue
        edits.do(edit)
        log.append(edit)
    return segments, log


def table(edits: Edits, n: int) -> list[int]:
    return edits.apply(np.arange(n)).tolist()


@given(histories())
def test_a_log_gives_what_replaying_sets_gives(history: tuple[np.ndarray, list[Edit]]) -> None:
    segments, log = history
    edits = Edits.of(segments, log)
    expected = replay(segments.tolist(), [(one.op, one.a, one.b, one.away) for one in log])
    assert {k: s for k, s in enumerate(table(edits, segments.size)) if k} == expected
    for fragment, segment in expected.items():
        assert edits.segment_of(fragment) == segment
        assert edits.fragments_of(segment) == tuple(k for k, s in sorted(expected.items()) if s == segment)
    now = set(expected.values())
    assert set(edits.segments_touched()) <= now
    untouched = {k for k, s in expected.items() if s not in edits.segments_touched()}
    assert all(expected[k] == segments[k] for k in untouched)


@given(histories())
def test_undo_is_the_inverse_and_redo_its_inverse(history: tuple[np.ndarray, list[Edit]]) -> None:
    segments, log = history
    edits = Edits.of(segments, log)
    states = [table(edits, segments.size)]
    while edits.standing:
        edits.do(Edit("undo"))
        states.append(table(edits, segments.size))
    assert states[-1] == segments.tolist()
    for state in states[-2::-1]:
        edits.do(Edit("redo"))
        assert table(edits, segments.size) == state


@given(histories())
def test_what_stands_alone_gives_the_same(history: tuple[np.ndarray, list[Edit]]) -> None:
    segments, log = history
    edits = Edits.of(segments, log)
    assert table(Edits.of(segments, edits.standing), segments.size) == table(edits, segments.size)


@given(histories(), st.data())
def test_a_split_takes_a_merge_back(history: tuple[np.ndarray, list[Edit]], data: st.DataObject) -> None:
    segments, log = history
    edits = Edits.of(segments, log)
    a, b = data.draw(st.lists(st.integers(1, segments.size - 1), min_size=2, max_size=2, unique=True))
    if edits.segment_of(a) == edits.segment_of(b):
        return
    before, theirs = np.array(table(edits, segments.size)), edits.fragments_of(edits.segment_of(b))
    edits.do(Edit("merge", a, b))
    edits.do(Edit("split", a, b, theirs))
    after = np.array(table(edits, segments.size))
    np.testing.assert_array_equal(after[:, None] == after, before[:, None] == before)  # the same but for one id


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=8))
def test_segments_stand_for_fragments_where_there_are_none(pairs: list[tuple[int, int]]) -> None:
    ids = [0, 3, HUGE, 2**63, 9, 2**64 - 1, 12]
    edits, reference, log = Edits(), Edits(ids), []
    for a, b in pairs:
        if edits.segment_of(ids[a]) != edits.segment_of(ids[b]):
            log.append((a, b))
            edits.do(Edit("merge", ids[a], ids[b]))
            reference.do(Edit("merge", a, b))
    labels = read_only(np.array(ids, np.uint64))
    assert edits.apply(labels).tolist() == reference.apply(np.arange(7)).tolist()
    assert edits.apply(read_only(np.array([[77, 0]], np.uint32))).tolist() == [[77, 0]]
    for _ in log:
        edits.do(Edit("undo"))
    assert edits.apply(labels).tolist() == ids
    assert edits.fragments_of(3) == (3,)


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (Edit("undo"), "nothing to undo"),
        (Edit("redo"), "nothing to redo"),
        (Edit("merge", 1, 2), "fragments 1 and 2 are one segment already, 5"),
        (Edit("merge", 0, 2), "not background; got 0, 2"),
        (Edit("merge", 1, 5), "not background; got 1, 5"),
        (Edit("merge", 1, 6), r"fragments are 0 \.\.\. 5; got 6"),
        (Edit("split", 1, 4, (4,)), "1 is of 5, 4 of 7"),
        (Edit("split", 1, 2), r"must hold 2 and not 1, nothing twice; got \[\]"),
        (Edit("split", 1, 2, (1, 2)), r"must hold 2 and not 1, nothing twice; got \[1, 2\]"),
        (Edit("split", 1, 2, (2, 2)), "nothing twice"),
        (Edit("split", 1, 2, (2, 4)), r"fragments of segment 5 only; got \[2, 4\]"),
    ],
)
def test_what_cannot_be_done_changes_nothing(edit: Edit, rule: str) -> None:
    segments = read_only(np.array([0, 5, 5, 5, 7, 0]))
    edits = Edits(segments)
    with pytest.raises(InputError, match=rule):
        edits.do(edit)
    assert table(edits, 6) == segments.tolist()
    assert edits.standing == edits.undone == ()


def test_bad_tables_and_entries() -> None:
    with pytest.raises(InputError, match="begins with 0"):
        Edits([1, 2])
    with pytest.raises(InputError, match="op must be one of merge, split, undo, redo; got 'cut'"):
        Edit("cut")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"fragments are 0 \.\.\. 1; got 2"):
        Edits([0, 1]).apply([2])
    with pytest.raises(InputError, match="fragments must be integers; got float64"):
        Edits([0, 1]).apply([0.5])
    edits = Edits.of(None, [Edit("merge", 1, 2)])
    with pytest.raises(InputError, match="where there are fragments below"):
        edits.do(Edit("split", 1, 2, (2,)))
