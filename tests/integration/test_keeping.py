"""Entries, locks and blocks through real brokers, from real clients, while brokers and clients are killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from prefect_lite.client import keeping
from prefect_lite.testing import Harness
from prefect_lite.thread_or_loop import in_thread
from tests.integration.fleet import Fleet
from tests.integration.harness import PATIENT_TIMES, Running, wait_until

MIB = 1 << 20

EVERYTHING = """
    # Every answer has to be exact, whatever becomes of the brokers.
    import os, pathlib
    from prefect_lite.client import keeping
    from prefect_lite.thread_or_loop import in_thread as wait

    me, number = f"p{os.getpid()}", 0
    large = os.urandom(1 << 20)
    while not pathlib.Path("over").exists():
        key = f"{me}-{number}"
        assert wait(keeping.take_lock(key, me, 60.0)) is True
        assert wait(keeping.take_lock(key, "you", 60.0)) is False
        assert wait(keeping.write_entry(key, large, 60.0, fence=me)) is True
        assert wait(keeping.write_entry(key, b"not mine", 60.0, fence="you")) is False
        assert wait(keeping.read_entry(key)) == large
        assert wait(keeping.renew_lock(key, me, 60.0)) is True
        assert wait(keeping.drop_lock(key, me)) is True
        assert wait(keeping.lock_holder(key)) is None
        assert wait(keeping.save_block("kind", key, b"document", False)) is True
        assert wait(keeping.save_block("kind", key, b"another", False)) is False
        assert wait(keeping.load_block("kind", key)) == b"document"
        assert wait(keeping.drop_block("kind", key)) is True
        assert wait(keeping.drop_block("kind", key)) is False
        assert wait(keeping.load_block("kind", key)) is None
        number += 1
        print("round", number, flush=True)
    print("all exact", flush=True)
"""

COUNTER = """
    # One at a time, or the count is wrong.
    import os, pathlib, time
    from prefect_lite.client import keeping
    from prefect_lite.thread_or_loop import in_thread as wait

    holder, done = f"p{os.getpid()}", 0
    while not pathlib.Path("over").exists():
        if not wait(keeping.take_lock("count", holder, 0.7)):
            time.sleep(0.002)
            continue
        count = int(wait(keeping.read_entry("count")) or b"0")
        if wait(keeping.write_entry("count", b"%d" % (count + 1), None, fence=holder)):
            done += 1
            print("counted", done, flush=True)
        wait(keeping.drop_lock("count", holder))
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, brokers=2, keep_wait_seconds=40, connect_timeout_seconds=40, **PATIENT_TIMES)
    made.start_brokers()
    yield made
    print(made.logs())
    made.close()


def steps(client: Running, word: str) -> int:
    """The number that the client has printed last."""
    said = re.findall(rf"^{word} (\d+)$", client.output, re.MULTILINE)
    return int(said[-1]) if said else 0


def test_brokers_that_are_killed_change_no_answer(fleet: Fleet) -> None:
    script = fleet.write("everything.py", EVERYTHING)
    clients = [fleet.start(f"client{number}", str(script)) for number in range(2)]
    wait_until(lambda: all(steps(client, "round") for client in clients), 20.0, "the first rounds")
    for number in (0, 1, 0, 1):
        before = [steps(client, "round") for client in clients]
        fleet.kill_broker_at(number)
        fleet.start_broker(number)
        wait_until(
            lambda before=before: all(
                steps(client, "round") > at or client.process.poll() is not None
                for client, at in zip(clients, before, strict=True)
            ),
            30.0,
            "all to go on",
        )
    (fleet.project / "over").touch()
    for client in clients:
        assert client.wait(60) == 0, client.output
        assert "all exact" in client.output
        assert "Traceback" not in client.output


def test_a_lock_lets_in_one_process_at_a_time_also_when_holders_are_killed(fleet: Fleet) -> None:
    script = fleet.write("counter.py", COUNTER)
    clients = [fleet.start(f"counter{number}", str(script)) for number in range(4)]
    killed, brokers = clients[:2], cycle((0, 1))
    for client in killed:
        wait_until(lambda: sum(steps(each, "counted") for each in clients) > 20, 30.0, "some counting")
        client.kill()
        number = next(brokers)
        fleet.kill_broker_at(number)
        fleet.start_broker(number)
        counted = {each: steps(each, "counted") for each in clients[2:]}
        # The killed one may have had the lock: it is free again by itself
        wait_until(
            lambda counted=counted: all(steps(each, "counted") > at for each, at in counted.items()),
            30.0,
            "others to count on",
        )
    (fleet.project / "over").touch()
    for client in clients[2:]:
        assert client.wait(60) == 0, client.output
    assert fleet.server is not None
    with fleet.server.client() as redis:
        entry = redis.get(f"pl:{{{fleet.settings.namespace}:0}}:keep:count")
    total = sum(steps(client, "counted") for client in clients)
    assert entry is not None
    # A killed one may have written and not have lived to say so
    assert total <= int(entry[1:]) <= total + len(killed)  # type: ignore[index,arg-type]


@pytest.mark.parametrize("size", [0, 65_537, 30 * MIB])
def test_bodies_of_any_length(harness: Harness, size: int) -> None:
    body = os.urandom(size)
    assert in_thread(keeping.write_entry("key", body)) is True
    assert in_thread(keeping.read_entry("key")) == body
    assert in_thread(keeping.entry_exists("key")) is True
    assert in_thread(keeping.drop_entry("key")) is True
    assert in_thread(keeping.read_entry("key")) is None


def test_saved_blocks_are_listed_to_the_last(harness: Harness) -> None:
    names = [(f"kind-{number % 3}", f"name-{number:04}") for number in range(1_100)]
    for slug, name in names:
        assert in_thread(keeping.save_block(slug, name, b"document", False))
    assert in_thread(keeping.list_blocks()) == sorted(names)


def test_a_store_that_is_away(fleet: Fleet) -> None:
    """The client hears it in a sentence, and goes on when the store is there again."""
    script = fleet.write(
        "patient.py",
        """
        import os
        from prefect_lite.client import keeping
        from prefect_lite.exceptions import StoreUnavailable
        from prefect_lite.thread_or_loop import in_thread as wait

        assert wait(keeping.write_entry("key", b"body"))
        print("kept", flush=True)
        input()
        try:
            wait(keeping.read_entry("key"))
        except StoreUnavailable as exc:
            print("refused", exc, flush=True)
        input()
        assert wait(keeping.read_entry("key")) == b"body"
        """,
    )
    assert fleet.server is not None
    env = {**fleet.env, "PREFECT_LITE_KEEP_WAIT_SECONDS": "2", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=fleet.project,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "kept\n"
        fleet.server.freeze()
        client.stdin.write("\n")
        client.stdin.flush()
        said = client.stdout.readline()
        fleet.server.thaw()
        assert said.startswith("refused The broker has not done 'keep.get' in time")
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.wait(60) == 0
