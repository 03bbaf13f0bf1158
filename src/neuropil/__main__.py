"""`python -m neuropil` is the command `neuropil`."""

import sys

from neuropil.cli import main

if __name__ == "__main__":
    sys.exit(main())
