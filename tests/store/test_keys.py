"""Keys, scripts and the probe, without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_broker import keys
from prefect_lite_broker.probe import probe
from prefect_lite_broker.scripts import SCRIPTS
from redis.exceptions import ResponseError

from prefect_lite.exceptions import ConfigurationError

FOLDER = Path(keys.__file__).with_name("scripts")


def test_low_bits_choose_the_shard() -> None:
    assert keys.shard_of("f" * 29 + "010", 16) == 0
    assert keys.shard_of("f" * 29 + "01b", 16) == 11
    assert keys.shard_of("f" * 32, 1) == 0


def test_the_hash_of_its_key_chooses_the_shard_of_an_entry() -> None:
    """The same in every process and version, or entries and locks would be lost from sight."""
    assert [keys.shard_of_key(key, 16) for key in ("a", "b", "sum-of-é", "{x}")] == [3, 9, 6, 12]
    assert keys.shard_of_key("a", 1) == 0


def test_all_keys_of_a_shard_share_a_hash_tag() -> None:
    assert keys.prefix("demo", 3) == b"pl:{demo:3}:"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a{b", "a}b", "x" * 65])
def test_namespaces_that_would_break_the_keys(name: str) -> None:
    with pytest.raises(ConfigurationError):
        keys.check_namespace(name)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_says_what_it_takes_and_gives(name: str) -> None:
    text = (FOLDER / f"{name}.lua").read_text()
    for word in ("-- KEYS  1 prefix", "Returns", "O("):
        assert word in text
    assert "--@include" not in SCRIPTS[name].source


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_includes_what_it_uses(name: str) -> None:
    """A word that is missing would be noticed by the first call that comes to the line."""
    code = re.sub(r"--.*", "", SCRIPTS[name].source)
    for path in (FOLDER / "lib").glob("*.lua"):
        for word in re.findall(r"^local (?:function )?(\w+)", path.read_text(), re.MULTILINE):
            used = re.search(rf"(?<!function )\b{word}[(\[]", code)
            made = re.search(rf"^local (?:function )?{word}\b", code, re.MULTILINE)
            assert not used or (made and made.start() < used.start()), word


READ_ONLY = {
    *("lookup", "stats", "sessions", "why", "dead_list", "waits", "waiting", "over", "runs"),
    *("asset_list", "asset_read"),
}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_says_what_it_may_do(name: str) -> None:
    """Without such a line no script could write while memory is full, not even what makes room."""
    flags = " flags=allow-oom"
    if name in ("submit", "through", "log", "accepts", "keep_put", "block_put", "asset_record", "asset_note"):
        flags = ""
    elif name in READ_ONLY:
        flags = " flags=no-writes"
    assert SCRIPTS[name].source.startswith(f"#!lua{flags}\n")


def test_scripts_do_not_order_strings() -> None:
    """Lua compares strings in the server's locale: the same script would differ from host to host."""
    for path in FOLDER.rglob("*.lua"):
        code = re.sub(r"--.*", "", path.read_text())
        assert not re.search(r"[<>]=?\s*'|'\s*[<>]", code), path.name


def server(version: str, **config: str) -> Any:
    async def command(*words: Any) -> Any:
        if words[0] == "INFO":
            return f"# Server\r\n{version}\r\n".encode()
        value = config.get(words[2].replace("-", "_"))
        if value is None:
            raise ResponseError("unknown command 'CONFIG'")
        return [words[2].encode(), value.encode()]

    return command


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["redis_version:6.2.14", "redis_version:7.2.4\r\nvalkey_version:7.0.1"])
async def test_servers_that_are_too_old(version: str) -> None:
    with pytest.raises(ConfigurationError, match="too old"):
        await probe(server(version))


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["redis_version:7.0.0", "redis_version:7.2.4\r\nvalkey_version:8.1.0"])
async def test_servers_that_tell_nothing_about_their_settings(version: str) -> None:
    assert await probe(server(version)) == []


@pytest.mark.anyio
async def test_snapshots_alone_are_not_enough() -> None:
    config = {"maxmemory_policy": "noeviction", "appendonly": "no", "save": "3600 1"}
    (warning,) = await probe(server("redis_version:7.4.0", **config))
    assert "snapshots" in warning
