"""Runs that are made before they start, and what went into runs."""

import asyncio
from uuid import uuid4

from observing import told
from prefect import flow, tags, task
from prefect.context import TaskRunContext
from prefect.states import Completed


@task(name="add", tags={"own"}, version="3")
def _add(x, y=1):
    return x + y


def _shown(run):
    return [
        run.name,
        sorted(run.tags),
        run.state.name,
        run.state_type,
        run.run_count,
        run.flow_run_id,
        run.start_time,
        run.end_time,
        type(run).__name__,
        {name: sorted(item.input_type for item in items) for name, items in run.task_inputs.items()},
    ]


def _inputs(run):
    return {name: sorted(item.input_type for item in items) for name, items in run.task_inputs.items()}


def local():
    return told(lambda: _shown(asyncio.run(_add.create_local_run(parameters={"x": 1}))))


def local_ids():
    id = uuid4()
    return told(lambda: asyncio.run(_add.create_local_run(id=id, parameters={"x": 1})).id == id)


def created():
    return told(lambda: _shown(asyncio.run(_add.create_run(parameters={"x": 1}))))


def created_without_parameters():
    return [
        told(lambda: _inputs(asyncio.run(_add.create_run()))),
        told(lambda: _inputs(asyncio.run(_add.create_local_run()))),
    ]


def created_with_other_parameters():
    return [told(lambda: _inputs(asyncio.run(_add.create_local_run(parameters={"nope": 1}))))]


def created_with_states():
    state = task(lambda: 1)(return_state=True)
    return [
        told(lambda: _inputs(asyncio.run(_add.create_local_run(parameters={"x": state, "y": [state, 1]})))),
        told(lambda: _inputs(asyncio.run(_add.create_local_run(parameters={"x": Completed(data=1)})))),
    ]


def created_with_wait_for():
    state = task(lambda: 1)(return_state=True)
    return told(lambda: _inputs(asyncio.run(_add.create_local_run(parameters={"x": 1}, wait_for=[state]))))


def created_with_tags():
    with tags("a"):
        return told(lambda: sorted(asyncio.run(_add.create_local_run(parameters={"x": 1})).tags))


def created_in_flows():
    @flow
    async def outer():
        run = await _add.create_local_run(parameters={"x": 1})
        return [run.flow_run_id, _inputs(run), run.name]

    return told(lambda: asyncio.run(outer()))


def created_in_tasks():
    @task
    async def outer():
        run = await _add.create_local_run(parameters={"x": 1})
        return [run.flow_run_id, _inputs(run)]

    return told(lambda: asyncio.run(outer()))


def extra_inputs():
    from prefect.client.schemas.objects import Constant, Parameter, TaskRunResult

    def made():
        return asyncio.run(
            _add.create_local_run(
                parameters={"x": 1, "y": 2},
                extra_task_inputs={"x": {TaskRunResult(id=uuid4()), Parameter(name="p")}},
            )
        )

    return [told(lambda: _inputs(made())), Constant(type="int").input_type]


def inputs_of_direct_calls():
    look = task(
        lambda x, y=1: {
            name: sorted(item.input_type for item in items)
            for name, items in TaskRunContext.get().task_run.task_inputs.items()
        }
    )
    one = task(lambda: 7)
    return [
        look(1),
        flow(lambda: look(one.submit()))(),
        flow(lambda: look([one.submit()], y=one.submit()))(),
        flow(lambda: look.submit(one.submit()).result())(),
        look(one(return_state=True)),
        flow(lambda: look(1, wait_for=[one.submit()]))(),
    ]


def inputs_of_nested_calls():
    look = task(
        lambda: {
            name: sorted(item.input_type for item in items)
            for name, items in TaskRunContext.get().task_run.task_inputs.items()
        }
    )
    return task(lambda: look())()


def counts_and_times():
    seen = []
    task(
        on_completion=[
            lambda t, r, s: seen.append(
                [
                    r.run_count,
                    r.start_time is not None,
                    r.end_time is not None,
                    r.total_run_time.total_seconds() >= 0,
                    r.expected_start_time is not None,
                ]
            )
        ]
    )(lambda: 1)()
    return seen


def readable_later():
    from prefect.client.orchestration import get_client

    async def look():
        state = task(name="late")(lambda: 1)(return_state=True)
        async with get_client() as client:
            for _ in range(50):
                try:
                    run = await client.read_task_run(state.state_details.task_run_id)
                    if run.state and run.state.is_final():
                        break
                except Exception:
                    pass
                await asyncio.sleep(0.1)
            return [run.state.name, run.run_count, run.start_time is not None, run.end_time is not None]

    return told(lambda: asyncio.run(look()))


def unknown_runs():
    from prefect.client.orchestration import get_client

    async def look():
        async with get_client() as client:
            return await client.read_task_run(uuid4())

    return told(lambda: asyncio.run(look()))


def histories():
    from prefect.client.orchestration import get_client

    attempts = []

    @task(retries=1, retry_delay_seconds=0.1)
    def flaky():
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("again")

    async def look():
        state = flaky(return_state=True)
        async with get_client() as client:
            for _ in range(50):
                states = await client.read_task_run_states(state.state_details.task_run_id)
                if states and states[-1].is_final():
                    break
                await asyncio.sleep(0.1)
            return [state.name for state in states]

    return told(lambda: asyncio.run(look()))
