"""One run for one idempotency key or run id, whoever asks, how often, where, and whatever is cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_lite.run_ids import run_id_for
from tests.integration.fleet import Fleet
from tests.integration.harness import Running

TASKS = """
    import os
    import time
    from prefect_lite import task

    def note(word):
        descriptor = os.open("executed.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, f"{word}\\n".encode())
        os.close(descriptor)

    @task
    def count(word, y=0):
        note(word)
        return [word, y, os.getpid()]

    @task
    def double(x):
        note(x)
        return 2 * x
"""

EVERYBODY = """
    import json
    import sys
    import threading
    import time
    import tasks

    keys, threads, target = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    while not __import__("os").path.exists(target):
        time.sleep(0.005)
    found = []

    def ask(number):
        order = range(keys) if number % 2 else reversed(range(keys))
        asked = [(key, tasks.count.apply_async((f"k{key}",), idempotency_key=f"k{key}")) for key in order]
        found.extend((key, f.result(timeout=60), f.task_run_id.hex, f.state.name) for key, f in asked)

    started = [threading.Thread(target=ask, args=(n,)) for n in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    print("found", json.dumps(found))
"""


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    brokers, settings = getattr(request, "param", (1, {}))
    made = Fleet(tmp_path, brokers, **settings)
    made.write("tasks.py", TASKS)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


def executed(fleet: Fleet) -> Counter[str]:
    path = fleet.project / "executed.txt"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def value_of(client: Running, word: str) -> str:
    return client.output.split(f"{word} ", 1)[1].splitlines()[0]


def everybody_at_once(fleet: Fleet, clients: int, threads: int, keys: int) -> None:
    script = fleet.write("everybody.py", EVERYBODY)
    gate = fleet.project / "go"
    for _ in range(2):
        fleet.start_worker("tasks", "--limit", "8")
    running = [
        fleet.start_client(script, str(keys), str(threads), str(gate), urls=[fleet.urls[n % len(fleet.urls)]])
        for n in range(clients)
    ]
    gate.touch()
    outcomes: dict[int, set[str]] = {key: set() for key in range(keys)}
    answers = 0
    for client in running:
        assert client.wait(120) == 0, client.output
        for key, value, run_id, state in json.loads(value_of(client, "found")):
            assert (value[0], state) == (f"k{key}", "Completed")
            outcomes[key].add(json.dumps([value, run_id]))
            answers += 1
    assert answers == clients * threads * keys
    assert {key for key, found in outcomes.items() if len(found) != 1} == set()
    assert executed(fleet) == {f"k{key}": 1 for key in range(keys)}
    fleet.check_history()


@pytest.mark.parametrize("fleet", [(3, {"shards": 4})], indirect=True, ids=["4 shards"])
def test_one_run_for_a_key_that_everybody_asks_for(fleet: Fleet) -> None:
    everybody_at_once(fleet, clients=3, threads=2, keys=60)


@pytest.mark.chaos
@pytest.mark.parametrize("fleet", [(3, {}), (3, {"shards": 4})], indirect=True, ids=["one shard", "4 shards"])
def test_one_run_for_a_key_that_eight_processes_ask_for(fleet: Fleet) -> None:
    everybody_at_once(fleet, clients=8, threads=4, keys=200)


def test_keys_of_four_shards_are_spread_and_stay_in_theirs() -> None:
    shards = Counter(int(run_id_for("tasks.count", f"k{n}")[-3:], 16) % 4 for n in range(400))
    assert set(shards) == {0, 1, 2, 3}
    assert min(shards.values()) > 50
    assert len({run_id_for("tasks.count", "k")[-3:] for _ in range(20)}) == 1


MEANING = """
    import sys
    import uuid
    import tasks
    from prefect_lite import batch
    from prefect_lite.exceptions import IdempotencyConflict

    def refused(*args, **conditions):
        try:
            tasks.count.apply_async(args, **conditions)
        except IdempotencyConflict as error:
            return str(error)
        raise SystemExit("no conflict")

    first = tasks.count.apply_async(("a", 1), idempotency_key="k")
    assert tasks.count.apply_async(("a", 1), idempotency_key="k") == first
    text = refused("a", 2, idempotency_key="k")
    assert first.task_run_id.hex in text and "'k'" in text and "tasks.count" in text, text
    assert "Give the call another idempotency_key" in text, text
    assert tasks.double.apply_async((3,), idempotency_key="k") != first

    chosen = uuid.uuid4()
    own = tasks.count.apply_async(("b", 1), run_id=chosen)
    assert tasks.count.apply_async(("b", 1), run_id=chosen) == own
    assert own.task_run_id == chosen
    text = refused("b", 2, run_id=chosen)
    assert chosen.hex in text and "another idempotency_key or run_id" in text, text

    parent, another = tasks.double.delay(5), tasks.double.delay(6)
    child = tasks.double.apply_async((parent,), idempotency_key="child")
    assert tasks.double.apply_async((parent,), idempotency_key="child") == child
    try:
        tasks.double.apply_async((another,), idempotency_key="child")
        raise SystemExit("no conflict")
    except IdempotencyConflict as error:
        assert child.task_run_id.hex in str(error)

    with batch():
        together = [tasks.count.apply_async(("c",), idempotency_key="c") for _ in range(5)]
    assert len({future.task_run_id for future in together}) == 1

    assert own.result(timeout=20)[:2] == ["b", 1]
    assert child.result(timeout=20) == 20
    value = first.result(timeout=20)
    # It has ended: the key still stands for it, and its result is there.
    again = tasks.count.apply_async(("a", 1), idempotency_key="k")
    assert again == first and again.result(timeout=20) == value
    assert len({tuple(future.result(timeout=20)) for future in together}) == 1
    print("all right")
"""


@pytest.mark.parametrize("fleet", [(2, {"shards": 4})], indirect=True)
def test_what_a_key_stands_for(fleet: Fleet) -> None:
    fleet.start_worker("tasks")
    client = fleet.start_client(fleet.write("meaning.py", MEANING))
    assert client.wait(40) == 0, client.output
    assert "all right" in client.output
    assert executed(fleet) == {"a": 1, "b": 1, "c": 1, "3": 1, "5": 1, "6": 1, "10": 1}
    fleet.check_history()


FORGOTTEN = """
    import time
    import tasks

    first = tasks.count.apply_async(("a",), idempotency_key="k")
    value = first.result(timeout=20)
    ended = time.monotonic()
    while (again := tasks.count.apply_async(("a",), idempotency_key="k")) == first:
        assert time.monotonic() - ended < 20
        assert again.result(timeout=20) == value
        time.sleep(0.05)
    assert time.monotonic() - ended > 0.9
    again.result(timeout=20)
    print("all right")
"""


@pytest.mark.parametrize("fleet", [(1, {"idempotency_seconds": 1})], indirect=True)
def test_a_key_is_free_again_some_time_after_the_end(fleet: Fleet) -> None:
    fleet.start_worker("tasks")
    client = fleet.start_client(fleet.write("forgotten.py", FORGOTTEN))
    assert client.wait(40) == 0, client.output
    assert executed(fleet) == {"a": 2}
    fleet.check_history()


CUT = """
    import asyncio
    import os
    import sys
    import threading
    from tests.tools.proxy import Proxy

    port, cuts = int(sys.argv[1]), int(sys.argv[2])
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    proxy = Proxy(("127.0.0.1", port))
    asyncio.run_coroutine_threadsafe(proxy.start(("127.0.0.1", 0)), loop).result(10)
    os.environ["PREFECT_LITE_BROKER_URL"] = f"ws://127.0.0.1:{proxy.address[1]}"

    import tasks

    tasks.count.delay("first").result(timeout=20)
    ids, seen, number = [], 0, 0
    while proxy.cuts < cuts:
        number += 1
        proxy.cut_next_reply()  # of the SUBMIT, or now and then of a heartbeat
        key = f"k{number}" if number % 2 else None
        future = tasks.count.apply_async((f"n{number}",), idempotency_key=key)
        ids.append(future)
        if key is not None:
            assert tasks.count.apply_async((f"n{number}",), idempotency_key=key) == future
    for future in ids:
        future.result(timeout=60)
    assert len({future.task_run_id for future in ids}) == number
    print("cuts", proxy.cuts)
    print("calls", number)
"""


def cut_between_commit_and_reply(fleet: Fleet, cuts: int) -> None:
    fleet.start_worker("tasks")
    client = fleet.start_client(fleet.write("cut.py", CUT), str(fleet.ports[0]), str(cuts))
    assert client.wait(60 + cuts) == 0, client.output
    calls = int(value_of(client, "calls"))
    assert int(value_of(client, "cuts")) >= cuts
    wanted = {"first": 1, **{f"n{number}": 1 for number in range(1, calls + 1)}}
    assert executed(fleet) == wanted
    # Not a run in Redis that no call has the id of.
    assert fleet.server is not None
    with fleet.server.client() as client_:
        assert len(client_.keys(f"pl:{{{fleet.settings.namespace}:*}}:r:*")) == calls + 1
    fleet.check_history()


QUICK = {"backoff_min_seconds": 0.005, "backoff_max_seconds": 0.02, "shards": 4}


@pytest.mark.parametrize("fleet", [(1, QUICK)], indirect=True)
def test_cuts_between_commit_and_reply(fleet: Fleet) -> None:
    cut_between_commit_and_reply(fleet, 40)


@pytest.mark.chaos
@pytest.mark.parametrize("fleet", [(1, QUICK)], indirect=True)
def test_a_thousand_cuts_between_commit_and_reply(fleet: Fleet) -> None:
    cut_between_commit_and_reply(fleet, 1_000)
