"""One broker and one worker for all tests of a module, each of which finds them as empty as new ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from prefect_lite.settings import get_settings
from prefect_lite.testing import Harness, test_harness

COME_AND_GO = tuple(f"prefect-lite-{what}" for what in ("run-", "starter", "callbacks", "retry", "signing"))
"""How names of threads begin that a worker starts when there is work, and keeps a while."""

KEPT = ("keep:*", "lock:*", "did:*", "blocks", "asset:*", "assets", "assets_at", "asset_runs:*", "asset_at:*")

_standing = 0


def coming_and_going() -> tuple[str, ...]:
    """How names of threads begin that are no test's while a shared harness stands."""
    return COME_AND_GO if _standing else ()


@contextmanager
def shared_harness(**settings: Any) -> Iterator[Harness]:
    """A ``test_harness`` for more than one test; ``emptied`` gives it to each."""
    global _standing
    with test_harness(**settings) as harness:
        _standing += 1
        try:
            yield harness
        finally:
            _standing -= 1


def emptied(harness: Harness) -> Harness:
    """Without entries, locks, blocks and assets in Redis, and without files of results."""
    forget_kept(harness.folder)
    shutil.rmtree(get_settings().home / "storage", ignore_errors=True)
    return harness


def forget_kept(folder: Path) -> None:
    """Remove entries, locks, blocks and assets from the Valkey whose socket is somewhere in a folder."""
    with redis.Redis(unix_socket_path=str(next(folder.rglob("valkey.sock")))) as server:
        found = [key for what in KEPT for key in server.scan_iter(f"pl:*:{what}", count=1_000)]
        if found:
            server.delete(*found)
