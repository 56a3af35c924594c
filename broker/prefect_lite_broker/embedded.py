"""The embedded broker: the ordinary broker beside a Valkey server of its own, on unix sockets.

Started detached by ``prefect_lite.embedded.find_or_start`` (``python -m prefect_lite_broker.embedded``) or
in the foreground by ``prefect-lite broker``. The order is the point: take ``broker.lock``, start or adopt
Valkey, listen, write the record, report; and backwards, so that the lock is free only after Valkey has closed
its files, and nobody starts a second broker before that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefect_lite import version as package
from prefect_lite.embedded.home import (
    Home,
    load_or_create_tokens,
    prepare_home,
    runtime_directory,
    write_private,
)
from prefect_lite.embedded.locks import FileLock, LockTimeout, is_locked, owner_of
from prefect_lite.embedded.processes import hostname, identity
from prefect_lite.exceptions import EmbeddedStartError, PrefectLiteError
from prefect_lite.settings import Settings, load_settings
from prefect_lite_broker.app import Broker
from prefect_lite_broker.auth import Auth
from prefect_lite_broker.process import keep_what_is_loaded, run, set_up_logging
from prefect_lite_broker.redis_store import RedisStore
from prefect_lite_broker.valkey import EmbeddedValkey

logger = logging.getLogger(__name__)

LOCK_SECONDS = 2.0
CHECK_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class AlreadyRunning(EmbeddedStartError):
    """Another broker serves this home directory."""


class Report:
    """Tells the starter over a pipe, once, how the start went; then the pipe is closed."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd

    def send(self, kind: str, text: str = "") -> None:
        """``kind`` is ``ready``, ``busy`` (another broker was quicker) or ``failed``."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with contextlib.suppress(BrokenPipeError):  # the starter has given up or was killed
            os.write(fd, f"{kind}: {' '.join(text.split())}\n".encode()[:4096])
        os.close(fd)


class Options(NamedTuple):
    """How an embedded broker is run.

    Attributes:
        host: With ``port``: where to listen besides the unix socket.
        port: TCP port, 0 for any; None for the unix socket only.
        no_auth: Ask for no tokens.
        insecure: Listen beyond loopback without TLS.
        stop_when_idle: End after ``idle_seconds`` without a connection (never in the foreground).
    """

    host: str = "127.0.0.1"
    port: int | None = None
    no_auth: bool = False
    insecure: bool = False
    stop_when_idle: bool = False


async def run_embedded(
    settings: Settings, options: Options | None = None, report: Report | None = None
) -> int:
    """Run the embedded broker until a signal, an administrator or idleness ends it.

    Args:
        settings: ``home`` and ``runtime_dir`` say where; ``redis_url`` is not looked at.
        options: See ``Options``.
        report: Told when it listens.

    Returns:
        The exit code of the process.

    Raises:
        AlreadyRunning: Another broker holds this home directory.
        EmbeddedStartError: Valkey or the directories can't be used, with one sentence on why.
        ConfigurationError: It can't listen at ``host`` and ``port``.
    """
    home = prepare_home(settings)
    runtime = runtime_directory(settings)
    lock = _take_lock(home)
    stop = StopSignal()
    valkey = EmbeddedValkey(home, runtime, settings.appendfsync)
    try:
        try:
            if await stop.or_done(valkey.start()):
                place = _Place(home, runtime / "broker.sock", lock)
                settings = settings.model_copy(update={"redis_url": valkey.redis_url})
                serving = _Serving(settings, options or Options(), place, valkey, stop)
                await serving.run(report or Report())
        finally:
            await valkey.stop()
    finally:
        stop.close()
        lock.release()
    return 0


def _take_lock(home: Home) -> FileLock:
    lock = FileLock(home.broker_lock)
    try:
        lock.acquire(LOCK_SECONDS)
    except LockTimeout:
        owner = owner_of(home.broker_lock) or {}
        raise AlreadyRunning(
            f"A broker already runs for {home.root} (pid {owner.get('pid', 'unknown')}); "
            "`prefect-lite broker stop` ends it."
        ) from None
    home.broker_record.unlink(missing_ok=True)  # of one that was killed
    lock.write_owner(_owner(listening=False))
    return lock


def _owner(*, listening: bool) -> dict[str, object]:
    pid = os.getpid()
    return {
        "pid": pid,
        "started": identity(pid),
        "host": hostname(),
        "version": package.__version__,
        "listening": listening,
    }


class StopSignal:
    """Remembers that SIGINT or SIGTERM came, from the first step on."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.reason = ""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.ask, number.name)

    def ask(self, reason: str) -> None:
        """Have the broker stop."""
        self.reason = self.reason or reason
        self.asked.set()

    async def or_done(self, step: Coroutine[Any, Any, None]) -> bool:
        """Wait for a step of the start; False when the stop came first (the step is cancelled)."""
        task = asyncio.ensure_future(step)
        stop = asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.wait((task, stop))

    def close(self) -> None:
        """Leave the signals to their defaults again."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


class _Place:
    """Where the broker is found: its socket, its record, and the lock that names its process."""

    def __init__(self, home: Home, unix_path: Path, lock: FileLock) -> None:
        self.home = home
        self.unix_path = unix_path
        self._lock = lock
        self._inode = 0

    def announce(self, addresses: list[str]) -> None:
        """From now on clients and workers find it."""
        self._inode = self.unix_path.stat().st_ino
        record = {**_owner(listening=True), "unix_path": str(self.unix_path), "addresses": addresses}
        write_private(self.home.broker_record, json.dumps(record).encode())
        self._lock.write_owner(_owner(listening=True))

    def withdraw(self) -> None:
        """Nobody should be sent to a socket that is about to close."""
        self.home.broker_record.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what is left of the socket."""
        self.unix_path.unlink(missing_ok=True)

    @property
    def is_there(self) -> bool:
        """False when the socket was removed under us (a cleaned /tmp, a logout)."""
        try:
            return self.unix_path.stat().st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # says nothing about the socket
            return True


class _Serving:
    """One broker on its sockets, from listening to the end."""

    def __init__(
        self, settings: Settings, options: Options, place: _Place, valkey: EmbeddedValkey, stop: StopSignal
    ) -> None:
        self._options = options
        self._place = place
        self._valkey = valkey
        self._stop = stop
        self._idle_seconds = settings.idle_seconds if options.stop_when_idle else 0.0
        broker_id = f"embedded-{os.getpid()}"
        self._broker = Broker(
            settings,
            RedisStore(settings, broker_id),
            broker_id=broker_id,
            # Those of the home only: all find the same, whatever tokens one starter's environment has.
            auth=Auth(None if options.no_auth else load_or_create_tokens(settings)._asdict()),
            insecure=options.insecure,
        )

    async def run(self, report: Report) -> None:
        place, broker = self._place, self._broker
        await broker.start(unix_path=str(place.unix_path), host=self._options.host, port=self._options.port)
        try:
            place.announce(broker.addresses)
            logger.info("Listening on %s", ", ".join(broker.addresses))
            report.send("ready")
            keep_what_is_loaded()
            logger.info("Stopping: %s", await self._until_end())
        finally:
            place.withdraw()
            await broker.stop()
            place.clear()

    async def _until_end(self) -> str:
        """Wait until the broker has to stop; returns why."""
        duties = [
            asyncio.ensure_future(self._valkey.run()),
            asyncio.ensure_future(self._stop.asked.wait()),
            asyncio.ensure_future(self._broker.serve()),
        ]
        pause = min(CHECK_SECONDS, self._idle_seconds / 4) if self._idle_seconds else CHECK_SECONDS
        try:
            while True:
                done, _ = await asyncio.wait(duties, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for duty in done:
                    duty.result()
                    return self._stop.reason or self._broker.stop_reason
                if not self._place.is_there:
                    return f"the socket {self._place.unix_path} is gone, so nobody could find this broker"
                if self._is_idle():
                    return f"nobody was connected for {self._idle_seconds:g} s"
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)

    def _is_idle(self) -> bool:
        """Whether to stop; not while somebody is looking for a broker, who would have to start it again."""
        if not self._idle_seconds or self._broker.idle_seconds < self._idle_seconds:
            return False
        try:
            return not is_locked(self._place.home.start_lock)
        except OSError as exc:
            logger.warning("Can't tell whether somebody is looking for a broker (%s)", exc)
            return False


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the detached broker; output goes to ``HOME/logs/broker.log``."""
    parser = argparse.ArgumentParser(description="The local broker; started by clients and workers.")
    parser.add_argument("--ready-fd", type=int, default=-1, help="a pipe to report the start on")
    args = parser.parse_args(argv)
    report = Report(args.ready_fd)
    os.umask(0o077)
    try:
        settings = load_settings()
        set_up_logging(settings, dates=True)
        return run(run_embedded(settings, Options(stop_when_idle=True), report))
    except AlreadyRunning as exc:
        logger.warning("%s", exc)
        report.send("busy", str(exc))
        return 1
    except PrefectLiteError as exc:
        logger.critical("%s", exc)
        report.send("failed", str(exc))
        return 1
    except OSError as exc:  # a full disk, no more descriptors, a file system without locks
        logger.critical("The local broker can't run", exc_info=True)
        report.send("failed", f"The local broker can't run: {exc}.")
        return 1


if __name__ == "__main__":
    sys.exit(main())
