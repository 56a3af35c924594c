"""The history as it lies in the folder, sorted by run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class BrokenHistory(AssertionError):
    """A line in the middle of a file can't be read: nothing can be concluded from such a history."""


class Lease(NamedTuple):
    """What a broker was given by a claim."""

    at: int
    session: str
    attempt: int
    lost: int


class Start(NamedTuple):
    """An attempt that a worker was about to begin."""

    at: int
    token: str
    attempt: int
    process: str


class End(NamedTuple):
    """A terminal state as somebody saw it; ``result`` is a digest."""

    type: str
    name: str
    result: str


class Commit(NamedTuple):
    """What Redis answered to FINISH, RETRY or RELEASE; ``end`` where that ended the run, now or before."""

    at: int
    process: str
    kind: str
    token: str
    status: str
    end: End | None
    ended_ms: int


class Asked(NamedTuple):
    """A FINISH, RETRY or RELEASE on its way to Redis."""

    at: int
    process: str
    kind: str
    token: str


@dataclass
class RunHistory:
    """All that is known of one run."""

    submitted: bool = False  # by a client whose process is recorded
    arrived: bool = False  # at a broker
    acknowledged: bool = False
    refused: int = 0
    alias: bool = False  # the id was asked for, but an idempotency key stood for another
    leases: dict[str, Lease] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    reaped: list[dict[str, Any]] = field(default_factory=list)
    told: set[End] = field(default_factory=set)
    cancelled: bool = False
    replayed: bool = False
    expected: dict[str, Any] | None = None
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    waits: int = 0  # futures somebody waited for

    def asked_for(self, kind: str) -> set[str]:
        """Tokens under which this was on its way to Redis."""
        return {asked.token for asked in self.asked if asked.kind == kind}


@dataclass
class Events:
    """A whole history.

    Attributes:
        runs: By run id.
        closed: Sessions that were ended on purpose.
        roles: Of the processes that wrote it.
        peers: Events that name a ``peer``, by it: what tests say about connections of their own.
    """

    runs: dict[str, RunHistory] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)
    peers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The events of one process; the last line may lack its end, if the process was killed.

    Raises:
        BrokenHistory: Another line can't be read.
    """
    text = path.read_bytes()
    whole, _, rest = text.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            yield json.loads(line)
        except ValueError as exc:
            raise BrokenHistory(f"{path.name}, line {number}: {exc}") from exc
    del rest  # what was written when the process was killed has not happened for anybody else


def read_events(folder: Path) -> Events:
    """Read what all processes wrote.

    Raises:
        BrokenHistory: See ``lines``.
    """
    events = Events()
    for path in sorted(folder.glob("*.jsonl")):
        process = path.stem
        events.roles.add(process.partition("-")[0])
        for line in lines(path):
            _take(events, process, line)
    return events


def _take(events: Events, process: str, line: dict[str, Any]) -> None:
    if "peer" in line:
        events.peers.setdefault(line["peer"], []).append(line)
        return
    if line["event"] == "closing":
        events.closed.add(line["session"])
    run_id = line.get("run")
    if run_id is None:
        return
    run = events.runs.get(run_id)
    if run is None:
        run = events.runs[run_id] = RunHistory()
    _take_of_run(run, process, line)


def _take_of_run(run: RunHistory, process: str, line: dict[str, Any]) -> None:
    match line["event"]:
        case "submit":
            run.submitted = True
        case "arrived":
            run.arrived = True
        case "acknowledged":
            run.acknowledged = True
        case "refused":
            run.refused += 1
        case "alias":
            run.alias = True
        case "leased":
            run.leases[line["token"]] = Lease(line["at"], line["session"], line["attempt"], line["lost"])
        case "start":
            run.starts.append(Start(line["at"], line["token"], line["attempt"], process))
        case "asked":
            run.asked.append(Asked(line["at"], process, line["kind"], line["token"]))
        case "commit":
            end = _end(line) if line.get("type") else None
            ended = line.get("ended", 0)
            run.commits.append(
                Commit(line["at"], process, line["kind"], line["token"], line["status"], end, ended)
            )
        case "reaped":
            run.reaped.append(line)
        case "told":
            run.told.add(_end(line))
        case "cancel":
            run.cancelled = True
        case "replay":
            run.replayed = True
        case "expect":
            run.expected = line
        case "wait":
            run.waits += 1
        case "outcome":
            run.outcomes.append(line)
        case "stored":
            pass  # Redis has it; the promise is made with the acknowledgement
        case other:
            raise BrokenHistory(f"{process} writes {other!r}, which the checker does not know.")


def _end(line: dict[str, Any]) -> End:
    return End(line["type"], line["name"], line["result"])
