"""Numba loops, one file per algorithm: no checks, no keyword arguments."""
