import json

import pytest

from neuropil.files import replacing, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"f": float("nan"), "nested": [1.5, float("inf")], "path": tmp_path})
    assert json.loads(path.read_text()) == {"f": None, "nested": [1.5, None], "path": str(tmp_path)}
    with pytest.raises(OSError), replacing(path) as part:  # noqa: PT012
        part.write_text("half")
        raise OSError("the disk is full")
    assert json.loads(path.read_text())["f"] is None
    assert [one.name for one in tmp_path.iterdir()] == ["scores.json"]
