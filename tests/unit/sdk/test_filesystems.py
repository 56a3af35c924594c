"""Storages: a folder, what fsspec knows, and classes of a user's own, plain and async."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from prefect_lite.exceptions import ConfigurationError, StorageError
from prefect_lite.filesystems import (
    LocalFileSystem,
    PathNotFound,
    RemoteFileSystem,
    WritableFileSystem,
    existing,
    reading,
    writing,
)
from prefect_lite.thread_or_loop import Waits, in_thread, on_loop


def both_ways(make: Any) -> list[Any]:
    """What a program of ``thread_or_loop`` gives in a thread and in a loop."""

    def run(drive: Any) -> Any:
        try:
            return drive(make())
        except Exception as exc:
            return type(exc), str(exc)

    async def looped(waits: Waits[Any]) -> Any:
        return await on_loop(waits)

    return [run(in_thread), run(lambda waits: asyncio.run(looped(waits)))]


@pytest.fixture
def files(tmp_path: Path) -> LocalFileSystem:
    return LocalFileSystem(basepath=str(tmp_path / "storage" / "deep"))


def test_a_folder_keeps_bytes(files: LocalFileSystem) -> None:
    assert files.write_path("a/b.txt", b"one") == f"{files.basepath}/a/b.txt"
    assert files.read_path("a/b.txt") == b"one"
    files.write_path("a/b.txt", b"two")
    assert files.read_path(f"{files.basepath}/a/b.txt") == b"two"
    assert os.listdir(f"{files.basepath}/a") == ["b.txt"]


@pytest.mark.parametrize("path", ["", "/", "memory://itself", "memory://itself/"])
def test_an_object_store_refuses_its_own_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        RemoteFileSystem(basepath="memory://itself").write_path(path, b"")


async def _async_round(files: WritableFileSystem) -> bytes:
    await files.awrite_path("c", b"three")
    return await files.aread_path("c")


def test_a_folder_keeps_bytes_for_coroutines(files: LocalFileSystem) -> None:
    assert asyncio.run(_async_round(files)) == b"three"


def test_nobody_else_can_read_what_is_written(files: LocalFileSystem, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_path("a/b", b"")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("storage", "storage/deep/a")]
    assert modes == [0o700, 0o700]
    assert stat.S_IMODE((tmp_path / "storage/deep/a/b").stat().st_mode) == 0o600


@pytest.mark.parametrize("path", ["nothing", "a", "a/file/below"])
def test_what_is_not_there_is_told(files: LocalFileSystem, path: str) -> None:
    files.write_path("a/file", b"")
    with pytest.raises(PathNotFound, match=r"does not exist|is not a file") as caught:
        files.read_path(path)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, FileNotFoundError)
    assert both_ways(lambda: existing(files, path)) == [False, False]
    assert both_ways(lambda: existing(files, "a/file")) == [True, True]


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out", "", ".", "link/out", "zero\0"])
def test_no_path_leads_out_of_the_folder(files: LocalFileSystem, tmp_path: Path, path: str) -> None:
    files.write_path("a", b"")
    (tmp_path / "storage/deep/link").symlink_to(tmp_path)
    for call in (lambda: files.read_path(path), lambda: files.write_path(path, b"")):
        with pytest.raises(ConfigurationError, match=r"outside|no path"):
            call()
    assert not (tmp_path / "out").exists()


def test_a_reader_sees_the_old_content_or_the_new(files: LocalFileSystem) -> None:
    contents = [bytes([number]) * 300_000 for number in range(4)]
    files.write_path("f", contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            files.write_path("f", contents[number % 4])
        done.set()

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while not done.is_set():
        assert files.read_path("f") in contents
    for writer in writers:
        writer.join()
    assert os.listdir(str(files.basepath)) == ["f"]


def test_trouble_of_the_disk_is_a_sentence(files: LocalFileSystem, tmp_path: Path) -> None:
    files.write_path("file", b"")
    with pytest.raises(StorageError, match=r"file/below can't be written: Not a directory"):
        files.write_path("file/below", b"")
    with pytest.raises(StorageError, match="File name too long"):
        files.write_path("x" * 300, b"")
    (tmp_path / "storage/deep/folder").mkdir()
    with pytest.raises(StorageError, match="Is a directory"):
        files.write_path("folder", b"")
    with pytest.raises(TypeError):
        files.write_path("text", "text")  # type: ignore[arg-type]
    assert sorted(os.listdir(str(files.basepath))) == ["file", "folder"]


def test_the_folder_may_be_a_path_the_home_directory_or_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LocalFileSystem(basepath=tmp_path) == LocalFileSystem(basepath=str(tmp_path))  # type: ignore[arg-type]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalFileSystem(basepath="~/x").write_path("a", b"") == str(tmp_path / "x" / "a")
    monkeypatch.chdir(tmp_path)
    assert LocalFileSystem().write_path("b", b"") == str(tmp_path / "b")
    with pytest.raises(ValueError, match="Extra inputs"):
        LocalFileSystem(base_path="typo")  # type: ignore[call-arg]


# -- through fsspec --------------------------------------------------------------------------------


def test_fsspec_keeps_bytes(tmp_path: Path) -> None:
    files = RemoteFileSystem(basepath=f"memory://{tmp_path.name}/base/")
    assert files.write_path("a/b", b"one") == f"memory://{tmp_path.name}/base/a/b"
    assert files.read_path("a/b") == files.read_path(f"memory://{tmp_path.name}/base/a/b") == b"one"
    assert asyncio.run(_async_round(files)) == b"three"
    assert both_ways(lambda: existing(files, "a/b")) == [True, True]
    assert both_ways(lambda: existing(files, "a/c")) == [False, False]
    with pytest.raises(PathNotFound):
        files.read_path("nothing")


def test_folders_are_made_where_a_file_system_has_them(tmp_path: Path) -> None:
    files = RemoteFileSystem(basepath=f"local://{tmp_path}/base")
    files.write_path("a/b", b"one")
    assert (tmp_path / "base/a/b").read_bytes() == b"one"


@pytest.mark.parametrize("path", ["../a", "memory://other/a", "a/../../b"])
def test_no_path_leads_out_of_the_base_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match="out"):
        RemoteFileSystem(basepath="memory://base").write_path(path, b"")


@pytest.mark.parametrize(
    ("url", "said"),
    [("folder", "begin with a scheme"), ("memory://", "needs a location"), ("file:///a", "LocalFileSystem")],
)
def test_a_base_path_is_a_url_with_a_location(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RemoteFileSystem(basepath=url)


def test_a_missing_package_is_named_with_the_command() -> None:
    with pytest.raises(StorageError, match="pip install fsspec s3fs"):
        RemoteFileSystem(basepath="s3://bucket/a").read_path("a")
    with pytest.raises(ConfigurationError, match="Protocol not known: zz"):
        RemoteFileSystem(basepath="zz://bucket/a").read_path("a")


def test_without_fsspec_the_command_is_named(tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["fsspec"] = None
        from prefect_lite.filesystems import RemoteFileSystem
        try:
            RemoteFileSystem(basepath="gs://bucket").write_path("a", b"")
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert (
        done.stdout.strip() == "StorageError gs://bucket needs the package fsspec: pip install fsspec gcsfs"
    )


def test_settings_may_name_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RemoteFileSystem(
        basepath=f"dir://{tmp_path}",
        settings={"path": "${PL_TEST_FOLDER}", "target_protocol": "file", "target_options": {"a": ["${X}"]}},
    )
    with pytest.raises(StorageError, match="has no PL_TEST_FOLDER"):
        files.read_path("a")
    monkeypatch.setenv("PL_TEST_FOLDER", str(tmp_path))
    monkeypatch.setenv("X", "x")
    assert files.filesystem.path == str(tmp_path)
    assert files.settings["path"] == "${PL_TEST_FOLDER}"


# -- of one's own ----------------------------------------------------------------------------------


class Plain(WritableFileSystem):
    kept: dict[str, bytes] = Field(default_factory=dict[str, bytes])

    def read_path(self, path: str) -> bytes:
        return self.kept[path]

    def write_path(self, path: str, content: bytes) -> str:
        self.kept[path] = content
        return path


class Async(Plain):
    async def read_path(self, path: str) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.kept[path]

    async def write_path(self, path: str, content: bytes) -> str:  # type: ignore[override]
        await asyncio.sleep(0)
        self.kept[path] = content
        return path


class Twins(Plain):
    """Says which of the two forms was called."""

    def read_path(self, path: str) -> bytes:
        return b"in a thread"

    async def aread_path(self, path: str) -> bytes:
        return b"on a loop"


class Dispatching(Plain):
    """A plain method that returns something to await."""

    def read_path(self, path: str) -> Any:
        async def read() -> bytes:
            return self.kept[path]

        return read()


class Silent(Plain):
    def read_path(self, path: str) -> Any:
        return self.kept.get(path)


class Broken(Plain):
    def read_path(self, path: str) -> bytes:
        raise RuntimeError("no answer")

    def write_path(self, path: str, content: bytes) -> str:
        raise OSError("no room")


class Duck:
    def read_path(self, path: str) -> bytes:
        return path.encode()

    async def write_path(self, path: str, content: bytes) -> str:
        return f"{path} {content!r}"


@pytest.mark.parametrize("kind", [Plain, Async, Dispatching, Silent])
def test_storages_of_ones_own_are_read_and_written(kind: type[Plain]) -> None:
    storage = kind()
    assert both_ways(lambda: writing(storage, "a", b"one")) == ["a", "a"]
    assert both_ways(lambda: reading(storage, "a")) == [b"one", b"one"]
    assert [answer[0] for answer in both_ways(lambda: reading(storage, "b"))] == [PathNotFound] * 2
    assert both_ways(lambda: existing(storage, "b")) == [False, False]
    assert asyncio.run(_async_round(storage)) == b"three"


def test_a_twin_for_coroutines_is_used_there() -> None:
    assert both_ways(lambda: reading(Twins(), "a")) == [b"in a thread", b"on a loop"]


def test_plain_methods_do_not_block_the_loop() -> None:
    released = threading.Event()

    class Waiting(Plain):
        def read_path(self, path: str) -> bytes:
            assert released.wait(30)
            return b"read"

    async def main() -> bytes:
        task = asyncio.ensure_future(on_loop(reading(Waiting(), "a")))
        await asyncio.sleep(0)
        released.set()
        return await task

    assert asyncio.run(main()) == b"read"


def test_what_has_the_methods_is_enough() -> None:
    assert both_ways(lambda: reading(Duck(), "a")) == [b"a", b"a"]
    assert both_ways(lambda: writing(Duck(), "a", b"b")) == ["a b'b'", "a b'b'"]


def test_errors_of_storages_of_ones_own_are_named() -> None:
    read = both_ways(lambda: reading(Broken(), "a"))
    assert read == [(StorageError, "Broken could not read 'a': RuntimeError: no answer.")] * 2
    written = both_ways(lambda: writing(Broken(), "a", b""))
    assert written == [(StorageError, "Broken could not write 'a': OSError: no room.")] * 2


def test_a_storage_without_its_methods_can_not_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        WritableFileSystem()  # type: ignore[abstract]
