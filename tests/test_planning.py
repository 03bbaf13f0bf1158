import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, TINY_RECURSIVE

from neuropil import machine
from neuropil.errors import InputError
from neuropil.networks import planning, tuning
from neuropil.networks.architecture import ARCHITECTURES, N4, VD2D, VD2D3D
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.planning import TilePlan


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("net", [N4, VD2D, VD2D3D])
def test_the_tile_grows_with_memory_and_keeps_the_limit(net):
    shape, work = (20, 1000, 1100), []
    for limit in (2e8, 6e8, 3e9):
        tile = planning.choose_tile(net, shape, limit)
        assert planning.peak_memory(net, tile) <= limit
        work.append(planning.cost(net, tile) / np.prod(tile))
    assert work == sorted(work, reverse=True)
    with pytest.raises(InputError, match=r"max_memory is too small for '.*': its smallest tile needs"):
        planning.choose_tile(net, shape, 1e5)


def test_half_the_bytes_allow_larger_tiles():
    whole, half = (planning.choose_tile(VD2D, (1, 2000, 2000), 4e8, itemsize) for itemsize in (4, 2))
    assert np.prod(half) > np.prod(whole)


MEASURE = Path(__file__).parents[1] / "benchmarks" / "engine" / "memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "tile", "precision"),
    [
        ("vd2d", "1,320,320", "float32"),
        pytest.param("vd2d3d", "4,192,192", "bfloat16", marks=pytest.mark.slow),
        pytest.param("n4", "1,384,384", "float32", marks=pytest.mark.slow),
    ],
)
def test_the_foreseen_memory_is_the_processes_peak(tmp_path, name, tile, precision):
    program = [sys.executable, MEASURE, name, tile, precision, "5", str(tmp_path / "work")]
    result = subprocess.run(program, capture_output=True, text=True, check=True)
    foreseen, missed = map(float, result.stdout.split())
    assert 1 < foreseen < 1.1
    assert missed == 0


def test_a_plan_runs_and_comes_back_from_json():
    network = DenseNetwork(TINY)
    plan = planning.plan_tiles(network, (2, 60, 70), 1e9)
    assert plan.seconds > 0
    assert plan.blocks == np.prod([-(-n // t) for n, t in zip((2, 60, 70), plan.tile)])
    plan = TilePlan((1, 8, 9), 3, 4.0, 5.0, (Form(), Form(2, "fft")))
    assert TilePlan.from_dict(plan.to_dict()) == plan
    assert planning.plan_tiles(network, (2, 60, 70), 1e9, tile=(1, 8, 8)).tile == (1, 8, 8)


def test_forms_are_looked_for_where_the_run_is_long_and_only_there(monkeypatch):
    asked = []

    def tune(architecture, patch, **options):
        asked.append(patch)
        steps = [tuning.Step(place.name, Form(), 1.0, 0.0, 0.0) for place in architecture.places(patch)]
        return tuning.Plan(tuple(steps), 1.0, 2.0)

    monkeypatch.setattr(planning, "tune", tune)
    network = DenseNetwork(TINY_RECURSIVE)
    assert planning.plan_tiles(network, (8, 100, 100), 1e9).forms == ()
    assert not asked
    plan = planning.plan_tiles(network, (2000, 4000, 4000), 1e9)
    assert plan.forms == (Form(),) * len(TINY_RECURSIVE.layers)
    assert asked == [plan.tile]


def test_a_device_with_little_memory_gets_small_tiles(monkeypatch):
    """The GPU's path, on a device that only claims to be one."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3e8, 8e9))
    limit = planning.device_memory(torch.device("cuda:0"))
    assert limit == pytest.approx(0.8 * 3e8)
    assert planning.device_memory(torch.device("cuda:0"), 1e8) == 1e8
    tile = planning.choose_tile(ARCHITECTURES["vd2d"], (1, 4000, 4000), limit)
    assert planning.peak_memory(VD2D, tile) <= limit


def test_the_limit_of_a_process_is_less_what_it_holds(monkeypatch):
    monkeypatch.setattr(machine, "resident", lambda: 5e8)
    assert planning.device_memory(torch.device("cpu"), 2e9) == 1.5e9
    monkeypatch.setattr(machine, "available_memory", lambda: 1e9)
    assert planning.device_memory(torch.device("cpu")) == 8e8
