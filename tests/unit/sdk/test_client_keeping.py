"""What the broker keeps by name, asked for by a client: again while that may help, and not for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from prefect_lite.client import keeping
from prefect_lite.client.questions import WINDOW, Questions
from prefect_lite.client.requests import Answered
from prefect_lite.client.runtime import close_runtime, get_runtime
from prefect_lite.exceptions import AuthenticationFailed, BrokerUnreachable, StorageError, StoreUnavailable
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.codec import decode_frame, encode_frame
from prefect_lite.protocol.peer_session import PeerSession
from prefect_lite.settings import get_settings
from prefect_lite.thread_or_loop import in_thread, on_loop
from tests.tools.waiting import wait_until
from tests.unit.sdk.scripted_broker import Peer, ScriptedBroker

Said = tuple[Any, ...]
BUSY: Said = (False, ["busy", "Too much waits."])


@pytest.fixture
def short(client_home: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Nobody waits for long."""
    monkeypatch.setenv("PREFECT_LITE_KEEP_WAIT_SECONDS", "0.5")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    return 0.5


class Says:
    """One answer after the other, the last one for ever; notes what was asked."""

    def __init__(self, *answers: Said) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def __call__(self, arg: Any) -> Any:
        self.asked.append(arg)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_broker_that_is_busy_is_asked_again_the_same_question(broker: ScriptedBroker) -> None:
    says = broker.questions["lock.drop"] = Says(BUSY, (False, ["unavailable", "Away."]), BUSY, (True, True))
    assert in_thread(keeping.drop_lock("key", "me")) is True
    assert len(says.asked) == 4
    assert all(arg == says.asked[0] for arg in says.asked)
    assert in_thread(keeping.drop_lock("key", "me")) is True
    assert says.asked[-1][:2] == says.asked[0][:2]
    assert says.asked[-1][2] != says.asked[0][2], "a second drop is no repetition of the first"


def test_a_broker_that_stays_busy(short: float, broker: ScriptedBroker) -> None:
    says = broker.questions["keep.get"] = Says(BUSY)
    with pytest.raises(
        StoreUnavailable, match=r"PREFECT_LITE_KEEP_WAIT_SECONDS allows 0.5 s.*Too much waits"
    ):
        in_thread(keeping.read_entry("key"))
    assert 2 < len(says.asked) < 30, "with pauses that grow"


def test_a_broker_that_says_nothing_is_not_asked_again_later(short: float, broker: ScriptedBroker) -> None:
    with pytest.raises(StoreUnavailable, match=r"has not done 'lock.take' in time"):
        in_thread(keeping.take_lock("key", "me", 5.0))
    late = broker.questions["lock.take"] = Says((True, True))
    broker.questions["lock.look"] = Says((True, None))
    broker.cut()
    wait_until(lambda: broker.connections == 2 or not get_runtime().connected, 5)
    assert in_thread(keeping.lock_holder("key")) is None
    assert late.asked == [], "nobody would know of the lock"


def test_questions_that_nobody_waits_for_give_their_places_back(short: float, broker: ScriptedBroker) -> None:
    with ThreadPoolExecutor(WINDOW) as pool:
        asked = [pool.submit(in_thread, keeping.entry_exists(f"k{i}")) for i in range(WINDOW)]
    # Those that had no connection in time say so instead; their places are given back all the same.
    assert all(isinstance(each.exception(), StoreUnavailable | BrokerUnreachable) for each in asked)
    broker.questions["keep.has"] = Says((True, True))
    broker.cut()
    assert in_thread(keeping.entry_exists("key")) is True


def test_questions_given_up_without_a_connection_have_no_places() -> None:
    """They were never asked, so no answer would free their places once there is a connection."""
    session = PeerSession("client", "default", max_payload_bytes=1 << 20)
    questions = Questions(session, lambda: None)
    given_up, waiting = [Answered() for _ in range(WINDOW)], Answered()
    for number, answered in enumerate([*given_up, waiting]):
        questions.ask("keep.has", [f"k{number}"], None, answered)
    for answered in given_up:
        questions.withdraw(answered)
    session.connect()
    assert [*session.data_to_send()], "HELLO"
    welcome = m.Welcome(1, "s", b"x", 0, False, [], 15.0, 5.0, 1 << 20, "broker", "1")
    session.receive(encode_frame([welcome]))
    sent = [message for frame in session.data_to_send() for message in decode_frame(frame)]
    assert [message.arg for message in sent if isinstance(message, m.Query)] == [[f"k{WINDOW}"]]


def test_a_coroutine_that_is_cancelled_asks_no_more(client_home: Path, broker: ScriptedBroker) -> None:
    arrived = threading.Event()
    broker.questions["lock.take"] = lambda _: arrived.set() or BUSY

    async def main() -> None:
        taking = asyncio.ensure_future(on_loop(keeping.take_lock("key", "me", 5.0)))
        assert await asyncio.to_thread(arrived.wait, 5)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    asyncio.run(main())
    says = broker.questions["lock.take"] = Says((True, True))
    broker.questions["lock.look"] = Says((True, "you"))
    assert in_thread(keeping.lock_holder("key")) == "you"
    assert says.asked == []


def test_no_broker_at_all(short: float, client_home: Path) -> None:
    with pytest.raises(BrokerUnreachable, match=r"No broker has answered 'keep.get' in time"):
        in_thread(keeping.read_entry("key"))


def test_no_broker_within_its_own_time(client_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LITE_CONNECT_TIMEOUT_SECONDS", "0.2")
    get_settings.cache_clear()  # type: ignore[attr-defined]
    with pytest.raises(BrokerUnreachable, match=r"No broker answered at ws\+unix"):
        in_thread(keeping.read_entry("key"))


def test_a_token_that_is_refused(broker: ScriptedBroker) -> None:
    broker.deny = HTTPStatus.FORBIDDEN
    with pytest.raises(AuthenticationFailed, match="PREFECT_LITE_CLIENT_TOKEN"):
        in_thread(keeping.read_entry("key"))


def test_a_client_that_was_closed(broker: ScriptedBroker) -> None:
    broker.questions["keep.has"] = Says((True, True))
    runtime = get_runtime()
    waits = keeping.entry_exists("key")
    assert in_thread(waits) is True
    close_runtime()
    answered = runtime.ask("keep.has", ["key"])
    assert answered.wait(5)
    assert isinstance(answered.error, BrokerUnreachable)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_argument", StorageError),
        ("payload_too_large", StorageError),
        ("unknown_query", StorageError),
        ("internal", StorageError),
        ("full", StoreUnavailable),
        ("forbidden", AuthenticationFailed),
    ],
)
def test_what_does_not_pass_is_told_at_once(broker: ScriptedBroker, code: str, kind: type[Exception]) -> None:
    says = broker.questions["keep.put"] = Says((False, [code, "The sentence."]))
    with pytest.raises(kind, match=r"The sentence|older version"):
        in_thread(keeping.write_entry("key", b"x"))
    assert len(says.asked) == 1


@pytest.mark.parametrize("key", ["", "x" * 1_025, "é" * 513, "\ud800"])
def test_what_is_no_key_is_not_sent(client_home: Path, key: str) -> None:
    for waits in (keeping.read_entry(key), keeping.write_entry(key, b""), keeping.take_lock(key, "me", 1.0)):
        with pytest.raises(StorageError, match="A key must be"):
            in_thread(waits)


def test_a_body_that_is_too_long_is_not_sent(broker: ScriptedBroker) -> None:
    broker.questions["keep.has"] = Says((True, True))
    assert in_thread(keeping.entry_exists("key"))  # a connection, whose limit is 1 MiB
    with pytest.raises(StorageError, match="over the limit of 1048576 bytes"):
        in_thread(keeping.write_entry("key", bytes((1 << 20) + 1)))


def test_no_more_at_a_time_than_a_broker_takes(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bodies, from many threads; the broker takes its time."""
    waiting: list[tuple[Peer, int]] = []
    worst = 0

    def hold(peer: Peer, message: m.Query) -> None:
        nonlocal worst
        waiting.append((peer, message.request))
        worst = max(worst, len(waiting))
        asyncio.get_running_loop().call_later(0.005, lambda: answer(*waiting.pop(0)))

    def answer(peer: Peer, request: int) -> None:
        peer.send(m.Answer(request, True, True))

    monkeypatch.setattr(broker, "_on_query", hold)
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(in_thread, keeping.write_entry(f"k{i}", bytes(100_000))) for i in range(120)]
    assert all(each.result() is True for each in asked)
    assert worst == WINDOW


@pytest.mark.parametrize(
    ("waits", "what", "said", "value"),
    [
        (lambda: keeping.read_entry("k"), "keep.get", (True, True, b"body"), b"body"),
        (lambda: keeping.read_entry("k"), "keep.get", (True, True, b""), b""),
        (lambda: keeping.read_entry("k"), "keep.get", (True, False), None),
        (lambda: keeping.load_block("a", "b"), "block.get", (True, True, b"doc"), b"doc"),
        (lambda: keeping.load_block("a", "b"), "block.get", (True, False), None),
        (lambda: keeping.lock_holder("k"), "lock.look", (True, None), None),
    ],
)
def test_there_is_one_or_there_is_none(
    broker: ScriptedBroker, waits: Callable[[], Any], what: str, said: Said, value: Any
) -> None:
    broker.questions[what] = Says(said)
    assert in_thread(waits()) == value
    assert asyncio.run(on_loop(waits())) == value


def test_a_list_is_read_to_its_end(broker: ScriptedBroker) -> None:
    pages: dict[Any, Any] = {
        None: {"blocks": [["a", "b"], ["a", "c"]], "next": "a/c"},
        "a/c": {"blocks": [["d", "e"]], "next": None},
    }
    broker.questions["block.list"] = lambda position: (True, pages[position])
    assert in_thread(keeping.list_blocks()) == [("a", "b"), ("a", "c"), ("d", "e")]
