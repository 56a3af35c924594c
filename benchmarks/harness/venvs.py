"""One virtual environment per peer, made once and kept until its list of requirements changes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.declaration import Peer

FOLDER = Path(__file__).parents[1] / ".venvs"
INSTALL_SECONDS = 600.0
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
PIP += ["--retries", "1", "--timeout", "20"]  # without a network the peer is soon skipped


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
    with _locked(peer.name):
        if not is_installed(peer):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                make(peer, folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder / "bin" / "python"


def is_installed(peer: Peer) -> bool:
    """Whether its venv is there and holds what the peer requires."""
    folder = FOLDER / peer.name
    stamp = folder / "installed.txt"
    return not peer.requirements or (
        (folder / "bin" / "python").exists() and stamp.is_file() and stamp.read_text() == stamp_of(peer)
    )


def make(peer: Peer, folder: Path) -> None:
    run_step([sys.executable, "-m", "venv", str(folder)])
    run_step([str(folder / "bin" / "python"), *PIP, *peer.requirements])
    (folder / "installed.txt").write_text(stamp_of(peer))


def stamp_of(peer: Peer) -> str:
    return "\n".join((sys.version, *peer.requirements))


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Two runs at once make a venv one after the other: the second one finds it made."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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


def run_step(command: list[str]) -> None:
    """One step of an installation, in a session of its own: ended with what it has started."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not installed within {INSTALL_SECONDS:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise NotInstalled(_last_line(output))


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1][:300] if lines else "no message"
