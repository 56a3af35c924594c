"""What waits to be sent on one connection, and how it is cut into frames.

``send`` is an append. ``next_frame`` takes everything that waits at that moment: urgent verbs first, then
the small messages in order, packed by one call into one frame. A message whose blob is longer than
``INLINE_BYTES`` becomes a CHUNK stream and travels a piece per frame, between the batches of small messages,
so neither a lease renewal nor a small result waits for more than one piece. Up to ``MAX_STREAMS`` blobs take
turns. Messages keep their order within the small ones; one with a streamed blob arrives with its last piece,
possibly after younger small ones.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, ClassVar, Final, cast

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.codec import (
    BLOB_FIELD,
    CHUNK_BYTES,
    MAX_FRAME,
    check_free,
    encode_rows,
    row_of,
)
from prefect_lite.protocol.inbox import MAX_STREAMS
from prefect_lite.protocol.messages import VERB_OF, Message

logger = logging.getLogger(__name__)

INLINE_BYTES: Final = 64 * 1024
"""Longest blob that travels inside its message."""
BATCH_BYTES: Final = 256 * 1024
"""A batch ends at about this size, half of what a frame may have: sizes are estimated before packing."""
BATCH_MESSAGES: Final = 2_048
LIST_PART: Final = 2_048
"""Longer lists are sent as several messages."""
MANY_PARENTS: Final = 64
"""A SUBMIT that names more runs travels like one with a long blob: 10,000 ids take two thirds of a frame."""
LONG_INFO: Final = 2_048
"""So does one with a longer ``info``: a batch of them, too long for a frame, would be packed in vain."""
NOTICE_PART: Final = 16
"""The same for notices: each may have some KiB."""


class _Stream:
    """A blob on its way and the message that will refer to it."""

    __slots__ = ("data", "offset", "row", "seq", "stream")

    def __init__(self, stream: int, message: Message, blob: bytes) -> None:
        self.stream = stream
        row = [*row_of(message)]
        row[BLOB_FIELD[type(message)] + 1] = stream
        self.row = tuple(row)
        self.data = memoryview(blob)  # slices without copying
        self.offset = 0
        self.seq = 0


class Outbox:
    """The sending half of a session.

    Args:
        max_payload_bytes: What the receiver holds at most in unfinished streams.

    Attributes:
        piece_bytes: Length of the pieces and about that of the batches; at most ``CHUNK_BYTES``.
    """

    __slots__ = (
        "_active", "_active_bytes", "_batch_due", "_frames", "_next_stream", "_small", "_urgent", "_waiting",
        "max_payload_bytes", "piece_bytes",
    )  # fmt: skip

    def __init__(self, max_payload_bytes: int) -> None:
        self.max_payload_bytes = max_payload_bytes
        self.piece_bytes = CHUNK_BYTES
        self._urgent: deque[Message] = deque()
        self._small: deque[Message] = deque()
        self._waiting: deque[tuple[Message, bytes]] = deque()
        self._active: deque[_Stream] = deque()
        self._active_bytes = 0
        self._next_stream = 1
        self._batch_due = True  # batches and pieces alternate when both wait
        self._frames: deque[bytes] = deque()  # already packed: halves of a batch that came out too long

    @property
    def has_data(self) -> bool:
        """Whether ``next_frame`` would return a frame."""
        return bool(self._small or self._urgent or self._active or self._waiting or self._frames)

    @property
    def backlog(self) -> int:
        """Messages and streams that wait."""
        return len(self._small) + len(self._urgent) + len(self._active) + len(self._waiting)

    @property
    def weight(self) -> int:
        """Estimated bytes of what waits, without blobs on their way as CHUNKs. O(``backlog``): ask rarely."""
        messages: Iterator[Message] = chain(self._urgent, self._small)
        return sum(map(len, self._frames)) + sum(map(_weigh, messages))

    def send(self, message: Message) -> None:
        """Queue a message; O(1)."""
        place = self._places.get(type(message))
        if place is None:
            self._small.append(message)
        else:
            place(self, message)

    def clear(self) -> None:
        """Let go of everything."""
        for waiting in (self._urgent, self._small, self._waiting, self._active, self._frames):
            waiting.clear()
        self._active_bytes = 0

    def next_frame(self) -> bytes | None:
        """Cut the next frame, None when nothing waits."""
        while True:
            if self._frames:
                return self._frames.popleft()
            streams = bool(self._active or self._waiting)
            if self._urgent or (self._small and (self._batch_due or not streams)):
                self._batch_due = not streams
                rows = self._batch()
            elif streams:
                self._batch_due = True
                rows = self._piece()
            else:
                return None
            self._pack(rows)

    def frames(self) -> Iterator[bytes]:
        """All frames until nothing waits; stopping early loses nothing."""
        return iter(self.next_frame, None)

    def _batch(self) -> list[tuple[Any, ...]]:
        rows = [row_of(message) for message in self._urgent]
        self._urgent.clear()
        small: deque[Any] = self._small
        pop = small.popleft
        verb_of = VERB_OF
        weight_of = _WEIGHTS
        room = min(BATCH_BYTES, self.piece_bytes)
        for _ in range(min(len(small), BATCH_MESSAGES)):
            message = pop()
            cls: type[Message] = type(message)  # pyright: ignore[reportUnknownVariableType]
            weight = weight_of.get(cls)
            if weight is not None:
                index, each = weight
                room -= len(message[index] or ()) * each
            rows.append((verb_of[cls], *message))
            room -= 128
            if room < 0:
                break
        return rows

    def _piece(self) -> list[tuple[Any, ...]]:
        while self._waiting and len(self._active) < MAX_STREAMS:
            message, blob = self._waiting[0]
            if self._active and self._active_bytes + len(blob) > self.max_payload_bytes:
                break
            self._waiting.popleft()
            self._active.append(_Stream(self._next_stream, message, blob))
            self._active_bytes += len(blob)
            self._next_stream += 1
        stream = self._active.popleft()
        end = stream.offset + self.piece_bytes
        rows: list[tuple[Any, ...]] = [("CHUNK", stream.stream, stream.seq, stream.data[stream.offset : end])]
        stream.offset = end
        stream.seq += 1
        if end < len(stream.data):
            self._active.append(stream)
        else:
            self._active_bytes -= len(stream.data)
            rows.append(stream.row)
        return rows

    def _pack(self, rows: list[tuple[Any, ...]]) -> None:
        """Append the rows to the packed frames; what can't be sent alone is dropped and logged."""
        problem: Exception | None = None
        try:
            frame = encode_rows(rows)
        except (TypeError, ValueError, OverflowError) as exc:
            problem = exc
        else:
            if len(frame) <= MAX_FRAME:
                self._frames.append(frame)
                return
        if len(rows) > 1:
            middle = len(rows) // 2
            self._pack(rows[:middle])
            self._pack(rows[middle:])
            return
        reason = f"over {MAX_FRAME} bytes" if problem is None else f"not encodable ({problem})"
        verb, *fields = rows[0]
        if verb == "ANSWER" and fields[1]:
            # Whoever asked must not wait for ever.
            self._frames.append(encode_rows([row_of(_too_large(fields[0], reason))]))
        else:
            logger.error("A %s was not sent: %s", verb, reason, extra={"action": "drop_message"})

    def _send_urgent(self, message: Message) -> None:
        self._urgent.append(message)

    def _send_cancel(self, message: m.Cancel) -> None:
        # One for a worker names a lease and must reach it at once. One from a client keeps its place
        # behind the SUBMIT of its run.
        (self._urgent if message.token else self._small).append(message)

    def _send_blob(self, message: Message) -> None:
        blob: bytes | None = cast("tuple[Any, ...]", message)[BLOB_FIELD[type(message)]]
        if blob is None or len(blob) <= INLINE_BYTES:
            self._small.append(message)
        else:
            self._waiting.append((message, blob))

    def _send_submit(self, message: m.Submit) -> None:
        body = message.body
        parents = len(message.parents) + len(message.tolerated)
        long = parents > MANY_PARENTS or len(message.info) > LONG_INFO
        if len(body) > INLINE_BYTES or (long and body):
            self._waiting.append((message, body))
        else:
            self._small.append(message)

    def _send_answer(self, message: m.Answer) -> None:
        # Beyond these limits it would cost the receiver its connection, and the question would come again.
        try:
            check_free(message.value)
        except ValueError as exc:
            message = _too_large(message.request, f"beyond a limit: {exc}")
        self._send_blob(message)

    def _send_accepted(self, message: m.Accepted) -> None:
        if len(message.aliases) + len(message.notices) > NOTICE_PART:
            # Before the ids: whoever waits for those has then heard the rest.
            for notices in _parts(message.notices, NOTICE_PART):
                self._small.append(m.Accepted([], [], notices))
            for aliases in _parts(message.aliases, LIST_PART):
                self._small.append(m.Accepted([], aliases))
            message = m.Accepted(message.run_ids)
        self._send_list(message)

    def _send_list(self, message: m.Accepted | m.Done | m.Watch | m.Unwatch) -> None:
        items: list[Any] = message[0]
        if len(items) <= LIST_PART:
            self._small.append(message)
            return
        parts = _parts(items, LIST_PART)
        # Further fields (aliases, notices) go with the first part.
        self._small.append(message._replace(**{message._fields[0]: parts[0]}))
        self._small.extend(type(message)(part) for part in parts[1:])

    def _send_renew(self, message: m.Renew) -> None:
        # The last one says all; on a slow link several would arrive together.
        urgent = self._urgent
        if urgent and type(urgent[-1]) is m.Renew:
            urgent.pop()
        urgent.append(message)

    # Where the verbs go that do not simply queue up.
    _places: ClassVar[dict[type[Message], Callable[[Outbox, Any], None]]] = {
        m.Serve: _send_urgent,  # before the READY that asks for runs of these keys
        m.Renew: _send_renew,
        m.Ready: _send_urgent,
        m.Revoke: _send_urgent,
        m.Cancel: _send_cancel,
        m.Submit: _send_submit,
        m.Run: _send_blob,
        m.Finish: _send_blob,
        m.RunState: _send_blob,
        m.Accepted: _send_accepted,
        m.Query: _send_blob,
        m.Answer: _send_answer,
        m.Done: _send_list,
        m.Watch: _send_list,
        m.Unwatch: _send_list,
    }


_WEIGHTS: Final[dict[type[Message], tuple[int, int]]] = {
    **{cls: (index, 1) for cls, index in BLOB_FIELD.items()},
    m.Accepted: (0, 34),
    m.Watch: (0, 34),
    m.Unwatch: (0, 34),
    m.Done: (0, 72),
    m.Log: (1, 128),
}
"""Index of the field whose length tells the size of a message, and bytes per item."""


def _parts(items: list[Any], length: int) -> list[list[Any]]:
    return [items[start : start + length] for start in range(0, len(items), length)]


def _too_large(request: int, reason: str) -> m.Answer:
    return m.Answer(request, False, ["too_large", f"The answer is {reason}."])


def _weigh(message: Message) -> int:
    weight = _WEIGHTS.get(type(message))
    fields = cast("tuple[Any, ...]", message)
    total = 128 if weight is None else 128 + len(fields[weight[0]] or ()) * weight[1]
    return total + (_weigh_free(message.value) if type(message) is m.Answer else 0)


def _weigh_free(value: Any) -> int:
    """Estimated bytes of a free-form value."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        return sum(_weigh_free(key) + _weigh_free(part) for key, part in entries.items())
    if isinstance(value, list | tuple):
        return sum(map(_weigh_free, cast("list[Any]", value)))
    return 8
