"""Submits and a claim of one turn are one script call, which leases the runs as it stores them."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import pytest
from prefect_lite_broker.write_through import ThroughLane

from prefect_lite.protocol.messages import Submit
from tests.store.driver import EVERYWHERE, KEY, Driver, MakeDriver, submission
from tests.store.test_backlog import Shard
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each such call was answered: all of it at once, some of it, or the usual way."""
    words: list[str] = []
    replies = ThroughLane.replies

    def note(lane: ThroughLane, ops: Any, reply: Any) -> Any:
        words.append("all" if reply == 1 else "some" if isinstance(reply[1], int) else "usual")
        return replies(lane, ops, reply)

    monkeypatch.setattr(ThroughLane, "replies", note)
    return words


def unpacked(options: bytes | None) -> Any:
    return options and msgpack.unpackb(options)


def statuses(replies: list[Any]) -> list[str]:
    return [reply.status for reply in replies]


async def test_what_nobody_here_serves_is_not_in_the_way(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    foreign = [submission(key=f"tasks.other{number}") for number in range(3)]
    for msg in foreign:
        await driver.submit(msg)
    _, claimed = await driver.write_through([submission()])
    assert answers == ["all"]
    assert len(claimed.runs) == 1
    assert claimed.drained
    # But so many that they are not all looked at are
    for number in range(70):
        await driver.submit(submission(key=f"tasks.more{number}"))
    _, claimed = await driver.write_through([submission()])
    assert answers == ["all", "usual"]
    assert len(claimed.runs) == 1


@EVERYWHERE
async def test_what_a_worker_waits_for_never_stands_in_a_list(driver: Driver, answers: list[str]) -> None:
    # Given a worker with credit, and nothing queued
    await driver.worker()
    # When two runs are submitted
    msgs = [submission(body=b"one", name="label"), submission(body=b"two")]
    stored, claimed = await driver.write_through(msgs, limit=3)
    # Then they are its own at once, and nothing but their records was written
    assert answers == ["all"]
    assert statuses(stored) == ["accepted"] * 2
    assert [(run.run_id, run.body) for run in claimed.runs] == [(msg.run_id, msg.body) for msg in msgs]
    assert (claimed.status, claimed.drained, claimed.again_seconds) == ("ok", True, -1.0)
    assert not driver.client.exists(driver.prefix + "open", f"{driver.prefix}ready:{KEY}:0")
    assert await driver.types(msg.run_id for msg in msgs) == ["PENDING"] * 2
    # And they are like any other leased runs
    run, other = claimed.runs
    assert (await driver.store.renew("w1", 1, [[run.run_id, run.token], ["f" * 32, "x"]])).revoked == [
        ["f" * 32, "x"]
    ]
    driver.started(run)
    assert (await driver.finish(run)).status == "ok"
    assert (await driver.release(other)).status == "ok"
    again = await driver.claim()
    assert [(run.run_id, run.body) for run in again] == [(other.run_id, b"two")]
    assert driver.client.hget(f"{driver.prefix}r:{msgs[0].run_id}", "n") == b"label"


async def test_more_runs_than_credit(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    msgs = [submission(body=str(i).encode()) for i in range(5)]
    stored, claimed = await driver.write_through(msgs, limit=2)
    assert answers == ["some"]
    assert statuses(stored) == ["accepted"] * 5
    assert [run.run_id for run in claimed.runs] == [msg.run_id for msg in msgs[:2]]
    assert not claimed.drained
    assert await driver.types(msg.run_id for msg in msgs) == ["PENDING"] * 2 + ["SCHEDULED"] * 3
    assert [run.run_id for run in await driver.claim()] == [msg.run_id for msg in msgs[2:]]


async def test_as_many_runs_as_credit(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    _, claimed = await driver.write_through([submission(), submission()], limit=2)
    assert answers == ["all"]
    assert claimed.drained, "nothing else was ready: a worker of one slot must not ask after each run"


async def test_what_stands_before_them_is_taken_first(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    first, second = await driver.accepted(2)
    msg = submission()
    _, claimed = await driver.write_through([msg], limit=2)
    assert answers == ["usual"]
    assert [run.run_id for run in claimed.runs] == [first, second]
    assert [run.run_id for run in await driver.claim()] == [msg.run_id]


async def test_priorities_hold_among_those_submitted_together(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    low, high = submission(), submission(priority=9)
    _, claimed = await driver.write_through([low, high], limit=1)
    assert answers == ["usual"]
    assert [run.run_id for run in claimed.runs] == [high.run_id]
    # One priority alone may be any.
    await driver.claim()
    _, claimed = await driver.write_through([submission(priority=5)], limit=1)
    assert answers[1:] == ["all"]


@pytest.mark.parametrize(
    "fields",
    [
        {"countdown_seconds": 99.0},
        {"expires_seconds": 99.0},
        {"idempotency_key": "k"},
        {"body": b"x" * 9000},
        {"expires_seconds": 99.0, "info": b"i"},
    ],
)
async def test_runs_with_options_that_have_a_say_go_the_usual_way(
    driver: Driver, answers: list[str], fields: dict[str, Any]
) -> None:
    await driver.worker()
    msg = submission(**fields)
    stored, claimed = await driver.write_through([msg])
    assert answers == ["usual"]
    assert statuses(stored) == ["accepted"]
    assert [run.body for run in claimed.runs] == ([] if "countdown_seconds" in fields else [msg.body])


@EVERYWHERE
@pytest.mark.parametrize(
    "fields",
    [
        {"result_ttl_seconds": 9999.0},
        {"max_lost": 0, "name": "label"},
        {"tags": ["t"]},
        {"info": bytes(range(256)), "name": "label"},
        {"info": b"i", "tags": ["t"], "max_lost": 2, "result_ttl_seconds": 9999.0},
    ],
)
async def test_what_is_only_written_down_costs_no_list(
    driver: Driver, answers: list[str], fields: dict[str, Any]
) -> None:
    """Runs that belong to a flow or a task, or have tags, are as quick as plain ones."""
    await driver.worker()
    msgs = [submission(**fields), submission(), submission(**fields)]
    stored, claimed = await driver.write_through(msgs)
    assert answers == ["all"]
    assert statuses(stored) == ["accepted"] * 3
    assert [run.run_id for run in claimed.runs] == [msg.run_id for msg in msgs]
    # The records are those that the usual way makes
    twin = submission(**fields)
    await driver.submit(twin)
    await driver.claim()

    def kept(msg: Submit) -> list[Any]:
        found: Any = driver.client.hmget(f"{driver.prefix}r:{msg.run_id}", "n", "op", "in", "fp")
        return [*found[:1], unpacked(found[1]), *found[2:]]

    assert [kept(msg) for msg in msgs] == [kept(twin), [None, None, None, b"f" * 16], kept(twin)]
    # And they end like any other
    for run in claimed.runs:
        assert (await driver.finish(run)).status == "ok"


async def test_more_runs_with_tags_than_credit(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    msgs = [submission(info=bytes([i]), tags=["t"]) for i in range(4)]
    _, claimed = await driver.write_through(msgs, limit=2)
    assert answers == ["some"]
    assert [run.run_id for run in claimed.runs] == [msg.run_id for msg in msgs[:2]]
    for msg in msgs:
        assert driver.client.hget(f"{driver.prefix}r:{msg.run_id}", "in") == msg.info


async def test_a_run_that_others_wait_for_already_goes_the_usual_way(
    driver: Driver, answers: list[str]
) -> None:
    await driver.worker()
    parent = submission()
    await driver.submit(submission(parents=(parent.run_id,)))
    await driver.store.watch_parents([(parent.run_id, "c" * 32)])
    _, claimed = await driver.write_through([parent])
    assert answers == ["usual"]
    assert len(claimed.runs) == 1
    assert b"op" in driver.client.hgetall(f"{driver.prefix}r:{parent.run_id}")  # type: ignore[operator]


async def test_the_same_run_twice_in_one_turn(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    msg = submission()
    stored, claimed = await driver.write_through([msg, msg])
    assert answers == ["usual"]
    assert statuses(stored) == ["accepted", "exists"]
    assert [run.run_id for run in claimed.runs] == [msg.run_id]


async def test_a_run_that_is_stored_already(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    msg = submission()
    _, claimed = await driver.write_through([msg])
    stored, again = await driver.write_through([msg])
    assert answers == ["all", "usual"]
    assert statuses(stored) == ["exists"]
    assert (len(claimed.runs), again.runs) == (1, [])


@pytest.mark.parametrize(("session", "epoch", "status"), [("w1", 7, "moved"), ("w2", 1, "unknown")])
async def test_a_session_that_is_elsewhere_gets_nothing_and_the_submit_counts(
    driver: Driver, answers: list[str], session: str, epoch: int, status: str
) -> None:
    await driver.worker()
    msg = submission()
    stored, claimed = await driver.write_through([msg], session, epoch=epoch)
    assert answers == ["usual"]
    assert (statuses(stored), claimed.status, claimed.runs) == (["accepted"], status, [])
    assert [run.run_id for run in await driver.claim()] == [msg.run_id]


async def test_a_session_that_serves_something_else(driver: Driver, answers: list[str]) -> None:
    await driver.worker("w1", "tasks.other")
    stored, claimed = await driver.write_through([submission()])
    assert answers == ["usual"]
    assert (statuses(stored), claimed.runs, claimed.drained) == (["accepted"], [], True)


async def test_more_than_a_queue_may_hold(make_driver: MakeDriver, answers: list[str]) -> None:
    driver = await make_driver(max_queue_length=2)
    await driver.worker()
    stored, claimed = await driver.write_through([submission() for _ in range(3)], limit=1)
    assert answers == ["usual"]
    assert statuses(stored) == ["accepted", "accepted", "full"]
    assert len(claimed.runs) == 1


async def test_other_brokers_are_told_of_what_is_left_alone(make_driver: MakeDriver) -> None:
    one, two = await make_driver(), await make_driver(broker_id="broker-2")
    await until(lambda: all(backlog.submit.sender == "broker-1" for backlog in one.store.backlogs))
    await one.worker()
    await one.write_through([submission()])
    await one.write_through([submission()])
    await one.write_through([submission(), submission()], limit=1)
    await until(lambda: two.hints.ready)
    assert two.hints.ready == [KEY]


async def test_while_memory_is_full_the_claim_is_answered(driver: Driver, answers: list[str]) -> None:
    await driver.worker()
    (waiting,) = await driver.accepted()
    driver.client.config_set("maxmemory", 1)
    replies: list[Any] = []
    try:
        driver.store.submit(submission(), replies.append)
        claimed = await driver.claim()
        assert [run.run_id for run in claimed] == [waiting]
        assert replies == []
    finally:
        driver.client.config_set("maxmemory", 0)
    await until(lambda: replies)
    assert statuses(replies) == ["accepted"]
    assert answers == []


async def test_a_run_that_is_stored_already_is_not_new_after_a_refusal_for_memory(driver: Driver) -> None:
    """The refused call did nothing, so the record is not its own: the run may have ended long ago."""
    await driver.worker()
    msg = submission()
    await driver.write_through([msg])
    driver.client.config_set("maxmemory", 1)
    replies: list[Any] = []
    try:
        driver.store.submit(msg, replies.append)
        await driver.claim()
    finally:
        driver.client.config_set("maxmemory", 0)
    await until(lambda: replies)
    assert statuses(replies) == ["exists"]


async def test_a_key_of_a_foreign_type_harms_one_of_the_two(driver: Driver) -> None:
    await driver.worker()
    driver.client.set(f"{driver.prefix}ready:{KEY}:0", "foreign")
    driver.client.zadd(driver.prefix + "open", {f"{KEY}:9": 1})
    stored, claimed = await driver.write_through([submission()])
    assert statuses(stored) == ["unavailable"]
    assert claimed.status == "ok"
    driver.client.delete(f"{driver.prefix}ready:{KEY}:0", driver.prefix + "open")
    for key in driver.client.scan_iter(match=f"{driver.prefix}b:*"):
        driver.client.delete(key)


# -- the backlog, without a server --------------------------------------------------------------------


def flying(shard: Shard, *msgs: Submit) -> None:
    """These and a claim are in flight."""
    shard.submit(*msgs)
    shard.claim()
    batches = shard.backlog.collect()
    assert [batch.lane.script for batch in batches] == ["through"]
    shard.backlog.in_flight += batches


def test_a_call_without_an_answer_is_made_again_in_two_parts() -> None:
    shard = Shard()
    flying(shard, submission(), submission())
    shard.backlog.repeat(shard.backlog.in_flight)
    shard.backlog.in_flight.clear()
    shard.submit(submission())
    batches = shard.backlog.collect()
    assert [(batch.lane.script, len(batch.ops), batch.repeated) for batch in batches] == [
        ("submit", 2, True),
        ("claim", 1, True),
        ("submit", 1, False),
    ]


def test_the_second_claim_of_a_turn_and_submits_of_several_calls_go_alone() -> None:
    shard = Shard()
    shard.submit(submission())
    shard.claim()
    shard.claim()
    assert shard.scripts() == ["through", "claim"]
    shard.submit(*(submission() for _ in range(101)))
    shard.claim()
    assert shard.scripts() == ["submit", "submit", "claim"]


def test_a_submit_that_waits_too_long_is_refused_and_the_claim_is_kept() -> None:
    shard = Shard()
    msgs = [submission(), submission()]
    flying(shard, *msgs)
    (batch,) = shard.backlog.in_flight
    batch.ops[0] = (*batch.ops[0][:2], time.monotonic() - 10)
    shard.backlog.sweep("no reply")
    assert statuses(shard.submits) == ["unavailable"]
    shard.backlog.in_flight.clear()
    shard.backlog.settle(batch, 1)
    assert statuses(shard.submits) == ["unavailable", "accepted"]
    assert [run.run_id for run in shard.claims[0].runs] == [msg.run_id for msg in msgs]


def test_a_store_that_stops_refuses_the_submits_alone() -> None:
    shard = Shard()
    flying(shard, submission())
    shard.backlog.fail_all("stopped")
    assert (statuses(shard.submits), shard.claims) == (["unavailable"], [])
    assert len(shard.backlog) == 0


def test_an_answer_that_cannot_be_handed_on_harms_no_other() -> None:
    shard = Shard()

    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    shard.backlog.submit.pending.append((submission(), broken, time.monotonic()))
    flying(shard, submission())
    shard.backlog.settle(shard.backlog.in_flight.popleft(), [2, [b"m"]])
    assert statuses(shard.submits) == ["unavailable"]
    assert statuses(shard.claims) == ["moved"]


def test_tokens_are_numbered_as_the_script_numbers_them() -> None:
    shard = Shard()
    flying(shard, submission(), submission())
    shard.backlog.settle(shard.backlog.in_flight.popleft(), [[b"f"], 1])
    assert [run.token for run in shard.claims[0].runs] == ["base.1"]
    assert statuses(shard.submits) == ["accepted", "full"]
