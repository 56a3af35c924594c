"""What is known of assets: what ``list_assets`` and ``read_asset`` give."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect_lite.assets.core import AssetProperties
from prefect_lite.protocol.recorded_assets import MADE


@dataclass(frozen=True, kw_only=True)
class Materialization:
    """One run that has made an asset, or has failed to.

    Attributes:
        run_id: Of the task run.
        time: When it was recorded (aware, UTC), which is when the run ended.
        succeeded: Whether the run completed. One that failed may have made a part of it.
        message: Why it failed.
        task_key: Of the task.
        task_name: Its name.
        run_name: What people call the run.
        flow_run_id: The flow run that it belonged to.
        flow_name: Name of the flow, if it was known where the run was executed.
        materialized_by: The tool that did the work.
        upstream: Keys of the assets that it was made from.
        upstream_left_out: How many more there were.
        metadata: What the run has said of it by ``add_asset_metadata``.
    """

    run_id: UUID
    time: datetime
    succeeded: bool
    message: str | None = None
    task_key: str = ""
    task_name: str = ""
    run_name: str = ""
    flow_run_id: UUID | None = None
    flow_name: str | None = None
    materialized_by: str | None = None
    upstream: list[str] = field(default_factory=list[str])
    upstream_left_out: int = 0
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class AssetRecord:
    """What is known of an asset.

    Attributes:
        key: Its key.
        properties: What was said of it last.
        count: How many runs that make it were recorded so far; the newest 1,000 are kept.
        last_made: When a run made it last (aware, UTC); None: never.
        last_failed: When a run failed to make it last.
        last_read: When a run that names it in ``asset_deps`` or takes it from another run was recorded last.
        latest: The newest run, from ``list_assets`` without ``upstream`` and ``metadata``.
        materializations: The newest runs, newest first; empty from ``list_assets``.
    """

    key: str
    properties: AssetProperties | None = None
    count: int = 0
    last_made: datetime | None = None
    last_failed: datetime | None = None
    last_read: datetime | None = None
    latest: Materialization | None = None
    materializations: list[Materialization] = field(default_factory=list[Materialization])


def asset_from(parts: list[Any], runs: list[list[Any]] | None = None) -> AssetRecord:
    """The record of an asset.

    Args:
        parts: What the broker tells of it, see ``prefect_lite_broker.store_assets.KnownAsset``.
        runs: What it tells of its runs (``RecordedRun``), newest first.
    """
    key, properties, count, made, failed, read, run_id, outcome, head = parts[:9]
    found = [run_from(*run[:6]) for run in runs or ()]
    latest = found[0] if found and found[0].run_id.hex == run_id else None
    if latest is None and run_id:
        latest = run_from(run_id, max(made, failed), outcome, head, b"", b"")
    return AssetRecord(
        key=key,
        properties=_properties(properties),
        count=count,
        last_made=_moment(made),
        last_failed=_moment(failed),
        last_read=_moment(read),
        latest=latest,
        materializations=found,
    )


def run_from(
    run_id: str, when_ms: int, outcome: str, head: bytes, sources: bytes, metadata: bytes
) -> Materialization:
    """One of its runs, from what the broker tells of it."""
    said, read = _map(head), _map(sources)
    return Materialization(
        run_id=UUID(run_id),
        time=datetime.fromtimestamp(when_ms / 1000, UTC),
        succeeded=outcome == MADE,
        message=said.get("message"),
        task_key=said.get("task_key", ""),
        task_name=said.get("task_name", ""),
        run_name=said.get("run_name", ""),
        flow_run_id=UUID(said["flow_run_id"]) if said.get("flow_run_id") else None,
        flow_name=said.get("flow_name"),
        materialized_by=said.get("by"),
        upstream=read.get("keys", []),
        upstream_left_out=read.get("left_out", 0),
        metadata=_map(metadata),
    )


def plain(value: AssetRecord) -> dict[str, Any]:
    """A record as plain data for ``json.dumps``."""
    from dataclasses import asdict

    return {name: _plain(entry) for name, entry in asdict(value).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in cast("list[Any]", value)]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _properties(packed: bytes) -> AssetProperties | None:
    given = _map(packed)
    known = AssetProperties.__dataclass_fields__
    return AssetProperties(**{name: given[name] for name in given if name in known}) if packed else None


def _map(packed: bytes) -> dict[str, Any]:
    return json.loads(packed) if packed else {}


def _moment(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
