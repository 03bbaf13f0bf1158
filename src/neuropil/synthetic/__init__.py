"""Synthetic tissue: serial-section electron microscopy with perfect truth.

The test oracle of segmentation, and the sample to work on without a network. `make_tissue` makes a stack and its
truth; `boundary_map_from_truth` makes an imperfect boundary map, as a network would give.
"""

from neuropil.synthetic.boundary import boundary_map_from_truth
from neuropil.synthetic.tissue import Tissue, make_tissue

__all__ = ["Tissue", "boundary_map_from_truth", "make_tissue"]
