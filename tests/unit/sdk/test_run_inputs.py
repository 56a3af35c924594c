"""What went into a run, by parameter."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import FrozenInstanceError, dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_lite.client.schemas import objects
from prefect_lite.futures import PrefectDistributedFuture, PrefectFutureList
from prefect_lite.run_inputs import (
    MAX_TRAVELLING,
    Constant,
    FlowRunResult,
    Parameter,
    RunInput,
    TaskRunResult,
    inputs_of,
    pack_inputs,
    unpack_inputs,
)
from prefect_lite.states import Completed, State, StateDetails, StateType
from prefect_lite.utilities.annotations import allow_failure, quote, unmapped


def future() -> PrefectDistributedFuture[Any]:
    return PrefectDistributedFuture(uuid4())


def result_of(one: PrefectDistributedFuture[Any]) -> TaskRunResult:
    return TaskRunResult(id=one.task_run_id)


@dataclass
class Box:
    inside: Any


def test_the_kinds() -> None:
    an_id = uuid4()
    kinds = [TaskRunResult(id=an_id), FlowRunResult(id=an_id), Parameter(name="x"), Constant(type="int")]
    assert [kind.input_type for kind in kinds] == ["task_run", "flow_run", "parameter", "constant"]
    assert all(isinstance(kind, RunInput) for kind in kinds)
    assert len({*kinds, TaskRunResult(id=an_id)}) == 4, "they are values"
    assert repr(kinds[3]) == "Constant(input_type='constant', type='int')"
    with pytest.raises(FrozenInstanceError):
        kinds[0].id = uuid4()  # type: ignore[misc]
    assert TaskRunResult(id=str(an_id)).id == an_id  # type: ignore[arg-type]
    for wrong in ("no id", 5, None):
        with pytest.raises((ValueError, TypeError, AttributeError)):
            TaskRunResult(id=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        TaskRunResult(an_id)  # type: ignore[misc]


def test_they_are_where_programs_for_prefect_look() -> None:
    assert objects.TaskRunResult is TaskRunResult
    assert {"TaskRun", "FlowRun", "State", "StateType", "RunInput"} <= {*objects.__all__}


def test_futures_and_states_are_found_wherever_they_are() -> None:
    a, b, c = future(), future(), future()
    state = State(StateType.COMPLETED, state_details=StateDetails(task_run_id=uuid4()))
    got = inputs_of(
        {
            "plain": 1,
            "one": a,
            "twice": [a, (a, b)],
            "nested": {"x": {"y": [c]}, "z": OrderedDict(q=a)},
            "futures": PrefectFutureList([a, b]),
            "box": Box(b),
            "state": state,
            "loose": Completed(data=5),
            "allowed": allow_failure(a),
            "unmapped": unmapped([b]),
            "quoted": quote(a),
            "text": "no run",
        }
    )
    assert got == {
        "plain": [],
        "one": [result_of(a)],
        "twice": [result_of(a), result_of(b)],
        "nested": [result_of(c), result_of(a)],
        "futures": [result_of(a), result_of(b)],
        "box": [result_of(b)],
        "state": [TaskRunResult(id=state.state_details.task_run_id)],  # type: ignore[arg-type]
        "loose": [],
        "allowed": [result_of(a)],
        "unmapped": [result_of(b)],
        "quoted": [],
        "text": [],
    }


def test_waited_for_extra_and_parents() -> None:
    a, b, parent = future(), future(), uuid4()
    constant = Constant(type="int")
    assert inputs_of({}, [a, 5], {"x": {constant}, "y": [b]}, parent) == {
        "wait_for": [result_of(a)],
        "x": [constant],
        "y": [result_of(b)],
        "__parents__": [TaskRunResult(id=parent)],
    }
    assert inputs_of({"x": a}, a, {"x": [constant, a]}) == {
        "x": [result_of(a), constant],
        "wait_for": [result_of(a)],
    }
    assert inputs_of({}, []) == {}


def test_a_collection_that_holds_itself_ends() -> None:
    a = future()
    loop: list[Any] = [a]
    loop.append(loop)
    assert inputs_of({"x": loop}) == {"x": [result_of(a)]}


def test_they_travel() -> None:
    an_id = UUID(int=7)
    inputs: dict[str, list[RunInput]] = {
        "x": [TaskRunResult(id=an_id), FlowRunResult(id=an_id)],
        "y": [Parameter(name="p"), Constant(type="int"), RunInput(input_type="other")],
        "nothing": [],
    }
    packed = pack_inputs(inputs)
    assert "nothing" not in packed
    assert unpack_inputs(packed) == {name: values for name, values in inputs.items() if values}


def test_only_so_many_travel() -> None:
    many: dict[str, list[RunInput]] = {
        name: [TaskRunResult(id=uuid4()) for _ in range(200)] for name in ("x", "y", "z")
    }
    packed = pack_inputs(many)
    assert sum(map(len, packed.values())) == MAX_TRAVELLING
    assert [*packed] == ["x", "y"]
