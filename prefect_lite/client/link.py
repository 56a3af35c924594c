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
from typing import Any, ClassVar, Final

from prefect_lite.client.connection import BrokerConnection
from prefect_lite.client.questions import Questions
from prefect_lite.client.queueing import Queueing
from prefect_lite.client.requests import Answered, Listener, Submission, perhaps_stored, refusal
from prefect_lite.client.watching import Watching
from prefect_lite.exceptions import BrokerUnreachable
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Error,
    Message,
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
        self._closed: BrokerUnreachable | None = None
        self._ever_up = False
        self._down_since = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Sequence[Submit], Submission]] = deque()  # for a connection
        self._pending: dict[str, tuple[Submit, Submission]] = {}  # sent, not answered
        self._twins: dict[str, list[tuple[Submit, Submission]]] = {}  # of a pending one, with the same id
        self._unsure: set[str] = set()  # runs that may have been stored, although no broker said so
        self._queueing = Queueing(loop, self._send_again, self._waited, lambda: self._session.welcomed)
        self._watching = Watching(
            self._session,
            loop,
            settings.watch_refresh_seconds,
            self._flush,
            unsent=self._queueing.holds,
        )
        self._questions = Questions(self._session, self._flush)
        self._warned: set[str] = set()

    # -- what other threads want ------------------------------------------------------------------

    def at_once(self, work: Callable[[], None]) -> None:
        """Do ``work``, which calls the methods below, and send what that brings at once."""
        connection = self._connection
        if connection is None:
            work()
        else:
            connection.at_once(work)

    def submit(self, submits: Sequence[Submit], submission: Submission) -> None:
        if self._closed is not None:
            self._fail(submission, [message.run_id for message in submits], self._closed)
            return
        self._connect()
        if not self._session.welcomed:
            # The session would still send them after the caller was told that they failed.
            self._waiting.append((submits, submission))
            return
        pending = self._pending
        queueing = self._queueing
        for message in submits:
            run_id = message.run_id
            if run_id in pending or (queueing.known and queueing.holds(run_id)):
                self._hold_twin(message, submission)
                continue
            if message.watch and submission.listener is not None:
                asked = self._watching.expect(run_id, submission.listener)
                if not asked:
                    message = message._replace(watch=False)  # noqa: PLW2901
            if queueing.known and queueing.join(message, submission):
                continue
            self._send(message, submission)
        self._flush()

    def _hold_twin(self, message: Submit, submission: Submission) -> None:
        """The same run is on its way already: this one goes when that is settled."""
        run_id = message.run_id
        refused = None if submission.patience > 0 else self._queueing.refusal_of(run_id)
        if refused is None:
            self._twins.setdefault(run_id, []).append((message, submission))
            return
        error = refusal(refused, message.task_key)
        self._fail(submission, [run_id], perhaps_stored(error, run_id) if run_id in self._unsure else error)

    def _send(self, message: Submit, submission: Submission) -> None:
        self._pending[message.run_id] = message, submission
        try:
            self._session.submit(message)
        except ProtocolError as exc:
            self._refused(Refused(message.run_id, exc.code, exc.text))

    def _send_again(self, runs: list[tuple[Submit, Submission]]) -> None:
        """Runs of a line, to be tried once more."""
        for message, submission in runs:
            # The refusal ended the watch of somebody who waits for it already.
            watch = not message.watch and self._watching.knows(message.run_id)
            self._send(message._replace(watch=True) if watch else message, submission)
        self._flush()

    def _waited(self, message: Submit, submission: Submission, refused: Refused) -> None:
        """A run has waited for room as long as it may."""
        error = refusal(refused, message.task_key, time.monotonic() - submission.since)
        self._fail(submission, [message.run_id], self._as_far_as_known(message.run_id, error))
        self._submit_twins(message.run_id)

    def _as_far_as_known(self, run_id: str, error: Exception) -> Exception:
        if run_id not in self._unsure:
            return error
        self._unsure.discard(run_id)
        return perhaps_stored(error, run_id)

    def watch(self, run_ids: Iterable[str], listener: Listener) -> None:
        if self._closed is not None:
            listener.failed(self._closed)
            return
        self._connect()
        self._watching.watch(run_ids, listener)

    def unwatch(self, run_ids: Iterable[str], listener: Listener) -> None:
        if self._closed is None:
            self._watching.unwatch(run_ids, listener)

    def wake(self) -> None:
        """Somebody waits for the end of a run that is watched already."""
        if self._closed is None:
            self._connect()

    def ask(self, what: str, arg: Any, body: bytes | None, answered: Answered) -> None:
        if self._open_for(answered):
            self._connect()
            self._questions.ask(what, arg, body, answered)

    def withdraw(self, answered: Answered) -> None:
        self._questions.withdraw(answered)

    def cancel(self, run_id: str, answered: Answered) -> None:
        if self._open_for(answered):
            self._connect()
            self._questions.cancel(run_id, answered)

    def _open_for(self, answered: Answered) -> bool:
        if self._closed is not None:
            answered.error = self._closed
            answered.set()
        return self._closed is None

    async def aclose(self) -> None:
        """Say goodbye; what still waits fails, and so does what comes later."""
        self._closed = BrokerUnreachable(_CLOSED)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._watching.close()
        connection, task = self._connection, self._task
        if connection is not None and task is not None:
            await connection.aclose("the client ends")
            task.cancel()  # it may still be dialing
            await asyncio.wait([task])
        self._fail_all(self._closed)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment; from any thread."""
        return self._session.welcomed

    @property
    def socket_fd(self) -> int:
        """Descriptor of the connection's socket, -1 without one."""
        return self._connection.socket_fd if self._connection is not None else -1

    # -- connection -------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Have a connection, now or soon."""
        if self._session.welcomed:
            return
        connection = self._connection
        if connection is None:
            self._down_since = time.monotonic()
            connection = self._connection = BrokerConnection(
                self._session,
                self._settings,
                "client",
                on_messages=self._on_messages,
                on_up=self._on_up,
                on_down=self._on_down,
                needed=self._needed,
            )
            self._task = self._loop.create_task(connection.run(), name="prefect-lite-connection")
            self._task.add_done_callback(self._gave_up)
        elif connection.resting:
            self._down_since = time.monotonic()
            connection.wake()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _needed(self) -> bool:
        """Whether a connection that is lost has to be replaced at once."""
        unsettled = self._waiting or self._pending or self._queueing or self._questions
        return bool(unsettled) or self._watching.waited_for

    def _gave_up(self, task: asyncio.Task[None]) -> None:
        """The broker refuses us for good; the next use tries again, perhaps with another token."""
        if not task.cancelled() and task.exception() is not None:
            self._connection = self._task = None
            error = task.exception()
            self._fail_all(error if isinstance(error, Exception) else BrokerUnreachable(str(error)))

    def _on_up(self, _welcome: Welcome) -> None:
        self._ever_up = True
        self._stop_sweeping()
        waiting, self._waiting = self._waiting, deque()
        for submits, submission in waiting:
            self.submit(submits, submission)

    def _on_down(self, _error: Exception | None) -> None:
        self._unsure.update(self._pending)
        self._questions.disconnected()
        if self._sweeper is None and self._closed is None:
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
        self._questions.answered(message)

    def _ended(self, state: RunState) -> None:
        self._watching.ended(state)

    def _error(self, message: Error) -> None:
        if not message.fatal:
            logger.warning("The broker refused a message: %s (%s)", message.text, message.code)

    def _accepted(self, message: Accepted) -> None:
        for key, sentence in message.notices:
            if key not in self._warned:
                self._warned.add(key)
                logger.warning("%s", sentence, extra={"task_key": key, "action": "unserved"})
        for asked, existing in message.aliases:
            pending = self._pending.get(asked)
            if pending is not None:
                self._watching.moved(asked, existing)
                pending[1].aliases[asked] = existing
                self._settle(asked)
        for run_id in message.run_ids:
            self._settle(run_id)

    def _settle(self, run_id: str) -> None:
        pending = self._pending.pop(run_id, None)
        if pending is not None:
            pending[1].settled()
        if self._unsure:
            self._unsure.discard(run_id)
        if self._queueing.known:
            self._queueing.settled(run_id)
        if self._twins:
            self._submit_twins(run_id)

    def _submit_twins(self, run_id: str) -> None:
        for message, twin in self._twins.pop(run_id, ()):
            self.submit([message], twin)

    def _refused(self, message: Refused) -> None:
        run_id = message.run_id
        pending = self._pending.get(run_id)
        if pending is None:
            return
        submit, submission = pending
        if message.code == "unavailable":
            self._unsure.add(run_id)  # Redis may have it, and have been unable to say so
        if self._queueing.take(submit, submission, message):
            del self._pending[run_id]
            return
        waited = time.monotonic() - submission.since if submission.patience else 0.0
        error = refusal(message, submit.task_key, waited)
        if message.code != "conflict":  # that is said of what is stored
            error = self._as_far_as_known(run_id, error)
        self._settle_with(run_id, error)

    def _settle_with(self, run_id: str, error: Exception) -> None:
        pending = self._pending.get(run_id)
        if pending is not None:
            self._note(pending[1], run_id, error)
            self._settle(run_id)

    def _note(self, submission: Submission, run_id: str, error: Exception) -> None:
        submission.errors[run_id] = error
        if submission.listener is not None and submission.count == 1:
            self._watching.refused(run_id, submission.listener, error)
        else:
            self._watching.read_again(run_id)

    # -- giving up --------------------------------------------------------------------------------

    def _stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _sweep(self) -> None:
        """While there is no connection: give up what has waited for one too long."""
        self._stop_sweeping()
        connection = self._connection
        if self._session.welcomed or connection is None or not self._needed():
            return
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        limit = self._settings.connect_timeout_seconds
        if connection.starting:
            limit = max(limit, START_SECONDS)
        now = time.monotonic()
        latest = now - limit
        if self._down_since > latest:
            return
        error = self._unreachable()

        def late(submission: Submission) -> bool:
            return submission.since + max(limit, submission.patience) <= now

        given_up = [item for item in self._waiting if late(item[1])]
        self._waiting = deque(item for item in self._waiting if not late(item[1]))
        for submits, submission in given_up:
            self._fail(submission, [message.run_id for message in submits], error)
        self._withdraw([run_id for run_id, (_, one) in self._pending.items() if late(one)], error)
        self._questions.fail(error, latest)
        if not self._ever_up:
            self._watching.fail(error)

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

    def _fail(self, submission: Submission, run_ids: Iterable[str], error: Exception) -> None:
        """These runs were never sent, and won't be."""
        for run_id in run_ids:
            self._note(submission, run_id, error)
            submission.settled()

    def _withdraw(self, run_ids: list[str], error: Exception) -> None:
        """These runs were sent, but not answered; they won't be sent again."""
        self._session.withdraw(run_ids)
        for run_id in run_ids:
            self._settle_with(run_id, perhaps_stored(error, run_id))

    def _fail_all(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        twins, self._twins = self._twins, {}
        self._withdraw([*self._pending], error)
        for same in twins.values():
            for message, submission in same:
                self._fail(submission, [message.run_id], perhaps_stored(error, message.run_id))
        for message, submission in self._queueing.clear():
            self._fail(submission, [message.run_id], self._as_far_as_known(message.run_id, error))
        for submits, submission in waiting:
            self._fail(submission, [message.run_id for message in submits], error)
        self._questions.fail(error)
        self._watching.fail(error)

    _handlers: ClassVar[dict[type[Message], Callable[[Any, Any], None]]] = {
        Accepted: _accepted,
        Refused: _refused,
        RunState: _ended,
        Answer: _answered,
        Error: _error,
    }
