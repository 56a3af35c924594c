"""Hashes of values, the same in every process: equal values have one hash, different ones two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeAlias

from prefect_lite.exceptions import HashError
from prefect_lite.value_digests import Walk

if TYPE_CHECKING:
    from prefect_lite.context import TaskRunContext

__all__ = ["file_hash", "hash_objects", "stable_hash", "task_input_hash"]

HashAlgorithm: TypeAlias = Callable[..., Any]
"""As in ``hashlib``: called with bytes or nothing."""

_BLAKE2: HashAlgorithm = partial(hashlib.blake2b, digest_size=16)
_MD5: HashAlgorithm = partial(hashlib.md5, usedforsecurity=False)

_READ_BYTES = 1 << 20


def hash_objects(
    *args: Any, hash_algo: HashAlgorithm = _BLAKE2, raise_on_failure: bool = False, **kwargs: Any
) -> str | None:
    """One hash of all these values; types count (1, 1.0 and True differ), orders of dicts and sets don't.

    Args:
        *args: Values.
        hash_algo: Makes the hash, for example ``hashlib.sha256``. Default: BLAKE2 with 16 bytes.
        raise_on_failure: Raise instead of giving None.
        **kwargs: Values by name.

    Returns:
        Hexadecimal digits; None if a value can't be hashed.

    Raises:
        HashError: So it is, and ``raise_on_failure`` is set.
    """
    try:
        return _hash((args, kwargs), hash_algo)
    except HashError:
        if raise_on_failure:
            raise
        return None


def hash_arguments(what: str, arguments: Mapping[str, Any]) -> str:
    """A hash of arguments by name.

    Args:
        what: What they are to somebody; the same arguments of something else have another hash.
        arguments: Values by name.

    Raises:
        HashError: One can't be hashed; says which.
    """
    digests: dict[str, str] = {}
    for name, value in arguments.items():
        try:
            digests[name] = _hash(value)
        except HashError as exc:
            raise HashError(f"{exc} It is in the argument {name!r}.") from exc.__cause__
    return _hash((what, digests))


def task_input_hash(context: TaskRunContext, arguments: dict[str, Any]) -> str | None:
    """For ``cache_key_fn``: two runs of one task, with the same code and the same arguments, have one key.

    Args:
        context: Of the run.
        arguments: By name.

    Returns:
        The key; None, and a line in the log, if an argument can't be hashed.
    """
    from prefect_lite.logging import get_run_logger
    from prefect_lite.task_sources import source_hash

    task = context.task
    try:
        return _hash((task.key, source_hash(task.fn), hash_arguments("inputs", arguments)))
    except HashError as exc:
        get_run_logger().error(
            "The result of this run is not cached: %s Give the task a cache_key_fn that leaves it out, or "
            'cache_policy=TASK_SOURCE + INPUTS - "its name".',
            exc,
        )
        return None


def stable_hash(*args: str | bytes, hash_algo: HashAlgorithm = _MD5) -> str:
    """A hash of texts and bytes, one after the other.

    Args:
        *args: Texts count as UTF-8.
        hash_algo: Makes the hash. Default: MD5, as in Prefect.
    """
    hasher = hash_algo()
    for arg in args:
        hasher.update(arg.encode() if isinstance(arg, str) else arg)
    return hasher.hexdigest()


def file_hash(path: Any, hash_algo: HashAlgorithm = _MD5) -> str:
    """A hash of what is in the file ``path``.

    Args:
        path: Text or ``Path``.
        hash_algo: Makes the hash. Default: MD5, as in Prefect.

    Raises:
        OSError: It can't be read.
    """
    hasher = hash_algo()
    with open(path, "rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def _hash(value: Any, hash_algo: HashAlgorithm = _BLAKE2) -> str:
    """A value's hash.

    Raises:
        HashError: A part of it is tied to this process, such as a lock, or is nested too deeply.
    """
    try:
        digest = Walk().digest(value)
    except RecursionError as exc:
        raise HashError("Unable to create a hash: the values are nested too deeply.") from exc
    return hash_algo(digest).hexdigest()


def hash_code(code: CodeType) -> str:
    """A hash of what compiled code does, wherever it stands; it differs between Python versions."""
    return _hash(code)
