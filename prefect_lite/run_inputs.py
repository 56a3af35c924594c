"""What went into a run: results of other runs, by the name of the parameter that took them.

``wait_for`` stands for what the run waited for without taking its result, ``__parents__`` for the task run
that called it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from uuid import UUID

from prefect_lite.nesting import SCALARS, find
from prefect_lite.utilities.annotations import BaseAnnotation

PARENTS: Final = "__parents__"
WAIT_FOR: Final = "wait_for"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInput:
    """Something that went into a run; one of the kinds below.

    Attributes:
        input_type: Which kind.
    """

    input_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunResult(RunInput):
    """The result of a task run.

    Attributes:
        id: The task run.
    """

    input_type: Literal["task_run"] = "task_run"  # pyright: ignore[reportIncompatibleVariableOverride]
    id: UUID

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _uuid(self.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRunResult(RunInput):
    """The result of a flow run.

    Attributes:
        id: The flow run.
    """

    input_type: Literal["flow_run"] = "flow_run"  # pyright: ignore[reportIncompatibleVariableOverride]
    id: UUID

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _uuid(self.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(RunInput):
    """A parameter of the flow run around it.

    Attributes:
        name: Of the parameter.
    """

    input_type: Literal["parameter"] = "parameter"  # pyright: ignore[reportIncompatibleVariableOverride]
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(RunInput):
    """A value written into the program.

    Attributes:
        type: What it is.
    """

    input_type: Literal["constant"] = "constant"  # pyright: ignore[reportIncompatibleVariableOverride]
    type: str


Inputs = dict[str, list[RunInput]]


def listed(wait_for: Any) -> list[Any]:
    """What to wait for as a list; one future or state may be given alone."""
    if wait_for is None:
        return []
    if isinstance(wait_for, Iterable) and not isinstance(wait_for, BaseAnnotation):
        return list(cast("Iterable[Any]", wait_for))
    return [wait_for]


def inputs_of(
    parameters: Mapping[str, Any],
    wait_for: Any = None,
    extra: Mapping[str, Iterable[Any]] | None = None,
    parent: UUID | None = None,
) -> Inputs:
    """What goes into a run with these arguments.

    Args:
        parameters: Arguments by name; each has its entry, empty when nothing of other runs is in it.
        wait_for: Futures and states, one or many.
        extra: Further ones by name, as ``apply_async(dependencies=...)`` takes them: ``RunInput`` objects,
            futures or states.
        parent: The task run that makes the call.
    """
    found = {name: _found_in(value) for name, value in parameters.items()}
    if wait_for is not None:
        waited = _found_in(wait_for)
        if waited:
            found[WAIT_FOR] = waited
    for name, values in (extra or {}).items():
        found[name] = {**found.get(name, {}), **_found_in(values)}
    if parent is not None:
        found[PARENTS] = {TaskRunResult(id=parent): None}
    return {name: [*inputs] for name, inputs in found.items()}


def is_plain(values: Iterable[Any]) -> bool:
    """Whether no value can hold a future, as most can't; a quick look."""
    return SCALARS.issuperset(map(type, values))


def _found_in(value: Any) -> dict[RunInput, None]:
    """The runs that stand in ``value``, in order, each once."""
    # Whoever has a future or a state has loaded its module; this one stays light.
    from prefect_lite.futures import PrefectFuture
    from prefect_lite.states import State
    from prefect_lite.utilities.annotations import BaseAnnotation, quote

    found: dict[RunInput, None] = {}
    for one in find((value,), (PrefectFuture, State, RunInput, quote), (BaseAnnotation,)):
        if isinstance(one, RunInput):
            found[one] = None
        elif isinstance(one, PrefectFuture):
            found[TaskRunResult(id=one.task_run_id)] = None
        elif isinstance(one, State):
            details: Any = cast("State[Any]", one).state_details
            flow_run_id = getattr(details, "flow_run_id", None)
            if details.task_run_id is not None:
                found[TaskRunResult(id=details.task_run_id)] = None
            elif flow_run_id is not None:
                found[FlowRunResult(id=flow_run_id)] = None
    return found


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


# -- as they travel -----------------------------------------------------------------------------------

MAX_TRAVELLING: Final = 256
"""Inputs of one run that travel with it; a run may wait for 10,000 others."""
MAX_NAME: Final = 256


def pack_inputs(inputs: Inputs) -> dict[str, list[list[str]]]:
    """Plain data of those that name something, at most ``MAX_TRAVELLING`` in all."""
    packed: dict[str, list[list[str]]] = {}
    left = MAX_TRAVELLING
    for name, values in inputs.items():
        some = [_pack(value) for value in values[:left]]
        left -= len(some)
        if some:
            packed[name[:MAX_NAME]] = some
    return packed


def unpack_inputs(packed: Mapping[str, Any]) -> Inputs:
    """The inverse of ``pack_inputs``; kinds that this version does not know become plain ``RunInput``."""
    return {name: [_unpack(*pair[:2]) for pair in pairs] for name, pairs in packed.items()}


def _pack(value: RunInput) -> list[str]:
    if isinstance(value, (TaskRunResult, FlowRunResult)):
        return [value.input_type, value.id.hex]
    if isinstance(value, Parameter):
        return [value.input_type, value.name[:MAX_NAME]]
    if isinstance(value, Constant):
        return [value.input_type, value.type[:MAX_NAME]]
    return [value.input_type[:MAX_NAME], ""]


def _unpack(kind: str, value: str) -> RunInput:
    match kind:
        case "task_run":
            return TaskRunResult(id=_uuid(value))
        case "flow_run":
            return FlowRunResult(id=_uuid(value))
        case "parameter":
            return Parameter(name=value)
        case "constant":
            return Constant(type=value)
        case _:
            return RunInput(input_type=str(kind))
