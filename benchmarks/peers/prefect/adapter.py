"""`delay`, `map` with ``deferred=True``, and `result`."""

from __future__ import annotations

import api
import app
from client import SyncClient


class CLIENT(SyncClient):
    def open(self):
        api.wait_for_server()

    def send(self, task, arg):
        return app.TASKS[task].delay(arg)

    def send_bulk(self, task, args):
        return list(app.TASKS[task].map(args, deferred=True))

    def value(self, handle, timeout):
        return handle.result(timeout=timeout)
