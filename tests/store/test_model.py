"""The store against a model: any sequence of operations, the same answers, and keys that agree.

Time is moved by hand (deadlines are rewritten), so nothing here waits. ``HYPOTHESIS_PROFILE=full`` runs 500
sequences of 50 steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from prefect_lite_broker.store import ClaimedRun

from prefect_lite.protocol.messages import Submit
from tests.store.conftest import MakeSettings
from tests.store.driver import Driver, submission
from tests.tools.server import ValkeyServer

KEYS = ("a", "b:c")
MAX_LOST = 2
GROUP_MAX = 3
LONGEST = 8
CODES = {"COMPLETED": "c", "FAILED": "f", "CANCELLED": "k", "CRASHED": "h"}

T = TypeVar("T")


@dataclass
class Run:
    """What the model knows of a run."""

    msg: Submit
    state: str
    attempt: int = 1
    lost: int = 0
    suspect: bool = False
    token: str = ""
    session: str = ""
    tokens: list[str] = field(
        default_factory=lambda: ["forged", ""]
    )  # any it ever had, and some it never had
    committed: set[str] = field(default_factory=set)  # tokens whose last commit this run remembers

    @property
    def lane(self) -> str:
        return "s" if self.suspect else str(self.msg.priority)


@dataclass
class Session:
    name: str
    keys: list[str]
    epoch: int = 1
    number: int = 0
    suspect: str = ""


class StoreMachine(RuleBasedStateMachine):
    """Rules are the store's operations; every answer is checked against the model."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    driver: ClassVar[Driver]

    runs = Bundle("runs")
    leases = Bundle("leases")
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.driver.client.flushdb()
        self.model: dict[str, Run] = {}
        self.lists: dict[tuple[str, str], list[str]] = {}  # ids in the order they would be claimed
        self.holders: dict[tuple[str, str], str] = {}  # (task key, idempotency key) -> run
        self.sessions: dict[str, Session] = {}
        self.names = count()
        self.wait(self.driver.tick())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def queue(self, run: str, *, head: bool = False) -> None:
        model = self.model[run]
        ids = self.lists.setdefault((model.msg.task_key, model.lane), [])
        ids.insert(0 if head else len(ids), run)
        model.state = "R"

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
        (reply,) = self.wait(self.driver.submit(msg))
        holder = self.holders.get((key, idem)) if idem else None
        if holder:
            same = self.model[holder].msg.fingerprint == print_
            assert (reply.status, reply.existing_id) == ("exists" if same else "conflict", holder)
            return multiple()
        if not delayed and self.list_length(key, str(priority)) >= LONGEST:
            assert reply.status == "full"
            return multiple()
        assert reply.status == "accepted"
        self.model[msg.run_id] = Run(msg, "D")
        if idem:
            self.holders[key, idem] = msg.run_id
        if not delayed:
            self.queue(msg.run_id)
        return msg.run_id

    def list_length(self, key: str, lane: str) -> int:
        """With the ids of cancelled runs, which stay until a claim meets them."""
        return self.driver.client.llen(f"{self.driver.prefix}ready:{key}:{lane}")  # type: ignore[return-value]

    @rule(run=runs, print_=st.sampled_from((b"1" * 16, b"2" * 16)))
    def submit_again(self, run: str, print_: bytes) -> None:
        msg = self.model[run].msg
        (reply,) = self.wait(self.driver.submit(msg._replace(fingerprint=print_)))
        assert reply.status == ("exists" if msg.fingerprint == print_ else "conflict")

    # -- sessions ---------------------------------------------------------------------------------
    @rule(target=workers, keys=st.lists(st.sampled_from(KEYS), unique=True, min_size=1))
    def open_session(self, keys: list[str]) -> str:
        return self.open_one(keys)

    def open_one(self, keys: list[str]) -> str:
        session = Session(f"w{next(self.names)}", keys)
        self.sessions[session.name] = session
        assert self.wait(self.driver.worker(session.name, *keys)) == 1
        return session.name

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
        events = {event.run_id: event for event in self.wait(self.driver.store.reap())}
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

    def held_by(self, name: str) -> list[str]:
        return [run for run, model in self.model.items() if model.session == name]

    def learn_order(self, moved: list[str]) -> None:
        """Runs that go back together do so in no promised order: take over the real one."""
        for (key, lane), ids in self.lists.items():
            if set(ids) & set(moved):
                real = self.driver.client.lrange(f"{self.driver.prefix}ready:{key}:{lane}", 0, -1)
                order = [run.decode() for run in real if run.decode() in ids]  # type: ignore[union-attr]
                assert sorted(order) == sorted(ids)
                ids[:] = order

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

    def available(self, session: Session) -> list[tuple[str, str]]:
        """Lists that a claim of this session may take from."""
        lanes = [
            (key, lane)
            for (key, lane), ids in self.lists.items()
            if ids and key in session.keys and not (lane == "s" and session.suspect)
        ]
        return sorted(lanes, key=lambda item: -10 if item[1] == "s" else -int(item[1]))

    def take(self, session: Session, run: ClaimedRun) -> None:
        """Check that this run was the next one of its list, and no better list was passed over."""
        model = self.model[run.run_id]
        best = self.available(session)
        assert best, "nothing was ready"
        assert model.lane == best[0][1], "a better lane was passed over"
        ids = self.lists[model.msg.task_key, model.lane]
        assert ids.pop(0) == run.run_id, "out of order"
        assert (run.task_key, run.body) == (model.msg.task_key, model.msg.body)
        assert (run.attempt, run.lost) == (model.attempt, model.lost)
        assert run.token not in model.tokens
        model.tokens.append(run.token)
        model.state, model.token, model.session = "L", run.token, session.name
        if model.suspect:
            session.suspect = run.run_id

    # -- committing -------------------------------------------------------------------------------
    def in_force(self, lease: ClaimedRun) -> bool:
        return self.model[lease.run_id].token == lease.token and self.model[lease.run_id].state in "LXK"

    def drop(self, run: str) -> None:
        model = self.model[run]
        session = self.sessions.get(model.session)
        if session and session.suspect == run:
            session.suspect = ""
        model.token = model.session = ""

    def give_back(self, run: str) -> None:
        model = self.model[run]
        model.committed = {model.token}
        cancelling = model.state == "K"
        self.drop(run)
        if cancelling:
            model.state = "k"
        else:
            self.queue(run, head=True)

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

    # -- always -----------------------------------------------------------------------------------
    @invariant()
    def states_agree(self) -> None:
        assert self.driver.audit() == {run: model.state for run, model in self.model.items()}

    @invariant()
    def suspects_are_alone(self) -> None:
        for name in self.sessions:
            assert sum(self.model[run].suspect for run in self.held_by(name)) <= 1


@pytest.fixture
def machine(valkey: ValkeyServer, make_settings: MakeSettings) -> Iterator[type[StoreMachine]]:
    """The machine with a store that all examples share; each starts with an empty database."""
    server = ValkeyServer(appendonly="no")  # its own, because it is emptied
    server.start()
    settings = make_settings(
        redis_url=server.url, max_lost=MAX_LOST, suspect_group_max=GROUP_MAX, max_queue_length=LONGEST,
        lease_seconds=600,
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
