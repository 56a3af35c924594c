"""Assets that real workers make: what is recorded of them, and found from other processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.harness import PrivateHome
from tests.tools.shared_harness import forget_kept

TASKS = """
    from prefect_lite import flow, task
    from prefect_lite.assets import Asset, AssetProperties, add_asset_metadata, materialize
    from prefect_lite.task_runners import ProcessPoolTaskRunner

    ORDERS = Asset(key="s3://raw/orders", properties=AssetProperties(name="Orders", owners=["Ada", "Bo"]))

    @materialize(ORDERS, by="spark", asset_deps=["db://shop/orders"])
    def load(rows):
        add_asset_metadata(ORDERS, {"rows": rows})
        return list(range(rows))

    @task
    def between(values):
        return sorted(values)

    @task(asset_deps=["s3://rates"])
    def rates():
        return 2

    @materialize("s3://report")
    async def report(values, rate=1):
        return sum(values) * rate

    @materialize("s3://broken")
    def broken():
        raise ValueError("on purpose")

    @materialize("s3://in-a-process")
    def alone():
        add_asset_metadata("s3://in-a-process", {"text": "ä"})

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def in_processes():
        report.submit(load.submit(3)).result()
"""


def serving(home: PrivateHome) -> PrivateHome:
    home.write("jobs.py", TASKS)
    start_worker(home)
    return home


def start_worker(home: PrivateHome, *options: str) -> None:
    home.start("worker", "-m", "prefect_lite.cli", "worker", "jobs", *options).wait_for("Connected")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHome]:
    made = PrivateHome(tmp_path_factory.mktemp("assets"))
    serving(made)
    start_worker(made)
    yield made
    print(made.logs())
    made.close()


@pytest.fixture
def workers(standing: PrivateHome) -> PrivateHome:
    """Two, and nothing is recorded yet."""
    forget_kept(standing.runtime)
    return standing


def shown(home: PrivateHome, *commands: str) -> list[Any]:
    """What ``assets`` says about each, as JSON."""
    return [json.loads(done.stdout) for done in home.commands(*(f"assets {one} --json" for one in commands))]


def test_sources_are_found_across_processes(workers: PrivateHome) -> None:
    """The middle ones are plain tasks, of which the broker knows only what they belong to."""
    run_id = workers.python(
        """
        from jobs import between, load, rates, report
        run = report.delay(between.delay(between.delay(load.delay(4))), rate=rates.delay())
        assert run.result(timeout=30) == 12
        print(run.task_run_id.hex)
        """
    ).stdout.strip()
    report, orders = shown(workers, "s3://report", "s3://raw/orders")
    made = report["materializations"][0]
    assert made["run_id"].replace("-", "") == run_id
    assert set(made["upstream"]) == {"s3://raw/orders", "s3://rates"}
    assert orders["properties"]["owners"] == ["Ada", "Bo"]
    assert orders["last_read"] is not None
    (loaded,) = orders["materializations"]
    assert (loaded["metadata"], loaded["materialized_by"]) == ({"rows": 4}, "spark")
    assert (loaded["upstream"], loaded["task_key"]) == (["db://shop/orders"], "jobs.load")


def test_runs_of_a_program_and_of_workers_find_each_other(workers: PrivateHome) -> None:
    workers.python(
        """
        from jobs import between, load, report
        from prefect_lite import flow

        @flow(name="mixed")
        async def mixed():
            here = load.submit(2)
            await report(between.delay(here), rate=2)
            await report.adelay(here)

        import asyncio
        asyncio.run(mixed())
        """
    )
    report, orders = shown(workers, "s3://report", "s3://raw/orders")
    runs = report["materializations"]
    wanted = ["s3://raw/orders"]
    assert runs
    assert [run["upstream"] for run in runs] == [wanted] * len(runs)
    assert {run["flow_run_id"] for run in runs} == {orders["materializations"][0]["flow_run_id"]} - {None}
    assert "mixed" in {run["flow_name"] for run in runs}


def test_changed_assets_travel_to_workers(workers: PrivateHome) -> None:
    workers.python(
        """
        from jobs import load
        from prefect_lite.assets import Asset, AssetProperties, read_asset
        other = Asset(key="s3://raw/orders/2026", properties=AssetProperties(url="http://there"))
        changed = load.with_options(assets=[other, "s3://raw/orders"], materialized_by="duckdb",
                                    asset_deps=[other])
        assert changed.delay(1).result(timeout=30) == [0]
        found = read_asset(other)
        assert found.properties == other.properties
        assert found.latest.materialized_by == "duckdb"
        assert found.materializations[0].upstream == [other.key]
        assert read_asset("s3://raw/orders").latest.run_id == found.latest.run_id
        """
    )


def test_the_command_line_shows_them(workers: PrivateHome) -> None:
    nothing, none = workers.commands("assets s3://nothing", "assets")
    assert (nothing.returncode, "Nothing is known" in nothing.stdout) == (1, True)
    assert none.stdout == "No asset is known.\n"
    workers.python(
        """
        from jobs import broken, load, report
        load.delay(1).result(timeout=30)
        report.delay(load.delay(3)).wait(timeout=30)
        broken.delay().wait(timeout=30)
        """
    )
    listed = workers.cli("assets").stdout.splitlines()
    keys = ["db://shop/orders", "s3://broken", "s3://raw/orders", "s3://report"]
    assert [line.split()[0] for line in listed] == ["asset", *keys]
    assert "never" in listed[1]
    assert "newest run failed" in listed[2]
    assert "load with spark" in listed[3]
    prefix, page = shown(workers, "'s3://*'", "--limit 2 --offset 1")
    assert [asset["key"] for asset in prefix] == keys[1:]
    assert [asset["key"] for asset in page] == keys[1:3]
    text, failed, some, wrong = workers.commands(
        "assets s3://raw/orders",
        "assets s3://broken",
        "assets s3://raw/orders --limit 1",
        "assets nothing",
    )
    for words in ("Orders", "Ada, Bo", "runs    2", "with spark", "from      db://shop/orders", "rows: 3"):
        assert words in text.stdout
    assert "FAILED in run" in failed.stdout
    assert "ValueError: on purpose" in failed.stdout
    assert [text.returncode, failed.returncode, some.returncode] == [0, 0, 0]
    assert "more runs" in some.stderr
    assert wrong.returncode == 1
    assert "not a valid URI" in wrong.stderr


def test_runs_in_child_processes_are_recorded(home: PrivateHome) -> None:
    home.write("jobs.py", TASKS)
    start_worker(home, "--task-runner", "processes")
    home.python(
        """
        from jobs import alone, in_processes, load, report
        alone.delay().result(timeout=30)
        assert report.delay(load.delay(2)).result(timeout=30) == 1
        in_processes()
        """,
        timeout=60,
    )
    alone, report = shown(home, "s3://in-a-process", "s3://report")
    assert alone["materializations"][0]["metadata"] == {"text": "ä"}
    assert [run["upstream"] for run in report["materializations"]] == [["s3://raw/orders"]] * 2


def test_a_worker_whose_broker_is_killed_records_what_it_made(home: PrivateHome) -> None:
    serving(home)
    home.write(
        "client.py",
        """
        from jobs import load
        print("sent", [load.delay(1) for _ in range(20)][-1].result(timeout=60), flush=True)
        """,
    )
    home.python("from jobs import load; load.delay(1).result(timeout=30)")
    client = home.start("client", "client.py")
    home.kill_broker()
    client.wait_for("sent [0]", timeout=60)
    assert client.wait() == 0
    (orders,) = shown(home, "s3://raw/orders")
    assert orders["count"] == 21
