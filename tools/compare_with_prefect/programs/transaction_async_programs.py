"""Transactions in coroutines, and beside those of threads."""

import asyncio
import tempfile
from pathlib import Path

from observing import told
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.locking.memory import MemoryLockManager
from prefect.results import ResultStore
from prefect.transactions import (
    AsyncTransaction,
    CommitMode,
    IsolationLevel,
    atransaction,
    get_transaction,
    transaction,
)


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _store(**fields):
    return ResultStore(result_storage=LocalFileSystem(basepath=str(_folder())), **fields)


def _noting(events, name, **options):
    """An asynchronous task that notes its run, its commit and its rollback."""

    @task(name=name, **options)
    async def made(fails=False):
        events.append(name)
        if fails:
            raise ValueError(name)
        return name

    made.on_commit(lambda transaction: events.append(f"commit {name}"))
    made.on_rollback(lambda transaction: events.append(f"rollback {name}"))
    return made


def _told(function):
    return told(lambda: asyncio.run(function()))


def life():
    seen = []

    async def run():
        async with atransaction() as made:
            seen.append(
                [
                    type(made).__name__,
                    isinstance(made, AsyncTransaction),
                    made.state.value,
                    made is get_transaction(),
                ]
            )
            made.stage(1)
        seen.append(made.state.value)

    return [_told(run), seen]


def keys():
    store, seen = _store(), []

    async def run():
        async with atransaction(key="one", store=store) as first:
            seen.append(first.is_committed())
            first.stage(5)
        async with atransaction(key="one", store=store) as second:
            seen.append([second.is_committed(), (await second.read()).result])

    return [_told(run), seen]


def rollback_order():
    events = []
    a, b, c = (_noting(events, name) for name in "abc")

    async def run():
        async with atransaction():
            await a()
            async with atransaction():
                await b()
            await c()
            raise ValueError("v")

    return [_told(run), events]


def commit_order():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    async def run():
        async with atransaction():
            await a()
            async with atransaction():
                await b()
            events.append("end")

    return [_told(run), events]


def asynchronous_hooks():
    events = []

    @task
    async def made():
        return 1

    @made.on_commit
    async def done(transaction):
        await asyncio.sleep(0)
        events.append("commit")

    @made.on_rollback
    async def undo(transaction):
        await asyncio.sleep(0)
        events.append("rollback")

    async def run(fails):
        async with atransaction():
            await made()
            if fails:
                raise ValueError("v")

    return [_told(lambda: run(False)), _told(lambda: run(True)), events]


def sync_in_async():
    events = []

    @task
    def made():
        events.append(type(get_transaction()).__name__)

    made.on_rollback(lambda transaction: events.append("rollback"))
    made.on_commit(lambda transaction: events.append("commit"))

    async def run(fails):
        async with atransaction():
            made()
            if fails:
                raise ValueError("v")

    return [_told(lambda: run(False)), _told(lambda: run(True)), events]


def async_in_sync():
    events = []
    made = _noting(events, "a")

    async def run(fails):
        with transaction():
            await made()
            if fails:
                raise ValueError("v")

    return [_told(lambda: run(False)), _told(lambda: run(True)), events]


def transactions_of_both_kinds():
    async def sync_inside():
        async with atransaction() as outer:
            with transaction() as inner:
                return [inner.get_parent() is outer, len(outer.children)]

    async def async_inside():
        with transaction() as outer:
            async with atransaction() as inner:
                return [inner.get_parent() is outer, len(outer.children)]

    return [_told(sync_inside), _told(async_inside)]


def the_wrong_with():
    async def run():
        with atransaction():
            pass

    async def other():
        async with transaction():
            pass

    async def direct():
        with AsyncTransaction():
            pass

    return [_told(run), _told(other), _told(direct)]


def isolation():
    locks = MemoryLockManager()
    store, seen = _store(lock_manager=locks), []

    async def run():
        async with atransaction(key="one", store=store, isolation_level=IsolationLevel.SERIALIZABLE) as made:
            seen.append([locks.is_locked("one"), made.isolation_level.value])
            made.stage(1)
        seen.append(locks.is_locked("one"))

    return [_told(run), seen]


def isolation_without_locks():
    async def run():
        async with atransaction(key="one", store=_store(), isolation_level=IsolationLevel.SERIALIZABLE):
            return 1

    return _told(run)


def modes():
    async def run(mode):
        events = []
        a = _noting(events, "a")
        async with atransaction(commit_mode=mode):
            await a()
            events.append("end")
        return events

    return [_told(lambda mode=mode: run(mode)) for mode in CommitMode]


def modes_and_errors():
    def ran(mode):
        events = []
        a = _noting(events, "a")

        async def run():
            async with atransaction(commit_mode=mode):
                await a()
                raise ValueError("v")

        return [_told(run), events]

    return [ran(mode) for mode in CommitMode]


def in_tasks():
    @task
    async def made():
        return type(get_transaction()).__name__

    @task
    def sync():
        return type(get_transaction()).__name__

    async def run():
        return [await made(), sync()]

    return _told(run)


def set_and_get():
    async def run():
        async with atransaction() as outer:
            outer.set("a", [1])
            async with atransaction() as inner:
                inner.get("a").append(2)
                return [inner.get("a"), outer.get("a"), inner.get("b", 1), told(lambda: inner.get("b"))]

    return _told(run)


def failing_hooks():
    events = []
    a, b = _noting(events, "a"), _noting(events, "b")

    @b.on_commit
    async def fails(transaction):
        raise KeyError("k")

    async def run():
        async with atransaction() as made:
            await a()
            await b()
        events.append(made.state.value)

    return [_told(run), events]


def cached_tasks():
    events = []
    cached = _noting(events, "a", cache_policy=INPUTS, result_storage=_folder())

    async def run():
        async with atransaction():
            first = await cached(return_state=True)
        async with atransaction():
            second = await cached(return_state=True)
        return [first, second]

    return [_told(run), events]


def in_flows():
    events = []
    a = _noting(events, "a")

    @flow
    async def outer():
        async with atransaction():
            await a()
            a.submit().wait()
            raise ValueError("v")

    return [_told(outer), events]


def at_once():
    seen = []

    async def one(name):
        async with atransaction() as made:
            made.set("name", name)
            await asyncio.sleep(0.01)
            seen.append(get_transaction() is made)
            return get_transaction().get("name")

    async def run():
        return await asyncio.gather(one("a"), one("b"))

    return [_told(run), seen]


def cancelled():
    events = []
    a = _noting(events, "a")

    async def inside():
        async with atransaction():
            await a()
            await asyncio.sleep(30)

    async def run():
        running = asyncio.create_task(inside())
        await asyncio.sleep(0.5)
        running.cancel()
        await running

    return [_told(run), events]
