"""A home directory of its own for the time of a test: environment, settings, client, files and processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_lite.client.runtime import Runtime, close_runtime, install_runtime
from prefect_lite.embedded.local_broker import stop_local
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import Settings, get_settings
from prefect_lite.waiting import close_callbacks

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "PREFECT_LITE_"

SHORT_FOLDER = "/tmp"
"""Socket paths are short, and those of test runners' own temporary directories are not."""

DEFAULTS: dict[str, Any] = {
    "test_clock": True,
    "appendfsync": "no",  # it is thrown away
    "idle_seconds": 10.0,  # should this process be killed, so that nobody stops the broker
    "backoff_min_seconds": 0.01,
    "backoff_max_seconds": 0.5,
    "watch_refresh_seconds": 1.0,
}

_ELSEWHERE = frozenset(
    {
        "home", "runtime_dir", "broker_url", "redis_url", "keyring", "namespace", "shards",
        "client_token", "worker_token", "admin_token",
    }
)  # fmt: skip
"""What may lead to the broker that the program uses outside of tests."""


_FIXED = frozenset({"home", "runtime_dir", "broker_url", "redis_url"})


class PrivateHome:
    """Makes this process use a broker of its own, and undoes it. Process-wide, like the settings it changes.

    Args:
        settings: By name, see ``prefect_lite.settings``.

    Raises:
        ConfigurationError: There is no such setting.

    Attributes:
        folder: With all its files, while entered; the last one afterwards.
        settings: As they are inside.
    """

    folder: Path | None = None
    settings: Settings

    def __init__(self, settings: Mapping[str, Any]) -> None:
        unknown = set(settings) - set(Settings.model_fields)
        if unknown:
            raise ConfigurationError(f"There is no setting {min(unknown)!r}.")
        elsewhere = set(settings) & _FIXED
        if elsewhere:
            raise ConfigurationError(
                f"test_harness() takes no {min(elsewhere)!r}: its broker and its files are its own."
            )
        self._given = {**DEFAULTS, **settings}
        self._environment: dict[str, str] = {}
        self._runtime: Runtime | None = None

    def enter(self) -> None:
        """Raises: ConfigurationError: A setting has an impossible value."""
        parent = SHORT_FOLDER if os.access(SHORT_FOLDER, os.W_OK | os.X_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="pl-test-", dir=parent))
        self._environment = {name: os.environ[name] for name in os.environ if _is_ours(name)}
        self._runtime = install_runtime(None)
        try:
            for name in self._environment:
                if name.upper().removeprefix(PREFIX).lower() in _ELSEWHERE | set(self._given):
                    del os.environ[name]
            values = {**self._given, "home": self.folder / "home", "runtime_dir": self.folder}
            for name, value in values.items():
                os.environ[PREFIX + name.upper()] = str(value)
            get_settings.cache_clear()  # type: ignore[attr-defined]
            self.settings = get_settings()
        except BaseException:
            self._restore()
            raise

    def leave(self) -> None:
        """End the client, the broker and its Valkey, and remove every trace.

        Raises:
            EmbeddedStartError: A process can't be ended.
        """
        try:
            close_runtime()
            close_callbacks()
            stop_local(self.settings)
        finally:
            self._restore()

    def _restore(self) -> None:
        for name in [name for name in os.environ if _is_ours(name)]:
            del os.environ[name]
        os.environ.update(self._environment)
        get_settings.cache_clear()  # type: ignore[attr-defined]
        install_runtime(self._runtime)
        while self.folder is not None and self.folder.exists():
            with suppress(FileNotFoundError):  # something that ends has removed a file of its own just now
                shutil.rmtree(self.folder)


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX)
