"""A broker of a few lines around real ``BrokerSession`` objects, with a store that can't lose anything.

It is a model for tests of the sessions: what it takes for granted (fencing by token, epochs, repeats that
answer ``already``) is what the real store promises.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from prefect_lite.protocol import messages as m
from prefect_lite.protocol.broker_session import BrokerSession
from prefect_lite.protocol.session import Session
from tests.protocol.pairs import broker


@dataclass
class Record:
    """A run in the store."""

    body: bytes
    status: str = "ready"  # ready, leased, ended
    token: str = ""
    last_commit: str = ""
    attempt: int = 1
    commits: int = 0
    excuses: int = 0  # reasons for another execution


@dataclass
class Link:
    """A connection: frames on their way, and the broker's end of it."""

    end: BrokerSession
    session: str = ""
    epoch: int = 0
    alive: bool = True
    to_broker: deque[bytes] = field(default_factory=deque)
    to_peer: deque[bytes] = field(default_factory=deque)


class MiniBroker:
    """Shared by all connections of a test."""

    def __init__(self) -> None:
        self.runs: dict[str, Record] = {}
        self.sessions: dict[str, int] = {}  # session -> epoch
        self.held: dict[str, dict[str, str]] = {}  # session -> token -> run id
        self.watchers: dict[str, list[Link]] = {}
        self.statuses: Counter[str] = Counter()
        self.made = 0

    def link(self) -> Link:
        return Link(broker(max_payload_bytes=1 << 22))

    def receive(self, link: Link, frame: bytes) -> None:
        for message in link.end.receive(frame):
            handler = getattr(self, f"on_{type(message).__name__.lower()}", None)
            if handler is not None:
                handler(link, message)
        self.flush(link)

    def flush(self, link: Link) -> None:
        for frame in link.end.data_to_send():
            if link.alive:
                link.to_peer.append(frame)

    # -- sessions ---------------------------------------------------------------------------------

    def on_hello(self, link: Link, hello: m.Hello) -> None:
        resumed = hello.session in self.sessions and hello.secret == b"secret"
        if resumed:
            link.session = hello.session
        else:
            self.made += 1
            link.session = f"s{self.made}"
        link.epoch = self.sessions[link.session] = self.sessions.get(link.session, 0) + 1
        held = [[run_id, token] for token, run_id in self.held.setdefault(link.session, {}).items()]
        link.end.welcome(link.session, b"secret", link.epoch, resumed=resumed, held=held)

    def end_session(self, session: str) -> None:
        """What the reaper does: all its leases are lost."""
        self.sessions.pop(session, None)
        for token, run_id in self.held.pop(session, {}).items():
            self.runs[run_id].excuses += 1
            self.free(run_id, token)

    def free(self, run_id: str, token: str) -> None:
        record = self.runs[run_id]
        if record.status == "leased" and record.token == token:
            record.status = "ready"
            for held in self.held.values():
                held.pop(token, None)

    def current(self, link: Link) -> bool:
        return self.sessions.get(link.session) == link.epoch

    def on_renew(self, link: Link, renew: m.Renew) -> None:
        if not self.current(link):
            return  # moved
        for run_id, token in link.end.unreceived_and_unheld(renew):
            self.free(run_id, token)
        held = self.held.get(link.session, {})
        link.end.send(m.Revoke([lease for lease in renew.held if lease[1] not in held]))

    def dispatch(self, link: Link) -> None:
        if not self.current(link) or not link.alive or not link.end.welcomed:
            return
        for run_id, record in self.runs.items():
            if link.end.credit <= 0:
                break
            if record.status == "ready":
                self.made += 1
                record.status, record.token = "leased", f"t{self.made}"
                self.held[link.session][record.token] = run_id
                link.end.push_run(run_id, record.token, "k", record.attempt, 0, record.body)
        self.flush(link)

    # -- runs -------------------------------------------------------------------------------------

    def on_submit(self, link: Link, message: m.Submit) -> None:
        self.runs.setdefault(message.run_id, Record(message.body))
        link.end.send(m.Accepted([message.run_id]))

    def on_watch(self, link: Link, message: m.Watch) -> None:
        for run_id in message.run_ids:
            if run_id in self.runs and self.runs[run_id].status == "ended":
                link.end.send(m.RunState(run_id, "COMPLETED", result=self.runs[run_id].body))
            else:
                self.watchers.setdefault(run_id, []).append(link)

    def commit(self, link: Link, run_id: str, token: str) -> bool:
        record = self.runs[run_id]
        if record.status == "leased" and record.token == token:
            self.free(run_id, token)
            record.last_commit = token
            status = "ok"
        else:
            status = "already" if record.last_commit == token else "stale"
        self.statuses[status] += 1
        link.end.send(m.Done([[run_id, token, status]]))
        return status == "ok"

    def on_finish(self, link: Link, message: m.Finish) -> None:
        if self.commit(link, message.run_id, message.token):
            record = self.runs[message.run_id]
            record.status = "ended"
            record.commits += 1
            assert message.result == record.body
            for watcher in self.watchers.pop(message.run_id, []):
                watcher.end.send(m.RunState(message.run_id, "COMPLETED", result=message.result))
                self.flush(watcher)

    def on_retry(self, link: Link, message: m.Retry) -> None:
        if self.commit(link, message.run_id, message.token):
            self.runs[message.run_id].attempt = message.attempt
            self.runs[message.run_id].excuses += 1

    def on_release(self, link: Link, message: m.Release) -> None:
        if self.commit(link, message.run_id, message.token):
            self.runs[message.run_id].excuses += 1


def drain(source: Session, link: Link) -> None:
    """What a peer's pump does."""
    link.to_broker.extend(source.data_to_send())
