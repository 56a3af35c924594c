"""The worker's side of a connection: reconnects, logs, status, draining."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from prefect_lite_worker.app import WorkerApp
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.logging import get_run_logger

go = threading.Event()


@pytest.fixture(autouse=True)
def _closed() -> Any:
    go.clear()
    yield
    go.set()


@task(key="c.waits")
def waits() -> str:
    go.wait(20)
    return "waited"


@task(key="c.awaits")
async def awaits() -> str:
    await asyncio.to_thread(go.wait, 20)
    return "awaited"


@task(key="c.prints", log_prints=True)
def prints(number: int) -> None:
    print("line", number)
    get_run_logger().warning("careful %d", number)


@task(key="c.aprints", log_prints=True)
async def aprints(number: int) -> None:
    print("line", number)
    await asyncio.sleep(0.001)
    print("end", number)


def test_a_run_survives_a_lost_connection(broker: Any, serve: Any) -> None:
    serve(waits, awaits)
    runs = [broker.push("c.waits"), broker.push("c.awaits")]
    for run_id in runs:
        broker.wait_running(run_id)
    broker.cut()
    wait_until(lambda: broker.connections == 2)
    go.set()
    assert [broker.outcome(run_id) for run_id in runs] == ["waited", "awaited"]


def test_an_end_without_a_connection_is_told_later(broker: Any, serve: Any) -> None:
    served = serve(waits)
    run_id = broker.push("c.waits")
    broker.wait_running(run_id)
    broker.acknowledge = False
    go.set()
    wait_until(lambda: run_id in broker.finished)
    broker.finished.clear()
    broker.acknowledge = True
    broker.cut()
    assert broker.outcome(run_id) == "waited"
    wait_until(lambda: not served.app._parts.work.unacknowledged)


def test_prints_and_logs_reach_the_broker_run_by_run(broker: Any, serve: Any) -> None:
    serve(prints, aprints)
    runs = {broker.push(key, number): number for number in range(10) for key in ("c.prints", "c.aprints")}
    for run_id in runs:
        assert broker.end(run_id).type == "COMPLETED"
    lines: dict[str, list[str]] = {}
    for log in broker.logs:
        lines.setdefault(log.run_id, []).extend(line[3].rpartition("| ")[2] for line in log.lines)
    for run_id, number in runs.items():
        first, second = lines[run_id]
        assert first == f"line {number}"
        assert second in (f"careful {number}", f"end {number}")


def test_the_status_server(broker: Any, serve: Any) -> None:
    served = serve(waits, limit=3, status_server_port=0)
    run_id = broker.push("c.waits")
    broker.wait_running(run_id)

    def get(path: str) -> dict[str, Any]:
        port = served.app._status.port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return json.load(answer)

    status = get("/status")
    assert get("/health") == {"status": "ok"}
    assert status["limit"] == 3
    assert status["current"] == 1
    assert status["available"] == 2
    assert status["tasks"] == ["c.waits"]
    assert status["connected"] is True
    assert status["broker"] == "scripted"
    assert list(status["in_flight"]["c.waits"]) == [run_id]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("/other")
    go.set()
    broker.end(run_id)
    wait_until(lambda: get("/status")["finished"] == 1)


def test_a_taken_status_port_is_a_sentence(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        app = WorkerApp([waits], settings=settings, status_server_port=other.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"can't listen on 127\.0\.0\.1"):
            app.serve()


def test_the_timeout_returns(settings: Any, broker: Any) -> None:
    began = time.monotonic()
    WorkerApp([waits], settings=settings).serve(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 3
    wait_until(lambda: broker.goodbyes)


def test_stopping_lets_runs_finish(broker: Any, serve: Any) -> None:
    served = serve(waits)
    run_id = broker.push("c.waits")
    broker.wait_running(run_id)
    served.app.stop("the test says so")
    wait_until(lambda: broker.served[-1] == [])
    late = broker.push("c.waits")
    wait_until(lambda: late in broker.released)
    go.set()
    served.wait()
    assert broker.outcome(run_id) == "waited"
    assert not set(broker.released) & {run_id}


def test_a_second_stop_hands_back_at_once(broker: Any, serve: Any) -> None:
    served = serve(waits)
    run_id = broker.push("c.waits")
    broker.wait_running(run_id)
    served.app.stop("first")
    wait_until(lambda: broker.served[-1] == [])
    served.app.stop("second")
    served.wait()
    assert run_id in broker.released
    assert run_id not in broker.finished


def test_aserve_can_be_cancelled(broker: Any, settings: Any) -> None:
    ended: list[str] = []

    @task(key="c.hangs")
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> str:
        serving = asyncio.create_task(WorkerApp([hangs, waits], settings=settings).aserve())
        runs = [broker.push("c.hangs"), broker.push("c.waits")]
        await asyncio.to_thread(wait_until, lambda: all(broker.is_running(run_id) for run_id in runs))
        go.set()
        await asyncio.to_thread(wait_until, lambda: runs[1] in broker.finished)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert ended == ["cancelled"]
        return runs[0]

    run_id = asyncio.run(main())
    assert run_id in broker.released
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefect-lite")]


def test_a_careful_run_is_stopped_before_its_lease_ends(broker: Any, serve: Any) -> None:
    ended: list[float] = []

    @task(key="c.careful", stop_on_lost_contact=True)
    def careful() -> None:
        try:
            while not go.is_set():
                pass
        finally:
            ended.append(time.monotonic())

    serve(careful, waits)
    runs = [broker.push("c.careful"), broker.push("c.waits")]
    for run_id in runs:
        broker.wait_running(run_id)
    began = time.monotonic()
    broker.refuse = True
    broker.cut()
    wait_until(lambda: ended)
    assert ended[0] - began < 1.5, "the lease"
    broker.refuse = False
    wait_until(lambda: runs[0] in broker.released)
    go.set()
    assert broker.outcome(runs[1]) == "waited", "the other one may go on"


def test_serve_needs_a_loop_of_its_own(settings: Any) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="await aserve"):
            WorkerApp([waits], settings=settings).serve()

    asyncio.run(main())


def test_a_worker_without_a_broker_waits_for_one(settings: Any) -> None:
    WorkerApp([waits], settings=settings).serve(timeout=0.3)
