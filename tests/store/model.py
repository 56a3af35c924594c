"""What the store's state machine expects: runs, ready lists and sessions in plain Python."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine
from prefect_lite_broker.store import ClaimedRun

from prefect_lite.protocol.messages import Submit
from tests.store.driver import Driver

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
    # Every token it ever had and two it never had; of these, the ones its last commit is remembered by.
    tokens: list[str] = field(default_factory=lambda: ["forged", ""])
    committed: set[str] = field(default_factory=set)

    @property
    def lane(self) -> str:
        if self.suspect:
            return "s" if self.lost == 1 else "z"
        return str(self.msg.priority)


@dataclass
class Session:
    name: str
    keys: list[str]
    epoch: int = 1
    number: int = 0
    suspect: str = ""


class ModelledStore(RuleBasedStateMachine):
    """The model, and what several rules do with it."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    driver: ClassVar[Driver]

    def __init__(self) -> None:
        super().__init__()
        self.driver.client.flushdb()
        self.model: dict[str, Run] = {}
        self.lists: dict[tuple[str, str], list[str]] = {}  # ids in the order they would be claimed
        self.holders: dict[tuple[str, str], str] = {}  # (task key, idempotency key) -> run
        self.sessions: dict[str, Session] = {}
        self.names, self.steps = count(), count(1)
        self.wait(self.driver.tick())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def queue(self, run: str, *, head: bool = False) -> None:
        model = self.model[run]
        ids = self.lists.setdefault((model.msg.task_key, model.lane), [])
        ids.insert(0 if head else len(ids), run)
        model.state = "R"

    def list_length(self, key: str, lane: str) -> int:
        """With the ids of cancelled runs, which stay until a claim meets them."""
        return self.driver.client.llen(f"{self.driver.prefix}ready:{key}:{lane}")  # type: ignore[return-value]

    def delayed(self) -> int:
        return self.driver.client.zcard(f"{self.driver.prefix}delayed")  # type: ignore[return-value]

    def store(self, msgs: list[Submit]) -> list[str]:
        """What plain submits are to be answered, in the order in which they are about to be made."""
        lengths = {(msg.task_key, msg.priority): 0 for msg in msgs}
        for key, priority in lengths:
            lengths[key, priority] = self.list_length(key, str(priority))
        words: list[str] = []
        for msg in msgs:
            q = msg.task_key, msg.priority
            if msg.run_id in self.model:
                words.append("exists")
            elif lengths[q] >= LONGEST:
                words.append("full")
            else:
                words.append("accepted")
                lengths[q] += 1
                self.model[msg.run_id] = Run(msg, "R")
                self.queue(msg.run_id)
        return words

    def open_one(self, keys: list[str]) -> str:
        session = Session(f"w{next(self.names)}", keys)
        self.sessions[session.name] = session
        assert self.wait(self.driver.worker(session.name, *keys)) == 1
        return session.name

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

    def available(self, session: Session) -> list[tuple[str, str]]:
        """Lists that a claim of this session may take from."""
        lanes = [
            (key, lane)
            for (key, lane), ids in self.lists.items()
            if ids and key in session.keys and not (lane in "sz" and session.suspect)
        ]
        return sorted(lanes, key=lambda item: "sz9876543210".index(item[1]))

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

    def take_what_is_held(self, session: Session) -> list[ClaimedRun]:
        """The same for a claim whose answer got lost; returns, sorted, what its repeat is to answer."""
        held = self.driver.client.hgetall(f"{self.driver.prefix}h:{session.name}")
        tokens = {run.decode(): token.decode() for run, token in held.items()}  # type: ignore[union-attr]
        runs: list[ClaimedRun] = []
        for run, token in sorted(tokens.items(), key=lambda item: int(item[1].rpartition(".")[2])):
            model = self.model[run]
            if token not in model.tokens:
                msg = model.msg
                runs.append(ClaimedRun(run, token, msg.task_key, model.attempt, model.lost, msg.body))
                self.take(session, runs[-1])
        return sorted(runs)

    def run_all(self) -> None:
        """Until nothing is ready: another worker takes it and ends it."""
        name = self.open_one(list(KEYS))
        while self.driver.client.exists(f"{self.driver.prefix}open"):
            leases = self.wait(self.driver.claim(name, 50))
            for run in leases:
                self.take(self.sessions[name], run)
            for run in leases:
                assert self.wait(self.driver.finish(run)).status == "ok"
                model = self.model[run.run_id]
                model.committed = model.committed | {run.token}
                self.drop(run.run_id)
                model.state = "c"
        self.wait(self.driver.store.close_session(name, 1))
        del self.sessions[name]

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
