"""The lanes of what a lease's holder reports (started, finish, retry, release) and of cancelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from prefect_lite.protocol.messages import Finish, Release, Retry

from .lanes import Lane, Terms, pack
from .records import CODE_OF_TYPE, finished_state, read_state, split_descriptor, unblocks, usual_name
from .store import CancelReply, CommitReply

_REPLY_WORDS = {b"o": "ok", b"a": "already", b"c": "already", b"s": "stale"}

StartedOp = tuple[str, str, int]


class StartedLane(Lane[StartedOp]):
    """By token, so that a FINISH of the same turn makes its STARTED superfluous."""

    script = "started"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self.by_token: dict[str, StartedOp] = {}

    def take(self) -> list[list[StartedOp]]:
        self.pending.extend(self.by_token.values())
        self.by_token.clear()
        return super().take()

    def args(self, ops: Sequence[StartedOp]) -> list[Any]:
        return [field for op in ops for field in op]

    def settle(self, ops: Sequence[StartedOp], reply: Any, *, repeated: bool) -> None:
        pass


Commit = TypeVar("Commit", Finish, Retry, Release)
Committed = Callable[[CommitReply], None]


class _CommitLane(Lane[tuple[Commit, Committed]]):
    def give_up(self, ops: Sequence[tuple[Commit, Committed]], text: str) -> None:
        # Stale makes the worker drop the lease, and its next renewal gives the run back.
        for msg, done in ops:
            done(CommitReply(msg.run_id, msg.token, "stale"))


class FinishLane(_CommitLane[Finish]):
    script = "finish"
    weighed = True
    blob_at = -1

    def weight(self, op: tuple[Finish, Committed]) -> int:
        return len(op[0].result or b"")

    def args(self, ops: Sequence[tuple[Finish, Committed]]) -> list[Any]:
        args: list[Any] = [self.sender, self.terms.result_ttl, self.terms.idempotency]
        extend = args.extend
        for (run_id, token, type_, name, message, attempt, run_seconds, result, run_name), _ in ops:
            code = CODE_OF_TYPE.get(type_, "h")
            if attempt == 1 and not message and not run_name and (not name or name == usual_name(type_)):
                outcome: Any = f"{code}{int(run_seconds * 1000)}"
            else:
                label = "" if name == usual_name(type_) else name
                outcome = pack((code, int(run_seconds * 1000), attempt, label, message, run_name))
            extend((run_id, token, outcome, result or b""))
        return args

    def settle(self, ops: Sequence[tuple[Finish, Committed]], reply: Any, *, repeated: bool) -> None:
        now, i = reply[0], 1
        self.left = iter(ops)
        for msg, done in self.left:
            word = reply[i]
            if word == b"O" or word == b"A":
                self.unblocked(msg.run_id)
                word = word.lower()
            if word == b"o" or word == b"a":
                state = finished_state(msg, reply[i + 1], reply[i + 2], reply[i + 3], now)
                done(CommitReply(msg.run_id, msg.token, _REPLY_WORDS[word], state, state.task_key))
            else:
                done(CommitReply(msg.run_id, msg.token, _REPLY_WORDS[word]))
            i += 4


def _settle_returned(
    ops: Iterator[tuple[Retry | Release, Committed]], reply: Any, unblocked: Callable[[str], None]
) -> None:
    """Answers of RETRY and RELEASE: status, descriptor and, when the run was cancelled, its state."""
    i = 0
    for msg, done in ops:
        _, task_key = split_descriptor(reply[i + 1])
        state = read_state(msg.run_id, reply[i + 2]) if reply[i + 2] else None
        delay = msg.after_seconds if isinstance(msg, Retry) else 0.0
        if state and unblocks(reply[i + 2]):
            unblocked(msg.run_id)
        done(CommitReply(msg.run_id, msg.token, _REPLY_WORDS[reply[i]], state, task_key, delay))
        i += 3


class RetryLane(_CommitLane[Retry]):
    script = "retry"

    def args(self, ops: Sequence[tuple[Retry, Committed]]) -> list[Any]:
        args: list[Any] = [self.sender, self.terms.result_ttl, self.terms.idempotency]
        for (run_id, token, after, attempt, message), _ in ops:
            args += (run_id, token, max(0, round(after * 1000)), attempt, message)
        return args

    def settle(self, ops: Sequence[tuple[Retry, Committed]], reply: Any, *, repeated: bool) -> None:
        self.left = iter(ops)
        _settle_returned(self.left, reply, self.unblocked)


class ReleaseLane(_CommitLane[Release]):
    script = "release"

    def args(self, ops: Sequence[tuple[Release, Committed]]) -> list[Any]:
        args: list[Any] = [self.sender, self.terms.result_ttl, self.terms.idempotency]
        for (run_id, token), _ in ops:
            args += (run_id, token)
        return args

    def settle(self, ops: Sequence[tuple[Release, Committed]], reply: Any, *, repeated: bool) -> None:
        self.left = iter(ops)
        _settle_returned(self.left, reply, self.unblocked)


CancelOp = tuple[str, Callable[[CancelReply], None], float]
_CANCEL_STATUS = {b"k": "cancelled", b"K": "cancelling", b"a": "already", b"u": "unknown"}


class CancelLane(Lane[CancelOp]):
    script = "cancel"

    def args(self, ops: Sequence[CancelOp]) -> list[Any]:
        return [self.sender, self.terms.result_ttl, self.terms.idempotency, *(op[0] for op in ops)]

    def settle(self, ops: Sequence[CancelOp], reply: Any, *, repeated: bool) -> None:
        self.left = iter(ops)
        for (run_id, done, _), (word, session, token, fields) in zip(self.left, reply, strict=True):
            state = read_state(run_id, fields) if fields else None
            if unblocks(fields):
                self.unblocked(run_id)
            done(CancelReply(run_id, _CANCEL_STATUS[word], session.decode(), token.decode(), state))

    def give_up(self, ops: Sequence[CancelOp], text: str) -> None:
        for run_id, done, _ in ops:
            done(CancelReply(run_id, "unavailable"))
