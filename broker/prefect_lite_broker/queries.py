"""QUERY: questions and administrative requests, by name.

======================  =======================  ==========================================================
``what``                ``arg``                  value of the ANSWER
======================  =======================  ==========================================================
``run``                 run id                   the fields of STATE by name, without ``result``
``why``                 run id                   the same, what ``Store.why`` adds, and ``sentence``
``log``                 [run id, offset]         {"lines": [[levelno, unix ms, logger, text], ...], "next": n}
``log``                 run id                   the lines of the first page alone
``stats``               None                     queues (longest first), sessions, counters, this broker
``served``              None                     {task key: number of sessions}
``sessions``            None                     [{...}, ...] (admin)
``dead.list``           limit or None            [STATE fields, ...], newest first, messages cut (admin)
``dead.show``           run id                   STATE fields (admin)
``dead.replay``         run id                   whether it was there (admin)
``dead.drop``           run id                   whether it was there (admin)
``stop``                reason or None           True; the broker stops after the answer (admin)
======================  =======================  ==========================================================

A refusal is ``[code, sentence]``. ``next`` of a page is the offset of the one after it, None at the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prefect_lite.exceptions import BrokerError
from prefect_lite.protocol.checks import check_run_id
from prefect_lite.protocol.messages import RunState
from prefect_lite.states import StateType
from prefect_lite_broker.store import UNREAD

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

logger = logging.getLogger(__name__)

DEAD_LIST_MAX = 1_000
PAGE_LENGTH = 120 * 1024
"""Characters of a page; in UTF-8 each may take four bytes, and an ANSWER has to fit a frame of 512 KiB."""
LINE_LENGTH = 65_536
LOGGER_LENGTH = 512
LINE_OVERHEAD = 32
ENTRY_OVERHEAD = 100
"""What an entry of ``stats`` or ``dead.list`` takes at most besides its texts, in characters of a page."""
MESSAGE_LENGTH = 200
"""Characters of a message in a list."""
STOP_AFTER_SECONDS = 0.05
"""Lets the ANSWER leave before the broker closes its connections."""


class Refusal(Exception):
    """A question that is not answered: machine code and sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Question(NamedTuple):
    """How a QUERY is answered, and whether only an administrator may ask it."""

    ask: Callable[[Hub, Any], Awaitable[Any]]
    admin: bool = False


async def answer(hub: Hub, role: str, what: str, arg: Any) -> tuple[bool, Any]:
    """Answer one QUERY.

    Returns:
        True and the value, or False and [code, sentence].
    """
    question = QUESTIONS.get(what)
    if question is None:
        known = ", ".join(QUESTIONS)
        return False, ["unknown_query", f"This broker knows no {what[:64]!r}; it answers {known}."]
    if question.admin and role != "admin":
        return False, ["forbidden", f"{what!r} takes the admin token."]
    try:
        return True, await question.ask(hub, arg)
    except Refusal as exc:
        return False, [exc.code, exc.text]
    except BrokerError as exc:
        return False, ["unavailable", f"The store is away: {exc}"]
    except Exception:
        # Whoever asked must not wait for ever because of our bug.
        logger.exception("Answering %r failed", what)
        return False, ["internal", f"The broker failed on {what!r}; see its log."]


def _run_id(arg: Any) -> str:
    if not isinstance(arg, str):
        raise Refusal("bad_run_id", "This question takes a run id.")
    try:
        check_run_id(arg)
    except ValueError as exc:
        raise Refusal("bad_run_id", f"{exc}.".capitalize()) from None
    return arg


async def lookup(hub: Hub, run_id: str) -> RunState:
    """Read one run; its ``type`` is "" when there is no record.

    Raises:
        Refusal: The store did not answer in time.
    """
    future: asyncio.Future[RunState] = hub.loop.create_future()

    def done(state: RunState) -> None:
        if not future.done():
            future.set_result(state)

    hub.store.lookup(run_id, done)
    try:
        async with asyncio.timeout(hub.settings.redis_wait_seconds):
            state = await future
    except TimeoutError:
        state = RunState(run_id, UNREAD)
    if state.type == UNREAD:
        raise Refusal("unavailable", "The store is away, so nothing can be said of this run now.")
    return state


def _fields(state: RunState) -> dict[str, Any]:
    fields = state._asdict()
    del fields["result"]
    return fields


async def _run(hub: Hub, arg: Any) -> Any:
    return _fields(await lookup(hub, _run_id(arg)))


async def _why(hub: Hub, arg: Any) -> Any:
    facts = await hub.store.why(_run_id(arg))
    state: RunState = facts.pop("state")
    sentence = why_sentence(state, facts)
    if state.type == StateType.SCHEDULED and not facts["served"] and "due_in_seconds" not in facts:
        sentence = await hub.notices.sentence(state.task_key) or sentence
    return {**_fields(state), **facts, "sentence": sentence}


def why_sentence(state: RunState, facts: dict[str, Any]) -> str:
    """Say in words why a run has not ended, from the facts of ``Store.why``."""
    if not state.type:
        return "The broker has no record of this run."
    if state.type != StateType.SCHEDULED:
        return f"It is {state.name}."
    if "due_in_seconds" in facts:
        due = time.strftime("%H:%M:%S", time.localtime(time.time() + facts["due_in_seconds"]))
        return f"It is delayed until {due}."
    if not facts["served"]:
        return f"No worker serves {state.task_key!r}; the run waits for one."
    ahead = facts.get("ahead", 0)
    if ahead < 0:
        return f"It waits in a queue of {facts['length']:,} runs."
    if ahead:
        return f"It waits behind {ahead:,} run{'s' if ahead > 1 else ''}."
    return "It is the next to run."


async def _log(hub: Hub, arg: Any) -> Any:
    if not isinstance(arg, list):
        return (await _log_page(hub, _run_id(arg), 0))["lines"]
    match cast("list[Any]", arg):
        case [run_id, int(offset)] if offset >= 0 and not isinstance(offset, bool):
            return await _log_page(hub, _run_id(run_id), offset)
        case _:
            raise Refusal("bad_argument", "A log is asked for by a run id, or by [run id, offset].")


async def _log_page(hub: Hub, run_id: str, offset: int) -> dict[str, Any]:
    lines = await hub.store.read_log(run_id)
    page: list[list[Any]] = []
    room = PAGE_LENGTH
    for level, when_ms, logger_name, text in lines[offset:]:
        line = [level, when_ms, logger_name[:LOGGER_LENGTH], text[:LINE_LENGTH]]
        room -= LINE_OVERHEAD + len(line[2]) + len(line[3])
        if page and room < 0:
            break
        page.append(line)
    following = offset + len(page)
    return {"lines": page, "next": following if following < len(lines) else None}


async def _stats(hub: Hub, _arg: Any) -> Any:
    stats = await hub.store.stats()
    longest = sorted(stats["queues"], key=lambda queue: -queue["length"])
    shown = _fitting(longest, lambda queue: queue["task_key"])
    return {
        **stats,
        "queues": shown,
        "queues_not_shown": len(longest) - len(shown),
        "broker": broker_facts(hub),
    }


def _fitting(entries: list[Any], text: Callable[[Any], str]) -> list[Any]:
    """The first entries that fit one ANSWER."""
    room = PAGE_LENGTH
    for count, entry in enumerate(entries):
        room -= ENTRY_OVERHEAD + len(text(entry))
        if room < 0:
            return entries[:count]
    return entries


def broker_facts(hub: Hub) -> dict[str, Any]:
    """What this broker process knows about itself, without asking the store."""
    return {
        "id": hub.broker_id,
        "version": hub.version,
        "pid": os.getpid(),
        "up_seconds": time.time() - hub.started_at,
        "connections": len(hub.peers),
        "workers": len(hub.workers),
        "watches": len(hub.watches),
        "store_healthy": hub.store.healthy,
        "counters": dict(hub.store.counters),
    }


async def _served(hub: Hub, _arg: Any) -> Any:
    return await hub.store.served_keys()


async def _sessions(hub: Hub, _arg: Any) -> Any:
    return await hub.store.sessions()


async def _dead_list(hub: Hub, arg: Any) -> Any:
    limit = arg if isinstance(arg, int) and 0 < arg <= DEAD_LIST_MAX else DEAD_LIST_MAX
    states = [
        state._replace(message=state.message[:MESSAGE_LENGTH]) for state in await hub.store.dead_list(limit)
    ]
    return [_fields(state) for state in _fitting(states, lambda state: state.task_key + state.message)]


async def _dead_replay(hub: Hub, arg: Any) -> Any:
    run_id = _run_id(arg)
    replayed = await hub.store.dead_replay(run_id)
    if replayed:
        hub.dispatch.wake_run((await lookup(hub, run_id)).task_key, run_id)
    return replayed


async def _dead_drop(hub: Hub, arg: Any) -> Any:
    return await hub.store.dead_drop(_run_id(arg))


async def _stop(hub: Hub, arg: Any) -> Any:
    reason = arg[:200] if isinstance(arg, str) and arg else "an administrator asked"
    hub.loop.call_later(STOP_AFTER_SECONDS, hub.ask_stop, reason)
    return True


QUESTIONS: dict[str, Question] = {
    "run": Question(_run),
    "why": Question(_why),
    "log": Question(_log),
    "stats": Question(_stats),
    "served": Question(_served),
    "sessions": Question(_sessions, admin=True),
    "dead.list": Question(_dead_list, admin=True),
    "dead.show": Question(_run, admin=True),
    "dead.replay": Question(_dead_replay, admin=True),
    "dead.drop": Question(_dead_drop, admin=True),
    "stop": Question(_stop, admin=True),
}
