"""Results of background runs that are too long for Redis: in a storage, with a signed reference."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import allow_failure, task
from prefect_lite.client.runtime import get_runtime
from prefect_lite.exceptions import (
    MissingResult,
    PayloadTooLarge,
    ResultDamaged,
    UpstreamFailedRun,
)
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.settings import get_settings
from prefect_lite.stored_results import FOLDER
from prefect_lite.testing import Harness, test_harness

INLINE = 10_000
HARNESS_SETTINGS = {"inline_result_bytes": INLINE}


@task
def many(count: int) -> bytes:
    return b"x" * count


@task
async def many_async(count: int) -> list[int]:
    return [1] * count


@task
def length(value: Any) -> int:
    return len(value)


@task
async def length_async(value: Any) -> int:
    return len(value)


@task
def fails(count: int) -> None:
    raise ValueError("y" * count)


def files() -> list[Path]:
    folder = get_settings().home / "storage" / FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def fresh(future: PrefectDistributedFuture[Any]) -> PrefectDistributedFuture[Any]:
    """The same as another process that has its id would see it."""
    return PrefectDistributedFuture(future.task_run_id)


def test_short_results_stay_in_redis(harness: Harness) -> None:
    assert many.delay(INLINE // 2).result(timeout=10) == b"x" * (INLINE // 2)
    assert not files()


def test_a_long_result_is_in_a_file_and_everybody_gets_it(harness: Harness) -> None:
    futures = [many.delay(INLINE * 2), many_async.delay(INLINE * 2)]
    values = [b"x" * INLINE * 2, [1] * INLINE * 2]
    assert [future.result(timeout=10) for future in futures] == values
    assert [fresh(future).result(timeout=10) for future in futures] == values
    assert [fresh(future).state.result() for future in futures] == values
    assert asyncio.run(fresh(futures[0]).result_async(timeout=10)) == values[0]
    assert {path.name for path in files()} == {future.task_run_id.hex for future in futures}
    stored = sum(path.stat().st_size for path in files())
    assert stored >= INLINE * 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in files())


@pytest.mark.parametrize("takes", [length, length_async], ids=["function", "coroutine"])
def test_a_run_that_waits_for_it_gets_it_too(harness: Harness, takes: Any) -> None:
    assert takes.delay(many.delay(INLINE * 3)).result(timeout=10) == INLINE * 3


def test_long_exceptions_stay_with_the_run(harness: Harness) -> None:
    with pytest.raises(ValueError, match="yyy"):
        fails.delay(INLINE * 2).result(timeout=10)
    assert not files()


def test_a_missing_file_is_said_to_be_missing(harness: Harness) -> None:
    future = many.delay(INLINE * 2)
    future.wait()
    (path,) = files()
    path.unlink()
    with pytest.raises(MissingResult, match=f"{future.task_run_id}.*{path.name}"):
        fresh(future).result(timeout=10)
    assert future.state.is_completed()
    with pytest.raises(Exception, match="can't be used here") as raised:
        length.delay(future).result(timeout=10)
    assert not isinstance(raised.value, UpstreamFailedRun)
    assert length.delay(allow_failure(fails.delay(1))).state is not None


@pytest.mark.parametrize("damage", ["cut", "changed", "another run's"])
def test_a_damaged_file_is_refused_before_anything_is_decoded(harness: Harness, damage: str) -> None:
    future, other = many.delay(INLINE * 2), many.delay(INLINE * 2)
    assert other.result(timeout=10)
    future.wait()
    path = get_settings().home / "storage" / FOLDER / future.task_run_id.hex
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "changed":
        path.write_bytes(content.replace(b"xxxx", b"yyyy"))
    else:
        path.write_bytes((path.parent / other.task_run_id.hex).read_bytes())
    with pytest.raises(ResultDamaged, match=str(future.task_run_id)):
        fresh(future).result(timeout=10)


def test_a_task_says_where(harness: Harness, tmp_path: Path) -> None:
    elsewhere = many.with_options(result_storage=str(tmp_path), persist_result=False)
    assert elsewhere.delay(INLINE * 2).result(timeout=10) == b"x" * INLINE * 2
    assert not files()
    assert [path.parent.name for path in tmp_path.rglob("*") if path.is_file()] == [FOLDER]


def test_longer_than_any_broker_takes() -> None:
    with test_harness(max_payload_bytes=100_000) as _:
        assert len(many.delay(300_000).result(timeout=10)) == 300_000
        assert length.delay(many.delay(300_000)).result(timeout=10) == 300_000


def test_without_a_storage_the_old_limit_holds(tmp_path: Path) -> None:
    unreachable = tmp_path / "file"
    unreachable.write_text("")
    with test_harness(max_payload_bytes=100_000, result_storage=str(unreachable / "below")) as _:
        assert get_runtime() is not None
        with pytest.raises(Exception, match=r"300,\d\d\d bytes and can't be stored") as raised:
            many.delay(300_000).result(timeout=10)
        assert not isinstance(raised.value, PayloadTooLarge)
        assert len(many.delay(50_000).result(timeout=10)) == 50_000
