"""Options that are objects travel as plain data, and mean the same where they arrive."""

from __future__ import annotations

import json
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
    with pytest.raises(ConfigurationError, match="Import the module"):
        applied(Options(), {"result_serializer": {"type": "of-next-year"}})
