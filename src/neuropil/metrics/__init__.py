"""Scores of boundary maps and segmentations against truth, and where the errors are."""
