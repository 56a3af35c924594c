"""Which storage is meant, and storages as plain data."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_lite import result_storage
from prefect_lite.blocks import Block
from prefect_lite.client import keeping
from prefect_lite.exceptions import ConfigurationError, OptionTypeError, StorageError
from prefect_lite.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect_lite.result_storage import (
    default_local_storage,
    resolving,
    storage_from_spec,
    storage_spec,
)
from prefect_lite.settings import get_settings
from prefect_lite.testing import eager
from prefect_lite.testing import test_harness as started_harness
from prefect_lite.thread_or_loop import in_thread, on_loop


class InMemory(WritableFileSystem):
    name: str = ""

    def read_path(self, path: str) -> bytes:
        raise KeyError(path)

    def write_path(self, path: str, content: bytes) -> None:
        pass


class NoStorage(Block):
    pass


class Duck:
    def read_path(self, path: str) -> bytes:
        return b""

    def write_path(self, path: str, content: bytes) -> None:
        pass


@pytest.fixture
def harness() -> Iterator[None]:
    with started_harness():
        yield


def resolved(value: Any, **more: Any) -> Any:
    """In a thread and in a loop, which have to agree."""

    async def main() -> Any:
        return await on_loop(resolving(value, **more))

    storage = in_thread(resolving(value, **more))
    assert asyncio.run(main()) == storage
    return storage


def test_a_storage_is_taken_as_it_is() -> None:
    for storage in (InMemory(), Duck(), LocalFileSystem(basepath="/x")):
        assert resolved(storage) is storage


def test_paths_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for value, folder in {
        tmp_path / "a": tmp_path / "a",
        Path("a/b"): tmp_path / "a/b",
        "/srv/results": Path("/srv/results"),
        "results": tmp_path / "results",
        "./a/b": tmp_path / "a/b",
        "a/b/c": tmp_path / "a/b/c",
        "~/x": Path("/home/me/x"),
    }.items():
        assert resolved(value) == LocalFileSystem(basepath=str(folder))


def test_urls_are_remote_or_folders() -> None:
    assert resolved("memory://a/b") == RemoteFileSystem(basepath="memory://a/b")
    assert resolved("file:///srv/with%20space") == LocalFileSystem(basepath="/srv/with space")
    for url, said in {"s3://": "a scheme and a location", "file://srv/x": "three slashes"}.items():
        with pytest.raises(ConfigurationError, match=f"`my_option` is '{url}'.*{said}"):
            in_thread(resolving(url, "my_option"))


@pytest.mark.parametrize("value", [3, "", None, b"x", Duck, object()])
def test_what_names_no_storage_is_refused(value: Any) -> None:
    with pytest.raises(OptionTypeError, match="`result_storage` must be a path, a URL"):
        in_thread(resolving(value))


@pytest.mark.usefixtures("harness")
def test_a_saved_storage_is_found_by_its_name_and_id() -> None:
    saved = LocalFileSystem(basepath="/srv/results").save("mine")
    storage = resolved("local-file-system/mine")
    assert storage == LocalFileSystem(basepath="/srv/results")
    assert isinstance(saved, UUID)
    assert resolved(saved) == storage
    with pytest.raises(ConfigurationError, match="no saved storage has it"):
        in_thread(resolving(uuid4()))


@pytest.mark.usefixtures("harness")
def test_a_saved_name_without_a_storage_is_told() -> None:
    with pytest.raises(
        ConfigurationError, match=r"`result_storage` is 'data/results'.*write './data/results'"
    ):
        in_thread(resolving("data/results"))
    NoStorage().save("n")
    with pytest.raises(ConfigurationError, match="NoStorage, which can't hold results"):
        in_thread(resolving("nostorage/n"))


def test_a_saved_storage_is_asked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with started_harness():
        LocalFileSystem(basepath="/one").save("mine")
        assert resolved("local-file-system/mine").basepath == "/one"
        document = in_thread(keeping.load_block("local-file-system", "mine"))
        assert document is not None
        in_thread(keeping.drop_block("local-file-system", "mine"))
        assert resolved("local-file-system/mine").basepath == "/one"  # remembered
        monkeypatch.setattr(result_storage, "REMEMBERED_SECONDS", 0.0)
        with pytest.raises(ConfigurationError, match="There is no saved"):
            in_thread(resolving("local-file-system/mine"))
        monkeypatch.undo()
    with started_harness(), pytest.raises(ConfigurationError, match="There is no saved"):
        in_thread(resolving("local-file-system/mine"))  # another broker, another client


@pytest.mark.usefixtures("harness")
def test_what_this_process_saves_or_deletes_shows_at_once() -> None:
    LocalFileSystem(basepath="/one").save("mine")
    assert resolved("local-file-system/mine").basepath == "/one"
    LocalFileSystem(basepath="/two").save("mine", overwrite=True)
    assert resolved("local-file-system/mine").basepath == "/two"
    LocalFileSystem.delete("mine")
    with pytest.raises(ConfigurationError, match="There is no saved"):
        in_thread(resolving("local-file-system/mine"))


# -- the default -----------------------------------------------------------------------------------


def test_the_default_is_a_folder_of_the_home_directory(
    client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_local_storage() == LocalFileSystem(basepath=str(client_home / "storage"))
    monkeypatch.setenv("PREFECT_LITE_STORAGE_PATH", str(client_home / "else"))
    get_settings.cache_clear()  # type: ignore[attr-defined]
    assert default_local_storage() == LocalFileSystem(basepath=str(client_home / "else"))


@pytest.mark.parametrize("by", ["environment", "file", "nothing"])
def test_the_settings_are_loaded_only_if_they_can_say_something(tmp_path: Path, by: str) -> None:
    environment = {**os.environ, "PREFECT_LITE_HOME": str(tmp_path)}
    if by == "environment":
        environment["PREFECT_LITE_STORAGE_PATH"] = str(tmp_path / "else")
    elif by == "file":
        (tmp_path / "settings.env").write_text(f"PREFECT_LITE_STORAGE_PATH={tmp_path}/else\n")
    code = (
        "import sys; from prefect_lite.result_storage import default_local_storage as d;"
        "print(d().basepath, 'pydantic_settings' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    expected = f"{tmp_path}/storage False" if by == "nothing" else f"{tmp_path}/else True"
    assert done.stdout.strip() == expected


# -- as plain data ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "storage",
    [
        LocalFileSystem(basepath="/srv"),
        RemoteFileSystem(basepath="memory://a", settings={"secret": "${SECRET}", "n": [1]}),
        InMemory(name="x"),
    ],
    ids=lambda storage: type(storage).__name__,
)
def test_a_storage_is_plain_data_and_back(storage: WritableFileSystem) -> None:
    spec = storage_spec(storage)
    assert in_thread(storage_from_spec(spec)) == storage


def test_a_relative_folder_is_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "./a"):
        assert storage_spec(LocalFileSystem(basepath=folder))["fields"] == {"basepath": str(tmp_path / "a")}
    assert storage_spec(LocalFileSystem())["fields"] == {"basepath": str(tmp_path)}


@pytest.mark.usefixtures("harness")
def test_a_saved_storage_is_described_by_its_name() -> None:
    storage = LocalFileSystem(basepath="/one")
    storage.save("mine")
    assert storage_spec(storage) == {"block": "local-file-system/mine"}
    assert in_thread(storage_from_spec(storage_spec(storage))) == storage
    storage.basepath = "/two"  # what is saved is another one now
    assert storage_spec(storage)["fields"] == {"basepath": "/two"}


def test_secrets_are_not_in_a_description() -> None:
    with pytest.raises(StorageError, match=r"settings\.secret is secret"):
        storage_spec(RemoteFileSystem(basepath="s3://b", settings={"secret": "x"}))
    with pytest.raises(StorageError, match=r"basepath is secret"):
        storage_spec(RemoteFileSystem(basepath="ftp://me:password@host/x"))


def test_what_is_no_block_can_not_be_described() -> None:
    with pytest.raises(StorageError, match=r"Duck can't be found again.*WritableFileSystem"):
        storage_spec(Duck())


def test_a_description_that_does_not_fit_is_told() -> None:
    with pytest.raises(ConfigurationError, match="No class of blocks has the slug 'nope'"):
        in_thread(storage_from_spec({"type": "nope", "fields": {}}))
    with pytest.raises(ConfigurationError, match="module no_such_module"):
        in_thread(storage_from_spec({"type": "nope", "fields": {}, "module": "no_such_module"}))
    with pytest.raises(ConfigurationError, match="basepath"):
        in_thread(storage_from_spec({"type": "remote-file-system", "fields": {}}))
    with pytest.raises(ConfigurationError, match="NoStorage, which can't hold results"):
        in_thread(storage_from_spec({"type": "nostorage", "fields": {}}))


def test_saved_storages_work_in_eager_mode(client_home: Path) -> None:
    with eager():
        LocalFileSystem(basepath=str(client_home)).save("mine")
        assert resolved("local-file-system/mine") == LocalFileSystem(basepath=str(client_home))
