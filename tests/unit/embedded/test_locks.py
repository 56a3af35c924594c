"""File locks: exclusive, handed to children, told by their state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prefect_lite.embedded.locks import FileLock, LockTimeout, is_locked, owner_of


def test_only_one_holder(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    assert first.held
    assert not second.held
    first.release()
    assert second.try_acquire()
    second.release()


def test_waiting_ends_with_a_timeout(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path), pytest.raises(LockTimeout, match="locked by another process"):
        FileLock(path).acquire(0.03)
    assert not is_locked(path)


def test_the_state_is_told_without_taking_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with FileLock(path):
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)


def test_an_owner_is_known_while_it_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire(1)
    assert owner_of(path) == {}
    lock.write_owner({"pid": 12345, "version": "a long one"})
    lock.write_owner({"pid": 7})
    assert owner_of(path) == {"pid": 7}
    lock.release()
    assert owner_of(path) is None


def test_a_lock_handed_over_lives_as_long_as_the_child(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire(1)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.fileno(),)
    )
    lock.hand_over()
    assert not lock.held
    assert is_locked(path)
    child.communicate(b"\n")
    assert not is_locked(path)


def test_release_frees_the_lock_even_if_a_child_has_the_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire(1)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.fileno(),)
    )
    lock.release()
    assert not is_locked(path)
    child.communicate(b"\n")
