"""Skeletons: centre lines of labels as graphs, their clean-up, and the SWC text of them."""
