"""Start the demo's processes in a private home, do the work, end everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from prefect_lite.cli.ask import ask
from prefect_lite.client.runtime import close_runtime
from prefect_lite.demo.report import Reporter
from prefect_lite.embedded.home import prepare_home
from prefect_lite.embedded.local_broker import find_or_start, stop_local
from prefect_lite.exceptions import BrokerError
from prefect_lite.settings import Settings, get_settings

WORKER_LIMIT = 20
WORKER_START_SECONDS = 30.0
WORKER_END_SECONDS = 10.0
POLL_SECONDS = 0.05


def run_demo(*, as_json: bool = False, keep: bool = False) -> int:
    """Run the demo.

    Args:
        as_json: Print one JSON object instead of progress and table.
        keep: Leave the temporary home with its logs behind and say where it is.

    Returns:
        Exit code: 0 when every result is the one computed directly from the texts.
    """
    reporter = Reporter(as_json=as_json)
    with _private_home(keep, reporter) as settings:
        reporter.say("Starting a broker with its own Valkey, and a worker.")
        find_or_start(settings)
        with _worker(settings) as worker:
            _wait_until_served(settings, worker)
            # Imported now: the client reads its settings once, and they are those of the private home.
            from prefect_lite.demo.scenario import Scenario, problems_of

            markers = settings.home / "markers"
            markers.mkdir()
            with reporter.progress(Scenario.total_runs()) as advance:
                steps = Scenario(settings, markers, advance).run()
    problems = problems_of(steps)
    reporter.close(steps, problems)
    return 1 if problems else 0


@contextmanager
def _private_home(keep: bool, reporter: Reporter) -> Generator[Settings]:
    """A temporary home that this process and its children use; broker and files go with it."""
    root = Path(tempfile.mkdtemp(prefix="prefect-lite-demo-"))
    runtime = Path(tempfile.mkdtemp(prefix="pld-", dir="/tmp"))  # TMPDIR may be too long for a socket
    for name in [name for name in os.environ if name.startswith("PREFECT_LITE_")]:
        del os.environ[name]
    os.environ["PREFECT_LITE_HOME"] = str(root)
    os.environ["PREFECT_LITE_RUNTIME_DIR"] = str(runtime)
    cast("Any", get_settings).cache_clear()
    settings = get_settings()
    try:
        prepare_home(settings)
        yield settings
    finally:
        close_runtime()  # or this process's client would have the stopped broker started again
        stop_local(settings)
        shutil.rmtree(runtime, ignore_errors=True)
        if keep:
            reporter.say(f"Logs and data are in {root}.")
        else:
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _worker(settings: Settings) -> Generator[subprocess.Popen[bytes]]:
    """A worker process that serves ``prefect_lite.demo.tasks``."""
    command = [
        *(sys.executable, "-m", "prefect_lite_worker", "prefect_lite.demo.tasks"),
        *("--limit", str(WORKER_LIMIT)),
    ]
    with (settings.home / "logs" / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WORKER_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_served(settings: Settings, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the broker knows the worker: a run submitted before would be told that nobody serves it.

    Raises:
        BrokerError: The worker ended, or took too long.
    """
    deadline = time.monotonic() + WORKER_START_SECONDS
    while not ask(settings, "served"):
        if worker.poll() is not None or time.monotonic() > deadline:
            log = (settings.home / "logs" / "worker.log").read_text(errors="replace").strip()
            raise BrokerError(f"The demo's worker did not start: {log or 'it said nothing'}")
        time.sleep(POLL_SECONDS)
