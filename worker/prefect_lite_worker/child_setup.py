"""What a child process of a worker is started with: the tasks, a key, and the worker's settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from prefect_lite import child_program
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.keyring import Keyring
from prefect_lite.logging import get_logger
from prefect_lite.main_module import MAIN_NAMES, import_name_of
from prefect_lite.settings import Settings
from prefect_lite_worker.pipe import LONGEST_BYTES
from prefect_lite_worker.registry import AnyTask

_CODE = "from prefect_lite_worker.child import main; main(sys.argv[1])"


def command(descriptor: int) -> list[str]:
    """The command line of a child that finds its socket at this descriptor."""
    return child_program.command(_CODE, descriptor, __file__)


def environment(settings: Settings) -> dict[str, str]:
    """This process's, and the settings that were given to the worker rather than to the process."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    told = {
        f"PREFECT_LITE_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
        if value is not None
    }
    return {**os.environ, **told}


def pickled_task(task: AnyTask) -> bytes:
    """A task as another process can load it: by name if its module can be imported, else as a copy.

    Raises:
        ConfigurationError: It can't be loaded in another process.
    """
    from prefect_lite.pickling import dumps

    if import_name_of(task) in MAIN_NAMES:
        raise ConfigurationError(
            f"{task.name} is defined in a program without a file (python -c, a notebook), which other "
            "processes can't import. Put it into a module, or serve it with ThreadPoolTaskRunner."
        )
    try:
        return dumps(task)
    except Exception as exc:  # what it refers to may raise anything
        raise ConfigurationError(
            f"{task.name} can't be sent to another process ({type(exc).__name__}: {exc}). Define it at the "
            "top level of a module, or serve it with ThreadPoolTaskRunner."
        ) from exc


def start_message(
    tasks: Iterable[AnyTask], keyring: Keyring, settings: Settings, *, measured: bool
) -> dict[str, Any]:
    """All a child is told when it starts, as plain data.

    Args:
        tasks: What it has to execute.
        keyring: The one that worker and child share, which is not the real one.
        settings: Of the worker.
        measured: It says how much memory it has after each run.
    """
    return {
        "program": child_program.program(),
        "tasks": [[[task.key, *task.aliases], pickled_task(task)] for task in tasks],
        "key": [keyring.signing_id, keyring.signing_key],
        "namespace": settings.namespace,
        "max_payload_bytes": LONGEST_BYTES,
        "log_level": get_logger().getEffectiveLevel(),
        "measured": measured,
    }
