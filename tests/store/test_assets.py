"""What runs have made of assets, in a real server: recorded, bounded, and read a page at a time."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from prefect_lite_broker import keys, store_assets
from prefect_lite_broker.asset_queries import ASSET_QUESTIONS
from prefect_lite_broker.bodies import Bodies
from prefect_lite_broker.lanes import BYTES_PER_CALL
from prefect_lite_broker.questions import Refusal
from prefect_lite_broker.store_assets import AssetCalls, KnownAsset, RunPage

from prefect_lite.protocol.kept_things import Put
from prefect_lite.protocol.recorded_assets import (
    FAILED,
    MADE,
    MAX_METADATA_BYTES,
    MAX_SOURCES_BYTES,
    AssetsWanted,
    RunOfAssets,
    RunsWanted,
    SaidOfAsset,
)
from tests.store.driver import EVERYWHERE, Driver, MakeDriver, run_id

pytestmark = pytest.mark.anyio

TABLE = "s3://bucket/table"
STRANGE = ("s3://{other}:x", "s3://a:b", "s3://sum of é ☃", "s3://}{", "s3://" + "x" * 507, "s3://*?[")


def assets(driver: Driver) -> AssetCalls:
    return AssetCalls(driver.store)


def said(
    *made: str,
    run: str = "",
    outcome: str = MADE,
    read: tuple[str, ...] = (),
    metadata: bytes = b"",
    properties: bytes = b"",
    tracked: list[str] | None = None,
    head: bytes = b"{}",
    sources: bytes = b"{}",
) -> RunOfAssets:
    return RunOfAssets(
        run or run_id(),
        outcome,
        head,
        sources,
        [SaidOfAsset(key, properties, metadata) for key in made],
        [SaidOfAsset(key, properties) for key in read],
        [*made] if tracked is None else tracked,
    )


async def page(driver: Driver, key: str = TABLE, limit: int = 10, offset: int = 0) -> RunPage:
    found = await assets(driver).runs_of(RunsWanted(key, limit, offset))
    assert found is not None
    return found


async def listed(driver: Driver, prefix: str = "", limit: int = 1_000) -> list[KnownAsset]:
    """All pages."""
    found: list[KnownAsset] = []
    after: str | None = ""
    while after is not None:
        part = await assets(driver).page(AssetsWanted(prefix, after, limit))
        assert len(part.assets) <= limit
        assert part.assets or part.following is None
        found += part.assets
        after = part.following
    return found


@EVERYWHERE
@pytest.mark.parametrize("key", STRANGE)
async def test_what_a_run_has_made_is_there(driver: Driver, key: str) -> None:
    run = run_id()
    await assets(driver).record(
        said(key, run=run, head=b'{"a":1}', sources=b'{"keys":[]}', metadata=b'{"rows":5}', properties=b"{}")
    )
    found = await page(driver, key)
    ((run_found, when, *rest),) = found.runs
    assert run_found == run
    assert rest == [MADE, b'{"a":1}', b'{"keys":[]}', b'{"rows":5}']
    assert found.asset == KnownAsset(key, b"{}", 1, when, 0, 0, run, MADE, b'{"a":1}')
    assert found.following is None
    assert await listed(driver) == [found.asset]


@EVERYWHERE
async def test_of_an_asset_that_nobody_has_named_nothing_is_known(driver: Driver) -> None:
    assert await assets(driver).runs_of(RunsWanted(TABLE, 10, 0)) is None
    assert await listed(driver) == []


async def test_a_question_that_is_repeated_changes_nothing(driver: Driver) -> None:
    first, second = said(TABLE), said(TABLE)
    await assets(driver).record(first)
    await driver.clock_moves(0.002)
    await assets(driver).record(second)
    before = await page(driver)
    await driver.clock_moves(0.002)
    await assets(driver).record(first)  # its answer was lost, and others were faster
    assert await page(driver) == before
    assert [run.run_id for run in before.runs] == [second.run_id, first.run_id]
    assert before.asset.total == 2


async def test_a_run_that_is_executed_again_takes_the_place_of_its_first_record(driver: Driver) -> None:
    """Its worker was lost after it had recorded, and another one has it."""
    lost = said(TABLE, outcome=FAILED)
    await assets(driver).record(lost)
    await assets(driver).record(lost._replace(outcome=MADE))
    found = await page(driver)
    assert [run.outcome for run in found.runs] == [MADE]
    assert found.asset.total == 1
    assert found.asset.outcome == MADE


async def test_failures_are_told_apart(driver: Driver) -> None:
    await assets(driver).record(said(TABLE, head=b'{"n":1}'))
    await driver.clock_moves(0.002)
    failed = said(TABLE, outcome=FAILED, head=b'{"n":2}')
    await assets(driver).record(failed)
    asset = (await page(driver)).asset
    assert 0 < asset.made_ms < asset.failed_ms
    assert (asset.run_id, asset.outcome, asset.head) == (failed.run_id, FAILED, b'{"n":2}')


async def test_properties_stay_until_others_are_given(driver: Driver) -> None:
    for properties, wanted in ((b"", b""), (b'{"name":"a"}',) * 2, (b"", b'{"name":"a"}'), (b"{}", b"{}")):
        await assets(driver).record(said(TABLE, properties=properties))
        assert (await page(driver)).asset.properties == wanted


async def test_what_was_only_read_is_known_too(driver: Driver) -> None:
    await assets(driver).record(said(TABLE, read=("s3://source",), properties=b'{"name":"s"}'))
    found = await page(driver, "s3://source")
    assert found.runs == []
    assert found.asset.read_ms > 0
    assert (found.asset.total, found.asset.run_id, found.asset.properties) == (0, "", b'{"name":"s"}')
    assert [asset.key for asset in await listed(driver)] == [TABLE, "s3://source"]


async def test_what_a_run_hands_on_is_known_for_a_week(driver: Driver) -> None:
    made = said(TABLE, "s3://other", tracked=[TABLE, "s3://other"])
    only_read = said(outcome="", tracked=["s3://source"])
    nothing = run_id()
    await assets(driver).record(made)
    await assets(driver).record(only_read)
    found = await assets(driver).of_runs([made.run_id, nothing, only_read.run_id])
    assert found == {made.run_id: [TABLE, "s3://other"], only_read.run_id: ["s3://source"]}
    left = driver.client.pttl(f"{driver.prefix}made:{made.run_id}")
    assert store_assets.MADE_MS - 60_000 < left <= store_assets.MADE_MS  # type: ignore[operator]
    assert "s3://source" not in [asset.key for asset in await listed(driver)]


async def test_the_newest_runs_are_kept(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_assets, "RUNS_KEPT", 3)
    runs = [said(TABLE) for _ in range(5)]
    for run in runs:
        await assets(driver).record(run)
        await driver.clock_moves(0.002)
    found = await page(driver)
    assert [run.run_id for run in found.runs] == [run.run_id for run in runs[:1:-1]]
    assert found.asset.total == 5
    assert driver.client.hlen(f"{driver.prefix}asset_runs:{TABLE}") == 3


async def test_the_assets_heard_of_last_are_kept(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_assets, "ASSETS_KEPT", 3)
    for key in ("s3://d", "s3://a", "s3://c", "s3://d", "s3://b"):
        await assets(driver).record(said(key))
        await driver.clock_moves(0.002)
    assert [asset.key for asset in await listed(driver)] == ["s3://b", "s3://c", "s3://d"]
    assert not list(driver.client.scan_iter(match=f"{driver.prefix}asset*:s3://a"))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_runs_come_in_pages(driver: Driver, limit: int) -> None:
    runs = [said(TABLE) for _ in range(5)]
    for run in runs:
        await assets(driver).record(run)
        await driver.clock_moves(0.002)
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        part = await page(driver, limit=limit, offset=offset)
        seen += [run.run_id for run in part.runs]
        offset = part.following
    assert seen == [run.run_id for run in runs[::-1]]


async def test_a_page_of_large_runs_fits_a_frame(driver: Driver) -> None:
    large: dict[str, Any] = {
        "metadata": b"m" * MAX_METADATA_BYTES,
        "sources": b"s" * MAX_SOURCES_BYTES,
        "head": b"h" * 16_384,
    }
    for _ in range(5):
        await assets(driver).record(said(TABLE, **large))
    sizes: list[int] = []
    offset: int | None = 0
    while offset is not None:
        part = await page(driver, limit=100, offset=offset)
        sizes.append(len(part.runs))
        assert sum(len(run.head + run.sources + run.metadata) for run in part.runs) < 400_000
        offset = part.following
    assert sum(sizes) == 5
    assert len(sizes) > 1


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("limit", [1, 2, 7, 1_000])
async def test_assets_are_listed_in_order_over_all_shards(
    make_driver: MakeDriver, shards: int, limit: int
) -> None:
    driver = await make_driver(shards=shards)
    names = [f"s3://{bucket}/{number}" for bucket in ("a", "b", "é") for number in range(6)]
    for name in names:
        await assets(driver).record(said(name))
    assert [asset.key for asset in await listed(driver, limit=limit)] == sorted(names)
    for prefix in ("s3://a/", "s3://b", "s3://é/", "s3://b/5", "s3://c", "s"):
        wanted = sorted(name for name in names if name.startswith(prefix))
        assert [asset.key for asset in await listed(driver, prefix, limit)] == wanted
    if shards > 1:
        assert len({keys.shard_of_key(name, shards) for name in names}) == shards


async def test_a_page_of_assets_with_much_to_say_fits_a_frame(driver: Driver) -> None:
    properties = json.dumps({"description": "d" * 15_000}).encode()
    names = [f"s3://{number:02}" for number in range(40)]
    for name in names:
        await assets(driver).record(said(name, properties=properties))
    part = await assets(driver).page(AssetsWanted("", "", 1_000))
    assert 1 < len(part.assets) < len(names)
    assert sum(len(asset.properties) for asset in part.assets) <= store_assets.PAGE_BYTES
    assert [asset.key for asset in await listed(driver)] == names


async def test_the_order_of_keys_is_that_of_their_bytes_in_any_locale(driver: Driver) -> None:
    """A server compares texts in scripts by its locale, where "Z" may come after "a"."""
    for key in ("Zb", "a1", "a2", "b"):
        await assets(driver).record(said(key))
    for after, wanted in (("", ["a1", "a2"]), ("Z", ["a1", "a2"]), ("a1", ["a2"]), ("a2", []), ("b", [])):
        found = await assets(driver).page(AssetsWanted("a", after, 10))
        assert [asset.key for asset in found.assets] == wanted, after


async def test_a_question_about_many_assets_is_written_in_parts(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sources of a run are kept with each of its assets: 64 KiB asked are 16 MiB kept."""
    lane, largest = driver.store.backlogs[0].keep, 0
    add = lane.add

    def watched(command: tuple[Any, ...], weight: int = 0) -> Any:
        nonlocal largest
        future = add(command, weight)
        largest = max(largest, lane.bytes)
        return future

    monkeypatch.setattr(lane, "add", watched)
    names = [f"s3://{number:03}" for number in range(256)]
    await assets(driver).record(said(*names, sources=b"s" * MAX_SOURCES_BYTES, tracked=[]))
    assert len(await listed(driver)) == 256
    assert MAX_SOURCES_BYTES <= largest <= BYTES_PER_CALL + 2 * MAX_SOURCES_BYTES


async def test_of_many_runs_that_hand_on_much_only_a_part_is_read_at_a_time(driver: Driver) -> None:
    tracked = [f"s3://{'x' * 490}{n:03}" for n in range(128)]
    runs = [run_id() for _ in range(100)]
    for run in runs:
        await assets(driver).record(said(run=run, outcome="", tracked=tracked))
    before = driver.client.info("stats")["total_net_output_bytes"]  # type: ignore[index]
    answer = await asked(driver, "asset.of_runs", runs)
    read = driver.client.info("stats")["total_net_output_bytes"] - before  # type: ignore[index]
    assert 1 < len(answer["assets"]) < len(answer["left"])
    assert {*answer["assets"], *answer["left"]} == {*runs}
    assert read < 1_500_000


# -- questions ----------------------------------------------------------------------------------------


async def asked(driver: Driver, what: str, arg: Any) -> Any:
    """The answer of a broker that has this store."""
    hub: Any = SimpleNamespace(store=driver.store, bodies=Bodies(1 << 20, 1.0, lambda _more: None))
    return await ASSET_QUESTIONS[what].ask(hub, arg)


async def test_questions_are_answered_in_plain_data(driver: Driver) -> None:
    run, source = run_id(), run_id()
    arg = [run, MADE, b"{}", b"{}", [[TABLE, b"", b"{}"]], [["s3://source", b"", b""]], [TABLE]]
    assert await asked(driver, "asset.record", arg) is True
    page = await asked(driver, "asset.list", ["", "", 1])
    assert (page["assets"][0][0], page["next"]) == (TABLE, TABLE)
    page = await asked(driver, "asset.list", ["", TABLE, 1])
    assert (page["assets"][0][0], page["next"]) == ("s3://source", None)
    page = await asked(driver, "asset.read", [TABLE, 10, 0])
    assert page["asset"][0] == TABLE
    assert [found[0] for found in page["runs"]] == [run]
    assert await asked(driver, "asset.read", ["s3://nothing", 10, 0]) is None
    answer = await asked(driver, "asset.of_runs", [run, source])
    assert answer == {"assets": {run: [TABLE]}, "info": {}, "left": []}


async def test_of_runs_that_have_noted_nothing_it_is_told_what_they_belong_to(driver: Driver) -> None:
    (told,) = await driver.accepted(info=b"i" * 100)
    (silent,) = await driver.accepted()
    answer = await asked(driver, "asset.of_runs", [told, silent, run_id()])
    assert answer == {"assets": {}, "info": {told: b"i" * 100}, "left": []}


async def test_an_answer_about_runs_fits_a_frame(driver: Driver) -> None:
    made = [said(tracked=[f"s3://{'x' * 490}{n:03}" for n in range(100)]) for _ in range(5)]
    for one in made:
        await assets(driver).record(one)
    runs = await driver.accepted(6, info=b"i" * 32_000)
    left = [one.run_id for one in made] + runs
    found: list[str] = []
    answers = 0
    while left:
        answer = await asked(driver, "asset.of_runs", left)
        found += [*answer["assets"], *answer["info"]]
        assert answer["assets"] or answer["info"]
        left = answer["left"]
        answers += 1
    assert sorted(found) == sorted([one.run_id for one in made] + runs)
    assert answers > 1


GOOD = [run_id(), MADE, b"", b"", [[TABLE, b"", b""]], [], [TABLE]]
WRONG: list[tuple[str, Any]] = [
    ("asset.record", None),
    ("asset.record", GOOD[:-1]),
    ("asset.record", ["x", *GOOD[1:]]),
    ("asset.record", [5, *GOOD[1:]]),
    ("asset.record", [GOOD[0], "done", *GOOD[2:]]),
    ("asset.record", [*GOOD[:2], "text", *GOOD[3:]]),
    ("asset.record", [*GOOD[:2], b"h" * 16_385, *GOOD[3:]]),
    ("asset.record", [*GOOD[:3], b"s" * (MAX_SOURCES_BYTES + 1), *GOOD[4:]]),
    ("asset.record", [*GOOD[:4], [[TABLE, b"", b"m" * (MAX_METADATA_BYTES + 1)]], [], []]),
    ("asset.record", [*GOOD[:4], [[TABLE, b"p" * 16_385, b""]], [], []]),
    ("asset.record", [*GOOD[:4], [[TABLE, b""]], [], []]),
    ("asset.record", [*GOOD[:4], [["", b"", b""]], [], []]),
    ("asset.record", [*GOOD[:4], [["a\nb", b"", b""]], [], []]),
    ("asset.record", [*GOOD[:4], [[TABLE, b"", b""]] * 257, [], []]),
    ("asset.record", [*GOOD[:4], [], [], ["x" * 513]]),
    ("asset.record", [*GOOD[:4], [], [], ["x" * 500] * 200]),
    ("asset.of_runs", "x"),
    ("asset.of_runs", ["x"]),
    ("asset.of_runs", [run_id()] * 257),
    ("asset.list", None),
    ("asset.list", ["", "", 0]),
    ("asset.list", ["", "", True]),
    ("asset.list", ["", 5, 1]),
    ("asset.read", ["", 1, 0]),
    ("asset.read", [TABLE, 1, -1]),
    ("asset.read", [TABLE, 1_001, 0]),
]


@pytest.mark.parametrize(("what", "arg"), WRONG)
async def test_what_makes_no_sense_is_refused(driver: Driver, what: str, arg: Any) -> None:
    with pytest.raises(Refusal) as refused:
        await asked(driver, what, arg)
    assert refused.value.code == "bad_argument"
    assert refused.value.text.startswith("This can't be asked: ")
    assert await listed(driver) == []


async def test_what_waits_to_be_recorded_is_bounded_with_the_bodies_of_questions(driver: Driver) -> None:
    bodies = Bodies(MAX_SOURCES_BYTES, 1.0, lambda _more: None)
    hub: Any = SimpleNamespace(store=driver.store, bodies=bodies)
    large = [*GOOD[:3], b"s" * MAX_SOURCES_BYTES, *GOOD[4:]]
    record = ASSET_QUESTIONS["asset.record"].ask
    first = asyncio.ensure_future(record(hub, large))
    await asyncio.sleep(0)
    assert bodies.asked > MAX_SOURCES_BYTES
    with pytest.raises(Refusal) as refused:
        await record(hub, large)
    assert refused.value.code == "busy"
    assert await first is True
    assert bodies.asked == 0
    assert await record(hub, large) is True


async def test_a_server_without_memory_refuses_to_record_and_goes_on_with_all_else(driver: Driver) -> None:
    await driver.store.keep_put(Put("a", 60.0, ""), b"body")
    driver.client.config_set("maxmemory", 1)
    try:
        pipelines = driver.store.counters["pipelines"]
        for record in (
            GOOD,
            [*GOOD[:4], [], [[TABLE, b"", b""]], []],
            [*GOOD[:1], "", *GOOD[2:4], [], [], [TABLE]],
        ):
            with pytest.raises(Refusal, match="no memory to record this") as refused:
                await asked(driver, "asset.record", record)
            assert refused.value.code == "full"
        assert driver.store.counters["pipelines"] - pipelines <= 3, "one was repeated"
        assert await driver.store.keep_has("a")
    finally:
        driver.client.config_set("maxmemory", 0)
