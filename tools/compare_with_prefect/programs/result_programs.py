"""Results of tasks: whether and where they are kept, under which key, by which serializer."""

import asyncio
import json
import tempfile
import threading
import uuid
from pathlib import Path

from observing import told
from prefect import flow, get_run_logger, task
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.filesystems import LocalFileSystem
from prefect.results import get_result_store, should_persist_result
from prefect.serializers import JSONSerializer, PickleSerializer


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _kept(options, value=1):
    folder = _folder()
    made = task(result_storage=folder, **options)(lambda: value)
    return [made(), len(_files(folder))]


def _same(x):
    return x


def persisted_or_not():
    return [
        _kept({}),
        _kept({"persist_result": True}),
        _kept({"persist_result": False}),
        _kept({"cache_policy": INPUTS}),
        _kept({"cache_policy": NO_CACHE}),
        _kept({"cache_policy": NO_CACHE, "persist_result": True}),
        _kept({"result_serializer": "json"}),
        _kept({"result_storage_key": "one"}),
        _kept({"cache_key_fn": lambda context, parameters: "key"}),
        _kept({"persist_result": True}, None),
    ]


def what_options_imply():
    folder = _folder()
    return [
        task(**options)(_same).persist_result
        for options in (
            {},
            {"persist_result": True},
            {"persist_result": False},
            {"cache_policy": INPUTS},
            {"cache_policy": NO_CACHE},
            {"cache_key_fn": lambda context, parameters: "key"},
            {"result_storage_key": "one"},
            {"result_serializer": "json"},
            {"result_storage": folder},
            {"cache_result_in_memory": False},
            {"refresh_cache": True},
            {"persist_result": False, "cache_policy": INPUTS},
            {"persist_result": False, "result_storage": folder},
        )
    ]


def policies_that_options_imply():
    def kind(**options):
        return told(lambda: type(task(**options)(_same).cache_policy).__name__)

    return [
        kind(),
        kind(persist_result=False),
        kind(persist_result=True),
        kind(cache_policy=None),
        kind(result_storage_key="one"),
        kind(cache_key_fn=lambda context, parameters: "key"),
        kind(cache_policy=NO_CACHE),
        kind(cache_policy=NO_CACHE, cache_key_fn=lambda context, parameters: "key"),
        kind(cache_policy=INPUTS, cache_key_fn=lambda context, parameters: "key"),
        kind(cache_policy=INPUTS, persist_result=False),
        kind(cache_policy=INPUTS, result_storage_key="one"),
        kind(cache_policy="INPUTS"),
    ]


def with_options_and_results():
    folder = _folder()
    made = task(persist_result=True, result_storage=folder, result_storage_key="a", result_serializer="json")(
        _same
    )
    other = made.with_options(result_storage_key="b", persist_result=False)
    more = made.with_options(name="more")
    return [
        [other.persist_result, other.result_storage_key, other.result_serializer],
        [
            more.persist_result,
            more.result_storage_key,
            more.result_serializer,
            more.result_storage == made.result_storage,
        ],
        made.with_options(result_serializer="pickle").result_serializer,
        made.with_options(cache_result_in_memory=False).cache_result_in_memory,
    ]


def storages():
    folder = _folder()
    name = f"x{uuid.uuid4().hex[:8]}"
    saved = LocalFileSystem(basepath=str(folder))
    saved.save(name)

    def kept(storage, key):
        return told(lambda: task(result_storage=storage, result_storage_key=key)(lambda: key)())

    return [
        kept(saved, "block"),
        kept(f"local-file-system/{name}", "name"),
        kept(folder, "path"),
        kept("local-file-system/never-saved", "unknown"),
        kept("no-such-kind/x", "kind"),
        _files(folder),
    ]


def storages_that_are_refused():
    return [
        told(lambda: task(result_storage=5, persist_result=True)(_same)(1)),
        told(lambda: task(result_storage=object(), persist_result=True)(_same)(1)),
        told(
            lambda: task(result_storage="", persist_result=True, result_storage_key=uuid.uuid4().hex)(_same)(
                1
            )
        ),
    ]


def storage_paths_as_text():
    folder = _folder()
    return [
        told(lambda: task(result_storage=str(folder), result_storage_key="text")(_same)(1)) == 1,
        told(lambda: task(result_storage=f"file://{folder}", result_storage_key="url")(_same)(1)) == 1,
        _files(folder),
    ]


def storage_objects_that_are_not_saved():
    folder = _folder()
    storage = LocalFileSystem(basepath=str(folder))
    return told(lambda: task(result_storage=storage, result_storage_key="a")(_same)(1))


def a_missing_name_and_its_state():
    made = task(result_storage="local-file-system/never-saved", persist_result=True)(_same)
    return told(lambda: made(1, return_state=True))


def keys():
    folder = _folder()

    @task(result_storage=folder, result_storage_key="made-{parameters[x]}-{parameters[y]}")
    def made(x, y=2):
        return x

    return [made(1), made(3, y=4), _files(folder)]


def keys_with_runs():
    folder = _folder()

    @task(
        name="named",
        task_run_name="run-{x}",
        result_storage=folder,
        result_storage_key="{task_run.name}-{task_run.run_count}",
    )
    def made(x):
        return x

    @task(
        result_storage=folder,
        result_storage_key="{flow_run.name}-{flow_run.flow_name}-{task_run.name}",
        task_run_name="t",
    )
    def inside(x):
        return x

    @flow(name="outer", flow_run_name="outer-run")
    def outer():
        return told(lambda: inside(1))

    return [told(lambda: made(1)), outer(), _files(folder)]


def keys_in_folders():
    folder = _folder()
    made = task(result_storage=folder, result_storage_key="a/b/c.json")(_same)
    return [made(1), made(2), _files(folder)]


def keys_that_do_not_work():
    def kept(key):
        folder = _folder()
        made = task(result_storage=folder, result_storage_key=key)(_same)
        return [told(lambda: made(1)), told(lambda: made(1, return_state=True)), _files(folder)]

    return [kept("{parameters[zz]}"), kept("{nothing}"), kept("{"), kept("{0}"), kept("")]


def keys_that_leave_the_folder():
    made = task(result_storage=_folder(), result_storage_key="../out")(_same)
    return [told(lambda: made(1)), made(1, return_state=True).name]


def keys_of_callables():
    return told(lambda: task(result_storage=_folder(), result_storage_key=lambda: "a")(_same)(1))


def a_key_is_a_cache_key():
    folder, calls = _folder(), []

    @task(result_storage=folder, result_storage_key="fixed")
    def made(x):
        calls.append(x)
        return x

    return [made(1), made(2), made(3, return_state=True), calls]


def a_key_without_persistence():
    folder, calls = _folder(), []

    @task(persist_result=False, result_storage=folder, result_storage_key="fixed")
    def made(x):
        calls.append(x)
        return x

    return [made(1), made(2), calls, _files(folder)]


def a_key_template_caches():
    folder, calls = _folder(), []

    @task(result_storage=folder, result_storage_key="x-{parameters[x]}")
    def made(x, y):
        calls.append((x, y))
        return y

    return [made(1, 1), made(1, 2), made(2, 3), calls]


def serializers():
    def kept(serializer, value):
        folder = _folder()
        made = task(result_storage=folder, result_storage_key="k", result_serializer=serializer)(
            lambda: value
        )
        first, again = told(made), told(made)
        kind = told(lambda: json.loads((folder / "k").read_text())["metadata"]["serializer"]["type"])
        return [first, again, kind]

    return [
        kept("json", {"a": [1, None]}),
        kept("pickle", {"a": (1, 2)}),
        kept("json", (1, 2)),
        kept("json", {1, 2}),
        kept("json", b"bytes"),
        kept("compressed/json", {"a": 1}),
        kept("compressed/pickle", {"a": 1}),
        kept(JSONSerializer(), [1]),
        kept(PickleSerializer(), [1]),
    ]


def serializers_that_do_not_exist():
    return [
        told(lambda: task(persist_result=True, result_serializer="nothing")(_same)(1)),
        told(lambda: task(persist_result=True, result_serializer=5)(_same)(1)),
        told(lambda: task(persist_result=False, result_serializer="nothing")(_same)(1)),
    ]


def values_that_can_not_be_kept():
    def kept(value, **options):
        folder = _folder()
        made = task(result_storage=folder, result_storage_key="k", **options)(lambda: value)
        return [type(told(made)).__name__, told(lambda: made(return_state=True)), _files(folder)]

    return [
        kept(threading.Lock()),
        kept(lambda: 1),
        kept(threading.Lock(), result_serializer="json"),
    ]


def values_that_can_not_be_kept_nor_remembered():
    @task(result_storage=_folder(), result_storage_key="k", cache_result_in_memory=False)
    def made():
        return threading.Lock()

    state = made(return_state=True)
    return [state, told(made), told(state.result)]


def records():
    folder = _folder()
    made = task(result_storage=folder, result_storage_key="k", result_serializer="json")(_same)
    record = made([1], return_state=True).data
    return [
        type(record).__name__,
        record.result,
        Path(record.metadata.storage_key).name,
        record.metadata.expiration,
        record.metadata.serializer.type,
        sorted(type(record.metadata).model_fields)
        if hasattr(type(record.metadata), "model_fields")
        else None,
    ]


def records_of_plain_runs():
    return [told(lambda: task(_same)(3, return_state=True).data)]


def results_of_states():
    made = task(result_storage=_folder(), result_storage_key="k-{parameters[x]}")(_same)
    first, again = made(1, return_state=True), made(1, return_state=True)
    return [first, first.result(), again, again.result()]


def results_of_async_tasks():
    @task(result_storage=_folder(), result_storage_key="k-{parameters[x]}")
    async def made(x):
        return x

    async def run():
        first, again = await made(1, return_state=True), await made(1, return_state=True)
        return [first, again, await again.aresult() if hasattr(again, "aresult") else await again.result()]

    return asyncio.run(run())


def submitted_and_mapped():
    folder = _folder()
    made = task(result_storage=folder, result_storage_key="k-{parameters[x]}")(_same)

    @flow
    def outer():
        one = made.submit(1)
        many = made.map([1, 2, 3])
        many.wait()
        return [one.result(), many.result(), sorted(future.state.name for future in many)]

    value = outer()
    return [value[:2], _files(folder)]


def persistence_inside():
    @task(persist_result=True, result_storage=_folder())
    def kept():
        return should_persist_result()

    @task
    def plain():
        return should_persist_result()

    @task(persist_result=False)
    def never():
        return should_persist_result()

    return [kept(), plain(), never(), told(should_persist_result)]


def stores_inside():
    folder = _folder()

    @task(persist_result=True, result_storage=folder, result_serializer="json")
    def kept():
        store = get_result_store()
        return [
            Path(store.result_storage.basepath) == folder,
            store.serializer.type,
            store.cache_result_in_memory,
            type(store.metadata_storage).__name__,
        ]

    return kept()


def not_in_memory():
    folder = _folder()
    made = task(result_storage=folder, result_storage_key="k", cache_result_in_memory=False)(_same)
    state = made([1], return_state=True)
    first = state.result()
    return [first, state.result() is first, type(state.data).__name__]


def in_memory():
    value = object()
    made = task(result_storage=_folder(), result_storage_key="k")(lambda: value)
    state = made(return_state=True)
    return [state.result() is value, told(lambda: made() is value)]


def a_result_that_was_removed():
    folder, calls = _folder(), []

    @task(result_storage=folder, result_storage_key="k", cache_result_in_memory=False)
    def made():
        calls.append(1)
        return 1

    state = made(return_state=True)
    for path in folder.iterdir():
        path.unlink()
    return [told(state.result), told(made), len(calls)]


def a_result_that_was_damaged():
    folder, calls = _folder(), []

    @task(result_storage=folder, result_storage_key="k", cache_result_in_memory=False)
    def made():
        calls.append(1)
        return 1

    made()
    (folder / "k").write_text("no json")
    return [told(made), told(lambda: made(return_state=True)), len(calls)]


def failures_are_not_kept():
    folder = _folder()

    @task(result_storage=folder, result_storage_key="k")
    def made():
        raise ValueError("v")

    return [told(made), made(return_state=True), _files(folder)]


def only_the_last_attempt_is_kept():
    folder, calls = _folder(), []

    @task(result_storage=folder, result_storage_key="k", retries=2)
    def made():
        calls.append(len(_files(folder)))
        if len(calls) < 3:
            raise ValueError("v")
        return len(calls)

    return [made(), calls, _files(folder)]


def returned_states_and_files():
    from prefect.states import Completed, Failed

    folder = _folder()
    fine = task(result_storage=folder, result_storage_key="fine")(lambda: Completed(data=5))
    fails = task(result_storage=folder, result_storage_key="fails")(lambda: Failed(message="f"))
    return [
        told(fine),
        told(fine),
        told(lambda: fine(return_state=True)),
        told(lambda: fails(return_state=True)),
        _files(folder),
    ]


def generators():
    folder = _folder()

    @task(result_storage=folder, result_storage_key="k")
    def made():
        yield 1
        yield 2

    return [told(lambda: list(made())), told(lambda: list(made())), _files(folder)]


def classes_of_the_program():
    folder = _folder()

    class Own:
        def __init__(self, x):
            self.x = x

    made = task(result_storage=folder, result_storage_key="k", cache_result_in_memory=False)(lambda: Own(3))
    made()
    return [made().x, made(return_state=True)]


def results_of_nested_tasks():
    outer_folder, inner_folder = _folder(), _folder()

    @task(result_storage=inner_folder, result_storage_key="inner")
    def inner():
        return 1

    @task
    def plain():
        return 2

    @task(result_storage=outer_folder, result_storage_key="outer")
    def outer():
        return inner() + plain()

    return [outer(), len(_files(outer_folder)), len(_files(inner_folder))]


def logging_in_kept_tasks():
    @task(result_storage=_folder(), result_storage_key="k")
    def made():
        get_run_logger().info("hello")
        return 1

    return made()


def sources_and_keys():
    folder = _folder()
    made = task(cache_policy=TASK_SOURCE, result_storage_key="k", result_storage=folder)(_same)
    return [made(1), made(2), made(3), _files(folder)]
