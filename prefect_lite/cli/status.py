"""``prefect-lite broker status`` and ``stop``."""

from __future__ import annotations

import json
from typing import Any, cast

import typer

from prefect_lite.cli.ask import ask
from prefect_lite.embedded.local_broker import LocalStatus, local_status, stop_local
from prefect_lite.exceptions import BrokerError
from prefect_lite.settings import Settings, get_settings

_SENTENCES = {
    "stopped": "No local broker runs; the first delay() or serve() starts one.",
    "starting": "The local broker is starting (pid {pid}).",
    "unreachable": "The local broker (pid {pid}) does not answer at {unix_path}.",
    "orphaned": "The broker is gone, its Valkey still runs (pid {valkey_pid}); the next broker adopts it.",
}


def show_status(*, as_json: bool) -> int:
    """Print how the broker is.

    Returns:
        Exit code: 0 when it runs.
    """
    settings = get_settings()
    if not settings.broker_url:
        local = local_status(settings)
        if local.state != "running":
            _print(as_json, local._asdict(), _SENTENCES[local.state].format(**local._asdict()))
            return 1
        place = f"the local broker (pid {local.pid}, Valkey pid {local.valkey_pid}) at {local.unix_path}"
        _show_running(settings, as_json, place, local._asdict())
        return 0
    _show_running(settings, as_json, ", ".join(settings.broker_url), {"state": "running"})
    return 0


def _show_running(settings: Settings, as_json: bool, place: str, facts: dict[str, Any]) -> None:
    stats, workers = _stats(settings), connected_workers(settings)
    text = "\n".join([_describe(place, stats), *(f"Worker {_worker(each)}" for each in workers)])
    _print(as_json, {**facts, "stats": stats, "workers": workers}, text)


def stop_broker() -> int:
    """Stop the broker: the local one by signal, one with a URL by request (that takes the admin token)."""
    settings = get_settings()
    if settings.broker_url:
        ask(settings, "stop", "prefect-lite broker stop")
        typer.echo("The broker is stopping.")
        return 0
    before: LocalStatus = local_status(settings)
    workers = _workers_before_stop(settings, before)
    if not stop_local(settings):
        typer.echo("No local broker runs.")
        return 0
    typer.echo(
        f"Stopped the broker (pid {before.pid}) and its Valkey." if before.pid else "Stopped its Valkey."
    )
    if workers:
        several = len(workers) > 1
        typer.echo(
            f"{len(workers)} worker{'s were' if several else ' was'} connected and will start it again at "
            f"once; to keep it down, stop {'them' if several else 'it'} first: "
            + ", ".join(f"pid {each['pid']} ({each['name']})" for each in workers)
            + "."
        )
    return 0


def connected_workers(settings: Settings) -> list[dict[str, Any]]:
    """The workers that the broker has a session of, oldest first.

    Returns:
        Each with ``name``, ``host``, ``pid``, ``task_keys`` and ``held`` (runs under way there). Empty
        without the admin token, which the question takes.
    """
    sessions: list[dict[str, Any]] = []
    offset: int | None = 0
    try:
        while offset is not None:
            page = ask(settings, "sessions", offset)
            sessions += page["sessions"]
            offset = page["next"]
    except BrokerError:
        return []
    return [
        {
            "name": str(each["info"].get("name", "?")),
            "host": str(each["info"].get("host", "?")),
            "pid": each["info"].get("pid", 0),
            "task_keys": each["task_keys"],
            "held": each["held"],
        }
        for each in sorted(sessions, key=lambda each: each["opened_ms"])
    ]


def _workers_before_stop(settings: Settings, local: LocalStatus) -> list[dict[str, Any]]:
    return connected_workers(settings) if local.state == "running" else []


def _worker(worker: dict[str, Any]) -> str:
    keys = ", ".join(worker["task_keys"]) or "nothing"
    return f"{worker['name']} (pid {worker['pid']}): {keys}; {worker['held']} runs."


def _stats(settings: Settings) -> dict[str, Any]:
    return cast("dict[str, Any]", ask(settings, "stats"))


def _describe(place: str, stats: dict[str, Any]) -> str:
    """The statistics as lines: one for the broker, one per queue that is not empty."""
    broker: dict[str, Any] = stats.get("broker", {})
    which = "The one that answered: version" if "," in place else "Version"
    lines = [
        f"Running: {place}",
        f"{which} {broker.get('version', '?')}, up {broker.get('up_seconds', 0):.0f} s, "
        f"{broker.get('connections', 0)} connections, {broker.get('workers', 0)} workers, "
        f"store {'healthy' if broker.get('store_healthy', True) else 'away'}.",
    ]
    for name, value in stats.items():
        if name == "audit":
            lines.append(_audit(value))
        elif name != "broker":
            lines.extend(_lines(name, value))
    return "\n".join(lines)


def _audit(audit: dict[str, int]) -> str:
    text = f"audit: {audit['repaired']} repaired in {audit['passes']} passes over all runs"
    if audit["passes"]:
        text += f", {audit['runs']} in the last"
    if audit["undecided"]:
        text += f"; of these {audit['undecided']} are in queues too long to look through"
    return text


def _lines(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return [f"{name}: {key}: {_flat(entry)}" for key, entry in entries.items()]
    if isinstance(value, list):
        return [f"{name}: {_flat(entry)}" for entry in cast("list[Any]", value)]
    return [f"{name}: {value}"]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in cast("dict[str, Any]", value).items())
    return str(value)


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(record, default=str) if as_json else text)
