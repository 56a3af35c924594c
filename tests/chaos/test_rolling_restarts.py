"""Every broker and every worker is restarted in turn, under load, and nobody notices."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.chaos.history import Report
from tests.integration.fleet import Fleet
from tests.integration.harness import PATIENT_TIMES, Running

PROGRAMS = Path(__file__).with_name("programs")
BROKERS, CLIENTS, WINDOW = 3, 2, 10
STOP_SECONDS = 30.0


def start_worker(fleet: Fleet) -> Running:
    """Start one, and wait until it serves."""
    worker = fleet.start_worker("chaos_tasks")
    worker.wait_for("Connected to broker", 30.0)
    return worker


def restart_all(fleet: Fleet, workers: list[Running]) -> None:
    """One round; each has to end by itself, and its replacement to serve, before the next is stopped."""
    for number in range(BROKERS):
        assert fleet.stop_broker_at(number, STOP_SECONDS) == 0
        fleet.start_broker(number)
    for number, worker in enumerate(workers):
        worker.signal(signal.SIGTERM)
        assert worker.wait(STOP_SECONDS) == 0, worker.output
        workers[number] = start_worker(fleet)


def rolling_restarts(directory: Path, rounds: int, seconds: float, *, workers: int, threads: int) -> Report:
    """Restart all brokers and so many workers, so often, under the load of so many threads per client."""
    fleet = Fleet(directory, BROKERS, **PATIENT_TIMES)
    try:
        for program in PROGRAMS.glob("*.py"):
            fleet.write(program.name, program.read_text())
        fleet.start_brokers()
        serving = [start_worker(fleet) for _ in range(workers)]
        load = fleet.project / "load_client.py"
        clients = [fleet.start_client(load, str(threads), str(WINDOW), str(seconds)) for _ in range(CLIENTS)]
        for client in clients:
            client.wait_for("under load")
        for _ in range(rounds):
            restart_all(fleet, serving)
        (fleet.project / "stop").touch()
        codes = [client.wait(60.0) for client in clients]
        told = [client.output.splitlines()[-1] for client in clients]
        report = fleet.check_history()
        print(told, report)
        assert codes == [0] * CLIENTS, [client.output[-3000:] for client in clients]
        assert report.acknowledged == report.ok == report.starts, report
        assert report.repeated == report.reaped == 0, report
        return report
    except BaseException:
        print(fleet.logs())
        raise
    finally:
        fleet.close()


@pytest.mark.timeout(300)
def test_rolling_restarts(tmp_path: Path) -> None:
    rolling_restarts(tmp_path, 1, 240.0, workers=3, threads=1)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_ten_rounds_of_rolling_restarts(tmp_path: Path) -> None:
    rolling_restarts(tmp_path, 10, 1700.0, workers=4, threads=4)
