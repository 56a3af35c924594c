"""Commands that become another process: the broker and the worker have command lines of their own."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

_SAY_WHICH_REDIS = frozenset({"--redis-url", "--embedded", "--help", "-h"})


def become_broker(arguments: list[str]) -> NoReturn:
    """Replace this process by ``python -m prefect_lite_broker``; embedded unless a Redis is named."""
    if not any(each.partition("=")[0] in _SAY_WHICH_REDIS for each in arguments):
        from prefect_lite.settings import get_settings

        if not get_settings().redis_url:
            arguments = ["--embedded", *arguments]
    # -P: the broker needs nothing of the current directory, and a redis.py there must not become its own.
    _become(["-P", "-m", "prefect_lite_broker", *arguments])


def become_worker(arguments: list[str]) -> NoReturn:
    """Replace this process by ``python -m prefect_lite_worker``, which finds the user's modules here."""
    _become(["-m", "prefect_lite_worker", *arguments])


def _become(arguments: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])
