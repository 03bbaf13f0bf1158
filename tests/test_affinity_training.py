"""Affinities are learnt by the same loop: loss, average, validation, and a stop that changes nothing."""

import json
import os
import signal
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from test_training import same, weights
from tiny import tiny_stack

from neuropil.errors import InputError, RunMismatch
from neuropil.networks import training
from neuropil.networks.affinity_objective import balanced_cross_entropy, validate
from neuropil.networks.affinity_sampling import AffinitySampler, LabelledStack
from neuropil.networks.augmentation import EM_AUGMENTATION, Augmentation
from neuropil.networks.average import Average
from neuropil.networks.checkpoint import load_model, read_tensors
from neuropil.networks.recipe import Recipe
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.sampling import UNLABELLED
from neuropil.networks.training import train
from neuropil.networks.unet_architecture import UNetArchitecture
from neuropil.segmentation.affinities import NEAREST

SMALL = UNetArchitecture("small", (4, 6), offsets=(*NEAREST, (0, 0, -3)), pooling=((1, 2, 2),), ends=(1, 3, 3))
PATCH = (4, 16, 16)
RECIPE = Recipe("adamw", 0.01, schedule="cosine", grey=0.2, average=0.9, inverse_margin=0.1, validate_every=30,
                augmentation=replace(EM_AUGMENTATION, shift=2))  # fmt: skip
CLEAN = replace(RECIPE, augmentation=Augmentation(), inverse_margin=0)


@cache
def tissue(name="tissue", seed=0):
    """Bright cells with dark lines between them, and noise."""
    stack = tiny_stack(seed=seed)
    y, x = np.mgrid[: stack.image.shape[1], : stack.image.shape[2]]
    return LabelledStack(name, stack.image, np.where(stack.target == 1, 0, 1 + (y // 13) * 10 + x // 11))


def go(folder, updates, recipe=RECIPE, seed=1, architecture=SMALL):
    network = RSUNet(architecture, seed)
    sampler = AffinitySampler([tissue()], architecture, PATCH, seed, recipe.augmentation, recipe.flips, recipe.grey)
    best = train(network, sampler, folder=folder, updates=updates, recipe=recipe, validation=[tissue("v", 9)], card={})
    return network, best


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_it_learns(tmp_path):
    _, best = go(tmp_path, 60, CLEAN, architecture=replace(SMALL, norm="instance"))
    assert losses(tmp_path)[-1] < 0.7 * losses(tmp_path)[0]
    assert best.affinity_error < 0.1
    assert best.rand_error < 0.02
    card = json.loads((tmp_path / "best.json").read_text())
    assert card["scores"]["validation"]["rand_error"] == best.rand_error
    assert [tuple(one) for one in card["networks"][0]["offsets"]] == list(SMALL.offsets)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_resumed_is_bit_equal_to_uninterrupted(tmp_path, average, monkeypatch):
    recipe = replace(RECIPE, average=average, validate_every=10)
    go(tmp_path / "whole", 20, recipe)

    def stop_at_7(run, sample, step=training._Run.step):
        if run.update == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(run, sample)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "step", stop_at_7)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "parts", 20, recipe)
    tensors, state = read_tensors(tmp_path / "parts" / "resume.safetensors")
    assert state["update"] == 8
    assert any(name.startswith("average/") for name in tensors) == bool(average)
    go(tmp_path / "parts", 20, recipe)
    for name in ("last", "best", "resume"):
        assert same(weights(tmp_path / "whole", name), weights(tmp_path / "parts", name))
    with pytest.raises(RunMismatch, match=r"recipe\.average"):
        go(tmp_path / "parts", 20, replace(recipe, average=0.5))


def test_threads_draw_ahead_what_one_would_draw():
    """On a GPU several draw patches; the order stays, and nothing depends on who drew."""
    sampler = AffinitySampler([tissue()], SMALL, PATCH, 1, RECIPE.augmentation, grey=0.5)
    with training._Ahead(sampler, 5, torch.device("cuda")) as ahead:
        drawn = [ahead.take() for _ in range(20)]
    assert ahead.threads > 1 or os.cpu_count() == 1
    for index, sample in enumerate(drawn, 5):
        assert np.array_equal(sample.image, sampler(index).image)
        assert np.array_equal(sample.target, sampler(index).target)


def test_the_average_is_what_is_used(tmp_path):
    network, _ = go(tmp_path, 6, replace(RECIPE, validate_every=1000))
    used = load_model(tmp_path / "last.safetensors").networks[0].named_weights()
    assert not torch.equal(used["output.weight"], network.named_weights()["output.weight"])
    slow, average = RSUNet(SMALL, 1), Average(RSUNet(SMALL, 1), 0.9)
    expected = slow.named_weights()["output.weight"].clone()
    for update in range(1, 40):
        with torch.no_grad():
            slow.output.weight.add_(0.1)
        average.add(slow, update)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * slow.named_weights()["output.weight"]
    assert torch.allclose(average.network.output.weight, expected, atol=1e-5)


def test_the_loss_is_its_formula():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 3, 2, 4, 5))
    target = rng.choice(np.array([0, 1, 1, UNLABELLED], np.uint8), logits.shape)
    target[0, 2] = 1  # nothing to tell apart
    for balance, margin in ((True, 0.0), (True, 0.1), (False, 0.1)):
        total, count = 0.0, 0
        for c in range(3):
            known = [(t, x) for t, x in zip(target[0, c].flat, logits[0, c].flat) if t != UNLABELLED]
            ones = sum(t == 1 for t, _ in known)
            for t, x in known:
                wanted = 1 - margin if t else margin
                p = 1 / (1 + np.exp(-x))
                weight = ((len(known) - ones if t else ones) / len(known)) if balance else 1
                total -= weight * (wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
            count += len(known)
        made = balanced_cross_entropy(torch.tensor(logits), torch.tensor(target), balance=balance, margin=margin)
        assert made.item() == pytest.approx(total / count)
    nothing = torch.full((1, 1, 1, 2, 2), UNLABELLED, dtype=torch.uint8)
    assert balanced_cross_entropy(torch.zeros(nothing.shape), nothing).item() == 0


def test_validation_of_perfect_affinities_is_perfect(monkeypatch):
    stacks = [tissue(), tissue("v", 9)]
    from neuropil.networks import affinity_objective
    from neuropil.segmentation.affinities import affinities_from_labels

    perfect = iter([affinities_from_labels(stack.labels, SMALL.offsets)[0] for stack in stacks])
    monkeypatch.setattr(affinity_objective, "predict_affinities", lambda *_, **__: next(perfect))
    result = validate(RSUNet(SMALL, 1), stacks, PATCH)
    assert result.affinity_error == 0
    assert result.loss == pytest.approx(0, abs=1e-6)
    assert result.rand_error < 0.02  # but for thin pieces, apart in the volume
    far = replace(SMALL, offsets=((0, 0, -3),))
    monkeypatch.setattr(affinity_objective, "predict_affinities", lambda _, image, *__, **___: image[None] * 0 + 0.25)
    blind = validate(RSUNet(far, 1), stacks, PATCH)
    assert (blind.rand_error, blind.score) == (None, blind.loss)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_too(tmp_path, precision):
    go(tmp_path, 40, replace(CLEAN, precision=precision))
    assert losses(tmp_path)[-1] < 0.7 * losses(tmp_path)[0]


def test_bad_recipes():
    for changes, words in (
        ({"erosion": -1}, "erosion must not be negative; got -1"),
        ({"inverse_margin": 0.5}, r"inverse_margin must be in \[0, 0.5\); got 0.5"),
        ({"average": 1.0}, r"average must be in \[0, 1.0\); got 1.0"),
    ):
        with pytest.raises(InputError, match=words):
            replace(RECIPE, **changes)


def test_balance_over_stacks_is_refused(tmp_path):
    with pytest.raises(InputError, match="rebalance must be 'patch' or 'none' for affinities; got 'global'"):
        go(tmp_path, 2, replace(RECIPE, rebalance="global"))
