"""Which worker claims when: credit-driven, with no loop of its own.

A worker has a ``Seat`` per connection. Something that may have made a run ready (a SUBMIT, a hint, a due
time) *wakes* a task key; a READY makes a seat *hungry*. ``run()`` turns both into claims, synchronously, so
that called at the end of a frame its claims travel in the group commit of that frame's submits and
commits. Per session and shard one claim is in flight, and its limit is reserved from the credit before it
is sent, so a worker never gets more runs than it asked for.

What is known to be empty is not asked again: every wake stamps its queue, every claim remembers the stamp
it was issued at, and a claim that came back drained rests until a newer stamp. A wrong belief (a lost
hint) costs one ``poll``. When a suspect has to wait until another has proved harmless, the answer says when
to ask again; the store's clock decides whether it is let in then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from prefect_lite.protocol.messages import Release
from prefect_lite_broker.store import ClaimedRun, ClaimReply, CommitReply, Store

CLAIM_MAX = 100
"""Runs per claim; more in one script call would hold up Redis (3,000 blocked it for 99 ms)."""


class Taker(Protocol):
    """What the dispatch needs of a connected worker."""

    session: str
    epoch: int
    closing: bool  # what is pushed would not arrive

    @property
    def credit(self) -> int:
        """Runs that may be pushed now."""
        ...

    def push(self, run: ClaimedRun) -> None:
        """Send a leased run."""
        ...

    def unseated(self, status: str) -> None:
        """The store says that this session is elsewhere (``moved``) or gone (``unknown``)."""
        ...


class _Queue:
    """One task key that seats of this broker serve."""

    __slots__ = ("key", "listed", "seats", "stamps", "turn", "woken")

    def __init__(self, key: str, shards: int) -> None:
        self.key = key
        self.stamps = [0] * shards  # of the last wake, per shard
        self.woken = [0] * shards  # runs that became ready since the last run(), per shard
        self.listed = False  # whether any did
        self.seats: list[Seat] = []
        self.turn = 0  # rotates who is woken first


class Seat:
    """A connected worker's place in the dispatch."""

    __slots__ = (
        "flights", "gone", "more", "numbers", "queues", "repeats", "reserved", "seen", "suspects", "taker",
        "timers",
    )  # fmt: skip

    def __init__(self, taker: Taker, shards: int) -> None:
        self.taker = taker
        self.queues: list[_Queue] = []
        self.flights = [False] * shards  # a claim is out
        self.numbers = [0] * shards  # of the last claim
        self.seen = [0] * shards  # stamp at which the last drained claim was issued
        self.more = [True] * shards  # the last claim did not drain the shard, or none was made
        self.repeats: dict[int, int] = {}  # shard -> limit of a claim whose outcome is unknown
        self.suspects: dict[str, int] = {}  # token -> shard of runs taken from the suspect list
        self.timers: dict[int, asyncio.TimerHandle] = {}  # shard -> when to ask for the next suspect
        self.reserved = 0
        self.gone = False

    @property
    def free(self) -> int:
        return 0 if self.taker.closing else self.taker.credit - self.reserved

    def hot(self, shard: int) -> bool:
        """Whether the shard may have a run for this seat."""
        if self.more[shard]:
            return True
        seen = self.seen[shard]
        return any(queue.stamps[shard] > seen for queue in self.queues)


class Dispatch:
    """Seats, queues and claims of one broker."""

    def __init__(self, store: Store, shard_of: Callable[[str], int]) -> None:
        self._store = store
        self._shard_of = shard_of
        self._shards = store.shards
        self._queues: dict[str, _Queue] = {}
        self._woken: list[_Queue] = []
        self._hungry: dict[Seat, None] = {}  # an ordered set
        self._unknown: dict[Seat, None] = {}  # seats with claims to repeat
        self._stamp = 0
        self._scheduled = False
        self._stopped = False
        self._loop = asyncio.get_running_loop()

    # -- seats --------------------------------------------------------------------------------------

    def seat(self, taker: Taker) -> Seat:
        """A place for a new connection; it takes nothing before ``serve``."""
        return Seat(taker, self._shards)

    def serve(self, seat: Seat, task_keys: Iterable[str]) -> None:
        """Replace what a seat takes; no keys stops it."""
        if seat.gone:
            return
        self._unlist(seat)
        for key in task_keys:
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(key, self._shards)
            queue.seats.append(seat)
            seat.queues.append(queue)
        seat.more = [True] * self._shards
        self.ready(seat)

    def leave(self, seat: Seat) -> None:
        """The connection is gone; what its claims still bring is released."""
        seat.gone = True
        for timer in seat.timers.values():
            timer.cancel()
        self._hungry.pop(seat, None)
        self._unknown.pop(seat, None)
        for shard, flying in enumerate(seat.flights):
            if flying:
                self._pass_on(seat, shard)
        self._unlist(seat)

    def stop(self) -> None:
        """Claim nothing more: the broker stops, and what claims in flight still bring is released."""
        self._stopped = True

    def _unlist(self, seat: Seat) -> None:
        for queue in seat.queues:
            queue.seats.remove(seat)
            if not queue.seats:
                del self._queues[queue.key]
        seat.queues = []

    @property
    def keys(self) -> Iterable[str]:
        """The task keys served through this broker."""
        return self._queues.keys()

    def serves(self, task_key: str) -> bool:
        return task_key in self._queues

    # -- events -------------------------------------------------------------------------------------

    def ready(self, seat: Seat) -> None:
        """A seat got credit."""
        self._hungry[seat] = None
        self._schedule()

    def wake(self, task_key: str, shard: int | None = None) -> None:
        """A run of a key may have become ready; ``shard`` None: it is not known where."""
        queue = self._queues.get(task_key)
        if queue is None:
            return
        self._stamp = stamp = self._stamp + 1
        for each in range(self._shards) if shard is None else (shard,):
            queue.stamps[each] = stamp
            queue.woken[each] += 1
        if not queue.listed:
            queue.listed = True
            self._woken.append(queue)
            self._schedule()

    def wake_run(self, task_key: str, run_id: str) -> None:
        """The same for a run that is known."""
        self.wake(task_key, self._shard_of(run_id))

    def settled(self, seat: Seat, token: str) -> None:
        """A lease of this seat ended; if it was a suspect, the seat may take the next one."""
        shard = seat.suspects.pop(token, None)
        if shard is not None:
            seat.more[shard] = True
            self.ready(seat)

    def wake_all(self) -> None:
        """Hints were lost: everything may be ready."""
        for key in self._queues:
            self.wake(key)

    def poll(self) -> None:
        """Ask for each key once, through one seat with credit; repeat claims whose outcome is unknown."""
        if self._stopped:
            return
        unknown, self._unknown = self._unknown, {}
        for seat in unknown:
            repeats, seat.repeats = seat.repeats, {}
            for shard, limit in repeats.items():
                self._send(seat, shard, limit)
        asked: dict[Seat, None] = {}
        for queue in self._queues.values():
            hungry = [seat for seat in queue.seats if seat.free > 0]
            if hungry:
                queue.turn += 1
                asked[hungry[queue.turn % len(hungry)]] = None
        for seat in asked:
            seat.more = [True] * self._shards
            self._fill(seat)

    # -- claims -------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # The end of a frame calls run() itself; this is for events outside of one.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_scheduled)

    def _run_scheduled(self) -> None:
        self._scheduled = False
        self.run()

    def run(self) -> None:
        """Make the claims that the events since the last call allow."""
        if self._stopped:
            return
        if self._hungry:
            hungry, self._hungry = self._hungry, {}
            for seat in hungry:
                self._fill(seat)
        if self._woken:
            woken, self._woken = self._woken, []
            for queue in woken:
                queue.listed = False
                for shard, count in enumerate(queue.woken):
                    if count:
                        queue.woken[shard] = 0
                        self._spread(queue, shard, count)

    def _spread(self, queue: _Queue, shard: int, count: int) -> None:
        """Let the seats with credit share ``count`` new runs, rotating who begins."""
        hungry = [seat for seat in queue.seats if not seat.flights[shard] and seat.free > 0]
        if not hungry or not self._answers(shard):
            return
        share = -(-count // len(hungry))
        first = queue.turn % len(hungry)
        for seat in hungry[first:] + hungry[:first]:
            if count <= 0:
                return
            queue.turn += 1
            # One more than expected: a claim that is not filled says that nothing is left, and saves
            # the empty claim that would find it out.
            self._claim(seat, shard, min(share + 1, seat.free, CLAIM_MAX))
            count -= share

    def _fill(self, seat: Seat) -> None:
        """Use all the credit of a seat on the shards that may have something."""
        free = seat.free
        if free <= 0 or not seat.queues:
            return
        shards = [
            shard
            for shard in range(self._shards)
            if not seat.flights[shard] and seat.hot(shard) and self._answers(shard)
        ]
        if len(shards) > 1:  # rotate, so that none is always asked last
            first = self._stamp % len(shards)
            shards = shards[first:] + shards[:first]
        for left in range(len(shards), 0, -1):
            limit = min(max(1, free // left), CLAIM_MAX)
            if limit > free:
                return
            free -= limit
            self._claim(seat, shards[-left], limit)

    def _answers(self, shard: int) -> bool:
        """Not to claim where the server is away: the credit is for the other shards then."""
        return self._shards == 1 or self._store.answers(shard)

    def _claim(self, seat: Seat, shard: int, limit: int) -> None:
        seat.flights[shard] = True
        seat.reserved += limit
        seat.numbers[shard] += 1
        self._send(seat, shard, limit)

    def _send(self, seat: Seat, shard: int, limit: int) -> None:
        taker = seat.taker
        done = partial(self._claimed, seat, shard, limit, self._stamp)
        self._store.claim(taker.session, taker.epoch, shard, seat.numbers[shard], limit, done)

    def _claimed(self, seat: Seat, shard: int, limit: int, stamp: int, reply: ClaimReply) -> None:
        if reply.status == "unavailable":
            # It may have been executed: the same number must be asked again before any other.
            if not seat.gone:
                seat.repeats[shard] = limit
                self._unknown[seat] = None
            return
        seat.flights[shard] = False
        seat.reserved -= limit
        if reply.status != "ok":
            self._pass_on(seat, shard)
        if seat.gone or seat.taker.closing or self._stopped:
            for run in reply.runs:
                self._store.release(Release(run.run_id, run.token), self._given_back)
            return
        if reply.status != "ok":
            seat.taker.unseated(reply.status)
            return
        push = seat.taker.push
        for run in reply.runs:
            if run.lost:
                seat.suspects[run.token] = shard
            push(run)
        if reply.again_seconds >= 0 and shard not in seat.timers:
            seat.timers[shard] = self._loop.call_later(reply.again_seconds, self._ask_again, seat, shard)
        seat.more[shard] = not reply.drained
        if reply.drained:
            seat.seen[shard] = stamp
        elif seat.free <= 0:
            # There is more than this seat can take: pass the wake on.
            for key in {run.task_key for run in reply.runs}:
                self.wake(key, shard)
        if seat.free > 0:
            # Of any shard, not this one alone: its claim may have taken the credit for all of them. At
            # once, not at the end of the turn: the next pipeline is collected before that.
            self._fill(seat)

    def _pass_on(self, seat: Seat, shard: int) -> None:
        """Another seat is to have what a claim of this one was made for and perhaps did not get."""
        for queue in seat.queues:
            self.wake(queue.key, shard)

    def _ask_again(self, seat: Seat, shard: int) -> None:
        del seat.timers[shard]
        seat.more[shard] = True
        self.ready(seat)

    def _given_back(self, reply: CommitReply) -> None:
        if reply.task_key:
            self.wake_run(reply.task_key, reply.run_id)
