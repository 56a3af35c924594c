"""Watches: registered first, read second, told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from prefect_lite_broker import watches as module
from prefect_lite_broker.expected import EXACT
from prefect_lite_broker.store import Store
from prefect_lite_broker.watches import Watches

from prefect_lite.protocol.messages import RunState

RUN = "a" * 32
OTHER = "b" * 32


class Lookups:
    """Records lookups; the test answers them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[RunState], None]]] = []

    def lookup(self, run_id: str, done: Callable[[RunState], None]) -> None:
        self.asked.append((run_id, done))

    def answer(self, **states: str) -> int:
        asked, self.asked = self.asked, []
        for run_id, done in asked:
            done(RunState(run_id, states.get(run_id[0], "")))
        return len(asked)


class Watcher:
    def __init__(self) -> None:
        self.watched: set[str] = set()
        self.told: list[RunState] = []

    def tell(self, state: RunState) -> None:
        self.told.append(state)


def watches_with(lookups: Lookups) -> Watches:
    return Watches(cast(Store, lookups))


def test_a_run_that_has_ended_is_told_at_once() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN])
    lookups.answer(a="COMPLETED")
    assert [state.type for state in watcher.told] == ["COMPLETED"]
    assert len(watches) == 0
    assert watcher.watched == set()


def test_an_end_between_registration_and_read_is_told_once() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN])
    watches.ended(RunState(RUN, "FAILED"))
    lookups.answer(a="FAILED")
    assert [state.type for state in watcher.told] == ["FAILED"]


def test_a_running_run_is_told_when_it_ends_to_all_who_watch() -> None:
    lookups, first, second = Lookups(), Watcher(), Watcher()
    watches = watches_with(lookups)
    watches.watch(first, [RUN])
    watches.watch(second, [RUN, OTHER])
    lookups.answer(a="RUNNING", b="RUNNING")
    assert first.told == second.told == []
    watches.ended(RunState(RUN, "COMPLETED"))
    assert len(first.told) == len(second.told) == 1
    assert second.watched == {OTHER}


def test_an_unknown_run_is_told_too() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches_with(lookups).watch(watcher, [RUN])
    lookups.answer()
    assert watcher.told == [RunState(RUN)]


def test_hints_read_only_what_is_watched() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN])
    lookups.answer(a="RUNNING")
    watches.hinted([OTHER, RUN])
    assert lookups.answer(a="COMPLETED") == 1
    assert len(watcher.told) == 1


def test_lost_hints_read_everything_again() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN, OTHER])
    lookups.answer(a="RUNNING", b="RUNNING")
    watches.reread()
    assert lookups.answer(a="COMPLETED", b="RUNNING") == 2
    assert [state.run_id for state in watcher.told] == [RUN]


def test_a_run_submitted_here_is_not_read() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.expect(RUN)
    watches.watch(watcher, [RUN])
    assert lookups.asked == []
    # Asking again is how a client tells that it doubts.
    watches.watch(watcher, [RUN])
    assert len(lookups.asked) == 1


def test_a_run_submitted_here_is_read_after_a_surprise_or_lost_hints() -> None:
    for doubt in (lambda watches: watches.hinted([RUN]), lambda watches: watches.reread()):
        lookups, watcher = Lookups(), Watcher()
        watches = watches_with(lookups)
        watches.expect(RUN)
        doubt(watches)
        watches.watch(watcher, [RUN])
        assert lookups.answer(a="COMPLETED") == 1
        assert len(watcher.told) == 1


def test_a_gone_watcher_leaves_nothing() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN, OTHER])
    watches.drop(watcher)
    lookups.answer(a="COMPLETED", b="COMPLETED")
    assert watcher.told == []
    assert len(watches) == 0


def test_many_reads_go_out_in_portions() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    ids = [f"{number:032x}" for number in range(module.MAX_LOOKUPS + 30)]
    watches.watch(watcher, ids)
    assert lookups.answer(**{"0": "COMPLETED"}) == module.MAX_LOOKUPS
    assert lookups.answer(**{"0": "COMPLETED"}) == 30
    assert len(watcher.told) == len(ids)


def test_a_run_submitted_here_is_not_read_however_many_came_after_it() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    ids = [f"{number:032x}" for number in range(2 * EXACT)]
    for run_id in ids:
        watches.expect(run_id)
    watches.watch(watcher, ids)
    assert len(lookups.asked) <= module.MAX_LOOKUPS
    assert len(lookups.asked) + watches.waiting < 0.1 * EXACT
    # But when its end was seen, or may have been missed, it is
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    for run_id in ids:
        watches.expect(run_id)
    watches.ended(RunState(ids[0], "COMPLETED"))
    watches.watch(watcher, [ids[0]])
    assert [run_id for run_id, _ in lookups.asked] == [ids[0]]
    watches.reread()
    watches.watch(watcher, [ids[1]])
    assert ids[1] in [run_id for run_id, _ in lookups.asked]


def test_a_run_waits_for_its_read_once_and_leaves_with_its_watcher() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    ids = [f"{number:032x}" for number in range(module.MAX_LOOKUPS + 30)]
    for _ in range(3):  # a client renews its watches while Redis is away
        watches.watch(watcher, ids)
    assert watches.waiting == len(ids)  # those that are being read are to be read once more
    watches.unwatch(watcher, ids[:20])
    assert watches.waiting == len(ids) - 20
    watches.drop(watcher)
    assert watches.waiting == 0


def test_what_changed_during_a_read_is_read_again() -> None:
    lookups, watcher = Lookups(), Watcher()
    watches = watches_with(lookups)
    watches.watch(watcher, [RUN])
    watches.hinted([RUN])
    assert lookups.answer(a="RUNNING") == 1
    assert lookups.answer(a="COMPLETED") == 1
    assert len(watcher.told) == 1


def test_reads_that_are_never_answered_do_not_stop_the_others() -> None:
    now = 100.0
    lookups, watcher = Lookups(), Watcher()
    watches = Watches(cast(Store, lookups), clock=lambda: now)
    watches.watch(watcher, [f"{number:032x}" for number in range(module.MAX_LOOKUPS)])
    lost, lookups.asked = lookups.asked, []
    watches.watch(watcher, [RUN])
    assert lookups.asked == []
    now += module.LOST_SECONDS + 1
    watches.watch(watcher, [OTHER])
    assert [run_id for run_id, _ in lookups.asked] == [RUN, OTHER]
    lookups.answer(a="COMPLETED", b="COMPLETED")
    assert [state.run_id for state in watcher.told] == [RUN, OTHER]
    for run_id, done in lost:  # late after all, and harmless
        done(RunState(run_id, "COMPLETED"))
    assert len(watches) == 0


def test_watches_are_looked_at_from_the_second_time_on() -> None:
    watches, watcher = watches_with(Lookups()), Watcher()
    watches.watch(watcher, [RUN])
    assert watches.aged() == [], "a hint of its end may be on its way"
    assert watches.aged() == [RUN]
    watches.watch(watcher, [OTHER])
    assert watches.aged() == [RUN]
    assert sorted(watches.aged()) == [RUN, OTHER]
    watches.unwatch(watcher, [RUN])
    assert watches.aged() == [OTHER]


def test_many_watches_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AGED", 10)
    watches, watcher = watches_with(Lookups()), Watcher()
    runs = [f"{number:032x}" for number in range(25)]
    watches.watch(watcher, runs)
    assert watches.aged() == []
    looked = [watches.aged() for _ in range(3)]
    assert [len(part) for part in looked] == [10, 10, 5]
    assert sorted(run for part in looked for run in part) == runs
