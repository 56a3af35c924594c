"""Transactions: nesting, modes, order of hooks, what is written when, values set and got."""

import tempfile
import threading
from pathlib import Path

from observing import told
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.locking.memory import MemoryLockManager
from prefect.results import ResultStore
from prefect.transactions import (
    CommitMode,
    IsolationLevel,
    Transaction,
    TransactionState,
    get_transaction,
    transaction,
)


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _store(folder=None, **fields):
    return ResultStore(result_storage=LocalFileSystem(basepath=str(folder or _folder())), **fields)


def _noting(events, name, **options):
    """A task that notes its run, its commit and its rollback."""

    @task(name=name, **options)
    def made(fails=False):
        events.append(name)
        if fails:
            raise ValueError(name)
        return name

    made.on_commit(lambda transaction: events.append(f"commit {name}"))
    made.on_rollback(lambda transaction: events.append(f"rollback {name}"))
    return made


def values():
    return [
        [each.value for each in CommitMode],
        [each.value for each in IsolationLevel],
        [each.value for each in TransactionState],
    ]


def life():
    seen = []
    with transaction() as outer:
        seen.append(
            [
                outer.state.value,
                outer.is_active(),
                outer.is_pending(),
                outer.is_committed(),
                outer.is_staged(),
            ]
        )
        outer.stage(1)
        seen.append([outer.state.value, outer.is_staged()])
    seen.append([outer.state.value, outer.is_committed(), outer.is_rolled_back(), outer.is_active()])
    return seen


def defaults():
    with transaction() as outer:
        return [
            outer.key,
            outer.commit_mode.value,
            outer.isolation_level.value,
            outer.overwrite,
            outer.write_on_commit,
            type(outer.store).__name__,
            outer.children,
            outer.get_parent(),
            outer.on_commit_hooks,
            outer.on_rollback_hooks,
        ]


def defaults_inside():
    with transaction(commit_mode=CommitMode.EAGER) as outer, transaction() as inner:
        first = [inner.commit_mode.value, inner.get_parent() is outer, outer.children == [inner]]
    with transaction(commit_mode=CommitMode.OFF), transaction() as inner:
        second = inner.commit_mode.value
    store = _store(lock_manager=MemoryLockManager())
    with (
        transaction(isolation_level=IsolationLevel.SERIALIZABLE, store=store, key="a"),
        transaction() as inner,
    ):
        third = [inner.isolation_level.value, inner.store is store]
    return [first, second, third]


def classes():
    with transaction() as made:
        return [type(made).__name__, isinstance(made, Transaction), made is get_transaction()]


def outside():
    return [get_transaction()]


def in_tasks():
    @task
    def made():
        found = get_transaction()
        return [
            found is not None,
            found.key is None,
            found.state.value,
            found.commit_mode.value,
            found.isolation_level.value,
        ]

    @task(cache_policy=INPUTS, result_storage=_folder())
    def cached(x):
        found = get_transaction()
        return [found.key is None, found.state.value, found.write_on_commit]

    return [made(), cached(1), get_transaction()]


def in_flows():
    @flow
    def outer():
        return get_transaction()

    return outer()


def keys():
    store = _store()
    seen = []
    with transaction(key="one", store=store) as first:
        seen.append([first.is_committed(), told(first.read)])
        first.stage({"v": 1})
    with transaction(key="one", store=store) as second:
        seen.append([second.is_committed(), second.read().result])
    with transaction(key="two", store=store) as third:
        seen.append(third.is_committed())
    return [seen, first.state.value, second.state.value, third.state.value]


def keys_without_stage():
    store = _store()
    with transaction(key="one", store=store) as first:
        pass
    with transaction(key="one", store=store) as second:
        return [first.state.value, second.is_committed(), told(lambda: second.read())]


def keys_after_an_error():
    store = _store()

    def run():
        with transaction(key="one", store=store) as made:
            made.stage(1)
            raise ValueError("v")

    error = told(run)
    with transaction(key="one", store=store) as second:
        return [error, second.is_committed()]


def stages():
    store = _store()
    with transaction(key="one", store=store) as made:
        made.stage(1)
        made.stage(2)
    with transaction(key="one", store=store) as second:
        return [second.read().result, told(lambda: second.stage(3)), second.state.value]


def staging_on_a_hit():
    store = _store()
    with transaction(key="one", store=store) as made:
        made.stage(1)
    with transaction(key="one", store=store) as second:
        second.stage(5)
        state = second.state.value
    with transaction(key="one", store=store) as third:
        return [state, second.state.value, third.read().result]


def overwriting():
    store = _store()
    for value, overwrite in ((1, False), (2, True)):
        with transaction(key="one", store=store, overwrite=overwrite) as made:
            state = made.state.value
            made.stage(value)
    with transaction(key="one", store=store) as last:
        return [state, last.read().result]


def without_writing():
    store = _store()
    with transaction(key="one", store=store, write_on_commit=False) as made:
        made.stage(1)
    with transaction(key="one", store=store) as second:
        return [made.state.value, second.is_committed()]


def files():
    folder = _folder()
    with transaction(key="one", store=_store(folder)) as made:
        made.stage(1)
        inside = _files(folder)
    return [inside, _files(folder)]


def staged_hooks():
    events = []
    with transaction(key="one", store=_store()) as made:
        made.stage(
            1,
            on_commit_hooks=[lambda transaction: events.append(["commit", transaction.state.value])],
            on_rollback_hooks=[lambda transaction: events.append(["rollback", transaction.state.value])],
        )

    def fails():
        with transaction(key="two", store=_store()) as made:
            made.stage(
                1,
                on_commit_hooks=[lambda transaction: events.append(["commit", transaction.state.value])],
                on_rollback_hooks=[lambda transaction: events.append(["rollback", transaction.state.value])],
            )
            raise ValueError("v")

    return [told(fails), events]


def hooks_of_tasks():
    events = []
    made = _noting(events, "a")
    made()
    events.append("--")
    with transaction():
        made()
        events.append("end")
    return events


def hooks_as_options():
    events = []
    made = task(
        lambda: events.append("run"),
        on_commit=[lambda transaction: events.append("commit")],
        on_rollback=[lambda transaction: events.append("rollback")],
    )
    with transaction():
        made()
        events.append("end")
    return events


def rollback_order():
    events = []
    a, b, c = (_noting(events, name) for name in "abc")

    def run():
        with transaction():
            a()
            b()
            c()
            raise ValueError("v")

    return [told(run), events]


def rollback_order_nested():
    events = []
    a, b, c, d = (_noting(events, name) for name in "abcd")

    def run():
        with transaction():
            a()
            with transaction():
                b()
                c()
            d()
            raise ValueError("v")

    return [told(run), events]


def commit_order_nested():
    events = []
    a, b, c = (_noting(events, name) for name in "abc")
    with transaction():
        a()
        with transaction():
            b()
            events.append("inner ends")
        c()
        events.append("outer ends")
    return events


def inner_errors_that_are_caught():
    events = []
    a, b, c = (_noting(events, name) for name in "abc")
    with transaction() as outer:
        a()
        try:
            with transaction() as inner:
                b()
                raise ValueError("v")
        except ValueError:
            events.append("caught")
        c()
    return [events, outer.state.value, inner.state.value]


def eager():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    def run():
        with transaction():
            with transaction(commit_mode=CommitMode.EAGER):
                a()
                events.append("inner ends")
            b()
            raise ValueError("v")

    return [told(run), events]


def eager_outside():
    events = []
    a = _noting(events, "a")

    def run():
        with transaction(commit_mode=CommitMode.EAGER):
            a()
            events.append("after")
            raise ValueError("v")

    return [told(run), events]


def lazy():
    events = []
    a = _noting(events, "a")
    with transaction(commit_mode=CommitMode.LAZY):
        a()
        events.append("after")
    return events


def off():
    events = []
    a = _noting(events, "a")
    store = _store()
    with transaction(commit_mode=CommitMode.OFF, key="one", store=store) as made:
        a()
        made.stage(1)
    with transaction(key="one", store=store) as second:
        return [events, made.state.value, second.is_committed()]


def modes_and_errors():
    def run(mode):
        events = []
        a = _noting(events, "a")

        def inside():
            with transaction(commit_mode=mode) as made:
                made.stage(1)
                a()
                raise ValueError("v")

        return [told(inside), events]

    return [run(mode) for mode in CommitMode]


def failing_tasks():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    def run():
        with transaction():
            a()
            b(fails=True)

    return [told(run), events]


def failing_tasks_that_are_tolerated():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")
    with transaction() as made:
        a()
        b(fails=True, return_state=True)
    return [events, made.state.value]


def failing_tasks_alone():
    events = []
    a = _noting(events, "a")
    a(fails=True, return_state=True)
    return events


def retried_tasks():
    events, calls = [], []

    @task(retries=2)
    def made():
        calls.append(1)
        events.append("run")
        if len(calls) < 3:
            raise ValueError("v")

    made.on_commit(lambda transaction: events.append("commit"))
    made.on_rollback(lambda transaction: events.append("rollback"))
    with transaction():
        made()
    return events


def submitted_tasks():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    @flow
    def outer():
        with transaction():
            a.submit().wait()
            b.submit().wait()
            raise ValueError("v")

    return [told(outer), events]


def submitted_tasks_that_commit():
    events = []
    a = _noting(events, "a")

    @flow
    def outer():
        with transaction():
            a.submit().wait()
            events.append("end")

    outer()
    return events


def nested_tasks():
    events = []
    inner = _noting(events, "inner")

    @task
    def outer(fails):
        inner()
        events.append("outer")
        if fails:
            raise ValueError("v")

    outer.on_commit(lambda transaction: events.append("commit outer"))
    outer.on_rollback(lambda transaction: events.append("rollback outer"))
    outer(False)
    events.append("--")
    outer(True, return_state=True)
    return events


def plain_tasks_around():
    events = []
    inner = _noting(events, "inner")

    @task
    def outer(fails):
        inner()
        events.append("outer")
        if fails:
            raise ValueError("v")

    outer(False)
    events.append("--")
    outer(True, return_state=True)
    return events


def transactions_in_tasks():
    events = []
    inner = _noting(events, "inner")

    @task
    def outer():
        with transaction() as made:
            inner()
            events.append(["parent", type(made.get_parent()).__name__])
        events.append("left")

    outer.on_commit(lambda transaction: events.append("commit outer"))
    outer()
    return events


def flows_inside():
    events = []
    a = _noting(events, "a")

    @flow
    def inner():
        a()

    def run():
        with transaction():
            inner()
            raise ValueError("v")

    return [told(run), events]


def failing_rollback_hooks():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    @b.on_rollback
    def fails(transaction):
        events.append("fails")
        raise KeyError("k")

    def run():
        with transaction():
            a()
            b()
            raise ValueError("v")

    return [told(run), events]


def failing_commit_hooks():
    events = []
    a, b, c = (_noting(events, name) for name in "abc")

    @b.on_commit
    def fails(transaction):
        events.append("fails")
        raise KeyError("k")

    def run():
        with transaction() as made:
            a()
            b()
            c()
        events.append(made.state.value)

    return [told(run), events]


def commits_that_can_not_write():
    events = []
    store = _store()
    a = _noting(events, "a")

    def run():
        with transaction(key="one", store=store) as made:
            a()
            made.stage(
                threading.Lock(),
                on_commit_hooks=[lambda transaction: events.append("commit one")],
                on_rollback_hooks=[lambda transaction: events.append("rollback one")],
            )
        events.append(made.state.value)

    return [told(run), events]


def tasks_whose_values_can_not_be_written():
    events = []
    a = _noting(events, "a")

    @task(cache_policy=INPUTS, result_storage=_folder())
    def odd(x):
        return threading.Lock()

    odd.on_rollback(lambda transaction: events.append("rollback odd"))
    odd.on_commit(lambda transaction: events.append("commit odd"))

    def run():
        with transaction() as made:
            a()
            odd(1)
        events.append(made.state.value)

    return [told(run), events]


def cached_tasks_inside():
    events, folder = [], _folder()
    cached = _noting(events, "cached", cache_policy=INPUTS, result_storage=folder)

    def run(fails):
        with transaction():
            cached()
            events.append(len(_files(folder)))
            if fails:
                raise ValueError("v")
        events.append(["left", len(_files(folder))])

    first = told(lambda: run(True))
    events.append("--")
    run(False)
    events.append("--")
    run(False)
    events.append("--")
    return [first, told(lambda: run(True)), events]


def cached_tasks_twice_inside():
    events = []
    cached = _noting(events, "cached", cache_policy=INPUTS, result_storage=_folder())
    with transaction():
        first = cached(return_state=True)
        second = cached(return_state=True)
    return [first, second, events]


def cached_tasks_twice_inside_eager():
    events = []
    cached = _noting(events, "cached", cache_policy=INPUTS, result_storage=_folder())
    with transaction(commit_mode=CommitMode.EAGER):
        first = cached(return_state=True)
        second = cached(return_state=True)
    return [first, second, events]


def set_and_get():
    with transaction() as outer:
        outer.set("a", [1])
        seen = [outer.get("a"), told(lambda: outer.get("b")), outer.get("b", 5), outer.get("b", None)]
        outer.get("a").append(2)
        seen.append(outer.get("a"))
        with transaction() as inner:
            seen.append(inner.get("a"))
            inner.get("a").append(3)
            seen.extend([inner.get("a"), outer.get("a")])
            inner.set("a", "own")
            inner.set("c", 1)
            seen.extend([inner.get("a"), outer.get("a"), outer.get("c", "none")])
    return [seen, told(lambda: outer.get("a"))]


def set_what_can_not_be_copied():
    lock = threading.Lock()
    with transaction() as outer:
        return [
            told(lambda: outer.set("lock", lock)),
            told(lambda: outer.get("lock") is lock),
            told(lambda: outer.set(5, 1)),
            told(lambda: outer.get(5)),
        ]


def set_in_tasks():
    seen = []

    @task
    def made(x):
        get_transaction().set("x", x)
        return x

    @made.on_rollback
    def undo(transaction):
        seen.append(["rollback", transaction.get("x")])

    @made.on_commit
    def done(transaction):
        seen.append(["commit", transaction.get("x")])

    made(1)

    def run():
        with transaction() as outer:
            outer.set("x", "outer")
            made(2)
            seen.append(outer.get("x"))
            raise ValueError("v")

    return [told(run), seen]


def set_before_tasks():
    @task
    def made():
        return get_transaction().get("x"), get_transaction().get_parent().get("x")

    with transaction() as outer:
        outer.set("x", 1)
        return told(made)


def what_hooks_get():
    seen = []

    @task(name="named", cache_policy=INPUTS, result_storage=_folder())
    def made(x):
        return x

    @made.on_commit
    def hook(transaction):
        seen.append(
            [
                type(transaction).__name__,
                transaction.state.value,
                isinstance(transaction.key, str),
                transaction.write_on_commit,
                transaction.overwrite,
                getattr(transaction.get_parent(), "state", None),
            ]
        )

    made(1)
    with transaction():
        made(2)
    return seen


def hooks_that_call_tasks():
    events = []
    inner = _noting(events, "inner")

    @task
    def made():
        events.append("made")

    @made.on_rollback
    def undo(transaction):
        inner()

    def run():
        with transaction():
            made()
            raise ValueError("v")

    return [told(run), events]


def transactions_in_hooks():
    events = []

    @task
    def made():
        return 1

    @made.on_commit
    def hook(transaction):
        events.append([get_transaction() is transaction, type(get_transaction()).__name__])

    made()
    with transaction():
        made()
    return events


def isolation():
    locks = MemoryLockManager()
    store = _store(lock_manager=locks)
    seen = []
    with transaction(key="one", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as made:
        seen.append([locks.is_locked("one"), made.state.value, made.isolation_level.value])
        made.stage(1)
    seen.append(locks.is_locked("one"))

    def fails():
        with transaction(key="two", store=store, isolation_level=IsolationLevel.SERIALIZABLE):
            seen.append(locks.is_locked("two"))
            raise ValueError("v")

    seen.append(told(fails))
    seen.append(locks.is_locked("two"))
    with transaction(key="one", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as again:
        seen.append([again.is_committed(), locks.is_locked("one"), again.read().result])
    seen.append(locks.is_locked("one"))
    return seen


def isolation_without_locks():
    def run():
        with transaction(key="one", store=_store(), isolation_level=IsolationLevel.SERIALIZABLE):
            return "inside"

    return told(run)


def isolation_without_key():
    def run():
        store = _store(lock_manager=MemoryLockManager())
        with transaction(store=store, isolation_level=IsolationLevel.SERIALIZABLE) as made:
            return made.isolation_level.value

    return told(run)


def isolation_as_text():
    def run(level):
        store = _store(lock_manager=MemoryLockManager())
        with transaction(key="a", store=store, isolation_level=level) as made:
            return made.isolation_level

    return [
        told(lambda: run("SERIALIZABLE")),
        told(lambda: run("nothing")),
        told(lambda: run("READ_COMMITTED")),
    ]


def modes_as_text():
    def run(mode):
        with transaction(commit_mode=mode) as made:
            return made.commit_mode

    return [told(lambda: run("EAGER")), told(lambda: run("nothing"))]


def two_at_once_that_are_serialized():
    store = _store(lock_manager=MemoryLockManager())
    runs, results = [], []
    inside = threading.Event()

    def run():
        with transaction(key="one", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as made:
            if made.is_committed():
                results.append(made.read().result)
                return
            runs.append(1)
            inside.set()
            threading.Event().wait(0.3)
            made.stage(5)

    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    inside.wait(10)
    second.start()
    first.join(30)
    second.join(30)
    return [runs, results]


def threads():
    seen = []

    def other():
        seen.append(get_transaction())

    with transaction():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    return seen


def reset_and_reuse():
    with transaction() as made:
        pass

    def again():
        with made:
            return made.state.value

    return [told(again), made.state.value]


def direct_use():
    made = Transaction(key="one", store=_store())
    seen = [made.state.value, made.is_pending()]
    with made:
        seen.append(made.state.value)
        made.stage(3)
    return [seen, made.state.value, told(lambda: made.read().result)]


def direct_commit_and_rollback():
    events = []
    with transaction(key="one", store=_store()) as made:
        made.stage(1, on_rollback_hooks=[lambda transaction: events.append("rollback")])
        committed = told(made.commit)
        after = made.state.value
        rolled = told(made.rollback)
    return [committed, after, rolled, made.state.value, events]


def direct_rollback_inside():
    events = []
    store = _store()
    with transaction(key="one", store=store) as made:
        made.stage(1, on_rollback_hooks=[lambda transaction: events.append("rollback")])
        rolled = told(made.rollback)
        state = made.state.value
    with transaction(key="one", store=store) as second:
        return [rolled, state, made.state.value, events, second.is_committed()]


def exits_and_interrupts():
    def run(kind):
        events = []
        a = _noting(events, "a")

        def inside():
            with transaction():
                a()
                raise kind

        return [told(inside), events]

    return [run(SystemExit), run(KeyboardInterrupt)]


def returned_failures():
    from prefect.states import Failed

    events = []
    made = task(lambda: Failed(message="f"))
    made.on_rollback(lambda transaction: events.append("rollback"))
    made.on_commit(lambda transaction: events.append("commit"))
    with transaction() as outer:
        state = made(return_state=True)
    return [state, events, outer.state.value]


def several_hooks():
    events = []
    made = task(lambda: 1)
    for name in "abc":
        made.on_commit(lambda transaction, name=name: events.append(f"commit {name}"))
        made.on_rollback(lambda transaction, name=name: events.append(f"rollback {name}"))

    def run():
        with transaction():
            made()
            raise ValueError("v")

    with transaction():
        made()
    return [told(run), events]


def asynchronous_hooks():
    events = []
    made = task(lambda: 1)

    @made.on_commit
    async def hook(transaction):
        events.append("commit")

    with transaction():
        made()
    return events


def wrong_hooks():
    return [
        told(lambda: task(lambda: 1).on_commit(1)),
        told(lambda: task(lambda: 1).on_rollback("x")),
    ]


def wrong_arguments():
    def run(**arguments):
        def inside():
            with transaction(**arguments) as made:
                return made.key

        return told(inside)

    return [run(key=5), run(store=5), run(zz=1), run(overwrite="x"), run(key="")]


def stores_of_transactions():
    folder = _folder()

    @flow(result_storage=folder, persist_result=True)
    def outer():
        with transaction(key="one") as made:
            made.stage(1)
            return Path(made.store.result_storage.basepath) == folder

    return [outer(), "one" in _files(folder)]


def tasks_without_persistence_inside():
    folder = _folder()

    @task(persist_result=False, result_storage=folder)
    def never():
        return 1

    @task(persist_result=True, result_storage=folder)
    def kept():
        return 2

    @task(result_storage=folder)
    def plain():
        return 3

    with transaction():
        values = [never(), kept(), plain()]
    return [values, len(_files(folder))]
