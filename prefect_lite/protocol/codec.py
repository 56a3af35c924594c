"""Messages to frames and back: msgpack, type checks and limits.

A frame is one msgpack array of messages; it never exceeds ``MAX_FRAME`` bytes. Two kinds of error come out
of here, both as ``ProtocolError``: a single message that is not understood is recoverable (the rest of its
frame counts), a frame that is not an array of messages is fatal.

Type checks cost one list comparison per message: the types of all fields are compared with the shape that
was last accepted for this verb, and only on a miss looked up among all accepted shapes.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast, get_origin, get_type_hints

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from prefect_lite.exceptions import PrefectLiteError
from prefect_lite.protocol.checks import CHECKS, MAX_DEPTH
from prefect_lite.protocol.messages import (
    VERB_OF,
    VERBS,
    Answer,
    Finish,
    Message,
    Query,
    Run,
    RunState,
    Submit,
)

_msgpack: Any = msgpack
KIB: Final = 1024
MAX_FRAME: Final = 512 * KIB
"""Bytes of a frame; a peer that sends more is cut off."""
CHUNK_BYTES: Final = 256 * KIB
"""Bytes of a blob per CHUNK."""
MAX_ARRAY: Final = 10_000
"""Items per array, as many as a run may have parents. msgpack reserves an array when it reads its header,
before any item, and nests up to 1,024 arrays: this bounds what a hostile frame can make it reserve to
80 MiB (untouched, freed at once)."""
MAX_MAP: Final = 1_024

BLOB_FIELD: Final[dict[type[Message], int]] = {
    cls: cls._fields.index(name)
    for cls, name in (
        (Submit, "body"),
        (Run, "body"),
        (Finish, "result"),
        (RunState, "result"),
        (Query, "body"),
        (Answer, "body"),
    )
}
"""Classes with a blob and its index; on the wire the field may be the number of a CHUNK stream."""


class ProtocolError(PrefectLiteError):
    """A frame or message that breaks the protocol.

    Attributes:
        code: Machine code, e.g. ``unknown_verb``.
        text: A sentence for people.
        fatal: Whether the connection has to be closed.
        verb: Wire name of the offending message, if it could be told.
        fields: Its raw fields, unchecked.
    """

    def __init__(
        self, code: str, text: str, fatal: bool = False, *, verb: str = "", fields: Sequence[Any] = ()
    ) -> None:
        super().__init__(f"{text} [{code}]")
        self.code = code
        self.text = text
        self.fatal = fatal
        self.verb = verb
        self.fields = fields


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the protocol")


_LIMITS: Final[dict[str, Any]] = {
    "raw": False,
    "strict_map_key": True,
    "max_array_len": MAX_ARRAY,
    "max_map_len": MAX_MAP,
    "max_str_len": MAX_FRAME,
    "max_bin_len": CHUNK_BYTES,
    "max_ext_len": 0,
    "ext_hook": _no_extension,
}


class _Row:
    """How one verb is decoded."""

    __slots__ = ("check", "cls", "defaults", "last", "least", "shapes", "types", "verb", "width")

    def __init__(self, verb: str, cls: type[Message]) -> None:
        self.verb = verb
        self.cls = cls
        self.check: Callable[[Any], None] | None = CHECKS[cls]
        hints = get_type_hints(cls)
        blob = BLOB_FIELD.get(cls)
        self.types: list[frozenset[type] | None] = [frozenset((str,))]
        for index, name in enumerate(cls._fields):
            self.types.append(_allowed(hints[name], blob=index == blob))
        self.width = len(self.types)
        self.defaults = [cls._field_defaults[name] for name in cls._fields if name in cls._field_defaults]
        self.least = self.width - len(self.defaults)
        self.last: list[type] = []
        self.shapes: set[tuple[type, ...]] = set()

    def accept(self, item: list[Any], shape: list[type]) -> list[Any]:
        """Check a message whose shape is not the last one; returns it at full width.

        Raises:
            ValueError: Fields are missing or have another type.
        """
        if len(shape) != self.width:
            if len(shape) < self.least:
                raise ValueError(f"{len(shape) - 1} fields, at least {self.least - 1} are needed")
            # A newer peer may send more fields, an older one fewer.
            item = [*item[: self.width], *self.defaults[len(shape) - self.least :]]
            shape = [*map(type, item)]
        key = tuple(shape)
        if key not in self.shapes:
            for index, (got, allowed) in enumerate(zip(shape, self.types, strict=True)):
                if allowed is not None and got not in allowed:
                    name = self.cls._fields[index - 1]
                    raise ValueError(f"field {name!r} of {self.verb} can't be {got.__name__}")
            # Few types per field and few free-form fields: the set can't grow past some dozens.
            self.shapes.add(key)
        self.last = shape
        return item


def _allowed(hint: Any, *, blob: bool) -> frozenset[type] | None:
    """The exact types of a field, None for free-form ones."""
    if hint is Any:
        return None
    parts: tuple[Any, ...] = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    found: set[type] = {get_origin(part) or part for part in parts}
    if float in found:
        found.add(int)
    if blob:
        found.add(int)
    return frozenset(found)


_ROWS: Final[dict[str, _Row]] = {verb: _Row(verb, cls) for verb, cls in VERBS.items()}


class _Packers(threading.local):
    """One packer per thread: a packer reserves 256 KiB, too much for one per connection."""

    def __init__(self) -> None:
        self.strict: Callable[[Any], bytes] = _msgpack.Packer().pack
        self.lenient: Callable[[Any], bytes] = _msgpack.Packer(unicode_errors="replace").pack


_packers = _Packers()


def row_of(message: Message) -> tuple[Any, ...]:
    """The wire form of a message, ``(verb, *fields)``."""
    return (VERB_OF[type(message)], *message)


def encode_rows(rows: list[tuple[Any, ...]]) -> bytes:
    """Pack messages given in wire form; the caller compares the length with ``MAX_FRAME``.

    Lone surrogates (``str`` of an exception about a file name may hold some) become question marks.

    Raises:
        TypeError, ValueError, OverflowError: A free-form value can't be encoded.
    """
    try:
        return _packers.strict(rows)
    except UnicodeEncodeError:
        return _packers.lenient(rows)


def check_free(value: Any, depth: int = MAX_DEPTH) -> None:
    """Look at a free-form value as the receiver will.

    Raises:
        ValueError: It would refuse the message, or with it the whole frame.
    """
    parts: list[Any]
    if isinstance(value, dict):
        parts = [*cast("dict[Any, Any]", value).values()]
        _at_most(len(parts), MAX_MAP, "entries of a map")
    elif isinstance(value, list | tuple):
        parts = [*cast("list[Any]", value)]
        _at_most(len(parts), MAX_ARRAY, "items of a list")
    else:
        if isinstance(value, bytes):
            _at_most(len(value), CHUNK_BYTES, "bytes of a value")
        return
    if depth == 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    for part in parts:
        check_free(part, depth - 1)


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ValueError(f"{count:,} {what} are more than {limit:,}")


def encode_frame(messages: Iterable[Message]) -> bytes:
    """One frame of all messages.

    Raises:
        ProtocolError: A value can't be encoded, or the frame is longer than ``MAX_FRAME``.
    """
    try:
        frame = encode_rows([(VERB_OF[type(message)], *message) for message in messages])
    except (TypeError, ValueError, OverflowError) as exc:
        raise ProtocolError("not_encodable", f"A message can't be encoded: {exc}.") from exc
    if len(frame) > MAX_FRAME:
        raise ProtocolError("frame_too_long", f"A frame of {len(frame)} bytes is over {MAX_FRAME}.")
    return frame


# What ``cls._make`` does, without the length check that was already made.
_new_message = cast(
    "Callable[[type[Message], list[Any]], Message]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType]
)


def decode_frame(data: bytes, refused: list[ProtocolError] | None = None) -> list[Message]:
    """The messages of one frame, checked.

    Args:
        data: The frame.
        refused: Collects the recoverable errors; without it the first one is raised.

    Raises:
        ProtocolError: The frame is not an array of messages (fatal).
    """
    if len(data) > MAX_FRAME:
        raise ProtocolError("frame_too_long", f"A frame of {len(data)} bytes is over {MAX_FRAME}.", True)
    try:
        items: Any = _msgpack.unpackb(data, **_LIMITS)
    except (ValueError, TypeError) as exc:
        raise ProtocolError("malformed", f"A frame is not msgpack within limits: {exc}.", True) from exc
    if not isinstance(items, list):
        raise ProtocolError("malformed", "A frame must be an array of messages.", True)
    rows = _ROWS
    new = _new_message
    messages: list[Message] = []
    for item in cast("list[list[Any]]", items):
        try:
            row = rows[item[0]]
            shape: list[type] = [*map(type, item)]
            message = new(row.cls, (item if shape == row.last else row.accept(item, shape))[1:])
            if row.check is not None:
                row.check(message)
        except (ValueError, TypeError, KeyError, IndexError) as exc:
            problem = _explain(item, exc)
            if problem.fatal or refused is None:
                raise problem from exc
            refused.append(problem)
        else:
            messages.append(message)
    return messages


def _explain(item: Any, exc: Exception) -> ProtocolError:
    if not isinstance(item, list) or not item or not isinstance(item[0], str):
        return ProtocolError("malformed", "A message must be an array that begins with a verb.", True)
    verb, *fields = cast("list[Any]", item)
    if verb not in _ROWS:
        return ProtocolError("unknown_verb", f"Verb {verb[:32]!r} is not known here.", verb=verb[:32])
    return ProtocolError("invalid", f"{verb} is refused: {exc}.", verb=verb, fields=fields)
