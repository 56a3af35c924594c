"""The session of a client or worker; it outlives connections.

``connect`` starts a new connection; after its WELCOME everything that was never answered is sent again:
the keys served, STARTED of held runs, FINISH, RETRY and RELEASE without DONE, SUBMIT without ACCEPTED or
REFUSED, CANCEL without ANSWER, and all watches. The broker's scripts are safe to repeat, and a second
answer to the same thing is dropped here, so the application sees each answer once.

Call it from one thread only (the one that runs the connection).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.checks import CHECKS, MAX_TEXT
from prefect_lite.protocol.codec import ProtocolError, decode_frame, encode_frame
from prefect_lite.protocol.leases import Leases
from prefect_lite.protocol.messages import Message
from prefect_lite.protocol.roles import receivable_by_peer
from prefect_lite.protocol.session import Handler, Session
from prefect_lite.states import TERMINAL_TYPES

MAX_PARKED: Final = 10_000
"""Messages kept while there is no connection; the oldest ones (log lines) are dropped."""

_ENDED = frozenset(map(str, TERMINAL_TYPES)) | {""}
"""After a STATE of these types nothing more will come; "" is a run nobody knows."""


class PeerSession(Session):
    """The broker's counterpart in a client or worker.

    Args:
        role: ``client``, ``worker`` or ``admin``.
        namespace: Separates applications on one Redis.
        version: Package version, for the broker's record.
        info: Host, process id and name, for the broker's record.
        max_payload_bytes: Limit of a body or result until WELCOME tells the broker's.

    Attributes:
        welcomed: The handshake of this connection is complete.
        welcome: The last WELCOME, None before the first.
    """

    def __init__(
        self,
        role: str,
        namespace: str,
        *,
        version: str = "",
        info: Mapping[str, Any] | None = None,
        max_payload_bytes: int,
    ) -> None:
        self.role = role
        self.welcomed = False
        self.welcome: m.Welcome | None = None
        self._namespace = namespace
        self._version = version
        self._info = dict(info or {})
        self._submits: dict[str, m.Submit] = {}
        self._watches: set[str] = set()
        self._cancels: dict[int, m.Cancel | m.Query] = {}
        self._parked: deque[Message] = deque(maxlen=MAX_PARKED)
        self._leases = Leases()
        super().__init__(max_payload_bytes=max_payload_bytes)
        allowed = receivable_by_peer(role)
        self._handlers: Mapping[type[Message], Handler | None] = {
            cls: self._actions.get(cls) for cls in allowed
        }

    # -- connection -------------------------------------------------------------------------------

    def connect(self) -> None:
        """Begin a new connection: nothing of the last one counts, and HELLO is queued."""
        self.welcomed = False
        self.renew_seconds = 0.0
        self._reset_connection()
        self._leases.connect()
        known = self.welcome
        super().send(
            m.Hello(
                m.PROTOCOL_MINOR,
                self.role,
                self._namespace,
                known.session if known else "",
                known.secret if known else b"",
                known.epoch if known else 0,
                self._version,
                self._info,
            )
        )

    def disconnected(self) -> None:
        """The connection is gone: what is sent from now on waits for the next WELCOME, or is left out."""
        self.welcomed = False
        self.renew_seconds = 0.0
        self._reset_connection()

    def _on_welcome(self, message: m.Welcome, out: list[Message]) -> None:
        if self.welcomed:
            raise ProtocolError("unexpected", "A second WELCOME.", True)
        self.welcome = message
        self.welcomed = True
        self.lease_seconds = message.lease_seconds
        self.renew_seconds = message.renew_seconds
        self._max_payload_bytes = message.max_payload_bytes  # holds between two connections too
        self._outbox.max_payload_bytes = self._inbox.max_payload_bytes = message.max_payload_bytes
        out.append(message)
        lost = self._leases.welcome(message.held)
        if lost:
            out.append(m.Revoke(lost))
        self._send_again(out)
        if message.resumed or self._leases.count:
            self._beat()  # at once: it tells which leases of the last connection never arrived

    def _send_again(self, out: list[Message]) -> None:
        send = super().send
        for message in self._leases.unanswered():
            send(message)
        for message in [*self._submits.values()]:
            problem = self._too_large(message.body)
            if problem is None:
                send(message)
            else:
                del self._submits[message.run_id]
                out.append(m.Refused(message.run_id, "payload_too_large", problem))
        for message in [*self._cancels.values()]:
            problem = self._too_large(message.body) if type(message) is m.Query else None
            if problem is None:
                send(message)
            else:
                self._on_answer(m.Answer(message.request, False, ["payload_too_large", problem]), out)
        parked, self._parked = self._parked, deque(maxlen=MAX_PARKED)
        for message in parked:
            send(message)
        self._send_watches(self._watches)

    # -- sending ----------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send what has no method of its own (LOG, PROGRESS, QUERY, CANCEL, GOODBYE).

        Without a connection it is kept, the oldest dropped first, and sent after the next WELCOME. A CANCEL
        with a request number is repeated until its ANSWER, other messages are sent once.

        Raises:
            ProtocolError: A QUERY for which the broker would cut the connection; nothing was sent.
        """
        if type(message) is m.Query:
            self._check_question(message)
        if type(message) is m.Cancel and message.request:
            self.ask(message)
        elif self.welcomed:
            super().send(message)
        else:
            self._parked.append(message)

    def ask(self, message: m.Query | m.Cancel) -> None:
        """Send a question that may be asked twice: it is repeated on a new connection until its ANSWER.

        Raises:
            ProtocolError: ``invalid``, the broker would cut the connection for it, or its body is too large
                (``payload_too_large``); nothing was sent.
        """
        self._check_question(message)
        self._cancels[message.request] = message
        if self.welcomed:
            super().send(message)

    def _check_question(self, message: m.Query | m.Cancel) -> None:
        """Look at a message with a free-form value as the broker will."""
        if type(message) is m.Query and message.body is not None:
            problem = self._too_large(message.body)
            if problem is not None:
                raise ProtocolError("payload_too_large", problem)
            message = message._replace(body=b"")  # the real one may be too long for a frame
        try:
            decode_frame(encode_frame([message]))
        except ProtocolError as exc:
            raise ProtocolError("invalid", f"The question can't be sent. {exc.text}") from exc

    def submit(self, message: m.Submit) -> None:
        """Send a run and remember it until ACCEPTED or REFUSED.

        Raises:
            ProtocolError: A field has an impossible value (``invalid``) or the body is too large
                (``payload_too_large``); nothing was sent.
        """
        self._check(message)
        problem = self._too_large(message.body)
        if problem is not None:
            raise ProtocolError("payload_too_large", problem)
        self._submits[message.run_id] = message
        if message.watch:
            self._watches.add(message.run_id)
        if self.welcomed:
            super().send(message)

    def withdraw(self, run_ids: Iterable[str]) -> None:
        """Do not send these runs again: nobody waits for their ACCEPTED any more."""
        for run_id in run_ids:
            submit = self._submits.pop(run_id, None)
            if submit is not None and submit.watch:
                self._watches.discard(run_id)

    def withdraw_question(self, request: int) -> None:
        """Do not ask this again."""
        self._cancels.pop(request, None)

    def watch(self, run_ids: Iterable[str]) -> None:
        """Ask for the STATE of runs until each has ended; asking again reads them again.

        The WATCH of a run that is not accepted yet waits for ACCEPTED.
        """
        wanted = [*run_ids]
        self._watches.update(wanted)
        if self.welcomed:
            self._send_watches(wanted)

    def unwatch(self, run_ids: Iterable[str]) -> None:
        """No longer interested in these runs."""
        gone = [run_id for run_id in run_ids if run_id in self._watches]
        self._watches.difference_update(gone)
        if gone and self.welcomed:
            super().send(m.Unwatch(gone))

    @property
    def receiving(self) -> bool:
        """Whether a body or result is on its way in pieces."""
        return self._inbox.receiving

    def _send_watches(self, run_ids: Iterable[str]) -> None:
        known = [run_id for run_id in run_ids if run_id not in self._submits]
        if known:
            super().send(m.Watch(known))

    def serve(self, task_keys: Iterable[str], labels: Mapping[str, str] | None = None) -> None:
        """Declare the task keys this worker executes, replacing earlier ones."""
        message = m.Serve([*task_keys], dict(labels or {}))
        self._check(message)
        self._leases.serve = message
        if self.welcomed:
            super().send(message)

    def set_free(self, free_slots: int) -> None:
        """Grant credit for ``free_slots`` more runs, at most 4,000 together with the runs held.

        Every RUN that ``receive`` has returned counts as taking a slot, handled or not. Credit once given
        can't be taken back: a run that finds no slot is released.
        """
        self._leases.free = free_slots
        self._send_ready()

    def started(self, run_id: str, token: str, attempt: int) -> None:
        """Tell that an attempt starts; repeated after a reconnect while the lease is held."""
        message = m.Started(run_id, token, attempt)
        self._leases.starts[token] = message
        if self.welcomed:
            super().send(message)

    def finish(self, message: m.Finish) -> None:
        """End a run; remembered until DONE. The message text is cut at 65,536 characters.

        Raises:
            ProtocolError: ``invalid`` or ``payload_too_large``; nothing was sent, end it otherwise.
        """
        if len(message.message) > MAX_TEXT:
            message = message._replace(message=message.message[: MAX_TEXT - 1] + "…")
        problem = self._too_large(message.result)
        if problem is not None:
            raise ProtocolError("payload_too_large", problem)
        self._commit(message)

    def retry(self, message: m.Retry) -> None:
        """Give a run back for another attempt; remembered until DONE.

        Raises:
            ProtocolError: ``invalid``; nothing was sent.
        """
        if len(message.message) > MAX_TEXT:
            message = message._replace(message=message.message[: MAX_TEXT - 1] + "…")
        self._commit(message)

    def release(self, message: m.Release) -> None:
        """Give a run back unharmed; remembered until DONE."""
        self._commit(message)

    def _commit(self, message: m.Finish | m.Retry | m.Release) -> None:
        self._check(message)
        if self._leases.commit(message) and self.welcomed:
            super().send(message)

    def _check(self, message: Message) -> None:
        check = CHECKS[type(message)]
        try:
            if check is not None:
                check(message)
        except (TypeError, ValueError) as exc:
            raise ProtocolError("invalid", f"{type(message).__name__} is refused: {exc}.") from exc

    def _too_large(self, blob: bytes | None) -> str | None:
        limit = self._outbox.max_payload_bytes
        if blob is None or len(blob) <= limit:
            return None
        return f"A payload of {len(blob)} bytes is over the limit of {limit} bytes."

    def _send_ready(self) -> None:
        if self.welcomed:
            limit = self._leases.grant()
            if limit:
                super().send(m.Ready(limit))

    def _beat(self) -> None:
        super().send(m.Renew(self._leases.highest, self.held))

    # -- leases -----------------------------------------------------------------------------------

    @property
    def held(self) -> list[list[str]]:
        """``[[run id, token], ...]`` of all leases, also those whose FINISH is not acknowledged."""
        return self._leases.held

    @property
    def unanswered(self) -> int:
        """SUBMIT, FINISH, RETRY and RELEASE that wait for their answer."""
        return len(self._submits) + len(self._leases.commits)

    def forget(self, token: str) -> None:
        """Drop a lease that was revoked."""
        self._leases.forget(token)

    # -- receiving --------------------------------------------------------------------------------

    def _on_run(self, message: m.Run, out: list[Message]) -> None:
        status = self._leases.receive(message)
        if status == "new":
            out.append(message)
            cancel = self._leases.cancelled_early(message.token)
            if cancel is not None:
                out.append(cancel)
            return
        if status == "beyond":
            # The broker spent credit it did not have: give the run back, keep the connection.
            self._leases.hold(message)
            self.release(m.Release(message.run_id, message.token))
        self._send_ready()

    def _on_done(self, message: m.Done, out: list[Message]) -> None:
        news = [answer for answer in message.answers if self._leases.done(answer[1])]
        if news:
            out.append(message if len(news) == len(message.answers) else m.Done(news))

    def _on_revoke(self, message: m.Revoke, out: list[Message]) -> None:
        lost = self._leases.revoked(message.leases)
        if lost:
            out.append(m.Revoke(lost))

    def _on_cancel(self, message: m.Cancel, out: list[Message]) -> None:
        if self._leases.cancelled(message):
            out.append(message)

    def _on_accepted(self, message: m.Accepted, out: list[Message]) -> None:
        pop = self._submits.pop
        watched = self._watches
        run_ids: list[str] = []
        unwatched: list[str] = []  # the SUBMIT did not ask for it, or for a run that is now another one
        aliases: list[list[str]] = []
        for pair in message.aliases:
            submit = self._submits.get(pair[0])
            if submit is None:
                continue
            if not submit.idempotency_key:
                # Nothing entitles the broker to it: the caller would get the result of another call.
                text = "The broker answered with another run, although the call had no idempotency_key."
                self._on_refused(m.Refused(pair[0], "unexpected", text), out)
                continue
            aliases.append(pair)
            if pair[0] in watched:
                unwatched.append(pair[0])
        for run_id in message.run_ids:
            submit = pop(run_id, None)
            if submit is not None:
                run_ids.append(run_id)
                if run_id in watched and not submit.watch:
                    unwatched.append(run_id)
        for pair in aliases:
            pop(pair[0], None)
        if run_ids or aliases or message.notices:
            out.append(m.Accepted(run_ids, aliases, message.notices))
        if unwatched:
            self._send_watches(unwatched)

    def _on_refused(self, message: m.Refused, out: list[Message]) -> None:
        if self._submits.pop(message.run_id, None) is not None:
            self._watches.discard(message.run_id)
            out.append(message)

    def _on_state(self, message: m.RunState, out: list[Message]) -> None:
        if message.run_id in self._watches:
            if message.type in _ENDED:
                self._watches.discard(message.run_id)
            out.append(message)

    def _on_answer(self, message: m.Answer, out: list[Message]) -> None:
        self._cancels.pop(message.request, None)
        out.append(message)

    def _refuse(self, problem: ProtocolError, out: list[Message]) -> None:
        if problem.verb == "RUN":
            # Not understood, so not executed: without this it would stay leased for as long as we live.
            self._give_back(problem.fields)
        elif problem.verb == "ANSWER" and problem.fields and type(problem.fields[0]) is int:
            # Whoever asked must not wait for ever.
            self._on_answer(m.Answer(problem.fields[0], False, [problem.code, problem.text]), out)
        super()._refuse(problem, out)

    def _give_back(self, fields: Sequence[Any]) -> None:
        if [*map(type, fields[:3])] != [int, str, str]:
            return
        run = m.Run(*fields[:3], task_key="unreadable", attempt=0, lost=0, body=b"")
        try:
            self._check(run)
        except ProtocolError:
            return  # no run and token to name
        if self._leases.receive(run) != "seen":
            self._leases.hold(run)
            self.release(m.Release(run.run_id, run.token))

    _actions: ClassVar[dict[type[Message], Handler]] = {
        m.Welcome: _on_welcome,
        m.Run: _on_run,
        m.Done: _on_done,
        m.Revoke: _on_revoke,
        m.Cancel: _on_cancel,
        m.Accepted: _on_accepted,
        m.Refused: _on_refused,
        m.RunState: _on_state,
        m.Answer: _on_answer,
        m.Chunk: Session._on_chunk,
        m.Error: Session._on_error,
    }
