"""Limits of what a broker keeps by name (cache entries, locks, saved blocks), and the checks of questions
about it: the broker makes them, and what stands in for one in tests.

Each check takes the ``arg`` of a QUERY and returns its parts.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, cast

from prefect_lite.protocol.checks import MAX_SECONDS

MAX_ENTRY_KEY: Final = 1_024
"""Bytes of the key of an entry or lock, in UTF-8."""
MAX_HOLDER: Final = 256
"""Bytes of the name of who holds a lock."""
MAX_HOLD_SECONDS: Final = 604_800.0
"""A lock is kept for a week at most between two renewals."""
LEAST_SECONDS: Final = 0.001
"""Redis counts milliseconds."""
MAX_MARK: Final = 64
"""Characters of the mark that tells a repeated question from a second one."""
MAX_BLOCK_BYTES: Final = 262_144
"""Length of a saved block."""
MAX_BLOCKS: Final = 10_000
"""Saved blocks of a namespace."""
MAX_BLOCK_NAME: Final = 128

_name = re.compile(rf"[a-z0-9-]{{1,{MAX_BLOCK_NAME}}}").fullmatch


class Put(NamedTuple):
    """``keep.put``: ``ttl_seconds`` 0 keeps the entry while it is read; ``fence`` "" asks for no lock.

    ``mark`` is that of a question with a fence; it is the same when that is asked again, and no other's.
    """

    key: str
    ttl_seconds: float
    fence: str
    mark: str = ""


class Hold(NamedTuple):
    """``lock.take`` and ``lock.renew``."""

    key: str
    holder: str
    seconds: float


class Drop(NamedTuple):
    """``lock.drop``; ``mark`` as in ``Put``."""

    key: str
    holder: str
    mark: str


class BlockName(NamedTuple):
    """Kind and name of a saved block, and the mark as in ``Put``."""

    slug: str
    name: str
    overwrite: bool = False
    mark: str = ""

    @property
    def path(self) -> str:
        """Kind and name in one."""
        return f"{self.slug}/{self.name}"


def entry_key(value: Any) -> str:
    """The key of an entry or lock.

    Raises:
        ValueError: It is none; the text is a sentence without its end.
    """
    if isinstance(value, str) and value and len(value) <= MAX_ENTRY_KEY:
        try:
            if len(value.encode()) <= MAX_ENTRY_KEY:
                return value
        except UnicodeEncodeError:
            raise ValueError("a key must be text that can be written in UTF-8") from None
    raise ValueError(f"a key must be a text of 1 to {MAX_ENTRY_KEY:,} bytes")


def only_key(arg: Any) -> str:
    """``keep.get``, ``keep.has``, ``keep.drop``, ``lock.look``: [key]; raises like ``entry_key``."""
    (key,) = _parts(arg, 1, 1, "[key]")
    return entry_key(key)


def put(arg: Any) -> Put:
    """``keep.put``: [key, ttl in seconds or None, fence or None, mark or None]; raises like ``entry_key``."""
    key, ttl, fence, mark = _parts(arg, 1, 4, "[key, ttl_seconds, fence, mark]")
    seconds = 0.0 if ttl is None else _seconds(ttl, MAX_SECONDS, "the ttl of an entry")
    return Put(entry_key(key), seconds, "" if fence is None else _holder(fence), _mark(mark))


def hold(arg: Any) -> Hold:
    """``lock.take`` and ``lock.renew``: [key, holder, seconds]; raises like ``entry_key``."""
    key, holder, seconds = _parts(arg, 3, 3, "[key, holder, hold_seconds]")
    return Hold(entry_key(key), _holder(holder), _seconds(seconds, MAX_HOLD_SECONDS, "the time of a lock"))


def drop(arg: Any) -> Drop:
    """``lock.drop``: [key, holder, mark or None]; raises like ``entry_key``."""
    key, holder, mark = _parts(arg, 2, 3, "[key, holder, mark]")
    return Drop(entry_key(key), _holder(holder), _mark(mark))


def block(arg: Any) -> BlockName:
    """``block.get`` and ``block.drop``: [slug, name, mark or None]; raises like ``entry_key``."""
    slug, name, mark = _parts(arg, 2, 3, "[slug, name, mark]")
    return BlockName(_block_word(slug, "slug"), _block_word(name, "name"), mark=_mark(mark))


def block_put(arg: Any) -> BlockName:
    """``block.put``: [slug, name, overwrite, mark or None]; raises like ``entry_key``."""
    slug, name, overwrite, mark = _parts(arg, 3, 4, "[slug, name, overwrite, mark]")
    if not isinstance(overwrite, bool):
        raise ValueError("overwrite must be true or false")
    return BlockName(_block_word(slug, "slug"), _block_word(name, "name"), overwrite, _mark(mark))


def block_position(arg: Any) -> str:
    """``block.list``: the position that the page before has named, or None; raises like ``entry_key``."""
    if arg is None:
        return ""
    if isinstance(arg, str) and len(arg) <= 2 * MAX_BLOCK_NAME + 1:
        return arg
    raise ValueError("blocks are listed from the position that the page before has named, or from nothing")


def check_block_body(body: bytes | None) -> bytes:
    """The document of a block; raises like ``entry_key``."""
    if not body:
        raise ValueError("a block has to be saved with its document")
    if len(body) > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {len(body):,} bytes is over {MAX_BLOCK_BYTES:,}")
    return body


def _parts(arg: Any, least: int, most: int, shape: str) -> list[Any]:
    parts = cast("list[Any]", arg) if isinstance(arg, list) else []
    if not least <= len(parts) <= most:
        raise ValueError(f"this question takes {shape}")
    return [*parts, *[None] * (most - len(parts))]


def _holder(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.encode("utf-8", "replace")) <= MAX_HOLDER:
        raise ValueError(f"the holder of a lock must be a text of 1 to {MAX_HOLDER} bytes")
    return value


def _mark(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_MARK:
        raise ValueError(f"the mark of a question must be a text of at most {MAX_MARK} characters")
    return value


def _seconds(value: Any, most: float, what: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not LEAST_SECONDS <= value <= most:
        raise ValueError(f"{what} must be a number of seconds from {LEAST_SECONDS:g} to {most:,.0f}")
    return float(value)


def _block_word(value: Any, what: str) -> str:
    if not isinstance(value, str) or _name(value) is None:
        raise ValueError(
            f"the {what} of a block must be 1 to {MAX_BLOCK_NAME} lower-case letters, digits and dashes"
        )
    return value
