"""Names and ids of saved blocks, and what is read by them."""

from __future__ import annotations

import difflib
import re
from uuid import UUID, uuid5

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.thread_or_loop import Waits

NAME_RULE = "1 to 128 lower-case letters, digits and dashes"
_name = re.compile(r"[a-z0-9-]{1,128}").fullmatch
_NEAR = 5
_IDS = UUID("6f3d2c1e-8a54-4b1e-9c57-2f7a0d6b9e11")


def check_name(name: str, what: str = "name") -> None:
    """Refuse what no block can be called.

    Raises:
        ConfigurationError: It can't.
    """
    if not _name(name):
        raise ConfigurationError(f"The {what} of a block must be {NAME_RULE}, not {name!r}.")


def block_id(slug: str, name: str) -> UUID:
    """The id of a saved block in this process's namespace."""
    from prefect_lite.settings import get_settings

    return uuid5(_IDS, f"{get_settings().namespace}/{slug}/{name}")


def reading_document(slug: str, name: str) -> Waits[bytes]:
    """The document of the saved ``slug/name``, to be waited for; nothing of it is verified.

    Raises:
        ConfigurationError: There is none.
        PrefectException: The broker can't be asked.
    """
    from prefect_lite.client import keeping

    check_name(slug, "slug")
    check_name(name)
    document = yield from keeping.load_block(slug, name)
    if document is None:
        raise (yield from no_such_block(slug, name))
    return document


def no_such_block(slug: str, name: str) -> Waits[ConfigurationError]:
    """The error that names saved blocks which are like it."""
    from prefect_lite.client import keeping

    saved = [f"{kind}/{each}" for kind, each in (yield from keeping.list_blocks())]
    near = difflib.get_close_matches(f"{slug}/{name}", saved, n=_NEAR, cutoff=0.5)
    if near:
        hint = f"Saved are {', '.join(near)}."
    else:
        hint = "'prefect-lite block list' shows what is saved." if saved else ""
    return ConfigurationError(
        f"There is no saved {slug}/{name}. {hint or 'Nothing is saved yet: save one with its save() method.'}"
    )
