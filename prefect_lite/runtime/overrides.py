"""Values of ``runtime`` attributes from the environment, for tests of code that reads them."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any


def overridden(module: str, name: str, value: Any) -> Any:
    """``value``, unless the environment says something else.

    Args:
        module: ``task_run`` or ``flow_run``.
        name: Of the attribute.
        value: The run's own; its kind is the kind that the text stands for, a string when it is None.

    Raises:
        ValueError: The attribute is no text, number or time.
    """
    variable = f"PREFECT_LITE__RUNTIME__{module.upper()}__{name.upper()}"
    text = os.environ.get(variable)
    if text is None:
        return value
    if value is None or isinstance(value, str):
        return text
    if isinstance(value, int):
        return int(text)
    if isinstance(value, datetime):
        return datetime.fromisoformat(text)
    raise ValueError(f"{variable} can't stand for a {type(value).__name__}.")
