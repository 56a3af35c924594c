"""QUERY: questions and administrative requests, by name.

======================  =======================  ==========================================================
``what``                ``arg``                  value of the ANSWER
======================  =======================  ==========================================================
``run``                 run id                   the fields of STATE by name, without ``result``
``record``              run id                   the same, and ``label``, ``run_name``, ``tags``, ``info``,
                                                 ``states`` as in ``records.RunRecord``; None when unknown
``runs``                map or None              a page of those that fit, see ``run_queries.page_of_runs``
``why``                 run id                   those of ``run``, what ``Store.why`` adds, and ``sentence``
``log``                 [run id, offset]         {"lines": [[levelno, unix ms, logger, text], ...], "next": n}
``log``                 run id                   the lines of the first page alone
``stats``               None                     queues (longest first), sessions, counters, this broker
``served``              offset                   {"served": {task key: number of sessions}, "next": n}
``served``              None                     the entries of the first page alone
``sessions``            offset                   {"sessions": [{...}, ...], "next": n}, oldest first (admin)
``sessions``            None                     the sessions of the first page alone (admin)
``dead.list``           [limit, offset] or None  [STATE fields, ...], newest first, messages cut (admin)
``dead.show``           run id                   STATE fields, ``dead`` (whether), ``worker`` (admin)
``dead.replay``         run id                   whether it was there (admin)
``dead.drop``           run id                   whether it was there (admin)
``keep.get``            [key]                    whether there is an entry; it is the body of the ANSWER
``keep.put``            [key, ttl, fence, mark]  with a body: whether it was kept; ``ttl`` is in seconds, or
                                                 None: until it is not read for ``cache_idle_seconds``;
                                                 ``fence``: who has to hold the lock of this key, or None
``keep.has``            [key]                    whether there is an entry
``keep.drop``           [key]                    whether there was one
``lock.take``           [key, holder, seconds]   whether the holder has the lock now, for so long
``lock.renew``          [key, holder, seconds]   whether it has it still, and from now on for so long
``lock.drop``           [key, holder, mark]      whether it had it
``lock.look``           [key]                    who has it, or None
``block.put``           [slug, name, overwrite,  with a body: whether it was saved; False: there is one
                        mark]
``block.get``           [slug, name]             whether there is one; it is the body of the ANSWER
``block.list``          position or None         {"blocks": [[slug, name], ...], "next": position}
``block.drop``          [slug, name, mark]       whether there was one
``advance``             seconds                  True; only where the setting ``test_clock`` allows it
``stop``                reason or None           True; the broker stops after the answer (admin)
======================  =======================  ==========================================================

A refusal is ``[code, sentence]``. ``next`` of a page is the offset of the one after it, None at the end. A
``mark`` (or None) is the same when a question is asked again, which then has the same answer. Limits of what
is kept by name are in ``prefect_lite.protocol.kept_things``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from prefect_lite.exceptions import BrokerError
from prefect_lite.protocol.checks import check_run_id
from prefect_lite.protocol.messages import RunState
from prefect_lite.states import StateType
from prefect_lite_broker.asset_queries import ASSET_QUESTIONS
from prefect_lite_broker.keep_queries import KEEP_QUESTIONS
from prefect_lite_broker.questions import Asked, MakeRoom, Question, Refusal, plenty
from prefect_lite_broker.run_queries import fields_of, page_of_runs
from prefect_lite_broker.store import UNREAD

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

logger = logging.getLogger(__name__)

DEAD_LIST_MAX = 1_000
LAST_OFFSET = 1 << 40
"""Far beyond the end of any list, and still an exact number in a script."""
SESSIONS_MAX = 1_000
SERVED_MAX = 1_000
"""Entries of a page, however short: an array or map of an ANSWER has a bound, too."""
PAGE_LENGTH = 120 * 1024
"""Characters of a page; in UTF-8 each may take four bytes, and an ANSWER has to fit a frame of 512 KiB."""
LINE_LENGTH = 65_536
LOGGER_LENGTH = 512
LINE_OVERHEAD = 32
ENTRY_OVERHEAD = 100
"""What an entry of ``stats`` or ``dead.list`` takes at most besides its texts, in characters of a page."""
MESSAGE_LENGTH = 200
"""Characters of a message in a list."""
MAX_ADVANCE_SECONDS = 1e9
STOP_AFTER_SECONDS = 0.05
"""Lets the ANSWER leave before the broker closes its connections."""


async def answer(
    hub: Hub, role: str, what: str, arg: Any, body: bytes | None = None, room: MakeRoom = plenty
) -> tuple[bool, Any]:
    """Answer one QUERY.

    Args:
        hub: Of this broker.
        role: Of whoever asks.
        what: The question.
        arg: Its argument.
        body: What came with it.
        room: Waits until whoever asks may be sent a body of a size.

    Returns:
        True and the value, which is a ``WithBody`` for an answer that has a body; or False and
        [code, sentence].
    """
    question = QUESTIONS.get(what)
    if question is None:
        known = ", ".join(QUESTIONS)
        return False, ["unknown_query", f"This broker knows no {what[:64]!r}; it answers {known}."]
    if question.admin and role != "admin":
        return False, ["forbidden", f"{what!r} takes the admin token: set PREFECT_LITE_ADMIN_TOKEN."]
    if body is not None and not question.takes_body:
        return False, ["bad_argument", f"{what!r} takes no body."]
    try:
        return True, await question.ask(hub, Asked(arg, body, room) if question.whole else arg)
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


async def _record(hub: Hub, arg: Any) -> Any:
    found = await hub.store.read_runs([_run_id(arg)])
    return fields_of(found[0]) if found else None


async def _runs(hub: Hub, arg: Any) -> Any:
    try:
        return await page_of_runs(hub.store, arg)
    except ValueError as exc:
        raise Refusal("bad_argument", f"This can't be asked: {exc}.") from None


async def _why(hub: Hub, arg: Any) -> Any:
    facts = await hub.store.why(_run_id(arg))
    state: RunState = facts.pop("state")
    sentence = why_sentence(state, facts)
    unserved = state.type == StateType.SCHEDULED and not facts["served"]
    if unserved and "due_in_seconds" not in facts and "parents_left" not in facts:
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
    if "parents_left" in facts:
        return _upstreams(facts["parents_left"], facts["parents"])
    if not facts["served"]:
        return f"No worker serves {state.task_key!r}; the run waits for one."
    ahead = facts.get("ahead", 0)
    if ahead < 0:
        return f"It waits in a queue of {facts['length']:,} runs."
    if ahead:
        return f"It waits behind {ahead:,} run{'s' if ahead > 1 else ''}."
    return "It is the next to run."


def _upstreams(left: int, first: list[list[str]]) -> str:
    named = [f"{run_id} ({name or 'unknown'})" for run_id, name in first]
    if left > len(first):
        named.append(f"{left - len(first):,} more")
    return f"It waits for {left:,} run{'s' if left > 1 else ''}: {', '.join(named)}."


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
        "audit": await hub.store.audit_totals(),
        "broker": broker_facts(hub),
    }


def _fitting(entries: list[Any], text: Callable[[Any], str], room: int = PAGE_LENGTH) -> list[Any]:
    """The first entries that fit one ANSWER, or ``room`` characters of it."""
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
        "up_seconds": hub.loop.time() - hub.started_at,
        "connections": len(hub.peers),
        "workers": len(hub.workers),
        "watches": len(hub.watches),
        "waiting": hub.room.waiting,
        "store_healthy": hub.store.healthy,
        "counters": dict(hub.store.counters),
    }


async def _served(hub: Hub, arg: Any) -> Any:
    served = sorted((await hub.store.served_keys()).items())
    page, following = _page(served, arg, lambda entry: entry[0], SERVED_MAX)
    return dict(page) if arg is None else {"served": dict(page), "next": following}


async def _sessions(hub: Hub, arg: Any) -> Any:
    sessions = sorted(await hub.store.sessions(), key=lambda each: (each["opened_ms"], each["session"]))
    page, following = _page(list(map(_shown, sessions)), arg, lambda each: str([*each.values()]))
    return page if arg is None else {"sessions": page, "next": following}


def _shown(session: dict[str, Any]) -> dict[str, Any]:
    """A session whose texts leave room for others."""
    keys = _fitting(session["task_keys"], str, PAGE_LENGTH // 4)
    info = session["info"]
    if len(str(info)) > MESSAGE_LENGTH * 10:
        info = {name: str(info[name])[:MESSAGE_LENGTH] for name in ("name", "host", "pid") if name in info}
    not_shown = len(session["task_keys"]) - len(keys)
    return {**session, "task_keys": keys, "task_keys_not_shown": not_shown, "info": info}


def _page(
    entries: list[Any], arg: Any, text: Callable[[Any], str], most: int = SESSIONS_MAX
) -> tuple[list[Any], int | None]:
    """The entries from offset ``arg`` on that fit one ANSWER, and the offset of the next page."""
    offset = 0 if arg is None else arg
    if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
        raise Refusal("bad_argument", "This question takes the offset of a page, or nothing.")
    page = _fitting(entries[offset : offset + most], text)
    following = offset + len(page)
    return page, following if following < len(entries) else None


async def _dead_list(hub: Hub, arg: Any) -> Any:
    limit, offset = _page_of(arg)
    found = (await hub.store.dead_list(offset + limit))[offset:]
    states = [state._replace(message=state.message[:MESSAGE_LENGTH]) for state in found]
    return [_fields(state) for state in _fitting(states, lambda state: state.task_key + state.message)]


def _page_of(arg: Any) -> tuple[int, int]:
    """Limit and offset of a page: both, the limit alone, or nothing for as many as fit an answer."""
    pair = cast("list[Any]", arg) if isinstance(arg, list) else [arg, 0]
    match [DEAD_LIST_MAX if pair[:1] == [None] else pair[0] if pair else None, *pair[1:]]:
        case [int(limit), int(offset)] if limit >= 0 and offset >= 0:
            return max(1, min(limit, DEAD_LIST_MAX)), min(offset, LAST_OFFSET)
        case _:
            raise Refusal("bad_argument", "The dead are listed by a limit, or by [limit, offset].")


async def _dead_show(hub: Hub, arg: Any) -> Any:
    run_id = _run_id(arg)
    dead, worker = await hub.store.dead_show(run_id)
    return {**_fields(await lookup(hub, run_id)), "dead": dead, "worker": worker}


async def _dead_replay(hub: Hub, arg: Any) -> Any:
    run_id = _run_id(arg)
    replayed = await hub.store.dead_replay(run_id)
    if replayed:
        hub.dispatch.wake_run((await lookup(hub, run_id)).task_key, run_id)
    return replayed


async def _dead_drop(hub: Hub, arg: Any) -> Any:
    return await hub.store.dead_drop(_run_id(arg))


async def _advance(hub: Hub, arg: Any) -> Any:
    if not hub.settings.test_clock:
        raise Refusal("forbidden", "This broker's time passes by itself; see PREFECT_LITE_TEST_CLOCK.")
    if not isinstance(arg, int | float) or isinstance(arg, bool) or not 0 <= arg <= MAX_ADVANCE_SECONDS:
        raise Refusal("bad_argument", f"This question takes seconds, from 0 to {MAX_ADVANCE_SECONDS:,.0f}.")
    await hub.store.advance(arg)
    hub.delayed(0.0)  # have the promoter look at once
    return True


async def _stop(hub: Hub, arg: Any) -> Any:
    reason = arg[:200] if isinstance(arg, str) and arg else "an administrator asked"
    hub.loop.call_later(STOP_AFTER_SECONDS, hub.ask_stop, reason)
    return True


QUESTIONS: dict[str, Question] = {
    "run": Question(_run),
    "record": Question(_record),
    "runs": Question(_runs),
    "why": Question(_why),
    "log": Question(_log),
    "stats": Question(_stats),
    "served": Question(_served),
    "sessions": Question(_sessions, admin=True),
    "dead.list": Question(_dead_list, admin=True),
    "dead.show": Question(_dead_show, admin=True),
    "dead.replay": Question(_dead_replay, admin=True),
    "dead.drop": Question(_dead_drop, admin=True),
    "advance": Question(_advance),
    "stop": Question(_stop, admin=True),
    **KEEP_QUESTIONS,
    **ASSET_QUESTIONS,
}
