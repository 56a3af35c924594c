"""The tasks that are sent and executed; ``held`` is one that no worker serves."""

from __future__ import annotations

from prefect_lite import task


@task(key="guard.held")
def held(x: int = 0) -> int:
    return x


@task(key="guard.function")
def function(x: int = 0) -> int:
    return x


@task(key="guard.coroutine")
async def coroutine(x: int = 0) -> int:
    return x
