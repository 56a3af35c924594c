"""The lanes of the group-commit writer: one per operation, each turning many waiting ones into one script
call and one reply into many callbacks. Here: submit, claim, lookup, log and rare calls; ``commit_lanes.py``
has those that need a lease.

This is the hot path: lists are flat, nothing is made per run but its reply, and fields are taken by
position (see the NamedTuples in ``prefect_lite.protocol.messages``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgpack

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.messages import RunState, Submit

from .records import read_state
from .scripts import SCRIPTS
from .store import UNREAD, ClaimedRun, ClaimReply, SubmitReply, TurnedAway

logger = logging.getLogger(__name__)

RUNS_PER_CALL = 100
"""3,000 runs in one script blocked Redis for 99 ms; 100 stay under 3 ms."""

BYTES_PER_CALL = 1 << 20
"""Bodies or results in one script call; a larger one goes alone."""

CALLS_PER_TURN = 4
"""Script calls of one lane in one pipeline, so that no other lane waits long."""

BYTES_PER_TURN = 4 << 20
"""Bodies or results of one lane in one pipeline; a larger one goes alone."""

LOG_BYTES = 16 << 20
"""Log lines that wait for Redis; what comes beyond is dropped."""

LINE_BYTES = 64
"""What a log line is taken to cost beside its text, so that a call does not get too many short ones."""

PARENT_BYTES = 256
"""What a run that another waits for is taken to cost; so a call gets some 4,000 of them, and takes 3 ms."""

LARGE_BODY = 8192
"""From this size on, the store notes a body's size, so that a claim can bound what it returns."""

_CLAIM_STATUS = {b"o": "ok", b"m": "moved", b"u": "unknown"}

Op = TypeVar("Op", bound=tuple[Any, ...])


class Terms(NamedTuple):
    """The settings that scripts need, in ms; ``sender`` is "-" while no other broker listens."""

    result_ttl: int
    min_result_ttl: int
    idempotency: int
    longest: int
    log_lines: int
    suspect: int


def pack(value: Any) -> bytes:
    """msgpack, which the scripts read with cmsgpack."""
    return bytes(msgpack.packb(value) or b"")


def _nobody(_run_id: str) -> None:
    """Until there is somebody to tell."""


class Lane(ABC, Generic[Op]):
    """Operations of one kind that wait for the next pipeline, in order.

    Attributes:
        script: The script that executes a group of them.
        pending: Those that wait.
        blob_at: Where in ``command`` the last body or result is, from the end; 0: there is none that can be
            large. What is over ``BYTES_PER_CALL`` goes alone, so the last one tells whether any is large.
        bytes: What they weigh, if the lane is ``weighed``: 0, or what was added at their coming.
        left: In ``settle``, the operations that have not been answered yet.
        unblocked: Told of runs that ended, and waited for others or are waited for.
    """

    script = ""
    weighed = False
    blob_at = 0

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.sender: str = "-"
        self.unblocked: Callable[[str], None] = _nobody
        self.pending: list[Op] = []
        self.bytes = 0
        self.left: Iterator[Op] = iter(())

    @property
    def sha(self) -> str:
        return SCRIPTS[self.script].sha

    def take(self) -> list[list[Op]]:
        """Remove what fits one pipeline, in groups for one script call each."""
        pending = self.pending
        if len(pending) <= RUNS_PER_CALL and self.bytes <= BYTES_PER_CALL:
            self.pending = []
            self.bytes = 0
            return [pending]
        if self.weighed:
            return self._take_by_weight()
        room = RUNS_PER_CALL * CALLS_PER_TURN
        self.pending = pending[room:]
        return [pending[i : i + RUNS_PER_CALL] for i in range(0, min(len(pending), room), RUNS_PER_CALL)]

    def _take_by_weight(self) -> list[list[Op]]:
        """The same where operations may be large: each call and the pipeline stay within their bytes."""
        pending = self.pending
        groups: list[list[Op]] = []
        start = weight = taken = 0
        for i, op in enumerate(pending):
            size = self.weight(op)
            over = taken + size > BYTES_PER_TURN and i > 0
            if over or i - start == RUNS_PER_CALL or (weight + size > BYTES_PER_CALL and i > start):
                groups.append(pending[start:i])
                start, weight = i, 0
                if over or len(groups) == CALLS_PER_TURN:
                    break
            weight += size
            taken += size
        else:
            groups.append(pending[start:])
            start = len(pending)
        self.pending = pending[start:]
        self.bytes = max(0, self.bytes - taken)
        return groups

    def weight(self, op: Op) -> int:
        """Bytes of one operation."""
        return 0

    def args(self, ops: Sequence[Op]) -> list[Any]:
        """ARGV of one script call; nothing for a lane with whole commands of its own."""
        return []

    def command(self, prefix: bytes, ops: Sequence[Op]) -> tuple[Any, ...]:
        """What is sent for these operations."""
        return ("EVALSHA", self.sha, 1, prefix, *self.args(ops))

    @abstractmethod
    def settle(self, ops: Sequence[Op], reply: Any, *, repeated: bool) -> None:
        """Answer everybody. ``repeated``: the call may have been executed before."""

    def give_up(self, ops: Sequence[Op], text: str) -> None:
        """Answer operations that failed for good."""


SubmitOp = tuple[Submit, Callable[[SubmitReply], None], float]


class SubmitLane(Lane[SubmitOp]):
    script = "submit"
    weighed = True
    blob_at = -3

    def weight(self, op: SubmitOp) -> int:
        msg = op[0]
        size = len(msg.body) + len(msg.info)
        if msg.parents or msg.tolerated:
            size += PARENT_BYTES * (len(msg.parents) + len(msg.tolerated))
        return size

    def args(self, ops: Sequence[SubmitOp]) -> list[Any]:
        terms = self.terms
        args: list[Any] = [self.sender, terms.longest]
        extend = args.extend
        for msg, _, _ in ops:
            (
                run_id,
                key,
                body,
                fingerprint,
                name,
                countdown,
                expires,
                priority,
                idem,
                ttl,
                max_lost,
                parents,
                tags,
                _,
                tolerated,
                info,
            ) = msg
            if (
                countdown > 0
                or expires > 0
                or idem
                or ttl > 0
                or max_lost >= 0
                or tags
                or parents
                or tolerated
                or info
                or len(body) > LARGE_BODY
                or type(msg) is TurnedAway
            ):
                options = _pack_options(msg, terms)
            else:
                options = b""
            lane = priority if 0 <= priority <= 9 else 9 if priority > 9 else 0
            extend((run_id, f"{key}:{lane}", fingerprint, body, name, options))
        return args

    def settle(self, ops: Sequence[SubmitOp], reply: Any, *, repeated: bool) -> None:
        self.left = iter(ops)
        if isinstance(reply, int):
            for msg, done, _ in self.left:
                done(SubmitReply(msg.run_id, "accepted", "", "", -1.0, msg.countdown_seconds))
            return
        for (msg, done, _), word in zip(self.left, reply, strict=True):
            done(_submit_reply(msg, word, repeated, self.terms))

    def give_up(self, ops: Sequence[SubmitOp], text: str) -> None:
        for msg, done, _ in ops:
            done(SubmitReply(msg.run_id, "unavailable", "", text, 1.0))


def _pack_options(msg: Submit, terms: Terms) -> bytes:
    """The rare options of a run; keys as in the header of submit.lua."""
    options: dict[str, Any] = {}
    if msg.countdown_seconds > 0:
        options["c"] = max(1, round(msg.countdown_seconds * 1000))
    if msg.expires_seconds > 0:
        options["x"] = max(1, round(msg.expires_seconds * 1000))
    if msg.idempotency_key:
        # Both may have colons: without the length, two pairs could make the same key.
        options["i"] = f"{len(msg.task_key)}:{msg.task_key}:{msg.idempotency_key}"
    if msg.result_ttl_seconds > 0:
        options["r"] = max(terms.min_result_ttl, round(msg.result_ttl_seconds * 1000))
    if msg.max_lost >= 0:
        options["l"] = msg.max_lost
    if msg.parents:
        options["p"] = msg.parents
    if msg.tolerated:
        options["t"] = msg.tolerated
    if msg.tags:
        options["g"] = list(msg.tags)
    if msg.info:
        options["m"] = msg.info
    if len(msg.body) > LARGE_BODY:
        options["z"] = len(msg.body)
    if type(msg) is TurnedAway:
        options["f"] = 1
    return bytes(
        msgpack.packb(options, use_bin_type=False) or b""
    )  # cmsgpack knows no bytes but those of text


def _full_text(msg: Submit, longest: int) -> str:
    if msg.parents or msg.tolerated:
        return f"{longest:,} runs wait for others in this shard, as many as max_queue_length allows."
    if msg.countdown_seconds > 0:
        return f"{longest:,} runs are delayed in this shard, as many as max_queue_length allows."
    return (
        f"The queue of {msg.task_key!r} at priority {msg.priority} holds {longest:,} runs, as many as "
        f"max_queue_length allows."
    )


def _submit_reply(msg: Submit, word: bytes, repeated: bool, terms: Terms) -> SubmitReply:
    other = word[1:].decode()
    match word[:1]:
        case b"a":
            return SubmitReply(msg.run_id, "accepted", delayed_seconds=msg.countdown_seconds)
        case b"e":
            # What a first, unanswered execution of this very call stored is simply accepted.
            status = "accepted" if repeated and not other else "exists"
            return SubmitReply(msg.run_id, status, other, delayed_seconds=msg.countdown_seconds)
        case b"f":
            # Without a text when all queues together are full: who turned it away knows the figures.
            text = "" if type(msg) is TurnedAway else _full_text(msg, terms.longest)
            return SubmitReply(msg.run_id, "full", "", text, 1.0)
    if other:
        text = f"Idempotency key {msg.idempotency_key!r} of {msg.task_key!r} stands for run {other}"
        text += ", which has other arguments."
    else:
        text = f"Run {msg.run_id} exists with other arguments."
    return SubmitReply(msg.run_id, "conflict", other, text)


class ClaimOp(NamedTuple):
    session: str
    epoch: int
    number: int
    limit: int
    base: str  # random; the tokens are this and a counter, so a repeat finds what it gave
    done: Callable[[ClaimReply], None]


class ClaimLane(Lane[ClaimOp]):
    script = "claim"

    def take(self) -> list[list[ClaimOp]]:
        pending, self.pending = self.pending, []
        return [[op] for op in pending]

    def args(self, ops: Sequence[ClaimOp]) -> list[Any]:
        op, terms = ops[0], self.terms
        limit = min(op.limit, RUNS_PER_CALL)
        return [
            op.session,
            op.epoch,
            op.number,
            limit,
            op.base,
            terms.result_ttl,
            terms.idempotency,
            BYTES_PER_CALL,
            terms.suspect,
        ]

    def settle(self, ops: Sequence[ClaimOp], reply: Any, *, repeated: bool) -> None:
        op, self.left = ops[0], iter(ops)
        if isinstance(reply, ClaimReply):  # made by the lane whose call it was part of
            self.left = iter(())
            op.done(reply)
            return
        status = _CLAIM_STATUS[reply[0]]
        if status != "ok":
            self.left = iter(())
            op.done(ClaimReply(status, [], True))
            return
        runs: list[ClaimedRun] = []
        key, text = b"", ""
        for i in range(3, len(reply), 6):
            if reply[i + 2] != key:
                key = reply[i + 2]
                text = key.decode()
            runs.append(
                ClaimedRun(
                    reply[i].decode(), reply[i + 1].decode(), text, reply[i + 3], reply[i + 4], reply[i + 5]
                )
            )
        self.left = iter(())
        again = reply[2] / 1000 if reply[2] >= 0 else -1.0
        op.done(ClaimReply("ok", runs, reply[1] == 1, again))

    def give_up(self, ops: Sequence[ClaimOp], text: str) -> None:
        for op in ops:
            op.done(ClaimReply("unavailable", [], True))


LookupOp = tuple[str, Callable[[RunState], None], float]


class LookupLane(Lane[LookupOp]):
    script = "lookup"

    def args(self, ops: Sequence[LookupOp]) -> list[Any]:
        return [BYTES_PER_CALL, *(op[0] for op in ops)]

    def settle(self, ops: Sequence[LookupOp], reply: Any, *, repeated: bool) -> None:
        self.left = iter(ops)
        again: list[LookupOp] = []
        for op, fields in zip(self.left, reply, strict=True):
            run_id, done, _ = op
            if fields == 0:  # the answer was full before it
                again.append(op)
                continue
            try:
                state = read_state(run_id, fields)
            except (KeyError, ValueError):
                logger.critical("the record of run %s is damaged", run_id, extra={"run_id": run_id})
                state = RunState(run_id, UNREAD)
            done(state)
        if again:
            self.pending = again + self.pending

    def give_up(self, ops: Sequence[LookupOp], text: str) -> None:
        for run_id, done, _ in ops:
            done(RunState(run_id, UNREAD, message=text))


LogOp = tuple[str, list[bytes]]


class LogLane(Lane[LogOp]):
    """Log lines are the one thing that may get lost, or doubled, with a connection."""

    script = "log"
    weighed = True

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self.dropped = 0  # messages

    def weight(self, op: LogOp) -> int:
        return sum(map(len, op[1])) + LINE_BYTES * len(op[1])

    def args(self, ops: Sequence[LogOp]) -> list[Any]:
        args: list[Any] = [self.terms.log_lines, self.terms.result_ttl]
        for run_id, lines in ops:
            args += (run_id, len(lines), *lines)
        return args

    def settle(self, ops: Sequence[LogOp], reply: Any, *, repeated: bool) -> None:
        pass


CallOp = tuple[tuple[Any, ...], "asyncio.Future[Any]", float, int]


class CallLane(Lane[CallOp]):
    """Rare operations: whole commands, one future each."""

    def take(self) -> list[list[CallOp]]:
        pending, self.pending = self.pending, []
        self.bytes = 0
        return [[op] for op in pending if not op[1].done()]

    def add(self, command: tuple[Any, ...], weight: int = 0) -> asyncio.Future[Any]:
        """Put a command in the lane; ``weight``: bytes that it or its answer may have."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending.append((command, future, time.monotonic(), weight))
        self.bytes += weight
        return future

    def command(self, prefix: bytes, ops: Sequence[CallOp]) -> tuple[Any, ...]:
        return ops[0][0]

    def settle(self, ops: Sequence[CallOp], reply: Any, *, repeated: bool) -> None:
        for _, future, *_ in ops:
            if not future.done():
                future.set_result(reply)

    def give_up(self, ops: Sequence[CallOp], text: str) -> None:
        for _, future, *_ in ops:
            if not future.done():
                future.set_exception(StoreUnavailable(text))


class KeepLane(CallLane):
    """The same for what may be large, in the command (as its last word) or in the answer."""

    weighed = True
    blob_at = -1

    def take(self) -> list[list[CallOp]]:
        taken = 0
        groups: list[list[CallOp]] = []
        for i, op in enumerate(self.pending):
            taken += self.weight(op)
            if i and (taken > BYTES_PER_TURN or i == RUNS_PER_CALL):
                self.pending = self.pending[i:]
                break
            if not op[1].done():
                groups.append([op])
        else:
            self.pending = []
        self.bytes = sum(map(self.weight, self.pending))
        return groups

    def weight(self, op: CallOp) -> int:
        return op[3]
