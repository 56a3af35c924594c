"""Thousands of runs while workers, brokers and Valkey are killed: none is lost, none runs twice uncaused."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.chaos.disasters import Disasters, plan
from tests.chaos.history import Report
from tests.integration.fleet import Fleet
from tests.integration.harness import Running
from tests.tools.lines import Lines
from tests.tools.server import ValkeyServer
from tests.tools.waiting import wait_until

PROGRAMS = Path(__file__).with_name("programs")
BROKERS, WORKERS, THREADS, WINDOW = 3, 4, 8, 60
MANY = 1_000
"""Lost leases that a run may survive here: it is the workers that are killed, no run kills its worker."""


@contextmanager
def chaos_fleet(directory: Path) -> Iterator[Fleet]:
    """Brokers on a Valkey that loses nothing."""
    server = ValkeyServer(appendfsync="always")
    server.start()
    fleet = Fleet(directory, BROKERS, server=server, max_lost=MANY, appendfsync="always")
    try:
        for program in PROGRAMS.glob("*.py"):
            fleet.write(program.name, program.read_text())
        fleet.start_brokers()
        yield fleet
    except BaseException:
        print(fleet.logs())
        raise
    finally:
        try:
            fleet.close()
        finally:
            server.close()


def ended(client: Running) -> int:
    """Runs whose end the client has seen."""
    found = re.findall(r"^done (\d+)$", client.output, re.MULTILINE)
    return int(found[-1]) if found else 0


def chaos_run(directory: Path, runs: int, counts: dict[str, int], seed: int, seconds: float) -> Report:
    """One run; returns the report, in which everything is well."""
    print(f"CHAOS_SEED={seed}: {runs:,} runs, {counts}")
    steps = plan(seed, runs, counts, workers=WORKERS, brokers=BROKERS)
    with chaos_fleet(directory) as fleet, closing(Lines(fleet.ports)) as lines:
        disasters = Disasters(fleet, WORKERS, lines)
        program = fleet.project / "chaos_client.py"
        words = (str(word) for word in (runs, seed, THREADS, WINDOW, seconds))
        client = fleet.start_client(program, *words, urls=lines.urls)
        began = time.monotonic()
        deadline = began + seconds
        for step in steps:

            def due(at: int = step.at) -> bool:
                assert client.process.poll() is None, client.output[-3000:]
                return ended(client) >= at

            wait_until(due, deadline - time.monotonic(), f"{step.at} ended runs")
            disasters.carry_out(step)
        (fleet.project / "enough").touch()
        code = client.wait(deadline - time.monotonic())
        took = time.monotonic() - began
        report = fleet.check_history()
        print(f"{took:.1f} s\n{report}")
        assert code == 0, client.output[-3000:]
        assert len(disasters.done) == len(steps)
        assert report.acknowledged == report.ok == runs
        return report


@pytest.mark.timeout(300)
def test_a_chaos_run(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "3"))
    counts = {"kill worker": 10, "kill broker": 6, "kill valkey": 4, "cut lines": 2}
    report = chaos_run(tmp_path, 5_000, counts, seed, 240.0)
    assert report.reaped, "no kill has hit a worker that held a run"


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_the_full_chaos_run(tmp_path: Path) -> None:
    """``CHAOS_RUNS`` and ``CHAOS_KILLS`` scale it.

    Six kills in ten hit a worker, a quarter a broker, the rest Valkey; for five kills there are one pause and
    one cut or stall of the lines to a broker.
    """
    runs = int(os.environ.get("CHAOS_RUNS", "100000"))
    kills = int(os.environ.get("CHAOS_KILLS", "100"))
    seed = int(os.environ.get("CHAOS_SEED", str(random.randrange(1_000_000))))
    share = {"kill worker": 0.6, "kill broker": 0.25, "kill valkey": 0.15}
    share |= {"pause worker": 0.1, "pause broker": 0.06, "pause valkey": 0.04}
    share |= {"cut lines": 0.15, "hold lines": 0.05}
    counts = {name: max(1, round(kills * part)) for name, part in share.items()}
    chaos_run(tmp_path, runs, counts, seed, 3 * 3600.0)
