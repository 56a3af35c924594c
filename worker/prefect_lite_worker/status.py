"""A small read-only HTTP server for probes: ``GET /health`` and ``GET /status`` (JSON)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from prefect_lite.exceptions import ConfigurationError

MAX_HEAD = 8 * 1024
READ_SECONDS = 5.0


class StatusServer:
    """Serves on the connection thread's loop, so it answers while tasks block everything else.

    Args:
        port: TCP port; 0 takes a free one.
        host: Address; loopback unless told otherwise.
        status: Makes the JSON object of ``/status``.
        healthy: Whether ``/health`` answers 200 (else 503).
    """

    def __init__(
        self, port: int, host: str, status: Callable[[], dict[str, Any]], healthy: Callable[[], bool]
    ) -> None:
        self.port = port
        self._host = host
        self._status = status
        self._healthy = healthy
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: The port is taken, or the address is not ours.
        """
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=MAX_HEAD)
        except OSError as exc:
            raise ConfigurationError(
                f"The status server can't listen on {self._host}:{self.port} ({exc.strerror or exc}). "
                "Choose another status_server_port."
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                code, body = self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
                writer.write(_response(code, body))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # not a browser nor a probe; there is nobody to answer
        finally:
            writer.close()

    def _answer(self, request: str) -> tuple[str, dict[str, Any]]:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", {"error": "read-only"}
        if path == "/status":
            return "200 OK", self._status()
        if path in ("/health", "/healthz"):
            healthy = self._healthy()
            code = "200 OK" if healthy else "503 Service Unavailable"
            return code, {"status": "ok" if healthy else "stopping"}
        return "404 Not Found", {"error": "there are /health and /status"}


def _response(code: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
