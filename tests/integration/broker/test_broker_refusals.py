"""What a broker refuses, in words; nothing here may crash it or print a traceback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from prefect_lite_broker.app import Broker
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.protocol.codec import MAX_FRAME, encode_frame
from prefect_lite.protocol.messages import (
    PROTOCOL_NAME,
    Accepted,
    Answer,
    Cancel,
    Chunk,
    Error,
    Finish,
    Hello,
    Message,
    Query,
    Ready,
    Refused,
    Run,
    Serve,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import TOKENS, RawPeer, dial, new_id

pytestmark = pytest.mark.anyio

pack = cast("Callable[[Any], bytes]", msgpack.packb)


@pytest.fixture(autouse=True)
def _no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    noisy = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert noisy == []


async def http(broker: Broker, request: str) -> tuple[int, str]:
    """Send a raw HTTP request; returns status and body."""
    path = broker.addresses[0].removeprefix("ws+unix://")
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    await writer.wait_closed()
    if not answer:
        return 0, ""
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


# -- HTTP and tokens ----------------------------------------------------------------------------------


async def test_health_and_readiness(bench: Bench) -> None:
    (broker,) = bench.brokers
    assert await http(broker, "GET /healthz HTTP/1.1\nHost: x") == (200, "ok\n")
    status, body = await http(broker, "GET /readyz HTTP/1.1\nHost: x")
    assert (status, json.loads(body)["ready"]) == (200, True)
    assert (await http(broker, "GET /metrics HTTP/1.1\nHost: x"))[0] == 401
    token = TOKENS["client"]
    status, body = await http(broker, f"GET /metrics HTTP/1.1\nHost: x\nAuthorization: Bearer {token}")
    assert status == 200
    assert "prefect_lite_broker_connections 0\n" in body
    assert (await http(broker, "GET /nothing HTTP/1.1\nHost: x"))[0] == 404


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.1\nHost: x\nAuthorization: Bearer " + TOKENS["client"],
        "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello",
        "GET / HTTP/9.9\nHost: x",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET /" + "a" * 20_000 + " HTTP/1.1",
        "GET / HTTP/1.1\nAuthorization: Bearer a\nAuthorization: Bearer b",
    ],
)
async def test_odd_requests_get_an_error_or_nothing(bench: Bench, request_: str) -> None:
    status, _ = await http(bench.brokers[0], request_)
    assert status == 0 or status >= 400
    await bench.client()


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        ("", {}, 401),
        ("wrong-token-0123456789", {}, 401),
        (TOKENS["client"], {"Origin": "http://127.0.0.1"}, 403),
        ("", {"Origin": "http://127.0.0.1"}, 403),
    ],
)
async def test_wrong_tokens_and_browsers(
    bench: Bench, token: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await dial(bench.brokers[0].addresses[0], token=token, headers=headers)
    assert caught.value.response.status_code == status


async def test_a_token_opens_its_role_only(bench: Bench) -> None:
    peer = await bench.stranger("client")
    await peer.send(Hello(0, "worker", bench.namespace))
    assert (await peer.expect(Error))[::2] == ("role", True)
    assert await peer.closed() == 1008


async def test_another_namespace(bench: Bench) -> None:
    peer = await bench.stranger("client")
    await peer.send(Hello(0, "client", "elsewhere"))
    error = await peer.expect(Error)
    assert (error.code, error.fatal) == ("namespace", True)
    assert await peer.closed() == 1008


async def test_as_many_connections_as_allowed(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_connections=2)
    await bench.broker()
    await bench.client()
    await bench.client()
    with pytest.raises(InvalidStatus) as caught:
        await bench.client()
    assert caught.value.response.status_code == 503


async def test_silent_peers_do_not_keep_others_out(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_pending_handshakes=20)
    (broker,) = [await bench.broker(tcp=True)]
    port = int(broker.addresses[1].rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    try:
        client = await bench.client()
        await client.submit()
        # All beyond the limit were cut, oldest first.
        assert [await _is_cut(each) for each in silent[:40]] == [True] * 40
    finally:
        for each in silent:
            each.close()


async def _is_cut(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(peer, 1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


async def test_a_peer_without_hello_is_closed(make_bench: BenchMaker) -> None:
    bench = await make_bench(handshake_timeout_seconds=0.2)
    await bench.broker()
    peer = await bench.stranger()
    assert (await peer.expect(Error)).code == "handshake_timeout"
    assert await peer.closed() == 1008


async def test_a_peer_of_another_protocol_is_told_in_words(bench: Bench) -> None:
    path = bench.brokers[0].addresses[0].removeprefix("ws+unix://")
    for offered in (["prefect-lite.v9"], None):
        options: dict[str, Any] = {"additional_headers": {"Authorization": f"Bearer {TOKENS['client']}"}}
        with pytest.raises(InvalidStatus) as caught:
            await unix_connect(path, "ws://localhost/", subprotocols=offered, **options)
        response = caught.value.response
        assert response.status_code == 400
        assert response.headers["Sec-WebSocket-Protocol"] == PROTOCOL_NAME
        assert response.body is not None
        assert response.body.decode().startswith(f"This broker speaks {PROTOCOL_NAME}, not ")


async def test_a_socket_is_private_from_the_first_moment(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chmod", lambda *_args: pytest.fail("a moment too late"))
    bench = await make_bench()
    before = os.umask(0)
    try:
        await bench.broker()
        path = bench.brokers[0].addresses[0].removeprefix("ws+unix://")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


async def test_a_folder_that_others_may_write_to_is_refused(make_bench: BenchMaker) -> None:
    bench = await make_bench()
    bench.directory = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    try:
        for mode in (0o777, 0o1777, 0o720):
            bench.directory.chmod(mode)
            with pytest.raises(ConfigurationError, match="others"):
                await bench.broker()
        bench.directory.chmod(0o755)
        await bench.broker()
    finally:
        await bench.close()
        shutil.rmtree(bench.directory)


# -- frames -------------------------------------------------------------------------------------------

RUN = "0" * 32


@pytest.mark.parametrize(
    "frame",
    [
        b"", b"garbage", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 1_000, pack({"HELLO": 1}),
        pack([1, 2, 3]), pack([[]]), pack(["HELLO"]), os.urandom(4_096),
        encode_frame([Submit(RUN, "tasks.add", b"")]), pack([["HELLO"] * 3]), "text",
        b"\x91\x92\xc0" + b"\x90" * 10,
    ],
)  # fmt: skip
async def test_a_first_frame_that_is_no_hello(bench: Bench, frame: bytes | str) -> None:
    peer = await bench.stranger()
    await peer.ws.send(frame)
    error = await peer.expect(Error)
    if error.fatal:
        assert await peer.closed() == 1008
    else:
        await peer.hello("client", bench.namespace)
    # The broker is none the worse for it.
    await (await bench.client()).submit()


@pytest.mark.parametrize(
    "message",
    [
        ["NEWVERB", 1, 2],
        ["SUBMIT", "x", "tasks.add", b""],
        ["SUBMIT", RUN, "", b""],
        ["SUBMIT", RUN, "a b\nc", b""],
        ["SUBMIT", RUN, "tasks.add", b"", b"", "", float("nan")],
        ["SUBMIT", RUN, "tasks.add", b"", b"", "", 1e300],
        ["SUBMIT", RUN, "tasks.add", b"", b"", "", 0.0, 0.0, 10],
        ["WATCH", ["../x"]],
        ["WATCH", "0" * 64],
        ["READY", 5],
        ["FINISH", RUN, "t", "COMPLETED", "", "", 1, 0.0, None],
        ["CANCEL", 1, "x", ""],
        ["QUERY", 1, "run", {"a": {"b": {"c": [[[[[[[[]]]]]]]]}}}],
        ["STATE", RUN],
        ["HELLO", 0, "client"],
    ],
    ids=lambda message: f"{message[0]}-{str(message[1:])[:20]}",
)
async def test_a_bad_message_is_answered_and_the_rest_counts(bench: Bench, message: list[object]) -> None:
    client = await bench.client()
    run_id = new_id()
    good = ["SUBMIT", run_id, "tasks.add", b"body"]
    await client.ws.send(pack([message, good]))
    refusal = await client.expect(Message)  # pyright: ignore[reportArgumentType]
    while isinstance(refusal, Accepted):
        refusal = await client.expect(Message)  # pyright: ignore[reportArgumentType]
    if isinstance(refusal, Answer):
        assert not refusal.ok
    else:
        assert isinstance(refusal, Error | Refused)
        assert refusal.code
        assert refusal.text
    await client.send(Query(2, "run", run_id))
    assert (await client.expect(Answer)).value["type"] == "SCHEDULED"


async def test_too_many_errors_end_a_connection(bench: Bench) -> None:
    client = await bench.client()
    await client.ws.send(pack([["NOPE"]] * 300))
    assert (await client.expect(Error, lambda error: error.fatal)).code == "too_many_errors"
    assert await client.closed() == 1008


async def test_a_frame_over_the_limit(bench: Bench) -> None:
    client = await bench.client()
    await client.ws.send(b"\x00" * (MAX_FRAME + 1))
    assert (await client.expect(Error)).fatal
    assert await client.closed() == 1008
    client = await bench.client()
    await client.ws.send(b"\x00" * (1 << 20))
    assert await client.closed() == 1009


async def test_a_body_over_the_limit(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_payload_bytes=300_000)
    await bench.broker()
    client = await bench.client()
    run_id = new_id()
    chunks = [Chunk(1, number, b"x" * 200_000) for number in range(3)]
    for chunk in chunks:
        await client.send(chunk)
    await client.ws.send(pack([["SUBMIT", run_id, "tasks.add", 1]]))
    refused = await client.expect(Refused)
    assert (refused.run_id, refused.code) == (run_id, "payload_too_large")
    await client.submit(body=b"y" * 100_000)


async def test_workers_verbs_out_of_place(bench: Bench) -> None:
    worker = await bench.worker()
    await worker.send(Serve([f"tasks.t{number}" for number in range(1_001)]))
    assert (await worker.expect(Error)).code == "too_many_keys"
    await worker.send(Submit(new_id(), "tasks.add", b""))
    assert (await worker.expect(Error)).code == "forbidden"
    await worker.send(Finish(new_id(), "token", "COMPLETED", "", "", 1, 0.0, None), Ready(1 << 40))
    await worker.settle()


async def test_too_many_questions_at_once(bench: Bench) -> None:
    client = await bench.client()
    await client.send(*(Query(number, "stats") for number in range(50)))
    answers = [await client.expect(Answer) for _ in range(50)]
    assert {answer.value[0] for answer in answers if not answer.ok} == {"busy"}
    await client.send(Cancel(77, new_id()))
    assert (await client.expect(Answer)).value["status"] == "unknown"


# -- peers that do not read ---------------------------------------------------------------------------


async def test_a_peer_that_does_not_read_is_cut_and_costs_little(make_bench: BenchMaker) -> None:
    bench = await make_bench(lease_seconds=30.0, renew_seconds=10.0)
    broker = await bench.broker()
    slow, client, worker = await bench.client(), await bench.client(), await bench.worker(limit=100)
    ids = [await client.submit() for _ in range(60)]
    await slow.send(Watch(ids))
    await slow.settle()
    slow.ws.transport.pause_reading()
    for _ in ids:
        run = await worker.expect(Run)
        await worker.send(Chunk(run.number, 0, b"x" * 250_000))
        finish = ["FINISH", run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, run.number]
        await worker.ws.send(pack([finish]))
    hub = broker._hub
    assert hub is not None
    async with asyncio.timeout(10):
        while len(hub.peers) == 3:
            assert hub.unsent <= 16 << 20
            await asyncio.sleep(0.02)
    assert hub.unsent == 0
    # What it missed is in the store.
    await client.send(Watch(ids[:1]))
    await client.ws.recv(decode=False)


async def test_other_peers_do_not_notice(bench: Bench) -> None:
    peer = await bench.stranger()
    other: RawPeer = await bench.client()
    await peer.ws.send(b"garbage")
    await other.submit()
