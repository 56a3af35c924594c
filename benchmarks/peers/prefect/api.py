"""Where this session's server listens. Prefect reads the address from the environment when it is imported."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from pathlib import Path

NOTE_SECONDS = 10.0
START_SECONDS = 50.0


def use_address():
    """Put the address that ``server.py`` chose into the environment, long before the server answers there.

    Raises:
        TimeoutError: ``server.py`` has not been started.
    """
    note = Path(os.environ["BENCH_SCRATCH"], "api-url")
    _wait(note.exists, NOTE_SECONDS)
    os.environ["PREFECT_API_URL"] = note.read_text()


def wait_for_server():
    """Return as soon as the server answers.

    Raises:
        TimeoutError: It did not within a minute.
    """
    _wait(_answers, START_SECONDS)


def _wait(condition, seconds):
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"Prefect's server was not there within {seconds:.0f} s")
        time.sleep(0.02)


def _answers():
    try:
        with urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
