"""The task called, `map` for many, and a blocking `get`."""

from __future__ import annotations

import app
from client import SyncClient


class CLIENT(SyncClient):
    def open(self):
        app.huey.storage.conn.ping()

    def close(self):
        app.huey.storage.pool.disconnect()

    def send(self, task, arg):
        return app.TASKS[task](arg)

    def send_bulk(self, task, args):
        return list(app.TASKS[task].map(args))

    def value(self, handle, timeout):
        return handle.get(blocking=True, timeout=timeout)
