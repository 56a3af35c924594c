"""`delay`, `map` with ``deferred=True``, and `result`."""

from __future__ import annotations

import time

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
        ends = time.monotonic() + timeout
        while True:
            try:
                return handle.result(timeout=max(0.001, ends - time.monotonic()))
            except RuntimeError as error:
                # Raised instead of waiting as long as the server has not recorded the run's first state.
                if "has no state" not in str(error) or time.monotonic() > ends:
                    raise
                time.sleep(0.01)
