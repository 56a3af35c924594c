"""What a process did, as JSON lines that survive its ``kill -9``.

A line is one ``os.write`` to a file opened with O_APPEND: what the process did before it was killed is in the
kernel's hands, at worst without the end of the last line. Times are ``time.monotonic_ns()``, which all
processes of a machine share and no clock step moves.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

VARIABLE = "PREFECT_LITE_TEST_HISTORY"
"""Names the folder of the history."""


def plain_id(run_id: object) -> str:
    """A run id as it is on the wire, whether it came as a UUID or as text."""
    return str(run_id).replace("-", "").lower()


def digest(value: bytes | None) -> str:
    """A result, short."""
    return hashlib.blake2b(value, digest_size=8).hexdigest() if value else ""


class Recorder:
    """Appends events to ``<folder>/<role>-<pid>.jsonl``.

    Args:
        folder: Of the history.
        role: broker, worker, client or whatever the history is to say.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._pid = 0
        self._descriptor = -1
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """One event, now."""
        line = json.dumps({"at": time.monotonic_ns(), "event": event, **fields}, separators=(",", ":"))
        if self._pid != os.getpid():
            self._open()
        data = line.encode() + b"\n"
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(f"The history took {written} of {len(data)} bytes.")

    def close(self) -> None:
        """Let go of the file; a later event opens it again."""
        if self._pid == os.getpid():
            os.close(self._descriptor)
            self._pid = 0

    def _open(self) -> None:
        """Anew after a fork: each process has its own file."""
        with self._lock:
            pid = os.getpid()
            if self._pid == pid:
                return
            path = self._folder / f"{self._role}-{pid}.jsonl"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._pid = pid


_recorder: Recorder | None = None


def start(role: str) -> Recorder:
    """The recorder of this process from here on.

    Raises:
        RuntimeError: The environment names no folder for the history.
    """
    global _recorder
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise RuntimeError(f"{VARIABLE} must name the folder of the history.")
    _recorder = Recorder(Path(folder), role)
    return _recorder


def record(event: str, **fields: Any) -> None:
    """One event of this process, e.g. ``record("expect", run=run_id, type="FAILED")`` in a client's script.

    Events a script may write:
        expect: ``run`` is to end as ``type`` (COMPLETED, FAILED, ...), with ``value`` if it is given.
        outcome: What the future of ``run`` gave: ``type`` and ``value``, or ``error``, the exception's name,
            where the future itself failed.

    Raises:
        RuntimeError: The process does not record.
    """
    if _recorder is None:
        raise RuntimeError("This process was not started by tests.chaos.run.")
    if "run" in fields:
        fields["run"] = plain_id(fields["run"])
    _recorder.write(event, **fields)
