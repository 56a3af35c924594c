"""One background loop thread per process, and one connection on it, for all threads and event loops.

Whatever a thread wants done there is appended to an inbox; only the first of a burst wakes the loop. The
answers set latches. So ``delay()`` and ``result()`` work in any thread, under a running event loop too, and
whatever waits at the same time leaves in one frame. After a fork the child has none, and starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prefect_lite import embedded, thread_starts
from prefect_lite.client.allowance import Allowance
from prefect_lite.client.link import Link
from prefect_lite.client.requests import Answered, Listener, Submission, too_many
from prefect_lite.keyring import Keyring
from prefect_lite.protocol.messages import Submit
from prefect_lite.settings import Settings, get_settings

THREAD_NAME = "prefect-lite-client"
CLOSE_SECONDS = 3.0


class Runtime:
    """The client of this process.

    Attributes:
        settings: As they were when it started.
        keyring: Signs and verifies payloads.
        namespace: Of all its runs.
        queue_wait_seconds: How long a run waits for room unless its call says otherwise.
        waited: Somebody waited for a single run since the last ``delay()``. Who does that is likely to wait
            for the next one too, whose SUBMIT then asks for its end at once.
        waited_for_many: The same for several runs and the last ``map(deferred=True)``.
    """

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self.settings = settings
        self.keyring = keyring
        self.namespace = settings.namespace
        self.queue_wait_seconds = settings.queue_wait_seconds
        self.waited = False
        self.waited_for_many = False
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._scheduled = False
        self._ended = False
        self._loop = _new_loop()
        self._link = Link(settings, self._loop)
        self._allowance = Allowance(settings.max_unconfirmed_runs, settings.max_unconfirmed_bytes)
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        thread_starts.start(self._thread)

    # -- from any thread --------------------------------------------------------------------------

    def submit(
        self, submits: Sequence[Submit], listener: Listener | None = None, patience: float = 0.0
    ) -> Submission:
        """Send runs. The returned latch is set when each is durable or refused.

        While too many runs of this process have no broker's word this blocks.

        Args:
            submits: The runs, one at least, of one task.
            listener: As for ``watch``, of the runs whose SUBMIT says ``watch``.
            patience: Seconds for which a full queue, or a store that is away, is to be waited for.

        Raises:
            QueueFull: There was no place for them in this process in time; nothing was sent.
        """
        size = _bytes_of(submits)
        waited = 0.0
        if not self._allowance.try_enter(len(submits), size):
            since = time.monotonic()
            entered = self._allowance.enter(len(submits), size, self._place_seconds(patience))
            waited = time.monotonic() - since
            if not entered:
                raise too_many(submits[0].task_key, self._allowance, self.settings, waited)
        return self._submit(submits, listener, patience - waited, size)

    async def submit_async(
        self, submits: Sequence[Submit], listener: Listener | None = None, patience: float = 0.0
    ) -> Submission:
        """``submit`` for coroutines."""
        size = _bytes_of(submits)
        waited = 0.0
        if not self._allowance.try_enter(len(submits), size):
            since = time.monotonic()
            entered = await self._allowance.enter_async(len(submits), size, self._place_seconds(patience))
            waited = time.monotonic() - since
            if not entered:
                raise too_many(submits[0].task_key, self._allowance, self.settings, waited)
        return self._submit(submits, listener, patience - waited, size)

    def _submit(
        self, submits: Sequence[Submit], listener: Listener | None, patience: float, size: int
    ) -> Submission:
        submission = Submission(len(submits), listener, max(0.0, patience), self._allowance, size)
        self._post(self._link.submit, submits, submission)
        return submission

    def _place_seconds(self, patience: float) -> float:
        # Not at once: a loop that is faster than its broker is slowed down by this, and goes on.
        return max(patience, self.settings.connect_timeout_seconds)

    def watch(self, run_ids: Iterable[str], listener: Listener) -> None:
        """Have ``listener`` told of the end of each run, now or when it comes, on the loop thread."""
        self._post(self._link.watch, run_ids, listener)

    def unwatch(self, run_ids: Iterable[str], listener: Listener) -> None:
        """No longer tell ``listener``."""
        self._post(self._link.unwatch, run_ids, listener)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._link.connected

    @property
    def closed(self) -> bool:
        """Whether ``close`` has come to its end: nothing is sent any more."""
        return self._ended

    def wake(self) -> None:
        """Somebody waits for a run that is watched already: have a connection."""
        self._post(self._link.wake)

    def call(self, work: Callable[[], None]) -> None:
        """Call something on the loop thread."""
        self._post(work)

    def ask(self, what: str, arg: Any = None, body: bytes | None = None) -> Answered:
        """Ask the broker a question (QUERY). The returned latch is set with its answer.

        Args:
            what: The question, see ``prefect_lite_broker.queries``.
            arg: Its argument.
            body: Bytes that go with it, at most ``max_payload_bytes``.
        """
        answered = Answered()
        self._post(self._link.ask, what, arg, body, answered)
        return answered

    def withdraw(self, answered: Answered) -> None:
        """Nobody waits for this answer any more: the question is not sent (again)."""
        self._post(self._link.withdraw, answered)

    def cancel(self, run_id: str) -> Answered:
        """Cancel a run. The returned latch is set with the broker's answer."""
        answered = Answered()
        self._post(self._link.cancel, run_id, answered)
        return answered

    def close(self) -> None:
        """Say goodbye, end the thread, and fail what still waits or comes later."""
        if not self._thread.is_alive():
            return
        closing = asyncio.run_coroutine_threadsafe(self._link.aclose(), self._loop)
        closing.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(CLOSE_SECONDS)

    def detach_in_child(self) -> None:
        """After a fork: let go of the parent's socket, whose end the broker would not notice otherwise.

        The descriptor stays taken (by /dev/null), so that nothing the dead loop still does can hit a new one.
        """
        descriptor = self._link.socket_fd
        if descriptor >= 0:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, descriptor, inheritable=False)
            os.close(null)

    # -- inside -----------------------------------------------------------------------------------

    def _post(self, handler: Callable[..., None], *args: Any) -> None:
        self._inbox.append((handler, args))
        # Appended first, looked second; _drain and _run do the reverse. So nothing is left behind.
        if self._ended:
            self._drain()  # the link is closed: all it does is fail what it is given
        elif not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop was closed this moment
                self._drain()

    def _drain(self) -> None:
        self._scheduled = False
        self._link.at_once(self._take)

    def _take(self) -> None:
        inbox = self._inbox
        while inbox:
            try:
                handler, args = inbox.popleft()
            except IndexError:  # another thread drains the inbox of an ended client too
                return
            handler(*args)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            asyncio.set_event_loop(None)
            self._ended = True
            self._drain()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


def _bytes_of(submits: Sequence[Submit]) -> int:
    return len(submits[0].body) if len(submits) == 1 else sum(len(message.body) for message in submits)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on every platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


_runtime: Runtime | None = None
_lock = threading.Lock()
_inherited: list[Runtime] = []  # of the parent process: never used, never collected


def get_runtime() -> Runtime:
    """The client of this process, started by the first call.

    Raises:
        ConfigurationError: A setting or the keyring makes no sense.
        EmbeddedStartError: The home directory can't be used.
    """
    return _runtime if _runtime is not None else _start()


def may_have_runs() -> bool:
    """Whether a broker may know of runs; if not, asking would only start one."""
    return _runtime is not None or embedded.may_have_runs(get_settings())


def _start() -> Runtime:
    global _runtime
    with _lock:
        if _runtime is None:
            settings = get_settings()
            _runtime = Runtime(settings, embedded.load_or_create_keyring(settings))
        return _runtime


def close_runtime() -> None:
    """Close this process's client; the next use starts another, with settings read anew."""
    global _runtime
    with _lock:
        runtime, _runtime = _runtime, None
    if runtime is not None:
        runtime.close()


def install_runtime(runtime: Runtime | None) -> Runtime | None:
    """Use another client from now on, as eager mode does; None: the next use starts one.

    Returns:
        The one before, which is not closed, to be put back.
    """
    global _runtime
    with _lock:
        before, _runtime = _runtime, runtime
    return before


def _after_fork() -> None:
    global _lock, _runtime
    _lock = threading.Lock()  # another thread may have held it
    runtime, _runtime = _runtime, None
    if runtime is not None:
        _inherited.append(runtime)
        runtime.detach_in_child()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_runtime)
