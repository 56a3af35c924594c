"""Looking at runs: on workers, by way of a real broker, and of this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import prefect_lite
import prefect_lite.client
from prefect_lite import flow, run_history, tags, task
from prefect_lite.client import orchestration
from prefect_lite.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect_lite.client.requests import Answered
from prefect_lite.context import FlowRunContext, TaskRunContext
from prefect_lite.exceptions import BrokerError, MissingResult, ObjectNotFound
from prefect_lite.run_creation import create_run
from prefect_lite.run_inputs import TaskRunResult
from prefect_lite.runs import TaskRun
from prefect_lite.states import StateType
from prefect_lite.tagging import current_tags
from prefect_lite.testing import Harness, test_harness
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.anyio

SECONDS = 20.0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Not asked of every single test: the harness of the module has threads that come and go."""


@pytest.fixture(scope="module", autouse=True)
def harness() -> Iterator[Harness]:
    with test_harness(add, fail, flaky, named, inside, outer, direct) as started:
        yield started


@pytest.fixture(autouse=True)
def no_history() -> Iterator[None]:
    run_history.forget_all()
    yield
    run_history.forget_all()


@task(tags={"sum"})
def add(a: Any, b: int = 1) -> Any:
    return a + b


@task
def fail() -> None:
    raise KeyError("lost")


@task(retries=2, retry_delay_seconds=[0.01, 0])
def flaky() -> str:
    if TaskRunContext.get().task_run.run_count < 3:  # type: ignore[union-attr]
        raise ValueError("not yet")
    return "at last"


@task(task_run_name="named-{x}")
def named(x: int, wrong: bool = False) -> None:
    if wrong:
        raise ValueError("wrong")


@task(tags={"own"})
async def inside() -> list[Any]:
    """What a run on a worker knows of where it belongs, and what the tasks it calls inherit."""
    run = TaskRunContext.get().task_run  # type: ignore[union-attr]
    called = direct()
    return [
        run.flow_run_id,
        run.parent_task_run_id,
        run.task_inputs,
        set(run.tags),
        set(current_tags()),
        called,
    ]


@task
def direct() -> list[Any]:
    run = TaskRunContext.get().task_run  # type: ignore[union-attr]
    return [run.flow_run_id, run.parent_task_run_id, set(run.tags)]


@task
def outer() -> UUID:
    return add.delay(1).task_run_id


def sync_client() -> SyncPrefectClient:
    return get_client(sync_client=True)


# -- the client ---------------------------------------------------------------------------------------


def test_it_is_where_programs_for_prefect_look() -> None:
    assert prefect_lite.client.get_client is get_client
    assert isinstance(get_client(), PrefectClient)
    assert isinstance(get_client(sync_client=True), SyncPrefectClient)
    with pytest.raises(AttributeError):
        prefect_lite.client.no_such_name  # noqa: B018


def test_the_package_of_the_client_loads_nothing_of_it() -> None:
    code = "import sys, prefect_lite.client; print('prefect_lite.futures' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


async def test_with_and_without_a_with_block() -> None:
    future = await add.adelay(1)
    assert await future.result_async(timeout=SECONDS) == 2
    async with get_client() as client:
        assert (await client.read_task_run(future.task_run_id)).id == future.task_run_id
    assert (await get_client().read_task_run(future.task_run_id)).id == future.task_run_id
    with get_client(sync_client=True) as sync:  # under a running loop, too
        assert sync.read_task_run(str(future.task_run_id)).id == future.task_run_id


# -- one run ------------------------------------------------------------------------------------------


async def test_a_run_that_completed() -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with tags("today"):
        future = add.delay(2, b=5)
    future.wait(SECONDS)
    run = await get_client().read_task_run(future.task_run_id)
    assert isinstance(run, TaskRun)
    assert (run.task_key, run.task_name, run.run_count) == (add.key, "add", 1)
    assert run.name == f"add-{run.run_id[:3]}"
    assert run.tags == {"sum", "today"}
    assert (run.state_type, run.state_name) == (StateType.COMPLETED, "Completed")
    assert run.state is not None
    assert await run.state.aresult() == 7
    assert run.state.state_details.task_run_id == run.id
    assert run.start_time is not None
    assert run.end_time is not None
    assert before <= run.created == run.expected_start_time <= run.start_time <= run.end_time
    assert run.total_run_time == run.end_time - run.start_time
    states = await get_client().read_task_run_states(future.task_run_id)
    assert [state.name for state in states] == ["Scheduled", "Running", "Completed"]
    assert [state.name for state in run.states] == ["Scheduled", "Running", "Completed"]
    assert await states[-1].aresult() == 7
    assert [state.timestamp for state in states] == [run.created, run.start_time, run.end_time]


def test_a_run_that_failed() -> None:
    future = fail.delay()
    future.wait(SECONDS)
    state = sync_client().read_task_run(future.task_run_id).state
    assert state is not None
    assert state.is_failed()
    assert "lost" in (state.message or "")
    with pytest.raises(KeyError, match="lost"):
        state.result()
    assert [state.name for state in sync_client().read_task_run_states(future.task_run_id)][1:] == [
        "Running",
        "Failed",
    ]


def test_retries_are_seen(harness: Harness) -> None:
    future = flaky.delay()
    assert future.result(timeout=SECONDS) == "at last"
    run = sync_client().read_task_run(future.task_run_id)
    assert run.run_count == 3
    states = sync_client().read_task_run_states(future.task_run_id)
    assert [state.name for state in states] == [
        "Scheduled", "Running", "AwaitingRetry", "Retrying", "Retrying", "Completed",
    ]  # fmt: skip
    waiting = states[2]
    due = waiting.state_details.scheduled_time
    assert due is not None
    assert due - waiting.timestamp == timedelta(seconds=0.01)
    assert states[3].timestamp >= due
    assert run.start_time == states[1].timestamp


def test_a_run_that_waits() -> None:
    future = add.apply_async((1,), countdown=3600)
    run = sync_client().read_task_run(future.task_run_id)
    assert run.state_name == "Scheduled"
    assert run.expected_start_time - run.created == timedelta(hours=1)
    assert (run.start_time, run.end_time, run.run_count) == (None, None, 0)
    future.cancel()
    assert [state.name for state in sync_client().read_task_run_states(future.task_run_id)] == [
        "Scheduled",
        "Cancelled",
    ]


def test_the_name_that_its_task_gave_it() -> None:
    good, bad = named.delay(7), named.delay(8, wrong=True)
    good.wait(SECONDS)
    bad.wait(SECONDS)
    assert sync_client().read_task_run(good.task_run_id).name == "named-7"
    assert sync_client().read_task_run(bad.task_run_id).name == "named-8"


async def test_a_deferred_run_is_executed() -> None:
    run = await create_run(add, parameters={"a": 40, "b": 2}, deferred=True)
    future: Any = prefect_lite.PrefectDistributedFuture(run.id)
    assert await future.result_async(timeout=SECONDS) == 42
    assert (await get_client().read_task_run(run.id)).created <= run.created + timedelta(seconds=1)


async def test_runs_that_nobody_knows() -> None:
    an_id = uuid4()
    with pytest.raises(ObjectNotFound, match=f"no record of task run {an_id}"):
        await get_client().read_task_run(an_id)
    assert await get_client().read_task_run_states(an_id) == []
    with pytest.raises(ObjectNotFound, match=f"no record of flow run {an_id}"):
        await get_client().read_flow_run(an_id)
    for wrong in ("seven", "0" * 31):
        with pytest.raises(ValueError, match="not a run id"):
            await get_client().read_task_run(wrong)


async def test_a_broker_of_yesterday_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        def ask(self, what: str, arg: Any) -> Answered:
            answered = Answered()
            answered.ok, answered.value = False, ["unknown_query", f"This broker knows no {what!r}."]
            answered.set()
            return answered

    monkeypatch.setattr(orchestration, "get_runtime", Older)
    with pytest.raises(BrokerError, match="older than this client"):
        sync_client().read_task_runs()
    with pytest.raises(BrokerError, match="older than this client"):
        await get_client().read_task_run(uuid4())


# -- where it belongs ---------------------------------------------------------------------------------


def test_a_run_on_a_worker_knows_where_it_belongs() -> None:
    made: list[Any] = []

    @flow
    def whole() -> None:
        with tags("around"):
            first = add.delay(1)
            made.extend([FlowRunContext.get(), first, inside.apply_async(wait_for=[first])])

    whole()
    context, first, second = made
    flow_run_id, parent, inputs, own, inherited, called = second.result(timeout=SECONDS)
    assert (flow_run_id, parent) == (context.flow_run.id, None)
    assert inputs == {"wait_for": [TaskRunResult(id=first.task_run_id)]}
    assert (own, inherited) == ({"own", "around"}, {"around"})
    assert called == [flow_run_id, second.task_run_id, {"around"}]
    run = sync_client().read_task_run(second.task_run_id)
    assert (run.flow_run_id, run.parent_task_run_id, run.task_inputs) == (flow_run_id, None, inputs)
    plain = inside.delay()
    assert plain.result(timeout=SECONDS)[:5] == [None, None, {}, {"own"}, set()], "nothing of it stays behind"
    assert direct.delay().result(timeout=SECONDS) == [None, None, set()]


def test_tags_of_one_run_are_not_those_of_the_next_in_its_thread() -> None:
    with tags("once"):
        futures = [direct.delay() for _ in range(20)]
    assert [future.result(timeout=SECONDS)[2] for future in futures] == [{"once"}] * 20
    later = [direct.delay() for _ in range(20)]
    assert [future.result(timeout=SECONDS)[2] for future in later] == [set()] * 20


def test_a_run_sent_by_a_run_has_a_parent() -> None:
    parent = outer.delay()
    child = sync_client().read_task_run(parent.result(timeout=SECONDS))
    assert child.parent_task_run_id == parent.task_run_id
    assert child.task_inputs == {"__parents__": [TaskRunResult(id=parent.task_run_id)]}


# -- runs of this process -----------------------------------------------------------------------------


async def test_a_run_of_this_process() -> None:
    record = next(iter([add(1, return_state=True), *run_history.recent()][1:]))
    assert isinstance(record, TaskRun)
    assert await get_client().read_task_run(record.id) is record
    states = await get_client().read_task_run_states(record.id)
    assert [state.name for state in states] == ["Pending", "Running", "Completed"]
    with pytest.raises(MissingResult):
        await states[-1].aresult()


def test_a_flow_run_of_this_process() -> None:
    @flow
    def empty() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        return context.flow_run.id

    an_id = empty()
    assert sync_client().read_flow_run(an_id).id == an_id
    with pytest.raises(ObjectNotFound):
        sync_client().read_task_run(an_id)


LOCAL = """
import sys, uuid
from prefect_lite import flow, run_history, task
from prefect_lite.client import get_client
from prefect_lite.exceptions import ObjectNotFound

@task
def add(a, b):
    return a + b

@flow
def whole():
    return add(1, 2)

whole()
of_flow, of_task = run_history.recent()
with get_client(sync_client=True) as client:
    assert client.read_flow_run(of_flow.id) is of_flow
    assert client.read_task_run(of_task.id) is of_task
    assert client.read_task_runs() == [of_task]
    assert client.read_task_run_states(uuid.uuid4()) == []
    try:
        client.read_task_run(uuid.uuid4())
    except ObjectNotFound:
        print("looked")
"""


def test_where_no_broker_ever_ran_none_is_started_to_ask_it(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_LITE_")}
    home = tmp_path / "home"
    result = subprocess.run(
        [sys.executable, "-c", LOCAL],
        env={**kept, "PREFECT_LITE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "looked"
    assert not home.exists()


# -- lists --------------------------------------------------------------------------------------------


def ids(runs: list[TaskRun]) -> list[UUID]:
    return [run.id for run in runs]


def test_lists_of_runs() -> None:
    label, client = uuid4().hex, sync_client()
    with tags(label):
        first = add.delay(1)
        first.wait(SECONDS)
        middle = datetime.now(UTC)
        wait_until(
            lambda: datetime.now(UTC) > middle + timedelta(milliseconds=1), SECONDS, "the next millisecond"
        )
        failed = fail.delay()
        failed.wait(SECONDS)
        waiting = add.apply_async((1,), countdown=3600)
        add(1)  # here
    (here,) = [run for run in run_history.recent() if isinstance(run, TaskRun)]
    everything = [here.id, waiting.task_run_id, failed.task_run_id, first.task_run_id]
    assert ids(client.read_task_runs(tags=label)) == everything, "the newest first"
    assert ids(client.read_task_runs(tags=[label, "sum"])) == [everything[0], everything[1], everything[3]]
    assert ids(client.read_task_runs(tags=label, task_key=fail.key)) == [failed.task_run_id]
    assert ids(client.read_task_runs(tags=label, state="FAILED")) == [failed.task_run_id]
    assert ids(client.read_task_runs(tags=label, state="Completed")) == [here.id, first.task_run_id]
    some = [StateType.FAILED, "Scheduled"]
    assert ids(client.read_task_runs(tags=label, state=some)) == everything[1:3]
    assert ids(client.read_task_runs(tags=label, since=middle)) == everything[:3]
    assert ids(client.read_task_runs(tags=label, until=middle)) == everything[3:]
    assert ids(client.read_task_runs(tags=label, limit=2)) == everything[:2]
    assert ids(client.read_task_runs(tags=label, limit=2, offset=1)) == everything[1:3]
    assert client.read_task_runs(tags=label, limit=0) == []
    assert client.read_task_runs(tags=label, state="TimedOut") == []
    one = client.read_task_runs(tags=label, state="COMPLETED", task_key=add.key, limit=None)[-1]
    assert (one.name, one.run_count, one.state_name) == (f"add-{one.run_id[:3]}", 1, "Completed")
    waiting.cancel()


async def test_a_long_list_comes_in_pages() -> None:
    label = uuid4().hex
    with tags(label):
        futures = add.map(range(700), deferred=True)
        await futures.wait_async(SECONDS)
        big = add.apply_async((1,), wait_for=list(futures)[:300])
        await big.wait_async(SECONDS)
    runs = await get_client().read_task_runs(tags=label, limit=None)
    assert {*ids(runs)} == {future.task_run_id for future in [*futures, big]}
    assert len(runs[0].task_inputs["wait_for"]) == 256
    newest = await get_client().read_task_runs(tags=label, limit=10)
    assert ids(newest) == ids(runs)[:10]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"since": datetime(2026, 1, 1)}, "since must be an aware"),
        ({"until": "today"}, "until must be an aware"),
        ({"limit": -1}, "limit must be"),
        ({"limit": "9"}, "limit must be"),
        ({"offset": -1}, "offset must be"),
        ({"task_key": add}, "like add.task_key"),
        ({"state": 5}, "state must be"),
        ({"state": StateType}, "state must be"),
        ({"tags": [5]}, "tags must be"),
    ],
)
def test_impossible_lists(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        sync_client().read_task_runs(**asked)
