"""A client, a worker and a broker under lost connections, late frames and repeated answers.

Frames of a lost connection may still reach the broker after the next connection was made, in any order
among connections. At the end everything must have happened once.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.peer_session import PeerSession
from tests.protocol.mini_broker import Link, MiniBroker, drain
from tests.protocol.pairs import peer, run_id

SLOTS = 3
which = st.sampled_from(["client", "worker"])


class Deployment(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = MiniBroker()
        self.peers: dict[str, PeerSession] = {
            role: peer(role, max_payload_bytes=1 << 22) for role in ("client", "worker")
        }
        self.links: dict[str, Link | None] = {"client": None, "worker": None}
        self.lost: list[Link] = []  # dead connections whose frames may still arrive
        self.now = 0.0
        self.submitted = 0
        self.sent: dict[str, bytes] = {}
        self.accepted: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.executing: dict[str, str] = {}  # token -> run id
        self.bodies: dict[str, bytes] = {}
        self.executions: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.committed: set[str] = set()
        self.answered: Counter[str] = Counter()
        self.peers["worker"].serve(["k"])
        self.peers["worker"].set_free(SLOTS)

    # -- the applications -------------------------------------------------------------------------

    def take(self, role: str, messages: list[m.Message]) -> None:
        worker = self.peers["worker"]
        for message in messages:
            match message:
                case m.Accepted():
                    self.accepted.update(message.run_ids)
                case m.RunState():
                    self.ended[message.run_id] += 1
                case m.Run():
                    self.executing[message.token] = message.run_id
                    self.bodies[message.token] = message.body
                    self.executions[message.run_id] += 1
                    self.tokens[message.token] += 1
                    worker.started(message.run_id, message.token, message.attempt)
                case m.Revoke():
                    for _, token in message.leases:
                        assert self.executing.pop(token, None) is not None
                        worker.forget(token)
                case m.Done():
                    self.answered.update(token for _, token, _ in message.answers)
                case m.Error():
                    raise AssertionError(message)
                case _:
                    pass
        if role == "worker":
            worker.set_free(SLOTS - len(self.executing))

    # -- what happens -----------------------------------------------------------------------------

    @rule(number=st.integers(1, 4), size=st.sampled_from([10, 100_000, 600_000]))
    def submit(self, number: int, size: int) -> None:
        for _ in range(number):
            self.submitted += 1
            name = run_id(self.submitted)
            body = name.encode() + b"x" * size
            self.sent[name] = body
            self.peers["client"].submit(m.Submit(name, "k", body))
            self.peers["client"].watch([name])

    @rule(role=which)
    def connect(self, role: str) -> None:
        self.drop(role)
        self.links[role] = self.broker.link()
        self.peers[role].connect()

    @rule()
    def connect_after_the_session_ended(self) -> None:
        welcome = self.peers["worker"].welcome
        self.drop("worker")
        if welcome is not None:
            self.broker.end_session(welcome.session)
        self.connect("worker")

    @rule(role=which)
    def drop(self, role: str) -> None:
        link = self.links[role]
        if link is not None:
            link.alive = False
            self.lost.append(link)
            self.links[role] = None

    @precondition(lambda self: self.lost)
    @rule(data=st.data(), number=st.integers(0, 5))
    def late_frames_arrive(self, data: st.DataObject, number: int) -> None:
        link = data.draw(st.sampled_from(self.lost))
        for _ in range(min(number, len(link.to_broker))):
            self.broker.receive(link, link.to_broker.popleft())

    @initialize(number=st.integers(1, 6))
    def begin(self, number: int) -> None:
        for role in ("client", "worker"):
            self.connect(role)
        self.submit(number, 10)
        self.all_is_well(2)

    @rule(rounds=st.integers(1, 3))
    def all_is_well(self, rounds: int) -> None:
        """Without this, random steps seldom get as far as a run that is executed."""
        for _ in range(rounds):
            for role in ("client", "worker"):
                self.send(role, 10_000)
                self.receive(role, 10_000)
            self.dispatch()

    @rule(role=which, number=st.integers(1, 6))
    def send(self, role: str, number: int) -> None:
        link = self.links[role]
        if link is not None:
            drain(self.peers[role], link)
            for _ in range(min(number, len(link.to_broker))):
                self.broker.receive(link, link.to_broker.popleft())

    @rule(role=which, number=st.integers(1, 6))
    def receive(self, role: str, number: int) -> None:
        link = self.links[role]
        if link is not None:
            for _ in range(min(number, len(link.to_peer))):
                self.take(role, self.peers[role].receive(link.to_peer.popleft()))

    @rule()
    def dispatch(self) -> None:
        link = self.links["worker"]
        if link is not None:
            self.broker.dispatch(link)

    @rule()
    def renew(self) -> None:
        self.now += 5.0
        worker = self.peers["worker"]
        worker._heard = True  # silence is not the subject here
        worker.tick(self.now)

    @precondition(lambda self: self.executing)
    @rule(data=st.data(), how=st.sampled_from(["finish", "finish", "finish", "retry", "release"]))
    def work(self, data: st.DataObject, how: str) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.executing))), how)

    def end(self, token: str, how: str) -> None:
        worker = self.peers["worker"]
        name = self.executing.pop(token)
        body = self.bodies.pop(token)
        if how == "finish":
            worker.finish(m.Finish(name, token, "COMPLETED", "Completed", "", 1, 0.0, body))
        elif how == "retry":
            worker.retry(m.Retry(name, token, 0.0, 2))
        else:
            worker.release(m.Release(name, token))
        self.committed.add(token)
        worker.set_free(SLOTS - len(self.executing))

    @precondition(lambda self: self.accepted or self.answered)
    @rule(data=st.data())
    def answers_are_repeated(self, data: st.DataObject) -> None:
        client, worker = self.links["client"], self.links["worker"]
        if self.accepted and client is not None and client.end.welcomed:
            client.end.send(m.Accepted([data.draw(st.sampled_from(sorted(self.accepted)))]))
            self.broker.flush(client)
        if self.answered and worker is not None and worker.end.welcomed:
            token = data.draw(st.sampled_from(sorted(self.answered)))
            worker.end.send(m.Done([[run_id(1), token, "ok"]]))
            self.broker.flush(worker)

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def nothing_happens_twice(self) -> None:
        assert len(self.executing) <= SLOTS
        assert all(count == 1 for count in self.tokens.values())
        assert all(count == 1 for count in self.accepted.values())
        assert all(count == 1 for count in self.ended.values())
        assert all(count == 1 for count in self.answered.values())
        for name, record in self.broker.runs.items():
            assert record.commits == (record.status == "ended")
            assert self.executions[name] <= 1 + record.excuses

    def teardown(self) -> None:
        """With connections that hold, everything ends."""
        for role in ("client", "worker"):
            self.connect(role)
        for _ in range(20 + 4 * self.submitted):
            for role in ("client", "worker"):
                self.send(role, 10_000)
                self.receive(role, 10_000)
            if self.settled():
                break
            self.dispatch()
            self.renew()
            for token in sorted(self.executing):
                self.end(token, "finish")
        self.nothing_happens_twice()
        assert self.settled()
        assert len(self.ended) == len(self.accepted) == len(self.broker.runs) == self.submitted
        assert {name: record.body for name, record in self.broker.runs.items()} == self.sent
        assert set(self.answered) == self.committed

    def settled(self) -> bool:
        idle = not any(link is None or link.to_broker or link.to_peer for link in self.links.values())
        ended = len(self.ended) == self.submitted
        return idle and ended and not self.peers["worker"].held and not self.peers["client"].unanswered


Deployment.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestDeployment = Deployment.TestCase
