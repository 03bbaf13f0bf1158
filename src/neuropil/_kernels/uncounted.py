"""Functions of loops that borrow their arrays.

Numba counts who holds an array, at every call and every view; where functions are short that takes as long as what
they do. Functions that allocate nothing and keep nothing need no counts.
"""

from __future__ import annotations

from numba import njit

uncounted = njit(cache=True, nogil=True, _nrt=False)
