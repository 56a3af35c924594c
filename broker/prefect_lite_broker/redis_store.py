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

from .hint_listener import HintListener
from .lanes import ClaimOp, pack
from .probe import claim_namespace, probe
from .store import CancelReply, ClaimReply, CommitReply, Hints, SubmitReply
from .store_questions import QuestionCalls
from .store_services import ServiceCalls
from .store_sessions import SessionCalls
from .writer import ShardWriter

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.25

DRAIN_SECONDS = 5.0
"""``stop`` waits this long for what is still unanswered."""


class RedisStore(SessionCalls, ServiceCalls, QuestionCalls):
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
        self._tasks: list[asyncio.Task[None]] = []
        self._set_peers(True)

    # -- life -------------------------------------------------------------------------------------
    async def start(self, hints: Hints) -> list[str]:
        """Connect, check the server and the namespace; returns warnings for the log.

        Raises:
            StoreUnavailable: Redis did not answer within ``redis_wait_seconds``.
            ConfigurationError: It is too old, or the namespace has another shard count or schema.
        """
        for shard, writer in enumerate(self.writers):
            self._keep(writer.run(), f"prefect-lite-writer-{shard}")
        self._keep(self._sweep(), "prefect-lite-sweep")
        try:
            warnings = await probe(self.command)
            await claim_namespace(self.command, self.settings.namespace, self.shards)
            listener = HintListener(
                self.dial,
                [prefix + b"ev" for prefix in self.prefixes],
                self._broker_id,
                hints,
                self._count_listeners,
                self._set_peers,
            )
            self._keep(listener.run(), "prefect-lite-hints")
            async with asyncio.timeout(self.settings.redis_wait_seconds):
                await listener.subscribed.wait()
            # Tells brokers that were alone until now to publish hints.
            hello = pack([self._broker_id, "h", []])
            for prefix in self.prefixes:
                await self.command("PUBLISH", prefix + b"ev", hello)
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, TimeoutError):
                raise StoreUnavailable("Redis did not confirm the subscription in time.") from exc
            raise
        return warnings

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
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # reported when it happened
                await task

    @property
    def healthy(self) -> bool:
        return all(writer.connected for writer in self.writers)

    @property
    def counters(self) -> dict[str, int]:
        """Sums over the shards, for metrics; ``largest`` is the biggest group of one script call."""
        names = ("calls", "operations", "pipelines", "reconnects")
        counters = {name: sum(getattr(writer, name) for writer in self.writers) for name in names}
        counters["largest"] = max(writer.largest for writer in self.writers)
        counters["pending"] = sum(len(lane.pending) for writer in self.writers for lane in writer.lanes)
        return counters

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
            reply = await self.command("PUBSUB", "NUMSUB", self.prefixes[0] + b"ev")
        except (StoreUnavailable, RedisError):
            return 2  # unknown: hints cost little
        return int(reply[1])

    # -- hot path ---------------------------------------------------------------------------------
    def _writer_of(self, run_id: str) -> ShardWriter:
        return self.writers[int(run_id[-3:], 16) % self.shards if self.shards > 1 else 0]

    def submit(self, msg: Submit, done: Callable[[SubmitReply], None]) -> None:
        writer = self._writer_of(msg.run_id)
        lane = writer.submit
        refused = None
        if msg.parents:
            refused = SubmitReply(
                msg.run_id, "unsupported", "", "Runs that wait for others are not stored yet."
            )
        elif len(lane.pending) >= self._most:
            text = f"{self._most:,} submits wait for Redis in this broker already."
            refused = SubmitReply(msg.run_id, "full", "", text, 1.0)
        if refused:
            asyncio.get_running_loop().call_soon(done, refused)
            return
        lane.pending.append((msg, done, time.monotonic()))
        writer.wake()

    def claim(
        self,
        session: str,
        epoch: int,
        shard: int,
        number: int,
        limit: int,
        done: Callable[[ClaimReply], None],
    ) -> None:
        """Tokens are random per claim, and stay the same when the call has to be repeated."""
        base = base64.urlsafe_b64encode(os.urandom(9)).decode() + "."
        writer = self.writers[shard]
        writer.claim.pending.append(ClaimOp(session, epoch, number, limit, base, done))
        writer.wake()

    def started(self, run_id: str, token: str, attempt: int) -> None:
        writer = self._writer_of(run_id)
        writer.started.by_token[token] = (run_id, token, attempt)
        writer.wake()

    def finish(self, msg: Finish, done: Callable[[CommitReply], None]) -> None:
        writer = self._writer_of(msg.run_id)
        # A run that starts and ends within one turn is written once.
        writer.started.by_token.pop(msg.token, None)
        writer.finish.pending.append((msg, done))
        writer.wake()

    def retry(self, msg: Retry, done: Callable[[CommitReply], None]) -> None:
        writer = self._writer_of(msg.run_id)
        writer.retry.pending.append((msg, done))
        writer.wake()

    def release(self, msg: Release, done: Callable[[CommitReply], None]) -> None:
        writer = self._writer_of(msg.run_id)
        writer.release.pending.append((msg, done))
        writer.wake()

    def lookup(self, run_id: str, done: Callable[[RunState], None]) -> None:
        writer = self._writer_of(run_id)
        if len(writer.lookup.pending) < self._most:  # else it is dropped: watchers read again by themselves
            writer.lookup.pending.append((run_id, done))
            writer.wake()

    def cancel(self, run_id: str, done: Callable[[CancelReply], None]) -> None:
        writer = self._writer_of(run_id)
        writer.cancel.pending.append((run_id, done, time.monotonic()))
        writer.wake()

    def log(self, run_id: str, lines: list[list[Any]]) -> None:
        writer = self._writer_of(run_id)
        most = self.settings.max_log_lines
        if not lines or not most or len(writer.log.pending) >= self._most:
            return
        writer.log.pending.append((run_id, [pack(line) for line in lines[-most:]]))
        writer.wake()


def _report(task: asyncio.Task[None]) -> None:
    """A writer or listener never ends by itself; if one does, nothing works any more and the log says why."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("%s has ended", task.get_name(), exc_info=error)
