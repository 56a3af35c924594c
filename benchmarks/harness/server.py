"""The Valkey of every peer: private, empty, as durable as prefect_lite's own one and with its allocator."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import redis
from prefect_lite_broker.valkey import ALLOCATOR, find_server

START_SECONDS = 10.0
OPTIONS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "rdbcompression": "no",
}


class Server:
    """A server in one folder, on a free TCP port and a unix socket.

    Args:
        folder: Empty, private, and short: a socket's path has at most 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.socket_path = folder / "valkey.sock"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """The argv that starts it."""
        allocator = [f"{name}={value}" for name, value in ALLOCATOR.items()]
        command = ["env", *allocator, str(find_server()), "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--unixsocket", str(self.socket_path), "--dir", str(self.folder)]
        for name, value in OPTIONS.items():
            command += [f"--{name}", value]
        return command

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it answers.

        Raises:
            TimeoutError: It does not.
        """
        ends = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket_path)) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > ends or process.poll() is not None:
                        raise TimeoutError("the private Valkey did not start") from None
                time.sleep(0.01)
