"""Every kind of callable on a worker: what a run of it gives."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from prefect_lite import Task, task


def steps(x: int) -> Iterator[int]:
    yield from range(x)


async def asteps(x: int) -> AsyncIterator[int]:
    for step in range(x):
        yield step


class Adder:
    def __call__(self, x: int) -> int:
        return x + 1


class AsyncAdder:
    async def __call__(self, x: int) -> int:
        return x + 1


async def add(x: int, y: int) -> int:
    return x + y


class Box:
    @task(key="k.static")
    @staticmethod
    def static(x: int) -> int:
        return x

    @task(key="k.class")
    @classmethod
    def cls(cls, x: int) -> Any:
        return cls.__name__, x

    @task(key="k.method")
    def method(self, x: int) -> Any:
        return type(self).__name__, x


KINDS: list[tuple[Any, tuple[Any, ...], Any]] = [
    (Task(steps, key="k.steps"), (3,), [0, 1, 2]),
    (Task(asteps, key="k.asteps"), (3,), [0, 1, 2]),
    (Task(functools.partial(steps, 2), key="k.psteps"), (), [0, 1]),
    (Task(Adder(), key="k.adder"), (3,), 4),
    (Task(AsyncAdder(), key="k.aadder"), (3,), 4),
    (Task(functools.partial(add, y=2), key="k.partial"), (3,), 5),
    (Task(lambda x: -x, key="k.lambda"), (3,), -3),
    (Task(len, key="k.len"), ("abc",), 3),
    (Task(max, key="k.max"), (1, 5, 3), 5),
    (Box.static, (3,), 3),
    (Box.cls, (Box, 3), ("Box", 3)),
    (Box.method, (Box(), 3), ("Box", 3)),
]


@pytest.fixture
def pushed(broker: Any, serve: Any) -> list[tuple[str, Any]]:
    serve(*(served for served, _, _ in KINDS))
    return [(broker.push(served.key, *args), wanted) for served, args, wanted in KINDS]


def test_one_result_for_each_run(broker: Any, pushed: list[tuple[str, Any]]) -> None:
    assert [broker.outcome(run_id) for run_id, _ in pushed] == [wanted for _, wanted in pushed]
