"""benchmarks/paper: its parts lie apart, its configurations are valid, its table follows from the stored results."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from neuropil.config import load
from neuropil.geometry import Box
from neuropil.networks.recipe import RECIPES
from neuropil.stages import train
from neuropil.stages.train_config import architecture_of, check

FOLDER = Path(__file__).parent.parent / "benchmarks/paper"


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configured(recipe: str) -> train.Config:
    return load(train.Config, "train", ["train"], FOLDER / f"{recipe}.toml")


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_all_networks_get_the_same_updates_of_the_same_recipe(recipe: str) -> None:
    config = configured(recipe)
    check(config)
    assert len({net.updates for net in config.networks}) == 1
    assert {net.recipe.optimizer if net.recipe else config.recipe.optimizer for net in config.networks} == {
        RECIPES[recipe].optimizer
    }


@pytest.mark.parametrize("tissue", ["vnc", "ac4", "isbi2012"])
def test_the_parts_lie_a_field_of_view_apart(tissue: str) -> None:
    stack = tomllib.loads((FOLDER / "split.toml").read_text())[tissue]
    config = configured("fast")
    views = np.max([architecture_of(config, net).field_of_view for net in config.networks], axis=0)
    boxes = {part: Box(*map(tuple, stack[part])) for part in ("train", "validation", "test")}
    for a, b in combinations(boxes.values(), 2):
        gaps = [max(u - v for u, v in zip(first, second)) for first, second in (
            ((a.start[axis], b.start[axis]), (b.stop[axis], a.stop[axis])) for axis in range(3)
        )]  # fmt: skip
        assert any(gap >= view - 1 for gap, view in zip(gaps, views))


def test_the_sections_of_shuffled_maps_all_move(driver: ModuleType) -> None:
    for seed in range(20):
        order = driver.other_order(5, seed)
        assert sorted(order) == list(range(5))
        assert (order != np.arange(5)).all()


def test_the_stored_table_is_that_of_the_stored_results(driver: ModuleType) -> None:
    results = [json.loads(path.read_text()) for path in sorted((FOLDER / "results").glob("*.json"))]
    assert driver.table(results) + "\n" == (FOLDER / "results/table.txt").read_text()
    assert driver.charts(results).count("<figure") >= 4


def test_means_spreads_and_differences(driver: ModuleType) -> None:
    def result(network: str, seed: int, error: float) -> dict[str, object]:
        decoder = {"f": 0.9, "f_fixed": 0.8, "vi": 1.0}
        test = {"pixel_error": error, "pixel_error_fixed": error, "components": decoder, "watershed": decoder}
        return {"tissue": "vnc", "recipe": "fast", "network": network, "seed": seed, "updates": 5, "test": test}

    errors = {("n4", 0): 0.5, ("n4", 1): 0.3, ("vd2d", 1): 0.2, ("vd2d", 0): 0.3}
    text = driver.table([result(*key, error) for key, error in errors.items()])
    n4, vd2d, *_, apart = text.splitlines()[1:]
    assert "0.4000 ±0.1414" in n4
    assert "0.2500 ±0.0707" in vd2d
    assert apart.split()[3:8] == ["vd2d", "-", "n4", "2", "-0.1500"]
