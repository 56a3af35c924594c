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
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from .backlog import Backlog, Batch
from .scripts import SCRIPTS

logger = logging.getLogger(__name__)

EXCHANGE_SECONDS = 10.0
"""A pipeline without its last reply by then: the connection is taken for dead."""

STOPPED = "The store was stopped."

DEPTH = 2
"""Pipelines in flight: Redis works on one while this process hands on the answers of the last and packs the
next. With one, the two took turns, and their times added up."""

FULL_SECONDS = 0.1
"""Pause after Redis refused new runs because it is full, or all writes because it can't persist."""

BACKOFF_SECONDS = (0.05, 1.0)

# The stub says a tuple of one; any length is meant. redis-py's own packing is Python and 20 times slower.
_pack_command: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # pyright: ignore[reportAssignmentType]

_PASSING_TEXTS = ("READONLY", "OOM", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "BUSY")
_PASSING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError, MasterDownError)


Dial = Callable[[], Awaitable[AbstractConnection]]


def _out_of_memory(error: ResponseError) -> bool:
    return isinstance(error, OutOfMemoryError) or str(error).startswith("OOM")


def _passing(error: ResponseError) -> bool:
    """Whether Redis will accept the same call later (full memory, failover, loading)."""
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_TEXTS)


class ShardWriter:
    """See the module docstring.

    Args:
        dial: Makes a connected redis-py connection without any retry of its own.
        prefix: Start of the shard's keys.
        terms: Settings the scripts need.
        backlog: What waits for Redis.
        settled: Called after the answers of each pipeline have been handed on.
    """

    def __init__(self, dial: Dial, prefix: bytes, backlog: Backlog, settled: Callable[[], None]) -> None:
        self._dial = dial
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
        self._pipelines: deque[int] = deque()  # how many answers are due for each, oldest first
        self._arrival: asyncio.Future[None] | None = None  # set while the reader has nothing to read
        self._failures = 0
        self._refused_by: ResponseError | None = None  # by a condition that passes
        self._was_full = False

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
        """Refuse what may be refused and has waited too long."""
        self.backlog.sweep(self.last_error)

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
                    self.last_error = str(exc) or type(exc).__name__
                    logger.warning(
                        "lost the connection to Redis: %s", self.last_error, extra={"action": "reconnect"}
                    )
                    await self._drop()
                    await self._back_off()
        finally:
            self._waiter = None
            self._stopped = True
            await self._drop()
            self.backlog.fail_all(STOPPED)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Send pipelines while another task reads the answers, until the connection fails or is given up.

        Raises:
            RedisError, OSError, TimeoutError: The connection is of no use any more.
        """
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read_answers(connection), name="prefect-lite-redis-reader")
        reader.add_done_callback(lambda _: self.wake())
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
            await asyncio.wait([reader])
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
        self._pipelines.append(len(in_flight) - before)
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)
        async with asyncio.timeout(EXCHANGE_SECONDS):
            await connection.send_packed_command(payload, check_health=False)

    async def _read_answers(self, connection: AbstractConnection) -> None:
        backlog, in_flight, pipelines = self.backlog, self.backlog.in_flight, self._pipelines
        while True:
            while not pipelines:
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
            async with asyncio.timeout(EXCHANGE_SECONDS):
                for _ in range(pipelines[0]):
                    try:
                        reply = await connection.read_response(disconnect_on_error=False)
                    except ResponseError as exc:
                        self._failed(in_flight.popleft(), exc)
                        continue
                    backlog.settle(in_flight.popleft(), reply)
            pipelines.popleft()
            self._settled()
            if self._refused_by is None:
                self._failures = 0
            if self._was_full and not backlog.full and not backlog.submits_again:
                self._was_full = False
                logger.info("Redis accepts new runs again", extra={"action": "wait"})
            self.wake()

    async def _connect(self) -> AbstractConnection | None:
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                connection = await self._dial()
                self._connection = connection
                await self._load_scripts(connection)
        except (RedisError, OSError, TimeoutError) as exc:
            self.last_error = str(exc) or type(exc).__name__
            if self._failures == 0:
                logger.warning("Redis is not reachable: %s", self.last_error, extra={"action": "connect"})
            await self._drop()
            await self._back_off()
            return None
        if self._failures:
            logger.info("Redis is reachable again", extra={"action": "connect"})
        self.connected = True
        return connection

    async def _load_scripts(self, connection: AbstractConnection) -> None:
        sources = [script.source for script in SCRIPTS.values()]
        await connection.send_packed_command(
            [_pack_command(("SCRIPT", "LOAD", source)) for source in sources], check_health=False
        )
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
            packed = _pack_command(batch.lane.command(self._prefix, batch.ops))
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
        self.last_error = str(error)
        if _out_of_memory(error) and lane is backlog.log:
            backlog.log.dropped += len(ops)
        elif _out_of_memory(error) and lane is backlog.submit:
            backlog.redo.append(batch)
            self._hold_submits()
        elif isinstance(error, NoScriptError) or _passing(error):
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
        if not self._was_full:
            logger.warning("Redis refuses new runs: %s", self.last_error, extra={"action": "wait"})
        self.backlog.full = self._was_full = True
        asyncio.get_running_loop().call_later(FULL_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self.backlog.full = False
        self.wake()

    async def _recover(self, connection: AbstractConnection, error: ResponseError) -> bool:
        """Some calls were refused for a reason that passes; they are in ``_redo``, and nothing is in flight.

        Returns:
            Whether the connection is still the one to use.
        """
        if isinstance(error, NoScriptError):
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._load_scripts(connection)
            return True
        if self._failures == 0:
            logger.warning("Redis refuses writes: %s", self.last_error, extra={"action": "wait"})
        if _out_of_memory(error) or self.last_error.startswith("MISCONF"):
            self._failures += 1
            await asyncio.sleep(FULL_SECONDS)
            return True
        await self._drop()  # after a failover the address may lead to another server
        await self._back_off()
        return False
