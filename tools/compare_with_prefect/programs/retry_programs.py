"""Retries of tasks."""

import asyncio
import time

from observing import told
from prefect import flow, runtime, task
from prefect.context import TaskRunContext
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.tasks import exponential_backoff


def _flaky(fails, **options):
    """A task that fails so many times, and what its attempts saw."""
    seen = []

    @task(**options)
    def flaky():
        run = TaskRunContext.get().task_run
        seen.append([runtime.task_run.run_count, run.run_count, run.state.name if run.state else None])
        if len(seen) <= fails:
            raise ValueError(f"attempt {len(seen)}")
        return len(seen)

    return flaky, seen


def succeeding():
    flaky, seen = _flaky(2, retries=3)
    return [flaky(), [entry[:2] for entry in seen]]


def exhausted():
    flaky, seen = _flaky(9, retries=2)
    return [told(flaky), len(seen)]


def exhausted_return_state():
    flaky, seen = _flaky(9, retries=2)
    return [flaky(return_state=True), len(seen)]


def states_seen_inside():
    flaky, seen = _flaky(2, retries=2)
    flaky()
    return [entry[2] for entry in seen]


def same_run():
    ids = set()

    @task(retries=2)
    def flaky():
        ids.add(runtime.task_run.id)
        raise ValueError

    flaky(return_state=True)
    return len(ids)


def submitted():
    flaky, seen = _flaky(1, retries=1)

    @flow
    def outer():
        return flaky.submit().result()

    return [outer(), len(seen)]


def async_retries():
    seen = []

    @task(retries=2)
    async def flaky():
        seen.append(1)
        if len(seen) < 3:
            raise ValueError
        return "done"

    return [asyncio.run(flaky()), len(seen)]


def delays():
    _flaky(0)[0]()  # the first run of all may wait for Prefect's server
    took = []
    for delay in (0.2, [0.1, 0.2], lambda retries: [0.1] * retries, exponential_backoff(0.1)):
        flaky, _ = _flaky(2, retries=2, retry_delay_seconds=delay)
        began = time.perf_counter()
        flaky()
        took.append(0.15 < time.perf_counter() - began < 5)
    return took


def fewer_delays_than_retries():
    flaky, _ = _flaky(3, retries=3, retry_delay_seconds=[0, 0.2])
    began = time.perf_counter()
    flaky()
    return 0.35 < time.perf_counter() - began < 5


def conditions():
    asked = []

    def condition(task, run, state):
        asked.append([type(task).__name__, type(run).__name__, state.name, state.is_failed(), run.run_count])
        return len(asked) < 2

    flaky, seen = _flaky(9, retries=5, retry_condition_fn=condition)
    return [told(flaky), len(seen), asked]


def condition_results():
    def condition(task, run, state):
        return "ValueError" in type(state.result(raise_on_failure=False)).__name__

    flaky, seen = _flaky(1, retries=5, retry_condition_fn=condition)
    return [told(flaky), len(seen)]


def async_conditions():
    async def condition(task, run, state):
        return False

    flaky, seen = _flaky(9, retries=5, retry_condition_fn=condition)
    asyncs = []

    @task(retries=3, retry_condition_fn=condition)
    async def other():
        asyncs.append(1)
        raise ValueError("no")

    return [told(flaky), len(seen), told(lambda: asyncio.run(other())), len(asyncs)]


def conditions_that_raise():
    def condition(task, run, state):
        raise KeyError("condition")

    flaky, seen = _flaky(9, retries=5, retry_condition_fn=condition)
    return [told(flaky), len(seen)]


def conditions_that_are_falsy_or_truthy():
    counts = []
    for answer in (0, "yes", None, 1):
        flaky, seen = _flaky(9, retries=1, retry_condition_fn=lambda task, run, state, answer=answer: answer)
        told(flaky)
        counts.append(len(seen))
    return counts


def conditions_of_the_last_attempt():
    asked = []
    flaky, _ = _flaky(9, retries=1, retry_condition_fn=lambda task, run, state: asked.append(1) or True)
    told(flaky)
    return len(asked)


def conditions_without_retries():
    asked = []
    flaky, _ = _flaky(9, retry_condition_fn=lambda task, run, state: asked.append(1) or True)
    told(flaky)
    return len(asked)


def returned_states():
    counts = {}
    for name, make in (
        ("failed", Failed),
        ("crashed", Crashed),
        ("cancelled", Cancelled),
        ("completed", Completed),
        ("list", lambda: [Completed(data=1), Failed()]),
    ):
        seen = []

        @task(retries=2)
        def made():
            seen.append(1)  # noqa: B023 - called in this turn; a default would be a parameter of the task
            return make()  # noqa: B023 - the same

        told(lambda: made(return_state=True))
        counts[name] = len(seen)
    return counts


def timeouts_are_retried():
    seen = []

    @task(retries=1, timeout_seconds=0.1)
    def slow():
        seen.append(1)
        for _ in range(300):
            time.sleep(0.01)

    return [told(slow), len(seen)]


def exits_are_not_retried():
    seen = []

    @task(retries=2)
    def stop():
        seen.append(1)
        raise SystemExit(1)

    return [told(stop)["raises"][0], len(seen)]


def bad_arguments_are_not_retried():
    @task(retries=2)
    def made(x):
        return x

    return told(lambda: made())


def histories():
    """The states that hooks and the run's own code see, in order."""
    events = []

    @task(
        retries=2,
        on_running=[lambda t, r, s: events.append(s.name)],
        on_failure=[lambda t, r, s: events.append(s.name)],
        on_completion=[lambda t, r, s: events.append(s.name)],
    )
    def flaky():
        if len(events) < 3:
            raise ValueError

    flaky()
    return events


def counts_after_the_end():
    runs = []

    @task(retries=2, on_failure=[lambda t, r, s: runs.append([r.run_count, r.state.name, s.name])])
    def flaky():
        raise ValueError

    flaky(return_state=True)
    return runs


def the_task_stays():
    flaky, _seen = _flaky(1, retries=1)
    flaky()
    return [
        flaky.retries,
        flaky.retry_delay_seconds,
        flaky.options.retries if hasattr(flaky, "options") else flaky.retries,
    ]


def nested_retries():
    inner_seen, outer_seen = [], []

    @task(retries=1)
    def inner():
        inner_seen.append(runtime.task_run.run_count)
        raise ValueError("inner")

    @task(retries=1)
    def outer():
        outer_seen.append(runtime.task_run.run_count)
        return inner()

    return [told(outer), inner_seen, outer_seen]


def jitter():
    flaky, _ = _flaky(1, retries=1, retry_delay_seconds=0.1, retry_jitter_factor=0.5)
    began = time.perf_counter()
    flaky()
    return 0.04 < time.perf_counter() - began < 0.4


def exception_groups():
    seen = []

    @task(retries=1)
    def group():
        seen.append(1)
        raise ExceptionGroup("g", [ValueError("a")])

    return [told(group), len(seen)]
