"""Redis goes away, freezes, refuses and fills up under brokers, workers and a client that are real processes.

Nobody crashes or grows, what was accepted ends once, and work goes on within seconds of Redis' return.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.fleet import Fleet
from tests.integration.harness import Running
from tests.tools.server import ValkeyServer
from tests.tools.waiting import wait_until

PROGRESS_SECONDS = 5.0
"""From Redis' return until runs that were submitted after it have ended."""

GROWTH_BYTES = 64 << 20

THREADS = 4
BODY_BYTES = 20_000

TASKS = """
    from prefect_lite import task

    @task
    def measure(body):
        return len(body)
"""

CLIENT = f"""
    import sys, threading, time, uuid
    from pathlib import Path
    import tasks
    from prefect_lite.exceptions import BrokerUnreachable, QueueFull, StoreUnavailable
    from tests.chaos.recording import record

    stop, lock, counts = Path("stop"), threading.Lock(), {{"done": 0, "refused": 0}}

    def count(what):
        with lock:
            counts[what] += 1
            print(what, counts[what], flush=True)

    def submit(run_id):
        while True:
            try:
                return tasks.measure.apply_async(("x" * {BODY_BYTES},), run_id=run_id)
            except (BrokerUnreachable, StoreUnavailable, QueueFull):
                count("refused")
                time.sleep(0.05)

    def work():
        while not stop.exists():
            run_id = uuid.uuid4().hex
            record("expect", run=run_id, type="COMPLETED", value={BODY_BYTES})
            value = submit(run_id).result(timeout=100)
            record("outcome", run=run_id, type="COMPLETED", value=value)
            count("done")
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range({THREADS})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("over", flush=True)
"""


class Scene:
    """A fleet under a small load, on a Redis that is to have trouble."""

    def __init__(self, fleet: Fleet, server: ValkeyServer) -> None:
        self.fleet, self.server = fleet, server
        self.workers = [fleet.start_worker("tasks", urls=[url]) for url in fleet.urls]
        self.client = fleet.start_client(fleet.project / "client.py")
        self.went_on()

    def count(self, what: str) -> int:
        lines = [line for line in self.client.output.splitlines() if line.startswith(f"{what} ")]
        return int(lines[-1].split()[1]) if lines else 0

    def went_on(self, timeout: float = 20.0) -> float:
        """Wait until each thread of the client has had a run submitted and ended; returns the seconds."""
        began, before = time.monotonic(), self.count("done")
        wait_until(lambda: self.count("done") >= before + 2 * THREADS, timeout, "progress")
        return time.monotonic() - began

    @property
    def brokers(self) -> list[Running]:
        return [broker for broker in self.fleet.brokers if broker is not None]

    def memory(self) -> int:
        """Of the brokers, in bytes."""
        return sum(psutil.Process(broker.pid).memory_info().rss for broker in self.brokers)

    def check_alive(self) -> None:
        for process in (*self.brokers, *self.workers, self.client):
            assert process.process.poll() is None, f"{process.name} has ended:\n{process.output[-3000:]}"
            assert "Traceback" not in process.output, process.output[-3000:]

    def told(self) -> list[int]:
        """Lines that each broker has written about trouble with Redis."""
        return [
            sum("WARNING" in line and "Redis " in line for line in lines)
            for lines in (broker.output.splitlines() for broker in self.brokers)
        ]

    def ready(self) -> list[bool]:
        return [self.fleet.is_ready(number) for number in range(len(self.fleet.ports))]

    def over(self) -> None:
        """Let everything end, and have every run judged."""
        (self.fleet.project / "stop").touch()
        assert self.client.wait(30.0) == 0, self.client.output[-3000:]
        report = self.fleet.check_history()
        assert report.acknowledged == report.ok > 0


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    # With everysec a kill during an fsync loses what was answered meanwhile.
    server = ValkeyServer(appendfsync="always")
    server.start()
    fleet = Fleet(directory, 2, server=server, redis_wait_seconds=1.0)
    try:
        fleet.write("tasks.py", TASKS)
        fleet.write("client.py", CLIENT)
        fleet.start_brokers()
        yield Scene(fleet, server)
    except BaseException:
        print(fleet.logs())
        raise
    finally:
        fleet.close()
        server.close()


# -- what may befall a server: each begins, lasts, and is over when the function returns ---------------


def restart(server: ValkeyServer, last: Callable[[], None]) -> None:
    server.stop()
    last()
    server.start()


def kill(server: ValkeyServer, last: Callable[[], None]) -> None:
    server.kill()
    last()
    server.start()


def freeze(server: ValkeyServer, last: Callable[[], None]) -> None:
    server.freeze()
    last()
    server.thaw()


def read_only(server: ValkeyServer, last: Callable[[], None]) -> None:
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")
        last()
        client.replicaof("NO", "ONE")


def no_memory(server: ValkeyServer, last: Callable[[], None]) -> None:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        last()
        client.config_set("maxmemory", 0)


def full_disk(server: ValkeyServer, last: Callable[[], None]) -> None:
    with server.client() as client:
        client.config_set("appendfsync", "everysec")  # with always, the server ends itself
        server.fill_disk()
        wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "err", 5.0)  # type: ignore[index]
        last()
        server.free_disk()
        wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "ok", 5.0)  # type: ignore[index]
        client.config_set("appendfsync", "always")


def client_kill(server: ValkeyServer, last: Callable[[], None]) -> None:
    with server.client() as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)


def script_flush(server: ValkeyServer, last: Callable[[], None]) -> None:
    with server.client() as client:
        client.script_flush()


Trouble = Callable[[ValkeyServer, Callable[[], None]], None]
LASTING: list[Trouble] = [restart, kill, freeze, read_only, no_memory, full_disk]
PASSING: list[Trouble] = [client_kill, script_flush]


def befall(scene: Scene, trouble: Trouble, seconds: float) -> float:
    """Let it happen; returns how long after its end work went on."""
    memory, told = scene.memory(), scene.told()

    def last() -> None:
        """Until nobody is ready any more, and for so long."""
        ends = time.monotonic() + seconds
        wait_until(lambda: scene.ready() == [False, False], 10.0, "brokers that tell they are not ready")
        wait_until(lambda: time.monotonic() >= ends, seconds + 1.0)

    trouble(scene.server, last)
    took = scene.went_on()
    scene.check_alive()
    assert took <= PROGRESS_SECONDS
    assert scene.memory() - memory < GROWTH_BYTES
    lines = [after - before for before, after in zip(told, scene.told(), strict=True)]
    if trouble in LASTING:
        assert all(1 <= count <= 3 for count in lines), f"{lines} lines in the log"
    wait_until(lambda: scene.ready() == [True, True], PROGRESS_SECONDS, "brokers that are ready again")
    print(lines, f"{trouble.__name__} of {seconds:g} s: progress after {took:.2f} s", flush=True)
    return took


def test_work_goes_on_after_every_trouble(tmp_path: Path) -> None:
    with scene(tmp_path) as here:
        for trouble in (*LASTING, *PASSING):
            # A frozen Redis for longer than a lease, which nobody may be blamed for.
            befall(here, trouble, 2.0 if trouble is freeze else 0.3)
        assert here.count("refused") > 0
        here.over()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_twenty_of_twenty(tmp_path: Path) -> None:
    """Redis is away for a minute, twenty times, for every reason."""
    seconds = float(os.environ.get("TROUBLE_SECONDS", "60"))
    rounds = int(os.environ.get("TROUBLE_ROUNDS", "20"))
    with scene(tmp_path) as here:
        took = [befall(here, LASTING[number % len(LASTING)], seconds) for number in range(rounds)]
        here.over()
    print(f"progress after {', '.join(f'{one:.2f}' for one in took)} s; at most {max(took):.2f}")
    assert len(took) == rounds
