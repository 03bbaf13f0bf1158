"""neuropil: from electron-microscope image stacks to neurons."""

__version__ = "0.1.0"
