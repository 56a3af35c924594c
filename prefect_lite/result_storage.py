"""Which storage is meant: by the option ``result_storage``, the setting, or a reference to a result."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit
from uuid import UUID

from prefect_lite import block_documents
from prefect_lite.block_names import block_id
from prefect_lite.blocks import Block, block_class, loading, saved_name
from prefect_lite.default_home import default_home
from prefect_lite.exceptions import ConfigurationError, OptionTypeError, StorageError
from prefect_lite.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from prefect_lite.main_module import import_name_of
from prefect_lite.thread_or_loop import Waits

REMEMBERED_SECONDS: Final = 60.0
"""For so long a saved storage that was looked up is not asked for again; changes show after that."""

_saved_name = re.compile(r"[a-z0-9-]+/[a-z0-9-]+").fullmatch
_METHODS = ("read_path", "write_path")
_FORMS = "a path, a URL, a saved storage's 'slug/name', or a storage such as LocalFileSystem(basepath=...)"
_remembered: weakref.WeakKeyDictionary[Any, dict[str, tuple[float, WritableFileSystem]]] = (
    weakref.WeakKeyDictionary()
)
_remembered_lock = threading.Lock()


def resolving(value: Any, option: str = "result_storage") -> Waits[WritableFileSystem]:
    """The storage that is meant.

    Args:
        value: A storage; a ``Path``; text: a URL (``s3://bucket/folder``, ``file:///srv/results``), the
            ``slug/name`` of a saved one, else a path (one of two plain words with ``./`` in front); or the
            id of a saved one.
        option: What to call it in errors.

    Raises:
        OptionTypeError: It is none of these.
        ConfigurationError: There is none of that name, or it is no storage.
        PrefectException: The broker can't be asked for a saved one.
    """
    if all(callable(getattr(value, name, None)) for name in _METHODS) and not isinstance(value, type):
        return cast(WritableFileSystem, value)
    if isinstance(value, Path):
        return _folder(value)
    if isinstance(value, UUID):
        return (yield from _by_id(value, option))
    if not isinstance(value, str) or not value:
        raise OptionTypeError(f"`{option}` must be {_FORMS}, got {value!r}.")
    if "://" in value:
        return _by_url(value, option)
    if _saved_name(value):
        return (yield from _by_name(value, option))
    return _folder(Path(value))


def default_local_storage() -> LocalFileSystem:
    """Files below ``PREFECT_LITE_STORAGE_PATH``, else below ``storage`` in the home directory."""
    # Without the settings where they can't say anything: a process that only calls tasks needs no others.
    told = "PREFECT_LITE_STORAGE_PATH" in os.environ or "prefect_lite.settings" in sys.modules
    home = default_home()
    if told or (home / "settings.env").is_file():
        from prefect_lite.settings import get_settings

        settings = get_settings()
        return _folder(settings.storage_path or settings.home / "storage")
    return _folder(home / "storage")


def storage_spec(storage: Any) -> dict[str, Any]:
    """A storage as plain data, for other processes to find it again; holds no secrets.

    Raises:
        StorageError: It can't be described so.
    """
    if not isinstance(storage, Block):
        raise StorageError(
            f"A {type(storage).__name__} can't be found again by other processes. "
            f"Derive the class from prefect_lite.filesystems.WritableFileSystem."
        )
    slug, saved = storage.get_block_type_slug(), saved_name(storage)
    if saved is not None:
        return {"block": saved}
    if isinstance(storage, LocalFileSystem) and type(storage) is LocalFileSystem:
        storage = _folder(Path(storage.basepath or "."))  # other processes are in other folders
    try:
        fields = block_documents.fields_of(storage)
    except ConfigurationError as exc:
        raise StorageError(f"{exc} Or save the storage, without the secret, and name it.") from exc
    return {"type": slug, "fields": fields, "module": import_name_of(type(storage))}


def storage_from_spec(spec: dict[str, Any]) -> Waits[WritableFileSystem]:
    """The inverse. It may import the module that is named, so it is for data whose signature was checked.

    Raises:
        ConfigurationError: There is no such saved storage or class, or it does not take the fields.
        PrefectException: The broker can't be asked for a saved one.
    """
    if "block" in spec:
        return (yield from _by_name(spec["block"], "result_storage"))
    slug = str(spec["type"])
    block = block_documents.rebuilt(block_class(slug, spec.get("module")), spec["fields"], slug)
    return _checked(block, f"The storage {slug}")


def forget_saved(name: str) -> None:
    """Have the saved storage ``slug/name`` looked up anew."""
    with _remembered_lock:
        for names in _remembered.values():
            names.pop(name, None)


def _folder(path: Path) -> LocalFileSystem:
    return LocalFileSystem(basepath=os.path.abspath(path.expanduser()))


def _by_url(value: str, option: str) -> WritableFileSystem:
    parts = urlsplit(value)
    if parts.scheme != "file":
        try:
            return RemoteFileSystem(basepath=value)
        except ValueError as exc:
            raise ConfigurationError(
                f"`{option}` is {value!r}, but a URL needs a scheme and a location: s3://bucket/folder."
            ) from exc
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigurationError(
            f"`{option}` is {value!r}; the URL of a folder has three slashes: file:///srv/results."
        )
    return _folder(Path(unquote(parts.path)))


def _by_name(name: str, option: str) -> Waits[WritableFileSystem]:
    from prefect_lite.client.runtime import get_runtime

    runtime = get_runtime()
    with _remembered_lock:
        since, storage = _remembered.get(runtime, {}).get(name, (0.0, None))
    if storage is not None and time.monotonic() - since < REMEMBERED_SECONDS:
        return storage
    slug, _, rest = name.partition("/")
    try:
        block = yield from loading(slug, rest)
    except ConfigurationError as exc:
        raise ConfigurationError(
            f"`{option}` is {name!r}, the name of a saved storage. {exc} "
            f"If a folder is meant, write './{name}'."
        ) from exc
    storage = _checked(block, f"`{option}` is {name!r}, which")
    with _remembered_lock:
        _remembered.setdefault(runtime, {})[name] = (time.monotonic(), storage)
    return storage


def _by_id(wanted: UUID, option: str) -> Waits[WritableFileSystem]:
    from prefect_lite.client import keeping

    for slug, name in (yield from keeping.list_blocks()):
        if block_id(slug, name) == wanted:
            return (yield from _by_name(f"{slug}/{name}", option))
    raise ConfigurationError(f"`{option}` is the id {wanted}, and no saved storage has it.")


def _checked(block: Block, subject: str) -> WritableFileSystem:
    if not all(callable(getattr(block, name, None)) for name in _METHODS):
        raise ConfigurationError(f"{subject} is a {type(block).__name__}, which can't hold results.")
    return cast(WritableFileSystem, block)
