"""`send`, `group` for many, and `get_result(block=True)`."""

from __future__ import annotations

import app
from client import SyncClient
from dramatiq import group


class CLIENT(SyncClient):
    def open(self):
        app.client.ping()

    def close(self):
        app.broker.close()
        app.client.close()

    def send(self, task, arg):
        return app.TASKS[task].send(arg)

    def send_bulk(self, task, args):
        actor = app.TASKS[task]
        return group(actor.message(arg) for arg in args).run().children

    def value(self, handle, timeout):
        return handle.get_result(block=True, timeout=int(timeout * 1000))
