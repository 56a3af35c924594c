"""This process's connection to the broker, shared by all its threads and event loops, and what it is asked.

``runtime.py`` owns the loop thread, ``connection.py`` keeps a connection up, ``latch.py`` lets threads and
coroutines wait for what happens there. ``get_client()``, from ``orchestration.py``, looks at runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_lite.client.orchestration import PrefectClient, SyncPrefectClient, get_client

__all__ = ["PrefectClient", "SyncPrefectClient", "get_client"]


def __getattr__(name: str) -> Any:
    # The hot path imports modules of this package; it must not pay for the rest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("prefect_lite.client.orchestration"), name)
