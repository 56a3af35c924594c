"""Short scenes in which one promise is put to the test; each says what the checker makes of it.

A scene is played twice: by the product as it is, and with the fault that takes the promise out.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from prefect_lite.embedded.home import load_or_create_tokens
from prefect_lite.protocol.messages import Watch
from tests.chaos.events import Events, read_events
from tests.chaos.history import Report
from tests.chaos.recording import Recorder
from tests.chaos.run import FAULT_VARIABLE
from tests.integration.broker.raw_peer import RawPeer, dial
from tests.integration.fleet import Fleet
from tests.integration.harness import Running
from tests.tools.waiting import until, wait_until

PROGRAMS = Path(__file__).with_name("programs")
DEADLINE_SECONDS = 1.0
CUT_SECONDS = 5.0
"""A stalled peer is to be cut within this; the write deadline is a second."""
BIG_RUNS = 24


class Scene:
    """A fleet with a fault, or none.

    Args:
        fleet: Not started.
        patience: Seconds the client waits for the ends of its runs.
    """

    def __init__(self, fleet: Fleet, patience: float) -> None:
        self.fleet = fleet
        self._patience = patience

    def client(self, *words: str, at: int | None = None) -> Running:
        urls = None if at is None else [self.fleet.urls[at]]
        return self.fleet.start_client(
            self.fleet.project / "fault_client.py", str(self._patience), *words, urls=urls
        )

    def worker(self, at: int | None = None) -> Running:
        return self.fleet.start_worker("fault_tasks", urls=None if at is None else [self.fleet.urls[at]])

    def events(self) -> Events:
        return read_events(self.fleet.history)

    def started(self, name: str) -> set[int]:
        """Pids of the workers that have started the run."""
        return {int(path.suffix[1:]) for path in self.fleet.project.glob(f"{name}.started.*")}

    def open(self, gate: str) -> None:
        (self.fleet.project / gate).touch()

    def state_of(self, run_id: str) -> str:
        """The letter in Redis."""
        assert self.fleet.server is not None
        with self.fleet.server.client() as redis:
            key = f"pl:{{{self.fleet.settings.namespace}:0}}:r:{run_id}"
            return (redis.hget(key, "st") or b"").decode()

    def over(self, client: Running) -> Report:
        """Wait for the client, and judge."""
        assert client.wait(60.0) == 0, client.output
        return self.fleet.report_history()


@contextmanager
def scene(
    directory: Path, fault: str = "", *, brokers: int = 1, patience: float = 40.0, **settings: float
) -> Iterator[Scene]:
    """A fleet whose processes have the fault."""
    fleet = Fleet(directory, brokers, **settings)
    fleet.env[FAULT_VARIABLE] = fault
    try:
        for program in PROGRAMS.glob("fault_*.py"):
            fleet.write(program.name, program.read_text())
        fleet.start_brokers()
        yield Scene(fleet, patience)
    except BaseException:
        print(fleet.logs())
        raise
    finally:
        fleet.close()


def sent(client: Running, name: str, word: str = "sent") -> str:
    """Wait until the client has sent a run; returns its id."""
    client.wait_for(f"{word} {name} ")
    return client.output.split(f"{word} {name} ")[1].split()[0]


def a_frozen_worker_comes_back(scene: Scene) -> Report:
    """Its lease has ended and another worker has its run; then it reports an outcome all the same."""
    workers = {worker.pid: worker for worker in (scene.worker(), scene.worker())}
    client = scene.client("hold:a")
    (first,) = wait_until(lambda: scene.started("a"), 15.0, "the first start")
    os.kill(first, signal.SIGSTOP)
    try:
        both = wait_until(
            lambda: len(scene.started("a")) == 2 and scene.started("a"), 15.0, "the second start"
        )
        (second,) = both - {first}
        scene.open(f"a.open.{first}")
    finally:
        os.kill(first, signal.SIGCONT)
    run_id = sent(client, "a")
    stopped = "is lost; stopping"

    def heard_of_it() -> bool:
        return bool(scene.events().runs[run_id].commits) or stopped in workers[first].output

    wait_until(heard_of_it, 15.0, "the frozen worker's outcome, or that it gave up")
    scene.open(f"a.open.{second}")
    return scene.over(client)


def a_worker_is_killed(scene: Scene) -> Report:
    """Another one is there to take its run."""
    workers = {worker.pid: worker for worker in (scene.worker(), scene.worker())}
    client = scene.client("hold:a")
    (first,) = wait_until(lambda: scene.started("a"), 15.0, "the start")
    workers[first].kill()
    scene.open("a.open")
    return scene.over(client)


def redis_is_away_when_a_run_is_submitted(scene: Scene) -> Report:
    """The broker is killed before Redis comes back: only what was not acknowledged may be gone."""
    fleet = scene.fleet
    assert fleet.server is not None
    client = scene.client("hold:warm", "gate:now", "hold:a")
    sent(client, "warm")
    fleet.server.kill()
    scene.open("now")
    run_id = sent(client, "a", "sending")

    def arrived() -> bool:
        run = scene.events().runs.get(run_id)
        return run is not None and run.arrived and (run.acknowledged or not fault)

    fault = bool(fleet.env[FAULT_VARIABLE])
    wait_until(arrived, 15.0, "the submit at the broker")
    fleet.kill_broker_at(0)
    fleet.server.start()
    fleet.start_broker(0)
    scene.worker()
    scene.open("warm.open")
    scene.open("a.open")
    return scene.over(client)


def a_broker_is_killed_amid_a_commit(scene: Scene) -> Report:
    """As soon as the record says that the run has ended."""
    worker = scene.worker()
    client = scene.client("hold:a")
    run_id = sent(client, "a")
    wait_until(lambda: scene.started("a"), 15.0, "the start")
    scene.open("a.open")
    wait_until(lambda: scene.state_of(run_id) == "c", 15.0, "the end in Redis")
    scene.fleet.kill_broker_at(0)
    scene.fleet.start_broker(0)
    report = scene.over(client)
    assert worker.process.poll() is None
    return report


def hints_are_lost_while_a_run_ends(scene: Scene) -> Report:
    """The client's broker is frozen and loses its subscription; the worker is at the other broker."""
    fleet = scene.fleet
    assert fleet.server is not None
    scene.worker(at=1)
    client = scene.client("hold:a", at=0)
    run_id = sent(client, "a")
    wait_until(lambda: scene.started("a"), 15.0, "the start")
    frozen = fleet.brokers[0]
    assert frozen is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        with fleet.server.client() as redis:
            redis.client_kill_filter(_type="pubsub")
        scene.open("a.open")
        wait_until(lambda: scene.state_of(run_id) == "c", 15.0, "the end in Redis")
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    return scene.over(client)


def a_peer_stops_reading(scene: Scene) -> Report:
    """It watches runs with large results and takes none of them."""
    fleet = scene.fleet
    scene.worker()
    names = [f"big{number}" for number in range(BIG_RUNS)]
    client = scene.client(*(f"big:{name}" for name in names))
    assert client.wait(60.0) == 0, client.output
    run_ids = [sent(client, name) for name in names]
    asyncio.run(_stall(fleet, run_ids))
    return fleet.report_history()


def _ports(pid: int) -> set[int]:
    """Where the process is connected to: the end of a connection can't reach a peer that does not read."""
    connections = psutil.Process(pid).net_connections("tcp")
    return {one.raddr.port for one in connections if one.raddr}


async def _stall(fleet: Fleet, run_ids: list[str]) -> None:
    out = Recorder(fleet.history, "test")
    broker = fleet.brokers[0]
    assert broker is not None
    token = load_or_create_tokens(fleet.settings).client
    peer = RawPeer(await dial(fleet.urls[0], token=token))
    try:
        await peer.hello("client", fleet.settings.namespace)
        port = peer.ws.local_address[1]
        peer.ws.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        await peer.send(Watch(run_ids))
        out.write("stalled", peer=f"port {port}", seconds=CUT_SECONDS)
        # It still says that it is there: a silent peer is cut for another reason.
        async with peer.beating(0.2):
            with suppress(AssertionError):  # then the checker has something to say
                await until(lambda: port not in _ports(broker.pid), CUT_SECONDS)
                out.write("cut", peer=f"port {port}")
    finally:
        peer.drop()
        out.close()
