"""Poison ends, its neighbours do not suffer, and an administrator can look at it, run it again or drop it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prefect_lite.cli.ask import ask
from tests.integration.fleet import Fleet
from tests.integration.harness import Running, wait_until

TASKS = """
    import os, pathlib, signal, time
    from prefect_lite import task

    @task
    def poison(folder):
        with open(f"{folder}/starts", "a") as out:
            out.write("x")
        if not os.path.exists(f"{folder}/cure"):
            os.kill(os.getpid(), signal.SIGKILL)
        return "well again"

    @task
    def long(folder, number, seconds):
        with open(f"{folder}/long-{number}", "a") as out:
            out.write("x")
        time.sleep(seconds)
        return number
"""

CLIENT = """
    import os, sys, time, tasks
    from prefect_lite.exceptions import CrashedRun

    folder, innocents, slots, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    beside = [tasks.long.delay(folder, n, seconds) for n in range(innocents)]
    print("ids", *(future.task_run_id.hex for future in beside), flush=True)
    while len([name for name in os.listdir(folder) if name.startswith("long-")]) < slots:
        time.sleep(0.01)
    bad = tasks.poison.delay(folder)
    print("poison", bad.task_run_id.hex, flush=True)
    assert [future.result(timeout=240) for future in beside] == list(range(innocents))
    try:
        bad.result(timeout=60)
    except CrashedRun as error:
        print("crashed:", error, flush=True)
"""


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(tmp_path, brokers=2, **getattr(request, "param", {}))
    try:
        made.write("tasks.py", TASKS)
        made.start_brokers()
        yield made
    finally:
        print(made.logs())
        made.close()


@contextmanager
def supervised(start: Callable[[], Running], count: int) -> Iterator[None]:
    """So many workers, each replaced as soon as it has died."""
    over = threading.Event()
    workers = [start() for _ in range(count)]

    def keep_up() -> None:
        while not over.wait(0.02):
            for place, worker in enumerate(workers):
                if worker.process.poll() is not None:
                    workers[place] = start()

    thread = threading.Thread(target=keep_up)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def dead(fleet: Fleet, *args: str, code: int = 0) -> Any:
    """``prefect-lite dead ... --json``."""
    done = fleet.cli("dead", *args, "--json", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def crash(fleet: Fleet, count: int = 1) -> list[str]:
    """So many runs that end in the dead set."""
    script = fleet.write(
        "crash.py",
        """
        import sys, tasks
        from prefect_lite.exceptions import CrashedRun
        futures = [tasks.poison.delay(sys.argv[1]) for _ in range(int(sys.argv[2]))]
        for future in futures:
            try:
                future.result(timeout=60)
            except CrashedRun:
                print("id", future.task_run_id.hex)
        """,
    )
    with supervised(lambda: fleet.start_worker("tasks", "--limit", str(count)), 1):
        client = fleet.start_client(script, str(fleet.project), str(count))
        assert client.wait(60) == 0
    return re.findall(r"id (\w+)", client.output)


def poison_beside(fleet: Fleet, innocents: int, slots: int, seconds: float) -> None:
    """P9: two workers with so many slots each, long runs, and one run that kills its worker."""
    script = fleet.write("client.py", CLIENT)
    folder = str(fleet.project)
    with supervised(lambda: fleet.start_worker("tasks", "--limit", str(slots)), 2):
        client = fleet.start_client(
            script, folder, str(innocents), str(min(innocents, 2 * slots)), str(seconds)
        )
        assert client.wait(300) == 0, client.output
    (starts,) = [len((fleet.project / "starts").read_text())]
    assert starts == 4
    poison = re.findall(r"poison (\w+)", client.output)[0]
    text = client.output.split("crashed: ")[1]
    assert "its worker was lost 4 times" in text
    assert f"prefect-lite dead replay {poison}" in text
    ids = re.findall(r"ids (.*)", client.output)[0].split()
    states = [ask(fleet.settings, "run", run_id) for run_id in ids]
    assert {state["type"] for state in states} == {"COMPLETED"}
    lost = [state["lost"] for state in states]
    print("innocents that lost 0, 1, 2, ... leases:", [lost.count(n) for n in range(max(lost) + 1)])
    # What began last is tried first, so the poison has shown itself before its first neighbours are back.
    assert max(lost) <= 1
    assert [state["run_id"] for state in dead(fleet, "list")] == [poison]
    fleet.check_history(ends=("COMPLETED", "CRASHED"))


def test_poison_starts_four_times_and_no_neighbour_crashes(fleet: Fleet) -> None:
    poison_beside(fleet, innocents=8, slots=4, seconds=1.0)


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_poison_beside_sixty_long_runs(fleet: Fleet) -> None:
    poison_beside(fleet, innocents=60, slots=10, seconds=6.0)


@pytest.mark.parametrize("fleet", [{"max_lost": 0}], indirect=True)
def test_a_dead_run_is_shown_and_replayed_through_another_broker(fleet: Fleet) -> None:
    (run_id,) = crash(fleet)
    listed = fleet.cli("dead", "list").stdout
    assert run_id in listed
    assert "tasks.poison" in listed
    text = fleet.cli("dead", "show", run_id).stdout
    for part in ("tasks.poison", "Crashed", "lost      1 lease", "its worker was lost 1 time,", "(pid "):
        assert part in text
    shown = dead(fleet, "show", run_id)
    assert (shown["dead"], shown["lost"], shown["type"]) == (True, 1, "CRASHED")
    assert shown["ended_ms"] > 0
    assert re.search(r"\(pid \d+\)", shown["worker"])
    fleet.env["PREFECT_LITE_BROKER_URL"] = fleet.urls[1]
    (fleet.project / "cure").touch()
    assert fleet.cli("dead", "replay", run_id).stdout == f"Replayed: {run_id}.\n"
    assert fleet.cli("dead", "list").stdout == "No runs are dead.\n"
    fleet.start_worker("tasks")
    state = wait_until(lambda: (s := ask(fleet.settings, "run", run_id))["ended_ms"] and s, what="its end")
    assert (state["type"], state["lost"]) == ("COMPLETED", 0)
    again = fleet.cli("dead", "replay", run_id, check=False)
    assert again.returncode == 1
    assert "not among the dead" in again.stderr
    assert fleet.cli("dead", "show", run_id, check=False).returncode == 1


@pytest.mark.parametrize("fleet", [{"max_lost": 0}], indirect=True)
def test_many_are_paged_replayed_and_dropped(fleet: Fleet) -> None:
    ids = crash(fleet, 4)
    assert len(ids) == 4
    first = dead(fleet, "list", "--limit", "3")
    rest = dead(fleet, "list", "--limit", "3", "--offset", "3")
    assert {state["run_id"] for state in first + rest} == set(ids)
    assert (len(first), len(rest)) == (3, 1)
    assert "--offset 3" in fleet.cli("dead", "list", "--limit", "3").stderr
    unasked = fleet.cli("dead", "drop", ids[0], check=False)
    assert unasked.returncode == 1
    assert "There is nobody to answer; nothing was changed. Give --yes." in unasked.stderr
    assert dead(fleet, "list", "--offset", str(9 * 10**18)) == []
    unknown = "0" * 32
    answer = dead(fleet, "drop", "--yes", ids[0], unknown, code=1)
    assert answer == {"dropped": [ids[0]], "not_dead": [unknown]}
    (fleet.project / "cure").touch()
    answer = dead(fleet, "replay", "--all", "--yes")
    assert sorted(answer["replayed"]) == sorted(ids[1:])
    assert dead(fleet, "list") == []
    assert fleet.cli("dead", "drop", "--all", "--yes").stdout == "No runs are dead.\n"


def test_wrong_usage_and_missing_rights_are_said(fleet: Fleet) -> None:
    for args in (("replay",), ("drop", "--all", "0" * 32), ("show", "xyz"), ("replay", "xyz")):
        done = fleet.cli("dead", *args, check=False)
        assert (done.returncode, "prefect-lite: " in done.stderr) == (1, True), done.stderr
    fleet.env["PREFECT_LITE_ADMIN_TOKEN"] = "wrong-token-0123456789"
    done = fleet.cli("dead", "list", check=False)
    assert done.returncode == 1
    assert "refused the token. Set PREFECT_LITE_ADMIN_TOKEN to the one in" in done.stderr
