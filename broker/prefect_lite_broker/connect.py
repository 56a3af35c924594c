"""Makes bare redis-py connections: no pool, no retry, no read timeout of their own.

The writer decides what may be repeated, and bounds every exchange as a whole. Here is how one server is
reached; ``topology.py`` finds the right one of several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError

from .redis_url import Node, RedisAddress

Command = Callable[..., Awaitable[Any]]

Dial = Callable[[], Awaitable[AbstractConnection]]


# The stub says a tuple of one; any length is meant. redis-py's own packing is Python and 20 times slower.
pack_command: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # pyright: ignore[reportAssignmentType]


class Dialer(ABC):
    """Opens connections to the server that has a slot.

    Attributes:
        clustered: Whether slots may be on different servers.
        default_shards: How many parts a new namespace gets.
    """

    clustered = False
    default_shards = 1

    def __init__(self, address: RedisAddress) -> None:
        self._address = address

    def on(self, slot: int) -> Dial:
        """A function that dials whoever owns the slot at the time."""
        return partial(self.dial, slot)

    @abstractmethod
    async def dial(self, slot: int) -> AbstractConnection:
        """A connected, authenticated connection to the owner of a slot.

        Raises:
            RedisError, OSError: It could not be made.
        """

    @abstractmethod
    def doubt(self, error: BaseException) -> None:
        """What is known about the servers may be wrong: this was said by one, or by the way to it."""

    @abstractmethod
    async def elsewhere(self, slot: int, connection: AbstractConnection) -> bool:
        """Whether another server than the one of this connection has the slot by now.

        Raises:
            RedisError, OSError: Nobody knows.
        """

    @abstractmethod
    async def masters(self) -> list[Dial]:
        """A function for each server that takes writes."""


class OneServer(Dialer):
    """``redis://``, ``rediss://`` or ``unix://``."""

    async def dial(self, slot: int) -> AbstractConnection:
        return await connected(self._address.connection())

    def doubt(self, error: BaseException) -> None:
        pass  # there is no other

    async def elsewhere(self, slot: int, connection: AbstractConnection) -> bool:
        return False

    async def masters(self) -> list[Dial]:
        return [self.on(0)]


def leads_to(connection: AbstractConnection, node: Node) -> bool:
    """Whether a connection was made to this node."""
    return (getattr(connection, "host", ""), getattr(connection, "port", 0)) == node


async def connected(connection: AbstractConnection) -> AbstractConnection:
    """Connect it.

    Raises:
        RedisError, OSError: It could not be done; nothing is left open.
    """
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def send(connection: AbstractConnection, *packed: bytes) -> None:
    """Send packed commands; ends when the buffers have taken them.

    Raises:
        RedisError, OSError: The connection is of no use any more.
    """
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as exc:
        # uvloop's word for a transport that it has closed, when nobody was reading who would have noticed.
        raise ConnectionError(f"The connection was closed ({exc})") from exc


@asynccontextmanager
async def conversation(dial: Dial) -> AsyncIterator[Command]:
    """A connection for a few commands, one after the other; the caller bounds the time.

    Raises:
        RedisError, OSError: Of the connection or of a command.
    """
    connection = await dial()

    async def command(*words: Any) -> Any:
        await send(connection, pack_command(words))
        return await connection.read_response()

    try:
        yield command
    finally:
        await connection.disconnect(nowait=True)
