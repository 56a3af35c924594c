"""Makes bare redis-py connections: no pool, no retry, no read timeout of their own.

The writer decides what may be repeated, and bounds every exchange as a whole.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, parse_url

CONNECT_SECONDS = 5.0


class Dialer:
    """Opens connections to one Redis URL (``redis://``, ``rediss://`` or ``unix://``).

    Raises:
        ValueError: The URL has another scheme.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
        options.update(
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            client_name="prefect-lite",
        )
        if "path" not in options:
            options["socket_keepalive"] = True
        self._options = options

    async def __call__(self) -> AbstractConnection:
        """A connected, authenticated connection.

        Raises:
            RedisError, OSError: It could not be made.
        """
        connection = self._class(**self._options)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection
