"""Constant load: load_client.py THREADS WINDOW SECONDS; until the file ``stop`` exists.

Nothing is repeated here: a submit or a future that raises is a failure, and the exit code tells.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import chaos_tasks as tasks

from prefect_lite.futures import PrefectDistributedFuture
from tests.chaos.recording import record

STOP = Path("stop")
NAP_SECONDS = 0.03
RATE_SECONDS = 0.004
"""Between two submits of a thread: the load is to be constant, not the most that is possible."""


class Load(threading.Thread):
    """Submits, waits for the oldest, submits."""

    def __init__(self, window: int, deadline: float) -> None:
        super().__init__()
        self._window = window
        self._deadline = deadline
        self._under_way: deque[tuple[str, int, PrefectDistributedFuture[Any]]] = deque()
        self.ended = self.failed = 0
        self.slowest = 0.0  # seconds that a submit took

    def run(self) -> None:
        number = 0
        while not STOP.exists() and time.monotonic() < self._deadline:
            number += 1
            self._submit(number)
            if len(self._under_way) >= self._window:
                self._take_oldest()
            time.sleep(RATE_SECONDS)
        while self._under_way:
            self._take_oldest()

    def _submit(self, number: int) -> None:
        run_id = uuid.uuid4().hex
        function: Any = (tasks.echo, tasks.echo_async, tasks.nap, tasks.nap_async)[number % 4]
        arguments = (number, NAP_SECONDS) if number % 4 >= 2 else (number,)
        record("expect", run=run_id, type="COMPLETED", value=number)
        began = time.monotonic()
        try:
            future = function.apply_async(arguments, run_id=run_id)
        except Exception:
            self._complain(run_id)
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._under_way.append((run_id, number, future))

    def _take_oldest(self) -> None:
        run_id, _, future = self._under_way.popleft()
        record("wait", run=run_id)
        try:
            value = future.result(timeout=max(0.0, self._deadline - time.monotonic()))
        except Exception as exc:
            record("outcome", run=run_id, error=type(exc).__name__, text=str(exc)[:500])
            self._complain(run_id)
            return
        record("outcome", run=run_id, type="COMPLETED", value=value)
        self.ended += 1

    def _complain(self, run_id: str) -> None:
        self.failed += 1
        print(f"run {run_id} failed\n{traceback.format_exc()}", flush=True)


def main(threads: int, window: int, seconds: float) -> None:
    """Have the load made until it is to stop."""
    deadline = time.monotonic() + seconds
    loads = [Load(window, deadline) for _ in range(threads)]
    for load in loads:
        load.start()
    print("under load", flush=True)
    for load in loads:
        load.join()
    failed = sum(load.failed for load in loads)
    slowest = max(load.slowest for load in loads)
    print(f"ended {sum(load.ended for load in loads)} failed {failed} slowest {slowest:.3f}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
