"""The audit repairs and counts what was lost or planted, and never touches what is as it should be."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import pytest
from prefect_lite_broker.maintenance import Audit
from prefect_lite_broker.store import ClaimedRun, Repair

from prefect_lite.exceptions import StoreUnavailable
from tests.store.driver import EVERYWHERE, KEY, Driver, MakeDriver, submission
from tests.tools.consistency import assert_consistent, full_pass
from tests.tools.waiting import until

pytestmark = [pytest.mark.anyio, EVERYWHERE]


class Scene(NamedTuple):
    """A shard with a run in every state."""

    driver: Driver
    ready: str
    delayed: str
    expiring: str
    leased: ClaimedRun
    cancelling: ClaimedRun
    dead: str
    ended: str

    def key(self, name: str) -> str:
        return self.driver.prefix + name


@pytest.fixture
async def scene(make_driver: MakeDriver) -> Scene:
    driver = await make_driver(max_lost=0, lease_seconds=60)
    (dead,) = await driver.accepted()
    await driver.worker("w0")
    assert len(await driver.claim("w0")) == 1
    await driver.tick()
    driver.end_lease("w0")
    await driver.reap()
    await driver.accepted(3)
    await driver.worker()
    leased, cancelling, done = await driver.claim()
    await driver.finish(done)
    await driver.cancel(cancelling.run_id)
    (ready,) = await driver.accepted()
    (delayed,) = await driver.accepted(countdown_seconds=3600)
    (expiring,) = await driver.accepted(key="other", expires_seconds=7200)
    return Scene(driver, ready, delayed, expiring, leased, cancelling, dead, done.run_id)


def assert_scene_is_consistent(scene: Scene) -> None:
    assert assert_consistent(scene.driver.client, scene.driver.store.settings.namespace) == 7


async def test_a_shard_with_a_run_in_every_state_is_left_alone(scene: Scene) -> None:
    assert_scene_is_consistent(scene)
    before = scene.driver.audit()
    assert sorted(before.values()) == list("DKLRRch")
    assert_scene_is_consistent(scene)


def drop_from_ready(scene: Scene) -> str:
    scene.driver.client.lrem(scene.key(f"ready:{KEY}:0"), 0, scene.ready)
    return scene.ready


def drop_from_delayed(scene: Scene) -> str:
    scene.driver.client.zrem(scene.key("delayed"), scene.delayed)
    return scene.delayed


def drop_from_expires(scene: Scene) -> str:
    scene.driver.client.zrem(scene.key("expires"), scene.expiring)
    return scene.expiring


def drop_from_open(scene: Scene) -> str:
    scene.driver.client.zrem(scene.key("open"), f"{KEY}:0")
    return f"{KEY}:0"


def drop_holding(scene: Scene) -> str:
    scene.driver.client.hdel(scene.key("h:w1"), scene.leased.run_id)
    return scene.leased.run_id


def drop_cancelled_holding(scene: Scene) -> str:
    scene.driver.client.hdel(scene.key("h:w1"), scene.cancelling.run_id)
    return scene.cancelling.run_id


def change_token(scene: Scene) -> str:
    scene.driver.client.hset(scene.key("r:" + scene.leased.run_id), "t", "another")
    return scene.leased.run_id


def drop_cancel_order(scene: Scene) -> str:
    scene.driver.client.hdel(scene.key("c:w1"), scene.cancelling.run_id)
    return scene.cancelling.run_id


def plant_cancel_order(scene: Scene) -> str:
    scene.driver.client.hset(scene.key("c:w1"), scene.leased.run_id, scene.leased.token)
    return scene.leased.run_id


def drop_session(scene: Scene) -> str:
    scene.driver.client.zrem(scene.key("sessions"), "w1")
    return "w1"


def drop_session_hash(scene: Scene) -> str:
    scene.driver.client.delete(scene.key("s:w1"))
    return "w1"


def drop_session_and_hash(scene: Scene) -> str:
    drop_session(scene)
    return drop_session_hash(scene)


def plant_holding(scene: Scene) -> str:
    scene.driver.client.hset(scene.key("h:w1"), scene.ended, "token")
    return scene.ended


def plant_delayed(scene: Scene) -> str:
    scene.driver.client.zadd(scene.key("delayed"), {scene.ready: 4e12})
    return scene.ready


def plant_expires(scene: Scene) -> str:
    scene.driver.client.zadd(scene.key("expires"), {scene.ready: 4e12})
    return scene.ready


def plant_expires_of_an_ended_run(scene: Scene) -> str:
    scene.driver.client.zadd(scene.key("expires"), {scene.ended: 4e12})
    return scene.ended


def plant_dead(scene: Scene) -> str:
    scene.driver.client.zadd(scene.key("dead"), {scene.ended: 1})
    return scene.ended


CORRUPTIONS: list[tuple[Callable[[Scene], str], list[str]]] = [
    (drop_from_ready, ["ready"]),
    (drop_from_delayed, ["delayed"]),
    (drop_from_expires, ["expires"]),
    (drop_from_open, ["list"]),
    (drop_holding, ["lease"]),
    (drop_cancelled_holding, ["cancel", "lease"]),
    (change_token, ["holding", "lease"]),
    (drop_cancel_order, ["cancel"]),
    (plant_cancel_order, ["cancel"]),
    (drop_session, ["session"]),
    (drop_session_hash, ["session"]),
    (drop_session_and_hash, ["session"]),
    (plant_holding, ["holding"]),
    (plant_delayed, ["not_delayed"]),
    (plant_expires, ["not_expiring"]),
    (plant_expires_of_an_ended_run, ["not_expiring"]),
    (plant_dead, ["not_dead"]),
]


@pytest.mark.parametrize(("corrupt", "kinds"), CORRUPTIONS, ids=[each[0].__name__ for each in CORRUPTIONS])
async def test_what_was_planted_is_repaired(
    scene: Scene, corrupt: Callable[[Scene], str], kinds: list[str]
) -> None:
    driver = scene.driver
    subject = corrupt(scene)
    done = full_pass(driver.client, driver.prefix)
    # Which of two keys that disagree is met first is up to SCAN; one repair may make the other needless.
    assert {kind for kind, _ in done.repairs} <= set(kinds)
    assert {each for _, each in done.repairs} == {subject}
    assert kinds[-1] in {kind for kind, _ in done.repairs}
    assert done.undecided == 0
    assert full_pass(driver.client, driver.prefix).repairs == [], "once is enough"
    if "session" in kinds:
        await driver.reap()  # whose leases nobody can renew any more
    if corrupt is not drop_session:
        driver.audit()


async def test_a_run_that_was_in_no_queue_runs(scene: Scene) -> None:
    drop_from_ready(scene)
    full_pass(scene.driver.client, scene.driver.prefix)
    assert [run.run_id for run in await scene.driver.claim()] == [scene.ready]


async def test_a_lease_that_nobody_held_is_given_to_another_and_the_first_is_fenced(scene: Scene) -> None:
    drop_holding(scene)
    driver = scene.driver
    full_pass(driver.client, driver.prefix)
    reply = await driver.store.renew("w1", 1, [[scene.leased.run_id, scene.leased.token]])
    assert reply.revoked == [[scene.leased.run_id, scene.leased.token]]
    assert (await driver.finish(scene.leased)).status == "stale"
    await driver.worker("w2")
    again = {run.run_id: run for run in await driver.claim("w2")}[scene.leased.run_id]
    assert again.lost == 0
    assert (await driver.finish(again)).status == "ok"


async def test_a_session_without_hash_is_reaped(scene: Scene) -> None:
    drop_session_and_hash(scene)
    driver = scene.driver
    full_pass(driver.client, driver.prefix)
    await driver.clock_moves(0.002)
    assert {event.run_id for event in await driver.reap()} == {
        scene.leased.run_id,
        scene.cancelling.run_id,
    }


async def test_brokers_share_a_pass_and_its_figures(
    make_driver: MakeDriver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_broker.store_audit.SLICE_KEYS", 20)
    drivers = [await make_driver(audit_seconds=0.01, broker_id=f"broker-{i}") for i in range(3)]
    first = drivers[0]
    runs = await first.accepted(200)
    first.client.lrem(first.prefix + f"ready:{KEY}:0", 0, runs[7])
    repairs: list[Repair] = []

    async def two_passes() -> bool:
        for driver in random.sample(drivers, 3):
            await driver.store.audit(repairs.append)
        return (await first.store.audit_totals())["passes"] >= 2

    await until(two_passes)
    totals = await first.store.audit_totals()
    assert totals["repaired"] == 1
    assert totals["runs"] >= 200
    assert totals["undecided"] == 0
    assert repairs == [Repair("ready", runs[7], 0)]
    counters = [driver.store.counters for driver in drivers]
    assert sum(each["repaired"] for each in counters) == 1
    assert sum(each["audited"] for each in counters) >= 400
    assert all(each["audited"] for each in counters), "each did a part of it"
    service = Audit(first.store, 1.0)
    service._tell(repairs[0])
    (record,) = [each for each in caplog.records if each.__dict__.get("action") == "audit_ready"]
    assert (record.levelno, record.__dict__["run_id"]) == (logging.ERROR, runs[7])


async def test_a_slice_comes_no_sooner_than_its_time(driver: Driver) -> None:
    await driver.accepted(3)
    repairs: list[Repair] = []
    await driver.store.audit(repairs.append)
    key = driver.prefix + "audit"
    first = driver.client.hgetall(key)
    await driver.store.audit(repairs.append)
    assert driver.client.hgetall(key) == first
    driver.client.hincrby(key, "at", 3_600_000)  # the clock was set back
    await driver.store.audit(repairs.append)
    assert driver.client.hget(key, "at") != first[b"at"]
    assert repairs == []


async def test_in_a_very_long_list_it_is_left_for_later(driver: Driver) -> None:
    key = driver.prefix + f"ready:{KEY}:0"
    (run,) = await driver.accepted()
    ghosts = [os.urandom(16).hex() for _ in range(5000)]
    driver.client.lpush(key, *ghosts[:2500])
    driver.client.rpush(key, *ghosts[2500:])
    done = full_pass(driver.client, driver.prefix, looks=2000)
    assert (done.runs, done.undecided, done.repairs) == (1, 1, [])
    driver.client.ltrim(key, 1600, -1600)
    done = full_pass(driver.client, driver.prefix, looks=2000)
    assert (done.runs, done.undecided, done.repairs) == (1, 0, [])
    driver.client.lrem(key, 0, run)
    assert full_pass(driver.client, driver.prefix, looks=2000).repairs == [("ready", run)]
    for ghost in ghosts:
        driver.client.lrem(key, 0, ghost)


async def test_a_key_of_a_foreign_type_does_not_hold_up_the_pass(driver: Driver) -> None:
    await driver.accepted()
    driver.client.set(driver.prefix + "r:" + "f" * 32, "no hash")
    done = full_pass(driver.client, driver.prefix)
    assert (done.runs, done.undecided, done.repairs) == (1, 1, [])
    driver.client.delete(driver.prefix + "r:" + "f" * 32)


async def test_half_closed_and_half_reaped_sessions_are_in_agreement(driver: Driver) -> None:
    """These scripts take 100 runs a call; between two calls nothing may look like damage."""
    namespace = driver.store.settings.namespace
    for script, args in (
        ("close_session", (1, 60_000, 60_000)),
        ("reap", (60_000, 3, 5, 100, 60_000, 60_000, 10, 9000)),
    ):
        runs = await driver.accepted(250)
        await driver.worker()
        for _ in range(3):
            await driver.claim(limit=100)
        for run in islice(runs, 0, 250, 10):
            await driver.cancel(run)
        more = 1
        await driver.tick()
        if script == "reap":
            driver.end_lease("w1")
        while more:
            assert_consistent(driver.client, namespace)
            reply: Any = await driver.store.script(script, 0, *(("w1",) if script != "reap" else ()), *args)
            more = reply[0]
        driver._numbers.clear()
        assert_consistent(driver.client, namespace)
        await driver.worker("w2")
        while held := await driver.claim("w2", limit=100):
            for run in held:
                await driver.finish(run)
        await driver.store.close_session("w2", 1)
        driver._numbers.clear()


async def test_the_service_outlives_a_store_that_is_away(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(driver.store, "script", away)
    with pytest.raises(StoreUnavailable):
        await Audit(driver.store, 1.0).run_once()


async def test_which_watched_runs_have_ended(driver: Driver) -> None:
    runs = await driver.accepted(600)
    await driver.worker()
    (first, second, *_) = await driver.claim(limit=5)
    await driver.finish(first)
    await driver.cancel(runs[-1])
    assert set(await driver.store.over([*runs, "f" * 32])) == {first.run_id, runs[-1]}
    assert await driver.store.over([second.run_id]) == []
    assert (await driver.submit(submission(first.run_id)))[0].status == "exists"


@pytest.mark.parametrize("kind", ["blocked", "unblocked", "waits"])
async def test_a_run_that_waits_for_others(driver: Driver, kind: str) -> None:
    (parent,) = await driver.accepted()
    child = submission(key="child", parents=[parent])
    assert (await driver.submit(child))[0].status == "accepted"
    assert full_pass(driver.client, driver.prefix).repairs == []
    record, deps = driver.prefix + f"r:{child.run_id}", driver.prefix + f"deps:{child.run_id}"
    if kind == "blocked":
        driver.client.zrem(driver.prefix + "blocked", child.run_id)
    elif kind == "unblocked":
        driver.client.hset(deps, parent, "")
    else:
        driver.client.hset(record, "dl", 7)
    assert full_pass(driver.client, driver.prefix).repairs == [(kind, child.run_id)]
    assert full_pass(driver.client, driver.prefix).repairs == []
    await driver.worker("w1", "child")
    assert [run.run_id for run in await driver.claim()] == [child.run_id] * (kind == "unblocked")
    assert driver.client.hget(record, "dl") == (None if kind == "unblocked" else b"1")
