"""The store as the broker sees it, in domain words; ``redis_store.py`` keeps it in Redis.

Hot operations enqueue and return at once; ``done`` is called on the event loop after Redis has answered
(group commit: one pipeline in flight per shard). A ``done`` must not raise. The rest are coroutines.
All of them are safe to repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from prefect_lite.protocol.messages import Finish, Release, Retry, RunState, Submit

UNREAD = "UNREAD"
"""``type`` of the answer to a lookup that could not be made; "" is that of a run without a record."""


class SubmitReply(NamedTuple):
    run_id: str
    status: str  # accepted, exists (same run again), conflict, full, unavailable, unsupported
    existing_id: str = ""  # the run an idempotency key stands for, when it is another one
    text: str = ""
    retry_after_seconds: float = -1.0
    delayed_seconds: float = 0.0  # above 0: not ready before that


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


class PromoteReply(NamedTuple):
    ready_keys: list[str]
    ended: list[RunState]  # expired ones
    next_due_seconds: float  # -1: nothing waits


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
    """See the module docstring; ``shards`` is the number of shards."""

    shards: int
    on_settled: Callable[[], None]  # called after the answers of each pipeline; the owner sets it

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
    async def resume_session(self, session: str, digest: bytes) -> Resumed | None: ...
    async def serve(self, session: str, epoch: int, task_keys: list[str]) -> str: ...
    async def renew(self, session: str, epoch: int, held: list[list[str]]) -> RenewReply: ...
    async def disconnect(self, session: str, epoch: int) -> None: ...
    async def close_session(self, session: str, epoch: int) -> list[str]: ...

    # -- services ---------------------------------------------------------------------------------
    async def reap(self, tell: Callable[[LeaseEvent], None]) -> None: ...
    async def promote(self) -> PromoteReply: ...
    async def retention(self) -> int: ...

    # -- questions --------------------------------------------------------------------------------
    async def stats(self) -> dict[str, Any]: ...
    async def served_keys(self) -> dict[str, int]: ...
    async def sessions(self) -> list[dict[str, Any]]: ...
    async def why(self, run_id: str) -> dict[str, Any]: ...
    async def read_log(self, run_id: str) -> list[list[Any]]: ...
    async def dead_list(self, limit: int) -> list[RunState]: ...
    async def dead_replay(self, run_id: str) -> bool: ...
    async def dead_drop(self, run_id: str) -> bool: ...

    # -- life -------------------------------------------------------------------------------------
    async def start(self, hints: Hints) -> list[str]:
        """Connect, check version, schema and persistence; return warnings for the log."""
        ...

    async def stop(self) -> None: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def counters(self) -> dict[str, int]: ...
