"""Six faults, planted from outside into a process that ``tests.chaos.run`` starts.

Each takes one promise of the design out, so that the checker can be seen to fail without it. The product has
no switch for them. A fault that does not find its place any more ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.chaos.hooks import HookLost, Wrapped, wrap

BETWEEN_SECONDS = 1.0
"""Between the two halves of a commit that was taken apart: long enough for a test to kill the broker."""


def plant(name: str, role: str) -> None:
    """Plant a fault in this process; only brokers have them.

    Raises:
        KeyError: There is no such fault.
        HookLost: Its place in the product is gone.
    """
    fault = FAULTS[name]
    if role == "broker":
        fault()


def no_token_check() -> None:
    """A commit counts under any token."""
    _edit_scripts(("finish", "retry", "release"), "if held == token then", "if true then")


def no_reaper() -> None:
    """Leases never end by themselves."""
    from prefect_lite_broker.redis_store import RedisStore

    def reap(_original: Wrapped) -> Wrapped:
        async def nothing(self: Any, tell: Any) -> None:
            """Whoever is gone keeps its leases."""

        return nothing

    wrap(RedisStore, "reap", "self tell", reap)


def acknowledged_before_written() -> None:
    """ACCEPTED goes out at once, the write follows."""
    from prefect_lite_broker.redis_store import RedisStore
    from prefect_lite_broker.store import SubmitReply

    def submit(original: Wrapped) -> Wrapped:
        def hasty(self: Any, msg: Any, done: Any) -> None:
            asyncio.get_running_loop().call_soon(done, SubmitReply(msg.run_id, "accepted"))
            original(self, msg, lambda _reply: None)

        return hasty

    wrap(RedisStore, "submit", "self msg done", submit)


def commit_in_two_parts() -> None:
    """FINISH writes the state with one call and the result with another."""
    from prefect_lite_broker.redis_store import RedisStore

    under_way: set[asyncio.Task[None]] = set()

    def finish(original: Wrapped) -> Wrapped:
        def halved(self: Any, msg: Any, done: Any) -> None:
            async def second_half(reply: Any) -> None:
                await asyncio.sleep(BETWEEN_SECONDS)
                shard = self.shard_of(msg.run_id)
                await self.command(
                    "SET", self.prefixes[shard] + b"b:" + msg.run_id.encode(), msg.result, shard=shard
                )
                done(reply._replace(state=reply.state._replace(result=msg.result)))

            def first_half(reply: Any) -> None:
                if reply.status != "ok" or msg.result is None:
                    done(reply)
                    return
                task = asyncio.get_running_loop().create_task(second_half(reply))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

            original(self, msg._replace(result=None), first_half)

        return halved

    wrap(RedisStore, "finish", "self msg done", finish)


def no_reread() -> None:
    """What is watched is not read again: neither after hints were lost nor from time to time."""
    from prefect_lite_broker.watches import Watches

    def reread(_original: Wrapped) -> Wrapped:
        def nothing(self: Any) -> None:
            """Trusts that no hint was lost."""

        return nothing

    def aged(_original: Wrapped) -> Wrapped:
        def none(self: Any) -> list[str]:
            return []

        return none

    wrap(Watches, "reread", "self", reread)
    wrap(Watches, "aged", "self", aged)


def no_write_deadline() -> None:
    """A frame may wait for ever to be taken."""
    import inspect

    from prefect_lite.protocol.pump import Pump

    original = Pump.__init__
    if "write_deadline_seconds" not in inspect.signature(original).parameters:
        raise HookLost("Pump takes no write deadline any more.")

    def patient(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "write_deadline_seconds": 3_600.0})

    Pump.__init__ = patient  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        no_token_check,
        no_reaper,
        acknowledged_before_written,
        commit_in_two_parts,
        no_reread,
        no_write_deadline,
    )
}
"""By name, as ``PREFECT_LITE_TEST_FAULT`` gives it."""


def _edit_scripts(names: tuple[str, ...], old: str, new: str) -> None:
    import hashlib

    from prefect_lite_broker.scripts import SCRIPTS

    for name in names:
        script = SCRIPTS[name]
        if script.source.count(old) != 1:
            raise HookLost(f"{name}.lua does not say {old!r} once.")
        source = script.source.replace(old, new)
        SCRIPTS[name] = script._replace(source=source, sha=hashlib.sha1(source.encode()).hexdigest())
