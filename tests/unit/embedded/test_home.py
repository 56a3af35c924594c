"""The home directory: private, made by whoever comes first, refused with one sentence."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_lite.embedded.home import (
    SOCKET_PATH_LIMIT,
    configured_tokens,
    load_or_create_keyring,
    load_or_create_tokens,
    prepare_home,
    read_record,
    runtime_directory,
    write_private,
)
from prefect_lite.exceptions import ConfigurationError, EmbeddedStartError
from prefect_lite.settings import Settings, load_settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", runtime_dir=tmp_path / "run")


def test_directories_are_private(settings: Settings) -> None:
    home = prepare_home(settings)
    assert [mode(path) for path in (home.root, home.data, home.logs)] == [0o700] * 3


def test_others_lose_the_right_to_write_to_an_existing_home(settings: Settings) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o777)
    prepare_home(settings)
    assert mode(settings.home) == 0o755


def test_a_file_in_the_way_is_told_in_one_sentence(settings: Settings) -> None:
    settings.home.write_text("")
    with pytest.raises(EmbeddedStartError, match=r"Cannot use .*home.*PREFECT_LITE_HOME"):
        prepare_home(settings)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_home_is_told_in_one_sentence(settings: Settings) -> None:
    settings.home.mkdir()
    settings.home.chmod(0o500)
    with pytest.raises(EmbeddedStartError, match="PREFECT_LITE_HOME"):
        prepare_home(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a directory away")
def test_a_home_of_somebody_else_is_refused(settings: Settings) -> None:
    settings.home.mkdir()
    os.chown(settings.home, 12345, -1)
    with pytest.raises(EmbeddedStartError, match="belongs to another user"):
        prepare_home(settings)


def test_tokens_are_made_once_and_private(settings: Settings) -> None:
    tokens = load_or_create_tokens(settings)
    assert tokens == load_or_create_tokens(settings)
    assert len(set(tokens)) == 3
    assert mode(settings.home / "tokens.json") == 0o600
    assert tokens.for_role("worker") == tokens.worker


def test_many_processes_make_the_same_secrets(settings: Settings) -> None:
    code = (
        "import sys; from prefect_lite.settings import load_settings\n"
        "from prefect_lite.embedded.home import load_or_create_keyring, load_or_create_tokens\n"
        "s = load_settings(home=sys.argv[1]); t = load_or_create_tokens(s); k = load_or_create_keyring(s)\n"
        "print(t.admin, k.signing_id, k.signing_key.hex())"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(settings.home)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {child.communicate()[0] for child in children}
    assert len(answers) == 1
    assert [path.name for path in settings.home.iterdir() if path.name.startswith(".")] == []


def test_damaged_tokens_are_told(settings: Settings) -> None:
    home = prepare_home(settings)
    home.tokens.write_text('{"client": "x"}')
    with pytest.raises(ConfigurationError, match=r"does not hold the three tokens"):
        load_or_create_tokens(settings)


def test_configured_tokens_win_for_a_broker_with_a_url(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", client_token="from settings")
    assert configured_tokens(settings) == ("from settings", "", "")
    stored = load_or_create_tokens(settings)
    assert stored.client != "from settings"
    assert configured_tokens(settings) == ("from settings", stored.worker, stored.admin)


def test_the_keyring_is_made_once_and_private(settings: Settings) -> None:
    first, second = load_or_create_keyring(settings), load_or_create_keyring(settings)
    assert first.signing_key == second.signing_key
    assert mode(settings.home / "keyring.json") == 0o600


def test_a_configured_keyring_has_to_be_there(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", keyring=str(tmp_path / "none.json"))
    with pytest.raises(ConfigurationError, match="PREFECT_LITE_KEYRING"):
        load_or_create_keyring(settings)


def test_the_runtime_directory_is_private_and_one_per_home(tmp_path: Path) -> None:
    one = runtime_directory(load_settings(home=tmp_path / "a", runtime_dir=tmp_path / "run"))
    two = runtime_directory(load_settings(home=tmp_path / "b", runtime_dir=tmp_path / "run"))
    assert one.parent == two.parent == tmp_path / "run"
    assert one != two
    assert mode(one) == 0o700


def test_a_long_socket_path_is_refused(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, runtime_dir=tmp_path / ("x" * 100))
    with pytest.raises(EmbeddedStartError, match=f"{SOCKET_PATH_LIMIT} bytes or more"):
        runtime_directory(settings)


def test_a_long_xdg_directory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.delenv("PREFECT_LITE_RUNTIME_DIR", raising=False)
    directory = runtime_directory(load_settings(home=tmp_path / "home"))
    try:
        assert directory.parent == Path(f"/tmp/prefect-lite-{os.geteuid()}")
    finally:
        directory.rmdir()


def test_a_link_in_place_of_the_runtime_directory_is_refused(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", runtime_dir=tmp_path / "run")
    directory = runtime_directory(settings)
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(EmbeddedStartError, match="not a directory of this user"):
        runtime_directory(settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a directory away")
def test_a_runtime_directory_of_somebody_else_is_refused(settings: Settings) -> None:
    os.chown(runtime_directory(settings), 12345, -1)
    with pytest.raises(EmbeddedStartError, match="not a directory of this user"):
        runtime_directory(settings)


def test_records_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_record(path) == {}
    write_private(path, json.dumps({"pid": 1}).encode())
    write_private(path, json.dumps({"pid": 2}).encode(), replace=False)
    assert read_record(path) == {"pid": 1}
    path.write_text("[1")
    assert read_record(path) == {}
    assert list(tmp_path.iterdir()) == [path]
