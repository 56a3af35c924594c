"""Executing runs away from the worker's own process: the part that children and other executors share.

The code is that of the worker's threads and loops (``Execution``), with a desk and a keyring of its own: the
worker gives each call a new signature with a key made for the purpose, and takes results with that one only,
so its real keys never leave it.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from prefect_lite.alarms import ALARMS
from prefect_lite.context import TaskRunContext
from prefect_lite.interrupts import PERMITS
from prefect_lite.keyring import Keyring
from prefect_lite.protocol.messages import Run, RunState
from prefect_lite.run_ends import TIMEOUT
from prefect_lite_worker.desk import Desk, Ended
from prefect_lite_worker.execution import Execution
from prefect_lite_worker.leases import ActiveRun, Leases, LoopRun, ThreadRun
from prefect_lite_worker.loops import LoopHost, close_loop, new_event_loop
from prefect_lite_worker.pipe import END
from prefect_lite_worker.registry import AnyTask


class PatientExecution(Execution):
    """One run at a time: there is nobody else whom verifying a long payload could hold up."""

    async def _open_beside(self, run: LoopRun, loop: asyncio.AbstractEventLoop) -> TaskRunContext | None:
        return self._open(run)

    def _complete_beside(self, run: ActiveRun, *encoded: Any) -> None:
        self._complete(run, *encoded)


class Elsewhere:
    """Executes one run at a time in the calling thread, functions and coroutines.

    Args:
        desk: Takes what happens.
        keyring: The one shared with the worker.
        namespace: Part of what is signed.
        max_payload_bytes: Longest sealed result.
    """

    def __init__(self, desk: Desk, keyring: Keyring, namespace: str, max_payload_bytes: int) -> None:
        self._leases = Leases(1)
        self._execution = PatientExecution(self._leases, desk, keyring, namespace, max_payload_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None

    def execute(self, run: ThreadRun | LoopRun) -> None:
        """Execute a run; how it has ended, or what it needs first, lies on the desk afterwards."""
        self._leases.add(run)
        try:
            if isinstance(run, LoopRun):
                loop = run.host.loop
                loop.run_until_complete(self._execution.on_loop(run, loop))
            else:
                # A copy, so that context variables, the current run among them, end with it.
                contextvars.copy_context().run(self._execution.in_thread, run)
        finally:
            self._leases.remove(run)

    @property
    def host(self) -> LoopHost:
        """The loop of its coroutines."""
        if self._loop is None or self._loop.is_closed():
            self._loop = new_event_loop()
        return LoopHost(self._loop, self._execution.on_loop)

    def close(self) -> None:
        """End what coroutines have left on the loop."""
        if self._loop is not None:
            close_loop(self._loop)
        self._execution.close()


def end_message(ended: Ended, resident: int = 0) -> list[Any]:
    """The end of a run as plain data; ``handover.py`` reads it.

    Args:
        ended: What the executor has put down.
        resident: Memory of the process, in bytes, if that is wanted.
    """
    run, message, outcome, seconds = ended
    told = None if message is None else [type(message).__name__, *message]
    return [END, run.token, told, outcome.kind, outcome.message, seconds, resident]


class _Timed(ThreadRun):
    """Nobody outside can interrupt it, so it has an alarm of its own."""

    __slots__ = ()

    def begin(self, attempt: int) -> None:
        super().begin(attempt)
        if self.timeout is not None:
            ALARMS.set(self.timeout, self)

    def end(self) -> str | None:
        interrupted = PERMITS.withdraw(self)
        self.inside = False
        return TIMEOUT if interrupted else None


class _TimedCoroutine(LoopRun):
    __slots__ = ("timer",)

    def begin(self, attempt: int) -> None:
        super().begin(attempt)
        self.stop = None
        self.timer = None if self.timeout is None else self.host.loop.call_later(self.timeout, self._expire)

    def end(self) -> str | None:
        if self.timer is not None:
            self.timer.cancel()
        return super().end()

    def _expire(self) -> None:
        self.stop = TIMEOUT
        self._cancel()


def execute_payload(data: bytes) -> bytes:
    """A whole run as bytes to bytes: what a worker gives to an executor it knows nothing about.

    Args:
        data: What ``executors.py`` has packed.

    Returns:
        The messages that a child process would send, packed.
    """
    from prefect_lite.logging import ensure_output
    from prefect_lite.pickling import loads
    from prefect_lite_worker.pipe import LINES, NEED, msgpack

    order = msgpack.unpackb(data, strict_map_key=False)
    desk = Desk()
    key_id, key = order["key"]
    keyring = Keyring([(key_id, key)] if key_id else [])
    there = Elsewhere(desk, keyring, order["namespace"], order["max_payload_bytes"])
    task: AnyTask = loads(order["task"])
    message = Run(*order["run"])
    run = _TimedCoroutine(message, task, desk, there.host) if task.isasync else _Timed(message, task, desk)
    take_outcomes(run, order["outcomes"])
    ensure_output()
    try:
        there.execute(run)
    finally:
        there.close()
    found: list[list[Any]] = [[LINES, run.token, [line for _, line in desk.lines]]]
    found += [[NEED, run.token, list(run_ids)] for _, run_ids in desk.needs]
    found += [end_message(ended) for ended in desk.ended]
    return msgpack.packb(found, unicode_errors="surrogatepass")


def take_outcomes(run: ActiveRun, outcomes: list[list[Any]] | None) -> None:
    """Give a run the results of others that came along with it, if it takes any."""
    if outcomes is not None:
        run.outcomes = {state[0]: RunState(*state) for state in outcomes}
