"""QUERY ``record`` and ``runs``: all that is known of one run, and lists of runs a page at a time.

A page is what fits an ANSWER, or what was found in ``PAGE_SECONDS``: it may be empty, and there is more for
as long as it names a position to go on from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from prefect_lite_broker.records import RunRecord
from prefect_lite_broker.store import RunFilter

if TYPE_CHECKING:
    from prefect_lite_broker.store import Store

PAGE_SECONDS = 0.1
PAGE_LENGTH = 100_000
"""Characters of a page; in UTF-8 each may take four bytes, and an ANSWER has to fit a frame of 512 KiB."""
RECORD_OVERHEAD = 400
STATE_OVERHEAD = 60
"""What a record, and a state in it, take at most besides their texts."""
MAX_WORDS = 64
MAX_WORD = 512
LATEST_MS = 1 << 53

_BAD_POSITION = "a position is what the page before has named"


def fields_of(record: RunRecord) -> dict[str, Any]:
    """A record as an ANSWER tells it: the fields of STATE without its result, and the rest."""
    fields = record.state._asdict()
    del fields["result"]
    rest = record._asdict()
    del rest["state"]
    return {**fields, **rest}


async def page_of_runs(store: Store, arg: Any, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """Some of the runs that fit.

    Args:
        store: To look in.
        arg: A map; all of its entries may be left out: ``position``, ``task_key``, ``states``, ``tags``,
            ``since_ms``, ``until_ms``; see ``RunFilter``.
        clock: Seconds.

    Returns:
        ``runs`` as ``fields_of`` gives them; ``ids`` of further ones that there is no room for, to be asked
        for one by one; ``next``: the position of the next page, None at the end.

    Raises:
        ValueError: The argument makes no sense.
    """
    asked = _map(arg)
    wanted = RunFilter(
        _text(asked, "task_key"),
        frozenset(_texts(asked, "states")),
        frozenset(_texts(asked, "tags")),
        _moment(asked, "since_ms"),
        _moment(asked, "until_ms"),
    )
    shard, position = _place(_text(asked, "position"), store.shards)
    runs: list[dict[str, Any]] = []
    ids: list[str] = []
    room, end = PAGE_LENGTH, clock() + PAGE_SECONDS
    while shard < store.shards:
        found, following = await store.scan_runs(shard, position, wanted)
        for record in found:
            length = _length(record)
            if length > room:
                ids.append(record.state.run_id)
            else:
                room -= length
                runs.append(fields_of(record))
        shard, position = (shard, following) if following is not None else (shard + 1, "0")
        if ids or room < PAGE_LENGTH // 2 or clock() > end:
            break
    following = f"{shard}:{position}" if shard < store.shards else None
    return {"runs": runs, "ids": ids, "next": following}


def _length(record: RunRecord) -> int:
    state = record.state
    texts = (state.name, state.message, state.message, state.task_key, record.label, record.run_name)
    return (
        RECORD_OVERHEAD
        + sum(map(len, (*texts, *record.tags)))
        + len(record.info)
        + STATE_OVERHEAD * len(record.states)
    )


def _map(arg: Any) -> dict[str, Any]:
    if arg is None:
        return {}
    if not isinstance(arg, dict):
        raise ValueError("runs are asked for by a map of what they have to fit")
    given = cast("dict[str, Any]", arg)
    unknown = given.keys() - {"position", "task_key", "states", "tags", "since_ms", "until_ms"}
    if unknown:
        raise ValueError(f"runs can't be asked for by {sorted(unknown)[0][:64]!r}")
    return given


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_WORD:
        raise ValueError(f"{name} has to be a text of at most {MAX_WORD} characters")
    return value


def _texts(asked: dict[str, Any], name: str) -> list[str]:
    values: Any = asked.get(name, [])
    if not isinstance(values, list) or len(cast("list[Any]", values)) > MAX_WORDS:
        raise ValueError(f"{name} has to be a list of at most {MAX_WORDS} texts")
    for value in cast("list[Any]", values):
        if not isinstance(value, str) or len(value) > MAX_WORD:
            raise ValueError(f"{name} has to be a list of texts of at most {MAX_WORD} characters")
    return cast("list[str]", values)


def _moment(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name, -1)
    if type(value) is not int or not -1 <= value < LATEST_MS:
        raise ValueError(f"{name} has to be milliseconds since 1970")
    return value


def _place(position: str, shards: int) -> tuple[int, str]:
    if not position:
        return 0, "0"
    shard, _, cursor = position.partition(":")
    if not (shard.isdecimal() and shard.isascii() and cursor.isdecimal() and cursor.isascii()):
        raise ValueError(_BAD_POSITION)
    if int(shard) >= shards or int(cursor) >= 1 << 64:
        raise ValueError(_BAD_POSITION)
    return int(shard), cursor
