"""Flows whose results are kept, and what their tasks inherit."""

import asyncio
import tempfile
import threading
from pathlib import Path

from observing import told
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.results import get_result_store, should_persist_result


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def persisted_or_not():
    def kept(**options):
        folder = _folder()
        value = flow(result_storage=folder, name="f", **options)(lambda: 1)()
        return [value, len(_files(folder))]

    return [kept(), kept(persist_result=True), kept(persist_result=False), kept(result_serializer="json")]


def what_options_imply():
    return [
        flow(name="f", **options)(lambda: 1).persist_result
        for options in (
            {},
            {"persist_result": True},
            {"persist_result": False},
            {"result_serializer": "json"},
            {"result_storage": _folder()},
            {"cache_result_in_memory": False},
            {"persist_result": False, "result_storage": _folder()},
        )
    ]


def tasks_inside():
    def kept(flow_options, task_options):
        folder = _folder()
        made = task(lambda: 1, **task_options)

        @flow(result_storage=folder, **flow_options)
        def outer():
            made()
            return 2

        outer()
        return len(_files(folder))

    return [
        kept({}, {}),
        kept({"persist_result": True}, {}),
        kept({"persist_result": False}, {}),
        kept({"persist_result": True}, {"persist_result": False}),
        kept({"persist_result": False}, {"persist_result": True}),
        kept({"persist_result": True}, {"result_storage_key": "own"}),
    ]


def storages_inside():
    of_flow, of_task = _folder(), _folder()
    own = task(lambda: 1, result_storage=of_task, persist_result=True, name="own")
    inherits = task(lambda: 2, persist_result=True, name="inherits")

    @flow(result_storage=of_flow)
    def outer():
        return [own(), inherits()]

    return [outer(), len(_files(of_flow)), len(_files(of_task))]


def serializers_inside():
    @task
    def inherits():
        return get_result_store().serializer.type

    @task(result_serializer="pickle")
    def own():
        return get_result_store().serializer.type

    @flow(result_serializer="json", result_storage=_folder())
    def outer():
        return [get_result_store().serializer.type, inherits(), own()]

    return outer()


def memory_inside():
    @task
    def inherits():
        return get_result_store().cache_result_in_memory

    @flow(cache_result_in_memory=False, result_storage=_folder())
    def outer():
        return [get_result_store().cache_result_in_memory, inherits()]

    return outer()


def persistence_inside():
    @task
    def inherits():
        return should_persist_result()

    @task(persist_result=False)
    def never():
        return should_persist_result()

    def ran(**options):
        @flow(result_storage=_folder(), **options)
        def outer():
            return [should_persist_result(), inherits(), never(), inherits.submit().result()]

        return outer()

    return [ran(), ran(persist_result=True), ran(persist_result=False)]


def nested_flows():
    outer_folder, inner_folder = _folder(), _folder()

    @task
    def made():
        return 1

    @flow
    def inherits():
        made()
        return should_persist_result()

    @flow(result_storage=inner_folder, persist_result=True)
    def own():
        made()
        return should_persist_result()

    @flow(result_storage=outer_folder, persist_result=True)
    def outer():
        return [inherits(), own()]

    return [outer(), len(_files(outer_folder)), len(_files(inner_folder))]


def states():
    made = flow(lambda: [1], result_storage=_folder(), persist_result=True, name="f")
    state = made(return_state=True)
    return [state, state.result(), type(state.data).__name__]


def states_without_persistence():
    state = flow(lambda: [1], name="f")(return_state=True)
    return [state.result(), type(state.data).__name__]


def states_not_in_memory():
    made = flow(
        lambda: [1], result_storage=_folder(), persist_result=True, cache_result_in_memory=False, name="f"
    )
    state = made(return_state=True)
    return [state.result(), made()]


def failures():
    folder = _folder()

    @flow(result_storage=folder, persist_result=True)
    def made():
        raise ValueError("v")

    return [told(made), told(lambda: made(return_state=True)), len(_files(folder)) > 0]


def values_that_can_not_be_kept():
    made = flow(lambda: threading.Lock(), result_storage=_folder(), persist_result=True, name="f")
    return [told(made), told(lambda: made(return_state=True))]


def no_cache_for_flows():
    calls = []

    @flow(result_storage=_folder(), persist_result=True)
    def made(x):
        calls.append(x)
        return x

    return [made(1), made(1), calls]


def returned_futures():
    folder = _folder()
    one = task(lambda: 1, name="one")

    @flow(result_storage=folder, persist_result=True)
    def made():
        return one.submit()

    return [told(made), told(lambda: made(return_state=True))]


def asynchronous():
    folder = _folder()

    @task(cache_policy=INPUTS)
    async def one(x):
        return x

    @flow(result_storage=folder, persist_result=True)
    async def made():
        return [await one(1), (await one(1, return_state=True)).name]

    return [asyncio.run(made()), len(_files(folder))]


def serializers_that_do_not_exist():
    return [
        told(lambda: flow(lambda: 1, result_serializer="nothing", name="f")()),
        told(lambda: flow(lambda: 1, result_serializer=5, name="f")),
        told(lambda: flow(lambda: 1, result_storage=5, name="f")),
        told(lambda: flow(lambda: 1, result_storage="local-file-system/never-saved", name="f")()),
        told(lambda: flow(lambda: 1, persist_result="x", name="f").persist_result),
    ]


def with_options():
    folder = _folder()
    made = flow(lambda: 1, result_storage=folder, result_serializer="json", persist_result=True, name="f")
    other = made.with_options(name="g")
    changed = made.with_options(
        persist_result=False, result_serializer="pickle", cache_result_in_memory=False
    )
    return [
        [other.persist_result, other.result_serializer, other.result_storage == made.result_storage],
        [changed.persist_result, changed.result_serializer, changed.cache_result_in_memory],
    ]


def retries():
    folder, calls = _folder(), []
    counted = task(lambda: calls.append("task"), persist_result=True, name="counted")

    @flow(retries=1, result_storage=folder, persist_result=True)
    def made():
        counted()
        calls.append("flow")
        if len(calls) < 3:
            raise ValueError("v")
        return len(calls)

    return [made(), calls]


def retries_without_persistence():
    calls = []
    counted = task(lambda: calls.append("task"), name="counted")

    @flow(retries=1)
    def made():
        counted()
        calls.append("flow")
        if calls.count("flow") < 2:
            raise ValueError("v")

    made()
    return calls


def upstream_results():
    one = task(lambda: [1], persist_result=True, cache_result_in_memory=False, name="one")
    two = task(lambda x: x, name="two")

    @flow(result_storage=_folder())
    def made():
        first = one.submit()
        return [two(first), two.submit(first).result(), first.result(), first.state.result()]

    return made()
