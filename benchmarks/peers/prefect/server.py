"""Starts Prefect's server on a free port and leaves its address where `api` looks for it.

An empty database takes about eight seconds of migrations. They run once per venv, before the first server,
and every session starts with a copy of their outcome.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

PREFECT = [sys.executable, "-m", "prefect"]
MIGRATED = Path(sys.prefix, "migrated.db")


def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    note = Path(os.environ["BENCH_SCRATCH"], "api-url")
    waiting = note.with_suffix(".new")
    waiting.write_text(f"http://127.0.0.1:{port}/api")
    waiting.rename(note)
    bring_database(Path(os.environ["PREFECT_HOME"], "prefect.db"))
    command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    os.execv(sys.executable, command)


def bring_database(database):
    database.parent.mkdir(parents=True, exist_ok=True)
    if MIGRATED.exists():
        shutil.copyfile(MIGRATED, database)
        return
    subprocess.run([*PREFECT, "server", "database", "upgrade", "-y"], check=True)
    unfinished = MIGRATED.with_suffix(".new")
    shutil.copyfile(database, unfinished)
    unfinished.rename(MIGRATED)


if __name__ == "__main__":
    main()
