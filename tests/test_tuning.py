import math

import pytest
import torch
from tiny import TINY, TINY_RECURSIVE

from neuropil.cli import main
from neuropil.files import cache_folder
from neuropil.networks import tuning
from neuropil.networks.architecture import VD2D, VD2D3D, Architecture
from neuropil.networks.checkpoint import Model, save_model
from neuropil.networks.network import DenseNetwork, Form

POOLED = Architecture(
    "pooled",
    (
        "conv1 1x3x3 4",
        "pool1 1x2x2",
        "conv2 2x3x3 6",
        "pool2 1x2x2",
        "conv3 1x3x3 8",
        "dropout 0.5",
        "output 1x1x1 2 linear",
    ),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fake_costs(monkeypatch, own, moving):
    monkeypatch.setattr(tuning._Run, "layer", lambda self, place, form: own(place.name, form.fragments))
    monkeypatch.setattr(tuning._Run, "moving", lambda self, place, before, after: moving(before, after))


def path(patch):
    run = tuning._Run(POOLED, patch, False, 1, torch.device("cpu"), torch.float32)
    return tuple(step.form.fragments for step in run.shortest())


@pytest.mark.parametrize("training", [False, True])
def test_the_plan_runs_the_network_to_the_same_result(training):
    plan = tuning.tune(POOLED, (1, 16, 12), training=training)
    assert [step.name for step in plan.steps] == ["conv1", "pool1", "conv2", "pool2", "conv3", "dropout", "output"]
    assert all(step.milliseconds > 0 for step in plan.steps)
    network = DenseNetwork(POOLED).eval()
    image = torch.randn(1, 1, *(p + f - 1 for p, f in zip((1, 16, 12), POOLED.field_of_view)))
    with torch.no_grad():
        assert (network([image], forms=plan.forms) - network([image])).abs().max() < 1e-5


def test_splitting_is_chosen_when_it_pays_and_only_then(monkeypatch):
    fake_costs(monkeypatch, lambda name, parts: 10.0 / parts, lambda before, after: 1.0)
    assert path((1, 8, 8)) == (1, 1, 2, 2, 4, 4, 4)
    fake_costs(monkeypatch, lambda name, parts: 10.0 / parts, lambda before, after: 1000.0)
    assert set(path((1, 16, 16))) == {1}
    fake_costs(monkeypatch, lambda name, parts: 9.0 if (name == "conv3") == (parts == 1) else 1.0, lambda a, b: 0.1)
    assert [parts > 1 for parts in path((1, 24, 24))] == [False, False, False, False, True, False, False]


def test_the_fastest_whole_pass_is_chosen(monkeypatch):
    """Layers timed apart may mislead; the path has to prove itself against the uniform forms."""
    fake_costs(monkeypatch, lambda name, parts: abs(parts - 2.5), lambda before, after: 0.0)
    for best in (0, 1, 2):  # the path, the default, all fragments
        monkeypatch.setattr(
            tuning._Run,
            "milliseconds",
            lambda self, passes, leaves, best=best: {one: 5.0 + (i != best) for i, one in enumerate(passes)},
        )
        plan = tuning.tune(POOLED, (1, 8, 9 + best))
        expected = [(1, 1, 2, 2, 2, 2, 2), (1,) * 7, (1, 1, 2, 2, 4, 4, 4)][best]
        assert tuple(form.fragments for form in plan.forms) == expected
        assert plan.milliseconds == 5.0


def test_a_damaged_or_forbidden_cache_only_costs_time(tmp_path, monkeypatch):
    first = tuning.tune(POOLED, (1, 8, 8))
    (kept,) = (cache_folder() / "plans").glob("*.json")
    kept.write_text('{"key": ')
    assert len(tuning.tune(POOLED, (1, 8, 8)).steps) == len(first.steps)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(tuning.tune(POOLED, (1, 8, 8)).steps) == len(first.steps)


def test_what_was_measured_is_kept(monkeypatch):
    first = tuning.tune(POOLED, (1, 8, 8))
    monkeypatch.setattr(tuning._Run, "shortest", None)  # would fail if it were measured again
    assert tuning.tune(POOLED, (1, 8, 8)) == first
    with pytest.raises(TypeError):
        tuning.tune(POOLED, (1, 9, 8))


def test_operations_are_those_of_the_minimal_algorithm():
    places = VD2D.places((1, 10, 20))
    assert math.prod(places[-1].shape_out) == 200
    assert places[-1].operations == 2 * 200 * 2 * 200
    assert places[0].operations == 2 * 24 * 9 * (10 + 106) * (20 + 106)
    assert VD2D.places((1, 33, 17), 16)[-1].shape_out == (1, 3, 2)
    assert 0 < tuning.peak() < 1e6


def test_a_join_is_one_convolution_on_both_streams():
    first, join = VD2D3D.places((1, 10, 20))[0], VD2D3D.places((1, 10, 20))[2]
    assert (first.streams, first.joined, join.streams, join.joined) == (2, False, 2, True)
    voxels = math.prod(join.shape_out)
    assert join.operations == 2 * 48 * 24 * 4 * voxels
    run = tuning._Run(VD2D3D, (1, 10, 20), False, 1, torch.device("cpu"), torch.bfloat16)
    assert run.bytes(join) == 2 * (48 * math.prod(join.shape_in) + 24 * voxels)


def test_plan_prints_a_table_per_network(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    save_model(path, Model((DenseNetwork(TINY), DenseNetwork(TINY_RECURSIVE))))
    assert main(["plan", "--weights", str(path), "--shape", "1,16,16"]) == 0
    out = capsys.readouterr().out
    assert out.count("in all") == 2
    assert "% of peak" in out
    assert main(["plan", "--weights", str(path), "--shape", "1,0,16"]) == 2
    assert "shape must be positive" in capsys.readouterr().err


def test_methods_are_tried_where_filters_suit_them():
    lines = ("conv1 3x3x3 16", "conv2 9x9x9 16", "conv3 3x3x3 16", "conv4 1x3x2 16", "output 1x1x1 2 linear")
    large = Architecture("large", lines)
    places = large.places((1, 1, 1))
    for dtype in (torch.float32, torch.bfloat16):
        run = tuning._Run(large, (1, 1, 1), False, 1, torch.device("cpu"), dtype)
        methods = [{form.method for form in run.candidates(place)} for place in places]
        assert ["fft" in some for some in methods] == [False, True, False, False, False]
        minimal = [False, False, dtype == torch.float32, False, False]  # conv1 reads one map, conv4 is not square
        assert ["winograd" in some for some in methods] == minimal


def test_direct_forms_without_a_chance_are_not_timed(monkeypatch):
    """At 1 GFLOP/s the filters of 9x9x9 take longer than the transforms took; those of 3x3x3 are not compared."""
    lines = ("conv1 3x3x3 16", "pool1 1x2x2", "conv2 9x9x9 16", "output 1x1x1 2 linear")
    large, asked = Architecture("large", lines), []
    monkeypatch.setattr(tuning, "peak", lambda device, dtype: 1.0)
    monkeypatch.setattr(tuning._Run, "moving", lambda *given: 0.0)
    monkeypatch.setattr(tuning._Run, "layer", lambda self, place, form: asked.append((place.name, form)) or 1.0)
    timed = []
    monkeypatch.setattr(
        tuning._Run, "milliseconds", lambda self, passes, leaves: timed.extend(passes) or dict.fromkeys(passes, 2.0)
    )
    plan = tuning.tune(large, (1, 8, 8))
    assert [form for name, form in asked if name == "conv2"] == [Form(1, "fft")]
    assert Form() in [form for name, form in asked if name == "conv1"]
    assert timed == [plan.forms]
    assert plan.milliseconds == 2
    assert plan.default == pytest.approx(1e-6 * large.places((1, 8, 8))[2].operations)
