"""The part of a protocol session that both sides share: no I/O, no clock.

Whoever owns the connection feeds every frame to ``receive``, sends the frames of ``data_to_send`` whenever
``has_data``, and calls ``tick`` when ``next_deadline`` has come (``pump.py`` does all three).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from prefect_lite.protocol.codec import BLOB_FIELD, ProtocolError, decode_frame
from prefect_lite.protocol.inbox import Inbox
from prefect_lite.protocol.messages import VERB_OF, Chunk, Error, Message
from prefect_lite.protocol.outbox import Outbox

logger = logging.getLogger(__name__)

MAX_ERRORS: Final = 100
"""Recoverable errors on one connection; the next one is fatal."""
SILENT_CODE: Final = "silent"

Handler = Callable[[Any, Any, "list[Message]"], None]
"""Called as ``handler(session, message, out)``; appends to ``out`` what the application shall see."""


def forbidden(session: Session, message: Message, out: list[Message]) -> None:
    """The handler of verbs that the other side's role may not send."""
    verb = VERB_OF[type(message)]
    raise ProtocolError("forbidden", f"{verb} is not allowed here.", verb=verb, fields=message)


class Session:
    """One side of a connection.

    Attributes:
        closed: A fatal error happened in either direction; nothing is received any more.
        renew_seconds: The beat of RENEW, 0 before WELCOME.
        lease_seconds: Life of a lease, 0 before WELCOME. Silence for three quarters of it, or half-way from
            a beat to it if that is longer, means that the other side is gone.
        heard_at: When the last frame came, in the clock given to ``tick``. Told by whoever has the clock;
            0.0, not told: then a tick that finds one takes it for as old as itself.
    """

    _handlers: Mapping[type[Message], Handler | None]
    """Per message class: None passes it on, a missing one is forbidden."""
    _no_handlers: ClassVar[Mapping[type[Message], Handler | None]] = {}

    def __init__(self, *, max_payload_bytes: int) -> None:
        self._handlers = self._no_handlers
        self._max_payload_bytes = max_payload_bytes
        self.renew_seconds = 0.0
        self.lease_seconds = 0.0
        self._reset_connection()

    def _reset_connection(self) -> None:
        self._outbox = Outbox(self._max_payload_bytes)
        self._inbox = Inbox(self._max_payload_bytes)
        self.closed = False
        self._errors = 0
        self._heard = True
        self.heard_at = 0.0
        self._quiet_since = 0.0
        self._next_beat = 0.0
        self._next_tick: float | None = None

    # -- sending ----------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a message; O(1)."""
        self._outbox.send(message)

    @property
    def has_data(self) -> bool:
        """Whether a frame waits to be sent."""
        return self._outbox.has_data

    @property
    def backlog(self) -> int:
        """Messages that wait to be sent."""
        return self._outbox.backlog

    @property
    def backlog_bytes(self) -> int:
        """About how long those are, without streamed blobs; looks at each of them."""
        return self._outbox.weight

    def discard(self) -> None:
        """Let go of what waits to be sent: the connection is gone."""
        self._outbox.clear()

    def cut_short(self, piece_bytes: int) -> None:
        """Cut frames of about this size from now on, at most ``CHUNK_BYTES``."""
        self._outbox.piece_bytes = piece_bytes

    def next_frame(self) -> bytes | None:
        """The next frame to send, None when nothing waits."""
        return self._outbox.next_frame()

    def data_to_send(self) -> Iterator[bytes]:
        """The frames to send now; stopping the iteration early loses nothing."""
        return self._outbox.frames()

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Message]:
        """Take a frame and return the messages the application has to act on, blobs in place.

        Recoverable errors are answered from here.

        Raises:
            ProtocolError: A fatal one. The ERROR for the other side is queued; send it, then close.
        """
        if self.closed:
            return []
        self._heard = True
        out: list[Message] = []
        refused: list[ProtocolError] = []
        handlers = self._handlers
        blobs = BLOB_FIELD
        try:
            for message in decode_frame(data, refused):
                cls = type(message)
                handler = handlers.get(cls, forbidden)
                fields: tuple[Any, ...] = message
                try:
                    if handler is not forbidden and cls in blobs and type(fields[blobs[cls]]) is int:
                        message = self._inbox.resolve(message)  # noqa: PLW2901
                    if handler is None:
                        out.append(message)
                    else:
                        handler(self, message, out)
                except ProtocolError as problem:
                    refused.append(problem)
                    if problem.fatal:
                        raise
            for problem in refused:
                self._refuse(problem, out)
        except ProtocolError as problem:
            self._fail(problem)
            raise
        return out

    def _refuse(self, problem: ProtocolError, out: list[Message]) -> None:
        """Answer a recoverable error; a side may do so in its own words."""
        self._errors += 1
        if self._errors > MAX_ERRORS:
            raise ProtocolError("too_many_errors", f"More than {MAX_ERRORS} errors on this connection.", True)
        if problem.verb == "ERROR":
            raise ProtocolError("malformed", problem.text, True)  # an answer to it could go round for ever
        self.send(Error(problem.code, problem.text))

    def _fail(self, problem: ProtocolError) -> None:
        self.closed = True
        self.send(Error(problem.code, problem.text, True))

    def _on_chunk(self, message: Chunk, out: list[Message]) -> None:
        self._inbox.add(message)

    def _on_error(self, message: Error, out: list[Message]) -> None:
        if message.fatal:
            self.closed = True
        out.append(message)

    # -- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call ``tick``, in the clock given to it; None before WELCOME, 0.0 for "now"."""
        if not self.renew_seconds or self.closed:
            return None
        return 0.0 if self._next_tick is None else self._next_tick

    @property
    def silence_seconds(self) -> float:
        """Silence that means that the other side is gone: always more than a beat, less than a lease."""
        return max(0.75 * self.lease_seconds, (self.lease_seconds + self.renew_seconds) / 2)

    def tick(self, now: float) -> None:
        """Do what is due at ``now`` (monotonic seconds).

        Raises:
            ProtocolError: The other side was silent for ``silence_seconds`` (fatal, code ``silent``).
        """
        due = self.next_deadline()
        if due is None or now < due:
            return
        first = self._next_tick is None
        # A tick that comes much too late means that this process was stopped or starved: what the other
        # side said meanwhile is still unread.
        if first or now - due > self.renew_seconds:
            self._quiet_since = now
        elif self._heard:
            self._quiet_since = self.heard_at or now
        elif now - self._quiet_since >= self.silence_seconds:
            self.closed = True
            quiet = now - self._quiet_since
            raise ProtocolError(SILENT_CODE, f"Nothing was heard for {quiet:.1f} s.", True)
        self._heard = False
        if first or now >= self._next_beat:
            self._next_beat = now + self.renew_seconds
            if not first:
                self._beat()
        self._next_tick = min(self._next_beat, max(now, self._quiet_since + self.silence_seconds))

    def taken(self, now: float) -> None:
        """The other side took a frame at ``now`` for which there had been no room: a sign of life."""
        self._heard = True
        self.heard_at = now

    def _beat(self) -> None:
        """Called every ``renew_seconds``."""
