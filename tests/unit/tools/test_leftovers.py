"""Servers of tests end with the test process, however it ends, and after half a set-up."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.fleet import Fleet

ROOT = Path(__file__).parents[3]

INTERRUPTED = """
from tests.tools.server import ValkeyServer
server = ValkeyServer()
server.start()
print(server.pid, server.directory, flush=True)
raise KeyboardInterrupt
"""


def test_a_server_ends_with_the_process_that_has_started_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    pid, directory = done.stdout.split()
    assert not psutil.pid_exists(int(pid))
    assert not Path(directory).exists()


def test_half_a_fleet_leaves_no_server_behind(tmp_path: Path) -> None:
    before = psutil.Process().children()
    (tmp_path / "project").mkdir()
    with pytest.raises(FileExistsError):
        Fleet(tmp_path)
    gc.collect()
    assert psutil.Process().children() == before
