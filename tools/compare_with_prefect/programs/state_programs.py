"""States without runs, and their results."""

import asyncio
from uuid import uuid4

from observing import told
from prefect import states as module
from prefect import task
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    State,
    Suspended,
    get_state_exception,
    is_state_iterable,
    raise_state_exception,
)

ALL = (
    Scheduled,
    AwaitingRetry,
    Late,
    Pending,
    Running,
    Retrying,
    Paused,
    Suspended,
    Cancelling,
    Cancelled,
    Completed,
    Failed,
    Crashed,
)


def constructors():
    return [[make(), make(message="m"), make(name="Other")] for make in ALL]


def predicates():
    names = (
        "scheduled",
        "pending",
        "running",
        "completed",
        "failed",
        "crashed",
        "cancelled",
        "cancelling",
        "paused",
        "final",
    )
    return {make.__name__: [name for name in names if getattr(make(), f"is_{name}")()] for make in ALL}


def results():
    values = (
        Completed(data=5),
        Completed(),
        Failed(data=ValueError("v")),
        Failed(message="m"),
        Failed(),
        Crashed(message="m"),
        Crashed(data=KeyError("k")),
        Cancelled(message="m"),
        Cancelled(),
        Pending(),
        Running(),
        Scheduled(),
        Paused(),
        AwaitingRetry(),
        Cancelling(),
        Failed(data="text"),
        Failed(data=5),
    )
    return [told(value.result) for value in values]


def results_without_raising():
    values = (
        Completed(data=5),
        Completed(),
        Failed(data=ValueError("v")),
        Failed(message="m"),
        Failed(),
        Crashed(message="m"),
        Cancelled(message="m"),
        Cancelled(),
        Pending(),
        Running(),
        Failed(data="text"),
    )
    return [told(lambda value=value: value.result(raise_on_failure=False)) for value in values]


def results_that_are_none():
    return told(lambda: Completed(data=None).result())


def results_in_a_loop():
    async def look():
        state = Completed(data=5)
        pending = state.result()
        return [asyncio.iscoroutine(pending), await pending, await state.aresult()]

    return told(lambda: asyncio.run(look()))


def failed_results_in_a_loop():
    async def look(make):
        return await make()

    failed = Failed(data=ValueError("v"))
    return [
        told(lambda: asyncio.run(look(lambda: failed.result()))),
        told(lambda: asyncio.run(look(lambda: failed.aresult()))),
        told(lambda: asyncio.run(look(lambda: failed.result(raise_on_failure=False)))),
    ]


def results_in_async_tasks():
    @task
    async def look():
        return await Completed(data=5).result()

    return told(lambda: asyncio.run(look()))


def results_in_sync_tasks():
    @task
    def look():
        return Completed(data=5).result()

    return told(look)


def results_of_states_of_states():
    return [
        told(Failed(data=Failed(data=ValueError("inner"))).result),
        told(Failed(data=[Completed(data=1), Failed(data=ValueError("inner"))]).result),
        told(Completed(data=Completed(data=1)).result),
    ]


def exceptions():
    values = (
        Failed(data=ValueError("v")),
        Failed(message="m"),
        Crashed(),
        Cancelled(),
        Completed(),
        Failed(data="text"),
        Failed(data=3),
    )
    return [told(lambda value=value: get_state_exception(value)) for value in values]


def raising():
    return [
        told(lambda value=value: raise_state_exception(value))
        for value in (
            Failed(data=ValueError("v")),
            Failed(message="m"),
            Completed(),
            Pending(),
            Cancelled(message="c"),
        )
    ]


def is_states():
    values = (Completed(), 1, None, [Completed()], "x", Completed)
    return [
        [isinstance(value, State) for value in values],
        [
            is_state_iterable(value)
            for value in (
                [Completed()],
                [],
                (Failed(),),
                {Completed()},
                [Completed(), 1],
                1,
                {"a": Completed()},
                "x",
            )
        ],
    ]


def equality():
    a = Completed(data=1)
    return [a == a, a == Completed(data=1), a != 1, Completed() == Failed()]


def copies():
    a = Completed(data=1, message="m")
    copy = a.model_copy(update={"name": "Other"})
    return [copy, a, a.fresh_copy() if hasattr(a, "fresh_copy") else None, told(lambda: a.model_copy().data)]


def texts():
    return [
        str(Completed()),
        str(Failed(message="m")),
        str(Completed(message="m", name="Mine")),
        str(Pending()),
        str(Running(name="R")),
    ]


def details():
    run = uuid4()
    state = Completed(state_details={"task_run_id": run})
    return [
        state.state_details.task_run_id == run,
        Completed().state_details.task_run_id,
        Completed().timestamp.tzinfo is not None,
        told(lambda: Scheduled().state_details.scheduled_time is not None),
    ]


def types():
    return [
        told(lambda: State(type="COMPLETED")),
        told(lambda: State(type="NOPE")),
        told(lambda: State(type=module.StateType.FAILED, name="x")),
        told(lambda: State(type="failed")),
    ]


def wrong_fields():
    return [
        told(lambda: Completed(nope=1)),
        told(lambda: State()),
        told(lambda: Completed(data=1, name=None)),
    ]


def constructor_names():
    return [
        name
        for name in (
            "Scheduled",
            "Completed",
            "Running",
            "Failed",
            "Crashed",
            "Cancelling",
            "Cancelled",
            "Pending",
            "Paused",
            "Suspended",
            "AwaitingRetry",
            "AwaitingConcurrencySlot",
            "Retrying",
            "Late",
            "to_state_create",
            "get_state_result",
            "exception_to_crashed_state",
            "exception_to_failed_state",
            "return_value_to_state",
            "get_state_exception",
            "raise_state_exception",
            "is_state_iterable",
            "StateGroup",
            "format_exception",
        )
        if hasattr(module, name)
    ]


def paused_times():
    return [
        told(lambda: Paused(timeout_seconds=5)),
        told(lambda: Paused(timeout_seconds=5, pause_expiration_time=module.Scheduled().timestamp)),
        told(lambda: Paused(timeout_seconds=5).state_details.pause_timeout),
    ]


def of_tasks():
    fine, fails = task(lambda: 1)(return_state=True), task(lambda: 1 / 0)(return_state=True)
    return [
        fine.type,
        fine.is_final(),
        fine.timestamp,
        fine.state_details.task_run_id,
        fails.type,
        fails.name,
        fails.message,
        fails.is_failed(),
        fine.id,
    ]


def of_multi_line_errors():
    def fail():
        raise ValueError("a\nb")

    return task(fail)(return_state=True)


def of_errors_without_text():
    def fail():
        raise ValueError

    return task(fail)(return_state=True)


def hashes():
    return told(lambda: len({Completed(), Completed()}))


def kept_data():
    items = [1]
    return [
        Completed(data=items).data is items,
        told(lambda: task(lambda: items)(return_state=True).result() is items),
    ]
