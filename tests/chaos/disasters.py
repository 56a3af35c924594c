"""What is done to a fleet in a chaos run: a plan made from a seed, and the hand that carries it out."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import NamedTuple

from tests.integration.fleet import Fleet
from tests.integration.harness import Running
from tests.tools.lines import Lines

TASKS = "chaos_tasks"


class Step(NamedTuple):
    """Done once so many runs have ended."""

    at: int
    what: str  # kill, pause, cut, hold
    whom: str  # worker, broker, valkey; lines to cut or hold
    which: int
    seconds: float  # until it is restarted, or goes on


def plan(seed: int, runs: int, counts: dict[str, int], *, workers: int, brokers: int) -> list[Step]:
    """Steps in order, spread over the first nine tenths of the run.

    Args:
        seed: Of everything that is left to chance.
        runs: How many there are.
        counts: How often what happens to whom, e.g. ``{"kill worker": 10, "pause broker": 2}``.
        workers, brokers: How many there are to choose from.
    """
    chance = random.Random(f"disasters {seed}")
    doom = [name for name, count in counts.items() for _ in range(count)]
    chance.shuffle(doom)
    steps: list[Step] = []
    for number, name in enumerate(doom):
        what, whom = name.split()
        many = {"worker": workers, "broker": brokers, "lines": brokers, "valkey": 1}[whom]
        seconds = chance.uniform(0.05, 0.5) if what == "kill" else chance.uniform(0.3, 3.0)
        at = int((number + 1) * runs * 0.9 / (len(doom) + 1))
        steps.append(Step(at, what, whom, chance.randrange(many), round(seconds, 3)))
    return steps


class Disasters:
    """Carries steps out on a fleet, by the pids of the processes that it started.

    Args:
        fleet: With its brokers running.
        workers: How many workers to start.
        lines: The connections of workers and clients to the brokers, where they are to be cut.
    """

    def __init__(self, fleet: Fleet, workers: int, lines: Lines | None = None) -> None:
        self._fleet = fleet
        self._lines = lines
        self._urls = None if lines is None else lines.urls
        self.workers: list[Running] = [self._start_worker() for _ in range(workers)]
        self.done: list[Step] = []
        self._began = time.monotonic()

    def _start_worker(self) -> Running:
        return self._fleet.start_worker(TASKS, urls=self._urls)

    def carry_out(self, step: Step) -> None:
        """Kill and restart, or pause and let go on; returns when that is done, not when it is ready."""
        seconds = time.monotonic() - self._began
        what = f"{step.what} {step.whom} {step.which} for {step.seconds} s"
        print(f"{seconds:6.1f} s, {step.at:,} runs: {what}", flush=True)
        getattr(self, step.what)(step)
        self.done.append(step)

    def kill(self, step: Step) -> None:
        """SIGKILL, and start it again after a while."""
        fleet = self._fleet
        if step.whom == "worker":
            self.workers[step.which].kill()
        elif step.whom == "broker":
            fleet.kill_broker_at(step.which)
        else:
            assert fleet.server is not None
            fleet.server.kill()
        time.sleep(step.seconds)  # how long the outage lasts is part of the plan
        if step.whom == "worker":
            self.workers[step.which] = self._start_worker()
        elif step.whom == "broker":
            fleet.start_broker(step.which, wait=False)
        else:
            assert fleet.server is not None
            fleet.server.start()

    def pause(self, step: Step) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        pid = self._pid(step)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(step.seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def cut(self, step: Step) -> None:
        """Reset all connections to a broker."""
        assert self._lines is not None
        self._lines.cut(step.which)

    def hold(self, step: Step) -> None:
        """Let nothing pass to or from a broker for a while."""
        assert self._lines is not None
        self._lines.hold(step.which, held=True)
        time.sleep(step.seconds)
        self._lines.hold(step.which, held=False)

    def _pid(self, step: Step) -> int:
        if step.whom == "worker":
            return self.workers[step.which].pid
        if step.whom == "broker":
            broker = self._fleet.brokers[step.which]
            assert broker is not None
            return broker.pid
        assert self._fleet.server is not None
        return self._fleet.server.pid
