"""Stores of results, used directly."""

import asyncio
import tempfile
from pathlib import Path

from observing import told
from prefect import flow, task
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore, get_result_store, resolve_result_storage
from prefect.serializers import JSONSerializer


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _store(folder=None, **fields):
    return ResultStore(result_storage=LocalFileSystem(basepath=str(folder or _folder())), **fields)


def written_and_read():
    folder = _folder()
    store = _store(folder)
    written = store.write([1], key="a")
    record = store.read("a")
    return [
        written,
        type(record).__name__,
        record.result,
        _files(folder),
        store.exists("a"),
        store.exists("b"),
    ]


def asynchronous():
    store = _store()

    async def run():
        await store.awrite([1], key="a")
        return [(await store.aread("a")).result, await store.aexists("a"), await store.aexists("b")]

    return asyncio.run(run())


def missing():
    return told(lambda: _store().read("nothing"))


def other_stores():
    folder = _folder()
    _store(folder).write([1], key="a")
    other = _store(folder)
    return [other.exists("a"), other.read("a").result]


def remembered():
    folder = _folder()
    value = [1]
    remembering, plain = _store(folder), _store(folder, cache_result_in_memory=False)
    remembering.write(value, key="a")
    plain.write(value, key="b")
    return [remembering.read("a").result is value, plain.read("b").result is value]


def without_keys():
    folder = _folder()
    store = _store(folder)
    return [
        told(lambda: store.write(1)),
        len(_files(folder)),
        told(
            lambda: ResultStore(
                storage_key_fn=lambda: "made", result_storage=LocalFileSystem(basepath=str(folder))
            ).write(2)
        ),
        len(_files(folder)),
    ]


def overwritten():
    store = _store()
    store.write(1, key="a")
    store.write(2, key="a")
    return store.read("a").result


def records():
    record = _store(serializer=JSONSerializer()).create_result_record({"a": 1}, key="k")
    return [
        record.result,
        Path(record.metadata.storage_key).name,
        record.metadata.serializer.type,
        record.metadata.expiration,
    ]


def records_that_are_kept():
    folder = _folder()
    store = _store(folder)
    record = store.create_result_record(5, key="k")
    before = _files(folder)
    store.persist_result_record(record)
    return [before, _files(folder), store.read("k").result]


def metadata_apart():
    results, metadata = _folder(), _folder()
    store = ResultStore(
        result_storage=LocalFileSystem(basepath=str(results)),
        metadata_storage=LocalFileSystem(basepath=str(metadata)),
    )
    store.write([1], key="a")
    return [_files(metadata), len(_files(results)), store.exists("a"), store.read("a").result]


def serializers():
    folder = _folder()
    _store(folder, serializer=JSONSerializer()).write((1, 2), key="a")
    return [
        _store(folder).read("a").result,
        _store(folder, serializer=JSONSerializer()).read("a").metadata.serializer.type,
    ]


def fields():
    store = ResultStore()
    return [
        store.result_storage,
        store.metadata_storage,
        store.lock_manager,
        store.cache_result_in_memory,
        store.serializer.type,
        told(lambda: ResultStore(zz=1)),
        told(lambda: ResultStore(result_storage=5)),
    ]


def without_storage():
    store = ResultStore()
    return [
        told(lambda: store.write(1, key="store-without-storage")),
        told(lambda: store.read("store-without-storage").result),
    ]


def for_tasks():
    folder = _folder()
    made = task(lambda: 1, result_storage=folder, result_serializer="json", cache_result_in_memory=False)
    store = ResultStore().update_for_task(made)
    plain = ResultStore().update_for_task(task(lambda: 1))
    return [
        Path(store.result_storage.basepath) == folder,
        store.serializer.type,
        store.cache_result_in_memory,
        plain.serializer.type,
        plain.cache_result_in_memory,
        plain.result_storage is None,
    ]


def for_flows():
    folder = _folder()
    made = flow(lambda: 1, result_storage=folder, result_serializer="json", name="f")
    store = ResultStore().update_for_flow(made)
    return [Path(store.result_storage.basepath) == folder, store.serializer.type]


def active():
    outside = get_result_store()

    @flow(result_serializer="json", persist_result=True)
    def outer():
        inside = get_result_store()

        @task
        def plain():
            return get_result_store().serializer.type

        return [type(inside).__name__, inside.serializer.type, plain()]

    return [type(outside).__name__, outside.serializer.type, outer()]


def resolved():
    folder = _folder()
    storage = LocalFileSystem(basepath=str(folder))
    return [
        told(lambda: Path(resolve_result_storage(folder).basepath) == folder),
        told(lambda: resolve_result_storage("local-file-system/never-saved")),
        told(lambda: resolve_result_storage("odd")),
        told(lambda: resolve_result_storage(5)),
        told(lambda: type(resolve_result_storage(storage)).__name__),
    ]


def damaged():
    folder = _folder()
    _store(folder).write(1, key="a")
    (folder / "a").write_bytes(b"garbage")
    return [told(lambda: _store(folder).exists("a")), type(told(lambda: _store(folder).read("a"))).__name__]
