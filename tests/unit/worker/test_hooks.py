"""State hooks on a worker: of runs in threads and on the loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from prefect_lite import Task, task

told: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    told.clear()


def hook(task: Any, run: Any, state: Any) -> None:
    told.append((state.name, run.state is state, run.run_count, task.name, state.data))


async def ahook(task: Any, run: Any, state: Any) -> None:
    await asyncio.sleep(0)
    told.append(("async", state.name))


class Broken:
    def __call__(self, *_: Any) -> None:
        raise SystemExit(3)


HOOKS: Any = {name: [Broken(), hook, ahook] for name in ("on_running", "on_completion", "on_failure")}


@task(key="h.sync", name="sync", **HOOKS)
def sync(x: int) -> int:
    return 2 * x


@task(key="h.coroutine", name="coroutine", **HOOKS)
async def coroutine(x: int) -> int:
    return 2 * x


@task(key="h.failing", name="failing", retries=1, **HOOKS)
def failing(x: int) -> int:
    raise ValueError(x)


@task(key="h.afailing", name="afailing", retries=1, **HOOKS)
async def afailing(x: int) -> int:
    raise ValueError(x)


@task(key="h.decorated", name="decorated")
def decorated() -> None: ...


@decorated.on_completion
def told_of(task: Any, run: Any, state: Any) -> None:
    hook(task, run, state)


@pytest.mark.parametrize("served", [sync, coroutine])
def test_of_a_run_that_completes(
    served: Task[..., Any], broker: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="prefect_lite")
    serve(served)
    assert broker.outcome(broker.push(served.key, 4)) == 8
    assert told == [
        ("Running", True, 1, served.name, None),
        ("async", "Running"),
        ("Completed", True, 1, served.name, 8),
        ("async", "Completed"),
    ]
    problems = [record for record in caplog.records if "hook" in record.getMessage()]
    assert [record.levelno for record in problems] == [logging.ERROR] * 2


@pytest.mark.parametrize("served", [failing, afailing])
def test_of_a_run_that_fails(served: Task[..., Any], broker: Any, serve: Any) -> None:
    serve(served)
    with pytest.raises(ValueError, match="4"):
        broker.outcome(broker.push(served.key, 4))
    names = [(one[0], one[2]) for one in told if one[0] != "async"]
    assert names == [("Running", 1), ("Retrying", 2), ("Failed", 2)]
    assert isinstance(told[-2][-1], ValueError)
    assert told[-1] == ("async", "Failed")


def test_of_a_decorator(broker: Any, serve: Any) -> None:
    serve(decorated)
    assert broker.outcome(broker.push("h.decorated")) is None
    assert told == [("Completed", True, 1, "decorated", None)]
