"""Which ways to segment there are, and what their configurations have in common."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from neuropil.config import StageConfig
from neuropil.segmentation.decoding import Method as Decoding

Method = Literal["components", Decoding, "seeded"]


class MethodConfig(StageConfig):
    """Base of configurations with fields method and dust: components keep their dust, unless it is given."""

    @model_validator(mode="before")
    @classmethod
    def _keep_dust(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method") == "components":
            return {"dust": 0, **values}
        return values
