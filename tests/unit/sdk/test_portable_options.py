"""Options that are objects travel as plain data, and mean the same where they arrive."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgpack
import pytest

from prefect_lite import Task
from prefect_lite.assets import Asset, AssetProperties
from prefect_lite.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from prefect_lite.exceptions import ConfigurationError, OptionNotPortable
from prefect_lite.filesystems import LocalFileSystem
from prefect_lite.locking.memory import MemoryLockManager
from prefect_lite.options import Options, applied
from prefect_lite.serializers import CompressedJSONSerializer, JSONSerializer, PickleSerializer


def body(x: int = 0) -> int:
    return x


class OwnPolicy(CachePolicy):
    pass


def there_and_back(**changes: Any) -> Options:
    """What a worker makes of options that ``with_options`` has changed."""
    travelled = Task(body).with_options(**changes).travelling_options
    assert json.loads(json.dumps(travelled)) == travelled
    return applied(Options(), msgpack.unpackb(msgpack.packb(travelled)))


@pytest.mark.parametrize(
    "policy",
    [
        INPUTS,
        NO_CACHE,
        RUN_ID,
        TASK_SOURCE,
        FLOW_PARAMETERS,
        DEFAULT,
        INPUTS - "x",
        INPUTS + TASK_SOURCE - "x",
        INPUTS.configure(isolation_level="SERIALIZABLE"),
        (INPUTS + RUN_ID).configure(key_storage="/srv/keys"),
    ],
    ids=repr,
)
def test_policies(policy: CachePolicy) -> None:
    arrived = there_and_back(cache_policy=policy).cache_policy
    assert arrived == policy
    assert type(arrived) is type(policy)


@pytest.mark.parametrize(
    "serializer", ["json", PickleSerializer(), JSONSerializer(), CompressedJSONSerializer()]
)
def test_serializers(serializer: Any) -> None:
    assert there_and_back(result_serializer=serializer).result_serializer == serializer


def test_storages(tmp_path: Path) -> None:
    assert there_and_back(result_storage=tmp_path).result_storage == str(tmp_path)
    assert there_and_back(result_storage="local-file-system/mine").result_storage == "local-file-system/mine"
    arrived = there_and_back(result_storage=LocalFileSystem(basepath=str(tmp_path))).result_storage
    assert arrived == LocalFileSystem(basepath=str(tmp_path))


def test_assets() -> None:
    assets = [Asset(key="s3://a/b"), Asset(key="s3://a/c", properties=AssetProperties(name="c"))]
    assert there_and_back(asset_deps=assets).asset_deps == assets


@pytest.mark.parametrize(
    "changes",
    [
        {"cache_policy": OwnPolicy()},
        {"cache_policy": INPUTS + OwnPolicy()},
        {"cache_policy": INPUTS.configure(lock_manager=MemoryLockManager())},
        {"cache_policy": CachePolicy.from_cache_key_fn(lambda *_: "key")},
        {"result_serializer": object()},
        {"result_storage": object()},
    ],
    ids=["own policy", "sum with it", "lock manager", "key function", "serializer", "storage"],
)
def test_what_only_this_process_has_is_refused_at_the_call(changes: dict[str, Any]) -> None:
    with pytest.raises(OptionNotPortable, match=f"{next(iter(changes))}="):
        _ = Task(body).with_options(**changes).travelling_options


def test_what_a_worker_does_not_know_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match="not known on this worker"):
        applied(Options(), {"cache_policy": {"policy": "OfNextYear"}})
    with pytest.raises(ConfigurationError, match="must be imported first"):
        applied(Options(), {"result_serializer": {"type": "of-next-year"}})


def test_a_worker_finds_a_users_own_serializer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        from prefect_lite.serializers import Serializer
        class Shout(Serializer):
            type: str = "portable-shout"
            volume: int = 1
    """
    (tmp_path / "portable_shouting.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    serializer = importlib.import_module("portable_shouting").Shout(volume=3)
    travelled = Task(body).with_options(result_serializer=serializer).travelling_options
    program = """
        import json, sys
        from prefect_lite.options import Options, applied
        found = applied(Options(), json.loads(sys.argv[1])).result_serializer
        print(type(found).__module__, found.volume)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), json.dumps(travelled)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "portable_shouting 3\n", done.stderr
