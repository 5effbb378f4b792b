"""Programs that nobody here wrote judge ours: scripts/test --third-party installs them, pinned."""

import os

JUDGES = os.environ.get("CRAWLER_JUDGES")
"""The folder of their programs."""
collect_ignore_glob = [] if JUDGES else ["test_*.py"]
