"""Client programs against a real local broker: web applications, nesting, idle clients, wrong tokens."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.integration.harness import PrivateHome, Running, wait_until

TASKS = """
    import sys
    from prefect_lite import task
    from prefect_lite.task_worker import serve

    @task
    def add(x, y):
        return x + y

    @task
    def nested(depth):
        return 1 + nested.delay(depth - 1).result(timeout=20) if depth else 0

    if __name__ == "__main__":
        serve(add, nested, limit=int(sys.argv[1]))
"""

WEB = """
    import asyncio
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from tasks import add

    app = FastAPI()

    @app.get("/sync/{x}")
    def sync(x: int) -> int:
        return add.delay(x, 1).result(timeout=20)

    @app.get("/async/{x}")
    async def coroutine(x: int) -> int:
        futures = [await add.adelay(x, n) for n in range(3)]
        return sum(await asyncio.gather(*futures))

    with TestClient(app) as client:
        for x in range(3):
            for path in ("sync", "async"):
                answer = client.get(f"/{path}/{x}")
                print(path, x, answer.status_code, answer.json())
"""


IDLE = """
    import signal, time
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # in the client's thread too
    import tasks
    from prefect_lite.client.runtime import get_runtime

    print("delayed", tasks.add.delay(1, 2).task_run_id, flush=True)
    while get_runtime().connected or not get_runtime()._link._connection.resting:
        time.sleep(0.01)
    print("resting", flush=True)
    signal.sigwait({signal.SIGUSR1})
    print("again", tasks.add.delay(1, 2).task_run_id, flush=True)
"""


def start_worker(home: PrivateHome, limit: int) -> Running:
    home.write("tasks.py", TASKS)
    worker = home.start("worker", "tasks.py", str(limit))
    worker.wait_for("Connected")
    return worker


def test_endpoints_of_a_web_application_delay_and_await(home: PrivateHome) -> None:
    start_worker(home, 4)
    home.write("web.py", WEB)
    output = home.python("import web", timeout=60).stdout.splitlines()
    assert output == [
        line for x in range(3) for line in (f"sync {x} 200 {x + 1}", f"async {x} 200 {3 * x + 3}")
    ]


def test_a_run_that_waits_for_another_lends_its_only_slot(home: PrivateHome) -> None:
    start_worker(home, 1)
    assert home.python("import tasks; print(tasks.nested.delay(4).result(timeout=30))").stdout.split() == [
        "4"
    ]


def test_an_idle_client_leaves_a_stopped_broker_alone(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    home.write("client.py", IDLE)
    client = home.start("client", "client.py")
    client.wait_for("delayed")
    first = home.broker_pid
    assert home.broker_pid
    home.cli("broker", "stop")
    client.wait_for("resting")
    assert home.broker_pid == 0
    assert home.status.state != "running"
    client.signal(signal.SIGUSR1)
    client.wait_for("again", 30)
    assert home.broker_pid not in (0, first)
    assert client.wait() == 0


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_wrong_token_is_told_at_once(home: PrivateHome, port: int) -> None:
    broker = home.start(
        "broker", "-m", "prefect_lite_broker", "--embedded", "--host", "127.0.0.1", "--port", str(port)
    )
    url = f"ws://127.0.0.1:{port}"
    wait_until(lambda: broker.process.poll() is not None or listening(port), 20, "the broker's port")
    home.env["PREFECT_LITE_BROKER_URL"] = url
    home.write("tasks.py", TASKS)
    code = """
        import time, tasks
        from prefect_lite.exceptions import AuthenticationFailed
        start = time.monotonic()
        try:
            tasks.add.delay(1, 2)
        except AuthenticationFailed as exc:
            print("refused", time.monotonic() - start < 3, exc)
        else:
            print("accepted")
    """
    assert home.python(code).stdout.split()[0] == "accepted", broker.output
    home.env["PREFECT_LITE_CLIENT_TOKEN"] = "nonsense"
    output = home.python(code).stdout
    assert output.startswith("refused True")
    assert "PREFECT_LITE_CLIENT_TOKEN" in output


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
