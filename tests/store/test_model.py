"""The store against a model: any sequence of operations, the same answers, and keys that agree.

Time is moved by hand (deadlines are rewritten), so nothing here waits. ``HYPOTHESIS_PROFILE=full`` runs 500
sequences of 50 steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from prefect_lite_broker.store import ClaimedRun

from tests.store.conftest import MakeSettings
from tests.store.driver import Driver, submission
from tests.store.model import CODES, GROUP_MAX, KEYS, LONGEST, MAX_LOST, ModelledStore, Run
from tests.tools.server import ValkeyServer

AUDITED_STEPS = 5
"""An audit takes longer than all else in a step; keys that do not agree still do not a few steps later."""


class StoreMachine(ModelledStore):
    """Rules are the store's operations; every answer is checked against the model."""

    runs = Bundle("runs")
    leases = Bundle("leases")
    workers = Bundle("workers")

    @initialize(target=workers)
    def first_workers(self) -> Any:
        return multiple(self.open_one(["a"]), self.open_one(list(KEYS)))

    @initialize(target=runs)
    def first_runs(self) -> Any:
        msgs = [submission(key="a", expires_seconds=7200.0, fingerprint=b"1" * 16) for _ in range(4)]
        for msg in msgs:
            self.wait(self.driver.submit(msg))
            self.model[msg.run_id] = Run(msg, "R")
            self.queue(msg.run_id)
        return multiple(*(msg.run_id for msg in msgs))

    # -- submitting -------------------------------------------------------------------------------
    @rule(
        target=runs,
        key=st.sampled_from(KEYS),
        priority=st.sampled_from((0, 0, 3, 9)),
        delayed=st.booleans(),
        expires=st.booleans(),
        idem=st.sampled_from(("", "", "k1", "k2")),
        print_=st.sampled_from((b"1" * 16, b"2" * 16)),
        large=st.booleans(),
        name=st.sampled_from(("", "label")),
    )
    def submit(
        self,
        key: str,
        priority: int,
        delayed: bool,
        expires: bool,
        idem: str,
        print_: bytes,
        large: bool,
        name: str,
    ) -> Any:
        msg = submission(
            key=key, priority=priority, idempotency_key=idem, fingerprint=print_, name=name,
            countdown_seconds=3600.0 if delayed else 0.0, expires_seconds=7200.0 if expires else 0.0,
            body=b"x" * (600_000 if large else 20),
        )  # fmt: skip
        full = (self.delayed() if delayed else self.list_length(key, str(priority))) >= LONGEST
        (reply,) = self.wait(self.driver.submit(msg))
        holder = self.holders.get((key, idem)) if idem else None
        if holder:
            same = self.model[holder].msg.fingerprint == print_
            assert (reply.status, reply.existing_id) == ("exists" if same else "conflict", holder)
            return multiple()
        if full:
            assert reply.status == "full"
            return multiple()
        assert reply.status == "accepted"
        self.model[msg.run_id] = Run(msg, "D")
        if idem:
            self.holders[key, idem] = msg.run_id
        if not delayed:
            self.queue(msg.run_id)
        return msg.run_id

    @rule(run=runs, print_=st.sampled_from((b"1" * 16, b"2" * 16)))
    def submit_again(self, run: str, print_: bytes) -> None:
        msg = self.model[run].msg
        (reply,) = self.wait(self.driver.submit(msg._replace(fingerprint=print_)))
        assert reply.status == ("exists" if msg.fingerprint == print_ else "conflict")

    # -- sessions ---------------------------------------------------------------------------------
    @rule(target=workers, keys=st.lists(st.sampled_from(KEYS), unique=True, min_size=1))
    def open_session(self, keys: list[str]) -> str:
        return self.open_one(keys)

    @rule(name=workers, right=st.booleans())
    def resume(self, name: str, right: bool) -> None:
        resumed = self.wait(self.driver.store.resume_session(name, b"digest" if right else b"guess"))
        session = self.sessions.get(name)
        if session is None or not right:
            assert resumed is None
            return
        assert resumed is not None
        session.epoch += 1
        session.number = 0
        assert resumed.epoch == session.epoch
        assert sorted(resumed.held) == sorted([run, self.model[run].token] for run in self.held_by(name))

    @rule(name=consumes(workers))
    def close(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session is None:
            assert self.wait(self.driver.store.close_session(name, 1)) == []
            return
        held = self.held_by(name)
        cancelling = {run for run in held if self.model[run].state == "K"}
        keys = self.wait(self.driver.store.close_session(name, session.epoch))
        assert keys == sorted({self.model[run].msg.task_key for run in held if run not in cancelling})
        for run in held:
            self.give_back(run)
        self.learn_order(held)

    @rule(name=consumes(workers))
    def lose(self, name: str) -> None:
        held = self.held_by(name)
        self.wait(self.driver.tick())
        if self.sessions.pop(name, None) is not None:
            self.driver.end_lease(name)
        events = {event.run_id: event for event in self.wait(self.driver.reap())}
        assert sorted(events) == sorted(held)
        for run in held:
            event, model = events[run], self.model[run]
            assert event.session == name
            model.token = model.session = ""
            if model.state == "K":
                assert event.outcome == "cancelled"
                model.state = "k"
                continue
            model.lost += 1
            assert event.lost == model.lost
            if model.lost > MAX_LOST:
                assert event.outcome == "crashed"
                model.state = "h"
                continue
            model.suspect = model.suspect or model.lost > 1 or len(held) <= GROUP_MAX
            assert event.outcome == ("suspect" if model.suspect else "ready")
            self.queue(run, head=not model.suspect)
        self.learn_order(held)

    @rule(name=workers)
    def renew(self, name: str) -> None:
        session = self.sessions.get(name)
        held = self.held_by(name)
        pairs = [[run, self.model[run].token] for run in held]
        ghost = ["f" * 32, "ghost"]
        reply = self.wait(self.driver.store.renew(name, session.epoch if session else 1, [*pairs, ghost]))
        if session is None:
            assert reply.status == "unknown"
            return
        assert (reply.status, reply.revoked) == ("ok", [ghost])
        cancelling = [pair for pair in pairs if self.model[pair[0]].state == "K"]
        assert sorted(reply.cancelling) == sorted(cancelling)

    # -- claiming ---------------------------------------------------------------------------------
    @rule(target=leases, name=workers, limit=st.integers(1, 6), twice=st.booleans(), stale=st.booleans())
    def claim(self, name: str, limit: int, twice: bool, stale: bool) -> Any:
        session = self.sessions.get(name)
        if session is None:
            assert self.wait(self.driver.claim_reply(name, limit)).status == "unknown"
            return multiple()
        if stale and session.number:
            old = self.driver.claim_reply(name, limit, session.epoch - 1, session.number)
            assert self.wait(old).status == "moved"
        session.number += 1
        ask = lambda: self.driver.claim_reply(name, limit, session.epoch, session.number)  # noqa: E731
        reply = self.wait(ask())
        if twice:
            again = self.wait(ask())
            assert sorted(again.runs) == sorted(reply.runs)
        assert reply.status == "ok"
        assert len(reply.runs) <= limit
        for run in reply.runs:
            self.take(session, run)
        if reply.drained:
            assert not self.available(session), "drained, and yet something is ready"
        else:
            assert reply.runs
        return multiple(*reply.runs)

    @rule(
        target=runs,
        name=workers,
        queues=st.lists(
            st.tuples(st.sampled_from("aab"), st.sampled_from((0, 0, 9))), min_size=1, max_size=4
        ),
        alike=st.booleans(),
        plain=st.sampled_from((True, True, False)),
        limit=st.integers(1, 4),
        copies=st.sampled_from(("", "", "before", "after", "both")),
        stale=st.sampled_from((False, False, True)),
        idle=st.booleans(),
    )
    def write_through(
        self,
        name: str,
        queues: list[tuple[str, int]],
        alike: bool,
        plain: bool,
        limit: int,
        copies: str,
        stale: bool,
        idle: bool,
    ) -> Any:
        """Submits and a claim in one call; a copy of it executed before had its answer lost, and so was made
        again in two parts, and one executed after these was late."""
        msgs = [
            submission(
                key="a" if key == "a" else "b:c", priority=priority, name=key,
                expires_seconds=0.0 if plain else 7200.0,
            )
            for key, priority in ([queues[0]] * len(queues) if alike else queues)
        ]  # fmt: skip
        if idle:
            self.run_all()
        session = self.sessions.get(name)
        moved = stale and session is not None
        turn = name, limit, session.epoch - moved if session else 1, session.number + 1 if session else 1
        copy = self.driver.through_command(msgs, *turn)
        words = self.store(msgs)
        if copies in ("before", "both"):
            self.driver.client.execute_command(*copy)
            expected = self.take_what_is_held(session) if session and not moved else []
            words = self.store(msgs)
            replies = self.wait(self.driver.submit(*msgs))
            claimed = self.wait(self.driver.claim_reply(*turn))
            assert sorted(claimed.runs) == expected
        else:
            replies, claimed = self.wait(self.driver.write_through(msgs, *turn))
            for run in claimed.runs:
                assert session is not None
                self.take(session, run)
            if claimed.status == "ok" and session:
                assert not (claimed.drained and self.available(session))
        assert [reply.status for reply in replies] == words
        assert claimed.status == ("unknown" if not session else "moved" if moved else "ok")
        if session and not moved:
            session.number += 1
        if copies in ("after", "both"):
            self.store(msgs)
            self.driver.client.execute_command(*copy)
        return multiple(*(msg.run_id for msg in msgs if msg.run_id in self.model))

    @rule(target=leases, run=runs)
    def look_at_lease(self, run: str) -> ClaimedRun:
        """So that what was claimed with its submit is committed too."""
        model = self.model[run]
        assume(model.state in "LXK")
        return ClaimedRun(run, model.token, model.msg.task_key, model.attempt, model.lost, model.msg.body)

    # -- committing -------------------------------------------------------------------------------

    @rule(lease=leases, attempt=st.integers(0, 2))
    def started(self, lease: ClaimedRun, attempt: int) -> None:
        model = self.model[lease.run_id]
        self.driver.store.started(lease.run_id, lease.token, lease.attempt + attempt)
        self.wait(self.driver.store.ping())
        if self.in_force(lease):
            model.attempt = (
                max(model.attempt, lease.attempt + attempt) if model.state != "K" else model.attempt
            )
            model.state = "K" if model.state == "K" else "X"

    @rule(
        lease=leases,
        type=st.sampled_from(sorted(CODES)),
        result=st.booleans(),
    )
    def finish(self, lease: ClaimedRun, type: str, result: bool) -> None:
        model = self.model[lease.run_id]
        valid, repeated = self.in_force(lease), lease.token in model.committed
        reply = self.wait(self.driver.finish(lease, type, result=b"r" if result else None))
        assert reply.status == ("ok" if valid else "already" if repeated else "stale")
        if valid:
            model.committed = model.committed | {lease.token}
            self.drop(lease.run_id)
            model.state = CODES[type]
            assert reply.state == self.wait(self.driver.state(lease.run_id))._replace(due_ms=0)
            self.history_agrees(lease.run_id)

    @rule(lease=leases, later=st.booleans())
    def retry(self, lease: ClaimedRun, later: bool) -> None:
        model = self.model[lease.run_id]
        valid, repeated = self.in_force(lease), lease.token in model.committed
        reply = self.wait(self.driver.retry(lease, 3600.0 if later else 0.0))
        assert reply.status == ("ok" if valid else "already" if repeated else "stale")
        if not valid:
            return
        cancelling = model.state == "K"
        model.committed = model.committed | {lease.token} if cancelling else {lease.token}
        self.drop(lease.run_id)
        if cancelling:
            model.state = "k"
            assert reply.state is not None
            assert reply.state.type == "CANCELLED"
            return
        model.attempt = max(model.attempt, lease.attempt + 1)
        self.history_agrees(lease.run_id)
        if later:
            model.state = "D"
        else:
            self.queue(lease.run_id)

    @rule(lease=leases)
    def release(self, lease: ClaimedRun) -> None:
        model = self.model[lease.run_id]
        valid, repeated = self.in_force(lease), lease.token in model.committed
        cancelling = model.state == "K"
        reply = self.wait(self.driver.release(lease))
        assert reply.status == ("ok" if valid else "already" if repeated else "stale")
        if valid:
            before = model.committed
            self.give_back(lease.run_id)
            if cancelling:
                model.committed = before | {lease.token}

    @rule(run=runs, pick=st.integers(0, 9), kind=st.sampled_from(("finish", "retry", "release", "started")))
    def stray(self, run: str, pick: int, kind: str) -> None:
        """A commit under any token but the one in force changes nothing."""
        model = self.model[run]
        token = model.tokens[pick % len(model.tokens)]
        assume(token != model.token or model.state not in "LXK")
        lease = ClaimedRun(run, token, model.msg.task_key, model.attempt, 0, b"")
        before = self.wait(self.driver.state(run))
        if kind == "started":
            self.driver.store.started(run, token, 9)
        else:
            reply = self.wait(getattr(self.driver, kind)(lease))
            if token:
                assert reply.status == ("already" if token in model.committed else "stale")
        assert self.wait(self.driver.state(run)) == before

    @rule(name=workers)
    def misuse_a_former_epoch(self, name: str) -> None:
        session = self.sessions.get(name)
        if session is None:
            return
        former, store = session.epoch - 1, self.driver.store
        assert self.wait(store.renew(name, former, [])).status == "moved"
        assert self.wait(store.serve(name, former, ["stolen"])) == "moved"
        assert self.wait(store.close_session(name, former)) == []
        self.wait(store.disconnect(name, former))
        if session.number:
            assert (
                self.wait(self.driver.claim_reply(name, 5, session.epoch, session.number - 1 or -1)).status
                == "moved"
            )

    @rule(run=runs)
    def cancel(self, run: str) -> None:
        model = self.model[run]
        reply = self.wait(self.driver.cancel(run))
        if model.state in "LXK":
            assert (reply.status, reply.session, reply.token) == ("cancelling", model.session, model.token)
            model.state = "K"
        elif model.state in "cfh":
            assert reply.status == "already"
        else:
            assert reply.status == "cancelled"
            if model.state == "R":
                self.lists[model.msg.task_key, model.lane].remove(run)
            model.state = "k"

    # -- time -------------------------------------------------------------------------------------
    @rule(run=runs)
    def due(self, run: str) -> None:
        model = self.model[run]
        assume(model.state == "D")
        self.driver.make_due(run)
        assert self.wait(self.driver.store.promote()).ready_keys == [model.msg.task_key]
        self.queue(run)

    @rule(run=runs)
    def expire(self, run: str) -> None:
        model = self.model[run]
        assume(model.msg.expires_seconds)
        self.driver.client.zadd(self.driver.prefix + "expires", {run: 1}, xx=True)
        ended = [state.run_id for state in self.wait(self.driver.store.promote()).ended]
        if model.state not in "RD":
            assert ended == []
            return
        assert ended == [run]
        if model.state == "R":
            self.lists[model.msg.task_key, model.lane].remove(run)
        model.state = "k"

    @rule(run=runs)
    def replay(self, run: str) -> None:
        model = self.model[run]
        dead = model.state == "h" and model.lost > MAX_LOST
        assert self.wait(self.driver.store.dead_replay(run)) == dead
        if dead:
            model.lost, model.suspect, model.committed = 0, False, set()
            self.queue(run)

    @rule()
    def retention(self) -> None:
        self.wait(self.driver.store.retention())

    def history_agrees(self, run: str) -> None:
        """The states told of a run are in order, and the last one is its state."""
        (record,) = self.wait(self.driver.store.read_runs([run]))
        times = [when for _, _, when, *_ in record.states]
        assert times == sorted(times)
        assert times[0] == record.state.submitted_ms
        assert tuple(record.states[-1][:2]) == (record.state.type, record.state.name)
        starts = sum(type_ == "RUNNING" for type_, *_ in record.states)
        assert starts >= min(record.state.attempt, 1)

    # -- always -----------------------------------------------------------------------------------
    @invariant()
    def states_agree_often(self) -> None:
        if next(self.steps) % AUDITED_STEPS == 0:
            self.states_agree()

    def teardown(self) -> None:
        self.states_agree()

    def states_agree(self) -> None:
        assert self.driver.audit() == {run: model.state for run, model in self.model.items()}

    @invariant()
    def suspects_are_alone(self) -> None:
        for name in self.sessions:
            assert sum(self.model[run].suspect for run in self.held_by(name)) <= 1


@pytest.fixture
def machine(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StoreMachine]]:
    """The machine with a store that all examples share; each starts with an empty database.

    Its loop stands still between the steps, so nothing may be bound by the time that passes there.
    """
    monkeypatch.setattr("prefect_lite_broker.writer.EXCHANGE_SECONDS", 3600.0)
    server = ValkeyServer(appendonly="no")  # its own, because it is emptied
    server.start()
    settings = make_settings(
        redis_url=server.url, max_lost=MAX_LOST, suspect_group_max=GROUP_MAX, max_queue_length=LONGEST,
        lease_seconds=600, redis_wait_seconds=3600, suspect_seconds=3600,
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    with server.client() as client:
        driver = Driver(settings, client)
        loop.run_until_complete(driver.start())
        StoreMachine.loop, StoreMachine.driver = loop, driver
        yield StoreMachine
        loop.run_until_complete(driver.stop())
    loop.close()
    server.close()


@pytest.mark.timeout(1200)
def test_store_agrees_with_the_model(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(machine)
