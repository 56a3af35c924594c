"""The base classes of storages, and how to call methods that may be plain or coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from typing import Any, cast

from prefect_lite.blocks import Block
from prefect_lite.either_way import blocking
from prefect_lite.exceptions import PrefectException, StorageError
from prefect_lite.thread_or_loop import Either, Waits, on_loop


class PathNotFound(FileNotFoundError, ValueError):
    """There is nothing at a path of a storage. (A ``ValueError`` too, as Prefect raises for it.)"""


class ReadableFileSystem(Block):
    """A storage that can be read."""

    @abstractmethod
    def read_path(self, path: str) -> bytes:
        """What is at ``path``."""

    def _has_path(self, path: str) -> bool | None:
        """Whether there is something at ``path``; None: that takes a reading."""

    async def aread_path(self, path: str) -> bytes:
        """``read_path`` for coroutines."""
        return await on_loop(reading(self, path))


class WritableFileSystem(ReadableFileSystem):
    """A storage that can be read and written, as results need it."""

    @abstractmethod
    def write_path(self, path: str, content: bytes) -> Any:
        """Put ``content`` at ``path``, in place of what is there."""

    async def awrite_path(self, path: str, content: bytes) -> Any:
        """``write_path`` for coroutines."""
        return await on_loop(writing(self, path, content))


def reading(storage: Any, path: str) -> Waits[bytes]:
    """What a storage holds at a path; it may have plain methods, coroutine functions or both.

    Args:
        storage: A ``ReadableFileSystem``, or what has its methods.
        path: Where.

    Raises:
        PathNotFound: There is nothing.
        ConfigurationError: The path is impossible.
        StorageError: It can't be read.
    """
    try:
        content: bytes | None = yield _either(storage, "read_path", "aread_path", ReadableFileSystem, path)
    except (PathNotFound, PrefectException):
        raise
    except (FileNotFoundError, KeyError, ValueError) as exc:
        raise PathNotFound(f"{_shown(storage)} has nothing at {path!r}: {said(exc)}") from exc
    except Exception as exc:  # a user's code, which may raise anything
        raise StorageError(f"{_shown(storage)} could not read {path!r}: {said(exc)}") from exc
    if content is None:
        raise PathNotFound(f"{_shown(storage)} has nothing at {path!r}.")
    return content


def writing(storage: Any, path: str, content: bytes) -> Waits[Any]:
    """Have a storage hold ``content`` at a path; the counterpart of ``reading``.

    Returns:
        What its method returns.

    Raises:
        ConfigurationError: The path is impossible.
        StorageError: It can't be written.
    """
    try:
        return (
            yield _either(storage, "write_path", "awrite_path", WritableFileSystem, path, content)
        )  # fmt: skip
    except PrefectException:
        raise
    except Exception as exc:
        raise StorageError(f"{_shown(storage)} could not write {path!r}: {said(exc)}") from exc


def existing(storage: Any, path: str) -> Waits[bool]:
    """Whether a storage holds something at a path. Raises like ``reading``."""
    if isinstance(storage, ReadableFileSystem):
        quickly = storage._has_path(path)  # pyright: ignore[reportPrivateUsage]
        if quickly is not None:
            return quickly
    try:
        yield from reading(storage, path)
    except PathNotFound:
        return False
    return True


def _either(storage: Any, plain: str, twin: str, base: type[Any], *args: Any) -> Either:
    """The two forms of calling a storage's method. ``base`` defines the twin for those without one."""
    method = getattr(storage, plain)
    own = getattr(cast("type[Any]", type(storage)), twin, None)
    if own is not None and own is not getattr(base, twin):
        awaitable = getattr(storage, twin)
    elif inspect.iscoroutinefunction(method):
        awaitable = method
    else:
        awaitable = None

    def in_this_thread() -> Any:
        return blocking(lambda: method(*args))

    async def in_this_loop() -> Any:
        if awaitable is not None:
            return await awaitable(*args)
        value = await asyncio.to_thread(method, *args)
        return await value if inspect.isawaitable(value) else value

    return Either(in_this_thread, in_this_loop)


def _shown(storage: Any) -> str:
    base = getattr(storage, "basepath", None)
    return f"{type(storage).__name__}({base})" if base else type(storage).__name__


def said(error: BaseException) -> str:
    """Type and text of an error, for the end of a sentence."""
    return f"{type(error).__name__}: {error}".removesuffix(": ").removesuffix(".") + "."
