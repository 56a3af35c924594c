"""Locks: taking, waiting, giving back."""

import asyncio
import tempfile
import threading
import uuid
from pathlib import Path

from observing import told
from prefect import task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem
from prefect.locking.filesystem import FileSystemLockManager
from prefect.locking.memory import MemoryLockManager
from prefect.results import ResultStore
from prefect.transactions import IsolationLevel


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _managers():
    return [MemoryLockManager(), FileSystemLockManager(lock_files_directory=_folder())]


def _key():
    """A new one, as locks in memory may be shared by all managers of a process."""
    return uuid.uuid4().hex


def _each(program):
    return [told(lambda locks=locks: program(locks, _key())) for locks in _managers()]


def taken_and_released():
    return _each(
        lambda locks, key: [
            locks.is_locked(key),
            locks.acquire_lock(key, "me"),
            locks.is_locked(key),
            locks.is_lock_holder(key, "me"),
            locks.is_lock_holder(key, "other"),
            locks.release_lock(key, "me"),
            locks.is_locked(key),
        ]
    )


def taken_twice():
    return _each(
        lambda locks, key: [
            locks.acquire_lock(key, "me"),
            locks.acquire_lock(key, "me"),
            locks.acquire_lock(key, "other", acquire_timeout=0.1),
            locks.release_lock(key, "me"),
            locks.acquire_lock(key, "other", acquire_timeout=0.1),
        ]
    )


def taken_without_waiting():
    locks, key = MemoryLockManager(), _key()
    return [locks.acquire_lock(key, "me"), locks.acquire_lock(key, "other", acquire_timeout=0)]


def released_by_others():
    return _each(
        lambda locks, key: [
            told(lambda: locks.release_lock(key, "me")),
            locks.acquire_lock(key, "me"),
            told(lambda: locks.release_lock(key, "other")),
            locks.is_locked(key),
        ]
    )


def hold_times():
    def program(locks, key):
        taken = locks.acquire_lock(key, "me", hold_timeout=0.3)
        return [
            taken,
            locks.is_locked(key),
            locks.acquire_lock(key, "other", acquire_timeout=10),
            locks.is_lock_holder(key, "other"),
        ]

    return _each(program)


def waiting():
    def program(locks, key):
        locks.acquire_lock(key, "me")
        busy = locks.wait_for_lock(key, timeout=0.1)
        timer = threading.Timer(0.2, lambda: locks.release_lock(key, "me"))
        timer.start()
        free = locks.wait_for_lock(key, timeout=10)
        timer.join()
        return [locks.wait_for_lock(_key()), busy, free]

    return _each(program)


def waiting_to_take():
    def program(locks, key):
        locks.acquire_lock(key, "me")
        timer = threading.Timer(0.2, lambda: locks.release_lock(key, "me"))
        timer.start()
        taken = locks.acquire_lock(key, "other", acquire_timeout=10)
        timer.join()
        return [taken, locks.is_lock_holder(key, "other")]

    return _each(program)


def asynchronous():
    def program(locks, key):
        async def run():
            return [
                await locks.aacquire_lock(key, "me"),
                await locks.aacquire_lock(key, "other", acquire_timeout=0.1),
                await locks.await_for_lock(key, timeout=0.1),
                locks.release_lock(key, "me"),
                await locks.await_for_lock(key, timeout=0.1),
                await locks.aacquire_lock(key, "other"),
            ]

        return asyncio.run(run())

    return _each(program)


def of_threads():
    def program(locks, key):
        taken = []

        def run(name):
            if locks.acquire_lock(key, name, acquire_timeout=0.2):
                taken.append(1)

        threads = [threading.Thread(target=run, args=(f"holder-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(taken)

    return _each(program)


def odd_keys():
    def program(locks, key):
        return [
            told(lambda odd=odd: locks.acquire_lock(odd, "me"))
            for odd in (f"a/{key}", f"with space {key}", f"ü{key}", "x" * 150 + key)
        ]

    return [type(each).__name__ for outcome in _each(program) for each in outcome]


def shared_between_managers():
    folder = _folder()
    one, two = FileSystemLockManager(folder), FileSystemLockManager(folder)
    first = MemoryLockManager()
    key = _key()
    return [
        one.acquire_lock("a", "me"),
        two.is_locked("a"),
        two.acquire_lock("a", "other", acquire_timeout=0.1),
        two.is_lock_holder("a", "me"),
        first.acquire_lock(key, "me"),
        MemoryLockManager().is_locked(key),
    ]


def files():
    folder = _folder()
    locks = FileSystemLockManager(folder)
    locks.acquire_lock("a", "me")
    inside = sorted(path.name for path in folder.iterdir())
    locks.release_lock("a", "me")
    return [inside, list(folder.iterdir())]


def folders_that_do_not_exist():
    folder = _folder() / "new" / "deep"
    return told(lambda: FileSystemLockManager(folder).acquire_lock("a", "me"))


def stores():
    key = _key()
    store = ResultStore(
        result_storage=LocalFileSystem(basepath=str(_folder())), lock_manager=MemoryLockManager()
    )
    return [
        store.supports_isolation_level(IsolationLevel.SERIALIZABLE),
        store.supports_isolation_level(IsolationLevel.READ_COMMITTED),
        store.acquire_lock(key),
        store.is_locked(key),
        store.is_lock_holder(key),
        store.is_lock_holder(key, "other"),
        store.acquire_lock(key, "other", timeout=0.1),
        store.release_lock(key),
        store.is_locked(key),
        store.wait_for_lock(key),
    ]


def stores_without_locks():
    store = ResultStore(result_storage=LocalFileSystem(basepath=str(_folder())))
    return [
        store.supports_isolation_level(IsolationLevel.SERIALIZABLE),
        store.supports_isolation_level(IsolationLevel.READ_COMMITTED),
        told(lambda: store.acquire_lock("a")),
        told(lambda: store.release_lock("a")),
        told(lambda: store.is_locked("a")),
        told(lambda: store.is_lock_holder("a")),
        told(lambda: store.wait_for_lock("a")),
    ]


def locked_records():
    key = _key()
    store = ResultStore(
        result_storage=LocalFileSystem(basepath=str(_folder())), lock_manager=MemoryLockManager()
    )
    store.write(1, key=key, holder="me")
    store.acquire_lock(key, "me")
    return [
        told(lambda: store.write(2, key=key, holder="me")),
        told(lambda: store.write(3, key=key, holder="other")),
        told(lambda: store.read(key, holder="me").result),
    ]


def serialized_tasks():
    calls, locks = [], MemoryLockManager()

    @task(
        cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=locks),
        result_storage=_folder(),
    )
    def made(x):
        calls.append(x)
        threading.Event().wait(0.3)
        return x

    threads = [threading.Thread(target=lambda: made(1)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [calls, made(1, return_state=True)]


def serialized_tasks_that_fail():
    calls, locks = [], MemoryLockManager()

    @task(
        cache_policy=INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=locks),
        result_storage=_folder(),
        retries=1,
    )
    def made(x):
        calls.append(x)
        if len(calls) < 4:
            raise ValueError("v")
        return x

    return [made(1, return_state=True), made(1, return_state=True), made(1, return_state=True), len(calls)]


def serialized_tasks_without_locks():
    @task(
        cache_policy=INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE), result_storage=_folder()
    )
    def made(x):
        return x

    return [told(lambda: made(1)), told(lambda: made(1, return_state=True))]


def serialized_tasks_with_files():
    calls = []

    @task(
        cache_policy=INPUTS.configure(
            isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=FileSystemLockManager(_folder())
        ),
        result_storage=_folder(),
    )
    def made(x):
        calls.append(x)
        return x

    return [made(1), made(1), calls]


def serialized_asynchronous_tasks():
    calls = []

    @task(
        cache_policy=INPUTS.configure(
            isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=MemoryLockManager()
        ),
        result_storage=_folder(),
    )
    async def made(x):
        calls.append(x)
        await asyncio.sleep(0.1)
        return x

    async def run():
        return await asyncio.gather(*(made(1) for _ in range(3)))

    return [asyncio.run(run()), len(calls)]
