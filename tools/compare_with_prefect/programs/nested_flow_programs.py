"""Flows inside flows and tasks, and what is given to them."""

import asyncio

from observing import told
from prefect import flow, runtime, task
from prefect.context import FlowRunContext


@task
def _add(x, y=1):
    return x + y


@task
def _boom():
    raise ValueError("boom")


def _flow(function, **options):
    return flow(**options)(function) if options else flow(function)


def futures_as_arguments():
    inner = _flow(lambda x: x)
    return _flow(lambda: [inner(_add.submit(1)), inner([_add.submit(1)])])()


def failed_futures_as_arguments():
    inner = _flow(lambda x: x)
    return told(_flow(lambda: told(lambda: inner(_boom.submit()))))


def wait_for():
    inner = _flow(lambda: 5)
    return _flow(lambda: inner(wait_for=[_add.submit(1)]))()


def nested():
    def inner(x):
        context = FlowRunContext.get()
        return [
            x,
            context.flow_run.parent_task_run_id is not None,
            context.flow.name,
            runtime.flow_run.parent_flow_run_id is not None,
            runtime.flow_run.root_flow_run_id != runtime.flow_run.id,
        ]

    inner = flow(name="inner")(inner)
    return [_flow(lambda: inner(1))(), inner(2)]


def nested_failures():
    def inner():
        raise ValueError("boom")

    inner = flow(inner)
    return [
        told(_flow(lambda: inner())),
        _flow(lambda: inner(return_state=True))(return_state=True),
        told(_flow(lambda: told(inner))),
    ]


def flows_in_tasks():
    inner = _flow(lambda: _add.submit(1).result())
    outer = task(lambda: inner())
    return [outer(), _flow(lambda: outer())()]


def sync_flows_in_async_flows():
    inner = _flow(lambda: 1)

    @flow
    async def outer():
        return inner()

    return told(lambda: asyncio.run(outer()))


def gathered_subflows():
    @flow
    async def f(x):
        await asyncio.sleep(0)
        return x

    @flow
    async def outer():
        return await asyncio.gather(f(1), f(2))

    return asyncio.run(outer())
