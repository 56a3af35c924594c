"""Reads from Redis how runs have ended, through the store that the brokers use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prefect_lite_broker.redis_store import RedisStore
from prefect_lite_broker.store import UNREAD

from prefect_lite.protocol.messages import RunState
from prefect_lite.settings import Settings
from tests.chaos.history import Truth
from tests.chaos.recording import digest

AT_A_TIME = 2_000


class _NoHints:
    def on_ended(self, run_ids: list[str]) -> None:
        """Nobody waits here."""

    def on_ready(self, task_keys: list[str]) -> None:
        """Nobody works here."""

    def on_cancel(self, session: str, run_id: str, token: str) -> None:
        """Nobody works here."""

    def on_hints_lost(self) -> None:
        """Nobody waits here."""


def read_truth(settings: Settings, run_ids: list[str]) -> Mapping[str, Truth]:
    """What Redis has of these runs.

    Raises:
        AssertionError: A run could not be read.
        StoreUnavailable: Redis does not answer.
    """
    return asyncio.run(_read(settings, run_ids))


async def _read(settings: Settings, run_ids: list[str]) -> Mapping[str, Truth]:
    store = RedisStore(settings, "history-checker")
    await store.start(_NoHints())
    try:
        found: dict[str, Truth] = {}
        for start in range(0, len(run_ids), AT_A_TIME):
            some = run_ids[start : start + AT_A_TIME]
            for state in await asyncio.gather(*(_lookup(store, run_id) for run_id in some)):
                assert state.type != UNREAD, f"run {state.run_id} could not be read: {state.message}"
                found[state.run_id] = Truth(state.type, state.name, digest(state.result), state.ended_ms)
        return found
    finally:
        await store.stop()


async def _lookup(store: RedisStore, run_id: str) -> RunState:
    answer: asyncio.Future[RunState] = asyncio.get_running_loop().create_future()
    store.lookup(run_id, answer.set_result)
    return await answer
