"""Where this account's files are, for code that can do without all other settings."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """``PREFECT_LITE_HOME``, else ``~/.prefect_lite``."""
    home = os.environ.get("PREFECT_LITE_HOME")
    return Path(home).expanduser() if home else Path.home() / ".prefect_lite"
