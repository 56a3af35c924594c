"""Records of runs that are made here, and what travels with those that are sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgpack
import pytest

from prefect_lite import batch, flow, run_history, tags, task
from prefect_lite.belonging import MAX_BYTES, OPTION, Place, belonging, restore
from prefect_lite.context import FlowRunContext, TaskRunContext
from prefect_lite.exceptions import ParameterBindError, SubmitError
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.run_creation import call_of, create_local_run, create_run, new_record
from prefect_lite.run_inputs import Constant, FlowRunResult, RunInput, TaskRunResult
from prefect_lite.runs import FlowRun, TaskRun
from tests.unit.sdk.scripted_broker import ScriptedBroker

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_history() -> Iterator[None]:
    run_history.forget_all()
    yield
    run_history.forget_all()


@task(tags={"own"}, version="7")
def add(x: Any, y: Any = 1, *rest: Any, **more: Any) -> Any:
    return x


@task
def name_of(x: Any = None) -> Any:
    return TaskRunContext.get()


@task
async def outer_task() -> tuple[TaskRunContext | None, TaskRun, TaskRun]:
    here = TaskRunContext.get()
    return here, await create_run(add, parameters={"x": 1}), new_record(add, (1,), {})


@flow
async def around(inside: Any) -> Any:
    return FlowRunContext.get(), await inside()


def future() -> PrefectDistributedFuture[Any]:
    return PrefectDistributedFuture(uuid4())


def info_of(submit: Any) -> Any:
    return msgpack.unpackb(submit.info) if submit.info else None


# -- records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [create_run, create_local_run])
async def test_a_run_that_is_not_sent(create: Any) -> None:
    before = datetime.now(UTC)
    a = future()
    with tags("around"):
        run = await create(
            add, parameters={"x": a, "y": 2}, wait_for=[a], extra_task_inputs={"y": {Constant(type="int")}}
        )
    assert isinstance(run, TaskRun)
    assert (run.task_key, run.task_name, run.task_version) == (add.key, "add", "7")
    assert run.name.startswith("add-")
    assert run.tags == {"own", "around"}
    assert run.task_inputs == {
        "x": [TaskRunResult(id=a.task_run_id)],
        "y": [Constant(type="int")],
        "wait_for": [TaskRunResult(id=a.task_run_id)],
    }
    assert (run.state_name, run.state_type, run.run_count) == ("Pending", "PENDING", 0)
    assert run.state is not None
    assert run.state.state_details.task_run_id == run.id
    assert (run.start_time, run.end_time, run.total_run_time) == (None, None, timedelta(0))
    assert before <= run.created == run.expected_start_time <= datetime.now(UTC)
    assert (run.flow_run_id, run.parent_task_run_id) == (None, None)
    assert run_history.get(run.run_id) is run


async def test_its_id_may_be_given() -> None:
    an_id = uuid4()
    assert (await create_run(add, id=an_id)).id == an_id
    assert (await create_local_run(add, id=str(an_id), deferred=True)).state_name == "Pending"
    with pytest.raises(ValueError, match="not a run id"):
        await create_run(add, id="seven")


async def test_a_run_made_inside_a_flow_belongs_to_it() -> None:
    context, run = await around(lambda: create_run(add, parameters={"x": 1}))
    assert run.flow_run_id == context.flow_run.id
    assert run.parent_task_run_id is None
    assert run.task_inputs == {"x": []}


async def test_a_run_made_inside_a_task_has_a_parent() -> None:
    here, made, begun = await outer_task()
    assert here is not None
    for run in (made, begun):
        assert run.parent_task_run_id == here.task_run.id
        assert run.task_inputs["__parents__"] == [TaskRunResult(id=here.task_run.id)]
        assert run.flow_run_id is None
    flow_context, (here, made, begun) = await around(outer_task)
    for run in (made, begun):
        assert run.flow_run_id == flow_context.flow_run.id == here.task_run.flow_run_id
        assert run.parent_task_run_id == here.task_run.id


async def test_a_flow_inside_a_task_hides_the_task() -> None:
    @task
    async def with_flow() -> Any:
        return await around(lambda: create_run(add, parameters={"x": 1}))

    context, run = await with_flow()
    assert (run.flow_run_id, run.parent_task_run_id) == (context.flow_run.id, None)
    assert run.task_inputs == {"x": []}


def test_the_state_of_a_flow_says_which_run_it_was() -> None:
    @flow
    def inner() -> int:
        return 5

    @flow
    def outer() -> Any:
        return inner(return_state=True).state_details, name_of(inner(return_state=True)).task_run

    details, run = outer()
    assert details.task_run_id is None
    flows = [record.id for record in run_history.recent() if isinstance(record, FlowRun)]
    assert details.flow_run_id in flows
    ((found,),) = run.task_inputs.values()
    assert isinstance(found, FlowRunResult)
    assert found.id in flows


async def test_contexts_may_be_given() -> None:
    flow_context, (here, _, _) = await around(outer_task)
    run = await create_run(add, flow_run_context=flow_context)
    assert (run.flow_run_id, run.parent_task_run_id) == (flow_context.flow_run.id, None)
    run = await create_run(add, parent_task_run_context=here)
    assert (run.flow_run_id, run.parent_task_run_id) == (flow_context.flow_run.id, here.task_run.id)
    other, _ = await around(outer_task)
    run = await create_run(add, flow_run_context=other, parent_task_run_context=here)
    assert (run.flow_run_id, run.parent_task_run_id) == (other.flow_run.id, here.task_run.id)


async def test_the_task_has_both_as_methods() -> None:
    assert (await add.create_run(parameters={"x": 1})).state_name == "Pending"
    assert (await add.create_local_run(parameters={"x": 1})).task_inputs == {"x": []}


def test_a_run_that_begins_names_every_parameter() -> None:
    record = new_record(add, (1,), {"z": 2})
    assert record.task_inputs == {"x": [], "y": [], "rest": [], "more": []}
    a = future()
    record = new_record(add, (a, 1, [a]), {"z": a}, a)
    found = [TaskRunResult(id=a.task_run_id)]
    assert record.task_inputs == {"x": found, "y": [], "rest": found, "more": found, "wait_for": found}
    assert new_record(add, (), {"x": [a], "nonsense": 1}).task_inputs["x"] == found
    assert new_record(name_of, (a, a, a), {}).task_inputs == {"x": []}, (
        "it does not bind, which is said later"
    )


def test_runs_of_this_process_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_history, "LIMIT", 3)
    runs = [name_of().task_run for _ in range(5)]
    assert run_history.recent() == runs[2:]
    assert run_history.get(runs[1].run_id) is None
    assert run_history.get(runs[4].run_id) is runs[4]
    assert [state.name for state in runs[4].states] == ["Pending", "Running", "Completed"]
    run_history.remember(runs[4])
    assert len(run_history.recent()) == 3


# -- sent ---------------------------------------------------------------------------------------------


async def test_a_deferred_run_is_sent(broker: ScriptedBroker) -> None:
    a, an_id = future(), uuid4()
    with tags("around"):
        run = await create_run(
            add, id=an_id, parameters={"x": a, "rest": (), "more": {"z": 3}}, wait_for=a, deferred=True
        )
    (submit,) = broker.submits
    assert submit.run_id == run.run_id == an_id.hex
    assert submit.parents == [a.task_run_id.hex]
    assert submit.tags == ["around", "own"]
    assert broker.call_of(submit).kwargs == {"z": 3}
    assert (run.state_name, run.state_type, run.run_count) == ("Scheduled", "SCHEDULED", 0)
    assert run.state is not None
    assert run.state.state_details.scheduled_time == run.expected_start_time
    assert run.tags == {"own", "around"}
    assert run.task_inputs["x"] == run.task_inputs["wait_for"] == [TaskRunResult(id=a.task_run_id)]
    assert run_history.get(run.run_id) is None, "the broker knows it"


async def test_a_deferred_run_whose_parameters_do_not_fit_is_not_sent(broker: ScriptedBroker) -> None:
    for parameters in ({}, {"y": 1}, {"x": 1, "nope": 2}):
        with pytest.raises(ParameterBindError):
            await create_run(name_of if "x" in parameters else add, parameters=parameters, deferred=True)
    assert not broker.submits


def test_parameters_become_calls() -> None:
    @task
    def strict(a: int, /, b: int, *rest: int, c: int = 0, **more: int) -> None: ...

    @task
    def loose(a: int = 1, b: int = 2, *rest: int) -> None: ...

    assert call_of(strict, {"a": 1, "b": 2, "rest": (3, 4), "c": 5, "more": {"d": 6}}) == (
        (1, 2, 3, 4),
        {"c": 5, "d": 6},
    )
    assert call_of(loose, {"b": 7}) == ((), {"b": 7})
    assert call_of(loose, {"a": 7, "rest": ()}) == ((7,), {})
    assert call_of(loose, {"a": 7, "rest": (8,)}) == ((7, 2, 8), {})
    assert call_of(loose, {"a": 1, "x": 2}) == ((1,), {"x": 2})

    class Thing:
        @task
        def method(self, a: int) -> None: ...

    assert call_of(Thing().method, {"a": 1}) == ((1,), {})


# -- what travels -------------------------------------------------------------------------------------


def test_a_plain_run_has_nothing_with_it(broker: ScriptedBroker) -> None:
    name_of.delay(1)
    name_of.map([1, 2], deferred=True)
    with batch():
        name_of.delay(2)
    assert [submit.info for submit in broker.submits] == [b""] * 4
    assert [broker.call_of(submit).options for submit in broker.submits] == [{}] * 4


async def test_tags_around_the_call_travel(broker: ScriptedBroker) -> None:
    with tags("b", "a"):
        add.delay(1)
        await add.adelay(1)
        add.map([1, 2], deferred=True)
    assert [submit.tags for submit in broker.submits] == [["a", "b", "own"]] * 4
    for submit in broker.submits:
        assert info_of(submit) == {"t": ["a", "b"]}
        assert broker.call_of(submit).options == {OPTION: submit.info}, "signed for the worker"


def test_the_flow_and_the_task_around_the_call_travel(broker: ScriptedBroker) -> None:
    @task
    def inner() -> Any:
        name_of.delay(2)
        return TaskRunContext.get()

    @flow
    def outer() -> Any:
        name_of.delay(1)
        return FlowRunContext.get(), inner()

    context, parent = outer()
    first, second = map(info_of, broker.submits)
    assert first == {"f": context.flow_run.id.hex}
    assert second == {"f": context.flow_run.id.hex, "p": parent.task_run.id.hex}


def test_what_went_in_travels(broker: ScriptedBroker) -> None:
    a, b = name_of.delay(1), name_of.delay(2)
    an_id = uuid4()
    add.apply_async(
        ([a],), {"y": b}, (one for one in [a]), {"x": {Constant(type="int")}, "q": {TaskRunResult(id=an_id)}}
    )
    submit = broker.submits[2]
    assert info_of(submit)["i"] == {
        "x": [["task_run", a.task_run_id.hex], ["constant", "int"]],
        "y": [["task_run", b.task_run_id.hex]],
        "wait_for": [["task_run", a.task_run_id.hex]],
        "q": [["task_run", an_id.hex]],
    }
    assert an_id.hex not in submit.parents + submit.tolerated, "noted only, as in Prefect"
    assert sorted(submit.parents) == sorted([a.task_run_id.hex, b.task_run_id.hex])
    add.apply_async((1,), dependencies={"x": [a]})
    assert broker.submits[3].parents == [a.task_run_id.hex], "a future is waited for"
    name_of.map([b, 1], deferred=True, wait_for=[a])
    assert [sorted(info_of(submit)["i"]) for submit in broker.submits[4:]] == [
        ["wait_for", "x"],
        ["wait_for"],
    ]


def test_a_record_takes_over_what_travelled() -> None:
    flow_id, parent = UUID(int=1), UUID(int=2)
    inputs: dict[str, list[RunInput]] = {"x": [TaskRunResult(id=UUID(int=3))], "y": []}
    with tags("t"):
        whose = belonging(inputs, Place(flow_id, parent))
    assert whose is not None
    record = TaskRun("0" * 32, "m.add", "add", 1)
    record.tags = frozenset({"own"})
    restore(record, whose.packed)
    assert (record.flow_run_id, record.parent_task_run_id) == (flow_id, parent)
    assert record.task_inputs == {"x": inputs["x"], "__parents__": [TaskRunResult(id=parent)]}
    assert (record.tags, record.call_tags) == ({"own", "t"}, {"t"})
    assert belonging({"x": []}) is None


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"f": 7},
        {"p": "no id"},
        {"t": "abc"},
        {"t": [1, {}]},
        {"t": {"a": 1}},
        {"i": [1]},
        {"i": {"x": 5}},
        {"i": {"x": [["task_run", "no id"]]}},
        {"i": {"x": [["task_run"]]}},
        {"t": ["t"], "i": {"x": [[{}, 1]]}, "p": 1.5},
    ],
)
def test_of_what_is_damaged_nothing_is_taken_over(content: Any) -> None:
    """Nobody has signed what is told of a run beside its call: any client can write it."""
    record = TaskRun("0" * 32, "m.add", "add", 1)
    whole = {"f": UUID(int=1).hex, "p": UUID(int=2).hex, "t": ["t"]}
    packed = msgpack.packb({**whole, **content} if isinstance(content, dict) else content)
    assert not restore(record, packed)
    assert not restore(record, b"\xc1" + packed)
    assert (record.flow_run_id, record.parent_task_run_id, record.task_inputs) == (None, None, {})
    assert record.tags == record.call_tags == frozenset()


def test_kinds_of_inputs_of_another_version_are_plain_ones() -> None:
    record = TaskRun("0" * 32, "m.add", "add", 1)
    assert restore(record, msgpack.packb({"i": {"x": [["asset", "s3://a", "more"]]}, "new": 5}))
    assert record.task_inputs == {"x": [RunInput(input_type="asset")]}


def test_tags_that_are_too_long_to_travel_are_named() -> None:
    names = ["\U0001f600" * 200 + str(n) for n in range(60)]
    with tags(*names), pytest.raises(SubmitError, match=r"The 60 tags around this call take 48,\d+ bytes"):
        belonging({})


def test_what_travels_is_bounded() -> None:
    many: dict[str, list[RunInput]] = {"ü" * 250 + str(n): [Constant(type="ü" * 300)] for n in range(200)}
    whose = belonging(many, Place(UUID(int=1)))
    assert whose is not None
    assert len(whose.packed) < MAX_BYTES
    assert msgpack.unpackb(whose.packed) == {"f": UUID(int=1).hex}
