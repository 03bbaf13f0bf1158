"""Contacts of fragments and their agglomeration by mean, maximum and quantile."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference_agglomeration as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from strategies import affinities, ids, labels, read_only

from neuropil.errors import InputError
from neuropil.labels import apply_lookup, contingency, relabel
from neuropil.segmentation import merging
from neuropil.segmentation.affinities import NEAREST, Affinities
from neuropil.segmentation.affinity_moves import clear_leaving
from neuropil.segmentation.agglomeration import agglomerate
from neuropil.segmentation.agglomeration_parts import Merges, PartEdges, agglomerate_part
from neuropil.segmentation.contacts import STEPS, Contacts, region_contacts
from neuropil.segmentation.decoding import Decoder, decode
from neuropil.segmentation.linkage import cut
from neuropil.segmentation.merging import NO_HISTOGRAMS, Merging, edge_rows
from neuropil.segmentation.watershed import watershed

quick = settings(max_examples=50, deadline=None)
QUANTILES = (0.1, 0.5, 0.75, 0.85, 1.0)


def smooth(n, seed, sigma=1.5):
    rng = np.random.default_rng(seed)
    links = np.stack([ndimage.gaussian_filter(rng.random((n, n, n)), sigma) for _ in range(3)])
    return ((links - links.min()) / np.ptp(links)).astype(np.float32)


def histogram(contacts: Contacts, k: int) -> dict[int, int]:
    inside = slice(contacts.starts[k], contacts.starts[k + 1])
    return dict(zip(contacts.bins[inside].tolist(), contacts.bin_counts[inside].tolist(), strict=True))


def assert_equal(a: Contacts, b: Contacts) -> None:
    for name, value in vars(a).items():
        np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
        assert value.dtype == getattr(b, name).dtype


def same_partition(a, b) -> bool:
    table = contingency(a, b)
    return table.counts.size == table.proposal_ids.size == table.truth_ids.size


@quick
@given(st.data(), affinities(levels=8), st.booleans())
def test_contacts_equal_reference(data, links, as_bytes):
    fragments = data.draw(labels(links.shape[1:], ids))
    links = read_only(np.round(links * 255).astype(np.uint8)) if as_bytes else links
    contacts = region_contacts(fragments, links, histograms=True)
    expected = reference.contacts(fragments, links)
    assert list(zip(contacts.u.tolist(), contacts.v.tolist(), strict=True)) == sorted(expected)
    for k, pair in enumerate(sorted(expected)):
        values = np.array(expected[pair])
        np.testing.assert_allclose(contacts.total[k], values.sum() / (255 if as_bytes else 1), rtol=1e-12, atol=2e-6)
        if as_bytes:
            assert contacts.steps[k] * 255 == values.astype(int).sum() * STEPS
        assert contacts.count[k] == values.size
        assert contacts.largest[k] == np.float32(values.max()) / np.float32(255 if as_bytes else 1)
        binned = values.tolist() if as_bytes else reference.bins_of(values)
        assert histogram(contacts, k) == {b: binned.count(b) for b in sorted(set(binned))}


def test_bytes_are_whole_steps():
    """Whether they come as bytes or as float32; so are multiples of 2**-16."""
    assert STEPS == reference.STEPS
    for value in range(256):
        line = np.zeros((3, 1, 1, 2), np.uint8)
        line[2, 0, 0, 1] = value
        for links in (line, line / np.float32(255)):
            assert region_contacts([[[1, 2]]], links).steps.tolist() == [value * STEPS // 255]
    line = np.zeros((3, 1, 1, 2), np.float32)
    line[2, 0, 0, 1] = 12345 / 2**16
    assert region_contacts([[[1, 2]]], line).total.tolist() == [12345 / 2**16]


def test_threads_and_ranges_of_ids_change_nothing():
    rng = np.random.default_rng(0)
    links = rng.random((3, 48, 40, 40), dtype=np.float32)
    fragments = rng.integers(0, 5000, (48, 40, 40)).astype(np.uint64)  # more contacts than are held at once
    one = region_contacts(fragments, links, histograms=True)
    assert one.count.sum() > fragments.size
    expected = reference.contacts(fragments, links)
    assert dict(zip(zip(one.u.tolist(), one.v.tolist()), one.count.tolist())) == {
        p: len(x) for p, x in expected.items()
    }
    for threads in (2, 3, 100):
        found = region_contacts(fragments, links, histograms=True, threads=threads)
        assert_equal(one, found)
        assert found.total.base is None  # room that was not needed has been given back


@pytest.mark.parametrize(("few", "span"), [(0, 1), (0, 5), (3, 2), (128, 1 << 16)])
def test_agglomeration_equals_reference(few, span, monkeypatch):
    work_in(monkeypatch, few, span)
    check_agglomeration()


def work_in(monkeypatch, few: int, span: int, reach: int = 1024) -> None:
    """Have all, some or nothing go by the queue, in ranges of few entries or in one; all arrays begin too short.

    Chains of what merges first are given up when they leave the next `reach` visits.
    """
    for name, value in {"_FEW": few, "_RANGE": span, "_REACH": reach, "_HALVES": 2, "_SPARE": 1}.items():
        monkeypatch.setattr(merging, name, value)


@pytest.mark.parametrize("levels", [3, 255])
def test_order_of_work_changes_nothing(levels, monkeypatch):
    """Sums of whole numbers are exact, so that what is merged first changes no bit, ties included."""
    links = np.round(smooth(24, 5, 1.0) * levels).astype(np.uint8) * (255 // levels)
    contacts = region_contacts(watershed(links, low=0.1, high=0.99), links)
    edges = PartEdges.of(contacts.u, contacts.v, contacts.steps, contacts.count)
    expected = Merges.joined([agglomerate_part(edges, []).merges])
    assert expected.u.size > 100
    for few, span, reach in [(0, 1 << 16, 1), (0, 40, 1), (20, 7, 3), (512, 100, 1), (512, 100, 20)]:
        work_in(monkeypatch, few, span, reach)
        found = Merges.joined([agglomerate_part(edges, []).merges])
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize(("few", "span", "reach"), [(0, 5, 1), (3, 2, 2), (512, 1 << 16, 1), (512, 1 << 16, 64)])
def test_any_parts_give_the_same_merges(few, span, reach, monkeypatch):
    """Whichever part a cluster is put in, by the place of its fragment or not; with ties and frozen clusters, too."""
    work_in(monkeypatch, few, span, reach)
    check_parts()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.sampled_from([2, 5, 1000]), st.integers(0, 2**32 - 1))
def check_parts(size, parts, levels, seed):
    rng = np.random.default_rng(seed)
    u, v = np.nonzero(np.triu(rng.random((size + 1, size + 1)) < rng.random(), 1))
    u, v = u[u > 0], v[u > 0]
    count = rng.integers(1, 4, u.size)
    total = rng.integers(0, levels, u.size) * count
    frozen = rng.random(size + 1) < rng.choice([0, 0.1])
    part = rng.integers(0, parts, size + 1)
    order = rng.permutation(np.arange(1, size + 1))
    places = [order[part[order] == k].astype(np.uint32) for k in range(parts)]
    found = [
        Merging(edge_rows(u, v, total, count), NO_HISTOGRAMS, 1.0, threads=threads).run(frozen.copy(), given)
        for given, threads in (((), 1), (places, 1), (places, 2))
    ]
    expected, *others = [[field[np.argsort(merged.entry)] for field in merged[:3]] for merged in found]
    for other, merged in zip(others, found[1:], strict=True):
        for one, two in zip(expected, other, strict=True):
            np.testing.assert_array_equal(one, two)
        assert np.array_equal(merged.left, found[0].left)
        np.testing.assert_array_equal(merged.rows[:, :2], found[0].rows[:, :2])
        ends = [np.sort(one.rows.view(np.uint32)[:, 6:]) for one in (merged, found[0])]
        np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("levels", [3, 255])
@pytest.mark.parametrize("score", ["mean", "quantile"])
def test_threads_change_no_tree(levels, score, monkeypatch):
    """Nor does it whether many clusters count as large, which small ones of all parts merge into before their turn."""
    links = np.round(smooth(32, 5, 1.0) * levels).astype(np.uint8) * (255 // levels)
    fragments = watershed(links, low=0.1, high=0.99, dtype=np.uint32)
    size = int(fragments.max())
    order = np.append(0, np.random.default_rng(0).permutation(size) + 1).astype(np.uint32)
    for numbered in (fragments, order[fragments]):  # in raster order, and such that few places are known
        contacts = region_contacts(numbered, links, histograms=True)
        one, *others = (agglomerate(contacts, size, score=score, threads=threads) for threads in (1, 2, 5))
        nowhere = replace(contacts, places=contacts.places[:0])
        others.append(agglomerate(nowhere, size, score=score, threads=2))
        with monkeypatch.context() as patch:
            patch.setattr(merging, "_FEW", 10)
            others += [agglomerate(contacts, size, score=score, threads=threads) for threads in (1, 2, 5)]
        for tree in others:
            for name in ("u", "v", "affinity"):
                np.testing.assert_array_equal(getattr(one, name), getattr(tree, name))


def test_contacts_of_sections_that_are_gathered_in_strips():
    rng = np.random.default_rng(0)
    fragments = np.kron(rng.integers(0, 400, (2, 10, 512)), np.ones((2, 4, 8), np.int64))
    links = read_only(rng.integers(0, 256, (3, *fragments.shape), dtype=np.uint8))
    found: dict[int, list[int]] = {}
    for axis in range(3):
        here, back = np.moveaxis(fragments, axis, 0)[1:].ravel(), np.moveaxis(fragments, axis, 0)[:-1].ravel()
        values = np.moveaxis(links[axis], axis, 0)[1:].ravel()
        touch = (here != back) & (here > 0) & (back > 0)
        keys = (np.minimum(here, back) * 1000 + np.maximum(here, back))[touch]
        for key, value in zip(keys.tolist(), values[touch].tolist()):
            found.setdefault(key, []).append(value)
    for threads in (1, 3):
        contacts = region_contacts(fragments, links, threads=threads)
        assert (contacts.u * 1000 + contacts.v).tolist() == sorted(found)
        assert contacts.count.tolist() == [len(found[key]) for key in sorted(found)]
        np.testing.assert_array_equal(contacts.total, [sum(found[key]) / 255 for key in sorted(found)])


def test_places_are_those_of_first_voxels():
    links = smooth(20, 1)
    fragments = watershed(links, low=0.1, high=0.9)
    _, first = np.unique(np.append(0, fragments), return_index=True)
    expected = np.stack(np.unravel_index(first[1:] - 1, fragments.shape), 1)
    for threads in (1, 2, 3):
        contacts = region_contacts(fragments, links, threads=threads)
        np.testing.assert_array_equal(contacts.places[1:], expected)
        assert_equal(contacts, region_contacts(fragments.astype(np.uint32), links, threads=threads))
    far = region_contacts(np.where(fragments > 0, fragments + np.uint64(2**40), 0), links)
    assert far.places.shape == (0, 3)
    np.testing.assert_array_equal(far.u, contacts.u + np.uint64(2**40))


@quick
@given(st.data(), affinities(levels=8), st.sampled_from(["mean", "max", *QUANTILES]), st.sampled_from(["all", "max"]))
def check_agglomeration(data, links, score, start):
    fragments = relabel(data.draw(labels(links.shape[1:], st.integers(0, 12)))).labels
    links = read_only((np.round(links * 2**12) / 2**12).astype(np.float32))  # sums are exact in any order
    contacts = region_contacts(fragments, links, histograms=True)
    found = reference.contacts(fragments, links)
    size = int(fragments.max())
    if isinstance(score, float):
        binned = {p: reference.bins_of(values) for p, values in found.items()}
        if start == "max":
            binned = {p: [max(values)] for p, values in binned.items()}
        merges, _ = reference.agglomerate(binned, reference.quantile(score))
        tree = agglomerate(contacts, size, score="quantile", quantile=score, start=start)
    else:
        merges, _ = reference.agglomerate(found, reference.mean if score == "mean" else max)
        tree = agglomerate(contacts, size, score=score)
    if score != "max":
        assert list(zip(tree.u.tolist(), tree.v.tolist(), tree.affinity.tolist(), strict=True)) == merges
    assert tree.affinity.tolist() == [a for _, _, a in merges]
    for threshold in (0.0, 0.25, 0.5, 0.51):
        assert same_partition(cut(tree, threshold), cut_merges(merges, size, threshold))


def cut_merges(merges, size, threshold):
    lookup = np.arange(size + 1)
    for a, b, score in merges:
        if score >= threshold:
            lookup[lookup == lookup[b]] = lookup[a]
    return lookup.astype(np.uint64)


@pytest.mark.parametrize("score", ["mean", "quantile"])
def test_least_only_stops_early(score):
    links = smooth(20, 0)
    fragments = watershed(links, low=0.1, high=0.9)
    contacts = region_contacts(fragments, links, histograms=True)
    size = int(fragments.max())
    whole, part = (agglomerate(contacts, size, score=score, least=least) for least in (0.0, 0.5))
    assert whole.affinity.size == size - 1
    assert np.all(np.diff(whole.affinity) <= 0)
    kept = whole.affinity >= 0.5
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(part.affinity, whole.affinity[kept])
    np.testing.assert_array_equal(part.u, whole.u[kept])


@pytest.mark.parametrize("seed", range(3))
def test_means_agree_with_waterz(seed, capfd):
    waterz = pytest.importorskip("waterz")
    links = smooth(40, seed)
    fragments = watershed(links, low=0.1, high=0.9)
    tree = agglomerate(region_contacts(fragments, links), int(fragments.max()))
    thresholds = [0.3, 0.4, 0.5, 0.6]
    for t, peer in zip(thresholds, waterz.agglomerate(links, thresholds, fragments=fragments.copy())):
        assert same_partition(apply_lookup(fragments, cut(tree, 1 - t)), peer)
    capfd.readouterr()


@pytest.mark.parametrize("start", ["all", "max"])
@pytest.mark.parametrize("percent", [50, 75])
def test_quantiles_agree_with_waterz_where_nothing_ties(percent, start, capfd):
    waterz = pytest.importorskip("waterz")
    begin = "true" if start == "max" else "false"
    name = f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {percent}, ScoreValue, 256, {begin}>>"
    compared = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        links = rng.random((3, 3, 3, 4), dtype=np.float32)
        fragments = rng.integers(1, 8, (3, 3, 4)).astype(np.uint64)
        binned = {p: reference.bins_of(x) for p, x in reference.contacts(fragments, links).items()}
        if start == "max":
            binned = {p: [max(x)] for p, x in binned.items()}
        _, tied = reference.agglomerate(binned, reference.quantile(percent / 100))
        if tied:
            continue
        compared += 1
        contacts = region_contacts(fragments, links, histograms=True)
        tree = agglomerate(contacts, 7, score="quantile", quantile=percent / 100, start=start)
        thresholds = [0.2, 0.4, 0.6, 0.8]
        peers = waterz.agglomerate(links, thresholds, fragments=fragments.copy(), scoring_function=name)
        for t, peer in zip(thresholds, peers):
            assert same_partition(apply_lookup(fragments, cut(tree, 1 - t)), peer)
    capfd.readouterr()
    assert compared >= 5


def test_contract_adds_up():
    links = smooth(12, 4)
    fragments = watershed(links, low=0.1, high=0.9)
    lookup = np.arange(int(fragments.max()) + 1, dtype=np.uint64) // 3
    fine = region_contacts(fragments, links, histograms=True).contract(lookup)
    coarse = region_contacts(apply_lookup(fragments, lookup), links, histograms=True)
    np.testing.assert_allclose(fine.total, coarse.total, rtol=1e-12)
    for name in ("u", "v", "count", "largest", "starts", "bins", "bin_counts"):
        np.testing.assert_array_equal(getattr(fine, name), getattr(coarse, name))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_constant_volumes(shape, value, dtype):
    links = np.full((3, *shape), value * (255 if dtype == np.uint8 else 1), dtype)
    fragments = watershed(links, low=0.1, high=0.9)
    assert set(fragments.ravel().tolist()) == ({0} if value == 0 or shape == (1, 1, 1) else {1})
    own = np.arange(1, fragments.size + 1, dtype=np.uint64).reshape(shape)  # ties everywhere
    contacts = region_contacts(own, links, histograms=True)
    for score in ("mean", "max", "quantile"):
        tree = agglomerate(contacts, own.size, score=score)
        assert tree.affinity.size == own.size - 1
        assert np.ptp(tree.affinity) == 0 if tree.affinity.size else True
        assert cut(tree, 0).tolist() == [0] + [1] * own.size


@pytest.mark.parametrize("method", ["watershed", "size", "mean", "quantile", "mutex", "multicut"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_every_decoder_takes_constant_volumes(method, dtype):
    if method == "multicut":
        pytest.importorskip("bioimage_cpp")
    offsets = (*NEAREST, (0, 0, -2))
    for shape, value in product([(1, 1, 1), (1, 1, 3), (3, 4, 5)], [0, 0.5, 1]):
        values = np.full((4, *shape), value * (255 if dtype == np.uint8 else 1), dtype)
        clear_leaving(values, offsets)
        labels = decode(Affinities(values, offsets), Decoder(method=method, dust=0, merge_threshold=0.3)).segmentation
        assert labels.shape == shape
        expected = {0} if value == 0 or shape == (1, 1, 1) else {1}
        if method != "mutex" or value != 0.5:  # where near and far links weigh the same, ties decide
            assert set(labels.ravel().tolist()) == expected
        else:
            assert labels.min() > 0 or shape == (1, 1, 1)


def test_bad_input_is_one_sentence():
    links = np.zeros((3, 1, 1, 2), np.float32)
    contacts = region_contacts([[[1, 2]]], links)
    with pytest.raises(InputError, match="contacts must have histograms"):
        agglomerate(contacts, 2, score="quantile")
    with pytest.raises(InputError, match=r"fragments 1 \.\.\. 1; got 2"):
        agglomerate(contacts, 1)
    with pytest.raises(InputError, match="got 'median'"):
        agglomerate(contacts, 2, score="median")
    with pytest.raises(InputError, match=r"quantile and least must lie in \[0, 1\]; got 85"):
        agglomerate(contacts, 2, score="quantile", quantile=85)
    with pytest.raises(InputError, match="threads must be at least 1; got 0"):
        region_contacts([[[1, 2]]], links, threads=0)
    with pytest.raises(InputError, match="threads must be at least 1; got 0"):
        agglomerate(contacts, 2, threads=0)
    with pytest.raises(InputError, match="without NaN; got nan"):
        region_contacts([[[1, 2]]], links + np.nan)
    with pytest.raises(InputError, match=r"shape \(1, 1, 2\); got float64"):
        region_contacts([[[1.0, 2.0]]], links)
