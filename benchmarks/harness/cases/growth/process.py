"""Processes of the growth cases: started with a log, asked in JSON lines, always ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.processes import last_words

POLL_SECONDS = 0.01
END_SECONDS = 5.0


class GrowthError(Exception):
    """A process ended, stood still or answered with an error; the axis is skipped with this text."""


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Raises: GrowthError: ``condition`` was not true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise GrowthError(f"no {what} within {seconds:g} s")
        time.sleep(POLL_SECONDS)


class Started:
    """A process in a session of its own, so that Ctrl-C reaches the harness alone.

    Args:
        name: For errors.
        argv: What to start.
        environ: Its whole environment.
        log: Where its stderr goes, and its stdout unless ``piped``.
        piped: Its stdin and stdout are pipes to us.
    """

    def __init__(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str], log: Path, *, piped: bool = False
    ) -> None:
        self.name = name
        self._log = log
        self._unread = b""
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv,
                env=dict(environ),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """Raises: GrowthError: It has ended; with its last words."""
        if self.process.poll() is not None:
            raise GrowthError(f"{self.name} ended with {self.process.returncode}: {last_words(self._log)}")

    def wait_for(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """``wait_until``, which also fails when the process ends."""

        def fulfilled() -> bool:
            self.check()
            return bool(condition())

        wait_until(fulfilled, seconds, f"{what} of {self.name}")

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # -- the pipe ---------------------------------------------------------------------------------

    def ask(self, **request: Any) -> None:
        """Send a request; ``answer`` reads what it says to it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as exc:
            self.check()
            raise GrowthError(f"{self.name} takes no request: {exc}") from exc

    def read_line(self, seconds: float) -> str:
        """The next line of its stdout.

        Raises:
            GrowthError: It ended, or said nothing for ``seconds``.
        """
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise GrowthError(f"no answer of {self.name} within {seconds:g} s")
            data = os.read(fd, 1 << 16)
            if not data:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_SECONDS)
                self.check()
                raise GrowthError(f"{self.name} closed its pipe")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The answer to the oldest request.

        Raises:
            GrowthError: It says so, or nothing came.
        """
        answer = json.loads(self.read_line(seconds))
        if "error" in answer:
            raise GrowthError(f"{self.name}: {answer['error']}")
        return answer

    def call(self, seconds: float, **request: Any) -> dict[str, Any]:
        """``ask`` and ``answer``."""
        self.ask(**request)
        return self.answer(seconds)

    # -- the end ----------------------------------------------------------------------------------

    def end(self, seconds: float = END_SECONDS) -> None:
        """End it (SIGTERM, after ``seconds`` SIGKILL) and reap it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.thaw()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
