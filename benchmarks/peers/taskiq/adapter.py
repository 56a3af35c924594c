"""Taskiq behind the driver's client interface."""

import asyncio

from app import TASKS, broker
from client import AsyncClient

CHECK_ONE = 0.001
CHECK_MANY = 0.01


class TaskiqClient(AsyncClient):
    """`kiq` and `wait_result`, which only polls: more often for one awaited run than for many."""

    async def open(self):
        await broker.startup()

    async def close(self):
        await broker.shutdown()

    async def send(self, task, arg):
        return await TASKS[task].kiq(arg)

    async def value(self, handle, timeout):
        return await self._wait(handle, timeout, CHECK_ONE)

    async def values(self, handles, timeout):
        async with asyncio.timeout(timeout):
            return [await self._wait(handle, timeout, CHECK_MANY) for handle in handles]

    async def _wait(self, handle, timeout, interval):
        result = await handle.wait_result(check_interval=interval, timeout=timeout)
        result.raise_for_error()
        return result.return_value


CLIENT = TaskiqClient
