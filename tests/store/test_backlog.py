"""What goes into a pipeline, in which order, and what stays behind; no server."""

from __future__ import annotations

import time
from typing import Any

from prefect_lite_broker.backlog import Backlog, Batch
from prefect_lite_broker.lanes import BYTES_PER_CALL, BYTES_PER_TURN, ClaimOp, Terms
from prefect_lite_broker.store import UNREAD, CancelReply, ClaimReply, SubmitReply

from prefect_lite.protocol.messages import Finish, RunState, Submit
from tests.store.driver import KEY, submission

TERMS = Terms(86_400_000, 600_000, 86_400_000, 2_000_000, 1000, 250)
IDS = "0123456789abcdef" * 2


class Shard:
    """A backlog whose answers are recorded."""

    def __init__(self) -> None:
        self.ready: list[list[str]] = []
        self.backlog = Backlog(TERMS, 5.0, self.ready.append)
        self.submits: list[SubmitReply] = []
        self.cancels: list[CancelReply] = []
        self.claims: list[ClaimReply] = []
        self.states: list[RunState] = []

    def submit(self, *msgs: Submit) -> None:
        lane = self.backlog.submit
        for msg in msgs:
            lane.pending.append((msg, self.submits.append, time.monotonic()))
            lane.bytes += len(msg.body) + len(msg.info)

    def cancel(self, run_id: str) -> None:
        self.backlog.cancel.pending.append((run_id, self.cancels.append, time.monotonic()))

    def claim(self) -> None:
        self.backlog.claim.pending.append(ClaimOp("w", 1, 1, 10, "base.", self.claims.append))

    def lookup(self, *run_ids: str) -> None:
        now = time.monotonic()
        self.backlog.lookup.pending += [(run_id, self.states.append, now) for run_id in run_ids]

    def scripts(self) -> list[str]:
        return [batch.lane.script for batch in self.backlog.collect()]


def settled(shard: Shard, batches: list[Batch]) -> None:
    for batch in batches:
        if batch.lane is shard.backlog.submit:
            shard.backlog.settle(batch, len(batch.ops))


def test_a_claim_sees_what_came_with_it_and_a_cancel_its_run() -> None:
    shard = Shard()
    shard.claim()
    msg = submission()
    shard.cancel(msg.run_id)
    shard.submit(msg)
    assert shard.scripts() == ["submit", "cancel", "claim"]


def test_submits_of_a_turn_that_was_too_full_wake_their_keys_when_they_are_written() -> None:
    # Given more submits than a pipeline takes, and a claim of the same turn
    shard = Shard()
    shard.submit(*(submission() for _ in range(450)), submission(countdown_seconds=9, key="delayed"))
    shard.claim()
    first = shard.backlog.collect()
    assert [len(batch.ops) for batch in first] == [100] * 4 + [1]
    settled(shard, first)
    assert shard.ready == [], "the claim saw these"
    # When the rest is written
    second = shard.backlog.collect()
    assert sum(len(batch.ops) for batch in second) == 51
    settled(shard, second)
    # Then whoever claimed too early is told
    assert shard.ready == [[KEY]]
    shard.submit(submission())
    settled(shard, shard.backlog.collect())
    assert shard.ready == [[KEY]]


def test_submits_that_are_repeated_wake_their_keys() -> None:
    shard = Shard()
    shard.submit(submission())
    shard.backlog.redo += shard.backlog.collect()
    shard.claim()
    batches = shard.backlog.collect()
    assert [batch.lane.script for batch in batches] == ["submit", "claim"]
    settled(shard, batches)
    assert shard.ready == [[KEY]]


def test_submits_wait_while_redis_is_full_and_all_else_goes_on() -> None:
    shard = Shard()
    refused, waiting, other = submission(), submission(), submission()
    shard.submit(refused)
    shard.backlog.redo += shard.backlog.collect()
    shard.backlog.full = True
    shard.submit(waiting)
    for run_id in (refused.run_id, waiting.run_id, other.run_id):
        shard.cancel(run_id)
    shard.claim()
    batches = shard.backlog.collect()
    assert [batch.lane.script for batch in batches] == ["cancel", "claim"]
    assert [op[0] for op in batches[0].ops] == [other.run_id], "the others would be unknown"
    shard.backlog.full = False
    batches = shard.backlog.collect()
    assert [batch.lane.script for batch in batches] == ["submit", "submit", "cancel"]
    settled(shard, batches)
    assert shard.ready == [[KEY], [KEY]]


def test_a_pipeline_is_bounded_by_bytes() -> None:
    shard = Shard()
    shard.submit(*(submission(body=b"x" * 700_000) for _ in range(40)))
    taken = 0
    while batches := shard.backlog.collect():
        sizes = [sum(len(op[0].body) for op in batch.ops) for batch in batches]
        assert max(sizes) <= BYTES_PER_CALL
        assert sum(sizes) <= BYTES_PER_TURN
        taken += sum(len(batch.ops) for batch in batches)
    assert taken == 40
    assert shard.backlog.submit.bytes == 0


def test_a_large_body_goes_alone() -> None:
    shard = Shard()
    huge = b"x" * (BYTES_PER_TURN * 2)
    shard.submit(submission(), submission(body=huge), submission(body=huge), submission())
    assert [[len(batch.ops) for batch in shard.backlog.collect()] for _ in range(4)] == [[1], [1], [1], [1]]
    result = b"r" * BYTES_PER_TURN
    lane = shard.backlog.finish
    for _ in range(3):
        lane.pending.append((Finish(IDS, "t", "COMPLETED", "", "", 1, 0.1, result), lambda reply: None))
        lane.bytes += len(result)
    assert [len(shard.backlog.collect()) for _ in range(4)] == [1, 1, 1, 0]


def test_pending_counts_everything_without_an_answer() -> None:
    shard = Shard()
    backlog = shard.backlog
    shard.submit(submission(), submission())
    backlog.redo += backlog.collect()
    backlog.started.by_token["t"] = (IDS, "t", 1)
    shard.lookup(IDS)
    assert len(backlog) == 4


def fields(state: bytes) -> list[Any]:
    return [state, b"1:tasks.add:0", *[None] * 9]


def test_one_damaged_record_harms_no_other_lookup() -> None:
    shard = Shard()
    shard.lookup("a" * 32, "b" * 32, "c" * 32)
    (batch,) = shard.backlog.collect()
    shard.backlog.settle(batch, [fields(b"R"), fields(b"?"), fields(b"R")])
    assert [state.type for state in shard.states] == ["SCHEDULED", UNREAD, "SCHEDULED"]


def test_a_callback_that_raises_harms_no_other() -> None:
    shard = Shard()

    def broken(state: RunState) -> None:
        raise RuntimeError("a bug")

    shard.lookup("a" * 32)
    shard.backlog.lookup.pending.append(("b" * 32, broken, time.monotonic()))
    shard.lookup("c" * 32)
    (batch,) = shard.backlog.collect()
    shard.backlog.settle(batch, [fields(b"R")] * 3)
    assert [(state.run_id[0], state.type) for state in shard.states] == [("a", "SCHEDULED"), ("c", UNREAD)]


def test_lookups_that_are_never_answered_are_given_up() -> None:
    shard = Shard()
    shard.lookup("a" * 32)
    shard.backlog.in_flight += shard.backlog.collect()
    shard.lookup("b" * 32)
    shard.backlog.fail_all("stopped")
    assert [(state.run_id[0], state.type) for state in shard.states] == [("a", UNREAD), ("b", UNREAD)]


def test_a_lookup_that_did_not_fit_is_asked_again() -> None:
    shard = Shard()
    shard.lookup("a" * 32, "b" * 32, "c" * 32)
    (batch,) = shard.backlog.collect()
    shard.backlog.settle(batch, [fields(b"R"), 0, 0])
    shard.lookup("d" * 32)
    (batch,) = shard.backlog.collect()
    assert [op[0][0] for op in batch.ops] == ["b", "c", "d"]


def test_an_answer_to_submits_and_a_claim_that_can_t_be_read_has_both_made_again() -> None:
    for reply in (None, 7, [], [1, 2, 3]):
        shard = Shard()
        shard.submit(submission())
        shard.claim()
        (batch,) = shard.backlog.collect()
        assert batch.lane is shard.backlog.through
        shard.backlog.settle(batch, reply)
        assert shard.submits == []
        again = shard.backlog.collect()
        assert [each.lane.script for each in again] == ["submit", "claim"]
        assert all(each.repeated for each in again)


def test_what_a_submit_says_of_its_run_counts_as_its_body_does() -> None:
    shard = Shard()
    msgs = [submission(info=b"x" * 32_000) for _ in range(100)]
    shard.submit(*msgs)
    batches = shard.backlog.collect()
    assert len(batches) > 1
    for batch in batches:
        assert sum(len(op[0].info) for op in batch.ops) <= BYTES_PER_CALL
