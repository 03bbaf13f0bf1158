"""Boundary maps and affinities in, labels out: components, watershed, linkage. Import from the module files."""
