"""What the client's loop thread does: submits, watches and questions over one connection.

Everything here runs on the loop thread; other threads hold the latches it sets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, ClassVar, Final

from prefect_lite.client.connection import BrokerConnection
from prefect_lite.client.requests import Answered, Listener, Submission, refusal
from prefect_lite.exceptions import BrokerUnreachable
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
    Error,
    Message,
    Query,
    Refused,
    RunState,
    Submit,
    Welcome,
)
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.settings import Settings
from prefect_lite.version import __version__

logger = logging.getLogger("prefect_lite.client")

SWEEP_SECONDS: Final = 0.1
START_SECONDS: Final = 30.0
"""A local broker that is being started may take longer than a connection may."""
REFRESH_RUNS: Final = 2_000
"""Watched runs that are read again in one go."""
_CLOSED: Final = "The client of this process was closed."


class Link:
    """The client's side of the connection; see the module's docstring."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        info = {"host": socket.gethostname(), "pid": os.getpid()}
        self._session = PeerSession(
            "client",
            settings.namespace,
            version=__version__,
            info=info,
            max_payload_bytes=settings.max_payload_bytes,
        )
        self._connection: BrokerConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ever_up = False
        self._down_since = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._refresher: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Sequence[Submit], Submission]] = deque()  # for a connection
        self._pending: dict[str, Submission] = {}  # sent, not answered
        self._twins: dict[str, list[tuple[Submit, Submission]]] = {}  # of a pending one, with the same id
        self._listeners: dict[str, list[Listener]] = {}
        self._unknown: set[str] = set()
        self._questions: dict[int, Answered] = {}
        self._last_request = 0
        self._warned: set[str] = set()

    # -- what other threads want ------------------------------------------------------------------

    def submit(self, submits: Sequence[Submit], submission: Submission) -> None:
        self._connect()
        if not self._session.welcomed:
            # The session would still send them after the caller was told that they failed.
            self._waiting.append((submits, submission))
            return
        pending = self._pending
        send = self._session.submit
        for message in submits:
            run_id = message.run_id
            if run_id in pending:
                self._twins.setdefault(run_id, []).append((message, submission))
                continue
            pending[run_id] = submission
            if message.watch and submission.listener is not None:
                self._listen(run_id, submission.listener)
            try:
                send(message)
            except ProtocolError as exc:
                self._refused(Refused(run_id, exc.code, exc.text))
        self._flush()

    def watch(self, run_ids: Iterable[str], listener: Listener) -> None:
        self._connect()
        run_ids = list(run_ids)
        for run_id in run_ids:
            self._listen(run_id, listener)
        self._session.watch(run_ids)
        self._flush()

    def _listen(self, run_id: str, listener: Listener) -> None:
        self._listeners.setdefault(run_id, []).append(listener)
        if self._refresher is None:
            self._refresher = self._loop.call_later(self._settings.watch_refresh_seconds, self._refresh)

    def unwatch(self, run_ids: Iterable[str], listener: Listener) -> None:
        gone: list[str] = []
        for run_id in run_ids:
            listeners = self._listeners.get(run_id)
            if listeners is not None and listener in listeners:
                listeners.remove(listener)
                if not listeners:
                    del self._listeners[run_id]
                    gone.append(run_id)
        if gone:
            self._session.unwatch(gone)
            self._flush()

    def ask(self, what: str, arg: Any, answered: Answered) -> None:
        self._ask(Query(self._next_request(), what, arg), answered)

    def cancel(self, run_id: str, answered: Answered) -> None:
        self._ask(Cancel(self._next_request(), run_id), answered)

    async def aclose(self) -> None:
        """Say goodbye; what still waits fails."""
        for timer in (self._sweeper, self._refresher):
            if timer is not None:
                timer.cancel()
        connection, task = self._connection, self._task
        if connection is not None and task is not None:
            await connection.aclose("the client ends")
            task.cancel()  # it may still be dialing
            await asyncio.wait([task])
        self._fail_all(BrokerUnreachable(_CLOSED))

    @property
    def socket_fd(self) -> int:
        """Descriptor of the connection's socket, -1 without one."""
        return self._connection.socket_fd if self._connection is not None else -1

    # -- connection -------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._connection is not None:
            if not self._session.welcomed and self._sweeper is None:
                self._sweep()
            return
        self._down_since = time.monotonic()
        self._connection = BrokerConnection(
            self._session,
            self._settings,
            "client",
            on_messages=self._on_messages,
            on_up=self._on_up,
            on_down=self._on_down,
        )
        self._task = self._loop.create_task(self._connection.run(), name="prefect-lite-connection")
        self._task.add_done_callback(self._gave_up)
        self._sweep()

    def _gave_up(self, task: asyncio.Task[None]) -> None:
        """The broker refuses us for good; the next use tries again, perhaps with another token."""
        if not task.cancelled() and task.exception() is not None:
            self._connection = self._task = None
            error = task.exception()
            self._fail_all(error if isinstance(error, Exception) else BrokerUnreachable(str(error)))

    def _on_up(self, _welcome: Welcome) -> None:
        self._ever_up = True
        waiting, self._waiting = self._waiting, deque()
        for submits, submission in waiting:
            self.submit(submits, submission)

    def _on_down(self, _error: Exception | None) -> None:
        if self._sweeper is None and self._connection is not None:
            self._down_since = time.monotonic()
            self._sweep()

    def _flush(self) -> None:
        if self._connection is not None:
            self._connection.schedule_flush()

    # -- what arrives -----------------------------------------------------------------------------

    def _on_messages(self, messages: list[Message]) -> None:
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(self, message)

    def _answered(self, message: Answer) -> None:
        answered = self._questions.pop(message.request, None)
        if answered is not None:
            answered.ok, answered.value = message.ok, message.value
            answered.set()

    def _error(self, message: Error) -> None:
        if not message.fatal:
            logger.warning("The broker refused a message: %s (%s)", message.text, message.code)

    def _accepted(self, message: Accepted) -> None:
        for key, sentence in message.notices:
            if key not in self._warned:
                self._warned.add(key)
                logger.warning("%s", sentence, extra={"task_key": key, "action": "unserved"})
        for asked, existing in message.aliases:
            submission = self._pending.get(asked)
            if submission is not None:
                submission.aliases[asked] = existing
                self._settle(asked)
        for run_id in message.run_ids:
            self._settle(run_id)

    def _settle(self, run_id: str) -> None:
        submission = self._pending.pop(run_id, None)
        if submission is not None:
            submission.settled()
        if self._twins:
            for message, twin in self._twins.pop(run_id, ()):
                self.submit([message], twin)

    def _refused(self, message: Refused) -> None:
        submission = self._pending.get(message.run_id)
        if submission is not None:
            submission.errors[message.run_id] = refusal(message)
            if submission.listener is not None:
                self._listeners.pop(message.run_id, None)
            self._settle(message.run_id)

    def _ended(self, state: RunState) -> None:
        if not state.type and state.run_id not in self._unknown:
            # Perhaps read before its SUBMIT was, on a new connection: once more before we say so.
            self._unknown.add(state.run_id)
            self._session.watch([state.run_id])
            self._flush()
            return
        if self._unknown:
            self._unknown.discard(state.run_id)
        for listener in self._listeners.pop(state.run_id, ()):
            listener.ended(state)

    # -- questions --------------------------------------------------------------------------------

    def _next_request(self) -> int:
        self._last_request += 1
        return self._last_request

    def _ask(self, message: Query | Cancel, answered: Answered) -> None:
        self._connect()
        self._questions[message.request] = answered
        self._session.ask(message)
        self._flush()

    # -- time -------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read watched runs again, longest unread first: a lost hint may cost seconds, never a result."""
        self._refresher = None
        listeners = self._listeners
        if not listeners:
            return
        run_ids = list(islice(listeners, REFRESH_RUNS))
        for run_id in run_ids:
            listeners[run_id] = listeners.pop(run_id)  # to the end of the line
        if self._session.welcomed:
            self._session.watch(run_ids)
            self._flush()
        self._refresher = self._loop.call_later(self._settings.watch_refresh_seconds, self._refresh)

    def _sweep(self) -> None:
        """While there is no connection: give up what has waited for one too long."""
        self._sweeper = None
        connection = self._connection
        if self._session.welcomed or connection is None:
            return
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        limit = self._settings.connect_timeout_seconds
        if connection.starting:
            limit = max(limit, START_SECONDS)
        latest = time.monotonic() - limit
        if self._down_since > latest:
            return
        error = self._unreachable()
        kept = deque(item for item in self._waiting if item[1].since > latest)
        given_up = [item for item in self._waiting if item[1].since <= latest]
        self._waiting = kept
        for submits, submission in given_up:
            self._fail(submission, [message.run_id for message in submits], error)
        for run_id, submission in list(self._pending.items()):
            if submission.since <= latest:
                # Sent, and perhaps stored: the session asks again on the next connection.
                submission.errors[run_id] = error
                self._settle(run_id)
        for request, answered in list(self._questions.items()):
            if answered.since <= latest:
                del self._questions[request]
                answered.error = error
                answered.set()
        if not self._ever_up:
            self._fail_listeners(error)

    def _unreachable(self) -> BrokerUnreachable:
        connection = self._connection
        reason = connection.last_error if connection is not None else None
        said = f" The last attempt: {reason}" if reason is not None else ""
        seconds = f"{self._settings.connect_timeout_seconds:g} s"
        urls = ", ".join(self._settings.broker_url)
        if urls:
            remedy = "Start one with 'prefect-lite broker', or correct PREFECT_LITE_BROKER_URL."
            return BrokerUnreachable(f"No broker answered at {urls} within {seconds}. {remedy}{said}")
        remedy = "See 'prefect-lite broker status', or set PREFECT_LITE_BROKER_URL."
        return BrokerUnreachable(f"The local broker did not answer within {seconds}. {remedy}{said}")

    # -- failing ----------------------------------------------------------------------------------

    def _fail(self, submission: Submission, run_ids: Iterable[str], error: Exception) -> None:
        for run_id in run_ids:
            submission.errors[run_id] = error
            submission.settled()

    def _fail_all(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for submits, submission in waiting:
            self._fail(submission, [message.run_id for message in submits], error)
        pending, self._pending = self._pending, {}
        twins, self._twins = self._twins, {}
        for run_id, submission in pending.items():
            self._fail(submission, [run_id], error)
        for same in twins.values():
            for message, submission in same:
                self._fail(submission, [message.run_id], error)
        questions, self._questions = self._questions, {}
        for answered in questions.values():
            answered.error = error
            answered.set()
        self._fail_listeners(error)

    def _fail_listeners(self, error: Exception) -> None:
        listeners, self._listeners = self._listeners, {}
        self._session.unwatch(list(listeners))
        for listener in {id(one): one for group in listeners.values() for one in group}.values():
            listener.failed(error)

    _handlers: ClassVar[dict[type[Message], Callable[[Any, Any], None]]] = {
        Accepted: _accepted,
        Refused: _refused,
        RunState: _ended,
        Answer: _answered,
        Error: _error,
    }
