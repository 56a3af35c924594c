"""Queue length: the same work with 10 and with 1,000,000 runs pending.

In every pass the client queues as many runs at the tail as end at the head, so the queue keeps its length
while the worker executes. The rates at 1,000 and at 1,000,000 are to be compared: both queues are filled
first, then their passes take turns, the other worker standing still meanwhile.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Any

from .process import Started
from .recorder import Recorder, Take
from .site import ANSWER_SECONDS, SLOTS, Site

SINGLE = (10, 100_000)
PAIRED = (1_000, 1_000_000)
PASSES = 3
STEADY_RUNS = 10_000
NEXT_RUNS = 5_000
SPARE_RUNS = 5_000
FILLS_PER_SECOND = 1_000
"""Far below what is seen: only bounds the wait."""
MIN_FOR_BYTES = 1_000
"""Shorter queues are lost in what Redis needs anyway."""

STILL: dict[str, Any] = {
    # A worker that stands still while the other queue is measured must not lose its leases.
    "lease_seconds": 3600,
    "renew_seconds": 1200,
    "write_deadline_seconds": 3600,
    "max_queue_length": 10_000_000,
    "max_queued_total": 10_000_000,
}


class Queue:
    """One deployment with a queue of a given length.

    Args:
        length: As named in the samples.
        scale: Of all counts.
        stack: Ends it.
    """

    def __init__(self, length: int, scale: float, stack: ExitStack) -> None:
        self.variant = f"queue {length}"
        self._length = max(10, round(length * scale)) if length > MIN_FOR_BYTES else length
        self._steady = max(2_000, round(STEADY_RUNS * scale))
        self._next = max(500, round(NEXT_RUNS * scale))
        self._measured: list[tuple[int, float]] = []
        self._enqueued: list[float] = []
        self._site = stack.enter_context(Site(**STILL))
        self._site.start_broker()
        self._client = self._site.start_client()
        self._worker: Started | None = None
        self.bytes_per_run = 0.0

    def fill(self) -> None:
        """Queue its runs, and those that will be on the worker's hands."""
        client = self._client
        client.call(ANSWER_SECONDS, do="connect")
        before = self._site.redis_bytes()
        count = self._length + SLOTS
        seconds = ANSWER_SECONDS + count / FILLS_PER_SECOND
        client.call(seconds, do="fill", count=count, keep=PASSES * self._steady + SPARE_RUNS)
        self.bytes_per_run = (self._site.redis_bytes() - before) / count
        self._site.wait_for_rewrite()

    def run_pass(self) -> None:
        """One pass of execution at this length; the worker stands still afterwards."""
        self._client.ask(do="steady", count=self._steady)
        if self._worker is None:
            self._worker = self._site.start_worker()
        else:
            self._worker.thaw()
        answer = self._client.answer(ANSWER_SECONDS)
        self._worker.freeze()
        self._measured.append((answer["count"], answer["seconds"]))

    def enqueue(self) -> None:
        """Queue the next runs while nothing is executed."""
        self._enqueued.append(self._client.call(ANSWER_SECONDS, do="submits", count=self._next)["seconds"])

    def report(self, take: Take) -> None:
        """Hand over what was measured."""
        runs = sum(count for count, _ in self._measured)
        rate = runs / sum(seconds for _, seconds in self._measured)
        note = "as many queued at the tail as executed from the head"
        take(self.variant, "runs_per_second", rate, "1/s", runs, note)
        rate = self._next / median(self._enqueued)
        take(
            self.variant, "enqueue_per_second", rate, "1/s", self._next * len(self._enqueued), "durable, bulk"
        )
        if self._length >= MIN_FOR_BYTES:
            take(
                self.variant,
                "redis_bytes_per_run",
                self.bytes_per_run,
                "B",
                self._length,
                "body of 200 bytes",
            )


def measure(recorder: Recorder, scale: float) -> None:
    """All lengths."""
    for length in SINGLE:
        _measure_together(recorder, scale, (length,))
    _measure_together(recorder, scale, PAIRED)


def _measure_together(recorder: Recorder, scale: float, lengths: tuple[int, ...]) -> None:
    with recorder.attempt(*(f"queue {length}" for length in lengths)), ExitStack() as stack:
        queues = [Queue(length, scale, stack) for length in lengths]
        for queue in queues:
            queue.fill()
        with recorder.measuring() as take:
            for number in range(PASSES):
                for queue in queues if number % 2 == 0 else reversed(queues):
                    queue.run_pass()
            for _ in range(PASSES):
                for queue in queues:
                    queue.enqueue()
            for queue in queues:
                queue.report(take)
