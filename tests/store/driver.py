"""The store with awaitable operations, and short ways to write them in tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pytest
import redis
from prefect_lite_broker import keys
from prefect_lite_broker.lanes import ClaimOp
from prefect_lite_broker.redis_store import RedisStore
from prefect_lite_broker.store import (
    CancelReply,
    ClaimedRun,
    ClaimReply,
    CommitReply,
    LeaseEvent,
    SubmitReply,
)

from prefect_lite.protocol.messages import Finish, Release, Retry, RunState, Submit
from prefect_lite.settings import Settings
from tests.tools.audit import audit
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

KEY = "tasks.add"


def run_id() -> str:
    return os.urandom(16).hex()


def submission(run: str = "", key: str = KEY, body: bytes = b"body", **fields: Any) -> Submit:
    return Submit(run or run_id(), key, body, **{"fingerprint": b"f" * 16, **fields})


class Recorder:
    """Takes hints."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.ready: list[str] = []
        self.cancels: list[tuple[str, str, str]] = []
        self.lost = 0

    def on_ended(self, run_ids: list[str]) -> None:
        self.ended += run_ids

    def on_ready(self, task_keys: list[str]) -> None:
        self.ready += task_keys

    def on_cancel(self, session: str, run_id: str, token: str) -> None:
        self.cancels.append((session, run_id, token))

    def on_hints_lost(self) -> None:
        self.lost += 1


class Driver:
    """One broker's store.

    Args:
        settings: With ``redis_url``.
        client: A plain client to the same server, to look behind the store's back.
    """

    def __init__(self, settings: Settings, client: redis.Redis, broker_id: str = "broker-1") -> None:
        self.store = RedisStore(settings, broker_id)
        self.hints = Recorder()
        self.client = client
        self.prefix = keys.prefix(settings.namespace, 0).decode()
        self.warnings: list[str] = []
        self._numbers: dict[str, int] = {}

    async def start(self) -> Driver:
        self.warnings = await self.store.start(self.hints)
        return self

    async def _ask(self, operation: Any, *args: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        operation(*args, answer.set_result)
        return await answer

    async def submit(self, *msgs: Submit) -> list[SubmitReply]:
        return await asyncio.gather(*(self._ask(self.store.submit, msg) for msg in msgs))

    async def accepted(self, count: int = 1, **fields: Any) -> list[str]:
        """Submit so many runs; returns their ids."""
        msgs = [submission(**fields) for _ in range(count)]
        replies = await self.submit(*msgs)
        assert [reply.status for reply in replies] == ["accepted"] * count
        return [msg.run_id for msg in msgs]

    async def worker(self, session: str = "w1", *task_keys: str) -> int:
        epoch = await self.store.open_session(session, b"digest", {"host": "here"})
        assert await self.store.serve(session, epoch, list(task_keys or (KEY,))) == "ok"
        return epoch

    async def claim_reply(
        self, session: str = "w1", limit: int = 10, epoch: int = 1, number: int = 0
    ) -> ClaimReply:
        number = number or self._numbers.get(session, 0) + 1
        self._numbers[session] = number
        return await self._ask(self.store.claim, session, epoch, 0, number, limit)

    async def claim(self, session: str = "w1", limit: int = 10, epoch: int = 1) -> list[ClaimedRun]:
        reply = await self.claim_reply(session, limit, epoch)
        assert reply.status == "ok"
        return reply.runs

    async def write_through(
        self, msgs: Sequence[Submit], session: str = "w1", limit: int = 10, epoch: int = 1, number: int = 0
    ) -> tuple[list[SubmitReply], ClaimReply]:
        """Submits and a claim of one turn, which are one script call."""
        submits = [self._ask(self.store.submit, msg) for msg in msgs]
        *stored, claimed = await asyncio.gather(*submits, self.claim_reply(session, limit, epoch, number))
        return stored, claimed

    def through_command(
        self, msgs: Sequence[Submit], session: str = "w1", limit: int = 10, epoch: int = 1, number: int = 1
    ) -> tuple[Any, ...]:
        """The call that ``write_through`` makes: for copies that nobody reads the answer of."""
        claim = ClaimOp(session, epoch, number, limit, f"{run_id()}.{number}.", lambda _: None)
        lane = self.store.backlogs[0].through
        return lane.command(self.prefix.encode(), [*((msg, lambda _: None, 0.0) for msg in msgs), claim])

    def started(self, run: ClaimedRun) -> None:
        self.store.started(run.run_id, run.token, run.attempt)

    async def has_begun(self, run: ClaimedRun) -> None:
        """Until the store has its STARTED: what is measured from there can be waited for."""
        await until(lambda: self.client.hexists(f"{self.prefix}r:{run.run_id}", "sm"))

    async def finish(self, run: ClaimedRun, type: str = "COMPLETED", **fields: Any) -> CommitReply:
        values = {"name": "", "message": "", "attempt": run.attempt, "run_seconds": 0.01, "result": b"result"}
        return await self._ask(self.store.finish, Finish(run.run_id, run.token, type, **{**values, **fields}))

    async def retry(self, run: ClaimedRun, after: float = 0.0, message: str = "") -> CommitReply:
        return await self._ask(
            self.store.retry, Retry(run.run_id, run.token, after, run.attempt + 1, message)
        )

    async def release(self, run: ClaimedRun) -> CommitReply:
        return await self._ask(self.store.release, Release(run.run_id, run.token))

    async def cancel(self, run: str) -> CancelReply:
        return await self._ask(self.store.cancel, run)

    async def state(self, run: str) -> RunState:
        return await self._ask(self.store.lookup, run)

    async def types(self, runs: Iterable[str]) -> list[str]:
        return [(await self.state(run)).type for run in runs]

    # -- time, moved by hand ----------------------------------------------------------------------
    async def tick(self) -> None:
        """Let the reaper have looked just now, so that the next look is no gap."""
        await self.reap()

    async def reap(self) -> list[LeaseEvent]:
        events: list[LeaseEvent] = []
        await self.store.reap(events.append)
        return events

    async def clock_moves(self, seconds: float = 0.0001) -> None:
        """Until Redis's clock has moved on so far."""
        start = self._clock()
        await until(lambda: self._clock() > start + seconds)

    def _clock(self) -> float:
        seconds, micros = self.client.time()  # type: ignore[misc]
        return seconds + micros / 1e6

    def end_lease(self, session: str) -> None:
        self.client.zadd(self.prefix + "sessions", {session: 0})

    def make_due(self, run: str) -> None:
        self.client.zadd(self.prefix + "delayed", {run: 1}, xx=True)

    def audit(self) -> dict[str, str]:
        return audit(self.client, self.prefix)

    async def stop(self) -> None:
        await self.store.stop()


class Place(NamedTuple):
    """The server that has the only shard, and the URL that leads to it."""

    server: ValkeyServer
    url: str


EVERYWHERE = pytest.mark.parametrize("place", ["alone", "cluster"], indirect=True)
"""Runs the tests of a driver on one server and in a cluster of three."""

MakeDriver = Callable[..., Awaitable[Driver]]
