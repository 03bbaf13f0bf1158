"""neuropil: from electron-microscope image stacks to neurons.

The public names are loaded on first use, so `import neuropil` is cheap and loads no torch, numba or storage library;
__init__.pyi tells them to type checkers. Everything else is imported from the file that holds it.

>>> import neuropil
>>> neuropil.Box((0, 0, 0), (2, 3, 4)).size
24
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "Affinities",
    "Architecture",
    "Box",
    "ConfigError",
    "DenseNetwork",
    "InputError",
    "MissingExtra",
    "N4",
    "NeuropilError",
    "OutputExists",
    "RSUNet",
    "Recipe",
    "RunMismatch",
    "Skeleton",
    "StorageFull",
    "UNetArchitecture",
    "VD2D",
    "VD2D3D",
    "VolumeError",
    "VolumeNotFound",
    "Votes",
    "adapted_rand_error",
    "affinities_from_boundary_map",
    "affinities_from_labels",
    "apply_lookup",
    "architecture_for",
    "best_pixel_error",
    "boundary_from_labels",
    "cleft_scores",
    "components_curve",
    "components_of_map",
    "connected_components",
    "contingency",
    "create_volume",
    "cut",
    "detection_scores",
    "fuse_annotations",
    "fuse_votes",
    "grid",
    "instance_scores",
    "load_model",
    "make_tissue",
    "merge_tree",
    "merge_tree_curve",
    "open_volume",
    "partner_scores",
    "pixel_error",
    "predict",
    "predict_affinities",
    "rand_scores",
    "region_edges",
    "relabel",
    "run_length",
    "save_model",
    "segment_affinities",
    "size_dependent_linkage",
    "skeletonize",
    "train",
    "variation_of_information",
    "watershed",
]
_HOMES = {
    "crowd.annotations": ("fuse_annotations",),
    "crowd.fusion": ("fuse_votes",),
    "crowd.votes": ("Votes",),
    "errors": (
        "ConfigError",
        "InputError",
        "MissingExtra",
        "NeuropilError",
        "OutputExists",
        "RunMismatch",
        "StorageFull",
        "VolumeError",
        "VolumeNotFound",
    ),
    "geometry": ("Box", "grid"),
    "labels": ("apply_lookup", "contingency", "relabel"),
    "metrics.clefts": ("cleft_scores",),
    "metrics.curves": ("components_curve", "merge_tree_curve"),
    "metrics.information": ("variation_of_information",),
    "metrics.objects": ("detection_scores", "instance_scores"),
    "metrics.partners": ("partner_scores",),
    "metrics.pixel_error": ("best_pixel_error", "pixel_error"),
    "metrics.rand": ("adapted_rand_error", "rand_scores"),
    "metrics.run_length": ("run_length",),
    "networks.architecture": ("N4", "VD2D", "VD2D3D", "Architecture"),
    "networks.checkpoint": ("load_model", "save_model"),
    "networks.inference": ("predict",),
    "networks.network": ("DenseNetwork",),
    "networks.patches": ("predict_affinities",),
    "networks.recipe": ("Recipe",),
    "networks.rsunet": ("RSUNet",),
    "networks.training": ("train",),
    "networks.unet_architecture": ("UNetArchitecture", "architecture_for"),
    "segmentation.affinities": ("Affinities", "affinities_from_boundary_map", "affinities_from_labels"),
    "segmentation.boundary": ("boundary_from_labels",),
    "segmentation.components": ("components_of_map", "connected_components"),
    "segmentation.linkage": ("cut", "merge_tree", "size_dependent_linkage"),
    "segmentation.region_graph": ("region_edges",),
    "segmentation.segment": ("segment_affinities",),
    "segmentation.watershed": ("watershed",),
    "skeletons.skeleton": ("Skeleton",),
    "skeletons.teasar": ("skeletonize",),
    "synthetic": ("make_tissue",),
    "volume": ("create_volume", "open_volume"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"neuropil.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'neuropil' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
