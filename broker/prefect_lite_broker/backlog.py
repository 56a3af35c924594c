"""What waits for Redis in one shard: the lanes, and the script calls that have to be made again.

No I/O here: ``collect`` says what goes into the next pipeline, and whoever sends it reports back with
``settle`` or puts batches into ``redo``.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from prefect_lite.protocol.messages import RunState

from .commit_lanes import CancelLane, CancelOp, FinishLane, ReleaseLane, RetryLane, StartedLane
from .lanes import CallLane, ClaimLane, KeepLane, Lane, LogLane, LookupLane, SubmitLane, SubmitOp, Terms
from .store import CancelReply, SubmitReply
from .write_through import ThroughLane

logger = logging.getLogger(__name__)

_REFUSED = float("inf")  # in place of an operation's time: nobody waits for it any more


class Batch(NamedTuple):
    """One script call in the making."""

    lane: Lane[Any]
    ops: list[Any]
    repeated: bool = False  # it may have been executed before
    late: bool = False  # it goes out later than what came with it


class Backlog:
    """The lanes of a shard in the order in which a pipeline takes them.

    A claim then sees the submits and commits of the same turn, and a cancel its run. Submits that fit into
    one call take the first claim of their turn with them: ``through`` leases their runs as it stores them.
    Submits that don't fit into the pipeline, or that Redis refuses for now, are late: the claims of their
    turn have gone ahead, so their task keys are told to ``ready`` once they are written.

    Args:
        terms: Settings the scripts need.
        wait_seconds: Submits, cancels, lookups and rare calls without an answer by then are refused.
        ready: Called with the task keys of late submits that Redis has answered.
    """

    def __init__(self, terms: Terms, wait_seconds: float, ready: Callable[[list[str]], None]) -> None:
        self._wait_seconds = wait_seconds
        self._ready = ready
        self.started = StartedLane(terms)
        self.finish = FinishLane(terms)
        self.retry = RetryLane(terms)
        self.release = ReleaseLane(terms)
        self.submit = SubmitLane(terms)
        self.cancel = CancelLane(terms)
        self.claim = ClaimLane(terms)
        self.through = ThroughLane(self.submit, self.claim)
        self.lookup = LookupLane(terms)
        self.log = LogLane(terms)
        self.call = CallLane(terms)
        self.keep = KeepLane(terms)
        self.lanes: tuple[Lane[Any], ...] = (
            self.started,
            self.finish,
            self.retry,
            self.release,
            self.submit,
            self.cancel,
            self.claim,
            self.lookup,
            self.log,
            self.call,
            self.keep,
        )  # without `through`, in which nothing waits
        self._refusable: tuple[Lane[Any], ...] = (self.submit, self.cancel, self.lookup, self.call, self.keep)
        self.in_flight: deque[Batch] = deque()
        self.redo: list[Batch] = []  # goes out first, in order, next time
        self.full = False  # Redis has no memory for new runs: they stay here
        self._cut = False  # the last pipeline had no room for all submits
        self.calls = self.operations = self.largest = 0

    def __len__(self) -> int:
        """Operations that are not answered yet."""
        again = sum(len(batch.ops) for batch in (*self.in_flight, *self.redo))
        return again + len(self.started.by_token) + sum(len(lane.pending) for lane in self.lanes)

    @property
    def submits_again(self) -> bool:
        """Submits have been refused or are being repeated."""
        return any(self.stores(batch) for batch in (*self.redo, *self.in_flight))

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not self.in_flight and not self.redo and not self._has_work()

    def _has_work(self) -> list[Lane[Any]]:
        work = [lane for lane in self.lanes if lane.pending]
        if self.started.by_token and not self.started.pending:
            work.insert(0, self.started)
        return work

    # -- out ----------------------------------------------------------------------------------------
    def collect(self) -> list[Batch]:
        """Remove what goes into the next pipeline."""
        batches = self._again() if self.redo else []
        for lane in self._has_work():
            if lane is self.submit:
                late = self._cut
                self._cut = self.full
                if not self.full:
                    groups = lane.take()
                    self._cut = bool(lane.pending)
                    if len(groups) == 1 and self.claim.pending and not self.cancel.pending and not late:
                        batches.append(Batch(self.through, [*groups[0], self.claim.pending.pop(0)]))
                    else:
                        batches += [Batch(lane, ops, False, late) for ops in groups]
            elif lane is self.cancel and (self.redo or self.submit.pending):
                batches += [Batch(lane, ops) for ops in self._take_cancels()]
            else:
                batches += [Batch(lane, ops) for ops in lane.take()]
        return [batch for batch in batches if batch.ops]

    def _again(self) -> list[Batch]:
        """The calls that have to be repeated, without operations that were refused meanwhile."""
        batches: list[Batch] = []
        redo, self.redo = self.redo, []
        for batch in redo:
            if self.full and batch.lane is self.submit:
                self.redo.append(batch)
            elif batch.lane in self._refusable:
                batches.append(batch._replace(ops=[op for op in batch.ops if op[2] != _REFUSED], late=True))
            else:
                batches.append(batch)
        return batches

    def _take_cancels(self) -> list[list[CancelOp]]:
        """All but those of runs whose submit stays behind."""
        behind: list[SubmitOp] = [op for batch in self.redo for op in batch.ops]
        waiting = {op[0].run_id for op in behind + self.submit.pending}
        pending = self.cancel.pending
        self.cancel.pending = [op for op in pending if op[0] not in waiting]
        groups = self.cancel.take()
        self.cancel.pending = [op for op in pending if op[0] in waiting] + self.cancel.pending
        return groups

    def stores(self, batch: Batch) -> bool:
        """Whether a call has submits."""
        return batch.lane is self.submit or batch.lane is self.through

    def parts(self, batch: Batch) -> list[Batch]:
        """The calls to be made in place of one that is to be made again, in this order."""
        if batch.lane is not self.through:
            return [batch]
        return [batch._replace(lane=lane, ops=ops) for lane, ops in self.through.parts(batch.ops)]

    def repeat(self, batches: Iterable[Batch]) -> None:
        """Make calls again that may have been executed."""
        for batch in batches:
            self.redo += [part._replace(repeated=True) for part in self.parts(batch)]

    # -- answers ------------------------------------------------------------------------------------
    def settle(self, batch: Batch, reply: Any) -> None:
        """Redis has executed a call: answer everybody."""
        self.calls += 1
        size = len(batch.ops)
        self.operations += size
        if size > self.largest:
            self.largest = size
        if batch.lane is not self.through:
            self._hand_on(batch, reply)
            return
        try:
            answers = self.through.replies(batch.ops, reply)
        except (TypeError, ValueError, IndexError):
            # Each part alone is answered in words of its own, or told that they could not be read.
            logger.critical("an answer to submits and a claim could not be read: %.200r", reply)
            self.repeat([batch])
            return
        for part, answer in zip(self.parts(batch), answers, strict=True):
            self._hand_on(part, answer)

    def _hand_on(self, batch: Batch, reply: Any) -> None:
        lane, ops, repeated, late = batch
        try:
            lane.settle(ops, reply, repeated=repeated)
        except Exception:
            # A callback that raises must not take the shard's writer with it, nor the answers after its own.
            logger.critical("an answer of %s could not be handed on", type(lane).__name__, exc_info=True)
            self._answer(lane, list(lane.left))
        if late and lane is self.submit:
            self._ready(list({op[0].task_key for op in ops if op[0].countdown_seconds <= 0}))

    def _answer(self, lane: Lane[Any], ops: list[Any]) -> None:
        try:
            lane.give_up(ops, "The answer could not be read.")
        except Exception:
            logger.critical("%s could not be given up", type(lane).__name__, exc_info=True)

    # -- refusals -----------------------------------------------------------------------------------
    def sweep(self, last_error: str) -> None:
        """Refuse submits, cancels, lookups and rare calls that have waited too long; the rest is kept."""
        oldest = time.monotonic() - self._wait_seconds
        text = f"Redis did not answer within {self._wait_seconds:g} s ({last_error or 'no reply'})."
        for lane in self._refusable:
            pending = lane.pending
            if pending and pending[0][2] < oldest:
                lane.pending = [op for op in pending if op[2] >= oldest]
                if lane.weighed:
                    lane.bytes = sum(map(lane.weight, lane.pending))
                lane.give_up([op for op in pending if op[2] < oldest], text)
        for batch in (*self.in_flight, *self.redo):
            if batch.lane in self._refusable:
                self._refuse_in_flight(batch, batch.lane, len(batch.ops), oldest, text)
            elif batch.lane is self.through:
                self._refuse_in_flight(batch, self.submit, len(batch.ops) - 1, oldest, text)

    def _refuse_in_flight(self, batch: Batch, lane: Lane[Any], count: int, oldest: float, text: str) -> None:
        """The first ``count`` of a call, which may have been executed; its answer will find nobody."""
        for i, op in enumerate(batch.ops[:count]):
            if op[2] < oldest:
                lane.give_up([op], text)
                waiter = op[1] if isinstance(lane, CallLane) else _nobody
                batch.ops[i] = (op[0], waiter, _REFUSED, *op[3:])

    def fail_all(self, text: str) -> None:
        """Refuse what has a way to be refused. Commits and claims stay unanswered: their owners ask again."""
        batches = [part for batch in (*self.in_flight, *self.redo) for part in self.parts(batch)]
        self.in_flight.clear()
        self.redo.clear()
        for batch in batches:
            if batch.lane in self._refusable:
                batch.lane.give_up(batch.ops, text)
        for lane in self._refusable:
            pending, lane.pending, lane.bytes = lane.pending, [], 0
            lane.give_up(pending, text)


def _nobody(reply: SubmitReply | CancelReply | RunState) -> None:
    """Takes the answer of an operation that was refused while it was in flight."""
