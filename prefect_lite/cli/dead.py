"""``prefect-lite dead list|show|replay|drop``: runs that were given up because they lost every lease."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, cast

import typer

from prefect_lite.cli.ask import ask
from prefect_lite.cli.runs import clock, describe, parse_run_id
from prefect_lite.exceptions import ConfigurationError, PrefectException
from prefect_lite.settings import get_settings

MESSAGE_WIDTH: Final = 60
"""Characters of a message in the table; ``show`` and ``--json`` have all of it."""
PAGE: Final = 200
"""Runs asked for at once by ``--all``."""

_CHANGES: Final = {"dead.replay": "replayed", "dead.drop": "dropped"}


def _page(limit: int, offset: int) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", ask(get_settings(), "dead.list", [limit, offset]))


def list_dead(*, limit: int, offset: int, as_json: bool) -> int:
    """Print dead runs, newest first, from the ``offset``-th on."""
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        # An answer ends where a frame does, so fewer than asked for is not the end.
        page = _page(limit - len(found), offset + len(found))
        if not page:
            break
        found += page
    if as_json:
        typer.echo(json.dumps(found, default=str))
    elif not found:
        typer.echo("No runs are dead." if not offset else "No more runs are dead.")
    else:
        width = max(len("task"), *(len(state["task_key"]) for state in found))
        typer.echo(f"{'run':<32}  {'task':<{width}}  {'ended':<23}  {'lost':>4}  message")
        for state in found:
            message = " ".join(str(state["message"]).split())
            if len(message) > MESSAGE_WIDTH:
                message = message[: MESSAGE_WIDTH - 1] + "…"
            typer.echo(
                f"{state['run_id']}  {state['task_key']:<{width}}  {clock(state['ended_ms'])}"
                f"  {state['lost']:>4}  {message}"
            )
        if len(found) == limit:
            typer.echo(f"There may be more: --offset {offset + limit} shows the next.", err=True)
    return 0


def show_dead(run_id: str, *, as_json: bool) -> int:
    """Print all that is known of a dead run; exit code 1 when it is not among the dead."""
    run_id = parse_run_id(run_id)
    state = cast("dict[str, Any]", ask(get_settings(), "dead.show", run_id))
    dead = bool(state.get("dead"))
    if as_json:
        typer.echo(json.dumps(state, default=str))
    elif not dead:
        typer.echo(_not_dead(run_id))
    else:
        lines = describe(state, "")
        if state.get("worker"):
            lines.append(f"worker    {state['worker']} (the last one it was lost on)")
        lines.append(f"again     prefect-lite dead replay {run_id}")
        typer.echo("\n".join(lines))
    return 0 if dead else 1


def change_dead(what: str, run_ids: list[str], *, every: bool, yes: bool, as_json: bool) -> int:
    """Replay (``dead.replay``) or drop (``dead.drop``) runs.

    Args:
        what: The question to the broker.
        run_ids: Of these runs.
        every: Or of all that are dead now.
        yes: Do not ask first.
        as_json: Print what became of each as JSON.

    Returns:
        Exit code 1 when one of the runs was not among the dead, or the answer was no.

    Raises:
        ConfigurationError: Neither runs nor ``every`` were given, or both, or an id is none.
    """
    if every == bool(run_ids):
        raise ConfigurationError("Name the runs, or give --all; one of the two.")
    chosen = _every() if every else list(dict.fromkeys(parse_run_id(run_id) for run_id in run_ids))
    word = _CHANGES[what]
    # Replaying what was named harms nothing; dropping loses arguments, and --all may be more than was meant.
    if chosen and not yes and (every or what == "dead.drop"):
        runs = "1 run" if len(chosen) == 1 else f"{len(chosen):,} runs"
        if not _confirmed(f"{'Replay' if what == 'dead.replay' else 'Drop'} {runs}?"):
            return 1
    done: list[str] = []
    missing: list[str] = []
    try:
        for run_id in chosen:
            (done if ask(get_settings(), what, run_id) else missing).append(run_id)
    except PrefectException:
        # Which ones are done is wanted even then; nothing is lost by asking for those again.
        typer.echo(f"{len(done):,} of {len(chosen):,} {word}, then:", err=True)
        raise
    if as_json:
        typer.echo(json.dumps({word: done, "not_dead": missing}))
        return 1 if missing else 0
    for run_id in missing:
        typer.echo(_not_dead(run_id), err=True)
    if every and not chosen:
        typer.echo("No runs are dead.")
    elif done:
        typer.echo(f"{word.capitalize()}: {done[0] if len(done) == 1 else f'{len(done):,} runs'}.")
    return 1 if missing else 0


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        typer.echo(err=True)  # the question has no end of line
        raise ConfigurationError("There is nobody to answer; nothing was changed. Give --yes.") from None


def _every() -> list[str]:
    found: list[str] = []
    while page := _page(PAGE, len(found)):
        found += [state["run_id"] for state in page]
    return list(dict.fromkeys(found))


def _not_dead(run_id: str) -> str:
    return (
        f"Run {run_id} is not among the dead: it never was, or was replayed or dropped "
        f"(`prefect-lite run show {run_id}` tells where it is)."
    )
