"""``recording``: what the engine calls at the end of each run that has to do with assets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from prefect_lite.assets.lineage import remember, remember_value, sources_by_run, sources_by_value
from prefect_lite.assets.metadata import as_json, noted_by
from prefect_lite.assets.of_run import made_by, read_by, tool_of
from prefect_lite.client import runtime
from prefect_lite.client.asset_records import record_assets
from prefect_lite.exceptions import BrokerError
from prefect_lite.logging import get_run_logger
from prefect_lite.protocol.recorded_assets import (
    FAILED,
    MADE,
    MAX_SOURCES_BYTES,
    MAX_TRACKED,
    RunOfAssets,
    SaidOfAsset,
)

if TYPE_CHECKING:
    from prefect_lite.assets.core import Asset
    from prefect_lite.context import TaskRunContext
    from prefect_lite.run_ends import Outcome
    from prefect_lite.thread_or_loop import Waits

MAX_MESSAGE: Final = 500
"""Characters of why a run failed."""
MAX_WORD: Final = 512
AWAY_SECONDS: Final = 30.0
"""After a broker was waited for in vain, runs of this program don't wait for it again for so long."""

_OUTCOMES: Final = {"completed": MADE, "failed": FAILED, "timed_out": FAILED}
"""Runs that end in another way are not recorded, as in Prefect: nobody can say what they have done."""

_away = 0, 0.0
"""Which client (its id) has waited in vain, and until when (monotonic seconds) nobody waits for it."""


def recording(context: TaskRunContext, outcome: Outcome) -> Waits[None]:
    """Have recorded what a run has made, or has failed to, and from what. What goes wrong is logged.

    Args:
        context: The run, which has ended.
        outcome: How; a retry is no end.
    """
    result = _OUTCOMES.get(outcome.kind)
    if result is None:
        return
    global _away
    try:
        if context.lease is None and _away[0] == id(_client()) and time.monotonic() < _away[1]:
            _warn("No broker has answered a moment ago.")
            return
        yield from _recorded(context, outcome, result)
    except Exception as exc:
        if isinstance(exc, BrokerError):
            _away = id(_client()), time.monotonic() + AWAY_SECONDS
        _warn(str(exc) or type(exc).__name__)


def forget_trouble() -> None:
    """Wait for a broker again; for tests."""
    global _away
    _away = 0, 0.0


def _recorded(context: TaskRunContext, outcome: Outcome, result: str) -> Waits[None]:
    if outcome.state is not None and outcome.state.name == "Cached":
        result = ""  # an earlier run has made it; who takes this result has read it all the same
    assets, read = made_by(context), read_by(context)
    tracked = [asset.key for asset in assets]
    sources = [*(asset.key for asset in read), *sources_by_value(context)]
    if assets:  # before anything that may fail or wait, and after a look at the values that have come in
        _hand_on(context, outcome, tracked)
    # A task that only reads starts no client, and no broker.
    ask = bool(assets) or context.lease is not None or _client() is not None
    if result or not assets:
        sources += yield from sources_by_run(context.task_run, ask=ask)
    sources = list(dict.fromkeys(sources))
    if not assets:
        tracked = sources
        _hand_on(context, outcome, tracked)
    if not (tracked and ask):
        return
    said = RunOfAssets(
        context.run.run_id,
        result if assets else "",
        as_json(_head(context, outcome)) if assets and result else b"",
        as_json(_sources(sources)) if assets and result else b"",
        [_said(asset, context) for asset in assets] if result else [],
        _seen(read, sources) if assets and result else [],
        _within(tracked)[:MAX_TRACKED],
    )
    yield from record_assets(said)


def _client() -> object:
    """This process's client; None: it has had nothing to do with a broker yet."""
    return runtime._runtime  # pyright: ignore[reportPrivateUsage]


def _hand_on(context: TaskRunContext, outcome: Outcome, tracked: list[str]) -> None:
    remember(context.run.run_id, tracked)
    if outcome.kind == "completed":
        remember_value(context.flow_context, outcome.value, tracked)


def _head(context: TaskRunContext, outcome: Outcome) -> dict[str, Any]:
    run, flow = context.task_run, context.flow_context
    said = {
        "task_key": run.task_key,
        "task_name": run.task_name,
        "run_name": run.name,
        "flow_run_id": run.flow_run_id.hex if run.flow_run_id is not None else None,
        "flow_name": flow.flow_run.flow_name if flow is not None else None,
        "by": tool_of(context),
        "message": outcome.message[:MAX_MESSAGE] if outcome.kind != "completed" else None,
    }
    return {name: value[:MAX_WORD] for name, value in said.items() if value}


def _sources(keys: list[str]) -> dict[str, Any]:
    kept = _within(keys)
    return {"keys": kept} if len(kept) == len(keys) else {"keys": kept, "left_out": len(keys) - len(kept)}


def _within(keys: list[str]) -> list[str]:
    """As many of the first as may be sent."""
    room = MAX_SOURCES_BYTES - 100
    for count, key in enumerate(keys):
        room -= len(key.encode()) + 3
        if room < 0:
            return keys[:count]
    return keys


def _said(asset: Asset, context: TaskRunContext) -> SaidOfAsset:
    noted = noted_by(context.run).get(asset.key)
    return SaidOfAsset(asset.key, _properties(asset), as_json(noted) if noted else b"")


def _seen(read: list[Asset], sources: list[str]) -> list[SaidOfAsset]:
    named = {asset.key: asset for asset in read}
    return [SaidOfAsset(key, _properties(named[key]) if key in named else b"") for key in sources]


def _properties(asset: Asset) -> bytes:
    return as_json(asset.properties.as_plain()) if asset.properties is not None else b""


def _warn(why: str) -> None:
    get_run_logger().warning("What this run has made of its assets is not recorded: %s", why)
