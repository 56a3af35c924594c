"""The group-commit writer of one shard.

Operations collect in the lanes of a ``Backlog`` while two pipelines are in flight; then everything that has
arrived goes out together, and everybody is answered. Alone an operation costs one round trip; under load
the groups grow by themselves.

Every call is safe to repeat, so on any fault of the connection it is dropped (never reused: a reply that
was not read would be taken for the next one's) and what is unanswered goes out again on a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, RedisError, ResponseError

from .backlog import Backlog, Batch
from .connect import pack_command
from .lanes import CallLane
from .packing import APART_BYTES, pack_apart
from .redis_link import RedisLink
from .refusals import Cure, ReplicasMissing, cure, sentence
from .scripts import SCRIPTS
from .trouble import AWAY, FULL, REFUSES, SILENT
from .way import Way, load_scripts

logger = logging.getLogger(__name__)

EXCHANGE_SECONDS = 10.0
"""A pipeline without its last reply by then: the connection is taken for dead."""

SILENT_SECONDS = 1.0
"""A pipeline without an answer for so long is worth a line in the log, and the question, as often, whether
another server is the right one by now."""

STOPPED = "The store was stopped."

DEPTH = 2
"""Pipelines in flight: Redis works on one while this process hands on the answers of the last and packs the
next. With one, the two took turns, and their times added up."""

REFUSED_SECONDS = 0.1
"""Pause after Redis refused something for a reason that passes: full memory or disk, a slot on its way."""

BACKOFF_SECONDS = (0.05, 1.0)


class _Pipeline(NamedTuple):
    """What is in flight: how many answers are due, whether WAIT's comes after them, and since when."""

    answers: int
    confirmed: bool
    sent_at: float


class ShardWriter:
    """See the module docstring.

    Args:
        way: How to get to Redis.
        prefix: Start of the shard's keys.
        terms: Settings the scripts need.
        backlog: What waits for Redis.
        settled: Called after the answers of each pipeline have been handed on.
    """

    def __init__(self, way: Way, prefix: bytes, backlog: Backlog, settled: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._way = way
        self._prefix = prefix
        self.backlog = backlog
        self._settled = settled
        self.connected = False
        self.last_error = ""
        self.pipelines = self.reconnects = 0
        self._connection: AbstractConnection | None = None
        self._link: RedisLink | None = None  # while pipelines may be sent
        self._interrupt: asyncio.Future[None] | None = None  # done when the link needs its task
        self._woken = False  # the next turn of the loop looks what there is to send
        self._stopped = False
        self._drained: asyncio.Future[None] | None = None
        self._pipelines: deque[_Pipeline] = deque()  # oldest first
        self._taken = 0  # answers of the oldest that have come
        self._confirming: list[Any] = []  # the same, where they count only after WAIT's
        self._answered_at = 0.0  # when a pipeline was answered last
        self._complete = False  # a pipeline was answered by what is being read
        self._overdue: asyncio.TimerHandle | None = None
        self._failures = 0
        self._refused_by: ResponseError | None = None  # by a condition that passes
        self._was_full = False
        self._has_room = False  # a submit was stored since Redis was full
        self._exchange_seconds = EXCHANGE_SECONDS + (way.replicas_ms / 1000 if way.replicas else 0)

    # -- producers ----------------------------------------------------------------------------------
    def wake(self) -> None:
        """Called after something was put in a lane; the pipeline starts in the next turn of the loop."""
        if self._stopped:
            self._loop.call_soon(self.backlog.fail_all, STOPPED)
        elif not self._woken and self._link is not None and len(self._pipelines) < DEPTH:
            self._woken = True
            self._loop.call_soon(self._push)

    def set_sender(self, sender: str) -> None:
        for lane in self.backlog.lanes:
            lane.sender = sender

    async def drain(self) -> None:
        """Until nothing waits and nothing is in flight; at once while Redis is away."""
        if self.connected and not self.backlog.idle:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def sweep(self) -> None:
        """Refuse what may be refused and has waited too long; tell the log of a Redis that is silent."""
        silent = self.silent_seconds
        if silent > SILENT_SECONDS:
            self._note(SILENT, f"nothing for {silent:.1f} s")
        self.backlog.sweep(self.last_error)

    @property
    def silent_seconds(self) -> float:
        """How long the oldest pipeline has been waiting for its answers; 0 without one."""
        if not self._pipelines:
            return 0.0
        return self._loop.time() - self._pipelines[0].sent_at

    @property
    def answers(self) -> bool:
        """Whether Redis answers, as far as is known."""
        return self.connected and self.silent_seconds <= SILENT_SECONDS

    # -- the loop -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Serve for ever; cancel to stop. The connection is closed on the way out."""
        try:
            while True:
                connection = self._connection or await self._connect()
                if connection is None:
                    continue
                try:
                    await self._serve(connection)
                except (RedisError, OSError, TimeoutError) as exc:
                    self._note(AWAY, _words(exc))
                    self._way.doubt(exc)
                    await self._drop()
                    await self._back_off()
                except Exception as exc:
                    # A writer that ends would leave its shard without service until the broker is restarted.
                    logger.critical(
                        "the writer of shard %d failed; it goes on", self._way.shard, exc_info=True
                    )
                    self._note(AWAY, _words(exc))
                    await self._drop()
                    await self._back_off()
        finally:
            self._stopped = True
            await self._drop()
            self.backlog.fail_all(STOPPED)

    def _note(self, kind: str, text: str) -> None:
        self.last_error = text
        self._way.trouble.begins(self._way.shard, kind, text)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Let pipelines be sent and answered until the connection fails or is given up.

        Raises:
            RedisError, OSError, TimeoutError: The connection is of no use any more.
        """
        link = RedisLink(connection, self._answered, self._read, self.wake, self._lost)
        watcher = self._loop.create_task(self._watch(connection, link), name="prefect-lite-redis-watcher")
        try:
            while True:
                if link.error is not None:
                    raise link.error
                interrupt = self._interrupt = self._loop.create_future()
                self._link = link
                self._push()
                try:
                    await interrupt
                finally:
                    self._link = None
                refused, self._refused_by = self._refused_by, None
                if refused is not None and not await self._recover(link, refused):
                    return
        finally:
            link.fail(ConnectionError("given up"))
            watcher.cancel()
            await asyncio.wait([watcher])
            self._forget_link()

    def _forget_link(self) -> None:
        self._link = self._interrupt = None
        self._pipelines.clear()
        self._confirming = []
        self._taken = 0
        self._complete = False
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        # What stays unanswered goes out again first, on the next connection.
        backlog = self.backlog
        backlog.repeat(backlog.in_flight)
        backlog.in_flight.clear()

    def _lost(self, _error: BaseException) -> None:
        self._link = None
        if self._interrupt is not None and not self._interrupt.done():
            self._interrupt.set_result(None)

    # -- out ----------------------------------------------------------------------------------------
    def _push(self) -> None:
        """Send what waits, as far as the pipelines and the transport take it."""
        self._woken = False
        link, pipelines = self._link, self._pipelines
        if link is None:
            return
        try:
            while self._refused_by is None and len(pipelines) < DEPTH and not link.full:
                batches = self.backlog.collect()
                if not batches:
                    break
                self._send(link, batches)
        except Exception as exc:
            link.fail(exc)
            return
        if not pipelines and not link.full:
            self._come_to_rest()

    def _come_to_rest(self) -> None:
        """Nothing is in flight: tell whoever waits for that."""
        interrupt = self._interrupt
        if self._refused_by is not None:
            self._link = None
            if interrupt is not None and not interrupt.done():
                interrupt.set_result(None)
        elif self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _send(self, link: RedisLink, batches: list[Batch]) -> None:
        """One pipeline."""
        self.pipelines += 1
        in_flight = self.backlog.in_flight
        before = len(in_flight)
        payload = [piece for batch in batches for piece in self._try_pack(batch)]
        if not payload:
            return
        way = self._way
        confirmed = way.replicas > 0 and any(batch.lane is not self.backlog.lookup for batch in batches)
        if confirmed:
            payload.append(pack_command(("WAIT", way.replicas, way.replicas_ms)))
        now = self._loop.time()
        self._pipelines.append(_Pipeline(len(in_flight) - before, confirmed, now))
        if self._overdue is None:
            self._overdue = self._loop.call_later(self._exchange_seconds, self._look_at_the_clock)
        link.send(payload)

    def _look_at_the_clock(self) -> None:
        """One timer for all pipelines of a connection: set once, and moved on only when it has fired."""
        self._overdue = None
        link = self._link
        if link is None or not self._pipelines:
            return
        due = max(self._pipelines[0].sent_at, self._answered_at) + self._exchange_seconds
        if self._loop.time() >= due:
            link.fail(TimeoutError())
        else:
            self._overdue = self._loop.call_at(due, self._look_at_the_clock)

    async def _watch(self, connection: AbstractConnection, link: RedisLink) -> None:
        """A silent server may be frozen or cut off, and another in its place: leave it then."""
        while True:
            await asyncio.sleep(SILENT_SECONDS)
            if self.silent_seconds <= SILENT_SECONDS:
                continue
            try:
                if await self._way.elsewhere(connection):
                    link.fail(TimeoutError())
            except (RedisError, OSError) as exc:
                logger.debug("nobody tells who has shard %d: %s", self._way.shard, exc)

    # -- in -----------------------------------------------------------------------------------------
    def _answered(self, reply: Any) -> None:
        """The link's next reply."""
        if not self._pipelines:
            raise InvalidResponse("an answer that nobody asked for")
        answers, confirmed, _ = self._pipelines[0]
        if confirmed:
            if len(self._confirming) < answers:
                self._confirming.append(reply)
                return
            if isinstance(reply, ResponseError):
                raise reply
            replies, self._confirming = self._confirming, []
            self._settle_confirmed(replies, reply)
        else:
            self._taken += 1
            batch = self.backlog.in_flight.popleft()
            if isinstance(reply, ResponseError):
                self._failed(batch, reply)
            else:
                self._settle(batch, reply)
            if self._taken < answers:
                return
            self._taken = 0
        self._pipelines.popleft()
        self._answered_at = self._loop.time()
        self._complete = True

    def _read(self) -> None:
        """All replies that came together were handed on."""
        if not self._complete:
            return
        self._complete = False
        self._settled()
        if self._refused_by is None:
            self._failures = 0
            self._way.trouble.ends(self._way.shard, AWAY, SILENT, REFUSES)
        backlog = self.backlog
        if self._was_full and self._has_room and not backlog.full and not backlog.submits_again:
            self._was_full = False
            self._way.trouble.ends(self._way.shard, FULL)
        self.wake()

    def _settle_confirmed(self, replies: list[Any], replicas: int) -> None:
        """The answers of a pipeline count only when enough replicas have what it wrote."""
        backlog, wanted = self.backlog, self._way.replicas
        for reply in replies:
            batch = backlog.in_flight.popleft()
            if isinstance(reply, ResponseError):
                self._failed(batch, reply)
            elif replicas < wanted and batch.lane is not backlog.lookup:
                text = f"{replicas} of {wanted} replicas have confirmed the write in time"
                self._failed(batch, ReplicasMissing(text))
            else:
                self._settle(batch, reply)

    def _settle(self, batch: Batch, reply: Any) -> None:
        self._has_room = self._has_room or self.backlog.stores(batch)
        self.backlog.settle(batch, reply)

    # -- the connection -----------------------------------------------------------------------------
    async def _connect(self) -> AbstractConnection | None:
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                connection = self._connection = await self._way.open(self._prefix)
        except (RedisError, OSError, TimeoutError) as exc:
            self._note(AWAY, _words(exc))
            self._way.doubt(exc)
            await self._drop()
            await self._back_off()
            return None
        self.connected = True
        self._way.trouble.ends(self._way.shard, AWAY)
        return connection

    async def _back_off(self) -> None:
        # The first time at once: a single broken connection costs no more than a round trip.
        low, high = BACKOFF_SECONDS
        delay = min(high, low * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
        await asyncio.sleep(delay if self._failures else 0)
        self._failures += 1

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if self.connected:
            self.connected = False
            self.reconnects += 1
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            except (RedisError, OSError) as exc:
                logger.debug("closing a broken connection: %s", exc)

    def _try_pack(self, batch: Batch) -> Sequence[bytes]:
        """Pack a call and note it as in flight; nothing where a hostile value (a NaN delay) forbids that."""
        at = batch.lane.blob_at
        try:
            words = batch.lane.command(self._prefix, batch.ops)
            packed = pack_apart(words) if at and len(words[at]) > APART_BYTES else (pack_command(words),)
        except (TypeError, ValueError, OverflowError) as exc:
            if batch.lane is self.backlog.through:
                self.backlog.redo += self.backlog.parts(batch)
            elif len(batch.ops) > 1:
                self.backlog.redo += [batch._replace(ops=[op]) for op in batch.ops]
            else:
                batch.lane.give_up(batch.ops, f"It can't be stored: {exc}")
            return ()
        self.backlog.in_flight.append(batch)
        return packed

    def _failed(self, batch: Batch, error: ResponseError) -> None:
        backlog, lane, ops = self.backlog, batch.lane, batch.ops
        way = cure(error)
        self.last_error = sentence(error)
        if way is Cure.ROOM and backlog.stores(batch):
            backlog.redo += backlog.parts(batch)  # as new as before: Redis has not begun with it
            self._hold_submits()
        elif lane is backlog.through:
            # Either part may be to blame: alone each gets through, or is told why not.
            backlog.repeat([batch])
            if way is not Cure.NONE:
                self._refused_by = error
        elif way is Cure.ROOM and lane is backlog.log:
            backlog.log.dropped += len(ops)
        elif way is not Cure.NONE and not (way is Cure.ROOM and _can_do_without(batch)):
            backlog.redo.append(batch._replace(repeated=True))
            self._refused_by = error
        elif isinstance(lane, CallLane):
            for _, future, *_ in ops:
                if not future.done():
                    future.set_exception(error)
        elif len(ops) > 1:
            # One of them may be to blame (a key of a wrong type): each alone, so the others get through.
            backlog.redo += [batch._replace(ops=[op], repeated=True) for op in ops]
        else:
            logger.critical("Redis refused %s: %s", type(lane).__name__, error)
            lane.give_up(ops, f"Redis refused it: {error}")

    def _hold_submits(self) -> None:
        """Redis has no memory for new runs. All else goes on, and may make room."""
        if self.backlog.full:
            return
        self._note(FULL, self.last_error)
        self._has_room = False
        self.backlog.full = self._was_full = True
        self._loop.call_later(REFUSED_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self.backlog.full = False
        self.wake()

    async def _recover(self, link: RedisLink, error: ResponseError) -> bool:
        """Some calls were refused for a reason that passes; they are in ``_redo``, and nothing is in flight.

        Returns:
            Whether the connection is still the one to use.
        """
        way = cure(error)
        if way is Cure.LOAD:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await link.ask(load_scripts())
            return True
        self._note(REFUSES, self.last_error)
        if way is not Cure.REDIAL:
            self._failures += 1
            await asyncio.sleep(REFUSED_SECONDS)
            return True
        self._way.doubt(error)
        await self._drop()  # after a failover the address may lead to another server
        await self._back_off()
        return False


def _words(error: BaseException) -> str:
    """What an error says, to be put into a sentence."""
    return str(error).rstrip(".") or (
        "no answer" if isinstance(error, TimeoutError) else type(error).__name__
    )


_NEED_ROOM = frozenset(script.sha for script in SCRIPTS.values() if script.source.startswith("#!lua\n"))
"""Scripts that the server refuses when its memory is full."""


def _can_do_without(batch: Batch) -> bool:
    """Whether a refusal for want of memory is an answer to a call: it asks for just that, or is to keep
    something that no run depends on, and repeated until there is room it would slow all others down."""
    return isinstance(batch.lane, CallLane) and not _NEED_ROOM.isdisjoint(batch.ops[0][0][:2])
