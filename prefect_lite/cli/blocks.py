"""``prefect-lite block list|show|delete``: what was saved by name, such as storages."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from prefect_lite import block_documents
from prefect_lite.block_names import block_id, check_name, reading_document
from prefect_lite.blocks import deleting
from prefect_lite.client import keeping
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.thread_or_loop import in_thread


def list_saved(*, as_json: bool) -> int:
    """Print kind, name and id of all saved blocks."""
    found = in_thread(keeping.list_blocks())
    if as_json:
        rows = [{"slug": slug, "name": name, "id": str(block_id(slug, name))} for slug, name in found]
        typer.echo(json.dumps(rows))
    elif not found:
        typer.echo("No blocks are saved.")
    else:
        width = max(len("block"), *(len(f"{slug}/{name}") for slug, name in found))
        typer.echo(f"{'block':<{width}}  id")
        for slug, name in found:
            typer.echo(f"{f'{slug}/{name}':<{width}}  {block_id(slug, name)}")
    return 0


def show_saved(path: str, *, as_json: bool) -> int:
    """Print a saved block, ``slug/name``; its class need not be importable here.

    Raises:
        ConfigurationError: There is none.
        EnvelopeRejected: It is damaged, or not signed with a key of this process.
    """
    slug, name = parse_path(path)
    content = block_documents.opened(in_thread(reading_document(slug, name)), slug, name)
    shown: dict[str, Any] = {
        "slug": slug,
        "name": name,
        "id": str(block_id(slug, name)),
        "module": content.module,
        "fields": content.fields,
    }
    if as_json:
        typer.echo(json.dumps(shown))
        return 0
    lines = [f"block     {slug}/{name}", f"id        {shown['id']}", f"module    {content.module}"]
    width = max((len(field) for field in content.fields), default=0)
    lines += [f"  {field:<{width}}  {json.dumps(value)}" for field, value in content.fields.items()]
    typer.echo("\n".join(lines))
    return 0


def delete_saved(path: str, *, yes: bool) -> int:
    """Forget a saved block, ``slug/name``; exit code 1 when the answer was no.

    Raises:
        ConfigurationError: There is none, or nobody is there to say yes.
    """
    slug, name = parse_path(path)
    if not yes and not _confirmed(f"Delete {slug}/{name}?"):
        return 1
    in_thread(deleting(slug, name))
    typer.echo(f"Deleted: {slug}/{name}.")
    return 0


def parse_path(path: str) -> tuple[str, str]:
    """Slug and name of ``slug/name``.

    Raises:
        ConfigurationError: It is none.
    """
    slug, slash, name = path.partition("/")
    if not slash:
        raise ConfigurationError(f"{path!r} is no saved block; it takes 'slug/name', see `block list`.")
    check_name(slug, "slug")
    check_name(name)
    return slug, name


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        typer.echo(err=True)  # the question has no end of line
        raise ConfigurationError("There is nobody to answer; nothing was changed. Give --yes.") from None
