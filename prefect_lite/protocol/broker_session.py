"""The broker's side of one connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.checks import is_run_id
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.leases import MAX_HELD
from prefect_lite.protocol.messages import Message
from prefect_lite.protocol.roles import ROLES, receivable_by_broker
from prefect_lite.protocol.session import Handler, Session


class BrokerSession(Session):
    """Handshake, role checks, numbering of RUNs, credit, and what was pushed on this connection.

    Args:
        broker_id: Told to the peer.
        version: Package version, told to the peer.
        lease_seconds, renew_seconds: Told to the peer; silence for a lease ends the connection.
        max_payload_bytes: Limit of a body or result.
        allowed_roles: Roles the peer's token gives; a HELLO with another one is a fatal error.

    Attributes:
        hello: The peer's HELLO, None before it came.
        welcomed: ``welcome`` was called.
    """

    def __init__(
        self,
        *,
        broker_id: str,
        version: str = "",
        lease_seconds: float,
        renew_seconds: float,
        max_payload_bytes: int,
        allowed_roles: Iterable[str] = ROLES,
    ) -> None:
        super().__init__(max_payload_bytes=max_payload_bytes)
        self.hello: m.Hello | None = None
        self.welcomed = False
        self._broker_id = broker_id
        self._version = version
        self._times = (lease_seconds, renew_seconds)
        self._allowed_roles = frozenset(allowed_roles)
        self._limit = 0
        self._number = 0
        self._pushed: dict[str, tuple[int, str]] = {}  # token -> (number, run id)
        self._handlers = self._before_hello

    @property
    def role(self) -> str:
        """The peer's role, "" before HELLO."""
        return self.hello.role if self.hello else ""

    # -- handshake --------------------------------------------------------------------------------

    def _on_hello(self, message: m.Hello, out: list[Message]) -> None:
        if message.role not in self._allowed_roles:
            raise ProtocolError("role", f"This token does not give the role {message.role}.", True)
        self.hello = message
        self._handlers = self._before_welcome
        out.append(message)

    def _not_yet(self, message: Message, out: list[Message]) -> None:
        raise ProtocolError("handshake", "HELLO comes first, everything else after WELCOME.", True)

    def welcome(
        self,
        session: str,
        secret: bytes,
        epoch: int,
        *,
        resumed: bool = False,
        held: Iterable[list[str]] = (),
    ) -> None:
        """Answer HELLO.

        Args:
            session: Id of the lease holder, at most 64 characters.
            secret: Proves the right to resume it, at most 64 bytes.
            epoch: The session's epoch.
            resumed: Whether it is the session the peer asked for.
            held: ``[[run id, token], ...]`` still leased to a resumed session. Those that the peer's first
                RENEW does not name are returned by ``unreceived_and_unheld``.
        """
        assert self.hello is not None, "welcome() answers a HELLO"
        self.welcomed = True
        self.lease_seconds, self.renew_seconds = self._times
        leases = [*held]
        self._pushed = {token: (0, run_id) for run_id, token in leases}
        self._handlers = {cls: self._actions.get(cls) for cls in receivable_by_broker(self.hello.role)}
        minor = min(self.hello.minor, m.PROTOCOL_MINOR)
        limit = self._max_payload_bytes
        self.send(
            m.Welcome(
                minor, session, secret, epoch, resumed, leases,
                *self._times, limit, self._broker_id, self._version,
            )
        )  # fmt: skip

    # -- credit -----------------------------------------------------------------------------------

    @property
    def credit(self) -> int:
        """How many RUNs may be pushed now."""
        return self._limit - self._number

    def _on_ready(self, message: m.Ready, out: list[Message]) -> None:
        # Cumulative: a smaller limit is an older one. The cap keeps a hostile one from emptying the queues.
        self._limit = max(self._limit, min(message.limit, self._number + MAX_HELD))
        out.append(message)

    def push_run(self, run_id: str, token: str, task_key: str, attempt: int, lost: int, body: bytes) -> int:
        """Send a claimed run (the fields of ``ClaimedRun`` in their order); returns its number.

        The caller claims no more than ``credit``; more would be given back by the worker.
        """
        self._number += 1
        self._pushed[token] = (self._number, run_id)
        self.send(m.Run(self._number, run_id, token, task_key, attempt, lost, body))
        return self._number

    @property
    def pushed(self) -> list[list[str]]:
        """``[[run id, token], ...]`` pushed on this connection (or held at resume) and not ended."""
        return [[run_id, token] for token, (_, run_id) in self._pushed.items()]

    def unreceived_and_unheld(self, renew: m.Renew) -> list[list[str]]:
        """The leases to release after a RENEW, and forgets them.

        Runs up to the highest number the worker has received that it does not hold: it never got to
        execute them. Those above are still on their way.
        """
        held = {token for _, token in renew.held}
        pushed = self._pushed.items()
        gone = [
            [run_id, token]
            for token, (number, run_id) in pushed
            if number <= renew.highest and token not in held
        ]
        for _, token in gone:
            del self._pushed[token]
        return gone

    # -- both ways --------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a message; O(1). DONE and REVOKE end leases."""
        if self._pushed:
            leases = message.answers if type(message) is m.Done else ()
            if type(message) is m.Revoke:
                leases = message.leases
            for lease in leases:
                self._pushed.pop(lease[1], None)
        self._outbox.send(message)

    def _refuse(self, problem: ProtocolError, out: list[Message]) -> None:
        fields = problem.fields
        first = fields[0] if fields else None
        # Whoever asked waits for an answer that names the run or the request.
        if problem.code == "forbidden":
            super()._refuse(problem, out)
        elif problem.verb == "SUBMIT" and isinstance(first, str) and is_run_id(first):
            self.send(m.Refused(first, problem.code, problem.text))
        elif problem.verb in {"QUERY", "CANCEL"} and isinstance(first, int) and 0 <= first < 1 << 53:
            self.send(m.Answer(first, False, [problem.code, problem.text]))
        else:
            super()._refuse(problem, out)

    _before_hello: ClassVar[dict[type[Message], Handler | None]] = {
        **dict.fromkeys(m.VERBS.values(), _not_yet),
        m.Hello: _on_hello,
        m.Error: Session._on_error,
        m.Goodbye: None,
    }
    _before_welcome: ClassVar[dict[type[Message], Handler | None]] = {
        **_before_hello,
        m.Hello: _not_yet,
    }
    _actions: ClassVar[dict[type[Message], Handler]] = {
        m.Hello: _not_yet,
        m.Ready: _on_ready,
        m.Chunk: Session._on_chunk,
        m.Error: Session._on_error,
    }
