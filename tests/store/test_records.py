"""What the store says of runs when it is asked for all of it: records, their states so far, and lists."""

from __future__ import annotations

from typing import Any

import pytest
from prefect_lite_broker import store_records
from prefect_lite_broker.records import RunRecord
from prefect_lite_broker.store import RunFilter

from tests.store.driver import EVERYWHERE, KEY, Driver, run_id, submission

pytestmark = [pytest.mark.anyio, EVERYWHERE]


async def record(driver: Driver, run: str) -> RunRecord:
    (found,) = await driver.store.read_runs([run])
    return found


def names(found: RunRecord) -> list[tuple[str, str]]:
    return [(type_, name) for type_, name, *_ in found.states]


async def listed(driver: Driver, **wanted: Any) -> set[str]:
    """All runs that fit, slice by slice."""
    found: list[str] = []
    position: str | None = "0"
    while position is not None:
        part = await driver.store.scan_runs(0, position, RunFilter(**wanted))
        found += [one.state.run_id for one in part.runs]
        position = part.following
    return set(found)


async def test_what_a_submit_says(driver: Driver) -> None:
    info = bytes(range(256))
    run, *_ = await driver.accepted(name="Add", tags=["b", "a"], info=info)
    plain, *_ = await driver.accepted()
    found = await record(driver, run)
    assert (found.label, found.tags, found.info, found.run_name) == ("Add", ["b", "a"], info, "")
    assert found.state == await driver.state(run)
    assert (await record(driver, plain))[1:5] == ("", "", [], b"")
    assert await driver.store.read_runs([run_id()]) == []


async def test_info_costs_a_run_with_nothing_else_no_options(driver: Driver) -> None:
    """They would be unpacked by every script that comes by."""
    run, *_ = await driver.accepted(info=b"x" * 20_000)
    assert not driver.client.hexists(f"{driver.prefix}r:{run}", "op")
    await driver.worker()
    (lease,) = await driver.claim()
    await driver.finish(lease)
    assert (await record(driver, run)).info == b"x" * 20_000


async def test_info_and_a_claim_of_the_same_turn(driver: Driver) -> None:
    await driver.worker()
    msgs = [submission(info=b"i", tags=["t"]), submission(), submission(info=b"j")]
    stored, claimed = await driver.write_through(msgs)
    assert [reply.status for reply in stored] == ["accepted"] * 3
    assert len(claimed.runs) == 3
    assert [(await record(driver, msg.run_id)).info for msg in msgs] == [b"i", b"", b"j"]


async def test_the_states_of_a_plain_run(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    assert names(await record(driver, run)) == [("SCHEDULED", "Scheduled")]
    await driver.worker()
    (lease,) = await driver.claim()
    assert names(await record(driver, run))[1:] == [("PENDING", "Pending")]
    driver.started(lease)
    await driver.store.ping()
    assert names(await record(driver, run))[1:] == [("RUNNING", "Running")]
    await driver.finish(lease, "FAILED", name="TimedOut", message="too slow", run_name="slow-1")
    found = await record(driver, run)
    assert names(found)[1:] == [("RUNNING", "Running"), ("FAILED", "TimedOut")]
    assert found.states[-1][4] == "too slow"
    assert found.run_name == "slow-1"
    times = [when for _, _, when, *_ in found.states]
    assert times == sorted(times)
    assert times[0] == found.state.submitted_ms
    assert times[-1] == found.state.ended_ms
    assert not driver.client.hexists(f"{driver.prefix}r:{run}", "hi"), "a single attempt has no history"


async def test_a_due_time_is_told(driver: Driver) -> None:
    run, *_ = await driver.accepted(countdown_seconds=60.0)
    found = await record(driver, run)
    assert found.states == [["SCHEDULED", "Scheduled", found.state.submitted_ms, found.state.due_ms, ""]]
    assert found.state.due_ms == found.state.submitted_ms + 60_000


async def test_retries_with_a_delay_are_remembered(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    await driver.worker()
    for _ in range(2):
        (lease,) = await driver.claim()
        driver.started(lease)
        await driver.retry(lease, 60.0, "boom")
        await driver.retry(lease, 60.0, "boom")  # the answer may get lost
        found = await record(driver, run)
        assert found.states[-1][:2] == ["SCHEDULED", "AwaitingRetry"]
        assert found.states[-1][3] - found.states[-1][2] == 60_000
        assert found.states[-1][4] == "boom"
        driver.make_due(run)
        await driver.store.promote()
    (lease,) = await driver.claim()
    assert (await record(driver, run)).states[-1][1] == "Pending"
    driver.started(lease)
    await driver.finish(lease)
    assert [name for _, name in names(await record(driver, run))] == [
        "Scheduled", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed",
    ]  # fmt: skip


async def test_a_run_cancelled_while_it_waits_for_its_retry_did_not_start_again(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    await driver.worker()
    (lease,) = await driver.claim()
    driver.started(lease)
    await driver.retry(lease, 60.0)
    await driver.cancel(run)
    assert [name for _, name in names(await record(driver, run))] == [
        "Scheduled", "Running", "AwaitingRetry", "Cancelled",
    ]  # fmt: skip


@pytest.mark.parametrize("told", ["all", "first", "none"])
async def test_retries_in_place_are_remembered(driver: Driver, told: str) -> None:
    """STARTED of an attempt is left out when the run ends in the same turn; then its number tells."""
    run, *_ = await driver.accepted()
    await driver.worker()
    (lease,) = await driver.claim()
    for attempt in {"all": (1, 2, 2, 3), "first": (1,), "none": ()}[told]:
        driver.store.started(run, lease.token, attempt)
        await driver.store.ping()
        await driver.clock_moves(0.002)
    await driver.finish(lease, attempt=3, run_seconds=0.001)
    found = await record(driver, run)
    assert [name for _, name in names(found)] == ["Scheduled", "Running", "Retrying", "Retrying", "Completed"]
    times = [when for _, _, when, *_ in found.states]
    assert times == sorted(times)
    if told != "none":
        assert times[1] < times[-2], "when the first attempt began is kept"


async def test_what_comes_twice_is_remembered_once(driver: Driver) -> None:
    """An answer may get lost, and a worker that resumes says all of it again."""
    run, *_ = await driver.accepted()
    await driver.worker()
    (lease,) = await driver.claim()
    for attempt in (1, 1, 2, 2):
        driver.store.started(run, lease.token, attempt)
        await driver.store.ping()
    again = lease._replace(attempt=2)
    for _ in range(3):
        await driver.retry(again, 0.0, "boom")
        driver.store.started(run, lease.token, 2)
        await driver.store.ping()
    (lease,) = await driver.claim()
    for _ in range(2):
        driver.started(lease)
        await driver.store.ping()
        await driver.retry(again, 0.0, "late")  # of a lease that is over
    for _ in range(2):
        await driver.finish(lease)
        driver.started(lease)
    await driver.store.ping()
    found = await record(driver, run)
    assert [name for _, name in names(found)] == [
        "Scheduled", "Running", "Retrying", "AwaitingRetry", "Retrying", "Completed",
    ]  # fmt: skip
    assert driver.client.hget(f"{driver.prefix}r:{run}", "hi").count(b";") == 3  # type: ignore[union-attr]


async def test_a_run_that_was_given_back_starts_again_as_the_same_attempt(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    await driver.worker()
    for _ in range(3):
        (lease,) = await driver.claim()
        driver.started(lease)
        await driver.release(lease)
        assert [name for _, name in names(await record(driver, run))] == ["Scheduled", "Running", "Scheduled"]
    (lease,) = await driver.claim()
    driver.started(lease)
    await driver.finish(lease)
    found = await record(driver, run)
    assert [name for _, name in names(found)] == ["Scheduled", "Running", "Completed"]
    assert not driver.client.hexists(f"{driver.prefix}r:{run}", "hi")


async def test_lost_leases_and_a_replay_are_no_attempts(driver: Driver) -> None:
    # Given a run in its second attempt
    run, *_ = await driver.accepted(max_lost=1)
    await driver.worker()
    (lease,) = await driver.claim()
    driver.started(lease)
    await driver.retry(lease, 0.0)
    # When its worker is lost until it is dead
    for number in (1, 2):
        session = f"w{number}"
        if number > 1:
            await driver.worker(session)
        (lease,) = await driver.claim(session)
        assert lease.attempt == 2
        driver.started(lease)
        await driver.tick()
        driver.end_lease(session)
        await driver.reap()
    found = await record(driver, run)
    assert [name for _, name in names(found)] == [
        "Scheduled", "Running", "AwaitingRetry", "Retrying", "Crashed",
    ]  # fmt: skip
    # And somebody has it run again
    assert await driver.store.dead_replay(run)
    await driver.worker("w3")
    (lease,) = await driver.claim("w3")
    driver.started(lease)
    await driver.finish(lease)
    # Then it is still the second
    found = await record(driver, run)
    assert [name for _, name in names(found)] == [
        "Scheduled", "Running", "AwaitingRetry", "Retrying", "Completed",
    ]  # fmt: skip
    times = [when for _, _, when, *_ in found.states]
    assert times == sorted(times)
    assert found.state.attempt == 2


async def test_a_history_is_bounded(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    await driver.worker()
    (lease,) = await driver.claim()
    for attempt in range(1, 400):
        driver.store.started(run, lease.token, attempt)
        await driver.store.ping()
    key = f"{driver.prefix}r:{run}"
    assert 900 < driver.client.hstrlen(key, "hi") <= 1000
    found = await record(driver, run)
    assert 50 < len(found.states) < 400
    assert {name for _, name in names(found)[1:]} == {"Running", "Retrying"}
    assert found.state.attempt == 399


async def test_lists_by_task_state_tag_and_time(driver: Driver) -> None:
    waiting = await driver.accepted(3, tags=["blue", "big"])
    other = await driver.accepted(2, key="tasks.other", tags=["blue"])
    plain = await driver.accepted(2)
    await driver.worker("w1", "tasks.other")
    one, two = await driver.claim()
    await driver.finish(one)
    await driver.finish(two, "FAILED", name="TimedOut")
    everything = {*waiting, *other, *plain}
    assert await listed(driver) == everything
    assert await listed(driver, task_key=KEY) == {*waiting, *plain}
    assert await listed(driver, task_key="tasks.ad") == set()
    assert await listed(driver, tags=frozenset({"blue"})) == {*waiting, *other}
    assert await listed(driver, tags=frozenset({"blue", "big"})) == {*waiting}
    assert await listed(driver, states=frozenset({"COMPLETED"})) == {one.run_id}
    assert await listed(driver, states=frozenset({"FAILED"})) == {two.run_id}
    assert await listed(driver, states=frozenset({"Failed"})) == set()
    assert await listed(driver, states=frozenset({"TimedOut", "COMPLETED"})) == {one.run_id, two.run_id}
    assert await listed(driver, states=frozenset({"SCHEDULED"})) == {*waiting, *plain}
    await driver.clock_moves(0.002)
    late, *_ = await driver.accepted()
    when = (await driver.state(late)).submitted_ms
    assert await listed(driver, since_ms=when) == {late}
    assert await listed(driver, until_ms=when - 1) == everything


async def test_a_list_looks_at_a_few_keys_at_a_time(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: set[str] = set()
    for _ in range(10):
        runs |= set(await driver.accepted(100))
    monkeypatch.setattr(store_records, "SLICE_KEYS", 100)
    sizes: list[int] = []
    found: set[str] = set()
    position: str | None = "0"
    while position is not None:
        part = await driver.store.scan_runs(0, position, RunFilter())
        sizes.append(len(part.runs))
        found |= {one.state.run_id for one in part.runs}
        position = part.following
    assert found == runs
    assert max(sizes) < 200


async def test_messages_in_a_list_are_cut(driver: Driver) -> None:
    run, *_ = await driver.accepted()
    await driver.worker()
    (lease,) = await driver.claim()
    await driver.finish(lease, "FAILED", message="ä" * 30_000)
    part = await driver.store.scan_runs(0, "0", RunFilter())
    while not part.runs and part.following:
        part = await driver.store.scan_runs(0, part.following, RunFilter())
    assert part.runs[0].state.message == "ä" * 100
    assert (await record(driver, run)).state.message == "ä" * 30_000


async def test_other_keys_are_no_runs(driver: Driver) -> None:
    driver.client.hset(f"{driver.prefix}r:", mapping={"x": 1})
    try:
        assert await listed(driver) == set()
    finally:
        driver.client.delete(f"{driver.prefix}r:")
