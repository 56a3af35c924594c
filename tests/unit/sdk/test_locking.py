"""Lock managers: one holder at most, whoever comes, leaves or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prefect_lite.exceptions import StorageError
from prefect_lite.locking.filesystem import FileSystemLockManager, Note
from prefect_lite.locking.memory import MemoryLockManager
from prefect_lite.locking.protocol import LockManager, acquiring, releasing
from prefect_lite.locking.redis import RedisLockManager
from prefect_lite.thread_or_loop import in_thread, on_loop
from tests.tools.waiting import wait_until

SHORT = 0.02


@pytest.fixture(params=["memory", "files"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> LockManager:
    return MemoryLockManager() if request.param == "memory" else FileSystemLockManager(tmp_path / "locks")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """One that no other test has: the memory of a process has one table."""
    return request.node.nodeid


def test_all_are_lock_managers(tmp_path: Path) -> None:
    for one in (MemoryLockManager(), FileSystemLockManager(tmp_path), RedisLockManager()):
        assert isinstance(one, LockManager)


def test_a_lock_has_one_holder(manager: LockManager, key: str) -> None:
    assert manager.acquire_lock(key, "a")
    assert manager.acquire_lock(key, "a")
    assert not manager.acquire_lock(key, "b", acquire_timeout=SHORT)
    assert not manager.acquire_lock(key, "b", acquire_timeout=0)
    assert manager.is_locked(key)
    assert (manager.is_lock_holder(key, "a"), manager.is_lock_holder(key, "b")) == (True, False)
    assert not manager.wait_for_lock(key, SHORT)
    manager.release_lock(key, "a")
    assert not manager.is_locked(key)
    assert manager.wait_for_lock(key)
    assert manager.acquire_lock(key, "b", acquire_timeout=0)
    manager.release_lock(key, "b")


def test_only_the_holder_releases(manager: LockManager, key: str) -> None:
    with pytest.raises(ValueError, match="No lock held by 'a' for key"):
        manager.release_lock(key, "a")
    assert manager.acquire_lock(key, "a")
    with pytest.raises(ValueError, match="No lock held by 'b' for key"):
        manager.release_lock(key, "b")
    manager.release_lock(key, "a")
    with pytest.raises(ValueError, match="was released already"):
        manager.release_lock(key, "a")


def test_a_lock_with_a_time_is_free_afterwards(manager: LockManager, key: str) -> None:
    assert manager.acquire_lock(key, "a", hold_timeout=0.05)
    assert manager.acquire_lock(key, "b")  # waits no longer than that
    assert not manager.is_lock_holder(key, "a")
    with pytest.raises(ValueError, match="has run out of its time"):
        manager.release_lock(key, "a")
    manager.release_lock(key, "b")


def test_whoever_has_it_may_hold_it_for_longer(manager: LockManager, key: str) -> None:
    assert manager.acquire_lock(key, "a", hold_timeout=0.05)
    assert manager.acquire_lock(key, "a")
    assert not manager.wait_for_lock(key, 0.1)
    manager.release_lock(key, "a")


def test_a_waiter_gets_what_is_released(manager: LockManager, key: str) -> None:
    assert manager.acquire_lock(key, "a")
    got: list[bool] = []
    waiters = [threading.Thread(target=lambda: got.append(manager.wait_for_lock(key)))]
    waiters.append(threading.Thread(target=lambda: got.append(manager.acquire_lock(key, "b"))))
    for waiter in waiters:
        waiter.start()
    manager.release_lock(key, "a")
    waiters[1].join()
    assert manager.is_lock_holder(key, "b")
    manager.release_lock(key, "b")
    waiters[0].join()
    assert got == [True, True]


def test_coroutines_wait_without_blocking_their_loop(manager: LockManager, key: str) -> None:
    async def main() -> list[bool]:
        assert await manager.aacquire_lock(key, "a")
        waiting = asyncio.create_task(manager.aacquire_lock(key, "b"))
        free = asyncio.create_task(manager.await_for_lock(key, SHORT))
        assert not await free
        assert not waiting.done()
        manager.release_lock(key, "a")
        return [await waiting, await manager.aacquire_lock(key, "c", acquire_timeout=SHORT)]

    assert asyncio.run(main()) == [True, False]
    manager.release_lock(key, "b")


def test_a_cancelled_waiter_leaves_nothing_behind(manager: LockManager, key: str) -> None:
    async def main() -> None:
        assert await manager.aacquire_lock(key, "a")
        waiting = asyncio.create_task(manager.aacquire_lock(key, "b"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        manager.release_lock(key, "a")
        assert await manager.aacquire_lock(key, "c", acquire_timeout=0)
        manager.release_lock(key, "c")

    asyncio.run(main())


def test_many_threads_are_never_inside_together(manager: LockManager, key: str) -> None:
    inside: list[int] = []
    together: list[list[int]] = []

    def work(number: int) -> None:
        for turn in range(10):
            holder = f"{number}-{turn}"
            assert manager.acquire_lock(key, holder)
            inside.append(number)
            together.append(list(inside))
            inside.remove(number)
            manager.release_lock(key, holder)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 60
    assert all(len(those) == 1 for those in together)


@pytest.mark.parametrize("odd", ["", "a/b/../../c", "x" * 5000, "new\nline", "ünï", "\udc80", ".", "guard-0"])
def test_any_text_is_a_key(manager: LockManager, odd: str) -> None:
    assert manager.acquire_lock(odd, "a")
    assert not manager.acquire_lock(odd, "b", acquire_timeout=0)
    manager.release_lock(odd, "a")


class OneLock:
    """A manager of the user's own, with the plain methods only."""

    def __init__(self) -> None:
        self.inner = MemoryLockManager()
        self.calls: list[str] = []

    def acquire_lock(self, key: str, holder: str, acquire_timeout: float | None = None, **_: Any) -> bool:
        self.calls.append("thread")
        return self.inner.acquire_lock(key, holder, acquire_timeout)

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, **_: Any
    ) -> bool:
        self.calls.append("loop")
        return await self.inner.aacquire_lock(key, holder, acquire_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        self.inner.release_lock(key, holder)


def test_ones_own_manager_needs_no_generators(key: str) -> None:
    own: Any = OneLock()
    assert in_thread(acquiring(own, key, "a"))
    in_thread(releasing(own, key, "a"))

    async def main() -> None:
        assert await on_loop(acquiring(own, key, "a"))
        await on_loop(releasing(own, key, "a"))

    asyncio.run(main())
    assert own.calls == ["thread", "loop"]


def test_waiting_can_be_stopped(manager: LockManager, key: str) -> None:
    own: Any = OneLock()
    assert own.inner.acquire_lock(key, "a")
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 1

    assert not in_thread(acquiring(own, key, "b", stopped))
    assert len(asked) == 2
    own.inner.release_lock(key, "a")
    assert manager.acquire_lock(key, "a")
    asked.clear()
    assert not in_thread(acquiring(manager, key, "b", stopped))
    assert len(asked) == 2
    manager.release_lock(key, "a")


# -- memory ----------------------------------------------------------------------------------------


def test_the_memory_of_a_process_is_one(key: str) -> None:
    assert MemoryLockManager() is MemoryLockManager()
    manager = MemoryLockManager()
    assert manager.acquire_lock(key, "a")
    waited = [manager.acquire_lock(key, str(number), acquire_timeout=0.001) for number in range(3)]
    assert waited == [False] * 3
    manager.release_lock(key, "a")
    assert key not in manager._held
    assert key not in manager._waiting


# -- a model of both -------------------------------------------------------------------------------


class Model(RuleBasedStateMachine):
    """What any order of calls gives, with a dict to compare with."""

    make: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.manager = type(self).make()
        self.held: dict[str, str] = {}

    keys = st.sampled_from(["model 1", "model 2"])
    holders = st.sampled_from(["a", "b", "c"])

    @rule(key=keys, holder=holders)
    def take(self, key: str, holder: str) -> None:
        free = self.held.get(key, holder) == holder
        assert self.manager.acquire_lock(key, holder, acquire_timeout=0) == free
        if free:
            self.held[key] = holder

    @rule(key=keys, holder=holders)
    def release(self, key: str, holder: str) -> None:
        if self.held.get(key) == holder:
            self.manager.release_lock(key, holder)
            del self.held[key]
        else:
            with pytest.raises(ValueError, match="No lock held"):
                self.manager.release_lock(key, holder)

    @precondition(lambda self: self.held)
    @rule()
    def release_all(self) -> None:
        for key, holder in self.held.items():
            self.manager.release_lock(key, holder)
        self.held.clear()

    @invariant()
    def agrees(self) -> None:
        for key in ("model 1", "model 2"):
            assert self.manager.is_locked(key) == (key in self.held)
            assert self.manager.wait_for_lock(key, 0) == (key not in self.held)
            for holder in "abc":
                assert self.manager.is_lock_holder(key, holder) == (self.held.get(key) == holder)

    def teardown(self) -> None:
        self.release_all()


def test_memory_is_like_the_model() -> None:
    class Memory(Model):
        make = MemoryLockManager

    Memory.TestCase.settings = settings(max_examples=30, deadline=None)
    Memory.TestCase().runTest()


def test_files_are_like_the_model(tmp_path: Path) -> None:
    class Files(Model):
        @staticmethod
        def make() -> Any:
            return FileSystemLockManager(tmp_path / "locks")

    Files.TestCase.settings = settings(max_examples=20, deadline=None)
    Files.TestCase().runTest()


# -- files and processes ---------------------------------------------------------------------------


HOLDER = """
import sys, time
from prefect_lite.locking.filesystem import FileSystemLockManager
manager = FileSystemLockManager(sys.argv[1])
assert manager.acquire_lock("k", "child", acquire_timeout=30)
print("held", flush=True)
if sys.argv[2] == "fork":
    import os
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()  # outlives its parent
        os._exit(0)
sys.stdin.read()
"""

COUNTER = """
import sys, uuid
from pathlib import Path
from prefect_lite.locking.filesystem import FileSystemLockManager
manager = FileSystemLockManager(Path(sys.argv[1]) / "locks")
counter, inside = Path(sys.argv[1]) / "counter", Path(sys.argv[1]) / "inside"
for _ in range(int(sys.argv[2])):
    holder = uuid.uuid4().hex
    assert manager.acquire_lock("k", holder, acquire_timeout=60)
    inside.mkdir()  # fails if somebody is
    counter.write_text(str(int(counter.read_text()) + 1))
    inside.rmdir()
    manager.release_lock("k", holder)
"""


def started(code: str, *args: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = started(HOLDER, tmp_path, "alone")
    assert line_of(process) == "held"
    manager = FileSystemLockManager(tmp_path)
    assert manager.is_lock_holder("k", "child")
    assert not manager.acquire_lock("k", "us", acquire_timeout=SHORT)
    process.send_signal(signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert not manager.is_locked("k")
    assert manager.acquire_lock("k", "us", acquire_timeout=0)
    manager.release_lock("k", "us")


def test_a_stopped_process_still_holds(tmp_path: Path) -> None:
    process = started(HOLDER, tmp_path, "alone")
    assert line_of(process) == "held"
    process.send_signal(signal.SIGSTOP)
    manager = FileSystemLockManager(tmp_path)
    assert not manager.acquire_lock("k", "us", acquire_timeout=SHORT)
    process.send_signal(signal.SIGCONT)
    assert ended(process) == 0
    assert manager.acquire_lock("k", "us", acquire_timeout=0)


def test_a_forked_child_does_not_keep_its_dead_parents_lock(tmp_path: Path) -> None:
    process = started(HOLDER, tmp_path, "fork")
    assert [line_of(process), line_of(process)] == ["held", "forked"]
    manager = FileSystemLockManager(tmp_path)
    assert manager.is_locked("k")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert manager.acquire_lock("k", "us", acquire_timeout=0)
    ended(process)  # closes the child's stdin, and waits until it has closed its output


def test_a_process_that_ends_leaves_no_file_of_its_own(tmp_path: Path) -> None:
    process = started(HOLDER, tmp_path, "alone")
    assert line_of(process) == "held"
    (theirs,) = (tmp_path / "processes").iterdir()
    ended(process)
    assert not theirs.exists()
    assert not FileSystemLockManager(tmp_path).is_locked("k")


def test_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    process = started(HOLDER, tmp_path, "alone")
    assert line_of(process) == "held"
    (theirs,) = (tmp_path / "processes").iterdir()
    process.kill()
    ended(process)
    assert theirs.exists()
    manager = FileSystemLockManager(tmp_path)
    assert manager.acquire_lock("k", "us")
    assert not theirs.exists()
    assert len(list((tmp_path / "processes").iterdir())) == 1
    manager.release_lock("k", "us")
    assert not list(tmp_path.glob("*.lock"))


def test_processes_are_never_inside_together(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    processes = [started(COUNTER, tmp_path, 40) for _ in range(4)]
    assert [ended(process) for process in processes] == [0] * 4
    assert (tmp_path / "counter").read_text() == "160"


def test_processes_that_are_killed_anywhere_leave_the_lock_usable(tmp_path: Path) -> None:
    """Killed again and again in the midst of taking, holding and releasing."""
    (tmp_path / "counter").write_text("0")
    inside, manager = tmp_path / "inside", FileSystemLockManager(tmp_path / "locks")
    for turn in range(6):
        before = int((tmp_path / "counter").read_text() or 0)
        process = started(COUNTER, tmp_path, 10**6)
        wait_until(lambda b=before, t=turn: int((tmp_path / "counter").read_text() or 0) > b + 3 * t)
        process.kill()
        ended(process)
        assert manager.acquire_lock("k", "us", acquire_timeout=5)
        if inside.exists():
            inside.rmdir()
        if not (tmp_path / "counter").read_text():  # killed while it wrote
            (tmp_path / "counter").write_text(str(before))
        manager.release_lock("k", "us")
    assert not manager.is_locked("k")


def test_a_crash_of_the_machine_may_leave_anything(tmp_path: Path) -> None:
    manager = FileSystemLockManager(tmp_path)
    assert manager.acquire_lock("k", "a")
    (file,) = tmp_path.glob("*.lock")
    for rubbish in (b"", b"{", b"[]", b'{"holder": "a"}', b'{"holder":"a","process":"x","expires":"soon"}'):
        file.write_bytes(rubbish)
        assert not manager.is_locked("k")
        assert manager.acquire_lock("k", "b", acquire_timeout=0)
        assert manager.is_lock_holder("k", "b")
    manager.release_lock("k", "b")


def test_notes_are_read_as_they_were_written() -> None:
    for expires in (float("inf"), 12.5):
        note = Note("holder \udc80", "p", expires)
        assert Note.unpacked(note.packed("key")) == note


def test_the_directory_is_private_and_made_when_needed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "locks"
    manager = FileSystemLockManager(folder)
    assert not manager.is_locked("k")
    assert manager.wait_for_lock("k", 0)
    assert not folder.exists()
    with pytest.raises(ValueError, match="No lock held"):
        manager.release_lock("k", "a")
    assert manager.acquire_lock("k", "a")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()} == {0o600}
    manager.release_lock("k", "a")


def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manager = FileSystemLockManager(tmp_path / "file")
    with pytest.raises(StorageError, match="Choose a directory that this account can write"):
        manager.acquire_lock("k", "a")
    assert not manager.is_locked("k")


def test_a_process_that_stands_still_in_the_midst_of_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_lite.embedded.locks import FileLock
    from prefect_lite.locking import filesystem

    manager = FileSystemLockManager(tmp_path)
    assert manager.acquire_lock("k", "a")
    monkeypatch.setattr(filesystem, "GUARD_SECONDS", SHORT)
    guards = [FileLock(tmp_path / f"guard-{number}") for number in range(filesystem.GUARDS)]
    for guard in guards:
        assert guard.try_acquire()
    assert not manager.acquire_lock("k", "a", acquire_timeout=0)
    with pytest.raises(StorageError, match="stands still"):
        manager.release_lock("k", "a")
    for guard in guards:
        guard.release()
    manager.release_lock("k", "a")


def test_managers_of_one_directory_are_equal(tmp_path: Path) -> None:
    one, same = FileSystemLockManager(tmp_path), FileSystemLockManager(str(tmp_path))
    assert one == same
    assert len({one, same}) == 1
    assert one != FileSystemLockManager(tmp_path / "other")
    assert RedisLockManager(3) == RedisLockManager(3)
    assert RedisLockManager(3) != RedisLockManager()


def test_a_process_can_be_forked_while_it_holds_locks(key: str) -> None:
    memory = MemoryLockManager()
    assert memory.acquire_lock(key, "a")
    pid = os.fork()
    if pid == 0:
        os._exit(7 if memory.acquire_lock(key, "b", acquire_timeout=0) else 8)  # nobody there to release it
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert memory.is_lock_holder(key, "a")
    memory.release_lock(key, "a")
