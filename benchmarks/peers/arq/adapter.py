"""arq behind the driver's client interface."""

import asyncio

from app import REDIS
from arq import create_pool
from client import AsyncClient

POLL_ONE = 0.001
POLL_MANY = 0.01


class ArqClient(AsyncClient):
    """`enqueue_job` and `Job.result`."""

    async def open(self):
        self.pool = await create_pool(REDIS)

    async def close(self):
        await self.pool.aclose()

    async def send(self, task, arg):
        return await self.pool.enqueue_job(task, arg)

    async def value(self, handle, timeout):
        return await handle.result(timeout, poll_delay=POLL_ONE)

    async def values(self, handles, timeout):
        async with asyncio.timeout(timeout):
            return [await handle.result(timeout, poll_delay=POLL_MANY) for handle in handles]


CLIENT = ArqClient
