"""Answers that would be longer than a frame are cut to what fits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect_lite_broker import queries
from prefect_lite_broker.hub import Hub

from prefect_lite.protocol.codec import MAX_FRAME, encode_frame
from prefect_lite.protocol.messages import Answer, RunState

pytestmark = pytest.mark.anyio

WIDE = "\U0001f600"


class _Store:
    healthy = True
    counters: dict[str, int] = {}  # noqa: RUF012

    async def stats(self) -> dict[str, Any]:
        queues = [
            {"task_key": f"{WIDE * 500}{number}", "lane": "0", "length": number, "oldest_seconds": 0.1}
            for number in range(9_000)
        ]
        return {"sessions": 1, "queues": queues}

    async def dead_list(self, limit: int) -> list[RunState]:
        return [RunState(f"{n:032x}", "CRASHED", message=WIDE * 60_000) for n in range(limit)]


async def ask(what: str) -> Any:
    hub = SimpleNamespace(
        store=_Store(), broker_id="b", version="1", started_at=0.0, peers=(), workers=(), watches=()
    )
    ok, value = await queries.answer(cast(Hub, hub), "admin", what, None)
    assert ok, value
    assert len(encode_frame([Answer(1, True, value)])) <= MAX_FRAME
    return value


async def test_many_queues_are_cut_to_the_longest() -> None:
    stats = await ask("stats")
    assert stats["queues"][0]["length"] == 8_999
    assert len(stats["queues"]) + stats["queues_not_shown"] == 9_000


async def test_many_dead_runs_are_cut_to_the_newest() -> None:
    states = await ask("dead.list")
    assert 100 < len(states) < 1_000
    assert states[0]["run_id"] == f"{0:032x}"
