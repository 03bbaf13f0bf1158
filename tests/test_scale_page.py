"""docs/scale.md says what docs/scale.py makes of the figures that are kept, and its arithmetic is right."""

from __future__ import annotations

import importlib.util
import json
import sys
from math import prod
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = (64, 512, 512)


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_scale", DOCS / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_scale"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables(scale: ModuleType) -> None:
    figures = scale.Figures(**json.loads((DOCS / "scale.json").read_text()))
    page = (DOCS / "scale.md").read_text()
    assert "\n".join(scale.table(figures, [1e9, 1e12, 1e15], BLOCK, 10_000)) in page


def test_what_is_counted_is_counted_right(scale: ModuleType) -> None:
    figures = scale.Figures(BLOCK, 1e-6, 1e-6, (0.5, 0.25), 0.01, 1e-4, 10.0, 1.0, 20.0, 6, 1000.0)
    voxels = prod(BLOCK) * 4**3
    one = scale.project(figures, voxels, BLOCK)
    assert one.blocks == pytest.approx(64)
    assert [level.boxes for level in one.levels] == pytest.approx([64, 8, 1])
    assert one.files == pytest.approx(20 * 64)
    assert one.tasks == pytest.approx(6 * 64)
    face = sum(prod(BLOCK) // n for n in BLOCK)
    # 2x2x2 blocks: each has 6 faces, of which those on the volume's own (half of the outer ones) do not count; the top
    # box gets those of eight boxes, each with 3 faces inside of 4 times the area
    assert one.levels[2].edges == pytest.approx(8 * 0.25 * face * 4)
    assert one.core_hours * 3600 == pytest.approx(voxels * 1e-6 + 1e-6 * sum(x.boxes * x.edges for x in one.levels[1:]))
    assert scale.project(figures, 8 * voxels, BLOCK).levels[-1].edges == pytest.approx(4 * one.levels[-1].edges)


def test_the_first_limit_comes_first(scale: ModuleType) -> None:
    figures = scale.Figures(BLOCK, 1e-6, 1e-6, (0.5, 0.25), 0.01, 1e-4, 10.0, 1.0, 20.0, 6, 1000.0)
    met = list(scale.breaks(figures, BLOCK).items())
    assert [count for _, count in met] == sorted(count for _, count in met)
    for name, count in met:
        held = scale.taken(scale.project(figures, count, BLOCK))[name]
        assert held == pytest.approx(scale.LIMITS[name], rel=0.05)
