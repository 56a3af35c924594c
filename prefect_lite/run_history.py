"""The newest runs that were made in this process: direct calls, submitted runs and flow runs.

Runs on workers are not among them: their records are with the broker.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prefect_lite.runs import FlowRun, TaskRun

LIMIT: Final = 10_000
"""Records kept; the oldest goes when another comes."""

_records: dict[str, TaskRun | FlowRun] = {}
# Taking the first key of a dict that lost many from its front has to step over all their places.
_order: deque[str] = deque()


def remember(record: TaskRun | FlowRun) -> None:
    """Keep a record. O(1); from any thread."""
    run_id = record.run_id
    if run_id not in _records:
        _order.append(run_id)
    _records[run_id] = record
    if len(_order) > LIMIT:
        try:
            _records.pop(_order.popleft(), None)
        except IndexError:  # another thread was quicker
            return


def get(run_id: str) -> TaskRun | FlowRun | None:
    """The record of a run by its id of 32 hex digits, or None."""
    return _records.get(run_id)


def recent() -> list[TaskRun | FlowRun]:
    """All records that are kept, oldest first."""
    return list(_records.copy().values())


def forget_all() -> None:
    """Empty it; for tests."""
    _order.clear()
    _records.clear()
