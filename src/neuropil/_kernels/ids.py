"""Ids found in a sorted list, each from where the one before it was: they are often in order themselves, or nearly."""

from __future__ import annotations

from neuropil._kernels.uncounted import uncounted


@uncounted
def find_ids(ids, wanted, at):
    """Write where ids, ascending, has each of those wanted; ids.size for those it has not."""
    n, i = ids.size, 0
    for k in range(wanted.size):
        key = wanted[k]
        low, high = i - 1, i  # ids[low] < key <= ids[high], once steps of growing length have found them
        step = 1
        while high < n and ids[high] < key:
            low, high = high, high + step
            step *= 2
        while low >= 0 and ids[low] >= key:
            high, low = low, low - step
            step *= 2
        low, high = max(low, -1), min(high, n)
        while high - low > 1:
            middle = (low + high) >> 1
            if ids[middle] < key:
                low = middle
            else:
                high = middle
        at[k] = high if high < n and ids[high] == key else n
        i = high
