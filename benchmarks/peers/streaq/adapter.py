"""streaQ behind the driver's client interface."""

import asyncio

from app import TASKS, worker
from client import AsyncClient

WAITERS = 128


class StreaqClient(AsyncClient):
    """Awaiting `enqueue`, `enqueue_many`, and `Task.result`.

    Each `result` subscribes on a connection of its own and takes 100 ms to give it back, so many are awaited
    side by side; there must be more connections than waiters, since each also reads the result's key on
    another one.
    """

    async def open(self):
        await worker.__aenter__()

    async def close(self):
        await worker.__aexit__(None, None, None)

    async def send(self, task, arg):
        return await TASKS[task].enqueue(arg)

    async def send_bulk(self, task, args):
        handles = [TASKS[task].enqueue(arg) for arg in args]
        await worker.enqueue_many(handles)
        return handles

    async def value(self, handle, timeout):
        return (await handle.result(timeout)).result

    async def values(self, handles, timeout):
        values = [None] * len(handles)
        left = iter(enumerate(handles))

        async def waiter():
            for position, handle in left:
                values[position] = await self.value(handle, timeout)

        async with asyncio.timeout(timeout), asyncio.TaskGroup() as waiters:
            for _ in range(WAITERS):
                waiters.create_task(waiter())
        return values


CLIENT = StreaqClient
