"""A broker that is killed costs nobody a run: workers and clients go on at the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import Fleet
from tests.integration.harness import PATIENT_TIMES, wait_until
from tests.tools.consistency import assert_consistent, assert_never_repaired

TASKS = """
    import asyncio
    from pathlib import Path
    from prefect_lite import task

    HERE = Path(__file__).parent

    @task
    async def wait(number):
        with open(HERE / "starts.txt", "a") as file:
            file.write(f"{number}\\n")
        while not (HERE / "go").exists():
            await asyncio.sleep(0.05)
        return number
"""

CLIENT = """
    import sys, time
    from pathlib import Path
    import tasks

    here, count, more = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    futures = [tasks.wait.delay(n) for n in range(count)]
    while not (here / "begin").exists():
        time.sleep(0.002)
    # delay() is in flight while its broker is killed.
    futures += [tasks.wait.delay(n) for n in range(count, count + more)]
    results = [future.result(timeout=60) for future in futures]
    print("all", time.monotonic())  # a clock that all processes share
    assert results == list(range(count + more)), "wrong results"
    assert len({future.task_run_id for future in futures}) == count + more
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, brokers=3, audit_seconds=0.05, **PATIENT_TIMES)
    made.write("tasks.py", TASKS)
    yield made
    print(made.logs())
    made.close()


def starts(fleet: Fleet) -> list[str]:
    path = fleet.project / "starts.txt"
    return path.read_text().split() if path.exists() else []


def epochs(fleet: Fleet) -> dict[str, int]:
    """Session to epoch, from the store."""
    assert fleet.server is not None
    prefix = f"pl:{{{fleet.settings.namespace}:0}}:"
    with fleet.server.client() as client:
        sessions: Any = client.zrange(prefix + "sessions", 0, -1)
        return {
            name.decode(): int(client.hget(prefix + f"s:{name.decode()}", "e") or 0)  # type: ignore[arg-type]
            for name in sessions
        }


def kill_with_runs_in_progress(fleet: Fleet, count: int, more: int) -> tuple[float, float]:
    """Kill one of three brokers, with two of the four workers and the client, while ``count`` runs go on.

    Returns:
        Seconds until its workers are back, and until every future has its result.
    """
    limit = str(count // 4)
    fleet.start_broker(0)  # the only one there is, for those that are to lose it
    script = fleet.write("client.py", CLIENT)
    client = fleet.start_client(script, str(fleet.project), str(count), str(more))
    for _ in range(2):
        fleet.start_worker("tasks", "--limit", limit)
    wait_until(lambda: len(starts(fleet)) >= count // 2, 60.0, "the runs of two workers")
    for number in (1, 2):
        fleet.start_broker(number)
        fleet.start_worker("tasks", "--limit", limit, urls=[fleet.urls[number]])
    wait_until(lambda: len(starts(fleet)) >= count, 60.0, "the start of all runs")
    before = epochs(fleet)
    assert sorted(before.values()) == [1, 1, 1, 1]

    (fleet.project / "begin").touch()
    fleet.kill_broker_at(0)
    killed = time.monotonic()
    wait_until(lambda: sorted(epochs(fleet).values()) == [1, 1, 2, 2], 20.0, "the workers' return")
    back = time.monotonic() - killed
    (fleet.project / "go").touch()
    let_go = time.monotonic()
    assert client.wait(60) == 0, client.output
    answered = float(client.output.split("all ")[1].split()[0]) - let_go

    assert epochs(fleet).keys() == before.keys(), "every worker has the session it had"
    ran = Counter(starts(fleet))
    assert len(ran) == count + more
    assert max(ran.values()) == 1, "re-executed"
    fleet.check_history()
    assert fleet.server is not None
    with fleet.server.client() as redis:
        assert_consistent(redis, fleet.settings.namespace)
        assert_never_repaired(redis, fleet.settings.namespace)
    return back, answered


def test_a_killed_broker_costs_no_run(fleet: Fleet) -> None:
    back, answered = kill_with_runs_in_progress(fleet, 100, 30)
    print(f"workers back after {back:.2f} s, all results {answered:.2f} s later")
    assert back <= 3.0
    assert answered <= 5.0


@pytest.mark.chaos
def test_a_killed_broker_costs_none_of_500_runs(fleet: Fleet) -> None:
    back, answered = kill_with_runs_in_progress(fleet, 500, 100)
    print(f"workers back after {back:.2f} s, all results {answered:.2f} s later")
    assert back <= 3.0
    assert answered <= 5.0
