"""One connected peer: its handshake, its lease on life, and what goes out to it.

What peers ask for is in ``verbs.py``. A client or admin needs no record in the store; a worker's session
holds leases and is kept there, so that it survives this connection and this broker.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection

from prefect_lite.exceptions import BrokerError
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.codec import CHUNK_BYTES, ProtocolError
from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
    Done,
    Error,
    Goodbye,
    Hello,
    Message,
    Release,
    Renew,
    Revoke,
    RunState,
)
from prefect_lite.protocol.pump import Pump
from prefect_lite_broker.bodies import LARGE_BYTES
from prefect_lite_broker.hub import MOST_UNSENT_BYTES
from prefect_lite_broker.store import ClaimedRun
from prefect_lite_broker.verbs import HANDLERS, Outgoing

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

logger = logging.getLogger(__name__)

CLOSE_POLICY = 1008
CLOSE_RESTART = 1012
CLOSE_TRY_LATER = 1013
CLOSE_MOVED = 4001
"""The session was resumed on another connection."""
CLOSE_UNKNOWN = 4002
"""The session is over; ask for a new one."""
CLOSE_SECONDS = 5.0
"""From asking a peer to close until its socket is cut."""

BACKLOG_BYTES = 8 * 1024 * 1024
"""Unsent bodies and results of a peer above which more of them are left in the store until it has read. Small
ones count for themselves: they pass the pieces of a large one, and must not wait until it has been read."""
SCARCE_BACKLOG_BYTES = 128 * 1024
"""The same while all peers together have more than PLENTY_BYTES unsent, half of MOST_UNSENT_BYTES: the other
half is for those who have nothing unsent."""
PLENTY_BYTES = MOST_UNSENT_BYTES // 2
SCARCE_PIECE_BYTES = 32 * 1024
"""A peer that does not read costs a frame in the transport's buffer, a short one while much is unsent."""
LONG_FRAMES_BYTES = 8 * 1024 * 1024
"""Unsent bytes of all peers above which frames are short."""
STATE_BYTES = 128
"""What a STATE costs besides its message and result."""

MAX_WAITING_MESSAGES = 100_000
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""What may wait for one peer besides bodies and results; beyond that it is cut, however slowly it reads."""
WEIGH_SECONDS = 1.0
"""Weighing the outbox of a peer that is behind takes a look at each message."""
MAX_REPORTS = 5
"""ERRORs of one peer that are logged."""


class Peer(Outgoing):
    """A websocket with a role.

    Attributes:
        wire: Protocol state machine of this connection.
        session: Session id; for a worker also its key in the store.
        epoch: Of this connection's session; 0 for peers without a record in the store.
        watched: Runs whose end is pushed to this peer.
        takes_runs: A RUN is among what waits for the next flush.
    """

    def __init__(self, hub: Hub, socket: ServerConnection, roles: frozenset[str]) -> None:
        super().__init__(hub)
        self.wire = BrokerSession(
            broker_id=hub.broker_id,
            version=hub.version,
            max_payload_bytes=hub.settings.max_payload_bytes,
            lease_seconds=hub.settings.lease_seconds,
            renew_seconds=hub.settings.renew_seconds,
            allowed_roles=roles,
        )
        self.pump = Pump(
            socket,
            self.wire,
            self._receive,
            write_deadline_seconds=hub.settings.write_deadline_seconds,
            on_error=self._broken,
            on_sent=self.flush,
        )
        self.socket = socket
        self.takes_runs = False
        self._renewing = False
        self._renew_next: Renew | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes of bodies and STATEs since the outbox was last empty
        self._small = 0  # those of them that were up to LARGE_BYTES long
        self._short_frames = False
        self._proving = False
        self._weigh_at = 0.0
        self._reports = 0

    # -- life of the connection ---------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the peer until it is gone."""
        self._hello_timer = self.hub.loop.call_later(
            self.hub.settings.handshake_timeout_seconds, self._no_hello
        )
        self.hub.peers.add(self)
        try:
            await self.pump.run()
        finally:
            self._end()

    def _no_hello(self) -> None:
        if not self.welcomed:
            self.fail("handshake_timeout", "No HELLO arrived in time.")

    def _broken(self, problem: ProtocolError) -> None:
        logger.info("Closing a connection of a %s: %s", self.role or "stranger", problem)

    def _end(self) -> None:
        hub = self.hub
        self.gone = True
        # At once: connection, pump and peer know each other, and would keep it until the garbage collector
        # finds them.
        self.wire.discard()
        self._sent()
        hub.bodies.look()
        hub.peers.discard(self)
        hub.empty_since = hub.loop.time()
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        hub.watches.drop(self)
        if self.seat is not None:
            hub.dispatch.leave(self.seat)
        if self.epoch and hub.workers.get(self.session) is self:
            del hub.workers[self.session]
            # A broker that restarts leaves its workers their whole lease: they are alive.
            if not self.left and not hub.stopping:
                hub.spawn(hub.store.disconnect(self.session, self.epoch), "Ending a worker's connection")

    def close(self, code: int, reason: str) -> None:
        """Send what is waiting, then close; the socket is cut if the peer doesn't play along."""
        if not self.closing:
            self.closing = True
            self.flush()
            self.hub.spawn(self._close(code, reason), "Closing a connection")

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.socket.close(code, reason)
        except TimeoutError:
            self.pump.abort()

    def fail(self, code: str, text: str, close_code: int = CLOSE_POLICY) -> None:
        """A fatal protocol error: tell, then close."""
        if self.closing:
            return
        self.send(Error(code, text, True))
        self.close(close_code, code)

    # -- incoming -----------------------------------------------------------------------------------

    def _receive(self, messages: list[Message]) -> None:
        """The pump's callback: one frame's messages. Store calls are enqueued here, answered later."""
        for message in messages:
            if self.closing:
                break
            handler = HANDLERS.get(type(message))
            try:
                if handler is None:
                    self._own(message)
                else:
                    handler(self, message)
            except Exception:
                # Our bug, and not a reason to take down the runs of a whole worker.
                logger.exception("Handling a %s failed", type(message).__name__)
                self.send(Error("internal", f"The broker failed on a {type(message).__name__}; see its log."))
        # In the same turn, so that claims travel with this frame's submits and commits.
        self.hub.dispatch.run()

    def _own(self, message: Message) -> None:
        if isinstance(message, Renew):
            self._renew(message)
        elif isinstance(message, Hello):
            self._hello(message)
        elif isinstance(message, Goodbye):
            self._goodbye(message)
        elif isinstance(message, Error):
            self._reports += 1
            if self._reports <= MAX_REPORTS:
                text, code = message.text[:200], message.code[:32]
                logger.warning("A %s reports: %r (%r)", self.role or "stranger", text, code)

    # -- handshake ----------------------------------------------------------------------------------

    def _hello(self, hello: Hello) -> None:
        namespace = self.hub.settings.namespace
        if hello.namespace != namespace:
            self.fail("namespace", f"This broker serves namespace {namespace!r}, not {hello.namespace!r}.")
            return
        self.role = hello.role
        if self.hub.stopping:
            self.close(CLOSE_RESTART, "the broker stops")
            return
        if hello.role == "worker":
            self.hub.spawn(self._open_worker(hello), "Opening a worker's session")
        else:
            self._welcome(hello.session or secrets.token_hex(16), hello.secret or secrets.token_bytes(16), 0)

    async def _open_worker(self, hello: Hello) -> None:
        store = self.hub.store
        resumed = None
        try:
            if hello.session:
                resumed = await store.resume_session(hello.session, _digest(hello.secret), hello.info)
            if resumed is not None and resumed.moved:
                self.unseated("moved")
                return
            if resumed is not None:
                session, secret, epoch, held = hello.session, hello.secret, resumed.epoch, resumed.held
            else:
                session, secret, held = secrets.token_hex(16), secrets.token_bytes(32), []
                epoch = await store.open_session(session, _digest(secret), hello.info)
        except BrokerError as exc:
            self.store_away(exc)
            return
        if self.gone or self.closing:
            # A resumed one may be in use: who was overtaken hears of it with the next RENEW, perhaps
            # only after the grace. So it keeps its lease.
            if resumed is None:
                await store.disconnect(session, epoch)
            return
        older = self.hub.workers.get(session)
        if older is not None:
            if older.epoch > epoch:
                self.unseated("moved")
                return
            older.close(CLOSE_MOVED, "resumed on another connection")
        self.hub.workers[session] = self
        self.seat = self.hub.dispatch.seat(self)
        self._welcome(session, secret, epoch, resumed is not None, held)

    def _welcome(
        self, session: str, secret: bytes, epoch: int, resumed: bool = False, held: Sequence[list[str]] = ()
    ) -> None:
        self.session = session
        self.epoch = epoch
        self.welcomed = True
        self.wire.welcome(session, secret, epoch, resumed=resumed, held=held)
        self.schedule()

    # -- a worker's leases --------------------------------------------------------------------------

    @property
    def credit(self) -> int:
        """Runs that may be pushed now."""
        return 0 if self.closing or self.hub.stopping or self._behind(LARGE_BYTES + 1) else self.wire.credit

    def push(self, run: ClaimedRun) -> None:
        """Send a leased run."""
        if self.hub.stopping:
            self.hub.store.release(Release(run.run_id, run.token), self.after_commit)
            return
        self._kept(len(run.body))
        self.wire.push_run(*run)
        self.takes_runs = True
        self.schedule()

    def store_away(self, exc: Exception) -> None:
        """This connection is of no use without an answer of the store: have the peer come again."""
        self.fail("unavailable", f"The store is away: {exc}"[:500], CLOSE_TRY_LATER)

    def unseated(self, status: str) -> None:
        """The store gives this connection nothing more."""
        if status == "moved":
            self.close(CLOSE_MOVED, "the session was resumed elsewhere")
        else:
            self.close(CLOSE_UNKNOWN, "the session is over")

    def _renew(self, message: Renew) -> None:
        if self.seat is None:
            self.send(Revoke([]))  # a client holds nothing; it hears that the broker is there
            return
        for run_id, token in self.wire.unreceived_and_unheld(message):
            self.hub.store.release(Release(run_id, token), self.after_commit)
        if not self._renewing:
            self._renewing = True
            self._renew_next = None  # of a time when the store was away
            self.hub.spawn(self._renew_in_store(message), "Renewing a worker's leases")
            return
        # The store is slow or away. Only the latest RENEW is worth sending, and the worker should hear
        # that it is not the broker that is gone.
        self._renew_next = message
        self.send(Error("unavailable", "The store has not answered the last RENEW."))

    async def _renew_in_store(self, message: Renew | None) -> None:
        try:
            while message is not None and not self.gone:
                try:
                    reply = await self.hub.store.renew(self.session, self.epoch, message.held)
                except BrokerError as exc:
                    self.send(Error("unavailable", f"The leases were not renewed: {exc}"))
                    return
                if reply.status != "ok":
                    self.unseated(reply.status)
                    return
                self.send(Revoke(reply.revoked))
                for run_id, token in reply.cancelling:  # whose CANCEL may have been lost as a hint
                    self.send(Cancel(0, run_id, token))
                message, self._renew_next = self._renew_next, None
        finally:
            self._renewing = False

    def _goodbye(self, message: Goodbye) -> None:
        self.left = True
        logger.debug("A %s leaves: %r", self.role, message.reason[:200])
        if self.seat is not None:
            self.hub.dispatch.leave(self.seat)
            self.hub.spawn(self._leave_store(), "Closing a worker's session")
        else:
            self.close(1000, "goodbye")

    async def _leave_store(self) -> None:
        try:
            for key in await self.hub.store.close_session(self.session, self.epoch):
                self.hub.dispatch.wake(key)
        finally:
            self.close(1000, "goodbye")

    # -- outgoing -----------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a message for the next flush."""
        if not self.gone:
            self.wire.send(message)
            self.schedule()

    def tell(self, state: RunState) -> None:
        """Push a STATE, or leave it in the store while the peer is far behind."""
        size = STATE_BYTES + len(state.message) + len(state.result or b"")
        full = size > LARGE_BYTES and self.hub.unsent > MOST_UNSENT_BYTES
        if full or self._behind(size):
            self.owed[state.run_id] = size
            if full and not (self._proving or self.gone or self.wire.has_data or self.pump.buffered):
                self._proving = True
                self.hub.spawn(self._prove(), "Asking whether a peer reads")
            return
        self._kept(size)
        self.send(state)

    def reply(self, message: Answer) -> None:
        if message.body and not self.gone:
            self._kept(len(message.body))
        self.send(message)

    def fits(self, size: int) -> bool:
        if self.hub.unsent > MOST_UNSENT_BYTES or self._behind(size):
            return False
        coming = self.reading + (self._unsent if self.wire.has_data else 0)
        return not coming or coming + size <= BACKLOG_BYTES

    def _behind(self, size: int) -> bool:
        """Whether so much waits for this peer to read that nothing of this size is to be kept for it here."""
        unsent = self._unsent if size > LARGE_BYTES else self._small
        if unsent <= SCARCE_BACKLOG_BYTES:
            return False
        if not self.wire.has_data:
            self._sent()
            return False
        return unsent > BACKLOG_BYTES or self.hub.unsent > PLENTY_BYTES

    async def _prove(self) -> None:
        try:
            await self.pump.prove()
        finally:
            self._proving = False

    def _kept(self, size: int) -> None:
        hub = self.hub
        self._unsent += size
        hub.unsent += size
        if size <= LARGE_BYTES:
            self._small += size
        scarce = hub.unsent > LONG_FRAMES_BYTES
        if scarce != self._short_frames:
            self._short_frames = scarce
            self.wire.cut_short(SCARCE_PIECE_BYTES if scarce else CHUNK_BYTES)

    def _sent(self) -> None:
        hub, full = self.hub, self.hub.unsent > MOST_UNSENT_BYTES
        hub.unsent -= self._unsent
        self._unsent = self._small = 0
        if full and hub.unsent <= MOST_UNSENT_BYTES:
            hub.feed_soon()

    def answer_later(self) -> None:
        """DONE goes with the next frame, whatever brings it about, or alone a little later."""
        if not self._scheduled and not self.gone:
            self.hub.answer_later(self)

    def schedule(self) -> None:
        """Flush once at the end of this turn of the loop."""
        if not self._scheduled and not self.gone:
            self._scheduled = True
            self.hub.flush_soon(self)

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        self._scheduled = self.takes_runs = False
        if self.gone:
            return
        if self.answers:
            answers, self.answers = self.answers, []
            self.wire.send(Done(answers))
        if not self.checking and (self.accepted or self.aliases or self.notices):
            accepted, aliases, notices = self.accepted, self.aliases, self.notices
            self.accepted, self.aliases, self.notices = [], [], []
            self.wire.send(Accepted(accepted, aliases, notices))
        self.pump.flush()
        if self.wire.has_data:
            self._bound()
        elif self._unsent or self.answered:
            freed = self._unsent
            was_behind = freed > SCARCE_BACKLOG_BYTES
            self._sent()
            if freed > LARGE_BYTES or self.hub.bodies.waits(self):
                self.hub.bodies.look()  # not for every small answer: many bodies may wait
            self.settle_answers()
            self.catch_up()
            if was_behind and self.seat is not None:
                self.hub.dispatch.ready(self.seat)  # it had no credit meanwhile

    def settle_answers(self) -> None:
        """Questions no longer count once their ANSWERs have left."""
        if not self.wire.has_data:
            self.asking -= self.answered
            self.answered = 0

    def _bound(self) -> None:
        """Cut a peer that reads more slowly than it asks; the write deadline does not see it."""
        now = self.hub.loop.time()
        waiting = self.wire.backlog
        if waiting <= MAX_WAITING_MESSAGES:
            if now < self._weigh_at:
                return
            self._weigh_at = now + WEIGH_SECONDS
            if self.wire.backlog_bytes <= MAX_WAITING_BYTES:
                return
        logger.warning("Cut a %s that is %s messages behind", self.role or "stranger", f"{waiting:,}")
        self.closing = True
        self.pump.abort()

    def catch_up(self) -> int:
        """Read again what was owed to a peer that has caught up, as much as may be kept for it.

        Called when the peer has taken everything, when there is room again, and about once a second.
        Returns how many bytes it will be.
        """
        room = MOST_UNSENT_BYTES - self.hub.unsent
        if not self.owed or room <= 0 or self._behind(LARGE_BYTES + 1):
            return 0
        most = BACKLOG_BYTES if room >= PLENTY_BYTES else SCARCE_BACKLOG_BYTES
        again: list[str] = []
        expected = 0
        for run_id, size in self.owed.items():
            again.append(run_id)
            expected += size
            if expected >= most:
                break
        for run_id in again:
            del self.owed[run_id]
        self.hub.watches.watch(self, again)
        return expected


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
