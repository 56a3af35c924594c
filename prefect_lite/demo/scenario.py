"""What the demo submits, and how it knows that the answers are right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, cast

from prefect_lite.cli.ask import ask
from prefect_lite.demo import tasks
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.settings import Settings
from prefect_lite.states import StateType

Future = PrefectDistributedFuture[Any]

MAP_RUNS = 1_000
PARTS = MAP_RUNS // len(tasks.NAMES)
ROUND_TRIPS = 200
RESULT_SECONDS = 60.0
POLL_SECONDS = 0.02


@dataclass
class Step:
    """One kind of work and what came of it.

    Attributes:
        title: For the table.
        runs: How many runs.
        retries: Attempts beyond the first, as the broker counts them.
        outcome: How they ended.
        seconds: From the first submit to the last end.
        latencies: Seconds from submit to end, as the client sees it, per run.
        problems: What is not as it should be.
    """

    title: str
    runs: int
    retries: int = 0
    outcome: str = "Completed"
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list[float])
    problems: list[str] = field(default_factory=list[str])

    def percentile(self, fraction: float) -> float:
        """A latency in seconds; 0 without any."""
        ordered = sorted(self.latencies)
        return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    @property
    def rate(self) -> float:
        """Runs per second."""
        return self.runs / self.seconds if self.seconds else 0.0


class Scenario:
    """The demo's steps, in order; ``run`` does them all."""

    def __init__(self, settings: Settings, markers: Path, advance: Callable[[], None]) -> None:
        """
        Args:
            settings: Of the demo's home.
            markers: A directory for the failing tasks.
            advance: Called from any thread whenever a run has ended.
        """
        self._settings = settings
        self._markers = markers
        self._advance = advance
        self._expected = {name: tasks.count(name) for name in tasks.NAMES}

    @staticmethod
    def total_runs() -> int:
        """How many runs all steps have together."""
        return 2 * len(tasks.NAMES) + 2 + MAP_RUNS + ROUND_TRIPS

    def run(self) -> list[Step]:
        """Do all steps."""
        return [
            self.texts(),
            self.failures(),
            self.timeout(),
            self.cancelled(),
            self.many(),
            self.round_trips(),
        ]

    def texts(self) -> Step:
        """One run per text."""
        step = Step("texts", len(tasks.NAMES))
        watch = _Stopwatch(step, self._advance)
        futures = {name: watch.submitted(tasks.count_text.delay(name)) for name in tasks.NAMES}
        for name, future in futures.items():
            self._check(step, name, future.result(timeout=RESULT_SECONDS))
        watch.finished()
        return step

    def failures(self) -> Step:
        """The same with one to three failures before each success."""
        step = Step("failing at first", len(tasks.NAMES))
        watch = _Stopwatch(step, self._advance)
        futures: dict[str, Future] = {}
        planned = 0
        for number, name in enumerate(tasks.NAMES):
            failures = 1 + number % 3
            planned += failures
            futures[name] = watch.submitted(
                tasks.count_with_failures.delay(name, failures, str(self._markers))
            )
        for name, future in futures.items():
            self._check(step, name, future.result(timeout=RESULT_SECONDS))
        watch.finished()
        step.retries = sum(self._attempts(future) - 1 for future in futures.values())
        happened = len(list(self._markers.iterdir()))
        if not planned == happened == step.retries:
            step.problems.append(
                f"{planned} failures were planned, {happened} happened, and the broker counts "
                f"{step.retries} retries"
            )
        return step

    def timeout(self) -> Step:
        """One run that exceeds its timeout."""
        step = Step("over its timeout", 1, outcome="TimedOut")
        watch = _Stopwatch(step, self._advance)
        future = watch.submitted(tasks.never_ready.delay())
        future.wait(timeout=RESULT_SECONDS)
        watch.finished()
        self._check_state(step, future)
        return step

    def cancelled(self) -> Step:
        """One run that is cancelled while it runs."""
        step = Step("cancelled running", 1, outcome="Cancelled")
        watch = _Stopwatch(step, self._advance)
        future = watch.submitted(tasks.wait_for_ever.delay())
        deadline = time.monotonic() + RESULT_SECONDS
        while self._record(future)["type"] != StateType.RUNNING and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        future.cancel()
        future.wait(timeout=RESULT_SECONDS)
        watch.finished()
        self._check_state(step, future)
        return step

    def many(self) -> Step:
        """A map of a thousand parts, sent in one frame; their sum must be the whole."""
        step = Step("a map, one frame", MAP_RUNS)
        watch = _Stopwatch(step, self._advance)
        parts = list(product(tasks.NAMES, range(PARTS)))
        futures = tasks.count_part.map(
            [name for name, _ in parts], [part for _, part in parts], PARTS, deferred=True
        )
        for future in futures:
            watch.submitted(cast("Future", future))
        sums: dict[str, Counter[str]] = {name: Counter() for name in tasks.NAMES}
        for (name, _), future in zip(parts, futures, strict=True):
            sums[name].update(future.result(timeout=RESULT_SECONDS))
        watch.finished()
        for name, counted in sums.items():
            self._check(step, name, dict(counted))
        return step

    def round_trips(self) -> Step:
        """One run after the other, each waited for."""
        step = Step("one by one", ROUND_TRIPS)
        watch = _Stopwatch(step, self._advance)
        name = tasks.NAMES[0]
        for part in range(ROUND_TRIPS):
            begin = time.perf_counter()
            future = watch.submitted(tasks.count_part.delay(name, part % PARTS, PARTS), begin)
            if future.result(timeout=RESULT_SECONDS) != tasks.count(name, part % PARTS, PARTS):
                step.problems.append(f"part {part % PARTS} of {name} was counted wrong")
        watch.finished()
        return step

    # -- checks -----------------------------------------------------------------------------------

    def _check(self, step: Step, name: str, counted: dict[str, int]) -> None:
        if counted != self._expected[name]:
            step.problems.append(f"the words of {name} were counted wrong")

    def _check_state(self, step: Step, future: Future) -> None:
        name = self._record(future)["name"]
        if name != step.outcome:
            step.problems.append(f"ended {name}, not {step.outcome}")

    def _record(self, future: Future) -> dict[str, Any]:
        """What the broker has of a run."""
        return cast("dict[str, Any]", ask(self._settings, "run", future.task_run_id.hex))

    def _attempts(self, future: Future) -> int:
        return int(self._record(future)["attempt"])


class _Stopwatch:
    """Notes when runs were submitted and when they ended."""

    def __init__(self, step: Step, advance: Callable[[], None]) -> None:
        self._step = step
        self._advance = advance
        self._begin = time.perf_counter()

    def submitted(self, future: Future, begin: float | None = None) -> Future:
        """Note its end; ``begin`` is when it was submitted, by default the begin of the step."""
        begin = self._begin if begin is None else begin

        def ended(_future: object) -> None:
            self._step.latencies.append(time.perf_counter() - begin)
            self._advance()

        future.add_done_callback(ended)
        return future

    def finished(self) -> None:
        self._step.seconds = time.perf_counter() - self._begin


def problems_of(steps: Iterable[Step]) -> list[str]:
    """Everything that went wrong, one sentence each."""
    return [f"{step.title}: {problem}" for step in steps for problem in step.problems]
