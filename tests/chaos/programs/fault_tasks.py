"""Tasks that wait for a file, so that a test decides when they go on."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from prefect_lite import task


@task
def hold(name: str) -> str:
    """Runs until ``NAME.open`` exists, or ``NAME.open.PID`` of this process."""
    Path(f"{name}.started.{os.getpid()}").touch()
    gates = Path(f"{name}.open"), Path(f"{name}.open.{os.getpid()}")
    while not any(gate.exists() for gate in gates):
        time.sleep(0.01)
    return name


@task
def big(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest() * 10_000
