"""Lists of runs come in pages that fit an ANSWER, and impossible questions are refused."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect_lite_broker import queries, run_queries
from prefect_lite_broker.hub import Hub
from prefect_lite_broker.records import RunRecord, read_record
from prefect_lite_broker.run_queries import fields_of, page_of_runs
from prefect_lite_broker.store import RunFilter, Slice, Store

from prefect_lite.protocol.codec import MAX_FRAME, encode_frame
from prefect_lite.protocol.messages import Answer, RunState

pytestmark = pytest.mark.anyio

WIDE = "\U0001f600"


def record(number: int, **fields: Any) -> RunRecord:
    state = RunState(f"{number:032x}", "COMPLETED", "Completed", task_key="tasks.add", submitted_ms=1)
    made = RunRecord(state, "", "", [], b"", [["COMPLETED", "Completed", 1, 0, ""]])
    return made._replace(**fields)


class _Store:
    """Some shards of slices, each a list of records."""

    def __init__(self, *shards: list[list[RunRecord]]) -> None:
        self.slices = shards
        self.shards = len(shards)
        self.asked: list[tuple[int, str]] = []
        self.wanted = RunFilter()

    async def scan_runs(self, shard: int, position: str, wanted: RunFilter) -> Slice:
        self.asked.append((shard, position))
        self.wanted = wanted
        at = int(position)
        following = str(at + 1) if at + 1 < len(self.slices[shard]) else None
        return Slice(self.slices[shard][at], following)

    async def read_runs(self, run_ids: list[str]) -> list[RunRecord]:
        return []


async def everything(store: _Store, clock: Any = lambda: 0.0) -> tuple[list[str], list[str], int]:
    """Runs told, runs only named, pages."""
    told: list[str] = []
    named: list[str] = []
    position: str | None = ""
    for pages in count(1):
        page = await page_of_runs(cast(Store, store), {"position": position}, clock)
        assert len(encode_frame([Answer(1, True, page)])) <= MAX_FRAME
        told += [run["run_id"] for run in page["runs"]]
        named += page["ids"]
        position = page["next"]
        if position is None:
            return told, named, pages
    raise AssertionError


async def test_a_short_list_is_one_page() -> None:
    store = _Store([[record(1)], [], [record(2)]], [[record(3)]], [[]])
    told, named, pages = await everything(store)
    assert ([int(run, 16) for run in told], named, pages) == ([1, 2, 3], [], 1)
    assert store.asked == [(0, "0"), (0, "1"), (0, "2"), (1, "0"), (2, "0")]


async def test_a_long_list_has_pages_that_fit() -> None:
    numbers = count()
    shards = [[[record(next(numbers)) for _ in range(100)] for _ in range(10)] for _ in range(3)]
    told, named, pages = await everything(_Store(*shards))
    assert sorted(told + named) == [f"{number:032x}" for number in range(3_000)]
    assert pages > 5
    assert not named


async def test_what_is_too_large_for_a_list_is_named() -> None:
    large = [record(n, info=b"x" * 32_000, tags=[WIDE * 256] * 64) for n in range(200)]
    told, named, _ = await everything(_Store([large]))
    assert len(told) + len(named) == 200
    assert len(named) > 150


async def test_a_page_ends_after_some_time() -> None:
    """A namespace with much else in it must not keep the asker waiting, nor the broker at it for long."""
    ticks = count()
    store = _Store([[] for _ in range(100)])
    _, _, pages = await everything(store, lambda: next(ticks) * run_queries.PAGE_SECONDS / 10)
    assert 5 < pages < 50
    assert len(store.asked) == 100


async def test_what_is_asked_for() -> None:
    store = _Store([[]])
    asked = {"task_key": "a", "states": ["FAILED", "TimedOut"], "tags": ["t"], "since_ms": 5, "until_ms": 6}
    await page_of_runs(cast(Store, store), asked)
    assert store.wanted == RunFilter("a", frozenset({"FAILED", "TimedOut"}), frozenset({"t"}), 5, 6)
    assert (await page_of_runs(cast(Store, store), None))["next"] is None
    assert store.wanted == RunFilter()


def test_states_that_may_fit() -> None:
    assert RunFilter().letters == ""
    assert sorted(RunFilter(states=frozenset({"SCHEDULED", "FAILED"})).letters) == sorted("BDRf")
    assert RunFilter(states=frozenset({"FAILED", "TimedOut"})).letters == "", "a name may be that of any"


@pytest.mark.parametrize(
    "asked",
    [
        [], 5, "x", {"what": 1}, {"position": 5}, {"position": "0"}, {"position": "1:0"}, {"position": "0:x"},
        {"position": "0:²"}, {"position": f"0:{1 << 64}"}, {"position": "-1:0"}, {"task_key": "k" * 513},
        {"states": "FAILED"}, {"states": [5]}, {"states": ["s"] * 65}, {"tags": ["t" * 513]}, {"tags": None},
        {"since_ms": -2}, {"since_ms": True}, {"until_ms": 1.5}, {"until_ms": 1 << 53},
    ],
)  # fmt: skip
async def test_impossible_questions(asked: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        await page_of_runs(cast(Store, _Store([[]])), asked)
    hub = cast(Hub, SimpleNamespace(store=_Store([[]])))
    ok, value = await queries.answer(hub, "client", "runs", asked)
    assert (ok, value[0]) == (False, "bad_argument")


async def test_clients_may_ask() -> None:
    hub = cast(Hub, SimpleNamespace(store=_Store([[record(1)]])))
    assert await queries.answer(hub, "client", "runs", None) == (
        True,
        {"runs": [fields_of(record(1))], "ids": [], "next": None},
    )
    assert await queries.answer(hub, "client", "record", "0" * 32) == (True, None)
    assert (await queries.answer(hub, "client", "record", "x"))[1][0] == "bad_run_id"


def test_a_record_is_told_without_its_result() -> None:
    fields = fields_of(record(1, label="Add", run_name="add-1", tags=["t"], info=b"i"))
    assert "result" not in fields
    assert (fields["label"], fields["run_name"], fields["tags"], fields["info"]) == (
        "Add",
        "add-1",
        ["t"],
        b"i",
    )
    assert fields["states"] == [["COMPLETED", "Completed", 1, 0, ""]]


def test_a_record_of_which_little_is_known() -> None:
    made = read_record("0" * 32, [b"R", b"1000:tasks.add:0", *[None] * 14])
    assert made.states == [["SCHEDULED", "Scheduled", 1000, 0, ""]]
    assert made[1:5] == ("", "", [], b"")
