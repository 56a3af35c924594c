"""A connection to Redis whose replies are handed on in the callback that brings their bytes.

redis-py dials, authenticates and says hello; then this takes its transport over. Through its stream reader
every reply would wake a task a turn of the loop later, behind a timeout made for each exchange: on the way of
a single run that was a fifth of the broker's work.

A link is used until its first fault and never again: a reply that was not read would be taken for the next
one's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, RedisError, ResponseError

_MORE: Final = object()
"""What the parser returns when it needs more bytes."""


class RedisLink(asyncio.Protocol):
    """Takes over a connected redis-py connection on which nothing is in flight.

    Args:
        connection: Closed by whoever made it, after ``abort``.
        on_reply: Called with each reply; an error reply comes as a ``ResponseError``. What it raises ends the
            link.
        on_read: Called after the replies that came together.
        on_writable: Called when there is room for more, after ``full``.
        on_lost: Called once, with why the link is of no use any more.

    Attributes:
        error: Why it ended, None while it is of use.
        full: The transport has taken as much as it likes to hold.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        on_reply: Callable[[Any], None],
        on_read: Callable[[], None],
        on_writable: Callable[[], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self.error: BaseException | None = None
        self.full = False
        self._on_reply = on_reply
        self._on_read = on_read
        self._on_writable = on_writable
        self._on_lost = on_lost
        self._asked: asyncio.Future[list[Any]] | None = None
        self._answers: list[Any] = []
        self._due = 0
        # redis-py has no public way to its streams; ``redis[hiredis]`` of every version has these two.
        own: Any = connection
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=own._parser.parse_error, notEnoughData=_MORE
        )
        self._gets = self._parser.gets
        self._transport = cast("asyncio.Transport", own._writer.transport)
        self._transport.set_protocol(self)
        if self._transport.is_closing() or own._reader.at_eof():
            self.fail(ConnectionError("Redis has closed the connection"))

    # -- out ----------------------------------------------------------------------------------------
    def send(self, packed: list[bytes]) -> None:
        """Give packed commands to the transport."""
        if self.error is not None:
            return
        try:
            if len(packed) == 1:
                self._transport.write(packed[0])
            else:
                self._transport.writelines(packed)
        except RuntimeError as exc:
            # uvloop's word for a transport that it has closed.
            self.fail(ConnectionError(f"The connection was closed ({exc})"))

    async def ask(self, packed: list[bytes]) -> list[Any]:
        """Send commands while nothing else is in flight, and wait for the replies; the caller bounds it.

        Raises:
            RedisError, OSError: The link is lost, or Redis refused one of them.
        """
        if self.error is not None:
            raise self.error
        asked = self._asked = asyncio.get_running_loop().create_future()
        self._answers, self._due = [], len(packed)
        try:
            self.send(packed)
            return await asked
        finally:
            self._asked = None
            if not asked.done() or asked.cancelled():
                self.fail(TimeoutError())  # what is still to come would be taken for something else

    def fail(self, error: BaseException) -> None:
        """The link is of no use any more; only the first reason counts."""
        if self.error is not None:
            return
        self.error = error
        self._transport.abort()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)
        self._on_lost(error)

    # -- callbacks of the transport -----------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            self._parser.feed(data)
            gets, on_reply = self._gets, self._on_reply
            while (reply := gets()) is not _MORE:
                if self._asked is not None:
                    self._answered(reply)
                    continue
                if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
                    raise reply  # loading its data, no more connections allowed, or not RESP at all
                on_reply(reply)
                if self.error is not None:
                    return
            self._on_read()
        except Exception as exc:
            self.fail(exc)

    def _answered(self, reply: Any) -> None:
        asked = self._asked
        if asked is None or asked.done():
            raise InvalidResponse("more replies than commands")
        self._answers.append(reply)
        if len(self._answers) < self._due:
            return
        errors = [answer for answer in self._answers if isinstance(answer, RedisError)]
        if errors:
            asked.set_exception(errors[0])
        else:
            asked.set_result(self._answers)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionError("Redis has closed the connection"))
