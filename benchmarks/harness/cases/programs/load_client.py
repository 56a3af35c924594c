"""A client process of the growth cases: does what it is told in JSON lines and answers with seconds.

Every value of every run whose end is waited for is checked. Requests are ``{"do": name, ...arguments}``;
answers ``{...}`` or ``{"error": text}``.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import growth_tasks

from prefect_lite import batch
from prefect_lite.futures import PrefectFutureList

PATIENCE_SECONDS = 120.0
BODY_BYTES = 200
ENVELOPE_BYTES = 49
"""What signature, names and framing add to the text of a call of ``number_of``."""
CHUNK = 250
FILL_CHUNK = 5_000
WATCHED_CHUNKS = 6
"""Chunks whose ends are waited for at a time, so that most are pushed and not looked up."""
WARM_RUNS = 1_000


def texts(first: int, count: int) -> list[str]:
    """Arguments that make bodies of about ``BODY_BYTES``."""
    padding = "x" * (BODY_BYTES - ENVELOPE_BYTES - growth_tasks.NUMBER_DIGITS)
    return [f"{number:0{growth_tasks.NUMBER_DIGITS}d}{padding}" for number in range(first, first + count)]


def check(values: list[Any], expected: list[Any]) -> None:
    """Raises: ValueError: A result is not what its run should have returned."""
    if values != expected:
        raise ValueError(f"wrong values: {str(values)[:80]} for {str(expected)[:80]}")


Chunk = tuple[int, Any]
"""First number and futures of consecutive runs of ``number_of``."""


class Load:
    """One method per request."""

    def __init__(self) -> None:
        self._next = 0
        self._head: collections.deque[Chunk] = collections.deque()
        self._watched: collections.deque[Future[int]] = collections.deque()
        self._keep = 0
        self._waiters = ThreadPoolExecutor(WATCHED_CHUNKS)

    def connect(self) -> dict[str, Any]:
        """Be connected, so that the next request is not the first that the broker hears."""
        growth_tasks.async_noop.delay(0)
        return {}

    # -- plain loads ------------------------------------------------------------------------------

    def burst(self, task: str, count: int) -> dict[str, Any]:
        """``map(deferred=True)`` to the last result."""
        args = list(range(count))
        started = time.perf_counter()
        futures = getattr(growth_tasks, task).map(args, deferred=True)
        enqueued = time.perf_counter()
        values = futures.result(timeout=PATIENCE_SECONDS)
        ended = time.perf_counter()
        check(values, args)
        return {"enqueue_seconds": enqueued - started, "total_seconds": ended - started}

    def burst_keys(self, keys: int, count: int) -> dict[str, Any]:
        """``delay`` inside one ``batch()``, task keys in turn, to the last result."""
        tasks = growth_tasks.KEYED[:keys]
        started = time.perf_counter()
        with batch():
            futures = [tasks[number % keys].delay(number) for number in range(count)]
        enqueued = time.perf_counter()
        values = PrefectFutureList(futures).result(timeout=PATIENCE_SECONDS)
        ended = time.perf_counter()
        check(values, list(range(count)))
        return {"enqueue_seconds": enqueued - started, "total_seconds": ended - started}

    def round_trips(self, count: int) -> dict[str, Any]:
        """``delay().result()`` one after the other; the seconds of each, and of its ``delay`` alone."""
        seconds: list[float] = []
        delays: list[float] = []
        for number in range(count):
            started = time.perf_counter()
            future = growth_tasks.async_noop.delay(number)
            delays.append(time.perf_counter() - started)
            check([future.result(timeout=PATIENCE_SECONDS)], [number])
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "delay_seconds": delays}

    def fan_in(self, count: int) -> dict[str, Any]:
        """``count`` runs and one that takes all their results as its argument."""
        started = time.perf_counter()
        parents = growth_tasks.async_noop.map(range(count), deferred=True)
        submitted = time.perf_counter()
        value = growth_tasks.total.delay(list(parents)).result(timeout=PATIENCE_SECONDS)
        ended = time.perf_counter()
        check([value], [count * (count - 1) // 2])
        return {"submit_seconds": submitted - started, "total_seconds": ended - started}

    # -- a long queue -----------------------------------------------------------------------------

    def fill(self, count: int, keep: int) -> dict[str, Any]:
        """Queue runs of about 200 bytes; keep the futures of the first ``keep`` ever queued."""
        self._keep = keep
        started = time.perf_counter()
        end = self._next + count
        while self._next < end:
            size = CHUNK if self._next < keep else FILL_CHUNK
            self._submit(min(size, end - self._next))
        return {"seconds": time.perf_counter() - started}

    def _submit(self, count: int) -> None:
        first = self._next
        self._next += count
        futures = growth_tasks.number_of.map(texts(first, count), deferred=True)
        if first < self._keep:
            self._head.append((first, futures))

    def submits(self, count: int) -> dict[str, Any]:
        """The seconds of queueing ``count`` more, whose ends nobody waits for."""
        args = texts(self._next, count)
        self._next += count
        started = time.perf_counter()
        growth_tasks.number_of.map(args, deferred=True)
        return {"seconds": time.perf_counter() - started}

    def steady(self, count: int) -> dict[str, Any]:
        """Queue as many at the tail as end at the head, so the queue keeps its length.

        Needs ``count`` futures kept by ``fill``.
        """
        warm = min(WARM_RUNS, count // 4)
        ended = measured = 0
        started = None
        while ended < count:
            while self._head and len(self._watched) < WATCHED_CHUNKS:
                self._watched.append(self._waiters.submit(_wait, self._head.popleft()))
            size = self._watched.popleft().result()
            ended += size
            if started is not None:
                measured += size
            elif ended >= warm:
                started = time.perf_counter()
            self._submit(size)
        assert started is not None
        return {"seconds": time.perf_counter() - started, "count": measured}


def _wait(chunk: Chunk) -> int:
    first, futures = chunk
    values = futures.result(timeout=PATIENCE_SECONDS)
    check(values, list(range(first, first + len(values))))
    return len(values)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    load = Load()
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            answer = getattr(load, name)(**request)
        except Exception as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
