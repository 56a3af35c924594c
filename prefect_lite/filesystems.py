"""Storages that hold bytes under paths: a folder, or an object store through fsspec.

A storage of your own is a subclass of ``WritableFileSystem`` with ``read_path`` and ``write_path``, which may
be coroutine functions. For a path that is not there ``read_path`` raises FileNotFoundError, KeyError or
ValueError, or returns None.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ConfigDict, Field, field_validator

from prefect_lite.either_way import called
from prefect_lite.exceptions import ConfigurationError, StorageError
from prefect_lite.storage_base import (
    PathNotFound,
    ReadableFileSystem,
    WritableFileSystem,
    existing,
    reading,
    said,
    writing,
)

if TYPE_CHECKING:
    from prefect_lite.either_way import BytesToAwait, TextToAwait

__all__ = [
    "LocalFileSystem",
    "PathNotFound",
    "ReadableFileSystem",
    "RemoteFileSystem",
    "WritableFileSystem",
    "existing",
    "reading",
    "writing",
]

PACKAGES: Final = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("hdfs", "arrow_hdfs"), "pyarrow"),
    "smb": "smbprotocol",
}
"""What fsspec needs besides itself, by scheme."""

_from_environment = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}").fullmatch


class LocalFileSystem(WritableFileSystem):
    """A folder. Files are written as a whole or not at all, and only their owner can read them.

    Attributes:
        basepath: The folder, made on the first write; ``~`` is the home directory. None: the current one.
    """

    _block_type_name = "Local File System"

    basepath: str | None = None

    @field_validator("basepath", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    def read_path(self, path: str) -> BytesToAwait:
        """What the file ``path`` holds; in coroutines to be awaited.

        Args:
            path: Relative to ``basepath``, or absolute and inside of it.

        Raises:
            PathNotFound: There is no such file.
            ConfigurationError: The path leads out of ``basepath``.
            StorageError: It can't be read.
        """
        return called(self._read, path)

    def _read(self, path: str) -> bytes:
        file = self._resolved(path)
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise PathNotFound(f"Path {file} does not exist.") from None
        except IsADirectoryError:
            raise PathNotFound(f"Path {file} is not a file.") from None
        except OSError as exc:
            raise StorageError(f"{file} can't be read: {exc.strerror}.") from exc

    def write_path(self, path: str, content: bytes) -> TextToAwait:
        """Make or replace the file ``path``; folders on the way are made. In coroutines to be awaited.

        Args:
            path: As for ``read_path``.
            content: What it is to hold.

        Returns:
            Its absolute path.

        Raises:
            ConfigurationError: The path leads out of ``basepath``.
            StorageError: It can't be written.
        """
        return called(self._write, path, content)

    def _write(self, path: str, content: bytes) -> str:
        file = self._resolved(path)
        # A short name, as that of the file may be as long as names can be.
        draft = file.parent / f".new-{secrets.token_hex(8)}"
        try:
            _make_folders(file.parent)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(content)
                    opened.flush()
                    os.fsync(opened.fileno())
                draft.replace(file)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise StorageError(f"{file} can't be written: {exc.strerror}.") from exc
        return str(file)

    def _has_path(self, path: str) -> bool | None:
        if type(self).read_path is not LocalFileSystem.read_path:
            return None
        return self._resolved(path).is_file()

    def _resolved(self, path: str) -> Path:
        base = Path(self.basepath).expanduser().resolve() if self.basepath else Path.cwd().resolve()
        try:
            file = (base / path).resolve()
        except (ValueError, RuntimeError, OSError) as exc:  # a zero byte, links in a circle
            raise ConfigurationError(f"{path!r} is no path: {exc}.") from exc
        if file == base or not file.is_relative_to(base):
            raise ConfigurationError(f"The path {str(path)!r} is outside of the storage's folder {base}.")
        return file


class RemoteFileSystem(WritableFileSystem):
    """An object store or another file system that fsspec knows.

    Attributes:
        basepath: URL with a location after the scheme: ``s3://bucket/folder``.
        settings: Arguments for fsspec's file system. A value ``"${NAME}"`` is taken from the environment
            variable when the storage is used; so secrets are neither saved nor sent.
    """

    model_config = ConfigDict(ignored_types=(cached_property,))
    _block_type_name = "Remote File System"

    basepath: str
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])

    @field_validator("basepath")
    @classmethod
    def _is_url(cls, value: str) -> str:
        scheme, separator, location = value.partition("://")
        if not (scheme and separator):
            raise ValueError(
                f"the base path must begin with a scheme, as in s3://bucket/folder; got {value!r}"
            )
        if scheme == "file":
            raise ValueError("for file:// there is LocalFileSystem")
        if not location.strip("/"):
            raise ValueError(f"the base path needs a location after the scheme; got {value!r}")
        return value

    @cached_property
    def filesystem(self) -> Any:
        """fsspec's object.

        Raises:
            StorageError: A package is missing, or the environment variable of a setting.
            ConfigurationError: fsspec does not know the scheme.
        """
        scheme = self.basepath.partition("://")[0]
        try:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise StorageError(
                f"{self.basepath} needs the package fsspec: pip install {_packages(scheme)}"
            ) from None
        settings = cast("dict[str, Any]", _filled(self.settings))
        try:
            return cast(Any, fsspec).filesystem(scheme, **settings)
        except ImportError as exc:
            raise StorageError(
                f"{self.basepath} needs another package: pip install {_packages(scheme)} ({exc})"
            ) from exc
        except ValueError as exc:
            raise ConfigurationError(f"{self.basepath} can't be used: {exc}.") from exc

    def read_path(self, path: str) -> BytesToAwait:
        """What is at ``path``; in coroutines to be awaited.

        Args:
            path: Relative to ``basepath``, or a URL inside of it.

        Raises:
            PathNotFound: There is nothing.
            ConfigurationError: The path leads out of ``basepath``.
            StorageError: The storage can't be used or read.
        """
        return called(self._read, path)

    def _read(self, path: str) -> bytes:
        url, files = self._resolved(path), self.filesystem
        try:
            return cast(bytes, files.cat_file(url))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise PathNotFound(f"Path {url} does not exist.") from None
        except Exception as exc:  # each kind of storage has its own
            raise StorageError(f"{url} can't be read: {said(exc)}") from exc

    def write_path(self, path: str, content: bytes) -> TextToAwait:
        """Make or replace what is at ``path``; in coroutines to be awaited.

        Args:
            path: As for ``read_path``.
            content: What is to be there.

        Returns:
            Its URL.

        Raises:
            ConfigurationError: The path leads out of ``basepath``.
            StorageError: The storage can't be used or written.
        """
        return called(self._write, path, content)

    def _write(self, path: str, content: bytes) -> str:
        url, files = self._resolved(path), self.filesystem
        try:
            try:
                files.pipe_file(url, content)
            except FileNotFoundError:  # where there are folders; object stores have none
                files.makedirs(url.rpartition("/")[0], exist_ok=True)
                files.pipe_file(url, content)
        except Exception as exc:
            raise StorageError(f"{url} can't be written: {said(exc)}") from exc
        return url

    def _resolved(self, path: str) -> str:
        path, base = str(path), self.basepath.rstrip("/")
        inside = path.startswith(f"{base}/")
        if "://" in path and not inside:
            raise ConfigurationError(f"The path {path!r} is outside of the storage {base}.")
        relative = path[len(base) :] if inside else path
        if ".." in relative.split("/"):
            raise ConfigurationError(f"The path {path!r} may lead out of the storage {base}.")
        if not relative.strip("/"):
            raise ConfigurationError(f"The path {path!r} is that of the storage {base} itself.")
        return f"{base}/{relative.lstrip('/')}"


def _make_folders(folder: Path) -> None:
    """``mkdir(parents=True)`` with mode 0700 for all that are made."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=stat.S_IRWXU)


def _filled(value: Any) -> Any:
    """``value`` with the environment's variables for ``${NAME}``."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_filled(item) for item in cast("list[Any]", value)]
    named = _from_environment(value) if isinstance(value, str) else None
    if named is None:
        return value
    if named[1] not in os.environ:
        raise StorageError(f"A setting of a storage is {value}, and this environment has no {named[1]}.")
    return os.environ[named[1]]


def _packages(scheme: str) -> str:
    return " ".join(("fsspec", PACKAGES[scheme])) if scheme in PACKAGES else "fsspec"
