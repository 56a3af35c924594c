"""The harness's end of a driver: a request, and its answer within a time."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.peers import SHARED

READY_SECONDS = 60.0
LOOK_SECONDS = 0.25
STOP_SECONDS = 3.0
GRACE_SECONDS = 20.0
"""What the client may take after its own timeout to find out how far it came."""


class PeerFailed(Exception):
    """A peer's process failed, gave a wrong value, or took too long; the text says which."""


class Driver:
    """The client process of a peer.

    Args:
        name: The peer.
        folder: The peer's folder.
        python: The interpreter of its venv.
        spawn: Starts a process of the session, given a name for its log, the argv, and descriptors to keep.
        check: Called while an answer is awaited; raises `PeerFailed` when there is no point in waiting.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        python: Path,
        spawn: Callable[[str, list[str], tuple[int, ...]], subprocess.Popen[bytes]],
        check: Callable[[], None],
    ) -> None:
        self._socket, theirs = socket.socketpair()
        self._received = b""
        self._check = check
        config = json.dumps({"fd": theirs.fileno(), "dir": str(folder)})
        with theirs:
            command = [str(python), str(SHARED / "driver.py"), name, config]
            self.process = spawn("driver", command, (theirs.fileno(),))

    def ready(self) -> dict[str, Any]:
        """Wait until it has imported the peer and connected.

        Raises:
            PeerFailed: It could not.
        """
        return self._answer(READY_SECONDS)

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Args:
            request: ``do`` and the arguments; see ``peers/shared/driver.py``.
            timeout: Seconds; the driver gives up then, and is given up a little later.

        Raises:
            PeerFailed: It answered with an error, or not in time.
        """
        self._socket.sendall(json.dumps({"timeout": timeout, **request}).encode() + b"\n")
        return self._answer(timeout + GRACE_SECONDS)

    def stop(self) -> None:
        """Let it close its client and end, if it can."""
        with suppress(OSError):  # it has ended already
            self._socket.sendall(b'{"do": "stop"}\n')
        with suppress(subprocess.TimeoutExpired):  # the session ends it by force
            self.process.wait(STOP_SECONDS)
        self._socket.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        ends = time.monotonic() + timeout
        while b"\n" not in self._received:
            left = ends - time.monotonic()
            if left < 0:
                raise PeerFailed(f"the client gave no answer within {timeout:.0f} s")
            readable, _, _ = select.select([self._socket], [], [], min(left, LOOK_SECONDS))
            if not readable:
                self._check()
                continue
            part = self._socket.recv(1 << 20)
            if not part:
                raise PeerFailed("the client process ended")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        return answer
