"""Answers that would be longer than a frame are cut to what fits."""

from __future__ import annotations

import asyncio
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
    many = 2_500
    counters: dict[str, int] = {}  # noqa: RUF012

    async def stats(self) -> dict[str, Any]:
        queues = [
            {"task_key": f"{WIDE * 500}{number}", "lane": "0", "length": number, "oldest_seconds": 0.1}
            for number in range(9_000)
        ]
        return {"sessions": 1, "queues": queues}

    async def audit_totals(self) -> dict[str, int]:
        return {"passes": 1, "repaired": 0, "runs": 9_000, "undecided": 0}

    async def sessions(self) -> list[dict[str, Any]]:
        return [
            {
                "session": f"s{number:04}",
                "opened_ms": number,
                "task_keys": [f"{WIDE * 500}{n}" for n in range(1_000)]
                if number % 100 == 0
                else ["tasks.add"],
                "info": {"name": f"worker-{number}", "note": WIDE * (50_000 if number % 100 == 1 else 1)},
                "held": 0,
            }
            for number in reversed(range(self.many))
        ]

    async def served_keys(self) -> dict[str, int]:
        return {f"{WIDE * (number % 500)}{number:04}": 1 for number in range(self.many)}

    async def dead_list(self, limit: int) -> list[RunState]:
        return [RunState(f"{n:032x}", "CRASHED", message=WIDE * 60_000) for n in range(limit)]


async def ask(what: str, arg: Any = None) -> Any:
    hub = SimpleNamespace(
        store=_Store(),
        broker_id="b",
        version="1",
        started_at=0.0,
        loop=asyncio.get_running_loop(),
        peers=(),
        workers=(),
        watches=(),
        room=SimpleNamespace(waiting=0),
    )
    ok, value = await queries.answer(cast(Hub, hub), "admin", what, arg)
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


async def test_sessions_come_in_pages() -> None:
    sessions: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        page = await ask("sessions", offset)
        assert page["sessions"]
        sessions += page["sessions"]
        offset = page["next"]
    assert [each["session"] for each in sessions] == [f"s{n:04}" for n in range(_Store.many)]
    long, plain = sessions[100], sessions[102]
    assert len(long["task_keys"]) + long["task_keys_not_shown"] == 1_000
    assert len(long["task_keys"]) > 20
    assert (plain["task_keys"], plain["task_keys_not_shown"]) == (["tasks.add"], 0)
    assert sessions[101]["info"] == {"name": "worker-101"}
    assert plain["info"] == {"name": "worker-102", "note": WIDE}
    assert await ask("sessions") == sessions[: len(await ask("sessions"))]


async def test_served_keys_come_in_pages() -> None:
    served: dict[str, int] = {}
    offset: int | None = 0
    while offset is not None:
        page = await ask("served", offset)
        assert page["served"]
        served |= page["served"]
        offset = page["next"]
    assert served == await _Store().served_keys()
    assert served.items() > (await ask("served")).items()


@pytest.mark.parametrize("arg", [-1, True, "x", [0]])
async def test_an_impossible_page(arg: Any) -> None:
    ok, value = await queries.answer(cast(Hub, SimpleNamespace(store=_Store())), "admin", "sessions", arg)
    assert (ok, value[0]) == (False, "bad_argument")
