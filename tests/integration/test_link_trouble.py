"""Trouble on the links of a real worker and a real client: nobody dies, nothing is lost, all goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefect_lite.cli.ask import ask
from tests.integration.fleet import Fleet
from tests.integration.harness import Running, wait_until
from tests.tools.lines import Line
from tests.tools.proxy import Proxy

TASKS = """
    import os
    from prefect_lite import task

    @task
    def add(x, y):
        return x + y

    @task
    def big(folder, size):
        with open(f"{folder}/starts", "a") as out:
            out.write("x")
        return os.urandom(size)
"""

ROUNDS = """
    import pathlib, sys, tasks
    number = 0
    while not pathlib.Path("over").exists():
        futures = [tasks.add.delay(n, number) for n in range(10)]
        assert [future.result(timeout=60) for future in futures] == [n + number for n in range(10)]
        number += 1
        print("round", number, flush=True)
"""

BESIDE = """
    import sys, threading, time, tasks
    assert tasks.add.delay(0, 0).result(timeout=60) == 0
    begun = time.monotonic()
    large = tasks.big.delay(sys.argv[1], int(sys.argv[2]))
    ended = threading.Event()
    large.add_done_callback(lambda _: ended.set())
    while not ended.is_set():
        sent = time.monotonic()
        assert tasks.add.delay(1, 1).result(timeout=60) == 2
        print(f"small {time.monotonic() - sent:.3f}", "beside" if not ended.is_set() else "after", flush=True)
    assert len(large.result(timeout=60)) == int(sys.argv[2])
    print(f"big {time.monotonic() - begun:.3f} id {large.task_run_id.hex}", flush=True)
"""

TROUBLES: list[tuple[str, float, Callable[[Proxy], object]]] = [
    ("latency", 0.5, lambda proxy: proxy.delay("both", 0.1, jitter=0.05)),
    ("cut", 0.0, lambda proxy: proxy.cut()),
    ("reset", 0.0, lambda proxy: proxy.reset()),
    ("half close up", 0.0, lambda proxy: proxy.half_close("up")),
    ("half close down", 0.0, lambda proxy: proxy.half_close("down")),
    ("black hole", 1.5, lambda proxy: proxy.black_hole()),
    ("one-way cut up", 1.5, lambda proxy: proxy.black_hole("up")),
    ("one-way cut down", 1.5, lambda proxy: proxy.black_hole("down")),
    ("hold", 0.5, lambda proxy: proxy.hold()),
    ("slices", 0.3, lambda proxy: proxy.slice("both", 1)),
    ("bandwidth", 0.5, lambda proxy: proxy.limit("both", 5_000)),
]
"""Name, how long it lasts in seconds, what it is."""


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(tmp_path, brokers=1, **getattr(request, "param", {}))
    try:
        made.write("tasks.py", TASKS)
        made.start_brokers()
        yield made
    finally:
        print(made.logs())
        made.close()


@pytest.fixture
def line(fleet: Fleet) -> Iterator[Line]:
    made = Line(fleet.ports[0])
    yield made
    made.close()


def rounds(client: Running) -> int:
    return client.output.count("round ")


@contextmanager
def traffic(fleet: Fleet, line: Line, whose: str) -> Iterator[tuple[Running, list[Running]]]:
    """A client that submits and waits, and a worker; ``whose`` of them is behind the line."""
    behind = [line.url]
    worker = fleet.start_worker("tasks", urls=behind if whose == "worker" else None)
    script = fleet.write("rounds.py", ROUNDS)
    client = fleet.start_client(script, urls=behind if whose == "client" else None)
    wait_until(lambda: rounds(client) > 1, 20.0, "the first rounds")
    assert fleet.brokers[0] is not None
    yield client, [worker, client, fleet.brokers[0]]
    (fleet.project / "over").touch()
    assert client.wait(60) == 0


@pytest.mark.parametrize("whose", ["worker", "client"])
def test_every_kind_of_trouble_passes(fleet: Fleet, line: Line, whose: str) -> None:
    with traffic(fleet, line, whose) as (client, processes):
        for name, seconds, trouble in TROUBLES:
            line.do(trouble)
            over = time.monotonic() + seconds
            wait_until(lambda over=over: time.monotonic() >= over, what="the time that the trouble lasts")
            line.do(lambda proxy: proxy.calm())
            before, ended = rounds(client), time.monotonic()
            # Two: the one that was under way, and one that began after the trouble.
            wait_until(lambda before=before: rounds(client) >= before + 2, 30.0, f"rounds after {name}")
            print(f"{whose} link, {name}: two rounds {time.monotonic() - ended:.2f} s after its end")
            for process in processes:
                assert process.process.poll() is None, f"{process.name} did not survive {name}"
    fleet.check_history()


def half_open(fleet: Fleet, line: Line, bound: float) -> None:
    """Let worker and client vanish, and measure when each side closes its end of the link."""
    fleet.start_worker("tasks", urls=[line.url])
    script = fleet.write(
        "wait.py", "import tasks, time\nprint(tasks.add.delay(1, 1).result(timeout=60))\ntime.sleep(60)\n"
    )
    client = fleet.start_client(script, urls=[line.url])
    client.wait_for("2", 30.0)
    links = line.do(lambda proxy: proxy.links)
    assert len(links) == 2
    line.do(lambda proxy: proxy.black_hole("both", proxy.links))
    begun = time.monotonic()
    noticed: dict[str, float] = {}

    def all_noticed() -> bool:
        for number, link in enumerate(links):
            for direction, flow in link.flows.items():
                if flow.ended:
                    side = ("worker", "client")[number] if direction == "up" else f"broker, of {number}"
                    noticed.setdefault(side, round(time.monotonic() - begun, 2))
        return len(noticed) == 4

    wait_until(all_noticed, bound, f"all four ends; {noticed}")
    print("half-open links noticed after", noticed, "s")
    client.kill()


def test_half_open_links_are_noticed_by_all_sides(fleet: Fleet, line: Line) -> None:
    half_open(fleet, line, 10.0)


@pytest.mark.chaos
@pytest.mark.parametrize(
    "fleet",
    [{"lease_seconds": 15.0, "renew_seconds": 5.0, "disconnect_grace_seconds": 5.0}],
    indirect=True,
)
def test_half_open_links_are_noticed_within_twelve_seconds(fleet: Fleet, line: Line) -> None:
    half_open(fleet, line, 12.0)


def slow_result(fleet: Fleet, line: Line, size: int, rate: float) -> list[float]:
    """A large result on a slow link, small ones beside it; returns the seconds each of those took."""
    line.do(lambda proxy: proxy.limit("up", rate))
    fleet.start_worker("tasks", urls=[line.url])
    script = fleet.write("beside.py", BESIDE)
    client = fleet.start_client(script, str(fleet.project), str(size))
    assert client.wait(100) == 0, client.output
    seconds, run_id = re.findall(r"big ([\d.]+) id (\w+)", client.output)[0]
    assert float(seconds) >= 0.9 * size / rate, "the link was not slow"
    assert (fleet.project / "starts").read_text() == "x"
    assert ask(fleet.settings, "run", run_id)["lost"] == 0
    assert line.do(lambda proxy: proxy.accepted) == 1, "the worker never lost its connection"
    beside = [float(one) for one in re.findall(r"small ([\d.]+) beside", client.output)]
    print(f"{size} bytes in {seconds} s; beside it {len(beside)} small ones, max {max(beside):.2f} s")
    fleet.check_history()
    return beside


# The lease is shorter than the transfer, and no shorter than a busy machine needs.
@pytest.mark.parametrize("fleet", [{"lease_seconds": 3.0, "renew_seconds": 1.0}], indirect=True)
def test_a_large_result_on_a_slow_link_delays_neither_leases_nor_others(fleet: Fleet, line: Line) -> None:
    beside = slow_result(fleet, line, 2_000_000, 500_000)
    assert len(beside) >= 3, "small results had to wait for the large one"


@pytest.mark.chaos
@pytest.mark.parametrize(
    "fleet", [{}, {"lease_seconds": 15.0, "renew_seconds": 5.0}], indirect=True, ids=["short", "default"]
)
def test_ten_megabytes_at_500_kb_per_second(fleet: Fleet, line: Line) -> None:
    beside = slow_result(fleet, line, 10_000_000, 500_000)
    assert max(beside) <= 2 * 262_144 / 500_000 + 0.5, "at most two pieces, and the time of a run"
