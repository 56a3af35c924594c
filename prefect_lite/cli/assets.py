"""``prefect-lite assets``: what tasks have materialized, and from what."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, cast

import typer

from prefect_lite.assets.core import check_key
from prefect_lite.assets.records import AssetRecord, Materialization, asset_from, plain
from prefect_lite.cli.ask import ask
from prefect_lite.settings import get_settings

PAGE: Final = 500
"""Entries asked for at once; an answer has as many as fit."""
MANY: Final = "*"
"""At the end of a key: all that begin so."""


def list_assets(*, limit: int, offset: int, as_json: bool, prefix: str = "") -> int:
    """Print the assets that are known, in the order of their keys."""
    found, more = _all_known(prefix, offset + limit)
    found = found[offset:]
    if as_json:
        typer.echo(json.dumps([plain(asset) for asset in found]))
    elif not found:
        begin = f" that begins with {prefix}" if prefix else ""
        typer.echo(f"No {'more assets are' if offset else 'asset is'} known{begin}.")
    else:
        width = max(len("asset"), *(len(asset.key) for asset in found))
        typer.echo(f"{'asset':<{width}}  {'last made':<19}  {'runs':>6}  by")
        for asset in found:
            latest = asset.latest
            who = " ".join(filter(None, (latest.task_name, _tool(latest)))) if latest is not None else ""
            failed = "  (the newest run failed)" if latest is not None and not latest.succeeded else ""
            made = _local(asset.last_made) or "never"
            typer.echo(f"{asset.key:<{width}}  {made:<19}  {asset.count:>6,}  {who}{failed}")
        if more:
            typer.echo(f"There are more: --offset {offset + limit} shows the next.", err=True)
    return 0


def show_asset(key: str, *, limit: int, as_json: bool) -> int:
    """Print what is known of an asset, or list those that begin with ``KEY*``; exit code 1 for nothing."""
    if key.endswith(MANY):
        return list_assets(limit=limit, offset=0, as_json=as_json, prefix=key.removesuffix(MANY))
    check_key(key)
    asset, more = _known(key, limit)
    if as_json:
        typer.echo(json.dumps(plain(asset) if asset is not None else None))
    elif asset is None:
        typer.echo(f"Nothing is known of the asset {key}: no run that is recorded has named it.")
    else:
        typer.echo("\n".join(_lines(asset)))
        if more:
            typer.echo(f"There are more runs: --limit {2 * limit} shows some of them.", err=True)
    return 0 if asset is not None else 1


def _all_known(prefix: str, limit: int) -> tuple[list[AssetRecord], bool]:
    found: list[AssetRecord] = []
    after: str | None = ""
    while after is not None and len(found) < limit:
        arg = [prefix, after, min(PAGE, limit - len(found))]
        page = cast("dict[str, Any]", ask(get_settings(), "asset.list", arg))
        found += [asset_from(parts) for parts in page["assets"]]
        after = page["next"]
    return found, after is not None


def _known(key: str, limit: int) -> tuple[AssetRecord | None, bool]:
    parts: list[Any] | None = None
    runs: list[list[Any]] = []
    following: int | None = 0
    while following is not None and len(runs) < limit:
        arg = [key, min(PAGE, limit - len(runs)), following]
        page = cast("dict[str, Any] | None", ask(get_settings(), "asset.read", arg))
        if page is None:
            return None, False
        parts = page["asset"]
        runs += page["runs"]
        following = page["next"]
    return (asset_from(parts, runs) if parts is not None else None), following is not None


def _lines(asset: AssetRecord) -> list[str]:
    said = asset.properties.as_plain() if asset.properties is not None else {}
    if "owners" in said:
        said["owners"] = ", ".join(said["owners"])
    facts = {
        "asset": asset.key,
        **{name: _one_line(text) for name, text in said.items()},
        "made": _local(asset.last_made) or "never",
        "failed": _local(asset.last_failed),
        "read": _local(asset.last_read),
        "runs": f"{asset.count:,}",
    }
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {text}" for name, text in facts.items() if text]
    for run in asset.materializations:
        lines += ["", *_run_lines(run)]
    return lines


def _run_lines(run: Materialization) -> list[str]:
    name = " ".join(filter(None, (run.run_name or run.task_name, _tool(run))))
    lines = [f"{_local(run.time)}  {'made' if run.succeeded else 'FAILED'} in run {run.run_id.hex} ({name})"]
    if run.flow_run_id is not None:
        lines.append(f"    flow run  {run.flow_run_id.hex}{f' ({run.flow_name})' if run.flow_name else ''}")
    if run.message:
        lines.append(f"    message   {_one_line(run.message)}")
    lines += [f"    from      {key}" for key in run.upstream]
    if run.upstream_left_out:
        lines.append(f"    from      {run.upstream_left_out:,} more")
    lines += [
        f"    {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in sorted(run.metadata.items())
    ]
    return lines


def _tool(run: Materialization) -> str:
    return f"with {run.materialized_by}" if run.materialized_by else ""


def _local(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
