"""The client of a chaos run: submits, whatever happens, and waits for every end.

    chaos_client.py RUNS SEED THREADS WINDOW SECONDS

Each thread has at most WINDOW runs under way and gives nothing up within SECONDS. A submit that is refused,
or of which nobody knows whether it was stored, is repeated with the same run id. Which run is what, and under
which id, depends on SEED alone. Prints ``done N`` as runs end; the last ones wait until the file
``enough`` exists.
"""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import chaos_tasks as tasks

from prefect_lite.exceptions import BrokerUnreachable, QueueFull, StoreUnavailable, UpstreamFailedRun
from prefect_lite.futures import PrefectDistributedFuture
from tests.chaos.recording import record

KINDS = {
    "echo": 39,
    "echo_async": 17,
    "nap": 10,
    "nap_async": 10,
    "flaky": 5,
    "flaky_later": 4,
    "fail": 5,
    "delayed": 5,
    "follow": 3,
    "doomed": 1,
    "big": 1,
}
"""What runs there are, in percent."""

PAUSE_SECONDS = 0.05
"""After a refusal that does not say how long to wait."""

SHOWN_EVERY = 20

ENOUGH = Path("enough")
"""This file says that all disasters have happened."""

LAST_PART = 0.95
"""What comes after this part of the runs is submitted only then."""

UPSTREAM = "its upstream failed"


class Job(NamedTuple):
    """One run."""

    number: int
    kind: str
    run_id: str
    seconds: float  # of sleep or countdown


def jobs(runs: int, seed: int) -> list[Job]:
    """All runs of a seed."""
    choose = random.Random(seed)
    kinds = choose.choices(list(KINDS), list(KINDS.values()), k=runs)
    return [
        Job(
            n,
            kind,
            uuid.UUID(int=choose.getrandbits(128), version=4).hex,
            round(choose.uniform(0.02, 0.3), 3),
        )
        for n, kind in enumerate(kinds)
    ]


class Submitter(threading.Thread):
    """Submits its share of the runs and waits for each."""

    def __init__(self, share: list[Job], window: int, deadline: float, progress: Progress) -> None:
        super().__init__()
        self._share = share
        self._window = window
        self._deadline = deadline
        self._progress = progress
        self._under_way: deque[tuple[Job, PrefectDistributedFuture[Any], Any]] = deque()
        self._last_echo: tuple[int, PrefectDistributedFuture[int]] | None = None
        self._last_fail: PrefectDistributedFuture[int] | None = None

    def run(self) -> None:
        last = int(len(self._share) * LAST_PART)
        for number, job in enumerate(self._share):
            if number == last:
                self._wait_for_the_last_disaster()
            state, value = self._end(job)
            record("expect", run=job.run_id, type=state, value=value)
            self._under_way.append((job, self._submit(job), value))
            if len(self._under_way) >= self._window:
                self._take_oldest()
        while self._under_way:
            self._take_oldest()

    def _wait_for_the_last_disaster(self) -> None:
        """However long those take, there is to be work under way after each of them."""
        while self._under_way:
            self._take_oldest()
        while not ENOUGH.exists() and time.monotonic() < self._deadline:
            time.sleep(PAUSE_SECONDS)

    def _end(self, job: Job) -> tuple[str, Any]:
        """How it is to end: state and value."""
        if job.kind == "fail":
            return "FAILED", f"run {job.number}"
        if job.kind == "doomed" and self._last_fail is not None:
            return "FAILED", UPSTREAM
        if job.kind == "big":
            return "COMPLETED", shown(tasks.content(job.number))
        if job.kind == "follow" and self._last_echo is not None:
            return "COMPLETED", self._last_echo[0] * 1_000_000 + job.number
        return "COMPLETED", job.number

    def _submit(self, job: Job) -> PrefectDistributedFuture[Any]:
        number, seconds = job.number, job.seconds
        function: Any = getattr(tasks, {"delayed": "echo", "doomed": "echo"}.get(job.kind, job.kind))
        arguments: tuple[Any, ...] = (number,)
        conditions: dict[str, Any] = {"run_id": job.run_id}
        if job.kind.startswith("nap"):
            arguments = (number, seconds)
        elif job.kind == "delayed":
            conditions["countdown"] = seconds
        elif job.kind == "doomed" and self._last_fail is not None:
            conditions["wait_for"] = [self._last_fail]
        elif job.kind == "follow":
            if self._last_echo is None:
                function = tasks.echo
            else:
                arguments = (self._last_echo[1], number)
        while True:
            try:
                future = function.apply_async(arguments, **conditions)
            except (BrokerUnreachable, StoreUnavailable, QueueFull) as exc:
                if time.monotonic() > self._deadline:
                    raise
                after = getattr(exc, "retry_after_seconds", None)
                time.sleep(PAUSE_SECONDS if after is None else min(1.0, max(0.0, after)))
                continue
            if job.kind == "echo":
                self._last_echo = (number, future)
            elif job.kind == "fail":
                self._last_fail = future
            return future

    def _take_oldest(self) -> None:
        job, future, _ = self._under_way.popleft()
        record("wait", run=job.run_id)
        try:
            value = future.result(timeout=max(0.0, self._deadline - time.monotonic()))
        except UpstreamFailedRun:
            record("outcome", run=job.run_id, type="FAILED", value=UPSTREAM)
        except tasks.Expected as exc:
            record("outcome", run=job.run_id, type="FAILED", value=str(exc))
        except Exception as exc:
            record("outcome", run=job.run_id, error=type(exc).__name__, text=str(exc)[:500])
        else:
            record("outcome", run=job.run_id, type="COMPLETED", value=shown(value))
        self._progress.one_more()


class Progress:
    """Counts and prints the runs that have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def one_more(self) -> None:
        with self._lock:
            self.count += 1
            if self.count % SHOWN_EVERY == 0:
                print(f"done {self.count}", flush=True)


def shown(value: Any) -> Any:
    """A result as it can be written down."""
    return hashlib.sha256(value).hexdigest()[:16] if isinstance(value, bytes) else value


def main(runs: int, seed: int, threads: int, window: int, seconds: float) -> None:
    """Have every run submitted and waited for."""
    progress = Progress()
    work = jobs(runs, seed)
    deadline = time.monotonic() + seconds
    submitters = [Submitter(work[i::threads], window, deadline, progress) for i in range(threads)]
    for submitter in submitters:
        submitter.start()
    for submitter in submitters:
        submitter.join()
    print(f"ended {progress.count}", flush=True)
    sys.exit(progress.count != runs)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:5]), seconds=float(sys.argv[5]))
