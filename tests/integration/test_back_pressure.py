"""Full queues, slow stores and absent brokers, with real processes: callers are told, or wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet
from tests.integration.harness import wait_until

TASKS = """
    import os
    import time
    from prefect_lite import task

    @task
    def add(x, y=0):
        return x + y

    @task
    def slow(x):
        with open("executed.txt", "a") as file:
            print(x, file=file)
        time.sleep(0.1)
        return x
"""

PATIENT = """
    import asyncio
    import sys
    import threading
    import tasks
    from prefect_lite import batch
    from prefect_lite.client.runtime import get_runtime

    count = int(sys.argv[1])
    print("begun", flush=True)
    with batch(queue_timeout=60):
        futures = [tasks.add.delay(n) for n in range(count)]
        futures += tasks.add.map(range(count), deferred=True)
    print("batch done", flush=True)

    def single():
        for n in range(5):
            futures.append(tasks.add.apply_async((n,), queue_timeout=60))

    async def several():
        asked = [tasks.add.aapply_async((n,), queue_timeout=60) for n in range(20)]
        futures.extend(await asyncio.gather(*asked))

    threads = [threading.Thread(target=single) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(several())
    for thread in threads:
        thread.join()
    values = [future.result(timeout=60) for future in futures]
    ids = {future.task_run_id for future in futures}
    assert len(ids) == len(futures) == 2 * count + 40
    expected = [*range(count), *range(count)] + [*range(5)] * 4 + [*range(20)]
    assert sorted(values) == sorted(expected)
    assert get_runtime()._allowance.runs == 0
    print("all right")
"""

IMPATIENT = """
    import time
    import tasks
    from prefect_lite.exceptions import QueueFull

    while True:
        started = time.monotonic()
        try:
            tasks.add.delay(1)  # a broker that has not read the queue's length yet takes some
        except QueueFull as error:
            print("refused:", error)
            assert time.monotonic() - started < 5
            break
"""

WITHOUT_STORE = """
    import os
    import sys
    import time
    import tasks
    from prefect_lite.exceptions import StoreUnavailable

    tasks.add.delay(0)
    print("connected", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    try:
        tasks.add.delay(1)
    except StoreUnavailable as error:
        print("refused:", error, flush=True)
    future = tasks.add.apply_async((20, 22), queue_timeout=60)
    print("accepted", future.result(timeout=30))
"""


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    brokers, settings = getattr(request, "param", (3, {}))
    made = Fleet(tmp_path, brokers, **settings)
    made.write("tasks.py", TASKS)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


def waiting(fleet: Fleet) -> int:
    assert fleet.server is not None
    with fleet.server.client() as client:
        namespace = fleet.settings.namespace
        lists = client.keys(f"pl:{{{namespace}:*}}:ready:*")
        return sum(client.llen(name) for name in lists)


class StandsStill:
    """True when a file has not grown for 60 looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = -1
        self.looks = 0

    def __call__(self) -> bool:
        size = self.path.stat().st_size
        self.looks = self.looks + 1 if size == self.size else 0
        self.size = size
        return self.looks > 60


@pytest.mark.parametrize("fleet", [(3, {"max_queued_total": 40})], indirect=True)
def test_callers_wait_for_room(fleet: Fleet) -> None:
    patient = [
        fleet.start_client(fleet.write(f"patient{n}.py", PATIENT), "150", urls=fleet.urls[n:])
        for n in range(2)
    ]
    wait_until(lambda: waiting(fleet) >= 40, what="a full queue")
    for one in patient:
        one.wait_for("begun")
    impatient = fleet.start_client(fleet.write("impatient.py", IMPATIENT))
    assert impatient.wait() == 0
    assert "refused: " in impatient.output, impatient.output
    assert "max_queued_total allows 40" in impatient.output
    assert "The run of tasks.add was not accepted" in impatient.output
    # Three brokers, so the excess is bounded, however long the two clients go on asking.
    assert 40 <= waiting(fleet) <= 120
    for _ in range(2):
        fleet.start_worker("tasks", "--limit", "8")
    for one in patient:
        assert one.wait(60) == 0, one.output
        assert "all right" in one.output
    fleet.check_history()


@pytest.mark.parametrize("fleet", [(1, {"redis_wait_seconds": 0.4})], indirect=True)
def test_callers_wait_for_a_store_that_is_away(fleet: Fleet) -> None:
    gate = fleet.project / "go"
    fleet.start_worker("tasks")
    client = fleet.start_client(fleet.write("script.py", WITHOUT_STORE), str(gate))
    client.wait_for("connected")
    assert fleet.server is not None
    fleet.server.freeze()
    try:
        gate.touch()
        client.wait_for("refused:", 20)
        assert "Redis did not answer within 0.4 s" in client.output
        assert "may have been stored" in client.output
    finally:
        fleet.server.thaw()
    assert client.wait(30) == 0, client.output
    assert "accepted 42" in client.output
    fleet.check_history()


@pytest.mark.parametrize("fleet", [(1, {"limit": 4})], indirect=True)
def test_results_of_a_worker_without_a_broker_are_bounded_by_its_limit(fleet: Fleet) -> None:
    script = """
        import tasks
        futures = tasks.slow.map(range(40), deferred=True)
        print("sent", flush=True)
        assert futures.result(timeout=60) == list(range(40))
        print("all right")
    """
    client = fleet.start_client(fleet.write("script.py", script))
    client.wait_for("sent")
    fleet.start_worker("tasks")
    executed = fleet.project / "executed.txt"
    wait_until(lambda: executed.exists() and len(executed.read_text().split()) >= 4)
    before = len(executed.read_text().split())
    fleet.kill_broker_at(0)

    wait_until(StandsStill(executed), what="the worker to run out of work")
    # What it held, and what it had been sent ahead: never the whole queue.
    alone = len(executed.read_text().split()) - before
    assert alone <= 12, alone
    fleet.start_broker(0)
    assert client.wait(60) == 0, client.output
    assert "all right" in client.output
    fleet.check_history()
