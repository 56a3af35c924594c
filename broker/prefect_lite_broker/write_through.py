"""Submits and a claim of the same turn in one script call, which leases the runs as it stores them.

The call itself is never repeated: should its answer get lost, or Redis refuse it, its two parts are made
again, each by its own script, and both scripts know what the call has done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .lanes import ClaimLane, ClaimOp, Lane, SubmitLane, SubmitOp
from .store import ClaimedRun, ClaimReply

ThroughOp = SubmitOp | ClaimOp


class ThroughLane(Lane[ThroughOp]):
    """Nothing waits here: a ``Backlog`` takes the submits of a pipeline and its first claim, which is last in
    ``ops``."""

    script = "through"
    blob_at = SubmitLane.blob_at

    def __init__(self, submit: SubmitLane, claim: ClaimLane) -> None:
        super().__init__(submit.terms)
        self._submit, self._claim = submit, claim

    def args(self, ops: Sequence[Any]) -> list[Any]:
        return self._claim.args(ops[-1:]) + self._submit.args(ops[:-1])

    def parts(self, ops: Sequence[Any]) -> tuple[tuple[SubmitLane, list[Any]], tuple[ClaimLane, list[Any]]]:
        """The submits and the claim, as they would be made without this lane; in this order."""
        return (self._submit, list(ops[:-1])), (self._claim, list(ops[-1:]))

    def replies(self, ops: Sequence[Any], reply: Any) -> tuple[Any, Any]:
        """What the scripts of the two parts would have answered; see ``through.lua``."""
        if reply == 1:
            return len(ops) - 1, _leased(ops, len(ops) - 1)
        stored, claimed = reply
        if not isinstance(claimed, int):
            return stored, claimed
        others = len(ops) - 1 - claimed
        words = stored if isinstance(stored, list) else [b"a"] * others
        return [b"a"] * claimed + words, _leased(ops, claimed)

    def settle(self, ops: Sequence[Any], reply: Any, *, repeated: bool) -> None:
        for (lane, part), answer in zip(self.parts(ops), self.replies(ops, reply), strict=True):
            lane.settle(part, answer, repeated=repeated)


def _leased(ops: Sequence[Any], count: int) -> ClaimReply:
    """The claim that got the first ``count`` of these runs; all that it tells of them the broker has."""
    claim: ClaimOp = ops[-1]
    base = claim.base
    runs: list[ClaimedRun] = []
    for i, (msg, _, _) in enumerate(ops[:count], 1):
        runs.append(ClaimedRun(msg.run_id, f"{base}{i}", msg.task_key, 1, 0, msg.body))
    # The call has seen that no list of the session's is open, so what it did not lease is all that is ready.
    return ClaimReply("ok", runs, count == len(ops) - 1)
