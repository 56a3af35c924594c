"""What code inside a run can read about it: ``runtime.task_run.id``, ``runtime.flow_run.name``.

Outside of runs the attributes are None or empty. A test can set one with an environment variable:
``PREFECT_LITE__RUNTIME__TASK_RUN__NAME=somebody``.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect_lite.runtime import flow_run, task_run

__all__ = ["flow_run", "task_run"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.{name}")
