"""The kinds of states, and where the store has a run; the protocol and the broker need no more of states."""

from __future__ import annotations

from enum import Enum, StrEnum


class StateType(StrEnum):
    """Prefect's state types."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


TERMINAL_TYPES = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})


class RunPhase(Enum):
    """Where the store has a run (field ``st`` of its hash): one letter, and what users see."""

    BLOCKED = ("B", StateType.SCHEDULED, "Scheduled")
    READY = ("R", StateType.SCHEDULED, "Scheduled")
    DELAYED = ("D", StateType.SCHEDULED, "Scheduled")  # or AwaitingRetry: the record's own name wins
    LEASED = ("L", StateType.PENDING, "Pending")
    RUNNING = ("X", StateType.RUNNING, "Running")  # or Retrying
    CANCELLING = ("K", StateType.CANCELLING, "Cancelling")
    COMPLETED = ("c", StateType.COMPLETED, "Completed")  # terminal phases are lower case
    FAILED = ("f", StateType.FAILED, "Failed")
    CRASHED = ("h", StateType.CRASHED, "Crashed")
    CANCELLED = ("k", StateType.CANCELLED, "Cancelled")

    def __init__(self, code: str, type: StateType, state_name: str) -> None:
        self.code = code
        self.type = type
        self.state_name = state_name

    @property
    def terminal(self) -> bool:
        return self.code.islower()


PHASE_BY_CODE: dict[str, RunPhase] = {phase.code: phase for phase in RunPhase}
