"""Contexts and runtime values."""

import asyncio

from observing import told
from prefect import flow, get_run_logger, runtime, tags, task
from prefect.context import FlowRunContext, TaskRunContext, get_run_context
from prefect.exceptions import MissingContextError

TASK_VALUES = ("id", "name", "task_name", "tags", "parameters", "run_count")
FLOW_VALUES = (
    "id",
    "name",
    "flow_name",
    "flow_version",
    "tags",
    "parameters",
    "run_count",
    "parent_flow_run_id",
    "root_flow_run_id",
    "scheduled_start_time",
)


def _values(of, names):
    return {name: told(lambda name=name: getattr(of, name)) for name in names}


def outside():
    return [
        _values(runtime.task_run, TASK_VALUES),
        _values(runtime.flow_run, [name for name in FLOW_VALUES if name != "scheduled_start_time"]),
    ]


def scheduled_start_time_outside():
    return told(lambda: runtime.flow_run.scheduled_start_time)


def contexts_outside():
    return [
        told(TaskRunContext.get),
        told(FlowRunContext.get),
        told(get_run_context),
        issubclass(MissingContextError, Exception),
        told(get_run_logger),
    ]


def unknown_values():
    return [
        told(lambda: runtime.task_run.nope),
        told(lambda: runtime.flow_run.nope),
        told(lambda: runtime.nope),
    ]


def in_a_task():
    @task(name="t", tags={"a"})
    def look(x, y=2):
        return _values(runtime.task_run, [name for name in TASK_VALUES if name != "name"])

    return look(1)


def flow_values_in_a_lone_task():
    return task(
        lambda: _values(runtime.flow_run, [name for name in FLOW_VALUES if name != "scheduled_start_time"])
    )()


def types_in_a_task():
    return task(
        lambda: [
            type(runtime.task_run.id).__name__,
            type(runtime.task_run.tags).__name__,
            type(runtime.task_run.parameters).__name__,
        ]
    )()


def in_a_flow():
    @flow(name="f", version="1")
    def look(x, y=2):
        return _values(runtime.flow_run, [name for name in FLOW_VALUES if name not in ("name",)])

    return look(1)


def root_of_a_flow():
    return flow(
        lambda: [runtime.flow_run.root_flow_run_id == runtime.flow_run.id, type(runtime.flow_run.id).__name__]
    )()


def in_a_task_of_a_flow():
    @task(name="t")
    def look(x):
        return [
            runtime.flow_run.flow_name,
            runtime.flow_run.id is not None,
            runtime.flow_run.parameters,
            runtime.task_run.task_name,
            runtime.task_run.parameters,
        ]

    @flow(name="f")
    def outer(a):
        return [look(1), look.submit(2).result(), runtime.task_run.id]

    return outer(5)


def contexts_in_a_task():
    @task(name="t")
    def look(x):
        context = TaskRunContext.get()
        return [
            context.task.name,
            context.task_run.task_key == context.task.task_key,
            context.parameters,
            get_run_context() is context or type(get_run_context()).__name__,
            FlowRunContext.get(),
            context.start_time,
            context.task_run.run_count,
        ]

    return look(1)


def contexts_in_a_flow():
    @flow(name="f")
    def look(x):
        context = FlowRunContext.get()
        return [
            context.flow.name,
            context.flow_run.id == context.flow_run.id,
            context.parameters,
            type(get_run_context()).__name__,
            TaskRunContext.get(),
            context.start_time,
            context.flow_run.run_count,
            context.flow_run.name == runtime.flow_run.name,
        ]

    return look(1)


def contexts_of_a_task_in_a_flow():
    made = task(
        lambda: [
            type(get_run_context()).__name__,
            FlowRunContext.get() is not None,
            TaskRunContext.get().task_run.flow_run_id == FlowRunContext.get().flow_run.id,
        ]
    )
    return flow(lambda: [made(), made.submit().result()])()


def contexts_of_a_flow_in_a_task():
    inner = flow(lambda: [type(get_run_context()).__name__, TaskRunContext.get() is not None])
    return task(lambda: [inner(), type(get_run_context()).__name__])()


def contexts_restored():
    def fail():
        raise ValueError

    task(fail)(return_state=True)
    return [TaskRunContext.get(), told(lambda: runtime.task_run.id)]


def attributes():
    def look():
        run = TaskRunContext.get().task_run
        return {
            name: told(lambda name=name: getattr(run, name))
            for name in (
                "id",
                "name",
                "flow_run_id",
                "task_key",
                "dynamic_key",
                "tags",
                "state_type",
                "state_name",
                "run_count",
                "created",
                "start_time",
                "end_time",
                "expected_start_time",
                "total_run_time",
                "task_inputs",
                "cache_key",
                "task_version",
                "estimated_run_time",
            )
        }

    seen = task(name="t")(look)()
    del seen["dynamic_key"], seen["tags"], seen["task_key"]
    return seen


def attributes_of_flow_runs():
    def look():
        run = FlowRunContext.get().flow_run
        return {
            name: told(lambda name=name: getattr(run, name))
            for name in (
                "id",
                "flow_version",
                "parameters",
                "tags",
                "state_type",
                "state_name",
                "run_count",
                "created",
                "start_time",
                "end_time",
                "expected_start_time",
                "parent_task_run_id",
            )
        }

    return flow(name="f")(look)()


def tags_in_flows():
    made = task(tags={"own"})(lambda: sorted(runtime.task_run.tags))

    @flow
    def outer():
        with tags("inner"):
            return [made(), made.submit().result(), sorted(runtime.flow_run.tags), made.map.__name__]

    with tags("outer"):
        return outer()


def tags_in_subflows():
    inner = flow(lambda: sorted(runtime.flow_run.tags))

    with tags("outer"):
        return flow(lambda: inner())()


def tags_in_nested_tasks():
    inner = task(tags={"inner"})(lambda: sorted(runtime.task_run.tags))
    outer = task(tags={"outer"})(lambda: [inner(), sorted(runtime.task_run.tags)])
    return outer()


def async_contexts():
    @task
    async def look(x):
        await asyncio.sleep(0)
        return [runtime.task_run.parameters, TaskRunContext.get().parameters]

    async def run():
        return await asyncio.gather(look(1), look(2))

    return asyncio.run(run())


def parents():
    inner = task(lambda: [runtime.task_run.id is not None, TaskRunContext.get().task_run.id])
    outer = task(lambda: [inner()[0], TaskRunContext.get().task_run.id])
    return outer()


def loggers():
    return [
        task(lambda: told(lambda: get_run_logger().name))(),
        flow(lambda: told(lambda: get_run_logger().name))(),
    ]


def parameters_with_defaults_and_variables():
    return task(
        lambda a, *args, b=2, **kwargs: [runtime.task_run.parameters, TaskRunContext.get().parameters]
    )(1, 3, c=4)


def parameters_with_futures():
    one = task(lambda: 7)
    look = task(lambda x: runtime.task_run.parameters)
    return flow(lambda: [look(one.submit()), look.submit(one.submit()).result()])()
