"""Blocks that a real broker keeps by name, signed."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pydantic
import pytest
from pydantic import Field, SecretStr

from prefect_lite import block_documents
from prefect_lite.block_names import block_id
from prefect_lite.blocks import Block, block_class
from prefect_lite.cli import blocks as commands
from prefect_lite.client import keeping
from prefect_lite.exceptions import ConfigurationError, EnvelopeRejected
from prefect_lite.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect_lite.keyring import Keyring
from prefect_lite.testing import test_harness as started_harness
from prefect_lite.thread_or_loop import in_thread


class Connection(Block):
    """Of a user."""

    host: str
    port: int = 1
    storage: WritableFileSystem | None = None
    password: SecretStr = Field(default_factory=lambda: SecretStr("from the environment"), exclude=True)


class Named(Block):
    _block_type_name = "My own Thing!"


class Slugged(Block):
    _block_type_slug = "own-slug"


class Login(Block):
    password: SecretStr


class Older(Block):
    _block_type_slug = "test-changed"
    kept: int = 1
    gone: int = 2


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with started_harness():
        yield


@pytest.fixture(autouse=True)
def nothing_saved(harness: None) -> Iterator[None]:
    yield
    for slug, name in in_thread(keeping.list_blocks()):
        in_thread(keeping.drop_block(slug, name))


def test_a_block_is_saved_and_loaded_by_its_name() -> None:
    block = LocalFileSystem(basepath="/srv/results")
    saved = block.save("mine-1")
    for loaded in (LocalFileSystem.load("mine-1"), Block.load("local-file-system/mine-1")):
        assert loaded == block
        assert type(loaded) is LocalFileSystem
        assert loaded._block_document_name == "mine-1"
        assert loaded._block_document_id == saved == block_id("local-file-system", "mine-1")
    assert isinstance(saved, UUID)
    assert WritableFileSystem.load("local-file-system/mine-1") == block


def test_the_same_for_coroutines() -> None:
    async def main() -> None:
        block = LocalFileSystem(basepath="/srv/results")
        await block.asave("mine")
        assert await LocalFileSystem.aload("mine") == block
        await LocalFileSystem.adelete("mine")
        with pytest.raises(ConfigurationError, match="There is no saved local-file-system/mine"):
            await LocalFileSystem.aload("mine")

    asyncio.run(main())


def test_a_name_that_is_taken_is_not_replaced_unless_asked() -> None:
    saved = LocalFileSystem(basepath="/one").save("mine")
    with pytest.raises(ValueError, match=r"local-file-system/mine already.*overwrite=True"):
        LocalFileSystem(basepath="/two").save("mine")
    assert LocalFileSystem.load("mine").basepath == "/one"
    assert LocalFileSystem(basepath="/two").save("mine", overwrite=True) == saved
    assert LocalFileSystem.load("mine").basepath == "/two"


def test_a_saved_block_needs_no_name_to_be_saved_again() -> None:
    with pytest.raises(ConfigurationError, match="needs a name"):
        LocalFileSystem(basepath="/one").save()
    LocalFileSystem(basepath="/one").save("mine")
    block = LocalFileSystem.load("mine")
    block.basepath = "/two"
    block.save(overwrite=True)
    assert LocalFileSystem.load("mine").basepath == "/two"


@pytest.mark.parametrize("name", ["My Storage", "my_storage", "a.b", "a/b", "ä", "", "a" * 129])
def test_names_are_lower_case_letters_digits_and_dashes(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters, digits and dashes"):
        LocalFileSystem().save(name)


@pytest.mark.parametrize("name", ["-a", "a-", "1", "a" * 128])
def test_such_names_are_fine(name: str) -> None:
    LocalFileSystem(basepath="/x").save(name)
    assert LocalFileSystem.load(name).basepath == "/x"


def test_what_is_not_saved_is_told_with_what_is_like_it() -> None:
    with pytest.raises(ValueError, match="Nothing is saved yet"):
        LocalFileSystem.load("mine")
    LocalFileSystem(basepath="/x").save("my-storage")
    for call in (LocalFileSystem.load, LocalFileSystem.delete):
        with pytest.raises(ValueError, match=r"no saved local-file-system/my-storag\. .*/my-storage"):
            call("my-storag")
    with pytest.raises(ValueError, match="give the kind too"):
        Block.load("my-storage")
    with pytest.raises(ValueError, match="is a LocalFileSystem, which is no RemoteFileSystem"):
        RemoteFileSystem.load("local-file-system/my-storage")


def test_a_deleted_block_is_gone() -> None:
    LocalFileSystem(basepath="/x").save("mine")
    LocalFileSystem.delete("mine")
    with pytest.raises(ValueError, match="There is no saved local-file-system/mine"):
        LocalFileSystem.delete("mine")


def test_slugs_come_from_the_class() -> None:
    slugs = [kind.get_block_type_slug() for kind in (Connection, Named, Slugged, RemoteFileSystem)]
    assert slugs == ["connection", "my-own-thing", "own-slug", "remote-file-system"]
    assert Named.get_block_type_name() == "My own Thing!"
    assert block_class("own-slug") is Slugged
    with pytest.raises(ConfigurationError, match=r"slug 'nope'; known are .*local-file-system"):
        block_class("nope")


def test_blocks_in_fields_keep_their_class() -> None:
    block = Connection(host="here", storage=LocalFileSystem(basepath="/x"))
    block.save("c")
    assert Connection.load("c") == block
    assert "block_type_slug" not in json.dumps(block.model_dump(mode="json"))


def test_secrets_are_not_saved() -> None:
    Connection(host="h", password=SecretStr("hidden")).save("c")
    document = in_thread(keeping.load_block("connection", "c"))
    assert document is not None
    assert b"hidden" not in document
    assert Connection.load("c").password.get_secret_value() == "from the environment"
    with pytest.raises(ConfigurationError, match=r"Login\.password is secret.*exclude=True"):
        Login(password=SecretStr("x")).save("l")


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"secret": "x"}, "settings.secret"),
        ({"client_kwargs": {"aws_session_token": "x"}}, "settings.client_kwargs.aws_session_token"),
        ({"hosts": ["ftp://me:pw@host"]}, "settings.hosts.0"),
    ],
)
def test_secrets_in_the_settings_of_a_storage_are_not_saved(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"RemoteFileSystem\.{where} is secret.*\$\{{NAME\}}"):
        RemoteFileSystem(basepath="s3://b", settings=settings).save("s")
    RemoteFileSystem(basepath="s3://b", settings={"secret": "${SECRET}", "key": "id"}).save("s")
    assert RemoteFileSystem.load("s").settings == {"secret": "${SECRET}", "key": "id"}


def test_fields_that_are_no_json_are_refused() -> None:
    class Strange(Block):
        anything: Any = None

    with pytest.raises(ConfigurationError, match="A Strange can't be saved"):
        Strange(anything=object()).save("s")


def test_a_class_may_lose_fields_but_not_change_them(caplog: pytest.LogCaptureFixture) -> None:
    Older(kept=5).save("o")

    class Newer(Block):
        _block_type_slug = "test-changed"
        kept: int = 1

    with caplog.at_level(logging.WARNING, "prefect_lite.blocks"):
        assert Newer.load("o").kept == 5
    assert "no longer has: gone" in caplog.text

    class Other(Block):
        _block_type_slug = "test-changed"
        needed: int

    with pytest.raises(ConfigurationError, match=r"does not fit the class Other.*needed.*overwrite=True"):
        Other.load("o")


# -- signatures ------------------------------------------------------------------------------------


def stored(slug: str = "local-file-system", name: str = "mine") -> dict[str, Any]:
    document = in_thread(keeping.load_block(slug, name))
    assert document is not None
    return json.loads(document)


def put(document: Any, slug: str = "local-file-system", name: str = "mine") -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    assert in_thread(keeping.save_block(slug, name, data, overwrite=True))


def test_an_altered_block_is_refused_before_it_is_looked_at() -> None:
    LocalFileSystem(basepath="/one").save("mine")
    document = stored()
    put({**document, "body": document["body"].replace("/one", "/two")})
    with pytest.raises(EnvelopeRejected, match="does not match its signature"):
        LocalFileSystem.load("mine")
    put({**document, "body": "no JSON at all"})
    with pytest.raises(EnvelopeRejected, match="does not match its signature"):
        LocalFileSystem.load("mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "", "mac": ""}, "not signed"),
        ({"key": "other"}, "unknown key 'other'"),
        ({"mac": ""}, "does not match"),
        ({"version": 2}, "version 2"),
        ({"body": None}, "damaged"),
    ],
)
def test_an_unsigned_or_strange_block_is_refused(change: dict[str, Any], said: str) -> None:
    LocalFileSystem(basepath="/one").save("mine")
    put({**stored(), **change})
    with pytest.raises(EnvelopeRejected, match=f"saved local-file-system/mine .*{said}"):
        LocalFileSystem.load("mine")


@pytest.mark.parametrize("data", [b"\xff", b"[]", b"{}", b"1"])
def test_a_damaged_block_is_refused(data: bytes) -> None:
    put(data)
    with pytest.raises(EnvelopeRejected, match="damaged"):
        LocalFileSystem.load("mine")


def test_a_block_can_not_be_moved_to_another_name_or_kind() -> None:
    LocalFileSystem(basepath="/one").save("mine")
    put(stored(), name="other")
    put(stored(), slug="connection")
    for call in (lambda: LocalFileSystem.load("other"), lambda: Connection.load("mine")):
        with pytest.raises(EnvelopeRejected, match="saved under another name"):
            call()


def test_keys_that_only_verify_are_enough_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Keyring([("old", b"a" * 32)]), [("new", b"b" * 32)]
    monkeypatch.setattr(block_documents, "_keys", lambda: (old, "default"))
    document = block_documents.sealed(LocalFileSystem(basepath="/one"), "local-file-system", "mine")
    monkeypatch.setattr(block_documents, "_keys", lambda: (Keyring([*new, ("old", b"a" * 32)]), "default"))
    opened = block_documents.opened(document, "local-file-system", "mine")
    assert opened == ("prefect_lite.filesystems", {"basepath": "/one"})
    monkeypatch.setattr(block_documents, "_keys", lambda: (Keyring(new), "default"))
    with pytest.raises(EnvelopeRejected, match="unknown key 'old'"):
        block_documents.opened(document, "local-file-system", "mine")


def test_another_process_finds_the_class_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own_block.py").write_text(
        "from prefect_lite.blocks import Block\nclass OwnBlock(Block):\n    value: int\n"
    )
    saving = "from own_block import OwnBlock; OwnBlock(value=7).save('it')"
    loading = "from prefect_lite.blocks import Block; print(repr(Block.load('ownblock/it')))"
    for code in (saving, loading):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    assert done.stdout.strip() == "OwnBlock(value=7)"
    with pytest.raises(ConfigurationError, match=r"own_block.* can't be imported"):
        Block.load("ownblock/it")


# -- the command line ------------------------------------------------------------------------------


def test_the_command_line_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.list_saved(as_json=False) == 0
    assert capsys.readouterr().out == "No blocks are saved.\n"
    saved = LocalFileSystem(basepath="/srv").save("mine")
    Connection(host="h").save("a")
    commands.list_saved(as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["block", "connection/a", "local-file-system/mine"]
    assert lines[2][1] == str(saved)
    commands.list_saved(as_json=True)
    assert json.loads(capsys.readouterr().out)[1] == {
        "slug": "local-file-system",
        "name": "mine",
        "id": str(saved),
    }
    assert commands.show_saved("local-file-system/mine", as_json=False) == 0
    shown = capsys.readouterr().out
    assert "local-file-system/mine" in shown
    assert 'basepath  "/srv"' in shown
    commands.show_saved("local-file-system/mine", as_json=True)
    assert json.loads(capsys.readouterr().out)["fields"] == {"basepath": "/srv"}


def test_the_command_line_deletes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalFileSystem(basepath="/srv").save("mine")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ConfigurationError, match="--yes"):
        commands.delete_saved("local-file-system/mine", yes=False)
    assert commands.delete_saved("local-file-system/mine", yes=True) == 0
    assert "Deleted: local-file-system/mine." in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="There is no saved"):
        commands.delete_saved("local-file-system/mine", yes=True)
    with pytest.raises(ConfigurationError, match="slug/name"):
        commands.show_saved("mine", as_json=False)


def test_a_damaged_block_is_not_shown() -> None:
    put({"version": 1, "key": "", "mac": "", "body": json.dumps({"module": "x", "fields": {}})})
    with pytest.raises(EnvelopeRejected, match="not signed"):
        commands.show_saved("local-file-system/mine", as_json=False)


def test_blocks_are_validated_as_models() -> None:
    with pytest.raises(pydantic.ValidationError):
        Connection(host="h", port="no number")  # type: ignore[arg-type]
    assert Connection.model_validate({"host": "h", "storage": {"block_type_slug": "local-file-system"}}) == (
        Connection(host="h", storage=LocalFileSystem())
    )
    with pytest.raises(pydantic.ValidationError, match="Slugged is no LocalFileSystem"):
        LocalFileSystem.model_validate({"block_type_slug": "own-slug"})
