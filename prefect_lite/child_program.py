"""How a process like this one is started anew: the command line, and what makes its modules importable there.

Children are started with ``exec``, as ``multiprocessing``'s *spawn* does: a forked copy of a process with
threads can hang on a lock that one of them held. They import what they need themselves; the program's own
file is imported there as ``__mp_main__``, so what is under ``if __name__ == "__main__"`` does not run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import process
from pathlib import Path
from typing import Any

import prefect_lite
from prefect_lite.main_module import MAIN_NAMES, registered_name

imported_only = False
"""This is a child that is just importing the program, which must not start anything by that."""


def command(code: str, descriptor: int, *files: str) -> list[str]:
    """The command line of a child.

    Args:
        code: What it runs, with ``sys`` imported; the descriptor is ``sys.argv[1]``.
        descriptor: Of its socket.
        files: Modules (``__file__``) of packages that have to be found before the program's path is known.
    """
    # Only to find us; what the program has made of its path comes with the first message.
    folders = {str(Path(file).parents[1]): None for file in (str(prefect_lite.__file__), *files)}
    # -P: the current directory is no place to look for our own modules.
    flags = ["-P", *_interpreter_flags()]
    start = f"import sys; sys.path[:0] = sys.argv[2:]; {code}"
    return [sys.executable, *flags, "-c", start, str(descriptor), *folders]


def _interpreter_flags() -> list[str]:
    """Those of this interpreter that matter to code: warnings, optimization, development mode."""
    made: Any = getattr(subprocess, "_args_from_interpreter_flags", list)  # what multiprocessing uses
    return [flag for flag in made() if flag != "-P"]


def program() -> dict[str, Any]:
    """What makes modules of this program importable in a child, for ``multiprocessing.spawn.prepare``."""
    original: str | None = getattr(process, "ORIGINAL_DIR", None)
    folders = [folder or original or os.getcwd() for folder in sys.path]
    found: dict[str, Any] = {"sys_path": folders, "sys_argv": sys.argv, "dir": os.getcwd()}
    if not registered_name():
        return found  # it has defined no task: what is in there goes by value, as everywhere
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in MAIN_NAMES:
        found["init_main_from_name"] = spec.name
    else:
        found["init_main_from_path"] = os.path.join(original or "", str(main.__file__))
    return found
