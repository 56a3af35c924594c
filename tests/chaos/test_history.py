"""The checker itself: one hand-written history per verdict, and those that must not be blamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.events import BrokenHistory
from tests.chaos.history import History, Report, Truth

RUN = "a" * 32
DONE = {"type": "COMPLETED", "name": "Completed", "ended": 1_000, "result": "r1"}
ENDED = Truth("COMPLETED", "Completed", "r1", 1_000)


class Story:
    """Writes a history line by line, one tick of the clock after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0
        self.truth: dict[str, Truth] | None = {RUN: ENDED}

    def tell(self, process: str, event: str, **fields: Any) -> None:
        self.now += 1
        with (self.folder / f"{process}.jsonl").open("a") as file:
            file.write(json.dumps({"at": self.now, "event": event, "run": RUN, **fields}) + "\n")

    def submitted(self) -> None:
        self.tell("client-1", "submit", key="t.f")
        self.tell("broker-1", "arrived")
        self.tell("broker-1", "stored", status="accepted")
        self.tell("client-1", "acknowledged")

    def leased(self, token: str, session: str = "s1", attempt: int = 1, lost: int = 0) -> None:
        self.tell("broker-1", "leased", token=token, session=session, attempt=attempt, lost=lost)

    def started(self, token: str, attempt: int = 1, worker: str = "worker-1") -> None:
        self.tell(worker, "start", token=token, attempt=attempt)

    def committed(self, token: str, kind: str = "finish", status: str = "ok", **end: Any) -> None:
        self.tell("broker-1", "asked", kind=kind, token=token)
        self.tell("broker-1", "commit", kind=kind, token=token, status=status, **end)

    def whole_run(self, token: str = "t1") -> None:
        self.submitted()
        self.leased(token)
        self.started(token)
        self.committed(token, **DONE)
        self.tell("client-1", "told", **DONE)

    def report(self, **kwargs: Any) -> Report:
        truth = self.truth

        def read(_run_ids: list[str]) -> Mapping[str, Truth]:
            assert truth is not None
            return truth

        return History(self.folder, None if truth is None else read, **kwargs).report()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def assert_clean(report: Report) -> None:
    assert report.runs == {}
    assert (report.acknowledged, report.ok) == (1, 1)


def only(report: Report) -> tuple[str, str]:
    """The one verdict there is, and its reason."""
    assert len(report.runs) == 1, report.runs
    ((verdict, reasons),) = report.runs.items()
    assert getattr(report, verdict) == len(reasons) == 1
    assert report.ok == 0
    return verdict, next(iter(reasons.values()))


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_plain_run_is_ok(story: Story, with_truth: bool) -> None:
    story.whole_run()
    if not with_truth:
        story.truth = None
    assert_clean(story.report())


# -- lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [Truth(""), Truth("SCHEDULED", "Scheduled"), Truth("RUNNING", "Running")])
def test_acknowledged_without_an_end_is_lost(story: Story, truth: Truth) -> None:
    story.submitted()
    story.truth = {RUN: truth}
    assert only(story.report())[0] == "lost"


def test_without_redis_an_end_that_nobody_saw_is_lost(story: Story) -> None:
    story.submitted()
    story.truth = None
    assert only(story.report())[0] == "lost"


def test_an_end_that_vanished_is_lost(story: Story) -> None:
    story.whole_run()
    story.truth = {RUN: Truth("PENDING", "Pending")}
    assert only(story.report())[0] == "lost"


def test_refused_and_never_stored_is_not_lost(story: Story) -> None:
    story.tell("client-1", "submit", key="t.f")
    story.tell("client-1", "refused", code="full")
    story.truth = {RUN: Truth("")}
    report = story.report()
    assert report.runs == {}
    assert (report.acknowledged, report.ok) == (0, 0)


# -- unexpected -------------------------------------------------------------------------------------


def test_another_end_than_expected(story: Story) -> None:
    story.tell("client-1", "expect", type="FAILED")
    story.whole_run()
    assert only(story.report()) == ("unexpected", "it ended COMPLETED, not FAILED")


def test_a_crash_that_nobody_expected(story: Story) -> None:
    story.submitted()
    story.truth = {RUN: Truth("CRASHED", "Crashed")}
    assert only(story.report())[0] == "unexpected"
    assert story.report(ends={"CRASHED"}).runs == {}


def test_two_observers_see_different_results(story: Story) -> None:
    story.whole_run()
    story.tell("client-2", "told", **{**DONE, "result": "r2"})
    assert only(story.report())[0] == "unexpected"


def test_a_future_with_a_wrong_value(story: Story) -> None:
    story.tell("client-1", "expect", type="COMPLETED", value=[1, 2])
    story.whole_run()
    story.tell("client-1", "wait")
    story.tell("client-1", "outcome", type="COMPLETED", value=[1, 3])
    assert only(story.report()) == ("unexpected", "its future gave [1, 3], not [1, 2]")


def test_a_future_that_fails_by_itself(story: Story) -> None:
    story.whole_run()
    story.tell("client-1", "outcome", error="MissingResult", text="?")
    assert only(story.report())[0] == "unexpected"


def test_a_run_that_nobody_submitted(story: Story) -> None:
    story.leased("t1")
    story.started("t1")
    assert only(story.report()) == ("unexpected", "it was executed, and nobody had submitted it")


def test_a_lease_that_nobody_gave(story: Story) -> None:
    story.whole_run()
    story.tell("worker-2", "start", token="t9", attempt=2)
    verdicts = story.report().runs
    assert "no broker was given" in verdicts["unexpected"][RUN]


# -- double commits ---------------------------------------------------------------------------------


def test_two_leases_that_end_one_run(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.leased("t2", "s2", lost=1)
    story.started("t2", worker="worker-2")
    story.committed("t2", **DONE)
    story.committed("t1", **DONE)
    assert only(story.report())[0] == "double_commits"


def test_a_repeated_answer_is_no_second_commit(story: Story) -> None:
    story.whole_run()
    story.committed("t1", status="already", **{**DONE, "ended": 1_700})
    assert_clean(story.report())


def test_a_late_commit_that_was_refused_is_none(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.leased("t2", "s2", lost=1)
    story.started("t2", worker="worker-2")
    story.committed("t2", **DONE)
    story.committed("t1", status="stale")
    report = story.report()
    assert_clean(report)
    assert (report.stale, report.repeated) == (1, 1)


def test_a_commit_under_a_lease_that_was_over(story: Story) -> None:
    """Its result is the only one, but it was not this worker's to give any more."""
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.leased("t2", "s2", lost=1)
    story.committed("t1", **DONE)
    verdict, reason = only(story.report())
    assert verdict == "double_commits"
    assert "after t2 had been given" in reason


def test_a_record_that_changes(story: Story) -> None:
    story.whole_run()
    story.truth = {RUN: ENDED._replace(ended_ms=2_000)}
    assert only(story.report())[0] == "double_commits"


# -- unexplained duplicates -------------------------------------------------------------------------


def started_twice(story: Story, *, lost: int = 0, attempt: int = 1) -> Report:
    """A lease has been given and started; now another one, which ends the run."""
    story.leased("t2", "s2", attempt, lost)
    story.started("t2", attempt, "worker-2")
    story.committed("t2", **DONE)
    return story.report()


def test_a_second_start_without_a_cause(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    verdict, reason = only(started_twice(story))
    assert verdict == "unexplained_duplicates"
    assert "t1, t2" in reason


def test_a_reaped_lease_is_a_cause_even_when_its_broker_could_not_say_so(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    report = started_twice(story, lost=1)
    assert_clean(report)
    assert report.repeated == 1


def test_the_lost_lease_of_another_run_is_no_cause(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.tell("broker-1", "reaped", run="b" * 32, session="s1", outcome="suspect", lost=1)
    assert started_twice(story).unexplained_duplicates == 1


def test_given_back_is_a_cause(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.tell("broker-1", "asked", kind="release", token="t1")  # and the broker was killed
    assert_clean(started_twice(story))


def test_given_back_by_the_second_does_not_excuse_a_third(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.leased("t3", "s3")
    story.started("t3", worker="worker-3")
    story.committed("t3", "release")
    assert only(started_twice(story))[0] == "unexplained_duplicates"


def test_a_closed_session_is_a_cause_and_another_one_is_not(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.tell("broker-1", "closing", run=None, session="s9")
    assert started_twice(story).unexplained_duplicates == 1
    story.tell("broker-1", "closing", run=None, session="s1")
    assert_clean(story.report())


def test_a_retry_is_a_cause_for_the_next_attempt_only(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.committed("t1", "retry")
    assert_clean(started_twice(story, attempt=2))
    story.leased("t3", "s3", 2)
    story.started("t3", 2, "worker-3")
    story.committed("t3", "retry", status="stale")
    assert story.report().unexplained_duplicates == 1


def test_a_retry_does_not_excuse_the_same_attempt(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.committed("t1", "retry")
    assert only(started_twice(story))[0] == "unexplained_duplicates"


def test_attempts_in_place_are_not_duplicates(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1", 1)
    story.started("t1", 2)
    story.committed("t1", **DONE)
    report = story.report()
    assert_clean(report)
    assert report.repeated == 0


def test_one_lease_started_twice(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.started("t1")
    story.committed("t1", **DONE)
    assert only(story.report())[0] == "unexplained_duplicates"


def test_started_again_after_its_end(story: Story) -> None:
    """A count of lost leases that came from nowhere is no cause."""
    story.whole_run()
    story.leased("t2", "s2", lost=1)
    story.started("t2", worker="worker-2")
    assert only(story.report())[0] == "unexplained_duplicates"


def test_a_replayed_run_may_start_and_end_again(story: Story) -> None:
    story.whole_run()
    story.tell("broker-1", "replay")
    story.leased("t2", "s2")
    story.started("t2", worker="worker-2")
    assert_clean(story.report())


# -- unresolved and held ----------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [None, {"error": "TimeoutError"}])
def test_a_future_that_tells_nothing(story: Story, outcome: dict[str, str] | None) -> None:
    story.whole_run()
    story.tell("client-1", "wait")
    if outcome is not None:
        story.tell("client-1", "outcome", **outcome)
    assert only(story.report())[0] == "unresolved"


@pytest.mark.parametrize(("cut_at", "held"), [(2_000_000_000, 0), (5_000_000_000, 1), (None, 1)])
def test_a_peer_that_is_held(story: Story, cut_at: int | None, held: int) -> None:
    story.whole_run()
    story.tell("test-1", "stalled", run=None, peer="p1", seconds=4, at=500_000_000)
    if cut_at is not None:
        story.tell("test-1", "cut", run=None, peer="p1", at=cut_at)
    assert story.report().held_peers == held


# -- what kills leave behind ------------------------------------------------------------------------


def test_a_commit_its_broker_could_not_record(story: Story) -> None:
    story.submitted()
    story.leased("t1")
    story.started("t1")
    story.tell("broker-1", "asked", kind="finish", token="t1")
    assert_clean(story.report())


def test_a_truncated_last_line_has_not_happened(story: Story) -> None:
    story.whole_run()
    with (story.folder / "worker-1.jsonl").open("a") as file:
        file.write('{"at":99,"event":"start","run":"' + RUN)
    assert_clean(story.report())


def test_a_broken_line_elsewhere_is_an_error(story: Story) -> None:
    (story.folder / "worker-1.jsonl").write_text('{"at":1,"eve\n{"at":2,"event":"x"}\n')
    with pytest.raises(BrokenHistory, match=r"worker-1\.jsonl, line 1"):
        story.report()


def test_an_unknown_event_is_an_error(story: Story) -> None:
    story.tell("worker-1", "jumped")
    with pytest.raises(BrokenHistory, match="jumped"):
        story.report()


def test_check_wants_a_history_and_names_what_it_found(story: Story) -> None:
    with pytest.raises(AssertionError, match="No submit was acknowledged"):
        History(story.folder).check()
    story.submitted()
    with pytest.raises(AssertionError, match=f"lost: {RUN}: acknowledged"):
        History(story.folder).check()
