"""A run's way through the store, operation by operation."""

from __future__ import annotations

import asyncio

import pytest
from prefect_lite_broker.store import ClaimedRun

from tests.store.driver import EVERYWHERE, KEY, Driver, MakeDriver, run_id, submission

pytestmark = [pytest.mark.anyio, EVERYWHERE]


async def test_a_life(driver: Driver) -> None:
    run, *_ = await driver.accepted(body=b"arguments", name="add-1")
    waiting = await driver.state(run)
    assert (waiting.type, waiting.name, waiting.task_key, waiting.attempt) == (
        "SCHEDULED",
        "Scheduled",
        KEY,
        0,
    )
    await driver.worker()
    (leased,) = await driver.claim()
    assert (leased.run_id, leased.task_key, leased.attempt, leased.lost) == (run, KEY, 1, 0)
    assert leased.body == b"arguments"
    assert (await driver.state(run)).type == "PENDING"
    driver.started(leased)
    running = await driver.state(run)
    assert (running.type, running.attempt) == ("RUNNING", 1)
    reply = await driver.finish(leased)
    assert (reply.status, reply.task_key) == ("ok", KEY)
    ended = await driver.state(run)
    assert ended == reply.state
    assert (ended.type, ended.name, ended.result, ended.lost) == ("COMPLETED", "Completed", b"result", 0)
    assert ended.submitted_ms <= ended.started_ms <= ended.ended_ms


async def test_unknown_run(driver: Driver) -> None:
    assert (await driver.state(run_id())).type == ""
    assert (await driver.cancel(run_id())).status == "unknown"


async def test_a_run_stored_without_a_fingerprint_may_be_repeated_with_one(driver: Driver) -> None:
    plain = submission()._replace(fingerprint=b"")
    again = plain._replace(fingerprint=b"of the same arguments")
    together = await driver.submit(plain, again)
    later = await driver.submit(again)
    assert [reply.status for reply in (*together, *later)] == ["accepted", "exists", "exists"]


async def test_a_repeated_submit_makes_no_second_run(driver: Driver) -> None:
    msg = submission()
    first, twin, other = await driver.submit(msg, msg, msg._replace(fingerprint=b"other"))
    assert (first.status, twin.status, other.status) == ("accepted", "exists", "conflict")
    assert msg.run_id in other.text
    assert [reply.status for reply in await driver.submit(msg)] == ["exists"]
    await driver.worker()
    assert len(await driver.claim()) == 1


async def test_idempotency_key(driver: Driver) -> None:
    msg = submission(idempotency_key="order-7")
    twin, rival = (
        submission(idempotency_key="order-7"),
        submission(idempotency_key="order-7", fingerprint=b"x"),
    )
    first, second, third = await driver.submit(msg, twin, rival)
    assert first.status == "accepted"
    assert (second.status, second.existing_id) == ("exists", msg.run_id)
    assert (third.status, third.existing_id) == ("conflict", msg.run_id)
    assert "order-7" in third.text
    other_task = submission(key="tasks.mul", idempotency_key="order-7")
    assert (await driver.submit(other_task))[0].status == "accepted"
    await driver.worker()
    (run,) = await driver.claim()
    await driver.finish(run)
    assert (await driver.submit(twin))[0].existing_id == msg.run_id, "the key outlives the run"


async def test_priorities_come_first(driver: Driver) -> None:
    low, high, middle = [(await driver.accepted(priority=p))[0] for p in (0, 9, 5)]
    await driver.worker()
    assert [run.run_id for run in await driver.claim()] == [high, middle, low]


async def test_equal_queues_share_a_claim(driver: Driver) -> None:
    await driver.accepted(20, key="a")
    await driver.accepted(20, key="b")
    await driver.accepted(2, key="c")
    await driver.worker("w1", "a", "b", "c")
    taken = [run.task_key for run in await driver.claim(limit=12)]
    assert {key: taken.count(key) for key in "abc"} == {"a": 5, "b": 5, "c": 2}


async def test_equal_queues_take_turns(driver: Driver) -> None:
    await driver.accepted(4, key="a")
    await driver.accepted(4, key="b")
    await driver.worker("w1", "a", "b")
    order: list[str] = []
    for _ in range(8):
        (run,) = await driver.claim(limit=1)
        order.append(run.task_key)
        await driver.clock_moves()  # which tells the turns apart
    assert order[:6] in (["a", "b"] * 3, ["b", "a"] * 3)


async def test_only_served_keys(driver: Driver) -> None:
    await driver.accepted(3, key="a")
    (wanted,) = await driver.accepted(key="b")
    await driver.worker("w1", "b")
    reply = await driver.claim_reply(limit=2)
    assert [run.run_id for run in reply.runs] == [wanted]
    assert reply.drained


async def test_many_open_lists(driver: Driver) -> None:
    for i in range(300):
        await driver.accepted(key=f"key{i}")
    await driver.worker("w1", "key7", "key299")
    assert {run.task_key for run in await driver.claim()} == {"key7", "key299"}


async def test_a_worker_of_many_keys_looks_them_up_in_one_go(driver: Driver) -> None:
    keys = [f"k{n}" for n in range(300)]
    await driver.submit(*(submission(key=key) for key in keys))
    await driver.worker("w1", *keys)

    def questions() -> int:
        return driver.client.info("commandstats").get("cmdstat_zmscore", {"calls": 0})["calls"]

    before = questions()
    assert len({run.task_key for run in await driver.claim(limit=50)}) == 50
    assert questions() - before <= 1  # one for each key made a run of 500 keys three times as expensive


async def test_drained_says_whether_more_is_ready(driver: Driver) -> None:
    await driver.accepted(5)
    await driver.worker()
    assert not (await driver.claim_reply(limit=5)).drained
    assert (await driver.claim_reply(limit=5)).drained
    await driver.accepted(3)
    assert (await driver.claim_reply(limit=5)).drained


async def test_large_bodies_are_claimed_in_bounded_parts(driver: Driver) -> None:
    bodies = [bytes([i]) * 400_000 for i in range(5)]
    runs = [submission(body=body) for body in bodies]
    await driver.submit(*runs)
    await driver.worker()
    taken: list[ClaimedRun] = []
    drained = False
    while not drained:
        reply = await driver.claim_reply()
        assert sum(len(run.body) for run in reply.runs) <= 1 << 20
        taken += reply.runs
        drained = reply.drained
    assert [run.body for run in taken] == bodies


async def test_one_body_over_the_bound_is_claimed_alone(driver: Driver) -> None:
    body = b"x" * 3_000_000
    await driver.accepted(2, body=body)
    await driver.worker()
    assert [len(await driver.claim()) for _ in range(3)] == [1, 1, 0]


async def test_delayed_run(driver: Driver) -> None:
    msg = submission(countdown_seconds=60)
    (reply,) = await driver.submit(msg)
    assert reply.delayed_seconds == 60
    await driver.worker()
    assert await driver.claim() == []
    promoted = await driver.store.promote()
    assert promoted.ready_keys == []
    assert 59 < promoted.next_due_seconds <= 60
    assert 59 < (await driver.store.why(msg.run_id))["due_in_seconds"] <= 60
    driver.make_due(msg.run_id)
    promoted = await driver.store.promote()
    assert (promoted.ready_keys, promoted.next_due_seconds) == ([KEY], -1)
    assert [run.run_id for run in await driver.claim()] == [msg.run_id]


async def test_retry_now_and_later(driver: Driver) -> None:
    (run,) = await driver.accepted()
    await driver.worker()
    (first,) = await driver.claim()
    driver.started(first)
    reply = await driver.retry(first, 30, "ValueError: no")
    assert (reply.status, reply.task_key, reply.delayed_seconds) == ("ok", KEY, 30)
    state = await driver.state(run)
    assert (state.type, state.name, state.message, state.attempt) == (
        "SCHEDULED",
        "AwaitingRetry",
        "ValueError: no",
        1,
    )
    driver.make_due(run)
    await driver.store.promote()
    (second,) = await driver.claim()
    assert (second.attempt, second.lost) == (2, 0)
    assert second.token != first.token
    driver.started(second)
    assert (await driver.state(run)).name == "Retrying"
    assert (await driver.retry(second)).status == "ok"
    (third,) = await driver.claim()
    assert third.attempt == 3
    ended = (await driver.finish(third)).state
    assert ended is not None
    assert (ended.attempt, ended.message) == (3, "")
    assert await driver.state(run) == ended._replace(due_ms=(await driver.state(run)).due_ms)


async def test_attempts_started_in_place_are_not_granted_again(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    driver.started(run)
    driver.store.started(run.run_id, run.token, 2)
    await driver.release(run)
    assert (await driver.claim())[0].attempt == 2


async def test_released_runs_go_to_the_head(driver: Driver) -> None:
    first, second = await driver.accepted(2)
    await driver.worker()
    (run,) = await driver.claim(limit=1)
    reply = await driver.release(run)
    assert (reply.status, reply.task_key) == ("ok", KEY)
    assert [run.run_id for run in await driver.claim()] == [first, second]


async def test_a_commit_needs_the_token(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    forged = run._replace(token="forged")
    for commit in (driver.finish, driver.retry, driver.release):
        assert (await commit(forged)).status == "stale"
    driver.started(forged)
    assert (await driver.state(run.run_id)).type == "PENDING"
    await driver.release(run)
    (again,) = await driver.claim()
    assert (await driver.finish(run)).status == "already", "its last commit was the release"
    assert (await driver.state(run.run_id)).type == "PENDING"
    assert (await driver.finish(again)).status == "ok"
    assert (await driver.finish(again, "FAILED")).status == "already"
    assert (await driver.finish(run)).status in ("stale", "already")
    assert (await driver.state(run.run_id)).type == "COMPLETED"


async def test_outcomes_keep_name_and_message(driver: Driver) -> None:
    await driver.accepted(2)
    await driver.worker()
    late, wrong = await driver.claim()
    await driver.finish(late, "FAILED", name="TimedOut", message="exceeded 10 s", result=None)
    await driver.finish(wrong, "FAILED", name="Failed", message="ValueError: no")
    state = await driver.state(late.run_id)
    assert (state.type, state.name, state.message, state.result) == (
        "FAILED",
        "TimedOut",
        "exceeded 10 s",
        None,
    )
    state = await driver.state(wrong.run_id)
    assert (state.name, state.message, state.result) == ("Failed", "ValueError: no", b"result")


async def test_cancel_waiting_runs(driver: Driver) -> None:
    ready, delayed = submission(), submission(countdown_seconds=60)
    await driver.submit(ready, delayed)
    for msg in (ready, delayed):
        reply = await driver.cancel(msg.run_id)
        assert reply.status == "cancelled"
        assert reply.state is not None
        assert (reply.state.type, reply.state.name) == ("CANCELLED", "Cancelled")
        assert (await driver.cancel(msg.run_id)).status == "cancelled"
    await driver.worker()
    reply = await driver.claim_reply()
    assert (reply.runs, reply.drained) == ([], True)
    driver.make_due(delayed.run_id)
    assert (await driver.store.promote()).ready_keys == []


async def test_cancel_a_running_run(driver: Driver) -> None:
    await driver.accepted(3)
    epoch = await driver.worker()
    runs = await driver.claim()
    for run in runs:
        driver.started(run)
        reply = await driver.cancel(run.run_id)
        assert (reply.status, reply.session, reply.token) == ("cancelling", "w1", run.token)
    assert (await driver.state(runs[0].run_id)).type == "CANCELLING"
    renewal = await driver.store.renew("w1", epoch, [[run.run_id, run.token] for run in runs])
    assert renewal.revoked == []
    assert sorted(renewal.cancelling) == sorted([run.run_id, run.token] for run in runs)
    finished = await driver.finish(runs[0], "CANCELLED", result=None)
    retried, released = await driver.retry(runs[1], 5), await driver.release(runs[2])
    for reply in (finished, retried, released):
        assert reply.status == "ok"
        assert reply.state is not None
        assert reply.state.type == "CANCELLED"
    assert (await driver.store.renew("w1", epoch, [])).cancelling == []
    assert (await driver.retry(runs[1], 5)).status == "already"
    assert (await driver.cancel(runs[0].run_id)).status == "cancelled"


async def test_cancel_comes_too_late(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    await driver.finish(run)
    reply = await driver.cancel(run.run_id)
    assert reply.status == "already"
    assert reply.state is not None
    assert reply.state.result == b"result"


async def test_a_run_that_completes_while_being_cancelled_has_completed(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    await driver.cancel(run.run_id)
    assert (await driver.finish(run)).status == "ok"
    assert (await driver.state(run.run_id)).type == "COMPLETED"


async def test_expired_runs_are_cancelled_by_promoter_and_claim(driver: Driver) -> None:
    early, late = submission(expires_seconds=0.001), submission(expires_seconds=60, countdown_seconds=30)
    await driver.submit(early, late)
    await driver.clock_moves(0.003)
    await driver.worker()
    assert await driver.claim() == []
    state = await driver.state(early.run_id)
    assert (state.type, state.name) == ("CANCELLED", "Expired")
    driver.client.zadd(driver.prefix + "expires", {late.run_id: 1})
    promoted = await driver.store.promote()
    assert [(state.run_id, state.name) for state in promoted.ended] == [(late.run_id, "Expired")]


async def test_queue_limit(make_driver) -> None:
    driver = await make_driver(max_queue_length=3)
    replies = await driver.submit(*(submission() for _ in range(5)))
    assert [reply.status for reply in replies] == ["accepted"] * 3 + ["full"] * 2
    assert KEY in replies[-1].text
    assert replies[-1].retry_after_seconds > 0
    other = await driver.submit(
        submission(key="other"), submission(priority=1), submission(countdown_seconds=9)
    )
    assert [reply.status for reply in other] == ["accepted"] * 3
    assert (await driver.submit(submission()))[0].status == "full"
    delayed = await driver.submit(*(submission(countdown_seconds=9, key=f"key{i}") for i in range(3)))
    assert [reply.status for reply in delayed] == ["accepted"] * 2 + ["full"]
    assert "delayed" in delayed[-1].text


async def test_cancelled_runs_do_not_fill_a_queue_for_long(make_driver: MakeDriver) -> None:
    driver = await make_driver(max_queue_length=1500)
    runs = await driver.accepted(1500)
    for run in runs[:-1]:
        driver.store.cancel(run, lambda reply: None)
    assert (await driver.submit(submission()))[0].status == "full"
    assert await driver.store.retention() == 1499
    assert (await driver.submit(submission()))[0].status == "accepted"
    await driver.worker()
    assert (await driver.claim())[0].run_id == runs[-1]


async def test_a_claim_looks_at_a_bounded_number_of_cancelled_runs(driver: Driver) -> None:
    runs = await driver.accepted(2500)
    for run in runs[:-1]:
        driver.store.cancel(run, lambda reply: None)
    await driver.worker()
    replies = [await driver.claim_reply() for _ in range(3)]
    assert [(len(reply.runs), reply.drained) for reply in replies] == [(0, False), (0, False), (1, True)]


async def test_idempotency_keys_with_colons_are_not_mixed_up(driver: Driver) -> None:
    first = submission(key="a", idempotency_key="b:c")
    second = submission(key="a:b", idempotency_key="c")
    assert [reply.status for reply in await driver.submit(first, second)] == ["accepted"] * 2


async def test_the_same_submit_after_the_records_time_runs_nothing_again(driver: Driver) -> None:
    msg = submission(idempotency_key="k")
    await driver.submit(msg)
    await driver.worker()
    (run,) = await driver.claim()
    await driver.finish(run)
    driver.client.delete(*(f"{driver.prefix}{kind}:{msg.run_id}" for kind in "rb"))
    same, other = await driver.submit(msg, msg._replace(fingerprint=b"other"))
    assert (same.status, same.existing_id, other.status) == ("exists", "", "conflict")
    assert await driver.claim() == []


async def test_a_short_last_attempt_has_its_own_start(driver: Driver) -> None:
    await driver.accepted(2)
    await driver.worker()
    for run in await driver.claim():
        driver.started(run)
        await driver.retry(run)
    retried = await driver.claim()
    await driver.clock_moves(0.05)
    reply = await driver.finish(retried[0], run_seconds=0.002)
    assert reply.state is not None
    assert reply.state.ended_ms - reply.state.started_ms == 2
    again = await driver.finish(retried[0], run_seconds=0.002)
    assert again.state is not None
    assert (again.status, again.state.started_ms) == ("already", reply.state.started_ms)
    # In place: the second attempt began without a word.
    driver.started(retried[1])
    await driver.clock_moves(0.05)
    reply = await driver.finish(retried[1], run_seconds=0.003, attempt=3)
    assert reply.state is not None
    assert reply.state.ended_ms - reply.state.started_ms == 3


async def test_lookups_are_answered_in_bounded_parts(driver: Driver) -> None:
    result = b"r" * 400_000
    runs = await driver.accepted(10)
    await driver.worker()
    for run in await driver.claim():
        await driver.finish(run, result=result)
    before = driver.store.counters["calls"]
    states = await asyncio.gather(*(driver.state(run) for run in runs))
    assert [state.result for state in states] == [result] * 10
    assert driver.store.counters["calls"] - before == 5, "two results a call"


async def test_one_large_result_is_looked_up_alone(driver: Driver) -> None:
    runs = await driver.accepted(3)
    await driver.worker()
    for run in await driver.claim():
        await driver.finish(run, result=b"r" * 3_000_000)
    before = driver.store.counters["calls"]
    states = await asyncio.gather(*(driver.state(run) for run in runs))
    assert [len(state.result or b"") for state in states] == [3_000_000] * 3
    assert driver.store.counters["calls"] - before >= 3  # the store may call for reasons of its own meanwhile


async def test_result_ttl(driver: Driver) -> None:
    await driver.accepted(result_ttl_seconds=1200)
    await driver.accepted(result_ttl_seconds=1)
    await driver.accepted()
    await driver.worker()
    runs = await driver.claim()
    for run in runs:
        await driver.finish(run)
    for run, seconds in zip(runs, (1200, 600, 86_400), strict=True):
        for kind in "rb":
            assert 0 <= seconds - driver.client.ttl(f"{driver.prefix}{kind}:{run.run_id}") <= 2


async def test_hostile_values_hurt_nobody_else(driver: Driver) -> None:
    bad = [
        submission(countdown_seconds=float("nan")),
        submission(countdown_seconds=float("inf")),
        submission(expires_seconds=float("inf")),
        submission(priority=10**30),
        submission(key=""),
        submission(key="a:b:::c\n\0"),
    ]
    good = submission()
    replies = await driver.submit(*bad[:3], good, *bad[3:])
    assert [reply.status for reply in replies] == ["accepted", *["unavailable"] * 2, *["accepted"] * 4]
    assert all("can't be stored" in reply.text for reply in replies[1:3])
    await driver.worker("w1", KEY, "", "a:b:::c\n\0")
    assert good.run_id in [run.run_id for run in await driver.claim()]


@pytest.mark.parametrize("field", ["parents", "tolerated"])
async def test_a_run_cannot_wait_for_itself(driver: Driver, field: str) -> None:
    msg = submission()
    (reply,) = await driver.submit(msg._replace(**{field: [run_id(), msg.run_id]}))
    assert (reply.status, reply.retry_after_seconds) == ("unsupported", -1.0)
    assert "wait for itself" in reply.text


async def test_logs(make_driver) -> None:
    driver = await make_driver(max_log_lines=5)
    (run,) = await driver.accepted()
    lines = [[20, 1_700_000_000_000 + i, "prefect_lite", f"line {i} ä"] for i in range(12)]
    driver.store.log(run, lines[:2])
    driver.store.log(run, lines[2:4])
    driver.store.log(run_id(), lines[:1])
    assert await driver.store.read_log(run) == lines[:4]
    driver.store.log(run, lines)
    assert await driver.store.read_log(run) == lines[-5:]
    assert await driver.store.read_log(run_id()) == []


async def test_logs_live_as_long_as_their_run(driver: Driver) -> None:
    short, long = await driver.accepted(result_ttl_seconds=1200) + await driver.accepted(
        result_ttl_seconds=200_000
    )
    line = [20, 1_700_000_000_000, "prefect_lite", "line"]

    async def ttl(run: str) -> int:
        await driver.store.ping()
        return driver.client.ttl(f"{driver.prefix}log:{run}")  # type: ignore[return-value]

    for run in (short, long):
        driver.store.log(run, [line])
    assert 86_390 < await ttl(short) <= 86_400, "it may run for long"
    assert 199_990 < await ttl(long) <= 200_000
    await driver.worker()
    for run in await driver.claim():
        await driver.finish(run)
    assert 1190 < await ttl(short) <= 1200
    driver.store.log(short, [line])
    assert 1190 < await ttl(short) <= 1200
    assert 199_990 < await ttl(long) <= 200_000


async def test_many_lines_at_once(make_driver: MakeDriver) -> None:
    driver = await make_driver(max_log_lines=20_000)
    (run,) = await driver.accepted()
    lines = [[20, 1_700_000_000_000, "prefect_lite", f"line {i}"] for i in range(20_000)]
    driver.store.log(run, lines)
    assert await driver.store.read_log(run) == lines


async def test_questions(driver: Driver) -> None:
    runs = await driver.accepted(3)
    await driver.accepted(2, key="tasks.mul", priority=4)
    await driver.accepted(countdown_seconds=60)
    await driver.worker("w1", KEY)
    await driver.worker("w2", KEY, "tasks.div")
    await driver.claim("w2", limit=1)
    stats = await driver.store.stats()
    assert (stats["sessions"], stats["delayed"], stats["dead"], stats["held"]) == (2, 1, 0, 1)
    assert [(q["task_key"], q["lane"], q["length"]) for q in stats["queues"]] == [
        (KEY, "0", 2),
        ("tasks.mul", "4", 2),
    ]
    assert all(0 <= queue["oldest_seconds"] < 60 for queue in stats["queues"])
    assert await driver.store.served_keys() == {KEY: 2, "tasks.div": 1}
    sessions = {session["session"]: session for session in await driver.store.sessions()}
    assert sessions["w2"]["held"] == 1
    assert sessions["w1"]["info"] == {"host": "here"}
    assert 0 < sessions["w1"]["expires_in_seconds"] <= 1.5
    why = await driver.store.why(runs[2])
    assert (why["ahead"], why["length"], why["served"], why["lane"]) == (1, 2, 2, "0")
    assert (await driver.store.why(run_id()))["state"].type == ""
