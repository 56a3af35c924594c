"""What each verb of a peer does: one function per verb, named as on the wire.

All of them run in the loop turn in which the frame arrived; they enqueue into the store and return. The
answers are collected per connection and leave in one flush after the store has answered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_lite.protocol.messages import (
    Answer,
    Cancel,
    Error,
    Finish,
    Log,
    Message,
    Progress,
    Query,
    Ready,
    Refused,
    Release,
    Retry,
    RunState,
    Serve,
    Started,
    Submit,
    Unwatch,
    Watch,
)
from prefect_lite_broker import queries
from prefect_lite_broker.dispatch import Seat
from prefect_lite_broker.questions import WithBody
from prefect_lite_broker.store import CancelReply, CommitReply, SubmitReply, TurnedAway

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub
    from prefect_lite_broker.sessions import Peer

MAX_WATCHES = 200_000
"""Runs one connection may watch."""
MAX_WAITING_ANSWERS = 100
"""Answers to FINISH that wait for other things to go out with."""
MAX_QUERIES = 16
"""Questions of one connection that are being answered."""
MAX_TASK_KEYS = 1_000
"""Task keys one worker may serve."""
MAX_NOTICED_KEYS = 10_000
"""Task keys remembered per connection, so that each is checked once."""


class Outgoing(ABC):
    """What the answers of the store are collected in, and the part of a peer they need."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.session = ""
        self.epoch = 0
        self.role = ""
        self.welcomed = False
        self.closing = False
        self.gone = False
        self.left = False  # said GOODBYE
        self.seat: Seat | None = None
        self.answers: list[list[str]] = []  # of the next DONE
        self.accepted: list[str] = []  # of the next ACCEPTED, with the two below
        self.aliases: list[list[str]] = []
        self.notices: list[list[str]] = []
        self.checking = 0  # task keys being checked; ACCEPTED waits for the notice
        self.checked: set[str] = set()
        self.watched: set[str] = set()
        self.owed: dict[str, int] = {}  # ended runs this peer was not told, and the bytes of each
        self.asking = 0  # questions whose ANSWER has not left
        self.answered = 0  # those of them whose ANSWER waits to be sent
        self.reading = 0  # bytes of their bodies that are being read from the store
        self.serving = False
        self.serve_next: list[str] | None = None
        self._scheduled = False

    @abstractmethod
    def schedule(self) -> None:
        """Have what was collected flushed soon."""

    @abstractmethod
    def answer_later(self) -> None:
        """Have the answers sent with what goes out next."""

    @abstractmethod
    def send(self, message: Message) -> None:
        """Queue a message."""

    @abstractmethod
    def fits(self, size: int) -> bool:
        """Whether a body of this size may be read for this peer now."""

    @abstractmethod
    def reply(self, message: Answer) -> None:
        """Queue an ANSWER, which may have a body."""

    @abstractmethod
    def tell(self, state: RunState) -> None:
        """Push a STATE to a watcher."""

    @abstractmethod
    def settle_answers(self) -> None:
        """An ANSWER may have left: count the open questions again."""

    @abstractmethod
    def store_away(self, exc: Exception) -> None:
        """What this peer needs could not be stored."""

    # -- answers of the store -----------------------------------------------------------------------

    def submitted(self, reply: SubmitReply) -> None:
        """SUBMIT is durable, or refused."""
        run_id = reply.run_id
        hub = self.hub
        hub.room.settled(reply.status == "accepted")
        if reply.status == "accepted":
            if reply.delayed_seconds > 0:
                hub.delayed(reply.delayed_seconds)
            self.accepted.append(run_id)
        else:
            hub.watches.surprise(run_id)
            if reply.status != "exists":
                hub.watches.unwatch(self, (run_id,))
                text, again = reply.text, reply.retry_after_seconds
                if reply.status == "full":
                    text, again = text or hub.room.text(), hub.room.retry_after()
                self.send(Refused(run_id, reply.status, text, again))
                return
            if reply.existing_id and reply.existing_id != run_id:
                hub.watches.unwatch(self, (run_id,))
                self.aliases.append([run_id, reply.existing_id])
            else:
                self.accepted.append(run_id)
        self.schedule()

    def committed(self, reply: CommitReply) -> None:
        """FINISH, RETRY or RELEASE is durable, or too late."""
        answers = self.answers
        answers.append([reply.run_id, reply.token, reply.status])
        if reply.status == "ok" and len(answers) < MAX_WAITING_ANSWERS:
            self.answer_later()
        else:
            self.schedule()
        if self.seat is not None:
            self.hub.dispatch.settled(self.seat, reply.token)
        self.after_commit(reply)

    def after_commit(self, reply: CommitReply) -> None:
        """Tell the watchers, and whoever may run it next."""
        hub = self.hub
        if reply.state is not None:
            hub.watches.ended(reply.state)
        elif reply.status != "ok":
            # An answer that got lost on the way: the run may have ended without us seeing it.
            hub.watches.surprise(reply.run_id)
        elif reply.task_key:
            if reply.delayed_seconds > 0:
                hub.delayed(reply.delayed_seconds)
            else:
                hub.dispatch.wake_run(reply.task_key, reply.run_id)


# -- clients ----------------------------------------------------------------------------------------


def submit(peer: Peer, msg: Submit) -> None:
    hub = peer.hub
    if hub.stopping:
        return  # without an answer: the client sends it again, to the next broker
    key = msg.task_key
    if key not in peer.checked and len(peer.checked) < MAX_NOTICED_KEYS:
        peer.checked.add(key)
        if not hub.dispatch.serves(key):
            peer.checking += 1
            hub.spawn(_notice(peer, key), "Looking up who serves a key")
    hub.watches.expect(msg.run_id)
    if msg.watch and len(peer.watched) < MAX_WATCHES:
        hub.watches.register(peer, msg.run_id)
    if not hub.room.admit():
        msg = TurnedAway(*msg)._replace(body=b"")
    hub.store.submit(msg, peer.submitted)
    if msg.expires_seconds > 0:
        hub.delayed(msg.expires_seconds)
    if msg.countdown_seconds <= 0 and not msg.parents and not msg.tolerated:
        # Before the write: the claim then shares its round trip.
        hub.dispatch.wake_run(key, msg.run_id)


async def _notice(peer: Peer, key: str) -> None:
    try:
        sentence = await peer.hub.notices.sentence(key)
        if sentence:
            peer.notices.append([key, sentence])
    finally:
        peer.checking -= 1
        peer.schedule()


def watch(peer: Peer, msg: Watch) -> None:
    if len(peer.watched) + len(msg.run_ids) > MAX_WATCHES:
        peer.send(Error("too_many_watches", f"A connection may watch {MAX_WATCHES:,} runs; use several."))
        return
    peer.hub.watches.watch(peer, msg.run_ids)


def unwatch(peer: Peer, msg: Unwatch) -> None:
    for run_id in msg.run_ids:
        peer.owed.pop(run_id, None)
    peer.hub.watches.unwatch(peer, msg.run_ids)


def cancel(peer: Peer, msg: Cancel) -> None:
    hub = peer.hub

    def answered(reply: CancelReply) -> None:
        if reply.state is not None:
            hub.watches.ended(reply.state)
        if reply.status == "cancelling":
            # On another broker, the hint of the same script reaches the worker.
            hub.cancel_lease(reply.session, reply.run_id, reply.token)
        if reply.status == "unavailable":
            text = "The store is away; it is not known whether the run will be cancelled."
            peer.send(Answer(msg.request, False, ["unavailable", text]))
            return
        peer.send(Answer(msg.request, True, {"run_id": reply.run_id, "status": reply.status}))

    hub.store.cancel(msg.run_id, answered)


def query(peer: Peer, msg: Query) -> None:
    if peer.asking >= MAX_QUERIES:
        peer.settle_answers()
    if peer.asking >= MAX_QUERIES:
        peer.send(Answer(msg.request, False, ["busy", "Too many questions at once."]))
        return
    if not peer.hub.bodies.take(len(msg.body or b"")):
        text = "Too much that is to be kept waits for Redis in this broker already."
        peer.send(Answer(msg.request, False, ["busy", text]))
        return
    peer.asking += 1
    peer.hub.spawn(_answer(peer, msg), f"Answering {msg.what[:40]!r}")


async def _answer(peer: Peer, msg: Query) -> None:
    hub = peer.hub
    try:
        room = partial(hub.bodies.room, peer)
        ok, value = await queries.answer(hub, peer.role, msg.what, msg.arg, msg.body, room)
        value, body = value if isinstance(value, WithBody) else (value, None)
        peer.reply(Answer(msg.request, ok, value, body))
    finally:
        hub.bodies.give_back(len(msg.body or b""))
        peer.answered += 1
        peer.schedule()


# -- workers ----------------------------------------------------------------------------------------


def serve(peer: Peer, msg: Serve) -> None:
    keys = list(dict.fromkeys(msg.task_keys))
    if len(keys) > MAX_TASK_KEYS:
        peer.send(Error("too_many_keys", f"A worker may serve {MAX_TASK_KEYS:,} task keys."))
        return
    if peer.seat is None:
        return
    if not keys:
        # A draining worker: nothing more for it, from this moment on.
        peer.hub.dispatch.serve(peer.seat, ())
    peer.serve_next = keys
    if not peer.serving:
        peer.serving = True
        peer.hub.spawn(_serve_in_store(peer, peer.seat), "Recording what a worker serves")


async def _serve_in_store(peer: Peer, seat: Seat) -> None:
    try:
        while peer.serve_next is not None and not peer.gone:
            keys, peer.serve_next = peer.serve_next, None
            status = await peer.hub.store.serve(peer.session, peer.epoch, keys)
            if status != "ok":
                peer.unseated(status)
                return
            # Only now: the claim script hands out what the store knows this session to serve.
            if peer.serve_next is None:
                peer.hub.dispatch.serve(seat, keys)
    except Exception as exc:
        # Left alone it would be connected and idle for ever; on its next connection it says SERVE again.
        peer.store_away(exc)
        raise
    finally:
        peer.serving = False


def ready(peer: Peer, _msg: Ready) -> None:
    if peer.seat is not None:
        peer.hub.dispatch.ready(peer.seat)


def started(peer: Peer, msg: Started) -> None:
    peer.hub.store.started(msg.run_id, msg.token, msg.attempt)


def finish(peer: Peer, msg: Finish) -> None:
    peer.hub.store.finish(msg, peer.committed)


def retry(peer: Peer, msg: Retry) -> None:
    peer.hub.store.retry(msg, peer.committed)


def release(peer: Peer, msg: Release) -> None:
    peer.hub.store.release(msg, peer.committed)


def log(peer: Peer, msg: Log) -> None:
    peer.hub.store.log(msg.run_id, msg.lines)


def progress(_peer: Peer, _msg: Progress) -> None:
    """Accepted and dropped: the store keeps no progress yet (nor the labels of SERVE)."""


HANDLERS: dict[type[Message], Callable[[Peer, Any], None]] = {
    Submit: submit,
    Watch: watch,
    Unwatch: unwatch,
    Cancel: cancel,
    Query: query,
    Serve: serve,
    Ready: ready,
    Started: started,
    Finish: finish,
    Retry: retry,
    Release: release,
    Log: log,
    Progress: progress,
}
"""The rest (HELLO, RENEW, GOODBYE, ERROR) concern the connection itself: ``sessions.py``."""
