"""Peers that do not read, and peers that say nothing, against a real broker process."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from prefect_lite.embedded.home import configured_tokens
from prefect_lite.protocol.messages import RunState, Watch
from tests.integration.broker.raw_peer import RawPeer, dial
from tests.integration.fleet import Fleet
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

TASKS = """
    import os
    from prefect_lite import task

    @task
    def blob(size):
        return os.urandom(size)
"""
LONG = {"lease_seconds": 60.0, "renew_seconds": 20.0}
"""So that the write deadline is what closes a connection, and not silence."""
MIB = 1024 * 1024


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


async def client(fleet: Fleet) -> RawPeer:
    token = configured_tokens(fleet.settings).client
    peer = RawPeer(await dial(fleet.urls[0], token=token))
    await peer.hello("client", fleet.settings.namespace)
    return peer


async def finished(fleet: Fleet, count: int, size: int) -> list[str]:
    """Ids of runs with large results."""
    worker = fleet.start_worker("tasks")
    script = fleet.write(
        "submit.py",
        f"""
        import tasks
        futures = [tasks.blob.delay({size}) for _ in range({count})]
        print(*(future.task_run_id.hex for future in futures if future.result(timeout=120)))
        """,
    )
    sent = fleet.start_client(script)
    await until(lambda: sent.process.poll() is not None, 150.0, "the results")
    assert sent.wait() == 0, sent.output
    worker.kill()
    run_ids = re.findall(r"\b[0-9a-f]{32}\b", sent.output)
    assert len(run_ids) == count, sent.output
    return run_ids


async def not_reading(fleet: Fleet, peers: int, runs: int, bound: float, each: int = 0) -> None:
    """Many peers ask for large results, all of them or ``each`` of its own, and do not read them."""
    run_ids = await finished(fleet, runs, MIB)
    assert fleet.brokers[0] is not None
    broker = psutil.Process(fleet.brokers[0].pid)
    deaf = [await client(fleet) for _ in range(peers)]
    before = most = broker.memory_info().rss
    begun = time.monotonic()
    for number, peer in enumerate(deaf):
        peer.ws.transport.pause_reading()
        await peer.send(Watch(run_ids[number * each :][:each] if each else run_ids))

    def all_closed() -> bool:
        nonlocal most
        most = max(most, broker.memory_info().rss)
        assert fleet.brokers[0] is not None
        return fleet.brokers[0].output.count("did not take a frame within") == peers

    await until(all_closed, bound, "the write deadlines")
    print(
        f"{peers} peers that do not read: the last was closed after {time.monotonic() - begun:.1f} s, "
        f"the broker grew by {(most - before) / MIB:.1f} MiB from {before / MIB:.1f} MiB"
    )
    reader = await client(fleet)
    run_ids = run_ids[:12]
    await reader.send(Watch(run_ids))
    for run_id in run_ids:
        # A result of this length comes in pieces, before its STATE.
        state = await reader.expect(RunState, lambda message, run_id=run_id: message.run_id == run_id)
        assert state.type == "COMPLETED"
        assert state.result is not None
    for peer in [*deaf, reader]:
        peer.drop()
    assert most - before <= 64 * MIB


@pytest.mark.parametrize("fleet", [{**LONG, "write_deadline_seconds": 1.0}], indirect=True)
async def test_peers_that_stop_reading_are_closed_and_their_results_stay(fleet: Fleet) -> None:
    await not_reading(fleet, peers=20, runs=12, bound=20.0)


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fleet", [LONG], indirect=True)
async def test_two_hundred_peers_that_stop_reading(fleet: Fleet) -> None:
    await not_reading(fleet, peers=200, runs=12, bound=60.0)


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fleet", [LONG], indirect=True)
async def test_two_hundred_peers_that_stop_reading_results_of_their_own(fleet: Fleet) -> None:
    await not_reading(fleet, peers=200, runs=400, bound=60.0, each=2)


def connect_silently(fleet: Fleet, count: int, stack: ExitStack, said: bytes) -> list[socket.socket]:
    """So many connections that send nothing, or part of a request."""
    opened: list[socket.socket] = []
    for _ in range(count):
        peer = stack.enter_context(socket.create_connection(("127.0.0.1", fleet.ports[0]), timeout=10))
        if said:
            peer.sendall(said)
        opened.append(peer)
    return opened


def is_closed(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return not peer.recv(4096)  # anything said before, such as a refusal, is read away
    except BlockingIOError:
        return False
    except OSError:
        return True


async def flood(fleet: Fleet, silent: int, handshakes: int, said: bytes, patience: float) -> list[float]:
    """Silent peers, and real handshakes beside them; returns the seconds each of those took, sorted."""
    taken: list[float] = []
    with ExitStack() as stack:
        peers = connect_silently(fleet, silent, stack, said)
        for _ in range(handshakes):
            begun = time.monotonic()
            real = await client(fleet)
            taken.append(time.monotonic() - begun)
            real.drop()
        open_before = len(peers)

        def all_dropped() -> bool:
            nonlocal peers
            peers = [peer for peer in peers if not is_closed(peer)]
            return not peers

        await until(all_dropped, patience, f"the end of {open_before} silent peers")
    taken.sort()
    p99 = taken[min(len(taken) - 1, int(0.99 * len(taken)))]
    print(
        f"{silent} silent peers ({said!r}): handshake median {taken[len(taken) // 2]:.4f} s, p99 {p99:.4f} s"
    )
    return taken


HALF = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: web"


@pytest.mark.parametrize("fleet", [{"handshake_timeout_seconds": 2.0}], indirect=True)
@pytest.mark.parametrize("said", [b"", HALF], ids=["nothing", "half a request"])
async def test_silent_peers_keep_nobody_out_and_are_dropped(fleet: Fleet, said: bytes) -> None:
    await flood(fleet, 300, 10, said, 15.0)


@pytest.mark.parametrize("fleet", [{"handshake_timeout_seconds": 60.0}], indirect=True)
async def test_few_descriptors_are_not_spent_on_silent_peers(fleet: Fleet) -> None:
    fleet.stop_broker_at(0)
    few = fleet.write(
        "few.py",
        """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        from prefect_lite_broker.__main__ import main
        sys.exit(main(sys.argv[1:]))
        """,
    )
    broker = fleet.start("few", str(few), "--port", str(fleet.ports[0]))
    await until(lambda: fleet.is_ready(0), 20.0, "the broker")
    with ExitStack() as stack:
        peers = connect_silently(fleet, 300, stack, b"")
        for _ in range(5):
            (await client(fleet)).drop()
        assert sum(map(is_closed, peers)) >= 300 - 64, "no more than a quarter of 256 may stay"
    assert "may open 256 files only" in broker.output


@pytest.mark.chaos
@pytest.mark.timeout(200)
@pytest.mark.parametrize("fleet", [{}], indirect=True)
@pytest.mark.parametrize("said", [b"", HALF], ids=["nothing", "half a request"])
async def test_two_thousand_silent_peers(fleet: Fleet, said: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    taken = await flood(fleet, 2_000, 200, said, 30.0)
    assert taken[197] <= 1.0
