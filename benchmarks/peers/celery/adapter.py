"""`delay`, a `group` for many, and `get`, which waits for what Redis publishes."""

from __future__ import annotations

from app import TASKS, app
from celery import group
from celery.result import ResultSet
from client import SyncClient


class CLIENT(SyncClient):
    def open(self):
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=3)

    def close(self):
        app.close()

    def send(self, task, arg):
        return TASKS[task].delay(arg)

    def send_bulk(self, task, args):
        signature = TASKS[task].s
        return group(signature(arg) for arg in args).apply_async().results

    def value(self, handle, timeout):
        return handle.get(timeout=timeout)

    def values(self, handles, timeout):
        return ResultSet(handles).get(timeout=timeout)
