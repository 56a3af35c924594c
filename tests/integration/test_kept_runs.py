"""Kept results of runs in the background: a worker and eager mode do the same with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import PrefectDistributedFuture, Task, task
from prefect_lite.cache_policies import INPUTS
from prefect_lite.filesystems import LocalFileSystem
from prefect_lite.futures import as_completed
from prefect_lite.settings import get_settings
from prefect_lite.testing import Harness, eager


class OnlyHere:
    """A storage that no other process can find again."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def read_path(self, path: str) -> bytes:
        if path not in self.contents:
            raise FileNotFoundError(path)
        return self.contents[path]

    def write_path(self, path: str, content: bytes) -> None:
        self.contents[path] = content


class Away:
    """A storage that can't be used."""

    def read_path(self, path: str) -> bytes:
        raise OSError("it is away")

    def write_path(self, path: str, content: bytes) -> None:
        raise OSError("it is away")


@pytest.fixture(params=["eager", "worker"])
def place(request: pytest.FixtureRequest, harness: Harness) -> Iterator[str]:
    with eager() if request.param == "eager" else nullcontext():
        yield request.param


@pytest.fixture(params=["function", "coroutine"])
def made(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a task that returns its argument and how often it has run, in a list."""
    runs: list[int] = []

    def function(x: int = 1) -> list[int]:
        runs.append(x)
        return [x, len(runs)]

    async def coroutine(x: int = 1) -> list[int]:
        return function(x)

    body: Any = function if request.param == "function" else coroutine
    key = f"kept.{request.node.name}"
    return lambda **options: task(body, key=key, cache_policy=INPUTS, **options)


def ended(called: Task[..., Any], x: int = 1) -> tuple[Any, str]:
    future = called.delay(x)
    return future.result(timeout=30), future.state.name


def test_a_hit_is_a_hit(place: str, made: Any) -> None:
    cached = made()
    assert [ended(cached), ended(cached)] == [([1, 1], "Completed"), ([1, 1], "Cached")]
    assert not list(get_settings().home.rglob("storage/*"))  # it is where the other workers look


def test_what_is_in_a_storage_is_read_from_there(place: str, made: Any, tmp_path: Path) -> None:
    stored = made(result_storage=tmp_path / "results")
    assert [ended(stored), ended(stored)] == [([1, 1], "Completed"), ([1, 1], "Cached")]
    future = stored.delay(2)
    future.wait(timeout=30)
    fresh = PrefectDistributedFuture[Any](future.task_run_id)
    assert asyncio.run(fresh.result_async(timeout=30)) == [2, 2]
    assert fresh.state.result() == [2, 2]
    taken = task(lambda values: values[1], key="kept.taken")
    assert taken.delay(future).result(timeout=30) == 2
    found = as_completed(stored.map([1, 2, 3], deferred=True), timeout=30)
    assert sorted(one.result(timeout=30) for one in found) == [[1, 1], [2, 2], [3, 3]]
    for path in (tmp_path / "results").iterdir():
        path.unlink()
    with pytest.raises(Exception, match="can't be had from its storage"):
        PrefectDistributedFuture[Any](future.task_run_id).result(timeout=30)


def test_a_storage_that_nobody_else_finds_holds_the_cache_only(place: str, made: Any) -> None:
    stored = made(result_storage=OnlyHere())
    assert [ended(stored), ended(stored)] == [([1, 1], "Completed"), ([1, 1], "Cached")]


def test_a_storage_that_is_away_costs_the_cache_only(place: str, made: Any) -> None:
    stored = made(result_storage=Away())
    assert [ended(stored), ended(stored)] == [([1, 1], "Completed"), ([1, 2], "Completed")]


def test_a_saved_storage_that_is_given_as_an_object_is_looked_up_by_each_run(
    place: str, made: Any, tmp_path: Path
) -> None:
    saved = LocalFileSystem(basepath=str(tmp_path / "one"))
    saved.save("kept")
    original = made()
    changed = original.with_options(result_storage=saved)
    assert ended(changed) == ([1, 1], "Completed")
    assert list((tmp_path / "one").iterdir())
    LocalFileSystem(basepath=str(tmp_path / "two")).save("kept", overwrite=True)
    assert ended(changed) == ([1, 2], "Completed")
    assert list((tmp_path / "two").iterdir())
