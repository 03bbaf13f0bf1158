"""Settings shared by all tests."""

import os

import hypothesis

os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".numba_cache"))
hypothesis.settings.register_profile("neuropil", deadline=None, max_examples=30)
hypothesis.settings.load_profile("neuropil")
