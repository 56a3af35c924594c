"""`delay`, `map(deferred=True)` and `result`, as the user calls them."""

from __future__ import annotations

import app
from client import SyncClient

from prefect_lite.client.runtime import close_runtime
from prefect_lite.futures import PrefectFutureList


class CLIENT(SyncClient):
    def close(self):
        close_runtime()

    def send(self, task, arg):
        return app.TASKS[task].delay(arg)

    def send_bulk(self, task, args):
        return app.TASKS[task].map(args, deferred=True)

    def value(self, handle, timeout):
        return handle.result(timeout=timeout)

    def values(self, handles, timeout):
        return PrefectFutureList(handles).result(timeout=timeout)
