"""``prefect-lite run show|log|cancel``."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import typer

from prefect_lite.cli.ask import ask, cancel
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import get_settings

_LEVELS = {number: name for name, number in logging.getLevelNamesMapping().items()}
_TIMES = (("submitted_ms", "submitted"), ("due_ms", "due"), ("started_ms", "started"), ("ended_ms", "ended"))


def parse_run_id(text: str) -> str:
    """A run id as the wire has it, 32 hex digits, from any common spelling of a UUID.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return UUID(text).hex
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a run id; it takes 32 hex digits.") from None


def show_run(run_id: str, *, as_json: bool) -> int:
    """Print where a run stands; exit code 1 when the broker has no record of it."""
    settings = get_settings()
    run_id = parse_run_id(run_id)
    state = cast("dict[str, Any]", ask(settings, "run", run_id))
    known = bool(state.get("type"))
    why = cast("dict[str, Any]", ask(settings, "why", run_id)) if known and not state.get("ended_ms") else {}
    if as_json:
        typer.echo(json.dumps({**state, "why": why} if why else state, default=str))
    elif not known:
        typer.echo(f"The broker has no record of run {run_id} (any more).")
    else:
        typer.echo("\n".join(describe(state, str(why.get("sentence", "")))))
    return 0 if known else 1


def print_log(run_id: str) -> int:
    """Print the log lines of a run that are kept."""
    offset: int | None = 0
    some = False
    while offset is not None:  # a page is what fits one frame
        page = cast("dict[str, Any]", ask(get_settings(), "log", [parse_run_id(run_id), offset]))
        for level, when_ms, logger, text in page["lines"]:
            typer.echo(f"{clock(when_ms)} {_LEVELS.get(level, str(level)):<8} {logger}: {text}")
            some = True
        offset = page["next"]
    if not some:
        typer.echo(f"No log lines are kept of run {parse_run_id(run_id)}.", err=True)
    return 0


def cancel_run(run_id: str) -> int:
    """Cancel a run; exit code 1 when the broker has no record of it."""
    status = cancel(get_settings(), parse_run_id(run_id))
    sentences = {
        "cancelled": "Cancelled.",
        "cancelling": "It is running and will be cancelled.",
        "already": "It had already ended.",
        "unknown": "The broker has no record of this run (any more).",
    }
    typer.echo(sentences.get(status, status))
    return 1 if status == "unknown" else 0


def describe(state: dict[str, Any], why: str) -> list[str]:
    """Lines for a run: the fields of its STATE, and why it waits ("": it doesn't)."""
    lines = [
        f"run       {state['run_id']}",
        f"task      {state['task_key']}",
        f"state     {state['name']} ({state['type']})",
    ]
    if state.get("message"):
        lines.append(f"message   {state['message']}")
    if why:
        lines.append(f"waits     {why}")
    lines.append(f"attempt   {state['attempt']}")
    if state.get("lost"):
        lines.append(f"lost      {state['lost']} leases")
    lines += [f"{label:<9} {clock(state[field])}" for field, label in _TIMES if state.get(field)]
    return lines


def clock(when_ms: int) -> str:
    """Local time of the day with the date, to the millisecond."""
    return datetime.fromtimestamp(when_ms / 1000).isoformat(" ", "milliseconds")
