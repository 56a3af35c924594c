"""The store as the broker sees it, in domain words; ``redis_store.py`` keeps it in Redis.

Hot operations enqueue and return at once; ``done`` is called on the event loop after Redis has answered
(group commit: one pipeline in flight per shard). A ``done`` must not raise. The rest are coroutines.
All of them are safe to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from prefect_lite.protocol.kept_things import BlockName, Drop, Hold, Put
from prefect_lite.protocol.messages import Finish, Release, Retry, RunState, Submit
from prefect_lite.states import RunPhase

from .records import RunRecord

UNREAD = "UNREAD"
"""``type`` of the answer to a lookup that could not be made; "" is that of a run without a record."""


class TurnedAway(Submit):
    """A submit for which the namespace has no room: refused as ``full``, unless the run is stored already.

    Only the store can tell whether it is: the broker that stored it, or the answer, may have got lost.
    """

    __slots__ = ()


class SubmitReply(NamedTuple):
    run_id: str
    status: str  # accepted, exists (same run again), conflict, full, unavailable, unsupported
    existing_id: str = ""  # the run an idempotency key stands for, when it is another one
    text: str = ""
    retry_after_seconds: float = -1.0
    delayed_seconds: float = 0.0  # above 0: not ready before that


SubmitDone = Callable[[SubmitReply], None]


class ClaimedRun(NamedTuple):
    run_id: str
    token: str
    task_key: str
    attempt: int
    lost: int
    body: bytes


class ClaimReply(NamedTuple):
    status: str  # ok, moved (another epoch), unknown (no such session), unavailable
    runs: list[ClaimedRun]
    drained: bool  # nothing more is ready for this session in this shard
    again_seconds: float = -1.0  # a suspect waits that this session may take then, if all goes well


class CommitReply(NamedTuple):
    run_id: str
    token: str
    status: str  # ok, already, stale
    state: RunState | None = None  # the terminal state, after an accepted FINISH
    task_key: str = ""  # after RETRY and RELEASE: the key that has work now or later
    delayed_seconds: float = 0.0


class CancelReply(NamedTuple):
    run_id: str
    status: str  # cancelled (now or before), cancelling, already (ended otherwise), unknown, unavailable
    session: str = ""  # who runs it
    token: str = ""
    state: RunState | None = None


class Resumed(NamedTuple):
    epoch: int
    held: list[list[str]]  # [[run id, token], ...]
    moved: bool = False  # another connection was resumed meanwhile; this one has nothing


class RenewReply(NamedTuple):
    status: str  # ok, moved, unknown
    revoked: list[list[str]]  # of the leases the worker named, those it holds no longer
    cancelling: list[list[str]] = []  # noqa: RUF012  # leases to be cancelled, should the hint have got lost


class LeaseEvent(NamedTuple):
    """A lease that the reaper ended."""

    run_id: str
    task_key: str
    session: str
    outcome: str  # ready, suspect, cancelled, crashed
    lost: int
    state: RunState | None = None  # when that ended the run


class Repair(NamedTuple):
    """What the audit put right."""

    kind: str  # see scripts/audit.lua
    subject: str  # the run, the session or the ready list
    shard: int


class PromoteReply(NamedTuple):
    ready_keys: list[str]
    ended: list[RunState]  # expired ones
    next_due_seconds: float  # -1: nothing waits


class Resolved(NamedTuple):
    """What a run made of the end of one that it waited for."""

    run_id: str
    parent: str
    status: str  # waits (for others, or has begun), ready, delayed, failed (just now), ended
    task_key: str = ""  # of one that is ready
    delayed_seconds: float = 0.0
    state: RunState | None = None  # of one that failed


class EndedRun(NamedTuple):
    """Some of what is left to do for a run that has ended."""

    run_id: str
    outcome: str  # state letter and name, "u" when there is no record of it
    parents: list[str]  # which it needs no longer
    children: list[str]  # which wait for it


class Settlement(NamedTuple):
    """What has been done for a run; the order is that of settle.lua."""

    run_id: str
    told: list[str]  # children that know how it ended
    gone: list[str]  # children that do not need it any more
    freed: list[str]  # parents that it has let go


class DueWork(NamedTuple):
    more: bool
    ended: list[str]
    blocked: list[tuple[str, list[str]]]  # run, what it waits for


_LETTERS = {
    kind.value: "".join(phase.code for phase in RunPhase if phase.type is kind)
    for kind in {phase.type for phase in RunPhase}
}
"""Of the types of states. Names tell less: a worker may have said any."""


class RunFilter(NamedTuple):
    """Which runs are asked for.

    Attributes:
        task_key: Of their task; "" for any.
        states: Types or names, of which theirs is one; none for any.
        tags: They have all of these.
        since_ms: When they were submitted at the earliest; -1 for any time.
        until_ms: When at the latest; -1 for any time.
    """

    task_key: str = ""
    states: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    since_ms: int = -1
    until_ms: int = -1

    @property
    def letters(self) -> str:
        """The state letters that may fit, "" when all may: a name of its own can be that of any."""
        letters = ""
        for state in self.states:
            if state not in _LETTERS:
                return ""
            letters += _LETTERS[state]
        return letters

    def fits(self, record: RunRecord) -> bool:
        """Whether a record is one of them; its task and time have been looked at."""
        state = record.state
        return (
            not self.states or state.type in self.states or state.name in self.states
        ) and self.tags.issubset(record.tags)


class Slice(NamedTuple):
    """Some of the runs that fit, and where the next ones are; None: these were the last of the shard."""

    runs: list[RunRecord]
    following: str | None


class Hints(Protocol):
    """What other brokers tell; a lost hint costs time, never a run.

    ``on_ready`` is called for this broker's own submits too if they were written after claims made in their
    turn: such a claim may have found nothing.
    """

    def on_ended(self, run_ids: list[str]) -> None: ...
    def on_ready(self, task_keys: list[str]) -> None: ...
    def on_cancel(self, session: str, run_id: str, token: str) -> None: ...
    def on_hints_lost(self) -> None: ...


class Store(Protocol):
    """See the module docstring; ``shards`` is the number of shards.

    The owner sets the callbacks: ``on_settled`` is called after the answers of each pipeline, ``on_blocked``
    with a run just stored and all it waits for, ``on_unblocked`` with a run that has just ended and waited
    for others, or is waited for.
    """

    shards: int
    on_settled: Callable[[], None]
    on_blocked: Callable[[str, list[str]], None]
    on_unblocked: Callable[[str], None]

    def answers(self, shard: int) -> bool:
        """Whether the server of a shard is there and not silent, as far as is known."""
        ...

    # -- hot path ---------------------------------------------------------------------------------
    def submit(self, msg: Submit, done: Callable[[SubmitReply], None]) -> None: ...
    def claim(
        self,
        session: str,
        epoch: int,
        shard: int,
        number: int,
        limit: int,
        done: Callable[[ClaimReply], None],
    ) -> None: ...
    def started(self, run_id: str, token: str, attempt: int) -> None: ...
    def finish(self, msg: Finish, done: Callable[[CommitReply], None]) -> None: ...
    def retry(self, msg: Retry, done: Callable[[CommitReply], None]) -> None: ...
    def release(self, msg: Release, done: Callable[[CommitReply], None]) -> None: ...
    def lookup(self, run_id: str, done: Callable[[RunState], None]) -> None: ...
    def cancel(self, run_id: str, done: Callable[[CancelReply], None]) -> None: ...
    def log(self, run_id: str, lines: list[list[Any]]) -> None: ...

    # -- sessions ---------------------------------------------------------------------------------
    async def open_session(self, session: str, digest: bytes, info: dict[str, Any]) -> int: ...
    async def resume_session(
        self, session: str, digest: bytes, info: dict[str, Any] | None = None
    ) -> Resumed | None: ...
    async def serve(self, session: str, epoch: int, task_keys: list[str]) -> str: ...
    async def renew(self, session: str, epoch: int, held: list[list[str]]) -> RenewReply: ...
    async def disconnect(self, session: str, epoch: int) -> None: ...
    async def close_session(self, session: str, epoch: int) -> list[str]: ...

    # -- services ---------------------------------------------------------------------------------
    async def reap(self, tell: Callable[[LeaseEvent], None]) -> None: ...
    async def promote(self) -> PromoteReply: ...
    async def retention(self) -> int: ...
    async def audit(self, tell: Callable[[Repair], None]) -> None: ...
    async def waiting(self) -> int: ...
    async def advance(self, seconds: float) -> None: ...

    # -- dependencies -----------------------------------------------------------------------------
    async def watch_parents(self, pairs: Sequence[tuple[str, str]]) -> list[str]: ...
    async def resolve(self, outcomes: Sequence[tuple[str, str, str]]) -> list[Resolved]: ...
    async def ended(self, run_ids: Sequence[str]) -> list[EndedRun]: ...
    async def settle(self, settlements: Sequence[Settlement]) -> list[str]: ...
    async def waits(
        self, run_ids: Sequence[str], *, times_only: bool = False
    ) -> dict[str, tuple[int, list[str]]]: ...
    async def wired(self, run_ids: Sequence[str]) -> None: ...
    async def due_dependencies(self, shard: int) -> DueWork: ...

    # -- records ----------------------------------------------------------------------------------
    async def read_runs(self, run_ids: Sequence[str]) -> list[RunRecord]: ...
    async def scan_runs(self, shard: int, position: str, wanted: RunFilter) -> Slice: ...

    # -- questions --------------------------------------------------------------------------------
    async def over(self, run_ids: list[str]) -> list[str]: ...
    async def audit_totals(self) -> dict[str, int]: ...
    async def stats(self) -> dict[str, Any]: ...
    async def served_keys(self) -> dict[str, int]: ...
    async def sessions(self) -> list[dict[str, Any]]: ...
    async def why(self, run_id: str) -> dict[str, Any]: ...
    async def read_log(self, run_id: str) -> list[list[Any]]: ...
    async def dead_list(self, limit: int) -> list[RunState]: ...
    async def dead_show(self, run_id: str) -> tuple[bool, str]: ...
    async def dead_replay(self, run_id: str) -> bool: ...
    async def dead_drop(self, run_id: str) -> bool: ...

    # -- what is kept by name ---------------------------------------------------------------------
    async def keep_get(self, key: str, most: int) -> bytes | int | None:
        """An entry's body, or its length if that is over ``most``; None when there is none."""
        ...

    async def keep_put(self, put: Put, body: bytes) -> bool: ...
    async def keep_has(self, key: str) -> bool: ...
    async def keep_drop(self, key: str) -> bool: ...
    async def lock_take(self, hold: Hold) -> bool: ...
    async def lock_renew(self, hold: Hold) -> bool: ...
    async def lock_drop(self, drop: Drop) -> bool: ...
    async def lock_look(self, key: str) -> str | None: ...
    async def block_put(self, block: BlockName, document: bytes) -> int:
        """1; 0: there is one of this name; -1: there are too many."""
        ...

    async def block_size(self, block: BlockName) -> int: ...
    async def block_get(self, block: BlockName) -> bytes | None: ...
    async def block_list(self) -> list[str]: ...
    async def block_drop(self, block: BlockName) -> bool: ...

    # -- life -------------------------------------------------------------------------------------
    async def start(self, hints: Hints) -> list[str]:
        """Connect, check version, schema and persistence; return warnings for the log."""
        ...

    async def stop(self) -> None: ...
    async def readiness(self) -> str:
        """Why no run could be accepted just now, in a sentence, "" when one could; within a second."""
        ...

    @property
    def healthy(self) -> bool: ...
    @property
    def counters(self) -> dict[str, int]: ...
