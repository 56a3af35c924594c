"""What the broker keeps by name: cache entries, locks and saved blocks.

Each function is a program for ``thread_or_loop``: it asks the broker over the connection that the process has
anyway, and waits for the answer in a thread or in a coroutine. All of them are safe to repeat, and are asked
again when a connection is lost or the broker is busy, until ``keep_wait_seconds`` have passed. Bodies are
opaque to the broker: who writes them signs them.

Raises, all of them:
    BrokerUnreachable: No broker has answered in time.
    StoreUnavailable: The broker is there, but its Redis was not in time, or has no room.
    AuthenticationFailed: The broker refuses this process.
    StorageError: The broker refuses what was asked for: too large, too long, no such kind of question.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any, Final

from prefect_lite.client.latch import Latch
from prefect_lite.client.runtime import get_runtime
from prefect_lite.exceptions import (
    AuthenticationFailed,
    BrokerUnreachable,
    StorageError,
    StoreUnavailable,
)
from prefect_lite.protocol.codec import ProtocolError
from prefect_lite.protocol.kept_things import entry_key
from prefect_lite.thread_or_loop import Either, Waits

if TYPE_CHECKING:
    from prefect_lite.client.requests import Answered
    from prefect_lite.client.runtime import Runtime

PAUSE_SECONDS: Final = (0.02, 0.5)
"""Between two attempts at a broker that is busy; the first and the longest, before the jitter."""
_PASSING: Final = frozenset({"busy", "unavailable"})


# -- entries ---------------------------------------------------------------------------------------


def read_entry(key: str) -> Waits[bytes | None]:
    """The body of an entry, None when there is none; one without a time of its own is kept for longer.

    Args:
        key: Text of 1 to 1,024 bytes.
    """
    answered = yield from ask("keep.get", [_key(key)])
    return (answered.body or b"") if answered.value else None


def write_entry(
    key: str, blob: bytes, ttl_seconds: float | None = None, fence: str | None = None
) -> Waits[bool]:
    """Keep a body under a key, in place of what is there.

    Args:
        key: Text of 1 to 1,024 bytes.
        blob: At most ``max_payload_bytes``.
        ttl_seconds: For how long; None: until nobody has read it for ``cache_idle_seconds``.
        fence: Who must hold the lock of this key, in the moment of writing.

    Returns:
        Whether it was written; False when ``fence`` does not hold the lock (any more).
    """
    arg = [_key(key), ttl_seconds, fence, None if fence is None else _mark()]
    return (yield from ask("keep.put", arg, blob)).value


def entry_exists(key: str) -> Waits[bool]:
    """Whether there is an entry; asking does not keep it for longer."""
    return (yield from ask("keep.has", [_key(key)])).value


def drop_entry(key: str) -> Waits[bool]:
    """Remove an entry; returns whether there was one, as far as is known when the question was repeated."""
    return (yield from ask("keep.drop", [_key(key)])).value


# -- locks -----------------------------------------------------------------------------------------


def take_lock(key: str, holder: str, hold_seconds: float) -> Waits[bool]:
    """Take a lock if it is free, or extend it if ``holder`` has it; does not wait for others.

    When this raises, the lock may have been taken all the same; it is free again after ``hold_seconds``.

    Args:
        key: Text of 1 to 1,024 bytes; an entry of the same key can be fenced with it.
        holder: Who takes it; text of at most 256 bytes.
        hold_seconds: After so long without a renewal it is free.

    Returns:
        Whether ``holder`` has it now.
    """
    return (yield from ask("lock.take", [_key(key), holder, hold_seconds])).value


def renew_lock(key: str, holder: str, hold_seconds: float) -> Waits[bool]:
    """Hold a lock for ``hold_seconds`` from now; False: it ran out, and somebody else may have it."""
    return (yield from ask("lock.renew", [_key(key), holder, hold_seconds])).value


def drop_lock(key: str, holder: str) -> Waits[bool]:
    """Let go of a lock; False: ``holder`` did not have it."""
    return (yield from ask("lock.drop", [_key(key), holder, _mark()])).value


def lock_holder(key: str) -> Waits[str | None]:
    """Who has a lock, None when it is free."""
    return (yield from ask("lock.look", [_key(key)])).value


# -- blocks ----------------------------------------------------------------------------------------


def save_block(slug: str, name: str, document: bytes, overwrite: bool) -> Waits[bool]:
    """Save a block; False: there is one of this name, and ``overwrite`` is not set.

    Args:
        slug: Its kind: lower-case letters, digits and dashes.
        name: The same.
        document: At most 256 KiB.
        overwrite: Replace one that is there.
    """
    return (yield from ask("block.put", [slug, name, overwrite, _mark()], document)).value


def load_block(slug: str, name: str) -> Waits[bytes | None]:
    """The document of a saved block, None when there is none."""
    answered = yield from ask("block.get", [slug, name])
    return answered.body if answered.value else None


def list_blocks() -> Waits[list[tuple[str, str]]]:
    """Kind and name of all saved blocks, in order."""
    found: list[tuple[str, str]] = []
    position: str | None = None
    while True:
        page = (yield from ask("block.list", position)).value
        found += [(slug, name) for slug, name in page["blocks"]]
        position = page["next"]
        if position is None:
            return found


def drop_block(slug: str, name: str) -> Waits[bool]:
    """Remove a saved block; returns whether there was one."""
    return (yield from ask("block.drop", [slug, name, _mark()])).value


# -- asking ----------------------------------------------------------------------------------------


def ask(what: str, arg: Any, body: bytes | None = None) -> Waits[Answered]:
    """Ask until there is an answer, or ``keep_wait_seconds`` are over.

    Args:
        what: A question that may be repeated.
        arg: Its argument.
        body: What goes with it.
    """
    runtime = get_runtime()
    seconds = runtime.settings.keep_wait_seconds
    end = time.monotonic() + seconds
    pause, longest = PAUSE_SECONDS
    refused = ""
    while (left := end - time.monotonic()) > 0:
        answered = runtime.ask(what, arg, body)
        if not (yield from _wait(runtime, answered, left)):
            break
        if answered.error is not None:
            raise _as_ours(answered.error) from answered.error.__cause__
        if answered.ok:
            return answered
        code, refused = answered.value
        if code not in _PASSING:
            raise _refusal(code, refused)
        yield from _rest(min(random.uniform(pause / 2, pause), max(0.0, end - time.monotonic())))
        pause = min(2 * pause, longest)
    raise _too_late(what, runtime, seconds, refused)


def _wait(runtime: Runtime, answered: Answered, seconds: float) -> Waits[bool]:
    """Whether it was answered in time; if not, it is not asked again."""
    done = False
    try:
        done = yield Either(lambda: answered.wait(seconds), lambda: answered.wait_async(seconds))
    finally:
        if not done:
            runtime.withdraw(answered)
    return done


def _rest(seconds: float) -> Waits[None]:
    # Real time, in which a broker comes to itself, whatever a test's clock says. A wait, as a run in a thread
    # can be stopped in it.
    never = Latch()
    yield Either(lambda: never.wait(seconds), lambda: never.wait_async(seconds))


def _too_late(what: str, runtime: Runtime, seconds: float, refused: str) -> Exception:
    said = f" The last answer: {refused}" if refused else ""
    remedy = f"PREFECT_LITE_KEEP_WAIT_SECONDS allows {seconds:g} s."
    if refused or runtime.connected:
        text = f"The broker has not done {what!r} in time; {remedy} See its log."
        return StoreUnavailable(f"{text}{said}")
    return BrokerUnreachable(f"No broker has answered {what!r} in time; {remedy} Is one running?")


def _as_ours(error: Exception) -> Exception:
    if isinstance(error, ProtocolError):
        return StorageError(error.text)
    # Others wait for the same one: each gets its own, so that their tracebacks don't grow together.
    return type(error)(*error.args)


def _refusal(code: str, text: str) -> Exception:
    if code == "forbidden":
        return AuthenticationFailed(text)
    if code == "full":
        return StoreUnavailable(text)
    if code == "unknown_query":
        return StorageError(
            "This broker keeps nothing by name yet: it is of an older version than this process."
        )
    return StorageError(text)


def _key(key: str) -> str:
    try:
        return entry_key(key)
    except ValueError as exc:
        raise StorageError(f"{str(exc).capitalize()}; this one begins with {key[:40]!r}.") from None


def _mark() -> str:
    """Tells the broker a question that is repeated from another one."""
    return os.urandom(12).hex()
