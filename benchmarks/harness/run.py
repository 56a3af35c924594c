"""The whole measurement: rounds of all peers and cases in a rotating order, values written as they come."""

from __future__ import annotations

import datetime
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from harness.cases.costs import measure_costs
from harness.cases.growth import measure_growth
from harness.cases.limits import measure_limits
from harness.cases.payloads import measure_payloads
from harness.cases.roundtrip import measure_round_trips
from harness.cases.sleeps import measure_sleeps
from harness.cases.throughput import measure_throughput
from harness.declaration import Peer
from harness.machine import describe_machine
from harness.peer_round import PeerRound
from harness.peers import load_peer
from harness.plan import Plan, plan_lines
from harness.samples import Journal, make_skip
from harness.scratch import scratch_root
from harness.venvs import NotInstalled, is_installed, python_of, versions_of

GROWTH, LIMITS = "growth", "limits"


@dataclass(frozen=True)
class ReadyPeer:
    """A peer that is installed.

    Attributes:
        versions: By distribution.
        given_up: Case and variant of what failed in this run.
    """

    peer: Peer
    python: Path
    versions: dict[str, str]
    given_up: set[tuple[str, str]]


class Run:
    """One execution of a plan.

    Args:
        plan: What to measure.
        console: For progress and failures.
    """

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._journal = Journal(plan.journal)
        self._peers: dict[str, Any] = {}
        self._ready: dict[str, ReadyPeer] = {}
        self._started = datetime.datetime.now(datetime.UTC)

    def execute(self) -> dict[str, Any]:
        """Measure everything; returns the results as they are stored."""
        declared = [load_peer(name) for name in self._plan.peers]
        missing = sum(not is_installed(peer) for peer in declared)
        for line in plan_lines(self._plan, declared, missing):
            self._console.print(line, highlight=False)
        with Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        ) as progress:
            bar = progress.add_task("installing", total=None)
            self._install(declared, lambda name: progress.update(bar, description=f"installing {name}"))
            parts = [(number, part) for number in range(self._plan.rounds) for part in self._parts(number)]
            progress.update(bar, total=len(parts))
            for number, part in parts:
                progress.update(bar, description=f"round {number + 1}: {part}")
                if not self._journal.is_finished(number, part):
                    started = time.monotonic()
                    self._measure_part(number, part)
                    self._journal.finish(number, part)
                    self._tell(f"round {number + 1}: {part} took {time.monotonic() - started:.0f} s")
                progress.advance(bar)
        return self._results()

    def _install(self, declared: list[Peer], tell: Callable[[str], None]) -> None:
        for name, peer in zip(self._plan.peers, declared, strict=True):
            tell(name)
            versions: dict[str, str] = {}
            try:
                python = python_of(peer)
                versions = versions_of(peer, python)
                self._ready[name] = ReadyPeer(peer, python, versions, set())
            except NotInstalled as error:
                self._console.print(f"{name} is skipped: {error}")
                self._journal.write(make_skip(name, "", "", f"not installed: {error}"))
            self._peers[name] = {
                "title": peer.title,
                "versions": versions,
                "settings": peer.settings,
                "layouts": {layout: asdict(value) for layout, value in peer.layouts.items()},
                "skips": peer.skips,
            }

    def _tell(self, text: str) -> None:
        """Into a log, which shows no bar."""
        if not self._console.is_terminal:
            self._console.print(text, highlight=False)

    def _parts(self, number: int) -> list[str]:
        """The order of one round: another peer is first each time. F and G are in the first round only."""
        names = list(self._ready)
        shift = number % len(names) if names else 0
        parts = names[shift:] + names[:shift]
        if number:
            return parts
        if "G" in self._plan.cases:
            parts.insert(parts.index("prefect_lite") if "prefect_lite" in parts else 0, LIMITS)
        if "F" in self._plan.cases:
            parts.append(GROWTH)
        return parts

    def _measure_part(self, number: int, part: str) -> None:
        """One peer, or F or G, in one round; what goes wrong there is written down, and the run goes on."""
        scale = self._plan.scale
        try:
            if part == LIMITS:
                measure_limits(number, self._journal.write, scale)
            elif part == GROWTH:
                measure_growth(number, self._journal.write, scale)
            else:
                self._measure_peer(number, self._ready[part])
        except Exception as error:
            self._console.print(f"round {number}, {part}: {error!r}\n{traceback.format_exc(limit=-3)}")
            case = {LIMITS: "G", GROWTH: "F"}.get(part, "")
            name = "prefect_lite" if case else part
            self._journal.write(make_skip(name, case, "", f"round {number}: {error}"))

    def _measure_peer(self, number: int, ready: ReadyPeer) -> None:
        plan = self._plan
        turn = PeerRound(ready.peer, number, ready.python, plan.seconds, self._journal.write, ready.given_up)
        try:
            throughputs = measure_throughput(turn) if {"A", "E"} & set(plan.cases) else []
            if "E" in plan.cases:
                measure_costs(turn, throughputs)  # before another case adds to the peaks of memory
            if "B" in plan.cases:
                measure_round_trips(turn)
            if "D" in plan.cases:
                measure_payloads(turn)
            if "C" in plan.cases:
                measure_sleeps(turn)
        finally:
            turn.close()

    def _results(self) -> dict[str, Any]:
        ended = datetime.datetime.now(datetime.UTC)
        meta = {
            "date": self._started.date().isoformat(),
            "minutes": round((ended - self._started).total_seconds() / 60, 1),
            "rounds": self._plan.rounds,
            "seconds": self._plan.seconds,
            "cases": list(self._plan.cases),
            "machine": describe_machine(),
        }
        return {"meta": meta, "peers": self._peers, "samples": self._journal.samples}


def run(plan: Plan, console: Console) -> dict[str, Any]:
    """Measure what the plan says.

    Returns:
        ``meta`` (date, machine, plan), ``peers`` (versions and settings by name) and ``samples``.
    """
    with scratch_root():
        return Run(plan, console).execute()
