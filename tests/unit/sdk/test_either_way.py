"""Methods that block in threads, and give something to await in coroutines, as those of Prefect do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import flow, task
from prefect_lite.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect_lite.results import ResultStore, get_default_result_storage, resolve_result_storage
from prefect_lite.storage_base import reading
from prefect_lite.testing import test_harness as started_harness
from prefect_lite.thread_or_loop import in_thread

pytestmark = pytest.mark.anyio


class Around(WritableFileSystem):
    """Coroutine functions around a storage of ours."""

    inner: LocalFileSystem

    async def read_path(self, path: str) -> bytes:  # type: ignore[override]
        return await self.inner.read_path(path) + b"!"

    async def write_path(self, path: str, content: bytes) -> None:  # type: ignore[override]
        await self.inner.write_path(path, content)


class Reversing(LocalFileSystem):
    """Plain functions around those of a base class."""

    def read_path(self, path: str) -> Any:
        return super().read_path(path)[::-1]


@pytest.fixture
def files(tmp_path: Path) -> LocalFileSystem:
    return LocalFileSystem(basepath=str(tmp_path))


def storages(files: LocalFileSystem) -> list[Any]:
    pytest.importorskip("fsspec")
    return [files, RemoteFileSystem(basepath="memory://either-way")]


async def test_storages_in_coroutines(files: LocalFileSystem) -> None:
    for storage in storages(files):
        assert str(await storage.write_path("a", b"1")).endswith("/a")
        assert await storage.read_path("a") == b"1"


async def test_storages_in_tasks_and_flows(files: LocalFileSystem) -> None:
    @task
    def plain() -> bytes:
        return files.read_path("a")  # below a loop, which this function can't await in

    @task
    async def waiting() -> bytes:
        return await files.read_path("a")

    @flow
    async def around() -> tuple[bytes, bytes]:
        await files.write_path("a", b"1")
        return plain(), await waiting()

    assert await around() == (b"1", b"1")


async def test_our_own_calls_that_block_in_a_coroutine(files: LocalFileSystem) -> None:
    ResultStore(result_storage=files).write(1, key="k")
    assert ResultStore(result_storage=files).read("k").result == 1
    await files.write_path("a", b"12")
    assert in_thread(reading(Reversing(basepath=files.basepath), "a")) == b"21"


def test_a_users_coroutine_functions_can_await_below_a_plain_task(files: LocalFileSystem) -> None:
    @task
    def plain() -> bytes:
        return in_thread(reading(Around(inner=files), "a"))

    files.write_path("a", b"1")
    assert plain() == b"1!"


async def test_a_thread_below_a_users_coroutine_function_gets_values(files: LocalFileSystem) -> None:
    class Threaded(Around):
        async def read_path(self, path: str) -> bytes:
            return await asyncio.to_thread(self.inner.read_path, path)

    await files.write_path("a", b"1")
    assert in_thread(reading(Threaded(inner=files), "a")) == b"1"


async def test_stores_and_their_storages(files: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = task(result_storage=files, result_serializer="json")(len)
    for updated in (
        await ResultStore().update_for_task(chosen),  # type: ignore[misc]
        await ResultStore().update_for_flow(flow(result_storage=files)(len)),  # type: ignore[misc]
    ):
        assert updated.result_storage == files
    assert await resolve_result_storage(files) == files
    assert isinstance(await get_default_result_storage(), LocalFileSystem)


def test_blocks_in_coroutines(files: LocalFileSystem) -> None:
    async def round_trip() -> None:
        _ = await files.save("either-way")
        assert await LocalFileSystem.load("either-way") == files
        await LocalFileSystem.delete("either-way")

    with started_harness():
        asyncio.run(round_trip())
