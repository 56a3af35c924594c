"""QUERY and CANCEL and the wait for their ANSWER. Everything here runs on the client's loop thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from prefect_lite.client.requests import Answered
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.messages import Answer, Cancel, Query
from prefect_lite.protocol.peer_session import PeerSession

WINDOW: Final = 16
"""Questions a broker takes from one connection at a time; the others wait here."""


class Questions:
    """What one client has asked.

    Args:
        session: Sends them, again on a new connection.
        flush: Have the session's messages sent.
    """

    def __init__(self, session: PeerSession, flush: Callable[[], None]) -> None:
        self._session = session
        self._flush = flush
        self._last_request = 0
        self._queries: dict[int, Answered] = {}
        self._cancels: dict[int, Answered] = {}
        self._withdrawn: set[int] = set()  # of the queries
        self._queued: deque[tuple[str, Any, bytes | None, Answered]] = deque()

    def __bool__(self) -> bool:
        """Whether any waits for its answer."""
        return bool(self._queries or self._cancels or self._queued)

    def ask(self, what: str, arg: Any, body: bytes | None, answered: Answered) -> None:
        """Send a QUERY, now or in its turn."""
        self._queued.append((what, arg, body, answered))
        self._send_queued()

    def withdraw(self, answered: Answered) -> None:
        """Let go of a question that nobody waits for: it is not sent, or not again."""
        self._queued = deque(item for item in self._queued if item[3] is not answered)
        for request, asked in self._queries.items():
            if asked is answered:
                self._session.withdraw_question(request)
                # It keeps its place: a broker that has the question counts it until the answer has left.
                self._withdrawn.add(request)
                if not self._session.welcomed:
                    self.disconnected()  # no broker has it
                return

    def disconnected(self) -> None:
        """The connection is gone, and with it the answers that nobody waits for."""
        for request in self._withdrawn:
            self._queries.pop(request, None)
        self._withdrawn.clear()
        self._send_queued()

    def cancel(self, run_id: str, answered: Answered) -> None:
        """Send a CANCEL."""
        request = self._next_request()
        self._cancels[request] = answered
        self._session.ask(Cancel(request, run_id))
        self._flush()

    def answered(self, message: Answer) -> None:
        """An ANSWER has come."""
        request = message.request
        self._withdrawn.discard(request)
        answered = self._queries.pop(request, None) or self._cancels.pop(request, None)
        if answered is not None:
            answered.ok, answered.value, answered.body = message.ok, message.value, message.body
            answered.set()
            self._send_queued()

    def fail(self, error: Exception, since: float | None = None) -> None:
        """Give up those asked at ``since`` (monotonic seconds) or before; None: all."""
        kept: deque[tuple[str, Any, bytes | None, Answered]] = deque()
        for item in self._queued:
            if since is None or item[3].since <= since:
                _fail(item[3], error)
            else:
                kept.append(item)
        self._queued = kept
        for asked in (self._queries, self._cancels):
            for request, answered in list(asked.items()):
                if since is None or answered.since <= since:
                    del asked[request]
                    self._session.withdraw_question(request)
                    _fail(answered, error)
        self._send_queued()

    def _next_request(self) -> int:
        self._last_request += 1
        return self._last_request

    def _send_queued(self) -> None:
        while self._queued and len(self._queries) < WINDOW:
            what, arg, body, answered = self._queued.popleft()
            request = self._next_request()
            try:
                self._session.ask(Query(request, what, arg, body))
            except ProtocolError as exc:
                _fail(answered, exc)
                continue
            self._queries[request] = answered
            self._flush()


def _fail(answered: Answered, error: Exception) -> None:
    answered.error = error
    answered.set()
