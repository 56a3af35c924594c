"""What a broker keeps by name (entries, locks, saved blocks), kept in memory for eager mode."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from prefect_lite import clock
from prefect_lite.protocol import kept_things
from prefect_lite.protocol.kept_things import MAX_BLOCKS

if TYPE_CHECKING:
    from prefect_lite.settings import Settings

Said = tuple[Any, bytes | None]
"""Value and body of an answer."""


class _Entry(NamedTuple):
    body: bytes
    end: float
    idle_seconds: float  # 0: it has a time of its own


class EagerKeeping:
    """Answers the questions that begin with ``keep.``, ``lock.`` and ``block.`` as a broker does.

    Entries grow old by the clock of the process, which tests move. Locks do so in real time: nobody who holds
    one had the time to renew it when the clock jumped.

    Args:
        settings: Limits and times.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mutex = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._locks: dict[str, tuple[str, float]] = {}  # holder, and until when
        self._blocks: dict[str, bytes] = {}

    def knows(self, what: str) -> bool:
        """Whether it answers such questions."""
        return what in self._answers

    def answer(self, what: str, arg: Any, body: bytes | None) -> tuple[bool, Any, bytes | None]:
        """Answer a question.

        Returns:
            Whether it is answered, the value, else [code, sentence], and a body.
        """
        most = self._settings.max_payload_bytes
        if body is not None and len(body) > most:
            text = f"A payload of {len(body)} bytes is over the limit of {most} bytes."
            return False, ["payload_too_large", text], None
        try:
            with self._mutex:
                return True, *self._answers[what](self, arg, body)
        except ValueError as exc:
            return False, ["bad_argument", f"This can't be asked: {exc}."], None

    # -- entries ----------------------------------------------------------------------------------

    def _entry(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.end <= clock.monotonic():
            del self._entries[key]
            return None
        return entry

    def _get(self, arg: Any, _body: bytes | None) -> Said:
        key = kept_things.only_key(arg)
        entry = self._entry(key)
        if entry is None:
            return False, None
        if entry.idle_seconds:
            self._entries[key] = entry._replace(end=clock.monotonic() + entry.idle_seconds)
        return True, entry.body

    def _put(self, arg: Any, body: bytes | None) -> Said:
        put = kept_things.put(arg)
        if body is None:
            raise ValueError("an entry has to come with its body")
        if put.fence and self._holder(put.key) != put.fence:
            return False, None
        idle = 0.0 if put.ttl_seconds else self._settings.cache_idle_seconds
        self._entries[put.key] = _Entry(body, clock.monotonic() + (put.ttl_seconds or idle), idle)
        return True, None

    def _has(self, arg: Any, _body: bytes | None) -> Said:
        return self._entry(kept_things.only_key(arg)) is not None, None

    def _drop(self, arg: Any, _body: bytes | None) -> Said:
        key = kept_things.only_key(arg)
        there = self._entry(key) is not None
        self._entries.pop(key, None)
        return there, None

    # -- locks ------------------------------------------------------------------------------------

    def _holder(self, key: str) -> str | None:
        holder, end = self._locks.get(key, (None, -math.inf))
        return holder if time.monotonic() < end else None

    def _hold(self, arg: Any, *, anew: bool) -> bool:
        hold = kept_things.hold(arg)
        holder = self._holder(hold.key)
        if holder != hold.holder and not (anew and holder is None):
            return False
        self._locks[hold.key] = hold.holder, time.monotonic() + hold.seconds
        return True

    def _take(self, arg: Any, _body: bytes | None) -> Said:
        return self._hold(arg, anew=True), None

    def _renew(self, arg: Any, _body: bytes | None) -> Said:
        return self._hold(arg, anew=False), None

    def _let_go(self, arg: Any, _body: bytes | None) -> Said:
        drop = kept_things.drop(arg)
        held = self._holder(drop.key) == drop.holder
        if held:
            del self._locks[drop.key]
        return held, None

    def _look(self, arg: Any, _body: bytes | None) -> Said:
        return self._holder(kept_things.only_key(arg)), None

    # -- blocks -----------------------------------------------------------------------------------

    def _save(self, arg: Any, body: bytes | None) -> Said:
        block = kept_things.block_put(arg)
        document = kept_things.check_block_body(body)
        path = block.path
        there = path in self._blocks
        if there and not block.overwrite:
            return False, None
        if not there and len(self._blocks) >= MAX_BLOCKS:
            raise ValueError(f"there are {MAX_BLOCKS:,} saved blocks already")
        self._blocks[path] = document
        return True, None

    def _load(self, arg: Any, _body: bytes | None) -> Said:
        document = self._blocks.get(kept_things.block(arg).path)
        return document is not None, document

    def _list(self, arg: Any, _body: bytes | None) -> Said:
        after = kept_things.block_position(arg)
        blocks = [path.split("/", 1) for path in sorted(self._blocks) if path > after]
        return {"blocks": blocks, "next": None}, None

    def _remove(self, arg: Any, _body: bytes | None) -> Said:
        return self._blocks.pop(kept_things.block(arg).path, None) is not None, None

    _answers: ClassVar[dict[str, Callable[[EagerKeeping, Any, bytes | None], Said]]] = {
        "keep.get": _get,
        "keep.put": _put,
        "keep.has": _has,
        "keep.drop": _drop,
        "lock.take": _take,
        "lock.renew": _renew,
        "lock.drop": _let_go,
        "lock.look": _look,
        "block.put": _save,
        "block.get": _load,
        "block.list": _list,
        "block.drop": _remove,
    }
