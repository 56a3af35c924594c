"""Dispatch: who claims when, how much, and never more than the credit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest
from prefect_lite_broker.dispatch import CLAIM_MAX, Dispatch, Seat
from prefect_lite_broker.store import ClaimedRun, ClaimReply, CommitReply, Store

from prefect_lite.protocol.messages import Release
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


class Claim(NamedTuple):
    session: str
    epoch: int
    shard: int
    number: int
    limit: int
    done: Callable[[ClaimReply], None]


class Claims:
    """Records what the dispatch asks of the store; the test answers."""

    def __init__(self, shards: int = 1) -> None:
        self.shards = shards
        self.away: set[int] = set()
        self.made: list[Claim] = []
        self.released: list[Release] = []

    def answers(self, shard: int) -> bool:
        return shard not in self.away

    def claim(self, *args: Any) -> None:
        self.made.append(Claim(*args))

    def release(self, msg: Release, done: Callable[[CommitReply], None]) -> None:
        self.released.append(msg)

    def take(self) -> list[Claim]:
        made, self.made = self.made, []
        return made


class Worker:
    def __init__(self, session: str, limit: int) -> None:
        self.session = session
        self.epoch = 1
        self.limit = limit
        self.runs: list[ClaimedRun] = []
        self.status = ""
        self.closing = False

    @property
    def credit(self) -> int:
        return self.limit - len(self.runs)

    def push(self, run: ClaimedRun) -> None:
        assert self.credit > 0, "more runs than credit"
        self.runs.append(run)

    def unseated(self, status: str) -> None:
        self.status = status
        self.closing = True


def runs(count: int, *, lost: int = 0, key: str = "tasks.add") -> list[ClaimedRun]:
    return [ClaimedRun(f"{number:032x}", f"token{number}", key, 1, lost, b"") for number in range(count)]


def shard_of(run_id: str) -> int:
    return int(run_id[-3:], 16)


def dispatch_with(claims: Claims) -> Dispatch:
    return Dispatch(cast(Store, claims), lambda run_id: shard_of(run_id) % claims.shards)


def drained_seat(dispatch: Dispatch, claims: Claims, worker: Worker, *keys: str) -> Seat:
    """A seat whose first claims have come back empty."""
    seat = dispatch.seat(worker)
    dispatch.serve(seat, keys or ("tasks.add",))
    dispatch.run()
    for claim in claims.take():
        claim.done(ClaimReply("ok", [], True))
    return seat


def wake(dispatch: Dispatch, count: int) -> None:
    for _ in range(count):
        dispatch.wake("tasks.add", 0)


async def test_a_submit_claims_for_one_idle_worker_in_turn() -> None:
    # Given two idle workers on a drained shard
    claims = Claims()
    dispatch = dispatch_with(claims)
    first, second = Worker("a", 10), Worker("b", 10)
    drained_seat(dispatch, claims, first)
    drained_seat(dispatch, claims, second)
    # When two runs are submitted, one after the other
    sessions: list[str] = []
    for number in range(2):
        dispatch.wake("tasks.add", 0)
        dispatch.run()
        (claim,) = claims.take()
        sessions.append(claim.session)
        assert claim.limit == 2  # the second is to learn that there is none
        claim.done(ClaimReply("ok", runs(number + 1)[-1:], True))
        dispatch.run()
        assert claims.take() == []
    # Then each worker was asked once
    assert sorted(sessions) == ["a", "b"]


async def test_a_burst_is_shared() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    for name in "abc":
        drained_seat(dispatch, claims, Worker(name, 10))
    wake(dispatch, 9)
    dispatch.run()
    assert sorted((claim.session, claim.limit) for claim in claims.take()) == [("a", 4), ("b", 4), ("c", 4)]


async def test_one_claim_in_flight_and_numbers_increase() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    drained_seat(dispatch, claims, Worker("a", 10))
    for _ in range(3):
        dispatch.wake("tasks.add", 0)
        dispatch.run()
    (claim,) = claims.take()
    claim.done(ClaimReply("ok", runs(1), True))
    dispatch.run()
    # The wakes that came while it was out were not lost.
    (after,) = claims.take()
    assert after.number == claim.number + 1


async def test_credit_is_reserved_while_a_claim_is_out() -> None:
    claims = Claims(shards=2)
    dispatch = dispatch_with(claims)
    seat = dispatch.seat(Worker("a", 3))
    dispatch.serve(seat, ["tasks.add"])
    dispatch.run()
    made = claims.take()
    assert {claim.shard for claim in made} == {0, 1}
    assert sum(claim.limit for claim in made) == 3
    dispatch.wake("tasks.add", 0)
    dispatch.run()
    assert claims.take() == []


async def test_no_credit_is_spent_on_shards_that_are_away() -> None:
    claims = Claims(shards=4)
    claims.away = {0, 1, 2}
    dispatch = dispatch_with(claims)
    seat = dispatch.seat(Worker("a", 3))
    dispatch.serve(seat, ["tasks.add"])
    for shard in range(4):
        dispatch.wake("tasks.add", shard)
    dispatch.run()
    dispatch.poll()
    (claim,) = claims.take()
    assert (claim.shard, claim.limit) == (3, 3)
    claim.done(ClaimReply("ok", [], True))
    claims.away = {0}
    dispatch.poll()
    assert {claim.shard for claim in claims.take()} == {1, 2, 3}, "what woke them has not been forgotten"


async def test_no_credit_no_claim_until_ready() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 0)
    seat = drained_seat(dispatch, claims, worker)
    wake(dispatch, 500)
    dispatch.run()
    assert claims.take() == []
    worker.limit = 250
    dispatch.ready(seat)
    dispatch.run()
    (claim,) = claims.take()
    assert claim.limit == CLAIM_MAX


async def test_ready_on_a_drained_shard_asks_nothing() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 1)
    seat = drained_seat(dispatch, claims, worker)
    worker.limit = 2
    dispatch.ready(seat)
    dispatch.run()
    assert claims.take() == []


async def test_what_one_worker_cannot_take_is_passed_on() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    drained_seat(dispatch, claims, Worker("a", 1))
    drained_seat(dispatch, claims, Worker("b", 5))
    # A hint tells of one run, there are more.
    dispatch.wake("tasks.add", 0)
    dispatch.run()
    sessions: list[str] = []
    for round_ in range(2):
        (claim,) = claims.take()
        sessions.append(claim.session)
        claim.done(ClaimReply("ok", runs(round_ + 1)[-1:], False))
        dispatch.run()
    assert "b" in sessions


async def test_a_suspect_that_settles_makes_room_for_the_next() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    seat = drained_seat(dispatch, claims, worker)
    dispatch.wake("tasks.add", 0)
    dispatch.run()
    claims.take()[0].done(ClaimReply("ok", runs(1, lost=1), True))
    dispatch.run()
    assert claims.take() == []
    dispatch.settled(seat, "token0")
    dispatch.run()
    assert len(claims.take()) == 1


async def test_a_suspect_that_waits_is_asked_for_at_its_time() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    seat = drained_seat(dispatch, claims, Worker("a", 5))
    for _ in range(3):
        # However often it is told, one claim is made at that time.
        dispatch.wake("tasks.add", 0)
        dispatch.run()
        claims.take()[0].done(ClaimReply("ok", [], True, 0.01))
    dispatch.run()
    assert claims.take() == []
    await until(lambda: claims.made)
    (claim,) = claims.take()
    claim.done(ClaimReply("ok", runs(1, lost=1), True, 60.0))
    assert claims.take() == []
    dispatch.leave(seat)
    assert all(timer.cancelled() for timer in seat.timers.values())


async def test_a_broker_that_stops_claims_nothing_and_gives_back_what_comes() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    seat = drained_seat(dispatch, claims, worker)
    wake(dispatch, 2)
    dispatch.run()
    (claim,) = claims.take()
    dispatch.stop()
    claim.done(ClaimReply("ok", runs(2), False))
    assert len(claims.released) == 2
    assert worker.runs == []
    dispatch.ready(seat)
    dispatch.wake("tasks.add", 0)
    dispatch.run()
    dispatch.poll()
    assert claims.take() == []


async def test_a_worker_that_is_closing_gets_nothing() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    drained_seat(dispatch, claims, worker)
    wake(dispatch, 2)
    dispatch.run()
    (claim,) = claims.take()
    worker.closing = True
    claim.done(ClaimReply("ok", runs(2), False))
    assert len(claims.released) == 2
    assert worker.runs == []
    wake(dispatch, 2)
    dispatch.run()
    dispatch.poll()
    assert claims.take() == []


async def test_runs_for_a_gone_worker_are_released() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    seat = drained_seat(dispatch, claims, worker)
    wake(dispatch, 2)
    dispatch.run()
    dispatch.leave(seat)
    claims.take()[0].done(ClaimReply("ok", runs(2), True))
    assert [(msg.run_id, msg.token) for msg in claims.released] == [
        (run.run_id, run.token) for run in runs(2)
    ]
    assert worker.runs == []


async def test_a_claim_with_unknown_outcome_is_repeated_with_its_number() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    drained_seat(dispatch, claims, worker)
    wake(dispatch, 2)
    dispatch.run()
    (claim,) = claims.take()
    claim.done(ClaimReply("unavailable", [], False))
    dispatch.run()
    assert claims.take() == []
    dispatch.poll()
    (again,) = claims.take()
    assert again[:5] == claim[:5]
    again.done(ClaimReply("ok", runs(2), True))
    assert len(worker.runs) == 2


@pytest.mark.parametrize("status", ["moved", "unknown"])
async def test_a_session_elsewhere_is_told(status: str) -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    worker = Worker("a", 5)
    seat = dispatch.seat(worker)
    dispatch.serve(seat, ["tasks.add"])
    dispatch.run()
    claims.take()[0].done(ClaimReply(status, [], True))
    assert worker.status == status


@pytest.mark.parametrize("end", ["moved", "unknown", "left", "closing"])
async def test_a_run_whose_claim_found_no_session_wakes_another_worker(end: str) -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    first, second = Worker("a", 5), Worker("b", 5)
    seats = [drained_seat(dispatch, claims, worker) for worker in (first, second)]
    # Given a claim for the one run that was submitted
    wake(dispatch, 1)
    dispatch.run()
    (claim,) = claims.take()
    worker = first if claim.session == "a" else second
    # When its session turns out to be elsewhere or over
    if end == "left":
        dispatch.leave(seats[worker is second])
    worker.closing = end == "closing"
    claim.done(ClaimReply("moved" if end == "moved" else "unknown", [], True))
    dispatch.run()
    # Then the other worker asks for the run
    (other,) = claims.take()
    assert other.session != claim.session
    assert worker.status == ("" if end in ("left", "closing") else end)


async def test_poll_asks_each_key_through_one_worker() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    drained_seat(dispatch, claims, Worker("a", 5), "tasks.add")
    drained_seat(dispatch, claims, Worker("b", 5), "tasks.add")
    drained_seat(dispatch, claims, Worker("c", 5), "tasks.sub")
    asked: list[str] = []
    for _ in range(2):
        dispatch.poll()
        made = claims.take()
        assert len(made) == 2
        for claim in made:
            asked.append(claim.session)
            claim.done(ClaimReply("ok", [], True))
    assert sorted(asked) == ["a", "b", "c", "c"]


async def test_serving_nothing_stops_the_seat() -> None:
    claims = Claims()
    dispatch = dispatch_with(claims)
    seat = drained_seat(dispatch, claims, Worker("a", 5))
    dispatch.serve(seat, ())
    dispatch.wake("tasks.add", 0)
    dispatch.poll()
    dispatch.run()
    assert claims.take() == []
    assert not dispatch.serves("tasks.add")
