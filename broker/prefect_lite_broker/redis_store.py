"""The store in Redis or Valkey: the operations of ``store.py``, one Lua script each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import RedisError

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.messages import Finish, Release, Retry, RunState, Submit
from prefect_lite.settings import Settings

from . import keys
from .hint_listener import HintListener
from .lanes import LOG_BYTES, ClaimOp, pack
from .probe import first_contact
from .readiness import Readiness
from .store import UNREAD, CancelReply, ClaimReply, CommitReply, Hints, SubmitReply
from .store_audit import AuditCalls
from .store_dependencies import DependencyCalls
from .store_keep import KeepCalls
from .store_questions import QuestionCalls
from .store_records import RecordCalls
from .store_services import ServiceCalls
from .store_sessions import SessionCalls

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25

DRAIN_SECONDS = 5.0
"""``stop`` waits this long for what is still unanswered."""


class RedisStore(
    SessionCalls, ServiceCalls, AuditCalls, DependencyCalls, RecordCalls, QuestionCalls, KeepCalls
):
    """Implements ``Store``. Use on one event loop: ``await start(hints)`` ... ``await stop()``.

    Args:
        settings: ``redis_url``, ``namespace``, ``shards`` and the store's limits and times.
        broker_id: Marks this broker's own hints.

    Raises:
        ConfigurationError: Namespace or URL can't be used.
    """

    def __init__(self, settings: Settings, broker_id: str) -> None:
        super().__init__(settings)
        self._broker_id = broker_id
        self._most = settings.max_pending_writes
        self._most_bytes = settings.max_pending_bytes
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[HintListener] = []
        self._readiness = Readiness(self, self._listeners)

    # -- life -------------------------------------------------------------------------------------
    async def start(self, hints: Hints) -> list[str]:
        """Connect, check the servers and the namespace; returns warnings for the log.

        Raises:
            StoreUnavailable: Redis did not answer within ``redis_wait_seconds``.
            ConfigurationError: It is too old, or the namespace has another shard count or schema.
        """
        self.on_ready = hints.on_ready
        wait = self.settings.redis_wait_seconds
        shards, warnings = await first_contact(self.dialer, self.settings)
        self.open_shards(shards)
        self._most_bytes = self.settings.max_pending_bytes // shards
        self._set_peers(True)
        for shard, writer in enumerate(self.writers):
            self._keep(writer.run(), f"prefect-lite-writer-{shard}")
        self._keep(self._sweep(), "prefect-lite-sweep")
        try:
            self._listen(hints)
            async with asyncio.timeout(wait):
                for listener in self._listeners:
                    await listener.subscribed.wait()
            await self._say_hello()
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, TimeoutError):
                raise StoreUnavailable("Redis did not confirm the subscription in time.") from exc
            raise
        return warnings

    async def _say_hello(self) -> None:
        """Tell brokers that were alone until now to publish hints."""
        hello = pack([self._broker_id, "h", []])
        words = [("SPUBLISH", prefix + b"ev", hello) for prefix in self.prefixes]
        hellos = [self.command(*command, shard=shard) for shard, command in enumerate(words)]
        for outcome in await asyncio.gather(*hellos, return_exceptions=True):
            # Without enough replicas nothing is answered, which has been warned of. They may come.
            if isinstance(outcome, BaseException) and not self.settings.redis_wait_replicas:
                raise outcome

    def _listen(self, hints: Hints) -> None:
        """One listener, or in a cluster one per shard: their channels may part."""
        channels = [prefix + b"ev" for prefix in self.prefixes]
        parts = [[channel] for channel in channels] if self.dialer.clustered else [channels]
        for number, part in enumerate(parts):
            listener = HintListener(
                self.dialer.on(keys.slot(part[0])),
                self.dialer.doubt,
                part,
                self._broker_id,
                hints,
                self._count_listeners if number == 0 else None,
                self._set_peers,
            )
            self._listeners.append(listener)
            self._keep(listener.run(), f"prefect-lite-hints-{number}")

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Let what is in flight be answered, within bounds; then close the connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                for writer in self.writers:
                    await writer.drain()
        await self._readiness.close()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # reported when it happened
                await task

    @property
    def healthy(self) -> bool:
        return bool(self.writers) and all(writer.connected for writer in self.writers)

    async def readiness(self) -> str:
        return await self._readiness.reason()

    @property
    def counters(self) -> dict[str, int]:
        """Sums over the shards, for metrics.

        ``largest`` is the biggest group of one script call, ``pending`` what Redis has not answered, and
        ``dropped_logs`` counts LOG messages that Redis was too slow or too full for; ``audited`` and
        ``repaired`` what this broker's audit has looked at and put right.
        """
        backlogs, writers = self.backlogs, self.writers
        return {
            "calls": sum(backlog.calls for backlog in backlogs),
            "operations": sum(backlog.operations for backlog in backlogs),
            "pipelines": sum(writer.pipelines for writer in writers),
            "reconnects": sum(writer.reconnects for writer in writers),
            "largest": max((backlog.largest for backlog in backlogs), default=0),
            "pending": sum(len(backlog) for backlog in backlogs),
            "dropped_logs": sum(backlog.log.dropped for backlog in backlogs),
            "audited": self.audited,
            "repaired": self.repaired,
        }

    async def ping(self) -> None:
        """One round trip to every shard.

        Raises:
            StoreUnavailable: No answer within ``redis_wait_seconds``.
        """
        for shard in range(self.shards):
            await self.command("PING", shard=shard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for writer in self.writers:
                writer.sweep()

    def _set_peers(self, others: bool) -> None:
        for writer in self.writers:
            writer.set_sender(self._broker_id if others else "-")

    async def _count_listeners(self) -> int:
        try:
            reply = await self.command("PUBSUB", "SHARDNUMSUB", self.prefixes[0] + b"ev")
        except (StoreUnavailable, RedisError):
            return 2  # unknown: hints cost little
        return int(reply[1])

    # -- hot path ---------------------------------------------------------------------------------
    def _index(self, run_id: str) -> int:
        return int(run_id[-3:], 16) % self.shards if self.shards > 1 else 0

    def submit(self, msg: Submit, done: Callable[[SubmitReply], None]) -> None:
        shard = self._index(msg.run_id)
        lane = self.backlogs[shard].submit
        size = len(msg.body) + len(msg.info)
        refused = None
        if msg.parents or msg.tolerated:
            weight, done = self.blocked(msg, done)
            size += weight
        if msg.run_id in msg.parents or msg.run_id in msg.tolerated:
            refused = SubmitReply(msg.run_id, "unsupported", "", "A run can't wait for itself.")
        elif len(lane.pending) >= self._most or (lane.pending and lane.bytes + size > self._most_bytes):
            text = f"{len(lane.pending):,} submits ({lane.bytes:,} bytes) wait for Redis in this broker."
            refused = SubmitReply(msg.run_id, "full", "", text, 1.0)
        if refused:
            asyncio.get_running_loop().call_soon(done, refused)
            return
        lane.pending.append((msg, done, time.monotonic()))
        lane.bytes += size
        self.writers[shard].wake()

    def claim(
        self,
        session: str,
        epoch: int,
        shard: int,
        number: int,
        limit: int,
        done: Callable[[ClaimReply], None],
    ) -> None:
        """Tokens are random per claim, and stay the same when the call has to be repeated.

        They end in the number of the claim and the place in it: what began together is reaped in that order.
        """
        base = f"{base64.urlsafe_b64encode(os.urandom(9)).decode()}.{number}."
        self.backlogs[shard].claim.pending.append(ClaimOp(session, epoch, number, limit, base, done))
        self.writers[shard].wake()

    def started(self, run_id: str, token: str, attempt: int) -> None:
        shard = self._index(run_id)
        self.backlogs[shard].started.by_token[token] = (run_id, token, attempt)
        self.writers[shard].wake()

    def finish(self, msg: Finish, done: Callable[[CommitReply], None]) -> None:
        shard = self._index(msg.run_id)
        backlog = self.backlogs[shard]
        # A run that starts and ends within one turn is written once.
        backlog.started.by_token.pop(msg.token, None)
        lane = backlog.finish
        lane.pending.append((msg, done))
        if msg.result:
            lane.bytes += len(msg.result)
        self.writers[shard].wake()

    def retry(self, msg: Retry, done: Callable[[CommitReply], None]) -> None:
        shard = self._index(msg.run_id)
        self.backlogs[shard].retry.pending.append((msg, done))
        self.writers[shard].wake()

    def release(self, msg: Release, done: Callable[[CommitReply], None]) -> None:
        shard = self._index(msg.run_id)
        self.backlogs[shard].release.pending.append((msg, done))
        self.writers[shard].wake()

    def lookup(self, run_id: str, done: Callable[[RunState], None]) -> None:
        """``done`` gets a state of type ``UNREAD`` when the run could not be read in time."""
        shard = self._index(run_id)
        pending = self.backlogs[shard].lookup.pending
        if len(pending) >= self._most:
            text = f"{len(pending):,} lookups wait for Redis in this broker already."
            asyncio.get_running_loop().call_soon(done, RunState(run_id, UNREAD, message=text))
            return
        pending.append((run_id, done, time.monotonic()))
        self.writers[shard].wake()

    def cancel(self, run_id: str, done: Callable[[CancelReply], None]) -> None:
        shard = self._index(run_id)
        pending = self.backlogs[shard].cancel.pending
        if len(pending) >= self._most:
            asyncio.get_running_loop().call_soon(done, CancelReply(run_id, "unavailable"))
            return
        pending.append((run_id, done, time.monotonic()))
        self.writers[shard].wake()

    def log(self, run_id: str, lines: list[list[Any]]) -> None:
        """Lines that Redis is too slow for are dropped, and counted."""
        shard = self._index(run_id)
        lane = self.backlogs[shard].log
        most = self.settings.max_log_lines
        if not lines or not most:
            return
        if len(lane.pending) >= self._most or lane.bytes >= LOG_BYTES:
            lane.dropped += 1
            return
        op = (run_id, [pack(line) for line in lines[-most:]])
        lane.pending.append(op)
        lane.bytes += lane.weight(op)
        self.writers[shard].wake()


def _report(task: asyncio.Task[None]) -> None:
    """A writer or listener never ends by itself; if one does, nothing works any more and the log says why."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("%s has ended", task.get_name(), exc_info=error)
