"""Assets: their keys, tasks that make them, and what is recorded of runs in this process."""

from __future__ import annotations

import ast
import asyncio
import copy
import dataclasses
import datetime
import json
import logging
import pickle
import re
import threading
import uuid
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import allow_failure, flow, task
from prefect_lite.assets import (
    Asset,
    AssetProperties,
    AssetRecord,
    Materialization,
    add_asset_metadata,
    alist_assets,
    aread_asset,
    lineage,
    list_assets,
    materialize,
    read_asset,
    tracking,
)
from prefect_lite.client import runtime
from prefect_lite.client.runtime import close_runtime, install_runtime
from prefect_lite.exceptions import (
    BrokerUnreachable,
    ConfigurationError,
    MissingContextError,
    ObjectNotFound,
    OptionTypeError,
)
from prefect_lite.runs import TaskRun
from prefect_lite.states import Cancelled, Completed
from prefect_lite.task_runners import ThreadPoolTaskRunner
from prefect_lite.tasks import MaterializingTask, Task
from prefect_lite.testing import eager

A, B, C, D = "s3://a", "s3://b", "s3://c", "s3://d"


@pytest.fixture
def recorder() -> Iterator[None]:
    """Something that records assets, and nothing of before."""
    lineage.forget_all()
    tracking.forget_trouble()
    with eager():
        yield
    lineage.forget_all()


def latest(key: str) -> Materialization:
    (found, *_) = read_asset(key).materializations
    return found


def known() -> list[str]:
    return [asset.key for asset in list_assets()]


# -- assets -------------------------------------------------------------------------------------------


GOOD = [
    "s3://bucket/table", "s3://", "s3:///a", "1db://x", "s3://a-b_c.d~e", "s3://UPPER/Case", "s3://ä/☃", "s3://a*b",
    "s3://a@b:80/c", "s3://a,b;c", "s3://a(b)!$+", "s3://" + "x" * 507,
]  # fmt: skip
BAD = [
    "", "x", "s3:/x", "s3//x", "S3://x", "my-db://x", "my_db://x", "my+db://x", "://x", " s3://a", "s3://a b",
    "s3://a\n",
    "s3://a\tb", "s3://a?b", "s3://a#b", "s3://a%20", "s3://a&b", "s3://a'b", 's3://a"b', "s3://a<b", "s3://a>b",
    "s3://a[b", "s3://a]b", "s3://a{b", "s3://a}b", "s3://a|b", "s3://a\\b", "s3://a^b", "s3://a`b", "s3://a\x00b",
    "s3://a\x1bb", "s3://a\u00a0b", "s3://\ud800", "s3://" + "x" * 508,
]  # fmt: skip


@pytest.mark.parametrize("key", GOOD)
def test_a_key_is_a_uri(key: str) -> None:
    assert Asset(key=key).key == key
    assert str(Asset(key=key)) == key


@pytest.mark.parametrize("key", BAD)
def test_other_texts_are_no_keys(key: str) -> None:
    with pytest.raises(ConfigurationError, match="asset key"):
        Asset(key=key)


@pytest.mark.parametrize("key", [None, 5, b"s3://a", Path("s3")])
def test_a_key_is_a_text(key: Any) -> None:
    with pytest.raises(OptionTypeError, match="key of an asset must be a string"):
        Asset(key=key)


def test_assets_are_values() -> None:
    plain, named = Asset(key=A), Asset(key=A, properties=AssetProperties(name="n", owners=["x"]))
    assert plain == Asset(key=A)
    assert plain != named
    assert hash(plain) == hash(named)
    assert {plain, named, Asset(key=A)} == {plain, named}
    assert pickle.loads(pickle.dumps(named)) == copy.deepcopy(named) == named
    assert repr(plain) == "Asset(key='s3://a', properties=None)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.key = B  # type: ignore[misc]
    with pytest.raises(TypeError):
        Asset(A)  # type: ignore[misc]


def test_properties() -> None:
    given = {"name": "n", "url": "http://u", "description": "d", "owners": ("x", "y")}
    properties = AssetProperties(**given)  # type: ignore[arg-type]
    assert properties.owners == ["x", "y"]
    assert Asset(key=A, properties={**given, "more": 1}).properties == properties  # type: ignore[arg-type]
    assert AssetProperties(description="d" * 2_500)
    with pytest.raises(ConfigurationError, match="2,501 characters"):
        AssetProperties(description="d" * 2_501)


@pytest.mark.parametrize(
    "given", [{"name": 5}, {"url": 5}, {"description": 5}, {"owners": "x"}, {"owners": [1]}]
)
def test_properties_of_a_wrong_type(given: dict[str, Any]) -> None:
    with pytest.raises(OptionTypeError, match="must be a"):
        AssetProperties(**given)


def test_properties_are_properties() -> None:
    with pytest.raises(OptionTypeError, match="must be AssetProperties"):
        Asset(key=A, properties=5)  # type: ignore[arg-type]


# -- tasks --------------------------------------------------------------------------------------------


def function(x: int = 1) -> int:
    """Of the function."""
    return x


@materialize(A, by="dbt")
def makes(x: int = 1) -> int:
    return x


def test_a_decorated_function_is_a_task_that_makes_assets() -> None:
    made = materialize(A, Asset(key=B), by="dbt", name="m", retries=2)(function)
    assert isinstance(made, MaterializingTask)
    assert isinstance(made, Task)
    assert (made.assets, made.materialized_by) == ([Asset(key=A), Asset(key=B)], "dbt")
    assert (made.name, made.retries, made.fn, made.description) == ("m", 2, function, "Of the function.")
    assert MaterializingTask(function, assets=[A]).assets == [Asset(key=A)]
    assert not hasattr(task(function), "assets")


def test_there_has_to_be_an_asset() -> None:
    with pytest.raises(TypeError, match="requires at least one asset"):
        materialize()
    with pytest.raises(TypeError, match="assets"):
        MaterializingTask(function)  # type: ignore[call-arg]


@pytest.mark.parametrize("asset", [function, 5, [A], None])
def test_what_is_no_asset(asset: Any) -> None:
    with pytest.raises(OptionTypeError, match="Give an Asset"):
        materialize(asset)(function)


@pytest.mark.parametrize("assets", [A, 5, None, Asset(key=A)])
def test_assets_are_a_list(assets: Any) -> None:
    with pytest.raises(OptionTypeError, match="`assets` must be a list of assets"):
        MaterializingTask(function, assets=assets)


def test_the_tool_is_a_name() -> None:
    with pytest.raises(OptionTypeError, match="`materialized_by` must be a string"):
        materialize(A, by=5)(function)  # type: ignore[arg-type]


def test_options_are_checked() -> None:
    with pytest.raises(OptionTypeError, match="retrys"):
        materialize(A, retrys=2)(function)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="not a valid URI"):
        materialize("nothing")(function)


def test_with_options_forgets_nothing() -> None:
    made = materialize(A, by="dbt", retries=2, asset_deps=[C])(function)

    def shown(changed: MaterializingTask[..., Any]) -> Any:
        keys = [asset.key for asset in changed.assets], [asset.key for asset in changed.asset_deps or ()]
        return (*keys, changed.materialized_by, changed.retries)

    assert shown(made) == shown(made.with_options()) == ([A], [C], "dbt", 2)
    assert shown(made.with_options([B])) == shown(made.with_options(assets=[B])) == ([B], [C], "dbt", 2)
    assert shown(made.with_options(assets=[])) == ([], [C], "dbt", 2)
    assert shown(made.with_options(retries=3)) == ([A], [C], "dbt", 3)
    assert shown(made.with_options(asset_deps=[Asset(key=D)])) == ([A], [D], "dbt", 2)
    assert shown(made.with_options(materialized_by="spark").with_options(assets=[B])) == (
        [B],
        [C],
        "spark",
        2,
    )
    assert shown(made) == ([A], [C], "dbt", 2)
    assert type(made.with_options(retries=3)) is MaterializingTask
    with pytest.raises(TypeError, match="assets"):
        task(function).with_options(assets=[A])  # type: ignore[call-arg]


def test_changed_tasks_can_be_pickled() -> None:
    changed = makes.with_options(assets=[Asset(key=B, properties=AssetProperties(name="n"))], retries=1)
    again = pickle.loads(pickle.dumps(changed))
    assert (again.assets, again.materialized_by, again.retries) == (changed.assets, "dbt", 1)
    assert pickle.loads(pickle.dumps(makes)) is makes


@pytest.mark.parametrize("given", [[A], (A,), [Asset(key=A)]])
def test_dependencies_are_assets(given: Any) -> None:
    assert task(asset_deps=given)(function).asset_deps == [Asset(key=A)]


def test_dependencies_have_keys() -> None:
    with pytest.raises(ConfigurationError, match="not a valid URI"):
        task(asset_deps=["x"])(function)


# -- runs in this process -----------------------------------------------------------------------------


@pytest.mark.usefixtures("recorder")
def test_what_a_run_has_made_is_recorded() -> None:
    named = Asset(key=B, properties=AssetProperties(name="N", owners=["x"]))

    @materialize(A, named, by="dbt", task_run_name="run-{x}", asset_deps=[C])
    def make(x: int) -> int:
        add_asset_metadata(A, {"rows": 5})
        return x

    @flow(name="nightly")
    def around() -> Any:
        state = make(1, return_state=True)
        return state.state_details

    details = around()
    assert known() == [A, B, C]
    found = latest(A)
    assert found.run_id == details.task_run_id
    assert (found.flow_run_id, found.flow_name) == (details.flow_run_id, "nightly")
    assert (found.task_key, found.task_name, found.run_name) == (make.key, "make", "run-1")
    assert (found.succeeded, found.materialized_by, found.upstream) == (True, "dbt", [C])
    assert (found.metadata, latest(B).metadata) == ({"rows": 5}, {})
    assert abs(found.time - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
    record = read_asset(named)
    assert (record.properties, record.count, record.last_made) == (named.properties, 1, latest(B).time)
    assert record.last_failed is None
    read = read_asset(C)
    assert (read.materializations, read.latest, read.last_made, read.count) == ([], None, None, 0)
    assert read.last_read is not None


@pytest.mark.usefixtures("recorder")
def test_runs_need_no_flow() -> None:
    assert makes(3) == 3
    assert latest(A).flow_run_id is None


@pytest.mark.usefixtures("recorder")
def test_coroutine_functions_and_generators() -> None:
    @materialize(A)
    async def make() -> int:
        add_asset_metadata(A, {"async": True})
        return 1

    @materialize(B)
    def give() -> Iterator[int]:
        add_asset_metadata(B, {"generator": True})
        yield 1

    @materialize(C)
    async def agive() -> Any:
        yield 1

    async def main() -> Any:
        assert await make() == 1
        assert [each async for each in agive()] == [1]
        return await aread_asset(A), await alist_assets()

    assert list(give()) == [1]
    record, everything = asyncio.run(main())
    assert record.materializations[0].metadata == {"async": True}
    assert latest(B).metadata == {"generator": True}
    assert [asset.key for asset in everything] == [A, B, C]


@pytest.mark.usefixtures("recorder")
def test_failures_are_recorded_when_they_are_final() -> None:
    seen: list[int] = []

    @materialize(A, retries=1)
    def make() -> None:
        add_asset_metadata(A, {f"attempt {len(seen)}": 1})
        seen.append(len(known()))
        raise ValueError("no table")

    assert make(return_state=True).is_failed()
    assert seen == [0, 0]
    found = latest(A)
    assert (found.succeeded, found.message, found.metadata) == (
        False,
        "ValueError: no table",
        {"attempt 1": 1},
    )
    record = read_asset(A)
    assert (record.count, record.last_made, record.last_failed) == (1, None, found.time)


@pytest.mark.usefixtures("recorder")
def test_a_retry_that_works_is_one_success() -> None:
    attempts: list[int] = []

    @materialize(A, retries=2)
    def make() -> None:
        attempts.append(1)
        add_asset_metadata(A, {f"attempt {len(attempts)}": 1})
        if len(attempts) < 2:
            raise ValueError

    make()
    assert [run.succeeded for run in read_asset(A).materializations] == [True]
    assert latest(A).metadata == {"attempt 2": 1}


@pytest.mark.usefixtures("recorder")
def test_runs_that_have_neither_completed_nor_failed_are_not_recorded() -> None:
    @materialize(A)
    def cancelled() -> Any:
        return Cancelled()

    @materialize(B)
    def crashes() -> None:
        raise SystemExit(2)

    @materialize(C)
    def never(_: Any) -> None: ...

    @materialize(D)
    def from_elsewhere() -> Any:
        return Completed(name="Cached")

    @flow
    def around() -> None:
        for future in (
            cancelled.submit(),
            crashes.submit(),
            from_elsewhere.submit(),
            never.submit(crashes.submit()),
        ):
            future.wait()

    around(return_state=True)
    assert known() == []


@pytest.mark.usefixtures("recorder")
def test_the_same_asset_twice_is_one() -> None:
    named = Asset(key=A, properties=AssetProperties(name="n"))
    materialize(A, named, A)(function)()
    assert (read_asset(A).count, read_asset(A).properties) == (1, named.properties)


@pytest.mark.usefixtures("recorder")
def test_properties_stay_until_others_are_given() -> None:
    named = Asset(key=A, properties=AssetProperties(name="n"))
    materialize(named)(function)()
    makes()
    assert read_asset(A).properties == named.properties
    assert read_asset(A).count == 2


@pytest.mark.usefixtures("recorder")
def test_a_plain_task_records_nothing() -> None:
    task(function)()
    task(asset_deps=[A])(function)()
    assert known() == []


@pytest.mark.usefixtures("recorder")
def test_hooks_find_what_was_recorded() -> None:
    seen: list[Any] = []
    makes.with_options(on_completion=[lambda _task, run, _state: seen.append((run.id, latest(A).run_id))])()
    ((run_id, recorded),) = seen
    assert run_id == recorded


# -- what it was made from ----------------------------------------------------------------------------


@materialize(A)
def first() -> dict[str, Any]:
    return {"value": [1]}


@task
def between(x: Any) -> Any:
    return [x]


@materialize(B)
def second(x: Any = None, y: Any = None) -> list[Any]:
    return [x, y]


@materialize(C)
def third(x: Any = None) -> Any:
    return x


CHAINS: dict[str, Any] = {
    "a future": lambda: second.submit(first.submit()).wait(),
    "a state": lambda: second(first(return_state=True)),
    "a value": lambda: second(first()),
    "a value by name": lambda: second(y=first()),
    "a value inside others": lambda: second({"x": [(first(), 1)]}),
    "a part of a value": lambda: second(first()["value"]),
    "a future inside others": lambda: second.submit({"x": [first.submit()]}).wait(),
    "wait_for": lambda: second.submit(wait_for=[first.submit()]).wait(),
    "a plain task between": lambda: second.submit(between.submit(between.submit(first.submit()))).wait(),
    "map": lambda: [future.wait() for future in second.map([first.submit()])],
    "a task that names it": lambda: second.submit(task(asset_deps=[A])(between).submit(1)).wait(),
}


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("how", CHAINS)
def test_what_went_into_a_run_is_found(how: str) -> None:
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def around() -> None:
        CHAINS[how]()

    around()
    assert latest(B).upstream == [A]
    assert known() == [A, B]


@pytest.mark.usefixtures("recorder")
def test_only_the_nearest_assets_count() -> None:
    @flow
    def around() -> None:
        third.submit(second.submit(first.submit())).wait()

    around()
    assert (latest(A).upstream, latest(B).upstream, latest(C).upstream) == ([], [A], [B])


@pytest.mark.usefixtures("recorder")
def test_what_a_task_names_comes_first_and_each_once() -> None:
    @flow
    def around() -> None:
        made = second.submit(first.submit())
        third.with_options(asset_deps=[D, A]).submit([first.submit(), made]).wait()

    around()
    assert latest(C).upstream == [D, A, B]


@pytest.mark.usefixtures("recorder")
def test_of_several_assets_all_count() -> None:
    @flow
    def around() -> None:
        third.submit(second.with_options(assets=[B, D]).submit()).wait()

    around()
    assert latest(C).upstream == [B, D]


@pytest.mark.usefixtures("recorder")
def test_values_count_in_their_flow_run_only_and_numbers_never() -> None:
    @materialize(A)
    def number() -> int:
        return 7

    kept: list[Any] = []

    @flow
    def one() -> None:
        kept.append(first())
        third(number())

    @flow
    def other() -> None:
        second(kept[0])

    one()
    other()
    assert latest(B).upstream == latest(C).upstream == []


@pytest.mark.usefixtures("recorder")
def test_a_run_that_failed_hands_on_its_assets() -> None:
    @materialize(A)
    def fails() -> None:
        raise ValueError

    @flow
    def around() -> None:
        second.submit(allow_failure(fails.submit())).wait()

    around()
    assert latest(B).upstream == [A]


@pytest.mark.usefixtures("recorder")
def test_a_task_that_is_called_inside_is_no_source() -> None:
    @materialize(B)
    def outer() -> Any:
        return first()

    outer()
    assert latest(A).upstream == latest(B).upstream == []
    assert latest(A).run_id != latest(B).run_id


@pytest.mark.usefixtures("recorder")
def test_a_cached_result_is_not_made_again_and_counts_as_a_source(tmp_path: Path) -> None:
    made = materialize(A, cache_key_fn=lambda *_: "key", result_storage=tmp_path)(lambda: [1])

    @flow
    def around() -> None:
        made()
        third.submit(made.submit()).wait()

    around()
    assert read_asset(A).count == 1
    assert latest(C).upstream == [A]


@pytest.mark.usefixtures("recorder")
def test_a_large_argument_is_not_looked_through_for_ever() -> None:
    @flow
    def around() -> None:
        value = first()
        second([*range(lineage.MAX_VALUES), value], value)

    around()
    assert latest(B).upstream == [A]


# -- metadata -----------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Rows:
    count: int
    seen: datetime.date


@pytest.mark.usefixtures("recorder")
def test_metadata_is_plain_data() -> None:
    given: dict[Any, Any] = {
        "time": datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
        "date": datetime.date(2026, 1, 2),
        "took": datetime.timedelta(minutes=1),
        "id": uuid.UUID(int=1),
        "exact": Decimal("1.50"),
        "path": Path("/x"),
        "set": {1},
        "tuple": (1, [2, None]),
        "colour": Colour.RED,
        "rows": Rows(2, datetime.date(2026, 1, 2)),
        "not a number": float("nan"),
        "text": "ä\ud800",
        5: True,
    }

    @materialize(A)
    def make() -> None:
        add_asset_metadata(A, given)
        Asset(key=A).add_metadata({"date": "another", "more": 1})

    make()
    assert latest(A).metadata == {
        "time": "2026-01-02T03:04:00+00:00",
        "date": "another",
        "took": 60.0,
        "id": str(uuid.UUID(int=1)),
        "exact": "1.50",
        "path": "/x",
        "set": [1],
        "tuple": [1, [2, None]],
        "colour": "red",
        "rows": {"count": 2, "seen": "2026-01-02"},
        "not a number": "nan",
        "text": "ä?",
        "5": True,
        "more": 1,
    }


def metadata_error(*args: Any, assets: tuple[str, ...] = (A,), **options: Any) -> BaseException:
    @materialize(*assets, **options)
    def make() -> None:
        add_asset_metadata(*args)

    return make(return_state=True).result(raise_on_failure=False)


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("value", [object(), function, b"bytes", Rows, {"deep": [[object()]]}])
def test_metadata_that_is_no_plain_data(value: Any) -> None:
    error = metadata_error(A, {"name": value})
    assert isinstance(error, OptionTypeError)
    assert "'name' has to be plain data" in str(error)


@pytest.mark.usefixtures("recorder")
def test_metadata_without_an_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deeply" in str(metadata_error(A, {"name": endless}))
    assert "bytes of JSON" in str(metadata_error(A, {"name": "x" * 40_000}))
    assert isinstance(metadata_error(A, 5), OptionTypeError)


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("asset", [B, Asset(key=C), "nothing"])
def test_metadata_of_another_asset(asset: Any) -> None:
    error = metadata_error(asset, {}, asset_deps=[B])
    assert isinstance(error, ValueError)
    assert "Can only add metadata to assets that are arguments to @materialize" in str(error)
    assert not latest(A).succeeded


def test_metadata_outside_of_tasks() -> None:
    with pytest.raises(MissingContextError, match="add_asset_metadata"):
        add_asset_metadata(A, {})

    @flow
    def around() -> None:
        add_asset_metadata(A, {})

    with pytest.raises(RuntimeError, match="add_asset_metadata"):
        around()
    with pytest.raises(ConfigurationError, match="has none"):
        task(lambda: add_asset_metadata(A, {}))()


@pytest.mark.usefixtures("recorder")
def test_metadata_from_many_threads() -> None:
    import contextvars

    @materialize(A)
    def make() -> None:
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(add_asset_metadata, A, {str(n): n}))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    make()
    assert latest(A).metadata == {str(n): n for n in range(20)}


# -- listing ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("recorder")
def test_lists_have_an_order_and_pages() -> None:
    for key in ("s3://b/2", "s3://a/1", "s3://b/1", "db://x"):
        makes.with_options(assets=[key])()
    assert known() == ["db://x", "s3://a/1", "s3://b/1", "s3://b/2"]
    assert [asset.key for asset in list_assets(limit=2)] == ["db://x", "s3://a/1"]
    assert [asset.key for asset in list_assets(after="s3://a/1", limit=None)] == ["s3://b/1", "s3://b/2"]
    assert [asset.key for asset in list_assets(prefix="s3://b/")] == ["s3://b/1", "s3://b/2"]
    assert list_assets(limit=0) == []
    (asset, *_) = list_assets()
    assert isinstance(asset, AssetRecord)
    assert asset.latest is not None
    assert (asset.latest.task_name, asset.latest.materialized_by, asset.count) == ("makes", "dbt", 1)
    with pytest.raises(ConfigurationError, match="limit"):
        list_assets(limit=-1)


@pytest.mark.usefixtures("recorder")
def test_runs_of_an_asset_newest_first() -> None:
    ids = [makes(return_state=True).state_details.task_run_id for _ in range(5)]
    record = read_asset(A, limit=2)
    assert [run.run_id for run in record.materializations] == ids[:2:-1]
    assert record.count == 5
    assert [run.run_id for run in read_asset(A, limit=None).materializations] == ids[::-1]
    rest = read_asset(A, limit=2, offset=3)
    assert [run.run_id for run in rest.materializations] == ids[1::-1]
    assert rest.latest is not None
    assert rest.latest.run_id == ids[-1]
    assert read_asset(A, limit=0).materializations == []
    with pytest.raises(ObjectNotFound, match="s3://nothing"):
        read_asset("s3://nothing")


# -- runs that travel ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("recorder")
def test_what_with_options_has_changed_travels() -> None:
    named = Asset(key=B, properties=AssetProperties(name="n"))
    makes.with_options(assets=[named, D], materialized_by="spark", asset_deps=[C, named]).delay(2).result()
    assert known() == [B, C, D]
    found = latest(B)
    assert (found.materialized_by, found.upstream) == ("spark", [C, B])
    assert read_asset(B).properties == named.properties
    makes.delay(2).result()
    assert (latest(A).materialized_by, latest(A).upstream) == ("dbt", [])
    makes.with_options(assets=[]).delay(2).result()
    assert read_asset(A).count == 1


@pytest.mark.usefixtures("recorder")
def test_runs_that_travel_hand_on_their_assets() -> None:
    second.delay(first.delay()).result()
    assert latest(B).upstream == [A]


def test_a_task_as_it_was_defined_adds_nothing_to_its_runs() -> None:
    assert makes.travelling_options == {}
    assert makes.with_options(retries=1).travelling_options == {"retries": 1}


# -- trouble ------------------------------------------------------------------------------------------


class Away:
    """A client whose broker is away."""

    def __init__(self) -> None:
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        raise BrokerUnreachable("Nobody is there.")


def test_a_run_without_a_broker_completes_and_the_next_ones_do_not_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracking.forget_trouble()
    away = Away()
    before = install_runtime(away)  # type: ignore[arg-type]
    try:
        with caplog.at_level(logging.WARNING):
            assert makes(1) == 1
            assert makes(2) == 2
        with eager():  # another client
            assert makes(3) == 3
            assert read_asset(A).count == 1
    finally:
        install_runtime(before)
        tracking.forget_trouble()
    assert away.asked == 1
    assert caplog.text.count("is not recorded") == 2
    assert "Nobody is there." in caplog.text


def test_a_task_that_only_reads_starts_no_client() -> None:
    lineage.forget_all()
    close_runtime()
    reads = task(asset_deps=[A])(between.fn)

    @flow
    def around() -> Any:
        return reads.submit(reads.submit(1)).result()

    assert around() == [[1]]
    assert runtime._runtime is None  # pyright: ignore[reportPrivateUsage]
    assert [*lineage._made.values()] == [[A], [A]]  # pyright: ignore[reportPrivateUsage]
    lineage.forget_all()


def test_what_goes_out_fits_a_frame() -> None:
    from prefect_lite.assets.tracking import _sources, _within  # pyright: ignore[reportPrivateUsage]
    from prefect_lite.client.asset_records import QUESTION_BYTES, _parts  # pyright: ignore[reportPrivateUsage]
    from prefect_lite.protocol.recorded_assets import (
        MAX_ASSETS,
        MAX_METADATA_BYTES,
        MAX_SOURCES_BYTES,
        SaidOfAsset,
    )

    many = [SaidOfAsset(f"s3://{number}", b"p" * 9_000, b"m" * MAX_METADATA_BYTES) for number in range(20)]
    few = [SaidOfAsset(f"s3://{number}") for number in range(MAX_ASSETS + 5)]
    parts = list(_parts(many, few))
    assert [one for made, _ in parts for one in made] == many
    assert [one for _, read in parts for one in read] == few
    for made, read in parts:
        assert max(len(made), len(read)) <= MAX_ASSETS
        assert sum(len(word) for one in (*made, *read) for word in one) <= QUESTION_BYTES
    assert list(_parts([], [])) == [([], [])]
    keys = ["s3://" + "ä" * 507] * 200
    kept = _within(keys)
    assert 0 < len(kept) < 200
    said = _sources(keys)
    assert said["left_out"] == 200 - len(kept)
    assert len(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()) <= MAX_SOURCES_BYTES


def test_records_of_runs_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lineage.forget_all()
    monkeypatch.setattr(lineage, "MAX_REMEMBERED", 3)
    for number in range(5):
        lineage.remember(f"{number:032x}", [A])
    assert len(lineage._made) == 3  # pyright: ignore[reportPrivateUsage]
    lineage.forget_all()
    assert TaskRun("0" * 32, "key", "name").task_inputs == {}


# -- the guide ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("recorder")
def test_the_guide_is_true() -> None:
    text = (Path(__file__).parents[3] / "docs" / "assets.md").read_text()
    names: dict[str, Any] = {"__name__": __name__}
    checked = 0
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = block.splitlines()
        for statement in ast.parse(block).body:
            _, _, said = lines[(statement.end_lineno or 0) - 1].partition("# → ")
            source = ast.unparse(statement)
            if said:
                assert eval(source, names) == eval(said), source
                checked += 1
            else:
                exec(compile(source, "docs/assets.md", "exec"), names)
    assert checked == 6


def test_the_decorator_without_parentheses_is_refused_where_it_stands() -> None:
    with pytest.raises(OptionTypeError, match="Give an Asset"):
        materialize(lambda: None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
