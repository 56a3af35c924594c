"""Turns what the scripts say of a run into a ``RunState``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect_lite.protocol.messages import Finish, RunState
from prefect_lite.states import PHASE_BY_CODE, RunPhase, StateType

CODE_OF_TYPE: dict[str, str] = {
    StateType.COMPLETED: RunPhase.COMPLETED.code,
    StateType.FAILED: RunPhase.FAILED.code,
    StateType.CRASHED: RunPhase.CRASHED.code,
    StateType.CANCELLED: RunPhase.CANCELLED.code,
}
"""State letters of the terminal types that a worker can report."""

_TYPE_AND_NAME = {
    code.encode(): (phase.type.value, phase.state_name) for code, phase in PHASE_BY_CODE.items()
}
_USUAL_NAME = {phase.type.value: phase.state_name for phase in RunPhase if phase.terminal}


def usual_name(type: str) -> str:
    """Name of a terminal state when the worker gave none."""
    return _USUAL_NAME.get(type, "")


def split_descriptor(descriptor: bytes) -> tuple[int, str]:
    """``<submitted ms>:<task key>:<lane>`` to submit time and task key; (0, "") when there is none."""
    if not descriptor:
        return 0, ""
    submitted, _, queue = descriptor.partition(b":")
    return int(submitted), queue[:-2].decode()


def read_state(run_id: str, v: Sequence[Any]) -> RunState:
    """Build a state from the fields of ``scripts/lib/state.lua``.

    Args:
        run_id: The run.
        v: st d a na sm e l du nm ms rm [result [unblocks]]; a missing one is None.
    """
    code = v[0]
    if code is None:
        return RunState(run_id)
    type_, name = _TYPE_AND_NAME[code]
    submitted, task_key = split_descriptor(v[1] or b"")
    started = int(v[4] or 0)
    message = v[9] if v[5] else v[10]
    if v[5]:
        name = v[8].decode() if v[8] else name
    elif v[3]:
        name = "AwaitingRetry" if code == b"D" else "Retrying" if code == b"X" else name
    elif code == b"X" and v[2] and v[2] != b"1":
        name = "Retrying"
    return RunState(
        run_id,
        type_,
        name,
        message.decode() if message else "",
        task_key,
        int(v[2] or 1) if started else 0,
        int(v[6] or 0),
        submitted,
        started,
        int(v[5] or 0),
        int(v[7] or 0),
        v[11] if len(v) > 11 else None,
    )


def unblocks(v: Sequence[Any]) -> bool:
    """Whether the script that read these fields ended the run, and others wait for it, or it for others."""
    return len(v) > 12


def finished_state(msg: Finish, descriptor: bytes, started: Any, lost: Any, ended: int) -> RunState:
    """The terminal state that a FINISH made."""
    submitted, task_key = split_descriptor(descriptor)
    return RunState(
        msg.run_id,
        msg.type,
        msg.name or usual_name(msg.type),
        msg.message,
        task_key,
        msg.attempt,
        int(lost),
        submitted,
        int(started),
        ended,
        0,
        msg.result,
    )
