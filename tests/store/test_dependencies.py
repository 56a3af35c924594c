"""Runs that wait for others: several shards, on one server and in a cluster of three nodes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis
from prefect_lite_broker import keys
from prefect_lite_broker.scripts import SCRIPTS

from tests.store.conftest import MakeSettings
from tests.store.dependents import KEY, CutStore, Desk, World
from tests.store.driver import EVERYWHERE, Driver, Place, run_id
from tests.tools.proxy import Proxy
from tests.tools.server import ValkeyServer

pytestmark = pytest.mark.anyio

SCRIPTS_OF_STEPS = {"watch_parent", "resolve", "ended", "settle", "wired", "due", "waits"}

MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(
    request: pytest.FixtureRequest, place: Place, make_settings: MakeSettings
) -> AsyncIterator[MakeWorld]:
    """A namespace of four shards and a broker; keyword arguments are settings. Audited in the end."""
    worlds: list[World] = []
    clients: dict[ValkeyServer, redis.Redis] = {}

    async def make(**overrides: Any) -> World:
        settings = make_settings(**{"shards": 4, "lease_seconds": 60, **overrides})

        def client_of(shard: int) -> redis.Redis:
            server = place.server
            if place.url.startswith("redis+cluster"):
                slot = keys.slot(keys.prefix(settings.namespace, shard))
                server = request.getfixturevalue("cluster").owner(slot)
            return clients.setdefault(server, server.client())

        driver = Driver(settings, client_of(0))
        world = World(await driver.start(), client_of)
        worlds.append(world)
        return await world.start()

    yield make
    for world in worlds:
        await world.desk.idle()
        await world.driver.stop()
        world.audit()
        world.clear()
    for client in clients.values():
        client.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


# -- the usual way ----------------------------------------------------------------------------------


@EVERYWHERE
async def test_a_run_waits_for_its_parents(world: World) -> None:
    first, second = await world.submit(world.new(0), world.new(1))
    child = await world.add(first, second, shard=2)
    state = await world.state(child)
    assert (state.type, state.name, state.task_key) == ("SCHEDULED", "Scheduled", KEY)
    runs = {run.run_id: run for run in await world.claim()}
    assert sorted(runs) == sorted([first, second])
    await world.finish([runs[first]])
    await world.desk.idle()
    assert await world.claim() == []
    assert world.desk.woken == []
    await world.finish([runs[second]])
    await world.desk.idle()
    assert world.desk.woken == [(KEY, child)]
    assert await world.work() == [child]
    world.check_clean()


@EVERYWHERE
async def test_parents_that_have_ended_already(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    assert await world.work() == [parent]
    child = await world.add(parent, shard=3)
    assert world.desk.woken == [(KEY, child)]
    assert await world.work() == [child]
    world.check_clean()


@EVERYWHERE
@pytest.mark.parametrize("before", [True, False], ids=["ended before", "ends after"])
async def test_a_failing_upstream_fails_what_waits_for_it(world: World, before: bool) -> None:
    (parent,) = await world.submit(world.new(0))
    if before:
        await world.work([parent])
    child = await world.add(parent, shard=1)
    grandchild = await world.add(child, shard=2)
    spared = await world.add(shard=3, tolerated=[parent])
    if not before:
        await world.work([parent])
    assert await world.types(child, grandchild, spared)  # settled
    state = await world.state(child)
    assert (state.type, state.name) == ("FAILED", "UpstreamFailed")
    assert state.message == f"Run {parent}, which this one waited for, ended as Failed."
    assert state.result is None
    state = await world.state(grandchild)
    assert state.message == f"Run {child}, which this one waited for, ended as UpstreamFailed."
    assert (await world.state(spared)).type in ("SCHEDULED", "COMPLETED")
    assert world.desk.states[child].message.startswith(f"Run {parent}")
    await world.work()
    assert await world.types(spared) == ["COMPLETED"]
    world.check_clean()


async def test_the_first_failing_parent_is_enough(world: World) -> None:
    good, bad = await world.submit(world.new(0), world.new(1))
    child = await world.add(good, bad)
    runs = {run.run_id: run for run in await world.claim()}
    await world.finish([runs[bad]], "CANCELLED")
    await world.desk.idle()
    assert (await world.state(child)).message.endswith("ended as Cancelled.")
    assert world.names("deps") == []
    await world.finish([runs[good]])
    await world.desk.idle()
    world.check_clean()


async def test_an_id_in_both_lists_is_strict(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, tolerated=[parent])
    await world.work([parent])
    assert (await world.state(child)).name == "UpstreamFailed"
    world.check_clean()


async def test_a_repeated_parent_counts_once(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, parent)
    assert await world.work() == [parent, child]
    world.check_clean()


async def test_a_countdown_begins_with_the_submit(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1, countdown_seconds=3600.0)
    over = await world.add(parent, shard=2, countdown_seconds=0.001)
    assert await world.work() == [parent, over]
    (delay,) = world.desk.delays
    assert 3500 < delay <= 3600
    assert (await world.store.stats())["delayed"] == 1
    shard = world.prefixes[1]
    world.client_of(1).zadd(shard + "delayed", {child: 1}, xx=True)
    await world.store.promote()
    assert await world.work() == [child]
    world.check_clean()


# -- other ends -------------------------------------------------------------------------------------


@EVERYWHERE
async def test_cancel_of_a_blocked_run(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1)
    grandchild = await world.add(child, shard=2)
    reply = await world.driver.cancel(child)
    assert (reply.status, reply.state and reply.state.type) == ("cancelled", "CANCELLED")
    await world.desk.idle()
    assert (await world.state(grandchild)).message.endswith("ended as Cancelled.")
    assert world.names("blocked", "deps") == []
    assert await world.work() == [parent]
    world.check_clean()


async def test_expiry_of_a_blocked_run(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1, expires_seconds=3600.0)
    grandchild = await world.add(child, shard=2)
    world.hurry("expires")
    (state,) = (await world.store.promote()).ended
    assert (state.run_id, state.name) == (child, "Expired")
    await world.desk.idle()
    assert (await world.state(grandchild)).message.endswith("ended as Expired.")
    assert await world.work() == [parent]
    world.check_clean()


@pytest.mark.parametrize("way", ["retry", "release", "reap", "close"])
async def test_every_way_to_end_a_parent_that_is_being_cancelled(world: World, way: str) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1)
    (run,) = await world.claim()
    assert (await world.driver.cancel(parent)).status == "cancelling"
    if way == "retry":
        await world.driver.retry(run)
    elif way == "release":
        await world.driver.release(run)
    elif way == "close":
        await world.store.close_session("w1", 1)
        await world.serve()  # nobody is told of these ends
    else:
        await world.driver.tick()
        world.driver.end_lease("w1")
        assert [event.outcome for event in await world.driver.reap()] == ["cancelled"]
    await world.desk.idle()
    assert (await world.state(child)).message.endswith("ended as Cancelled.")
    world.check_clean()


async def test_a_parent_that_crashes_and_is_replayed(make_world: MakeWorld) -> None:
    world = await make_world(max_lost=0)
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1)
    assert len(await world.claim()) == 1
    await world.driver.tick()
    world.driver.end_lease("w1")
    assert [event.outcome for event in await world.driver.reap()] == ["crashed"]
    await world.desk.idle()
    assert (await world.state(child)).message.endswith("ended as Crashed.")
    assert await world.store.dead_replay(parent)
    await world.driver.worker("w1")
    world.restart()
    late = await world.add(parent, shard=2)
    assert await world.work() == [parent, late]
    world.check_clean()


async def test_a_parent_replayed_before_anybody_was_told(make_world: MakeWorld) -> None:
    world = await make_world(max_lost=0)
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1)
    assert len(await world.claim()) == 1
    world.store.on_unblocked = lambda _run: None
    await world.driver.tick()
    world.driver.end_lease("w1")
    await world.driver.reap()
    assert await world.store.dead_replay(parent)
    await world.serve()
    assert await world.types(child) == ["SCHEDULED"]
    world.store.on_unblocked = world.desk.dependencies.unblocked
    await world.driver.worker("w1")
    world.restart()
    assert await world.work() == [parent, child]
    world.check_clean()


async def test_a_child_that_crashes_and_is_replayed(make_world: MakeWorld) -> None:
    """Its parents let it go when it crashed, so it does not wait for them again."""
    world = await make_world(max_lost=0)
    (parent,) = await world.submit(world.new(1))
    child = await world.add(parent, shard=0)
    grandchild = await world.add(shard=2, tolerated=[child])
    (run,) = await world.claim()
    await world.finish([run])
    await world.desk.idle()
    assert [run.run_id for run in await world.claim()] == [child]
    await world.driver.tick()
    world.driver.end_lease("w1")
    assert [event.outcome for event in await world.driver.reap()] == ["crashed"]
    await world.desk.idle()
    assert min(world.life(parent)) > 0, "nobody needs it any more"
    assert await world.store.dead_replay(child)
    await world.driver.worker("w1")
    assert sorted(await world.work()) == sorted([child, grandchild])
    await world.serve()
    world.check_clean()
    assert min(world.life(parent)) > 0


# -- unknown parents and cycles -----------------------------------------------------------------------


@EVERYWHERE
async def test_a_parent_that_nobody_submits(make_world: MakeWorld) -> None:
    world = await make_world(unknown_parent_seconds=3600)
    unknown = run_id()
    child = await world.add(unknown)
    spared = await world.add(tolerated=[unknown])
    await world.serve()
    assert await world.types(child, spared) == ["SCHEDULED"] * 2
    world.hurry("orphans")
    await world.serve()
    state = await world.state(child)
    assert (state.name, state.message) == (
        "UpstreamFailed",
        f"Run {unknown}, which this one waited for, is unknown.",
    )
    assert await world.work() == [spared]
    world.check_clean()


@EVERYWHERE
async def test_a_parent_that_is_submitted_after_its_child(make_world: MakeWorld) -> None:
    world = await make_world(unknown_parent_seconds=3600)
    parent = world.new(0)
    child = await world.add(parent.run_id, shard=1)
    await world.submit(world.new(0), parent, world.new(0))
    world.hurry("orphans")
    await world.serve()
    assert await world.types(child) == ["SCHEDULED"]
    assert len(await world.work()) == 4
    assert await world.types(child) == ["COMPLETED"]
    world.check_clean()


async def test_a_parent_that_is_submitted_late_needs_no_service(world: World) -> None:
    parent = world.new(0)
    child = await world.add(parent.run_id, shard=1)
    assert world.names("orphans") == ["orphans"]
    await world.submit(parent)
    assert world.names("orphans") == []
    assert await world.work() == [parent.run_id, child]
    world.check_clean()


async def test_a_parent_that_is_submitted_while_it_is_being_given_up(make_world: MakeWorld) -> None:
    """It is out of ``orphans`` and nobody has been told: whatever comes of it, no child waits for ever."""
    world = await make_world(unknown_parent_seconds=3600)
    parent = world.new(0)
    child = await world.add(parent.run_id, shard=1)
    world.hurry("orphans")
    await world.store.due_dependencies(0)
    await world.submit(parent)
    await world.serve()
    assert await world.types(child) == ["SCHEDULED"]
    assert world.names("unblock") == [], "nobody looks at it again until it ends"
    assert await world.work() == [parent.run_id, child]
    world.check_clean()


async def test_a_cancelled_child_leaves_nothing_at_an_unknown_parent(make_world: MakeWorld) -> None:
    world = await make_world(unknown_parent_seconds=3600)
    child = await world.add(run_id())
    await world.driver.cancel(child)
    await world.desk.idle()
    world.check_clean()


@EVERYWHERE
async def test_runs_that_wait_for_each_other(world: World) -> None:
    ring = [world.new(shard % 4) for shard in range(5)]
    ids = [msg.run_id for msg in ring]
    for msg, parent in zip(ring, ids[1:] + ids[:1], strict=True):
        await world.submit(msg._replace(parents=[parent]))
    after = await world.add(ids[0])
    await world.desk.idle()
    assert await world.types(*ids, after) == ["SCHEDULED"] * 6
    for _ in range(6):
        await world.serve(confirmed=True)
    assert await world.types(*ids, after) == ["FAILED"] * 6
    messages = [(await world.state(run)).message for run in ids]
    assert sum("waits for this one" in message for message in messages) >= 1
    world.check_clean()


async def test_a_cycle_of_tolerated_runs_is_opened(world: World) -> None:
    first, second = world.new(0), world.new(1)
    await world.submit(first._replace(tolerated=[second.run_id]), second._replace(tolerated=[first.run_id]))
    await world.desk.idle()
    assert await world.work() == []
    await world.serve(confirmed=True)
    assert len(await world.work()) == 2
    world.check_clean()


# -- records ----------------------------------------------------------------------------------------


@EVERYWHERE
async def test_a_parents_record_stays_while_a_child_is_unfinished(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    await world.work()
    assert min(world.life(parent)) > 0, "nobody needs it yet"
    child = await world.add(parent, shard=2)
    assert world.life(parent) == (-1, -1)
    (run,) = await world.claim()
    assert run.run_id == child
    assert world.life(parent) == (-1, -1)
    assert (await world.state(parent)).result == b"result"
    await world.finish([run])
    await world.desk.idle()
    assert all(0 < life <= 86_400_000 for life in world.life(parent))
    world.check_clean()


async def test_the_runs_own_ttl_begins_when_it_is_let_go(world: World) -> None:
    (parent,) = await world.submit(world.new(0, result_ttl_seconds=700.0))
    child = await world.add(parent, shard=2)
    (run,) = await world.claim()
    await world.finish([run])
    await world.desk.idle()
    assert world.life(parent) == (-1, -1)
    assert await world.work() == [child]
    assert all(600_000 < life <= 700_000 for life in world.life(parent))
    world.check_clean()


async def test_one_of_two_children_is_enough_to_keep_it(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    await world.work()
    first, second = await world.add(parent), await world.add(parent)
    await world.driver.cancel(first)
    await world.desk.idle()
    assert world.life(parent) == (-1, -1)
    await world.driver.cancel(second)
    await world.desk.idle()
    assert min(world.life(parent)) > 0
    world.check_clean()


async def test_a_record_is_kept_before_anybody_looks_at_it(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    await world.add(parent, shard=1)
    world.store.on_unblocked = lambda _run: None
    (run,) = await world.claim()
    await world.finish([run])
    assert world.life(parent) == (-1, -1)


async def test_a_run_that_never_waited_for_the_other(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child, stranger = await world.add(parent), await world.add(run_id())
    (resolved,) = await world.store.resolve([(stranger, parent, "fFailed")])
    assert resolved.status == "ended"
    assert await world.types(child, stranger) == ["SCHEDULED"] * 2
    await world.driver.cancel(stranger)
    await world.work()
    world.check_clean()


# -- questions and limits -------------------------------------------------------------------------------


@EVERYWHERE
async def test_why_and_stats(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    unknown = [run_id() for _ in range(7)]
    child = await world.add(parent, *unknown)
    facts = await world.store.why(child)
    assert facts["parents_left"] == 8
    assert len(facts["parents"]) == 5
    assert {name for _, name in facts["parents"]} <= {"", "Scheduled"}
    assert (await world.store.stats())["blocked"] == 1
    assert await world.store.waiting() == 2
    await world.driver.cancel(child)
    await world.desk.idle()
    assert (await world.store.stats())["blocked"] == 0
    await world.work()


async def test_the_queue_limit_holds_for_blocked_runs(make_world: MakeWorld) -> None:
    world = await make_world(max_queue_length=2)
    (parent,) = await world.submit(world.new(0))
    msgs = [world.new(1, parents=[parent]) for _ in range(3)]
    replies = await world.driver.submit(*msgs)
    assert [reply.status for reply in replies] == ["accepted", "accepted", "full"]
    assert "wait for others" in replies[2].text
    await world.work()
    await world.desk.idle()
    await world.work()
    world.check_clean()


async def test_an_idempotency_key_stands_for_a_blocked_run(world: World) -> None:
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1, idempotency_key="k")
    (reply,) = await world.driver.submit(world.new(1, parents=[parent], idempotency_key="k"))
    assert (reply.status, reply.existing_id) == ("exists", child)
    await world.desk.idle()
    assert await world.work() == [parent, child]
    world.check_clean()


# -- many -----------------------------------------------------------------------------------------------


async def in_time(seconds: float, work: Awaitable[Any]) -> Any:
    begun = time.monotonic()
    result = await work
    took = time.monotonic() - begun
    assert took < seconds, f"{took:.1f} s"
    return result


FIGURES = [
    pytest.param(100, id="100"),
    pytest.param(1_000, id="1000", marks=[pytest.mark.chaos, pytest.mark.timeout(120)]),
]
LARGE_FIGURES = [
    pytest.param(300, id="300"),
    pytest.param(10_000, id="10000", marks=[pytest.mark.chaos, pytest.mark.timeout(300)]),
]


@EVERYWHERE
@pytest.mark.parametrize("length", FIGURES)
async def test_a_chain(world: World, length: int) -> None:
    ids: list[str] = []
    for i in range(length):
        ids += await world.submit(world.new(i % 4, parents=ids[-1:]))
    await world.desk.idle()
    assert await in_time(20, world.work()) == ids
    world.check_clean()


@EVERYWHERE
@pytest.mark.parametrize("count", LARGE_FIGURES)
async def test_fan_in(world: World, count: int) -> None:
    parents = await world.submit(*(world.new() for _ in range(count)))
    half = count // 2
    (child,) = await world.submit(world.new(parents=parents[:half], tolerated=parents[half:]))
    done = await in_time(30, world.work())
    assert done[-1] == child
    assert len(done) == count + 1
    world.check_clean()


@EVERYWHERE
@pytest.mark.parametrize("count", LARGE_FIGURES)
async def test_fan_out(world: World, count: int) -> None:
    (parent,) = await world.submit(world.new(0))
    children = await world.submit(*(world.new(parents=[parent]) for _ in range(count)))
    await world.desk.idle()
    done = await in_time(30, world.work())
    assert done[0] == parent
    assert sorted(done[1:]) == sorted(children)
    world.check_clean()


@pytest.mark.parametrize("count", LARGE_FIGURES)
async def test_children_of_a_failed_run_end_at_once(world: World, count: int) -> None:
    (parent,) = await world.submit(world.new(0))
    children = await world.submit(*(world.new(parents=[parent]) for _ in range(count)))
    after = await world.submit(*(world.new(parents=[child]) for child in children[:100]))
    await world.desk.idle()
    assert await in_time(30, world.work([parent])) == [parent]
    assert set(world.desk.states) == {*children, *after}
    world.check_clean()


@pytest.mark.parametrize("count", LARGE_FIGURES)
async def test_what_a_broker_does_not_remember_is_found(
    world: World, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers no more than it may: the rest is left to the services."""
    monkeypatch.setattr("prefect_lite_broker.dependencies.MOST_PAIRS", 50)
    monkeypatch.setattr("prefect_lite_broker.dependencies.MOST_ENDED", 50)
    parents = await world.submit(*(world.new() for _ in range(count)))
    children = await world.submit(*(world.new(parents=[parent]) for parent in parents))
    await world.desk.idle()
    assert world.desk.dependencies.pending == 0
    done = await world.work()
    for _ in range(3):
        await in_time(60, world.serve())
        done += await world.work()
    assert sorted(done) == sorted(parents + children)
    world.check_clean()


# -- a broker that is killed ----------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("executed", [False, True], ids=["before a step", "after a step"])
async def test_a_broker_killed_between_any_two_steps(world: World, executed: bool) -> None:
    """Whatever it left undone, the service of another broker does; nothing runs twice and no key stays."""
    for at in range(1, 100):
        cut = CutStore(world.store, at, executed)
        doomed = Desk(cut)
        done, later, bad = [world.new(0), world.new(1), world.new(2)], world.new(3), world.new(0)
        await world.submit(*done)
        assert len(await world.work()) == 3
        world.store.on_blocked, world.store.on_unblocked = (
            doomed.dependencies.blocked,
            doomed.dependencies.unblocked,
        )
        child = world.new(1, parents=[later.run_id, *(msg.run_id for msg in done)])
        failing = world.new(2, parents=[later.run_id, bad.run_id], tolerated=[done[0].run_id])
        grand = world.new(3, parents=[child.run_id], tolerated=[failing.run_id])
        await world.submit(later, bad, child, failing, grand)
        await doomed.idle()
        executions = await world.work([bad.run_id])
        await doomed.idle()
        killed = cut.dead
        heir = world.desk = Desk(world.store)
        for _ in range(8):
            await world.serve(heir)
            executions += await world.work()
        assert sorted(executions) == sorted([later.run_id, bad.run_id, child.run_id, grand.run_id])
        state = await world.state(failing.run_id)
        assert (state.name, bad.run_id in state.message) == ("UpstreamFailed", True)
        world.check_clean()
        if not killed:
            break
    else:
        raise AssertionError("it never got to the end of its duty")
    assert at > 10


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("executed", [False, True], ids=["before a step", "after a step"])
async def test_a_broker_killed_while_it_tells_many(world: World, executed: bool, at: int) -> None:
    (parent,) = await world.submit(world.new(0))
    children = await world.submit(*(world.new(parents=[parent]) for _ in range(450)))
    await world.desk.idle()
    cut = CutStore(world.store, at, executed)
    doomed = Desk(cut)
    (run,) = await world.claim()
    await world.finish([run])
    await doomed.idle()
    assert cut.dead
    world.desk = Desk(world.store)
    done: list[str] = []
    for _ in range(3):
        await world.serve()
        done += await world.work()
    assert sorted(done) == sorted(children)
    world.check_clean()


async def test_a_late_registration_of_a_child_that_has_ended(world: World) -> None:
    """A slow broker's call arrives when all was cleaned up: it must not hold the parents for ever."""
    (early, late) = await world.submit(world.new(0), world.new(1))
    assert len(await world.work()) == 2
    (later,) = await world.submit(world.new(2))
    child = await world.add(early, late, later)
    await world.driver.cancel(child)
    await world.desk.idle()
    await world.store.watch_parents([(early, child), (late, child), (later, child)])
    await world.serve()
    assert await world.work() == [later]
    await world.serve()
    world.check_clean()
    assert min(*world.life(early), *world.life(late)) > 0


async def test_a_registration_that_got_lost_is_made_again(world: World) -> None:
    """The parent's node lost its last second, and with it the child that was registered there."""
    (parent,) = await world.submit(world.new(0))
    child = await world.add(parent, shard=1)
    world.client_of(0).delete(f"{world.prefixes[0]}blocked:{parent}", f"{world.prefixes[0]}needed:{parent}")
    await world.serve(confirmed=True)
    assert await world.work() == [parent, child]
    world.check_clean()


@pytest.mark.parametrize("lost", ["blocked", "unblock", "orphans"])
async def test_what_was_noted_by_a_clock_that_ran_ahead_is_not_left_lying(world: World, lost: str) -> None:
    """The store failed over to a server whose clock is an hour behind, and the broker on duty was killed."""
    if lost == "blocked":
        world.store.on_blocked = lambda *_: None
    (parent,) = await world.submit(world.new(0)) if lost != "orphans" else (run_id(),)
    child = await world.add(parent, shard=1)
    world.store.on_unblocked = lambda _run: None
    await world.work()
    for shard, prefix in enumerate(world.prefixes):
        for member in world.client_of(shard).zrange(prefix + lost, 0, -1):
            world.client_of(shard).zincrby(prefix + lost, 3_600_000, member)
    await world.desk.service.run_once()  # sets them right
    if lost == "orphans":
        shard = world.store.shard_of(parent)
        due: Any = world.client_of(shard).zscore(f"{world.prefixes[shard]}orphans", parent)
        assert due / 1000 < time.time() + world.store.settings.unknown_parent_seconds + 1
    else:
        await world.desk.service.run_once()
        await world.desk.idle()
        assert await world.work() == [child]


@pytest.mark.parametrize("lost", ["reply", "request"])
@pytest.mark.parametrize("script", ["submit", "finish", *sorted(SCRIPTS_OF_STEPS)])
async def test_every_script_repeated(make_world: MakeWorld, place: Place, script: str, lost: str) -> None:
    """Executed twice, or once and late: the same end, and nothing left."""
    proxy = Proxy(place.server.socket_path)
    await proxy.start(("127.0.0.1", 0))
    try:
        world = await make_world(redis_url=f"redis://127.0.0.1:{proxy.address[1]}")
        for _ in range(1):
            sha = SCRIPTS[script].sha.encode()
            (proxy.cut_next_reply if lost == "reply" else proxy.cut_next_request)(sha)
            (early,) = await world.submit(world.new(0))
            await world.work()
            parent, bad = await world.submit(world.new(1), world.new(2))
            child = await world.add(early, parent, shard=3)
            failing = await world.add(parent, bad)
            grand = await world.add(failing, tolerated=[child])
            first, second = world.new(0), world.new(1)
            await world.submit(
                first._replace(tolerated=[second.run_id]), second._replace(tolerated=[first.run_id])
            )
            done = await world.work([bad])
            await world.serve(confirmed=True)  # a repeated commit is told of no end: the service finds it
            done += await world.work([bad])
            await world.serve()
            done += await world.work([bad])
            assert sorted(done) == sorted([parent, bad, child, first.run_id, second.run_id])
            assert [(await world.state(run)).name for run in (failing, grand)] == ["UpstreamFailed"] * 2
            assert not proxy.armed, "the cut did not happen"
            world.check_clean()
        await world.desk.idle()
        await world.driver.stop()
    finally:
        await proxy.close()


async def test_a_plain_run_costs_nothing_more(make_world: MakeWorld) -> None:
    """Not a call, not a key, not a field."""
    world = await make_world(shards=1)
    assert (await world.claim()) == []
    before = world.store.counters["calls"]
    (run,) = await world.submit(world.new())
    record = world.client_of(0).hkeys(f"{world.prefixes[0]}r:{run}")
    assert sorted(record) == [b"d", b"fp", b"st"]  # type: ignore[type-var]
    await world.finish(await world.claim())
    await world.desk.idle()
    assert world.store.counters["calls"] - before == 3, "submit, claim, finish"
    assert world.names("blocked", "needed", "deps", "unblock", "orphans") == []
