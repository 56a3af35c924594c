"""``eager``: background runs execute at once, in the caller, without a broker.

It takes the place of this process's client, so that everything up to there is the real thing: arguments are
bound, encoded, signed, and the runs' futures are ordinary ones. What would travel to a worker is decoded and
executed on the spot, by the engine that a worker has, and its result is encoded and signed like a worker's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import Context
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from prefect_lite import clock
from prefect_lite.client.requests import Answered, Listener, Submission, refusal
from prefect_lite.client.runtime import Runtime, install_runtime
from prefect_lite.keyring import Keyring
from prefect_lite.protocol.messages import Refused, RunState, Submit
from prefect_lite.settings import get_settings
from prefect_lite.states import StateType
from prefect_lite.testing.clocks import FakeClock, JumpingClock
from prefect_lite.testing.eager_keeping import EagerKeeping
from prefect_lite.testing.eager_runs import EagerRun

if TYPE_CHECKING:
    from prefect_lite.settings import Settings
    from prefect_lite.testing.eager_assets import EagerAssets


class EagerClock(JumpingClock):
    """Real time; whoever sleeps goes on at once, and time jumps."""

    def sleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)


class EagerRuntime:
    """Stands in for ``client.runtime.Runtime``: what is submitted has ended when ``submit`` returns.

    Args:
        settings: Limits and names; no broker is looked for.

    Attributes:
        records: All runs so far, by id.
    """

    connected = True
    closed = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keyring = Keyring.generate()
        self.namespace = settings.namespace
        self.queue_wait_seconds = settings.queue_wait_seconds
        self.waited = False
        self.waited_for_many = False
        self.records: dict[str, RunState] = {}
        self._prints: dict[str, bytes] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._under_way: dict[str, list[Listener]] = {}
        self._lock = threading.Lock()  # of the four above
        self._keeping = EagerKeeping(settings)
        self._running: set[asyncio.Task[None]] = set()  # event loops don't keep them

    # -- submitting -------------------------------------------------------------------------------

    def submit(
        self, submits: Sequence[Submit], listener: Listener | None = None, patience: float = 0.0
    ) -> Submission:
        """Execute runs one after the other, in the caller's thread."""
        submission = Submission(len(submits), listener, patience)
        for message in submits:
            run = self._begin(message, submission)
            if run is not None:
                try:
                    Context().run(run.execute)  # a worker's context has nothing of the caller's
                finally:
                    self._end(run)
                if run.interrupt is not None:
                    raise run.interrupt
            self._settle(message, submission)
        return submission

    async def submit_async(
        self, submits: Sequence[Submit], listener: Listener | None = None, patience: float = 0.0
    ) -> Submission:
        """The same for coroutines: coroutine functions run on the caller's loop, others in a thread.

        Like on a worker, a run goes on when its caller is cancelled.
        """
        submission = Submission(len(submits), listener, patience)
        loop = asyncio.get_running_loop()
        for message in submits:
            run = self._begin(message, submission)
            if run is not None:
                running = loop.create_task(self._run(run), context=Context())
                self._running.add(running)
                running.add_done_callback(self._running.discard)
                await asyncio.shield(running)
            self._settle(message, submission)
        return submission

    async def _run(self, run: EagerRun) -> None:
        try:
            if run.is_async:
                await run.execute_async()
            else:
                await asyncio.to_thread(run.execute)
        finally:
            self._end(run)

    def _begin(self, message: Submit, submission: Submission) -> EagerRun | None:
        """The run, unless it is one that there has been, or can't be."""
        run_id, key = message.run_id, message.idempotency_key
        with self._lock:
            existing = self._by_key.get((message.task_key, key), run_id) if key else run_id
            known = self._prints.get(existing)
            if known is None:
                self._prints[run_id] = message.fingerprint
                self._under_way[run_id] = []
                if key:
                    self._by_key[message.task_key, key] = run_id
        if known is None:
            return EagerRun(message, self.keyring, self.namespace, self.settings, self.records)
        if known and message.fingerprint and known != message.fingerprint:
            text = f"Another run of {message.task_key!r} has this id or idempotency_key, and other arguments."
            submission.errors[run_id] = refusal(Refused(run_id, "conflict", text), message.task_key)
        elif existing != run_id:
            submission.aliases[run_id] = existing
        return None

    def _end(self, run: EagerRun) -> None:
        record = run.end
        with self._lock:
            self.records[record.run_id] = record
            listeners = self._under_way.pop(record.run_id)
        for listener in listeners:
            listener.ended(record)

    def _settle(self, message: Submit, submission: Submission) -> None:
        """The broker's word on a run, and its end to who has asked for it."""
        listener, run_id = submission.listener, message.run_id
        if message.watch and listener is not None:
            error = submission.errors.get(run_id)
            existing = submission.aliases.get(run_id, run_id)
            if error is not None:
                listener.failed(error)
            else:
                if existing != run_id:
                    listener.moved(run_id, existing)
                self.watch([existing], listener)
        submission.settled()

    # -- waiting and asking -----------------------------------------------------------------------

    def watch(self, run_ids: Iterable[str], listener: Listener) -> None:
        for run_id in run_ids:
            with self._lock:
                waiting = self._under_way.get(run_id)
                if waiting is not None:  # asked for from another thread, or from inside the run
                    waiting.append(listener)
            if waiting is None:
                listener.ended(self.records.get(run_id) or RunState(run_id))

    def unwatch(self, run_ids: Iterable[str], listener: Listener) -> None:
        for run_id in run_ids:
            with self._lock:
                waiting = self._under_way.get(run_id)
                if waiting is not None and listener in waiting:
                    waiting.remove(listener)

    def wake(self) -> None:
        """There is no connection to wake."""

    def call(self, work: Callable[[], None]) -> None:
        work()

    def ask(self, what: str, arg: Any = None, body: bytes | None = None) -> Answered:
        answered = Answered()
        if what in ("run", "why") and isinstance(arg, str):
            fields = self._known(arg)._asdict()
            del fields["result"]
            answered.ok, answered.value = True, fields
        elif what == "record":
            answered.ok = True  # `get_client` has looked at the records of this process before
        elif what == "runs":
            answered.ok, answered.value = True, {"runs": [], "ids": [], "next": None}
        elif self._keeping.knows(what):
            answered.ok, answered.value, answered.body = self._keeping.answer(what, arg, body)
        elif what.startswith("asset."):
            answered.ok, answered.value = self._assets.answer(what, arg)
        else:
            answered.value = ["unknown_query", f"There is no broker in eager mode to answer {what!r}."]
        answered.set()
        return answered

    def withdraw(self, answered: Answered) -> None:
        """Every question is answered at once."""

    @cached_property
    def _assets(self) -> EagerAssets:
        from prefect_lite.testing.eager_assets import EagerAssets  # few runs have to do with assets

        return EagerAssets()

    def _known(self, run_id: str) -> RunState:
        if run_id in self._under_way:
            return RunState(run_id, StateType.RUNNING.value, "Running", attempt=1)
        return self.records.get(run_id) or RunState(run_id)

    def cancel(self, run_id: str) -> Answered:
        answered = Answered()
        known = run_id in self.records or run_id in self._under_way
        answered.ok, answered.value = True, {"status": "already" if known else "unknown"}
        answered.set()
        return answered

    def close(self) -> None:
        """There is nothing to close."""

    def detach_in_child(self) -> None:
        """There is no socket to let go of."""


@contextmanager
def eager() -> Generator[None]:
    """Have background runs execute at once, in the caller: ``delay`` returns when the run has ended.

    Arguments and results are encoded and decoded as on their way to a worker and back, so what can't be sent
    is found. Conditions on time (``countdown``, ``eta``, ``expires``) are checked and then ignored,
    ``priority`` has no meaning, and delays between retries take no time. Process-wide, like the client it
    replaces.

    Coroutine functions run on the caller's loop under ``adelay``, on one of their own under ``delay``.
    A ``KeyboardInterrupt`` ends the run as crashed, and goes on to who has called ``delay``.

    Example:
        >>> from prefect_lite import task
        >>> @task(key="docs.double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with eager():
        ...     double.delay(21).result()
        42
    """
    stand_in = cast("Runtime", EagerRuntime(get_settings()))
    current = clock.current()  # one that stands still takes no time either, and notes who sleeps
    clock_before = clock.replace(current if isinstance(current, FakeClock) else EagerClock(current))
    runtime_before = install_runtime(stand_in)
    try:
        yield
    finally:
        install_runtime(runtime_before)
        clock.replace(clock_before)
