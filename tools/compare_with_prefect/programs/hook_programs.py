"""Hooks of tasks."""

import asyncio
import functools

from observing import told
from prefect import flow, get_run_logger, runtime, task
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Cancelled, Completed, Crashed, Failed

KINDS = ("on_running", "on_completion", "on_failure")


def _noting(events):
    def note(kind):
        return lambda task, run, state: events.append(
            [kind, task.name, type(run).__name__, state.type.value, state.name]
        )

    return {kind: [note(kind)] for kind in KINDS}


def _fail():
    raise ValueError("boom")


def completed():
    events = []
    task(name="t", **_noting(events))(lambda: 1)()
    return events


def failed():
    events = []
    task(name="t", **_noting(events))(_fail)(return_state=True)
    return events


def retried():
    events = []
    task(name="t", retries=1, **_noting(events))(_fail)(return_state=True)
    return events


def returned_states():
    seen = []
    for make in (Failed, Crashed, Cancelled, lambda: Completed(name="Mine")):
        events = []
        told(lambda make=make, events=events: task(name="t", **_noting(events))(make)(return_state=True))
        seen.append([[event[0], event[4]] for event in events])
    return seen


def order():
    events = []
    hooks = [lambda t, r, s, n=n: events.append(n) for n in range(3)]
    made = task(on_completion=hooks)(lambda: 1)
    made.on_completion(lambda t, r, s: events.append("decorated"))
    made()
    return events


def raising():
    events = []

    def bad(task, run, state):
        raise KeyError("hook")

    made = task(
        on_completion=[bad, lambda t, r, s: events.append("after")], on_running=[bad], on_failure=[bad]
    )(lambda: 1)
    return [made(), events, told(lambda: task(on_failure=[bad])(_fail)())]


def exits_in_hooks():
    def bad(task, run, state):
        raise SystemExit(1)

    return [told(lambda: task(on_completion=[bad])(lambda: 1)(return_state=True))]


def asynchronous():
    events = []

    async def note(task, run, state):
        await asyncio.sleep(0)
        events.append(state.name)

    @task(on_completion=[note], on_running=[note])
    async def made():
        return 1

    return [task(on_completion=[note], on_failure=[note])(lambda: 1)(), asyncio.run(made()), events]


def asynchronous_in_flows():
    events = []

    async def note(task, run, state):
        events.append(state.name)

    @flow
    def outer():
        task(on_completion=[note])(lambda: 1).submit().wait()

    outer()
    return events


def sync_hooks_of_async_tasks():
    events = []

    @task(**_noting(events))
    async def made():
        return 1

    asyncio.run(made())
    return [event[0] for event in events]


def submitted():
    events = []

    @flow
    def outer():
        task(name="t", **_noting(events))(lambda: 1).submit().result()

    outer()
    return events


def mapped():
    events = []

    @flow
    def outer():
        task(name="t", **_noting(events))(lambda x: x).map([1, 2]).result()

    outer()
    return sorted(event[0] for event in events)


def results_in_hooks():
    seen = []
    task(on_completion=[lambda t, r, s: seen.append(told(s.result))])(lambda: 5)()
    task(on_failure=[lambda t, r, s: seen.append(told(s.result))])(_fail)(return_state=True)
    task(on_failure=[lambda t, r, s: seen.append(s.message)])(_fail)(return_state=True)
    return seen


def runs_in_hooks():
    seen = []

    def look(task, run, state):
        seen.append(
            [
                run.name.startswith("t"),
                run.task_key is not None,
                run.run_count,
                run.state.name if run.state else None,
                run.state_name,
                sorted(run.tags),
                run.id == state.state_details.task_run_id,
            ]
        )

    task(name="t", tags={"a"}, on_running=[look], on_completion=[look])(lambda: 1)()
    return seen


def contexts_in_hooks():
    seen = []

    def look(t, r, s):
        seen.append(
            [
                TaskRunContext.get() is not None,
                FlowRunContext.get() is not None,
                runtime.task_run.id is not None,
            ]
        )

    made = task(on_running=[look], on_completion=[look], on_failure=[look])(lambda: 1)

    @flow
    def outer():
        made()

    made()
    outer()
    return seen


def tasks_in_hooks():
    seen = []
    inner = task(lambda: 5)
    task(on_completion=[lambda t, r, s: seen.append(inner())])(lambda: 1)()
    return seen


def loggers_in_hooks():
    seen = []
    task(on_completion=[lambda t, r, s: seen.append(told(lambda: get_run_logger() is not None))])(lambda: 1)()
    return seen


def kinds_of_callables():
    seen = []

    class Hook:
        def __call__(self, task, run, state):
            seen.append("object")

    def keyword(task, run, state, *, extra):
        seen.append(extra)

    made = task(on_completion=[Hook(), functools.partial(keyword, extra="partial")])(lambda: 1)
    made()
    return seen


def hooks_with_other_parameters():
    seen = []
    return [
        told(lambda: task(on_completion=[lambda: seen.append(1)])(lambda: 1)()),
        told(lambda: task(on_completion=[lambda a, b, c: seen.append("names")])(lambda: 1)()),
        seen,
    ]


def after_bad_arguments():
    events = []
    made = task(name="t", **_noting(events))(lambda x: x)
    told(lambda: made())
    return events


def after_a_bad_name():
    events = []
    made = task(name="t", task_run_name="{nope}", **_noting(events))(lambda: 1)
    told(made)
    return events


def after_failed_upstreams():
    events = []
    boom = task(_fail)

    @flow
    def outer():
        future = task(name="t", **_noting(events))(lambda x: x).submit(boom.submit())
        future.wait()

    told(outer)
    return events


def interrupts():
    events = []

    def stop():
        raise KeyboardInterrupt

    told(task(name="t", **_noting(events))(stop))
    return events


def with_options_keeps_hooks():
    events = []
    made = task(name="t", **_noting(events))(lambda: 1)
    made.with_options(name="u")()
    made.with_options(on_completion=[lambda t, r, s: events.append("other")])()
    return events


def hooks_that_change_the_list():
    events = []
    hooks = [lambda t, r, s: events.append(1)]
    made = task(on_completion=hooks)(lambda: 1)
    hooks.append(lambda t, r, s: events.append(2))
    made()
    return events


def hooks_before_the_value_is_given():
    events = []

    @task(on_completion=[lambda t, r, s: events.append("hook")])
    def made():
        events.append("body")

    made()
    events.append("after")
    return events


def states_of_failures():
    seen = []
    task(retries=1, on_failure=[lambda t, r, s: seen.append([s, r.state, s.is_final()])])(_fail)(
        return_state=True
    )
    return seen
