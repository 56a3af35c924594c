"""The group-commit writer of one shard.

Operations collect in lanes while two pipelines are in flight; then everything that has arrived goes out
together, and everybody is answered. Alone an operation costs one round trip; under load the groups grow
by themselves. Inside a pipeline the order is: started, finish, retry, release, cancel, submit, claim,
lookup, log, the rest, so that a claim sees the submits and commits of the same turn.

Every call is safe to repeat, so on any fault of the connection it is dropped (never reused: a reply that
was not read would be taken for the next one's) and what is unanswered goes out again on a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

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

from prefect_lite.exceptions import StoreUnavailable

from .commit_lanes import CancelLane, FinishLane, ReleaseLane, RetryLane, StartedLane
from .lanes import CallLane, ClaimLane, Lane, LogLane, LookupLane, SubmitLane, Terms
from .scripts import SCRIPTS
from .store import CancelReply, SubmitReply

logger = logging.getLogger(__name__)

EXCHANGE_SECONDS = 10.0
"""A pipeline without its last reply by then: the connection is taken for dead."""

STOPPED = "The store was stopped."

DEPTH = 2
"""Pipelines in flight: Redis works on one while this process hands on the answers of the last and packs the
next. With one, the two took turns, and their times added up."""

FULL_SECONDS = 0.1
"""Pause after Redis refused writes because it is full or can't persist."""

BACKOFF_SECONDS = (0.05, 1.0)

# The stub says a tuple of one; any length is meant. redis-py's own packing is Python and 20 times slower.
_pack_command: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # pyright: ignore[reportAssignmentType]

_REFUSED = float("inf")  # in place of an operation's time: nobody waits for it any more

_PASSING_TEXTS = ("READONLY", "OOM", "MISCONF", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "BUSY")
_PASSING = (ReadOnlyError, OutOfMemoryError, ClusterDownError, TryAgainError, MasterDownError)


Dial = Callable[[], Awaitable[AbstractConnection]]


class Batch(NamedTuple):
    """One script call in the making."""

    lane: Lane[Any]
    ops: list[Any]
    repeated: bool


def _passing(error: ResponseError) -> bool:
    """Whether Redis will accept the same call later (full memory, failover, loading)."""
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_TEXTS)


class ShardWriter:
    """See the module docstring.

    Args:
        dial: Makes a connected redis-py connection without any retry of its own.
        prefix: Start of the shard's keys.
        terms: Settings the scripts need.
        wait_seconds: Submits and rare calls that Redis has not answered by then are refused.
        settled: Called after the answers of each pipeline have been handed on.
    """

    def __init__(
        self,
        dial: Dial,
        prefix: bytes,
        terms: Terms,
        wait_seconds: float,
        settled: Callable[[], None],
    ) -> None:
        self._settled = settled
        self._dial = dial
        self._prefix = prefix
        self._wait_seconds = wait_seconds
        self.started = StartedLane(terms)
        self.finish = FinishLane(terms)
        self.retry = RetryLane(terms)
        self.release = ReleaseLane(terms)
        self.cancel = CancelLane(terms)
        self.submit = SubmitLane(terms)
        self.claim = ClaimLane(terms)
        self.lookup = LookupLane(terms)
        self.log = LogLane(terms)
        self.call = CallLane(terms)
        self.lanes: tuple[Lane[Any], ...] = (
            self.started,
            self.finish,
            self.retry,
            self.release,
            self.cancel,
            self.submit,
            self.claim,
            self.lookup,
            self.log,
            self.call,
        )
        self._refusable: tuple[Lane[Any], ...] = (self.submit, self.cancel, self.call)
        self.connected = False
        self.last_error = ""
        self.calls = self.operations = self.pipelines = self.reconnects = self.largest = 0
        self._connection: AbstractConnection | None = None
        self._waiter: asyncio.Future[None] | None = None  # set while the loop sleeps
        self._stopped = False
        self._drained: asyncio.Future[None] | None = None
        self._in_flight: deque[Batch] = deque()
        self._pipelines: deque[int] = deque()  # how many answers are due for each, oldest first
        self._arrival: asyncio.Future[None] | None = None  # set while the reader has nothing to read
        self._redo: list[Batch] = []  # goes out first, in order, next time
        self._failures = 0
        self._refused_by: ResponseError | None = None  # by a condition that passes

    # -- producers ----------------------------------------------------------------------------------
    def wake(self) -> None:
        """Called after something was put in a lane; the pipeline starts in the next turn of the loop."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._stopped:
            asyncio.get_running_loop().call_soon(self.fail_all, STOPPED)

    def set_sender(self, sender: str) -> None:
        for lane in self.lanes:
            lane.sender = sender

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not self._in_flight and not self._redo and not self._has_work()

    async def drain(self) -> None:
        """Until nothing waits and nothing is in flight; at once while Redis is away."""
        if self.connected and not self.idle:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _has_work(self) -> list[Lane[Any]]:
        started = self.started
        return [lane for lane in self.lanes if lane.pending or (lane is started and started.by_token)]

    def sweep(self) -> None:
        """Refuse submits, cancels and rare calls that have waited too long; the rest is kept and repeated."""
        oldest = time.monotonic() - self._wait_seconds
        text = f"Redis did not answer within {self._wait_seconds:g} s ({self.last_error or 'no reply'})."
        for lane in self._refusable:
            pending = lane.pending
            if pending and pending[0][2] < oldest:
                lane.pending = [op for op in pending if op[2] >= oldest]
                self._refuse(lane, [op for op in pending if op[2] < oldest], text)
        for batch in (*self._in_flight, *self._redo):
            if batch.lane in self._refusable:
                self._refuse_in_flight(batch, oldest, text)

    def _refuse_in_flight(self, batch: Batch, oldest: float, text: str) -> None:
        """The call may have been executed; its answer will find nobody."""
        for i, op in enumerate(batch.ops):
            if op[2] < oldest:
                self._refuse(batch.lane, [op], text)
                batch.ops[i] = (op[0], op[1] if batch.lane is self.call else _nobody, _REFUSED)

    def _refuse(self, lane: Lane[Any], ops: list[Any], text: str) -> None:
        if lane is self.call:
            for _, future, _ in ops:
                if not future.done():
                    future.set_exception(StoreUnavailable(text))
        else:
            lane.give_up(ops, text)

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
            self.fail_all(STOPPED)

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
                    batches = self._collect()
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
            self._waiter = self._arrival = None
            self._pipelines.clear()
            # What stays unanswered goes out again first, on the next connection.
            self._redo += [Batch(lane, ops, True) for lane, ops, _ in self._in_flight]
            self._in_flight.clear()

    async def _send(self, connection: AbstractConnection, batches: list[Batch]) -> None:
        """One pipeline."""
        self.pipelines += 1
        before = len(self._in_flight)
        payload = [packed for batch in batches if (packed := self._try_pack(batch))]
        if not payload:
            return
        self._pipelines.append(len(self._in_flight) - before)
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)
        async with asyncio.timeout(EXCHANGE_SECONDS):
            await connection.send_packed_command(payload, check_health=False)

    async def _read_answers(self, connection: AbstractConnection) -> None:
        in_flight, pipelines = self._in_flight, self._pipelines
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
                    self._settle(in_flight.popleft(), reply)
            pipelines.popleft()
            self._settled()
            if self._refused_by is None:
                self._failures = 0
            self.wake()

    def fail_all(self, text: str) -> None:
        """Refuse what has a way to be refused. Commits and claims stay unanswered: their owners ask again."""
        for batch in (*self._in_flight, *self._redo):
            if batch.lane in self._refusable:
                self._refuse(batch.lane, batch.ops, text)
        self._in_flight.clear()
        self._redo.clear()
        for lane in self._refusable:
            pending, lane.pending = lane.pending, []
            self._refuse(lane, pending, text)

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

    def _collect(self) -> list[Batch]:
        batches: list[Batch] = []
        for batch in self._redo:
            if batch.lane in self._refusable:
                batches.append(batch._replace(ops=[op for op in batch.ops if op[2] != _REFUSED]))
            else:
                batches.append(batch)
        self._redo = []
        for lane in self._has_work():
            batches += [Batch(lane, ops, False) for ops in lane.take()]
        return [batch for batch in batches if batch.ops]

    def _pack(self, batch: Batch) -> bytes:
        lane, ops, _ = batch
        if lane is self.call:
            return _pack_command(ops[0][0])
        return _pack_command(("EVALSHA", lane.sha, 1, self._prefix, *lane.args(ops)))

    def _try_pack(self, batch: Batch) -> bytes:
        """Pack a call and note it as in flight; b"" when a hostile value (a NaN delay, say) forbids that."""
        try:
            packed = self._pack(batch)
        except (TypeError, ValueError, OverflowError) as exc:
            lane, ops, _ = batch
            if len(ops) > 1:
                self._redo += [Batch(lane, [op], False) for op in ops]
            else:
                self._refuse(lane, ops, f"It can't be stored: {exc}")
            return b""
        self._in_flight.append(batch)
        return packed

    def _settle(self, batch: Batch, reply: Any) -> None:
        lane, ops, repeated = batch
        self.calls += 1
        self.operations += len(ops)
        if len(ops) > self.largest:
            self.largest = len(ops)
        try:
            lane.settle(ops, reply, repeated=repeated)
        except Exception:
            # A callback that raises must not take the shard's writer with it.
            logger.critical("an answer of %s could not be handed on", type(lane).__name__, exc_info=True)

    def _failed(self, batch: Batch, error: ResponseError) -> None:
        lane, ops, _ = batch
        self.last_error = str(error)
        if isinstance(error, NoScriptError) or _passing(error):
            self._redo.append(Batch(lane, ops, True))
            self._refused_by = error
        elif lane is self.call:
            for _, future, _ in ops:
                if not future.done():
                    future.set_exception(error)
        elif len(ops) > 1:
            # One of them may be to blame (a key of a wrong type): each alone, so the others get through.
            self._redo += [Batch(lane, [op], True) for op in ops]
        else:
            logger.critical("Redis refused %s: %s", type(lane).__name__, error)
            lane.give_up(ops, f"Redis refused it: {error}")

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
        if isinstance(error, OutOfMemoryError) or self.last_error.startswith(("OOM", "MISCONF")):
            # Commits and claims still pass, and make room.
            self._failures += 1
            await asyncio.sleep(FULL_SECONDS)
            return True
        await self._drop()  # after a failover the address may lead to another server
        await self._back_off()
        return False


def _nobody(reply: SubmitReply | CancelReply) -> None:
    """Takes the answer of an operation that was refused while it was in flight."""
