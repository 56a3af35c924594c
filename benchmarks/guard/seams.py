"""Where the guard touches the product: a name that is gone there is told in a sentence."""

from __future__ import annotations

import importlib
from typing import Any


class SeamGone(Exception):
    """Something that the guard measures is no longer where it was."""


def seam(module: str, name: str) -> Any:
    """``module.name``, where the name may have dots.

    Raises:
        SeamGone: There is no such thing any more.
    """
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as exc:
        raise SeamGone(
            f"The guard measures {name} of {module}, which is gone ({exc}). "
            "Teach benchmarks/guard what has taken its place."
        ) from exc
    return found
