"""What the store does: commands, bytes in and out of everybody but the guard, and memory of keys."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import redis

OWN = ("ping", "info", "client|", "memory|", "scan", "hello", "config|")
"""Commands that the guard sends itself."""


class Traffic(NamedTuple):
    """Totals since the server started.

    Attributes:
        commands: Executed, those that scripts call included.
        bytes_in: Sent by the broker.
        bytes_out: Sent to it.
    """

    commands: int
    bytes_in: int
    bytes_out: int

    def since(self, before: Traffic) -> Traffic:
        return Traffic(*(now - then for now, then in zip(self, before, strict=True)))


class RedisSide:
    """Looks at the server behind the store's back."""

    def __init__(self, path: str) -> None:
        self._client = redis.Redis(unix_socket_path=path)
        self._own_id = str(self._client.client_id())
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(path)
        self._line.sendall(b"CLIENT SETNAME guard\r\n")
        self._line.recv(64)

    def answered(self) -> None:
        """Returns when the server has done what it was sent before."""
        self._line.sendall(b"PING\r\n")
        self._line.recv(64)

    def traffic(self) -> Traffic:
        client: Any = self._client
        stats: dict[str, dict[str, int]] = client.info("commandstats")
        commands = sum(
            each["calls"] for name, each in stats.items() if not name.removeprefix("cmdstat_").startswith(OWN)
        )
        others = [
            line for line in client.client_list() if line["id"] != self._own_id and line["name"] != "guard"
        ]
        flows = (sum(int(line.get(flow, 0)) for line in others) for flow in ("tot-net-in", "tot-net-out"))
        return Traffic(commands, *flows)

    def key_bytes(self) -> int:
        """Memory of all keys, as the server accounts for each."""
        client: Any = self._client
        names = [*client.scan_iter(count=1000)]
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.memory_usage(name, samples=0)
        return sum(size or 0 for size in pipeline.execute())

    def close(self) -> None:
        self._line.close()
        self._client.close()
