import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, TINY_RECURSIVE, tiny_stack

from neuropil.errors import InputError, RunMismatch, VolumeError, VolumeNotFound
from neuropil.networks import boundary_objective, training
from neuropil.networks.checkpoint import Model, load_model, read_tensors, save_model, write_tensors
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.recipe import Recipe
from neuropil.networks.sampling import Sampler
from neuropil.networks.training import train

SGD = Recipe(validate_every=30, checkpoint_seconds=0.3)
EVERY = replace(SGD, checkpoint_seconds=0)  # a checkpoint after every update
MUON = Recipe(optimizer="muon", learning_rate=0.01, schedule="cosine", validate_every=30)
ADAM = Recipe(optimizer="adamw", learning_rate=0.003, schedule="cosine", validate_every=30, grey=0.3)


def go(folder, updates, recipe=SGD, seed=1, architecture=TINY, validation=True):
    network = DenseNetwork(architecture, seed)
    stack = tiny_stack(maps=architecture is TINY_RECURSIVE)
    sampler = Sampler([stack], architecture, (1, 16, 16), seed, recipe.rebalance, recipe.flips, recipe.grey)
    held_out = [tiny_stack("held out", seed=9, maps=architecture is TINY_RECURSIVE)] if validation else []
    best = train(network, sampler, folder=folder, updates=updates, recipe=recipe, validation=held_out, card={"x": 1})
    return network, best


def weights(folder, name="last"):
    return read_tensors(folder / f"{name}.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("recipe", [SGD, ADAM, MUON])
def test_it_learns(tmp_path, recipe):
    _, best = go(tmp_path, 120, replace(recipe, learning_rate=0.05 if recipe is SGD else 0.01))
    share = tiny_stack().target.mean()
    assert best.pixel_error < 0.35 * share
    assert json.loads((tmp_path / "best.json").read_text())["scores"]["validation"]["pixel_error"] == best.pixel_error


@pytest.mark.parametrize("recipe", [SGD, ADAM, MUON, replace(ADAM, average=0.9)])
def test_resumed_is_bit_equal_to_uninterrupted(tmp_path, recipe, monkeypatch):
    go(tmp_path / "whole", 40, recipe)

    def stop_at_17(run, sample, step=training._Run.step):
        if run.update == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return step(run, sample)

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "step", stop_at_17)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "parts", 40, recipe)
    assert read_tensors(tmp_path / "parts" / "resume.safetensors")[1]["update"] == 18
    go(tmp_path / "parts", 40, recipe)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert same(weights(tmp_path / "whole", "best"), weights(tmp_path / "parts", "best"))
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    updates = [line["update"] for line in lines if "loss" in line]
    assert updates == sorted(set(updates))
    assert updates[-1] == 40


def test_a_lattice_is_learnt_from_as_well(tmp_path):
    network, sampler = DenseNetwork(TINY, 1), Sampler([tiny_stack()], TINY, (1, 24, 24), 1, spacing=4)
    assert sampler(0).target.shape == sampler(0).weight.shape == sampler.labelled == (1, 6, 6)
    dense = replace(sampler, spacing=1)
    assert np.array_equal(sampler(3).target, dense(3).target[:, ::4, ::4])
    recipe = replace(MUON, validate_every=120)
    best = train(
        network, sampler, folder=tmp_path, updates=120, recipe=recipe, validation=[tiny_stack("x", seed=9)], card={}
    )
    assert best.pixel_error < 0.35 * tiny_stack().target.mean()
    with pytest.raises(RunMismatch, match="spacing = 4, now 1"):
        train(network, dense, folder=tmp_path, updates=120, recipe=recipe, card={})


def test_extending_a_constant_schedule_is_going_on(tmp_path):
    go(tmp_path / "whole", 30)
    go(tmp_path / "parts", 20)
    go(tmp_path / "parts", 30)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_training import EVERY, go
from pathlib import Path
go(Path({folder!r}), 150, EVERY)
"""


def test_kill_9_loses_nothing(tmp_path):
    go(tmp_path / "whole", 150)
    program = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", program])
    resume = tmp_path / "killed" / "resume.safetensors"
    while not resume.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "finished before it was killed"
    assert 0 < read_tensors(resume)[1]["update"] < 150
    subprocess.run([sys.executable, "-c", program], check=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_other_parameters_are_refused_by_name(tmp_path):
    go(tmp_path, 5)
    with pytest.raises(RunMismatch, match=r"recipe\.learning_rate = 0.01, now 0.02"):
        go(tmp_path, 10, replace(SGD, learning_rate=0.02))
    with pytest.raises(RunMismatch, match="seed = 1, now 2"):
        go(tmp_path, 10, seed=2)


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its recipe lacks what came later, which then has no part in it."""
    go(tmp_path / "whole", 30)
    go(tmp_path / "parts", 20)
    resume = tmp_path / "parts" / "resume.safetensors"
    tensors, state = read_tensors(resume)
    for later in ("augmentation", "erosion", "inverse_margin", "average"):
        del state["parameters"]["recipe"][later]
    write_tensors(resume, tensors, state)
    go(tmp_path / "parts", 30)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_diverging_run_says_so(tmp_path):
    with pytest.raises(InputError, match=r"lower recipe\.learning_rate"):
        go(tmp_path, 200, replace(SGD, learning_rate=1e6))


def test_the_papers_step():
    # v = μv - (η/|patch|) g; w += v, with the summed, weighted loss
    sampler = Sampler([tiny_stack()], TINY, (1, 16, 16), 1)

    network = DenseNetwork(replace(TINY, lines=tuple(line for line in TINY.lines if "dropout" not in line)), 1)
    twin = DenseNetwork(network.architecture, 1)
    run = training._Run(network, sampler, Path("unused"), 3, Recipe(), {})
    velocity = [torch.zeros_like(p) for p in twin.parameters()]
    for index in range(3):
        sample = sampler(index)
        run.step(sample)
        probability = torch.softmax(twin([torch.from_numpy(sample.inputs[0])[None, None]])[0], 0)
        picked = torch.where(torch.from_numpy(sample.target == 1), probability[1], probability[0])
        summed = -(torch.from_numpy(sample.weight) * picked.log()).sum()
        gradients = torch.autograd.grad(summed, list(twin.parameters()))
        with torch.no_grad():
            for p, v, g in zip(twin.parameters(), velocity, gradients):
                v.mul_(0.9).sub_(0.01 / sample.target.size * g)
                p.add_(v)
    for mine, theirs in zip(network.parameters(), twin.parameters()):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_recursive_network_uses_its_map(tmp_path):
    _, best = go(tmp_path, 60, replace(SGD, learning_rate=0.05), architecture=TINY_RECURSIVE)
    assert best.pixel_error < 0.03  # the map gives the answer away


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_too(tmp_path, precision):
    _, best = go(tmp_path, 60, replace(ADAM, precision=precision, learning_rate=0.01))
    assert best.pixel_error < 0.6 * tiny_stack().target.mean()


def test_the_log_says_what_was_spent_waiting_for_patches(tmp_path, monkeypatch):
    def slow(self, index, draw=Sampler.__call__):
        time.sleep(0.3)  # far more than a step of a busy machine
        return draw(self, index)

    monkeypatch.setattr(Sampler, "__call__", slow)
    go(tmp_path, 10)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0.3 < [line["waited"] for line in lines if "loss" in line][-1] <= 1


def test_a_resumed_run_keeps_its_forms(tmp_path, monkeypatch):
    forms = (Form(),) * len(TINY.layers)
    monkeypatch.setattr(boundary_objective, "forms_for_training", lambda *_: forms)
    go(tmp_path, 10)
    monkeypatch.setattr(boundary_objective, "forms_for_training", None)  # would fail if it were asked again
    seen, run = [], DenseNetwork.forward

    def forward(self, inputs, spacing=1, forms=()):
        seen.append(forms)
        return run(self, inputs, spacing, forms)

    monkeypatch.setattr(DenseNetwork, "forward", forward)
    go(tmp_path, 20)
    assert forms in seen


def test_tensorboard_log_reads_back(tmp_path):
    go(tmp_path, 20)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [10, 20]


def test_model_round_trip_and_bad_files(tmp_path):
    nets = (DenseNetwork(TINY, 1), DenseNetwork(TINY_RECURSIVE, 2))
    path = tmp_path / "pair.safetensors"
    save_model(path, Model(nets, {"voxel_size": [50, 4, 4]}))
    assert path.stat().st_mode == path.with_suffix(".json").stat().st_mode  # not for its owner alone
    path.with_suffix(".json").unlink()  # the header is enough
    model = load_model(path)
    assert model.card["voxel_size"] == [50, 4, 4]
    assert model.name == "tiny -> tiny_recursive"
    for mine, theirs in zip(nets, model.networks):
        assert same(mine.named_weights(), theirs.named_weights())
    with pytest.raises(VolumeNotFound, match="does not exist"):
        load_model(tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(VolumeError, match="not a readable safetensors file"):
        load_model(path)
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="another program or architecture"):
        load_model(tmp_path / "foreign.safetensors")
