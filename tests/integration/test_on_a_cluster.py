"""Brokers, workers and a client as real processes on a Redis Cluster of three nodes."""

from __future__ import annotations

from pathlib import Path

from tests.integration.fleet import Fleet
from tests.tools.cluster import Cluster

TASKS = """
    from prefect_lite import task

    @task
    def add(x, y):
        return x + y
"""

CLIENT = """
    import tasks

    numbers = list(range(300))
    futures = tasks.add.map(numbers, 1, deferred=True)
    assert [future.result(timeout=30) for future in futures] == [number + 1 for number in numbers]
    chained = tasks.add.delay(tasks.add.delay(1, 2), 3)  # most probably in two shards
    assert chained.result(timeout=30) == 6
    print("all there")
"""


def test_many_runs_and_one_that_waits_for_another(cluster: Cluster, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 2, redis_url=cluster.url)
    try:
        fleet.write("tasks.py", TASKS)
        fleet.start_brokers()
        for url in fleet.urls:
            fleet.start_worker("tasks", urls=[url])
        client = fleet.start_client(fleet.write("client.py", CLIENT))
        assert client.wait(40) == 0, f"{client.output}\n{fleet.logs()}"
        assert "all there" in client.output
        assert fleet.check_history().acknowledged == 302
    finally:
        fleet.close()
