"""`enqueue`, `enqueue_many`, and the blocking `latest_result`."""

from __future__ import annotations

import math

import app
from client import SyncClient
from rq import Queue


class CLIENT(SyncClient):
    def open(self):
        app.queue.connection.ping()

    def close(self):
        app.queue.connection.close()

    def send(self, task, arg):
        return app.queue.enqueue(app.TASKS[task], arg)

    def send_bulk(self, task, args):
        function = app.TASKS[task]
        return app.queue.enqueue_many([Queue.prepare_data(function, (arg,)) for arg in args])

    def value(self, handle, timeout):
        result = handle.latest_result(timeout=math.ceil(timeout))  # waits in XREAD; whole seconds
        if result is None:
            raise TimeoutError(f"no result of {handle.id} within {timeout:.0f} s")
        if result.type != result.Type.SUCCESSFUL:
            raise RuntimeError(f"{handle.id} failed: {result.exc_string}")
        return result.return_value
