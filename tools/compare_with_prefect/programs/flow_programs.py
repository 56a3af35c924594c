"""Definition, arguments, retries, timeouts, hooks, names and task runners of flows."""

import asyncio
import time

from observing import told
from prefect import flow, runtime, task
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Crashed, Failed
from prefect.task_runners import ThreadPoolTaskRunner


@task
def _add(x, y=1):
    return x + y


@task
def _boom():
    raise ValueError("boom")


def _flow(function, **options):
    return flow(**options)(function) if options else flow(function)


def definitions():
    def my_flow(x: int = 1):
        """Doc."""

    made = flow(my_flow)
    other = flow(
        name="n",
        description="d",
        version="1",
        retries=2,
        retry_delay_seconds=3,
        timeout_seconds=4,
        log_prints=True,
        flow_run_name="r",
    )(my_flow)
    return [
        made.name,
        made.description,
        made.retries,
        made.retry_delay_seconds,
        made.timeout_seconds,
        made.log_prints,
        made.isasync,
        made.should_validate_parameters,
        other.name,
        other.description,
        other.version,
        other.retries,
        other.retry_delay_seconds,
        other.timeout_seconds,
        other.log_prints,
        other.flow_run_name,
    ]


def wrong_options():
    def f(): ...

    return [
        told(lambda: flow(name=3)(f)),
        told(lambda: flow(nope=3)(f)),
        told(lambda: flow(name="a/b")(f)),
        told(lambda: flow(on_completion=f)(f)),
        told(lambda: flow(on_completion=[3])(f)),
        told(lambda: flow(flow_run_name=3)(f)),
        told(lambda: flow(3)),
        told(lambda: flow(task_runner=3)(f)),
        told(lambda: flow(retries=-1)(f).retries),
        told(lambda: flow(timeout_seconds=-1)(f).timeout_seconds),
    ]


def reserved_parameters():
    def one(wait_for): ...
    def two(return_state): ...

    return [told(lambda: bool(flow(one))), told(lambda: bool(flow(two)))]


def with_options():
    def f(): ...

    made = flow(name="n", retries=2, log_prints=True, timeout_seconds=4)(f)
    other = made.with_options(name="m", retries=0)
    return [
        other.name,
        other.retries,
        other.log_prints,
        other.timeout_seconds,
        made.name,
        made.with_options(log_prints=False).log_prints,
        told(lambda: made.with_options(nope=1)),
    ]


def arguments():
    def f(x: int, y: str = "a"):
        return x, y

    return [
        told(lambda: _flow(f)("3")),
        told(lambda: _flow(f)("x")),
        told(lambda: _flow(f)()),
        told(lambda: _flow(f)(1, 2, 3)),
        told(lambda: _flow(f)(1, z=3)),
        told(lambda: _flow(f)(1, y="b")),
    ]


def unvalidated_arguments():
    def f(x: int):
        return x

    return [
        told(lambda: _flow(f, validate_parameters=False)("3")),
        told(lambda: _flow(f, validate_parameters=False)()),
    ]


def bad_arguments_return_state():
    def f(x: int):
        return x

    return [told(lambda: _flow(f)("x", return_state=True)), told(lambda: _flow(f)(return_state=True))]


def retries():
    counts = []

    def f():
        counts.append(runtime.flow_run.run_count)
        if len(counts) < 3:
            raise ValueError("again")
        return len(counts)

    return [told(lambda: _flow(f, retries=2)()), counts]


def retries_used_up():
    counts = []

    def f():
        counts.append(1)
        raise ValueError("again")

    return [told(lambda: _flow(f, retries=2)(return_state=True)), len(counts)]


def retries_of_returned_failures():
    counts = []

    def f():
        counts.append(1)
        return Failed(message="no") if len(counts) < 2 else 5

    return [told(lambda: _flow(f, retries=2)()), len(counts)]


def timeouts():
    def f():
        for _ in range(200):
            time.sleep(0.01)

    return [told(_flow(f, timeout_seconds=0.1)), _flow(f, timeout_seconds=0.1)(return_state=True)]


def async_timeouts():
    async def f():
        await asyncio.sleep(5)

    return [
        told(lambda: asyncio.run(_flow(f, timeout_seconds=0.1)())),
        asyncio.run(_flow(f, timeout_seconds=0.1)(return_state=True)),
    ]


def own_timeout_errors():
    def f():
        raise TimeoutError("mine")

    return [
        told(_flow(f, timeout_seconds=5)),
        _flow(f, timeout_seconds=5)(return_state=True),
        _flow(f)(return_state=True),
    ]


def hooks():
    events = []

    def note(kind):
        return lambda flow, run, state: events.append((kind, flow.name, state.name, type(run).__name__))

    options = {
        name: [note(name)]
        for name in ("on_running", "on_completion", "on_failure", "on_crashed", "on_cancellation")
    }

    def fail():
        raise ValueError

    _flow(lambda: 1, name="fine", **options)()
    _flow(fail, name="fails", **options)(return_state=True)
    _flow(lambda: Crashed(), name="crashes", **options)(return_state=True)
    return events


def hooks_of_returned_cancelled():
    events = []
    told(
        lambda: _flow(
            lambda: Cancelled(),
            on_cancellation=[lambda f, r, s: events.append(s.name)],
            on_failure=[lambda f, r, s: events.append("failure")],
        )(return_state=True)
    )
    return events


def hooks_of_retried_flows():
    events = []

    def f():
        if len(events) < 3:
            raise ValueError

    options = {
        name: [lambda f, r, s: events.append(s.name)]
        for name in ("on_running", "on_completion", "on_failure")
    }
    told(lambda: _flow(f, retries=2, **options)())
    return events


def hooks_that_raise():
    def bad(flow, run, state):
        raise ValueError("hook")

    return _flow(lambda: 1, on_completion=[bad], on_running=[bad])(return_state=True)


def decorated_hooks():
    events = []

    @flow
    def f(): ...

    @f.on_completion
    def done(flow, run, state):
        events.append(state.name)

    @f.on_failure
    def failed(flow, run, state):
        events.append("no")

    f()
    return [events, callable(done)]


def async_hooks():
    events = []

    async def done(flow, run, state):
        events.append(state.name)

    _flow(lambda: 1, on_completion=[done])()
    return events


def run_names():
    def f(x):
        return runtime.flow_run.name

    return [
        _flow(f, flow_run_name="run {x}")(3),
        _flow(f, flow_run_name=lambda: "made")(3),
        _flow(f, flow_run_name=lambda parameters: f"p{parameters['x']}")(3),
    ]


def run_names_that_fail():
    def bad():
        raise ValueError("name")

    return [
        told(lambda: _flow(lambda: 1, flow_run_name="{nope}")()),
        told(lambda: _flow(lambda: 1, flow_run_name=bad)()),
        told(lambda: _flow(lambda: 1, flow_run_name=lambda: 3)()),
    ]


def default_names():
    def My_Flow_Name(): ...

    return [flow(My_Flow_Name).name, flow(lambda: 1).name]


def async_flows():
    @flow
    async def f(x: int):
        return x + 1

    @flow
    async def outer():
        return [await f("1"), await f(2, return_state=True)]

    return [asyncio.run(f(1)), asyncio.run(outer())]


def async_failures():
    @flow
    async def f():
        raise ValueError("boom")

    return [told(lambda: asyncio.run(f())), asyncio.run(f(return_state=True))]


def async_tasks_in_sync_flows():
    @task
    async def one():
        return 1

    return told(_flow(lambda: one.submit().result()))


def task_runners():
    names = []

    def f():
        names.append(type(FlowRunContext.get().task_runner).__name__)
        return _add.map([1, 2]).result()

    return [
        _flow(f, task_runner=ThreadPoolTaskRunner(max_workers=1))(),
        _flow(f, task_runner=ThreadPoolTaskRunner)(),
        _flow(f)(),
        names,
    ]


def one_thread_chains():
    def f():
        return _add.submit(_add.submit(_add.submit(1))).result()

    return _flow(f, task_runner=ThreadPoolTaskRunner(max_workers=1))()


def runners_used_twice():
    runner = ThreadPoolTaskRunner(max_workers=2)

    def f():
        return _add.submit(1).result()

    made = _flow(f, task_runner=runner)
    return [made(), made()]


def runner_options():
    return [
        told(lambda value=value: ThreadPoolTaskRunner(max_workers=value) is not None)
        for value in (1, None, 0, -1)
    ]


def submitted_and_forgotten():
    ran = []
    slow = task(lambda: (time.sleep(0.1), ran.append(1)))

    def f():
        slow.submit()

    _flow(f)()
    return ran


def crash():
    def f():
        raise SystemExit(2)

    return [told(_flow(f)), told(lambda: _flow(f)(return_state=True))]


def interrupted():
    events = []

    def f():
        raise KeyboardInterrupt

    return [told(_flow(f, on_crashed=[lambda f, r, s: events.append(s.name)])), events]


def variable_arguments():
    def f(*args, **kwargs):
        return args, kwargs

    return told(lambda: _flow(f)(1, 2, a=3))


def default_parameters():
    def f(x, y=2):
        return [runtime.flow_run.parameters, FlowRunContext.get().parameters]

    return _flow(f)(1)


def pydantic_parameters():
    from pydantic import BaseModel

    class Pair(BaseModel):
        a: int

    def f(pair: Pair):
        return [type(pair).__name__, pair.a]

    f.__annotations__ = {"pair": Pair}
    return [told(lambda: _flow(f)({"a": "3"})), told(lambda: _flow(f)(Pair(a=1)))]


def names_of_parameters_of_tasks():
    def f():
        return _add.submit(y=2, x=1).result()

    return _flow(f)()
