"""Runs that wait for others against a model: any sequence of submits, ends, lost brokers and late calls.

A broker may forget any of its duties here; when the services have had their turns, every run must be where
its parents' ends put it, and nothing may be left at the end. ``HYPOTHESIS_PROFILE=full`` runs 500 sequences.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from prefect_lite_broker.store import ClaimedRun

from tests.store.conftest import MakeSettings
from tests.store.dependents import Desk, World
from tests.store.driver import Driver, run_id
from tests.tools.server import ValkeyServer

T = TypeVar("T")

SHARDS = 3
FULL = os.environ.get("HYPOTHESIS_PROFILE") == "full"
PROFILE = settings(
    max_examples=500 if FULL else 20,
    stateful_step_count=50 if FULL else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass
class Run:
    """What the model knows: it waits (B), is ready or executing (R), or has ended (c, f, k; u: given up)."""

    strict: list[str] = field(default_factory=list)
    tolerated: list[str] = field(default_factory=list)
    state: str = "B"


class FamilyMachine(RuleBasedStateMachine):
    loop: ClassVar[asyncio.AbstractEventLoop]
    world: ClassVar[World]

    runs = Bundle("runs")
    promised = Bundle("promised")

    def __init__(self) -> None:
        super().__init__()
        for shard in range(SHARDS):
            self.world.client_of(shard).flushdb()
        self.world.desk = Desk(self.world.store)
        self.model: dict[str, Run] = {}
        self.unknown: set[str] = set()  # waited for, and not submitted
        self.held: list[ClaimedRun] = []
        self.world.restart()
        self.wait(self.world.start())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def remember(self, forgetful: bool) -> None:
        """The broker of the next operation sees to its duties, or is killed before it can."""
        desk = self.world.desk
        store = self.world.store
        store.on_blocked = (lambda *_: None) if forgetful else desk.dependencies.blocked
        store.on_unblocked = (lambda *_: None) if forgetful else desk.dependencies.unblocked

    # -- operations ---------------------------------------------------------------------------------
    @rule(target=promised)
    def promise(self) -> str:
        """An id that others may wait for before it is submitted, if it ever is."""
        return run_id()

    @rule(
        target=runs,
        strict=st.lists(runs | promised, max_size=3),
        tolerated=st.lists(runs | promised, max_size=2),
        forgetful=st.booleans(),
        count=st.integers(1, 3),
    )
    def submit(self, strict: list[str], tolerated: list[str], forgetful: bool, count: int) -> Any:
        self.remember(forgetful)
        # Who waits for one that was given up waits its own time; the model knows one time for all.
        strict, tolerated = ([run for run in ids if not self.given_up(run)] for ids in (strict, tolerated))
        msgs = [self.world.new(parents=strict, tolerated=tolerated) for _ in range(count)]
        self.wait(self.world.submit(*msgs))
        self.wait(self.world.desk.idle())
        for msg in msgs:
            self.model[msg.run_id] = Run(list(strict), [t for t in tolerated if t not in strict])
            self.unknown.update(parent for parent in [*strict, *tolerated] if parent not in self.model)
        return multiple(*(msg.run_id for msg in msgs))

    @rule(target=runs, run=promised)
    def keep_a_promise(self, run: str) -> Any:
        if run in self.model:
            return multiple()
        self.remember(forgetful=False)
        self.wait(self.world.submit(self.world.new()._replace(run_id=run)))
        # Unknown or given up: from here on a run like others, for those who come to wait for it.
        self.model[run] = Run()
        self.unknown.discard(run)
        return run

    @rule(failing=st.booleans(), forgetful=st.booleans(), limit=st.integers(1, 3), hold=st.booleans())
    def execute(self, failing: bool, forgetful: bool, limit: int, hold: bool) -> None:
        self.remember(forgetful)
        runs = self.wait(self.world.claim(limit))
        for run in runs:
            self.check_may_run(run.run_id)
            self.model[run.run_id].state = "R"
        self.held += runs
        if hold:
            return
        self.wait(self.world.finish(self.held, "FAILED" if failing else "COMPLETED"))
        for run in self.held:
            self.model[run.run_id].state = "f" if failing else "c"
        self.held = []
        self.wait(self.world.desk.idle())

    @rule(run=runs, forgetful=st.booleans())
    def cancel(self, run: str, forgetful: bool) -> None:
        if run in {lease.run_id for lease in self.held}:
            return
        self.remember(forgetful)
        reply = self.wait(self.world.driver.cancel(run))
        if reply.status == "cancelled":
            self.model[run].state = "k"
        else:
            assert reply.status == "already"
        self.wait(self.world.desk.idle())

    @rule(child=runs, parent=runs | promised)
    def late_registration(self, child: str, parent: str) -> None:
        """A call of a slow broker arrives once more."""
        model = self.model[child]
        if parent in model.strict + model.tolerated:
            self.wait(self.world.store.watch_parents([(parent, child)]))

    @rule()
    def late_page(self) -> None:
        """A broker takes over what is due, and is killed."""
        self.world.hurry("blocked", "unblock")
        for shard in range(SHARDS):
            self.wait(self.world.store.due_dependencies(shard))

    @rule()
    def give_up_the_unknown(self) -> None:
        self.remember(forgetful=False)
        self.wait(self.world.serve())
        self.world.hurry("orphans")
        self.wait(self.world.serve())
        for run in self.unknown:
            self.model[run] = Run(state="u")
        self.unknown.clear()
        self.settle()

    @rule()
    def settle(self) -> None:
        """The services have had their turns: everything is where it belongs."""
        self.remember(forgetful=False)
        for _ in range(3):
            self.wait(self.world.serve())  # no registration has to be made again
        states = self.world.audit()
        for run, model in self.model.items():
            if model.state == "u" or states[run] in "cfkh":
                continue
            assert states[run] == ("B" if self.waits(run, states) else "L" if self.is_held(run) else "R"), run
        self.check_records(states)

    # -- what must hold -----------------------------------------------------------------------------
    def given_up(self, run: str) -> bool:
        return run in self.model and self.model[run].state == "u"

    def is_held(self, run: str) -> bool:
        return any(lease.run_id == run for lease in self.held)

    def has_ended(self, run: str, states: dict[str, str]) -> bool:
        if run in self.model and self.model[run].state == "u":
            return True
        return states.get(run, "B") in "cfkh"

    def waits(self, run: str, states: dict[str, str]) -> bool:
        model = self.model[run]
        return not all(self.has_ended(parent, states) for parent in model.strict + model.tolerated)

    def check_may_run(self, run: str) -> None:
        states = self.world.audit()
        assert not self.waits(run, states)
        assert all(states.get(parent, "u") == "c" for parent in self.model[run].strict)

    def check_records(self, states: dict[str, str]) -> None:
        """A record stays exactly as long as somebody needs it."""
        needed = {
            parent
            for run, model in self.model.items()
            if model.state != "u" and states[run] not in "cfkh"
            for parent in model.strict + model.tolerated
        }
        for run, state in states.items():
            if state in "cfk":
                record, body = self.world.life(run)
                assert (record == -1) == (run in needed), run
                assert body == -2 or (body == -1) == (run in needed), run

    @invariant()
    def keys_agree(self) -> None:
        states = self.world.audit()
        for run, state in states.items():
            if state in "RLX":
                strict = self.model[run].strict
                assert all(states.get(parent, "u") == "c" for parent in strict), "ready before its parents"
            if state == "f" and self.model[run].state == "B":
                strict = [parent for parent in self.model[run].strict if self.has_ended(parent, states)]
                assert any(states.get(parent, "u") != "c" for parent in strict), "failed without a cause"

    def teardown(self) -> None:
        self.remember(forgetful=False)
        self.give_up_the_unknown()
        self.wait(self.world.finish(self.held))
        self.held = []
        self.wait(self.world.work())
        for _ in range(3):
            self.wait(self.world.serve())
            self.wait(self.world.work())
        self.world.check_clean()


@pytest.fixture
def machine(make_settings: MakeSettings) -> Iterator[type[FamilyMachine]]:
    """The machine with a store that all examples share; each starts with an empty database."""
    server = ValkeyServer(appendonly="no")  # its own, because it is emptied
    server.start()
    chosen = make_settings(
        redis_url=server.url, shards=SHARDS, lease_seconds=600, redis_wait_seconds=3600,
        unknown_parent_seconds=3600,
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    with server.client() as client:
        driver = Driver(chosen, client)
        loop.run_until_complete(driver.start())
        FamilyMachine.loop, FamilyMachine.world = loop, World(driver, lambda _: client)
        yield FamilyMachine
        loop.run_until_complete(driver.stop())
    loop.close()
    server.close()


@pytest.mark.timeout(1200)
def test_families_agree_with_the_model(machine: type[FamilyMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    # The loop stands still between the steps: nothing may be bound by the time that passes there.
    monkeypatch.setattr("prefect_lite_broker.writer.EXCHANGE_SECONDS", 3600.0)
    run_state_machine_as_test(machine, settings=PROFILE)
