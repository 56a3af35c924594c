"""Starts the measuring process, in an environment that is the same everywhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guard.figures import Figure, Figures

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT, ROOT / "worker", ROOT / "broker")
TIMEOUT_SECONDS = 100.0
_LEFT_OUT = ("PREFECT_LITE_", "PYTHON", "COV_", "COVERAGE_", "PYDEVD")
"""What would change the settings of the product or of the interpreter, or trace the process."""
_FIRST = "import benchmarks.guard.packing, sys"  # before the product
_THEN = "from benchmarks.guard.measuring import main; main(sys.argv[1:])"


class MeasuringFailed(Exception):
    """The measuring process told no figures."""


def environment(first: Sequence[Path]) -> dict[str, str]:
    """The measuring process's variables.

    Args:
        first: Where modules are looked for before PYTHONPATH and this tree.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    given = os.environ.get("PYTHONPATH", "")
    paths = [*map(str, first), *filter(None, given.split(os.pathsep)), *map(str, PACKAGES)]
    return env | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}


def measured(groups: Sequence[str] = (), *, plant: str = "", first: Sequence[Path] = ()) -> Figures:
    """The figures of some groups, of all by default.

    Args:
        groups: Their names.
        plant: Python that the measuring process executes before; the tests slow something down with it.
        first: As for ``environment``.

    Raises:
        MeasuringFailed: With the reason, as far as the process told one.
    """
    program = f"{_FIRST}\n{plant}\n{_THEN}"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *groups],
        env=environment(first),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, told = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise MeasuringFailed(f"Nothing was measured within {TIMEOUT_SECONDS:g} s.") from exc
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a server that was left behind
        process.wait()
    if process.returncode:
        raise MeasuringFailed(told.strip() or f"The measuring process ended with {process.returncode}.")
    return {name: Figure(*values) for name, values in json.loads(out).items()}
