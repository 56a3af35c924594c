"""What all connections of a broker share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from prefect_lite.exceptions import BrokerError
from prefect_lite.protocol.messages import Cancel
from prefect_lite.settings import Settings
from prefect_lite_broker.bodies import Bodies
from prefect_lite_broker.dependencies import Dependencies
from prefect_lite_broker.dispatch import Dispatch
from prefect_lite_broker.notices import Notices
from prefect_lite_broker.room import Room
from prefect_lite_broker.store import Store
from prefect_lite_broker.watches import Watches

if TYPE_CHECKING:
    from prefect_lite_broker.sessions import Peer

logger = logging.getLogger(__name__)

DONE_SECONDS = 0.02
"""How long the answer to a FINISH may wait for something else that goes to the same worker. Nobody waits for
it: the slot is free since the FINISH, and the next RUN takes it along. A frame of its own would be a fifth of
what is sent for a single run."""
FEED_BYTES = 4 * 1024 * 1024
FEED_SECONDS = 0.05
"""So much is read at once, and so often, for peers whose results had to wait for room."""
MOST_UNSENT_BYTES = 32 * 1024 * 1024
"""Unsent bodies and results of all peers together above which no further large result is kept for anybody."""


class Hub:
    """The store, the dispatch, the watches, the room for more runs, and who is connected.

    Attributes:
        peers: Every open websocket.
        workers: Worker sessions by id; a resumed session replaces its older connection.
        delayed: Called with seconds when a run was delayed by this broker.
        ask_stop: Called with a reason when an administrator asks the broker to stop.
        stopping: No new work is begun.
        unsent: Bytes of bodies and results that wait for slow peers.
        bodies: Those of questions and their answers.
        empty_since: Loop time at which the last connection ended.
    """

    def __init__(self, settings: Settings, store: Store, *, broker_id: str, version: str) -> None:
        self.settings = settings
        self.store = store
        self.broker_id = broker_id
        self.version = version
        self.loop = asyncio.get_running_loop()
        self.dispatch = Dispatch(store, self.shard_of)
        self.watches = Watches(store)
        self.notices = Notices(store, self.dispatch)
        self.dependencies = Dependencies(self)
        self.room = Room(store, settings.max_queued_total, settings.poll_seconds)
        self.peers: set[Peer] = set()
        self.workers: dict[str, Peer] = {}
        self.delayed: Callable[[float], None] = lambda _seconds: None
        self.ask_stop: Callable[[str], None] = lambda _reason: None
        self.stopping = False
        self.unsent = 0
        # A quarter of what may wait of submits.
        self.bodies = Bodies(settings.max_pending_bytes // 4, settings.redis_wait_seconds, self._count_unsent)
        self._feeding = False
        self.started_at = self.loop.time()
        self.empty_since = self.loop.time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_flush: list[Peer] = []
        self._answered: set[Peer] = set()  # workers whose DONE waits
        # At once, not at the end of the turn: it is what clients and workers wait for.
        store.on_settled = self.flush_peers

    def flush_soon(self, peer: Peer) -> None:
        """Have a peer's outbox flushed when the store has answered a pipeline, or this turn ends."""
        if not self._to_flush:
            self.loop.call_soon(self.flush_peers)
        self._to_flush.append(peer)

    def flush_peers(self) -> None:
        """Flush whoever asked for it; those with RUNs first: clients wait for what becomes of them."""
        peers, self._to_flush = self._to_flush, []
        if len(peers) > 1:
            peers.sort(key=_without_runs)
        for peer in peers:
            peer.flush()

    def answer_later(self, peer: Peer) -> None:
        """Have a worker's DONE sent with the next frame to it, or after ``DONE_SECONDS``."""
        if not self._answered:
            self.loop.call_later(DONE_SECONDS, self._answer)
        self._answered.add(peer)

    def _answer(self) -> None:
        peers, self._answered = self._answered, set()
        for peer in peers:
            if peer.answers:
                peer.flush()

    def shard_of(self, run_id: str) -> int:
        """The shard that holds a run: the low 12 bits of its id decide."""
        shards = self.store.shards
        return int(run_id[-3:], 16) % shards if shards > 1 else 0

    def poll(self) -> None:
        """Ask for work that no hint told of, and tell peers what they were too slow to be told before."""
        self.dispatch.poll()
        self.feed()

    def feed_soon(self) -> None:
        """There is room again."""
        if not self._feeding:
            self._feeding = True
            self.loop.call_later(FEED_SECONDS, self.feed)

    def _count_unsent(self, more: int) -> None:
        self.unsent += more

    def feed(self) -> None:
        """Read what is owed to peers, a part at a time: the answers of the store need memory too."""
        self._feeding = False
        self.bodies.look()
        room = min(MOST_UNSENT_BYTES - self.unsent, FEED_BYTES)
        for peer in list(self.peers):
            if room <= 0:
                if self.unsent <= MOST_UNSENT_BYTES:
                    self.feed_soon()
                return
            room -= peer.catch_up()

    def cancel_lease(self, session: str, run_id: str, token: str) -> None:
        """Tell a worker of this broker, if it is one, to stop a lease."""
        worker = self.workers.get(session)
        if worker is not None:
            worker.send(Cancel(0, run_id, token))

    def spawn(self, duty: Coroutine[Any, Any, None], what: str) -> None:
        """Run something rare in the background; it is awaited when the broker stops."""
        task = self.loop.create_task(self._guard(duty, what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, duty: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await duty
        except BrokerError as exc:
            logger.debug("%s: %s", what, exc)
        except Exception:
            logger.exception("%s failed", what)

    async def settle(self, seconds: float) -> None:
        """Wait for background duties, at most so long; then cancel them."""
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


def _without_runs(peer: Peer) -> bool:
    return not peer.takes_runs
