"""``ResultStore``, and the persisted results of flows and tasks in this process."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
import re
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import flow, results, task
from prefect_lite.exceptions import (
    ConfigurationError,
    MissingResult,
    OptionTypeError,
    ResultDamaged,
    SerializationError,
    StorageError,
)
from prefect_lite.filesystems import LocalFileSystem, WritableFileSystem
from prefect_lite.results import (
    ResultRecord,
    ResultStore,
    aget_default_result_storage,
    aresolve_result_storage,
    get_default_persist_setting,
    get_default_result_serializer,
    get_default_result_storage,
    get_result_store,
    resolve_result_storage,
    resolve_serializer,
    should_persist_result,
)
from prefect_lite.serializers import JSONSerializer, PickleSerializer, Serializer
from prefect_lite.states import State
from prefect_lite.testing import frozen_clock
from prefect_lite.thread_or_loop import in_thread, on_loop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("client_home")]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path)))


def fresh(store: ResultStore) -> ResultStore:
    """One that remembers nothing."""
    return store.model_copy()


class Counting(WritableFileSystem):
    """A storage in memory that counts."""

    _block_type_slug = "counting-for-results"
    _content: dict[str, bytes]
    _calls: list[str]

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._content, self._calls = {}, []

    def read_path(self, path: str) -> bytes:
        self._calls.append("read")
        return self._content[path]

    def write_path(self, path: str, content: bytes) -> None:
        self._calls.append("write")
        self._content[path] = content


class Broken(WritableFileSystem):
    """A storage that is away."""

    _block_type_slug = "broken-for-results"

    def read_path(self, path: str) -> bytes:
        raise OSError("no route to host")

    def write_path(self, path: str, content: bytes) -> None:
        raise OSError("no route to host")


class Thing:
    """Something that can be pickled and waited for to go."""


class Lossy(Serializer[Any]):
    """Its bytes can't be read: the class of what was written is gone, say."""

    type: str = "lossy-for-results"

    def dumps(self, obj: Any) -> bytes:
        return b"lost"

    def loads(self, blob: bytes) -> Any:
        raise AttributeError("no such class")


# -- reading and writing ------------------------------------------------------------------------------


def test_what_is_written_can_be_read(store: ResultStore, tmp_path: Path) -> None:
    store.write({"a": 1}, key="k")
    assert store.exists("k")
    assert fresh(store).read("k").result == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


async def test_coroutines_have_the_same(store: ResultStore) -> None:
    await store.awrite({"a": 1}, key="k")
    assert await store.aexists("k")
    record = await fresh(store).aread("k")
    assert await on_loop(record.getting()) == {"a": 1}
    made = store.create_result_record(2, key="l")
    await store.apersist_result_record(made)
    assert fresh(store).read("l").result == 2


async def test_the_plain_methods_work_under_a_loop_too(store: ResultStore) -> None:
    store.write(1, key="k")
    assert fresh(store).read("k").result == 1


def test_what_is_not_there_is_missing(store: ResultStore) -> None:
    assert not store.exists("k")
    with pytest.raises(MissingResult, match=r"no result 'k' in LocalFileSystem.*Run the task again"):
        store.read("k")


def test_none_is_a_result(store: ResultStore) -> None:
    store.write(None, key="k")
    assert fresh(store).exists("k")
    assert fresh(store).read("k").result is None


def test_a_record_is_persisted_once_it_is_written(store: ResultStore) -> None:
    made = store.create_result_record(1)
    assert re.fullmatch("[0-9a-f]{32}", made.metadata.storage_key or "")
    assert not made.is_persisted
    assert not store.exists(made.metadata.storage_key or "")
    store.persist_result_record(made)
    assert made.is_persisted
    assert fresh(store).read(made.metadata.storage_key or "") == made


def test_keys_may_have_folders(store: ResultStore, tmp_path: Path) -> None:
    store.write(1, key="a/b/c")
    assert (tmp_path / "a" / "b" / "c").is_file()
    assert fresh(store).read("a/b/c").result == 1


@pytest.mark.parametrize("key", ["../escaped", "/etc/escaped", "a/../../escaped"])
def test_keys_stay_in_the_folder(store: ResultStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match="outside"):
        store.write(1, key=key)
    assert not (tmp_path.parent / "escaped").exists()


def test_a_record_needs_a_key(store: ResultStore) -> None:
    with pytest.raises(ConfigurationError, match="storage key"):
        store.write(1, key="")


def test_keys_can_be_made_by_somebody_else(tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path, storage_key_fn=lambda: "made")
    store.write(1)
    assert fresh(store).read("made").result == 1


def test_a_later_value_replaces_an_earlier_one(store: ResultStore) -> None:
    store.write(1, key="k")
    other = fresh(store)
    other.write(2, key="k")
    assert other.read("k").result == 2
    assert fresh(store).read("k").result == 2


@pytest.mark.parametrize("serializer", ["pickle", "json", "compressed/json", JSONSerializer()], ids=str)
def test_the_document_names_its_serializer(tmp_path: Path, serializer: Any) -> None:
    ResultStore(result_storage=tmp_path, serializer=serializer).write([1], key="k")
    document = json.loads((tmp_path / "k").read_text())
    assert document["metadata"]["serializer"]["type"] == getattr(serializer, "type", serializer)
    assert ResultStore(result_storage=tmp_path).read("k").result == [1]  # whose own is pickle


def test_what_can_not_be_serialized_is_not_written(store: ResultStore, tmp_path: Path) -> None:
    store.serializer = "json"
    with pytest.raises(SerializationError, match="result_serializer"):
        store.write(object(), key="k")
    assert not list(tmp_path.iterdir())
    assert not store.exists("k")


def test_a_storage_that_is_away_says_so() -> None:
    store = ResultStore(result_storage=Broken())
    for work in (lambda: store.write(1, key="k"), lambda: store.read("k"), lambda: store.exists("k")):
        with pytest.raises(StorageError, match="no route to host"):
            work()


def test_without_a_storage_it_is_the_default_one(client_home: Path) -> None:
    store = ResultStore()
    store.write(1, key="k")
    assert store.result_storage is None
    assert (client_home / "storage" / "k").is_file()
    assert get_result_store().read("k").result == 1


def test_a_path_and_a_saved_name_are_resolved_when_needed(tmp_path: Path) -> None:
    store = ResultStore(result_storage=str(tmp_path / "new"))
    assert store.result_storage == str(tmp_path / "new")
    store.write(1, key="k")
    assert store.result_storage == LocalFileSystem(basepath=str(tmp_path / "new"))


# -- expiration ---------------------------------------------------------------------------------------


def test_an_expired_result_does_not_exist_but_can_be_read(store: ResultStore) -> None:
    with frozen_clock() as clock:
        store.write(1, key="k", expiration=clock.now() + timedelta(seconds=10))
        assert store.exists("k")
        assert fresh(store).exists("k")
        clock.advance(10)
        assert not store.exists("k")
        assert not fresh(store).exists("k")
        assert fresh(store).read("k").result == 1


def test_expirations_have_a_time_zone(store: ResultStore) -> None:
    from datetime import datetime

    with pytest.raises(ConfigurationError, match="time zone"):
        store.create_result_record(1, expiration=datetime(2030, 1, 1))


# -- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"metadata": {}, "result": "1"}'])
def test_damage_is_no_result_and_a_clear_error(
    store: ResultStore, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "k").write_bytes(content)
    with caplog.at_level(logging.WARNING, "prefect_lite.results"):
        assert not store.exists("k")
    assert "The stored result 'k' can't be used" in caplog.text
    assert "refresh_cache=True" in caplog.text
    with pytest.raises(ResultDamaged, match="'k' can't be used"):
        store.read("k")


def test_a_result_under_another_key_is_damage(store: ResultStore, tmp_path: Path) -> None:
    store.write("salary of somebody", key="k")
    (tmp_path / "k").rename(tmp_path / "l")
    assert not fresh(store).exists("l")
    with pytest.raises(ResultDamaged, match="another key"):
        fresh(store).read("l")


def test_a_damaged_result_can_be_replaced(store: ResultStore, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"")
    store.write(1, key="k")
    assert fresh(store).read("k").result == 1


# -- metadata apart -----------------------------------------------------------------------------------


@pytest.fixture
def apart(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results", metadata_storage=tmp_path / "keys", serializer="json")


def test_metadata_can_be_apart_from_results(apart: ResultStore, tmp_path: Path) -> None:
    apart.write([1], key="k")
    assert json.loads((tmp_path / "results" / "k").read_text()) == [1]
    document = json.loads((tmp_path / "keys" / "k").read_text())
    assert document.keys() == {"metadata", "signature"}
    assert fresh(apart).read("k").result == [1]
    assert fresh(apart).exists("k")


def test_both_halves_belong_together(apart: ResultStore, tmp_path: Path) -> None:
    apart.write([1], key="k")
    (tmp_path / "results" / "k").write_text("[2]")
    with pytest.raises(ResultDamaged):
        fresh(apart).read("k")
    (tmp_path / "results" / "k").unlink()
    assert not fresh(apart).exists("k")
    with pytest.raises(MissingResult):
        fresh(apart).read("k")


def test_results_without_metadata_are_not_there(apart: ResultStore, tmp_path: Path) -> None:
    apart.write([1], key="k")
    (tmp_path / "keys" / "k").unlink()
    assert not fresh(apart).exists("k")


# -- memory -------------------------------------------------------------------------------------------


def test_a_record_is_read_once() -> None:
    storage = Counting()
    ResultStore(result_storage=storage).write([1], key="k")
    store = ResultStore(result_storage=storage)
    assert store.read("k") is store.read("k")
    assert store.exists("k")
    assert storage._calls == ["write", "read"]


def test_what_was_written_is_remembered() -> None:
    storage = Counting()
    store = ResultStore(result_storage=storage)
    store.write([1], key="k")
    assert store.read("k").result == [1]
    assert storage._calls == ["write"]


def test_without_a_memory_each_reading_reads() -> None:
    storage = Counting()
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    store.write([1], key="k")
    assert store.read("k").result == [1]
    assert store.read("k").result == [1]
    assert storage._calls == ["write", "read", "read"]
    assert not store.cache


def test_looking_and_then_reading_reads_once() -> None:
    storage = Counting()
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    store.write([1], key="k")
    assert in_thread(store.existing("k"))
    assert in_thread(store.reading("k")).result == [1]
    assert storage._calls == ["write", "read"]
    in_thread(store.reading("k"))  # what was seen counts once
    assert storage._calls == ["write", "read", "read"]


def test_a_value_that_is_not_kept_in_memory_is_read_when_asked_for() -> None:
    storage = Counting()
    store = ResultStore(result_storage=storage, cache_result_in_memory=False)
    made = store.create_result_record([1], key="k")
    assert made.result == [1]
    store.persist_result_record(made)
    assert repr(made).endswith("result=<in its storage>)")
    assert made.result == [1]
    assert made.result is not made.result
    assert storage._calls == ["write", "read", "read", "read"]
    storage._content.clear()
    with pytest.raises(MissingResult):
        _ = made.result


async def test_it_is_awaited_in_coroutines(tmp_path: Path) -> None:
    store = ResultStore(result_storage=tmp_path, cache_result_in_memory=False)
    made = store.create_result_record([1], key="k")
    await store.apersist_result_record(made)
    assert await on_loop(made.getting()) == [1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_REMEMBERED", 2)
    storage = Counting()
    store = ResultStore(result_storage=storage)
    for key in "abc":
        store.write(key, key=key)
    assert list(store.cache) == ["b", "c"]
    store.read("b")
    store.write("d", key="d")
    assert list(store.cache) == ["b", "d"]


def test_threads_may_share_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_REMEMBERED", 3)
    store = ResultStore(result_storage=Counting())
    errors: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for number in range(100):
                key = f"{mine}-{number}"
                store.write(number, key=key)
                assert in_thread(store.existing(key))
                assert in_thread(store.reading(key)).result == number
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_store_can_be_pickled(store: ResultStore) -> None:
    store.write([1], key="k")
    copy = pickle.loads(pickle.dumps(store))
    assert not copy.cache
    assert copy.read("k").result == [1]
    away = store.model_copy(update={"cache_result_in_memory": False})
    made = away.create_result_record([2], key="l")
    away.persist_result_record(made)
    assert pickle.loads(pickle.dumps(made)).result == [2]


@pytest.mark.parametrize("in_memory", [True, False])
def test_values_go_with_their_store(in_memory: bool, tmp_path: Path) -> None:
    value = Thing()
    kept = weakref.ref(value)
    store = ResultStore(result_storage=tmp_path, cache_result_in_memory=in_memory)
    store.write(value, key="k")
    store.read("k")
    in_thread(store.existing("k"))
    gc.disable()
    try:
        del value, store
        assert kept() is None
    finally:
        gc.enable()


# -- locks --------------------------------------------------------------------------------------------


@pytest.fixture
def locking(tmp_path: Path) -> ResultStore:
    from prefect_lite.locking.memory import MemoryLockManager

    return ResultStore(result_storage=tmp_path, lock_manager=MemoryLockManager())


def test_a_store_without_locks_says_so(store: ResultStore) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.acquire_lock("k"),
        lambda: store.release_lock("k"),
        lambda: store.is_locked("k"),
        lambda: store.is_lock_holder("k"),
        lambda: store.wait_for_lock("k"),
        lambda: asyncio.run(store.aacquire_lock("k")),
        lambda: asyncio.run(store.await_for_lock("k")),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="not configured with a lock manager"):
            call()


def test_locks_of_keys(locking: ResultStore) -> None:
    assert not locking.is_locked("k-locks")
    assert locking.acquire_lock("k-locks")
    assert locking.is_locked("k-locks")
    assert locking.is_lock_holder("k-locks")
    assert not locking.is_lock_holder("k-locks", "other")
    assert not locking.acquire_lock("k-locks", "other", timeout=0)
    assert not locking.wait_for_lock("k-locks", timeout=0)
    locking.release_lock("k-locks")
    assert locking.wait_for_lock("k-locks", timeout=0)
    assert locking.acquire_lock("k-locks", "other")
    locking.release_lock("k-locks", "other")


async def test_locks_in_coroutines(locking: ResultStore) -> None:
    assert await locking.aacquire_lock("k-async")
    assert locking.is_lock_holder("k-async")
    assert not await asyncio.create_task(locking.aacquire_lock("k-async", timeout=0))  # another asyncio task
    assert not await locking.await_for_lock("k-async", timeout=0)
    locking.release_lock("k-async")
    assert await locking.await_for_lock("k-async", timeout=0)


def test_who_has_no_lock_does_not_write(locking: ResultStore) -> None:
    locking.acquire_lock("k-write", "holder")
    with pytest.raises(RuntimeError, match="locked by another holder"):
        locking.write(1, key="k-write")
    assert not locking.exists("k-write")
    locking.write(1, key="k-write", holder="holder")
    assert fresh(locking).read("k-write", holder="holder").result == 1
    locking.release_lock("k-write", "holder")
    locking.write(2, key="k-write")


def test_a_reader_waits_for_the_lock(locking: ResultStore) -> None:
    locking.acquire_lock("k-read", "holder")
    locking.write(1, key="k-read", holder="holder")
    reader = fresh(locking)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(reader.read("k-read").result))
    thread.start()
    locking.write(2, key="k-read", holder="holder")
    assert not got
    locking.release_lock("k-read", "holder")
    thread.join(10)
    assert got == [2]


def test_isolation_levels(store: ResultStore, locking: ResultStore) -> None:
    from prefect_lite.transactions import IsolationLevel

    assert store.supports_isolation_level(IsolationLevel.READ_COMMITTED)
    assert not store.supports_isolation_level(IsolationLevel.SERIALIZABLE)
    assert locking.supports_isolation_level(IsolationLevel.SERIALIZABLE)
    with pytest.raises(ValueError, match="Unsupported isolation level: x"):
        store.supports_isolation_level("x")  # type: ignore[arg-type]


def test_a_fence_that_has_fallen_stops_the_writer(locking: ResultStore) -> None:
    from prefect_lite.exceptions import LockLost

    record = locking.create_result_record(1, key="k-fence")
    with pytest.raises(LockLost, match="'k-fence' was lost"):
        in_thread(locking.persisting(record, "holder", "holder"))
    assert not record.is_persisted
    assert not locking.exists("k-fence")
    locking.acquire_lock("k-fence", "holder")
    in_thread(locking.persisting(record, "holder", "holder"))
    locking.release_lock("k-fence", "holder")
    assert fresh(locking).read("k-fence").result == 1


def test_holders_are_named_by_thread_and_asyncio_task() -> None:
    mine = ResultStore.generate_default_holder()
    assert mine == ResultStore.generate_default_holder()
    others: list[str] = []
    thread = threading.Thread(target=lambda: others.append(ResultStore.generate_default_holder()))
    thread.start()
    thread.join()

    async def both() -> None:
        async def holder() -> str:
            return ResultStore.generate_default_holder()

        others.extend(await asyncio.gather(holder(), holder()))

    asyncio.run(both())
    assert len({mine, *others}) == 4


# -- what options and settings mean -------------------------------------------------------------------


def test_a_store_takes_the_options_of_a_task(store: ResultStore, tmp_path: Path) -> None:
    @task(result_storage=tmp_path / "t", result_serializer="json", cache_result_in_memory=False)
    def chosen() -> None: ...

    @task
    def silent() -> None: ...

    updated = store.update_for_task(chosen)
    assert updated.result_storage == LocalFileSystem(basepath=str(tmp_path / "t"))
    assert updated.serializer == JSONSerializer()
    assert updated.cache_result_in_memory is False
    same = store.update_for_task(silent)
    assert same.result_storage == store.result_storage
    assert same.serializer == PickleSerializer()
    assert store.cache_result_in_memory is True


def test_a_store_takes_what_a_cache_policy_is_configured_with(store: ResultStore, tmp_path: Path) -> None:
    from prefect_lite.cache_policies import INPUTS
    from prefect_lite.locking.memory import MemoryLockManager

    locks = MemoryLockManager()

    @task(cache_policy=INPUTS.configure(key_storage=tmp_path / "keys", lock_manager=locks))
    def configured() -> None: ...

    updated = store.update_for_task(configured)
    assert updated.metadata_storage == LocalFileSystem(basepath=str(tmp_path / "keys"))
    assert updated.lock_manager is locks
    assert updated.result_storage == store.result_storage


async def test_a_store_takes_the_options_of_a_flow(store: ResultStore, tmp_path: Path) -> None:
    @flow(result_storage=str(tmp_path / "f"), result_serializer="json", cache_result_in_memory=False)
    def chosen() -> None: ...

    for updated in (await store.update_for_flow(chosen), await store.aupdate_for_flow(chosen)):
        assert updated.result_storage == LocalFileSystem(basepath=str(tmp_path / "f"))
        assert updated.serializer == JSONSerializer()
        assert updated.cache_result_in_memory is False


async def test_storages_and_serializers_by_their_names(tmp_path: Path, client_home: Path) -> None:
    here = LocalFileSystem(basepath=str(tmp_path))
    for given in (tmp_path, str(tmp_path), f"file://{tmp_path}", here):
        assert await resolve_result_storage(given) == here
        assert await aresolve_result_storage(given) == here
    default = LocalFileSystem(basepath=str(client_home / "storage"))
    assert await get_default_result_storage() == await aget_default_result_storage() == default
    assert resolve_serializer("json") == JSONSerializer()
    assert get_default_result_serializer() == PickleSerializer()
    with pytest.raises(ConfigurationError, match="pickle"):
        resolve_serializer("jsn")


def test_the_setting_for_the_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setting(monkeypatch, RESULT_STORAGE=tmp_path / "set")
    assert get_default_result_storage() == LocalFileSystem(basepath=str(tmp_path / "set"))
    ResultStore().write(1, key="k")
    assert (tmp_path / "set" / "k").is_file()


def setting(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    from prefect_lite.persistence import forget_settings
    from prefect_lite.settings import get_settings

    for name, value in values.items():
        monkeypatch.setenv(f"PREFECT_LITE_{name}", str(value))
    get_settings.cache_clear()  # type: ignore[attr-defined]
    forget_settings()


def test_results_are_persisted_if_somebody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert should_persist_result() is False
    assert get_default_persist_setting() is False
    setting(monkeypatch, PERSIST_RESULTS="true")
    try:
        assert should_persist_result() is True
        assert get_default_persist_setting() is True
    finally:
        monkeypatch.undo()
        setting(monkeypatch)


# -- flows --------------------------------------------------------------------------------------------


def record_of(state: State[Any]) -> ResultRecord[Any]:
    assert isinstance(state.data, ResultRecord)
    return state.data


def test_the_result_of_a_flow_is_persisted(tmp_path: Path) -> None:
    @flow(persist_result=True, result_storage=tmp_path, result_serializer="json")
    def five() -> dict[str, int]:
        return {"five": 5}

    state = five(return_state=True)
    record = record_of(state)
    assert state.is_completed()
    assert state.name == "Completed"
    assert state.state_details.flow_run_id is not None
    assert record.is_persisted
    assert state.result() == {"five": 5}
    assert json.loads((tmp_path / str(record.metadata.storage_key)).read_text())["result"]
    assert ResultStore(result_storage=tmp_path).read(str(record.metadata.storage_key)).result == {"five": 5}
    assert five() == {"five": 5}


async def test_the_result_of_a_coroutine_flow_is_persisted(tmp_path: Path) -> None:
    @flow(result_storage=str(tmp_path))
    async def five() -> int:
        return 5

    state = await five(return_state=True)
    assert record_of(state).is_persisted
    assert await state.aresult() == 5
    assert await ResultStore(result_storage=tmp_path).aexists(str(record_of(state).metadata.storage_key))
    assert await five() == 5


def test_a_flow_that_says_nothing_keeps_nothing(client_home: Path) -> None:
    @flow
    def five() -> int:
        return 5

    assert five(return_state=True).data == 5
    assert not (client_home / "storage").exists()


@pytest.mark.parametrize("options", [{"result_serializer": "json"}, {"result_storage": "x/y/z"}], ids=str)
def test_where_and_how_imply_that(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @flow(**options)
    def asks() -> bool:
        return should_persist_result()

    @flow(persist_result=False, **options)
    def refuses() -> bool:
        return should_persist_result()

    assert record_of(asks(return_state=True)).result is True
    assert refuses(return_state=True).data is False


def test_flows_inherit_from_the_flow_around(tmp_path: Path) -> None:
    seen: list[Any] = []

    @flow
    def inner() -> int:
        store = get_result_store()
        seen.append((should_persist_result(), store.result_storage, store.serializer))
        return 1

    @flow(result_storage=tmp_path, result_serializer="json", cache_result_in_memory=False)
    def outer() -> State[int]:
        assert get_result_store().cache_result_in_memory is False
        return inner(return_state=True)

    outer()
    assert seen == [(True, LocalFileSystem(basepath=str(tmp_path)), JSONSerializer())]
    assert get_result_store().result_storage is None


def test_tasks_inherit_from_their_flow_and_have_the_last_word(tmp_path: Path) -> None:
    seen: list[Any] = []

    @task
    def look(number: int) -> int:
        store = get_result_store()
        kind = store.serializer.type
        seen.append(
            (should_persist_result(), store.result_storage.basepath, kind, store.cache_result_in_memory)
        )
        return number

    @flow(result_storage=tmp_path, result_serializer="json", cache_result_in_memory=False)
    def outer() -> None:
        look(1)
        look.submit(2).result()
        look.with_options(result_serializer="pickle", result_storage=tmp_path / "own")(3)
        look.with_options(cache_result_in_memory=False)(4)
        look.with_options(persist_result=False)(5)

    outer()
    assert seen == [
        (True, str(tmp_path), "json", True),
        (True, str(tmp_path), "json", True),
        (True, str(tmp_path / "own"), "pickle", True),
        (True, str(tmp_path), "json", False),
        (False, str(tmp_path), "json", True),
    ]


def test_a_flow_that_returns_futures_keeps_their_values(tmp_path: Path) -> None:
    @task(persist_result=False)
    def double(x: int) -> int:
        return 2 * x

    @flow(result_storage=tmp_path)
    def one() -> Any:
        return double.submit(1)

    @flow(result_storage=tmp_path)
    def some() -> Any:
        return {"a": double.submit(1), "b": 3}

    state = one(return_state=True)
    assert state.message == "All states completed."
    assert record_of(state).result == 2
    assert one() == 2
    assert record_of(some(return_state=True)).result == {"a": 2, "b": 3}
    assert some() == {"a": 2, "b": 3}


def test_a_flow_that_fails_keeps_nothing(tmp_path: Path) -> None:
    @flow(result_storage=tmp_path / "new", retries=1)
    def fails() -> None:
        raise ValueError("no")

    state = fails(return_state=True)
    assert state.is_failed()
    assert isinstance(state.data, ValueError)
    assert not (tmp_path / "new").exists()


def test_a_flow_is_kept_after_its_last_attempt(tmp_path: Path) -> None:
    tries: list[int] = []

    @flow(result_storage=tmp_path, retries=1)
    def second_time() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")
        return 7

    assert record_of(second_time(return_state=True)).result == 7
    assert len(list(tmp_path.iterdir())) == 1


def test_a_value_that_can_not_be_kept_is_logged_and_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thing = object()

    @flow(result_storage=tmp_path, result_serializer="json")
    def gives() -> object:
        return thing

    with caplog.at_level(logging.ERROR):
        assert gives() is thing
        assert gives(return_state=True).data is thing
    assert "is not persisted" in caplog.text
    assert "result_serializer" in caplog.text


def test_a_storage_that_is_away_does_not_stop_a_flow(caplog: pytest.LogCaptureFixture) -> None:
    @flow(result_storage=Broken())
    def five() -> int:
        return 5

    with caplog.at_level(logging.ERROR):
        assert five() == 5
    assert "no route to host" in caplog.text


@pytest.mark.parametrize(
    ("options", "match"),
    [({"result_serializer": "nope"}, "nope"), ({"result_storage": "nope://"}, "nope://")],
    ids=["serializer", "storage"],
)
def test_options_that_mean_nothing_end_a_flow_before_it_starts(options: dict[str, Any], match: str) -> None:
    ran: list[int] = []

    @flow(**options)
    def never() -> None:
        ran.append(1)

    with pytest.raises(ConfigurationError, match=match):
        never()
    state = never(return_state=True)
    assert state.is_failed()
    assert "can't be persisted" in (state.message or "")
    assert not ran


@pytest.mark.parametrize("option", ["result_storage", "result_serializer"])
def test_options_of_a_wrong_type_are_refused_at_once(option: str) -> None:
    with pytest.raises(OptionTypeError, match=option):
        flow(**{option: 5})(lambda: None)  # type: ignore[arg-type]


async def test_a_value_that_is_not_kept_in_memory_is_read_by_the_state(tmp_path: Path) -> None:
    @flow(result_storage=tmp_path, cache_result_in_memory=False)
    def gives() -> list[int]:
        return [1]

    state = await asyncio.to_thread(lambda: gives(return_state=True))
    record = record_of(state)
    assert await state.aresult() == [1]
    assert await asyncio.to_thread(state.result) == [1]
    (tmp_path / str(record.metadata.storage_key)).unlink()
    with pytest.raises(MissingResult, match="Run the task again"):
        await state.aresult()


# -- tasks --------------------------------------------------------------------------------------------


def test_the_result_of_a_task_is_persisted(tmp_path: Path) -> None:
    @task(persist_result=True, result_storage=tmp_path, result_serializer="json")
    def double(x: int) -> int:
        return 2 * x

    state = double(2, return_state=True)
    record = record_of(state)
    assert state.result() == 4
    assert record.is_persisted
    key = str(record.metadata.storage_key)
    assert ResultStore(result_storage=tmp_path).read(key).result == 4
    assert double(2) == 4
    assert double.submit(2).result() == 4


async def test_the_result_of_a_coroutine_task_is_persisted(tmp_path: Path) -> None:
    @task(result_storage=tmp_path)
    async def double(x: int) -> int:
        return 2 * x

    state = await double(2, return_state=True)
    assert record_of(state).is_persisted
    assert await state.aresult() == 4
    assert await double(2) == 4


def test_the_storage_key_is_a_template(tmp_path: Path) -> None:
    @task(
        result_storage=tmp_path,
        result_storage_key="{flow_run.flow_name}/{task_run.name}-{parameters[x]}",
        task_run_name="named",
    )
    def double(x: int) -> int:
        return 2 * x

    @flow(name="around")
    def around() -> State[int]:
        return double(3, return_state=True)

    around()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == [
        "around/named-3"
    ]
    assert around(return_state=True).result().name == "Cached"


def test_a_template_that_can_not_be_filled_in_fails_the_run(tmp_path: Path) -> None:
    @task(result_storage=tmp_path, result_storage_key="{nope}")
    def never() -> None: ...

    with pytest.raises(ConfigurationError, match=r"\{nope\}.*parameters"):
        never()


def test_a_task_in_a_task_inherits_its_storage(tmp_path: Path) -> None:
    seen: list[Any] = []

    @task
    def inner() -> None:
        seen.append(get_result_store().result_storage)

    @task(result_storage=tmp_path)
    def outer() -> None:
        inner()

    outer()
    assert seen == [LocalFileSystem(basepath=str(tmp_path))]


def test_a_task_whose_value_can_not_be_kept_completes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    thing = object()

    @task(result_storage=tmp_path, result_serializer="json")
    def gives() -> object:
        return thing

    with caplog.at_level(logging.WARNING):
        assert gives() is thing
    assert "result_serializer" in caplog.text


def test_a_task_in_a_storage_that_is_away_completes(caplog: pytest.LogCaptureFixture) -> None:
    @task(result_storage=Broken(), result_storage_key="k")
    def five() -> int:
        return 5

    with caplog.at_level(logging.WARNING):
        assert five() == 5
    assert "no route to host" in caplog.text


def test_a_persisted_result_that_is_not_in_memory(tmp_path: Path) -> None:
    @task(result_storage=tmp_path, result_storage_key="k", cache_result_in_memory=False)
    def gives() -> list[int]:
        return [1]

    state = gives(return_state=True)
    assert "<in its storage>" in repr(state.data)
    assert state.result() == [1]
    (tmp_path / "k").unlink()
    with pytest.raises(MissingResult):
        state.result()
    again = gives(return_state=True)
    assert again.name == "Completed"
    cached = gives(return_state=True)
    assert cached.name == "Cached"
    assert cached.result() == [1]


def test_a_damaged_result_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @task(result_storage=tmp_path, result_storage_key="k")
    def gives() -> list[int]:
        return [1]

    gives()
    (tmp_path / "k").write_bytes(b"{}")
    with caplog.at_level(logging.WARNING):
        assert gives(return_state=True).name == "Completed"
    assert "can't be used" in caplog.text
    assert gives(return_state=True).name == "Cached"


def test_a_result_that_can_not_be_decoded_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @task(result_storage=tmp_path, result_storage_key="k")
    def gives() -> int:
        return 1

    ResultStore(result_storage=tmp_path, serializer=Lossy()).write(2, key="k")
    with caplog.at_level(logging.WARNING):
        assert gives(return_state=True).name == "Completed"
    assert "can't be decoded by the serializer 'lossy-for-results'" in caplog.text
    assert gives(return_state=True).result() == 1


@pytest.mark.parametrize("field", ["result_storage", "metadata_storage"])
def test_a_store_refuses_what_is_no_storage(field: str) -> None:
    with pytest.raises(OptionTypeError, match=field):
        ResultStore(**{field: 5})


def test_what_was_looked_at_before_a_writing_is_not_read_after_it(store: ResultStore) -> None:
    store.write(1, key="k")
    transacting = store.model_copy(update={"cache_result_in_memory": False})
    assert in_thread(transacting.existing("k"))
    transacting.write(2, key="k")
    assert in_thread(transacting.reading("k")).result == 2


class Exiting:
    """Its pickle can be made, and what it says ends the process."""

    def __reduce__(self) -> Any:
        return _exit, ()


def _exit() -> None:
    raise SystemExit(4)


def test_a_cached_value_that_ends_the_process_when_it_is_loaded_is_a_run(tmp_path: Path) -> None:
    @task(result_storage=tmp_path, result_storage_key="k")
    def exiting() -> Exiting:
        return Exiting()

    assert [exiting(return_state=True).name for _ in range(2)] == ["Completed", "Completed"]


def test_a_key_that_is_no_text_is_refused(store: ResultStore) -> None:
    with pytest.raises(OptionTypeError, match="must be text, got 5"):
        store.write(1, key=5)  # type: ignore[arg-type]


def test_a_key_that_is_no_unicode_is_refused(store: ResultStore) -> None:
    for wrong in (lambda: store.write(1, key="\ud800"), lambda: store.read("\ud800")):
        with pytest.raises(ConfigurationError, match="can't be a storage key"):
            wrong()
