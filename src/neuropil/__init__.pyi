"""The public names for type checkers; `neuropil/__init__.py` loads them on first use."""

from neuropil.crowd.annotations import fuse_annotations
from neuropil.crowd.fusion import fuse_votes
from neuropil.crowd.votes import Votes
from neuropil.errors import (
    ConfigError,
    InputError,
    MissingExtra,
    NeuropilError,
    OutputExists,
    RunMismatch,
    StorageFull,
    VolumeError,
    VolumeNotFound,
)
from neuropil.geometry import Box, grid
from neuropil.labels import apply_lookup, contingency, relabel
from neuropil.metrics.clefts import cleft_scores
from neuropil.metrics.curves import components_curve, merge_tree_curve
from neuropil.metrics.information import variation_of_information
from neuropil.metrics.objects import detection_scores, instance_scores
from neuropil.metrics.partners import partner_scores
from neuropil.metrics.pixel_error import best_pixel_error, pixel_error
from neuropil.metrics.rand import adapted_rand_error, rand_scores
from neuropil.metrics.run_length import run_length
from neuropil.networks.architecture import N4, VD2D, VD2D3D, Architecture
from neuropil.networks.checkpoint import load_model, save_model
from neuropil.networks.inference import predict
from neuropil.networks.network import DenseNetwork
from neuropil.networks.patches import predict_affinities
from neuropil.networks.recipe import Recipe
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.training import train
from neuropil.networks.unet_architecture import UNetArchitecture, architecture_for
from neuropil.segmentation.affinities import Affinities, affinities_from_boundary_map, affinities_from_labels
from neuropil.segmentation.boundary import boundary_from_labels
from neuropil.segmentation.components import (
    components_of_map,
    connected_components,
)
from neuropil.segmentation.linkage import (
    cut,
    merge_tree,
    size_dependent_linkage,
)
from neuropil.segmentation.region_graph import region_edges
from neuropil.segmentation.segment import segment_affinities
from neuropil.segmentation.watershed import watershed
from neuropil.skeletons.skeleton import Skeleton
from neuropil.skeletons.teasar import skeletonize
from neuropil.synthetic import make_tissue
from neuropil.volume import create_volume, open_volume

__version__: str
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
