"""Where the recording takes hold of the product: methods that are wrapped when a process starts.

The product knows nothing of it. Should a method be renamed, or take other parameters, the process ends at
once and says so: a checker that hears nothing would find nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from tests.chaos.recording import Recorder, digest

Wrapped = Callable[..., Any]


class HookLost(RuntimeError):
    """The product has changed where the recording takes hold of it."""


def wrap(owner: Any, name: str, parameters: str, make: Callable[[Wrapped], Wrapped]) -> None:
    """Replace a method by what ``make`` makes of it.

    Args:
        owner: The class.
        name: Of the method, inherited or not.
        parameters: The names it must take, e.g. "self msg done".
        make: Takes the original.

    Raises:
        HookLost: It does not exist or takes other parameters.
    """
    original = getattr(owner, name, None)
    if original is None:
        raise HookLost(f"{owner.__qualname__}.{name} does not exist any more.")
    found = " ".join(inspect.signature(original).parameters)
    if found != parameters:
        raise HookLost(f"{owner.__qualname__}.{name} takes ({found}), not ({parameters}).")
    setattr(owner, name, wraps(original)(make(original)))


# -- broker -----------------------------------------------------------------------------------------


def install_broker(out: Recorder) -> None:
    """Record what the store is asked and answers."""
    from prefect_lite_broker.redis_store import RedisStore

    _submits(RedisStore, out)
    _leases(RedisStore, out)
    for kind in ("finish", "retry", "release"):
        _commits(RedisStore, kind, out)
    _ends(RedisStore, out)


def _submits(store: Any, out: Recorder) -> None:
    def submit(original: Wrapped) -> Wrapped:
        def recorded(self: Any, msg: Any, done: Any) -> None:
            out.write("arrived", run=msg.run_id)

            def answered(reply: Any) -> None:
                out.write("stored", run=reply.run_id, status=reply.status, existing=reply.existing_id)
                done(reply)

            original(self, msg, answered)

        return recorded

    wrap(store, "submit", "self msg done", submit)


def _leases(store: Any, out: Recorder) -> None:
    def claim(original: Wrapped) -> Wrapped:
        def recorded(
            self: Any, session: str, epoch: int, shard: int, number: int, limit: int, done: Any
        ) -> None:
            def answered(reply: Any) -> None:
                for run in reply.runs:  # before anybody can start it
                    out.write(
                        "leased",
                        run=run.run_id,
                        token=run.token,
                        session=session,
                        attempt=run.attempt,
                        lost=run.lost,
                    )
                done(reply)

            original(self, session, epoch, shard, number, limit, answered)

        return recorded

    def close_session(original: Wrapped) -> Wrapped:
        async def recorded(self: Any, session: str, epoch: int) -> Any:
            out.write("closing", session=session)
            reply = await original(self, session, epoch)
            out.write("closed", session=session)
            return reply

        return recorded

    def reap(original: Wrapped) -> Wrapped:
        async def recorded(self: Any, tell: Any) -> None:
            def told(event: Any) -> None:
                out.write(
                    "reaped", run=event.run_id, session=event.session, outcome=event.outcome, lost=event.lost
                )
                tell(event)

            await original(self, told)

        return recorded

    wrap(store, "claim", "self session epoch shard number limit done", claim)
    wrap(store, "close_session", "self session epoch", close_session)
    wrap(store, "reap", "self tell", reap)


def _commits(store: Any, kind: str, out: Recorder) -> None:
    def commit(original: Wrapped) -> Wrapped:
        def recorded(self: Any, msg: Any, done: Any) -> None:
            # Asked and committed: a broker that is killed in between leaves only the first.
            out.write("asked", kind=kind, run=msg.run_id, token=msg.token)

            def answered(reply: Any) -> None:
                out.write(
                    "commit",
                    kind=kind,
                    run=reply.run_id,
                    token=reply.token,
                    status=reply.status,
                    **(seen(reply.state) if reply.state is not None else {}),
                )
                done(reply)

            original(self, msg, answered)

        return recorded

    wrap(store, kind, "self msg done", commit)


def _ends(store: Any, out: Recorder) -> None:
    def cancel(original: Wrapped) -> Wrapped:
        def recorded(self: Any, run_id: str, done: Any) -> None:
            out.write("cancel", run=run_id)
            original(self, run_id, done)

        return recorded

    def dead_replay(original: Wrapped) -> Wrapped:
        async def recorded(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:
            out.write("replay", run=run_id)
            return await original(self, run_id, *args, **kwargs)

        return recorded

    wrap(store, "cancel", "self run_id done", cancel)
    parameters = " ".join(inspect.signature(store.dead_replay).parameters)
    if not parameters.startswith("self run_id"):
        raise HookLost(f"RedisStore.dead_replay takes ({parameters}).")
    wrap(store, "dead_replay", parameters, dead_replay)


def seen(state: Any) -> dict[str, Any]:
    """The terminal state as somebody saw it."""
    return {
        "type": state.type,
        "name": state.name,
        "ended": state.ended_ms,
        "result": digest(state.result),
    }


# -- worker -----------------------------------------------------------------------------------------


def install_worker(out: Recorder) -> None:
    """Record each start of an attempt, before the user's code."""
    from prefect_lite_worker.leases import ActiveRun

    def begin(original: Wrapped) -> Wrapped:
        def recorded(self: Any, attempt: int) -> None:
            out.write("start", run=self.run_id, attempt=attempt, token=self.token)
            original(self, attempt)

        return recorded

    wrap(ActiveRun, "begin", "self attempt", begin)


# -- client -----------------------------------------------------------------------------------------


def install_client(out: Recorder) -> None:
    """Record what the client submits, and what it is told."""
    from prefect_lite.client.link import Link
    from prefect_lite.protocol.messages import Accepted, Refused, RunState
    from prefect_lite.states import TERMINAL_TYPES

    def submit(original: Wrapped) -> Wrapped:
        def recorded(self: Any, submits: Any, submission: Any) -> None:
            for message in submits:
                out.write("submit", run=message.run_id, key=message.task_key)
            original(self, submits, submission)

        return recorded

    def on_messages(original: Wrapped) -> Wrapped:
        def recorded(self: Any, messages: Any) -> None:
            for message in messages:
                kind = type(message)
                if kind is Accepted:
                    for run_id in message.run_ids:
                        out.write("acknowledged", run=run_id)
                    for asked, existing in message.aliases:
                        out.write("alias", run=asked, existing=existing)
                elif kind is Refused:
                    out.write("refused", run=message.run_id, code=message.code)
                elif kind is RunState and message.type in TERMINAL_TYPES:
                    out.write("told", run=message.run_id, **seen(message))
            original(self, messages)

        return recorded

    wrap(Link, "submit", "self submits submission", submit)
    wrap(Link, "_on_messages", "self messages", on_messages)
