"""The home directory of an account's broker, its secrets, and the short directory of its sockets.

::

    PREFECT_LITE_HOME/              0700
    ├── tokens.json  keyring.json   0600, made by whoever comes first
    ├── start.lock                  held while somebody looks for or starts the broker
    ├── broker.lock                 held by the broker until its Valkey has ended
    ├── broker.json                 where the running broker listens, and its version
    ├── data/                       Valkey's append-only file, valkey.lock (held by Valkey), valkey.json
    └── logs/                       broker.log, valkey.log
    runtime directory/<home id>/    0700: broker.sock, valkey.sock

The broker imports this module too (the tokens and paths are what both sides share), so it stays light: it
loads neither tasks nor pickles. The keyring is for clients and workers only.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prefect_lite.exceptions import ConfigurationError, EmbeddedStartError

if TYPE_CHECKING:
    from prefect_lite.keyring import Keyring
    from prefect_lite.settings import Settings

# `sun_path` holds 108 bytes on Linux and 104 elsewhere, with the closing zero.
SOCKET_PATH_LIMIT = 108 if sys.platform == "linux" else 104
LONGEST_SOCKET_NAME = "broker.sock"


class Tokens(NamedTuple):
    """Bearer tokens, one per role."""

    client: str
    worker: str
    admin: str

    def for_role(self, role: str) -> str:
        """The token of ``"client"``, ``"worker"`` or ``"admin"``."""
        return str(getattr(self, role))


@dataclass(frozen=True, slots=True)
class Home:
    """The paths below ``PREFECT_LITE_HOME``."""

    root: Path

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def keyring(self) -> Path:
        return self.root / "keyring.json"

    @property
    def start_lock(self) -> Path:
        """Held while somebody looks for or starts the broker."""
        return self.root / "start.lock"

    @property
    def broker_lock(self) -> Path:
        """Held by the broker from its first step until its Valkey has ended; names its pid."""
        return self.root / "broker.lock"

    @property
    def broker_record(self) -> Path:
        """Written when the broker listens: pid, version, unix path, host."""
        return self.root / "broker.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def valkey_lock(self) -> Path:
        """Held by the Valkey process itself, through an inherited descriptor."""
        return self.data / "valkey.lock"

    @property
    def valkey_record(self) -> Path:
        """Pid and socket of the Valkey that was started last."""
        return self.data / "valkey.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def broker_log(self) -> Path:
        return self.logs / "broker.log"

    @property
    def valkey_log(self) -> Path:
        return self.logs / "valkey.log"


def may_have_runs(settings: Settings) -> bool:
    """Whether a broker has run that these settings lead to; else nobody knows of any run on a worker."""
    return bool(settings.broker_url) or (settings.home.expanduser() / "data").exists()


def prepare_home(settings: Settings) -> Home:
    """Make sure that the home directory and its folders exist and are private.

    A new directory gets mode 0700; from an existing one only the right of others to write is taken.

    Raises:
        EmbeddedStartError: It can't be made or written, or belongs to somebody else.
    """
    root = Path(os.path.abspath(settings.home.expanduser()))
    home = Home(root)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = root.stat()
        if info.st_uid != os.geteuid():
            raise EmbeddedStartError(
                f"{root} belongs to another user (uid {info.st_uid}); "
                "set PREFECT_LITE_HOME to a directory of your own."
            )
        if info.st_mode & 0o022:
            root.chmod(stat.S_IMODE(info.st_mode) & ~0o022)
        for directory in (home.data, home.logs):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise EmbeddedStartError(
            f"Cannot use {root} as the home directory ({exc.strerror}: {exc.filename}); "
            "set PREFECT_LITE_HOME to a directory that you can write to."
        ) from exc
    if not os.access(root, os.W_OK | os.X_OK):
        raise EmbeddedStartError(
            f"Cannot write to {root}; set PREFECT_LITE_HOME to a directory that you can write to."
        )
    return home


def runtime_directory(settings: Settings) -> Path:
    """The private directory for the sockets of this home, made if necessary.

    Below ``PREFECT_LITE_RUNTIME_DIR``, else ``XDG_RUNTIME_DIR/prefect-lite``, else
    ``/tmp/prefect-lite-<uid>``; the last part is a digest of the home directory: homes never share sockets.

    Raises:
        EmbeddedStartError: It belongs to somebody else, can't be made, or the paths would be too long.
    """
    root = os.path.realpath(settings.home.expanduser())
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    if settings.runtime_dir is not None:
        parents = [Path(os.path.abspath(settings.runtime_dir.expanduser()))]
        private_parent = False  # the user's own choice, /tmp for example
    else:
        xdg = os.environ.get("XDG_RUNTIME_DIR", "")
        candidates = [Path(xdg) / "prefect-lite"] if xdg and os.access(xdg, os.W_OK | os.X_OK) else []
        parents = [*candidates, Path("/tmp") / f"prefect-lite-{os.geteuid()}"]
        private_parent = True
    parent = next((path for path in parents if _fits(path / name)), parents[-1])
    if not _fits(parent / name):
        raise EmbeddedStartError(
            f"The socket path {parent / name / LONGEST_SOCKET_NAME} has {SOCKET_PATH_LIMIT} bytes or more, "
            "which the system refuses; set PREFECT_LITE_RUNTIME_DIR to a shorter directory."
        )
    try:
        if private_parent:
            _make_private(parent)
        else:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _make_private(parent / name)
    except OSError as exc:
        raise EmbeddedStartError(
            f"Cannot use {parent} for sockets ({exc.strerror}); "
            "set PREFECT_LITE_RUNTIME_DIR to a short directory that you can write to."
        ) from exc


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / LONGEST_SOCKET_NAME)) < SOCKET_PATH_LIMIT


def _make_private(directory: Path) -> Path:
    """Make a 0700 directory, or check that the one there is ours: in /tmp anybody could have put it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise EmbeddedStartError(
            f"{directory} is not a directory of this user (uid {os.geteuid()}); remove it, or set "
            "PREFECT_LITE_RUNTIME_DIR to a directory of your own."
        )
    if info.st_mode & 0o077:
        directory.chmod(0o700)
    return directory


# ---------------------------------------------------------------------------------------------------- secrets


def load_or_create_tokens(settings: Settings) -> Tokens:
    """The tokens of this home, from ``HOME/tokens.json``; made on the first call in any process.

    Tokens in the settings are not looked at: they belong to a broker with a URL (see ``configured_tokens``).

    Raises:
        EmbeddedStartError: The home directory can't be used.
        ConfigurationError: The file is damaged.
    """
    home = prepare_home(settings)
    if not home.tokens.exists():
        made = {role: secrets.token_urlsafe(32) for role in Tokens._fields}
        write_private(home.tokens, json.dumps(made, indent=1).encode(), replace=False)
    return _read_tokens(home.tokens)


def configured_tokens(settings: Settings) -> Tokens:
    """For a broker given by URL: the tokens in the settings, those of the home directory filling the gaps.

    A token that is nowhere is "".
    """
    path = Home(settings.home.expanduser()).tokens
    stored = _read_tokens(path) if path.is_file() else Tokens("", "", "")
    return Tokens(
        client=settings.client_token or stored.client,
        worker=settings.worker_token or stored.worker,
        admin=settings.admin_token or stored.admin,
    )


def _read_tokens(path: Path) -> Tokens:
    record = read_record(path)
    values = [record.get(role) for role in Tokens._fields]
    if not all(isinstance(value, str) and value for value in values):
        raise ConfigurationError(
            f"{path} does not hold the three tokens {', '.join(Tokens._fields)}; "
            "restore it, or delete it and restart the broker to have new ones made."
        )
    return Tokens(*cast("list[str]", values))


def load_or_create_keyring(settings: Settings) -> Keyring:
    """The payload keyring: ``settings.keyring`` if set, else ``HOME/keyring.json``, made on the first call.

    Raises:
        EmbeddedStartError: The home directory can't be used.
        ConfigurationError: The configured file is missing, or the file is damaged.
    """
    from prefect_lite.keyring import Keyring

    if settings.keyring:
        path = Path(settings.keyring).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"PREFECT_LITE_KEYRING names {path}, which does not exist.")
        return Keyring.load(path)
    home = prepare_home(settings)
    return Keyring.load(home.keyring) if home.keyring.exists() else Keyring.create(home.keyring)


# ---------------------------------------------------------------------------------------------------- records


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file as a whole, with mode 0600; a reader sees the old content or the new, never a part.

    Args:
        path: The file.
        data: Its content.
        replace: False keeps a file that is there; of several processes that make it, the first wins.

    Raises:
        EmbeddedStartError: The directory can't be written (full, read-only).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                with suppress(FileExistsError):
                    os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise EmbeddedStartError(f"Cannot write {path} ({exc.strerror}).") from exc


def read_record(path: Path) -> dict[str, Any]:
    """Read a small JSON object; {} when there is none or it is damaged."""
    try:
        value: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
