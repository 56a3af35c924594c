"""Persisted results with a real broker: in its Redis, in saved storages, on workers, as the guide says."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prefect_lite import clock, flow, task
from prefect_lite.broker_storage import BrokerStorage
from prefect_lite.client.keeping import read_entry, take_lock, write_entry
from prefect_lite.exceptions import ConfigurationError, LockLost, MissingResult, ResultDamaged, StorageError
from prefect_lite.filesystems import LocalFileSystem
from prefect_lite.local_runs import close_threads
from prefect_lite.result_records import ResultRecord
from prefect_lite.results import ResultStore, get_result_store, should_persist_result
from prefect_lite.serializers import JSONSerializer
from prefect_lite.testing import Harness, test_harness
from prefect_lite.thread_or_loop import in_thread
from tests.test_docs import CODE, execute

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(harness: Harness) -> ResultStore:
    return ResultStore(result_storage=BrokerStorage())


# -- the broker's Redis -------------------------------------------------------------------------------


def test_results_in_redis(store: ResultStore) -> None:
    assert store.is_brokers
    assert not store.exists("k")
    store.write({"a": (1, 2)}, key="k")
    other = ResultStore(result_storage=BrokerStorage())
    assert other.exists("k")
    assert other.read("k").result == {"a": (1, 2)}
    assert json.loads(in_thread(read_entry("k")) or b"")["metadata"]["storage_key"] == "k"
    with pytest.raises(MissingResult, match="BrokerStorage"):
        other.read("l")


async def test_results_in_redis_in_coroutines(harness: Harness) -> None:
    store = ResultStore(result_storage=BrokerStorage(), cache_result_in_memory=False)
    await store.awrite([1], key="k")
    assert await store.aexists("k")
    record = await store.aread("k")
    assert await asyncio.to_thread(lambda: record.result) == [1]
    storage = BrokerStorage()
    await storage.awrite_path("plain", b"content")
    assert await storage.aread_path("plain") == b"content"
    with pytest.raises(FileNotFoundError):
        await storage.aread_path("nothing")


def test_paths_of_the_broker(harness: Harness) -> None:
    storage = BrokerStorage()
    storage.write_path("plain", b"content")
    assert storage.read_path("plain") == b"content"
    assert in_thread(storage.existing("plain"))
    assert not in_thread(storage.existing("nothing"))
    assert storage == BrokerStorage()


def test_an_entry_goes_when_it_has_expired(store: ResultStore, harness: Harness) -> None:
    store.write(1, key="short", expiration=clock.now() + timedelta(hours=1))
    store.write(2, key="past", expiration=clock.now() - timedelta(seconds=1))
    assert in_thread(read_entry("short")) is not None
    assert in_thread(read_entry("past")) is None
    fresh = store.model_copy()
    assert fresh.exists("short")
    assert not fresh.exists("past")


def test_an_entry_that_somebody_else_wrote_is_damage(store: ResultStore) -> None:
    store.write("mine", key="k")
    in_thread(write_entry("l", in_thread(read_entry("k")) or b""))
    in_thread(write_entry("m", b"\x80\x04N."))
    for key in ("l", "m"):
        assert not store.exists(key)
        with pytest.raises(ResultDamaged):
            store.read(key)


def test_a_writer_that_has_lost_its_lock_writes_nothing(store: ResultStore) -> None:
    record = store.create_result_record(1, key="k")
    with pytest.raises(LockLost, match="'k' was lost"):
        in_thread(store.persisting(record, fence="me"))
    assert not record.is_persisted
    assert in_thread(read_entry("k")) is None
    assert in_thread(take_lock("k", "me", 30.0))
    in_thread(store.persisting(record, fence="me"))
    assert store.model_copy().read("k").result == 1


def test_what_is_too_long_for_the_broker_is_a_clear_error() -> None:
    with test_harness(max_payload_bytes=20_000):
        store = ResultStore(result_storage=BrokerStorage())
        with pytest.raises(StorageError, match=r"20,?000"):
            store.write("x" * 30_000, key="k")


# -- saved storages -----------------------------------------------------------------------------------


def test_a_saved_storage_is_looked_up_by_the_run(harness: Harness, tmp_path: Path) -> None:
    @flow(result_storage="local-file-system/for-results")
    def five() -> int:
        return 5

    state = five(return_state=True)
    assert state.is_failed()
    with pytest.raises(ConfigurationError, match="for-results"):
        state.result()
    LocalFileSystem(basepath=str(tmp_path)).save("for-results")
    assert five() == 5
    assert len(list(tmp_path.iterdir())) == 1


# -- on workers ---------------------------------------------------------------------------------------


@task(persist_result=True)
def described() -> dict[str, Any]:
    store = get_result_store()
    return {
        "storage": type(store.result_storage).__name__,
        "persists": should_persist_result(),
        "locks": type(store.lock_manager).__name__,
    }


@task(result_storage_key="square-{parameters[x]}")
def square(x: int) -> int:
    return x * x


@task
def folder_of(path: str) -> Any:
    @flow(result_storage=path, result_serializer="json")
    def inside() -> int:
        return described()["storage"]  # type: ignore[return-value]

    return inside()


def test_on_a_worker_results_go_to_redis(harness: Harness) -> None:
    assert described.delay().result(timeout=20) == {
        "storage": "BrokerStorage",
        "persists": True,
        "locks": "RedisLockManager",
    }
    assert described()["storage"] == "LocalFileSystem"


def test_a_result_of_a_worker_can_be_read_anywhere(harness: Harness) -> None:
    assert square.delay(7).result(timeout=20) == 49
    assert ResultStore(result_storage=BrokerStorage()).read("square-7").result == 49


def test_a_flow_inside_a_task_has_its_own_storage(harness: Harness, tmp_path: Path) -> None:
    assert folder_of.delay(str(tmp_path)).result(timeout=20) == "LocalFileSystem"
    kinds = {json.loads(path.read_text())["metadata"]["serializer"]["type"] for path in tmp_path.iterdir()}
    assert kinds == {"json"}
    assert len(list(tmp_path.iterdir())) == 2  # the flow's, and the task's in it


@task(result_serializer="json", result_storage_key="in-a-file")
def in_a_file() -> list[int]:
    return [1, 2]


def test_a_result_in_a_storage_is_read_by_the_future(harness: Harness, tmp_path: Path) -> None:
    future = in_a_file.with_options(result_storage=str(tmp_path)).delay()
    assert future.result(timeout=20) == [1, 2]
    record = ResultStore(result_storage=tmp_path).read("in-a-file")
    assert record.result == [1, 2]
    assert record.serializer == JSONSerializer()
    (tmp_path / "in-a-file").write_text("{}")
    again = in_a_file.with_options(result_storage=str(tmp_path)).delay()
    assert again.result(timeout=20) == [1, 2]  # damage is no result: it has run again
    assert isinstance(ResultStore(result_storage=tmp_path).read("in-a-file"), ResultRecord)


# -- the guide ----------------------------------------------------------------------------------------


def test_the_guide_to_results_does_what_it_says(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("guide_to_results")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = (ROOT / "docs" / "results.md").read_text()
    with asyncio.Runner() as loop:
        for match in CODE.finditer(text):
            execute(match[1], text[: match.start(1)].count("\n"), module, loop)
    close_threads()
