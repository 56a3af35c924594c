"""What a client costs and leaves behind in a process: imports, forks, exits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from prefect_lite import task
from prefect_lite.client.runtime import get_runtime
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import ScriptedBroker

ROOT = Path(__file__).parents[3]
HEAVY = ("pydantic", "cloudpickle", "websockets", "uvloop", "asyncio", "redis", "typer", "rich", "msgpack")


@task
def add(x: int, y: int = 0) -> int:
    return x + y


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    assert (
        python(f"import sys, prefect_lite; print({loaded}, 'prefect_lite.tasks' in sys.modules)")
        == "[] False"
    )
    assert python(f"import sys; from prefect_lite import task; print({loaded})") == "[]"


def test_importing_the_protocol_loads_no_tasks() -> None:
    names = ("prefect_lite.tasks", "prefect_lite.encoding", "cloudpickle")
    code = f"import sys, prefect_lite.protocol.peer_session; print([n for n in {names} if n in sys.modules])"
    assert python(code) == "[]"


def test_a_program_that_only_delays_ends_at_once_and_quietly(broker: ScriptedBroker) -> None:
    code = "from prefect_lite import task\n@task(key='k')\ndef f(x): ...\nprint(f.delay(1).task_run_id.hex)"
    run_id = python(code)
    assert [submit.run_id for submit in broker.submits] == [run_id]
    wait_until(lambda: not broker.peers, 5, "the end of the connection")


def test_a_child_opens_its_own_connection(broker: ScriptedBroker) -> None:
    broker.execute = lambda x, y=0: x + y
    assert add.delay(1, 1).result(timeout=5) == 2
    before = broker.connections
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(add.delay(2, 2).result(timeout=5)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"4"
    os.close(reader)
    assert broker.connections == before + 1
    assert add.delay(3, 3).result(timeout=5) == 6
    assert broker.connections == before + 1


def test_a_child_does_not_hold_its_parents_connection(broker: ScriptedBroker) -> None:
    add.delay(1)
    peer = next(iter(broker.peers))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent says so
        os._exit(0)
    os.close(reader)
    try:
        get_runtime().close()
        wait_until(
            lambda: peer not in broker.peers, 5, "the broker to notice the end of the parent's connection"
        )
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def test_forking_while_threads_submit_does_not_hang_the_child(broker: ScriptedBroker) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            add.delay(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    statuses: list[Any] = []
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                add.delay(5)
                os._exit(7)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert statuses == [7] * 5
