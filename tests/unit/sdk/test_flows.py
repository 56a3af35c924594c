"""Flows: calls, what they give, names, retries, timeouts, hooks, nesting."""

from __future__ import annotations

import asyncio
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from prefect_lite import State, allow_failure, get_run_logger, run_history, task
from prefect_lite.context import FlowRunContext, TaskRunContext, get_run_context
from prefect_lite.exceptions import (
    FailedRun,
    FlowRunTimeoutError,
    MissingContextError,
    ParameterBindError,
    ParameterTypeError,
    UpstreamFailedRun,
)
from prefect_lite.flows import Flow, flow
from prefect_lite.states import Cancelled, Completed, Crashed, Failed
from prefect_lite.tagging import tags

pytestmark = pytest.mark.anyio


@task
def add(x: Any, y: Any = 1) -> Any:
    return x + y


@task
def bad() -> None:
    raise ValueError("boom")


def run(function: Any, **options: Any) -> Any:
    return flow(**options)(function)()


# -- what a call gives --------------------------------------------------------------------------------


def test_a_flow_is_called_like_its_function() -> None:
    @flow
    def both(x: int, *rest: int, y: str = "a", **more: Any) -> Any:
        return x, rest, y, more

    assert both(1, 2, 3, y="b", z=4) == (1, (2, 3), "b", {"z": 4})
    with pytest.raises(ParameterBindError, match="'x'"):
        both()  # type: ignore[call-arg]
    with pytest.raises(ParameterBindError):
        both(return_state=True)
    state = both(5, return_state=True)
    assert state.is_completed()
    assert state.data == (5, (), "a", {})


def test_what_it_raises_reaches_the_caller_or_is_the_state() -> None:
    @flow
    def raising() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        raising()
    state = raising(return_state=True)
    assert state.is_failed()
    assert "KeyError" in (state.message or "")
    with pytest.raises(KeyError):
        state.result()


def test_futures_it_returns_become_values_in_any_shape() -> None:
    @dataclass
    class Pair:
        first: Any
        second: Any

    assert run(lambda: add.submit(1)) == 2
    assert run(lambda: [add.submit(1), 5, (add.submit(2),)]) == [2, 5, (3,)]
    assert run(lambda: {"a": add.submit(1)}) == {"a": 2}
    assert run(lambda: add.map([1, 2, 3])) == [2, 3, 4]
    assert run(lambda: Pair(add.submit(1), 2)) == Pair(2, 2)
    state = flow(lambda: [add.submit(1)])(return_state=True)
    assert (state.name, state.message, state.data) == ("Completed", "All states completed.", [2])


def test_a_failed_run_among_its_futures_fails_the_flow() -> None:
    for function in (
        bad.submit,
        lambda: [add.submit(1), bad.submit()],
        lambda: {"a": [bad.submit()]},
    ):
        with pytest.raises(ValueError, match="boom"):
            run(function)
    state = flow(lambda: [add.submit(1), bad.submit()])(return_state=True)
    assert (state.name, state.message) == ("Failed", "1/2 states failed.")
    with pytest.raises(ValueError, match="boom"):
        state.result()


def test_states_it_returns_decide() -> None:
    assert run(lambda: Completed(message="hey", data=3)) == 3
    with pytest.raises(FailedRun, match="no good"):
        run(lambda: Failed(message="no good"))
    several = run(lambda: (add(1, return_state=True), bad(return_state=True)))  # type: ignore[call-overload]
    assert [state.name for state in several] == ["Completed", "Failed"]
    state = flow(lambda: [bad(return_state=True)])(return_state=True)  # type: ignore[call-overload]
    assert (state.name, state.message) == ("Failed", "1/1 states failed.")
    mixed = flow(lambda: [add.submit(1), Failed(data=ValueError("v"))])
    assert [state.name for state in mixed()] == ["Completed", "Failed"]
    assert mixed(return_state=True).message == "1/2 states failed."
    beside = run(lambda: [add.submit(1), 5, Completed(data=6)])
    assert beside[:2] == [2, 5]
    assert beside[2].data == 6
    error = ValueError("just data")
    assert run(lambda: error) is error


def test_a_state_of_another_run_is_a_value() -> None:
    @flow
    def child(how: Any) -> Any:
        return how

    for call in (add, child, add.submit):
        state = run(lambda call=call: call(1, return_state=True))
        assert isinstance(state, State)
        assert state.data in (1, 2)
    assert run(lambda: child(Completed(data=3), return_state=True)).data == 3
    whole = flow(lambda: add(1, return_state=True))(return_state=True)  # type: ignore[call-overload]
    assert (whole.message, whole.data.data) == ("All states completed.", 2)
    with pytest.raises(ValueError, match="boom"):
        run(lambda: bad(return_state=True))  # type: ignore[call-overload]


def test_failures_nobody_looks_at_are_not_the_flows() -> None:
    def ignores() -> str:
        bad.submit()
        return "done"

    assert run(ignores) == "done"


def test_it_ends_when_everything_submitted_has_ended() -> None:
    go, ended = threading.Event(), threading.Event()

    @task
    def slow() -> None:
        go.wait(10)
        add.submit(1)  # to a task runner that is about to close
        ended.set()

    @flow
    def leaves() -> None:
        threading.Timer(0.02, go.set).start()
        slow.submit()
        slow.submit(wait_for=[slow.submit()])  # type: ignore[call-overload]
        raise KeyError

    with pytest.raises(KeyError):
        leaves()
    assert ended.is_set()


# -- parameters ---------------------------------------------------------------------------------------


class Model(BaseModel):
    n: int


class Opaque: ...


def test_arguments_are_checked_and_converted() -> None:
    @flow
    def typed(x: int, m: Model | None = None, *more: int, free=0, y: float = 1) -> Any:  # type: ignore[no-untyped-def]
        return x, m, more, free, y

    assert typed("3", {"n": "4"}, "5", free="f", y="2") == (3, Model(n=4), ("5",), "f", 2.0)  # type: ignore[arg-type]
    with pytest.raises(
        ParameterTypeError, match=r"invalid parameters:\n - x: Input should be a valid integer"
    ):
        typed("z")  # type: ignore[arg-type]
    state = typed(1, {"n": "q"}, return_state=True)
    assert state.is_failed()
    assert "Validation of flow parameters failed" in (state.message or "")
    assert "m.Model.n" in state.message or "m.n" in state.message  # type: ignore[operator]
    assert typed.with_options(validate_parameters=False)("3")[0] == "3"  # type: ignore[arg-type]
    assert typed.validate_parameters({"x": "3"}) == {"x": 3}


def test_annotations_that_mean_nothing_are_left_alone() -> None:
    @flow
    def takes(x: NoSuchName, y: Opaque, z: State[Any] | None = None) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return x, y

    opaque = Opaque()
    assert takes(5, opaque) == (5, opaque)
    with pytest.raises(ParameterTypeError, match="Opaque"):
        takes(5, "no")  # type: ignore[arg-type]


def test_a_refused_call_is_not_tried_again_and_fails_once() -> None:
    seen: list[str] = []

    @flow(
        retries=3, on_failure=[lambda f, r, s: seen.append(s.name)], on_running=[lambda *_: seen.append("x")]
    )
    def typed(x: int) -> int:
        return x

    with pytest.raises(ParameterTypeError):
        typed("z")  # type: ignore[arg-type]
    assert seen == ["Failed"]


def test_futures_among_the_arguments_become_values() -> None:
    @flow
    def takes(x: Any = 0) -> Any:
        return x

    def uses() -> Any:
        one, failed = add.submit(1), bad.submit()
        with pytest.raises(UpstreamFailedRun):
            takes(failed)
        with pytest.raises(UpstreamFailedRun):
            takes(wait_for=[failed])
        assert takes(failed, return_state=True).name == "UpstreamFailed"
        return takes([one, {"k": one}]), isinstance(takes(allow_failure(failed)), ValueError)

    assert run(uses) == ([2, {"k": 2}], True)


# -- functions of all kinds ---------------------------------------------------------------------------


async def test_coroutine_functions() -> None:
    @task
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @flow
    async def asynchronous(n: int) -> Any:
        submitted = later.submit(n)
        return await later(n), await submitted, add.submit(n), later.map([1, 2])

    assert asynchronous.isasync
    assert await asynchronous(4) == (4, 4, 5, [1, 2])
    assert (await asynchronous("4", return_state=True)).is_completed()

    @flow
    async def failing() -> Any:
        return [bad.submit()]

    with pytest.raises(ValueError, match="boom"):
        await failing()
    assert (await failing(return_state=True)).is_failed()


async def test_the_event_loop_goes_on_while_a_flow_waits_for_what_it_has_submitted() -> None:
    go = threading.Event()

    @task
    def waits() -> bool:
        return go.wait(10)

    futures: list[Any] = []

    @flow
    async def leaves() -> None:
        futures.append(waits.submit())

    asyncio.get_running_loop().call_later(0.01, go.set)  # not called in time if the loop stood still
    await leaves()
    assert futures[0].result() is True


async def test_generator_functions() -> None:
    @flow
    def count(n: int) -> Any:
        for i in range(n):
            yield i, add.submit(i).result()

    @flow
    async def acount(n: int) -> Any:
        for i in range(n):
            yield i, FlowRunContext.get().flow_run.run_count  # type: ignore[union-attr]

    assert list(count("2")) == [(0, 1), (1, 2)]
    assert count(2, return_state=True).data == [(0, 1), (1, 2)]
    assert [item async for item in acount(2)] == [(0, 1), (1, 1)]
    assert FlowRunContext.get() is None


def test_methods() -> None:
    class Loader:
        base = 7

        @flow
        def add(self, x: int) -> int:
            return self.base + x

        @flow
        @classmethod
        def named(cls, x: int) -> Any:
            return cls.__name__, x

        @flow
        @staticmethod
        def same(x: int) -> int:
            return x

    assert Loader().add("1") == 8  # type: ignore[arg-type]
    assert Loader.named(2) == ("Loader", 2)
    assert Loader.same(2) == Loader().same(2) == 2
    assert Loader().add.ismethod
    assert not Loader.add.ismethod
    assert Loader.named.isclassmethod
    assert Loader.same.isstaticmethod
    assert Loader().add.with_options(name="other")(1) == 8


@flow
def importable() -> int:
    return 1


def test_flows_of_modules_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(importable)) is importable
    assert repr(importable) == "<Flow importable>"
    assert isinstance(importable, Flow)


# -- names, retries, timeouts, hooks ------------------------------------------------------------------


def name_now() -> str:
    return FlowRunContext.get().flow_run.name  # type: ignore[union-attr]


def test_run_names() -> None:
    def named(x: int = 2) -> str:
        return name_now()

    assert run(named, flow_run_name="hi-{x}") == "hi-2"
    assert run(named, flow_run_name=lambda: "called") == "called"
    assert run(named, flow_run_name=lambda parameters: f"p{parameters['x']}") == "p2"
    assert run(named).startswith("named-")
    with pytest.raises(KeyError):
        run(named, flow_run_name="hi-{nope}")
    with pytest.raises(TypeError, match="string is required"):
        run(named, flow_run_name=lambda: 5)


def test_retries_run_the_function_again_as_the_same_run() -> None:
    seen: list[Any] = []

    @flow(retries=2, retry_delay_seconds=0.001)
    def unstable() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        seen.append((context.flow_run.id, context.flow_run.state_name))
        if context.flow_run.run_count < 3:
            raise ValueError
        return add.submit(1), context.flow_run

    value, record = unstable()
    assert value == 2
    assert [name for _, name in seen] == ["Running", "Retrying", "Retrying"]
    assert len({run_id for run_id, _ in seen}) == 1
    assert [state.name for state in record.states] == [
        "Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry", "Retrying", "Completed",
    ]  # fmt: skip


def test_a_failed_future_is_a_failure_to_be_tried_again() -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def unstable() -> Any:
        attempts.append(1)
        return bad.submit() if len(attempts) < 2 else add.submit(1)

    assert unstable() == 2


async def test_timeouts() -> None:
    @flow(timeout_seconds=0.05)
    def busy() -> None:
        while True:
            pass

    @flow(timeout_seconds=0.05)
    async def sleeps() -> None:
        await asyncio.sleep(10)

    @flow(timeout_seconds=5)
    def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(FlowRunTimeoutError, match=r"busy exceeded timeout of 0\.05 second"):
        busy()
    assert busy(return_state=True).name == "TimedOut"
    with pytest.raises(FlowRunTimeoutError, match="exceeded timeout"):
        await sleeps()
    assert (await sleeps(return_state=True)).name == "TimedOut"
    assert own(return_state=True).name == "Failed"


def test_hooks() -> None:
    seen: list[Any] = []

    def note(called: str) -> Any:
        def hook(what: Any, run: Any, state: Any) -> None:
            seen.append((called, what.name, state.name))

        return hook

    hooks: Any = {
        name: [note(name)]
        for name in ("on_running", "on_completion", "on_failure", "on_cancellation", "on_crashed")
    }

    @flow(**hooks)
    def ends(how: Any = None) -> Any:
        if isinstance(how, BaseException):
            raise how
        return how() if callable(how) else how

    ends(1)
    ends(ValueError(), return_state=True)
    ends(Cancelled, return_state=True)
    ends(Crashed, return_state=True)
    with pytest.raises(SystemExit):
        ends(SystemExit(3))
    assert run_history.recent()[-1].state_name == "Crashed"
    assert [(called, state) for called, _, state in seen if called != "on_running"] == [
        ("on_completion", "Completed"),
        ("on_failure", "Failed"),
        ("on_cancellation", "Cancelled"),
        ("on_crashed", "Crashed"),
        ("on_crashed", "Crashed"),
    ]
    assert sum(called == "on_running" for called, *_ in seen) == 5

    decorated = flow(lambda: 1)
    for name in hooks:
        getattr(decorated, name)(hooks[name][0])
    seen.clear()
    decorated()
    assert [called for called, *_ in seen] == ["on_running", "on_completion"]
    with pytest.raises(TypeError):
        decorated.on_failure(5)  # type: ignore[arg-type]


# -- nesting ------------------------------------------------------------------------------------------


def test_parents_and_children() -> None:
    @task
    def inner() -> Any:
        context = TaskRunContext.get()
        assert context is not None
        return context.task_run

    @task
    def outer() -> Any:
        return TaskRunContext.get().task_run, inner(), inner.submit().result()  # type: ignore[union-attr]

    @flow
    def child() -> Any:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        return context.flow_run

    @task
    def calls_flow() -> Any:
        return TaskRunContext.get().task_run, child()  # type: ignore[union-attr]

    @flow
    def parent() -> Any:
        with tags("t1"):
            record = FlowRunContext.get().flow_run  # type: ignore[union-attr]
            return record, child(), calls_flow(), calls_flow.submit().result(), outer.submit().result()

    record, called, *in_tasks, (out, *inners) = parent()
    assert (record.parent_flow_run_id, record.root_flow_run_id) == (None, record.id)
    assert (called.parent_flow_run_id, called.root_flow_run_id) == (record.id, record.id)
    assert called.parent_task_run_id is None
    assert called.tags == {"t1"}
    for task_run, flow_run in in_tasks:
        assert task_run.flow_run_id == record.id
        assert flow_run.parent_flow_run_id == flow_run.root_flow_run_id == record.id
        assert flow_run.parent_task_run_id == task_run.id
    assert [run.parent_task_run_id for run in inners] == [out.id, out.id]
    assert {run.flow_run_id for run in (out, *inners)} == {record.id}
    with pytest.raises(MissingContextError):
        get_run_context()


def test_a_nested_flow_has_a_task_runner_of_its_own() -> None:
    def runner() -> Any:
        return FlowRunContext.get().task_runner  # type: ignore[union-attr]

    @flow
    def child() -> Any:
        return runner()

    def parent() -> Any:
        return runner() is runner(), runner() is child()

    assert run(parent) == (True, False)


def test_prints_are_logged_where_the_flow_around_says_so(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def speaks(text: str) -> None:
        print(text)

    @flow
    def child() -> None:
        print("child")

    @flow(log_prints=True)
    def parent() -> None:
        print("parent")
        speaks("task")
        speaks.with_options(log_prints=False)("silent")
        speaks.submit("submitted").wait()
        child()
        get_run_logger().info("logged")

    with caplog.at_level("INFO"):
        parent()
    texts = [record.getMessage() for record in caplog.records]
    assert {"parent", "task", "submitted", "child", "logged"} <= set(texts)
    assert "silent" not in texts
