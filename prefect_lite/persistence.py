"""Whether a run keeps its result: its options, those of the flows and tasks around it, and the settings."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, TypeGuard

from prefect_lite.context import FlowRunContext, RunContext, TaskRunContext, active_transaction
from prefect_lite.default_home import default_home

if TYPE_CHECKING:
    from prefect_lite.settings import Settings

_VARIABLES = ("PREFECT_LITE_PERSIST_RESULTS", "PREFECT_LITE_REFRESH_CACHE")


def keeps(context: RunContext) -> TypeGuard[TaskRunContext]:
    """Whether an attempt of the run is a transaction. Quick, as all runs are asked."""
    if context.options.keeps:
        return True
    if active_transaction.get() is not None or _settings() is not None:
        return isinstance(context, TaskRunContext) and (
            active_transaction.get() is not None or persists(context)
        )
    return context.enclosing is not None and isinstance(context, TaskRunContext) and persists(context)


def persists(context: RunContext) -> bool:
    """Whether the result is persisted: as the options say, else the nearest flow, else the settings."""
    own = context.options.persists
    if own is not None:
        return own
    around = context.enclosing
    while around is not None:
        if isinstance(around, FlowRunContext) and around.options.persists is not None:
            return around.options.persists
        around = around.enclosing
    settings = _settings()
    return settings.persist_results if settings is not None else False


def refreshes(context: RunContext) -> bool:
    """Whether what is in the cache is not to be taken but replaced."""
    own = context.options.refresh_cache
    if own is not None:
        return own
    settings = _settings()
    return settings.refresh_cache if settings is not None else False


@lru_cache(maxsize=1)
def _settings() -> Settings | None:
    """The settings, if there may be other ones than the defaults: to load them takes a direct call long."""
    if not any(name in os.environ for name in _VARIABLES) and not (default_home() / "settings.env").is_file():
        return None
    from prefect_lite.settings import get_settings

    return get_settings()


forget_settings = _settings.cache_clear
"""Have the settings looked at anew."""
