"""How a writer gets to its shard: the connection, made and prepared, and who is asked about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from redis.asyncio.connection import AbstractConnection

from .connect import Dial, pack_command, send
from .scripts import SCRIPTS
from .trouble import Trouble


class Way(NamedTuple):
    """See the module docstring.

    Attributes:
        dial: Makes a connected redis-py connection without any retry of its own.
        elsewhere: Whether such a connection leads to the wrong server by now.
        doubt: Told of errors that another server may not have.
        trouble: Where the log is told from.
        shard: Its number.
        replicas: That have to confirm each pipeline of writes.
        replicas_ms: Time for them to do so.
    """

    dial: Dial
    elsewhere: Callable[[AbstractConnection], Awaitable[bool]]
    doubt: Callable[[BaseException], None]
    trouble: Trouble
    shard: int = 0
    replicas: int = 0
    replicas_ms: int = 1000

    async def open(self, prefix: bytes) -> AbstractConnection:
        """A connection on which the scripts are loaded and nothing is in flight; the caller bounds the time.

        Args:
            prefix: Start of the shard's keys.

        Raises:
            RedisError, OSError: It could not be made; nothing is left open.
        """
        connection = await self.dial()
        try:
            commands = load_scripts()
            await send(connection, *commands)
            for _ in commands:
                await connection.read_response()
            if self.replicas:
                # WAIT speaks only for what was written before the last write of its own connection.
                await send(connection, pack_command(("EVALSHA", SCRIPTS["mark"].sha, 1, prefix)))
                await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


def load_scripts() -> list[bytes]:
    """The packed commands that make Redis know all scripts."""
    return [pack_command(("SCRIPT", "LOAD", script.source)) for script in SCRIPTS.values()]
