"""The connection that clients and workers share: where it dials, when it gives up, how it closes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from prefect_lite.client.connection import BrokerConnection
from prefect_lite.exceptions import AuthenticationFailed, ConfigurationError, ProtocolVersionError
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.settings import load_settings
from tests.tools.waiting import until
from tests.unit.sdk.scripted_broker import Peer, ScriptedBroker

pytestmark = pytest.mark.anyio


class Watched:
    """A connection and what it told."""

    def __init__(self, role: str = "client", **overrides: Any) -> None:
        self.ups = 0
        self.downs: list[Exception | None] = []
        self.messages: list[m.Message] = []
        settings = load_settings(**overrides)
        self.session = PeerSession(role, "default", max_payload_bytes=1000)
        self.connection = BrokerConnection(
            self.session, settings, role,
            on_messages=self.messages.extend, on_up=self.up, on_down=self.downs.append,
        )  # fmt: skip
        self.task = asyncio.create_task(self.connection.run())

    def up(self, _: m.Welcome) -> None:
        self.ups += 1

    async def close(self) -> None:
        await self.connection.aclose()
        await asyncio.wait_for(self.task, 5)


async def test_it_goes_round_the_urls_until_one_answers(broker: ScriptedBroker) -> None:
    urls = ("ws+unix:///nowhere/b.sock", "ws://127.0.0.1:1/", f"ws+unix://{broker.path}")
    watched = Watched(broker_url=urls)
    await until(lambda: watched.connection.connected)
    assert watched.ups == 1
    assert type(watched.messages[0]) is m.Welcome
    await watched.close()
    assert not watched.connection.connected


async def test_it_comes_back_after_every_fault(broker: ScriptedBroker) -> None:
    watched = Watched()
    for count in range(1, 4):
        await until(lambda count=count: watched.ups == count)
        broker.cut()
    await until(lambda: watched.ups == 4)
    await asyncio.to_thread(broker.stop)
    await until(lambda: len(watched.downs) > 5)
    assert watched.connection.last_error is not None
    await asyncio.to_thread(broker.start)
    await until(lambda: watched.connection.connected)
    assert watched.connection.last_error is None
    await watched.close()


async def test_each_role_shows_its_own_token(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched("worker", worker_token="w")
    await until(lambda: watched.connection.connected)
    assert broker.tokens == ["Bearer w"]
    await watched.close()


@pytest.mark.parametrize(
    ("code", "error"), [("role", AuthenticationFailed), ("version", ProtocolVersionError)]
)
async def test_a_final_word_of_the_broker_ends_it(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    def refuse(_: ScriptedBroker, peer: Peer, __: m.Hello) -> None:
        peer.send(m.Error(code, "No.", True))

    monkeypatch.setattr(ScriptedBroker, "_on_hello", refuse)
    watched = Watched()
    with pytest.raises(error, match="No"):
        await asyncio.wait_for(watched.task, 5)


async def test_a_wrong_token_ends_it(broker: ScriptedBroker) -> None:
    broker.deny = HTTPStatus.UNAUTHORIZED
    watched = Watched("worker")
    with pytest.raises(AuthenticationFailed, match="PREFECT_LITE_WORKER_TOKEN"):
        await asyncio.wait_for(watched.task, 5)


async def test_a_broker_that_never_welcomes_is_left(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedBroker, "_on_hello", lambda *_: None)
    watched = Watched(handshake_timeout_seconds=0.1)
    await until(lambda: broker.connections >= 3)
    assert watched.ups == 0
    await watched.close()


@pytest.mark.parametrize("where", ["ws+unix:///nowhere/b.sock", "ws://127.0.0.1:1/"])
async def test_it_can_be_closed_while_it_dials(client_home: Path, where: str) -> None:
    watched = Watched(broker_url=(where,), backoff_min_seconds=60, backoff_max_seconds=60)
    await until(lambda: watched.downs)
    await watched.close()


async def test_a_nonsense_url_ends_it(client_home: Path) -> None:
    watched = Watched(broker_url=("ws://[nonsense/",))
    with pytest.raises(ConfigurationError, match="not a broker URL"):
        await asyncio.wait_for(watched.task, 5)


async def test_the_local_broker_is_found_anew_for_every_attempt(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_lite import embedded

    calls: list[Any] = []

    def find(settings: Any) -> Any:
        calls.append(settings)
        tokens = embedded.Tokens(client="c", worker="w", admin="a")
        return embedded.Target(str(broker.path), tokens)

    monkeypatch.setattr(embedded, "find_or_start", find)
    watched = Watched(broker_url=())
    await until(lambda: watched.connection.connected)
    broker.cut()
    await until(lambda: watched.ups == 2)
    assert len(calls) == 2
    assert set(broker.tokens) == {"Bearer c"}
    await watched.close()


async def test_what_is_queued_at_once_leaves_at_once_and_in_one_frame(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[m.Message]] = []
    monkeypatch.setattr(broker, "receive", lambda _, batch: batches.append(batch))
    watched = Watched(broker_url=(f"ws+unix://{broker.path}",))
    await until(lambda: len(batches) == 1)
    peer = next(iter(broker.peers))
    broker._loop.call_soon_threadsafe(broker._on_hello, peer, batches[0][0])
    await until(lambda: watched.connection.connected)

    def watch(*run_ids: str) -> None:
        for run_id in run_ids:
            watched.session.watch([run_id])
            watched.connection.schedule_flush()

    def fail() -> None:
        watch("c" * 32)
        raise LookupError

    watched.connection.at_once(lambda: watch("a" * 32, "b" * 32))
    assert not watched.session.has_data
    with pytest.raises(LookupError):
        watched.connection.at_once(fail)
    assert not watched.session.has_data
    watch("d" * 32)  # outside it waits for the end of the turn
    assert watched.session.has_data
    await until(lambda: sum(map(len, batches)) == 5)
    assert [len(batch) for batch in batches] == [1, 2, 1, 1]
    watched.connection.abort()
    watched.connection.at_once(lambda: watch("e" * 32))  # nothing to send it to, or nobody
    await watched.close()
