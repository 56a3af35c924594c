"""``python -m prefect_lite_broker`` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefect_lite.embedded.home import load_or_create_tokens
from prefect_lite.protocol.messages import Goodbye, Submit
from prefect_lite.settings import load_settings
from tests.integration.broker.raw_peer import RawPeer, dial, new_id
from tests.tools.server import ValkeyServer
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a broker process with a home of its own; stderr goes to ``tmp_path/log``."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_LITE_")}
    env["PREFECT_LITE_HOME"] = str(tmp_path / "home")
    env["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "worker", ROOT / "broker")))
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, **more: str) -> subprocess.Popen[str]:
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *(args or ("-m", "prefect_lite_broker"))],
                env={**env, **more}, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def log_of(directory: Path) -> str:
    return (directory / "log").read_text()


async def test_serves_until_a_signal(start: Start, tmp_path: Path, valkey: ValkeyServer) -> None:
    process = start("-m", "prefect_lite_broker", "--redis-url", valkey.url, "--port", "0",
                    "--namespace", f"t{new_id()}")  # fmt: skip
    wait_until(lambda: "listens on" in log_of(tmp_path), 10)
    address = re.findall(r"ws://\S+", log_of(tmp_path))[0]
    namespace = process.args[-1]  # type: ignore[index]
    # It made its own tokens, and clients of the same home find them.
    tokens = load_or_create_tokens(load_settings(home=tmp_path / "home"))
    peer = RawPeer(await dial(address, token=tokens.client))
    await peer.hello("client", str(namespace))
    await peer.submit(body=b"\x80\x05cos\nsystem\n(S'touch /tmp/x'\ntR.")
    await peer.send(Submit(new_id(), "tasks.add", b"\x00" * 60_000))
    process.send_signal(signal.SIGTERM)
    await peer.expect(Goodbye)
    assert await peer.closed() == 1012
    assert process.wait(10) == 0
    assert "Stopping: SIGTERM" in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "Which Redis?"),
        (["--redis-url", "unix:///nowhere/at/all.sock"], "Redis"),
        (["--redis-url", "ftp://x"], "PREFECT_LITE_REDIS_URL"),
        (["--redis-url", "VALKEY", "--host", "0.0.0.0", "--port", "0"], "without TLS"),
        (["--redis-url", "VALKEY", "--host", "0.0.0.0", "--port", "0", "--no-auth"], "without tokens"),
        (["--redis-url", "VALKEY", "--port", "TAKEN"], "Can't listen on 127.0.0.1:"),
        (["--redis-url", "VALKEY", "--unix", "/tmp/" + "x" * 120], "bytes or more"),
    ],
)
def test_what_can_not_work_is_one_sentence(
    start: Start, tmp_path: Path, valkey: ValkeyServer, args: list[str], sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = {"VALKEY": valkey.url, "TAKEN": port}
        process = start("-m", "prefect_lite_broker", *(words.get(arg, arg) for arg in args),
                        PREFECT_LITE_REDIS_WAIT_SECONDS="0.3")  # fmt: skip
        assert process.wait(15) == 1
    log = log_of(tmp_path)
    assert sentence in log
    assert "Traceback" not in log, log


def test_strict_refuses_a_store_that_may_lose_runs(start: Start, tmp_path: Path) -> None:
    server = ValkeyServer(appendonly="no")
    server.start()
    try:
        process = start("-m", "prefect_lite_broker", "--redis-url", server.url, "--port", "0", "--strict")
        assert process.wait(15) == 1
    finally:
        server.close()
    assert "because of --strict: appendonly is off" in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)


def test_loads_no_tasks_and_no_pickles(start: Start, tmp_path: Path) -> None:
    code = (
        "import sys, prefect_lite_broker.__main__, prefect_lite_broker.app, prefect_lite_broker.redis_store;"
        "print(sorted({'cloudpickle', 'prefect_lite.tasks', 'prefect_lite.client'} & set(sys.modules)))"
    )
    assert start("-c", code).wait(15) == 0
    assert log_of(tmp_path) == "[]\n"
