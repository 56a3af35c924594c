"""The commands. Each imports what it needs when it runs, so that ``--help`` takes a tenth of a second."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Run tasks on other processes and machines, durably.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 70 ms
    context_settings={"help_option_names": ["-h", "--help"]},
)
broker = typer.Typer(
    help="Start the broker in this terminal, ask how it is, or stop it.", no_args_is_help=True
)
runs = typer.Typer(help="Look at runs and cancel them.", no_args_is_help=True)
app.add_typer(broker, name="broker")
dead = typer.Typer(
    help="Look at runs that lost every lease they were given, run them again, or drop them.",
    no_args_is_help=True,
)
app.add_typer(runs, name="run")
app.add_typer(dead, name="dead")

blocks = typer.Typer(help="Look at what is saved by name, such as storages.", no_args_is_help=True)
app.add_typer(blocks, name="block")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
RunId = Annotated[str, typer.Argument(help="Id of the run, 32 hex digits (dashes are fine).")]
BlockPath = Annotated[str, typer.Argument(help="Kind and name: local-file-system/mine.")]
RunIds = Annotated[list[str] | None, typer.Argument(help="Ids of runs.", show_default=False)]
Every = Annotated[bool, typer.Option("--all", help="All that are dead now.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]


def run(argv: list[str]) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 when the command says so, 2 for wrong usage.
    """
    try:
        app(argv, prog_name="prefect-lite")
    except SystemExit as exc:  # the way every command ends
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return 0


@app.command()
def version() -> None:
    """Print the version."""
    from prefect_lite.version import __version__

    typer.echo(__version__)


@app.command(add_help_option=False)
def worker() -> None:
    """Serve the tasks of MODULE[:task,...]."""
    raise AssertionError("`main` has replaced the process before")


@broker.command(add_help_option=False)
def start() -> None:
    """Run it in the foreground. The word `start` may be left out."""
    raise AssertionError("`main` has replaced the process before")


@broker.command()
def status(json: Json = False) -> None:
    """Say whether it runs (exit code 0) and what waits in it."""
    from prefect_lite.cli.status import show_status

    raise typer.Exit(show_status(as_json=json))


@broker.command()
def stop() -> None:
    """Stop it and its Valkey; nothing is lost."""
    from prefect_lite.cli.status import stop_broker

    raise typer.Exit(stop_broker())


@runs.command()
def show(run_id: RunId, json: Json = False) -> None:
    """Show where a run stands and why it waits."""
    from prefect_lite.cli.runs import show_run

    raise typer.Exit(show_run(run_id, as_json=json))


@runs.command()
def log(run_id: RunId) -> None:
    """Print what a run has logged."""
    from prefect_lite.cli.runs import print_log

    raise typer.Exit(print_log(run_id))


@runs.command()
def cancel(run_id: RunId) -> None:
    """Cancel a run."""
    from prefect_lite.cli.runs import cancel_run

    raise typer.Exit(cancel_run(run_id))


@dead.command("list")
def dead_list(
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the newest.")] = 0,
    json: Json = False,
) -> None:
    """List dead runs, newest first."""
    from prefect_lite.cli.dead import list_dead

    raise typer.Exit(list_dead(limit=limit, offset=offset, as_json=json))


@dead.command("show")
def dead_show(run_id: RunId, json: Json = False) -> None:
    """Show why a run is dead."""
    from prefect_lite.cli.dead import show_dead

    raise typer.Exit(show_dead(run_id, as_json=json))


@dead.command("replay")
def dead_replay(run_ids: RunIds = None, every: Every = False, yes: Yes = False, json: Json = False) -> None:
    """Run dead runs again, under their ids and with a clean count of lost leases."""
    from prefect_lite.cli.dead import change_dead

    raise typer.Exit(change_dead("dead.replay", run_ids or [], every=every, yes=yes, as_json=json))


@dead.command("drop")
def dead_drop(run_ids: RunIds = None, every: Every = False, yes: Yes = False, json: Json = False) -> None:
    """Forget the arguments of dead runs; what became of them stays known for the usual time."""
    from prefect_lite.cli.dead import change_dead

    raise typer.Exit(change_dead("dead.drop", run_ids or [], every=every, yes=yes, as_json=json))


@blocks.command("list")
def block_list(json: Json = False) -> None:
    """List what is saved."""
    from prefect_lite.cli.blocks import list_saved

    raise typer.Exit(list_saved(as_json=json))


@blocks.command("show")
def block_show(path: BlockPath, json: Json = False) -> None:
    """Show the fields of a saved block."""
    from prefect_lite.cli.blocks import show_saved

    raise typer.Exit(show_saved(path, as_json=json))


@blocks.command("delete")
def block_delete(path: BlockPath, yes: Yes = False) -> None:
    """Forget a saved block."""
    from prefect_lite.cli.blocks import delete_saved

    raise typer.Exit(delete_saved(path, yes=yes))


@app.command("assets")
def assets(
    key: Annotated[str | None, typer.Argument(help="Show this one.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many.")] = 0,
    json: Json = False,
) -> None:
    """List what tasks have materialized; with KEY, the runs that did, and from what."""
    from prefect_lite.cli.assets import list_assets, show_asset

    if key is None:
        raise typer.Exit(list_assets(limit=limit, offset=offset, as_json=json))
    raise typer.Exit(show_asset(key, limit=limit, as_json=json))


@app.command()
def demo(
    json: Json = False,
    keep: Annotated[bool, typer.Option(help="Keep the temporary home with its logs.")] = False,
) -> None:
    """Count words on a worker, with failures, and check it."""
    from prefect_lite.demo.run import run_demo

    raise typer.Exit(run_demo(as_json=json, keep=keep))
