"""The local broker: where its files are, and how it is found or started.

``home.py`` knows the directories and secrets, ``locks.py`` the file locks, ``processes.py`` how to start and
end other processes, and ``local_broker.py`` puts them together. Names are resolved lazily, because the broker
needs ``home`` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_lite.embedded.home import (
        Home,
        Tokens,
        load_or_create_keyring,
        load_or_create_tokens,
        may_have_runs,
        prepare_home,
    )
    from prefect_lite.embedded.local_broker import Target, find_or_start

__all__ = [
    "Home",
    "Target",
    "Tokens",
    "find_or_start",
    "load_or_create_keyring",
    "load_or_create_tokens",
    "may_have_runs",
    "prepare_home",
]

_IN_LOCAL_BROKER = frozenset({"Target", "find_or_start"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "local_broker" if name in _IN_LOCAL_BROKER else "home"
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
