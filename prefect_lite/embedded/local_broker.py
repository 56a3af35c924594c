"""Find the broker of this account, or start it; stop it; say how it is.

Who may do what is decided by two file locks (see ``home.py``). ``broker.lock`` is held by the broker from its
first step until its Valkey has ended, so there is never a second one, not even while the first is stopping.
``start.lock`` is held by whoever looks for a broker after a direct connection failed, so of twenty processes
that start together one starts the broker and nineteen find it.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_lite import version as package
from prefect_lite.embedded.home import (
    Home,
    Tokens,
    load_or_create_tokens,
    prepare_home,
    read_record,
    runtime_directory,
)
from prefect_lite.embedded.locks import FileLock, LockTimeout, is_locked, owner_of
from prefect_lite.embedded.processes import end_process, hostname, start_detached
from prefect_lite.exceptions import EmbeddedStartError

if TYPE_CHECKING:
    from prefect_lite.settings import Settings

POLL_SECONDS = 0.01
CONNECT_SECONDS = 2.0
STOP_SECONDS = 20.0
# A first start compiles the byte code and may have to load an append-only file, on a machine busy with tests.
MIN_START_SECONDS = 30.0
BROKER_MODULE = "prefect_lite_broker.embedded"
# Belong to another kind of broker, or are read from the home directory by everybody.
_NOT_PASSED_ON = frozenset(
    {
        "home",
        "runtime_dir",
        "broker_url",
        "redis_url",
        "keyring",
        "client_token",
        "worker_token",
        "admin_token",
    }
)


class Target(NamedTuple):
    """Where the local broker listens, and the tokens it wants."""

    unix_path: str
    tokens: Tokens


class LocalStatus(NamedTuple):
    """What can be told of the local broker without connecting to it.

    Attributes:
        state: ``"stopped"``, ``"starting"``, ``"running"``, ``"unreachable"`` (alive, but its socket does not
            answer) or ``"orphaned"`` (the broker is gone, its Valkey still runs).
        pid: The broker's process, 0 when there is none.
    """

    state: str
    pid: int = 0
    version: str = ""
    unix_path: str = ""
    valkey_pid: int = 0


def find_or_start(settings: Settings) -> Target:
    """Find the running broker of this home directory, or start one and wait until it listens.

    Blocking (milliseconds when it runs, under a second to start it); safe from many processes at once.

    Args:
        settings: ``home`` and ``runtime_dir`` say where; settings given by the environment or in code are
            handed to a broker that is started.

    Raises:
        EmbeddedStartError: With one sentence on what is in the way.
    """
    home = prepare_home(settings)
    tokens = load_or_create_tokens(settings)
    path = _reachable(home)
    if path:
        return Target(path, tokens)
    deadline = time.monotonic() + max(settings.connect_timeout_seconds, MIN_START_SECONDS)
    with _start_lock(home, deadline - time.monotonic()):
        return Target(_start_under_lock(home, settings, deadline), tokens)


def _start_under_lock(home: Home, settings: Settings, deadline: float) -> str:
    reason = ""
    started = False
    while True:
        # What we started ourselves is taken as it is: replacing it again would never end.
        path = _reachable(home, any_version=started)
        if path:
            return path
        if time.monotonic() > deadline:
            raise EmbeddedStartError(reason or _why_unreachable(home))
        owner = owner_of(home.broker_lock)
        if owner is None:
            reason = _start(home, settings, deadline)
            started = True
        elif not started and owner.get("listening") and _is_older(str(owner.get("version", ""))):
            stop_broker(home, owner)
        else:  # starting, or about to end: a matter of moments either way
            _refuse_other_host(home, owner)
            time.sleep(POLL_SECONDS)


def _reachable(home: Home, *, any_version: bool = False) -> str:
    """The socket of a broker that listens and is not older than we are; "" when there is none."""
    record = read_record(home.broker_record)
    path = str(record.get("unix_path", ""))
    if not path or record.get("host") != hostname():
        return ""
    if not any_version and _is_older(str(record.get("version", ""))):
        return ""
    return path if can_connect(path) else ""


def can_connect(unix_path: str) -> bool:
    """Whether somebody accepts connections on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(unix_path)
        except OSError:
            return False
    return True


def _is_older(version: str) -> bool:
    """Whether a broker's version is older than ours; one that is newer is used as it is."""
    return _version_key(version) < _version_key(package.__version__)


def _version_key(version: str) -> list[int]:
    release = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in release.group().split(".")] if release else []


def _refuse_other_host(home: Home, owner: dict[str, Any]) -> None:
    host = owner.get("host")
    if host and host != hostname():
        raise EmbeddedStartError(
            f"{home.root} is in use by a broker on the machine {host}; set PREFECT_LITE_BROKER_URL to reach "
            "that one, or PREFECT_LITE_HOME to a directory of this machine."
        )


def _why_unreachable(home: Home) -> str:
    owner = owner_of(home.broker_lock) or {}
    return (
        f"The local broker (pid {owner.get('pid', 'unknown')}) does not answer yet; it may still be loading "
        f"its data, see {home.broker_log} and {home.valkey_log}."
    )


# ------------------------------------------------------------------------------------------------------ start


def _start(home: Home, settings: Settings, deadline: float) -> str:
    """Start a broker process and wait until it says that it listens, or why it can't.

    It reports over a pipe that it closes before it serves: the end of the pipe also tells when it has died.

    Returns:
        "" or, when another broker was quicker, the sentence that said so.
    """
    runtime_directory(settings)  # refuse here and now what the broker could only write to its log
    if not sys.executable:
        raise EmbeddedStartError("Python does not know its own path, so no broker can be started.")
    reader, writer = os.pipe()
    try:
        # -P keeps the current directory off the import path: a user's redis.py must not be the broker's.
        command = [sys.executable, "-P", "-m", BROKER_MODULE, "--ready-fd", str(writer)]
        start_detached(
            command,
            cwd=home.root,
            env={**os.environ, **_environment(home, settings)},
            log=home.broker_log,
            pass_fds=(writer,),
        )
    except OSError as exc:
        os.close(reader)
        raise EmbeddedStartError(f"The local broker could not be started ({exc}).") from exc
    finally:
        os.close(writer)
    try:
        report = _read_report(reader, deadline)
    finally:
        os.close(reader)
    kind, _, text = report.partition(":")
    if kind in ("ready", "busy"):
        return text.strip()
    if kind == "failed":
        raise EmbeddedStartError(text.strip())
    raise EmbeddedStartError(
        f"The local broker {'ended' if report == 'ended' else 'did not come up in time'}; "
        f"see {home.broker_log}."
    )


def _read_report(reader: int, deadline: float) -> str:
    """The broker's one line: ``ready:``, ``busy: ...`` or ``failed: ...``; ``ended`` or "" without one."""
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return ""
        part = os.read(reader, 4096)
        if not part:
            return "ended"
        data += part
    return data.decode(errors="replace").strip()


def _environment(home: Home, settings: Settings) -> dict[str, str]:
    """The settings that were given to this process, as environment variables for the broker."""
    given = settings.model_fields_set - _NOT_PASSED_ON
    variables = {f"PREFECT_LITE_{name.upper()}": str(getattr(settings, name)) for name in given}
    variables["PREFECT_LITE_HOME"] = str(home.root)
    if settings.runtime_dir is not None:
        variables["PREFECT_LITE_RUNTIME_DIR"] = os.path.abspath(settings.runtime_dir.expanduser())
    return variables


# ----------------------------------------------------------------------------------------------- stop, status


def stop_broker(home: Home, owner: dict[str, Any], timeout_seconds: float = STOP_SECONDS) -> None:
    """End the broker that ``owner`` (of ``broker.lock``) describes; its Valkey ends with it.

    Raises:
        EmbeddedStartError: It did not end, or runs on another machine.
    """
    _refuse_other_host(home, owner)
    pid = int(owner.get("pid", 0))
    if not end_process(
        pid, str(owner.get("started", "")), lambda: not is_locked(home.broker_lock), timeout_seconds
    ):
        raise EmbeddedStartError(f"The local broker (pid {pid}) can't be ended.")


def stop_valkey(home: Home, timeout_seconds: float = STOP_SECONDS) -> None:
    """End the Valkey of this home, if one runs. Only for the holder of ``broker.lock``.

    Raises:
        EmbeddedStartError: It did not end.
    """
    record = read_record(home.valkey_record)
    pid = int(record.get("pid", 0))
    if is_locked(home.valkey_lock) and not end_process(
        pid, str(record.get("started", "")), lambda: not is_locked(home.valkey_lock), timeout_seconds
    ):
        raise EmbeddedStartError(f"The Valkey server that holds {home.data} (pid {pid}) can't be ended.")


def stop_local(settings: Settings, timeout_seconds: float = STOP_SECONDS) -> bool:
    """Stop the local broker and its Valkey, also a Valkey that lost its broker.

    Returns:
        False when nothing ran.

    Raises:
        EmbeddedStartError: Something could not be ended.
    """
    home = prepare_home(settings)
    with _start_lock(home, timeout_seconds):
        owner = owner_of(home.broker_lock)
        if owner is not None:
            stop_broker(home, owner, timeout_seconds)
        orphaned = is_locked(home.valkey_lock)
        if orphaned:
            with FileLock(home.broker_lock, timeout_seconds):
                stop_valkey(home, timeout_seconds)
        return owner is not None or orphaned


def local_status(settings: Settings) -> LocalStatus:
    """Look at locks, records and the socket; starts nothing."""
    home = prepare_home(settings)
    owner = owner_of(home.broker_lock)
    valkey = read_record(home.valkey_record)
    valkey_pid = int(valkey.get("pid", 0)) if is_locked(home.valkey_lock) else 0
    if owner is None:
        return LocalStatus("orphaned" if valkey_pid else "stopped", valkey_pid=valkey_pid)
    record = read_record(home.broker_record)
    pid = int(owner.get("pid", 0))
    if record.get("pid") != pid:
        return LocalStatus("starting", pid, valkey_pid=valkey_pid)
    path = str(record.get("unix_path", ""))
    state = "running" if can_connect(path) else "unreachable"
    return LocalStatus(state, pid, str(record.get("version", "")), path, valkey_pid)


@contextmanager
def _start_lock(home: Home, timeout_seconds: float) -> Generator[None]:
    lock = FileLock(home.start_lock)
    try:
        lock.acquire(timeout_seconds)
    except LockTimeout as exc:
        raise EmbeddedStartError(
            f"Another process has been starting the broker of {home.root} for too long; "
            f"see {home.broker_log}."
        ) from exc
    except OSError as exc:
        raise EmbeddedStartError(f"Cannot lock {home.start_lock} ({exc.strerror}).") from exc
    try:
        yield
    finally:
        lock.release()
