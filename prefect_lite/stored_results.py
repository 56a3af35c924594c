"""Results of runs on workers that are in a storage: Redis has only a signed reference to them.

Persisted results with a storage of their own are there as the records that ``results.py`` writes. Of others
that are too long for Redis it is the sealed value itself, in a file that is named by the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from prefect_lite.exceptions import MissingResult, ResultDamaged, SerializationError
from prefect_lite.filesystems import LocalFileSystem, reading, writing
from prefect_lite.result_storage import resolving, storage_from_spec, storage_spec
from prefect_lite.settings import get_settings
from prefect_lite.thread_or_loop import Waits, in_thread

if TYPE_CHECKING:
    from prefect_lite.context import RunContext
    from prefect_lite.filesystems import WritableFileSystem
    from prefect_lite.keyring import Keyring
    from prefect_lite.result_records import ResultRecord
    from prefect_lite.settings import Settings

FOLDER: Final = "long-results"
"""Of sealed values, in a storage."""

CLEAN_SECONDS: Final = 3_600.0
"""Files of results whose records have expired are looked for so often at most."""

SPARE_SECONDS: Final = 86_400.0
"""They are kept for so long beyond ``result_ttl_seconds``, as tasks may keep their records for longer."""

_UNREAD: Final[Any] = object()
_last_cleaned: dict[str, float] = {}


class StoredResult:
    """A run's value that is in a storage; it is read when it is first asked for.

    Args:
        keyring: Verifies it.
        namespace: Part of what was signed.
        task_key: Of the run.
        run_id: The run.
        reference: What ``of_record`` or ``of_file`` gave, and the run's worker has signed.
    """

    stands_for_a_value: ClassVar[bool] = True

    def __init__(
        self, keyring: Keyring, namespace: str, task_key: str, run_id: str, reference: Mapping[str, Any]
    ) -> None:
        self._signed = keyring, namespace, task_key, run_id
        self.reference = dict(reference)
        self._value: Any = _UNREAD

    @property
    def result(self) -> Any:
        """The value.

        Raises:
            MissingResult: It is not there any more, or damaged.
            StorageError: The storage can't be read.
        """
        return in_thread(self.getting())

    def getting(self) -> Waits[Any]:
        """``result`` for both threads and event loops."""
        if self._value is _UNREAD:
            self._value = yield from self._read()
        return self._value

    def _read(self) -> Waits[Any]:
        _, _, task_key, run_id = self._signed
        try:
            storage = yield from storage_from_spec(self.reference["storage"])
            if "record" in self.reference:
                from prefect_lite.results import ResultStore

                record = yield from ResultStore(result_storage=storage).reading(self.reference["record"])
                return (yield from record.getting())
            return (yield from self._opened(storage))
        except MissingResult as exc:
            whose = f"The result of run {UUID(run_id)} ({task_key})"
            raise type(exc)(f"{whose} can't be had from its storage: {exc}") from exc

    def _opened(self, storage: WritableFileSystem) -> Waits[Any]:
        from prefect_lite.envelope import open_outcome

        try:
            sealed = yield from reading(storage, self.reference["file"])
        except FileNotFoundError as exc:
            raise MissingResult(
                f"There is no {self.reference['file']} in {storage!r} (any more). Run the task again, or put "
                f"the file back."
            ) from exc
        try:
            kind, value = open_outcome(*self._signed, sealed)
        except SerializationError as exc:
            raise ResultDamaged(str(exc)) from exc
        if kind != "value":
            raise ResultDamaged(f"{self.reference['file']} holds no value.")
        return value

    def __repr__(self) -> str:
        return f"<StoredResult {self.reference.get('record') or self.reference.get('file')}>"


def of_record(record: ResultRecord[Any], storage: WritableFileSystem) -> dict[str, Any]:
    """The reference to a persisted result."""
    return {"storage": storage_spec(storage), "record": record.metadata.storage_key}


def storing(storage: WritableFileSystem, run_id: str, sealed: bytes) -> Waits[dict[str, Any]]:
    """Put a sealed value into a storage.

    Returns:
        The reference to it.

    Raises:
        StorageError: It can't be written.
    """
    path = f"{FOLDER}/{run_id}"
    yield from writing(storage, path, sealed)
    if isinstance(storage, LocalFileSystem) and storage.basepath is not None:
        _clean(str(storage.basepath))
    return {"storage": storage_spec(storage), "file": path}


def storage_for_long_results(context: RunContext, settings: Settings) -> Waits[WritableFileSystem | None]:
    """Where a result goes that is too long for Redis; None: there is no such place.

    It is the storage that the task, the flow around it or the settings name. Without any, a broker of this
    account's own has its workers and clients on this machine, so they share its files.
    """
    around: RunContext | None = context
    while around is not None:
        if around.options.result_storage is not None:
            return (yield from resolving(around.options.result_storage))
        around = around.enclosing
    if settings.result_storage:
        return (yield from resolving(settings.result_storage))
    if settings.broker_url:
        return None
    return LocalFileSystem(basepath=str(settings.storage_path or settings.home / "storage"))


def _clean(basepath: str) -> None:
    """Remove files whose runs no broker knows any more; other storages have rules of their own for that."""
    now = time.time()
    if now - _last_cleaned.get(basepath, 0.0) < CLEAN_SECONDS:
        return
    _last_cleaned[basepath] = now
    oldest = now - get_settings().result_ttl_seconds - SPARE_SECONDS
    with suppress(OSError):
        for path in (Path(basepath).expanduser() / FOLDER).iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
