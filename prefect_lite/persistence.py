"""Whether a run keeps its result: its options, those of the flows and tasks around it, and the settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from prefect_lite.context import FlowRunContext, RunContext, TaskRunContext, active_transaction

if TYPE_CHECKING:
    from prefect_lite.settings import Settings

_UNREAD: Final[Any] = object()
_found: Settings | None = _UNREAD
_active = active_transaction.get
_VARIABLES = ("PREFECT_LITE_PERSIST_RESULTS", "PREFECT_LITE_REFRESH_CACHE")


def keeps(context: RunContext) -> TypeGuard[TaskRunContext]:
    """Whether an attempt of the run is a transaction. Quick, as all runs are asked."""
    if context.options.keeps:
        return True
    inside = _active() is not None
    if not inside and context.enclosing is None and (_settings() if _found is _UNREAD else _found) is None:
        return False
    return isinstance(context, TaskRunContext) and (inside or persists(context))


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


def _settings() -> Settings | None:
    """The settings, if there may be other ones than the defaults: to load them takes a direct call long."""
    global _found
    found = _found
    if found is _UNREAD:
        if any(name in os.environ for name in _VARIABLES) or os.path.isfile(_settings_file()):
            from prefect_lite.settings import get_settings

            found = get_settings()
        else:
            found = None
        _found = found
    return found


def _settings_file() -> str:
    # As in ``default_home``, without its ``pathlib``, which a direct call has no other need of.
    home = os.environ.get("PREFECT_LITE_HOME") or os.path.join("~", ".prefect_lite")
    return os.path.join(os.path.expanduser(home), "settings.env")


def forget_settings() -> None:
    """Have the settings looked at anew."""
    global _found
    _found = _UNREAD
