"""Docket behind the driver's client interface."""

from datetime import timedelta

from app import NAME, URL, tasks
from client import AsyncClient
from docket import Docket


class DocketClient(AsyncClient):
    """`add`, `add_many` and `Execution.get_result`."""

    async def open(self):
        self.docket = Docket(NAME, URL)
        await self.docket.__aenter__()
        for task in tasks:
            self.docket.register(task)

    async def close(self):
        await self.docket.__aexit__(None, None, None)

    async def send(self, task, arg):
        return await self.docket.add(task)(arg)

    async def send_bulk(self, task, args):
        return await self.docket.add_many(self.docket.call(task)(arg) for arg in args)

    async def value(self, handle, timeout):
        return await handle.get_result(timeout=timedelta(seconds=timeout))


CLIENT = DocketClient
