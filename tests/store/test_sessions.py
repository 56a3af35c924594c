"""Sessions: leases, epochs, the reaper, suspects and the dead."""

from __future__ import annotations

import pytest
from prefect_lite_broker.store import LeaseEvent
from redis.exceptions import ResponseError

from tests.store.driver import KEY, Driver, MakeDriver, submission

pytestmark = pytest.mark.anyio


async def lose(driver: Driver, session: str = "w1") -> list[tuple[str, str]]:
    """End a session's lease; returns what came of its runs."""
    await driver.tick()
    driver.end_lease(session)
    return [(event.run_id, event.outcome) for event in await driver.reap()]


async def test_claims_need_session_and_epoch(driver: Driver) -> None:
    await driver.accepted()
    assert (await driver.claim_reply("nobody")).status == "unknown"
    await driver.worker()
    assert (await driver.claim_reply(epoch=2)).status == "moved"
    assert (await driver.claim_reply(epoch=1, number=7)).status == "ok"
    assert (await driver.claim_reply(epoch=1, number=6)).status == "moved", "a number of the past"


async def test_the_same_claim_number_gives_the_same_runs(driver: Driver) -> None:
    await driver.accepted(3)
    await driver.worker()
    first = await driver.claim_reply(limit=2, number=1)
    again = await driver.claim_reply(limit=2, number=1)
    assert sorted(again.runs) == sorted(first.runs)
    assert len((await driver.claim_reply(limit=2, number=2)).runs) == 1


async def test_resume_fences_the_former_connection(driver: Driver) -> None:
    await driver.accepted(2)
    await driver.worker()
    (run,) = await driver.claim(limit=1)
    assert await driver.store.resume_session("w1", b"wrong") is None
    assert await driver.store.resume_session("nobody", b"digest") is None
    resumed = await driver.store.resume_session("w1", b"digest")
    assert resumed is not None
    assert (resumed.epoch, resumed.held) == (2, [[run.run_id, run.token]])
    assert (await driver.claim_reply(epoch=1)).status == "moved"
    assert (await driver.store.renew("w1", 1, [])).status == "moved"
    assert await driver.store.serve("w1", 1, [KEY]) == "moved"
    assert await driver.store.close_session("w1", 1) == []
    assert len((await driver.claim_reply(epoch=2, number=1)).runs) == 1
    assert (await driver.finish(run)).status == "ok", "commits need only the token"
    assert await driver.store.open_session("w1", b"digest", {}) == 2, "a late copy of the first call"


async def test_renew_names_what_is_no_longer_held(driver: Driver) -> None:
    await driver.accepted(2)
    epoch = await driver.worker()
    kept, gone = await driver.claim()
    await driver.finish(gone)
    reply = await driver.store.renew("w1", epoch, [[run.run_id, run.token] for run in (kept, gone)])
    assert (reply.status, reply.revoked) == ("ok", [[gone.run_id, gone.token]])
    assert (await driver.store.renew("nobody", 1, [])).status == "unknown"


async def test_deadlines(make_driver: MakeDriver) -> None:
    driver = await make_driver(lease_seconds=15, disconnect_grace_seconds=5)

    async def left() -> float:
        (session,) = await driver.store.sessions()
        return session["expires_in_seconds"]

    epoch = await driver.worker()
    assert 14 < await left() <= 15
    await driver.store.disconnect("w1", epoch)
    assert 4 < await left() <= 5
    await driver.store.disconnect("w1", 9)
    await driver.store.renew("w1", epoch, [])
    assert 14 < await left() <= 15


async def test_a_session_that_closes_gives_everything_back_unharmed(driver: Driver) -> None:
    runs = await driver.accepted(250)
    await driver.accepted(key="other")
    epoch = await driver.worker("w1", KEY, "other")
    held = [run for _ in range(3) for run in await driver.claim(limit=100)]
    assert len(held) == 251
    await driver.cancel(runs[0])
    assert await driver.store.close_session("w1", epoch) == sorted([KEY, "other"])
    assert (await driver.store.stats())["sessions"] == 0
    assert (await driver.state(runs[0])).type == "CANCELLED"
    await driver.worker("w2")
    again = [run for _ in range(3) for run in await driver.claim("w2", limit=100)]
    assert sorted(run.run_id for run in again) == sorted(runs[1:])
    assert {run.lost for run in again} == {0}
    assert (await driver.finish(held[1])).status == "already"


async def test_a_lost_lease(driver: Driver) -> None:
    (run,) = await driver.accepted()
    await driver.worker()
    (leased,) = await driver.claim()
    driver.started(leased)
    assert await lose(driver) == [(run, "suspect")]
    assert (await driver.finish(leased)).status == "stale"
    assert (await driver.claim_reply()).status == "unknown"
    state = await driver.state(run)
    assert (state.type, state.lost) == ("SCHEDULED", 1)
    await driver.worker("w2")
    (again,) = await driver.claim("w2")
    assert (again.run_id, again.attempt, again.lost) == (run, 1, 1)
    ended = (await driver.finish(again)).state
    assert ended is not None
    assert (ended.type, ended.lost) == ("COMPLETED", 1)


async def test_a_session_holds_one_suspect_at_a_time(driver: Driver) -> None:
    await driver.accepted(4)
    await driver.worker()
    await driver.claim()
    await lose(driver)
    await driver.accepted(2)
    await driver.worker("w2")
    taken = await driver.claim("w2")
    assert sorted(run.lost for run in taken) == [0, 0, 1]
    assert await driver.claim("w2") == []
    await driver.worker("w3")
    assert [run.lost for run in await driver.claim("w3")] == [1]
    (suspect,) = [run for run in taken if run.lost]
    await driver.finish(suspect)
    (following,) = await driver.claim("w2")
    assert following.lost == 1
    await driver.release(following)
    assert [run.run_id for run in await driver.claim("w2")] == [following.run_id], "still a suspect"


async def test_many_runs_lost_together_are_not_isolated(make_driver: MakeDriver) -> None:
    driver = await make_driver(suspect_group_max=5)
    runs = await driver.accepted(6)
    await driver.worker()
    await driver.claim()
    assert sorted(await lose(driver)) == sorted((run, "ready") for run in runs)
    await driver.worker("w2")
    assert len(await driver.claim("w2")) == 6
    assert sorted(await lose(driver, "w2")) == sorted((run, "suspect") for run in runs)


async def test_more_runs_than_one_call_may_touch(driver: Driver) -> None:
    runs = await driver.accepted(350)
    await driver.worker()
    for _ in range(4):
        await driver.claim(limit=100)
    assert sorted(await lose(driver)) == sorted((run, "ready") for run in runs)
    assert (await driver.store.stats())["sessions"] == 0


async def test_a_poison_run_ends_dead_and_can_be_replayed(make_driver: MakeDriver) -> None:
    driver = await make_driver(max_lost=2)
    (run,) = await driver.accepted(body=b"poison")
    outcomes = []
    for i in range(3):
        await driver.worker(f"w{i}")
        assert len(await driver.claim(f"w{i}")) == 1
        outcomes += await lose(driver, f"w{i}")
    assert outcomes == [(run, "suspect"), (run, "suspect"), (run, "crashed")]
    state = await driver.state(run)
    assert (state.type, state.name, state.lost, state.result) == ("CRASHED", "Crashed", 3, None)
    assert "3 times" in state.message
    assert await driver.store.dead_list(10) == [state]
    assert await driver.store.dead_replay(run)
    assert not await driver.store.dead_replay(run)
    await driver.worker("w9")
    (again,) = await driver.claim("w9")
    assert (again.run_id, again.body, again.lost) == (run, b"poison", 0)
    await driver.finish(again)
    assert (await driver.state(run)).type == "COMPLETED"


async def test_max_lost_of_a_run_and_dropping_the_dead(driver: Driver) -> None:
    (run,) = await driver.accepted(max_lost=0)
    await driver.worker()
    await driver.claim()
    assert await lose(driver) == [(run, "crashed")]
    assert "dead replay" in (await driver.state(run)).message
    assert await driver.store.dead_drop(run)
    assert not await driver.store.dead_drop(run)
    message = (await driver.state(run)).message
    assert message.startswith("its worker was lost ")
    assert "dead replay" not in message  # what it would run is gone
    assert (await driver.state(run)).type == "CRASHED"
    assert not await driver.store.dead_replay(run)


async def test_the_dead_are_bounded(make_driver: MakeDriver) -> None:
    driver = await make_driver(max_dead=3, max_lost=0)
    await driver.accepted(8)
    await driver.worker()
    await driver.claim()
    await lose(driver)
    assert len(await driver.store.dead_list(100)) == 3
    assert await driver.store.retention() == 0


async def test_a_run_that_is_cancelled_and_then_lost_never_runs_again(driver: Driver) -> None:
    (run,) = await driver.accepted()
    await driver.worker()
    (leased,) = await driver.claim()
    await driver.cancel(run)
    assert await lose(driver) == [(run, "cancelled")]
    assert (await driver.state(run)).type == "CANCELLED"
    assert (await driver.finish(leased)).status == "stale"


async def test_after_a_gap_nobody_is_reaped(driver: Driver) -> None:
    await driver.accepted()
    epoch = await driver.worker()
    await driver.claim()
    await driver.tick()
    driver.end_lease("w1")
    driver.client.incrby(driver.prefix + "tick", -3100)
    assert await driver.reap() == []
    assert (await driver.store.sessions())[0]["expires_in_seconds"] > 1
    assert (await driver.store.renew("w1", epoch, [])).status == "ok"


async def test_a_clock_set_back_reaps_nobody_and_one_ahead_is_cut_back(driver: Driver) -> None:
    await driver.worker()
    await driver.tick()
    driver.end_lease("w1")
    driver.client.incrby(driver.prefix + "tick", 60_000)
    assert await driver.reap() == []
    driver.client.zincrby(driver.prefix + "sessions", 3_600_000, "w1")
    await driver.reap()
    assert (await driver.store.sessions())[0]["expires_in_seconds"] <= 1.5


async def test_an_idempotency_key_of_a_dead_run(driver: Driver) -> None:
    msg = submission(max_lost=0, idempotency_key="k", expires_seconds=60)
    await driver.submit(msg)
    await driver.worker()
    await driver.claim()
    await lose(driver)
    assert await driver.store.dead_replay(msg.run_id)
    await driver.worker("w2")
    assert len(await driver.claim("w2")) == 1


async def test_many_small_workers_lost_together_are_reaped_in_one_look(driver: Driver) -> None:
    sessions = [f"w{number}" for number in range(200)]
    runs = await driver.accepted(200)
    for session in sessions:
        await driver.worker(session)
        assert len(await driver.claim(session, limit=1)) == 1
    await driver.tick()
    for session in sessions:
        driver.end_lease(session)
    events = await driver.reap()
    assert sorted(event.run_id for event in events) == sorted(runs)
    assert (await driver.store.stats())["sessions"] == 0


async def test_a_slow_reaper_still_reaps(make_driver: MakeDriver) -> None:
    driver = await make_driver(reap_seconds=3.0)
    (run,) = await driver.accepted()
    await driver.worker()
    await driver.claim()
    await driver.tick()
    driver.end_lease("w1")
    driver.client.incrby(driver.prefix + "tick", -8000)
    assert [event.run_id for event in await driver.reap()] == [run]
    driver.client.incrby(driver.prefix + "tick", -9100)
    await driver.worker("w2")
    driver.end_lease("w2")
    assert await driver.reap() == []
    assert (await driver.store.sessions())[0]["expires_in_seconds"] > 1, "a gap: it got a lease"


async def test_what_was_reaped_is_told_though_a_later_call_fails(driver: Driver) -> None:
    await driver.accepted(150)
    await driver.worker()
    for _ in range(2):
        await driver.claim(limit=100)
    await driver.tick()
    driver.end_lease("w1")
    events: list[LeaseEvent] = []

    def tell(event: LeaseEvent) -> None:
        events.append(event)
        if len(events) == 100:
            driver.client.set(driver.prefix + "h:w2", "of a wrong type")

    await driver.worker("w2")
    driver.end_lease("w2")
    with pytest.raises(ResponseError):
        await driver.store.reap(tell)
    driver.client.delete(driver.prefix + "h:w2")
    assert len(events) >= 100


async def test_a_dead_run_is_replayed_and_dropped_once_per_request(driver: Driver) -> None:
    first, second = await driver.accepted(2, max_lost=0)
    await driver.worker()
    await driver.claim()
    await lose(driver)
    for _ in range(2):  # a repeat of one request
        assert await driver.store.script("dead_replay", 0, first, b"word") == 1
        assert await driver.store.script("dead_drop", 0, second, 1000, b"word") == 1
    assert not await driver.store.dead_replay(first)
    assert not await driver.store.dead_drop(second)
    await driver.worker("w2")
    assert len(await driver.claim("w2")) == 1
