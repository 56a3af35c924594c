"""QUERY ``keep.*``, ``lock.*`` and ``block.*``: what clients and workers have kept by name.

The broker looks into none of the bodies. A large one is read only when there is room for it among what waits
to be sent, so that peers which read slowly cost no more memory for their questions than for their results.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ResponseError

from prefect_lite.protocol import kept_things
from prefect_lite.protocol.kept_things import MAX_BLOCKS
from prefect_lite_broker.bodies import LARGE_BYTES
from prefect_lite_broker.questions import Asked, Question, Refusal, WithBody
from prefect_lite_broker.refusals import Cure, cure, sentence

if TYPE_CHECKING:
    from prefect_lite_broker.hub import Hub

T = TypeVar("T")

PAGE_BLOCKS = 1_000
"""Blocks of a page: two words of at most 128 characters each, and an ANSWER has to fit a frame."""


def _checked(check: Callable[[Any], T], arg: Any) -> T:
    try:
        return check(arg)
    except ValueError as exc:
        raise Refusal("bad_argument", f"This can't be asked: {exc}.") from None


async def _written(writing: Coroutine[Any, Any, T]) -> T:
    try:
        return await writing
    except ResponseError as exc:
        if cure(exc) is Cure.ROOM:
            raise Refusal("full", f"Redis has no memory to keep this ({sentence(exc)}).") from exc
        raise


# -- entries ---------------------------------------------------------------------------------------


async def _keep_get(hub: Hub, asked: Asked) -> Any:
    key = _checked(kept_things.only_key, asked.arg)
    found = await hub.store.keep_get(key, LARGE_BYTES)
    while isinstance(found, int):
        most = hub.settings.max_payload_bytes
        if found > most:
            raise Refusal(
                "payload_too_large", f"The entry has {found:,} bytes; max_payload_bytes is {most:,}."
            )
        size = found
        async with asked.room(size):
            found = await hub.store.keep_get(key, size)
    return WithBody(found is not None, found)


async def _keep_put(hub: Hub, asked: Asked) -> Any:
    put = _checked(kept_things.put, asked.arg)
    if asked.body is None:
        raise Refusal("bad_argument", "An entry has to come with its body.")
    return await _written(hub.store.keep_put(put, asked.body))


async def _keep_has(hub: Hub, arg: Any) -> Any:
    return await hub.store.keep_has(_checked(kept_things.only_key, arg))


async def _keep_drop(hub: Hub, arg: Any) -> Any:
    return await hub.store.keep_drop(_checked(kept_things.only_key, arg))


# -- locks -----------------------------------------------------------------------------------------


async def _lock_take(hub: Hub, arg: Any) -> Any:
    return await hub.store.lock_take(_checked(kept_things.hold, arg))


async def _lock_renew(hub: Hub, arg: Any) -> Any:
    return await hub.store.lock_renew(_checked(kept_things.hold, arg))


async def _lock_drop(hub: Hub, arg: Any) -> Any:
    return await hub.store.lock_drop(_checked(kept_things.drop, arg))


async def _lock_look(hub: Hub, arg: Any) -> Any:
    return await hub.store.lock_look(_checked(kept_things.only_key, arg))


# -- blocks ----------------------------------------------------------------------------------------


async def _block_put(hub: Hub, asked: Asked) -> Any:
    block = _checked(kept_things.block_put, asked.arg)
    document = _checked(kept_things.check_block_body, asked.body)
    status = await _written(hub.store.block_put(block, document))
    if status < 0:
        raise Refusal("full", f"There are {MAX_BLOCKS:,} saved blocks, and no room for more; remove some.")
    return status == 1


async def _block_get(hub: Hub, asked: Asked) -> Any:
    block = _checked(kept_things.block, asked.arg)
    size = await hub.store.block_size(block)
    async with asked.room(size) if size > LARGE_BYTES else nullcontext():
        document = await hub.store.block_get(block) if size else None
    return WithBody(document is not None, document)


async def _block_list(hub: Hub, arg: Any) -> Any:
    after = _checked(kept_things.block_position, arg)
    paths = [path for path in await hub.store.block_list() if path > after]
    page = paths[:PAGE_BLOCKS]
    return {
        "blocks": [path.split("/", 1) for path in page],
        "next": page[-1] if len(paths) > len(page) else None,
    }


async def _block_drop(hub: Hub, arg: Any) -> Any:
    return await hub.store.block_drop(_checked(kept_things.block, arg))


KEEP_QUESTIONS: dict[str, Question] = {
    "keep.get": Question(_keep_get, whole=True),
    "keep.put": Question(_keep_put, whole=True, takes_body=True),
    "keep.has": Question(_keep_has),
    "keep.drop": Question(_keep_drop),
    "lock.take": Question(_lock_take),
    "lock.renew": Question(_lock_renew),
    "lock.drop": Question(_lock_drop),
    "lock.look": Question(_lock_look),
    "block.put": Question(_block_put, whole=True, takes_body=True),
    "block.get": Question(_block_get, whole=True),
    "block.list": Question(_block_list),
    "block.drop": Question(_block_drop),
}
