"""One virtual environment per peer, made once and kept until its list of requirements changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from harness.declaration import Peer

FOLDER = Path(__file__).parents[1] / ".venvs"
INSTALL_SECONDS = 600.0


class NotInstalled(Exception):
    """A peer's venv could not be made; the text is the reason, as pip gave it."""


def python_of(peer: Peer) -> Path:
    """The interpreter of the peer's venv, made first where it is missing or out of date.

    Raises:
        NotInstalled: pip or venv failed.
    """
    if not peer.requirements:
        return Path(sys.executable)
    folder = FOLDER / peer.name
    python = folder / "bin" / "python"
    stamp = folder / "installed.txt"
    wanted = "\n".join((sys.version, *peer.requirements))
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([str(python), "-m", "pip", "install", *quiet, *peer.requirements])
    stamp.write_text(wanted)
    return python


def versions_of(peer: Peer, python: Path) -> dict[str, str]:
    """The installed versions of the distributions that the peer wants named."""
    code = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *peer.distributions],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise NotInstalled(_last_line(done.stderr))
    return json.loads(done.stdout)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not installed within {INSTALL_SECONDS:.0f} s") from None
    if done.returncode:
        raise NotInstalled(_last_line(done.stderr or done.stdout))


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1][:300] if lines else "no message"
