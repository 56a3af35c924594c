"""Caching: when a run is spared, and what one sees then."""

import asyncio
import tempfile
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

from observing import told
from prefect import flow, tags, task, unmapped
from prefect.cache_policies import DEFAULT, FLOW_PARAMETERS, INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE
from prefect.context import TaskRunContext
from prefect.tasks import Task, task_input_hash


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _counted(**options):
    calls = []

    @task(result_storage=_folder(), **options)
    def made(x, y=0):
        calls.append(x)
        return x

    return made, calls


def _runs(arguments, **options):
    """How often the function ran for these calls."""
    made, calls = _counted(**options)
    for each in arguments:
        made(*each)
    return len(calls)


TWICE = [(1,), (1,), (2,)]


def policies_outside_of_flows():
    return [
        _runs(TWICE, cache_policy=policy)
        for policy in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, NO_CACHE, None)
    ]


def policies_in_a_flow():
    @flow
    def outer(p):
        return [
            _runs(TWICE, cache_policy=policy)
            for policy in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, NO_CACHE, None)
        ]

    return outer(3)


def policies_in_two_runs_of_a_flow():
    def ran(policy):
        made, calls = _counted(cache_policy=policy)

        @flow
        def outer(p):
            made(1)
            made(1)

        outer(1)
        outer(1)
        outer(2)
        return len(calls)

    return [ran(policy) for policy in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, NO_CACHE)]


def sums():
    calls = [(1,), (1,), (2,)]
    return [
        _runs(calls, cache_policy=policy)
        for policy in (
            INPUTS + TASK_SOURCE,
            TASK_SOURCE + INPUTS,
            INPUTS + NO_CACHE,
            NO_CACHE + INPUTS,
            NO_CACHE + NO_CACHE,
            DEFAULT + INPUTS,
            INPUTS + FLOW_PARAMETERS,
            INPUTS + RUN_ID,
        )
    ]


def differences():
    calls = [(1, 1), (1, 2), (2, 1)]
    return [
        _runs(calls, cache_policy=policy)
        for policy in (
            INPUTS,
            INPUTS - "y",
            INPUTS - "x",
            INPUTS - "x" - "y",
            INPUTS - "zz",
            DEFAULT - "y",
            (INPUTS + TASK_SOURCE) - "y",
            TASK_SOURCE + (INPUTS - "y"),
            (INPUTS - "y") + INPUTS,
            TASK_SOURCE - "y",
        )
    ]


def all_inputs_excluded():
    made, calls = _counted(cache_policy=INPUTS - "x" - "y")
    return [made(1), made(2), made(3, return_state=True), calls]


def without_parameters():
    calls = []

    def counted():
        calls.append(1)

    def ran(policy):
        calls.clear()
        made = task(cache_policy=policy, result_storage=_folder())(counted)
        made()
        made()
        return len(calls)

    return [ran(INPUTS), ran(TASK_SOURCE), ran(DEFAULT), ran(INPUTS + TASK_SOURCE)]


def states():
    made, calls = _counted(cache_policy=INPUTS)
    return [
        made(1, return_state=True),
        made(1, return_state=True),
        made(1, return_state=True).result(),
        calls,
    ]


def states_of_futures():
    made, calls = _counted(cache_policy=INPUTS)

    @flow
    def outer():
        first = made.submit(1)
        first.wait()
        second = made.submit(1)
        second.wait()
        return [[first.state, second.state], [first.result(), second.result()], calls]

    return told(outer)


def mapped():
    made, calls = _counted(cache_policy=INPUTS)

    @flow
    def outer():
        made(1)
        futures = made.map([1, 2, 3], unmapped(0))
        futures.wait()
        return [[future.state for future in futures], futures.result(), sorted(calls)]

    return told(outer)


def hooks_on_a_hit():
    events = []

    def noting(name):
        return lambda *about: events.append([name, about[-1].name if len(about) == 3 else "transaction"])

    def body(x):
        events.append("body")
        return x

    made = Task(
        body,
        cache_policy=INPUTS,
        result_storage=_folder(),
        on_running=[noting("running")],
        on_completion=[noting("completion")],
        on_failure=[noting("failure")],
        on_commit=[noting("commit")],
        on_rollback=[noting("rollback")],
    )
    made(1)
    events.append("again")
    made(1)
    return events


def decorated_hooks_on_a_hit():
    events = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    def made(x):
        events.append("body")
        return x

    made.on_running(lambda task, run, state: events.append(["running", state.name]))
    made.on_completion(lambda task, run, state: events.append(["completion", state.name, run.run_count]))
    made.on_commit(lambda transaction: events.append("commit"))
    made.on_rollback(lambda transaction: events.append("rollback"))
    made(1)
    events.append("again")
    made(1)
    return events


def run_objects_on_a_hit():
    seen = []
    made, _ = _counted(
        cache_policy=INPUTS,
        on_completion=[lambda task, run, state: seen.append([run.run_count, state.name, run.state.name])],
    )
    made(1)
    made(1)
    return seen


def key_functions():
    return [
        _runs([(1,), (1,), (2,)], cache_key_fn=lambda context, parameters: "fixed"),
        _runs([(1,), (1,), (2,)], cache_key_fn=lambda context, parameters: str(parameters["x"])),
        _runs([(1,), (1,), (2,)], cache_key_fn=lambda context, parameters: None),
        _runs([(1,), (1,), (2,)], cache_key_fn=task_input_hash),
        _runs([(1,), (1,), (2,)], cache_key_fn=lambda context, parameters: ""),
    ]


def what_key_functions_get():
    seen = []

    def key(context, parameters):
        seen.append([type(context).__name__, context.task.name, context.task_run.run_count, parameters])
        return uuid.uuid4().hex

    @task(name="named", cache_key_fn=key, result_storage=_folder())
    def made(x, *args, y=2, **others):
        return x

    made(1, 5, z=3)
    return seen


def key_functions_that_fail():
    def fails(context, parameters):
        raise ValueError("v")

    made, calls = _counted(cache_key_fn=fails)
    return [told(lambda: made(1)), told(lambda: made(1, return_state=True)), calls]


def key_functions_with_odd_values():
    def ran(value):
        made, calls = _counted(cache_key_fn=lambda context, parameters: value)
        return [told(lambda: made(1)), told(lambda: made(1, return_state=True)), calls]

    return [ran(5), ran(b"bytes"), ran("a/b"), ran("with space"), ran("ü"), ran("x" * 150)]


def key_functions_with_long_values():
    made, calls = _counted(cache_key_fn=lambda context, parameters: "x" * 300)
    return [told(lambda: made(1)), told(lambda: made(1)), len(calls)]


def key_functions_with_wrong_signatures():
    made, calls = _counted(cache_key_fn=lambda context: "key")
    return [told(lambda: made(1)), told(lambda: made(1)), calls]


def key_functions_that_are_asynchronous():
    async def key(context, parameters):
        return "key"

    made, calls = _counted(cache_key_fn=key)
    return [told(lambda: made(1)), told(lambda: made(1)), calls]


def both_a_policy_and_a_key_function():
    calls = [(1,), (1,), (2,)]
    return [
        told(lambda: _runs(calls, cache_policy=INPUTS, cache_key_fn=lambda context, parameters: "fixed")),
        told(lambda: _runs(calls, cache_policy=NO_CACHE, cache_key_fn=lambda context, parameters: "fixed")),
    ]


def input_hashes():
    made = task(lambda x: x, name="hashed")
    keys = []

    @task
    def probe():
        context = TaskRunContext.get()
        keys.extend(
            task_input_hash(context, arguments)
            for arguments in ({"x": 1}, {"x": 1}, {"x": 2}, {"y": 1}, {}, {"x": threading.Lock()})
        )

    probe()
    return [
        [isinstance(key, str) for key in keys],
        keys[0] == keys[1],
        keys[0] == keys[2],
        keys[0] == keys[3],
        made.name,
    ]


def values_that_can_not_be_hashed():
    made, calls = _counted(cache_policy=INPUTS)
    lock = threading.Lock()
    return [
        told(lambda: made(1, lock)),
        told(lambda: made(1, lock)),
        told(lambda: made(2, lock, return_state=True)),
        calls,
        told(lambda: _runs([(1, lock), (1, lock)], cache_policy=INPUTS - "y")),
        told(lambda: _runs([(1, lock), (1, lock)], cache_policy=DEFAULT)),
        told(lambda: _runs([(1, lock), (1, lock)], cache_key_fn=task_input_hash)),
    ]


def inputs_that_are_equal():
    class Plain:
        def __init__(self, x):
            self.x = x

    pairs = [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        ([1, 2], (1, 2)),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (b"a", "a"),
        (Plain(1), Plain(1)),
        (Plain(1), Plain(2)),
        ({"a": {"b": [1]}}, {"a": {"b": [1]}}),
        (Path("a"), "a"),
        (None, ""),
    ]
    return [_runs([(first,), (second,)], cache_policy=INPUTS) for first, second in pairs]


def inputs_that_are_functions():
    def one():
        return 1

    def two():
        return 2

    return [
        _runs([(one,), (one,)], cache_policy=INPUTS),
        _runs([(one,), (two,)], cache_policy=INPUTS),
        _runs([(lambda: 1,), (lambda: 2,)], cache_policy=INPUTS),
    ]


def inputs_that_are_futures():
    made, calls = _counted(cache_policy=INPUTS)
    same = task(lambda x: x)

    @flow
    def outer():
        return [
            made(same.submit(1)),
            made(1),
            made(same(1, return_state=True), return_state=True),
            made.submit(same.submit(1)).state.name in ("Cached", "Pending", "Running"),
            calls,
        ]

    return told(outer)


def inputs_that_are_defaults():
    made, calls = _counted(cache_policy=INPUTS)
    made(1)
    made(1, 0)
    made(1, y=0)
    made(x=1)
    return len(calls)


def variable_arguments():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    def made(*args, **others):
        calls.append([args, others])

    made(1, 2)
    made(1, 2)
    made(2, 1)
    made(1, 2, a=3)
    made(1, 2, a=3)
    return calls


def expiration():
    made, calls = _counted(cache_policy=INPUTS, cache_expiration=timedelta(seconds=0.5))
    first = [made(1, return_state=True), made(1, return_state=True)]
    time.sleep(0.8)
    return [first, made(1, return_state=True), made(1, return_state=True), len(calls)]


def expirations_of_other_kinds():
    def ran(value):
        made, calls = _counted(cache_policy=INPUTS, cache_expiration=value)
        made(1)
        made(1)
        return len(calls)

    return [
        told(lambda: ran(timedelta(days=1))),
        told(lambda: ran(timedelta(0))),
        told(lambda: ran(timedelta(seconds=-1))),
    ]


def expirations_that_are_no_durations():
    return [
        told(lambda value=value: task(cache_policy=INPUTS, cache_expiration=value)(lambda: 1)())
        for value in (5, "1h")
    ]


def expirations_of_records():
    made, _ = _counted(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    other, _ = _counted(cache_policy=INPUTS)
    return [
        made(1, return_state=True).data.metadata.expiration is None,
        other(1, return_state=True).data.metadata.expiration,
    ]


def refreshed():
    made, calls = _counted(cache_policy=INPUTS, cache_key_fn=None)
    fresh = made.with_options(refresh_cache=True)
    return [
        made(1, return_state=True),
        made(1, return_state=True),
        fresh(1, return_state=True),
        fresh(1, return_state=True),
        made(1, return_state=True),
        fresh.with_options(refresh_cache=False)(1, return_state=True),
        len(calls),
    ]


def refreshed_values_are_kept():
    values = iter(range(10))

    def new(x):
        return next(values)

    made = task(new, cache_policy=INPUTS, result_storage=_folder(), name="new")
    return [made(1), made(1), made.with_options(refresh_cache=True)(1), made(1)]


def names_and_tags_do_not_count():
    made, calls = _counted(cache_policy=INPUTS)
    made(1)
    made.with_options(name="other")(1)
    with tags("a"):
        made(1)
    made.with_options(retries=3, description="other")(1)
    return len(calls)


def sources():
    folder, calls = _folder(), []

    def one(x):
        calls.append(1)
        return 1

    def two(x):
        calls.append(2)
        return 2

    first = task(one, cache_policy=TASK_SOURCE, result_storage=folder)
    second = task(two, cache_policy=TASK_SOURCE, result_storage=folder)
    return [first(1), first(2), second(1), second(2), first.with_options(name="n")(1), calls]


def two_tasks_with_the_same_inputs():
    folder = _folder()
    one = task(lambda x: "one", cache_policy=INPUTS, result_storage=folder)
    two = task(lambda x: "two", cache_policy=INPUTS, result_storage=folder)
    return [one(1), two(1)]


def flow_parameters():
    made, calls = _counted(cache_policy=FLOW_PARAMETERS)

    @flow
    def outer(a, b=2):
        made(a)
        return len(calls)

    return [outer(1), outer(1), outer(1, b=3), outer(1, 2), outer(2)]


def flow_parameters_without_some():
    made, calls = _counted(cache_policy=FLOW_PARAMETERS - "b")

    @flow
    def outer(a, b=2):
        made(a)
        return len(calls)

    return told(lambda: [outer(1), outer(1), outer(1, b=3), outer(2)])


def ids_of_flow_runs():
    made, calls = _counted(cache_policy=RUN_ID)

    @flow
    def outer():
        made(1)
        made(2)
        return len(calls)

    return [outer(), outer()]


def failures_are_not_cached():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    def made(x):
        calls.append(x)
        if len(calls) < 2:
            raise ValueError("v")
        return x

    return [told(lambda: made(1)), made(1), made(1), calls]


def retries_and_caches():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder(), retries=2)
    def made(x):
        calls.append(x)
        if len(calls) < 2:
            raise ValueError("v")
        return x

    return [made(1, return_state=True), made(1, return_state=True), len(calls)]


def persisted_by_default_policy():
    made, calls = _counted(persist_result=True)

    @flow
    def outer():
        made(1)
        made(1)

    outer()
    outer()
    made(1)
    made(1)
    return len(calls)


def without_persistence():
    return [
        _runs(TWICE, persist_result=False, cache_policy=INPUTS),
        _runs(TWICE, persist_result=True, cache_policy=INPUTS),
    ]


def asynchronous():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    async def made(x):
        calls.append(x)
        return x

    async def run():
        return [await made(1, return_state=True), await made(1, return_state=True), await made(1), len(calls)]

    return asyncio.run(run())


def asynchronous_at_once():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    async def made(x):
        calls.append(x)
        await asyncio.sleep(0.1)
        return x

    async def run():
        return [await asyncio.gather(*(made(1) for _ in range(3))), len(calls)]

    return asyncio.run(run())


def generators():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    def made(x):
        calls.append(x)
        yield x

    return told(lambda: [list(made(1)), list(made(1)), calls])


def methods():
    calls = []

    class Box:
        def __init__(self, x):
            self.x = x

        @task(cache_policy=INPUTS, result_storage=Path("methods").resolve())
        def made(self, y):
            calls.append([self.x, y])
            return self.x

    one, two = Box(1), Box(2)
    return [one.made(1), one.made(1), two.made(1), calls]


def timeouts_of_a_hit():
    made, calls = _counted(cache_policy=INPUTS, timeout_seconds=5)
    return [made(1, return_state=True), made(1, return_state=True), len(calls)]


def values_that_are_none():
    calls = []

    @task(cache_policy=INPUTS, result_storage=_folder())
    def made(x):
        calls.append(x)

    return [made(1), made(1), made(1, return_state=True), len(calls)]


def returned_states():
    from prefect.states import Cancelled, Completed, Failed

    def ran(make):
        calls = []

        @task(cache_policy=INPUTS, result_storage=_folder())
        def made(x):
            calls.append(x)
            return make()

        return [
            told(lambda: made(1, return_state=True)),
            told(lambda: made(1, return_state=True)),
            len(calls),
        ]

    return [
        ran(lambda: Completed(data=5)),
        ran(lambda: Completed(name="Mine", data=5)),
        ran(lambda: Failed(message="f")),
        ran(lambda: Cancelled(message="c")),
    ]


def a_changed_result_in_memory():
    made = task(lambda x: [x], cache_policy=INPUTS, result_storage=_folder())
    made(1).append(2)
    return made(1)


def policies_of_tasks_in_tasks():
    made, calls = _counted(cache_policy=INPUTS)

    @task
    def outer():
        made(1)
        made(1)
        return len(calls)

    return outer()
