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
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from .backlog import Backlog, Batch
from .connect import Dial, pack_command, send
from .refusals import Cure, ReplicasMissing, cure, sentence
from .scripts import SCRIPTS
from .trouble import AWAY, FULL, REFUSES, SILENT, Trouble

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


class Way(NamedTuple):
    """How a writer gets to its shard.

    Attributes:
        dial: Makes a connected redis-py connection without any retry of its own.
        elsewhere: Whether such a connection leads to the wrong server by now.
        doubt: Told of errors that another server may not have.
        trouble: Where the log is told from.
        shard: Its number.
        replicas: That have to confirm each pipeline of writes.
        replicas_ms: Time for them to do so.
    """

    dial: Dial
    elsewhere: Callable[[AbstractConnection], Awaitable[bool]]
    doubt: Callable[[BaseException], None]
    trouble: Trouble
    shard: int = 0
    replicas: int = 0
    replicas_ms: int = 1000


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
        self._way = way
        self._prefix = prefix
        self.backlog = backlog
        self._settled = settled
        self.connected = False
        self.last_error = ""
        self.pipelines = self.reconnects = 0
        self._connection: AbstractConnection | None = None
        self._waiter: asyncio.Future[None] | None = None  # set while the loop sleeps
        self._stopped = False
        self._drained: asyncio.Future[None] | None = None
        self._pipelines: deque[_Pipeline] = deque()  # oldest first
        self._arrival: asyncio.Future[None] | None = None  # set while the reader has nothing to read
        self._sending: asyncio.Timeout | None = None
        self._reading: asyncio.Timeout | None = None
        self._failures = 0
        self._refused_by: ResponseError | None = None  # by a condition that passes
        self._was_full = False
        self._has_room = False  # a submit was stored since Redis was full
        self._exchange_seconds = EXCHANGE_SECONDS + (way.replicas_ms / 1000 if way.replicas else 0)

    # -- producers ----------------------------------------------------------------------------------
    def wake(self) -> None:
        """Called after something was put in a lane; the pipeline starts in the next turn of the loop."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._stopped:
            asyncio.get_running_loop().call_soon(self.backlog.fail_all, STOPPED)

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
        return asyncio.get_running_loop().time() - self._pipelines[0].sent_at

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
            self._waiter = None
            self._stopped = True
            await self._drop()
            self.backlog.fail_all(STOPPED)

    def _note(self, kind: str, text: str) -> None:
        self.last_error = text
        self._way.trouble.begins(self._way.shard, kind, text)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Send pipelines while another task reads the answers, until the connection fails or is given up.

        Raises:
            RedisError, OSError, TimeoutError: The connection is of no use any more.
        """
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read_answers(connection), name="prefect-lite-redis-reader")
        reader.add_done_callback(lambda _: self.wake())
        watcher = loop.create_task(self._watch(connection), name="prefect-lite-redis-watcher")
        try:
            while not reader.done():
                if self._refused_by is not None:
                    if not self._pipelines:
                        refused, self._refused_by = self._refused_by, None
                        if not await self._recover(connection, refused):
                            return
                        continue
                elif len(self._pipelines) < DEPTH:
                    batches = self.backlog.collect()
                    if batches:
                        await self._send(connection, batches)
                        continue
                    if not self._pipelines and self._drained is not None and not self._drained.done():
                        self._drained.set_result(None)
                self._waiter = loop.create_future()
                await self._waiter
            reader.result()
        finally:
            reader.cancel()
            watcher.cancel()
            await asyncio.wait([reader, watcher])
            if not reader.cancelled():
                reader.exception()  # else asyncio reports it as never retrieved, should sending fail as well
            self._waiter = self._arrival = None
            self._pipelines.clear()
            # What stays unanswered goes out again first, on the next connection.
            backlog = self.backlog
            backlog.redo += [batch._replace(repeated=True) for batch in backlog.in_flight]
            backlog.in_flight.clear()

    async def _send(self, connection: AbstractConnection, batches: list[Batch]) -> None:
        """One pipeline."""
        self.pipelines += 1
        in_flight = self.backlog.in_flight
        before = len(in_flight)
        payload = [packed for batch in batches if (packed := self._try_pack(batch))]
        if not payload:
            return
        way = self._way
        confirmed = way.replicas > 0 and any(batch.lane is not self.backlog.lookup for batch in batches)
        if confirmed:
            payload.append(pack_command(("WAIT", way.replicas, way.replicas_ms)))
        now = asyncio.get_running_loop().time()
        self._pipelines.append(_Pipeline(len(in_flight) - before, confirmed, now))
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS) as self._sending:
                await send(connection, *payload)
        finally:
            self._sending = None

    async def _watch(self, connection: AbstractConnection) -> None:
        """A silent server may be frozen or cut off, and another in its place: leave it then."""
        while True:
            await asyncio.sleep(SILENT_SECONDS)
            if self.silent_seconds <= SILENT_SECONDS:
                continue
            try:
                if not await self._way.elsewhere(connection):
                    continue
            except (RedisError, OSError) as exc:
                logger.debug("nobody tells who has shard %d: %s", self._way.shard, exc)
                continue
            for deadline in (self._sending, self._reading):
                if deadline is not None and not deadline.expired():
                    deadline.reschedule(0.0)  # now

    async def _read_answers(self, connection: AbstractConnection) -> None:
        backlog, in_flight, pipelines = self.backlog, self.backlog.in_flight, self._pipelines
        while True:
            while not pipelines:
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
            try:
                async with asyncio.timeout(self._exchange_seconds) as self._reading:
                    if pipelines[0].confirmed:
                        await self._read_confirmed(connection, pipelines[0].answers)
                    else:
                        for _ in range(pipelines[0].answers):
                            try:
                                reply = await connection.read_response(disconnect_on_error=False)
                            except ResponseError as exc:
                                self._failed(in_flight.popleft(), exc)
                                continue
                            self._settle(in_flight.popleft(), reply)
            finally:
                self._reading = None
            pipelines.popleft()
            self._settled()
            if self._refused_by is None:
                self._failures = 0
                self._way.trouble.ends(self._way.shard, AWAY, SILENT, REFUSES)
            if self._was_full and self._has_room and not backlog.full and not backlog.submits_again:
                self._was_full = False
                self._way.trouble.ends(self._way.shard, FULL)
            self.wake()

    async def _read_confirmed(self, connection: AbstractConnection, answers: int) -> None:
        """The answers of a pipeline count only when enough replicas have what it wrote."""
        backlog, in_flight = self.backlog, self.backlog.in_flight
        replies: list[Any] = []
        for _ in range(answers):
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except ResponseError as exc:
                replies.append(exc)
        replicas: Any = await connection.read_response(disconnect_on_error=False)
        wanted = self._way.replicas
        for reply in replies:
            batch = in_flight.popleft()
            if isinstance(reply, ResponseError):
                self._failed(batch, reply)
            elif replicas < wanted and batch.lane is not backlog.lookup:
                text = f"{replicas} of {wanted} replicas have confirmed the write in time"
                self._failed(batch, ReplicasMissing(text))
            else:
                self._settle(batch, reply)

    def _settle(self, batch: Batch, reply: Any) -> None:
        self._has_room = self._has_room or batch.lane is self.backlog.submit
        self.backlog.settle(batch, reply)

    async def _connect(self) -> AbstractConnection | None:
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                connection = await self._way.dial()
                self._connection = connection
                await self._load_scripts(connection)
                if self._way.replicas:
                    mark = ("EVALSHA", SCRIPTS["mark"].sha, 1, self._prefix)
                    await send(connection, pack_command(mark))
                    await connection.read_response()
        except (RedisError, OSError, TimeoutError) as exc:
            self._note(AWAY, _words(exc))
            self._way.doubt(exc)
            await self._drop()
            await self._back_off()
            return None
        self.connected = True
        self._way.trouble.ends(self._way.shard, AWAY)
        return connection

    async def _load_scripts(self, connection: AbstractConnection) -> None:
        sources = [script.source for script in SCRIPTS.values()]
        await send(connection, *(pack_command(("SCRIPT", "LOAD", source)) for source in sources))
        for _ in sources:
            await connection.read_response()

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

    def _try_pack(self, batch: Batch) -> bytes:
        """Pack a call and note it as in flight; b"" when a hostile value (a NaN delay, say) forbids that."""
        try:
            packed = pack_command(batch.lane.command(self._prefix, batch.ops))
        except (TypeError, ValueError, OverflowError) as exc:
            if len(batch.ops) > 1:
                self.backlog.redo += [batch._replace(ops=[op]) for op in batch.ops]
            else:
                batch.lane.give_up(batch.ops, f"It can't be stored: {exc}")
            return b""
        self.backlog.in_flight.append(batch)
        return packed

    def _failed(self, batch: Batch, error: ResponseError) -> None:
        backlog, lane, ops = self.backlog, batch.lane, batch.ops
        way = cure(error)
        self.last_error = sentence(error)
        if way is Cure.ROOM and lane is backlog.log:
            backlog.log.dropped += len(ops)
        elif way is Cure.ROOM and lane is backlog.submit:
            backlog.redo.append(batch)
            self._hold_submits()
        elif way is not Cure.NONE and not (way is Cure.ROOM and _only_asks(batch, backlog)):
            backlog.redo.append(batch._replace(repeated=True))
            self._refused_by = error
        elif lane is backlog.call:
            for _, future, _ in ops:
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
        asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self.backlog.full = False
        self.wake()

    async def _recover(self, connection: AbstractConnection, error: ResponseError) -> bool:
        """Some calls were refused for a reason that passes; they are in ``_redo``, and nothing is in flight.

        Returns:
            Whether the connection is still the one to use.
        """
        way = cure(error)
        if way is Cure.LOAD:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._load_scripts(connection)
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


def _only_asks(batch: Batch, backlog: Backlog) -> bool:
    """Whether a call is the question if Redis takes new runs, which a refusal answers."""
    return batch.lane is backlog.call and SCRIPTS["accepts"].sha in batch.ops[0][0]
