"""How many runs and questions a client has open at the broker at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prefect_lite.client.questions import WINDOW, Questions
from prefect_lite.client.requests import Answered
from prefect_lite.client.watching import Watching
from prefect_lite.protocol import messages as m
from prefect_lite.protocol.peer_session import PeerSession
from tests.protocol.pairs import broker as other_broker
from tests.protocol.pairs import connected, greet, move, run_id

pytestmark = pytest.mark.anyio


class Listening:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.waited_for = True
        self.told: list[Any] = []

    def ended(self, state: m.RunState) -> None:
        self.told.append(state.run_id)

    def moved(self, run_id: str, existing: str) -> None:
        self.told.append((run_id, existing))

    def failed(self, error: Exception) -> None:
        self.told.append(error)


def nothing() -> None: ...


def watching(session: PeerSession, **more: Any) -> Watching:
    return Watching(session, asyncio.get_running_loop(), 1000.0, nothing, **more)


def watched(session: PeerSession, broker: Any) -> Callable[[], set[str]]:
    """What the broker has been asked about so far and not been told to forget."""
    known: set[str] = set()

    def look() -> set[str]:
        for message in move(session, broker):
            if isinstance(message, m.Watch):
                known.update(message.run_ids)
            elif isinstance(message, m.Unwatch):
                known.difference_update(message.run_ids)
        return known

    return look


async def test_more_runs_than_a_broker_takes_are_asked_about_in_turn() -> None:
    session, broker = connected("client")
    look, watches, listening = watched(session, broker), watching(session, window=10), Listening()
    runs = [run_id(number) for number in range(25)]
    watches.watch(runs, listening)
    assert look() == set(runs[:10])
    watches.ended(m.RunState(runs[3], "COMPLETED"))
    assert listening.told == [runs[3]]
    assert runs[10] in look()
    seen = set(look())
    for _ in range(25):  # although none of the first ever ends
        watches._refresh()
        assert len(look()) <= 11  # the ended one is the broker's to forget
        seen |= look()
    assert seen == set(runs)
    watches.close()


async def test_a_watch_outlives_its_waiter_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_lite.client import watching as module

    monkeypatch.setattr(module, "UNWATCH_SECONDS", 0.0)
    session, broker = connected("client")
    look, watches, one, other = watched(session, broker), watching(session), Listening(), Listening()
    watches.watch([run_id(1), run_id(2)], one)
    watches.watch([run_id(2)], other)
    watches.unwatch([run_id(1), run_id(2)], one)
    assert len(look()) == 2
    await asyncio.sleep(0.01)
    assert look() == {run_id(2)}
    watches.fail(OSError("x"))
    assert [type(what) for what in other.told] == [OSError]
    assert not one.told
    watches.close()


def test_questions_wait_for_their_turn() -> None:
    session, broker = connected("client")
    questions = Questions(session, nothing)
    asked = [Answered() for _ in range(WINDOW + 3)]
    for number, answered in enumerate(asked):
        questions.ask("run", number, None, answered)
    sent = [message for message in move(session, broker) if isinstance(message, m.Query)]
    assert [query.arg for query in sent] == list(range(WINDOW))
    broker.send(m.Answer(sent[4].request, True, "x"))
    (answer,) = move(broker, session)
    assert isinstance(answer, m.Answer)
    questions.answered(answer)
    assert asked[4].value == "x"
    assert [query.arg for query in move(session, broker) if isinstance(query, m.Query)] == [WINDOW]
    assert questions
    questions.fail(OSError("gone"))
    assert all(answered.done for answered in asked)
    assert not questions
    session.disconnected()
    session.connect()
    assert not greet(session, other_broker())  # and nothing is asked again


async def test_runs_that_ask_with_their_submit_count_too() -> None:
    session, broker = connected("client")
    look, watches, listening = watched(session, broker), watching(session, window=10), Listening()
    runs = [run_id(number) for number in range(12)]
    assert [watches.expect(one, listening) for one in runs] == [True] * 10 + [False] * 2
    assert look() == set()
    watches.ended(m.RunState(runs[0], "COMPLETED"))
    assert look() == {runs[10]}
    assert listening.told == [runs[0]]
