"""The history checker: joins every submit, lease, start and commit, and says what was promised and not kept.

Every process of a test writes what it did (``recording.py``). A process may be killed between an act and the
line about it, so the checker draws conclusions only from lines that are written on the safe side of the act:
``arrived`` and ``asked`` before Redis is asked, ``leased`` before anybody can start the run, ``start`` before
the user's code, ``acknowledged`` after the client has the answer. What is missing after a kill, it takes from
Redis itself: the terminal record, and the number of lost leases that comes with each lease.

=======================  =================================================================================
verdict                  meaning
=======================  =================================================================================
lost                     acknowledged, and Redis has no terminal record of it at the end
unexpected               it ended otherwise than expected, two observers saw different ends or values, it was
                         executed though nobody had submitted it, or under a lease that nobody gave
double_commits           two leases ended one run, one ended it after the next had been given, or the
                         terminal record changed afterwards
unexplained_duplicates   an attempt was started again and the lease before had not ended: not reaped (the
                         count of lost leases tells), not given back, its session not closed
unresolved               a future that was waited for told nothing in time
held_peers               a peer that had stopped reading was not cut at the write deadline
=======================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from prefect_lite.states import TERMINAL_TYPES
from tests.chaos.duplicates import unexplained_starts
from tests.chaos.events import Commit, End, Events, RunHistory, read_events

SHOWN = 10
"""Runs of each verdict in an assertion's message."""

USUAL_ENDS = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""How a run may end of which no test said what it expects: a Crashed one needs a word."""


class Truth(NamedTuple):
    """What Redis says of a run at the end; type "" when it has no record."""

    type: str
    name: str = ""
    result: str = ""
    ended_ms: int = 0


ReadTruth = Callable[[list[str]], Mapping[str, Truth]]


class Report(NamedTuple):
    """Counts of runs; ``runs`` has, by verdict, the run ids (or peers) with the reason.

    ``repeated`` counts starts of an attempt that had been started before, with a cause; ``stale`` commits
    that came too late and were refused. Both are no faults.
    """

    acknowledged: int
    ok: int
    lost: int
    unexpected: int
    double_commits: int
    unexplained_duplicates: int
    unresolved: int
    held_peers: int
    runs: dict[str, dict[str, str]]
    starts: int = 0
    repeated: int = 0
    stale: int = 0
    reaped: int = 0

    def __str__(self) -> str:
        counts = ", ".join(
            f"{name} {getattr(self, name):,}" for name in self._fields if name != "runs"
        ).replace("_", " ")
        parts = [counts]
        for verdict, reasons in self.runs.items():
            parts += [f"  {verdict}: {run}: {why}" for run, why in list(reasons.items())[:SHOWN]]
        return "\n".join(parts)


class History:
    """The history in a folder.

    Args:
        folder: Where the processes wrote it.
        truth: Reads what Redis has of given runs at the end; without it, what was observed has to do.
        ends: How a run may end of which nobody wrote what to expect (event ``expect``).
    """

    def __init__(
        self, folder: Path, truth: ReadTruth | None = None, *, ends: Collection[str] = USUAL_ENDS
    ) -> None:
        self._folder = folder
        self._read_truth = truth
        self._ends = frozenset(ends)

    def report(self) -> Report:
        """Judge every run.

        Raises:
            BrokenHistory: A file has a line that can't be read, and it is not the last one.
        """
        events = read_events(self._folder)
        truth = self._read_truth(list(events.runs)) if self._read_truth is not None else None
        verdicts: dict[str, dict[str, str]] = {
            "lost": {},
            "unexpected": {},
            "double_commits": {},
            "unexplained_duplicates": {},
            "unresolved": {},
            "held_peers": _held_peers(events),
        }
        ok = repeated = 0
        for run_id, run in events.runs.items():
            final = _final(run, None if truth is None else truth.get(run_id, Truth("")))
            causes, twice = unexplained_starts(run, events)
            repeated += twice
            reasons = {
                "lost": _lost(run, final),
                "unexpected": self._unexpected(run, final, events),
                "double_commits": _double_commit(run, final),
                "unexplained_duplicates": causes,
                "unresolved": _unresolved(run),
            }
            for verdict, reason in reasons.items():
                if reason:
                    verdicts[verdict][run_id] = reason
            ok += run.acknowledged and not any(reasons.values())
        return Report(
            acknowledged=sum(run.acknowledged for run in events.runs.values()),
            ok=ok,
            **{verdict: len(reasons) for verdict, reasons in verdicts.items()},
            runs={verdict: reasons for verdict, reasons in verdicts.items() if reasons},
            starts=sum(len(run.starts) for run in events.runs.values()),
            repeated=repeated,
            stale=sum(commit.status == "stale" for run in events.runs.values() for commit in run.commits),
            reaped=sum(len(run.reaped) for run in events.runs.values()),
        )

    def check(self) -> Report:
        """The report.

        Raises:
            AssertionError: A promise was not kept, or the history is empty.
        """
        report = self.report()
        assert report.acknowledged, f"No submit was acknowledged in the history of {self._folder}."
        assert not report.runs, f"{report}"
        return report

    def _unexpected(self, run: RunHistory, final: Truth | None, events: Events) -> str:
        if run.starts and not (run.submitted or run.arrived):
            return "it was executed, and nobody had submitted it"
        if "broker" in events.roles:
            for start in run.starts:
                if start.token not in run.leases:
                    return f"{start.process} started it under a lease that no broker was given"
        if final is None or final.type not in TERMINAL_TYPES:
            return ""
        wanted = run.expected["type"] if run.expected is not None else None
        if final.type not in ({wanted} if wanted else self._ends):
            return f"it ended {final.type}, not {wanted or ' or '.join(sorted(self._ends))}"
        return _differing(run, final) or _wrong_outcome(run, wanted)


def _final(run: RunHistory, truth: Truth | None) -> Truth | None:
    """Redis's word, or what was observed where Redis was not asked."""
    if truth is not None:
        return truth
    for commit in run.commits:
        if commit.end is not None:
            return Truth(*commit.end)
    for end in run.told:
        return Truth(*end)
    for reaped in run.reaped:
        if reaped["outcome"] in ("crashed", "cancelled"):
            return Truth(reaped["outcome"].upper())
    return None


def _lost(run: RunHistory, final: Truth | None) -> str:
    if not run.acknowledged:
        return ""
    if final is None:
        return "acknowledged; nobody saw its end"
    if final.type in TERMINAL_TYPES:
        return ""
    return f"acknowledged; Redis says {final.type or 'nothing'} of it"


def _double_commit(run: RunHistory, final: Truth | None) -> str:
    ended = [commit for commit in run.commits if commit.end is not None and commit.status != "stale"]
    tokens = {commit.token for commit in ended}
    if len(tokens) > 1:
        return f"{len(tokens)} leases ended it: {', '.join(sorted(tokens))}"
    first = [commit for commit in ended if commit.status == "ok"]
    if len({commit.ended_ms for commit in first}) > 1:
        return "one lease ended it twice"
    for commit in run.commits:
        if commit.status == "ok" and (token := _given_before(run, commit)):
            return f"{commit.kind} was accepted under {commit.token} after {token} had been given"
    if final is not None and first and not run.replayed and final.ended_ms:
        if final.type not in TERMINAL_TYPES:
            return ""  # lost, then
        if first[0].ended_ms != final.ended_ms:
            return f"its terminal record changed: ended {first[0].ended_ms}, then {final.ended_ms}"
    return ""


def _given_before(run: RunHistory, commit: Commit) -> str:
    """A later lease, of which a broker knew before this commit was on its way to Redis."""
    mine = run.leases.get(commit.token)
    asked = [
        one.at
        for one in run.asked
        if (one.process, one.kind, one.token) == (commit.process, commit.kind, commit.token)
    ]
    if mine is None or not asked:
        return ""
    later = (token for token, lease in run.leases.items() if mine.at < lease.at < min(asked))
    return next(later, "")


def _differing(run: RunHistory, final: Truth) -> str:
    """Whether somebody saw another end."""
    if run.replayed:
        return ""
    seen = {commit.end for commit in run.commits if commit.end is not None} | run.told
    for end in seen:
        if end != End(final.type, final.name or end.name, final.result):
            return f"somebody saw {end.type} {end.result}, at the end it is {final.type} {final.result}"
    return ""


def _wrong_outcome(run: RunHistory, wanted: str | None) -> str:
    for outcome in run.outcomes:
        if outcome.get("error"):
            if outcome["error"] != "TimeoutError":  # that is a future without an answer
                return f"its future raised {outcome['error']}: {outcome.get('text', '')}"
        elif wanted and outcome["type"] != wanted:
            return f"its future told {outcome['type']}, not {wanted}"
        elif run.expected is not None and outcome.get("value") != run.expected.get("value"):
            return f"its future gave {outcome.get('value')!r}, not {run.expected.get('value')!r}"
    return ""


def _unresolved(run: RunHistory) -> str:
    late = sum(outcome.get("error") == "TimeoutError" for outcome in run.outcomes)
    if late:
        return f"{late} futures timed out"
    if run.waits > len(run.outcomes):
        return f"{run.waits} futures were waited for, {len(run.outcomes)} told something"
    return ""


def _held_peers(events: Events) -> dict[str, str]:
    """A test says ``stalled`` with the seconds it grants, and ``cut`` when the peer's socket is closed."""
    held: dict[str, str] = {}
    for peer, told in events.peers.items():
        stalled = next((one for one in told if one["event"] == "stalled"), None)
        if stalled is None:
            continue
        cut = next((one for one in told if one["event"] == "cut"), None)
        if cut is None:
            held[peer] = "never cut"
        elif cut["at"] - stalled["at"] > stalled["seconds"] * 1e9:
            held[peer] = f"cut after {(cut['at'] - stalled['at']) / 1e9:.1f} s, not {stalled['seconds']:g} s"
    return held
