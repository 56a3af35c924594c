"""What a worker's session knows of its runs: leases, credit and commits without an answer.

RUNs are numbered on each connection. A large RUN may arrive after younger small ones, so the number told in
RENEW is the highest one below which none is missing, while credit counts the RUNs that have arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from prefect_lite.protocol import messages as m

MAX_HELD: Final = 4_000
"""Leases and credit of one worker session: a RENEW that lists them all fits one frame."""
REMEMBERED: Final = 1_024
"""Tokens of ended leases, and of cancels that came before their RUN."""

_Value = TypeVar("_Value")
Commit = m.Finish | m.Retry | m.Release


class Leases:
    """See the module.

    Attributes:
        serve: The last SERVE.
        free: Slots for runs that have not arrived.
        highest: All RUNs of this connection up to this number have arrived.
        starts: STARTED by token, while the lease is held.
        commits: FINISH, RETRY and RELEASE by token, until DONE.
    """

    def __init__(self) -> None:
        self.serve: m.Serve | None = None
        self.free = 0
        self.starts: dict[str, m.Started] = {}
        self.commits: dict[str, Commit] = {}
        self._held: dict[str, str] = {}  # token -> run id
        self._ended: dict[str, None] = {}  # in order of age
        self._early: dict[str, m.Cancel | None] = {}  # None: revoked
        self.connect()

    def connect(self) -> None:
        """Numbering and credit start anew."""
        self.highest = 0
        self._above: set[int] = set()
        self._received = 0
        self._limit = 0

    def welcome(self, held: Iterable[list[str]]) -> list[list[str]]:
        """Compare with the leases the broker knows; returns those that are lost and have no commit."""
        kept = {token for _, token in held}
        lost = [lease for lease in self.held if lease[1] not in kept and lease[1] not in self.commits]
        for _, token in lost:
            self.forget(token)
        return lost

    def unanswered(self) -> Iterator[m.Message]:
        """All that a new connection has to hear, in this order; READY included."""
        if self.serve is not None:
            yield self.serve
        limit = self.grant()
        if limit:
            yield m.Ready(limit)
        yield from self.starts.values()
        yield from self.commits.values()

    @property
    def held(self) -> list[list[str]]:
        """``[[run id, token], ...]``."""
        return [[run_id, token] for token, run_id in self._held.items()]

    @property
    def count(self) -> int:
        """Leases held."""
        return len(self._held)

    def grant(self) -> int:
        """The new cumulative limit, 0 when it has not grown."""
        limit = self._received + min(self.free, MAX_HELD - len(self._held))
        if limit <= self._limit:
            return 0
        self._limit = limit
        return limit

    def receive(self, run: m.Run) -> str:
        """Count a RUN: ``new`` (it is held now), ``seen`` (dropped) or ``beyond`` the credit (not held)."""
        number = run.number
        if number <= self.highest or number in self._above:
            return "seen"
        self._received += 1
        if number > self._limit + MAX_HELD:
            return "beyond"  # any number: kept out of the numbering, which it could only spoil
        self._above.add(number)
        while self.highest + 1 in self._above:
            self.highest += 1
            self._above.discard(self.highest)
        if number > self._limit:
            return "beyond"
        token = run.token
        if token in self._held or token in self._ended:
            return "seen"
        if token in self._early and self._early[token] is None:
            del self._early[token]
            return "seen"
        self.hold(run)
        self.free = max(0, self.free - 1)
        return "new"

    def hold(self, run: m.Run) -> None:
        """Add a lease."""
        self._held[run.token] = run.run_id

    def commit(self, message: Commit) -> bool:
        """Remember a commit until DONE; False when the lease has one already, which stands."""
        if message.token in self.commits:
            return False
        self.commits[message.token] = message
        self.starts.pop(message.token, None)
        return True

    def done(self, token: str) -> bool:
        """DONE arrived; False when nothing waited for it."""
        known = self.commits.pop(token, None) is not None
        self.forget(token)
        return known

    def forget(self, token: str) -> None:
        """Drop a lease; a commit on its way stays."""
        self.starts.pop(token, None)
        if self._held.pop(token, None) is not None:
            _remember(self._ended, token, None)

    def revoked(self, leases: Iterable[list[str]]) -> list[list[str]]:
        """Of the leases revoked, those the application has to stop.

        One with a commit on its way gets its answer by DONE. One that is not held may be the token of a RUN
        that is still on its way (REVOKE overtakes), which is then dropped.
        """
        stop: list[list[str]] = []
        for lease in leases:
            token = lease[1]
            if token in self.commits:
                continue
            if token in self._held:
                stop.append(lease)
            elif token not in self._ended:
                _remember(self._early, token, None)
        return stop

    def cancelled(self, message: m.Cancel) -> bool:
        """Whether the application has to cancel; a CANCEL before its RUN is kept for it."""
        if message.token in self._held:
            return message.token not in self.commits
        if message.token not in self._ended:
            _remember(self._early, message.token, message)
        return False

    def cancelled_early(self, token: str) -> m.Cancel | None:
        """The CANCEL that came before its RUN."""
        return self._early.pop(token, None)


def _remember(known: dict[str, _Value], token: str, value: _Value) -> None:
    known[token] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
