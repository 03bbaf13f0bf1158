"""Architectures, dense layers, training and dense inference: the only code that imports torch."""
