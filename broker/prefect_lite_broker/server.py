"""The sockets of a broker: websockets on TCP or a unix socket, with the library's traps covered.

A connection that sends no request is unknown to the library's list, so pending handshakes are counted
here, and when there are too many the oldest is cut: a flood of silent peers then never keeps a real one
out. Keepalive pings are off: a worker is alive while it renews (``sweep``), a client's dead host is
noticed by TCP, and a peer that stops reading by the write deadline of the pump.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import stat
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from prefect_lite.embedded.home import SOCKET_PATH_LIMIT
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.protocol.messages import PROTOCOL_NAME
from prefect_lite_broker.auth import Auth
from prefect_lite_broker.http import asks_readiness, decide, readiness
from prefect_lite_broker.sessions import CLOSE_RESTART, CLOSE_SECONDS, Peer

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 512 * 1024 + 4096
"""Frames end at 512 KiB; the rest is slack, so that one byte too many is our error and not a cut."""


class Listen(NamedTuple):
    """Where to listen: a unix socket, or a host and port (0: any free one)."""

    unix: Path | None = None
    host: str = ""
    port: int = 0


class Gate:
    """Handshakes that are not finished, oldest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: dict[PendingConnection, None] = {}
        self.cut = 0

    def enter(self, connection: PendingConnection) -> None:
        if len(self._pending) >= self._limit:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            self.cut += 1
            oldest.transport.abort()
        self._pending[connection] = None

    def leave(self, connection: PendingConnection) -> None:
        self._pending.pop(connection, None)

    def __len__(self) -> int:
        return len(self._pending)


class PendingConnection(ServerConnection):
    """Counts itself at the gate until its request has come."""

    roles: frozenset[str] = frozenset()

    def __init__(self, gate: Gate, protocol: ServerProtocol, server: Server, **options: Any) -> None:
        super().__init__(protocol, server, **options)
        self.gate = gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _keep_alive(transport)
        self.gate.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gate.leave(self)
        super().connection_lost(exc)


def _pending_limit(wanted: int) -> int:
    """At most a quarter of the descriptors: silent peers must not take those that a real one needs."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files // 4))
    if limit < wanted:
        text = "At most %d handshakes may be pending, not %d: this process may open %d files only."
        logger.warning(text, limit, wanted, files)
    return limit


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel notice a dead host within about a minute."""
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Seconds of silence until a probe (the name on Linux, on macOS), between probes, and how many.
    options = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
    for option, value in options.items():
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Listeners:
    """All sockets of one broker.

    Attributes:
        addresses: What was bound, as URLs (``ws://127.0.0.1:4200``, ``ws+unix:///run/...``).
    """

    def __init__(self, hub: Hub, auth: Auth) -> None:
        self._hub = hub
        self._auth = auth
        self._gate = Gate(_pending_limit(hub.settings.max_pending_handshakes))
        self._servers: list[Server] = []
        self._paths: list[Path] = []
        self.addresses: list[str] = []

    async def listen(self, where: Listen) -> None:
        """Bind one socket and accept on it.

        Raises:
            ConfigurationError: The address is taken, too long, or not ours to use.
        """
        options = self._options()
        try:
            if where.unix is not None:
                self._clear(where.unix)
                server = await unix_serve(self._handle, sock=_bind(where.unix), **options)
                self._paths.append(where.unix)
                self.addresses.append(f"ws+unix://{where.unix}")
            else:
                server = await serve(self._handle, where.host, where.port, **options)
                for bound in server.sockets:
                    host, port = bound.getsockname()[:2]
                    self.addresses.append(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
        except OSError as exc:
            place = where.unix or f"{where.host}:{where.port}"
            raise ConfigurationError(f"Can't listen on {place}: {exc.strerror or exc}.") from exc
        self._servers.append(server)

    def _options(self) -> dict[str, Any]:
        settings = self._hub.settings
        gate = self._gate

        def create(protocol: ServerProtocol, server: Server, **options: Any) -> PendingConnection:
            return PendingConnection(gate, protocol, server, **options)

        return {
            "subprotocols": [Subprotocol(PROTOCOL_NAME)],
            "compression": None,
            "process_request": self._request,
            "server_header": None,
            "open_timeout": settings.handshake_timeout_seconds,
            "ping_interval": None,
            "close_timeout": CLOSE_SECONDS,
            "max_size": MAX_MESSAGE_BYTES,
            "create_connection": create,
            "logger": _library_logger(),
        }

    @staticmethod
    def _clear(path: Path) -> None:
        """Remove the socket that a killed broker left behind; the caller holds the lock on its folder."""
        if len(os.fsencode(path)) >= SOCKET_PATH_LIMIT:
            raise ConfigurationError(
                f"The socket path {path} has {SOCKET_PATH_LIMIT} bytes or more, which the system refuses; "
                "choose a shorter one."
            )
        _check_folder(path.parent)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(str(path)) == 0:
                    raise ConfigurationError(f"Another broker listens on {path}.")
            path.unlink()

    def _request(
        self, connection: ServerConnection, request: Request
    ) -> Response | Awaitable[Response] | None:
        pending = cast(PendingConnection, connection)
        self._gate.leave(pending)
        if asks_readiness(request):
            return readiness(self._hub)
        decision = decide(self._hub, self._auth, request)
        if isinstance(decision, Response):
            return decision
        pending.roles = decision
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        await Peer(self._hub, connection, cast(PendingConnection, connection).roles).run()

    async def close(self) -> None:
        """Stop accepting, close every connection with 1012 (service restart), cut those that hang."""
        for server in self._servers:
            server.close(code=CLOSE_RESTART, reason="the broker stops")
        waits = [asyncio.ensure_future(server.wait_closed()) for server in self._servers]
        if waits:
            await asyncio.wait(waits, timeout=CLOSE_SECONDS)
            for server in self._servers:
                for connection in list(server.all_connections):
                    connection.transport.abort()
            await asyncio.gather(*waits)
        for path in self._paths:
            path.unlink(missing_ok=True)


def _bind(path: Path) -> socket.socket:
    """A unix socket that only this account may connect to, from its first moment."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _check_folder(folder: Path) -> None:
    """Refuse a folder where others could put a socket of theirs in place of ours, and be sent the tokens."""
    facts = folder.stat()
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or facts.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{folder} belongs to others or can be written to by others, who could take the broker's place; "
            "put the socket into a private folder."
        )


def _library_logger() -> logging.Logger:
    """The library tells each connection at INFO; that is our debug."""
    library = logging.getLogger("prefect_lite_broker.websockets")
    library.setLevel(logging.WARNING)
    return library
