"""What type checkers say about flows; each line that ends in an error mark must be reported, and no other."""

from __future__ import annotations

from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

from prefect_lite import State, flow, task
from prefect_lite.flows import Flow
from prefect_lite.task_runners import ProcessPoolTaskRunner


@task
def add(x: int, y: int = 1) -> int:
    return x + y


@flow
def sums(x: int, *, label: str = "") -> list[int]:
    return [add(x)]


@flow(name="later", retries=3, retry_delay_seconds=0.5, task_runner=ProcessPoolTaskRunner(2), log_prints=True)
async def later(x: int) -> str:
    return str(x)


class Loader:
    @flow
    def load(self, x: int) -> str:
        return str(x)


assert_type(sums(1, label="a"), list[int])
assert_type(sums(1, return_state=True), State[list[int]])
assert_type(sums.with_options(retries=1, task_runner=ThreadPoolExecutor)(1), list[int])
assert_type(Loader().load(1), str)
kept: Flow[..., list[int]] = sums
awaited: Coroutine[Any, Any, str] = later(1)
states: Coroutine[Any, Any, State[str]] = later(1, return_state=True)

flow(retrys=3)  # error
flow(retries="3")  # error
sums.with_options(timeout="5")  # error
number: int = Loader().load(1)  # error
