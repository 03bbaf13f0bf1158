"""Greatest affinity over the contact of each pair of fragments, gathered in one pass with a hash table of pairs.

Key insight: consecutive contacts often belong to the same pair, so the last place found is tried first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from neuropil._kernels.labels import find_pair, grow_pairs

_VALUE = np.uint64(0x7FFFFFFF)


@njit(cache=True, nogil=True)
def contacts(fragments, links, dz, dy, dx, table, used):
    """Raise the value of (smaller id, greater id) to the greatest link between v and v - (dz, dy, dx).

    Links are unsigned: bytes, or the bits of float32 >= 0, which sort like the numbers. Links of 0 make no entry.
    Returns the table, perhaps grown, and the number of pairs in it.
    """
    depth, height, width = fragments.shape
    last_a = np.uint64(0)
    last_b = np.uint64(0)
    place = np.int64(0)
    for z in range(dz, depth):
        for y in range(dy, height):
            for x in range(dx, width):
                a = fragments[z, y, x]
                b = fragments[z - dz, y - dy, x - dx]
                if a == b or a == 0 or b == 0:
                    continue
                value = np.uint64(links[z, y, x]) & _VALUE  # without the sign that -0.0 has
                if value == 0:
                    continue
                if a > b:
                    a, b = b, a
                if a != last_a or b != last_b:
                    place = find_pair(table, a, b)
                    last_a = a
                    last_b = b
                old = table[place + 2]
                if value > old:
                    table[place] = a
                    table[place + 1] = b
                    table[place + 2] = value
                if old == 0:
                    used += 1
                    if 8 * used > table.size:
                        table = grow_pairs(table)
                        last_a = np.uint64(0)
    return table, used
