"""What programs see under an interpreter, and what they saw under Prefect, kept in a file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inside import HUNG

INSIDE = Path(__file__).with_name("inside.py")
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    # A busy machine needs longer than the default until Prefect's temporary server answers.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
}


class Kept:
    """Outcomes in a file, one a line, each with the digest of the program that had it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path.exists():
            read = (json.loads(line) for line in path.read_text().splitlines())
            self._lines = {line["program"]: line for line in read}

    def get(self, program: str, digest: str) -> Any:
        """What the program saw, as ``{"saw": ...}``; None if it has not run as it is now."""
        line = self._lines.get(program)
        return line if line is not None and line.get("digest") == digest else None

    def add(self, program: str, digest: str, saw: Any) -> None:
        """Keep what the program saw, from the next `save` on."""
        self._lines[program] = {"program": program, "digest": digest, "saw": saw}

    def save(self) -> None:
        """Write the file anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text("".join(json.dumps(self._lines[name]) + "\n" for name in sorted(self._lines)))
        beside.replace(self.path)


def version_of(python: str, package: str) -> str:
    """The version of ``package`` that this interpreter has.

    Raises:
        LookupError: there is no such interpreter, or it doesn't have the package.
    """
    code = f"from importlib.metadata import version; print(version({package!r}))"
    try:
        asked = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as error:
        raise LookupError(f"{python} can't be started: {error}.") from error
    if asked.returncode:
        raise LookupError(f"{python} has no package {package}; see the README of this tool.")
    return asked.stdout.strip()


def outcomes(
    python: str, folder: Path, programs: list[str], scratch: Path, **variables: str
) -> Iterator[tuple[str, Any]]:
    """Execute the programs of ``folder`` under ``python`` and yield the name of each, and what it saw.

    A program that hangs or ends its process is an outcome as well, and the rest goes on in a new process.

    Args:
        python: path of the interpreter.
        folder: where the modules are.
        programs: names, in the order of execution.
        scratch: an existing folder for files that are not needed later.
        **variables: for the environment; no other variable that begins with ``PREFECT_`` is handed on.
    """
    left = list(programs)
    file = scratch / "lines.jsonl"
    while left:
        file.write_text("")
        code = _process([python, str(INSIDE), str(folder), str(file), *left], scratch, variables)
        saw = {line["program"]: line["saw"] for line in map(json.loads, file.read_text().splitlines())}
        left = [name for name in left if name not in saw]
        if left and code != HUNG:
            saw[left.pop(0)] = f"ends the process with {code}"
        yield from saw.items()


def _process(command: list[str], scratch: Path, variables: dict[str, str]) -> int:
    """Run to the end, and end what the process leaves behind (Prefect's server, if it was killed)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = kept | QUIET | {"PYTHONDONTWRITEBYTECODE": "1"} | variables
    with (scratch / "log").open("a") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
