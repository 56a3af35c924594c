"""Turns what the scripts say of a run into a ``RunState``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

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
        message.decode("utf-8", "ignore") if message else "",
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


class RunRecord(NamedTuple):
    """All that the store says of a run, without its body and result.

    Attributes:
        state: Where it stands.
        label: Name of its task, "" when the task key tells it.
        run_name: What the task calls the run, "" for nothing of its own.
        tags: Of its SUBMIT.
        info: Of its SUBMIT, as it came.
        states: Those it was in, in order: type, name, since when (ms), due (ms or 0), message.
    """

    state: RunState
    label: str
    run_name: str
    tags: list[str]
    info: bytes
    states: list[list[Any]]


MAX_GUESSED = 50
"""Attempts in place of which nobody told when they began, that are shown at the time of the next one."""
FULL_HISTORY = 900
"""Characters of a history that may have lost its beginning."""


def read_record(run_id: str, v: Sequence[Any]) -> RunRecord:
    """Build a record from the fields of ``scripts/runs.lua``."""
    state = read_state(run_id, v[:11])
    label, options, history, run_name, info = v[11:16]
    tags = msgpack.unpackb(options, raw=True).get(b"g", ()) if options else ()
    return RunRecord(
        state,
        (label or b"").decode(),
        (run_name or b"").decode(),
        [tag.decode() for tag in tags],
        info or b"",
        _states(state, v[3] is not None, (history or b"").decode()),
    )


def _states(state: RunState, retried: bool, history: str) -> list[list[Any]]:
    """The states of a run as far as they are known; waiting for a worker's attention is none of them."""
    submitted = state.submitted_ms
    states: list[list[Any]] = []
    starts = 0

    def enter(type_: str, name: str, when: int, due: int = 0) -> None:
        # A start may have been worked out from how long the worker says it took.
        states.append([type_, name, max(when, states[-1][2]) if states else when, due, ""])

    def start(when: int) -> None:
        nonlocal starts
        enter("RUNNING", "Retrying" if starts else "Running", when)
        starts += 1

    enter("SCHEDULED", "Scheduled", submitted, 0 if retried else state.due_ms)
    for word in history.split(";")[:-1]:
        if word[0] == "X":
            start(submitted + int(word[1:]))
        else:
            asked, due = word[1:].split(",")
            enter("SCHEDULED", "AwaitingRetry", submitted + int(asked), submitted + int(due))
    if state.started_ms:
        if len(history) >= FULL_HISTORY:
            starts = max(starts, state.attempt - 1)
        for _ in range(min(state.attempt - starts, MAX_GUESSED)):
            start(state.started_ms)
    last = states[-1]
    if (state.type, state.name) != (last[0], last[1]):
        due = state.due_ms if state.type == "SCHEDULED" else 0
        enter(state.type, state.name, state.ended_ms or last[3], due)
    states[-1][4] = state.message
    return states
