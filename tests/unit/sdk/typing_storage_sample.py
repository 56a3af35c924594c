"""Storages and saved blocks: plain calls, and what coroutines await."""

from __future__ import annotations

from typing import assert_type
from uuid import UUID

from prefect_lite.filesystems import LocalFileSystem

files = LocalFileSystem(basepath="x")


def plain() -> bytes:
    there: LocalFileSystem = LocalFileSystem.load("a")
    saved: UUID = files.save("b")
    text: str = files.write_path("a", b"")
    print(there, saved, text)
    return files.read_path("a")


async def looped() -> bytes:
    assert_type(await LocalFileSystem.load("a"), LocalFileSystem)
    assert_type(await files.save("b"), UUID)
    assert_type(await files.write_path("a", b""), str)
    await LocalFileSystem.delete("a")
    return await files.read_path("a")
